//! When memory goes back to the system: trimmed at the end, purged inside.

use super::*;

/// What is freed at the heap's end goes back without anybody waiting for a clock.
#[test]
fn a_large_free_tail_goes_back_at_once() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 8000, 1000);
    assert!(heap.break_bytes() >= 8_000_000);
    heap.give_all(0, &blocks);
    assert!(
        heap.break_bytes() <= 512 << 10,
        "{} bytes stay",
        heap.break_bytes()
    );
    heap.is_sound();
}

/// A small tail stays: the next slab would move the break up again.
#[test]
fn a_small_free_tail_stays() {
    let heap = Heap::new();
    heap.take_many(0, 8000, 50);
    let moves = heap.stats().break_moves;
    for _ in 0..20 {
        let blocks = heap.take_many(0, 4096, 20);
        heap.give_all(0, &blocks);
    }
    assert!(heap.stats().break_moves <= moves + 3);
}

/// A program that swells again and again soon keeps its pages. One that has stopped gives them back.
#[test]
fn trimming_learns_from_swelling_and_forgets_in_quiet() {
    let heap = Heap::new();
    let swell = || {
        let blocks = heap.take_many(0, 8000, 1000);
        heap.give_all(0, &blocks);
        heap.sim().advance_clock(10);
    };
    (0..20).for_each(|_| swell());
    let learnt = heap.stats().break_moves;
    (0..20).for_each(|_| swell());
    assert_eq!(
        heap.stats().break_moves,
        learnt,
        "it still moves the break each time"
    );
    assert!(heap.break_bytes() >= 8_000_000);
    for _ in 0..30 {
        heap.sim().advance_clock(500);
        heap.pulse(0);
    }
    assert!(
        heap.break_bytes() <= 1 << 20,
        "{} bytes stay",
        heap.break_bytes()
    );
    heap.is_sound();
}

/// What came down and was soon wanted again, twice in a row, stays the next time, however much it is.
#[test]
fn a_swell_that_comes_again_and_again_is_kept_from_the_third_time_on() {
    let heap = Heap::new();
    let swell = |blocks| {
        let blocks = heap.take_many(0, 8000, blocks);
        heap.give_all(0, &blocks);
        heap.sim().advance_clock(10);
    };
    (0..2).for_each(|_| swell(5000));
    assert!(heap.break_bytes() < 2 << 20, "two may be the last ones");
    swell(5000);
    let learnt = heap.stats().break_moves;
    [5000, 4500, 4800, 5000].into_iter().for_each(swell);
    assert_eq!(heap.stats().break_moves, learnt);
    heap.is_sound();
}

/// Where hardly anything of what came down is wanted again, it does not stay.
#[test]
fn a_large_swell_is_not_kept_for_small_ones() {
    let heap = Heap::new();
    let large = heap.take_many(0, 8000, 5000);
    heap.give_all(0, &large);
    heap.sim().advance_clock(10);
    let small = heap.take_many(0, 8000, 100);
    heap.give_all(0, &small);
    assert!(heap.break_bytes() < 2 << 20, "{}", heap.break_bytes());
    heap.is_sound();
}

/// One look at the clock after a quiet while gives the whole end back, also what lies below pages that were
/// added by the huge page and never written to.
#[test]
fn after_a_quiet_while_the_whole_end_goes_at_once() {
    let heap = Heap::new();
    for _ in 0..20 {
        let blocks = heap.take_many(0, 8000, 5000);
        heap.give_all(0, &blocks);
        heap.sim().advance_clock(10);
    }
    assert!(heap.break_bytes() >= 40_000_000, "it learnt to keep them");
    heap.sim().advance_clock(1000);
    heap.pulse(0);
    let kept = heap.break_bytes();
    assert!(kept <= 256 << 10, "{kept} bytes stay");
    heap.is_sound();
}

/// A few free pages inside the heap are discarded once nobody has needed them for a while, and not before.
#[test]
fn idle_pages_inside_the_heap_are_purged_by_the_clock() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 8000, 1000);
    let top = heap.take(0, 5000); // Keeps the heap's end.
    heap.give_all(0, &blocks[500..600]);
    heap.pulse(0);
    assert_eq!(heap.stats().purged, 0, "nothing was idle yet");
    for _ in 0..8 {
        heap.sim().advance_clock(300);
        heap.pulse(0);
    }
    assert!(heap.stats().purged >= 650_000, "{:?}", heap.stats());
    heap.give(0, top);
    heap.give_all(0, &blocks[..500]);
    heap.give_all(0, &blocks[600..]);
    heap.is_sound();
}

