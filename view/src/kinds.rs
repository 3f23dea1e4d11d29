//! What the live blocks look like, summed: the types of the program's objects, as far as first words tell them.

use crate::model::{Heap, Slab};
use crate::region::PAGE;
use crate::source::{Source, Span};
use crate::symbols::{looks_like, Symbols};
use serde::Serialize;
use std::collections::HashMap;

/// Bytes of a block that are looked at.
const HEAD: usize = 32;

/// Blocks of one size that look alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// What they look like. Empty means their contents are not there.
    pub looks: String,
    /// Bytes of a block. 0 means of large blocks, which differ.
    pub size: u64,
    /// How many there are.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The kinds of live blocks, those of the most bytes first. Only what is resident is looked at.
pub fn kinds(source: &dyn Source, heap: &Heap, symbols: &mut Symbols) -> Vec<Kind> {
    let mut sums: HashMap<(u64, String), (u64, u64)> = HashMap::new();
    let mut add = |size: u64, looks: String, bytes: u64| {
        let sum = sums.entry((size, looks)).or_default();
        sum.0 += 1;
        sum.1 += bytes;
    };
    let mut pages = Vec::new();
    for slab in heap.slabs.iter().filter(|slab| slab.live > 0) {
        let there = read(source, slab, &mut pages);
        let bits = heap.bits(slab);
        for slot in (0..slab.slots).filter(|&slot| bits.is_live(slot as usize)) {
            let at = (u64::from(slot) * slab.size) as usize;
            let end = at + slab.size.min(HEAD as u64) as usize;
            let looks = match (&there, pages.get(at..end)) {
                (there, Some(bytes)) if holds(there, slab.base, at, end) => {
                    looks_like(source, heap, symbols, bytes)
                }
                _ => String::new(),
            };
            add(slab.size, looks, slab.size);
        }
    }
    for block in heap.large.iter().filter(|block| !block.stray) {
        let mut head = [0; HEAD];
        let looks = match source.peek(block.span.start, &mut head) {
            true => looks_like(source, heap, symbols, &head),
            false => String::new(),
        };
        add(0, looks, block.span.bytes());
    }
    let mut all: Vec<Kind> = sums
        .into_iter()
        .map(|((size, looks), (count, bytes))| Kind {
            looks,
            size,
            count,
            bytes,
        })
        .collect();
    all.sort_by(|a, b| {
        let order = |kind: &Kind| (std::cmp::Reverse(kind.bytes), kind.size);
        order(a).cmp(&order(b)).then_with(|| a.looks.cmp(&b.looks))
    });
    all
}

/// Copies what is resident of the slab's pages; which parts those are.
fn read(source: &dyn Source, slab: &Slab, pages: &mut Vec<u8>) -> Vec<Span> {
    pages.clear();
    pages.resize(slab.pages as usize * PAGE as usize, 0);
    let mut there: Vec<Span> = Vec::new();
    source.present(slab.span(), &mut |part| {
        let (at, bytes) = ((part.start - slab.base) as usize, part.bytes() as usize);
        if !source.read(part.start, &mut pages[at..at + bytes]) {
            return;
        }
        match there.last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ => there.push(part),
        }
    });
    there
}

/// Whether bytes `at` to `end` behind `base` were read.
fn holds(there: &[Span], base: u64, at: usize, end: usize) -> bool {
    let (start, end) = (base + at as u64, base + end as u64);
    there
        .iter()
        .any(|part| part.start <= start && end <= part.end)
}
