//! Size classes: from a request's size to its class, and from a class to its slot size and slab shape.
//!
//! ```text
//!   class 0          8 bytes
//!   classes 1..=16   16, 32 ... 256         steps of 16
//!   classes 17..=56  288 ... 8192           8 per doubling
//!   classes 57..=74  8704, 9216 ... 32768   8 per doubling, and half a step above 8 and 16 KiB
//!   class 75         spans: one slot, as large as its pages
//! ```
//!
//! One table and one function each way. The tables are computed at compile time and checked
//! exhaustively below.

use crate::units::{pages_for, LOCAL_MAX, MIN_ALIGN, PAGE, PAIR_SLOTS, SLAB_PAGES};
use crate::units::{Slot, SLOTS, SMALL_MAX, SPAN_MAX, SPAN_PAGES, WORD_SLOTS};

/// Number of size classes of slabs with many slots.
pub const CLASSES: usize = 75;
/// Number of classes whose slot caches lie in thread-local storage: those up to [`LOCAL_MAX`].
pub const LOCAL_CLASSES: usize = 33;
/// Number of the others, whose slot caches lie in the thread's heap.
pub const UPPER_CLASSES: usize = CLASSES - LOCAL_CLASSES;
/// The class of spans.
pub const SPAN: ClassId = ClassId(CLASSES);
/// The one class whose slabs have a header pair, with eight bitmap words.
pub const PAIR: ClassId = ClassId(0);
/// A size class, or [`SPAN`]. What is kept for each class lies in arrays, by [`ClassId::index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ClassId(usize);

impl ClassId {
    /// The class numbered `index`: below [`CLASSES`], or that of [`SPAN`].
    #[inline(always)]
    pub const fn new(index: usize) -> ClassId {
        ClassId(index)
    }

    /// Its number.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0
    }

    /// Its number, as a slab header holds it.
    #[inline(always)]
    pub const fn byte(self) -> u8 {
        self.0 as u8
    }

    /// Whether it is that of [`SPAN`].
    #[inline(always)]
    pub const fn is_span(self) -> bool {
        self.0 >= CLASSES
    }

    /// It as one of the classes above the thread-local ones, if it is one.
    #[inline(always)]
    pub const fn upper(self) -> Option<UpperClass> {
        let above = self.0.wrapping_sub(LOCAL_CLASSES);
        if above < UPPER_CLASSES {
            return Some(UpperClass(above));
        }
        None
    }

    /// The classes of slabs with many slots: all but [`SPAN`], from the smallest.
    #[inline(always)]
    pub fn all() -> impl Iterator<Item = ClassId> {
        (0..CLASSES).map(ClassId)
    }
}

/// Number of page classes that spans are rounded to: 3..=16 each, then 8 per doubling to 32.
pub const SPAN_BINS: usize = 22;

/// The largest of the medium slots, in bytes. Each larger one covers a whole page, wherever it begins.
pub const MANY_MAX: u32 = 8 << 10;

/// Number of classes of slots of up to [`MANY_MAX`] bytes.
pub const MANY_CLASSES: usize = {
    let mut class = 0;
    while SIZES[class] <= MANY_MAX {
        class += 1;
    }
    class
};

/// Slot sizes in bytes, by class.
pub const SIZES: [u32; CLASSES] = sizes();

const fn sizes() -> [u32; CLASSES] {
    let mut table = [0; CLASSES];
    table[0] = 8;
    let mut class = 1;
    while class <= 16 {
        table[class] = 16 * class as u32;
        class += 1;
    }
    let mut size: u32 = 256;
    while class < CLASSES {
        let doubling = size.ilog2();
        // Blocks of 8 or 16 KiB and a header of their program's waste a sixteenth at most.
        if size >= MANY_MAX && size.is_power_of_two() {
            table[class] = size + (1 << (doubling - 4));
            class += 1;
        }
        size += 1 << (doubling - 3);
        table[class] = size;
        class += 1;
    }
    table
}

/// Base-2 logarithm of the bytes of a class's slot cache in thread-local storage.
pub const CACHE_SHIFT: u32 = 5;

/// Where the slot cache of a request's class lies among the others, in bytes, by the request's size. The table has an
/// entry for each byte, so that the look-up is one load. Two kibibytes, of which a program reads what it asks for.
static CACHE_OFFSET: [u16; LOCAL_MAX + 1] = entry_offsets();

