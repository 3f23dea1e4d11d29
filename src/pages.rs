//! Runs of heap pages: over the break, and over mapped windows where the break will not move.
//!
//! ```text
//!   page numbers   0 ........ break window ........ | gap | mapped window | gap | mapped window ...
//!   addresses      base | foreign |  ours  | tail ->
//!                       ^somebody else's sbrk: a hole, never ours       ^given back by negative sbrk
//! ```
//!
//! Gives slabs their pages and headers, takes them back, and gives the kernel back what lies unused: the
//! heap's end by moving the break, the rest by discarding. The slab headers are the truth; the page
//! bitmaps are derived from them (`rebuild`). Knows no threads, no lists, no slots.
//!
//! Two locks: the page lock, never held over a system call, and the break lock, held by the one thread
//! that moves the break or opens metadata. Order: break lock, then page lock.

use crate::class::PAIR;
use crate::counters;
use crate::geometry::{
    align_up, pages_for, PageNo, SlabId, GROUP_PAGES, PAGE, PAGE_SHIFT, WINDOW_PAGES,
};
use crate::meta::{Area, Meta, SLAB_BYTES};
use crate::os::Os;
use crate::remote::RELEASED;
use crate::runs::{Cleanness, Runs};
use crate::slab::{Shape, SlabPtr, SlabTable, State};
use crate::sync::{settled, AtomicU32, AtomicUsize, Guard, Lock};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr::NonNull;

/// The most windows: the break's, and mapped ones.
const WINDOWS: usize = 8;
/// Free pages at the heap's end that are given back at once, at first.
const TRIM_PAGES: usize = (256 << 10) / PAGE;
/// Free pages that a trim leaves, so that the next slab does not move the break again.
const TRIM_PAD: usize = (64 << 10) / PAGE;
/// What the trim threshold learns up to.
const TRIM_PAGES_MOST: usize = 1 << 22;
/// A regrowth so soon after a trim raises the threshold, in milliseconds.
const LEARN_MS: u64 = 1000;
/// Time between decay ticks, in milliseconds.
const TICK_MS: u64 = 250;
/// The least batch of break growth once the heap has that size, in pages.
const STEP_LEAST: usize = 16;
/// The largest batch of break growth beyond what is asked, in pages.
const STEP_MOST: usize = (4 << 20) / PAGE;
/// How far behind a large free run the heap's end may be for the slabs between to be worth arming.
const PIN_REACH: usize = 64;
/// The most pages discarded by one call, and the most calls in one tick.
const PURGE_PAGES: usize = 1024;
const PURGE_CALLS: usize = 64;

/// What the fast path of free reads: fixed once the heap has begun, but for `pages`, which only grows.
pub struct Hot {
    /// Address of page 0; 0: no heap yet.
    pub base: AtomicUsize,
    /// Pages of the first window that the page map speaks of.
    pub pages: AtomicUsize,
    /// Address of the page map.
    pub map: AtomicUsize,
    /// Address of the header table.
    pub slabs: AtomicUsize,
}

impl Hot {
    /// The header that the page map names for `page` < `pages`; the dummy where it names none.
    #[inline(always)]
    pub fn slab_of(&self, page: usize) -> SlabPtr {
        // SAFETY: the map is open as far as `pages`, and its entries number headers that were made. Both
        // addresses were set before the first page.
        unsafe {
            let id = (*(settled(&self.map) as *const AtomicU32).add(page)).load(Relaxed);
            let slab = settled(&self.slabs) + id as usize * SLAB_BYTES;
            SlabPtr::new(NonNull::new_unchecked(slab as *mut _))
        }
    }
}

/// A range of addresses with page numbers of its own, as other threads may read it.
struct View {
    base: AtomicUsize,
    first: AtomicU32,
    pages: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Break,
    Mapped,
}

/// A window, under the page lock.
#[derive(Clone, Copy)]
struct Window {
    kind: Kind,
    base: usize,
    /// Number of its first page.
    first: PageNo,
    /// Pages that are ours (or a hole) now.
    len: usize,
    /// Pages there may be at most.
    cap: usize,
    /// Pages whose metadata are open.
    opened: usize,
    /// Number of the first page of the free run at the end; that of the end itself if there is none.
    tail: PageNo,
}

impl Window {
    fn end(&self) -> PageNo {
        self.first.plus(self.len)
    }

    fn tail_pages(&self) -> usize {
        self.end().index() - self.tail.index()
    }

    fn address(&self, page: PageNo) -> usize {
        self.base + ((page.index() - self.first.index()) << PAGE_SHIFT)
    }

    fn holds(&self, page: PageNo) -> bool {
        page >= self.first && page < self.end()
    }

