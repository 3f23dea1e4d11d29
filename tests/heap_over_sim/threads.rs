//! Threads that exit and are adopted, late ones, handlers, fork children.

use super::*;
use slabside_base::os::Host;
use slabside_core::arena::Handle;
use slabside_core::remote::{self, Next};
use slabside_core::sized_free::Said;
use slabside_core::slab::State;
use std::sync::atomic::AtomicUsize;
use std::sync::{mpsc, Mutex};
use std::time::Duration;

/// A new thread takes up what an exited one left before it asks for pages.
#[test]
fn slabs_of_an_exited_thread_are_adopted() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 100, 1000);
    heap.give_all(0, &blocks.iter().copied().step_by(2).collect::<Vec<_>>());
    let slabs = heap.stats().slabs;
    heap.exit(0);
    heap.take_many(1, 100, 500);
    assert_eq!(heap.stats().slabs, slabs);
    heap.is_sound();
}

/// A full slab of an exited thread becomes the first freer's, who then frees without atomics.
#[test]
fn a_full_slab_of_an_exited_thread_is_the_first_freers() {
    let heap = Heap::new();
    let blocks = heap.take_slab(0, 100);
    heap.exit(0);
    heap.give(1, blocks[0]);
    assert_eq!(
        heap.slab(blocks[0]).owner.load(Relaxed),
        heap.threads[1].me.get()
    );
    heap.give_all(1, &blocks[1..]);
    heap.is_sound();
}

/// A thread that only frees is counted, so that a fork child knows that there were two at work.
#[test]
fn a_thread_that_only_frees_has_a_heap_too() {
    let heap = Heap::new();
    let block = heap.take(0, 100);
    assert_eq!(heap.allocator.backend.heaps.given.load(Relaxed), 1);
    heap.give(1, block);
    assert_eq!(heap.allocator.backend.heaps.given.load(Relaxed), 2);
    assert_eq!(heap.threads[1].phase.get(), Phase::Running);
    heap.is_sound();
}

/// A full slab is nobody's, so that whoever frees into it becomes its owner, whatever its last one does.
#[test]
fn full_slabs_belong_to_who_frees_into_them_first() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 64, 4096);
    let full = |block: &usize| heap.slab(*block).owner.load(Relaxed).is_full();
    let full: Vec<usize> = blocks.iter().copied().filter(full).collect();
    assert!(full.len() > 3584, "{} slots lay in full slabs", full.len());
    let others = heap.take(1, 64);
    heap.give(1, full[0]);
    let owner = |block| heap.slab(block).owner.load(Relaxed);
    assert_eq!(owner(full[0]), heap.threads[1].me.get());
    heap.give_all(1, &full[1..]);
    heap.is_sound();
    let before = heap.stats().break_bytes;
    heap.take_many(1, 64, full.len() - 1);
    assert!(heap.stats().break_bytes <= before + (64 << 10));
    heap.give(1, others);
    heap.is_sound();
}

/// Blocks of `size` bytes of thread 0's active slab, of which thread 1 has freed `freed`, beside a block that stays.
/// Then thread 0 asked for a block of another size, of which it had no slab.
fn left_in_active(heap: &Heap, size: usize, freed: usize) -> Vec<usize> {
    let blocks = heap.take_many(0, size, freed + 1);
    let slab = heap.slab(blocks[0]);
    assert!(
        blocks.iter().all(|&block| heap.slab(block) == slab),
        "two slabs"
    );
    heap.give_all(1, &blocks[..freed]);
    assert!(remote::is_queued(slab));
    heap.take(0, 500);
    assert_eq!(slab.count_remote(), freed, "it was collected");
    assert!(slab.owner.load(Relaxed).is_pending() && !remote::is_queued(slab));
    blocks
}

