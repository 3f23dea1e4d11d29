//! Models of the ownership protocol, run by loom over the real code of `slabside_core::remote` on real headers.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --test loom
//! ```
//!
//! What `heap` does around that code is repeated here as twins, line by line but without lists and counters. Each names
//! its original. Every model ends with [`settled`]. The number in front of a model bounds the preemptions.
//! LOOM_MAX_PREEMPTIONS overrides it.
//!
//! Fork is modelled by threads that end, by unwinding, before their next access to an atomic once another thread
//! has forked ([`fork`]): the child is what that one finds and repairs.
//!
//! That the models can fail was tried by breaking the code. Each of these was caught:
//!
//! ```text
//! collect    load `remote` relaxed or acquiring; store the owner releasing; clear the flag last; clear
//!            `remote` before `free` is set, relaxed, or by a plain store of zero
//! release_ownership     whatever the flag says; relaxed
//! give       test `free` before `remote`, or again after; mark by load and store, or not sequentially
//!            consistent
//! raise      done where the slab is full and nobody's, or listed; first load acquiring; no second try
//! claim      by load and store; the list not looked at again under the lock
//! list       a full shared slab listed without a look at what it was; not looked at again once it is listed
//! queue      link not claimed, or by load and store; link kept where the queue is closed; head put by swap;
//!            taken by load and store; not closed at exit; link freed only at the chain's end
//! door       the owner's announcement relaxed, its look at the visitor left out; the visitor's look at the owner
//!            relaxed or left out; `leave` relaxed; held by load and store; by a guest, held once its lock was given back
//! repair     remote frees not merged; their bits kept; the slab left queued
//! heap       no collection after a claim in `notify`, or of a flagged slab of one's own; no forwarding;
//!            a closed queue's slab not looked at again; abandon: collect once
//! ```
//!
//! Not caught, since no harm was found in it: `release_ownership` releasing and `claim` relaxed (the load before it
//! acquires), no collection after a claim in `free_elsewhere` (the freer then flags the slab), and a
//! release whatever the flag says (all slots are free: the flag is spurious).
#![cfg(loom)]

use loom::sync::Mutex;
use loom::thread;
use slabside_base::class::ClassId;
use slabside_base::owner::{Listing, Owner, RELEASED};
use slabside_base::sync::Ordering::{Relaxed, SeqCst};
use slabside_base::sync::{expect_fork, freeze, Frozen};
use slabside_base::units::{bit_of, SlabId, Slot};
use slabside_core::door::Door;
use slabside_core::remote::{self, Next, Overlap, Queue};
use slabside_core::slab::{Shape, Slab, SlabPtr, SlabTable, State};
use std::cell::Cell;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr::NonNull;
use std::sync::Arc;

/// Number of the slab of the models.
const SLAB: SlabId = SlabId(2);
/// Number of a second slab, where the queue alone is modelled.
const OTHER: SlabId = SlabId(3);
const SLABS: usize = 4;
/// Slots of a slab. The last one stays live in most models, so that the slab stays.
const SLOTS: usize = 4;
const HEAPS: usize = 4;
/// The slab's size class.
const CLASS: ClassId = ClassId::new(3);

/// A misuse, as the twins of `heap` report it.
#[derive(Debug, PartialEq, Eq)]
enum Misuse {
    Dead,
    Twice(Overlap),
}

/// What `heap::Backend` is to the heaps: headers, queues, the abandoned list and the free headers.
struct World {
    slabs: [Slab; SLABS],
    queues: [Queue; HEAPS],
    /// Twin of `heap::Abandoned`: its lock and its lists.
    abandoned: Mutex<Vec<SlabId>>,
    /// Headers that `pages` would make slabs of again.
    spare: Mutex<Vec<SlabId>>,
}

// SAFETY: a header is atomics, and a cell that none but its owner touches.
unsafe impl Send for World {}
// SAFETY: as for `Send`: atomics may be shared, and only a slab's owner touches its cell, which loom checks.
unsafe impl Sync for World {}

impl World {
    fn new() -> Arc<World> {
        let world = World {
            slabs: std::array::from_fn(|_| Slab::blank()),
            queues: std::array::from_fn(|_| Queue::closed()),
            abandoned: Mutex::new(Vec::new()),
            spare: Mutex::new(vec![SLAB]),
        };
        for id in [SLAB, OTHER] {
            world.slabs[id.index()].id.store(id.0, Relaxed);
        }
        world.slabs[SLAB.index()].owner.store(RELEASED, Relaxed);
        Arc::new(world)
    }

    fn table(&self) -> SlabTable {
        // SAFETY: the world outlives every pointer that its threads make. Headers of loom's atomics do not move, since
        // the world lies behind an `Arc`.
        unsafe { SlabTable::new(NonNull::from(&self.slabs).cast()) }
    }

    fn slab(&self) -> SlabPtr {
        self.table().get(SLAB)
    }

    /// Twin of `Backend::notify`.
    fn notify(&self, mut owner: Owner, slab: SlabPtr) {
        while !self.queues[owner.index()].push(slab) {
            let now = slab.owner.load(SeqCst);
            // An owner that is exiting collects in any case.
            if !now.is_heap() || !now.is_pending() || now.is_of(owner.without_pending()) {
                return;
            }
            owner = now;
        }
    }

    /// Twin of `Abandoned::leave`.
    fn leave(&self, slab: SlabPtr, me: Owner, how: Listing) -> bool {
        under(&self.abandoned, |list| {
            let left = remote::release_ownership(slab, me, Owner::on_list(how, CLASS));
            if left {
                slab.set_state(State::Abandoned);
                list.push(slab.id());
            }
            left
        })
    }

    /// Twin of `Abandoned::list`.
    fn list(&self, slab: SlabPtr, full: Owner) {
        under(&self.abandoned, |list| {
            if remote::release_ownership(slab, full, full.without_full()) {
                slab.set_state(State::Abandoned);
                list.push(slab.id());
            }
        });
    }

    /// Twin of what `Shelf::next` does with a slab of which much is free.
    fn put_aside(&self) {
        under(&self.abandoned, |list| {
            if let Some(&id) = list.first() {
                let slab = self.table().get(id);
                if slab.owner.load(SeqCst).listing() == Some(Listing::Shared) {
                    let draining = Owner::on_list(Listing::Draining, CLASS);
                    slab.owner.store(draining, SeqCst);
                }
            }
        });
    }

    /// Twin of `Abandoned::take`.
    fn take(list: &mut Vec<SlabId>, slab: SlabPtr, me: Owner) {
        let place = list.iter().position(|&id| id == slab.id()).unwrap();
        list.remove(place);
        slab.set_state(State::Unlisted);
        slab.owner.store(me, SeqCst);
    }

