//! The system's malloc: the functions that glibc's manual lists for a replacement ("Replacing malloc"),
//! without prefix.
//!
//! Each is a name for a function of `slabside::api`; see there for errors and rules.
#![no_std]

use core::ffi::{c_int, c_void};
use slabside::{api, life};

/// malloc(3).
#[no_mangle]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    api::malloc(size).cast()
}

/// calloc(3).
#[no_mangle]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    api::calloc(count, size).cast()
}

/// free(3).
///
/// # Safety
/// Nobody uses the block afterwards.
#[no_mangle]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the caller's.
    unsafe { api::free(block.cast()) }
}

/// realloc(3).
///
/// # Safety
/// Nobody uses the old address afterwards.
#[no_mangle]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { api::realloc(block.cast(), size).cast() }
}

/// reallocarray(3).
///
/// # Safety
/// Nobody uses the old address afterwards.
#[no_mangle]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { api::reallocarray(block.cast(), count, size).cast() }
}

/// aligned_alloc(3).
#[no_mangle]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    api::aligned_alloc(align, size).cast()
}

/// memalign(3).
#[no_mangle]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    api::memalign(align, size).cast()
}

/// posix_memalign(3).
///
/// # Safety
/// `block` is a place to write a pointer to.
#[no_mangle]
pub unsafe extern "C" fn posix_memalign(
    block: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { api::posix_memalign(block.cast(), align, size) }
}

/// valloc(3).
#[no_mangle]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    api::valloc(size).cast()
}

/// pvalloc(3).
#[no_mangle]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    api::pvalloc(size).cast()
}

/// malloc_usable_size(3).
///
/// # Safety
/// The block is not freed meanwhile.
#[no_mangle]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's.
    unsafe { api::usable_size(block.cast()) }
}

/// Runs after the program's own destructors: the figures for `slabside run --stats`.
extern "C" fn finish() {
    life::finish();
}

/// Runs before the program's own constructors: a fork finds the hooks in place.
extern "C" fn prepare() {
    // SAFETY: the name is a string; looking a symbol up changes nothing.
    let named = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) };
    let ours = malloc as extern "C" fn(usize) -> *mut c_void as *mut c_void;
    api::prepare((named == ours).then_some(api::SoleMalloc));
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
    let text = b"slabside: internal error\n";
    // SAFETY: write(2) of a constant, and the end.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::abort()
    }
}
