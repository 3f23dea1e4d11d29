//! The heap profile read from outside: each function's share, the exact total, and the files that are written.

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
    let sums = sums(
        &*target,
        &heap,
        &all,
        Kind::Live,
        &mut Unwinder::new(&*target),
    );
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

#[test]
fn a_static_program_is_profiled_too() {
    let archive = artifacts().replacement.to_str().expect("UTF-8");
    let program = compile(
        "watch/sampled.c",
        &["-static", "-pthread", "-Wl,-u,malloc", archive],
    );
    let (sums, exact) = profile(&sampled(&program, &[], &[]));
    assert_shares(&sums, exact);
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
}

#[test]
fn a_profile_is_begun_and_ended_from_outside() {
    let running = Running::holder(Form::Preloaded, 1, 2, "");
    let pid = running.pid().to_string();
    let refused = slabside(&["profile", &pid]);
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("--on 512k"), "{why}");
    let on = text(&slabside(&["profile", &pid, "--on", "64k"]));
    assert!(on.contains("every 64.0 KiB (before: off)"), "{on}");
    // It allocates nothing more: all is from before.
    let report: Value =
        serde_json::from_str(&text(&slabside(&["profile", &pid, "--json"]))).expect("JSON");
    assert_eq!(report["samples"], 0);
    let function = &report["stacks"][0]["frames"][0]["function"];
    assert_eq!(function, "(allocated before the profile began)");
    let off = text(&slabside(&["profile", &pid, "--off"]));
    assert!(
        off.contains("off (before: a sample every 64.0 KiB)"),
        "{off}"
    );
}

#[test]
fn a_snapshot_without_contents_holds_no_stacks() {
    let program = compile("watch/sampled.c", &["-pthread"]);
    let running = sampled(&program, &[], &environment(Form::Preloaded));
    let (pid, file) = (running.pid().to_string(), running.dir.path().join("a.slab"));
    let file = file.to_str().expect("UTF-8");
    text(&slabside(&["snapshot", &pid, "-o", file]));
    let target = Target::file(Path::new(file)).expect("a snapshot");
    let heap = Heap::read(&*target).expect("it is read");
    let all = samples(&*target, &heap);
    assert!(all.len() > 500);
    assert!(all
        .iter()
        .all(|sample| sample.stack.iter().all(|&byte| byte == 0)));
}
