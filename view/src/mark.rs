//! Which live blocks the program can reach: from its roots, through other blocks.
//!
//! ```text
//!   page --> slab --> slot: one multiplication   a bit a block, by number: live, reached, looked through
//!   roots --> reached --> slabs that wait to be looked through --> reached ...
//! ```
//!
//! A pointer into the middle of a block counts as one to its start. Where much waits, several threads look through it at
//! once, and what they find is noted afterwards.

use crate::contents::{at_once, each_batch, each_part, words, Batch, Share, Which};
use crate::model::{Heap, Slab};
use crate::region::PAGE;
use crate::source::{Source, Span};
use crate::types::Blocks;
use std::collections::VecDeque;

/// The number of a block.
pub type Number = u32;

/// A slab of the index.
struct Entry {
    base: u64,
    size: u64,
    /// 2^64 divided by the size, rounded up. 0 means that there is one slot.
    reciprocal: u64,
    slots: u32,
    /// The number of its first slot, a multiple of 64.
    first: Number,
}

impl Entry {
    /// Its slots.
    fn span(&self) -> Span {
        Span {
            start: self.base,
            end: self.base + u64::from(self.slots) * self.size,
        }
    }

    /// Of `contents`, which are those of its slots, the part of one block.
    fn part<'a>(&self, contents: &'a [u8], number: Number) -> &'a [u8] {
        let at = (number - self.first) as usize * self.size as usize;
        contents.get(at..at + self.size as usize).unwrap_or(&[])
    }
}

/// Pages of a window, and for each the slab that it is of, by place plus one. What a window says of its length may be
/// made up: only parts with slabs cost more than a word.
struct Table {
    base: u64,
    /// Where each part begins in `pages`; [`NONE`]: it has no slab.
    parts: Vec<u32>,
    pages: Vec<u32>,
}

/// Pages of a part, as a power of 2.
const PART_SHIFT: u64 = 10;
/// No part.
const NONE: u32 = u32::MAX;

impl Table {
    /// One without slabs, for as many bytes from `base` on.
    fn new(base: u64, bytes: u64) -> Table {
        let parts = bytes.div_ceil(PAGE << PART_SHIFT) as usize;
        Table {
            base,
            parts: vec![NONE; parts],
            pages: Vec::new(),
        }
    }

    /// The slab, plus one, that `address` lies in, if it is one of its addresses; 0: in none.
    #[inline]
    fn get(&self, address: u64) -> Option<u32> {
        let page = address.wrapping_sub(self.base) / PAGE;
        let part = *self.parts.get((page >> PART_SHIFT) as usize)?;
        let at = (page & ((1 << PART_SHIFT) - 1)) as usize;
        Some(self.pages.get(part as usize + at).copied().unwrap_or(0))
    }

    /// Notes that the page at `address`, one of its addresses, is of `slab`, plus one.
    fn set(&mut self, address: u64, slab: u32) {
        let page = (address - self.base) / PAGE;
        let Some(part) = self.parts.get_mut((page >> PART_SHIFT) as usize) else {
            return;
        };
        if *part == NONE {
            *part = self.pages.len() as u32;
            self.pages.resize(self.pages.len() + (1 << PART_SHIFT), 0);
        }
        let at = *part as usize + (page & ((1 << PART_SHIFT) - 1)) as usize;
        self.pages[at] = slab;
    }

    fn span(&self) -> Span {
        Span {
            start: self.base,
            end: self.base + self.parts.len() as u64 * (PAGE << PART_SHIFT),
        }
    }
}

/// The live blocks of some heaps, by address and by number.
pub struct Index {
    tables: Vec<Table>,
    slabs: Vec<Entry>,
    /// Large blocks, by address.
    large: Vec<Span>,
    /// The number of the first of them.
    first_large: Number,
    /// Which numbers are those of live blocks.
    live: Bits,
    /// Blocks of first-class heaps: those end with their heap.
    kept: Vec<Number>,
    /// Which heap each slab is of, and each large block.
    heap_of: Vec<u32>,
    large_of: Vec<u32>,
}

/// A bit for each block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(Vec<u64>);

impl Bits {
    fn new(blocks: u64) -> Bits {
        Bits(vec![0; blocks.div_ceil(64) as usize])
    }

    /// Whether the bit is set.
    pub fn has(&self, number: Number) -> bool {
        let word = self.0.get(number as usize / 64);
        word.is_some_and(|word| word >> (number % 64) & 1 != 0)
    }

