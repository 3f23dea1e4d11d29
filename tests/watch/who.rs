//! Who points to a block, what blocks look like, and the other questions that read contents.

use super::{json, slabside, snapshot, text, Running};
use crate::common::{command, compile, environment, Form};
use serde_json::Value;
use std::fs;

#[test]
fn explain_who_tells_what_points_to_a_block_and_into_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("told");
    let mut command = command(compile("watch/pointers.c", &[]));
    command.arg(&file).envs(environment(Form::Preloaded));
    let running = Running::start(&mut command, dir);
    let pid = running.pid().to_string();
    let told = fs::read_to_string(file).expect("addresses");
    let addresses: Vec<&str> = told.split_whitespace().collect();
    let args = [&["explain", &pid, "--who", "--json"], &addresses[..]].concat();
    let report = json(&args);
    let all = report["addresses"].as_array().expect("addresses");
    let places = |index: usize| -> Vec<String> {
        let holders = all[index]["holders"].as_array().expect("holders");
        let places = holders.iter().map(|one| one["place"].as_str());
        places
            .map(|place| place.expect("a text").to_string())
            .collect()
    };
    let by_outer = format!("at {}", addresses[0]);
    let holds = |places: &[String], part: &str| places.iter().any(|place| place.contains(part));
    assert!(holds(&places(0), "the variable global"), "{:?}", places(0));
    assert!(holds(&places(1), &by_outer), "{:?}", places(1));
    assert!(holds(&places(2), &by_outer), "{:?}", places(2));
    assert_eq!(places(3), Vec::<String>::new(), "itself alone");
    let told = text(&slabside(&["explain", &pid, "--who", addresses[3]]));
    assert!(told.contains("held by: nobody"), "{told}");
    let looks = |places: &[String]| places.iter().any(|place| place.ends_with(')'));
    assert!(looks(&places(1)), "{:?}", places(1));
    let bare = ["explain", &pid, "--who", "--no-contents", addresses[1]];
    let told = text(&slabside(&bare));
    assert!(told.contains(&by_outer), "{told}");
    assert!(!told.contains("pointer to"), "{told}");
}

/// Types and groups sum up to what the classes say, of a process, stopped or not, and of its snapshot.
#[test]
fn tables_by_type_and_by_owner_add_up() {
    let running = Running::holder(Form::Preloaded, 41, 3, "");
    let pid = running.pid().to_string();
    let file = running.dir.path().join("a.slab");
    let file = file.to_str().expect("UTF-8");
    snapshot(&pid, file, &["--contents", "heads"]);
    for target in [&[pid.as_str()][..], &[&pid, "--stop"], &[file]] {
        let top = json(&[&["top", "--once", "--json", "--by", "type"], target].concat());
        let types = top["types"].as_array().expect("types");
        let sum =
            |field: &str| -> u64 { types.iter().map(|one| one[field].as_u64().unwrap()).sum() };
        assert_eq!(sum("count"), top["blocks"].as_u64().expect("a number"));
        assert_eq!(sum("bytes"), top["allocated"].as_u64().expect("bytes"));
        for by in ["class", "owner", "type"] {
            let printed = text(&slabside(
                &[&["top", "--once", "--by", by], target].concat(),
            ));
            assert!(printed.lines().count() > 11, "{printed}");
            let map = json(&[&["map", "--json", "--by", by], target].concat());
            let groups = map["groups"].as_array().expect("groups");
            let slabs: u64 = groups
                .iter()
                .map(|one| one["slabs"].as_u64().unwrap())
                .sum();
            assert_eq!(slabs, map["sparse"]["slabs"].as_u64().expect("a number"));
        }
    }
}

/// The fields of each JSON, as scripts rely on them.
#[test]
fn the_fields_of_each_json_are_those_that_are_documented() {
    let running = Running::holder(Form::Preloaded, 43, 2, "");
    let pid = running.pid().to_string();
    let top = json(&["top", &pid, "--once", "--json"]);
    for field in [
        "schema",
        "time",
        "pid",
        "program",
        "stopped",
        "took_ms",
        "held_ms",
        "heaps",
        "resident",
        "live",
        "waiting",
        "idle_slots",
        "holes",
        "free_pages",
        "kept",
        "metadata",
        "rest",
        "allocated",
        "blocks",
        "classes",
        "owners",
    ] {
        assert!(top.get(field).is_some(), "{field}");
    }
    for (list, fields) in [
        (
            "classes",
            &[
                "size", "span", "slabs", "slots", "live", "idle", "waiting", "held", "pinned",
            ][..],
        ),
        (
            "owners",
            &[
                "heap", "index", "tid", "name", "doing", "slabs", "live", "waiting",
            ],
        ),
    ] {
        for field in fields {
            assert!(top[list][0].get(field).is_some(), "{list}: {field}");
        }
    }
    assert!(top["held_ms"].is_null());
    let held = json(&["top", &pid, "--once", "--json", "--stop"])["held_ms"].clone();
    assert!(held.as_f64() > Some(0.0), "{held}");
    let map = json(&["map", &pid, "--json"]);
    for field in ["address", "pages", "slab", "size", "live", "resident"] {
        assert!(map["windows"][0]["runs"][0].get(field).is_some(), "{field}");
    }
}

/// Where the kernel does not track idle pages it is said, and nothing else is printed.
#[test]
fn idle_pages_are_told_or_why_not() {
    let running = Running::holder(Form::Preloaded, 47, 1, "");
    let output = slabside(&["map", &running.pid().to_string(), "--idle", "0"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            told.contains(" resident were not touched for 0 s"),
            "{told}"
        );
    } else {
        assert_eq!(
            (output.status.code(), error.lines().count()),
            (Some(125), 1),
            "{error}"
        );
        assert!(error.contains("CONFIG_IDLE_PAGE_TRACKING"), "{error}");
    }
}

/// A live small block, a freed one, a freed large one, and one of no bytes: what `freed` tells, and `explain` of them.
fn freed(options: &str) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("told");
    let mut command = command(compile("watch/freed.c", &[]));
    command
        .arg(&file)
        .envs(environment(Form::Preloaded))
        .env("SLABSIDE_OPTIONS", options);
    let running = Running::start(&mut command, dir);
    let pid = running.pid().to_string();
    let told = fs::read_to_string(file).expect("addresses");
    let addresses: Vec<&str> = told.split_whitespace().collect();
    let report = json(&[&["explain", &pid, "--json"], &addresses[..]].concat());
    let all = report["addresses"].as_array().expect("addresses").iter();
    let field = |one: &Value, name: &str| one[name].as_str().expect("a text").to_string();
    all.map(|one| (field(one, "what"), field(one, "line")))
        .collect()
}

#[test]
fn explain_tells_that_a_block_was_freed_and_waits_in_a_quarantine() {
    for options in ["hardened", "quarantine"] {
        let told = freed(options);
        assert_eq!(told[0].0, "live", "{options}: {told:?}");
        assert_eq!(told[1].0, "quarantine", "{options}: {told:?}");
        let line = "the start of a block that was freed and waits in a quarantine: a block of ";
        assert!(told[1].1.starts_with(line), "{options}: {told:?}");
    }
    let told = freed("hardened");
    for closed in &told[2..] {
        assert!(closed.1.contains("may be a freed large block"), "{told:?}");
    }
    assert_eq!(freed("")[1].0, "free");
}
