//! realloc: moves the end of a block within its room.
//!
//! Moves no block elsewhere. Where the room does not do it says so, and the allocator makes a new block.

use super::bytes::{self, CANARY, FEW};
use super::live::Live;
use super::mitigations::Mitigations;
use super::room::fits_as_well;
use super::{sizes, Hardened, HardenedRef};
use crate::heap::dead;
use crate::large::UNUSED_MAX;
use crate::misuse::{Call, Misuse};
use crate::os::Os;
use crate::slab::SIZE_AMBIGUOUS;
use crate::sync::Ordering::Relaxed;
use crate::tls::ThreadCache;
use crate::units::{Slot, PAGE, SPAN_MAX};

impl Hardened {
    /// Looks at the bytes that a block takes in which grows where it is: behind the canary they are as they were left.
    fn look_at_growth(
        &self,
        live: Live,
        addr: usize,
        (old, new): (usize, usize),
        room: usize,
    ) -> Result<(), Misuse> {
        if !self.fixed().mitigations.zero || !self.has_canary(old, room) {
            return Ok(());
        }
        let (from, end) = (old + CANARY, (new + CANARY).min(room));
        // SAFETY: the block is live, and has so much room.
        let dirty = unsafe { bytes::first_dirty_of(addr, from..end, self.fixed().wide) };
        let Some(at) = dirty else {
            return Ok(());
        };
        let slot = match live {
            Live::Slot(_, slot, _) => slot,
            _ => Slot::FIRST,
        };
        Err(Misuse::Overflow {
            call: Call::Realloc,
            addr,
            slot,
            size: room,
            asked: old,
            past: at - old,
        })
    }

    /// Moves the end of a block from `old` to `new` bytes in its room of `room` bytes.
    fn move_end(&self, addr: usize, room: usize, old: usize, new: usize) {
        let behind = self.fixed().behind;
        let from = old.min(new);
        // SAFETY: up to the larger of the two ends, and the canary that has room there, the bytes are the block's.
        unsafe {
            if behind != 0 || self.fixed().mitigations.zero {
                let old_end = (old + behind).min(room);
                let until = if new < old { old_end } else { new.min(old_end) };
                bytes::clear(addr + from, until - from);
            }
            if self.has_canary(new, room) {
                bytes::seal(addr, new, self.fixed().secret);
            }
        }
    }
}

impl<O: Os> HardenedRef<'_, O> {
    /// The common half of [`HardenedRef::resize`]: a live slot in the first window grows by little and has room for it. False
    /// if nothing was done, which includes every misuse. Takes no lock, and no heap knows of it.
    #[inline(always)]
    pub fn grow_fast(self, local: &ThreadCache, (addr, size): (usize, usize)) -> bool {
        let fixed = self.fixed();
        let Mitigations { zero, canary, .. } = fixed.mitigations;
        let Some(found) = self.live_fast(addr, usize::MAX) else {
            return false;
        };
        let (old, bytes) = (found.size, found.bytes);
        let by = size.wrapping_sub(old);
        if by == 0 || by > FEW || size + fixed.behind > bytes || self.ends_at_guard(size) {
            return false;
        }
        if canary {
            // SAFETY: the block is live, and its slot has room for the canary behind what it is to have.
            unsafe {
                if bytes::broken_seal(addr, old, fixed.secret).is_some() {
                    return false;
                }
                bytes::unseal(addr, old);
                if zero && !bytes::are_clear_before(addr + size + CANARY, by) {
                    bytes::seal(addr, old, fixed.secret);
                    return false;
                }
                bytes::seal(addr, size, fixed.secret);
            }
        }
        if !fits_as_well(found.slab, size + fixed.behind) {
            found.slab.set_flags(SIZE_AMBIGUOUS);
        }
        // A thread that has no heap yet, or any more, is not counted.
        let racing = self.backend.heaps.given.load(Relaxed) > 1 || local.hardened.get() == 0;
        // Where two threads resize one block, its end is where one of them put it. The other one's is then found changed.
        sizes::change_at(found.noted, (bytes - old, bytes - size), racing)
    }

    /// Makes a live block `size` bytes long where it is. False if it has to move: it shrinks and changes its class or its
    /// number of pages, or has no room to grow. A canary is looked at in any case.
    pub fn resize(self, live: Live, addr: usize, size: usize) -> Result<bool, Misuse> {
        let call = Call::Realloc;
        let need = self.need(size);
        let (old, room, stays) = match live {
            Live::Empty => return Ok(size == 0),
            Live::Large(block, old) => {
                self.look_at_large_seal(block, old, call)?;
                let same = need > SPAN_MAX && need.div_ceil(PAGE) == block.bytes / PAGE;
                (old, block.bytes, same)
            }
            Live::Slot(slab, slot, old) => {
                if self.fixed().mitigations.canary {
                    self.look_at_seal(slab, slot, old, call)?;
                }
                let fits = fits_as_well(slab, need);
                let grows = size > old && need <= slab.size() && self.may_have_room(size);
                if grows && !fits {
                    slab.set_flags(SIZE_AMBIGUOUS); // Its class no longer tells what was asked for.
                }
                (old, slab.size(), size != 0 && (fits || grows))
            }
        };
        if !stays {
            return Ok(false);
        }
        self.look_at_growth(live, addr, (old, size), room)?;
        self.move_end(addr, room, old, size);
        match live {
            Live::Slot(slab, slot, _) if !self.sizes().change(slab, slot, old, size) => {
                return Err(dead(slab, slot));
            }
            Live::Large(..) => self.note_large(addr, size),
            _ => {}
        }
        Ok(true)
    }

    /// Makes a live block that is to shrink `size` bytes long where it is, or as near to that as can be noted.
    pub fn keep(self, (live, addr): (Live, usize), size: usize) -> Result<(), Misuse> {
        match live {
            Live::Empty => {}
            Live::Large(block, old) => {
                let size = size.max(block.bytes.saturating_sub(UNUSED_MAX)).min(old);
                self.move_end(addr, block.bytes, old, size);
                self.note_large(addr, size);
            }
            Live::Slot(slab, slot, old) => {
                let least = slab.size().saturating_sub(sizes::UNUSED_MAX);
                let size = size.max(1).max(least).min(old);
                if !fits_as_well(slab, self.need(size)) {
                    slab.set_flags(SIZE_AMBIGUOUS); // Its class no longer tells what was asked for.
                }
                self.move_end(addr, slab.size(), old, size);
                if !self.sizes().change(slab, slot, old, size) {
                    return Err(dead(slab, slot));
                }
            }
        }
        Ok(())
    }
}
