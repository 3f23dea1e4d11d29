//! A window: a range of addresses whose pages have numbers in a row, and how it grows.

use crate::os::Hold;
use crate::units::{PageNo, GROUP_PAGES, PAGE, PAGE_SHIFT};
use core::ops::Range;

/// The least batch of break growth once the heap has that size, in pages.
const STEP_LEAST: usize = 16;
/// The largest batch of break growth beyond what is asked, in pages.
const STEP_MOST: usize = (4 << 20) / PAGE;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Break,
    Mapped,
}

/// A window, under the page lock.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) kind: Kind,
    /// How its addresses are kept until they are opened, if it is a mapped one.
    pub(super) hold: Hold,
    pub(super) base: usize,
    /// Number of its first page.
    pub(super) first: PageNo,
    /// Pages that are ours (or a hole) now.
    pub(super) len: usize,
    /// Pages there may be at most.
    pub(super) cap: usize,
    /// Pages whose metadata are open.
    pub(super) opened: usize,
    /// Number of the first page of the free run at the end. That of the end itself if there is none.
    pub(super) tail: PageNo,
    /// Number of the page after the highest one that was ever taken.
    pub(super) highest: PageNo,
}

impl Window {
    pub(super) fn end(&self) -> PageNo {
        self.first.plus(self.len)
    }

    pub(super) fn tail_pages(&self) -> usize {
        self.end().index() - self.tail.index()
    }

    pub(super) fn address(&self, page: PageNo) -> usize {
        self.base + ((page.index() - self.first.index()) << PAGE_SHIFT)
    }

    /// Whether any of its addresses, those that are not open yet among them, lies in `range`.
    pub(super) fn reaches(&self, range: &Range<usize>) -> bool {
        self.base < range.end && range.start < self.base + (self.cap << PAGE_SHIFT)
    }

    pub(super) fn holds(&self, page: PageNo) -> bool {
        page >= self.first && page < self.end()
    }

    pub(super) fn pages(&self) -> Range<PageNo> {
        self.first..self.end()
    }

    /// Pages to add so that `need` free pages lie in one group at the end.
    pub(super) fn missing(&self, need: usize) -> usize {
        let tail = self.tail.index();
        let start = if tail % GROUP_PAGES + need > GROUP_PAGES {
            tail.next_multiple_of(GROUP_PAGES)
        } else {
            tail
        };
        (start + need).saturating_sub(self.end().index())
    }

    /// Pages to add in one batch when `missing` are needed: first what is needed, then growing steps.
    pub(super) fn batch(&self, missing: usize) -> usize {
        let steady = (self.len / 2)
            .min(STEP_LEAST)
            .max(self.len / 16)
            .min(STEP_MOST);
        missing.max(steady).min(self.cap - self.len)
    }

    pub(super) fn at(base: usize, first: PageNo) -> Window {
        Window {
            kind: Kind::Mapped,
            hold: Hold::Claimed,
            base,
            first,
            len: 0,
            cap: 0,
            opened: 0,
            tail: first,
            highest: first,
        }
    }
}
