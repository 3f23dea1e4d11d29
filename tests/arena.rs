//! First-class heaps from Rust, and the `Allocator` of allocator-api2: this test program runs on slabside,
//! so that its collections, a heap's and the program's own, meet in one process.

use allocator_api2::alloc::{Allocator, Layout};
use allocator_api2::vec::Vec as VecIn;
use slabside::{Arena, Slabside};
use slabside_core::api;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

#[global_allocator]
static ALLOCATOR: Slabside = Slabside;

fn usable<T: ?Sized>(block: *const T) -> usize {
    // SAFETY: the caller's reference or pointer keeps the block live.
    unsafe { api::usable_size(block.cast()) }
}

#[test]
fn values_slices_and_strings_live_in_it() {
    let arena = Arena::new().unwrap();
    let words: Vec<&mut str> = (0..1000)
        .map(|n| arena.alloc_str(&format!("word {n}")).unwrap())
        .collect();
    let numbers = arena.alloc_slice_copy(&[7u64; 100_000]).unwrap();
    let pair = arena.alloc((1u8, [2u32; 9])).unwrap();
    pair.1[3] += 1;
    assert!(words
        .iter()
        .enumerate()
        .all(|(n, word)| **word == format!("word {n}")));
    assert!(numbers.iter().all(|&n| n == 7) && pair.1[3] == 3);
    assert!(usable(numbers.as_ptr()) >= 800_000);
}

#[test]
fn values_without_bytes_have_an_address() {
    let arena = Arena::new().unwrap();
    *arena.alloc(()).unwrap() = ();
    assert!(arena.alloc_slice_copy::<u64>(&[]).unwrap().is_empty());
    assert_eq!(arena.alloc_str("").unwrap(), "");
}

#[test]
fn values_are_not_dropped_with_it() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counts;
    impl Drop for Counts {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
    let arena = Arena::new().unwrap();
    let _ = arena.alloc(Counts).unwrap();
    drop(arena);
    assert_eq!(DROPPED.load(Ordering::Relaxed), 0);
}

#[test]
fn threads_share_it() {
    let arena = Arena::new().unwrap();
    let sums: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|id| {
                let arena = &arena;
                scope.spawn(move || {
                    let blocks: Vec<&mut [usize]> = (1..500)
                        .map(|n| arena.alloc_slice_copy(&vec![id; n % 70]).unwrap())
                        .collect();
                    blocks.iter().map(|block| block.iter().sum::<usize>()).sum()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let bytes: usize = (1..500).map(|n| n % 70).sum();
    assert!(sums.iter().enumerate().all(|(id, &sum)| sum == id * bytes));
}

#[test]
fn collections_grow_shrink_and_drop_in_it() {
    let arena = Arena::new().unwrap();
    for _ in 0..3 {
        let mut names: VecIn<String, &Arena> = VecIn::new_in(&arena);
        for n in 0..20_000 {
            names.push(n.to_string());
        }
        names.truncate(10);
        names.shrink_to_fit();
        assert_eq!(names.iter().map(String::len).sum::<usize>(), 10);
    }
    let mut owned: VecIn<u8, Arena> = VecIn::new_in(Arena::new().unwrap());
    owned.extend_from_slice(&[9; 5000]);
    let moved = owned;
    assert!(moved.iter().all(|&byte| byte == 9));
    let mut common: VecIn<u8, Slabside> = VecIn::new_in(Slabside);
    common.extend_from_slice(&[8; 5000]);
    assert!(usable(common.as_ptr()) >= 5000);
}

/// Every way to resize, over sizes and alignments: contents kept, aligned, zeros where promised.
fn resizes(allocator: &impl Allocator) {
    let sizes = [0, 1, 8, 100, 5000, 20_000, 300_000];
    for (from, to) in sizes.iter().flat_map(|&a| sizes.map(|b| (a, b))) {
        for (shift, other) in [(0, 0), (3, 12), (12, 3), (5, 5), (13, 13), (18, 18)] {
            let old = Layout::from_size_align(from, 1 << shift).unwrap();
            let new = Layout::from_size_align(to, 1 << other).unwrap();
            // SAFETY: each block is used within its layout, and given back once with its last one.
            unsafe {
                let block = allocator.allocate_zeroed(old).unwrap().cast::<u8>();
                assert!(bytes(block, from).iter().all(|&byte| byte == 0));
                block.write_bytes(0x5a, from);
                let moved = if to >= from {
                    allocator.grow_zeroed(block, old, new)
                } else {
                    allocator.shrink(block, old, new)
                };
                let moved = moved.unwrap().cast::<u8>();
                assert_eq!(moved.as_ptr() as usize % new.align(), 0, "{old:?} {new:?}");
                let kept = from.min(to);
                assert!(bytes(moved, kept).iter().all(|&byte| byte == 0x5a));
                assert!(bytes(moved, to)[kept..].iter().all(|&byte| byte == 0));
                let larger = Layout::from_size_align(2 * to, new.align()).unwrap();
                let last = allocator.grow(moved, new, larger).unwrap().cast::<u8>();
                assert!(bytes(last, kept).iter().all(|&byte| byte == 0x5a));
                allocator.deallocate(last, larger);
            }
        }
    }
    let huge = Layout::from_size_align(1 << 60, 8).unwrap();
    assert!(allocator.allocate(huge).is_err() && allocator.allocate_zeroed(huge).is_err());
}

unsafe fn bytes<'a>(block: NonNull<u8>, size: usize) -> &'a [u8] {
    // SAFETY: the caller guarantees that the block is live and has `size` initialized bytes.
    unsafe { std::slice::from_raw_parts(block.as_ptr(), size) }
}

#[test]
fn every_layout_is_resized_with_its_contents() {
    resizes(&Slabside);
    resizes(&Arena::new().unwrap());
    resizes(&&Arena::new().unwrap());
}

#[test]
fn what_is_refused_comes_back() {
    let arena = Arena::new().unwrap();
    let huge = Layout::from_size_align(1 << 60, 8).unwrap();
    assert!(arena.alloc_layout(huge).is_none() && arena.alloc_layout_zeroed(huge).is_none());
    assert_eq!(*arena.alloc(5).unwrap(), 5);
}
