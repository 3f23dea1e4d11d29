//! Hardened mode: pages that stay with their class for good, a guard page after each slab.
//!
//! ```text
//!   | slab of 48 bytes | guard | slab of 48 bytes | guard | span of 5 pages | guard | ...
//! ```
//!
//! A released slab keeps its pages, and the next slab of the same class (a span: of as many pages) is made of
//! them, so that a dangling pointer never leads to an object of another size. What costs memory goes back:
//! the pages are discarded, not given up, and the break does not move down. A guard page counts as
//! somebody else's, like a page that a foreign `sbrk` took. One lies before the first slab as well, and before one
//! whose address is chosen.
//!
//! Pages of a kept slab are warm until they are discarded. A span is drawn among the warm ones of its kind first, so
//! those that are used again and again stay warm. What is discarded is what was released longest ago.
//!
//! Where the system refuses memory, kept slabs give up their classes: a program must not run out of memory that lies
//! there for another size.

use super::{Inner, Pages};
use crate::class::{slots_in, ClassId, CLASSES, SPAN};
use crate::counters;
use crate::free_runs::Cleanness;
use crate::learnt::Learnt;
use crate::meta::{Meta, Supply};
use crate::os::Os;
use crate::owner::{Owner, RELEASED};
use crate::slab::{List, Shape, SlabPtr, SlabTable, State, GUARD_AFTER, GUARD_BEFORE};
use crate::sync::{Ordering::Relaxed, Ordering::Release};
use crate::units::{PageNo, SlabId, PAGE, SPAN_PAGES};
use core::ptr::NonNull;

/// Parked slabs that are looked at for one whose address fits.
const LOOKED_AT: usize = 64;
/// Parked slabs that a tick discards at most, and a release.
const DISCARDED_BY_TICK: usize = 512;
const DISCARDED_BY_RELEASE: usize = 64;
/// Warm pages that are kept at first, whatever is in use, and that are learnt to be kept.
const WARM_LEAST: usize = 256;
const WARM_MOST: usize = 4096;
/// The part of the pages in use that may be warm besides.
const WARM_PART: usize = 16;
/// Warm pages that may be learnt to be kept beyond what was in use lately, and the spans that are drawn.
const WARM_BEYOND: usize = 512;
/// Pages of a guard.
const GUARD: usize = 1;
/// Slabs of a kind whose guards stay closed before the others are not tried.
const STUCK_MOST: usize = 8;
/// So long after memory was refused no spans are carved only to be drawn among, in milliseconds.
const SHORT_MS: u64 = 10_000;
/// Kinds: a class each, and one for each number of pages that a span has.
const KINDS: usize = CLASSES + SPAN_PAGES + 1;

/// What became of an attempt to discard a warm slab.
enum Discarded {
    Whole,
    /// Somebody wrote into it after it was freed: it stays as it is, for the report.
    Evidence,
    /// The system refused.
    Refused,
}

/// `counted` of a kept slab: its contents are gone, or may lie in memory. They stay there where they are not zero as
/// they were left: the next allocation from it will tell of a write after free.
const COLD: u16 = 0;
const WARM: u16 = 1;
/// `counted` of a span that nobody has had yet: it is all zero.
const UNUSED: u16 = 2;

/// Random bits that a span is drawn by.
const LOT_BITS: usize = 4;
/// Among how many free spans of its size one is drawn: up to [`SHORT_PAGES`] pages, whose quarantine holds more of
/// them, and beyond.
const AMONG: [usize; 2] = [16, 8];
const SHORT_PAGES: usize = 8;

