//! free: what the fast path does not do itself. These are slots of other threads' slabs, large blocks, and pointers to
//! nothing of ours.

use super::{come_in_alone, heap_at_hand, Allocator, Region};
use crate::arch::{mark_free, Freed};
use crate::class::slot_at;
use crate::heap::{self, heap_of, locate, LARGE};
use crate::large::Found;
use crate::misuse::{Call, Misuse};
use crate::options::{self, Name};
use crate::os::{NextMalloc, Os};
use crate::owner::RELEASED;
use crate::pages::Hot;
use crate::remote::{self, Given, Next};
use crate::slab::SlabPtr;
use crate::sync::AtomicUsize;
use crate::sync::{Ordering::AcqRel, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};
use crate::tls::{mark_alone, mark_busy, Thread, ThreadCache};
use crate::units::Slot;
use core::ffi::c_void;
use core::ptr;

/// The slab that `block` lies in, in the window that `hot` tells of, if it is another heap's, or all share it. A hardened
/// thread, and one without a heap, has the owner word of nobody, whose full slabs are those of ended threads.
#[inline(always)]
fn slab_of_others(hot: &Hot, block: *mut u8, thread: &ThreadCache) -> Option<SlabPtr> {
    let me = thread.me.get();
    if me.is_none() {
        return None;
    }
    let slab = hot.slab_at(block as usize)?;
    let owner = slab.owner.load(SeqCst);
    remote::is_marked_by(owner, me).then_some(slab)
}

