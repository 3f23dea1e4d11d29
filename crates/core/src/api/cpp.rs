//! C++'s operators new and delete.
//!
//! ```text
//!   operator new ---> a block? ---> return it
//!        ^                `--none--> the new_handler, if there is one; else throw std::bad_alloc
//!        `------- it returned -------'
//! ```
//!
//! The loop is assembly (`throwing_new`), so that the handler may throw as well. Deleting needs nothing of C++: those
//! functions are C's free, with or without a size. C++ says that some forms end in others. They do so if a program has
//! replaced those others (`forms`).

use super::forms::Basic;
use crate::os::calls;
use crate::os::cxx::{self, Step};
use crate::process::GLOBAL;
use crate::sized_free::Said;
use crate::tls::{current, local};
use core::ffi::{c_void, CStr};
use core::mem::transmute;
use core::ptr;

/// A block for operator new. Null if memory has run out.
pub extern "C" fn new_block(size: usize) -> *mut u8 {
    GLOBAL.malloc(current(), size)
}

/// A block for operator new with an alignment. Null if memory has run out.
pub extern "C" fn new_aligned_block(size: usize, align: usize) -> *mut u8 {
    match align.checked_next_power_of_two() {
        Some(align) => GLOBAL.aligned(local(), size, align),
        None => ptr::null_mut(),
    }
}

/// What operator new calls if memory has run out, before it tries again. That is the new_handler, the function that
/// throws std::bad_alloc, or one that ends a program without a C++ runtime.
pub extern "C" fn out_of_memory() -> Step {
    cxx::new_handler()
        .or_else(cxx::throw_bad_alloc)
        .unwrap_or(end)
}

unsafe extern "C" fn end() {
    let text =
        b"slabside: operator new: out of memory, and no C++ runtime to throw std::bad_alloc\n";
    calls::write(libc::STDERR_FILENO, text);
    // SAFETY: abort(3) may be called at any time, and does not return.
    unsafe { libc::abort() }
}

/// The program's own basic form without an alignment: of new, and of delete.
type New = unsafe extern "C" fn(usize) -> *mut u8;
type Delete = unsafe extern "C" fn(*mut u8);
/// The same with an alignment.
type AlignedNew = unsafe extern "C" fn(usize, usize) -> *mut u8;
type AlignedDelete = unsafe extern "C" fn(*mut u8, usize);

/// `operator new(std::size_t, const std::nothrow_t &)`. Where there is a new_handler, which may throw, the
/// runtime's own form runs it by way of our throwing one: it can catch. So it does with a throwing one of the
/// program's.
///
/// # Safety
/// `tag` is such a reference.
#[inline(always)]
pub unsafe fn new_nothrow(
    size: usize,
    tag: *const c_void,
    basic: Basic<impl Fn() -> Option<usize>>,
) -> *mut u8 {
    if basic.is_ours(size) {
        if let Some(slot) = GLOBAL.take_cached_slot(current(), size) {
            return slot;
        }
    }
    // SAFETY: the caller passes a `std::nothrow_t` by reference.
    unsafe { new_nothrow_slow(size, tag, basic, c"_ZnwmRKSt9nothrow_t") }
}

/// `operator new[](std::size_t, const std::nothrow_t &)`.
///
/// # Safety
/// As [`new_nothrow`].
#[inline(always)]
pub unsafe fn new_array_nothrow(
    size: usize,
    tag: *const c_void,
    basic: Basic<impl Fn() -> Option<usize>>,
) -> *mut u8 {
    if basic.is_ours(size) {
        if let Some(slot) = GLOBAL.take_cached_slot(current(), size) {
            return slot;
        }
    }
    // SAFETY: the caller passes a `std::nothrow_t` by reference.
    unsafe { new_nothrow_slow(size, tag, basic, c"_ZnamRKSt9nothrow_t") }
}

/// By way of the runtime's form of this `name`, where ours has no block or the program a form of its own.
#[cold]
#[inline(never)]
unsafe fn new_nothrow_slow(
    size: usize,
    tag: *const c_void,
    basic: Basic<impl Fn() -> Option<usize>>,
    name: &CStr,
) -> *mut u8 {
    let theirs = basic.theirs();
    if theirs.is_none() {
        let block = new_block(size);
        if !block.is_null() || cxx::new_handler().is_none() {
            return block;
        }
    }
    match (cxx::nothrow_new(name), theirs) {
        // SAFETY: the runtime's function, with its own arguments.
        (Some(new), _) => unsafe { new(size, tag) },
        // SAFETY: `theirs` is the program's `operator new(size_t)`, and takes any size.
        (None, Some(new)) => unsafe { transmute::<usize, New>(new)(size) },
        (None, None) => ptr::null_mut(),
    }
}

