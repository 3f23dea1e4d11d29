//! What a hardened thread does in place of the fast paths, and blocks that were sampled.

use super::{Allocator, Region};
use crate::hardened;
use crate::heap::locate;
use crate::misuse::{Call, Misuse};
use crate::os::Os;
use crate::slab::SlabPtr;
use crate::tls::{mark_busy, ThreadCache};
use core::ptr;

impl<O: Os> Allocator<O> {
    /// Whether threads are to be kept off the fast paths. A thread that has a heap is not asked about.
    pub(crate) fn is_hardened(&self, thread: &ThreadCache) -> bool {
        let started = self.is_started() || {
            // Whatever calls malloc in the middle of the start must not wait for it.
            mark_busy!(thread);
            self.start()
        };
        started && self.hard.is_on()
    }

    /// By a hardened thread, which has no caches: of those that hardened mode keeps for it.
    #[inline(never)]
    pub(super) fn malloc_hardened_small(&self, size: usize, thread: &ThreadCache) -> *mut u8 {
        match self.take_hardened::<false>(thread, size) {
            Some(block) => block,
            None => self.malloc_hardened_upper(size, thread),
        }
    }

    /// As [`Allocator::malloc_hardened_small`], of any size.
    #[inline(never)]
    pub(super) fn malloc_hardened_upper(&self, size: usize, thread: &ThreadCache) -> *mut u8 {
        match self.take_hardened::<true>(thread, size) {
            Some(block) => block,
            None => self.malloc_hardened(thread, size, 1),
        }
    }

