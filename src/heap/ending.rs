//! Letting go: decay of what lies unused, and all of it at the thread's end.

use super::{Ground, Heap, PULSE};
use crate::class::CLASSES;
use crate::geometry::SlabId;
use crate::misuse::Misuse;
use crate::options::Name;
use crate::os::Os;
use crate::remote::{self, FULL, LISTED};
use crate::slab::{List, SlabPtr, SlabTable};
use crate::sync::{Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::Entry;

impl Heap {
    /// Looks at the clock now and then, and lets what lay unused go.
    pub(super) fn pulse<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        let pulse = self.pulse.get();
        self.pulse.set(pulse.wrapping_add(1));
        if !pulse.is_multiple_of(PULSE)
            || self.asking.take() && !(pulse / PULSE).is_multiple_of(PULSE)
        {
            return Ok(());
        }
        self.look_at_clock(ground)
    }

    pub(super) fn look_at_clock<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        self.report(ground);
        if self.asked.load(Relaxed) != 0 {
            self.asked.store(0, Relaxed);
            self.give_back(ground)?;
        }
        self.decay(ground, ground.os.clock())
    }

    pub(super) fn decay<O: Os>(&self, ground: &Ground<O>, now: u64) -> Result<(), Misuse> {
        if self.last_decay.load(Relaxed) == 0 {
            self.last_decay.store(now, Relaxed);
        }
        let since = now.saturating_sub(self.last_decay.load(Relaxed));
        let interval = ground.options.get(Name::Decay) as u64;
        if since < interval {
            return Ok(());
        }
        self.last_decay.store(now, Relaxed);
        let quiet = ground.pages.quiet_for(now);
        self.bin_active_spans(ground)?;
        let idle = if since >= 2 * interval {
            self.binned_bytes.get()
        } else {
            self.binned_low.get()
        };
        self.shrink_bins(ground, self.binned_bytes.get() - idle)?;
        self.binned_low.set(self.binned_bytes.get());
        self.release_empty(ground)?;
        self.drain(ground)?;
        self.forget_lost();
        self.discard_holes(ground, since);
        self.report(ground);
        ground.large.decay(&ground.os, &ground.meta, now);
        ground.pages.tick(&ground.os, &ground.meta, now, quiet);
        Ok(())
    }

    /// Gives back all that the heap keeps for reuse. Whether others' frees were collected.
    pub fn give_back<O: Os>(&self, ground: &Ground<O>) -> Result<bool, Misuse> {
        let waited = self.queue.holds_any();
        self.drain(ground)?;
        // Before the bins are emptied: a span taken up goes to its bin.
        let strayed = self.take_up_strays(ground)?;
        self.bin_active_spans(ground)?;
        self.shrink_bins(ground, 0)?;
        self.release_empty(ground)?;
        self.discard_all_holes(ground);
        self.discard_listed(ground)?;
        Ok(waited || strayed)
    }

    /// Takes up slabs without an owner that were freed into by threads without a heap, who could not claim
    /// them: no free into them may ever follow that would. Whether there were any.
    fn take_up_strays<O: Os>(&self, ground: &Ground<O>) -> Result<bool, Misuse> {
        let mut result = Ok(());
        let mut any = false;
        ground.pages.each_slab(|slab| {
            let owner = slab.owner.load(SeqCst);
            if result.is_ok() && remote::is_nobodys(owner) && slab.count_remote() > 0 {
                result = self.notify(ground, slab);
                any = true;
            }
        });
        result.map(|()| any)
    }

    /// Gives back the active slabs that have become empty, which no event tells.
    fn release_empty<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        for class in 0..CLASSES {
            let active = self.active(ground.table(), class);
            if let Some(slab) = active.filter(|slab| slab.count_free() == slab.slots()) {
                self.settle(ground, slab)?;
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn active(&self, table: SlabTable, class: usize) -> Option<SlabPtr> {
        let id = SlabId(self.classes[class].active.get());
        id.is_some().then(|| table.get(id))
    }

    /// At the thread's end: nothing is owned any more. Empty slabs go back, full ones are opened, the
    /// others wait on the abandoned list.
    pub fn abandon_all<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        self.part_with_all(ground, |slab| self.abandon(ground, slab))
    }

    /// Closes the queue, gives back what is kept for reuse, and runs `part` with all else that is owned.
    pub(super) fn part_with_all<O: Os>(
        &self,
        ground: &Ground<O>,
        part: impl Fn(SlabPtr) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        let table = ground.table();
        for slab in self.queue.close(table) {
            self.look_at_queued(ground, slab)?;
        }
        for class in 0..CLASSES {
            let this = &self.classes[class];
            let partial = || self.active(table, class).or_else(|| this.turn.first(table));
            let partial = || partial().or_else(|| this.sparse.first(table));
            while let Some(slab) = partial().or_else(|| this.full.first(table)) {
                part(slab)?;
            }
        }
        self.bin_active_spans(ground)?;
        self.shrink_bins(ground, 0)?;
        for slab in self.active_spans() {
            part(slab)?;
        }
        while let Some(slab) = self.spans.first(table) {
            part(slab)?;
        }
        self.report(ground);
        Ok(())
    }

    pub(super) fn abandon<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        self.unlist(ground, slab);
        self.leave(ground, slab, LISTED)
    }

    /// Lets go of an unlisted slab: it waits on the process's list as `how` says, or, where it is full, for whoever
    /// frees into it first; an empty one goes back.
    pub(super) fn leave<O: Os>(
        &self,
        ground: &Ground<O>,
        slab: SlabPtr,
        how: u64,
    ) -> Result<(), Misuse> {
        loop {
            self.collect(slab)?;
            let (free, slots) = (slab.count_free(), slab.slots());
            self.tell(slab, free);
            if free == slots {
                return self.release(ground, slab);
            }
            // Once let go of, the header may soon stand for another slab.
            let this = self.classes.get(slab.class());
            if let Some(this) = this {
                this.disown(slab);
            }
            slab.credit.set(0);
            let left = match free {
                0 => remote::let_go(slab, self.me(), FULL),
                _ => ground.abandoned.leave(ground.table(), slab, self.me(), how),
            };
            if left {
                return Ok(());
            }
            if let Some(this) = this {
                this.own();
            }
        }
    }

    /// Forgets all lists and what is checked out, without touching slabs.
    pub(super) fn forget_all(&self) {
        for class in 0..CLASSES {
            let this = &self.classes[class];
            this.full.clear();
            self.lost[class].store(0, Relaxed);
            this.turn.clear();
            this.sparse.clear();
            this.cursor.set(0);
            this.turns.set(0);
            for counter in [
                &this.active,
                &this.owned,
                &this.grown,
                &this.poor,
                &this.slack,
            ] {
                counter.set(0);
            }
            if !self.local.get().is_null() {
                self.entry(class).drop_slots();
            }
        }
        self.entries.iter().for_each(Entry::drop_slots);
        self.bins.iter().for_each(List::clear);
        self.spans.clear();
        self.forget_active_spans();
        self.binned.set(0);
        for bytes in [&self.binned_bytes, &self.binned_low, &self.span_bytes] {
            bytes.set(0);
        }
    }
}
