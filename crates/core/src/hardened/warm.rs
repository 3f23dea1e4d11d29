//! Pages of freed large blocks that later ones have: cleared, and elsewhere.
//!
//! ```text
//!   live    | fence | block ................ | fence |
//!   freed   | nobody can touch any of it             |        | clear pages | .. gap ..      `large` keeps them
//!   later                                      | fence | clear pages | fresh pages | fence |
//! ```
//!
//! A fresh page costs a fault and is cleared by the kernel. Pages that move cost less than half of that. They leave the
//! freed block before it is put out of reach, so whoever still has its address faults as ever. No byte of it is left.

use super::beds::Wanted;
use super::guard_pages::IsClaimed;
use super::{bytes, HardenedRef};
use crate::large::{Block, APART_LEAST};
use crate::os::Os;
use core::ops::Range;
use core::ptr::NonNull;

/// The part of the blocks that may lie apart beside which pages are kept: one with such pages has three mappings.
const APART_PART: usize = 4;
/// OS pages that are zero, after which no other one of the block is looked at: most likely it used no more.
const ZERO_PAGES: usize = 2;

impl<O: Os> HardenedRef<'_, O> {
    /// Moves the pages of a block between guard pages to where later blocks find them, as far as they are worth it. The
    /// block is in no record any more, and is to be put out of reach next. How many bytes are kept.
    pub(super) fn keep_pages(self, block: Block) -> usize {
        let (backend, now) = (self.backend, self.backend.os.clock());
        let (os, large, budget) = (&backend.os, &backend.large, &backend.meta.budget);
        if large.live().1 >= self.fixed().apart_most / APART_PART {
            return 0;
        }
        let bytes = large.may_keep(backend.supply(), block.bytes, now);
        // What is kept is charged first, so that the limit holds while it moves.
        if bytes == 0 || !budget.charge(bytes) {
            return 0;
        }
        let place = self.place_apart(bytes).unwrap_or(0);
        let least = APART_LEAST.next_multiple_of(backend.meta.os_page());
        let start = NonNull::new(block.address as *mut u8).filter(|_| least <= bytes);
        // SAFETY: the block was live and is nobody's now. A page behind it is its fence.
        let moved =
            start.and_then(|start| unsafe { os.move_out(start, block.bytes, place, bytes, least) });
        let Some(to) = moved else {
            budget.refund(bytes);
            return 0;
        };
        let address = to.as_ptr() as usize;
        // SAFETY: what has moved can be written to, since nothing was set for it, and nobody knows where it is.
        let used = unsafe { self.clear_used(address, bytes) };
        let kept = if used < APART_LEAST { 0 } else { used };
        large.keep_clear(backend.supply(), Block { address, bytes }, kept, now);
        kept
    }

    /// A place for `bytes` bytes, apart from all else.
    fn place_apart(self, bytes: usize) -> Option<usize> {
        let os = &self.backend.os;
        let align = os.page_size();
        let wanted = Wanted {
            bytes,
            lead: 0,
            align,
        };
        let is_claimed = |range: Range<usize>| {
            self.backend.meta.reaches(&range) || self.backend.pages.reaches(&range)
        };
        self.beds.place(os, wanted, &is_claimed as IsClaimed)
    }

    /// Clears what was used of some OS pages, from their beginning on: how many bytes. To look at a page that was never used
    /// makes it no memory, but costs a fault.
    ///
    /// # Safety
    /// They can be written to, and nobody needs them.
    unsafe fn clear_used(self, address: usize, bytes: usize) -> usize {
        let (wide, os_page) = (self.fixed().wide, self.backend.meta.os_page());
        let mut used = 0;
        for at in (0..bytes).step_by(os_page) {
            // SAFETY: the caller guarantees that nobody needs the pages, and that they can be written to.
            unsafe {
                if !bytes::are_clear(address + at, os_page, wide) {
                    bytes::clear_words(address + at, os_page, wide);
                    used = at + os_page;
                }
            }
            if at + os_page - used == ZERO_PAGES * os_page {
                break;
            }
        }
        used
    }
}