    /// Sets it. Returns whether it was not set.
    pub fn set(&mut self, number: Number) -> bool {
        let Some(word) = self.0.get_mut(number as usize / 64) else {
            return false;
        };
        let bit = 1 << (number % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    /// Clears it. Returns whether it was set.
    pub fn clear(&mut self, number: Number) -> bool {
        let Some(word) = self.0.get_mut(number as usize / 64) else {
            return false;
        };
        let bit = 1 << (number % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// How many are set.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Those that are set, in order.
    pub fn each(&self) -> impl Iterator<Item = Number> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.checked_sub(1)?;
                Some(index as u32 * 64 + bit)
            })
        })
    }

    /// Those that are set here and not in `other`.
    pub fn without(&self, other: &Bits) -> Bits {
        let both = self.0.iter().zip(&other.0);
        Bits(both.map(|(mine, others)| mine & !others).collect())
    }
}

impl Index {
    /// The live blocks of `heaps`.
    pub fn of(heaps: &[Heap]) -> Index {
        let slabs: usize = heaps.iter().map(|heap| heap.slabs.len()).sum();
        let mut index = Index {
            tables: Vec::new(),
            slabs: Vec::with_capacity(slabs),
            large: Vec::new(),
            first_large: 0,
            live: Bits::default(),
            kept: Vec::new(),
            heap_of: Vec::with_capacity(slabs),
            large_of: Vec::new(),
        };
        for (number, heap) in heaps.iter().enumerate() {
            index.add_slabs(heap, number as u32);
        }
        index.first_large = 64 * index.live.0.len() as u32;
        let all = heaps.iter().enumerate();
        let all = all.flat_map(|(of, heap)| heap.large.iter().map(move |block| (of, block)));
        let mut large: Vec<_> = all.filter(|(_, block)| !block.stray).collect();
        large.sort_by_key(|(_, block)| block.span);
        let more = Bits::new(large.len() as u64);
        index.live.0.extend(more.0);
        for (at, (of, block)) in large.into_iter().enumerate() {
            let number = index.first_large + at as u32;
            index.live.set(number);
            index.large.push(block.span);
            index.large_of.push(of as u32);
            if block.owner != 0 {
                index.kept.push(number);
            }
        }
        index
    }

    fn add_slabs(&mut self, heap: &Heap, number: u32) {
        let first_table = self.tables.len();
        self.tables.extend(heap.windows.iter().map(|window| {
            let used = heap
                .slabs
                .partition_point(|slab| slab.base < window.span().end);
            let last = heap.slabs[..used].last().map_or(0, |slab| slab.span().end);
            Table::new(window.base, last.saturating_sub(window.base))
        }));
        for slab in heap.slabs.iter().filter(|slab| slab.live > 0) {
            let mut tables = self.tables[first_table..].iter_mut();
            let whole = slab.span();
            let holds = |table: &&mut Table| {
                let span = table.span();
                whole.start >= span.start && whole.end <= span.end
            };
            let Some(table) = tables.find(holds) else {
                continue;
            };
            let entry = self.slabs.len() as u32 + 1;
            for page in 0..u64::from(slab.pages) {
                table.set(slab.base + page * PAGE, entry);
            }
            self.add_slab(heap, slab);
            self.heap_of.push(number);
        }
    }

    fn add_slab(&mut self, heap: &Heap, slab: &Slab) {
        let bits = heap.bits(slab);
        let first = 64 * self.live.0.len() as u32;
        let words = (slab.slots as usize).div_ceil(64);
        self.live.0.extend(&bits.live[..words.min(bits.live.len())]);
        self.slabs.push(Entry {
            base: slab.base,
            size: slab.size,
            reciprocal: match slab.slots {
                1 => 0,
                _ => (u128::from(u64::MAX) + 1).div_ceil(u128::from(slab.size)) as u64,
            },
            slots: slab.slots,
            first,
        });
        let arena = match heap.holder(slab.owner) {
            crate::model::Holder::Heap(owner) => {
                heap.owner(owner).is_some_and(|owner| owner.is_arena)
            }
            _ => false,
        };
        if arena {
            let all = first..first + slab.slots;
            self.kept
                .extend(all.filter(|&number| self.live.has(number)));
        }
    }

    /// Number of blocks, live or not.
    fn blocks(&self) -> u64 {
        64 * self.live.0.len() as u64
    }

