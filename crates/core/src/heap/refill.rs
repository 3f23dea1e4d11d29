//! Taking slots: the next word of the active slab, the slab whose turn is next, and a new one.
//!
//! ```text
//!   cache used up -> next word of the active slab -> the slab whose turn is next -> other heaps' -> a new one
//!                    next_word                       refill_from_next               next_slab, adopt, new_slab
//! ```
//!
//! The short ways come first. Each gives up where something is not as usual, and [`HeapRef::refill`] does all of it.
//! `upper` has the short way of the classes above 1 KiB.

use super::spare::{is_nearly_full, spare_part, PATIENCE, ROUNDS, SPARE_SLOTS};
use super::thin::{frees_until_event, live_of_waiting, set_frees};
use super::{count_steadily, count_steadily_by, overlap, Backend, Class, Heap, HeapRef};
use super::{SLABS, TICK_EVERY};
use crate::arch;
use crate::class::{reciprocal, size_of_class, slab_pages, slab_pages_with, slots_in};
use crate::class::{ClassId, LOCAL_CLASSES, PAIR};
use crate::counters;
use crate::misuse::Misuse;
use crate::os::Os;
use crate::owner::Listing;
use crate::remote::{self, Overlap};
use crate::slab::{Shape, SlabPtr, SlabTable, State, FREES_UNCOUNTED, NOT_PLAIN, UNTOUCHED};
use crate::sync::{
    add_owned, add_to_full, unlinked, xor_owned, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst,
};
use crate::tls::{SlotCache, ThreadCache};
use crate::units::{SlabId, Slot, PAGE, WORD_SLOTS};
use core::mem::offset_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::compiler_fence;

/// The fewest slots of a slab, where there is room for as many, whose slots are chosen at random.
const DRAWN_SLOTS: usize = 16;
/// An active slab whose words all had their turn waits if at most so large a part of its slots is free, one in so many,
/// and so many times as many slots are free in the next one.
const PUT_OFF_PART: usize = 4;
const FAR_MORE: usize = 2;
/// An active slab that is shared goes on serving with so large a part of its slots free, one in so many.
const GOES_ON_PART: usize = 4;

/// Where [`arch::refill`] finds what it works on.
struct Places;

impl arch::Refill for Places {
    const HEAP: usize = offset_of!(ThreadCache, heap);
    const TICKS: usize = offset_of!(Heap, ticks);
    const SLOTS: usize = offset_of!(Heap, slots);
    const BYTES: usize = offset_of!(Heap, bytes_allocated);
    const ACTIVE: usize = offset_of!(Heap, classes) + offset_of!(Class, active);
    const CURSOR: usize = offset_of!(Heap, classes) + offset_of!(Class, cursor);
    const WAITING: usize = offset_of!(Heap, classes) + offset_of!(Class, partial);
    const NOTED: u64 = NOT_PLAIN;
}

static_assertions::const_assert_eq!(
    core::mem::size_of::<Class>(),
    <Places as arch::Refill>::CLASS_BYTES
);
static_assertions::const_assert_eq!(TICK_EVERY, 16);

/// What became of a refill that looks at the active slab alone.
#[derive(Clone, Copy, Debug)]
pub enum NextWord {
    /// The next word with free slots is cached, and this is its first one.
    Taken(NonNull<u8>),
    /// The slab has no free slot.
    UsedUp,
    /// Nothing was cached: all words of the slab had their turn, and another slab waits.
    RoundOver,
    /// Nothing was cached: there is no active slab, or more is to be done.
    Elsewhere,
}

impl Class {
    /// The slab whose turn it is. Notes whether it was nearly full.
    #[inline(always)]
    pub(super) fn next_partial(&self, table: SlabTable) -> Option<SlabPtr> {
        let slab = self.partial.first(table)?;
        self.leave_queue(table, slab);
        self.note_fill(self.is_nearly_full(slab));
        Some(slab)
    }

    /// Takes `slab`, whose turn it is, out of the queue.
    #[inline(always)]
    pub(super) fn leave_queue(&self, table: SlabTable, slab: SlabPtr) {
        add_to_full(&self.taken);
        if let Some(next) = self.partial.take_first(table, slab) {
            next.prefetch();
        }
    }

