//! The locks of an allocator, and a fork while somebody holds one.

use super::*;
use slabside_core::api::table::EXPORTS;
use slabside_core::arena::Handle;
use slabside_core::sized_free::Said;
use slabside_core::stats::census;

fn locks_of(heap: &Heap) -> Vec<usize> {
    let mut found = Vec::new();
    heap.allocator
        .each_lock(&mut |lock| found.push(std::ptr::from_ref(lock) as usize));
    found
}

/// A lock that the walk leaves out stays taken for good in a child of a process in which another thread held it.
#[test]
fn every_lock_that_is_made_is_one_that_a_fork_child_makes_free() {
    let heap = Heap::new();
    let mut found = locks_of(&heap);
    assert_eq!(found.len(), heap.allocator.locks_made());
    found.sort_unstable();
    found.dedup();
    assert_eq!(
        found.len(),
        heap.allocator.locks_made(),
        "one is shown twice"
    );
}

/// A signal handler may interrupt a slow path that holds any lock, so nothing that it asks of a block waits for one.
#[test]
fn a_handler_in_a_slow_path_waits_for_no_lock() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for options in ["", "hardened"] {
            let heap = Heap::with(SimConfig {
                options,
                ..SimConfig::default()
            });
            let (allocator, thread) = (&heap.allocator, &heap.threads[0]);
            let arena = allocator.create_arena(thread).expect("a heap");
            let mut blocks = vec![0, 100, 20_000, 200_000];
            blocks
                .iter_mut()
                .for_each(|size| *size = heap.take(0, *size));
            thread.busy.set(1);
            blocks.push(heap.take(0, 20_000));
            allocator.each_lock(&mut |lock| lock.lose());
            for block in blocks {
                let block = block as *mut u8;
                allocator.usable_size(thread, block);
                allocator.should_move(thread, block);
                assert!(!allocator.try_expand(thread, block, 1 << 20));
                let moved = allocator.realloc_in(thread, arena, block, 100, 16);
                assert!(moved.is_null());
            }
        }
        done.send(()).expect("the test waits");
    });
    // It takes less than a second of one processor.
    let long = std::time::Duration::from_secs(600);
    ended.recv_timeout(long).expect("it waits for a lock");
}

/// Whichever lock a thread holds while another one forks: the child's thread takes it, and finds the heap whole. The
/// forking thread is the only one with a heap, with two heaps, or has none itself.
#[test]
fn a_child_is_served_whichever_lock_was_held() {
    let count = Heap::new().allocator.locks_made();
    for held in 0..count {
        for (heaps, forking) in [(1, 0), (2, 0), (1, 1)] {
            let heap = Heap::new();
            for thread in 0..heaps {
                heap.take_many(thread, 100, 100);
                heap.take(thread, 200_000);
            }
            let mut index = 0;
            heap.allocator.each_lock(&mut |lock| {
                if index == held {
                    lock.lose();
                }
                index += 1;
            });
            heap.allocator.repair_after_fork(&heap.threads[forking]);
            heap.allocator.each_lock(&mut |lock| {
                assert!(lock.is_free(), "lock {held} of {count}, {heaps} heaps");
            });
            heap.is_sound();
            let blocks = heap.take_many(forking, 50_000, 20);
            heap.give_all(forking, &blocks);
            heap.is_sound();
        }
    }
}

/// The functions of the interface that touch nothing that another thread may have been in the middle of, or are others
/// of them under another name.
const NEED_NOTHING: [&str; 4] = [
    "slabside_good_size",
    "slabside_mallopt",
    "slabside_new",
    "slabside_new_aligned",
];

/// The allocator, the forking thread, and one of its blocks of each kind: a slot, a span, a large block.
type SlotCache = fn(&Allocator<Sim>, &ThreadCache, [*mut u8; 3]) -> bool;

