//! The allocator under hard circumstances: little memory, a break that others move or that cannot be moved,
//! unusual ways to start, early and late calls, libraries loaded at run time, signals.

mod common;

use common::{compile, compile_as, environment, passes, passes_under, run, run_under, Form, FORMS};
use std::path::Path;

/// Block sizes from small to large, in bytes.
const SIZES: [&str; 6] = ["16", "64", "1024", "20000", "200000", "1000000"];

#[test]
fn under_a_limit_of_address_space_nearly_all_of_it_can_be_used() {
    for size in SIZES {
        passes("limit.c", &["as", size]);
    }
}

#[test]
fn under_a_limit_of_data_nearly_all_of_it_can_be_used() {
    for size in SIZES {
        passes("limit.c", &["data", size]);
    }
}

#[test]
fn a_program_that_limits_itself_late_can_use_what_it_is_left() {
    passes("late_limit.c", &[]);
}

#[test]
fn a_limit_set_after_the_start_leaves_a_program_its_own_mappings_and_threads() {
    for how in ["", "walled"] {
        for options in ["", "hardened", "guard-sample:100"] {
            passes_under(options, "own_mappings.c", &[how]);
        }
    }
}

#[test]
fn address_space_that_is_not_used_yet_is_mapped_at_no_moment() {
    for how in ["", "walled"] {
        for options in ["", "hardened"] {
            for form in FORMS {
                let output = run_under(form, options, "peak.c", &[how]);
                assert_eq!(output.passed(), "done\n");
            }
        }
    }
}

#[test]
fn others_may_move_the_break_by_odd_sizes() {
    passes("foreign.c", &[]);
}

#[test]
fn a_mapping_behind_the_break_sends_the_heap_elsewhere() {
    for when in ["first", "later"] {
        passes("wall.c", &[when]);
    }
}

#[test]
fn an_sbrk_that_fails_at_once_or_soon_and_for_good_is_no_end() {
    for refuse in ["-DREFUSE_AFTER=0", "-DREFUSE_AFTER=1", "-DREFUSE_AFTER=5"] {
        for form in FORMS {
            let program = compile_as(form, "exercise.c", &[refuse, "-rdynamic"]);
            assert_eq!(run(&program, &[], &environment(form)).passed(), "done\n");
        }
    }
}

#[test]
fn a_program_may_be_started_by_the_dynamic_linker() {
    let linker = Path::new("/lib64/ld-linux-x86-64.so.2");
    for form in FORMS {
        let program = compile_as(form, "exercise.c", &[]);
        let program = program.to_str().expect("a path in UTF-8");
        assert_eq!(
            run(linker, &[program], &environment(form)).passed(),
            "done\n"
        );
    }
}

#[test]
fn static_programs_run_at_a_fixed_place_and_at_any() {
    for flags in [&["-static"][..], &["-static-pie"], &["-no-pie"]] {
        let program = compile_as(Form::Prefixed, "exercise.c", flags);
        assert_eq!(run(&program, &[], &[]).passed(), "done\n");
    }
}

#[test]
fn a_heap_right_behind_the_program_works_without_address_randomisation() {
    for (form, flags) in FORMS
        .into_iter()
        .flat_map(|form| [(form, &[][..]), (form, &["-no-pie"][..])])
    {
        let program = compile_as(form, "exercise.c", flags);
        let program = program.to_str().expect("a path in UTF-8");
        let output = run(
            Path::new("/usr/bin/setarch"),
            &["-R", program],
            &environment(form),
        );
        assert_eq!(output.passed(), "done\n");
    }
}

#[test]
fn blocks_live_from_before_the_constructors_until_after_the_destructors() {
    for form in FORMS {
        assert_eq!(common::run_as(form, "early.c", &[]).passed(), "done\n");
    }
    let program = compile_as(Form::Prefixed, "early.c", &["-static"]);
    assert_eq!(run(&program, &[], &[]).passed(), "done\n");
}

#[test]
fn free_keeps_errno() {
    passes("errno.c", &[]);
}

#[test]
fn libraries_that_allocate_can_be_loaded_and_unloaded() {
    let plugin = compile("plugin.c", &["-shared", "-fPIC"]);
    let program = compile("dlopen.c", &[]);
    run(
        &program,
        &[plugin.to_str().expect("a path in UTF-8")],
        &environment(Form::Preloaded),
    )
    .passed();
}

#[test]
fn a_library_that_brings_the_allocator_can_be_loaded() {
    let plugin = compile("plugin.c", &["-shared", "-fPIC", "-DPREFIXED"]);
    let plugin = plugin.to_str().expect("a path in UTF-8");
    run(&compile("dlopen.c", &[]), &[plugin, "keep"], &[]).passed();
}

#[test]
fn a_storm_of_signals_does_no_harm() {
    passes("signals.c", &[]);
}
