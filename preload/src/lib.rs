//! The system's malloc: the functions that glibc's manual lists for a replacement ("Replacing malloc"),
//! C++'s operators, and slabside's own functions beside them.
//!
//! Which they are is stated in `slabside::api::table`.
#![no_std]

use core::ffi::c_void;
use slabside::api::table::types::*;
use slabside::{api, life, os};

slabside::c_interface!(plain);

// What pthread_atfork(3) names the library by: it is linked without the start files that have it, but for a static
// program, which has its own.
core::arch::global_asm!(
    ".pushsection .data.rel.ro.__dso_handle,\"aw\"",
    ".balign 8",
    ".weak __dso_handle",
    ".hidden __dso_handle",
    "__dso_handle: .quad __dso_handle",
    ".popsection",
);

/// Runs after the program's own destructors: the figures for `slabside run --stats`.
extern "C" fn finish() {
    life::finish();
}

/// Runs before the program's own constructors: a fork finds the hooks in place.
extern "C" fn prepare() {
    let named = os::symbol(c"malloc");
    let ours = malloc as unsafe extern "C" fn(usize) -> *mut u8 as *mut c_void;
    // A static program cannot say what a name stands for: it was linked with us.
    let sole = named == ours || named.is_null();
    api::prepare(sole.then_some(api::SoleMalloc));
}

#[used]
#[link_section = ".init_array"]
static PREPARE: extern "C" fn() = prepare;

#[used]
#[link_section = ".fini_array"]
static FINISH: extern "C" fn() = finish;

/// A bug in the allocator itself: there is nobody to unwind to.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    os::calls::write(libc::STDERR_FILENO, b"slabside: internal error\n");
    // SAFETY: the end.
    unsafe { libc::abort() }
}
