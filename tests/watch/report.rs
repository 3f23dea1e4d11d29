//! `slabside run` tells the truth: of the program, of those that it starts, and of what it could not do.

use super::slabside;
use crate::common::{artifacts, command, compile, wait_until};
use serde_json::Value;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};

fn run(options: &[&str], program: &[&str]) -> Output {
    let library = artifacts().preload.to_str().expect("UTF-8");
    slabside(&[&["run", "--library", library], options, &["--"], program].concat())
}

/// The figures that `slabside run --json` reports of `handed.c`.
fn reported(args: &[&str]) -> Value {
    let program = compile("watch/handed.c", &[]);
    let program = [&[program.to_str().expect("UTF-8")], args].concat();
    let output = run(&["--json"], &program);
    assert!(output.status.success());
    serde_json::from_slice(&output.stderr).expect("JSON")
}

#[test]
fn what_was_handed_out_is_exact_at_the_end() {
    let handed = |n: &str| {
        reported(&[n])["heap"]["handed_out"]
            .as_u64()
            .expect("bytes")
    };
    let (one, two) = (handed("100"), handed("337"));
    assert_eq!(two - one, 237 * 48);
    let live = |n: &str| reported(&[n])["heap"]["live"].as_u64().expect("bytes");
    assert_eq!(live("337") - live("100"), 237 * 48);
}

#[test]
fn what_lives_when_nobody_counts_is_unknown() {
    let report = reported(&["100", "without a last count"]);
    assert_eq!(report["complete"], false);
    assert!(report["heap"]["live"].is_null() && report["heap"]["at_end"].is_null());
    for class in report["heap"]["slabs"].as_array().expect("classes") {
        assert!(class["live"].is_null() && class["count"].as_u64() > Some(0));
    }
    for told in ["handed_out", "peak"] {
        assert_ne!(report["heap"][told], 0, "{told}: never what it cannot be");
    }
}

/// Live blocks and bytes by class, in spans and in large blocks, are all that is live. Fragmentation is told.
#[test]
fn what_lives_is_told_by_class() {
    let of_48 = |report: &Value| {
        let classes = report["heap"]["slabs"].as_array().expect("classes").clone();
        let found = classes.into_iter().find(|class| class["size"] == 48);
        found.map_or(0, |class| class["live"].as_u64().expect("a number"))
    };
    let (one, two) = (reported(&["100"]), reported(&["337"]));
    assert_eq!(of_48(&two) - of_48(&one), 237);
    for report in [one, two] {
        assert_eq!(report["schema"], "slabside.run/1");
        let heap = &report["heap"];
        let bytes = |value: &Value| value.as_u64().expect("bytes");
        let classes = heap["slabs"].as_array().expect("classes");
        let in_slabs: u64 = classes
            .iter()
            .map(|class| bytes(&class["live_bytes"]))
            .sum();
        let end = &heap["at_end"];
        let all = in_slabs + bytes(&end["live_in_spans"]) + bytes(&end["live_in_large"]);
        assert_eq!(all, bytes(&heap["live"]));
        let idle = bytes(&end["idle_slots"]) + bytes(&end["idle_spans"]);
        let part = end["fragmentation"].as_f64().expect("a part");
        let wanted = idle as f64 / (in_slabs + bytes(&end["live_in_spans"]) + idle) as f64;
        assert!((part - wanted).abs() < 1e-4, "{part} {wanted}");
    }
}

