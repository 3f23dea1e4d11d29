//! What a report tells of an address besides the misuse itself.
//!
//! Reads what is noted, takes no lock of a heap and changes nothing. Does not know where the report goes.

use super::ago::Ago;
use super::HardenedRef;
use crate::misuse::{Line, Misuse};
use crate::os::Os;
use crate::units::Slot;

impl<O: Os> HardenedRef<'_, O> {
    /// What a report can add to a misuse: what lies at the address, when it was freed, and who is asking. `sampled_ago`
    /// tells when a sampled block was freed.
    pub fn explain(self, misuse: &Misuse, sampled_ago: Option<Ago>) -> Line {
        let mut line = Line::new();
        let addr = misuse.address();
        let thread = self.backend.os.thread_id() as u32 as usize;
        line.text("  in thread ").decimal(thread);
        let now = self.backend.os.clock();
        let held_ago = || self.held.freed_ago(addr, self.backend.meta.os_page(), now);
        if let Some(ago) = sampled_ago.or_else(held_ago) {
            ago.tell(&mut line);
        }
        let slab = self.backend.pages.find(addr).map(|(_, slab)| slab);
        if let Some(slab) = slab.filter(|slab| slab.id().is_some() && slab.size() != 0) {
            let offset = addr.wrapping_sub(slab.base());
            let index = (offset / slab.size()).min(slab.slots().saturating_sub(1));
            let (slot, size) = (Slot::new(index), slab.size());
            // A free that finds an overflow has taken note of the block's end already.
            let overflowed = match *misuse {
                Misuse::Overflow { asked, .. } => Some(asked),
                _ => None,
            };
            match self.sizes().size(slab, slot).or(overflowed) {
                Some(asked) => line.text("; a live block of ").decimal(asked),
                None if slab.is_free(slot) => line.text("; a free block of ").decimal(size),
                None => line.text("; a freed block of ").decimal(size),
            }
            .text(" bytes");
            if slab.slots() > 1 {
                line.text(", slot ")
                    .decimal(index)
                    .text(" of a ")
                    .decimal(size)
                    .text("-byte slab");
            }
            let number = self.sizes().number(slab) as u32;
            let start = self.fixed.threads;
            if let Some(ago) = self.threads.freed_ago(start, number, index as u32, now) {
                ago.tell(&mut line);
            }
            let rest = (index + 1) * size - offset.min((index + 1) * size);
            line.text("; the next slot begins ")
                .decimal(rest)
                .text(" bytes on");
        }
        line.text("\n");
        line
    }
}
