//! The heap profile is unbiased: every allocation is as likely a sample as its bytes say, whoever makes it, whatever
//! its size, and whatever happened before. And a sample is live as long as its block is.
//!
//! The simulated system's random numbers are the same each time. The bounds are such that a right profile with other
//! ones exceeds them less than once in a million times.

use super::*;
use slabside_base::units::SlabId;
use slabside_core::profile::Sample;
use std::collections::HashMap;

/// A sample: the block's address and bytes, the interval, and whether the block's slot is live.
#[derive(Clone, Copy, Debug)]
struct Seen {
    address: usize,
    size: f64,
    interval: f64,
    live: bool,
}

impl Seen {
    /// How many blocks it stands for.
    fn count(&self) -> f64 {
        1.0 / (1.0 - (-self.size / self.interval).exp())
    }

    /// How many bytes.
    fn bytes(&self) -> f64 {
        self.count() * self.size
    }
}

impl Heap {
    fn profiled(interval: usize) -> Heap {
        Heap::profiled_with(format!("profile:{interval}").leak())
    }

    fn profiled_with(options: &'static str) -> Heap {
        let heap = Heap::with(SimConfig {
            options,
            // Room for many samples.
            bytes: 1 << 30,
            break_bytes: 1 << 29,
            ..SimConfig::default()
        });
        heap.allocator.prepare(&heap.threads[0]);
        heap
    }

    fn count_live(&self) -> usize {
        self.samples().iter().filter(|seen| seen.live).count()
    }

    fn samples(&self) -> Vec<Seen> {
        let backend = &self.allocator.backend;
        let is_live = |sample: &Sample| {
            let (slab, slot) = (sample.slab.load(Relaxed), sample.slot());
            slab == 0 || {
                let slab = backend.table().get(SlabId(slab));
                !slab.is_remote(slot) && !slab.is_free(slot)
            }
        };
        let mut seen = Vec::new();
        backend.profile.each_listed(&backend.meta, |sample| {
            seen.push(Seen {
                address: sample.address.load(Relaxed),
                size: sample.size.load(Relaxed) as f64,
                interval: sample.interval.load(Relaxed) as f64,
                live: is_live(sample),
            })
        });
        seen
    }

    fn assert_whole(&self, thread: usize) {
        assert_eq!(self.allocator.validate(&self.threads[thread]), 0);
    }
}

/// Asserts that `found`, a sum of what samples stand for, is `exact` but for chance: five standard errors, of a variance
/// of one `interval` for each byte.
fn assert_near(found: f64, exact: f64, interval: f64, what: &str) {
    let error = 5.0 * (exact * interval).sqrt();
    assert!(
        (found - exact).abs() < error,
        "{what}: {found}, not {exact} +- {error}"
    );
}

/// The value that chi-square with `freedom` degrees of freedom exceeds once in ten million times (Wilson, Hilferty).
fn chi_square_most(freedom: f64) -> f64 {
    let part = 2.0 / (9.0 * freedom);
    freedom * (1.0 - part + 5.2 * part.sqrt()).powi(3)
}

/// The span freed last serves first here as well, whatever else is kept.
#[test]
fn in_a_profiled_heap_the_span_freed_last_is_taken_first() {
    let heap = Heap::profiled(1 << 30);
    let longer = heap.take(0, 60_000);
    let blocks = heap.take_many(0, 50_000, 3);
    heap.give(0, longer);
    for &block in blocks.iter().chain(blocks.iter().rev()) {
        heap.give(0, block);
        assert_eq!(heap.take(0, 50_000), block);
        heap.is_sound();
    }
}

#[test]
fn sites_that_allocate_in_turn_have_equal_shares() {
    for sites in [2, 7, 32, 64, 65] {
        for size in [8, 88, 3000] {
            let heap = Heap::profiled(10 * size);
            let blocks = heap.take_many(0, size, 10_000);
            let site_of: HashMap<usize, usize> = blocks
                .iter()
                .enumerate()
                .map(|(n, &block)| (block, n % sites))
                .collect();
            let mut shares = vec![0f64; sites];
            let samples = heap.samples();
            samples
                .iter()
                .for_each(|seen| shares[site_of[&seen.address]] += 1.0);
            let expected = samples.len() as f64 / sites as f64;
            let chi: f64 = shares
                .iter()
                .map(|n| (n - expected).powi(2) / expected)
                .sum();
            assert!(samples.len() > 800, "{} samples", samples.len());
            assert!(
                chi < chi_square_most(sites as f64 - 1.0),
                "{sites} sites, {size} bytes: {chi}"
            );
            heap.assert_whole(0);
        }
    }
}

