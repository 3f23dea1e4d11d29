//! Bytes beside the live ones: blocks are allocated, and freed by degrees. After each stage the process is looked at.

use crate::block::Block;
use crate::counters;
use crate::memory;
use crate::random::{Random, Sizes};
use crate::table::Table;
use std::alloc::GlobalAlloc;
use std::time::Duration;

/// Which blocks.
pub struct Mix {
    /// Its name.
    pub name: &'static str,
    low: usize,
    high: usize,
}

/// All mixes: single sizes first, then two distributions.
pub const MIXES: &[Mix] = &[
    Mix {
        name: "8",
        low: 8,
        high: 8,
    },
    Mix {
        name: "16",
        low: 16,
        high: 16,
    },
    Mix {
        name: "40",
        low: 40,
        high: 40,
    },
    Mix {
        name: "100",
        low: 100,
        high: 100,
    },
    Mix {
        name: "300",
        low: 300,
        high: 300,
    },
    Mix {
        name: "1000",
        low: 1000,
        high: 1000,
    },
    Mix {
        name: "5000",
        low: 5000,
        high: 5000,
    },
    Mix {
        name: "skewed",
        low: 0,
        high: 0,
    },
    Mix {
        name: "8-8192",
        low: 8,
        high: 8192,
    },
];

/// How many blocks are allocated at first.
pub const COUNTS: &[usize] = &[100, 2000, 500_000];

/// Most bytes asked for at once: the count is lowered where a mix would need more.
const MOST: usize = 1 << 28;

impl Mix {
    /// The mix of that name.
    pub fn find(name: &str) -> Option<&'static Mix> {
        MIXES.iter().find(|mix| mix.name == name)
    }

    fn sizes(&self) -> Sizes {
        match (self.low, self.high) {
            (0, 0) => Sizes::skewed(),
            (low, high) if low == high => Sizes::fixed(low),
            (low, high) => Sizes::log_uniform(low, high),
        }
    }
}

/// What has been freed, at random, when the process is looked at. Before any of it, at first.
pub const STAGES: [&str; 6] = ["start", "none", "half", "63/64", "all", "all, +1 s"];

/// The process at one stage, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stage {
    /// Bytes asked for and not freed.
    pub live: usize,
    /// By which the break was moved.
    pub program_break: usize,
    /// Resident and anonymous.
    pub resident: usize,
    /// Bytes of metadata, where the allocator tells.
    pub metadata: usize,
}

fn look(live: usize) -> Stage {
    Stage {
        live,
        program_break: memory::program_break(),
        resident: memory::resident(),
        metadata: counters::metadata(),
    }
}

/// Blocks in random order, the first ones not freed yet.
struct Blocks(Table<Block>, usize);

impl Blocks {
    fn new<A: GlobalAlloc>(allocator: &A, sizes: &Sizes, mut table: Table<Block>) -> Self {
        let mut random = Random::new(8);
        table
            .iter_mut()
            .for_each(|block| *block = Block::new(allocator, sizes.pick(&mut random)).touch());
        for i in (1..table.len()).rev() {
            table.swap(i, random.below(i + 1));
        }
        let count = table.len();
        Blocks(table, count)
    }

    /// Frees all but `count`, and looks at the process.
    fn free_down_to<A: GlobalAlloc>(&mut self, allocator: &A, count: usize) -> Stage {
        self.0[count..self.1].iter().for_each(|block| {
            block.free(allocator);
        });
        self.1 = count;
        look(self.0[..count].iter().map(|block| block.size()).sum())
    }
}

/// A second goes by, and a few calls are made.
fn settle<A: GlobalAlloc>(allocator: &A, sizes: &Sizes) -> Stage {
    std::thread::sleep(Duration::from_secs(1));
    let mut random = Random::new(9);
    for _ in 0..1000 {
        Block::new(allocator, sizes.pick(&mut random)).free(allocator);
    }
    look(0)
}

/// The process at each of [`STAGES`].
pub fn stages<A: GlobalAlloc>(allocator: &A, mix: &Mix, count: usize) -> [Stage; 6] {
    let sizes = mix.sizes();
    let count = count.min(MOST / sizes.mean());
    let table = Table::new(count);
    let start = look(0);
    let mut blocks = Blocks::new(allocator, &sizes, table);
    let [none, half, few, all] =
        [count, count / 2, count / 64, 0].map(|left| blocks.free_down_to(allocator, left));
    [start, none, half, few, all, settle(allocator, &sizes)]
}
