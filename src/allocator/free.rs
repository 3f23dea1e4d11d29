//! free: what the fast path does not do itself. These are slots of other threads' slabs, large blocks, and pointers to
//! nothing of ours.

use super::{heap_at_hand, Allocator, Region};
use crate::arch::{mark_free, Freed};
use crate::class::slot_at;
use crate::heap::{self, heap_of, locate, LARGE};
use crate::large::Found;
use crate::misuse::{Call, Misuse};
use crate::options::{self, Name};
use crate::os::{NextMalloc, Os};
use crate::remote::{self, Given, Next};
use crate::slab::SlabPtr;
use crate::sync::AtomicUsize;
use crate::sync::{Ordering::AcqRel, Ordering::Relaxed, Ordering::Release};
use crate::tls::{mark_busy, Thread, ThreadCache};
use core::ffi::c_void;
use core::ptr;

impl<O: Os> Allocator<O> {
    /// Gives a block back. Null is ignored. A block that is free already, or never was one, ends the program.
    #[inline(always)]
    pub fn free(&self, thread: impl Thread, block: *mut u8) {
        let hot = ptr::from_ref(&self.backend.pages.hot);
        // SAFETY: set before the first block was handed out, and never again.
        match unsafe { thread.free(hot.cast(), block as usize) } {
            Freed::Done => {}
            Freed::Event => self.free_event(block, thread.block()),
            Freed::Misuse => self.free_misuse(block),
            Freed::Elsewhere | Freed::Far => self.free_slow(block, thread.block()),
        }
    }

    /// The free counted its slab's `frees_left` down to zero.
    #[cold]
    #[inline(never)]
    fn free_event(&self, block: *mut u8, thread: &ThreadCache) {
        if let Some(slab) = self.backend.pages.slab_at(block as usize) {
            self.frees_used_up(slab, thread);
        }
    }

    #[cold]
    #[inline(never)]
    fn free_misuse(&self, block: *mut u8) {
        let addr = block as usize;
        if let Some((_, slab)) = self.backend.pages.find(addr) {
            self.misuse_in(addr, slab, Call::Free);
        }
    }

    /// A block that is not in a slab of the thread's own as it stands, or not in the first window.
    #[cold]
    #[inline(never)]
    fn free_slow(&self, block: *mut u8, thread: &ThreadCache) {
        if self.hard.is_on() {
            return self.free_hardened(block as usize, thread);
        }
        self.free_found(block, thread);
    }

    /// As `free_slow`, by default.
    #[inline(never)]
    fn free_found(&self, block: *mut u8, thread: &ThreadCache) {
        if block.is_null() {
            return;
        }
        let slab = match self.region(block as usize) {
            Region::Slab(slab) => slab,
            apart => return self.free_without_slab(thread, block as usize, apart),
        };
        let owner = slab.owner.load(Relaxed);
        if owner == thread.me.get() {
            self.free_own(thread, slab, block);
        } else if owner.is_open() {
            self.free_into_full(block, slab, thread);
        } else {
            self.free_in_other(block, slab, thread);
        }
    }

    /// Frees a block in a slab of the thread's own.
    #[inline(always)]
    pub(crate) fn free_own(&self, thread: &ThreadCache, slab: SlabPtr, block: *mut u8) {
        // SAFETY: the thread owns the slab, and the block lies in one of its pages.
        match unsafe { mark_free(slab.as_ptr().cast(), block as usize - slab.base()) } {
            Freed::Event => self.frees_used_up(slab, thread),
            Freed::Misuse => self.misuse_in(block as usize, slab, Call::Free),
            _ => {}
        }
    }

    #[cold]
    #[inline(never)]
    fn frees_used_up(&self, slab: SlabPtr, thread: &ThreadCache) {
        let mut done = false;
        if !self.is_interrupted(thread) {
            // Perhaps all slabs are requeued then, this one among them.
            self.notice_fork(thread);
            if let Some(heap) = heap_of(thread) {
                mark_busy!(thread => busy);
                let inside = heap.come_in(busy);
                // A signal handler may have requeued it meanwhile, and even given it back.
                done = inside.is_some()
                    && (!heap.is_spent(slab) || heap.requeue_fast(&self.backend, slab));
            }
            if done {
                return self.stir();
            }
        }
        let requeued = self.with_heap(thread, |_, heap| {
            if heap.is_spent(slab) {
                heap.requeue(&self.backend, slab)?;
            }
            Ok(Some(()))
        });
        if requeued.is_none() {
            // In a signal handler that interrupted a slow path: the heap finds the slab in its queue.
            slab.frees_left.set(1);
            if let Next::Notify(owner) = remote::raise_pending(slab) {
                self.backend.heaps.notify(&self.backend, owner, slab);
            }
        }
        self.stir();
    }

