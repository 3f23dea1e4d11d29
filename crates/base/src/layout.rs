//! What a reader outside the process needs of the region's layout: offsets, sizes and words, in one place.
//!
//! It belongs to [`VERSION`]. A change of any of these is a new version. The crate `slabside-view` then keeps the
//! old one's numbers beside the new.

pub use crate::region::{Area, Elsewhere, Fact, WindowRange, AREAS, ELSEWHERE, FACTS, HARDENED};
pub use crate::region::{MAGIC, SLAB_BYTES, VERSION, WINDOWS};

pub use crate::units::SLOTS;

use crate::region::Header;
use core::mem::{offset_of, size_of};

/// Bytes of the region's header.
pub const HEADER_BYTES: usize = size_of::<Header>();

/// Where the header's fields lie in it.
pub mod offset {
    use super::{offset_of, Header};

    /// The magic number, 8 bytes.
    pub const MAGIC: usize = offset_of!(Header, magic);
    /// The version, 4 bytes.
    pub const VERSION: usize = offset_of!(Header, version);
    /// Bytes of the header, 4 bytes.
    pub const HEADER_BYTES: usize = offset_of!(Header, header_bytes);
    /// Bytes of the region, 8 bytes.
    pub const REGION_BYTES: usize = offset_of!(Header, region_bytes);
    /// Number of areas, 4 bytes.
    pub const AREAS_USED: usize = offset_of!(Header, areas_used);
    /// Bytes of a slab header, 4 bytes.
    pub const SLAB_BYTES: usize = offset_of!(Header, slab_bytes);
    /// Offset and length of each area, 16 bytes.
    pub const AREAS: usize = offset_of!(Header, areas);
    /// Heaps made so far, 4 bytes.
    pub const HEAPS_MADE: usize = offset_of!(Header, heaps_made);
    /// Windows in use, 4 bytes.
    pub const WINDOWS: usize = offset_of!(Header, windows);
    /// The large table in use, 4 bytes.
    pub const LARGE_SHIFT: usize = offset_of!(Header, large_shift);
    /// The process, 4 bytes.
    pub const PID: usize = offset_of!(Header, pid);
    /// When the region was made, 8 bytes.
    pub const STARTED: usize = offset_of!(Header, started);
    /// The library's version, 16 bytes.
    pub const LIBRARY: usize = offset_of!(Header, library);
    /// The windows.
    pub const RANGES: usize = offset_of!(Header, ranges);
    /// The facts, 4 bytes each.
    pub const FACTS: usize = offset_of!(Header, facts);
    /// What lies elsewhere, 8 bytes each.
    pub const ELSEWHERE: usize = offset_of!(Header, elsewhere);
    /// Whether a heap profile is taken, 8 bytes. A tool may write to it.
    pub const PROFILE: usize = offset_of!(Header, profile);
    /// Offset and length of the area of samples, 16 bytes.
    pub const SAMPLES: usize = offset_of!(Header, samples);
    /// The number behind the last sample's place used, 4 bytes.
    pub const SAMPLES_MADE: usize = offset_of!(Header, samples_made);
    /// How often the interval is doubled at present, 4 bytes.
    pub const SAMPLES_DOUBLED: usize = offset_of!(Header, samples_doubled);
    /// Samples taken so far, 8 bytes.
    pub const SAMPLES_TAKEN: usize = offset_of!(Header, samples_taken);
    /// Samples for which there was no place, 8 bytes.
    pub const SAMPLES_LOST: usize = offset_of!(Header, samples_lost);
}

/// Where a window's fields lie in its entry.
pub mod window {
    use super::{offset_of, size_of};
    use crate::region::WindowRange;

    /// Bytes of an entry.
    pub const BYTES: usize = size_of::<WindowRange>();
    /// Address of the first page, 8 bytes.
    pub const BASE: usize = offset_of!(WindowRange, base);
    /// Its number, 4 bytes.
    pub const FIRST: usize = offset_of!(WindowRange, first);
    /// 1: of the break. 2: mapped. 4 bytes.
    pub const KIND: usize = offset_of!(WindowRange, kind);
    /// The most pages that it ever had, 8 bytes.
    pub const PAGES: usize = offset_of!(WindowRange, pages);
}

/// Where a slab header's fields lie in it. The core's module `slab` has the drawing, and asserts each.
pub mod slab {
    use crate::arch::{HEADER_BASE, HEADER_FREE, HEADER_OWNER, HEADER_RECIP};
    use crate::units::WORDS;