/// An idle process makes no call, and so no clock helps: what a burst leaves free inside goes as it is freed.
#[test]
fn many_free_pages_inside_the_heap_are_discarded_as_they_are_freed() {
    for size in [1000, 5000, 50_000] {
        let heap = Heap::new();
        let blocks = heap.take_many(0, size, 16_000_000 / size);
        let top = heap.take(0, 5000); // Keeps the heap's end.
        heap.give_all(0, &blocks);
        let purged = heap.stats().purged;
        assert!(purged >= 13_500_000, "{size}: {purged} bytes went");
        heap.give(0, top);
        heap.is_sound();
    }
}

/// Slabs that were set aside when the heap grew, since a part of their slots was free, give back as others do when the
/// rest is freed and no call follows.
#[test]
fn slabs_set_aside_at_growth_give_back_what_is_freed_in_them_later() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 1100, 40_000);
    let (third, rest): (Vec<usize>, Vec<usize>) =
        (0..blocks.len()).partition(|i| i * 7919 % 3 == 0);
    third.iter().for_each(|&i| heap.give(0, blocks[i]));
    let others = heap.take_many(0, 300, 100_000);
    let before = heap.stats().purged;
    let (kept, freed): (Vec<usize>, Vec<usize>) = rest.iter().partition(|&i| i % 16 == 0);
    freed.iter().for_each(|&i| heap.give(0, blocks[i]));
    let purged = heap.stats().purged - before;
    assert!(purged >= 20_000_000, "{purged} bytes went");
    kept.iter().for_each(|&i| heap.give(0, blocks[i]));
    heap.give_all(0, &others);
    heap.is_sound();
}

/// Where the heap grew lately beside idle pages, what is freed in slabs with holes goes at once, although the program
/// learnt to keep as much of what it takes again.
#[test]
fn what_is_freed_beside_holes_goes_at_once_where_the_heap_grew_lately() {
    let heap = Heap::new();
    for _ in 0..10 {
        let blocks = heap.take_many(0, 2000, 10_000);
        let survivors = blocks.iter().step_by(16);
        let freed = blocks.iter().enumerate().filter(|(i, _)| i % 16 != 0);
        freed.for_each(|(_, &block)| heap.give(0, block));
        survivors.for_each(|&block| heap.give(0, block));
        heap.sim().advance_clock(10);
    }
    let blocks = heap.take_many(0, 1100, 40_000);
    let part = |i: usize| i * 7919 % 100;
    let of = |parts: core::ops::Range<usize>| {
        let found = (0..blocks.len()).filter(move |&i| parts.contains(&part(i)));
        found.map(|i| blocks[i])
    };
    of(20..100).for_each(|block| heap.give(0, block));
    let others = heap.take_many(0, 300, 100_000);
    let before = heap.stats().purged;
    of(5..20).for_each(|block| heap.give(0, block));
    let purged = heap.stats().purged - before;
    assert!(purged >= 4_000_000, "{purged} bytes went");
    of(0..5).for_each(|block| heap.give(0, block));
    heap.give_all(0, &others);
    heap.is_sound();
}

/// Free runs of pages that are too short for what the heap grows for do not lie beside as many new pages, wherever in
/// the heap they are.
#[test]
fn short_free_runs_give_way_where_the_heap_grows_for_long_ones() {
    for part in 0..10 {
        let heap = Heap::new();
        let blocks = heap.take_many(0, 1000, 40_000);
        // By the distance from the first one: where the heap lies differs from run to run.
        let goes = |block: usize| ((block - blocks[0]) >> 17) % 10 == part;
        let (freed, kept): (Vec<usize>, Vec<usize>) = blocks.iter().partition(|&&b| goes(b));
        heap.give_all(0, &freed);
        let before = heap.stats().idle_pages;
        assert!(before >= 2_000_000, "{part}: {before} bytes lie idle");
        let spans = heap.take_many(0, 128 << 10, 100);
        let idle = heap.stats().idle_pages;
        assert!(
            idle <= 1_200_000,
            "{part}: {idle} of {before} bytes lie idle"
        );
        heap.give_all(0, &kept);
        heap.give_all(0, &spans);
        heap.is_sound();
    }
}

