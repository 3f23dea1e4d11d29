//! `ring`: blocks that are freed in the order in which they were allocated. One operation is a free and an
//! allocation.

use super::Outcome;
use crate::block::Block;
use crate::random::{Random, Sizes};
use crate::table::Table;
use std::alloc::GlobalAlloc;

/// `ops` times the oldest of `count` live blocks is replaced. Every page of a block is used.
pub fn ring<A: GlobalAlloc>(allocator: &A, count: usize, sizes: Sizes, ops: usize) -> Outcome {
    let mut random = Random::new(8);
    let mut blocks = Table::<Block>::new(count);
    let mut make = || Block::new(allocator, sizes.pick(&mut random)).touch();
    blocks.iter_mut().for_each(|block| *block = make());
    let outcome = Outcome::of(ops, || {
        (0..ops).fold(0u64, |sum, turn| {
            let place = turn % count;
            let mark = blocks[place].free(allocator);
            blocks[place] = make();
            sum.wrapping_add(mark)
        })
    });
    blocks.iter_mut().for_each(|block| {
        std::mem::replace(block, Block::NONE).free(allocator);
    });
    outcome
}
