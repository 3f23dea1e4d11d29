//! The catalogue of misuse: every program of `tests/c/misuse` ends as its first comment says, by default and
//! in hardened mode, and docs/security.md has the table of them all.
//!
//! ```text
//! cargo test --release --test catalogue                        runs them, and compares the table
//! SLABSIDE_WRITE=1 cargo test --release --test catalogue       runs them, and writes the table
//! ```
//!
//! By the option `sizes:check`, those end otherwise that say so.

mod common;

use common::{compile_as, environment, run, Form, Output, FORMS};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

/// The environment that turns hardened mode on.
const HARDENED: (&str, &str) = ("SLABSIDE_OPTIONS", "hardened");
/// The environment that has the sizes of C++'s deletes checked.
const CHECKED: (&str, &str) = ("SLABSIDE_OPTIONS", "sizes:check");

/// A way in which a program may end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    /// SIGABRT, and a line of this form after `slabside: `.
    Abort(String),
    /// SIGSEGV or SIGBUS.
    Fault,
    /// Status 0, these words printed, and the heap whole.
    Sound(String),
}

impl Ending {
    fn parse(text: &str) -> Ending {
        match text.split_once(": ") {
            Some(("abort", line)) => Ending::Abort(line.into()),
            Some(("sound", words)) => Ending::Sound(words.into()),
            _ if text == "fault" => Ending::Fault,
            _ => panic!("no way to end: {text:?}"),
        }
    }

    fn is_of(&self, output: &Output) -> bool {
        match self {
            Ending::Abort(line) => {
                output.signal == Some(libc::SIGABRT)
                    && (output.stderr.lines())
                        .filter_map(|said| said.strip_prefix("slabside: "))
                        .any(|said| begins_like(said, line))
            }
            Ending::Fault => matches!(output.signal, Some(libc::SIGSEGV | libc::SIGBUS)),
            Ending::Sound(words) => {
                output.status == Some(0) && output.stdout.trim_end() == format!("sound: {words}")
            }
        }
    }

    /// As the table tells it.
    fn cell(&self) -> String {
        match self {
            Ending::Abort(line) => format!("ended: *{line}*"),
            Ending::Fault => "fault".into(),
            Ending::Sound(words) => format!("goes on, heap whole: {words}"),
        }
    }
}

/// Whether `said` begins with `form`, in which a word P stands for an address and N for a number.
fn begins_like(said: &str, form: &str) -> bool {
    let is_end = |c: char| !c.is_ascii_alphanumeric();
    let (mut said, mut form) = (said, form);
    while let Some(letter) = form.chars().next() {
        let word = form.split(is_end).next().unwrap_or("");
        let number = said.split(is_end).next().unwrap_or("");
        let stands_for = match word {
            "P" => number.starts_with("0x"),
            "N" => number.parse::<usize>().is_ok(),
            _ => false,
        };
        let step = if stands_for {
            (word.len(), number.len())
        } else if word.is_empty() && said.starts_with(letter) {
            (letter.len_utf8(), letter.len_utf8())
        } else if !word.is_empty() && number.starts_with(word) {
            (word.len(), word.len())
        } else {
            return false;
        };
        form = &form[step.0..];
        said = &said[step.1..];
    }
    true
}

/// What a program's first comment says of it.
#[derive(Debug)]
struct Case {
    /// Its file below `tests/c`.
    file: String,
    attack: String,
    default: Vec<Ending>,
    /// Under `sizes:check`, where that is another one.
    checked: Option<Vec<Ending>>,
    hardened: Vec<Ending>,
    certainty: String,
    mechanism: String,
    forms: Vec<Form>,
}

impl Case {
    fn read(path: &Path) -> Case {
        let text = fs::read_to_string(path).expect("a program can be read");
        let comment = text.split("*/").next().expect("a first comment");
        let find = |key: &str| {
            comment.lines().find_map(|line| {
                let line = line.trim_start_matches(['/', '*', ' ']);
                Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned())
            })
        };
        let field = |key: &str| find(key).unwrap_or_else(|| panic!("{path:?} says no {key}"));
        let parse = |text: String| text.split(" or ").map(Ending::parse).collect();
        let endings = |key: &str| parse(field(key));
        let name = path.file_name().and_then(|name| name.to_str());
        Case {
            file: format!("misuse/{}", name.expect("a name in UTF-8")),
            attack: field("attack"),
            default: endings("default"),
            checked: find("checked").map(parse),
            hardened: endings("hardened"),
            certainty: field("certainty"),
            mechanism: field("mechanism"),
            forms: match find("form").as_deref() {
                None => FORMS.to_vec(),
                Some("prefixed") => vec![Form::Prefixed],
                Some("preloaded") => vec![Form::Preloaded],
                Some(form) => panic!("{path:?}: no form {form}"),
            },
        }
    }

    /// Runs the program in each form. What went otherwise than `endings` says.
    fn try_all(
        &self,
        endings: &[Ending],
        mode: Option<(&'static str, &'static str)>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        for &form in &self.forms {
            let libraries: &[&str] = match self.file.ends_with(".cc") {
                true => &["-Wl,--no-as-needed", "-lstdc++"],
                false => &[],
            };
            let program = compile_as(form, &self.file, libraries);
            let mut variables = environment(form);
            variables.extend(mode);
            let output = run(&program, &[], &variables);
            if !endings.iter().any(|ending| ending.is_of(&output)) {
                wrong.push(format!("{form:?}, expected {endings:?}: {output:#?}"));
            }
        }
        wrong
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All programs by name.
fn catalogue() -> Vec<Case> {
    let folder = fs::read_dir(root().join("tests/c/misuse")).expect("the catalogue is there");
    let mut paths: Vec<PathBuf> = folder
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| kind == "c" || kind == "cc")
        })
        .collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