/// Slabs whose pages wait for the next slab of their kind.
pub(super) struct Parked {
    /// Of each kind those whose pages lie in memory, released last first.
    warm: [List; KINDS],
    /// The others, those that nobody has had yet come last.
    cold: [List; KINDS],
    /// How many slabs each pair of lists has, and how many of them are warm.
    counts: [usize; KINDS],
    warm_counts: [usize; KINDS],
    /// The fewest warm ones since the last tick, whether one of the kind was taken since, and how many are to be
    /// discarded.
    low: [usize; KINDS],
    was_used: [bool; KINDS],
    due: [usize; KINDS],
    /// How many of each kind were discarded lately: whoever takes as many cold ones needs them again.
    discarded: [usize; KINDS],
    /// Pages that are not discarded.
    warm_pages: usize,
    /// Pages of all kept slabs.
    pages: usize,
    /// Pages of the kept slabs of each kind.
    kind_pages: [usize; KINDS],
    /// As many pages of them could not be given up the last time.
    stuck: usize,
    /// When they were to give up their classes the last time. 0 means never.
    gave_up_at: u64,
    /// Guard pages of all slabs, kept ones and others.
    guards: usize,
    /// The kind whose turn it is to be discarded.
    turn: usize,
    /// Warm pages that are kept although few pages are in use.
    spare: Learnt,
    /// Warm pages that are kept although something else in the process grows.
    way: Learnt,
    /// Pages by which something else grew, and for which nothing went back yet.
    pressed: usize,
    /// The most pages that were in use lately.
    used_lately: usize,
    /// Pages of all spans that are drawn among, of the kinds that were used since the last tick and in the interval
    /// before.
    drawn: [usize; 2],
}

/// The list of slabs of a class, or of spans of that many pages.
fn kind(class: ClassId, pages: usize) -> usize {
    if class.is_span() {
        CLASSES + pages.min(SPAN_PAGES)
    } else {
        class.index()
    }
}

/// Among how many spans of a kind one is drawn. Of slabs the one released last is used first.
fn among(kind: usize) -> usize {
    match kind.checked_sub(CLASSES) {
        None => 0,
        Some(pages) => AMONG[usize::from(pages > SHORT_PAGES)],
    }
}

impl Parked {
    pub(super) const fn new() -> Parked {
        Parked {
            warm: [const { List::new() }; KINDS],
            cold: [const { List::new() }; KINDS],
            counts: [0; KINDS],
            warm_counts: [0; KINDS],
            low: [0; KINDS],
            was_used: [false; KINDS],
            due: [0; KINDS],
            discarded: [0; KINDS],
            warm_pages: 0,
            pages: 0,
            kind_pages: [0; KINDS],
            stuck: 0,
            gave_up_at: 0,
            guards: 0,
            turn: 0,
            spare: Learnt::new(WARM_LEAST, WARM_MOST),
            way: Learnt::new(WARM_LEAST, WARM_MOST),
            pressed: 0,
            used_lately: 0,
            drawn: [0; 2],
        }
    }

    /// In a fork child: forgets all.
    pub(super) fn forget(&mut self) {
        self.warm.iter().for_each(List::clear);
        self.cold.iter().for_each(List::clear);
        (self.counts, self.warm_counts) = ([0; KINDS], [0; KINDS]);
        (self.low, self.due) = ([0; KINDS], [0; KINDS]);
        self.kind_pages = [0; KINDS];
        (self.warm_pages, self.pages, self.stuck) = (0, 0, 0);
    }

    /// Adds a slab whose owner word says released, and whose pages are as `how` says.
    pub(super) fn put(&mut self, slab: SlabPtr, how: u16) {
        slab.owner.store(RELEASED, Relaxed);
        // A fork child believes it of every slab whose state says so.
        slab.counted.store(how, Relaxed);
        slab.set_state(State::Parked);
        let kind = kind(slab.class(), slab.pages());
        match how {
            WARM => {
                self.warm[kind].push_front(slab);
                self.warm_counts[kind] += 1;
                self.warm_pages += slab.pages();
            }
            COLD => self.cold[kind].push_front(slab),
            _ => self.cold[kind].push_back(slab),
        }
        self.counts[kind] += 1;
        self.kind_pages[kind] += slab.pages();
        self.pages += slab.pages();
    }

