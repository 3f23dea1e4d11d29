//! With the feature `override` a Rust program's C libraries use its heap too; it brings options with it, and gives memory
//! back when it is asked.

mod common;

use common::run;
use std::path::Path;
use std::process::Command;

#[test]
fn a_rust_programs_c_libraries_use_its_heap_under_the_options_that_it_brings() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("override");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--example",
            "whole_program",
            "--features",
            "override",
        ])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.expect("cargo starts").success());
    let program = target.join("debug/examples/whole_program");
    let said = run(&program, &[], &[]).passed();
    assert!(said.ends_with("memory went back: true\n"), "{said}");
    // The environment has the last word.
    let said = run(&program, &[], &[("SLABSIDE_OPTIONS", "limit-hard:0")]);
    assert!(said.stderr.contains("assertion failed"), "{said:#?}");
}
