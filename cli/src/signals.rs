//! Signals of the runner: held back while the program runs, taken one at a time, passed on.
//!
//! The runner blocks all signals that it cares for, and fetches them by sigtimedwait(2). So no handler runs and no
//! disposition changes, except that of SIGCHLD, which must be the default for waitpid(2) to work. Signals of the
//! terminal reach the program by themselves, since it is in the same process group.
//!
//! Masks, dispositions and sigtimedwait(2) are libc's own. rustix has none of them. nix knows no real-time signals, by
//! which programs die too. A handler of signal-hook would change dispositions.

use rustix::process::{self, DumpableBehavior, Pid, Resource, Rlimit};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// What the runner holds back: the end of its child, and all that a process may send to be passed on.
const HELD: [libc::c_int; 15] = [
    libc::SIGCHLD,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGIO,
];

/// Disposition of SIGPIPE that we were started with.
static PIPE: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// Rust's runtime ignores SIGPIPE before `main`. An initialiser sees what it was before.
#[used]
#[link_section = ".init_array"]
static NOTE_PIPE: extern "C" fn() = note_pipe;

extern "C" fn note_pipe() {
    PIPE.store(disposition(libc::SIGPIPE), Relaxed);
}

/// What this process was started with, for the program to be started with the same.
#[derive(Clone, Copy)]
pub struct Inherited {
    mask: libc::sigset_t,
    child: libc::sighandler_t,
}

impl Inherited {
    /// Notes the present mask and disposition. To be called before [`hold`].
    pub fn note() -> Inherited {
        let mask = change_mask(libc::SIG_BLOCK, &set_of(&[]));
        Inherited {
            mask,
            child: disposition(libc::SIGCHLD),
        }
    }

    /// Puts everything back. Async-signal-safe, to be called between fork and exec.
    pub fn restore(&self) {
        set_disposition(libc::SIGPIPE, PIPE.load(Relaxed));
        set_disposition(libc::SIGCHLD, self.child);
        change_mask(libc::SIG_SETMASK, &self.mask);
    }
}

/// A signal that was sent to the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    number: libc::c_int,
    /// The process that sent it. `None` for the kernel, as for keys pressed at the terminal.
    sender: Option<libc::pid_t>,
}

impl Signal {
    /// Whether `child` has to be sent this signal too, since it did not get or send it itself.
    fn concerns(&self, child: Pid) -> bool {
        let sent = self
            .sender
            .is_some_and(|sender| sender != child.as_raw_nonzero().get());
        sent && self.number != libc::SIGCHLD
    }

    /// Passes the signal on to `child`, which must not have been waited for, if it concerns it.
    pub fn pass_on(&self, child: Pid) {
        let named = process::Signal::from_named_raw(self.number);
        if let Some(signal) = named.filter(|_| self.concerns(child)) {
            // A child that has ended and was not waited for still has its number, so nobody else is hit, and it
            // does not matter that it gets no signal.
            let _ = process::kill_process(child, signal);
        }
    }
}

/// Holds signals back from now on.
pub fn hold() {
    set_disposition(libc::SIGCHLD, libc::SIG_DFL);
    change_mask(libc::SIG_BLOCK, &set_of(&HELD));
}

/// The next signal held back, or `None` when `timeout` has passed or the wait was broken off.
pub fn next(timeout: Duration) -> Option<Signal> {
    let held = set_of(&HELD);
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    // SAFETY: the set and the timeout are read, and `info` is large enough to be written.
    let number = unsafe { libc::sigtimedwait(&held, info.as_mut_ptr(), &timeout) };
    if number < 0 {
        return None;
    }
    // SAFETY: sigtimedwait(2) fills `info` when it returns a signal.
    let sender = sender(unsafe { info.assume_init_ref() });
    Some(Signal { number, sender })
}

fn sender(info: &libc::siginfo_t) -> Option<libc::pid_t> {
    // Codes above zero are the kernel's own (sigaction(2)).
    if info.si_code > 0 {
        return None;
    }
    // SAFETY: si_pid is filled for signals sent by kill, sigqueue and tgkill, whose codes are zero or below. For other
    // such codes (timers, asynchronous input) it reads initialised bytes of the union.
    Some(unsafe { info.si_pid() })
}

/// Stops this process by `signal`, as the program was stopped, until it is continued.
pub fn stop(signal: libc::c_int) {
    set_disposition(signal, libc::SIG_DFL);
    take(signal);
    change_mask(libc::SIG_BLOCK, &set_of(&HELD));
}

/// Dies by `signal`, as the program did, but without a second core file. Returns if it does not kill.
pub fn die_by(signal: libc::c_int) {
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Where cores are piped to a program the limit is not looked at. Neither can fail for oneself.
    let _ = process::setrlimit(Resource::Core, no_core);
    let _ = process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    set_disposition(signal, libc::SIG_DFL);
    take(signal);
}

/// Has `act` done before this process dies by a signal that asks it to end. To be called before there are other threads.
pub fn before_death(act: impl FnOnce() + Send + 'static) {
    let asked = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];
    // One that is ignored, as by nohup(1), stays so.
    let heeded = asked
        .into_iter()
        .filter(|&signal| disposition(signal) != libc::SIG_IGN);
    let set = set_of(&heeded.collect::<Vec<_>>());
    change_mask(libc::SIG_BLOCK, &set);
    thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: sigwait(3) reads the set and writes the number.
        if unsafe { libc::sigwait(&set, &mut signal) } == 0 {
            act();
            die_by(signal);
        }
    });
}

/// Raises `signal` and lets it through, once even if it was held back already.
fn take(signal: libc::c_int) {
    // SAFETY: raise(3) sends a signal to the calling thread, and touches no memory.
    unsafe { libc::raise(signal) };
    change_mask(libc::SIG_UNBLOCK, &set_of(&[signal]));
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) initialises the set, and sigaddset(3) changes it within its bounds.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Changes the mask of the only thread, and returns the one before.
fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> libc::sigset_t {
    let mut old = set_of(&[]);
    // SAFETY: sigprocmask(2) reads one set and writes the other.
    unsafe { libc::sigprocmask(how, set, &mut old) };
    old
}

fn disposition(signal: libc::c_int) -> libc::sighandler_t {
    // SAFETY: sigaction is plain data for which zero is valid. sigaction(2) writes it.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut old);
        old.sa_sigaction
    }
}

/// Sets the disposition of `signal` to SIG_DFL or SIG_IGN. Without effect where that is not allowed.
fn set_disposition(signal: libc::c_int, disposition: libc::sighandler_t) {
    // SAFETY: sigaction is plain data for which zero is valid (no flags, empty mask). sigaction(2) reads it, and no
    // handler of ours is installed.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = disposition;
        libc::sigaction(signal, &new, ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD: libc::pid_t = 100;

    fn concerns(number: libc::c_int, sender: Option<libc::pid_t>) -> bool {
        let child = Pid::from_raw(CHILD).unwrap();
        Signal { number, sender }.concerns(child)
    }

    #[test]
    fn what_a_process_sends_to_the_runner_is_for_the_program() {
        assert!(concerns(libc::SIGTERM, Some(1)));
        assert!(concerns(libc::SIGINT, Some(1)));
    }

    #[test]
    fn keys_at_the_terminal_have_reached_the_program_already() {
        assert!(!concerns(libc::SIGINT, None));
        assert!(!concerns(libc::SIGTSTP, None));
    }

    #[test]
    fn the_program_does_not_get_its_own_signals_back() {
        assert!(!concerns(libc::SIGTERM, Some(CHILD)));
        assert!(!concerns(libc::SIGCHLD, Some(1)));
    }
}