/// Runs all programs, a few at a time, and expects each to end as `endings` says.
fn run_all(endings: fn(&Case) -> &[Ending], mode: Option<(&'static str, &'static str)>) {
    let cases = catalogue();
    let (next, wrong) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| loop {
                let case = next.lock().expect("no worker panics here").next();
                let Some(case) = case else { break };
                let outcome = case.try_all(endings(case), mode);
                wrong.lock().expect("no worker panics here").extend(outcome);
            });
        }
    });
    let wrong = wrong.into_inner().expect("no worker panicked");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_program_ends_as_it_says_by_default() {
    run_all(|case| &case.default, None);
}

#[test]
fn every_program_of_sizes_ends_as_it_says_where_they_are_checked() {
    let of_sizes = |case: &Case| case.file.contains("sized") || case.checked.is_some();
    let cases: Vec<Case> = catalogue().into_iter().filter(of_sizes).collect();
    let told = cases.iter().filter(|case| case.checked.is_some());
    assert!(told.count() >= 4 && cases.len() >= 10);
    for case in &cases {
        let endings = case.checked.as_ref().unwrap_or(&case.default);
        let wrong = case.try_all(endings, Some(CHECKED));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn every_program_ends_as_it_says_in_hardened_mode() {
    run_all(|case| &case.hardened, Some(HARDENED));
}

/// The kinds of misuse, by the first words of the programs' names.
const KINDS: [&str; 12] = [
    "double_free",
    "invalid_free",
    "write_after_free",
    "read_after_free",
    "overflow",
    "underflow",
    "forged",
    "realloc",
    "usable_size",
    "uninitialised",
    "impossible",
    "sized_delete",
];

#[test]
fn the_catalogue_has_at_least_80_programs_of_every_kind() {
    let cases = catalogue();
    assert!(cases.len() >= 80, "{} programs", cases.len());
    for kind in KINDS {
        let some = cases
            .iter()
            .any(|case| case.file["misuse/".len()..].starts_with(kind));
        assert!(some, "no program of the kind {kind}");
    }
}

#[test]
fn a_form_of_a_line_is_matched_by_its_beginning() {
    let form = "double free of P (slot N of a 48-byte slab)";
    assert!(begins_like(
        "double free of 0x10 (slot 7 of a 48-byte slab), and more",
        form
    ));
    assert!(!begins_like(
        "double free of 0x10 (slot 7 of a 64-byte slab)",
        form
    ));
    assert!(!begins_like(
        "double free of it (slot 7 of a 48-byte slab)",
        form
    ));
    assert!(!begins_like("double free of 0x10", form));
}

/// Where the table begins and ends in docs/security.md.
const MARKS: [&str; 2] = [
    "<!-- the table, written by tests/catalogue.rs -->\n",
    "<!-- the table's end -->\n",
];

fn table() -> String {
    let mut text = String::from(
        "\n| attack | by default | hardened | certain | mechanism | program |\n|---|---|---|---|---|---|\n",
    );
    let cells = |endings: &[Ending]| {
        let cells: Vec<String> = endings.iter().map(Ending::cell).collect();
        cells.join(", or ")
    };
    for case in catalogue() {
        let name = &case.file["misuse/".len()..];
        let checked = match &case.checked {
            Some(endings) => format!("; by `sizes:check` {}", cells(endings)),
            None => String::new(),
        };
        writeln!(
            text,
            "| {} | {}{checked} | {} | {} | {} | [{name}](../tests/c/{}) |",
            case.attack,
            cells(&case.default),
            cells(&case.hardened),
            case.certainty,
            case.mechanism,
            case.file,
        )
        .expect("a string takes all");
    }
    text.push('\n');
    text
}

#[test]
fn the_table_of_the_page_on_security_is_current() {
    let page = root().join("docs/security.md");
    let text = fs::read_to_string(&page).expect("docs/security.md is there");
    let (head, rest) = text.split_once(MARKS[0]).expect("the table's beginning");
    let (old, tail) = rest.split_once(MARKS[1]).expect("the table's end");
    let new = table();
    if std::env::var_os("SLABSIDE_WRITE").is_some() {
        let text = [head, MARKS[0], &new, MARKS[1], tail].concat();
        return fs::write(&page, text).expect("the page can be written");
    }
    assert!(
        old == new,
        "the table is old: SLABSIDE_WRITE=1 cargo test --test catalogue"
    );
}
