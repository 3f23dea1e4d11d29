//! The slab header: which slots of a slab are free, who owns it, where it is listed.
//!
//! ```text
//!   line 0, the owner's:       base | owner | recip size | frees_left slots class state | free[4]
//!   line 1, everybody's:       remote[4] | id | queue | links | pages flags counted discarded
//!
//!   the 8-byte class has a header pair, with eight words of each bitmap:
//!   line 0  as above           line 1  free[4..8] | as above
//!   line 2  remote[8]          line 3  unused
//! ```
//!
//! A set bit in `free` says that the slot is free, at every moment, also for slots that a thread has cached and not
//! handed out. Headers are type-stable: once a header (or a pair), always one, and never unmapped. A header takes no
//! lock and owns no memory. The page map leads to it.

use crate::class::{fit, ClassId, Fit, PAIR, SPAN};
use crate::owner::{AtomicOwner, Owner, RELEASED};
use crate::sync::{count_ones, AtomicU16, AtomicU32, AtomicU64, AtomicU8, AtomicUsize};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};
use crate::units::{SlabId, Slot, LINE, PAIR_WORDS, WORDS, WORD_SLOTS};
use core::cell::Cell;
use core::iter::successors;
use core::ops::Deref;
use core::ptr::NonNull;

/// A slab header. All words but one are atomics, since other threads read them. The owner uses plain loads and stores
/// (relaxed) on line 0.
#[repr(C, align(128))]
pub struct Slab {
    /// Address of slot 0: the start of the slab's first page.
    pub base: AtomicUsize,
    /// Who may use line 0 (see `remote`).
    pub owner: AtomicOwner,
    /// Reciprocal of the slot size (see `class::reciprocal`). 1 for a span.
    pub recip: AtomicU32,
    /// Slot size in bytes. For a span its bytes.
    pub size: AtomicU32,
    /// Frees by the owner until something is to be done. Set whenever `state` changes. A cell, not an atomic, so that
    /// the countdown is one instruction: only the owner looks.
    pub frees_left: Cell<i32>,
    /// Number of slots.
    pub slots: AtomicU16,
    /// Size class, or `class::SPAN`.
    pub class: AtomicU8,
    /// A [`State`]: on which of its owner's lists the slab is.
    pub state: AtomicU8,
    free: [AtomicU64; WORDS],
    remote: [AtomicU64; WORDS],
    /// This header's own number.
    pub id: AtomicU32,
    /// Link in an owner's queue of pending slabs (see `remote::Queue`).
    pub queue: AtomicU32,
    /// Places in the two lists that a slab can be on: before and after it.
    links: [[AtomicU32; 2]; 2],
    /// Pages of the slab or span.
    pub(crate) pages: AtomicU8,
    /// Bits: [`SIZE_AMBIGUOUS`], [`GUARDS`], [`UNTOUCHED`], [`FIRST_FILL`], [`LINED`], [`DUE`], [`SAMPLED`].
    flags: AtomicU8,
    /// Live slots when the counters were last told.
    pub counted: AtomicU16,
    /// One bit for each page of a slab of slots: the page was discarded while no slot on it was live, and no
    /// slot on it was cached since. See `heap::holes`.
    pub discarded: AtomicU32,
}

