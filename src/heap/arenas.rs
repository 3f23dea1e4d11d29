//! First-class heaps ("arenas" inside): heaps that no thread owns, used under a lock of their own.
//!
//! ```text
//!   | heap 0 | heap 1 | heap 2 | ...     thread heaps; one may serve an arena instead
//!   | lock, caches | ...                the arenas' own part, by the same number
//! ```
//!
//! An arena's slabs never change hands: none is opened, abandoned or adopted, so that all of its objects can go at
//! once. A handle is a random number with the heap's index in it. So a destroyed handle is recognised, and an invented
//! one too, except for one in 2^42.

use super::{Backend, Heap};
use crate::meta::{Area, ARENA_BYTES};
use crate::misuse::Misuse;
use crate::mutex::{Guard, Lock, Mutex, Registry};
use crate::os::Os;
use crate::owner::{Owner, HEAPS};
use crate::slab::SlabPtr;
use crate::sync::{AtomicU64, AtomicUsize};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::tls::{Phase, ThreadCache};

/// What an arena has beside its heap. Type-stable. All zero until used.
#[repr(C, align(64))]
pub struct Arena {
    local: Mutex<ThreadCache>,
    /// 0: no heap.
    handle: AtomicU64,
}

/// A handle of the heap numbered `index`. Bit 63 without bit 62: no address, so that who takes it for a pointer
/// faults.
fn handle_of(index: usize, random: u64) -> u64 {
    let place = HEAPS as u64 - 1;
    (random & !place & !(1 << 62)) | 1 << 63 | index as u64
}

static_assertions::const_assert!(core::mem::size_of::<Arena>() <= ARENA_BYTES);
static_assertions::const_assert!(ARENA_BYTES.is_multiple_of(core::mem::align_of::<Arena>()));

impl Arena {
    /// The caches. Keeps other threads out.
    pub fn lock(&self) -> Guard<'_, ThreadCache> {
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

    fn at<'a, O: Os>(&self, backend: &'a Backend<O>, index: usize) -> &'a Arena {
        let start = backend.meta.start::<u8>(Area::Arenas);
        // SAFETY: callers name an index whose memory is open. Zeros are a valid arena, and the memory is never
        // unmapped.
        unsafe { start.byte_add(index * ARENA_BYTES).cast::<Arena>().as_ref() }
    }

    fn open<O: Os>(&self, backend: &Backend<O>, index: usize) -> bool {
        let opened = &mut *self.opened.lock();
        let end = (index + 1) * ARENA_BYTES;
        let done = backend.meta.open_to(&backend.os, Area::Arenas, opened, end);
        self.usable.store(*opened, Release);
        done
    }

    /// A new arena's handle. `None` where memory has run out or there are too many heaps. `begin` begins the heap on a
    /// block, for the arena's own. False if it cannot.
    pub fn create<O: Os>(
        &self,
        backend: &Backend<O>,
        begin: impl FnOnce(&Heap, &ThreadCache) -> bool,
    ) -> Option<u64> {
        backend.heaps.count();
        let heap = backend.heaps.unused(backend)?;
        let index = heap.index.get() as usize;
        if !self.open(backend, index) {
            backend.heaps.put_away(heap);
            return None;
        }
        let arena = self.at(backend, index);
        let local = arena.lock();
        local.reset();
        local.phase.set(Phase::Arena);
        heap.arena.set(true);
        if !begin(heap, &local) {
            heap.arena.set(false);
            backend.heaps.put_away(heap);
            return None;
        }
        let handle = handle_of(index, backend.os.random());
        arena.handle.store(handle, Release);
        Some(handle)
    }

    /// The arena and the heap of `handle`, if it is an arena's now. To be asked again under the arena's
    /// lock.
    pub fn of<'a, O: Os>(
        &self,
        backend: &'a Backend<O>,
        handle: u64,
    ) -> Option<(&'a Arena, &'a Heap)> {
        let index = handle as usize & (HEAPS - 1);
        if (index + 1) * ARENA_BYTES > self.usable.load(Acquire) {
            return None;
        }
        let arena = self.at(backend, index);
        let known = handle != 0 && arena.handle.load(Acquire) == handle;
        // Only the number of a heap that was made is in a handle.
        known.then(|| (arena, backend.heaps.at(backend, index)))
    }

    /// The arena and the heap of the owner word of a slab, or of a large block, if that is an arena's.
    #[inline]
    pub fn of_owner<'a, O: Os>(
        &self,
        backend: &'a Backend<O>,
        owner: Owner,
    ) -> Option<(&'a Arena, &'a Heap)> {
        if !owner.is_arena() {
            return None;
        }
        let index = owner.index();
        let heap = backend.heaps.at(backend, index);
        (heap.me() == owner && heap.arena.get()).then(|| (self.at(backend, index), heap))
    }

    /// Whether the block at `addr` is of the arena `handle`.
    pub fn holds<O: Os>(
        &self,
        backend: &Backend<O>,
        handle: u64,
        slab: Option<SlabPtr>,
        addr: usize,
    ) -> bool {
        let Some((_, heap)) = self.of(backend, handle) else {
            return false;
        };
        match slab {
            Some(slab) => slab.owner.load(Acquire).is_of(heap.me()),
            None => backend.large.owner_of(addr) == heap.me(),
        }
    }

    /// Ends an arena: all that it holds is given back. Under its lock. `caches` is the block that the heap works
    /// on, `end_slots` is called with each slab before its slots become free, and `free` frees a large block.
    pub fn destroy<O: Os>(
        &self,
        backend: &Backend<O>,
        (arena, heap): (&Arena, &Heap),
        caches: &ThreadCache,
        end_slots: impl Fn(SlabPtr),
        free: impl Fn(usize),
    ) -> Result<(), Misuse> {
        arena.handle.store(0, Release);
        let outcome = heap.part_with_all(backend, |slab| heap.drop_slab(backend, slab, &end_slots));
        backend.large.each_of(heap.me(), free);
        heap.arena.set(false);
        backend.heaps.give(backend, heap, caches);
        outcome
    }

    /// In a fork child: the arena's part of heap `index` is as if nobody used it. `lives` tells whether the heap is an
    /// arena's. If not, a thread of the parent's may have been ending it or making it, under its lock.
    pub(super) fn repair<O: Os>(&self, backend: &Backend<O>, index: usize, lives: bool) {
        if (index + 1) * ARENA_BYTES > self.usable.load(Acquire) {
            return;
        }
        let arena = self.at(backend, index);
        arena.local.as_lock().reset();
        arena.lock().busy.set(0);
        if !lives {
            arena.handle.store(0, Release);
        }
    }

    /// Shows the lock of those who make a first-class heap.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.opened.as_lock());
    }
}

impl Heap {
    /// Frees every slot of `slab`, and gives it back.
    fn drop_slab<O: Os>(
        &self,
        backend: &Backend<O>,
        slab: SlabPtr,
        end_slots: impl Fn(SlabPtr),
    ) -> Result<(), Misuse> {
        self.unlist(backend, slab);
        self.collect(slab)?;
        end_slots(slab);
        (0..slab.words()).for_each(|word| slab.free_word(word).store(u64::MAX, Relaxed));
        self.release(backend, slab)
    }
}
