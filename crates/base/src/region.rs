//! The metadata region as it lies in memory, for the allocator and for a reader outside the process: its areas and its
//! header.
//!
//! All of it belongs to [`VERSION`]. The allocator's `meta` says how long the areas are, and opens them.

use crate::counters;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use static_assertions::const_assert;

/// First word of the region: "slabside" in little-endian letters.
pub const MAGIC: u64 = u64::from_le_bytes(*b"slabside");
/// Version of the region's layout: of the header, the slab headers, and what the areas mean.
pub const VERSION: u32 = 5;

/// The parts of the region, in order of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Area {
    /// [`Header`], and [`Counters`](crate::counters::Counters) after it.
    Header = 0,
    /// The first heap, if it lies apart from the others.
    FirstHeap,
    /// The first group of pages, if it lies apart from the others.
    FirstGroup,
    /// Maxima over the groups' longest free runs, highest level first.
    Tree,
    /// The first slab headers, if they lie apart from the others.
    FirstSlabs,
    /// One `u32` a page: the number of the slab header that it belongs to.
    PageMap,
    /// Thread heaps, `HEAP_BYTES` each.
    Heaps,
    /// First-class heaps: a lock and slot caches for the heap of the same number, `ARENA_BYTES` each.
    Arenas,
    /// Which pages are free and dirty, in groups of `units::GROUP_PAGES`, `GROUP_BYTES` each.
    Groups,
    /// Records of large blocks, in tables of 2^k records with odd k.
    LargeOdd,
    /// Records of large blocks, in tables of 2^k records with even k.
    LargeEven,
    /// Slab headers. They are numbered by their distance from the first one, in headers.
    Slabs,
    /// Exact sizes of live slots, `SIZES_BYTES` a slab header. Nothing unless hardened.
    Sizes,
    /// What hardened mode keeps of a thread, `THREAD_BYTES` each. Nothing unless hardened.
    Threads,
    /// Which blocks of no bytes are live, a bit each. Nothing unless hardened.
    Empty,
    /// Samples of the heap profile, `SAMPLE_BYTES` each. [`Header::samples`] states where.
    Samples,
    /// Where to find a sample by its block: not stated, nobody outside needs it.
    SampleIndex,
}

/// Number of areas that the header lists in [`Header::areas`].
pub const AREAS: usize = 15;
/// Bytes of a slab header.
pub const SLAB_BYTES: usize = 128;
/// Bytes of a sample of the heap profile, its part of the stack among them.
pub const SAMPLE_BYTES: usize = 4096;

/// The start of the region, for readers outside. What the layers above state in it comes before the first block.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`], written last.
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// Bytes of this header.
    pub header_bytes: AtomicU32,
    /// Bytes of the whole region.
    pub region_bytes: AtomicUsize,
    /// Number of entries used in `areas`.
    pub areas_used: AtomicU32,
    /// Bytes of a slab header.
    pub slab_bytes: AtomicU32,
    /// Where each area lies: offset and bytes, in the order of [`Area`].
    pub areas: [[AtomicUsize; 2]; AREAS],
    /// The number after the last slab header made (the first two headers stand for no slab).
    pub slabs_made: AtomicU32,
    /// The number after the last one of those that lie apart: the next number is that of the first of the others.
    pub slabs_apart: AtomicU32,
    /// Heaps made so far.
    pub heaps_made: AtomicU32,
    /// Windows in use.
    pub windows: AtomicU32,
    /// Which large table is in use: base-2 logarithm of its records. 0 means none.
    pub large_shift: AtomicU32,
    /// The process whose heap this is. A child made by fork(2) states its own.
    pub pid: AtomicU32,
    /// Milliseconds of the monotonic clock when the region was made.
    pub started: AtomicU64,
    /// Version of the library, filled up with zeros.
    pub library: [AtomicU64; 2],
    /// Where pages lie, one entry a window, as many as `windows` says.
    pub ranges: [WindowRange; WINDOWS],
    /// Sizes and offsets of what the areas hold, in the order of [`Fact`].
    pub facts: [AtomicU32; FACTS],
    /// Addresses of what lies outside the region, in the order of [`Elsewhere`].
    pub elsewhere: [AtomicUsize; ELSEWHERE],
    /// Whether a heap profile is taken: its interval in bytes in the low [`PROFILE_SHIFT`] bits, 0: none. Above them
    /// how often it was begun. A tool outside may write this word.
    pub profile: AtomicU64,
    /// Where the area of samples lies: offset and bytes.
    pub samples: [AtomicUsize; 2],
    /// The number behind the last sample's place that was used. The first place stands for none.
    pub samples_made: AtomicU32,
    /// How often the interval is doubled at present, since there were too many samples.
    pub samples_doubled: AtomicU32,
    /// Samples taken so far.
    pub samples_taken: AtomicU64,
    /// Samples for which there was no place.
    pub samples_lost: AtomicU64,
}

