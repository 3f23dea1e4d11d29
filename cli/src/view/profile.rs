//! `slabside profile`: which code holds the memory, by the samples that the allocator took.

use super::flame;
use super::pprof::{self, Units};
use super::{grouped, human, json, print, statuses, time, Common, Read};
use anyhow::{bail, Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use slabside_view::model::{Buffers, Heap};
use slabside_view::profile::{samples, sums, switch, Kind, Sample, Sums};
use slabside_view::source::{Source, Target};
use slabside_view::unwind::{short, Unwinder};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The most stacks that are printed, and functions of each.
const STACKS: usize = 20;
const FUNCTIONS: usize = 8;
/// Time between two looks for samples that end soon.
const LOOKS: Duration = Duration::from_millis(50);

/// Show which code holds the memory
///
/// The allocator samples allocations with their stacks, one every 512 KiB or so. The process must take a heap profile: since
/// its start (option profile), since it called slabside_profile, or since `slabside profile PID --on`. The sums are scaled to
/// the exact live bytes of each size class. Blocks from before the profile are shown as such.
///
/// -o writes a file for `go tool pprof` and speedscope, --folded a line for each stack, --flame a flame graph. Without one of
/// them the largest stacks are printed.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside run --option profile:512k -- ./server &
  slabside profile $! -o heap.pb.gz --flame heap.svg
  slabside profile 812 --on 512k
  slabside profile 812 --kind grown --for 60s
  slabside profile 812 --off

", statuses!("0")))]
pub struct Args {
    /// A process number, a core file or a snapshot file
    target: String,

    /// Write the profile for pprof (protobuf, compressed) to FILE
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write a line for each stack to FILE: functions from the outermost on, and bytes
    #[arg(long, value_name = "FILE")]
    folded: Option<PathBuf>,

    /// Write a flame graph (SVG) to FILE
    #[arg(long, value_name = "FILE")]
    flame: Option<PathBuf>,

    /// What is counted
    #[arg(long, value_enum, default_value_t = What::Live)]
    kind: What,

    /// Watch the process for so long: ms, s, min or h may follow. allocated and grown need it
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,

    /// Have the process take a profile from now on, with a sample every BYTES bytes on average; k, m or g may follow
    ///
    /// It writes one word of the process's memory. With --for the profile is read after that time.
    #[arg(long, value_name = "BYTES", value_parser = super::diff::amount, conflicts_with = "off")]
    on: Option<u64>,

    /// Have the process take no samples any more
    #[arg(long)]
    off: bool,

    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// What is live now
    Live,
    /// What is allocated in the time of --for, live or not
    Allocated,
    /// What is allocated in the time of --for, and still live after it
    Grown,
}

/// Prints or writes the profile.
pub fn run(args: &Args) -> Result<()> {
    if args.on.is_some() || args.off {
        turn(args)?;
        if args.off || args.time.is_none() {
            return Ok(());
        }
    }
    if args.kind != What::Live && args.time.is_none() {
        bail!("--kind allocated and --kind grown need --for TIME");
    }
    let taken = take(args)?;
    write_out(args, &taken)
}

/// Switches the profile of the process's heaps on or off.
fn turn(args: &Args) -> Result<()> {
    let pid: u32 = args
        .target
        .parse()
        .context("--on and --off want a process number")?;
    let read = Read::new(&args.target, &args.common)?;
    for heap in &read.heaps {
        let interval = args.on.unwrap_or(0);
        let before = switch(&*read.target, &heap.region, pid, interval)?;
        let how = |interval: u64| match interval {
            0 => "off".to_owned(),
            bytes => format!("a sample every {}", human(bytes)),
        };
        let (title, now, before) = (read.title(), how(interval), how(before));
        let line = format!("{title}: heap profile: {now} (before: {before})\n");
        match args.common.json {
            true => eprint!("{line}"), // standard output is for the profile alone
            false => print(&line)?,
        }
    }
    Ok(())
}

/// What was taken of a process.
pub struct Profile {
    title: String,
    what: What,
    interval: u64,
    doubled: u32,
    lost: u64,
    time: Duration,
    sums: Sums,
}

/// Reads the profile, after the time that was asked for.
fn take(args: &Args) -> Result<Profile> {
    let begin = Instant::now();
    let mut seen = Seen::default();
    let first = if args.kind == What::Live {
        if let Some(time) = args.time {
            sleep(time);
        }
        None
    } else {
        let first = Read::new(&args.target, &args.common)?;
        let after = one(&first)?.region.profile.taken;
        let handed = first.figures().handed_out;
        seen.watch(args, begin)?;
        Some((after, handed))
    };
    let read = Read::holding(&args.target, &args.common)?;
    let heap = one(&read)?;
    let mut all = samples(&*read.target, heap);
    let kind = match (args.kind, first) {
        (What::Grown, Some((after, _))) => Kind::Grown { after },
        (What::Allocated, Some((after, handed))) => {
            seen.add(all);
            all = seen.samples.into_values().collect();
            let bytes = read.figures().handed_out.saturating_sub(handed);
            Kind::Allocated { after, bytes }
        }
        _ => Kind::Live,
    };
    of(&read, heap, &all, kind, args.kind, begin.elapsed())
}

fn of(
    read: &Read,
    heap: &Heap,
    all: &[Sample],
    kind: Kind,
    what: What,
    time: Duration,
) -> Result<Profile> {
    let stated = heap.region.profile;
    if stated.interval == 0 && all.is_empty() {
        let name = read.target.name();
        bail!(
            "{name}: it takes no heap profile: begin one by `slabside profile PID --on 512k`, or start it with the option \
             profile:512k"
        );
    }
    let source: &dyn Source = &*read.target;
    let sums = sums(source, heap, all, kind, &mut Unwinder::new(source));
    Ok(Profile {
        title: read.title(),
        what,
        interval: stated.interval,
        doubled: stated.doubled,
        lost: stated.lost,
        time,
        sums,
    })
}

fn one(read: &Read) -> Result<&Heap> {
    match &*read.heaps {
        [heap] => Ok(heap),
        _ => bail!("a process with more than one heap: choose one by --heap"),
    }
}

/// Samples that were seen, by number: those that end soon are gone at the end.
#[derive(Default)]
struct Seen {
    samples: BTreeMap<u64, Sample>,
}

impl Seen {
    fn add(&mut self, samples: Vec<Sample>) {
        self.samples
            .extend(samples.into_iter().map(|sample| (sample.number, sample)));
    }

    /// Until the time is over, as often as samples may be written over.
    fn watch(&mut self, args: &Args, begin: Instant) -> Result<()> {
        let time = args.time.unwrap_or_default();
        while begin.elapsed() < time {
            let rest = time.saturating_sub(begin.elapsed());
            if args.kind != What::Allocated {
                sleep(rest);
                break;
            }
            sleep(rest.min(LOOKS));
            let target = Target::open(&args.target, false)?;
            let regions = slabside_view::region::find(&*target)?;
            let wanted = args.common.heap.unwrap_or(0);
            let Some(region) = regions.into_iter().nth(wanted) else {
                continue;
            };
            if let Ok(heap) = Heap::of(&*target, region, &mut Buffers::default()) {
                self.add(samples(&*target, &heap));
            }
        }
        Ok(())
    }
}

/// Writes the files that were asked for, or prints.
fn write_out(args: &Args, profile: &Profile) -> Result<()> {
    let mut done = false;
    if let Some(path) = &args.output {
        write(path, &profile.pprof()?)?;
        done = true;
    }
    if let Some(path) = &args.folded {
        write(path, folded(&profile.sums).as_bytes())?;
        done = true;
    }
    if let Some(path) = &args.flame {
        let page = flame::page(&profile.headline(), &profile.sums.rows);
        write(path, page.as_bytes())?;
        done = true;
    }
    if args.common.json {
        return print(&json(&profile.report())?);
    }
    if done {
        return print(&(profile.headline() + "\n"));
    }
    print(&profile.text())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write to '{}'", path.display()))
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    target: &'a str,
    kind: &'static str,
    interval: u64,
    samples: u64,
    lost: u64,
    count: u64,
    bytes: u64,
    stacks: Vec<Stack<'a>>,
}

#[derive(Serialize)]
struct Stack<'a> {
    count: u64,
    bytes: u64,
    samples: u64,
    frames: Vec<Function<'a>>,
}