    /// Twin of `Abandoned::adopt`.
    fn adopt(&self, me: Owner) -> Option<SlabPtr> {
        under(&self.abandoned, |list| {
            let slab = self.table().get(*list.first()?);
            World::take(list, slab, me);
            Some(slab)
        })
    }

    /// Twin of `Abandoned::claim`.
    fn claim(&self, slab: SlabPtr, me: Owner) -> bool {
        under(&self.abandoned, |list| {
            let listed = slab.owner.load(SeqCst).list() == Some(CLASS);
            if listed {
                World::take(list, slab, me);
            }
            listed
        })
    }
}

/// Runs `work` under a lock. A thread that a fork leaves behind in the middle of it frees the lock, as the
/// child does.
fn under<T, R>(lock: &Mutex<T>, work: impl FnOnce(&mut T) -> R) -> R {
    let mut guard = lock.lock().unwrap();
    let done = catch_unwind(AssertUnwindSafe(|| work(&mut guard)));
    drop(guard);
    done.unwrap_or_else(|cause| resume_unwind(cause))
}

/// Twin of `heap::Heap`: one thread's.
struct Heap {
    world: Arc<World>,
    me: Owner,
    /// Whether the slab is on one of the heap's lists: what it takes itself to own.
    owns: Cell<bool>,
    /// Frees that this heap entered in the bitmap.
    freed: Cell<usize>,
    /// Whether its thread has exited.
    over: Cell<bool>,
}

type Outcome = Result<(), Misuse>;

impl Heap {
    /// Twin of `Backend::take_heap`.
    fn new(world: &Arc<World>, index: usize) -> Heap {
        world.queues[index].open();
        Heap {
            world: world.clone(),
            me: Owner::of_heap(index, 1),
            owns: Cell::new(false),
            freed: Cell::new(0),
            over: Cell::new(false),
        }
    }

    fn queue(&self) -> &Queue {
        &self.world.queues[self.me.index()]
    }

    /// Twin of `Pages::new_slab` and of malloc: a slab whose slots `live` are handed out.
    fn new_slab(&self, live: u64) -> Option<SlabPtr> {
        let slab = self
            .world
            .table()
            .get(self.world.spare.lock().unwrap().pop()?);
        assert_eq!(slab.owner.load(Relaxed), RELEASED);
        let shape = Shape {
            class: CLASS,
            size: 64,
            recip: 0,
            slots: SLOTS,
            pages: 1,
            align: 1,
        };
        slab.make(&shape, 0x1000, self.me);
        slab.free_word(0).store(!live, Relaxed);
        self.owns.set(true);
        Some(slab)
    }

    /// The slots that are free from the start, where `live` are handed out, count as frees of this heap's. They are
    /// given back.
    fn count_as_freed(&self, live: u64) -> u64 {
        let before = !live & ((1 << SLOTS) - 1);
        self.freed
            .set(self.freed.get() + before.count_ones() as usize);
        before
    }

    /// Twin of `Allocator::free`, its fast path included.
    fn free(&self, slab: SlabPtr, slot: usize) -> Outcome {
        let slot = Slot::new(slot);
        let owner = slab.owner.load(Relaxed);
        if owner.is_open() && self.free_into_full(slab, slot, owner) {
            return Ok(());
        }
        if slab.owner.load(Relaxed) != self.me {
            return self.free_elsewhere(slab, slot);
        }
        self.free_mine(slab, slot)
    }

    /// Twin of `HeapRef::free_into_full`.
    fn free_into_full(&self, slab: SlabPtr, slot: Slot, owner: Owner) -> bool {
        if !remote::claim(slab, owner, self.me) {
            return false;
        }
        self.owns.set(true);
        let word = slab.free_word(slot.word());
        let bits = word.load(Relaxed);
        if slab.any_remote() || bits & slot.bit() != 0 {
            self.collect(slab).unwrap();
            return false;
        }
        word.store(bits | slot.bit(), Relaxed);
        self.freed.set(self.freed.get() + 1);
        slab.set_state(State::Partial);
        true
    }

    /// Twin of `Allocator::free_without_heap`: by a signal handler that interrupted a slow path of the thread.
    fn free_by_handler(&self, slab: SlabPtr, slot: Slot) -> Outcome {
        if !remote::free_remote(slab, slot) {
            return Err(Misuse::Dead);
        }
        match remote::raise_pending(slab) {
            Next::Done => {}
            Next::Notify(owner) => self.world.notify(owner, slab),
            Next::Claim => {
                self.queue().push(slab);
            }
        }
        Ok(())
    }

    /// Twin of `HeapRef::free_elsewhere`.
    fn free_elsewhere(&self, slab: SlabPtr, slot: Slot) -> Outcome {
        loop {
            let owner = slab.owner.load(SeqCst);
            if owner.is_of(self.me) {
                if owner.is_pending() {
                    self.collect(slab)?;
                }
                return self.free_mine(slab, slot);
            }
            if owner == RELEASED {
                return Err(Misuse::Dead);
            }
            if owner.is_nobodys() && !owner.is_shared() {
                if self.claim(slab, owner) {
                    self.collect(slab)?;
                    return self.free_mine(slab, slot);
                }
                continue;
            }
            if !remote::free_remote(slab, slot) {
                return Err(Misuse::Dead);
            }
            // As `Allocator::free_into_others` does.
            if remote::is_known(slab, slot) {
                return Ok(());
            }
            return self.notify(slab);
        }
    }

    /// Twin of `HeapRef::notify`.
    fn notify(&self, slab: SlabPtr) -> Outcome {
        loop {
            match remote::raise_pending(slab) {
                Next::Done => return Ok(()),
                Next::Notify(owner) => {
                    self.world.notify(owner, slab);
                    return Ok(());
                }
                Next::Claim => {
                    let owner = slab.owner.load(SeqCst);
                    if owner.is_full_shared() {
                        self.world.list(slab, owner);
                    } else if owner.is_nobodys() && self.claim(slab, owner) {
                        self.collect(slab)?;
                        return self.requeue(slab);
                    }
                }
            }
        }
    }

    /// Twin of `HeapRef::claim`.
    fn claim(&self, slab: SlabPtr, owner: Owner) -> bool {
        let claimed = match owner.is_full() {
            false => self.world.claim(slab, self.me),
            true => remote::claim(slab, owner, self.me),
        };
        if claimed {
            slab.set_state(State::Unlisted);
            self.owns.set(true);
        }
        claimed
    }

    /// Twin of `HeapRef::free_mine`, and of the fast path's end.
    fn free_mine(&self, slab: SlabPtr, slot: Slot) -> Outcome {
        let word = slab.free_word(slot.word());
        let bits = word.load(Relaxed);
        if bits & slot.bit() != 0 {
            return Err(Misuse::Dead);
        }
        word.store(bits | slot.bit(), Relaxed);
        self.freed.set(self.freed.get() + 1);
        self.requeue(slab)
    }