    /// In a fork child: adds a slab that was kept, with its pages as they are.
    pub(super) fn put_again(&mut self, slab: SlabPtr) {
        self.put(slab, slab.counted.load(Relaxed));
    }

    /// Takes a slab out of its list.
    fn unlink(&mut self, slab: SlabPtr) {
        let kind = kind(slab.class(), slab.pages());
        if slab.counted.load(Relaxed) == WARM {
            self.warm[kind].unlink(slab);
            self.warm_counts[kind] -= 1;
            self.warm_pages -= slab.pages();
            self.low[kind] = self.low[kind].min(self.warm_counts[kind]);
        } else {
            self.cold[kind].unlink(slab);
        }
        self.counts[kind] -= 1;
        self.kind_pages[kind] -= slab.pages();
        self.pages -= slab.pages();
        self.stuck = self.stuck.min(self.pages);
    }

    /// Takes a slab out of its list that is to be used.
    fn use_again(&mut self, slab: SlabPtr) {
        self.unlink(slab);
        let kind = kind(slab.class(), slab.pages());
        if !self.was_used[kind] {
            self.was_used[kind] = true;
            self.drawn[0] += among(kind) * slab.pages();
        }
        if slab.counted.load(Relaxed) == COLD && self.discarded[kind] > 0 {
            self.discarded[kind] -= 1;
            self.spare.take(slab.pages());
            self.way.take(slab.pages());
        }
    }