    /// The live blocks.
    pub fn live(&self) -> &Bits {
        &self.live
    }

    /// The live block that `value` points to or into.
    #[inline]
    pub fn find(&self, value: u64) -> Option<Number> {
        self.place(value).map(|place| place.1)
    }

    /// The slab, by place, and the number of the live block that `value` points to or into. Of large ones no slab.
    #[inline]
    fn place(&self, value: u64) -> Option<(u32, Number)> {
        for table in &self.tables {
            let entry = table.get(value).unwrap_or(0);
            // Behind the last slab something else may lie.
            let Some(slab) = self.slabs.get((entry as usize).wrapping_sub(1)) else {
                continue;
            };
            let slot = (u128::from(value - slab.base) * u128::from(slab.reciprocal)) >> 64;
            let number = slab.first + slot as u32;
            let live = slot < u128::from(slab.slots) && self.live.has(number);
            return live.then_some((entry - 1, number));
        }
        let at = self.large.partition_point(|block| block.end <= value);
        let found = self.large.get(at).filter(|block| block.holds(value));
        found.map(|_| (u32::MAX, self.first_large + at as u32))
    }

    /// Which words of the blocks' bits are those of a slab.
    fn bits_of(&self, slab: u32) -> std::ops::Range<usize> {
        let slab = self.slabs.get(slab as usize);
        slab.map_or(0..0, |slab| {
            let first = slab.first as usize / 64;
            first..first + (slab.slots as usize).div_ceil(64)
        })
    }

    fn entry(&self, number: Number) -> Option<&Entry> {
        let at = self.slabs.partition_point(|slab| slab.first <= number);
        self.slabs[..at].last()
    }

    /// Where a block lies.
    pub fn span(&self, number: Number) -> Span {
        if let Some(at) = number.checked_sub(self.first_large) {
            return self
                .large
                .get(at as usize)
                .copied()
                .unwrap_or(Span { start: 0, end: 0 });
        }
        let found = self.entry(number).map(|slab| {
            let start = slab.base + u64::from(number - slab.first) * slab.size;
            let end = start + slab.size;
            Span { start, end }
        });
        found.unwrap_or(Span { start: 0, end: 0 })
    }

    /// Whether it is a large block.
    pub fn is_large(&self, number: Number) -> bool {
        number >= self.first_large
    }

    /// The heap that a block is of, by place.
    pub fn heap(&self, number: Number) -> usize {
        let heap = match number.checked_sub(self.first_large) {
            Some(at) => self.large_of.get(at as usize),
            None => {
                let at = self.slabs.partition_point(|slab| slab.first <= number);
                self.heap_of.get(at.wrapping_sub(1))
            }
        };
        heap.map_or(0, |&heap| heap as usize)
    }

    /// Addresses between which all blocks lie.
    fn bounds(&self) -> Span {
        let tables = self.tables.iter().map(Table::span);
        let all = tables.chain(self.large.iter().copied());
        let whole = all.reduce(|a, b| Span {
            start: a.start.min(b.start),
            end: a.end.max(b.end),
        });
        whole.unwrap_or(Span { start: 0, end: 0 })
    }
}

/// Contents of blocks, by address.
#[derive(Default)]
pub struct Copy {
    pieces: Vec<(u64, Vec<u8>)>,
    /// Bytes that could not be read.
    failed: u64,
}

impl Copy {
    /// The contents of all live blocks of `heaps`.
    pub fn of(source: &dyn Source, heaps: &[Heap]) -> Copy {
        let large = heaps.iter().flat_map(|heap| &heap.large);
        let large: Vec<Span> = large
            .filter(|block| !block.stray)
            .map(|block| block.span)
            .collect();
        let shares = Share::all(heaps, &large);
        let parts = at_once(&shares, Copy::default, |copy, share| match *share {
            Share::Slabs(slabs) => copy.add_slabs(source, slabs),
            Share::Large(_, span) => copy.add_large(source, span),
        });
        let mut copy = Copy::default();
        parts.into_iter().for_each(|part| copy.join(part));
        copy
    }

    /// What was copied apart.
    fn join(&mut self, mut other: Copy) {
        self.pieces.append(&mut other.pieces);
        // Two may begin at one address: one of them holds nothing.
        self.pieces.sort_by_key(|piece| (piece.0, piece.1.len()));
        self.failed += other.failed;
    }

