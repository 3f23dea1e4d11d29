//! Random operations against a plain map, in small scripts that shrink and in long seeded runs.
//!
//! Whatever a program does correctly, the allocator serves: so these tests say nothing about what is
//! done, only that it agrees with the model (tests/support). Each runs under another system, since pages,
//! windows and limits take other paths there.

mod support;

use proptest::prelude::*;
use slabside_sim::SimConfig;
use support::fuzzing::replay;
use support::parallel::Parallel;
use support::{fuzzing, sim_with, Memory, Op, Random, World};

fn script(longest: usize) -> impl Strategy<Value = Vec<Op>> {
    let op = any::<(u8, u8, u16, u32)>()
        .prop_map(|(kind, thread, pick, size)| Op::from_numbers(kind, thread, pick, size));
    prop::collection::vec(op, 1..longest)
}

fn small(config: SimConfig, script: Vec<Op>) {
    let mut world = World::new(config, Memory::Ample, 1);
    world.play(script);
    world.finish();
}

fn long(config: SimConfig, seed: u64, operations: usize) {
    let mut world = World::new(config, Memory::Ample, 500);
    world.play(Random(seed).take(operations));
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_short_script_agrees_with_the_model(script in script(120)) {
        small(SimConfig::default(), script);
    }

    #[test]
    fn any_short_script_agrees_in_a_mapped_window(script in script(120)) {
        small(sim_with(|config| config.break_fails = true), script);
    }

    #[test]
    fn any_short_script_agrees_with_large_os_pages(script in script(120)) {
        small(sim_with(|config| { config.page_size = 16 << 10; config.break_offset = 0x3123 }), script);
    }
}

#[test]
fn a_long_run_agrees_with_the_model() {
    (1..=3).for_each(|seed| long(SimConfig::default(), seed, 30_000));
}

/// The heap's base is not where the window begins, and the break stands in the middle of a page.
#[test]
fn a_long_run_agrees_behind_an_unaligned_break() {
    long(sim_with(|config| config.break_offset = 0x12345), 4, 20_000);
}

#[test]
fn a_long_run_agrees_in_a_mapped_window() {
    long(sim_with(|config| config.break_fails = true), 5, 20_000);
}

#[test]
fn a_long_run_agrees_without_any_break() {
    long(sim_with(|config| config.break_bytes = 0), 6, 20_000);
}

/// The break ends after 4 MiB: the heap goes on in a mapped window.
#[test]
fn a_long_run_agrees_where_the_break_ends_midway() {
    long(sim_with(|config| config.break_bytes = 4 << 20), 7, 30_000);
}

#[test]
fn long_runs_agree_with_16_and_64_kib_pages() {
    long(sim_with(|config| config.page_size = 16 << 10), 8, 20_000);
    long(sim_with(|config| config.page_size = 64 << 10), 9, 20_000);
    long(
        sim_with(|config| {
            config.page_size = 64 << 10;
            config.break_offset = 0x7123
        }),
        10,
        20_000,
    );
}

/// Real threads, which the model's others only stand for.
#[test]
fn real_threads_agree_with_the_model() {
    for seed in 1..=3 {
        let config = sim_with(|config| config.break_fails = seed == 3);
        let mut parallel = Parallel::new(config, Memory::Ample);
        parallel.play(Random(seed).take(30_000));
        parallel.finish();
    }
}

#[test]
fn the_kept_corpus_of_operations_agrees_with_the_model() {
    replay("operations", fuzzing::operations);
}

#[test]
fn the_kept_corpus_of_threads_agrees_with_the_model() {
    replay("threads", fuzzing::threads);
}

#[test]
fn the_kept_corpus_of_faults_loses_nothing() {
    replay("faults", fuzzing::faults);
}

/// Hardened mode, part by part, and the heap profile. The simulated system has no pages that fault, but pages keep their class.
#[test]
fn long_runs_agree_in_hardened_mode_and_under_a_heap_profile() {
    for (seed, options) in [
        (11, "hardened"),
        (12, "zero,quarantine:16k"),
        (13, "canary,random"),
        (14, "guard"),
        (15, "quarantine:1m"),
        (16, "guard-sample:20"),
        (17, "profile:2k"),
        (18, "profile:64,hardened"),
    ] {
        long(sim_with(|config| config.options = options), seed, 15_000);
    }
}

#[test]
fn the_kept_corpus_of_options_strings_is_read_or_told() {
    replay("options", fuzzing::options);
}
