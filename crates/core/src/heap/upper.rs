//! The classes above 1 KiB, whose caches lie in the heap and whose slabs have one bitmap word.
//!
//! A slab has four slots at first, two above 8 KiB, and 64 at most, so its word is cached often: [`HeapRef::refill_upper`]
//! looks up each thing once.

use super::{Class, Heap, HeapRef};
use crate::arch;
use crate::class::{most_pages, slots_in, ClassId, UpperClass, CLASSES, LOCAL_CLASSES};
use crate::os::Os;
use crate::slab::{SlabPtr, State, FIRST_FILL};
use crate::sync::{unlinked, Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::{Busy, SlotCache};
use crate::units::WORD_SLOTS;
use core::ptr::NonNull;
use core::sync::atomic::compiler_fence;

/// The slabs of a class of which used-up ones wait. Those of a thread that sleeps are kept from whoever frees into them, and
/// so is their memory from the system: 3 MiB of a class at most.
const WAITING_MOST: u32 = 24;

const _: () = {
    let mut index = LOCAL_CLASSES;
    while index < CLASSES {
        let class = ClassId::new(index);
        assert!(slots_in(class, most_pages(class)) <= WORD_SLOTS);
        index += 1;
    }
};

impl Heap {
    /// The cache of `upper`.
    #[inline(always)]
    pub fn upper_cache_at(&self, upper: UpperClass) -> &SlotCache {
        // SAFETY: there are UPPER_CLASSES caches, and the index of an `UpperClass` is below that.
        unsafe { self.caches.get_unchecked(upper.index()) }
    }
}

impl<O: Os> HeapRef<'_, O> {
    /// Takes a slot of `upper`, whose cache is used up, in the commonest cases: the active slab has free ones again, or it
    /// has none, and the slab whose turn is next becomes active. `None`, and no slot was taken, where there is more to do.
    #[inline(always)]
    pub fn refill_upper(self, busy: &Busy, upper: UpperClass) -> Option<NonNull<u8>> {
        let (table, cache) = (self.table(), self.upper_cache_at(upper));
        let class = self.class_at(upper);
        // A handler may have filled the cache before the thread was marked, and could now take from it.
        cache.hide();
        // No slab is header 0, which has no slots.
        let active = class.active.get();
        let slab = table.get(active);
        let (frees_left, bits) = frees_left_and_bits(slab);
        if bits != 0 {
            self.count_bits(slab, bits)?;
            // Of blocks that are freed at once all are free: their addresses need not wait for the bitmap word.
            let bits = match bits == all_slots(slab) {
                true => unlinked(all_slots(slab)),
                false => bits,
            };
            return Some(self.fill_cache(slab, cache, 0, bits, slab.size()));
        }
        if !active.is_some() {
            return None;
        }
        let _inside = self.come_in(busy)?;
        // What the spare slots of a class depend on is not noted here.
        if !class.has_few(upper) || self.is_profiled() {
            return None;
        }
        let (next, bits) = self.find_next(class, upper)?;
        self.count_bits(next, bits)?;
        class.leave_queue(table, next);
        self.end_turn(class, slab, frees_left);
        next.set_state(State::Active);
        self.count_no_frees(next);
        // The cursor of a class of one word stays at that.
        class.active.set(next.id());
        Some(self.fill_cache(next, cache, 0, bits, next.size()))
    }

    /// Counts the free slots `bits` of `slab` as handed out. `None`, and nothing was counted, where there is more to do.
    #[inline(always)]
    fn count_bits(self, slab: SlabPtr, bits: u64) -> Option<()> {
        let count = arch::count_ones(bits);
        if slab.first_remote_word().load(Relaxed) & bits != 0
            || !slab.is_plain()
            || !self.count_plain(count * slab.size() as u64)
        {
            return None;
        }
        self.ticks.set(self.ticks.get().wrapping_add(1));
        self.count_slots(count);
        Some(())
    }

    /// As [`HeapRef::refill_upper`], where what the spare slots of the class depend on is to be noted, or a slab is not as
    /// most are. `None` where that is not all there is to do, and where something is wrong.
    #[inline(always)]
    pub fn change_upper(self, busy: &Busy, upper: UpperClass) -> Option<NonNull<u8>> {
        let (table, class, cache) = (
            self.table(),
            self.class_at(upper),
            self.upper_cache_at(upper),
        );
        cache.hide();
        let slab = self.active(upper.class())?;
        let (frees_left, mut bits) = frees_left_and_bits(slab);
        let mut from = slab;
        let _inside;
        if bits == 0 {
            _inside = self.come_in(busy)?;
            (from, bits) = self.find_next(class, upper)?;
            if !class.has_no_spare(from) {
                return None;
            }
            let _ = class.next_partial(table);
            self.end_turn(class, slab, frees_left);
            self.activate_in(class, from, 1);
        }
        if bits == 0 || from.first_remote_word().load(Relaxed) & bits != 0 {
            return None;
        }
        self.ticks.set(self.ticks.get().wrapping_add(1));
        self.check_out(from, cache, 0, bits)
    }

    /// The slab of the class that has free slots, and these, and whose turn is next: it is the first in the queue then. Of
    /// those before it that are still full the first waits for another turn, since it will most often have gathered some
    /// by then, and the others are whose who frees into them first. `None` where there is none, or more is to be looked at.
    #[inline(always)]
    fn find_next(self, class: &Class, upper: UpperClass) -> Option<(SlabPtr, u64)> {
        let mut spared = false;
        loop {
            let next = class.partial.first(self.table())?;
            if !class.may_leave(self.backend, upper.class(), next) {
                return None;
            }
            let (frees_left, bits) = frees_left_and_bits(next);
            if bits != 0 {
                return Some((next, bits));
            }
            spared = self.pass_full(class, next, frees_left, spared);
        }
    }

    /// `slab`, the active one of `class`, had no free slot after its `frees_left` was read, and another one waited. It waits
    /// for its turn again where the class has few slabs, and is whose who frees into it first otherwise.
    #[inline(always)]
    fn end_turn(self, class: &Class, slab: SlabPtr, frees_left: i32) {
        match class.owned.get() <= WAITING_MOST {
            true => self.put_off(class, slab, 0, frees_left),
            false => self.fill_up_active(class, slab, frees_left),
        }
    }

    /// Lets `next`, the first in the queue of `class`, which was full after its `frees_left` was read, wait for another
    /// turn, unless one was `spared` before, or no other waits. Returns whether one was.
    #[inline(never)]
    fn pass_full(self, class: &Class, next: SlabPtr, frees_left: i32, spared: bool) -> bool {
        class.leave_queue(self.table(), next);
        let spares = !spared && !class.partial.is_empty();
        match spares {
            true => class.partial.push_back(next),
            false => self.fill_up(next, frees_left),
        }
        spared || spares
    }

    /// Whoever frees first into the slabs of `class` that wait in front and are still full gets them: what is next in the
    /// queue has a free slot.
    pub(super) fn fill_up_waiting(self, class: ClassId) {
        if class.index() < LOCAL_CLASSES {
            return;
        }
        let this = &self.classes[class.index()];
        while let Some(next) = this.partial.first(self.table()) {
            let (frees_left, bits) = frees_left_and_bits(next);
            if bits != 0 {
                return;
            }
            self.pass_full(this, next, frees_left, true);
        }
    }

    /// The class `upper`.
    #[inline(always)]
    pub(super) fn class_at(&self, upper: UpperClass) -> &Class {
        // SAFETY: there are CLASSES of them, and the class of an `UpperClass` is below that.
        unsafe { self.classes.get_unchecked(upper.class().index()) }
    }

    /// Whether `block`, which was taken just now from the cache of `class` above the thread-local ones, is all zero: its
    /// slot was never handed out before. False for any other block.
    pub fn is_first_use(self, class: ClassId, block: usize) -> bool {
        self.active(class).is_some_and(|slab| {
            let inside = block.wrapping_sub(slab.base()) < slab.slots() * slab.size();
            inside && slab.has(FIRST_FILL)
        })
    }
}

