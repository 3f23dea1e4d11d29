//! What is asked of the dynamic loader: the next malloc, and that our own code stays loaded.
//!
//! Its functions are referred to weakly, so that a static program links without them: it has no next malloc,
//! and nothing that could be unloaded.

use crate::sync::{AtomicUsize, Ordering::Relaxed};
use core::ffi::{c_char, c_int, c_void, CStr};
use core::mem::{transmute, MaybeUninit};

/// The functions of the next malloc.
#[derive(Clone, Copy)]
pub struct NextMalloc {
    /// free(3).
    pub free: unsafe extern "C" fn(*mut c_void),
    /// realloc(3).
    pub realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    /// malloc_usable_size(3).
    pub usable_size: unsafe extern "C" fn(*mut c_void) -> usize,
}

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
type Dlopen = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
type Dladdr = unsafe extern "C" fn(*const c_void, *mut libc::Dl_info) -> c_int;

/// The address of a symbol, 0 where nobody defines it: read from the global offset table.
#[cfg(all(target_arch = "x86_64", not(miri)))]
macro_rules! weak {
    ($name:literal) => {{
        let address: usize;
        // SAFETY: reads the symbol's entry of the table, which is 0 for a missing weak one.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("mov {address}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                address = out(reg) address,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        address
    }};
}

/// The address of a symbol, 0 where nobody defines it: read from the global offset table.
#[cfg(all(target_arch = "aarch64", not(miri)))]
macro_rules! weak {
    ($name:literal) => {{
        let address: usize;
        // SAFETY: reads the symbol's entry of the table, which is 0 for a missing weak one.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("adrp {address}, :got:", $name),
                concat!("ldr {address}, [{address}, :got_lo12:", $name, "]"),
                address = out(reg) address,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        address
    }};
}

/// No way to ask on this machine.
#[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), miri))]
macro_rules! weak {
    ($name:literal) => {
        0usize
    };
}

/// What dlsym(3) finds for `name` from `place` on. 0 means nothing.
fn look_up(place: *mut c_void, name: &CStr) -> usize {
    let address = weak!("dlsym");
    if address == 0 {
        return 0;
    }
    // SAFETY: the address of dlsym, which has this type. The name is a string.
    unsafe { transmute::<usize, Dlsym>(address)(place, name.as_ptr()) as usize }
}

/// What `name` stands for in the process at large. Null means nothing, or the program is static and cannot say.
pub fn symbol(name: &CStr) -> *mut c_void {
    look_up(libc::RTLD_DEFAULT, name) as *mut c_void
}

/// What `name` stands for after us in the order of search. Null means nothing. May allocate.
pub fn next_symbol(name: &CStr) -> *mut c_void {
    look_up(libc::RTLD_NEXT, name) as *mut c_void
}

/// What `name` stands for in the C++ runtime: after us in the order of search, or in a runtime that was opened for one
/// library alone (an interpreter that opens an extension). 0 means nothing. May allocate.
pub(super) fn look_up_in_runtime(name: &CStr) -> usize {
    let next = look_up(libc::RTLD_NEXT, name);
    // By name, as below.
    let dlopen = look_up(libc::RTLD_DEFAULT, c"dlopen");
    if next != 0 || dlopen == 0 {
        return next;
    }
    for library in [c"libstdc++.so.6", c"libc++.so.1"] {
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
        // SAFETY: a function of this name has this type (dlopen(3)). The library is there already, or not at all. The
        // handle is kept for good.
        let handle = unsafe { transmute::<usize, Dlopen>(dlopen)(library.as_ptr(), flags) };
        let found = if handle.is_null() {
            0
        } else {
            look_up(handle, name)
        };
        if found != 0 {
            return found;
        }
    }
    0
}

