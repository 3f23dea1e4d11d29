//! Slabs with free slots that no thread owns: theirs has exited, or several threads free into them.

use super::Backend;
use crate::class::{ClassId, CLASSES};
use crate::mutex::{Lock, Mutex, Registry};
use crate::os::Os;
use crate::owner::{Listing, Owner, RELEASED};
use crate::remote;
use crate::slab::{List, SlabPtr, SlabTable, State};
use crate::sync::AtomicU32;
use crate::sync::{Ordering::Relaxed, Ordering::SeqCst};
use core::mem::{self, MaybeUninit};

/// Slabs with free slots that no thread owns, by class, each class under a lock of its own.
pub struct Abandoned {
    shelves: [Shelf; CLASSES + 1],
    /// Non-zero where a thread without a heap may have freed into a slab without an owner, and told nobody.
    strays: AtomicU32,
}

/// A shared slab of which a larger part is free, one in so many, drains.
const DRAINING_PART: usize = 4;
/// One of which a smaller part is free does not serve while others drain.
const LEAN_PART: usize = 8;
/// Slabs looked at by one adoption, at most, before it takes what it finds.
const LOOKS: usize = 8;

/// Those of one class. As large as a slot cache, so that one product leads to both.
#[repr(align(32))]
struct Shelf {
    lists: Mutex<Lists>,
    count: AtomicU32,
    /// Slots of slabs that were carved while others on the list had free slots, since a slab was carved for want of
    /// any.
    spare: AtomicU32,
}

/// Where they wait.
struct Lists {
    /// Those that are `Listed` or `Shared`: the one that waits longest serves first.
    waiting: List,
    /// Those that are `Draining`: the one that was added last serves first.
    draining: List,
}

impl Lists {
    fn of(&self, how: Listing) -> &List {
        if how == Listing::Draining {
            return &self.draining;
        }
        &self.waiting
    }
}

impl Shelf {
    const fn new(locks: &mut Registry) -> Shelf {
        let lists = Lists {
            waiting: List::new(),
            draining: List::new(),
        };
        Shelf {
            lists: Mutex::new(locks, lists),
            count: AtomicU32::new(0),
            spare: AtomicU32::new(0),
        }
    }

    fn push(&self, lists: &Lists, slab: SlabPtr) {
        slab.set_state(State::Abandoned);
        lists.waiting.push_back(slab);
        self.count.store(self.count.load(Relaxed) + 1, Relaxed);
    }

    /// Makes a listed slab `me`'s; how it was listed.
    fn take(&self, lists: &Lists, slab: SlabPtr, me: Owner) -> Listing {
        let how = slab.owner.load(SeqCst).listing().unwrap_or(Listing::Listed);
        lists.of(how).unlink(slab);
        self.count.store(self.count.load(Relaxed) - 1, Relaxed);
        slab.set_state(State::Unlisted);
        slab.owner.store(me, SeqCst);
        how
    }

    /// The slab that serves next. Shared ones of which a large part is free are put aside on the way.
    fn next(&self, lists: &Lists, table: SlabTable, class: ClassId) -> Option<SlabPtr> {
        for _ in 0..LOOKS {
            let slab = lists.waiting.first(table)?;
            if slab.owner.load(SeqCst).listing() != Some(Listing::Shared) {
                return Some(slab);
            }
            let (slots, free) = (slab.slots(), slab.count_free() + slab.count_remote());
            if free <= slots / DRAINING_PART {
                let serves = free >= slots / LEAN_PART || lists.draining.is_empty();
                return serves.then_some(slab);
            }
            lists.waiting.unlink(slab);
            lists.draining.push_back(slab);
            // Others read the word, and change it where the list lets them.
            slab.owner
                .store(Owner::on_list(Listing::Draining, class), SeqCst);
        }
        lists.waiting.first(table)
    }
}

impl Abandoned {
    /// No slabs.
    pub const fn new(locks: &mut Registry) -> Abandoned {
        let mut shelves = [const { MaybeUninit::uninit() }; CLASSES + 1];
        let mut class = 0;
        while class <= CLASSES {
            shelves[class] = MaybeUninit::new(Shelf::new(locks));
            class += 1;
        }
        // SAFETY: each of them was made just now.
        let shelves = unsafe {
            mem::transmute::<[MaybeUninit<Shelf>; CLASSES + 1], [Shelf; CLASSES + 1]>(shelves)
        };
        Abandoned {
            shelves,
            strays: AtomicU32::new(0),
        }
    }

    /// From now on there may be a slab without an owner that was freed into, of which nobody was told.
    pub fn stray(&self) {
        self.strays.store(1, SeqCst);
    }

    /// Whether there may be such a slab: the first who asks is told, and looks for it.
    pub(super) fn take_stray(&self) -> bool {
        self.strays.load(Relaxed) != 0 && self.strays.swap(0, SeqCst) != 0
    }

    /// How many slabs of `class` there are.
    #[inline]
    pub(super) fn count(&self, class: ClassId) -> usize {
        self.shelves[class.index()].count.load(Relaxed) as usize
    }

    /// Slots of `class` that were carved although slabs on its list had free ones.
    pub(super) fn spare(&self, class: ClassId) -> usize {
        self.shelves[class.index()].spare.load(Relaxed) as usize
    }

    /// So many more of them were carved.
    pub(super) fn add_spare(&self, class: ClassId, slots: usize) {
        self.shelves[class.index()]
            .spare
            .fetch_add(slots as u32, Relaxed);
    }

