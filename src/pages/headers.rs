//! Which slab headers are in use: those never made, and those to be used again.

use crate::class::PAIR;
use crate::geometry::SlabId;
use crate::meta::SLAB_BYTES;
use crate::remote::RELEASED;
use crate::slab::{SlabPtr, SlabTable};
use crate::sync::Ordering::Relaxed;

/// Slab headers by number: those never used, and those to be used again.
pub(super) struct Headers {
    /// Headers made so far: the next number.
    pub(super) made: u32,
    /// Bytes of the header area that are open.
    pub(super) opened: usize,
    /// Heads of the lists of released headers, single and in pairs, linked through `next`.
    pub(super) spare: [u32; 2],
}

impl Headers {
    /// Number of headers that one slab of `class` takes: its header's kind is its list's index plus one.
    pub(super) fn kind(class: usize) -> usize {
        usize::from(class == PAIR)
    }

    pub(super) fn take(&mut self, table: SlabTable, class: usize) -> Option<SlabPtr> {
        let kind = Headers::kind(class);
        if self.spare[kind] != 0 {
            let slab = table.get(SlabId(self.spare[kind]));
            self.spare[kind] = slab.counted.load(Relaxed);
            return Some(slab);
        }
        let next = self.made as usize + kind + 1;
        if next * SLAB_BYTES > self.opened {
            return None;
        }
        let slab = table.get(SlabId(self.made));
        slab.id.store(self.made, Relaxed);
        slab.class.store(class as u8, Relaxed);
        slab.owner.store(RELEASED, Relaxed);
        self.made = next as u32;
        Some(slab)
    }

    pub(super) fn give(&mut self, slab: SlabPtr) {
        let kind = Headers::kind(slab.class());
        slab.counted.store(self.spare[kind], Relaxed);
        self.spare[kind] = slab.id().0;
    }
}
