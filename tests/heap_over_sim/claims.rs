//! Address space that is claimed and not reserved: what is not used counts for nothing, and what others map there is
//! theirs.

use super::*;
use slabside_core::meta::Area;

/// Bytes of a mapping, so that the place of the first one can be asked for.
const MIB: usize = 1 << 20;

fn windows(heap: &Heap) -> u32 {
    heap.allocator.backend.meta.header().windows.load(Relaxed)
}

/// The address of the `page`-th page of `area`.
fn page_of(heap: &Heap, area: Area, page: usize) -> usize {
    let start = heap.allocator.backend.meta.start::<u8>(area);
    start.as_ptr() as usize + page * PAGE
}

/// Blocks of `size`, until one is refused or there are `most`.
fn take_until_refused(heap: &Heap, size: usize, most: usize) -> Vec<usize> {
    let take = || heap.allocator.malloc(&*heap.threads[0], size) as usize;
    let taken = std::iter::repeat_with(take).take_while(|&block| block != 0);
    taken.take(most).collect()
}

fn is_apart(blocks: &[usize], size: usize, page: usize) {
    let overlaps = |&&block: &&usize| block < page + PAGE && page < block + size;
    assert_eq!(blocks.iter().find(overlaps), None);
}

/// A process that limits its address space late has all of it.
#[test]
fn what_a_heap_does_not_use_counts_for_no_limit() {
    for break_fails in [false, true] {
        let heap = Heap::with(sim_with(|config| config.break_fails = break_fails));
        heap.take_many(0, 100, 10);
        assert_eq!(heap.sim().reserved_bytes(), 0);
        assert!(heap.sim().claimed_bytes() > 10 * MIB);
        assert!(heap.sim().usable_bytes() < MIB / 4);
    }
}

/// Where a system knows no claims, all is reserved as before.
#[test]
fn a_system_without_claims_is_served_from_reserves() {
    let heap = Heap::with(sim_with(|config| {
        config.break_fails = true;
        config.claims = false;
    }));
    let blocks = heap.take_many(0, 3000, 5000);
    assert_eq!(heap.sim().claimed_bytes(), 0);
    assert!(heap.sim().reserved_bytes() > 10 * MIB);
    heap.give_all(0, &blocks);
    heap.is_sound();
}

/// Somebody maps a page where the window was to grow. The window ends before it, and another one begins.
#[test]
fn a_window_that_others_map_into_ends_there_and_the_heap_goes_on_elsewhere() {
    let heap = Heap::with(sim_with(|config| {
        config.break_fails = true;
        config.bytes = 1 << 30;
    }));
    let mut blocks = heap.take_many(0, 100_000, 10);
    let page = (blocks[0] + 4 * MIB) & !(PAGE - 1);
    let before = windows(&heap);
    assert!(heap.sim().intrude(page));
    blocks.extend(heap.take_many(0, 100_000, 80));
    assert_eq!(windows(&heap), before + 1);
    is_apart(&blocks, 100_000, page);
    heap.is_sound();
    heap.give_all(0, &blocks);
    heap.is_sound();
    heap.take(0, 100_000);
}

/// free looks for a block in the first window, then in the second one, then in the others.
#[test]
fn blocks_of_every_window_are_freed_and_freed_twice() {
    for size in [100, 4000, 10_000, 50_000] {
        let heap = Heap::with(sim_with(|config| {
            config.break_fails = true;
            config.bytes = 1 << 30;
        }));
        let mut blocks = heap.take_many(0, size, MIB / size);
        while windows(&heap) < 3 {
            let before = windows(&heap);
            let last = blocks.iter().max().expect("there are some");
            let mut page = (last + MIB) & !(PAGE - 1);
            while !heap.sim().intrude(page) {
                page += MIB;
            }
            while windows(&heap) == before {
                blocks.push(heap.take(0, size));
            }
            blocks.extend(heap.take_many(0, size, MIB / size));
        }
        let (freed, rest): (Vec<_>, Vec<_>) = (0..blocks.len()).partition(|place| place % 3 == 0);
        let of = |places: &[usize]| {
            places
                .iter()
                .map(|&place| blocks[place])
                .collect::<Vec<_>>()
        };
        heap.give_all(0, &of(&freed));
        for block in of(&freed).into_iter().step_by(97) {
            assert_eq!(dead_in(heap.misuse_of_give(0, block)), block);
            heap.misuse_of_give(0, block + 8);
        }
        heap.is_sound();
        heap.give_all(0, &of(&rest));
        heap.is_sound();
        assert_eq!(heap.stats().live, 0);
    }
}

/// Somebody maps a page where the page map was to grow: the break cannot grow past what the map says of it.
#[test]
fn a_page_map_that_others_map_into_sends_the_heap_to_a_window() {
    let heap = Heap::with(SimConfig::default());
    let mut blocks = heap.take_many(0, 100_000, 10);
    let page = page_of(&heap, Area::PageMap, 2);
    assert!(heap.sim().intrude(page));
    blocks.extend(heap.take_many(0, 100_000, 200));
    assert_eq!(windows(&heap), 2);
    assert!(heap.break_bytes() <= 2 * 4 * MIB + PAGE);
    heap.is_sound();
    heap.give_all(0, &blocks);
    heap.is_sound();
}

/// Somebody maps a page where slab headers were to lie: there are no more slabs than have headers, and what there is
/// serves on.
#[test]
fn headers_that_others_map_into_end_there_and_the_heap_stays_whole() {
    let heap = Heap::with(SimConfig::default());
    heap.take(0, 100);
    let page = page_of(&heap, Area::Slabs, 4);
    assert!(heap.sim().intrude(page));
    let blocks = take_until_refused(&heap, 50_000, 5000);
    assert!((100..200).contains(&blocks.len()), "{}", blocks.len());
    heap.is_sound();
    heap.give_all(0, &blocks);
    heap.is_sound();
    let again = take_until_refused(&heap, 50_000, 5000);
    assert_eq!(again.len(), blocks.len());
    heap.is_sound();
}

/// Where the system gives not even a page for the break's metadata, no window is asked for, which needs one as well.
#[test]
fn a_refusal_of_metadata_asks_for_no_window() {
    let heap = Heap::with(SimConfig::default());
    let granule = 4 * MIB / 100_000;
    heap.take_many(0, 100_000, granule / 2);
    let (mut least, mut most) = (usize::MAX, 0);
    for _ in 0..granule {
        heap.sim().fail_from(0);
        while take_until_refused(&heap, 100_000, 1).len() == 1 {}
        let before = heap.sim().calls();
        take_until_refused(&heap, 100_000, 1);
        let calls = heap.sim().calls() - before;
        (least, most) = (least.min(calls), most.max(calls));
        heap.sim().never_fail();
        heap.take(0, 100_000);
    }
    heap.is_sound();
    // Elsewhere the break is asked for, and then a window.
    assert_eq!((least, most), (1, 2));
}

/// Where the allocator cannot start, there is no table of slabs to be asked whether a block is fresh.
#[test]
fn a_calloc_that_cannot_start_the_allocator_is_refused() {
    let sim = Sim::new(sim_with(|_| {}));
    sim.fail_from(0);
    let allocator = Allocator::new(sim);
    let own = ThreadCache::new();
    for size in [16, 5000, 20_000, 100_000, 1_000_000] {
        assert!(allocator.calloc(&own, 1, size).is_null(), "{size} bytes");
    }
}
