//! Runs of heap pages: over the break, and over mapped windows where the break will not move.
//!
//! ```text
//!   page numbers   0 ........ break window ........ | gap | mapped window | gap | mapped window ...
//!   addresses      base | foreign |  ours  | tail ->
//!                       ^somebody else's sbrk: a hole, never ours       ^given back by negative sbrk
//! ```
//!
//! Gives slabs their pages and headers, and takes them back. Gives back to the kernel what is unused: the heap's end by
//! moving the break, the rest by discarding. The slab headers are the truth. The page bitmaps are derived from them
//! (`rebuild`). Knows no threads, no lists, no slots.
//!
//! There are two locks. The page lock is never held over a system call. The thread that moves the break or opens
//! metadata holds the break lock. Order: break lock, then page lock.

mod window;
mod policy;
mod headers;
mod parked;
mod grow;
mod give_back;
mod repair;

use crate::arch::unlinked;
use crate::counters;
use crate::free_runs::{Cleanness, Runs};
use crate::meta::{Area, Elsewhere, Supply, SLAB_BYTES, WINDOWS};
use crate::mutex::{Mutex, Registry};
use crate::options::Options;
use crate::os::{Hold, Os};
use crate::owner::{Owner, RELEASED};
use crate::slab::{Shape, SlabPtr, SlabTable, State};
use crate::sync::{load_unsynchronized, AtomicU32, AtomicU64, AtomicUsize};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::units::{PageNo, SlabId, GROUP_PAGES, PAGE, PAGE_SHIFT};
use core::ptr::NonNull;
use headers::{Headers, Numbers};
pub use parked::is_zero;
use parked::Parked;
use policy::Policy;
use window::{Kind, Window};

/// What the fast path of free reads of a window: fixed once the heap has begun, but for `pages`, which only grows.
#[repr(C)]
pub struct Hot {
    /// Address of page 0. 0 means no heap yet.
    pub base: AtomicUsize,
    /// Pages of the window that the page map speaks of.
    pub pages: AtomicUsize,
    /// Address of the page map.
    pub map: AtomicUsize,
    /// Address of the header table.
    pub slabs: AtomicUsize,
}

const _: () = {
    use crate::arch::{HOT_BASE, HOT_MAP, HOT_PAGES, HOT_SLABS};
    use core::mem::offset_of;
    static_assertions::const_assert_eq!(offset_of!(Hot, base), HOT_BASE);
    static_assertions::const_assert_eq!(offset_of!(Hot, pages), HOT_PAGES);
    static_assertions::const_assert_eq!(offset_of!(Hot, map), HOT_MAP);
    static_assertions::const_assert_eq!(offset_of!(Hot, slabs), HOT_SLABS);
};

impl Hot {
    /// Of no window.
    const fn none() -> Hot {
        Hot {
            base: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
            map: AtomicUsize::new(0),
            slabs: AtomicUsize::new(0),
        }
    }

    /// Tells of the window at `base`, which has `pages` pages by now. Its base once: frees read it by plain loads. Who sees
    /// the number of pages and not yet the base finds every address outside.
    fn tell(&self, base: usize, pages: usize) {
        if self.base.load(Relaxed) != base {
            self.base.store(base, Release);
        }
        self.pages.store(pages, Release);
    }

    /// The number of the page that `address`, any, lies in. `None` outside the first window.
    #[inline(always)]
    pub fn page_of(&self, address: usize) -> Option<usize> {
        let page = address.wrapping_sub(self.base.load(Relaxed)) >> PAGE_SHIFT;
        (page < self.pages.load(Relaxed)).then_some(page)
    }

    /// The number of the header that the page map names for `page` < `pages`.
    #[inline(always)]
    pub fn id_of(&self, page: usize) -> SlabId {
        // SAFETY: the map is open as far as `pages`. Its address was set before the first page.
        SlabId(unsafe {
            (*(load_unsynchronized(&self.map) as *const AtomicU32).add(page)).load(Relaxed)
        })
    }

