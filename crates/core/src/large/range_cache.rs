//! Freed mappings kept for reuse: ranges of addresses, each one or more mappings side by side.
//!
//! ```text
//!   free   [ kept ][ freed ][ kept ]  ->  [ kept                  ]     neighbours become one range
//!   map    [ kept                  ]  ->  [ block ][ kept         ]     the smallest that fits, cut
//!   grow   [ block ][ kept         ]  ->  [ block      ][ kept    ]     in place, without a system call
//! ```
//!
//! A *clean* range was never touched and costs address space alone: it is room for the block before it to
//! grow into, and is given to no other block. No lock and no system call here.
//!
//! Blocks that rest in the table of records ([`Resting`]) count with the ranges, and become some when they are needed.
//!
//! A range keeps its place while it is kept, so an outside reader sees it there. An index beside the ranges
//! finds them by size and by address ([`RangeIndex`]): what a call costs does not grow with their number.
//!
//! A fork may fall between any two stores: a range is taken out before it is put elsewhere, and its
//! length is written last, so that a child may lose one but never finds two over the same bytes.

use super::range_index::{By, Range, RangeIndex, PLACES};
use super::resting::Resting;
use super::table::Table;
use super::Block;
use crate::meta::{Elsewhere, Fact, Header};
use core::mem::{offset_of, size_of};
use core::sync::atomic::{compiler_fence, Ordering::Release};

/// The ranges kept, in no order.
pub(super) struct RangeCache {
    ranges: [Range; PLACES],
    /// How many are kept.
    used: usize,
    /// No place from this one on was ever used.
    top: usize,
    /// Places below that are not in use, as a stack.
    vacant: [u16; PLACES],
    /// How many.
    vacancies: usize,
    /// Bytes of the ranges that are not clean.
    bytes: usize,
    /// The least that was left of them and of blocks at rest by a block that took some, since the last [`RangeCache::idle`].
    low: usize,
    index: RangeIndex,
    /// Freed blocks that are no ranges yet.
    pub(super) resting: Resting,
}

impl RangeCache {
    pub(super) const fn new() -> RangeCache {
        RangeCache {
            ranges: [Range::NONE; PLACES],
            used: 0,
            top: 0,
            vacant: [0; PLACES],
            vacancies: 0,
            bytes: 0,
            low: 0,
            index: RangeIndex::new(),
            resting: Resting::new(),
        }
    }

    /// All ranges and their places.
    fn all(&self) -> impl Iterator<Item = (usize, &Range)> {
        let below = self.ranges[..self.top].iter().enumerate();
        below.filter(|(_, range)| range.bytes != 0)
    }

    /// States in the region's header where the ranges lie, and how they are laid out.
    pub(super) fn describe(&self, header: &Header) {
        header.point(Elsewhere::Kept, self.ranges.as_ptr() as usize);
        header.state(Fact::KeptPlaces, PLACES);
        header.state(Fact::KeptBytes, size_of::<Range>());
        header.state(Fact::KeptAddress, offset_of!(Range, address));
        header.state(Fact::KeptLength, offset_of!(Range, bytes));
        header.state(Fact::KeptClean, offset_of!(Range, clean));
    }

    /// Keeps `range`, as one with its neighbours of the same kind. What had to make place for it, if
    /// anything, is to be unmapped.
    pub(super) fn put(&mut self, mut range: Range) -> Option<Range> {
        while let Some(place) = self.neighbour(&range) {
            let other = self.take(place);
            range.address = range.address.min(other.address);
            range.bytes += other.bytes;
            range.since = range.since.max(other.since);
        }
        let full = if self.has_place() {
            None
        } else {
            self.oldest(|_| true)
        };
        let replaced = full.map(|place| self.take(place));
        self.add(range);
        replaced
    }

    /// The place of a range of the same kind that ends where `range` begins, or begins where it ends.
    #[inline]
    fn neighbour(&self, range: &Range) -> Option<usize> {
        let same = |&place: &usize| self.ranges[place].clean == range.clean;
        let before = self.index.at(By::End, range.address, &self.ranges);
        let behind = || self.index.at(By::Start, range.end(), &self.ranges);
        before.filter(same).or_else(|| behind().filter(same))
    }

    /// Puts `range` where none is. There is place.
    fn add(&mut self, range: Range) {
        let place = self.vacancy();
        self.put_at(place, range);
        self.index.insert(place, &range);
        self.used += 1;
        self.bytes += range.dirty_bytes();
    }

