//! Where a program's own pointers begin: all that it can read and may have written, and is no block.
//!
//! ```text
//!   mappings     the program's variables, its threads' own, what others map
//!   - heap       slabs and free pages, large blocks, kept ranges, metadata, the allocator's own variables
//!   - stacks     what lies below a thread's stack pointer
//!   + registers  of threads that stand still
//! ```

use crate::contents::{each_part, words, Which};
use crate::figures::ours;
use crate::model::Heap;
use crate::source::{short, Mapping, Source, Span, Thread};
use crate::symbols::{Symbols, LIBRARY};
use slabside_base::layout::thread_block;
use std::collections::HashSet;

/// Bytes below the stack pointer that a function may use without moving it (System V ABI, x86-64).
const RED_ZONE: u64 = 128;
/// Bytes of a stack that the allocator's last calls take.
const KEPT: usize = 1024;

/// Where a word lies that may lead to a block.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// At this address.
    Memory(u64),
    /// In this register of a thread.
    Register(&'a Thread, &'a str),
}

/// A target's roots.
pub struct Roots {
    /// What is read, by address. Each part lies in one mapping.
    pub spans: Vec<Span>,
    /// The threads, with registers where they stand still.
    pub threads: Vec<Thread>,
    /// Parts of shared mappings, which may have contents that no page of the target holds.
    shared: Vec<(Mapping, Span)>,
    /// What is written back to no file and is not here: of a core file whose contents were left out.
    missing: u64,
}

impl Roots {
    /// The roots of `source`, which has `heaps`.
    pub fn of(source: &dyn Source, heaps: &[Heap], symbols: &mut Symbols) -> Roots {
        let threads = source.threads();
        let mut own = Vec::new();
        for heap in heaps {
            own.extend(heaps_own(source, heap));
            own.extend(heap.owners.iter().filter_map(|owner| {
                let mut word = [0; 8];
                let same =
                    source.peek(owner.watched, &mut word) && u64::from_le_bytes(word) == owner.word;
                let start = owner.watched.checked_sub(thread_block::ME as u64)?;
                (owner.watched != 0 && same).then_some(Span {
                    start,
                    end: start + thread_block::BYTES as u64,
                })
            }));
        }
        own.extend(library(source, symbols));
        own.extend(threads.iter().filter_map(|thread| unused(source, thread)));
        own = joined(own);
        let mut roots = Roots {
            spans: Vec::new(),
            threads,
            shared: Vec::new(),
            missing: 0,
        };
        let code: HashSet<&str> = source
            .mappings()
            .iter()
            .filter(|one| one.execute)
            .map(|one| &*one.name)
            .collect();
        for mapping in source.mappings().iter().filter(|one| counts(one, &code)) {
            let from = roots.spans.len();
            outside(mapping.span, &own, &mut roots.spans);
            if mapping.write {
                let parts = roots.spans[from..].iter();
                roots.missing += parts.map(|part| source.lacks(*part)).sum::<u64>();
            }
            if mapping.shared && mapping.write {
                let parts = roots.spans[from..].iter();
                roots
                    .shared
                    .extend(parts.map(|part| (mapping.clone(), *part)));
            }
        }
        roots
    }

