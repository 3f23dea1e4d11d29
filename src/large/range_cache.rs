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
//! A fork may fall between any two stores: a range is taken out before it is put elsewhere, and its
//! length is written last, so that a child may lose one but never finds two over the same bytes.

use super::Block;
use crate::meta::{Elsewhere, Fact, Header};
use core::mem::{offset_of, size_of};
use core::sync::atomic::{compiler_fence, Ordering::Release};

/// The most ranges kept.
const PLACES: usize = 512;

/// A range that is or was kept.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Range {
    address: usize,
    /// 0: an unused place.
    bytes: usize,
    /// When it was freed, the latest part of it.
    since: u64,
    clean: bool,
}

impl Range {
    const NONE: Range = Range {
        address: 0,
        bytes: 0,
        since: 0,
        clean: false,
    };

    /// What was freed just now.
    pub(super) const fn freed(block: Block, since: u64) -> Range {
        Range {
            address: block.address,
            bytes: block.bytes,
            since,
            clean: false,
        }
    }

    /// Room behind a block that was moved just now.
    pub(super) const fn room(block: Block, since: u64) -> Range {
        Range {
            clean: true,
            ..Range::freed(block, since)
        }
    }

    /// Bytes that count: those that may have been touched.
    pub(super) const fn dirty_bytes(&self) -> usize {
        if self.clean {
            0
        } else {
            self.bytes
        }
    }

    const fn end(&self) -> usize {
        self.address + self.bytes
    }

    pub(super) const fn block(&self) -> Block {
        Block {
            address: self.address,
            bytes: self.bytes,
        }
    }
}

/// The ranges kept, in no order; those in use stand before those that are not.
pub(super) struct RangeCache {
    ranges: [Range; PLACES],
    used: usize,
    /// Bytes of the ranges that are not clean.
    pub(super) bytes: usize,
    /// The least that was left of them by a block that took some, since the last [`RangeCache::idle`].
    low: usize,
}

impl RangeCache {
    pub(super) const fn new() -> RangeCache {
        RangeCache {
            ranges: [Range::NONE; PLACES],
            used: 0,
            bytes: 0,
            low: 0,
        }
    }

