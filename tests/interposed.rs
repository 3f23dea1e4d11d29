//! A program, or a library loaded before, may define any function that this one calls: it allocates there, and the
//! library neither waits for itself nor refuses. What is left to call is listed in `tests/undefined.txt`.
#![cfg(target_arch = "x86_64")] // the hooks are written in its assembly

mod common;

use common::{artifacts, command, compile, installed, is_there, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the library called at some time, or might again.
const MORE: [&str; 27] = [
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "prctl",
    "syscall",
    "getenv",
    "secure_getenv",
    "getauxval",
    "getpagesize",
    "sysconf",
    "getrlimit",
    "getrandom",
    "getpid",
    "gettid",
    "clock_gettime",
    "sched_yield",
    "open",
    "read",
    "write",
    "pread",
    "close",
    "fstat",
    "stat",
    "sysinfo",
    "strlen",
];

fn listed() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/undefined.txt");
    let text = fs::read_to_string(path).expect("the list");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_whitespace().next().map(String::from))
        .collect()
}

fn undefined() -> BTreeSet<String> {
    let output = command("nm")
        .args(["-D", "--undefined-only"])
        .arg(&artifacts().preload)
        .output()
        .expect("nm starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    names
        .map(|name| name.split('@').next().unwrap_or(name).to_string())
        .collect()
}

#[test]
fn the_library_leaves_no_other_name_to_libc_than_is_listed() {
    if !installed(&["nm"]) {
        return;
    }
    let (undefined, listed) = (undefined(), listed());
    assert!(undefined.contains("sbrk"), "{undefined:?}");
    let new: Vec<_> = undefined.difference(&listed).collect();
    assert!(new.is_empty(), "not in tests/undefined.txt: {new:?}");
}

/// Functions to define: what the library calls, but for those that only C++ programs have.
fn hooked() -> Vec<String> {
    let variables = [
        "environ",
        "__libc_stack_end",
        "_dl_auxv",
        "__libc_single_threaded",
        "_DYNAMIC",
        "slabside_options",
    ];
    let mut names = undefined();
    names.retain(|name| !variables.contains(&name.as_str()) && !name.starts_with("_Z"));
    names.extend(MORE.map(String::from));
    names.into_iter().collect()
}

/// The library of hooks.
fn hooks(names: &[String]) -> PathBuf {
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hooked.inc");
    let lines = names
        .iter()
        .enumerate()
        .map(|(index, name)| format!("HOOK({index}, {name})\n"));
    fs::write(&list, lines.collect::<String>()).expect("the list is written");
    let define = format!("-DNAMES=\"{}\"", list.display());
    compile("interposed/hooks.c", &["-shared", "-fPIC", &define])
}

#[test]
fn each_function_that_is_called_may_be_the_programs_and_allocate() {
    if !installed(&["nm"]) {
        return;
    }
    let names = hooked();
    assert!(names.len() > MORE.len() + 8, "{names:?}");
    let hooks = hooks(&names);
    let program = compile("interposed/work.c", &[]);
    let (hooks, ours) = (hooks.display(), artifacts().preload.display());
    for order in [format!("{hooks}:{ours}"), format!("{ours}:{hooks}")] {
        for name in &names {
            let environment = [("LD_PRELOAD", order.as_str()), ("HOOKED", name.as_str())];
            assert_eq!(run(&program, &[], &environment).passed(), "done\n");
        }
    }
}

/// Calls by which libc's functions for the identity of users are wrapped (cwrap's uid_wrapper).
#[test]
fn a_wrapper_of_system_calls_may_be_loaded_before_or_behind() {
    let wrapper = "/usr/lib/x86_64-linux-gnu/libuid_wrapper.so";
    if !is_there(Path::new(wrapper).exists(), wrapper, "libuid-wrapper") {
        return;
    }
    let ours = artifacts().preload.display();
    for order in [format!("{wrapper}:{ours}"), format!("{ours}:{wrapper}")] {
        let environment = [
            ("LD_PRELOAD", order.as_str()),
            ("UID_WRAPPER", "1"),
            ("UID_WRAPPER_ROOT", "1"),
        ];
        let said = run(Path::new("/usr/bin/id"), &["-u"], &environment).passed();
        assert_eq!(said, "0\n");
    }
}

/// The names of calls in `text`, each of which follows `mark`.
fn calls<'a>(text: &'a str, mark: &str) -> BTreeSet<&'a str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let names = text.split(mark).skip(1);
    names
        .map(|rest| &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())])
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn the_system_calls_are_those_that_are_listed() {
    let read = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::read_to_string(path).expect("a file of the project")
    };
    let made = read("crates/base/src/os/calls.rs") + &read("crates/base/src/mutex.rs");
    let mut made = calls(&made, "libc::SYS_");
    made.insert("mseal"); // the crate libc has no name for it
    let documented = read("docs/compatibility.md");
    let (_, table) = documented
        .split_once("**System calls.**")
        .expect("the table");
    let (table, _) = table.split_once("\nA handler that forks").expect("its end");
    let rows: String = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .collect();
    let mut listed = calls(&rows, "`");
    listed.retain(|name| !["brk", "vm", "stats", "slabside", "watch", "profile"].contains(name));
    assert_eq!(made, listed);
    // All others would come from here.
    for file in [
        "crates/base/src/os/linux.rs",
        "crates/core/src/process.rs",
        "crates/base/src/os/loader.rs",
    ] {
        let text = read(file);
        assert!(
            !text.contains("SYS_") && !text.contains("libc::syscall"),
            "{file}"
        );
    }
}