/// What others free in the active slab of another size is left by a request: or they would have to tell its owner anew
/// after each one. They are told nothing, and the slots serve when the slab is used up, before another one is made.
#[test]
fn a_request_leaves_what_others_freed_in_active_slabs_of_other_sizes() {
    // Of slots of more than 1 KiB there are few to a slab: other paths change to the next one.
    for (size, freed) in [(64, 8), (2000, 2)] {
        let heap = Heap::new();
        let blocks = left_in_active(&heap, size, freed);
        let slab = heap.slab(blocks[0]);
        heap.give(1, blocks[freed]);
        assert!(!remote::is_queued(slab), "the owner was told again");
        for thread in [1, 0] {
            let dead = heap.misuse_of_give(thread, blocks[0]);
            assert_eq!(dead_in(dead), blocks[0]);
        }

        let heap = Heap::new();
        let blocks = left_in_active(&heap, size, freed);
        let slab = heap.slab(blocks[0]);
        heap.take_many(0, size, slab.slots() - blocks.len());
        assert_eq!(heap.take_many(0, size, freed), blocks[..freed]);
        assert_eq!(slab.count_free() + slab.count_remote(), 0);
        heap.is_sound();
    }
}

/// A slab that waits for its turn again, since the next one has far more free slots, is queued if others freed in it.
#[test]
fn what_was_left_in_an_active_slab_that_is_put_off_is_collected() {
    let heap = Heap::new();
    let other = heap.take_slab(0, 64);
    let blocks = heap.take_slab(0, 64);
    let slab = heap.slab(blocks[0]);
    let last = blocks.len() - 1;
    heap.give_all(0, &other[..other.len() / 2]);
    heap.give_all(0, &blocks[..4]);
    heap.give_all(1, &blocks[last - 8..]);
    heap.take(0, 500);
    assert!(slab.owner.load(Relaxed).is_pending() && !remote::is_queued(slab));
    heap.take(0, 64);
    heap.is_sound();
    assert!(slab.state() == State::Partial && remote::is_queued(slab));
    heap.take(0, 40_000);
    assert_eq!(slab.count_remote(), 0, "it was not collected");
    heap.is_sound();
}

/// An active slab that others emptied goes back at a tick of its thread.
#[test]
fn an_active_slab_that_others_emptied_goes_back_at_the_tick() {
    let heap = Heap::new();
    let blocks = left_in_active(&heap, 64, 8);
    heap.give(1, blocks[8]);
    let slabs = heap.stats().slabs;
    for _ in 0..2 {
        heap.sim().advance_clock(1000);
        heap.pulse(0);
    }
    assert_eq!(heap.stats().slabs, slabs - 1);
    heap.is_sound();
}

/// A free that was collected before its thread raised the flag leaves a flag too many. An empty slab goes back with that
/// and waits in no queue. What others free in the next slab of its header would wait for this thread.
#[test]
fn an_active_slab_with_a_flag_too_many_goes_back_in_no_queue() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 64, 2);
    let slab = heap.slab(blocks[0]);
    heap.give(1, blocks[0]);
    let slot = Slot::new((blocks[1] - slab.base()) / 64);
    assert!(remote::free_remote(slab, slot));
    let third = heap.take(0, 64);
    assert!(heap.slab(third) == slab);
    heap.give(0, third);
    assert_eq!(slab.count_remote(), 0, "it was not collected");
    let Next::Notify(owner) = remote::raise_pending(slab) else {
        panic!("no flag was raised");
    };
    heap.allocator.backend.notify(owner, slab);
    heap.take(0, 500);
    assert!(slab.owner.load(Relaxed).is_pending() && !remote::is_queued(slab));
    let many = heap.take_many(0, 1000, 2000);
    heap.give_all(0, &many);
    assert_eq!(slab.owner.load(Relaxed), RELEASED);
    assert!(
        !remote::is_queued(slab),
        "it was queued before it went back"
    );
    heap.is_sound();
}

