//! A break that has holes, an odd start or an end. Heaps of every size.

use super::*;

/// Another library's sbrk leaves holes: they are never handed out, never given back, and the heap goes on
/// behind them.
#[test]
fn foreign_blocks_in_the_break_are_holes() {
    for foreign in [1, 100, PAGE, 3 * PAGE + 5] {
        let heap = Heap::new();
        let mut holes = Vec::new();
        let mut blocks = Vec::new();
        for _ in 0..10 {
            blocks.extend(heap.take_many(0, 8000, 60));
            let start = heap.sim().foreign_sbrk(foreign as isize).unwrap();
            // SAFETY: what the simulated break moved over just now.
            unsafe { (start as *mut u8).write_bytes(0xf0, foreign) };
            holes.push(start);
        }
        let inside = |block: &&usize| {
            holes
                .iter()
                .any(|&hole| **block < hole + foreign && hole < **block + 8000)
        };
        assert_eq!(blocks.iter().find(inside), None);
        heap.is_sound();
        heap.give_all(0, &blocks);
        heap.allocator.reclaim(&heap.threads[0]);
        heap.is_sound();
        for &hole in &holes {
            // SAFETY: foreign memory, which only this test gives back.
            let bytes = unsafe { std::slice::from_raw_parts(hole as *const u8, foreign) };
            assert!(bytes.iter().all(|&byte| byte == 0xf0));
        }
    }
}

/// The break may stand in the middle of a page before we move it first: that is no reason to do without.
#[test]
fn an_unaligned_break_is_used() {
    for page_size in [PAGE, 64 << 10] {
        let heap = Heap::with(sim_with(|config| {
            config.page_size = page_size;
            config.break_offset = 0x1234;
        }));
        heap.take_many(0, 1000, 1000);
        assert!(heap.stats().break_bytes > 1_000_000 && heap.stats().mapped == 0);
        heap.is_sound();
    }
}

/// A foreign block that goes away again leaves the break where we can go on.
#[test]
fn a_foreign_block_that_is_given_back_does_not_end_the_heap() {
    let heap = Heap::new();
    for _ in 0..20 {
        heap.take_many(0, 8000, 20);
        heap.sim().foreign_sbrk(5000).unwrap();
        heap.sim().foreign_sbrk(-5000).unwrap();
    }
    assert!(heap.stats().mapped == 0 && heap.stats().break_bytes > 3_000_000);
    heap.is_sound();
}

/// The break ends midway: the heap goes on in a mapped window, and blocks of both are served alike.
#[test]
fn the_heap_goes_on_in_a_window_where_the_break_ends() {
    let heap = Heap::with(sim_with(|config| config.break_bytes = 1 << 20));
    let blocks = heap.take_many(0, 8000, 400);
    let end = heap.sim().break_start() + (1 << 20);
    assert!(blocks.iter().any(|&block| block < end) && blocks.iter().any(|&block| block > end));
    for &block in blocks.iter().step_by(20) {
        heap.give(0, block);
        assert_eq!(gone_at(heap.misuse_of_give(0, block)), block);
        assert_eq!(gone_at(heap.misuse_of_give(1, block)), block);
    }
    let left: Vec<usize> = (0..400)
        .filter(|i| i % 20 != 0)
        .map(|i| blocks[i])
        .collect();
    heap.give_all(1, &left);
    heap.is_sound();
    heap.allocator.reclaim(&heap.threads[0]);
    assert_eq!(heap.stats().live, 0);
    heap.is_sound();
}

/// Page numbers go up to and over a group's end (8,192 pages), and over the first 64 Ki pages.
#[test]
fn a_heap_of_more_than_64_ki_pages_works() {
    let heap = Heap::with(sim_with(|config| {
        config.bytes = 1 << 30;
        config.break_bytes = 600 << 20;
    }));
    // Untouched memory: the host is not asked for it.
    let blocks = heap.take_many(0, SPAN_MAX, (66 << 10) / 32);
    assert!(heap.stats().break_bytes > 256 << 20);
    heap.is_sound();
    heap.give_all(0, &blocks.iter().copied().step_by(2).collect::<Vec<_>>());
    heap.give_all(
        1,
        &blocks
            .iter()
            .copied()
            .skip(1)
            .step_by(2)
            .collect::<Vec<_>>(),
    );
    heap.allocator.reclaim(&heap.threads[0]);
    heap.is_sound();
    assert!(
        heap.break_bytes() <= 1 << 20,
        "{} bytes stay",
        heap.break_bytes()
    );
}

/// So many slabs that headers, page map and bitmaps are opened in many steps.
#[test]
fn tens_of_thousands_of_slabs_work() {
    let heap = Heap::with(sim_with(|config| {
        config.bytes = 2 << 30;
        config.break_bytes = 1 << 30;
    }));
    let blocks = heap.take_many(0, 4096, 140_000);
    assert!(heap.stats().slabs > 4000);
    let pairs = heap.take_many(0, 8, 512 * 1000);
    assert!(heap.stats().slabs > 5000);
    heap.is_sound();
    heap.give_all(0, &blocks);
    heap.give_all(0, &pairs);
    heap.is_sound();
    assert_eq!(heap.stats().live, 0);
}

/// The simulated system's default is a process under a limit of 256 MiB: the tree over the page groups has
/// a single level there, which was once read before it was open.
#[test]
fn every_size_of_region_can_be_started() {
    for shift in 22..36 {
        let heap = Heap::with(sim_with(|config| {
            config.bytes = 1 << shift;
            config.break_bytes = 1 << (shift - 2);
        }));
        let blocks = heap.take_many(0, 3000, 100);
        heap.give_all(0, &blocks);
        heap.is_sound();
    }
}

/// The clock may not be asked on every free, but the kernel is told that threads are watched once each.
#[test]
fn each_thread_is_watched_once() {
    let heap = Heap::new();
    (0..3).for_each(|thread| drop(heap.take_many(thread, 100, 100)));
    heap.exit(0);
    heap.take(0, 100);
    assert_eq!(heap.sim().watched(), 3);
    assert_eq!(heap.sim().clock(), 0);
}
