//! Freeing: settling slabs on their lists, and what other threads and exited ones have to do with it.

use super::{dead, overlap, place, remote_overlap, Ground, Heap, SHARED_PART, WATCH_PAGES};
use crate::class::{CLASSES, SPAN};
use crate::counters;
use crate::geometry::{bit_of, word_of};
use crate::misuse::Misuse;
use crate::os::Os;
use crate::remote::{self, Next, FULL, PENDING, RELEASED, SHARED};
use crate::slab::{SlabPtr, SlabTable, State, CREDIT_HUGE};
use crate::sync::{flip, shift, Ordering::Relaxed, Ordering::SeqCst};
use core::sync::atomic::compiler_fence;

/// The slab's free slots and its credit at the same moment: a signal handler may free in between, which
/// takes from the credit.
fn count_steadily(slab: SlabPtr) -> (usize, i32) {
    loop {
        let before = slab.credit.get();
        compiler_fence(SeqCst);
        let free = slab.count_free();
        compiler_fence(SeqCst);
        if slab.credit.get() == before {
            return (free, before);
        }
    }
}

impl<O: Os> Ground<O> {
    /// Gives back a slab that nobody owns any more, all of whose slots are free. Every release goes through here,
    /// so that the counters are told.
    pub(super) fn release(&self, slab: SlabPtr) {
        let counters = self.meta.counters();
        let untold = slab.counted.load(Relaxed) as usize * slab.size();
        counters::subtract(&counters.live, untold as u64);
        slab.counted.store(0, Relaxed);
        if slab.is_span() {
            counters::subtract(&counters.spans, 1);
        } else {
            counters::subtract(&counters.slabs[slab.class()], 1);
        }
        self.pages.release(&self.os, &self.meta, slab);
    }
}