    fn add_slabs(&mut self, source: &dyn Source, slabs: &[Slab]) {
        self.failed += each_batch(source, slabs, Which::Held, |batch, _| {
            self.pieces.push(batch.into_piece());
        });
    }

    fn add(&mut self, start: u64, bytes: &[u8]) {
        self.pieces.push((start, bytes.to_vec()));
    }

    /// Large blocks may hardly be used: only what is there is kept.
    fn add_large(&mut self, source: &dyn Source, span: Span) {
        self.failed += each_part(source, span, Which::Held, |batch, _| {
            self.pieces.push(batch.into_piece());
        });
    }

    /// Bytes that could not be read, and count as zero.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// The bytes of `span`, if they were copied in one piece, as those of a slab are.
    fn slice(&self, span: Span) -> &[u8] {
        let from = self.pieces.partition_point(|piece| piece.0 <= span.start);
        let found = self.pieces[..from].last().and_then(|(start, bytes)| {
            let at = (span.start - start) as usize;
            bytes.get(at..at + span.bytes() as usize)
        });
        found.unwrap_or(&[])
    }

    /// Calls `visit` with what there is of `span` and where, by address. The rest is zero.
    pub fn each<'a>(&'a self, span: Span, mut visit: impl FnMut(u64, &'a [u8])) {
        let from = self
            .pieces
            .partition_point(|piece| piece.0 + piece.1.len() as u64 <= span.start);
        for (start, bytes) in &self.pieces[from..] {
            if *start >= span.end {
                return;
            }
            let piece = Span {
                start: *start,
                end: start + bytes.len() as u64,
            };
            let part = piece.common(span);
            let at = (part.start - start) as usize;
            visit(part.start, &bytes[at..at + part.bytes() as usize]);
        }
    }

    /// The first bytes of `span`, `n` at most.
    pub fn head(&self, span: Span, n: usize) -> Vec<u8> {
        let end = span.end.min(span.start + n as u64);
        let mut bytes = Vec::new();
        self.each(Span { end, ..span }, |at, part| {
            bytes.resize((at - span.start) as usize, 0);
            bytes.extend_from_slice(part);
        });
        bytes.resize((end - span.start) as usize, 0);
        bytes
    }
}

/// Which pointers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointers {
    /// Those to the start of a block.
    ToStart,
    /// Those into its middle too.
    All,
}

/// So many slabs that wait, or bytes of a large block, are worth starting threads for.
const MANY_SLABS: usize = 4096;
const MANY_BYTES: usize = 4 << 20;
/// So many each thread takes at a time.
const SLABS: usize = 64;
const BYTES: usize = 256 << 10;

/// So many bytes all threads look through before what they found is noted: where each word leads to a block, it takes
/// as many bytes again.
const ROUND: u64 = 64 << 20;

/// What a thread finds: blocks that were not reached before, each with its slab.
type Finds = Vec<(u32, Number)>;

/// Goes from block to block.
pub struct Marker<'a> {
    index: &'a Index,
    copy: &'a Copy,
    bounds: Span,
    pointers: Pointers,
    reached: Bits,
    done: Bits,
    /// Slabs that wait, and whether they do. Large blocks by number.
    waiting: VecDeque<u32>,
    waits: Vec<bool>,
    large: Vec<Number>,
}

