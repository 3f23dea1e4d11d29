//! `strings`: text that grows piece by piece through `realloc`. One operation is one growth. What was added is written.

use super::Outcome;
use crate::block::Block;
use crate::table::Table;
use std::alloc::GlobalAlloc;

/// How a string grows.
#[derive(Clone, Copy)]
pub struct Growth {
    /// Strings that grow in turn.
    pub strings: usize,
    /// Size in bytes at which one is freed and begun anew.
    pub limit: usize,
    /// Bytes added at a time, at least.
    pub step: usize,
    /// Also added at a time: the size shifted right by this.
    pub shift: u32,
}

const FIRST: usize = 16;

/// The next state of one string. Returns the checksum of what was freed.
#[inline]
fn advance<A: GlobalAlloc>(allocator: &A, string: &mut Block, growth: Growth) -> u64 {
    let size = string.size() + growth.step + (string.size() >> growth.shift);
    if string.exists() && size <= growth.limit {
        *string = string.grow(allocator, size);
        return 0;
    }
    let mark = string.free(allocator);
    *string = Block::new(allocator, FIRST);
    mark
}

/// `ops` growths of strings in turn.
pub fn strings<A: GlobalAlloc>(allocator: &A, growth: Growth, ops: usize) -> Outcome {
    let mut strings = Table::<Block>::new(growth.strings);
    let outcome = Outcome::of(ops, || {
        let turns = (0..ops).map(|i| advance(allocator, &mut strings[i % growth.strings], growth));
        turns.fold(0, u64::wrapping_add)
    });
    strings.iter().for_each(|string| {
        string.free(allocator);
    });
    outcome
}
