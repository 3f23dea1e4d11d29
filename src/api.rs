//! The interface: the C functions' rules over the process's allocator, and `GlobalAlloc`.
//!
//! The C names themselves are exported by the thin crates `capi` (slabside_malloc ...) and `preload`
//! (malloc ...), which call these. errno is set to ENOMEM by the allocator's slow paths.

use crate::geometry::{align_up, MIN_ALIGN, PAGE};
use crate::inspect::{self, Stats};
use crate::life::GLOBAL;
use crate::options::{self, Mistake};
use crate::os::Os;
use crate::tls::{current, local};
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_int;
use core::ptr;

/// C's malloc: at least `size` bytes, aligned to 8 up to 8 bytes and to 16 above; null and ENOMEM where
/// memory has run out. `size` 0 gives a block of its own.
#[inline(always)]
pub fn malloc(size: usize) -> *mut u8 {
    GLOBAL.malloc(current(), size)
}

/// C's calloc: `count` times `size` zero bytes; null and ENOMEM where that overflows.
#[inline(always)]
pub fn calloc(count: usize, size: usize) -> *mut u8 {
    GLOBAL.calloc(local(), count, size)
}

/// C's free: null is ignored, errno is kept.
///
/// # Safety
/// Nobody uses the block afterwards. (That it is a block is checked.)
#[inline(always)]
pub unsafe fn free(block: *mut u8) {
    GLOBAL.free(current(), block);
}

/// C's realloc: at the same address where the block has room. A null block is allocated; size 0 gives a
/// block of the smallest size.
///
/// # Safety
/// As [`free`] where the block moves. (That it is a block is checked.)
#[inline(always)]
pub unsafe fn realloc(block: *mut u8, size: usize) -> *mut u8 {
    GLOBAL.realloc(local(), block, size)
}

/// reallocarray(3): [`realloc`] to `count` times `size` bytes, null and ENOMEM where that overflows.
///
/// # Safety
/// As [`realloc`].
pub unsafe fn reallocarray(block: *mut u8, count: usize, size: usize) -> *mut u8 {
    match count.checked_mul(size) {
        // SAFETY: the caller's.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => fail(libc::ENOMEM),
    }
}

/// C's aligned_alloc, and memalign(3): null and EINVAL where `align` is not a power of two.
pub fn aligned_alloc(align: usize, size: usize) -> *mut u8 {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    GLOBAL.aligned(local(), size, align)
}

/// POSIX posix_memalign: 0, or EINVAL or ENOMEM and nothing written. errno is kept.
///
/// # Safety
/// `place` is a place to write a pointer to.
pub unsafe fn posix_memalign(place: *mut *mut u8, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align % core::mem::size_of::<*mut u8>() != 0 {
        return libc::EINVAL;
    }
    let errno = errno();
    let block = GLOBAL.aligned(local(), size, align);
    set_errno(errno);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's.
    unsafe { *place = block };
    0
}

/// valloc(3): `size` bytes at a multiple of the system's page size.
pub fn valloc(size: usize) -> *mut u8 {
    aligned_alloc(os_page(), size)
}

/// pvalloc(3): as [`valloc`], with the size rounded up to whole pages.
pub fn pvalloc(size: usize) -> *mut u8 {
    match align_up(size.max(1), os_page()) {
        Some(bytes) => aligned_alloc(os_page(), bytes),
        None => fail(libc::ENOMEM),
    }
}

fn os_page() -> usize {
    GLOBAL.ground.os.page_size().max(PAGE)
}

/// malloc_usable_size(3): bytes that may be used in a live block, 0 for null.
///
/// # Safety
/// None beyond that the block is not freed meanwhile. (That it is a block is checked.)
pub unsafe fn usable_size(block: *const u8) -> usize {
    GLOBAL.usable_size(local(), block)
}

/// Gets the process ready before its first allocation; without it the first allocation does. `sole` tells
/// that no other malloc is at work in the process, so that the break is moved by slabside alone.
pub fn prepare(sole: Option<SoleMalloc>) {
    if sole.is_some() {
        GLOBAL.ground.os.be_sole_malloc();
    }
    GLOBAL.prepare(local());
}

/// Says that slabside is the process's malloc.
#[derive(Clone, Copy, Debug)]
pub struct SoleMalloc;

/// memalign(3): as [`aligned_alloc`], with `align` rounded up to a power of two, as glibc does.
pub fn memalign(align: usize, size: usize) -> *mut u8 {
    match align.max(1).checked_next_power_of_two() {
        Some(align) => aligned_alloc(align, size),
        None => fail(libc::EINVAL),
    }
}

/// The heap's figures.
pub fn stats() -> Stats {
    inspect::stats(&GLOBAL)
}

/// Walks every header, list and bitmap, while no other thread allocates or frees; the number of broken
/// invariants.
pub fn validate() -> usize {
    GLOBAL.validate()
}

/// Sets the option `name` to `value` before the first allocation: 0, EINVAL where there is no such option
/// or value, EBUSY where memory was allocated already. The environment variable still has the last word.
/// See docs/tuning.md for names and values.
pub fn option_set(name: &[u8], value: &[u8]) -> c_int {
    let mut item = [0; options::TEXT + 64];
    let length = name.len() + 1 + value.len();
    if length > item.len() || name.contains(&b':') || value.contains(&b',') {
        return libc::EINVAL;
    }
    item[..name.len()].copy_from_slice(name);
    item[name.len()] = b':';
    item[name.len() + 1..length].copy_from_slice(value);
    match GLOBAL.ground.options.set(&item[..length]) {
        Ok(()) => {
            GLOBAL.option_changed();
            0
        }
        Err(Mistake::Frozen) => libc::EBUSY,
        Err(Mistake::Unknown(_) | Mistake::Value(_)) => libc::EINVAL,
    }
}

fn fail(error: c_int) -> *mut u8 {
    set_errno(error);
    ptr::null_mut()
}

fn errno() -> c_int {
    // SAFETY: the calling thread's own errno.
    unsafe { *libc::__errno_location() }
}

fn set_errno(error: c_int) {
    // SAFETY: the calling thread's own errno.
    unsafe { *libc::__errno_location() = error };
}

/// slabside as Rust's allocator:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: slabside::Slabside = slabside::Slabside;
/// # fn main() { assert_eq!(vec![1, 2, 3].len(), 3); }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Slabside;

// SAFETY: blocks are as large and aligned as asked (see `Allocator::malloc` and `aligned`), stay where
// they are until freed, and nothing here unwinds.
unsafe impl GlobalAlloc for Slabside {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= MIN_ALIGN {
            return malloc(layout.size().max(layout.align()));
        }
        GLOBAL.aligned(local(), layout.size(), layout.align())
    }

    #[inline(always)]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        GLOBAL.free(current(), block);
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= MIN_ALIGN {
            return calloc(1, layout.size().max(layout.align()));
        }
        // SAFETY: the caller's layout.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block has that many bytes.
            unsafe { ptr::write_bytes(block, 0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= MIN_ALIGN {
            return GLOBAL.realloc(local(), block, size.max(layout.align()));
        }
        // SAFETY: the caller's layout; `size` rounded up to the alignment fits by the caller's contract.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both are live blocks apart from each other, of at least the copied bytes.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
            GLOBAL.free(current(), block);
        }
        moved
    }
}
