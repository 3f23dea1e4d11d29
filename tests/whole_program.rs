//! With the feature `override` a Rust program's C libraries use its heap too. It brings options with it, and gives
//! memory back when it is asked.

mod common;

use common::run;

#[test]
fn a_rust_programs_c_libraries_use_its_heap_under_the_options_that_it_brings() {
    let program = common::example("whole_program", "override");
    let said = run(&program, &[], &[]).passed();
    assert!(said.ends_with("memory went back: true\n"), "{said}");
    // The environment has the last word.
    let said = run(&program, &[], &[("SLABSIDE_OPTIONS", "limit-hard:0")]);
    assert!(said.stderr.contains("assertion failed"), "{said:#?}");
}

/// With link-time optimization the program's options and the library that reads them are one piece.
#[test]
fn a_program_with_options_of_its_own_is_built_with_link_time_optimization() {
    let program = common::example_in_one_piece("whole_program", "override");
    let said = run(&program, &[], &[]).passed();
    assert!(said.contains("no more than 64 MB can be had"), "{said}");
}