#[test]
fn shares_are_by_bytes_over_four_decades_of_sizes() {
    let interval = 20_000;
    let heap = Heap::profiled(interval);
    // As many bytes of each, in small turns.
    let sizes = [16, 160, 1600, 16_000, 160_000];
    let mut taken = HashMap::new();
    for _ in 0..200 {
        for (place, &size) in sizes.iter().enumerate() {
            for block in heap.take_many(0, size, 160_000 / size) {
                taken.insert(block, place);
            }
        }
    }
    let mut found = [0.0; 5];
    let mut exact = [0.0; 5];
    for seen in heap.samples() {
        found[taken[&seen.address]] += seen.bytes();
    }
    for (&block, &place) in &taken {
        exact[place] += heap
            .allocator
            .usable_size(&heap.threads[0], block as *const u8) as f64;
    }
    for (place, size) in sizes.iter().enumerate() {
        assert_near(
            found[place],
            exact[place],
            interval as f64,
            &format!("{size} bytes"),
        );
    }
    assert_near(
        found.iter().sum(),
        exact.iter().sum(),
        interval as f64,
        "all",
    );
    heap.assert_whole(0);
}

#[test]
fn a_class_that_seldom_allocates_gets_the_samples_that_fall_on_it() {
    let heap = Heap::profiled(16_000);
    let mut seldom = Vec::new();
    for n in 0..40_000 {
        heap.take(0, 64);
        if n % 20 == 0 {
            seldom.push(heap.take(0, 640));
        }
    }
    let found: f64 = heap
        .samples()
        .iter()
        .filter(|seen| seldom.contains(&seen.address))
        .map(Seen::bytes)
        .sum();
    assert_near(found, 2000.0 * 640.0, 16_000.0, "640 bytes");
}

#[test]
fn samples_of_blocks_that_were_freed_are_dead_and_end_with_their_slots() {
    let heap = Heap::profiled(4000);
    for size in [48, 2000, 20_000, 300_000] {
        let before = heap.count_live();
        let blocks = heap.take_many(0, size, (4_000_000 / size).max(40));
        let (kept, freed): (Vec<_>, Vec<_>) =
            blocks.iter().enumerate().partition(|(n, _)| n % 2 == 0);
        let addresses = |half: Vec<(usize, &usize)>| {
            half.into_iter()
                .map(|(_, &block)| block)
                .collect::<Vec<_>>()
        };
        let (kept, freed) = (addresses(kept), addresses(freed));
        // Another thread frees some of them.
        freed
            .iter()
            .enumerate()
            .for_each(|(n, &block)| heap.give(usize::from(n % 3 == 0), block));
        let samples = heap.samples();
        assert!(
            heap.count_live() > before + 10,
            "{size}: {} samples",
            samples.len()
        );
        for seen in &samples {
            assert!(
                !freed.contains(&seen.address) || !seen.live,
                "{seen:?} was freed"
            );
            assert!(
                !kept.contains(&seen.address) || seen.live,
                "{seen:?} was not freed"
            );
        }
        heap.assert_whole(0);
        // Whoever takes their slots has no part in the samples of those that had them before.
        let again = heap.take_many(0, size, freed.len());
        for seen in heap.samples().iter().filter(|seen| seen.live) {
            assert!(kept.contains(&seen.address) || again.contains(&seen.address) || before > 0);
        }
        heap.assert_whole(0);
        heap.give_all(0, &kept);
        heap.give_all(0, &again);
        heap.allocator.reclaim(&heap.threads[0]);
        heap.assert_whole(0);
    }
    assert_eq!(heap.count_live(), 0, "all was freed");
}

