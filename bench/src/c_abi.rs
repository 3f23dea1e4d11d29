//! The allocator that the program was started with: whatever `malloc` the dynamic loader found.

use std::alloc::{GlobalAlloc, Layout};

/// `malloc`, `free`, `calloc` and `realloc` as a C program calls them.
pub struct CAbi;

// SAFETY: C's functions keep the trait's contract for alignments up to 16. The workloads ask for 8.
unsafe impl GlobalAlloc for CAbi {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: malloc may be called with any size.
        unsafe { libc::malloc(layout.size()).cast() }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller owns the block, which came from malloc.
        unsafe { libc::free(block.cast()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: calloc may be called with any size.
        unsafe { libc::calloc(1, layout.size()).cast() }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, _: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller owns the block, which came from malloc.
        unsafe { libc::realloc(block.cast(), size).cast() }
    }
}
