//! `slabside check`: whether the metadata contradict themselves, from outside.

use super::{json, print, several, statuses, Common, Read};
use anyhow::Result;
use serde::Serialize;
use slabside_view::check::{lasting, Checked};

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
    let mut read = Read::new(&args.target, &args.common)?;
    let heaps = lasting(&mut read.target, &read.heaps)?;
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

fn line(title: &str, checked: &Checked, stopped: bool) -> String {
    let mut text: String = checked
        .wrong
        .iter()
        .map(|wrong| format!("{wrong}\n"))
        .collect();
    let verdict = match (checked.wrong.len(), stopped) {
        (0, true) => "whole".to_string(),
        (0, false) => "whole, as far as can be told while it runs (--stop tells all)".to_string(),
        (n, _) => several(n as u64, "contradiction"),
    };
    text += &format!(
        "{title}: {verdict}: {} with {}, {}, {}, {}\n",
        several(checked.slabs, "slab"),
        several(checked.slots, "slot"),
        several(checked.large, "large block"),
        several(checked.kept, "kept range"),
        several(checked.heaps, "heap")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
