//! With the feature `valgrind`, memcheck understands our blocks: it tells of uses after free, of writes behind
//! a block within its slot, of undefined bytes, and of nothing in a correct program.

mod common;

use common::{compile_as, environment, example, installed, run, Form, Output};
use std::path::Path;

/// Runs the example under memcheck. Status 9 where it found something. `None`: there is no memcheck.
fn memcheck(case: &str) -> Option<Output> {
    if !installed(&["valgrind"]) {
        return None;
    }
    let program = example("memcheck", "valgrind");
    let program = program.to_str().expect("a path in UTF-8");
    let args = [
        "-q",
        "--error-exitcode=9",
        "--leak-check=full",
        program,
        case,
    ];
    Some(run(Path::new("/usr/bin/valgrind"), &args, &[]))
}

fn tells(case: &str, words: &[&str]) {
    let Some(output) = memcheck(case) else {
        return;
    };
    let told = words.iter().all(|words| output.stderr.contains(words));
    assert!(output.status == Some(9) && told, "{output:#?}");
}

#[test]
fn a_correct_program_is_told_nothing() {
    if let Some(output) = memcheck("correct") {
        output.passed();
    }
}

#[test]
fn a_read_after_free_is_told_with_its_block() {
    tells(
        "read-after-free",
        &[
            "Invalid read of size 1",
            "0 bytes inside a block of size 24 free'd",
        ],
    );
}

#[test]
fn a_write_behind_a_block_is_told_though_its_slot_goes_on() {
    tells(
        "write-behind",
        &[
            "Invalid write of size 1",
            // By the length of the program's path, Rust's start may have freed a block of the same slot: it is told then.
            "0 bytes after a ",
            "block of size 24 alloc'd",
        ],
    );
}

#[test]
fn bytes_never_written_are_undefined() {
    tells("undefined", &["depends on uninitialised value"]);
}

#[test]
fn lost_blocks_are_leaks() {
    tells("leak", &["blocks are definitely lost"]);
}

/// valgrind has an address space of its own making, where few of our questions get the system's answer.
#[test]
fn a_preloaded_heap_grows_beyond_the_break() {
    if !installed(&["valgrind"]) {
        return;
    }
    let program = compile_as(Form::Preloaded, "valgrind/grows.c", &[]);
    let program = program.to_str().expect("a path in UTF-8");
    let args = ["-q", "--tool=none", program];
    run(
        Path::new("/usr/bin/valgrind"),
        &args,
        &environment(Form::Preloaded),
    )
    .passed();
}
