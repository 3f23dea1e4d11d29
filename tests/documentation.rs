//! The pages for people: their links lead somewhere, the files, items and tests that they name exist, the book's summary
//! lists them all, and the README keeps what others rely on.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// The pages of `directory`.
fn pages_in(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect()
}

/// A page without what stands between fences.
fn prose(text: &str) -> String {
    let mut inside = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    };
    text.lines().filter(outside).collect::<Vec<_>>().join("\n")
}

/// What the page links to: `[words](target)`.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .collect()
}

/// A heading as a link names it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let text: String = heading.trim().to_lowercase().chars().filter(kept).collect();
    text.replace(' ', "-")
}

#[test]
fn every_link_within_the_project_leads_somewhere() {
    let mut broken = Vec::new();
    for page in [".", "docs", "bench", "fuzz", "examples"]
        .into_iter()
        .flat_map(pages_in)
    {
        let text = prose(&read(&page));
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.with_file_name("").join(file),
            };
            let found = target.exists()
                && (section.is_empty()
                    || read(&target)
                        .lines()
                        .filter(|line| line.starts_with('#'))
                        .any(|line| anchor(line.trim_start_matches('#')) == section));
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_books_summary_lists_every_page_once() {
    let summary = read(&root().join("docs/SUMMARY.md"));
    let (of_the_project, listed): (Vec<&str>, Vec<&str>) = links(&summary)
        .into_iter()
        .partition(|link| link.starts_with("../"));
    assert_eq!(
        of_the_project,
        [
            "../README.md",
            "../examples/README.md",
            "../ARCHITECTURE.md",
            "../CONTRIBUTING.md",
            "../CHANGELOG.md"
        ]
    );
    let names = pages_in("docs");
    let mut names: BTreeSet<String> = names
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.remove("SUMMARY.md");
    assert_eq!(listed.len(), names.len());
    assert_eq!(
        listed
            .into_iter()
            .map(String::from)
            .collect::<BTreeSet<_>>(),
        names
    );
}

/// Lines of a page that a reader looks over without a summary.
const SHORT: usize = 100;

#[test]
fn long_pages_begin_with_a_summary() {
    // Tables of figures are written by their program, and begin with the sums of all rows or what the rows count.
    let tables = ["docs/benchmarks.md", "docs/counts.md"];
    let pages = pages_in("docs").into_iter();
    let pages = pages.filter(|page| !tables.iter().any(|table| page.ends_with(table)));
    for page in pages {
        let text = read(&page);
        let top = text
            .lines()
            .take(5)
            .any(|line| line.starts_with("**In short.**"));
        assert!(top || text.lines().count() <= SHORT, "{}", page.display());
    }
}

/// The lines of each table that a program wrote between its marks, by the table's name.
fn written_tables<'a>(text: &'a str, program: &str) -> Vec<(&'a str, Vec<&'a str>)> {
    let mark = format!(", written by {program} -->");
    let mut tables = Vec::new();
    for part in text.split("<!-- ").skip(1) {
        let (first, rest) = part.split_once('\n').unwrap_or((part, ""));
        if let Some(name) = first.strip_suffix(mark.as_str()) {
            let lines = rest.lines().filter(|line| !line.is_empty());
            tables.push((name, lines.collect()));
        }
    }
    tables
}

/// Whether `line` is as `shape`, in which a dash stands for a figure.
fn is_shaped_like(line: &str, shape: &str) -> bool {
    let parts = |line: &'_ str| -> Vec<String> {
        let parts: Vec<&str> = match line.starts_with('|') {
            true => line.split('|').collect(),
            false => line.split(' ').collect(),
        };
        let bare = |part: &&str| part.trim_matches([' ', ',', '.']).to_owned();
        parts.iter().map(bare).collect()
    };
    let (parts, shape) = (parts(line), parts(shape));
    let fits =
        |(part, shape): (&String, &String)| shape == "-" && !part.is_empty() || part == shape;
    parts.len() == shape.len() && parts.iter().zip(&shape).all(fits)
}

