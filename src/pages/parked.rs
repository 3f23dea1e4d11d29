//! Hardened mode: pages that stay with their class for good, a guard page after each slab.
//!
//! ```text
//!   | slab of 48 bytes | guard | slab of 48 bytes | guard | span of 5 pages | guard | ...
//! ```
//!
//! A released slab keeps its pages, and the next slab of the same class (a span: of as many pages) is made of
//! them, so that a dangling pointer never leads to an object of another size. What costs memory goes back:
//! the pages are discarded, not given up, and the break does not move down. A guard page counts as
//! somebody else's, like a page that a foreign `sbrk` took.

use super::Pages;
use crate::class::{slots_in, CLASSES};
use crate::counters;
use crate::meta::Meta;
use crate::os::Os;
use crate::remote::RELEASED;
use crate::slab::{List, Shape, SlabPtr, SlabTable, State};
use crate::sync::{Ordering::Relaxed, Ordering::Release};
use crate::units::{SlabId, PAGE, SPAN_PAGES};
use core::ptr::NonNull;

/// Parked slabs that a tick discards at most.
pub(super) const PARKED_PER_TICK: usize = 64;
/// Pages of kept slabs whose contents need not be discarded before the next tick.
const WARM_PAGES: usize = 4096;
/// Lists: a class each, and one for each number of pages that a span has.
const KINDS: usize = CLASSES + SPAN_PAGES + 1;

/// `counted` of a kept slab: its contents are gone, are to go, or have to stay, since they are not zero as
/// they were left: the next allocation from it will tell of a write after free.
const COLD: u32 = 0;
const WARM: u32 = 1;
const EVIDENCE: u32 = 2;

/// Slabs whose pages wait for the next slab of their kind. The front is warm, released last; behind it lie
/// those that were looked at.
pub(super) struct Parked {
    lists: [List; KINDS],
    /// Pages that are not discarded.
    warm: usize,
}

/// The list of slabs of a class, or of spans of that many pages.
fn kind(class: usize, pages: usize) -> usize {
    if class < CLASSES {
        class
    } else {
        CLASSES + pages.min(SPAN_PAGES)
    }
}

impl Parked {
    pub(super) const fn new() -> Parked {
        Parked {
            lists: [const { List::new() }; KINDS],
            warm: 0,
        }
    }

    /// In a fork child: forgets all.
    pub(super) fn forget(&mut self) {
        self.lists.iter().for_each(List::clear);
        self.warm = 0;
    }

    /// Adds a slab whose owner word says released.
    pub(super) fn put(&mut self, table: SlabTable, slab: SlabPtr) {
        slab.owner.store(RELEASED, Relaxed);
        slab.set_state(State::Parked);
        slab.counted.store(WARM, Relaxed);
        self.warm += slab.pages();
        self.lists[kind(slab.class(), slab.pages())].push_front(table, slab);
    }

    fn take(&mut self, table: SlabTable, shape: &Shape) -> Option<SlabPtr> {
        let list = &self.lists[kind(shape.class, shape.pages)];
        let fits = |slab: &SlabPtr| slab.base().is_multiple_of(shape.align * PAGE);
        let slab = core::iter::successors(list.first(table), |&slab| list.after(table, slab))
            .take(PARKED_PER_TICK)
            .find(fits)?;
        list.unlink(table, slab);
        if slab.counted.load(Relaxed) == WARM {
            self.warm -= slab.pages();
        }
        Some(slab)
    }

    /// Takes a slab that is not discarded out of its list.
    fn take_warm(&mut self, table: SlabTable) -> Option<SlabPtr> {
        if self.warm == 0 {
            return None;
        }
        let warm = |list: &List| {
            list.first(table)
                .filter(|slab| slab.counted.load(Relaxed) == WARM)
        };
        let slab = self.lists.iter().find_map(warm)?;
        self.lists[kind(slab.class(), slab.pages())].unlink(table, slab);
        self.warm -= slab.pages();
        Some(slab)
    }

    /// Puts a slab that is discarded, or is not to be, behind the others.
    fn put_last(&mut self, table: SlabTable, slab: SlabPtr, as_what: u32) {
        slab.counted.store(as_what, Relaxed);
        self.lists[kind(slab.class(), slab.pages())].push_back(table, slab);
    }

    /// Pages of kept slabs that are not discarded.
    pub(super) fn warm_pages(&self) -> usize {
        self.warm
    }

    /// Pages of all kept slabs.
    pub(super) fn pages(&self, table: SlabTable) -> usize {
        let slabs = |list: &List| {
            let each = core::iter::successors(list.first(table), |&slab| list.after(table, slab));
            each.map(SlabPtr::pages).sum::<usize>()
        };
        self.lists.iter().map(slabs).sum()
    }
}