#[cfg(not(loom))]
static_assertions::const_assert_eq!(core::mem::size_of::<Slab>(), 128);
#[cfg(not(loom))]
const _: () = {
    use crate::arch::{HEADER_BASE, HEADER_FREE, HEADER_FREES_LEFT, HEADER_OWNER, HEADER_RECIP};
    use crate::arch::{HEADER_NOTES, HEADER_SIZE, HEADER_SLOTS, REMOTE_AFTER_FREE};
    use crate::layout::slab as layout;
    use core::mem::offset_of;
    static_assertions::const_assert_eq!(offset_of!(Slab, base), HEADER_BASE);
    static_assertions::const_assert_eq!(offset_of!(Slab, owner), HEADER_OWNER);
    static_assertions::const_assert_eq!(
        core::mem::size_of::<Slab>(),
        1 << crate::arch::HEADER_SHIFT
    );
    static_assertions::const_assert_eq!(offset_of!(Slab, remote), layout::REMOTE);
    static_assertions::const_assert_eq!(offset_of!(Slab, remote), HEADER_FREE + REMOTE_AFTER_FREE);
    static_assertions::const_assert_eq!(offset_of!(Slab, size), HEADER_SIZE);
    static_assertions::const_assert_eq!(offset_of!(Slab, slots), HEADER_SLOTS);
    static_assertions::const_assert_eq!(offset_of!(Slab, pages), HEADER_NOTES);
    static_assertions::const_assert_eq!(offset_of!(Slab, recip), HEADER_RECIP);
    static_assertions::const_assert_eq!(offset_of!(Slab, frees_left), HEADER_FREES_LEFT);
    static_assertions::const_assert_eq!(offset_of!(Slab, free), HEADER_FREE);
    static_assertions::const_assert_eq!(offset_of!(Slab, size), layout::SIZE);
    static_assertions::const_assert_eq!(offset_of!(Slab, slots), layout::SLOTS);
    static_assertions::const_assert_eq!(offset_of!(Slab, class), layout::CLASS);
    static_assertions::const_assert_eq!(offset_of!(Slab, state), layout::STATE);
    static_assertions::const_assert_eq!(offset_of!(Slab, id), layout::ID);
    static_assertions::const_assert_eq!(offset_of!(Slab, pages), layout::PAGES);
};

/// On which list of its owner a slab is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// No slab: the header waits for reuse. Zero, as fresh metadata is.
    Released = 0,
    /// On no list: between two states, or without an owner.
    Unlisted = 1,
    /// The slab that its class takes slots from.
    Active = 2,
    /// Some free slots: it waits for its turn to be taken from. One of slots above 1 KiB may wait since it was used up, and
    /// have none yet.
    Partial = 3,
    /// As `Partial`, but taken from when no partial slab is left: some of its pages were discarded, or many of its slots
    /// were free when the heap grew.
    Sparse = 4,
    /// No free slot.
    Full = 5,
    /// A free span kept for reuse.
    Binned = 6,
    /// On the process's list of slabs without an owner.
    Abandoned = 7,
    /// No slab, but its pages wait for the next one of the same class: hardened mode.
    Parked = 8,
}

impl State {
    fn from(byte: u8) -> State {
        match byte {
            1 => State::Unlisted,
            2 => State::Active,
            3 => State::Partial,
            4 => State::Sparse,
            5 => State::Full,
            6 => State::Binned,
            7 => State::Abandoned,
            8 => State::Parked,
            _ => State::Released,
        }
    }
}

/// Bit of a header's flags: a realloc kept a block here that a smaller one would hold. From then on the size that a block
/// was asked for cannot be told from its slot. Any thread sets it.
pub const SIZE_AMBIGUOUS: u8 = 1;
/// Bit of a header's flags: the page after the slab's last one is its guard (see `pages::parked`). It is the pages', and
/// stays for the next slab that is made of these.
pub const GUARD_AFTER: u8 = 1 << 1;
/// Likewise of the page before its first one.
pub const GUARD_BEFORE: u8 = 1 << 2;
/// Both.
pub const GUARDS: u8 = GUARD_AFTER | GUARD_BEFORE;
/// Bit of a header's flags: the slab's pages are all zero, and no slot was handed out yet. Its owner's.
pub const UNTOUCHED: u8 = 1 << 3;
/// Bit of a header's flags: its slots were untouched when they were cached, and were not cached again since. So each slot
/// that comes out of the cache is all zero. Its owner's.
pub const FIRST_FILL: u8 = 1 << 4;
/// Bit of a header's flags: some of its slots were given for fewer bytes than their class is for, at multiples of a cache
/// line (see `allocator::guest`).
pub const LINED: u8 = 1 << 5;
/// Bit of a header's flags: the next refill of the slab's class is to be a sample of the heap profile (see
/// `heap::profiling`). A hint of its owner's.
pub const DUE: u8 = 1 << 6;
/// Bit of a header's flags: some of its slots are samples. Its owner's.
pub const SAMPLED: u8 = 1 << 7;

