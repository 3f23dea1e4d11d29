//! What lies at an address: asked once by free, realloc and every question about a block.
//!
//! ```text
//!   address --region--> in a slab | nested | sampled | apart --resolve--> a live block | nothing of ours | a misuse
//! ```
//!
//! `free` needs the region alone, since the free itself finds out whether the block is live. All others get a
//! [`Target`], match it, and hand the live block on instead of its address.

use super::Allocator;
use crate::hardened;
use crate::heap::locate;
use crate::large::{Block, Found};
use crate::misuse::{Call, Misuse};
use crate::os::Os;
use crate::owner::RELEASED;
use crate::slab::SlabPtr;
use crate::sync::Ordering::Relaxed;
use crate::tls::{mark_busy, ThreadCache};

/// Where an address lies. Known without a lock.
#[derive(Clone, Copy)]
pub(crate) enum Region {
    /// In a page of this slab.
    Slab(SlabPtr),
    /// In the area of nested blocks.
    Nested,
    /// Among the pages of sampled blocks.
    Sampled,
    /// Elsewhere: a large block, a hardened block of no bytes, or nothing of ours.
    Apart,
}

/// A live block.
#[derive(Clone, Copy)]
pub(crate) enum Live {
    /// A slot or a span of this slab.
    Slot(SlabPtr),
    /// A large block.
    Large(Block),
    /// A block in hardened mode, whose size is known to the byte.
    Hardened(hardened::Live),
    /// A sampled block of so many bytes.
    Sampled(usize),
    /// A nested block of so many bytes.
    Nested(usize),
}

/// What lies at an address.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// A live block.
    Live(Live),
    /// Nothing of ours. Another malloc may know it.
    Foreign,
    /// Perhaps a large block: a signal handler asks while the thread may hold their lock.
    Unsure,
    /// No live block, so the call is a misuse.
    Wrong(Misuse),
}

impl Live {
    /// Bytes that may be used.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Live::Slot(slab) => slab.size(),
            Live::Large(block) => block.bytes,
            Live::Hardened(live) => live.size(),
            Live::Sampled(size) | Live::Nested(size) => size,
        }
    }

    /// The slab that it is a slot or a span of, if it is one.
    pub(crate) fn slab(self) -> Option<SlabPtr> {
        match self {
            Live::Slot(slab) | Live::Hardened(hardened::Live::Slot(slab, ..)) => Some(slab),
            _ => None,
        }
    }
}

impl From<Result<Live, Misuse>> for Target {
    fn from(found: Result<Live, Misuse>) -> Target {
        found.map_or_else(Target::Wrong, Target::Live)
    }
}

impl<O: Os> Allocator<O> {
    /// Where `addr` lies. The header of a page that went back stands for no slab: a mapping may lie there now.
    #[inline(always)]
    pub(crate) fn region(&self, addr: usize) -> Region {
        match self.backend.pages.find(addr) {
            Some((_, slab)) if slab.owner.load(Relaxed) != RELEASED => Region::Slab(slab),
            _ => self.region_without_slab(addr),
        }
    }

    /// As [`Allocator::region`], of an address in no slab.
    #[inline(never)]
    pub(super) fn region_without_slab(&self, addr: usize) -> Region {
        if self.nested.holds(addr) {
            Region::Nested
        } else if self.samples.holds(&self.backend.os, addr) {
            Region::Sampled
        } else {
            Region::Apart
        }
    }

    /// What lies at `addr`. First a path that the thread has left is mended, and a fork child repaired.
    pub(crate) fn resolve(&self, thread: &ThreadCache, addr: usize, call: Call) -> Target {
        if !self.is_interrupted(thread) {
            self.notice_fork(thread);
        }
        match self.region(addr) {
            Region::Slab(slab) => self.live_in(slab, addr, call).into(),
            Region::Nested => self.nested.size(addr, call).map(Live::Nested).into(),
            // The thread may hold the locks.
            Region::Sampled if thread.busy.get() != 0 => Target::Unsure,
            Region::Apart if thread.busy.get() != 0 => self.resolve_unlocked(addr, call),
            Region::Sampled => {
                mark_busy!(thread);
                let size = self.samples.size(&self.backend.os, addr, call);
                size.map(Live::Sampled).into()
            }
            Region::Apart => {
                mark_busy!(thread);
                self.resolve_apart(addr, call)
            }
        }
    }

    /// The live block at `addr`, which lies in a page of `slab`.
    fn live_in(&self, slab: SlabPtr, addr: usize, call: Call) -> Result<Live, Misuse> {
        let slot = locate(slab, addr, call)?;
        if self.hard.is_on() {
            let live = self.hard.live_slot(slab, slot, (addr, call))?;
            return Ok(Live::Hardened(live));
        }
        if slab.is_remote(slot) || slab.is_free(slot) {
            let size = slab.size();
            return Err(Misuse::Dead {
                call,
                addr,
                slot,
                size,
            });
        }
        Ok(Live::Slot(slab))
    }

    /// What lies at `addr`, which is [`Region::Apart`].
    fn resolve_apart(&self, addr: usize, call: Call) -> Target {
        if !self.is_started() {
            return Target::Foreign;
        }
        if self.hard.is_on() {
            return match self.hard.on(&self.backend).live_apart(addr, call) {
                Ok(Some(live)) => Target::Live(Live::Hardened(live)),
                Ok(None) => Target::Foreign,
                Err(misuse) => Target::Wrong(misuse),
            };
        }
        Target::of_large(self.backend.large.find(addr), addr, call)
    }

    /// As `resolve_apart`, without waiting for a lock that the thread may hold.
    fn resolve_unlocked(&self, addr: usize, call: Call) -> Target {
        let backend = &self.backend;
        if self.hard.is_on() {
            if let Some(live) = self.hard.on(&self.backend).try_live_apart(addr) {
                return Target::Live(Live::Hardened(live));
            }
        }
        match backend.large.try_find(addr) {
            None => Target::Unsure,
            Some(Found::Live(_)) if self.hard.is_on() => Target::Unsure,
            Some(found) => Target::of_large(found, addr, call),
        }
    }
}

impl Target {
    fn of_large(found: Found, addr: usize, call: Call) -> Target {
        match found {
            Found::Live(block) => Target::Live(Live::Large(block)),
            Found::Freed(_) => Target::Wrong(Misuse::DeadLarge { call, addr }),
            Found::Unknown => Target::Foreign,
        }
    }
}
