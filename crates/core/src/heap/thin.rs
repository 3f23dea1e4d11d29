//! Slots of more than 1 KiB: what is freed beside live ones goes back although no call follows.
//!
//! ```text
//!   live slots   all ... a quarter    fewer                             none      above 8 KiB
//!                all ... a tenth      fewer                             none      1 to 8 KiB
//!   slab         waits                thin: each free is an event          released
//! ```
//!
//! Such a slot, or a few in a row, covers whole pages, so its free leaves pages that can be discarded. A process that
//! makes no call after a burst has no ticks. So a slab of such slots that waits raises an event when as few of them are
//! live, and at each free from then on. It is *thin* then. The heap counts what is freed in thin slabs. Where that may
//! be more than a bound, it counts what lies idle in them, and discards idle pages down to half of the bound if that is
//! more. Long runs of such pages go first: what is freed beside short ones makes them longer, or empties the slab, and
//! then they need no call of their own. The bound learns: a program that soon takes again what went back keeps
//! as much from then on. Where the heap grew lately beside idle pages that nobody needed, what is freed in a slab with
//! holes goes at once: such a slab serves last, and the bound is that of a program that takes again what it freed.
//!
//! A slab of which less is free waits for a tick. A program that replaces its blocks at random has hardly any thin slabs
//! and pays nothing.

use super::{count_steadily, Heap, HeapRef};
use crate::class::{ClassId, LOCAL_CLASSES, MANY_MAX};
use crate::counters;
use crate::learnt::Learnt;
use crate::os::Os;
use crate::slab::{SlabPtr, State};
use crate::sync::{add_owned, Ordering::Relaxed};
use crate::units::{LOCAL_MAX, PAGE};
use core::cell::Cell;

/// Bytes that are freed in thin slabs before it is asked whether that is too much.
const STEP: usize = 1 << 19;
/// Idle bytes that stay in thin slabs at first, and that are learnt to stay at most.
const LEAST: usize = 2 << 20;
const MOST: usize = 1 << 34;
/// The part of the process's live bytes that may lie idle there in all heaps together.
const PART: usize = 8;
/// The part of the bound that is freed before it is asked again, where all was within it.
const CALM_PART: usize = 16;
/// Bytes for each slab that was walked that are freed before the next question. Each has a live page at least.
const STEP_A_SLAB: usize = PAGE / PART;
/// Runs of so many idle pages go at once where any do: they are worth a call of the system.
const RUN_MOST: usize = 8;
/// Slabs that are discarded at one free, where more are walked one in so many of those, and those in a row of which
/// nothing goes before it gives up. So as many slabs are walked for each one in a heap of any size.
const MOST_AT_ONCE: usize = 64;
const MOST_IN_VAIN: usize = 8;

/// What a heap knows of its thin slabs. All zero: nothing.
pub(super) struct Thin {
    /// Bytes that lay idle when they were counted last, and those freed since.
    idle: Cell<usize>,
    /// Those freed since the last question.
    fresh: Cell<usize>,
    /// How many are freed before the next one. 0 stands for [`STEP`].
    step: Cell<usize>,
    /// Bytes of discarded pages in slabs that became empty and were released, and that no new slab took since.
    released: Cell<usize>,
    /// How many stay. A bound of 0 stands for the first one.
    kept: Cell<Learnt>,
}

impl Thin {
    fn kept(&self) -> Learnt {
        match self.kept.get() {
            unset if unset.bound() == 0 => Learnt::new(LEAST, MOST),
            kept => kept,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Learnt)) -> usize {
        let mut kept = self.kept();
        change(&mut kept);
        self.kept.set(kept);
        kept.bound()
    }

    /// Whether so many bytes more are enough to ask if that is too much.
    #[inline(always)]
    fn is_due(&self, bytes: usize) -> bool {
        self.fresh.get() + bytes >= self.step.get().max(STEP)
    }

    /// So many bytes are freed.
    #[inline(always)]
    fn count(&self, bytes: usize) {
        self.idle.set(self.idle.get().saturating_add(bytes));
        self.fresh.set(self.fresh.get() + bytes);
    }
}

/// Whether the slots of `slab` are so large that the frees of a few leave whole pages free.
#[inline(always)]
fn has_large_slots(slab: SlabPtr) -> bool {
    slab.size() > LOCAL_MAX
}

/// Slots of `slab`, which has `slots`, from which on it is thin if no more are live: a quarter, or a tenth where a page
/// may have a part of several slots. Of a quarter there, hardly two idle pages lie side by side, and each range that goes
/// back costs a system call.
#[inline(always)]
fn most_of_thin(slab: SlabPtr, slots: usize) -> usize {
    match slab.size() > MANY_MAX as usize {
        true => slots / 4,
        false => slots / 10,
    }
}

