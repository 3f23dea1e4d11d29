//! A good citizen: what a process does beside allocating, or is allowed to do, harms neither it nor the heap.
//!
//! Each test shows one line of docs/compatibility.md. Forks, threads and limits have more in `fork.rs`, `threads.rs`
//! and `limits.rs`.

mod common;

use common::{
    artifacts, command, compile, compile_as, dumped, environment, holds, installed, skipped,
};
use common::{passes, passes_alone, passes_under, run, run_as, run_under, Form, FORMS};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_child_of_any_kind_of_fork_frees_allocates_and_ends() {
    passes("fork/ways.c", &["15"]);
}

#[test]
fn ten_thousand_threads_in_turns_and_at_once() {
    passes("citizen/ten_thousand.c", &["turns"]);
    passes("citizen/ten_thousand.c", &["once"]);
}

#[test]
fn threads_that_only_free_give_all_of_it_back() {
    passes("citizen/only_free.c", &[]);
}

#[test]
fn a_thread_whose_first_allocation_is_in_the_last_round_of_destructors_leaves_no_heap_behind() {
    passes("citizen/last_round.c", &["5000"]);
}

#[test]
fn threads_made_by_clone_that_run_no_destructors_leave_no_heap_behind() {
    passes_saying("citizen/raw.c", &["1000"], &[]);
}

#[test]
fn a_plugin_that_brings_the_allocator_can_be_closed_before_its_threads_end() {
    let plugin = compile("plugin.c", &["-shared", "-fPIC", "-DPREFIXED"]);
    let program = compile("citizen/unloaded.c", &[]);
    let plugin = plugin.to_str().expect("a path in UTF-8");
    assert_eq!(run(&program, &[plugin], &[]).passed(), "done\n");
}

#[test]
fn the_heap_of_late_threads_outlives_the_first_of_them() {
    for options in ["", "hardened"] {
        passes_under(options, "citizen/shared.c", &[]);
    }
}

#[test]
fn the_preload_library_can_be_opened_late_and_never_goes() {
    let program = compile("citizen/late.c", &[]);
    let library = artifacts().preload.to_str().expect("a path in UTF-8");
    for flags in ["plain", "deepbind"] {
        run(&program, &[library, flags], &[]).passed();
    }
}

#[test]
fn static_thread_local_storage_fits_what_a_late_library_finds_by_default() {
    let library = fs::read(&artifacts().preload).expect("the library can be read");
    assert!(thread_local_bytes(&library) <= 1229, "1.2 KiB");
    assert!(thread_local_bytes(&library) > 0);
}

/// `p_memsz` of the segment `PT_TLS` of a 64-bit little-endian object (elf(5)).
fn thread_local_bytes(object: &[u8]) -> u64 {
    let word = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().expect("8 bytes"));
    let half = |at: usize| u16::from_le_bytes(object[at..at + 2].try_into().expect("2 bytes"));
    let (table, size, count) = (word(32) as usize, half(54) as usize, half(56) as usize);
    let segments = (0..count).map(|index| table + index * size);
    let is_tls = |at: &usize| object[*at..*at + 4] == 7u32.to_le_bytes();
    segments.filter(is_tls).map(|at| word(at + 40)).sum()
}

/// Runs `c_file` in both forms, with `options` of the allocator, and expects "done". A program that says "skipped"
/// could not be what it tests on this machine.
#[track_caller]
fn passes_saying(c_file: &str, args: &[&str], environment_of: &[(&str, &str)]) {
    for form in FORMS {
        let program = compile_as(form, c_file, &[]);
        let environment = [&environment(form), environment_of].concat();
        match run(&program, args, &environment).passed().as_str() {
            "done\n" => {}
            "skipped\n" => skipped(&format!("{c_file} is not possible on this machine")),
            said => panic!("{c_file} said {said:?}"),
        }
    }
}

/// Where a function of the allocator lies in `object`, and how long it is.
struct Function {
    start: u64,
    length: u64,
    name: String,
}

