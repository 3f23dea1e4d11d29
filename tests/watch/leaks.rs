//! What is lost: exactly the known blocks, of programs that rest and of those at full speed; nothing of real programs.

use super::types::{rust_program, waiting};
use super::{json, slabside, snapshot, text, Running};
use crate::common::{
    artifacts, command, compile, compile_as, environment, installed, is_there, wait_until, Form,
    FORMS,
};
use serde_json::Value;
use slabside_view::source::Target;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// `lost` in `form`, with threads that do `what`. A stale pointer of which an int has overwritten the half looks like one
/// into the large block once in 64 times, depending on where those 64 MiB lie. Another process has them elsewhere.
fn losing(form: Form, threads: u32, what: &str, options: &str) -> Running {
    const TRIES: usize = 3;
    for attempt in 1.. {
        let mut command = command(compile_as(form, "watch/lost.c", &[]));
        command
            .args([&threads.to_string(), what])
            .envs(environment(form))
            .env("SLABSIDE_OPTIONS", options);
        let running = Running::start(&mut command, tempfile::tempdir().expect("a folder"));
        let report = json(&["leaks", "--json", "--stop", &running.pid().to_string()]);
        let large = |group: &Group| group.1 >= 64 << 20;
        if attempt == TRIES || groups(&report).iter().any(large) {
            return running;
        }
    }
    unreachable!("the last try is taken")
}

/// Count and size of blocks to which no lost one leads, and of each kind below.
type Group = (u64, u64, Vec<(u64, u64)>);

/// What the program says to lose.
fn known() -> Vec<Group> {
    vec![
        (1, 64 << 20, vec![(1, 832)]),
        (1, 416, vec![(3, 416)]),
        (10, 112, vec![]),
        (1, 208, vec![(2, 304)]),
        (1, 704, vec![]),
        (1, 640, vec![]),
    ]
}

/// The groups of a report, whatever their types.
fn groups(report: &Value) -> Vec<Group> {
    let number = |one: &Value, field: &str| one[field].as_u64().expect("a number");
    let both = |one: &Value| (number(one, "count"), number(one, "size"));
    let lost = report["lost"].as_array().expect("a list").iter();
    let all = lost.map(|one| {
        let none = Vec::new();
        let below = one["below"].as_array().unwrap_or(&none);
        let (count, size) = both(one);
        (count, size, below.iter().map(both).collect())
    });
    all.collect()
}

#[track_caller]
fn expect_known(report: &Value) {
    let (mut found, mut wanted) = (groups(report), known());
    found.sort();
    wanted.sort();
    // Usable sizes are those of the classes.
    let asked = |found: u64, wanted: u64| found >= wanted && found <= wanted + wanted / 4 + 16;
    let same = found.len() == wanted.len()
        && found.iter().zip(&wanted).all(|(found, wanted)| {
            found.0 == wanted.0
                && asked(found.1, wanted.1)
                && found.2.len() == wanted.2.len()
                && found
                    .2
                    .iter()
                    .zip(&wanted.2)
                    .all(|(a, b)| a.0 == b.0 && asked(a.1, b.1))
        });
    assert!(same, "{found:?}\n{report}");
    assert_eq!(report["proved"], true, "{report}");
    assert_eq!(report["unscanned"], 0, "{report}");
    assert_eq!(report["count"], 21);
}

#[test]
fn exactly_what_is_lost_is_found_however_it_is_searched() {
    for form in FORMS {
        let running = losing(form, 0, "rest", "");
        let pid = running.pid().to_string();
        for how in [&[][..], &["--stop"], &["--passes", "1"], &["--kinds"]] {
            expect_known(&json(&[&["leaks", "--json", &pid], how].concat()));
        }
        let candidates = json(&["leaks", "--json", "--no-stop", &pid]);
        assert_eq!(
            (&candidates["proved"], &candidates["held_ms"]),
            (&false.into(), &Value::Null)
        );
        let failed = slabside(&["leaks", "--fail", &pid]);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        let told = String::from_utf8(failed.stdout).expect("UTF-8");
        assert!(told.contains("lost: 21 blocks"), "{told}");
    }
}

#[test]
fn exactly_what_is_lost_is_found_at_full_speed() {
    for what in ["replace", "swap"] {
        let running = losing(Form::Preloaded, 2, what, "");
        let pid = running.pid().to_string();
        for how in [&[][..], &["--passes", "1"], &["--stop"]] {
            expect_known(&json(&[&["leaks", "--json", &pid], how].concat()));
        }
    }
}

