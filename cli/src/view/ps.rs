//! `slabside ps`: the processes whose heap is slabside's.

use super::{human, json, print, statuses, Common, Read};
use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;
use std::fs;

/// List the processes that run on slabside
///
/// A line for each shows how much memory it has resident, how much its blocks take, and how much the heap holds
/// beside them. Processes of other users are listed only for root.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside ps
  slabside ps --json

", statuses!("0")))]
pub struct Args {
    /// Print JSON: first `schema`, the name and version of the format. Amounts are in bytes
    #[arg(long)]
    json: bool,
}

/// A process on slabside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its number.
    pub pid: u32,
    /// Its program.
    pub program: String,
    /// Resident bytes.
    pub resident: u64,
    /// Bytes of live blocks.
    pub allocated: u64,
    /// Bytes that the heap holds and no block uses.
    pub unused: u64,
    /// Bytes of metadata.
    pub metadata: u64,
    /// Number of its heaps, by regions.
    pub heaps: usize,
    /// Layout of the first.
    pub layout: u32,
    /// Version of the library. Empty means not stated.
    pub library: String,
}

#[derive(Serialize)]
struct List {
    schema: &'static str,
    processes: Vec<Row>,
}

/// Prints the list.
pub fn run(args: &Args) -> Result<()> {
    let processes = rows(&Common::default());
    if args.json {
        let schema = "slabside.ps/1";
        return print(&json(&List { schema, processes })?);
    }
    print(&table(&processes))
}

/// All processes on slabside that can be read, by number.
pub fn reads(common: &Common) -> impl Iterator<Item = Read> + '_ {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let reads = pids.into_iter();
    reads.filter_map(|pid| Read::new(&pid.to_string(), common).ok())
}

/// A row for each of them.
pub fn rows(common: &Common) -> Vec<Row> {
    reads(common).filter_map(|read| row(&read)).collect()
}

fn row(read: &Read) -> Option<Row> {
    let figures = read.figures();
    let first = read.heaps.first()?;
    let about = read.target.about();
    Some(Row {
        pid: about.pid,
        program: about.program,
        resident: figures.resident,
        allocated: figures.allocated,
        unused: figures.waiting
            + figures.idle_slots
            + figures.holes
            + figures.free_pages
            + figures.kept,
        metadata: figures.metadata,
        heaps: read.heaps.len(),
        layout: first.region.version,
        library: first.region.library.clone(),
    })
}

/// The list for people.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    table.add_row([
        right("PID".into()),
        right("RESIDENT".into()),
        right("LIVE".into()),
        right("UNUSED".into()),
        right("METADATA".into()),
        Cell::new("PROGRAM"),
    ]);
    for row in rows {
        table.add_row([
            right(row.pid.to_string()),
            right(human(row.resident)),
            right(human(row.allocated)),
            right(human(row.unused)),
            right(human(row.metadata)),
            Cell::new(match row.heaps {
                0 | 1 => row.program.clone(),
                n => format!("{} ({n} heaps)", row.program),
            }),
        ]);
    }
    let mut text = String::new();
    for line in table.lines() {
        text += line.trim_end();
        text.push('\n');
    }
    if rows.is_empty() {
        text += "no process that can be read runs on slabside\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_reads_as_it_should() {
        let row = Row {
            pid: 812,
            program: "redis-server".into(),
            resident: 42 << 20,
            allocated: 30 << 20,
            unused: 1 << 20,
            metadata: 90 << 10,
            heaps: 1,
            layout: 3,
            library: "0.1.0".into(),
        };
        assert_eq!(
            table(&[row]),
            " PID  RESIDENT      LIVE   UNUSED  METADATA  PROGRAM\n \
             812  42.0 MiB  30.0 MiB  1.0 MiB  90.0 KiB  redis-server\n"
        );
        assert!(table(&[]).contains("no process that can be read"));
    }
}
