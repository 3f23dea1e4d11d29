//! Freeing: requeuing slabs on their lists, and what other threads and exited ones have to do with it.

use super::{dead, overlap, place, remote_overlap, Backend, Heap, SHARED_PART, SLABS, WATCH_PAGES};
use crate::class::CLASSES;
use crate::counters;
use crate::misuse::Misuse;
use crate::os::Os;
use crate::owner::{Listing, Owner, RELEASED};
use crate::remote::{self, Next};
use crate::slab::{SlabPtr, SlabTable, State, SAMPLED};
use crate::sync::{add_owned, xor_owned, Ordering::Relaxed, Ordering::SeqCst};
use crate::units::{bit_of, word_of, PAGE};
use core::sync::atomic::compiler_fence;

/// The slab's free slots and its `frees_left` at the same moment: a signal handler may free in between, which
/// counts `frees_left` down.
fn count_steadily(slab: SlabPtr) -> (usize, i32) {
    loop {
        let before = slab.frees_left.get();
        compiler_fence(SeqCst);
        let free = slab.count_free();
        compiler_fence(SeqCst);
        if slab.frees_left.get() == before {
            return (free, before);
        }
    }
}

impl<O: Os> Backend<O> {
    /// Gives back a slab that nobody owns any more, all of whose slots are free. Every release goes through here,
    /// so that the counters are told.
    pub(super) fn release(&self, slab: SlabPtr) {
        if slab.has(SAMPLED) {
            self.profile.end_slab(&self.meta, slab);
        }
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
    /// The slab's `frees_left` is zero: finds the list where it belongs now, or gives it back.
    pub fn requeue<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr) -> Result<(), Misuse> {
        if slab.is_span() && slab.state() == State::Full && slab.is_free(0) {
            return self.span_freed(backend, slab);
        }
        // A signal handler takes no slot of an active slab while it is judged.
        let active = slab.state() == State::Active && !slab.is_span();
        let hidden = active.then(|| self.cache(slab.class()).hide());
        let (free, before) = count_steadily(slab);
        let slots = slab.slots();
        self.account(slab, free);
        if slab.state() == State::Active && free != 0 && free != slots {
            self.count_no_frees(slab);
            if let Some(bits) = hidden {
                self.cache(slab.class()).show(bits);
            }
            return Ok(());
        }
        self.unlist(backend, slab);
        if slab.is_span() {
            return self.requeue_span(backend, slab, free == slots);
        }
        let this = &self.classes[slab.class()];
        let (state, frees_left) = place(free, slots);
        match state {
            State::Full => {
                self.fill_up(backend.table(), slab, before);
                return Ok(());
            }
            State::Partial => this.partial.push_back(backend.table(), slab),
            _ => return self.release(backend, slab),
        }
        slab.set_state(state);
        add_owned(&slab.frees_left, frees_left.wrapping_sub(before));
        Ok(())
    }

    /// Whether the slab is this heap's and its `frees_left` is zero.
    #[inline]
    pub fn is_spent(&self, slab: SlabPtr) -> bool {
        slab.owner.load(Relaxed).is_of(self.me()) && slab.frees_left.get() <= 0
    }

