//! `slabside run`: any program with the library preloaded, and a report of its heap if one is asked for.
//!
//! Without a report the program takes this process's place. With one this process waits beside it, in the same process
//! group, and ends as the program ended.

use crate::page::{self, Page, Pages, Reports};
use crate::profiled::{self, Profiled};
use crate::report::{Form, Report, Tree};
use crate::signals::{self, Inherited};
use crate::status::CannotRun;
use crate::trace::Ending;
use crate::view::leaks::{Suppressions, Told};
use crate::view::profile::Profile;
use crate::view::symbolize::{has_stacks, symbolize};
use crate::watch::{Beside, End};
use crate::{library, options, program, trace, view, watch};
use anyhow::{Context, Result};
use serde::Serialize;
use slabside_base::counters::VARIABLE;
use slabside_view::leaks::{Proof, Search};
use slabside_view::source::Target;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The environment variable of libraries to be loaded first (ld.so(8)).
const PRELOAD: &str = "LD_PRELOAD";
/// Bytes between two samples of a profile, unless they are given.
const INTERVAL: u64 = 512 << 10;

/// Run any dynamically linked program with slabside in the place of its malloc
///
/// The program is looked up in PATH. It keeps standard input and output and the terminal, and slabside exits with its
/// exit status. Programs that it starts use slabside too. Programs that are linked statically, or run with the rights
/// of another user (set-user-id), keep their own malloc.
#[derive(clap::Args)]
#[command(override_usage = "slabside run [OPTIONS] -- PROGRAM [ARGUMENTS]...")]
#[command(after_help = "\
Examples:
  slabside run -- ls -l
  slabside run --stats -- python3 script.py
  slabside run --stats=heap.json --json --children -- make -j8
  slabside run --leaks -- ./server --once
  slabside run --profile=heap.pb.gz -- ./batch
  slabside run --option decay:1s --option misuse:report -- ./server

Environment:
  SLABSIDE_OPTIONS  options of the allocator, to which --option adds
  SLABSIDE_LIBRARY  the library to preload, if --library names none
  LD_PRELOAD        slabside puts its library before what is there

Exit status: that of the program; 125 if slabside itself fails, 126 if the program cannot be run, 127 if it is not \
found. If a signal kills the program, slabside dies by the same signal.")]
pub struct Args {
    /// Print figures of the heap when the program has ended, on standard error or to FILE
    ///
    /// The figures are those of the program itself, and with --children of the programs that it starts. They are appended
    /// to FILE. If this command is killed, the program goes on and no figures are printed.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    stats: Option<Option<PathBuf>>,

    /// Print the figures as JSON, on one line. Implies --stats, unless --leaks or --profile is given
    ///
    /// With --leaks the lost blocks are printed, each report a line of its own. With --profile alone the profile is printed as
    /// `slabside profile --json` does.
    #[arg(long)]
    json: bool,

    /// Also print figures of the programs that it starts, a record for each process. Implies --stats
    ///
    /// With --json a line each. A process that goes on when the program has ended is reported as far as it has come. A
    /// child made by fork(2) alone begins with its parent's figures.
    #[arg(long)]
    children: bool,

    /// Print the blocks that the program has lost, when it ends by itself, on standard error or to the FILE of --stats
    ///
    /// A block is lost if no pointer leads to it any more, see slabside-leaks(1). The program is traced by ptrace(2), and
    /// stops once, when it ends. No debugger can be attached to it meanwhile. If it is set-user-id, it gets no more rights.
    #[arg(long)]
    leaks: bool,

    /// Leave out lost blocks whose types or stacks this file names, as with `slabside leaks`
    #[arg(long, value_name = "FILE", requires = "leaks")]
    suppressions: Option<PathBuf>,

    /// Write a heap profile of the whole run to FILE when the program ends: which code allocated, and what it still holds
    ///
    /// The form is that of `slabside profile -o`: for pprof, or a flame graph if FILE ends in .svg. The program takes a sample
    /// every 512 KiB, unless --profile-interval or --option profile says otherwise. It is traced as with --leaks. Programs
    /// that it starts are not profiled. FILE may be a pipe: it is opened before the program starts.
    #[arg(long, value_name = "FILE", require_equals = true)]
    profile: Option<PathBuf>,

    /// Bytes between two samples of --profile, on average; k, m or g may follow
    #[arg(long, value_name = "BYTES", value_parser = view::profile::interval, requires = "profile")]
    profile_interval: Option<u64>,