    fn pages(&self) -> Range<PageNo> {
        self.first..self.end()
    }

    /// Pages to add so that `need` free pages lie in one group at the end.
    fn missing(&self, need: usize) -> usize {
        let tail = self.tail.index();
        let start = if tail % GROUP_PAGES + need > GROUP_PAGES {
            tail.next_multiple_of(GROUP_PAGES)
        } else {
            tail
        };
        (start + need).saturating_sub(self.end().index())
    }

    /// Pages to add in one batch when `missing` are needed: first what is needed, then growing steps.
    fn batch(&self, missing: usize) -> usize {
        let steady = (self.len / 2)
            .min(STEP_LEAST)
            .max(self.len / 16)
            .min(STEP_MOST);
        missing.max(steady).min(self.cap - self.len)
    }
}

/// When to give pages back: numbers that learn from what the program does.
struct Policy {
    /// Free pages at the end that are given back at once.
    threshold: usize,
    /// A trim happened and the break was not grown since.
    trimmed: bool,
    /// The break was grown since the last tick.
    grew: bool,
    last_trim: u64,
    last_tick: u64,
    last_release: u64,
    /// The fewest dirty free pages since the last tick: so many were not needed.
    low_dirty: usize,
}

impl Policy {
    /// The break grows again: soon after a trim, the threshold was too low for this program.
    fn grown(&mut self, now: u64) {
        if self.trimmed && now.saturating_sub(self.last_trim) < LEARN_MS {
            self.threshold = (self.threshold * 4).min(TRIM_PAGES_MOST);
        }
        self.trimmed = false;
        self.grew = true;
    }

    /// A whole interval went by without growth and with pages that nobody needed: come back to giving
    /// at once.
    fn quieten(&mut self, unused: usize) {
        if !self.grew && unused > 0 {
            self.threshold = (self.threshold / 2).max(TRIM_PAGES);
        }
        self.grew = false;
    }
}

/// Slab headers by number: those never used, and those to be used again.
struct Headers {
    /// Headers made so far: the next number.
    made: u32,
    /// Bytes of the header area that are open.
    opened: usize,
    /// Heads of the lists of released headers, single and in pairs, linked through `next`.
    spare: [u32; 2],
}

impl Headers {
    /// Number of headers that one slab of `class` takes: its header's kind is its list's index plus one.
    fn kind(class: usize) -> usize {
        usize::from(class == PAIR)
    }

    fn take(&mut self, table: SlabTable, class: usize) -> Option<SlabPtr> {
        let kind = Headers::kind(class);
        if self.spare[kind] != 0 {
            let slab = table.get(SlabId(self.spare[kind]));
            self.spare[kind] = slab.counted.load(Relaxed);
            return Some(slab);
        }
        let next = self.made as usize + kind + 1;
        if next * SLAB_BYTES > self.opened {
            return None;
        }
        let slab = table.get(SlabId(self.made));
        slab.id.store(self.made, Relaxed);
        slab.class.store(class as u8, Relaxed);
        slab.owner.store(RELEASED, Relaxed);
        self.made = next as u32;
        Some(slab)
    }

    fn give(&mut self, slab: SlabPtr) {
        let kind = Headers::kind(slab.class());
        slab.counted.store(self.spare[kind], Relaxed);
        self.spare[kind] = slab.id().0;
    }
}

struct Inner {
    runs: Runs,
    windows: [Window; WINDOWS],
    used: usize,
    headers: Headers,
    policy: Policy,
}

/// What is missing for a slab to be carved.
enum Missing {
    Pages,
    Headers,
}

/// The heap's pages.
pub struct Pages {
    /// For the fast path of free.
    pub hot: Hot,
    views: [View; WINDOWS],
    view_count: AtomicUsize,
    lock: Lock,
    break_lock: Lock,
    ticking: Lock,
    inner: UnsafeCell<Inner>,
}

// SAFETY: `inner` is reached through `Pages::inner` alone, which wants the page lock's guard.
unsafe impl Sync for Pages {}

/// Slabs that keep a large free run from being the heap's end: pages `from..to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned(pub Range<PageNo>);

