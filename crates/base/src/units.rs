//! Every size and shift of the heap, and the numbers that name its parts.
//!
//! Nothing here knows what a slab looks like or where the heap lies. All is arithmetic.
//!
//! ```text
//!   page    4 KiB of heap, named by a PageNo counted from the heap's base
//!   slab    1..=32 pages of slots of one size class, named by a SlabId
//!   span    3..=32 pages that hold one block: a slab of one slot
//!   large   anything bigger, a mapping of its own
//! ```

/// Base-2 logarithm of [`PAGE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in one page of the heap. Ours, and not the system's: an OS page may be larger.
pub const PAGE: usize = 1 << PAGE_SHIFT;
/// The most pages that a slab of many slots spans.
pub const SLAB_PAGES: usize = 32;
/// Slots in one bitmap word.
pub const WORD_SLOTS: usize = 64;
/// Bitmap words in an ordinary slab header.
pub const WORDS: usize = 4;
/// Bitmap words in the header pair of the 8-byte class.
pub const PAIR_WORDS: usize = 8;
/// The most slots of a slab with an ordinary header.
pub const SLOTS: usize = WORDS * WORD_SLOTS;
/// The most slots of a slab of the 8-byte class: one page of them.
pub const PAIR_SLOTS: usize = PAIR_WORDS * WORD_SLOTS;
/// The largest request served from a slab of many slots, in bytes.
pub const SMALL_MAX: usize = 32 << 10;
/// The largest request whose class has its slot cache in thread-local storage, in bytes.
pub const LOCAL_MAX: usize = 1 << 10;
/// The most pages of a span.
pub const SPAN_PAGES: usize = 32;
/// The largest request served by a span, in bytes.
pub const SPAN_MAX: usize = SPAN_PAGES * PAGE;
/// Alignment of every block larger than eight bytes (x86-64 and aarch64 ABI: `max_align_t`).
pub const MIN_ALIGN: usize = 16;
/// Bytes of a cache line.
pub const LINE: usize = 64;
/// Bytes at the start of a page where nothing lies that fast paths read.
///
/// Programs write there: it is where their blocks of a page or more begin. A processor compares the lower 12 bits of
/// addresses first, and takes a load for one that waits for an earlier store where those are the same ("4K aliasing", Intel
/// 64 Optimization Reference Manual). Where such stores miss the caches, every free waited for them.
pub const PAGE_START: usize = 2 * LINE;
/// Fills the start of a page.
pub type PageStart = [u8; PAGE_START];
/// Pages that one word of a page bitmap describes.
pub const WORD_PAGES: usize = 64;
/// Pages in a group, the unit in which page bitmaps are kept. No run of pages crosses a group's end.
pub const GROUP_PAGES: usize = 8 << 10;
/// A window begins at a page number that is a multiple of this, so that its metadata begin on OS pages.
pub const WINDOW_PAGES: usize = 64 << 10;
/// The largest request at all: C's `PTRDIFF_MAX`, so that pointers into a block can be subtracted.
pub const REQUEST_MAX: usize = isize::MAX as usize;
/// No process has as many bytes of addresses that the kernel gives without being asked for one: on x86-64 half as many.
pub const ADDRESSES: usize = 1 << 48;

/// Number of a page, counted over the whole page-number space (break window first, then fallback windows).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct PageNo(pub u32);

impl PageNo {
    /// The page's index into page-indexed tables.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The page `n` further on.
    #[inline(always)]
    pub const fn plus(self, n: usize) -> PageNo {
        PageNo(self.0 + n as u32)
    }
}

/// Number of a slab header in the header table. 0 and 1 name headers that stand for no slab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct SlabId(pub u32);

impl SlabId {
    /// No slab: what the page map says of pages that are free or were never ours.
    pub const NONE: SlabId = SlabId(0);
    /// What the page map says of pages inside the heap's range that somebody else's `sbrk` took.
    pub const FOREIGN: SlabId = SlabId(1);
    /// The first number that names a slab.
    pub const FIRST: SlabId = SlabId(2);

    /// The header's index in the header table.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Whether this names a slab at all.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 >= SlabId::FIRST.0
    }
}

/// `bytes` in whole pages, rounded up. `bytes` is at most [`REQUEST_MAX`].
#[inline(always)]
pub const fn pages_for(bytes: usize) -> usize {
    (bytes + (PAGE - 1)) >> PAGE_SHIFT
}

/// `n` rounded up to a multiple of `align`, a power of two. `None` if it does not fit.
#[inline(always)]
pub const fn align_up(n: usize, align: usize) -> Option<usize> {
    match n.checked_add(align - 1) {
        Some(sum) => Some(sum & !(align - 1)),
        None => None,
    }
}

/// `n` rounded down to a multiple of `align`, a power of two.
#[inline(always)]
pub const fn align_down(n: usize, align: usize) -> usize {
    n & !(align - 1)
}

/// A slot's number in its slab. Whether the slab has so many slots, the number does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Slot(usize);

impl Slot {
    /// The first one: a span has no other.
    pub const FIRST: Slot = Slot(0);

    /// The slot numbered `index`.
    #[inline(always)]
    pub const fn new(index: usize) -> Slot {
        Slot(index)
    }

    /// The slot of bit `bit` of a slab's bitmap word `word`.
    #[inline(always)]
    pub const fn in_word(word: usize, bit: u32) -> Slot {
        Slot(word * WORD_SLOTS + bit as usize)
    }

    /// Its number.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0
    }

    /// The bitmap word that holds its bit.
    #[inline(always)]
    pub const fn word(self) -> usize {
        self.0 / WORD_SLOTS
    }

    /// Its bit within that word.
    #[inline(always)]
    pub const fn bit(self) -> u64 {
        bit_of(self.0)
    }
}

/// The bit numbered `n` of a word, or `n` less the bits of the words before it.
#[inline(always)]
pub const fn bit_of(n: usize) -> u64 {
    1 << (n % WORD_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_alignment_round_as_division_would() {
        for bytes in 0..3 * PAGE {
            assert_eq!(pages_for(bytes), bytes.div_ceil(PAGE));
            assert_eq!(align_up(bytes, 64), Some(bytes.div_ceil(64) * 64));
            assert_eq!(align_down(bytes, 64), bytes / 64 * 64);
        }
        assert_eq!(align_up(usize::MAX, 16), None);
    }

    #[test]
    fn slot_bits_cover_each_word_once() {
        for index in 0..PAIR_SLOTS {
            let slot = Slot::new(index);
            let bit = slot.bit().trailing_zeros();
            assert_eq!((slot.word(), bit as usize), (index / 64, index % 64));
            assert_eq!(Slot::in_word(slot.word(), bit), slot);
        }
    }
}