    /// The header that the page map names for `page` < `pages`. The dummy if it names none.
    #[inline(always)]
    pub fn slab_of(&self, page: usize) -> SlabPtr {
        let place = self.place_of(self.id_of(page));
        // SAFETY: the map's entries number headers that were made. The pointer is made of the table's address, and so
        // reaches all headers of the table.
        unsafe { SlabPtr::new(NonNull::new_unchecked(place as *mut _)) }
    }

    /// As [`Hot::slab_of`], and its number. Its place is added up once, and not for each word of the header.
    #[inline(always)]
    pub fn slab_and_id_of(&self, page: usize) -> (SlabPtr, SlabId) {
        let id = self.id_of(page);
        let place = unlinked(self.place_of(id) as u64);
        // SAFETY: the number is of the map, whose entries number headers that were made, and the table reaches all of them.
        let slab = unsafe { SlabPtr::new(NonNull::new_unchecked(place as *mut _)) };
        (slab, id)
    }

    #[inline(always)]
    fn place_of(&self, id: SlabId) -> usize {
        // SAFETY: the table's address was set before the first page.
        unsafe { load_unsynchronized(&self.slabs) + id.index() * SLAB_BYTES }
    }

    /// The header that the page of `address` belongs to, which lies in the window.
    #[inline(always)]
    pub fn slab_within(&self, address: usize) -> SlabPtr {
        self.slab_of(address.wrapping_sub(self.base.load(Relaxed)) >> PAGE_SHIFT)
    }

    /// The header that the page of `address`, any, belongs to, or the dummy. `None` outside the first window.
    #[inline(always)]
    pub fn slab_at(&self, address: usize) -> Option<SlabPtr> {
        self.page_of(address).map(|page| self.slab_of(page))
    }
}

/// A range of addresses with page numbers of its own, as other threads may read it.
struct View {
    base: AtomicUsize,
    first: AtomicU32,
    pages: AtomicUsize,
}

struct Inner {
    runs: Runs,
    windows: [Window; WINDOWS],
    used: usize,
    headers: Headers,
    policy: Policy,
    kept: Parked,
}

// SAFETY: the pointers lead into the metadata region, which belongs to no thread.
unsafe impl Send for Inner {}

/// What is missing for a slab to be carved.
enum Missing {
    Pages,
    Headers,
}

/// Free pages that are to go back.
enum Excess {
    None,
    /// Those at the heap's end, but for so many.
    End(usize),
    /// So many dirty ones inside.
    Dirty(usize),
}

/// The heap's pages.
pub struct Pages {
    /// For the fast path of free.
    pub hot: Hot,
    /// The same of the second window, whose part of the page map `map` is. Most blocks lie there where the break cannot grow.
    pub beyond: Hot,
    views: [View; WINDOWS],
    view_count: AtomicUsize,
    /// Under the page lock, which is never held over a system call.
    inner: Mutex<Inner>,
    /// Held while the break is moved, or a window or the headers grow.
    break_lock: Mutex<()>,
    ticking: Mutex<()>,
    /// Threads that are about to fork: the break is not moved meanwhile.
    forking: AtomicU32,
    /// Non-zero where the system refused the last growth or headers, and no slab went back since.
    refused: AtomicU32,
    /// How many kept slabs gave up their classes. Raised under the page lock.
    given_up: AtomicU32,
    /// Bytes by which the heap grew since [`Pages::take_grown`]. Stored to under the page lock.
    grown: AtomicUsize,
    /// Non-zero where pages stay with their class, a guard page after each slab (see `parked`).
    keeping: AtomicU32,
    /// Random bits that were not used, below a set one (see `parked`).
    lots: AtomicU64,
}

