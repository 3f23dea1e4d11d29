//! `slabside check`: whether the metadata contradict themselves, from outside.

use super::{grouped, json, print, statuses, Common, Read};
use anyhow::Result;
use serde::Serialize;
use slabside_view::check::{check, Checked};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a process that contradicts itself is read again, and for how long it runs in between at first. Each time
/// that is twice as long: a thread may have to wait for a processor in the middle of a change.
const AGAIN: u32 = 6;
const PAUSE: Duration = Duration::from_millis(5);

/// Check the allocator's bookkeeping for contradictions, also after a crash
///
/// A process may be seen in the middle of a change. So it is read again where it contradicts itself, and only what lasts
/// is reported. While it runs, some contradictions look like the changes that it just makes, and are not looked for:
/// --stop finds all of them.
#[derive(clap::Args)]
#[command(after_help = concat!("\
Examples:
  slabside check 7444 --stop
  slabside check core

", statuses!("0 if the heap is sound, 1 if something contradicts")))]
pub struct Args {
    /// What to read: a process number, a core file or a snapshot file
    target: String,

    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    whole: bool,
    stopped: bool,
    heaps: Vec<Checked>,
}

/// Prints what was found. Returns the exit status.
pub fn run(args: &Args) -> Result<i32> {
    let read = Read::new(&args.target, &args.common)?;
    let mut heaps = checked(&read);
    let mut pause = PAUSE;
    for _ in 0..AGAIN {
        if !read.target.is_moving() || heaps.values().all(|checked| checked.wrong.is_empty()) {
            break;
        }
        std::thread::sleep(pause);
        pause *= 2;
        keep_lasting(
            &mut heaps,
            &checked(&Read::new(&args.target, &args.common)?),
        );
    }
    let heaps: Vec<Checked> = heaps.into_values().collect();
    let whole = heaps.iter().all(|checked| checked.wrong.is_empty());
    let stopped = read.heaps.iter().all(|heap| heap.stopped);
    if args.common.json {
        let schema = "slabside.check/1";
        print(&json(&Report {
            schema,
            whole,
            stopped,
            heaps,
        })?)?;
    } else {
        let mut text = String::new();
        for checked in &heaps {
            text += &line(&read.title(), checked, stopped);
        }
        print(&text)?;
    }
    Ok(i32::from(!whole))
}

/// What was found, by where the heaps' regions lie.
fn checked(read: &Read) -> BTreeMap<u64, Checked> {
    let heaps = read.heaps.iter();
    heaps
        .map(|heap| (heap.region.base, check(&*read.target, heap)))
        .collect()
}

/// Leaves out what is not so in `again`, a later reading, any more.
fn keep_lasting(heaps: &mut BTreeMap<u64, Checked>, again: &BTreeMap<u64, Checked>) {
    let gone = Checked::default();
    for (base, checked) in heaps {
        checked.keep(again.get(base).unwrap_or(&gone));
    }
}

fn line(title: &str, checked: &Checked, stopped: bool) -> String {
    let mut text: String = checked
        .wrong
        .iter()
        .map(|wrong| format!("{wrong}\n"))
        .collect();
    let verdict = match (checked.wrong.len(), stopped) {
        (0, true) => "whole".to_string(),
        (0, false) => "whole, as far as can be told while it runs (--stop tells all)".to_string(),
        (1, _) => "1 contradiction".to_string(),
        (n, _) => format!("{} contradictions", grouped(n as u64)),
    };
    text += &format!(
        "{title}: {verdict}: {} slabs with {} slots, {} large blocks, {} kept ranges, {} heaps\n",
        grouped(checked.slabs),
        grouped(checked.slots),
        grouped(checked.large),
        grouped(checked.kept),
        grouped(checked.heaps)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_is_told() {
        let wrong = |lines: &[&str]| Checked {
            wrong: lines.iter().map(|line| (*line).to_string()).collect(),
            ..Checked::default()
        };
        let mut heaps = BTreeMap::from([(1, wrong(&["a", "b"])), (2, wrong(&["a"]))]);
        keep_lasting(&mut heaps, &BTreeMap::from([(1, wrong(&["b", "c"]))]));
        assert_eq!(heaps, BTreeMap::from([(1, wrong(&["b"])), (2, wrong(&[]))]));
    }

    #[test]
    fn contradictions_come_before_the_verdict() {
        let mut checked = Checked {
            slabs: 1234,
            ..Checked::default()
        };
        assert!(line("p (1)", &checked, true).starts_with("p (1): whole: 1,234 slabs with 0 slots"));
        assert!(line("p (1)", &checked, false).contains("while it runs"));
        checked.wrong = vec!["slab 7 lies at two places".into()];
        let text = line("p (1)", &checked, true);
        assert!(text.starts_with("slab 7 lies at two places\np (1): 1 contradiction: "));
    }
}