    /// A slab of `class` was carved for want of any free slot: all spare slots are used.
    pub(super) fn forget_spare(&self, class: ClassId) {
        let spare = &self.shelves[class.index()].spare;
        if spare.load(Relaxed) != 0 {
            spare.store(0, Relaxed);
        }
    }

    /// Lets an unlisted slab of `me`'s go onto the list, `to` being `Listed` or `Shared`. False if remote frees wait to
    /// be collected.
    pub(super) fn leave(&self, slab: SlabPtr, me: Owner, to: Listing) -> bool {
        let class = slab.class();
        let shelf = &self.shelves[class.index()];
        let lists = shelf.lists.lock();
        let left = remote::release_ownership(slab, me, Owner::on_list(to, class));
        if left {
            shelf.push(&lists, slab);
        }
        left
    }

    /// Lets a slab whose owner word is `full`, that of a full and shared one, onto its list, unless somebody was faster.
    pub(super) fn list(&self, slab: SlabPtr, full: Owner) {
        let listed = full.without_full();
        let Some(class) = listed.list() else {
            return;
        };
        let shelf = &self.shelves[class.index()];
        let lists = shelf.lists.lock();
        if remote::release_ownership(slab, full, listed) {
            shelf.push(&lists, slab);
        }
    }

    /// The slab of `class` that serves next, made `me`'s, and how it was listed.
    pub(super) fn adopt(
        &self,
        table: SlabTable,
        class: ClassId,
        me: Owner,
    ) -> Option<(SlabPtr, Listing)> {
        let shelf = &self.shelves[class.index()];
        if shelf.count.load(Relaxed) == 0 {
            return None;
        }
        let lists = shelf.lists.lock();
        let next = shelf.next(&lists, table, class);
        let slab = next.or_else(|| lists.draining.last(table))?;
        Some((slab, shelf.take(&lists, slab, me)))
    }

    /// As [`Abandoned::adopt`], whatever serves next: those that are put back at once come round, each once.
    pub(super) fn adopt_any(
        &self,
        table: SlabTable,
        class: ClassId,
        me: Owner,
    ) -> Option<(SlabPtr, Listing)> {
        let shelf = &self.shelves[class.index()];
        let lists = shelf.lists.lock();
        let draining = lists.draining.first(table);
        let slab = draining.or_else(|| lists.waiting.first(table))?;
        let how = match shelf.take(&lists, slab, me) {
            Listing::Listed => Listing::Listed,
            Listing::Shared | Listing::Draining => Listing::Shared,
        };
        Some((slab, how))
    }

    /// Makes a listed slab `me`'s. False if somebody was faster.
    pub(super) fn claim(&self, slab: SlabPtr, me: Owner) -> bool {
        let Some(class) = slab.owner.load(SeqCst).list() else {
            return false;
        };
        let shelf = &self.shelves[class.index()];
        let lists = shelf.lists.lock();
        // By now the slab may be on another list, or be another one.
        let listed = slab.owner.load(SeqCst).list() == Some(class);
        if listed {
            shelf.take(&lists, slab, me);
        }
        listed
    }

    /// Number of listed slabs that are not as they should be, while nobody is at work.
    pub(super) fn validate(&self, table: SlabTable) -> usize {
        let mut wrong = 0;
        for (class, shelf) in (0..).map(ClassId::new).zip(&self.shelves) {
            let lists = shelf.lists.lock();
            let mut count = 0;
            for list in [&lists.waiting, &lists.draining] {
                for slab in list.iter(table) {
                    let owner = slab.owner.load(Relaxed);
                    let is_here = |how| core::ptr::eq(lists.of(how), list);
                    let listed =
                        owner.list() == Some(class) && owner.listing().is_some_and(is_here);
                    let state = slab.state() == State::Abandoned && slab.class() == class;
                    wrong += usize::from(!listed || !state);
                    count += 1;
                }
            }
            wrong += usize::from(count != self.count(class));
        }
        wrong
    }

    /// Shows the locks.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        self.shelves
            .iter()
            .for_each(|shelf| visit(shelf.lists.as_lock()));
    }

    /// Whether nobody holds one of the locks, which are never held over a system call.
    pub(super) fn short_locks_are_free(&self) -> bool {
        let mut locks = self.shelves.iter().map(|shelf| shelf.lists.as_lock());
        !locks.any(Lock::is_held)
    }

    /// In a fork child: forgets all lists.
    pub(super) fn reset(&self) {
        for shelf in &self.shelves {
            let lists = shelf.lists.lock();
            lists.waiting.clear();
            lists.draining.clear();
            shelf.count.store(0, Relaxed);
        }
    }
}

impl<O: Os> Backend<O> {
    /// In a fork child: takes up a slab whose owner is gone.
    pub(super) fn list_again(&self, slab: SlabPtr) {
        let (free, slots) = (slab.count_free(), slab.slots());
        if free == 0 {
            slab.set_state(State::Unlisted);
            slab.frees_left.set(0);
            slab.owner.store(Owner::FULL, SeqCst);
        } else if free == slots {
            slab.owner.store(RELEASED, SeqCst);
            self.release(slab);
        } else {
            slab.owner
                .store(Owner::on_list(Listing::Listed, slab.class()), SeqCst);
            let shelf = &self.abandoned.shelves[slab.class().index()];
            let lists = shelf.lists.lock();
            shelf.push(&lists, slab);
        }
    }
}
