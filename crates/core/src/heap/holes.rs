//! Holes: pages of a slab on which no slot is live go back to the system.
//!
//! ```text
//!   slots   |live|free|free|free|free|free|free|free|live|free|
//!   pages   |   resident   |   discarded    |   resident   |
//! ```
//!
//! Nothing of the allocator's lies in a free slot, and the bitmap tells which slots are free. So a page without a live
//! slot can be discarded although its slab is in use. It stays if hardened mode would find a write after free there. A
//! decay tick looks for such pages in partial slabs. It skips the slabs that refill will use soon. Their number is how
//! many it used lately, times a patience. The patience grows if discarded pages were soon needed again.
//!
//! A slab with a discarded page leaves the queue of partial slabs for a stack of its own. Refill uses the stack when no
//! partial slab is left. So sparse slabs drain while there is any other free slot.
//!
//! A heap that grows may grow for classes that had few slots before, while slabs of other classes lie half empty. It
//! does not wait for a tick then. For the pages that it grew by it discards as many that lie idle: those between
//! slabs, in runs that were too short, and as many again in slabs. Slabs of which a quarter is free become sparse, so
//! they drain. The heap looks more rarely where that is of no use, or where the pages are soon needed again.

use super::thin::{live_of_waiting, runs};
use super::{Backend, Class, HeapRef};
use crate::bitmap::slots_of_word;
use crate::class::{ClassId, CLASSES};
use crate::options::Name;
use crate::os::Os;
use crate::pages::is_zero;
use crate::slab::{SlabPtr, SlabTable, State};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed};
use crate::units::{SlabId, PAGE, WORD_SLOTS};
use core::cell::Cell;

/// How many intervals' worth of turns a slab must lie after the front of the queue, at least and at most.
const PATIENCE_LEAST: u32 = 4;
const PATIENCE_MOST: u32 = 1 << 12;
/// Slabs looked at, and calls of the system made, in one tick: so many, and so many more for each
/// millisecond since the last one. Both bound what a tick costs to some hundredths of the time.
const LOOKS: usize = 512;
const LOOKS_PER_MS: usize = 16;
const CALLS: usize = 64;
const CALLS_PER_MS: usize = 10;
/// The heap grows by so many pages before it looks for idle ones, and so many times as many at most.
const GROWN_PAGES: usize = 256;
const RARELY: u16 = 4;
/// As many at most where what went is soon wanted again.
const HARDLY: u16 = 64;
/// Slabs looked at then, and calls of the system made.
const GROWN_LOOKS: usize = 512;
const GROWN_CALLS: usize = 64;
/// With more live slots for each of its pages a slab hardly has an idle page.
const LIVE_A_PAGE: usize = 4;
/// A slab of small slots with a smaller part of them free is not looked at closely. One with as many free is loose, and
/// serves last where the heap grows.
const FREE_PART: usize = 4;
/// A slab with fewer slots is never loose: it has as large a part free whenever it waits.
const LOOSE_SLOTS: usize = 8;

/// What the search for holes has learnt, and where it stopped.
#[derive(Default)]
pub(super) struct Search {
    /// The class that the next search begins with.
    class: Cell<u32>,
    /// The slab that it begins with. 0 means the class's first.
    slab: Cell<SlabId>,
    /// See the module's text. 0 stands for `PATIENCE_LEAST`.
    patience: Cell<u32>,
    /// Pages discarded lately.
    discarded: Cell<u32>,
    /// Pages among them that were cached again.
    refilled: Cell<u32>,
    /// Pages by which the heap grew since it looked for idle ones.
    grown: Cell<u16>,
    /// How many times [`GROWN_PAGES`] they are to be before it does. 0 stands for 1.
    rarely: Cell<u16>,
}

impl Search {
    /// Learns from what became of the pages discarded lately, and forgets half of it.
    fn learn(&self) -> u32 {
        let (discarded, refilled) = (self.discarded.get(), self.refilled.get());
        let patience = self.patience.get().max(PATIENCE_LEAST);
        let patience = if refilled > discarded / 2 {
            (patience * 4).min(PATIENCE_MOST)
        } else if refilled == 0 {
            (patience / 2).max(PATIENCE_LEAST)
        } else {
            patience
        };
        self.patience.set(patience);
        self.discarded.set(discarded / 2);
        self.refilled.set(refilled / 2);
        patience
    }

    /// The heap grew by `pages` pages. Whether idle ones are to be looked for now.
    fn grow(&self, pages: usize) -> bool {
        let grown = usize::from(self.grown.get()) + pages;
        let due = grown >= usize::from(self.rarely.get().max(1)) * GROWN_PAGES;
        self.grown.set(if due { 0 } else { grown as u16 });
        due
    }