/// A slab that several threads free into is everybody's: a third one gets its free slots before a slab is carved,
/// though its owner makes no more calls.
#[test]
fn a_slab_that_several_threads_free_into_serves_all() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 64, 4096);
    heap.take(2, 64);
    // Of each slab the first is freed by its last owner, the second by another thread.
    let slabs: std::collections::BTreeSet<usize> = blocks
        .iter()
        .map(|&block| heap.slab(block).base())
        .collect();
    for &slab in &slabs {
        heap.give(0, slab);
        heap.give(1, slab + 64);
    }
    // The owner finds out when it next collects.
    heap.allocator.reclaim(&heap.threads[0]);
    let shared = |slab: &&usize| heap.slab(**slab).owner.load(Relaxed).is_shared();
    let shared: Vec<usize> = slabs.iter().copied().filter(|slab| shared(&slab)).collect();
    assert!(shared.len() >= slabs.len() / 2, "{} shared", shared.len());
    for &slab in &shared {
        heap.give(1, slab + 128);
        assert_eq!(dead_in(heap.misuse_of_give(2, slab + 128)), slab + 128);
        assert_eq!(dead_in(heap.misuse_of_give(1, slab)), slab);
    }
    let before = heap.stats().break_bytes;
    let again = heap.take_many(2, 64, 3 * shared.len() + 64);
    assert!(shared.iter().all(|&slab| again.contains(&(slab + 128))));
    assert!(heap.stats().break_bytes <= before + (64 << 10));
    heap.is_sound();
}

/// Slabs of 64 bytes that threads 0 and 1 freed two slots of, so that they are shared: their first blocks' addresses.
fn shared_slabs(heap: &Heap) -> Vec<usize> {
    shared_slabs_of(heap, 64, 256)
}

/// Likewise slabs of blocks of `size` bytes that have at least so many slots.
fn shared_slabs_of(heap: &Heap, size: usize, slots: usize) -> Vec<usize> {
    let blocks = heap.take_many(0, size, 32 * slots);
    heap.take(2, size);
    let slabs: std::collections::BTreeSet<usize> = blocks
        .iter()
        .map(|&block| heap.slab(block).base())
        .filter(|&slab| heap.slab(slab).slots() >= slots)
        .collect();
    for &slab in &slabs {
        heap.give(0, slab);
        heap.give(1, slab + heap.slab(slab).size.load(Relaxed) as usize);
    }
    heap.allocator.reclaim(&heap.threads[0]);
    let shared = |slab: &usize| heap.slab(*slab).owner.load(Relaxed).is_shared();
    let shared: Vec<usize> = slabs.into_iter().filter(shared).collect();
    assert!(shared.len() >= 16, "{} shared", shared.len());
    shared
}

/// A shared slab that fills up does not become the next freer's own, or what others free in it would wait while that
/// one sleeps.
#[test]
fn a_shared_slab_that_fills_up_stays_everybodys() {
    fills_up(64, 256);
    // Of slots of more than 1 KiB there are few to a slab: another path changes to the next one.
    fills_up(5000, 24);
}

fn fills_up(size: usize, slots: usize) {
    let heap = Heap::new();
    let slabs = shared_slabs_of(&heap, size, slots);
    let third = |slab: usize| slab + 2 * heap.slab(slab).size.load(Relaxed) as usize;
    heap.take_many(2, size, 2 * slabs.len() + slots / 4);
    let owner = |slab: usize| heap.slab(slab).owner.load(Relaxed);
    let full = |slab: &usize| owner(*slab).is_full_shared();
    let full: Vec<usize> = slabs.iter().copied().filter(full).collect();
    assert!(full.len() >= slabs.len() * 3 / 4, "{} full", full.len());
    for block in full.iter().map(|&slab| third(slab)) {
        heap.give(1, block);
        let slab = heap.slab(block);
        assert_eq!(slab.owner.load(Relaxed).list(), Some(slab.class()));
        assert_eq!(dead_in(heap.misuse_of_give(2, block)), block);
        assert_eq!(dead_in(heap.misuse_of_give(1, block)), block);
    }
    heap.is_sound();
    let before = heap.stats().break_bytes;
    // The thread's own free slots may serve first.
    let own = slots.max(64);
    let again = heap.take_many(0, size, full.len() + own);
    assert!(full.iter().all(|&slab| again.contains(&third(slab))));
    let grown = heap.stats().break_bytes - before;
    assert!(
        grown <= (64 << 10) + own * size,
        "{grown} for blocks of {size}, {} slabs",
        full.len()
    );
    heap.is_sound();
}

