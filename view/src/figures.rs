//! Sums of a heap, by class and by owner, that together are what is resident.
//!
//! ```text
//!   resident = live + quarantine + waiting + idle slots + holes + free pages + kept + metadata + rest
//! ```
//!
//! Each is the resident part of what its name says: of a live block whose pages were never touched, or were swapped
//! out, nothing. What is handed out, touched or not, is [`Figures::allocated`].

use crate::model::{Heap, Holder, Slab};
use crate::source::{Source, Span, Thread};
use serde::Serialize;
use slabside_base::layout::{counters, Fact};
use std::collections::HashMap;

/// A slab is sparse where at most one in so many of its slots is live.
pub const SPARSE: u32 = 8;

/// The sums of a heap, in bytes where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// All that is resident of the target (`VmRSS`).
    pub resident: u64,
    /// Live blocks.
    pub live: u64,
    /// Blocks that the program has freed, and that wait in a quarantine.
    pub quarantine: u64,
    /// Slots freed by other threads that wait for their owner to collect them.
    pub waiting: u64,
    /// Free slots of slabs in use.
    pub idle_slots: u64,
    /// What lies in slabs and is part of no slot.
    pub holes: u64,
    /// Free pages of the heap.
    pub free_pages: u64,
    /// Freed mappings kept for reuse.
    pub kept: u64,
    /// The metadata region.
    pub metadata: u64,
    /// All that is not the heap.
    pub rest: u64,
    /// Bytes of live blocks, resident or not.
    pub allocated: u64,
    /// Number of live blocks.
    pub blocks: u64,
    /// Bytes of blocks in a quarantine, resident or not.
    pub quarantined: u64,
    /// Number of blocks in a quarantine.
    pub quarantined_blocks: u64,
    /// Number of slabs and spans.
    pub slabs: u64,
    /// Slabs with idle slots.
    pub idle_in: u64,
    /// Number of large blocks.
    pub large_blocks: u64,
    /// Their bytes, resident or not.
    pub large: u64,
    /// Sparse slabs, whose few blocks keep the rest from being given back.
    pub sparse: u64,
    /// Bytes of their pages.
    pub pinned: u64,
    /// Bytes handed out since the start, as far as slow paths counted them.
    pub handed_out: u64,
    /// The most bytes that were ever live, as far as slow paths saw.
    pub peak: u64,
    /// Bytes given back inside the heap since the start.
    pub purged: u64,
    /// By size.
    pub classes: Vec<Class>,
    /// By owner.
    pub owners: Vec<Owned>,
}

/// Slabs of one size, or all spans of one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Class {
    /// Bytes of a slot.
    pub size: u64,
    /// Whether these are spans.
    pub span: bool,
    /// Number of slabs.
    pub slabs: u64,
    /// Number of slots.
    pub slots: u64,
    /// Number of live slots.
    pub live: u64,
    /// Number of free slots that do not wait.
    pub idle: u64,
    /// Number of slots that wait.
    pub waiting: u64,
    /// Number of slots in a quarantine.
    pub quarantined: u64,
    /// Bytes of all their pages.
    pub held: u64,
    /// Bytes of the pages of those that are sparse.
    pub pinned: u64,
}

/// What one heap owns.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Owned {
    /// Whose: "heap 3", "nobody (full)", "nobody (listed)".
    pub heap: String,
    /// Its number, if it is a heap.
    pub index: Option<u64>,
    /// The system's number of its thread. 0 means none, or not known.
    pub tid: u32,
    /// The thread's name.
    pub name: String,
    /// What the thread does.
    pub doing: String,
    /// Number of slabs and spans.
    pub slabs: u64,
    /// Bytes of live slots.
    pub live: u64,
    /// Bytes of slots that wait for it.
    pub waiting: u64,
    /// Bytes of slots in a quarantine.
    pub quarantined: u64,
}

/// Ranges that are resident, asked for in order of address.
struct Present {
    spans: Vec<Span>,
    next: usize,
}