/// `operator new(std::size_t, std::align_val_t, const std::nothrow_t &)`.
///
/// # Safety
/// As [`new_nothrow`].
pub unsafe fn new_aligned_nothrow(
    size: usize,
    align: usize,
    tag: *const c_void,
    basic: Basic<impl Fn() -> Option<usize>>,
) -> *mut u8 {
    let name = c"_ZnwmSt11align_val_tRKSt9nothrow_t";
    // SAFETY: the caller passes a `std::nothrow_t` by reference.
    unsafe { new_aligned_nothrow_by(size, align, tag, basic.theirs(), name) }
}

/// `operator new[](std::size_t, std::align_val_t, const std::nothrow_t &)`.
///
/// # Safety
/// As [`new_nothrow`].
pub unsafe fn new_array_aligned_nothrow(
    size: usize,
    align: usize,
    tag: *const c_void,
    basic: Basic<impl Fn() -> Option<usize>>,
) -> *mut u8 {
    let name = c"_ZnamSt11align_val_tRKSt9nothrow_t";
    // SAFETY: the caller passes a `std::nothrow_t` by reference.
    unsafe { new_aligned_nothrow_by(size, align, tag, basic.theirs(), name) }
}

unsafe fn new_aligned_nothrow_by(
    size: usize,
    align: usize,
    tag: *const c_void,
    theirs: Option<usize>,
    name: &CStr,
) -> *mut u8 {
    if theirs.is_none() {
        let block = new_aligned_block(size, align);
        if !block.is_null() || cxx::new_handler().is_none() {
            return block;
        }
    }
    match (cxx::aligned_nothrow_new(name), theirs) {
        // SAFETY: the runtime's function, with its own arguments.
        (Some(new), _) => unsafe { new(size, align, tag) },
        // SAFETY: `theirs` is the program's `operator new(size_t, align_val_t)`, and the caller vouches for
        // `align`.
        (None, Some(new)) => unsafe { transmute::<usize, AlignedNew>(new)(size, align) },
        (None, None) => ptr::null_mut(),
    }
}

/// `operator delete(void *, std::size_t)` and `operator delete[](void *, std::size_t)`: the compiler says the
/// size, as it knows it (see the option `sizes`).
///
/// # Safety
/// As C's free: `block` is null, or nobody uses it any more.
#[inline(always)]
pub unsafe fn delete_sized(block: *mut u8, size: usize, basic: Basic<impl Fn() -> Option<usize>>) {
    if basic.is_ours(size) {
        return GLOBAL.free_sized(current(), block, size, Said::ByDelete);
    }
    // SAFETY: the caller passes a block that `new` returned, or null, and gives it up.
    unsafe { delete_sized_slow(block, size, basic) }
}

#[cold]
#[inline(never)]
unsafe fn delete_sized_slow(block: *mut u8, size: usize, basic: Basic<impl Fn() -> Option<usize>>) {
    match basic.theirs() {
        // SAFETY: the program's own operator delete, and the caller's block.
        Some(delete) => unsafe { transmute::<usize, Delete>(delete)(block) },
        None => GLOBAL.free_sized_aligned(local(), block, size, 1, Said::ByDelete),
    }
}

/// `operator delete(void *, std::align_val_t)`.
///
/// # Safety
/// As C's free: `block` is null, or nobody uses it any more.
#[inline(always)]
pub unsafe fn delete_aligned(block: *mut u8, _align: usize) {
    GLOBAL.free(current(), block);
}

/// `operator delete(void *, std::size_t, std::align_val_t)` and `operator delete[]` of these.
///
/// # Safety
/// As free_aligned_sized.
pub unsafe fn delete_sized_aligned(
    block: *mut u8,
    size: usize,
    align: usize,
    basic: Basic<impl Fn() -> Option<usize>>,
) {
    match basic.theirs() {
        // SAFETY: the program's own operator delete, and the caller's block.
        Some(delete) => unsafe { transmute::<usize, AlignedDelete>(delete)(block, align) },
        None => GLOBAL.free_sized_aligned(local(), block, size, align, Said::ByDelete),
    }
}