    /// Twin of `Heap::collect`.
    fn collect(&self, slab: SlabPtr) -> Outcome {
        let collected = remote::collect(slab, self.me).map_err(Misuse::Twice)?;
        self.freed.set(self.freed.get() + collected);
        Ok(())
    }

    /// Twin of `HeapRef::requeue`: of the lists, only whether the slab is on one.
    fn requeue(&self, slab: SlabPtr) -> Outcome {
        if slab.count_free() == slab.slots() {
            return self.release(slab);
        }
        Ok(())
    }

    /// Twin of `HeapRef::release`.
    fn release(&self, slab: SlabPtr) -> Outcome {
        while !remote::release_ownership(slab, self.me, RELEASED) {
            self.collect(slab)?;
        }
        if slab.count_remote() != 0 {
            let bits = slab.remote_word(0).load(Relaxed);
            return Err(Misuse::Twice(Overlap { word: 0, bits }));
        }
        self.owns.set(false);
        let id = slab.id();
        self.world.spare.lock().unwrap().push(id);
        Ok(())
    }

    /// Twin of `HeapRef::drain`. The one slab of a heap may be its active one.
    fn drain(&self) -> Outcome {
        let slab = self.world.slab();
        if self.owns.get() && slab.state() == State::Active {
            self.queue().push_waiting(slab, self.me);
        }
        for slab in self.queue().take(self.world.table()) {
            self.look_at_queued(slab)?;
        }
        Ok(())
    }

    /// Twin of `HeapRef::drain_for_request`.
    fn drain_for_request(&self) -> Outcome {
        for slab in self.queue().take(self.world.table()) {
            if !(slab.owner.load(SeqCst).is_of(self.me) && slab.state() == State::Active) {
                self.look_at_queued(slab)?;
            }
        }
        Ok(())
    }

    /// Twin of `HeapRef::look_at_queued`.
    fn look_at_queued(&self, slab: SlabPtr) -> Outcome {
        let owner = slab.owner.load(SeqCst);
        if owner == self.me.with_pending() {
            self.collect(slab)?;
            return self.requeue(slab);
        } else if owner.is_nobodys() && slab.count_remote() != 0 {
            // A signal handler freed into it that could not claim it.
            return self.notify(slab);
        } else if owner.is_heap() && owner.is_pending() && !owner.is_of(self.me) {
            // It changed hands while it was queued here.
            self.world.notify(owner, slab);
        }
        Ok(())
    }

    /// Twin of `HeapRef::fill_up`: the full slab is nobody's from now on, unless frees wait.
    fn fill_up(&self, slab: SlabPtr) {
        slab.set_state(State::Unlisted);
        // What the heap takes itself to own it must know before it lets go.
        if !remote::is_queued(slab) && remote::open(slab, self.me) {
            self.owns.set(false);
            return;
        }
        slab.set_state(State::Full);
        self.queue().push_waiting(slab, self.me);
    }

    /// Twin of `HeapRef::put_off`: the active slab waits for its turn.
    fn put_off(&self, slab: SlabPtr) {
        slab.set_state(State::Partial);
        self.queue().push_waiting(slab, self.me);
    }

    /// Twin of `HeapRef::share`.
    fn share(&self, slab: SlabPtr) -> Outcome {
        slab.set_state(State::Unlisted);
        self.leave(slab, Listing::Shared)
    }

    /// Twin of `HeapRef::adopt`.
    fn adopt(&self) -> Outcome {
        if let Some(slab) = self.world.adopt(self.me) {
            self.owns.set(true);
            self.collect(slab)?;
        }
        Ok(())
    }

    /// Twin of `HeapRef::abandon_all`, with one slab at the most.
    fn abandon_all(&self, slab: SlabPtr) -> Outcome {
        self.over.set(true);
        for slab in self.queue().close(self.world.table()) {
            self.look_at_queued(slab)?;
        }
        if self.owns.get() {
            self.leave(slab, Listing::Listed)?;
        }
        Ok(())
    }

    /// Twin of `HeapRef::leave`.
    fn leave(&self, slab: SlabPtr, how: Listing) -> Outcome {
        loop {
            self.collect(slab)?;
            let (free, slots) = (slab.count_free(), slab.slots());
            if free == slots {
                return self.release(slab);
            }
            let full = match how {
                Listing::Listed => Owner::FULL,
                _ => Owner::full_shared(CLASS),
            };
            let left = match free {
                0 => remote::release_ownership(slab, self.me, full),
                _ => self.world.leave(slab, self.me, how),
            };
            if left {
                self.owns.set(false);
                return Ok(());
            }
        }
    }
}

/// Runs `model` under every schedule with at most `preemptions` preemptions.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    println!("{} schedules", runs.load(Relaxed));
}

/// Likewise a model that begins with a world, heap 0 in it, and a slab of that heap's whose slots `live` are
/// handed out.
fn explore_slab(
    preemptions: usize,
    live: u64,
    model: impl Fn(&Arc<World>, Heap, SlabPtr) + Send + Sync + 'static,
) {
    explore(preemptions, move || {
        let world = World::new();
        let owner = Heap::new(&world, 0);
        let slab = owner.new_slab(live).unwrap();
        model(&world, owner, slab);
    });
}

/// Another thread with the heap numbered `index`, which frees `slot`.
fn freer(world: &Arc<World>, index: usize, slot: usize) -> thread::JoinHandle<(Heap, Outcome)> {
    let heap = Heap::new(world, index);
    thread::spawn(move || {
        let slab = heap.world.slab();
        let outcome = heap.free(slab, slot);
        (heap, outcome)
    })
}

/// Waits for a thread whose free went well.
fn join(thread: thread::JoinHandle<(Heap, Outcome)>) -> Heap {
    let (heap, outcome) = thread.join().unwrap();
    outcome.unwrap();
    heap
}

/// All threads have come to rest: the owners look at their queues, and then every free of `freed` was
/// counted once and is in the bitmap, no flag is left, and the slab has one owner at the most.
fn settled(world: &Arc<World>, heaps: &[&Heap], freed: u64) {
    // A queue may forward to an earlier one.
    for _ in 0..2 {
        for heap in heaps.iter().filter(|heap| !heap.over.get()) {
            heap.drain().unwrap();
        }
    }
    let slab = world.slab();
    let owner = slab.owner.load(SeqCst);
    assert!(
        !owner.is_heap() || !owner.is_pending(),
        "flagged, and in no queue"
    );
    assert_eq!(slab.queue.load(SeqCst), 0, "still queued");
    // Frees into a shared slab wait for whoever adopts it.
    let waiting = if owner.is_shared() {
        slab.count_remote()
    } else {
        0
    };
    assert_eq!(slab.count_remote(), waiting, "a free was lost");
    let counted = heaps.iter().map(|heap| heap.freed.get()).sum::<usize>();
    assert_eq!(counted + waiting, freed.count_ones() as usize, "counted");
    for heap in heaps {
        assert_eq!(heap.owns.get(), owner == heap.me, "owned by two");
    }
    let listed = owner.list().is_some();
    assert_eq!(listed, !world.abandoned.lock().unwrap().is_empty());
    assert_eq!(owner == RELEASED, !world.spare.lock().unwrap().is_empty());
    if owner != RELEASED {
        let bits = slab.free_word(0).load(Relaxed) | slab.remote_word(0).load(Relaxed);
        let every = (1 << SLOTS) - 1;
        assert_eq!(bits & every, freed);
        assert_ne!(bits & every, every, "all free, and not released");
    }
}

