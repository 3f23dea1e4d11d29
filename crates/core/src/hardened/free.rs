//! free: ends the life of a slot, which then waits in the quarantine until its slab has it again.
//!
//! The common half finds the slot by itself. The other half is told which one it is, does all of it, and tells what is
//! wrong. Does not know blocks that lie in no slab (see `apart`), nor what order the quarantine keeps (see `thread`).

use super::bytes::{self, FEW};
use super::forms::{Known, Plain};
use super::mitigations::Mitigations;
use super::room::SLOT_MAX;
use super::thread::{charge, Freed, Quarantine, Thread};
use super::{Hardened, HardenedRef};
use crate::arch::prefetch;
use crate::heap::{dead, locate, Heap};
use crate::misuse::{Call, Misuse};
use crate::os::Os;
use crate::owner::{Owner, RELEASED};
use crate::slab::SlabPtr;
use crate::sync::{Ordering::AcqRel, Ordering::Relaxed};
use crate::units::{SlabId, Slot};
use crate::wide::{self, with_wide};

impl Hardened {
    /// Ends the life of a slot, whose heap does not know yet: its size is forgotten, its canary looked at,
    /// its bytes cleared.
    #[inline]
    pub fn end(&self, slab: SlabPtr, slot: Slot, racing: bool) -> Result<(), Misuse> {
        let fixed = self.fixed();
        let Some(size) = self.sizes().end(slab, slot, racing) else {
            return Err(dead(slab, slot));
        };
        let address = slab.address(slot);
        // SAFETY: the slot was live, and this thread has ended that.
        unsafe {
            if fixed.mitigations.canary && !self.is_whole::<Plain>(address, size, slab.size()) {
                self.look_at_seal(slab, slot, size, Call::Free)?;
            }
            if fixed.mitigations.zero {
                let used = (size + fixed.behind).min(slab.size());
                bytes::clear_words(address, used, fixed.wide);
            }
        }
        Ok(())
    }

