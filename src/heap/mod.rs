//! One thread's slabs by size class, and its spans: refill, collect, abandon, adopt.
//!
//! ```text
//!   new slab --> Active --no slot left--> full, nobody's --first free--> Partial --all free--> released
//!               ^                                                        |  |
//!               |------------------ first in, first out -----------------'  | others free into it as well
//!               `------------------ first in, first out ---- shared <-------'
//! ```
//!
//! A full slab has no owner. The first thread that frees into it owns it from then on (see `remote`). A slab that
//! several threads free into goes to the process's list. So neither a thread that frees more than it allocates nor one
//! that sleeps keeps free slots from the others.
//!
//! Refill goes round the words of the active slab and round the partial slabs, first in first out. So the slots freed
//! longest ago are handed out first, sweep by sweep, and a slab gathers free slots until its turn. Then come slabs that
//! exited threads left, and only then a new one. One kind of class is an exception: it has gone round its slabs again
//! and again and found them nearly full (see `Class::spare_for`).
//!
//! Knows nothing of entry points, hooks or errno. A misuse that it finds comes back as an error.

mod free;
mod spans;
mod upper;
mod shrunk;
mod teardown;
mod holes;
mod check;
mod abandoned;
mod registry;
mod visit;
mod arenas;
mod profiling;

use crate::class::{reciprocal, size_of_class, slab_pages, slab_pages_with, slot_at, slots_in};
use crate::class::{CLASSES, LOCAL_CLASSES, MANY_CLASSES, SPAN_BINS};
use crate::counters;
use crate::door::Door;
use crate::large::{Block, Large};
use crate::meta::{Meta, HEAP_BYTES};
use crate::misuse::{Call, Misuse};
use crate::mutex::{Lock, Registry};
use crate::options::{Name, Options};
use crate::os::{Os, Vm};
use crate::owner::{AtomicOwner, Listing, Owner, RELEASED};
use crate::pages::Pages;
use crate::profile::Profile;
use crate::remote::{self, Overlap, Queue};
use crate::slab::{List, Shape, SlabPtr, SlabTable, Stack, State, FREES_UNCOUNTED, PARTIAL};
use crate::sync::{add_owned, xor_owned, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};
use crate::sync::{AtomicU32, AtomicU64};
use crate::tls::{SlotCache, ThreadCache};
use crate::units::{SlabId, PAGE, WORD_SLOTS};
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::compiler_fence;

pub use abandoned::Abandoned;
pub use arenas::Arenas;
use profiling::Profiling;
pub use registry::Heaps;
use shrunk::Shrunk;
pub use spans::may_serve;
pub use visit::Whose;

/// Freed spans that a heap keeps, in bytes, beyond half of its live ones.
const BINNED_BYTES: usize = 512 << 10;
/// How many bins above the fitting one are looked at.
const BINS_UP: usize = 3;
/// A slab is shared once others have freed one in so many of the slots that its owner has freed, or more.
const SHARED_PART: usize = 4;
/// Of so many shared slabs that become full, one is its first freer's.
const OWNED_AGAIN: u32 = 16;
/// An active slab that is shared goes on serving with so large a part of its slots free, one in so many.
const GOES_ON_PART: usize = 4;
/// Pages released between two looks at the active slabs.
const WATCH_PAGES: usize = 64;
/// A thread that leaves fewer bytes of slabs, or of large blocks, gives nothing back at its end.
const RETURNED_LEAST: usize = 1 << 20;
/// What a thread returns and takes: slabs and spans, and large blocks.
const SLABS: usize = 0;
pub(crate) const LARGE: usize = 1;
/// A rate of sampling below which every refill asks. Above, one in `TICK_EVERY` does.
const OFTEN: usize = 16 << 10;
/// The largest rate of sampling that is distinguished.
const RATE_MOST: usize = 1 << 30;
/// Slow paths between two looks at the clock.
const TICK_EVERY: u32 = 16;
/// Bytes that active spans hand out between two looks at the clock.
const TICK_SPAN_BYTES: u64 = 1 << 20;

/// All that the heaps of a process stand on.
///
/// What every start writes to comes first: each page of it that is written to costs a start a fault and a copy.
#[repr(C)]
pub struct Backend<O: Os> {
    /// The system.
    pub os: O,
    /// The thread heaps.
    pub heaps: Heaps,
    /// The metadata region.
    pub meta: Meta,
    /// What the user chose.
    pub options: Options,
    /// Pages and slab headers.
    pub pages: Pages,
    /// Large blocks.
    pub large: Large,
    /// Samples of the heap profile.
    pub profile: Profile,
    /// Slabs that exited threads left, with free slots.
    pub abandoned: Abandoned,
    /// Heaps that no thread owns.
    pub arenas: Arenas,
    /// How often memory was given back to whoever was refused.
    returns: AtomicU32,
}

impl<O: Os> Backend<O> {
    /// A backend of nothing yet.
    pub const fn new(locks: &mut Registry, os: O) -> Backend<O> {
        Backend {
            os,
            options: Options::new(locks),
            meta: Meta::new(locks),
            pages: Pages::new(locks),
            large: Large::new(locks),
            profile: Profile::new(locks),
            heaps: Heaps::new(locks),
            abandoned: Abandoned::new(locks),
            arenas: Arenas::new(locks),
            returns: AtomicU32::new(0),
        }
    }