    /// Frees a block that lies in no slab, but in this other region.
    #[cold]
    #[inline(never)]
    pub(super) fn free_without_slab(&self, thread: &ThreadCache, addr: usize, region: Region) {
        if let Region::Nested = region {
            return self.free_nested(addr);
        }
        if self.is_interrupted(thread) {
            return self.put_off(addr);
        }
        self.notice_fork(thread);
        self.free_put_off(thread);
        if let Region::Sampled = region {
            return self.free_sampled(thread, addr);
        }
        if self.hard.is_on() {
            return self.free_apart_hardened(thread, addr);
        }
        self.free_large(thread, addr);
    }

    fn free_large(&self, thread: &ThreadCache, addr: usize) {
        let found = if self.is_started() {
            mark_busy!(thread);
            let backend = &self.backend;
            backend.profile.end_large(&backend.meta, addr);
            let found = backend.large.unmap(&backend.os, &backend.meta, addr);
            if let (Found::Live(block), Some(heap)) = (found, heap_of(thread)) {
                heap.note_returned(LARGE, block.bytes);
            }
            found
        } else {
            Found::Unknown
        };
        match found {
            Found::Live(_) => self.stir(),
            Found::Freed(block) => self.misuse(&Misuse::Dead {
                call: Call::Free,
                addr,
                slot: 0,
                size: block.bytes,
            }),
            Found::Unknown => self.free_foreign(addr),
        }
    }

    /// A block of whoever interrupted a slow path: by any thread, with no lock.
    #[cold]
    pub(super) fn free_nested(&self, addr: usize) {
        if let Err(misuse) = self.nested.give(addr) {
            self.misuse(&misuse);
        }
    }

    /// For a signal handler that interrupted a slow path, which may hold the lock of large blocks. Notes that the next
    /// slow path must free the block. Where too many are noted, it stays live for good.
    #[cold]
    pub(super) fn put_off(&self, addr: usize) {
        let place = |place: &&AtomicUsize| place.compare_exchange(0, addr, AcqRel, Relaxed).is_ok();
        if self.put_off.iter().find(place).is_some() {
            self.any_put_off.store(1, Release);
        }
    }

    /// Frees what signal handlers have put off.
    #[inline]
    pub(super) fn free_put_off(&self, thread: &ThreadCache) {
        if self.any_put_off.load(Relaxed) != 0 {
            self.any_put_off.store(0, Relaxed);
            for place in &self.put_off {
                let addr = place.swap(0, AcqRel);
                if addr != 0 {
                    self.free_without_slab(thread, addr, self.region_without_slab(addr));
                }
            }
        }
    }

    /// A pointer that is nothing of ours: the option `foreign` says what follows.
    #[cold]
    pub(super) fn free_foreign(&self, addr: usize) {
        if let Some(next) = self.next_malloc(addr, Call::Free) {
            // SAFETY: the caller's, who says that the pointer is some malloc's block.
            unsafe { (next.free)(addr as *mut c_void) }
        }
    }

    /// The malloc that a pointer which is not ours is for. Where it is for none, what the options say of such a pointer
    /// has been done.
    pub(super) fn next_malloc(&self, addr: usize, call: Call) -> Option<NextMalloc> {
        let foreign = self.backend.options.get(Name::Foreign);
        if foreign == options::FOREIGN_IGNORED {
            return None;
        }
        let forwarded = foreign == options::FOREIGN_FORWARDED;
        let next = forwarded.then(|| self.backend.os.next_malloc()).flatten();
        if next.is_none() {
            self.misuse(&self.misuse_without_slab(addr, call));
        }
        next
    }

    /// What is wrong with a pointer to nothing of ours: it may have been a block whose slab has gone back.
    #[cold]
    fn misuse_without_slab(&self, addr: usize, call: Call) -> Misuse {
        match self.backend.pages.slab_gone_from(addr) {
            Some((slab, slot)) => Misuse::Dead {
                call,
                addr,
                slot,
                size: slab.size(),
            },
            None => Misuse::Unknown { call, addr },
        }
    }