/// Where one thread alone goes on freeing, its slabs become its own again by and by, also where each refill asks whether
/// a block is to be sampled.
#[test]
fn of_shared_slabs_that_fill_up_some_are_their_first_freers() {
    for rate in ["guard-sample:0", "guard-sample:8192"] {
        let heap = Heap::new();
        let slabs = shared_slabs(&heap);
        let set = heap.allocator.set_option(&heap.threads[0], rate.as_bytes());
        assert!(set.is_ok());
        heap.take_many(2, 64, 2 * slabs.len() + 64);
        let owner = |slab: &&usize| heap.slab(**slab).owner.load(Relaxed);
        let own = slabs.iter().filter(|slab| owner(slab) == Owner::FULL);
        let own = own.count();
        let most = slabs.len() / 8;
        assert!(
            (1..=most).contains(&own),
            "{rate}: {own} of {}",
            slabs.len()
        );
        heap.is_sound();
    }
}

/// Of shared slabs those with few free slots serve first, so that the others become empty and go back.
#[test]
fn shared_slabs_of_which_much_is_free_drain() {
    let heap = Heap::new();
    let slabs = shared_slabs(&heap);
    let slots = |slab: usize, from: usize, to: usize| -> Vec<usize> {
        (from..to).map(|slot| slab + 64 * slot).collect()
    };
    let (mut sparse, mut dense) = (vec![], vec![]);
    for pair in slabs.chunks_exact(2) {
        heap.give_all(1, &slots(pair[0], 2, 128));
        heap.give_all(1, &slots(pair[1], 2, 50));
        sparse.push(pair[0]);
        dense.push(pair[1]);
    }
    let taken = heap.take_many(2, 64, 40 * dense.len());
    let of = |block: usize| heap.slab(block).base();
    assert!(taken.iter().all(|&block| !sparse.contains(&of(block))));
    assert!(taken.iter().any(|&block| dense.contains(&of(block))));
    heap.is_sound();
    for &slab in &sparse {
        let header = heap.slab(slab);
        heap.give_all(1, &slots(slab, 128, 256));
        assert_eq!(header.owner.load(Relaxed), RELEASED);
    }
    heap.is_sound();
}

/// What drains serves all the same before a slab is carved.
#[test]
fn draining_slabs_serve_when_no_other_slab_has_free_slots() {
    let heap = Heap::new();
    let slabs = shared_slabs(&heap);
    for &slab in &slabs {
        heap.give_all(
            1,
            &(2..128).map(|slot| slab + 64 * slot).collect::<Vec<_>>(),
        );
    }
    let before = heap.stats().break_bytes;
    let taken = heap.take_many(2, 64, 120 * slabs.len());
    assert!(heap.stats().break_bytes <= before + (64 << 10));
    let of = |block: usize| heap.slab(block).base();
    assert!(taken.iter().any(|&block| slabs.contains(&of(block))));
    heap.is_sound();
}

/// Who frees the last slot of a shared slab gives it back.
#[test]
fn the_last_free_into_a_shared_slab_releases_it() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 64, 4096);
    let (first, others) = blocks.split_at(1024);
    let slab = heap.slab(first[512]);
    heap.give(0, first[512]);
    heap.give(1, first[513]);
    heap.allocator.reclaim(&heap.threads[0]);
    assert!(slab.owner.load(Relaxed).is_shared());
    heap.give_all(1, &first[..512]);
    heap.give_all(2, &first[514..]);
    assert!(!slab.owner.load(Relaxed).is_shared());
    heap.give_all(2, others);
    heap.is_sound();
}

