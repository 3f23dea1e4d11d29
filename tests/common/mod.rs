//! The harness of the tests that run C programs: builds the libraries once, compiles a program from
//! `tests/c`, runs it under a time limit and says how it ended.

#![allow(dead_code)] // each test binary uses its own part

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may run, by [`Clock`]: far longer than any does, since a machine may be slow too.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the workspace builds for programs that are not written in Rust.
pub struct Artifacts {
    /// `libslabside.a`: the allocator under names of its own.
    pub archive: PathBuf,
    /// `libslabside_preload.so`: the allocator in place of the C library's.
    pub preload: PathBuf,
    /// `libslabside_preload.a`: the same for static programs.
    pub replacement: PathBuf,
    /// The command `slabside`.
    pub command: PathBuf,
}

/// The two ways in which a C program gets the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Linked with the static library, the usual names mapped to `slabside_*` by `check.h`.
    Prefixed,
    /// An ordinary program under `LD_PRELOAD`.
    Preloaded,
}

/// Both forms.
pub const FORMS: [Form; 2] = [Form::Prefixed, Form::Preloaded];

/// How a program ended and what it wrote.
#[derive(Debug)]
pub struct Output {
    /// Its exit status, unless a signal ended it.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// What was run, for messages.
    pub name: String,
    /// How many processors others had meanwhile, on average.
    pub others: f64,
}

impl Output {
    /// Whether it died of a misuse, and said nothing else than the one line that contains `words`.
    #[track_caller]
    pub fn died_saying(self, words: &str) {
        let one_line = self.stderr.matches('\n').count() == 1;
        let said = self.stderr.starts_with("slabside: ") && self.stderr.contains(words);
        assert!(
            self.signal == Some(libc::SIGABRT) && one_line && said,
            "{words}: {self:#?}"
        );
    }

    /// What it wrote to standard output, if it ended with status 0 and said nothing on standard error.
    #[track_caller]
    pub fn passed(self) -> String {
        assert!(
            self.status == Some(0) && self.stderr.is_empty(),
            "{self:#?}"
        );
        self.stdout
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The libraries and the command in their release builds, built at the first call.
pub fn artifacts() -> &'static Artifacts {
    static BUILT: OnceLock<Artifacts> = OnceLock::new();
    BUILT.get_or_init(|| {
        cargo(&[
            "build",
            "--release",
            "-p",
            "slabside-c",
            "-p",
            "slabside-preload",
            "-p",
            "slabside-static",
            "-p",
            "slabside-cli",
        ]);
        let release = target_directory().join("release");
        let artifacts = Artifacts {
            archive: release.join("libslabside.a"),
            preload: release.join("libslabside_preload.so"),
            replacement: release.join("libslabside_preload.a"),
            command: release.join("slabside"),
        };
        for file in [
            &artifacts.archive,
            &artifacts.preload,
            &artifacts.replacement,
            &artifacts.command,
        ] {
            assert!(file.is_file(), "the build made no {}", file.display());
        }
        artifacts
    })
}

/// An example that needs `feature`, in its debug build: a second one of this crate alone, since what it depends on is
/// built already.
pub fn example(name: &str, feature: &str) -> PathBuf {
    example_in("debug", name, &["--features", feature])
}

/// The same with link-time optimization, which takes most of a minute.
pub fn example_in_one_piece(name: &str, feature: &str) -> PathBuf {
    let lto = "profile.release.lto='fat'";
    let units = "profile.release.codegen-units=1";
    let how = ["--release", "--config", lto, "--config", units];
    example_in(
        "release",
        name,
        &[&how[..], &["--features", feature]].concat(),
    )
}

fn example_in(folder: &str, name: &str, how: &[&str]) -> PathBuf {
    cargo(&[&["build", "-p", "slabside", "--example", name], how].concat());
    let program = target_directory().join(folder).join("examples").join(name);
    assert!(program.is_file(), "the build made no {}", program.display());
    program
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "cargo {args:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// Where cargo builds to, as cargo itself says, so that every way to set it is honoured.
fn target_directory() -> PathBuf {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let (_, rest) = metadata
        .split_once("\"target_directory\":\"")
        .expect("cargo names its target directory");
    PathBuf::from(rest.split_once('"').expect("a closing quote").0)
}

/// Compiles `tests/c/<c_file>` with `flags` against the header and the static library. A program that
/// calls none of the library's names is an ordinary one. The same file with the same flags is compiled
/// once in each test binary.
pub fn compile(c_file: &str, flags: &[&str]) -> PathBuf {
    static DONE: Mutex<Option<HashMap<PathBuf, Arc<OnceLock<()>>>>> = Mutex::new(None);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(output_name(c_file, flags));
    let once = {
        let mut done = DONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        done.get_or_insert_with(HashMap::new)
            .entry(program.clone())
            .or_default()
            .clone()
    };
    once.get_or_init(|| compile_to(&program, c_file, flags));
    program
}

fn output_name(c_file: &str, flags: &[&str]) -> String {
    let mut name = c_file.trim_end_matches(".c").replace('/', "-");
    for flag in flags {
        name.push('.');
        name.extend(
            flag.chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }),
        );
    }
    name
}