/// Free slots of `slab` from which on it is thin.
#[inline(always)]
fn least_of_thin(slab: SlabPtr) -> usize {
    slab.slots() - most_of_thin(slab, slab.slots())
}

/// As [`frees_until_event`] of a slab of slots above 1 KiB, two to 64, of which one is free.
#[inline(always)]
pub(super) fn frees_after_first(slab: SlabPtr) -> i32 {
    frees_after_first_of(slab.size(), slab.slots()) as i32
}

#[inline(always)]
const fn frees_after_first_of(size: usize, slots: usize) -> usize {
    // A quarter, or a tenth of so few.
    let part = if size > MANY_MAX as usize {
        1 << 14
    } else {
        6554
    };
    slots - 1 - ((slots * part) >> 16)
}

/// How many frees `slab`, which waits with `live` live ones of its `slots` slots, may stay as it is.
#[inline(always)]
pub(super) fn frees_until_event(slab: SlabPtr, slots: usize, live: usize) -> i32 {
    let silent = match has_large_slots(slab) {
        true => live.saturating_sub(most_of_thin(slab, slots)).max(1),
        false => live,
    };
    silent as i32
}

/// `slab`, whose `frees_left` was `before` when it was judged, may stay as it is for `frees` frees. What a signal handler
/// freed since counts among them, and an event follows at the next free where that was as many.
#[inline(always)]
pub(super) fn set_frees(slab: SlabPtr, frees: i32, before: i32) {
    add_owned(&slab.frees_left, frees.wrapping_sub(before));
    if slab.frees_left.get() <= 0 {
        slab.frees_left.set(1);
    }
}

/// Live slots of `slab`, which waits on a list of its heap's.
#[inline(always)]
pub(super) fn live_of_waiting(slab: SlabPtr) -> usize {
    match has_large_slots(slab) {
        true => slab.slots() - slab.count_free(),
        false => slab.frees_left.get().max(0) as usize,
    }
}

/// Whether `slab` waits with an event at each free.
pub(super) fn is_thin(slab: SlabPtr) -> bool {
    let waits = matches!(slab.state(), State::Partial | State::Sparse);
    waits && has_large_slots(slab) && live_of_waiting(slab) <= most_of_thin(slab, slab.slots())
}

/// Slots of `slab` that were free at its last event.
#[inline(always)]
pub(super) fn free_before(slab: SlabPtr) -> usize {
    slab.slots() - slab.counted.load(Relaxed) as usize
}

/// Bytes to count where `free` slots of `slab` are free, and `before` were: those freed, or all that are free where the
/// slab became thin just now. 0 where it is not thin.
#[inline(always)]
fn freed_bytes(slab: SlabPtr, before: usize, free: usize) -> usize {
    let least = least_of_thin(slab);
    if free < least {
        return 0;
    }
    let counted = if before >= least { before } else { 0 };
    free.saturating_sub(counted) * slab.size()
}

/// The runs of set bits of `pages`: first page and number.
pub(super) fn runs(mut pages: u32) -> impl Iterator<Item = (usize, usize)> {
    core::iter::from_fn(move || {
        if pages == 0 {
            return None;
        }
        let first = pages.trailing_zeros();
        let n = (pages >> first).trailing_ones();
        pages &= !(u32::MAX >> (32 - n) << first);
        Some((first as usize, n as usize))
    })
}

/// Bytes that lie idle in thin slabs, by how many such pages lie side by side: [`RUN_MOST`] stands for more too.
#[derive(Default)]
struct Idle {
    by_run: [usize; RUN_MOST + 1],
}

impl Idle {
    /// Counts a slab of which the pages `idle` lie idle.
    fn count(&mut self, idle: u32) {
        for (_, n) in runs(idle) {
            self.by_run[n.min(RUN_MOST)] += n * PAGE;
        }
    }

    fn bytes(&self) -> usize {
        self.by_run.iter().sum()
    }

    /// The longest run of which all that are as long hold enough for `goal` bytes to be left.
    fn least_run(&self, goal: usize) -> usize {
        let mut left = self.bytes();
        for (n, bytes) in self.by_run.iter().enumerate().rev() {
            left -= bytes;
            if left <= goal {
                return n;
            }
        }
        0
    }
}

/// What of `pages` lies in runs of `least` pages or more.
fn long_runs(pages: u32, least: usize) -> u32 {
    let long = runs(pages).filter(|&(_, n)| n >= least);
    long.fold(0, |pages, (first, n)| pages | u32::MAX >> (32 - n) << first)
}

