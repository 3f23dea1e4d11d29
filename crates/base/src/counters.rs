//! The figures that the heap keeps of itself, in one page of shared layout.
//!
//! Only slow paths count. So figures of which a slow path marks every change are exact (break, mapped, metadata, slabs,
//! spans, large). The others (handed out, live) lag behind by what threads have cached. `slabside run --stats` provides
//! a page of its own in the place of the private one. It reads the page when the program has ended, however it ended.

use crate::class::CLASSES;
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};
use static_assertions::const_assert;

/// First word of a page of counters: "slabsctr" in little-endian letters.
pub const MAGIC: u64 = u64::from_le_bytes(*b"slabsctr");
/// Version of the layout of [`Counters`].
pub const VERSION: u32 = 4;
/// Where the counters begin within their page, in bytes. The region's header stands before them.
pub const OFFSET: usize = 1024;
/// First word of a file in which each process that opens it takes a page of its own: "slabseac".
pub const MAGIC_EACH: u64 = u64::from_le_bytes(*b"slabseac");
/// The environment variable that names a file to keep the counters in: for the one process whose number stands in
/// it, or for all.
pub const VARIABLE: &core::ffi::CStr = c"SLABSIDE_COUNTERS";

/// The heap's figures, in bytes and counts. All fields are updated with relaxed atomics.
#[repr(C)]
pub struct Counters {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// The process whose heap this is. The command that provides the page sets it.
    pub pid: AtomicU32,
    /// Non-zero once a slabside heap has begun to count here.
    pub attached: AtomicU32,
    /// Non-zero when the figures below were made exact at the program's end.
    pub complete: AtomicU32,
    /// Bytes handed out so far, in slot sizes. Counted when slots are cached.
    pub handed_out: AtomicU64,
    /// Bytes in live slots, spans and large blocks, as far as slow paths have seen.
    pub live: AtomicU64,
    /// Highest value of `live`.
    pub peak: AtomicU64,
    /// Bytes by which we have moved the break and not moved it back.
    pub break_bytes: AtomicU64,
    /// Highest value of `break_bytes`.
    pub break_peak: AtomicU64,
    /// Times that we have moved the break, up or down.
    pub break_moves: AtomicU64,
    /// Bytes mapped for large blocks, cached ones among them, and in fallback windows.
    pub mapped: AtomicU64,
    /// Bytes of metadata opened for use.
    pub metadata: AtomicU64,
    /// Bytes resident, as the heap saw it last (`VmRSS`).
    pub resident: AtomicU64,
    /// Bytes given back to the kernel inside the heap by purging.
    pub purged: AtomicU64,
    /// Spans in use or kept for reuse.
    pub spans: AtomicU64,
    /// Large blocks live.
    pub large: AtomicU64,
    /// Thread heaps in use.
    pub heaps: AtomicU64,
    /// Slabs by size class.
    pub slabs: [AtomicU64; CLASSES],
    /// Bytes in live slots by size class, and in live spans. Made at the program's end.
    pub live_of: [AtomicU64; CLASSES + 1],
    /// Spans that are live. Made at the program's end, as are all below.
    pub live_spans: AtomicU64,
    /// Bytes in live large blocks.
    pub live_large: AtomicU64,
    /// Bytes of free slots in slabs in use.
    pub idle_slots: AtomicU64,
    /// Bytes of free spans kept for reuse.
    pub idle_spans: AtomicU64,
    /// Bytes of free pages that may be resident.
    pub idle_pages: AtomicU64,
    /// Bytes of freed large blocks kept for reuse.
    pub idle_large: AtomicU64,
    /// Bytes of pages of slabs in use that were discarded: they take no memory.
    pub holes: AtomicU64,
    /// Bytes of slots and spans that wait in a quarantine.
    pub quarantine: AtomicU64,
    /// Bytes resident (`VmRSS`), the program's own among them.
    pub resident_at_end: AtomicU64,
    /// Where each process has a page: the process that started this one.
    pub parent: AtomicU32,
    /// Likewise when it started, in ticks since the system did: number and time are a process's own.
    pub started: AtomicU64,
    /// Likewise its name, filled up with zeros.
    pub program: [AtomicU64; 2],
}

/// Before the pages of a file in which each process has one: lies where [`Counters`] lie in a page.
#[repr(C)]
pub struct Each {
    /// [`MAGIC_EACH`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// Zero.
    pub pid: AtomicU32,
    /// Pages that were taken, those that the file is too short for among them.
    pub taken: AtomicU32,
}

const_assert!(core::mem::size_of::<Counters>() <= crate::units::PAGE - OFFSET);

/// Adds `n` to `counter` and raises `peak` to it.
#[inline]
pub fn add_with_peak(counter: &AtomicU64, peak: &AtomicU64, n: u64) {
    let sum = counter.fetch_add(n, Relaxed).wrapping_add(n);
    if (sum as i64) > peak.load(Relaxed) as i64 {
        peak.fetch_max(sum, Relaxed);
    }
}

/// Adds `n` to `counter`.
#[inline]
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

/// What `counter` says now.
#[inline]
pub fn read(counter: &AtomicU64) -> usize {
    counter.load(Relaxed) as usize
}

/// Takes `n` from `counter`.
#[inline]
pub fn subtract(counter: &AtomicU64, n: u64) {
    counter.fetch_sub(n, Relaxed);
}
