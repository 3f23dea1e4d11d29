//! The process's allocator, and what happens to it at process start, thread exit, fork and process end.
//!
//! Registers the hooks and calls down. The counters' page is exchanged here too, if `slabside run` provides one. The
//! library opens the file that the environment names, and maps it over the private page.

use crate::allocator::Allocator;
use crate::counters::{self, Counters, Each};
use crate::meta::Area;
use crate::misuse::Line;
use crate::options::{self, Name};
use crate::os::{self, calls, Hooks, Host, Linux};
use crate::stats;
use crate::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use crate::tls::{local, mark_busy};
use crate::units::{PAGE, PAGE_START};
use core::ffi::{c_int, c_void, CStr};
use core::ptr;

/// The process's allocator.
pub static GLOBAL: Allocator<Linux> = Allocator::new(Linux::new(Hooks {
    started,
    thread_exit,
    fork_prepare,
    fork_parent,
    fork_child,
    forked,
    background,
    fault,
}));

// It begins at a page, and what every free reads of a window lies apart from where a page begins.
static_assertions::const_assert_eq!(core::mem::align_of::<Allocator<Linux>>(), PAGE);
static_assertions::const_assert!(
    core::mem::offset_of!(Allocator<Linux>, backend.pages.hot) % PAGE >= PAGE_START
);
static_assertions::const_assert!(
    core::mem::offset_of!(Allocator<Linux>, backend.pages.beyond) % PAGE >= PAGE_START
);

/// Rounds of thread-specific-data destructors that the exit hook lets pass, so that the destructors of
/// other keys still find the thread's own heap (POSIX: at least four rounds are run).
const ROUNDS: u8 = 1;

/// A thread ends: a thread-specific-data destructor, after C++ and Rust thread-local destructors.
unsafe extern "C" fn thread_exit(_: *mut c_void) {
    let thread = local();
    if thread.calls.get() < ROUNDS {
        thread.calls.set(thread.calls.get() + 1);
        GLOBAL
            .backend
            .os
            .watch_thread(ptr::NonNull::from(thread).cast());
        return;
    }
    GLOBAL.exit_thread(thread);
}

/// The thread in the background.
extern "C" fn background(_: *mut c_void) -> *mut c_void {
    calls::name_thread(c"slabside");
    GLOBAL.keep_house(local())
}

/// A fault. Reports it if it was at a sampled block.
fn fault(address: usize) {
    GLOBAL.tell_of_fault(address);
}

/// A thread is about to fork: the break stays where it is until it has. No lock is kept.
unsafe extern "C" fn fork_prepare() {
    let thread = local();
    // First of all: a repair that this brings about frees the break.
    let interrupted = GLOBAL.is_interrupted(thread);
    if !interrupted {
        GLOBAL.notice_fork(thread);
    }
    GLOBAL.backend.pages.hold_break();
    // A thread in the middle of a slow path may be the one that moves it.
    if !interrupted {
        mark_busy!(thread);
        GLOBAL.backend.pages.await_mover();
        GLOBAL.backend.large.note_fork();
    }
}

/// The parent has forked.
unsafe extern "C" fn fork_parent() {
    GLOBAL.backend.pages.release_break();
}

/// The one thread of a fork child: nobody else is there to finish what the parent's threads had begun.
unsafe extern "C" fn fork_child() {
    GLOBAL.backend.pages.free_break();
    GLOBAL.repair_after_fork(local());
}

/// Whether the counters' page is one that was handed over: [`ALONE`], [`EACH`], or 0.
#[link_section = ".data"] // See `preload/build.rs`.
static SHARED: AtomicU32 = AtomicU32::new(0);

/// [`SHARED`]: for this process alone.
const ALONE: u32 = 1;
/// [`SHARED`]: its children have pages too.
const EACH: u32 = 2;

fn page_of_counters() -> *mut c_void {
    GLOBAL.backend.meta.start::<c_void>(Area::Header).as_ptr()
}

