//! slabside's prefixed C functions, declared in include/slabside.h.
//!
//! Which they are is stated in `slabside_core::api::table`.
#![no_std]

use slabside_core::api::table::types::*;

slabside_core::c_interface!(prefixed);

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
    let text = b"slabside: internal error\n";
    // SAFETY: write(2) of a constant, and the end.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::abort()
    }
}