    /// Name the functions in reports of misuse, when the program has ended, on standard error
    ///
    /// Reports have stacks in hardened mode and with guard-sample. This is what `slabside symbolize` prints of them. --stats,
    /// --children, --leaks and --profile imply it, unless --json is given.
    #[arg(long)]
    symbolize: bool,

    /// Let any process of the same user look into the program: short for --option watch:any
    ///
    /// It is needed where kernel.yama.ptrace_scope is 1, which else allows ancestors only.
    #[arg(long)]
    watch: bool,

    /// Preload this library
    ///
    /// Without it, slabside uses the library that SLABSIDE_LIBRARY names. Otherwise it looks for libslabside_preload.so
    /// or libslabside.so.0, in the directory of the slabside command and from there in ../lib, ../lib/slabside and
    /// ../lib64. Last comes the library that the command carries, which it keeps in ~/.cache/slabside.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,

    /// Set an option of the allocator. `slabside options` lists them. Can be given more than once
    ///
    /// They are added to those in SLABSIDE_OPTIONS. If a name occurs twice, the last one counts.
    #[arg(long = "option", value_name = "NAME:VALUE")]
    options: Vec<String>,

    /// The program to run, and its arguments. Put -- before it
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

impl Args {
    fn program(&self) -> &OsStr {
        &self.command[0]
    }

    fn reports(&self) -> bool {
        self.children || self.stats.is_some() || self.json && !self.traces()
    }

    fn form(&self) -> Form {
        if self.json {
            Form::Json
        } else {
            Form::Table
        }
    }

    /// The options that are set for the program.
    fn options(&self) -> Vec<String> {
        let watch = self.watch.then(|| "watch:any".to_owned());
        let interval = self.profile_interval.unwrap_or(INTERVAL);
        let profile = self.profile.as_ref().map(|_| format!("profile:{interval}"));
        // Of options with one name the last one counts: what was said of the interval, or else what the option says.
        let (before, behind) = match self.profile_interval {
            None => (profile, None),
            Some(_) => (None, profile),
        };
        let given = watch.into_iter().chain(before);
        given.chain(self.options.clone()).chain(behind).collect()
    }

    /// Whether the program is traced.
    fn traces(&self) -> bool {
        self.leaks || self.profile.is_some()
    }

    fn file(&self) -> Option<&Path> {
        self.stats.as_ref()?.as_deref()
    }
}

/// Runs the program. Returns how it ended, or not at all where no report is wanted and it was started.
pub fn run(args: &Args) -> Result<ExitStatus> {
    let command = prepare(args)?;
    if args.reports() || args.traces() || args.symbolize {
        run_and_report(args, command)
    } else {
        if let Some(obstacle) = program::obstacle(args.program()) {
            let name = args.program().to_string_lossy();
            let why = format!("'{name}' {obstacle}, so it keeps its own malloc");
            let _ = writeln!(io::stderr(), "slabside: {why}");
        }
        Err(replace(args, command).into())
    }
}

/// The program's command line, with the library in its environment.
fn prepare(args: &Args) -> Result<Command> {
    let library = library::find(args.library.as_deref())?;
    let given = args.options();
    let chosen = options::joined(env::var_os(options::VARIABLE), &given)?;
    let present = env::var_os(PRELOAD);
    let mut command = Command::new(args.program());
    command.args(&args.command[1..]);
    command.env(PRELOAD, library::prepended(&library, present.as_deref()));
    if !given.is_empty() {
        command.env(options::VARIABLE, chosen);
    }
    Ok(command)
}

/// Becomes the program. Returns why that failed.
fn replace(args: &Args, mut command: Command) -> CannotRun {
    let inherited = Inherited::note();
    before_exec(&mut command, move || inherited.restore());
    CannotRun {
        program: args.program().to_owned(),
        cause: command.exec(),
    }
}

fn run_and_report(args: &Args, command: Command) -> Result<ExitStatus> {
    let mut output = output(args.file())?;
    let looks = Looks::new(args)?;
    let (text, status) = if args.children {
        run_tree(args, command, looks)?
    } else {
        run_alone(args, command, looks)?
    };
    // The program has run, so its exit status matters more than this failure.
    if let Err(error) = output.write_all(view::harmless(&text).as_bytes()) {
        let _ = writeln!(io::stderr(), "slabside: cannot write the figures: {error}");
    }
    Ok(status)
}

/// Runs the program with a page of its own. Returns the report and how it ended.
fn run_alone(args: &Args, command: Command, looks: Looks) -> Result<(String, ExitStatus)> {
    let page = Page::create().context("cannot make a page for the counters")?;
    let counters = page.counters();
    let started = start(args, command, &page.path(), move || page::claim(counters))?;
    let (end, mut text) = until_end(args, &started, looks)?;
    if args.reports() {
        let report = Report::new(args.program(), started.child, &end, counters);
        text += &report.print(args.form());
    }
    Ok((text, end.status))
}

/// The same, where each process takes a page.
fn run_tree(args: &Args, command: Command, looks: Looks) -> Result<(String, ExitStatus)> {
    let pages = Pages::create().context("cannot make pages for the counters")?;
    let started = start(args, command, &pages.path(), || ())?;
    let (end, told) = until_end(args, &started, looks)?;
    let taken = pages.taken().context("cannot read the counters")?;
    let left_out = pages.left_out();
    let tree = Tree::new(args.program(), started.child, &end, &taken, left_out);
    Ok((told + &tree.print(args.form()), end.status))
}

/// A program that runs.
struct Started {
    child: u32,
    /// Whether it is traced, or why not.
    traced: std::result::Result<(), String>,
    /// Where its reports of misuse are, if they are to be named.
    reports: Option<Reports>,
}

/// What is looked at in a program beside its counters.
struct Looks {
    json: bool,
    /// What it has lost, once that is known.
    lost: Option<std::result::Result<String, String>>,
    leaks: bool,
    suppressions: Suppressions,
    profiled: Option<Profiled>,
}

impl Looks {
    /// Opens and reads the files that `args` name.
    fn new(args: &Args) -> Result<Looks> {
        let profile = args.profile.as_deref().map(profiled::Output::open);
        Ok(Looks {
            json: args.json,
            lost: None,
            leaks: args.leaks,
            suppressions: Suppressions::read(args.suppressions.as_deref())?,
            profiled: profile.transpose()?.map(Profiled::new),
        })
    }
}

impl Beside for Looks {
    fn meanwhile(&mut self, pid: u32) {
        if let Some(profiled) = &mut self.profiled {
            profiled.meanwhile(pid);
        }
    }

