//! First-class heaps: create one, allocate from it on any thread, and destroy it with all its objects.
//!
//! Each is a heap under a lock of its own. An operation costs the lock's two atomic operations more than the same on a
//! thread's own heap. The ordinary free gives a block back, from any thread and without the lock, like another thread's
//! block. In hardened mode it takes the lock and uses the heap's own quarantine.
//!
//! What hardened mode and sampling keep of a heap ends with it, in [`Allocator::destroy_arena`] and nowhere else. No
//! block of it is left in a quarantine, on a page of its own or between guard pages. The pages that go on to others are
//! in the state of free blocks.

use crate::allocator::{Allocator, Region, Target};
use crate::misuse::{Call, Misuse};
use crate::os::Os;
use crate::owner::Owner;
use crate::tls::{mark_busy, ThreadCache};
use core::cell::Cell;

/// Names a first-class heap: a random number, of no use after its destruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Handle(pub u64);

impl<O: Os> Allocator<O> {
    /// A new heap. `None` in three cases. Memory has run out. There are too many heaps: the metadata provide for at
    /// least 64, and for 32,768 on a machine of common size. Or a signal handler that interrupted the allocator calls
    /// it.
    pub fn create_arena(&self, thread: &ThreadCache) -> Option<Handle> {
        if self.is_interrupted(thread) {
            return None;
        }
        self.notice_fork(thread);
        if !self.attach(thread) {
            return None;
        }
        let backend = &self.backend;
        let handle = self.enter(thread, |_| {
            backend.create_arena(|heap, local| self.hard.on(&self.backend).begin_arena(heap, local))
        })?;
        handle.map(Handle)
    }

    /// Runs `work` with the caches of a heap, under its lock (and with `self`, which a closure would hide
    /// from the compiler, to whom it is a constant). `None` in a signal
    /// handler that interrupted the allocator. A heap that does not exist is a misuse.
    fn in_arena<R>(
        &self,
        thread: &ThreadCache,
        heap: Handle,
        work: impl FnOnce(&Self, &ThreadCache) -> R,
    ) -> Option<R> {
        if self.is_interrupted(thread) {
            return None;
        }
        self.notice_fork(thread);
        let backend = &self.backend;
        if self.is_started() {
            mark_busy!(thread);
            if let Some((arena, _)) = backend.arena(heap.0) {
                let local = arena.lock();
                // It may have been destroyed while this thread waited.
                if backend.arena(heap.0).is_some() {
                    return Some(work(self, &local));
                }
            }
        }
        self.misuse(&Misuse::NoHeap {
            heap: heap.0 as usize,
        });
        None
    }

    /// As `in_arena` for what gives a block, which is the heap's from then on.
    fn block_in(
        &self,
        thread: &ThreadCache,
        heap: Handle,
        work: impl FnOnce(&Self, &ThreadCache) -> *mut u8,
    ) -> *mut u8 {
        let block = self.in_arena(thread, heap, |this, local| {
            let block = work(this, local);
            let backend = &this.backend;
            let is_large = || matches!(this.region(block.addr()), Region::Apart);
            if !block.is_null() && is_large() {
                let of = backend.arena(heap.0);
                let owner = of.map_or(Owner::NONE, |(_, heap)| heap.me());
                backend.large.set_owner(block.addr(), owner);
            }
            block
        });
        self.look_after_background(thread);
        block.unwrap_or_else(|| self.exhausted())
    }

    /// As [`Allocator::aligned`], from `heap`.
    pub fn aligned_in(
        &self,
        thread: &ThreadCache,
        heap: Handle,
        size: usize,
        align: usize,
    ) -> *mut u8 {
        self.block_in(thread, heap, |this, local| this.aligned(local, size, align))
    }

    /// As [`Allocator::aligned_zeroed`], from `heap`.
    pub fn zeroed_in(
        &self,
        thread: &ThreadCache,
        heap: Handle,
        size: usize,
        align: usize,
    ) -> *mut u8 {
        self.block_in(thread, heap, |this, local| {
            this.aligned_zeroed(local, size, align)
        })
    }

    /// As [`Allocator::realloc_aligned`], from `heap`. A block that is not of this heap is copied into it.
    pub fn realloc_in(
        &self,
        thread: &ThreadCache,
        heap: Handle,
        block: *mut u8,
        size: usize,
        align: usize,
    ) -> *mut u8 {
        if block.is_null() {
            return self.aligned_in(thread, heap, size, align);
        }
        let live = match self.resolve(thread, block.addr(), Call::Realloc) {
            // A handler that interrupted a slow path may not ask for the locks that it would take.
            Target::Live(_) if thread.busy.get() != 0 => return self.exhausted(),
            Target::Live(live) => live,
            target => return self.realloc_of_none(thread, block, size, target),
        };
        let (backend, usable) = (&self.backend, live.bytes());
        let is_its_own = {
            mark_busy!(thread);
            let slab = live.slab();
            backend.arena_holds(heap.0, slab, block.addr())
        };
        if is_its_own {
            return self.block_in(thread, heap, |this, local| {
                this.realloc_live_aligned(local, block, live, (size, align))
            });
        }
        let moved = self.aligned_in(thread, heap, size, align);
        self.move_to(thread, block, usable.min(size), moved)
    }

    /// Ends `heap` and gives back all of its blocks. Nobody may use the heap or its blocks any more. A free of one ends
    /// the program like a free of any pointer to nothing, until its memory serves somebody else.
    pub fn destroy_arena(&self, thread: &ThreadCache, heap: Handle) {
        let outcome = self.in_arena(thread, heap, |this, local| this.end_arena(heap, local));
        if let Some(Err(misuse)) = outcome {
            self.misuse(&misuse);
        }
    }

    /// Ends `heap`, whose block is `local`, under its lock. The first misuse that its blocks tell of comes back, unless a
    /// fork cut off a call of the heap: a block that has no canary yet is none. All of them are given back in any case.
    fn end_arena(&self, heap: Handle, local: &ThreadCache) -> Result<(), Misuse> {
        let (backend, hard) = (&self.backend, &self.hard);
        let Some((arena, of)) = backend.arena(heap.0) else {
            return Ok(());
        };
        let (owner, first) = (of.me(), Cell::new(Ok(())));
        let note = |outcome: Result<(), Misuse>| first.set(first.get().and(outcome));
        hard.end_quarantine(local);
        note(backend.destroy_arena(
            (arena, of),
            hard.caches(local),
            |slab| note(hard.end_slots(slab)),
            |addr| note(self.end_large(addr)),
        ));
        note(self.samples.give_all_of(&backend.os, owner));
        hard.give_back(local);
        match arena.was_cut_off() {
            true => Ok(()),
            false => first.get(),
        }
    }

    /// Frees a large block of a heap that ends, whatever is wrong with it.
    fn end_large(&self, addr: usize) -> Result<(), Misuse> {
        let backend = &self.backend;
        if self.hard.is_on() {
            return self.hard.on(&self.backend).end_apart(addr);
        }
        backend.profile.end_large(&backend.meta, addr);
        backend.large.unmap(backend.supply(), addr);
        Ok(())
    }
}
