//! Blocks that lie in no slab: large ones, between guard pages or not, and those of no bytes.
//!
//! They wait in no quarantine of a thread: a freed block between guard pages is out of reach at once. Does not know how
//! large blocks are recorded, nor where their pages come from: that does `crate::large`.

use super::bytes;
use super::guard_pages::{IsClaimed, WithGuardPages};
use super::live::Live;
use super::HardenedRef;
use crate::large::{Found, Fresh, GuardPages};
use crate::misuse::{Call, Misuse};
use crate::os::Os;
use core::ops::Range;

impl<O: Os> HardenedRef<'_, O> {
    pub(super) fn malloc_large(self, size: usize, align: usize) -> Option<Fresh> {
        let need = self.need(size);
        let guard = self.fixed().mitigations.guard;
        let mapped = if guard {
            let is_apart = self.backend.large.live().1 < self.fixed().apart_most;
            let is_claimed = |range: Range<usize>| {
                self.backend.meta.reaches(&range) || self.backend.pages.reaches(&range)
            };
            let beds = is_apart.then_some((&self.beds, &is_claimed as IsClaimed));
            let os = WithGuardPages::new(&self.backend.os, beds);
            self.backend.map_large_on(&os, need, align)
        } else {
            self.backend.map_large_on(&self.backend.os, need, align)
        };
        let mapped = mapped?;
        let (block, fresh) = (mapped.block, mapped.new.is_some());
        if self.fixed().mitigations.zero && !fresh {
            // SAFETY: the mapping is ours. It was kept from an earlier block.
            unsafe { bytes::clear(block.address, block.bytes) };
        }
        let guard_pages = if guard && fresh {
            GuardPages::Both
        } else {
            GuardPages::None
        };
        self.backend.large.note(block.address, size, guard_pages);
        if self.has_canary(size, block.bytes) {
            // SAFETY: the mapping has room for the canary, as was just asked.
            unsafe { bytes::seal(block.address, size, self.fixed().secret) };
        }
        Some(mapped)
    }

    /// Frees a block that lies in no slab. How many of its bytes are kept for others. `None` if the address is nothing of
    /// ours.
    pub fn free_apart(self, addr: usize) -> Result<Option<usize>, Misuse> {
        let call = Call::Free;
        if let Some(was_live) = self.empty.give(&self.backend.meta, addr) {
            return Ok(was_live.then_some(0));
        }
        let Some((block, asked, guard_pages)) = self.backend.large.noted(addr) else {
            return self.dead_large(addr, call).map_or(Ok(None), Err);
        };
        self.look_at_large_seal(block, asked, call)?;
        self.unmap(addr, guard_pages).map(Some)
    }

    /// Frees a large block of a heap that ends, whatever is wrong with it.
    pub fn end_apart(self, addr: usize) -> Result<(), Misuse> {
        let Some((block, asked, guard_pages)) = self.backend.large.noted(addr) else {
            return Ok(());
        };
        let whole = self.look_at_large_seal(block, asked, Call::Free);
        whole.and(self.unmap(addr, guard_pages).map(drop))
    }

    /// Frees a live large block. One between guard pages is never kept for reuse: it goes out of reach at once. How many
    /// bytes of its pages are kept.
    fn unmap(self, addr: usize, guard_pages: GuardPages) -> Result<usize, Misuse> {
        self.backend.profile.end_large(&self.backend.meta, addr);
        let (found, shared) = match guard_pages {
            GuardPages::Both => self.backend.large.take_out(&self.backend.meta, addr),
            GuardPages::None => (self.backend.large.unmap(self.backend.supply(), addr), false),
        };
        match (found, guard_pages) {
            (Found::Live(block), GuardPages::Both) => {
                let kept = if shared { 0 } else { self.keep_pages(block) };
                // SAFETY: it was live, lay between guard pages, and was taken out just now.
                unsafe { self.held.hold(&self.backend.os, addr, block.bytes) };
                Ok(kept)
            }
            (Found::Live(_), GuardPages::None) => Ok(0),
            _ => {
                let call = Call::Free;
                let dead = self.dead_large(addr, call);
                Err(dead.unwrap_or(Misuse::Unknown { call, addr }))
            }
        }
    }

    /// What is wrong with `addr`, at which no large block lives. `None` if it is nothing of ours.
    fn dead_large(self, addr: usize, call: Call) -> Option<Misuse> {
        let is_freed = matches!(self.backend.large.find(addr), Found::Freed(_))
            || self.held.holds(addr, self.backend.meta.os_page());
        is_freed.then_some(Misuse::DeadLarge { call, addr })
    }

    /// The live block at `addr`, which lies in no slab. `None` if it is nothing of ours.
    pub fn live_apart(self, addr: usize, call: Call) -> Result<Option<Live>, Misuse> {
        if self.empty.is_live(&self.backend.meta, addr) == Some(true) {
            return Ok(Some(Live::Empty));
        }
        match self.backend.large.noted(addr) {
            Some((block, size, _)) => Ok(Some(Live::Large(block, size))),
            None => self.dead_large(addr, call).map_or(Ok(None), Err),
        }
    }

    /// As [`HardenedRef::live_apart`], without waiting for a lock. `None` where it does not know.
    pub fn try_live_apart(self, addr: usize) -> Option<Live> {
        if self.empty.is_live(&self.backend.meta, addr) == Some(true) {
            return Some(Live::Empty);
        }
        let (block, size, _) = self.backend.large.try_noted(addr)?;
        Some(Live::Large(block, size))
    }

    /// Notes the new size of a large block that stays where it is.
    pub(super) fn note_large(self, addr: usize, size: usize) {
        if let Some((_, _, guard_pages)) = self.backend.large.noted(addr) {
            self.backend.large.note(addr, size, guard_pages);
        }
    }
}