    fn at_end(&mut self, pid: u32) -> bool {
        let ending = trace::ending(pid);
        if ending == Ending::Exec {
            let followed = trace::follow_exec(pid);
            if let Some(profiled) = self.profiled.as_mut().filter(|_| !followed) {
                profiled.miss("it could not be traced any more when one of its threads became another program");
            }
            return followed;
        }
        if let Some(profiled) = &mut self.profiled {
            profiled.at_end(pid);
            if ending == Ending::First {
                profiled.miss("its first thread ended before others");
            }
        }
        if self.leaks {
            let found = match ending {
                Ending::Whole => {
                    lost(pid, self.json, &self.suppressions).map_err(|error| format!("{error:#}"))
                }
                Ending::First => Err("its first thread ended before others".into()),
                _ => Err("a signal killed it".into()),
            };
            let goes_on = found.is_ok();
            self.lost = Some(found);
            if goes_on {
                return true;
            }
        }
        trace::go_on(pid, 0);
        true
    }
}

/// Waits for the end of the program, and writes its profile. Returns how it ended, and what is told of its profile and of
/// what it has lost.
fn until_end(args: &Args, started: &Started, mut looks: Looks) -> Result<(End, String)> {
    let traced = args.traces() && started.traced.is_ok();
    let end = watch::until_end(started.child, traced, &mut looks);
    let end = end.context("cannot wait for the program")?;
    if let Some(reports) = &started.reports {
        name_functions(reports);
    }
    let mut text = String::new();
    if let Some(mut profiled) = looks.profiled {
        if let Err(why) = &started.traced {
            profiled.miss(why);
        }
        let name = Path::new(args.program()).file_name();
        let name = name.unwrap_or(args.program()).to_string_lossy();
        let told = profiled.write(&format!("{name} ({})", started.child));
        text += &told_of(args, told)?;
    }
    if !args.leaks {
        return Ok((end, text));
    }
    let told = looks.lost.unwrap_or_else(|| {
        let unseen = || "nobody saw its end".to_string();
        Err(started.traced.clone().err().unwrap_or_else(unseen))
    });
    text += &told.or_else(|why| not_known(args, &why))?;
    Ok((end, text))
}

/// What is told of a profile that was written, or why it was not.
fn told_of(args: &Args, profile: Result<Profile>) -> Result<String> {
    let other = args.leaks || args.reports();
    let failed = |error: &str| {
        view::json(&NotKnown {
            schema: PROFILE,
            error,
        })
    };
    match (profile, args.json) {
        (Ok(profile), false) => say(&profile.headline()),
        // Where another object is printed, that is alone. The file says the rest.
        (Ok(profile), true) if other => {
            let gap = profile.gap.as_ref();
            let told = gap.map(|gap| {
                view::json(&Gap {
                    schema: PROFILE,
                    gap,
                })
            });
            return told.unwrap_or(Ok(String::new()));
        }
        (Ok(profile), true) => return profile.json(),
        (Err(error), false) => say(&format!("slabside: no heap profile: {error:#}")),
        (Err(error), true) => return failed(&format!("no heap profile: {error:#}")),
    }
    Ok(String::new())
}

/// That it is not known what the program has lost.
fn not_known(args: &Args, why: &str) -> Result<String> {
    let error = format!("cannot say what the program has lost: {why}");
    match args.json {
        true => view::json(&NotKnown {
            schema: "slabside.leaks/1",
            error: &error,
        }),
        false => Ok(format!("slabside: {error}\n")),
    }
}

/// The schema of what is told of a profile.
const PROFILE: &str = "slabside.profile/1";

/// What is told of a profile that is in its file, where not all of the run was seen.
#[derive(Serialize)]
struct Gap<'a> {
    schema: &'static str,
    gap: &'a str,
}

