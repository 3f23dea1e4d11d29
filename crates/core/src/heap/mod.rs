//! One thread's slabs by size class, and its spans: what a heap is, and what all heaps stand on.
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
//! longest ago are handed out first, sweep by sweep, and a slab gathers free slots until its turn. One with little left
//! after a round waits again, if another one has far more. Then come slabs that
//! exited threads left, and only then a new one. One kind of class is an exception: it has gone round its slabs again
//! and again and found them nearly full (see `Class::spare_for`).
//!
//! Knows nothing of entry points, hooks or errno. A misuse that it finds comes back as an error.

mod owed;
mod thin;
mod spare;
mod refill;
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

use crate::class::slot_at;
use crate::class::{ClassId, CLASSES, LOCAL_CLASSES, MANY_CLASSES, SPAN_BINS, UPPER_CLASSES};
use crate::door::Door;
use crate::large::{Block, Fresh, Large};
use crate::layout::WATCHED_SHIFT;
use crate::meta::{Meta, Supply, HEAP_BYTES};
use crate::misuse::{Call, Misuse};
use crate::mutex::{Guard, Lock, Mutex, Registry};
use crate::options::{Name, Options};
use crate::os::{Os, Vm};
use crate::owner::{AtomicOwner, HeapId, Owner, RELEASED};
use crate::pages::Pages;
use crate::profile::Profile;
use crate::remote::{Overlap, Queue};
use crate::slab::{List, Shape, SlabPtr, SlabTable, Stack, State, PARTIAL};
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::{SlotCache, ThreadCache};
use crate::units::{PageStart, SlabId, Slot, PAGE, PAGE_START};
use core::cell::Cell;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{compiler_fence, AtomicBool};

pub use abandoned::Abandoned;
pub use arenas::Arenas;
pub use owed::Owed;
use profiling::Profiling;
use refill::shape_of;
pub use refill::NextWord;
pub use registry::Heaps;
use shrunk::Shrunk;
pub use spans::may_serve;
use thin::frees_until_event;
pub use visit::{Alone, Inside, Whose};

/// Freed spans that a heap keeps, in bytes, beyond half of its live ones.
const BINNED_BYTES: usize = 512 << 10;
/// How many bins above the fitting one are looked at.
const BINS_UP: usize = 3;
/// A slab is shared once others have freed one in so many of the slots that its owner has freed, or more.
const SHARED_PART: usize = 4;
/// Of so many shared slabs that become full, one is its first freer's.
const OWNED_AGAIN: u32 = 16;
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
/// Slow paths of a thread after which it asks what instructions the processor has.
const LEARNS_AFTER: u32 = 256;
/// How long a refused thread waits for another one that gives back, in milliseconds.
const GIVING_MS: u64 = 1000;
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
    /// The options end at a page.
    _page_start: PageStart,
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
    /// Held by a thread that was refused while it gives back what is kept. Another one that was refused meanwhile waits
    /// for it, and asks again after that. Taken after the locks of a first-class heap and of the threads without a heap,
    /// and before every other one.
    giving: Mutex<()>,
    /// Whether a thread waited in vain: one that left by longjmp in the midst may never give the lock back.
    gives_late: AtomicBool,
}

impl<O: Os> Backend<O> {
    /// A backend of nothing yet.
    pub const fn new(locks: &mut Registry, os: O) -> Backend<O> {
        Backend {
            os,
            options: Options::new(locks),
            meta: Meta::new(locks),
            _page_start: [0; PAGE_START],
            pages: Pages::new(locks),
            large: Large::new(locks),
            profile: Profile::new(locks),
            heaps: Heaps::new(locks),
            abandoned: Abandoned::new(locks),
            arenas: Arenas::new(locks),
            returns: AtomicU32::new(0),
            giving: Mutex::new(locks, ()),
            gives_late: AtomicBool::new(false),
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
        visit(self.giving.as_lock());
    }

    /// Whether nobody holds one of the locks that are never held over a system call: a thread waits for them no longer than
    /// their holder computes.
    pub fn short_locks_are_free(&self) -> bool {
        self.pages.page_lock_is_free()
            && self.large.record_lock_is_free()
            && self.profile.lists_lock_is_free()
            && self.heaps.short_lock_is_free()
            && self.abandoned.short_locks_are_free()
    }

    /// Until the guard goes, no other thread that is refused gives anything back. Without a guard one may: it had the
    /// lock for [`GIVING_MS`].
    pub fn begin_giving(&self) -> Option<Guard<'_, ()>> {
        let patience = match self.gives_late.load(Relaxed) {
            true => 0,
            false => GIVING_MS,
        };
        let guard = self.giving.lock_within(patience);
        self.gives_late.store(guard.is_none(), Relaxed);
        guard
    }