    /// Kept slabs of a kind: the warm ones first.
    fn of_kind(&self, table: SlabTable, kind: usize) -> impl Iterator<Item = SlabPtr> + '_ {
        self.warm[kind]
            .iter(table)
            .chain(self.cold[kind].iter(table))
    }

    /// Spans of `pages` pages.
    fn spans(&self, pages: usize) -> usize {
        self.counts[kind(SPAN, pages)]
    }

    /// Takes one of the first `among` <= 16 spans of `pages` pages, by four random bits, and says whether nobody ever
    /// had it.
    fn draw(
        &mut self,
        table: SlabTable,
        pages: usize,
        among: usize,
        lot: usize,
    ) -> Option<(SlabPtr, bool)> {
        let kind = kind(SPAN, pages);
        let place = (lot * among.min(self.counts[kind])) >> LOT_BITS;
        let slab = self.of_kind(table, kind).nth(place)?;
        self.use_again(slab);
        Some((slab, slab.counted.load(Relaxed) == UNUSED))
    }

    fn take(&mut self, table: SlabTable, shape: &Shape) -> Option<SlabPtr> {
        let fits = |slab: &SlabPtr| slab.base().is_multiple_of(shape.align * PAGE);
        let slab = self
            .of_kind(table, kind(shape.class, shape.pages))
            .take(LOOKED_AT)
            .find(fits)?;
        self.use_again(slab);
        Some(slab)
    }

    /// Takes a slab of `kind` out that is to give up its class: first one that nobody has had yet, last one that could
    /// not be discarded.
    fn take_last(&mut self, table: SlabTable, kind: usize) -> Option<SlabPtr> {
        let slab = self.cold[kind]
            .last(table)
            .or_else(|| self.warm[kind].last(table))?;
        self.unlink(slab);
        Some(slab)
    }

    /// Takes out the warm slab of one kind that was released longest ago. With `is_due` it is a kind of which some
    /// slabs were not needed. Otherwise a kind comes first that has more slabs than spans are drawn among. The kinds
    /// take turns.
    fn take_warm(&mut self, table: SlabTable, is_due: bool) -> Option<SlabPtr> {
        if self.warm_pages == 0 {
            return None;
        }
        let kinds = || (0..KINDS).map(|i| (self.turn + i) % KINDS);
        let is_warm = |&kind: &usize| self.warm_counts[kind] > 0;
        let kind = match is_due {
            true => kinds().find(|kind| self.due[*kind] > 0 && is_warm(kind)),
            false => kinds()
                .find(|&kind| self.warm_counts[kind] > among(kind))
                .or_else(|| kinds().find(is_warm)),
        }?;
        self.turn = (kind + 1) % KINDS;
        self.due[kind] = self.due[kind].saturating_sub(1);
        let slab = self.warm[kind].last(table)?;
        self.unlink(slab);
        Some(slab)
    }

    /// Finds out how many warm slabs of each kind nobody needed since the last tick. Of spans that were drawn, any one
    /// of those that they are drawn among may be the next.
    pub(super) fn find_due(&mut self) {
        for kind in 0..KINDS {
            let needed = if self.was_used[kind] { among(kind) } else { 0 };
            self.due[kind] = self.low[kind].saturating_sub(needed);
        }
        self.low = self.warm_counts;
        self.was_used = [false; KINDS];
        self.discarded.iter_mut().for_each(|count| *count /= 2);
        self.used_lately /= 2;
        self.drawn = [0, self.drawn[0]];
    }

    /// So many warm pages were discarded since nobody needed them.
    pub(super) fn were_unused(&mut self, pages: usize) {
        self.spare.quieten(pages);
    }

    /// Warm pages that are to be discarded, where `used` pages are in use and a slab was released, or, not `released`,
    /// was made of pages that held nothing. What is learnt to be kept hardly takes more than what was in use before.
    fn excess(&mut self, used: usize, now: u64, released: bool) -> usize {
        self.used_lately = self.used_lately.max(used);
        let part = used / WARM_PART;
        if self.warm_pages <= WARM_LEAST.max(part) {
            return 0;
        }
        if released {
            self.spare.learn(now);
        }
        let gone = self.used_lately - used;
        // How many spans of each size are free goes up and down.
        let drawn = self.drawn[0].max(self.drawn[1]) * 3 / 2;
        let spare = self.spare.bound().min(gone.max(WARM_BEYOND + drawn));
        let excess = self.warm_pages.saturating_sub(spare.max(part));
        if excess > 0 {
            self.spare.give(excess, now);
        }
        excess
    }

    /// Something else in the process grew by `pages` pages at `now`: as many warm ones are to be discarded, but for those
    /// that are kept whatever happens, and those that were soon taken again after an earlier time.
    fn excess_beside(&mut self, pages: usize, used: usize, now: u64) -> usize {
        self.pressed += pages;
        if self.pressed < WARM_LEAST {
            return 0;
        }
        let pressed = core::mem::take(&mut self.pressed);
        self.way.learn(now);
        let bound = self.way.bound().max(used / WARM_PART);
        self.warm_pages.saturating_sub(bound).min(pressed)
    }

    /// Pages of kept slabs that are not discarded.
    pub(super) fn warm_pages(&self) -> usize {
        self.warm_pages
    }

    /// Pages in which nobody has anything: of kept slabs, and guards.
    pub(super) fn unused_pages(&self) -> usize {
        self.pages + self.guards
    }

    /// Pages of all kept slabs, as their lists say.
    pub(super) fn count_pages(&self, table: SlabTable) -> usize {
        let slabs = (0..KINDS).flat_map(|kind| self.of_kind(table, kind));
        slabs.map(SlabPtr::pages).sum()
    }
}

/// Bits of `Pages::keeping`: pages stay with their class, freed ones are zero, and spans are drawn at random.
const KEEPING: u32 = 1;
const ZERO: u32 = 2;
const DRAWN: u32 = 4;

/// Whether `bytes` bytes of the heap's at `start` are zero: whole pages.
pub fn is_zero(start: usize, bytes: usize) -> bool {
    // SAFETY: the caller's pages are usable, and any bits are a word.
    let words = unsafe { core::slice::from_raw_parts(start as *const u64, bytes / 8) };
    let mut lines = words.chunks_exact(8);
    lines.all(|line| line.iter().fold(0, |sum, word| sum | word) == 0)
}

