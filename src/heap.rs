//! One thread's slabs by size class: refill, collect, abandon, adopt; and its spans.
//!
//! ```text
//!   a slab of the heap's is on one list of its class, by how many slots are free
//!
//!     carve --> Active --no slot left--> Full --first free--> Sparse --1/4 free--> Partial --all--> released
//!                 ^  \--no slot left, and others free into the class--> disowned      |
//!                 `--------------- first in, first out ------------------------------'
//! ```
//!
//! Refill goes round the words of the active slab and round the partial slabs, first in first out, so
//! that the slots freed longest ago are handed out first, sweep by sweep; sparse slabs come after,
//! then slabs that exited threads left, and only then a new one.
//!
//! Knows nothing of entry points, hooks or errno. A misuse that it finds comes back as an error.

use crate::class::{bin_below, bin_of, bin_pages, reciprocal, size_of_class, slab_pages, slots_in};
use crate::class::{CLASSES, LOCAL_CLASSES, SPAN, SPAN_BINS, SPAN_RECIPROCAL};
use crate::counters;
use crate::geometry::{bit_of, word_of, SlabId, PAGE, WORD_SLOTS};
use crate::large::Large;
use crate::meta::{Area, Meta, HEAP_BYTES};
use crate::misuse::{Call, Misuse};
use crate::os::Os;
use crate::pages::{Pages, Pinned};
use crate::remote::{self, Next, Overlap, Queue, DISOWNED, LISTED, PENDING, RELEASED};
use crate::slab::{List, Shape, SlabPtr, SlabTable, State, CREDIT_HUGE};
use crate::sync::{AtomicU32, AtomicU64, Guard, Lock};
use crate::sync::{Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::{Entry, Local};
use core::cell::{Cell, UnsafeCell};
use core::ptr::{self, NonNull};

/// Freed spans that a heap keeps, in bytes, beyond half of its live ones.
const BINNED_BYTES: usize = 1 << 20;
/// How many bins above the fitting one are looked at.
const BINS_UP: usize = 2;
/// Retired slabs for which a class is taken to be freed into by other threads, after a collection.
const REMOTE_MEMORY: u32 = 16;
/// Slow paths between two looks at the clock.
const PULSE: u32 = 64;
/// Milliseconds between two decays of a heap.
const DECAY_MS: u64 = 250;
/// Milliseconds that a freed large mapping is kept.
const LARGE_KEPT_MS: u64 = 500;

/// All that the heaps of a process stand on.
pub struct Ground<O: Os> {
    /// The system.
    pub os: O,
    /// The metadata region.
    pub meta: Meta,
    /// Pages and slab headers.
    pub pages: Pages,
    /// Large blocks.
    pub large: Large,
    /// The thread heaps.
    pub heaps: Heaps,
    /// Slabs that exited threads left, with free slots.
    pub abandoned: Abandoned,
}

impl<O: Os> Ground<O> {
    /// A ground on which nothing stands yet.
    pub const fn new(os: O) -> Ground<O> {
        Ground {
            os,
            meta: Meta::new(),
            pages: Pages::new(),
            large: Large::new(),
            heaps: Heaps::new(),
            abandoned: Abandoned::new(),
        }
    }

    /// The header table.
    #[inline(always)]
    pub fn table(&self) -> SlabTable {
        self.pages.table()
    }
}

/// A size class of one heap.
struct Class {
    /// The slab that slots are taken from; 0: none.
    active: Cell<u32>,
    /// The word of the active slab that was checked out last.
    cursor: Cell<u32>,
    /// Slabs of this class that the heap owns.
    owned: Cell<u32>,
    /// Slabs carved and not released by this heap: how large the next one is to be.
    grown: Cell<u32>,
    /// Counts down retired slabs since other threads' frees were last collected.
    remote: Cell<u32>,
    /// Slabs with at least a quarter of their slots free. First in, first out.
    partial: List,
    /// Slabs with fewer free slots, but some. First in, first out.
    sparse: List,
    /// Slabs without free slots.
    full: List,
}

/// One thread's heap, in the metadata region: type-stable, never unmapped. Used by its thread alone, but
/// for the queue.
#[repr(C, align(128))]
pub struct Heap {
    /// The owner word; 0: no thread's.
    me: AtomicU64,
    generation: Cell<u64>,
    /// Slabs with remote frees to collect.
    queue: Queue,
    /// Number of the next unused heap, plus one.
    next: Cell<u32>,
    index: Cell<u32>,
    /// The thread's block, which holds the entries of the smaller classes.
    local: Cell<*const Local>,
    entries: [Entry; CLASSES - LOCAL_CLASSES],
    classes: [Class; CLASSES],
    /// Spans in use.
    spans: List,
    /// Bins that are not empty.
    binned: Cell<u32>,
    bins: [List; SPAN_BINS],
    binned_bytes: Cell<usize>,
    /// The least value of `binned_bytes` since the last decay.
    binned_low: Cell<usize>,
    span_bytes: Cell<usize>,
    /// Bytes handed out and not told to the counters yet.
    handed: Cell<u64>,
    /// Bytes by which live slots became more, or fewer, and not told to the counters yet.
    live: Cell<i64>,
    pulse: Cell<u32>,
    last_decay: Cell<u64>,
}

static_assertions::const_assert!(core::mem::size_of::<Heap>() <= HEAP_BYTES);

/// Slots that a slab must have free to be taken from first: a quarter. Below, taking it would cost a
/// change of lists for few slots.
fn enough(slots: usize) -> usize {
    (slots / 4).max(1)
}

/// Where a slab with `free` of `slots` slots free belongs, and how many frees it may stay there.
fn place(free: usize, slots: usize) -> (State, i32) {
    if free == slots {
        (State::Released, 0)
    } else if free == 0 {
        (State::Full, 1)
    } else if free < enough(slots) {
        (State::Sparse, (enough(slots) - free) as i32)
    } else {
        (State::Partial, (slots - free) as i32)
    }
}

impl Heap {
    /// The owner word.
    #[inline(always)]
    pub fn me(&self) -> u64 {
        self.me.load(Relaxed)
    }

    /// The entry of a class above the thread-local ones.
    #[inline(always)]
    pub fn upper_entry(&self, class: usize) -> &Entry {
        &self.entries[class - LOCAL_CLASSES]
    }

    /// The entry of any class of slots.
    fn entry(&self, class: usize) -> &Entry {
        if class >= LOCAL_CLASSES {
            return self.upper_entry(class);
        }
        // SAFETY: set when the thread got this heap, whose thread is the caller, and cleared at its end.
        unsafe { &(*self.local.get()).entries[class] }
    }

    // ---- taking slots ---------------------------------------------------------------------------

    /// Checks out a word of free slots of `class` into its entry. False where memory has run out.
    pub fn refill<O: Os>(&self, ground: &Ground<O>, class: usize) -> Result<bool, Misuse> {
        self.pulse(ground)?;
        loop {
            if self.refill_from_active(ground.table(), class)? {
                return Ok(true);
            }
            if let Some(slab) = self.active(ground.table(), class) {
                self.retire(ground, slab)?;
            }
            match self.next_slab(ground, class)? {
                Some(slab) => self.activate(slab),
                None => return Ok(false),
            }
        }
    }

    /// The common half of [`Heap::refill`]: false where the active slab has no slot, where the clock is
    /// to be looked at, and where something is wrong, which the other half then finds again.
    #[inline]
    pub fn refill_at_once(&self, table: SlabTable, class: usize) -> bool {
        let pulse = self.pulse.get();
        if pulse % PULSE == 0 {
            return false;
        }
        self.pulse.set(pulse.wrapping_add(1));
        self.refill_from_active(table, class).unwrap_or(false)
    }

    /// Checks out the next word of the active slab; false where it has no free slot, or there is none.
    #[inline]
    fn refill_from_active(&self, table: SlabTable, class: usize) -> Result<bool, Misuse> {
        let Some(slab) = self.active(table, class) else {
            return Ok(false);
        };
        let cursor = &self.classes[class].cursor;
        match slab.next_word(cursor.get() as usize) {
            Some((word, bits)) => {
                cursor.set(word as u32);
                self.check_out(slab, class, word, bits)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    #[inline]
    fn check_out(&self, slab: SlabPtr, class: usize, word: usize, bits: u64) -> Result<(), Misuse> {
        let twice = slab.remote_word(word).load(Relaxed) & bits;
        if twice != 0 {
            return Err(overlap(slab, Overlap { word, bits: twice }));
        }
        let entry = self.entry(class);
        let size = slab.size();
        entry.word.set(slab.free_word(word));
        entry
            .base
            .set((slab.base() + word * WORD_SLOTS * size) as *mut u8);
        entry.size.set(size);
        entry.bits.set(bits);
        let handed = u64::from(bits.count_ones()) * size as u64;
        self.handed.set(self.handed.get() + handed);
        Ok(())
    }

    fn activate(&self, slab: SlabPtr) {
        let this = &self.classes[slab.class()];
        slab.set_state(State::Active);
        slab.credit.set(CREDIT_HUGE);
        this.active.set(slab.id().0);
        this.cursor.set(slab.words() as u32 - 1);
    }

    /// The active slab has no slot left: it is full, or disowned where other threads free into the
    /// class, so that the first of them to do so frees locally from then on.
    fn retire<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        let this = &self.classes[slab.class()];
        this.active.set(0);
        self.tell(slab, 0);
        slab.set_state(State::Unlisted);
        let remote = this.remote.get();
        if remote != 0 {
            this.remote.set(remote - 1);
            if remote::let_go(slab, self.me(), DISOWNED) {
                this.owned.set(this.owned.get() - 1);
                return Ok(());
            }
        }
        slab.set_state(State::Full);
        slab.credit.set(1);
        this.full.push_back(ground.table(), slab);
        Ok(())
    }

    /// A slab with free slots: see the module's order. Unlisted, owned by this heap.
    fn next_slab<O: Os>(
        &self,
        ground: &Ground<O>,
        class: usize,
    ) -> Result<Option<SlabPtr>, Misuse> {
        let this = &self.classes[class];
        let table = ground.table();
        if let Some(slab) = this.partial.pop_front(table) {
            return Ok(Some(slab));
        }
        if !self.queue.is_empty() {
            self.drain(ground)?;
        }
        if let Some(slab) = this
            .partial
            .pop_front(table)
            .or_else(|| this.sparse.pop_front(table))
        {
            return Ok(Some(slab));
        }
        if let Some(slab) = ground.abandoned.adopt(table, class, self.me()) {
            this.owned.set(this.owned.get() + 1);
            self.collect(slab)?;
            return Ok(Some(slab));
        }
        Ok(self.carve(ground, class))
    }

    fn carve<O: Os>(&self, ground: &Ground<O>, class: usize) -> Option<SlabPtr> {
        let this = &self.classes[class];
        let pages = slab_pages(class, this.grown.get() as usize);
        let size = size_of_class(class);
        let shape = |pages| Shape {
            class,
            size,
            recip: reciprocal(size as u32),
            slots: slots_in(class, pages),
            pages,
        };
        let smallest = slab_pages(class, 0);
        let carve = |pages| {
            ground
                .pages
                .carve(&ground.os, &ground.meta, &shape(pages), self.me())
        };
        let (slab, _) = carve(pages).or_else(|| {
            if pages > smallest {
                carve(smallest)
            } else {
                None
            }
        })?;
        this.owned.set(this.owned.get() + 1);
        this.grown.set(this.grown.get() + 1);
        counters::add(&ground.meta.counters().slabs[class], 1);
        self.report(ground);
        Some(slab)
    }

    // ---- freeing --------------------------------------------------------------------------------

    /// The slab's credit is used up: finds the list where it belongs now, or gives it back.
    pub fn settle<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        let (free, slots) = (slab.count_free(), slab.slots());
        self.tell(slab, free);
        if slab.state() == State::Active && free != 0 && free != slots {
            slab.credit.set(CREDIT_HUGE);
            return Ok(());
        }
        self.unlist(ground, slab);
        if slab.is_span() {
            return self.settle_span(ground, slab, free == slots);
        }
        let this = &self.classes[slab.class()];
        let (state, credit) = place(free, slots);
        let list = match state {
            State::Full => &this.full,
            State::Sparse => &this.sparse,
            State::Partial => &this.partial,
            _ => return self.release(ground, slab),
        };
        slab.set_state(state);
        slab.credit.set(credit);
        list.push_back(ground.table(), slab);
        Ok(())
    }

    /// Takes `slab` off the list that its state names.
    fn unlist<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) {
        let table = ground.table();
        match slab.state() {
            State::Active => {
                self.classes[slab.class()].active.set(0);
                self.entry(slab.class()).drop_slots();
            }
            State::Partial => self.classes[slab.class()].partial.unlink(table, slab),
            State::Sparse => self.classes[slab.class()].sparse.unlink(table, slab),
            State::Full if slab.is_span() => {
                self.spans.unlink(table, slab);
                self.span_bytes.set(self.span_bytes.get() - slab.size());
            }
            State::Full => self.classes[slab.class()].full.unlink(table, slab),
            State::Binned => self.unbin(table, slab),
            State::Unlisted | State::Abandoned | State::Released => {}
        }
        slab.set_state(State::Unlisted);
    }

    /// Notes for the counters that `free` slots of `slab` are free.
    #[inline]
    fn tell(&self, slab: SlabPtr, free: usize) {
        let live = slab.slots() - free;
        let told = slab.counted.load(Relaxed) as usize;
        slab.counted.store(live as u32, Relaxed);
        let more = (live as isize - told as isize) * slab.size() as isize;
        self.live.set(self.live.get() + more as i64);
    }

    /// Tells the counters what was noted since the last time.
    fn report<O: Os>(&self, ground: &Ground<O>) {
        let counters = ground.meta.counters();
        counters::add(&counters.handed_out, self.handed.take());
        counters::add_with_peak(&counters.live, &counters.peak, self.live.take() as u64);
    }

    /// Gives an unlisted slab back, all of whose slots are free.
    fn release<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        while !remote::let_go(slab, self.me(), RELEASED) {
            self.collect(slab)?;
        }
        if slab.count_remote() != 0 {
            return Err(remote_overlap(slab));
        }
        self.report(ground);
        let counters = ground.meta.counters();
        if slab.is_span() {
            counters::subtract(&counters.spans, 1);
        } else {
            let this = &self.classes[slab.class()];
            this.owned.set(this.owned.get() - 1);
            this.grown.set(this.grown.get().saturating_sub(1));
            counters::subtract(&counters.slabs[slab.class()], 1);
        }
        match ground.pages.release(&ground.os, &ground.meta, slab) {
            Some(pinned) => self.arm(ground, pinned),
            None => Ok(()),
        }
    }

    /// Slabs of ours keep a large free run from the heap's end. Active ones raise no event when they
    /// become empty: they get their exact credit, or go at once.
    fn arm<O: Os>(&self, ground: &Ground<O>, Pinned(range): Pinned) -> Result<(), Misuse> {
        let mut page = range.start;
        while page < range.end {
            let Some(slab) = ground.pages.slab_at(page) else {
                page = page.plus(1);
                continue;
            };
            page = page.plus(slab.pages().max(1));
            if slab.owner.load(Relaxed) & !PENDING != self.me() || slab.state() != State::Active {
                continue;
            }
            let live = slab.slots() - slab.count_free();
            slab.credit.set(live as i32);
            if live == 0 {
                return self.settle(ground, slab);
            }
        }
        Ok(())
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
            if owner == DISOWNED || owner == LISTED {
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
    fn notify<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        loop {
            match remote::raise_pending(slab) {
                Next::Done => return Ok(()),
                Next::Notify(owner) => {
                    ground.heaps.notify(ground, owner, slab);
                    return Ok(());
                }
                Next::Claim => {
                    let owner = slab.owner.load(SeqCst);
                    if (owner == DISOWNED || owner == LISTED) && self.claim(ground, slab, owner) {
                        self.collect(slab)?;
                        return self.settle(ground, slab);
                    }
                }
            }
        }
    }

    /// Makes a slab without owner this heap's: unlisted, its remote frees not collected yet.
    fn claim<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr, owner: u64) -> bool {
        let claimed = match owner {
            DISOWNED => remote::claim(slab, self.me()),
            _ => ground.abandoned.claim(ground.table(), slab, self.me()),
        };
        if claimed {
            slab.set_state(State::Unlisted);
            if !slab.is_span() {
                let this = &self.classes[slab.class()];
                this.owned.set(this.owned.get() + 1);
            }
        }
        claimed
    }

    /// Frees `slot` of a slab of this heap's, after `collected` remote frees.
    fn free_mine<O: Os>(
        &self,
        ground: &Ground<O>,
        slab: SlabPtr,
        slot: usize,
        collected: usize,
    ) -> Result<(), Misuse> {
        let word = slab.free_word(word_of(slot));
        let bits = word.load(Relaxed);
        if bits & bit_of(slot) != 0 {
            return Err(dead(slab, slot));
        }
        word.store(bits | bit_of(slot), Relaxed);
        let credit = slab.credit.get().saturating_sub(1 + collected as i32);
        slab.credit.set(credit);
        if credit <= 0 || slab.state() == State::Unlisted {
            return self.settle(ground, slab);
        }
        Ok(())
    }

    /// Moves a slab's remote frees into its bitmap; how many.
    fn collect(&self, slab: SlabPtr) -> Result<usize, Misuse> {
        let collected = remote::collect(slab, self.me()).map_err(|twice| overlap(slab, twice))?;
        if collected > 0 && !slab.is_span() {
            self.classes[slab.class()].remote.set(REMOTE_MEMORY);
        }
        Ok(collected)
    }

    /// Collects the remote frees of all slabs in the queue.
    pub fn drain<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        for slab in self.queue.take(ground.table()) {
            self.look_at_queued(ground, slab)?;
        }
        Ok(())
    }

    fn look_at_queued<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        let owner = slab.owner.load(SeqCst);
        if owner == self.me() | PENDING {
            let collected = self.collect(slab)?;
            let credit = slab.credit.get().saturating_sub(collected as i32);
            slab.credit.set(credit);
            if credit <= 0 {
                return self.settle(ground, slab);
            }
        } else if remote::is_heap(owner) && owner & PENDING != 0 && owner & !PENDING != self.me() {
            // It changed hands while it was queued here.
            ground.heaps.notify(ground, owner, slab);
        }
        Ok(())
    }

    // ---- spans ----------------------------------------------------------------------------------

    /// A span of at least `pages` pages, and whether it is all zero. `None` where memory has run out.
    pub fn take_span<O: Os>(
        &self,
        ground: &Ground<O>,
        pages: usize,
    ) -> Result<Option<(SlabPtr, bool)>, Misuse> {
        self.pulse(ground)?;
        let bin = bin_of(pages);
        if !self.queue.is_empty() {
            self.drain(ground)?;
        }
        let (slab, fresh) = match self.binned_span(ground, bin) {
            Some(slab) => (slab, false),
            None => match self.carve_span(ground, bin_pages(bin)) {
                Some(carved) => carved,
                None => return Ok(None),
            },
        };
        let word = slab.free_word(0);
        word.store(word.load(Relaxed) & !bit_of(0), Relaxed);
        self.list_span(ground, slab);
        self.handed.set(self.handed.get() + slab.size() as u64);
        self.tell(slab, 0);
        Ok(Some((slab, fresh)))
    }

    fn list_span<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) {
        slab.set_state(State::Full);
        slab.credit.set(1);
        self.spans.push_back(ground.table(), slab);
        self.span_bytes.set(self.span_bytes.get() + slab.size());
    }

    fn binned_span<O: Os>(&self, ground: &Ground<O>, bin: usize) -> Option<SlabPtr> {
        let fitting = self.binned.get() >> bin & ((2 << BINS_UP) - 1);
        if fitting == 0 {
            return None;
        }
        let slab = self.bins[bin + fitting.trailing_zeros() as usize].first(ground.table())?;
        self.unlist(ground, slab);
        Some(slab)
    }

    fn carve_span<O: Os>(&self, ground: &Ground<O>, pages: usize) -> Option<(SlabPtr, bool)> {
        let shape = Shape {
            class: SPAN,
            size: pages * PAGE,
            recip: SPAN_RECIPROCAL,
            slots: 1,
            pages,
        };
        let carved = ground
            .pages
            .carve(&ground.os, &ground.meta, &shape, self.me())?;
        counters::add(&ground.meta.counters().spans, 1);
        self.report(ground);
        Some(carved)
    }

    /// A span on no list: kept for reuse if it is free, within bounds; else it is in use.
    fn settle_span<O: Os>(
        &self,
        ground: &Ground<O>,
        slab: SlabPtr,
        free: bool,
    ) -> Result<(), Misuse> {
        if !free {
            self.list_span(ground, slab);
            return Ok(());
        }
        let Some(bin) = bin_below(slab.pages()) else {
            return self.release(ground, slab);
        };
        slab.set_state(State::Binned);
        slab.credit.set(CREDIT_HUGE);
        self.bins[bin].push_back(ground.table(), slab);
        self.binned.set(self.binned.get() | 1 << bin);
        self.binned_bytes.set(self.binned_bytes.get() + slab.size());
        self.shrink_bins(ground, BINNED_BYTES + self.span_bytes.get() / 2)?;
        self.pulse(ground)
    }

    fn unbin(&self, table: SlabTable, slab: SlabPtr) {
        let bin = bin_below(slab.pages()).unwrap_or(0);
        self.bins[bin].unlink(table, slab);
        if self.bins[bin].is_empty() {
            self.binned.set(self.binned.get() & !(1 << bin));
        }
        self.binned_bytes.set(self.binned_bytes.get() - slab.size());
        self.binned_low
            .set(self.binned_low.get().min(self.binned_bytes.get()));
    }

    /// Gives spans of the largest bins back until at most `most` bytes are kept.
    pub fn shrink_bins<O: Os>(&self, ground: &Ground<O>, most: usize) -> Result<(), Misuse> {
        while self.binned_bytes.get() > most && self.binned.get() != 0 {
            let Some(slab) = self.bins[self.binned.get().ilog2() as usize].first(ground.table())
            else {
                break;
            };
            self.unlist(ground, slab);
            self.release(ground, slab)?;
        }
        Ok(())
    }

    /// A live span of this heap's changed its size in place.
    pub fn span_resized<O: Os>(&self, ground: &Ground<O>, old: usize, new: usize) {
        self.span_bytes.set(self.span_bytes.get() + new - old);
        let counters = ground.meta.counters();
        counters::subtract(&counters.live, old as u64);
        counters::add_with_peak(&counters.live, &counters.peak, new as u64);
    }

    // ---- decay, exit, repair --------------------------------------------------------------------

    /// Looks at the clock now and then, and lets what lay unused go.
    fn pulse<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        let pulse = self.pulse.get();
        self.pulse.set(pulse.wrapping_add(1));
        if pulse % PULSE != 0 {
            return Ok(());
        }
        self.report(ground);
        self.decay(ground, ground.os.clock())
    }

    fn decay<O: Os>(&self, ground: &Ground<O>, now: u64) -> Result<(), Misuse> {
        let since = now.saturating_sub(self.last_decay.get());
        if since < DECAY_MS {
            return Ok(());
        }
        self.last_decay.set(now);
        let quiet = ground.pages.quiet_for(now);
        let idle = if since >= 2 * DECAY_MS {
            self.binned_bytes.get()
        } else {
            self.binned_low.get()
        };
        self.shrink_bins(ground, self.binned_bytes.get() - idle)?;
        self.binned_low.set(self.binned_bytes.get());
        self.report(ground);
        ground
            .large
            .decay(&ground.os, &ground.meta, now.saturating_sub(LARGE_KEPT_MS));
        ground.pages.tick(&ground.os, &ground.meta, now, quiet);
        Ok(())
    }

    /// Gives back all that the heap keeps for reuse.
    pub fn give_back<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        self.drain(ground)?;
        self.shrink_bins(ground, 0)?;
        for class in 0..CLASSES {
            if let Some(slab) = self
                .active(ground.table(), class)
                .filter(|slab| slab.count_free() == slab.slots())
            {
                self.settle(ground, slab)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn active(&self, table: SlabTable, class: usize) -> Option<SlabPtr> {
        let id = SlabId(self.classes[class].active.get());
        id.is_some().then(|| table.get(id))
    }

    /// At the thread's end: nothing is owned any more. Empty slabs go back, full ones are disowned, the
    /// others wait on the abandoned list.
    pub fn abandon_all<O: Os>(&self, ground: &Ground<O>) -> Result<(), Misuse> {
        let table = ground.table();
        for slab in self.queue.close(table) {
            self.look_at_queued(ground, slab)?;
        }
        for class in 0..CLASSES {
            if let Some(slab) = self.active(ground.table(), class) {
                self.abandon(ground, slab)?;
            }
            let this = &self.classes[class];
            for list in [&this.partial, &this.sparse, &this.full] {
                while let Some(slab) = list.first(table) {
                    self.abandon(ground, slab)?;
                }
            }
        }
        self.shrink_bins(ground, 0)?;
        while let Some(slab) = self.spans.first(table) {
            self.abandon(ground, slab)?;
        }
        self.report(ground);
        Ok(())
    }

    fn abandon<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        self.unlist(ground, slab);
        loop {
            self.collect(slab)?;
            let (free, slots) = (slab.count_free(), slab.slots());
            self.tell(slab, free);
            if free == slots {
                return self.release(ground, slab);
            }
            let left = match free {
                0 => remote::let_go(slab, self.me(), DISOWNED),
                _ => ground.abandoned.leave(ground.table(), slab, self.me()),
            };
            if left {
                if !slab.is_span() {
                    let this = &self.classes[slab.class()];
                    this.owned.set(this.owned.get().saturating_sub(1));
                }
                return Ok(());
            }
        }
    }

    /// Forgets all lists and what is checked out, without touching slabs.
    fn forget_all(&self) {
        for class in 0..CLASSES {
            let this = &self.classes[class];
            [&this.partial, &this.sparse, &this.full]
                .into_iter()
                .for_each(List::clear);
            for counter in [
                &this.active,
                &this.cursor,
                &this.owned,
                &this.grown,
                &this.remote,
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
        self.binned.set(0);
        for bytes in [&self.binned_bytes, &self.binned_low, &self.span_bytes] {
            bytes.set(0);
        }
    }

    /// Number of broken invariants of this heap's lists, while nobody else is at work.
    pub fn validate<O: Os>(&self, ground: &Ground<O>) -> usize {
        let mut wrong = 0;
        let (mut listed, mut owned) = (0, 0);
        for (class, this) in self.classes.iter().enumerate() {
            let of_class = self.validate_lists(ground, class, &mut wrong)
                + usize::from(this.active.get() != 0);
            wrong += usize::from(of_class != this.owned.get() as usize);
            listed += of_class;
        }
        let mut bytes = 0;
        for bin in &self.bins {
            bytes += each(bin, ground.table()).map(SlabPtr::size).sum::<usize>();
            listed += each(bin, ground.table()).count();
        }
        listed += each(&self.spans, ground.table()).count();
        wrong += usize::from(bytes != self.binned_bytes.get());
        ground.pages.each_slab(|slab| {
            owned += usize::from(slab.owner.load(Relaxed) & !PENDING == self.me())
        });
        wrong + usize::from(listed != owned)
    }

    fn validate_lists<O: Os>(&self, ground: &Ground<O>, class: usize, wrong: &mut usize) -> usize {
        let this = &self.classes[class];
        let mut listed = 0;
        for (list, state) in [
            (&this.partial, State::Partial),
            (&this.sparse, State::Sparse),
            (&this.full, State::Full),
        ] {
            for slab in each(list, ground.table()) {
                listed += 1;
                let (free, slots) = (slab.count_free(), slab.slots());
                let spent = place(free, slots).1 != slab.credit.get() && state != State::Sparse;
                let ours = slab.owner.load(Relaxed) & !PENDING == self.me();
                let tail = slab.words() * WORD_SLOTS > slots
                    && slab.free_word(word_of(slots)).load(Relaxed) & bit_of(slots) == 0;
                *wrong +=
                    usize::from(slab.state() != state || slab.class() != class || !ours || tail)
                        + usize::from(spent && state == State::Partial);
            }
        }
        listed
    }
}

fn each(list: &List, table: SlabTable) -> impl Iterator<Item = SlabPtr> + '_ {
    core::iter::successors(list.first(table), move |&slab| list.after(table, slab))
}

/// A free of a slot that is free already.
pub fn dead(slab: SlabPtr, slot: usize) -> Misuse {
    let size = slab.size();
    Misuse::Dead {
        call: Call::Free,
        addr: slab.base() + slot * size,
        slot,
        size,
    }
}

fn overlap(slab: SlabPtr, twice: Overlap) -> Misuse {
    let slot = twice.word * WORD_SLOTS + twice.bits.trailing_zeros() as usize;
    Misuse::CollectedTwice {
        addr: slab.base() + slot * slab.size(),
        slot,
        size: slab.size(),
    }
}

fn remote_overlap(slab: SlabPtr) -> Misuse {
    let word = (0..slab.words())
        .find(|&word| slab.remote_word(word).load(Relaxed) != 0)
        .unwrap_or(0);
    overlap(
        slab,
        Overlap {
            word,
            bits: slab.remote_word(word).load(Relaxed),
        },
    )
}

// ---- the heaps of the process -------------------------------------------------------------------

struct Registry {
    /// Heaps made so far.
    made: u32,
    /// Bytes of the heap area that are open.
    opened: usize,
    /// Number of the first unused heap, plus one.
    unused: u32,
}

/// The thread heaps: type-stable, in the metadata region.
pub struct Heaps {
    lock: Lock,
    registry: UnsafeCell<Registry>,
    /// Heaps given out so far: whether any thread but the first may have been at work.
    pub given: AtomicU32,
}

// SAFETY: the registry is reached under the lock alone.
unsafe impl Sync for Heaps {}

impl Heaps {
    /// No heaps.
    pub const fn new() -> Heaps {
        let registry = Registry {
            made: 0,
            opened: 0,
            unused: 0,
        };
        Heaps {
            lock: Lock::new(),
            registry: UnsafeCell::new(registry),
            given: AtomicU32::new(0),
        }
    }

    fn at<'a, O: Os>(&self, ground: &'a Ground<O>, index: usize) -> &'a Heap {
        let start = ground.meta.start::<u8>(Area::Heaps);
        // SAFETY: `index` was given out, so its memory is open; zero is a valid heap; never unmapped.
        unsafe { start.byte_add(index * HEAP_BYTES).cast::<Heap>().as_ref() }
    }

    /// The heap that `owner`, some heap's owner word, speaks of; perhaps another thread's by now.
    fn of_owner<'a, O: Os>(&self, ground: &'a Ground<O>, owner: u64) -> &'a Heap {
        self.at(ground, remote::heap_index(owner))
    }

    /// Queues `slab` with the heap of `owner`.
    pub fn notify<O: Os>(&self, ground: &Ground<O>, owner: u64, slab: SlabPtr) {
        self.of_owner(ground, owner).queue.push(slab);
    }

    /// Number of broken invariants of all heaps, while nobody is at work.
    pub fn validate<O: Os>(&self, ground: &Ground<O>) -> usize {
        let made = {
            let guard = self.lock.lock();
            self.registry(&guard).made
        };
        let heaps = (0..made as usize).map(|index| self.at(ground, index));
        heaps
            .filter(|heap| heap.me() != 0)
            .map(|heap| heap.validate(ground))
            .sum()
    }

    /// A heap for the thread whose block is `local`. `None` where there are too many.
    pub fn take<'a, O: Os>(&self, ground: &'a Ground<O>, local: &Local) -> Option<&'a Heap> {
        let heap = self.unused(ground)?;
        let generation = heap.generation.get() + 1;
        heap.generation.set(generation);
        heap.local.set(local);
        let me = remote::owner_word(heap.index.get() as usize, generation);
        heap.me.store(me, SeqCst);
        heap.queue.open();
        heap.last_decay.set(ground.os.clock());
        self.given.fetch_add(1, Relaxed);
        counters::add(&ground.meta.counters().heaps, 1);
        local.heap.set(ptr::from_ref(heap).cast());
        local.me.set(me);
        Some(heap)
    }

    fn unused<'a, O: Os>(&self, ground: &'a Ground<O>) -> Option<&'a Heap> {
        let guard = self.lock.lock();
        let registry = self.registry(&guard);
        if registry.unused != 0 {
            let heap = self.at(ground, registry.unused as usize - 1);
            registry.unused = heap.next.get();
            return Some(heap);
        }
        let index = registry.made as usize;
        let end = (index + 1) * HEAP_BYTES;
        // Once a thread, and rarely a system call: this lock is not the page lock.
        if index >= ground.meta.plan().heaps
            || !ground
                .meta
                .open_to(&ground.os, Area::Heaps, &mut registry.opened, end)
        {
            return None;
        }
        registry.made += 1;
        ground
            .meta
            .header()
            .heaps_made
            .store(registry.made, Relaxed);
        let heap = self.at(ground, index);
        heap.index.set(index as u32);
        Some(heap)
    }

    /// Takes back the heap of a thread that ends, which has abandoned all.
    pub fn give<O: Os>(&self, ground: &Ground<O>, heap: &Heap, local: &Local) {
        local.me.set(0);
        local.heap.set(ptr::null());
        local.entries.iter().for_each(Entry::drop_slots);
        counters::subtract(&ground.meta.counters().heaps, 1);
        self.put_away(heap);
    }

    fn put_away(&self, heap: &Heap) {
        heap.local.set(ptr::null());
        heap.forget_all();
        heap.me.store(0, SeqCst);
        let guard = self.lock.lock();
        let registry = self.registry(&guard);
        heap.next.set(registry.unused);
        registry.unused = heap.index.get() + 1;
    }

    #[allow(clippy::mut_from_ref)] // The guard is the proof of exclusion.
    fn registry<'a>(&'a self, _guard: &'a Guard<'_>) -> &'a mut Registry {
        // SAFETY: callers hold the lock for as long as they use the borrow, and take it once.
        unsafe { &mut *self.registry.get() }
    }

    /// In a fork child: frees the locks.
    pub fn reset_lock(&self) {
        self.lock.reset();
    }

    /// In a fork child, after the pages were rebuilt: the forking thread's heap gets its lists from the
    /// headers, all other heaps are put away, and what they owned is abandoned.
    pub fn rebuild<O: Os>(&self, ground: &Ground<O>, mine: Option<&Heap>) -> Result<(), Misuse> {
        self.lock.reset();
        let made = {
            let guard = self.lock.lock();
            let registry = self.registry(&guard);
            registry.unused = 0;
            registry.made
        };
        ground.abandoned.reset();
        let me = mine.map_or(0, Heap::me);
        for index in 0..made {
            let heap = self.at(ground, index as usize);
            if heap.me() == me && me != 0 {
                heap.forget_all();
                heap.queue.open();
            } else {
                let _ = heap.queue.close(ground.table());
                self.put_away(heap);
            }
        }
        ground
            .meta
            .counters()
            .heaps
            .store(u64::from(me != 0), Relaxed);
        // All are unlisted before the first is settled: settling one may look at its neighbours.
        ground.pages.each_slab(|slab| Heaps::unlist(mine, slab));
        let mut result = Ok(());
        ground.pages.each_slab(|slab| {
            if result.is_ok() {
                result = self.rehome(ground, mine, slab);
            }
        });
        result
    }

    fn unlist(mine: Option<&Heap>, slab: SlabPtr) {
        remote::repair(slab);
        slab.set_state(State::Unlisted);
        let owned_by = slab.owner.load(Relaxed) & !PENDING;
        if let Some(heap) = mine.filter(|heap| heap.me() == owned_by) {
            slab.owner.store(owned_by, SeqCst);
            if !slab.is_span() {
                let owned = &heap.classes[slab.class()].owned;
                owned.set(owned.get() + 1);
            }
        }
    }

    fn rehome<O: Os>(
        &self,
        ground: &Ground<O>,
        mine: Option<&Heap>,
        slab: SlabPtr,
    ) -> Result<(), Misuse> {
        match mine {
            Some(heap) if slab.owner.load(Relaxed) == heap.me() => heap.settle(ground, slab),
            _ => {
                ground.abandoned.orphan(ground, slab);
                Ok(())
            }
        }
    }
}