#[test]
fn the_tables_on_security_are_as_their_program_writes_them() {
    let program = root().join("bench/security.sh");
    let wanted = common::run(&program, &["--shape"], &[]).passed();
    let page = read(&root().join("docs/security.md"));
    let wanted = written_tables(&wanted, "bench/security.sh");
    let found = written_tables(&page, "bench/security.sh");
    let names = |tables: &[(&str, Vec<&str>)]| -> BTreeSet<String> {
        tables.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    assert_eq!(names(&wanted), names(&found));
    assert!(wanted.len() >= 3);
    for (name, shape) in wanted {
        let (_, lines) = found
            .iter()
            .find(|found| found.0 == name)
            .expect("as asserted");
        assert_eq!(lines.len(), shape.len(), "{name}");
        for (line, shape) in lines.iter().zip(shape) {
            assert!(is_shaped_like(line, shape), "{name}: {line} is not {shape}");
        }
    }
}

#[test]
fn the_readme_is_short_and_begins_with_the_two_commands() {
    let readme = read(&root().join("README.md"));
    assert!(readme.split_whitespace().count() <= 900);
    let blocks: Vec<&str> = readme
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks[0].starts_with("cargo build --release --workspace"));
    assert!(blocks[1].starts_with("cargo test --workspace"));
}

/// The cells of a table's line.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_matches('|').split('|');
    inner.map(|cell| cell.trim().trim_matches('*')).collect()
}

/// What stands in the column `head` of the first row of `page` that begins with the cells `first`.
fn cell<'a>(page: &'a str, first: &[&str], head: &str) -> &'a str {
    let mut heads = Vec::new();
    for line in page.lines() {
        match line.starts_with('|') {
            false => heads.clear(),
            true if heads.is_empty() => heads = cells(line),
            true if cells(line).starts_with(first) => {
                let column = heads.iter().position(|&one| one == head);
                return cells(line)[column.unwrap_or_else(|| panic!("{first:?}: no {head}"))];
            }
            true => {}
        }
    }
    panic!("no row {first:?}")
}

/// Whether `short` is the figure `long`, rounded to fewer digits.
fn is_rounded(short: &str, long: &str) -> bool {
    let digits = short.split_once('.').map_or(0, |(_, part)| part.len());
    let number = |text: &str| text.parse::<f64>().expect("a number");
    (number(short) - number(long)).abs() <= 0.5 * 0.1f64.powi(digits as i32) + 1e-9
}

#[test]
fn the_readme_compares_what_the_benchmarks_say() {
    let readme = read(&root().join("README.md"));
    let benchmarks = read(&root().join("docs/benchmarks.md"));
    for (row, of) in [
        (
            "MB resident one second after 80 MB were freed",
            &["a second and 1,000 calls later"][..],
        ),
        (
            "bytes resident per live byte, 500,000 blocks of 8 bytes",
            &["500000", "8"],
        ),
        ("ns a pair of malloc and free, 64 bytes", &["pair-64"]),
        ("ns a replacement, 20,000 live blocks", &["churn-20k"]),
        ("ns a replacement, 100 MB live", &["heap-100m"]),
    ] {
        for (name, there) in [
            ("slabside", "slabside"),
            ("glibc", "glibc"),
            ("mimalloc 2", "mimalloc2"),
            ("jemalloc", "jemalloc"),
        ] {
            let (said, found) = (cell(&readme, &[row], name), cell(&benchmarks, of, there));
            assert!(is_rounded(said, found), "{row}, {name}: {said} for {found}");
        }
    }
    for (said, of) in [("of the time", "Time"), ("of the memory", "Peak resident")] {
        let line = format!("- {of}, divided by mimalloc2's, geometric mean of all rows: **");
        let (_, rest) = benchmarks.split_once(&line).expect("the mean");
        let (mean, _) = rest.split_once("**").expect("its end");
        assert!(readme.contains(&format!("{mean} {said}")), "{mean} {said}");
    }
}

