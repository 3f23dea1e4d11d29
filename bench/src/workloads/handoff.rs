//! `handoff`: one thread allocates and the next one frees, through rings of bounded length. One operation
//! is an allocation, its passage and its free.

use super::threads::{together, MOST};
use super::Outcome;
use crate::block::Block;
use crate::random::{Random, Sizes};
use std::alloc::GlobalAlloc;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};

const LENGTH: usize = 1024;

/// Lamport's queue for one sender and one receiver. Each index has a cache line pair of its own.
#[repr(align(128))]
struct Ring {
    sent: Line,
    taken: Line,
    slots: UnsafeCell<[Block; LENGTH]>,
}

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicUsize);

// SAFETY: a slot is written by the sender before `sent` passes it and read by the receiver before `taken` does, both in
// release order. The sender keeps less than LENGTH ahead.
unsafe impl Sync for Ring {}

impl Ring {
    fn new() -> Self {
        Ring {
            sent: Line::default(),
            taken: Line::default(),
            slots: UnsafeCell::new([Block::NONE; LENGTH]),
        }
    }

    fn slot(&self, index: usize) -> *mut Block {
        // SAFETY: the index is taken modulo LENGTH, so it lies within the slots.
        unsafe { self.slots.get().cast::<Block>().add(index % LENGTH) }
    }

    fn has_room(&self) -> bool {
        self.sent.0.load(Relaxed) - self.taken.0.load(Acquire) < LENGTH
    }

    /// Only for the one sender, and only after `has_room`.
    fn send(&self, block: Block) {
        let index = self.sent.0.load(Relaxed);
        // SAFETY: the receiver is done with this slot: `has_room` saw that in acquire order.
        unsafe { self.slot(index).write(block) };
        self.sent.0.store(index + 1, Release);
    }

    /// Only for the one receiver.
    fn take(&self) -> Option<Block> {
        let index = self.taken.0.load(Relaxed);
        if index == self.sent.0.load(Acquire) {
            return None;
        }
        // SAFETY: the sender has written this slot and released it.
        let block = unsafe { self.slot(index).read() };
        self.taken.0.store(index + 1, Release);
        Some(block)
    }
}

/// Allocates up to `left` blocks into the ring, a few at a time. Returns how many.
fn send_some<A: GlobalAlloc>(
    allocator: &A,
    ring: &Ring,
    left: usize,
    (sizes, random): (&Sizes, &mut Random),
) -> usize {
    let mut sent = 0;
    while sent < left.min(64) && ring.has_room() {
        ring.send(Block::new(allocator, sizes.pick(random)));
        sent += 1;
    }
    sent
}

/// Frees up to 64 blocks from the ring. Returns how many, and their checksum.
fn take_some<A: GlobalAlloc>(allocator: &A, ring: &Ring) -> (usize, u64) {
    let blocks = std::iter::from_fn(|| ring.take()).take(64);
    blocks.fold((0, 0), |(count, sum), block| {
        (count + 1, block.free(allocator).wrapping_add(sum))
    })
}

/// One thread: sends `send` blocks to `out`, and takes `take` of them from `inn`. Returns a checksum.
fn pass<A: GlobalAlloc>(
    allocator: &A,
    (inn, out): (&Ring, &Ring),
    mut send: usize,
    mut take: usize,
) -> u64 {
    let (sizes, mut random, mut sum) = (Sizes::skewed(), Random::new(6), 0u64);
    while send > 0 || take > 0 {
        let sent = send_some(allocator, out, send, (&sizes, &mut random));
        let (taken, marks) = if take > 0 {
            take_some(allocator, inn)
        } else {
            (0, 0)
        };
        (send, take, sum) = (send - sent, take - taken, sum.wrapping_add(marks));
        if sent + taken == 0 {
            std::thread::yield_now();
        }
    }
    sum
}

fn timed(ops: usize, count: usize, body: impl Fn(usize) -> u64 + Sync) -> Outcome {
    let sum = AtomicU64::new(0);
    let run = || {
        together(count, |i| {
            sum.fetch_add(body(i), Relaxed);
        });
        sum.load(Relaxed)
    };
    Outcome::of_threads(ops, run)
}

/// One thread allocates `ops` blocks, another frees them.
pub fn pair<A: GlobalAlloc + Sync>(allocator: &A, ops: usize) -> Outcome {
    let rings = [Ring::new(), Ring::new()];
    timed(ops, 2, |i| match i {
        0 => pass(allocator, (&rings[0], &rings[1]), ops, 0),
        _ => pass(allocator, (&rings[1], &rings[0]), 0, ops),
    })
}

/// `count` threads in a circle, each freeing what the one before it allocated. `ops` blocks in all.
pub fn circle<A: GlobalAlloc + Sync>(allocator: &A, count: usize, ops: usize) -> Outcome {
    let rings: [Ring; MOST] = std::array::from_fn(|_| Ring::new());
    let each = ops / count;
    timed(each * count, count, |i| {
        pass(allocator, (&rings[i], &rings[(i + 1) % count]), each, each)
    })
}
