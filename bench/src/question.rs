//! A question asked with criterion, for the files in `../benches`: the rows that belong to it, in this process
//! or in processes of their own.

use crate::child::Runner;
use crate::in_process::{each, Visitor};
use crate::libraries;
use crate::rows::{of_question, Row};
use std::alloc::GlobalAlloc;
use std::time::Duration;

/// How criterion is told of one measurement: a name, and a function from a count of operations to the
/// time that they took.
pub type Report<'a> = &'a mut dyn FnMut(&'static Row, &str, &mut dyn FnMut(u64) -> Duration);

struct InProcess<'a>(&'static Row, Report<'a>);

impl Visitor for InProcess<'_> {
    fn visit<A: GlobalAlloc + Sync>(&mut self, name: &str, allocator: &A) {
        let row = self.0;
        (self.1)(row, name, &mut |ops| time(row.run(allocator, ops as usize).nanos_per_op(), ops));
    }
}

/// A row may do a few operations more than it was asked for: the time for exactly `ops`.
fn time(nanos_per_op: f64, ops: u64) -> Duration {
    Duration::from_nanos((nanos_per_op * ops as f64) as u64)
}

/// Each row of `question` on each allocator in this process.
pub fn in_one_process(question: &str, report: Report) {
    for row in of_question(question) {
        each(&mut InProcess(row, report));
    }
}

/// Each row of `question` on each allocator as a shared library, a process for every sample.
pub fn in_processes(question: &str, runner: &Runner, report: Report) {
    for row in of_question(question) {
        for library in libraries::all() {
            let run = |ops| runner.row(&library, row.name, ops).expect("the runner reports").outcome.nanos_per_op();
            report(row, &library.name, &mut |ops| time(run(ops as usize), ops));
        }
    }
}
