//! Counts what an operation of a row costs with cachegrind: instructions, mispredicted branches, cache misses.
//!
//! Each row runs twice, the second time with twice as many operations, and the difference is divided by the operations
//! that the second run had more. So the start of the process and the making of the heap are not counted. What the
//! workload itself does is: it is the same for every allocator. Other work on the machine changes nothing.

use crate::child::Runner;
use crate::libraries::Library;
use crate::rows::Row;

/// What is counted: the heading of its table, and the events of cachegrind that are added.
pub const COUNTS: [(&str, &[&str]); 4] = [
    ("Instructions", &["Ir"]),
    ("Mispredicted branches", &["Bcm", "Bim"]),
    ("Misses in the first cache", &["I1mr", "D1mr", "D1mw"]),
    ("Misses in the last cache", &["ILmr", "DLmr", "DLmw"]),
];

/// The first cache of data and the last cache that are simulated: bytes, ways, bytes of a line.
const CACHES: [&str; 2] = ["--D1=49152,12,64", "--LL=2097152,16,64"];

/// What an operation costs, in the order of [`COUNTS`].
pub type Cost = [f64; COUNTS.len()];

/// What one run counted, and its operations.
struct Counted {
    events: [u64; COUNTS.len()],
    ops: u64,
}

/// The sums of the events in cachegrind's output.
fn parse(text: &str) -> Option<[u64; COUNTS.len()]> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let names: Vec<_> = line("events: ")?.split_whitespace().collect();
    let sums: Vec<u64> = line("summary: ")?
        .split_whitespace()
        .map(|sum| sum.parse().ok())
        .collect::<Option<_>>()?;
    let sum = |name: &&str| {
        let place = names.iter().position(|other| other == name)?;
        sums.get(place).copied()
    };
    let mut counts = [0; COUNTS.len()];
    for (count, (_, events)) in counts.iter_mut().zip(COUNTS) {
        *count = events.iter().map(sum).sum::<Option<u64>>()?;
    }
    Some(counts)
}

fn run(runner: &Runner, library: &Library, row: &Row, ops: usize) -> Option<Counted> {
    let file = tempfile::NamedTempFile::new().ok()?;
    let output = format!("--cachegrind-out-file={}", file.path().display());
    let options = [
        [
            "--tool=cachegrind",
            "-q",
            "--cache-sim=yes",
            "--branch-sim=yes",
        ]
        .as_slice(),
        &CACHES,
        &[&output],
    ];
    let ran = runner.counted(library, &options.concat(), row.name, ops)?;
    Some(Counted {
        events: parse(&std::fs::read_to_string(file.path()).ok()?)?,
        ops: ran.outcome.ops,
    })
}

/// What an operation of a row costs on an allocator. None where it does not run under valgrind.
pub fn cost(runner: &Runner, library: &Library, row: &Row) -> Option<Cost> {
    let ops = row.counted_ops()?;
    let few = run(runner, library, row, ops)?;
    let many = run(runner, library, row, 2 * ops)?;
    let more = many.ops.checked_sub(few.ops).filter(|&more| more > 0)?;
    let mut cost = [0.0; COUNTS.len()];
    for (each, (many, few)) in cost.iter_mut().zip(many.events.iter().zip(few.events)) {
        *each = (*many as f64 - few as f64) / more as f64;
    }
    Some(cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_by_name_and_added() {
        let text =
            "desc: x\nevents: Ir I1mr ILmr Dr D1mr DLmr Dw D1mw DLmw Bc Bcm Bi Bim\nfn=a\n1 2\n\
                    summary: 100 1 2 30 3 4 20 5 6 10 7 9 8\n";
        assert_eq!(parse(text), Some([100, 15, 9, 12]));
        assert_eq!(parse("events: Ir\nsummary: 100\n"), None);
        assert_eq!(parse(""), None);
    }
}
