//! The heap profile read from outside: each function's share, the exact total, and the files that are written.

use super::types::rust_program;
use super::*;
use slabside_view::profile::{samples, sums, Kind, Row, Sums};
use slabside_view::unwind::Unwinder;
use std::io::Read as _;

/// Bytes between two samples.
const INTERVAL: f64 = 8192.0;

/// `sampled` that runs and waits.
fn sampled(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = command(program);
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .env("SLABSIDE_OPTIONS", "profile:8k");
    Running::start(&mut command, dir)
}

/// The profile of `running`, and its live bytes exactly.
fn profile(running: &Running) -> (Sums, f64) {
    let target = Target::process(running.pid()).expect("it is there");
    let heap = Heap::read(&*target).expect("it is read");
    let allocated = Figures::of(&*target, &heap).allocated as f64;
    let all = samples(&*target, &heap);
    let sums = sums(&heap, &all, Kind::Live, &mut Unwinder::new(&*target));
    (sums, allocated)
}

/// Bytes of the stacks in which a function's name begins with `name`.
fn held_by(sums: &Sums, name: &str) -> f64 {
    let is_in = |row: &&Row| {
        row.stack
            .iter()
            .any(|frame| frame.function.starts_with(name))
    };
    sums.rows.iter().filter(is_in).map(|row| row.bytes).sum()
}

/// Asserts that `name` holds `exact` bytes, but for six standard errors: of blocks of one class scaled together these are
/// less than if each stood alone.
fn assert_holds(sums: &Sums, name: &str, exact: f64) {
    let (found, error) = (held_by(sums, name), 6.0 * (exact * INTERVAL).sqrt());
    assert!(
        (found - exact).abs() <= error,
        "{name}: {found}, not {exact} +- {error}: {sums:#?}"
    );
}

fn assert_shares(sums: &Sums, exact: f64) {
    assert!(
        (sums.bytes - exact).abs() < 1.0,
        "{} of {exact}",
        sums.bytes
    );
    assert_holds(sums, "hold_much", 12_000.0 * 1024.0);
    assert_holds(sums, "hold_little", 20_000.0 * 208.0);
    assert_holds(sums, "hold_spans", 150.0 * 20_480.0);
    assert_holds(sums, "hold_large", 10.0 * 303_104.0);
    assert_holds(sums, "hold_half", 5_000.0 * 512.0);
    assert_holds(sums, "hold_in_thread", 6_000.0 * 304.0);
    // Where calls were inlined depends on the debug information that there is.
    let calls = |row: &Row| {
        let names: Vec<&str> = row.stack.iter().map(|frame| &*frame.function).collect();
        names.windows(2).any(|pair| pair == ["hold_much", "main"])
    };
    assert!(sums.rows.iter().any(calls), "{sums:#?}");
}

#[test]
fn each_function_holds_its_share_and_all_together_what_is_live() {
    let program = compile("watch/sampled.c", &["-pthread"]);
    let plugin = compile("watch/plugin.c", &["-shared", "-fPIC"]);
    let plugin = plugin.to_str().expect("UTF-8");
    let running = sampled(&program, &[plugin], &environment(Form::Preloaded));
    let (sums, exact) = profile(&running);
    assert_shares(&sums, exact);
    // The code of the plug-in is gone, and what it holds is told all the same.
    let gone = sums
        .rows
        .iter()
        .filter(|row| row.stack[0].function == "(no code there now)");
    let bytes: f64 = gone.map(|row| row.bytes).sum();
    let expected: f64 = 3000.0 * 704.0;
    assert!(
        (bytes - expected).abs() < 6.0 * (expected * INTERVAL).sqrt(),
        "{bytes}"
    );
}

/// As one that was updated while it ran.
#[test]
fn a_program_that_was_deleted_keeps_its_names() {
    let program = compile("watch/sampled.c", &["-pthread"]);
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("updated");
    fs::copy(program, &copy).expect("a copy");
    let running = sampled(&copy, &[], &environment(Form::Preloaded));
    fs::remove_file(&copy).expect("it is there");
    let (sums, _) = profile(&running);
    assert!(held_by(&sums, "hold_much") > 0.0);
    let pid = running.pid().to_string();
    let told = text(&slabside(&["profile", &pid]));
    assert!(told.contains(" hold_much sampled.c:"), "{told}");
}