/// A thread that waits for the child of its vfork(2) cannot be stopped: the others are not kept until it can.
#[test]
fn a_process_that_cannot_be_stopped_is_not_held_where_nothing_looks_lost() {
    let program = compile("watch/vforking.c", &["-pthread"]);
    let mut command = command(&program);
    command.envs(environment(Form::Preloaded));
    let running = Running::start(&mut command, tempfile::tempdir().expect("a folder"));
    let report = json(&["leaks", "--json", &running.pid().to_string()]);
    assert_eq!(report["candidates"], 0, "{report}");
    let held = report["held_ms"].as_f64();
    assert!(held.is_none_or(|held| held < 1000.0), "{report}");
    // Where its registers were to be seen, it is not stopped once it could be.
    let mut target = Target::process(running.pid()).expect("it is there");
    target.see_registers(Duration::from_millis(50));
    assert!(target
        .threads()
        .iter()
        .all(|thread| thread.registers.is_empty()));
    // SAFETY: the process is a child that was not waited for, so nobody else has its number.
    let sent = unsafe { libc::kill(running.pid() as i32, libc::SIGUSR1) };
    assert_eq!(sent, 0);
    wait_until("it goes on", || running.status("Name:") == "goes on");
    target.see_registers(Duration::from_secs(60));
    assert!(target
        .threads()
        .iter()
        .all(|thread| !thread.registers.is_empty()));
}

/// What a quarantine holds is not lost: the program has freed it.
#[test]
fn in_hardened_mode_what_waits_in_the_quarantine_is_not_lost() {
    let running = losing(Form::Preloaded, 2, "replace", "hardened");
    let report = json(&["leaks", "--json", "--stop", &running.pid().to_string()]);
    let sizes: Vec<u64> = groups(&report).iter().map(|group| group.1).collect();
    assert!(!sizes.contains(&96) && !sizes.contains(&48), "{report}");
    assert_eq!(report["count"], 21, "{report}");
    // Linux 6.13 and 6.14 mark guard pages, and do not tell which pages these are.
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    if !kernel.starts_with("6.13.") && !kernel.starts_with("6.14.") {
        let scanned = (&report["unscanned"], &report["proved"]);
        assert_eq!(scanned, (&0.into(), &true.into()), "{report}");
    }
}

#[test]
fn of_a_core_file_and_of_a_snapshot_the_same_is_found() {
    let running = losing(Form::Preloaded, 0, "rest", "");
    let pid = running.pid().to_string();
    let file = running.dir.path().join("a.slab");
    let file = file.to_str().expect("UTF-8");
    snapshot(&pid, file, &["--stop", "--contents", "all"]);
    expect_known(&json(&["leaks", "--json", file]));
    let less = running.dir.path().join("b.slab");
    let less = less.to_str().expect("UTF-8");
    snapshot(&pid, less, &["--contents", "heads"]);
    let refused = slabside(&["leaks", less]);
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    let told = String::from_utf8(refused.stderr).expect("UTF-8");
    assert!(told.contains("--contents all"), "{told}");
    if !installed(&["gdb"]) {
        return;
    }
    let core = running.dir.path().join("core");
    let dump = format!("gcore {}", core.display());
    super::gdb(&[
        "-p",
        &pid,
        "-ex",
        "set use-coredump-filter off",
        "-ex",
        &dump,
    ]);
    expect_known(&json(&["leaks", "--json", core.to_str().expect("UTF-8")]));
}

#[test]
fn lost_objects_are_told_by_class_and_can_be_suppressed() {
    let program = compile("watch/lost.cpp", &["-std=c++17"]);
    let running = waiting(&mut command(program));
    let pid = running.pid().to_string();
    let report = json(&["leaks", "--json", &pid]);
    let lost = report["lost"].as_array().expect("a list");
    let of = |what: &str| lost.iter().find(|one| one["what"] == what).expect(what);
    let owner = of("(anonymous namespace)::Owner object");
    assert_eq!(
        (&owner["count"], &owner["below"][0]["count"]),
        (&2.into(), &2.into())
    );
    assert_eq!(owner["below"][0]["what"], "text");
    let node = of("(anonymous namespace)::Node object");
    assert_eq!(
        (&node["count"], &node["below"][0]["count"]),
        (&1.into(), &2.into())
    );
    assert_eq!(lost.len(), 2, "{report}");
    let file = running.dir.path().join("known");
    fs::write(&file, "# both\nleak:Node\nleak:^*Owner object$\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let none = text(&slabside(&[
        "leaks",
        "--fail",
        "--suppressions",
        file,
        &pid,
    ]));
    assert!(
        none.contains("lost: 0 blocks") && none.contains("suppressed: 7 blocks"),
        "{none}"
    );
}

