//! slabside's prefixed C functions, declared in include/slabside.h.
//!
//! Each is a name for a function of `slabside::api`; see there for errors and rules.
#![no_std]

use core::ffi::{c_char, c_int, c_void, CStr};
use core_slabside::api;
use core_slabside::inspect::Stats;

/// See include/slabside.h.
#[no_mangle]
pub extern "C" fn slabside_malloc(size: usize) -> *mut c_void {
    api::malloc(size).cast()
}

/// See include/slabside.h.
#[no_mangle]
pub extern "C" fn slabside_calloc(count: usize, size: usize) -> *mut c_void {
    api::calloc(count, size).cast()
}

/// See include/slabside.h.
///
/// # Safety
/// Nobody uses the block afterwards.
#[no_mangle]
pub unsafe extern "C" fn slabside_free(block: *mut c_void) {
    // SAFETY: the caller's.
    unsafe { api::free(block.cast()) }
}

/// See include/slabside.h.
///
/// # Safety
/// Nobody uses the old address afterwards.
#[no_mangle]
pub unsafe extern "C" fn slabside_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { api::realloc(block.cast(), size).cast() }
}

/// See include/slabside.h.
///
/// # Safety
/// Nobody uses the old address afterwards.
#[no_mangle]
pub unsafe extern "C" fn slabside_reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { api::reallocarray(block.cast(), count, size).cast() }
}

/// See include/slabside.h.
#[no_mangle]
pub extern "C" fn slabside_aligned_alloc(align: usize, size: usize) -> *mut c_void {
    api::aligned_alloc(align, size).cast()
}

/// See include/slabside.h.
///
/// # Safety
/// `block` is a place to write a pointer to.
#[no_mangle]
pub unsafe extern "C" fn slabside_posix_memalign(
    block: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { api::posix_memalign(block.cast(), align, size) }
}

/// See include/slabside.h.
///
/// # Safety
/// The block is not freed meanwhile.
#[no_mangle]
pub unsafe extern "C" fn slabside_usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's.
    unsafe { api::usable_size(block.cast()) }
}

/// See include/slabside.h.
///
/// # Safety
/// `figures` is a place to write the figures to.
#[no_mangle]
pub unsafe extern "C" fn slabside_stats(figures: *mut Stats) {
    // SAFETY: the caller's.
    unsafe { *figures = api::stats() }
}

/// See include/slabside.h.
#[no_mangle]
pub extern "C" fn slabside_validate() -> usize {
    api::validate()
}

/// See include/slabside.h.
///
/// # Safety
/// Both are strings.
#[no_mangle]
pub unsafe extern "C" fn slabside_option_set(name: *const c_char, value: *const c_char) -> c_int {
    if name.is_null() || value.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: the caller's.
    let (name, value) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(value)) };
    api::option_set(name.to_bytes(), value.to_bytes())
}

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
