//! First-class heaps over a simulated system: each of its calls failing, a fork in between, and what other
//! threads' slabs have to do with them.

mod support;

use slabside_base::misuse::Misuse;
use slabside_core::allocator::Allocator;
use slabside_core::arena::Handle;
use slabside_core::stats::{stats, Stats};
use slabside_core::tls::ThreadCache;
use slabside_sim::{Sim, SimConfig};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Sizes of every kind of block.
const SIZES: [usize; 9] = [1, 8, 48, 1000, 1500, 8000, 20_000, 100_000, 300_000];

struct Heap {
    allocator: Box<Allocator<Sim>>,
    threads: [Box<ThreadCache>; 2],
}

impl Heap {
    fn new() -> Heap {
        Heap {
            allocator: Box::new(Allocator::new(Sim::new(SimConfig::default()))),
            threads: std::array::from_fn(|_| Box::new(ThreadCache::new())),
        }
    }

    fn stats(&self) -> Stats {
        stats(&self.allocator, &ThreadCache::new())
    }

    fn create(&self) -> Option<Handle> {
        self.allocator.create_arena(&self.threads[0])
    }

    fn take(&self, arena: Handle, size: usize) -> *mut u8 {
        self.allocator.aligned_in(&self.threads[0], arena, size, 1)
    }

    fn destroy(&self, arena: Handle) {
        self.allocator.destroy_arena(&self.threads[0], arena);
    }

    #[track_caller]
    fn sound(&self) {
        assert_eq!(self.allocator.validate(&ThreadCache::new()), 0);
    }

    fn misuse(&self, work: impl FnOnce()) -> Misuse {
        let died = catch_unwind(AssertUnwindSafe(work)).expect_err("nothing was found");
        self.threads.iter().for_each(|thread| thread.busy.set(0));
        *died.downcast::<Misuse>().expect("another panic")
    }
}

/// Plays with a heap as far as the system lets it: whether every invariant held, whatever failed.
fn play(heap: &Heap) {
    let Some(arena) = heap.create() else {
        return heap.sound();
    };
    let mut held = Vec::new();
    for round in 0..40 {
        for size in SIZES {
            let block = heap.take(arena, size);
            if !block.is_null() {
                // SAFETY: the test holds the block, which is live and has that size.
                unsafe { block.write_bytes(round, size) };
                held.push((block, size, round));
            }
        }
        if held.len() < 2 {
            continue;
        }
        let (block, size, value) = held.swap_remove(held.len() / 2);
        let (thread, bytes) = (&*heap.threads[0], 2 * size + 10);
        let moved = heap.allocator.realloc_in(thread, arena, block, bytes, 1);
        let kept = if moved.is_null() { block } else { moved };
        // SAFETY: a live block of at least that size.
        let contents = unsafe { std::slice::from_raw_parts(kept, size) };
        assert!(contents.iter().all(|&byte| byte == value));
        held.push((kept, size, value));
        let (block, ..) = held.swap_remove(0);
        heap.allocator.free(&*heap.threads[1], block);
    }
    heap.sound();
    heap.destroy(arena);
    heap.sound();
}

#[test]
fn each_call_of_the_system_may_fail_and_all_goes_back_in_the_end() {
    for lasting in [false, true] {
        let mut n = 0;
        loop {
            let heap = Heap::new();
            match lasting {
                false => heap.allocator.backend.os.fail_at(n),
                true => heap.allocator.backend.os.fail_from(n),
            }
            let _ = heap.allocator.malloc(&*heap.threads[1], 100);
            if heap.allocator.is_started() {
                play(&heap);
            }
            let failed = heap.allocator.backend.os.failed();
            heap.allocator.backend.os.never_fail();
            let arena = heap.create().expect("there is memory again");
            assert!(SIZES.iter().all(|&size| !heap.take(arena, size).is_null()));
            heap.destroy(arena);
            heap.allocator.exit_thread(&heap.threads[0]);
            heap.sound();
            let stats = heap.stats();
            assert!(stats.live <= 112, "{n}: {stats:?}"); // thread 1's one block
            assert!(stats.large == 0 && stats.slabs <= 1, "{n}: {stats:?}");
            if !failed {
                break;
            }
            n += 1;
        }
        assert!(n > 10, "the script asks the system for nothing");
    }
}