    /// Shows every lock but those of the first-class heaps, which the repair of the heaps makes free.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        self.options.each_lock(visit);
        self.meta.each_lock(visit);
        self.pages.each_lock(visit);
        self.large.each_lock(visit);
        self.profile.each_lock(visit);
        self.heaps.each_lock(visit);
        self.abandoned.each_lock(visit);
        self.arenas.each_lock(visit);
    }

    /// Gives back what is kept for all heaps, as far as that makes room for something else.
    pub fn give_back_whole(&self) {
        self.large.give_back(&self.os, &self.meta);
        self.pages.give_up_classes(&self.os, &self.meta);
        self.pages.trim(&self.os, &self.meta, 0);
    }

    /// Gives back what is kept for all heaps, but for `keep` free pages at the heap's end.
    pub fn give_back(&self, keep: usize) {
        self.large.give_back(&self.os, &self.meta);
        self.pages.discard_all_kept(&self.os, &self.meta);
        self.pages.trim(&self.os, &self.meta, keep);
        self.pages.purge(&self.os, &self.meta, usize::MAX);
    }

    /// A new slab, as [`Pages::new_slab`]. Freed large blocks give way where the heap grew for it.
    fn new_slab(&self, shape: &Shape, owner: Owner) -> Option<(SlabPtr, bool)> {
        let made = self.pages.new_slab(&self.os, &self.meta, shape, owner);
        let grown = self.pages.take_grown();
        if grown > 0 && !self.pages.keeps_all() {
            self.large.give_way(&self.os, &self.meta, grown);
        }
        made
    }

    /// A large block, as [`Large::map`]. Free pages of the heap give way where it was mapped afresh.
    pub fn map_large(&self, size: usize, align: usize) -> Option<(Block, bool)> {
        self.map_large_on(&self.os, size, align)
    }

    /// As [`Backend::map_large`], with mappings from `os`, which may be the system with something around them.
    pub fn map_large_on<V: Vm>(&self, os: &V, size: usize, align: usize) -> Option<(Block, bool)> {
        let mapped = self.large.map(os, &self.meta, size, align);
        if let Some((block, true)) = mapped {
            self.pages.give_way(&self.os, &self.meta, block.bytes);
        }
        mapped
    }

    /// A thread has ended that returned so many bytes of slabs, and of large blocks, more than it took. Of few bytes nothing
    /// goes back: many programs begin such threads again and again.
    fn give_back_at_end(&self, [slabs, large]: [usize; 2]) {
        if self.pages.keeps_all() {
            return;
        }
        if slabs >= RETURNED_LEAST {
            self.pages.give_back_at_end(&self.os, &self.meta, slabs);
        }
        if large >= RETURNED_LEAST {
            self.large.give_back_at_end(&self.os, &self.meta, large);
        }
    }

    /// What tells whether memory went back: bytes of the break and of mappings, and free pages of the heap's.
    pub fn held(&self) -> [usize; 2] {
        let counters = self.meta.counters();
        let held = counters.break_bytes.load(Relaxed) + counters.mapped.load(Relaxed);
        [held as usize, self.pages.free_pages()]
    }

    /// Whether slots are chosen at random.
    fn draws(&self) -> bool {
        self.options.is_on(Name::Hardened) || self.options.is_on(Name::Random)
    }

    /// The header table.
    #[inline(always)]
    pub fn table(&self) -> SlabTable {
        self.pages.table()
    }
}

/// A size class of one heap.
struct Class {
    /// The slab that slots are taken from. 0 means none.
    active: Cell<u32>,
    /// The word of the active slab that was cached last.
    cursor: Cell<u8>,
    /// Several threads free into the active slab, which came from the process's list.
    shared: Cell<bool>,
    /// Slabs whose turn came since holes were last looked for, as far as they fit.
    taken: Cell<u16>,
    /// Slabs of this class that the heap owns, or owned last. Those that others have claimed since are counted until
    /// [`Heap::forget_lost`].
    owned: Cell<u32>,
    /// Slabs carved and not released by this heap: how large the next one is to be.
    grown: Cell<u32>,
    /// Slabs whose turn came while they were all but full, less those that had more to give.
    nearly_full: Cell<u32>,
    /// Slots of slabs that were carved while others had free slots, since a slab was carved for want of any.
    spare: Cell<u32>,
    /// Full slabs that the heap owns all the same: others' frees waited when they became full, or it is an arena's.
    full: Stack,
    /// Slabs with free slots, but the active one. First in, first out.
    partial: List<PARTIAL>,
    /// Slabs with free slots some of whose pages were discarded: taken from when `partial` is empty.
    sparse: Stack,
}