impl Present {
    fn of(source: &dyn Source, within: Span) -> Present {
        let mut spans: Vec<Span> = Vec::new();
        source.present(within, &mut |span| match spans.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => spans.push(span),
        });
        Present { spans, next: 0 }
    }

    fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.bytes()).sum()
    }

    /// Calls `visit` for what of `wanted` is there. Each time `wanted` lies after the one before.
    fn within(&mut self, wanted: Span, mut visit: impl FnMut(Span)) {
        while self
            .spans
            .get(self.next)
            .is_some_and(|span| span.end <= wanted.start)
        {
            self.next += 1;
        }
        for span in &self.spans[self.next..] {
            if span.start >= wanted.end {
                return;
            }
            visit(span.common(wanted));
        }
    }
}

/// Bytes of resident parts, by what the slots there are.
#[derive(Default)]
struct Parts {
    live: u64,
    quarantine: u64,
    waiting: u64,
    idle: u64,
    holes: u64,
}

impl Figures {
    /// The figures of `heap`, whose process is `source`.
    pub fn of(source: &dyn Source, heap: &Heap) -> Figures {
        let mut figures = Figures {
            metadata: Present::of(source, heap.region.span()).bytes(),
            ..Figures::default()
        };
        let mut classes = Vec::new();
        let mut owners = HashMap::new();
        for window in &heap.windows {
            figures.window(source, heap, window.span(), &mut classes, &mut owners);
        }
        for block in &heap.large {
            let resident = Present::of(source, block.span).bytes();
            if block.stray {
                figures.kept += resident;
            } else {
                figures.live += resident;
                figures.allocated += block.span.bytes();
                figures.large += block.span.bytes();
                figures.large_blocks += 1;
                figures.blocks += 1;
            }
        }
        for kept in &heap.kept {
            figures.kept += Present::of(source, kept.span).bytes();
        }
        classes.sort_by_key(|class: &Class| (class.span, class.size));
        figures.classes = classes;
        figures.owners = named(heap, owners, source.about().pid, &source.threads());
        figures.read_counters(source, heap);
        let heap_bytes = figures.of_heap();
        figures.resident = source.about().resident.unwrap_or(heap_bytes);
        // The system counts lazily: what it lacks is nobody's.
        figures.resident = figures.resident.max(heap_bytes);
        figures.rest = figures.resident - heap_bytes;
        figures
    }

    /// All that is resident of the heap.
    pub fn of_heap(&self) -> u64 {
        self.live
            + self.quarantine
            + self.waiting
            + self.idle_slots
            + self.holes
            + self.free_pages
            + self.kept
            + self.metadata
    }

    fn window(
        &mut self,
        source: &dyn Source,
        heap: &Heap,
        window: Span,
        classes: &mut Vec<Class>,
        owners: &mut HashMap<Holder, Owned>,
    ) {
        let mut present = Present::of(source, ours(source, window));
        let mut in_slabs = 0;
        let first = heap.slabs.partition_point(|slab| slab.base < window.start);
        for slab in &heap.slabs[first..] {
            if slab.base >= window.end {
                break;
            }
            let (mut resident, mut absent) = (0, Vec::new());
            let whole = slab.span();
            let mut at = whole.start;
            present.within(whole, |part| {
                resident += part.bytes();
                if part.start > at {
                    absent.push(Span {
                        start: at,
                        end: part.start,
                    });
                }
                at = part.end;
            });
            if at < whole.end {
                absent.push(Span {
                    start: at,
                    end: whole.end,
                });
            }
            in_slabs += resident;
            if slab.is_kept() {
                self.free_pages += resident;
                continue;
            }
            self.count(slab, classes, owners, heap);
            self.add_parts(heap, slab, resident, &absent);
        }
        let others = in_slabs + foreign(heap, window, &mut present);
        // Only damaged metadata say more than there is.
        self.free_pages += present.bytes().saturating_sub(others);
    }

