//! `trees`: binary trees that are built, walked and torn down while one large tree stays. One operation
//! is a node's allocation, visit and free.

use super::Outcome;
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

struct Node {
    left: *mut Node,
    right: *mut Node,
    mark: u64,
}

const NODE: Layout = Layout::new::<Node>();

fn build<A: GlobalAlloc>(allocator: &A, depth: u32) -> *mut Node {
    if depth == 0 {
        return std::ptr::null_mut();
    }
    let node = Node {
        left: build(allocator, depth - 1),
        right: build(allocator, depth - 1),
        mark: depth as u64,
    };
    // SAFETY: NODE is the layout of a node, which is not empty.
    let at = unsafe { allocator.alloc(NODE) }.cast::<Node>();
    assert!(!at.is_null(), "out of memory");
    // SAFETY: the block is a node's, and ours.
    unsafe { at.write(node) };
    black_box(at)
}

/// # Safety
/// `at` is null or a tree from `build` with this allocator, and nobody else's.
unsafe fn tear_down<A: GlobalAlloc>(allocator: &A, at: *mut Node) -> u64 {
    if at.is_null() {
        return 0;
    }
    // SAFETY: `build` wrote the node, which owns its two halves. The caller gave it up.
    unsafe {
        let node = at.read();
        let sum = node.mark + tear_down(allocator, node.left) + tear_down(allocator, node.right);
        allocator.dealloc(at.cast(), NODE);
        sum
    }
}

/// Trees of about `ops` nodes in all, from 5 to `depth` levels deep.
pub fn trees<A: GlobalAlloc>(allocator: &A, depth: u32, ops: usize) -> Outcome {
    let depths = (5..=depth).step_by(3);
    let each = ops / depths.clone().count();
    let standing = build(allocator, depth);
    let counts = depths.map(|levels| (levels, each >> levels));
    let nodes = counts
        .clone()
        .map(|(levels, count)| count * ((1 << levels) - 1))
        .sum();
    let outcome = Outcome::of(nodes, || {
        let all = counts.flat_map(|(levels, count)| std::iter::repeat_n(levels, count));
        all.fold(0, |sum, levels| {
            let tree = build(allocator, levels);
            // SAFETY: the tree was built here and is torn down once.
            sum + unsafe { tear_down(allocator, tree) }
        })
    });
    // SAFETY: the tree was built above and is torn down once.
    unsafe { tear_down(allocator, standing) };
    outcome
}