    /// Whether the short way may change from the active slab of this class to `next`, whose turn it
    /// is, once the active one is used up. Where it may not, there is more to be looked at first.
    #[inline(always)]
    pub(super) fn may_change<O: Os>(
        &self,
        backend: &Backend<O>,
        class: ClassId,
        next: SlabPtr,
    ) -> bool {
        self.may_leave(backend, class, next) && self.has_no_spare(next)
    }

    /// Whether no new slab is to be made although `next`, whose turn it is, has free slots.
    #[inline(always)]
    pub(super) fn has_no_spare(&self, next: SlabPtr) -> bool {
        self.spare_for(next) < SPARE_SLOTS
    }

    /// As [`Class::may_change`], as far as other threads are concerned.
    #[inline(always)]
    pub(super) fn may_leave<O: Os>(
        &self,
        backend: &Backend<O>,
        class: ClassId,
        next: SlabPtr,
    ) -> bool {
        backend.abandoned.count(class) == 0 && !remote::is_queued(next) && !self.shared.get()
    }
}

/// Whether the active `slab`, of whose slots `free` are free, is to wait since `next` has far more.
#[inline(always)]
fn is_outdone(slab: SlabPtr, free: usize, next: SlabPtr) -> bool {
    let waiting = next.slots().wrapping_sub(live_of_waiting(next));
    free * PUT_OFF_PART <= slab.slots() && waiting >= free * FAR_MORE
}

