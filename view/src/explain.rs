//! What an address is to the heap: a block and its slab, free memory, metadata, or nothing of ours.

use crate::model::{Bits, Heap, Holder, Slab};
use crate::source::{Source, Span};
use crate::types::{Types, HEAD};
use serde::Serialize;
use slabside_base::layout::AREAS;

/// Words of a block that are shown.
const WORDS: usize = 4;
/// Names of the areas, in order.
const NAMES: [&str; AREAS] = [
    "the header and the counters",
    "the first heap",
    "the first page group",
    "the run tree",
    "the first slab headers",
    "the page map",
    "the thread heaps",
    "the first-class heaps",
    "the page groups",
    "the records of large blocks",
    "the records of large blocks",
    "the slab headers",
    "the exact sizes",
    "the hardened threads",
    "the empty blocks",
];

/// What an address is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The address.
    pub address: u64,
    /// In one word: `live`, `free`, `waiting`, `quarantine`, `tail`, `free-page`, `large`, `kept`, `foreign`, `metadata`,
    /// `mapping`, `unmapped`.
    pub what: &'static str,
    /// The same in a line for people, that goes after the address.
    pub line: String,
    /// The block or range that it is part of, if any.
    pub block: Option<Block>,
    /// The slab, if it is in one.
    pub slab: Option<InSlab>,
    /// The slots around it, itself among them.
    pub slots: Vec<Slot>,
    /// The nearest live block below, where the address is in none.
    pub before: Option<Block>,
    /// The nearest live block above, where the address is in none.
    pub after: Option<Block>,
}

/// A range that an address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// Its first byte.
    pub address: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes that were asked for, where hardened mode keeps them.
    pub asked: Option<u64>,
}

/// A slab, as an explanation describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InSlab {
    /// Its first byte.
    pub address: u64,
    /// Bytes of a slot.
    pub size: u64,
    /// The slot that the address is in.
    pub slot: u32,
    /// Number of slots.
    pub slots: u32,
    /// Number of live slots.
    pub live: u32,
    /// Number of slots that wait for the owner.
    pub waiting: u32,
    /// Number of freed slots that wait in a quarantine.
    pub quarantined: u32,
    /// On which list it is.
    pub state: &'static str,
    /// Number of its header.
    pub id: u32,
    /// Whose it is.
    pub owner: String,
    /// Whether it is a span.
    pub span: bool,
}

/// A slot and its first words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slot {
    /// Its number.
    pub slot: u32,
    /// Its address.
    pub address: u64,
    /// `live`, `free`, `waiting` or `quarantine`.
    pub state: &'static str,
    /// Its first words. None if they cannot be read.
    pub words: Vec<u64>,
    /// What they look like.
    pub looks: String,
}

/// Explains `address`. With `looks` the contents of blocks are looked at.
pub fn explain(
    source: &dyn Source,
    heap: &Heap,
    types: &mut Types,
    address: u64,
    looks: bool,
) -> Explanation {
    let mut told = Explanation {
        address,
        what: "unmapped",
        line: String::new(),
        block: None,
        slab: None,
        slots: Vec::new(),
        before: None,
        after: None,
    };
    if let Some(slab) = heap.slab_at(address) {
        in_slab(source, heap, types, *slab, looks, &mut told);
    } else if let Some(block) = heap.large_at(address) {
        in_large(source, heap, types, block.span, looks, &mut told);
        if block.stray {
            told.what = "kept";
            let why = if block.rests {
                "it is kept for the next block of its size"
            } else {
                "it could not be unmapped"
            };
            told.line = format!("{}, freed; {why}", told.line);
        } else if block.owner != 0 {
            told.line = format!(
                "{}, of {}",
                told.line,
                owner_name(source, heap, block.owner)
            );
        }
    } else if let Some(kept) = heap.kept_at(address) {
        told.what = "kept";
        told.block = Some(block_of(kept.span));
        told.line = format!(
            "byte {} of {} bytes at {:#x} that were freed and are kept for the next large block{}",
            grouped(address - kept.span.start),
            grouped(kept.span.bytes()),
            kept.span.start,
            if kept.clean { "; never touched" } else { "" }
        );
    } else if heap.region.span().holds(address) {
        told.what = "metadata";
        let area = heap.region.area_at(address);
        told.line = match area {
            Some(area) => format!(
                "metadata of slabside: byte {} of {}",
                grouped(address - heap.region.span().start),
                NAMES.get(area).unwrap_or(&"an area")
            ),
            None => "metadata of slabside: a gap that nobody can touch".into(),
        };
    } else {
        elsewhere(source, heap, &mut told);
    }
    if !matches!(told.what, "live" | "large") {
        (told.before, told.after) = neighbours(heap, address);
    }
    told
}

