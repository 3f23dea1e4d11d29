//! What became more and less between two moments of a heap.

use crate::figures::Figures;
use crate::model::Heap;
use crate::profile::{samples, sums, Kind, Sums};
use crate::source::{Source, Span};
use crate::types::{Types, HEAD};
use crate::unwind::{Frame, Stack, Unwinder};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks of one size whose first words look alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Bytes of a block.
    pub size: u64,
    /// What they look like. Empty if contents are not there.
    pub looks: String,
    /// How many are new.
    pub new: u64,
    /// How many are gone.
    pub gone: u64,
    /// By how many bytes they grew.
    pub bytes: i64,
}

/// What code holds more or less, by the samples of the heap profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByStack {
    /// By how many blocks it grew.
    pub count: i64,
    /// By how many bytes it grew.
    pub bytes: i64,
    /// How many samples there were, and are.
    pub samples: [u64; 2],
    /// The functions, innermost first.
    pub frames: Vec<Frame>,
}

/// Slabs of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slabs {
    /// Bytes of a slot.
    pub size: u64,
    /// How many there were.
    pub before: u64,
    /// How many there are.
    pub after: u64,
}

/// The difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Blocks of the same address and size.
    pub survivors: u64,
    /// Blocks that are new.
    pub new: u64,
    /// Blocks that are gone.
    pub gone: u64,
    /// By how many bytes live blocks grew.
    pub allocated: i64,
    /// By how many bytes what is resident grew, and each part of it.
    pub resident: i64,
    /// Live blocks.
    pub live: i64,
    /// Blocks in a quarantine.
    pub quarantine: i64,
    /// Slots that wait.
    pub waiting: i64,
    /// Idle slots.
    pub idle_slots: i64,
    /// Holes.
    pub holes: i64,
    /// Free pages.
    pub free_pages: i64,
    /// Kept mappings.
    pub kept: i64,
    /// Metadata.
    pub metadata: i64,
    /// What is not the heap.
    pub rest: i64,
    /// New and gone blocks by size and looks, the largest change first.
    pub changes: Vec<Change>,
    /// Stacks of which other blocks are sampled now, the largest change first. Empty where no profile was taken.
    pub stacks: Vec<ByStack>,
    /// Sizes whose number of slabs changed.
    pub slabs: Vec<Slabs>,
}

/// A target and its heap.
pub struct Moment<'a> {
    /// The target.
    pub source: &'a dyn Source,
    /// Its heap.
    pub heap: &'a Heap,
    /// Its figures.
    pub figures: &'a Figures,
}

/// What `after` has more and less than `before`. Blocks are taken for the same where address and size are.
pub fn diff(before: &Moment<'_>, after: &Moment<'_>) -> Difference {
    let (old, now) = (live(before.heap), live(after.heap));
    let mut sums: BTreeMap<(u64, String), (u64, u64)> = BTreeMap::new();
    let (mut one, mut other) = (old.iter().peekable(), now.iter().peekable());
    let (mut survivors, mut new, mut gone) = (0, 0, 0);
    let (mut types, mut types_before) = (Types::new(), Types::new());
    loop {
        match (one.peek(), other.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                survivors += 1;
                one.next();
                other.next();
            }
            (Some(&&a), b) if b.is_none_or(|&&b| a < b) => {
                gone += 1;
                sums.entry(key(before, &mut types_before, a)).or_default().1 += 1;
                one.next();
            }
            (_, Some(&&b)) => {
                new += 1;
                sums.entry(key(after, &mut types, b)).or_default().0 += 1;
                other.next();
            }
            (Some(_), None) => break,
        }
    }
    let mut changes: Vec<Change> = sums
        .into_iter()
        .map(|((size, looks), (new, gone))| Change {
            size,
            looks,
            new,
            gone,
            bytes: (new as i64 - gone as i64).saturating_mul(size as i64),
        })
        .collect();
    changes.sort_by_key(|change| std::cmp::Reverse(change.bytes.unsigned_abs()));
    let (a, b) = (before.figures, after.figures);
    let by = |part: fn(&Figures) -> u64| part(b) as i64 - part(a) as i64;
    Difference {
        survivors,
        new,
        gone,
        allocated: by(|f| f.allocated),
        resident: by(|f| f.resident),
        live: by(|f| f.live),
        quarantine: by(|f| f.quarantine),
        waiting: by(|f| f.waiting),
        idle_slots: by(|f| f.idle_slots),
        holes: by(|f| f.holes),
        free_pages: by(|f| f.free_pages),
        kept: by(|f| f.kept),
        metadata: by(|f| f.metadata),
        rest: by(|f| f.rest),
        changes,
        stacks: stacks(before, after),
        slabs: slabs(a, b),
    }
}

