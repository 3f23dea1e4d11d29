//! The command `slabside`: reads the command line and hands over to the subcommand.
//!
//! The exit status is the program's own, or one of those that env(1) and timeout(1) use. 125 is an error of slabside
//! itself, 126 a program that cannot be run, and 127 one that is not found.

mod completions;
mod embedded;
mod library;
mod manual;
mod options;
mod page;
#[cfg(test)]
mod pages;
mod profiled;
mod program;
mod report;
mod resident;
mod run;
mod signals;
mod status;
mod trace;
mod view;
mod watch;

use anyhow::Error;
use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::process::exit;

/// Run programs on the memory allocator slabside, and look into their heaps
///
/// slabside takes the place of malloc. It detects every double and invalid free, and gives freed memory back to the
/// system. `slabside run` starts any dynamically linked program on it. The other commands read the heap of such a
/// process, of its core file, or of a snapshot, from outside. They stop the process only with --stop, except that `leaks`
/// stops it for a moment by itself. They change nothing in it, except that `profile --on` and `--off` write one word.
#[derive(Parser)]
#[command(name = "slabside", version)]
#[command(after_help = "\
Examples:
  slabside run --stats -- ls -l
  slabside top 7444

Environment:
  SLABSIDE_OPTIONS      options of the allocator, see slabside-options(7)
  SLABSIDE_LIBRARY      the library that `slabside run` preloads
  XDG_CACHE_HOME, HOME  where the command keeps the library that it carries

Files:
  ~/.cache/slabside/libslabside-VERSION-HASH.so
      The library that the command carries, if none is installed. The
      directory belongs to the user and has mode 0700.

Exit status: 0, or what the page of the command says; 125 for a wrong command line.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Options(options::Args),
    Ps(view::ps::Args),
    Top(view::top::Args),
    Map(view::map::Args),
    Explain(view::explain::Args),
    Types(view::types::Args),
    Leaks(view::leaks::Args),
    Profile(view::profile::Args),
    Snapshot(view::snapshot::Args),
    Diff(view::diff::Args),
    Check(view::check::Args),
    Symbolize(view::symbolize::Args),
    GdbScript(view::debugger::GdbArgs),
    LldbScript(view::debugger::LldbArgs),
    Completions(completions::Args),
    Manual(manual::Args),
}

fn main() {
    let cli = Cli::try_parse().unwrap_or_else(|error| usage(&error));
    let done = match cli.command {
        Command::Run(args) => run::run(&args).map(Some),
        Command::Options(args) => options::print(&args).map(|()| None),
        Command::Completions(args) => completions::print(&args).map(|()| None),
        Command::Manual(args) => manual::write(&args).map(|()| None),
        other => look(&other),
    };
    match done {
        Ok(Some(ended)) => status::pass_on(ended),
        Ok(None) => {}
        Err(error) => fail(&error),
    }
}

/// Looks into a heap from outside, and ends with a status of its own where that says something.
fn look(command: &Command) -> anyhow::Result<Option<std::process::ExitStatus>> {
    let status = match command {
        Command::Ps(args) => view::ps::run(args).map(|()| 0),
        Command::Top(args) => view::top::run(args).map(|()| 0),
        Command::Map(args) => view::map::run(args).map(|()| 0),
        Command::Explain(args) => view::explain::run(args).map(|()| 0),
        Command::Types(args) => view::types::run(args).map(|()| 0),
        Command::Leaks(args) => view::leaks::run(args),
        Command::Profile(args) => view::profile::run(args).map(|()| 0),
        Command::Snapshot(args) => view::snapshot::run(args).map(|()| 0),
        Command::Diff(args) => view::diff::run(args),
        Command::Check(args) => view::check::run(args),
        Command::Symbolize(args) => view::symbolize::run(args).map(|()| 0),
        Command::GdbScript(args) => view::debugger::gdb(args).map(|()| 0),
        Command::LldbScript(args) => view::debugger::lldb(args).map(|()| 0),
        Command::Run(_) | Command::Options(_) | Command::Completions(_) | Command::Manual(_) => {
            Ok(0)
        }
    }?;
    match status {
        0 => Ok(None),
        status => exit(status),
    }
}

/// Prints the help or version that was asked for, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        match view::printed(error.print()) {
            Ok(()) => exit(0),
            Err(error) => fail(&error),
        }
    }
    let text = error.render().to_string();
    let _ = match text.strip_prefix("error: ") {
        Some(text) => write!(io::stderr(), "slabside: {text}"),
        None => error.print(),
    };
    exit(status::OWN_ERROR)
}

fn fail(error: &Error) -> ! {
    // eprintln! would panic where standard error is closed, and hide the status.
    let _ = writeln!(io::stderr(), "slabside: {error:#}");
    exit(status::of_error(error))
}