impl<O: Os> HeapRef<'_, O> {
    /// The common half of [`HeapRef::freed_in_thin`]: false where more is to be done, or the slab is not thin.
    #[inline]
    pub(super) fn freed_in_thin_fast(self, slab: SlabPtr) -> bool {
        let waits = match slab.state() {
            State::Partial => true,
            State::Sparse => slab.discarded.load(Relaxed) != 0 && !self.growth.is_of_use(),
            _ => false,
        };
        if !has_large_slots(slab) || !waits {
            return false;
        }
        let (free, before) = count_steadily(slab);
        let bytes = freed_bytes(slab, free_before(slab), free);
        if bytes == 0 || free == slab.slots() || self.thin.is_due(bytes) {
            return false;
        }
        self.account(slab, free);
        set_frees(slab, 1, before);
        self.thin.count(bytes);
        true
    }

    /// Slots of `slab`, which is thin, were freed. `before` of them were free at the last event.
    pub(super) fn freed_in_thin(self, slab: SlabPtr, before: usize) {
        if self.backend.pages.waits() {
            self.thin.fresh.set(0);
            return;
        }
        let whole = slab.discarded.load(Relaxed) == 0;
        if slab.state() == State::Sparse && !whole && self.growth.is_of_use() {
            self.discard_beside_growth(slab);
            return;
        }
        if slab.state() == State::Sparse && whole && before < least_of_thin(slab) {
            // It was set aside since many of its slots were free when the heap grew.
            self.take_back(slab);
        }
        let bytes = freed_bytes(slab, before, slab.count_free());
        let due = self.thin.is_due(bytes);
        self.thin.count(bytes);
        if due {
            self.thin.fresh.set(0);
            self.look_at_thin();
        }
    }

    /// Discards what lies idle in thin slabs, if that is too much.
    fn look_at_thin(self) {
        if self.thin.idle.get() <= LEAST {
            return;
        }
        self.flush_stats();
        let now = self.backend.os.clock();
        let learnt = self.thin.change(|kept| kept.learn(now));
        let counters = self.backend.meta.counters();
        let live = counters::read(&counters.live);
        let heaps = counters.heaps.load(Relaxed).max(1) as usize;
        let bound = learnt.max(live / PART / heaps);
        if self.thin.idle.get() <= bound {
            return;
        }
        let mut idle = Idle::default();
        let walked = self.each_thin(|slab| {
            idle.count(self.idle_pages_of(slab));
            true
        });
        let most = MOST_AT_ONCE.max(walked / MOST_AT_ONCE);
        let (mut left, goal) = (idle.bytes(), bound / 2);
        self.thin.idle.set(left);
        let is_calm = left <= bound;
        let step = if is_calm { bound / CALM_PART } else { 0 };
        self.thin.step.set(step.max(walked * STEP_A_SLAB));
        if is_calm {
            return;
        }
        let least = idle.least_run(goal);
        let (mut gone, mut slabs, mut in_vain) = (0, 0, 0);
        self.each_thin(|slab| {
            let pages = long_runs(self.idle_pages_of(slab), least);
            if pages == 0 {
                return true;
            }
            let bytes = self.discard_part(slab, pages);
            // One that is locked in memory, or was written to after a free, does not come up again.
            if slab.state() == State::Partial {
                self.set_aside(slab);
            }
            in_vain = if bytes == 0 { in_vain + 1 } else { 0 };
            (gone, slabs, left) = (gone + bytes, slabs + 1, left.saturating_sub(bytes));
            in_vain < MOST_IN_VAIN && slabs < most
        });
        self.thin.idle.set(left);
        self.thin.change(|kept| kept.give(gone, now));
    }

    /// `bytes` bytes of `slab`, which were discarded, are to be used again.
    pub(super) fn take_discarded(self, slab: SlabPtr, bytes: usize) {
        if has_large_slots(slab) {
            self.thin.change(|kept| kept.take(bytes));
        }
    }

    /// `slab` is released, whichever of its pages were discarded.
    pub(super) fn release_thin(self, slab: SlabPtr) {
        if has_large_slots(slab) {
            let pages = slab.discarded.load(Relaxed).count_ones() as usize;
            let released = &self.thin.released;
            released.set(released.get().saturating_add(pages * PAGE));
        }
    }

    /// `slab` is new. As far as discarded pages were released, it takes their place.
    pub(super) fn take_released(self, slab: SlabPtr) {
        let released = &self.thin.released;
        let bytes = released.get().min(slab.pages() * PAGE);
        if bytes > 0 && has_large_slots(slab) {
            released.set(released.get() - bytes);
            self.take_discarded(slab, bytes);
        }
    }

    /// Shows the thin slabs that wait, until `visit` says that it is enough. Of those that were set aside only the ones of
    /// which something went. Returns how many slabs wait before that.
    fn each_thin(self, mut visit: impl FnMut(SlabPtr) -> bool) -> usize {
        let table = self.table();
        let mut walked = 0;
        for class in ClassId::all().skip(LOCAL_CLASSES) {
            let class = &self.classes[class.index()];
            let sparse = class.sparse.iter(table);
            let shown = sparse.filter(|slab| slab.discarded.load(Relaxed) != 0);
            for slab in class.partial.iter(table).chain(shown) {
                walked += 1;
                // A thin slab raises an event at the next free.
                if slab.frees_left.get() <= 1 && is_thin(slab) && !visit(slab) {
                    return walked;
                }
            }
        }
        walked
    }

    /// `slab`, which was set aside, waits in the queue of its class again.
    fn take_back(self, slab: SlabPtr) {
        let this = &self.classes[slab.class().index()];
        this.sparse.unlink(slab);
        slab.set_state(State::Partial);
        this.partial.push_back(slab);
    }
}