/// Remote frees come back to their owner before it carves another slab.
#[test]
fn remote_frees_are_collected_before_a_slab_is_carved() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 1000, 400);
    let before = heap.stats().break_bytes;
    heap.give_all(1, &blocks);
    heap.take_many(0, 1000, 400);
    assert!(
        heap.stats().break_bytes <= before + (64 << 10),
        "{} after {before}",
        heap.stats().break_bytes
    );
    heap.is_sound();
}

/// After its exit hook a thread still allocates and frees: later destructors do.
#[test]
fn a_late_thread_is_served_by_the_shared_heap() {
    let heap = Heap::new();
    let before = heap.take_many(0, 100, 50);
    heap.exit(0);
    assert_eq!(heap.threads[0].phase.get(), Phase::Late);
    let mut blocks = Vec::new();
    for size in [1, 100, 2000, 8192, 20_000, 200_000] {
        blocks.extend(heap.take_many(0, size, 40));
    }
    let grown: Vec<usize> = blocks
        .iter()
        .map(|&block| heap.resize(0, block, heap.usable(block) + 1))
        .collect();
    assert_eq!(gone_at(heap.misuse_of_give(0, blocks[0])), blocks[0]);
    heap.give_all(0, &grown[..100]);
    heap.give_all(1, &grown[100..]);
    heap.give_all(0, &before);
    assert_eq!(gone_at(heap.misuse_of_give(0, grown[5])), grown[5]);
    heap.is_sound();
    heap.exit(0); // A second call finds nothing to do.
    heap.is_sound();
}

/// Threads that come and go do not make the heap grow.
#[test]
fn many_short_threads_use_the_same_heap_again() {
    let heap = Heap::new();
    heap.take(0, 1);
    for round in 0..300 {
        let local = Box::new(ThreadCache::new());
        let blocks: Vec<usize> = (0..50)
            .map(|_| heap.allocator.malloc(&*local, 100) as usize)
            .collect();
        blocks
            .iter()
            .for_each(|&block| heap.allocator.free(&*local, block as *mut u8));
        heap.allocator.exit_thread(&local);
        assert!(heap.stats().slabs <= 2, "round {round}: {:?}", heap.stats());
    }
    assert!(heap.stats().metadata <= 128 << 10, "{:?}", heap.stats());
    heap.is_sound();
}

/// A signal handler that interrupts a slow path may free, and what it freed is not lost. It gets a block of an area
/// apart where no slot lies cached.
#[test]
fn a_handler_in_a_slow_path_frees_without_loss() {
    let heap = Heap::new();
    let (mine, others) = (heap.take_slab(0, 100), heap.take_slab(1, 100));
    let span = heap.take(1, 20_000);
    heap.threads[0].busy.set(1);
    heap.give_all(0, &others);
    heap.give(0, span);
    heap.give_all(0, &mine);
    let apart = heap.allocator.malloc(&*heap.threads[0], 20_000);
    assert!(!apart.is_null());
    heap.give(0, apart as usize);
    assert_eq!(dead_in(heap.misuse_of_give(0, others[3])), others[3]);
    heap.threads[0].busy.set(0);
    assert_eq!(heap.stats().live, 0);
    for thread in [0, 1] {
        heap.exit(thread);
    }
    assert_eq!((heap.stats().slabs, heap.stats().spans), (0, 0));
}