fn functions(object: &Path) -> Vec<Function> {
    let listed = command("nm")
        .args(["-S", "--defined-only"])
        .arg(object)
        .output()
        .expect("nm starts");
    let text = String::from_utf8(listed.stdout).expect("names in UTF-8");
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let function = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [start, length, "t" | "T", name] => Some(Function {
            start: hex(start)?,
            length: hex(length)?,
            name: name.to_owned(),
        }),
        _ => None,
    };
    text.lines().filter_map(function).collect()
}

/// Functions that have the instructions of a fast path among their own, beside malloc and free.
const FAST: [&str; 7] = [
    "malloc_upper",
    "take_cached",
    "malloc_class",
    "free_found",
    "free_own",
    "realloc_by_copy",
    "move_to",
];

/// Where the fast paths lie that `program` has in `form`, as its arguments: the lengths of malloc and of free, then
/// where each other function begins, counted from malloc, and its length. `None`: no nm is installed.
fn fast_paths(form: Form, program: &Path) -> Option<Vec<String>> {
    if !installed(&["nm"]) {
        return None;
    }
    let (object, prefix) = match form {
        Form::Prefixed => (program, "slabside_"),
        Form::Preloaded => (artifacts().preload.as_path(), ""),
    };
    let functions = functions(object);
    let of = |name: &str| {
        let name = format!("{prefix}{name}");
        let found = functions.iter().find(|function| function.name == name);
        found.unwrap_or_else(|| panic!("no function {name}"))
    };
    let mut args = vec![
        of("malloc").length.to_string(),
        of("free").length.to_string(),
    ];
    let mut skipped = of("malloc").length + of("free").length;
    let is_fast = |function: &&Function| {
        let is = |part: &&str| function.name.contains(*part);
        FAST.iter().any(is)
            || [of("realloc"), of("calloc")]
                .iter()
                .any(|other| other.start == function.start)
    };
    let mut fast: Vec<&Function> = functions.iter().filter(is_fast).collect();
    // A function may have several names.
    fast.sort_by_key(|function| function.start);
    fast.dedup_by_key(|function| function.start);
    for function in fast {
        skipped += function.length;
        args.push(function.start.wrapping_sub(of("malloc").start).to_string());
        args.push(function.length.to_string());
    }
    let all: u64 = functions
        .iter()
        .filter(|function| function.name.contains("slabside"))
        .map(|function| function.length)
        .sum();
    assert!(
        skipped < 4096 && skipped * 8 < all,
        "{skipped} bytes of {all} are left out"
    );
    Some(args)
}

