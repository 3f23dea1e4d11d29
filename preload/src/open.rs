//! dlopen(3) without RTLD_DEEPBIND.
//!
//! ```text
//!   caller --call--> dlopen here --jump, flag left out--> the next dlopen
//! ```
//!
//! A plug-in that is opened with the flag looks names up in itself and its dependencies first. So it gets libc's
//! malloc, while the program that opened it has ours, and each frees blocks of the other's. Without the flag it finds
//! what everybody finds (the option `deepbind`).
//!
//! The function jumps to the next dlopen, with the caller's return address on the stack. By that address dlopen finds
//! whose search paths, `$ORIGIN` and namespace are meant.

use core::ffi::{c_int, c_long, c_void};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use slabside_base::options::{Name, DEEPBIND_KEPT};
use slabside_base::os;
use slabside_core::api;
use slabside_core::process::GLOBAL;

/// Where to jump, and by which flags: in two registers.
#[repr(C)]
struct Onward {
    function: usize,
    mode: usize,
}

/// The namespace of the program (dlmopen(3)).
const BASE: c_long = 0;

/// `void *dlopen(const char *file, int mode)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dlopen(file: *const u8, mode: c_int) -> *mut c_void {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "sub rsp, 16",
        ".cfi_adjust_cfa_offset 16",
        "mov edi, esi",
        "call {onward}",
        "add rsp, 16",
        ".cfi_adjust_cfa_offset -16",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "mov esi, edx",
        "jmp rax",
        ".cfi_endproc",
        onward = sym open_onward,
    )
}

/// `void *dlmopen(Lmid_t space, const char *file, int mode)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dlmopen(space: c_long, file: *const u8, mode: c_int) -> *mut c_void {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rsi",
        ".cfi_adjust_cfa_offset 8",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "mov esi, edx",
        "call {onward}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "jmp rax",
        ".cfi_endproc",
        onward = sym open_in_space_onward,
    )
}

extern "C" fn open_onward(mode: c_int) -> Onward {
    #[link_section = ".data"] // See `build.rs`.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    Onward {
        function: next(&NEXT, c"dlopen"),
        mode: without_deepbind(mode) as usize,
    }
}

/// Another namespace has a libc, and so a malloc, of its own: the flag changes nothing there.
extern "C" fn open_in_space_onward(space: c_long, mode: c_int) -> Onward {
    #[link_section = ".data"] // See `build.rs`.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mode = match space {
        BASE => without_deepbind(mode),
        _ => mode,
    };
    Onward {
        function: next(&NEXT, c"dlmopen"),
        mode: mode as usize,
    }
}

fn without_deepbind(mode: c_int) -> c_int {
    if mode & libc::RTLD_DEEPBIND == 0 {
        return mode;
    }
    api::prepare(None); // A library's constructor may open a plug-in before the options were read.
    match GLOBAL.backend.options.get(Name::Deepbind) {
        DEEPBIND_KEPT => mode,
        _ => mode & !libc::RTLD_DEEPBIND,
    }
}

/// The next function of this `name` after us, looked up once.
fn next(place: &AtomicUsize, name: &core::ffi::CStr) -> usize {
    if place.load(Relaxed) == 0 {
        place.store(os::next_symbol(name) as usize, Relaxed);
    }
    match place.load(Relaxed) {
        0 => nothing as extern "C" fn() -> *mut c_void as usize,
        next => next,
    }
}

/// Where there is no next function.
extern "C" fn nothing() -> *mut c_void {
    ptr::null_mut()
}