const fn entry_offsets() -> [u16; LOCAL_MAX + 1] {
    let mut table = [0; LOCAL_MAX + 1];
    let mut size = 0;
    let mut class = 0;
    while size <= LOCAL_MAX {
        if SIZES[class] as usize >= size {
            table[size] = (class << CACHE_SHIFT) as u16;
            size += 1;
        } else {
            class += 1;
        }
    }
    table
}

/// Where the slot cache for a request of `size` bytes lies among the thread's, in bytes: one load. `None`
/// above [`LOCAL_MAX`].
#[inline(always)]
pub fn cache_offset(size: usize) -> Option<usize> {
    CACHE_OFFSET.get(size).map(|&offset| offset as usize)
}

/// Granule of the table for requests above, in bytes.
const COARSE: usize = 128;

const COARSE_CLASS_TABLE: [u8; SMALL_MAX / COARSE + 1] = class_table(COARSE);
static COARSE_CLASS: [u8; SMALL_MAX / COARSE + 1] = COARSE_CLASS_TABLE;

const fn class_table<const N: usize>(granule: usize) -> [u8; N] {
    let mut table = [0; N];
    let mut i = 0;
    let mut class = 0;
    while i < N {
        while (SIZES[class] as usize) < i * granule {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
}

/// The class of a request of `size` <= [`SMALL_MAX`] bytes.
#[inline(always)]
pub fn class_of(size: usize) -> ClassId {
    match cache_offset(size) {
        Some(offset) => class_at(offset),
        None => ClassId(COARSE_CLASS[size.div_ceil(COARSE)] as usize),
    }
}

/// The class whose slot cache lies at `offset`, which [`cache_offset`] gave.
#[inline(always)]
pub const fn class_at(offset: usize) -> ClassId {
    ClassId(offset >> CACHE_SHIFT)
}

/// A class above the thread-local ones. It is kept as how many classes it stands above them: below [`UPPER_CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperClass(usize);

impl UpperClass {
    /// The class of a request above [`LOCAL_MAX`] and up to [`SMALL_MAX`] bytes.
    #[inline(always)]
    pub fn of(size: usize) -> UpperClass {
        debug_assert!(size > LOCAL_MAX && size <= SMALL_MAX);
        UpperClass(UPPER_CLASS[size.div_ceil(COARSE)] as usize)
    }

    /// How many classes above the thread-local ones it stands: below [`UPPER_CLASSES`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0
    }

    /// The class.
    #[inline(always)]
    pub const fn class(self) -> ClassId {
        ClassId(LOCAL_CLASSES + self.0)
    }
}

static UPPER_CLASS: [u8; SMALL_MAX / COARSE + 1] = {
    let mut table = COARSE_CLASS_TABLE;
    let mut i = 0;
    while i < table.len() {
        table[i] = table[i].saturating_sub(LOCAL_CLASSES as u8);
        assert!((table[i] as usize) < UPPER_CLASSES);
        i += 1;
    }
    table
};

/// Slot size of `class`, in bytes.
#[inline(always)]
pub const fn size_of_class(class: ClassId) -> usize {
    SIZES[class.0] as usize
}

/// The class for `size` <= [`SMALL_MAX`] bytes at a multiple of `align` (a power of two, at most a page),
/// or `None` where no class serves it. Slabs begin on a page, so a slot is aligned as its size is.
#[inline]
pub fn aligned_class(size: usize, align: usize) -> Option<ClassId> {
    let first = class_of(size.max(align.min(SMALL_MAX)));
    let mut classes = (first.0..CLASSES).map(ClassId);
    classes.find(|&class| size_of_class(class).is_multiple_of(align))
}

/// What serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// A slot of this class.
    Slot(ClassId),
    /// A span.
    Span,
    /// A mapping of its own.
    Large,
}

/// What serves a request of `size` bytes at a multiple of `align`, a power of two. 1 asks for no more than any block
/// has.
#[inline]
pub fn fit(size: usize, align: usize) -> Fit {
    if size > SPAN_MAX || align > SPAN_MAX {
        return Fit::Large;
    }
    if size > SMALL_MAX || align > PAGE {
        return Fit::Span;
    }
    if align <= MIN_ALIGN {
        return Fit::Slot(class_of(size.max(align)));
    }
    aligned_class(size, align).map_or(Fit::Span, Fit::Slot)
}

