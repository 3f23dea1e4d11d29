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
//!
//! No system call is made under the lock. The heap is a *silent* one (`heap::Owed`): it says what it lacks and owes. The
//! guest gives the lock back, gets that and tries again, as others may have been faster. What lay idle goes back while the
//! guest keeps the heap's door, and then others do not wait:
//!
//! ```text
//!   lock  no slot, no free pages   unlock   the break moves   lock  a slot   unlock
//!   lock  a slot, a tick is due    unlock   lock  hold the door  unlock   discard, trim   release the door
//! ```

use super::{put_back, Allocator};
use crate::class::{fit, ClassId, Fit, LOCAL_CLASSES};
use crate::heap::{self, heap_of, Alone, Heap, HeapRef, Owed};
use crate::misuse::Misuse;
use crate::mutex::Uncounted;
use crate::os::Os;
use crate::owner::Owner;
use crate::profile::Taken;
use crate::remote::{self, Given};
use crate::slab::{SlabPtr, LINED};
use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::tls::{mark_busy, Busy, Phase, ThreadCache};
use crate::units::{Slot, LINE};

/// Heaps in use from which on a thread begins as a guest: few of them take few pages.
const GUESTS_FROM: u64 = 8;
/// Calls of a guest before it gets a heap of its own.
const GUEST_CALLS: u8 = 16;
/// How often a guest looks whether the guests' heap is free. A call takes less time.
const TRIES: usize = 100;
/// Milliseconds that a malloc then waits for it.
const PATIENCE: u64 = 30;
/// How often a guest tries, and gets in between what the guests' heap lacks: a heap at first, then room for a slab, which
/// others may take before it does.
const TURNS: usize = 5;

/// What the guests' heap lacks.
enum Lack {
    /// There is none yet.
    Heap,
    /// Free pages or a header for a slab of this class and so many pages.
    Room(ClassId, usize),
}

/// What was done under the lock once.
struct Turn<R> {
    outcome: Result<Option<R>, Misuse>,
    /// A slot that was found freed twice, and mended.
    noted: Option<Misuse>,
    owed: Owed,
    /// Why nothing came of it, where another turn may help.
    lack: Option<Lack>,
}

impl<R> Turn<R> {
    fn without_heap() -> Turn<R> {
        Turn {
            outcome: Ok(None),
            noted: None,
            owed: Owed::default(),
            lack: Some(Lack::Heap),
        }
    }
}

/// What the guests' heap has for one of them.
enum Lined {
    /// A slot, and the sample of the heap profile that it is, in which slab.
    Slot(*mut u8, Option<(SlabPtr, Taken)>),
    /// A block with a guard page is due.
    Guarded,
}

impl<O: Os> Allocator<O> {
    /// Whether nobody holds a lock that is never held over a system call. That of the guests' heap is one.
    pub fn short_locks_are_free(&self) -> bool {
        !self.guests.as_lock().is_held()
            && self.backend.short_locks_are_free()
            && self.hard.short_locks_are_free()
    }

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