    /// A block in a full slab, whose first free slot this may be.
    #[inline(never)]
    fn free_into_full(&self, block: *mut u8, slab: SlabPtr, thread: &ThreadCache) {
        let (slot, exact) = slot_at(block as usize - slab.base(), slab.recip.load(Relaxed));
        let mut done = false;
        if let Some(heap) = heap_at_hand(thread).filter(|_| exact) {
            if slot < slab.slots() && !self.has_forked() {
                mark_busy!(thread => busy);
                let inside = heap.come_in(busy);
                done = inside.is_some() && heap.free_into_full(&self.backend, slab, slot);
            }
        }
        if done {
            return self.stir();
        }
        self.free_in_other(block, slab, thread);
    }

    /// A block in a slab that is not the thread's own as it stands.
    #[inline(never)]
    fn free_in_other(&self, block: *mut u8, slab: SlabPtr, thread: &ThreadCache) {
        slab.prefetch_remote();
        let slot = match locate(slab, block as usize, Call::Free) {
            Ok(slot) => slot,
            Err(misuse) => return self.misuse(&misuse),
        };
        let me = thread.me.get();
        // A thread without a heap is not counted yet, and a fork would take the process for single-threaded. One that
        // is late has the shared heap, whose slabs it frees into under the lock.
        if me.is_none() || self.has_forked() {
            return self.free_elsewhere(slab, slot, thread);
        }
        match remote::free_remote_fast(slab, slot, me) {
            Given::Marked(Next::Done) => {}
            Given::Marked(next) => self.tell_owner(slab, next, thread),
            Given::Dead => self.misuse(&heap::dead(slab, slot)),
            Given::Elsewhere => self.free_elsewhere(slab, slot, thread),
        }
    }

    /// After a remote free that is the first one since its slab was collected.
    #[cold]
    #[inline(never)]
    fn tell_owner(&self, slab: SlabPtr, next: Next, thread: &ThreadCache) {
        match next {
            Next::Done => {}
            Next::Notify(owner) => {
                self.backend.heaps.notify(&self.backend, owner, slab);
                self.stir();
            }
            Next::Claim => {
                let claimed = self.with_heap(thread, |_, heap| {
                    heap.notify(&self.backend, slab)?;
                    Ok(Some(()))
                });
                if claimed.is_none() {
                    self.claim_later(slab, thread);
                }
            }
        }
    }

    /// A slot of a slab that nobody owns, or the thread itself with remote frees waiting.
    #[cold]
    #[inline(never)]
    fn free_elsewhere(&self, slab: SlabPtr, slot: usize, thread: &ThreadCache) {
        let freed = self.with_heap(thread, |_, heap| {
            Ok(Some(heap.free_elsewhere(&self.backend, slab, slot)))
        });
        match freed {
            Some(Ok(())) => self.stir(),
            Some(Err(misuse)) => self.misuse(&misuse),
            None => self.free_without_heap(slab, slot, thread),
        }
    }

    /// For a signal handler that interrupted a slow path of this thread, and where there is no memory for a heap. Marks
    /// the free and takes no lock.
    pub(super) fn free_without_heap(&self, slab: SlabPtr, slot: usize, thread: &ThreadCache) {
        if !remote::free_remote(slab, slot) {
            return self.misuse(&heap::dead(slab, slot));
        }
        match remote::raise_pending(slab) {
            Next::Done => {}
            Next::Notify(owner) => self.backend.heaps.notify(&self.backend, owner, slab),
            Next::Claim => self.claim_later(slab, thread),
        }
    }

    /// In a signal handler that interrupted a slow path: the thread's heap finds the slab in its queue, and claims
    /// it if nobody was faster. Where there is no heap, whoever is refused memory looks for it.
    fn claim_later(&self, slab: SlabPtr, thread: &ThreadCache) {
        let heap = self.heap_in_use(thread);
        if !heap.is_some_and(|heap| heap.look_later(slab)) {
            self.backend.abandoned.stray();
        }
    }

    #[cold]
    #[inline(never)]
    fn misuse_in(&self, addr: usize, slab: SlabPtr, call: Call) {
        let misuse = match locate(slab, addr, call) {
            Ok(slot) => Misuse::Dead {
                call,
                addr,
                slot,
                size: slab.size(),
            },
            Err(misuse) => misuse,
        };
        self.misuse(&misuse);
    }
}