/// What a handler frees in a full slab, which nobody owns, is marked and no more. The next free there claims the slab and
/// finds the mark.
#[test]
fn a_free_into_a_full_slab_finds_what_a_handler_has_freed_there() {
    for size in [16, 1000, 4096, 16_384] {
        let heap = Heap::new();
        heap.take_slab(0, size);
        heap.take_slab(0, size);
        let blocks = heap.take_slab(0, size); // Slabs grow: of three slots at least.
        heap.take(0, size); // The slab is full, and changed for the next one.
        heap.threads[0].busy.set(1);
        heap.give(0, blocks[0]);
        heap.threads[0].busy.set(0);
        heap.give(0, blocks[1]);
        assert_eq!(heap.slab(blocks[0]).count_free(), 2, "{size} bytes");
        assert_eq!(heap.slab(blocks[0]).count_remote(), 0, "{size} bytes");
        heap.is_sound();
        heap.give_all(0, &blocks[2..]);
        heap.is_sound();
    }
}

/// A pointer to no slot is found before the full slab is claimed.
#[test]
fn a_misuse_of_a_full_slab_leaves_it_nobodys() {
    let heap = Heap::new();
    let blocks = heap.take_slab(0, 4096);
    heap.take(0, 4096);
    let slab = heap.slab(blocks[0]);
    let owner = slab.owner.load(Relaxed);
    assert!(owner.is_full());
    for wrong in [blocks[0] + 16, blocks[blocks.len() - 1] + 2048] {
        heap.misuse_of_give(0, wrong);
        assert!(slab.owner.load(Relaxed) == owner);
    }
    heap.is_sound();
}

/// A signal handler that interrupts a slow path may name a block of any kind: what it cannot know without a lock is no
/// misuse, and a large block of hardened mode does not grow unnoticed.
#[test]
fn a_handler_in_a_slow_path_may_name_blocks_that_lie_in_no_slab() {
    let options = "hardened,guard-sample:1";
    let heap = Heap::with(SimConfig {
        options,
        ..SimConfig::default()
    });
    let lies_apart = |&block: &usize| heap.allocator.backend.pages.find(block).is_none();
    let blocks = heap.take_many(0, 100, 1000);
    let sampled = *blocks.iter().find(|block| lies_apart(block)).expect("one");
    let (large, empty) = (heap.take(0, 200_000), heap.take(0, 0));
    assert!(lies_apart(&empty));

    heap.threads[0].busy.set(1);
    assert_eq!(heap.usable(sampled), 0);
    assert_eq!(heap.resize(0, sampled, 10), 0);
    assert_eq!((heap.usable(large), heap.usable(empty)), (200_000, 0));
    assert_eq!(heap.resize(0, large, 200_100), 0);
    heap.threads[0].busy.set(0);

    assert_eq!((heap.usable(sampled), heap.usable(large)), (100, 200_000));
    heap.give_all(0, &blocks);
    heap.give_all(0, &[large, empty]);
    heap.is_sound();
}

/// In a fork child the other threads' slabs are nobody's: they are adopted, and freed like any.
#[test]
fn a_fork_child_takes_up_what_the_other_threads_left() {
    let heap = Heap::new();
    let mut blocks = Vec::new();
    for size in [8, 100, 3000, 20_000, 200_000] {
        (0..3).for_each(|thread| blocks.extend(heap.take_many(thread, size, 33)));
    }
    // Remote frees wait to be collected when the process forks.
    blocks
        .iter()
        .step_by(5)
        .enumerate()
        .for_each(|(i, &block)| heap.give(i % 3, block));
    let gone: Vec<usize> = blocks.iter().copied().step_by(5).collect();
    heap.allocator.repair_after_fork(&heap.threads[1]);
    heap.is_sound();
    let left: Vec<usize> = blocks
        .iter()
        .copied()
        .filter(|block| !gone.contains(block))
        .collect();
    heap.give_all(1, &left);
    heap.exit(1);
    assert_eq!(
        (heap.stats().live, heap.stats().slabs, heap.stats().spans),
        (0, 0, 0),
        "{:?}",
        heap.stats()
    );
    heap.is_sound();
}

