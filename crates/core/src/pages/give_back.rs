//! Giving back: the heap's end by a negative sbrk, dirty pages inside by discarding.

use super::policy::Policy;
use super::window::Kind;
use super::Pages;
use crate::counters;
use crate::free_runs::Cleanness;
use crate::meta::Supply;
use crate::os::{Huge, Os};
use crate::slab::SlabPtr;
use crate::sync::Ordering::Relaxed;
use crate::units::{PageNo, PAGE};
use core::ops::Range;
use core::ptr::NonNull;

/// The most pages discarded by one call, and the most calls in one tick.
const PURGE_PAGES: usize = 1024;
const PURGE_CALLS: usize = 512;

/// What was not needed for an interval.
struct Unused {
    /// Dirty free pages.
    pages: usize,
    /// Nor was the break's end: in all that time nothing was released, and it did not grow.
    end: bool,
}

impl Pages {
    /// Gives the free pages at the end of the break back but for `keep`, by a negative sbrk. Where the
    /// break is not ours any more, nothing happens.
    pub fn trim<O: Os>(&self, supply: Supply<O>, keep: usize) {
        let pages = self.cut_tail(supply, keep);
        if pages > 0 {
            let now = supply.os.clock();
            self.inner.lock().policy.was_trimmed(pages, now);
        }
    }

    /// As [`Pages::trim`], but the threshold learns nothing from it. Says how many pages went.
    fn cut_tail<O: Os>(&self, supply: Supply<O>, keep: usize) -> usize {
        let Some(_mover) = self.break_lock.try_lock() else {
            return 0;
        };
        if self.break_is_held() {
            return 0;
        }
        let os_pages = supply.meta.os_page() / PAGE;
        let Some((page, n)) = self.claim_tail(keep, os_pages) else {
            return 0;
        };
        let window = self.window(0);
        let end = window.address(page.plus(n));
        let moved =
            supply.os.break_end() == Some(end) && self.move_break_down(supply.os, end, n * PAGE);
        let inner = &mut *self.inner.lock();
        if moved {
            counters::add(&supply.meta.counters().break_moves, 1);
            counters::subtract(&supply.meta.counters().break_bytes, (n * PAGE) as u64);
            supply.meta.budget.refund(n * PAGE);
            let end = inner.windows[0].len + n;
            inner.policy.came_down_from(end);
            return n;
        }
        inner.windows[0].len += n;
        inner.give(page, n, Cleanness::Dirty);
        // A foreign block behind: the tail will never move the break, so it is no tail.
        inner.windows[0].tail = inner.windows[0].end();
        0
    }

    /// Moves the break from `end` down. Where somebody moved it in between, puts it back at once.
    fn move_break_down<O: Os>(&self, os: &O, end: usize, bytes: usize) -> bool {
        match os.move_break(-(bytes as isize)) {
            Some(old) if old == end => true,
            Some(_) => {
                os.move_break(bytes as isize);
                false
            }
            None => false,
        }
    }

    /// Takes the break window's tail but for `keep` pages out of use, before the break moves.
    pub(super) fn claim_tail(&self, keep: usize, os_pages: usize) -> Option<(PageNo, usize)> {
        let inner = &mut *self.inner.lock();
        let window = &mut inner.windows[0];
        if inner.used == 0 || window.kind != Kind::Break || window.tail_pages() <= keep {
            return None;
        }
        let n = (window.tail_pages() - keep) / os_pages * os_pages;
        if n == 0 {
            return None;
        }
        window.len -= n;
        let page = window.end();
        inner.runs.take(page, n);
        Some((page, n))
    }

    /// From now on as many free pages at the end are given back at once. [`usize::MAX`] means none ever are, but when
    /// asked for.
    pub fn set_trim_threshold(&self, pages: usize) {
        let policy = &mut self.inner.lock().policy;
        policy.set_threshold(pages);
    }

    /// Bytes that the break and the mapped windows hold now, and how many of them a trim could give back.
    pub fn held<O: Os>(&self, supply: Supply<O>) -> (usize, usize) {
        let end = supply.os.break_end();
        let inner = &mut *self.inner.lock();
        let windows = &inner.windows[..inner.used];
        let mapped = windows.iter().filter(|window| window.kind == Kind::Mapped);
        let mapped = mapped.map(|window| window.len * PAGE).sum::<usize>();
        let moved = counters::read(&supply.meta.counters().break_bytes);
        let tail = windows
            .first()
            .filter(|first| first.kind == Kind::Break && end == Some(first.address(first.end())));
        let top = tail.map_or(0, |first| first.tail_pages() * PAGE);
        (moved + mapped, top)
    }

    /// Free runs of pages in the break and the mapped windows.
    pub fn free_runs(&self) -> usize {
        let inner = &mut *self.inner.lock();
        let windows = &inner.windows[..inner.used];
        windows
            .iter()
            .map(|window| inner.runs.count_runs(window.pages()))
            .sum()
    }

