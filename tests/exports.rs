//! The names that programs see are those of the table (crates/core/src/api/table.rs) and no others. The header declares each. The
//! library needs nothing but libc, and a static program gets one heap.

mod common;

use common::{artifacts, compile, installed, run};
use object::read::archive::ArchiveFile;
use object::{File, Object, ObjectSection, ObjectSymbol};
use slabside_core::api::table::EXPORTS;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn output_of(command: &str, args: &[&str], file: &Path) -> String {
    let output = common::command(command)
        .args(args)
        .arg(file)
        .output()
        .unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(output.status.success(), "{command} {args:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The names that a shared library exports.
fn exported(library: &Path) -> BTreeSet<String> {
    let bytes = fs::read(library).expect("the library is there");
    let library = File::parse(&*bytes).expect("an object file");
    let symbols = library.dynamic_symbols();
    let exported = symbols.filter(|symbol| symbol.is_global() && !symbol.is_undefined());
    exported.map(name_of).collect()
}

/// The global names that the members of an archive define, or an object that is none. (nm reads an archive of Rust's with
/// a plug-in of LLVM's alone, where members have bitcode.)
fn defined(file: &Path) -> BTreeSet<String> {
    let bytes = fs::read(file).expect("the file is there");
    let Ok(archive) = ArchiveFile::parse(&*bytes) else {
        return globals(&bytes);
    };
    let members = archive.members().map(|member| {
        let member = member.expect("a member");
        globals(member.data(&*bytes).expect("a member's bytes"))
    });
    members.flatten().collect()
}

/// The names that a program defines, its local ones too.
fn defined_anywhere(program: &Path) -> BTreeSet<String> {
    let bytes = fs::read(program).expect("the program is there");
    let program = File::parse(&*bytes).expect("an object file");
    let symbols = program.symbols();
    symbols
        .filter(|symbol| symbol.is_definition())
        .map(name_of)
        .collect()
}

/// The global names that one object defines. A member that is no object (Rust's own notes) has none.
fn globals(bytes: &[u8]) -> BTreeSet<String> {
    let Ok(object) = File::parse(bytes) else {
        return BTreeSet::new();
    };
    let symbols = object.symbols();
    let defined = symbols.filter(|symbol| symbol.is_global() && !symbol.is_undefined());
    // What is weak gives way to a program's own: the compiler's mathematics.
    defined
        .filter(|symbol| !symbol.is_weak())
        .map(name_of)
        .collect()
}

fn name_of<'a>(symbol: impl ObjectSymbol<'a>) -> String {
    symbol.name().expect("a name in UTF-8").to_owned()
}

fn names<'a>(all: impl Iterator<Item = &'a &'static str>) -> BTreeSet<String> {
    all.map(|name| name.to_string()).collect()
}

/// What the preload library has of the loader's, and a static program of its own (preload/src/open.rs).
const LOADERS: [&str; 2] = ["dlmopen", "dlopen"];

/// Seen by the linker alone.
const HIDDEN: [&str; 1] = ["slabside_local"];
/// A variable: where the metadata region begins.
const ANCHOR: &str = "slabside_region";

fn exported_by_preload() -> BTreeSet<String> {
    let rows = EXPORTS.iter();
    names(rows.flat_map(|(plain, prefixed)| plain.iter().chain(prefixed.iter())))
}

#[test]
fn the_preload_library_exports_the_table_and_nothing_else() {
    let exported = exported(&artifacts().preload);
    let mut wanted = exported_by_preload();
    wanted.insert(ANCHOR.into());
    wanted.extend(LOADERS.map(String::from));
    assert_eq!(exported, wanted);
    assert!(wanted.contains("malloc") && wanted.contains("_Znwm"));
    assert!(wanted.contains("slabside_malloc") && wanted.contains("slabside_stats"));
    assert!(wanted.contains("slabside_heap_create") && wanted.len() > 80);
}

/// Names of Rust's own, which every static library of Rust's has. No C program has one with a dot.
fn is_rusts(name: &str) -> bool {
    name.contains('.')
        || name.starts_with("_ZN")
        || name.starts_with("_R")
        || name.starts_with("rust_")
}

#[test]
fn the_static_library_defines_its_own_names_and_none_of_the_systems() {
    let defined = defined(&artifacts().archive);
    let ours = defined
        .iter()
        .filter(|name| name.starts_with("slabside_"))
        .cloned();
    let mut wanted = names(EXPORTS.iter().flat_map(|(_, prefixed)| prefixed.iter()));
    wanted.extend(HIDDEN.map(String::from));
    wanted.insert(ANCHOR.into());
    assert_eq!(ours.collect::<BTreeSet<_>>(), wanted);
    let plain = names(EXPORTS.iter().flat_map(|(plain, _)| plain.iter()));
    let mixed: Vec<_> = defined.intersection(&plain).collect();
    assert!(mixed.is_empty(), "{mixed:?}");
}