impl Inner {
    /// Pages that somebody has.
    fn used_beside_kept(&mut self) -> usize {
        self.used_pages().saturating_sub(self.kept.unused_pages())
    }

    /// As [`Parked::excess`], unless all is kept.
    fn excess_kept(&mut self, now: u64, released: bool) -> usize {
        let used = self.used_beside_kept();
        match self.policy.keeps_all() {
            true => 0,
            false => self.kept.excess(used, now, released),
        }
    }
}

impl Pages {
    /// From now on, before the first slab is carved, pages stay with their class and slabs are guarded.
    /// `zero`: what is freed is zero, and what is not zero any more must not be discarded. `random`: spans are
    /// drawn by lot.
    pub fn begin_keeping(&self, zero: bool, random: bool) {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        self.keeping
            .store(KEEPING | bit(zero, ZERO) | bit(random, DRAWN), Release);
    }

    /// Whether each span is drawn by lot among free ones, which no heap keeps for itself.
    #[inline]
    pub fn draws_spans(&self) -> bool {
        self.keeping.load(Relaxed) & DRAWN != 0
    }

    /// In a fork child: what is drawn from now on is not what the parent draws.
    pub fn forget_lots(&self) {
        self.lots.store(0, Relaxed);
    }

    /// [`LOT_BITS`] random bits.
    fn lot<O: Os>(&self, os: &O) -> usize {
        let mut lots = self.lots.load(Relaxed);
        if lots >> LOT_BITS == 0 {
            lots = os.random() | 1 << (u64::BITS - 1);
        }
        self.lots.store(lots >> LOT_BITS, Relaxed);
        lots as usize % (1 << LOT_BITS)
    }

    /// One of several free spans of `shape`'s size, and whether it is all zero. Where there are too few to choose from,
    /// more are carved, which costs addresses and no memory.
    fn draw_span<O: Os>(
        &self,
        supply: Supply<O>,
        shape: &Shape,
        owner: Owner,
    ) -> Option<(SlabPtr, bool)> {
        let pages = shape.pages;
        let among = among(kind(SPAN, pages));
        if self.inner.lock().kept.spans(pages) < among {
            self.stock(supply, shape, among);
            if self.inner.lock().kept.spans(pages) == 0 {
                return None; // no random bits are asked of the system for nothing
            }
        }
        let lot = self.lot(supply.os);
        let drawn = self
            .inner
            .lock()
            .kept
            .draw(self.table(), pages, among, lot)?;
        let was_cold = drawn.0.counted.load(Relaxed) != WARM;
        drawn.0.make_again(shape, owner);
        if was_cold {
            self.make_way(supply);
        }
        Some(drawn)
    }

    /// Carves `count` spans of `shape` that nobody has yet, or as many as the system gives. None near a limit, nor for a
    /// while after one was met: a choice of places must not use up what a program may have.
    fn stock<O: Os>(&self, supply: Supply<O>, shape: &Shape, count: usize) {
        if self.is_short(supply.os)
            || self.is_refused()
            || !supply.meta.budget.has(4 * count * (shape.pages + 1) * PAGE)
        {
            return;
        }
        let guarded = Shape {
            pages: shape.pages + 1,
            ..*shape
        };
        for _ in 0..count {
            let Some((slab, fresh)) = self.new_slab_fresh(supply, &guarded, RELEASED) else {
                return;
            };
            self.guard_end(supply.os, slab, shape);
            let how = if fresh { UNUSED } else { COLD };
            self.inner.lock().kept.put(slab, how);
        }
    }

    /// Whether memory was refused lately.
    fn is_short<O: Os>(&self, os: &O) -> bool {
        let gave_up_at = self.inner.lock().kept.gave_up_at;
        gave_up_at != 0 && os.clock().saturating_sub(gave_up_at) < SHORT_MS
    }

    #[inline]
    pub(super) fn is_keeping(&self) -> bool {
        self.keeping.load(Relaxed) != 0
    }

