//! What blocks are: C++ objects, Rust values behind `dyn`, Python objects, and texts, of which nothing is shown unasked.

use super::{json, slabside, snapshot, text, Running};
use crate::common::{command, compile, environment, installed, Form};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A program that waits, under the preloaded library.
pub fn waiting(command: &mut Command) -> Running {
    command.envs(environment(Form::Preloaded));
    Running::start(command, tempfile::tempdir().expect("a folder"))
}

/// A program written in Rust.
pub fn rust_program(file: &str) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/c")
        .join(file);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file.replace(['/', '.'], "-"));
    let output = command("rustc")
        .args(["-O", "--edition", "2021", "-o"])
        .args([&program, &source])
        .output()
        .expect("rustc starts");
    assert!(output.status.success(), "{output:?}");
    program
}

/// How many blocks are of the type, whatever their size.
fn count(report: &Value, what: &str) -> u64 {
    let types = report["types"].as_array().expect("types");
    let of = types.iter().filter(|one| one["what"] == what);
    of.map(|one| one["count"].as_u64().expect("a number")).sum()
}

#[test]
fn objects_of_cplusplus_are_told_by_class_and_texts_by_how_often_they_occur() {
    let program = compile("watch/shapes.cpp", &["-std=c++17"]);
    let running = waiting(&mut command(program));
    let pid = running.pid().to_string();
    let file = running.dir.path().join("a.slab");
    let file = file.to_str().expect("UTF-8");
    snapshot(&pid, file, &["--contents", "all"]);
    for target in [&[pid.as_str()][..], &[&pid, "--stop"], &[file]] {
        let report = json(&[&["types", "--json"], target].concat());
        let circle = "(anonymous namespace)::Circle object";
        assert_eq!(count(&report, circle), 500);
        assert_eq!(count(&report, "(anonymous namespace)::Square object"), 300);
        assert!(count(&report, "text") >= 470, "{report}");
        let first = &report["repeated"][0];
        assert_eq!((&first["count"], &first["size"]), (&400.into(), &32.into()));
        assert!(report["doubles"]["count"].as_u64() >= Some(399));
        let sum = |field: &str| -> u64 {
            let all = report["types"].as_array().expect("types").iter();
            all.map(|one| one[field].as_u64().expect("a number")).sum()
        };
        let top = json(&[&["top", "--once", "--json"], target].concat());
        assert_eq!(top["blocks"], sum("count"));
        assert_eq!(top["allocated"], sum("bytes"));
        let secret = "said by four hundred blocks";
        let unasked = text(&slabside(&[&["types"], target].concat()));
        assert!(unasked.contains("the same text, e.g. at 0x"), "{unasked}");
        assert!(!unasked.contains(secret) && !report.to_string().contains(secret));
        let shown = text(&slabside(&[&["types", "--show-text"], target].concat()));
        assert!(shown.contains(secret), "{shown}");
    }
}

/// The first words of a block say what it is, but not whether the rest of it is the same.
#[test]
fn of_a_snapshot_only_what_its_contents_tell_is_told() {
    let running = waiting(&mut command(compile("watch/shapes.cpp", &["-std=c++17"])));
    let pid = running.pid().to_string();
    let place = |name: &str| running.dir.path().join(name).display().to_string();
    let (heads, none) = (place("heads.slab"), place("none.slab"));
    snapshot(&pid, &heads, &["--contents", "heads"]);
    snapshot(&pid, &none, &[]);
    let report = json(&["types", "--json", &heads]);
    assert_eq!(count(&report, "(anonymous namespace)::Circle object"), 500);
    for field in ["texts", "doubles", "repeated"] {
        assert!(report.get(field).is_none(), "{report}");
    }
    for (args, least) in [
        (&["types", &none][..], "--contents heads"),
        (
            &["top", "--once", "--by", "type", &none],
            "--contents heads",
        ),
        (&["map", "--by", "type", &none], "--contents heads"),
        (&["explain", "--who", &heads, "0"], "--contents all"),
    ] {
        let refused = slabside(args);
        assert_eq!(refused.status.code(), Some(125), "{args:?}");
        let told = String::from_utf8(refused.stderr).expect("UTF-8");
        assert!(told.contains(least), "{told}");
    }
}

#[test]
fn values_of_rust_behind_dyn_are_told_by_the_pointers_to_them() {
    let running = waiting(&mut command(rust_program("watch/dynamic.rs")));
    let report = json(&["types", "--json", &running.pid().to_string()]);
    assert_eq!(count(&report, "dynamic::Labelled (dyn)"), 250, "{report}");
    assert_eq!(count(&report, "dynamic::Ring (dyn)"), 600, "{report}");
}

#[test]
fn objects_of_python_are_told_by_type() {
    if !installed(&["python3"]) {
        return;
    }
    let script = "
class Thing: pass
lists = [[i, i + 1, i + 2] for i in range(700)]
things = [Thing() for i in range(300)]
print('ready', flush=True)
import time
time.sleep(1000)";
    let mut command = command("python3");
    command.args(["-c", script]).env("PYTHONMALLOC", "malloc");
    let report = json(&["types", "--json", &waiting(&mut command).pid().to_string()]);
    let (lists, things) = (
        count(&report, "python list"),
        count(&report, "python Thing"),
    );
    assert!(lists >= 700 && things >= 300, "{lists} {things}");
}
