//! One allocated block, used as a program would: written when it is made, read when it is freed.

use crate::table::Zero;
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

/// Bytes of an OS page. Blocks that are used in full touch each of theirs.
const OS_PAGE: usize = 4096;

/// A block and its size. All zero stands for none.
#[derive(Clone, Copy)]
pub struct Block {
    at: *mut u8,
    size: usize,
}

// SAFETY: null and zero are the block that is none.
unsafe impl Zero for Block {}
// SAFETY: a block is owned by whoever holds it. Threads hand them on whole.
unsafe impl Send for Block {}
// SAFETY: nothing can be done with a shared reference to a block.
unsafe impl Sync for Block {}

/// The layout of every request: eight bytes at least, which all allocators align by themselves.
#[inline]
fn layout(size: usize) -> Layout {
    // SAFETY: 8 is a power of two, and no workload asks for a size near isize::MAX.
    unsafe { Layout::from_size_align_unchecked(size, 8) }
}

impl Block {
    /// No block.
    pub const NONE: Block = Block {
        at: std::ptr::null_mut(),
        size: 0,
    };

    /// Allocates `size` bytes, eight at least, and writes the first eight.
    #[inline]
    pub fn new<A: GlobalAlloc>(allocator: &A, size: usize) -> Self {
        // SAFETY: every workload asks for at least one byte, so the layout is not empty.
        let at = black_box(unsafe { allocator.alloc(layout(size)) });
        Block { at, size }.mark()
    }

    /// Allocates `size` bytes of zero, eight at least.
    #[inline]
    pub fn zeroed<A: GlobalAlloc>(allocator: &A, size: usize) -> Self {
        // SAFETY: every workload asks for at least one byte, so the layout is not empty.
        let at = black_box(unsafe { allocator.alloc_zeroed(layout(size)) });
        assert!(!at.is_null(), "out of memory");
        Block { at, size }
    }

    /// Writes the size into the block's first eight bytes.
    #[inline]
    pub fn mark(self) -> Self {
        assert!(!self.at.is_null(), "out of memory");
        // SAFETY: the block has eight bytes at least.
        unsafe { self.at.cast::<u64>().write(self.size as u64) };
        self
    }

    /// Frees the block, if there is one, and returns its first eight bytes.
    #[inline]
    pub fn free<A: GlobalAlloc>(self, allocator: &A) -> u64 {
        if self.at.is_null() {
            return 0;
        }
        // SAFETY: the block came from this allocator, has eight bytes at least and is freed once: whoever
        // calls gives up the only copy in use.
        unsafe {
            let mark = self.at.cast::<u64>().read();
            allocator.dealloc(black_box(self.at), layout(self.size));
            mark
        }
    }

    /// Resizes the block and writes every byte by which it grew.
    #[inline]
    pub fn grow<A: GlobalAlloc>(self, allocator: &A, size: usize) -> Self {
        // SAFETY: the block came from this allocator with this size. The new size is larger, so the bytes from the old
        // size on are ours to write.
        unsafe {
            let at = black_box(allocator.realloc(self.at, layout(self.size), size));
            assert!(!at.is_null(), "out of memory");
            at.add(self.size).write_bytes(0x5a, size - self.size);
            Block { at, size }
        }
    }

    /// Writes one byte in each page of the block.
    #[inline]
    pub fn touch(self) -> Self {
        for offset in (8..self.size).step_by(OS_PAGE) {
            // SAFETY: the caller holds the live block, and the offset lies inside it.
            unsafe { self.at.add(offset).write_volatile(1) };
        }
        self
    }

    /// Sum of one byte a page, which is zero in a fresh zeroed block.
    #[inline]
    pub fn sample(self) -> u64 {
        let byte = |offset| {
            // SAFETY: the caller holds the live block, and the offset lies inside it.
            unsafe { self.at.add(offset).read_volatile() as u64 }
        };
        (0..self.size).step_by(OS_PAGE).map(byte).sum()
    }

    /// The block's size in bytes, as asked for.
    pub fn size(self) -> usize {
        self.size
    }

    /// Whether there is a block.
    pub fn exists(self) -> bool {
        !self.at.is_null()
    }
}
