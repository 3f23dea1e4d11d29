//! Drives the real command: what a shell or a script sees of `slabside run`.
//!
//! A stub (`stub.c`) stands in for the library, so that these tests need no working allocator.

use slabside_base::counters::{Counters, MAGIC, OFFSET, VERSION};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::mem::offset_of;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// Both ways of running: the program in the runner's place, and the runner beside it.
const WAYS: [&[&str]; 2] = [&[], &["--stats=/dev/null"]];

fn library() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &BUILT.get_or_init(build_stub).1
}

fn build_stub() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("libslabside_preload.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stub.c");
    let mut cc = command("cc");
    cc.args([
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Werror",
        "-D_GNU_SOURCE",
    ]);
    cc.args([
        format!("-DMAGIC_VALUE={MAGIC}u"),
        format!("-DVERSION_VALUE={VERSION}u"),
    ]);
    cc.args(offsets().map(|(name, offset)| format!("-D{name}={}", OFFSET + offset)));
    assert!(cc
        .arg(source)
        .arg("-o")
        .arg(&library)
        .status()
        .unwrap()
        .success());
    (dir, library)
}

fn offsets() -> [(&'static str, usize); 9] {
    [
        ("MAGIC", offset_of!(Counters, magic)),
        ("VERSION", offset_of!(Counters, version)),
        ("PID", offset_of!(Counters, pid)),
        ("ATTACHED", offset_of!(Counters, attached)),
        ("COMPLETE", offset_of!(Counters, complete)),
        ("HEAPS", offset_of!(Counters, heaps)),
        ("HANDED_OUT", offset_of!(Counters, handed_out)),
        ("BREAK_MOVES", offset_of!(Counters, break_moves)),
        ("SLABS", offset_of!(Counters, slabs)),
    ]
}

/// Seconds after which whatever a test started is ended: far more than any takes.
const LIMIT: u32 = 900;

/// A command that finds the signals as a terminal gives them (a script's `cmd &` ignores SIGINT and SIGQUIT, nohup SIGHUP,
/// and a shell cannot trap what was ignored when it began), and that is ended when [`LIMIT`] is over.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // SAFETY: the hook makes system calls that are safe between fork and exec, and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGTERM] {
                libc::signal(signal, libc::SIG_DFL);
            }
            libc::alarm(LIMIT); // It outlives exec (alarm(2)).
            Ok(())
        })
    };
    command
}

/// `slabside run` without a library.
fn bare() -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_slabside"));
    command
        .arg("run")
        .env_remove("SLABSIDE_LIBRARY")
        .env_remove("LD_PRELOAD");
    command
}

/// `slabside run OPTIONS` with the stub.
fn slabside(options: &[&str]) -> Command {
    let mut command = bare();
    command.arg("--library").arg(library()).args(options);
    command
}

fn sh(options: &[&str], script: &str) -> Output {
    slabside(options)
        .args(["--", "sh", "-c", script])
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stderr)
        .unwrap_or_else(|_| panic!("not JSON: {}", stderr(output)))
}

#[test]
fn the_exit_code_is_passed_on() {
    for way in WAYS {
        assert_eq!(sh(way, "exit 0").status.code(), Some(0));
        assert_eq!(sh(way, "exit 7").status.code(), Some(7));
        assert_eq!(sh(way, "exit 255").status.code(), Some(255));
    }
}

#[test]
fn death_by_a_signal_is_passed_on() {
    for way in WAYS {
        for signal in [
            libc::SIGKILL,
            libc::SIGTERM,
            libc::SIGSEGV,
            libc::SIGPIPE,
            libc::SIGRTMIN() + 3,
        ] {
            let status = sh(way, &format!("ulimit -c 0; kill -{signal} $$")).status;
            assert_eq!(status.signal(), Some(signal), "{way:?}");
            assert!(!status.core_dumped());
        }
    }
}

#[test]
fn a_missing_program_is_127_and_one_that_cannot_be_run_126() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    for way in WAYS {
        let missing = slabside(way)
            .args(["--", "no-such-program"])
            .output()
            .unwrap();
        assert_eq!(missing.status.code(), Some(127));
        assert!(
            stderr(&missing).starts_with("slabside: cannot run 'no-such-program': No such file")
        );
        let locked = slabside(way).arg("--").arg(file.path()).output().unwrap();
        assert_eq!(locked.status.code(), Some(126));
        assert!(stderr(&locked).contains("Permission denied"));
    }
}

