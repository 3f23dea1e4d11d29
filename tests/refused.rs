//! Real processes in which the system refuses: each call in turn, all calls from some point on, and bursts at
//! random. No block is lost or damaged, the books balance, and the program ends properly.
//!
//! The simulated system's counterpart is `tests/faults.rs`.

mod common;

use common::{compile, compile_as, environment, installed, run, Form};

/// The calls of the system by which memory comes and goes.
const CALLS: [&str; 7] = [
    "mmap", "munmap", "mremap", "mprotect", "madvise", "sbrk", "all",
];

/// Those that the library makes by default: mprotect(2) is for hardened mode, and for systems on which address space
/// cannot be claimed.
fn made_by_default() -> impl Iterator<Item = &'static str> {
    CALLS.into_iter().filter(|&call| call != "mprotect")
}

/// Calls of the static library come to the program, which refuses some of them: system calls by a filter, since the
/// library makes them itself, and `sbrk` by the linker.
fn wrapped(call: &str, mode: &str, most: usize) -> usize {
    let program = compile("refused/wrapped.c", &["-DPREFIXED", "-Wl,--wrap=sbrk"]);
    let said = run(&program, &[call, mode, "0", &most.to_string()], &[]).passed();
    said.trim_end().parse().expect("a number of refusals")
}

/// Every k: the program says how many of its children met a refusal, and stops when one met none.
fn each_in_turn(mode: &str) {
    const MOST: usize = 1000;
    for call in made_by_default() {
        let met = wrapped(call, mode, MOST);
        assert!(
            (1..MOST).contains(&met),
            "{call} {mode}: {met} of {MOST} met a refusal"
        );
    }
}

#[test]
fn each_call_refused_once_loses_nothing() {
    each_in_turn("once");
}

#[test]
fn all_calls_refused_from_any_one_on_lose_nothing() {
    each_in_turn("on");
}

#[test]
fn refusals_in_random_bursts_lose_nothing() {
    for call in made_by_default() {
        assert!(wrapped(call, "burst", 200) > 0, "{call}: none was refused");
    }
}

/// By the kernel itself, and under LD_PRELOAD.
#[test]
fn a_kernel_that_refuses_from_some_point_on_damages_nothing() {
    for form in common::FORMS {
        let program = compile_as(form, "refused/filtered.c", &[]);
        for call in CALLS {
            run(&program, &[call, "0", "300", "7"], &environment(form)).passed();
        }
    }
}

/// The k-th call of a process under LD_PRELOAD fails in the kernel, whatever it is for: those of the loader
/// and of libc's own too, which may end the program, but never by a signal or with a word from us.
#[test]
fn the_kth_call_of_a_preloaded_program_may_fail() {
    if !installed(&["strace"]) {
        return;
    }
    let program = compile_as(Form::Preloaded, "refused/filtered.c", &[]);
    let program = program.to_str().expect("a path in UTF-8");
    let preload = &environment(Form::Preloaded)[0];
    let strace = std::path::Path::new("/usr/bin/strace");
    let variable = format!("--env={}={}", preload.0, preload.1);
    for call in ["mmap", "munmap", "mremap", "mprotect", "madvise"] {
        // The loader itself dies by SIGSEGV of its own first mmap.
        for k in (2..62).step_by(3) {
            let fault = format!("--inject={call}:error=ENOMEM:when={k}");
            let args = [
                "-f",
                "-o",
                "/dev/null",
                &variable,
                &fault,
                program,
                "madvise",
                "0",
                "1",
                "1",
            ];
            let output = run(strace, &args, &[]);
            let proper = matches!(output.status, Some(0 | 1 | 127));
            assert!(
                proper && !output.stderr.contains("slabside:"),
                "{call} {k}: {output:#?}"
            );
        }
    }
}

/// How many system calls `calls.c` makes while it is refused a thousand times, on libc's heap or on slabside's, and how
/// many instructions the shortest of three refusals takes in the end.
fn cost_of_refusals(
    size: &str,
    limit: &str,
    preload: Option<&str>,
    options: &str,
) -> (usize, usize) {
    let program = compile_as(Form::Preloaded, "refused/calls.c", &[]);
    let program = program.to_str().expect("a path in UTF-8");
    let log = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "calls-{size}-{limit}-{}{options}",
        preload.map_or("libc", |_| "slabside")
    ));
    let variable = format!("--env=LD_PRELOAD={}", preload.unwrap_or(""));
    let log_name = log.to_str().expect("a path in UTF-8");
    // Signals are no calls.
    let args = [
        "-f",
        "-e",
        "signal=none",
        "-o",
        log_name,
        &variable,
        program,
        size,
        "1000",
        limit,
    ];
    let strace = std::path::Path::new("/usr/bin/strace");
    run(strace, &args, &[("SLABSIDE_OPTIONS", options)]).passed();
    // strace stops a program at each step: a refusal then takes a tenth of a second, and ticks by the clock fall into it.
    let environment = [
        ("SLABSIDE_OPTIONS", options),
        ("LD_PRELOAD", preload.unwrap_or("")),
    ];
    let path = std::path::Path::new(program);
    let instructions = run(path, &[size, "1000", limit], &environment).passed();
    let text = std::fs::read_to_string(&log).expect("what strace wrote");
    let (_, text) = text.split_once("\"begin\"").expect("it began");
    let (text, _) = text.split_once("\"end\"").expect("it ended");
    let instructions = instructions.trim().parse().expect("a number");
    (text.lines().count() - 2, instructions)
}

/// Each takes some thousand instructions in the kernel, ours and libc's. What a refusal takes beside does not grow with
/// the heap. In hardened mode random numbers decide between 2,400 and 3,000 (3,300 without link-time optimization).
#[test]
fn a_refused_malloc_costs_no_more_than_libcs() {
    if !installed(&["strace"]) {
        return;
    }
    let preload = &environment(Form::Preloaded)[0];
    for (size, limit) in [
        ("0x7fffffffffffffff", "0"),
        ("0x400000000000", "0"),
        ("1000000", "200000000"),
        ("100000", "200000000"),
        ("3000", "200000000"),
        ("64", "200000000"),
        // Where in the heap the limit lies decides whether metadata are asked for as well.
        ("3000", "202000000"),
        ("3000", "203000000"),
        // So it may be that pages are granted and metadata are not: at one of these, wherever the program lies.
        ("3000", "202008192"),
        ("3000", "202016384"),
        ("3000", "202024576"),
        ("3000", "202032768"),
    ] {
        let (theirs, _) = cost_of_refusals(size, limit, None, "");
        for (options, most) in [("", 3000), ("hardened", 3500)] {
            let (calls, instructions) = cost_of_refusals(size, limit, Some(preload.1), options);
            // The first one may ask more.
            let allowed = theirs + 20;
            assert!(
                calls <= allowed,
                "{size} {options}: {calls} system calls, libc's {theirs}"
            );
            assert!(
                instructions <= most,
                "{size} {options}: {instructions} instructions"
            );
        }
    }
}
