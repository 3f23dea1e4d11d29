//! Slabs with free slots that no thread owns, because theirs has exited.

use super::Ground;
use crate::class::CLASSES;
use crate::mutex::{Lock, Mutex, Registry};
use crate::os::Os;
use crate::remote::{self, DISOWNED, LISTED, RELEASED};
use crate::slab::{List, SlabPtr, SlabTable, State};
use crate::sync::AtomicU32;
use crate::sync::{Ordering::Relaxed, Ordering::SeqCst};

/// Slabs with free slots that no thread owns, by class, under a lock.
pub struct Abandoned {
    lists: Mutex<Lists>,
    counts: [AtomicU32; CLASSES + 1],
}

type Lists = [List; CLASSES + 1];

impl Abandoned {
    /// No slabs.
    pub const fn new(locks: &mut Registry) -> Abandoned {
        Abandoned {
            lists: Mutex::new(locks, [const { List::new() }; CLASSES + 1]),
            counts: [const { AtomicU32::new(0) }; CLASSES + 1],
        }
    }

    /// Lets an unlisted slab of `me`'s go onto the list; false if remote frees wait to be collected.
    pub(super) fn leave(&self, table: SlabTable, slab: SlabPtr, me: u64) -> bool {
        let lists = self.lists.lock();
        let left = remote::let_go(slab, me, LISTED);
        if left {
            self.push(&lists, table, slab);
        }
        left
    }

    pub(super) fn push(&self, lists: &Lists, table: SlabTable, slab: SlabPtr) {
        slab.set_state(State::Abandoned);
        lists[slab.class()].push_back(table, slab);
        self.counts[slab.class()].fetch_add(1, Relaxed);
    }

    pub(super) fn take(&self, lists: &Lists, table: SlabTable, slab: SlabPtr, me: u64) {
        lists[slab.class()].unlink(table, slab);
        self.counts[slab.class()].fetch_sub(1, Relaxed);
        slab.set_state(State::Unlisted);
        slab.owner.store(me, SeqCst);
    }

    /// The slab of `class` that waits longest, made `me`'s.
    pub(super) fn adopt(&self, table: SlabTable, class: usize, me: u64) -> Option<SlabPtr> {
        if self.counts[class].load(Relaxed) == 0 {
            return None;
        }
        let lists = self.lists.lock();
        let slab = lists[class].first(table)?;
        self.take(&lists, table, slab, me);
        Some(slab)
    }

    /// Makes a listed slab `me`'s; false if somebody was faster.
    pub(super) fn claim(&self, table: SlabTable, slab: SlabPtr, me: u64) -> bool {
        let lists = self.lists.lock();
        let listed = slab.owner.load(SeqCst) == LISTED;
        if listed {
            self.take(&lists, table, slab, me);
        }
        listed
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.lists.as_lock());
    }

    /// In a fork child: forgets all lists.
    pub(super) fn reset(&self) {
        let lists = self.lists.lock();
        for (list, count) in lists.iter().zip(&self.counts) {
            list.clear();
            count.store(0, Relaxed);
        }
    }

    /// In a fork child: takes up a slab whose owner is gone.
    pub(super) fn orphan<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) {
        let (free, slots) = (slab.count_free(), slab.slots());
        if free == 0 {
            slab.set_state(State::Unlisted);
            slab.owner.store(DISOWNED, SeqCst);
        } else if free == slots {
            slab.owner.store(RELEASED, SeqCst);
            ground.release(slab);
        } else {
            slab.owner.store(LISTED, SeqCst);
            self.push(&self.lists.lock(), ground.table(), slab);
        }
    }
}
