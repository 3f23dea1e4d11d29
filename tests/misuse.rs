//! Every double free and invalid free ends the program with one line that says what and where, and with `SIGABRT`. So
//! do realloc and usable size of a bad pointer. What is merely odd goes on.
//!
//! Each case is a function of `tests/c/misuse.c`, run with the static library, under `LD_PRELOAD`, and with
//! a mapping behind the break, so that the heap lives in its fallback window.

mod common;

use common::{compile_as, environment, passes, run, Form, Output};

/// What the line must call a free of such a pointer.
#[derive(Clone, Copy)]
enum Kind {
    /// The slot is there and free.
    Double,
    /// There is no such block.
    Invalid,
    /// Which of the two depends on what has become of the slab.
    Either,
}
use Kind::{Double, Either, Invalid};

const WAYS: [(Form, &[&str]); 3] = [
    (Form::Prefixed, &[]),
    (Form::Preloaded, &[]),
    (Form::Prefixed, &["wall"]),
];

/// Every call that takes a block.
const CALLS: [&str; 5] = ["free", "remote", "shrink", "grow", "measure"];

/// Runs a case in every way and with every call, and expects it to be found each time.
fn dies(case: &str, kind: Kind) {
    dies_by(case, kind, &CALLS);
}

fn dies_by(case: &str, kind: Kind, calls: &[&str]) {
    for (form, wall) in WAYS {
        for call in calls {
            let args = [&[case, call], wall].concat();
            let output = run(
                &compile_as(form, "misuse.c", &[]),
                &args,
                &environment(form),
            );
            assert_eq!(found(&output, call, kind), Ok(()), "{output:#?}");
        }
    }
}

/// Whether the program died of the misuse that it announced, and said so in one line.
fn found(output: &Output, call: &str, kind: Kind) -> Result<(), &'static str> {
    if output.signal != Some(libc::SIGABRT) {
        return Err("it did not end by SIGABRT");
    }
    let Some(line) = output
        .stderr
        .strip_suffix('\n')
        .filter(|line| !line.contains('\n'))
    else {
        return Err("it did not say one line");
    };
    let announced: Vec<&str> = output.stdout.split_whitespace().collect();
    let [address, size, slot] = announced[..] else {
        return Err("it announced no pointer");
    };
    let verb = match call {
        "shrink" | "grow" => "realloc of",
        "measure" => "usable size of",
        _ => "free of",
    };
    if !line.starts_with("slabside: ")
        || !line.contains(&format!("{verb} {address} ("))
        || !line.ends_with(')')
    {
        return Err("the line does not say what and where");
    }
    if verb != "free of" {
        return Ok(());
    }
    match kind {
        Double if !tells_a_double_free(line, address, size, slot) => {
            Err("the line tells no such double free")
        }
        Invalid if !line.starts_with("slabside: invalid free of ") => {
            Err("the line tells no invalid free")
        }
        _ => Ok(()),
    }
}

/// `slabside: double free of ADDRESS (slot SLOT of a SIZE-byte slab)`. Slot -1 and size 0 stand for any.
fn tells_a_double_free(line: &str, address: &str, size: &str, slot: &str) -> bool {
    let Some(rest) = line.strip_prefix(&format!("slabside: double free of {address} (slot "))
    else {
        return false;
    };
    let Some((said_slot, rest)) = rest.split_once(" of a ") else {
        return false;
    };
    let Some((said_size, "")) = rest.split_once("-byte slab)") else {
        return false;
    };
    let matches = |said: &str, known: &str, any: &str| {
        said.parse::<usize>().is_ok() && (known == any || said == known)
    };
    matches(said_slot, slot, "-1") && matches(said_size, size, "0")
}

#[test]
fn a_slot_freed_twice_is_a_double_free_told_with_slot_and_size() {
    for case in [
        "freed",
        "freed_zero",
        "freed_tiny",
        "freed_4096",
        "freed_8192",
        "freed_zeroed",
        "freed_before_another",
        "freed_long_ago",
        "freed_in_a_full_slab",
        "freed_aligned",
    ] {
        dies(case, Double);
    }
}

#[test]
fn a_slot_that_is_checked_out_and_not_handed_out_is_free() {
    dies("freed_and_checked_out", Double);
    dies("never_handed_out", Either);
}

#[test]
fn what_realloc_moved_away_from_is_free() {
    dies("moved_away_from", Double);
}