/// Bits of a header's flags that something follows from when its slots are cached.
#[cfg(not(loom))]
const NOTED: u8 = UNTOUCHED | FIRST_FILL | DUE | SAMPLED;
/// Those bits in the eight bytes from `pages` on, with all of `discarded`.
#[cfg(not(loom))]
pub const NOT_PLAIN: u64 = (NOTED as u64) << 8 | 0xffff_ffff << 32;

/// `frees_left` of a slab for which no number of frees is an event.
pub const FREES_UNCOUNTED: i32 = i32::MAX;

impl Slab {
    /// A header that stands for no slab.
    pub fn blank() -> Slab {
        Slab {
            base: AtomicUsize::new(0),
            owner: AtomicOwner::none(),
            recip: AtomicU32::new(0),
            size: AtomicU32::new(0),
            frees_left: Cell::new(0),
            slots: AtomicU16::new(0),
            class: AtomicU8::new(0),
            state: AtomicU8::new(0),
            free: core::array::from_fn(|_| AtomicU64::new(0)),
            remote: core::array::from_fn(|_| AtomicU64::new(0)),
            id: AtomicU32::new(0),
            queue: AtomicU32::new(0),
            links: core::array::from_fn(|_| core::array::from_fn(|_| AtomicU32::new(0))),
            pages: AtomicU8::new(0),
            flags: AtomicU8::new(0),
            counted: AtomicU16::new(0),
            discarded: AtomicU32::new(0),
        }
    }
}

/// A pointer to a header, or to the first of a pair. It reaches the whole pair, as a plain reference
/// would not.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct SlabPtr(NonNull<Slab>);

impl Deref for SlabPtr {
    type Target = Slab;

    #[inline(always)]
    fn deref(&self) -> &Slab {
        // SAFETY: `SlabPtr::new`'s caller vouched for a header that is never unmapped.
        unsafe { self.0.as_ref() }
    }
}

/// What a slab is made as.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Size class, or `class::SPAN`.
    pub class: ClassId,
    /// Slot size in bytes.
    pub size: usize,
    /// Reciprocal of the slot size.
    pub recip: u32,
    /// Number of slots.
    pub slots: usize,
    /// Number of pages.
    pub pages: usize,
    /// Pages that the slab's address is a multiple of: a power of two, at most 32.
    pub align: usize,
}

impl SlabPtr {
    /// # Safety
    /// `slab` points to a header (a pair where the class is `PAIR`) that stays mapped for good, and reaches the other
    /// headers of its table.
    #[inline(always)]
    pub const unsafe fn new(slab: NonNull<Slab>) -> SlabPtr {
        SlabPtr(slab)
    }

