//! Exit statuses: which one each failure gets, and how the program's own is passed on.

use crate::signals;
use anyhow::Error;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{exit, ExitStatus};

/// Exit status for errors of slabside itself, as in env(1) and timeout(1).
pub const OWN_ERROR: i32 = 125;
/// Exit status for a program that was found and cannot be run.
const NOT_EXECUTABLE: i32 = 126;
/// Exit status for a program that was not found.
const NOT_FOUND: i32 = 127;

/// The program could not be started.
#[derive(Debug)]
pub struct CannotRun {
    /// The program's name, as given.
    pub program: OsString,
    /// Why not, from fork(2) or execvp(3).
    pub cause: io::Error,
}

impl CannotRun {
    fn status(&self) -> i32 {
        match self.cause.raw_os_error() {
            Some(libc::ENOENT) => NOT_FOUND,
            Some(libc::EAGAIN | libc::ENOMEM) => OWN_ERROR,
            _ => NOT_EXECUTABLE,
        }
    }
}

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot run '{}': {}",
            self.program.to_string_lossy(),
            self.cause
        )
    }
}

impl std::error::Error for CannotRun {}

/// The exit status for `error`.
pub fn of_error(error: &Error) -> i32 {
    if let Some(error) = error.downcast_ref::<slabside_view::Error>() {
        return error.status();
    }
    error.downcast_ref().map_or(OWN_ERROR, CannotRun::status)
}

/// Ends this process as the program ended: with its exit code, or killed by the same signal.
pub fn pass_on(ended: ExitStatus) -> ! {
    if let Some(signal) = ended.signal() {
        signals::die_by(signal);
    }
    exit(code(ended))
}

/// The exit code, or for a program killed by a signal what a shell makes of it.
fn code(ended: ExitStatus) -> i32 {
    ended
        .code()
        .unwrap_or_else(|| 128 + ended.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_for(errno: i32) -> i32 {
        let cause = io::Error::from_raw_os_error(errno);
        of_error(
            &CannotRun {
                program: "p".into(),
                cause,
            }
            .into(),
        )
    }

    #[test]
    fn failures_to_start_get_the_statuses_of_env() {
        assert_eq!(status_for(libc::ENOENT), 127);
        assert_eq!(status_for(libc::EACCES), 126);
        assert_eq!(status_for(libc::ENOTDIR), 126);
        assert_eq!(status_for(libc::EAGAIN), 125);
        assert_eq!(of_error(&anyhow::anyhow!("anything else")), 125);
    }

    #[test]
    fn the_context_of_an_error_does_not_hide_its_status() {
        let cause = io::Error::from_raw_os_error(libc::ENOENT);
        let error = Error::from(CannotRun {
            program: "p".into(),
            cause,
        })
        .context("while running");
        assert_eq!(of_error(&error), 127);
    }

    #[test]
    fn an_exit_code_stays_and_a_signal_becomes_128_and_its_number() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(255 << 8)), 255);
        assert_eq!(code(ExitStatus::from_raw(libc::SIGTERM)), 143);
        assert_eq!(code(ExitStatus::from_raw(libc::SIGSEGV | 0x80)), 139);
    }
}
