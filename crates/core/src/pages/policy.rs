//! When pages are given back: numbers that learn from what the program does.

use super::window::{Kind, Window};
use crate::learnt::Learnt;
use crate::options::{Name, Options, HUGE_AUTO, HUGE_ON};
use crate::units::{pages_for, PAGE};

/// Pages of a huge page.
const HUGE_PAGES: usize = (2 << 20) / PAGE;
/// How large a window is when it begins to grow by huge pages, in pages: a huge page more is a small part of
/// it, and its translations no longer fit the processor's buffers (1,024 to 2,048 entries of 4 KiB).
const HUGE_FROM: usize = (24 << 20) / PAGE;
/// A window that was larger lately grows again by huge pages from this part of that size on.
const HUGE_AGAIN_PART: usize = 8;
/// How long that size is remembered where nothing decays, in milliseconds.
const LATELY_MS: u64 = 10_000;
/// What the trim threshold learns up to.
const TRIM_PAGES_MOST: usize = 1 << 22;
/// Dirty free pages inside that are kept at first, whatever is in use.
const SPARE_PAGES: usize = 256;
/// The part of the pages in use that may be dirty and free inside besides.
const SPARE_PART: usize = 8;
/// Something else grows by so many pages before pages go back for it.
const WAY_PAGES: usize = (1 << 20) / PAGE;
/// A regrowth so soon after a trim raises the threshold, in milliseconds.
const LEARN_MS: u64 = 1000;
/// A heap that swells again does so to another size: one part in so many may be missing of what went back, and as much is
/// kept beyond it.
const SWELL_PART: usize = 4;

/// How far the break came down lately, and how far it grew again since, in pages.
#[derive(Clone, Copy)]
struct Swell {
    /// A trim happened and the break was not grown since.
    trimmed: bool,
    down: usize,
    up: usize,
    /// By how much it grew the last time: used up once it grows again.
    step: usize,
    /// What came down before was wanted again as well.
    again: bool,
}

impl Swell {
    const NONE: Swell = Swell {
        trimmed: false,
        down: 0,
        up: 0,
        step: 0,
        again: false,
    };
}

/// When to give pages back: numbers that learn from what the program does.
#[derive(Clone, Copy)]
pub(super) struct Policy {
    /// What the threshold is at first and comes back to. [`usize::MAX`] means nothing is given back at the end.
    pub(super) least: usize,
    /// Time between decay ticks, in milliseconds.
    pub(super) interval: u64,
    /// How large a window is when it begins to grow by huge pages, in pages.
    pub(super) huge_from: usize,
    /// Pages of the break window before it was trimmed, halved by each quiet interval, forgotten after a while.
    pub(super) largest: usize,
    /// Whether huge pages were asked for since the last time that pages inside were discarded.
    pub(super) huge: bool,
    /// Free pages at the end that are given back at once.
    pub(super) threshold: usize,
    /// What the threshold learns from.
    swell: Swell,
    /// The break was grown since the last tick.
    pub(super) grew: bool,
    pub(super) last_growth: u64,
    pub(super) last_trim: u64,
    pub(super) last_tick: u64,
    pub(super) last_release: u64,
    /// Dirty free pages inside that are kept although few pages are in use.
    pub(super) spare: Learnt,
    /// The fewest dirty free pages since the last tick: so many were not needed.
    pub(super) low_dirty: usize,
    /// The pages that the heap grows by now will be written to soon (see [`Policy::begin_growth`]).
    pub(super) fills: bool,
    /// Dirty free pages that are kept although something else in the process grows.
    way: Learnt,
    /// Pages by which something else grew, and for which nothing went back yet.
    pressed: usize,
    /// Whether ticks come although the program makes no call: a thread in the background sees to them.
    pub(super) attended: bool,
}

impl Policy {
    /// As the options' defaults say.
    pub(super) const fn new() -> Policy {
        let least = Name::TrimThreshold.spec().default / PAGE;
        Policy {
            least,
            interval: Name::Decay.spec().default as u64,
            huge_from: HUGE_FROM,
            largest: 0,
            huge: false,
            threshold: least,
            swell: Swell::NONE,
            grew: false,
            last_growth: 0,
            last_trim: 0,
            last_tick: 0,
            last_release: 0,
            spare: Learnt::new(SPARE_PAGES, TRIM_PAGES_MOST),
            low_dirty: 0,
            fills: true,
            way: Learnt::new(SPARE_PAGES, TRIM_PAGES_MOST),
            pressed: 0,
            attended: false,
        }
    }

