//! Runs everything: within a round the allocators take turns row by row, and each round begins with another
//! one, so that what the machine does beside hits all of them alike.

use crate::options::Options;
use crate::results::{Overhead, Results, RowCosts, RowRuns};
use slabside_bench::cachegrind::cost;
use slabside_bench::child::{Run, Runner};
use slabside_bench::instructions::{count, has_valgrind};
use slabside_bench::libraries::Library;
use slabside_bench::overhead::{COUNTS, MIXES};
use slabside_bench::rows::{Row, ROWS};
use std::cell::Cell;

/// Calls `run` for each allocator in turn, `rounds` times over all rows.
fn rounds(
    rows: &[&'static Row],
    options: &Options,
    rounds: usize,
    run: impl Fn(&Library, &Row) -> Option<Run>,
) -> Vec<RowRuns> {
    if rows.is_empty() {
        return Vec::new();
    }
    let allocators = &options.allocators;
    let empty = |row: &&'static Row| RowRuns {
        row,
        runs: vec![Vec::new(); allocators.len()],
        attended: Vec::new(),
    };
    let slabside = allocators.iter().find(|library| library.name == "slabside");
    let attended = slabside.map(Library::with_background);
    let mut all: Vec<_> = rows.iter().map(empty).collect();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}, {} rows", round + 1, rows.len());
        for row in all.iter_mut() {
            for turn in 0..allocators.len() {
                let place = (turn + round) % allocators.len();
                row.runs[place].extend(run(&allocators[place], row.row));
            }
            if let Some(library) = attended.as_ref().filter(|_| row.row.gives_back()) {
                row.attended.extend(run(library, row.row));
            }
        }
    }
    all
}

fn latencies(options: &Options, runner: &Runner) -> Vec<RowRuns> {
    let rows: Vec<_> = ROWS.iter().filter(|row| row.has_latency()).collect();
    let repeats = if options.quick { 1 } else { 3 };
    rounds(&rows, options, repeats, |library, row| {
        runner.latency(library, row.name, row.ops)
    })
}

/// Rounds of the rows of large heaps.
const HEAP_ROUNDS: usize = 5;

/// Each run has a process before it that touches as much memory as the last run of the row held, so that no allocator
/// pays for another's page faults in the host.
fn heaps(options: &Options, runner: &Runner) -> Vec<RowRuns> {
    let most = Cell::new(("", 0));
    rounds(&options.heaps, options, HEAP_ROUNDS, |library, row| {
        if most.get().0 != row.name {
            let first = runner.row(library, row.name, row.ops)?;
            most.set((row.name, first.peak));
        }
        runner.warm(library, most.get().1);
        let run = runner.row(library, row.name, row.ops)?;
        most.set((row.name, most.get().1.max(run.peak)));
        Some(run)
    })
}

/// One mix and count on all allocators at once: bytes do not depend on what else is running.
fn overhead(options: &Options, runner: &Runner, mix: &'static str, count: usize) -> Overhead {
    let stages = std::thread::scope(|scope| {
        let start = |library| scope.spawn(move || runner.overhead(library, mix, count));
        let threads: Vec<_> = options.allocators.iter().map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a run does not panic"))
            .collect()
    });
    Overhead { mix, count, stages }
}

/// The mixes of a short run.
const SOME: [&str; 4] = ["16", "100", "skewed", "8-8192"];

fn overheads(options: &Options, runner: &Runner) -> Vec<Overhead> {
    eprintln!("bytes beside the live ones");
    let mixes = MIXES
        .iter()
        .filter(|mix| !options.quick || SOME.contains(&mix.name));
    let cases = COUNTS
        .iter()
        .flat_map(|&count| mixes.clone().map(move |mix| (mix.name, count)));
    cases
        .map(|(mix, count)| overhead(options, runner, mix, count))
        .collect()
}

/// Processes that count at a time: what they count does not depend on each other.
const COUNTERS: usize = 2;

fn counts(options: &Options, runner: &Runner) -> Vec<RowCosts> {
    let allocators = &options.allocators;
    let count = |row: &&'static Row| {
        eprintln!("counts of {}", row.name);
        let mut costs = vec![None; allocators.len()];
        for (libraries, costs) in allocators.chunks(COUNTERS).zip(costs.chunks_mut(COUNTERS)) {
            std::thread::scope(|scope| {
                for (library, found) in libraries.iter().zip(costs) {
                    scope.spawn(move || *found = cost(runner, library, row));
                }
            });
        }
        RowCosts { row, costs }
    };
    options.counted.iter().map(count).collect()
}

/// Makes all measurements that the options ask for.
pub fn everything(options: &Options) -> Results {
    let runner = Runner::beside_this_program();
    let wants = |extra| options.extras.contains(&extra);
    let run =
        |library: &Library, row: &Row| runner.row(library, row.name, row.ops * options.factor);
    let counted = wants("instructions") && has_valgrind();
    Results {
        rows: rounds(&options.rows, options, options.rounds, run),
        latencies: if wants("latency") {
            latencies(options, &runner)
        } else {
            Vec::new()
        },
        heaps: heaps(options, &runner),
        overheads: if wants("overhead") {
            overheads(options, &runner)
        } else {
            Vec::new()
        },
        counts: if has_valgrind() {
            counts(options, &runner)
        } else {
            Vec::new()
        },
        instructions: options
            .allocators
            .iter()
            .map(|library| if counted { count(library) } else { None })
            .collect(),
        allocators: options.allocators.clone(),
    }
}
