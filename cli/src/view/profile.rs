//! `slabside profile`: which code holds the memory, by the samples that the allocator took.

use super::flame;
use super::pprof::{self, Values};
use super::{grouped, human, json, place, print, several, standard, statuses, time, Common, Read};
use anyhow::{bail, Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use slabside_base::options::PROFILE_MOST;
use slabside_view::model::Heap;
use slabside_view::profile::{samples, sums, switch, Kind, Sums, Watched};
use slabside_view::region::Region;
use slabside_view::source::Source;
use slabside_view::unwind::{Frame, Unwinder};
use std::collections::BTreeMap;
use std::ffi::OsStr;
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
/// the exact live bytes of each size class. Blocks from before the profile, or after its end, are shown as such.
///
/// -o writes a file for `go tool pprof` and speedscope, --folded a line for each stack, --flame a flame graph. Without one of
/// them the largest stacks are printed. `slabside run --profile=FILE` profiles a whole run.
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

    /// Write the profile to FILE: as a flame graph if it ends in .svg, as lines in .folded, as .json, else for pprof
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

    /// Watch the process for so many seconds; ms, s, min or h may follow. allocated and grown need it
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,

    /// Have the process take a profile from now on, with a sample every BYTES bytes on average; k, m or g may follow
    ///
    /// It writes one word of the process's memory. With --for the profile is read after that time, and without it not at all.
    #[arg(long, value_name = "BYTES", value_parser = turned_on, conflicts_with = "off")]
    on: Option<u64>,

    /// Have the process take no samples any more
    #[arg(long, conflicts_with_all = ["output", "folded", "flame", "kind", "time"])]
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

impl Args {
    /// Whether something is said of the profile that is to be read.
    fn wants_profile(&self) -> bool {
        let files = [&self.output, &self.folded, &self.flame];
        self.kind != What::Live || files.iter().any(|file| file.is_some())
    }
}

/// Prints or writes the profile.
pub fn run(args: &Args) -> Result<()> {
    if args.on.is_some() && args.time.is_none() && args.wants_profile() {
        bail!("--on begins a profile, which holds nothing yet: --for TIME says when to read it");
    }
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
    let Ok(pid) = args.target.parse() else {
        bail!(
            "--on and --off want a process number, not '{}'",
            args.target
        );
    };
    let read = Read::new(&args.target, &args.common)?;
    for heap in &read.heaps {
        let interval = args.on.unwrap_or(0);
        let turned = Turned {
            schema: "slabside.profile-switch/1",
            target: &read.title(),
            interval,
            before: switch(&*read.target, &heap.region, pid, interval)?,
        };
        let profile_follows = args.on.is_some() && args.time.is_some();
        match (args.common.json, profile_follows) {
            (true, true) => eprint!("{}", turned.text()), // standard output is for the profile alone
            (true, false) => print(&json(&turned)?)?,
            (false, _) => print(&turned.text())?,
        }
    }
    Ok(())
}

/// That a heap's profile was switched on or off: bytes between two samples, 0 for none.
#[derive(Serialize)]
struct Turned<'a> {
    schema: &'static str,
    target: &'a str,
    interval: u64,
    before: u64,
}

impl Turned<'_> {
    /// For people.
    fn text(&self) -> String {
        let how = |interval: u64| match interval {
            0 => "off".to_owned(),
            bytes => format!("a sample every {}", human(bytes)),
        };
        let (now, before) = (how(self.interval), how(self.before));
        format!("{}: heap profile: {now} (before: {before})\n", self.target)
    }
}

/// A number of bytes that may be between two samples. k, m or g, small or large, may follow.
pub fn interval(text: &str) -> std::result::Result<u64, String> {
    match super::diff::amount(text)? {
        0 => Err("at least 1 byte".into()),
        bytes if bytes > PROFILE_MOST as u64 => {
            Err(format!("at most {}", human(PROFILE_MOST as u64)))
        }
        bytes => Ok(bytes),
    }
}

/// The same for `--on`.
fn turned_on(text: &str) -> std::result::Result<u64, String> {
    interval(text).map_err(|why| match super::diff::amount(text) {
        Ok(0) => format!("{why}; --off ends the profile"),
        _ => why,
    })
}

/// What was taken of a process.
pub struct Profile {
    title: String,
    what: What,
    interval: u64,
    doubled: u32,
    lost: u64,
    /// Samples that were written over before they were seen.
    missed: u64,
    time: Duration,
    sums: Sums,
    /// What is live too, where the sums are of all that was allocated.
    pub live: Option<Sums>,
    /// Why not all of a run was seen.
    pub gap: Option<String>,
}