// ---- 1. frees against the owner's collections ----------------------------------------------------

#[test]
fn two_freers_and_an_owner_that_drains_lose_no_free() {
    explore_slab(2, 0b1111, |world, owner, _| {
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.drain().unwrap();
        let (one, two) = (join(one), join(two));
        settled(world, &[&owner, &one, &two], 0b0011);
    });
}

#[test]
fn a_freer_and_an_owner_that_frees_and_drains_lose_no_free() {
    explore_slab(4, 0b1111, |world, owner, slab| {
        let one = freer(world, 1, 0);
        owner.free(slab, 1).unwrap();
        owner.drain().unwrap();
        owner.free(slab, 2).unwrap();
        let one = join(one);
        settled(world, &[&owner, &one], 0b0111);
    });
}

#[test]
fn the_last_frees_of_a_slab_release_it_once() {
    explore_slab(3, 0b0011, |world, owner, slab| {
        let one = freer(world, 1, 0);
        owner.free(slab, 1).unwrap();
        owner.drain().unwrap();
        let one = join(one);
        owner.drain().unwrap();
        assert_eq!(slab.owner.load(SeqCst), RELEASED);
        settled(world, &[&owner, &one], 0b0011);
    });
}

#[test]
fn frees_that_an_owner_leaves_in_its_active_slab_are_collected_by_its_next_drain() {
    explore_slab(3, 0b1111, |world, owner, slab| {
        slab.set_state(State::Active);
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.drain_for_request().unwrap();
        let (one, two) = (join(one), join(two));
        settled(world, &[&owner, &one, &two], 0b0011);
    });
}

#[test]
fn frees_that_an_owner_leaves_are_collected_once_its_slab_is_active_no_more() {
    for full in [false, true] {
        explore_slab(2, 0b1111, move |world, owner, slab| {
            slab.set_state(State::Active);
            let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
            owner.drain_for_request().unwrap();
            match full {
                true => owner.fill_up(slab),
                false => owner.put_off(slab),
            }
            owner.drain_for_request().unwrap();
            let (one, two) = (join(one), join(two));
            settled(world, &[&owner, &one, &two], 0b0011);
        });
    }
}

#[test]
fn a_free_of_its_owner_collects_what_was_left_in_the_active_slab() {
    explore_slab(3, 0b1111, |world, owner, slab| {
        slab.set_state(State::Active);
        let one = freer(world, 1, 0);
        owner.drain_for_request().unwrap();
        owner.free(slab, 2).unwrap();
        owner.put_off(slab);
        let one = join(one);
        settled(world, &[&owner, &one], 0b0101);
    });
}

#[test]
fn frees_left_in_an_active_slab_are_collected_when_its_owner_exits() {
    explore_slab(2, 0b1111, |world, owner, slab| {
        slab.set_state(State::Active);
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.drain_for_request().unwrap();
        owner.abandon_all(slab).unwrap();
        let (one, two) = (join(one), join(two));
        settled(world, &[&owner, &one, &two], 0b0011);
    });
}

// ---- 2. frees against an owner that opens ------------------------------------------------------

#[test]
fn a_free_while_its_slab_is_opened_is_collected_by_the_owner_or_by_who_claims() {
    explore_slab(2, 0b0111, |world, owner, slab| {
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        // The last slot is handed out: whoever claims must see that.
        slab.free_word(0).store(!0b1111, Relaxed);
        owner.fill_up(slab);
        let (one, two) = (join(one), join(two));
        settled(world, &[&owner, &one, &two], 0b0011);
    });
}

#[test]
fn an_owner_that_opened_and_frees_claims_its_slab_again() {
    explore_slab(4, 0b1111, |world, owner, slab| {
        let one = freer(world, 1, 0);
        owner.fill_up(slab);
        owner.free(slab, 1).unwrap();
        let one = join(one);
        settled(world, &[&owner, &one], 0b0011);
    });
}

// ---- 3. frees against an owner that exits --------------------------------------------------------

fn exit_against_two_freers(live: u64) {
    explore_slab(2, live, move |world, owner, slab| {
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.abandon_all(slab).unwrap();
        let (one, two) = (join(one), join(two));
        let before = owner.count_as_freed(live);
        settled(world, &[&owner, &one, &two], before | 0b0011);
    });
}

#[test]
fn frees_into_a_full_slab_while_its_owner_exits_are_collected() {
    exit_against_two_freers(0b1111);
}

#[test]
fn frees_into_a_slab_that_its_exiting_owner_lists_are_collected() {
    exit_against_two_freers(0b0111);
}

#[test]
fn the_last_frees_of_a_slab_whose_owner_exits_release_it() {
    exit_against_two_freers(0b0011);
}

#[test]
fn a_free_an_exit_and_an_adoption_make_one_owner() {
    explore_slab(2, 0b0111, |world, owner, slab| {
        let one = freer(world, 1, 0);
        let two = Heap::new(world, 2);
        let two = thread::spawn(move || {
            let outcome = two.adopt();
            (two, outcome)
        });
        owner.abandon_all(slab).unwrap();
        let (one, two) = (join(one), join(two));
        let before = owner.count_as_freed(0b0111);
        settled(world, &[&owner, &one, &two], before | 0b0001);
    });
}

// ---- 4. two who claim ----------------------------------------------------------------------------

fn two_claim(live: u64) {
    explore_slab(3, live, move |world, owner, slab| {
        owner.abandon_all(slab).unwrap();
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        let (one, two) = (join(one), join(two));
        let before = owner.count_as_freed(live);
        settled(world, &[&owner, &one, &two], before | 0b0011);
    });
}

#[test]
fn of_two_who_claim_a_full_slab_one_wins_and_both_frees_count() {
    two_claim(0b1111);
}

#[test]
fn of_two_who_claim_a_listed_slab_one_wins_and_both_frees_count() {
    two_claim(0b0111);
}

#[test]
fn of_two_who_free_the_last_slots_of_a_listed_slab_one_releases_it() {
    two_claim(0b0011);
}

// ---- 4a. slabs that are shared -------------------------------------------------------------------

