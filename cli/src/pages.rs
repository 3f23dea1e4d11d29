//! Tests that the pages for people call the command as it can be called.

use crate::Cli;
use clap::{Command, CommandFactory, Parser};
use std::fs;
use std::path::{Path, PathBuf};

/// README.md and the pages of docs/.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = fs::read_dir(root.join("docs")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
    pages
        .chain(["README.md", "CONTRIBUTING.md", "examples/README.md"].map(|name| root.join(name)))
        .collect()
}

/// The words of a command line up to where the shell takes over.
fn words(line: &str) -> Vec<&str> {
    let shells = ["|", ";", "&&", ">", ">>", "&"];
    line.split_whitespace()
        .take_while(|word| !shells.contains(word))
        .map(|word| word.trim_matches('\''))
        .collect()
}

/// The lines of `text` that are typed at a prompt, from the word `slabside` on.
fn typed(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("$ "))
        .filter(|line| line.starts_with("slabside "))
}

/// The spans of code in `text` that begin with the word `slabside`.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|span| span.starts_with("slabside ") && !span.contains('\n'))
}

/// What is wrong with a command line that stands for many: a command or an option that does not exist.
fn wrong(all: &Command, span: &str) -> Option<String> {
    let words = words(span);
    let name = *words.get(1)?;
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return None;
    }
    let Some(command) = all.find_subcommand(name) else {
        return Some(format!("no command {name}"));
    };
    let options = words.iter().take_while(|word| **word != "--");
    let mut options = options.filter_map(|word| word.trim_start_matches('[').strip_prefix("--"));
    let missing = options.find(|option| {
        let end = |c: char| !c.is_ascii_alphabetic() && c != '-';
        let option = option.split(end).next();
        let mut known = command.get_arguments().map(clap::Arg::get_long);
        !known.any(|known| known == option)
    });
    missing.map(|option| format!("no option --{option}"))
}

#[test]
fn every_command_line_of_the_pages_can_be_typed() {
    let all = Cli::command();
    let (mut seen, mut faults) = (0, Vec::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for line in typed(&text) {
            seen += 1;
            if let Err(error) = Cli::try_parse_from(words(line)) {
                faults.push(format!("{}: {line}: {error}", page.display()));
            }
        }
        for span in quoted(&text) {
            seen += 1;
            faults
                .extend(wrong(&all, span).map(|why| format!("{}: {span}: {why}", page.display())));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 30, "{seen}");
}

#[test]
fn every_example_of_the_help_can_be_typed() {
    let all = Cli::command();
    for command in all.get_subcommands().chain([&all]) {
        let help = command.get_after_help().unwrap().to_string();
        let examples = help.lines().filter_map(|line| line.strip_prefix("  "));
        let examples: Vec<&str> = examples
            .filter(|line| line.starts_with("slabside "))
            .collect();
        for example in &examples {
            let parsed = Cli::try_parse_from(words(example));
            assert!(parsed.is_ok(), "{example}: {}", parsed.err().unwrap());
        }
        let is_known = !examples.is_empty() || command.get_name() == "gdb-script";
        assert!(is_known, "{}", command.get_name());
    }
}
