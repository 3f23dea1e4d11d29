//! `slabside leaks`: blocks that the program has lost.

use super::{brief, grouped, human, json, print, several, statuses, time, Common};
use anyhow::{bail, Context, Result};
use serde::Serialize;
use slabside_view::leaks::{search, Found, Group, Proof, Reachable, Search, Sum, Suppressed};
use slabside_view::source::{About, Target};
use slabside_view::unwind::Frame;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Groups that are listed, and lines below each.
const GROUPS: usize = 40;
const BELOW: usize = 5;
/// Stacks that are listed of each group.
const STACKS: usize = 3;

/// Find blocks that the program has lost: live, and no pointer leads to them
///
/// The process goes on while it is searched. Before, it is stopped for as long as it takes to read its registers. Then
/// it is stopped for a moment, in which it is proved that nothing leads to the blocks that were found. With --stop it
/// is stopped for the whole search, with --no-stop not at all. Blocks are listed by type: first those that no other
/// block leads to, and below them what only they lead to. Where the process takes a heap profile, the stacks of those
/// that were sampled stand with them.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside leaks 7444
  slabside leaks 7444 --track 10m
  slabside leaks core --json
  slabside leaks 7444 --fail --suppressions known.txt

Files:
  A file of suppressions has lines of the form leak:NAME, as LeakSanitizer reads them.
  Blocks are left out whose type has NAME in it, and what they lead to. Where blocks were
  sampled, NAME is also looked for in each function of the stack, in its source file, and in
  its program or library. In NAME * stands for anything, ^ at its start and $ at its end for
  those of the name. Lines that begin with # are comments.

", statuses!("0, or 1 if --fail is given and blocks are lost or look lost")))]
pub struct Args {
    /// What to read: a process number, a core file or a snapshot file with all contents
    target: String,

    /// How often the running process is searched before the proof: a number, or auto: until few blocks are left or nothing
    /// more is left out
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = passes)]
    passes: Passes,

    /// Do not stop the process: what is found are candidates, of which some may be in use
    #[arg(long, conflicts_with = "stop")]
    no_stop: bool,

    /// Exit with status 1 if blocks are lost, or look lost where some memory cannot be read
    #[arg(long, conflicts_with = "no_stop")]
    fail: bool,

    /// Search again and again for so many seconds, and print what stays lost; ms, s, min or h may follow
    #[arg(long, value_name = "TIME", value_parser = time)]
    track: Option<Duration>,

    /// Leave out blocks whose types or stacks this file names
    #[arg(long, value_name = "FILE")]
    suppressions: Option<PathBuf>,

    /// Also print how many blocks are held, and how many of them by pointers into their middle alone. Implies --stop
    #[arg(long, conflicts_with = "no_stop")]
    kinds: bool,

    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passes(Option<u32>);

fn passes(text: &str) -> std::result::Result<Passes, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Passes(None)),
        Ok(number) if number > 0 => Ok(Passes(Some(number))),
        _ => Err("a number of at least 1, or auto".into()),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    pid: u32,
    program: &'a str,
    lost: &'a [Group],
    /// Lost blocks and bytes with all below.
    count: u64,
    bytes: u64,
    suppressed: Sum,
    candidates: u64,
    proved: bool,
    passes: u32,
    held_ms: Option<f64>,
    unscanned: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reachable: Option<Reachable>,
}

/// Prints what is lost. Returns the exit status.
pub fn run(args: &Args) -> Result<i32> {
    let suppressions = Suppressions::read(args.suppressions.as_deref())?;
    let mut target = Target::open(&args.target, false)?;
    let how = Search {
        passes: args.passes.0,
        proof: match (args.no_stop, args.common.stop || args.kinds) {
            (true, _) => Proof::None,
            (_, true) => Proof::Whole,
            _ => Proof::Short,
        },
        track: args.track,
        kinds: args.kinds,
    };
    let about = target.about();
    let found = suppressions.search(&mut target, args.common.heap, &how)?;
    let told = Told::new(&about, &target.name(), found);
    print(&told.text(args.common.json)?)?;
    Ok(i32::from(args.fail && !told.found.lost.is_empty()))
}

/// What is told of a program.
pub struct Told {
    about: About,
    title: String,
    found: Found,
}

impl Told {
    /// Of the program that `about` tells of.
    pub fn new(about: &About, name: &str, found: Found) -> Told {
        let title = match (about.program.as_str(), about.pid) {
            ("", _) => name.into(),
            (program, 0) => program.into(),
            (program, pid) => format!("{program} ({pid})"),
        };
        Told {
            about: about.clone(),
            title,
            found,
        }
    }

