//! What callers do wrong, and where it is found: in every class, by every order of two threads, after collections.

use super::*;

/// In each size class, each span and large blocks: the plainest of all errors, found at once.
#[test]
fn a_double_free_is_found_in_every_class() {
    let heap = Heap::new();
    let sizes = ClassId::all()
        .map(size_of_class)
        .chain([9000, SPAN_MAX, SPAN_MAX + 1, 3 << 20]);
    for size in sizes {
        let block = heap.take(0, size);
        heap.give(0, block);
        assert_eq!(gone_at(heap.misuse_of_give(0, block)), block, "size {size}");
        assert_eq!(
            gone_at(heap.misuse_of_give(1, block)),
            block,
            "size {size} by another thread"
        );
    }
}

/// Between a remote free and its collection, the slot is marked in the remote bitmap alone.
#[test]
fn a_double_free_is_found_in_every_order_of_two_threads() {
    for (first, second) in [(0, 1), (1, 0), (1, 1), (1, 2)] {
        let heap = Heap::new();
        let blocks = heap.take_many(0, 40, 10);
        heap.give(first, blocks[4]);
        assert_eq!(
            dead_in(heap.misuse_of_give(second, blocks[4])),
            blocks[4],
            "{first} then {second}"
        );
        heap.is_sound();
    }
}

/// A realloc that changes nothing but the size looks at as much: at the start of a slot that is live, in the thread's own
/// slab or in a full one that it owned last, whoever freed it. In each class, with room to spare.
#[test]
fn realloc_in_place_finds_what_is_no_live_block() {
    for size in ClassId::all().map(size_of_class) {
        for (full, freer) in [(false, 0), (false, 1), (true, 1)] {
            let heap = Heap::new();
            let first = heap.take(0, size);
            let blocks = match full {
                true => heap.take_many(0, size, heap.slab(first).slots() - 1),
                false => vec![heap.take(0, size)],
            };
            // The last slot is taken before the slab is full, which is seen when the next one is.
            let beside = heap.take(0, size);
            let less = size - size / 4;
            for _ in 0..2 {
                assert_eq!(heap.resize(0, blocks[0], less), blocks[0], "{size}");
                assert_eq!(heap.resize(0, blocks[0], size), blocks[0], "{size}");
            }
            if size > 8 {
                let inside = misuse(|| {
                    heap.resize(0, blocks[0] + 8, less);
                });
                assert!(!matches!(inside, Misuse::Dead { .. }), "{size}: {inside:?}");
            }
            // A slab of two slots is full in any case.
            assert!(!full || heap.slab(blocks[0]).owner.load(Relaxed).is_full());
            heap.give(freer, blocks[0]);
            for thread in [0, 1] {
                let dead = misuse(|| {
                    heap.resize(thread, blocks[0], less);
                });
                assert_eq!(dead_in(dead), blocks[0], "{size} by {thread}");
            }
            heap.give(0, beside);
            heap.is_sound();
        }
    }
}

/// After the collection it is marked in the owner's bitmap.
#[test]
fn a_double_free_is_found_after_collection() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 40, 10);
    heap.give(1, blocks[4]);
    heap.give(0, blocks[5]); // The pending flag diverts this free, which collects.
    let (slab, slot) = (heap.slab(blocks[4]), Slot::new(4));
    assert!(slab.is_free(slot) && !slab.is_remote(slot));
    for thread in 0..3 {
        assert_eq!(dead_in(heap.misuse_of_give(thread, blocks[4])), blocks[4]);
    }
}

/// An abandoned slab has no owner whose bitmap a freer could divert to: it is claimed first.
#[test]
fn a_double_free_is_found_in_abandoned_slabs() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 40, 10);
    heap.give(0, blocks[3]);
    heap.exit(0);
    let owner = heap.slab(blocks[3]).owner.load(Relaxed);
    assert!(owner.list().is_some() && !owner.is_shared());
    assert_eq!(dead_in(heap.misuse_of_give(1, blocks[3])), blocks[3]);
    heap.give(1, blocks[4]);
    assert_eq!(dead_in(heap.misuse_of_give(2, blocks[4])), blocks[4]);
}

/// A full slab of a thread that exited is on no list.
#[test]
fn a_double_free_is_found_in_full_slabs_of_an_exited_thread() {
    let heap = Heap::new();
    let blocks = heap.take_slab(0, 500);
    heap.exit(0);
    assert!(heap.slab(blocks[0]).owner.load(Relaxed).is_full());
    heap.give(1, blocks[2]);
    assert_eq!(dead_in(heap.misuse_of_give(1, blocks[2])), blocks[2]);
    assert_eq!(dead_in(heap.misuse_of_give(2, blocks[2])), blocks[2]);
    heap.is_sound();
}

/// Slabs are given back when empty: then the header tells which slot the pointer named, until it is used again.
#[test]
fn a_free_into_a_released_slab_is_found() {
    let heap = Heap::new();
    let guard = heap.take(0, 8000);
    let block = heap.take(1, 40);
    heap.give(1, block);
    heap.exit(1);
    for thread in 0..3 {
        assert_eq!(dead_in(heap.misuse_of_give(thread, block)), block);
    }
    let inside = Misuse::Unknown {
        call: Call::Free,
        addr: block + 8,
    };
    assert_eq!(heap.misuse_of_give(0, block + 8), inside);
    heap.give(0, guard);
    heap.is_sound();
}

