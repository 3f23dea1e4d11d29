//! `churn`, `medium`, `large` and `zeroed`: random replacement in a window that stays full. One operation
//! is a free and an allocation. Filling the window and clearing it are not timed.

use super::window::Window;
use super::{processor_time, Held, Outcome};
use crate::block::Block;
use crate::memory;
use crate::random::Sizes;
use std::alloc::GlobalAlloc;
use std::time::Duration;

fn replace<A: GlobalAlloc>(
    allocator: &A,
    mut window: Window,
    ops: usize,
    make: impl Fn(usize) -> Block,
) -> Outcome {
    window.fill(&make);
    let outcome = Outcome::of(ops, || window.replace(allocator, ops, &make));
    window.clear(allocator);
    outcome
}

/// Blocks of which the first word is used.
pub fn small<A: GlobalAlloc>(allocator: &A, count: usize, sizes: Sizes, ops: usize) -> Outcome {
    replace(allocator, Window::new(count, sizes, 1), ops, |size| {
        Block::new(allocator, size)
    })
}

/// Blocks of which every page is used.
pub fn paged<A: GlobalAlloc>(allocator: &A, count: usize, sizes: Sizes, ops: usize) -> Outcome {
    replace(allocator, Window::new(count, sizes, 2), ops, |size| {
        Block::new(allocator, size).touch()
    })
}

/// Zeroed blocks, of which every page is read and found zero, and then used.
pub fn zeroed<A: GlobalAlloc>(allocator: &A, count: usize, sizes: Sizes, ops: usize) -> Outcome {
    replace(allocator, Window::new(count, sizes, 3), ops, |size| {
        let block = Block::zeroed(allocator, size);
        assert_eq!(block.sample(), 0, "calloc gave a block that is not zero");
        block.mark().touch()
    })
}

/// Blocks of which every page is used: `count` are replaced at random ten times over, then all are freed in random
/// order, which alone is timed. Repeated until `ops` were freed.
pub fn emptied<A: GlobalAlloc>(allocator: &A, count: usize, sizes: Sizes, ops: usize) -> Outcome {
    let mut window = Window::new(count, sizes, 4);
    let make = |size| Block::new(allocator, size).touch();
    let rounds = ops.div_ceil(count);
    let (mut time, mut sum) = (Duration::ZERO, 0u64);
    for _ in 0..rounds {
        window.fill(make);
        window.replace(allocator, 10 * count, make);
        let start = processor_time();
        sum = sum.wrapping_add(window.empty(allocator));
        time += processor_time() - start;
    }
    Outcome::new(rounds * count, time, sum)
}

/// As [`paged`], with what the heap holds after the last replacement.
pub fn held<A: GlobalAlloc>(allocator: &A, count: usize, sizes: Sizes, ops: usize) -> Outcome {
    let mut window = Window::new(count, sizes, 2);
    let make = |size| Block::new(allocator, size).touch();
    let before = memory::resident();
    window.fill(make);
    let outcome = Outcome::of(ops, || window.replace(allocator, ops, make));
    let held = Held {
        live: window.live(),
        resident: memory::resident().saturating_sub(before),
    };
    window.clear(allocator);
    Outcome {
        held: Some(held),
        ..outcome
    }
}