fn grouped(number: u64) -> String {
    crate::region::grouped(number)
}

fn block_of(span: Span) -> Block {
    Block {
        address: span.start,
        bytes: span.bytes(),
        asked: None,
    }
}

/// Byte `offset` of it, or the start.
fn part(offset: u64) -> String {
    match offset {
        0 => "the start of".into(),
        _ => format!("byte {} of", grouped(offset)),
    }
}

fn in_slab(
    source: &dyn Source,
    heap: &Heap,
    types: &mut Types,
    slab: Slab,
    looks: bool,
    told: &mut Explanation,
) {
    let address = told.address;
    let slot = slab.slot_at(address);
    let bits = heap.bits(&slab);
    told.slab = Some(InSlab {
        address: slab.base,
        size: slab.size,
        slot,
        slots: slab.slots,
        live: slab.live,
        waiting: slab.waiting,
        quarantined: slab.quarantined,
        state: slab.state_name(),
        id: slab.id,
        owner: owner_name(source, heap, slab.owner),
        span: slab.is_span,
    });
    if slab.is_kept() {
        told.what = "free-page";
        told.line = "in pages that wait for the next slab of their class (hardened mode)".into();
        return;
    }
    if slot >= slab.slots {
        told.what = "tail";
        told.line = format!(
            "behind the last of {} slots of {} bytes: no block can lie there",
            slab.slots,
            grouped(slab.size)
        );
        return;
    }
    let start = slab.address(slot);
    let state = state_name(&bits, slot);
    told.what = state;
    told.block = Some(Block {
        address: start,
        bytes: slab.size,
        asked: heap.asked(source, &slab, slot),
    });
    let what = match state {
        "live" => "a live block",
        "waiting" => {
            "a block that another thread freed; its owner has not collected it yet: a block"
        }
        "quarantine" => "a block that was freed and waits in a quarantine: a block",
        _ => "a free slot",
    };
    told.line = format!(
        "{} {what} of {} bytes at {start:#x}",
        part(address - start),
        grouped(slab.size)
    );
    let shown = slot.saturating_sub(1)..=(slot + 1).min(slab.slots - 1);
    told.slots = shown
        .map(|slot| {
            let state = state_name(&bits, slot);
            head_of(source, heap, types, &slab, slot, state, looks)
        })
        .collect();
    if let Some(own) = told.slots.iter().find(|own| own.slot == slot) {
        if !own.looks.is_empty() {
            told.line = match state {
                "live" => format!("{}: {}", told.line, own.looks),
                _ => format!(
                    "{} (its bytes are still those of: {})",
                    told.line, own.looks
                ),
            };
        }
    }
}

fn state_name(bits: &Bits, slot: u32) -> &'static str {
    let slot = slot as usize;
    if bits.is_live(slot) {
        "live"
    } else if bits.is_waiting(slot) {
        "waiting"
    } else if bits.is_quarantined(slot) {
        "quarantine"
    } else {
        "free"
    }
}