/// What one large burst left must not hide that small ones follow again and again.
#[test]
fn a_heap_learns_to_keep_the_pages_of_small_swells_after_one_large_one() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 8000, 5000);
    let _top = heap.take(0, 5000); // Keeps the heap's end.
    heap.give_all(0, &blocks);
    let before = heap.stats().purged;
    for _ in 0..40 {
        let blocks = heap.take_many(0, 8000, 500);
        heap.give_all(0, &blocks);
        heap.sim().advance_clock(10);
    }
    let purged = heap.stats().purged - before;
    assert!(purged <= 5 * 4_000_000, "{purged} bytes went");
    heap.is_sound();
}

/// A program that takes again what it frees keeps it after few rounds, also inside the heap.
#[test]
fn a_heap_that_swells_inside_again_and_again_learns_to_keep_its_pages() {
    let heap = Heap::new();
    let mut top = 0;
    for round in 0..40 {
        let blocks = heap.take_many(0, 8000, 1000);
        if round == 0 {
            top = heap.take(0, 5000); // Keeps the heap's end.
        }
        heap.give_all(0, &blocks);
        heap.sim().advance_clock(10);
    }
    assert!(heap.stats().purged <= 24_000_000, "{:?}", heap.stats());
    heap.give(0, top);
    heap.is_sound();
}

/// Purged pages are the kernel's zero pages again: calloc need not clear them, and must not be wrong.
#[test]
fn purged_and_trimmed_pages_are_zero_again() {
    for page_size in [PAGE, 16 << 10, 64 << 10] {
        for break_offset in [0, 0x1234] {
            let heap = Heap::with(sim_with(|config| {
                config.page_size = page_size;
                config.break_offset = break_offset;
            }));
            for round in 0..40 {
                let size = 10_000 + round * 3000;
                let blocks: Vec<usize> = (0..30)
                    .map(|_| calloc_and_dirty(&heap, size % SPAN_MAX))
                    .collect();
                heap.give_all(0, &blocks[round % 7..]);
                heap.sim().advance_clock(300);
                heap.allocator.reclaim(&heap.threads[0]);
                heap.give_all(0, &blocks[..round % 7]);
                heap.allocator.reclaim(&heap.threads[0]);
                heap.is_sound();
            }
        }
    }
}

/// An empty slab that slots are taken from raises no event: it must not pin a large tail for ever.
#[test]
fn an_empty_active_slab_does_not_keep_the_tail() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 8000, 500);
    let pin = heap.take(0, 100);
    heap.give(0, pin); // Empty now, and highest.
    heap.give_all(0, &blocks);
    assert!(
        heap.break_bytes() <= 600 << 10,
        "{} bytes stay",
        heap.break_bytes()
    );
    heap.is_sound();
}

/// After the last thread has gone nothing may stay, whoever freed what.
#[test]
fn nothing_stays_after_everything_is_freed_and_given_back() {
    for config in [
        SimConfig::default(),
        sim_with(|config| config.break_fails = true),
    ] {
        let heap = Heap::with(config);
        let mut blocks = Vec::new();
        for size in [8, 100, 1000, 8000, 20_000, SPAN_MAX, 200_000] {
            blocks.extend(heap.take_many(0, size, 20));
            blocks.extend(heap.take_many(1, size, 20));
        }
        blocks
            .iter()
            .enumerate()
            .for_each(|(i, &block)| heap.give(i % 3, block));
        (0..3).for_each(|thread| heap.allocator.reclaim(&heap.threads[thread]));
        let stats = heap.stats();
        assert_eq!(
            (stats.live, stats.spans, stats.large),
            (0, 0, 0),
            "{stats:?}"
        );
        assert!(
            stats.break_bytes + stats.slabs * 16 * PAGE <= 256 << 10,
            "{stats:?}"
        );
        heap.is_sound();
    }
}

/// Forty megabytes of blocks of `size` bytes come and go, ten milliseconds long.
fn swell_by(heap: &Heap, thread: usize, size: usize) {
    let blocks = heap.take_many(thread, size, 40_000_000 / size);
    heap.give_all(thread, &blocks);
    heap.sim().advance_clock(10);
}

