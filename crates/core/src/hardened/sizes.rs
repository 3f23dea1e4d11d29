//! The exact size of every live slot, out of band: one word a slot, by number of header and slot.
//!
//! ```text
//!   header 2          header 3          header 4 ...
//!   | 256 words     | | 256 words     | | ...          0: not live    n: slot size - asked + 1
//! ```
//!
//! A free swaps its word for 0. So if two threads free one block at once, exactly one wins, and a block in quarantine
//! is known to be dead at once. A header pair has the words of both its numbers.

use crate::meta::{Area, Meta, Supply, SIZES_BYTES, SLAB_BYTES};
use crate::mutex::{Lock, Mutex, Registry};
use crate::os::Os;
use crate::slab::SlabPtr;
use crate::sync::{AtomicU16, AtomicUsize};
use crate::sync::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::units::{Slot, SLOTS};

/// Where the table lies.
#[derive(Clone, Copy)]
pub struct Table {
    start: usize,
    /// Where the header table begins: a header's number by its address costs no look at its second line.
    slabs: usize,
}

impl Table {
    /// Nowhere.
    pub const NONE: Table = Table { start: 0, slabs: 0 };

    /// The one of the metadata, which are there.
    pub fn of(meta: &Meta) -> Table {
        Table {
            start: meta.start::<u8>(Area::Sizes).as_ptr() as usize,
            slabs: meta.start::<u8>(Area::Slabs).as_ptr() as usize,
        }
    }
}

/// How much of the table is there.
pub struct Words {
    /// So many headers' words are open.
    headers: AtomicUsize,
    /// Bytes of the table that are.
    opened: Mutex<usize>,
}

/// The table.
#[derive(Clone, Copy)]
pub struct Sizes<'a> {
    table: &'a Table,
    words: &'a Words,
}

/// The most bytes not asked for that a word can tell.
pub const UNUSED_MAX: usize = u16::MAX as usize - 1;

/// The word of a slot of which `unused` bytes were not asked for.
fn word(unused: usize) -> u16 {
    (unused + 1) as u16
}

/// The bytes that were asked for of a slot of `bytes` by its word. `None` means that it is not live.
#[inline(always)]
pub fn asked(word: u16, bytes: usize) -> Option<usize> {
    // 0 tells of more bytes than any slot has.
    let unused = u32::from(word).wrapping_sub(1);
    (bytes as u32).checked_sub(unused).map(|size| size as usize)
}

/// Changes the word of a live slot from one that tells of `old` bytes not asked for to one of `new`. False means that it is
/// not live any more. Without `racing` no other thread changes it.
#[inline(always)]
pub fn change_at(at: &AtomicU16, (old, new): (usize, usize), racing: bool) -> bool {
    if racing {
        return at
            .compare_exchange(word(old), word(new), AcqRel, Relaxed)
            .is_ok();
    }
    at.store(word(new), Relaxed);
    true
}

impl Words {
    /// Nothing.
    pub const fn new(locks: &mut Registry) -> Words {
        Words {
            headers: AtomicUsize::new(0),
            opened: Mutex::new(locks, 0),
        }
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.opened.as_lock());
    }
}

impl<'a> Sizes<'a> {
    /// The table that lies at `table`.
    #[inline(always)]
    pub fn new(table: &'a Table, words: &'a Words) -> Sizes<'a> {
        Sizes { table, words }
    }

    /// The number of a slab's header.
    #[inline]
    pub fn number(&self, slab: SlabPtr) -> usize {
        (slab.as_ptr() as usize - self.table.slabs) / SLAB_BYTES
    }

    /// Sees to it that the words of `slab` are there. False if memory has run out.
    #[inline]
    pub fn open<O: Os>(&self, supply: Supply<O>, slab: SlabPtr) -> bool {
        self.is_open(slab) || self.open_to(supply, self.end_of(slab))
    }

    /// Whether the words of `slab` are there.
    #[inline]
    pub fn is_open(&self, slab: SlabPtr) -> bool {
        self.number(slab) + 2 <= self.words.headers.load(Acquire)
    }

    /// Where the words of `slab` end, which may be two headers' words, in the table.
    #[inline]
    pub fn end_of(&self, slab: SlabPtr) -> usize {
        (self.number(slab) + 2) * SIZES_BYTES
    }

    #[cold]
    fn open_to<O: Os>(&self, supply: Supply<O>, end: usize) -> bool {
        let opened = &mut *self.words.opened.lock();
        let end = end.min(supply.meta.extent(Area::Sizes).bytes);
        let done = supply.meta.open_to(supply.os, Area::Sizes, opened, end);
        let headers = *opened / SIZES_BYTES;
        self.words.headers.store(headers, Release);
        done
    }

    #[inline(always)]
    fn at(&self, number: usize, slot: Slot) -> &'a AtomicU16 {
        let index = number * SLOTS + slot.index();
        // SAFETY: `open` was called for the slab before its first slot was handed out. The slot is one of the slab's:
        // at most 256, or 512 for a pair, which has two numbers.
        unsafe { &*(self.table.start as *const AtomicU16).add(index) }
    }

    /// The word of a slot, which exists, of the slab of header `number`. `None` means that nobody was told a size of
    /// any slot of the slab.
    #[inline(always)]
    pub fn place(&self, number: usize, slot: Slot) -> Option<&'a AtomicU16> {
        let open = number < self.words.headers.load(Acquire);
        open.then(|| self.at(number, slot))
    }

    /// Notes that `slot` is live and `size` bytes of it were asked for.
    #[inline]
    pub fn note(&self, slab: SlabPtr, slot: Slot, size: usize) {
        self.at(self.number(slab), slot)
            .store(word(slab.size() - size), Relaxed);
    }

    /// The words of the slots from `first` on, for [`Sizes::note_at`].
    #[inline]
    pub fn words(&self, slab: SlabPtr, first: Slot) -> *const AtomicU16 {
        self.at(self.number(slab), first)
    }

    /// As [`Sizes::note`], by a word of [`Sizes::words`], for a slot with `unused` bytes not asked for.
    ///
    /// # Safety
    /// The word is that of a slot of the slab that the words were asked for.
    #[inline]
    pub unsafe fn note_at(at: *const AtomicU16, unused: usize) {
        // SAFETY: the caller keeps this function's contract. The table is never unmapped.
        unsafe { (*at).store(word(unused), Relaxed) };
    }

    /// The bytes that were asked for of a live slot. `None` means that it is not live.
    #[inline]
    pub fn size(&self, slab: SlabPtr, slot: Slot) -> Option<usize> {
        asked(
            self.place(self.number(slab), slot)?.load(Relaxed),
            slab.size(),
        )
    }

    /// Notes that `slot` is not live any more, and returns how many bytes were asked for. `None` means that it was not
    /// live, or, with `racing`, another thread was faster.
    #[inline]
    pub fn end(&self, slab: SlabPtr, slot: Slot, racing: bool) -> Option<usize> {
        let at = self.place(self.number(slab), slot)?;
        let found = if racing {
            at.swap(0, AcqRel)
        } else {
            let found = at.load(Relaxed);
            at.store(0, Relaxed);
            found
        };
        asked(found, slab.size())
    }

    /// Changes the size of a live slot from `old` to `new`. False means that it is not live any more.
    pub fn change(&self, slab: SlabPtr, slot: Slot, old: usize, new: usize) -> bool {
        let unused = (slab.size() - old, slab.size() - new);
        change_at(self.at(self.number(slab), slot), unused, true)
    }
}
