//! Owner words: who may use a slab's first cache line. `remote` has the transitions.
//!
//! ```text
//!   63     62    61 ...      21 20 ...  1  0
//!   arena  full  generation    index      pending      a heap's, or full and owned by that heap last
//!   0      full  0             class how               nobody's: on the process's list of the class, or full and shared
//! ```

use crate::class::ClassId;
use crate::sync::{AtomicU64, Ordering};
use core::num::NonZeroU32;

/// Set in an owner word while remote frees wait to be collected.
pub const PENDING: u64 = 1;
/// Owner word of a header that stands for no slab, and of the dummy that foreign pages lead to.
pub const RELEASED: Owner = Owner(2);
/// Set in an owner word while the slab is full, nobody's, and on no list. The rest of the word says who owned it
/// last, if anybody. Never together with `PENDING`.
pub const FULL: u64 = 1 << 62;
/// Set in the owner word of a first-class heap.
pub const ARENA: u64 = 1 << 63;
static_assertions::const_assert!(FULL & ARENA == 0);

/// Bits of a heap's index in an owner word.
const INDEX_BITS: u32 = 20;
/// The most heaps at one time.
pub const HEAPS: usize = 1 << INDEX_BITS;
/// Bits of an owner word below the class, where the slab is on a list.
const LIST_BITS: u32 = 4;

/// How a slab without an owner waits on the process's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Listing {
    /// Its owner left it when it exited: who frees into it claims it, under the list's lock.
    Listed = 4,
    /// Several threads free into it: who does marks the slot, as in another thread's slab.
    Shared = 6,
    /// As `Shared`, with so many free slots that others serve first, until it is empty or no other has any.
    Draining = 8,
}

/// Number of a heap. It is kept as one more, so that `Option<HeapId>` takes no room, and zeros are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct HeapId(NonZeroU32);

impl HeapId {
    /// The heap numbered `index`, modulo [`HEAPS`].
    #[inline]
    pub const fn new(index: usize) -> HeapId {
        HeapId(NonZeroU32::MIN.saturating_add((index & (HEAPS - 1)) as u32))
    }

    /// The heap's index into tables of heaps: below [`HEAPS`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// An owner word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Owner(u64);

impl Owner {
    /// Nobody: of a thread or a block that no heap is behind.
    pub const NONE: Owner = Owner(0);
    /// Of a full slab that no heap owned last.
    pub const FULL: Owner = Owner(FULL);

    /// That of the heap numbered `index` in its `generation` >= 1, never used again.
    #[inline]
    pub const fn of_heap(index: usize, generation: u64) -> Owner {
        Owner((generation << INDEX_BITS | index as u64) << 1)
    }

    /// As [`Owner::of_heap`], of a first-class heap.
    pub const fn of_arena(index: usize, generation: u64) -> Owner {
        Owner(ARENA | Owner::of_heap(index, generation).0)
    }

    /// That of a slab of `class` on the process's list of that class. The word names the class, so that whoever reads
    /// it knows which lock keeps the slab there.
    pub const fn on_list(how: Listing, class: ClassId) -> Owner {
        Owner((class.index() as u64) << LIST_BITS | how as u64)
    }

    /// That of a full slab of `class` that several threads free into: the first who does puts it on the process's list
    /// of that class, and does not claim it.
    pub const fn full_shared(class: ClassId) -> Owner {
        Owner::on_list(Listing::Shared, class).with_full()
    }

    /// The owner of this word, as a header holds it.
    #[inline]
    pub const fn from_word(word: u64) -> Owner {
        Owner(word)
    }

    /// The word, as a header holds it.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Whether it is no heap's, nor a slab's.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether it is some heap's.
    #[inline]
    pub const fn is_heap(self) -> bool {
        self.0 >> (INDEX_BITS + 1) != 0 && self.0 & FULL == 0
    }

    /// Whether it is a first-class heap's.
    #[inline(always)]
    pub const fn is_arena(self) -> bool {
        self.0 & ARENA != 0
    }

    /// The heap's index, if it is some heap's.
    #[inline]
    pub const fn index(self) -> usize {
        (self.0 >> 1) as usize & (HEAPS - 1)
    }

    /// The heap, if it is some heap's.
    #[inline]
    pub const fn heap(self) -> HeapId {
        HeapId::new(self.index())
    }

