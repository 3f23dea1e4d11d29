//! Letting go: decay of what lies unused, and all of it at the thread's end.

use super::{Backend, Heap, HeapRef, LEARNS_AFTER, OWNED_AGAIN, TICK_EVERY};
use crate::arch;
use crate::class::ClassId;
use crate::misuse::Misuse;
use crate::options::Name;
use crate::os::Os;
use crate::owner::{Listing, Owner};
use crate::remote;
use crate::slab::{List, SlabPtr};
use crate::sync::{Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::SlotCache;

impl<O: Os> Backend<O> {
    /// Lets go of what lay unused outside of the heaps for an interval, up to `now`. How long no slab had been released
    /// before the caller's own heap let go is `quiet`.
    pub fn decay(&self, now: u64, quiet: u64) {
        self.large.decay(self.supply(), now);
        self.pages.tick(self.supply(), now, quiet);
    }
}

impl<O: Os> HeapRef<'_, O> {
    /// Looks at the clock now and then, and lets what lay unused go.
    pub(super) fn tick(self) -> Result<(), Misuse> {
        let ticks = self.ticks.get();
        self.ticks.set(ticks.wrapping_add(1));
        if !ticks.is_multiple_of(TICK_EVERY)
            || self.asking.take() && !(ticks / TICK_EVERY).is_multiple_of(TICK_EVERY)
        {
            return Ok(());
        }
        self.look_at_clock()
    }

    /// The common half of [`HeapRef::tick`]: looks at the clock, and counts on if nothing is to be done. False where there
    /// may be something, or a refill asks by the long way.
    pub fn glance_at_clock(self) -> bool {
        let asks = self.asking.get() || self.backend.options.get(Name::GuardSample) != 0;
        if asks || self.asked.load(Relaxed) != 0 || self.backend.meta.budget.is_alarmed() {
            return false;
        }
        self.flush_stats();
        // Before the first look it is zero.
        let last = self.last_decay.load(Relaxed);
        let since = self.backend.os.clock().wrapping_sub(last);
        if last == 0 || since >= self.backend.options.get(Name::Decay) as u64 {
            return false;
        }
        let ticks = self.ticks.get();
        if ticks >= LEARNS_AFTER {
            arch::learn();
        }
        self.ticks.set(ticks.wrapping_add(1));
        true
    }

    /// Looks at the clock, and lets what lay unused go. A silent heap owes it.
    pub(super) fn look_at_clock(self) -> Result<(), Misuse> {
        self.flush_stats();
        if self.is_silent() {
            self.owe_tick();
            return Ok(());
        }
        let now = self.backend.os.clock();
        if let Some(quiet) = self.decay(now)? {
            self.backend.decay(now, quiet);
        }
        Ok(())
    }

    /// Whether anything follows from a look at the clock, which shows `now`. By any thread.
    pub fn is_tick_due(self, now: u64) -> bool {
        let last = self.last_decay.load(Relaxed);
        let interval = self.backend.options.get(Name::Decay) as u64;
        self.asked.load(Relaxed) != 0 || last == 0 || now.saturating_sub(last) >= interval
    }

    /// Lets go of what lay unused in the heap for an interval, or of all that it keeps where that was asked for. Where an
    /// interval is over, returns how long no slab had been released before: for [`Backend::decay`], which is to follow.
    pub fn decay(self, now: u64) -> Result<Option<u64>, Misuse> {
        if self.asked.load(Relaxed) != 0 {
            self.asked.store(0, Relaxed);
            self.give_back()?;
        }
        if self.last_decay.load(Relaxed) == 0 {
            self.last_decay.store(now, Relaxed);
        }
        let since = now.saturating_sub(self.last_decay.load(Relaxed));
        let interval = self.backend.options.get(Name::Decay) as u64;
        if since < interval {
            return Ok(None);
        }
        self.last_decay.store(now, Relaxed);
        let quiet = self.backend.pages.quiet_for(now);
        self.bin_active_spans()?;
        let idle = if since >= 2 * interval {
            self.binned_bytes.get()
        } else {
            self.binned_low.get()
        };
        self.shrink_bins(self.binned_bytes.get() - idle)?;
        self.binned_low.set(self.binned_bytes.get());
        self.drain()?;
        self.release_empty()?;
        self.forget_lost();
        self.discard_holes(since);
        self.flush_stats();
        Ok(Some(quiet))
    }

    /// Gives back all that the heap keeps for reuse.
    pub fn give_back(self) -> Result<(), Misuse> {
        self.drain()?;
        // Before the bins are emptied: a span taken up goes to its bin.
        self.take_up_strays()?;
        self.bin_active_spans()?;
        self.shrink_bins(0)?;
        self.release_empty()?;
        self.discard_all_holes();
        self.discard_listed()
    }

    /// Gives back slabs and spans that are kept for reuse, so that something else can have their addresses. Whether
    /// others' frees were collected. A program that is refused memory again and again pays for no search in
    /// vain: nothing is gone through again unless something was freed that may make a difference.
    pub fn give_back_whole(self) -> Result<bool, Misuse> {
        let waited = self.drain()?;
        let strayed = self.backend.abandoned.take_stray();
        if strayed {
            self.take_up_strays()?;
        }
        self.give_back_but(None)?;
        self.takes_smaller.set(true);
        Ok(waited || strayed)
    }

    /// Gives back the spans that are kept, and each active slab once it is empty, but for that of the class `kept`, which
    /// is of no use as it stands.
    pub fn give_back_but(self, kept: Option<ClassId>) -> Result<(), Misuse> {
        if !self.keeps_nothing.get() {
            self.watch_active_but(kept)?;
            self.shrink_bins(0)?;
            self.keeps_nothing.set(true);
        }
        Ok(())
    }

    /// What was of no use and stayed is used now.
    pub fn keeps_something(self) {
        self.keeps_nothing.set(false);
    }

    /// Whether more can be had than when the heap last asked: `gave` says that its own thread just gave something back,
    /// and another thread may have in between. So one of two threads that are refused at once does not go without what
    /// the other gave back for both.
    pub fn has_gained(self, gave: bool) -> bool {
        if gave {
            self.backend.returns.fetch_add(1, Relaxed);
        }
        // Another thread's pages are free one by one, and its `gave` comes late.
        let given_up = self.backend.pages.given_up();
        let returns = self.backend.returns.load(Relaxed).wrapping_add(given_up);
        self.seen_returns.replace(returns) != returns
    }

    /// Takes up slabs without an owner that were freed into by threads without a heap, who could not claim
    /// them: no free into them may ever follow that would.
    fn take_up_strays(self) -> Result<(), Misuse> {
        let mut result = Ok(());
        self.backend.pages.each_slab(|slab| {
            let owner = slab.owner.load(SeqCst);
            if result.is_ok() && owner.is_nobodys() && slab.count_remote() > 0 {
                result = self.notify(slab);
            }
        });
        result
    }

    /// Gives back the active slabs that have become empty, for which there is no event.
    fn release_empty(self) -> Result<(), Misuse> {
        for class in ClassId::all() {
            let active = self.active(class);
            if let Some(slab) = active.filter(|slab| slab.count_free() == slab.slots()) {
                self.requeue(slab)?;
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn active(self, class: ClassId) -> Option<SlabPtr> {
        self.table().find(self.classes[class.index()].active.get())
    }

    /// At the thread's end: nothing is owned any more. Empty slabs go back, full ones are opened, the
    /// others wait on the abandoned list. What the thread freed is nothing that it takes again, so it goes back.
    pub fn abandon_all(self) -> Result<(), Misuse> {
        self.part_with_all(|slab| self.abandon(slab))?;
        self.backend
            .give_back_at_end([0, 1].map(|kind| self.returned[kind].replace(0)));
        Ok(())
    }

    /// Closes the queue, gives back what is kept for reuse, and runs `part` with all else that is owned.
    pub(super) fn part_with_all(
        self,
        part: impl Fn(SlabPtr) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        let table = self.table();
        for slab in self.queue.close(table) {
            self.look_at_queued(slab)?;
        }
        for class in ClassId::all() {
            let this = &self.classes[class.index()];
            let partial = || self.active(class).or_else(|| this.partial.first(table));
            let partial = || partial().or_else(|| this.sparse.first(table));
            while let Some(slab) = partial().or_else(|| this.full.first(table)) {
                part(slab)?;
            }
        }
        self.bin_active_spans()?;
        self.shrink_bins(0)?;
        while let Some(slab) = self.spans.first(table) {
            part(slab)?;
        }
        self.flush_stats();
        Ok(())
    }

    pub(super) fn abandon(self, slab: SlabPtr) -> Result<(), Misuse> {
        self.unlist(slab);
        self.leave(slab, Listing::Listed)
    }

    /// Lets go of an unlisted slab: it waits on the process's list as `how` says, or, where it is full, for whoever
    /// frees into it first. An empty one goes back.
    pub(super) fn leave(self, slab: SlabPtr, how: Listing) -> Result<(), Misuse> {
        loop {
            // Before slots are counted: from now on it says how many a signal handler frees.
            slab.frees_left.set(0);
            self.collect(slab)?;
            let (free, slots) = (slab.count_free(), slab.slots());
            self.account(slab, free);
            if free == slots {
                return self.release(slab);
            }
            // Once let go of, the header may soon stand for another slab.
            let this = self.classes.get(slab.class().index());
            if let Some(this) = this {
                this.count_lost(slab);
            }
            let left = match free {
                0 => remote::release_ownership(slab, self.me(), self.full_word(slab, how)),
                _ => self.backend.abandoned.leave(slab, self.me(), how),
            };
            if left {
                return Ok(());
            }
            if let Some(this) = this {
                this.own();
            }
        }
    }

    /// The owner word of a full slab that is let go of and would be listed as `how`. One in some that were shared is
    /// whose who frees into it first: where one thread alone frees by now, its slabs become its own again by and by.
    fn full_word(self, slab: SlabPtr, how: Listing) -> Owner {
        if how == Listing::Listed || slab.is_span() {
            return Owner::FULL;
        }
        let filled = self.filled_shared.get().wrapping_add(1);
        self.filled_shared.set(filled);
        let alone = || self.backend.meta.counters().heaps.load(Relaxed) <= 1;
        // One in this heap's queue still is nobody's own: who claimed it could not be told of frees (`HeapRef::can_open`).
        if (filled.is_multiple_of(OWNED_AGAIN) || alone()) && !remote::is_queued(slab) {
            return Owner::FULL;
        }
        Owner::full_shared(slab.class())
    }
}

impl Heap {
    /// Whether the next refill looks at the clock.
    #[inline(always)]
    pub fn is_clock_due(&self) -> bool {
        self.ticks.get().is_multiple_of(TICK_EVERY)
    }

    /// Forgets all lists and what is cached, without touching slabs.
    pub(super) fn forget_all(&self) {
        self.returned.iter().for_each(|returned| returned.set(0));
        for class in ClassId::all() {
            self.classes[class.index()].forget();
            if self.lost[class.index()].load(Relaxed) != 0 {
                self.lost[class.index()].store(0, Relaxed);
            }
            if !self.local.get().is_null() {
                self.cache(class).drop_slots();
            }
        }
        self.caches.iter().for_each(SlotCache::drop_slots);
        let used = self.bins.iter().filter(|bin| !bin.is_empty());
        used.for_each(List::clear);
        self.spans.clear();
        self.profiling.forget_due();
        self.forget_thin();
        self.forget_active_spans();
        self.keeps_nothing.set(false);
        self.takes_smaller.set(false);
        self.be_silent(false);
        self.binned.set(0);
        for bytes in [&self.binned_bytes, &self.binned_low, &self.span_bytes] {
            bytes.set(0);
        }
    }
}