    /// For people, or as JSON.
    pub fn text(&self, as_json: bool) -> Result<String> {
        match as_json {
            true => self.json(),
            false => Ok(self.table()),
        }
    }

    fn json(&self) -> Result<String> {
        let (found, all) = (&self.found, sum(&self.found.lost));
        json(&Report {
            schema: "slabside.leaks/1",
            pid: self.about.pid,
            program: &self.about.program,
            lost: &found.lost,
            count: all.count,
            bytes: all.bytes,
            suppressed: found.suppressed,
            candidates: found.candidates,
            proved: found.proved,
            passes: found.passes,
            held_ms: found
                .held
                .map(|held| (held.as_secs_f64() * 1e6).round() / 1e3),
            unscanned: found.unscanned,
            reachable: found.reachable,
        })
    }

    fn table(&self) -> String {
        let (found, all) = (&self.found, sum(&self.found.lost));
        let word = if found.proved { "lost" } else { "candidates" };
        let mut text = format!(
            "{}: {word}: {}, {} ({})\n",
            self.title,
            several(all.count, "block"),
            human(all.bytes),
            self.how()
        );
        for group in found.lost.iter().take(GROUPS) {
            let _ = writeln!(
                text,
                "{}  {}, e.g. {:#x}",
                row("", group),
                group.what,
                group.example
            );
            text += &stacks(group);
            for below in group.below.iter().take(BELOW) {
                let _ = writeln!(
                    text,
                    "{}  {}, held by these alone",
                    row("  ", below),
                    below.what
                );
            }
            if let Some(rest) = group.below.get(BELOW..).filter(|rest| !rest.is_empty()) {
                let rest = sum(rest);
                let _ = writeln!(
                    text,
                    "    and {}, {}, held by these alone",
                    several(rest.count, "more block"),
                    human(rest.bytes)
                );
            }
        }
        if let Some(rest) = found.lost.get(GROUPS..).filter(|rest| !rest.is_empty()) {
            let types = several(rest.len() as u64, "more type");
            let _ = writeln!(text, "and {types} (--json lists all)");
        }
        if found.suppressed.count > 0 {
            let Sum { count, bytes } = found.suppressed;
            let _ = writeln!(
                text,
                "suppressed: {}, {}",
                several(count, "block"),
                human(bytes)
            );
        }
        if found.unscanned > 0 {
            let _ = writeln!(
                text,
                "not scanned: {}, which cannot be read: a block that looks lost may be held there",
                human(found.unscanned)
            );
        }
        text += &found.reachable.map_or(String::new(), kinds);
        text
    }

    fn how(&self) -> String {
        let passes = several(self.found.passes.into(), "pass");
        match self.found.held {
            Some(held) => format!("{passes}, stopped for {:.1} ms", held.as_secs_f64() * 1e3),
            None => passes,
        }
    }
}

fn row(before: &str, group: &Group) -> String {
    format!(
        "{before}{:>9} x {:>9}  {:>10}",
        grouped(group.count),
        human(group.size),
        human(group.bytes)
    )
}

/// Who allocated the blocks that were sampled.
fn stacks(group: &Group) -> String {
    let shown = group.stacks.iter().take(STACKS);
    let mut text: String = shown
        .map(|one| {
            let (samples, stack) = (grouped(one.samples), brief(&one.frames));
            format!("        by {stack} ({samples} sampled)\n")
        })
        .collect();
    if let Some(rest) = group.stacks.get(STACKS..).filter(|rest| !rest.is_empty()) {
        let _ = writeln!(
            text,
            "        by {}",
            several(rest.len() as u64, "other stack")
        );
    }
    text
}

fn kinds(reachable: Reachable) -> String {
    let line = |what: &str, sum: Sum| {
        let (blocks, bytes) = (several(sum.count, "block"), human(sum.bytes));
        format!("{what}: {blocks}, {bytes}\n")
    };
    line(
        "held by pointers into their middle alone",
        reachable.possibly,
    ) + &line("held by pointers to their start", reachable.still)
}

fn sum(groups: &[Group]) -> Sum {
    let all = groups.iter().map(Group::sum);
    all.fold(Sum::default(), |sum, (count, bytes)| Sum {
        count: sum.count + count,
        bytes: sum.bytes + bytes,
    })
}

/// Which blocks are not to be told.
#[derive(Default)]
pub struct Suppressions(Vec<String>);

impl Suppressions {
    /// Reads a file in the form of LeakSanitizer's. None where no file is given.
    pub fn read(file: Option<&Path>) -> Result<Suppressions> {
        let Some(file) = file else {
            return Ok(Suppressions::default());
        };
        let text = fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read '{}'", file.display()))?;
        Suppressions::parse(&text)
    }