    /// Learns from a search for idle pages that was of use or not, and whether what went before is `wanted_again`.
    fn learn_of_growth(&self, of_use: bool, wanted_again: bool) {
        let rarely = self.rarely.get().max(1);
        self.rarely.set(match (wanted_again, of_use) {
            (true, _) => (rarely * 2).min(HARDLY),
            (false, true) => (rarely / 2).max(1),
            (false, false) => (rarely * 2).min(RARELY.max(rarely)),
        });
    }
}

/// What became of the pages that were discarded since the heap grew. All zero: nothing.
pub(super) struct Growth {
    /// Pages discarded lately.
    discarded: Cell<u32>,
    /// Pages among them that were cached again.
    refilled: Cell<u32>,
}

impl Growth {
    /// Whether three quarters of what was discarded were soon wanted again.
    fn is_wanted(&self) -> bool {
        let (discarded, refilled) = (self.discarded.get(), self.refilled.get());
        refilled > discarded - discarded / 4
    }

    /// As [`Growth::is_wanted`]. Forgets half of it.
    fn is_wanted_again(&self) -> bool {
        let wanted = self.is_wanted();
        self.forget_half();
        wanted
    }

    /// `pages` discarded pages are used again. False where none are left that growth discarded.
    fn refill(&self, pages: u32) -> bool {
        let (discarded, refilled) = (self.discarded.get(), self.refilled.get());
        if refilled >= discarded {
            return false;
        }
        // No more than were discarded: what is left over would count against what is discarded later.
        self.refilled
            .set(refilled.saturating_add(pages).min(discarded));
        true
    }

    fn forget_half(&self) {
        let (discarded, refilled) = (self.discarded.get(), self.refilled.get());
        if discarded != 0 {
            self.discarded.set(discarded / 2);
            self.refilled.set(refilled / 2);
        }
    }

    /// Whether pages were discarded lately since the heap grew, and most were not wanted again.
    pub(super) fn is_of_use(&self) -> bool {
        self.discarded.get() != 0 && !self.is_wanted()
    }
}

/// What a search is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Pages that are not needed soon go.
    Tick,
    /// As many pages go as the heap grew by.
    Growth,
}

impl Purpose {
    fn is_growth(self) -> bool {
        matches!(self, Purpose::Growth)
    }

    /// Whether sparse slabs are looked at. Growth does not wait for more: what was idle of them has gone.
    fn minds_sparse(self) -> bool {
        !self.is_growth()
    }
}

/// What one search may still do.
struct Allowance {
    purpose: Purpose,
    looks: usize,
    calls: usize,
    pages: usize,
    /// Whether anything was discarded, or a slab set aside.
    found: bool,
}

impl Allowance {
    /// All there is goes.
    fn all() -> Allowance {
        Allowance {
            purpose: Purpose::Tick,
            looks: usize::MAX,
            calls: usize::MAX,
            pages: usize::MAX,
            found: false,
        }
    }

    fn is_used_up(&self) -> bool {
        self.looks == 0 || self.calls == 0 || self.pages == 0
    }
}

/// Whether `slab`, with `free` slots free, may have pages to discard: enough are free, or each has a page to itself.
fn is_worth_a_look(slab: SlabPtr, free: usize) -> bool {
    let least = if slab.size() > 2 * PAGE {
        1
    } else {
        slab.slots() / FREE_PART
    };
    slab.pages() > 1 && free >= least
}

/// One bit for each page of `slab` on which a slot is live.
fn live_pages(slab: SlabPtr) -> u32 {
    let (size, slots) = (slab.size(), slab.slots());
    let mut pages = 0;
    for word in 0..slab.words() {
        // In this order, since a collection moves bits from `remote` to `free`.
        let remote = slab.remote_word(word).load(Acquire);
        let free = slab.free_word(word).load(Relaxed) | remote;
        let mut live = !free & slots_of_word(slots, word);
        while live != 0 {
            let slot = word * WORD_SLOTS + live.trailing_zeros() as usize;
            pages |= pages_between(slot * size, (slot + 1) * size);
            live &= live - 1;
        }
    }
    pages
}

/// One bit for each page of `slab` on which no slot is live. None of a slab that has one page, or so few free slots
/// that it is not worth a look.
pub(super) fn idle_pages(slab: SlabPtr) -> u32 {
    if !is_worth_a_look(slab, slab.count_free() + slab.count_remote()) {
        return 0;
    }
    pages_between(0, slab.pages() * PAGE) & !live_pages(slab)
}