#[test]
fn a_static_program_is_profiled_too() {
    let archive = artifacts().replacement.to_str().expect("UTF-8");
    let program = compile(
        "watch/sampled.c",
        &["-static", "-pthread", "-Wl,-u,malloc", archive],
    );
    let (sums, exact) = profile(&sampled(&program, &[], &[]));
    assert_shares(&sums, exact);
    // The allocator's own functions are left out, and what was inlined into them.
    let inner = sums.rows.iter().flat_map(|row| row.stack.first());
    let own =
        inner.filter(|frame| frame.file.contains("/src/") || frame.function.contains("slabside"));
    assert_eq!(own.count(), 0, "{sums:#?}");
}

#[test]
fn a_rust_program_is_profiled_too() {
    let running = sampled(
        &rust_program("watch/holding.rs"),
        &[],
        &environment(Form::Preloaded),
    );
    let (sums, exact) = profile(&running);
    assert!(
        (sums.bytes - exact).abs() < 1.0,
        "{} of {exact}",
        sums.bytes
    );
    // Slots of 1,024 and 512 bytes, and spans of five pages. The vectors and the map's nodes are less than what chance adds.
    assert_holds(&sums, "holding::hold_texts", 6_000.0 * 1024.0);
    assert_holds(&sums, "holding::hold_map", 4_000.0 * 512.0);
    assert_holds(&sums, "holding::hold_in_thread", 200.0 * 20_480.0);
    let ours = sums.rows.iter().flat_map(|row| row.stack.first());
    let allocators = ours.filter(|frame| frame.function.contains("__rust_alloc"));
    assert_eq!(allocators.count(), 0, "{sums:#?}");
}

/// The fields of a message of protocol buffers: number, value of a varint, contents of a string or message.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        let mut contents: &[u8] = &[];
        match key & 7 {
            0 => {}
            2 => (contents, bytes) = bytes.split_at(value as usize),
            kind => panic!("wire type {kind}"),
        }
        all.push((key >> 3, value, contents));
    }
    all
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a whole number");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

#[test]
fn the_files_for_pprof_and_of_folded_stacks_hold_the_same_sums() {
    let program = compile("watch/sampled.c", &["-pthread"]);
    let running = sampled(&program, &[], &environment(Form::Preloaded));
    let (pid, dir) = (running.pid().to_string(), running.dir.path());
    let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let (pprof, folded, flame) = (path("out.pb.gz"), path("out.folded"), path("out.svg"));
    let report: Value = serde_json::from_str(&text(&slabside(&[
        "profile", &pid, "-o", &pprof, "--folded", &folded, "--flame", &flame, "--json",
    ])))
    .expect("JSON");
    let exact = report["bytes"].as_f64().expect("a number");
    let stacks = report["stacks"].as_array().expect("stacks");
    let rounding = stacks.len() as f64;

    let mut message = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(&pprof).expect("it was written"))
        .read_to_end(&mut message)
        .expect("it is whole");
    let all = fields(&message);
    let texts: Vec<&str> = all
        .iter()
        .filter(|field| field.0 == 6)
        .map(|field| std::str::from_utf8(field.2).expect("UTF-8"))
        .collect();
    assert_eq!(texts[0], "");
    assert!(texts.contains(&"hold_much") && texts.contains(&"inuse_space"));
    let ids = |number: u64| -> Vec<u64> {
        let of = all.iter().filter(|field| field.0 == number);
        of.map(|field| fields(field.2)[0].1).collect()
    };
    let (locations, mut bytes) = (ids(4), 0);
    for sample in all.iter().filter(|field| field.0 == 2) {
        let parts = fields(sample.2);
        let mut numbers = parts[0].2;
        while !numbers.is_empty() {
            assert!(locations.contains(&varint(&mut numbers)));
        }
        let mut values = parts[1].2;
        varint(&mut values);
        bytes += varint(&mut values);
        assert!(values.is_empty());
    }
    assert!(
        (bytes as f64 - exact).abs() <= rounding,
        "{bytes} of {exact}"
    );

    let lines = fs::read_to_string(&folded).expect("it was written");
    let sum: u64 = lines
        .lines()
        .map(|line| {
            line.rsplit_once(' ')
                .expect("a sum")
                .1
                .parse::<u64>()
                .expect("a number")
        })
        .sum();
    assert!((sum as f64 - exact).abs() <= rounding, "{sum} of {exact}");
    assert!(
        lines.lines().any(|line| line.contains("main;hold_much")),
        "{lines}"
    );
    let page = fs::read_to_string(&flame).expect("it was written");
    assert!(page.contains("<title>hold_much: ") && page.ends_with("</svg>\n"));
    // The ending of the file says the same.
    for (name, like) in [("b.svg", &page), ("b.folded", &lines)] {
        text(&slabside(&["profile", &pid, "-o", &path(name)]));
        assert_eq!(
            &fs::read_to_string(path(name)).expect("it was written"),
            like
        );
    }
}

