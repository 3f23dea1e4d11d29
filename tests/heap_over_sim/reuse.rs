//! The order in which freed slots are used again, and when a slab is carved.

use super::*;
use slabside_core::slab::State;

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

/// A slab of large slots that is used up while another one waits keeps its place in the sweep, so that the frees that it
/// gathers need no event each. One that is still full at its turn is whose who frees into it first, unless it is the
/// first such one.
#[test]
fn a_slab_of_large_slots_gathers_frees_until_its_turn() {
    const SIZE: usize = 12 << 10;
    let heap = Heap::new();
    let slabs: Vec<_> = (0..6).map(|_| heap.take_slab(0, SIZE)).collect();
    let slab = |order: usize| heap.slab(slabs[order][0]);
    let is_open = |order| slab(order).owner.load(Relaxed).is_full();
    assert_eq!(slab(5).state(), State::Active);
    assert!(
        (0..5).all(is_open),
        "no other one waited when they were used up"
    );
    // Three wait. As each is used up, it waits again.
    (0..3).for_each(|order| heap.give(0, slabs[order][0]));
    for blocks in &slabs[..3] {
        assert_eq!(heap.take(0, SIZE), blocks[0]);
        heap.is_sound();
    }
    for order in [0, 1, 5] {
        assert_eq!(
            (slab(order).state(), slab(order).count_free()),
            (State::Partial, 0)
        );
        assert!(!is_open(order));
    }
    // What is freed now in the one that waits longest comes first.
    for order in [5, 1] {
        heap.give(0, slabs[order][1]);
        heap.is_sound();
    }
    assert_eq!(heap.take(0, SIZE), slabs[5][1]);
    // Slab 0 is still full at its turn, and is spared: the next one has a free slot.
    assert_eq!(heap.take(0, SIZE), slabs[1][1]);
    assert_eq!(slab(0).state(), State::Partial);
    heap.is_sound();
    // All that wait are full by now: none of them keeps a new slab from being made, and another thread's free gets one.
    let carved = heap.stats().slabs;
    heap.take(0, SIZE);
    assert_eq!(heap.stats().slabs, carved + 1);
    assert!((0..6).all(is_open));
    heap.give(1, slabs[0][1]);
    assert_eq!(slab(0).owner.load(Relaxed), heap.threads[1].me.get());
    heap.is_sound();
    for (order, blocks) in slabs.iter().enumerate() {
        let live = blocks.iter().skip(if order == 0 { 2 } else { 0 });
        live.for_each(|&block| heap.give(0, block));
    }
    heap.give(0, slabs[0][0]);
    heap.is_sound();
}

/// Another thread's frees into a slab that waits and is full are collected, and serve before a slab is carved.
#[test]
fn a_full_slab_that_waits_gets_what_others_free() {
    const SIZE: usize = 12 << 10;
    let heap = Heap::new();
    let slabs: Vec<_> = (0..3).map(|_| heap.take_slab(0, SIZE)).collect();
    heap.give(0, slabs[0][0]);
    heap.take(0, SIZE);
    let waits = heap.slab(slabs[2][0]);
    assert_eq!((waits.state(), waits.count_free()), (State::Partial, 0));
    heap.give_all(1, &slabs[2][..2]);
    assert!(waits.owner.load(Relaxed).is_of(heap.threads[0].me.get()));
    let carved = heap.stats().slabs;
    let again = heap.take_many(0, SIZE, 2);
    assert_eq!(again, slabs[2][..2]);
    assert_eq!(heap.stats().slabs, carved);
    heap.is_sound();
    // Its thread ends while it is full and waits again: whoever frees into it first gets it.
    heap.give(0, slabs[0][0]);
    heap.take(0, SIZE);
    heap.exit(0);
    assert!(waits.owner.load(Relaxed).is_full());
    heap.give_all(1, &slabs[2]);
    heap.is_sound();
}

/// Of a class of many slabs none waits that is used up: its thread may sleep from then on, and what others free into it is
/// theirs, or goes back.
#[test]
fn used_up_slabs_of_a_thread_that_sleeps_are_whose_who_frees_into_them() {
    const SIZE: usize = 12 << 10;
    let heap = Heap::new();
    let mut slabs: Vec<_> = (0..100).map(|_| heap.take_slab(0, SIZE)).collect();
    for blocks in &mut slabs {
        heap.give(0, blocks.remove(0));
    }
    let again = heap.take_many(0, SIZE, slabs.len());
    heap.is_sound();
    heap.give_all(1, &again);
    slabs.iter().for_each(|blocks| heap.give_all(1, blocks));
    assert!(heap.stats().slabs <= 2, "{:?}", heap.stats());
    heap.is_sound();
}

/// What others freed serves before a slab is made, also where a slab that is still full comes before theirs.
#[test]
fn what_others_freed_serves_before_a_slab_is_made_behind_a_full_one() {
    for size in [12 << 10, 30 << 10] {
        let heap = Heap::new();
        let slabs: Vec<_> = (0..4).map(|_| heap.take_slab(0, size)).collect();
        // Slabs 3 and 0 wait, and are full.
        (0..2).for_each(|order| heap.give(0, slabs[order][0]));
        (0..2).for_each(|order| assert_eq!(heap.take(0, size), slabs[order][0]));
        for order in [3, 0] {
            let waits = heap.slab(slabs[order][0]);
            assert_eq!((waits.state(), waits.count_free()), (State::Partial, 0));
        }
        // The active one goes back.
        heap.give_all(0, &slabs[1]);
        heap.allocator.reclaim(&heap.threads[0]);
        heap.is_sound();
        heap.give(1, slabs[0][1]);
        let carved = heap.stats().slabs;
        assert_eq!(heap.take(0, size), slabs[0][1]);
        assert_eq!(heap.stats().slabs, carved);
        heap.is_sound();
    }
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