/// One bit for each page that a byte from `start` to before `end` lies on, counted from the slab's start.
fn pages_between(start: usize, end: usize) -> u32 {
    let (first, last) = (start / PAGE, (end - 1) / PAGE);
    u32::MAX >> (31 - last) & u32::MAX << first
}

/// Whether something was written to `n` free pages of `slab` from its `first` on, where freed slots are cleared: whoever
/// hands such a slot out is to find that.
fn holds_evidence<O: Os>(backend: &Backend<O>, slab: SlabPtr, first: usize, n: usize) -> bool {
    let clears = backend.options.is_on(Name::Hardened) || backend.options.is_on(Name::Zero);
    clears && !is_zero(slab.base() + first * PAGE, n * PAGE)
}

impl Class {
    /// The slab that the search for holes begins with: `at`, if it still waits in this class, else the first
    /// that is not needed soon. The way there is counted in `allowance`.
    fn search_from(
        &self,
        table: SlabTable,
        at: Option<SlabPtr>,
        patience: u32,
        allowance: &mut Allowance,
    ) -> Option<SlabPtr> {
        if at.is_some() {
            return at;
        }
        let soon = u32::from(self.taken.get()) * patience;
        let mut slab = self.partial.first(table);
        for _ in 0..soon {
            let Some(next) = slab.filter(|_| allowance.looks > 0) else {
                break;
            };
            allowance.looks -= 1;
            slab = self.partial.after(next);
        }
        slab.or_else(|| self.first_sparse(table, allowance))
    }

    /// The first sparse slab, if those are looked at.
    fn first_sparse(&self, table: SlabTable, allowance: &Allowance) -> Option<SlabPtr> {
        self.sparse
            .first(table)
            .filter(|_| allowance.purpose.minds_sparse())
    }

    /// The slab to look at after `slab`, of this class.
    fn search_after(
        &self,
        table: SlabTable,
        slab: SlabPtr,
        allowance: &Allowance,
    ) -> Option<SlabPtr> {
        match slab.state() {
            State::Partial => self
                .partial
                .after(slab)
                .or_else(|| self.first_sparse(table, allowance)),
            _ => self
                .sparse
                .after(slab)
                .filter(|_| allowance.purpose.minds_sparse()),
        }
    }
}

