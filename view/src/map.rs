//! The heap as a picture, by address: how full its pages are, and which few blocks keep pages alive.

use crate::explain::owner_name;
use crate::figures::is_sparse;
use crate::model::{Heap, Slab, KEPT};
use crate::region::{Window, PAGE};
use crate::source::{Source, Span};
use crate::types::{Types, HEAD};
use serde::Serialize;
use std::collections::BTreeMap;

/// Pages in a row that are alike: those of one slab, or free ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PageRun {
    /// Address of the first page.
    pub address: u64,
    /// Number of pages.
    pub pages: u64,
    /// Number of their slab's header. 0 means free, 1 somebody else's.
    pub slab: u32,
    /// Bytes of a slot.
    pub size: u64,
    /// Live bytes.
    pub live: u64,
    /// Bytes in a quarantine.
    pub quarantined: u64,
    /// Resident bytes.
    pub resident: u64,
}

/// A window as a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Picture {
    /// Where it begins.
    pub address: u64,
    /// Its bytes, as far as they hold anything.
    pub bytes: u64,
    /// Whether it is mapped, and not part of the break.
    pub mapped: bool,
    /// Its pages.
    pub runs: Vec<PageRun>,
}

/// The pictures of all windows.
pub fn pictures(source: &dyn Source, heap: &Heap) -> Vec<Picture> {
    let windows = heap.windows.iter();
    windows
        .map(|window| picture(source, heap, window))
        .collect()
}

fn picture(source: &dyn Source, heap: &Heap, window: &Window) -> Picture {
    let whole = window.span();
    let mut present: Vec<Span> = Vec::new();
    source.present(whole, &mut |span| present.push(span));
    let resident = |span: Span| -> u64 {
        let first = present.partition_point(|one| one.end <= span.start);
        present[first..]
            .iter()
            .take_while(|one| one.start < span.end)
            .map(|one| one.common(span).bytes())
            .sum()
    };
    let mut runs = Vec::new();
    let mut at = whole.start;
    let first = heap.slabs.partition_point(|slab| slab.base < whole.start);
    let slabs = heap.slabs[first..]
        .iter()
        .take_while(|slab| slab.base < whole.end);
    for slab in slabs {
        gap(heap, at, slab.base, &resident, &mut runs);
        let span = slab.span();
        let bytes = |slots: u32| match slab.state {
            KEPT => 0,
            _ => u64::from(slots) * slab.size,
        };
        runs.push(PageRun {
            address: slab.base,
            pages: u64::from(slab.pages),
            slab: slab.id,
            size: slab.size,
            live: bytes(slab.live),
            quarantined: bytes(slab.quarantined),
            resident: resident(span),
        });
        at = span.end;
    }
    // Free pages at the end count as far as they are there.
    let end = present
        .last()
        .map_or(at, |last| last.end.max(at).min(whole.end));
    gap(heap, at, end, &resident, &mut runs);
    Picture {
        address: whole.start,
        bytes: at.max(end) - whole.start,
        mapped: window.mapped,
        runs,
    }
}

/// Adds the pages between two slabs: free ones, and those that are somebody else's.
fn gap(heap: &Heap, from: u64, to: u64, resident: &impl Fn(Span) -> u64, runs: &mut Vec<PageRun>) {
    let mut add = |start: u64, end: u64, slab: u32| {
        if start < end {
            runs.push(PageRun {
                address: start,
                pages: (end - start) / PAGE,
                slab,
                size: 0,
                live: 0,
                quarantined: 0,
                resident: resident(Span { start, end }),
            });
        }
    };
    let mut at = from;
    let whole = Span {
        start: from,
        end: to,
    };
    let first = heap.foreign.partition_point(|span| span.end <= from);
    for span in &heap.foreign[first..] {
        let part = span.common(whole);
        if span.start >= to || part.start < at {
            break;
        }
        add(at, part.start, 0);
        add(part.start, part.end, 1);
        at = part.end;
    }
    add(at, to, 0);
}

/// A cell of a picture that is drawn with signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Bytes that it stands for.
    pub bytes: u64,
    /// Live ones among them.
    pub live: u64,
    /// Those in a quarantine.
    pub quarantined: u64,
    /// Resident ones.
    pub resident: u64,
}

impl Picture {
    /// The picture in `n` cells of equal width, at least a page each.
    pub fn cells(&self, n: usize) -> Vec<Cell> {
        let width = (self.bytes.div_ceil(n.max(1) as u64))
            .next_multiple_of(PAGE)
            .max(PAGE);
        let count = self.bytes.div_ceil(width) as usize;
        let mut cells = vec![Cell::default(); count];
        for run in &self.runs {
            let all = run.pages * PAGE;
            let start = run.address - self.address;
            let mut at = start;
            while at < start + all {
                let index = (at / width) as usize;
                let end = (start + all).min((index as u64 + 1) * width);
                let part = end - at;
                // What is spread over a run is shared out evenly.
                let share =
                    |bytes: u64| (u128::from(bytes) * u128::from(part) / u128::from(all)) as u64;
                if let Some(cell) = cells.get_mut(index) {
                    cell.bytes += part;
                    cell.live += share(run.live);
                    cell.quarantined += share(run.quarantined);
                    cell.resident += share(run.resident);
                }
                at = end;
            }
        }
        cells
    }
}

