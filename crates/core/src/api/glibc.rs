//! glibc's own functions: trimming, figures, tunables.
//!
//! The figures are true: a walk counts each when it is asked for. What is written goes through a fixed buffer. Nothing
//! here allocates, though stdio may.

use super::c::set_errno;
use crate::class::{size_of_class, ClassId};
use crate::misuse::Line;
use crate::os::calls;
use crate::process::GLOBAL;
use crate::stats::{self, Census};
use crate::sync::Ordering::Relaxed;
use crate::tls::local;
use crate::units::{pages_for, PAGE, SMALL_MAX};
use core::ffi::{c_int, c_void};

/// malloc_trim(3): gives back all that is kept for reuse and can be reached from this thread, but for
/// `pad` bytes at the heap's end. 1 if memory went back, else 0.
pub fn malloc_trim(pad: usize) -> c_int {
    let before = given_back();
    GLOBAL.trim(local(), pad.div_ceil(PAGE));
    c_int::from(given_back() > before)
}

/// Bytes given back so far, as far as the difference of held and purged bytes shows.
fn given_back() -> i64 {
    if !GLOBAL.is_started() {
        return 0;
    }
    let counters = GLOBAL.backend.meta.counters();
    let held = counters.break_bytes.load(Relaxed) + counters.mapped.load(Relaxed);
    counters.purged.load(Relaxed) as i64 - held as i64
}

/// The figures of mallinfo(3), as `int` or `size_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MallInfo<T> {
    /// Bytes that the break and mapped windows hold.
    pub arena: T,
    /// Free slots, free spans and free runs of pages.
    pub ordblks: T,
    /// Free slots among them.
    pub smblks: T,
    /// Large blocks in use.
    pub hblks: T,
    /// Their bytes.
    pub hblkhd: T,
    /// The most bytes that were ever live.
    pub usmblks: T,
    /// Bytes of free slots that may be resident.
    pub fsmblks: T,
    /// Bytes in live slots and spans.
    pub uordblks: T,
    /// Bytes that are held and not live: `arena` less `uordblks`.
    pub fordblks: T,
    /// Bytes at the heap's end that a trim would give back.
    pub keepcost: T,
}

/// mallinfo2(3).
pub fn mallinfo2() -> MallInfo<usize> {
    let census = stats::census(&GLOBAL, local());
    let slots = census.free_slots.iter().sum::<usize>();
    MallInfo {
        arena: census.held,
        ordblks: slots + census.free_spans + census.free_runs,
        smblks: slots,
        hblks: census.large,
        hblkhd: census.large_bytes,
        usmblks: census.peak,
        fsmblks: census.free_slot_bytes,
        uordblks: census.live,
        fordblks: census.held.saturating_sub(census.live),
        keepcost: census.top,
    }
}

/// mallinfo(3): as [`mallinfo2`]. Figures that exceed an `int` are its largest value (glibc's wrap round).
pub fn mallinfo() -> MallInfo<c_int> {
    let info = mallinfo2();
    let int = |figure| c_int::try_from(figure).unwrap_or(c_int::MAX);
    MallInfo {
        arena: int(info.arena),
        ordblks: int(info.ordblks),
        smblks: int(info.smblks),
        hblks: int(info.hblks),
        hblkhd: int(info.hblkhd),
        usmblks: int(info.usmblks),
        fsmblks: int(info.fsmblks),
        uordblks: int(info.uordblks),
        fordblks: int(info.fordblks),
        keepcost: int(info.keepcost),
    }
}

/// malloc_info(3): writes the figures to `stream` as XML, in glibc's elements. free slots are its chunks of a size. 0,
/// or EINVAL where `options` is not 0, or -1 and errno where the stream fails.
///
/// # Safety
/// `stream` is an open stream.
pub unsafe fn malloc_info(options: c_int, stream: *mut c_void) -> c_int {
    if options != 0 {
        return libc::EINVAL;
    }
    let census = stats::census(&GLOBAL, local());
    let stream: *mut libc::FILE = stream.cast();
    let written = info_lines(&census, |line| {
        let text = line.bytes();
        // SAFETY: the line's bytes. The stream is the caller's.
        unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), stream) == text.len() }
    });
    if written {
        0
    } else {
        -1
    }
}

/// Writes the lines of [`malloc_info`] until one fails. Returns whether all were written.
fn info_lines(census: &Census, mut write: impl FnMut(&Line) -> bool) -> bool {
    let mut all = write(Line::new().text("<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n"));
    let mut from = 1;
    for class in ClassId::all() {
        let (to, count) = (size_of_class(class), census.free_slots[class.index()]);
        let mut line = Line::new();
        line.text("  <size from=\"").decimal(from);
        line.text("\" to=\"").decimal(to);
        line.text("\" total=\"").decimal(count * to);
        line.text("\" count=\"").decimal(count).text("\"/>\n");
        all = all && (count == 0 || write(&line));
        from = to + 1;
    }
    let mut line = Line::new();
    line.text("  <unsorted from=\"").decimal(SMALL_MAX + 1);
    line.text("\" to=\"").decimal(crate::units::SPAN_MAX);
    line.text("\" total=\"").decimal(census.free_span_bytes);
    line.text("\" count=\"").decimal(census.free_spans);
    line.text("\"/>\n");
    all = all && (census.free_spans == 0 || write(&line));
    all = all && write(Line::new().text("</sizes>\n"));
    all = all && totals(census, &mut write) && write(Line::new().text("</heap>\n"));
    let mut mapped = Line::new();
    total(&mut mapped, "mmap", census.large, census.large_bytes);
    all = all && totals(census, &mut write) && write(&mapped);
    all && write(Line::new().text("</malloc>\n"))
}