impl Pages {
    /// No pages yet.
    pub const fn new() -> Pages {
        let window = Window {
            kind: Kind::Break,
            base: 0,
            first: PageNo(0),
            len: 0,
            cap: 0,
            opened: 0,
            tail: PageNo(0),
        };
        let policy = Policy {
            threshold: TRIM_PAGES,
            trimmed: false,
            grew: false,
            last_trim: 0,
            last_tick: 0,
            last_release: 0,
            low_dirty: 0,
        };
        Pages {
            hot: Hot {
                base: AtomicUsize::new(0),
                pages: AtomicUsize::new(0),
                map: AtomicUsize::new(0),
                slabs: AtomicUsize::new(0),
            },
            views: [const {
                View {
                    base: AtomicUsize::new(0),
                    first: AtomicU32::new(0),
                    pages: AtomicUsize::new(0),
                }
            }; WINDOWS],
            view_count: AtomicUsize::new(0),
            lock: Lock::new(),
            break_lock: Lock::new(),
            ticking: Lock::new(),
            inner: UnsafeCell::new(Inner {
                runs: Runs::none(),
                windows: [window; WINDOWS],
                used: 0,
                headers: Headers {
                    made: 0,
                    opened: 0,
                    spare: [0; 2],
                },
                policy,
            }),
        }
    }

    /// Lays the tables over the region and makes the two headers that stand for no slab. Once.
    pub fn init<O: Os>(&self, os: &O, meta: &Meta) -> bool {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        // SAFETY: the areas are as large as the plan says, and opened by `open_metadata` before use.
        inner.runs = unsafe {
            Runs::new(
                meta.start(Area::Groups),
                meta.start(Area::Tree),
                meta.plan().groups(),
            )
        };
        let dummies = SlabId::FIRST.index() * SLAB_BYTES;
        // The first group's byte too: with few groups the tree has only that one level.
        let tree = inner.runs.tree_byte(0) + 1;
        if !meta.open_to(os, Area::Slabs, &mut inner.headers.opened, dummies)
            || !meta.open(os, Area::Tree, 0, tree)
        {
            return false;
        }
        counters::add(&meta.counters().metadata, meta.os_pages(tree) as u64);
        self.hot
            .map
            .store(meta.start::<u32>(Area::PageMap).as_ptr() as usize, Relaxed);
        self.hot
            .slabs
            .store(meta.start::<u8>(Area::Slabs).as_ptr() as usize, Release);
        for id in [SlabId::NONE, SlabId::FOREIGN] {
            let dummy = self.table().get(id);
            dummy.owner.store(RELEASED, Relaxed);
            dummy.id.store(id.0, Relaxed);
        }
        inner.headers.made = SlabId::FIRST.0;
        true
    }

    /// The header table. After `init`.
    #[inline(always)]
    pub fn table(&self) -> SlabTable {
        // SAFETY: the start of the header area, which is never unmapped.
        unsafe {
            SlabTable::new(NonNull::new_unchecked(
                self.hot.slabs.load(Acquire) as *mut _
            ))
        }
    }