/// The next malloc, if there is a whole one. May allocate at its first call: no lock is to be held.
pub fn next_malloc() -> Option<NextMalloc> {
    #[link_section = ".data"]
    static FOUND: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    let names = [c"free", c"realloc", c"malloc_usable_size"];
    for (place, name) in FOUND.iter().zip(names) {
        if place.load(Relaxed) == 0 {
            place.store(look_up(libc::RTLD_NEXT, name), Relaxed);
        }
    }
    let [free, realloc, usable_size] = FOUND.each_ref().map(|place| place.load(Relaxed));
    if free == 0 || realloc == 0 || usable_size == 0 {
        return None;
    }
    // SAFETY: functions of these names have these types (malloc(3), malloc_usable_size(3)).
    unsafe {
        Some(NextMalloc {
            free: transmute::<usize, unsafe extern "C" fn(*mut c_void)>(free),
            realloc: transmute::<usize, unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void>(
                realloc,
            ),
            usable_size: transmute::<usize, unsafe extern "C" fn(*mut c_void) -> usize>(
                usable_size,
            ),
        })
    }
}

/// Whether libc knows of no second thread, and of none that has ended. `None` if it does not tell
/// (`__libc_single_threaded`, glibc 2.32).
pub fn is_single_threaded() -> Option<bool> {
    let flag = weak!("__libc_single_threaded") as *const u8;
    // SAFETY: a variable of libc's of one byte, which only libc changes.
    (!flag.is_null()).then(|| unsafe { flag.read_volatile() } != 0)
}

/// An entry of an object's dynamic section (elf(5)).
#[repr(C)]
struct Dynamic {
    tag: isize,
    value: usize,
}

const DT_NULL: isize = 0;
/// Only programs have it.
const DT_DEBUG: isize = 21;
const DT_FLAGS_1: isize = 0x6fff_fffb;
const DF_1_NODELETE: usize = 8;
const DF_1_PIE: usize = 0x0800_0000;

/// Whether the object that this code is part of can be unloaded: no program, and no library that was linked
/// with `-z nodelete`.
fn is_unloadable() -> bool {
    let mut entry = weak!("_DYNAMIC") as *const Dynamic;
    if entry.is_null() {
        return false;
    }
    loop {
        // SAFETY: our own dynamic section, which ends with DT_NULL.
        let Dynamic { tag, value } = unsafe { entry.read() };
        match tag {
            DT_NULL => return true,
            DT_DEBUG => return false,
            DT_FLAGS_1 if value & (DF_1_NODELETE | DF_1_PIE) != 0 => return false,
            _ => {}
        }
        // SAFETY: the dynamic section ends with a tag of zero, and this entry was another one.
        entry = unsafe { entry.add(1) };
    }
}

/// Keeps the object of which this code is part loaded. Threads still run its exit hook, and forks its handlers, after a
/// program has closed it. May allocate: no lock is to be held.
pub fn stay_loaded() {
    if !is_unloadable() {
        return;
    }
    // By name, since the linker warns of every static program that refers to dlopen, even weakly.
    let dladdr = look_up(libc::RTLD_DEFAULT, c"dladdr");
    let dlopen = look_up(libc::RTLD_DEFAULT, c"dlopen");
    if dladdr == 0 || dlopen == 0 {
        return;
    }
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let here = stay_loaded as fn() as *const c_void;
    let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: functions of these names have these types (dladdr(3), dlopen(3)). `info` is a place to write to, and
    // holds the object's name where dladdr says so. The handle is kept for good.
    unsafe {
        if transmute::<usize, Dladdr>(dladdr)(here, info.as_mut_ptr()) != 0 {
            transmute::<usize, Dlopen>(dlopen)(info.assume_init().dli_fname, flags);
        }
    }
}

/// Whether `address` lies in the object that this code is part of: the preload library, or a whole static program. True
/// if that is not known.
pub fn is_own_code(address: usize) -> bool {
    let start = weak!("__ehdr_start");
    if start == 0 {
        return true;
    }
    // SAFETY: the linker's name of the object's own header, whose program headers are mapped with it.
    let headers = unsafe {
        let header = &*(start as *const libc::Elf64_Ehdr);
        let table = (start + header.e_phoff as usize) as *const libc::Elf64_Phdr;
        core::slice::from_raw_parts(table, usize::from(header.e_phnum))
    };
    let loaded = || headers.iter().filter(|part| part.p_type == libc::PT_LOAD);
    // The header is what the first part begins with, wherever that was loaded.
    let moved = loaded().map(|part| part.p_vaddr as usize).min();
    let moved = start.wrapping_sub(moved.unwrap_or(start));
    loaded().any(|part| {
        let first = moved.wrapping_add(part.p_vaddr as usize);
        address.wrapping_sub(first) < part.p_memsz as usize
    })
}
