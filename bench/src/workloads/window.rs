//! A window of live blocks in which random ones are replaced: what most programs' heaps look like.

use crate::block::Block;
use crate::random::{Random, Sizes};
use crate::table::Table;
use std::alloc::GlobalAlloc;

/// Live blocks, and how large the next ones will be.
pub struct Window {
    blocks: Table<Block>,
    sizes: Sizes,
    random: Random,
}

impl Window {
    /// A window of `count` places, all empty.
    pub fn new(count: usize, sizes: Sizes, seed: u64) -> Self {
        Window {
            blocks: Table::new(count),
            sizes,
            random: Random::new(seed),
        }
    }

    /// Fills every place. `make` allocates a block of a size.
    pub fn fill(&mut self, make: impl Fn(usize) -> Block) {
        for place in self.blocks.iter_mut() {
            *place = make(self.sizes.pick(&mut self.random));
        }
    }

    /// Replaces `ops` random blocks. Returns a checksum.
    #[inline]
    pub fn replace<A: GlobalAlloc>(
        &mut self,
        allocator: &A,
        ops: usize,
        make: impl Fn(usize) -> Block,
    ) -> u64 {
        let mut sum = 0u64;
        for _ in 0..ops {
            let place = self.random.below(self.blocks.len());
            sum = sum.wrapping_add(self.blocks[place].free(allocator));
            self.blocks[place] = make(self.sizes.pick(&mut self.random));
        }
        sum
    }

    /// Frees every block, in random order. Returns a checksum.
    pub fn empty<A: GlobalAlloc>(&mut self, allocator: &A) -> u64 {
        let (mut left, mut sum) = (self.blocks.len(), 0u64);
        while left > 0 {
            let place = self.random.below(left);
            left -= 1;
            sum = sum.wrapping_add(self.blocks[place].free(allocator));
            self.blocks[place] = std::mem::replace(&mut self.blocks[left], Block::NONE);
        }
        sum
    }

    /// Bytes asked for of all blocks.
    pub fn live(&self) -> usize {
        self.blocks.iter().map(|block| block.size()).sum()
    }

    /// Frees every block.
    pub fn clear<A: GlobalAlloc>(&mut self, allocator: &A) {
        for place in self.blocks.iter_mut() {
            std::mem::replace(place, Block::NONE).free(allocator);
        }
    }
}