/// Compiles beside the goal and moves it there, since other test processes may be running the old one.
fn compile_to(program: &Path, c_file: &str, flags: &[&str]) {
    let fresh = program.with_file_name(format!(
        "{}.{}.new",
        program.file_name().expect("a name").to_string_lossy(),
        std::process::id()
    ));
    let compiler = if c_file.ends_with(".cpp") {
        env::var_os("CXX").unwrap_or("g++".into())
    } else {
        env::var_os("CC").unwrap_or("gcc".into())
    };
    let output = Command::new(compiler)
        .args(["-O2", "-g", "-Wall", "-Werror", "-fno-builtin", "-pthread"])
        .arg("-I")
        .arg(root().join("include"))
        .args(flags)
        .arg("-o")
        .arg(&fresh)
        .arg(root().join("tests/c").join(c_file))
        .arg(&artifacts().archive)
        .output()
        .unwrap_or_else(|e| {
            panic!("the compiler does not start: {e} (apt-get install gcc g++ libc6-dev)")
        });
    assert!(
        output.status.success(),
        "{c_file} {flags:?}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&fresh, program).expect("the program can be moved to its place");
}

/// Runs `program` with `args` and, beside this process's environment, `env`. Ends it after [`PATIENCE`], and all that it
/// has started. No core is dumped.
pub fn run(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    run_for(PATIENCE, program, args, env)
}

/// As [`run`] with another patience.
pub fn run_for(patience: Duration, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_remove("LD_PRELOAD")
        .envs(env.iter().copied());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: the hook makes system calls that are safe between fork and exec, and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            default_signals();
            // A terminal's SIGINT does not reach another group.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            no_core()
        })
    };
    command.process_group(0);
    let work = Work::start();
    let mut child = spawned(|| command.spawn()).unwrap_or_else(|e| {
        panic!(
            "{} does not start: {e} (README.md has the command that installs what the tests need)",
            program.display()
        )
    });
    let stdout = read_all(child.stdout.take().expect("piped"));
    let stderr = read_all(child.stderr.take().expect("piped"));
    let is_read = || stdout.is_finished() && stderr.is_finished();
    let (status, own, late) = wait(&mut child, is_read, patience);
    let others = work.of_others(own);
    let mut said = stderr.join().expect("the reader ends");
    if late {
        said.push_str("\n[ended by the harness: out of time]\n");
    }
    let stdout = stdout.join().expect("the reader ends");
    Output {
        status: status.code(),
        signal: status.signal(),
        stdout,
        stderr: said,
        name: format!("{} {args:?} {env:?}", program.display()),
        others,
    }
}

/// A command for what [`run`] cannot do: it finds the signals as a terminal gives them, and ends at the latest when ten
/// times [`PATIENCE`] is over. That is no limit for what works: a test with such a command takes a minute at most.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let limit = (crowd() * 10.0 * PATIENCE.as_secs_f64()) as u32;
    // SAFETY: as in `run_for`. The alarm outlives exec (alarm(2)).
    unsafe {
        command.pre_exec(move || {
            default_signals();
            libc::alarm(limit);
            Ok(())
        })
    };
    command
}