    /// Whether a thread gives back now, since it was refused or told to.
    pub fn is_giving(&self) -> bool {
        !self.giving.as_lock().is_free()
    }

    /// Gives back what is kept for all heaps, as far as that makes room for something else.
    pub fn give_back_whole(&self) {
        self.large.give_back(self.supply());
        self.pages.give_up_classes(self.supply());
        self.pages.trim(self.supply(), 0);
    }

    /// Gives back what is kept for all heaps, but for `keep` free pages at the heap's end.
    pub fn give_back(&self, keep: usize) {
        self.large.give_back(self.supply());
        self.pages.discard_all_kept(self.supply());
        self.pages.trim(self.supply(), keep);
        self.pages.purge(self.supply(), usize::MAX);
    }

    /// A new slab, as [`Pages::new_slab`]. Freed large blocks give way where the heap grew for it.
    fn new_slab(&self, shape: &Shape, owner: Owner) -> Option<(SlabPtr, bool)> {
        let made = self.pages.new_slab(self.supply(), shape, owner);
        self.give_way_to_growth();
        made
    }

    /// Sees to it that a new slab of `pages` pages for slots of `class` needs no system call, unless another thread is
    /// faster. False if the system gives no more memory.
    pub fn make_room(&self, class: ClassId, pages: usize) -> bool {
        let made = self.pages.make_room(self.supply(), &shape_of(class, pages));
        self.give_way_to_growth();
        made
    }

    fn give_way_to_growth(&self) {
        let grown = self.pages.take_grown();
        if grown > 0 && !self.pages.keeps_all() {
            self.large.give_way(self.supply(), grown);
        }
    }

    /// A large block, as [`Large::map`], and whether it is all zero. Free pages of the heap give way where it was mapped afresh.
    pub fn map_large(&self, size: usize, align: usize) -> Option<(Block, bool)> {
        let mapped = self.map_large_on(&self.os, size, align)?;
        Some((mapped.block, mapped.new.is_some()))
    }

    /// As [`Backend::map_large`], with mappings from `os`, which may be the system with something around them.
    pub fn map_large_on<V: Vm>(&self, os: &V, size: usize, align: usize) -> Option<Fresh> {
        let supply = Supply {
            os,
            meta: &self.meta,
        };
        let mapped = self.large.map(supply, size, align);
        if let Some(new) = mapped.and_then(|mapped| mapped.new) {
            self.pages.give_way(self.supply(), new);
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
            self.pages.give_back_at_end(self.supply(), slabs);
        }
        if large >= RETURNED_LEAST {
            self.large.give_back_at_end(self.supply(), large);
        }
    }

    /// What tells whether memory went back: bytes of the break and of mappings, and free pages of the heap's.
    pub fn held(&self) -> [usize; 2] {
        let counters = self.meta.counters();
        let held = counters.break_bytes.load(Relaxed) + counters.mapped.load(Relaxed);
        [held as usize, self.pages.free_pages()]
    }

    /// Whether slots are chosen at random.
    pub fn draws(&self) -> bool {
        self.options.is_on(Name::Hardened) || self.options.is_on(Name::Random)
    }

    /// Where memory comes from.
    #[inline(always)]
    pub fn supply(&self) -> Supply<'_, O> {
        Supply {
            os: &self.os,
            meta: &self.meta,
        }
    }

    /// The header table.
    #[inline(always)]
    pub fn table(&self) -> SlabTable {
        self.pages.table()
    }
}

/// A heap with the backend that it stands on: what its slow paths work with. Two words, by value.
pub struct HeapRef<'a, O: Os> {
    heap: &'a Heap,
    /// What it stands on.
    pub backend: &'a Backend<O>,
}

impl<O: Os> Clone for HeapRef<'_, O> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<O: Os> Copy for HeapRef<'_, O> {}

impl<O: Os> HeapRef<'_, O> {
    /// The header table.
    #[inline(always)]
    fn table(self) -> SlabTable {
        self.backend.table()
    }
}

impl<O: Os> Deref for HeapRef<'_, O> {
    type Target = Heap;

    #[inline(always)]
    fn deref(&self) -> &Heap {
        self.heap
    }
}

impl Heap {
    /// The heap, on `backend`.
    #[inline(always)]
    pub fn on<'a, O: Os>(&'a self, backend: &'a Backend<O>) -> HeapRef<'a, O> {
        HeapRef {
            heap: self,
            backend,
        }
    }
}