    /// The header's address.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut Slab {
        self.0.as_ptr()
    }

    /// Asks for the header's lines ahead of their use.
    #[cfg(not(loom))]
    #[inline(always)]
    pub fn prefetch(self) {
        let header = self.as_ptr().cast::<u8>();
        crate::arch::prefetch(header);
        crate::arch::prefetch(header.wrapping_add(64));
    }

    /// Asks for the line that other threads mark their frees in, ahead of the mark, to be written to. A load that comes
    /// first would ask for it once to read, and the mark once more to write.
    #[cfg(not(loom))]
    #[inline(always)]
    pub fn prefetch_remote(self) {
        crate::arch::prefetch_write(self.remote.as_ptr().cast());
    }

    /// The header's number.
    #[inline(always)]
    pub fn id(self) -> SlabId {
        SlabId(self.id.load(Relaxed))
    }

    /// The header numbered `id` of the same table, which was made before. `None` if the number names no slab.
    #[inline(always)]
    fn other(self, id: SlabId) -> Option<SlabPtr> {
        // SAFETY: only numbers in links and lists come here, which are those of headers that were made. The table has
        // each at the place that its number says, and `SlabPtr::new`'s caller vouched that the pointer reaches it.
        id.is_some()
            .then(|| unsafe { SlabPtr(self.0.sub(self.id().index()).add(id.index())) })
    }

    /// The number in one of the links.
    #[inline(always)]
    fn link(self, links: usize, side: usize) -> SlabId {
        SlabId(self.links[links][side].load(Relaxed))
    }

    #[inline(always)]
    fn set_link(self, links: usize, side: usize, id: SlabId) {
        self.links[links][side].store(id.0, Relaxed);
    }

    /// The list that the slab is on.
    #[inline(always)]
    pub fn state(self) -> State {
        State::from(self.state.load(Relaxed))
    }

    /// Notes the list that the slab is on.
    #[inline(always)]
    pub fn set_state(self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    /// Whether any of these flags is set.
    #[inline(always)]
    pub fn has(self, flags: u8) -> bool {
        self.flags.load(Relaxed) & flags != 0
    }

    /// Sets flags. Not by a plain store: other threads may set another one.
    pub fn set_flags(self, flags: u8) {
        if self.flags.load(Relaxed) & flags != flags {
            self.flags.fetch_or(flags, Relaxed);
        }
    }

    /// Whether a request for up to 32 KiB at a multiple of `align`, a power of two, gets slots of this class. Guests get
    /// those at multiples of a cache line (see `allocator::guest`).
    pub fn serves(self, size: usize, align: usize) -> bool {
        let fits = |align| fit(size, align) == Fit::Slot(self.class());
        fits(align) || self.has(LINED) && fits(align.max(LINE))
    }

    /// Clears flags.
    pub fn clear_flags(self, flags: u8) {
        self.flags.fetch_and(!flags, Relaxed);
    }

    /// Whether slots of it can be cached as they are: no page was discarded, the heap profile is not to be asked, and
    /// nobody knows of slots that are all zero. One load for all.
    #[cfg(not(loom))]
    #[inline(always)]
    pub fn is_plain(self) -> bool {
        const _: () = {
            let (pages, flags) = (
                core::mem::offset_of!(Slab, pages),
                core::mem::offset_of!(Slab, flags),
            );
            assert!(pages.is_multiple_of(8) && flags == pages + 1);
            assert!(core::mem::offset_of!(Slab, discarded) == pages + 4);
        };
        if cfg!(miri) || cfg!(target_endian = "big") {
            return !self.has(NOTED) && self.discarded.load(Relaxed) == 0;
        }
        // SAFETY: the eight bytes from `pages` on lie in the header, at a multiple of eight.
        let word = unsafe {
            &*self
                .0
                .as_ptr()
                .byte_add(core::mem::offset_of!(Slab, pages))
                .cast::<AtomicU64>()
        };
        word.load(Relaxed) & NOT_PLAIN == 0
    }

    /// Size class, or `class::SPAN`.
    #[inline(always)]
    pub fn class(self) -> ClassId {
        ClassId::new(self.class.load(Relaxed) as usize)
    }

    /// Whether the slab is a span.
    #[inline(always)]
    pub fn is_span(self) -> bool {
        self.class() == SPAN
    }

    /// Slot size in bytes.
    #[inline(always)]
    pub fn size(self) -> usize {
        self.size.load(Relaxed) as usize
    }

    /// Number of slots.
    #[inline(always)]
    pub fn slots(self) -> usize {
        self.slots.load(Relaxed) as usize
    }

    /// Number of pages.
    #[inline(always)]
    pub fn pages(self) -> usize {
        self.pages.load(Relaxed) as usize
    }

    /// Notes that the slab or span has `pages` pages.
    #[inline(always)]
    pub fn set_pages(self, pages: usize) {
        debug_assert!(pages <= u8::MAX as usize);
        self.pages.store(pages as u8, Relaxed);
    }

    /// Address of the first slot.
    #[inline(always)]
    pub fn base(self) -> usize {
        self.base.load(Relaxed)
    }

    /// Address of `slot`.
    #[inline(always)]
    pub fn address(self, slot: Slot) -> usize {
        self.base() + slot.index() * self.size()
    }

    /// Whether the slab has so many slots that `slot` is one.
    #[inline(always)]
    pub fn holds(self, slot: Slot) -> bool {
        slot.index() < self.slots()
    }

    /// Number of bitmap words that have slots.
    #[inline(always)]
    pub fn words(self) -> usize {
        self.slots().div_ceil(WORD_SLOTS)
    }

    /// The `word`-th word of the free bitmap. `word` < 4, or 8 for the pair class.
    #[inline(always)]
    pub fn free_word(&self, word: usize) -> &AtomicU64 {
        if word < WORDS {
            return &self.free[word];
        }
        self.pair_word(word)
    }

    /// The word of the free bitmap that holds `slot`'s bit, for a slot number that came out of the
    /// reciprocal: at most the slot past the last, so the word lies within the header or its pair.
    #[inline(always)]
    pub fn free_word_at(&self, slot: Slot) -> &AtomicU64 {
        // SAFETY: slots past the last exist only where a slab has a tail. Then their bit lies in the bitmap (tested for
        // every class in `class`). Free words of a pair are contiguous.
        unsafe { &*self.free_start().add(slot.word()) }
    }

    #[inline(always)]
    fn free_start(&self) -> *const AtomicU64 {
        // SAFETY: the words of the free bitmap lie in the header that `self` points to.
        unsafe {
            self.0
                .as_ptr()
                .byte_add(core::mem::offset_of!(Slab, free))
                .cast()
        }
    }

    /// The first word of the free bitmap, whatever the class.
    #[inline(always)]
    pub fn first_free_word(&self) -> &AtomicU64 {
        &self.free[0]
    }

    /// The first word of the remote bitmap of any class but the pair class.
    #[inline(always)]
    pub fn first_remote_word(&self) -> &AtomicU64 {
        &self.remote[0]
    }

    /// The `word`-th word of the remote bitmap. `word` < 4, or 8 for the pair class.
    #[inline(always)]
    pub fn remote_word(&self, word: usize) -> &AtomicU64 {
        if self.class() != PAIR {
            return &self.remote[word];
        }
        self.pair_word(WORDS + 2 * WORDS + word)
    }

    /// Words after `free` in a header pair: 4..8 are free bits, 12..20 remote bits.
    #[inline]
    fn pair_word(&self, word: usize) -> &AtomicU64 {
        debug_assert!(self.class() == PAIR && word < 2 * WORDS + 3 * WORDS);
        // SAFETY: the header of class PAIR is a pair of 256 bytes (type-stable, `SlabPtr::new`), `free`
        // begins at byte 32, and 32 + 8 * 20 = 192 <= 256.
        unsafe { &*self.free_start().add(word) }
    }

    /// Whether `slot` < slots is marked free by its owner.
    #[inline(always)]
    pub fn is_free(self, slot: Slot) -> bool {
        self.free_word(slot.word()).load(Relaxed) & slot.bit() != 0
    }

    /// Whether `slot` < slots was freed by another thread and not collected yet. To be asked before
    /// [`SlabPtr::is_free`], since a collection moves the bit from here to there.
    #[inline(always)]
    pub fn is_remote(self, slot: Slot) -> bool {
        self.remote_word(slot.word()).load(Acquire) & slot.bit() != 0
    }

    /// Whether `slot`'s bit is set in neither bitmap, in a header of one line pair: of any class but the pair class. For a
    /// slot number that came out of the reciprocal: it reads within the header also where that was another slab's.
    #[inline(always)]
    pub fn is_live_in_one(&self, slot: Slot) -> bool {
        let word = slot.word() & (WORDS - 1);
        // SAFETY: both bitmaps of such a header have WORDS words, `remote`'s right after `free`'s (see the module's
        // drawing).
        let (free, remote) = unsafe {
            (
                &*self.free_start().add(word),
                &*self.free_start().add(WORDS + word),
            )
        };
        // In this order, since a collection moves a bit from `remote` to `free`.
        let remote = remote.load(Acquire);
        (remote | free.load(Acquire)) & slot.bit() == 0
    }

    /// Number of free slots, not counting remote frees. Bits past the last slot read free.
    #[inline]
    pub fn count_free(self) -> usize {
        let words = self.words();
        let ones = |word| count_ones(self.free_word(word).load(Relaxed)) as usize;
        (0..words).map(ones).sum::<usize>() + self.slots() - words * WORD_SLOTS
    }

    /// As [`SlabPtr::count_free`], of any class but the pair class. Words that have no slots read free.
    #[cfg(not(loom))]
    #[inline(always)]
    pub fn count_free_in_one(self) -> usize {
        let all = crate::arch::count_all_ones(self.free.each_ref().map(|word| word.load(Relaxed)));
        all as usize + self.slots() - crate::units::SLOTS
    }

    /// Number of slots freed by other threads and not collected yet.
    pub fn count_remote(self) -> usize {
        (0..self.words())
            .map(|word| self.remote_word(word).load(Relaxed).count_ones() as usize)
            .sum()
    }

    /// Whether any slot was freed by other threads and not collected yet.
    #[inline(always)]
    pub fn any_remote(self) -> bool {
        let bits = |word| self.remote_word(word).load(SeqCst);
        if self.class() == PAIR {
            return (0..self.words()).any(|word| bits(word) != 0);
        }
        self.any_remote_in_one()
    }

    /// As [`SlabPtr::any_remote`], of any class but the pair class.
    #[inline(always)]
    pub fn any_remote_in_one(self) -> bool {
        // Words that no slot has are zero.
        self.remote
            .iter()
            .fold(0, |all, word| all | word.load(SeqCst))
            != 0
    }

    /// Forgets all remote frees: second frees of slots that are free.
    #[cold]
    pub fn drop_remote(self) {
        (0..self.words()).for_each(|word| self.remote_word(word).store(0, Relaxed));
    }

    /// The `word`-th word of the remote bitmap, of a slab of `class`.
    #[inline(always)]
    pub fn remote_at(&self, word: usize, class: ClassId) -> &AtomicU64 {
        let first = if class == PAIR { 3 * WORDS } else { WORDS };
        // SAFETY: `remote` lies after `free`, in a header pair two lines further (see the module's drawing).
        unsafe { &*self.free_start().add(first + word) }
    }

    /// The `word`-th word of the free bitmap, whatever the class. `word` < `words()`.
    #[inline(always)]
    pub fn free_at(&self, word: usize) -> &AtomicU64 {
        debug_assert!(word < self.words());
        // SAFETY: the words that have slots are contiguous, in a header or a pair.
        unsafe { &*self.free_start().add(word) }
    }

    /// The word of the remote bitmap that holds `slot`'s bit, for a slot number that came out of the reciprocal. Within the
    /// header also where that was another class's: of a slab that was made anew since.
    #[inline(always)]
    pub fn remote_word_at(&self, slot: Slot) -> &AtomicU64 {
        let class = self.class();
        let words = if class == PAIR { PAIR_WORDS } else { WORDS };
        self.remote_at(slot.word() & (words - 1), class)
    }

    /// The next word after `cursor` that has free slots, and `cursor`'s own last: so the slots freed
    /// longest ago are taken first, sweep by sweep.
    #[inline(always)]
    pub fn next_word(self, cursor: usize) -> Option<(usize, u64)> {
        let slots = self.slots();
        let last = (slots - 1) / WORD_SLOTS;
        let mut word = cursor;
        loop {
            word = if word == last { 0 } else { word + 1 };
            let mut bits = self.free_at(word).load(Relaxed);
            if word == last {
                // Bits past the last slot read free.
                bits &= u64::MAX >> (slots.wrapping_neg() % WORD_SLOTS);
            }
            if bits != 0 {
                return Some((word, bits));
            }
            if word == cursor {
                return None;
            }
        }
    }

    /// Makes the header stand for a new slab of `shape` at `base`, all slots free, owned by `owner`.
    /// Bits past the last slot read free, so that a free of what lies after it is found.
    pub fn make(self, shape: &Shape, base: usize, owner: Owner) {
        self.base.store(base, Relaxed);
        self.recip.store(shape.recip, Relaxed);
        self.size.store(shape.size as u32, Relaxed);
        self.slots.store(shape.slots as u16, Relaxed);
        self.class.store(shape.class.byte(), Relaxed);
        self.set_pages(shape.pages);
        self.discarded.store(0, Relaxed);
        self.frees_left.set(FREES_UNCOUNTED);
        self.counted.store(0, Relaxed);
        self.flags.store(0, Relaxed);
        let words = if shape.class == PAIR {
            2 * WORDS
        } else {
            WORDS
        };
        (0..words).for_each(|word| self.free_word(word).store(u64::MAX, Relaxed));
        self.set_state(State::Unlisted);
        self.owner.store(owner, Release);
    }

    /// As [`SlabPtr::make`], of the pages that the slab has already, with their guards.
    pub fn make_again(self, shape: &Shape, owner: Owner) {
        let guards = self.flags.load(Relaxed) & GUARDS;
        self.make(shape, self.base(), RELEASED);
        self.flags.store(guards, Relaxed);
        self.owner.store(owner, Release);
    }
}