/// `ceil(2^32 / size)`. Multiplying an offset by it gives the slot number in the upper 32 bits. The lower half is below
/// it exactly if the offset is a multiple of `size`, as long as `slab_bytes * size < 2^32` or `size` is a power of two
/// (Lemire, Kaser, Kurz, "Faster remainder by direct computation", 2019).
#[inline(always)]
pub const fn reciprocal(size: u32) -> u32 {
    ((1u64 << 32).div_ceil(size as u64)) as u32
}

/// The reciprocal of spans: any offset but 0 leaves a rest that is not below it.
pub const SPAN_RECIPROCAL: u32 = 1;

/// Slot number and exactness of `offset` under `recip`: the one division of the free path.
#[inline(always)]
pub const fn slot_at(offset: usize, recip: u32) -> (Slot, bool) {
    let product = offset as u64 * recip as u64;
    (
        Slot::new((product >> 32) as usize),
        (product as u32) < recip,
    )
}

/// Number of growth steps a class has at most: from its smallest slab to its full one.
pub const STEPS: usize = 5;

/// Pages of a new slab, by class and growth step.
static SLAB_SHAPE: [[u8; STEPS]; CLASSES] = shapes();

/// Slots that `pages` pages of `class` hold.
#[inline]
pub const fn slots_in(class: ClassId, pages: usize) -> usize {
    let limit = if class.0 == PAIR.0 {
        PAIR_SLOTS
    } else if size_of_class(class) > LOCAL_MAX {
        WORD_SLOTS
    } else {
        SLOTS
    };
    let fit = pages * PAGE / size_of_class(class);
    if fit < limit {
        fit
    } else {
        limit
    }
}

const fn waste(class: ClassId, pages: usize) -> usize {
    pages * PAGE - slots_in(class, pages) * size_of_class(class)
}

/// The page count up to `most` with the least waste in proportion. If several are equal, the largest.
const fn best_pages(class: ClassId, least: usize, most: usize) -> usize {
    let mut best = least;
    let mut pages = least;
    while pages <= most {
        if waste(class, pages) * best <= waste(class, best) * pages {
            best = pages;
        }
        pages += 1;
    }
    best
}

/// The most pages of a slab of `class`. Of large slots few fit in a slab, and each change of slabs costs some hundred
/// instructions. So their slabs have as many pages as a header tells apart (`discarded`).
pub const fn most_pages(class: ClassId) -> usize {
    if size_of_class(class) > LOCAL_MAX {
        SLAB_PAGES
    } else {
        SLAB_PAGES / 2
    }
}

/// The fewest slots of a slab, so that the slow path is not taken for every other one. Of slots above [`MANY_MAX`] half
/// as many are enough: a program may need only one.
const FIRST_SLOTS: usize = 4;

const fn first_pages(class: ClassId) -> usize {
    let mut pages = 1;
    let least = if SIZES[class.0] > MANY_MAX {
        FIRST_SLOTS / 2
    } else {
        FIRST_SLOTS
    };
    while slots_in(class, pages) < least || waste(class, pages) * 8 >= pages * PAGE {
        pages += 1;
    }
    pages
}

const fn shapes() -> [[u8; STEPS]; CLASSES] {
    let mut table = [[0; STEPS]; CLASSES];
    let mut index = 0;
    while index < CLASSES {
        let class = ClassId(index);
        let first = first_pages(class);
        let mut full = most_pages(class);
        while waste(class, full) >= size_of_class(class) {
            full -= 1;
        }
        let half = full / 2 + 1;
        let best = best_pages(class, if half < first { first } else { half }, full);
        let mut step = 0;
        while step < STEPS {
            let wanted = first << step;
            table[index][step] = (if wanted < best { wanted } else { best }) as u8;
            step += 1;
        }
        index += 1;
    }
    table
}

/// Pages of the next slab of `class` for a thread that owns `owned` slabs of it. The first slabs are small, so that
/// small programs stay small. Later ones double up to the shape with the least waste.
#[inline]
pub fn slab_pages(class: ClassId, owned: usize) -> usize {
    let step = (usize::BITS - owned.leading_zeros()) as usize;
    SLAB_SHAPE[class.0][step.min(STEPS - 1)] as usize
}

