//! Traces the program that this command has started, to look at it when it ends.
//!
//! ```text
//!   helper thread   fork -- child: says its number, waits ---- exec
//!   main thread     seizes it, says go on                      signals passed on ... stop at its end: looked at
//! ```
//!
//! ptrace(2) lets only the thread that seized a program ask for more, so that thread is the one that waits. Other threads
//! of the program, and programs that it starts, are not traced.

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::{pipe2, read, write, Pid};
use std::io::{self, Result};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// The event of a stop that is no signal's on its way (ptrace(2)).
const EVENT_STOP: i32 = 128;

/// What a traced program was stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A signal is on its way to it.
    Signal(i32),
    /// It was stopped by this signal, as by a shell.
    Job(i32),
    /// It ends.
    End,
    /// Anything else.
    Other,
}

/// What the status of waitpid(2) says, of a program that was stopped.
pub fn stopped(status: i32) -> Option<Stopped> {
    if !libc::WIFSTOPPED(status) {
        return None;
    }
    let signal = libc::WSTOPSIG(status);
    let job = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    Some(match status >> 16 {
        0 => Stopped::Signal(signal),
        libc::PTRACE_EVENT_EXIT => Stopped::End,
        EVENT_STOP if job.contains(&signal) => Stopped::Job(signal),
        _ => Stopped::Other,
    })
}

/// Lets the program `pid`, which is stopped, go on, with `signal` if that is not 0.
pub fn go_on(pid: u32, signal: i32) {
    // SAFETY: nothing of this process is read or written. One that was killed meanwhile is gone.
    unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, signal) };
}

/// Leaves the program `pid` stopped, until a signal continues it.
pub fn stay(pid: u32) {
    // SAFETY: nothing of this process is read or written. One that was killed meanwhile is gone.
    unsafe { libc::ptrace(libc::PTRACE_LISTEN, pid, 0, 0) };
}

/// How the program `pid`, whose first thread ends, goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Not at all: it ends by itself and as a whole.
    Whole,
    /// A signal kills it.
    Killed,
    /// Its other threads go on.
    First,
    /// As another program: another thread calls execve(2), and gets the first one's number. Nobody traces it then.
    Exec,
}

/// How the program `pid`, whose first thread ends, goes on.
pub fn ending(pid: u32) -> Ending {
    let thread = Pid::from_raw(pid as i32);
    let killed = ptrace::getevent(thread).is_ok_and(|status| status & 0x7f != 0);
    let alone = ptrace::getregs(thread).is_ok_and(|all| last_call(&all) == libc::SYS_exit as u64);
    if alone && others(pid).next().is_some() {
        return Ending::First;
    }
    let begin = Instant::now();
    loop {
        let calls: Vec<String> = others(pid).map(|tid| call_of(pid, tid)).collect();
        if calls.iter().any(|call| is_exec(call)) {
            return Ending::Exec;
        }
        // Which call a thread is in is not told while it runs. Those that are about to end are gone soon.
        let is_told = calls.iter().all(|call| call != RUNS);
        if is_told || begin.elapsed() > CALLS_MOST {
            break;
        }
        thread::sleep(EXEC_LOOKS);
    }
    match killed {
        true => Ending::Killed,
        false => Ending::Whole,
    }
}

/// The threads of `pid` beside its first one.
fn others(pid: u32) -> impl Iterator<Item = i32> {
    let tasks = procfs::process::Process::new(pid as i32).and_then(|own| own.tasks());
    let tasks = tasks.into_iter().flat_map(|all| all.flatten());
    tasks
        .map(|task| task.tid)
        .filter(move |&tid| tid != pid as i32)
}

/// What the kernel says of a thread that runs, instead of its system call.
const RUNS: &str = "running";
/// The longest wait for threads to end, or to say in which call they are.
const CALLS_MOST: Duration = Duration::from_millis(100);

/// The number of the system call that a thread is in, or [`RUNS`].
fn call_of(pid: u32, tid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall"));
    let text = text.unwrap_or_default();
    text.split_whitespace().next().unwrap_or_default().into()
}

/// Whether a thread in this call is about to make another program of its process.
fn is_exec(call: &str) -> bool {
    let call = call.parse();
    call.is_ok_and(|call: libc::c_long| [libc::SYS_execve, libc::SYS_execveat].contains(&call))
}

/// The system call that a thread is in.
#[cfg(target_arch = "x86_64")]
fn last_call(registers: &libc::user_regs_struct) -> u64 {
    registers.orig_rax
}

/// The system call that a thread is in.
#[cfg(target_arch = "aarch64")]
fn last_call(registers: &libc::user_regs_struct) -> u64 {
    registers.regs[8]
}

/// The longest wait for a program to become another one, and time between two looks.
const EXEC_MOST: Duration = Duration::from_secs(1);
const EXEC_LOOKS: Duration = Duration::from_micros(20);

/// Lets the program `pid` go on, whose first thread ends for another one to become another program, and traces that.
/// False if it could not.
pub fn follow_exec(pid: u32) -> bool {
    go_on(pid, 0);
    let begin = Instant::now();
    // It is refused until the other thread has got the first one's number.
    while follow(pid).is_err() {
        if begin.elapsed() > EXEC_MOST {
            return false;
        }
        thread::sleep(EXEC_LOOKS);
    }
    true
}

/// Traces the program `pid` from now on, if it can be.
fn follow(pid: u32) -> std::result::Result<(), Errno> {
    let options = ptrace::Options::PTRACE_O_TRACEEXIT;
    ptrace::seize(Pid::from_raw(pid as i32), options)
}

/// Starts `command`, traced from before its first instruction on, or says why it is not traced.
pub fn spawn(command: &mut Command) -> Result<(Child, Option<Errno>)> {
    let close = nix::fcntl::OFlag::O_CLOEXEC;
    let (number, says) = pipe2(close)?;
    let (goes, go) = pipe2(close)?;
    let (out, inward) = (says.as_raw_fd(), goes.as_raw_fd());
    let wait = move || {
        let own = std::process::id().to_ne_bytes();
        let mut byte = [0];
        // SAFETY: both calls are async-signal-safe, and the buffers are there.
        unsafe {
            libc::write(out, own.as_ptr().cast(), own.len());
            libc::read(inward, byte.as_mut_ptr().cast(), 1);
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls, and touches nothing else.
    unsafe { command.pre_exec(wait) };
    thread::scope(|scope| {
        let helper = scope.spawn(|| {
            let child = command.spawn();
            // A program that could not be started has said nothing.
            let _ = write(&says, &0u32.to_ne_bytes());
            child
        });
        let mut bytes = [0; 4];
        let told = read(&number, &mut bytes);
        let pid = u32::from_ne_bytes(bytes);
        let mut why = None;
        if told == Ok(bytes.len()) && pid != 0 {
            why = follow(pid).err();
        }
        write(&go, &[1])?;
        let child = helper.join().map_err(|_| io::Error::other("a thread"))?;
        Ok((child?, why))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_told_apart() {
        let status = |event: i32, signal: i32| event << 16 | signal << 8 | 0x7f;
        assert_eq!(stopped(0), None);
        assert_eq!(stopped(status(0, 10)), Some(Stopped::Signal(10)));
        assert_eq!(stopped(status(6, 5)), Some(Stopped::End));
        assert_eq!(stopped(status(128, 19)), Some(Stopped::Job(19)));
        assert_eq!(stopped(status(128, 5)), Some(Stopped::Other));
    }
}
