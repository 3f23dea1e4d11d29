//! Freed blocks, and what later ones have of them.
//!
//! ```text
//!   free   live --> at rest, in its record --> range, joined with its neighbours
//!   map    live <-- at rest, of that size  <-- front of one at rest, front of a range, front of a stray
//! ```
//!
//! Under the lock, and without a system call. Does not know how much may be kept (see `bound`).

use super::range_index::Range;
use super::table::AT_REST;
use super::{Block, Found, Inner};
use crate::units::PAGE;
use core::sync::atomic::{compiler_fence, Ordering::Release};

/// Freed blocks rest beside so many live ones. Among few, joining what is freed at once saves memory.
pub(super) const RESTS_AMONG: usize = 48;
/// Bytes that come to rest between two looks at the clock.
const LOOK_EVERY: usize = 4 << 20;
/// The largest mapping kept for reuse, in bytes.
pub(super) const KEPT_MAX: usize = 64 << 20;

impl Inner {
    /// Takes the record of a live block at `address` out and keeps the block's mapping. What it found, and what is to be
    /// unmapped instead.
    #[inline]
    pub(super) fn free(&mut self, address: usize, now: u64) -> (Found, Option<Range>) {
        self.spare.learn(now);
        self.kept.resting.since = now;
        let rests = self.rests && self.live_count() >= RESTS_AMONG;
        (self.unseen, self.allowance) = (if rests { LOOK_EVERY } else { 0 }, usize::MAX);
        if let Some(bytes) = self.lay_to_rest(address) {
            return (Found::Live(Block { address, bytes }), None);
        }
        let Some(record) = self.table.remove_live(address) else {
            return (self.find(address), None);
        };
        self.live_bytes -= record.bytes;
        (Found::Live(record.block()), self.put(record.block(), now))
    }

    /// The live block at `address` comes to rest, if it may. Its bytes.
    #[inline(always)]
    pub(super) fn lay_to_rest(&mut self, address: usize) -> Option<usize> {
        let record = self.table.at(address)?;
        let bytes = record.bytes;
        let may = self.kept.takes_to_rest(bytes) && bytes <= self.unseen.min(self.allowance);
        if record.stray != 0 || !may {
            return None;
        }
        self.kept.resting.push(record);
        self.live_bytes -= bytes;
        self.unseen -= bytes;
        self.allowance -= bytes;
        Some(bytes)
    }

    pub(super) fn put(&mut self, block: Block, now: u64) -> Option<Range> {
        let range = Range::freed(block, now);
        if block.bytes > KEPT_MAX || self.apart {
            return Some(range);
        }
        self.kept.put(range)
    }

    /// A block at rest of `bytes` bytes, or hardly more, lives again.
    #[inline(always)]
    pub(super) fn wake(&mut self, bytes: usize) -> Option<Block> {
        let resting = &mut self.kept.resting;
        let size = resting.fit(bytes)?;
        let record = resting.pop(&mut self.table, size)?;
        record.stray = 0;
        let block = record.block();
        self.kept.note_low();
        self.count(block);
        self.allowance += block.bytes;
        Some(block)
    }

    /// The front of a longer block at rest lives again. What is behind it is kept as a range.
    fn wake_front(&mut self, bytes: usize) -> Option<Block> {
        let resting = &mut self.kept.resting;
        let size = resting.fit_longer(bytes)?;
        let record = resting.pop(&mut self.table, size)?;
        let whole = record.block();
        // A fork in between loses what is behind, and no byte has two records.
        record.bytes = bytes;
        compiler_fence(Release);
        record.stray = 0;
        let block = Block { bytes, ..whole };
        if whole.bytes > bytes {
            let since = self.kept.resting.since;
            let replaced = self.kept.put(Range::freed(whole.behind(bytes), since));
            debug_assert!(replaced.is_none(), "the block at rest had a place");
        }
        self.kept.note_low();
        self.count(block);
        self.allowance += bytes;
        Some(block)
    }

    /// Freed bytes made a live block, where no block at rest serves as it is.
    pub(super) fn reuse(&mut self, bytes: usize, align: usize) -> Option<Block> {
        if !self.table.has_room() {
            return None;
        }
        if self.apart {
            let stray = self.fit_stray(bytes, align)?;
            return self.begin(stray).then_some(stray);
        }
        let mut kept = self.kept.fit(bytes, align);
        if kept.is_none() && self.kept.resting.count > 0 {
            let front = (align <= PAGE).then(|| self.wake_front(bytes)).flatten();
            if front.is_some() {
                return front;
            }
            self.settle();
            kept = self.kept.fit(bytes, align);
        }
        let block = kept.or_else(|| self.fit_stray(bytes, align))?;
        self.begin(block).then_some(block)
    }

    /// Takes the `more` bytes from `end` on, if all of them are kept.
    pub(super) fn take_behind(&mut self, end: usize, more: usize) -> bool {
        if self.rest_behind(end, more) {
            self.settle();
        }
        self.kept.take_behind(end, more)
    }

    /// Whether the `more` bytes from `end` on are kept and blocks at rest are among them.
    fn rest_behind(&mut self, end: usize, more: usize) -> bool {
        let (mut at, mut rests) = (end, false);
        while at < end + more {
            let resting = self.table.at(at).filter(|record| record.stray == AT_REST);
            rests |= resting.is_some();
            let bytes = resting.map(|record| record.bytes);
            match bytes.or_else(|| self.kept.length_at(at)) {
                Some(bytes) => at += bytes,
                None => return false,
            }
        }
        rests
    }

    /// Blocks at rest become ranges as others are.
    pub(super) fn settle(&mut self) {
        self.kept.settle(&mut self.table);
        self.unseen = 0;
    }
}
