//! `slabside diff`: what became more and less between two moments of a heap.

use super::{brief, grouped, human, json, print, several, signed, statuses, time, Common, Read};
use anyhow::{bail, Result};
use serde::Serialize;
use slabside_view::diff::{diff, Difference, Moment};
use slabside_view::kinds::kinds;
use slabside_view::profile::{self, samples, Kind, Sample as Sampled};
use slabside_view::source::Source;
use slabside_view::types::Types;
use slabside_view::unwind::{Frame, Stack, Unwinder};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// The most lines of changes.
const LINES: usize = 20;

/// Show which blocks became more and less between two moments of a heap
///
/// Blocks are counted by size, and by type if both moments have contents (`slabside snapshot --contents heads`). So the
/// kind of block that a program leaks stands on top. Where both moments have samples of a heap profile, the code that holds
/// more or less is listed too.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside snapshot 812 -o a.slab --contents heads
  sleep 60
  slabside diff a.slab 812
  slabside diff a.slab b.slab --fail-above 10m
  slabside diff 812 --every 60s --for 1h

", statuses!("0, or 1 if live blocks grew by more than --fail-above")))]
pub struct Args {
    /// The earlier moment: a snapshot file, a core file or a process number
    before: String,

    /// The later moment, likewise
    #[arg(required_unless_present = "every")]
    after: Option<String>,

    /// Look at one running process every so many seconds, and tell by how much each type grows in an hour; ms, s, min or h
    /// may follow
    #[arg(long, value_name = "TIME", value_parser = pause, conflicts_with = "after")]
    every: Option<Duration>,

    /// For how many seconds to look; ms, s, min or h may follow
    #[arg(long = "for", value_name = "TIME", value_parser = time, default_value = "1h", requires = "every")]
    during: Duration,

    /// Exit with status 1 if live blocks grew by more than this many bytes. k, m or g may follow
    #[arg(long, value_name = "BYTES", value_parser = amount)]
    fail_above: Option<u64>,

    #[command(flatten)]
    common: Common,
}

/// A time that is more than none.
fn pause(text: &str) -> std::result::Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("it has to be more than 0".into()),
        pause => Ok(pause),
    }
}

/// A number of bytes. k, m or g, small or large, may follow.
pub(super) fn amount(text: &str) -> std::result::Result<u64, String> {
    let split = text.len() - usize::from(text.ends_with(|last: char| last.is_ascii_alphabetic()));
    let shift = match text[split..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err("a number of bytes, to which k, m or g may be added".into()),
    };
    let number: u64 = text[..split]
        .parse()
        .map_err(|_| "a number of bytes, to which k, m or g may be added")?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".into())
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    before: String,
    after: String,
    #[serde(flatten)]
    difference: Difference,
}

/// Prints the difference. Returns the exit status.
pub fn run(args: &Args) -> Result<i32> {
    if let Some(every) = args.every {
        return watch(args, every);
    }
    let before = Read::new(&args.before, &args.common)?;
    let mut figures = vec![before.figures()];
    let after = args.after.as_deref().unwrap_or_default();
    let after = Read::new(after, &args.common)?;
    figures.push(after.figures());
    if before.heaps.len() > 1 || after.heaps.len() > 1 {
        bail!("a process with more than one heap: choose one by --heap");
    }
    let (Some(old), Some(new)) = (before.heaps.first(), after.heaps.first()) else {
        bail!("no heap to compare");
    };
    let difference = diff(
        &Moment {
            source: &*before.target,
            heap: old,
            figures: &figures[0],
        },
        &Moment {
            source: &*after.target,
            heap: new,
            figures: &figures[1],
        },
    );
    let grown = difference.allocated;
    let above = args
        .fail_above
        .is_some_and(|most| grown > 0 && grown as u64 > most);
    if args.common.json {
        print(&json(&Report {
            schema: "slabside.diff/1",
            before: before.title(),
            after: after.title(),
            difference,
        })?)?;
    } else {
        print(&text(&difference))?;
    }
    Ok(i32::from(above))
}

