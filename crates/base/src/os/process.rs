//! What the kernel laid down for the process at its start: the environment, the auxiliary vector, and the code of
//! its own that it maps (vdso(7)).
//!
//! ```text
//!   stack   | argc | argv ... 0 | environment ... 0 | auxiliary vector ... 0 | strings |
//! ```
//!
//! No function of libc's is asked, since a program may define any. What is found must hold in a constructor, in the
//! dynamic linker's own first allocation, and after the program has moved its environment, which rules out most ways:
//!
//! * In a static program glibc keeps the vector's address in `_dl_auxv`, from before the first constructor on.
//! * The dynamic linker of glibc keeps the stack's beginning in `__libc_stack_end` (in a static program it is rounded
//!   down, and may lie below). The vector is after the environment that the kernel put there. From `environ` one
//!   must not walk there: setenv(3) may have moved it to the heap. /proc may not be mounted.
//! * Elsewhere the kernel gives a copy of the vector, from Linux 6.4 on. Where it does not, the program counts as one
//!   that must not trust its environment. The kernel then shows by an error what its pages are.

use super::calls;
use crate::sync::{AtomicUsize, Ordering::Relaxed};
use core::ffi::{c_char, c_int, CStr};
use core::mem::transmute;

/// The page size, and the way to the clock, once they were asked for.
pub(super) struct Process {
    page: AtomicUsize,
    /// `clock_gettime` of the kernel's code. `NONE` means that it has none, 0 that nobody has looked.
    clock: AtomicUsize,
}

/// No address of a function.
const NONE: usize = 1;

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

/// Pages are at least that large, and a page is a multiple of it by a power of two.
const PAGE_LEAST: usize = 4096;
/// Words of the auxiliary vector that are looked at in a copy of it.
const WORDS: usize = 80;

impl Process {
    pub(super) const fn new() -> Process {
        Process {
            page: AtomicUsize::new(0),
            clock: AtomicUsize::new(0),
        }
    }

    /// Size of an OS page.
    #[inline]
    pub(super) fn page_size(&self) -> usize {
        match self.page.load(Relaxed) {
            0 => self.find_page_size(),
            page => page,
        }
    }

    #[cold]
    fn find_page_size(&self) -> usize {
        let told = auxiliary_value(libc::AT_PAGESZ as usize);
        let page = told
            .filter(|page| page.is_power_of_two())
            .unwrap_or_else(least_page);
        self.page.store(page, Relaxed);
        page
    }

    /// How many addresses a process has, by where the kernel put its stack: a power of two.
    pub(super) fn addresses(&self) -> usize {
        let on_stack = auxiliary_value(libc::AT_RANDOM as usize);
        let here = 0;
        let here = core::ptr::from_ref(&here) as usize;
        on_stack.unwrap_or(here).next_power_of_two()
    }

    /// The time, by the kernel's code in the process if it has any: no system call then.
    pub(super) fn clock(&self, clock: libc::clockid_t) -> libc::timespec {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut function = self.clock.load(Relaxed);
        if function == 0 {
            let code = auxiliary_value(libc::AT_SYSINFO_EHDR as usize);
            // SAFETY: the kernel says that its code lies there.
            function = code.map_or(NONE, |base| unsafe { vdso_clock(base) });
            self.clock.store(function, Relaxed);
        }
        let known = function != NONE && {
            // SAFETY: a function of that name has this type, and keeps to the C convention. `now` is a place.
            let ask = unsafe { transmute::<usize, ClockGettime>(function) };
            // SAFETY: the function is the vDSO's clock_gettime, as above. It writes `now` alone.
            unsafe { ask(clock, &mut now) == 0 }
        };
        if !known {
            calls::clock(clock, &mut now);
        }
        now
    }
}