/// The header table: headers by number.
#[derive(Clone, Copy)]
pub struct SlabTable(NonNull<Slab>);

impl SlabTable {
    /// # Safety
    /// `base` is the start of the header area, mapped for good as far as headers were made.
    pub const unsafe fn new(base: NonNull<Slab>) -> SlabTable {
        SlabTable(base)
    }

    /// Its address.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut Slab {
        self.0.as_ptr()
    }

    /// The header numbered `id`, which was made before.
    #[inline(always)]
    pub fn get(self, id: SlabId) -> SlabPtr {
        // SAFETY: numbers are given out by `pages` only for opened parts of the area.
        unsafe { SlabPtr(self.0.add(id.index())) }
    }

    /// The header numbered `id`, which was made before. `None` if the number names no slab.
    #[inline(always)]
    pub fn find(self, id: SlabId) -> Option<SlabPtr> {
        id.is_some().then(|| self.get(id))
    }
}

/// The links that [`List`]s of what a heap or nobody owns, and of spans, go through: a slab is on one.
pub const HOME: usize = 0;
/// The links that the lists of slabs which wait for their turn, and of free spans, go through.
pub const PARTIAL: usize = 1;

const BEFORE: usize = 0;
const BEHIND: usize = 1;

/// A doubly linked list of slabs through the `LINKS` of their headers. One thread at a time.
#[repr(C)]
pub struct List<const LINKS: usize = HOME> {
    /// First, where `arch::refill` looks.
    head: Cell<SlabId>,
    tail: Cell<SlabId>,
}