/// Pages of the smallest slab of `class` with at least `slots` slots. Of the largest one where none has so many.
pub fn slab_pages_with(class: ClassId, slots: usize) -> usize {
    let shapes = SLAB_SHAPE[class.0].map(usize::from);
    let fits = shapes
        .into_iter()
        .find(|&pages| slots_in(class, pages) >= slots);
    fits.unwrap_or(shapes[STEPS - 1])
}

/// The span bin for a request of `pages` pages (1..=32): the smallest whose spans are long enough.
#[inline]
pub const fn bin_of(pages: usize) -> usize {
    if pages <= 16 {
        pages.saturating_sub(3)
    } else {
        pages.div_ceil(2) + 5
    }
}

static BIN_OF: [u8; SPAN_PAGES + 1] = {
    let mut table = [0; SPAN_PAGES + 1];
    let mut pages = 0;
    while pages <= SPAN_PAGES {
        table[pages] = bin_of(pages) as u8;
        pages += 1;
    }
    table
};

/// The span bin for a request of `size` <= SPAN_MAX bytes: one addition, one shift, one load.
#[inline(always)]
pub fn span_bin(size: usize) -> usize {
    let bin = BIN_OF[pages_for(size)] as usize;
    // What the compiler cannot see in the table.
    if bin >= SPAN_BINS {
        return 0;
    }
    bin
}

/// Pages of the spans in `bin`.
#[inline]
pub const fn bin_pages(bin: usize) -> usize {
    if bin <= 13 {
        bin + 3
    } else {
        (bin - 5) * 2
    }
}

/// Pages of the span for a block of `pages` pages where free spans of a size are not split: fewer sizes than bins, so
/// that fewer of them wait for their turn.
#[inline]
pub const fn shared_pages(pages: usize) -> usize {
    match pages {
        0..=8 => bin_pages(bin_of(pages)),
        9..=16 => pages.next_multiple_of(2),
        _ => pages.next_multiple_of(4),
    }
}

/// The largest bin whose spans have at most `pages` pages, for a span that was shrunk or grown in place.
#[inline]
pub const fn bin_below(pages: usize) -> Option<usize> {
    if pages < 3 || pages > SPAN_PAGES {
        return None;
    }
    let bin = bin_of(pages);
    Some(if bin_pages(bin) > pages { bin - 1 } else { bin })
}

/// As long as a header's number of pages can be, so that it is looked up without a comparison.
static BIN_BELOW: [u8; u8::MAX as usize + 1] = {
    let mut table = [SPAN_BINS as u8; u8::MAX as usize + 1];
    let mut pages = 0;
    while pages <= SPAN_PAGES {
        if let Some(bin) = bin_below(pages) {
            table[pages] = bin as u8;
        }
        pages += 1;
    }
    table
};

