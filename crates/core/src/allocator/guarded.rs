//! What a hardened thread does in place of the fast paths, and blocks that were sampled.

use super::{with_room, Allocator, Live, Region};
use crate::class::{class_at, ClassId};
use crate::hardened::{self, Cleared, Form, Known, Mitigations, Plain, Whole, WideOnly};
use crate::heap::{locate, LARGE};
use crate::misuse::{Call, Misuse};
use crate::os::Os;
use crate::slab::SlabPtr;
use crate::tls::{mark_alone, mark_busy, ThreadCache};
use crate::units::{Slot, SPAN_MAX};
use crate::wide::with_wide;
use core::ptr;

/// The most bytes that a block is to have room for: it is no mapping of its own.
const ROOM_MAX: usize = SPAN_MAX / 2;

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

    /// By a hardened thread, which has no caches: of those that hardened mode keeps for it. `offset` is that of `size`.
    #[inline(always)]
    pub(super) fn malloc_hardened_small(
        &self,
        size: usize,
        thread: &ThreadCache,
        offset: usize,
        hardened: &hardened::Thread,
    ) -> *mut u8 {
        // By comparisons, which are foreseen better than a jump through a table, and shorter.
        let form = self.hard.form();
        if form == Form::Whole {
            // SAFETY: the processor has what the form needs.
            return unsafe { self.malloc_hardened_wide::<Whole>(size, thread, offset, hardened) };
        }
        if form == Form::Cleared {
            // SAFETY: the processor has what the form needs.
            return unsafe { self.malloc_hardened_wide::<Cleared>(size, thread, offset, hardened) };
        }
        self.malloc_hardened_other(size, thread, offset, hardened)
    }

    /// As [`Allocator::malloc_hardened_small`], of any size.
    #[inline(always)]
    pub(super) fn malloc_hardened_upper(
        &self,
        size: usize,
        thread: &ThreadCache,
        hardened: &hardened::Thread,
    ) -> *mut u8 {
        match self.hard.form() {
            // SAFETY: the processor has what the form needs.
            Form::Whole => unsafe {
                self.malloc_hardened_upper_wide::<Whole>(size, thread, hardened)
            },
            // SAFETY: the processor has what the form needs.
            Form::Cleared => unsafe {
                self.malloc_hardened_upper_wide::<Cleared>(size, thread, hardened)
            },
            // SAFETY: the processor has what the form needs.
            Form::Wide => unsafe {
                self.malloc_hardened_upper_wide::<WideOnly>(size, thread, hardened)
            },
            Form::Plain => self.malloc_hardened_upper_plain(size, thread, hardened),
        }
    }

    #[inline(never)]
    fn malloc_hardened_other(
        &self,
        size: usize,
        thread: &ThreadCache,
        offset: usize,
        hardened: &hardened::Thread,
    ) -> *mut u8 {
        match self.hard.form() {
            // SAFETY: the processor has what the form needs.
            Form::Wide => unsafe {
                self.malloc_hardened_wide::<WideOnly>(size, thread, offset, hardened)
            },
            _ => self.malloc_hardened_plain(size, thread, hardened),
        }
    }

    with_wide! {
        #[inline(never)]
        unsafe fn malloc_hardened_wide<F: Known>(
            &self,
            size: usize,
            thread: &ThreadCache,
            offset: usize,
            hardened: &hardened::Thread,
        ) -> *mut u8 {
            let class = Some(class_at(offset));
            match self.take_hardened::<false, F>((thread, hardened), size, class) {
                Some(block) => block,
                None => self.malloc_hardened_more::<F>(size, thread, hardened),
            }
        }
    }

    /// As [`Allocator::malloc_hardened_upper_wide`], after a path that served nothing, which seldom happens: that path's
    /// branches are laid out for it.
    #[cold]
    #[inline(never)]
    fn malloc_hardened_more<F: Known>(
        &self,
        size: usize,
        thread: &ThreadCache,
        hardened: &hardened::Thread,
    ) -> *mut u8 {
        // SAFETY: the processor has what the path needed that calls, and this one needs no more.
        unsafe { self.malloc_hardened_upper_wide::<F>(size, thread, hardened) }
    }

    with_wide! {
        #[inline(never)]
        unsafe fn malloc_hardened_upper_wide<F: Known>(
            &self,
            size: usize,
            thread: &ThreadCache,
            hardened: &hardened::Thread,
        ) -> *mut u8 {
            match self.take_hardened::<true, F>((thread, hardened), size, None) {
                Some(block) => block,
                None => self.malloc_hardened(thread, size, 1),
            }
        }
    }

    #[inline(never)]
    fn malloc_hardened_plain(
        &self,
        size: usize,
        thread: &ThreadCache,
        hardened: &hardened::Thread,
    ) -> *mut u8 {
        match self.take_hardened::<false, Plain>((thread, hardened), size, None) {
            Some(block) => block,
            None => self.malloc_hardened_upper_plain(size, thread, hardened),
        }
    }

    #[inline(never)]
    fn malloc_hardened_upper_plain(
        &self,
        size: usize,
        thread: &ThreadCache,
        hardened: &hardened::Thread,
    ) -> *mut u8 {
        match self.take_hardened::<true, Plain>((thread, hardened), size, None) {
            Some(block) => block,
            None => self.malloc_hardened(thread, size, 1),
        }
    }

    /// A slot that was found to be all zero when it was taken, as `zero` has it. `None` where more is to be done.
    #[inline(always)]
    pub(super) fn calloc_hardened(
        &self,
        size: usize,
        thread: &ThreadCache,
        hardened: &hardened::Thread,
    ) -> Option<*mut u8> {
        match self.hard.form() {
            // SAFETY: the processor has what the form needs.
            Form::Whole => unsafe { self.calloc_hardened_wide::<Whole>(size, thread, hardened) },
            // SAFETY: the processor has what the form needs.
            Form::Cleared => unsafe {
                self.calloc_hardened_wide::<Cleared>(size, thread, hardened)
            },
            Form::Wide | Form::Plain => None,
        }
    }

    with_wide! {
        #[inline(never)]
        unsafe fn calloc_hardened_wide<F: Known>(
            &self,
            size: usize,
            thread: &ThreadCache,
            hardened: &hardened::Thread,
        ) -> Option<*mut u8> {
            const { assert!(matches!(F::MITIGATIONS, Some(Mitigations { zero: true, .. }))) };
            self.take_hardened::<true, F>((thread, hardened), size, None)
        }
    }

    #[inline(always)]
    fn take_hardened<const MANY: bool, F: Known>(
        &self,
        (thread, hardened): (&ThreadCache, &hardened::Thread),
        size: usize,
        class: Option<ClassId>,
    ) -> Option<*mut u8> {
        mark_alone!(thread => busy);
        if busy.is_none() || self.has_forked() {
            return None;
        }
        let address = self
            .hard
            .on(&self.backend)
            .malloc_fast::<MANY, F>(hardened, size, class)?;
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
        let block = self
            .malloc_hardened_in(thread, size, align, size)
            .or_else(|| {
                if !self.reclaim_for_more(thread) {
                    return None;
                }
                self.malloc_hardened_in(thread, size, align, size)
            });
        self.look_after_background(thread);
        block.unwrap_or_else(|| self.exhausted())
    }

    /// As `malloc_hardened`, with room for `room` bytes. `None` where there is no memory at once.
    fn malloc_hardened_in(
        &self,
        thread: &ThreadCache,
        size: usize,
        align: usize,
        room: usize,
    ) -> Option<*mut u8> {
        self.with_hardened(thread, |hardened| {
            let made = self
                .hard
                .on(&self.backend)
                .malloc(hardened, (size, room), align)?;
            let heap = hardened.heap().filter(|_| made.is_some());
            let sampled = heap.and_then(|heap| self.sample(heap, size, align));
            if let (Some(made), Some(_)) = (made, sampled) {
                self.hard.on(&self.backend).take_back(hardened, made)?;
            }
            Ok(sampled.or(made.map(|address| address as *mut u8)))
        })
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

    #[inline(always)]
    pub(super) fn free_hardened(&self, addr: usize, thread: &ThreadCache) {
        match self.hard.thread(thread) {
            Some(hardened) => self.free_hardened_of(addr, thread, hardened),
            None => self.free_hardened_slow(addr, thread),
        }
    }

    /// As [`Allocator::free_hardened`], by a thread that is.
    #[inline(always)]
    pub(super) fn free_hardened_of(
        &self,
        addr: usize,
        thread: &ThreadCache,
        hardened: &hardened::Thread,
    ) {
        let form = self.hard.form();
        if form == Form::Whole {
            // SAFETY: the processor has what the form needs.
            return unsafe { self.free_hardened_wide::<Whole>(addr, thread, hardened) };
        }
        if form == Form::Cleared {
            // SAFETY: the processor has what the form needs.
            return unsafe { self.free_hardened_wide::<Cleared>(addr, thread, hardened) };
        }
        self.free_hardened_other(addr, thread, hardened);
    }

    #[inline(never)]
    fn free_hardened_other(&self, addr: usize, thread: &ThreadCache, hardened: &hardened::Thread) {
        match self.hard.form() {
            // SAFETY: the processor has what the form needs.
            Form::Wide => unsafe { self.free_hardened_wide::<WideOnly>(addr, thread, hardened) },
            _ => self.free_hardened_plain(addr, thread, hardened),
        }
    }

    with_wide! {
        #[inline(never)]
        unsafe fn free_hardened_wide<F: Known>(
            &self,
            addr: usize,
            thread: &ThreadCache,
            hardened: &hardened::Thread,
        ) {
            if !self.give_hardened::<false, F>((thread, hardened), addr) {
                self.free_hardened_more::<F>(addr, thread, hardened);
            }
        }
    }

    /// As [`Allocator::malloc_hardened_more`].
    #[cold]
    #[inline(never)]
    fn free_hardened_more<F: Known>(
        &self,
        addr: usize,
        thread: &ThreadCache,
        hardened: &hardened::Thread,
    ) {
        // SAFETY: the processor has what the path needed that calls, and this one needs no more.
        unsafe { self.free_hardened_upper_wide::<F>(addr, thread, hardened) }
    }

    with_wide! {
        /// As [`Allocator::free_hardened_wide`], of any size.
        #[inline(never)]
        unsafe fn free_hardened_upper_wide<F: Known>(
            &self,
            addr: usize,
            thread: &ThreadCache,
            hardened: &hardened::Thread,
        ) {
            if !self.give_hardened::<true, F>((thread, hardened), addr) {
                self.free_hardened_slow(addr, thread);
            }
        }
    }

    #[inline(never)]
    fn free_hardened_plain(&self, addr: usize, thread: &ThreadCache, hardened: &hardened::Thread) {
        if !self.give_hardened::<false, Plain>((thread, hardened), addr) {
            self.free_hardened_upper_plain(addr, thread, hardened);
        }
    }

    /// As [`Allocator::free_hardened_plain`], of any size.
    #[inline(never)]
    fn free_hardened_upper_plain(
        &self,
        addr: usize,
        thread: &ThreadCache,
        hardened: &hardened::Thread,
    ) {
        if !self.give_hardened::<true, Plain>((thread, hardened), addr) {
            self.free_hardened_slow(addr, thread);
        }
    }

    #[inline(always)]
    fn give_hardened<const MANY: bool, F: Known>(
        &self,
        (thread, hardened): (&ThreadCache, &hardened::Thread),
        addr: usize,
    ) -> bool {
        let given = {
            mark_alone!(thread => busy);
            if busy.is_none() || self.has_forked() {
                return false;
            }
            self.hard
                .on(&self.backend)
                .free_fast::<MANY, F>(hardened, addr)
        };
        match given {
            Some(Err(misuse)) => self.misuse(&misuse),
            Some(Ok(())) => {}
            None => return false,
        }
        true
    }

    #[cold]
    #[inline(never)]
    pub(super) fn free_hardened_slow(&self, addr: usize, thread: &ThreadCache) {
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
                self.hard.on(&self.backend).free(hardened, slab, slot)
            };
            return freed.unwrap_or_else(|misuse| self.misuse(&misuse));
        }
        self.free_hardened_late(thread, slab, slot);
    }

    /// By a thread that has no heap yet or any more, or in a signal handler that interrupted a slow path. Where there is
    /// no memory for what even late threads need, the free is marked all the same.
    #[cold]
    #[inline(never)]
    fn free_hardened_late(&self, thread: &ThreadCache, slab: SlabPtr, slot: Slot) {
        let freed = self.with_hardened(thread, |hardened| {
            Ok(Some(self.hard.on(&self.backend).free(hardened, slab, slot)))
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
            self.hard.on(&self.backend).free_apart(addr)
        };
        match outcome {
            Ok(Some(0)) => {}
            Ok(Some(kept)) => {
                if let Some(heap) = self.hard.thread(thread).and_then(hardened::Thread::heap) {
                    heap.note_returned(LARGE, kept);
                }
                self.stir();
            }
            Ok(None) => self.free_foreign(thread, addr),
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
        let known = os.stack_with_care(&mut frames);
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
        let addr = block.addr();
        // A handler that interrupted a slow path may not ask for the lock of large blocks.
        let is_barred = thread.busy.get() != 0 && matches!(live, hardened::Live::Large(..));
        let resized = {
            mark_busy!(thread);
            match is_barred {
                true => Ok(false),
                false => self.hard.on(&self.backend).resize(live, addr, size),
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
        let old = live.size();
        let room = with_room(old, size).min(ROOM_MAX);
        let moved = match room > size && !is_barred && self.hard.may_have_room(size) {
            true => self.malloc_hardened_roomy(thread, size, room),
            false => self.malloc(thread, size),
        };
        if moved.is_null() && size <= old && !is_barred {
            return self.keep_hardened(thread, block, live, size);
        }
        self.move_to(thread, block, old.min(size), moved)
    }

    /// A block of `size` bytes with room for `room`, if there is memory for that: what grew by little is likely to grow
    /// again.
    fn malloc_hardened_roomy(&self, thread: &ThreadCache, size: usize, room: usize) -> *mut u8 {
        let moved = self.malloc_hardened_in(thread, size, 1, room);
        moved.unwrap_or_else(|| self.malloc(thread, size))
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
            self.hard.on(&self.backend).keep((live, block.addr()), size)
        };
        if let Err(misuse) = kept {
            self.misuse(&misuse);
        }
        block
    }

    /// Resizes a sampled or nested block.
    pub(super) fn realloc_sampled(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        live: Live,
        size: usize,
    ) -> *mut u8 {
        let (old, moved) = (live.bytes(), self.malloc(thread, size));
        if moved.is_null() && size <= old {
            // A free with this size is right from now on.
            if let Live::Nested(_) = live {
                self.nested.shrink(block.addr(), size);
            } else {
                mark_busy!(thread);
                self.samples.shrink(&self.backend.os, block.addr(), size);
            }
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
                    self.hard.on(&self.backend).attach(local, true);
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