/// A size class of one heap.
struct Class {
    /// The slab that slots are taken from. 0 means none.
    active: Cell<SlabId>,
    /// The word of the active slab that was cached last.
    cursor: Cell<u8>,
    /// Several threads free into the active slab, which came from the process's list.
    shared: Cell<bool>,
    /// Slabs whose turn came since holes were last looked for, as far as they fit.
    taken: Cell<u16>,
    /// Slabs of this class that the heap owns, or owned last. Those that others have claimed since are counted until
    /// [`HeapRef::forget_lost`].
    owned: Cell<u32>,
    /// Slabs carved and not released by this heap: how large the next one is to be.
    grown: Cell<u32>,
    /// Slabs whose turn came while they were all but full, less those that had more to give.
    nearly_full: Cell<u32>,
    /// Slots of slabs that were carved while others had free slots, since a slab was carved for want of any.
    spare: Cell<u32>,
    /// Full slabs that the heap owns all the same: others' frees waited when they became full, or it is an arena's.
    full: Stack,
    /// Slabs that wait for their turn, with free slots or used up (see `upper`). First in, first out.
    partial: List<PARTIAL>,
    /// Slabs with free slots some of whose pages were discarded: taken from when `partial` is empty.
    sparse: Stack,
}

/// One thread's heap, in the metadata region: type-stable, never unmapped. Used by its thread alone, but
/// for the queue, and for what visitors read (see `visit`).
#[repr(C, align(128))]
pub struct Heap {
    // What slow paths alone use lies at the start of the page (see `PAGE_START`).
    generation: Cell<u64>,
    /// The next unused heap.
    next: Cell<Option<HeapId>>,
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
    /// The count of slots at which the next block is sampled. 0 means not chosen yet.
    sample_at: Cell<u32>,
    /// How often the rate of sampling had changed when `slots` began to count.
    rate_changes: Cell<u32>,
    /// Shared slabs that this heap's thread filled up.
    filled_shared: Cell<u32>,
    /// Bytes of slabs, and of large blocks, that the thread returned to the process and did not take again.
    returned: [Cell<usize>; 2],
    /// When what lay unused was last looked for. Others read it.
    last_decay: AtomicU64,
    /// What the search for holes has learnt, and where it stopped.
    holes: holes::Search,
    /// Address, number and size of a slot that was found freed twice and mended. Address 0: none.
    twice: [Cell<usize>; 3],
    /// The owner word. 0 means no thread's.
    me: AtomicOwner,
    /// Slabs with remote frees to collect.
    queue: Queue,
    /// Used under a lock by any thread, and not by one: its slabs never change hands (see `arenas`).
    arena: Cell<bool>,
    /// Whether it is used under a lock that is held over no system call.
    debts: owed::Debts,
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
    /// [`HeapRef::give_back_whole`].
    keeps_nothing: Cell<bool>,
    /// All was given back since a slab was made: the next one that is refused may be a smaller one.
    takes_smaller: Cell<bool>,
    /// The last of the times that memory was given back which the heap knows of (see [`HeapRef::has_gained`]).
    seen_returns: Cell<u32>,
    /// Bytes handed out and not told to the counters yet, and more where the heap is profiled (see `profiling`).
    bytes_allocated: Cell<u64>,
    profiling: Profiling,
    /// Slots cached, and sampled blocks, as far as they are not accounted for by `is_due`.
    slots: Cell<u32>,
    /// Bytes by which live slots became more, or fewer, and that were not yet added to the counters.
    live: Cell<i64>,
    /// Keeps the lists to one thread: the heap's own, or a visitor.
    door: Door,
    ticks: Cell<u32>,
    /// Set where a visitor found the thread at work: it is to give back all that it keeps.
    asked: AtomicU32,
    /// Set for the next refill to come the long way, which asks whether it is to be sampled.
    asking: Cell<bool>,
    /// Set for the next refill to carve spare slots to draw among (see [`HeapRef::widen_choice`]).
    lacks_choice: Cell<bool>,
    /// Pages released since the active slabs were last looked at.
    released: Cell<usize>,
    caches: [SlotCache; UPPER_CLASSES],
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
    thin: thin::Thin,
    growth: holes::Growth,
}

static_assertions::const_assert!(core::mem::size_of::<Heap>() <= HEAP_BYTES);
static_assertions::const_assert!(core::mem::offset_of!(Heap, me) >= PAGE_START);
static_assertions::const_assert!(
    core::mem::offset_of!(Heap, classes) + MANY_CLASSES * core::mem::size_of::<Class>() <= PAGE
);