/// One thread's heap, in the metadata region: type-stable, never unmapped. Used by its thread alone, but
/// for the queue, and for what visitors read (see `visit`).
#[repr(C, align(128))]
pub struct Heap {
    /// The owner word. 0 means no thread's.
    me: AtomicOwner,
    generation: Cell<u64>,
    /// Slabs with remote frees to collect.
    queue: Queue,
    /// Number of the next unused heap, plus one.
    next: Cell<u32>,
    index: Cell<u32>,
    /// The system's number of the heap's thread, for readers outside, where it is known. 0 means that it is not, or
    /// none.
    thread: AtomicU64,
    /// The thread pointer of the heap's thread, by which a reader outside finds its number: no system call is needed.
    pointer: AtomicU64,
    /// Where the heap's thread keeps a word that tells of this heap (see [`Heap::watch`]). 0 means nowhere, or another
    /// thread looks after it.
    watched: AtomicU64,
    /// The value of that word.
    watched_value: AtomicU32,
    /// Used under a lock by any thread, and not by one: its slabs never change hands (see `arenas`).
    arena: Cell<bool>,
    /// The thread's block, which holds the caches of the smaller classes.
    local: Cell<*const ThreadCache>,
    /// All spans of the heap's.
    spans: List,
    /// The span of each bin that is taken and freed without an event.
    active_spans: [Cell<Option<SlabPtr>>; SPAN_BINS],
    /// Bins that are not empty.
    binned: Cell<u32>,
    binned_bytes: Cell<usize>,
    /// The least value of `binned_bytes` since the last decay.
    binned_low: Cell<usize>,
    /// Bytes of live spans that are not the active one of their bin.
    span_bytes: Cell<usize>,
    /// Nothing is kept for reuse, and an event tells when an active slab or span becomes free: see
    /// [`Heap::give_back_whole`].
    keeps_nothing: Cell<bool>,
    /// All was given back since a slab was made: the next one that is refused may be a smaller one.
    takes_smaller: Cell<bool>,
    /// The last of the times that memory was given back which the heap knows of (see [`Heap::has_gained`]).
    seen_returns: Cell<u32>,
    /// Bytes handed out and not told to the counters yet, and more where the heap is profiled (see `profiling`).
    bytes_allocated: Cell<u64>,
    profiling: Profiling,
    /// Slots cached, and sampled blocks, as far as they are not accounted for by `is_due`.
    slots: Cell<u32>,
    /// The count of slots at which the next block is sampled. 0 means not chosen yet.
    sample_at: Cell<u32>,
    /// How often the rate of sampling had changed when `slots` began to count.
    rate_changes: Cell<u32>,
    /// Bytes by which live slots became more, or fewer, and that were not yet added to the counters.
    live: Cell<i64>,
    /// Keeps the lists to one thread: the heap's own, or a visitor.
    door: Door,
    ticks: Cell<u32>,
    /// Shared slabs that this heap's thread filled up.
    filled_shared: Cell<u32>,
    /// Set where a visitor found the thread at work: it is to give back all that it keeps.
    asked: AtomicU32,
    /// Set for the next refill to come the long way, which asks whether it is to be sampled.
    asking: Cell<bool>,
    /// Pages released since the active slabs were last looked at.
    released: Cell<usize>,
    /// Bytes of slabs, and of large blocks, that the thread returned to the process and did not take again.
    returned: [Cell<usize>; 2],
    /// When what lay unused was last looked for. Others read it.
    last_decay: AtomicU64,
    /// What the search for holes has learnt, and where it stopped.
    holes: holes::Search,
    /// Address, number and size of a slot that was found freed twice and mended. Address 0: none.
    twice: [Cell<usize>; 3],
    caches: [SlotCache; CLASSES - LOCAL_CLASSES],
    /// The first page ends after those of up to 8 KiB. What lies after it is written to only for larger slots, when spans
    /// are freed, when a realloc moves a block that shrinks, and when another thread claims a full slab. So the heap of a
    /// thread without these takes one page.
    classes: [Class; CLASSES],
    /// Full slabs that the heap owned last and others have claimed, by class. Not beside the rest of the class,
    /// which its thread needs all the time.
    lost: [AtomicU32; CLASSES],
    /// Free spans that are kept, by bin.
    bins: [List<PARTIAL>; SPAN_BINS],
    /// Blocks that realloc moved to smaller slots.
    pub shrunk: Shrunk,
}

static_assertions::const_assert!(core::mem::size_of::<Heap>() <= HEAP_BYTES);
static_assertions::const_assert!(
    core::mem::offset_of!(Heap, classes) + MANY_CLASSES * core::mem::size_of::<Class>() <= PAGE
);

/// What part of its `slots`, one of so many, a class may have as spare slots. None for few slots, since refill goes
/// round those in no time. A slab with less than that free when its turn comes is nearly full.
#[inline]
fn spare_part(slots: usize) -> usize {
    match slots {
        0..1024 => usize::MAX,
        1024..16_384 => 6,
        _ => 16,
    }
}

/// The fewest slots of a slab, where there is room for as many, whose slots are chosen at random.
const DRAWN_SLOTS: usize = 16;
/// The fewest spare slots that a slab is carved for.
const SPARE_SLOTS: usize = 16;
/// How many times a class goes round its slabs and finds them nearly full before it may have spare slots.
const ROUNDS: u32 = 4;
/// And how many nearly full slabs it finds at least.
const PATIENCE: u32 = 64;

