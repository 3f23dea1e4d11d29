//! C++'s operators new and delete, preloaded. The standard containers on slabside's own names. Exceptions where the C++
//! runtime comes late, and where there is none.

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
    operators_under("", part)
}

fn operators_under(options: &str, part: &str) -> Output {
    let program = compile_as(Form::Preloaded, "interface/operators.cpp", &LOOSE);
    let mut variables = environment(Form::Preloaded);
    variables.push(("SLABSIDE_OPTIONS", options));
    run(&program, &[part], &variables)
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

/// The deletes of `operators.cpp` that say another size, and what is told of each where sizes are checked.
const OTHER_SIZES: [(&str, &str); 4] = [
    ("wrong-size", "200 (a block of 112 bytes)"),
    ("wrong-array-size", "10 (a block of 1024 bytes)"),
    ("wrong-alignment", "100 (a block of 128 bytes)"),
    ("wrong-base", "24 (a block of 112 bytes)"),
];

#[test]
fn a_delete_with_another_size_is_found_where_sizes_are_checked() {
    for (part, size) in OTHER_SIZES {
        let words = format!("with the wrong size {size}; sizes:ignore lets it pass");
        operators_under("sizes:check", part).died_saying(&words);
    }
    // A hardened report has more lines.
    for (part, _) in OTHER_SIZES {
        let output = operators_under("hardened", part);
        let said = output.stderr.contains("with the wrong size");
        assert!(output.signal == Some(libc::SIGABRT) && said, "{output:#?}");
    }
}

#[test]
fn a_delete_with_another_size_frees_the_block_by_default_and_where_sizes_are_ignored() {
    for (part, _) in OTHER_SIZES {
        operators(part).passed();
        operators_under("sizes:ignore", part).passed();
        operators_under("hardened,sizes:ignore", part).passed();
    }
}

#[test]
fn a_delete_of_a_free_block_is_found_whatever_becomes_of_sizes() {
    for options in ["", "sizes:check", "sizes:ignore"] {
        operators_under(options, "twice").died_saying("double free of");
    }
}

#[test]
fn old_code_that_deletes_as_another_type_runs_to_its_end() {
    let program = compile("interface/loose.cpp", &LOOSE);
    for options in ["", "sizes:ignore", "hardened,sizes:ignore"] {
        let mut variables = environment(Form::Preloaded);
        variables.push(("SLABSIDE_OPTIONS", options));
        assert_eq!(run(&program, &[], &variables).passed(), "ok\n", "{options}");
    }
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
