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

use super::{Backend, Heap, HeapRef};
use crate::meta::{Area, ARENA_BYTES};
use crate::misuse::Misuse;
use crate::mutex::{Guard, Lock, Mutex, Registry};
use crate::os::Os;
use crate::owner::{HeapId, Owner, HEAPS};
use crate::slab::SlabPtr;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::tls::{Phase, ThreadCache};

/// What an arena has beside its heap. Type-stable. All zero until used.
#[repr(C, align(64))]
pub struct Arena {
    local: Mutex<ThreadCache>,
    /// 0: no heap.
    handle: AtomicU64,
    /// Non-zero in a fork child where another thread of the parent was in the middle of a call of the heap.
    cut_off: AtomicU32,
}

/// Bytes of the area of arenas up to the end of that of the heap `id`.
fn end_of(id: HeapId) -> usize {
    (id.index() + 1) * ARENA_BYTES
}

/// A handle of the heap `id`. Bit 63 without bit 62: no address, so that who takes it for a pointer
/// faults.
fn handle_of(id: HeapId, random: u64) -> u64 {
    let place = HEAPS as u64 - 1;
    (random & !place & !(1 << 62)) | 1 << 63 | id.index() as u64
}

static_assertions::const_assert!(core::mem::size_of::<Arena>() <= ARENA_BYTES);
static_assertions::const_assert!(ARENA_BYTES.is_multiple_of(core::mem::align_of::<Arena>()));

impl Arena {
    /// The caches. Keeps other threads out.
    pub fn lock(&self) -> Guard<'_, ThreadCache> {
        self.local.lock()
    }

    /// Whether a call of the heap was cut off by a fork: a block of it may be half made.
    pub fn was_cut_off(&self) -> bool {
        self.cut_off.load(Relaxed) != 0
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

    /// Shows the lock of those who make a first-class heap.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.opened.as_lock());
    }
}

impl<O: Os> Backend<O> {
    fn arena_at(&self, id: HeapId) -> &Arena {
        let start = self.meta.start::<u8>(Area::Arenas);
        // SAFETY: callers name a heap whose arena's memory is open. Zeros are a valid arena, and the memory is never
        // unmapped.
        unsafe {
            start
                .byte_add(id.index() * ARENA_BYTES)
                .cast::<Arena>()
                .as_ref()
        }
    }

    fn open_arena(&self, id: HeapId) -> bool {
        let opened = &mut *self.arenas.opened.lock();
        let end = end_of(id);
        let done = self.meta.open_to(&self.os, Area::Arenas, opened, end);
        self.arenas.usable.store(*opened, Release);
        done
    }

    /// A new arena's handle. `None` where memory has run out or there are too many heaps. `begin` begins the heap on a
    /// block, for the arena's own. False if it cannot.
    pub fn create_arena(&self, begin: impl FnOnce(&Heap, &ThreadCache) -> bool) -> Option<u64> {
        self.heaps.count();
        let heap = self.unused_heap()?;
        let id = heap.id();
        if !self.open_arena(id) {
            self.heaps.put_away(heap);
            return None;
        }
        let arena = self.arena_at(id);
        let local = arena.lock();
        arena.cut_off.store(0, Relaxed);
        local.reset();
        local.phase.set(Phase::Arena);
        heap.arena.set(true);
        if !begin(heap, &local) {
            heap.arena.set(false);
            self.heaps.put_away(heap);
            return None;
        }
        let handle = handle_of(id, self.os.random());
        arena.handle.store(handle, Release);
        Some(handle)
    }

    /// The arena and the heap of `handle`, if it is an arena's now. To be asked again under the arena's
    /// lock.
    pub fn arena(&self, handle: u64) -> Option<(&Arena, &Heap)> {
        let id = HeapId::new(handle as usize);
        if end_of(id) > self.arenas.usable.load(Acquire) {
            return None;
        }
        let arena = self.arena_at(id);
        let known = handle != 0 && arena.handle.load(Acquire) == handle;
        // Only the number of a heap that was made is in a handle.
        known.then(|| (arena, self.heap_at(id)))
    }

    /// The arena and the heap of the owner word of a slab, or of a large block, if that is an arena's.
    #[inline]
    pub fn arena_of(&self, owner: Owner) -> Option<(&Arena, &Heap)> {
        if !owner.is_arena() {
            return None;
        }
        let id = owner.heap();
        let heap = self.heap_at(id);
        (heap.me() == owner && heap.arena.get()).then(|| (self.arena_at(id), heap))
    }

    /// Whether the block at `addr` is of the arena `handle`.
    pub fn arena_holds(&self, handle: u64, slab: Option<SlabPtr>, addr: usize) -> bool {
        let Some((_, heap)) = self.arena(handle) else {
            return false;
        };
        match slab {
            Some(slab) => slab.owner.load(Acquire).is_of(heap.me()),
            None => self.large.owner_of(addr) == heap.me(),
        }
    }

    /// Ends an arena: all that it holds is given back. Under its lock. `caches` is the block that the heap works
    /// on, `end_slots` is called with each slab before its slots become free, and `free` frees a large block.
    pub fn destroy_arena(
        &self,
        (arena, heap): (&Arena, &Heap),
        caches: &ThreadCache,
        end_slots: impl Fn(SlabPtr),
        free: impl Fn(usize),
    ) -> Result<(), Misuse> {
        arena.handle.store(0, Release);
        let outcome = heap
            .on(self)
            .part_with_all(|slab| heap.on(self).drop_slab(slab, &end_slots));
        self.large.each_of(heap.me(), free);
        heap.arena.set(false);
        self.take_back(heap, caches);
        outcome
    }

    /// In a fork child: the arena's part of the heap `id` is as if nobody used it. `lives` tells whether the heap is an
    /// arena's. If not, a thread of the parent's may have been ending it or making it, under its lock.
    pub(super) fn repair_arena(&self, id: HeapId, lives: bool) {
        if end_of(id) > self.arenas.usable.load(Acquire) {
            return;
        }
        let arena = self.arena_at(id);
        if !arena.local.as_lock().is_free() {
            arena.cut_off.store(1, Relaxed);
        }
        arena.local.as_lock().reset();
        arena.lock().busy.set(0);
        if !lives {
            arena.handle.store(0, Release);
        }
    }
}

impl<O: Os> HeapRef<'_, O> {
    /// Frees every slot of `slab`, and gives it back.
    fn drop_slab(self, slab: SlabPtr, end_slots: impl Fn(SlabPtr)) -> Result<(), Misuse> {
        self.unlist(slab);
        self.collect(slab)?;
        end_slots(slab);
        (0..slab.words()).for_each(|word| slab.free_word(word).store(u64::MAX, Relaxed));
        self.release(slab)
    }
}
