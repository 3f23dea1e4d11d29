//! Each heap is told with its thread's number and name, wherever it is read.

use super::{gdb, has_namespaces, json, linked, snapshot, Running};
use crate::common::{command, compile, compile_as, environment, Form, FORMS};
use slabside_view::model::Heap;
use slabside_view::source::{Source, Target};
use std::collections::BTreeSet;
use std::fs;

/// The threads that own heaps, by number.
fn owners(source: &dyn Source) -> BTreeSet<u32> {
    let heap = Heap::read(source).expect("it is read");
    let all: Vec<u32> = heap.owners.iter().map(|owner| owner.thread).collect();
    let set: BTreeSet<u32> = all.iter().copied().collect();
    assert_eq!(all.len(), set.len(), "each thread has one heap: {all:?}");
    set
}

/// Numbers of all threads of `pid`.
fn tasks(pid: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let names = tasks.map(|entry| entry.expect("a thread").file_name());
    names
        .map(|name| {
            name.to_str()
                .and_then(|name| name.parse().ok())
                .expect("a number")
        })
        .collect()
}

#[test]
fn each_heap_has_the_number_of_its_thread() {
    for form in FORMS {
        for options in ["", "hardened"] {
            let running = Running::holder(form, 3, 4, options);
            let target = Target::process(running.pid()).expect("it is there");
            assert_eq!(owners(&*target), tasks(running.pid()), "{form:?} {options}");
            drop(target);
            let held = Target::stopped(running.pid()).expect("it can be stopped");
            assert_eq!(owners(&*held), tasks(running.pid()));
        }
    }
}

#[test]
fn a_snapshot_and_a_core_file_keep_the_threads_numbers() {
    let mut programs = linked();
    let (program, environment) = programs.pop().expect("the static one");
    let others = programs.pop().expect("the preloaded one");
    for (program, environment) in [(program, environment), others] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = command(program);
        command
            .args(["29", "5000", "3"])
            .arg(dir.path().join("told"))
            .envs(environment);
        let running = Running::start(&mut command, dir);
        let pid = running.pid().to_string();
        let file = running.dir.path().join("a.slab");
        let file = file.to_str().expect("UTF-8");
        snapshot(&pid, file, &[]);
        let core = running.dir.path().join("core");
        let said = gdb(&["-p", &pid, "-ex", &format!("gcore {}", core.display())]);
        assert!(core.is_file(), "{said}");
        for file in [file, core.to_str().expect("UTF-8")] {
            let target = Target::open(file, false).expect("it can be read");
            assert_eq!(owners(&*target), tasks(running.pid()), "{file}");
        }
    }
}

/// A process in a PID namespace of its own has other numbers there: those of the reader are told.
#[test]
fn threads_in_a_namespace_are_told_by_the_numbers_outside() {
    if !has_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = command("unshare");
    command
        .args(["--map-root-user", "--pid", "--fork", "--kill-child"])
        .arg(compile("watch/holder.c", &[]))
        .args(["31", "5000", "3"])
        .arg(dir.path().join("told"))
        .envs(environment(Form::Preloaded));
    let running = Running::start(&mut command, dir);
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let children = fs::read_to_string(children).expect("it has forked");
    let pid: u32 = children.trim().parse().expect("one child");
    let target = Target::process(pid).expect("it can be read");
    assert_eq!(owners(&*target), tasks(pid));
    let top = json(&["top", &pid.to_string(), "--once", "--json"]);
    let owners = top["owners"].as_array().expect("owners");
    let main = owners.iter().find(|one| one["tid"] == pid);
    assert_eq!(main.expect("the main thread")["name"], "watch-holder");
}

/// A heap that a thread left behind, which ended without its exit hook, is nobody's, also where a new thread lies at
/// the same addresses. A child made by fork has its own number.
#[test]
fn a_fork_child_has_its_own_number() {
    let program = compile_as(Form::Preloaded, "watch/forker.c", &[]);
    let dir = tempfile::tempdir().expect("a folder");
    let running = Running::start(command(program).envs(environment(Form::Preloaded)), dir);
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let children = fs::read_to_string(children).expect("it has forked");
    for pid in children.split_whitespace() {
        let pid: u32 = pid.parse().expect("a number");
        let target = Target::process(pid).expect("it can be read");
        let heap = Heap::read(&*target).expect("it is read");
        let threads: Vec<u32> = heap.owners.iter().map(|owner| owner.thread).collect();
        assert!(threads.contains(&pid), "{threads:?}");
        assert!(
            threads.iter().all(|&thread| thread == pid || thread == 0),
            "{threads:?}"
        );
    }
}