    /// A slab made of pages that its class had before. Returns also whether they are all zero.
    pub(super) fn take_parked<O: Os>(
        &self,
        supply: Supply<O>,
        shape: &Shape,
        owner: Owner,
    ) -> Option<(SlabPtr, bool)> {
        let may_draw = shape.class.is_span() && shape.align == 1;
        if may_draw && self.guards_slabs(supply.meta) && self.draws_spans() {
            let drawn = self.draw_span(supply, shape, owner);
            if drawn.is_some() {
                return drawn;
            }
        }
        let slab = self.inner.lock().kept.take(self.table(), shape)?;
        let was_cold = slab.counted.load(Relaxed) != WARM;
        let pages = slab.pages();
        let of_class = !shape.class.is_span();
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
        slab.make_again(&again, owner);
        if was_cold {
            self.make_way(supply);
        }
        Some((slab, false))
    }

    /// A slab made of fresh pages, with a guard page behind where it can be.
    pub(super) fn new_slab_guarded<O: Os>(
        &self,
        supply: Supply<O>,
        shape: &Shape,
        owner: Owner,
    ) -> Option<(SlabPtr, bool)> {
        if !self.guards_slabs(supply.meta) {
            return self.new_slab_fresh(supply, shape, owner);
        }
        self.make_way(supply);
        let guarded = Shape {
            pages: shape.pages + 1,
            ..*shape
        };
        let (slab, fresh) = self.new_slab_fresh(supply, &guarded, owner)?;
        self.guard_end(supply.os, slab, shape);
        Some((slab, fresh))
    }

    /// Makes the last page of a slab of one page more than `shape` has its guard.
    fn guard_end<O: Os>(&self, os: &O, slab: SlabPtr, shape: &Shape) {
        slab.set_pages(shape.pages);
        let end = slab.base() + shape.pages * PAGE;
        self.set_map(self.page_of(end), GUARD, SlabId::FOREIGN);
        // For a fork child, which frees what the map does not call foreign, not before.
        slab.set_flags(GUARD_AFTER);
        self.fence_page(os, end);
        self.inner.lock().kept.guards += GUARD;
        if shape.align > 1 {
            self.guard_start(os, slab);
        }
    }

    /// Puts a guard page before a slab that begins at a chosen address, where free pages lie before it. In all other
    /// places a guard page lies there: a slab's before it, or the one that what the heap grew by begins with.
    fn guard_start<O: Os>(&self, os: &O, slab: SlabPtr) {
        let page = self.page_of(slab.base());
        let before = {
            let inner = &mut *self.inner.lock();
            let window = &inner.windows[inner.window_of(page)];
            if page <= window.first || !inner.runs.is_free(PageNo(page.0 - 1), 1) {
                return;
            }
            let before = PageNo(page.0 - 1);
            inner.take(before, 1);
            inner.kept.guards += 1;
            before
        };
        self.set_map(before, 1, SlabId::FOREIGN);
        slab.set_flags(GUARD_BEFORE);
        self.fence_page(os, slab.base() - PAGE);
    }

    /// Whether a page that faults lies before and after each slab.
    pub(super) fn guards_slabs(&self, meta: &Meta) -> bool {
        self.is_keeping() && meta.os_page() == PAGE
    }

    /// Makes a page fault that the map says is foreign, or is about to, if the system can.
    pub(super) fn fence_page<O: Os>(&self, os: &O, at: usize) {
        // SAFETY: the page is the heap's and nobody's: it was carved or has just come, and no slab has it.
        let _ = NonNull::new(at as *mut u8).is_some_and(|at| unsafe { os.fence(at, PAGE) });
    }

    /// Puts a released slab aside for the next one of its kind, and discards what has been kept too long.
    pub(super) fn keep<O: Os>(&self, supply: Supply<O>, slab: SlabPtr) {
        let now = supply.os.clock();
        let excess = {
            let inner = &mut *self.inner.lock();
            inner.policy.last_release = now;
            inner.kept.put(slab, WARM);
            inner.excess_kept(now, true)
        };
        self.discard_kept(supply, excess, DISCARDED_BY_RELEASE, false);
    }