/// Where a slab with `free` of `slots` slots free belongs, and how many frees it may stay there.
fn place(free: usize, slots: usize) -> (State, i32) {
    if free == slots {
        (State::Released, 0)
    } else if free == 0 {
        (State::Full, 1)
    } else {
        (State::Partial, (slots - free) as i32)
    }
}

impl Class {
    /// Forgets all, without touching slabs. What is forgotten already is not written to (see [`Heap::classes`]).
    fn forget(&self) {
        let counters = [
            &self.active,
            &self.owned,
            &self.grown,
            &self.nearly_full,
            &self.spare,
        ];
        let unused = counters.iter().all(|counter| counter.get() == 0)
            && self.partial.is_empty()
            && self.full.is_empty()
            && self.sparse.is_empty()
            && self.taken.get() == 0;
        if unused {
            return;
        }
        counters.iter().for_each(|counter| counter.set(0));
        self.partial.clear();
        self.full.clear();
        self.sparse.clear();
        self.cursor.set(0);
        self.taken.set(0);
        self.shared.set(false);
    }

    /// Half as many slabs count as those whose turn came lately.
    fn halve_taken(&self) {
        let taken = self.taken.get();
        if taken != 0 {
            self.taken.set(taken / 2);
        }
    }

    /// Notes that the heap owns one slab more of this class.
    fn own(&self) {
        self.owned.set(self.owned.get() + 1);
    }

    /// Notes that the heap owns `slab`, of this class, no more.
    fn count_lost(&self, slab: SlabPtr) {
        self.owned.set(self.owned.get().saturating_sub(1));
        let slots = slab.slots() as u32;
        self.spare.set(self.spare.get().saturating_sub(slots));
    }

    /// The slab whose turn it is. Notes whether it was nearly full.
    #[inline(always)]
    fn next_partial(&self, table: SlabTable) -> Option<SlabPtr> {
        let slab = self.partial.pop_front(table)?;
        self.taken.set(self.taken.get().saturating_add(1));
        if let Some(next) = self.partial.first(table) {
            next.prefetch();
        }
        self.note_fill(self.is_nearly_full(slab));
        Some(slab)
    }

    /// Notes whether the slab whose turn has come is nearly full.
    #[inline(always)]
    fn note_fill(&self, is_nearly_full: bool) {
        let nearly_full = self.nearly_full.get();
        self.nearly_full.set(if is_nearly_full {
            nearly_full.saturating_add(1)
        } else {
            nearly_full.saturating_sub(1)
        });
    }

    /// Slots of all slabs, if they are as large as `slab`, and what part of them may be spare slots.
    #[inline(always)]
    fn slots_and_part(&self, slab: SlabPtr) -> (usize, usize) {
        let all = self.owned.get() as usize * slab.slots();
        (all, spare_part(all))
    }

    /// Whether `slab`, whose turn comes, has less free than its part of the spare slots.
    #[inline(always)]
    fn is_nearly_full(&self, slab: SlabPtr) -> bool {
        let (_, part) = self.slots_and_part(slab);
        is_nearly_full(slab, part)
    }

    /// How many slots a new slab may have that is carved although `slab`, the next in turn, has free ones.
    ///
    /// A heap that was filled to the last slot and then replaces blocks one by one has no spare slots. Each freed slot
    /// is the only one, and nearly every call would change slabs. So a class that has gone round its slabs `ROUNDS`
    /// times and found them nearly full may have spare slots, no sooner. Every program that does not pay for it again
    /// and again uses freed slots first.
    #[inline(always)]
    fn spare_for(&self, slab: SlabPtr) -> usize {
        let patience = self.owned.get().saturating_mul(ROUNDS).max(PATIENCE);
        if self.nearly_full.get() < patience || !self.is_nearly_full(slab) {
            return 0;
        }
        let (all, part) = self.slots_and_part(slab);
        (all / part).saturating_sub(self.spare.get() as usize)
    }

    /// Whether the short way may change from the active slab of this class, numbered `number`, to `next`, whose turn it
    /// is, once the active one is used up. Where it may not, there is more to be looked at first.
    #[inline(always)]
    fn may_change<O: Os>(&self, backend: &Backend<O>, number: usize, next: SlabPtr) -> bool {
        backend.abandoned.count(number) == 0
            && !remote::is_queued(next)
            && !self.shared.get()
            && self.spare_for(next) < SPARE_SLOTS
    }
}

/// Whether `slab`, whose `frees_left` says how many of its slots are live, has less free than one in `part`.
#[inline(always)]
fn is_nearly_full(slab: SlabPtr, part: usize) -> bool {
    let free = slab.slots() as i32 - slab.frees_left.get();
    (free as usize) < slab.slots() / part
}

impl Heap {
    /// The owner word.
    #[inline(always)]
    pub fn me(&self) -> Owner {
        self.me.load(Relaxed)
    }

    /// The owner word of a first-class heap. `Owner::NONE` for a thread's.
    #[inline]
    pub fn arena_word(&self) -> Owner {
        if self.arena.get() {
            self.me()
        } else {
            Owner::NONE
        }
    }

