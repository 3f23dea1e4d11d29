//! `slabside snapshot`: a heap in a file, that every other command reads.

use super::{human, json, print, statuses, Common, Read};
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use slabside_view::snapshot::{write, Contents};
use std::fs;
use std::path::PathBuf;

/// Write a heap to a file, which the other commands read as they read a process
///
/// The file holds the allocator's bookkeeping, and names and addresses of the process's mappings. Data of the program
/// are in it only if --contents asks for them.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside snapshot 7444 -o before.slab --contents heads
  slabside map before.slab
  slabside diff before.slab 7444

", statuses!("0")))]
pub struct Args {
    /// What to read: a process number, a core file or a snapshot file
    target: String,

    /// The file to write. Only its owner can read it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Which contents of blocks go into the file
    #[arg(long, value_enum, default_value = "none")]
    contents: Kind,

    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// No data of the program
    None,
    /// The first 48 bytes of each live block, from which `diff` and `explain` tell its type
    Heads,
    /// All that is resident of the blocks, and of the program's variables and stacks, for `leaks` and `explain --who`
    All,
}

#[derive(Serialize)]
struct Written {
    schema: &'static str,
    file: String,
    bytes: u64,
    contents: &'static str,
    stopped: bool,
    slabs: usize,
    large: usize,
}

/// Writes the file.
pub fn run(args: &Args) -> Result<()> {
    let read = Read::holding(&args.target, &args.common)?;
    let contents = match args.contents {
        Kind::None => Contents::None,
        Kind::Heads => Contents::Heads,
        Kind::All => Contents::All,
    };
    write(&*read.target, &read.heaps, &args.output, contents)?;
    let written = Written {
        schema: "slabside.snapshot/1",
        file: args.output.display().to_string(),
        bytes: fs::metadata(&args.output).map_or(0, |metadata| metadata.len()),
        contents: contents.name(),
        stopped: !read.target.is_moving(),
        slabs: read.heaps.iter().map(|heap| heap.slabs.len()).sum(),
        large: read.heaps.iter().map(|heap| heap.large.len()).sum(),
    };
    if args.common.json {
        return print(&json(&written)?);
    }
    print(&format!(
        "{}: {} ({}, {}; contents: {})\n",
        written.file,
        human(written.bytes),
        super::several(written.slabs as u64, "slab"),
        super::several(written.large as u64, "large block"),
        written.contents
    ))
}
