//! The most memory that a process had resident, from its `/proc/PID/status`.
//!
//! The kernel keeps the peak (`VmHWM`), so that only what a process grows by between the last look and its end is
//! missed. `ru_maxrss` would miss nothing, but is not used. It begins with the peak of the launcher, from before exec,
//! and contains children that the program waited for.

use procfs::process::Process;

/// Peak resident size of process `pid` so far, in bytes. `None` once it has ended.
pub fn peak(pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    Some(process.status().ok()?.vmhwm? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_has_ended_has_no_peak() {
        let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        // Its end closes the pipe. That it is a zombie by then is not certain, and is waited for.
        child
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut Vec::new())
            .unwrap();
        while peak(child.id()).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(peak(u32::MAX), None);
    }

    #[test]
    fn our_own_peak_is_at_least_a_page() {
        assert!(peak(std::process::id()).unwrap() >= 4096);
    }
}