/// What stands in the place of a report.
#[derive(Serialize)]
struct NotKnown<'a> {
    schema: &'static str,
    error: &'a str,
}

/// Prints the reports of misuse that have stacks once more, with the names of functions.
fn name_functions(reports: &Reports) {
    let text = reports.text().unwrap_or_default();
    if has_stacks(&text) {
        let named = symbolize(&text);
        say(&format!(
            "slabside: the same with names:\n{}",
            named.trim_end()
        ));
    }
}

/// Prints a line on standard error, if that is there.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// What the program `pid`, which is at its end, has lost. It goes on, unless this fails.
fn lost(pid: u32, as_json: bool, suppressions: &Suppressions) -> Result<String> {
    let mut target = Target::ending(pid)?;
    let about = target.about();
    let how = Search {
        passes: None,
        proof: Proof::Whole,
        track: None,
        kinds: false,
    };
    let found = suppressions.search(&mut target, None, &how)?;
    Told::new(&about, &target.name(), found).text(as_json)
}

/// Where the report goes: to the end of `file`, which is made before the program runs, or to standard error.
fn output(file: Option<&Path>) -> Result<Box<dyn Write>> {
    let Some(path) = file else {
        return Ok(Box::new(io::stderr()));
    };
    let mut options = File::options();
    let file = options.create(true).append(true).open(path);
    let file = file.with_context(|| format!("cannot write to '{}'", path.display()))?;
    Ok(Box::new(file))
}

/// Starts the program with the page or pages at `path`. `claim` runs in the new process
/// before exec, and must be async-signal-safe.
fn start(
    args: &Args,
    mut command: Command,
    path: &OsStr,
    claim: impl Fn() + Send + Sync + 'static,
) -> Result<Started> {
    let inherited = Inherited::note();
    signals::hold();
    command.env(OsStr::from_bytes(VARIABLE.to_bytes()), path);
    let reports = match args.symbolize || !args.json {
        true => Some(Reports::create().context("cannot make a file for reports")?),
        false => None,
    };
    if let Some(reports) = &reports {
        let variable = OsStr::from_bytes(slabside_base::os::REPORTS.to_bytes());
        command.env(variable, reports.path());
    }
    before_exec(&mut command, move || {
        claim();
        inherited.restore();
    });
    let spawned = match args.traces() {
        true => trace::spawn(&mut command),
        false => command.spawn().map(|child| (child, None)),
    };
    match spawned {
        Ok((child, why)) => Ok(Started {
            child: child.id(),
            reports,
            traced: why.map_or(Ok(()), |why| Err(format!("it cannot be traced: {why}"))),
        }),
        Err(cause) => Err(CannotRun {
            program: args.program().to_owned(),
            cause,
        }
        .into()),
    }
}

/// Has `act`, which must be async-signal-safe, run in the new process just before exec.
fn before_exec(command: &mut Command, act: impl Fn() + Send + Sync + 'static) {
    let act = move || {
        act();
        Ok(())
    };
    // SAFETY: both closures passed above only store to atomics and call getpid, sigaction and sigprocmask,
    // all of which are async-signal-safe (signal-safety(7)).
    unsafe { command.pre_exec(act) };
}
