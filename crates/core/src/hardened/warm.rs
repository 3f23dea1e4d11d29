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
use crate::large::Block;
use crate::os::{Moved, Os};
use crate::units::PAGE;
use core::ops::Range;
use core::ptr::NonNull;

/// The part of the blocks that may lie apart beside which pages are kept: one with such pages has three mappings.
const APART_PART: usize = 4;
/// Pages that are zero, after which no other one of the block is looked at: most likely it used no more.
const ZERO_PAGES: usize = 2;

impl<O: Os> HardenedRef<'_, O> {
    /// Moves the pages of a block between guard pages to where later blocks find them, as far as they are worth it. The
    /// block is in no record any more, and is to be put out of reach next.
    pub(super) fn keep_pages(self, block: Block) {
        let (backend, now) = (self.backend, self.backend.os.clock());
        let (os, large) = (&backend.os, &backend.large);
        if large.live().1 >= self.fixed().apart_most / APART_PART {
            return;
        }
        let part = large.may_keep(backend.supply(), block.bytes, now);
        if part == 0 {
            return;
        }
        let start = NonNull::new(block.address as *mut u8);
        let Some((start, to)) = start.zip(self.place_apart(part)) else {
            return;
        };
        // SAFETY: the block was live and is nobody's now. A page behind it is its fence. At `to` lies a fresh mapping of ours.
        let moved = unsafe { os.move_out(start, block.bytes, to, part) };
        let address = to.as_ptr() as usize;
        let kept = match moved {
            // SAFETY: what has moved can be written to, since nothing was set for it, and nobody knows where it is.
            Moved::Done => unsafe { self.clear_used(address, part) },
            _ => 0,
        };
        if kept < part && moved != Moved::Lost {
            // SAFETY: a part of our own mapping, which nobody knows and which is not kept.
            unsafe { os.unmap(to.add(kept), part - kept) };
        }
        if kept > 0 {
            let block = Block {
                address,
                bytes: kept,
            };
            large.keep_clear(backend.supply(), block, now);
        }
    }

    /// A fresh mapping of `bytes` bytes, apart from all else if possible.
    fn place_apart(self, bytes: usize) -> Option<NonNull<u8>> {
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
        let place = self.beds.place(os, wanted, &is_claimed as IsClaimed);
        match place.filter(|&place| os.map_at(place, bytes)) {
            Some(place) => NonNull::new(place as *mut u8),
            None => os.map(bytes, align),
        }
    }

    /// Clears what was used of `bytes` bytes, from their beginning on. Returns how many OS pages of them, in bytes: to look
    /// at one that was never used makes it no memory, but costs a fault.
    ///
    /// # Safety
    /// They are pages that can be written to, and nobody needs them.
    unsafe fn clear_used(self, address: usize, bytes: usize) -> usize {
        let (wide, os_page) = (self.fixed().wide, self.backend.meta.os_page());
        let (mut used, mut zero) = (0, 0);
        for at in (0..bytes).step_by(PAGE) {
            // SAFETY: the caller guarantees that nobody needs the pages, and that they can be written to.
            unsafe {
                if bytes::are_clear(address + at, PAGE, wide) {
                    zero += 1;
                    if zero == ZERO_PAGES {
                        break;
                    }
                } else {
                    bytes::clear_words(address + at, PAGE, wide);
                    used = at + PAGE;
                }
            }
        }
        used.next_multiple_of(os_page)
    }
}