impl<'a> Marker<'a> {
    /// Nothing is reached yet but what ends with a first-class heap.
    pub fn new(index: &'a Index, copy: &'a Copy, pointers: Pointers) -> Marker<'a> {
        let mut marker = Marker {
            index,
            copy,
            bounds: index.bounds(),
            pointers,
            reached: Bits::new(index.blocks()),
            done: Bits::new(index.blocks()),
            waiting: VecDeque::new(),
            waits: vec![false; index.slabs.len()],
            large: Vec::new(),
        };
        for &number in &index.kept {
            if let Some((slab, number)) = index.place(index.span(number).start) {
                marker.reach(slab, number);
            }
        }
        marker
    }

    /// A word of the roots, or of a block that is reached.
    #[inline]
    pub fn word(&mut self, value: u64) {
        if let Some((slab, number)) = self.unreached(value) {
            self.reach(slab, number);
        }
    }

    /// The block that `value` leads to, with its slab, if it was not reached before.
    #[inline]
    fn unreached(&self, value: u64) -> Option<(u32, Number)> {
        if !self.bounds.holds(value) {
            return None;
        }
        let (slab, number) = self.index.place(value)?;
        let counts = self.pointers == Pointers::All || self.index.span(number).start == value;
        (counts && !self.reached.has(number)).then_some((slab, number))
    }

    fn reach(&mut self, slab: u32, number: Number) {
        if !self.reached.set(number) {
            return;
        }
        match self.waits.get_mut(slab as usize) {
            None => self.large.push(number),
            Some(waits) if *waits => {}
            Some(waits) => {
                *waits = true;
                self.waiting.push_back(slab);
            }
        }
    }

    /// Looks through all that is reached. Returns which blocks are.
    pub fn finish(mut self) -> Bits {
        loop {
            if self.waiting.len() >= MANY_SLABS {
                self.look_through_many();
            } else if let Some(at) = self.waiting.pop_front() {
                self.look_through(at);
            } else if let Some(number) = self.large.pop() {
                self.look_through_large(number);
            } else {
                return self.reached;
            }
        }
    }

    /// Takes the first slabs of those that wait, as many as are looked through before what they lead to is noted.
    fn take_round(&mut self) -> Vec<u32> {
        let mut bytes = 0;
        let mut slabs = Vec::new();
        while let Some(at) = self.waiting.pop_front() {
            slabs.push(at);
            let slab = self.index.slabs.get(at as usize);
            bytes += slab.map_or(0, |slab| slab.span().bytes());
            if bytes >= ROUND {
                break;
            }
        }
        slabs
    }

    /// Looks through many of the slabs that wait.
    fn look_through_many(&mut self) {
        let slabs = self.take_round();
        let shares: Vec<&[u32]> = slabs.chunks(SLABS).collect();
        let marker = &*self;
        let finds = at_once(&shares, Finds::new, |finds, slabs| {
            for &at in *slabs {
                marker.each_fresh(at, |bytes| marker.find(bytes, finds));
            }
        });
        for &at in &slabs {
            self.waits[at as usize] = false;
            for word in self.index.bits_of(at) {
                self.done.0[word] = self.reached.0[word];
            }
        }
        self.note(finds);
    }

    fn look_through_large(&mut self, number: Number) {
        let copy = self.copy;
        let mut pieces: Vec<&[u8]> = Vec::new();
        copy.each(self.index.span(number), |_, bytes| {
            pieces.extend(bytes.chunks(BYTES));
        });
        if pieces.iter().map(|piece| piece.len()).sum::<usize>() < MANY_BYTES {
            return pieces.into_iter().for_each(|piece| self.words(piece));
        }
        for pieces in pieces.chunks(ROUND as usize / BYTES) {
            let marker = &*self;
            let finds = at_once(pieces, Finds::new, |finds, piece| {
                marker.find(piece, finds);
            });
            self.note(finds);
        }
    }

    /// Adds to `finds` what `bytes` lead to.
    fn find(&self, bytes: &[u8], finds: &mut Finds) {
        finds.extend(words(bytes).filter_map(|word| self.unreached(word)));
    }

    /// Notes what several threads have found.
    fn note(&mut self, finds: Vec<Finds>) {
        for (slab, number) in finds.into_iter().flatten() {
            self.reach(slab, number);
        }
    }

    /// Calls `visit` with the contents of the slab's blocks that are reached and were not looked through.
    fn each_fresh(&self, at: u32, mut visit: impl FnMut(&[u8])) {
        let Some(slab) = self.index.slabs.get(at as usize) else {
            return;
        };
        let contents = self.copy.slice(slab.span());
        for word in self.index.bits_of(at) {
            let mut fresh = self.reached.0[word] & !self.done.0[word];
            while fresh != 0 {
                let number = word as u32 * 64 + fresh.trailing_zeros();
                fresh &= fresh - 1;
                visit(slab.part(contents, number));
            }
        }
    }

    fn look_through(&mut self, at: u32) {
        self.waits[at as usize] = false;
        let (index, copy) = (self.index, self.copy);
        let Some(slab) = index.slabs.get(at as usize) else {
            return;
        };
        let contents = copy.slice(slab.span());
        for word in index.bits_of(at) {
            let mut fresh = self.reached.0[word] & !self.done.0[word];
            self.done.0[word] |= fresh;
            while fresh != 0 {
                let number = word as u32 * 64 + fresh.trailing_zeros();
                fresh &= fresh - 1;
                self.words(slab.part(contents, number));
            }
        }
    }

    fn words(&mut self, bytes: &[u8]) {
        words(bytes).for_each(|word| self.word(word));
    }
}

