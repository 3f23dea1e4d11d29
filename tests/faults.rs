//! Every call to the system fails once, and from every call on all fail. Whatever then happens, no live block is lost
//! or damaged, and when the system gives memory again, so does the allocator.
//!
//! A script is played with the n-th fallible call failing, for n = 0, 1, 2 ... until a run comes through in
//! which nothing failed. The scripts are chosen by what they make the allocator ask for: metadata being
//! opened, the break being moved up and down, mappings, discards.

mod support;

use slabside_sim::{Sim, SimConfig};
use support::parallel::Parallel;
use support::{address_limit, sim_with, Memory, Op, Random, World};

/// How a run's failures are laid.
#[derive(Clone, Copy, Debug)]
enum Fails {
    Once,
    FromThenOn,
}

impl Fails {
    fn command(self, sim: &Sim, n: usize) {
        match self {
            Fails::Once => sim.fail_at(n),
            Fails::FromThenOn => sim.fail_from(n),
        }
    }
}

/// Plays `script` with each fallible call failing in turn. Every `stride`-th only, where there are many.
fn survives_each(config: SimConfig, script: &[Op], stride: usize) {
    for fails in [Fails::Once, Fails::FromThenOn] {
        let mut n = 0;
        while survives(config, script, fails, n) {
            n += stride;
        }
        assert!(n > 0, "the script asks the system for nothing");
    }
}

/// Plays `script` once. Returns whether any call failed.
fn survives(config: SimConfig, script: &[Op], fails: Fails, n: usize) -> bool {
    let mut world = World::new(config, Memory::Scarce, 8);
    fails.command(world.sim(), n);
    world.note = format!("{fails:?} {n}");
    world.play(script.iter().copied());
    world.check();
    world.check_contents();
    let failed = world.sim().failed();
    world.sim().never_fail();
    recovers(&mut world);
    failed
}

/// The system gives memory again: so must the allocator, to every thread, in every size.
fn recovers(world: &mut World) {
    world.memory = Memory::Ample;
    for thread in 0..support::THREADS {
        for size in [1, 8, 100, 1000, 5000, 20_000, 100_000, 300_000] {
            world.play([Op::Malloc {
                thread,
                size,
                count: 1,
            }]);
        }
    }
    world.finish();
}

fn many(thread: usize, size: usize, count: usize) -> Op {
    Op::Malloc {
        thread,
        size,
        count,
    }
}

fn free(thread: usize, pick: usize, count: usize, stride: usize) -> Op {
    Op::Free {
        thread,
        pick,
        count,
        stride,
    }
}

/// The first call of all kinds: the reserve, the header, the heap, the break, the first page.
#[test]
fn the_very_first_allocations() {
    let script = [
        many(0, 1, 1),
        many(0, 100, 1),
        many(0, 20_000, 1),
        many(0, 200_000, 1),
        many(1, 1, 1),
    ];
    for break_fails in [false, true] {
        survives_each(
            sim_with(|config| config.break_fails = break_fails),
            &script,
            1,
        );
    }
}

/// Each size class needs slab headers and pages: metadata are opened again and again.
#[test]
fn slabs_of_every_class() {
    let mut script: Vec<Op> = (0..64)
        .map(|i| many(i % 2, 1 + i * 128, 1 + 800 / (1 + i * 4)))
        .collect();
    script.extend([free(0, 0, 900, 1), many(1, 24, 1000), free(1, 5, 2000, 3)]);
    survives_each(SimConfig::default(), &script, 2);
}

/// The table of large blocks starts with 128 records and is at most half full: 140 blocks grow it twice.
#[test]
fn large_blocks_and_the_growth_of_their_table() {
    let mut script = vec![many(0, 132 << 10, 140), free(0, 0, 80, 2)];
    script.extend((0..20).map(|i| Op::Realloc {
        thread: 0,
        pick: i * 3,
        size: (100 + 20 * i) << 10,
    }));
    script.extend([
        Op::Clock(600),
        many(0, 200 << 10, 20),
        free(0, 1, 400, 1),
        Op::Clock(600),
        many(0, 1, 100),
    ]);
    survives_each(sim_with(|config| config.bytes = 512 << 20), &script, 5);
}

