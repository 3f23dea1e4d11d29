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
    let offset = 2 << 20;
    assert_eq!(
        heap.misuse_of_give(0, block + offset),
        Misuse::InsideLarge {
            call: Call::Free,
            addr: block + offset,
            offset,
            size: 4 << 20,
        }
    );
    heap.give_all(0, &[block, other]);
    heap.is_sound();
}

/// A block that must move goes over one that was freed, and grows into the pages behind it.
#[test]
fn a_block_that_must_move_takes_the_place_of_a_freed_one() {
    let heap = Heap::new();
    let sizes = [1 << 20, 1 << 20, 2 << 20, 1 << 20];
    let [block, _wall, freed, _end] = sizes.map(|size| heap.take(0, size));
    // SAFETY: a live block of as many bytes.
    unsafe { (block as *mut u8).write_bytes(0x5a, 1 << 20) };
    heap.give(0, freed);
    let mapped = heap.stats().mapped;
    assert_eq!(heap.resize(0, block, 3 << 19), freed);
    assert_eq!(heap.stats().mapped, mapped - (1 << 20));
    // SAFETY: a live block of as many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(freed as *const u8, 1 << 20) };
    assert!(bytes.iter().all(|&byte| byte == 0x5a));
    assert_eq!(heap.resize(0, freed, 2 << 20), freed);
    assert_eq!(heap.stats().mapped, mapped - (1 << 20));
    heap.is_sound();
}