/// Where the process's metadata region begins, for debuggers and other readers outside. 0 means no block was asked for
/// yet.
#[no_mangle]
#[allow(non_upper_case_globals)] // A C name.
#[link_section = ".data"] // See `preload/build.rs`.
pub static slabside_region: AtomicUsize = AtomicUsize::new(0);

/// In a fork child, before its heap is repaired.
fn forked() {
    detach_counters();
    let_watch();
}

/// Lets other processes look into this one, if that is wanted. A fork child does not inherit it.
fn let_watch() {
    if GLOBAL.backend.options.get(Name::Watch) == options::WATCH_ANY {
        calls::allow_tracers();
    }
}

/// The first thread has its heap.
fn started() {
    slabside_region.store(page_of_counters() as usize, Relaxed);
    let_watch();
    attach_counters();
    if GLOBAL.backend.options.text().is_some_and(can_be_opened) {
        // SAFETY: a function for the process's life, since the code cannot be unloaded.
        unsafe { libc::atexit(write_figures) };
    }
}

/// Uses the page of counters that the environment names, if it is meant for this process.
fn attach_counters() {
    let Some(path) = os::variable(counters::VARIABLE) else {
        return;
    };
    let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: `path` is a string of the environment.
    if let Ok(file) = unsafe { calls::open(path.as_ptr(), flags, 0) } {
        if let Some((how, page)) = page_for_us(file) {
            exchange_page(how, file, page);
            SHARED.store(how, Relaxed);
            GLOBAL.watch_forks();
            begin_counting();
        }
        // SAFETY: this function opened the descriptor, and nobody else knows it.
        unsafe { calls::close(file) };
    }
}

/// The page of `file` that is for this very process, and how: it was made for it, or is the next that nobody has.
fn page_for_us(file: c_int) -> Option<(u32, usize)> {
    let status = calls::status_of(file)?;
    let mut head = [0; 16];
    let read = calls::read(file, &mut head, Some(counters::OFFSET));
    let head = u128::from_le_bytes(head);
    let (magic, rest) = (head as u64, (head >> 64) as u64);
    let (version, pid) = (rest as u32, rest >> 32);
    let pages = usize::try_from(status.st_size).unwrap_or(0) / PAGE;
    let regular = status.st_mode & libc::S_IFMT == libc::S_IFREG && pages > 0;
    if !regular || read != 16 || version != counters::VERSION {
        return None;
    }
    match magic {
        counters::MAGIC if pid == calls::getpid() as u64 => Some((ALONE, 0)),
        counters::MAGIC_EACH => take_page(file)
            .filter(|&page| page < pages)
            .map(|page| (EACH, page)),
        _ => None,
    }
}

/// The number of the next page of `file`, which is this process's from now on.
fn take_page(file: c_int) -> Option<usize> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: this is a new mapping of one page of a file that is as long. `Each` lies in it at OFFSET, and all of its
    // fields are atomics. Nobody has the reference when it is unmapped.
    unsafe {
        let start = calls::map_file(0, PAGE, access, libc::MAP_SHARED, file, 0).ok()?;
        let each = &*((start + counters::OFFSET) as *const Each);
        let taken = each.taken.fetch_add(1, Relaxed);
        calls::unmap(start, PAGE);
        Some(taken as usize + 1)
    }
}

/// Maps another page in place of the region's first one: the page of that number of `file`, or a private one. The
/// contents stay the same. If the page was made for this process alone, its first three counters stay those of the new
/// page.
fn exchange_page(how: u32, file: c_int, number: usize) {
    let page = page_of_counters();
    let mut contents = [0u8; PAGE];
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = match how {
        0 => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        _ => libc::MAP_SHARED,
    };
    // SAFETY: the page is ours and open. A slow path of another thread may count in between, and its count may be lost,
    // which is why this happens before there is a second thread or in a fork child.
    unsafe {
        ptr::copy_nonoverlapping(page.cast::<u8>(), contents.as_mut_ptr(), PAGE);
        let flags = kind | libc::MAP_FIXED;
        let offset = number * PAGE;
        if calls::map_file(page as usize, PAGE, access, flags, file, offset).is_err() {
            return;
        }
        let kept = if how == ALONE { HANDED_OVER } else { 0 };
        let parts = [
            (0, counters::OFFSET),
            (counters::OFFSET + kept, PAGE - counters::OFFSET - kept),
        ];
        for (from, bytes) in parts {
            ptr::copy_nonoverlapping(
                contents.as_ptr().add(from),
                page.cast::<u8>().add(from),
                bytes,
            );
        }
    }
}

