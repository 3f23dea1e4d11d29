//! Freeing: requeuing slabs on their lists, and what other threads and exited ones have to do with it.

use super::thin::{free_before, frees_after_first, frees_until_event, is_thin, set_frees};
use super::{
    count_steadily, dead, overlap, place, remote_overlap, Backend, Heap, HeapRef, SHARED_PART,
    SLABS, WATCH_PAGES,
};
use crate::class::{slot_at, ClassId, UpperClass, PAIR};
use crate::counters;
use crate::misuse::Misuse;
use crate::os::Os;
use crate::owner::{Listing, Owner, RELEASED};
use crate::remote::{self, Next};
use crate::slab::{SlabPtr, State, SAMPLED};
use crate::sync::{add_owned, fill_owned, xor_owned, Ordering::Relaxed, Ordering::SeqCst};
use crate::units::{SlabId, Slot, PAGE};

impl<O: Os> Backend<O> {
    /// Gives back a slab that nobody owns any more, all of whose slots are free.
    pub(super) fn release(&self, slab: SlabPtr) {
        self.forget_slab(slab);
        self.pages.release(self.supply(), slab);
    }

    /// Tells the profile and the counters that the slab goes back. Every release comes here.
    #[inline(always)]
    fn forget_slab(&self, slab: SlabPtr) {
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
            counters::subtract(&counters.slabs[slab.class().index()], 1);
        }
    }
}