    /// The common half of [`Heap::requeue`]: false where more is to be done.
    #[inline]
    pub fn requeue_fast<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr) -> bool {
        if slab.is_span() {
            return self.span_freed_fast(backend, slab);
        }
        self.requeue_full(backend.table(), slab)
    }

    /// A full slab of slots that the heap owns all the same got its first free one, and waits for its turn from now
    /// on. False where it is none.
    #[inline]
    pub(super) fn requeue_full(&self, table: SlabTable, slab: SlabPtr) -> bool {
        if slab.state() != State::Full {
            return false;
        }
        self.classes[slab.class()].full.unlink(table, slab);
        self.queue_as_partial(table, slab);
        true
    }

    /// A full slab on no list, whose `frees_left` is zero, got its first free slot: it waits for its turn from now on.
    #[inline(always)]
    fn queue_as_partial(&self, table: SlabTable, slab: SlabPtr) {
        self.account(slab, 1);
        slab.set_state(State::Partial);
        // Frees by a signal handler since have made it less than zero.
        add_owned(&slab.frees_left, slab.slots() as i32 - 1);
        self.classes[slab.class()].partial.push_back(table, slab);
    }

    /// Frees `slot`, the first one, of a full slab, which becomes this heap's. False where it is no such slab, or
    /// more is to be done. The thread is marked busy.
    #[inline(always)]
    pub fn free_into_full<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr, slot: usize) -> bool {
        let owner = slab.owner.load(Relaxed);
        let word = slab.free_word(word_of(slot));
        if !owner.is_open() || slab.slots() == 1 || !remote::claim(slab, owner, self.me()) {
            return false;
        }
        self.note_claimed(backend, slab, owner);
        let bits = word.load(Relaxed);
        // Signal handlers that interrupted a slow path have freed into it.
        let others = slab.any_remote() || slab.frees_left.get() != 0;
        if others || bits & bit_of(slot) != 0 {
            let _ = self.collect(slab);
            return false;
        }
        xor_owned(word, bit_of(slot));
        self.queue_as_partial(backend.table(), slab);
        true
    }

    /// Takes `slab` off the list that its state names.
    pub(super) fn unlist<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr) {
        let table = backend.table();
        match slab.state() {
            _ if slab.is_span() => self.unlist_span(table, slab),
            State::Active => {
                self.classes[slab.class()].active.set(0);
                self.cache(slab.class()).drop_slots();
            }
            State::Partial => self.classes[slab.class()].partial.unlink(table, slab),
            State::Sparse => self.classes[slab.class()].sparse.unlink(table, slab),
            State::Full => self.classes[slab.class()].full.unlink(table, slab),
            _ => {}
        }
        slab.set_state(State::Unlisted);
    }

    /// Notes for the counters that `free` slots of `slab` are free.
    #[inline]
    pub(super) fn account(&self, slab: SlabPtr, free: usize) {
        let live = slab.slots() - free;
        let told = slab.counted.load(Relaxed) as usize;
        slab.counted.store(live as u16, Relaxed);
        let more = (live as isize - told as isize) * slab.size() as isize;
        self.live.set(self.live.get() + more as i64);
    }

    /// Tells the counters what was noted since the last time.
    pub fn flush_stats<O: Os>(&self, backend: &Backend<O>) {
        let counters = backend.meta.counters();
        counters::add(&counters.handed_out, self.take_untold());
        counters::add_with_peak(&counters.live, &counters.peak, self.live.take() as u64);
        self.heed_profile(backend);
    }

    /// Bytes that the counters take for handed out, and that the heap's thread has only cached.
    pub fn bytes_cached(&self) -> usize {
        let left = |class| {
            let cache = self.cache(class);
            cache.bits.get().count_ones() as usize * cache.size.get()
        };
        (0..CLASSES).map(left).sum()
    }

    /// Gives an unlisted slab back, all of whose slots are free.
    pub(super) fn release<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr) -> Result<(), Misuse> {
        if let Some(this) = self.classes.get(slab.class()) {
            this.count_lost(slab);
            this.grown.set(this.grown.get().saturating_sub(1));
        }
        while !remote::release_ownership(slab, self.me(), RELEASED) {
            self.collect(slab)?;
        }
        if slab.count_remote() != 0 {
            self.record_error(remote_overlap(slab));
            slab.drop_remote();
        }
        self.account(slab, slab.slots());
        self.flush_stats(backend);
        let released = self.released.get() + slab.pages();
        self.note_returned(SLABS, slab.pages() * PAGE);
        backend.release(slab);
        self.released.set(released % WATCH_PAGES);
        if released >= WATCH_PAGES {
            return self.watch_active(backend);
        }
        Ok(())
    }

    /// The heap's thread returned `bytes` bytes of a kind to the process.
    pub fn note_returned(&self, kind: usize, bytes: usize) {
        let returned = &self.returned[kind];
        returned.set(returned.get().saturating_add(bytes));
    }

    /// The heap's thread took `bytes` bytes of a kind: so many of those that it returned are in use again.
    pub fn note_taken(&self, kind: usize, bytes: usize) {
        let returned = &self.returned[kind];
        returned.set(returned.get().saturating_sub(bytes));
    }

    /// Much was released, so the heap's end may be near its return. Active slabs raise no event when they
    /// become empty and usually lie highest: they get their exact `frees_left`, or go at once.
    pub(super) fn watch_active<O: Os>(&self, backend: &Backend<O>) -> Result<(), Misuse> {
        for class in 0..CLASSES {
            if let Some(slab) = self.active(backend.table(), class) {
                let live = slab.slots() - slab.count_free();
                slab.frees_left.set(live as i32);
                if live == 0 {
                    self.requeue(backend, slab)?;
                }
            }
        }
        self.active_spans().for_each(|slab| slab.frees_left.set(1));
        self.bin_active_spans(backend)
    }

    /// The common half of [`Heap::free_elsewhere`]: frees `slot` of a slab of this heap's where no event
    /// follows. False where there is more to it, and where the slot is free already.
    #[inline]
    pub fn free_fast(&self, slab: SlabPtr, slot: usize) -> bool {
        let frees_left = slab.frees_left.get();
        let word = slab.free_word(word_of(slot));
        let bits = word.load(Relaxed);
        if slab.owner.load(Relaxed) != self.me()
            || bits & bit_of(slot) != 0
            || frees_left <= 1
            || slab.state() == State::Unlisted
        {
            return false;
        }
        word.store(bits | bit_of(slot), Relaxed);
        slab.frees_left.set(frees_left - 1);
        true
    }

    /// Frees `slot` of a slab that the thread does not own as it stands: another thread's, nobody's, or
    /// its own with remote frees waiting. The slot exists.
    pub fn free_elsewhere<O: Os>(
        &self,
        backend: &Backend<O>,
        slab: SlabPtr,
        slot: usize,
    ) -> Result<(), Misuse> {
        loop {
            let owner = slab.owner.load(SeqCst);
            if owner.is_of(self.me()) {
                let collected = if owner.is_pending() {
                    self.collect(slab)?
                } else {
                    0
                };
                return self.free_mine(backend, slab, slot, collected);
            }
            if owner == RELEASED {
                return Err(dead(slab, slot));
            }
            if owner.is_nobodys() && !owner.is_shared() {
                if self.claim(backend, slab, owner) {
                    let collected = self.collect(slab)?;
                    return self.free_mine(backend, slab, slot, collected);
                }
                continue;
            }
            if !remote::free_remote(slab, slot) {
                return Err(dead(slab, slot));
            }
            return self.notify(backend, slab);
        }
    }

    /// After a remote free: notifies the owner, or collects it if the owner has let go.
    pub fn notify<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr) -> Result<(), Misuse> {
        loop {
            match remote::raise_pending(slab) {
                Next::Done => return Ok(()),
                Next::Notify(owner) => {
                    backend.heaps.notify(backend, owner, slab);
                    return Ok(());
                }
                Next::Claim => {
                    let owner = slab.owner.load(SeqCst);
                    if owner.is_full_shared() {
                        backend.abandoned.list(backend.table(), slab, owner);
                    } else if owner.is_nobodys() && self.claim(backend, slab, owner) {
                        self.collect(slab)?;
                        return self.requeue(backend, slab);
                    }
                }
            }
        }
    }

    /// Makes a slab without owner this heap's: unlisted, its remote frees not collected yet.
    pub(super) fn claim<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr, owner: Owner) -> bool {
        let claimed = if owner.is_full() {
            remote::claim(slab, owner, self.me())
        } else {
            backend.abandoned.claim(backend.table(), slab, self.me())
        };
        if claimed {
            slab.set_state(State::Unlisted);
            self.note_claimed(backend, slab, owner);
        }
        claimed
    }

    /// A slab that nobody owned, whose owner word was `from`, is this heap's from now on.
    #[inline(always)]
    fn note_claimed<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr, from: Owner) {
        if from != self.me().with_full() && !slab.is_span() {
            self.note_change_of_hands(backend, slab, from);
        }
    }

    #[inline(never)]
    fn note_change_of_hands<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr, from: Owner) {
        self.classes[slab.class()].own();
        if from.without_full().is_heap() {
            backend
                .heaps
                .lose(backend, from.without_full(), slab.class());
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
        backend: &Backend<O>,
        slab: SlabPtr,
        slot: usize,
        collected: usize,
    ) -> Result<(), Misuse> {
        let word = slab.free_word(word_of(slot));
        let bits = word.load(Relaxed);
        if bits & bit_of(slot) != 0 {
            // Told of before the slab is requeued, which may release it. The program may go on.
            let misuse = dead(slab, slot);
            add_owned(&slab.frees_left, -(collected as i32));
            if slab.frees_left.get() <= 0 || slab.state() == State::Unlisted {
                self.requeue(backend, slab)?;
            }
            return Err(misuse);
        }
        // One instruction: a signal handler's own free into this word is not lost.
        xor_owned(word, bit_of(slot));
        add_owned(&slab.frees_left, -(1 + collected as i32));
        if slab.frees_left.get() <= 0 || slab.state() == State::Unlisted {
            return self.requeue(backend, slab);
        }
        Ok(())
    }

    /// Moves a slab's remote frees into its bitmap. Returns how many.
    pub(super) fn collect(&self, slab: SlabPtr) -> Result<usize, Misuse> {
        Ok(remote::collect(slab, self.me()).unwrap_or_else(|twice| {
            self.record_error(overlap(slab, twice));
            // How many is not known: enough that the slab is requeued by its bits.
            slab.slots()
        }))
    }

    /// Collects the remote frees of all slabs in the queue, unless it is closed.
    pub fn drain<O: Os>(&self, backend: &Backend<O>) -> Result<(), Misuse> {
        if !self.queue.holds_any() {
            return Ok(());
        }
        for slab in self.queue.take(backend.table()) {
            self.look_at_queued(backend, slab)?;
        }
        Ok(())
    }

    /// Has the next [`Heap::drain`] look at `slab`, which nobody owns and a signal handler of this thread has freed
    /// into. False where no drain follows.
    pub fn look_later(&self, slab: SlabPtr) -> bool {
        self.queue.push(slab)
    }

    pub(super) fn look_at_queued<O: Os>(
        &self,
        backend: &Backend<O>,
        slab: SlabPtr,
    ) -> Result<(), Misuse> {
        let owner = slab.owner.load(SeqCst);
        if owner.is_of(self.me()) {
            let collected = if owner.is_pending() {
                self.collect(slab)?
            } else {
                0
            };
            add_owned(&slab.frees_left, -(collected as i32));
            if self.is_mixed(slab, collected) {
                return self.share(backend, slab);
            }
            // 1: a signal handler's free counted `frees_left` down to zero, and could not requeue the slab.
            if slab.frees_left.get() <= 1 {
                return self.requeue(backend, slab);
            }
        } else if owner.is_nobodys() && slab.count_remote() != 0 {
            // A signal handler freed into it that could not claim it.
            return self.notify(backend, slab);
        } else if owner.is_heap() && owner.is_pending() && !owner.is_of(self.me()) {
            // It changed hands while it was queued here.
            backend.heaps.notify(backend, owner, slab);
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
    fn share<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr) -> Result<(), Misuse> {
        self.unlist(backend, slab);
        self.leave(backend, slab, Listing::Shared)
    }
}