    fn parse(text: &str) -> Result<Suppressions> {
        let mut all = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.strip_prefix("leak:") {
                Some(pattern) => all.push(pattern.into()),
                None => bail!("'{line}' is no suppression of the form leak:NAME"),
            }
        }
        Ok(Suppressions(all))
    }

    /// Whether a block of the type `what`, allocated by `stack`, is one of them.
    fn hold(&self, what: &str, stack: &[Frame]) -> bool {
        let frames = stack
            .iter()
            .flat_map(|frame| [&frame.function, &frame.file, &frame.module]);
        let mut names = frames.map(String::as_str).chain([what]);
        names.any(|name| self.0.iter().any(|pattern| matches(pattern, name)))
    }

    /// Searches with them.
    pub fn search(
        &self,
        target: &mut Target,
        heap: Option<usize>,
        how: &Search,
    ) -> slabside_view::Result<Found> {
        let hold = |what: &str, stack: &[Frame]| self.hold(what, stack);
        let suppressed: Option<Suppressed<'_>> = match self.0.is_empty() {
            true => None,
            false => Some(&hold),
        };
        search(target, heap, how, suppressed)
    }
}

/// Whether `pattern` lies in `text`, as LeakSanitizer decides it: its parts between stars one behind the other, each at the
/// first place where it lies. Nothing lies in an empty text.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut start, mut pattern) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut rest = text;
    let mut star = false;
    while let Some(first) = pattern.chars().next().filter(|_| !text.is_empty()) {
        match first {
            '*' => {
                (start, star) = (false, true);
                pattern = &pattern[1..];
                continue;
            }
            '$' => return star || rest.is_empty(),
            _ => {}
        }
        let end = pattern.find(['*', '$']).unwrap_or(pattern.len());
        let (part, behind) = pattern.split_at(end);
        let Some(at) = rest.find(part).filter(|&at| at == 0 || !start) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        (start, star, pattern) = (false, false, behind);
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppressions_are_read_as_leaksanitizer_reads_them() {
        let all = Suppressions::parse("# known\n\nleak:Circle\n leak:^python *list$\n").unwrap();
        let name = |what: &str| all.hold(what, &[]);
        assert!(name("Circle object") && name("my::Circle object"));
        assert!(name("python list") && name("python my_list"));
        assert!(!name("a python list") && !name("python lists"));
        assert!(Suppressions::parse("race:x").is_err());
        assert!(matches("^all zero$", "all zero") && !matches("^all$", "all zero"));
        assert!(matches("a*b*c", "xaybzc!") && !matches("a*b*c", "acb"));
    }

    /// A source file that is not known has an empty name.
    #[test]
    fn no_suppression_holds_for_an_empty_name() {
        for pattern in ["", "^", "$", "^$", "*", "*$", "a"] {
            assert!(!matches(pattern, ""), "{pattern}");
        }
        let all = Suppressions::parse("leak:^$\nleak:$\n").unwrap();
        let nameless = [Frame::default()];
        assert!(!all.hold("text", &nameless) && !all.hold("", &nameless));
    }

    #[test]
    fn an_end_without_anything_before_it_lies_in_no_name() {
        assert!(!matches("$", "text") && !matches("^$", "text"));
        assert!(matches("*$", "text") && matches("^*$", "text"));
        assert!(matches("", "text") && matches("text$", "text"));
    }

    #[test]
    fn a_suppression_holds_for_any_name_of_a_stack() {
        let frame = |function: &str, file: &str, module: &str| Frame {
            function: function.into(),
            file: file.into(),
            module: module.into(),
            line: 7,
        };
        let stack = [
            frame("inner", "/build/src/inner.c", "/usr/lib/libother.so.1"),
            frame("ns::outer(int)", "", "/usr/bin/program"),
        ];
        let holds = |pattern: &str| {
            let all = Suppressions::parse(&format!("leak:{pattern}")).unwrap();
            all.hold("text", &stack)
        };
        for right in [
            "inner",
            "^inner$",
            "outer",
            "src/*.c$",
            "libother.so",
            "^/usr/bin/",
            "text",
        ] {
            assert!(holds(right), "{right}");
        }
        for wrong in ["^nner", "outer$", "inner.cc", "object", "^usr"] {
            assert!(!holds(wrong), "{wrong}");
        }
    }

    #[test]
    fn times_and_numbers_of_passes() {
        assert_eq!(time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(time("5"), Ok(Duration::from_secs(5)));
        for wrong in ["", "m", "1d", "-1", "1.5s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(passes("auto"), Ok(Passes(None)));
        assert_eq!(passes("3"), Ok(Passes(Some(3))));
        assert!(passes("0").is_err() && passes("some").is_err());
    }
}