/// Behind the last slot a slab may have a tail, whose bit must not be taken for a slot's.
#[test]
fn a_free_one_past_the_last_slot_is_found_in_every_class() {
    let heap = Heap::new();
    for class in ClassId::all() {
        let size = size_of_class(class);
        let slab = heap.slab(heap.take(0, size));
        let past = slab.base() + slab.slots() * size;
        if past < slab.base() + slab.pages() * PAGE {
            let expected = Misuse::Inside {
                call: Call::Free,
                addr: past,
                offset: past - slab.base(),
                size,
            };
            assert_eq!(heap.misuse_of_give(0, past), expected);
            assert_eq!(heap.misuse_of_give(1, past), expected);
        }
    }
}

/// The reciprocal tells each inner pointer from a slot's start. For spans any offset but 0.
#[test]
fn a_free_of_an_inner_pointer_is_found() {
    let heap = Heap::new();
    for size in [8, 16, 48, 1000, 8192, 10_000, SPAN_MAX] {
        let block = heap.take(0, size);
        for inside in [1, 7, size / 2 + 1, size - 1] {
            for thread in 0..2 {
                let found = heap.misuse_of_give(thread, block + inside);
                assert!(
                    matches!(found, Misuse::Inside { addr, .. } if addr == block + inside),
                    "{found:?}"
                );
            }
        }
    }
    let (large, size) = (heap.take(0, 1 << 20), 1 << 20);
    for offset in [1, PAGE, size - 1] {
        let inside = Misuse::InsideLarge {
            call: Call::Free,
            addr: large + offset,
            offset,
            size,
        };
        assert_eq!(heap.misuse_of_give(0, large + offset), inside);
    }
    let behind = heap.misuse_of_give(0, large + size);
    assert!(matches!(behind, Misuse::Unknown { .. }), "{behind:?}");
}

#[test]
fn a_free_of_what_never_was_a_block_is_found() {
    let heap = Heap::new();
    let unknown = |addr| Misuse::Unknown {
        call: Call::Free,
        addr,
    };
    let local = &raw const heap as usize;
    // Before anything was allocated there are no tables to look into.
    assert_eq!(heap.misuse_of_give(0, local), unknown(local));
    let block = heap.take(0, 100);
    let foreign = heap.sim().foreign_sbrk(3 * PAGE as isize).unwrap();
    heap.take_many(0, 4000, 100);
    for addr in [
        local,
        8,
        usize::MAX & !15,
        foreign + PAGE,
        heap.sim().break_start(),
        block & !0xffff_ffff,
    ] {
        assert_eq!(heap.misuse_of_give(0, addr), unknown(addr), "{addr:#x}");
        assert_eq!(heap.misuse_of_give(1, addr), unknown(addr), "{addr:#x}");
    }
}

/// realloc and usable size test the live bit: a copy out of a dead slot would hide the error.
#[test]
fn realloc_and_usable_size_of_dead_blocks_are_found() {
    let heap = Heap::new();
    for size in [8, 100, 5000, 20_000, 1 << 20] {
        let (block, _neighbour) = (heap.take(0, size), heap.take(0, size));
        for freer in [0, 1] {
            let block = if freer == 0 {
                block
            } else {
                heap.take(0, size)
            };
            heap.give(freer, block);
            assert_eq!(
                dead_in(misuse(|| _ = heap.resize(0, block, 2 * size))),
                block
            );
            assert_eq!(dead_in(misuse(|| _ = heap.usable(block))), block);
        }
    }
}

/// Two frees that overlap in time are found by the collection: built here by setting the bit by hand.
#[test]
fn a_slot_freed_twice_at_the_same_time_is_found_by_the_collection() {
    let heap = Heap::new();
    let blocks = heap.take_many(0, 40, 10);
    heap.give(0, blocks[1]);
    let slab = heap.slab(blocks[1]);
    slab.remote_word(0).fetch_or(1 << 1, Relaxed);
    let owner = slab.owner.load(Relaxed);
    slab.owner.store(owner.with_pending(), Relaxed);
    let found = heap.misuse_of_give(0, blocks[2]);
    assert!(
        matches!(found, Misuse::CollectedTwice { addr, slot, size: 48 } if addr == blocks[1] && slot == Slot::new(1)),
        "{found:?}"
    );
}

/// The same, found by the refill that comes to the slab, whether its slots are many or few.
#[test]
fn a_slot_freed_twice_at_the_same_time_is_found_by_the_refill_that_comes_to_its_slab() {
    for wanted in [48, 5000] {
        let heap = Heap::new();
        let blocks = heap.take_slab(0, wanted);
        heap.take_slab(0, wanted);
        heap.give(0, blocks[1]);
        heap.slab(blocks[1])
            .remote_word(0)
            .fetch_or(1 << 1, Relaxed);
        let found = misuse(|| _ = heap.take_many(0, wanted, 2));
        assert!(
            matches!(found, Misuse::CollectedTwice { addr, slot, .. } if addr == blocks[1] && slot == Slot::new(1)),
            "{wanted}: {found:?}"
        );
    }
}

/// A full slab or a live span that an ended thread left is nobody's, as a hardened thread's owner word says of that thread
/// itself. What is freed there goes the hardened way all the same.
#[test]
fn a_hardened_free_of_what_an_ended_thread_left_looks_at_the_canary() {
    for size in [100, 20_000] {
        let heap = Heap::with(sim_with(|config| config.options = "hardened"));
        heap.take(0, 16);
        let block = heap.take(1, size);
        while heap.slab(block).count_free() != 0 {
            heap.take(1, size);
        }
        heap.exit(1);
        assert!(heap.slab(block).owner.load(Relaxed).is_full());
        // SAFETY: the bytes after those asked for are the block's own: its slot is larger.
        unsafe { ((block + size) as *mut u8).write_bytes(0xff, 4) };
        let found = heap.misuse_of_give(0, block);
        assert!(matches!(found, Misuse::Overflow { .. }), "{found:?}");
    }
}
