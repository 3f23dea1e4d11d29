//! Threads of a process of many, whose first blocks come from one heap for all of them.

use super::*;
use slabside_base::units::LINE;
use slabside_core::sized_free::Said;
use std::cell::Cell;
use std::collections::BTreeSet;

/// Calls that a thread makes before it has a heap of its own.
const CALLS: usize = 16;

/// A heap in whose process so many threads have heaps that the next ones are guests. And some of these.
fn crowded() -> (Heap, Vec<ThreadCache>) {
    crowded_with("")
}

/// Likewise with these options.
pub(super) fn crowded_with(options: &'static str) -> (Heap, Vec<ThreadCache>) {
    let heap = Heap::with(sim_with(|config| config.options = options));
    let thread = |_| ThreadCache::new();
    let crowd: Vec<ThreadCache> = (0..8).map(thread).collect();
    for thread in &crowd {
        assert!(!heap.allocator.malloc(thread, 100).is_null());
        // Its heap stays, as that of a thread that sleeps.
        assert_eq!(thread.phase.get(), Phase::Running);
    }
    std::mem::forget(crowd);
    (heap, (0..40).map(thread).collect())
}

fn take(heap: &Heap, thread: &ThreadCache, size: usize) -> usize {
    let block = heap.allocator.malloc(thread, size) as usize;
    assert_ne!(block, 0);
    block
}

fn give(heap: &Heap, thread: &ThreadCache, block: usize) {
    heap.allocator.free(thread, block as *mut u8);
}

fn heaps(heap: &Heap) -> u64 {
    heap.allocator.backend.meta.counters().heaps.load(Relaxed)
}

/// What a sleeping thread writes to is the memory that it asked for, and no page of its own. But another thread's writes
/// must not take its cache lines away.
#[test]
fn guests_share_pages_and_no_cache_line() {
    let (heap, guests) = crowded();
    let before = heaps(&heap);
    let (mut pages, mut lines) = (BTreeSet::new(), BTreeSet::new());
    for guest in &guests {
        for size in [8, 24, 100, 500] {
            let block = take(&heap, guest, size);
            pages.insert(block / PAGE);
            let last = (block + size - 1) / LINE;
            for line in block / LINE..=last {
                assert!(lines.insert(line), "two blocks lie on one cache line");
            }
        }
        assert_eq!(guest.phase.get(), Phase::Fresh);
    }
    assert_eq!(heaps(&heap), before + 1);
    assert!(pages.len() <= 12, "{} pages", pages.len());
    heap.is_sound();
}

#[test]
fn a_guest_gets_a_heap_after_some_calls_or_for_a_larger_block() {
    let (heap, guests) = crowded();
    let blocks: Vec<usize> = (0..=CALLS).map(|_| take(&heap, &guests[0], 40)).collect();
    assert_eq!(guests[0].phase.get(), Phase::Running);
    take(&heap, &guests[1], 5000);
    assert_eq!(guests[1].phase.get(), Phase::Running);
    // All of its blocks are freed like any, by whomever.
    for (at, &block) in blocks.iter().enumerate() {
        give(&heap, &guests[at % 3], block);
        assert_eq!(
            gone_at(misuse(|| give(&heap, &guests[at % 4], block))),
            block
        );
    }
    heap.is_sound();
}

/// In a process of few threads each has a heap of its own at once.
#[test]
fn few_threads_are_no_guests() {
    let heap = Heap::new();
    heap.take(0, 100);
    heap.take(1, 100);
    assert_eq!(heap.threads[1].phase.get(), Phase::Running);
    assert_eq!(heaps(&heap), 2);
}

#[test]
fn what_a_guest_frees_twice_or_in_the_middle_is_found() {
    let (heap, guests) = crowded();
    let (ours, others) = (take(&heap, &guests[0], 100), heap.take(0, 100));
    assert_eq!(heap.threads[0].phase.get(), Phase::Fresh);
    let owned: Vec<usize> = (0..2 * CALLS).map(|_| heap.take(0, 48)).collect();
    let owned = owned[2 * CALLS - 1];
    for block in [ours, others, owned] {
        let inside = misuse(|| give(&heap, &guests[1], block + 16));
        assert!(matches!(inside, Misuse::Inside { .. }), "{inside:?}");
        give(&heap, &guests[1], block);
        assert_eq!(dead_in(misuse(|| give(&heap, &guests[1], block))), block);
        assert_eq!(dead_in(misuse(|| give(&heap, &guests[2], block))), block);
    }
    assert_eq!(guests[1].phase.get(), Phase::Fresh);
    // The slots that were freed from outside serve again.
    assert_eq!(dead_in(misuse(|| heap.give(0, owned))), owned);
    heap.is_sound();
}

