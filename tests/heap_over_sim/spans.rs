//! Spans: kept for reuse, resized in place.

use super::*;

/// A span freed and asked for again costs no page search and no fault.
#[test]
fn a_freed_span_is_used_again() {
    let heap = Heap::new();
    let block = heap.take(0, 50_000);
    heap.give(0, block);
    assert_eq!(heap.take(0, 50_000), block);
    assert_eq!(heap.stats().spans, 1);
}

/// The span freed last is the one that is taken next, whichever was active before; and each free of a
/// free one is found, in whichever way it is kept.
#[test]
fn the_span_freed_last_is_taken_first() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 50_000, 3);
    for &block in blocks.iter().chain(blocks.iter().rev()) {
        heap.give(0, block);
        assert_eq!(dead_in(heap.misuse_of_give(0, block)), block);
        assert_eq!(heap.take(0, 50_000), block);
        heap.is_sound();
    }
    heap.give_all(0, &blocks);
    for &block in &blocks {
        assert_eq!(dead_in(heap.misuse_of_give(0, block)), block);
        assert_eq!(dead_in(heap.misuse_of_give(1, block)), block);
    }
}

/// A free active span of the next bins is used before a new one is carved.
#[test]
fn an_active_span_serves_smaller_requests() {
    let heap = Heap::new();
    let block = heap.take(0, 50_000);
    heap.give(0, block);
    assert_eq!(heap.take(0, 45_000), block);
    heap.take(0, 45_000);
    assert_eq!(heap.stats().spans, 2);
    heap.is_sound();
}

/// An active span raises no event: at its thread's end it must go, or be left for whoever frees it.
#[test]
fn active_spans_go_with_their_thread() {
    let heap = Heap::new();
    let live = heap.take(0, 50_000);
    heap.give(0, heap.take(0, 100_000));
    heap.exit(0);
    assert_eq!(heap.stats().spans, 1);
    heap.give(1, live);
    assert_eq!(dead_in(heap.misuse_of_give(1, live)), live);
    heap.exit(1);
    assert_eq!(heap.stats().spans, 0);
}

/// An active span that another thread freed is found free by its owner, which loses nothing.
#[test]
fn an_active_span_freed_elsewhere_is_taken_again() {
    let heap = Heap::new();
    let block = heap.take(0, 50_000);
    heap.give(1, block);
    assert_eq!(dead_in(heap.misuse_of_give(1, block)), block);
    assert_eq!(heap.take(0, 50_000), block);
    assert_eq!(heap.stats().spans, 1);
    heap.is_sound();
}

/// What is kept for reuse is bounded by 512 KiB and half of what is live.
#[test]
fn spans_kept_for_reuse_are_bounded() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 100_000, 100);
    let span = heap.usable(blocks[0]);
    heap.give_all(0, &blocks);
    assert!(
        heap.stats().spans * span <= (512 << 10) + span,
        "{:?}",
        heap.stats()
    );
    heap.is_sound();
}

/// Kept spans go back by the clock, even where only spans are used.
#[test]
fn spans_kept_for_reuse_decay() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 50_000, 8);
    heap.give_all(0, &blocks);
    assert!(heap.stats().spans >= 8);
    for _ in 0..4 {
        heap.sim().advance_clock(600);
        (0..130).for_each(|_| heap.give(0, heap.take(0, 40_000)));
    }
    assert!(heap.stats().spans <= 2, "{:?}", heap.stats());
}