#[test]
fn a_slot_that_is_used_again_without_a_sample_ends_the_one_before() {
    let heap = Heap::profiled(1);
    let blocks = heap.take_many(0, 64, 1000);
    assert_eq!(heap.count_live(), 1000);
    heap.give_all(0, &blocks);
    assert_eq!(heap.allocator.set_profile(&heap.threads[0], 1 << 40), 1);
    heap.allocator.flush_stats(&heap.threads[0]);
    heap.take_many(0, 64, 1000);
    assert_eq!(heap.count_live(), 0, "the slots' new blocks are no samples");
    heap.assert_whole(0);
}

#[test]
fn a_block_that_grows_in_place_or_moves_is_one_more_allocation() {
    let heap = Heap::profiled(1);
    let live = |heap: &Heap| -> Vec<Seen> {
        heap.samples()
            .into_iter()
            .filter(|seen| seen.live)
            .collect()
    };
    let mut block = heap.take(0, 200_000);
    for size in [400_000, 4_000_000, 40_000_000] {
        block = heap.resize(0, block, size);
        let seen = live(&heap);
        assert_eq!(seen.len(), 1, "{size}: {seen:?}");
        assert_eq!(seen[0].address, block);
        assert!(seen[0].size >= size as f64, "{size}: {seen:?}");
    }
    heap.give(0, block);
    assert_eq!(live(&heap).len(), 0);
    let mut block = heap.take(0, 20_000);
    for size in [40_000, 80_000, 120_000] {
        block = heap.resize(0, block, size);
        let seen = live(&heap);
        assert_eq!(seen.len(), 1, "{size}: {seen:?}");
        assert_eq!(seen[0].address, block);
        assert!(seen[0].size >= size as f64, "{size}: {seen:?}");
    }
    heap.assert_whole(0);
}

#[test]
fn too_many_samples_in_a_second_double_the_interval_and_a_calm_one_halves_it() {
    let heap = Heap::profiled(64);
    let header = heap.allocator.backend.meta.header();
    let (taken, doubled) = (
        || header.samples_taken.load(Relaxed),
        || header.samples_doubled.load(Relaxed),
    );
    let turn = || {
        let blocks = heap.take_many(0, 64, 1000);
        heap.give_all(0, &blocks);
        blocks.len()
    };
    while taken() < 9000 {
        turn();
        assert_eq!(doubled(), 0);
    }
    while taken() < 12_000 {
        turn();
    }
    assert_eq!(doubled(), 1);
    assert!(heap.samples().iter().any(|seen| seen.interval == 128.0));
    let before = taken();
    // One of two bytes' distance at least: 1 - exp(-1/2) of the blocks.
    let expected: f64 = (0..8)
        .map(|_| turn() as f64 * (1.0 - (-0.5f64).exp()))
        .sum();
    assert!(((taken() - before) as f64 - expected).abs() < 5.2 * expected.sqrt());
    for _ in 0..2 {
        heap.sim().advance_clock(1000);
        turn();
    }
    assert_eq!(doubled(), 0);
    heap.assert_whole(0);
}

#[test]
fn where_places_for_samples_run_out_the_interval_grows_and_sums_stay_right() {
    let heap = Heap::profiled(1000);
    let places = heap.allocator.backend.meta.plan().samples;
    let blocks = places * 1000 / 4096 * 4;
    let mut n = 0;
    while n < blocks {
        heap.take(0, 4096);
        n += 1;
        if n % 1000 == 0 {
            // Seconds go by, so that there are never too many in one.
            heap.sim().advance_clock(1000);
        }
    }
    let samples = heap.samples();
    let lost = heap
        .allocator
        .backend
        .meta
        .header()
        .samples_lost
        .load(Relaxed);
    assert!(
        samples.len() > places / 2 && samples.len() < places,
        "{} of {places}",
        samples.len()
    );
    assert_eq!(lost, 0);
    let found: f64 = samples.iter().map(Seen::bytes).sum();
    assert_near(found, (blocks * 4096) as f64, 8000.0, "all");
    heap.assert_whole(0);
}

