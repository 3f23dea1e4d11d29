//! What the heap does, watched over a simulated system: misuse and where it is found, the order of reuse,
//! when memory goes back, what is kept, and what happens where the break has an end or a hole.
//!
//! The model (tests/model.rs) says that a program is served; these tests say how. Each states why it is
//! here. Threads are `Local`s, so that a test decides what each does and when.

mod support;

use slabside::allocator::Allocator;
use slabside::class::{size_of_class, CLASSES};
use slabside::geometry::{PAGE, SPAN_MAX};
use slabside::inspect::{stats, Stats};
use slabside::misuse::{Call, Misuse};
use slabside::os::{Os, Sim, SimConfig};
use slabside::remote;
use slabside::slab::SlabPtr;
use slabside::sync::Ordering::Relaxed;
use slabside::tls::{Local, Phase};
use std::panic::{catch_unwind, AssertUnwindSafe};
use support::sim_with;

/// An allocator and three threads.
struct Heap {
    allocator: Box<Allocator<Sim>>,
    threads: [Box<Local>; 3],
}

impl Heap {
    fn new() -> Heap {
        Heap::with(SimConfig::default())
    }

    fn with(config: SimConfig) -> Heap {
        Heap {
            allocator: Box::new(Allocator::new(Sim::new(config))),
            threads: std::array::from_fn(|_| Box::new(Local::new())),
        }
    }

    fn sim(&self) -> &Sim {
        &self.allocator.ground.os
    }

    fn stats(&self) -> Stats {
        stats(&self.allocator)
    }

    fn take(&self, thread: usize, size: usize) -> usize {
        let block = self.allocator.malloc(&*self.threads[thread], size);
        assert!(!block.is_null(), "{size} bytes refused");
        block as usize
    }

    fn take_many(&self, thread: usize, size: usize, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.take(thread, size)).collect()
    }

    fn give(&self, thread: usize, block: usize) {
        self.allocator
            .free(&*self.threads[thread], block as *mut u8);
    }

    fn give_all(&self, thread: usize, blocks: &[usize]) {
        blocks.iter().for_each(|&block| self.give(thread, block));
    }

    fn resize(&self, thread: usize, block: usize, size: usize) -> usize {
        self.allocator
            .realloc(&self.threads[thread], block as *mut u8, size) as usize
    }

    fn usable(&self, block: usize) -> usize {
        self.allocator
            .usable_size(&self.threads[0], block as *const u8)
    }

    fn exit(&self, thread: usize) {
        self.allocator.exit_thread(&self.threads[thread]);
    }

    /// The slab that `block` lies in.
    fn slab(&self, block: usize) -> SlabPtr {
        self.allocator
            .ground
            .pages
            .find(block)
            .expect("a page of the heap")
            .1
    }

    /// As many blocks of `size` as fill the slab that the first of them lies in.
    fn take_slab(&self, thread: usize, size: usize) -> Vec<usize> {
        let first = self.take(thread, size);
        let mut blocks = vec![first];
        blocks.extend(self.take_many(thread, size, self.slab(first).slots() - 1));
        assert_eq!(self.slab(first).count_free(), 0, "another slab was begun");
        blocks
    }

    fn break_bytes(&self) -> usize {
        self.sim().break_position() - self.sim().break_start()
    }

    /// Slow paths enough for the thread to look at the clock.
    fn pulse(&self, thread: usize) {
        for _ in 0..2 * 64 {
            let block = self.take(thread, SPAN_MAX);
            self.give(thread, block);
        }
    }

    fn is_sound(&self) {
        assert_eq!(self.allocator.validate(), 0);
    }

    /// What ends the program when thread `thread` frees `block`.
    fn misuse_of_give(&self, thread: usize, block: usize) -> Misuse {
        misuse(|| self.give(thread, block))
    }
}