#[test]
fn the_archive_for_static_programs_defines_the_same_as_the_preload_library() {
    let defined = defined(&artifacts().replacement);
    let mut wanted = exported_by_preload();
    wanted.extend(HIDDEN.map(String::from));
    wanted.insert(ANCHOR.into());
    let missing: Vec<_> = wanted.difference(&defined).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let more = defined.difference(&wanted);
    // The compiler's arithmetic has names with two underscores.
    let more: Vec<_> = more
        .filter(|name| !is_rusts(name) && !name.starts_with("__"))
        .collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn the_header_declares_each_of_our_own_names() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/slabside.h");
    let header = fs::read_to_string(path).expect("the header");
    let words: BTreeSet<&str> = header
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    for name in EXPORTS.iter().flat_map(|(_, prefixed)| prefixed.iter()) {
        assert!(words.contains(name), "{name} is not declared");
    }
    for word in words {
        let function = word.starts_with("slabside_") && header.contains(&format!("{word}("));
        let known = EXPORTS.iter().any(|(_, prefixed)| prefixed.contains(&word));
        assert!(!function || known, "{word} is declared and not exported");
    }
}

#[test]
fn each_name_is_stated_once() {
    let all: Vec<_> = EXPORTS
        .iter()
        .flat_map(|(plain, prefixed)| plain.iter().chain(prefixed.iter()))
        .collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn the_preload_library_needs_libc_and_nothing_else() {
    if !installed(&["readelf"]) {
        return;
    }
    let needed = output_of("readelf", &["-d"], &artifacts().preload);
    let needed: Vec<&str> = needed
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .collect();
    assert!(
        needed
            .iter()
            .all(|line| line.contains("[libc.so") || line.contains("[ld-linux")),
        "{needed:?}"
    );
    let loaded = output_of("ldd", &[], &artifacts().preload);
    for line in loaded.lines() {
        let known = ["linux-vdso", "libc.so", "ld-linux"];
        assert!(known.iter().any(|name| line.contains(name)), "{line}");
    }
}

fn static_flags() -> Vec<String> {
    let archive = artifacts().replacement.to_str().expect("a path in UTF-8");
    ["-static", "-Wl,-u,malloc", archive]
        .map(String::from)
        .to_vec()
}

#[test]
fn a_static_c_program_has_one_heap() {
    let flags = static_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let program = compile("interface/static.c", &flags);
    assert_eq!(run(&program, &[], &[]).passed(), "done\n");
    // Not a piece of the C library's own malloc was linked.
    let defined = defined_anywhere(&program);
    for name in [
        "_int_malloc",
        "_int_free",
        "__malloc_fork_lock_parent",
        "malloc_consolidate",
    ] {
        assert!(!defined.contains(name), "{name}");
    }
}

#[test]
fn a_static_cplusplus_program_has_one_heap() {
    let mut flags = static_flags();
    flags.insert(0, "-std=c++17".into());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let program = compile("interface/static.cpp", &flags);
    assert_eq!(run(&program, &[], &[]).passed(), "done\n");
}

#[test]
fn a_program_linked_with_the_shared_library_asks_the_heap_that_it_runs_on() {
    let library = artifacts().preload.to_str().expect("a path in UTF-8");
    let program = compile("interface/linked.c", &["-Wl,--no-as-needed", library]);
    // Not installed here, so the loader finds it under its name because it is there already.
    let ended = run(&program, &[], &[("LD_PRELOAD", library)]);
    assert_eq!(ended.passed(), "done\n");
}

/// Whether `name` is matched by a pattern of a linker script, in which `*` stands for anything.
fn is_matched(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut left) = name.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let found = parts.all(|part| match left.split_once(part) {
        Some((_, after)) => {
            left = after;
            true
        }
        None => false,
    });
    found && (pattern.contains('*') || left.is_empty())
}

/// Another compiler may have other functions in line, so a part of the patterns may match nothing.
#[test]
fn the_order_of_the_code_names_functions_that_are_there() {
    const STALE_PART: usize = 10;
    let script = fs::read_to_string("preload/order.ld").expect("the linker script");
    let bytes = fs::read(&artifacts().preload).expect("the library is there");
    let library = File::parse(&*bytes).expect("an object file");
    for part in [".text", ".text.some", ".text.cold"] {
        let (_, after) = script.split_once(&format!(" {part} : {{")).expect(part);
        let (block, _) = after.split_once('}').expect("its end");
        let words = block.split(|c: char| c.is_whitespace() || "()".contains(c));
        let patterns: Vec<&str> = words
            .filter(|word| word.starts_with(".text.") || word.starts_with(".text*"))
            .collect();
        let section = library.section_by_name(part).expect(part);
        let addresses = section.address()..section.address() + section.size();
        let symbols = library
            .symbols()
            .filter(|symbol| addresses.contains(&symbol.address()));
        let names: Vec<String> = symbols
            .map(|symbol| format!(".text.{}", name_of(symbol)))
            .collect();
        let stale: Vec<&&str> = patterns
            .iter()
            .filter(|pattern| !names.iter().any(|name| is_matched(name, pattern)))
            .collect();
        assert!(
            stale.len() <= patterns.len() / STALE_PART,
            "{part}: {stale:?}"
        );
    }
}

/// Where the fast paths lie across one more line of code, a pair takes 5 % longer.
#[test]
fn the_fast_paths_begin_where_a_line_of_code_does() {
    let bytes = fs::read(&artifacts().preload).expect("the library is there");
    let library = File::parse(&*bytes).expect("an object file");
    for name in ["malloc", "free"] {
        let symbol = library
            .dynamic_symbols()
            .find(|symbol| symbol.name() == Ok(name));
        let address = symbol.expect(name).address();
        assert_eq!(address % 64, 0, "{name} at {address:#x}");
    }
}