    /// As `options` say, before the first page.
    pub(super) fn set(&mut self, options: &Options) {
        self.least = pages_for(options.get(Name::TrimThreshold));
        self.threshold = self.least;
        self.interval = options.get(Name::Decay) as u64;
        self.huge_from = match options.get(Name::HugePages) {
            HUGE_AUTO => HUGE_FROM,
            HUGE_ON => HUGE_PAGES,
            _ => usize::MAX,
        };
    }

    /// Free pages that a trim leaves, so that the next slab does not move the break again.
    pub(super) fn pad(&self) -> usize {
        self.least / 4
    }

    /// Pages to add to `window` in one batch when `missing` are needed. Where huge pages are wanted, the batch goes up
    /// to the end of one, once the window is as large.
    pub(super) fn step(&self, window: &Window, missing: usize) -> usize {
        let batch = window.batch(missing);
        if !self.is_for_huge(window) {
            return batch;
        }
        let end = window.base / PAGE + window.len + batch;
        let more = end.next_multiple_of(HUGE_PAGES) - end;
        (batch + more).min(window.cap - window.len)
    }

    /// Whether `window` grows by huge pages: it is large, or was lately and grows again.
    pub(super) fn is_for_huge(&self, window: &Window) -> bool {
        let again = (self.largest / HUGE_AGAIN_PART).max(HUGE_PAGES);
        window.len >= self.huge_from
            || self.largest >= self.huge_from && window.kind == Kind::Break && window.len >= again
    }

    /// The heap is about to grow, for blocks of more than two pages or for smaller ones. A program writes to few pages of
    /// a large block at times, and the first write to a huge page makes all of it resident. A slab of small slots has a
    /// block on each page. So huge pages are asked for where such slabs are to lie, and for larger blocks only if the user
    /// wants them everywhere.
    pub(super) fn begin_growth(&mut self, for_large: bool) {
        self.fills = !for_large || self.huge_from == HUGE_PAGES;
    }

    /// Something else in the process grew by `pages` pages at `now`: how many of `dirty` free pages may stay, where
    /// `used` pages are in use. So one part of the process does not keep for later what another one needs now.
    pub(super) fn left_beside(
        &mut self,
        pages: usize,
        dirty: usize,
        used: usize,
        now: u64,
    ) -> usize {
        self.pressed += pages;
        if self.pressed < WAY_PAGES || self.keeps_all() {
            return dirty;
        }
        let pressed = core::mem::take(&mut self.pressed);
        self.way.learn(now);
        let bound = self.way.bound().max(used / SPARE_PART);
        let excess = dirty.saturating_sub(bound).min(pressed);
        if excess > 0 {
            self.way.give(excess, now);
        }
        dirty - excess
    }

    /// The heap itself grew by `pages` pages: how many of `dirty` free pages are to be discarded for them.
    pub(super) fn excess_of(&self, dirty: usize, pages: usize) -> usize {
        dirty.saturating_sub(SPARE_PAGES).min(pages)
    }

    /// How many of `dirty` free pages may stay after a thread that released `pages` pages has ended, where `used` pages
    /// are in use. What was learnt of that thread does not count any more.
    pub(super) fn left_at_end(&self, pages: usize, dirty: usize, used: usize) -> usize {
        if self.keeps_all() {
            return dirty;
        }
        let bound = SPARE_PAGES.max(used / SPARE_PART);
        dirty.saturating_sub(pages).max(bound).min(dirty)
    }

    /// Pages that had gone back were taken again.
    pub(super) fn retake(&mut self, pages: usize) {
        self.spare.take(pages);
        self.way.take(pages);
    }

    /// Whether nothing is discarded but at a tick: who asks for a longer decay than by default wants all kept until then.
    pub(super) fn keeps_all(&self) -> bool {
        self.interval > Name::Decay.spec().default as u64 || self.least == usize::MAX
    }