/// The misuse that `work` dies of.
fn misuse(work: impl FnOnce()) -> Misuse {
    let died = catch_unwind(AssertUnwindSafe(work)).expect_err("nothing was found");
    *died
        .downcast_ref::<Misuse>()
        .expect("it died, but of no misuse")
}

/// The address that a free found nothing live at; whether the slab is still there does not matter.
fn gone_at(found: Misuse) -> usize {
    match found {
        Misuse::Dead { addr, .. } | Misuse::Unknown { addr, .. } => addr,
        other => panic!("{other:?}"),
    }
}

fn dead_in(found: Misuse) -> usize {
    match found {
        Misuse::Dead { addr, .. } => addr,
        other => panic!("{other:?}"),
    }
}

// ---- misuse -----------------------------------------------------------------------------------------

/// In each size class, each span and large blocks: the plainest of all errors, found at once.
#[test]
fn a_double_free_is_found_in_every_class() {
    let heap = Heap::new();
    let sizes = (0..CLASSES)
        .map(size_of_class)
        .chain([9000, SPAN_MAX, SPAN_MAX + 1, 3 << 20]);
    for size in sizes {
        let block = heap.take(0, size);
        heap.give(0, block);
        assert_eq!(gone_at(heap.misuse_of_give(0, block)), block, "size {size}");
        assert_eq!(
            gone_at(heap.misuse_of_give(1, block)),
            block,
            "size {size} by another thread"
        );
    }
}

/// Between a remote free and its collection, the slot is marked in the remote bitmap alone.
#[test]
fn a_double_free_is_found_in_every_order_of_two_threads() {
    for (first, second) in [(0, 1), (1, 0), (1, 1), (1, 2)] {
        let heap = Heap::new();
        let blocks = heap.take_many(0, 40, 10);
        heap.give(first, blocks[4]);
        assert_eq!(
            dead_in(heap.misuse_of_give(second, blocks[4])),
            blocks[4],
            "{first} then {second}"
        );
        heap.is_sound();
    }
}

/// After the collection it is marked in the owner's bitmap.
#[test]
fn a_double_free_is_found_after_collection() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 40, 10);
    heap.give(1, blocks[4]);
    heap.give(0, blocks[5]); // The pending flag diverts this free, which collects.
    assert!(heap.slab(blocks[4]).is_free(4) && !heap.slab(blocks[4]).is_remote(4));
    for thread in 0..3 {
        assert_eq!(dead_in(heap.misuse_of_give(thread, blocks[4])), blocks[4]);
    }
}

/// An abandoned slab has no owner whose bitmap a freer could divert to: it is claimed first.
#[test]
fn a_double_free_is_found_in_abandoned_slabs() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 40, 10);
    heap.give(0, blocks[3]);
    heap.exit(0);
    assert_eq!(heap.slab(blocks[3]).owner.load(Relaxed), remote::LISTED);
    assert_eq!(dead_in(heap.misuse_of_give(1, blocks[3])), blocks[3]);
    heap.give(1, blocks[4]);
    assert_eq!(dead_in(heap.misuse_of_give(2, blocks[4])), blocks[4]);
}

/// A full slab of a thread that exited is on no list.
#[test]
fn a_double_free_is_found_in_disowned_slabs() {
    let heap = Heap::new();
    let blocks = heap.take_slab(0, 500);
    heap.exit(0);
    assert_eq!(heap.slab(blocks[0]).owner.load(Relaxed), remote::DISOWNED);
    heap.give(1, blocks[2]);
    assert_eq!(dead_in(heap.misuse_of_give(1, blocks[2])), blocks[2]);
    assert_eq!(dead_in(heap.misuse_of_give(2, blocks[2])), blocks[2]);
    heap.is_sound();
}

/// Slabs are given back when empty: then there is no slot any more that the pointer could name.
#[test]
fn a_free_into_a_released_slab_is_found() {
    let heap = Heap::new();
    let guard = heap.take(0, 8000);
    let block = heap.take(1, 40);
    heap.give(1, block);
    heap.exit(1);
    for thread in 0..3 {
        let expected = Misuse::Unknown {
            call: Call::Free,
            addr: block,
        };
        assert_eq!(heap.misuse_of_give(thread, block), expected);
    }
    heap.give(0, guard);
    heap.is_sound();
}