/// The text of all files under `directory`.
fn sources(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text.push_str(&read(&path));
        }
    }
}

/// The directories of the crates that the allocator is made of. Pages name files by their place in one of them.
const SOURCES: [&str; 4] = [
    "src",
    "crates/core/src",
    "crates/base/src",
    "crates/sim/src",
];

/// The allocator's source.
fn source_of_the_allocator() -> String {
    let mut source = String::new();
    for directory in SOURCES {
        sources(&root().join(directory), &mut source);
    }
    source
}

/// The places where a file that a page names may lie: the root, and the allocator's crates.
fn places() -> impl Iterator<Item = PathBuf> {
    let top = std::iter::once(root().to_path_buf());
    top.chain(SOURCES.map(|directory| root().join(directory)))
}

/// Whether the source has what ARCHITECTURE.md names so: a file, or an item.
fn is_in_source(name: &str, source: &str) -> bool {
    if name.ends_with(".rs") || name.ends_with('/') || name.ends_with(".toml") {
        return places().any(|place| place.join(name).exists());
    }
    let item = name.rsplit("::").next().expect("a last part");
    let ends = |rest: &str| !rest.starts_with(|c: char| c == '_' || c.is_alphanumeric());
    let word = |kind: &str| source.split(&format!("{kind} {item}")).skip(1).any(ends);
    ["fn", "struct", "enum", "trait", "const", "mod"]
        .into_iter()
        .any(word)
        || source.contains(&format!("    {item}: "))
        || source.contains(&format!("    {item} ="))
}

#[test]
fn the_architecture_names_what_the_source_has() {
    let source = source_of_the_allocator();
    let page = prose(&read(&root().join("ARCHITECTURE.md")));
    let names: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
    let is_name = |name: &&&str| {
        let named = |c: char| c.is_alphanumeric() || "_:./".contains(c);
        name.chars().all(named) && !["make", "malloc", "free"].contains(*name)
    };
    let missing: Vec<_> = names
        .iter()
        .filter(is_name)
        .filter(|name| {
            !is_in_source(name, &source) && **name != "MADV_WIPEONFORK" && **name != "_Fork"
        })
        .collect();
    assert!(names.len() > 50, "the page names {} things", names.len());
    assert!(missing.is_empty(), "{missing:?}");
}

/// Every page for people, with its text outside fences.
fn all_pages() -> Vec<(PathBuf, String)> {
    let directories = [".", "docs", "bench", "fuzz", "examples"];
    let pages = directories.into_iter().flat_map(pages_in);
    pages
        .map(|page| {
            let text = prose(&read(&page));
            (page, text)
        })
        .collect()
}

/// What stands between back quotes in `text` and has only the characters of names and paths.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    let named = |name: &&str| {
        let plain = |c: char| c.is_alphanumeric() || "_:./-".contains(c);
        !name.is_empty() && name.chars().all(plain)
    };
    text.split('`').skip(1).step_by(2).filter(named)
}

