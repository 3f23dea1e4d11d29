//! Hardened mode, part by part, and the programs that it must not disturb.
//!
//! Each case is a function of `tests/c/hardened/cases.c`. It runs with the static library and under `LD_PRELOAD`, with
//! the options named here.

mod common;

use common::{compile_as, environment, passes_under, run, run_under, skipped, Form, Output, FORMS};
use std::fs;
use std::path::Path;

fn run_case(form: Form, case: &str, options: &str) -> Output {
    run_under(form, options, "hardened/cases.c", &[case])
}

/// Runs a case, which must end by SIGABRT after a line that begins with `said`.
#[track_caller]
fn dies(case: &str, options: &str, said: &str) {
    for form in FORMS {
        let output = run_case(form, case, options);
        let found = output.signal == Some(libc::SIGABRT)
            && output.stderr.starts_with(&format!("slabside: {said}"));
        assert!(found, "{output:#?}");
    }
}

#[track_caller]
fn faults(case: &str, options: &str) {
    for form in FORMS {
        let output = run_case(form, case, options);
        assert_eq!(output.signal, Some(libc::SIGSEGV), "{output:#?}");
    }
}

#[track_caller]
fn holds(case: &str, options: &str) {
    for form in FORMS {
        run_case(form, case, options).passed();
    }
}

#[test]
fn sizes_that_wrap_round_with_their_canary_are_refused() {
    for options in ["canary", "canary,zero", "hardened"] {
        holds("sizes_that_wrap_are_refused", options);
    }
}

#[test]
fn an_overflow_by_a_single_byte_is_found_by_free_and_by_realloc() {
    for case in [
        "overflow_by_1",
        "overflow_by_a_zero",
        "overflow_by_8",
        "overflow_into_the_slots_tail",
        "overflow_of_a_span",
        "overflow_of_a_large_block",
        "overflow_of_an_aligned_block",
        "overflow_found_by_realloc",
    ] {
        dies(case, "hardened", "overflow of 0x");
        dies(case, "canary", "overflow of 0x");
    }
}

#[test]
fn an_overflow_in_the_room_of_a_block_that_grew_is_found() {
    for case in [
        "overflow_that_growth_takes_in",
        "overflow_of_a_block_with_room",
    ] {
        dies(case, "hardened", "overflow of 0x");
        dies(case, "canary,zero", "overflow of 0x");
    }
}

#[test]
fn a_block_that_grows_by_little_stays_where_it_is() {
    for options in ["hardened", "canary,zero", "zero,quarantine"] {
        holds("blocks_grow_where_they_are", options);
    }
}

#[test]
fn a_long_overflow_faults() {
    for case in [
        "overflow_up_to_a_fault",
        "overflow_of_a_span_up_to_a_fault",
        "overflow_of_a_large_block_up_to_a_fault",
        "underflow_of_a_large_block",
    ] {
        faults(case, "hardened");
        faults(case, "guard");
    }
}

#[test]
fn blocks_of_whole_pages_end_at_their_guard_pages() {
    for case in [
        "overflow_of_whole_pages",
        "underflow_of_whole_pages",
        "overflow_of_large_whole_pages",
        "overflow_of_aligned_whole_pages",
        "overflow_of_large_aligned_pages",
    ] {
        faults(case, "hardened");
    }
}

#[test]
fn every_span_begins_after_a_guard_page() {
    holds("spans_begin_after_guards", "hardened");
    holds("spans_begin_after_guards", "guard");
}

#[test]
fn an_overflow_past_the_canary_of_a_larger_block_is_found_by_free() {
    dies(
        "overflow_past_the_canary_of_a_span",
        "hardened",
        "overflow of 0x",
    );
    dies(
        "overflow_past_the_canary_of_a_large_block",
        "hardened",
        "overflow of 0x",
    );
}

#[test]
fn a_write_after_free_is_found_when_the_slot_is_handed_out_again() {
    for case in [
        "write_after_free",
        "write_after_free_of_8_bytes",
        "write_after_free_of_8000_bytes",
        "write_after_free_of_a_span",
        "write_after_free_on_an_idle_page",
    ] {
        dies(case, "hardened,quarantine:64k", "write after free to 0x");
        dies(case, "zero", "write after free to 0x");
    }
}