    /// The block that the heap works on, of which nothing is read here: a thread's own goes with it.
    pub fn block(&self) -> *const ThreadCache {
        self.local.get()
    }

    /// The cache of a class above the thread-local ones.
    #[inline(always)]
    pub fn upper_cache(&self, class: usize) -> &SlotCache {
        &self.caches[class - LOCAL_CLASSES]
    }

    /// The cache of any class of slots.
    pub fn cache(&self, class: usize) -> &SlotCache {
        if class >= LOCAL_CLASSES {
            return self.upper_cache(class);
        }
        // SAFETY: set when the thread got this heap, whose thread is the caller, and cleared at its end.
        unsafe { &(*self.local.get()).caches[class] }
    }

    // ---- taking slots ---------------------------------------------------------------------------

    /// Takes a slot of `class`, and caches the free slots of its word into the class's cache. `None`
    /// where memory has run out.
    pub fn refill<O: Os>(
        &self,
        backend: &Backend<O>,
        class: usize,
    ) -> Result<Option<*mut u8>, Misuse> {
        self.tick(backend)?;
        let cache = self.cache(class);
        loop {
            match self.refill_from_active::<O, true>(backend, class, cache) {
                Ok(Some(slot)) => return Ok(Some(slot)),
                Ok(None) => {}
                Err(misuse) => {
                    self.record_error(misuse);
                    if let Some(slab) = self.active(backend.table(), class) {
                        self.collect(slab)?;
                    }
                    continue;
                }
            }
            if let Some(slab) = self.active(backend.table(), class) {
                if !self.retire(backend, slab)? {
                    continue;
                }
            }
            match self.next_slab(backend, class)? {
                Some(slab) => self.activate(slab),
                None => return Ok(None),
            }
        }
    }

    /// The common part of [`Heap::refill`]: caches the next word of the active slab and takes its first
    /// slot. `None` where that is not all there is to do, or something is wrong, which the other one then
    /// finds again. `cache` is that of `class`. About sixty instructions.
    #[inline(always)]
    pub fn next_word<O: Os>(
        &self,
        backend: &Backend<O>,
        class: usize,
        cache: &SlotCache,
    ) -> Option<*mut u8> {
        let table = backend.table();
        let ticks = self.ticks.get();
        if ticks.is_multiple_of(TICK_EVERY) {
            return None;
        }
        let this = self.classes.get(class)?;
        let slab = SlabId(this.active.get());
        if !slab.is_some() {
            return None;
        }
        let slab = table.get(slab);
        cache.hide();
        let (word, bits) = slab.next_word(this.cursor.get() as usize)?;
        if slab.remote_at(word, class).load(Relaxed) & bits != 0 {
            return None;
        }
        self.ticks.set(ticks.wrapping_add(1));
        let slot = self.check_out(backend, slab, cache, word, bits)?;
        this.cursor.set(word as u8);
        Some(slot)
    }

    /// As [`Heap::next_word`], where the active slab is used up: of the slab whose turn is next. `None` where
    /// that is not all there is to do.
    pub fn refill_from_next<O: Os>(
        &self,
        backend: &Backend<O>,
        class: usize,
        cache: &SlotCache,
    ) -> Option<*mut u8> {
        let table = backend.table();
        let ticks = self.ticks.get();
        if ticks.is_multiple_of(TICK_EVERY) {
            return None;
        }
        let this = &self.classes[class];
        let (Some(slab), Some(next)) = (self.active(table, class), this.partial.first(table))
        else {
            return None;
        };
        cache.hide();
        let frees_left = slab.frees_left.get();
        compiler_fence(SeqCst); // before the bits are read
        if slab.next_word(0).is_some() || !this.may_change(backend, class, next) {
            return None;
        }
        self.ticks.set(ticks.wrapping_add(1));
        self.change(table, this, slab, frees_left)?;
        self.refill_from_active::<O, false>(backend, class, cache)
            .unwrap_or(None)
    }

    /// Checks out the next word of the active slab and takes its first slot. `None` if it has no free slot, or there is
    /// none. Where it does not `SAMPLE`, also where the profile asks for the long way.
    #[inline]
    fn refill_from_active<O: Os, const SAMPLE: bool>(
        &self,
        backend: &Backend<O>,
        class: usize,
        cache: &SlotCache,
    ) -> Result<Option<*mut u8>, Misuse> {
        let Some(slab) = self.active(backend.table(), class) else {
            return Ok(None);
        };
        cache.hide();
        let cursor = &self.classes[class].cursor;
        match slab.next_word(cursor.get() as usize) {
            Some((word, mut bits)) => {
                refuse_twice(slab, word, bits)?;
                let slot = if SAMPLE {
                    bits = self.pass_samples(backend, slab, word, bits);
                    Some(self.fill_cache(slab, cache, word, bits, slab.size()))
                } else {
                    self.check_out(backend, slab, cache, word, bits)
                };
                if slot.is_some() {
                    cursor.set(word as u8);
                }
                Ok(slot)
            }
            None => Ok(None),
        }
    }