/// What `start` starts. See [`spawned`].
#[track_caller]
pub fn started<T>(start: impl FnMut() -> io::Result<T>) -> T {
    spawned(start).expect("it starts")
}

/// What `start` starts: again and again while another test's child still has the program open, which was written just
/// now.
#[track_caller]
fn spawned<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut result = start();
    let busy = |error: &io::Error| error.kind() == ErrorKind::ExecutableFileBusy;
    if result.as_ref().is_err_and(busy) {
        wait_until("a program that is open for writing", || {
            result = start();
            !result.as_ref().is_err_and(busy)
        });
    }
    result
}

/// A script's `cmd &` ignores SIGINT and SIGQUIT, and nohup SIGHUP; what is ignored stays so in all children.
fn default_signals() {
    for signal in [
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGHUP,
        libc::SIGTERM,
        libc::SIGCHLD,
    ] {
        // SAFETY: `SIG_DFL` installs no handler, and these signals may have their default disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// How many times as much wants to run as there are processors. At least 1.
pub fn crowd() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut words = text.split([' ', '/']);
    let average: f64 = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(1.0);
    let running: f64 = words
        .nth(2)
        .and_then(|word| word.parse().ok())
        .unwrap_or(1.0);
    let processors = thread::available_parallelism().map_or(1, usize::from) as f64;
    (average.max(running) / processors).max(1.0)
}

/// Time as it goes by for one of many: slower while more wants to run than there are processors.
struct Clock {
    counted: Duration,
    seen: Instant,
}

impl Clock {
    fn start() -> Clock {
        Clock {
            counted: Duration::ZERO,
            seen: Instant::now(),
        }
    }

    fn read(&mut self) -> Duration {
        let passed = self.seen.elapsed();
        self.seen += passed;
        self.counted += passed.div_f64(crowd());
        self.counted
    }
}

/// The work of all processors since a moment, as the kernel counts it.
struct Work {
    start: Instant,
    ticks: f64,
}

impl Work {
    fn start() -> Work {
        let (start, ticks) = (Instant::now(), Work::ticks());
        Work { start, ticks }
    }

    /// Processors at work, and those that a host kept for others: proc_stat(5).
    fn ticks() -> f64 {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let fields = line.split_whitespace().skip(1);
        let numbers: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
        let idle = |at: &usize| matches!(at, 3 | 4);
        let at_work = (0..numbers.len().min(8)).filter(|at| !idle(at));
        at_work.map(|at| numbers[at]).sum()
    }

    /// How many processors others had on average, beside one who had `own` of their time.
    fn of_others(&self, own: Duration) -> f64 {
        // SAFETY: sysconf(3) touches no memory.
        let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let all = (Work::ticks() - self.ticks) / a_second;
        let passed = self.start.elapsed().as_secs_f64();
        ((all - own.as_secs_f64()) / passed.max(1e-3)).max(0.0)
    }
}

/// The Debian package that a program is in, where it has another name.
const PACKAGES: [(&str, &str); 15] = [
    ("awk", "mawk"),
    ("cksum", "coreutils"),
    ("ls", "coreutils"),
    ("mkfifo", "coreutils"),
    ("nginx", "nginx-light"),
    ("nm", "binutils"),
    ("node", "nodejs"),
    ("php", "php-cli"),
    ("readelf", "binutils"),
    ("redis-benchmark", "redis-tools"),
    ("script", "bsdutils"),
    ("sort", "coreutils"),
    ("timeout", "coreutils"),
    ("xargs", "findutils"),
    ("xz", "xz-utils"),
];

/// Whether all `programs` are installed. See [`is_there`].
#[track_caller]
pub fn installed(programs: &[&str]) -> bool {
    let places = env::var_os("PATH").expect("a PATH");
    programs.iter().all(|program| {
        let package = PACKAGES.iter().find(|(name, _)| name == program);
        let package = package.map_or(*program, |(_, package)| package);
        let found = env::split_paths(&places).any(|place| place.join(program).is_file());
        is_there(found, program, package)
    })
}

/// Whether `what` was `found`. What `.ci/packages` brings must be, so that its absence is no success, unless
/// `SLABSIDE_SKIP_MISSING` is set. For anything else, or then, the output says that the test was skipped.
#[track_caller]
pub fn is_there(found: bool, what: &str, package: &str) -> bool {
    if found {
        return true;
    }
    let listed = fs::read_to_string(root().join(".ci/packages")).expect("the list of packages");
    let must = listed.lines().any(|line| line == package);
    if must && env::var_os("SLABSIDE_SKIP_MISSING").is_none() {
        panic!(
            "{what} is not installed: apt-get install {package}, or set SLABSIDE_SKIP_MISSING=1"
        );
    }
    skipped(&format!("{what} is not installed"));
    false
}

/// Waits until `done`. The test fails where that takes longer than a program may run.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let mut clock = Clock::start();
    while !done() {
        assert!(clock.read() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Says in the final output that the calling test was not run, or not to its end, and why.
pub fn skipped(why: &str) {
    let thread = thread::current();
    let line = format!("skipped: {why} ({})\n", thread.name().unwrap_or("a test"));
    // Past the capture of a passed test's output, which is for the macros alone.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Runs `command`, which ends by a signal, in a folder of its own: what the kernel dumped. `None`, and said, where it
/// writes no dumps.
#[track_caller]
pub fn dumped(command: &mut Command, name: &str) -> Option<Vec<u8>> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let pattern = pattern.trim();
    if pattern.starts_with('|') || pattern.is_empty() {
        skipped("cores go to a program or nowhere");
        return None;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory); // of an earlier run
    fs::create_dir_all(&directory).expect("a directory for the dump");
    let status = command.current_dir(&directory).status().expect("it starts");
    assert!(!status.success());
    let Some(dump) = newest_core(pattern, &directory) else {
        panic!("no dump was made as {pattern}: {status}");
    };
    let bytes = fs::read(&dump).expect("the dump can be read");
    let _ = fs::remove_file(&dump);
    let _ = fs::remove_dir_all(&directory);
    Some(bytes)
}

/// Whether `bytes` have `what` in them.
pub fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// The dump that was written last where `pattern` says, within the last minute.
fn newest_core(pattern: &str, directory: &Path) -> Option<PathBuf> {
    let place = directory.join(pattern);
    let files = fs::read_dir(place.parent()?).ok()?.flatten();
    let young = |file: &fs::DirEntry| {
        let age = file.metadata().ok()?.modified().ok()?.elapsed().ok()?;
        (age.as_secs() < 60 && file.file_name().to_str()?.contains("core")).then_some(age)
    };
    let dumps = files.filter_map(|file| young(&file).map(|age| (age, file.path())));
    dumps.min().map(|(_, path)| path)
}

fn no_core() -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: reads `none` only. Failure is harmless.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    Ok(())
}

fn read_all(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes); // what came before an error is still worth showing
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The child's exit status, how much of the processors' time it had with what it started, and whether that, or itself,
/// had to be ended for want of time. What it started holds its pipes: `is_read` says whether all of them are closed.
fn wait(
    child: &mut Child,
    is_read: impl Fn() -> bool,
    patience: Duration,
) -> (ExitStatus, Duration, bool) {
    let mut clock = Clock::start();
    let mut pause = Duration::from_micros(500);
    let mut late = false;
    while !(late || has_ended(child) && is_read()) {
        late = clock.read() >= patience;
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    let pid = child.id() as i32;
    if late {
        // SAFETY: the child was not waited for, so that its number, and the group of that number, are its own. It may have
        // left the group.
        unsafe {
            libc::kill(-pid, libc::SIGKILL);
            libc::kill(pid, libc::SIGKILL);
        }
    }
    let (status, own) = reaped(pid);
    (status, own, late)
}

/// The end of a child, and how much of the processors' time it had with those of its children that it waited for.
fn reaped(pid: i32) -> (ExitStatus, Duration) {
    let mut status = 0;
    // SAFETY: all zero is a value of the structure, and wait4(2) writes to the two alone.
    let (ended, used) = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &mut status, 0, &mut used), used)
    };
    assert_eq!(ended, pid, "the child can be waited for");
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    let own = time(used.ru_utime) + time(used.ru_stime);
    (ExitStatus::from_raw(status), own)
}

