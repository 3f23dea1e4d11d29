//! Growth: the break upwards, or mapped windows, and the metadata that pages need.

use super::policy::Policy;
use super::window::{Kind, Window};
use super::Pages;
use crate::class::MANY_MAX;
use crate::counters;
use crate::free_runs::Cleanness;
use crate::meta::{Area, Meta, Supply, WINDOWS};
use crate::os::{Hold, Huge, Os, Refusal};
use crate::slab::Shape;
use crate::sync::{AtomicU32, Ordering::Relaxed, Ordering::Release};
use crate::units::{align_up, pages_for, PageNo, SlabId, GROUP_PAGES, PAGE, WINDOW_PAGES};
use core::ops::Range;
use core::ptr::NonNull;

/// What is known to be left where the break did not grow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Perhaps a window can grow.
    Unknown,
    /// The system gave not even a page for the bookkeeping.
    Nothing,
}

/// So many pages have their page map in one OS page: metadata are opened for as many at a time.
fn granule(meta: &Meta) -> usize {
    meta.os_page() / 4
}

impl Pages {
    /// Grows the heap for a slab of `shape`.
    pub(super) fn grow<O: Os>(&self, supply: Supply<O>, shape: &Shape) -> bool {
        let need = shape.pages + shape.align - 1;
        let _mover = self.break_lock.lock();
        {
            let inner = &mut *self.inner.lock();
            if inner.runs.first_fit(need).is_some() {
                self.refused.store(0, Relaxed);
                return true;
            }
            inner.policy.begin_growth(shape.size > MANY_MAX as usize);
        }
        let grown = match self.grow_break(supply, need) {
            Ok(()) => true,
            Err(left) => self.grow_mapped(supply, need, left),
        };
        self.refused.store(u32::from(!grown), Relaxed);
        grown
    }