    fn count(
        &mut self,
        slab: &Slab,
        classes: &mut Vec<Class>,
        owners: &mut HashMap<Holder, Owned>,
        heap: &Heap,
    ) {
        let (live, waiting) = (u64::from(slab.live), u64::from(slab.waiting));
        let quarantined = u64::from(slab.quarantined);
        let idle = u64::from(slab.slots) - live - waiting - quarantined;
        let bytes = slab.span().bytes();
        let class = class_of(classes, slab);
        class.slabs += 1;
        class.slots += u64::from(slab.slots);
        class.live += live;
        class.idle += idle;
        class.waiting += waiting;
        class.quarantined += quarantined;
        class.held += bytes;
        self.slabs += 1;
        self.idle_in += u64::from(idle > 0);
        self.allocated += live * slab.size;
        self.blocks += live;
        self.quarantined += quarantined * slab.size;
        self.quarantined_blocks += quarantined;
        if is_sparse(slab) {
            class.pinned += bytes;
            self.pinned += bytes;
            self.sparse += 1;
        }
        let owned = owners.entry(heap.holder(slab.owner)).or_default();
        owned.slabs += 1;
        owned.live += live * slab.size;
        owned.waiting += waiting * slab.size;
        owned.quarantined += quarantined * slab.size;
    }

    /// Adds the `resident` bytes of `slab`, of which `absent` are not.
    fn add_parts(&mut self, heap: &Heap, slab: &Slab, resident: u64, absent: &[Span]) {
        if resident == 0 {
            return;
        }
        let mut parts = Parts {
            live: u64::from(slab.live) * slab.size,
            quarantine: u64::from(slab.quarantined) * slab.size,
            waiting: u64::from(slab.waiting) * slab.size,
            ..Parts::default()
        };
        let used = parts.live + parts.quarantine + parts.waiting;
        parts.idle = u64::from(slab.slots) * slab.size - used;
        parts.holes = slab.span().bytes() - u64::from(slab.slots) * slab.size;
        if !absent.is_empty() {
            let bits = heap.bits(slab);
            for part in absent {
                without(slab, &bits, *part, &mut parts);
            }
        }
        self.live += parts.live;
        self.quarantine += parts.quarantine;
        self.waiting += parts.waiting;
        self.idle_slots += parts.idle;
        self.holes += parts.holes;
    }

    fn read_counters(&mut self, source: &dyn Source, heap: &Heap) {
        let at = heap.region.base + heap.region.fact(Fact::Counters);
        if source.word(at) != Some(counters::MAGIC) {
            return;
        }
        let read = |offset: usize| {
            let word = source.word(at + offset as u64).unwrap_or(0);
            // One that is changed without order may be below zero for a moment.
            (word as i64).max(0) as u64
        };
        self.handed_out = read(counters::HANDED_OUT);
        self.peak = read(counters::PEAK).max(self.allocated);
        self.purged = read(counters::PURGED);
    }

    /// Adds those of another heap of the same process.
    pub fn add(&mut self, other: &Figures) {
        let mine = self.of_heap();
        self.live += other.live;
        self.quarantine += other.quarantine;
        self.waiting += other.waiting;
        self.idle_slots += other.idle_slots;
        self.holes += other.holes;
        self.free_pages += other.free_pages;
        self.kept += other.kept;
        self.metadata += other.metadata;
        self.resident = self.resident.max(mine + other.of_heap());
        self.rest = self.resident - self.of_heap();
        self.allocated += other.allocated;
        self.blocks += other.blocks;
        self.quarantined += other.quarantined;
        self.quarantined_blocks += other.quarantined_blocks;
        self.slabs += other.slabs;
        self.idle_in += other.idle_in;
        self.large_blocks += other.large_blocks;
        self.large += other.large;
        self.sparse += other.sparse;
        self.pinned += other.pinned;
        self.handed_out += other.handed_out;
        self.peak += other.peak;
        self.purged += other.purged;
        for class in &other.classes {
            let same = |mine: &&mut Class| (mine.size, mine.span) == (class.size, class.span);
            match self.classes.iter_mut().find(same) {
                Some(mine) => {
                    mine.slabs += class.slabs;
                    mine.slots += class.slots;
                    mine.live += class.live;
                    mine.idle += class.idle;
                    mine.waiting += class.waiting;
                    mine.quarantined += class.quarantined;
                    mine.held += class.held;
                    mine.pinned += class.pinned;
                }
                None => self.classes.push(class.clone()),
            }
        }
        self.classes.sort_by_key(|class| (class.span, class.size));
        self.owners.extend(other.owners.iter().cloned());
    }
}

