//! C++'s operators new and delete, preloaded; the standard containers on slabside's own names; exceptions
//! where the C++ runtime comes late, and where there is none.

mod common;

use common::{compile, compile_as, environment, run, Form, Output};

const FLAGS: [&str; 2] = ["-std=c++17", "-Wno-unused-result"];
const LOOSE: [&str; 4] = [
    "-std=c++17",
    "-Wno-unused-result",
    "-Wno-delete-non-virtual-dtor",
    "-fsized-deallocation",
];

fn operators(part: &str) -> Output {
    let program = compile_as(Form::Preloaded, "interface/operators.cpp", &LOOSE);
    run(&program, &[part], &environment(Form::Preloaded))
}

#[test]
fn every_form_of_new_and_delete_gives_and_takes_blocks() {
    operators("forms").passed();
}

#[test]
fn the_languages_own_new_and_delete_match_in_size_and_alignment() {
    operators("language").passed();
}

#[test]
fn what_cannot_be_had_throws_bad_alloc_and_unwinds() {
    operators("throws").passed();
}

#[test]
fn the_new_handler_is_called_until_it_helps_or_throws() {
    operators("handler").passed();
}

#[test]
fn a_delete_with_another_size_is_found() {
    for (part, size) in [
        ("wrong-size", "200 (a block of 112 bytes)"),
        ("wrong-array-size", "10 (a block of 1024 bytes)"),
        ("wrong-alignment", "100 (a block of 128 bytes)"),
        ("wrong-base", "24 (a block of 112 bytes)"),
    ] {
        operators(part).died_saying(&format!("with the wrong size {size}"));
    }
    operators("twice").died_saying("double free of");
}

#[test]
fn the_standard_containers_live_on_its_allocator() {
    let program = compile("interface/containers.cpp", &FLAGS);
    run(&program, &[], &[]).passed();
}

#[test]
fn an_exception_finds_a_runtime_that_was_opened_for_one_library() {
    let flags = ["-std=c++17", "-shared", "-fPIC"];
    let library = compile("interface/thrower.cpp", &flags);
    let program = compile("interface/opens.c", &[]);
    let library = library.to_str().expect("a path in UTF-8");
    run(&program, &[library], &environment(Form::Preloaded)).passed();
}

#[test]
fn without_a_runtime_operator_new_ends_the_program() {
    let program = compile("interface/opens.c", &[]);
    let output = run(&program, &[], &environment(Form::Preloaded));
    output.died_saying("operator new: out of memory, and no C++ runtime");
}