/// Fails with the names of all pages that are in `belongs` and not in `exists`.
fn check_names(belongs: impl Fn(&str) -> bool, exists: impl Fn(&Path, &str) -> bool) -> usize {
    let (mut checked, mut missing) = (0, Vec::new());
    for (page, text) in all_pages() {
        for name in names_in(&text).filter(|name| belongs(name)) {
            checked += 1;
            if !exists(&page, name) {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    checked
}

#[test]
fn every_file_that_a_page_names_exists() {
    let places = |page: &Path| {
        let beside = page.with_file_name("");
        places().chain([beside]).collect::<Vec<_>>()
    };
    // `target/` and what the build puts there are no part of the source.
    let belongs = |name: &str| {
        let first = name.split_once('/').map(|(first, _)| first);
        first.is_some_and(|first| {
            let is_directory = |place: PathBuf| place.join(first).is_dir();
            first != "target" && !first.is_empty() && places(root()).into_iter().any(is_directory)
        })
    };
    let exists = |page: &Path, name: &str| {
        let found = |place: PathBuf| place.join(name).exists();
        places(page).into_iter().any(found)
    };
    let checked = check_names(belongs, exists);
    assert!(checked > 100, "the pages name {checked} files");
}

#[test]
fn every_item_that_a_page_names_by_its_path_exists() {
    let source = source_of_the_allocator();
    // CMake's targets look alike.
    let targets = ["slabside::slabside", "slabside::static"];
    let belongs = |name: &str| {
        let (first, rest) = name.split_once("::").unwrap_or(("", name));
        let is_ours =
            first.starts_with("slabside") || first != "std" && is_in_source(first, &source);
        !first.is_empty() && !rest.contains(['.', '-']) && is_ours && !targets.contains(&name)
    };
    let exists = |_: &Path, name: &str| {
        let item = name.rsplit("::").next().expect("a last part");
        is_in_source(name, &source) || source.contains(&format!("macro_rules! {item}"))
    };
    let checked = check_names(belongs, exists);
    assert!(checked > 40, "the pages name {checked} items");
}

#[test]
fn every_test_that_a_page_names_exists() {
    let mut source = String::new();
    for directory in ["src", "crates", "tests", "cli", "view"] {
        sources(&root().join(directory), &mut source);
    }
    let is_word = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    // The tests' names are sentences. No other allocator's name in these pages is as long.
    let belongs = |name: &str| name.chars().all(is_word) && name.matches('_').count() >= 5;
    let exists = |_: &Path, name: &str| source.contains(&format!("fn {name}("));
    let checked = check_names(belongs, exists);
    assert!(checked > 80, "the pages name {checked} tests");
}

#[test]
fn the_architecture_names_each_function_with_the_file_that_has_it() {
    let page = prose(&read(&root().join("ARCHITECTURE.md")));
    let parts: Vec<&str> = page.split('`').collect();
    let mut checked = 0;
    // `name` (`file`
    for at in (1..parts.len() - 2).step_by(2) {
        let (name, between, file) = (parts[at], parts[at + 1], parts[at + 2]);
        if between.trim_start() != "(" || !file.ends_with(".rs") {
            continue;
        }
        let item = name.rsplit("::").next().expect("a last part");
        let files: Vec<PathBuf> = places().map(|place| place.join(file)).collect();
        let found = files.iter().filter(|path| path.exists()).any(|path| {
            let text = read(path);
            ["fn", "struct", "enum", "trait", "const"]
                .into_iter()
                .any(|kind| text.contains(&format!("{kind} {item}")))
        });
        assert!(found, "{name} is not in {file}");
        checked += 1;
    }
    assert!(
        checked >= 10,
        "the page names {checked} functions with their files"
    );
}

/// The notes in `source` that say why an unsafe block is sound, each in one line.
fn safety_notes(source: &str) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    let mut open = false;
    for line in source.lines() {
        let comment = line.trim_start().strip_prefix("//").map(str::trim);
        match comment.map(|text| (text, text.strip_prefix("SAFETY:"))) {
            Some((_, Some(note))) => {
                notes.push(note.trim().to_owned());
                open = true;
            }
            Some((more, None)) if open => *notes.last_mut().expect("a note") += &format!(" {more}"),
            _ => open = false,
        }
    }
    notes
}

#[test]
fn safety_notes_name_a_condition_and_who_guarantees_it() {
    // Four words hold no condition with its guarantor.
    let mut short = Vec::new();
    let mut checked = 0;
    for directory in [
        "src",
        "crates",
        "cli",
        "view",
        "capi",
        "preload",
        "static",
        "bench/src",
    ] {
        let mut source = String::new();
        sources(&root().join(directory), &mut source);
        let notes = safety_notes(&source);
        checked += notes.len();
        let is_short = |note: &String| note.split_whitespace().count() <= 4;
        short.extend(notes.into_iter().filter(is_short));
    }
    assert!(checked > 300, "there are {checked} notes");
    assert!(short.is_empty(), "{short:#?}");
}