    /// Whether what is released waits for the tick. As long as the heap does not grow for something else, if ticks come of
    /// themselves.
    pub(super) fn waits(&self) -> bool {
        self.keeps_all() || self.attended
    }

    /// Whether so many free pages at the heap's end are to go back at this release. They wait for the tick if ticks come of
    /// themselves and the user did not say how many may.
    pub(super) fn is_end_due(&self, free: usize) -> bool {
        let waits = self.attended && self.least == Name::TrimThreshold.spec().default / PAGE;
        free >= self.threshold && !waits
    }

    /// How many of `dirty` free pages inside are to be discarded at this release, where `used` pages are in use.
    pub(super) fn excess(&mut self, dirty: usize, used: usize, now: u64) -> usize {
        if self.waits() {
            return 0;
        }
        let part = used / SPARE_PART;
        if dirty <= SPARE_PAGES.max(part) {
            return 0;
        }
        self.spare.learn(now);
        let spare = self.spare.bound();
        if dirty <= spare.max(part) {
            return 0;
        }
        let excess = dirty - spare / 4;
        self.spare.give(excess, now);
        excess
    }

    /// The break came down from an end `end` pages above the window's start.
    pub(super) fn came_down_from(&mut self, end: usize) {
        self.largest = self.largest.max(end);
    }

    /// The break moved down by `pages` pages at `now`, since so many were free.
    pub(super) fn was_trimmed(&mut self, pages: usize, now: u64) {
        if self.swell.up > 0 || !self.is_soon(now) {
            self.swell = Swell::NONE;
        }
        self.swell.trimmed = true;
        self.swell.down += pages;
        self.last_trim = now;
    }

    /// Whether the break moved down so shortly before `now` that its pages had better been kept.
    fn is_soon(&self, now: u64) -> bool {
        now.saturating_sub(self.last_trim) < LEARN_MS
    }

    /// Whether it matters when the break grows.
    pub(super) fn minds_growth(&self) -> bool {
        self.swell.trimmed || self.swell.down > 0
    }

    /// The break grows again by `pages` pages: soon after a trim, the threshold was too low for this program. Where most of
    /// what went back is wanted again twice in a row, as much stays from then on, unless the user set a lower threshold.
    pub(super) fn grown(&mut self, pages: usize, now: u64) {
        if !self.is_soon(now) {
            self.swell = Swell::NONE;
        }
        if core::mem::take(&mut self.swell.trimmed) {
            self.raise(self.threshold.saturating_mul(4));
        }
        if self.swell.down > 0 {
            self.swell.up += core::mem::replace(&mut self.swell.step, pages);
            if self.swell.up >= self.swell.down - self.swell.down / SWELL_PART {
                self.end_swell();
            }
        }
        if now.saturating_sub(self.last_trim) >= LATELY_MS {
            self.largest = 0;
        }
        self.grew = true;
        self.last_growth = now;
    }

    /// Most of what came down is wanted again.
    fn end_swell(&mut self) {
        let Swell { again, down, .. } = self.swell;
        self.swell = Swell {
            again: true,
            ..Swell::NONE
        };
        if again && self.least >= Name::TrimThreshold.spec().default / PAGE {
            self.raise(down + down / SWELL_PART);
        }
    }

    /// From now on so many free pages at the end are given back at once, whatever was learnt.
    pub(super) fn set_threshold(&mut self, pages: usize) {
        (self.least, self.threshold) = (pages, pages);
        self.swell = Swell::NONE;
    }

    /// The threshold is `pages` pages from now on, unless it is more.
    fn raise(&mut self, pages: usize) {
        let most = TRIM_PAGES_MOST.max(self.least);
        self.threshold = pages.min(most).max(self.threshold);
    }

    /// Whether the break has not grown for an interval: what lies at its end is not about to be used.
    pub(super) fn has_settled(&self, now: u64) -> bool {
        now.saturating_sub(self.last_growth) >= self.interval.max(1)
    }

    /// A whole interval went by without growth and with pages that nobody needed: come back to giving
    /// at once.
    pub(super) fn quieten(&mut self, unused: usize) {
        if !self.grew && unused > 0 {
            self.threshold = (self.threshold / 2).max(self.least);
            self.largest /= 2;
        }
        self.spare.quieten(unused);
        self.grew = false;
    }
}
