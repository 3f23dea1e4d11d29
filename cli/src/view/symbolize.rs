//! `slabside symbolize`: the names of functions in the stacks of a report.

use super::{place, print};
use anyhow::{Context, Result};
use slabside_view::symbols::is_allocators;
use slabside_view::unwind::Unwinder;
use slabside_view::Error;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Name the functions in the stacks of a report
///
/// Reads a report that hardened mode or guard-sample wrote, and prints it with the names of functions, and the lines of
/// their source where there is debug information. The programs and libraries must be the same files as when the report was
/// written. Frames of the allocator itself are left out. `slabside run --symbolize` does so by itself.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  slabside symbolize report

Exit status: 0; 125 if slabside itself fails, 126 if the system does not allow it to read the report, 127 if there is \
no such file.")]
pub struct Args {
    /// The report, or standard input if none is named
    report: Option<PathBuf>,
}

/// Prints the report with names.
pub fn run(args: &Args) -> Result<()> {
    let mut report = Vec::new();
    match &args.report {
        Some(path) => report = std::fs::read(path).map_err(|cause| unread(path, cause))?,
        None => {
            let read = std::io::stdin().read_to_end(&mut report);
            read.context("standard input")?;
        }
    }
    print(&symbolize(&String::from_utf8_lossy(&report)))
}

/// Why the report at `path` was not read, as of every other file.
fn unread(path: &Path, cause: io::Error) -> Error {
    let name = path.display().to_string();
    match cause.kind() {
        io::ErrorKind::NotFound => Error::Missing {
            name,
            why: "there is no such file".into(),
        },
        io::ErrorKind::PermissionDenied => Error::NotPermitted {
            name,
            why: "the file's mode".into(),
            advice: "run as its owner or as root",
        },
        _ => Error::System {
            name,
            what: "cannot read it",
            cause,
        },
    }
}

/// Whether `report` has stacks.
pub fn has_stacks(report: &str) -> bool {
    report.lines().any(|line| frame(line).is_some())
}

/// The lines of `report`, with names for the frames.
pub fn symbolize(report: &str) -> String {
    let mut unwinder = Unwinder::default();
    let mut text = String::new();
    let mut is_inner = true;
    for line in report.lines() {
        let Some((file, offset)) = frame(line) else {
            is_inner = true;
            text += line;
            text += "\n";
            continue;
        };
        // The address is that after the call, which may be the next function's first.
        let frames = unwinder.frames_in(file, offset.saturating_sub(1));
        is_inner &= frames
            .last()
            .is_some_and(|frame| is_allocators(&frame.function));
        if is_inner {
            continue;
        }
        text += line;
        if !frames.is_empty() {
            let places: Vec<String> = frames.iter().map(place).collect();
            text += &format!(" in {}", places.join(", inlined in "));
        }
        text += "\n";
    }
    text
}

/// File and offset of a line `    at 0xADDRESS FILE+0xOFFSET`.
fn frame(line: &str) -> Option<(&str, u64)> {
    let (_, place) = line.strip_prefix("    at 0x")?.split_once(' ')?;
    let (file, offset) = place.rsplit_once("+0x")?;
    Some((file, u64::from_str_radix(offset, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gets_its_function_and_other_lines_stay_as_they_are() {
        let at = libc::getloadavg as *const () as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").expect("the mappings");
        let library = maps.lines().find(|line| line.contains("/libc.so"));
        let (base, _) = library
            .and_then(|line| line.split_once('-'))
            .expect("a C library");
        let base = usize::from_str_radix(base, 16).expect("an address");
        let path = library
            .and_then(|line| line.split_whitespace().last())
            .expect("a path");
        let report = format!(
            "slabside: double free of 0x10\n    at {at:#x} {path}+{:#x}\n    at 0x1\n",
            at - base + 1
        );
        let text = symbolize(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "slabside: double free of 0x10");
        assert!(lines[1].contains(" in getloadavg"), "{text}");
        assert_eq!(lines[2], "    at 0x1");
    }

    #[test]
    fn a_report_that_is_not_there_has_a_status_of_its_own() {
        let report = Some(PathBuf::from("/none"));
        let error = run(&Args { report }).unwrap_err();
        assert_eq!(error.to_string(), "/none: there is no such file");
        assert_eq!(crate::status::of_error(&error), 127);
        let report = Some(PathBuf::from("/"));
        let error = run(&Args { report }).unwrap_err();
        assert_eq!(crate::status::of_error(&error), 125);
    }

    #[test]
    fn a_file_whose_name_has_a_plus_is_found() {
        let line = "    at 0x55 /tmp/a+0x1/b c+0x2f";
        assert_eq!(frame(line), Some(("/tmp/a+0x1/b c", 0x2f)));
        assert_eq!(frame("  in thread 5"), None);
    }
}
