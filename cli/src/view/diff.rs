//! `slabside diff`: what became more and less between two moments of a heap.

use super::{grouped, human, json, print, signed, statuses, Common, Read};
use anyhow::{bail, Result};
use serde::Serialize;
use slabside_view::diff::{diff, Difference, Moment};
use std::fmt::Write;

/// The most lines of changes.
const LINES: usize = 20;

/// Show which blocks became more and less between two moments of a heap
///
/// Blocks are counted by size, and by type if both moments have contents (`slabside snapshot --contents heads`). So the
/// kind of block that a program leaks stands on top.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside snapshot 812 -o a.slab --contents heads
  sleep 60
  slabside diff a.slab 812
  slabside diff a.slab b.slab --fail-above 10m

", statuses!("0, or 1 if live blocks grew by more than --fail-above")))]
pub struct Args {
    /// The earlier moment: a snapshot file, a core file or a process number
    before: String,

    /// The later moment, likewise
    after: String,

    /// Exit with status 1 if live blocks grew by more than this many bytes. k, m or g may follow
    #[arg(long, value_name = "BYTES", value_parser = amount)]
    fail_above: Option<u64>,

    #[command(flatten)]
    common: Common,
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
    let before = Read::new(&args.before, &args.common)?;
    let mut figures = vec![before.figures()];
    let after = Read::new(&args.after, &args.common)?;
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
    let _ = writeln!(
        text,
        "survivors: {} blocks; new {}; gone {}",
        grouped(difference.survivors),
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

#[cfg(test)]
mod tests {
    use super::*;

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
