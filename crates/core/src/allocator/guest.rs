//! A thread's first calls in a process of many heaps: all such threads share a heap that serves them.
//!
//! A heap takes a page, and so does the first slab of each class. Most threads of a large pool sleep and hold a few
//! blocks, which lie on pages that all of them share. Such a thread is a *guest*:
//!
//! ```text
//!   no heap --some calls--> a heap of its own        a larger block: at once
//! ```
//!
//! No two guests have bytes on one cache line. A malloc waits for the lock of the guests' heap for some milliseconds at
//! most: the thread that holds it may have lost its processor. A guest that leaves a call by longjmp leaves the heap locked
//! for good. Who waits in vain gets a heap of its own, and the next threads do at once, until the lock is seen free.

use super::Allocator;
use crate::class::{fit, Fit, LOCAL_CLASSES};
use crate::heap::{self, heap_of, HeapRef};
use crate::misuse::Misuse;
use crate::mutex::Uncounted;
use crate::os::Os;
use crate::remote::{self, Given};
use crate::slab::{SlabPtr, LINED};
use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::tls::{mark_busy, Phase, ThreadCache};
use crate::units::{Slot, LINE};

/// Heaps in use from which on a thread begins as a guest: few of them take few pages.
const GUESTS_FROM: u64 = 8;
/// Calls of a guest before it gets a heap of its own.
const GUEST_CALLS: u8 = 16;
/// How often a guest looks whether the guests' heap is free. A call takes less time.
const TRIES: usize = 100;
/// Milliseconds that a malloc then waits for it.
const PATIENCE: u64 = 30;

impl<O: Os> Allocator<O> {
    /// Whether the thread is a guest. It must not be interrupted.
    #[inline]
    fn is_guest(&self, thread: &ThreadCache) -> bool {
        let is_fresh = thread.phase.get() == Phase::Fresh && thread.calls.get() < GUEST_CALLS;
        if !is_fresh || !self.is_started() {
            return false;
        }
        let backend = &self.backend;
        let heaps = backend.meta.counters().heaps.load(Relaxed);
        let heaps = heaps + u64::from(self.coming.load(Relaxed));
        let has_guests = heaps >= GUESTS_FROM && !backend.draws() && !self.hard.is_on();
        has_guests && !self.has_forked()
    }

    /// Runs `work` with the guests' heap. `None` where another thread has its lock for longer than `patience` milliseconds,
    /// visits it, or holds it for good.
    fn by_guest<R>(
        &self,
        thread: &ThreadCache,
        patience: u64,
        work: impl FnOnce(HeapRef<O>) -> Result<Option<R>, Misuse>,
    ) -> Option<R> {
        let (outcome, noted) = {
            mark_busy!(thread => busy);
            // A handler before the mark may have made calls of its own, and even have got a heap.
            if !self.is_guest(thread) {
                return None;
            }
            thread.calls.set(thread.calls.get() + 1);
            // Those who are about to get heaps may have said neither yet.
            self.watch_forks();
            self.backend.heaps.count_two();
            let local = &*self.lock_guests(patience)?;
            let heap = heap_of(local).or_else(|| self.backend.take_shared_heap(local))?;
            let _inside = heap.come_in(busy)?;
            (work(heap.on(&self.backend)), heap.recorded_error())
        };
        self.tell(outcome, noted)
    }

    /// The caches of the guests' heap, which another thread may hold for a moment.
    fn lock_guests(&self, patience: u64) -> Option<Uncounted<'_, ThreadCache>> {
        let mut guests = None;
        for _ in 0..TRIES {
            guests = self.guests.uncounted_within(0);
            if guests.is_some() {
                break;
            }
            core::hint::spin_loop();
        }
        if guests.is_none() {
            if patience == 0 || self.guests_lost.load(Relaxed) != 0 {
                return None;
            }
            guests = self.guests.uncounted_within(patience);
        }
        self.guests_lost.store(guests.is_none().into(), Relaxed);
        guests
    }

    /// A slot for `size` bytes at a multiple of `align`, if the thread is a guest. Its cache lines are nobody else's: what a
    /// thread takes first it often writes to again and again.
    #[cold]
    #[inline(never)]
    pub(super) fn malloc_by_guest(
        &self,
        thread: &ThreadCache,
        size: usize,
        align: usize,
    ) -> Option<*mut u8> {
        let Fit::Slot(class) = fit(size, align.max(LINE)) else {
            return None;
        };
        if class.index() >= LOCAL_CLASSES || !self.is_guest(thread) {
            return None;
        }
        self.by_guest(thread, PATIENCE, |heap| {
            let slot = match heap.cache(class).take() {
                Some(slot) => Some(slot),
                None => self.take_slot(heap, class, (size, align))?,
            };
            // A sampled block lies in no slab.
            let slab = slot.and_then(|slot| self.backend.pages.slab_at(slot as usize));
            let is_ours = |slab: &SlabPtr| slab.owner.load(Relaxed).is_of(heap.me());
            if let Some(slab) = slab.filter(is_ours) {
                slab.set_flags(LINED);
            }
            Ok(slot)
        })
    }

    /// Frees a slot if the thread is a guest and needs no heap of its own for it.
    pub(super) fn free_by_guest(&self, slab: SlabPtr, slot: Slot, thread: &ThreadCache) -> bool {
        if thread.busy.get() != 0 || !self.is_guest(thread) {
            return false;
        }
        let freed = self.by_guest(thread, 0, |heap| {
            let owner = slab.owner.load(SeqCst).without_pending().without_full();
            let is_ours = owner == heap.me();
            Ok(is_ours.then(|| heap.free_elsewhere(slab, slot)))
        });
        match freed {
            Some(Ok(())) => self.stir(),
            Some(Err(misuse)) => self.misuse(&misuse),
            None => return self.free_others_by_guest(slab, slot, thread),
        }
        true
    }

    /// Marks a slot of another heap's slab. False where it is nobody's: who claims it needs a heap.
    fn free_others_by_guest(&self, slab: SlabPtr, slot: Slot, thread: &ThreadCache) -> bool {
        if !slab.owner.load(SeqCst).is_heap() {
            return false;
        }
        match remote::free_remote_fast(slab, slot, thread.me.get()) {
            Given::Marked(next) => self.tell_owner(slab, next, thread),
            Given::Dead => self.misuse(&heap::dead(slab, slot)),
            Given::Elsewhere => return false,
        }
        true
    }
}