impl<O: Os> HeapRef<'_, O> {
    /// Discards pages on which no slot is live and that are not needed soon, `since` milliseconds after the
    /// last time.
    pub(super) fn discard_holes(self, since: u64) {
        let patience = self.holes.learn();
        let since = usize::try_from(since).unwrap_or(usize::MAX);
        let mut allowance = Allowance {
            looks: LOOKS.saturating_add(since.saturating_mul(LOOKS_PER_MS)),
            calls: CALLS.saturating_add(since.saturating_mul(CALLS_PER_MS)),
            ..Allowance::all()
        };
        self.search(patience, &mut allowance);
        self.growth.forget_half();
        self.classes.iter().for_each(Class::halve_taken);
    }

    /// The heap grew by `pages` pages that nobody had. As many go for them, unless the search for such was of no use
    /// lately.
    pub(super) fn give_way_to(self, pages: usize) {
        if !self.holes.grow(pages) {
            return;
        }
        if self.backend.pages.keeps_all() {
            return;
        }
        if !self.growth.is_wanted() {
            let backend = self.backend;
            backend.pages.give_way_within(backend.supply(), GROWN_PAGES);
        }
        let mut allowance = Allowance {
            purpose: Purpose::Growth,
            looks: GROWN_LOOKS,
            calls: GROWN_CALLS,
            pages: GROWN_PAGES,
            found: false,
        };
        self.search(0, &mut allowance);
        let of_use = allowance.found || allowance.looks > GROWN_LOOKS / 2;
        self.holes
            .learn_of_growth(of_use, self.growth.is_wanted_again());
    }

    /// As [`HeapRef::discard_idle`], of a slab that is likely to have an idle page. Whether its slots are to be taken last: it
    /// has such pages, or is loose.
    fn discard_for_growth(self, slab: SlabPtr, allowance: &mut Allowance) -> bool {
        let live = live_of_waiting(slab);
        let few = live <= slab.pages() * LIVE_A_PAGE;
        let slots = slab.slots();
        let loose = slots >= LOOSE_SLOTS && slots - live >= slots / FREE_PART;
        few && self.discard_idle(slab, allowance) || loose
    }

    /// Discards all pages on which no slot is live.
    pub(super) fn discard_all_holes(self) {
        let mut all = Allowance::all();
        self.holes.slab.set(SlabId::NONE);
        self.search(0, &mut all);
        for class in ClassId::all() {
            self.discard_active(class);
        }
    }

    /// Goes round the classes, from where the last search stopped, until `allowance` is used up.
    fn search(self, patience: u32, allowance: &mut Allowance) {
        let first = self.holes.class.get() as usize;
        let mut at = self.search_resumes(ClassId::new(first));
        for step in 0..=CLASSES {
            let class = ClassId::new((first + step) % CLASSES);
            at = self.search_class(class, at, patience, allowance);
            self.holes.class.set(class.index() as u32);
            self.holes.slab.set(at.map_or(SlabId::NONE, SlabPtr::id));
            if allowance.is_used_up() {
                return;
            }
        }
    }

    /// The slab of `class` that the last search stopped at, if it still waits there. Headers are
    /// type-stable, so that a stale number leads to some header.
    fn search_resumes(self, class: ClassId) -> Option<SlabPtr> {
        let id = self.holes.slab.get();
        let slab = self.table().find(id)?;
        let waits = matches!(slab.state(), State::Partial | State::Sparse);
        let mine = slab.owner.load(Relaxed).is_of(self.me());
        (mine && waits && slab.class() == class).then_some(slab)
    }

    /// Looks at the slabs of `class`, from `at` or the first. Where `allowance` ended the search.
    fn search_class(
        self,
        class: ClassId,
        at: Option<SlabPtr>,
        patience: u32,
        allowance: &mut Allowance,
    ) -> Option<SlabPtr> {
        let (table, this) = (self.table(), &self.classes[class.index()]);
        let mut at = this.search_from(table, at, patience, allowance);
        while let Some(slab) = at {
            if allowance.is_used_up() {
                return at;
            }
            allowance.looks -= 1;
            at = this.search_after(table, slab, allowance);
            if let Some(next) = at {
                next.prefetch();
            }
            let goes = match allowance.purpose {
                Purpose::Tick => self.discard_idle(slab, allowance),
                Purpose::Growth => self.discard_for_growth(slab, allowance),
            };
            if goes && slab.state() == State::Partial {
                self.set_aside(slab);
                allowance.found = true;
            }
        }
        None
    }

    /// Has `slab`, which waits in the queue, serve last.
    pub(super) fn set_aside(self, slab: SlabPtr) {
        let this = &self.classes[slab.class().index()];
        this.partial.unlink(slab);
        slab.set_state(State::Sparse);
        this.sparse.push(slab);
    }

    /// One bit for each page of `slab` that lies idle and is not discarded.
    pub(super) fn idle_pages_of(self, slab: SlabPtr) -> u32 {
        idle_pages(slab) & !slab.discarded.load(Relaxed)
    }

    /// Discards `pages` of `slab`, on which no slot is live. Returns how many bytes.
    pub(super) fn discard_part(self, slab: SlabPtr, pages: u32) -> usize {
        self.discard_counted(slab, pages, Purpose::Tick)
    }

    /// Discards all that lies idle of `slab`, since the heap grew.
    pub(super) fn discard_beside_growth(self, slab: SlabPtr) {
        self.discard_counted(slab, self.idle_pages_of(slab), Purpose::Growth);
    }

    /// As [`HeapRef::discard_pages`], and counts what went: the heap learns from how much of it is soon wanted again.
    fn discard_counted(self, slab: SlabPtr, pages: u32, purpose: Purpose) -> usize {
        let bytes = self.discard_pages(slab, pages, purpose);
        let count = match purpose {
            Purpose::Tick => &self.holes.discarded,
            Purpose::Growth => &self.growth.discarded,
        };
        count.set(count.get().saturating_add((bytes / PAGE) as u32));
        bytes
    }

    /// Discards the pages of `slab` on which no slot is live. Whether there were any.
    ///
    /// The heap's thread is in a slow path: no slot of the slab is cached or taken meanwhile. A free
    /// meanwhile, by another thread or a signal handler, makes no page less idle.
    fn discard_idle(self, slab: SlabPtr, allowance: &mut Allowance) -> bool {
        let live = live_of_waiting(slab);
        if !is_worth_a_look(slab, slab.slots().saturating_sub(live)) {
            return false;
        }
        let before = slab.discarded.load(Relaxed);
        let idle = pages_between(0, slab.pages() * PAGE) & !live_pages(slab);
        let runs = runs(idle & !before).count();
        let bytes = self.discard_counted(slab, idle, allowance.purpose);
        allowance.calls = allowance.calls.saturating_sub(runs);
        let asked = (idle & !before).count_ones() as usize;
        allowance.pages = allowance.pages.saturating_sub(asked);
        allowance.found |= bytes != 0;
        slab.discarded.load(Relaxed) != 0
    }

    /// Discards `pages` of `slab`, on which no slot is live, as far as they are not yet. Returns how many bytes.
    pub(super) fn discard_pages(self, slab: SlabPtr, pages: u32, purpose: Purpose) -> usize {
        let mut bytes = 0;
        for (first, n) in runs(pages & !slab.discarded.load(Relaxed)) {
            if holds_evidence(self.backend, slab, first, n) {
                continue;
            }
            let pages = &self.backend.pages;
            let (supply, grows) = (self.backend.supply(), purpose.is_growth());
            let Some(gone) = pages.discard_within(supply, slab, first, n, grows) else {
                break;
            };
            if gone.is_empty() {
                continue; // Parts of OS pages alone.
            }
            let discarded = slab.discarded.load(Relaxed);
            let more = pages_between(gone.start * PAGE, gone.end * PAGE);
            slab.discarded.store(discarded | more, Relaxed);
            bytes += gone.len() * PAGE;
        }
        bytes
    }

    /// Discards a free span that is kept, unless it was.
    pub(super) fn discard_span(self, slab: SlabPtr) {
        let pages = slab.pages();
        if slab.discarded.load(Relaxed) != 0 || holds_evidence(self.backend, slab, 0, pages) {
            return;
        }
        let gone = self
            .backend
            .pages
            .discard_within(self.backend.supply(), slab, 0, pages, false);
        let any = gone.is_some_and(|gone| !gone.is_empty());
        slab.discarded.store(u32::from(any), Relaxed);
    }

    /// Discards the pages of the active slab of `class` on which no slot is live or cached.
    fn discard_active(self, class: ClassId) {
        let Some((slab, first)) = self.cached_word(class) else {
            return;
        };
        if slab.pages() < 2 {
            return;
        }
        let first = first.index();
        let end = (first + WORD_SLOTS).min(slab.slots());
        let held = pages_between(first * slab.size(), end * slab.size());
        let all = pages_between(0, slab.pages() * PAGE);
        let idle = all & !live_pages(slab) & !held;
        self.discard_pages(slab, idle, Purpose::Tick);
    }

    /// The slots of `word` are cached of `slab`, some of whose pages were discarded: theirs are used again.
    #[cold]
    pub(super) fn refill_hole(self, slab: SlabPtr, word: usize) {
        let first = word * WORD_SLOTS;
        let end = (first + WORD_SLOTS).min(slab.slots());
        let used = pages_between(first * slab.size(), end * slab.size());
        let discarded = slab.discarded.load(Relaxed);
        slab.discarded.store(discarded & !used, Relaxed);
        let pages = (discarded & used).count_ones();
        self.take_discarded(slab, pages as usize * PAGE);
        if !self.growth.refill(pages) {
            let count = &self.holes.refilled;
            count.set(count.get().saturating_add(pages));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SLAB_PAGES;

    #[test]
    fn pages_between_are_those_that_a_byte_lies_on() {
        for start in (0..SLAB_PAGES * PAGE).step_by(1000) {
            for end in (start + 1..=SLAB_PAGES * PAGE).step_by(999) {
                let expected = (0..SLAB_PAGES)
                    .filter(|page| page * PAGE < end && (page + 1) * PAGE > start)
                    .fold(0, |pages, page| pages | 1 << page);
                assert_eq!(pages_between(start, end), expected, "{start} to {end}");
            }
        }
    }

    #[test]
    fn patience_grows_where_pages_are_wanted_again_and_shrinks_where_not() {
        let search = Search::default();
        assert_eq!(search.learn(), PATIENCE_LEAST);
        search.discarded.set(100);
        search.refilled.set(80);
        assert_eq!(search.learn(), 4 * PATIENCE_LEAST);
        search.refilled.set(0);
        assert_eq!(search.learn(), 2 * PATIENCE_LEAST);
        assert_eq!(search.learn(), PATIENCE_LEAST);
        assert_eq!(search.learn(), PATIENCE_LEAST);
    }

    /// A refill of many pages while few count does not make every later search look unwanted.
    #[test]
    fn where_all_is_forgotten_that_growth_discarded_nothing_is_wanted_again() {
        let growth = Growth {
            discarded: Cell::new(1),
            refilled: Cell::new(0),
        };
        assert!(growth.refill(60));
        assert!(!growth.refill(60));
        growth.forget_half();
        assert!(!growth.is_of_use());
        assert!(!growth.is_wanted_again());
        assert_eq!((growth.discarded.get(), growth.refilled.get()), (0, 0));
    }
}
