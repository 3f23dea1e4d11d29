//! One measurement: the program `runner`, started with one allocator preloaded.

use crate::latency::Latency;
use crate::libraries::Library;
use crate::overhead::Stage;
use crate::workloads::{Held, Outcome, Resident};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What one run told.
#[derive(Clone, Copy, Default)]
pub struct Run {
    /// Times and checksum.
    pub outcome: Outcome,
    /// Most bytes resident at a time, the workload's own tables left out.
    pub peak: usize,
    /// Latencies, where they were asked for.
    pub latency: Option<Latency>,
}

/// The program that does the work, and how to start it.
pub struct Runner(PathBuf);

impl Runner {
    /// The runner that was built beside the program that asks.
    pub fn beside_this_program() -> Self {
        let program = std::env::current_exe().unwrap_or_default();
        let found = program
            .ancestors()
            .map(|folder| folder.join("runner"))
            .find(|path| path.is_file());
        Runner(found.expect("no program `runner` beside this one: build it first"))
    }

    /// The runner at a path.
    pub fn at(path: &str) -> Self {
        Runner(PathBuf::from(path))
    }

    /// Does a row on an allocator.
    pub fn row(&self, library: &Library, row: &str, ops: usize) -> Option<Run> {
        parse(&self.output(library, &["row", row, &ops.to_string()])?)
    }

    /// Has a process touch `bytes` bytes and end, so that the next one does not pay for the first touch of memory that
    /// the machine had given away.
    pub fn warm(&self, library: &Library, bytes: usize) {
        self.output(library, &["warm", &bytes.to_string()]);
    }

    /// Does a row, timing each call.
    pub fn latency(&self, library: &Library, row: &str, ops: usize) -> Option<Run> {
        parse(&self.output(library, &["latency", row, &ops.to_string()])?)
    }

    /// Does a row under valgrind, started with `options`, without its messages.
    pub fn counted(
        &self,
        library: &Library,
        options: &[&str],
        row: &str,
        ops: usize,
    ) -> Option<Run> {
        let output = command("valgrind".as_ref(), library)
            .args(options)
            .arg(&self.0)
            .args(["count", row, &ops.to_string()])
            .output()
            .ok()?;
        let succeeded = output.status.success();
        parse(&String::from_utf8(output.stdout).ok()?).filter(|_| succeeded)
    }

    /// Looks at the bytes beside the live ones. See [`crate::overhead::STAGES`].
    pub fn overhead(&self, library: &Library, mix: &str, count: usize) -> Option<Vec<Stage>> {
        let text = self.output(library, &["overhead", mix, &count.to_string()])?;
        text.lines().map(parse_stage).collect()
    }

    fn output(&self, library: &Library, arguments: &[&str]) -> Option<String> {
        let output = command(&self.0, library)
            .args(arguments)
            .output()
            .expect("the runner can be started");
        let text = String::from_utf8(output.stdout).ok()?;
        if output.status.success() {
            return Some(text);
        }
        eprintln!(
            "{}: {} failed: {}",
            library.name,
            arguments.join(" "),
            output.status
        );
        None
    }
}

/// A command that runs with the allocator preloaded.
pub fn command(program: &Path, library: &Library) -> Command {
    let mut command = Command::new(program);
    match &library.path {
        Some(path) => command.env("LD_PRELOAD", path),
        None => command.env_remove("LD_PRELOAD"),
    };
    command.env("SLABSIDE_OPTIONS", library.options);
    command
}

fn numbers(line: &str) -> Option<Vec<u64>> {
    line.split_whitespace()
        .skip(1)
        .map(|word| word.parse().ok())
        .collect()
}

/// Reads what the runner printed: a line each of `time`, `peak` and what else there is.
fn parse(text: &str) -> Option<Run> {
    let mut run = Run::default();
    for line in text.lines() {
        let numbers = numbers(line)?;
        match (line.split_whitespace().next()?, numbers[..].as_ref()) {
            ("time", &[ops, nanos, checksum]) => {
                (run.outcome.ops, run.outcome.nanos, run.outcome.checksum) = (ops, nanos, checksum)
            }
            ("peak", &[bytes]) => run.peak = bytes as usize,
            ("resident", &[peak, after, later]) => {
                let [peak, after, later] = [peak, after, later].map(|bytes| bytes as usize);
                run.outcome.resident = Some(Resident { peak, after, later });
            }
            ("held", &[live, resident]) => {
                let [live, resident] = [live, resident].map(|bytes| bytes as usize);
                run.outcome.held = Some(Held { live, resident });
            }
            ("latency", &[median, p999, max]) => run.latency = Some(Latency { median, p999, max }),
            _ => return None,
        }
    }
    Some(run)
}

fn parse_stage(line: &str) -> Option<Stage> {
    match numbers(line)?[..] {
        [live, program_break, resident, metadata] => {
            let [live, program_break, resident, metadata] =
                [live, program_break, resident, metadata].map(|n| n as usize);
            Some(Stage {
                live,
                program_break,
                resident,
                metadata,
            })
        }
        _ => None,
    }
}