/// Behind the last slot a slab may have a tail, whose bit must not be taken for a slot's.
#[test]
fn a_free_one_past_the_last_slot_is_found_in_every_class() {
    let heap = Heap::new();
    for class in 0..CLASSES {
        let size = size_of_class(class);
        let slab = heap.slab(heap.take(0, size));
        let past = slab.base() + slab.slots() * size;
        if past < slab.base() + slab.pages() * PAGE {
            let expected = Misuse::Inside {
                call: Call::Free,
                addr: past,
                offset: past - slab.base(),
                size,
            };
            assert_eq!(heap.misuse_of_give(0, past), expected);
            assert_eq!(heap.misuse_of_give(1, past), expected);
        }
    }
}

/// The reciprocal tells each inner pointer from a slot's start; for spans any offset but 0.
#[test]
fn a_free_of_an_inner_pointer_is_found() {
    let heap = Heap::new();
    for size in [8, 16, 48, 1000, 8192, 10_000, SPAN_MAX] {
        let block = heap.take(0, size);
        for inside in [1, 7, size / 2 + 1, size - 1] {
            for thread in 0..2 {
                let found = heap.misuse_of_give(thread, block + inside);
                assert!(
                    matches!(found, Misuse::Inside { addr, .. } if addr == block + inside),
                    "{found:?}"
                );
            }
        }
    }
    let large = heap.take(0, 1 << 20);
    assert_eq!(
        heap.misuse_of_give(0, large + PAGE),
        Misuse::Unknown {
            call: Call::Free,
            addr: large + PAGE
        }
    );
}

#[test]
fn a_free_of_what_never_was_a_block_is_found() {
    let heap = Heap::new();
    let unknown = |addr| Misuse::Unknown {
        call: Call::Free,
        addr,
    };
    let local = &raw const heap as usize;
    // Before anything was allocated there are no tables to look into.
    assert_eq!(heap.misuse_of_give(0, local), unknown(local));
    let block = heap.take(0, 100);
    let foreign = heap.sim().foreign_sbrk(3 * PAGE as isize).unwrap();
    heap.take_many(0, 4000, 100);
    for addr in [
        local,
        8,
        usize::MAX & !15,
        foreign + PAGE,
        heap.sim().break_start(),
        block & !0xffff_ffff,
    ] {
        assert_eq!(heap.misuse_of_give(0, addr), unknown(addr), "{addr:#x}");
        assert_eq!(heap.misuse_of_give(1, addr), unknown(addr), "{addr:#x}");
    }
}

/// realloc and usable size test the live bit: a copy out of a dead slot would hide the error.
#[test]
fn realloc_and_usable_size_of_dead_blocks_are_found() {
    let heap = Heap::new();
    for size in [8, 100, 5000, 20_000, 1 << 20] {
        let (block, _neighbour) = (heap.take(0, size), heap.take(0, size));
        for freer in [0, 1] {
            let block = if freer == 0 {
                block
            } else {
                heap.take(0, size)
            };
            heap.give(freer, block);
            assert_eq!(
                dead_in(misuse(|| _ = heap.resize(0, block, 2 * size))),
                block
            );
            assert_eq!(dead_in(misuse(|| _ = heap.usable(block))), block);
        }
    }
}

/// Two frees that overlap in time are found by the collection: built here by setting the bit by hand.
#[test]
fn a_slot_freed_twice_at_the_same_time_is_found_by_the_collection() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 40, 10);
    heap.give(0, blocks[1]);
    let slab = heap.slab(blocks[1]);
    slab.remote_word(0).fetch_or(1 << 1, Relaxed);
    slab.owner.fetch_or(remote::PENDING, Relaxed);
    let found = heap.misuse_of_give(0, blocks[2]);
    assert!(
        matches!(found, Misuse::CollectedTwice { addr, slot: 1, size: 48 } if addr == blocks[1]),
        "{found:?}"
    );
}

