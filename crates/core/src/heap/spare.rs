//! Spare slots: when a class may have a slab more although others have free slots.
//!
//! A class that goes round its slabs again and again and finds them nearly full changes slabs at nearly every call. So may
//! one whose slots are drawn at random. Knows no lists.

use super::thin::live_of_waiting;
use super::{Class, HeapRef};
use crate::class::{most_pages, slots_in, ClassId, UpperClass, LOCAL_CLASSES, UPPER_CLASSES};
use crate::os::Os;
use crate::slab::SlabPtr;

/// A class of fewer slots has no spare ones. They are counted as if all its slabs were as large as the last one, which
/// finds a third too many among so few, or more.
const FEW_SLOTS: usize = 1280;
/// The largest part of a class's slots that may be spare, one in so many.
const LEAST_PART: usize = 6;
/// A part of no slots, however many there are.
const NO_PART: usize = 1 << 32;
/// The fewest spare slots that a slab is carved for.
pub(super) const SPARE_SLOTS: usize = 16;
/// The most spare slots of a class, as a part of its slots and in bytes, that are carved to draw among, and the fewest.
const DRAWN_PART: usize = 4;
const DRAWN_BYTES: usize = 64 << 10;
const DRAWN_LEAST: usize = 4;
/// How many times a class goes round its slabs and finds them nearly full before it may have spare slots.
pub(super) const ROUNDS: u32 = 4;
/// And how many nearly full slabs it finds at least.
pub(super) const PATIENCE: u32 = 64;

/// The most slabs of each class above 1 KiB that have fewer than [`FEW_SLOTS`] slots, however large they are.
static FEW_SLABS: [u32; UPPER_CLASSES] = {
    let mut slabs = [0; UPPER_CLASSES];
    let mut index = 0;
    while index < UPPER_CLASSES {
        let class = ClassId::new(LOCAL_CLASSES + index);
        slabs[index] = ((FEW_SLOTS - 1) / slots_in(class, most_pages(class))) as u32;
        index += 1;
    }
    slabs
};

/// What part of its `slots`, one of so many, a class may have as spare slots. None for few slots, since refill goes
/// round those in no time. A slab with less than that free when its turn comes is nearly full.
#[inline]
pub(super) fn spare_part(slots: usize) -> usize {
    match slots {
        0..FEW_SLOTS => NO_PART,
        FEW_SLOTS..16_384 => LEAST_PART,
        _ => 16,
    }
}

impl Class {
    /// Whether the class, which is `upper`, has so few slots that none of its slabs is nearly full, and none was lately.
    #[inline(always)]
    pub(super) fn has_few(&self, upper: UpperClass) -> bool {
        // SAFETY: there are UPPER_CLASSES of them, and the index of an `UpperClass` is below that.
        let most = unsafe { *FEW_SLABS.get_unchecked(upper.index()) };
        self.owned.get() <= most && self.nearly_full.get() == 0
    }

    /// Notes whether the slab whose turn has come is nearly full.
    #[inline(always)]
    pub(super) fn note_fill(&self, is_nearly_full: bool) {
        let nearly_full = self.nearly_full.get();
        self.nearly_full.set(if is_nearly_full {
            nearly_full.saturating_add(1)
        } else {
            nearly_full.saturating_sub(1)
        });
    }

    /// Slots of all slabs, if they are as large as `slab`.
    #[inline(always)]
    fn slots(&self, slab: SlabPtr) -> usize {
        self.owned.get() as usize * slab.slots()
    }

    /// Slots of all slabs, and what part of them may be spare slots.
    #[inline(always)]
    fn slots_and_part(&self, slab: SlabPtr) -> (usize, usize) {
        let all = self.slots(slab);
        (all, spare_part(all))
    }

    /// Whether `slab`, whose turn comes, has less free than its part of the spare slots.
    #[inline(always)]
    pub(super) fn is_nearly_full(&self, slab: SlabPtr) -> bool {
        let (all, part) = self.slots_and_part(slab);
        all >= FEW_SLOTS && is_nearly_full(slab, part)
    }

    /// How many slots a new slab may have that is carved although `slab`, the next in turn, has free ones.
    ///
    /// A heap that was filled to the last slot and then replaces blocks one by one has no spare slots. Each freed slot
    /// is the only one, and nearly every call would change slabs. So a class that has gone round its slabs `ROUNDS`
    /// times and found them nearly full may have spare slots, no sooner. Every program that does not pay for it again
    /// and again uses freed slots first.
    #[inline(always)]
    pub(super) fn spare_for(&self, slab: SlabPtr) -> usize {
        let nearly_full = self.nearly_full.get();
        if nearly_full < PATIENCE
            || nearly_full < self.owned.get().saturating_mul(ROUNDS)
            || !self.is_nearly_full(slab)
        {
            return 0;
        }
        let (all, part) = self.slots_and_part(slab);
        (all / part).saturating_sub(self.spare.get() as usize)
    }
}

/// Whether `slab`, which waits on a list, has less free than one in `part` of its slots.
#[inline(always)]
pub(super) fn is_nearly_full(slab: SlabPtr, part: usize) -> bool {
    let slots = slab.slots();
    if slots < 2 * LEAST_PART {
        return false; // since one slot at least is free, but where an aligned request took a full slab
    }
    let free = slots.wrapping_sub(live_of_waiting(slab));
    is_less(free, slots, part)
}

/// Whether `free` < `slots / part`, without a division.
#[inline(always)]
const fn is_less(free: usize, slots: usize, part: usize) -> bool {
    free.wrapping_add(1).wrapping_mul(part) <= slots
}

impl<O: Os> HeapRef<'_, O> {
    /// The next [`HeapRef::refill`] carves spare slots, if its class may have more: slots are drawn at random, and
    /// again and again there were few to draw among. So few that nearly each call would change slabs.
    pub fn widen_choice(&self) {
        self.lacks_choice.set(true);
    }

    /// How many slots a new slab may have that is carved to draw among, although `slab` waits.
    pub(super) fn spare_to_draw(&self, slab: SlabPtr) -> Option<usize> {
        if !self.lacks_choice.take() || slab.count_free() > slab.slots() / DRAWN_PART {
            return None;
        }
        let this = &self.classes[slab.class().index()];
        let all = this.owned.get() as usize * slab.slots();
        let most = (all / DRAWN_PART).min(DRAWN_BYTES / slab.size());
        let spare = most.saturating_sub(this.spare.get() as usize);
        (spare >= DRAWN_LEAST).then_some(spare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_nearly_full_as_a_division_would_tell() {
        for part in [spare_part(1), spare_part(FEW_SLOTS), spare_part(16_384)] {
            for slots in 1..=512 {
                for free in 0..=slots {
                    assert_eq!(is_less(free, slots, part), free < slots / part);
                    let is_told_early = slots < 2 * LEAST_PART && free > 0;
                    assert!(!is_told_early || free >= slots / part);
                }
            }
        }
    }
}