/// What stays are the fences' page tables, the sizes of blocks and the tables that say where they were.
#[test]
fn malloc_trim_gives_back_all_that_is_kept() {
    for (options, [size, kept, most]) in [
        ("hardened", ["1000", "0", "6000"]),
        ("hardened", ["20000", "0", "6000"]),
        ("zero", ["1000", "0", "6000"]),
        ("zero", ["1000000", "0", "6000"]),
    ] {
        passes_under(options, "trim.c", &[size, kept, most]);
    }
}

#[test]
fn a_freed_large_block_cannot_be_touched() {
    faults("write_after_free_of_a_large_block", "hardened");
    faults("read_after_free_of_a_large_block", "guard");
}

/// A kernel without guards (before Linux 6.13) moves none, which the program knows of.
#[test]
fn pages_of_freed_large_blocks_serve_later_ones_and_bring_nothing_along() {
    for (case, more) in [
        ("they_serve_later_blocks", ""),
        ("what_was_not_used_stays_so", ""),
        ("little_is_not_kept", ""),
        ("none_come_of_a_block_that_something_was_set_for", ""),
        ("guards_of_the_programs_own_do_not_come", ""),
        ("locked_memory_stays_and_counts", ""),
        ("huge_pages_stay", ",huge-pages:on"),
        ("no_byte_comes_along", ""),
        ("they_count", ""),
        ("what_a_thread_freed_goes_when_it_ends", ""),
        ("an_idle_process_gives_them_back", ",background:on,decay:10"),
        ("a_limit_suffices", ""),
        ("they_count_for_a_limit", ",limit-hard:40m"),
        ("nothing_is_lost_at_a_limit", ""),
        ("forks_are_survived", ""),
        ("what_a_child_has_too_stays", ""),
        ("no_file_is_read_for_them", ""),
        ("an_end_far_away_is_found", ""),
    ] {
        for options in ["hardened", "guard"] {
            passes_under(&format!("{options}{more}"), "hardened/pages.c", &[case]);
        }
    }
}

#[test]
fn a_double_free_is_found_at_once_wherever_the_block_is() {
    for options in ["hardened", "quarantine", "guard"] {
        for case in [
            "double_free",
            "double_free_in_quarantine",
            "double_free_of_a_span",
        ] {
            if options != "guard" || case == "double_free" {
                dies(case, options, "double free of 0x");
            }
        }
    }
    dies(
        "double_free_of_a_large_block",
        "hardened",
        "double free of 0x",
    );
    dies("double_free_of_nothing", "hardened", "invalid free of 0x");
    dies("invalid_free", "hardened", "invalid free of 0x");
    dies(
        "realloc_after_free",
        "hardened",
        "after free: realloc of 0x",
    );
    dies(
        "size_after_free",
        "hardened",
        "after free: usable size of 0x",
    );
}

#[test]
fn of_two_threads_that_free_a_block_at_once_one_ends_the_program_in_each_round() {
    for _ in 0..25 {
        dies("racing_double_free", "hardened", "double free of 0x");
    }
}

#[test]
fn a_block_of_no_bytes_cannot_be_touched() {
    faults("write_to_nothing", "hardened");
    faults("read_of_nothing", "guard");
}