    /// A slab was made of pages that held nothing: what other kinds keep makes way for it.
    fn make_way<O: Os>(&self, supply: Supply<O>) {
        let now = supply.os.clock();
        let excess = self.inner.lock().excess_kept(now, false);
        self.discard_kept(supply, excess, DISCARDED_BY_RELEASE, false);
    }

    /// Something else in the process grew by `bytes` bytes: kept slabs make way for it.
    pub(super) fn give_kept_way<O: Os>(&self, supply: Supply<O>, bytes: usize) {
        let now = supply.os.clock();
        let excess = {
            let inner = &mut *self.inner.lock();
            let used = inner.used_beside_kept();
            match inner.policy.keeps_all() {
                true => 0,
                false => inner.kept.excess_beside(bytes / PAGE, used, now),
            }
        };
        // Each slab has a page at least. The growth costs more than this.
        let done = self.discard_kept(supply, excess, excess, false);
        if done > 0 {
            self.inner.lock().kept.way.give(done, now);
        }
    }

    /// Discards what a warm slab holds and puts it back.
    fn discard_one<O: Os>(&self, os: &O, slab: SlabPtr) -> Discarded {
        let bytes = slab.pages() * PAGE;
        let evidence = self.is_evidence(slab);
        let start = NonNull::new(slab.base() as *mut u8).filter(|_| !evidence);
        // SAFETY: the slab is on no list and nobody's, and all of its slots are free.
        let done = start.is_some_and(|start| unsafe { os.discard(start, bytes) });
        let how = if done { COLD } else { WARM };
        let kept = &mut self.inner.lock().kept;
        kept.put(slab, how);
        kept.discarded[kind(slab.class(), slab.pages())] += usize::from(done);
        match (done, evidence) {
            (true, _) => Discarded::Whole,
            (false, true) => Discarded::Evidence,
            (false, false) => Discarded::Refused,
        }
    }

    /// Discards what all kept slabs hold, as far as the system lets it.
    pub fn discard_all_kept<O: Os>(&self, supply: Supply<O>) {
        // Each has a page at least, and one that could not be discarded is kept as it was.
        let pages = self.inner.lock().kept.warm_pages();
        self.discard_kept(supply, pages, pages, false);
    }

    /// Whether there are kept slabs that could give up their classes.
    pub fn can_give_up(&self) -> bool {
        if !self.is_keeping() {
            return false;
        }
        let kept = &self.inner.lock().kept;
        kept.pages > kept.stuck
    }

    /// How many kept slabs have given up their classes. Their pages are free when this tells of them.
    pub fn given_up(&self) -> u32 {
        self.given_up.load(Relaxed)
    }

    /// Memory was refused: kept slabs give up their classes. Their pages, guards included, serve anybody.
    pub fn give_up_classes<O: Os>(&self, supply: Supply<O>) {
        if !self.can_give_up() {
            return;
        }
        self.refused.store(0, Relaxed); // There may be room for slabs that are not the smallest.
        self.discard_all_kept(supply);
        let stuck = (0..KINDS)
            .map(|kind| self.give_up_kind(supply.os, kind))
            .sum();
        let now = supply.os.clock();
        let kept = &mut self.inner.lock().kept;
        // What was released meanwhile has not been tried.
        kept.stuck = kept.pages.min(stuck);
        kept.gave_up_at = now.max(1);
    }

