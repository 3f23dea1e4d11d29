//! Large blocks: mappings kept for reuse, joined, grown in place. Impossible sizes.

use super::*;

#[test]
fn a_freed_large_mapping_is_used_again() {
    let heap = Heap::new();
    let block = heap.take(0, 1 << 20);
    heap.give(0, block);
    assert_eq!(heap.take(0, 1_040_000), block, "little is left of it");
    assert_eq!(heap.usable(block), 1 << 20, "so all of it is used");
    heap.give(0, block);
    assert_eq!(heap.take(0, 512 << 10), block);
    assert_eq!(heap.usable(block), 512 << 10, "its front half");
    assert_eq!(
        heap.take(0, 512 << 10),
        block + (512 << 10),
        "and the other"
    );
    heap.is_sound();
}

/// Parts of a mapping, freed one after the other, serve a block as large as all of them.
#[test]
fn freed_neighbours_become_one() {
    let heap = Heap::new();
    let whole = heap.take(0, 3 << 19);
    heap.give(0, whole);
    let parts: Vec<_> = (0..3).map(|_| heap.take(0, 1 << 19)).collect();
    assert_eq!(parts, [0, 1, 2].map(|part| whole + (part << 19)));
    for part in [0, 2, 1] {
        heap.give(0, parts[part]);
    }
    assert_eq!(heap.take(0, 3 << 19), whole);
    assert_eq!(heap.stats().mapped, 3 << 19);
    heap.is_sound();
}

/// The pages of a kept mapping that is too small are used again in a larger one.
#[test]
fn a_kept_mapping_that_is_too_small_is_made_larger() {
    let heap = Heap::new();
    heap.give(0, heap.take(0, 1 << 20));
    heap.take(0, 3 << 20);
    assert_eq!(heap.stats().mapped, 3 << 20);
    heap.is_sound();
}

/// A block that grew once has room behind it. Nothing is copied or moved the next times, and nobody else is given that
/// room.
#[test]
fn a_large_block_grows_in_place_after_the_first_time() {
    let heap = Heap::new();
    let first = heap.take(0, 1 << 20);
    let block = heap.resize(0, first, 2 << 20);
    let other = heap.take(0, 1 << 20);
    for mib in [3, 4] {
        assert_eq!(heap.resize(0, block, mib << 20), block);
        assert_eq!(heap.usable(block), mib << 20);
    }
    let addr = block + (2 << 20);
    assert_eq!(
        heap.misuse_of_give(0, addr),
        Misuse::Unknown {
            call: Call::Free,
            addr
        }
    );
    heap.give_all(0, &[block, other]);
    heap.is_sound();
}

/// What a block gives up by shrinking is what it grows into again. An address in it is a freed one.
#[test]
fn a_large_block_shrinks_and_grows_in_place() {
    let heap = Heap::new();
    let block = heap.take(0, 2 << 20);
    assert_eq!(heap.resize(0, block, 1 << 20), block);
    assert_eq!(heap.usable(block), 1 << 20);
    assert_eq!(
        dead_in(heap.misuse_of_give(0, block + (1 << 20))),
        block + (1 << 20)
    );
    assert_eq!(heap.resize(0, block, 2 << 20), block);
    assert_eq!(heap.stats().mapped, 2 << 20);
    heap.is_sound();
}

/// A large block that was freed is found to be free, also once it became part of a larger range.
#[test]
fn a_second_free_is_found_in_a_range_of_several_blocks() {
    let heap = Heap::new();
    heap.give(0, heap.take(0, 2 << 20));
    let blocks = [0, 1].map(|_| heap.take(0, 1 << 20));
    heap.give_all(0, &blocks);
    for block in blocks {
        assert_eq!(dead_in(heap.misuse_of_give(0, block)), block);
    }
}

/// A kept mapping holds old contents: calloc must clear it.
#[test]
fn calloc_clears_a_mapping_that_was_kept() {
    let heap = Heap::new();
    let block = heap.take(0, 1 << 20);
    // SAFETY: the test holds the block, which is live and has that size.
    unsafe { (block as *mut u8).write_bytes(0x77, 1 << 20) };
    heap.give(0, block);
    assert_eq!(calloc_and_dirty(&heap, 1 << 20), block);
}

/// Freed mappings are kept for half a second, whether or not another large block is freed later.
#[test]
fn freed_large_mappings_decay() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 200 << 10, 10);
    heap.give_all(0, &blocks);
    assert!(heap.stats().mapped >= 2000 << 10);
    for _ in 0..3 {
        heap.sim().advance_clock(400);
        heap.take_many(0, 1000, 64 * 20);
    }
    assert_eq!(heap.stats().mapped, 0);
}

