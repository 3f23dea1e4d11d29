//! The locks of an allocator, and a fork while somebody holds one.

use super::*;

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
                    lock.take_for_good();
                }
                index += 1;
            });
            heap.allocator.repair_after_fork(&heap.threads[forking]);
            heap.allocator.each_lock(&mut |lock| {
                assert!(lock.is_free(), "lock {held} of {count}, {heaps} heaps");
            });
            heap.is_sound();
            let blocks = heap.take_many(forking, 20_000, 20);
            heap.give_all(forking, &blocks);
            heap.is_sound();
        }
    }
}