/// The elements that end the one heap, and the document.
fn totals(census: &Census, write: &mut impl FnMut(&Line) -> bool) -> bool {
    let count = census.free_slots.iter().sum::<usize>() + census.free_spans;
    let free = census.held.saturating_sub(census.live);
    let mut line = Line::new();
    total(&mut line, "fast", 0, 0);
    total(&mut line, "rest", count, free);
    let mut system = Line::new();
    for (kind, bytes) in [("current", census.held), ("max", census.held_most)] {
        system.text("<system type=\"").text(kind);
        system.text("\" size=\"").decimal(bytes).text("\"/>\n");
    }
    let mut space = Line::new();
    for kind in ["total", "mprotect"] {
        space.text("<aspace type=\"").text(kind);
        space.text("\" size=\"").decimal(census.held).text("\"/>\n");
    }
    write(&line) && write(&system) && write(&space)
}

fn total(line: &mut Line, kind: &str, count: usize, bytes: usize) {
    line.text("<total type=\"").text(kind);
    line.text("\" count=\"").decimal(count);
    line.text("\" size=\"").decimal(bytes).text("\"/>\n");
}

/// malloc_stats(3): a few lines on standard error, by write(2).
pub fn malloc_stats() {
    let thread = local();
    let (census, now) = (
        stats::census(&GLOBAL, thread),
        stats::stats(&GLOBAL, thread),
    );
    let rows = [
        ("system bytes     = ", census.held + census.large_bytes),
        ("in use bytes     = ", census.live + census.large_bytes),
        ("max in use bytes = ", census.peak),
        ("mmap regions     = ", census.large),
        ("mmap bytes       = ", census.large_bytes),
        ("idle in slots    = ", now.idle_slots),
        ("idle in spans    = ", now.idle_spans),
        ("idle in pages    = ", now.idle_pages),
        ("idle in mmaps    = ", now.idle_large),
        ("holes            = ", now.holes),
        ("quarantine       = ", now.quarantine),
        ("metadata         = ", now.metadata),
    ];
    for (name, figure) in rows {
        let mut line = Line::new();
        line.text(name).decimal(figure).text("\n");
        // What cannot be written is lost.
        calls::write(libc::STDERR_FILENO, line.bytes());
    }
}

/// glibc's parameters of mallopt(3).
mod parameter {
    use core::ffi::c_int;

    pub const MXFAST: c_int = 1;
    pub const NLBLKS: c_int = 2;
    pub const GRAIN: c_int = 3;
    pub const KEEP: c_int = 4;
    pub const TRIM_THRESHOLD: c_int = -1;
    pub const TOP_PAD: c_int = -2;
    pub const MMAP_THRESHOLD: c_int = -3;
    pub const MMAP_MAX: c_int = -4;
    pub const CHECK_ACTION: c_int = -5;
    pub const PERTURB: c_int = -6;
    pub const ARENA_TEST: c_int = -7;
    pub const ARENA_MAX: c_int = -8;
    /// What glibc allows for M_MXFAST and M_MMAP_THRESHOLD at the most.
    pub const MXFAST_MOST: c_int = 20 * core::mem::size_of::<usize>() as c_int;
    pub const MMAP_MOST: c_int = 4 * 1024 * 1024 * core::mem::size_of::<usize>() as c_int;
}

/// mallopt(3): 1, or 0 where there is no such parameter or it cannot have that value. M_TRIM_THRESHOLD is
/// honoured: bytes, 0 for all, -1 never but when asked. The others have nothing here to set, and are
/// accepted with the values that the manual allows.
pub fn mallopt(parameter: c_int, value: c_int) -> c_int {
    use parameter::*;
    match parameter {
        TRIM_THRESHOLD => {
            // The options are read at the start, and this has the last word.
            GLOBAL.prepare(local());
            let pages = usize::try_from(value).map_or(usize::MAX, |bytes| pages_for(bytes).max(1));
            GLOBAL.backend.pages.set_trim_threshold(pages);
            1
        }
        MXFAST => c_int::from((0..=MXFAST_MOST).contains(&value)),
        MMAP_THRESHOLD => c_int::from((0..=MMAP_MOST).contains(&value)),
        ARENA_TEST | ARENA_MAX => c_int::from(value > 0),
        TOP_PAD | MMAP_MAX | CHECK_ACTION | PERTURB | NLBLKS | GRAIN | KEEP => 1,
        _ => {
            set_errno(libc::EINVAL);
            0
        }
    }
}
