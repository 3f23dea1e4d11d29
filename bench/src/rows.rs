//! The rows of every table: each question with its figures filled in.

use crate::random::Sizes;
use crate::workloads::batch::{batch, Order};
use crate::workloads::strings::{strings, Growth};
use crate::workloads::{handoff, mayflies, pair, replace, ring, scale, swell, trees, Outcome};
use std::alloc::GlobalAlloc;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Heaps that may become as large, or of so many blocks, are not counted: under valgrind they take too long.
const COUNTED_BYTES: usize = 4 << 30;
const COUNTED_BLOCKS: usize = 1_000_000;

/// One row.
pub struct Row {
    /// Its name, unique: the question and what distinguishes this row.
    pub name: &'static str,
    /// The question it belongs to: a file in benches/.
    pub question: &'static str,
    /// What is done, in a few words.
    pub about: &'static str,
    /// Operations in a quick run: some 50 ms on a usual allocator.
    pub ops: usize,
    work: Work,
}

/// A workload and its figures.
#[derive(Clone, Copy)]
enum Work {
    Pair(usize),
    Skewed(usize),
    LogUniform(usize, usize, usize),
    Batch(usize, Order),
    Trees(u32),
    Strings(Growth),
    Medium(usize),
    Paged(usize, usize, usize),
    Zeroed(usize, usize, usize),
    Held(usize, usize, usize),
    Emptied(usize, usize, usize),
    Ring(usize),
    Handoff,
    Circle(usize),
    Mayflies,
    Heirs,
    Scale(usize),
    Swell,
}

impl Row {
    /// Does the row's work on an allocator: `ops` operations, or a few more.
    pub fn run<A: GlobalAlloc + Sync>(&self, allocator: &A, ops: usize) -> Outcome {
        match self.work {
            Work::Pair(size) => pair::pair(allocator, size, ops),
            Work::Skewed(count) => replace::small(allocator, count, Sizes::skewed(), ops),
            Work::LogUniform(count, low, high) => {
                replace::small(allocator, count, Sizes::log_uniform(low, high), ops)
            }
            Work::Batch(count, order) => batch(allocator, count, order, ops),
            Work::Trees(depth) => trees::trees(allocator, depth, ops),
            Work::Strings(growth) => strings(allocator, growth, ops),
            Work::Medium(count) => {
                replace::paged(allocator, count, Sizes::uniform(2000, 120_000), ops)
            }
            Work::Paged(count, low, high) => {
                replace::paged(allocator, count, Sizes::log_uniform(low, high), ops)
            }
            Work::Zeroed(count, low, high) => {
                replace::zeroed(allocator, count, Sizes::log_uniform(low, high), ops)
            }
            Work::Held(count, low, high) => {
                replace::held(allocator, count, Sizes::log_uniform(low, high), ops)
            }
            Work::Emptied(count, low, high) => {
                replace::emptied(allocator, count, Sizes::log_uniform(low, high), ops)
            }
            Work::Ring(count) => {
                ring::ring(allocator, count, Sizes::uniform(128 * KIB, 256 * KIB), ops)
            }
            Work::Handoff => handoff::pair(allocator, ops),
            Work::Circle(count) => handoff::circle(allocator, count, ops),
            Work::Mayflies => mayflies::mayflies(allocator, ops),
            Work::Heirs => mayflies::heirs(allocator, ops),
            Work::Scale(count) => scale::scale(allocator, count, ops),
            Work::Swell => swell::swell(allocator, ops),
        }
    }

    /// Operations of a run that counts. None for rows with threads, whose counts differ from run to run, and for those
    /// that count little but the kernel's work.
    pub fn counted_ops(&self) -> Option<usize> {
        match self.work {
            Work::Trees(_) | Work::Batch(..) => Some(400_000),
            Work::Pair(_) | Work::Zeroed(_, _, KIB) => Some(100_000),
            Work::Skewed(count) => (count < COUNTED_BLOCKS).then_some(100_000),
            Work::LogUniform(count, _, high) | Work::Held(count, _, high) => {
                (count < COUNTED_BLOCKS && count * high < COUNTED_BYTES).then_some(100_000)
            }
            Work::Strings(growth) => (growth.limit < MIB).then_some(100_000),
            Work::Medium(_) | Work::Ring(_) => Some(20_000),
            _ => None,
        }
    }

    /// Whether much is freed that may go back to the system.
    pub fn gives_back(&self) -> bool {
        matches!(self.work, Work::Emptied(..) | Work::Swell) || self.question == "large"
    }

    /// Whether the row looks at what stays resident.
    pub fn is_swell(&self) -> bool {
        matches!(self.work, Work::Swell)
    }

    /// Whether single calls of this row are timed in runs of their own.
    pub fn has_latency(&self) -> bool {
        ["swell", "handoff", "mayflies"].contains(&self.question)
    }
}

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().chain(HEAPS).find(|row| row.name == name)
}