    /// Free pages.
    pub fn free_pages(&self) -> usize {
        self.inner.lock().runs.free_pages()
    }

    /// Bytes of free pages that may be resident.
    pub fn idle_bytes(&self) -> usize {
        let inner = &mut *self.inner.lock();
        (inner.runs.dirty_pages() + inner.kept.warm_pages()) * PAGE
    }

    /// Milliseconds since a slab was last released.
    pub fn quiet_for(&self, now: u64) -> u64 {
        now.saturating_sub(self.inner.lock().policy.last_release)
    }

    /// Gives back what lay unused for an interval: the heap's end, and dirty free pages inside. Called from slow paths,
    /// with how long no slab had been released before the caller's own decay. Does nothing if called again too soon.
    pub fn tick<O: Os>(&self, supply: Supply<O>, now: u64, quiet: u64) {
        let Some(_ticking) = self.ticking.try_lock() else {
            return;
        };
        let Some(unused) = self.unused_since_tick(now, quiet) else {
            return;
        };
        if self.is_keeping() {
            self.discard_due(supply);
        }
        let before = self.window(0).tail_pages();
        let pad = self.policy().pad();
        // What nobody ever wrote to counts as unused only where nothing at all was used.
        let spare = if unused.end { before } else { unused.pages };
        if before > pad && unused.pages > 0 {
            self.trim(supply, pad.max(before.saturating_sub(spare)));
        }
        let trimmed = before.saturating_sub(self.window(0).tail_pages());
        let rest = if unused.end { 0 } else { trimmed };
        self.purge(supply, unused.pages.saturating_sub(rest));
    }

    /// Bytes by which the heap grew since this was last asked.
    pub fn take_grown(&self) -> usize {
        match self.grown.load(Relaxed) {
            0 => 0,
            _ => {
                let _inner = self.inner.lock();
                let grown = self.grown.load(Relaxed);
                self.grown.store(0, Relaxed);
                grown
            }
        }
    }

    /// Whether all that is freed is kept until it has been idle for long.
    pub fn keeps_all(&self) -> bool {
        self.policy().keeps_all()
    }

    /// Whether what is freed waits for a tick.
    pub fn waits(&self) -> bool {
        self.policy().waits()
    }

    /// From now on ticks come although the program makes no call, or they do no more.
    pub fn set_attended(&self, attended: bool) {
        self.inner.lock().policy.attended = attended;
    }

    /// Something else in the process grew by `bytes` bytes: as many free pages go back, unless the program took such
    /// pages again soon after an earlier time.
    pub fn give_way<O: Os>(&self, supply: Supply<O>, bytes: usize) {
        let now = supply.os.clock();
        if self.is_keeping() {
            self.give_kept_way(supply, bytes);
        }
        self.leave_dirty(supply, |policy, dirty, used| {
            policy.left_beside(bytes / PAGE, dirty, used, now)
        });
    }

    /// The heap grew by `pages` pages although pages inside are free, in runs that are too short for what it grew for: as
    /// many of those go back. While the heap grows it goes on to ask for huge pages.
    pub fn give_way_within<O: Os>(&self, supply: Supply<O>, pages: usize) {
        let excess = {
            let inner = &mut *self.inner.lock();
            inner.policy.excess_of(inner.runs.dirty_pages(), pages)
        };
        if excess > 0 {
            self.purge_while(supply, excess, true);
        }
    }

    /// A thread that released `bytes` bytes has ended, and will not take them again: as many free pages go back, but
    /// for the few that stay whatever is learnt.
    pub fn give_back_at_end<O: Os>(&self, supply: Supply<O>, bytes: usize) {
        self.leave_dirty(supply, |policy, dirty, used| {
            policy.left_at_end(bytes / PAGE, dirty, used)
        });
    }

    /// Gives back all but so many of the dirty free pages as `left` says, asked with their number and that of the pages
    /// in use. Those at the heap's end go first. The trim threshold learns nothing from it.
    fn leave_dirty<O: Os>(
        &self,
        supply: Supply<O>,
        left: impl FnOnce(&mut Policy, usize, usize) -> usize,
    ) {
        let (left, pad) = {
            let inner = &mut *self.inner.lock();
            let (dirty, used) = (inner.runs.dirty_pages(), inner.used_pages());
            let left = left(&mut inner.policy, dirty, used);
            if left >= dirty {
                return;
            }
            (left, inner.policy.pad())
        };
        self.cut_tail(supply, left.max(pad));
        let dirty = self.inner.lock().runs.dirty_pages();
        if dirty > left {
            self.purge(supply, dirty - left);
        }
    }