/// A block that the program has freed and that waits in a quarantine is not live.
#[test]
fn what_waits_in_a_quarantine_is_not_live() {
    let program = compile("hardened/figures.c", &[]);
    let program = program.to_str().expect("UTF-8");
    let options = "SLABSIDE_OPTIONS=quarantine:64m";
    let output = run(&["--json"], &["env", options, program]);
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let report: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    let heap = &report["heap"];
    let bytes = |value: &Value| value.as_u64().expect("bytes");
    let waiting = bytes(&heap["at_end"]["quarantine"]);
    assert_eq!(waiting.to_string(), printed.trim());
    assert!(
        waiting > 3 << 20 && bytes(&heap["live"]) < 1 << 20,
        "{heap}"
    );
    assert!(bytes(&heap["peak"]) >= waiting);
    let of_5120 = |class: &&Value| class["size"] == 5120;
    let classes = heap["slabs"].as_array().expect("classes");
    let class = classes.iter().find(of_5120).expect("the blocks' class");
    assert_eq!(class["live"], 0);
}

/// A record for each process: those of programs that end, that fork, that become another program, and that are killed.
#[test]
fn each_process_of_a_tree_has_a_record() {
    let program = compile("watch/handed.c", &[]);
    let program = program.to_str().expect("UTF-8");
    let script = format!(
        "{program} 100 & {program} 200 & wait; ({program} 300 now); sh -c 'exec {program} 400'; exit 3"
    );
    let output = run(&["--json", "--children"], &["sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    let records: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record a line"))
        .collect();
    let mut pids: Vec<&Value> = records.iter().map(|one| &one["pid"]).collect();
    let all = pids.len();
    pids.sort_by_key(|pid| pid.as_u64());
    pids.dedup();
    assert_eq!(pids.len(), all, "each process once: {told}");
    let first: Vec<&Value> = records.iter().filter(|one| one["exit_code"] == 3).collect();
    assert_eq!(first.len(), 1, "the program itself: {told}");
    assert_eq!(first[0]["program"], "sh");
    let name = Path::new(program)
        .file_name()
        .and_then(|name| name.to_str());
    let name: String = name.expect("UTF-8").chars().take(15).collect();
    let mut blocks = Vec::new();
    for record in &records {
        assert_eq!(record["schema"], "slabside.run/1");
        assert!(record["parent"].as_u64() > Some(0));
        if record["program"].as_str() != Some(&name) {
            continue;
        }
        let classes = record["heap"]["slabs"].as_array().expect("classes").clone();
        let of_48 = classes.into_iter().find(|class| class["size"] == 48);
        blocks.push(of_48.expect("a class")["live"].as_u64());
    }
    blocks.sort();
    // The third ended by _exit.
    assert_eq!(blocks.len(), 4, "{told}");
    assert_eq!(blocks[0], None);
    let counts: Vec<u64> = blocks.into_iter().flatten().collect();
    let steps: Vec<u64> = counts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(steps, [100, 200], "100, 200 and 400 blocks: {told}");
    let table = run(&["--children"], &["sh", "-c", &script]);
    let table = String::from_utf8(table.stderr).expect("UTF-8");
    assert!(
        table.starts_with("slabside: ") && table.contains(&name),
        "{table}"
    );
}

#[test]
fn a_fork_child_that_goes_on_has_a_record_of_its_own() {
    let program = compile("watch/sleeper.c", &[]);
    let program = program.to_str().expect("UTF-8");
    let output = run(&["--json", "--children"], &[program, "dumpable", "ends"]);
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    let records: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record a line"))
        .collect();
    assert_eq!(records.len(), 2, "{told}");
    assert_eq!(records[1]["parent"], records[0]["pid"]);
    assert!(records.iter().all(|one| one["complete"] == true), "{told}");
    let live = |record: &Value| record["heap"]["live"].as_u64().expect("bytes");
    assert_eq!(
        live(&records[0]),
        live(&records[1]),
        "both hold the same: {told}"
    );
}