/// The profile that `slabside run` writes of `churn`, and the figures of the same run.
fn of_whole_run(dir: &Path, end: &str) -> (Value, Value) {
    let program = compile("watch/churn.c", &[]);
    let library = artifacts().preload.to_str().expect("UTF-8");
    let file = dir.join(format!("{end}.json"));
    let to = format!("--profile={}", file.display());
    let program = program.to_str().expect("UTF-8");
    let output = slabside(&[
        "run",
        "--library",
        library,
        "--stats",
        "--json",
        &to,
        "--profile-interval",
        "128k",
        "--",
        program,
        end,
    ]);
    let stats = serde_json::from_slice(&output.stderr);
    let stats: Value = stats.unwrap_or_else(|why| panic!("{why}: {output:?}"));
    let profile = fs::read(&file).expect("it was written");
    (serde_json::from_slice(&profile).expect("JSON"), stats)
}

/// Bytes of the stacks of `list` that `function` is on.
fn bytes_by(list: &Value, function: &str) -> f64 {
    let rows = list.as_array().expect("stacks").iter();
    let of = rows.filter(|row| {
        let frames = row["frames"].as_array().expect("frames");
        frames.iter().any(|frame| frame["function"] == function)
    });
    of.map(|row| row["bytes"].as_f64().expect("bytes")).sum()
}

#[test]
fn a_whole_run_is_profiled_with_what_was_freed_and_what_is_left() {
    let dir = tempfile::tempdir().expect("a folder");
    for end in ["returns", "exits", "aborts"] {
        let (profile, stats) = of_whole_run(dir.path(), end);
        assert_eq!(
            (&profile["schema"], &profile["kind"]),
            (&"slabside.profile/1".into(), &"allocated".into())
        );
        let all = &profile["stacks"];
        let (small, big) = (bytes_by(all, "churn_small"), bytes_by(all, "churn_big"));
        let share = big / (small + big);
        assert!((share - 0.75).abs() < 0.1, "{share} of {profile}");
        if end != "aborts" {
            let handed = stats["heap"]["handed_out"].as_f64().expect("bytes");
            let bytes = profile["bytes"].as_f64().expect("bytes");
            assert!((bytes - handed).abs() <= 1.0, "{bytes} of {handed}");
        }
        // 2,000 blocks of 3,000 bytes, in slots of 3,072.
        let (live, exact): (f64, f64) = (bytes_by(&profile["live"], "keep"), 2000.0 * 3072.0);
        let error = 6.0 * (exact * 131_072.0).sqrt();
        assert!(
            (live - exact).abs() <= error,
            "{live} of {exact}: {profile}"
        );
    }
}

/// What `slabside run --profile` does with `options`, of a program. Each block is sampled: at a longer interval a program
/// that allocates little may have no sample.
fn run_profiled(file: &Path, options: &[&str], program: &[&str]) -> Output {
    let library = artifacts().preload.to_str().expect("UTF-8");
    let to = format!("--profile={}", file.display());
    let start = ["run", "--library", library, &to, "--profile-interval", "1"];
    slabside(&[&start, options, &["--"], program].concat())
}