// ---- reuse ------------------------------------------------------------------------------------------

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

// ---- giving back ------------------------------------------------------------------------------------

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

/// A program that swells again and again soon keeps its pages; one that has stopped gives them back.
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

/// Free pages inside the heap are discarded once nobody has needed them for a while, and not before.
#[test]
fn idle_pages_inside_the_heap_are_purged_by_the_clock() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 8000, 1000);
    let top = heap.take(0, 5000); // Keeps the heap's end.
    heap.give_all(0, &blocks);
    heap.pulse(0);
    assert_eq!(heap.stats().purged, 0, "nothing was idle yet");
    for _ in 0..8 {
        heap.sim().advance_clock(300);
        heap.pulse(0);
    }
    assert!(heap.stats().purged >= 7_000_000, "{:?}", heap.stats());
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

fn calloc_and_dirty(heap: &Heap, size: usize) -> usize {
    let block = heap.allocator.calloc(&*heap.threads[0], 1, size);
    assert!(!block.is_null());
    // SAFETY: a live block of `size` bytes at least, the usable ones ours as well.
    unsafe {
        let bytes = std::slice::from_raw_parts(block, size);
        assert!(
            bytes.iter().all(|&byte| byte == 0),
            "calloc({size}) is not zero"
        );
        block.write_bytes(0xa5, heap.usable(block as usize));
    }
    block as usize
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

// ---- spans ------------------------------------------------------------------------------------------

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

/// What is kept for reuse is bounded by 1 MiB and half of what is live.
#[test]
fn spans_kept_for_reuse_are_bounded() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 100_000, 100);
    let span = heap.usable(blocks[0]);
    heap.give_all(0, &blocks);
    assert!(
        heap.stats().spans * span <= (1 << 20) + span,
        "{:?}",
        heap.stats()
    );
    heap.is_sound();
}

/// Kept spans go back by the clock, even where only spans are used.
#[test]
fn spans_kept_for_reuse_decay() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 100_000, 8);
    heap.give_all(0, &blocks);
    assert!(heap.stats().spans >= 8);
    for _ in 0..4 {
        heap.sim().advance_clock(600);
        (0..130).for_each(|_| heap.give(0, heap.take(0, 9000)));
    }
    assert!(heap.stats().spans <= 2, "{:?}", heap.stats());
}

#[test]
fn a_span_grows_and_shrinks_in_place() {
    let heap = Heap::new();
    heap.take(0, 1);
    let block = heap.take(0, 100_000);
    let grown = heap.take(0, 10_000); // Behind it nothing but the heap's free end.
    heap.give(0, heap.take(0, SPAN_MAX)); // The break is moved far enough.
    heap.allocator
        .ground
        .pages
        .trim(heap.sim(), &heap.allocator.ground.meta, 64);
    assert_eq!(heap.resize(0, block, 20_000), block, "shrinks in place");
    assert_eq!(heap.usable(block), 5 * PAGE);
    assert_eq!(
        heap.resize(0, block, 90_000),
        block,
        "grows over what it gave back"
    );
    assert_eq!(heap.usable(block), 22 * PAGE);
    assert_eq!(heap.resize(0, block, 100), block);
    assert_eq!(heap.usable(block), 3 * PAGE, "the smallest span");
    for inner in [3 * PAGE, 5 * PAGE] {
        let addr = block + inner;
        assert_eq!(
            heap.misuse_of_give(0, addr),
            Misuse::Unknown {
                call: Call::Free,
                addr
            }
        );
    }
    heap.is_sound();
    heap.give_all(0, &[block, grown]);
    heap.is_sound();
}

