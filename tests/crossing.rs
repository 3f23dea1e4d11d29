//! Threads that replace each other's blocks at random stay near what is live. These tests have a file of their own, and
//! run one at a time: a thread that waits for a processor is a sleeper too, and what others free in its slabs waits for it.
//! Where other programs keep the processors busy, one that is over its bound is run again.

mod common;

use std::sync::Mutex;

/// Runs the program with `args` in both forms, while no other test of this file runs.
fn crosses_alone(args: &[&str]) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    common::passes_undisturbed("threads/crossing.c", args, "not so: after <= before");
}

#[test]
fn two_threads_that_replace_each_others_blocks_stay_near_what_is_live() {
    crosses_alone(&["2"]);
}

#[test]
fn eight_threads_that_replace_each_others_blocks_stay_near_what_is_live() {
    crosses_alone(&["8"]);
}

#[test]
fn threads_that_replace_a_sleepers_blocks_stay_near_what_is_live() {
    crosses_alone(&["1"]);
    crosses_alone(&["2", "sleeper"]);
    crosses_alone(&["8", "sleeper"]);
}
