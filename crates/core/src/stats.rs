//! Read-only views of the heap: its figures, made exact by a walk over the slab headers.

use crate::allocator::{Allocator, Target};
use crate::class::CLASSES;
use crate::counters;
use crate::misuse::Call;
use crate::occupancy::Occupancy;
use crate::os::Os;
use crate::slab::SlabPtr;
use crate::sync::Ordering::Relaxed;
use crate::tls::ThreadCache;
use crate::units::PAGE;

/// The heap's figures, in bytes and counts. The layout is that of `struct slabside_stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stats {
    /// Bytes handed out so far, in slot sizes.
    pub handed_out: usize,
    /// Bytes in live slots, spans and large blocks.
    pub live: usize,
    /// Highest value of `live` that slow paths saw, with what waits in a quarantine.
    pub peak: usize,
    /// Bytes by which the break is moved now.
    pub break_bytes: usize,
    /// Highest value of `break_bytes`.
    pub break_peak: usize,
    /// Times the break was moved, up or down.
    pub break_moves: usize,
    /// Bytes mapped for large blocks and fallback windows.
    pub mapped: usize,
    /// Bytes of metadata opened for use.
    pub metadata: usize,
    /// Bytes given back inside the heap.
    pub purged: usize,
    /// Slabs in use.
    pub slabs: usize,
    /// Spans in use or kept for reuse.
    pub spans: usize,
    /// Large blocks in use.
    pub large: usize,
    /// Bytes of free slots in slabs in use, but for those of `holes`.
    pub idle_slots: usize,
    /// Bytes of pages of slabs in use that were discarded: they take no memory.
    pub holes: usize,
    /// Bytes of free spans kept for reuse.
    pub idle_spans: usize,
    /// Bytes of free pages that may be resident, also of those that hardened mode keeps for their class.
    pub idle_pages: usize,
    /// Bytes of freed large blocks kept for reuse.
    pub idle_large: usize,
    /// Bytes of slots and spans that the program has freed and that wait in a quarantine (hardened mode).
    pub quarantine: usize,
}

/// The figures of `allocator`. Other threads may be at work: then `live` is a moment's mixture.
pub fn stats<O: Os>(allocator: &Allocator<O>, thread: &ThreadCache) -> Stats {
    let figures = allocator.look(thread, || count(allocator));
    figures.unwrap_or_default()
}

fn count<O: Os>(allocator: &Allocator<O>) -> Stats {
    if !allocator.is_started() {
        return Stats::default();
    }
    let backend = &allocator.backend;
    let counters = backend.meta.counters();
    let in_slabs = in_slabs(allocator);
    let (large_bytes, large) = backend.large.live();
    let live = in_slabs.live + large_bytes;
    Stats {
        handed_out: counters::read(&counters.handed_out),
        live,
        peak: counters::read(&counters.peak).max(live + in_slabs.quarantine),
        break_bytes: counters::read(&counters.break_bytes),
        break_peak: counters::read(&counters.break_peak),
        break_moves: counters::read(&counters.break_moves),
        mapped: counters::read(&counters.mapped),
        metadata: counters::read(&counters.metadata),
        purged: counters::read(&counters.purged),
        large,
        idle_pages: backend.pages.idle_bytes(),
        idle_large: backend.large.kept_bytes(),
        ..in_slabs
    }
}

/// How many slots of a slab are what to the program.
struct Slots {
    live: usize,
    /// Freed, and not free yet.
    quarantined: usize,
    free: usize,
}

/// The slots of `slab`, counted.
fn slots_of<O: Os>(allocator: &Allocator<O>, slab: SlabPtr) -> Slots {
    let free = (slab.count_free() + slab.count_remote()).min(slab.slots());
    let used = slab.slots() - free;
    // Other threads may be at work, so more may be quarantined by then than were used.
    let quarantined = allocator.hard.quarantined(slab).count().min(used);
    Slots {
        live: used - quarantined,
        quarantined,
        free,
    }
}

/// What a walk over the bitmaps finds: bytes in live slots and spans, what is free, and how many slabs and spans
/// there are.
fn in_slabs<O: Os>(allocator: &Allocator<O>) -> Stats {
    let mut stats = Stats::default();
    allocator.backend.pages.each_slab(|slab| {
        let slots = slots_of(allocator, slab);
        stats.live += slots.live * slab.size();
        stats.quarantine += slots.quarantined * slab.size();
        let holes = hole_bytes(slab);
        let idle = (slots.free * slab.size()).saturating_sub(holes);
        stats.holes += holes;
        if slab.is_span() {
            stats.spans += 1;
            stats.idle_spans += idle;
        } else {
            stats.slabs += 1;
            stats.idle_slots += idle;
        }
    });
    stats
}

/// What is live, by size class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveByClass {
    /// Bytes in live slots by class, and in live spans.
    pub bytes: [usize; CLASSES + 1],
    /// Live spans.
    pub spans: usize,
    /// Bytes in live large blocks.
    pub large: usize,
}

