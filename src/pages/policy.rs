//! When pages are given back: numbers that learn from what the program does.

use crate::geometry::PAGE;

/// Free pages at the heap's end that are given back at once, at first.
pub(super) const TRIM_PAGES: usize = (256 << 10) / PAGE;
/// What the trim threshold learns up to.
const TRIM_PAGES_MOST: usize = 1 << 22;
/// A regrowth so soon after a trim raises the threshold, in milliseconds.
const LEARN_MS: u64 = 1000;

/// When to give pages back: numbers that learn from what the program does.
pub(super) struct Policy {
    /// Free pages at the end that are given back at once.
    pub(super) threshold: usize,
    /// A trim happened and the break was not grown since.
    pub(super) trimmed: bool,
    /// The break was grown since the last tick.
    pub(super) grew: bool,
    pub(super) last_trim: u64,
    pub(super) last_tick: u64,
    pub(super) last_release: u64,
    /// The fewest dirty free pages since the last tick: so many were not needed.
    pub(super) low_dirty: usize,
}

impl Policy {
    /// The break grows again: soon after a trim, the threshold was too low for this program.
    pub(super) fn grown(&mut self, now: u64) {
        if self.trimmed && now.saturating_sub(self.last_trim) < LEARN_MS {
            self.threshold = (self.threshold * 4).min(TRIM_PAGES_MOST);
        }
        self.trimmed = false;
        self.grew = true;
    }

    /// A whole interval went by without growth and with pages that nobody needed: come back to giving
    /// at once.
    pub(super) fn quieten(&mut self, unused: usize) {
        if !self.grew && unused > 0 {
            self.threshold = (self.threshold / 2).max(TRIM_PAGES);
        }
        self.grew = false;
    }
}
