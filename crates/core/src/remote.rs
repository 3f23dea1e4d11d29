//! Ownership of slabs, and how a thread frees what another one owns.
//!
//! Every protocol that runs without a lock is here, on slab headers alone, so that loom can model it
//! (tests/loom.rs). The owner word says who may use a header's first line:
//!
//! ```text
//!   owner      = heap index and generation (never used again), even   one thread's
//!   owner|1    = the same, and remote frees wait to be collected      one thread's
//!   owner|FULL   full, and nobody's: the first who frees into it claims it by CAS
//!   LISTED       nobody's, on the process's list: who frees into it claims it, under that list's lock
//!   SHARED       nobody's, on the same list: who frees into it marks the slot, as in another thread's
//!   DRAINING     as SHARED, but with so many free slots that others serve first
//!   SHARED|FULL  full, and nobody's, and several threads freed into it: the first who does lists it
//!   RELEASED     no slab
//!
//!            new slab                  full
//!   RELEASED ------> owned(|1) <--------------> owner|FULL
//!       ^--release-----'  ^ ^     claim (CAS)
//!                         | `--abandon, share / adopt, claim (lock)--> LISTED, SHARED --(lock)--> DRAINING
//!                         `------------adopt (lock)--------------------------+  ^ list (lock)        |
//!                              open (CAS) --> SHARED|FULL -------------------'--'  <-----------------'
//! ```
//!
//! The values of nobody are distinct: with one value a CAS claim and a locked adoption could both win. A freed slot is
//! marked in `free` or in `remote` at every moment, so a second free that happens after the first is found at once.
//! Overlapping ones are found by the collection at the latest.

use crate::owner::Owner;
use crate::slab::{SlabPtr, SlabTable};
use crate::sync::{xor_owned, AtomicU32, AtomicU64};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};
use crate::units::{SlabId, Slot};

/// Slots that are free twice: the word's number, and the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The bitmap word.
    pub word: usize,
    /// Its bits that were free twice.
    pub bits: u64,
}

/// What a thread that marked a remote free has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the owner knows already, or has collected.
    Done,
    /// Queue the slab with the heap of this owner word.
    Notify(Owner),
    /// The slab has no owner, and a free that waits to be collected, or nothing else: claim it, or list it where it is
    /// full and shared.
    Claim,
}

/// Marks `slot`, owned by another thread, as freed. False if it is free already, and past the last slot.
#[inline(always)]
pub fn free_remote(slab: SlabPtr, slot: Slot) -> bool {
    let bit = slot.bit();
    let remote = slab.remote_word_at(slot);
    // In this order, since a collection moves the bit from `remote` to `free`.
    if remote.load(Acquire) & bit != 0 || slab.free_word_at(slot).load(Acquire) & bit != 0 {
        return false;
    }
    // The local bit must not be tested again: the owner may have collected this very free by then.
    remote.fetch_or(bit, SeqCst) & bit == 0
}

/// What became of a free by [`free_remote_fast`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The slot is marked. This is to be done next.
    Marked(Next),
    /// It was free already.
    Dead,
    /// The slab is `me`'s, or it is to be claimed: nothing was marked.
    Elsewhere,
}

/// Whether a free into a slab of this owner, by a thread whose owner word is `me`, marks its slot and no more: it is
/// another heap's, or all share it.
#[inline(always)]
pub fn is_marked_by(owner: Owner, me: Owner) -> bool {
    (owner.is_heap() || owner.is_shared()) && !owner.is_of(me)
}

/// The common half of a free by a thread whose owner word is `me`: of a slot that another heap owns, or all
/// share. Touches no heap and takes no lock, and may be interrupted anywhere by a signal handler that frees as well.
#[inline]
pub fn free_remote_fast(slab: SlabPtr, slot: Slot, me: Owner) -> Given {
    if !is_marked_by(slab.owner.load(SeqCst), me) {
        return Given::Elsewhere;
    }
    if !free_remote(slab, slot) {
        return Given::Dead;
    }
    Given::Marked(match is_known(slab, slot) {
        true => Next::Done,
        false => raise_pending(slab),
    })
}

