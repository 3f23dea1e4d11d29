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

mod free;
mod spans;
mod ending;
mod check;
mod abandoned;
mod registry;

use crate::class::{reciprocal, size_of_class, slab_pages, slots_in};
use crate::class::{CLASSES, LOCAL_CLASSES, SPAN_BINS};
use crate::counters;
use crate::geometry::WORD_SLOTS;
use crate::large::Large;
use crate::meta::{Meta, HEAP_BYTES};
use crate::misuse::{Call, Misuse};
use crate::options::Options;
use crate::os::Os;
use crate::pages::Pages;
use crate::remote::{self, Overlap, Queue, DISOWNED};
use crate::slab::{List, Shape, SlabPtr, SlabTable, State, CREDIT_HUGE};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, AtomicU64};
use crate::tls::{Entry, Local};
use core::cell::Cell;
use core::ptr::NonNull;

pub use abandoned::Abandoned;
pub use registry::Heaps;

/// Freed spans that a heap keeps, in bytes, beyond half of its live ones.
const BINNED_BYTES: usize = 1 << 20;
/// How many bins above the fitting one are looked at.
const BINS_UP: usize = 2;
/// Retired slabs for which a class is taken to be freed into by other threads, after a collection.
const REMOTE_MEMORY: u32 = 16;
/// Pages released between two looks at the active slabs.
const WATCH_PAGES: usize = 64;
/// Slow paths between two looks at the clock.
const PULSE: u32 = 16;
/// Times the interval of decay that a freed large mapping is kept.
const LARGE_KEPT: u64 = 2;

/// All that the heaps of a process stand on.
pub struct Ground<O: Os> {
    /// The system.
    pub os: O,
    /// What the user chose.
    pub options: Options,
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
            options: Options::new(),
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
    /// The system's number of the heap's thread; 0: none, or it is looked after by another one.
    thread: AtomicU32,
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
    /// Pages released since the active slabs were last looked at.
    released: Cell<usize>,
    last_decay: Cell<u64>,
    /// Address, number and size of a slot that was found freed twice and mended; address 0: none.
    twice: [Cell<usize>; 3],
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
            match self.refill_from_active(ground.table(), class) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(misuse) => {
                    self.note(misuse);
                    if let Some(slab) = self.active(ground.table(), class) {
                        self.collect(slab)?;
                    }
                    continue;
                }
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
        // Not while it is queued here: whoever claims it could not be told until this heap drains.
        if remote != 0 && !remote::is_queued(slab) {
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
            align: 1,
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
}

impl Heap {
    /// Remembers a slot freed twice, which is mended, until the slow path's end.
    fn note(&self, misuse: Misuse) {
        if let Misuse::CollectedTwice { addr, slot, size } = misuse {
            let values = [addr, slot, size];
            self.twice
                .iter()
                .zip(values)
                .for_each(|(to, value)| to.set(value));
        }
    }

    /// The slot freed twice that was noted last, once.
    pub fn noted(&self) -> Option<Misuse> {
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

/// The heap of a thread's block, if it has one.
#[inline(always)]
pub fn heap_of(local: &Local) -> Option<&Heap> {
    // SAFETY: set by `Heaps::take` to a heap that is never unmapped, for this thread alone.
    NonNull::new(local.heap.get().cast_mut()).map(|heap| unsafe { heap.cast::<Heap>().as_ref() })
}