impl<const LINKS: usize> Default for List<LINKS> {
    fn default() -> List<LINKS> {
        List::new()
    }
}

impl<const LINKS: usize> List<LINKS> {
    /// An empty list.
    pub const fn new() -> List<LINKS> {
        List {
            head: Cell::new(SlabId::NONE),
            tail: Cell::new(SlabId::NONE),
        }
    }

    /// Whether nothing is listed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.get() == SlabId::NONE
    }

    /// Zero if nothing is listed, and some other number if not.
    #[inline(always)]
    pub fn any(&self) -> u32 {
        self.head.get().0
    }

    /// The first slab.
    #[inline]
    pub fn first(&self, table: SlabTable) -> Option<SlabPtr> {
        table.find(self.head.get())
    }

    /// The slab after `slab`.
    pub fn after(&self, slab: SlabPtr) -> Option<SlabPtr> {
        slab.other(slab.link(LINKS, BEHIND))
    }

    /// The slabs in their order. The one that is shown may be taken out meanwhile.
    pub fn iter(&self, table: SlabTable) -> impl Iterator<Item = SlabPtr> + '_ {
        successors(self.first(table), |&slab| self.after(slab))
    }

    /// Adds `slab`, which is on no list, at the back.
    #[inline]
    pub fn push_back(&self, slab: SlabPtr) {
        self.add_back(slab, |last| slab.other(last));
    }

    /// As [`List::push_back`], of a slab of `table`.
    #[inline(always)]
    pub fn push_back_in(&self, table: SlabTable, slab: SlabPtr) {
        self.add_back(slab, |last| table.find(last));
    }

    #[inline(always)]
    fn add_back(&self, slab: SlabPtr, find: impl FnOnce(SlabId) -> Option<SlabPtr>) {
        let id = slab.id();
        let last = self.tail.replace(id);
        slab.set_link(LINKS, BEFORE, last);
        slab.set_link(LINKS, BEHIND, SlabId::NONE);
        match find(last) {
            Some(last) => last.set_link(LINKS, BEHIND, id),
            None => self.head.set(id),
        }
    }

    /// The last slab.
    pub fn last(&self, table: SlabTable) -> Option<SlabPtr> {
        table.find(self.tail.get())
    }

    /// Adds `slab`, which is on no list, at the front.
    pub fn push_front(&self, slab: SlabPtr) {
        self.add_front(slab, |first| slab.other(first));
    }

    /// As [`List::push_front`], of a slab of `table`.
    #[inline(always)]
    pub fn push_front_in(&self, table: SlabTable, slab: SlabPtr) {
        self.add_front(slab, |first| table.find(first));
    }

    #[inline(always)]
    fn add_front(&self, slab: SlabPtr, find: impl FnOnce(SlabId) -> Option<SlabPtr>) {
        let id = slab.id();
        let first = self.head.replace(id);
        slab.set_link(LINKS, BEHIND, first);
        slab.set_link(LINKS, BEFORE, SlabId::NONE);
        match find(first) {
            Some(first) => first.set_link(LINKS, BEFORE, id),
            None => self.tail.set(id),
        }
    }

    /// Takes `slab`, which is on this list, out of it.
    pub fn unlink(&self, slab: SlabPtr) {
        let [before, behind] = [BEFORE, BEHIND].map(|side| slab.link(LINKS, side));
        match slab.other(before) {
            Some(slab) => slab.set_link(LINKS, BEHIND, behind),
            None => self.head.set(behind),
        }
        match slab.other(behind) {
            Some(slab) => slab.set_link(LINKS, BEFORE, before),
            None => self.tail.set(before),
        }
    }

    /// Takes `slab`, which is the first one, out. Gives the one after it.
    #[inline(always)]
    pub fn take_first(&self, table: SlabTable, slab: SlabPtr) -> Option<SlabPtr> {
        let next = slab.link(LINKS, BEHIND);
        self.head.set(next);
        let next = table.find(next);
        match next {
            Some(next) => next.set_link(LINKS, BEFORE, SlabId::NONE),
            None => self.tail.set(SlabId::NONE),
        }
        next
    }

    /// Forgets all, without touching the slabs.
    pub fn clear(&self) {
        self.head.set(SlabId::NONE);
        self.tail.set(SlabId::NONE);
    }
}