    /// Calls `visit` with each word that is there, and where. Bytes that could not be read.
    pub fn each_word(&self, source: &dyn Source, mut visit: impl FnMut(u64, Place<'_>)) -> u64 {
        for thread in &self.threads {
            for (name, value) in &thread.registers {
                visit(*value, Place::Register(thread, name));
            }
            for value in &thread.vectors {
                visit(*value, Place::Register(thread, "of vectors"));
            }
        }
        let mut missing = self.missing;
        for span in &self.spans {
            missing += each_part(source, *span, Which::Held, |batch, part| {
                each_word(batch.bytes(part), part.start, &mut visit);
            });
        }
        for (mapping, part) in &self.shared {
            let told = source.unmapped(mapping, *part, &mut |start, bytes| {
                each_word(bytes, start, &mut visit);
            });
            if !told {
                let mut absent = part.bytes();
                source.held(*part, &mut |held| absent -= held.bytes());
                missing += absent;
            }
        }
        missing
    }

    /// Whether a thread that stands still seems to be within the allocator: a register, or a word that its last calls keep
    /// on its stack, points into the metadata of one of `heaps`.
    pub fn within(&self, source: &dyn Source, heaps: &[Heap]) -> bool {
        let own = |value: u64| heaps.iter().any(|heap| heap.region.span().holds(value));
        self.threads.iter().any(|thread| {
            let mut kept = [0; KEPT];
            let from = thread.stack.saturating_sub(RED_ZONE) & !7;
            let seen = source.peek(from, &mut kept) && words(&kept).any(own);
            seen || thread.registers.iter().any(|(_, value)| own(*value))
        })
    }

    /// Whether `address` is one of those that are read.
    pub fn hold(&self, address: u64) -> bool {
        let index = self.spans.partition_point(|span| span.end <= address);
        self.spans
            .get(index)
            .is_some_and(|span| span.holds(address))
    }

    /// Calls `visit` with what there is, by address, and with what no page of the target holds.
    pub(crate) fn each(&self, source: &dyn Source, visit: &mut dyn FnMut(u64, &[u8])) {
        for span in &self.spans {
            each_part(source, *span, Which::Held, |batch, part| {
                visit(part.start, batch.bytes(part));
            });
        }
        for (mapping, part) in &self.shared {
            source.unmapped(mapping, *part, visit);
        }
    }
}

fn each_word(bytes: &[u8], start: u64, visit: &mut impl FnMut(u64, Place<'_>)) {
    for (at, value) in (start..).step_by(8).zip(words(bytes)) {
        visit(value, Place::Memory(at));
    }
}

/// Mappings below /dev that are memory. Shared memory without a name is called /dev/zero.
const MEMORY: [&str; 3] = ["/dev/shm/", "/dev/zero", "/dev/hugepages/"];

/// Whether a mapping may hold pointers of the program: what it can write, and what it could once. Of files that is
/// what the loader closes to writing, and is of a file in `code`.
fn counts(mapping: &Mapping, code: &HashSet<&str>) -> bool {
    let memory = || MEMORY.iter().any(|name| mapping.name.starts_with(name));
    let device = mapping.name.starts_with("/dev/") && !memory();
    if !mapping.read || device || mapping.name.starts_with("[v") {
        return false;
    }
    let beside_code = || code.contains(&*mapping.name);
    mapping.write
        || !mapping.execute && !mapping.shared && (mapping.name.is_empty() || beside_code())
}

/// What of the address space is the heap's: its pages, free ones too, large blocks, metadata.
fn heaps_own(source: &dyn Source, heap: &Heap) -> Vec<Span> {
    let mut all = vec![heap.region.span()];
    for window in &heap.windows {
        let whole = match window.mapped {
            true => window.span(),
            // What lies behind the break is another's, whatever the heap was before.
            false => ours(source, window.span()),
        };
        // Pages among the heap's that are somebody else's.
        let inside = heap.foreign.iter().map(|span| span.common(whole));
        let mut foreign: Vec<Span> = inside.filter(|span| span.bytes() > 0).collect();
        let named = |one: &&Mapping| window.mapped && one.name.starts_with('/');
        let files = source.mappings().iter().filter(named);
        foreign.extend(
            files
                .map(|one| one.span.common(whole))
                .filter(|one| one.bytes() > 0),
        );
        outside(whole, &joined(foreign), &mut all);
    }
    all.extend(heap.large.iter().map(|block| block.span));
    all.extend(heap.kept.iter().map(|kept| kept.span));
    all
}

/// The variables of the library that the allocator is in, those that its file does not hold too.
fn library(source: &dyn Source, symbols: &mut Symbols) -> Vec<Span> {
    let mut all = Vec::new();
    let ours = source.mappings().iter();
    for mapping in ours.filter(|one| short(&one.name).starts_with(LIBRARY)) {
        all.push(mapping.span);
        all.extend(symbols.extent(source, mapping));
    }
    all
}

/// What of its stack `thread` does not use: below its stack pointer, as far as that is known to be the same stack.
fn unused(source: &dyn Source, thread: &Thread) -> Option<Span> {
    let end = thread.stack.checked_sub(RED_ZONE)? & !7;
    let mapping = source.mapping_at(thread.stack)?;
    let start = mapping.span.start;
    let whole = Span { start, end };
    if end <= start {
        return None;
    }
    if mapping.name == "[stack]" {
        return Some(whole);
    }
    // A stack that the C library made has the thread's own block at its top. Others may be part of anything.
    let pointer = thread.register("fs_base").unwrap_or(0);
    if pointer < thread.stack || !mapping.span.holds(pointer) {
        return None;
    }
    let guarded = source
        .mapping_at(start - 1)
        .is_some_and(|below| !below.read && !below.write);
    if guarded {
        return Some(whole);
    }
    // Other mappings may have grown together with it: what is resident without a gap is the stack's.
    let mut found = None;
    source.held(whole, &mut |part| found = Some(part));
    found.filter(|part| part.end == end)
}

/// The same addresses in ranges that lie in order and apart.
fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort();
    spans.dedup_by(|next, before| {
        let touches = next.start <= before.end;
        if touches {
            before.end = before.end.max(next.end);
        }
        touches
    });
    spans
}

/// Adds what of `whole` lies in none of `taken`, which are [`joined`], to `found`.
fn outside(whole: Span, taken: &[Span], found: &mut Vec<Span>) {
    let mut at = whole.start;
    let first = taken.partition_point(|span| span.end <= at);
    for span in &taken[first..] {
        if span.start >= whole.end {
            break;
        }
        if span.start > at {
            found.push(Span {
                start: at,
                end: span.start,
            });
        }
        at = span.end;
    }
    if at < whole.end {
        found.push(Span {
            start: at,
            end: whole.end,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_left_out() {
        let span = |start, end| Span { start, end };
        let mut found = Vec::new();
        let taken = vec![
            span(48, 90),
            span(0, 12),
            span(20, 30),
            span(11, 14),
            span(21, 22),
        ];
        outside(span(10, 50), &joined(taken), &mut found);
        assert_eq!(found, [span(14, 20), span(30, 48)]);
        found.clear();
        outside(span(10, 50), &[span(0, 60)], &mut found);
        assert_eq!(found, []);
        outside(span(10, 50), &[], &mut found);
        assert_eq!(found, [span(10, 50)]);
    }
}