    fn all(&self) -> &[Range] {
        &self.ranges[..self.used]
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

    fn position(&self, which: impl Fn(&Range) -> bool) -> Option<usize> {
        self.all().iter().position(which)
    }

    /// Keeps `range`, as one with its neighbours of the same kind. What had to make place for it, if
    /// anything, is to be unmapped.
    pub(super) fn put(&mut self, mut range: Range) -> Option<Range> {
        let touches = |range: &Range, other: &Range| {
            other.clean == range.clean
                && (other.end() == range.address || range.end() == other.address)
        };
        while let Some(index) = self.position(|other| touches(&range, other)) {
            let other = self.take(index);
            range.address = range.address.min(other.address);
            range.bytes += other.bytes;
            range.since = range.since.max(other.since);
        }
        let replaced = (self.used == PLACES).then(|| self.take(self.oldest(|_| true).unwrap_or(0)));
        self.add(range);
        replaced
    }

    fn add(&mut self, range: Range) {
        let place = &mut self.ranges[self.used];
        *place = Range { bytes: 0, ..range };
        compiler_fence(Release);
        place.bytes = range.bytes;
        self.used += 1;
        self.bytes += range.dirty_bytes();
    }

    fn take(&mut self, index: usize) -> Range {
        let range = self.ranges[index];
        self.used -= 1;
        let last = self.ranges[self.used];
        self.ranges[index].bytes = 0;
        self.ranges[self.used].bytes = 0;
        compiler_fence(Release);
        if index != self.used {
            self.ranges[index] = last;
        }
        self.bytes -= range.dirty_bytes();
        range
    }

    /// Takes out a range and puts back all of it but `bytes` at the front.
    fn cut(&mut self, index: usize, bytes: usize) -> Block {
        let range = self.take(index);
        if bytes < range.bytes {
            self.add(Range {
                address: range.address + bytes,
                bytes: range.bytes - bytes,
                ..range
            });
        }
        self.low = self.low.min(self.bytes);
        Block {
            bytes,
            ..range.block()
        }
    }

    /// `bytes` bytes at a multiple of `align`: the front of the smallest range that has them, or all of
    /// it where little more is left.
    pub(super) fn fit(&mut self, bytes: usize, align: usize) -> Option<Block> {
        if self.bytes < bytes {
            return None;
        }
        let fits = |range: &Range| {
            !range.clean && range.bytes >= bytes && range.address & (align - 1) == 0
        };
        let fitting = self
            .all()
            .iter()
            .enumerate()
            .filter(|(_, range)| fits(range));
        let (index, best) = fitting.min_by_key(|(_, range)| range.bytes)?;
        let rest = best.bytes - bytes;
        let whole = rest < bytes / 16;
        Some(self.cut(index, if whole { bytes + rest } else { bytes }))
    }

    /// Takes out the largest range, if it has so many bytes.
    pub(super) fn take_largest(&mut self, sizes: core::ops::Range<usize>) -> Option<Range> {
        let ranges = self
            .all()
            .iter()
            .enumerate()
            .filter(|(_, range)| !range.clean);
        let (index, largest) = ranges.max_by_key(|(_, range)| range.bytes)?;
        if !sizes.contains(&largest.bytes) {
            return None;
        }
        let range = self.ranges[index];
        self.cut(index, range.bytes);
        Some(range)
    }

    /// Takes the `more` bytes from `end` on, if all of them are kept.
    pub(super) fn take_behind(&mut self, end: usize, more: usize) -> bool {
        let starts = |at: usize| move |range: &Range| range.address == at;
        let mut at = end;
        while at < end + more {
            match self.position(starts(at)) {
                Some(index) => at = self.ranges[index].end(),
                None => return false,
            }
        }
        at = end;
        while let Some(index) = self.position(starts(at)).filter(|_| at < end + more) {
            let part = self.ranges[index].bytes.min(end + more - at);
            at += self.cut(index, part).bytes;
        }
        true
    }

    fn oldest(&self, which: impl Fn(&Range) -> bool) -> Option<usize> {
        let ranges = self
            .all()
            .iter()
            .enumerate()
            .filter(|(_, range)| which(range));
        ranges
            .min_by_key(|(_, range)| range.since)
            .map(|(index, _)| index)
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
        let index = self.oldest(|range| range.since <= then)?;
        Some(self.take(index))
    }

    /// The range of freed bytes that holds `address`.
    pub(super) fn holding(&self, address: usize) -> Option<Block> {
        let holds =
            |range: &Range| !range.clean && range.address <= address && address < range.end();
        self.position(holds).map(|index| self.ranges[index].block())
    }

    /// Bytes that no block took since this was last asked.
    pub(super) fn idle(&mut self) -> usize {
        let low = core::mem::replace(&mut self.low, self.bytes);
        low.min(self.bytes)
    }

    /// Bytes of all ranges, clean ones among them.
    pub(super) fn all_bytes(&self) -> usize {
        self.all().iter().map(|range| range.bytes).sum()
    }

    /// Whether there is place for one more range.
    pub(super) fn has_place(&self) -> bool {
        self.used < PLACES
    }

    /// Whether any byte of `block` is kept.
    pub(super) fn overlaps(&self, block: &Block) -> bool {
        let overlaps = |range: &Range| range.address < block.end() && block.address < range.end();
        self.position(overlaps).is_some()
    }

    /// In a fork child: makes the sums agree with the ranges, of which one may be half written.
    pub(super) fn rebuild(&mut self) {
        let found = core::mem::replace(self, RangeCache::new());
        for range in found.ranges.iter().filter(|range| range.bytes != 0) {
            self.add(*range);
        }
        self.low = self.bytes;
    }

    /// Number of broken invariants.
    pub(super) fn validate(&self) -> usize {
        let bytes: usize = self.all().iter().map(Range::dirty_bytes).sum();
        let overlaps = |range: &Range, other: &Range| {
            range.address < other.end() && other.address < range.end()
        };
        let overlapping = |range| {
            self.all()
                .iter()
                .filter(|&other| overlaps(range, other))
                .count()
        };
        let wrong = self.all().iter().filter(|range| overlapping(range) != 1);
        let spare = self.ranges[self.used..]
            .iter()
            .filter(|range| range.bytes != 0);
        wrong.count() + spare.count() + usize::from(bytes != self.bytes)
    }
}
