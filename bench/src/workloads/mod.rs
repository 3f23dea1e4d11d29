//! The workloads, one file a question; each a plain function over any allocator.
//!
//! A workload makes its tables first, then times what it is about, then clears up. It returns a checksum
//! over what it read from the blocks, so that nothing can be left out by the compiler.

pub mod threads;
pub mod window;
pub mod pair;
pub mod batch;
pub mod trees;
pub mod strings;
pub mod replace;
pub mod handoff;
pub mod mayflies;
pub mod scale;
pub mod swell;

use std::time::Instant;

/// What a workload measured.
#[derive(Clone, Copy, Default)]
pub struct Outcome {
    /// Operations done; what counts as one is each workload's to say.
    pub ops: u64,
    /// Nanoseconds from first to last.
    pub nanos: u64,
    /// Sum over what was read from blocks.
    pub checksum: u64,
    /// Resident bytes, where the workload looks at them.
    pub resident: Option<Resident>,
}

/// Resident anonymous bytes of a program whose heap swelled and was freed.
#[derive(Clone, Copy, Default)]
pub struct Resident {
    /// With everything live.
    pub peak: usize,
    /// Just after the last block was freed.
    pub after: usize,
    /// One second and a few calls later.
    pub later: usize,
}

impl Outcome {
    /// Times `work`, which does `ops` operations and returns its checksum.
    pub fn of(ops: usize, work: impl FnOnce() -> u64) -> Self {
        let start = Instant::now();
        let checksum = work();
        Outcome { ops: ops as u64, nanos: start.elapsed().as_nanos() as u64, checksum, resident: None }
    }

    /// Nanoseconds an operation.
    pub fn nanos_per_op(&self) -> f64 {
        self.nanos as f64 / self.ops.max(1) as f64
    }
}
