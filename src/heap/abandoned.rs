//! Slabs with free slots that no thread owns, because theirs has exited.

use super::Ground;
use crate::class::CLASSES;
use crate::counters;
use crate::os::Os;
use crate::remote::{self, DISOWNED, LISTED, RELEASED};
use crate::slab::{List, SlabPtr, SlabTable, State};
use crate::sync::{AtomicU32, Guard, Lock};
use crate::sync::{Ordering::Relaxed, Ordering::SeqCst};
use core::cell::UnsafeCell;

/// Slabs with free slots that no thread owns, by class, under a lock.
pub struct Abandoned {
    lock: Lock,
    lists: UnsafeCell<[List; CLASSES + 1]>,
    counts: [AtomicU32; CLASSES + 1],
}

// SAFETY: the lists are reached under the lock alone.
unsafe impl Sync for Abandoned {}

impl Abandoned {
    /// No slabs.
    pub const fn new() -> Abandoned {
        Abandoned {
            lock: Lock::new(),
            lists: UnsafeCell::new([const { List::new() }; CLASSES + 1]),
            counts: [const { AtomicU32::new(0) }; CLASSES + 1],
        }
    }

    pub(super) fn list<'a>(&'a self, _guard: &'a Guard<'_>, class: usize) -> &'a List {
        // SAFETY: callers hold the lock for as long as they use the list.
        unsafe { &(*self.lists.get())[class] }
    }

    /// Lets an unlisted slab of `me`'s go onto the list; false if remote frees wait to be collected.
    pub(super) fn leave(&self, table: SlabTable, slab: SlabPtr, me: u64) -> bool {
        let guard = self.lock.lock();
        let left = remote::let_go(slab, me, LISTED);
        if left {
            self.push(&guard, table, slab);
        }
        left
    }

    pub(super) fn push(&self, guard: &Guard<'_>, table: SlabTable, slab: SlabPtr) {
        slab.set_state(State::Abandoned);
        self.list(guard, slab.class()).push_back(table, slab);
        self.counts[slab.class()].fetch_add(1, Relaxed);
    }

    pub(super) fn take(&self, guard: &Guard<'_>, table: SlabTable, slab: SlabPtr, me: u64) {
        self.list(guard, slab.class()).unlink(table, slab);
        self.counts[slab.class()].fetch_sub(1, Relaxed);
        slab.set_state(State::Unlisted);
        slab.owner.store(me, SeqCst);
    }

    /// The slab of `class` that waits longest, made `me`'s.
    pub(super) fn adopt(&self, table: SlabTable, class: usize, me: u64) -> Option<SlabPtr> {
        if self.counts[class].load(Relaxed) == 0 {
            return None;
        }
        let guard = self.lock.lock();
        let slab = self.list(&guard, class).first(table)?;
        self.take(&guard, table, slab, me);
        Some(slab)
    }

    /// Makes a listed slab `me`'s; false if somebody was faster.
    pub(super) fn claim(&self, table: SlabTable, slab: SlabPtr, me: u64) -> bool {
        let guard = self.lock.lock();
        let listed = slab.owner.load(SeqCst) == LISTED;
        if listed {
            self.take(&guard, table, slab, me);
        }
        listed
    }

    /// In a fork child: frees the lock.
    pub fn reset_lock(&self) {
        self.lock.reset();
    }

    /// In a fork child: forgets all lists.
    pub(super) fn reset(&self) {
        let guard = self.lock.lock();
        for class in 0..=CLASSES {
            self.list(&guard, class).clear();
            self.counts[class].store(0, Relaxed);
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
            ground.pages.release(&ground.os, &ground.meta, slab);
            uncount(ground, slab);
        } else {
            slab.owner.store(LISTED, SeqCst);
            let guard = self.lock.lock();
            self.push(&guard, ground.table(), slab);
        }
    }
}

fn uncount<O: Os>(ground: &Ground<O>, slab: SlabPtr) {
    let counters = ground.meta.counters();
    let counter = if slab.is_span() {
        &counters.spans
    } else {
        &counters.slabs[slab.class()]
    };
    counters::subtract(counter, 1);
}

impl Default for Abandoned {
    fn default() -> Abandoned {
        Abandoned::new()
    }
}
