//! `slabside map`: the heap as a picture, by address.

use super::{grouped, human, json, print, several, statuses, svg, Common, Read};
use anyhow::{bail, Context, Result};
use serde::Serialize;
use slabside_view::idle::{idle, Idle};
use slabside_view::map::{groups, pictures, pins, sparse, By, Cell, Group, Picture, Pin, Sparse};
use slabside_view::types::Types;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Signs in a line, which then has the 80 columns of a terminal, and lines of a picture at most.
const WIDTH: usize = 64;
const LINES: usize = 32;
/// Sparse slabs that are listed.
const PINS: usize = 20;

/// Show the heap as a picture: how full its pages are, and which are free
///
/// Each sign stands for some pages, in the order of their addresses. Its height shows how many bytes are live. A dot is
/// resident and free, and a space is not resident. A q stands where nothing is live, and freed blocks wait in a quarantine
/// (hardened mode). The last line counts the slabs of which at most an eighth is live. Their few blocks keep the other
/// pages from going back to the system.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside map 7444
  slabside map 7444 --pins
  slabside map core --svg heap.svg

", statuses!("0")))]
pub struct Args {
    /// What to read: a process number, a core file or a snapshot file
    target: String,

    /// List the slabs of which at most an eighth is live, with the blocks that keep them alive
    #[arg(long)]
    pins: bool,

    /// Sum those slabs by what they have in common
    #[arg(long, value_enum)]
    by: Option<Way>,

    /// Wait, and tell how many of the heap's resident pages nobody touched meanwhile
    ///
    /// It takes root and a kernel with CONFIG_IDLE_PAGE_TRACKING. A process, no file.
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,

    /// Write the picture to FILE, to be opened in a browser
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    #[command(flatten)]
    common: Common,
}

/// By what slabs are summed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// The size of their slots
    Class,
    /// Whose they are
    Owner,
    /// What most of their live blocks look like
    Type,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    windows: Vec<Picture>,
    sparse: Sparse,
    #[serde(skip_serializing_if = "Option::is_none")]
    pins: Option<Vec<Pin>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Group>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    untouched: Option<Idle>,
}

/// Prints the picture.
pub fn run(args: &Args) -> Result<()> {
    let mut read = match args.pins || args.by.is_some() {
        true => Read::holding(&args.target, &args.common)?,
        false => Read::new(&args.target, &args.common)?,
    };
    let source = &*read.target;
    let windows: Vec<Picture> = read
        .heaps
        .iter()
        .flat_map(|heap| pictures(source, heap))
        .collect();
    let mut sums = Sparse::default();
    for heap in &read.heaps {
        let more = sparse(heap);
        sums.slabs += more.slabs;
        sums.blocks += more.blocks;
        sums.live += more.live;
        sums.bytes += more.bytes;
    }
    if args.by == Some(Way::Type) {
        source.needs_heads()?;
    }
    let mut types = Types::new();
    let listed: Option<Vec<Pin>> = args.pins.then(|| {
        let all = read.heaps.iter();
        all.flat_map(|heap| pins(source, heap, &mut types, PINS))
            .collect()
    });
    let groups: Option<Vec<Group>> = args.by.map(|way| {
        let by = match way {
            Way::Class => By::Class,
            Way::Owner => By::Owner,
            Way::Type => By::Looks,
        };
        let all = read.heaps.iter();
        all.flat_map(|heap| groups(source, heap, &mut types, by))
            .collect()
    });
    read.target.release();
    let untouched = args.idle.map(|seconds| untouched(&read, seconds));
    let untouched = untouched.transpose()?;
    if let Some(file) = &args.svg {
        fs::write(file, svg::page(&read.title(), &windows))
            .with_context(|| format!("cannot write '{}'", file.display()))?;
    }
    if args.common.json {
        let schema = "slabside.map/1";
        return print(&json(&Report {
            schema,
            windows,
            sparse: sums,
            pins: listed,
            groups,
            untouched,
        })?);
    }
    let mut text = String::new();
    match (&listed, &groups) {
        (None, None) => windows.iter().for_each(|window| text += &draw(window)),
        (pins, groups) => {
            text.extend(pins.iter().map(|pins| list(pins)));
            text.extend(groups.iter().map(|groups| table(groups)));
        }
    }
    if let (Some(Idle { resident, idle }), Some(seconds)) = (untouched, args.idle) {
        let (idle, resident) = (human(idle), human(resident));
        let _ = writeln!(
            text,
            "{idle} of {resident} resident were not touched for {seconds} s"
        );
    }
    let _ = writeln!(
        text,
        "{} at most an eighth full: {}, {}, keep {} alive",
        several(sums.slabs, "slab"),
        several(sums.blocks, "block"),
        human(sums.live),
        human(sums.bytes)
    );
    print(&text)
}