/// The rows of a question.
pub fn of_question(question: &str) -> impl Iterator<Item = &'static Row> + '_ {
    ROWS.iter().filter(move |row| row.question == question)
}

const fn row(
    name: &'static str,
    question: &'static str,
    about: &'static str,
    ops: usize,
    work: Work,
) -> Row {
    Row {
        name,
        question,
        about,
        ops,
        work,
    }
}

const STRING: Growth = Growth {
    strings: 1,
    limit: 20 * KIB,
    step: 32,
    shift: 63,
};
const STRINGS: Growth = Growth {
    strings: 64,
    ..STRING
};
const TEXT: Growth = Growth {
    strings: 1,
    limit: 32 * MIB,
    step: 16,
    shift: 3,
};

/// All rows, in the order of the tables.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("pair-8", "pair", "malloc and free of 8 bytes", 10_000_000, Work::Pair(8)),
    row("pair-64", "pair", "of 64 bytes", 10_000_000, Work::Pair(64)),
    row("pair-512", "pair", "of 512 bytes", 10_000_000, Work::Pair(512)),
    row("pair-4096", "pair", "of 4 KiB", 5_000_000, Work::Pair(4 * KIB)),
    row("pair-32768", "pair", "of 32 KiB", 3_000_000, Work::Pair(32 * KIB)),
    row("churn-1k", "churn", "random replacement, 1,000 live, skewed sizes", 8_000_000, Work::Skewed(1000)),
    row("churn-1k-log", "churn", "1,000 live, 8 bytes to 8 KiB", 4_000_000, Work::LogUniform(1000, 8, 8 * KIB)),
    row("churn-20k", "churn", "20,000 live, skewed sizes", 5_000_000, Work::Skewed(20_000)),
    row("churn-20k-log", "churn", "20,000 live, 8 bytes to 8 KiB", 2_000_000, Work::LogUniform(20_000, 8, 8 * KIB)),
    row("churn-1m", "churn", "1,000,000 live, skewed sizes", 800_000, Work::Skewed(1_000_000)),
    row("churn-1m-log", "churn", "1,000,000 live, 8 to 512 bytes", 600_000, Work::LogUniform(1_000_000, 8, 512)),
    row("batch-hot", "batch", "500 allocated, then freed, shuffled", 6_000_000, Work::Batch(500, Order::Shuffled)),
    row("batch-forwards", "batch", "50,000 allocated, then freed", 4_000_000, Work::Batch(50_000, Order::Forwards)),
    row("batch-backwards", "batch", "last one first", 4_000_000, Work::Batch(50_000, Order::Backwards)),
    row("batch-shuffled", "batch", "in random order", 3_000_000, Work::Batch(50_000, Order::Shuffled)),
    row("trees", "trees", "binary trees of 5 to 17 levels", 4_000_000, Work::Trees(17)),
    row("strings-20k", "strings", "a string grows by 32 bytes to 20 KB", 3_000_000, Work::Strings(STRING)),
    row("strings-20k-many", "strings", "64 strings in turn", 2_000_000, Work::Strings(STRINGS)),
    row("strings-32m", "strings", "a text grows by an eighth to 32 MiB", 300, Work::Strings(TEXT)),
    row("medium", "medium", "2-120 KB, 400 live, all pages used", 300_000, Work::Medium(400)),
    row("large-2m", "large", "150 KB-2 MB, 24 live, all pages used", 4000, Work::Paged(24, 150_000, 2_000_000)),
    row("large-64m", "large", "1-64 MB, 6 live, all pages used", 24, Work::Paged(6, 1_000_000, 64_000_000)),
    row("zeroed-small", "zeroed", "calloc, 16-1,024 bytes, 10,000 live", 2_000_000, Work::Zeroed(10_000, 16, 1024)),
    row("zeroed-large", "zeroed", "calloc, 32 KiB-1 MiB, 48 live", 2000, Work::Zeroed(48, 32 * KIB, MIB)),
    row("handoff-pair", "handoff", "one thread allocates, one frees", 1_000_000, Work::Handoff),
    row("handoff-circle", "handoff", "a circle of four threads", 2_000_000, Work::Circle(4)),
    row("mayflies", "mayflies", "two threads at a time, 100 allocations each", 200_000, Work::Mayflies),
    row("mayflies-heirs", "mayflies", "four threads leave their tables to fresh ones", 2_000_000, Work::Heirs),
    row("scale-1", "scale", "5,000 live a thread, one thread", 5_000_000, Work::Scale(1)),
    row("scale-2", "scale", "two threads", 8_000_000, Work::Scale(2)),
    row("scale-4", "scale", "four threads", 8_000_000, Work::Scale(4)),
    row("scale-8", "scale", "eight threads", 8_000_000, Work::Scale(8)),
    row("swell", "swell", "80 MB of skewed sizes, freed in order", 2_000_000, Work::Swell),
];