/// A full slab is claimed by who frees into it first, and that needs a heap.
#[test]
fn a_guest_that_frees_into_a_full_slab_gets_a_heap() {
    let (heap, guests) = crowded();
    heap.take_many(0, 40, CALLS + 1);
    let blocks = heap.take_many(0, 64, 4096);
    let full = |block: &&usize| heap.slab(**block).owner.load(Relaxed).is_full();
    let block = *blocks.iter().find(full).expect("most slabs are full");
    give(&heap, &guests[0], block);
    assert_eq!(guests[0].phase.get(), Phase::Running);
    assert_eq!(heap.slab(block).owner.load(Relaxed), guests[0].me.get());
    heap.is_sound();
}

/// A guest's slot may be larger than that of its size otherwise. A free that says the size is checked all the same.
#[test]
fn sizes_said_of_a_guests_block_are_checked() {
    let (heap, guests) = crowded();
    let free_sized = |block: usize, size| {
        let block = block as *mut u8;
        heap.allocator
            .free_sized(&guests[1], block, size, Said::ByHand);
    };
    for size in [1, 24, 100, 129, 500, 1000] {
        let block = take(&heap, &guests[0], size);
        // What grows within its slot to a size that a guest's slot is for leaves the check as it is.
        let pointer = block as *mut u8;
        let grown = heap.allocator.realloc(&guests[2], pointer, size + 1);
        assert_eq!(grown, pointer);
        let wrong = misuse(|| free_sized(block, size + 100));
        assert!(matches!(wrong, Misuse::WrongSize { .. }), "{wrong:?}");
        if size > 64 {
            let wrong = misuse(|| free_sized(block, size - 64));
            assert!(matches!(wrong, Misuse::WrongSize { .. }), "{wrong:?}");
        }
        free_sized(block, size);
    }
    heap.is_sound();
}

#[test]
fn a_guest_that_forks_goes_on_in_the_child() {
    let (heap, guests) = crowded();
    let (mine, others) = (take(&heap, &guests[0], 100), take(&heap, &guests[1], 100));
    heap.allocator.repair_after_fork(&guests[0]);
    for block in [mine, others] {
        give(&heap, &guests[0], block);
        assert_eq!(gone_at(misuse(|| give(&heap, &guests[0], block))), block);
    }
    take(&heap, &guests[0], 100);
    assert_eq!(guests[0].phase.get(), Phase::Running);
    heap.is_sound();
}

#[test]
fn a_guest_asks_for_alignment_and_for_what_may_be_used() {
    let (heap, guests) = crowded();
    for (size, align) in [(1, 1), (24, 32), (100, 64), (200, 256), (640, 512)] {
        let block = heap.allocator.aligned(&guests[0], size, align) as usize;
        assert!(block.is_multiple_of(align.max(LINE)));
        let usable = heap.usable(block);
        assert!((size..=1024).contains(&usable), "{usable} for {size}");
        let block = block as *mut u8;
        let grown = heap.allocator.realloc(&guests[0], block, usable);
        assert_eq!(grown, block);
        let said = Said::ByHand;
        heap.allocator
            .free_sized_aligned(&guests[0], block, size, align, said);
    }
    let zeroed = heap.allocator.calloc(&guests[1], 3, 50);
    // SAFETY: a live block of 150 bytes.
    let bytes = unsafe { std::slice::from_raw_parts_mut(zeroed, 150) };
    assert!(bytes.iter().all(|&byte| byte == 0));
    bytes.fill(0xa5);
    give(&heap, &guests[1], zeroed as usize);
    let zeroed = heap.allocator.calloc(&guests[2], 1, 150);
    // SAFETY: a live block of 150 bytes.
    let bytes = unsafe { std::slice::from_raw_parts(zeroed, 150) };
    assert!(bytes.iter().all(|&byte| byte == 0));
    assert_eq!(guests[2].phase.get(), Phase::Fresh);
    heap.is_sound();
}

/// A thread that only frees comes to a heap as well, and no slot is lost.
#[test]
fn a_guest_that_only_frees_gets_a_heap_after_some_frees() {
    let (heap, guests) = crowded();
    let owned: Vec<usize> = (0..100).map(|_| heap.take(0, 48)).collect();
    let owned = &owned[CALLS..];
    for &block in owned {
        give(&heap, &guests[0], block);
    }
    assert_eq!(guests[0].phase.get(), Phase::Running);
    let again: BTreeSet<usize> = (0..1000).map(|_| heap.take(0, 48)).collect();
    assert!(owned.iter().all(|block| again.contains(block)));
    heap.is_sound();
}