/// A block that grows step by step moves a few times, not once a class; one that doubles gets no more than
/// it asked for.
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
    let (block, neighbour) = (heap.take(0, 20_000), heap.take(0, 20_000));
    // SAFETY: a live block of that size.
    unsafe { (block as *mut u8).write_bytes(0x77, 20_000) };
    let moved = heap.resize(0, block, 40_000);
    assert_ne!(moved, block);
    let large = heap.resize(0, moved, 400_000);
    // SAFETY: live, and at least as long as what was copied.
    let kept = unsafe { std::slice::from_raw_parts(large as *const u8, 20_000) };
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

// ---- large blocks -----------------------------------------------------------------------------------

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
    let whole = heap.take(0, 3 << 20);
    heap.give(0, whole);
    let parts: Vec<_> = (0..3).map(|_| heap.take(0, 1 << 20)).collect();
    assert_eq!(parts, [0, 1, 2].map(|part| whole + (part << 20)));
    for part in [0, 2, 1] {
        heap.give(0, parts[part]);
    }
    assert_eq!(heap.take(0, 3 << 20), whole);
    assert_eq!(heap.stats().mapped, 3 << 20);
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

/// A block that grew once has room behind it; nothing is copied or moved the next times, and nobody else
/// is given that room.
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

/// What a block gives up by shrinking is what it grows into again; an address in it is a freed one.
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
    // SAFETY: a live block of that size.
    unsafe { (block as *mut u8).write_bytes(0x77, 1 << 20) };
    heap.give(0, block);
    assert_eq!(calloc_and_dirty(&heap, 1 << 20), block);
}

/// Freed mappings are kept for half a second, whether or not another large block is freed later.
#[test]
fn freed_large_mappings_decay() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 1 << 20, 10);
    heap.give_all(0, &blocks);
    assert!(heap.stats().mapped >= 10 << 20);
    for _ in 0..3 {
        heap.sim().advance_clock(400);
        heap.take_many(0, 1000, 64 * 20);
    }
    assert_eq!(heap.stats().mapped, 0);
}

/// What is kept and what is live are together at most what was live lately, a sixteenth of it and 16 MiB;
/// no block above 64 MiB is kept, and no more than 64 ranges.
#[test]
fn freed_large_mappings_are_bounded() {
    let heap = Heap::new();
    let huge = heap.take(0, 65 << 20);
    heap.give(0, huge);
    assert_eq!(heap.stats().mapped, 0);
    quieten(&heap);
    let blocks = heap.take_many(0, 1 << 20, 60);
    heap.give_all(0, &blocks);
    assert_eq!(
        heap.stats().mapped,
        60 << 20,
        "as much as was live just now"
    );
    quieten(&heap);
    assert_eq!(heap.stats().mapped, 0);
    let blocks = heap.take_many(0, 140 << 10, 200);
    heap.give_all(0, &blocks);
    assert!(
        heap.stats().mapped <= 64 * (140 << 10),
        "{:?}",
        heap.stats()
    );
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

/// Two seconds go by, with a few slow paths now and then.
fn quieten(heap: &Heap) {
    for _ in 0..5 {
        heap.sim().advance_clock(400);
        heap.take_many(0, 1000, 64 * 20);
    }
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

// ---- threads ----------------------------------------------------------------------------------------

/// A new thread takes up what an exited one left before it asks for pages.
#[test]
fn slabs_of_an_exited_thread_are_adopted() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 100, 1000);
    heap.give_all(0, &blocks.iter().copied().step_by(2).collect::<Vec<_>>());
    let slabs = heap.stats().slabs;
    heap.exit(0);
    heap.take_many(1, 100, 500);
    assert_eq!(heap.stats().slabs, slabs);
    heap.is_sound();
}

/// A full slab of an exited thread becomes the first freer's, who then frees without atomics.
#[test]
fn a_full_slab_of_an_exited_thread_is_the_first_freers() {
    let heap = Heap::new();
    let blocks = heap.take_slab(0, 100);
    heap.exit(0);
    heap.give(1, blocks[0]);
    assert_eq!(
        heap.slab(blocks[0]).owner.load(Relaxed),
        heap.threads[1].me.get()
    );
    heap.give_all(1, &blocks[1..]);
    heap.is_sound();
}