/// Frees, reuse, and resizing of large blocks: unmap and remap fail, and their records come back.
#[test]
fn large_blocks_one_by_one() {
    let mut script = Vec::new();
    for i in 0..12 {
        script.push(many(0, (140 << 10) + (i << 17), 2));
        script.push(Op::Realloc {
            thread: 0,
            pick: i,
            size: 2 << 20,
        });
        script.push(Op::Realloc {
            thread: 1,
            pick: i + 1,
            size: 200 << 10,
        });
        script.push(free(1, i, 1, 1));
    }
    script.push(free(0, 0, 100, 1));
    script.extend([
        Op::Clock(1000),
        Op::Reclaim(0),
        many(0, 5 << 20, 2),
        free(0, 0, 2, 1),
    ]);
    survives_each(SimConfig::default(), &script, 1);
}

/// Pages of freed blocks move to later ones: mappings for them, the moves to and fro and what is cut off fail.
#[test]
fn pages_of_large_hardened_blocks_that_move() {
    let mut script = Vec::new();
    for i in 0..8 {
        script.push(many(0, (140 << 10) + (i << 16), 2));
        script.push(free(1, i, 1, 1));
    }
    script.push(free(0, 0, 100, 1));
    script.extend([
        many(0, 400 << 10, 2),
        Op::Clock(1000),
        Op::Reclaim(0),
        many(0, 2 << 20, 2),
        free(0, 0, 2, 1),
    ]);
    for options in ["hardened", "guard"] {
        survives_each(sim_with(|config| config.options = options), &script, 3);
    }
}

#[test]
fn spans_resized_binned_and_given_back() {
    let mut script = Vec::new();
    for i in 0..20 {
        script.push(many(i % 3, 33_000 + i * 5_000, 3));
        script.push(Op::Realloc {
            thread: i % 3,
            pick: i * 2,
            size: 34_000 + i * 5_000,
        });
        script.push(Op::Realloc {
            thread: 0,
            pick: i,
            size: 1 + i * 500,
        });
        script.push(Op::Calloc {
            thread: i % 3,
            size: 100_000,
        });
        script.push(free(i % 2, i, 3, 2));
    }
    script.extend([
        free(0, 0, 100, 1),
        Op::Clock(300),
        many(0, 50_000, 3),
        Op::Clock(300),
        Op::Reclaim(0),
    ]);
    survives_each(SimConfig::default(), &script, 1);
}

/// The heap swells and empties: the break moves down, pages inside are discarded.
#[test]
fn trimming_and_purging() {
    let mut script = Vec::new();
    for _ in 0..3 {
        script.extend([
            many(0, 4000, 300),
            many(1, 64, 500),
            free(0, 0, 290, 2),
            Op::Clock(300),
        ]);
        script.extend([
            many(0, 8000, 70),
            Op::Clock(300),
            free(0, 0, 700, 1),
            many(0, 100, 65),
            Op::Reclaim(0),
        ]);
    }
    survives_each(SimConfig::default(), &script, 1);
}

/// Heaps are made, abandoned, adopted. Late threads use the shared heap. A child repairs.
#[test]
fn threads_that_come_and_go() {
    let mut script = Vec::new();
    for i in 0..8 {
        script.extend([
            many(i, 40, 300),
            many(i, 3000, 8),
            many(i + 1, 20_000, 2),
            free(i + 2, i, 200, 2),
        ]);
        script.extend([
            Op::Exit(i),
            many(i, 40, 20),
            many(i, 50_000, 1),
            free(i, 3, 40, 3),
            Op::Birth(i + 1),
        ]);
    }
    script.extend([
        Op::Fork(3),
        many(3, 40, 400),
        free(3, 0, 300, 1),
        many(1, 40, 10),
    ]);
    survives_each(SimConfig::default(), &script, 1);
}