#[test]
fn lost_blocks_are_suppressed_by_the_functions_and_files_of_their_stacks() {
    let program = compile("watch/ending.c", &["-g", "-fno-inline"]);
    let program = program.to_str().expect("UTF-8");
    let library = artifacts().preload.to_str().expect("UTF-8");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("known");
    let name = program.rsplit('/').next().expect("a name");
    for (pattern, lost) in [
        ("^lose$", 0),
        ("watch/ending.c$", 0),
        (name, 0),
        ("^os", 10),
        ("another.c", 10),
    ] {
        fs::write(&file, format!("leak:{pattern}\n")).expect("written");
        let file = file.to_str().expect("UTF-8");
        let start = [
            "run",
            "--library",
            library,
            "--leaks",
            "--option",
            "profile:1",
        ];
        let output = slabside(
            &[
                &start[..],
                &["--json", "--suppressions", file, "--", program],
            ]
            .concat(),
        );
        let report: Value = serde_json::from_slice(&output.stderr).expect("JSON and nothing else");
        let counts = (&report["count"], &report["suppressed"]["count"]);
        assert_eq!(
            counts,
            (&lost.into(), &(10 - lost).into()),
            "{pattern}: {report}"
        );
    }
}

#[test]
fn lost_values_of_rust_are_found() {
    let running = waiting(&mut command(rust_program("watch/lost.rs")));
    let report = json(&["leaks", "--json", &running.pid().to_string()]);
    let lost = report["lost"].as_array().expect("a list");
    assert_eq!((lost.len(), &report["count"]), (2, &5.into()), "{report}");
    let below = |one: &Value| one["below"].as_array().map_or(0, Vec::len);
    let holder = lost.iter().find(|one| below(one) == 2).expect("the holder");
    let kinds = [&holder["below"][0]["what"], &holder["below"][1]["what"]];
    assert!(kinds.contains(&&"lost::Speaker (dyn)".into()), "{report}");
    assert!(kinds.contains(&&"text".into()), "{report}");
}

/// Whether a process waits for its standard input, for events or for a signal: it has done what it had to.
fn awaits_more(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut words = call.split(' ');
    match words.next().and_then(|word| word.parse().ok()) {
        Some(libc::SYS_read) => words.next() == Some("0x0"),
        Some(libc::SYS_select | libc::SYS_pselect6 | libc::SYS_poll) => true,
        Some(libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_rt_sigsuspend) => true,
        _ => false,
    }
}

/// Programs that are right, each as it waits for more to do. What one of them loses by itself is named.
#[test]
fn of_real_programs_nothing_is_called_lost_that_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    // A worker would outlive its master, which is killed. The socket would stay where it is made.
    let nginx = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}} http {{ access_log off; \
         server {{ listen unix:{}; }} }}",
        path("nginx.sock")
    );
    fs::write(path("nginx.conf"), nginx).expect("written");
    let python = "import json, re, sys\nd = [json.loads('{\"a\": [1, 2, {\"b\": \"text\"}]}') for _ in range(2000)]\n\
                  sys.stdin.read()";
    let sqlite = "create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n limit 20000) \
                  insert into t select i, hex(i) from n; create index x on t(b);";
    let programs: [(&str, Vec<String>); 5] = [
        ("python3", vec!["-c".into(), python.into()]),
        (
            "redis-server",
            vec![
                "--port".into(),
                "0".into(),
                "--unixsocket".into(),
                path("redis.sock"),
                "--save".into(),
                String::new(),
            ],
        ),
        (
            "sqlite3",
            vec![
                "-interactive".into(),
                "-cmd".into(),
                sqlite.into(),
                ":memory:".into(),
            ],
        ),
        ("git", vec!["cat-file".into(), "--batch".into()]),
        (
            "nginx",
            vec!["-p".into(), path(""), "-c".into(), path("nginx.conf")],
        ),
    ];
    for (name, arguments) in programs {
        if !installed(&[name]) {
            continue;
        }
        let mut command = command(name);
        command
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .envs(environment(Form::Preloaded))
            .env("PYTHONMALLOC", "malloc")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut child = command.spawn().expect("it starts");
        wait_until(name, || awaits_more(child.id()));
        let pid = child.id().to_string();
        text(&slabside(&["check", &pid]));
        let reports =
            [&[][..], &["--stop"]].map(|how| slabside(&[&["leaks", "--json", &pid], how].concat()));
        let _ = child.kill();
        let _ = child.wait();
        for report in reports {
            let json = serde_json::from_slice(&report.stdout);
            let json: Value = json.unwrap_or_else(|why| panic!("{name}: {why}: {report:?}"));
            assert_eq!(groups(&json), [], "{name}: {json}");
        }
    }
}

