//! First-class heaps ("arenas" inside): heaps that no thread owns, used under a lock of their own.
//!
//! ```text
//!   | heap 0 | heap 1 | heap 2 | ...     thread heaps; one may serve an arena instead
//!   | lock, entries | ...                the arenas' own part, by the same number
//! ```
//!
//! An arena's slabs never change hands: none is disowned, abandoned or adopted, so that all of its
//! objects can go at once. A handle is the heap's owner word, which is never used again: a handle of a
//! destroyed arena is recognised.

use super::{Ground, Heap};
use crate::meta::{Area, ARENA_BYTES};
use crate::misuse::Misuse;
use crate::mutex::{Guard, Lock, Mutex, Registry};
use crate::os::Os;
use crate::remote::{self, HEAPS, PENDING};
use crate::slab::SlabPtr;
use crate::sync::AtomicUsize;
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::tls::{Local, Phase};

/// What an arena has beside its heap. Type-stable; all zero until used.
#[repr(C, align(64))]
pub struct Arena {
    local: Mutex<Local>,
}

static_assertions::const_assert!(core::mem::size_of::<Arena>() <= ARENA_BYTES);
static_assertions::const_assert!(ARENA_BYTES.is_multiple_of(core::mem::align_of::<Arena>()));

impl Arena {
    /// The entries; keeps other threads out.
    pub fn lock(&self) -> Guard<'_, Local> {
        self.local.lock()
    }
}

/// The arenas of the process.
pub struct Arenas {
    /// Bytes of the area that are open.
    opened: Mutex<usize>,
    /// The same, for reading.
    usable: AtomicUsize,
}

impl Arenas {
    /// No arenas.
    pub const fn new(locks: &mut Registry) -> Arenas {
        Arenas {
            opened: Mutex::new(locks, 0),
            usable: AtomicUsize::new(0),
        }
    }

    fn at<'a, O: Os>(&self, ground: &'a Ground<O>, index: usize) -> &'a Arena {
        let start = ground.meta.start::<u8>(Area::Arenas);
        // SAFETY: callers name an index whose memory is open; zero is a valid arena; never unmapped.
        unsafe { start.byte_add(index * ARENA_BYTES).cast::<Arena>().as_ref() }
    }

    fn open<O: Os>(&self, ground: &Ground<O>, index: usize) -> bool {
        let opened = &mut *self.opened.lock();
        let end = (index + 1) * ARENA_BYTES;
        let done = ground.meta.open_to(&ground.os, Area::Arenas, opened, end);
        self.usable.store(*opened, Release);
        done
    }

    /// A new arena's handle. `None` where memory has run out or there are too many heaps.
    pub fn create<O: Os>(&self, ground: &Ground<O>) -> Option<u64> {
        let heap = ground.heaps.unused(ground)?;
        let index = heap.index.get() as usize;
        if !self.open(ground, index) {
            ground.heaps.put_away(heap);
            return None;
        }
        let arena = self.at(ground, index);
        let local = arena.lock();
        local.reset();
        local.phase.set(Phase::Running);
        heap.arena.set(true);
        ground.heaps.begin(ground, heap, &local);
        Some(heap.me())
    }

    /// The arena and the heap of `handle`, if it is an arena's now. To be asked again under the arena's
    /// lock.
    pub fn of<'a, O: Os>(
        &self,
        ground: &'a Ground<O>,
        handle: u64,
    ) -> Option<(&'a Arena, &'a Heap)> {
        let index = remote::heap_index(handle);
        let usable = self.usable.load(Acquire);
        if !remote::is_heap(handle) || index >= HEAPS || (index + 1) * ARENA_BYTES > usable {
            return None;
        }
        let heap = ground.heaps.at(ground, index);
        (heap.me() == handle && heap.arena.get()).then(|| (self.at(ground, index), heap))
    }

    /// Whether the block at `addr` is of the arena `handle`.
    pub fn holds<O: Os>(&self, ground: &Ground<O>, handle: u64, addr: usize) -> bool {
        match ground.pages.find(addr) {
            Some((_, slab)) => slab.owner.load(Acquire) & !PENDING == handle,
            None => ground.large.owner_of(addr) == handle,
        }
    }

    /// Ends an arena: all that it holds is given back. Under its lock.
    pub fn destroy<O: Os>(
        &self,
        ground: &Ground<O>,
        heap: &Heap,
        local: &Local,
    ) -> Result<(), Misuse> {
        let outcome = heap.part_with_all(ground, |slab| heap.drop_slab(ground, slab));
        ground
            .large
            .unmap_all_of(&ground.os, &ground.meta, heap.me());
        heap.arena.set(false);
        ground.heaps.give(ground, heap, local);
        outcome
    }

    /// In a fork child: the arena of `heap` is as if nobody used it; its slabs are to be listed again.
    pub(super) fn repair<O: Os>(&self, ground: &Ground<O>, heap: &Heap) {
        let arena = self.at(ground, heap.index.get() as usize);
        arena.local.as_lock().reset();
        arena.lock().busy.set(0);
    }

    /// Shows the lock of those who make a first-class heap.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.opened.as_lock());
    }
}

impl Heap {
    /// Frees every slot of `slab`, and gives it back.
    fn drop_slab<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        self.unlist(ground, slab);
        self.collect(slab)?;
        (0..slab.words()).for_each(|word| slab.free_word(word).store(u64::MAX, Relaxed));
        self.tell(slab, slab.slots());
        self.release(ground, slab)
    }
}
