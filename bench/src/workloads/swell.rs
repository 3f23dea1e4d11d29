//! `swell`: a heap that grows large and is freed, twice and more. One operation is an allocation and its
//! free. After the last round the process is looked at: what does the heap keep?

use super::{processor_time, Outcome, Resident};
use crate::block::Block;
use crate::memory;
use crate::random::{Random, Sizes};
use crate::table::Table;
use std::alloc::GlobalAlloc;
use std::time::Duration;

/// Blocks live at the peak: 80 MB of skewed sizes.
const BLOCKS: usize = 1_000_000;

/// How long the heap is left alone before it is looked at again.
const QUIET: Duration = Duration::from_secs(1);

struct Heap<'a, A> {
    allocator: &'a A,
    blocks: Table<Block>,
    random: Random,
    sizes: Sizes,
}

impl<A: GlobalAlloc> Heap<'_, A> {
    fn swell(&mut self) {
        for block in self.blocks.iter_mut() {
            *block = Block::new(self.allocator, self.sizes.pick(&mut self.random));
        }
    }

    fn free(&mut self) -> u64 {
        self.blocks
            .iter()
            .fold(0, |sum, block| sum + block.free(self.allocator))
    }

    /// A few calls, as a program that goes on with other work makes them.
    fn few_calls(&mut self) {
        for _ in 0..1000 {
            Block::new(self.allocator, self.sizes.pick(&mut self.random)).free(self.allocator);
        }
    }
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = processor_time();
    let result = work();
    *total += processor_time() - start;
    result
}

/// Swells and frees a heap until `ops` blocks were allocated. Only then the resident bytes are read. The readings and
/// the second of quiet are not timed.
pub fn swell<A: GlobalAlloc>(allocator: &A, ops: usize) -> Outcome {
    let mut heap = Heap {
        allocator,
        blocks: Table::new(BLOCKS),
        random: Random::new(7),
        sizes: Sizes::skewed(),
    };
    let rounds = ops.div_ceil(BLOCKS);
    let (mut time, mut checksum, mut resident) = (Duration::ZERO, 0u64, Resident::default());
    for _ in 0..rounds {
        timed(&mut time, || heap.swell());
        resident.peak = memory::resident();
        checksum = checksum.wrapping_add(timed(&mut time, || heap.free()));
    }
    resident.after = memory::resident();
    std::thread::sleep(QUIET);
    heap.few_calls();
    resident.later = memory::resident();
    let outcome = Outcome::new(rounds * BLOCKS, time, checksum);
    Outcome {
        resident: Some(resident),
        ..outcome
    }
}