#[test]
fn a_span_grows_and_shrinks_in_place() {
    let heap = Heap::new();
    heap.take(0, 1);
    let block = heap.take(0, 100_000);
    let grown = heap.take(0, 40_000); // Behind it nothing but the heap's free end.
    heap.give(0, heap.take(0, SPAN_MAX)); // The break is moved far enough.
    heap.allocator
        .backend
        .pages
        .trim(heap.allocator.backend.supply(), 64);
    assert_eq!(heap.resize(0, block, 60_000), block, "shrinks in place");
    assert_eq!(heap.usable(block), 15 * PAGE);
    assert_eq!(
        heap.resize(0, block, 90_000),
        block,
        "grows over what it gave back"
    );
    assert_eq!(heap.usable(block), 22 * PAGE);
    assert_eq!(heap.resize(0, block, 50_000), block);
    assert_eq!(heap.resize(0, block, 33_000), block);
    assert_eq!(heap.usable(block), 9 * PAGE, "the smallest span");
    assert_eq!(heap.resize(0, block, 30_000), block, "more than half of it");
    for inner in [9 * PAGE, 15 * PAGE] {
        let addr = block + inner;
        assert_eq!(
            heap.misuse_of_give(0, addr),
            Misuse::Unknown {
                call: Call::Free,
                addr
            }
        );
    }
    let block = heap.resize(0, block, 100);
    assert_eq!(heap.usable(block), 112, "where it fits");
    heap.is_sound();
    heap.give_all(0, &[block, grown]);
    heap.is_sound();
}

/// A block that grows step by step moves a few times, not once a class. One that doubles gets no more than it asked
/// for.
#[test]
fn what_grows_by_little_gets_room_for_more() {
    let heap = Heap::new();
    let (mut block, mut moves) = (heap.take(0, 16), 0);
    heap.take(0, 1); // So that the heap's end is not all this block's.
    for size in (32..=20_000).step_by(16) {
        let now = heap.resize(0, block, size);
        moves += usize::from(now != block);
        block = now;
        assert!(heap.usable(block) <= (size + size / 2).max(3 * PAGE));
    }
    assert!(moves <= 32, "{moves} moves");
    assert_eq!(heap.usable(heap.resize(0, heap.take(0, 1000), 2000)), 2048);
    heap.is_sound();
}

/// The short way of realloc must refuse what the long one refuses.
#[test]
fn a_realloc_in_place_of_a_freed_block_is_found() {
    let heap = Heap::new();
    for size in [8, 100, 5000, 50_000] {
        let block = heap.take(0, size);
        let neighbour = heap.take(0, size);
        heap.give(0, block);
        let resized = misuse(|| {
            heap.resize(0, block, size);
        });
        assert_eq!(dead_in(resized), block, "{size}");
        let inner = misuse(|| {
            heap.resize(0, neighbour + 4, size);
        });
        assert!(matches!(inner, Misuse::Inside { .. }), "{size}");
    }
}

/// Growing in place must stop at a neighbour, at the heap's end, and at a size that is no span any more.
#[test]
fn a_span_that_cannot_grow_in_place_moves() {
    let heap = Heap::new();
    let (block, neighbour) = (heap.take(0, 50_000), heap.take(0, 50_000));
    // SAFETY: the test holds the block, which is live and has that size.
    unsafe { (block as *mut u8).write_bytes(0x77, 50_000) };
    let moved = heap.resize(0, block, 100_000);
    assert_ne!(moved, block);
    let large = heap.resize(0, moved, 400_000);
    // SAFETY: live, and at least as long as what was copied.
    let kept = unsafe { std::slice::from_raw_parts(large as *const u8, 50_000) };
    assert!(kept.iter().all(|&byte| byte == 0x77));
    heap.give_all(0, &[large, neighbour]);
    heap.is_sound();
}

/// Only the owner may resize a span in place: another thread's realloc moves it or leaves it.
#[test]
fn another_threads_span_is_not_resized_in_place() {
    let heap = Heap::new();
    let block = heap.take(0, 100_000);
    assert_eq!(heap.resize(1, block, 20_000), block);
    assert!(heap.usable(block) >= 100_000, "its pages are the owner's");
    let moved = heap.resize(1, block, 120_000);
    assert_ne!(moved, block);
    assert_eq!(dead_in(heap.misuse_of_give(0, block)), block);
    heap.is_sound();
}
