//! `scale`: threads that share nothing but the allocator, each with a window of its own. One operation is
//! a free and an allocation by any of them.

use super::threads::together;
use super::window::Window;
use super::Outcome;
use crate::block::Block;
use crate::random::Sizes;
use std::alloc::GlobalAlloc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Barrier;
use std::time::Instant;

const WINDOW: usize = 5000;

/// `count` threads, `ops` replacements in all; timed from when all windows are full to the last one done.
pub fn scale<A: GlobalAlloc + Sync>(allocator: &A, count: usize, ops: usize) -> Outcome {
    let (each, barrier) = (ops / count, Barrier::new(count));
    let (sum, nanos) = (AtomicU64::new(0), AtomicU64::new(0));
    together(count, |i| {
        let make = |size| Block::new(allocator, size);
        let mut window = Window::new(WINDOW, Sizes::skewed(), i as u64);
        window.fill(make);
        barrier.wait();
        let start = Instant::now();
        sum.fetch_add(window.replace(allocator, each, make), Relaxed);
        nanos.fetch_max(start.elapsed().as_nanos() as u64, Relaxed);
        barrier.wait();
        window.clear(allocator);
    });
    Outcome { ops: (each * count) as u64, nanos: nanos.into_inner(), checksum: sum.into_inner(), resident: None }
}
