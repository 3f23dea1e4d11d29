//! How full a block's slab is, and whether it helps to move the block: for programs that defragment.
//!
//! A program that can move its blocks frees whole slabs that way (redis, valkey and dragonfly do). It allocates a block
//! anew, copies it and frees the old one. The bitmaps tell exactly which blocks are worth it. Such a block's slab is no
//! fuller than the average partial slab of its class. And these slabs have more free slots together than one slab has.
//! So the advice ends when nothing can be gained any more.

use crate::class::CLASSES;
use crate::pages::Pages;
use crate::slab::{SlabPtr, State};
use crate::sync::AtomicU32;
use crate::sync::Ordering::Relaxed;

/// How full a block's slab is, and the partial slabs of its class together. The layout is that of
/// `struct slabside_occupancy`. All zero for a block that has pages of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Occupancy {
    /// Live slots of the block's slab.
    pub live: usize,
    /// Slots of the block's slab.
    pub slots: usize,
    /// Live slots of all slabs of the class that wait with free ones. Not counted are those that a heap takes slots from.
    pub class_live: usize,
    /// Slots of these slabs.
    pub class_slots: usize,
}

/// The sums over the partial slabs of each class. They are counted anew after as many questions as there
/// are slabs, so that a question costs as much as a look at one header.
pub struct Sums {
    live: [AtomicU32; CLASSES],
    slots: [AtomicU32; CLASSES],
    /// Questions that the sums are good for yet.
    left: AtomicU32,
}

impl Sums {
    /// None were counted.
    pub const fn new() -> Sums {
        Sums {
            live: [const { AtomicU32::new(0) }; CLASSES],
            slots: [const { AtomicU32::new(0) }; CLASSES],
            left: AtomicU32::new(0),
        }
    }
}

impl Default for Sums {
    fn default() -> Sums {
        Sums::new()
    }
}

fn live_slots(slab: SlabPtr) -> usize {
    let free = slab.count_free() + slab.count_remote();
    slab.slots().saturating_sub(free)
}

impl Sums {
    /// How full `slab` of `pages`, which is one of slots, is.
    pub fn measure(&self, pages: &Pages, slab: SlabPtr) -> Occupancy {
        self.count_when_due(pages);
        let class = slab.class();
        let [class_live, class_slots] =
            [&self.live, &self.slots].map(|sums| sums[class.index()].load(Relaxed) as usize);
        Occupancy {
            live: live_slots(slab),
            slots: slab.slots(),
            class_live: class_live.min(class_slots),
            class_slots,
        }
    }

    /// Whether to move a live block of `slab` helps to give the slab back.
    pub fn should_move(&self, pages: &Pages, slab: SlabPtr) -> bool {
        if slab.state() == State::Active {
            return false;
        }
        let of = self.measure(pages, slab);
        let sparse = of.live * of.class_slots <= of.class_live * of.slots;
        of.live < of.slots && sparse && of.class_slots - of.class_live > of.slots
    }

    fn count_when_due(&self, pages: &Pages) {
        let left = self.left.load(Relaxed);
        if left != 0 {
            return self.left.store(left - 1, Relaxed);
        }
        let (mut live, mut slots) = ([0u32; CLASSES], [0u32; CLASSES]);
        let mut slabs = 0;
        pages.each_slab(|slab| {
            slabs += 1;
            let (class, of_slab) = (slab.class(), live_slots(slab));
            if !class.is_span() && of_slab < slab.slots() && slab.state() != State::Active {
                let class = class.index();
                live[class] = live[class].saturating_add(of_slab as u32);
                slots[class] = slots[class].saturating_add(slab.slots() as u32);
            }
        });
        for class in 0..CLASSES {
            self.live[class].store(live[class], Relaxed);
            self.slots[class].store(slots[class], Relaxed);
        }
        self.left.store(slabs, Relaxed);
    }
}
