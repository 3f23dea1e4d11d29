//! How a question is put to criterion: each of its rows on each allocator, in one process or in one for every sample.
//! An iteration is a quarter of what `compare` does in a quick run, so setting up the tables does not weigh. The
//! throughput tells operations a second.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use slabside_bench::child::Runner;
use slabside_bench::in_process::{each, Visitor};
use slabside_bench::libraries;
use slabside_bench::rows::{of_question, Row};
use slabside_bench::workloads::Outcome;
use std::alloc::GlobalAlloc;
use std::time::Duration;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn operations(row: &Row) -> usize {
    row.ops / 4
}

fn group<'a>(criterion: &'a mut Criterion, row: &Row) -> Group<'a> {
    let mut group = criterion.benchmark_group(row.name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(operations(row) as u64));
    group
}

/// A row may do a few operations more than it was asked for: the time for exactly as many as that.
fn measure(group: &mut Group, row: &Row, name: &str, mut run: impl FnMut(usize) -> Outcome) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let ops = operations(row) * iterations as usize;
            Duration::from_nanos((run(ops).nanos_per_op() * ops as f64) as u64)
        });
    });
}

struct InThisProcess<'a, 'b>(&'a mut Group<'b>, &'static Row);

impl Visitor for InThisProcess<'_, '_> {
    fn visit<A: GlobalAlloc + Sync>(&mut self, name: &str, allocator: &A) {
        let row = self.1;
        measure(self.0, row, name, |ops| row.run(allocator, ops));
    }
}

/// Each row of the question on every allocator that was built in.
#[allow(dead_code)]
pub fn in_one_process(criterion: &mut Criterion, question: &str) {
    for row in of_question(question) {
        each(&mut InThisProcess(&mut group(criterion, row), row));
    }
}

/// Each row of the question on every allocator that is there as a shared library.
#[allow(dead_code)]
pub fn in_processes(criterion: &mut Criterion, question: &str) {
    let runner = Runner::beside_this_program();
    for row in of_question(question) {
        let mut group = group(criterion, row);
        for library in libraries::all() {
            let run = |ops| {
                runner
                    .row(&library, row.name, ops)
                    .expect("the runner reports")
                    .outcome
            };
            measure(&mut group, row, &library.name, run);
        }
    }
}
