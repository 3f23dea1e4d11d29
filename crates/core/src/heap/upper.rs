//! The classes above 1 KiB, whose caches lie in the heap and whose slabs have one bitmap word.
//!
//! A slab has four slots at first, two above 8 KiB, and 64 at most, so its word is cached often: what
//! [`HeapRef::refill_upper`] does for it has no loop.

use super::{Class, Heap, HeapRef};
use crate::class::{most_pages, slots_in, ClassId, UpperClass, CLASSES, LOCAL_CLASSES};
use crate::os::Os;
use crate::slab::{SlabPtr, FIRST_FILL};
use crate::sync::{unlinked, Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::{Busy, SlotCache};
use crate::units::WORD_SLOTS;
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
    /// Checks out the word of the active slab of `upper` and takes its first slot. If the slab has no free slot left, that
    /// of the slab whose turn is next, which a class of few slots comes to often. `None` where that is not all there is to do, and where something is wrong.
    #[inline(always)]
    pub fn refill_upper(self, busy: &Busy, upper: UpperClass) -> Option<NonNull<u8>> {
        let table = self.table();
        let cache = self.upper_cache_at(upper);
        // SAFETY: there are CLASSES of them, and the class of an `UpperClass` is below that.
        let class = unsafe { self.classes.get_unchecked(upper.class().index()) };
        // A handler may have filled the cache before the thread was marked, and could now take from it.
        cache.hide();
        // No slab is header 0, which has no slots.
        let active = class.active.get();
        let slab = table.get(active);
        let frees_left = slab.frees_left.get();
        compiler_fence(SeqCst); // before the bits are read
        let all = all_slots(slab);
        let mut bits = slab.first_free_word().load(Relaxed) & all;
        let mut from = slab;
        let _inside;
        if bits == 0 {
            if !active.is_some() {
                return None;
            }
            _inside = self.come_in(busy)?;
            from = self.change_upper(class, upper, slab, frees_left)?;
            bits = from.first_free_word().load(Relaxed) & all_slots(from);
            if bits == 0 {
                return None;
            }
        } else if bits == all {
            // Blocks that are freed at once: their addresses need not wait for the bitmap word.
            bits = unlinked(all);
        }
        if from.first_remote_word().load(Relaxed) & bits != 0 {
            return None;
        }
        self.ticks.set(self.ticks.get().wrapping_add(1));
        self.check_out(from, cache, 0, bits)
    }

    /// Whether `block`, which was taken just now from the cache of `class` above the thread-local ones, is all zero: its
    /// slot was never handed out before. False for any other block.
    pub fn is_first_use(self, class: ClassId, block: usize) -> bool {
        self.active(class).is_some_and(|slab| {
            let inside = block.wrapping_sub(slab.base()) < slab.slots() * slab.size();
            inside && slab.has(FIRST_FILL)
        })
    }

    /// The active `slab` of `class`, which is `upper`, is used up: the slab whose turn is next becomes active instead.
    /// `None`, and nothing was done, where that is not all there is to do. The heap's thread is inside.
    #[inline(always)]
    fn change_upper(
        self,
        class: &Class,
        upper: UpperClass,
        slab: SlabPtr,
        frees_left: i32,
    ) -> Option<SlabPtr> {
        let next = class.partial.first(self.table())?;
        if !class.may_change(self.backend, upper.class(), next) {
            return None;
        }
        let next = self.change(class, slab, frees_left)?;
        self.activate_in(class, next, 1);
        Some(next)
    }
}

/// The bits of the slots of a slab of one bitmap word. For header 0, whose bitmap is zero, any.
#[inline(always)]
fn all_slots(slab: SlabPtr) -> u64 {
    lowest_bits(slab.slots())
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