/// The slab's free slots and its `frees_left` at the same moment: a signal handler may free in between, which
/// counts `frees_left` down.
fn count_steadily(slab: SlabPtr) -> (usize, i32) {
    count_steadily_by(slab, SlabPtr::count_free)
}

/// As [`count_steadily`], where `count` counts the free slots.
#[inline(always)]
fn count_steadily_by(slab: SlabPtr, count: impl Fn(SlabPtr) -> usize) -> (usize, i32) {
    loop {
        let before = slab.frees_left.get();
        compiler_fence(SeqCst);
        let free = count(slab);
        compiler_fence(SeqCst);
        if slab.frees_left.get() == before {
            return (free, before);
        }
    }
}

/// Where `slab` belongs, `free` of whose slots are free, and how many frees it may stay there.
fn place(slab: SlabPtr, free: usize) -> (State, i32) {
    let slots = slab.slots();
    if free == slots {
        (State::Released, 0)
    } else if free == 0 {
        (State::Full, 1)
    } else {
        (State::Partial, frees_until_event(slab, slots, slots - free))
    }
}

impl Class {
    /// Forgets all, without touching slabs. What is forgotten already is not written to (see [`Heap::classes`]).
    fn forget(&self) {
        let counters = [&self.owned, &self.grown, &self.nearly_full, &self.spare];
        let unused = counters.iter().all(|counter| counter.get() == 0)
            && self.partial.is_empty()
            && self.full.is_empty()
            && self.sparse.is_empty()
            && self.active.get() == SlabId::NONE
            && self.taken.get() == 0;
        if unused {
            return;
        }
        self.active.set(SlabId::NONE);
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
}

impl Heap {
    /// The owner word.
    #[inline(always)]
    pub fn me(&self) -> Owner {
        self.me.load(Relaxed)
    }

    /// The heap's number.
    fn id(&self) -> HeapId {
        HeapId::new(self.index.get() as usize)
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
    pub fn upper_cache(&self, class: ClassId) -> &SlotCache {
        &self.caches[class.index() - LOCAL_CLASSES]
    }

    /// The cache of any class of slots.
    pub fn cache(&self, class: ClassId) -> &SlotCache {
        if class.index() >= LOCAL_CLASSES {
            return self.upper_cache(class);
        }
        // SAFETY: set when the thread got this heap, whose thread is the caller, and cleared at its end.
        unsafe { &(*self.local.get()).caches[class.index()] }
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
        self.count_slots(1);
    }

    /// Counts slots on the way to the next block that is sampled.
    #[inline(always)]
    fn count_slots(&self, count: u64) {
        self.slots.set(self.slots.get().wrapping_add(count as u32));
    }
}

/// The slot of `slab` at `addr`, which lies in one of its pages. A slab that has gone back meanwhile was freed by
/// another thread at the same time: its header still says what it was.
pub fn locate(slab: SlabPtr, addr: usize, call: Call) -> Result<Slot, Misuse> {
    let gone = !slab.id().is_some() || slab.owner.load(Relaxed) == RELEASED;
    let offset = addr.wrapping_sub(slab.base());
    let (slot, exact) = slot_at(offset, slab.recip.load(Relaxed));
    let (is_slot, size) = (exact && slab.holds(slot), slab.size());
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
            let values = [addr, slot.index(), size];
            self.twice
                .iter()
                .zip(values)
                .for_each(|(to, value)| to.set(value));
        }
    }

    /// The slot freed twice that was noted last, once.
    pub fn recorded_error(&self) -> Option<Misuse> {
        let [addr, slot, size] = self.twice.each_ref().map(Cell::take);
        let slot = Slot::new(slot);
        (addr != 0).then_some(Misuse::CollectedTwice { addr, slot, size })
    }
}

/// A free of a slot that is free already.
pub fn dead(slab: SlabPtr, slot: Slot) -> Misuse {
    Misuse::Dead {
        call: Call::Free,
        addr: slab.address(slot),
        slot,
        size: slab.size(),
    }
}

fn overlap(slab: SlabPtr, twice: Overlap) -> Misuse {
    let slot = Slot::in_word(twice.word, twice.bits.trailing_zeros());
    Misuse::CollectedTwice {
        addr: slab.address(slot),
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

/// The heap of a thread's block, if it has one.
#[inline(always)]
pub fn heap_of(local: &ThreadCache) -> Option<&Heap> {
    // SAFETY: set by `Backend::take_heap` to a heap that is never unmapped, for this thread alone.
    NonNull::new(local.heap.get().cast_mut()).map(|heap| unsafe { heap.cast::<Heap>().as_ref() })
}