/// Bytes of the counters that are set by who hands the page over: magic, version, pid.
const HANDED_OVER: usize = core::mem::offset_of!(Counters, attached);

fn begin_counting() {
    let counters = GLOBAL.backend.meta.counters();
    counters.complete.store(0, Relaxed);
    if SHARED.load(Relaxed) == EACH {
        name_process(counters);
    }
    counters.attached.store(1, Relaxed);
}

/// Says whose page it is.
fn name_process(counters: &Counters) {
    let mut name = [0; 16];
    let length = calls::read_file(c"/proc/self/comm", &mut name);
    // The line's end is no part of the name.
    name[length.saturating_sub(1)..].fill(0);
    for (word, part) in counters.program.iter().zip(name.chunks_exact(8)) {
        let part = part.try_into().map_or(0, u64::from_le_bytes);
        word.store(part, Relaxed);
    }
    let mut text = [0; 512];
    let length = calls::read_file(c"/proc/self/stat", &mut text);
    // The name, in brackets, may hold anything. Behind it come the state and the parent, and the start as the twentieth
    // (proc_pid_stat(5)).
    let end = text[..length].iter().rposition(|&byte| byte == b')');
    let mut fields = text[end.map_or(length, |end| end + 1)..length]
        .split(|&byte| byte == b' ')
        .filter(|field| !field.is_empty());
    counters
        .parent
        .store(number_of(fields.nth(1)) as u32, Relaxed);
    counters.started.store(number_of(fields.nth(17)), Relaxed);
    counters.pid.store(calls::getpid() as u32, Relaxed);
}

/// The decimal number that `digits` begins with.
fn number_of(digits: Option<&[u8]>) -> u64 {
    let digits = digits.unwrap_or_default().iter();
    let digits = digits.take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, byte| {
        sum.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'))
    })
}

/// In a fork child: back to a private page, since the other one is the parent's. Where each process has a page, to the
/// next of those.
fn detach_counters() {
    let how = SHARED.swap(0, Relaxed);
    if how != 0 {
        exchange_page(0, -1, 0);
    }
    if how == EACH {
        attach_counters();
    }
}

/// The process ends in an orderly way. Makes the figures exact for the command that provided the page.
pub fn finish() {
    if SHARED.load(Relaxed) == 0 || !GLOBAL.is_started() {
        return;
    }
    let figures = last_figures();
    let counters = GLOBAL.backend.meta.counters();
    counters
        .handed_out
        .store(figures.handed_out as u64, Relaxed);
    counters.live.store(figures.live as u64, Relaxed);
    counters.peak.store(figures.peak as u64, Relaxed);
    let [peak, now] = resident();
    counters.resident.store(peak, Relaxed);
    counters.resident_at_end.store(now, Relaxed);
    let by_class = stats::live_by_class(&GLOBAL, local());
    for (counter, bytes) in counters.live_of.iter().zip(by_class.bytes) {
        counter.store(bytes as u64, Relaxed);
    }
    for (counter, value) in [
        (&counters.live_spans, by_class.spans),
        (&counters.live_large, by_class.large),
        (&counters.idle_slots, figures.idle_slots),
        (&counters.idle_spans, figures.idle_spans),
        (&counters.idle_pages, figures.idle_pages),
        (&counters.idle_large, figures.idle_large),
        (&counters.holes, figures.holes),
        (&counters.quarantine, figures.quarantine),
    ] {
        counter.store(value as u64, Relaxed);
    }
    counters.complete.store(1, Relaxed);
}

