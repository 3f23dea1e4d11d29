//! `slabside manual`: the manual pages of the command and of the options, made of what they describe.
//!
//! ```text
//!   clap's definition   NAME, SYNOPSIS, DESCRIPTION, OPTIONS, SUBCOMMANDS
//!   its `after_help`    a section for each paragraph that begins with a heading: "Examples:", "Exit status:" ...
//!   table of options    slabside-options(7)
//! ```
//!
//! The page slabside(3) is about the C functions and lies in packaging/slabside.3.

use crate::options::{default, values};
use crate::Cli;
use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::roff::{bold, roman, Roff};
use clap_mangen::Man;
use slabside_base::options::TABLE;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Write the manual pages of the command and of the options to a directory
///
/// They are slabside(1), a page for each command, and slabside-options(7). `make install` installs them, and the page
/// slabside(3) about the C functions. This command is for an installation by cargo.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  slabside manual ~/.local/share/man/man1 && man slabside-run

Exit status: 0, or 125 if a page cannot be written.")]
pub struct Args {
    /// The directory. It is created if it does not exist
    directory: PathBuf,
}

/// Name and version, as the foot of a page has them.
const SOURCE: &str = concat!("slabside ", env!("CARGO_PKG_VERSION"));

/// The date of a page: none, as roff reads it.
const NO_DATE: &str = "\"\"";

/// Writes slabside.1, a page for each command, and slabside-options.7.
pub fn write(args: &Args) -> Result<()> {
    let failed = || format!("cannot write to '{}'", args.directory.display());
    fs::create_dir_all(&args.directory).with_context(failed)?;
    write_pages(&args.directory).with_context(failed)
}

fn write_pages(directory: &Path) -> io::Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let all = command.get_subcommands().chain([&command]);
    for one in all {
        let name = format!("{}.1", display_name(one));
        fs::write(directory.join(name), page_of(one)?)?;
    }
    fs::write(directory.join("slabside-options.7"), options_page())
}

/// `slabside-run` for `slabside run`.
fn display_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

/// The page of a command.
fn page_of(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let man = man.date(NO_DATE).source(SOURCE).manual("slabside");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    synopsis(command).to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_help() {
        sections(&text.to_string()).to_writer(&mut page)?;
    }
    see_also(command).to_writer(&mut page)?;
    Ok(page)
}

/// How the command is called, as its help says.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let mut section = Roff::new();
    section.control("SH", ["SYNOPSIS"]);
    section.text([roman(usage.trim_start_matches("Usage: "))]);
    section
}

/// Paragraphs under the headings that they begin with. What has none is NOTES. Lines that are set in stay as they are.
fn sections(text: &str) -> Roff {
    let mut sections = Roff::new();
    let mut under = "";
    for paragraph in text.split("\n\n") {
        let (heading, body) = headed(paragraph).unwrap_or(("Notes", paragraph));
        if heading == under {
            sections.control("PP", []);
        } else {
            sections.control("SH", [heading.to_uppercase().as_str()]);
        }
        under = heading;
        let is_verbatim = body.starts_with("  ");
        if is_verbatim {
            sections.control("nf", []);
        }
        for line in body.lines() {
            sections.text([roman(line)]);
        }
        if is_verbatim {
            sections.control("fi", []);
        }
    }
    sections
}

/// The heading of a paragraph, and the rest.
fn headed(paragraph: &str) -> Option<(&str, &str)> {
    const HEADINGS: [&str; 6] = [
        "Examples",
        "Exit status",
        "Environment",
        "Files",
        "Keys",
        "Addresses",
    ];
    let (heading, rest) = paragraph.split_once(':')?;
    let body = rest.strip_prefix('\n').unwrap_or_else(|| rest.trim_start());
    HEADINGS.contains(&heading).then_some((heading, body))
}

fn see_also(command: &Command) -> Roff {
    let mut pages = vec![
        "slabside(1)",
        "slabside-run(1)",
        "slabside-options(7)",
        "slabside(3)",
    ];
    let own = format!("{}(1)", display_name(command));
    pages.retain(|page| *page != own);
    let mut section = Roff::new();
    section.control("SH", ["SEE ALSO"]);
    section.text([roman(pages.join(", "))]);
    section
}

const ABOUT: &str = "\
The allocator reads its options once, at the process's first allocation. They can be given in three ways:";

/// Where options come from. The first has the last word.
const WAYS: [&str; 3] = [
    "The environment variable SLABSIDE_OPTIONS contains them as name:value,name:value. `slabside run --option` adds to \
     it. Set-user-id programs ignore it.",
    "The program calls slabside_option_set(\"name\", \"value\") before it allocates.",
    "The program defines the variable const char *slabside_options = \"name:value,name:value\". A Rust program writes \
     slabside::options!(\"name:value\").",
];

const PRECEDENCE: &str = "\
If an option is given more than once, the earlier of these ways wins. Within one text the last item wins.";

const FORMS: &str = "\
An equals sign can stand in place of the colon, _ in place of -, and capital letters in place of small ones. The name \
of an on|off option alone means on, and so do 1, true and yes. 0, false and no mean off. Sizes may end in k, m or g \
(powers of 1024; 8m, 8MB and 8MiB are the same), times in ms, s, min or h. The allocator reports an item that it does \
not understand in one line on standard error, with the nearest name or the possible values, and uses the other items.";

const EXAMPLES: &str = "\
  SLABSIDE_OPTIONS=decay:1s,misuse:report LD_PRELOAD=libslabside.so.0 ./server
  slabside run --option hardened -- ./server
  slabside run --option limit-hard=2GiB --option stats:heap.txt -- ./server";

