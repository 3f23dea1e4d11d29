//! The most memory that a process had resident, from its `/proc/PID/status`.
//!
//! The kernel keeps the peak (`VmHWM`), so that only what a process grows by between the last look and its
//! end is missed. `ru_maxrss` would miss nothing and is not used: it begins with the peak of the launcher,
//! from before exec, and contains children that the program waited for.

use std::fs;

/// Peak resident size of process `pid` so far, in bytes; `None` once it has ended.
pub fn peak(pid: u32) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_found_among_the_other_lines() {
        let status = "Name:\tcat\nVmPeak:\t    5772 kB\nVmHWM:\t     908 kB\nVmRSS:\t     900 kB\n";
        assert_eq!(parse(status), Some(908 * 1024));
    }

    #[test]
    fn a_process_that_has_ended_has_no_peak() {
        assert_eq!(parse("Name:\tcat\nState:\tZ (zombie)\n"), None);
        assert_eq!(peak(u32::MAX), None);
    }

    #[test]
    fn our_own_peak_is_at_least_a_page() {
        assert!(peak(std::process::id()).unwrap() >= 4096);
    }
}