/// The figures at the end, exact for what this thread did: slots that it cached and never handed out do not count.
fn last_figures() -> stats::Stats {
    let thread = local();
    GLOBAL.flush_stats(thread);
    let figures = stats::stats(&GLOBAL, thread);
    let left = GLOBAL.bytes_cached(thread);
    stats::Stats {
        handed_out: figures.handed_out.saturating_sub(left),
        ..figures
    }
}

/// Whether the file that the option `stats` names can be opened. If not, that is said now: programs such as ls close
/// standard error before the figures are written. A relative path is looked at then, since a program may change its
/// directory.
#[cold]
fn can_be_opened(place: &CStr) -> bool {
    if !place.to_bytes().starts_with(b"/") {
        return true;
    }
    let file = open_figures(place);
    if file < 0 {
        say_unwritable(place.to_bytes());
        return false;
    }
    // SAFETY: this function opened the descriptor, and nobody else knows it.
    unsafe { calls::close(file) };
    true
}

/// A descriptor of the file, below zero where it cannot be opened.
fn open_figures(place: &CStr) -> i32 {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: `place` is a string that ends in zero, and lives during the call.
    unsafe { calls::open(place.as_ptr(), flags, 0o644).unwrap_or(-1) }
}

/// The process exits: its figures go where the option `stats` says, a line each.
extern "C" fn write_figures() {
    let Some(place) = GLOBAL.backend.options.text() else {
        return;
    };
    let file = match place == c"stderr" {
        true => libc::STDERR_FILENO,
        false => open_figures(place),
    };
    if file < 0 {
        return say_unwritable(place.to_bytes());
    }
    let figures = last_figures();
    for (name, bytes) in [
        ("bytes handed out", figures.handed_out),
        ("bytes live", figures.live),
        ("bytes live at the peak", figures.peak),
        ("bytes of break", figures.break_bytes),
        ("bytes of break at the peak", figures.break_peak),
        ("moves of the break", figures.break_moves),
        ("bytes mapped", figures.mapped),
        ("bytes of metadata", figures.metadata),
        ("bytes purged", figures.purged),
        ("bytes idle in slots", figures.idle_slots),
        ("bytes of holes", figures.holes),
        ("bytes idle in spans", figures.idle_spans),
        ("bytes idle in pages", figures.idle_pages),
        ("bytes idle in large blocks", figures.idle_large),
        ("bytes in a quarantine", figures.quarantine),
        ("slabs", figures.slabs),
        ("spans", figures.spans),
        ("large blocks", figures.large),
    ] {
        let mut line = Line::new();
        let pid = calls::getpid();
        line.text("slabside[").decimal(pid).text("]: ");
        line.decimal(bytes).text(" ").text(name).text("\n");
        calls::write(file, line.bytes());
    }
    if file > libc::STDERR_FILENO {
        // SAFETY: `place` is a string that ends in zero, and lives during the call.
        unsafe { calls::close(file) };
    }
}

/// The file that the option `stats` names cannot be opened.
#[cold]
fn say_unwritable(place: &[u8]) {
    let mut line = Line::new();
    line.text("slabside: the option 'stats' names a file that cannot be opened: '");
    line.quoted(place).text("'\n");
    calls::write(libc::STDERR_FILENO, line.bytes());
}

/// `VmHWM` and `VmRSS` of /proc/self/status in bytes. 0 if they cannot be read.
fn resident() -> [u64; 2] {
    let mut text = [0u8; 2048];
    let length = calls::read_file(c"/proc/self/status", &mut text);
    [&b"VmHWM:"[..], b"VmRSS:"].map(|name| kibibytes(&text[..length], name) * 1024)
}

/// The number after `name` in `text`. 0 if there is none.
fn kibibytes(text: &[u8], name: &[u8]) -> u64 {
    let found = text.windows(name.len()).position(|window| window == name);
    let text = found.map_or(&[][..], |at| &text[at + name.len()..]);
    let digits = text.iter().position(u8::is_ascii_digit);
    number_of(digits.map(|at| &text[at..]))
}
