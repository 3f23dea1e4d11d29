//! The order in which freed slots are used again, and when a slab is carved.

use super::*;

/// A slot freed last is not handed out next: dangling pointers find their old contents for longer, and
/// other words of the slab are warm in nobody's mind.
#[test]
fn a_slot_freed_just_now_is_reused_last() {
    let heap = Heap::new();
    let blocks = heap.take_slab(0, 16); // 256 slots in four words.
    assert_eq!(blocks.len(), 256);
    heap.give(0, blocks[10]);
    heap.give(0, blocks[200]);
    heap.give(0, blocks[11]);
    let again = heap.take_many(0, 16, 3);
    assert_eq!(
        again,
        [blocks[10], blocks[11], blocks[200]],
        "word by word, lowest slot first"
    );
}

/// Partial slabs are taken first in, first out.
#[test]
fn the_slab_that_waits_longest_is_taken_from_first() {
    let heap = Heap::new();
    let slabs: Vec<Vec<usize>> = (0..6).map(|_| heap.take_slab(0, 4096)).collect();
    let ids: Vec<_> = slabs
        .iter()
        .map(|blocks| heap.slab(blocks[0]).id())
        .collect();
    let last = heap.take_slab(0, 4096);
    for order in [4, 2, 3] {
        heap.give_all(0, &slabs[order][slabs[order].len() / 2..]);
    }
    let free = [4, 2, 3]
        .map(|order| slabs[order].len().div_ceil(2))
        .iter()
        .sum();
    let mut again: Vec<_> = heap
        .take_many(0, 4096, free)
        .into_iter()
        .map(|block| heap.slab(block).id())
        .collect();
    again.dedup();
    assert_eq!(again, [ids[4], ids[2], ids[3]]);
    heap.give_all(0, &last);
    heap.is_sound();
}

/// The active slab, of 256 slots, has `left` free ones, and one as large that waits has `waiting`. All words of the active
/// one had their turn. Whether the next slot is of the one that waits.
fn gives_way(left: usize, waiting: usize) -> bool {
    let heap = Heap::new();
    let slabs: Vec<_> = (0..4).map(|_| heap.take_slab(0, 64)).collect();
    let (waits, active) = (&slabs[2], &slabs[3]);
    assert_eq!([waits.len(), active.len()], [256, 256]);
    heap.give_all(0, &waits[..waiting]);
    heap.give_all(0, &active[..left]);
    let block = heap.take(0, 64);
    heap.is_sound();
    // Nothing is lost: all free slots serve before a slab is carved.
    let slabs = heap.stats().slabs;
    heap.take_many(0, 64, left + waiting - 1);
    assert_eq!(heap.stats().slabs, slabs);
    heap.take(0, 64);
    assert_eq!(heap.stats().slabs, slabs + 1);
    heap.is_sound();
    waits.contains(&block)
}

/// A few slots that were freed while the active slab had its turn would be taken a few at a time, by a slow path each.
#[test]
fn after_a_round_a_slab_with_little_left_gives_way_to_one_with_far_more() {
    assert!(gives_way(10, 20));
    assert!(gives_way(64, 128));
    assert!(!gives_way(10, 19), "hardly more wait");
    assert!(!gives_way(65, 200), "more than a quarter is left");
}

/// Slabs that hold any free slot are used before a new one is carved.
#[test]
fn no_slab_is_carved_while_a_slot_is_free() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 16, 2560);
    let slabs = heap.stats().slabs;
    // One free slot in each slab: too few for any to be partial.
    let holes: Vec<usize> = blocks.iter().copied().step_by(250).collect();
    heap.give_all(0, &holes);
    heap.take_many(0, 16, holes.len());
    assert_eq!(heap.stats().slabs, slabs);
}

/// The 8-byte class has 512 slots and eight words, in a header pair.
#[test]
fn the_smallest_class_uses_both_headers_of_its_pair() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 8, 512 * 5);
    assert_eq!(heap.stats().slabs, 5);
    for (i, &block) in blocks.iter().enumerate() {
        heap.give(i % 2, block);
    }
    for &block in blocks.iter().step_by(97) {
        assert_eq!(dead_in(heap.misuse_of_give(1, block)), block);
    }
    heap.is_sound();
    // Released pairs are used again as pairs, single headers beside them as single ones.
    for _ in 0..3 {
        let (small, other) = (heap.take_many(0, 8, 3000), heap.take_many(0, 24, 3000));
        heap.give_all(0, &small);
        heap.give_all(1, &other);
        heap.allocator.reclaim(&heap.threads[0]);
        heap.is_sound();
    }
}

/// Uses up all memory, and is refused a few times more: so that the heap knows that it has nothing left.
fn use_up(heap: &Heap) {
    let take = |size| heap.allocator.malloc(&*heap.threads[0], size);
    for size in [8 << 20, SPAN_MAX, 16 << 10, 9000] {
        while !take(size).is_null() {}
    }
    (0..3).for_each(|_| assert!(take(9000).is_null()));
}

/// A refusal does not go through the heap again that was gone through in vain before: what becomes free after that is
/// found all the same.
#[test]
fn what_becomes_free_after_a_refusal_is_found_by_the_next_one() {
    // A free of the active slab's and of the active span's is no event; nor is one by another thread.
    for (size, thread, more) in [
        (3000, 0, 0),
        (3000, 0, 3),
        (3000, 1, 0),
        (40_000, 0, 0),
        (40_000, 1, 0),
    ] {
        let heap = Heap::new();
        heap.give(thread, heap.take(thread, 16));
        let mut blocks = heap.take_many(0, size, 1);
        use_up(&heap);
        // Slots that were cached before, or are now.
        blocks.extend(heap.take_many(0, size, more));
        assert!(
            heap.slab(blocks[0]).pages() > 2,
            "room for what is asked for"
        );
        heap.give_all(thread, &blocks);
        heap.take(0, 9000);
        heap.is_sound();
    }
}

/// A refused growth makes the next ones small; once something went back they are as before.
#[test]
fn after_a_refusal_and_a_release_slabs_are_as_large_as_before() {
    let heap = Heap::new();
    let spans = heap.take_many(0, SPAN_MAX, 100);
    let blocks = heap.take_many(0, 48, 20_000);
    let pages = heap.slab(blocks[19_999]).pages();
    let refused = || heap.allocator.malloc(&*heap.threads[0], SPAN_MAX).is_null();
    while !refused() {}
    assert!(heap.allocator.backend.pages.is_refused());
    heap.give_all(0, &spans);
    let blocks = heap.take_many(0, 48, 20_000);
    assert_eq!(heap.slab(blocks[19_999]).pages(), pages);
}
