//! How long single calls take: an allocator around another that times each call and counts it in a histogram.
//!
//! Timing costs some 20 ns a call, so latencies are measured in runs of their own.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::x86_64::_rdtsc;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Sixteen buckets a doubling of the cycle count: 6 % apart.
const STEPS: usize = 16;
const BUCKETS: usize = 64 * STEPS;

/// Histograms side by side, so that threads seldom count in the same cache line.
const STRIPES: usize = 8;

static COUNTS: [[AtomicU64; BUCKETS]; STRIPES] =
    [const { [const { AtomicU64::new(0) }; BUCKETS] }; STRIPES];
static LONGEST: AtomicU64 = AtomicU64::new(0);
static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn stripe() -> usize {
    let mut stripe = STRIPE.get();
    if stripe == usize::MAX {
        stripe = NEXT_STRIPE.fetch_add(1, Relaxed) % STRIPES;
        STRIPE.set(stripe);
    }
    stripe
}

/// The bucket of a count of cycles: the exponent, then the four bits after the leading one.
fn bucket(cycles: u64) -> usize {
    let cycles = cycles.max(STEPS as u64);
    let exponent = cycles.ilog2();
    exponent as usize * STEPS + (cycles >> (exponent - 4)) as usize % STEPS
}

/// The upper end of a bucket in cycles.
fn upper_end(bucket: usize) -> u64 {
    let (exponent, step) = (bucket / STEPS, bucket % STEPS);
    ((STEPS + step + 1) as u64) << (exponent - 4)
}

fn record(cycles: u64) {
    COUNTS[stripe()][bucket(cycles)].fetch_add(1, Relaxed);
    if cycles > LONGEST.load(Relaxed) {
        LONGEST.fetch_max(cycles, Relaxed);
    }
}

fn timed<T>(call: impl FnOnce() -> T) -> T {
    // SAFETY: every x86-64 processor has the time-stamp counter.
    let start = unsafe { _rdtsc() };
    let result = call();
    // SAFETY: every x86-64 processor has the time-stamp counter.
    record(unsafe { _rdtsc() }.saturating_sub(start));
    result
}

/// An allocator whose calls are timed.
pub struct Timed<A>(pub A);

// SAFETY: each call is handed on unchanged, and so keeps the contract of the inner allocator.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Timed<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, and it is passed on unchanged.
        timed(|| unsafe { self.0.alloc(layout) })
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, and it is passed on unchanged.
        timed(|| unsafe { self.0.dealloc(block, layout) })
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, and it is passed on unchanged.
        timed(|| unsafe { self.0.alloc_zeroed(layout) })
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, and it is passed on unchanged.
        timed(|| unsafe { self.0.realloc(block, layout, size) })
    }
}

/// Latencies of single calls in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Half of the calls were faster.
    pub median: u64,
    /// All calls but one in a thousand were faster.
    pub p999: u64,
    /// The slowest call.
    pub max: u64,
}

/// Turns cycles into nanoseconds: made before the work, asked after it.
pub struct Clock(Instant, u64);

impl Clock {
    /// Starts to compare the two clocks.
    pub fn start() -> Self {
        // SAFETY: every x86-64 processor has the time-stamp counter.
        Clock(Instant::now(), unsafe { _rdtsc() })
    }

    /// The latencies of all calls so far.
    pub fn latency(&self) -> Latency {
        // SAFETY: every x86-64 processor has the time-stamp counter.
        let cycles = unsafe { _rdtsc() } - self.1;
        let ratio = self.0.elapsed().as_nanos() as f64 / cycles as f64;
        let nanos = |cycles: u64| (cycles as f64 * ratio) as u64;
        let longest = LONGEST.load(Relaxed);
        let below = |part| nanos(quantile(part).min(longest));
        Latency {
            median: below(0.5),
            p999: below(0.999),
            max: nanos(longest),
        }
    }
}

/// Cycles that the given part of all calls took at most.
fn quantile(part: f64) -> u64 {
    let count = |bucket: usize| {
        COUNTS
            .iter()
            .map(|stripe| stripe[bucket].load(Relaxed))
            .sum::<u64>()
    };
    let wanted = (0..BUCKETS).map(count).sum::<u64>() as f64 * part;
    let mut seen = 0;
    for bucket in 4 * STEPS..BUCKETS {
        seen += count(bucket);
        if seen as f64 >= wanted {
            return upper_end(bucket);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_reaches_from_the_end_of_the_last_one_to_its_own() {
        for cycles in (16..100_000).chain([u32::MAX as u64]) {
            let bucket = bucket(cycles);
            assert!(cycles < upper_end(bucket));
            assert!(bucket == 4 * STEPS || cycles >= upper_end(bucket - 1));
        }
    }
}