/// Pages, of which some are noted. It may say so of others too. Small enough to stay in the processor's first cache.
#[derive(Clone)]
struct Pages(Vec<u64>);

/// Bits of [`Pages`], as a power of 2.
const PAGES_SHIFT: u32 = 17;

impl Pages {
    fn none() -> Pages {
        Pages(vec![0; 1 << (PAGES_SHIFT - 6)])
    }

    /// Where the page of `address` is noted: pages that lie close have places of their own.
    #[inline]
    fn place(address: u64) -> (usize, u64) {
        let bit = address / PAGE % (1 << PAGES_SHIFT);
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn note(&mut self, span: Span) {
        let first = span.start / PAGE;
        let pages = (span.end.div_ceil(PAGE) - first).min(1 << PAGES_SHIFT);
        for page in first..first + pages {
            let (word, bit) = Pages::place(page * PAGE);
            self.0[word] |= bit;
        }
    }

    #[inline]
    fn may_have(&self, address: u64) -> bool {
        let (word, bit) = Pages::place(address);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// Where set bits of `word` that lie side by side begin and end.
fn runs(mut word: u64) -> impl Iterator<Item = (usize, usize)> {
    std::iter::from_fn(move || {
        let from = word.trailing_zeros();
        let to = from + word.checked_shr(from)?.trailing_ones();
        word &= u64::MAX.checked_shl(to).unwrap_or(0);
        Some((from as usize, to as usize))
    })
}

/// Blocks of which it is asked whether anything leads to them, and their contents as they are read.
pub struct Sieve<'a> {
    index: &'a Index,
    bounds: Span,
    /// The pages of those that are asked for: hardly any word leads there.
    pages: Pages,
    /// Those to which nothing was found to lead so far.
    left: Bits,
    /// Those that something leads to, whose own pointers still have to be followed.
    dropped: Vec<Number>,
    /// Contents of those that are asked for.
    copy: Copy,
}

impl<'a> Sieve<'a> {
    /// Of `asked`, blocks of `index`.
    pub fn new(index: &'a Index, asked: Bits) -> Sieve<'a> {
        let (mut pages, mut bounds) = (
            Pages::none(),
            Span {
                start: u64::MAX,
                end: 0,
            },
        );
        for number in asked.each() {
            let span = index.span(number);
            pages.note(span);
            bounds.start = bounds.start.min(span.start);
            bounds.end = bounds.end.max(span.end);
        }
        Sieve {
            index,
            bounds,
            pages,
            left: asked,
            dropped: Vec::new(),
            copy: Copy::default(),
        }
    }

    /// A word that the program can reach, or may.
    #[inline]
    pub fn word(&mut self, value: u64) {
        if !self.bounds.holds(value) || !self.pages.may_have(value) {
            return;
        }
        if let Some(number) = self.index.find(value) {
            if self.left.clear(number) {
                self.dropped.push(number);
            }
        }
    }

    /// Reads all live blocks of `heaps`: what is not asked for may be reached. Bytes that could not be read.
    pub fn look_through(&mut self, source: &dyn Source, heaps: &[Heap]) -> u64 {
        self.drop_all(&self.index.kept);
        let asked = self.left.clone();
        let shares = Share::all(heaps, &self.index.large);
        let parts = at_once(
            &shares,
            || self.part(),
            |part, share| match *share {
                Share::Slabs(slabs) => part.slabs(source, slabs, &asked),
                Share::Large(at, span) => part.large(source, at, span, &asked),
            },
        );
        for part in parts {
            self.drop_all(&part.dropped);
            self.copy.join(part.copy);
        }
        self.copy.failed
    }

    /// The same for another thread: what it drops is dropped here later.
    fn part(&self) -> Sieve<'a> {
        Sieve {
            pages: self.pages.clone(),
            left: self.left.clone(),
            dropped: Vec::new(),
            copy: Copy::default(),
            ..*self
        }
    }

    fn drop_all(&mut self, numbers: &[Number]) {
        for &number in numbers {
            if self.left.clear(number) {
                self.dropped.push(number);
            }
        }
    }

    fn slabs(&mut self, source: &dyn Source, slabs: &[Slab], asked: &Bits) {
        self.copy.failed += each_batch(source, slabs, Which::Held, |batch, slabs| {
            for slab in slabs {
                self.slab(batch, slab, asked);
            }
        });
    }

    /// Looks through `span`, a part of a large block.
    fn large(&mut self, source: &dyn Source, at: usize, span: Span, asked: &Bits) {
        let number = self.index.first_large + at as u32;
        self.copy.failed += each_part(source, span, Which::Held, |batch, part| {
            let bytes = batch.bytes(part);
            match asked.has(number) {
                true => self.copy.add(part.start, bytes),
                false => self.words(bytes),
            }
        });
    }

    fn slab(&mut self, batch: &Batch, slab: &Slab, asked: &Bits) {
        let index = self.index;
        let Some(entry) = index.find_slab(slab.base) else {
            return;
        };
        let (first, size) = (entry.first as usize, entry.size);
        let bits = first / 64..(first + entry.slots as usize).div_ceil(64);
        let blocks = |from: usize, to: usize| Span {
            start: slab.base + (from - first) as u64 * size,
            end: slab.base + (to - first) as u64 * size,
        };
        let mut kept: Option<(usize, usize)> = None;
        for at in bits {
            for (from, to) in runs(asked.0[at]) {
                let (from, to) = (64 * at + from, 64 * at + to);
                kept = Some((kept.map_or(from, |kept| kept.0), to));
            }
            for (from, to) in runs(index.live.0[at] & !asked.0[at]) {
                self.words(batch.bytes(blocks(64 * at + from, 64 * at + to)));
            }
        }
        if let Some((from, to)) = kept {
            let span = blocks(from, to);
            self.copy.add(span.start, batch.bytes(span));
        }
    }

    fn words(&mut self, bytes: &[u8]) {
        words(bytes).for_each(|word| self.word(word));
    }

    /// Drops those of which `changed` says so, given their contents.
    pub fn compare(&mut self, mut changed: impl FnMut(Number, &Copy) -> bool) {
        let numbers: Vec<Number> = self.left.each().collect();
        for number in numbers {
            if changed(number, &self.copy) && self.left.clear(number) {
                self.dropped.push(number);
            }
        }
    }

    /// Follows what was dropped. What is left, with its contents.
    pub fn finish(mut self) -> (Bits, Copy) {
        let copy = std::mem::take(&mut self.copy);
        while let Some(number) = self.dropped.pop() {
            copy.each(self.index.span(number), |_, bytes| self.words(bytes));
        }
        (self.left, copy)
    }
}

impl Index {
    fn find_slab(&self, base: u64) -> Option<&Entry> {
        self.tables.iter().find_map(|table| {
            let entry = table.get(base)?;
            self.slabs.get((entry as usize).wrapping_sub(1))
        })
    }
}

impl Blocks for Index {
    fn block_at(&self, address: u64) -> Option<Option<u64>> {
        let (slab, _) = self.place(address)?;
        Some(self.slabs.get(slab as usize).map(|slab| slab.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However much waits, what is found in one round is not as large as the heap.
    #[test]
    fn a_round_is_no_longer_than_what_it_finds_may_take() {
        let slab = |at: u64| Entry {
            base: at << 20,
            size: 64,
            reciprocal: 1 << 58,
            slots: 1 << 14,
            first: (at as u32) << 14,
        };
        let index = Index {
            tables: Vec::new(),
            slabs: (0..100).map(slab).collect(),
            large: Vec::new(),
            first_large: 100 << 14,
            live: Bits::new(100 << 14),
            kept: Vec::new(),
            heap_of: vec![0; 100],
            large_of: Vec::new(),
        };
        let copy = Copy::default();
        let mut marker = Marker::new(&index, &copy, Pointers::All);
        marker.waiting.extend(0..100);
        let rounds = [(); 3].map(|()| marker.take_round());
        assert!(rounds[0].iter().copied().eq(0..64));
        assert!(rounds[1].iter().copied().eq(64..100));
        assert!(rounds[2].is_empty());
    }

    #[test]
    fn runs_of_bits_are_told_each_once() {
        let all = |word: u64| runs(word).collect::<Vec<_>>();
        assert_eq!(all(0), []);
        assert_eq!(all(u64::MAX), [(0, 64)]);
        assert_eq!(all(0b1011), [(0, 2), (3, 4)]);
        assert_eq!(all(1 << 63 | 1), [(0, 1), (63, 64)]);
    }
}
