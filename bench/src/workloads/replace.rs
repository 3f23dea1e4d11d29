//! `churn`, `medium`, `large` and `zeroed`: random replacement in a window that stays full. One operation
//! is a free and an allocation. Filling the window and clearing it are not timed.

use super::window::Window;
use super::Outcome;
use crate::block::Block;
use crate::random::Sizes;
use std::alloc::GlobalAlloc;

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