/// After [`free_remote`] of `slot`: whether nobody is to be told, as most often. Either the owner knows that frees wait,
/// or others share the slab, of which not all is free.
#[inline(always)]
pub fn is_known(slab: SlabPtr, slot: Slot) -> bool {
    let owner = slab.owner.load(SeqCst);
    if owner.is_heap() {
        return owner.is_pending();
    }
    // One word of `is_all_free`.
    let remote = || slab.remote_word_at(slot).load(SeqCst);
    owner.is_shared()
        && !owner.is_full()
        && remote() | slab.free_word_at(slot).load(Acquire) != u64::MAX
}

/// After [`free_remote`]: raises the pending flag, or returns who must be notified otherwise. The slab may have been
/// collected, released and made anew by then. A flag too many costs an empty collection.
#[inline(never)]
pub fn raise_pending(slab: SlabPtr) -> Next {
    let mut owner = slab.owner.load(SeqCst);
    loop {
        if owner.is_shared() && !owner.is_full() && !is_all_free(slab) {
            // Who adopts it collects.
            return Next::Done;
        }
        if owner.is_nobodys() {
            return Next::Claim;
        }
        if !owner.is_heap() || owner.is_pending() {
            return Next::Done;
        }
        match slab
            .owner
            .compare_exchange(owner, owner.with_pending(), SeqCst, SeqCst)
        {
            Ok(_) => return Next::Notify(owner),
            Err(now) => owner = now,
        }
    }
}

/// Whether every slot of a slab that nobody owns was freed. If several threads mark its last slots at the same time,
/// one of them sees the marks of all. A hint where the slab is claimed meanwhile.
#[inline(never)]
fn is_all_free(slab: SlabPtr) -> bool {
    (0..slab.words()).all(|word| {
        // In this order, since a collection moves bits from `remote` to `free`. Bits past the last slot read free.
        let remote = slab.remote_word(word).load(SeqCst);
        remote | slab.free_word(word).load(Acquire) == u64::MAX
    })
}

/// Moves the remote frees of a slab owned by `me` into its free bitmap. Returns how many.
///
/// The flag is cleared first, then the bits are read, all sequentially consistent: a freer that still
/// saw the flag has set its bit before. The bit stays in `remote` until it is in `free`.
pub fn collect(slab: SlabPtr, me: Owner) -> Result<usize, Overlap> {
    slab.owner.store(me, SeqCst);
    let mut collected = 0;
    let mut overlap = None;
    for word in 0..slab.words() {
        let remote = slab.remote_word(word).load(SeqCst);
        if remote == 0 {
            continue;
        }
        let free = slab.free_word(word).load(Relaxed);
        if free & remote != 0 {
            overlap = Some(Overlap {
                word,
                bits: free & remote,
            });
        }
        // One instruction: a free by a signal handler that interrupts this one is not lost.
        xor_owned(slab.free_word(word), remote & !free);
        slab.remote_word(word).fetch_and(!remote, SeqCst);
        collected += (remote & !free).count_ones() as usize;
    }
    overlap.map_or(Ok(collected), Err)
}

/// Lets go of a slab owned by `me`: its owner word becomes `to`. False if remote frees wait to be
/// collected first.
pub fn release_ownership(slab: SlabPtr, me: Owner, to: Owner) -> bool {
    slab.owner.compare_exchange(me, to, SeqCst, Relaxed).is_ok()
}

/// Lets go of a full slab owned by `me`: it is whose who frees into it first. False if remote frees wait to be
/// collected first.
pub fn open(slab: SlabPtr, me: Owner) -> bool {
    release_ownership(slab, me, me.with_full())
}

/// Makes `me` the owner of a full slab that nobody owns, whose owner word was `from`. False if somebody was faster. The
/// new owner collects, since frees from before the claim notified nobody.
pub fn claim(slab: SlabPtr, from: Owner, me: Owner) -> bool {
    slab.owner
        .compare_exchange(from, me, SeqCst, Relaxed)
        .is_ok()
}