#[derive(Serialize)]
struct Function<'a> {
    function: &'a str,
    file: &'a str,
    line: u32,
    module: &'a str,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Live => "live",
            What::Allocated => "allocated",
            What::Grown => "grown",
        }
    }
}

impl Profile {
    /// The file for pprof.
    pub fn pprof(&self) -> Result<Vec<u8>> {
        let units = match self.what {
            What::Allocated => Units::Allocated,
            What::Live | What::Grown => Units::InUse,
        };
        pprof::file(&self.sums.rows, units, self.interval, self.time)
    }

    fn report(&self) -> Report<'_> {
        Report {
            schema: "slabside.profile/1",
            target: &self.title,
            kind: self.what.name(),
            interval: self.interval,
            samples: self.sums.samples,
            lost: self.lost,
            count: self.sums.count.round() as u64,
            bytes: self.sums.bytes.round() as u64,
            stacks: self
                .sums
                .rows
                .iter()
                .map(|row| Stack {
                    count: row.count.round() as u64,
                    bytes: row.bytes.round() as u64,
                    samples: row.samples,
                    frames: row
                        .stack
                        .iter()
                        .map(|frame| Function {
                            function: &frame.function,
                            file: &frame.file,
                            line: frame.line,
                            module: &frame.module,
                        })
                        .collect(),
                })
                .collect(),
        }
    }

    fn headline(&self) -> String {
        let mut line = format!(
            "{}: {} {} in {} blocks, by {} samples (one every {})",
            self.title,
            human(self.sums.bytes.round() as u64),
            self.what.name(),
            grouped(self.sums.count.round() as u64),
            grouped(self.sums.samples),
            human(self.interval.saturating_mul(1 << self.doubled.min(30))),
        );
        if self.lost > 0 {
            let _ = write!(line, "; {} samples found no place", grouped(self.lost));
        }
        line
    }

    fn text(&self) -> String {
        let mut text = self.headline() + "\n";
        for row in self.sums.rows.iter().take(STACKS) {
            let part = 100.0 * row.bytes / self.sums.bytes.max(1.0);
            let _ = writeln!(
                text,
                "{:>11} {part:>5.1} %  {:>9} blocks  {:>5} samples",
                human(row.bytes.round() as u64),
                grouped(row.count.round() as u64),
                grouped(row.samples),
            );
            for frame in row.stack.iter().take(FUNCTIONS) {
                let place = match frame.line {
                    0 => short(&frame.module).to_owned(),
                    line => format!("{}:{line}", short(&frame.file)),
                };
                let _ = writeln!(text, "                     {}  {place}", frame.function);
            }
            if row.stack.len() > FUNCTIONS {
                let more = row.stack.len() - FUNCTIONS;
                let _ = writeln!(text, "                     and {more} more");
            }
        }
        if self.sums.rows.len() > STACKS {
            let rest = &self.sums.rows[STACKS..];
            let bytes: f64 = rest.iter().map(|row| row.bytes).sum();
            let _ = writeln!(
                text,
                "{:>11} in {} more stacks (--json lists all)",
                human(bytes.round() as u64),
                grouped(rest.len() as u64)
            );
        }
        text
    }
}

