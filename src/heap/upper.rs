//! The classes above 1 KiB, whose caches lie in the heap and whose slabs have one bitmap word.
//!
//! A slab has four slots at first, two above 8 KiB, and seldom more than sixteen, so its word is cached often: what
//! [`Heap::refill_upper`] does for it has no loop.

use super::{Backend, Heap, TICK_EVERY};
use crate::bitmap::slots_of_word;
use crate::class::{most_pages, slots_in, CLASSES, LOCAL_CLASSES};
use crate::os::Os;
use crate::slab::SlabPtr;
use crate::sync::{unlinked, Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::{Busy, SlotCache};
use crate::units::{SlabId, WORD_SLOTS};
use core::sync::atomic::compiler_fence;

const _: () = {
    let mut class = LOCAL_CLASSES;
    while class < CLASSES {
        assert!(slots_in(class, most_pages(class)) <= WORD_SLOTS);
        class += 1;
    }
};

impl Heap {
    /// The cache of the `upper`-th class above the thread-local ones.
    ///
    /// # Safety
    /// `upper` < CLASSES - LOCAL_CLASSES.
    #[inline(always)]
    pub unsafe fn upper_cache_at(&self, upper: usize) -> &SlotCache {
        debug_assert!(upper < CLASSES - LOCAL_CLASSES);
        // SAFETY: the caller guarantees that `upper` < CLASSES - LOCAL_CLASSES.
        unsafe { self.caches.get_unchecked(upper) }
    }

    /// Checks out the word of the active slab of the `upper`-th class above the thread-local ones and takes
    /// its first slot. `None` where it has none, where the clock is to be looked at, and where something is
    /// wrong.
    ///
    /// # Safety
    /// As [`Heap::upper_cache_at`].
    #[inline(always)]
    pub unsafe fn refill_upper<O: Os>(
        &self,
        _: &Busy,
        backend: &Backend<O>,
        upper: usize,
    ) -> Option<*mut u8> {
        let ticks = self.ticks.get();
        if ticks.is_multiple_of(TICK_EVERY) {
            return None;
        }
        // SAFETY: the caller guarantees that `upper` < CLASSES - LOCAL_CLASSES.
        let (cache, class) = unsafe {
            let class = self.classes.get_unchecked(LOCAL_CLASSES + upper);
            (self.upper_cache_at(upper), class)
        };
        // A handler may have filled the cache before the thread was marked, and could now take from it.
        cache.hide();
        // No slab is header 0, which has no slots.
        let slab = backend.table().get(SlabId(class.active.get()));
        let all = slots_of_word(slab.slots(), 0);
        let mut bits = slab.first_free_word().load(Relaxed) & all;
        if bits == 0 || slab.first_remote_word().load(Relaxed) & bits != 0 {
            return None;
        }
        if bits == all {
            // Blocks that are freed at once: their addresses need not wait for the bitmap word.
            bits = unlinked(all);
        }
        self.ticks.set(ticks.wrapping_add(1));
        self.check_out(backend, slab, cache, 0, bits)
    }

    /// As [`Heap::refill_upper`], where the active slab has no free slot left: of the slab whose turn is next. A slab
    /// of few slots is used up often. `None` where that is not all there is to do. The heap's thread is inside.
    ///
    /// # Safety
    /// As [`Heap::upper_cache_at`].
    #[inline(always)]
    pub unsafe fn refill_upper_from_next<O: Os>(
        &self,
        backend: &Backend<O>,
        upper: usize,
    ) -> Option<*mut u8> {
        let (table, ticks) = (backend.table(), self.ticks.get());
        let number = LOCAL_CLASSES + upper;
        // SAFETY: the caller guarantees that `upper` < CLASSES - LOCAL_CLASSES.
        let (cache, class) = unsafe {
            let class = self.classes.get_unchecked(number);
            (self.upper_cache_at(upper), class)
        };
        let (active, next) = (SlabId(class.active.get()), class.partial.first(table)?);
        if ticks.is_multiple_of(TICK_EVERY) || !active.is_some() {
            return None;
        }
        let slab = table.get(active);
        cache.hide();
        let frees_left = slab.frees_left.get();
        compiler_fence(SeqCst); // before the bits are read
        let (left, bits) = (free_slots(slab), free_slots(next));
        if left != 0
            || next.first_remote_word().load(Relaxed) & bits != 0
            || !class.may_change(backend, number, next)
        {
            return None;
        }
        self.ticks.set(ticks.wrapping_add(1));
        let next = self.change(table, class, slab, frees_left)?;
        let bits = free_slots(next);
        if bits == 0 || next.first_remote_word().load(Relaxed) & bits != 0 {
            return None;
        }
        self.check_out(backend, next, cache, 0, bits)
    }
}

/// The free slots of a slab of one bitmap word.
#[inline(always)]
fn free_slots(slab: SlabPtr) -> u64 {
    slab.first_free_word().load(Relaxed) & slots_of_word(slab.slots(), 0)
}