    /// Address of the first page, 8 bytes.
    pub const BASE: usize = HEADER_BASE;
    /// The owner word, 8 bytes.
    pub const OWNER: usize = HEADER_OWNER;
    /// The size's reciprocal, 4 bytes.
    pub const RECIPROCAL: usize = HEADER_RECIP;
    /// Bytes of a slot, 4 bytes.
    pub const SIZE: usize = 20;
    /// Number of slots, 2 bytes.
    pub const SLOTS: usize = 28;
    /// The class, 1 byte.
    pub const CLASS: usize = 30;
    /// The state, 1 byte.
    pub const STATE: usize = 31;
    /// The free bitmap.
    pub const FREE: usize = HEADER_FREE;
    /// The remote bitmap of an ordinary header.
    pub const REMOTE: usize = HEADER_FREE + 8 * WORDS;
    /// The remote bitmap of a header pair.
    pub const PAIR_REMOTE: usize = HEADER_FREE + 3 * 8 * WORDS;
    /// The header's number, 4 bytes.
    pub const ID: usize = 96;
    /// Number of pages, 1 byte.
    pub const PAGES: usize = 120;
}

/// Where a sample's fields lie in it. The core's module `profile` asserts each.
pub mod sample {
    pub use crate::region::{PROFILE_SHIFT, SAMPLE_BYTES as BYTES};

    /// Its number, 8 bytes. 0 means none.
    pub const NUMBER: usize = 0;
    /// Its block's address, 8 bytes.
    pub const ADDRESS: usize = 8;
    /// The block's bytes when it was taken, 8 bytes.
    pub const SIZE: usize = 16;
    /// The interval that it was drawn with, 8 bytes.
    pub const INTERVAL: usize = 24;
    /// When it was taken, 8 bytes.
    pub const TIME: usize = 32;
    /// The owner word of its heap, 8 bytes.
    pub const OWNER: usize = 40;
    /// The profile that it belongs to, 4 bytes.
    pub const BEGUN: usize = 48;
    /// Not 0 once it has ended, 4 bytes.
    pub const ENDED: usize = 52;
    /// Number of its slab's header, 4 bytes. 0 means a large block.
    pub const SLAB: usize = 56;
    /// Bytes of stack, 4 bytes.
    pub const STACK_BYTES: usize = 68;
    /// rip, rsp, rbp, rbx, r12, r13, r14 and r15, 8 bytes each.
    pub const REGISTERS: usize = 72;
    /// The stack from rsp on.
    pub const STACK: usize = 192;
}

/// Owner words.
pub mod owner {
    use crate::class::ClassId;
    use crate::owner::Owner;
    pub use crate::owner::{ARENA, FULL, PENDING};

    /// Owner word of a header that stands for no slab.
    pub const RELEASED: u64 = crate::owner::RELEASED.word();

    /// The heap's index in an owner word that is some heap's.
    pub const fn index(word: u64) -> usize {
        Owner::from_word(word).index()
    }

    /// The class on whose list a slab of this owner word is, if it is on one.
    pub const fn list_of(word: u64) -> Option<ClassId> {
        Owner::from_word(word).list()
    }
}

/// Sizes of the classes of slots, by class.
pub use crate::class::{PAIR, SIZES, SPAN};

/// What the allocator keeps of a thread in the thread's own memory. The core's module `tls` asserts it.
pub mod thread_block {
    /// Its bytes.
    pub const BYTES: usize = crate::arch::BLOCK_BYTES;
    /// Where in it the thread's owner word lies, 8 bytes: the word that [`Fact::HeapWatched`](super::Fact) leads to,
    /// unless the thread is hardened.
    pub const ME: usize = 1056;
}

/// By how many bits [`Fact::HeapWatched`] says to shift.
pub const WATCHED_SHIFT: u32 = 18;

/// The counters, from [`Fact::Counters`] on.
pub mod counters {
    use super::offset_of;
    use crate::counters::Counters;
    pub use crate::counters::{MAGIC, VERSION};

    /// Bytes handed out so far, 8 bytes.
    pub const HANDED_OUT: usize = offset_of!(Counters, handed_out);
    /// The most bytes live that slow paths saw, 8 bytes.
    pub const PEAK: usize = offset_of!(Counters, peak);
    /// Bytes given back by purging, 8 bytes.
    pub const PURGED: usize = offset_of!(Counters, purged);
}