/// What became of a free by [`Allocator::free_into_own`].
enum Common {
    Done,
    /// The slab is one of slots up to 1 KiB, full, and was the thread's when it became so. Nothing was done.
    OwnFull(SlabPtr),
    /// It is another heap's, or all share it. Nothing was done.
    Others(SlabPtr),
    /// Nothing was done: it is no such slab, or there is more to do.
    Elsewhere,
}

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
            Freed::Elsewhere => self.free_slow(block, thread.block()),
            Freed::Far => self.free_far(block, thread),
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

    /// A block that is not in the first window, but most often in the second one.
    #[cold]
    #[inline(never)]
    fn free_far(&self, block: *mut u8, thread: impl Thread) {
        let beyond = &self.backend.pages.beyond;
        // SAFETY: as in `free`. Until it is set every address lies outside.
        match unsafe { thread.free(ptr::from_ref(beyond).cast(), block as usize) } {
            Freed::Done => {}
            Freed::Event => {
                let slab = beyond.slab_within(block as usize);
                self.frees_used_up(slab, thread.block());
            }
            Freed::Misuse => self.free_misuse(block),
            Freed::Elsewhere | Freed::Far => self.free_far_slow(block, thread.block()),
        }
    }

    /// A block that is not in the first window, nor in a slab of the thread's own in the second one.
    #[inline(never)]
    fn free_far_slow(&self, block: *mut u8, thread: &ThreadCache) {
        let otherwise = || self.free_far_otherwise(block, thread);
        self.free_common(&self.backend.pages.beyond, block, thread, otherwise);
    }

    #[inline(never)]
    fn free_far_otherwise(&self, block: *mut u8, thread: &ThreadCache) {
        if let Some(slab) = slab_of_others(&self.backend.pages.beyond, block, thread) {
            return self.free_into_others(block, thread, slab);
        }
        if self.hard.is_on() {
            return self.free_hardened(block as usize, thread);
        }
        match self.backend.pages.slab_beyond(block as usize) {
            Some(slab) => self.free_in(slab, block, thread),
            None => self.free_apart(block, thread),
        }
    }

    /// A block that is not in a slab of the thread's own as it stands. What follows comes last, so that no register is
    /// saved for it.
    #[cold]
    #[inline(never)]
    fn free_slow(&self, block: *mut u8, thread: &ThreadCache) {
        // A hardened thread has no owner word. By default only one without a heap has none.
        if thread.me.get().is_none() {
            if let Some(hardened) = self.hard.thread(thread) {
                return self.free_hardened_of(block as usize, thread, hardened);
            }
        }
        let otherwise = || self.free_otherwise(block, thread);
        self.free_common(&self.backend.pages.hot, block, thread, otherwise);
    }

    /// One of the commonest cases of a block in the window that `hot` tells of, or `otherwise`.
    #[inline(always)]
    fn free_common(
        &self,
        hot: &Hot,
        block: *mut u8,
        thread: &ThreadCache,
        otherwise: impl FnOnce(),
    ) {
        match self.free_into_own(hot, block, thread) {
            Common::Done => self.stir(),
            Common::OwnFull(slab) => self.free_into_own_full(block, thread, slab),
            Common::Others(slab) => self.free_into_others(block, thread, slab),
            Common::Elsewhere => otherwise(),
        }
    }

    /// As `free_slow`, where that is none of the commonest cases, or the thread is in a slow path already.
    #[inline(never)]
    fn free_otherwise(&self, block: *mut u8, thread: &ThreadCache) {
        if let Some(slab) = slab_of_others(&self.backend.pages.hot, block, thread) {
            return self.free_into_others(block, thread, slab);
        }
        if self.hard.is_on() {
            return self.free_hardened_slow(block as usize, thread);
        }
        self.free_found(block, thread);
    }

    /// As `free_slow`, by default.
    #[inline(never)]
    fn free_found(&self, block: *mut u8, thread: &ThreadCache) {
        match self.backend.pages.slab_at(block as usize) {
            Some(slab) => self.free_in(slab, block, thread),
            None => self.free_apart(block, thread),
        }
    }

    /// A block that lies in a page of `slab`, or of nobody's where that is the dummy.
    #[inline(always)]
    fn free_in(&self, slab: SlabPtr, block: *mut u8, thread: &ThreadCache) {
        let (owner, me) = (slab.owner.load(Relaxed), thread.me.get());
        if owner == me {
            self.free_own(thread, slab, block);
        } else if owner == me.with_full() && !self.has_forked() {
            self.free_into_own_full(block, thread, slab);
        } else if owner == RELEASED {
            self.free_apart(block, thread);
        } else if owner.is_open() {
            self.free_into_full(block, slab, thread);
        } else {
            self.free_in_other(block, slab, thread);
        }
    }

    /// A block that lies in no slab, or null. Most often a large one that is kept as it is.
    #[inline(never)]
    fn free_apart(&self, block: *mut u8, thread: &ThreadCache) {
        let addr = block as usize;
        if addr == 0 {
            return;
        }
        match self.free_to_rest(thread, addr) {
            true => self.stir(),
            false => self.free_without_slab(thread, addr, self.region_without_slab(addr)),
        }
    }

    /// Frees a block in the window that `hot` tells of, in a full slab of slots above 1 KiB that this thread owned last: the
    /// common half of [`Allocator::free_into_full`]. Finds out whether it is another of the commonest cases.
    #[inline(always)]
    fn free_into_own(&self, hot: &Hot, block: *mut u8, thread: &ThreadCache) -> Common {
        let Some(heap) = heap_at_hand(thread) else {
            return Common::Elsewhere;
        };
        let Some(slab) = hot.slab_at(block as usize) else {
            return Common::Elsewhere;
        };
        let (owner, me) = (slab.owner.load(SeqCst), heap.me());
        if owner != me.with_full() {
            return match remote::is_marked_by(owner, me) {
                true => Common::Others(slab),
                false => Common::Elsewhere,
            };
        }
        if self.has_forked() {
            return Common::Elsewhere;
        }
        let Some(upper) = slab.class().upper() else {
            return Common::OwnFull(slab);
        };
        mark_alone!(thread => busy);
        if let Some(_inside) = come_in_alone(heap, &busy) {
            let offset = block as usize - slab.base();
            let heap = heap.on(&self.backend);
            if heap.free_into_own_full_upper(slab, owner, upper, offset) {
                return Common::Done;
            }
        }
        Common::Elsewhere
    }

    /// A block in a full slab of slots up to 1 KiB that this thread owned last: the common half of
    /// [`Allocator::free_into_full`]. What follows comes last, so that no register is saved for it.
    #[inline(never)]
    fn free_into_own_full(&self, block: *mut u8, thread: &ThreadCache, slab: SlabPtr) {
        let mut done = false;
        if let Some(heap) = heap_at_hand(thread) {
            mark_alone!(thread => busy);
            let offset = block as usize - slab.base();
            if let Some(_inside) = come_in_alone(heap, &busy) {
                done = heap.on(&self.backend).free_into_own_full(slab, offset);
            }
        }
        match done {
            true => self.stir(),
            false => self.free_into_full(block, slab, thread),
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

    #[inline(always)]
    fn frees_used_up(&self, slab: SlabPtr, thread: &ThreadCache) {
        match slab.is_span() {
            true => self.span_freed(slab, thread),
            false => self.slab_freed_into(slab, thread),
        }
    }

    /// A span is free. What calls nothing comes first, and alone, so that no register is saved for it.
    #[inline(never)]
    fn span_freed(&self, slab: SlabPtr, thread: &ThreadCache) {
        match self.is_span_kept(slab, thread) {
            true => self.stir(),
            false => self.span_freed_at_tick(slab, thread),
        }
    }

    #[inline(always)]
    fn is_span_kept(&self, slab: SlabPtr, thread: &ThreadCache) -> bool {
        if self.has_forked() {
            return false;
        }
        let Some(heap) = heap_at_hand(thread) else {
            return false;
        };
        mark_alone!(thread => busy);
        let inside = come_in_alone(heap, &busy);
        inside.is_some() && heap.on(&self.backend).span_freed_fast(slab)
    }

    /// As [`Allocator::span_freed`], where the clock is to be looked at first, or there is more to be done.
    #[inline(never)]
    fn span_freed_at_tick(&self, slab: SlabPtr, thread: &ThreadCache) {
        let heap = heap_at_hand(thread).filter(|heap| heap.is_clock_due());
        let glanced = heap.is_some_and(|heap| {
            mark_alone!(thread => busy);
            busy.is_some_and(|busy| self.come_in_and_glance(&busy, heap))
        });
        if glanced && self.is_span_kept(slab, thread) {
            return self.stir();
        }
        self.frees_used_up_slow(slab, thread);
    }

    /// The frees of a slab of slots are used up.
    #[cold]
    #[inline(never)]
    fn slab_freed_into(&self, slab: SlabPtr, thread: &ThreadCache) {
        let mut done = false;
        if !self.has_forked() {
            if let Some(heap) = heap_at_hand(thread) {
                mark_alone!(thread => busy);
                let inside = come_in_alone(heap, &busy);
                // A signal handler may have requeued it meanwhile, and even given it back.
                done = inside.is_some()
                    && (!heap.is_spent(slab) || heap.on(&self.backend).requeue_fast(slab));
            }
        }
        match done {
            true => self.stir(),
            false => self.frees_used_up_slow(slab, thread),
        }
    }

    #[cold]
    #[inline(never)]
    fn frees_used_up_slow(&self, slab: SlabPtr, thread: &ThreadCache) {
        let requeued = self.with_heap(thread, |_, heap| {
            if heap.is_spent(slab) {
                heap.requeue(slab)?;
            }
            Ok(Some(()))
        });
        if requeued.is_none() {
            // In a signal handler that interrupted a slow path: the heap finds the slab in its queue.
            slab.frees_left.set(1);
            if let Next::Notify(owner) = remote::raise_pending(slab) {
                self.backend.notify(owner, slab);
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

    /// The common half of [`Allocator::free_large`]. False where more is to be done.
    #[inline(always)]
    fn free_to_rest(&self, thread: &ThreadCache, addr: usize) -> bool {
        let backend = &self.backend;
        let waits = self.any_put_off.load(Relaxed) != 0 || self.has_forked();
        if waits || backend.profile.lists_some() {
            return false;
        }
        let Some(heap) = heap_at_hand(thread) else {
            return false;
        };
        mark_alone!(thread => busy);
        let unmapped = busy
            .as_ref()
            .and_then(|_| backend.large.unmap_to_rest(&backend.meta, addr));
        let Some(bytes) = unmapped else {
            return false;
        };
        heap.note_returned(LARGE, bytes);
        true
    }

    fn free_large(&self, thread: &ThreadCache, addr: usize) {
        let found = if self.is_started() {
            mark_busy!(thread);
            let backend = &self.backend;
            backend.profile.end_large(&backend.meta, addr);
            let found = backend.large.unmap(backend.supply(), addr);
            if let (Found::Live(block), Some(heap)) = (found, heap_of(thread)) {
                heap.note_returned(LARGE, block.bytes);
            }
            found
        } else {
            Found::Unknown
        };
        match found {
            Found::Live(_) => self.stir(),
            Found::Freed(_) => self.misuse(&Misuse::DeadLarge {
                call: Call::Free,
                addr,
            }),
            Found::Unknown => self.free_foreign(thread, addr),
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
    pub(super) fn free_foreign(&self, thread: &ThreadCache, addr: usize) {
        if let Some(next) = self.next_malloc(thread, addr, Call::Free) {
            // SAFETY: the caller's, who says that the pointer is some malloc's block.
            unsafe { (next.free)(addr as *mut c_void) }
        }
    }

    /// The malloc that a pointer which is not ours is for. Where it is for none, what the options say of such a pointer
    /// has been done.
    pub(super) fn next_malloc(
        &self,
        thread: &ThreadCache,
        addr: usize,
        call: Call,
    ) -> Option<NextMalloc> {
        if let Some(misuse) = self.misuse_in_large(thread, addr, call) {
            self.misuse(&misuse);
            return None;
        }
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

    /// What is wrong with a pointer into a live large block, behind its start. `None` for all others, and in a signal
    /// handler that interrupted whoever may hold the lock.
    #[cold]
    fn misuse_in_large(&self, thread: &ThreadCache, addr: usize, call: Call) -> Option<Misuse> {
        if !self.is_started() || thread.busy.get() != 0 {
            return None;
        }
        let block = {
            mark_busy!(thread);
            self.backend.large.block_around(addr)?
        };
        Some(Misuse::InsideLarge {
            call,
            addr,
            offset: addr - block.address,
            size: block.bytes,
        })
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
            if slab.holds(slot) && !self.has_forked() {
                mark_alone!(thread => busy);
                let inside = come_in_alone(heap, &busy);
                done = inside.is_some() && heap.on(&self.backend).free_into_full(slab, slot);
            }
        }
        if done {
            return self.stir();
        }
        self.free_in_other(block, slab, thread);
    }

    /// A block in a slab that is another heap's, or that all share. The thread has a heap. What is rare comes last, so that
    /// no register is saved for it.
    #[inline(never)]
    fn free_into_others(&self, block: *mut u8, thread: &ThreadCache, slab: SlabPtr) {
        slab.prefetch_remote();
        let (slot, exact) = slot_at(block as usize - slab.base(), slab.recip.load(Relaxed));
        if !exact || self.has_forked() {
            return self.free_in_other(block, slab, thread);
        }
        if !remote::free_remote(slab, slot) {
            return self.misuse_in(block as usize, slab, Call::Free);
        }
        if !remote::is_known(slab, slot) {
            self.tell_of_free(slab, thread);
        }
    }

    /// A slot was marked, and its slab's owner may not know that frees wait.
    #[cold]
    #[inline(never)]
    fn tell_of_free(&self, slab: SlabPtr, thread: &ThreadCache) {
        self.tell_owner(slab, remote::raise_pending(slab), thread);
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
        // A thread without a heap is not counted, and a fork would take the process for single-threaded if it had no other
        // heaps. One that is late has the shared heap, whose slabs it frees into under the lock.
        if me.is_none() || self.has_forked() {
            return self.free_bare(slab, slot, thread);
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
    pub(super) fn tell_owner(&self, slab: SlabPtr, next: Next, thread: &ThreadCache) {
        match next {
            Next::Done => {}
            Next::Notify(owner) => {
                self.backend.notify(owner, slab);
                self.stir();
            }
            Next::Claim => {
                let claimed = self.with_heap(thread, |_, heap| {
                    heap.notify(slab)?;
                    Ok(Some(()))
                });
                if claimed.is_none() {
                    self.claim_later(slab, thread);
                }
            }
        }
    }

    /// A slot, by a thread without a heap.
    #[cold]
    #[inline(never)]
    fn free_bare(&self, slab: SlabPtr, slot: Slot, thread: &ThreadCache) {
        if !self.free_by_guest(slab, slot, thread) {
            self.free_elsewhere(slab, slot, thread);
        }
    }

    /// A slot of a slab that nobody owns, or the thread itself with remote frees waiting.
    #[cold]
    #[inline(never)]
    fn free_elsewhere(&self, slab: SlabPtr, slot: Slot, thread: &ThreadCache) {
        let freed = self.with_heap(thread, |_, heap| Ok(Some(heap.free_elsewhere(slab, slot))));
        match freed {
            Some(Ok(())) => self.stir(),
            Some(Err(misuse)) => self.misuse(&misuse),
            None => self.free_without_heap(slab, slot, thread),
        }
    }

    /// For a signal handler that interrupted a slow path of this thread, and where there is no memory for a heap. Marks
    /// the free and takes no lock.
    pub(super) fn free_without_heap(&self, slab: SlabPtr, slot: Slot, thread: &ThreadCache) {
        if !remote::free_remote(slab, slot) {
            return self.misuse(&heap::dead(slab, slot));
        }
        match remote::raise_pending(slab) {
            Next::Done => {}
            Next::Notify(owner) => self.backend.notify(owner, slab),
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