#[test]
fn a_profile_that_ends_takes_no_more_samples_and_the_next_one_begins_with_none() {
    let heap = Heap::profiled(100);
    heap.take_many(0, 64, 1000);
    assert!(heap.samples().len() > 300);
    heap.allocator.set_profile(&heap.threads[0], 0);
    heap.allocator.flush_stats(&heap.threads[0]);
    let taken = || {
        heap.allocator
            .backend
            .meta
            .header()
            .samples_taken
            .load(Relaxed)
    };
    let before = taken();
    heap.take_many(0, 64, 10_000);
    assert_eq!(taken(), before);
    heap.allocator.set_profile(&heap.threads[0], 100_000);
    heap.allocator.flush_stats(&heap.threads[0]);
    heap.take_many(0, 64, 20_000);
    assert!(
        (1..60).contains(&heap.samples().len()),
        "{}",
        heap.samples().len()
    );
    heap.assert_whole(0);
}

#[test]
fn a_fork_child_keeps_the_samples_of_all_threads() {
    let heap = Heap::profiled(2000);
    for thread in 0..3 {
        heap.take(thread, 8);
        heap.allocator.flush_stats(&heap.threads[thread]);
        heap.take_many(thread, 100, 2000);
        heap.take_many(thread, 10_000, 30);
    }
    let before = heap.samples().len();
    assert!(before > 300);
    heap.allocator.repair_after_fork(&heap.threads[1]);
    assert_eq!(heap.samples().len(), before);
    heap.assert_whole(1);
    let blocks = heap.take_many(1, 100, 5000);
    heap.give_all(1, &blocks);
    heap.assert_whole(1);
}

#[test]
fn the_samples_of_a_thread_that_ends_stay_with_their_blocks() {
    let heap = Heap::profiled(1000);
    heap.take(1, 8);
    heap.allocator.flush_stats(&heap.threads[1]);
    let blocks = heap.take_many(1, 200, 2000);
    heap.allocator.exit_thread(&heap.threads[1]);
    assert!(heap.count_live() > 200);
    heap.assert_whole(0);
    heap.give_all(0, &blocks);
    heap.allocator.reclaim(&heap.threads[0]);
    assert!(heap.count_live() <= 1, "{}", heap.count_live());
    heap.assert_whole(0);
}

#[test]
fn hardened_mode_and_first_class_heaps_take_samples_too() {
    for options in ["profile:1", "profile:1,hardened"] {
        let heap = Heap::profiled_with(options);
        let thread = &heap.threads[0];
        let arena = heap.allocator.create_arena(thread).expect("a heap");
        let blocks: Vec<usize> = [24, 2000, 30_000, 300_000]
            .into_iter()
            .cycle()
            .take(400)
            .map(|size| heap.allocator.aligned_in(thread, arena, size, 16) as usize)
            .collect();
        heap.assert_whole(0);
        let samples = heap.samples();
        let seen = blocks.iter().filter(|&&block| {
            samples
                .iter()
                .any(|seen| seen.live && seen.address == block)
        });
        assert!(seen.count() > 300, "{options}: {} samples", samples.len());
        heap.allocator.destroy_arena(thread, arena);
        heap.assert_whole(0);
        let live = heap
            .samples()
            .into_iter()
            .filter(|seen| seen.live && blocks.contains(&seen.address))
            .count();
        assert_eq!(live, 0, "{options}");
        let blocks = heap.take_many(0, 40, 500);
        let samples = heap.samples();
        let seen = blocks.iter().filter(|&&block| {
            samples
                .iter()
                .any(|seen| seen.live && seen.address == block)
        });
        assert!(seen.count() > 300, "{options}");
        heap.assert_whole(0);
    }
}

/// Blocks of threads that have no heap yet are as likely samples as others.
#[test]
fn guests_blocks_are_samples_too() {
    let (heap, guests) = super::guests::crowded_with("profile:1");
    let blocks: Vec<usize> = guests
        .iter()
        .flat_map(|guest| [40, 200, 900].map(|size| heap.allocator.malloc(guest, size) as usize))
        .collect();
    assert!(guests.iter().all(|guest| guest.phase.get() == Phase::Fresh));
    let seen = heap.samples();
    for block in &blocks {
        assert!(seen.iter().any(|seen| seen.address == *block && seen.live));
    }
    for (at, &block) in blocks.iter().enumerate() {
        heap.allocator.free(&guests[at % 40], block as *mut u8);
    }
    assert!(!heap
        .samples()
        .iter()
        .any(|seen| seen.live && blocks.contains(&seen.address)));
    heap.is_sound();
}