/// What guests freed serves the next guests, and the slabs of a burst of them go back.
#[test]
fn slots_of_guests_that_are_gone_serve_the_next_ones() {
    let (heap, guests) = crowded();
    let mut slabs = None;
    for _ in 0..50 {
        // As threads that end and begin anew.
        guests.iter().for_each(|guest| guest.reset());
        guests.iter().for_each(|guest| guest.calls.set(0));
        let take = |guest: &ThreadCache| [take(&heap, guest, 100), take(&heap, guest, 500)];
        let blocks: Vec<[usize; 2]> = guests.iter().map(take).collect();
        // Half of them are freed by a thread with a heap, after the guest is gone.
        for (at, blocks) in blocks.iter().enumerate() {
            blocks.iter().for_each(|&block| match at % 2 {
                0 => give(&heap, &guests[at], block),
                _ => heap.give(0, block),
            });
        }
        let now = heap.stats().slabs;
        assert!(now <= *slabs.get_or_insert(now) + 8, "{now} slabs");
    }
    heap.is_sound();
}

/// A hardened thread is kept apart from the others, and slots are drawn among a thread's own.
#[test]
fn hardened_threads_are_no_guests() {
    for options in ["hardened", "random", "zero"] {
        let heap = Heap::with(sim_with(|config| config.options = options));
        let threads: Vec<_> = (0..20).map(|_| ThreadCache::new()).collect();
        for thread in &threads {
            take(&heap, thread, 100);
            assert_eq!(thread.phase.get(), Phase::Running, "{options}");
        }
        heap.is_sound();
    }
}

/// A first-class heap has caches of its own: it stays apart, whoever uses it.
#[test]
fn a_guest_uses_first_class_heaps() {
    let (heap, guests) = crowded();
    let guest = &guests[0];
    let handle = heap.allocator.create_arena(guest).expect("there is room");
    let block = heap.allocator.aligned_in(guest, handle, 100, 1) as usize;
    let own = take(&heap, guest, 100);
    assert!(heap.slab(block).owner.load(Relaxed).is_arena());
    assert!(!heap.slab(own).owner.load(Relaxed).is_arena());
    give(&heap, &guests[1], block);
    give(&heap, guest, own);
    heap.allocator.destroy_arena(guest, handle);
    heap.is_sound();
}

/// No thread waits for good for the guests' heap, though another one has left it locked.
#[test]
fn a_guest_whose_heap_is_locked_gets_one_of_its_own() {
    let (heap, guests) = crowded();
    let block = take(&heap, &guests[0], 100);
    let mut at = 0;
    // The third one, after that of the start and that of late threads.
    heap.allocator.each_lock(&mut |lock| {
        at += 1;
        if at == 3 {
            lock.lose();
        }
    });
    // A free marks the slot, and needs no heap.
    give(&heap, &guests[1], block);
    assert_eq!(guests[1].phase.get(), Phase::Fresh);
    assert_eq!(dead_in(misuse(|| give(&heap, &guests[2], block))), block);
    take(&heap, &guests[1], 100);
    assert_eq!(guests[1].phase.get(), Phase::Running);
    // Late threads have another heap.
    heap.allocator.exit_thread(&guests[1]);
    let late = take(&heap, &guests[1], 100);
    give(&heap, &guests[1], late);
    // A fork child serves guests again, once it has so many heaps.
    heap.allocator.repair_after_fork(&guests[0]);
    take(&heap, &guests[0], 100);
    heap.is_sound();
}

/// Threads that begin one after the other: each is a guest for its first calls. `next` is the one whose turn comes.
struct Beginners {
    guests: Vec<ThreadCache>,
    next: Cell<usize>,
}

impl Beginners {
    fn new(guests: Vec<ThreadCache>) -> Beginners {
        let next = Cell::new(0);
        Beginners { guests, next }
    }

    /// A thread that has not made a call.
    fn begin(&self) -> &ThreadCache {
        let at = self.next.get();
        self.next.set((at + 1) % self.guests.len());
        let guest = &self.guests[at];
        guest.calls.set(0);
        guest
    }

    fn are_all_guests(&self) -> bool {
        self.guests
            .iter()
            .all(|guest| guest.phase.get() == Phase::Fresh)
    }