impl Heap {
    /// The slab's credit is used up: finds the list where it belongs now, or gives it back.
    pub fn settle<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        if slab.is_span() && slab.state() == State::Full && slab.is_free(0) {
            return self.span_freed(ground, slab);
        }
        // A signal handler takes no slot of an active slab while it is judged.
        let active = slab.state() == State::Active && !slab.is_span();
        let hidden = active.then(|| self.entry(slab.class()).hide());
        let (free, before) = count_steadily(slab);
        let slots = slab.slots();
        self.tell(slab, free);
        if slab.state() == State::Active && free != 0 && free != slots {
            slab.credit.set(CREDIT_HUGE);
            if let Some(bits) = hidden {
                self.entry(slab.class()).show(bits);
            }
            return Ok(());
        }
        self.unlist(ground, slab);
        if slab.is_span() {
            return self.settle_span(ground, slab, free == slots);
        }
        let this = &self.classes[slab.class()];
        let (state, credit) = place(free, slots);
        match state {
            State::Full => {
                self.fill_up(ground.table(), slab, before);
                return Ok(());
            }
            State::Partial => this.turn.push_back(ground.table(), slab),
            _ => return self.release(ground, slab),
        }
        slab.set_state(state);
        shift(&slab.credit, credit.wrapping_sub(before));
        Ok(())
    }

    /// Whether the slab is this heap's and its credit is used up.
    #[inline]
    pub fn is_spent(&self, slab: SlabPtr) -> bool {
        slab.owner.load(Relaxed) & !PENDING == self.me() && slab.credit.get() <= 0
    }

    /// A full slab of slots that the heap owns all the same got its first free one, and waits for its turn from now
    /// on. False where that is not all there is to do.
    #[inline]
    pub fn settle_at_once(&self, table: SlabTable, slab: SlabPtr) -> bool {
        let class = slab.class();
        if slab.state() != State::Full || class == SPAN {
            return false;
        }
        self.classes[class].full.unlink(table, slab);
        self.wait_for_turn(table, slab);
        true
    }

    /// A full slab on no list, whose credit is zero, got its first free slot: it waits for its turn from now on.
    #[inline(always)]
    fn wait_for_turn(&self, table: SlabTable, slab: SlabPtr) {
        self.tell(slab, 1);
        slab.set_state(State::Partial);
        // Frees by a signal handler since have made it less than zero.
        shift(&slab.credit, slab.slots() as i32 - 1);
        self.classes[slab.class()].turn.push_back(table, slab);
    }

    /// Frees `slot`, the first one, of a full slab, which becomes this heap's. False where it is no such slab, or
    /// more is to be done. The thread is marked busy.
    #[inline(always)]
    pub fn free_into_full<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr, slot: usize) -> bool {
        let owner = slab.owner.load(Relaxed);
        let word = slab.free_word(word_of(slot));
        if owner & FULL == 0 || slab.slots() == 1 || !remote::claim(slab, owner, self.me()) {
            return false;
        }
        self.note_claimed(ground, slab, owner);
        let bits = word.load(Relaxed);
        // Signal handlers that interrupted a slow path have freed into it.
        let others = slab.any_remote() || slab.credit.get() != 0;
        if others || bits & bit_of(slot) != 0 {
            let _ = self.collect(slab);
            return false;
        }
        flip(word, bit_of(slot));
        self.wait_for_turn(ground.table(), slab);
        true
    }

    /// Takes `slab` off the list that its state names.
    pub(super) fn unlist<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) {
        let table = ground.table();
        match slab.state() {
            State::Active if slab.is_span() => self.deactivate_span(slab),
            State::Active => {
                self.classes[slab.class()].active.set(0);
                self.entry(slab.class()).drop_slots();
            }
            State::Partial => self.classes[slab.class()].turn.unlink(table, slab),
            State::Sparse => self.classes[slab.class()].sparse.unlink(table, slab),
            State::Full if slab.is_span() => {
                self.spans.unlink(table, slab);
                self.span_bytes.set(self.span_bytes.get() - slab.size());
            }
            State::Binned => self.unbin(table, slab),
            State::Full => self.classes[slab.class()].full.unlink(table, slab),
            State::Unlisted | State::Abandoned | State::Released | State::Kept => {}
        }
        slab.set_state(State::Unlisted);
    }

    /// Notes for the counters that `free` slots of `slab` are free.
    #[inline]
    pub(super) fn tell(&self, slab: SlabPtr, free: usize) {
        let live = slab.slots() - free;
        let told = slab.counted.load(Relaxed) as usize;
        slab.counted.store(live as u32, Relaxed);
        let more = (live as isize - told as isize) * slab.size() as isize;
        self.live.set(self.live.get() + more as i64);
    }

    /// Tells the counters what was noted since the last time.
    pub fn report<O: Os>(&self, ground: &Ground<O>) {
        let counters = ground.meta.counters();
        counters::add(&counters.handed_out, self.handed.take());
        counters::add_with_peak(&counters.live, &counters.peak, self.live.take() as u64);
    }

    /// Bytes that the counters take for handed out, and that the heap's thread has only checked out.
    pub fn bytes_checked_out(&self) -> usize {
        let left = |class| {
            let entry = self.entry(class);
            entry.bits.get().count_ones() as usize * entry.size.get()
        };
        (0..CLASSES).map(left).sum()
    }

    /// Gives an unlisted slab back, all of whose slots are free.
    pub(super) fn release<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        if let Some(this) = self.classes.get(slab.class()) {
            this.disown(slab);
            this.grown.set(this.grown.get().saturating_sub(1));
        }
        while !remote::let_go(slab, self.me(), RELEASED) {
            self.collect(slab)?;
        }
        if slab.count_remote() != 0 {
            self.note(remote_overlap(slab));
            slab.drop_remote();
        }
        self.tell(slab, slab.slots());
        self.report(ground);
        let released = self.released.get() + slab.pages();
        ground.release(slab);
        self.released.set(released % WATCH_PAGES);
        if released >= WATCH_PAGES {
            return self.watch_active(ground);
        }
        Ok(())
    }

    /// Much was released, so the heap's end may be near its return. Active slabs raise no event when they
    /// become empty and usually lie highest: they get their exact credit, or go at once.
    fn watch_active<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        for class in 0..CLASSES {
            if let Some(slab) = self.active(ground.table(), class) {
                let live = slab.slots() - slab.count_free();
                slab.credit.set(live as i32);
                if live == 0 {
                    self.settle(ground, slab)?;
                }
            }
        }
        self.active_spans().for_each(|slab| slab.credit.set(1));
        self.bin_active_spans(ground)
    }

    /// The common half of [`Heap::free_elsewhere`]: frees `slot` of a slab of this heap's where no event
    /// follows. False where there is more to it, and where the slot is free already.
    #[inline]
    pub fn free_at_once(&self, slab: SlabPtr, slot: usize) -> bool {
        let credit = slab.credit.get();
        let word = slab.free_word(word_of(slot));
        let bits = word.load(Relaxed);
        if slab.owner.load(Relaxed) != self.me()
            || bits & bit_of(slot) != 0
            || credit <= 1
            || slab.state() == State::Unlisted
        {
            return false;
        }
        word.store(bits | bit_of(slot), Relaxed);
        slab.credit.set(credit - 1);
        true
    }

    /// Frees `slot` of a slab that the thread does not own as it stands: another thread's, nobody's, or
    /// its own with remote frees waiting. The slot exists.
    pub fn free_elsewhere<O: Os>(
        &self,
        ground: &Ground<O>,
        slab: SlabPtr,
        slot: usize,
    ) -> Result<(), Misuse> {
        loop {
            let owner = slab.owner.load(SeqCst);
            if owner & !PENDING == self.me() {
                let collected = if owner & PENDING != 0 {
                    self.collect(slab)?
                } else {
                    0
                };
                return self.free_mine(ground, slab, slot, collected);
            }
            if owner == RELEASED {
                return Err(dead(slab, slot));
            }
            if remote::is_nobodys(owner) && !remote::is_shared(owner) {
                if self.claim(ground, slab, owner) {
                    let collected = self.collect(slab)?;
                    return self.free_mine(ground, slab, slot, collected);
                }
                continue;
            }
            if !remote::give_remote(slab, slot) {
                return Err(dead(slab, slot));
            }
            return self.notify(ground, slab);
        }
    }

    /// After a remote free: tells the owner, or collects it where the owner has let go.
    pub fn notify<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        loop {
            match remote::raise_pending(slab) {
                Next::Done => return Ok(()),
                Next::Notify(owner) => {
                    ground.heaps.notify(ground, owner, slab);
                    return Ok(());
                }
                Next::Claim => {
                    let owner = slab.owner.load(SeqCst);
                    if remote::is_nobodys(owner) && self.claim(ground, slab, owner) {
                        self.collect(slab)?;
                        return self.settle(ground, slab);
                    }
                }
            }
        }
    }

    /// Makes a slab without owner this heap's: unlisted, its remote frees not collected yet.
    pub(super) fn claim<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr, owner: u64) -> bool {
        let claimed = if owner & FULL != 0 {
            remote::claim(slab, owner, self.me())
        } else {
            ground.abandoned.claim(ground.table(), slab, self.me())
        };
        if claimed {
            slab.set_state(State::Unlisted);
            self.note_claimed(ground, slab, owner);
        }
        claimed
    }

    /// A slab that nobody owned, whose owner word was `from`, is this heap's from now on.
    #[inline(always)]
    fn note_claimed<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr, from: u64) {
        if from != self.me() | FULL && !slab.is_span() {
            self.note_change_of_hands(ground, slab, from);
        }
    }

    #[inline(never)]
    fn note_change_of_hands<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr, from: u64) {
        self.classes[slab.class()].own();
        if remote::is_heap(from & !FULL) {
            ground.heaps.lose(ground, from & !FULL, slab.class());
        }
    }

    /// A slab of `class` that the heap owned last is another's now. By any thread.
    pub(super) fn lose(&self, class: usize) {
        self.lost[class].fetch_add(1, Relaxed);
    }

    /// Counts the slabs no more that others have claimed.
    pub(super) fn forget_lost(&self) {
        for (this, lost) in self.classes.iter().zip(&self.lost) {
            if lost.load(Relaxed) != 0 {
                let lost = lost.swap(0, Relaxed);
                this.owned.set(this.owned.get().saturating_sub(lost));
            }
        }
    }

    /// Frees `slot` of a slab of this heap's, after `collected` remote frees.
    pub(super) fn free_mine<O: Os>(
        &self,
        ground: &Ground<O>,
        slab: SlabPtr,
        slot: usize,
        collected: usize,
    ) -> Result<(), Misuse> {
        let word = slab.free_word(word_of(slot));
        let bits = word.load(Relaxed);
        if bits & bit_of(slot) != 0 {
            // Told of before the slab is settled, which may release it; the program may go on.
            let misuse = dead(slab, slot);
            shift(&slab.credit, -(collected as i32));
            if slab.credit.get() <= 0 || slab.state() == State::Unlisted {
                self.settle(ground, slab)?;
            }
            return Err(misuse);
        }
        // One instruction: a signal handler's own free into this word is not lost.
        flip(word, bit_of(slot));
        shift(&slab.credit, -(1 + collected as i32));
        if slab.credit.get() <= 0 || slab.state() == State::Unlisted {
            return self.settle(ground, slab);
        }
        Ok(())
    }

    /// Moves a slab's remote frees into its bitmap; how many.
    pub(super) fn collect(&self, slab: SlabPtr) -> Result<usize, Misuse> {
        Ok(remote::collect(slab, self.me()).unwrap_or_else(|twice| {
            self.note(overlap(slab, twice));
            // How many is not known: enough that the slab is settled by its bits.
            slab.slots()
        }))
    }

    /// Collects the remote frees of all slabs in the queue, unless it is closed.
    pub fn drain<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        if !self.queue.holds_any() {
            return Ok(());
        }
        for slab in self.queue.take(ground.table()) {
            self.look_at_queued(ground, slab)?;
        }
        Ok(())
    }

    /// Has the next [`Heap::drain`] look at `slab`, which nobody owns and a signal handler of this thread has freed
    /// into.
    pub fn look_later(&self, slab: SlabPtr) {
        self.queue.push(slab);
    }

    pub(super) fn look_at_queued<O: Os>(
        &self,
        ground: &Ground<O>,
        slab: SlabPtr,
    ) -> Result<(), Misuse> {
        let owner = slab.owner.load(SeqCst);
        if owner & !PENDING == self.me() {
            let collected = if owner & PENDING != 0 {
                self.collect(slab)?
            } else {
                0
            };
            shift(&slab.credit, -(collected as i32));
            if self.is_mixed(slab, collected) {
                return self.share(ground, slab);
            }
            // 1: a signal handler's free used the credit up, and could not settle the slab.
            if slab.credit.get() <= 1 {
                return self.settle(ground, slab);
            }
        } else if remote::is_nobodys(owner) && slab.count_remote() != 0 {
            // A signal handler freed into it that could not claim it.
            return self.notify(ground, slab);
        } else if remote::is_heap(owner) && owner & PENDING != 0 && owner & !PENDING != self.me() {
            // It changed hands while it was queued here.
            ground.heaps.notify(ground, owner, slab);
        }
        Ok(())
    }

    /// Whether others free into `slab`, of which so many frees were `collected` just now, about as much as its owner.
    fn is_mixed(&self, slab: SlabPtr, collected: usize) -> bool {
        let waits =
            matches!(slab.state(), State::Partial | State::Sparse | State::Full) && !slab.is_span();
        waits && collected != 0 && !self.arena.get() && {
            let free = slab.count_free();
            free < slab.slots() && SHARED_PART * collected >= free - collected
        }
    }

    /// Lets all threads have the free slots of `slab`: it waits on the process's list.
    fn share<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        self.unlist(ground, slab);
        self.leave(ground, slab, SHARED)
    }
}