impl Heap {
    /// Another thread gets the heap.
    pub(super) fn forget_thin(&self) {
        let thin = &self.thin;
        for bytes in [&thin.idle, &thin.fresh, &thin.step, &thin.released] {
            // A page that was not written to stays so.
            if bytes.get() != 0 {
                bytes.set(0);
            }
        }
        if thin.kept.get().bound() != 0 {
            thin.kept.set(Learnt::new(LEAST, MOST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::{most_pages, size_of_class, slab_pages, slots_in};
    use crate::slab::Slab;

    #[test]
    fn runs_cover_just_the_set_bits() {
        let halves = (0..=u32::from(u16::MAX)).step_by(7);
        let mixed = halves.flat_map(|low| [low, low << 16, !low, low | low.reverse_bits()]);
        for pages in mixed {
            let mut covered = 0;
            for (first, n) in runs(pages) {
                let run = (((1u64 << n) - 1) << first) as u32;
                assert_eq!(covered & run, 0);
                assert_eq!(
                    u64::from(pages) >> (first + n) & 1,
                    0,
                    "a run is as long as can be"
                );
                covered |= run;
            }
            assert_eq!(covered, pages);
        }
    }

    #[test]
    fn the_longest_runs_go_of_which_enough_lies_idle() {
        // Runs of 1, 2 and 4 pages in each of three slabs, and one of 20.
        let slabs = [
            0b1111_0011_0100,
            0b1011_0111_1000,
            0b1101_1110_0001,
            0xf_ffff,
        ];
        let mut idle = Idle::default();
        slabs.iter().for_each(|&slab| idle.count(slab));
        assert_eq!(idle.bytes(), (3 * 7 + 20) * PAGE);
        for (goal, least, left) in [
            (21, 20, 21),
            (20, 4, 9),
            (9, 4, 9),
            (8, 2, 3),
            (2, 1, 0),
            (0, 1, 0),
        ] {
            let found = idle.least_run(goal * PAGE);
            assert_eq!(found, least.min(RUN_MOST), "{goal}");
            let short = slabs.map(|slab| slab & !long_runs(slab, found));
            let pages: u32 = short.iter().map(|slab| slab.count_ones()).sum();
            assert_eq!(pages, left, "{goal}");
        }
    }

    #[test]
    fn frees_after_the_first_one_are_as_of_any_slab_that_waits() {
        let headers: [Slab; 1] = core::array::from_fn(|_| Slab::blank());
        // SAFETY: the header outlives the pointer, and no other header is reached.
        let slab = unsafe { SlabPtr::new(core::ptr::NonNull::from(&headers[0])) };
        for class in ClassId::all().skip(LOCAL_CLASSES) {
            slab.size.store(size_of_class(class) as u32, Relaxed);
            for pages in slab_pages(class, 0)..=most_pages(class) {
                let slots = slots_in(class, pages);
                slab.slots.store(slots as u16, Relaxed);
                let expected = frees_until_event(slab, slots, slots - 1);
                assert_eq!(frees_after_first(slab), expected, "{slots}");
            }
        }
    }

    #[test]
    fn whole_slabs_are_one_run() {
        assert_eq!(long_runs(u32::MAX, RUN_MOST), u32::MAX);
        assert_eq!(long_runs(0, 0), 0);
    }
}