/// A server of postgres, and the folder that it is in. Both end together.
struct Postgres {
    server: Child,
    dir: TempDir,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SAFETY: the process is a child that was not waited for, so nobody else has its number.
        unsafe { libc::kill(self.server.id() as i32, libc::SIGQUIT) };
        let _ = self.server.wait();
    }
}

/// A user who may run it: root may not.
const NOBODY: u32 = 65_534;

/// Where its programs are.
fn folder_of_postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut all: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    all.retain(|folder| folder.join("initdb").is_file() && folder.join("psql").is_file());
    all.sort();
    is_there(!all.is_empty(), "postgres", "postgresql").then_some(all.pop()?)
}

impl Postgres {
    /// Starts one, each of whose blocks is sampled.
    fn start(programs: &Path) -> Postgres {
        let dir = tempfile::tempdir().expect("a folder");
        let library = dir.path().join("libslabside_preload.so");
        fs::copy(&artifacts().preload, &library).expect("copied");
        // SAFETY: geteuid(2) takes no arguments and cannot fail.
        let is_root = unsafe { libc::geteuid() } == 0;
        if is_root {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        let start = |name: &str| {
            let mut command = command(programs.join(name));
            command
                .current_dir(dir.path())
                .arg("-D")
                .arg(dir.path().join("data"));
            if is_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command.stdout(Stdio::null());
            command
        };
        let mut init = start("initdb");
        let made = init
            .args(["-N", "-A", "trust", "-U", "postgres", "--no-locale"])
            .output();
        let made = made.expect("initdb starts");
        assert!(made.status.success(), "{made:?}");
        let mut server = start("postgres");
        server
            .arg("-k")
            .arg(dir.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .env("LD_PRELOAD", &library)
            .env("SLABSIDE_OPTIONS", "profile:1")
            .stderr(Stdio::null());
        let server = server.spawn().expect("it starts");
        Postgres { server, dir }
    }

    /// A session, which stays open.
    fn session(&self, programs: &Path) -> Command {
        let mut command = command(programs.join("psql"));
        command.args(["-h"]).arg(self.dir.path());
        command.args(["-U", "postgres", "-d", "postgres", "-AtqX"]);
        command
    }
}

/// Who may have lost a block: the copy of the arguments that ps(1) shows, and what the server reads once.
const LOST_BY_POSTGRES: [&str; 2] = ["save_ps_display_args", "PostmasterMain"];

#[test]
fn of_postgres_nothing_is_called_lost_but_what_it_loses_when_it_starts() {
    let Some(programs) = folder_of_postgres() else {
        return;
    };
    let postgres = Postgres::start(&programs);
    wait_until("postgres", || {
        let asked = postgres
            .session(&programs)
            .args(["-c", "select 1"])
            .output();
        asked.is_ok_and(|asked| asked.status.success())
    });
    let mut session = postgres
        .session(&programs)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("psql starts");
    let mut to = session.stdin.take().expect("piped");
    writeln!(
        to,
        "create table t(a int, b text); insert into t select i, md5(i::text) from generate_series(1, 20000) i; \
         create index on t(b); select count(*) from t x join t y using (b); select pg_backend_pid();"
    )
    .expect("written");
    let mut lines = BufReader::new(session.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("it can be read");
    assert_eq!(next(), "20000");
    let backend = next();
    let server = postgres.server.id().to_string();
    for (pid, how) in [
        (&server, ""),
        (&server, "--stop"),
        (&backend, ""),
        (&backend, "--stop"),
    ] {
        let how = [how].into_iter().filter(|how| !how.is_empty());
        let args: Vec<&str> = ["leaks", "--json", pid].into_iter().chain(how).collect();
        let report = json(&args);
        assert_eq!(report["proved"], true, "{report}");
        for group in report["lost"].as_array().expect("a list") {
            let stacks = group["stacks"].as_array().expect("each block is sampled");
            let known = stacks.iter().filter(|stack| {
                let frames = stack["frames"].as_array().expect("frames");
                let mut own = frames.iter().filter(|frame| {
                    frame["module"]
                        .as_str()
                        .is_some_and(|name| name.ends_with("/postgres"))
                });
                let own = own.next().and_then(|frame| frame["function"].as_str());
                own.is_some_and(|own| LOST_BY_POSTGRES.contains(&own))
            });
            let samples: u64 = known
                .map(|stack| stack["samples"].as_u64().expect("a number"))
                .sum();
            assert_eq!(Some(samples), group["count"].as_u64(), "{report}");
        }
    }
    drop(to);
    session.wait().expect("it ends");
}

#[test]
fn run_reports_what_a_program_has_lost_at_its_end() {
    let program = compile("watch/ending.c", &[]);
    let program = program.to_str().expect("UTF-8");
    let library = artifacts().preload.to_str().expect("UTF-8");
    let run = |options: &[&str], end: &[&str]| {
        let start = ["run", "--library", library, "--leaks"];
        slabside(&[&start, options, &["--", program], end].concat())
    };
    let output = run(&[], &[]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert!(told.contains("lost: 10 blocks, 1.9 KiB"), "{told}");
    assert!(told.contains("all zero, held by these alone"), "{told}");
    let output = run(&["--json"], &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_str(&told).unwrap_or_else(|why| panic!("{why}: {told}"));
    assert_eq!(groups(&report), [(5, 128, vec![(5, 256)])]);
    let killed = run(&[], &["killed"]);
    let told = String::from_utf8_lossy(&killed.stderr).into_owned();
    assert_eq!(killed.status.signal(), Some(libc::SIGTERM), "{told}");
    assert!(
        told.contains("cannot say what the program has lost"),
        "{told}"
    );
    let killed = run(&["--json"], &["killed"]);
    let report: Value = serde_json::from_slice(&killed.stderr).expect("JSON and nothing else");
    let why = report["error"].as_str().expect("a reason");
    assert!(why.contains("a signal killed it"), "{why}");
}

/// Each way to lose blocks, and to hold them. Of an ended thread's variables and of pointers in disguise docs/leaks.md tells.
#[test]
fn programs_that_lose_blocks_in_one_way_are_told_of_exactly() {
    let program = compile("watch/leaky.c", &["-pthread"]);
    let program = program.to_str().expect("UTF-8");
    let library = artifacts().preload.to_str().expect("UTF-8");
    for way in [
        "direct", "list", "tree", "ring", "table", "large", "aligned", "freed", "held", "middle",
        "mapped",
    ] {
        let run = ["run", "--library", library, "--leaks", "--json", "--"];
        let output = slabside(&[&run[..], &[program, way]].concat());
        let report: Value = serde_json::from_slice(&output.stderr).expect("JSON and nothing else");
        let lost = text(&output).trim().parse::<u64>().expect("a number");
        assert_eq!(report["count"], lost, "{way}: {report}");
    }
}

/// Where another thread than the first calls execve(2), the first one ends, and not the program.
#[test]
fn a_program_that_another_thread_replaces_is_told_of_at_its_end() {
    let ending = compile("watch/ending.c", &[]);
    let program = compile("watch/replaced.c", &["-pthread"]);
    let library = artifacts().preload.to_str().expect("UTF-8");
    let [program, ending] = [&program, &ending].map(|path| path.to_str().expect("UTF-8"));
    // Nobody traces it for a moment. By then it must not have ended.
    let script = format!("sleep 1; exec {ending}");
    let run = ["run", "--library", library, "--leaks", "--", program];
    let output = slabside(&[&run[..], &["/bin/sh", "-c", &script]].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert_eq!(told.matches("lost: ").count(), 1, "{told}");
    assert!(told.contains("lost: 10 blocks, 1.9 KiB"), "{told}");
}

/// A signal on its way to a thread when that is stopped reaches it when it goes on.
#[test]
fn no_signal_is_lost_when_a_process_is_stopped() {
    let mut running = waiting(&mut command(compile("watch/signalled.c", &[])));
    let pid = running.pid().to_string();
    for _ in 0..30 {
        text(&slabside(&["check", "--stop", &pid]));
    }
    // SAFETY: the process is a child that was not waited for, so nobody else has its number.
    let sent = unsafe { libc::kill(running.pid() as i32, libc::SIGTERM) };
    assert_eq!(sent, 0);
    let status = running.child.wait().expect("it ends");
    assert!(status.success(), "{status}");
}

/// Of a process that rests no type grows.
#[test]
fn growth_is_told_by_type_over_many_looks() {
    let running = losing(Form::Preloaded, 0, "rest", "");
    let pid = running.pid().to_string();
    let printed = text(&slabside(&[
        "diff", &pid, "--every", "1s", "--for", "2s", "--json",
    ]));
    let report: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(report["schema"], "slabside.growth/1");
    assert!(report["looks"].as_u64() >= Some(2), "{report}");
    assert_eq!(report["growth"], Value::Array(Vec::new()), "{report}");
}
