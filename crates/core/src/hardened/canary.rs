//! What lies after a block in its room: whether it is as it was left.
//!
//! ```text
//!   | the bytes that were asked for | canary | zero ............. | the end of the slot, or of the pages
//! ```
//!
//! Changes no byte, and ends no life. Does not know how a canary is made: that does `bytes`.

use super::bytes::{self, CANARY};
use super::forms::{Known, Plain};
use super::room::SLOT_MAX;
use super::Hardened;
use crate::large::Block;
use crate::misuse::{Call, Misuse};
use crate::slab::SlabPtr;
use crate::units::Slot;

impl Hardened {
    /// Whether a block of `size` bytes in a room of `bytes` has a canary: if there is room for it.
    #[inline(always)]
    pub(super) fn has_canary(&self, size: usize, bytes: usize) -> bool {
        self.fixed().mitigations.canary && size + CANARY <= bytes
    }

    /// Whether the canary after `size` bytes of a slot of `bytes` is whole, and what lies after it as it
    /// was left.
    ///
    /// # Safety
    /// The slot is live.
    #[inline(always)]
    pub(super) unsafe fn is_whole<F: Known>(&self, addr: usize, size: usize, bytes: usize) -> bool {
        let fixed = self.fixed();
        if bytes > SLOT_MAX {
            // SAFETY: the caller guarantees that the slot is live.
            return unsafe { self.is_room_whole(addr, size, bytes) };
        }
        // SAFETY: the caller guarantees that the slot is live. Slots that are no spans have room for the canary.
        unsafe {
            bytes::broken_seal(addr, size, fixed.secret).is_none()
                && (!self.mitigations::<F>().zero || bytes::ends_in_zero(addr, size, bytes))
        }
    }

    /// As [`Hardened::is_whole`], of a span or a large block of `bytes` bytes: all of what lies after the canary is
    /// looked at.
    ///
    /// # Safety
    /// The block is live.
    #[inline(never)]
    unsafe fn is_room_whole(&self, addr: usize, size: usize, bytes: usize) -> bool {
        let fixed = self.fixed();
        if !self.has_canary(size, bytes) {
            return true;
        }
        // SAFETY: the caller guarantees that the block is live, and it has room for the canary.
        unsafe {
            bytes::broken_seal(addr, size, fixed.secret).is_none()
                && (!fixed.mitigations.zero || bytes::rest_is_zero(addr, size, bytes, fixed.wide))
        }
    }

    /// The first byte after a live block of `size` bytes, in a room of `bytes`, that is not as it was left, counted
    /// from the block's end.
    fn broken_at(&self, addr: usize, size: usize, bytes: usize) -> Option<usize> {
        // SAFETY: the callers' blocks are live, unless another thread frees one now, which would be misuse.
        if !self.has_canary(size, bytes) || unsafe { self.is_whole::<Plain>(addr, size, bytes) } {
            return None;
        }
        let (secret, zero) = (self.fixed().secret, self.fixed().mitigations.zero);
        let end = size + CANARY;
        // SAFETY: there is room for the canary, and what is after that is the block's.
        unsafe {
            let behind = || (end..bytes).find(|at| *((addr + at) as *const u8) != 0);
            bytes::broken_seal(addr, size, secret)
                .or_else(|| behind().filter(|_| zero).map(|at| at - size))
        }
    }

    pub(super) fn look_at_seal(
        &self,
        slab: SlabPtr,
        slot: Slot,
        size: usize,
        call: Call,
    ) -> Result<(), Misuse> {
        let addr = slab.address(slot);
        match self.broken_at(addr, size, slab.size()) {
            None => Ok(()),
            Some(past) => Err(Misuse::Overflow {
                call,
                addr,
                slot,
                size: slab.size(),
                asked: size,
                past,
            }),
        }
    }

    pub(super) fn look_at_large_seal(
        &self,
        block: Block,
        asked: usize,
        call: Call,
    ) -> Result<(), Misuse> {
        match self.broken_at(block.address, asked, block.bytes) {
            None => Ok(()),
            Some(past) => Err(Misuse::Overflow {
                call,
                addr: block.address,
                slot: Slot::FIRST,
                size: block.bytes,
                asked,
                past,
            }),
        }
    }
}