/// A sparse slab and its few blocks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pin {
    /// Where the slab begins.
    pub address: u64,
    /// Bytes of its pages.
    pub bytes: u64,
    /// Bytes of a slot.
    pub size: u64,
    /// Number of slots.
    pub slots: u32,
    /// Number of live ones.
    pub live: u32,
    /// Whose it is.
    pub owner: String,
    /// Its live blocks.
    pub blocks: Vec<Pinning>,
}

/// A block that keeps pages alive.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pinning {
    /// Its address.
    pub address: u64,
    /// What its first words look like.
    pub looks: String,
}

/// The sparse slabs: how many there are, their live blocks and bytes, and bytes of their pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sparse {
    /// Number of sparse slabs.
    pub slabs: u64,
    /// Their live blocks.
    pub blocks: u64,
    /// Bytes of those.
    pub live: u64,
    /// Bytes of their pages.
    pub bytes: u64,
}

impl Sparse {
    fn add(&mut self, slab: &Slab) {
        self.slabs += 1;
        self.blocks += u64::from(slab.live);
        self.live += u64::from(slab.live) * slab.size;
        self.bytes += slab.span().bytes();
    }
}

/// Sums of the sparse slabs.
pub fn sparse(heap: &Heap) -> Sparse {
    let mut sums = Sparse::default();
    let slabs = heap.slabs.iter().filter(|slab| is_sparse(slab));
    slabs.for_each(|slab| sums.add(slab));
    sums
}

/// By what sparse slabs are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The size of their slots.
    Class,
    /// Whose they are.
    Owner,
    /// What most of their live blocks look like.
    Looks,
}

/// Sparse slabs of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// What they have in common.
    pub name: String,
    /// Their sums.
    #[serde(flatten)]
    pub sums: Sparse,
}

/// The sparse slabs by what they have in common, those that keep the most bytes first.
pub fn groups(source: &dyn Source, heap: &Heap, types: &mut Types, by: By) -> Vec<Group> {
    let mut groups: BTreeMap<String, Sparse> = BTreeMap::new();
    for slab in heap.slabs.iter().filter(|slab| is_sparse(slab)) {
        let name = match by {
            By::Class => format!("{} bytes", slab.size),
            By::Owner => owner_name(source, heap, slab.owner),
            By::Looks => commonest(blocks(source, heap, types, slab)),
        };
        groups.entry(name).or_default().add(slab);
    }
    let named = groups.into_iter();
    let mut all: Vec<Group> = named.map(|(name, sums)| Group { name, sums }).collect();
    all.sort_by_key(|group| std::cmp::Reverse(group.sums.bytes));
    all
}

/// What most of the blocks look like.
fn commonest(blocks: Vec<Pinning>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for block in blocks {
        *counts.entry(block.looks).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(String::new(), |(looks, _)| looks)
}

/// The `most` sparse slabs that keep the most bytes for the fewest live ones.
pub fn pins(source: &dyn Source, heap: &Heap, types: &mut Types, most: usize) -> Vec<Pin> {
    let mut slabs: Vec<&Slab> = heap.slabs.iter().filter(|slab| is_sparse(slab)).collect();
    let kept = |slab: &Slab| slab.span().bytes() - u64::from(slab.live) * slab.size;
    slabs.sort_by_key(|slab| (std::cmp::Reverse(kept(slab)), slab.base));
    slabs.truncate(most);
    let pin = |slab: &Slab| Pin {
        address: slab.base,
        bytes: slab.span().bytes(),
        size: slab.size,
        slots: slab.slots,
        live: slab.live,
        owner: owner_name(source, heap, slab.owner),
        blocks: blocks(source, heap, types, slab),
    };
    slabs.into_iter().map(pin).collect()
}

fn blocks(source: &dyn Source, heap: &Heap, types: &mut Types, slab: &Slab) -> Vec<Pinning> {
    let bits = heap.bits(slab);
    let live = (0..slab.slots).filter(|&slot| bits.is_live(slot as usize));
    live.map(|slot| {
        let address = slab.address(slot);
        let mut bytes = vec![0; slab.size.min(HEAD as u64) as usize];
        let looks = match source.peek(address, &mut bytes) {
            true => types.looks(source, heap, &bytes),
            false => String::new(),
        };
        Pinning { address, looks }
    })
    .collect()
}