    /// Whether the last growth was refused. Then no more is asked for than must be, so that a program that is refused
    /// again and again pays little.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Relaxed) != 0
    }

    /// How many pages to ask for where `missing` are to be had at least.
    fn batch(&self, window: &Window, missing: usize) -> usize {
        match self.is_refused() {
            true => missing,
            false => self.policy().step(window, missing),
        }
    }

    /// Whether any address in `range` is one of a window, or may become one.
    pub fn reaches(&self, range: &Range<usize>) -> bool {
        let inner = self.inner.lock();
        let windows = &inner.windows[..inner.used];
        windows.iter().any(|window| window.reaches(range))
    }

    pub(super) fn windows_used(&self) -> usize {
        self.inner.lock().used
    }

    pub(super) fn policy(&self) -> Policy {
        self.inner.lock().policy
    }

    pub(super) fn window(&self, index: usize) -> Window {
        self.inner.lock().windows[index]
    }

    /// Moves the break up so that `need` pages fit in one run. Under the break lock.
    pub(super) fn grow_break<O: Os>(&self, supply: Supply<O>, need: usize) -> Result<(), Left> {
        if self.break_is_held() || self.windows_used() == 0 && !self.begin_break(supply) {
            return Err(Left::Unknown);
        }
        let window = self.window(0);
        if window.kind != Kind::Break {
            return Err(Left::Unknown);
        }
        let missing = window.missing(need);
        if missing == 0 {
            return Ok(()); // Somebody gave pages back meanwhile.
        }
        let batch = self.batch(&window, missing);
        let moved = self.move_break_up(supply, window, batch);
        match moved {
            Err(_) if batch > missing => self.move_break_up(supply, window, missing),
            _ => moved,
        }
    }

    /// Sets the first window where the break stands. One page is left out, so that no address that ends
    /// the program's own data is one of ours.
    pub(super) fn begin_break<O: Os>(&self, supply: Supply<O>) -> bool {
        // On an OS page, so that OS pages can be discarded by page number.
        let Some(base) = supply
            .os
            .break_end()
            .and_then(|end| align_up(end, supply.meta.os_page()))
        else {
            return false;
        };
        self.add_window(
            supply.meta,
            Window {
                kind: Kind::Break,
                cap: supply.meta.plan().break_pages,
                ..Window::at(base, PageNo(0))
            },
        );
        true
    }

    pub(super) fn move_break_up<O: Os>(
        &self,
        supply: Supply<O>,
        window: Window,
        pages: usize,
    ) -> Result<(), Left> {
        let end = window.address(window.end());
        // Before the first move the break may stand in the OS page that ends where the window begins.
        let os_page = supply.meta.os_page();
        let is_behind = |at| at >= end || window.len == 0 && align_up(at, os_page) == Some(end);
        let Some(at) = supply.os.break_end().filter(|&at| is_behind(at)) else {
            return Err(Left::Unknown);
        };
        // A first page apart from the program's data, and what somebody else's sbrk took, are holes. One that guards
        // what follows ends with a page of ours.
        let os_pages = supply.meta.os_page() / PAGE;
        let others = pages_for(at.saturating_sub(end));
        let guard = self.guards_slabs(supply.meta) && (window.len == 0 || others > 0);
        let skipped = usize::from(window.len == 0 || guard);
        let hole = (others + skipped).next_multiple_of(os_pages);
        // Whole OS pages: the rest of one that the break stands in keeps its contents.
        let pages = pages.next_multiple_of(os_pages);
        let Some(start) = end.checked_add(hole * PAGE) else {
            return Err(Left::Unknown);
        };
        let bytes = start - at + pages * PAGE;
        if pages == 0 || window.len + hole + pages > window.cap || bytes > isize::MAX as usize {
            return Err(Left::Unknown);
        }
        let len = window.len + hole + pages;
        if let Err(refusal) = self.open_metadata(supply, 0, len) {
            // Of each area one page was asked for at most.
            let is_least = len <= window.opened + granule(supply.meta);
            return Err(match refusal {
                Refusal::NoMemory if is_least => Left::Nothing,
                _ => Left::Unknown,
            });
        }
        if !supply.meta.budget.charge(bytes) {
            return Err(Left::Unknown);
        }
        let Some(old) = supply.os.move_break(bytes as isize) else {
            supply.meta.budget.refund(bytes);
            return Err(Left::Unknown);
        };
        counters::add(&supply.meta.counters().break_moves, 1);
        if old != at || supply.os.break_end() != Some(at + bytes) {
            // Somebody moved the break between our calls: what we got cannot be told from what they got.
            supply.meta.budget.refund(bytes);
            return Err(Left::Unknown);
        }
        counters::add_with_peak(
            &supply.meta.counters().break_bytes,
            &supply.meta.counters().break_peak,
            bytes as u64,
        );
        if guard {
            self.fence_page(supply.os, start - PAGE);
        }
        self.advise_huge(supply.os, &window, start, pages);
        self.add_pages(0, hole, pages, self.growth_time(supply.os));
        Ok(())
    }

    /// Asks for huge pages for the fresh `pages` at `start`, by which `window` grows, once it is large.
    fn advise_huge<O: Os>(&self, os: &O, window: &Window, start: usize, pages: usize) {
        let policy = self.policy();
        if !policy.is_for_huge(window) {
            return;
        }
        // Where the system gives huge pages unasked, those of spans are to stay open as well once discarded.
        self.inner.lock().policy.huge = true;
        let Some(start) = NonNull::new(start as *mut u8).filter(|_| policy.fills) else {
            return;
        };
        // SAFETY: the heap grew by these pages just now: they are fresh, and ours.
        unsafe { os.advise_huge(start, pages * PAGE, Huge::Wanted) };
    }

    /// Grows the last mapped window, or a new one, so that `need` pages fit in one run. `left`: what is known since the
    /// break did not grow. Where nothing is left, a window that needs metadata first asks for nothing.
    pub(super) fn grow_mapped<O: Os>(&self, supply: Supply<O>, need: usize, left: Left) -> bool {
        let last = self
            .windows_used()
            .checked_sub(1)
            .filter(|&last| self.window(last).kind == Kind::Mapped);
        if left == Left::Nothing
            && last.is_none_or(|last| self.lacks_metadata(supply.meta, last, need))
        {
            return false;
        }
        let mut grown = last.map_or(Err(Refusal::Taken), |last| {
            self.open_window(supply, last, need)
        });
        while grown == Err(Refusal::Taken) {
            let guard = usize::from(self.guards_slabs(supply.meta));
            let Some(index) = self.begin_mapped(supply, need + guard) else {
                return false;
            };
            grown = self.open_window(supply, index, need);
        }
        grown.is_ok()
    }

    /// Whether a mapped window needs more metadata before `need` of its pages fit in one run.
    fn lacks_metadata(&self, meta: &Meta, index: usize, need: usize) -> bool {
        let window = self.window(index);
        let guard = usize::from(self.guards_slabs(meta) && window.len == 0);
        window.len + window.missing(need) + guard > window.opened
    }

    /// Opens pages at the end of a mapped window so that `need` fit in one run. `Taken` where the window has no
    /// room, or somebody else lies there.
    pub(super) fn open_window<O: Os>(
        &self,
        supply: Supply<O>,
        index: usize,
        need: usize,
    ) -> Result<(), Refusal> {
        let window = self.window(index);
        let missing = window.missing(need);
        if missing == 0 {
            return Ok(()); // Somebody gave pages back meanwhile.
        }
        let batch = self.batch(&window, missing);
        let guard = usize::from(self.guards_slabs(supply.meta) && window.len == 0);
        let mut grown = Err(Refusal::Taken);
        if window.len + missing + guard <= window.cap {
            grown = self.lengthen(supply, index, guard, batch);
            if grown.is_err() && batch > missing {
                grown = self.lengthen(supply, index, guard, missing);
            }
        }
        grown
    }

    /// Opens `guard` closed pages and `pages` after them at the end of a mapped window, or as many as fit.
    fn lengthen<O: Os>(
        &self,
        supply: Supply<O>,
        index: usize,
        guard: usize,
        pages: usize,
    ) -> Result<(), Refusal> {
        let window = self.window(index);
        let pages = (guard + pages)
            .next_multiple_of(supply.meta.os_page() / PAGE)
            .min(window.cap - window.len);
        let bytes = pages * PAGE;
        if !supply.meta.budget.charge(bytes) {
            return Err(Refusal::NoMemory);
        }
        let at = window.address(window.end());
        let opened = self
            .open_metadata(supply, index, window.len + pages)
            .and_then(|()| {
                let start = NonNull::new(at as *mut u8).ok_or(Refusal::NoMemory)?;
                // SAFETY: within what the window has claimed or reserved, which ends at `cap`.
                unsafe { supply.os.open(start, bytes, window.hold) }
            });
        if opened.is_err() {
            supply.meta.budget.refund(bytes);
            return opened;
        }
        counters::add(&supply.meta.counters().mapped, bytes as u64);
        if window.len == 0 {
            let start = NonNull::new(at as *mut u8);
            start.inspect(|&start| supply.os.name(start, bytes, c"slabside: fallback heap"));
        }
        if guard > 0 {
            self.fence_page(supply.os, at);
        }
        self.advise_huge(supply.os, &window, at, pages);
        self.add_pages(index, guard, pages - guard, self.growth_time(supply.os));
        Ok(())
    }

    /// Begins a window for at least `need` pages.
    pub(super) fn begin_mapped<O: Os>(&self, supply: Supply<O>, need: usize) -> Option<usize> {
        let used = self.windows_used();
        if used == WINDOWS {
            return None;
        }
        let first = match used {
            0 => 0,
            _ => {
                let last = self.window(used - 1);
                // The numbers of what a mapped window does not get are the next one's, but for those that readers
                // outside take for its own.
                let end = match last.kind {
                    Kind::Mapped => (last.len + 1).max(last.opened),
                    _ => last.cap + 1,
                };
                (last.first.index() + end).next_multiple_of(WINDOW_PAGES)
            }
        };
        let room = supply
            .meta
            .plan()
            .pages
            .checked_sub(first)
            .filter(|&room| room > need)?;
        let os_pages = supply.meta.os_page() / PAGE;
        let caps = |most: usize| {
            let halves = core::iter::successors(Some(most), |&cap| Some(cap / 2));
            let whole = halves.map(move |cap| cap / os_pages * os_pages);
            whole.take_while(move |&cap| cap >= need.max(1))
        };
        let claimed = || {
            let found = |cap| match supply.os.claim(cap * PAGE) {
                Ok(start) => Some(Some((start, cap, Hold::Claimed))),
                Err(Refusal::Taken) => None,
                // Where the system maps not even a page, no smaller window would help.
                Err(Refusal::NoMemory) => Some(None),
            };
            caps(room).find_map(found)
        };
        let reserved = || {
            let limit = supply.os.limits().address_space;
            let most = match limit {
                usize::MAX => room,
                // A small part of what a limit allows.
                _ => room.min(limit / 8 / PAGE).max(need),
            };
            let found = |cap| Some((supply.os.reserve(cap * PAGE)?, cap, Hold::Reserved));
            caps(most).find_map(found)
        };
        let (start, cap, hold) = claimed().unwrap_or_else(reserved)?;
        if let Some(last) = used.checked_sub(1) {
            // It had no room, or somebody else lies there: it stays as it is for good.
            let last = &mut self.inner.lock().windows[last];
            if last.kind == Kind::Mapped {
                last.cap = last.len;
            }
        }
        let window = Window {
            hold,
            cap,
            ..Window::at(start.as_ptr() as usize, PageNo(first as u32))
        };
        Some(self.add_window(supply.meta, window))
    }

    pub(super) fn add_window(&self, meta: &Meta, window: Window) -> usize {
        let inner = &mut *self.inner.lock();
        let index = inner.used;
        inner.windows[index] = window;
        inner.used += 1;
        self.publish(index, &window, inner.used);
        let range = &meta.header().ranges[index];
        range.base.store(window.base, Relaxed);
        range.first.store(window.first.0, Relaxed);
        let kind = if window.kind == Kind::Break { 1 } else { 2 };
        range.kind.store(kind, Relaxed);
        meta.header().windows.store(inner.used as u32, Release);
        index
    }

    /// Opens the metadata of a window's first `pages` pages: page map, bitmaps, tree. Under the break
    /// lock.
    pub(super) fn open_metadata<O: Os>(
        &self,
        supply: Supply<O>,
        index: usize,
        pages: usize,
    ) -> Result<(), Refusal> {
        let window = self.window(index);
        if pages <= window.opened {
            return Ok(());
        }
        let opened = pages.next_multiple_of(granule(supply.meta));
        let (from, to) = (
            window.first.index() + window.opened,
            window.first.index() + opened,
        );
        let groups = from.div_ceil(GROUP_PAGES)..to.div_ceil(GROUP_PAGES);
        let group_bytes = crate::meta::GROUP_BYTES;
        let (tree, tree_end) = {
            let runs = &self.inner.lock().runs;
            (runs.tree_byte(groups.start), runs.tree_byte(groups.end))
        };
        supply
            .meta
            .open(supply.os, Area::PageMap, from * 4, to * 4)?;
        supply.meta.open(
            supply.os,
            Area::Groups,
            groups.start * group_bytes,
            groups.end * group_bytes,
        )?;
        supply.meta.open(supply.os, Area::Tree, tree, tree_end)?;
        let bytes = (to - from) * 4 + supply.meta.os_pages(groups.len() * group_bytes);
        counters::add(&supply.meta.counters().metadata, bytes as u64);
        self.inner.lock().windows[index].opened = opened;
        supply.meta.header().ranges[index]
            .pages
            .store(opened, Relaxed);
        Ok(())
    }

    /// When the heap grows: only if that matters.
    fn growth_time<O: Os>(&self, os: &O) -> u64 {
        match self.policy().minds_growth() {
            true => os.clock(),
            false => 0,
        }
    }

    /// Adds a hole and then fresh pages to a window's end.
    pub(super) fn add_pages(&self, index: usize, hole: usize, pages: usize, now: u64) {
        let inner = &mut *self.inner.lock();
        let window = &mut inner.windows[index];
        let end = window.end();
        self.set_map(end, hole, SlabId::FOREIGN);
        self.set_map(end.plus(hole), pages, SlabId::NONE);
        window.len += hole + pages;
        if hole > 0 {
            window.tail = end.plus(hole);
        }
        let window = *window;
        inner.runs.give(end.plus(hole), pages, Cleanness::Fresh);
        inner.policy.grown(pages, now);
        self.grown
            .store(self.grown.load(Relaxed) + pages * PAGE, Relaxed);
        self.publish(index, &window, inner.used);
    }

    /// Tells other threads of a window. Its pages never become fewer for them: the page map says that
    /// those given back are nobody's.
    pub(super) fn publish(&self, index: usize, window: &Window, used: usize) {
        let view = &self.views[index];
        view.base.store(window.base, Relaxed);
        view.first.store(window.first.0, Relaxed);
        let pages = view.pages.load(Relaxed).max(window.len);
        view.pages.store(pages, Release);
        match index {
            0 => self.hot.tell(window.base, pages),
            1 => {
                // Once, as its base: frees read them by plain loads.
                if self.beyond.base.load(Relaxed) != window.base {
                    let entries = window.first.index() * size_of::<AtomicU32>();
                    let map = self.hot.map.load(Relaxed) + entries;
                    self.beyond.map.store(map, Relaxed);
                    let slabs = self.hot.slabs.load(Relaxed);
                    self.beyond.slabs.store(slabs, Relaxed);
                }
                self.beyond.tell(window.base, pages);
            }
            _ => {}
        }
        self.view_count.store(used, Release);
    }
}
