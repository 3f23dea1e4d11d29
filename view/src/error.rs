//! Why a target cannot be read: one line each, that says what to do.

use std::io;

/// What went wrong, as the user reads it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system forbids to read the process.
    #[error("{name}: not permitted to read it ({why}): {advice}")]
    NotPermitted {
        /// The target.
        name: String,
        /// What forbids it.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// There is no such process or file.
    #[error("{name}: {why}")]
    Missing {
        /// The target.
        name: String,
        /// What is missing.
        why: String,
    },
    /// The process has no region.
    #[error("{name}: no slabside heap in it (its malloc is {malloc}): start the program by `slabside run`")]
    NoHeap {
        /// The target.
        name: String,
        /// Whose malloc it uses, as far as its mappings say.
        malloc: String,
    },
    /// The core file has no region.
    #[error("{name}: it has no metadata of slabside: the program did not run on slabside, or bit 0 of /proc/PID/coredump_filter was not set")]
    NoMetadata {
        /// The target.
        name: String,
    },
    /// The snapshot lacks data of the program.
    #[error("{name}: it lacks data of the program: `slabside snapshot --contents {least}` writes a file that has them")]
    NoContents {
        /// The target.
        name: String,
        /// The contents that it should have at least.
        least: &'static str,
    },
    /// The region has a layout that this crate does not know.
    #[error("{name}: its heap has layout {found}, this command reads {least} and {most}: use the slabside command that came with the library")]
    Layout {
        /// The target.
        name: String,
        /// The region's.
        found: u32,
        /// The oldest that is read.
        least: u32,
        /// The newest that is read.
        most: u32,
    },
    /// The process ended meanwhile.
    #[error("{name}: ended while it was read")]
    Ended {
        /// The target.
        name: String,
    },
    /// What the region says contradicts itself, however often it is read.
    #[error("{name}: the metadata contradict each other at {place} in {reads} reads{advice}")]
    Contradiction {
        /// The target.
        name: String,
        /// Where.
        place: String,
        /// How often it was read.
        reads: u32,
        /// What to do.
        advice: &'static str,
    },
    /// The process has fewer heaps than was asked for.
    #[error("{name}: it has {count} heap{}, numbered from 0, and no heap {wanted}", if *count == 1 { "" } else { "s" })]
    NoSuchHeap {
        /// The target.
        name: String,
        /// How many there are.
        count: usize,
        /// The one that was asked for.
        wanted: usize,
    },
    /// A file is not what it should be.
    #[error("{name}: {what}")]
    File {
        /// The target.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The system refused something else.
    #[error("{name}: {what}: {cause}")]
    System {
        /// The target.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        cause: io::Error,
    },
}

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The exit status that env(1) would have: 126 for what is not permitted, 127 for what is missing, 125 for the rest.
    pub fn status(&self) -> i32 {
        match self {
            Error::NotPermitted { .. } => 126,
            Error::Missing { .. } => 127,
            _ => 125,
        }
    }
}