    /// Whether the allocation that asks for a refill is the one to be sampled, of one in `rate`: by the slots
    /// handed out since the last one, so that the rate is right although only refills ask. `random` is asked
    /// for once a sample.
    pub fn is_due(&self, options: &Options, random: impl Fn() -> u64) -> bool {
        let rate = options.get(Name::GuardSample);
        if rate == 0 {
            return false;
        }
        self.heed_rate(options.changes());
        if rate < OFTEN {
            // So that the next refill asks as well. The clock need not be looked at for that.
            let next = self.ticks.get().wrapping_add(TICK_EVERY - 1);
            self.ticks.set(next - next % TICK_EVERY);
            self.asking.set(true);
        }
        let rate = rate.min(RATE_MOST) as u64;
        if self.sample_at.get() == 0 {
            self.sample_at.set((1 + random() % (2 * rate - 1)) as u32);
        }
        let Some(over) = self.slots.get().checked_sub(self.sample_at.get()) else {
            return false;
        };
        self.slots.set(over);
        self.sample_at.set(0);
        true
    }

    /// Slots count from when the rate of sampling was set, which has been `changes` times.
    fn heed_rate(&self, changes: u32) {
        if self.rate_changes.replace(changes) != changes {
            self.slots.set(0);
            self.sample_at.set(0);
        }
    }

    /// In a fork child: other blocks are sampled than in the parent.
    pub fn sample_anew(&self) {
        self.sample_at.set(0);
        self.profile_anew();
    }

    /// A block was sampled, which counts as a slot.
    pub fn was_sampled(&self) {
        self.slots.set(self.slots.get().wrapping_add(1));
    }

    /// Counts the free slots `bits` of `word` as handed out, caches them and takes the first. `None`, and nothing was
    /// done, where the profile asks for the long way.
    #[inline(always)]
    fn check_out<O: Os>(
        &self,
        backend: &Backend<O>,
        slab: SlabPtr,
        cache: &SlotCache,
        word: usize,
        bits: u64,
    ) -> Option<*mut u8> {
        let size = slab.size();
        if !self.count(slab, size, bits) {
            return self.cache_warily(backend, slab, cache, word, bits);
        }
        Some(self.fill_cache(slab, cache, word, bits, size))
    }

    /// `slab`, the active one of the class `this`, is used up: the one whose turn is next becomes active instead.
    #[inline(always)]
    fn change(
        &self,
        table: SlabTable,
        this: &Class,
        slab: SlabPtr,
        frees_left: i32,
    ) -> Option<SlabPtr> {
        this.active.set(0);
        self.fill_up(table, slab, frees_left);
        let next = this.next_partial(table)?;
        self.activate(next);
        Some(next)
    }

    /// Takes the lowest of the free slots `bits`, which were counted, and puts the others into the cache. In this order: a signal
    /// handler that allocates in between finds an empty cache, or a whole one.
    #[inline(always)]
    fn fill_cache(
        &self,
        slab: SlabPtr,
        cache: &SlotCache,
        word: usize,
        bits: u64,
        size: usize,
    ) -> *mut u8 {
        let first = word * WORD_SLOTS;
        let rest = bits & (bits - 1);
        let free = slab.free_word_at(first);
        xor_owned(free, bits ^ rest);
        let base = (slab.base() + first * size) as *mut u8;
        cache.word.set(free);
        cache.base.set(base);
        cache.size.set(size);
        let count = bits.count_ones();
        self.slots.set(self.slots.get().wrapping_add(count));
        compiler_fence(Release);
        cache.bits.set(rest);
        base.wrapping_add(bits.trailing_zeros() as usize * size)
    }

    /// The slab that `class` takes slots from, and the number of the first slot of the word that is checked
    /// out of it.
    #[inline]
    pub fn cached_word(&self, table: SlabTable, class: usize) -> Option<(SlabPtr, usize)> {
        let first = self.classes[class].cursor.get() as usize * WORD_SLOTS;
        Some((self.active(table, class)?, first))
    }

    /// Lets the next refill of `class` begin its search at another word: `random` chooses which.
    #[inline]
    pub fn shuffle(&self, table: SlabTable, class: usize, random: usize) {
        if let Some(slab) = self.active(table, class) {
            let cursor = random % slab.words().max(1);
            self.classes[class].cursor.set(cursor as u8);
        }
    }

    #[inline]
    fn activate(&self, slab: SlabPtr) {
        let this = &self.classes[slab.class()];
        slab.set_state(State::Active);
        self.count_no_frees(slab);
        self.remind(slab);
        this.active.set(slab.id().0);
        this.cursor.set(slab.words() as u8 - 1);
    }

    /// No event follows from frees into `slab` from now on.
    #[inline(always)]
    fn count_no_frees(&self, slab: SlabPtr) {
        slab.frees_left.set(FREES_UNCOUNTED);
        self.keeps_nothing.set(false);
    }