#[test]
fn a_slot_freed_by_another_thread_before_is_a_double_free_too() {
    for case in [
        "freed_elsewhere",
        "freed_elsewhere_in_a_full_slab",
        "freed_elsewhere_tiny",
        "freed_elsewhere_after_another",
    ] {
        dies(case, Double);
    }
}

#[test]
fn double_frees_are_found_in_slabs_whose_owner_is_gone() {
    for case in [
        "freed_by_an_owner_now_gone",
        "freed_after_its_owner_went",
        "freed_elsewhere_after_its_owner_went",
        "freed_before_its_owner_went",
    ] {
        dies(case, Double);
    }
}

#[test]
fn frees_that_overlap_are_found_when_the_owner_collects_at_the_latest() {
    for form in common::FORMS {
        for who in ["local", "remote"] {
            let output = common::run_as(form, "overlap.c", &[who]);
            let one_line = output.stderr.matches('\n').count() == 1;
            let told = output.stderr.starts_with("slabside: double free of 0x") && one_line;
            assert!(output.signal == Some(libc::SIGABRT) && told, "{output:#?}");
        }
    }
}

#[test]
fn spans_and_large_blocks_are_not_freed_twice() {
    for case in [
        "freed_span",
        "freed_only_span",
        "freed_large",
        "freed_huge",
        "freed_aligned_large",
        "freed_elsewhere_span",
        "freed_elsewhere_large",
    ] {
        dies(case, Either);
    }
}

#[test]
fn a_pointer_into_a_slot_is_no_block() {
    for case in ["inside_by_1", "inside_by_8", "inside_by_16", "inside_by_47"] {
        dies(case, Invalid);
    }
    for case in [
        "inside_tiny",
        "inside_4096",
        "inside_8192",
        "inside_a_free_slot",
    ] {
        dies(case, Invalid);
    }
}

#[test]
fn a_pointer_into_a_span_or_a_large_block_is_no_block() {
    for case in [
        "inside_a_span",
        "inside_a_span_at_a_page",
        "last_byte_of_a_span",
        "inside_a_large_block",
        "inside_a_large_block_at_a_page",
        "before_a_large_block",
        "inside_an_aligned_block",
    ] {
        dies(case, Invalid);
    }
}

#[test]
fn one_past_the_last_slot_is_no_block() {
    for case in [
        "past_the_first_slab_of_48",
        "past_another_slab_of_48",
        "past_the_first_slab_of_80",
        "past_another_slab_of_240",
        "past_the_first_slab_of_320",
        "past_another_slab_of_5632",
    ] {
        dies(case, Either);
    }
}

#[test]
fn memory_that_others_gave_out_is_no_block() {
    for case in [
        "on_the_stack",
        "of_the_program",
        "of_its_data",
        "of_its_code",
        "of_a_mapping",
        "of_a_lost_mapping",
    ] {
        dies(case, Invalid);
    }
}

#[test]
fn the_break_that_others_moved_holds_no_block() {
    for form in common::FORMS {
        for call in CALLS {
            let output = common::run_as(form, "misuse.c", &["of_another_sbrk", call]);
            assert_eq!(found(&output, call, Invalid), Ok(()), "{output:#?}");
        }
    }
    dies("beyond_the_break", Invalid);
}

#[test]
fn addresses_where_nothing_can_be_are_no_blocks() {
    for case in [
        "near_null",
        "near_null_at_16",
        "at_the_first_page",
        "not_canonical",
        "at_the_canonical_end",
        "of_the_kernel",
        "minus_one",
        "minus_16",
    ] {
        dies(case, Invalid);
    }
}

#[test]
fn a_block_whose_slab_went_back_is_not_freed_again() {
    for case in [
        "freed_alone",
        "of_a_slab_given_back",
        "of_a_slab_given_back_inside",
    ] {
        dies(case, Double);
    }
    // Another slab may have its header, or its pages.
    dies("freed_all", Either);
    dies_by("of_a_slab_purged", Either, &["free", "grow"]);
}

#[test]
fn a_fork_child_frees_a_block_again_whose_slab_went_back() {
    for case in [
        "of_a_slab_given_back_before_a_fork",
        "of_a_slab_given_back_by_a_fork_child",
        "of_a_span_given_back_by_a_fork_child",
    ] {
        dies(case, Double);
    }
}

#[test]
fn a_correct_program_is_never_ended() {
    passes("correct.c", &[]);
}