/// Whether the child has ended. It stays to be waited for, so that nobody else gets its number.
fn has_ended(child: &Child) -> bool {
    // SAFETY: all zero is a value of the structure, and waitid(2) writes to it alone.
    unsafe {
        let mut told: libc::siginfo_t = std::mem::zeroed();
        let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let done = libc::waitid(libc::P_PID, child.id(), &mut told, how);
        assert_eq!(done, 0, "the child can be waited for");
        told.si_pid() != 0
    }
}

/// Compiles `c_file` in `form`, with `flags` beside.
pub fn compile_as(form: Form, c_file: &str, flags: &[&str]) -> PathBuf {
    match form {
        Form::Prefixed => compile(c_file, &[&["-DPREFIXED"], flags].concat()),
        Form::Preloaded => compile(c_file, flags),
    }
}

/// What a program of `form` needs in its environment.
pub fn environment(form: Form) -> Vec<(&'static str, &'static str)> {
    match form {
        Form::Prefixed => vec![],
        Form::Preloaded => vec![(
            "LD_PRELOAD",
            artifacts().preload.to_str().expect("a path in UTF-8"),
        )],
    }
}

/// Compiles `c_file` in `form` and runs it with `args`.
pub fn run_as(form: Form, c_file: &str, args: &[&str]) -> Output {
    run(&compile_as(form, c_file, &[]), args, &environment(form))
}