    #[inline(always)]
    fn take_hardened<const MANY: bool>(
        &self,
        thread: &ThreadCache,
        size: usize,
    ) -> Option<*mut u8> {
        let hardened = self.hard.thread(thread)?;
        if thread.busy.get() != 0 || self.has_forked() {
            return None;
        }
        mark_busy!(thread);
        let address = self
            .hard
            .malloc_fast::<MANY, O>(&self.backend, hardened, size)?;
        Some(address as *mut u8)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn malloc_hardened(
        &self,
        thread: &ThreadCache,
        size: usize,
        align: usize,
    ) -> *mut u8 {
        if self.is_interrupted(thread) {
            return self.malloc_nested(size, align);
        }
        let make = |hardened: &hardened::Thread| {
            let made = self.hard.malloc(&self.backend, hardened, size, align)?;
            let heap = hardened.heap().filter(|_| made.is_some());
            let sampled = heap.and_then(|heap| self.sample(heap, size, align));
            if let (Some(made), Some(_)) = (made, sampled) {
                self.hard.take_back(&self.backend, hardened, made)?;
            }
            Ok(sampled.or(made.map(|address| address as *mut u8)))
        };
        self.with_hardened(thread, make)
            .or_else(|| {
                if !self.reclaim_for_more(thread) {
                    return None;
                }
                self.with_hardened(thread, make)
            })
            .unwrap_or_else(|| self.exhausted())
    }

    /// As `malloc_hardened`, and whether the block is all zero.
    pub(super) fn malloc_hardened_fresh(
        &self,
        thread: &ThreadCache,
        size: usize,
        align: usize,
    ) -> (*mut u8, bool) {
        let block = self.malloc_hardened(thread, size, align);
        (block, self.hard.is_clear(size))
    }

    #[inline(never)]
    pub(super) fn free_hardened(&self, addr: usize, thread: &ThreadCache) {
        if !self.give_hardened::<false>(thread, addr) {
            self.free_hardened_upper(addr, thread);
        }
    }

    /// As [`Allocator::free_hardened`], of any size.
    #[inline(never)]
    fn free_hardened_upper(&self, addr: usize, thread: &ThreadCache) {
        if !self.give_hardened::<true>(thread, addr) {
            self.free_hardened_slow(addr, thread);
        }
    }

    #[inline(always)]
    fn give_hardened<const MANY: bool>(&self, thread: &ThreadCache, addr: usize) -> bool {
        let Some(hardened) = self.hard.thread(thread) else {
            return false;
        };
        if thread.busy.get() != 0 || self.has_forked() {
            return false;
        }
        mark_busy!(thread);
        self.hard
            .free_fast::<MANY, O>(&self.backend, hardened, addr)
    }

    #[cold]
    #[inline(never)]
    fn free_hardened_slow(&self, addr: usize, thread: &ThreadCache) {
        if addr == 0 {
            return;
        }
        self.notice_fork(thread);
        let slab = match self.region(addr) {
            Region::Slab(slab) => slab,
            apart => return self.free_without_slab(thread, addr, apart),
        };
        let slot = match locate(slab, addr, Call::Free) {
            Ok(slot) => slot,
            Err(misuse) => return self.misuse(&misuse),
        };
        let hardened = self.hard.thread(thread);
        if let Some(hardened) = hardened.filter(|_| thread.busy.get() == 0) {
            let freed = {
                mark_busy!(thread);
                self.hard.free(&self.backend, hardened, slab, slot)
            };
            return freed.unwrap_or_else(|misuse| self.misuse(&misuse));
        }
        self.free_hardened_late(thread, slab, slot);
    }

    /// By a thread that has no heap yet or any more, or in a signal handler that interrupted a slow path. Where there is
    /// no memory for what even late threads need, the free is marked all the same.
    #[cold]
    #[inline(never)]
    fn free_hardened_late(&self, thread: &ThreadCache, slab: SlabPtr, slot: usize) {
        let freed = self.with_hardened(thread, |hardened| {
            Ok(Some(self.hard.free(&self.backend, hardened, slab, slot)))
        });
        let freed = freed.unwrap_or_else(|| {
            self.hard
                .end(slab, slot, true)
                .map(|()| self.free_without_heap(slab, slot, thread))
        });
        if let Err(misuse) = freed {
            self.misuse(&misuse);
        }
    }

    /// Frees a hardened block that lies in no slab.
    pub(super) fn free_apart_hardened(&self, thread: &ThreadCache, addr: usize) {
        let outcome = {
            mark_busy!(thread);
            self.hard.free_apart(&self.backend, addr)
        };
        match outcome {
            Ok(true) => {}
            Ok(false) => self.free_foreign(addr),
            Err(misuse) => self.misuse(&misuse),
        }
    }

    pub(super) fn free_sampled(&self, thread: &ThreadCache, addr: usize) {
        let outcome = {
            mark_busy!(thread);
            self.samples.give(&self.backend.os, addr)
        };
        if let Err(misuse) = outcome {
            self.misuse(&misuse);
        }
    }

    /// Writes what is known of the sampled block that a fault was at or beside. From a signal handler.
    pub fn tell_of_fault(&self, address: usize) {
        let os = &self.backend.os;
        let Some(sampled) = self.samples.find(os, address) else {
            return;
        };
        os.say(sampled.fault(address).bytes());
        let mut frames = [0; 32];
        let known = os.stack(&mut frames);
        os.say_stack(&frames[..known]);
        os.say(b"  allocated\n");
        os.say_stack(sampled.allocated.frames());
        if let Some(freed) = sampled.freed {
            os.say(b"  freed\n");
            os.say_stack(freed.frames());
        }
    }

    /// Resizes a hardened block.
    pub(super) fn realloc_hardened(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        live: hardened::Live,
        size: usize,
    ) -> *mut u8 {
        let addr = block as usize;
        // A handler that interrupted a slow path may not ask for the lock of large blocks.
        let is_barred = thread.busy.get() != 0 && matches!(live, hardened::Live::Large(..));
        let resized = {
            mark_busy!(thread);
            match is_barred {
                true => Ok(false),
                false => self.hard.resize(&self.backend, live, addr, size),
            }
        };
        match resized {
            Ok(true) => return block,
            Ok(false) => {}
            Err(misuse) => {
                self.misuse(&misuse);
                return ptr::null_mut();
            }
        }
        let (old, moved) = (live.size(), self.malloc(thread, size));
        if moved.is_null() && size <= old && !is_barred {
            return self.keep_hardened(thread, block, live, size);
        }
        self.move_to(thread, block, old.min(size), moved)
    }

    /// A hardened block is to shrink, and there is no memory for a smaller one: it stays.
    #[cold]
    fn keep_hardened(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        live: hardened::Live,
        size: usize,
    ) -> *mut u8 {
        let kept = {
            mark_busy!(thread);
            self.hard.keep(&self.backend, (live, block as usize), size)
        };
        if let Err(misuse) = kept {
            self.misuse(&misuse);
        }
        block
    }

    /// Resizes a sampled or nested block of `old` bytes.
    pub(super) fn realloc_sampled(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        old: usize,
        size: usize,
    ) -> *mut u8 {
        let moved = self.malloc(thread, size);
        if moved.is_null() && size <= old {
            return block;
        }
        self.move_to(thread, block, old.min(size), moved)
    }

    /// Whether the size of every block is just what was asked for.
    pub(crate) fn is_exact(&self) -> bool {
        self.hard.is_on()
    }

    /// Runs `work` with what hardened mode keeps of the thread, or with what all late threads share, under
    /// the lock. `None` in a signal handler that interrupted a slow path, and where there is no memory.
    pub(super) fn with_hardened<R>(
        &self,
        thread: &ThreadCache,
        work: impl Fn(&hardened::Thread) -> Result<Option<R>, Misuse>,
    ) -> Option<R> {
        if self.is_interrupted(thread) {
            return None;
        }
        self.notice_fork(thread);
        if !self.attach(thread) {
            return None;
        }
        mark_busy!(thread);
        let outcome = match self.hard.thread(thread) {
            Some(hardened) => work(hardened),
            None => {
                let local = &*self.shared.lock();
                if local.hardened.get() == 0 {
                    self.hard.attach(&self.backend, local, true);
                }
                let hardened = self.hard.thread(local);
                hardened.map_or(Ok(None), work)
            }
        };
        outcome.unwrap_or_else(|misuse| {
            self.misuse(&misuse);
            None
        })
    }
}