/// Reads the profile, after the time that was asked for.
fn take(args: &Args) -> Result<Profile> {
    let begin = Instant::now();
    let mut kind = Kind::Live;
    if let Some(time) = args.time {
        let first = Read::new(&args.target, &args.common)?;
        let stated = one(&first)?.region.profile;
        if !first.target.is_moving() {
            bail!("--for: it takes a process that runs");
        }
        if stated.interval == 0 {
            return Err(takes_none(&first.target.name()));
        }
        match args.kind {
            What::Allocated => return watch(first, args, time),
            What::Grown => {
                kind = Kind::Grown {
                    after: stated.taken,
                }
            }
            What::Live => {}
        }
        sleep(time);
    }
    let mut read = Read::holding(&args.target, &args.common)?;
    let all = samples(&*read.target, one(&read)?);
    // Names and lines take long to find, and need nothing of the process but its files.
    read.target.release();
    let (source, heap): (&dyn Source, &Heap) = (&*read.target, one(&read)?);
    if heap.region.profile.interval == 0 && all.is_empty() {
        return Err(takes_none(&source.name()));
    }
    let sums = sums(heap, &all, kind, &mut Unwinder::new(source));
    let region = &heap.region;
    let time = begin.elapsed();
    Ok(Profile::new(read.title(), args.kind, region, time, sums))
}

fn takes_none(name: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{name}: it takes no heap profile: begin one by `slabside profile PID --on 512k`, or start it with the option \
         profile:512k"
    )
}

/// What is allocated in `time` since the `first` reading, looked at as often as samples may be written over.
fn watch(first: Read, args: &Args, time: Duration) -> Result<Profile> {
    let begin = Instant::now();
    let (mut region, handed) = (one(&first)?.region.clone(), first.figures().handed_out);
    let mut watched = Watched::from_now(&region);
    let mut target = first.target;
    let mut unwinder = Unwinder::default();
    loop {
        let rest = time.saturating_sub(begin.elapsed());
        sleep(rest.min(LOOKS));
        let Some(now) = region.again(&*target) else {
            bail!("{}: ended while it was watched", target.name());
        };
        region = now;
        if watched.is_behind(&region) {
            target.renew()?;
            unwinder.renew(&*target);
            watched.look(&*target, &region, &mut unwinder);
        }
        if rest.is_zero() {
            break;
        }
    }
    let read = Read::new(&args.target, &args.common)?;
    let bytes = read.figures().handed_out.saturating_sub(handed);
    let title = read.title();
    let sums = watched.sums(Some(bytes), &mut unwinder);
    let missed = watched.missed();
    Ok(Profile::of_run(
        title,
        &region,
        begin.elapsed(),
        sums,
        missed,
    ))
}

fn one(read: &Read) -> Result<&Heap> {
    match &*read.heaps {
        [heap] => Ok(heap),
        _ => bail!("a process with more than one heap: choose one by --heap"),
    }
}

/// Writes the files that were asked for, or prints.
fn write_out(args: &Args, profile: &Profile) -> Result<()> {
    let files = [
        (&args.output, None),
        (&args.folded, Some(Format::Folded)),
        (&args.flame, Some(Format::Flame)),
    ];
    let mut done = false;
    for (path, format) in files {
        if let Some(path) = path {
            write(
                path,
                &profile.bytes(format.unwrap_or_else(|| Format::of(path)))?,
            )?;
            done = true;
        }
    }
    if args.common.json {
        return print(&profile.json()?);
    }
    if done {
        return print(&(profile.headline() + "\n"));
    }
    print(&profile.text())
}

/// How a profile is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For pprof.
    Pprof,
    /// A line for each stack.
    Folded,
    /// A flame graph.
    Flame,
    /// As `--json` prints it.
    Json,
}

impl Format {
    /// By how the file's name ends.
    pub fn of(path: &Path) -> Format {
        match path.extension().and_then(OsStr::to_str) {
            Some("svg") => Format::Flame,
            Some("folded" | "txt") => Format::Folded,
            Some("json") => Format::Json,
            _ => Format::Pprof,
        }
    }
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
    missed: u64,
    count: u64,
    bytes: u64,
    stacks: Vec<Stack<'a>>,
    /// What is live at the end, where the others are of all that was allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Vec<Stack<'a>>>,
    /// Why not all of a run was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<&'a str>,
}