/// One who frees the slot `slot` while its slab is being shared, and one more.
fn share_against_two_freers(live: u64) {
    explore_slab(2, live, move |world, owner, slab| {
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.share(slab).unwrap();
        let (one, two) = (join(one), join(two));
        let before = owner.count_as_freed(live);
        settled(world, &[&owner, &one, &two], before | 0b0011);
    });
}

#[test]
fn frees_into_a_slab_that_is_being_shared_wait_for_who_adopts_it() {
    share_against_two_freers(0b0111);
}

#[test]
fn of_two_who_free_the_last_slots_while_their_slab_is_shared_one_releases_it() {
    share_against_two_freers(0b0011);
}

/// The slab is shared already: no owner is left to see that all is free.
#[test]
fn of_two_who_free_the_last_slots_of_a_shared_slab_one_releases_it() {
    explore_slab(3, 0b0011, |world, owner, slab| {
        owner.share(slab).unwrap();
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        let (one, two) = (join(one), join(two));
        assert_eq!(slab.owner.load(SeqCst), RELEASED);
        let before = owner.count_as_freed(0b0011);
        settled(world, &[&owner, &one, &two], before | 0b0011);
    });
}

#[test]
fn frees_into_a_shared_slab_while_it_is_adopted_are_collected_or_told() {
    explore_slab(2, 0b0111, |world, owner, slab| {
        owner.share(slab).unwrap();
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.adopt().unwrap();
        let (one, two) = (join(one), join(two));
        let before = owner.count_as_freed(0b0111);
        settled(world, &[&owner, &one, &two], before | 0b0011);
    });
}

#[test]
fn a_shared_slab_whose_last_slots_are_freed_while_it_is_adopted_is_released_or_owned() {
    explore_slab(2, 0b0011, |world, owner, slab| {
        owner.share(slab).unwrap();
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.adopt().unwrap();
        let (one, two) = (join(one), join(two));
        // The adopter took it to be in use: it takes slots from it, and gives it back once it looks.
        if owner.owns.get() {
            owner.drain().unwrap();
        }
        if owner.owns.get() {
            owner.requeue(slab).unwrap();
        }
        let before = owner.count_as_freed(0b0011);
        settled(world, &[&owner, &one, &two], before | 0b0011);
    });
}

/// It is adopted, shared again and freed into, by turns.
#[test]
fn a_slab_that_is_shared_again_loses_no_free() {
    explore_slab(3, 0b0111, |world, owner, slab| {
        owner.share(slab).unwrap();
        let one = freer(world, 1, 0);
        owner.adopt().unwrap();
        owner.share(slab).unwrap();
        owner.free(slab, 1).unwrap();
        let one = join(one);
        let before = owner.count_as_freed(0b0111);
        settled(world, &[&owner, &one], before | 0b0011);
    });
}

#[test]
fn a_second_free_into_a_shared_slab_is_found_at_once_while_it_is_adopted() {
    explore_slab(3, 0b0111, |world, owner, slab| {
        owner.share(slab).unwrap();
        let (one, two) = (Heap::new(world, 1), Heap::new(world, 2));
        let twice = thread::spawn(move || {
            one.free(one.world.slab(), 0).unwrap();
            two.free(two.world.slab(), 0)
        });
        owner.adopt().unwrap();
        assert_eq!(twice.join().unwrap(), Err(Misuse::Dead));
    });
}

// ---- 4b. shared slabs that are full ----------------------------------------------------------------

/// Two free into a full slab that is being opened as shared: one lists it, nobody claims it.
#[test]
fn frees_into_a_full_shared_slab_list_it_once() {
    explore_slab(2, 0b1111, |world, owner, slab| {
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.share(slab).unwrap();
        let (one, two) = (join(one), join(two));
        settled(world, &[&owner, &one, &two], 0b0011);
    });
}

/// All of its slots are freed at once: it is released once.
#[test]
fn of_those_who_free_all_slots_of_a_full_shared_slab_one_releases_it() {
    explore_slab(2, 0b1111, |world, owner, slab| {
        owner.share(slab).unwrap();
        owner.free(slab, 2).unwrap();
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.free(slab, 3).unwrap();
        let (one, two) = (join(one), join(two));
        assert_eq!(slab.owner.load(SeqCst), RELEASED);
        settled(world, &[&owner, &one, &two], 0b1111);
    });
}

/// Its first freer lists it, somebody adopts it and opens it again, and the next free lists it again.
#[test]
fn a_full_shared_slab_that_is_adopted_while_it_is_listed_loses_no_free() {
    explore_slab(2, 0b1111, |world, owner, slab| {
        owner.share(slab).unwrap();
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.adopt().unwrap();
        if owner.owns.get() {
            owner.share(slab).unwrap();
        }
        let (one, two) = (join(one), join(two));
        settled(world, &[&owner, &one, &two], 0b0011);
    });
}

#[test]
fn a_second_free_into_a_full_shared_slab_is_found_at_once() {
    explore_slab(3, 0b1111, |world, owner, slab| {
        owner.share(slab).unwrap();
        let (one, two) = (Heap::new(world, 1), Heap::new(world, 2));
        let twice = thread::spawn(move || {
            one.free(one.world.slab(), 0).unwrap();
            two.free(two.world.slab(), 0)
        });
        owner.free(slab, 1).unwrap();
        owner.adopt().unwrap();
        assert_eq!(twice.join().unwrap(), Err(Misuse::Dead));
    });
}

/// Frees go on while a slab is put aside, and while it is adopted from there.
#[test]
fn frees_into_a_slab_that_begins_to_drain_are_collected_or_release_it() {
    explore_slab(3, 0b0011, |world, owner, slab| {
        owner.share(slab).unwrap();
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        world.put_aside();
        let (one, two) = (join(one), join(two));
        assert_eq!(slab.owner.load(SeqCst), RELEASED);
        let before = owner.count_as_freed(0b0011);
        settled(world, &[&owner, &one, &two], before | 0b0011);
    });
}

#[test]
fn a_draining_slab_that_is_adopted_loses_no_free() {
    explore_slab(2, 0b0111, |world, owner, slab| {
        owner.share(slab).unwrap();
        world.put_aside();
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.adopt().unwrap();
        let (one, two) = (join(one), join(two));
        let before = owner.count_as_freed(0b0111);
        settled(world, &[&owner, &one, &two], before | 0b0011);
    });
}

/// A signal handler that interrupted a slow path cannot list the slab: its thread finds it.
#[test]
fn a_handlers_free_into_a_full_shared_slab_is_listed_by_its_own_thread() {
    explore_slab(3, 0b1111, |world, owner, slab| {
        owner.share(slab).unwrap();
        let other = freer(world, 1, 0);
        owner.free_by_handler(slab, Slot::new(1)).unwrap();
        owner.drain().unwrap();
        let other = join(other);
        settled(world, &[&owner, &other], 0b0011);
    });
}