#[test]
fn the_report_tells_thread_slot_state_neighbour_and_stack() {
    let output = run_case(Form::Preloaded, "invalid_free", "hardened");
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert!(lines[1].starts_with("  in thread "), "{output:#?}");
    for part in [
        "; a live block of 40 bytes, slot ",
        " of a 48-byte slab",
        "; the next slot begins 32 bytes on",
    ] {
        assert!(lines[1].contains(part), "{part}: {output:#?}");
    }
    assert!(
        lines.len() > 4 && lines[2].starts_with("    at 0x"),
        "{output:#?}"
    );
    assert!(!output.stderr.contains("slabside_preload"), "{output:#?}");
    let program = compile_as(Form::Preloaded, "hardened/cases.c", &[]);
    let named = format!("{}+0x", program.display());
    assert!(lines[2].contains(&named), "{output:#?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_stack_leads_back_to_one_that_lies_below() {
    let output = run_case(Form::Preloaded, "double_free_on_a_stack_above", "hardened");
    let last = output.stderr.lines().last().expect("lines");
    assert!(last.contains("libc.so"), "{output:#?}"); // Where a thread begins.
}

/// Loading one takes 200 KB and a sixth of a millisecond in each process.
#[test]
fn no_unwinder_is_loaded_for_the_stacks_of_reports() {
    for options in ["hardened", "guard-sample:1000"] {
        let variables = [
            environment(Form::Preloaded),
            vec![("SLABSIDE_OPTIONS", options)],
        ];
        let cat = Path::new("/bin/cat");
        let mapped = run(cat, &["/proc/self/maps"], &variables.concat()).passed();
        assert!(mapped.contains("slabside_preload"), "{mapped}");
        assert!(!mapped.contains("libgcc"), "{mapped}");
    }
}

#[test]
fn the_report_tells_how_long_ago_a_block_was_freed() {
    for (case, options) in [
        ("double_free", "hardened"),
        ("double_free_of_a_span", "hardened"),
        ("double_free_of_a_large_block", "hardened"),
        ("realloc_after_free", "quarantine"),
        ("sampled_double_free", "guard-sample:50"),
        ("sampled_use_after_free", "guard-sample:50"),
    ] {
        let output = run_case(Form::Preloaded, case, options);
        let told = output.stderr.contains("; freed ") && output.stderr.contains(" ago");
        assert!(told, "{case}: {output:#?}");
    }
    let output = run_case(Form::Preloaded, "double_free_after_a_while", "hardened");
    assert!(output.stderr.contains(" seconds ago"), "{output:#?}");
}

#[test]
fn sizes_are_exact() {
    passes_under("hardened", "interface/sized.c", &[]);
    for options in ["hardened", "canary", "zero,quarantine"] {
        holds("sizes_are_exact", options);
    }
}

#[test]
fn freed_blocks_are_cleared_and_wait() {
    holds("freed_blocks_are_cleared", "hardened");
    holds("freed_blocks_are_cleared", "zero");
    holds("reuse_waits_for_the_quarantine", "quarantine:64k");
    holds("reuse_waits_for_the_ring", "hardened,quarantine:64k");
    for options in ["quarantine:64k", "zero,quarantine:64k"] {
        holds("large_blocks_leave_the_quarantine_alone", options);
    }
    passes_under("quarantine:64m", "hardened/figures.c", &[]);
}

#[test]
fn slots_are_chosen_at_random_and_pages_keep_their_class() {
    holds("some_order", "random");
    holds("some_order", "hardened");
    holds("pages_keep_their_class", "guard");
    holds("pages_keep_their_class", "hardened");
}

/// The aim is 15 % at every size; the rest is chance.
#[test]
fn no_distance_between_two_allocations_is_frequent_at_any_size() {
    for heap in ["fresh", "full"] {
        for size in [
            "16", "100", "1000", "1500", "4000", "7000", "8192", "20000", "40000", "100000",
            "131072", "300000", "1048576",
        ] {
            run_under(
                Form::Preloaded,
                "hardened",
                "hardened/spread.c",
                &[heap, size, "18"],
            )
            .passed();
        }
    }
}

#[test]
fn it_is_uncertain_when_a_freed_span_is_used_again() {
    for size in ["20000", "40000", "100000"] {
        run_under(
            Form::Preloaded,
            "hardened",
            "hardened/spread.c",
            &["reuse", size, "3"],
        )
        .passed();
    }
}

/// Kibibytes that 40 MB in use may take at their peak: below what a control group of 64 MB leaves a program. In slots of
/// 80 bytes they are 50 MB.
#[test]
fn forty_megabytes_in_use_fit_into_sixty_four_whatever_their_sizes_become() {
    for arguments in [
        ["phases", "4000", "64000"],
        ["again", "4000", "62000"],
        ["mixed", "4000", "52000"],
        ["mixed", "9000", "56000"],
    ] {
        for form in FORMS {
            run_limits(form, &arguments);
        }
    }
}

#[test]
fn a_limit_of_address_space_suffices_for_all_sizes_that_memory_has_in_turn() {
    for arguments in [
        ["phases", "100000", "68000", "144"],
        ["again", "100000", "66000", "144"],
    ] {
        for form in FORMS {
            run_limits(form, &arguments);
        }
    }
    for form in FORMS {
        let case = "pages_serve_another_class_under_a_limit";
        run_case(form, case, "hardened").passed();
        run_case(form, case, "guard,zero").passed();
        run_case_on_an_older_kernel(form, case).passed();
    }
}

#[test]
fn guards_before_aligned_blocks_serve_others_under_a_limit() {
    for options in ["hardened", "guard"] {
        holds(
            "guards_before_aligned_blocks_serve_others_under_a_limit",
            options,
        );
    }
}

#[test]
fn locked_pages_serve_another_class_under_a_limit() {
    for form in FORMS {
        let case = "locked_pages_serve_another_class_under_a_limit";
        if run_case(form, case, "hardened").passed() == "skipped\n" {
            skipped("no memory can be locked here");
        }
    }
}

#[test]
fn two_threads_that_are_refused_at_once_both_get_what_was_given_up() {
    holds("threads_share_what_was_given_up_under_a_limit", "hardened");
}

#[test]
fn a_free_by_a_thread_that_gets_no_heap_under_a_limit_counts() {
    let case = "double_free_by_a_late_thread_without_memory";
    dies(case, "hardened", "double free of 0x");
}

/// The group's directory goes with this.
struct MemoryGroup(String);

impl MemoryGroup {
    /// A memory control group of so many bytes, of version 2 or 1. `None` where none can be made.
    fn of(bytes: usize) -> Option<MemoryGroup> {
        let name = format!("slabside-hardened-{}", std::process::id());
        for (place, limit) in [
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ] {
            let group = MemoryGroup(format!("{place}/{name}"));
            let limit = format!("{}/{limit}", group.0);
            // In another file system than the groups' the limit would be a file like any other.
            if fs::create_dir(&group.0).is_ok()
                && fs::metadata(&limit).is_ok()
                && fs::write(&limit, bytes.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0); // what is left says so by its name
    }
}

/// The kernel would kill them.
#[test]
fn forty_megabytes_in_use_live_in_a_control_group_of_sixty_four() {
    let Some(group) = MemoryGroup::of(64 << 20) else {
        return skipped("no memory control group can be made here");
    };
    for form in FORMS {
        let program = compile_as(form, "hardened/limits.c", &[]);
        let program = program.to_str().expect("a path in UTF-8");
        for how in ["phases", "again"] {
            let join = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
            let arguments = ["-c", join, &group.0, program, how, "4000", "64000"];
            let options = vec![("SLABSIDE_OPTIONS", "hardened")];
            let variables = [environment(form), options].concat();
            run(Path::new("/bin/sh"), &arguments, &variables).passed();
        }
    }
}

#[track_caller]
fn run_limits(form: Form, arguments: &[&str]) {
    run_under(form, "hardened", "hardened/limits.c", arguments).passed();
}

#[test]
fn threads_exits_and_forks_are_survived_by_each_part() {
    for options in [
        "hardened",
        "zero",
        "zero,quarantine",
        "zero,canary,guard",
        "zero,random",
    ] {
        holds("threads_and_forks", options);
    }
}

#[test]
fn a_million_guarded_blocks_live() {
    holds("a_million_blocks_live", "hardened");
    holds("more_spans_live_than_mappings_may", "hardened");
}

/// Takes half a gigabyte: by hand.
#[test]
#[ignore = "takes half a gigabyte of memory"]
fn ten_million_guarded_blocks_live() {
    holds("ten_million_blocks_live", "hardened");
    for form in FORMS {
        run_case_on_an_older_kernel(form, "ten_million_blocks_live").passed();
    }
}

/// As `run_case` in hardened mode, on a kernel without MADV_GUARD_INSTALL.
fn run_case_on_an_older_kernel(form: Form, case: &str) -> Output {
    run_under(form, "hardened", "hardened/cases.c", &[case, "old-kernel"])
}

#[test]
fn where_the_kernel_has_no_guards_pages_are_protected_up_to_half_of_the_mappings() {
    for form in FORMS {
        for case in [
            "overflow_up_to_a_fault",
            "overflow_of_a_span_up_to_a_fault",
            "overflow_of_a_large_block_up_to_a_fault",
            "underflow_of_a_large_block",
            "read_after_free_of_a_large_block",
        ] {
            let output = run_case_on_an_older_kernel(form, case);
            assert_eq!(output.signal, Some(libc::SIGSEGV), "{case}: {output:#?}");
        }
        for case in [
            "threads_and_forks",
            "pages_keep_their_class",
            "a_million_blocks_live",
            "more_spans_live_than_mappings_may",
        ] {
            run_case_on_an_older_kernel(form, case).passed();
        }
    }
}

#[test]
fn a_sampled_block_faults_and_tells_where_it_came_from() {
    for (case, said) in [
        ("sampled_overflow", "overflow: access of 0x"),
        ("sampled_use_after_free", "use after free: access of 0x"),
    ] {
        for form in FORMS {
            let output = run_case(form, case, "guard-sample:50");
            assert_eq!(output.signal, Some(libc::SIGSEGV), "{output:#?}");
            assert!(
                output.stderr.starts_with(&format!("slabside: {said}")),
                "{output:#?}"
            );
            assert!(
                output.stderr.contains("\n  allocated\n    at 0x"),
                "{output:#?}"
            );
        }
    }
    let small = "sampled_use_after_free_on_a_small_stack";
    let output = run_case(Form::Preloaded, small, "guard-sample:50");
    let second = output.stderr.lines().nth(1).expect("lines");
    assert!(second.starts_with("    at 0x"), "{output:#?}");
    let output = run_case(Form::Preloaded, "sampled_double_free", "guard-sample:50");
    assert!(
        output.stderr.starts_with("slabside: double free of 0x"),
        "{output:#?}"
    );
    assert!(
        output.stderr.contains("\n  freed\n    at 0x"),
        "{output:#?}"
    );
}

#[test]
fn one_in_so_many_is_sampled() {
    holds("samples_are_as_many_as_asked_for", "guard-sample:100");
    holds("samples_ask_nothing_about_the_stack", "guard-sample:50");
    holds("samples_are_as_many_of_each_size", "guard-sample:1000");
    holds(
        "samples_are_as_many_of_each_size",
        "hardened,guard-sample:1000",
    );
}

/// The suite's own programs, but for those that check what hardened mode does not promise: that freed
/// memory comes back soon, that realloc stays where it is, that the heap's end goes back.
#[test]
fn the_other_programs_of_the_suite_pass_under_it() {
    for (file, args) in [
        ("alignment.c", &[][..]),
        ("calloc.c", &[]),
        ("correct.c", &[]),
        ("early.c", &[]),
        ("errno.c", &[]),
        ("exercise.c", &[]),
        ("foreign.c", &[]),
        ("signals.c", &[]),
        ("toolarge.c", &[]),
        ("zero.c", &[]),
        ("fork/first.c", &["50"]),
        ("fork/stdio.c", &["50"]),
        ("fork/nested.c", &["3"]),
        ("fork/processes.c", &["20"]),
        ("fork/handlers.c", &["50"]),
        ("fork/storm.c", &["20"]),
        ("threads/exchange.c", &["4", "50000"]),
        ("threads/short_lived.c", &["1000"]),
        ("threads/after_exit.c", &["200"]),
        ("threads/destructors.c", &["200"]),
        ("threads/sleeping_owner.c", &["others"]),
        ("threads/resize.c", &["4", "10000"]),
        ("threads/detached.c", &["200"]),
    ] {
        let variables = [("SLABSIDE_OPTIONS", "hardened")];
        let output = run(&compile_as(Form::Prefixed, file, &[]), args, &variables);
        assert!(output.status == Some(0), "{output:#?}");
    }
}

#[test]
fn real_programs_run_under_it() {
    let preload = common::artifacts().preload.to_string_lossy().into_owned();
    for (program, script) in [
        ("ls", "ls -lR /usr/include | grep -c '[.]h$'"),
        (
            "python3",
            "python3 -c 'import json, threading; print(len(json.dumps(list(range(100000)))))'",
        ),
        (
            "perl",
            "perl -e 'my %h; $h{$_ % 1000} .= chr(65 + $_ % 26) for 1 .. 200000; print length(join(\"\", values %h)), \"\\n\"'",
        ),
        (
            "gcc",
            "printf 'int main(void) { return 0; }' | gcc -O2 -x c -c -o /dev/null - && echo compiled",
        ),
        (
            "sort",
            "seq 200000 | sort -n -r | head -n 3 | tr '\\n' ' '",
        ),
    ] {
        if !common::installed(&[program]) {
            continue;
        }
        let shell = std::path::Path::new("/bin/sh");
        let plain = run(shell, &["-c", script], &[]);
        let variables = [("LD_PRELOAD", &*preload), ("SLABSIDE_OPTIONS", "hardened")];
        let hardened = run(shell, &["-c", script], &variables);
        assert_eq!(plain.stdout, hardened.stdout, "{script}: {hardened:#?}");
        assert!(hardened.stderr.is_empty() && !plain.stdout.is_empty(), "{hardened:#?}");
    }
}

/// First-class heaps are hardened like the rest.
#[test]
fn first_class_heaps_have_every_mitigation() {
    let program = compile_as(Form::Prefixed, "hardened/heaps.c", &[]);
    let run_heap = |case: &str| run(&program, &[case], &[("SLABSIDE_OPTIONS", "hardened")]);
    for (case, said) in [
        ("overflow_of_a_slot", "overflow of 0x"),
        ("overflow_of_a_span", "overflow of 0x"),
        ("overflow_of_a_large_block", "overflow of 0x"),
        ("overflow_found_by_the_end", "overflow of 0x"),
        ("write_after_free", "write after free to 0x"),
        ("double_free_in_quarantine", "double free of 0x"),
    ] {
        let output = run_heap(case);
        let told = output.stderr.starts_with(&format!("slabside: {said}"));
        assert!(output.signal == Some(libc::SIGABRT) && told, "{output:#?}");
    }
    for case in [
        "overflow_up_to_a_fault",
        "overflow_of_whole_pages",
        "underflow_of_whole_pages",
        "touch_after_free_of_a_large_block",
    ] {
        let output = run_heap(case);
        assert_eq!(output.signal, Some(libc::SIGSEGV), "{output:#?}");
    }
    run_heap("promises").passed();
}

// ---- where things lie ---------------------------------------------------------------------------

/// What `places.c` prints the addresses of.
const THINGS: [&str; 5] = [
    "the program",
    "a library",
    "a small block",
    "a large block",
    "the metadata",
];
const METADATA: usize = 4;
/// Processes that are asked.
const PROCESSES: usize = 100;
/// How many of them may have one distance in common.
const ALIKE: usize = 5;

/// Where things lie in each of many processes.
fn places(form: Form, how: &str, options: &str) -> Vec<Vec<usize>> {
    let program = compile_as(form, "places.c", &[]);
    let environment = [environment(form), vec![("SLABSIDE_OPTIONS", options)]].concat();
    let places = || {
        let said = run(&program, &[how], &environment).passed();
        let addresses = said.split_whitespace().map(|word| word.parse());
        addresses.collect::<Result<_, _>>().expect("addresses")
    };
    std::iter::repeat_with(places).take(PROCESSES).collect()
}

/// The distance between the things numbered `one` and `other` is not the same in many processes.
#[track_caller]
fn varies(places: &[Vec<usize>], one: usize, other: usize, what: &str) {
    let mut counts = std::collections::HashMap::new();
    for place in places {
        *counts
            .entry(place[one].wrapping_sub(place[other]))
            .or_insert(0) += 1;
    }
    let most = counts.into_values().max().unwrap_or(0);
    assert!(
        most <= ALIKE,
        "{what}: from {} to {} it is the same way in {most} processes",
        THINGS[one],
        THINGS[other],
    );
}

#[test]
fn by_default_nothing_lies_at_a_fixed_distance_from_the_metadata() {
    for form in FORMS {
        for how in ["", "walled"] {
            let places = places(form, how, "");
            (0..METADATA).for_each(|other| varies(&places, METADATA, other, how));
        }
    }
}

#[test]
fn hardened_no_two_of_program_library_blocks_and_metadata_lie_at_a_fixed_distance() {
    let setting = std::fs::read_to_string("/proc/sys/kernel/randomize_va_space");
    let setting = setting.expect("/proc");
    assert_eq!(setting.trim(), "2", "kernel.randomize_va_space");
    for form in FORMS {
        for how in ["", "walled"] {
            let places = places(form, how, "hardened");
            for one in 0..THINGS.len() {
                (0..one).for_each(|other| varies(&places, one, other, how));
            }
        }
    }
}
