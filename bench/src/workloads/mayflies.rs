//! `mayflies`: threads that live briefly. One operation is an allocation and its free.

use super::threads::together;
use super::window::Window;
use super::Outcome;
use crate::block::Block;
use crate::random::{Random, Sizes};
use std::alloc::GlobalAlloc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;

/// Allocations in a mayfly's life.
const LIFE: usize = 100;

/// One life: a hundred blocks, then all of them freed.
fn live<A: GlobalAlloc>(allocator: &A, seed: u64) -> u64 {
    let (sizes, mut random) = (Sizes::skewed(), Random::new(seed));
    let blocks: [Block; LIFE] =
        std::array::from_fn(|_| Block::new(allocator, sizes.pick(&mut random)));
    blocks
        .iter()
        .fold(0, |sum, block| sum + block.free(allocator))
}

/// Two threads at a time that allocate a hundred blocks, free them and end. `ops` blocks in all.
pub fn mayflies<A: GlobalAlloc + Sync>(allocator: &A, ops: usize) -> Outcome {
    let generations = ops / (2 * LIFE);
    let sum = AtomicU64::new(0);
    Outcome::of_threads(generations * 2 * LIFE, || {
        for _ in 0..generations {
            together(2, |i| {
                sum.fetch_add(live(allocator, i as u64), Relaxed);
            });
        }
        sum.load(Relaxed)
    })
}

/// Blocks that an heir inherits, and how many of them it replaces before it hands them on.
const INHERITANCE: usize = 1000;
const REPLACED: usize = 5000;

/// Four lines of threads: each replaces blocks in the table it was left, and leaves it to the next. `ops` replacements
/// in all.
pub fn heirs<A: GlobalAlloc + Sync>(allocator: &A, ops: usize) -> Outcome {
    let window = |i| Mutex::new(Window::new(INHERITANCE, Sizes::skewed(), i));
    let lines = [0, 1, 2, 3].map(window);
    let generations = ops / (lines.len() * REPLACED);
    let make = |size| Block::new(allocator, size);
    let each = |work: &(dyn Fn(&mut Window) + Sync)| {
        together(lines.len(), |i| work(&mut lines[i].lock().unwrap()))
    };
    let sum = AtomicU64::new(0);
    let replace = |line: &mut Window| {
        sum.fetch_add(line.replace(allocator, REPLACED, make), Relaxed);
    };
    each(&|line| line.fill(make));
    let outcome = Outcome::of_threads(generations * lines.len() * REPLACED, || {
        (0..generations).for_each(|_| each(&replace));
        sum.load(Relaxed)
    });
    each(&|line| line.clear(allocator));
    outcome
}
