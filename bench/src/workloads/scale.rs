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

/// When the first thread began and the last one was done, in nanoseconds after `zero`: where threads outnumber
/// the cores, no thread's own time is the whole.
struct Span {
    zero: Instant,
    first: AtomicU64,
    last: AtomicU64,
}

impl Span {
    fn new() -> Self {
        Span {
            zero: Instant::now(),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }

    fn nanos(&self) -> u64 {
        self.last.load(Relaxed) - self.first.load(Relaxed)
    }
}

/// `count` threads, `ops` replacements in all. Timed from when all windows are full to the last one done.
pub fn scale<A: GlobalAlloc + Sync>(allocator: &A, count: usize, ops: usize) -> Outcome {
    let (each, barrier) = (ops / count, Barrier::new(count));
    let (sum, span) = (AtomicU64::new(0), Span::new());
    together(count, |i| {
        let make = |size| Block::new(allocator, size);
        let mut window = Window::new(WINDOW, Sizes::skewed(), i as u64);
        window.fill(make);
        barrier.wait();
        span.first.fetch_min(span.now(), Relaxed);
        sum.fetch_add(window.replace(allocator, each, make), Relaxed);
        span.last.fetch_max(span.now(), Relaxed);
        barrier.wait();
        window.clear(allocator);
    });
    Outcome {
        ops: (each * count) as u64,
        nanos: span.nanos(),
        checksum: sum.into_inner(),
        resident: None,
        held: None,
    }
}
