//! The classes above 1 KiB, whose caches lie in the heap and whose slabs have one bitmap word.
//!
//! A slab has four slots at first, two above 8 KiB, and 64 at most, so its word is cached often: what
//! [`HeapRef::refill_upper`] does for it has no loop.

use super::{Class, Heap, HeapRef};
use crate::arch;
use crate::class::{most_pages, slots_in, ClassId, UpperClass, CLASSES, LOCAL_CLASSES};
use crate::os::Os;
use crate::slab::{SlabPtr, State, FIRST_FILL};
use crate::sync::{unlinked, Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::{Busy, SlotCache};
use crate::units::{SlabId, WORD_SLOTS};
use core::ptr::NonNull;
use core::sync::atomic::compiler_fence;

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
    /// has none, and the slab whose turn is next becomes active. `None`, and nothing was done, where there is more to do.
    #[inline(always)]
    pub fn refill_upper(self, busy: &Busy, upper: UpperClass) -> Option<NonNull<u8>> {
        let (table, cache) = (self.table(), self.upper_cache_at(upper));
        let class = self.class_at(upper);
        // A handler may have filled the cache before the thread was marked, and could now take from it.
        cache.hide();
        // No slab is header 0, which has no slots.
        let active = class.active.get();
        let slab = table.get(active);
        let frees_left = slab.frees_left.get();
        compiler_fence(SeqCst); // before the bits are read
        let bits = free_bits(slab);
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
        let next = class.partial.first(table)?;
        // What the spare slots of a class depend on is not noted here.
        if !class.has_few(upper)
            || !class.may_leave(self.backend, upper.class(), next)
            || self.is_profiled()
        {
            return None;
        }
        let bits = free_bits(next);
        if bits == 0 {
            return None;
        }
        self.count_bits(next, bits)?;
        class.active.set(SlabId::NONE);
        self.fill_up(slab, frees_left);
        class.leave_queue(self.table(), next);
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
        let frees_left = slab.frees_left.get();
        compiler_fence(SeqCst); // before the bits are read
        let (mut from, mut bits) = (slab, free_bits(slab));
        let _inside;
        if bits == 0 {
            _inside = self.come_in(busy)?;
            from = class.partial.first(table)?;
            if !class.may_change(self.backend, upper.class(), from) {
                return None;
            }
            self.change(class, slab, frees_left)?;
            self.activate_in(class, from, 1);
            bits = free_bits(from);
        }
        if bits == 0 || from.first_remote_word().load(Relaxed) & bits != 0 {
            return None;
        }
        self.ticks.set(self.ticks.get().wrapping_add(1));
        self.check_out(from, cache, 0, bits)
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