/// A line for each stack: functions from the outermost on, and bytes.
fn folded(sums: &Sums) -> String {
    let mut lines: BTreeMap<String, f64> = BTreeMap::new();
    for row in &sums.rows {
        let names: Vec<String> = row
            .stack
            .iter()
            .rev()
            .map(|frame| frame.function.replace(';', ":"))
            .collect();
        *lines.entry(names.join(";")).or_default() += row.bytes;
    }
    lines
        .iter()
        .map(|(stack, bytes)| format!("{stack} {}\n", bytes.round()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use slabside_view::profile::Row;
    use slabside_view::unwind::Frame;

    fn frame(function: &str) -> Frame {
        Frame {
            function: function.into(),
            ..Frame::default()
        }
    }

    #[test]
    fn folded_lines_begin_with_the_outermost_function_and_sum_equal_stacks() {
        let row = |names: &[&str], bytes| Row {
            stack: names.iter().map(|name| frame(name)).collect(),
            count: 1.0,
            bytes,
            samples: 1,
        };
        let sums = Sums {
            rows: vec![
                row(&["in;ner", "main"], 10.0),
                row(&["in;ner", "main"], 5.4),
                row(&["main"], 1.0),
            ],
            ..Sums::default()
        };
        assert_eq!(folded(&sums), "main 1\nmain;in:ner 15\n");
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(time("5"), Ok(Duration::from_secs(5)));
        assert!(time("soon").is_err() && time("3 days").is_err() && time("").is_err());
    }
}