/// The bits of the slots of a slab of one bitmap word. For header 0, whose bitmap is zero, any.
#[inline(always)]
fn all_slots(slab: SlabPtr) -> u64 {
    lowest_bits(slab.slots())
}

/// The free slots of a slab of one bitmap word. None for header 0, whose bitmap is zero.
#[inline(always)]
fn free_bits(slab: SlabPtr) -> u64 {
    slab.first_free_word().load(Relaxed) & all_slots(slab)
}

/// The `frees_left` of a slab of one bitmap word, and then its free slots: a signal handler that frees in between changes the
/// first.
#[inline(always)]
fn frees_left_and_bits(slab: SlabPtr) -> (i32, u64) {
    let frees_left = slab.frees_left.get();
    compiler_fence(SeqCst); // before the bits are read
    (frees_left, free_bits(slab))
}

/// The lowest `count` bits, from 1 to 64.
#[inline(always)]
const fn lowest_bits(count: usize) -> u64 {
    u64::MAX >> (count.wrapping_neg() % WORD_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmap::slots_of_word;

    #[test]
    fn the_lowest_bits_are_those_of_as_many_slots() {
        for slots in 1..=WORD_SLOTS {
            assert_eq!(lowest_bits(slots), slots_of_word(slots, 0));
        }
    }
}