    #[allow(clippy::mut_from_ref)] // The guard is the proof of exclusion.
    fn inner<'a>(&'a self, _guard: &'a Guard<'_>) -> &'a mut Inner {
        // SAFETY: callers hold the page lock for as long as they use the borrow, and take it once.
        unsafe { &mut *self.inner.get() }
    }

    fn map_entry(&self, page: PageNo) -> &AtomicU32 {
        // SAFETY: callers name pages whose metadata are open.
        unsafe { &*(self.hot.map.load(Relaxed) as *const AtomicU32).add(page.index()) }
    }

    fn set_map(&self, page: PageNo, n: usize, id: SlabId) {
        (0..n).for_each(|i| self.map_entry(page.plus(i)).store(id.0, Relaxed));
    }

    /// The page that `address` lies in and the header it belongs to, in any window; `None` outside all.
    pub fn find(&self, address: usize) -> Option<(PageNo, SlabPtr)> {
        for view in &self.views[..self.view_count.load(Acquire)] {
            let page = address.wrapping_sub(view.base.load(Relaxed)) >> PAGE_SHIFT;
            if page < view.pages.load(Acquire) {
                let page = PageNo(view.first.load(Relaxed)).plus(page);
                return Some((page, self.hot.slab_of(page.index())));
            }
        }
        None
    }

    /// The header of the slab that `page` belongs to, if any.
    pub fn slab_at(&self, page: PageNo) -> Option<SlabPtr> {
        let id = SlabId(self.map_entry(page).load(Relaxed));
        id.is_some().then(|| self.table().get(id))
    }

    // ---- carving and releasing ------------------------------------------------------------------

    /// A new slab of `shape`, all free, owned by `owner`; and whether its pages are all zero. `None`
    /// where the system gives no more memory.
    pub fn carve<O: Os>(
        &self,
        os: &O,
        meta: &Meta,
        shape: &Shape,
        owner: u64,
    ) -> Option<(SlabPtr, bool)> {
        loop {
            let missing = match self.take_run(shape) {
                Ok((slab, page, base, fresh)) => {
                    slab.make(shape, base, owner);
                    self.set_map(page, shape.pages, slab.id());
                    return Some((slab, fresh));
                }
                Err(missing) => missing,
            };
            let found = match missing {
                Missing::Pages => self.grow(os, meta, shape.pages),
                Missing::Headers => self.open_headers(os, meta),
            };
            if !found {
                return None;
            }
        }
    }

    fn take_run(&self, shape: &Shape) -> Result<(SlabPtr, PageNo, usize, bool), Missing> {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        let page = inner.runs.first_fit(shape.pages).ok_or(Missing::Pages)?;
        let slab = inner
            .headers
            .take(self.table(), shape.class)
            .ok_or(Missing::Headers)?;
        let fresh = inner.take(page, shape.pages);
        let window = inner.window_of(page);
        Ok((slab, page, inner.windows[window].address(page), fresh))
    }

    fn open_headers<O: Os>(&self, os: &O, meta: &Meta) -> bool {
        let _mover = self.break_lock.lock();
        let (made, mut opened) = {
            let guard = self.lock.lock();
            let headers = &self.inner(&guard).headers;
            (headers.made as usize, headers.opened)
        };
        let done = meta.open_to(os, Area::Slabs, &mut opened, (made + 2) * SLAB_BYTES);
        let guard = self.lock.lock();
        self.inner(&guard).headers.opened = opened;
        meta.header().slabs_made.store(made as u32, Relaxed);
        done
    }

    /// Takes back the pages and the header of `slab`, which nobody owns or lists any more (its owner
    /// word says released). Gives the heap's end back where enough of it is free. Returns slabs that
    /// keep a large free run from the heap's end.
    pub fn release<O: Os>(&self, os: &O, meta: &Meta, slab: SlabPtr) -> Option<Pinned> {
        let now = os.clock();
        let (base, n) = (slab.base(), slab.pages());
        let page = self.page_of(base);
        self.set_map(page, n, SlabId::NONE);
        slab.set_state(State::Released);
        let (trim, pinned) = {
            let guard = self.lock.lock();
            let inner = self.inner(&guard);
            inner.headers.give(slab);
            inner.give(page, n, Cleanness::Dirty);
            inner.policy.last_release = now;
            (inner.wants_trim(page), inner.pinned(page, n))
        };
        if trim {
            self.trim(os, meta, TRIM_PAD);
        }
        pinned
    }

    /// The number of the page at `base`, which is ours.
    fn page_of(&self, base: usize) -> PageNo {
        self.find(base).map_or(PageNo(0), |(page, _)| page)
    }

    /// Grows the span `slab` in place by `more` pages, if they are free behind it; returns whether it
    /// did and the new pages are all zero.
    pub fn extend(&self, slab: SlabPtr, more: usize) -> Option<bool> {
        let n = slab.pages();
        let page = self.page_of(slab.base());
        let behind = page.plus(n);
        let fresh = {
            let guard = self.lock.lock();
            let inner = self.inner(&guard);
            let window = &inner.windows[inner.window_of(page)];
            let same_group = page.index() % GROUP_PAGES + n + more <= GROUP_PAGES;
            if !same_group
                || behind.index() + more > window.end().index()
                || !inner.runs.is_free(behind, more)
            {
                return None;
            }
            inner.take(behind, more)
        };
        slab.pages.store((n + more) as u32, Relaxed);
        slab.size.store(((n + more) * PAGE) as u32, Relaxed);
        self.set_map(behind, more, slab.id());
        Some(fresh)
    }

    /// Gives back the last pages of the span `slab` but for the first `keep`.
    pub fn shorten(&self, slab: SlabPtr, keep: usize) {
        let less = slab.pages() - keep;
        let page = self.page_of(slab.base()).plus(keep);
        slab.pages.store(keep as u32, Relaxed);
        slab.size.store((keep * PAGE) as u32, Relaxed);
        self.set_map(page, less, SlabId::NONE);
        let guard = self.lock.lock();
        self.inner(&guard).give(page, less, Cleanness::Dirty);
    }

    // ---- growing --------------------------------------------------------------------------------

    fn grow<O: Os>(&self, os: &O, meta: &Meta, need: usize) -> bool {
        let _mover = self.break_lock.lock();
        {
            let guard = self.lock.lock();
            if self.inner(&guard).runs.first_fit(need).is_some() {
                return true;
            }
        }
        self.grow_break(os, meta, need) || self.grow_mapped(os, meta, need)
    }

    fn windows_used(&self) -> usize {
        let guard = self.lock.lock();
        self.inner(&guard).used
    }

    fn window(&self, index: usize) -> Window {
        let guard = self.lock.lock();
        self.inner(&guard).windows[index]
    }

    /// Moves the break up so that `need` pages fit in one run. Under the break lock.
    fn grow_break<O: Os>(&self, os: &O, meta: &Meta, need: usize) -> bool {
        if self.windows_used() == 0 && !self.begin_break(os, meta) {
            return false;
        }
        let window = self.window(0);
        if window.kind != Kind::Break {
            return false;
        }
        let missing = window.missing(need);
        [window.batch(missing), missing]
            .into_iter()
            .any(|pages| self.move_break_up(os, meta, window, pages))
    }

    /// Sets the first window where the break stands. One page is left out, so that no address that ends
    /// the program's own data is one of ours.
    fn begin_break<O: Os>(&self, os: &O, meta: &Meta) -> bool {
        // On an OS page, so that OS pages can be discarded by page number.
        let Some(base) = os.break_end().and_then(|end| align_up(end, meta.os_page())) else {
            return false;
        };
        self.add_window(
            meta,
            Window {
                kind: Kind::Break,
                cap: meta.plan().break_pages,
                ..Window::at(base, PageNo(0))
            },
        );
        true
    }

    fn move_break_up<O: Os>(&self, os: &O, meta: &Meta, window: Window, pages: usize) -> bool {
        let end = window.address(window.end());
        // Before the first move the break may stand in the OS page that ends where the window begins.
        let os_page = meta.os_page();
        let is_behind = |at| at >= end || window.len == 0 && align_up(at, os_page) == Some(end);
        let Some(at) = os.break_end().filter(|&at| is_behind(at)) else {
            return false;
        };
        // A first page apart from the program's data, and what somebody else's sbrk took, are holes.
        let os_pages = meta.os_page() / PAGE;
        let skipped = usize::from(window.len == 0);
        let hole = (pages_for(at.saturating_sub(end)) + skipped).next_multiple_of(os_pages);
        // Whole OS pages: the rest of one that the break stands in keeps its contents.
        let pages = pages.next_multiple_of(os_pages);
        let Some(start) = end.checked_add(hole * PAGE) else {
            return false;
        };
        let bytes = start - at + pages * PAGE;
        if pages == 0 || window.len + hole + pages > window.cap || bytes > isize::MAX as usize {
            return false;
        }
        if !self.open_metadata(os, meta, 0, window.len + hole + pages) {
            return false;
        }
        let Some(old) = os.move_break(bytes as isize) else {
            return false;
        };
        counters::add(&meta.counters().break_moves, 1);
        if old != at || os.break_end() != Some(at + bytes) {
            // Somebody moved the break between our calls: what we got cannot be told from what they got.
            return false;
        }
        counters::add_with_peak(
            &meta.counters().break_bytes,
            &meta.counters().break_peak,
            bytes as u64,
        );
        self.add_pages(0, hole, pages, os.clock());
        true
    }

    fn grow_mapped<O: Os>(&self, os: &O, meta: &Meta, need: usize) -> bool {
        let last = self
            .windows_used()
            .checked_sub(1)
            .filter(|&last| self.window(last).kind == Kind::Mapped);
        if last.is_some_and(|last| self.open_window(os, meta, last, need)) {
            return true;
        }
        self.begin_mapped(os, meta, need)
            .is_some_and(|index| self.open_window(os, meta, index, need))
    }

    /// Opens pages at the end of a mapped window so that `need` fit in one run.
    fn open_window<O: Os>(&self, os: &O, meta: &Meta, index: usize, need: usize) -> bool {
        let window = self.window(index);
        let missing = window.missing(need);
        if window.len + missing > window.cap {
            return false;
        }
        let os_pages = meta.os_page() / PAGE;
        [window.batch(missing), missing].into_iter().any(|pages| {
            let pages = pages
                .next_multiple_of(os_pages)
                .min(window.cap - window.len);
            let start = NonNull::new(window.address(window.end()) as *mut u8);
            let opened = self.open_metadata(os, meta, index, window.len + pages)
                // SAFETY: within the window's reserve, which ends at `cap`.
                && start.is_some_and(|start| unsafe { os.open(start, pages * PAGE) });
            if opened {
                counters::add(&meta.counters().mapped, (pages * PAGE) as u64);
                self.add_pages(index, 0, pages, os.clock());
            }
            opened
        })
    }

    /// Reserves a window for at least `need` pages: a small part of what a limit allows.
    fn begin_mapped<O: Os>(&self, os: &O, meta: &Meta, need: usize) -> Option<usize> {
        let used = self.windows_used();
        if used == WINDOWS {
            return None;
        }
        let first = match used {
            0 => 0,
            _ => (self.window(used - 1).first.index() + self.window(used - 1).cap + 1)
                .next_multiple_of(WINDOW_PAGES),
        };
        let room = meta
            .plan()
            .pages
            .checked_sub(first)
            .filter(|&room| room > need)?;
        let limit = os.limits().address_space;
        let mut cap = if limit == usize::MAX {
            room
        } else {
            room.min(limit / 8 / PAGE).max(need)
        };
        let os_pages = meta.os_page() / PAGE;
        loop {
            cap = cap / os_pages * os_pages;
            if cap < need || cap == 0 {
                return None;
            }
            if let Some(start) = os.reserve(cap * PAGE) {
                os.name(start, cap * PAGE, c"slabside: fallback heap");
                let window = Window {
                    kind: Kind::Mapped,
                    cap,
                    ..Window::at(start.as_ptr() as usize, PageNo(first as u32))
                };
                return Some(self.add_window(meta, window));
            }
            cap /= 2;
        }
    }

    fn add_window(&self, meta: &Meta, window: Window) -> usize {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        let index = inner.used;
        inner.windows[index] = window;
        inner.used += 1;
        self.views[index].base.store(window.base, Relaxed);
        self.views[index].first.store(window.first.0, Relaxed);
        self.view_count.store(inner.used, Release);
        if index == 0 {
            self.hot.base.store(window.base, Release);
        }
        meta.header().windows.store(inner.used as u32, Relaxed);
        index
    }

    /// Opens the metadata of a window's first `pages` pages: page map, bitmaps, tree. Under the break
    /// lock.
    fn open_metadata<O: Os>(&self, os: &O, meta: &Meta, index: usize, pages: usize) -> bool {
        let window = self.window(index);
        if pages <= window.opened {
            return true;
        }
        let granule = meta.os_page() / 4;
        let opened = pages.next_multiple_of(granule);
        let (from, to) = (
            window.first.index() + window.opened,
            window.first.index() + opened,
        );
        let groups = from.div_ceil(GROUP_PAGES)..to.div_ceil(GROUP_PAGES);
        let group_bytes = crate::meta::GROUP_BYTES;
        let (tree, tree_end) = {
            let guard = self.lock.lock();
            let runs = &self.inner(&guard).runs;
            (runs.tree_byte(groups.start), runs.tree_byte(groups.end))
        };
        let done = meta.open(os, Area::PageMap, from * 4, to * 4)
            && meta.open(
                os,
                Area::Groups,
                groups.start * group_bytes,
                groups.end * group_bytes,
            )
            && meta.open(os, Area::Tree, tree, tree_end);
        if done {
            let bytes = (to - from) * 4 + meta.os_pages(groups.len() * group_bytes);
            counters::add(&meta.counters().metadata, bytes as u64);
            let guard = self.lock.lock();
            self.inner(&guard).windows[index].opened = opened;
        }
        done
    }

    /// Adds a hole and then fresh pages to a window's end.
    fn add_pages(&self, index: usize, hole: usize, pages: usize, now: u64) {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        let window = &mut inner.windows[index];
        let end = window.end();
        self.set_map(end, hole, SlabId::FOREIGN);
        self.set_map(end.plus(hole), pages, SlabId::NONE);
        window.len += hole + pages;
        if hole > 0 {
            window.tail = end.plus(hole);
        }
        let len = window.len;
        inner.runs.give(end.plus(hole), pages, Cleanness::Fresh);
        inner.policy.grown(now);
        if len > self.views[index].pages.load(Relaxed) {
            self.views[index].pages.store(len, Release);
            if index == 0 {
                self.hot.pages.store(len, Release);
            }
        }
    }

    // ---- giving back ----------------------------------------------------------------------------

    /// Gives the free pages at the end of the break back but for `keep`, by a negative sbrk. Where the
    /// break is not ours any more, nothing happens.
    pub fn trim<O: Os>(&self, os: &O, meta: &Meta, keep: usize) {
        let Some(_mover) = self.break_lock.try_lock() else {
            return;
        };
        let os_pages = meta.os_page() / PAGE;
        let Some((page, n)) = self.claim_tail(keep, os_pages) else {
            return;
        };
        let window = self.window(0);
        let end = window.address(page.plus(n));
        let moved = os.break_end() == Some(end) && os.move_break(-((n * PAGE) as isize)).is_some();
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        if moved {
            counters::add(&meta.counters().break_moves, 1);
            counters::subtract(&meta.counters().break_bytes, (n * PAGE) as u64);
            inner.policy.trimmed = true;
            inner.policy.last_trim = os.clock();
        } else {
            inner.windows[0].len += n;
            inner.give(page, n, Cleanness::Dirty);
            // A foreign block behind: the tail will never move the break, so it is no tail.
            inner.windows[0].tail = inner.windows[0].end();
        }
    }

    /// Takes the break window's tail but for `keep` pages out of use, before the break moves.
    fn claim_tail(&self, keep: usize, os_pages: usize) -> Option<(PageNo, usize)> {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
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

    /// Milliseconds since a slab was last released.
    pub fn quiet_for(&self, now: u64) -> u64 {
        let guard = self.lock.lock();
        now.saturating_sub(self.inner(&guard).policy.last_release)
    }

    /// Gives back what lay unused for an interval: the heap's end, and dirty free pages inside. Called
    /// from slow paths, with how long no slab had been released before the caller's own decay; does
    /// nothing if called again too soon.
    pub fn tick<O: Os>(&self, os: &O, meta: &Meta, now: u64, quiet: u64) {
        let Some(_ticking) = self.ticking.try_lock() else {
            return;
        };
        let Some(unused) = self.unused_since_tick(now, quiet) else {
            return;
        };
        let before = self.window(0).tail_pages();
        if before > TRIM_PAD && unused > 0 {
            self.trim(os, meta, TRIM_PAD.max(before.saturating_sub(unused)));
        }
        let trimmed = before.saturating_sub(self.window(0).tail_pages());
        self.purge(os, meta, unused.saturating_sub(trimmed));
    }

    /// How many dirty free pages were not needed since the last tick, or `None` if that was just now.
    fn unused_since_tick(&self, now: u64, quiet: u64) -> Option<usize> {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        let policy = &mut inner.policy;
        if now.saturating_sub(policy.last_tick) < TICK_MS {
            return None;
        }
        let dirty = inner.runs.dirty_pages();
        let unused = if quiet >= TICK_MS {
            dirty
        } else {
            policy.low_dirty.min(dirty)
        };
        policy.last_tick = now;
        policy.low_dirty = dirty;
        policy.quieten(unused);
        Some(unused)
    }

    /// Discards up to `pages` dirty free pages, highest first.
    pub fn purge<O: Os>(&self, os: &O, meta: &Meta, pages: usize) {
        let mut left = pages;
        for _ in 0..PURGE_CALLS {
            let Some((page, n, address)) =
                self.claim_dirty(left.min(PURGE_PAGES), meta.os_page() / PAGE)
            else {
                return;
            };
            left = left.saturating_sub(n);
            let start = NonNull::new(address as *mut u8);
            // SAFETY: the pages are claimed: nobody else has them, and what they held is dead.
            let done = start.is_some_and(|start| unsafe { os.discard(start, n * PAGE) });
            let guard = self.lock.lock();
            let inner = self.inner(&guard);
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
                counters::add(&meta.counters().purged, (n * PAGE) as u64);
            }
            if !done || left == 0 {
                return;
            }
        }
    }

    /// Takes the highest run of dirty free pages out of use, whole OS pages of it.
    fn claim_dirty(&self, most: usize, os_pages: usize) -> Option<(PageNo, usize, usize)> {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        for index in (0..inner.used).rev() {
            let mut range = inner.windows[index].pages();
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

    // ---- repair and check -----------------------------------------------------------------------

    /// In a fork child: frees all locks.
    pub fn reset_locks(&self) {
        [&self.lock, &self.break_lock, &self.ticking]
            .into_iter()
            .for_each(Lock::reset);
    }

    /// In a fork child: derives everything from the headers again.
    pub fn rebuild(&self) {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        inner.runs.reset_counts();
        for index in 0..inner.used {
            let window = inner.windows[index];
            inner.runs.restart(window.first, window.len);
            self.retake_foreign(inner, window);
        }
        inner.headers.spare = [0; 2];
        self.each_header(inner.headers.made, |slab| {
            if slab.owner.load(Relaxed) == RELEASED || slab.state() == State::Released {
                slab.owner.store(RELEASED, Relaxed);
                slab.set_state(State::Released);
                inner.headers.give(slab);
            } else {
                let page = self.page_of(slab.base());
                inner.runs.take(page, slab.pages());
                self.set_map(page, slab.pages(), slab.id());
            }
        });
        for index in 0..inner.used {
            let end = inner.windows[index].end();
            inner.windows[index].tail = PageNo(
                (end.index() - inner.runs.free_before(end, inner.windows[index].first)) as u32,
            );
        }
    }

    /// Takes foreign pages again, and makes the map say nothing of all others.
    fn retake_foreign(&self, inner: &mut Inner, window: Window) {
        for i in 0..window.len {
            let page = window.first.plus(i);
            if self.map_entry(page).load(Relaxed) == SlabId::FOREIGN.0 {
                inner.runs.take(page, 1);
            } else {
                self.map_entry(page).store(SlabId::NONE.0, Relaxed);
            }
        }
    }

    fn each_header(&self, made: u32, mut visit: impl FnMut(SlabPtr)) {
        let mut id = SlabId::FIRST.0;
        while id < made {
            let slab = self.table().get(SlabId(id));
            visit(slab);
            id += Headers::kind(slab.class()) as u32 + 1;
        }
    }

    /// Calls `visit` for the header of every slab. Others may change them meanwhile.
    pub fn each_slab(&self, mut visit: impl FnMut(SlabPtr)) {
        let made = {
            let guard = self.lock.lock();
            self.inner(&guard).headers.made
        };
        self.each_header(made, |slab| {
            if slab.state() != State::Released {
                visit(slab);
            }
        });
    }

    /// Number of broken invariants, while nobody else is at work: each page is free, foreign or some
    /// slab's, and bitmaps, map, headers and counts say the same.
    pub fn validate(&self) -> usize {
        let mut wrong = 0;
        let mut in_slabs = 0;
        self.each_slab(|slab| {
            in_slabs += slab.pages();
            let page = self.page_of(slab.base());
            wrong += (0..slab.pages())
                .filter(|&i| self.map_entry(page.plus(i)).load(Relaxed) != slab.id().0)
                .count();
        });
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        let mut mapped = 0;
        for window in &inner.windows[..inner.used] {
            for i in 0..window.len {
                let page = window.first.plus(i);
                let id = SlabId(self.map_entry(page).load(Relaxed));
                mapped += usize::from(id.is_some());
                wrong += usize::from(inner.runs.is_free(page, 1) != (id == SlabId::NONE));
            }
            let free = inner.runs.free_before(window.end(), window.first);
            wrong += usize::from(window.tail_pages() > free);
        }
        wrong += usize::from(mapped != in_slabs);
        wrong
            + inner
                .runs
                .validate(inner.windows[..inner.used].iter().map(Window::pages))
    }
}

impl Default for Pages {
    fn default() -> Pages {
        Pages::new()
    }
}

impl Window {
    fn at(base: usize, first: PageNo) -> Window {
        Window {
            kind: Kind::Mapped,
            base,
            first,
            len: 0,
            cap: 0,
            opened: 0,
            tail: first,
        }
    }
}

impl Inner {
    fn window_of(&self, page: PageNo) -> usize {
        self.windows[..self.used]
            .iter()
            .position(|window| window.holds(page))
            .unwrap_or(0)
    }

    /// Takes free pages out; true if all are the kernel's zero pages.
    fn take(&mut self, page: PageNo, n: usize) -> bool {
        let index = self.window_of(page);
        let fresh = self.runs.take(page, n);
        self.windows[index].tail = self.windows[index].tail.max(page.plus(n));
        self.policy.low_dirty = self.policy.low_dirty.min(self.runs.dirty_pages());
        fresh
    }

    /// Puts pages back, and lets the tail reach down over them and the free pages before.
    fn give(&mut self, page: PageNo, n: usize, cleanness: Cleanness) {
        self.runs.give(page, n, cleanness);
        let index = self.window_of(page);
        let window = &mut self.windows[index];
        if page.plus(n) == window.tail {
            let before = self.runs.free_before(page, window.first);
            window.tail = PageNo(page.0 - before as u32);
        }
    }

    /// Whether the tail, which `page` may be part of, is long enough to be given back at once.
    fn wants_trim(&self, page: PageNo) -> bool {
        let window = &self.windows[0];
        let is_tail = window.kind == Kind::Break && window.holds(page) && page >= window.tail;
        is_tail && window.tail_pages() >= self.policy.threshold
    }

    /// What keeps the run that pages `page..` + `n` belong to from the heap's end, if the run is large
    /// and the end is near.
    fn pinned(&self, page: PageNo, n: usize) -> Option<Pinned> {
        let window = &self.windows[0];
        if window.kind != Kind::Break || !window.holds(page) || page >= window.tail {
            return None;
        }
        let end = page.plus(n);
        let reach = PageNo(end.0.saturating_sub(TRIM_PAGES as u32)).max(window.first);
        let after = self.runs.free_from(end, PIN_REACH);
        let used = end.plus(after);
        let near = used < window.tail && window.tail.index() - used.index() <= PIN_REACH;
        (near && self.runs.free_before(end, reach) + after >= TRIM_PAGES)
            .then_some(Pinned(used..window.tail))
    }
}