/// Another thread than the child's first one may come first to a slow path. The first one's heap stays its own.
#[test]
fn a_fork_child_repaired_by_its_second_thread_leaves_the_first_ones_heap_alone() {
    for options in ["", "hardened"] {
        let heap = Heap::with(SimConfig {
            options,
            ..sim_with(|config| config.marks_forks = true)
        });
        let blocks = heap.take_many(0, 100, 100);
        let large = heap.take(0, 200_000);
        let others = heap.take_many(1, 100, 100);
        heap.give(1, others[3]);
        assert!(heap.sim().fork());
        let (first, second) = (7 << 32 | 7, 7 << 32 | 8);
        heap.sim().call_as(second);
        let new = heap.take_many(2, 100, 200);
        heap.sim().call_as(first);
        let mut more = heap.take_many(0, 100, 200);
        more.extend([&new[..], &blocks, &others[..3], &others[4..]].concat());
        let count = more.len();
        more.sort_unstable();
        more.dedup();
        assert_eq!(more.len(), count, "one slot was handed out twice");
        heap.give_all(0, &more);
        heap.give(0, large);
        heap.is_sound();
    }
}

/// Who waits for another thread's repair repairs itself, if its own handler has forked meanwhile: in that child nobody
/// else is there.
#[test]
fn a_fork_by_the_handler_of_a_thread_that_waits_for_the_repair_is_noticed() {
    let heap = Heap::with(sim_with(|config| config.marks_forks = true));
    let blocks = heap.take_many(0, 100, 100);
    heap.take_many(1, 100, 100);
    let mark = heap.sim().fork_mark().expect("one was made");
    // Thread 5 is at it.
    mark.store(5 << 2 | 2, Relaxed);
    let sim = heap.sim();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Most often the other one waits by then. Where it does not, it finds at once that it was forked.
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(sim.fork());
            slabside_base::mutex::wake_all(mark);
        });
        let block = blocks[0] as *const u8;
        assert!(heap.allocator.usable_size(&heap.threads[0], block) >= 100);
    });
    assert_eq!(mark.load(Relaxed), 1, "all is whole");
    heap.give_all(0, &blocks);
    heap.is_sound();
}

/// A thread that has left a slow path in which its handler had forked repairs, unless another thread of the child is at
/// it: then it waits for that one, and leaves its heap as it is.
#[test]
fn a_thread_that_left_a_path_lets_another_ones_repair_come_to_its_end() {
    let heap = Heap::with(sim_with(|config| config.marks_forks = true));
    let blocks = heap.take_many(0, 100, 100);
    heap.take_many(1, 100, 100);
    let mark = heap.sim().fork_mark().expect("one was made");
    let at_it = 5 << 2 | 2;
    mark.store(at_it, Relaxed);
    // A block is no frame of a path at work.
    heap.threads[0].busy.set(blocks[0]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(mark.swap(1, Relaxed), at_it, "two repair at once");
            slabside_base::mutex::wake_all(mark);
        });
        let left = heap.threads[0].heap.get();
        heap.take(0, 20_000);
        assert_ne!(heap.threads[0].heap.get(), left);
    });
    assert_eq!(mark.load(Relaxed), 1);
    let more = heap.take_many(0, 100, 100);
    assert!(more.iter().all(|block| !blocks.contains(block)));
    heap.give_all(0, &[more, blocks].concat());
    heap.is_sound();
}

type Question = fn(&Heap, Handle, *mut u8) -> bool;

