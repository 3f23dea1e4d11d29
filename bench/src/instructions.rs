//! Counts the instructions of single calls of `malloc` and `free` with callgrind, and compares them with
//! budgets.
//!
//! The program `probe` has callgrind dump its counts around each call. What a call of an empty function
//! costs is subtracted, so the figure is the instructions of the allocator's function, its `ret` included,
//! the call and the loop not. The median over the calls is the fast path: a refill is seldom.

use crate::child::command;
use crate::libraries::Library;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Sizes that are counted.
pub const SIZES: [usize; 5] = [8, 16, 64, 256, 1000];

/// Calls of each function and size.
pub const CALLS: usize = 40;

/// The label of the empty function.
pub const EMPTY: &str = "empty";

/// The functions that are counted.
pub const FUNCTIONS: [&str; 2] = ["malloc", "free"];

/// Instructions of each call, by label: the function, a dash, the size.
pub struct Counts(BTreeMap<String, Vec<u64>>);

impl Counts {
    /// The median call of `function` at `size`: instructions inside it.
    pub fn median(&self, function: &str, size: usize) -> Option<u64> {
        let outside = median(self.0.get(EMPTY)?)? - 1;
        median(self.0.get(&format!("{function}-{size}"))?)?.checked_sub(outside)
    }

    /// The largest of the medians over all sizes.
    pub fn worst(&self, function: &str) -> Option<u64> {
        SIZES
            .iter()
            .map(|&size| self.median(function, size))
            .max()?
    }
}

fn median(counts: &[u64]) -> Option<u64> {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// The label and the instructions of one dump.
fn parse(dump: &str) -> Option<(String, u64)> {
    let label = dump
        .lines()
        .find_map(|line| line.strip_prefix("desc: Trigger: Client Request: "))?;
    let total = dump.lines().find_map(|line| {
        line.strip_prefix("totals: ")
            .or(line.strip_prefix("summary: "))
    })?;
    Some((label.trim().to_owned(), total.trim().parse().ok()?))
}

/// The text of each file in a folder.
fn texts(folder: &Path) -> std::io::Result<Vec<String>> {
    let files = std::fs::read_dir(folder)?;
    files
        .map(|file| std::fs::read_to_string(file?.path()))
        .collect()
}

/// The program `probe` that was built beside this one.
fn probe() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program
        .ancestors()
        .map(|folder| folder.join("probe"))
        .find(|path| path.is_file())
}

/// Counts an allocator's calls. None where valgrind or the probe is missing or fails.
pub fn count(library: &Library) -> Option<Counts> {
    let scratch = tempfile::tempdir().ok()?;
    let output = format!("--callgrind-out-file={}/dump", scratch.path().display());
    let mut valgrind = command(Path::new("valgrind"), library);
    valgrind
        .args(["--tool=callgrind", "-q", &output])
        .arg(probe()?)
        .stderr(Stdio::null());
    if !valgrind.status().ok()?.success() {
        return None;
    }
    let mut counts = BTreeMap::<String, Vec<u64>>::new();
    for (label, total) in texts(scratch.path())
        .ok()?
        .iter()
        .filter_map(|dump| parse(dump))
    {
        counts.entry(label).or_default().push(total);
    }
    Some(Counts(counts))
}

/// Whether valgrind can be run at all.
pub fn has_valgrind() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The budget of each function: lines of `name = number`. `#` begins a comment.
pub fn budgets(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim());
    lines.filter(|line| !line.is_empty()).map(budget).collect()
}

fn budget(line: &str) -> Result<(String, u64), String> {
    let wrong = || format!("not a budget: {line}");
    let (name, number) = line.split_once('=').ok_or_else(wrong)?;
    Ok((
        name.trim().to_owned(),
        number.trim().parse().map_err(|_| wrong())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_past_comments() {
        let budgets = budgets("# why\nmalloc = 22 # at first\n\nfree=30\n").unwrap();
        assert_eq!((budgets["malloc"], budgets["free"]), (22, 30));
        assert!(super::budgets("malloc 22").is_err());
    }

    #[test]
    fn a_call_costs_what_an_empty_one_does_not() {
        let counts = [(EMPTY, vec![11, 11, 12]), ("malloc-8", vec![30, 200, 30])];
        let counts = Counts(
            counts
                .into_iter()
                .map(|(label, all)| (label.to_owned(), all))
                .collect(),
        );
        assert_eq!(counts.median("malloc", 8), Some(20));
        assert_eq!(counts.median("free", 8), None);
    }

    #[test]
    fn a_dump_tells_its_label_and_total() {
        let dump = "pid: 1\ndesc: Trigger: Client Request: malloc-8\nevents: Ir\ntotals: 42\n";
        assert_eq!(parse(dump), Some(("malloc-8".to_owned(), 42)));
    }
}