/// A freed block's pages are clear before a later one has them, and count once. What lives and is kept is never more than
/// what lived lately.
#[test]
fn pages_of_a_hardened_block_move_to_later_ones() {
    for options in ["hardened", "guard"] {
        let heap = Heap::with(sim_with(|config| config.options = options));
        let full = |size: usize| {
            let block = heap.take(0, size);
            // SAFETY: a live block of as many bytes.
            let bytes = unsafe { std::slice::from_raw_parts_mut(block as *mut u8, size) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes.fill(0x5a);
            block
        };
        let blocks = [1 << 20, 1 << 20, 2 << 20].map(full);
        let mapped = heap.stats().mapped;
        assert_eq!(mapped, 4 << 20);
        heap.give_all(0, &blocks);
        let kept = heap.stats().idle_large;
        assert!(kept > 1 << 20 && kept == heap.stats().mapped);
        heap.is_sound();
        // As large, smaller, and larger than what is kept.
        let others = [1 << 20, 300 << 10, 3 << 20].map(full);
        let now = heap.stats();
        assert_eq!(
            now.mapped,
            now.idle_large + (1 << 20) + (300 << 10) + (3 << 20)
        );
        assert!(now.idle_large < kept - (1 << 20));
        heap.give_all(0, &others);
        assert!(heap.stats().mapped <= (4 << 20) + (300 << 10));
        quieten(&heap);
        assert_eq!(heap.stats().mapped, 0);
        heap.is_sound();
    }
}

/// Bytes may lie anywhere in an OS page, and the pages of the one that has more than [`PAGE`] bytes are looked at as a whole.
#[test]
fn pages_that_move_are_clear_where_the_system_has_large_ones() {
    let heap = Heap::with(sim_with(|config| {
        (config.page_size, config.options) = (64 << 10, "hardened");
    }));
    for round in 0..4 {
        let blocks = [1 << 20, 640 << 10].map(|size| {
            let block = heap.take(0, size);
            // SAFETY: a live block of as many bytes.
            let bytes = unsafe { std::slice::from_raw_parts_mut(block as *mut u8, size) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            let used = bytes.chunks_mut(64 << 10).skip(round % 2);
            used.for_each(|page| page[(19 << 10) * round..][..4 << 10].fill(0x5a));
            block
        });
        heap.give_all(0, &blocks);
        assert!(round % 2 == 1 || heap.stats().idle_large > 0);
    }
    heap.is_sound();
}

/// Where the limit forbids both, kept pages go back rather than a block is refused.
#[test]
fn kept_pages_of_hardened_blocks_keep_to_the_limit() {
    let options = "hardened,limit-hard:16m";
    let heap = Heap::with(sim_with(|config| config.options = options));
    for _ in 0..20 {
        let blocks = heap.take_many(0, 1 << 20, 8);
        heap.give_all(0, &blocks);
        heap.give(0, heap.take(0, 8 << 20));
    }
    heap.is_sound();
}

/// Where no range is long enough, what was freed moves to where it is needed.
#[test]
fn pages_of_freed_blocks_are_used_again_in_a_larger_one() {
    let heap = Heap::new();
    let sizes = [3, 1, 2, 48].map(|mib| mib << 20);
    let [first, _wall, second, _end] = sizes.map(|size| heap.take(0, size));
    heap.give_all(0, &[first, second]);
    heap.take(0, 32 << 20);
    assert_eq!(heap.stats().mapped, (1 + 48 + 32) << 20);
    heap.is_sound();
}

/// Below 2 MiB they stay where they are, for blocks of their size.
#[test]
fn few_pages_of_freed_blocks_stay_for_blocks_of_their_size() {
    let heap = Heap::new();
    let sizes = [1 << 20, 1 << 20, 3 << 18, 1 << 20];
    let [first, _wall, second, _end] = sizes.map(|size| heap.take(0, size));
    heap.give_all(0, &[first, second]);
    heap.take(0, 8 << 20);
    assert_eq!(heap.take(0, 3 << 18), second);
    assert_eq!(heap.take(0, 1 << 20), first);
    assert_eq!(heap.stats().mapped, (4 << 20) - (1 << 18) + (8 << 20));
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

/// Many live blocks, and eight of 160 KiB side by side that were one mapping.
fn many_and_eight(heap: &Heap) -> ([usize; 8], usize) {
    heap.take_many(0, 300 << 10, 60);
    let whole = heap.take(0, 8 * (160 << 10));
    heap.give(0, whole);
    let parts = [0; 8].map(|_| heap.take(0, 160 << 10));
    assert_eq!(parts[7], whole + 7 * (160 << 10));
    (parts, whole)
}

/// Among many live blocks a freed one rests: it serves its own size, and a little less, the last one first.
#[test]
fn among_many_a_freed_block_rests_and_serves_its_size_again() {
    let heap = Heap::new();
    let (parts, _) = many_and_eight(&heap);
    heap.give_all(0, &parts[..3]);
    heap.is_sound();
    assert_eq!(heap.take(0, 160 << 10), parts[2]);
    assert_eq!(heap.take(0, 156 << 10), parts[1], "little is left of it");
    assert_eq!(heap.usable(parts[1]), 160 << 10);
    assert_eq!(heap.take(0, 160 << 10), parts[0]);
    heap.is_sound();
}

/// Where no range fits, the front of a longer block at rest serves. What is behind it is free, and is found to be.
#[test]
fn the_front_of_a_longer_block_at_rest_serves_where_no_range_fits() {
    let heap = Heap::new();
    many_and_eight(&heap);
    let block = heap.take(0, 300 << 10);
    heap.give(0, block);
    let front = heap.take(0, 220 << 10);
    assert_eq!((front, heap.usable(front)), (block, 220 << 10));
    let behind = block + (220 << 10);
    assert_eq!(dead_in(heap.misuse_of_give(0, behind)), behind);
    heap.is_sound();
    heap.give(0, front);
    assert_eq!(dead_in(heap.misuse_of_give(0, front)), front);
    assert_eq!(heap.take(0, 300 << 10), block, "joined again");
    heap.is_sound();
}

/// The record says that it rests, so a second free is found at once, and so is an address inside.
#[test]
fn a_second_free_of_a_block_at_rest_is_found() {
    let heap = Heap::new();
    let (parts, _) = many_and_eight(&heap);
    heap.give_all(0, &parts[..3]);
    for part in &parts[..3] {
        assert_eq!(dead_in(heap.misuse_of_give(0, *part)), *part);
        let addr = part + (64 << 10);
        assert_eq!(dead_in(heap.misuse_of_give(0, addr)), addr);
    }
    let again = heap.take(0, 160 << 10);
    assert_eq!(again, parts[2]);
    heap.give(0, again);
    assert_eq!(dead_in(heap.misuse_of_give(0, again)), again);
    heap.is_sound();
}

/// Blocks at rest become one range where a longer one is asked for.
#[test]
fn blocks_at_rest_are_joined_for_a_longer_one() {
    let heap = Heap::new();
    let (parts, whole) = many_and_eight(&heap);
    let mapped = heap.stats().mapped;
    for part in [1, 3, 5, 7, 0, 2, 4, 6] {
        heap.give(0, parts[part]);
    }
    assert_eq!(heap.take(0, 8 * (160 << 10)), whole);
    assert_eq!(heap.stats().mapped, mapped);
    heap.is_sound();
}

/// A block grows over one at rest behind it.
#[test]
fn a_large_block_grows_over_one_at_rest() {
    let heap = Heap::new();
    let (parts, _) = many_and_eight(&heap);
    heap.give_all(0, &[parts[4], parts[3]]);
    assert_eq!(heap.resize(0, parts[2], 480 << 10), parts[2]);
    heap.is_sound();
}

/// What rests counts as kept: it goes back at the tick, and at once when all is to.
#[test]
fn blocks_at_rest_go_back_like_other_kept_ones() {
    let heap = Heap::new();
    let live = heap.take_many(0, 160 << 10, 100);
    let mapped = heap.stats().mapped;
    heap.give_all(0, &live[..10]);
    assert_eq!(
        heap.stats().mapped,
        mapped,
        "an eighth of the live bytes stays"
    );
    assert_eq!(heap.stats().idle_large, 10 * (160 << 10));
    for _ in 0..3 {
        heap.sim().advance_clock(400);
        heap.take_many(0, 1000, 64 * 20);
    }
    assert_eq!(heap.stats().mapped, mapped - 10 * (160 << 10));
    heap.is_sound();
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
