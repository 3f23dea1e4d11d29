//! Where bytes come from: a process, a core file, or a snapshot file.
//!
//! Knows addresses, mappings and threads, and nothing of heaps.

pub mod core;
pub mod file;
pub mod process;

use crate::{Error, Result};
use std::path::Path;
use std::time::Duration;

/// Addresses lie below: what a process has on x86-64, in bytes.
pub const ADDRESSES: u64 = 1 << 47;

/// A range of addresses.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Span {
    /// The first address.
    pub start: u64,
    /// The one after the last.
    pub end: u64,
}

impl Thread {
    /// The value of a register.
    pub fn register(&self, name: &str) -> Option<u64> {
        let mut all = self.registers.iter();
        all.find(|one| one.0 == name).map(|one| one.1)
    }
}

impl Span {
    /// Number of addresses.
    pub fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether `address` is one of them.
    pub fn holds(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// What two have in common.
    pub fn common(self, other: Span) -> Span {
        let start = self.start.max(other.start);
        Span {
            start,
            end: self.end.min(other.end).max(start),
        }
    }
}

/// A mapping of the target.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Mapping {
    /// Where it lies.
    pub span: Span,
    /// Whether it can be read.
    pub read: bool,
    /// Whether it can be written.
    pub write: bool,
    /// Whether it can be executed.
    pub execute: bool,
    /// Whether what is written to it is seen by others.
    #[serde(default)]
    pub shared: bool,
    /// Where it begins in its file.
    pub offset: u64,
    /// Its file, or the name that the system gives it. It may be empty.
    pub name: String,
}

/// A thread of the target.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Thread {
    /// The system's number.
    pub tid: u32,
    /// The number that it has in its own PID namespace, if that is another. Else 0.
    #[serde(default)]
    pub inner: u32,
    /// Its name. Empty means not known.
    pub name: String,
    /// What it does, as far as is known: "running", "asleep in futex_wait".
    pub doing: String,
    /// Its registers by name, where it was stopped.
    pub registers: Vec<(String, u64)>,
    /// What its vector registers hold, word by word without zeros, where it was stopped.
    #[serde(default)]
    pub vectors: Vec<u64>,
    /// Its stack pointer, where it was stopped or sleeps. 0 means not known.
    #[serde(default)]
    pub stack: u64,
}

/// What is known of a target beside its memory.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct About {
    /// Its number. 0 means not known.
    pub pid: u32,
    /// Its program.
    pub program: String,
    /// Resident bytes (`VmRSS`), where known.
    pub resident: Option<u64>,
    /// The signal that ended it, of a core file.
    pub signal: Option<u32>,
    /// The address that it faulted at, of a core file.
    pub fault: Option<u64>,
}

/// The last part of a path.
pub fn short(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// An error that names the `least` contents that a snapshot should have, where it does not have them.
fn needs(has: bool, name: impl FnOnce() -> String, least: &'static str) -> Result<()> {
    match has {
        true => Ok(()),
        false => Err(Error::NoContents {
            name: name(),
            least,
        }),
    }
}

/// A target's bytes. Several threads may read them at once.
pub trait Source: Sync {
    /// Copies the bytes at `address`. False if one is not there. `into` is filled as far as they were.
    fn read(&self, address: u64, into: &mut [u8]) -> bool;

    /// The same where all of it is there already: reading what was never touched, or was swapped out, would change what
    /// a process has resident.
    fn peek(&self, address: u64, into: &mut [u8]) -> bool {
        let Some(end) = address.checked_add(into.len() as u64) else {
            return false;
        };
        let mut at = address;
        let wanted = Span {
            start: address,
            end,
        };
        self.present(wanted, &mut |part| {
            if part.start <= at {
                at = at.max(part.end);
            }
        });
        at >= end && self.read(address, into)
    }

    /// The mappings, by address.
    fn mappings(&self) -> &[Mapping];

    /// Calls `visit` for the ranges of `within` that hold contents, by address: of a process those that are resident.
    fn present(&self, within: Span, visit: &mut dyn FnMut(Span));

    /// The same, and of a process also those ranges that were swapped out: what is to be read whole.
    fn held(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        self.present(within, visit);
    }

    /// Calls `visit` with what the file of `mapping`, a shared one, holds of `within`, where no page of the target does.
    /// False where that cannot be told.
    fn unmapped(&self, mapping: &Mapping, within: Span, visit: &mut dyn FnMut(u64, &[u8])) -> bool {
        let _ = (mapping, within, visit);
        false
    }

    /// Whether the page that `address` lies in is marked as a guard: it has no contents, and who touches it faults. False
    /// where that cannot be told.
    fn is_guard(&self, address: u64) -> bool {
        let _ = address;
        false
    }

    /// Whether the contents of blocks and variables are there.
    fn has_contents(&self) -> bool {
        true
    }

    /// Whether the first words of blocks are there, which show their types.
    fn has_heads(&self) -> bool {
        true
    }

    /// An error if the contents of blocks and variables are not there.
    fn needs_contents(&self) -> Result<()> {
        needs(self.has_contents(), || self.name(), file::ALL)
    }

    /// An error if the first words of blocks are not there.
    fn needs_heads(&self) -> Result<()> {
        needs(self.has_heads(), || self.name(), file::HEADS)
    }

    /// Bytes of `within` that the target had, and that are not here.
    fn lacks(&self, within: Span) -> u64 {
        let _ = within;
        0
    }

    /// Bytes of a core file that are missing: the disk was full, say, or the limit of its size too low.
    fn cut(&self) -> u64 {
        0
    }

    /// What is known of the target.
    fn about(&self) -> About;

    /// The target's threads. Those of a core file, and of a process that is stopped, with registers.
    fn threads(&self) -> Vec<Thread>;

    /// The number of each thread in its own PID namespace, and the one that it has here.
    fn thread_numbers(&self) -> Vec<(u32, u32)> {
        let all = self.threads().into_iter();
        all.map(|thread| match thread.inner {
            0 => (thread.tid, thread.tid),
            inner => (inner, thread.tid),
        })
        .collect()
    }

    /// How messages call the target.
    fn name(&self) -> String;

    /// Whether what is read can change meanwhile.
    fn is_moving(&self) -> bool;

    /// Whether the target stood still when what is read was so: a snapshot may have been taken of one that did not.
    fn stood_still(&self) -> bool {
        !self.is_moving()
    }

    /// Whether the target has ended.
    fn is_gone(&self) -> bool {
        false
    }

    /// Has a process stand still until [`Source::release`].
    fn stop(&mut self) -> Result<()> {
        Ok(())
    }

    /// Stops a process for a moment, to see its registers and where its stacks end. It goes on after `most` where a
    /// thread waits for a device or for the child of its vfork(2). The registers are told of its threads from then on,
    /// until it is stopped again.
    fn see_registers(&mut self, most: Duration) {
        let _ = most;
    }

    /// Whether the registers of all threads are known, if it stands still. Not those of other threads at a process's end.
    fn knows_registers(&self) -> bool {
        true
    }

    /// Lets a process that was stopped go on.
    fn release(&mut self) {}

    /// Reads anew what a process has mapped.
    fn renew(&mut self) -> Result<()> {
        Ok(())
    }

    /// For how long a process was stopped, once it goes on.
    fn stood_for(&self) -> Option<Duration> {
        None
    }

    /// Why there is no region.
    fn no_heap(&self) -> Error;

    /// The folder under which the target sees its files.
    fn root(&self) -> String {
        String::new()
    }

    /// The word at `address`.
    fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }

    /// The mapping that holds `address`.
    fn mapping_at(&self, address: u64) -> Option<&Mapping> {
        let all = self.mappings();
        let index = all.partition_point(|mapping| mapping.span.start <= address);
        all[..index]
            .last()
            .filter(|mapping| mapping.span.holds(address))
    }
}

