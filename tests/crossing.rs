//! Threads that replace each other's blocks at random stay near what is live. These tests have a file of their own, and
//! run one at a time: a thread that waits for a processor is a sleeper too, and what others free in its slabs waits for it.

mod common;

use common::passes;
use std::sync::Mutex;

static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn two_threads_that_replace_each_others_blocks_stay_near_what_is_live() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    passes("threads/crossing.c", &["2"]);
}

#[test]
fn eight_threads_that_replace_each_others_blocks_stay_near_what_is_live() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    passes("threads/crossing.c", &["8"]);
}

#[test]
fn threads_that_replace_a_sleepers_blocks_stay_near_what_is_live() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    passes("threads/crossing.c", &["1"]);
    passes("threads/crossing.c", &["2", "sleeper"]);
}
