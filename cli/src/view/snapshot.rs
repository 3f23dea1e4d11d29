//! `slabside snapshot`: a heap in a file, that every other command reads.

use super::{human, json, print, Common, Read};
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use slabside_view::snapshot::{write, Contents};
use std::fs;
use std::path::PathBuf;

/// Write a heap into a file, which all other commands read as they read a process.
#[derive(clap::Args)]
pub struct Args {
    /// A process number, a core file or a snapshot
    target: String,

    /// The file to write; readable by its owner alone
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Which contents of blocks go into the file beside the metadata
    #[arg(long, value_enum, default_value = "none")]
    contents: Kind,

    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// None: no data of the program leaves it
    None,
    /// The first 32 bytes of each live block, by which types are told
    Heads,
    /// All that is resident of the heap
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
        "{}: {} ({} slabs, {} large blocks; contents: {})\n",
        written.file,
        human(written.bytes),
        super::grouped(written.slabs as u64),
        super::grouped(written.large as u64),
        written.contents
    ))
}