#[test]
fn a_handler_may_allocate_between_any_two_instructions_outside_the_fast_paths() {
    for form in FORMS {
        let program = compile_as(form, "citizen/stepped.c", &[]);
        let Some(args) = fast_paths(form, &program) else {
            return;
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(run(&program, &args, &environment(form)).passed(), "done\n");
    }
}

/// What a handler left is mended by the next one in the middle of another malloc.
#[test]
fn a_path_that_was_left_is_mended_between_any_two_instructions_of_the_next() {
    for form in FORMS {
        let program = compile_as(form, "citizen/left_again.c", &["-pthread"]);
        if !installed(&["nm"]) {
            return;
        }
        let (object, malloc) = match form {
            Form::Prefixed => (program.as_path(), "slabside_malloc"),
            Form::Preloaded => (artifacts().preload.as_path(), "malloc"),
        };
        let functions = functions(object);
        let found = |is: &dyn Fn(&str) -> bool| {
            let found = functions.iter().find(|function| is(&function.name));
            found.expect("a function of that name")
        };
        let (malloc, slow) = (
            found(&|name| name == malloc),
            found(&|name| name.contains("malloc_slow")),
        );
        let args = [slow.start.wrapping_sub(malloc.start), slow.length].map(|n| n.to_string());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(run(&program, &args, &environment(form)).passed(), "done\n");
    }
}

/// By the static library, whose functions the program calls by name.
#[test]
fn a_handler_in_a_slow_path_loses_no_span_and_waits_for_nobody() {
    let program = compile_as(Form::Prefixed, "citizen/interrupted.c", &["-pthread"]);
    for way in ["span", "start", "fork"] {
        run(&program, &[way], &[]).passed();
    }
}

/// Runs `citizen/left.c` in both forms.
#[track_caller]
fn left(way: &str, place: &str, options: &str) {
    for form in FORMS {
        let program = compile_as(form, "citizen/left.c", &[]);
        let Some(fast) = fast_paths(form, &program) else {
            return;
        };
        let fast = fast.iter().map(String::as_str);
        let args: Vec<&str> = [way, place].into_iter().chain(fast).collect();
        let variables = [environment(form), vec![("SLABSIDE_OPTIONS", options)]].concat();
        assert_eq!(run(&program, &args, &variables).passed(), "done\n");
    }
}

#[test]
fn a_thread_that_left_slow_paths_by_longjmp_gets_memory() {
    left("alone", "main", "");
    left("alone", "main", "hardened");
}

#[test]
fn a_fork_child_of_a_thread_that_left_a_slow_path_gets_memory() {
    left("fork", "main", "");
    left("fork", "main", "hardened");
}

#[test]
fn a_thread_that_left_slow_paths_beside_other_threads_gets_memory() {
    left("beside", "main", "");
    left("beside", "main", "hardened");
}

#[test]
fn a_slow_path_is_not_taken_for_one_that_was_left_from_another_stack() {
    for place in ["main", "thread"] {
        left("alternate", place, "");
        left("coroutine", place, "");
    }
}

#[test]
fn a_handler_allocates_while_the_library_is_dying_and_the_program_ends() {
    for form in FORMS {
        for (how, said) in [("misuse", "slabside: double free of "), ("crash", "")] {
            let ended = run_as(form, "citizen/dying.c", &[how]);
            assert_eq!(
                (ended.status, &*ended.stdout),
                (Some(3), "handled 1\n"),
                "{ended:#?}"
            );
            assert!(ended.stderr.starts_with(said), "{ended:#?}");
        }
    }
}

#[test]
fn a_filter_that_kills_at_all_but_the_usual_memory_calls_kills_nobody() {
    passes("citizen/seccomp.c", &[]);
}

#[test]
fn a_filter_that_does_not_tell_whether_a_range_is_free_costs_no_reserve() {
    passes_alone("citizen/untold.c", &[]);
}

#[test]
fn no_heap_is_taken_from_a_live_thread_where_a_filter_refuses_to_compare_words() {
    passes("citizen/seccomp.c", &["uncompared"]);
}

#[test]
fn a_program_that_locks_all_its_memory_pays_for_no_reserve() {
    passes_saying("citizen/locked.c", &[], &[]);
}

#[test]
fn as_many_mappings_as_there_may_be_are_no_end() {
    passes_saying("citizen/maps.c", &[], &[]);
}

#[test]
fn reserves_are_left_out_of_core_dumps() {
    for form in FORMS {
        let ended = run_as(form, "citizen/core.c", &["flags"]);
        assert_eq!(ended.passed(), "0\n", "KiB of reserves");
    }
}

/// What the program writes into its last block.
const MARK: &[u8] = b"a/ba_k.in.the.dump";
/// Bytes of its blocks.
const HEAP: usize = 7 << 20;

/// A way of linking: its name, the program, and what that needs in its environment.
type Linked = (String, PathBuf, Vec<(&'static str, &'static str)>);

/// The program with each way of linking.
fn dumping() -> Vec<Linked> {
    let replacement = artifacts().replacement.to_str().expect("UTF-8");
    let alone = compile("citizen/core.c", &["-static", "-Wl,-u,malloc", replacement]);
    let form = |form| {
        let program = compile_as(form, "citizen/core.c", &[]);
        (format!("{form:?}"), program, environment(form))
    };
    let mut all: Vec<_> = FORMS.map(form).into();
    all.push(("Static".into(), alone, vec![]));
    all
}

#[test]
fn core_dumps_hold_blocks_and_metadata() {
    for (name, program, environment) in dumping() {
        for options in ["", "guard-sample:1"] {
            let mut command = command(&program);
            command
                .envs(environment.clone())
                .env("SLABSIDE_OPTIONS", options);
            let dump = format!("core-{name}-{}", options.len());
            let Some(dump) = dumped(&mut command, &dump) else {
                return;
            };
            assert!(holds(&dump, MARK), "{name} {options}: the block");
            let header = [
                &b"slabside"[..],
                &slabside_core::meta::VERSION.to_le_bytes(),
            ]
            .concat();
            assert!(holds(&dump, &header), "{name} {options}: the header");
            assert!((HEAP..64 << 20).contains(&dump.len()));
            if options.is_empty() {
                let metadata = dumped_metadata(&dump);
                let percent = metadata as f64 * 100.0 / HEAP as f64;
                assert!(metadata > 0 && percent <= 3.0, "{name}: {percent} %");
            }
        }
    }
}

/// Bytes of the metadata region in a core file.
fn dumped_metadata(core: &[u8]) -> usize {
    let word = |at: usize| u64::from_le_bytes(core[at..at + 8].try_into().expect("eight")) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes([core[at], core[at + 1]]));
    // elf(5): where the program headers lie, bytes of one, and how many. Of a segment its kind, place in the file,
    // address, and bytes in the file.
    let headers = (0..half(56)).map(|index| word(32) + index * half(54));
    let loaded = headers.filter(|&at| word(at) as u32 == 1);
    let segments: Vec<[usize; 3]> = loaded
        .map(|at| [word(at + 8), word(at + 16), word(at + 32)])
        .collect();
    let begins = |segment: &&[usize; 3]| {
        segment[2] >= 4096 && word(segment[0]) == slabside_core::meta::MAGIC as usize
    };
    let [at, base, _] = *segments.iter().find(begins).expect("a region");
    let region = base..base + word(at + slabside_base::layout::offset::REGION_BYTES);
    let parts = segments.iter().filter(|part| region.contains(&part[1]));
    parts.map(|part| part[2]).sum()
}

