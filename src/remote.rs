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

use crate::slab::{SlabPtr, SlabTable};
use crate::sync::{xor_owned, AtomicU32, AtomicU64};
use crate::sync::{Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};
use crate::units::{bit_of, word_of, SlabId};

/// Set in an owner word while remote frees wait to be collected.
pub const PENDING: u64 = 1;
/// Owner word of a header that stands for no slab, and of the dummy that foreign pages lead to.
pub const RELEASED: u64 = 2;
/// Owner word, but for the class (see [`on_list`]), of a slab on the process's list that its owner left when it exited.
pub const LISTED: u64 = 4;
/// The same of a slab on that list into which several threads free.
pub const SHARED: u64 = 6;
/// As `SHARED`, of one with so many free slots that others serve first, until it is empty or no other has any.
pub const DRAINING: u64 = 8;
/// Set in an owner word while the slab is full, nobody's, and on no list. The rest of the word says who owned it
/// last, if anybody. Never together with `PENDING`.
pub const FULL: u64 = 1 << 62;
static_assertions::const_assert!(FULL & ARENA == 0);

/// Set in the owner word of a first-class heap.
const ARENA: u64 = 1 << 63;

/// Bits of a heap's index in an owner word.
const INDEX_BITS: u32 = 20;
/// The most heaps at one time.
pub const HEAPS: usize = 1 << INDEX_BITS;

/// The owner word of the heap numbered `index` in its `generation` >= 1, never used again.
pub const fn owner_word(index: usize, generation: u64) -> u64 {
    (generation << INDEX_BITS | index as u64) << 1
}

/// As [`owner_word`], of a first-class heap.
pub const fn arena_word(index: usize, generation: u64) -> u64 {
    ARENA | owner_word(index, generation)
}

/// Whether an owner word is a first-class heap's.
#[inline(always)]
pub const fn is_arena(owner: u64) -> bool {
    owner & ARENA != 0
}

/// The heap's index in an owner word that is some heap's.
pub const fn heap_index(owner: u64) -> usize {
    (owner >> 1) as usize & (HEAPS - 1)
}

/// Whether an owner word is some heap's.
pub const fn is_heap(owner: u64) -> bool {
    owner >> (INDEX_BITS + 1) != 0 && owner & FULL == 0
}

/// Bits of an owner word below the class, where the slab is on a list.
const LIST_BITS: u32 = 4;

/// The owner word of a slab of `class` on the process's list of that class; `how` is `LISTED`, `SHARED` or `DRAINING`. The word
/// names the class, so that whoever reads it knows which lock keeps the slab there.
pub const fn on_list(how: u64, class: usize) -> u64 {
    (class as u64) << LIST_BITS | how
}

/// The class on whose list a slab of this owner word is, if it is on one.
pub const fn list_of(owner: u64) -> Option<usize> {
    if owner >> (INDEX_BITS + 1) == 0 && matches!(how_listed(owner), LISTED | SHARED | DRAINING) {
        return Some((owner >> LIST_BITS) as usize);
    }
    None
}

/// The owner word of a full slab of `class` that several threads free into: the first who does puts it on the process's
/// list of that class, and does not claim it.
pub const fn full_shared(class: usize) -> u64 {
    FULL | on_list(SHARED, class)
}

/// Whether several threads free into a slab of this owner word, which is on the process's list, or full.
pub const fn is_shared(owner: u64) -> bool {
    (owner & !FULL) >> (INDEX_BITS + 1) == 0 && matches!(how_listed(owner), SHARED | DRAINING)
}

/// Whether a slab of this owner word is full, and its first free slot makes it the freeing thread's.
pub const fn is_open(owner: u64) -> bool {
    owner & FULL != 0 && !is_shared(owner)
}

/// Whether a slab of this owner word is full, and with its first free slot it goes on the process's list.
pub const fn is_full_shared(owner: u64) -> bool {
    owner & FULL != 0 && is_shared(owner)
}

/// How a slab of this owner word, which is on the process's list, is listed: `LISTED`, `SHARED` or `DRAINING`.
pub const fn how_listed(owner: u64) -> u64 {
    owner & ((1 << LIST_BITS) - 1)
}

/// Whether a slab of this owner word has no owner, and can be claimed.
pub const fn is_nobodys(owner: u64) -> bool {
    owner & FULL != 0 || list_of(owner).is_some()
}

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
    Notify(u64),
    /// The slab has no owner, and a free that waits to be collected, or nothing else: claim it, or list it where it is
    /// full and shared.
    Claim,
}

/// Marks `slot`, owned by another thread, as freed. False if it is free already.
pub fn free_remote(slab: SlabPtr, slot: usize) -> bool {
    let bit = bit_of(slot);
    // In this order, since a collection moves the bit from `remote` to `free`.
    if slab.remote_word(word_of(slot)).load(Acquire) & bit != 0
        || slab.free_word(word_of(slot)).load(Acquire) & bit != 0
    {
        return false;
    }
    // The local bit must not be tested again: the owner may have collected this very free by then.
    slab.remote_word(word_of(slot)).fetch_or(bit, SeqCst) & bit == 0
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

/// The common half of a free by a thread whose owner word is `me`: of a slot that another heap owns, or all
/// share. Touches no heap and takes no lock, and may be interrupted anywhere by a signal handler that frees as well.
#[inline]
pub fn free_remote_fast(slab: SlabPtr, slot: usize, me: u64) -> Given {
    let owner = slab.owner.load(SeqCst);
    if !is_shared(owner) && !is_heap(owner) || owner & !PENDING == me {
        return Given::Elsewhere;
    }
    if !free_remote(slab, slot) {
        return Given::Dead;
    }
    Given::Marked(raise_pending(slab))
}

/// After [`free_remote`]: raises the pending flag, or returns who must be notified otherwise. The slab may have been
/// collected, released and made anew by then. A flag too many costs an empty collection.
pub fn raise_pending(slab: SlabPtr) -> Next {
    let mut owner = slab.owner.load(SeqCst);
    loop {
        if is_shared(owner) && owner & FULL == 0 && !is_all_free(slab) {
            // Who adopts it collects.
            return Next::Done;
        }
        if is_nobodys(owner) {
            return Next::Claim;
        }
        if !is_heap(owner) || owner & PENDING != 0 {
            return Next::Done;
        }
        match slab
            .owner
            .compare_exchange(owner, owner | PENDING, SeqCst, SeqCst)
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
pub fn collect(slab: SlabPtr, me: u64) -> Result<usize, Overlap> {
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
pub fn release_ownership(slab: SlabPtr, me: u64, to: u64) -> bool {
    slab.owner.compare_exchange(me, to, SeqCst, Relaxed).is_ok()
}

/// Lets go of a full slab owned by `me`: it is whose who frees into it first. False if remote frees wait to be
/// collected first.
pub fn open(slab: SlabPtr, me: u64) -> bool {
    release_ownership(slab, me, me | FULL)
}

/// Makes `me` the owner of a full slab that nobody owns, whose owner word was `from`. False if somebody was faster. The
/// new owner collects, since frees from before the claim notified nobody.
pub fn claim(slab: SlabPtr, from: u64, me: u64) -> bool {
    slab.owner
        .compare_exchange(from, me, SeqCst, Relaxed)
        .is_ok()
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
