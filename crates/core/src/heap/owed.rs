//! What a heap that makes no system call owes the system.
//!
//! The guests' heap is used under a lock (see `allocator::guest`), and nobody is to wait for that while the system is at
//! work. Such a heap is *silent*. It does what needs no system call, and notes the rest:
//!
//! ```text
//!   needed                                noted      done by whoever had the lock, once it is given back
//!   pages or a header for a new slab      room       they are made ready, and the work is tried once more
//!   to give free pages back               released   those that are too many go back
//!   to look at the clock                  tick       what lay idle for an interval goes back
//!   to keep the stack of who allocates    sample     the sample is taken
//! ```

use super::Heap;
use crate::class::ClassId;
use core::cell::Cell;

/// The heap makes no system call.
const SILENT: u8 = 1;
/// A slab was released.
const RELEASED: u8 = 1 << 1;
/// One was at the heap's end, of which too much may be free now.
const AT_END: u8 = 1 << 2;
/// The clock is to be looked at.
const TICK: u8 = 1 << 3;
/// The slot that was handed out last is a sample of the heap profile.
const SAMPLE: u8 = 1 << 4;

/// Whether a heap is silent, and what it owes. All zero: it is not.
#[derive(Default)]
pub(super) struct Debts {
    bits: Cell<u8>,
    /// Pages and class of the slab that there was no room for. 0 pages mean that there was.
    pages: Cell<u8>,
    class: Cell<u8>,
}

impl Debts {
    fn has(&self, bit: u8) -> bool {
        self.bits.get() & bit != 0
    }

    fn add(&self, bits: u8) {
        self.bits.set(self.bits.get() | bits);
    }
}

/// What a heap has put off.
#[derive(Clone, Copy, Default)]
pub struct Owed {
    bits: u8,
    lacks: Option<(ClassId, usize)>,
}

impl Owed {
    /// The class and the pages of the slab that there was no room for.
    pub fn lacks(self) -> Option<(ClassId, usize)> {
        self.lacks
    }

    /// Whether a slab was released, and if so whether one at the heap's end was.
    pub fn released(self) -> Option<bool> {
        (self.bits & RELEASED != 0).then_some(self.bits & AT_END != 0)
    }

    /// Whether the clock is to be looked at.
    pub fn has_tick(self) -> bool {
        self.bits & TICK != 0
    }
}

impl Heap {
    /// From now on the heap makes no system call, or makes them at once again.
    pub(super) fn be_silent(&self, silent: bool) {
        if self.is_silent() != silent {
            self.debts.bits.set(if silent { SILENT } else { 0 });
        }
    }

    /// Whether the heap makes no system call.
    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        self.debts.has(SILENT)
    }

    /// A word that differs from heap to heap and from time to time: by chance enough to choose samples.
    pub fn own_word(&self) -> u64 {
        let place = core::ptr::from_ref(self) as u64;
        let count = self.bytes_allocated.get() ^ u64::from(self.ticks.get()) << 32;
        let word = (place ^ count).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word ^ word >> 32
    }

    /// There is no room for a slab of `pages` pages for slots of `class`.
    pub(super) fn owe_room(&self, class: ClassId, pages: usize) {
        self.debts.pages.set(pages as u8);
        self.debts.class.set(class.byte());
    }

    /// A slab was released, at the heap's `end` or not.
    pub(super) fn owe_release(&self, end: bool) {
        self.debts.add(RELEASED | if end { AT_END } else { 0 });
    }

    /// The clock is to be looked at.
    pub(super) fn owe_tick(&self) {
        self.debts.add(TICK);
    }

    /// The slot that is handed out next is a sample.
    pub(super) fn owe_sample(&self) {
        self.debts.add(SAMPLE);
    }

    /// Whether the slot that was handed out last is a sample.
    pub fn owes_sample(&self) -> bool {
        self.debts.has(SAMPLE)
    }

    /// What was put off since the last time.
    pub fn take_owed(&self) -> Owed {
        let debts = &self.debts;
        let (bits, pages) = (debts.bits.get(), debts.pages.take());
        debts.bits.set(bits & SILENT);
        let lacks = || (ClassId::new(debts.class.get().into()), pages.into());
        Owed {
            bits,
            lacks: (pages != 0).then(lacks),
        }
    }
}
