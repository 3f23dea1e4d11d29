//! The process's allocator, and what happens to it at process start, thread exit, fork and process end.
//!
//! Registers the hooks and calls down. The counters' page is exchanged here too, when `slabside run`
//! hands one over: it opens the file that the environment names, and maps it over the private page.

use crate::allocator::Allocator;
use crate::counters::{self, Counters};
use crate::geometry::PAGE;
use crate::inspect;
use crate::meta::Area;
use crate::misuse::Line;
use crate::os::{self, calls, Hooks, Linux, Os};
use crate::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use crate::tls::local;
use core::ffi::{c_int, c_void, CStr};
use core::ptr;

/// The process's allocator.
pub static GLOBAL: Allocator<Linux> = Allocator::new(Linux::new(Hooks {
    started,
    thread_exit,
    fork_prepare,
    fork_parent,
    fork_child,
    forked: detach_counters,
    fault,
}));

/// Rounds of thread-specific-data destructors that the exit hook lets pass, so that the destructors of
/// other keys still find the thread's own heap (POSIX: at least four rounds are run).
const ROUNDS: u32 = 1;

/// A thread ends: a thread-specific-data destructor, after C++ and Rust thread-local destructors.
unsafe extern "C" fn thread_exit(_: *mut c_void) {
    let thread = local();
    if thread.rounds.get() < ROUNDS {
        thread.rounds.set(thread.rounds.get() + 1);
        GLOBAL
            .ground
            .os
            .watch_thread(ptr::NonNull::from(thread).cast());
        return;
    }
    GLOBAL.exit_thread(thread);
}

/// A fault: tells of it if it was at a sampled block.
fn fault(address: usize) {
    GLOBAL.tell_of_fault(address);
}

/// A thread is about to fork: the break stays where it is until it has. No lock is kept.
unsafe extern "C" fn fork_prepare() {
    GLOBAL.ground.pages.hold_break();
    if local().busy.get() == 0 {
        GLOBAL.ground.pages.await_mover();
    }
}

/// The parent has forked.
unsafe extern "C" fn fork_parent() {
    GLOBAL.ground.pages.release_break();
}

/// The one thread of a fork child: nobody else is there to finish what the parent's threads had begun.
unsafe extern "C" fn fork_child() {
    GLOBAL.ground.pages.free_break();
    GLOBAL.repair_after_fork(local());
}

/// Whether the counters' page is one that was handed over.
#[link_section = ".data"] // See `preload/build.rs`.
static SHARED: AtomicU32 = AtomicU32::new(0);

fn page_of_counters() -> *mut c_void {
    GLOBAL.ground.meta.start::<c_void>(Area::Header).as_ptr()
}

/// Where the process's metadata region begins, for debuggers and other readers outside; 0: no block was asked for yet.
#[no_mangle]
#[allow(non_upper_case_globals)] // A C name.
#[link_section = ".data"] // See `preload/build.rs`.
pub static slabside_region: AtomicUsize = AtomicUsize::new(0);

/// The first thread has its heap.
fn started() {
    slabside_region.store(page_of_counters() as usize, Relaxed);
    attach_counters();
    if GLOBAL.ground.options.text().is_some_and(can_be_opened) {
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
        if is_page_for_us(file) {
            exchange_page(libc::MAP_SHARED, file);
            SHARED.store(1, Relaxed);
            GLOBAL.watch_forks();
            begin_counting();
        }
        // SAFETY: our own descriptor.
        unsafe { calls::close(file) };
    }
}

/// Whether `file` is a regular file with a page of counters for this very process.
fn is_page_for_us(file: c_int) -> bool {
    let Some(status) = calls::status_of(file) else {
        return false;
    };
    let mut head = [0; 16];
    let read = calls::read(file, &mut head, Some(counters::OFFSET));
    let head = u128::from_le_bytes(head);
    let (magic, version) = (head as u64, (head >> 64) as u64);
    let regular =
        status.st_mode & libc::S_IFMT == libc::S_IFREG && status.st_size >= PAGE as libc::off_t;
    regular
        && read == 16
        && magic == counters::MAGIC
        && version == u64::from(counters::VERSION) | (calls::getpid() as u64) << 32
}

/// Maps another page in place of the region's first one, with the same contents but for the first three
/// fields of the counters where they were handed over.
fn exchange_page(kind: c_int, file: c_int) {
    let page = page_of_counters();
    let mut contents = [0u8; PAGE];
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the page is ours and open; a slow path of another thread may count in between, and its
    // count may be lost, which is why this happens before there is a second thread or in a fork child.
    unsafe {
        ptr::copy_nonoverlapping(page.cast::<u8>(), contents.as_mut_ptr(), PAGE);
        let flags = kind | libc::MAP_FIXED;
        if calls::map_file(page as usize, PAGE, access, flags, file).is_err() {
            return;
        }
        let kept = if kind & libc::MAP_SHARED != 0 {
            HANDED_OVER
        } else {
            0
        };
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
    let counters = GLOBAL.ground.meta.counters();
    counters.complete.store(0, Relaxed);
    counters.attached.store(1, Relaxed);
}

/// In a fork child: back to a private page, since the other one is the parent's.
fn detach_counters() {
    if SHARED.swap(0, Relaxed) != 0 {
        exchange_page(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
    }
}

/// The process ends in an orderly way: makes the figures exact for whoever handed the page over.
pub fn finish() {
    if SHARED.load(Relaxed) == 0 || !GLOBAL.is_started() {
        return;
    }
    let figures = last_figures();
    let counters = GLOBAL.ground.meta.counters();
    counters
        .handed_out
        .store(figures.handed_out as u64, Relaxed);
    counters.live.store(figures.live as u64, Relaxed);
    counters.peak.store(figures.peak as u64, Relaxed);
    counters.resident.store(peak_resident(), Relaxed);
    counters.complete.store(1, Relaxed);
}

/// The figures at the end, exact for what this thread did: slots that it checked out and never handed out do not count.
fn last_figures() -> inspect::Stats {
    let thread = local();
    GLOBAL.report(thread);
    let figures = inspect::stats(&GLOBAL, thread);
    let left = GLOBAL.bytes_checked_out(thread);
    inspect::Stats {
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
    // SAFETY: our own descriptor.
    unsafe { calls::close(file) };
    true
}

/// A descriptor of the file, below zero where it cannot be opened.
fn open_figures(place: &CStr) -> i32 {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: `place` is a string.
    unsafe { calls::open(place.as_ptr(), flags, 0o644).unwrap_or(-1) }
}

/// The process exits: its figures go where the option `stats` says, a line each.
extern "C" fn write_figures() {
    let Some(place) = GLOBAL.ground.options.text() else {
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
        // SAFETY: our own descriptor.
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

/// `VmHWM` of /proc/self/status in bytes; 0 where it cannot be read.
fn peak_resident() -> u64 {
    let mut text = [0u8; 2048];
    let length = calls::read_file(c"/proc/self/status", &mut text);
    let text = &text[..length];
    let found = text.windows(6).position(|window| window == b"VmHWM:");
    let digits = found.map_or(&[][..], |at| &text[at + 6..]);
    let digits = digits
        .iter()
        .skip_while(|byte| !byte.is_ascii_digit())
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |kib, byte| kib * 10 + u64::from(byte - b'0')) * 1024
}
