//! Who may look: own processes, those in namespaces, and of others what is told instead.

use super::{has_namespaces, slabside, Running, STRANGER};
use crate::common::{artifacts, command, compile, environment, started, Form};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Output;
use tempfile::TempDir;

/// The tests' own user is root in the checks of every change, and may be another one elsewhere.
fn is_root() -> bool {
    // SAFETY: geteuid(2) takes no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A folder that everybody can read, with copies of the files.
fn open_to_all(files: &[(&std::path::Path, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    for (from, to) in files {
        fs::copy(from, dir.path().join(to)).expect("copied");
    }
    dir
}

/// `slabside top --once` of `pid` by a user who is not root.
fn top_by_a_user(folder: &TempDir, pid: u32) -> Output {
    let mut command = command(folder.path().join("slabside"));
    command
        .args(["top", "--once", &pid.to_string()])
        .current_dir("/");
    if is_root() {
        command.uid(STRANGER).gid(STRANGER);
    }
    started(|| command.output())
}

/// `holder` run by a user who is not root, dumpable or not.
fn holder_of_a_user(folder: &TempDir, dumpable: &str) -> Running {
    let told = tempfile::tempdir().expect("a folder");
    fs::set_permissions(told.path(), fs::Permissions::from_mode(0o777)).expect("its mode");
    let library = folder.path().join("library.so");
    let mut command = command(folder.path().join("sleeper"));
    command
        .arg(dumpable)
        .env("LD_PRELOAD", library)
        .current_dir("/");
    if is_root() {
        command.uid(STRANGER).gid(STRANGER);
    }
    Running::start(&mut command, told)
}

#[test]
fn a_process_is_read_by_its_user_unless_it_is_not_dumpable() {
    let program = compile("watch/sleeper.c", &[]);
    let folder = open_to_all(&[
        (&artifacts().command, "slabside"),
        (&artifacts().preload, "library.so"),
        (&program, "sleeper"),
    ]);
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let running = holder_of_a_user(&folder, "dumpable");
    let told = top_by_a_user(&folder, running.pid());
    let error = String::from_utf8_lossy(&told.stderr).into_owned();
    match scope.trim() {
        "" | "0" => assert!(told.status.success(), "{error}"),
        scope => {
            assert_eq!(told.status.code(), Some(126), "{error}");
            assert!(
                error.contains(&format!("kernel.yama.ptrace_scope is {scope}")),
                "{error}"
            );
        }
    }
    let closed = holder_of_a_user(&folder, "closed");
    let told = top_by_a_user(&folder, closed.pid());
    assert_eq!(told.status.code(), Some(126));
    let error = String::from_utf8_lossy(&told.stderr).into_owned();
    let name = format!(
        "slabside: process {}: not permitted to read it (",
        closed.pid()
    );
    assert!(
        error.starts_with(&name) && error.contains("run as root"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
    if is_root() {
        let told = slabside(&["top", "--once", &closed.pid().to_string()]);
        assert!(told.status.success(), "{told:?}");
    }
}

/// Another mount namespace: the names of symbols come from the files that the process sees.
#[test]
fn a_process_in_other_namespaces_is_read() {
    if !has_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = command("unshare");
    command
        .args([
            "--map-root-user",
            "--pid",
            "--mount",
            "--net",
            "--ipc",
            "--fork",
            "--kill-child",
        ])
        .arg(compile("watch/holder.c", &[]))
        .args(["37", "5000", "2"])
        .arg(dir.path().join("told"))
        .envs(environment(Form::Preloaded));
    let running = Running::start(&mut command, dir);
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let pid = fs::read_to_string(children).expect("it has forked");
    for args in [
        &["top", pid.trim(), "--once"][..],
        &["top", pid.trim(), "--once", "--stop"],
        &["map", pid.trim(), "--pins"],
        &["check", pid.trim(), "--stop"],
    ] {
        let told = slabside(args);
        assert!(told.status.success(), "{args:?}: {told:?}");
    }
}

/// The calls of `prctl` that `sleeper` and a child of it make with `option`, as strace prints them.
fn calls(option: &str) -> String {
    let program = compile("watch/sleeper.c", &[]);
    let mut command = command("/usr/bin/strace");
    command
        .args(["-f", "-e", "trace=prctl", "-o", "/dev/stdout"])
        .arg("-E")
        .arg(format!("LD_PRELOAD={}", artifacts().preload.display()))
        .arg("-E")
        .arg(format!("SLABSIDE_OPTIONS={option}"))
        .arg(program)
        .args(["dumpable", "ends"]);
    let told = started(|| command.output());
    assert!(told.status.success(), "{told:?}");
    String::from_utf8_lossy(&told.stdout).into_owned()
}

#[test]
fn watch_any_lets_other_processes_look_and_nothing_else_does() {
    let any = calls("watch:any");
    // The process and its fork child.
    assert_eq!(
        any.matches("prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY")
            .count(),
        2,
        "{any}"
    );
    let off = calls("watch:off");
    assert!(!off.contains("PR_SET_PTRACER"), "{off}");
}

#[test]
fn run_watch_is_short_for_the_option() {
    let library = artifacts().preload.to_str().expect("UTF-8");
    let told = slabside(&[
        "run",
        "--library",
        library,
        "--watch",
        "--",
        "sh",
        "-c",
        "echo $SLABSIDE_OPTIONS",
    ]);
    assert_eq!(String::from_utf8_lossy(&told.stdout), "watch:any\n");
}