/// What is kept and what is live are together at most what was live lately, a sixteenth of it and 16 MiB. No block
/// above 64 MiB is kept, and no more than 512 ranges.
#[test]
fn freed_large_mappings_are_bounded() {
    let heap = Heap::new();
    let huge = heap.take(0, 65 << 20);
    heap.give(0, huge);
    assert_eq!(heap.stats().mapped, 0);
    quieten(&heap);
    let blocks = heap.take_many(0, 1 << 20, 60);
    heap.give_all(0, &blocks);
    assert_eq!(heap.stats().mapped, 2 << 20, "nobody may ever come back");
    for _ in 0..3 {
        let blocks = heap.take_many(0, 1 << 20, 60);
        heap.give_all(0, &blocks);
    }
    assert_eq!(
        heap.stats().mapped,
        60 << 20,
        "as much as was live just now, and is taken again and again"
    );
    quieten(&heap);
    assert_eq!(heap.stats().mapped, 0);
    let heap = Heap::with(SimConfig {
        bytes: 512 << 20,
        break_bytes: 128 << 20,
        ..SimConfig::default()
    });
    let blocks = heap.take_many(0, 140 << 10, 700);
    heap.give_all(0, &blocks);
    assert!(
        heap.stats().mapped <= 512 * (140 << 10),
        "{:?}",
        heap.stats()
    );
    heap.is_sound();
}

/// A program that takes again what it frees keeps it after few rounds, also where it freed far more before.
#[test]
fn freed_large_mappings_are_kept_for_small_swells_after_one_large_one() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 1 << 20, 60);
    heap.give_all(0, &blocks);
    for round in 0..20 {
        let blocks = heap.take_many(0, 1 << 20, 6);
        heap.give_all(0, &blocks);
        let kept = heap.stats().mapped;
        assert!(
            round < 4 || kept >= 6 << 20,
            "round {round}: {kept} bytes kept"
        );
        heap.sim().advance_clock(10);
    }
    heap.is_sound();
}

/// A loop over one size keeps that much, and not what was freed before it began.
#[test]
fn what_no_block_needed_between_two_ticks_goes_back() {
    let heap = Heap::new();
    heap.give(0, heap.take(0, 32 << 20));
    for _ in 0..20 {
        heap.sim().advance_clock(60);
        heap.give(0, heap.take(0, 1 << 20));
        heap.take_many(0, 1000, 64);
    }
    assert!(heap.stats().mapped <= 1 << 20, "{:?}", heap.stats());
    heap.is_sound();
}

/// Large blocks are aligned by their mappings, far beyond a page.
#[test]
fn large_alignments_are_kept() {
    let heap = Heap::new();
    for shift in 4..=21 {
        for size in [1, 100, 5000, 30_000, 200_000] {
            let block = heap.allocator.aligned(&heap.threads[0], size, 1 << shift) as usize;
            assert!(
                block != 0 && block.is_multiple_of(1 << shift),
                "{size} at {block:#x}, shift {shift}"
            );
            assert!(heap.usable(block) >= size);
            if size % 3 != 0 {
                heap.give(0, block);
            }
        }
    }
    heap.is_sound();
}

/// Sizes that no memory has must fail and change nothing, whatever they overflow.
#[test]
fn impossible_sizes_are_refused() {
    let heap = Heap::new();
    let thread = &heap.threads[0];
    let block = heap.take(0, 100);
    for size in [
        usize::MAX,
        usize::MAX - 4095,
        usize::MAX / 2,
        usize::MAX / 2 + 1,
        isize::MAX as usize - 1,
    ] {
        assert!(heap.allocator.malloc(&**thread, size).is_null());
        assert!(heap.allocator.calloc(&**thread, 1, size).is_null());
        assert!(heap.allocator.calloc(&**thread, size, 2).is_null());
        for align in [1, 16, 4096, 1 << 21, 1 << 62, 1 << 63] {
            assert!(heap.allocator.aligned(thread, size, align).is_null());
        }
        for old in [block, heap.take(0, 20_000), heap.take(0, 1 << 20)] {
            assert!(heap
                .allocator
                .realloc(thread, old as *mut u8, size)
                .is_null());
            heap.give(0, if old == block { heap.take(0, 1) } else { old });
        }
    }
    assert!(heap.allocator.aligned(thread, 1, 1 << 63).is_null());
    heap.is_sound();
}
