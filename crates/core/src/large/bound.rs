//! How many freed bytes are kept.
//!
//! What is kept makes no heap much larger than it was a moment ago: at most the bytes by which less is live than
//! lately, a sixteenth of what was live, and `SLACK`. And it is little until the program takes again what was unmapped a
//! moment ago, unless a thread in the background sees to ticks: an idle process makes no further call, and would keep it
//! for good. What no block needed between two ticks goes back to the system.
//!
//! Under the lock, and without a system call: says what is to go, and `give_back` unmaps it.

use super::range_index::Range;
use super::reuse::KEPT_MAX;
use super::{Block, Inner};

/// Bytes kept for reuse beyond those by which less is live than lately.
const SLACK: usize = 16 << 20;
/// Bytes kept at first, however few are live.
pub(super) const SPARE: usize = 2 << 20;
/// The part of the live bytes that may be kept besides.
const SPARE_PART: usize = 8;
/// The fewest bytes that are unmapped of a range at a time, or all that it has.
pub(super) const SHED_LEAST: usize = 1 << 20;
/// Bounds are multiples of this, and so of every system's OS page, in bytes.
pub(super) const GRAIN: usize = 64 << 10;

impl Inner {
    /// Bytes that may be kept: what is live and kept is at most what was live lately, a sixteenth more, and a slack.
    pub(super) fn bound(&self) -> usize {
        let lately = self.most[0].max(self.most[1]);
        let bound = match self.apart {
            true => lately - self.live_bytes,
            false => lately - self.live_bytes + SLACK + lately / 16 / GRAIN * GRAIN,
        };
        if self.attended {
            return bound;
        }
        let spare = self.spare.bound().max(self.live_bytes / SPARE_PART) / GRAIN * GRAIN;
        bound.min(spare)
    }

    /// Bytes kept beyond the bound.
    pub(super) fn surplus(&self) -> usize {
        self.kept.bytes().saturating_sub(self.bound())
    }

    /// Takes out what is to be unmapped since too much is kept.
    pub(super) fn shed(&mut self, now: u64) -> Option<Range> {
        let surplus = self.surplus();
        if surplus == 0 {
            return None;
        }
        self.settle();
        // Whole blocks mostly: a part that could not be unmapped would serve nobody.
        let dropped = self.kept.drop_oldest(surplus.max(SHED_LEAST));
        self.spare
            .give(dropped.map_or(0, |range| range.dirty_bytes()), now);
        dropped
    }

    /// Bytes kept beyond `bound` and a part of the live ones.
    pub(super) fn excess_over(&self, bound: usize) -> usize {
        let bound = bound.max(self.live_bytes / SPARE_PART);
        self.kept.bytes().saturating_sub(bound)
    }

    /// Something else in the process grew by `bytes` bytes at `now`: how many kept ones are to go back for it.
    pub(super) fn gives_way(&mut self, bytes: usize, now: u64) -> usize {
        self.pressed += bytes;
        if self.pressed < SHED_LEAST {
            return 0;
        }
        let pressed = core::mem::take(&mut self.pressed);
        self.way.learn(now);
        let excess = self.excess_over(self.way.bound()).min(pressed);
        if excess > 0 {
            self.way.give(excess, now);
        }
        excess
    }

    /// Works out how many bytes may come to rest before the bound is reached. Says how many are kept beyond it.
    pub(super) fn limit_rest(&mut self) -> usize {
        let (kept, bound) = (self.kept.bytes(), self.bound());
        // With each byte that is freed the bound may fall by a part of it.
        self.allowance = bound.saturating_sub(kept) / (SPARE_PART + 1) * SPARE_PART;
        kept.saturating_sub(bound)
    }

    /// `more` bytes were mapped for the live `block`, which a kept range might have had.
    pub(super) fn miss(&mut self, block: Block, more: usize) {
        if block.bytes <= KEPT_MAX {
            self.spare.take(more);
            self.way.take(more);
        }
    }

    /// Whether the next tick is due.
    pub(super) fn is_due(&self, now: u64) -> bool {
        now.saturating_sub(self.last_tick) >= self.interval
    }

    /// Bytes that were kept all the time since the last tick. 0 if that was just now.
    pub(super) fn tick(&mut self, now: u64) -> usize {
        if !self.is_due(now) {
            return 0;
        }
        // Each tick leaves nothing at rest, so what rests was freed since the last one.
        let since = &mut self.kept.resting.since;
        *since = self.last_tick.max(*since);
        self.last_tick = now;
        self.most = [self.live_bytes, self.most[0]];
        self.settle();
        let idle = self.kept.idle();
        self.spare.quieten(idle);
        idle
    }
}
