//! A running process: its memory by process_vm_readv(2), what of it is resident by PAGEMAP_SCAN or the pagemap, its
//! threads by /proc, and held by ptrace(2) where it is to be stopped.

use super::{short, About, Mapping, Source, Span, Thread, ADDRESSES};
use crate::{Error, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::unistd::Pid;
use procfs::process::{MMPermissions, MMapPath};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Bytes of a page of the system, as the pagemap counts.
const OS_PAGE: u64 = 4096;
/// Entries of the pagemap read at once.
const ENTRIES: usize = 8192;
/// Bytes read at once of a file.
const FILE_STEP: i64 = 1 << 20;
/// Ranges that one scan tells.
const RANGES: usize = 1024;
/// Bits of an entry of the pagemap: resident, swapped out, or marked otherwise.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// A guard by madvise(2), from Linux 6.15 on. Before, it looks like a page that was swapped out.
const GUARD: u64 = 1 << 58;

/// ioctl(2) `PAGEMAP_SCAN`, Linux 6.7: the ranges of pages of a kind (linux/fs.h).
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    inverted: u64,
    all: u64,
    any: u64,
    told: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Range {
    start: u64,
    end: u64,
    kinds: u64,
}

const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
/// The kernel's zero page, which is not counted as resident.
const IS_ZERO: u64 = 1 << 5;

mod call {
    #![allow(missing_docs)] // What the macro makes cannot be documented.
    nix::ioctl_readwrite!(pagemap_scan, b'f', 16, super::Scan);
}

/// A process.
pub struct Process {
    pid: u32,
    mappings: Vec<Mapping>,
    pagemap: Option<File>,
    /// Whether it is in a PID namespace of its own: its threads know each other by other numbers.
    nested: bool,
    held: Vec<Held>,
    /// Whether they still stand still.
    stands: bool,
    /// Whether it is at its end, and does not go on.
    ends: bool,
    /// Whether it had other threads then, whose registers nobody has seen.
    others: bool,
    /// Since when the first of them did.
    since: Option<Instant>,
    /// For how long, once they go on.
    stood: Option<Duration>,
}

/// A thread that stands still, or did.
struct Held {
    tid: i32,
    registers: Vec<(String, u64)>,
    vectors: Vec<u64>,
}

/// The longest wait for a thread to stop.
const STOP_MOST: Duration = Duration::from_secs(5);

impl Process {
    /// The process of number `pid`, if it can be read.
    pub fn open(pid: u32) -> Result<Process> {
        let name = format!("process {pid}");
        let missing = || Error::Missing {
            name: name.clone(),
            why: "there is no such process".into(),
        };
        let denied = || not_permitted(pid);
        let process = procfs::process::Process::new(pid as i32).map_err(|_| missing())?;
        let mappings = match process.maps() {
            Ok(maps) => maps.into_iter().filter_map(mapping).collect(),
            Err(procfs::ProcError::PermissionDenied(_)) => return Err(denied()),
            Err(procfs::ProcError::NotFound(_)) => return Err(missing()),
            Err(error) => {
                return Err(Error::System {
                    name,
                    what: "cannot read its mappings",
                    cause: io::Error::other(error),
                })
            }
        };
        let opened = Process {
            pid,
            mappings,
            pagemap: File::open(format!("/proc/{pid}/pagemap")).ok(),
            nested: numbers_of(&format!("/proc/{pid}/status")).len() > 1,
            held: Vec::new(),
            stands: false,
            ends: false,
            others: false,
            since: None,
            stood: None,
        };
        opened.probe()?;
        Ok(opened)
    }

    /// The process `pid`, of which the calling thread traces the first thread, and has just found it at its end. It stands
    /// still until this is dropped.
    pub fn ending(pid: u32) -> Result<Process> {
        let mut process = Process::open(pid)?;
        process.ends = true;
        process.others = process.tids().len() > 1;
        process.stands = true;
        let tid = pid as i32;
        if let Ok(registers) = ptrace::getregs(Pid::from_raw(tid)) {
            process.held.push(Held {
                tid,
                registers: named(&registers),
                vectors: vectors(tid),
            });
        }
        Ok(process)
    }

    /// Lets all threads go on.
    fn let_go(&mut self) {
        for held in self.held.iter().filter(|_| self.stands) {
            // SAFETY: nothing of this process is read or written. One that was killed meanwhile is gone.
            unsafe { libc::ptrace(libc::PTRACE_DETACH, held.tid, 0, 0) };
        }
        self.stands = false;
        if let Some(since) = self.since.take() {
            let before = self.stood.unwrap_or_default();
            self.stood = Some(before + since.elapsed());
        }
    }

    /// Whether its memory can be read at all.
    fn probe(&self) -> Result<()> {
        let Some(first) = self.mappings.iter().find(|mapping| mapping.read) else {
            // A kernel thread, or one that has ended and was not waited for.
            return Err(self.no_heap());
        };
        match self.copy(first.span.start, &mut [0; 8]) {
            Err(Errno::EPERM | Errno::EACCES) => Err(not_permitted(self.pid)),
            Err(Errno::ESRCH) => Err(self.ended()),
            _ => Ok(()),
        }
    }

    fn ended(&self) -> Error {
        Error::Ended { name: self.name() }
    }

    fn copy(&self, address: u64, into: &mut [u8]) -> nix::Result<usize> {
        let remote = RemoteIoVec {
            base: address as usize,
            len: into.len(),
        };
        let pid = Pid::from_raw(self.pid as i32);
        process_vm_readv(pid, &mut [IoSliceMut::new(into)], &[remote])
    }

    /// Stops all threads until [`Source::release`], and at most for as long as this lives. Of what the process had
    /// mapped the list is read then. See [`Process::renew`].
    ///
    /// # Errors
    /// Where a thread cannot be stopped, or not within `STOP_MOST`: one that waits for the child of its vfork(2) or for
    /// a device. All others go on then.
    pub fn stop(&mut self) -> Result<()> {
        self.stop_within(STOP_MOST)
    }

    fn stop_within(&mut self, most: Duration) -> Result<()> {
        self.held.clear();
        let stopped = self.stop_all(most);
        self.stands = true;
        if let Err(error) = stopped {
            self.let_go();
            self.held.clear();
            return Err(error);
        }
        if self.held.is_empty() {
            self.stands = false;
            return Err(self.ended());
        }
        Ok(())
    }

    /// Stops all threads for a moment, and notes their registers and where their stacks end. Where they do not all stop
    /// within `most`, nothing is noted, but that a thread which only waits for a processor is waited for longer.
    pub fn see_registers(&mut self, most: Duration) {
        // A thread that did not stop would stop later, and nobody would let it go on: a tracer can let go of none that
        // runs. The system lets go of all when their tracer ends, and here that is this thread.
        let see = || {
            let stopped = self.stop_within(most);
            self.let_go();
            (stopped.is_ok(), nix::unistd::gettid())
        };
        let seen = std::thread::scope(|scope| {
            let started = std::thread::Builder::new().spawn_scoped(scope, see);
            started.ok().and_then(|tracer| tracer.join().ok())
        });
        if let Some((false, tracer)) = seen {
            // It lets go of them after it is joined.
            let tracer = format!("/proc/self/task/{tracer}");
            let until = Instant::now() + STOP_MOST;
            while fs::metadata(&tracer).is_ok() && Instant::now() < until {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }

    /// Stops all threads, within `most`, or [`STOP_MOST`] where a thread only waits for a processor.
    fn stop_all(&mut self, most: Duration) -> Result<()> {
        let begin = Instant::now();
        // New ones may come while the first are stopped: over again until none does.
        let mut seen = BTreeSet::new();
        loop {
            let tids = self.tids();
            let fresh: Vec<i32> = tids.into_iter().filter(|&tid| seen.insert(tid)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            let seized = fresh.iter().try_for_each(|&tid| self.seize(tid));
            self.await_stops(fresh, begin, most)?;
            seized?;
        }
    }

    /// Waits until all of these threads stand still or have ended. All at once, since the first thread of a process that
    /// ends is not reported before the others.
    fn await_stops(&mut self, mut fresh: Vec<i32>, begin: Instant, most: Duration) -> Result<()> {
        loop {
            fresh.retain(|&tid| !self.has_stopped(tid));
            if fresh.is_empty() {
                return Ok(());
            }
            let passed = begin.elapsed();
            if passed > STOP_MOST
                || passed > most && fresh.iter().any(|&tid| self.waits_for_others(tid))
            {
                return Err(Error::System {
                    name: self.name(),
                    what: "cannot stop it: one of its threads does not answer. Try again",
                    cause: std::io::ErrorKind::TimedOut.into(),
                });
            }
            std::thread::sleep(Duration::from_micros(10));
        }
    }

    /// Whether no signal wakes `tid`: it waits for a device, or for the child of its vfork(2).
    fn waits_for_others(&self, tid: i32) -> bool {
        let state = procfs::process::Process::new(self.pid as i32)
            .and_then(|own| own.task_from_tid(tid))
            .and_then(|task| task.stat())
            .map(|stat| stat.state);
        state.is_ok_and(|state| state == 'D')
    }

    /// Reads anew what the process has mapped.
    pub fn renew(&mut self) -> Result<()> {
        let mut again = Process::open(self.pid)?;
        self.mappings = std::mem::take(&mut again.mappings);
        Ok(())
    }

    fn tids(&self) -> Vec<i32> {
        let tasks = procfs::process::Process::new(self.pid as i32).and_then(|own| own.tasks());
        let tasks = tasks.into_iter().flatten().flatten();
        tasks.map(|task| task.tid).collect()
    }

    fn seize(&self, tid: i32) -> Result<()> {
        let thread = Pid::from_raw(tid);
        match ptrace::seize(thread, ptrace::Options::empty())
            .and_then(|()| ptrace::interrupt(thread))
        {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(Errno::EPERM) => Err(not_stopped(self.pid)),
            Err(error) => Err(Error::System {
                name: self.name(),
                what: "cannot stop it",
                cause: error.into(),
            }),
        }
    }

    /// Whether `tid` stands still, whose registers are noted then, or is no thread any more.
    fn has_stopped(&mut self, tid: i32) -> bool {
        let mut status = 0;
        // SAFETY: `status` is there to be written. The numbers of real-time signals are none that `nix` knows.
        let found = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        if found == 0 {
            return false;
        }
        if found != tid || !libc::WIFSTOPPED(status) {
            return true;
        }
        let thread = Pid::from_raw(tid);
        if status >> 16 == 0 {
            // A signal on its way. It is passed on at once, since it would be lost if this process were killed now. The
            // stop has cleared the interrupt (`ptrace_stop` in Linux), so there is another one.
            // SAFETY: nothing of this process is read or written.
            unsafe { libc::ptrace(libc::PTRACE_CONT, tid, 0, libc::WSTOPSIG(status)) };
            return ptrace::interrupt(thread) == Err(Errno::ESRCH);
        }
        self.since.get_or_insert_with(Instant::now);
        if let Ok(registers) = ptrace::getregs(thread) {
            self.held.push(Held {
                tid,
                registers: named(&registers),
                vectors: vectors(tid),
            });
        }
        true
    }

    /// The file that `mapping` is of.
    fn file_of(&self, mapping: &Mapping) -> Option<File> {
        let Span { start, end } = mapping.span;
        // What was deleted, or never had a name, is found there, by root alone.
        let own = format!("/proc/{}/map_files/{start:x}-{end:x}", self.pid);
        let named = || File::open(format!("{}{}", self.root(), mapping.name));
        let file = File::open(own).or_else(|_| named()).ok()?;
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        regular.then_some(file)
    }

    /// Ranges of pages that are resident, or, where `swapped`, at least swapped out.
    fn scan(&self, within: Span, swapped: bool, visit: &mut dyn FnMut(Span)) -> bool {
        let Some(pagemap) = &self.pagemap else {
            return false;
        };
        // A look at one block needs no room for many.
        let pages = within.bytes() / OS_PAGE + 2;
        let mut found = vec![Range::default(); RANGES.min(pages as usize)];
        let end = within.end.next_multiple_of(OS_PAGE);
        let start = within.start / OS_PAGE * OS_PAGE;
        let mut at = start;
        while at < end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                start: at,
                end,
                vec: found.as_mut_ptr() as u64,
                vec_len: found.len() as u64,
                inverted: IS_ZERO,
                all: if swapped {
                    IS_ZERO
                } else {
                    IS_PRESENT | IS_ZERO
                },
                any: if swapped { IS_PRESENT | IS_SWAPPED } else { 0 },
                ..Scan::default()
            };
            // SAFETY: `vec` has room for `vec_len` ranges, and lives as long as the call.
            let Ok(n) = (unsafe { call::pagemap_scan(pagemap.as_raw_fd(), &mut scan) }) else {
                return at != start;
            };
            for range in found.iter().take(n as usize) {
                let range = Span {
                    start: range.start,
                    end: range.end,
                };
                visit(range.common(within));
            }
            if scan.walk_end <= at {
                return true;
            }
            at = scan.walk_end;
        }
        true
    }

    /// The same for kernels without the scan: entry by entry, of what is mapped.
    fn entries(&self, within: Span, swapped: bool, visit: &mut dyn FnMut(Span)) {
        let Some(pagemap) = &self.pagemap else {
            return;
        };
        let mut bytes = vec![0; ENTRIES * 8];
        let wanted = if swapped { PRESENT | SWAPPED } else { PRESENT };
        for mapping in &self.mappings {
            let part = mapping.span.common(within);
            if part.bytes() == 0 {
                continue;
            }
            let mut page = part.start / OS_PAGE;
            while page < part.end.div_ceil(OS_PAGE) {
                let n = ((part.end.div_ceil(OS_PAGE) - page) as usize).min(ENTRIES);
                if pagemap
                    .read_exact_at(&mut bytes[..n * 8], page * 8)
                    .is_err()
                {
                    return;
                }
                let entries = bytes[..n * 8].chunks_exact(8);
                let mut run: Option<Span> = None;
                for (index, entry) in entries.enumerate() {
                    let mut word = [0; 8];
                    word.copy_from_slice(entry);
                    let start = (page + index as u64) * OS_PAGE;
                    match (&mut run, u64::from_le_bytes(word) & wanted != 0) {
                        (Some(span), true) => span.end = start + OS_PAGE,
                        (None, true) => {
                            run = Some(Span {
                                start,
                                end: start + OS_PAGE,
                            })
                        }
                        (_, false) => run
                            .take()
                            .into_iter()
                            .for_each(|span| visit(span.common(within))),
                    }
                }
                run.into_iter().for_each(|span| visit(span.common(within)));
                page += n as u64;
            }
        }
    }

    /// The number of thread `tid` in its own PID namespace.
    fn inner_number(&self, tid: i32) -> u32 {
        let numbers = numbers_of(&format!("/proc/{}/task/{tid}/status", self.pid));
        numbers.last().copied().unwrap_or(tid as u32)
    }

    fn thread(&self, tid: i32) -> Thread {
        // The same files as a process's are there for each of its threads.
        let directory = format!("/proc/{}/task/{tid}", self.pid).into();
        let task = procfs::process::Process::new_with_root(directory).ok();
        let stat = task.as_ref().and_then(|task| task.stat().ok());
        let place = task.and_then(|task| task.wchan().ok());
        let place = place.filter(|place| !matches!(place.as_str(), "" | "0"));
        let doing = match (stat.as_ref().map(|stat| stat.state), place) {
            (Some('R'), _) => "running".into(),
            (Some('S' | 'D'), Some(place)) => format!("asleep in {place}"),
            (Some('S' | 'D'), None) => "asleep".into(),
            (Some('T' | 't'), _) => "stopped".into(),
            _ => String::new(),
        };
        let held = self.held.iter().find(|held| held.tid == tid);
        Thread {
            tid: tid as u32,
            inner: if self.nested {
                self.inner_number(tid)
            } else {
                0
            },
            name: stat.map_or(String::new(), |stat| stat.comm),
            doing,
            registers: held.map_or(Vec::new(), |held| held.registers.clone()),
            vectors: held.map_or(Vec::new(), |held| held.vectors.clone()),
            stack: match held {
                Some(held) => stack_of(&held.registers),
                None => self.sleeping_at(tid),
            },
        }
    }

    /// The stack pointer of a thread that sleeps in a system call. 0 means it runs, or the kernel does not tell.
    fn sleeping_at(&self, tid: i32) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/task/{tid}/syscall", self.pid));
        let text = text.unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        let stack = words
            .len()
            .checked_sub(2)
            .and_then(|at| words[at].strip_prefix("0x"));
        stack.map_or(0, |stack| u64::from_str_radix(stack, 16).unwrap_or(0))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Source for Process {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        into.is_empty() || self.copy(address, into) == Ok(into.len())
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn present(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        if !self.scan(within, false, visit) {
            self.entries(within, false, visit);
        }
    }

    fn held(&self, within: Span, visit: &mut dyn FnMut(Span)) {
        if !self.scan(within, true, visit) {
            self.entries(within, true, visit);
        }
    }

    fn is_guard(&self, address: u64) -> bool {
        let mut entry = [0; 8];
        let read = self.pagemap.as_ref().is_some_and(|file| {
            file.read_exact_at(&mut entry, address / OS_PAGE * 8)
                .is_ok()
        });
        read && u64::from_le_bytes(entry) & GUARD != 0
    }

    fn unmapped(&self, mapping: &Mapping, within: Span, visit: &mut dyn FnMut(u64, &[u8])) -> bool {
        let Some(file) = self.file_of(mapping) else {
            return false;
        };
        let mut absent = vec![within];
        self.held(within, &mut |part| without(&mut absent, part));
        absent
            .into_iter()
            .all(|part| visit_file(&file, mapping, part, visit))
    }

    fn about(&self) -> About {
        let process = procfs::process::Process::new(self.pid as i32).ok();
        let status = process.as_ref().and_then(|process| process.status().ok());
        About {
            pid: self.pid,
            program: status
                .as_ref()
                .map_or(String::new(), |status| status.name.clone()),
            resident: status.and_then(|status| status.vmrss).map(|kib| kib * 1024),
            ..About::default()
        }
    }

    fn threads(&self) -> Vec<Thread> {
        let tids = self.tids().into_iter();
        tids.map(|tid| self.thread(tid)).collect()
    }

    fn thread_numbers(&self) -> Vec<(u32, u32)> {
        let tids = self.tids().into_iter();
        tids.map(|tid| match self.nested {
            true => (self.inner_number(tid), tid as u32),
            false => (tid as u32, tid as u32),
        })
        .collect()
    }

    fn name(&self) -> String {
        format!("process {}", self.pid)
    }

    fn is_moving(&self) -> bool {
        !self.stands && !self.ends
    }

    fn knows_registers(&self) -> bool {
        !self.others
    }

    fn release(&mut self) {
        if !self.ends {
            self.let_go();
        }
    }

    fn stop(&mut self) -> Result<()> {
        Process::stop(self)
    }

    fn see_registers(&mut self, most: Duration) {
        Process::see_registers(self, most);
    }

    fn renew(&mut self) -> Result<()> {
        Process::renew(self)
    }

    fn stood_for(&self) -> Option<Duration> {
        self.stood
    }

    fn is_gone(&self) -> bool {
        self.copy(0, &mut [0; 1]) == Err(Errno::ESRCH)
            || self
                .mappings
                .first()
                .is_some_and(|first| self.copy(first.span.start, &mut [0; 1]) == Err(Errno::ESRCH))
    }

    fn no_heap(&self) -> Error {
        let names = self.mappings.iter().map(|mapping| short(&mapping.name));
        let mut mallocs = names.filter(|name| {
            ["jemalloc", "tcmalloc", "mimalloc", "snmalloc", "rpmalloc"]
                .iter()
                .any(|malloc| name.contains(malloc))
        });
        let libc = || {
            let mut names = self.mappings.iter().map(|mapping| short(&mapping.name));
            names.find(|name| name.starts_with("libc.so") || name.starts_with("libc.musl"))
        };
        let malloc = mallocs.next().or_else(libc);
        Error::NoHeap {
            name: self.name(),
            malloc: malloc.unwrap_or("its own, or none").into(),
        }
    }

    fn root(&self) -> String {
        format!("/proc/{}/root", self.pid)
    }
}

/// Takes `part` from the last of `ranges`, which it lies in.
fn without(ranges: &mut Vec<Span>, part: Span) {
    let Some(last) = ranges.pop() else { return };
    let before = Span {
        end: part.start,
        ..last
    };
    let behind = Span {
        start: part.end,
        ..last
    };
    let both = [before, behind].into_iter();
    ranges.extend(both.filter(|span| span.bytes() > 0));
}

/// Calls `visit` with what `file` holds of `part` of its mapping: holes are left out, and stay holes.
fn visit_file(
    file: &File,
    mapping: &Mapping,
    part: Span,
    visit: &mut dyn FnMut(u64, &[u8]),
) -> bool {
    let to_file = |address: u64| (address - mapping.span.start + mapping.offset) as i64;
    let seek = |at: i64, whence| {
        // SAFETY: only the place in the file, which is this process's own, changes.
        unsafe { libc::lseek64(file.as_raw_fd(), at, whence) }
    };
    let end = to_file(part.end);
    let mut at = seek(to_file(part.start), libc::SEEK_DATA);
    while at >= 0 && at < end {
        let hole = seek(at, libc::SEEK_HOLE);
        if hole <= at {
            return false;
        }
        let hole = hole.min(end);
        while at < hole {
            let mut bytes = vec![0; (hole - at).min(FILE_STEP) as usize];
            if file.read_exact_at(&mut bytes, at as u64).is_err() {
                return false;
            }
            visit(at as u64 - mapping.offset + mapping.span.start, &bytes);
            at += bytes.len() as i64;
        }
        at = seek(at, libc::SEEK_DATA);
    }
    // Behind the last data there are none.
    true
}

/// The numbers of a process or thread in each PID namespace, outermost first, by its status in /proc.
fn numbers_of(status: &str) -> Vec<u32> {
    let text = fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let words = line.unwrap_or_default().split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

fn mapping(map: procfs::process::MemoryMap) -> Option<Mapping> {
    let (start, end) = map.address;
    // The vsyscall page lies above all that a process can have.
    (end <= ADDRESSES).then(|| Mapping {
        span: Span { start, end },
        read: map.perms.contains(MMPermissions::READ),
        write: map.perms.contains(MMPermissions::WRITE),
        execute: map.perms.contains(MMPermissions::EXECUTE),
        shared: map.perms.contains(MMPermissions::SHARED),
        offset: map.offset,
        name: match map.pathname {
            MMapPath::Path(path) => path.to_string_lossy().into_owned(),
            MMapPath::Heap => "[heap]".into(),
            MMapPath::Stack => "[stack]".into(),
            MMapPath::TStack(tid) => format!("[stack:{tid}]"),
            MMapPath::Vdso => "[vdso]".into(),
            MMapPath::Vvar => "[vvar]".into(),
            MMapPath::Vsyscall => "[vsyscall]".into(),
            MMapPath::Anonymous => String::new(),
            MMapPath::Other(name) => format!("[{name}]"),
            _ => String::new(),
        },
    })
}

/// Why a process cannot be stopped that can be read.
fn not_stopped(pid: u32) -> Error {
    let status = procfs::process::Process::new(pid as i32).and_then(|process| process.status());
    match status.map_or(0, |status| status.tracerpid) {
        0 => not_permitted(pid),
        // A process has one tracer at most.
        tracer => Error::NotPermitted {
            name: format!("process {pid}"),
            why: format!("process {tracer} traces it now"),
            advice: "try again when that one has ended",
        },
    }
}

fn not_permitted(pid: u32) -> Error {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let own = procfs::process::Process::new(pid as i32)
        .and_then(|process| process.uid())
        .is_ok_and(|uid| uid == nix::unistd::geteuid().as_raw());
    let (why, advice) = refusal(scope.trim(), own);
    Error::NotPermitted {
        name: format!("process {pid}"),
        why,
        advice,
    }
}

/// Why a process is not to be read, and what to do: `scope` is `kernel.yama.ptrace_scope`, empty where there is none.
fn refusal(scope: &str, own: bool) -> (String, &'static str) {
    match scope {
        _ if !own => (
            "it belongs to another user".into(),
            "run as that user, or as root with CAP_SYS_PTRACE",
        ),
        "1" => (
            "kernel.yama.ptrace_scope is 1".into(),
            "run as root with CAP_SYS_PTRACE, or start it by `slabside run --watch`, or with option watch:any",
        ),
        "2" | "3" => (
            format!("kernel.yama.ptrace_scope is {scope}"),
            match scope {
                "2" => "run as root with CAP_SYS_PTRACE",
                _ => "nobody may until the system restarts: a core file that the kernel writes can be read",
            },
        ),
        _ => (
            "it is not dumpable, or has more rights".into(),
            "run as root with CAP_SYS_PTRACE",
        ),
    }
}

/// The most bytes that a processor's vector registers take as the system tells them.
const VECTORS: usize = 16 << 10;
/// What the system calls them.
#[cfg(target_arch = "x86_64")]
const VECTORS_NOTE: usize = 0x202;
#[cfg(target_arch = "aarch64")]
const VECTORS_NOTE: usize = 2;

/// The words in the vector registers of a thread that stands still.
fn vectors(tid: i32) -> Vec<u64> {
    let mut bytes = vec![0u8; VECTORS];
    let mut room = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the call writes at most `iov_len` bytes, which are there, and how many it wrote.
    let done = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, tid, VECTORS_NOTE, &raw mut room) };
    bytes.truncate(if done == 0 { room.iov_len } else { 0 });
    super::core::words_of(&bytes)
}

fn stack_of(registers: &[(String, u64)]) -> u64 {
    let mut all = registers.iter();
    let stack = all.find(|one| matches!(one.0.as_str(), "rsp" | "sp"));
    stack.map_or(0, |one| one.1)
}

/// Registers by the names that debuggers use.
#[cfg(target_arch = "aarch64")]
fn named(registers: &libc::user_regs_struct) -> Vec<(String, u64)> {
    let numbered = registers.regs.iter().enumerate();
    numbered
        .map(|(number, value)| (format!("x{number}"), *value))
        .chain([("sp".into(), registers.sp), ("pc".into(), registers.pc)])
        .collect()
}

/// Registers by the names that debuggers use.
#[cfg(target_arch = "x86_64")]
fn named(registers: &libc::user_regs_struct) -> Vec<(String, u64)> {
    let r = registers;
    [
        ("rax", r.rax),
        ("rbx", r.rbx),
        ("rcx", r.rcx),
        ("rdx", r.rdx),
        ("rsi", r.rsi),
        ("rdi", r.rdi),
        ("rbp", r.rbp),
        ("rsp", r.rsp),
        ("r8", r.r8),
        ("r9", r.r9),
        ("r10", r.r10),
        ("r11", r.r11),
        ("r12", r.r12),
        ("r13", r.r13),
        ("r14", r.r14),
        ("r15", r.r15),
        ("rip", r.rip),
        ("fs_base", r.fs_base),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each refusal as the user reads it.
    #[test]
    fn a_refusal_says_why_and_what_to_do() {
        let told = |scope: &str, own| {
            let (why, advice) = refusal(scope, own);
            let name = "process 812".to_string();
            let error = Error::NotPermitted { name, why, advice };
            assert_eq!(error.status(), 126);
            error.to_string()
        };
        assert_eq!(
            told("1", true),
            "process 812: not permitted to read it (kernel.yama.ptrace_scope is 1): run as root with CAP_SYS_PTRACE, or \
             start it by `slabside run --watch`, or with option watch:any"
        );
        assert_eq!(
            told("2", true),
            "process 812: not permitted to read it (kernel.yama.ptrace_scope is 2): run as root with CAP_SYS_PTRACE"
        );
        for scope in ["", "0", "1"] {
            assert_eq!(
                told(scope, false),
                "process 812: not permitted to read it (it belongs to another user): \
                 run as that user, or as root with CAP_SYS_PTRACE"
            );
        }
        assert_eq!(
            told("0", true),
            "process 812: not permitted to read it (it is not dumpable, or has more rights): \
             run as root with CAP_SYS_PTRACE"
        );
    }
}
