//! What this process keeps resident, read without allocating.

use crate::table;
use std::ffi::CStr;

/// Bytes of /proc that are looked at. Each of the files is shorter.
const LONGEST: usize = 4096;

/// Reads as much of a file as fits.
fn read<'a>(path: &CStr, buffer: &'a mut [u8; LONGEST]) -> &'a [u8] {
    // SAFETY: the path ends in a nul. The buffer has LONGEST bytes, and the descriptor is our own.
    let length = unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let length = libc::read(file, buffer.as_mut_ptr().cast(), LONGEST);
        libc::close(file);
        length
    };
    &buffer[..length.max(0) as usize]
}

/// The number after `label` at a line's start. Zero where there is none.
fn number_after(text: &[u8], label: &[u8]) -> usize {
    let line = text
        .split(|&byte| byte == b'\n')
        .find(|line| line.starts_with(label));
    let rest = line.map_or(&[][..], |line| &line[label.len()..]);
    let digits = rest
        .iter()
        .skip_while(|byte| !byte.is_ascii_digit())
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + (digit - b'0') as usize)
}

/// Bytes of anonymous memory resident now: heap, stack and written data, and no file's pages. Exact: the
/// kernel walks the page tables for it. Tables of workloads are left out.
pub fn resident() -> usize {
    let mut buffer = [0; LONGEST];
    let bytes = number_after(read(c"/proc/self/smaps_rollup", &mut buffer), b"Anonymous:") << 10;
    bytes.saturating_sub(table::bytes())
}

/// Most bytes that were resident at a time since this program was started, files' pages among them and
/// tables of workloads left out. Unlike the figure of `getrusage` it knows nothing of the program that
/// started it.
pub fn peak() -> usize {
    let mut buffer = [0; LONGEST];
    let bytes = number_after(read(c"/proc/self/status", &mut buffer), b"VmHWM:") << 10;
    bytes.saturating_sub(table::bytes())
}

/// Bytes by which the program break has been moved since the program was started.
pub fn program_break() -> usize {
    let mut buffer = [0; LONGEST];
    let start = start_of_break(read(c"/proc/self/stat", &mut buffer));
    // SAFETY: sbrk(0) returns the break and does not move it.
    (unsafe { libc::sbrk(0) } as usize).saturating_sub(start)
}

/// The 47th field of /proc/self/stat: where the break was at first.
fn start_of_break(stat: &[u8]) -> usize {
    let field = stat.split(|&byte| byte == b' ').nth(46).unwrap_or_default();
    field
        .iter()
        .fold(0, |number, digit| number * 10 + (digit - b'0') as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_this_process_are_plausible() {
        assert!(peak() >= resident() && resident() > 0);
        assert!(program_break() > 0 && program_break() < 1 << 32);
    }

    #[test]
    fn a_missing_line_reads_as_zero() {
        assert_eq!(number_after(b"Rss: 12 kB\n", b"Pss:"), 0);
        assert_eq!(number_after(b"x\nRss:   12 kB\n", b"Rss:"), 12);
    }
}