impl Pages {
    /// No pages yet.
    pub const fn new(locks: &mut Registry) -> Pages {
        let window = Window {
            kind: Kind::Break,
            hold: Hold::Claimed,
            base: 0,
            first: PageNo(0),
            len: 0,
            cap: 0,
            opened: 0,
            tail: PageNo(0),
            highest: PageNo(0),
        };
        Pages {
            hot: Hot::none(),
            beyond: Hot::none(),
            views: [const {
                View {
                    base: AtomicUsize::new(0),
                    first: AtomicU32::new(0),
                    pages: AtomicUsize::new(0),
                }
            }; WINDOWS],
            view_count: AtomicUsize::new(0),
            inner: Mutex::new(
                locks,
                Inner {
                    runs: Runs::none(),
                    windows: [window; WINDOWS],
                    used: 0,
                    headers: Headers {
                        numbers: Numbers::none(),
                        opened: 0,
                        spare: [0; 2],
                        epoch: AtomicU32::new(0),
                    },
                    policy: Policy::new(),
                    kept: Parked::new(),
                },
            ),
            break_lock: Mutex::new(locks, ()),
            ticking: Mutex::new(locks, ()),
            forking: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            given_up: AtomicU32::new(0),
            grown: AtomicUsize::new(0),
            keeping: AtomicU32::new(0),
            lots: AtomicU64::new(0),
        }
    }

    /// Lays the tables over the region and makes the two headers that stand for no slab. Once.
    pub fn init<O: Os>(&self, supply: Supply<O>) -> bool {
        // SAFETY: the areas are as large as the plan says, and opened by `open_metadata` before use.
        let mut runs = unsafe {
            Runs::new(
                supply.meta.place(Area::FirstGroup, Area::Groups, 0),
                supply.meta.start(Area::Groups),
                supply.meta.start(Area::Tree),
                supply.meta.plan().groups(),
            )
        };
        let mut numbers = Numbers::of(supply.meta);
        let dummies = numbers.wanted(SlabId::FIRST.index());
        // The first group's byte too: with few groups the tree has only that one level.
        let tree = runs.tree_byte(0) + 1;
        let mut opened = 0;
        if !supply
            .meta
            .open_to(supply.os, Area::Slabs, &mut opened, dummies)
            || supply.meta.open(supply.os, Area::Tree, 0, tree).is_err()
        {
            return false;
        }
        runs.touch();
        counters::add(
            &supply.meta.counters().metadata,
            supply.meta.os_pages(tree) as u64,
        );
        let slabs = supply.meta.place::<u8>(Area::FirstSlabs, Area::Slabs, 0);
        self.hot.map.store(
            supply.meta.start::<u32>(Area::PageMap).as_ptr() as usize,
            Relaxed,
        );
        self.hot.slabs.store(slabs.as_ptr() as usize, Release);
        for id in [SlabId::NONE, SlabId::FOREIGN] {
            let dummy = self.table().get(id);
            dummy.owner.store(RELEASED, Relaxed);
            dummy.id.store(id.0, Relaxed);
        }
        numbers.made = SlabId::FIRST.0;
        let inner = &mut *self.inner.lock();
        (inner.runs, inner.headers.numbers, inner.headers.opened) = (runs, numbers, opened);
        let epoch = core::ptr::from_ref(&inner.headers.epoch) as usize;
        supply.meta.header().point(Elsewhere::SlabEpoch, epoch);
        true
    }

