//! Blocks of no bytes: addresses in a range that nobody can read or write, a bit each out of band.

use crate::meta::{Area, Meta, Supply, EMPTY_BLOCKS};
use crate::mutex::{Lock, Mutex, Registry};
use crate::os::Vm;
use crate::sync::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bytes from one block to the next: all are aligned as any other block.
const STEP: usize = crate::units::MIN_ALIGN;
/// Blocks of a word of the bitmap.
const WORD: usize = u64::BITS as usize;

/// The blocks of no bytes.
pub struct Empty {
    taking: Mutex<()>,
    /// Where the range begins. 0 means not reserved yet.
    base: AtomicUsize,
    /// The word of the bitmap that the last block came from: the search goes on after it, so that an
    /// address comes back late.
    cursor: AtomicUsize,
    opened: AtomicUsize,
}

impl Empty {
    /// None.
    pub const fn new(locks: &mut Registry) -> Empty {
        Empty {
            taking: Mutex::new(locks, ()),
            base: AtomicUsize::new(0),
            cursor: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
        }
    }

    /// The word of the bitmap. A set bit is a live block.
    fn word<'a>(&self, meta: &'a Meta, index: usize) -> &'a AtomicU64 {
        // SAFETY: callers ask for words of the area that are open.
        unsafe { meta.start::<AtomicU64>(Area::Empty).add(index).as_ref() }
    }

    /// A block. `None` if there are too many, or no address space is left.
    pub fn take<O: Vm>(&self, supply: Supply<O>) -> Option<usize> {
        let _guard = self.taking.lock();
        if self.base.load(Relaxed) == 0 {
            let base = supply.os.reserve(EMPTY_BLOCKS * STEP)?;
            self.base.store(base.as_ptr() as usize, Relaxed);
        }
        let words = EMPTY_BLOCKS / WORD;
        let first = self.cursor.load(Relaxed);
        for index in (first..first + words).map(|index| index % words) {
            let mut opened = self.opened.load(Relaxed);
            if !supply
                .meta
                .open_to(supply.os, Area::Empty, &mut opened, (index + 1) * 8)
            {
                return None;
            }
            self.opened.store(opened, Relaxed);
            let word = self.word(supply.meta, index);
            let bit = (!word.load(Relaxed)).trailing_zeros() as usize;
            if bit < WORD {
                word.fetch_or(1 << bit, Relaxed);
                // A bit is used again only after all others of the bitmap that are free.
                self.cursor.store((index + 1) % words, Relaxed);
                return Some(self.base.load(Relaxed) + (index * WORD + bit) * STEP);
            }
        }
        None
    }

    /// Number of the block at `address`: `None` where it lies elsewhere, `Some(None)` where none begins.
    fn number(&self, address: usize) -> Option<Option<usize>> {
        let base = self.base.load(Relaxed);
        let offset = address.wrapping_sub(base);
        if base == 0 || offset >= EMPTY_BLOCKS * STEP {
            return None;
        }
        let number = offset / STEP;
        let known = offset.is_multiple_of(STEP) && number / WORD * 8 < self.opened.load(Relaxed);
        Some(known.then_some(number))
    }

    /// Whether `address` is a live block. `None` if it lies elsewhere.
    pub fn is_live(&self, meta: &Meta, address: usize) -> Option<bool> {
        let live =
            |number: usize| self.word(meta, number / WORD).load(Relaxed) >> (number % WORD) & 1;
        Some(
            self.number(address)?
                .is_some_and(|number| live(number) == 1),
        )
    }

    /// Frees the block at `address`: whether it was live. `None` where it lies elsewhere.
    pub fn give(&self, meta: &Meta, address: usize) -> Option<bool> {
        let clear = |number: usize| {
            let bit = 1 << (number % WORD);
            self.word(meta, number / WORD).fetch_and(!bit, Relaxed) & bit != 0
        };
        Some(self.number(address)?.is_some_and(clear))
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.taking.as_lock());
    }
}