/// The page slabside-options(7).
fn options_page() -> String {
    let mut page = Roff::new();
    page.control("TH", ["slabside-options", "7", NO_DATE, SOURCE, "slabside"]);
    page.control("SH", ["NAME"]);
    page.text([roman(
        "slabside-options - the options of the memory allocator slabside",
    )]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("SLABSIDE_OPTIONS="), roman("name:value,name:value")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(ABOUT)]);
    for (way, number) in WAYS.into_iter().zip(["1.", "2.", "3."]) {
        page.control("IP", [number, "4"]);
        page.text([roman(way)]);
    }
    for paragraph in [PRECEDENCE, FORMS] {
        page.control("PP", []);
        page.text([roman(paragraph)]);
    }
    page.control("SH", ["OPTIONS"]);
    for spec in &TABLE {
        page.control("TP", []);
        page.text([bold(spec.word), roman(format!(":{}", values(spec)))]);
        let (meaning, default) = (sentence(spec.meaning), default(spec));
        page.text([roman(format!("{meaning} (default: {default}).",))]);
        page.control("IP", []);
        page.text([roman(format!("{}.", spec.effect))]);
    }
    page.control("SH", ["EXAMPLES"]);
    page.control("nf", []);
    for line in EXAMPLES.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("slabside(1), slabside-run(1), slabside(3)")]);
    page.render()
}

/// `text` with a capital letter in front, unless it begins with a word of code.
fn sentence(text: &str) -> String {
    match text.split_at_checked(1) {
        Some((first, rest)) if !text.starts_with("realloc(") => first.to_uppercase() + rest,
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn pages() -> (tempfile::TempDir, impl Fn(&str) -> String) {
        let directory = tempfile::tempdir().unwrap();
        write_pages(directory.path()).unwrap();
        let path = directory.path().to_path_buf();
        let page = move |name: &str| {
            let text = fs::read_to_string(path.join(name)).unwrap();
            text.replace("\\-", "-").replace("\\*(Aq", "'")
        };
        (directory, page)
    }

    #[test]
    fn there_is_a_page_for_each_command_and_one_for_the_options() {
        let (_directory, page) = pages();
        assert!(page("slabside.1").contains("slabside-run(1)"));
        let options = page("slabside-options.7");
        for spec in &TABLE {
            let said = sentence(spec.meaning);
            assert!(
                options.contains(spec.word)
                    && options.contains(&said)
                    && options.contains(spec.effect),
                "{}",
                spec.word
            );
        }
    }

    #[test]
    fn every_page_explains_the_command_its_options_and_statuses_and_has_an_example() {
        let (_directory, page) = pages();
        let mut command = Cli::command();
        command.build();
        for command in command
            .get_subcommands()
            .filter(|one| one.get_name() != "help")
        {
            let name = command.get_name();
            let page = page(&format!("slabside-{name}.1"));
            for section in [
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "EXAMPLES",
                "\"EXIT STATUS\"",
                "\"SEE ALSO\"",
            ] {
                assert!(
                    page.contains(&format!(".SH {section}\n")),
                    "{name}: {section}"
                );
            }
            assert!(
                !page.contains(".SH NOTES"),
                "{name}: a paragraph without a heading"
            );
            let about = command.get_long_about();
            assert!(about.is_some(), "{name}: what it does is not explained");
            for option in command.get_arguments() {
                let help = option
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(!help.is_empty(), "{name} {}", option.get_id());
            }
        }
        for section in ["ENVIRONMENT", "FILES", "EXAMPLES"] {
            assert!(
                page("slabside.1").contains(&format!(".SH {section}\n")),
                "{section}"
            );
        }
    }

    /// A file of the source tree.
    fn source(name: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        fs::read_to_string(root.join(name)).unwrap()
    }

    /// C's header without comments, directives and C++.
    fn declarations() -> String {
        let header = source("include/slabside.h");
        let (c, _) = header.split_once("#if __cplusplus").unwrap();
        let code: String = c
            .split("/*")
            .map(|part| part.split_once("*/").map_or(part, |(_, code)| code))
            .collect();
        let lines = code.lines().filter(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn spaced(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What a line of the page looks like, set by `.B` or `.BI`.
    fn set(line: &str) -> Option<String> {
        let line = line.strip_prefix(".B")?.trim_start_matches('I');
        let text = match line.contains('"') {
            true => line
                .split('"')
                .enumerate()
                .map(|(place, part)| match place % 2 {
                    1 => part.to_string(),
                    _ => part.split_whitespace().collect(),
                })
                .collect(),
            false => line.to_string(),
        };
        Some(spaced(text.trim_end_matches(';')))
    }

    #[test]
    fn the_page_of_the_c_functions_declares_what_the_header_declares() {
        let declarations = declarations();
        let functions: BTreeSet<String> = declarations
            .split(';')
            .filter_map(|one| one.rsplit(['{', '}']).next())
            .filter(|one| one.contains("slabside_") && one.contains('('))
            .map(spaced)
            .collect();
        let page = source("packaging/slabside.3");
        let (synopsis, text) = page.split_once(".SH DESCRIPTION").unwrap();
        let on_the_page: BTreeSet<String> = synopsis
            .lines()
            .filter_map(set)
            .filter(|line| line.contains('(') && !line.starts_with('#'))
            .collect();
        assert_eq!(functions, on_the_page);
        for (_, names) in slabside_core::api::table::EXPORTS {
            for name in names.iter() {
                assert!(synopsis.contains(name) && text.contains(name), "{name}");
            }
        }
        let (_, fields) = declarations.split_once("struct slabside_stats {").unwrap();
        let (fields, _) = fields.split_once('}').unwrap();
        for field in fields
            .split("size_t")
            .filter_map(|field| field.trim().strip_suffix(';'))
        {
            assert!(text.contains(&format!("\n{field}\t")), "{field}");
        }
    }
}