/// What of the heap nobody touches for so long.
fn untouched(read: &Read, seconds: u64) -> Result<Idle> {
    let pid = match read.target.is_moving() {
        true => read.target.about().pid,
        false => bail!("--idle: it takes a process that runs"),
    };
    let mut spans = Vec::new();
    for heap in &read.heaps {
        let windows = heap.windows.iter().map(|window| window.span());
        let large = heap.large.iter().map(|block| block.span);
        for span in windows.chain(large) {
            read.target.present(span, &mut |part| spans.push(part));
        }
    }
    let wait = || std::thread::sleep(Duration::from_secs(seconds));
    Ok(idle(&*read.target, pid, &spans, wait)?)
}

/// A window, drawn with signs.
pub fn draw(window: &Picture) -> String {
    let mut text = String::new();
    let kind = if window.mapped { "window" } else { "break" };
    let cells = window.cells(WIDTH * LINES);
    let width = cells.first().map_or(0, |cell| cell.bytes);
    let _ = writeln!(
        text,
        "{kind} {:#x}, {}   one sign = {}   height: live bytes   '.': resident and free   ' ': not resident{}",
        window.address,
        human(window.bytes),
        human(width),
        match cells.iter().any(|cell| cell.quarantined > 0) {
            true => "   'q': freed blocks in a quarantine",
            false => "",
        }
    );
    for (index, line) in cells.chunks(WIDTH).enumerate() {
        let address = window.address + (index * WIDTH) as u64 * width;
        let signs: String = line.iter().map(sign).collect();
        let _ = writeln!(text, "{address:#x}|{signs:WIDTH$}|");
    }
    text
}

fn sign(cell: &Cell) -> char {
    if cell.live == 0 {
        return match (cell.quarantined, cell.resident) {
            (1.., _) => 'q',
            (0, 1..) => '.',
            (0, 0) => ' ',
        };
    }
    let eighths = (cell.live.saturating_mul(8)).div_ceil(cell.bytes.max(1));
    ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][(eighths.clamp(1, 8) - 1) as usize]
}

/// A line for each group of sparse slabs.
fn table(groups: &[Group]) -> String {
    let mut text = format!(
        "{:>9} {:>11} {:>11} {:>11}\n",
        "slabs", "blocks", "live", "keep"
    );
    for Group { name, sums } in groups {
        let _ = writeln!(
            text,
            "{:>9} {:>11} {:>11} {:>11}  {name}",
            grouped(sums.slabs),
            grouped(sums.blocks),
            human(sums.live),
            human(sums.bytes)
        );
    }
    text
}

fn list(pins: &[Pin]) -> String {
    let mut text = String::new();
    for pin in pins {
        let _ = writeln!(
            text,
            "slab {:#x} of {} bytes: {} of {} live, keep {} alive, of {}",
            pin.address,
            grouped(pin.size),
            pin.live,
            pin.slots,
            human(pin.bytes),
            pin.owner
        );
        for block in &pin.blocks {
            let _ = writeln!(text, "    {:#x} {}", block.address, block.looks);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use slabside_view::map::PageRun;

    #[test]
    fn groups_are_a_line_each() {
        let sums = Sparse {
            slabs: 2,
            blocks: 3,
            live: 144,
            bytes: 8192,
        };
        let name = "48 bytes".to_string();
        assert_eq!(
            table(&[Group { name, sums }]).lines().nth(1),
            Some("        2           3       144 B     8.0 KiB  48 bytes")
        );
    }

    #[test]
    fn the_picture_reads_as_it_should() {
        let run = |page: u64, pages, live, resident| PageRun {
            address: 0x10000 + page * 4096,
            pages,
            slab: u32::from(live > 0),
            size: 16,
            live,
            quarantined: 0,
            resident,
        };
        let window = Picture {
            address: 0x10000,
            bytes: 6 * 4096,
            mapped: false,
            runs: vec![
                run(0, 2, 8192, 8192),
                run(2, 1, 16, 4096),
                run(3, 1, 2048, 4096),
                run(4, 1, 0, 4096),
                run(5, 1, 0, 0),
            ],
        };
        let drawn = draw(&window);
        let lines: Vec<&str> = drawn.lines().collect();
        assert!(lines[0].starts_with("break 0x10000, 24.0 KiB   one sign = 4.0 KiB   height"));
        assert_eq!(lines[1], format!("0x10000|██▁▄. {}|", " ".repeat(58)));
        assert_eq!(lines.len(), 2);
        assert!(!lines[0].contains('q'));
    }

    #[test]
    fn where_nothing_is_live_a_quarantine_shows() {
        let run = |page: u64, live, quarantined| PageRun {
            address: 0x10000 + page * 4096,
            pages: 1,
            slab: 7,
            size: 16,
            live,
            quarantined,
            resident: 4096,
        };
        let window = Picture {
            address: 0x10000,
            bytes: 3 * 4096,
            mapped: false,
            runs: vec![run(0, 2048, 2048), run(1, 0, 16), run(2, 0, 0)],
        };
        let drawn = draw(&window);
        assert!(drawn.contains("'q': freed blocks in a quarantine\n0x10000|▄q. "));
    }
}