/// What is live in `allocator`, by size class. Other threads may be at work: then it is a moment's mixture.
pub fn live_by_class<O: Os>(allocator: &Allocator<O>, thread: &ThreadCache) -> LiveByClass {
    let mut live = LiveByClass {
        bytes: [0; CLASSES + 1],
        spans: 0,
        large: 0,
    };
    allocator.look(thread, || {
        if !allocator.is_started() {
            return;
        }
        allocator.backend.pages.each_slab(|slab| {
            let slots = slots_of(allocator, slab).live;
            live.bytes[slab.class().index().min(CLASSES)] += slots * slab.size();
            live.spans += usize::from(slab.is_span()) * slots;
        });
        live.large = allocator.backend.large.live().0;
    });
    live
}

/// Bytes of pages of `slab` that were discarded: a span's all, or none.
fn hole_bytes(slab: SlabPtr) -> usize {
    let discarded = slab.discarded.load(Relaxed);
    if slab.is_span() {
        return if discarded != 0 { slab.size() } else { 0 };
    }
    discarded.count_ones() as usize * PAGE
}

/// What the heap holds and what of it is free, by one walk over the slab headers. Other threads may be at
/// work: then it is a moment's mixture.
#[derive(Clone, Copy, Debug)]
pub struct Census {
    /// Bytes that the break and mapped windows hold.
    pub held: usize,
    /// The most that they ever held, in bytes, as far as the break goes.
    pub held_most: usize,
    /// Bytes at the heap's end that a trim would give back.
    pub top: usize,
    /// Bytes in live slots and spans.
    pub live: usize,
    /// Free slots by size class, in slabs in use.
    pub free_slots: [usize; CLASSES],
    /// Their bytes, but for those of pages that were discarded.
    pub free_slot_bytes: usize,
    /// Free spans kept for reuse.
    pub free_spans: usize,
    /// Their bytes.
    pub free_span_bytes: usize,
    /// Free runs of pages.
    pub free_runs: usize,
    /// Large blocks in use.
    pub large: usize,
    /// Their bytes.
    pub large_bytes: usize,
    /// The most bytes that were ever live or in a quarantine, large blocks among them.
    pub peak: usize,
}

/// Counts what `allocator` holds.
pub fn census<O: Os>(allocator: &Allocator<O>, thread: &ThreadCache) -> Census {
    let mut census = Census {
        held: 0,
        held_most: 0,
        top: 0,
        live: 0,
        free_slots: [0; CLASSES],
        free_slot_bytes: 0,
        free_spans: 0,
        free_span_bytes: 0,
        free_runs: 0,
        large: 0,
        large_bytes: 0,
        peak: 0,
    };
    allocator.look(thread, || {
        if allocator.is_started() {
            census.take(allocator);
        }
    });
    census
}

impl Census {
    /// Counts what the heaps of `allocator` hold.
    fn take<O: Os>(&mut self, allocator: &Allocator<O>) {
        let backend = &allocator.backend;
        let mut quarantine = 0;
        backend.pages.each_slab(|slab| {
            let Slots {
                live,
                quarantined,
                free,
            } = slots_of(allocator, slab);
            self.live += live * slab.size();
            quarantine += quarantined * slab.size();
            if slab.is_span() {
                self.free_spans += free;
                self.free_span_bytes += free * slab.size();
            } else if let Some(slots) = self.free_slots.get_mut(slab.class().index()) {
                *slots += free;
                self.free_slot_bytes += (free * slab.size()).saturating_sub(hole_bytes(slab));
            }
        });
        let counters = backend.meta.counters();
        self.free_runs = backend.pages.free_runs();
        (self.held, self.top) = backend.pages.held(backend.supply());
        let moved = counters::read(&counters.break_bytes);
        let moved_most = counters::read(&counters.break_peak);
        self.held_most = self.held + moved_most.saturating_sub(moved);
        (self.large_bytes, self.large) = backend.large.live();
        // What was seen to be live is not to be forgotten by the next census.
        let live = self.live + quarantine + self.large_bytes;
        self.peak = (counters.peak.fetch_max(live as u64, Relaxed) as usize).max(live);
    }
}

impl<O: Os> Allocator<O> {
    /// How full the slab of the live block at `block` is. All zero for a block that has pages of its own, and for null.
    /// Other threads may be at work: then the figures are a moment's mixture. What is not a live block is a misuse.
    pub fn occupancy(&self, thread: &ThreadCache, block: *const u8) -> Occupancy {
        let measured = self
            .slab_of_slots(thread, block)
            .and_then(|slab| self.look(thread, || self.sums.measure(&self.backend.pages, slab)));
        measured.unwrap_or_default()
    }

    /// Whether to move the live block at `block` helps to give its slab back. See [`Allocator::occupancy`].
    pub fn should_move(&self, thread: &ThreadCache, block: *const u8) -> bool {
        let should = self.slab_of_slots(thread, block).and_then(|slab| {
            self.look(thread, || self.sums.should_move(&self.backend.pages, slab))
        });
        should == Some(true)
    }

    /// The slab that the live block at `block` is a slot of, if it is one.
    fn slab_of_slots(&self, thread: &ThreadCache, block: *const u8) -> Option<SlabPtr> {
        let call = Call::UsableSize;
        if block.is_null() {
            return None;
        }
        match self.resolve(thread, block.addr(), call) {
            Target::Live(live) => live.slab().filter(|slab| !slab.is_span()),
            target => {
                // Another malloc has no such question to be asked.
                let _ = self.next_for(thread, target, block.addr(), call);
                None
            }
        }
    }
}