fn text(difference: &Difference) -> String {
    let mut text = String::new();
    for change in difference.changes.iter().take(LINES) {
        let count = change.new as i64 - change.gone as i64;
        let sign = if count < 0 { '-' } else { '+' };
        let _ = writeln!(
            text,
            "{sign} {:>9} x {:>9}  {:>10}  {}",
            grouped(count.unsigned_abs()),
            human(change.size),
            signed(change.bytes),
            change.looks
        );
    }
    if difference.changes.len() > LINES {
        let _ = writeln!(
            text,
            "  and {} more kinds (--json lists all)",
            difference.changes.len() - LINES
        );
    }
    for change in difference.stacks.iter().take(LINES) {
        let sign = if change.count < 0 { '-' } else { '+' };
        let _ = writeln!(
            text,
            "{sign} {:>9} blocks  {:>13}  by {} (samples {} -> {})",
            grouped(change.count.unsigned_abs()),
            signed(change.bytes),
            brief(&change.frames),
            grouped(change.samples[0]),
            grouped(change.samples[1])
        );
    }
    let _ = writeln!(
        text,
        "survivors: {}; new {}; gone {}",
        several(difference.survivors, "block"),
        grouped(difference.new),
        grouped(difference.gone)
    );
    for slabs in &difference.slabs {
        let _ = writeln!(
            text,
            "class {}: slabs {} -> {}",
            grouped(slabs.size),
            grouped(slabs.before),
            grouped(slabs.after)
        );
    }
    let parts = [
        ("live", difference.live),
        ("quarantine", difference.quarantine),
        ("waiting", difference.waiting),
        ("idle slots", difference.idle_slots),
        ("holes", difference.holes),
        ("free pages", difference.free_pages),
        ("kept", difference.kept),
        ("metadata", difference.metadata),
        ("not the heap", difference.rest),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|part| part.1 != 0)
        .map(|(name, bytes)| format!("{name} {}", signed(bytes)))
        .collect();
    let _ = writeln!(
        text,
        "resident {} = {}",
        signed(difference.resident),
        if parts.is_empty() {
            "nothing".into()
        } else {
            parts.join(", ")
        }
    );
    text
}

// ---- growth -----------------------------------------------------------------------------------------

/// What grows: blocks of a size and type, or what code holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The size, and the type.
    Type(u64, String),
    /// Code that holds blocks.
    Stack(Stack),
}

/// Bytes of each.
type Sums = BTreeMap<Key, u64>;
/// Those at a moment, in seconds since the first.
type Sample = (f64, Sums);

/// By how much a type or what code holds grows.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Growth {
    /// The type, or the functions in a line.
    what: String,
    /// Bytes of a block; 0: of large blocks, which differ, or by stack.
    size: u64,
    /// The functions, innermost first, if it is by stack.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<Vec<Frame>>,
    /// Bytes at the first and at the last look.
    first: u64,
    last: u64,
    /// Bytes in an hour, by a line through all looks.
    hourly: f64,
    /// How much of what changed the line tells, from 0 to 1.
    fit: f64,
}

#[derive(Serialize)]
struct Grown<'a> {
    schema: &'static str,
    program: &'a str,
    looks: usize,
    seconds: f64,
    growth: &'a [Growth],
    /// The same by stack, where a heap profile is taken.
    stacks: &'a [Growth],
}

/// Looks at a process again and again. The exit status.
fn watch(args: &Args, every: Duration) -> Result<i32> {
    if args.fail_above.is_some() {
        bail!("--fail-above is for two moments, and --every for many");
    }
    if args.before.parse::<u32>().is_err() {
        bail!(
            "--every is for a running process, and '{}' is no process number",
            args.before
        );
    }
    let begin = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut title = String::new();
    let mut unwinder = Unwinder::default();
    loop {
        let now = begin.elapsed();
        match look(args, &mut unwinder) {
            Ok((name, kinds)) => {
                samples.push((now.as_secs_f64(), kinds));
                title = name;
            }
            // What was seen of a process that has ended is told.
            Err(_) if samples.len() > 1 => break,
            Err(error) => return Err(error),
        }
        if now >= args.during {
            break;
        }
        let next = (every * samples.len() as u32).min(args.during);
        std::thread::sleep(next.saturating_sub(begin.elapsed()));
    }
    let (growth, stacks): (Vec<Growth>, Vec<Growth>) = growth(&samples)
        .into_iter()
        .partition(|one| one.frames.is_none());
    let seconds = samples.last().map_or(0.0, |last| last.0);
    print(&match args.common.json {
        true => json(&Grown {
            schema: "slabside.growth/1",
            program: &title,
            looks: samples.len(),
            seconds,
            growth: &growth,
            stacks: &stacks,
        })?,
        false => grown(&title, samples.len(), seconds, &growth, &stacks),
    })?;
    Ok(0)
}

fn look(args: &Args, unwinder: &mut Unwinder) -> Result<(String, Sums)> {
    let mut read = Read::holding(&args.before, &args.common)?;
    let mut types = Types::new();
    let mut sums = BTreeMap::new();
    for heap in &read.heaps {
        for kind in kinds(&*read.target, heap, &mut types) {
            *sums.entry(Key::Type(kind.size, kind.looks)).or_default() += kind.bytes;
        }
    }
    let taken: Vec<Vec<Sampled>> = read
        .heaps
        .iter()
        .map(|heap| samples(&*read.target, heap))
        .collect();
    read.target.release();
    let source: &dyn Source = &*read.target;
    for (heap, taken) in read.heaps.iter().zip(&taken) {
        if heap.region.profile.taken == 0 {
            continue;
        }
        unwinder.renew(source);
        for row in profile::sums(heap, taken, Kind::Live, unwinder).rows {
            *sums.entry(Key::Stack(row.stack)).or_default() += row.bytes.round() as u64;
        }
    }
    Ok((read.title(), sums))
}