/// Where the break never moves, pages come from windows that are reserved and opened.
#[test]
fn mapped_windows() {
    let script = [
        many(0, 100, 1000),
        many(1, 20_000, 20),
        free(0, 0, 800, 1),
        Op::Clock(300),
        many(0, 2000, 300),
        Op::Clock(300),
        Op::Reclaim(1),
        free(1, 0, 2000, 1),
        Op::Clock(600),
        many(1, 1, 65),
    ];
    for config in [
        sim_with(|config| config.break_fails = true),
        sim_with(|config| config.break_bytes = 0),
    ] {
        survives_each(config, &script, 1);
    }
}

/// The break ends midway, or a foreign block lies behind every growth.
#[test]
fn breaks_that_end_and_breaks_with_holes() {
    let mut script = Vec::new();
    for i in 0..10 {
        script.extend([
            many(0, 3000, 40),
            Op::Foreign(100 + i * 700),
            many(0, 9000, 5),
            free(0, i, 30, 2),
        ]);
        script.extend([Op::ForeignBack, Op::Clock(260), many(1, 50, 70)]);
    }
    for config in [
        sim_with(|config| config.break_bytes = 256 << 10),
        sim_with(|config| config.break_offset = 0x123),
    ] {
        survives_each(config, &script, 1);
    }
}

/// Random scripts under limits: here the system fails by itself, as it would under ulimit -v and -d.
#[test]
fn little_memory() {
    let limits = [
        sim_with(|config| config.limits = address_limit(8 << 20)),
        sim_with(|config| config.limits = address_limit(5 << 20)),
        sim_with(|config| config.limits.data = 2 << 20),
        sim_with(|config| {
            config.bytes = 6 << 20;
            config.break_bytes = 2 << 20
        }),
        sim_with(|config| {
            config.bytes = 12 << 20;
            config.break_bytes = 1 << 20;
            config.page_size = 64 << 10
        }),
    ];
    for (seed, config) in limits.into_iter().enumerate() {
        let mut world = World::new(config, Memory::Scarce, 50);
        world.note = format!("{config:?}");
        for round in 0..4 {
            world.play([many(round, 60_000, 300), many(round, 100, 5_000)]);
            world.play(Random((10 * seed + round) as u64).take(500));
            world.play([free(round, 0, 4_000, 3)]);
        }
        world.check_contents();
        world.finish();
        assert!(world.refused > 0, "nothing was refused: {config:?}");
    }
}

/// Random scripts with random failures: what nobody thought of.
#[test]
fn random_failures_in_random_scripts() {
    for seed in 0..60 {
        let mut numbers = Random(seed * 1000);
        let mut world = World::new(
            sim_with(|config| config.break_fails = seed % 4 == 3),
            Memory::Scarce,
            10,
        );
        world.note = format!("seed {seed}");
        for _ in 0..8 {
            world.sim().fail_at(numbers.below(20));
            world.play(Random(numbers.word()).take(60));
            world.sim().fail_from(numbers.below(20));
            world.play(Random(numbers.word()).take(30));
            world.sim().never_fail();
            world.play(Random(numbers.word()).take(30));
        }
        recovers(&mut world);
    }
}

/// Long scripts by real threads while each call fails in turn, and all from one on.
#[test]
fn real_threads_while_the_system_fails() {
    for fails in [Fails::Once, Fails::FromThenOn] {
        for n in (0..400).step_by(4) {
            let config = sim_with(|config| config.break_fails = n % 3 == 2);
            let mut parallel = Parallel::new(config, Memory::Scarce);
            parallel.play(Random(n as u64).take(100));
            fails.command(parallel.sim(), n / 4);
            parallel.play(Random(n as u64 + 1).take(900));
            parallel.sim().never_fail();
            parallel.finish();
        }
    }
}

/// A free by a thread that can have no heap marks the slot, and cannot claim a slab whose owner has gone: what
/// gives everything back takes it up. (Found by fuzzing.)
#[test]
fn a_free_without_a_heap_into_a_slab_without_an_owner_is_not_forgotten() {
    for live in [1, 1000] {
        let mut world = World::new(SimConfig::default(), Memory::Scarce, 1);
        world.play([many(1, 131, live), Op::Birth(1)]);
        world.sim().fail_from(0);
        // The second thread takes the heap that the first one left.
        world.play([many(2, 131, 1), free(1, 0, live, 1)]);
        world.sim().never_fail();
        world.finish();
    }
}