/// The class that `slab` is of, which is there from now on.
fn class_of<'a>(classes: &'a mut Vec<Class>, slab: &Slab) -> &'a mut Class {
    let same = |class: &Class| class.size == slab.size && class.span == slab.is_span;
    let index = classes.iter().position(same).unwrap_or_else(|| {
        classes.push(Class {
            size: slab.size,
            span: slab.is_span,
            ..Class::default()
        });
        classes.len() - 1
    });
    &mut classes[index]
}

/// Whether the slab's few live slots keep all its pages from being given back. Those in a quarantine keep them too.
pub fn is_sparse(slab: &Slab) -> bool {
    !slab.is_span && !slab.is_kept() && slab.live > 0 && slab.in_use() * SPARSE <= slab.slots
}

/// The part of a window that can be the heap's: of the break's, what is mapped from its first page on.
pub(crate) fn ours(source: &dyn Source, window: Span) -> Span {
    let mut end = window.start;
    let first = source
        .mappings()
        .partition_point(|mapping| mapping.span.end <= window.start);
    for mapping in &source.mappings()[first..] {
        let goes_on = mapping.span.start <= end && mapping.span.end > end;
        let private = mapping.name.is_empty() || mapping.name.starts_with('[');
        if !goes_on || !private {
            break;
        }
        end = mapping.span.end;
    }
    Span {
        start: window.start,
        // A break that has grown since the mappings were read.
        end: end.max(window.start).min(window.end),
    }
}

/// Resident bytes of pages that the page map says to be somebody else's.
fn foreign(heap: &Heap, window: Span, present: &mut Present) -> u64 {
    present.next = 0;
    let mut bytes = 0;
    let inside = heap.foreign.iter().filter(|span| window.holds(span.start));
    inside.for_each(|&span| present.within(span, |part| bytes += part.bytes()));
    bytes
}

/// Takes what lies in `part` of the slab from the sums.
fn without(slab: &Slab, bits: &crate::model::Bits, part: Span, sums: &mut Parts) {
    let mut at = part.start;
    while at < part.end {
        let slot = slab.slot_at(at);
        let end = if slot >= slab.slots {
            part.end
        } else {
            part.end.min(slab.address(slot + 1))
        };
        let bytes = end - at;
        let sum = if slot >= slab.slots {
            &mut sums.holes
        } else if bits.is_live(slot as usize) {
            &mut sums.live
        } else if bits.is_waiting(slot as usize) {
            &mut sums.waiting
        } else if bits.is_quarantined(slot as usize) {
            &mut sums.quarantine
        } else {
            &mut sums.idle
        };
        *sum = sum.saturating_sub(bytes);
        at = end;
    }
}

/// Owners with their names, the largest first.
fn named(heap: &Heap, owners: HashMap<Holder, Owned>, pid: u32, threads: &[Thread]) -> Vec<Owned> {
    let mut all: Vec<Owned> = owners
        .into_iter()
        .map(|(holder, owned)| named_one(heap, holder, owned, pid, threads))
        .collect();
    all.sort_by_key(|owned| std::cmp::Reverse((owned.live + owned.waiting, owned.slabs)));
    all
}

fn named_one(heap: &Heap, holder: Holder, owned: Owned, pid: u32, threads: &[Thread]) -> Owned {
    let mut owned = owned;
    let index = match holder {
        Holder::Heap(index) => index,
        Holder::Ended(index) => {
            owned.heap = format!("heap {index}, ended");
            return owned;
        }
        Holder::Disowned | Holder::Released => {
            owned.heap = "nobody (full)".into();
            return owned;
        }
        Holder::Abandoned => {
            owned.heap = "nobody (listed)".into();
            return owned;
        }
    };
    owned.heap = format!("heap {index}");
    owned.index = Some(index);
    let Some(owner) = heap.owner(index) else {
        return owned;
    };
    if owner.is_arena {
        owned.name = "first-class heap".into();
        return owned;
    }
    owned.tid = owner.thread;
    if let Some(thread) = threads.iter().find(|thread| thread.tid == owned.tid) {
        owned.name = thread.name.clone();
        owned.doing = thread.doing.clone();
        if owned.name.is_empty() && owned.tid == pid {
            owned.name = "main".into();
        }
    }
    owned
}