    /// As [`Pages::give_up_classes`], of one kind. What cannot be given up stays: so many pages, with those of slabs
    /// that are not tried any more.
    fn give_up_kind<O: Os>(&self, os: &O, kind: usize) -> usize {
        let count = self.inner.lock().kept.counts[kind];
        let (mut stuck, mut stuck_pages) = (0, 0);
        for _ in 0..count {
            let Some(slab) = self.inner.lock().kept.take_last(self.table(), kind) else {
                break;
            };
            // Its contents may be there still: where memory is locked, and where somebody wrote after a free.
            let (how, pages) = (slab.counted.load(Relaxed), slab.pages());
            if how == WARM && self.is_evidence(slab) {
                self.inner.lock().kept.put(slab, how);
                stuck_pages += pages;
            } else if !self.give_up_class(os, slab) {
                // In front: the others' turn comes first.
                let how = if how == WARM { WARM } else { COLD };
                self.inner.lock().kept.put(slab, how);
                stuck_pages += pages;
                stuck += 1;
            }
            if stuck == STUCK_MOST {
                return self.inner.lock().kept.kind_pages[kind];
            }
        }
        stuck_pages
    }

    /// Whether a kept slab tells of a write after free: it is not zero as it was left.
    fn is_evidence(&self, slab: SlabPtr) -> bool {
        self.keeping.load(Relaxed) & ZERO != 0 && !is_zero(slab.base(), slab.pages() * PAGE)
    }

    /// Makes the pages of a kept slab, which is on no list, free ones. False where a guard of its own stays closed.
    fn give_up_class<O: Os>(&self, os: &O, slab: SlabPtr) -> bool {
        let (page, n) = (self.page_of(slab.base()), slab.pages());
        let (before, after) = (slab.has(GUARD_BEFORE), slab.has(GUARD_AFTER));
        let end = slab.base() + n * PAGE;
        if after && !self.open_guard(os, end) {
            return false;
        }
        if before && !self.open_guard(os, slab.base() - PAGE) {
            if after {
                self.fence_page(os, end);
            }
            return false;
        }
        let first = PageNo(page.0 - u32::from(before));
        let guards = GUARD * (usize::from(before) + usize::from(after));
        // First of all: for a fork child its pages are free from now on.
        slab.set_state(State::Released);
        self.set_map(first, n + guards, SlabId::NONE);
        let inner = &mut *self.inner.lock();
        inner.headers.give(slab);
        // Pointers that dangle may lead here, and nothing is closed: whoever takes them looks at what they hold.
        inner.give(first, n + guards, Cleanness::Dirty);
        inner.kept.guards = inner.kept.guards.saturating_sub(guards);
        // Under the lock: who finds nothing more to give up knows that pages came.
        self.given_up.fetch_add(1, Relaxed);
        true
    }

    /// Opens the guard page at `at` of a kept slab. Whether that could be done.
    fn open_guard<O: Os>(&self, os: &O, at: usize) -> bool {
        // SAFETY: the slab's flags say that the page is its guard, which `fence_page` closed, and nobody has the slab.
        NonNull::new(at as *mut u8).is_some_and(|at| unsafe { os.unfence(at, PAGE) })
    }

    /// Discards what nobody needed since the last tick.
    pub(super) fn discard_due<O: Os>(&self, supply: Supply<O>) {
        self.inner.lock().kept.find_due();
        let done = self.discard_kept(supply, usize::MAX, DISCARDED_BY_TICK, true);
        self.inner.lock().kept.were_unused(done);
    }

    /// Discards `pages` pages of what up to `most` kept slabs hold, with `is_due` only what was not needed. How many
    /// pages they had.
    fn discard_kept<O: Os>(
        &self,
        supply: Supply<O>,
        pages: usize,
        most: usize,
        is_due: bool,
    ) -> usize {
        let mut done = 0;
        for _ in 0..most {
            if done >= pages {
                break;
            }
            let warm = self.inner.lock().kept.take_warm(self.table(), is_due);
            let Some(slab) = warm else {
                break;
            };
            let held = slab.pages();
            match self.discard_one(supply.os, slab) {
                Discarded::Whole => {
                    done += held;
                    counters::add(&supply.meta.counters().purged, (held * PAGE) as u64);
                }
                Discarded::Evidence => {}
                // Locked memory: the next one would fail too.
                Discarded::Refused => break,
            }
        }
        done
    }
}