/// Bits of [`Header::profile`] that are the interval.
pub const PROFILE_SHIFT: u32 = 48;

const_assert!(core::mem::size_of::<Header>() <= counters::OFFSET);

/// The most windows of a heap: the break's, and mapped ones.
pub const WINDOWS: usize = 8;

/// A window as the header states it: addresses whose pages have numbers in a row.
#[repr(C)]
pub struct WindowRange {
    /// Address of its first page.
    pub base: AtomicUsize,
    /// Number of its first page.
    pub first: AtomicU32,
    /// 1: of the break. 2: mapped.
    pub kind: AtomicU32,
    /// The most pages that it ever had. The page map says of those given back that they are nobody's.
    pub pages: AtomicUsize,
}

/// A number that the header states for a reader outside: it need not know how the layers above lay out what is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fact {
    /// Base-2 logarithm of the bytes of a heap page.
    PageShift = 0,
    /// Bytes of a page of the system.
    OsPage,
    /// Bits: [`HARDENED`].
    Flags,
    /// The class number of spans.
    SpanClass,
    /// The class number of slabs with a header pair.
    PairClass,
    /// The most pages of a slab of many slots.
    SlabPages,
    /// The most pages of a span.
    SpanPages,
    /// The most slots of a slab with an ordinary header.
    Slots,
    /// Bytes of a thread heap.
    HeapBytes,
    /// Where in it the owner word lies, 8 bytes.
    HeapOwner,
    /// Where in it the number of its thread lies, 8 bytes: process above, thread below.
    HeapThread,
    /// Where in it the byte lies that says whether it is a first-class heap.
    HeapArena,
    /// Bytes of a large block's record.
    RecordBytes,
    /// Where in it the address lies, 8 bytes. 0 means no record.
    RecordAddress,
    /// Where in it the length lies, 8 bytes.
    RecordLength,
    /// Where in it 4 bytes lie that are not zero where the block was freed.
    RecordStray,
    /// Where in it the owner word lies, 8 bytes.
    RecordOwner,
    /// Places for kept ranges, at [`Elsewhere::Kept`].
    KeptPlaces,
    /// Bytes of one.
    KeptBytes,
    /// Where in it the address lies, 8 bytes.
    KeptAddress,
    /// Where in it the length lies, 8 bytes. 0 means an unused place.
    KeptLength,
    /// Where in it the byte lies that is not zero where the range was never touched.
    KeptClean,
    /// Where the counters begin in the region.
    Counters,
    /// Bytes of the exact sizes of one slab header's slots. Hardened mode.
    SizesBytes,
    /// Where in a thread heap the thread pointer of its thread lies, 8 bytes. 0 means that it is not told, or no
    /// thread's.
    HeapPointer,
    /// Where in it 8 bytes lie of which all but the lowest 18 bits, times 4, are the address of a word of the thread's.
    HeapWatched,
    /// Where in it the value of that word lies, 4 bytes, for as long as the thread has the heap.
    HeapWatchedValue,
}

/// Number of facts.
pub const FACTS: usize = 27;

/// Bit of [`Fact::Flags`]: hardened mode is provided for.
pub const HARDENED: u32 = 1;

/// What a reader outside may want that lies apart from the region, in the library's own variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Elsewhere {
    /// The kept ranges.
    Kept = 0,
    /// 4 bytes that are odd while records of large blocks move, and differ afterwards.
    LargeEpoch,
    /// 4 bytes that differ after a slab was made or released.
    SlabEpoch,
    /// The region itself: a copy of it lies elsewhere.
    Region,
}

/// Number of them.
pub const ELSEWHERE: usize = 4;

impl Header {
    /// States a fact.
    pub fn state(&self, fact: Fact, value: usize) {
        self.facts[fact as usize].store(value as u32, Relaxed);
    }

    /// States where something lies.
    pub fn point(&self, what: Elsewhere, address: usize) {
        self.elsewhere[what as usize].store(address, Relaxed);
    }
}