/// `--stats=FILE` and the option `stats:FILE` both add to what is there.
#[test]
fn figures_are_added_to_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("figures");
    fs::write(&file, "before\n").expect("written");
    let stats = format!("--stats={}", file.display());
    for _ in 0..2 {
        assert!(run(&[&stats, "--json"], &["true"]).status.success());
    }
    let option = format!("stats:{}", file.display());
    assert!(run(&["--option", &option], &["true"]).status.success());
    let told = fs::read_to_string(&file).expect("figures");
    assert!(told.starts_with("before\n"));
    let is_record = |line: &&str| {
        let record: Result<Value, _> = serde_json::from_str(line);
        record.is_ok_and(|record| record["schema"] == "slabside.run/1")
    };
    assert_eq!(told.lines().filter(is_record).count(), 2, "one on a line");
    assert_eq!(told.matches(" bytes live\n").count(), 1);
}

/// What cannot be preloaded runs all the same, and one line says so, with figures or without.
#[test]
fn a_static_program_is_told_of_once() {
    let program = compile("watch/handed.c", &["-static"]);
    let program = program.to_str().expect("UTF-8");
    let plain = run(&[], &[program, "1"]);
    assert!(plain.status.success());
    let told = String::from_utf8(plain.stderr).expect("UTF-8");
    assert_eq!(
        told,
        format!("slabside: '{program}' is linked statically, so it keeps its own malloc\n")
    );
    let told = String::from_utf8(run(&["--stats"], &[program, "1"]).stderr).expect("UTF-8");
    assert_eq!(told.matches("did not attach").count(), 1, "{told}");
    let told = run(&["--json"], &[program, "1"]).stderr;
    let told: Value = serde_json::from_slice(&told).expect("JSON and nothing else");
    assert!(told["heap"].is_null());
}

/// Where the command is killed, the program goes on, and its own end is as ever.
#[test]
fn the_program_goes_on_when_the_command_is_killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ready, go, done) = (
        dir.path().join("ready"),
        dir.path().join("go"),
        dir.path().join("done"),
    );
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; while [ ! -e {1} ]; do sleep 0.02; done; x=$(seq 1000); echo ${{#x}} > {2}.new; mv {2}.new {2}",
        ready.display(),
        go.display(),
        done.display()
    );
    for way in [&["--stats"][..], &["--stats", "--children"]] {
        let mut runner = command(&artifacts().command)
            .args(["run", "--library"])
            .arg(&artifacts().preload)
            .args(way)
            .args(["--", "sh", "-c", &script])
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let wait_for = |file: &Path| wait_until("the script's file", || file.exists());
        wait_for(&ready);
        runner.kill().expect("it can be killed");
        runner.wait().expect("it has ended");
        fs::write(&go, "").expect("written");
        wait_for(&done);
        assert_eq!(fs::read_to_string(&done).expect("a number"), "3892\n");
        for file in [&ready, &go, &done] {
            fs::remove_file(file).expect("removed");
        }
    }
}

/// Functions are named where the command stays with the program, and lines where there is debug information.
#[test]
fn reports_of_misuse_get_the_names_of_functions() {
    let program = compile("watch/twice.c", &["-g"]);
    let program = program.to_str().expect("UTF-8");
    let hardened = ["--option", "hardened"];
    let plain = run(&hardened, &[program]);
    let plain = String::from_utf8(plain.stderr).expect("UTF-8");
    assert!(
        plain.contains("double free of 0x") && !plain.contains("free_twice"),
        "{plain}"
    );
    for how in [&["--symbolize"][..], &["--stats"], &["--leaks"]] {
        let output = run(&[how, &hardened].concat(), &[program]);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        let (first, named) = told
            .split_once("slabside: the same with names:\n")
            .expect("names");
        assert!(
            first.starts_with(plain.split("0x").next().expect("a line")),
            "{told}"
        );
        assert!(named.contains(" in free_twice twice.c:"), "{told}");
        assert!(named.contains(" in main twice.c:"), "{told}");
        let frames = |text: &str| text.matches("\n    at 0x").count();
        assert_eq!(frames(first), frames(named), "{told}");
    }
    let quiet = run(&["--symbolize"], &["true"]);
    assert_eq!((quiet.status.success(), quiet.stderr.len()), (true, 0));
}