/// Bytes kept for reuse that may be resident.
fn kept(heap: &Heap) -> usize {
    let stats = heap.stats();
    stats.idle_spans + stats.idle_pages + stats.idle_large
}

/// What the heap has learnt to keep must not lie beside as many large blocks, nor the other way round.
#[test]
fn what_is_kept_gives_way_to_what_grows() {
    for [before, then] in [
        [8000, 1_000_000],
        [50_000, 200_000],
        [1_000_000, 8000],
        [200_000, 50_000],
    ] {
        let heap = Heap::new();
        (0..20).for_each(|_| swell_by(&heap, 0, before));
        assert!(kept(&heap) >= 35_000_000, "it learnt to keep them");
        let blocks = heap.take_many(0, then, 40_000_000 / then);
        let most = 40_000_000 / 4;
        assert!(
            kept(&heap) <= most,
            "{before}, {then}: {} bytes",
            kept(&heap)
        );
        heap.give_all(0, &blocks);
        heap.is_sound();
    }
}

/// What hardened mode keeps in many slabs gives way at once to one block that is as large.
#[test]
fn many_kept_slabs_give_way_to_one_large_block() {
    let heap = Heap::with(SimConfig {
        options: "hardened",
        ..SimConfig::default()
    });
    (0..20).for_each(|_| swell_by(&heap, 0, 1000));
    let before = kept(&heap);
    assert!(before >= 8_000_000, "it learnt to keep them: {before}");
    let block = heap.take(0, 60_000_000);
    assert!(
        kept(&heap) <= 4_000_000,
        "{} of {before} bytes stay",
        kept(&heap)
    );
    heap.give(0, block);
    heap.is_sound();
}

/// A program that needs small and large blocks by turns pays for few turns.
#[test]
fn what_gave_way_and_was_taken_again_stays() {
    let heap = Heap::new();
    let turns = || {
        (0..20).for_each(|_| {
            [8000, 1_000_000]
                .iter()
                .for_each(|&size| swell_by(&heap, 0, size))
        })
    };
    turns();
    let before = heap.sim().calls();
    turns();
    assert_eq!(heap.sim().calls(), before, "it still asks the system");
    heap.is_sound();
}

/// What a thread has shown to take again and again it does not take again after its end.
#[test]
fn a_thread_that_ends_gives_back_what_its_frees_returned() {
    for size in [200, 8000, 50_000, 1_000_000] {
        let heap = Heap::new();
        for _ in 0..20 {
            swell_by(&heap, 1, size);
            heap.exit(1);
            heap.threads[1].reset();
        }
        assert!(kept(&heap) <= 4_000_000, "{size}: {} bytes", kept(&heap));
        heap.is_sound();
    }
}

/// The pages that one thread takes again and again are not given up where others begin and end.
#[test]
fn a_thread_that_ends_leaves_what_others_learnt_to_keep() {
    let heap = Heap::new();
    (0..20).for_each(|_| swell_by(&heap, 0, 8000));
    let before = kept(&heap);
    assert!(before >= 35_000_000, "it learnt to keep them");
    for _ in 0..20 {
        let blocks = heap.take_many(1, 100, 500);
        heap.give_all(1, &blocks);
        heap.exit(1);
        heap.threads[1].reset();
    }
    assert!(
        kept(&heap) + 200_000 >= before,
        "{} bytes stay",
        kept(&heap)
    );
    heap.is_sound();
}

/// Nor where a thread ends that took and returned a little memory many times.
#[test]
fn a_thread_that_ends_leaves_what_others_learnt_to_keep_however_much_it_took_by_turns() {
    for size in [8000, 1_000_000] {
        let heap = Heap::new();
        (0..20).for_each(|_| swell_by(&heap, 0, size));
        let before = kept(&heap);
        assert!(before >= 30_000_000, "it learnt to keep them");
        for _ in 0..40 {
            let blocks = heap.take_many(1, size, 900_000 / size + 1);
            heap.give_all(1, &blocks);
        }
        heap.exit(1);
        assert!(
            kept(&heap) + 1_200_000 >= before,
            "{size}: {} of {before} bytes stay",
            kept(&heap)
        );
        heap.is_sound();
    }
}
