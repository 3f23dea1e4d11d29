//! The command `slabside`: reads the command line and hands over to the subcommand.
//!
//! The exit status is the program's own, or one of those that env(1) and timeout(1) use: 125 for an error
//! of slabside itself, 126 for a program that cannot be run, 127 for one that is not found.

mod library;
mod options;
mod page;
mod report;
mod resident;
mod run;
mod signals;
mod status;
mod watch;

use anyhow::Error;
use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::process::exit;

/// Runs programs under slabside, a memory allocator whose bookkeeping lies apart from user memory.
#[derive(Parser)]
#[command(name = "slabside", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Options(options::Args),
}

fn main() {
    let cli = Cli::try_parse().unwrap_or_else(|error| usage(&error));
    let done = match cli.command {
        Command::Run(args) => run::run(&args).map(Some),
        Command::Options(args) => options::print(&args).map(|()| None),
    };
    match done {
        Ok(Some(ended)) => status::pass_on(ended),
        Ok(None) => {}
        Err(error) => fail(&error),
    }
}

/// Prints the help or version that was asked for, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ! {
    let text = error.render().to_string();
    let printed = match text.strip_prefix("error: ") {
        Some(text) => write!(io::stderr(), "slabside: {text}"),
        None => error.print(),
    };
    exit(if error.use_stderr() || printed.is_err() {
        status::OWN_ERROR
    } else {
        0
    })
}

fn fail(error: &Error) -> ! {
    // eprintln! would panic where standard error is closed, and hide the status.
    let _ = writeln!(io::stderr(), "slabside: {error:#}");
    exit(status::of_error(error))
}