/// Every other function, as far as it goes into the allocator. Returns whether it did what it is for.
const ENTRIES: &[(&str, SlotCache)] = &[
    ("slabside_malloc", |a, t, _| {
        [100, 5000, 20_000, 50_000, 200_000]
            .iter()
            .all(|&size| !a.malloc(t, size).is_null())
    }),
    ("slabside_calloc", |a, t, _| {
        !a.calloc(t, 1, 200_000).is_null()
    }),
    ("slabside_should_move", |a, t, blocks| {
        blocks.iter().all(|&block| !a.should_move(t, block))
    }),
    ("slabside_profile", |a, t, _| {
        a.set_profile(t, 4096) == 0 && stats(a, t).large == 1
    }),
    ("slabside_occupancy", |a, t, blocks| {
        a.occupancy(t, blocks[0]).live > 0 && a.occupancy(t, blocks[1]).slots == 0
    }),
    ("slabside_zalloc", |a, t, _| {
        !a.calloc(t, 1, 50_000).is_null()
    }),
    ("slabside_realloc", |a, t, blocks| {
        !a.realloc(t, blocks[2], 400_000).is_null()
    }),
    ("slabside_reallocarray", |a, t, blocks| {
        !a.realloc(t, blocks[1], 80_000).is_null()
    }),
    ("slabside_free", |a, t, blocks| {
        blocks.into_iter().for_each(|block| a.free(t, block));
        stats(a, t).large == 0
    }),
    ("slabside_free_sized", |a, t, blocks| {
        a.free_sized(t, blocks[2], 200_000, Said::ByHand);
        stats(a, t).large == 0
    }),
    ("slabside_free_aligned_sized", |a, t, blocks| {
        a.free_sized_aligned(t, blocks[2], 200_000, 16, Said::ByHand);
        stats(a, t).large == 0
    }),
    ("_ZdlPvmSt11align_val_t", |a, t, blocks| {
        a.free_sized_aligned(t, blocks[2], 200_000, 16, Said::ByHand);
        stats(a, t).large == 0
    }),
    ("_ZdlPvSt11align_val_tRKSt9nothrow_t", |a, t, blocks| {
        a.free(t, blocks[2]);
        stats(a, t).large == 0
    }),
    ("slabside_aligned_alloc", |a, t, _| {
        !a.aligned(t, 50_000, 8192).is_null()
    }),
    ("slabside_memalign", |a, t, _| {
        !a.aligned(t, 100, 8192).is_null()
    }),
    ("slabside_posix_memalign", |a, t, _| {
        !a.aligned(t, 200_000, 64).is_null()
    }),
    ("slabside_valloc", |a, t, _| {
        !a.aligned(t, 50_000, 4096).is_null()
    }),
    ("slabside_pvalloc", |a, t, _| {
        !a.aligned(t, 24_576, 4096).is_null()
    }),
    ("slabside_usable_size", |a, t, blocks| {
        a.usable_size(t, blocks[2]) >= 200_000
    }),
    ("slabside_malloc_trim", |a, t, _| {
        a.reclaim_but(t, 0);
        stats(a, t).large == 1
    }),
    ("slabside_mallinfo", |a, t, _| census(a, t).large == 1),
    ("slabside_mallinfo2", |a, t, _| census(a, t).large == 1),
    ("slabside_malloc_info", |a, t, _| census(a, t).large == 1),
    ("slabside_malloc_stats", |a, t, _| census(a, t).large == 1),
    ("slabside_malloc_at_least", |a, t, _| {
        a.malloc_at_least(t, 200_000).1 >= 200_000
    }),
    ("slabside_aligned_realloc", |a, t, blocks| {
        !a.realloc_aligned(t, blocks[1], 80_000, 64).is_null()
    }),
    ("slabside_try_expand", |a, t, blocks| {
        a.try_expand(t, blocks[2], 200_000)
    }),
    ("slabside_heap_create", |a, t, _| {
        a.create_arena(t).is_some()
    }),
    ("slabside_option_set", |a, t, _| {
        a.set_option(t, b"guard-sample:0").is_ok()
    }),
    ("slabside_occupancy", |a, t, blocks| {
        a.occupancy(t, blocks[0]);
        stats(a, t).large == 1
    }),
    ("slabside_should_move", |a, t, blocks| {
        a.should_move(t, blocks[0]);
        stats(a, t).large == 1
    }),
    ("slabside_stats", |a, t, _| stats(a, t).large == 1),
    ("slabside_validate", |a, t, _| a.validate(t) == 0),
];

/// As an [`SlotCache`], for a first-class heap.
type OfHeap = fn(&Allocator<Sim>, &ThreadCache, Handle) -> bool;

/// The functions of first-class heaps.
const OF_HEAPS: &[(&str, OfHeap)] = &[
    ("slabside_heap_malloc", |a, t, heap| {
        !a.aligned_in(t, heap, 200_000, 1).is_null()
    }),
    ("slabside_heap_calloc", |a, t, heap| {
        !a.zeroed_in(t, heap, 50_000, 1).is_null()
    }),
    ("slabside_heap_aligned_alloc", |a, t, heap| {
        !a.aligned_in(t, heap, 100, 64).is_null()
    }),
    ("slabside_heap_realloc", |a, t, heap| {
        !a.realloc_in(t, heap, std::ptr::null_mut(), 100, 1)
            .is_null()
    }),
    ("slabside_heap_destroy", |a, t, heap| {
        a.destroy_arena(t, heap);
        stats(a, t).large == 1
    }),
];

/// A process of two threads forks by _Fork, which runs no handlers, while the other thread holds every lock there is.
/// The child's `work` comes back, and has repaired the heap first.
fn child_goes_through(
    name: &str,
    work: impl FnOnce(&Allocator<Sim>, &ThreadCache, [*mut u8; 3], Handle) -> bool,
) {
    let heap = Heap::with(sim_with(|config| config.marks_forks = true));
    let (allocator, thread) = (&heap.allocator, &heap.threads[0]);
    let blocks = [100, 50_000, 200_000].map(|size| heap.take(0, size) as *mut u8);
    let first_class = allocator.create_arena(thread).expect("a heap");
    heap.take_many(1, 50_000, 3);
    allocator.each_lock(&mut |lock| lock.lose());
    assert!(heap.sim().fork(), "nothing would tell the child");
    assert!(work(allocator, thread, blocks, first_class), "{name}");
    allocator.each_lock(&mut |lock| assert!(lock.is_free(), "{name} left one taken"));
    heap.is_sound();
}

/// No function of the interface waits for a thread of the parent's, or believes what that left half done.
#[test]
fn every_function_of_the_interface_looks_whether_the_process_forked() {
    for (name, entry) in ENTRIES {
        child_goes_through(name, |allocator, thread, blocks, _| {
            entry(allocator, thread, blocks)
        });
    }
    for (name, entry) in OF_HEAPS {
        child_goes_through(name, |allocator, thread, _, heap| {
            entry(allocator, thread, heap)
        });
    }
    let known = |name: &&str| {
        NEED_NOTHING.contains(name)
            || ENTRIES.iter().any(|(known, _)| known == name)
            || OF_HEAPS.iter().any(|(known, _)| known == name)
    };
    // What has no name of its own is a form of one that has: C++'s other forms of new and delete, and cfree.
    for name in EXPORTS.iter().flat_map(|(_, prefixed)| prefixed.iter()) {
        assert!(known(name), "{name} is in no list: does it look?");
    }
}