/// A target of any kind.
pub struct Target(Box<dyn Source>);

impl Target {
    /// The running process `pid`, which goes on meanwhile.
    pub fn process(pid: u32) -> Result<Target> {
        Ok(Target(Box::new(process::Process::open(pid)?)))
    }

    /// The process `pid`, all of whose threads stand still until this is dropped.
    pub fn stopped(pid: u32) -> Result<Target> {
        let mut target = Target::process(pid)?;
        target.stop()?;
        target.renew()?;
        Ok(target)
    }

    /// The process `pid`, of which the calling thread traces the first thread, and has just found it at its end. It stands
    /// still until this is dropped.
    pub fn ending(pid: u32) -> Result<Target> {
        Ok(Target(Box::new(process::Process::ending(pid)?)))
    }

    /// A process by its number, or else the core file or snapshot of that name.
    pub fn open(what: &str, stop: bool) -> Result<Target> {
        match what.parse() {
            Ok(pid) if stop => Target::stopped(pid),
            Ok(pid) => Target::process(pid),
            Err(_) => Target::file(Path::new(what)),
        }
    }

    /// Has a process stand still until it is released, or this is dropped. What it has mapped is known as of before.
    /// [`Target::renew`] reads that anew.
    pub fn stop(&mut self) -> Result<()> {
        self.0.stop()
    }

    /// Stops a process for a moment, to see its registers and where its stacks end. It goes on after `most` where a
    /// thread waits for a device or for the child of its vfork(2). The registers are told of its threads from then on,
    /// until it is stopped again.
    pub fn see_registers(&mut self, most: Duration) {
        self.0.see_registers(most);
    }

    /// Lets a process that was stopped go on: what is read from now on can change meanwhile.
    pub fn release(&mut self) {
        self.0.release();
    }

    /// Reads anew what a process has mapped.
    pub fn renew(&mut self) -> Result<()> {
        self.0.renew()
    }

    /// A core file or a snapshot, by its first bytes.
    pub fn file(path: &Path) -> Result<Target> {
        if file::is_snapshot(path)? {
            return Ok(Target(Box::new(file::Snapshot::open(path)?)));
        }
        Ok(Target(Box::new(self::core::Core::open(path)?)))
    }
}

impl From<Box<dyn Source>> for Target {
    fn from(source: Box<dyn Source>) -> Target {
        Target(source)
    }
}

impl std::ops::Deref for Target {
    type Target = dyn Source;

    fn deref(&self) -> &(dyn Source + 'static) {
        &*self.0
    }
}

/// The part of `spans`, which lie in order, that lies in `within`.
pub(crate) fn visit_within(spans: &[Span], within: Span, visit: &mut dyn FnMut(Span)) {
    let first = spans.partition_point(|span| span.end <= within.start);
    for span in &spans[first..] {
        if span.start >= within.end {
            return;
        }
        visit(span.common(within));
    }
}