    /// What was not needed since the last tick, or `None` if that was just now.
    fn unused_since_tick(&self, now: u64, quiet: u64) -> Option<Unused> {
        let inner = &mut *self.inner.lock();
        let policy = &mut inner.policy;
        if now.saturating_sub(policy.last_tick) < policy.interval {
            return None;
        }
        let dirty = inner.runs.dirty_pages();
        let all = quiet >= policy.interval;
        let pages = if all {
            dirty
        } else {
            policy.low_dirty.min(dirty)
        };
        policy.last_tick = now;
        policy.low_dirty = dirty;
        policy.quieten(pages);
        let end = all && policy.has_settled(now);
        Some(Unused { pages, end })
    }

    /// Called before pages inside are discarded: no more huge pages for what there is. The kernel fills the holes of a
    /// huge page again by and by where huge pages are asked for (khugepaged). Those that are whole stay.
    fn keep_holes<O: Os>(&self, os: &O) {
        let (windows, used) = {
            let inner = &mut *self.inner.lock();
            if !core::mem::take(&mut inner.policy.huge) {
                return;
            }
            (inner.windows, inner.used)
        };
        for window in &windows[..used] {
            if let Some(start) = NonNull::new(window.base.next_multiple_of(PAGE) as *mut u8) {
                // SAFETY: advice on a window, whose pages are ours. Holes in it are skipped by the kernel.
                unsafe { os.advise_huge(start, window.len * PAGE, Huge::Unwanted) };
            }
        }
    }

    /// Discards `n` pages of `slab` from its `first` on, as far as they are whole OS pages: those that were. `None` where
    /// the system refuses. While the heap `grows` it goes on to ask for huge pages: the next discard puts an end to that.
    ///
    /// The caller owns the slab, or keeps its owner out, and no slot on the pages is live or about to be taken.
    pub fn discard_within<O: Os>(
        &self,
        supply: Supply<O>,
        slab: SlabPtr,
        first: usize,
        n: usize,
        grows: bool,
    ) -> Option<Range<usize>> {
        if !grows {
            self.keep_holes(supply.os);
        }
        let start = (slab.base() + first * PAGE).next_multiple_of(supply.meta.os_page());
        let end =
            (slab.base() + (first + n) * PAGE) / supply.meta.os_page() * supply.meta.os_page();
        if start >= end {
            return Some(first..first);
        }
        // SAFETY: pages of a slab that the caller owns. What they held is dead, and nobody takes it meanwhile.
        let done = NonNull::new(start as *mut u8)
            .is_some_and(|start_at| unsafe { supply.os.discard(start_at, end - start) });
        if !done {
            return None;
        }
        counters::add(&supply.meta.counters().purged, (end - start) as u64);
        let page = |at: usize| (at - slab.base()) / PAGE;
        Some(page(start)..page(end))
    }

    /// Discards up to `pages` dirty free pages, highest first.
    pub fn purge<O: Os>(&self, supply: Supply<O>, pages: usize) {
        self.purge_while(supply, pages, false);
    }

    /// As [`Pages::purge`], while the heap `grows` or not.
    fn purge_while<O: Os>(&self, supply: Supply<O>, pages: usize, grows: bool) {
        let mut left = pages;
        let mut below = usize::MAX;
        for _ in 0..PURGE_CALLS {
            let Some((page, n, address)) =
                self.claim_dirty(left.min(PURGE_PAGES), supply.meta.os_page() / PAGE, below)
            else {
                return;
            };
            below = page.index();
            if !grows {
                self.keep_holes(supply.os);
            }
            left = left.saturating_sub(n);
            let start = NonNull::new(address as *mut u8);
            // SAFETY: the pages are claimed: nobody else has them, and what they held is dead.
            let done = start.is_some_and(|start| unsafe { supply.os.discard(start, n * PAGE) });
            let inner = &mut *self.inner.lock();
            inner.give(
                page,
                n,
                if done {
                    Cleanness::Fresh
                } else {
                    Cleanness::Dirty
                },
            );
            inner.policy.low_dirty = inner.policy.low_dirty.min(inner.runs.dirty_pages());
            if done {
                counters::add(&supply.meta.counters().purged, (n * PAGE) as u64);
            }
            if !done || left == 0 {
                return;
            }
        }
    }

    /// Takes the highest run of dirty free pages out of use that lies below page `below`, whole OS pages of it. So a
    /// purge goes through the pages once, and not from the top for each run.
    pub(super) fn claim_dirty(
        &self,
        most: usize,
        os_pages: usize,
        below: usize,
    ) -> Option<(PageNo, usize, usize)> {
        let inner = &mut *self.inner.lock();
        for index in (0..inner.used).rev() {
            let mut range = inner.windows[index].pages();
            range.end = range
                .end
                .min(PageNo(u32::try_from(below).unwrap_or(u32::MAX)));
            while let Some((page, n)) = inner.runs.highest_dirty(range.clone(), most) {
                let start = page.index().next_multiple_of(os_pages);
                let end = (page.index() + n) / os_pages * os_pages;
                if start < end {
                    let page = PageNo(start as u32);
                    inner.take(page, end - start);
                    return Some((page, end - start, inner.windows[index].address(page)));
                }
                range.end = page;
            }
        }
        None
    }
}
