//! The malloc that would be the process's if this one were not there: for blocks that came from it.
//!
//! `dlsym` is referred to weakly, so that a static program links without it and simply has no next.

use crate::sync::{AtomicUsize, Ordering::Relaxed};
use core::ffi::{c_char, c_void, CStr};
use core::mem::transmute;

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

/// The address of `dlsym`, 0 where the program has none.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn dlsym_address() -> usize {
    let address: usize;
    // SAFETY: reads the symbol's entry of the global offset table, which is 0 for a missing weak one.
    unsafe {
        core::arch::asm!(
            ".weak dlsym",
            "mov {address}, qword ptr [rip + dlsym@GOTPCREL]",
            address = out(reg) address,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    address
}

/// The address of `dlsym`, 0 where the program has none.
#[cfg(all(target_arch = "aarch64", not(miri)))]
fn dlsym_address() -> usize {
    let address: usize;
    // SAFETY: as on x86-64.
    unsafe {
        core::arch::asm!(
            ".weak dlsym",
            "adrp {address}, :got:dlsym",
            "ldr {address}, [{address}, :got_lo12:dlsym]",
            address = out(reg) address,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    address
}

/// No way to ask on this machine.
#[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), miri))]
fn dlsym_address() -> usize {
    0
}

/// What dlsym(3) finds for `name` behind our own object; 0: nothing.
fn look_up(name: &CStr) -> usize {
    let address = dlsym_address();
    if address == 0 {
        return 0;
    }
    // SAFETY: the address of dlsym, which has this type; the name is a string.
    unsafe { transmute::<usize, Dlsym>(address)(libc::RTLD_NEXT, name.as_ptr()) as usize }
}

/// The next malloc, if there is a whole one. May allocate at its first call: no lock is to be held.
pub fn next_malloc() -> Option<NextMalloc> {
    static FOUND: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    let names = [c"free", c"realloc", c"malloc_usable_size"];
    for (place, name) in FOUND.iter().zip(names) {
        if place.load(Relaxed) == 0 {
            place.store(look_up(name), Relaxed);
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
