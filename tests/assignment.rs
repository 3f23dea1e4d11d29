//! What the assignment asks of the allocator, line by line: each test runs a C program on it that checks
//! one line for itself, with the static library, under `LD_PRELOAD`, or both.

mod common;

use common::{passes, passes_alone, passes_undisturbed};

#[test]
fn blocks_up_to_eight_bytes_are_aligned_to_8_and_all_others_to_16() {
    passes("alignment.c", &[]);
}

#[test]
fn malloc_of_nothing_gives_a_distinct_pointer() {
    passes("zero.c", &[]);
}

#[test]
fn what_exceeds_ptrdiff_max_is_refused_with_enomem() {
    passes("toolarge.c", &[]);
}

#[test]
fn a_million_pairs_grow_the_heap_by_nothing() {
    passes_undisturbed("pairs.c", &[], "not so: break_now() <= before.end");
}

#[test]
fn freed_slots_are_used_before_a_new_slab_is_made() {
    passes("reuse.c", &[]);
}

#[test]
fn calloc_gives_zeros_and_refuses_overflow() {
    passes("calloc.c", &[]);
}

#[test]
fn fresh_pages_are_not_cleared_again_even_after_shrink_and_regrowth() {
    passes_alone("fresh.c", &[]);
}

#[test]
fn slots_that_nobody_had_are_not_cleared_again() {
    passes_alone("zeroed_slots.c", &[]);
}

#[test]
fn realloc_keeps_the_address_while_there_is_room_and_grows_spans_in_place() {
    passes("realloc.c", &[]);
}

#[test]
fn large_blocks_grow_by_mremap_and_are_never_copied() {
    passes("mremap.c", &[]);
}

#[test]
fn the_break_moves_in_whole_pages_first_little_and_then_seldom() {
    passes("break.c", &[]);
    passes_alone("break.c", &["alone"]);
}

/// The sizes whose overhead is bounded, in bytes.
const SIZES: [usize; 17] = [
    8, 16, 24, 32, 48, 64, 100, 128, 200, 256, 500, 512, 1000, 1024, 2048, 4000, 4096,
];

/// Break bytes over bytes asked for, and metadata bytes an object, of a fresh process with objects of
/// `size` bytes.
fn overhead(size: usize) -> (f64, f64) {
    let said = passes_alone("overhead.c", &[&size.to_string()]);
    let figures: Vec<f64> = said
        .split_whitespace()
        .map(|word| word.parse().expect("a number"))
        .collect();
    let [moved, asked, objects, metadata] = figures[..] else {
        panic!("four figures, not {said}")
    };
    (moved / asked, metadata / objects)
}

#[test]
fn the_break_moves_little_further_than_the_bytes_asked_for() {
    let ratios: Vec<f64> = SIZES.iter().map(|&size| overhead(size).0).collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    assert!(
        mean <= 1.05 && worst <= 1.12,
        "mean {mean:.4}, worst {worst:.4}: {SIZES:?} {ratios:.4?}"
    );
}

#[test]
fn small_objects_cost_at_most_1_2_bytes_of_metadata_each() {
    for size in SIZES.into_iter().filter(|&size| size <= 256) {
        let (_, metadata) = overhead(size);
        assert!(
            metadata > 0.0 && metadata <= 1.2,
            "{size} bytes: {metadata:.3} bytes an object"
        );
    }
}

#[test]
fn refill_goes_round_the_words_of_a_slab() {
    passes_alone("locality.c", &["words"]);
    passes_alone("locality.c", &["pairs"]);
}

#[test]
fn partial_slabs_are_used_in_the_order_in_which_they_got_free_slots() {
    passes_alone("locality.c", &["slabs"]);
    passes_alone("locality.c", &["single"]);
}

#[test]
fn the_heaps_end_goes_back_at_once_in_whatever_order_objects_are_freed() {
    for order in [
        "forward",
        "backward",
        "random",
        "even-then-odd",
        "inside-out",
    ] {
        passes("shrink.c", &[order, "1024"]);
    }
    for size in ["64", "640", "5000"] {
        passes_alone("shrink.c", &["random", size]);
    }
}

#[test]
fn the_heaps_end_goes_back_when_objects_of_many_sizes_are_freed() {
    for most in ["200", "1000", "8000"] {
        passes_alone("mixed.c", &[most]);
    }
}

#[test]
fn a_program_that_swells_again_and_again_pays_for_few_cycles() {
    passes_undisturbed("swell.c", &[], "not so: moves <= 20");
}

#[test]
fn empty_runs_inside_the_heap_are_purged() {
    passes("purge.c", &[]);
}

#[test]
fn pages_without_a_live_slot_go_back_from_slabs_in_use() {
    // Size, one of how many is kept, and the most megabytes of 200 that may stay.
    for [size, kept, most] in [
        ["96", "64", "120"],
        ["300", "64", "52"],
        ["384", "64", "42"],
        ["1000", "64", "18"],
        ["2000", "64", "12"],
        ["1000", "8", "92"],
    ] {
        passes_alone("holes.c", &[size, kept, most]);
    }
}

#[test]
fn what_a_burst_leaves_goes_back_although_no_call_follows() {
    for [size, keep] in [
        ["96", "0"],
        ["1000", "0"],
        ["1000", "20000"],
        ["50000", "0"],
        ["50000", "500"],
        ["1000000", "0"],
        ["1000000", "20"],
    ] {
        passes_alone("idle.c", &[size, keep]);
    }
}

#[test]
fn malloc_trim_gives_back_all_that_is_kept() {
    // Size, every how many-th block is kept, and the most KiB that may stay beyond them.
    for [size, kept, most] in [
        ["96", "0", "4000"],
        ["1000", "0", "4000"],
        ["50000", "0", "4000"],
        ["1000000", "0", "4000"],
        ["1000", "64", "12000"],
    ] {
        passes("trim.c", &[size, kept, most]);
    }
}

#[test]
fn the_figures_say_where_idle_memory_lies() {
    passes_alone("idle_figures.c", &[]);
}

#[test]
fn metadata_lies_apart_from_user_memory() {
    passes("apart.c", &[]);
    passes_alone("apart.c", &["alone"]);
}