impl<O: Os> HeapRef<'_, O> {
    /// The slab's `frees_left` is zero: finds the list where it belongs now, or gives it back.
    pub fn requeue(self, slab: SlabPtr) -> Result<(), Misuse> {
        if slab.is_span() && slab.state() == State::Full && slab.is_free(Slot::FIRST) {
            return self.span_freed(slab);
        }
        // A signal handler takes no slot of an active slab while it is judged.
        let active = slab.state() == State::Active && !slab.is_span();
        let hidden = active.then(|| self.cache(slab.class()).hide());
        let (free, before) = count_steadily(slab);
        let (slots, had) = (slab.slots(), free_before(slab));
        self.account(slab, free);
        if slab.state() == State::Active && free != 0 && free != slots {
            self.count_no_frees(slab);
            if let Some(bits) = hidden {
                self.cache(slab.class()).show(bits);
            }
            return Ok(());
        }
        if free != slots && is_thin(slab) {
            set_frees(slab, 1, before);
            self.freed_in_thin(slab, had);
            return Ok(());
        }
        self.unlist(slab);
        if slab.is_span() {
            return self.requeue_span(slab, free == slots);
        }
        let this = &self.classes[slab.class().index()];
        let (state, frees_left) = place(slab, free);
        match state {
            State::Full => {
                self.fill_up(slab, before);
                return Ok(());
            }
            State::Partial => this.partial.push_back(slab),
            _ => return self.release(slab),
        }
        slab.set_state(state);
        set_frees(slab, frees_left, before);
        if is_thin(slab) {
            self.freed_in_thin(slab, had);
        }
        Ok(())
    }

    /// The common half of [`HeapRef::requeue`], of a slab of slots: false where more is to be done.
    #[inline]
    pub fn requeue_fast(self, slab: SlabPtr) -> bool {
        self.requeue_full(slab) || self.freed_in_thin_fast(slab)
    }

    /// A full slab of slots that the heap owns all the same got its first free one, and waits for its turn from now
    /// on. False where it is none.
    #[inline]
    pub(super) fn requeue_full(self, slab: SlabPtr) -> bool {
        if slab.state() != State::Full {
            return false;
        }
        self.classes[slab.class().index()].full.unlink(slab);
        self.queue_as_partial(slab);
        true
    }

    /// A full slab on no list, whose `frees_left` is zero, got its first free slot: it waits for its turn from now on. The
    /// counters take it for full until its next event.
    #[inline(always)]
    fn queue_as_partial(self, slab: SlabPtr) {
        let slots = slab.slots();
        slab.set_state(State::Partial);
        // Frees by a signal handler since have made it less than zero.
        set_frees(slab, frees_until_event(slab, slots, slots - 1), 0);
        self.classes[slab.class().index()].partial.push_back(slab);
    }

    /// Frees `slot`, the first one, of a full slab, which becomes this heap's. False where it is no such slab, or
    /// more is to be done. The thread is marked busy.
    #[inline(always)]
    pub fn free_into_full(self, slab: SlabPtr, slot: Slot) -> bool {
        let owner = slab.owner.load(Relaxed);
        let word = slab.free_word(slot.word());
        if !owner.is_open() || slab.slots() == 1 || !remote::claim(slab, owner, self.me()) {
            return false;
        }
        self.note_claimed(slab, owner);
        let bits = word.load(Relaxed);
        // Signal handlers that interrupted a slow path have freed into it.
        let others = slab.any_remote() || slab.frees_left.get() != 0;
        if others || bits & slot.bit() != 0 {
            return self.collect_claimed(slab);
        }
        xor_owned(word, slot.bit());
        self.queue_as_partial(slab);
        true
    }

    /// As [`HeapRef::free_into_full`] of the slot `offset` bytes into a slab that was this heap's when it became full. False
    /// also where no slot begins there.
    #[inline(always)]
    pub fn free_into_own_full(self, slab: SlabPtr, offset: usize) -> bool {
        let me = self.me();
        let (slot, exact) = slot_at(offset, slab.recip.load(Relaxed));
        // The number is looked at first: until the claim the header may be made another slab's, and the offset anything. No
        // other heap frees into the slab before that. The pair class has more words to be looked at, and takes the longer
        // way.
        if !exact
            || !slab.holds(slot)
            || slab.class() == PAIR
            || !remote::claim(slab, me.with_full(), me)
        {
            return false;
        }
        let word = slab.free_word_at(slot);
        // Signal handlers that interrupted a slow path have freed into it: whoever looks at it next is to collect. That is
        // this free's longer way, or a handler's. No function is called here, so that no register is saved.
        let others = slab.any_remote_in_one() || slab.frees_left.get() != 0;
        if others || word.load(Relaxed) & slot.bit() != 0 {
            remote::expect_frees(slab, me);
            return false;
        }
        xor_owned(word, slot.bit());
        self.queue_as_partial(slab);
        true
    }

    /// As [`HeapRef::free_into_own_full`], of a slab that is of the class `upper`, as long as it is the heap's: each is looked
    /// up once, and there is one word. Its owner word was `owner`.
    #[inline(always)]
    pub fn free_into_own_full_upper(
        self,
        slab: SlabPtr,
        owner: Owner,
        upper: UpperClass,
        offset: usize,
    ) -> bool {
        let (slot, exact) = slot_at(offset, slab.recip.load(Relaxed));
        if !exact || !slab.holds(slot) || !remote::claim(slab, owner, self.me()) {
            return false;
        }
        let word = slab.first_free_word();
        let others = slab.first_remote_word().load(SeqCst) != 0 || slab.frees_left.get() != 0;
        if others || word.load(Relaxed) & slot.bit() != 0 {
            remote::expect_frees(slab, self.me());
            return false;
        }
        xor_owned(word, slot.bit());
        slab.set_state(State::Partial);
        // Frees by a signal handler since have made it less than zero.
        if !fill_owned(&slab.frees_left, frees_after_first(slab)) {
            slab.frees_left.set(1);
        }
        let queue = &self.class_at(upper).partial;
        queue.push_back_in(self.table(), slab);
        true
    }

    /// A slab that was claimed is not as full as it was taken for: false, after its remote frees were collected.
    #[cold]
    #[inline(never)]
    fn collect_claimed(self, slab: SlabPtr) -> bool {
        let _ = self.collect(slab);
        false
    }

    /// Takes `slab` off the list that its state names. Of an active one the caller collects what waits in it, or queues it.
    pub(super) fn unlist(self, slab: SlabPtr) {
        match slab.state() {
            _ if slab.is_span() => self.unlist_span(slab),
            State::Active => {
                self.classes[slab.class().index()].active.set(SlabId::NONE);
                self.cache(slab.class()).drop_slots();
            }
            State::Partial => self.classes[slab.class().index()].partial.unlink(slab),
            State::Sparse => self.classes[slab.class().index()].sparse.unlink(slab),
            State::Full => self.classes[slab.class().index()].full.unlink(slab),
            _ => {}
        }
        slab.set_state(State::Unlisted);
    }

    /// Tells the counters what was noted since the last time.
    pub fn flush_stats(self) {
        let counters = self.backend.meta.counters();
        counters::add(&counters.handed_out, self.take_untold());
        counters::add_with_peak(&counters.live, &counters.peak, self.live.take() as u64);
        self.heed_profile();
    }

    /// Gives an unlisted slab back, all of whose slots are free.
    pub(super) fn release(self, slab: SlabPtr) -> Result<(), Misuse> {
        if let Some(this) = self.classes.get(slab.class().index()) {
            this.count_lost(slab);
            this.grown.set(this.grown.get().saturating_sub(1));
            self.release_thin(slab);
        }
        while !remote::release_ownership(slab, self.me(), RELEASED) {
            self.collect(slab)?;
        }
        if slab.count_remote() != 0 {
            self.record_error(remote_overlap(slab));
            slab.drop_remote();
        }
        self.account(slab, slab.slots());
        self.flush_stats();
        let released = self.released.get() + slab.pages();
        self.note_returned(SLABS, slab.pages() * PAGE);
        match self.is_silent() {
            true => self.release_silently(slab),
            false => self.backend.release(slab),
        }
        self.released.set(released % WATCH_PAGES);
        if released >= WATCH_PAGES {
            return self.watch_active();
        }
        Ok(())
    }

    /// As [`Backend::release`] of a silent heap.
    #[cold]
    #[inline(never)]
    fn release_silently(self, slab: SlabPtr) {
        self.backend.forget_slab(slab);
        self.owe_release(self.backend.pages.release_silently(slab));
    }

    /// Much was released, so the heap's end may be near its return. Active slabs raise no event when they
    /// become empty and usually lie highest: they get their exact `frees_left`, or go at once.
    pub(super) fn watch_active(self) -> Result<(), Misuse> {
        self.watch_active_but(None)
    }

    /// As [`HeapRef::watch_active`], but for the active slab of one class.
    pub(super) fn watch_active_but(self, kept: Option<ClassId>) -> Result<(), Misuse> {
        for class in ClassId::all().filter(|&class| Some(class) != kept) {
            if let Some(slab) = self.active(class) {
                let live = slab.slots() - slab.count_free();
                slab.frees_left.set(live as i32);
                match live {
                    0 => self.requeue(slab)?,
                    _ => self.ends_active(slab),
                }
            }
        }
        self.active_spans().for_each(|slab| slab.frees_left.set(1));
        self.bin_active_spans()
    }

    /// Frees `slot` of a slab that the thread does not own as it stands: another thread's, nobody's, or
    /// its own with remote frees waiting. The slot exists.
    pub fn free_elsewhere(self, slab: SlabPtr, slot: Slot) -> Result<(), Misuse> {
        loop {
            let owner = slab.owner.load(SeqCst);
            if owner.is_of(self.me()) {
                let collected = if owner.is_pending() {
                    self.collect(slab)?
                } else {
                    0
                };
                return self.free_mine(slab, slot, collected);
            }
            if owner == RELEASED {
                return Err(dead(slab, slot));
            }
            if owner.is_nobodys() && !owner.is_shared() {
                if self.claim(slab, owner) {
                    let collected = self.collect(slab)?;
                    return self.free_mine(slab, slot, collected);
                }
                continue;
            }
            if !remote::free_remote(slab, slot) {
                return Err(dead(slab, slot));
            }
            return self.notify(slab);
        }
    }

    /// After a remote free: notifies the owner, or collects it if the owner has let go.
    pub fn notify(self, slab: SlabPtr) -> Result<(), Misuse> {
        loop {
            match remote::raise_pending(slab) {
                Next::Done => return Ok(()),
                Next::Notify(owner) => {
                    self.backend.notify(owner, slab);
                    return Ok(());
                }
                Next::Claim => {
                    let owner = slab.owner.load(SeqCst);
                    if owner.is_full_shared() {
                        self.backend.abandoned.list(slab, owner);
                    } else if owner.is_nobodys() && self.claim(slab, owner) {
                        self.collect(slab)?;
                        return self.requeue(slab);
                    }
                }
            }
        }
    }

    /// Makes a slab without owner this heap's: unlisted, its remote frees not collected yet.
    pub(super) fn claim(self, slab: SlabPtr, owner: Owner) -> bool {
        let claimed = if owner.is_full() {
            remote::claim(slab, owner, self.me())
        } else {
            self.backend.abandoned.claim(slab, self.me())
        };
        if claimed {
            slab.set_state(State::Unlisted);
            self.note_claimed(slab, owner);
        }
        claimed
    }

    /// A slab that nobody owned, whose owner word was `from`, is this heap's from now on.
    #[inline(always)]
    fn note_claimed(self, slab: SlabPtr, from: Owner) {
        if from != self.me().with_full() && !slab.is_span() {
            self.note_change_of_hands(slab, from);
        }
    }

    #[inline(never)]
    fn note_change_of_hands(self, slab: SlabPtr, from: Owner) {
        self.classes[slab.class().index()].own();
        if from.without_full().is_heap() {
            self.backend.lose(from.without_full(), slab.class());
        }
    }

    /// Counts the slabs no more that others have claimed.
    pub(super) fn forget_lost(self) {
        for (this, lost) in self.classes.iter().zip(&self.lost) {
            if lost.load(Relaxed) != 0 {
                let lost = lost.swap(0, Relaxed);
                this.owned.set(this.owned.get().saturating_sub(lost));
            }
        }
    }

    /// Frees `slot` of a slab of this heap's, after `collected` remote frees.
    pub(super) fn free_mine(
        self,
        slab: SlabPtr,
        slot: Slot,
        collected: usize,
    ) -> Result<(), Misuse> {
        let word = slab.free_word(slot.word());
        let bits = word.load(Relaxed);
        if bits & slot.bit() != 0 {
            // Told of before the slab is requeued, which may release it. The program may go on.
            let misuse = dead(slab, slot);
            add_owned(&slab.frees_left, -(collected as i32));
            if slab.frees_left.get() <= 0 || slab.state() == State::Unlisted {
                self.requeue(slab)?;
            }
            return Err(misuse);
        }
        // One instruction: a signal handler's own free into this word is not lost.
        xor_owned(word, slot.bit());
        add_owned(&slab.frees_left, -(1 + collected as i32));
        if slab.frees_left.get() <= 0 || slab.state() == State::Unlisted {
            return self.requeue(slab);
        }
        Ok(())
    }

    /// Collects the remote frees of all slabs in the queue and of all active ones, unless the queue is closed. Whether
    /// there were any.
    pub fn drain(self) -> Result<bool, Misuse> {
        for class in ClassId::all() {
            if let Some(slab) = self.active(class) {
                self.queue.push_waiting(slab, self.me());
            }
        }
        self.drain_but(|_| false)
    }

    /// As [`HeapRef::drain`], for a request that has to look further. Active slabs of other classes, which raise no event
    /// as they are freed into, are left: they are collected when they are used up, so the freers go on knowing that
    /// frees wait. At each collection they would have to tell the owner anew.
    pub(super) fn drain_for_request(self) -> Result<(), Misuse> {
        let left = |slab: SlabPtr| {
            // What is another heap's by now is looked at no further.
            slab.owner.load(SeqCst).is_of(self.me()) && self.is_left(slab)
        };
        self.drain_but(left).map(|_| ())
    }

    /// Whether a request leaves what others freed in `slab`, of this heap: an active one, from whose frees no event follows.
    pub(super) fn is_left(self, slab: SlabPtr) -> bool {
        slab.state() == State::Active
            && !slab.is_span()
            && slab.frees_left.get() > slab.slots() as i32
    }

    /// Collects the remote frees of all slabs in the queue but those that are `left`, which are in no queue from now on.
    /// Whether there were any in it.
    fn drain_but(self, left: impl Fn(SlabPtr) -> bool) -> Result<bool, Misuse> {
        if !self.queue.holds_any() {
            return Ok(false);
        }
        for slab in self.queue.take(self.table()) {
            if !left(slab) {
                self.look_at_queued(slab)?;
            }
        }
        Ok(true)
    }

    /// `slab` is no active one any more, or one whose frees are counted: if any wait in it, the next drain collects them.
    /// Not for one that is about to go back. While it is in a queue, nobody else is told of frees in the next slab of its
    /// header.
    #[inline(always)]
    pub(super) fn ends_active(self, slab: SlabPtr) {
        self.queue.push_waiting(slab, self.me());
    }

    pub(super) fn look_at_queued(self, slab: SlabPtr) -> Result<(), Misuse> {
        let owner = slab.owner.load(SeqCst);
        if owner.is_of(self.me()) {
            let collected = if owner.is_pending() {
                self.collect(slab)?
            } else {
                0
            };
            add_owned(&slab.frees_left, -(collected as i32));
            if self.is_mixed(slab, collected) {
                return self.share(slab);
            }
            // 1: a signal handler's free counted `frees_left` down to zero, and could not requeue the slab.
            if slab.frees_left.get() <= 1 {
                return self.requeue(slab);
            }
        } else if owner.is_nobodys() && slab.count_remote() != 0 {
            // A signal handler freed into it that could not claim it.
            return self.notify(slab);
        } else if owner.is_heap() && owner.is_pending() && !owner.is_of(self.me()) {
            // It changed hands while it was queued here.
            self.backend.notify(owner, slab);
        }
        Ok(())
    }

    /// Whether others free into `slab`, of which so many frees were `collected` just now, about as much as its owner.
    fn is_mixed(self, slab: SlabPtr, collected: usize) -> bool {
        let waits =
            matches!(slab.state(), State::Partial | State::Sparse | State::Full) && !slab.is_span();
        waits && collected != 0 && !self.arena.get() && {
            let free = slab.count_free();
            free < slab.slots() && SHARED_PART * collected >= free - collected
        }
    }

    /// Lets all threads have the free slots of `slab`: it waits on the process's list.
    fn share(self, slab: SlabPtr) -> Result<(), Misuse> {
        self.unlist(slab);
        self.leave(slab, Listing::Shared)
    }
}