    /// Gives back and grows as `options` say. Before the first page.
    pub fn configure(&self, options: &Options) {
        self.inner.lock().policy.set(options);
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

    fn map_entry(&self, page: PageNo) -> &AtomicU32 {
        // SAFETY: callers name pages whose metadata are open.
        unsafe { &*(self.hot.map.load(Relaxed) as *const AtomicU32).add(page.index()) }
    }

    fn set_map(&self, page: PageNo, n: usize, id: SlabId) {
        (0..n).for_each(|i| self.map_entry(page.plus(i)).store(id.0, Relaxed));
    }

    /// The page that `address` lies in and the header it belongs to, in any window. `None` outside all.
    pub fn find(&self, address: usize) -> Option<(PageNo, SlabPtr)> {
        let page = match self.hot.page_of(address) {
            Some(page) => PageNo(0).plus(page),
            None => self.page_beyond(address)?,
        };
        Some((page, self.hot.slab_of(page.index())))
    }

    /// The page that `address` lies in, in a window after the first one, whose pages are numbered from zero.
    #[inline(always)]
    fn page_beyond(&self, address: usize) -> Option<PageNo> {
        let others = self.views.get(1..self.view_count.load(Acquire))?;
        others.iter().find_map(|view| {
            let page = address.wrapping_sub(view.base.load(Relaxed)) >> PAGE_SHIFT;
            let inside = page < view.pages.load(Acquire);
            inside.then(|| PageNo(view.first.load(Relaxed)).plus(page))
        })
    }

    /// The header that the page of `address` belongs to, in a window after the first one. `None` outside these.
    #[inline(always)]
    pub fn slab_beyond(&self, address: usize) -> Option<SlabPtr> {
        let page = self.page_beyond(address)?;
        Some(self.hot.slab_of(page.index()))
    }

    /// The header that the page of `address` belongs to, in any window. `None` outside all.
    #[inline]
    pub fn slab_at(&self, address: usize) -> Option<SlabPtr> {
        self.find(address).map(|(_, slab)| slab)
    }

    // ---- carving and releasing ------------------------------------------------------------------

    /// A new slab of `shape`, all free, owned by `owner`. Returns also whether its pages are all zero. `None` if the
    /// system gives no more memory.
    pub fn new_slab<O: Os>(
        &self,
        supply: Supply<O>,
        shape: &Shape,
        owner: Owner,
    ) -> Option<(SlabPtr, bool)> {
        if !self.is_keeping() {
            return self.new_slab_fresh(supply, shape, owner);
        }
        self.take_parked(supply, shape, owner)
            .or_else(|| self.new_slab_guarded(supply, shape, owner))
    }

    fn new_slab_fresh<O: Os>(
        &self,
        supply: Supply<O>,
        shape: &Shape,
        owner: Owner,
    ) -> Option<(SlabPtr, bool)> {
        loop {
            match self.carve(shape, owner) {
                Ok(made) => return Some(made),
                Err(missing) => {
                    if !self.find_missing(supply, shape, missing) {
                        return None;
                    }
                }
            }
        }
    }

    /// As [`Pages::new_slab`], of pages that are free already: no system call is made. Not where pages stay with their
    /// class.
    pub fn new_slab_at_hand(&self, shape: &Shape, owner: Owner) -> Option<SlabPtr> {
        self.carve(shape, owner).ok().map(|(slab, _)| slab)
    }

    /// Sees to it that there are free pages and a header for a slab of `shape`, until another thread takes them. False if
    /// the system gives no more memory.
    pub fn make_room<O: Os>(&self, supply: Supply<O>, shape: &Shape) -> bool {
        loop {
            let missing = self.inner.lock().find_run(shape).err();
            let Some(missing) = missing else {
                return true;
            };
            if !self.find_missing(supply, shape, missing) {
                return false;
            }
        }
    }

    fn find_missing<O: Os>(&self, supply: Supply<O>, shape: &Shape, missing: Missing) -> bool {
        match missing {
            Missing::Pages => self.grow(supply, shape),
            Missing::Headers => self.open_headers(supply),
        }
    }

    fn carve(&self, shape: &Shape, owner: Owner) -> Result<(SlabPtr, bool), Missing> {
        let (slab, page, base, fresh) = self.take_run(shape)?;
        slab.make(shape, base, owner);
        self.set_map(page, shape.pages, slab.id());
        Ok((slab, fresh))
    }

    fn take_run(&self, shape: &Shape) -> Result<(SlabPtr, PageNo, usize, bool), Missing> {
        let inner = &mut *self.inner.lock();
        let page = inner.find_run(shape)?;
        let page = inner.align_up(page, shape.align);
        let slab = inner
            .headers
            .take(self.table(), shape.class)
            .ok_or(Missing::Headers)?;
        let fresh = inner.take(page, shape.pages);
        let window = inner.window_of(page);
        Ok((slab, page, inner.windows[window].address(page), fresh))
    }

    fn open_headers<O: Os>(&self, supply: Supply<O>) -> bool {
        let _mover = self.break_lock.lock();
        let (numbers, mut opened) = {
            let headers = &self.inner.lock().headers;
            (headers.numbers, headers.opened)
        };
        let done = supply
            .meta
            .open_to(supply.os, Area::Slabs, &mut opened, numbers.wanted(2));
        self.inner.lock().headers.opened = opened;
        if !done {
            self.refused.store(1, Relaxed);
        }
        supply.meta.header().slabs_made.store(numbers.made, Relaxed);
        supply.meta.header().slabs_apart.store(numbers.end, Relaxed);
        done
    }

    /// Takes back the pages and the header of `slab`, which nobody owns or lists any more (its owner
    /// word says released). Gives the heap's end back where enough of it is free.
    pub fn release<O: Os>(&self, supply: Supply<O>, slab: SlabPtr) {
        // What was refused may be had now, and in larger steps.
        self.refused.store(0, Relaxed);
        if self.is_keeping() {
            return self.keep(supply, slab);
        }
        let now = supply.os.clock();
        let excess = self.take_in(slab, |inner, page| {
            let trims = inner.is_in_tail(page);
            inner.excess_after_release(trims, now)
        });
        self.give_excess(supply, excess);
    }

    /// As [`Pages::release`] by who makes no system call, and calls [`Pages::heed_release`] later. Whether the slab was at
    /// the heap's end. Not where pages stay with their class.
    pub fn release_silently(&self, slab: SlabPtr) -> bool {
        self.refused.store(0, Relaxed);
        self.take_in(slab, |inner, page| inner.is_in_tail(page))
    }

    /// Slabs were released silently, one of which was at the heap's `end`: gives back what is too much.
    pub fn heed_release<O: Os>(&self, supply: Supply<O>, end: bool) {
        let now = supply.os.clock();
        let excess = self.inner.lock().excess_after_release(end, now);
        self.give_excess(supply, excess);
    }

    /// Takes the pages and the header of `slab` back. What `judge` says of the pages, asked with the first one's number.
    #[inline(always)]
    fn take_in<R>(&self, slab: SlabPtr, judge: impl FnOnce(&mut Inner, PageNo) -> R) -> R {
        let (base, n) = (slab.base(), slab.pages());
        let page = self.page_of(base);
        self.set_map(page, n, SlabId::NONE);
        slab.set_state(State::Released);
        let inner = &mut *self.inner.lock();
        inner.headers.give(slab);
        inner.give(page, n, Cleanness::Dirty);
        judge(inner, page)
    }

    #[inline(always)]
    fn give_excess<O: Os>(&self, supply: Supply<O>, excess: Excess) {
        match excess {
            Excess::None => {}
            Excess::End(pad) => self.trim(supply, pad),
            Excess::Dirty(pages) => self.purge(supply, pages),
        }
    }

    /// Bytes open in mapped windows.
    pub fn mapped_bytes(&self) -> usize {
        let inner = self.inner.lock();
        let mapped = inner.windows[..inner.used]
            .iter()
            .filter(|window| window.kind == Kind::Mapped);
        mapped.map(|window| window.len * PAGE).sum()
    }

    /// The number of the page at `base`, which is ours.
    fn page_of(&self, base: usize) -> PageNo {
        self.find(base).map_or(PageNo(0), |(page, _)| page)
    }

    /// Grows the span `slab` in place by `more` pages, if they are free after it. Returns whether it did.
    pub fn extend(&self, slab: SlabPtr, more: usize) -> bool {
        let n = slab.pages();
        let page = self.page_of(slab.base());
        let behind = page.plus(n);
        {
            let inner = &mut *self.inner.lock();
            let window = &inner.windows[inner.window_of(page)];
            let same_group = page.index() % GROUP_PAGES + n + more <= GROUP_PAGES;
            if !same_group
                || behind.index() + more > window.end().index()
                || !inner.runs.is_free(behind, more)
            {
                return false;
            }
            inner.take(behind, more);
        }
        slab.set_pages(n + more);
        slab.size.store(((n + more) * PAGE) as u32, Relaxed);
        self.set_map(behind, more, slab.id());
        true
    }

    /// Gives back the last pages of the span `slab` but for the first `keep`.
    pub fn shorten(&self, slab: SlabPtr, keep: usize) {
        let less = slab.pages() - keep;
        let page = self.page_of(slab.base()).plus(keep);
        slab.set_pages(keep);
        slab.size.store((keep * PAGE) as u32, Relaxed);
        self.set_map(page, less, SlabId::NONE);
        self.inner.lock().give(page, less, Cleanness::Dirty);
    }
}

impl Inner {
    /// The first of as many free pages as a slab of `shape` takes.
    fn find_run(&mut self, shape: &Shape) -> Result<PageNo, Missing> {
        // First, so that a heap that has no header is not grown in vain.
        if !self.headers.has(shape.class) {
            return Err(Missing::Headers);
        }
        let run = shape.pages + shape.align - 1;
        self.runs.first_fit(run).ok_or(Missing::Pages)
    }