    fn vacancy(&mut self) -> usize {
        if let Some(vacancies) = self.vacancies.checked_sub(1) {
            self.vacancies = vacancies;
            return self.vacant[vacancies] as usize;
        }
        let place = self.top.max(1);
        self.top = place + 1;
        place
    }

    /// The place's length is zero before its address changes and written last (see the module's text).
    fn put_at(&mut self, place: usize, range: Range) {
        let here = &mut self.ranges[place];
        here.bytes = 0;
        compiler_fence(Release);
        *here = Range { bytes: 0, ..range };
        compiler_fence(Release);
        here.bytes = range.bytes;
    }

    fn take(&mut self, place: usize) -> Range {
        let range = self.ranges[place];
        self.ranges[place].bytes = 0;
        compiler_fence(Release);
        self.index.remove(place, &range);
        self.vacant[self.vacancies] = place as u16;
        self.vacancies += 1;
        self.used -= 1;
        self.bytes -= range.dirty_bytes();
        range
    }

    /// Takes `bytes` bytes of a range, at its front.
    fn cut(&mut self, place: usize, bytes: usize) -> Block {
        let range = self.ranges[place];
        if bytes < range.bytes {
            self.shorten(place, bytes);
        } else {
            self.take(place);
        }
        self.note_low();
        Block {
            bytes,
            ..range.block()
        }
    }

    /// The range at `place` loses its first `bytes` bytes, which are not all that it has.
    fn shorten(&mut self, place: usize, bytes: usize) {
        let old = self.ranges[place];
        let new = Range {
            address: old.address + bytes,
            bytes: old.bytes - bytes,
            ..old
        };
        self.index.begin_elsewhere(place, &old, &new);
        self.put_at(place, new);
        self.bytes -= old.dirty_bytes() - new.dirty_bytes();
    }

    /// `bytes` bytes at a multiple of `align`: the front of a range of the smallest size that has them, or all of
    /// it where little more is left.
    pub(super) fn fit(&mut self, bytes: usize, align: usize) -> Option<Block> {
        if self.bytes < bytes {
            return None;
        }
        let fits = |range: &Range| range.address & (align - 1) == 0;
        let place = self.index.smallest(bytes, &self.ranges, fits)?;
        let rest = self.ranges[place].bytes - bytes;
        let whole = rest < bytes / 16;
        Some(self.cut(place, if whole { bytes + rest } else { bytes }))
    }

    /// Takes out the largest range, if it has so many bytes.
    pub(super) fn take_largest(&mut self, sizes: core::ops::Range<usize>) -> Option<Range> {
        let place = self.index.largest(&self.ranges)?;
        let range = self.ranges[place];
        if !sizes.contains(&range.bytes) {
            return None;
        }
        self.cut(place, range.bytes);
        Some(range)
    }

    /// Takes out the front of the largest range, at most `most` bytes, if it has `least` bytes.
    pub(super) fn front_of_largest(&mut self, least: usize, most: usize) -> Option<Range> {
        let place = self.index.largest(&self.ranges)?;
        let range = self.ranges[place];
        if range.bytes < least {
            return None;
        }
        let bytes = range.bytes.min(most);
        self.cut(place, bytes);
        Some(Range { bytes, ..range })
    }

    /// Takes the `more` bytes from `end` on, if all of them are kept.
    pub(super) fn take_behind(&mut self, end: usize, more: usize) -> bool {
        let mut at = end;
        while at < end + more {
            match self.index.at(By::Start, at, &self.ranges) {
                Some(place) => at = self.ranges[place].end(),
                None => return false,
            }
        }
        at = end;
        while at < end + more {
            let Some(place) = self.index.at(By::Start, at, &self.ranges) else {
                return false;
            };
            let part = self.ranges[place].bytes.min(end + more - at);
            at += self.cut(place, part).bytes;
        }
        true
    }

    fn oldest(&self, which: impl Fn(&Range) -> bool) -> Option<usize> {
        let ranges = self.all().filter(|(_, range)| which(range));
        ranges
            .min_by_key(|(_, range)| range.since)
            .map(|(place, _)| place)
    }

    /// Takes out what has been kept longest, at most `bytes` bytes.
    pub(super) fn drop_oldest(&mut self, bytes: usize) -> Option<Range> {
        let range = self.take(self.oldest(|range| !range.clean)?);
        let left = range.bytes.saturating_sub(bytes);
        if left > 0 {
            self.add(Range {
                bytes: left,
                ..range
            });
        }
        Some(Range {
            address: range.address + left,
            bytes: range.bytes - left,
            ..range
        })
    }

