//! Stays with the running program until it ends: passes signals on, stops with it, notes its peak.

use crate::trace::{self, Stopped};
use crate::{resident, signals};
use rustix::process::{waitpid, Pid, WaitOptions};
use std::io::{ErrorKind, Result};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Time between looks at the program's memory: short at first, for programs that end at once.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LOOKS: Duration = Duration::from_millis(16);

/// How the program ended.
pub struct End {
    /// Its exit code or the signal that killed it.
    pub status: ExitStatus,
    /// The most memory it was seen to have resident, in bytes. 0 if it ended before the first look.
    pub resident: u64,
}

/// What else is done while the program runs.
pub trait Beside {
    /// Called now and then.
    fn meanwhile(&mut self, _pid: u32) {}

    /// Called when the traced program is about to end. Lets it go on. Whether it is still traced.
    fn at_end(&mut self, pid: u32) -> bool {
        trace::go_on(pid, 0);
        true
    }
}

/// Nothing.
impl Beside for () {}

/// Waits for the end of `child`, which may be traced. Signals must be held back ([`signals::hold`]).
pub fn until_end(child: u32, mut traced: bool, beside: &mut dyn Beside) -> Result<End> {
    let number = i32::try_from(child).map_err(|_| ErrorKind::InvalidInput)?;
    let process = Pid::from_raw(number).ok_or(ErrorKind::InvalidInput)?;
    let mut pause = FIRST_LOOK;
    let mut peak = 0;
    loop {
        peak = resident::peak(child).unwrap_or(0).max(peak);
        beside.meanwhile(child);
        if let Some(status) = end_of(process, &mut traced, beside)? {
            return Ok(End {
                status,
                resident: peak,
            });
        }
        match signals::next(pause) {
            Some(signal) => signal.pass_on(process),
            None => pause = LOOKS.min(pause * 2),
        }
    }
}

/// How `child` ended, if it has. Where it was stopped instead, stops with it. `traced` says whether it is traced, also
/// afterwards.
fn end_of(child: Pid, traced: &mut bool, beside: &mut dyn Beside) -> Result<Option<ExitStatus>> {
    while let Some(change) = change_of(child)? {
        let number = child.as_raw_nonzero().get() as u32;
        match (trace::stopped(change.into_raw()), *traced) {
            (None, _) => return Ok(Some(change)),
            (Some(Stopped::Signal(signal)), false) => signals::stop(signal),
            (Some(_), false) => {}
            (Some(Stopped::Signal(signal)), true) => trace::go_on(number, signal),
            (Some(Stopped::Job(signal)), true) => {
                trace::stay(number);
                signals::stop(signal);
            }
            (Some(Stopped::End), true) => *traced = beside.at_end(number),
            (Some(Stopped::Other), true) => trace::go_on(number, 0),
        }
    }
    Ok(None)
}

/// Whether `child` ended or stopped since the last call, and how. Does not wait for it.
fn change_of(child: Pid) -> Result<Option<ExitStatus>> {
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
    let change = waitpid(Some(child), options)?;
    Ok(change.map(|(_, status)| ExitStatus::from_raw(status.as_raw())))
}