/// Where frees come from elsewhere, a full slab is let go, so that the freer becomes its owner.
#[test]
fn full_slabs_are_disowned_where_other_threads_free() {
    let heap = Heap::new();
    let mut handed_over = 0;
    for _ in 0..50 {
        let blocks = heap.take_many(0, 64, 512);
        let disowned = |block: &&usize| heap.slab(**block).owner.load(Relaxed) == remote::DISOWNED;
        handed_over += blocks.iter().filter(disowned).count();
        heap.give_all(1, &blocks);
    }
    assert!(
        handed_over > 512,
        "{handed_over} slots lay in disowned slabs"
    );
    heap.is_sound();
}

/// Remote frees come back to their owner before it carves another slab.
#[test]
fn remote_frees_are_collected_before_a_slab_is_carved() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 1000, 400);
    let before = heap.stats().break_bytes;
    heap.give_all(1, &blocks);
    heap.take_many(0, 1000, 400);
    assert!(
        heap.stats().break_bytes <= before + (64 << 10),
        "{} after {before}",
        heap.stats().break_bytes
    );
    heap.is_sound();
}

/// After its exit hook a thread still allocates and frees: later destructors do.
#[test]
fn a_late_thread_is_served_by_the_shared_heap() {
    let heap = Heap::new();
    let before = heap.take_many(0, 100, 50);
    heap.exit(0);
    assert_eq!(heap.threads[0].phase.get(), Phase::Late);
    let mut blocks = Vec::new();
    for size in [1, 100, 2000, 8192, 20_000, 200_000] {
        blocks.extend(heap.take_many(0, size, 40));
    }
    let grown: Vec<usize> = blocks
        .iter()
        .map(|&block| heap.resize(0, block, heap.usable(block) + 1))
        .collect();
    assert_eq!(gone_at(heap.misuse_of_give(0, blocks[0])), blocks[0]);
    heap.give_all(0, &grown[..100]);
    heap.give_all(1, &grown[100..]);
    heap.give_all(0, &before);
    assert_eq!(gone_at(heap.misuse_of_give(0, grown[5])), grown[5]);
    heap.is_sound();
    heap.exit(0); // A second call finds nothing to do.
    heap.is_sound();
}

/// Threads that come and go do not make the heap grow.
#[test]
fn many_short_threads_use_the_same_heap_again() {
    let heap = Heap::new();
    heap.take(0, 1);
    for round in 0..300 {
        let local = Box::new(Local::new());
        let blocks: Vec<usize> = (0..50)
            .map(|_| heap.allocator.malloc(&*local, 100) as usize)
            .collect();
        blocks
            .iter()
            .for_each(|&block| heap.allocator.free(&*local, block as *mut u8));
        heap.allocator.exit_thread(&local);
        assert!(heap.stats().slabs <= 2, "round {round}: {:?}", heap.stats());
    }
    assert!(heap.stats().metadata <= 128 << 10, "{:?}", heap.stats());
    heap.is_sound();
}

/// A signal handler that interrupts a slow path may free, and what it freed is not lost; malloc answers
/// null unless a slot lies checked out.
#[test]
fn a_handler_in_a_slow_path_frees_without_loss() {
    let heap = Heap::new();
    let (mine, others) = (heap.take_slab(0, 100), heap.take_slab(1, 100));
    let span = heap.take(1, 20_000);
    heap.threads[0].busy.set(1);
    heap.give_all(0, &others);
    heap.give(0, span);
    heap.give_all(0, &mine);
    assert!(heap.allocator.malloc(&*heap.threads[0], 20_000).is_null());
    assert_eq!(dead_in(heap.misuse_of_give(0, others[3])), others[3]);
    heap.threads[0].busy.set(0);
    assert_eq!(heap.stats().live, 0);
    for thread in [0, 1] {
        heap.exit(thread);
    }
    assert_eq!((heap.stats().slabs, heap.stats().spans), (0, 0));
}

