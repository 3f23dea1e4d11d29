//! Corners in which two features meet, or a call fails halfway: a program each, named as its test.

mod common;

use common::{compile, run, Output};

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

fn output(name: &str, options: &str) -> Output {
    let program = compile(&format!("corners/{name}.c"), &["-DPREFIXED"]);
    run(&program, &[], &[("SLABSIDE_OPTIONS", options)])
}

/// Runs the program in every mode, with the static library, and expects it to pass.
#[track_caller]
fn passes(name: &str) {
    for options in MODES {
        output(name, options).passed();
    }
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
