//! What lives at an address, and how many bytes were asked for.
//!
//! Only asks. Does not know what lies after a block, nor blocks that lie in no slab: `apart` finds those.

use super::{sizes, Hardened, HardenedRef};
use crate::class::slot_at;
use crate::large::Block;
use crate::misuse::{Call, Misuse};
use crate::os::Os;
use crate::slab::SlabPtr;
use crate::sync::{AtomicU16, Ordering::Relaxed};
use crate::units::{SlabId, Slot};

/// A live block in hardened mode.
#[derive(Clone, Copy)]
pub enum Live {
    /// A slot or a span, and the bytes that were asked for.
    Slot(SlabPtr, Slot, usize),
    /// A large block, and the bytes that were asked for.
    Large(Block, usize),
    /// A block of no bytes.
    Empty,
}

impl Live {
    /// The bytes that were asked for.
    pub fn size(self) -> usize {
        match self {
            Live::Slot(_, _, size) | Live::Large(_, size) => size,
            Live::Empty => 0,
        }
    }
}

/// A live slot, as it was found.
pub(super) struct LiveSlot<'a> {
    pub(super) slab: SlabPtr,
    /// The slab's number.
    pub(super) id: SlabId,
    pub(super) slot: Slot,
    /// Bytes of the slot.
    pub(super) bytes: usize,
    /// The bytes that were asked for.
    pub(super) size: usize,
    /// Where they are noted.
    pub(super) noted: &'a AtomicU16,
}

impl Hardened {
    /// The live block in `slot` of `slab`, which lies `at` this address.
    pub fn live_slot(&self, slab: SlabPtr, slot: Slot, at: (usize, Call)) -> Result<Live, Misuse> {
        let (addr, call) = at;
        match self.sizes().size(slab, slot) {
            Some(size) => Ok(Live::Slot(slab, slot, size)),
            None => Err(Misuse::Dead {
                call,
                addr,
                slot,
                size: slab.size(),
            }),
        }
    }
}

impl<'a, O: Os> HardenedRef<'a, O> {
    /// The live slot at `addr`, in the first window and of at most `largest` bytes: the common case of
    /// what is freed. `None` for everything else. Some thirty instructions.
    #[inline(always)]
    pub(super) fn live_fast(self, addr: usize, largest: usize) -> Option<LiveSlot<'a>> {
        let hot = &self.backend.pages.hot;
        let (slab, id) = hot.slab_and_id_of(hot.page_of(addr)?);
        let (base, bytes) = (slab.base(), slab.size());
        let (slot, _) = slot_at(addr.wrapping_sub(base), slab.recip.load(Relaxed));
        if !slab.holds(slot) || bytes > largest || base + slot.index() * bytes != addr {
            return None;
        }
        let noted = self.hard.sizes().place(id.index(), slot)?;
        Some(LiveSlot {
            slab,
            id,
            slot,
            bytes,
            size: sizes::asked(noted.load(Relaxed), bytes)?,
            noted,
        })
    }
}
