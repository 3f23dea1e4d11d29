//! A program that replaces some of the functions, as the C++ standard (\[new.delete\]) and glibc's manual ("Replacing
//! malloc") allow, gets what it would get without slabside: the others end in its own.

mod common;

use common::{compile, environment, run, Form};

/// Runs `operators.cpp` with the basic operators that `defines` say, and expects all other forms to end in them.
#[track_caller]
fn forms_end_in_the_programs_own(defines: &[&str]) {
    let flags = [&["-std=c++17", "-Wno-mismatched-new-delete"], defines].concat();
    let program = compile("partial/operators.cpp", &flags);
    for hardened in [false, true] {
        let mut variables = environment(Form::Preloaded);
        if hardened {
            variables.push(("SLABSIDE_OPTIONS", "hardened"));
        }
        assert_eq!(run(&program, &[], &variables).passed(), "ok\n");
    }
}

#[test]
fn all_forms_end_in_a_new_and_a_delete_of_the_programs_own() {
    forms_end_in_the_programs_own(&[]);
}

#[test]
fn forms_of_arrays_end_in_those_of_arrays_where_the_program_has_them() {
    forms_end_in_the_programs_own(&["-DARRAYS"]);
}

#[test]
fn aligned_forms_end_in_aligned_ones_where_the_program_has_them() {
    forms_end_in_the_programs_own(&["-DALIGNED"]);
}

#[test]
fn a_new_and_delete_that_count_and_keep_a_header_see_every_block() {
    forms_end_in_the_programs_own(&["-DCOUNTED"]);
    forms_end_in_the_programs_own(&["-DCOUNTED", "-DARRAYS", "-DALIGNED"]);
}

#[test]
fn reallocarray_and_sized_frees_end_in_functions_of_the_programs_own() {
    let program = compile("partial/functions.c", &[]);
    assert_eq!(
        run(&program, &[], &environment(Form::Preloaded)).passed(),
        "ok\n"
    );
}