/// As [`run_as`], under `options` of the allocator.
pub fn run_under(form: Form, options: &str, c_file: &str, args: &[&str]) -> Output {
    let program = compile_as(form, c_file, &[]);
    let environment = [environment(form), vec![("SLABSIDE_OPTIONS", options)]].concat();
    run(&program, args, &environment)
}

/// Runs `c_file` under `options` in both forms and expects it to pass.
#[track_caller]
pub fn passes_under(options: &str, c_file: &str, args: &[&str]) {
    for form in FORMS {
        run_under(form, options, c_file, args).passed();
    }
}

/// Runs `c_file` in both forms and expects it to pass.
#[track_caller]
pub fn passes(c_file: &str, args: &[&str]) {
    for form in FORMS {
        run_as(form, c_file, args).passed();
    }
}

/// As [`run_as`], where a thread that waits for a processor makes a difference. A run that failed at `check` alone, while
/// others had a quarter of a processor or more, is told of and made again, some times at most. What a program writes
/// before it says that the check failed is no other failure.
pub fn run_undisturbed(form: Form, c_file: &str, args: &[&str], check: &str) -> Output {
    const TIMES: usize = 5;
    const OTHERS: f64 = 0.25;
    let mut output = run_as(form, c_file, args);
    for _ in 1..TIMES {
        let last = output.stderr.lines().last().unwrap_or_default();
        let failed_there = output.status == Some(1)
            && last.ends_with(check)
            && output.stderr.matches("not so: ").count() == 1;
        if !failed_there || output.others < OTHERS {
            break;
        }
        eprintln!("run again, since others were at work: {output:?}");
        output = run_as(form, c_file, args);
    }
    output
}

/// Runs `c_file` in both forms, as [`run_undisturbed`], and expects it to pass.
#[track_caller]
pub fn passes_undisturbed(c_file: &str, args: &[&str], check: &str) {
    for form in FORMS {
        run_undisturbed(form, c_file, args, check).passed();
    }
}

/// Runs `c_file` with the static library, where no other malloc shares the heap, and expects it to pass.
#[track_caller]
pub fn passes_alone(c_file: &str, args: &[&str]) -> String {
    run_as(Form::Prefixed, c_file, args).passed()
}