    /// Ends the life of all slots of a slab whose heap ends: its bytes are left as those of free slots are. The
    /// first misuse that they tell of comes back.
    pub fn end_slots(&self, slab: SlabPtr) -> Result<(), Misuse> {
        let mut outcome = Ok(());
        if !self.is_on() {
            return outcome;
        }
        for slot in (0..slab.slots()).map(Slot::new) {
            if self.sizes().size(slab, slot).is_none() {
                continue;
            }
            let ended = self.end(slab, slot, false);
            if ended.is_err() && self.fixed().mitigations.zero {
                let size = slab.size();
                // SAFETY: the slot was live, and its heap ends.
                unsafe { bytes::clear(slab.address(slot), size) };
            }
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl<O: Os> HardenedRef<'_, O> {
    /// The common half of [`HardenedRef::free`]: a live slot in the first window, and what has to leave the quarantine for
    /// it is of the thread's own slabs. `None` if nothing was done, which includes every misuse of the block. Also for
    /// slots of more than `FEW` bytes, unless `MANY`. Without that it calls nothing: some ninety instructions, and a store
    /// for every sixteen bytes of the block. Without a quarantine the slot is free at once, by a call where something
    /// follows from that, which may find another misuse.
    #[inline(always)]
    pub fn free_fast<const MANY: bool, F: Known>(
        self,
        thread: &Thread,
        addr: usize,
    ) -> Option<Result<(), Misuse>> {
        let fixed = self.fixed();
        let Mitigations {
            zero,
            canary,
            random,
            racing,
            quarantine: most,
            ..
        } = self.mitigations::<F>();
        let behind = self.behind::<F>();
        let largest = match (MANY, F::WIDE) {
            (true, _) => usize::MAX,
            (false, true) => SLOT_MAX,
            (false, false) => FEW,
        };
        // Where it lies and what it is are found by a chain of loads. The block's own first line may come meanwhile.
        prefetch(addr as *const u8);
        let found = self.live_fast(addr, largest)?;
        // A hardened thread that is in no slow path has one. It is asked for where it is needed.
        let heap = match MANY || most == 0 {
            true => Some(thread.heap()?),
            false => None,
        };
        if found.slab.owner.load(Relaxed).is_arena() {
            return None;
        }
        let (bytes, size, noted) = (found.bytes, found.size, found.noted);
        let used = size + behind;
        if zero && used == 0 {
            return None; // What clears few bytes clears a word at least.
        }
        // SAFETY: `live_fast` found the slot live, and it has room for the canary.
        if canary && !unsafe { self.is_whole::<F>(addr, size, bytes) } {
            return None;
        }
        if most != 0 && random && !thread.random.is_ready_for(MANY) {
            return None;
        }
        let quarantine = &thread.quarantine;
        let charged = charge(bytes, most);
        if most != 0
            && quarantine.is_over(charged, most)
            && !heap.is_some_and(|heap| self.has_made_room::<F>((thread, heap), charged))
        {
            return None;
        }
        // Without a second thread there is none to race with.
        if racing && self.backend.heaps.given.load(Relaxed) > 1 {
            if noted.swap(0, AcqRel) == 0 {
                return None;
            }
        } else {
            noted.store(0, Relaxed);
        }
        // Before it is cleared, while what it takes is at hand. A fork child clears what waits of a block that its parent did not clear yet.
        if most != 0 {
            let freed = Freed {
                slab: found.id.0,
                slot: found.slot.index() as u32,
                charged: charged as u32,
            };
            let random = random.then_some(&thread.random);
            quarantine.put(freed, random, most);
        }
        if zero {
            // SAFETY: the slot was live, and this thread has ended that.
            unsafe {
                if MANY && bytes > FEW {
                    bytes::clear_words(addr, used.min(bytes), fixed.wide);
                } else if F::WIDE && used > FEW {
                    wide::clear_inline(addr, bytes::whole_words(used));
                } else {
                    bytes::clear_few::<F>(addr, used);
                }
            }
        }
        let at_once = heap.filter(|_| most == 0);
        at_once.map_or(Some(Ok(())), |heap| {
            let (slab, slot) = (found.slab, found.slot);
            Some(match heap.free_fast(slab, slot) {
                true => Ok(()),
                false => self.release_event(heap, slab, slot),
            })
        })
    }

    #[inline(always)]
    fn has_made_room<F: Known>(self, at: (&Thread, &Heap), charged: usize) -> bool {
        match F::WIDE {
            // SAFETY: the processor has what the form needs.
            true => unsafe { self.make_room_wide::<F>(at, charged) },
            false => self.make_room_plain::<F>(at, charged),
        }
    }

    with_wide! {
        #[inline(never)]
        unsafe fn make_room_wide<F: Known>(self, at: (&Thread, &Heap), charged: usize) -> bool {
            self.make_room::<F>(at, charged)
        }
    }

    #[inline(never)]
    fn make_room_plain<F: Known>(self, at: (&Thread, &Heap), charged: usize) -> bool {
        self.make_room::<F>(at, charged)
    }

    /// Lets a batch of blocks leave the quarantine, so that one that is `charged` so many bytes can come in. False where that cannot
    /// be, and where one cannot be freed, which the other half then finds again.
    #[inline(always)]
    fn make_room<F: Known>(self, (thread, heap): (&Thread, &Heap), charged: usize) -> bool {
        let (quarantine, table) = (&thread.quarantine, self.backend.table());
        let most = self.mitigations::<F>().quarantine;
        if !Quarantine::can_hold(charged, most) {
            return false;
        }
        quarantine.tell_time(self.backend.os.clock());
        let me = heap.me();
        quarantine.thin_out(charged, most, |oldest, soon| {
            let slab = table.get(SlabId(oldest.slab));
            prefetch(table.get(SlabId(soon.slab)).as_ptr().cast());
            Heap::free_fast_of(me, slab, oldest.slot())
                || self.release_event(heap, slab, oldest.slot()).is_ok()
        });
        !quarantine.is_over(charged, most)
    }

    /// As [`HardenedRef::release`], where more follows than that a bit is set.
    #[inline(never)]
    fn release_event(self, heap: &Heap, slab: SlabPtr, slot: Slot) -> Result<(), Misuse> {
        let heap = heap.on(self.backend);
        match heap.free_into_full(slab, slot) {
            true => Ok(()),
            false => heap.free_elsewhere(slab, slot),
        }
    }

    /// Frees the slot of a slab: it waits in the quarantine, or is free at once.
    pub fn free(self, thread: &Thread, slab: SlabPtr, slot: Slot) -> Result<(), Misuse> {
        // Without a second thread there is none to race with.
        let racing = self.fixed().mitigations.racing && self.backend.heaps.given.load(Relaxed) > 1;
        let Some(heap) = thread.heap() else {
            return Ok(());
        };
        self.end(slab, slot, racing)?;
        let freed = Freed {
            slab: self.sizes().number(slab) as u32,
            slot: slot.index() as u32,
            charged: charge(slab.size(), self.fixed().mitigations.quarantine) as u32,
        };
        let owner = slab.owner.load(Relaxed).without_pending();
        if owner.is_arena() && owner != heap.me() {
            return self.quarantine_in_arena(owner, freed);
        }
        self.quarantine(thread, heap, freed)
    }

    /// A first-class heap's block waits in the heap's own quarantine: it ends with the heap.
    fn quarantine_in_arena(self, owner: Owner, freed: Freed) -> Result<(), Misuse> {
        if let Some((arena, heap)) = self.backend.arena_of(owner) {
            let local = arena.lock();
            // It may have been destroyed while this thread waited.
            let thread = self.thread(&local);
            if let Some(thread) = thread.filter(|_| heap.me() == owner) {
                return self.quarantine(thread, heap, freed);
            }
        }
        let slab = self.backend.table().get(SlabId(freed.slab));
        Err(dead(slab, freed.slot()))
    }

    /// A block whose life has ended waits in the quarantine of `thread`, whose heap is `heap`, or is free at once.
    fn quarantine(self, thread: &Thread, heap: &Heap, freed: Freed) -> Result<(), Misuse> {
        let mitigations = &self.fixed().mitigations;
        let (most, charged) = (mitigations.quarantine, freed.charged as usize);
        if most == 0 || !Quarantine::can_hold(charged, most) {
            return self.release(heap, freed);
        }
        let random = mitigations.random.then_some(&thread.random);
        thread.random.make_ready();
        thread.quarantine.tell_time(self.backend.os.clock());
        while thread.quarantine.is_over(charged, most) {
            match thread.quarantine.take() {
                Some(freed) => self.release(heap, freed)?,
                None => return self.release(heap, freed),
            }
        }
        thread.quarantine.put(freed, random, most);
        Ok(())
    }

    /// Frees all that the thread's quarantine holds. Whether it held anything.
    pub fn flush(self, thread: &Thread) -> Result<bool, Misuse> {
        let mut any = false;
        if let Some(heap) = thread.heap() {
            while let Some(freed) = thread.quarantine.take() {
                self.release(heap, freed)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Takes back a block that was made just now and is not needed.
    pub fn take_back(self, thread: &Thread, addr: usize) -> Result<(), Misuse> {
        match self.backend.pages.slab_at(addr) {
            Some(slab) if slab.owner.load(Relaxed) != RELEASED => {
                let slot = locate(slab, addr, Call::Free)?;
                self.free(thread, slab, slot)
            }
            _ => self.free_apart(addr).map(|_| ()),
        }
    }

    /// Gives a block to its slab at last.
    #[inline]
    pub(super) fn release(self, heap: &Heap, freed: Freed) -> Result<(), Misuse> {
        let slab = self.backend.table().get(SlabId(freed.slab));
        if heap.free_fast(slab, freed.slot()) {
            return Ok(());
        }
        heap.on(self.backend).free_elsewhere(slab, freed.slot())
    }
}