/// In a fork child the other threads' slabs are nobody's: they are adopted, and freed like any.
#[test]
fn a_fork_child_takes_up_what_the_other_threads_left() {
    let heap = Heap::new();
    let mut blocks = Vec::new();
    for size in [8, 100, 3000, 20_000, 200_000] {
        (0..3).for_each(|thread| blocks.extend(heap.take_many(thread, size, 33)));
    }
    // Remote frees wait to be collected when the process forks.
    blocks
        .iter()
        .step_by(5)
        .enumerate()
        .for_each(|(i, &block)| heap.give(i % 3, block));
    let gone: Vec<usize> = blocks.iter().copied().step_by(5).collect();
    heap.allocator.repair_after_fork(&heap.threads[1]);
    heap.is_sound();
    let left: Vec<usize> = blocks
        .iter()
        .copied()
        .filter(|block| !gone.contains(block))
        .collect();
    heap.give_all(1, &left);
    heap.exit(1);
    assert_eq!(
        (heap.stats().live, heap.stats().slabs, heap.stats().spans),
        (0, 0, 0),
        "{:?}",
        heap.stats()
    );
    heap.is_sound();
}

/// The parent's only heap may be another thread's than the one that forks.
#[test]
fn a_fork_child_of_a_thread_without_a_heap_repairs_too() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 100, 100);
    heap.allocator.repair_after_fork(&heap.threads[1]);
    heap.give_all(1, &blocks);
    heap.exit(1);
    assert_eq!(heap.stats().slabs, 0);
}

// ---- the break --------------------------------------------------------------------------------------

/// Another library's sbrk leaves holes: they are never handed out, never given back, and the heap goes on
/// behind them.
#[test]
fn foreign_blocks_in_the_break_are_holes() {
    for foreign in [1, 100, PAGE, 3 * PAGE + 5] {
        let heap = Heap::new();
        let mut holes = Vec::new();
        let mut blocks = Vec::new();
        for _ in 0..10 {
            blocks.extend(heap.take_many(0, 8000, 60));
            let start = heap.sim().foreign_sbrk(foreign as isize).unwrap();
            // SAFETY: what the simulated break moved over just now.
            unsafe { (start as *mut u8).write_bytes(0xf0, foreign) };
            holes.push(start);
        }
        let inside = |block: &&usize| {
            holes
                .iter()
                .any(|&hole| **block < hole + foreign && hole < **block + 8000)
        };
        assert_eq!(blocks.iter().find(inside), None);
        heap.is_sound();
        heap.give_all(0, &blocks);
        heap.allocator.reclaim(&heap.threads[0]);
        heap.is_sound();
        for &hole in &holes {
            // SAFETY: foreign memory, which only this test gives back.
            let bytes = unsafe { std::slice::from_raw_parts(hole as *const u8, foreign) };
            assert!(bytes.iter().all(|&byte| byte == 0xf0));
        }
    }
}

/// The break may stand in the middle of a page before we move it first: that is no reason to do without.
#[test]
fn an_unaligned_break_is_used() {
    for page_size in [PAGE, 64 << 10] {
        let heap = Heap::with(sim_with(|config| {
            config.page_size = page_size;
            config.break_offset = 0x1234;
        }));
        heap.take_many(0, 1000, 1000);
        assert!(heap.stats().break_bytes > 1_000_000 && heap.stats().mapped == 0);
        heap.is_sound();
    }
}

/// A foreign block that goes away again leaves the break where we can go on.
#[test]
fn a_foreign_block_that_is_given_back_does_not_end_the_heap() {
    let heap = Heap::new();
    for _ in 0..20 {
        heap.take_many(0, 8000, 20);
        heap.sim().foreign_sbrk(5000).unwrap();
        heap.sim().foreign_sbrk(-5000).unwrap();
    }
    assert!(heap.stats().mapped == 0 && heap.stats().break_bytes > 3_000_000);
    heap.is_sound();
}