#[test]
fn what_run_says_of_its_profile_is_json_where_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = compile("watch/ending.c", &[]);
    let program = program.to_str().expect("UTF-8");
    let output = run_profiled(&dir.path().join("a.pb.gz"), &["--json"], &[program]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stderr).expect("JSON and nothing else");
    assert_eq!(report["schema"], "slabside.profile/1");
    // 5 blocks in slots of 128 bytes, 5 in slots of 256, and one of 1,024.
    assert!(
        report["bytes"].as_u64() >= Some(2944) && report["live"].is_array(),
        "{report}"
    );
    assert!(report["gap"].is_null(), "{report}");
    let archive = compile("watch/handed.c", &["-static"]);
    let archive = archive.to_str().expect("UTF-8");
    let output = run_profiled(&dir.path().join("b.pb.gz"), &["--json"], &[archive, "1"]);
    let report: Value = serde_json::from_slice(&output.stderr).expect("JSON and nothing else");
    assert_eq!(report["schema"], "slabside.profile/1");
    let why = report["error"].as_str().expect("a reason");
    assert!(why.contains("without slabside's heap"), "{why}");
}

/// Where the program cannot be traced, or goes on without its first thread.
#[test]
fn a_profile_says_what_of_the_run_was_not_seen() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.json");
    let program = compile("watch/first.c", &["-pthread"]);
    let program = program.to_str().expect("UTF-8");
    let output = run_profiled(&file, &[], &[program]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{told}");
    let why = "not all was seen: its first thread ended before others";
    assert!(told.contains(why), "{told}");
    let profile: Value = serde_json::from_slice(&fs::read(&file).expect("written")).expect("JSON");
    assert!(bytes_by(&profile["stacks"], "hold") > 0.0, "{profile}");
    assert_eq!(profile["gap"], "its first thread ended before others");
    // Beside another report the profile is in its file alone.
    let output = run_profiled(&file, &["--leaks", "--json"], &[program]);
    let objects = serde_json::Deserializer::from_slice(&output.stderr);
    let objects: Result<Vec<Value>, _> = objects.into_iter().collect();
    let objects = objects.expect("JSON and nothing else");
    let told: Vec<_> = objects.iter().map(|one| &one["schema"]).collect();
    assert_eq!(told, ["slabside.profile/1", "slabside.leaks/1"]);
    assert_eq!(objects[0]["gap"], "its first thread ended before others");
    assert!(objects[0]["error"].is_null(), "{}", objects[0]);
    if !installed(&["strace"]) {
        return;
    }
    let library = artifacts().preload.to_str().expect("UTF-8");
    let traced_twice = |program: &[&str]| {
        let arguments = "-f -qq -e trace=none -e signal=none -o /dev/null";
        let output = command("strace")
            .args(arguments.split(' '))
            .arg(&artifacts().command)
            .args(["run", "--library", library])
            .arg(format!("--profile={}", file.display()))
            .arg("--")
            .args(program)
            .output()
            .expect("strace starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    // It may end before anybody has looked at it.
    let ending = compile("watch/ending.c", &[]);
    let (status, told) = traced_twice(&[ending.to_str().expect("UTF-8")]);
    assert_eq!(status, Some(7), "{told}");
    assert!(told.contains("it cannot be traced: "), "{told}");
    // This one has no heap of slabside.
    let archive = compile("watch/handed.c", &["-static"]);
    let (_, told) = traced_twice(&[archive.to_str().expect("UTF-8"), "1"]);
    let why = "and no heap of slabside was seen in it before it ended";
    assert!(told.contains("it cannot be traced: "), "{told}");
    assert!(told.contains(why), "{told}");
}

#[test]
fn a_profile_may_go_to_a_pipe() {
    let dir = tempfile::tempdir().expect("a folder");
    let pipe = dir.path().join("heap.json");
    let made = command("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo starts").success());
    let reader = command("cat").arg(&pipe).stdout(Stdio::piped()).spawn();
    let reader = reader.expect("cat starts");
    let program = compile("watch/ending.c", &[]);
    let output = run_profiled(&pipe, &[], &[program.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let read = reader.wait_with_output().expect("it ends");
    let profile: Value = serde_json::from_slice(&read.stdout).expect("JSON");
    assert_eq!(profile["schema"], "slabside.profile/1");
}

#[test]
fn lost_blocks_have_the_stacks_of_their_samples() {
    let program = compile("watch/ending.c", &["-fno-inline"]);
    let program = program.to_str().expect("UTF-8");
    let library = artifacts().preload.to_str().expect("UTF-8");
    let run = |json: &[&str]| {
        let start = [
            "run",
            "--library",
            library,
            "--leaks",
            "--option",
            "profile:1",
        ];
        let output = slabside(&[&start, json, &["--", program]].concat());
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let told = run(&["--json"]);
    let report: Value = serde_json::from_str(&told).unwrap_or_else(|why| panic!("{why}: {told}"));
    let group = &report["lost"][0];
    for (group, count) in [(group, 5), (&group["below"][0], 5)] {
        let stack = &group["stacks"][0];
        assert_eq!(stack["samples"], count, "each is sampled: {report}");
        let names: Vec<&Value> = stack["frames"]
            .as_array()
            .expect("frames")
            .iter()
            .map(|frame| &frame["function"])
            .collect();
        assert_eq!(names[..2], ["lose", "main"], "{report}");
    }
    let table = run(&[]);
    assert!(
        table.contains("        by lose ") && table.contains("(5 sampled)"),
        "{table}"
    );
}

#[test]
fn a_block_that_was_sampled_says_who_allocated_it() {
    let program = compile("watch/sampled.c", &["-pthread"]);
    let running = sampled(&program, &[], &environment(Form::Preloaded));
    let target = Target::process(running.pid()).expect("it is there");
    let heap = Heap::read(&*target).expect("it is read");
    let all = samples(&*target, &heap);
    let large = all
        .iter()
        .find(|one| one.live.is_some() && one.size > 300_000);
    let small = all
        .iter()
        .find(|one| one.live.is_some_and(|(_, bytes)| bytes == 1024));
    let pid = running.pid().to_string();
    for (sample, name) in [(large, "hold_large"), (small, "hold_much")] {
        let address = format!("{:#x}", sample.expect("a sample").address + 8);
        let report = json(&["explain", &pid, &address, "--json"]);
        let allocated = report["addresses"][0]["allocated"].as_array();
        let mut frames = allocated.expect("a stack").iter().take(2);
        assert!(frames.any(|frame| frame["function"] == name), "{report}");
        let told = text(&slabside(&["explain", &pid, &address]));
        assert!(
            told.contains("  allocated by ") && told.contains(&format!(" {name} ")),
            "{told}"
        );
        let both = text(&slabside(&["explain", &pid, &address, &address]));
        assert_eq!(both.matches("  allocated by ").count(), 2, "{both}");
    }
}

#[test]
fn growth_is_told_by_stack_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.slab");
    let file = file.to_str().expect("UTF-8").to_owned();
    let program = compile("watch/grower.c", &[]);
    let mut command = command(&program);
    command
        .envs(environment(Form::Preloaded))
        .env("SLABSIDE_OPTIONS", "profile:8k");
    let running = Running::start(&mut command, dir);
    let pid = running.pid().to_string();
    snapshot(&pid, &file, &["--contents", "all"]);
    let none = json(&["diff", &file, &pid, "--json"]);
    assert_eq!(none["stacks"], Value::Array(Vec::new()), "{none}");
    // SAFETY: the process is a child that was not waited for, so nobody else has its number.
    let sent = unsafe { libc::kill(running.pid() as i32, libc::SIGUSR1) };
    assert_eq!(sent, 0);
    let state = format!("/proc/{pid}/status");
    wait_until("it has grown", || {
        let status = fs::read_to_string(&state).expect("it lives");
        status.starts_with("Name:\tgrown")
    });
    let report = json(&["diff", &file, &pid, "--json"]);
    let first = &report["stacks"][0];
    let mut frames = first["frames"].as_array().expect("a stack").iter();
    assert!(frames.any(|frame| frame["function"] == "grow"), "{report}");
    let (bytes, exact): (f64, f64) = (first["bytes"].as_f64().expect("bytes"), 4000.0 * 1024.0);
    assert!(
        (bytes - exact).abs() <= 6.0 * (exact * INTERVAL).sqrt(),
        "{bytes}: {report}"
    );
    let told = text(&slabside(&["diff", &file, &pid]));
    assert!(told.contains("  by ") && told.contains("grow "), "{told}");
}

/// It grows by itself: how fast does not matter, nor when it is looked at.
#[test]
fn growth_in_an_hour_is_told_by_stack_too() {
    let program = compile("watch/grower.c", &[]);
    let running = sampled(&program, &["steadily"], &environment(Form::Preloaded));
    let pid = running.pid().to_string();
    let args = ["diff", &pid, "--every", "300ms", "--for", "900ms"];
    let report = text(&slabside(&[&args[..], &["--json"]].concat()));
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let holds = |one: &&Value, function: &str| {
        let frames = one["frames"].as_array().expect("a stack");
        frames.iter().any(|frame| frame["function"] == function)
    };
    let stacks = report["stacks"].as_array().expect("stacks");
    let grown = stacks.iter().find(|one| holds(one, "grow"));
    let grown = grown.unwrap_or_else(|| panic!("{report}"));
    let number = |field: &str| grown[field].as_f64().expect("a number");
    assert!(number("hourly") > 0.0 && number("fit") > 0.0, "{report}");
    assert!(number("last") > number("first"), "{report}");
    assert!(
        stacks
            .iter()
            .all(|one| holds(&one, "grow") || one["hourly"].as_f64() < Some(number("hourly"))),
        "{report}"
    );
    let told = text(&slabside(&args));
    let table = told
        .split("code, by samples\n")
        .nth(1)
        .expect("a table by stack");
    assert!(
        table
            .lines()
            .next()
            .is_some_and(|line| line.contains("  grow ")),
        "{told}"
    );
}

#[test]
fn a_profile_is_begun_and_ended_from_outside() {
    let running = Running::holder(Form::Preloaded, 1, 2, "");
    let pid = running.pid().to_string();
    let refused = slabside(&["profile", &pid]);
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("--on 512k"), "{why}");
    // Who asks for what is allocated in an hour is told at once.
    let grown = slabside(&["profile", &pid, "--kind", "grown", "--for", "1h"]);
    assert_eq!(grown.stderr, refused.stderr);
    for useless in [
        "--on 64k --folded none",
        "--on 64k --kind grown",
        "--off --for 1s",
    ] {
        let words: Vec<&str> = useless.split(' ').collect();
        let refused = slabside(&[&["profile", &pid], &words[..]].concat());
        assert_eq!(refused.status.code(), Some(125), "{useless}");
    }
    let on = text(&slabside(&["profile", &pid, "--on", "64k"]));
    assert!(on.contains("every 64.0 KiB (before: off)"), "{on}");
    // It allocates nothing more: all is from before.
    let report: Value =
        serde_json::from_str(&text(&slabside(&["profile", &pid, "--json"]))).expect("JSON");
    assert_eq!(report["samples"], 0);
    let function = &report["stacks"][0]["frames"][0]["function"];
    assert_eq!(function, "(allocated while no profile was taken)");
    for wrong in ["0", "2000g"] {
        let refused = slabside(&["profile", &pid, "--on", wrong]);
        assert_eq!(refused.status.code(), Some(125), "{wrong}");
    }
    let off = text(&slabside(&["profile", &pid, "--off"]));
    assert!(
        off.contains("off (before: a sample every 64.0 KiB)"),
        "{off}"
    );
    let on = text(&slabside(&["profile", &pid, "--on", "64k", "--json"]));
    let on: Value = serde_json::from_str(&on).expect("JSON");
    assert_eq!(on["schema"], "slabside.profile-switch/1");
    assert_eq!((&on["interval"], &on["before"]), (&65536.into(), &0.into()));
}

#[test]
fn a_snapshot_without_contents_holds_no_stacks_and_cannot_be_watched() {
    let program = compile("watch/sampled.c", &["-pthread"]);
    let running = sampled(&program, &[], &environment(Form::Preloaded));
    let (pid, file) = (running.pid().to_string(), running.dir.path().join("a.slab"));
    let file = file.to_str().expect("UTF-8");
    snapshot(&pid, file, &[]);
    let watched = slabside(&["profile", file, "--kind", "grown", "--for", "1h"]);
    assert_eq!(watched.status.code(), Some(125));
    let target = Target::file(Path::new(file)).expect("a snapshot");
    let heap = Heap::read(&*target).expect("it is read");
    let all = samples(&*target, &heap);
    assert!(all.len() > 500);
    assert!(all
        .iter()
        .all(|sample| sample.stack.iter().all(|&byte| byte == 0)));
}