    /// Runs `work` with the guests' heap under its lock, and `then` with what it came to once the lock is given back. `None`
    /// where another thread has the lock for longer than `patience` milliseconds, visits the heap, or holds it for good.
    fn by_guest<R, T>(
        &self,
        thread: &ThreadCache,
        patience: u64,
        work: impl Fn(HeapRef<O>) -> Result<Option<R>, Misuse>,
        then: impl FnOnce(R) -> T,
    ) -> Option<T> {
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
            let (outcome, noted) = self.by_turns(busy, patience, work);
            (outcome.map(|found| found.map(then)), noted)
        };
        self.tell(outcome, noted)
    }

    /// Tries `work` until the heap lacks nothing for it, and gets what it lacks in between, with no lock held.
    fn by_turns<R>(
        &self,
        busy: &Busy,
        patience: u64,
        work: impl Fn(HeapRef<O>) -> Result<Option<R>, Misuse>,
    ) -> (Result<Option<R>, Misuse>, Option<Misuse>) {
        let mut noted = None;
        for _ in 0..TURNS {
            let Some(turn) = self.take_turn(busy, patience, &work) else {
                break;
            };
            noted = noted.or(turn.noted);
            // Threads that are gone hold locks in a fork child, which a handler may have made.
            if self.has_forked() {
                return (turn.outcome, noted);
            }
            noted = noted.or(self.pay(turn.owed));
            let is_there = match turn.lack {
                None => return (turn.outcome, noted),
                Some(Lack::Heap) => self.give_guests_a_heap(patience),
                Some(Lack::Room(class, pages)) => self.backend.make_room(class, pages),
            };
            if !is_there {
                break;
            }
        }
        (Ok(None), noted)
    }

    /// Runs `work` under the lock of the guests' heap. No system call is made.
    fn take_turn<R>(
        &self,
        busy: &Busy,
        patience: u64,
        work: impl Fn(HeapRef<O>) -> Result<Option<R>, Misuse>,
    ) -> Option<Turn<R>> {
        let local = &*self.lock_guests(patience)?;
        let Some(heap) = heap_of(local) else {
            return Some(Turn::without_heap());
        };
        let _inside = heap.come_in(busy)?;
        let outcome = work(heap.on(&self.backend));
        let owed = heap.take_owed();
        let lacks = owed.lacks().filter(|_| matches!(outcome, Ok(None)));
        Some(Turn {
            outcome,
            noted: heap.recorded_error(),
            owed,
            lack: lacks.map(|(class, pages)| Lack::Room(class, pages)),
        })
    }

    /// Gives the guests a heap, unless another thread does. False where there are too many heaps.
    #[cold]
    fn give_guests_a_heap(&self, patience: u64) -> bool {
        let Some(spare) = self.backend.spare_heap() else {
            return false;
        };
        let is_needed = match self.lock_guests(patience) {
            Some(local) if heap_of(&local).is_none() => {
                self.backend.begin_silent_heap(spare, &local);
                true
            }
            _ => false,
        };
        if !is_needed {
            self.backend.put_away(spare);
        }
        true
    }

    /// Does what the guests' heap has put off, with no lock held. What was found freed twice on the way.
    fn pay(&self, owed: Owed) -> Option<Misuse> {
        let backend = &self.backend;
        if let Some(end) = owed.released() {
            backend.pages.heed_release(backend.supply(), end);
        }
        owed.has_tick().then(|| self.tick_of_guests()).flatten()
    }

    /// The guests' heap for the calling thread alone, with its lock given back. `None` where another thread has it, or there
    /// is none.
    pub fn guests_heap_alone(&self) -> Option<Alone<'_>> {
        self.guests_heap_alone_if(|_| true)
    }

    fn guests_heap_alone_if(&self, is_wanted: impl Fn(&Heap) -> bool) -> Option<Alone<'_>> {
        let local = &*self.lock_guests(0)?;
        heap_of(local).filter(|heap| is_wanted(heap))?;
        self.backend.keep_others_out(local)
    }

    /// Lets what lay unused go, if it is time. The guests' heap is the thread's alone meanwhile: other guests do not wait
    /// for it.
    fn tick_of_guests(&self) -> Option<Misuse> {
        let backend = &self.backend;
        let now = backend.os.clock();
        let alone = self.guests_heap_alone_if(|heap| heap.on(backend).is_tick_due(now))?;
        let outcome = alone.heap().on(backend).decay(now);
        let noted = alone.heap().recorded_error();
        drop(alone);
        match outcome {
            Ok(Some(quiet)) => backend.decay(now, quiet),
            Ok(None) => {}
            Err(misuse) => return Some(misuse),
        }
        noted
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
        let take = |heap: HeapRef<O>| self.take_lined(heap, class);
        let give = |taken| self.sampled(taken, (size, align));
        let taken = self.by_guest(thread, PATIENCE, take, give)?;
        taken.or_else(|| self.by_guest(thread, PATIENCE, take, give).flatten())
    }

    /// A slot of `class` from the guests' heap.
    fn take_lined(&self, heap: HeapRef<O>, class: ClassId) -> Result<Option<Lined>, Misuse> {
        let cache = heap.cache(class);
        let cached = cache.take();
        let is_refill = cached.is_none();
        let slot = match cached {
            Some(slot) => Some(slot),
            None => heap.refill(class)?,
        };
        let lined = |slot| Some((slot, self.backend.pages.slab_at(slot as usize)?));
        let Some((slot, slab)) = slot.and_then(lined) else {
            return Ok(None);
        };
        slab.set_flags(LINED);
        if heap.owes_sample() {
            let sample = heap.owed_sample(slab, slot as usize);
            return Ok(Some(Lined::Slot(slot, Some((slab, sample)))));
        }
        if is_refill && heap.is_due(&self.backend.options, || heap.own_word()) {
            put_back(cache, slot);
            heap.was_sampled();
            return Ok(Some(Lined::Guarded));
        }
        Ok(Some(Lined::Slot(slot, None)))
    }

    /// What was `taken` from the guests' heap, once it is sampled where that is due. With no lock held. `None` where no block
    /// can be guarded.
    fn sampled(&self, taken: Lined, (size, align): (usize, usize)) -> Option<*mut u8> {
        let backend = &self.backend;
        // Threads that are gone hold locks in a fork child, which a handler may have made.
        let may_lock = !self.has_forked();
        match taken {
            Lined::Slot(slot, sample) => {
                if let Some((slab, sample)) = sample.filter(|_| may_lock) {
                    backend.take_owed_sample(slab, &sample);
                }
                Some(slot)
            }
            Lined::Guarded if may_lock => {
                let block = self.samples.take(&backend.os, size, align, Owner::NONE)?;
                Some(block as *mut u8)
            }
            Lined::Guarded => None,
        }
    }

    /// Frees a slot if the thread is a guest and needs no heap of its own for it.
    pub(super) fn free_by_guest(&self, slab: SlabPtr, slot: Slot, thread: &ThreadCache) -> bool {
        if thread.busy.get() != 0 || !self.is_guest(thread) {
            return false;
        }
        let free = |heap: HeapRef<O>| {
            let owner = slab.owner.load(SeqCst).without_pending().without_full();
            let is_ours = owner == heap.me();
            Ok(is_ours.then(|| heap.free_elsewhere(slab, slot)))
        };
        let freed = self.by_guest(thread, 0, free, |freed| freed);
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