fn head_of(
    source: &dyn Source,
    heap: &Heap,
    types: &mut Types,
    slab: &Slab,
    slot: u32,
    state: &'static str,
    looks: bool,
) -> Slot {
    let address = slab.address(slot);
    let mut bytes = vec![0; slab.size.min(HEAD as u64) as usize];
    let read = looks && source.peek(address, &mut bytes);
    Slot {
        slot,
        address,
        state,
        words: if read { words(&bytes) } else { Vec::new() },
        looks: if read {
            types.looks(source, heap, &bytes)
        } else {
            String::new()
        },
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    crate::contents::words(bytes).take(WORDS).collect()
}

fn in_large(
    source: &dyn Source,
    heap: &Heap,
    types: &mut Types,
    span: Span,
    looks: bool,
    told: &mut Explanation,
) {
    told.what = "large";
    told.block = Some(block_of(span));
    told.line = format!(
        "{} a large block of {} bytes at {:#x}",
        part(told.address - span.start),
        grouped(span.bytes()),
        span.start
    );
    let mut bytes = [0; HEAD];
    if looks && source.peek(span.start, &mut bytes) {
        let looks = types.looks(source, heap, &bytes);
        told.line = format!("{}: {looks}", told.line);
    }
}

/// What is no block, and nothing that the heap keeps.
fn elsewhere(source: &dyn Source, heap: &Heap, told: &mut Explanation) {
    let address = told.address;
    let in_window = heap.window_at(address).is_some();
    let mapping = source.mapping_at(address);
    match (in_window, mapping) {
        (true, _) if heap.is_foreign(address) => {
            told.what = "foreign";
            told.line =
                "in pages among the heap's that are somebody else's, or guard a slab".into();
        }
        (true, Some(mapping)) if is_ours(&mapping.name) => {
            told.what = "free-page";
            told.line = "in a free page of the heap".into();
        }
        (_, Some(mapping)) => {
            told.what = "mapping";
            let name = match mapping.name.as_str() {
                "" => "an anonymous mapping",
                name => name,
            };
            let letter = |is: bool, letter| if is { letter } else { '-' };
            told.line = format!(
                "in {name} ({}{}{}), not of the heap",
                letter(mapping.read, 'r'),
                letter(mapping.write, 'w'),
                letter(mapping.execute, 'x')
            );
            let closed = !mapping.read && !mapping.write && mapping.name.is_empty();
            if closed && heap.region.is_hardened() {
                told.line += "; in hardened mode it may be a freed large block, a block of no bytes or a guard page";
            }
        }
        (_, None) => {
            told.what = "unmapped";
            told.line = match address >> 47 {
                0 => "not mapped".into(),
                _ => "no address that a program has".to_string(),
            };
        }
    }
}

fn is_ours(mapping: &str) -> bool {
    mapping.is_empty() || mapping == "[heap]" || mapping.contains("slabside")
}

/// The nearest live blocks below and above.
fn neighbours(heap: &Heap, address: u64) -> (Option<Block>, Option<Block>) {
    let mut before: Option<Span> = None;
    let mut after: Option<Span> = None;
    let mut take = |span: Span| {
        if span.end <= address && before.is_none_or(|best| best.end < span.end) {
            before = Some(span);
        }
        if span.start > address && after.is_none_or(|best| best.start > span.start) {
            after = Some(span);
        }
    };
    let index = heap.slabs.partition_point(|slab| slab.base <= address);
    let slots = |slab: &Slab| {
        let bits = heap.bits(slab);
        let slab = *slab;
        (0..slab.slots)
            .filter(move |&slot| bits.is_live(slot as usize))
            .map(move |slot| Span {
                start: slab.address(slot),
                end: slab.address(slot) + slab.size,
            })
    };
    let below = heap.slabs[..index].iter().rev();
    if let Some(slab) = below
        .clone()
        .find(|slab| slots(slab).any(|span| span.end <= address))
    {
        slots(slab).for_each(&mut take);
    }
    if let Some(slab) = below
        .take(1)
        .chain(&heap.slabs[index..])
        .find(|slab| slots(slab).any(|span| span.start > address))
    {
        slots(slab).for_each(&mut take);
    }
    for block in heap.large.iter().filter(|block| !block.stray) {
        take(block.span);
    }
    (before.map(block_of), after.map(block_of))
}

/// Whom an owner word speaks of, for people.
pub fn owner_name(source: &dyn Source, heap: &Heap, word: u64) -> String {
    match heap.holder(word) {
        Holder::Heap(index) => {
            let Some(owner) = heap.owner(index) else {
                return format!("heap {index}");
            };
            if owner.is_arena {
                return format!("heap {index} (first-class)");
            }
            let about = source.about();
            let tid = owner.thread;
            let threads = source.threads();
            let thread = threads.iter().find(|thread| thread.tid == tid);
            let name = thread.map_or("", |thread| thread.name.as_str());
            let main = if tid == about.pid && tid != 0 {
                " main"
            } else {
                ""
            };
            match (tid, name) {
                (0, _) => format!("heap {index}"),
                (tid, "") => format!("heap {index} (thread {tid}{main})"),
                (tid, name) => format!("heap {index} (thread {tid} {name})"),
            }
        }
        Holder::Ended(index) => format!("heap {index}, whose thread has ended"),
        Holder::Disowned => "nobody (full)".into(),
        Holder::Abandoned => "nobody (listed)".into(),
        Holder::Released => "nobody".into(),
    }
}