/// A doubly linked list through the [`PARTIAL`] links of its slabs, last in first out. One thread at a time.
///
/// It has no tail: a heap has one for each class, and those of up to 8 KiB lie in one page.
#[derive(Default)]
pub struct Stack {
    head: Cell<SlabId>,
}

impl Stack {
    /// An empty stack.
    pub const fn new() -> Stack {
        Stack {
            head: Cell::new(SlabId::NONE),
        }
    }

    /// The slab that was pushed last.
    pub fn first(&self, table: SlabTable) -> Option<SlabPtr> {
        table.find(self.head.get())
    }

    /// The slab that was pushed before `slab`.
    pub fn after(&self, slab: SlabPtr) -> Option<SlabPtr> {
        slab.other(slab.link(PARTIAL, BEHIND))
    }

    /// The slabs, from the one that was pushed last. The one that is shown may be taken out meanwhile.
    pub fn iter(&self, table: SlabTable) -> impl Iterator<Item = SlabPtr> + '_ {
        successors(self.first(table), |&slab| self.after(slab))
    }

    /// Adds `slab`, which is on no list through these links.
    pub fn push(&self, slab: SlabPtr) {
        let first = self.head.replace(slab.id());
        slab.set_link(PARTIAL, BEHIND, first);
        slab.set_link(PARTIAL, BEFORE, SlabId::NONE);
        if let Some(first) = slab.other(first) {
            first.set_link(PARTIAL, BEFORE, slab.id());
        }
    }

    /// Takes `slab`, which is on this stack, out of it.
    pub fn unlink(&self, slab: SlabPtr) {
        let [before, behind] = [BEFORE, BEHIND].map(|side| slab.link(PARTIAL, side));
        match slab.other(before) {
            Some(slab) => slab.set_link(PARTIAL, BEHIND, behind),
            None => self.head.set(behind),
        }
        if let Some(slab) = slab.other(behind) {
            slab.set_link(PARTIAL, BEFORE, before);
        }
    }

    /// Takes out the slab that was pushed last.
    pub fn pop(&self, table: SlabTable) -> Option<SlabPtr> {
        let slab = self.first(table)?;
        self.unlink(slab);
        Some(slab)
    }

    /// Whether no slab is on it.
    pub fn is_empty(&self) -> bool {
        self.head.get() == SlabId::NONE
    }

    /// Forgets all, without touching the slabs.
    pub fn clear(&self) {
        self.head.set(SlabId::NONE);
    }
}