/// Raises the pending flag of a slab owned by `me`, in no queue: its owner collects before its next free there.
pub fn expect_frees(slab: SlabPtr, me: Owner) {
    // If that fails another thread has raised it.
    let _ = slab
        .owner
        .compare_exchange(me, me.with_pending(), SeqCst, Relaxed);
}

/// Link of a slab that is in no queue. Zero, as fresh metadata is.
const UNQUEUED: u32 = 0;
/// Link of a queue's last slab, and head of an empty queue.
const END: u32 = 1;
/// Head of a queue whose heap has exited.
const CLOSED: u32 = u32::MAX;

/// Whether `slab` is in some heap's queue.
pub fn is_queued(slab: SlabPtr) -> bool {
    slab.queue.load(Relaxed) != UNQUEUED
}

/// The slabs of one heap that have remote frees to collect. Any thread pushes. The heap's thread takes all at once. A
/// slab is in at most one queue, once: its link is claimed by CAS.
#[repr(transparent)]
pub struct Queue(AtomicU32);

impl Queue {
    /// A closed queue.
    pub fn closed() -> Queue {
        Queue(AtomicU32::new(CLOSED))
    }

    /// Opens the queue, empty, for a heap that begins.
    pub fn open(&self) {
        self.0.store(END, SeqCst);
    }

    /// Whether nothing was pushed since the last [`Queue::take`].
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.load(Relaxed) == END
    }

    /// Whether there is anything to take.
    pub fn holds_any(&self) -> bool {
        !matches!(self.0.load(Relaxed), END | CLOSED)
    }

    /// Adds `slab` unless it is in a queue already. False if this queue is closed: its owner is then to
    /// be looked at again, since another push may have failed because this one held the link.
    #[inline(never)]
    pub fn push(&self, slab: SlabPtr) -> bool {
        if slab
            .queue
            .compare_exchange(UNQUEUED, END, SeqCst, SeqCst)
            .is_err()
        {
            return true;
        }
        let mut head = self.0.load(SeqCst);
        loop {
            if head == CLOSED {
                slab.queue.store(UNQUEUED, SeqCst);
                return false;
            }
            slab.queue.store(head, SeqCst);
            match self.0.compare_exchange(head, slab.id().0, SeqCst, SeqCst) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
    }

    /// Adds `slab`, of this queue's heap with the owner word `me`, if frees wait in it. For the heap's own thread, where
    /// it took the slab out of the queue and did not collect.
    #[inline]
    pub fn push_waiting(&self, slab: SlabPtr, me: Owner) {
        if slab.owner.load(SeqCst) != me {
            // Where the queue is closed the heap is about to collect from all its slabs.
            self.push(slab);
        }
    }

    /// Takes all that was pushed. Newest first.
    pub fn take(&self, table: SlabTable) -> Taken {
        Taken {
            next: self.0.swap(END, SeqCst),
            table,
        }
    }

    /// Closes the queue and takes all that was pushed.
    pub fn close(&self, table: SlabTable) -> Taken {
        Taken {
            next: self.0.swap(CLOSED, SeqCst),
            table,
        }
    }
}

/// What [`Queue::take`] took. Each slab's link is free for another push before the slab is looked at.
pub struct Taken {
    next: u32,
    table: SlabTable,
}

impl Iterator for Taken {
    type Item = SlabPtr;

    fn next(&mut self) -> Option<SlabPtr> {
        if self.next == END || self.next == CLOSED {
            return None;
        }
        let slab = self.table.get(SlabId(self.next));
        self.next = slab.queue.swap(UNQUEUED, SeqCst);
        Some(slab)
    }
}

/// For a fork child. Takes `slab` out of whatever queue it was in, and merges its remote frees without asking for
/// overlaps. A collection may have stood between its two steps when the parent forked.
pub fn repair(slab: SlabPtr) {
    slab.queue.store(UNQUEUED, Relaxed);
    for word in 0..slab.words() {
        let remote: &AtomicU64 = slab.remote_word(word);
        let free = slab.free_word(word);
        // One instruction: a signal handler's own free into this word is not lost.
        xor_owned(free, remote.load(Relaxed) & !free.load(Relaxed));
        remote.store(0, Relaxed);
    }
}
