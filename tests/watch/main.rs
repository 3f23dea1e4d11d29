//! Heaps read from outside (`slabside-view` and the commands). Of a target that stands still the reader counts exactly
//! what the target counts itself. Of one that goes on it never counts fewer blocks than there were. Nothing in the
//! target is changed.

#[path = "../common/mod.rs"]
mod common;
mod exact;
mod leaks;
mod permission;
mod profile;
mod report;
mod threads;
mod types;
mod who;

use common::{artifacts, command, compile, compile_as, environment, Form, FORMS};
use common::{installed, skipped, started, wait_until};
use serde_json::Value;
use slabside_base::layout::{self, Fact};
use slabside_view::figures::Figures;
use slabside_view::model::{Buffers, Heap};
use slabside_view::region::find;
use slabside_view::source::{Source, Target};
use slabside_view::{check::check, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::os::fd::FromRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A program that has said "ready", and waits or goes on.
struct Running {
    child: Child,
    dir: TempDir,
}

impl Running {
    fn start(command: &mut Command, dir: TempDir) -> Running {
        command.stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = started(|| command.spawn());
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("it can be read");
        assert_eq!(line, "ready\n");
        Running { child, dir }
    }

    /// `holder` in `form`.
    fn holder(form: Form, seed: u32, threads: u32, options: &str) -> Running {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = command(compile_as(form, "watch/holder.c", &[]));
        command
            .args([seed.to_string(), "20000".into(), threads.to_string()])
            .arg(dir.path().join("told"))
            .envs(environment(form))
            .env("SLABSIDE_OPTIONS", options);
        Running::start(&mut command, dir)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A field of its /proc/PID/status.
    fn status(&self, name: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it lives");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a field").trim().to_string()
    }

    fn told(&self) -> Told {
        Told::read(&self.dir.path().join("told"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `holder` says of itself.
struct Told {
    small: u64,
    large: u64,
    own: u64,
    /// Usable bytes by address.
    blocks: BTreeMap<u64, u64>,
}

impl Told {
    fn read(file: &Path) -> Told {
        let mut told = Told {
            small: 0,
            large: 0,
            own: 0,
            blocks: BTreeMap::new(),
        };
        for line in fs::read_to_string(file).expect("it has told").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |word: &str| word.parse().expect("a number");
            match words[..] {
                ["small", bytes] => told.small = number(bytes),
                ["large", bytes] => told.large = number(bytes),
                ["own", bytes] => told.own = number(bytes),
                ["block", address, bytes] => {
                    let address = u64::from_str_radix(address, 16).expect("an address");
                    told.blocks.insert(address, number(bytes));
                }
                _ => panic!("{line}"),
            }
        }
        assert!(told.blocks.len() > 500);
        told
    }

    fn expect_in(&self, source: &dyn Source, heap: &Heap, exact: bool) {
        let figures = Figures::of(source, heap);
        assert_eq!(figures.allocated - figures.large, self.small);
        assert_eq!(figures.large, self.large);
        let mut live = BTreeMap::new();
        heap.each_live(|span, _| assert!(live.insert(span.start, span.bytes()).is_none()));
        let mut sum = 0;
        for (address, usable) in &self.blocks {
            let bytes = live.get(address).expect("what is held is live");
            assert!(usable <= bytes);
            sum += bytes;
        }
        if exact {
            assert_eq!(figures.allocated, sum + self.own, "and nothing else is");
        }
        assert_eq!(figures.of_heap() + figures.rest, figures.resident);
        let parts: u64 = figures
            .classes
            .iter()
            .map(|class| class.live * class.size)
            .sum();
        assert_eq!(parts + figures.large, figures.allocated);
        let owned: u64 = figures.owners.iter().map(|owned| owned.live).sum();
        assert_eq!(owned, parts);
        assert_eq!(check(source, heap).wrong, Vec::<String>::new());
    }
}

#[test]
fn what_stands_still_is_what_the_process_counts_itself() {
    for form in FORMS {
        for (seed, threads, options) in [
            (1, 1, ""),
            (2, 4, ""),
            (3, 3, "hardened"),
            (4, 2, "quarantine"),
        ] {
            let running = Running::holder(form, seed, threads, options);
            let told = running.told();
            let target = Target::stopped(running.pid()).expect("it can be stopped");
            assert!(!target.is_moving());
            let heap = Heap::read(&*target).expect("it is read");
            assert_eq!(heap.looks, 0);
            told.expect_in(&*target, &heap, threads == 1);
        }
    }
}

#[test]
fn a_process_that_rests_is_read_alike_unstopped_and_from_a_snapshot() {
    let running = Running::holder(Form::Preloaded, 5, 3, "");
    let told = running.told();
    let target = Target::process(running.pid()).expect("it is there");
    let heap = Heap::read(&*target).expect("it is read");
    told.expect_in(&*target, &heap, false);
    let waiting: u32 = heap.slabs.iter().map(|slab| slab.waiting).sum();
    assert!(waiting > 500, "frees of others' blocks wait: {waiting}");
    let file = running.dir.path().join("a.slab");
    let contents = slabside_view::snapshot::Contents::None;
    slabside_view::snapshot::write(&*target, &[heap], &file, contents).expect("it is written");
    let kept = Target::file(&file).expect("it is a snapshot");
    let again = Heap::read(&*kept).expect("it is read");
    told.expect_in(&*kept, &again, false);
}

/// How many blocks its threads have freed.
fn freed(file: &Path, threads: usize) -> u64 {
    let bytes = fs::read(file).expect("the counts");
    let words = bytes.chunks_exact(8).take(threads);
    words
        .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
        .sum()
}

#[test]
fn a_process_at_full_speed_never_shows_fewer_blocks_than_it_has() {
    at_full_speed("");
}

/// Nor does it show more: those that it freed before it was read wait there, and are not its own.
#[test]
fn a_process_at_full_speed_with_a_quarantine_shows_the_blocks_that_it_has() {
    at_full_speed("quarantine:4m");
}

/// 5,000 bytes are of a class that nothing else in the program uses.
fn at_full_speed(options: &str) {
    const THREADS: usize = 2;
    const BLOCKS: u64 = 4000;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("freed");
    let mut command = command(compile("watch/replacer.c", &[]));
    command
        .args([THREADS.to_string(), BLOCKS.to_string(), "5000".into()])
        .arg(&file)
        .envs(environment(Form::Preloaded))
        .env("SLABSIDE_OPTIONS", options);
    let running = Running::start(&mut command, dir);
    let truth = THREADS as u64 * BLOCKS;
    let target = Target::process(running.pid()).expect("it is there");
    let region = find(&*target).expect("it has a heap").swap_remove(0);
    let mut buffers = Buffers::default();
    for _ in 0..1000 {
        let before = freed(&file, THREADS);
        let heap = Heap::of(&*target, region.clone(), &mut buffers)
            .expect("a second look mends what a first one does not");
        let after = freed(&file, THREADS);
        let slabs = heap.slabs.iter().filter(|slab| slab.size == 5120);
        let live: u64 = slabs.map(|slab| u64::from(slab.live)).sum();
        assert!(live >= truth, "{live} of {truth}");
        // Each thread has one block more for a moment, and may have counted a free that comes a moment later.
        let most = truth + after - before + 2 * THREADS as u64;
        assert!(live <= most, "{live} of {truth}, {most} at most");
        buffers = heap.into_buffers();
    }
    let held = Target::stopped(running.pid()).expect("it can be stopped");
    let heap = Heap::read(&*held).expect("it is read");
    let slabs = heap.slabs.iter().filter(|slab| slab.size == 5120);
    let live: u64 = slabs.map(|slab| u64::from(slab.live)).sum();
    assert!((truth..=truth + THREADS as u64).contains(&live), "{live}");
}

#[test]
fn a_process_that_scribbles_over_its_metadata_hangs_no_reader() {
    let program = compile_as(Form::Prefixed, "watch/liar.c", &[]);
    let dir = tempfile::tempdir().expect("a folder");
    let running = Running::start(&mut command(&program), dir);
    let (mut read, mut refused) = (0, 0);
    for round in 0..100 {
        let target = match round % 2 {
            0 => Target::process(running.pid()),
            _ => Target::stopped(running.pid()),
        };
        let target = target.expect("it is there");
        match Heap::read(&*target) {
            Ok(heap) => {
                let figures = Figures::of(&*target, &heap);
                assert_eq!(figures.of_heap() + figures.rest, figures.resident);
                check(&*target, &heap);
                read += 1;
            }
            Err(Error::Contradiction { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(read + refused, 100);
}

// ---- commands ---------------------------------------------------------------------------------

fn slabside(args: &[&str]) -> Output {
    command(&artifacts().command)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the command starts")
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Writes a snapshot of the process `pid` to `file`, with the options `more`.
fn snapshot(pid: &str, file: &str, more: &[&str]) {
    text(&slabside(&[&["snapshot", pid, "-o", file], more].concat()));
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    let printed = text(&slabside(args));
    let value: Value = serde_json::from_str(&printed).expect("JSON");
    let schema = format!("{{\"schema\":\"slabside.{}/1\",", args[0]);
    assert!(printed.starts_with(&schema), "{printed:.80}");
    value
}

fn parts(value: &Value) -> u64 {
    [
        "live",
        "quarantine",
        "waiting",
        "idle_slots",
        "holes",
        "free_pages",
        "kept",
        "metadata",
        "rest",
    ]
    .iter()
    .map(|part| value[part].as_u64().expect("bytes"))
    .sum()
}

/// Of blocks of one size, the only ones of their class, a part is freed and waits in the quarantine.
#[test]
fn what_waits_in_a_quarantine_is_told_apart_by_every_command() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.slab");
    let file = file.to_str().expect("UTF-8");
    let mut command = command(compile("watch/retired.c", &[]));
    command
        .args(["1000", "400"])
        .envs(environment(Form::Preloaded))
        .env("SLABSIDE_OPTIONS", "quarantine:16m");
    let running = Running::start(&mut command, dir);
    let pid = running.pid().to_string();
    snapshot(&pid, file, &["--contents", "all"]);
    let count = |value: &Value| value.as_u64().expect("a number");
    for target in [&[pid.as_str()][..], &[&pid, "--stop"], &[file]] {
        let with = |args: &[&str]| json(&[args, target, &["--json"]].concat());
        let top = with(&["top", "--once"]);
        assert_eq!(top["resident"], parts(&top));
        let classes = top["classes"].as_array().expect("classes");
        let class = classes.iter().find(|class| class["size"] == 5120);
        let class = class.expect("the class of 5,000 bytes");
        let told = (&class["live"], &class["quarantined"]);
        assert_eq!(told, (&600.into(), &400.into()), "{target:?}");
        assert!(count(&top["quarantined_blocks"]) >= 400);
        let bytes = count(&top["quarantined"]);
        assert!((400 * 5120..410 * 5120).contains(&bytes), "{bytes}");
        assert!(count(&top["quarantine"]) <= bytes);
        let owners = top["owners"].as_array().expect("owners").iter();
        let owned: u64 = owners.map(|owned| count(&owned["quarantined"])).sum();
        assert_eq!(owned, bytes);
        let map = with(&["map"]);
        let windows = map["windows"].as_array().expect("windows").iter();
        let runs = windows.flat_map(|window| window["runs"].as_array().expect("runs"));
        let mapped: u64 = runs.map(|run| count(&run["quarantined"])).sum();
        assert_eq!(mapped, bytes);
        let types = with(&["types"]);
        assert_eq!(types["blocks"], top["blocks"]);
        assert_eq!(types["quarantined"]["bytes"], bytes);
        assert_eq!(types["quarantined"]["count"], top["quarantined_blocks"]);
        let types = types["types"].as_array().expect("types").iter();
        let kept = types.filter(|kind| kind["size"] == 5120);
        assert_eq!(kept.map(|kind| count(&kind["count"])).sum::<u64>(), 600);
        let said = |args: &[&str]| text(&slabside(&[args, target].concat()));
        assert!(said(&["types"]).contains(", in a quarantine\n"));
        assert!(said(&["top", "--once"]).contains("\n  quarantine "));
        assert!(said(&["map"]).contains("'q': freed blocks in a quarantine\n"));
    }
    let same = json(&["diff", file, &pid, "--json"]);
    assert_eq!(same["quarantine"], 0);
}

#[test]
fn every_command_says_the_same_of_a_process_and_of_its_snapshot() {
    let running = Running::holder(Form::Preloaded, 7, 2, "");
    let (pid, told) = (running.pid().to_string(), running.told());
    let file = running.dir.path().join("a.slab");
    let file = file.to_str().expect("UTF-8");
    fs::write(file, "a file that all may read").expect("it is written");
    let all = fs::Permissions::from_mode(0o644);
    fs::set_permissions(file, all).expect("it is opened to all");
    let written = json(&["snapshot", &pid, "-o", file, "--contents", "all", "--json"]);
    assert_eq!(written["contents"], "all");
    let mode = fs::metadata(file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for target in [pid.as_str(), file] {
        for stop in [&["--json"][..], &["--json", "--stop"]] {
            let with = |args: &[&str]| json(&[args, stop].concat());
            let top = with(&["top", target, "--once"]);
            assert_eq!(top["allocated"], told.small + told.large);
            assert_eq!(top["resident"], parts(&top));
            assert_eq!(top["pid"].as_u64(), Some(running.pid().into()));
            let map = with(&["map", target, "--pins"]);
            let runs = map["windows"][0]["runs"].as_array().expect("runs");
            assert!(runs.len() > 10 && map["pins"].is_array());
            assert_eq!(with(&["check", target])["whole"], true);
            let (address, bytes) = told.blocks.first_key_value().expect("a block");
            let inside = format!("{:#x}", address + 1);
            let told = &with(&["explain", target, &inside])["addresses"][0];
            assert!(told["what"] == "live" || told["what"] == "large", "{told}");
            assert_eq!(told["block"]["address"], *address);
            assert_eq!(told["block"]["bytes"], *bytes);
            let same = with(&["diff", target, &pid]);
            assert_eq!((&same["new"], &same["gone"]), (&0.into(), &0.into()));
        }
        assert!(text(&slabside(&["map", target])).starts_with("break 0x"));
    }
    let listed = json(&["ps", "--json"]);
    let all = listed["processes"].as_array().expect("a list");
    assert!(all
        .iter()
        .any(|row| row["pid"].as_u64() == Some(running.pid().into())));
    let svg = running.dir.path().join("a.svg");
    text(&slabside(&[
        "map",
        &pid,
        "--svg",
        svg.to_str().expect("UTF-8"),
    ]));
    assert!(fs::read_to_string(svg)
        .expect("written")
        .starts_with("<svg "));
    let metrics = running.dir.path().join("a.prom");
    text(&slabside(&[
        "top",
        &pid,
        "--once",
        "--prometheus",
        metrics.to_str().expect("UTF-8"),
    ]));
    let metrics = fs::read_to_string(metrics).expect("written");
    assert!(metrics.contains(&format!("slabside_allocated_bytes{{pid=\"{pid}\"")));
}

/// The names of all fields in `value`, at whatever depth.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(all) => all.iter().for_each(|(name, value)| {
            found.insert(name.clone());
            fields(value, found);
        }),
        Value::Array(all) => all.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn the_page_on_json_has_each_field_that_is_printed() {
    let running = Running::holder(Form::Preloaded, 8, 2, "profile:1");
    let pid = running.pid().to_string();
    let file = running.dir.path().join("a.slab");
    let file = file.to_str().expect("UTF-8");
    snapshot(&pid, file, &[]);
    let address = format!("{:#x}", running.told().blocks.keys().next().expect("one"));
    let page = include_str!("../../docs/json.md");
    for args in [
        &["ps"][..],
        &["top", &pid, "--once", "--by", "type"],
        &["map", &pid, "--pins", "--by", "class"],
        &["types", &pid, "--show-text"],
        &["explain", &pid, &address, "--who"],
        &["explain", &pid, "0x10"],
        &["snapshot", &pid, "-o", file],
        &["diff", file, &pid],
        &["diff", &pid, "--every", "1ms", "--for", "2ms"],
        &["check", &pid],
        &["run", "--stats", "--children", "--", "true"],
    ] {
        let (first, rest) = args.split_first().expect("a command");
        let output = slabside(&[&[*first, "--json"], rest].concat());
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).expect("UTF-8");
        let line = printed.lines().next().unwrap_or_default();
        let value: Value = serde_json::from_str(line).expect(line);
        let schema = value["schema"].as_str().expect("a schema");
        let (_, section) = page.split_once(&format!("## {schema}\n")).expect(schema);
        let section = section.split("\n## ").next().expect("a section");
        let mut found = BTreeSet::new();
        fields(&value, &mut found);
        for name in ["schema", "function", "file", "line", "module"] {
            // Those of frames are on the page on profiles.
            found.remove(name);
        }
        assert!(found.len() > 3, "{line}");
        for name in found {
            let known = section.contains(&format!("`{name}`"));
            assert!(known, "docs/json.md: {schema} has no {name}");
        }
    }
}

/// Blocks of up to 60,000 bytes: slabs and spans are made and released all the time.
fn mover() -> Running {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = command(compile("watch/replacer.c", &[]));
    command
        .args(["2", "500", "60000"])
        .arg(dir.path().join("freed"))
        .arg("mixed")
        .envs(environment(Form::Preloaded));
    Running::start(&mut command, dir)
}

#[test]
fn a_check_does_not_report_the_changes_of_a_process_at_full_speed() {
    let running = mover();
    let pid = running.pid().to_string();
    for round in 0..60 {
        let stop = if round % 2 == 0 { "--stop" } else { "--json" };
        let output = slabside(&["check", &pid, stop]);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "round {round}: {told} {output:?}");
    }
}

/// The owner word of one slab is overwritten from outside.
#[test]
fn a_check_reports_a_contradiction_that_lasts() {
    let running = Running::holder(Form::Preloaded, 29, 1, "");
    let pid = running.pid().to_string();
    let held = Target::stopped(running.pid()).expect("it can be stopped");
    let heap = Heap::read(&*held).expect("it is read");
    let slab = heap.slabs.first().expect("a slab");
    let header = heap.region.header(slab.id, 1).expect("it has a header");
    let memory = fs::File::options()
        .write(true)
        .open(format!("/proc/{pid}/mem"));
    let released = layout::owner::RELEASED.to_le_bytes();
    let at = header + layout::slab::OWNER as u64;
    let written = memory.and_then(|memory| memory.write_all_at(&released, at));
    written.expect("it can be written");
    drop(held);
    let output = slabside(&["check", &pid, "--stop"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let wanted = format!(
        "at {:#x}: the page map leads to it, and its owner word says released\n",
        slab.base
    );
    assert!(told.contains(&wanted), "{told}");
    assert!(told.contains(": 1 contradiction: "), "{told}");
}

/// The one line that a command ends with, and its status.
fn fails(args: &[&str]) -> (i32, String) {
    let output = slabside(args);
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        output.stdout.is_empty() && told.matches('\n').count() == 1,
        "{told}"
    );
    (
        output.status.code().expect("no signal"),
        told.trim_end().to_string(),
    )
}

#[test]
fn what_cannot_be_read_is_told_in_one_line_with_a_status_of_its_own() {
    let none = (
        "4194304",
        "slabside: process 4194304: there is no such process",
    );
    assert_eq!(fails(&["top", none.0, "--once"]), (127, none.1.into()));
    let (status, told) = fails(&["check", "/no/such.slab"]);
    assert_eq!(status, 127);
    assert!(told.contains("no such file"), "{told}");
    let mut sleep = command("sleep").arg("1000").spawn().expect("it starts");
    // Its loader has to map libc first.
    let maps = format!("/proc/{}/maps", sleep.id());
    let mapped = || fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("libc.so.6"));
    wait_until("sleep's libc", mapped);
    let (status, told) = fails(&["top", &sleep.id().to_string(), "--once"]);
    let _ = sleep.kill();
    let _ = sleep.wait();
    assert_eq!(status, 125);
    assert!(
        told.contains("no slabside heap in it (its malloc is libc.so.6)"),
        "{told}"
    );
    let (status, told) = fails(&["check", "/bin/true"]);
    assert_eq!(status, 125);
    assert!(told.contains("an ELF file, but no core file"), "{told}");
    let snapshot = kept("5.slab");
    let snapshot = snapshot.to_str().expect("UTF-8");
    let (status, told) = fails(&["diff", snapshot, "--every", "1s"]);
    assert_eq!(status, 125);
    assert!(told.contains("is no process number"), "{told}");
    let (status, told) = fails(&["top", "--once", "--heap", "0"]);
    assert_eq!(status, 125);
    assert!(told.contains("a heap of one process"), "{told}");
    assert!(!slabside(&["top", "--once", "--by", "type"])
        .status
        .success());
    let (status, told) = fails(&["check", "/etc/passwd"]);
    assert_eq!(status, 125);
    assert!(
        told.contains("neither a core file nor a snapshot"),
        "{told}"
    );
}

#[test]
fn a_process_that_another_one_traces_is_said_to_be() {
    let running = Running::holder(Form::Preloaded, 1, 1, "");
    let mut target = Target::process(running.pid()).expect("it is there");
    target.stop().expect("it is stopped");
    let (status, told) = fails(&["check", "--stop", &running.pid().to_string()]);
    target.release();
    assert_eq!(status, 126);
    assert!(told.contains(" traces it now"), "{told}");
}

/// A number that is no user's.
pub const STRANGER: u32 = 54_321;

#[test]
fn a_process_of_another_user_is_not_read() {
    let running = Running::holder(Form::Preloaded, 9, 1, "");
    let mut command = command(&artifacts().command);
    command.args(["top", "--once"]);
    // SAFETY: geteuid(2) takes no arguments and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        command
            .arg(running.pid().to_string())
            .uid(STRANGER)
            .gid(STRANGER);
    } else {
        command.arg("1");
    }
    // A folder that the other user can see.
    let output = command.current_dir("/").output();
    let output = match output {
        Ok(output) => output,
        // The build's folder may be closed to others: then the system has refused already.
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            return skipped("the build's folder is closed to other users");
        }
    };
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(126), "{told}");
    assert!(told.contains(
        "not permitted to read it (it belongs to another user): run as that user, or as root with CAP_SYS_PTRACE"
    ));
}

#[test]
fn nothing_in_the_target_is_changed() {
    let running = Running::holder(Form::Preloaded, 11, 2, "");
    let pid = running.pid().to_string();
    let fields = ["VmRSS:", "VmSwap:", "VmPTE:", "VmSize:", "Threads:"];
    let before = fields.map(|field| running.status(field));
    for args in [
        &["top", &pid, "--once"][..],
        &["map", &pid, "--pins"],
        &["check", &pid, "--stop"],
        &["top", &pid, "--once", "--stop"],
    ] {
        text(&slabside(args));
    }
    assert_eq!(fields.map(|field| running.status(field)), before);
    assert!(!running.status("State:").starts_with(['T', 't']));
}

/// The command is killed while it holds the target: it opens a pipe that nobody reads.
#[test]
fn a_target_runs_on_when_the_command_that_stopped_it_is_killed() {
    let running = Running::holder(Form::Preloaded, 13, 2, "");
    let pipe = running.dir.path().join("pipe");
    let made = command("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo starts").success());
    let mut command = command(&artifacts().command)
        .args(["snapshot", "--stop", &running.pid().to_string(), "-o"])
        .arg(&pipe)
        .spawn()
        .expect("it starts");
    let wait_for = |letter| {
        wait_until("the target's state", || {
            running.status("State:").starts_with(letter)
        })
    };
    wait_for('t');
    command.kill().expect("it can be killed");
    command.wait().expect("it has ended");
    wait_for('S');
}

// ---- core files and debuggers -------------------------------------------------------------------

fn gdb(args: &[&str]) -> String {
    let output = command("gdb")
        .args(["-batch", "-nx", "-ex", "set debuginfod enabled off"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("gdb starts");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The three ways of linking: with the archive of names of its own, preloaded, and static.
fn linked() -> Vec<(PathBuf, Vec<(&'static str, &'static str)>)> {
    let replacement = artifacts().replacement.to_str().expect("UTF-8");
    let flags = ["-static", "-Wl,-u,malloc", replacement];
    let mut all: Vec<_> = FORMS
        .map(|form| (compile_as(form, "watch/holder.c", &[]), environment(form)))
        .into_iter()
        .collect();
    all.push((compile("watch/holder.c", &flags), vec![]));
    all
}

/// The core file as the kernel would have written it, which puts notes before what they are about. gdb puts them behind.
fn with_notes_first(core: &Path) -> Vec<u8> {
    let (headers_at, size) = (64, 56);
    let mut bytes = fs::read(core).expect("it can be read");
    let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    let headers = bytes[headers_at..][..count * size].chunks(size);
    let (notes, others): (Vec<_>, Vec<_>) = headers.partition(|one| one[0] == 4);
    let all = [notes, others].concat().concat();
    bytes[headers_at..][..all.len()].copy_from_slice(&all);
    bytes
}

#[test]
fn a_core_file_says_what_the_process_said() {
    if !installed(&["gdb"]) {
        return;
    }
    for (program, environment) in linked() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = command(&program);
        command
            .args(["17", "20000", "2"])
            .arg(dir.path().join("told"))
            .envs(environment);
        let running = Running::start(&mut command, dir);
        let told = running.told();
        let core = running.dir.path().join("core");
        let dump = format!("gcore {}", core.display());
        let pid = running.pid().to_string();
        let said = gdb(&["-p", &pid, "-ex", &dump]);
        assert!(core.is_file(), "{said}");
        let target = Target::file(&core).expect("a core file");
        let heap = Heap::read(&*target).expect("it is read");
        told.expect_in(&*target, &heap, false);
        let turned = running.dir.path().join("turned");
        fs::write(&turned, with_notes_first(&core)).expect("it is written");
        let turned = Target::file(&turned).expect("a core file");
        let names = |target: &Target| -> Vec<String> {
            let all = target.mappings().iter();
            all.map(|mapping| mapping.name.clone()).collect()
        };
        assert_eq!(names(&turned), names(&target));
        let own = program.to_str().expect("UTF-8").to_string();
        assert!(names(&target).contains(&own), "{:?}", names(&target));
        let cut = running.dir.path().join("cut");
        let bytes = fs::read(&core).expect("it can be read");
        fs::write(&cut, &bytes[..bytes.len() / 2]).expect("it is written");
        for (file, is_cut) in [(&core, false), (&cut, true)] {
            let file = file.to_str().expect("UTF-8");
            let told = slabside(&["check", file]).stderr;
            let told = String::from_utf8(told).expect("UTF-8");
            assert_eq!(
                told.contains("the core file is cut short"),
                is_cut,
                "{told}"
            );
        }
        let core = core.to_str().expect("UTF-8");
        let (address, _) = told.blocks.last_key_value().expect("a block");
        let address = format!("{address:#x}");
        let explain =
            |target: &str| json(&["explain", target, &address, "--json"])["addresses"].clone();
        let (live, dead) = (explain(&pid), explain(core));
        for part in ["what", "block"] {
            assert_eq!(live[0][part], dead[0][part]);
        }
        let slots = |told: &Value| told[0]["slots"].as_array().expect("slots").clone();
        for (live, dead) in slots(&live).iter().zip(slots(&dead)) {
            // Of a process a page that was never touched is not read. In the core file it is zero.
            let parts = match live["words"].as_array().is_some_and(Vec::is_empty) {
                true => &["slot", "address", "state"][..],
                false => &["slot", "address", "state", "words", "looks"],
            };
            for part in parts {
                assert_eq!(live[part], dead[part]);
            }
        }
        assert_eq!(slots(&live).len(), slots(&dead).len());
        assert_eq!(json(&["check", core, "--json"])["whole"], true);
    }
}

#[test]
fn gdb_explains_addresses_of_a_process_and_of_a_core() {
    if !installed(&["gdb"]) {
        return;
    }
    let running = Running::holder(Form::Preloaded, 19, 1, "");
    let dir = running.dir.path();
    let script = dir.join("slabside.gdb");
    fs::write(&script, text(&slabside(&["gdb-script"]))).expect("written");
    let script = script.to_str().expect("UTF-8");
    let told = running.told();
    let (address, _) = told.blocks.first_key_value().expect("a block");
    let ask = format!("slabside {address:#x}+1");
    let core = dir.join("core");
    let dump = format!("gcore {}", core.display());
    let pid = running.pid().to_string();
    let wanted = format!("{:#x}: byte 1 of a l", address + 1);
    let said = gdb(&["-p", &pid, "-x", script, "-ex", &ask, "-ex", &dump]);
    assert!(said.contains(&wanted), "{said}");
    let said = gdb(&[
        "-x",
        script,
        "-ex",
        &format!("core-file {}", core.display()),
        "-ex",
        &ask,
    ]);
    assert!(said.contains(&wanted), "{said}");
}

/// What the examples of `slabside gdb-script --help` say works when typed into a shell.
/// A terminal: the side that a program of ours writes, and the side of the program that it shows.
fn terminal() -> (fs::File, fs::File) {
    let (mut ours, mut its) = (0, 0);
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let none = std::ptr::null_mut();
    // SAFETY: the two numbers are written and the size is read. No name and no setting is given.
    let done = unsafe { libc::openpty(&mut ours, &mut its, none, none.cast(), &size) };
    assert_eq!(done, 0, "a terminal");
    // SAFETY: openpty(3) has just opened both, and nobody else has them.
    unsafe { (fs::File::from_raw_fd(ours), fs::File::from_raw_fd(its)) }
}

#[test]
fn the_full_screen_leaves_the_terminal_as_it_was_when_it_is_told_to_end() {
    let running = Running::holder(Form::Preloaded, 1, 1, "");
    let (mut ours, its) = terminal();
    let side = || Stdio::from(its.try_clone().expect("a terminal"));
    let program = artifacts().command.as_os_str();
    let mut top = command(program);
    top.args(["top", &running.pid().to_string()]);
    top.stdin(side()).stdout(side()).stderr(side());
    let mut top = started(|| top.spawn());
    let mut screen = Vec::new();
    let has = |screen: &[u8], wanted: &[u8]| screen.windows(wanted.len()).any(|at| at == wanted);
    let mut read_until = |wanted: &[u8]| {
        let mut part = [0; 4096];
        while !has(&screen, wanted) {
            let bytes = ours.read(&mut part).expect("what it shows");
            screen.extend_from_slice(&part[..bytes]);
        }
    };
    read_until(b"resident");
    // SAFETY: the process is a child that was not waited for.
    unsafe { libc::kill(top.id() as i32, libc::SIGTERM) };
    // The screen of before, and the cursor.
    read_until(b"\x1b[?1049l");
    read_until(b"\x1b[?25h");
    let end = top.wait().expect("its end");
    assert_eq!(end.signal(), Some(libc::SIGTERM));
}

#[test]
fn gdb_takes_the_script_as_the_help_says() {
    if !installed(&["gdb"]) {
        return;
    }
    let running = Running::holder(Form::Preloaded, 19, 1, "");
    let (address, _) = running.told().blocks.pop_first().expect("a block");
    let help = text(&slabside(&["gdb-script", "--help"]));
    let examples = help.split("Examples:\n").nth(1).expect("examples");
    let examples: Vec<&str> = examples
        .lines()
        .map_while(|line| line.strip_prefix("  "))
        .collect();
    let ask = format!("{} -ex \"$ASK\"", running.pid());
    let typed = examples
        .join("\n")
        .replace("gdb -x", "gdb -batch -nx -x")
        .replace("7444", &ask);
    assert!(typed.contains("-batch") && typed.contains(&ask), "{help}");
    let home = tempfile::tempdir().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let beside = artifacts().command.parent().expect("a folder").display();
    let output = command("sh")
        .args(["-c", &typed])
        .env("ASK", format!("slabside {address:#x}"))
        .env("PATH", format!("{beside}:{path}"))
        .env("HOME", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .expect("a shell starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains(&format!("{address:#x}: the start of a l")),
        "{typed}: {output:?}"
    );
}

#[test]
fn a_crash_is_explained_by_its_fault_and_registers() {
    if !installed(&["gdb"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let core = dir.path().join("core");
    let library = artifacts().preload.display();
    let program = compile("watch/holder.c", &[]);
    let said = gdb(&[
        "-ex",
        "set startup-with-shell off",
        "-ex",
        &format!("set environment LD_PRELOAD {library}"),
        "-ex",
        "run",
        "-ex",
        &format!("gcore {}", core.display()),
        "--args",
        program.to_str().expect("UTF-8"),
        "23",
        "20000",
        "1",
        dir.path().join("told").to_str().expect("UTF-8"),
        "crash",
    ]);
    assert!(core.is_file(), "{said}");
    let core = core.to_str().expect("UTF-8");
    let report = json(&["explain", core, "--fault", "--json"]);
    assert_eq!(report["signal"], 11);
    let addresses = report["addresses"].as_array().expect("addresses");
    let named = |name: &str| addresses.iter().find(|one| one["name"] == name);
    let fault = named("fault").expect("it faulted");
    assert_eq!(
        (&fault["address"], &fault["what"]),
        (&0.into(), &"unmapped".into())
    );
    // What it was about to store is a block, in some register.
    let held = |one: &&Value| one["what"] == "live" || one["what"] == "large";
    assert!(addresses.iter().any(|one| held(&one)), "{report}");
    let (rsp, line) = ("$rsp", text(&slabside(&["explain", core, "$rsp"])));
    assert!(
        line.starts_with(rsp) && line.contains("not of the heap"),
        "{line}"
    );
}

// ---- regions of each layout ---------------------------------------------------------------------

/// Regions of the layouts that are read, and what was live in each: as it was told when they were kept.
const KEPT: [(&str, u32, u64, u64); 5] = [
    ("2.slab", 2, 6_521_048, 11_862_016),
    ("3.slab", 3, 8_608_168, 19_947_520),
    ("hardened.slab", 3, 9_357_120, 19_808_256),
    ("4.slab", 4, 8_608_168, 19_939_328),
    ("5.slab", 5, 8_460_712, 19_931_136),
];

/// Whether a process may be started in namespaces of its own. A container or a changed root may forbid it, which is said.
fn has_namespaces() -> bool {
    let mut command = common::command("unshare");
    command.args(["--map-root-user", "--pid", "--mount", "--net", "--ipc"]);
    let made = command.args(["--fork", "true"]).output();
    let made = made.is_ok_and(|made| made.status.success());
    if !made {
        common::skipped("no namespaces can be made here");
    }
    made
}

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/regions")
        .join(name)
}

/// `SLABSIDE_WRITE=1` keeps those of the newest layout anew. [`KEPT`] then says what is told here.
fn keep() {
    let running = Running::holder(Form::Preloaded, 1, 3, "");
    let told = running.told();
    let file = kept("5.slab");
    let pid = running.pid().to_string();
    snapshot(&pid, file.to_str().expect("UTF-8"), &[]);
    println!("{} small, {} large", told.small, told.large);
}

#[test]
fn regions_of_each_layout_are_read() {
    if std::env::var_os("SLABSIDE_WRITE").is_some() {
        keep();
    }
    for (name, layout, small, large) in KEPT {
        let target = Target::file(&kept(name)).expect("a snapshot");
        let heap = Heap::read(&*target).expect("it is read");
        let figures = Figures::of(&*target, &heap);
        assert_eq!(heap.region.version, layout);
        // What it counted itself: what is in a quarantine with what is live.
        let told = figures.allocated - figures.large + figures.quarantined;
        assert_eq!((told, figures.large), (small, large));
        assert_eq!(figures.quarantined > 0, name == "hardened.slab");
        assert_eq!(check(&*target, &heap).wrong, Vec::<String>::new());
    }
}

/// A layout that changed has a new version: what is kept of the newest says of itself what a process says today.
#[test]
fn the_kept_region_of_the_newest_layout_is_laid_out_as_those_of_today() {
    let running = Running::holder(Form::Preloaded, 1, 1, "");
    let target = Target::process(running.pid()).expect("it is there");
    let today = Heap::read(&*target).expect("it is read").region;
    let target = Target::file(&kept("5.slab")).expect("a snapshot");
    let kept = Heap::read(&*target).expect("it is read").region;
    assert_eq!(today.version, kept.version);
    for fact in [
        Fact::PageShift,
        Fact::SpanClass,
        Fact::PairClass,
        Fact::SlabPages,
        Fact::SpanPages,
        Fact::Slots,
        Fact::HeapBytes,
        Fact::RecordBytes,
        Fact::KeptBytes,
        Fact::Counters,
        Fact::SizesBytes,
    ] {
        assert_eq!(today.fact(fact), kept.fact(fact), "{fact:?}");
    }
}