/// The break ends midway: the heap goes on in a mapped window, and blocks of both are served alike.
#[test]
fn the_heap_goes_on_in_a_window_where_the_break_ends() {
    let heap = Heap::with(sim_with(|config| config.break_bytes = 1 << 20));
    let blocks = heap.take_many(0, 8000, 400);
    let end = heap.sim().break_start() + (1 << 20);
    assert!(blocks.iter().any(|&block| block < end) && blocks.iter().any(|&block| block > end));
    for &block in blocks.iter().step_by(20) {
        heap.give(0, block);
        assert_eq!(gone_at(heap.misuse_of_give(0, block)), block);
        assert_eq!(gone_at(heap.misuse_of_give(1, block)), block);
    }
    let left: Vec<usize> = (0..400)
        .filter(|i| i % 20 != 0)
        .map(|i| blocks[i])
        .collect();
    heap.give_all(1, &left);
    heap.is_sound();
    heap.allocator.reclaim(&heap.threads[0]);
    assert_eq!(heap.stats().live, 0);
    heap.is_sound();
}

/// Page numbers go up to and over a group's end (8,192 pages), and over the first 64 Ki pages.
#[test]
fn a_heap_of_more_than_64_ki_pages_works() {
    let heap = Heap::with(sim_with(|config| {
        config.bytes = 1 << 30;
        config.break_bytes = 600 << 20;
    }));
    // Untouched memory: the host is not asked for it.
    let blocks = heap.take_many(0, SPAN_MAX, (66 << 10) / 32);
    assert!(heap.stats().break_bytes > 256 << 20);
    heap.is_sound();
    heap.give_all(0, &blocks.iter().copied().step_by(2).collect::<Vec<_>>());
    heap.give_all(
        1,
        &blocks
            .iter()
            .copied()
            .skip(1)
            .step_by(2)
            .collect::<Vec<_>>(),
    );
    heap.allocator.reclaim(&heap.threads[0]);
    heap.is_sound();
    assert!(
        heap.break_bytes() <= 1 << 20,
        "{} bytes stay",
        heap.break_bytes()
    );
}

/// So many slabs that headers, page map and bitmaps are opened in many steps.
#[test]
fn tens_of_thousands_of_slabs_work() {
    let heap = Heap::with(sim_with(|config| {
        config.bytes = 2 << 30;
        config.break_bytes = 1 << 30;
    }));
    let blocks = heap.take_many(0, 4096, 70_000);
    assert!(heap.stats().slabs > 4000);
    let pairs = heap.take_many(0, 8, 512 * 1000);
    assert!(heap.stats().slabs > 5000);
    heap.is_sound();
    heap.give_all(0, &blocks);
    heap.give_all(0, &pairs);
    heap.is_sound();
    assert_eq!(heap.stats().live, 0);
}

/// The simulated system's default is a process under a limit of 256 MiB: the tree over the page groups has
/// a single level there, which was once read before it was open.
#[test]
fn every_size_of_region_can_be_started() {
    for shift in 22..36 {
        let heap = Heap::with(sim_with(|config| {
            config.bytes = 1 << shift;
            config.break_bytes = 1 << (shift - 2);
        }));
        let blocks = heap.take_many(0, 3000, 100);
        heap.give_all(0, &blocks);
        heap.is_sound();
    }
}

/// The clock may not be asked on every free, but the kernel is told that threads are watched once each.
#[test]
fn each_thread_is_watched_once() {
    let heap = Heap::new();
    (0..3).for_each(|thread| drop(heap.take_many(thread, 100, 100)));
    heap.exit(0);
    heap.take(0, 100);
    assert_eq!(heap.sim().watched(), 3);
    assert_eq!(heap.sim().clock(), 0);
}