    /// Takes out a range that was freed at `then` or before.
    pub(super) fn drop_older(&mut self, then: u64) -> Option<Range> {
        let place = self.oldest(|range| range.since <= then)?;
        Some(self.take(place))
    }

    /// The range of freed bytes that holds `address`.
    pub(super) fn holding(&self, address: usize) -> Option<Block> {
        let holds =
            |range: &Range| !range.clean && range.address <= address && address < range.end();
        self.all()
            .find(|(_, range)| holds(range))
            .map(|(_, range)| range.block())
    }

    /// Bytes that no block took since this was last asked.
    pub(super) fn idle(&mut self) -> usize {
        let kept = self.bytes();
        core::mem::replace(&mut self.low, kept).min(kept)
    }

    /// Bytes of the ranges that are not clean and of blocks at rest.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.resting.bytes
    }

    /// A block took some of them.
    #[inline]
    pub(super) fn note_low(&mut self) {
        self.low = self.low.min(self.bytes());
    }

    /// Whether a block of `bytes` bytes may come to rest.
    #[inline]
    pub(super) fn takes_to_rest(&self, bytes: usize) -> bool {
        self.resting.takes(bytes) && self.has_place()
    }

    /// Blocks at rest become ranges. There is place for all of them.
    pub(super) fn settle(&mut self, table: &mut Table) {
        while let Some(range) = self.resting.leave(table) {
            let replaced = self.put(range);
            debug_assert!(replaced.is_none());
        }
    }

    /// Bytes of the range that begins at `address`, if one does.
    pub(super) fn length_at(&self, address: usize) -> Option<usize> {
        let place = self.index.at(By::Start, address, &self.ranges)?;
        Some(self.ranges[place].bytes)
    }

    /// Bytes of all ranges, clean ones among them.
    pub(super) fn all_bytes(&self) -> usize {
        self.all().map(|(_, range)| range.bytes).sum()
    }

    /// Whether there is place for one more range.
    pub(super) fn has_place(&self) -> bool {
        self.used + self.resting.count < PLACES - 1
    }

    /// Whether any byte of `block` is kept.
    pub(super) fn overlaps(&self, block: &Block) -> bool {
        let overlaps = |range: &Range| range.address < block.end() && block.address < range.end();
        self.all().any(|(_, range)| overlaps(range))
    }

    /// In a fork child: makes the index and the sums agree with the ranges, of which one may be half written.
    pub(super) fn rebuild(&mut self) {
        self.index.clear();
        (self.used, self.bytes, self.vacancies) = (0, 0, 0);
        self.top = PLACES;
        for place in 1..PLACES {
            let range = self.ranges[place];
            if range.bytes == 0 {
                self.vacant[self.vacancies] = place as u16;
                self.vacancies += 1;
                continue;
            }
            self.index.insert(place, &range);
            self.used += 1;
            self.bytes += range.dirty_bytes();
        }
        self.low = self.bytes();
    }

    /// Number of broken invariants.
    pub(super) fn validate(&self) -> usize {
        let bytes: usize = self.all().map(|(_, range)| range.dirty_bytes()).sum();
        let overlaps = |range: &Range, other: &Range| {
            range.address < other.end() && other.address < range.end()
        };
        let overlapping = |range| {
            self.all()
                .filter(|(_, other)| overlaps(range, other))
                .count()
        };
        let wrong = self.all().filter(|(_, range)| overlapping(range) != 1);
        let beyond = self.ranges[self.top..].iter().chain(&self.ranges[..1]);
        let stray = beyond.filter(|range| range.bytes != 0);
        let vacant = self.vacant[..self.vacancies].iter();
        let taken = vacant.filter(|&&place| self.ranges[place as usize].bytes != 0);
        let places = self.used + self.vacancies + 1 == self.top.max(1);
        wrong.count()
            + stray.count()
            + taken.count()
            + usize::from(bytes != self.bytes || self.used != self.all().count())
            + usize::from(!places)
            + self.index.validate(&self.ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PAGE;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec::Vec;

    /// Pages of the addresses that blocks are taken from, beginning at page `FIRST`.
    const PAGES: usize = 4096;
    const FIRST: usize = 1 << 20;

    #[derive(Clone, Debug)]
    enum Op {
        Put {
            at: usize,
            pages: usize,
            clean: bool,
        },
        Fit {
            pages: usize,
            align: usize,
        },
        Largest {
            from: usize,
            to: usize,
        },
        Behind {
            at: usize,
            pages: usize,
        },
        DropOldest {
            pages: usize,
        },
        DropOlder {
            ago: u64,
        },
        Fork,
    }

    fn op() -> impl Strategy<Value = Op> {
        let pages = || prop_oneof![1usize..4, 1usize..40, 60usize..200];
        let at = 0..PAGES;
        prop_oneof![
            8 => (at.clone(), pages(), 0..5).prop_map(|(at, pages, kind)| Op::Put {
                at,
                pages,
                clean: kind == 0
            }),
            5 => (pages(), 0..5u32).prop_map(|(pages, shift)| Op::Fit {
                pages,
                align: PAGE << (shift.saturating_sub(2))
            }),
            1 => (pages(), pages()).prop_map(|(from, more)| Op::Largest { from, to: from + more }),
            2 => (at, pages()).prop_map(|(at, pages)| Op::Behind { at, pages }),
            1 => pages().prop_map(|pages| Op::DropOldest { pages }),
            1 => (0..60u64).prop_map(|ago| Op::DropOlder { ago }),
            1 => Just(Op::Fork),
        ]
    }

    /// The same as a plain list, searched from end to end.
    #[derive(Default)]
    struct Model {
        ranges: Vec<Range>,
    }

    fn key(range: &Range) -> (usize, usize, u64, bool) {
        (range.address, range.bytes, range.since, range.clean)
    }

    impl Model {
        fn is_kept(&self, address: usize, bytes: usize) -> bool {
            let meets = |range: &Range| range.address < address + bytes && address < range.end();
            self.ranges.iter().any(meets)
        }

        fn put(&mut self, mut range: Range) {
            while let Some(at) = self.ranges.iter().position(|other| {
                other.clean == range.clean
                    && (other.end() == range.address || range.end() == other.address)
            }) {
                let other = self.ranges.swap_remove(at);
                range.address = range.address.min(other.address);
                range.bytes += other.bytes;
                range.since = range.since.max(other.since);
            }
            self.ranges.push(range);
        }

        /// Takes out what of any range lies within `block`, all of which is kept.
        fn take(&mut self, block: Block) {
            let mut left = block.bytes;
            for range in core::mem::take(&mut self.ranges) {
                let from = range.address.max(block.address);
                let to = range.end().min(block.end());
                left -= to.saturating_sub(from);
                if from >= to {
                    self.ranges.push(range);
                    continue;
                }
                for (address, end) in [(range.address, from), (to, range.end())] {
                    if address < end {
                        self.ranges.push(Range {
                            address,
                            bytes: end - address,
                            ..range
                        });
                    }
                }
            }
            assert_eq!(left, 0, "{block:?} was not kept");
        }

        fn oldest(&self) -> Option<Range> {
            self.ranges.iter().copied().min_by_key(|range| range.since)
        }

        fn sorted(&self) -> Vec<(usize, usize, u64, bool)> {
            let mut all: Vec<_> = self.ranges.iter().map(key).collect();
            all.sort_unstable();
            all
        }
    }

    fn run(cache: &mut RangeCache, model: &mut Model, op: &Op, now: u64) {
        match *op {
            Op::Put { at, pages, clean } => {
                let (address, bytes) = ((FIRST + at) * PAGE, pages * PAGE);
                if model.is_kept(address, bytes) {
                    return;
                }
                let range = Range {
                    address,
                    bytes,
                    since: now,
                    clean,
                };
                if let Some(replaced) = cache.put(range) {
                    assert_eq!(
                        model.oldest().map(|range| key(&range)),
                        Some(key(&replaced))
                    );
                    model.take(replaced.block());
                }
                model.put(range);
            }
            Op::Fit { pages, align } => {
                let bytes = pages * PAGE;
                let fits = |range: &&Range| {
                    !range.clean && range.bytes >= bytes && range.address.is_multiple_of(align)
                };
                let least = model
                    .ranges
                    .iter()
                    .filter(fits)
                    .map(|range| range.bytes)
                    .min();
                let all = |block: &Block| {
                    let from = |range: &&Range| range.address == block.address;
                    model
                        .ranges
                        .iter()
                        .filter(fits)
                        .find(from)
                        .map(|range| range.bytes)
                };
                let Some(block) = cache.fit(bytes, align) else {
                    assert!(least.is_none_or(|_| cache.bytes < bytes));
                    return;
                };
                let (all, least) = (
                    all(&block).expect("front of a range that fits"),
                    least.unwrap(),
                );
                assert!(all <= least + least / 32, "{all} {least}");
                let whole = all - bytes < bytes / 16;
                assert_eq!(block.bytes, if whole { all } else { bytes });
                model.take(block);
            }
            Op::Largest { from, to } => {
                let sizes = from * PAGE..to * PAGE;
                let dirty = model.ranges.iter().filter(|range| !range.clean);
                let largest = dirty.map(|range| range.bytes).max();
                let taken = cache.take_largest(sizes.clone());
                let wanted = largest.filter(|bytes| sizes.contains(bytes));
                assert_eq!(taken.map(|range| range.bytes), wanted);
                if let Some(range) = taken {
                    model.take(range.block());
                }
            }
            Op::Behind { at, pages } => {
                // Half of the time behind some range's first byte, where there is something to find.
                let begins = model.ranges.get(at / 2).map(|range| range.address);
                let end = begins.unwrap_or((FIRST + at) * PAGE);
                let block = Block {
                    address: end,
                    bytes: pages * PAGE,
                };
                let begins_there = model.ranges.iter().any(|range| range.address == end);
                let kept = |page| model.is_kept(end + page * PAGE, PAGE);
                let all = begins_there && (0..pages).all(kept);
                assert_eq!(cache.take_behind(end, block.bytes), all);
                if all {
                    model.take(block);
                }
            }
            Op::DropOldest { pages } => {
                let dirty = model.ranges.iter().filter(|range| !range.clean);
                let oldest = dirty.copied().min_by_key(|range| range.since);
                let dropped = cache.drop_oldest(pages * PAGE);
                assert_eq!(
                    dropped.map(|range| (range.end(), range.bytes)),
                    oldest.map(|range| (range.end(), range.bytes.min(pages * PAGE)))
                );
                if let Some(range) = dropped {
                    model.take(range.block());
                }
            }
            Op::DropOlder { ago } => {
                let then = now.saturating_sub(ago);
                let oldest = model.oldest().filter(|range| range.since <= then);
                let dropped = cache.drop_older(then);
                assert_eq!(dropped.as_ref().map(key), oldest.as_ref().map(key));
                if let Some(range) = dropped {
                    model.take(range.block());
                }
            }
            Op::Fork => cache.rebuild(),
        }
    }

    fn compare(ops: &[Op]) {
        let mut cache = Box::new(RangeCache::new());
        let mut model = Model::default();
        for (now, op) in ops.iter().enumerate() {
            run(&mut cache, &mut model, op, now as u64);
            if now % 16 != 0 && now + 1 != ops.len() {
                continue;
            }
            assert_eq!(cache.validate(), 0, "{op:?}");
            let mut kept: Vec<_> = cache.all().map(|(_, range)| key(range)).collect();
            kept.sort_unstable();
            assert_eq!(kept, model.sorted(), "{op:?}");
        }
        assert_eq!(
            cache.all_bytes(),
            cache.all().map(|(_, range)| range.bytes).sum()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_index_finds_what_a_search_through_a_plain_list_finds(ops in vec(op(), 1..120)) {
            compare(&ops);
        }
    }

    #[test]
    fn when_all_places_are_used_the_oldest_range_makes_place_and_the_index_stays_whole() {
        let apart = |n: usize| Op::Put {
            at: 2 * n,
            pages: 1,
            clean: n.is_multiple_of(7),
        };
        let mut ops: Vec<Op> = (0..PLACES + 40).map(apart).collect();
        ops.extend([
            Op::Fork,
            Op::Fit {
                pages: 1,
                align: PAGE,
            },
        ]);
        ops.extend((0..40).map(|n| Op::Put {
            at: 2 * n + 1,
            pages: 1,
            clean: false,
        }));
        ops.extend((0..PLACES as u64).map(|ago| Op::DropOlder { ago }));
        compare(&ops);
    }

    /// A fork that finds a range of which only the address was written, or none of it.
    #[test]
    fn a_fork_child_makes_the_index_anew_from_whatever_the_ranges_say() {
        let mut cache = Box::new(RangeCache::new());
        for n in 0..8 {
            let block = Block {
                address: (FIRST + 2 * n) * PAGE,
                bytes: PAGE,
            };
            assert!(cache.put(Range::freed(block, n as u64)).is_none());
        }
        // Another thread was taking these out, and had come to the index of the second.
        cache.ranges[3].bytes = 0;
        cache.ranges[5].bytes = 0;
        let fifth = cache.ranges[5];
        cache.index.remove(6, &cache.ranges[6].clone());
        cache.ranges[6].bytes = 0;
        cache.bytes += fifth.bytes;
        cache.rebuild();
        assert_eq!(cache.validate(), 0);
        assert_eq!((cache.used, cache.bytes), (5, 5 * PAGE));
    }
}
