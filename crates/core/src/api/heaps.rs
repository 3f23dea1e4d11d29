//! First-class heaps, for C by handle.

use super::c::fail;
use crate::arena::Handle;
use crate::process::GLOBAL;
use crate::tls::local;

/// `struct slabside_heap` of C: a number in a pointer's place, which leads nowhere.
#[repr(C)]
pub struct OpaqueHeap {
    nothing: [u8; 0],
}

fn of(heap: *const OpaqueHeap) -> Handle {
    Handle(heap as usize as u64)
}

/// A new heap. Null and ENOMEM if memory has run out or there are too many.
pub fn heap_create() -> *mut OpaqueHeap {
    match GLOBAL.create_arena(local()) {
        Some(heap) => heap.0 as usize as *mut OpaqueHeap,
        None => fail(libc::ENOMEM).cast(),
    }
}

/// Destroys `heap` with all its blocks. Null is ignored.
///
/// # Safety
/// Nobody uses the heap or its blocks afterwards. (A use of the heap is found.)
pub unsafe fn heap_destroy(heap: *mut OpaqueHeap) {
    if !heap.is_null() {
        GLOBAL.destroy_arena(local(), of(heap));
    }
}

/// As malloc, from `heap`.
///
/// # Safety
/// None beyond that nobody destroys the heap meanwhile. (That it is a heap is checked.)
pub unsafe fn heap_malloc(heap: *mut OpaqueHeap, size: usize) -> *mut u8 {
    GLOBAL.aligned_in(local(), of(heap), size, 1)
}

/// As calloc, from `heap`.
///
/// # Safety
/// As [`heap_malloc`].
pub unsafe fn heap_calloc(heap: *mut OpaqueHeap, count: usize, size: usize) -> *mut u8 {
    match count.checked_mul(size) {
        Some(bytes) => GLOBAL.zeroed_in(local(), of(heap), bytes, 1),
        None => fail(libc::ENOMEM),
    }
}

/// As aligned_alloc, from `heap`.
///
/// # Safety
/// As [`heap_malloc`].
pub unsafe fn heap_aligned_alloc(heap: *mut OpaqueHeap, align: usize, size: usize) -> *mut u8 {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    GLOBAL.aligned_in(local(), of(heap), size, align)
}

/// As realloc, in `heap`: a block that is not of this heap is copied into it.
///
/// # Safety
/// As [`heap_malloc`], and nobody uses the old address afterwards.
pub unsafe fn heap_realloc(heap: *mut OpaqueHeap, block: *mut u8, size: usize) -> *mut u8 {
    GLOBAL.realloc_in(local(), of(heap), block, size, 1)
}