impl Heap {
    /// Whether the slab is this heap's and its `frees_left` is zero.
    #[inline]
    pub fn is_spent(&self, slab: SlabPtr) -> bool {
        slab.owner.load(Relaxed).is_of(self.me()) && slab.frees_left.get() <= 0
    }

    /// Notes for the counters that `free` slots of `slab` are free.
    #[inline]
    pub(super) fn account(&self, slab: SlabPtr, free: usize) {
        self.account_live(slab, slab.slots() - free);
    }

    /// Notes for the counters that `live` slots of `slab` are live.
    #[inline(always)]
    pub(super) fn account_live(&self, slab: SlabPtr, live: usize) {
        self.account_span(slab, live, slab.size());
    }

    /// As [`Heap::account_live`], of a span, or of a slab of slots, of `size` bytes.
    #[inline(always)]
    pub(super) fn account_span(&self, slab: SlabPtr, live: usize, size: usize) {
        let told = slab.counted.load(Relaxed) as usize;
        slab.counted.store(live as u16, Relaxed);
        let more = (live as isize - told as isize) * size as isize;
        self.live.set(self.live.get() + more as i64);
    }

    /// Bytes that the counters take for handed out, and that the heap's thread has only cached.
    pub fn bytes_cached(&self) -> usize {
        let left = |class| {
            let cache = self.cache(class);
            cache.bits.get().count_ones() as usize * cache.size.get()
        };
        ClassId::all().map(left).sum()
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

    /// The common half of [`HeapRef::free_elsewhere`]: frees `slot` of a slab of this heap's where no event
    /// follows. False where there is more to it, and where the slot is free already.
    #[inline]
    pub fn free_fast(&self, slab: SlabPtr, slot: Slot) -> bool {
        Heap::free_fast_of(self.me(), slab, slot)
    }

    /// As [`Heap::free_fast`], of the heap whose owner word is `me`.
    #[inline(always)]
    pub fn free_fast_of(me: Owner, slab: SlabPtr, slot: Slot) -> bool {
        let frees_left = slab.frees_left.get();
        let word = slab.free_word(slot.word());
        let bits = word.load(Relaxed);
        let marked = bits | slot.bit();
        if slab.owner.load(Relaxed) != me
            || marked == bits
            || frees_left <= 1
            || slab.state() == State::Unlisted
        {
            return false;
        }
        word.store(marked, Relaxed);
        slab.frees_left.set(frees_left - 1);
        true
    }

    /// A slab of `class` that the heap owned last is another's now. By any thread.
    pub(super) fn lose(&self, class: ClassId) {
        self.lost[class.index()].fetch_add(1, Relaxed);
    }

    /// Moves a slab's remote frees into its bitmap. Returns how many.
    pub(super) fn collect(&self, slab: SlabPtr) -> Result<usize, Misuse> {
        Ok(remote::collect(slab, self.me()).unwrap_or_else(|twice| {
            self.record_error(overlap(slab, twice));
            // How many is not known: enough that the slab is requeued by its bits.
            slab.slots()
        }))
    }

    /// Has the next [`HeapRef::drain`] look at `slab`, which nobody owns and a signal handler of this thread has freed
    /// into. False where no drain follows.
    pub fn look_later(&self, slab: SlabPtr) -> bool {
        self.queue.push(slab)
    }
}