// ---- 4c. frees by signal handlers that interrupted a slow path -------------------------------------

#[test]
fn a_handlers_free_into_a_full_slab_is_found_by_its_own_thread() {
    explore_slab(3, 0b1111, |world, owner, slab| {
        owner.fill_up(slab);
        let other = freer(world, 1, 0);
        owner.free_by_handler(slab, Slot::new(1)).unwrap();
        owner.drain().unwrap();
        let other = join(other);
        settled(world, &[&owner, &other], 0b0011);
    });
}

#[test]
fn a_handlers_free_while_a_slab_fills_up_is_found_by_its_own_thread() {
    explore_slab(3, 0b1111, |world, owner, slab| {
        let handler = Heap::new(world, 1);
        let other = thread::spawn(move || {
            let outcome = handler.free_by_handler(handler.world.slab(), Slot::new(1));
            (handler, outcome)
        });
        owner.fill_up(slab);
        owner.free(slab, 0).unwrap();
        let other = join(other);
        settled(world, &[&owner, &other], 0b0011);
    });
}

// ---- 5. a freer that stalls ----------------------------------------------------------------------

/// The slab is released and made anew by another heap, into which a third one frees, while the freer of
/// its last slot has yet to raise the flag, or to queue the slab.
#[test]
fn a_freer_may_stall_until_its_slab_is_another_heaps() {
    explore_slab(4, 0b0011, |world, owner, slab| {
        let one = freer(world, 1, 0);
        let (second, third) = (Heap::new(world, 2), Heap::new(world, 3));
        third.free(slab, 1).unwrap();
        owner.drain().unwrap();
        let again = second.new_slab(0b1111).is_some();
        if again {
            third.free(slab, 1).unwrap();
            second.drain().unwrap();
        }
        let one = join(one);
        owner.drain().unwrap();
        if again {
            assert_eq!(owner.freed.replace(0), 2, "in the slab's first life");
            settled(world, &[&owner, &one, &second, &third], 0b0010);
        } else {
            settled(world, &[&owner, &one, &second, &third], 0b0011);
        }
    });
}

/// As before, but the slab changes hands by being opened, and its first owner lives on.
#[test]
fn a_slab_that_changed_hands_while_queued_reaches_its_new_owner() {
    explore_slab(3, 0b1111, |world, owner, slab| {
        let one = freer(world, 1, 0);
        // Collects, so that the slab may be let go while the freer has it half queued.
        owner.free(slab, 1).unwrap();
        let (second, third) = (Heap::new(world, 2), Heap::new(world, 3));
        owner.fill_up(slab);
        second.free(slab, 2).unwrap();
        third.free(slab, 3).unwrap();
        let one = join(one);
        settled(world, &[&owner, &one, &second, &third], 0b1111);
    });
}

/// As before, but the first owner exits: the freer finds its queue closed.
#[test]
fn a_slab_whose_owner_exited_while_it_was_being_queued_reaches_its_new_owner() {
    explore_slab(3, 0b1111, |world, owner, slab| {
        let one = freer(world, 1, 0);
        owner.abandon_all(slab).unwrap();
        let (second, third) = (Heap::new(world, 2), Heap::new(world, 3));
        second.free(slab, 1).unwrap();
        third.free(slab, 2).unwrap();
        let one = join(one);
        settled(world, &[&owner, &one, &second, &third], 0b0111);
    });
}

/// Each slab comes out after it was pushed, and once.
#[test]
fn two_who_push_two_slabs_while_a_third_takes_queue_each_once() {
    explore(3, || {
        let world = World::new();
        world.queues[0].open();
        let push = |first: SlabId, second: SlabId| {
            let world = world.clone();
            thread::spawn(move || {
                world.queues[0].push(world.table().get(first));
                world.queues[0].push(world.table().get(second));
            })
        };
        let taken = || {
            world.queues[0]
                .take(world.table())
                .map(|slab| slab.id())
                .collect()
        };
        let threads = [push(SLAB, OTHER), push(OTHER, SLAB)];
        let early: Vec<SlabId> = taken();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let late: Vec<SlabId> = taken();
        for id in [SLAB, OTHER] {
            let times = |of: &[SlabId]| of.iter().filter(|&&one| one == id).count();
            assert!(times(&early) <= 1 && times(&late) <= 1, "queued twice");
            assert!(times(&early) + times(&late) >= 1, "queued not at all");
            assert_eq!(world.table().get(id).queue.load(SeqCst), 0);
        }
    });
}

// ---- 6, 7. the same slot twice -------------------------------------------------------------------

#[test]
fn a_double_free_by_two_threads_at_once_is_found_by_the_collection_at_the_latest() {
    explore_slab(2, 0b1111, |world, owner, _| {
        let (one, two) = (freer(world, 1, 0), freer(world, 2, 0));
        let mut found = usize::from(owner.drain().is_err());
        for thread in [one, two] {
            found += usize::from(thread.join().unwrap().1.is_err());
        }
        found += usize::from(owner.drain().is_err());
        assert_eq!(found, 1);
    });
}

#[test]
fn a_double_free_by_the_owner_and_another_at_once_is_found_by_the_collection_at_the_latest() {
    explore_slab(4, 0b1111, |world, owner, slab| {
        let one = freer(world, 1, 0);
        let mut found = usize::from(owner.free(slab, 0).is_err());
        found += usize::from(one.join().unwrap().1.is_err());
        found += usize::from(owner.drain().is_err());
        assert_eq!(found, 1);
    });
}

#[test]
fn a_second_free_by_another_after_the_owners_is_found_at_once() {
    explore_slab(3, 0b1111, |world, owner, slab| {
        let noise = freer(world, 1, 1);
        owner.free(slab, 0).unwrap();
        let two = freer(world, 2, 0);
        owner.drain().unwrap();
        assert_eq!(two.join().unwrap().1, Err(Misuse::Dead));
        join(noise);
    });
}

#[test]
fn a_second_free_by_the_owner_after_anothers_is_found_at_once() {
    explore_slab(2, 0b1111, |world, owner, slab| {
        let (one, noise) = (freer(world, 1, 0), freer(world, 2, 1));
        owner.drain().unwrap();
        join(one);
        assert_eq!(owner.free(slab, 0), Err(Misuse::Dead));
        join(noise);
    });
}

/// Two threads, one after the other, while the owner collects.
#[test]
fn a_second_free_by_a_third_thread_after_anothers_is_found_at_once() {
    explore_slab(3, 0b1111, |world, owner, _| {
        let (one, two) = (Heap::new(world, 1), Heap::new(world, 2));
        let twice = thread::spawn(move || {
            one.free(one.world.slab(), 0).unwrap();
            two.free(two.world.slab(), 0)
        });
        owner.drain().unwrap();
        assert_eq!(twice.join().unwrap(), Err(Misuse::Dead));
    });
}