/// Rows of their own tables, and no part of any mean: what an operation costs against the size of the heap, and blocks
/// of middle size. `mid` rows have 30 MB live. `mid-*-free` then frees all in random order. `ring` rows free the block
/// that was allocated first.
#[rustfmt::skip]
pub const HEAPS: &[Row] = &[
    row("heap-10m", "heap", "10 MB of 8-2,048 bytes", 300_000, Work::LogUniform(27_000, 8, 2048)),
    row("heap-100m", "heap", "100 MB", 300_000, Work::LogUniform(270_000, 8, 2048)),
    row("heap-1g", "heap", "1 GB", 300_000, Work::LogUniform(2_700_000, 8, 2048)),
    row("heap-10g", "heap", "10 GB", 300_000, Work::LogUniform(27_000_000, 8, 2048)),
    row("mixed-10m", "mixed", "10 MB of 8 bytes to 32 KiB", 1_000_000, Work::Held(2_500, 8, 32 * KIB)),
    row("mixed-100m", "mixed", "100 MB", 1_000_000, Work::Held(25_000, 8, 32 * KIB)),
    row("mixed-1g", "mixed", "1 GB", 1_000_000, Work::Held(250_000, 8, 32 * KIB)),
    row("spans-1k", "heap", "1,000 blocks of 9-36 KB, one page used", 100_000, Work::LogUniform(1000, 9000, 36_000)),
    row("spans-10k", "heap", "10,000 blocks", 100_000, Work::LogUniform(10_000, 9000, 36_000)),
    row("spans-100k", "heap", "100,000 blocks", 100_000, Work::LogUniform(100_000, 9000, 36_000)),
    row("spans-1m", "heap", "1,000,000 blocks", 100_000, Work::LogUniform(1_000_000, 9000, 36_000)),
    row("mid-1k-4k", "mid", "1 to 4 KiB replaced at random", 1_000_000, Work::Held(13_800, KIB, 4 * KIB)),
    row("mid-1k-4k-free", "mid", "then all freed in random order", 13_800, Work::Emptied(13_800, KIB, 4 * KIB)),
    row("mid-4k-8k", "mid", "4 to 8 KiB replaced at random", 1_000_000, Work::Held(5_200, 4 * KIB, 8 * KIB)),
    row("mid-4k-8k-free", "mid", "then all freed in random order", 5_200, Work::Emptied(5_200, 4 * KIB, 8 * KIB)),
    row("mid-8k-16k", "mid", "8 to 16 KiB replaced at random", 1_000_000, Work::Held(2_600, 8 * KIB, 16 * KIB)),
    row("mid-8k-16k-free", "mid", "then all freed in random order", 2_600, Work::Emptied(2_600, 8 * KIB, 16 * KIB)),
    row("mid-16k-32k", "mid", "16 to 32 KiB replaced at random", 1_000_000, Work::Held(1_300, 16 * KIB, 32 * KIB)),
    row("mid-16k-32k-free", "mid", "then all freed in random order", 1_300, Work::Emptied(1_300, 16 * KIB, 32 * KIB)),
    row("mid-32k-128k", "mid", "32 to 128 KiB replaced at random", 1_000_000, Work::Held(430, 32 * KIB, 128 * KIB)),
    row("mid-32k-128k-free", "mid", "then all freed in random order", 430, Work::Emptied(430, 32 * KIB, 128 * KIB)),
    row("ring-64", "ring", "64 blocks of 128 to 256 KiB, first in, first out", 200_000, Work::Ring(64)),
    row("ring-300", "ring", "300 blocks of 128 to 256 KiB, first in, first out", 200_000, Work::Ring(300)),
    row("ring-1000", "ring", "1000 blocks of 128 to 256 KiB, first in, first out", 200_000, Work::Ring(1000)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::c_abi::CAbi;

    #[test]
    fn names_are_unique() {
        for row in ROWS.iter().chain(HEAPS) {
            assert_eq!(
                ROWS.iter()
                    .chain(HEAPS)
                    .filter(|other| other.name == row.name)
                    .count(),
                1
            );
        }
    }

    #[test]
    fn every_row_runs_and_reads_what_it_wrote() {
        let small = HEAPS
            .iter()
            .filter(|row| ["mid", "ring"].contains(&row.question));
        for row in ROWS.iter().filter(|row| !row.is_swell()).chain(small) {
            let outcome = row.run(&CAbi, row.ops / 1000 + 64);
            assert!(
                outcome.ops > 0 || row.question == "mayflies",
                "{} did nothing",
                row.name
            );
            assert!(
                outcome.checksum > 0 || outcome.ops == 0 || row.question == "strings",
                "{}",
                row.name
            );
        }
    }
}