impl Default for Heaps {
    fn default() -> Heaps {
        Heaps::new()
    }
}

// ---- slabs without owner ------------------------------------------------------------------------

/// Slabs with free slots that no thread owns, by class, under a lock.
pub struct Abandoned {
    lock: Lock,
    lists: UnsafeCell<[List; CLASSES + 1]>,
    counts: [AtomicU32; CLASSES + 1],
}

// SAFETY: the lists are reached under the lock alone.
unsafe impl Sync for Abandoned {}

impl Abandoned {
    /// No slabs.
    pub const fn new() -> Abandoned {
        Abandoned {
            lock: Lock::new(),
            lists: UnsafeCell::new([const { List::new() }; CLASSES + 1]),
            counts: [const { AtomicU32::new(0) }; CLASSES + 1],
        }
    }

    fn list<'a>(&'a self, _guard: &'a Guard<'_>, class: usize) -> &'a List {
        // SAFETY: callers hold the lock for as long as they use the list.
        unsafe { &(*self.lists.get())[class] }
    }

    /// Lets an unlisted slab of `me`'s go onto the list; false if remote frees wait to be collected.
    fn leave(&self, table: SlabTable, slab: SlabPtr, me: u64) -> bool {
        let guard = self.lock.lock();
        let left = remote::let_go(slab, me, LISTED);
        if left {
            self.push(&guard, table, slab);
        }
        left
    }

    fn push(&self, guard: &Guard<'_>, table: SlabTable, slab: SlabPtr) {
        slab.set_state(State::Abandoned);
        self.list(guard, slab.class()).push_back(table, slab);
        self.counts[slab.class()].fetch_add(1, Relaxed);
    }

    fn take(&self, guard: &Guard<'_>, table: SlabTable, slab: SlabPtr, me: u64) {
        self.list(guard, slab.class()).unlink(table, slab);
        self.counts[slab.class()].fetch_sub(1, Relaxed);
        slab.set_state(State::Unlisted);
        slab.owner.store(me, SeqCst);
    }

    /// The slab of `class` that waits longest, made `me`'s.
    fn adopt(&self, table: SlabTable, class: usize, me: u64) -> Option<SlabPtr> {
        if self.counts[class].load(Relaxed) == 0 {
            return None;
        }
        let guard = self.lock.lock();
        let slab = self.list(&guard, class).first(table)?;
        self.take(&guard, table, slab, me);
        Some(slab)
    }

    /// Makes a listed slab `me`'s; false if somebody was faster.
    fn claim(&self, table: SlabTable, slab: SlabPtr, me: u64) -> bool {
        let guard = self.lock.lock();
        let listed = slab.owner.load(SeqCst) == LISTED;
        if listed {
            self.take(&guard, table, slab, me);
        }
        listed
    }

    /// In a fork child: frees the lock.
    pub fn reset_lock(&self) {
        self.lock.reset();
    }

    /// In a fork child: forgets all lists.
    fn reset(&self) {
        let guard = self.lock.lock();
        for class in 0..=CLASSES {
            self.list(&guard, class).clear();
            self.counts[class].store(0, Relaxed);
        }
    }

    /// In a fork child: takes up a slab whose owner is gone.
    fn orphan<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) {
        let (free, slots) = (slab.count_free(), slab.slots());
        if free == 0 {
            slab.set_state(State::Unlisted);
            slab.owner.store(DISOWNED, SeqCst);
        } else if free == slots {
            slab.owner.store(RELEASED, SeqCst);
            let _ = ground.pages.release(&ground.os, &ground.meta, slab);
            uncount(ground, slab);
        } else {
            slab.owner.store(LISTED, SeqCst);
            let guard = self.lock.lock();
            self.push(&guard, ground.table(), slab);
        }
    }
}

fn uncount<O: Os>(ground: &Ground<O>, slab: SlabPtr) {
    let counters = ground.meta.counters();
    let counter = if slab.is_span() {
        &counters.spans
    } else {
        &counters.slabs[slab.class()]
    };
    counters::subtract(counter, 1);
}

impl Default for Abandoned {
    fn default() -> Abandoned {
        Abandoned::new()
    }
}

/// The heap of a thread's block, if it has one.
#[inline(always)]
pub fn heap_of(local: &Local) -> Option<&Heap> {
    // SAFETY: set by `Heaps::take` to a heap that is never unmapped, for this thread alone.
    NonNull::new(local.heap.get().cast_mut()).map(|heap| unsafe { heap.cast::<Heap>().as_ref() })
}
