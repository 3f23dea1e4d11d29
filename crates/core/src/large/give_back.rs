//! Giving back: unmaps what is kept beyond the bound, for too long, or where something else in the process grows.
//!
//! A range is out of everybody's reach before it is unmapped, and no lock is held over the system call. Does not know how
//! much may be kept (see `bound`).

use super::bound::{GRAIN, SHED_LEAST, SPARE};
use super::mappings::unmapped;
use super::range_index::Range;
use super::table::{Record, STRAY};
use super::{Inner, Large};
use crate::counters;
use crate::meta::Supply;
use crate::os::Vm;
use core::ptr::NonNull;

/// The most strays unmapped at a tick.
const STRAYS_A_TICK: usize = 64;
/// Times the interval between two ticks that a freed mapping is kept at most.
const KEPT_INTERVALS: u64 = 2;

impl Large {
    /// Unmaps what is kept beyond its bound.
    pub(super) fn shed<O: Vm>(&self, supply: Supply<O>, now: u64) {
        self.drop_while(supply, |inner| inner.shed(now));
    }

    /// Gives back what was kept too long, and, an interval after the last, what was not needed in between.
    pub fn decay<O: Vm>(&self, supply: Supply<O>, now: u64) {
        let (mut idle, then) = {
            let inner = &mut *self.inner.lock();
            let then = now.checked_sub(KEPT_INTERVALS * inner.interval);
            (inner.tick(now), then)
        };
        if let Some(then) = then {
            self.drop_while(supply, |inner| {
                let dropped = inner.kept.drop_older(then)?;
                idle = idle.saturating_sub(dropped.dirty_bytes());
                Some(dropped)
            });
        }
        self.drop_while(supply, |inner| {
            if idle == 0 {
                return None;
            }
            let dropped = inner.kept.drop_oldest(idle)?;
            idle = idle.saturating_sub(dropped.dirty_bytes());
            Some(dropped)
        });
        self.unmap_strays(supply, STRAYS_A_TICK);
    }

    /// Something else in the process grew by `bytes` bytes: as many kept ones go back, unless the program took such
    /// bytes again soon after an earlier time.
    pub fn give_way<O: Vm>(&self, supply: Supply<O>, bytes: usize) {
        let now = supply.os.clock();
        let excess = self.inner.lock().gives_way(bytes, now);
        self.give_oldest(supply, excess);
    }

    /// A thread that freed `bytes` bytes has ended, and will not take them again: as many kept ones go back, but for the
    /// few that stay whatever is learnt.
    pub fn give_back_at_end<O: Vm>(&self, supply: Supply<O>, bytes: usize) {
        let excess = self.inner.lock().excess_over(SPARE).min(bytes);
        self.give_oldest(supply, excess);
    }

    /// Gives `excess` kept bytes back, or a few more: those freed longest ago.
    fn give_oldest<O: Vm>(&self, supply: Supply<O>, mut excess: usize) {
        self.drop_while(supply, |inner| {
            if excess == 0 {
                return None;
            }
            let bytes = excess.next_multiple_of(GRAIN).max(SHED_LEAST);
            inner.settle();
            let dropped = inner.kept.drop_oldest(bytes)?;
            excess = excess.saturating_sub(dropped.dirty_bytes());
            Some(dropped)
        });
    }

    /// Gives back all that is kept.
    pub fn give_back<O: Vm>(&self, supply: Supply<O>) {
        self.drop_while(supply, |inner| {
            inner.settle();
            inner.kept.drop_older(u64::MAX)
        });
        self.unmap_strays(supply, usize::MAX);
    }

    pub(super) fn drop_while<O: Vm>(
        &self,
        supply: Supply<O>,
        mut next: impl FnMut(&mut Inner) -> Option<Range>,
    ) {
        loop {
            let dropped = next(&mut self.inner.lock());
            if !self.unmap_dropped(supply, dropped) {
                return;
            }
        }
    }

    /// Unmaps a range that nobody knows any more, if there is one. Where the kernel refuses, its pages are dropped and
    /// the range is noted as a stray. Says whether its memory went back.
    pub(super) fn unmap_dropped<O: Vm>(&self, supply: Supply<O>, dropped: Option<Range>) -> bool {
        let Some(range) = dropped else {
            return false;
        };
        let block = range.block();
        if unmapped(supply, block) {
            return true;
        }
        let start = NonNull::new(block.address as *mut u8);
        // SAFETY: the range is in no record and not kept, and it was freed.
        let bare = start.is_some_and(|start| unsafe { supply.os.discard(start, block.bytes) });
        let mut inner = self.inner.lock();
        if bare && inner.note_stray(Record::of(block, STRAY)) {
            counters::add(&supply.meta.counters().purged, range.dirty_bytes() as u64);
            return true;
        }
        if !inner.keep_or_note(range) {
            // Its addresses are lost, but not its memory.
            supply.meta.budget.refund(block.bytes);
        }
        false
    }

    /// Unmaps strays, at most `most`, until one cannot be.
    fn unmap_strays<O: Vm>(&self, supply: Supply<O>, most: usize) {
        for _ in 0..most {
            let Some(stray) = self.inner.lock().take_stray() else {
                return;
            };
            let done = unmapped(supply, stray.block());
            self.inner.lock().end_stray(stray, done);
            if !done {
                return;
            }
        }
    }
}
