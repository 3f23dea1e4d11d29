//! C++'s operators new and delete.
//!
//! ```text
//!   operator new ---> a block? ---> return it
//!        ^                `--none--> the new_handler, if there is one; else throw std::bad_alloc
//!        `------- it returned -------'
//! ```
//!
//! The loop is assembly (`throwing_new`), so that the handler may throw as well. Deleting needs nothing of
//! C++: those are C's free, with or without a size.

use crate::life::GLOBAL;
use crate::os::calls;
use crate::os::cxx::{self, Step};
use crate::tls::{current, local};
use core::ffi::c_void;
use core::ptr;

/// A block for operator new; null where memory has run out.
pub extern "C" fn new_block(size: usize) -> *mut u8 {
    GLOBAL.malloc(current(), size)
}

/// A block for operator new with an alignment; null where memory has run out.
pub extern "C" fn new_aligned_block(size: usize, align: usize) -> *mut u8 {
    match align.checked_next_power_of_two() {
        Some(align) => GLOBAL.aligned(local(), size, align),
        None => ptr::null_mut(),
    }
}

/// What operator new calls where memory has run out, before it tries again: the new_handler, or what
/// throws std::bad_alloc, or what ends a program that has no C++ runtime.
pub extern "C" fn out_of_memory() -> Step {
    cxx::new_handler()
        .or_else(cxx::throw_bad_alloc)
        .unwrap_or(end)
}

unsafe extern "C" fn end() {
    let text =
        b"slabside: operator new: out of memory, and no C++ runtime to throw std::bad_alloc\n";
    calls::write(libc::STDERR_FILENO, text);
    // SAFETY: the end.
    unsafe { libc::abort() }
}

/// `operator new(std::size_t, const std::nothrow_t &)`. Where there is a new_handler, which may throw, the
/// runtime's own form runs it by way of our throwing one: it can catch.
///
/// # Safety
/// `tag` is such a reference.
pub unsafe fn new_nothrow(size: usize, tag: *const c_void) -> *mut u8 {
    let block = new_block(size);
    if !block.is_null() || cxx::new_handler().is_none() {
        return block;
    }
    match cxx::nothrow_new() {
        // SAFETY: the runtime's function, with its own arguments.
        Some(new) => unsafe { new(size, tag) },
        None => block,
    }
}

/// `operator new(std::size_t, std::align_val_t, const std::nothrow_t &)`.
///
/// # Safety
/// As [`new_nothrow`].
pub unsafe fn new_aligned_nothrow(size: usize, align: usize, tag: *const c_void) -> *mut u8 {
    let block = new_aligned_block(size, align);
    if !block.is_null() || cxx::new_handler().is_none() {
        return block;
    }
    match cxx::aligned_nothrow_new() {
        // SAFETY: as above.
        Some(new) => unsafe { new(size, align, tag) },
        None => block,
    }
}

/// `operator delete(void *, const std::nothrow_t &)`.
///
/// # Safety
/// As free.
#[inline(always)]
pub unsafe fn delete_nothrow(block: *mut u8, _tag: *const c_void) {
    GLOBAL.free(current(), block);
}

/// `operator delete(void *, std::align_val_t)`.
///
/// # Safety
/// As free.
#[inline(always)]
pub unsafe fn delete_aligned(block: *mut u8, _align: usize) {
    GLOBAL.free(current(), block);
}

/// `operator delete(void *, std::align_val_t, const std::nothrow_t &)`.
///
/// # Safety
/// As free.
#[inline(always)]
pub unsafe fn delete_aligned_nothrow(block: *mut u8, _align: usize, _tag: *const c_void) {
    GLOBAL.free(current(), block);
}

/// `operator delete(void *, std::size_t, std::align_val_t)`.
///
/// # Safety
/// As free_aligned_sized.
pub unsafe fn delete_sized_aligned(block: *mut u8, size: usize, align: usize) {
    GLOBAL.free_sized_aligned(local(), block, size, align);
}
