//! The workloads, one file a question. Each a plain function over any allocator.
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
pub mod ring;
pub mod handoff;
pub mod mayflies;
pub mod scale;
pub mod swell;

use std::time::{Duration, Instant};

/// What a workload measured.
#[derive(Clone, Copy, Default)]
pub struct Outcome {
    /// Operations done. What counts as one is each workload's to say.
    pub ops: u64,
    /// Nanoseconds from first to last: of processor time where there is one thread, else of wall time.
    pub nanos: u64,
    /// Sum over what was read from blocks.
    pub checksum: u64,
    /// Resident bytes, where the workload looks at them.
    pub resident: Option<Resident>,
    /// Live bytes and those resident, where the workload looks at them after its last operation.
    pub held: Option<Held>,
}

/// What a heap holds for its live blocks.
#[derive(Clone, Copy, Default)]
pub struct Held {
    /// Bytes asked for and live.
    pub live: usize,
    /// Resident anonymous bytes.
    pub resident: usize,
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

/// The processor time that this process has used, all its threads and the kernel's work for it included.
/// On a machine that is busy with other things too it tells more of a single-threaded workload than the
/// wall clock does.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists on Linux, and writes the one struct.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Outcome {
    /// Measures the processor time of `work`, which does `ops` operations in this thread and returns its
    /// checksum.
    pub fn of(ops: usize, work: impl FnOnce() -> u64) -> Self {
        let start = processor_time();
        let checksum = work();
        Outcome::new(ops, processor_time() - start, checksum)
    }

    /// Measures the wall time of `work`, which does `ops` operations in several threads.
    pub fn of_threads(ops: usize, work: impl FnOnce() -> u64) -> Self {
        let start = Instant::now();
        let checksum = work();
        Outcome::new(ops, start.elapsed(), checksum)
    }

    /// An outcome without a look at the resident bytes.
    pub fn new(ops: usize, time: Duration, checksum: u64) -> Self {
        Outcome {
            ops: ops as u64,
            nanos: time.as_nanos() as u64,
            checksum,
            resident: None,
            held: None,
        }
    }

    /// Nanoseconds an operation.
    pub fn nanos_per_op(&self) -> f64 {
        self.nanos as f64 / self.ops.max(1) as f64
    }
}