/// The value of the environment variable `name`. `None` too in a program that must not trust it (set-user-id).
pub fn variable(name: &CStr) -> Option<&'static CStr> {
    if auxiliary_value(libc::AT_SECURE as usize) != Some(0) {
        return None;
    }
    let environ = weak!("environ") as *const *const *const c_char;
    // SAFETY: a variable of libc's: the environment as it is now, null where libc was not set up yet.
    let now = unsafe { environ.as_ref() }.map_or(core::ptr::null(), |environ| *environ);
    let mut entry = match now.is_null() {
        true => first_environment()?,
        false => now,
    };
    let name = name.to_bytes();
    // SAFETY: an environment is an array of strings that ends with a null pointer. Nobody changes it this early.
    unsafe {
        while let Some(text) = entry.read().as_ref() {
            let text = core::ptr::from_ref(text);
            let is_it = (0..name.len()).all(|at| *text.add(at) as u8 == name[at]);
            if is_it && *text.add(name.len()) as u8 == b'=' {
                return Some(string(text.add(name.len() + 1)));
            }
            entry = entry.add(1);
        }
    }
    None
}

/// A string, whose length is counted here and not by libc.
///
/// # Safety
/// `text` is a string that stays.
pub unsafe fn string(text: *const c_char) -> &'static CStr {
    let mut length = 0;
    // SAFETY: within the string, which ends with a zero, and has no other.
    unsafe {
        while text.add(length).read_volatile() != 0 {
            length += 1;
        }
        let bytes = core::slice::from_raw_parts(text.cast(), length + 1);
        CStr::from_bytes_with_nul_unchecked(bytes)
    }
}

/// The environment as the kernel made it, if the dynamic linker states it.
fn first_environment() -> Option<*const *const c_char> {
    let end = weak!("__libc_stack_end") as *const *const usize;
    // SAFETY: a variable of the dynamic linker's. It points to argc, behind which come as many words and a null.
    unsafe {
        let start = *end.as_ref()?;
        let count = *start.as_ref()?;
        let after = start.add(1 + count);
        (*after == 0).then(|| after.add(1).cast())
    }
}

/// The auxiliary vector itself.
fn vector() -> Option<*const [usize; 2]> {
    let known = weak!("_dl_auxv") as *const *const [usize; 2];
    // SAFETY: a variable of a static program's libc, set before its first constructor.
    if let Some(&vector) = unsafe { known.as_ref() } {
        return (!vector.is_null()).then_some(vector);
    }
    let mut entry = first_environment()?;
    // SAFETY: the environment ends with a null, and the vector lies after it.
    unsafe {
        while !entry.read().is_null() {
            entry = entry.add(1);
        }
        Some(entry.add(1).cast())
    }
}

/// The value of `kind` in the auxiliary vector.
pub(super) fn auxiliary_value(kind: usize) -> Option<usize> {
    let Some(mut entry) = vector() else {
        let mut words = [0; WORDS];
        let known = calls::auxiliary(&mut words);
        let mut entries = words[..known].chunks_exact(2);
        return entries.find(|entry| entry[0] == kind).map(|entry| entry[1]);
    };
    loop {
        // SAFETY: the vector ends with an entry of kind 0 (getauxval(3)).
        match unsafe { entry.read() } {
            [0, _] => return None,
            [found, value] if found == kind => return Some(value),
            // SAFETY: an entry of another kind than 0 is not the last one.
            _ => entry = unsafe { entry.add(1) },
        }
    }
}

/// The least power of two that the kernel takes for a page's address: madvise(2) refuses all others.
fn least_page() -> usize {
    let mut page = PAGE_LEAST;
    // SAFETY: the advice is about no bytes, so it changes nothing.
    while page < 1 << 20 && !unsafe { calls::advise(page, 0, libc::MADV_NORMAL) } {
        page *= 2;
    }
    page
}

/// The parts of an ELF file (elf(5)) that lead to a symbol.
#[repr(C)]
struct ElfHeader {
    _before: [usize; 4],
    segments: usize,
    _between: [usize; 1],
    _flags: u32,
    _header_bytes: u16,
    _segment_bytes: u16,
    segment_count: u16,
}

#[repr(C)]
struct Segment {
    kind: u32,
    _flags: u32,
    offset: usize,
    address: usize,
    _rest: [usize; 4],
}

#[repr(C)]
struct Symbol {
    name: u32,
    _kind: [u8; 2],
    section: u16,
    value: usize,
    _size: usize,
}

static_assertions::const_assert_eq!(core::mem::offset_of!(ElfHeader, segments), 32);
static_assertions::const_assert_eq!(core::mem::offset_of!(ElfHeader, segment_count), 56);
static_assertions::const_assert_eq!(core::mem::size_of::<Segment>(), 56);
static_assertions::const_assert_eq!(core::mem::size_of::<Symbol>(), 24);

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;