/// The growth of each type, the fastest first.
fn growth(samples: &[Sample]) -> Vec<Growth> {
    let keys: BTreeSet<&Key> = samples.iter().flat_map(|one| one.1.keys()).collect();
    let mut all: Vec<Growth> = keys
        .into_iter()
        .map(|key| {
            let bytes = |sample: &Sample| sample.1.get(key).copied().unwrap_or(0);
            let points: Vec<(f64, f64)> = samples
                .iter()
                .map(|sample| (sample.0, bytes(sample) as f64))
                .collect();
            let (slope, fit) = line(&points);
            let (what, size, frames) = match key {
                Key::Type(size, what) => (what.clone(), *size, None),
                Key::Stack(frames) => (brief(frames), 0, Some(frames.to_vec())),
            };
            Growth {
                what,
                size,
                frames,
                first: samples.first().map_or(0, bytes),
                last: samples.last().map_or(0, bytes),
                hourly: slope * 3600.0,
                fit,
            }
        })
        .collect();
    all.retain(|one| one.hourly != 0.0);
    all.sort_by(|a, b| b.hourly.total_cmp(&a.hourly));
    all
}

/// The slope of the line with the least squares of distances, and how much of the points' variance it tells.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len().max(1) as f64;
    let mean = |part: fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |part: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>();
    let both = sum(&|point| (point.0 - x) * (point.1 - y));
    let (across, up) = (
        sum(&|point| (point.0 - x).powi(2)),
        sum(&|point| (point.1 - y).powi(2)),
    );
    if across == 0.0 || up == 0.0 {
        return (0.0, 0.0);
    }
    (both / across, both * both / (across * up))
}

fn grown(title: &str, looks: usize, seconds: f64, growth: &[Growth], stacks: &[Growth]) -> String {
    let mut text = format!("{title}: {looks} looks in {seconds:.0} s\n");
    text += &table(growth, "type");
    if growth.iter().all(|one| one.hourly <= 0.0) {
        text += "nothing grows\n";
    }
    if stacks.iter().any(|one| one.hourly > 0.0) {
        text += &table(stacks, "code, by samples");
    }
    text
}

/// The lines of what grows.
fn table(growth: &[Growth], title: &str) -> String {
    let mut text = format!(
        "{:>14}  {:>4}  {:>10}  {:>10}  {:>10}  {title}\n",
        "in an hour", "fit", "size", "first", "last"
    );
    for one in growth.iter().filter(|one| one.hourly > 0.0).take(LINES) {
        let size = match (one.size, &one.frames) {
            (_, Some(_)) => String::new(),
            (0, None) => "large".into(),
            (size, None) => human(size),
        };
        let _ = writeln!(
            text,
            "{:>14}  {:>4.2}  {size:>10}  {:>10}  {:>10}  {}",
            signed(one.hourly as i64),
            one.fit,
            human(one.first),
            human(one.last),
            one.what
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_that_grows_steadily_comes_first_and_what_swings_fits_no_line() {
        let sample = |at: u32| {
            let swings = if at.is_multiple_of(2) { 1000 } else { 5000 };
            let kinds = [
                (Key::Type(32, "leak".into()), u64::from(at) * 100),
                (Key::Type(64, "swings".into()), swings),
                (Key::Type(16, "still".into()), 160),
            ];
            (f64::from(at) * 60.0, BTreeMap::from(kinds))
        };
        let samples: Vec<Sample> = (0..11).map(sample).collect();
        let growth = growth(&samples);
        assert_eq!(growth[0].what, "leak");
        assert!((growth[0].hourly - 6000.0).abs() < 1.0 && growth[0].fit > 0.999);
        assert!(growth.iter().all(|one| one.what != "still"));
        assert!(growth.iter().all(|one| one.what == "leak" || one.fit < 0.5));
    }

    #[test]
    fn between_two_looks_some_time_passes() {
        assert_eq!(pause("50ms"), Ok(Duration::from_millis(50)));
        assert!(pause("0").is_err() && pause("0m").is_err());
    }

    #[test]
    fn amounts_may_end_in_a_unit() {
        assert_eq!(amount("10M"), Ok(10 << 20));
        assert_eq!(amount("4096"), Ok(4096));
        assert_eq!(amount("1k"), Ok(1024));
        for wrong in ["", "k", "10x", "ten", "-1", "99999999999g"] {
            assert!(amount(wrong).is_err(), "{wrong}");
        }
    }
}