#[test]
fn within_a_control_group_memory_is_used_again_and_a_limit_refuses_in_time() {
    let group = format!("/sys/fs/cgroup/memory/slabside-{}", std::process::id());
    let made = fs::create_dir(&group).is_ok()
        && fs::write(format!("{group}/memory.limit_in_bytes"), "64M").is_ok();
    if made {
        let environment = [("SLABSIDE_OPTIONS", "limit-hard:48m")];
        passes_saying("citizen/cgroup.c", &[&group, "64"], &environment);
    } else {
        skipped("no memory control group (version 1) can be made here");
    }
    let _ = fs::remove_dir(&group); // it may not be there
}

#[test]
fn with_huge_pages_for_all_and_for_none_the_heap_is_sound() {
    for form in FORMS {
        for option in ["huge-pages:on", "huge-pages:off"] {
            let ended = run_under(form, option, "exercise.c", &[]);
            assert_eq!(ended.passed(), "done\n");
        }
    }
}

/// The system refuses what it could not back by memory: the reserves must not count.
#[test]
#[ignore = "changes a setting of the whole system, and needs root"]
fn strict_overcommit_counts_what_is_used() {
    let (mode, ratio) = (
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/overcommit_ratio",
    );
    let before = [mode, ratio].map(|file| fs::read_to_string(file).expect("it can be read"));
    let programs = FORMS.map(|form| (form, compile_as(form, "exercise.c", &[])));
    fs::write(ratio, "90")
        .and_then(|()| fs::write(mode, "2"))
        .expect("it can be set");
    let ended = programs.map(|(form, program)| run(&program, &[], &environment(form)));
    let _ = fs::write(mode, before[0].trim());
    let _ = fs::write(ratio, before[1].trim());
    for ended in ended {
        assert_eq!(ended.passed(), "done\n");
    }
}