impl<O: Os> HeapRef<'_, O> {
    /// Takes a slot of `class`, and caches the free slots of its word into the class's cache. `None`
    /// where memory has run out.
    pub fn refill(self, class: ClassId) -> Result<Option<*mut u8>, Misuse> {
        self.tick()?;
        let cache = self.cache(class);
        loop {
            match self.refill_from_active(class, cache) {
                Ok(Some(slot)) => return Ok(Some(slot.as_ptr())),
                Ok(None) => {}
                Err(misuse) => {
                    self.record_error(misuse);
                    if let Some(slab) = self.active(class) {
                        self.collect(slab)?;
                    }
                    continue;
                }
            }
            if let Some(slab) = self.active(class) {
                if !self.retire(slab)? {
                    continue;
                }
            }
            match self.next_slab(class)? {
                Some(slab) => self.activate(slab),
                None => return Ok(None),
            }
        }
    }

    /// The common part of [`HeapRef::refill`]: caches the next word of the active slab and takes its first slot. Where
    /// something is wrong, the other one finds it again. `cache` is that of `class`. About sixty instructions.
    #[inline(always)]
    pub fn next_word(self, class: ClassId, cache: &SlotCache) -> NextWord {
        let ticks = self.ticks.get();
        let Some(this) = self.classes.get(class.index()) else {
            return NextWord::Elsewhere;
        };
        let slab = this.active.get();
        if ticks.is_multiple_of(TICK_EVERY) || !slab.is_some() {
            return NextWord::Elsewhere;
        }
        let slab = self.table().get(slab);
        cache.hide();
        let cursor = this.cursor.get() as usize;
        let Some((word, bits)) = slab.next_word(cursor) else {
            return NextWord::UsedUp;
        };
        // One branch, not two: whether the round is over cannot be predicted.
        let over = unlinked(u64::from(word > cursor).wrapping_sub(1));
        if this.partial.any() & over as u32 != 0 {
            return NextWord::RoundOver;
        }
        self.ticks.set(ticks.wrapping_add(1));
        match self.take_word(this, slab, (word, bits), class, cache) {
            Some(slot) => NextWord::Taken(slot),
            None => NextWord::Elsewhere,
        }
    }

    /// The common half of [`HeapRef::next_word`], for the class whose cache lies at `offset` bytes into the block: the
    /// slot, or one of [`arch::REFILL_ELSEWHERE`] and its like.
    ///
    /// # Safety
    /// `thread` is the block of the heap's thread, and one of [`ThreadCache::caches`] lies there.
    #[inline(always)]
    pub unsafe fn next_word_at(self, thread: &ThreadCache, offset: usize) -> *mut u8 {
        let (block, heap) = (ptr::from_ref(thread), ptr::from_ref(self.heap));
        let table = self.table().as_ptr();
        // SAFETY: the caller vouches for the block and the offset. `Places` tells where the heap has what. Its active slabs
        // are its own, and have headers in the table.
        unsafe {
            arch::refill::<Places>(
                block.cast_mut().cast(),
                offset,
                heap.cast_mut().cast(),
                table.cast(),
            )
        }
    }

    /// As [`HeapRef::next_word`], where the active slab is used up: of the slab whose turn is next. `None` where that is
    /// not all there is to do.
    #[inline(always)]
    pub fn refill_from_next(self, class: ClassId, cache: &SlotCache) -> Option<NonNull<u8>> {
        let this = self.classes.get(class.index())?;
        let (slab, next) = (self.active(class)?, this.partial.first(self.table())?);
        cache.hide();
        let frees_left = slab.frees_left.get();
        compiler_fence(SeqCst); // before the bits are read
        if slab.next_word(0).is_some() || !this.may_change(self.backend, class, next) {
            return None;
        }
        self.ticks.set(self.ticks.get().wrapping_add(1));
        self.fill_up_active(this, slab, frees_left);
        let next = this.next_partial(self.table())?;
        self.begin_round(this, next, class, cache)
    }

    /// As [`HeapRef::refill_from_next`], where the active slab has free slots left, and all of its words had their turn:
    /// of the slab whose turn is next if that has far more, and of the active one otherwise.
    #[inline(always)]
    pub fn refill_after_round(self, class: ClassId, cache: &SlotCache) -> Option<NonNull<u8>> {
        let this = self.classes.get(class.index())?;
        let (slab, next) = (self.active(class)?, this.partial.first(self.table())?);
        cache.hide();
        self.ticks.set(self.ticks.get().wrapping_add(1));
        let (free, before) = match class {
            PAIR => count_steadily(slab),
            _ => count_steadily_by(slab, SlabPtr::count_free_in_one),
        };
        if !is_outdone(slab, free, next) || !this.may_change(self.backend, class, next) {
            let (word, bits) = slab.next_word(this.cursor.get() as usize)?;
            return self.take_word(this, slab, (word, bits), class, cache);
        }
        self.put_off(this, slab, free, before);
        let next = this.next_partial(self.table())?;
        self.begin_round(this, next, class, cache)
    }

    /// `next` becomes the active slab of the class `this`, and its first word is cached.
    #[inline(always)]
    pub(super) fn begin_round(
        self,
        this: &Class,
        next: SlabPtr,
        class: ClassId,
        cache: &SlotCache,
    ) -> Option<NonNull<u8>> {
        let words = next.words();
        self.activate_in(this, next, words);
        let found = next.next_word(words - 1)?;
        self.take_word(this, next, found, class, cache)
    }

    /// Caches the free slots `bits` of `word` of the active slab and takes the first. `None` where more is to be done.
    #[inline(always)]
    fn take_word(
        self,
        this: &Class,
        slab: SlabPtr,
        (word, bits): (usize, u64),
        class: ClassId,
        cache: &SlotCache,
    ) -> Option<NonNull<u8>> {
        if slab.remote_at(word, class).load(Relaxed) & bits != 0 {
            return None;
        }
        let slot = self.check_out(slab, cache, word, bits)?;
        this.cursor.set(word as u8);
        Some(slot)
    }

    /// `slab`, the active one of the class `this`, of whose slots `free` are free, waits for its turn again. Its
    /// `frees_left` was `before` when they were counted.
    #[inline(always)]
    pub(super) fn put_off(self, this: &Class, slab: SlabPtr, free: usize, before: i32) {
        this.active.set(SlabId::NONE);
        self.account(slab, free);
        let slots = slab.slots();
        slab.set_state(State::Partial);
        set_frees(slab, frees_until_event(slab, slots, slots - free), before);
        this.partial.push_back(slab);
        self.ends_active(slab);
    }

    /// Both short ways of [`HeapRef::refill`], one after the other.
    #[inline(never)]
    pub fn refill_short(self, class: ClassId, cache: &SlotCache) -> Option<NonNull<u8>> {
        match self.next_word(class, cache) {
            NextWord::Taken(slot) => Some(slot),
            NextWord::UsedUp => self.refill_from_next(class, cache),
            NextWord::RoundOver => self.refill_after_round(class, cache),
            NextWord::Elsewhere => None,
        }
    }

    /// Checks out the next word of the active slab and takes its first slot. `None` if it has no free slot, or there is
    /// none.
    fn refill_from_active(
        self,
        class: ClassId,
        cache: &SlotCache,
    ) -> Result<Option<NonNull<u8>>, Misuse> {
        let Some(slab) = self.active(class) else {
            return Ok(None);
        };
        cache.hide();
        let cursor = &self.classes[class.index()].cursor;
        let Some((word, bits)) = slab.next_word(cursor.get() as usize) else {
            return Ok(None);
        };
        refuse_twice(slab, word, bits)?;
        let bits = self.pass_samples(slab, word, bits);
        self.count_slots(arch::count_ones(bits));
        cursor.set(word as u8);
        Ok(Some(self.fill_cache(slab, cache, word, bits, slab.size())))
    }

    /// Counts the free slots `bits` of `word` as handed out, caches them and takes the first. `None`, and nothing was
    /// done, where the profile asks for the long way.
    #[inline(always)]
    pub(super) fn check_out(
        self,
        slab: SlabPtr,
        cache: &SlotCache,
        word: usize,
        bits: u64,
    ) -> Option<NonNull<u8>> {
        let size = slab.size();
        let count = arch::count_ones(bits);
        if !self.count(slab, count * size as u64) {
            return self.cache_warily(slab, cache, word, bits);
        }
        self.count_slots(count);
        Some(self.fill_cache(slab, cache, word, bits, size))
    }

    /// As [`HeapRef::fill_up`], of `slab`, the active one of the class `this`, which has none then.
    #[inline(always)]
    pub(super) fn fill_up_active(self, this: &Class, slab: SlabPtr, frees_left: i32) {
        this.active.set(SlabId::NONE);
        self.fill_up(slab, frees_left);
    }

    /// Takes the lowest of the free slots `bits`, which were counted, and puts the others into the cache. In this order:
    /// a signal handler that allocates in between finds an empty cache, or a whole one.
    #[inline(always)]
    pub(super) fn fill_cache(
        self,
        slab: SlabPtr,
        cache: &SlotCache,
        word: usize,
        bits: u64,
        size: usize,
    ) -> NonNull<u8> {
        let rest = bits & (bits - 1);
        let free = slab.free_at(word);
        xor_owned(free, bits ^ rest);
        let base = (slab.base() + word * WORD_SLOTS * size) as *mut u8;
        cache.word.set(free);
        cache.base.set(base);
        cache.size.set(size);
        compiler_fence(Release);
        cache.bits.set(rest);
        let slot = base.wrapping_add(bits.trailing_zeros() as usize * size);
        // SAFETY: a slot lies in the heap, where address 0 is not.
        unsafe { NonNull::new_unchecked(slot) }
    }

    /// The slab that `class` takes slots from, and the number of the first slot of the word that is checked
    /// out of it.
    #[inline]
    pub fn cached_word(self, class: ClassId) -> Option<(SlabPtr, Slot)> {
        let word = self.classes[class.index()].cursor.get() as usize;
        Some((self.active(class)?, Slot::in_word(word, 0)))
    }

    /// Lets the next refill of `class` begin its search at another word: `random` chooses which.
    #[inline]
    pub fn shuffle(self, class: ClassId, random: usize) {
        if let Some(slab) = self.active(class) {
            let cursor = random % slab.words().max(1);
            self.classes[class.index()].cursor.set(cursor as u8);
        }
    }

    #[inline]
    fn activate(self, slab: SlabPtr) {
        self.activate_in(&self.classes[slab.class().index()], slab, slab.words());
    }

    /// `slab`, of `words` bitmap words, is the one that its class `this` takes slots from.
    #[inline(always)]
    pub(super) fn activate_in(self, this: &Class, slab: SlabPtr, words: usize) {
        slab.set_state(State::Active);
        self.count_no_frees(slab);
        self.remind(slab);
        this.active.set(slab.id());
        this.cursor.set(words as u8 - 1);
    }

    /// No event follows from frees into `slab` from now on.
    #[inline(always)]
    pub(super) fn count_no_frees(self, slab: SlabPtr) {
        slab.frees_left.set(FREES_UNCOUNTED);
        self.keeps_nothing.set(false);
    }

    /// The active slab has no slot left. False where others have freed many of its slots meanwhile, or a signal handler
    /// any: it stays the active one.
    fn retire(self, slab: SlabPtr) -> Result<bool, Misuse> {
        let this = &self.classes[slab.class().index()];
        if this.shared.get() {
            return self.retire_shared(slab);
        }
        let frees_left = slab.frees_left.get();
        compiler_fence(SeqCst); // before the bits are read
        if slab.next_word(0).is_some() {
            return Ok(false);
        }
        self.fill_up_active(this, slab, frees_left);
        Ok(true)
    }

    /// As [`HeapRef::retire`], of a slab that was shared, and is again: this heap does not keep what others free in it.
    fn retire_shared(self, slab: SlabPtr) -> Result<bool, Misuse> {
        if slab.owner.load(Relaxed) != self.me() {
            self.collect(slab)?;
        }
        let free = slab.count_free();
        if free != 0 && free >= slab.slots() / GOES_ON_PART {
            return Ok(false);
        }
        self.classes[slab.class().index()].active.set(SlabId::NONE);
        slab.set_state(State::Unlisted);
        // A slab of the process's list is not in this heap's account of spare slots.
        let this = &self.classes[slab.class().index()];
        let spare = this.spare.get();
        self.leave(slab, Listing::Shared)?;
        this.spare.set(spare);
        Ok(true)
    }

    /// A slab on no list had no free slot after its `frees_left` was read: it is whose who frees into it first, from
    /// now on, unless others' frees wait. A signal handler may have freed since, which `frees_left` shows.
    #[inline(always)]
    pub(super) fn fill_up(self, slab: SlabPtr, frees_left: i32) {
        // A slab that was full before was not accounted for anew at its first free.
        if slab.slots.load(Relaxed) != slab.counted.load(Relaxed) {
            self.account(slab, 0);
        }
        slab.set_state(State::Unlisted);
        add_owned(&slab.frees_left, frees_left.wrapping_neg());
        if !self.can_open(slab) || !remote::open(slab, self.me()) {
            self.keep_full(slab);
        }
    }

    /// A full slab that cannot become nobody's stays this heap's.
    #[cold]
    #[inline(never)]
    fn keep_full(self, slab: SlabPtr) {
        self.classes[slab.class().index()].full.push(slab);
        slab.set_state(State::Full);
        add_owned(&slab.frees_left, 1);
        self.ends_active(slab);
        if slab.frees_left.get() <= 0 {
            self.requeue_full(slab);
        }
    }

    /// Whether a full slab may become nobody's. Not while it is queued here: whoever claims it could not be told of
    /// frees until this heap drains.
    #[inline(always)]
    pub(super) fn can_open(self, slab: SlabPtr) -> bool {
        slab.frees_left.get() == 0 && !remote::is_queued(slab) && !self.arena.get()
    }

    /// A slab with free slots: see the module's order. Unlisted, owned by this heap.
    fn next_slab(self, class: ClassId) -> Result<Option<SlabPtr>, Misuse> {
        let this = &self.classes[class.index()];
        let table = self.table();
        this.shared.set(false);
        let lean = |next: SlabPtr| live_of_waiting(next) > next.slots() - next.slots() / 8;
        // One of fewer than eight slots is never lean.
        let is_full = |next: SlabPtr| live_of_waiting(next) == next.slots();
        let waits = |next: SlabPtr| lean(next) || is_full(next) || remote::is_queued(next);
        if !self.queue.is_empty() && this.partial.first(table).is_none_or(waits) {
            self.drain_for_request()?;
        }
        self.fill_up_waiting(class);
        if this.partial.first(table).is_none_or(lean) && !self.arena.get() {
            if let Some(slab) = self.adopt(class)? {
                return Ok(Some(slab));
            }
        }
        if let Some(next) = this.partial.first(table) {
            let spare = self.spare_to_draw(next).or_else(|| {
                let spare = this.spare_for(next);
                (spare >= SPARE_SLOTS).then_some(spare)
            });
            if let Some(spare) = spare.filter(|_| self.queue.is_empty()) {
                // Free slots that serve last come before new ones.
                if let Some(slab) = this.sparse.pop(table) {
                    return Ok(Some(slab));
                }
                if let Some(slab) = self.new_slab(class, spare) {
                    this.spare.set(this.spare.get() + slab.slots() as u32);
                    return Ok(Some(slab));
                }
            }
            return Ok(this.next_partial(table));
        }
        if let Some(slab) = this.sparse.pop(table) {
            return Ok(Some(slab));
        }
        this.spare.set(0);
        self.backend.abandoned.forget_spare(class);
        Ok(self.new_slab(class, usize::MAX))
    }

    /// A slab of the process's list, which no heap counts as its own: so what spare slots there may be in the class is for
    /// all heaps together.
    fn adopt(self, class: ClassId) -> Result<Option<SlabPtr>, Misuse> {
        let this = &self.classes[class.index()];
        let adopted = self.backend.abandoned.adopt(self.table(), class, self.me());
        let Some((slab, how)) = adopted else {
            return Ok(None);
        };
        this.own();
        self.collect(slab)?;
        slab.frees_left
            .set((slab.slots() - slab.count_free()) as i32);
        let counters = self.backend.meta.counters();
        let slabs = counters::read(&counters.slabs[class.index()]);
        let all = slabs * slab.slots();
        let part = spare_part(all);
        let nearly_full = is_nearly_full(slab, part);
        this.note_fill(nearly_full);
        let heaps = counters.heaps.load(Relaxed).max(1) as usize;
        let patience = (slabs * ROUNDS as usize / heaps).max(PATIENCE as usize);
        if nearly_full && this.nearly_full.get() as usize >= patience {
            let spare = (all / part).saturating_sub(self.backend.abandoned.spare(class));
            let carve = || {
                let carved = self.new_slab(class, spare)?;
                self.backend.abandoned.add_spare(class, carved.slots());
                Some(carved)
            };
            let more = (spare >= SPARE_SLOTS).then(|| this.sparse.pop(self.table()).or_else(carve));
            if let Some(more) = more.flatten() {
                self.requeue(slab)?;
                return Ok(Some(more));
            }
        }
        this.shared.set(how != Listing::Listed);
        Ok(Some(slab))
    }

    /// A new slab, of at most `most` slots where a slab can be as small.
    pub(super) fn new_slab(self, class: ClassId, most: usize) -> Option<SlabPtr> {
        let this = &self.classes[class.index()];
        let mut pages = slab_pages(class, this.grown.get() as usize);
        if self.backend.draws() {
            pages = pages.max(slab_pages_with(class, DRAWN_SLOTS));
        }
        while pages > slab_pages(class, 0) && slots_in(class, pages) > most {
            pages = (pages / 2).max(slab_pages(class, 0));
        }
        let smallest = slab_pages(class, 0);
        let new_slab = |pages| self.backend.new_slab(&shape_of(class, pages), self.me());
        if self.backend.pages.is_refused() {
            pages = smallest;
        }
        if self.is_silent() {
            return self.new_slab_at_hand(class, pages);
        }
        // Small slabs would take more guard pages and headers than what waits for other classes can spare: that gives
        // way first.
        let gives_way = || !self.takes_smaller.get() && self.backend.pages.can_give_up();
        let (slab, fresh) = new_slab(pages).or_else(|| match pages == smallest || gives_way() {
            true => None,
            false => new_slab(smallest),
        })?;
        if fresh && class.index() >= LOCAL_CLASSES && !self.backend.draws() {
            slab.set_flags(UNTOUCHED);
        }
        self.begin_slab(slab);
        if fresh {
            self.give_way_to(slab.pages());
        }
        Some(slab)
    }

    /// As [`HeapRef::new_slab`] of a silent heap: where there is no room for `pages` pages, that is owed.
    #[cold]
    #[inline(never)]
    fn new_slab_at_hand(self, class: ClassId, pages: usize) -> Option<SlabPtr> {
        let shape = shape_of(class, pages);
        let Some(slab) = self.backend.pages.new_slab_at_hand(&shape, self.me()) else {
            self.owe_room(class, pages);
            return None;
        };
        self.begin_slab(slab);
        Some(slab)
    }

    /// Notes that the heap has the new `slab`.
    fn begin_slab(self, slab: SlabPtr) {
        let class = slab.class();
        let this = &self.classes[class.index()];
        self.takes_smaller.set(false);
        this.own();
        self.note_taken(SLABS, slab.pages() * PAGE);
        self.take_released(slab);
        this.grown.set(this.grown.get() + 1);
        counters::add(&self.backend.meta.counters().slabs[class.index()], 1);
        self.flush_stats();
    }
}

/// What a slab of `pages` pages for slots of `class` is made as.
pub(super) fn shape_of(class: ClassId, pages: usize) -> Shape {
    let size = size_of_class(class);
    Shape {
        class,
        size,
        recip: reciprocal(size as u32),
        slots: slots_in(class, pages),
        pages,
        align: 1,
    }
}

/// A slot among the free ones `bits` that another thread has freed as well is a misuse.
#[inline]
fn refuse_twice(slab: SlabPtr, word: usize, bits: u64) -> Result<(), Misuse> {
    let twice = slab.remote_word(word).load(Relaxed) & bits;
    if twice != 0 {
        return Err(overlap(slab, Overlap { word, bits: twice }));
    }
    Ok(())
}
