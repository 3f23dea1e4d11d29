//! The system's malloc: the functions that glibc's manual lists for a replacement ("Replacing malloc"),
//! C++'s operators, and slabside's own functions beside them.
//!
//! Which they are is stated in `slabside_core::api::table`. `static/` makes an archive of the same file, for static programs.

use slabside_base::os;
use slabside_core::api::table::types::*;

slabside_core::replace_malloc!();

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

// Without link-time optimization a piece of Rust's core library may name the routine that unwinds through Rust's frames.
// Panics abort here, so nobody calls it.
core::arch::global_asm!(
    ".pushsection .data.rel.ro.rust_eh_personality,\"aw\"",
    ".weak rust_eh_personality",
    ".hidden rust_eh_personality",
    "rust_eh_personality: .quad 0",
    ".popsection",
);

/// A bug in the allocator itself: there is nobody to unwind to.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    os::calls::write(libc::STDERR_FILENO, b"slabside: internal error\n");
    // SAFETY: abort(3) may be called at any time, and does not return.
    unsafe { libc::abort() }
}