/// The samples of a moment's heap, and what they stand for.
fn profile(moment: &Moment<'_>) -> (BTreeSet<u64>, Sums) {
    let all = samples(moment.source, moment.heap);
    let live = all.iter().filter(|sample| sample.live.is_some());
    let numbers = live.map(|sample| sample.number).collect();
    let mut unwinder = Unwinder::new(moment.source);
    let sums = sums(moment.heap, &all, Kind::Live, &mut unwinder);
    (numbers, sums)
}

/// The change by stack, where both moments have samples.
fn stacks(before: &Moment<'_>, after: &Moment<'_>) -> Vec<ByStack> {
    let has = |moment: &Moment<'_>| moment.heap.region.profile.taken > 0;
    if !has(before) || !has(after) {
        return Vec::new();
    }
    let ((old, first), (new, last)) = (profile(before), profile(after));
    if old == new {
        return Vec::new();
    }
    let mut all: BTreeMap<Stack, ByStack> = BTreeMap::new();
    for (rows, sign) in [(first.rows, -1.0), (last.rows, 1.0)] {
        for row in rows {
            let change = all.entry(row.stack.clone()).or_insert(ByStack {
                count: 0,
                bytes: 0,
                samples: [0; 2],
                frames: row.stack.to_vec(),
            });
            let add = |to: &mut i64, value: f64| *to = to.saturating_add(value.round() as i64);
            add(&mut change.count, sign * row.count);
            add(&mut change.bytes, sign * row.bytes);
            change.samples[usize::from(sign > 0.0)] = row.samples;
        }
    }
    let mut all: Vec<ByStack> = all.into_values().collect();
    // Where as many are sampled as before, the rest of the class made the share another one.
    all.retain(|change| change.samples[0] != change.samples[1]);
    all.sort_by_key(|change| std::cmp::Reverse(change.bytes.unsigned_abs()));
    all
}

fn live(heap: &Heap) -> Vec<Span> {
    let mut all = Vec::new();
    heap.each_live(|span, _| all.push(span));
    all.sort_unstable();
    all
}

fn key(moment: &Moment<'_>, types: &mut Types, block: Span) -> (u64, String) {
    let mut bytes = vec![0; block.bytes().min(HEAD as u64) as usize];
    let looks = match moment.source.peek(block.start, &mut bytes) {
        true => types.looks(moment.source, moment.heap, &bytes),
        false => String::new(),
    };
    (block.bytes(), looks)
}

fn slabs(before: &Figures, after: &Figures) -> Vec<Slabs> {
    let mut sizes: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for class in before.classes.iter().filter(|class| !class.span) {
        sizes.entry(class.size).or_default().0 = class.slabs;
    }
    for class in after.classes.iter().filter(|class| !class.span) {
        sizes.entry(class.size).or_default().1 = class.slabs;
    }
    let all = sizes.into_iter().map(|(size, (before, after))| Slabs {
        size,
        before,
        after,
    });
    all.filter(|slabs| slabs.before != slabs.after).collect()
}
