//! Corners in which two features meet, or a call fails halfway: a program each, named as its test.

mod common;

use common::{compile, run, Output};
use std::collections::HashSet;

/// Every way to run the allocator whose slow paths differ.
const MODES: [&str; 10] = [
    "",
    "hardened",
    "zero",
    "canary",
    "random",
    "guard",
    "quarantine",
    "zero,canary,quarantine:64k",
    "guard-sample:7",
    "hardened,guard-sample:7",
];

fn output(name: &str, args: &[&str], options: &str) -> Output {
    let program = compile(&format!("corners/{name}.c"), &["-DPREFIXED"]);
    run(&program, args, &[("SLABSIDE_OPTIONS", options)])
}

/// Runs the program in every mode, with the static library, and expects it to pass.
#[track_caller]
fn passes(name: &str) {
    for options in MODES {
        passes_with(name, options);
    }
}

#[track_caller]
fn passes_with(name: &str, options: &str) {
    output(name, &[], options).passed();
}

#[test]
fn heap_realloc_fails() {
    passes("heap_realloc_fails");
}

#[test]
fn sized_after_realign() {
    passes("sized_after_realign");
}

#[test]
fn align_lost() {
    passes("align_lost");
}

#[test]
fn hard_arena() {
    passes("hard_arena");
}

#[test]
fn guard_arena() {
    passes("guard_arena");
}

#[test]
fn hard_realloc() {
    passes("hard_realloc");
}

#[test]
fn sample_arena() {
    passes_with("sample_arena", "guard-sample:100");
    passes_with("sample_arena", "hardened,guard-sample:100");
}

#[test]
fn sample_fork() {
    passes_with("sample_fork", "guard-sample:2");
    passes_with("sample_fork", "hardened,guard-sample:2");
}

#[test]
fn sample_shrinks() {
    passes_with("sample_shrinks", "guard-sample:20,limit-hard:4m");
    passes_with("sample_shrinks", "hardened,guard-sample:20,limit-hard:4m");
}

#[test]
fn sample_late() {
    passes_with("sample_late", "");
    passes_with("sample_late", "hardened");
}

#[test]
fn sent_segv() {
    passes_with("sent_segv", "");
    passes_with("sent_segv", "guard-sample:50");
    passes_with("sent_segv", "hardened,guard-sample:50");
}

#[test]
fn sample_false_overflow() {
    passes("sample_false_overflow");
}

#[test]
fn orphan_live() {
    passes("orphan_live");
}

#[test]
fn budget_after_fork() {
    passes_with("budget_after_fork", "limit-hard:64m");
    passes_with("budget_after_fork", "hardened,limit-hard:64m");
}

#[test]
fn hookless() {
    passes("hookless");
}

#[test]
fn seed() {
    passes_with("seed", "random");
    passes_with("seed", "hardened");
    passes_with("seed", "random,guard-sample:50");
}

/// Of every kind: small ones, addresses, what a handle used to be, and a live one with one bit or its heap
/// exchanged.
#[test]
fn handle() {
    for number in [
        "0",
        "1",
        "0x200002",
        "0x100000",
        "0x7fffffffffff",
        "0x8000000000000000",
        "0x8000000000000001",
        "0x80000000000fffff",
        "0xffffffffffffffff",
        "close",
        "other",
    ] {
        output("handle", &[number], "").died_saying(" (destroyed, or never created)");
    }
}

/// In 40 processes the first heap has 40 handles.
#[test]
fn handles_differ() {
    let handles = (0..40).map(|_| output("handles_differ", &[], "").passed());
    assert_eq!(handles.collect::<HashSet<_>>().len(), 40);
}