/// The question of realloc and of usable size, asked by a thread that has freed the slot itself.
#[test]
fn a_freed_slot_reads_free_while_its_owner_collects() {
    explore_slab(3, 0b1111, |world, owner, _| {
        let one = Heap::new(world, 1);
        let asked = thread::spawn(move || {
            let slab = one.world.slab();
            one.free(slab, 0).unwrap();
            // Twin of the test in `Allocator::live`.
            slab.is_remote(Slot::FIRST) || slab.is_free(Slot::FIRST)
        });
        owner.drain().unwrap();
        assert!(asked.join().unwrap(), "read as live");
    });
}

// ---- 8. fork -------------------------------------------------------------------------------------

/// Another thread that does `work` until it ends, or until the process forks and it is no more. What it had
/// freed by then is told by the bits of `begun` and `done`.
fn mortal(
    heap: Heap,
    freed: &Arc<Freed>,
    work: impl Fn(&Heap, &Freed) + Send + 'static,
) -> thread::JoinHandle<()> {
    let freed = freed.clone();
    expect_fork(true);
    thread::spawn(move || {
        let end = catch_unwind(AssertUnwindSafe(|| work(&heap, &freed)));
        if let Err(cause) = end {
            if !cause.is::<Frozen>() {
                resume_unwind(cause);
            }
        }
    })
}

/// One of those that frees `slot`, with the heap numbered `index`.
fn mortal_freer(
    world: &Arc<World>,
    index: usize,
    freed: &Arc<Freed>,
    slot: usize,
) -> thread::JoinHandle<()> {
    mortal(Heap::new(world, index), freed, move |heap, freed| {
        freed.free(heap, slot)
    })
}

/// The slots whose free was begun, and those whose free returned. Not of loom's: no thread goes by them.
#[derive(Default)]
struct Freed {
    begun: std::sync::atomic::AtomicU64,
    done: std::sync::atomic::AtomicU64,
}

impl Freed {
    fn free(&self, heap: &Heap, slot: usize) {
        self.begun.fetch_or(1 << slot, Relaxed);
        heap.free(heap.world.slab(), slot).unwrap();
        self.done.fetch_or(1 << slot, Relaxed);
    }
}

/// The process forks: the other threads stop where they stand, and this one goes on alone. The kernel copies
/// memory as it is between two accesses, since a write meanwhile waits until all is copied.
fn fork(others: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    freeze();
    others.into_iter().for_each(|thread| thread.join().unwrap());
    expect_fork(false);
}

/// Twin of `Pages::rebuild`, of `Backend::rebuild`, and of `Backend::list_again`, over one slab.
fn rebuild(world: &World, mine: &Heap) {
    world.abandoned.lock().unwrap().clear();
    world.spare.lock().unwrap().clear();
    for (index, queue) in world.queues.iter().enumerate() {
        let _ = queue.close(world.table());
        if index == mine.me.index() {
            queue.open();
        }
    }
    let slab = world.slab();
    mine.owns.set(false);
    if slab.owner.load(Relaxed) == RELEASED {
        slab.queue.store(0, Relaxed);
        world.spare.lock().unwrap().push(slab.id());
        return;
    }
    remote::repair(slab);
    slab.set_state(State::Unlisted);
    if slab.owner.load(Relaxed).without_full().is_of(mine.me) {
        slab.owner.store(mine.me, SeqCst);
        mine.owns.set(true);
        return mine.requeue(slab).unwrap();
    }
    match slab.count_free() {
        0 => slab.owner.store(Owner::FULL, SeqCst),
        free if free == slab.slots() => {
            slab.owner.store(RELEASED, SeqCst);
            world.spare.lock().unwrap().push(slab.id());
        }
        _ => {
            slab.owner
                .store(Owner::on_list(Listing::Listed, CLASS), SeqCst);
            slab.set_state(State::Abandoned);
            world.abandoned.lock().unwrap().push(slab.id());
        }
    }
}

/// In the child every free that had returned is there, and none that was not begun. What is live can be freed once and
/// not twice. Then the slab is released.
fn child_goes_on(mine: &Heap, freed: &Freed, before: u64) {
    let world = &mine.world;
    rebuild(world, mine);
    let slab = world.slab();
    let (begun, done) = (freed.begun.load(Relaxed), freed.done.load(Relaxed));
    if slab.owner.load(SeqCst) != RELEASED {
        let free = slab.free_word(0).load(Relaxed) & ((1 << SLOTS) - 1);
        assert_eq!((before | done) & !free, 0, "a free was lost");
        assert_eq!(free & !(before | begun), 0, "a live slot is free");
        for slot in (0..SLOTS).filter(|&slot| free & bit_of(slot) == 0) {
            mine.free(slab, slot).unwrap();
            assert!(mine.free(slab, slot).is_err(), "freed twice");
        }
    } else {
        assert_eq!(before | begun, (1 << SLOTS) - 1, "released with live slots");
    }
    assert_eq!(slab.owner.load(SeqCst), RELEASED);
    assert_eq!(slab.queue.load(SeqCst), 0, "still queued");
    assert_eq!(slab.count_remote(), 0);
}

/// The owner forks while others free into its slab.
#[test]
fn a_child_of_the_owner_finds_the_frees_that_others_had_made() {
    explore_slab(2, 0b1111, |world, owner, _| {
        let freed = Arc::new(Freed::default());
        let one = mortal_freer(world, 1, &freed, 0);
        let two = mortal_freer(world, 2, &freed, 1);
        owner.drain().unwrap();
        fork([one, two]);
        child_goes_on(&owner, &freed, 0);
    });
}

/// A freer forks while the owner collects, and frees itself.
#[test]
fn a_child_of_a_freer_repairs_a_collection_that_stood_midway() {
    explore_slab(3, 0b1111, |world, owner, _| {
        let freed = Arc::new(Freed::default());
        let me = Heap::new(world, 1);
        freed.free(&me, 0);
        let owner = mortal(owner, &freed, |heap, freed| {
            heap.drain().unwrap();
            freed.free(heap, 1);
        });
        freed.free(&me, 2);
        fork([owner]);
        child_goes_on(&me, &freed, 0);
    });
}

/// A third thread forks while the owner exits, or lets its full slab go, and another frees into it.
fn fork_while_the_owner_leaves(live: u64, leave: fn(&Heap)) {
    explore_slab(2, live, move |world, owner, _| {
        let freed = Arc::new(Freed::default());
        let me = Heap::new(world, 3);
        let owner = mortal(owner, &freed, move |heap, _| leave(heap));
        let one = mortal_freer(world, 1, &freed, 0);
        fork([owner, one]);
        child_goes_on(&me, &freed, !live & 0b1111);
    });
}