#[test]
fn a_missing_library_is_125_and_says_where_it_was_looked_for() {
    // In a directory of its own, since the built library may lie beside the built command; and a link,
    // since a copy that was just written cannot be run while another test's child has it open.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let link = dir.path().join("slabside");
    fs::hard_link(env!("CARGO_BIN_EXE_slabside"), &link).unwrap();
    let output = command(link)
        .args(["run", "--", "true"])
        .env_remove("SLABSIDE_LIBRARY")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let told = stderr(&output);
    assert!(
        told.starts_with("slabside: cannot find libslabside_preload.so"),
        "{told}"
    );
    assert!(
        told.contains("/lib64/libslabside_preload.so\n") && told.contains("SLABSIDE_LIBRARY"),
        "{told}"
    );
}

#[test]
fn a_library_that_was_named_and_is_not_there_is_125() {
    let option = bare()
        .args(["--library", "/none.so", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(option.status.code(), Some(125));
    assert!(stderr(&option).starts_with("slabside: --library: cannot open '/none.so'"));
    let variable = bare()
        .args(["--", "true"])
        .env("SLABSIDE_LIBRARY", "/none.so")
        .output()
        .unwrap();
    assert_eq!(variable.status.code(), Some(125));
    assert!(stderr(&variable).starts_with("slabside: SLABSIDE_LIBRARY: cannot open '/none.so'"));
}

#[test]
fn a_wrong_command_line_is_125() {
    for args in [&["--statz", "--", "true"] as &[&str], &[]] {
        let output = bare().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(stderr(&output).starts_with("slabside: "));
    }
    let none = command(env!("CARGO_BIN_EXE_slabside")).output().unwrap();
    assert_eq!(none.status.code(), Some(125));
    assert!(stderr(&none).contains("Usage: slabside <COMMAND>"));
    let help = bare().arg("--help").output().unwrap();
    assert!(help.status.success() && help.stderr.is_empty());
}

#[test]
fn a_reader_that_went_away_is_no_error_and_a_full_disk_is_one() {
    for words in ["--help", "--version", "options", "completions zsh", "ps"] {
        let to = |output: Stdio| {
            let mut command = command(env!("CARGO_BIN_EXE_slabside"));
            command.args(words.split(' ')).stdout(output);
            command.stderr(Stdio::piped()).output().unwrap()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let unread = to(writer.into());
        assert!(unread.status.success(), "{words}");
        assert_eq!(stderr(&unread), "", "{words}");
        let full = to(fs::File::create("/dev/full").unwrap().into());
        assert_eq!(full.status.code(), Some(125), "{words}");
        assert!(stderr(&full).starts_with("slabside: cannot write: No space left"));
    }
}

#[test]
fn arguments_reach_the_program_as_they_are() {
    let given = ["-n", "--stats", "--", "a b", "", "--"];
    let printf = ["printf", "[%s]"];
    for way in WAYS {
        let dashed = slabside(way)
            .arg("--")
            .args(printf)
            .args(given)
            .output()
            .unwrap();
        let bare = slabside(way).args(printf).args(given).output().unwrap();
        assert_eq!(dashed.stdout, b"[-n][--stats][--][a b][][--]");
        assert_eq!(bare.stdout, dashed.stdout);
    }
}

#[test]
fn standard_input_and_output_are_the_programs() {
    for way in WAYS {
        let mut command = slabside(way);
        let mut child = command
            .args(["--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"through\n").unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, b"through\n");
    }
}

#[test]
fn libraries_that_were_preloaded_already_stay() {
    let mut command = slabside(&[]);
    command
        .args(["--", "sh", "-c", "echo $LD_PRELOAD"])
        .env("LD_PRELOAD", "libc.so.6");
    let expected = format!("{}:libc.so.6\n", library().display());
    assert_eq!(
        String::from_utf8(command.output().unwrap().stdout).unwrap(),
        expected
    );
}

/// What `command` prints when it is started with some signals ignored and one blocked.
fn under_signals(inner: &Command) -> String {
    let mut env = command("env");
    env.args(["--ignore-signal=PIPE,HUP,CHLD", "--block-signal=USR1"]);
    env.arg(inner.get_program()).args(inner.get_args());
    String::from_utf8(env.output().unwrap().stdout).unwrap()
}

#[test]
fn the_program_starts_with_the_signals_that_we_were_started_with() {
    let show = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    let plain = under_signals(command("env").args(show));
    assert!(plain.contains("SigBlk:\t0000000000000200\n"), "{plain}");
    assert!(
        plain.ends_with("11001\n"),
        "HUP, PIPE and CHLD are ignored: {plain}"
    );
    for way in WAYS {
        assert_eq!(under_signals(slabside(way).arg("--").args(show)), plain);
    }
}

#[test]
fn figures_of_a_program_that_attached_are_printed() {
    // Not a shell, since some of them end by _exit and so without a last count.
    let output = slabside(&["--stats"])
        .args(["--", "expr", "0"])
        .output()
        .unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.starts_with("slabside: expr (process "), "{told}");
    assert!(
        told.lines().next().unwrap().ends_with("), exit status: 1"),
        "{told}"
    );
    let lines: Vec<String> = told
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "handed out 1.0 MiB 1,048,576 B",
        "break moved, times 12",
        "slabs 3",
        "8 B 3 0 0",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line}\n{told}");
    }
    assert!(!told.contains("without a last count"));
}

#[test]
fn figures_outlive_a_closed_standard_error() {
    assert_eq!(
        json(&sh(&["--json"], "exec 2>&-; exit 0"))["heap"]["handed_out"],
        1 << 20
    );
}

#[test]
fn figures_outlive_a_kill_and_are_said_to_be_incomplete() {
    assert!(stderr(&sh(&["--stats"], "kill -9 $$")).contains("without a last count"));
    let killed = json(&sh(&["--json"], "kill -9 $$"));
    assert_eq!(
        (&killed["complete"], &killed["signal"]),
        (&false.into(), &9.into())
    );
    assert_eq!(killed["heap"]["handed_out"], 1 << 20);
}

#[test]
fn a_new_image_attaches_and_children_do_not() {
    let attached = |script| json(&sh(&["--json"], script))["heap"]["heaps"].clone();
    assert_eq!(attached("/bin/true; /bin/true; exit 0"), 1);
    assert_eq!(attached("exec /bin/true"), 2);
}

#[test]
fn figures_go_to_a_file_when_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("figures");
    let option = format!("--stats={}", file.display());
    let output = sh(&[&option, "--json"], "echo out; echo err >&2");
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(json["heap"]["slabs"][0]["size"], 8);
    let nowhere = sh(&["--stats=/none/figures"], "echo ran");
    assert_eq!(
        (nowhere.status.code(), nowhere.stdout.len()),
        (Some(125), 0)
    );
}

#[test]
fn a_program_that_does_not_attach_is_told_of() {
    // A library that knows nothing of the counters looks like a program that ld.so does not preload into.
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.so");
    let built = command("cc")
        .args(["-shared", "-xc", "/dev/null", "-o"])
        .arg(&empty)
        .status();
    assert!(built.unwrap().success());
    let run = |option| {
        bare()
            .arg("--library")
            .arg(&empty)
            .args([option, "--", "true"])
            .output()
            .unwrap()
    };
    let told = stderr(&run("--stats"));
    assert!(
        told.contains("slabside did not attach") && !told.contains("handed out"),
        "{told}"
    );
    assert!(json(&run("--json"))["heap"].is_null());
}

#[test]
fn the_peak_is_that_of_the_program() {
    // dd holds its block of 64 MiB while it reads, long enough to be seen on a busy machine too.
    let json = json(&sh(
        &["--json"],
        "exec dd if=/dev/zero of=/dev/null bs=64M count=100 2>&-",
    ));
    let peak = json["peak_resident"].as_u64().unwrap();
    assert!((64 << 20..80 << 20).contains(&peak), "{peak}");
}

/// A program under --stats that says "ready" once it runs.
fn start(script: &str) -> (Child, String) {
    let mut command = slabside(&["--stats=/dev/null"]);
    let mut child = command
        .args(["--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line.trim().to_owned())
}

fn send(child: &Child, signal: i32) {
    // SAFETY: kill(2) touches no memory, and the child was not waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// Waits until `child` stops, and returns by which signal.
fn stopped_by(child: &Child) -> Option<i32> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes the status, which lives during the call.
    let pid = unsafe { libc::waitpid(child.id() as i32, &mut status, libc::WUNTRACED) };
    assert_eq!(pid, child.id() as i32);
    ExitStatus::from_raw(status).stopped_signal()
}

#[test]
fn signals_sent_to_the_runner_reach_the_program() {
    for (name, signal) in [
        ("TERM", libc::SIGTERM),
        ("INT", libc::SIGINT),
        ("USR2", libc::SIGUSR2),
    ] {
        let script = format!("trap 'exit 42' {name}; echo ready; while :; do sleep 0.02; done");
        let (mut child, line) = start(&script);
        assert_eq!(line, "ready");
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(42), "{name}");
    }
}

#[test]
fn the_runner_stops_and_continues_with_the_program() {
    let (mut child, _) = start("echo ready; kill -STOP $$; exit 6");
    assert_eq!(stopped_by(&child), Some(libc::SIGSTOP));
    send(&child, libc::SIGCONT);
    assert_eq!(child.wait().unwrap().code(), Some(6));
}
