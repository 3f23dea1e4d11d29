//! What the heap does, watched over a simulated system: misuse and where it is found, the order of reuse,
//! when memory goes back, what is kept, and what happens where the break has an end or a hole.
//!
//! The model (tests/model.rs) says that a program is served. These tests say how. Each states why it is here. Threads
//! are `ThreadCache`s, so that a test decides what each does and when.

#[path = "../support/mod.rs"]
mod support;

mod misuse;
mod reuse;
mod giving_back;
mod spans;
mod large;
mod threads;
mod guests;
mod the_break;
mod claims;
mod locks;
mod profile;

use slabside_base::class::{size_of_class, ClassId};
use slabside_base::misuse::{Call, Misuse};
use slabside_base::os::Vm;
use slabside_base::owner::{Owner, RELEASED};
use slabside_base::sync::Ordering::Relaxed;
use slabside_base::units::{Slot, PAGE, SPAN_MAX};
use slabside_core::allocator::Allocator;
use slabside_core::slab::SlabPtr;
use slabside_core::stats::{stats, Stats};
use slabside_core::tls::{Phase, ThreadCache};
use slabside_sim::{Sim, SimConfig};
use std::panic::{catch_unwind, AssertUnwindSafe};
use support::{allocator_on, sim_with};

/// An allocator and three threads.
struct Heap {
    allocator: Box<Allocator<Sim>>,
    threads: [Box<ThreadCache>; 3],
}

impl Heap {
    fn new() -> Heap {
        Heap::with(SimConfig::default())
    }

    fn with(config: SimConfig) -> Heap {
        Heap {
            allocator: allocator_on(config),
            threads: std::array::from_fn(|_| Box::new(ThreadCache::new())),
        }
    }

    fn sim(&self) -> &Sim {
        &self.allocator.backend.os
    }

    fn stats(&self) -> Stats {
        stats(&self.allocator, &ThreadCache::new())
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
            .backend
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
        assert_eq!(self.allocator.validate(&ThreadCache::new()), 0);
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
        Misuse::Dead { addr, .. }
        | Misuse::DeadLarge { addr, .. }
        | Misuse::Unknown { addr, .. } => addr,
        other => panic!("{other:?}"),
    }
}

fn dead_in(found: Misuse) -> usize {
    match found {
        Misuse::Dead { addr, .. } | Misuse::DeadLarge { addr, .. } => addr,
        other => panic!("{other:?}"),
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

/// Two seconds go by, with a few slow paths now and then.
fn quieten(heap: &Heap) {
    for _ in 0..5 {
        heap.sim().advance_clock(400);
        heap.take_many(0, 1000, 64 * 20);
    }
}