    /// A block for each of `count` threads, of many sizes.
    fn take(&self, heap: &Heap, count: usize) -> Vec<usize> {
        (0..count)
            .map(|at| take(heap, self.begin(), 1 + at * 331 % 1000))
            .collect()
    }

    fn give(&self, heap: &Heap, blocks: &[usize]) {
        blocks
            .iter()
            .for_each(|&block| give(heap, self.begin(), block));
    }
}

/// Guests come and go while hours go by, so that slabs are made and released, pages discarded, and the break moves both
/// ways: whatever the guests' heap needs of the system, it needs with its lock free. (`allocator_on` has the system look.)
#[test]
fn no_system_call_is_made_under_the_lock_of_the_guests_heap() {
    for options in [
        "",
        "profile:2000",
        "guard-sample:20",
        "decay:0",
        "trim-threshold:4096",
    ] {
        let (heap, guests) = crowded_with(options);
        let threads = Beginners::new(guests);
        let counters = heap.allocator.backend.meta.counters();
        for round in 0..10 {
            let before = heap.break_bytes();
            let blocks = threads.take(&heap, 3000);
            assert!(round > 0 || heap.break_bytes() > before + (1 << 20));
            let (some, most) = blocks.split_at(100);
            threads.give(&heap, most);
            heap.sim().advance_clock(200 * (round % 4));
            threads.give(&heap, some);
        }
        assert!(threads.are_all_guests(), "{options}");
        let moves = counters.break_moves.load(Relaxed);
        assert!(moves > 10, "{moves} moves of the break, {options}");
        heap.is_sound();
    }
}

/// A process in which every thread is a guest has no other heap that looks at the clock.
#[test]
fn what_guests_leave_idle_goes_back() {
    let (heap, guests) = crowded();
    let threads = Beginners::new(guests);
    let counters = heap.allocator.backend.meta.counters();
    let before = heap.break_bytes();
    let blocks = threads.take(&heap, 40_000);
    let grown = heap.break_bytes() - before;
    let (kept, gone): (Vec<usize>, Vec<usize>) =
        blocks.into_iter().partition(|block| block / 64 % 97 == 0);
    threads.give(&heap, &gone);
    for _ in 0..20 {
        heap.sim().advance_clock(300);
        let blocks = threads.take(&heap, 1000);
        threads.give(&heap, &blocks);
    }
    assert!(threads.are_all_guests());
    let gone = grown - (heap.break_bytes() - before) + counters.purged.load(Relaxed) as usize;
    assert!(gone > grown / 10 * 6, "{gone} of {grown} bytes went");
    threads.give(&heap, &kept);
    heap.is_sound();
}

/// Where one guest gives back what lies idle, others do not wait: they get heaps, and what they free is not lost.
#[test]
fn guests_do_not_wait_for_one_that_gives_back() {
    let (heap, guests) = crowded();
    let threads = Beginners::new(guests);
    let blocks = threads.take(&heap, 2000);
    let (allocator, own) = (&heap.allocator, ThreadCache::new());
    let mine = blocks[blocks.len() - 1];
    {
        let _alone = allocator.guests_heap_alone().expect("nobody visits it");
        give(&heap, threads.begin(), mine);
        assert!(threads.are_all_guests());
        take(&heap, &own, 100);
        assert_eq!(own.phase.get(), Phase::Running);
    }
    assert_eq!(gone_at(misuse(|| give(&heap, threads.begin(), mine))), mine);
    threads.take(&heap, 10);
    assert!(threads.are_all_guests());
    threads.give(&heap, &blocks[..blocks.len() - 1]);
    heap.is_sound();
}

/// Whichever call the system refuses, once or from then on: a guest gets a heap, or no memory, and later all it asks for.
#[test]
fn guests_are_served_after_calls_that_were_refused() {
    for n in 0..24 {
        for for_good in [false, true] {
            let (heap, guests) = crowded_with("profile:2000");
            let threads = Beginners::new(guests);
            match for_good {
                true => heap.sim().fail_from(n),
                false => heap.sim().fail_at(n),
            }
            let mut blocks: Vec<usize> = (0..300)
                .map(|_| heap.allocator.malloc(threads.begin(), 900) as usize)
                .collect();
            let refused = blocks.iter().filter(|&&block| block == 0).count();
            assert!(for_good || refused == 0, "call {n}: {refused} blocks");
            heap.sim().never_fail();
            blocks.retain(|&block| block != 0);
            blocks.extend(threads.take(&heap, 300));
            threads.give(&heap, &blocks);
            heap.is_sound();
        }
    }
}