/// Whoever left a slow path is in none: what it asks of a block is answered as ever.
#[test]
fn every_question_about_a_block_mends_first_what_the_thread_left() {
    let questions: [Question; 7] = [
        |heap, _, block| heap.allocator.usable_size(&heap.threads[0], block) >= 200_000,
        |heap, _, block| heap.allocator.usable_size_if_ours(&heap.threads[0], block) >= 200_000,
        |heap, _, block| heap.allocator.try_expand(&heap.threads[0], block, 200_000),
        |heap, _, block| !heap.allocator.should_move(&heap.threads[0], block),
        |heap, _, block| {
            let moved = heap
                .allocator
                .realloc_aligned(&heap.threads[0], block, 400_000, 8192);
            !moved.is_null()
        },
        |heap, arena, block| {
            let moved = heap
                .allocator
                .realloc_in(&heap.threads[0], arena, block, 400_000, 16);
            !moved.is_null()
        },
        |heap, _, block| {
            let said = Said::ByHand;
            heap.allocator
                .free_sized_aligned(&heap.threads[0], block, 200_000, 16, said);
            heap.stats().large == 0
        },
    ];
    for (number, question) in questions.iter().enumerate() {
        let heap = Heap::new();
        let arena = heap.allocator.create_arena(&heap.threads[0]);
        let (small, large) = (heap.take(0, 100), heap.take(0, 200_000));
        // A block is no frame of a path at work.
        heap.threads[0].busy.set(small);
        let answer = question(&heap, arena.expect("a heap"), large as *mut u8);
        assert!(
            answer && heap.threads[0].busy.get() == 0,
            "question {number}"
        );
        heap.is_sound();
    }
}

/// The parent's only heap may be another thread's than the one that forks.
#[test]
fn a_fork_child_of_a_thread_without_a_heap_repairs_too() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 100, 100);
    heap.allocator.repair_after_fork(&heap.threads[1]);
    heap.give_all(1, &blocks);
    heap.exit(1);
    assert_eq!(heap.stats().slabs, 0);
}

/// A thread that is refused gives back what is kept. Another one, which is refused in the midst of that and finds nothing
/// that it could give back itself, waits for the first one and gets of it: whichever call of the system is the midst.
#[test]
fn who_is_refused_while_another_thread_gives_back_gets_of_it() {
    let reached = (0..60).take_while(|&call| is_served_in_the_midst(call));
    assert!((1..20).contains(&reached.count()));
}

/// False where the first thread makes fewer calls.
fn is_served_in_the_midst(call: usize) -> bool {
    let sim = Sim::new(sim_with(|config| config.options = "hardened,limit-hard:4m"));
    let allocator: &'static Allocator<Sim> = Box::leak(Box::new(Allocator::new(sim)));
    let own = ThreadCache::new();
    let take = |size| Some(allocator.malloc(&own, size)).filter(|block| !block.is_null());
    let kept = take(120_000).expect("a span");
    let (ask, asked) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    std::thread::spawn(move || {
        let own = ThreadCache::new();
        for size in asked {
            let block = allocator.malloc(&own, size);
            answer.send(block as usize).expect("the test waits");
        }
    });
    ask.send(64).expect("the other thread waits");
    assert_ne!(answered.recv(), Ok(0), "the other thread has a heap");
    for size in [100_000, 1000] {
        while take(size).is_some() {}
    }
    allocator.free(&own, kept);
    let (calls, ask) = (AtomicUsize::new(0), Mutex::new(ask));
    let answered: &'static Mutex<mpsc::Receiver<usize>> = Box::leak(Box::new(Mutex::new(answered)));
    let midst: &'static Mutex<Option<usize>> = Box::leak(Box::new(Mutex::new(None)));
    let is_asked: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    allocator.backend.os.expect_at_calls(move || {
        if allocator.backend.is_giving() && calls.fetch_add(1, Relaxed) == call {
            is_asked.store(1, Relaxed);
            ask.lock().unwrap().send(3000).expect("it waits");
            // Long enough for one that is refused at once. One that waits is served whenever this ends.
            let soon = Duration::from_millis(100);
            *midst.lock().unwrap() = answered.lock().unwrap().recv_timeout(soon).ok();
        }
        true
    });
    assert!(take(3000).is_some());
    if is_asked.load(Relaxed) == 0 {
        return false;
    }
    let early = midst.lock().unwrap().take();
    let block = early.unwrap_or_else(|| answered.lock().unwrap().recv().expect("an answer"));
    assert_ne!(
        block,
        0,
        "refused at call {call}, at once: {}",
        early.is_some()
    );
    true
}