    /// What is too much after a slab was released, at the heap's `end` or not.
    fn excess_after_release(&mut self, end: bool, now: u64) -> Excess {
        self.policy.last_release = now;
        if end && self.policy.is_end_due(self.windows[0].tail_pages()) {
            return Excess::End(self.policy.pad());
        }
        match self.excess(now) {
            0 => Excess::None,
            pages => Excess::Dirty(pages),
        }
    }

    fn window_of(&self, page: PageNo) -> usize {
        self.windows[..self.used]
            .iter()
            .position(|window| window.holds(page))
            .unwrap_or(0)
    }

    /// The first page from `page` on whose address is a multiple of `align` pages.
    fn align_up(&self, page: PageNo, align: usize) -> PageNo {
        let number = self.windows[self.window_of(page)].address(page) >> PAGE_SHIFT;
        page.plus(number.next_multiple_of(align) - number)
    }

    /// Takes free pages out. True if all are the kernel's zero pages.
    fn take(&mut self, page: PageNo, n: usize) -> bool {
        let index = self.window_of(page);
        let fresh = self.runs.take(page, n);
        let window = &mut self.windows[index];
        if fresh && page < window.highest {
            self.policy.retake(n);
        }
        window.highest = window.highest.max(page.plus(n));
        window.tail = window.tail.max(page.plus(n));
        self.policy.low_dirty = self.policy.low_dirty.min(self.runs.dirty_pages());
        fresh
    }

    /// Pages that are not free.
    fn used_pages(&mut self) -> usize {
        let windows = &self.windows[..self.used];
        let len = windows.iter().map(|window| window.len).sum::<usize>();
        len.saturating_sub(self.runs.free_pages())
    }

    /// Dirty free pages inside that are to be discarded at once. The end of a heap that grows again and again
    /// is not counted.
    fn excess(&mut self, now: u64) -> usize {
        let used = self.used_pages();
        let windows = &self.windows[..self.used];
        let grows = self.policy.threshold > self.policy.least;
        let tail = match windows.first() {
            Some(first) if first.kind == Kind::Break && grows => first.tail_pages(),
            _ => 0,
        };
        let dirty = self.runs.dirty_pages().saturating_sub(tail);
        self.policy.excess(dirty, used, now)
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

    /// Whether `page` is one of the free pages at the end of the break.
    fn is_in_tail(&self, page: PageNo) -> bool {
        let window = &self.windows[0];
        window.kind == Kind::Break && window.holds(page) && page >= window.tail
    }
}