    /// Whether the slab is the heap's whose own word is `me`, with remote frees waiting or not.
    #[inline(always)]
    pub const fn is_of(self, me: Owner) -> bool {
        self.without_pending().0 == me.0
    }

    /// Whether remote frees wait to be collected.
    #[inline(always)]
    pub const fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    /// The same with remote frees waiting.
    #[inline(always)]
    pub const fn with_pending(self) -> Owner {
        Owner(self.0 | PENDING)
    }

    /// The same with none.
    #[inline(always)]
    pub const fn without_pending(self) -> Owner {
        Owner(self.0 & !PENDING)
    }

    /// Whether the slab is full and nobody's.
    #[inline(always)]
    pub const fn is_full(self) -> bool {
        self.0 & FULL != 0
    }

    /// That of a full slab which this one owned last.
    #[inline(always)]
    pub const fn with_full(self) -> Owner {
        Owner(self.0 | FULL)
    }

    /// Who owned a full slab last, or how it is to be listed.
    #[inline(always)]
    pub const fn without_full(self) -> Owner {
        Owner(self.0 & !FULL)
    }

    /// The class on whose list the slab is, if it is on one.
    #[inline]
    pub const fn list(self) -> Option<ClassId> {
        if self.0 >> (INDEX_BITS + 1) == 0 && self.listing().is_some() {
            return Some(ClassId::new((self.0 >> LIST_BITS) as usize));
        }
        None
    }

    /// How the slab, which is on the process's list, is listed.
    #[inline]
    pub const fn listing(self) -> Option<Listing> {
        const LISTED: u64 = Listing::Listed as u64;
        const SHARED: u64 = Listing::Shared as u64;
        const DRAINING: u64 = Listing::Draining as u64;
        match self.0 & ((1 << LIST_BITS) - 1) {
            LISTED => Some(Listing::Listed),
            SHARED => Some(Listing::Shared),
            DRAINING => Some(Listing::Draining),
            _ => None,
        }
    }

    /// Whether several threads free into the slab, which is on the process's list, or full.
    #[inline]
    pub const fn is_shared(self) -> bool {
        let listing = self.listing();
        self.without_full().0 >> (INDEX_BITS + 1) == 0
            && matches!(listing, Some(Listing::Shared | Listing::Draining))
    }

    /// Whether the slab is full, and its first free slot makes it the freeing thread's.
    #[inline]
    pub const fn is_open(self) -> bool {
        self.is_full() && !self.is_shared()
    }

    /// Whether the slab is full, and with its first free slot it goes on the process's list.
    #[inline]
    pub const fn is_full_shared(self) -> bool {
        self.is_full() && self.is_shared()
    }

    /// Whether the slab has no owner, and can be claimed.
    #[inline]
    pub const fn is_nobodys(self) -> bool {
        self.is_full() || self.list().is_some()
    }
}

/// An owner word that threads share.
#[repr(transparent)]
pub struct AtomicOwner(AtomicU64);

impl AtomicOwner {
    /// Nobody's.
    pub fn none() -> AtomicOwner {
        AtomicOwner(AtomicU64::new(0))
    }

    /// As [`AtomicU64::load`].
    #[inline(always)]
    pub fn load(&self, order: Ordering) -> Owner {
        Owner(self.0.load(order))
    }

    /// As [`AtomicU64::store`].
    #[inline(always)]
    pub fn store(&self, owner: Owner, order: Ordering) {
        self.0.store(owner.0, order);
    }

    /// As [`AtomicU64::compare_exchange`].
    #[inline(always)]
    pub fn compare_exchange(
        &self,
        current: Owner,
        new: Owner,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Owner, Owner> {
        let changed = self.0.compare_exchange(current.0, new.0, success, failure);
        changed.map(Owner).map_err(Owner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_owner_word_names_its_heap_and_no_heap_is_zeros() {
        for index in [0, 1, HEAPS - 1] {
            let id = HeapId::new(index);
            assert_eq!(id.index(), index);
            assert_eq!(Owner::of_heap(index, 7).heap(), id);
            assert_eq!(Owner::of_arena(index, 7).heap(), id);
        }
        assert_eq!(
            core::mem::size_of::<Option<HeapId>>(),
            core::mem::size_of::<u32>()
        );
    }
}