#[test]
fn a_fork_child_has_the_heap_with_its_objects_and_can_go_on() {
    let heap = Heap::new();
    let (arena, other) = (heap.create().unwrap(), heap.create().unwrap());
    let blocks: Vec<_> = (0..500).map(|_| heap.take(arena, 48)).collect();
    let large = heap.take(arena, 300_000);
    let common = heap.allocator.malloc(&*heap.threads[1], 48);
    blocks[..100]
        .iter()
        .for_each(|&block| heap.allocator.free(&*heap.threads[1], block));
    heap.allocator.repair_after_fork(&heap.threads[0]);
    heap.sound();
    let more: Vec<_> = (0..1000).map(|_| heap.take(arena, 48)).collect();
    let live = &blocks[100..];
    assert!(more
        .iter()
        .all(|block| !live.contains(block) && *block != common));
    assert!(!heap.take(other, 48).is_null());
    heap.sound();
    let before = heap.stats();
    heap.destroy(arena);
    heap.sound();
    assert!(heap.stats().large == before.large - 1);
    assert!(matches!(
        heap.misuse(|| heap.allocator.free(&*heap.threads[0], large)),
        Misuse::Unknown { .. } | Misuse::Dead { .. } | Misuse::DeadLarge { .. }
    ));
    // What was not the heap's is there still.
    heap.allocator.free(&*heap.threads[0], common);
    heap.destroy(other);
    heap.sound();
}

#[test]
fn a_heap_takes_over_no_slab_and_lets_go_of_none() {
    let heap = Heap::new();
    let [first, second] = &heap.threads;
    let common: Vec<_> = (0..64)
        .map(|_| heap.allocator.malloc(&**second, 64))
        .collect();
    common[..32]
        .iter()
        .for_each(|&block| heap.allocator.free(&**second, block));
    heap.allocator.exit_thread(second); // leaves a slab with free slots
    let arena = heap.create().unwrap();
    let ours: Vec<_> = (0..2000).map(|_| heap.take(arena, 64)).collect();
    // Freed into by others while full: a thread's heap would let such slabs go.
    ours.iter()
        .step_by(2)
        .for_each(|&block| heap.allocator.free(&**first, block));
    let again: Vec<_> = (0..2000).map(|_| heap.take(arena, 64)).collect();
    let pages = |blocks: &[*mut u8]| -> Vec<usize> {
        blocks.iter().map(|&block| block as usize >> 12).collect()
    };
    let theirs = pages(&common[32..]);
    assert!(pages(&again).iter().all(|page| !theirs.contains(page)));
    heap.sound();
    heap.destroy(arena);
    heap.sound();
    assert_eq!(heap.stats().live, 32 * 64);
    common[32..]
        .iter()
        .for_each(|&block| heap.allocator.free(&**first, block));
    heap.sound();
}

#[test]
fn a_handle_is_never_used_again() {
    let heap = Heap::new();
    let mut seen = Vec::new();
    for _ in 0..100 {
        let arena = heap.create().unwrap();
        assert!(!seen.contains(&arena.0));
        seen.push(arena.0);
        heap.destroy(arena);
    }
    for old in seen {
        let found = heap.misuse(|| assert!(heap.take(Handle(old), 8).is_null()));
        assert_eq!(found, Misuse::NoHeap { heap: old as usize });
    }
    for never in [0, 1, 2, u64::MAX, 1 << 40] {
        let found = heap.misuse(|| assert!(heap.take(Handle(never), 8).is_null()));
        assert!(matches!(found, Misuse::NoHeap { .. }));
    }
}

#[test]
fn in_a_signal_handler_that_interrupted_the_allocator_there_is_no_heap() {
    let heap = Heap::new();
    let arena = heap.create().unwrap();
    heap.threads[0].busy.set(1);
    assert!(heap.take(arena, 100).is_null() && heap.create().is_none());
    heap.threads[0].busy.set(0);
    assert!(!heap.take(arena, 100).is_null());
    heap.destroy(arena);
    heap.sound();
}