#[cfg(target_arch = "aarch64")]
const VDSO_CLOCK: &[u8] = b"__kernel_clock_gettime\0";
#[cfg(not(target_arch = "aarch64"))]
const VDSO_CLOCK: &[u8] = b"__vdso_clock_gettime\0";

/// `clock_gettime` in the kernel's code at `base`, or `NONE`.
///
/// # Safety
/// A whole 64-bit ELF file is mapped at `base`.
unsafe fn vdso_clock(base: usize) -> usize {
    let mut shift = None;
    let mut dynamic = 0;
    // SAFETY: the file's own tables, as elf(5) has them. The table of symbols lies right before their names.
    unsafe {
        let header = &*(base as *const ElfHeader);
        let segments = (base + header.segments) as *const Segment;
        for segment in (0..header.segment_count as usize).map(|index| &*segments.add(index)) {
            match segment.kind {
                PT_LOAD if shift.is_none() => {
                    shift = Some((base + segment.offset).wrapping_sub(segment.address))
                }
                PT_DYNAMIC => dynamic = base + segment.offset,
                _ => {}
            }
        }
        let (Some(shift), true) = (shift, dynamic != 0) else {
            return NONE;
        };
        let (mut names, mut symbols) = (0, 0);
        let mut entry = dynamic as *const [usize; 2];
        while (*entry)[0] != 0 {
            match *entry {
                [DT_STRTAB, at] => names = shift.wrapping_add(at),
                [DT_SYMTAB, at] => symbols = shift.wrapping_add(at),
                _ => {}
            }
            entry = entry.add(1);
        }
        if symbols == 0 || names <= symbols {
            return NONE;
        }
        let count = (names - symbols) / core::mem::size_of::<Symbol>();
        let symbols = symbols as *const Symbol;
        for symbol in (0..count).map(|index| &*symbols.add(index)) {
            let name = (names + symbol.name as usize) as *const u8;
            let is_it = (0..VDSO_CLOCK.len()).all(|at| *name.add(at) == VDSO_CLOCK[at]);
            if symbol.section != 0 && is_it {
                return shift.wrapping_add(symbol.value);
            }
        }
    }
    NONE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_size_is_libcs_and_found_in_both_ways() {
        // SAFETY: sysconf(3) reads no memory of the caller.
        let known = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        assert_eq!(Process::new().page_size(), known);
        assert_eq!(least_page(), known);
    }

    #[test]
    fn the_vector_is_the_one_that_libc_knows() {
        for kind in [
            libc::AT_PAGESZ,
            libc::AT_SECURE,
            libc::AT_SYSINFO_EHDR,
            libc::AT_PHDR,
        ] {
            // SAFETY: getauxval(3) reads no memory of the caller.
            let known = unsafe { libc::getauxval(kind) } as usize;
            assert_eq!(auxiliary_value(kind as usize).unwrap_or(0), known, "{kind}");
        }
    }

    #[test]
    fn the_kernels_code_tells_the_time_without_a_system_call() {
        let process = Process::new();
        let before = calls_clock();
        let now = process.clock(libc::CLOCK_MONOTONIC);
        let after = calls_clock();
        assert!(before <= nanoseconds(now) && nanoseconds(now) <= after);
        let has_code = auxiliary_value(libc::AT_SYSINFO_EHDR as usize).is_some();
        assert_eq!(process.clock.load(Relaxed) != NONE, has_code);
    }

    fn calls_clock() -> i128 {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        calls::clock(libc::CLOCK_MONOTONIC, &mut now);
        nanoseconds(now)
    }

    fn nanoseconds(time: libc::timespec) -> i128 {
        time.tv_sec as i128 * 1_000_000_000 + time.tv_nsec as i128
    }

    #[test]
    fn the_environment_is_read_as_getenv_reads_it() {
        let known = std::env::var("PATH").expect("there is one");
        let found = variable(c"PATH").expect("there is one").to_bytes();
        assert_eq!(found, known.as_bytes());
        assert_eq!(variable(c"PAT"), None);
    }
}
