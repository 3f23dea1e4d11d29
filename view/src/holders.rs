//! Who points to a block: one pass over the roots and all live blocks.

use crate::contents::{each_batch, each_part, words, Which};
use crate::model::Heap;
use crate::roots::{Place, Roots};
use crate::source::{Source, Span, Thread};
use crate::types::{Types, HEAD};
use serde::Serialize;

/// The most pointers that are listed for a block.
const MOST: usize = 1000;

/// A word that points to a block, or into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Where the word lies. 0 means that it is in a register.
    pub at: u64,
    /// Its value.
    pub value: u64,
    /// What it lies in, for people.
    pub place: String,
}

/// The words that point to or into each of `blocks`, in the roots and in the live blocks of `heaps`, and in what waits in
/// a quarantine. What lies in the block itself holds it no more than nothing does. `looks`: blocks that hold others are
/// told by their type too.
pub fn holders(
    source: &dyn Source,
    heaps: &[Heap],
    types: &mut Types,
    blocks: &[Span],
    looks: bool,
) -> Vec<Vec<Holder>> {
    let mut found = Search::new(blocks);
    let roots = Roots::of(source, heaps, types.symbols());
    roots.each_word(source, |value, place| match place {
        Place::Memory(at) => {
            found.word(at, value, || root_name(source, &roots.threads, types, at));
        }
        Place::Register(thread, name) => {
            found.word(0, value, || {
                format!("register {name} of {}", called(thread))
            });
        }
    });
    for heap in heaps {
        each_batch(source, &heap.slabs, Which::Held, |batch, slabs| {
            for slab in slabs {
                let bits = heap.bits(slab);
                let held = |slot: &u32| {
                    let slot = *slot as usize;
                    bits.is_live(slot) || bits.is_quarantined(slot)
                };
                for slot in (0..slab.slots).filter(held) {
                    let start = slab.address(slot);
                    let end = start + slab.size;
                    let bytes = batch.bytes(Span { start, end });
                    found.words(start, bytes, || {
                        let head = &bytes[..bytes.len().min(HEAD)];
                        let looks = match looks {
                            true => types.looks(source, heap, head),
                            false => String::new(),
                        };
                        let size = slab.size;
                        let block = if bits.is_quarantined(slot as usize) {
                            "a freed block in a quarantine,"
                        } else {
                            "a live block"
                        };
                        match looks.as_str() {
                            "" => format!("{block} of {size} bytes at {start:#x}"),
                            _ => format!("{block} of {size} bytes at {start:#x} ({looks})"),
                        }
                    });
                }
            }
        });
        for block in heap.large.iter().filter(|block| !block.stray) {
            each_part(source, block.span, Which::Held, |batch, part| {
                found.words(part.start, batch.bytes(part), || {
                    format!("a large block at {:#x}", block.span.start)
                });
            });
        }
    }
    found.found
}

struct Search<'a> {
    blocks: &'a [Span],
    bounds: Span,
    found: Vec<Vec<Holder>>,
}

impl Search<'_> {
    fn new(blocks: &[Span]) -> Search<'_> {
        let start = blocks.iter().map(|block| block.start).min().unwrap_or(0);
        let end = blocks.iter().map(|block| block.end).max().unwrap_or(0);
        Search {
            blocks,
            bounds: Span { start, end },
            found: vec![Vec::new(); blocks.len()],
        }
    }

    fn word(&mut self, at: u64, value: u64, mut place: impl FnMut() -> String) {
        if !self.bounds.holds(value) {
            return;
        }
        for (block, found) in self.blocks.iter().zip(&mut self.found) {
            if block.holds(value) && !block.holds(at) && found.len() < MOST {
                let place = place();
                found.push(Holder { at, value, place });
            }
        }
    }

    fn words(&mut self, start: u64, bytes: &[u8], mut place: impl FnMut() -> String) {
        for (at, value) in (start..).step_by(8).zip(words(bytes)) {
            self.word(at, value, &mut place);
        }
    }
}

fn called(thread: &Thread) -> String {
    match thread.name.as_str() {
        "" => format!("thread {}", thread.tid),
        name => format!("thread {} {name}", thread.tid),
    }
}

/// What a word of the roots lies in.
fn root_name(source: &dyn Source, threads: &[Thread], types: &mut Types, at: u64) -> String {
    if let Some(name) = types.symbols().name(source, at) {
        return match name.offset {
            0 => format!("the variable {}", name.text),
            offset => format!("the variable {}+{offset:#x}", name.text),
        };
    }
    let Some(mapping) = source.mapping_at(at) else {
        return "memory".into();
    };
    let on_stack = threads
        .iter()
        .find(|thread| thread.stack != 0 && mapping.span.holds(thread.stack) && at >= thread.stack);
    match (on_stack, mapping.name.as_str()) {
        (Some(thread), "" | "[stack]") => format!("the stack of {}", called(thread)),
        (None, "") => match source.mapping_at(mapping.span.start.wrapping_sub(1)) {
            // What a file does not hold of a library's variables follows what it does.
            Some(before) if before.name.starts_with('/') => format!("{}, behind it", before.name),
            _ => "an anonymous mapping".into(),
        },
        (_, name) => name.into(),
    }
}
