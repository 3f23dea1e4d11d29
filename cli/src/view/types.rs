//! `slabside types`: what the live blocks are, by the types of the program's objects, and which texts are there twice.

use super::{grouped, human, json, print, several, statuses, Common, Read};
use anyhow::Result;
use serde::Serialize;
use slabside_view::kinds::{survey, LeftOut, Repeated, Survey, Texts};
use slabside_view::types::Types;
use std::fmt::Write;

/// Lines of types, unless all are asked for.
const LINES: usize = 40;
/// Texts that are listed.
const TEXTS: usize = 10;

/// Show what the blocks of a heap are: objects by class, text, pointers, and texts that are there more than once
///
/// A type is told by the first words of a block: a C++ class by its table of virtual functions, a Python object by its
/// type, a Rust value behind `dyn` by the pointers to it. Names come from the symbols of the program's files.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside types 7444
  slabside types core --json
  slabside types 7444 --show-text

", statuses!("0")))]
pub struct Args {
    /// What to read: a process number, a core file or a snapshot file
    target: String,

    /// Print how the texts begin that are there more than once. They are data of the program
    #[arg(long)]
    show_text: bool,

    /// Print all types, not only those of the most bytes
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    pid: u32,
    program: String,
    stopped: bool,
    held_ms: Option<f64>,
    blocks: u64,
    bytes: u64,
    /// Freed blocks in a quarantine, which are left out.
    quarantined: LeftOut,
    types: Vec<Row<'a>>,
    /// The three are left out of a snapshot that has only the first words of blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    texts: Option<Sum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doubles: Option<Sum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeated: Option<Vec<Twice<'a>>>,
    notes: Vec<&'static str>,
}

#[derive(Serialize)]
struct Row<'a> {
    what: &'a str,
    count: u64,
    /// 0: large blocks, which differ.
    size: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Sum {
    count: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Twice<'a> {
    count: u64,
    bytes: u64,
    size: u64,
    example: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

/// Prints the types.
pub fn run(args: &Args) -> Result<()> {
    let mut read = Read::holding(&args.target, &args.common)?;
    read.target.needs_heads()?;
    let mut types = Types::new();
    let found = survey(&*read.target, &read.heaps, &mut types);
    let stopped = !read.target.is_moving();
    read.target.release();
    let text = match args.common.json {
        true => report(args, &read, &found, stopped)?,
        false => table(args, &read, &found, stopped),
    };
    print(&text)
}

fn report(args: &Args, read: &Read, found: &Survey, stopped: bool) -> Result<String> {
    let about = read.target.about();
    let texts = found.texts.as_ref();
    json(&Report {
        schema: "slabside.types/1",
        pid: about.pid,
        program: about.program,
        stopped,
        held_ms: read.held_ms(),
        blocks: found.kinds.iter().map(|kind| kind.count).sum(),
        bytes: found.kinds.iter().map(|kind| kind.bytes).sum(),
        quarantined: found.left_out,
        types: found
            .kinds
            .iter()
            .map(|kind| Row {
                what: &kind.looks,
                count: kind.count,
                size: kind.size,
                bytes: kind.bytes,
            })
            .collect(),
        texts: texts.map(|texts| Sum {
            count: texts.count,
            bytes: texts.bytes,
        }),
        doubles: texts.map(|texts| Sum {
            count: texts.doubles,
            bytes: texts.double_bytes,
        }),
        repeated: texts.map(|texts| {
            let listed = texts.repeated.iter().take(TEXTS);
            listed.map(|one| twice(args, one)).collect()
        }),
        notes: Types::notes(&*read.target),
    })
}

fn twice<'a>(args: &Args, one: &'a Repeated) -> Twice<'a> {
    Twice {
        count: one.count,
        bytes: one.bytes,
        size: one.size,
        example: one.example,
        text: args.show_text.then_some(&one.text),
    }
}

fn table(args: &Args, read: &Read, found: &Survey, stopped: bool) -> String {
    let count = found.kinds.iter().map(|kind| kind.count).sum();
    let bytes = found.kinds.iter().map(|kind| kind.bytes).sum();
    let mut text = format!(
        "{}: {}, {}, {}\n",
        read.title(),
        several(count, "block"),
        human(bytes),
        read.how(stopped)
    );
    let _ = writeln!(
        text,
        "{:>12}  {:>10}  {:>10}  what",
        "count", "size", "bytes"
    );
    let most = if args.all { usize::MAX } else { LINES };
    for kind in found.kinds.iter().take(most) {
        let size = match kind.size {
            0 => "large".into(),
            size => human(size),
        };
        let what = match kind.looks.as_str() {
            "" => "not resident",
            what => what,
        };
        let _ = writeln!(
            text,
            "{:>12}  {size:>10}  {:>10}  {what}",
            grouped(kind.count),
            human(kind.bytes)
        );
    }
    if let Some(rest) = found.kinds.get(most..).filter(|rest| !rest.is_empty()) {
        let bytes = rest.iter().map(|kind| kind.bytes).sum();
        let _ = writeln!(
            text,
            "and {} more, {} together (--all lists them)",
            grouped(rest.len() as u64),
            human(bytes)
        );
    }
    text += &match &found.texts {
        Some(found) => texts(args, found),
        None => "texts: the snapshot has only how they begin (--contents all)\n".into(),
    };
    if found.left_out.count > 0 {
        let _ = writeln!(
            text,
            "left out: {}, {}, in a quarantine",
            several(found.left_out.count, "freed block"),
            human(found.left_out.bytes)
        );
    }
    for note in Types::notes(&*read.target) {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn texts(args: &Args, texts: &Texts) -> String {
    let mut text = format!(
        "texts: {}, {}, of which doubles of others {}, {}\n",
        several(texts.count, "block"),
        human(texts.bytes),
        several(texts.doubles, "block"),
        human(texts.double_bytes)
    );
    for one in texts.repeated.iter().take(TEXTS) {
        let _ = writeln!(text, "{}", repeated(args, one));
    }
    text
}

fn repeated(args: &Args, one: &Repeated) -> String {
    let line = format!(
        "{:>12}  {:>10}  {:>10}  the same text, e.g. at {:#x}",
        grouped(one.count),
        human(one.size),
        human(one.bytes),
        one.example
    );
    match args.show_text {
        true => format!("{line}: {:?}", one.text),
        false => line,
    }
}