/// As [`bin_below`], by one load.
#[inline(always)]
pub fn span_bin_below(pages: usize) -> Option<usize> {
    let bin = BIN_BELOW.get(pages).map(|&bin| bin as usize);
    bin.filter(|&bin| bin < SPAN_BINS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for size in 0..=SMALL_MAX {
            let class = class_of(size);
            assert!(size_of_class(class) >= size);
            assert!(class == PAIR || SIZES[class.0 - 1] < size as u32);
            assert!(size <= LOCAL_MAX || UpperClass::of(size).class() == class);
        }
        assert_eq!(SIZES[CLASSES - 1] as usize, SMALL_MAX);
        assert_eq!(class_of(LOCAL_MAX).0, LOCAL_CLASSES - 1);
    }

    #[test]
    fn what_fits_is_large_enough_and_aligned() {
        for align in (0..=16).map(|shift| 1 << shift) {
            for size in 0..=SMALL_MAX {
                match fit(size, align) {
                    Fit::Slot(class) => {
                        assert!(size_of_class(class) >= size && align <= PAGE);
                        assert_eq!(size_of_class(class) % align.min(SMALL_MAX), 0);
                    }
                    other => assert_eq!((other, align > PAGE), (Fit::Span, true)),
                }
            }
        }
        assert_eq!(fit(SMALL_MAX + 1, 1), Fit::Span);
        assert_eq!(fit(SPAN_MAX, SPAN_MAX), Fit::Span);
        assert_eq!(fit(SPAN_MAX + 1, 1), Fit::Large);
        assert_eq!(fit(1, 2 * SPAN_MAX), Fit::Large);
    }

    #[test]
    fn the_reciprocal_divides_exactly_over_every_offset_of_every_slab() {
        for class in ClassId::all() {
            let size = size_of_class(class);
            let recip = reciprocal(size as u32);
            for offset in 0..most_pages(class) * PAGE {
                let (slot, exact) = slot_at(offset, recip);
                assert_eq!(
                    (slot.index(), exact),
                    (offset / size, offset % size == 0),
                    "{size} {offset}"
                );
            }
        }
    }

    #[test]
    fn a_span_has_one_exact_offset() {
        for offset in 0..SPAN_MAX {
            assert_eq!(slot_at(offset, SPAN_RECIPROCAL), (Slot::FIRST, offset == 0));
        }
    }

    #[test]
    fn blocks_of_a_page_and_little_more_waste_at_most_an_eighth() {
        for size in [4200, 8200, 16_400] {
            assert!(size_of_class(class_of(size)) * 100 <= size * 112, "{size}");
        }
    }

    #[test]
    fn slabs_grow_from_small_to_full_and_waste_little() {
        for class in ClassId::all() {
            let mut last = 0;
            for owned in [0, 1, 2, 4, 8, 16, 1000] {
                let pages = slab_pages(class, owned);
                assert!(pages >= last && pages <= SLAB_PAGES, "{class:?}");
                assert!(
                    waste(class, pages) * 8 < pages * PAGE,
                    "{class:?} pages {pages}"
                );
                last = pages;
            }
            assert_eq!(waste(class, last), 0, "{class:?}: a full slab wastes some");
        }
    }

    /// Each change of slabs costs as much as several blocks.
    #[test]
    fn slabs_of_large_slots_hold_many_of_them_in_one_word() {
        for class in ClassId::all().skip(LOCAL_CLASSES) {
            let size = size_of_class(class);
            let slots = slots_in(class, slab_pages(class, 16));
            let wanted = (SLAB_PAGES * PAGE / size).min(WORD_SLOTS);
            assert!(
                slots <= WORD_SLOTS && slots * 2 >= wanted,
                "{size}: {slots}"
            );
            for owned in 0..64 {
                // The reader outside expects as many slots as fit.
                let pages = slab_pages(class, owned);
                assert_eq!(
                    slots_in(class, pages),
                    pages * PAGE / size,
                    "{size}: {pages}"
                );
            }
        }
    }

    #[test]
    fn the_slot_past_the_last_has_a_bit_of_its_own_wherever_a_tail_can_hold_it() {
        for class in ClassId::all() {
            for owned in [0, 1, 2, 4, 8, 16] {
                let pages = slab_pages(class, owned);
                let slots = slots_in(class, pages);
                let past = pages * PAGE > slots * size_of_class(class);
                assert!(
                    !past || slots < SLOTS,
                    "{class:?}: no bit past the last slot"
                );
                assert!(waste(class, pages) < size_of_class(class));
            }
        }
    }

    #[test]
    fn aligned_classes_are_multiples_of_the_alignment() {
        for shift in 0..=12 {
            let align = 1 << shift;
            for size in (0..=SMALL_MAX).step_by(7) {
                let class = aligned_class(size, align).expect("32 KiB is a multiple of all");
                assert!(size_of_class(class) >= size && size_of_class(class).is_multiple_of(align));
            }
        }
    }

    #[test]
    fn span_bins_hold_what_they_are_asked_for() {
        for pages in 1..=SPAN_PAGES {
            let bin = bin_of(pages);
            assert!(bin < SPAN_BINS && bin_pages(bin) >= pages);
            assert_eq!(span_bin(pages * PAGE), bin);
            assert!(bin == 0 || bin_pages(bin - 1) < pages);
            match bin_below(pages) {
                Some(below) => assert!(bin_pages(below) <= pages),
                None => assert!(pages < 3),
            }
        }
        assert_eq!(bin_pages(SPAN_BINS - 1), SPAN_PAGES);
        assert_eq!(pages_for(SMALL_MAX + 1), 9);
    }
}
