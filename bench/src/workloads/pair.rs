//! `pair`: a block is allocated and freed at once, again and again. One operation is such a pair.

use super::Outcome;
use crate::block::Block;
use std::alloc::GlobalAlloc;

/// `ops` pairs of `size` bytes.
pub fn pair<A: GlobalAlloc>(allocator: &A, size: usize, ops: usize) -> Outcome {
    Outcome::of(ops, || {
        (0..ops).fold(0, |sum: u64, _| {
            sum.wrapping_add(Block::new(allocator, size).free(allocator))
        })
    })
}