    /// The active slab has no slot left. False where others have freed many of its slots meanwhile, or a signal handler
    /// any: it stays the active one.
    fn retire<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr) -> Result<bool, Misuse> {
        let this = &self.classes[slab.class()];
        if this.shared.get() {
            return self.retire_shared(backend, slab);
        }
        let frees_left = slab.frees_left.get();
        compiler_fence(SeqCst); // before the bits are read
        if slab.next_word(0).is_some() {
            return Ok(false);
        }
        this.active.set(0);
        self.fill_up(backend.table(), slab, frees_left);
        Ok(true)
    }

    /// As [`Heap::retire`], of a slab that was shared, and is again: this heap does not keep what others free in it.
    fn retire_shared<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr) -> Result<bool, Misuse> {
        if slab.owner.load(Relaxed) != self.me() {
            self.collect(slab)?;
        }
        let free = slab.count_free();
        if free != 0 && free >= slab.slots() / GOES_ON_PART {
            return Ok(false);
        }
        self.classes[slab.class()].active.set(0);
        slab.set_state(State::Unlisted);
        // A slab of the process's list is not in this heap's account of spare slots.
        let this = &self.classes[slab.class()];
        let spare = this.spare.get();
        self.leave(backend, slab, Listing::Shared)?;
        this.spare.set(spare);
        Ok(true)
    }

    /// A slab on no list had no free slot after its `frees_left` was read: it is whose who frees into it first, from
    /// now on, unless others' frees wait. A signal handler may have freed since, which `frees_left` shows.
    #[inline(always)]
    fn fill_up(&self, table: SlabTable, slab: SlabPtr, frees_left: i32) {
        self.account(slab, 0);
        slab.set_state(State::Unlisted);
        add_owned(&slab.frees_left, frees_left.wrapping_neg());
        if self.can_open(slab) && remote::open(slab, self.me()) {
            return;
        }
        self.classes[slab.class()].full.push(table, slab);
        slab.set_state(State::Full);
        add_owned(&slab.frees_left, 1);
        if slab.frees_left.get() <= 0 {
            self.requeue_full(table, slab);
        }
    }

    /// Whether a full slab may become nobody's. Not while it is queued here: whoever claims it could not be told of
    /// frees until this heap drains.
    #[inline(always)]
    fn can_open(&self, slab: SlabPtr) -> bool {
        slab.frees_left.get() == 0 && !remote::is_queued(slab) && !self.arena.get()
    }

    /// A slab with free slots: see the module's order. Unlisted, owned by this heap.
    fn next_slab<O: Os>(
        &self,
        backend: &Backend<O>,
        class: usize,
    ) -> Result<Option<SlabPtr>, Misuse> {
        let this = &self.classes[class];
        let table = backend.table();
        this.shared.set(false);
        let lean = |next: SlabPtr| next.frees_left.get() as usize > next.slots() - next.slots() / 8;
        let waits = |next: SlabPtr| lean(next) || remote::is_queued(next);
        if !self.queue.is_empty() && this.partial.first(table).is_none_or(waits) {
            self.drain(backend)?;
        }
        if this.partial.first(table).is_none_or(lean) && !self.arena.get() {
            if let Some(slab) = self.adopt(backend, class)? {
                return Ok(Some(slab));
            }
        }
        if let Some(next) = this.partial.first(table) {
            let spare = this.spare_for(next);
            if spare >= SPARE_SLOTS && self.queue.is_empty() {
                if let Some(slab) = self.new_slab(backend, class, spare) {
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
        backend.abandoned.forget_spare(class);
        Ok(self.new_slab(backend, class, usize::MAX))
    }

    /// A slab of the process's list, which no heap counts as its own: so what spare slots there may be in the class is for
    /// all heaps together.
    fn adopt<O: Os>(&self, backend: &Backend<O>, class: usize) -> Result<Option<SlabPtr>, Misuse> {
        let this = &self.classes[class];
        let adopted = backend.abandoned.adopt(backend.table(), class, self.me());
        let Some((slab, how)) = adopted else {
            return Ok(None);
        };
        this.own();
        self.collect(slab)?;
        slab.frees_left
            .set((slab.slots() - slab.count_free()) as i32);
        let counters = backend.meta.counters();
        let slabs = counters.slabs[class].load(Relaxed) as usize;
        let all = slabs * slab.slots();
        let part = spare_part(all);
        let nearly_full = is_nearly_full(slab, part);
        this.note_fill(nearly_full);
        let heaps = counters.heaps.load(Relaxed).max(1) as usize;
        let patience = (slabs * ROUNDS as usize / heaps).max(PATIENCE as usize);
        if nearly_full && this.nearly_full.get() as usize >= patience {
            let spare = (all / part).saturating_sub(backend.abandoned.spare(class));
            let carved = (spare >= SPARE_SLOTS).then(|| self.new_slab(backend, class, spare));
            if let Some(carved) = carved.flatten() {
                backend.abandoned.add_spare(class, carved.slots());
                self.requeue(backend, slab)?;
                return Ok(Some(carved));
            }
        }
        this.shared.set(how != Listing::Listed);
        Ok(Some(slab))
    }

    /// A new slab, of at most `most` slots where a slab can be as small.
    fn new_slab<O: Os>(&self, backend: &Backend<O>, class: usize, most: usize) -> Option<SlabPtr> {
        let this = &self.classes[class];
        let mut pages = slab_pages(class, this.grown.get() as usize);
        if backend.draws() {
            pages = pages.max(slab_pages_with(class, DRAWN_SLOTS));
        }
        while pages > slab_pages(class, 0) && slots_in(class, pages) > most {
            pages = (pages / 2).max(slab_pages(class, 0));
        }
        let size = size_of_class(class);
        let shape = |pages| Shape {
            class,
            size,
            recip: reciprocal(size as u32),
            slots: slots_in(class, pages),
            pages,
            align: 1,
        };
        let smallest = slab_pages(class, 0);
        let new_slab = |pages| backend.new_slab(&shape(pages), self.me());
        if backend.pages.is_refused() {
            pages = smallest;
        }
        // Small slabs would take more guard pages and headers than what waits for other classes can spare: that gives
        // way first.
        let gives_way = || !self.takes_smaller.get() && backend.pages.can_give_up();
        let (slab, _) = new_slab(pages).or_else(|| match pages == smallest || gives_way() {
            true => None,
            false => new_slab(smallest),
        })?;
        self.takes_smaller.set(false);
        this.own();
        self.note_taken(SLABS, slab.pages() * PAGE);
        this.grown.set(this.grown.get() + 1);
        counters::add(&backend.meta.counters().slabs[class], 1);
        self.flush_stats(backend);
        Some(slab)
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

/// The slot of `slab` at `addr`, which lies in one of its pages. A slab that has gone back meanwhile was freed by
/// another thread at the same time: its header still says what it was.
pub fn locate(slab: SlabPtr, addr: usize, call: Call) -> Result<usize, Misuse> {
    let gone = !slab.id().is_some() || slab.owner.load(Relaxed) == RELEASED;
    let offset = addr.wrapping_sub(slab.base());
    let (slot, exact) = slot_at(offset, slab.recip.load(Relaxed));
    let (is_slot, size) = (exact && slot < slab.slots(), slab.size());
    match (is_slot, gone) {
        (true, false) => Ok(slot),
        (true, true) => Err(Misuse::Dead {
            call,
            addr,
            slot,
            size,
        }),
        (false, true) => Err(Misuse::Unknown { call, addr }),
        (false, false) => Err(Misuse::Inside {
            call,
            addr,
            offset,
            size,
        }),
    }
}

impl Heap {
    /// Remembers a slot freed twice, which is mended, until the slow path's end.
    fn record_error(&self, misuse: Misuse) {
        if let Misuse::CollectedTwice { addr, slot, size } = misuse {
            let values = [addr, slot, size];
            self.twice
                .iter()
                .zip(values)
                .for_each(|(to, value)| to.set(value));
        }
    }

    /// The slot freed twice that was noted last, once.
    pub fn recorded_error(&self) -> Option<Misuse> {
        let [addr, slot, size] = self.twice.each_ref().map(Cell::take);
        (addr != 0).then_some(Misuse::CollectedTwice { addr, slot, size })
    }
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

impl Heap {
    /// The heap's thread keeps `value` at `word`, in its own block, for as long as it has this heap. So whoever finds
    /// another value there, or no memory, knows that the thread has ended without its exit hook. No system call is
    /// needed to know a thread by: a filter may kill who asks for its number.
    pub fn watch(&self, word: *const u32, value: u32) {
        self.watched.store(0, SeqCst);
        self.watched_value.store(value, SeqCst);
        // A thread that comes later may have its block at the same address.
        let tag = self.generation.get() & (TAGS - 1);
        self.watched.store((word as u64 / 4 * TAGS) | tag, SeqCst);
    }

    /// The heap is no thread's any more, for readers outside too, and is never taken back.
    pub fn unwatch(&self) {
        self.watched.store(0, SeqCst);
        self.thread.store(0, SeqCst);
        self.pointer.store(0, SeqCst);
    }

    /// Whether the heap's thread has ended without its exit hook. If so the caller alone is told, and takes the heap
    /// back. `None` for a heap that is no thread's, or looked after by another one.
    fn is_left<O: Os>(&self, os: &O) -> Option<bool> {
        let watched = self.watched.load(SeqCst);
        let value = self.watched_value.load(SeqCst);
        if watched == 0 || self.watched.load(SeqCst) != watched {
            return None;
        }
        let word = (watched / TAGS * 4) as usize;
        let left = os.still_holds(word, value) == Some(false);
        Some(
            left && self
                .watched
                .compare_exchange(watched, 0, SeqCst, SeqCst)
                .is_ok(),
        )
    }
}

/// Generations that [`Heap::watch`] tells apart, beside an address of 48 bits of a word of four bytes.
const TAGS: u64 = 1 << WATCHED_SHIFT;
/// Base-2 logarithm of `TAGS`.
pub const WATCHED_SHIFT: u32 = 18;

/// The heap of a thread's block, if it has one.
#[inline(always)]
pub fn heap_of(local: &ThreadCache) -> Option<&Heap> {
    // SAFETY: set by `Heaps::take` to a heap that is never unmapped, for this thread alone.
    NonNull::new(local.heap.get().cast_mut()).map(|heap| unsafe { heap.cast::<Heap>().as_ref() })
}