/// `Pages::keeping`: pages stay with their class; and freed ones are zero.
const KEEPING: u32 = 1;
const KEEPING_ZERO: u32 = 2;

/// Whether `bytes` bytes of the heap's at `start` are zero: whole pages.
pub fn is_zero(start: usize, bytes: usize) -> bool {
    // SAFETY: the caller's pages are usable, and any bits are a word.
    let words = unsafe { core::slice::from_raw_parts(start as *const u64, bytes / 8) };
    let mut lines = words.chunks_exact(8);
    lines.all(|line| line.iter().fold(0, |sum, word| sum | word) == 0)
}

impl Pages {
    /// From now on, before the first slab is carved, pages stay with their class and slabs are guarded.
    /// `zero`: what is freed is zero, and what is not zero any more must not be discarded.
    pub fn begin_keeping(&self, zero: bool) {
        let how = if zero { KEEPING_ZERO } else { KEEPING };
        self.keeping.store(how, Release);
    }

    #[inline]
    pub(super) fn is_keeping(&self) -> bool {
        self.keeping.load(Relaxed) != 0
    }

    /// A slab made of pages that its class had before, or of fresh ones with a guard page behind.
    pub(super) fn new_slab_parked<O: Os>(
        &self,
        os: &O,
        meta: &Meta,
        shape: &Shape,
        owner: u64,
    ) -> Option<(SlabPtr, bool)> {
        let kept = self.inner.lock().kept.take(self.table(), shape);
        if let Some(slab) = kept {
            let pages = slab.pages();
            let of_class = shape.class < CLASSES;
            let again = Shape {
                pages,
                size: if of_class { shape.size } else { pages * PAGE },
                slots: if of_class {
                    slots_in(shape.class, pages)
                } else {
                    shape.slots
                },
                ..*shape
            };
            slab.make(&again, slab.base(), owner);
            return Some((slab, false));
        }
        if meta.os_page() != PAGE {
            return self.new_slab_fresh(os, meta, shape, owner);
        }
        let guarded = Shape {
            pages: shape.pages + 1,
            ..*shape
        };
        let (slab, fresh) = self.new_slab_fresh(os, meta, &guarded, owner)?;
        self.guard_end(os, slab, shape);
        Some((slab, fresh))
    }

    /// Makes the last page of a slab of one page more than `shape` has its guard.
    fn guard_end<O: Os>(&self, os: &O, slab: SlabPtr, shape: &Shape) {
        slab.set_pages(shape.pages);
        let end = slab.base() + shape.pages * PAGE;
        self.set_map(self.page_of(end), 1, SlabId::FOREIGN);
        // SAFETY: the page is the heap's and nobody's: it was carved, and the slab ends before it.
        let _ = NonNull::new(end as *mut u8).is_some_and(|end| unsafe { os.fence(end, PAGE) });
    }

    /// Puts a released slab aside for the next one of its kind.
    pub(super) fn keep<O: Os>(&self, os: &O, slab: SlabPtr) {
        let cold = {
            let kept = &mut self.inner.lock().kept;
            if kept.warm + slab.pages() <= WARM_PAGES {
                kept.put(self.table(), slab);
                return;
            }
            slab.owner.store(RELEASED, Relaxed);
            slab
        };
        self.discard_one(os, cold);
    }

    fn discard_one<O: Os>(&self, os: &O, slab: SlabPtr) {
        let bytes = slab.pages() * PAGE;
        let evidence = self.keeping.load(Relaxed) == KEEPING_ZERO && !is_zero(slab.base(), bytes);
        let start = NonNull::new(slab.base() as *mut u8).filter(|_| !evidence);
        // SAFETY: the slab is on no list and nobody's, and all of its slots are free.
        let done = start.is_some_and(|start| unsafe { os.discard(start, bytes) });
        let kept = &mut self.inner.lock().kept;
        if done || evidence {
            slab.set_state(State::Parked);
            kept.put_last(self.table(), slab, if done { COLD } else { EVIDENCE });
        } else {
            kept.put(self.table(), slab);
        }
    }

    /// Discards what all kept slabs hold, as far as the system lets it.
    pub fn discard_all_kept<O: Os>(&self, os: &O, meta: &Meta) {
        // Each has a page at least, and one that could not be discarded is kept as it was.
        self.discard_kept(os, meta, WARM_PAGES);
    }

    /// Discards what up to `most` kept slabs hold.
    pub(super) fn discard_kept<O: Os>(&self, os: &O, meta: &Meta, most: usize) {
        for _ in 0..most {
            let warm = self.inner.lock().kept.take_warm(self.table());
            let Some(slab) = warm else {
                return;
            };
            counters::add(&meta.counters().purged, (slab.pages() * PAGE) as u64);
            self.discard_one(os, slab);
        }
    }
}