#[test]
fn a_child_takes_up_a_full_slab_whose_owner_was_exiting() {
    fork_while_the_owner_leaves(0b1111, |heap| heap.abandon_all(heap.world.slab()).unwrap());
}

#[test]
fn a_child_takes_up_a_slab_whose_owner_was_listing_it() {
    fork_while_the_owner_leaves(0b0111, |heap| heap.abandon_all(heap.world.slab()).unwrap());
}

#[test]
fn a_child_takes_up_a_slab_that_was_being_opened() {
    fork_while_the_owner_leaves(0b1111, |heap| heap.fill_up(heap.world.slab()));
}

#[test]
fn a_child_takes_up_a_slab_that_was_being_shared() {
    fork_while_the_owner_leaves(0b0111, |heap| heap.share(heap.world.slab()).unwrap());
}

#[test]
fn a_child_takes_up_a_full_slab_that_was_being_shared() {
    fork_while_the_owner_leaves(0b1111, |heap| heap.share(heap.world.slab()).unwrap());
}

#[test]
fn a_child_takes_up_a_slab_that_was_shared_and_adopted_again() {
    fork_while_the_owner_leaves(0b0111, |heap| {
        heap.share(heap.world.slab()).unwrap();
        heap.adopt().unwrap();
    });
}

#[test]
fn a_child_finds_a_slab_released_or_whole() {
    fork_while_the_owner_leaves(0b0001, |heap| heap.abandon_all(heap.world.slab()).unwrap());
}

// ---- the door of a heap -------------------------------------------------------------------------

/// What a heap's lists are to its thread and to visitors: never two at the same time.
struct Lists {
    door: Door,
    changed: loom::cell::UnsafeCell<u32>,
}

// SAFETY: the model sends `Lists` between threads, and the door must keep their uses apart. loom checks it.
unsafe impl Send for Lists {}
// SAFETY: as for `Send`: the door must keep concurrent changes apart, and loom fails the model otherwise.
unsafe impl Sync for Lists {}

impl Lists {
    fn new() -> Arc<Lists> {
        Arc::new(Lists {
            door: Door::new(),
            changed: loom::cell::UnsafeCell::new(0),
        })
    }

    /// loom fails where two threads do this at once, or one without having seen what the other did.
    fn change(&self) {
        // SAFETY: the pointer is valid, and loom's cell fails the model if another thread uses it at the same
        // time.
        self.changed.with_mut(|changed| unsafe { *changed += 1 });
    }

    /// Twin of `Heap::come_in_or_wait`, and what follows. Where the owner would sleep it tries again.
    fn own(&self) {
        while !self.door.enter() {
            let _ = self.door.knock();
            thread::yield_now();
        }
        self.change();
        self.door.leave();
    }

    /// Twin of `Allocator::take_turn`, under the lock of the guests' heap. Whether the door was open.
    fn take_turn(&self, lock: &Mutex<()>) -> bool {
        let _guard = lock.lock().unwrap();
        let inside = self.door.enter();
        if inside {
            self.change();
            self.door.leave();
        }
        inside
    }

    /// Twin of `Allocator::tick_of_guests`, which works on the heap with the lock given back. Whether nobody else did.
    fn work_alone(&self, lock: &Mutex<()>) -> bool {
        let alone = {
            let _guard = lock.lock().unwrap();
            self.door.hold()
        };
        if alone {
            self.change();
            let _ = self.door.release();
        }
        alone
    }

    /// Twin of `HeapRef::visit`. Whether the visitor was let in.
    fn visit(&self) -> bool {
        if !self.door.hold() {
            return false;
        }
        let out = self.door.is_out();
        if out {
            self.change();
        }
        let _ = self.door.release();
        out
    }

    fn changes(&self) -> u32 {
        // SAFETY: the model joins all other threads before it calls this, so no thread changes the cell.
        self.changed.with(|changed| unsafe { *changed })
    }
}

#[test]
fn a_visitor_and_the_owner_are_never_inside_together() {
    explore(3, || {
        let lists = Lists::new();
        let theirs = lists.clone();
        let visitor = thread::spawn(move || theirs.visit() as u32 + theirs.visit() as u32);
        lists.own();
        lists.own();
        let visits = visitor.join().unwrap();
        assert_eq!(lists.changes(), 2 + visits);
    });
}

#[test]
fn of_two_visitors_one_is_let_in_at_a_time() {
    explore(2, || {
        let lists = Lists::new();
        let visitors = [(); 2].map(|()| {
            let theirs = lists.clone();
            thread::spawn(move || theirs.visit() as u32)
        });
        lists.own();
        let visits = visitors.map(|visitor| visitor.join().unwrap());
        assert_eq!(lists.changes(), 1 + visits.iter().sum::<u32>());
        assert!(lists.door.enter(), "nobody holds the door any more");
    });
}

/// Guests go in one after the other under a lock. One of them keeps the door, gives the lock back and goes on: no barrier
/// is needed, which visitors need.
#[test]
fn a_guest_that_works_alone_without_the_lock_keeps_the_others_out() {
    explore(3, || {
        let (lists, lock) = (Lists::new(), Arc::new(Mutex::new(())));
        let (theirs, their_lock) = (lists.clone(), lock.clone());
        let alone = thread::spawn(move || {
            let alone = theirs.work_alone(&their_lock) as u32;
            alone + theirs.take_turn(&their_lock) as u32
        });
        let (theirs, their_lock) = (lists.clone(), lock.clone());
        let other = thread::spawn(move || theirs.work_alone(&their_lock) as u32);
        let turns = lists.take_turn(&lock) as u32 + lists.take_turn(&lock) as u32;
        let turns = turns + alone.join().unwrap() + other.join().unwrap();
        assert_eq!(lists.changes(), turns);
        assert!(lists.take_turn(&lock), "nobody holds the door any more");
    });
}

/// A visitor comes to the heap that guests share as well.
#[test]
fn a_visitor_and_a_guest_that_works_alone_are_never_inside_together() {
    explore(3, || {
        let (lists, lock) = (Lists::new(), Arc::new(Mutex::new(())));
        let theirs = lists.clone();
        let visitor = thread::spawn(move || theirs.visit() as u32);
        let turns = lists.work_alone(&lock) as u32 + lists.take_turn(&lock) as u32;
        let turns = turns + visitor.join().unwrap();
        assert_eq!(lists.changes(), turns);
    });
}

#[test]
fn an_owner_that_waits_is_to_be_woken() {
    explore(3, || {
        let lists = Lists::new();
        assert!(lists.door.hold());
        let theirs = lists.clone();
        let owner = thread::spawn(move || theirs.door.enter() || theirs.door.knock().is_none());
        let woken = lists.door.release().is_some();
        // It went in, or found the visitor gone, or sleeps until it is woken.
        assert_eq!(owner.join().unwrap(), !woken);
    });
}