#[derive(Serialize)]
struct Stack<'a> {
    count: u64,
    bytes: u64,
    samples: u64,
    frames: &'a [Frame],
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
    fn new(title: String, what: What, region: &Region, time: Duration, sums: Sums) -> Profile {
        let stated = region.profile;
        Profile {
            title,
            what,
            interval: stated.interval,
            doubled: stated.doubled,
            lost: stated.lost,
            missed: 0,
            time,
            sums,
            live: None,
            gap: None,
        }
    }

    /// Of all that was allocated while a process was watched, but for so many samples that were missed.
    pub fn of_run(
        title: String,
        region: &Region,
        time: Duration,
        sums: Sums,
        missed: u64,
    ) -> Profile {
        let profile = Profile::new(title, What::Allocated, region, time, sums);
        Profile { missed, ..profile }
    }

    /// What a file in that form holds.
    pub fn bytes(&self, format: Format) -> Result<Vec<u8>> {
        Ok(match format {
            Format::Pprof => self.pprof()?,
            Format::Folded => folded(&self.sums).into(),
            Format::Flame => flame::page(&self.headline(), &self.sums.rows).into(),
            Format::Json => self.json()?.into(),
        })
    }

    /// All of it, as `--json` prints it.
    pub fn json(&self) -> Result<String> {
        json(&self.report())
    }

    /// The file for pprof.
    fn pprof(&self) -> Result<Vec<u8>> {
        let values = match (self.what, &self.live) {
            (What::Allocated, Some(live)) => Values::Both(&self.sums, live),
            (What::Allocated, None) => Values::Allocated(&self.sums),
            (What::Live | What::Grown, _) => Values::InUse(&self.sums),
        };
        pprof::file(values, self.interval, self.time)
    }

    fn report(&self) -> Report<'_> {
        Report {
            schema: "slabside.profile/1",
            target: &self.title,
            kind: self.what.name(),
            interval: self.interval,
            samples: self.sums.samples,
            lost: self.lost,
            missed: self.missed,
            count: self.sums.count.round() as u64,
            bytes: self.sums.bytes.round() as u64,
            stacks: stacks(&self.sums),
            live: self.live.as_ref().map(stacks),
            gap: self.gap.as_deref(),
        }
    }

    /// What it is of, in a line.
    pub fn headline(&self) -> String {
        let mut line = format!(
            "{}: {} {} in {}, by {} (one every {})",
            self.title,
            human(self.sums.bytes.round() as u64),
            self.what.name(),
            several(self.sums.count.round() as u64, "block"),
            several(self.sums.samples, "sample"),
            human(self.interval.saturating_mul(1 << self.doubled.min(30))),
        );
        if self.missed > 0 {
            let _ = write!(line, "; {} more ended unseen", grouped(self.missed));
        }
        if self.lost > 0 {
            let _ = write!(line, "; {} found no place", several(self.lost, "sample"));
        }
        if let Some(gap) = &self.gap {
            let _ = write!(line, "; not all was seen: {gap}");
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
            let inner = standard(&row.stack);
            if inner > 0 {
                let innermost = place(&row.stack[0]);
                let _ = writeln!(text, "                     {innermost}");
            }
            if inner > 1 {
                let more = inner - 1;
                let _ = writeln!(
                    text,
                    "                     and {more} more of the standard library"
                );
            }
            for frame in row.stack.iter().skip(inner).take(FUNCTIONS) {
                let _ = writeln!(text, "                     {}", place(frame));
            }
            if row.stack.len() > inner + FUNCTIONS {
                let more = row.stack.len() - inner - FUNCTIONS;
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

fn stacks(sums: &Sums) -> Vec<Stack<'_>> {
    let rows = sums.rows.iter();
    rows.map(|row| Stack {
        count: row.count.round() as u64,
        bytes: row.bytes.round() as u64,
        samples: row.samples,
        frames: &row.stack,
    })
    .collect()
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
    fn the_ending_of_a_file_says_how_it_is_written() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!(of("a/heap.svg"), Format::Flame);
        assert_eq!(
            (of("x.folded"), of("x.txt")),
            (Format::Folded, Format::Folded)
        );
        assert_eq!(of("x.json"), Format::Json);
        assert_eq!(
            (of("x.pb.gz"), of("x"), of("svg")),
            (Format::Pprof, Format::Pprof, Format::Pprof)
        );
    }

    #[test]
    fn an_interval_is_some_number_of_bytes() {
        assert_eq!((interval("1"), interval("512k")), (Ok(1), Ok(512 << 10)));
        assert_eq!(interval("1024g"), Ok(1 << 40));
        assert_eq!(interval("0"), Err("at least 1 byte".into()));
        assert!(turned_on("0").is_err_and(|why| why.contains("--off")));
        assert_eq!((turned_on("1"), turned_on("x")), (Ok(1), interval("x")));
        assert!(interval("1025g").is_err() && interval("").is_err());
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
