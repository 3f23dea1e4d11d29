//! The trait `Allocator` of the crate allocator-api2, so that collections can name where they allocate.

use crate::arena::Arena;
use crate::global::Slabside;
use allocator_api2::alloc::{AllocError, Allocator, GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// An empty slice where nothing is needed, or the block as a slice of as many bytes as were asked for.
fn sized(block: Option<NonNull<u8>>, size: usize) -> Result<NonNull<[u8]>, AllocError> {
    let block = block.ok_or(AllocError)?;
    Ok(NonNull::slice_from_raw_parts(block, size))
}

fn dangling(layout: Layout) -> Option<NonNull<u8>> {
    NonNull::new(ptr::without_provenance_mut(layout.align()))
}

/// Bytes `from..to` become zero.
///
/// # Safety
/// The block has `to` bytes.
unsafe fn clear(block: NonNull<[u8]>, from: usize, to: usize) {
    // SAFETY: the caller guarantees that the block has `to` bytes, and `from` is no larger.
    unsafe { ptr::write_bytes(block.cast::<u8>().as_ptr().add(from), 0, to - from) }
}

/// Where blocks come from. `Allocator` follows from it.
trait Source {
    fn block(&self, layout: Layout) -> Option<NonNull<u8>>;
    fn zeroed(&self, layout: Layout) -> Option<NonNull<u8>>;
    /// # Safety
    /// `block` is a live block of this source at a multiple of `layout`'s alignment.
    unsafe fn resized(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>>;
}

impl Source for Slabside {
    fn block(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: layouts of no bytes do not come here.
        NonNull::new(unsafe { self.alloc(layout) })
    }

    fn zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the caller guarantees a layout of more than no bytes.
        NonNull::new(unsafe { self.alloc_zeroed(layout) })
    }

    unsafe fn resized(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller guarantees that the block is live and has this layout.
        NonNull::new(unsafe { self.realloc(block.as_ptr(), layout, size) })
    }
}

impl Source for Arena {
    fn block(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.alloc_layout(layout)
    }

    fn zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.alloc_layout_zeroed(layout)
    }

    unsafe fn resized(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        size: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller guarantees that the block is live and has this layout.
        unsafe { self.realloc(block, layout.align(), size) }
    }
}

/// Resizes a block of `old` to `new`, whose alignment may differ.
///
/// # Safety
/// `block` is a live block of `source`'s with layout `old`.
unsafe fn resize<S: Source>(
    source: &S,
    block: NonNull<u8>,
    old: Layout,
    new: Layout,
) -> Result<NonNull<[u8]>, AllocError> {
    if old.size() == 0 {
        return allocate(new, |layout| source.block(layout));
    }
    if new.size() == 0 {
        release(block, old);
        return sized(dangling(new), 0);
    }
    // SAFETY: the caller keeps this function's contract. With a larger alignment the block is moved to a multiple
    // of it.
    sized(
        unsafe { source.resized(block, new, new.size()) },
        new.size(),
    )
}

/// Nothing where nothing is needed, or what `block` gives.
fn allocate(
    layout: Layout,
    block: impl FnOnce(Layout) -> Option<NonNull<u8>>,
) -> Result<NonNull<[u8]>, AllocError> {
    let block = match layout.size() {
        0 => dangling(layout),
        _ => block(layout),
    };
    sized(block, layout.size())
}

fn release(block: NonNull<u8>, layout: Layout) {
    if layout.size() != 0 {
        // SAFETY: the callers', who own the block. Whatever heap it is of takes it back.
        unsafe { Slabside.dealloc(block.as_ptr(), layout) };
    }
}

/// A function of `Allocator` that resizes. There are two, and both are [`resize`].
macro_rules! resizing {
    ($name:ident) => {
        unsafe fn $name(
            &self,
            block: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: the caller guarantees that the block is live and has the layout `old`.
            unsafe { resize(self, block, old, new) }
        }
    };
}

macro_rules! allocator {
    ($of:ty) => {
        // SAFETY: blocks stay until they are given back or the allocator is dropped. Clones (of `Slabside`) are all
        // the same. Contents are kept as realloc keeps them.
        unsafe impl Allocator for $of {
            resizing!(grow);
            resizing!(shrink);

            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                allocate(layout, |layout| self.block(layout))
            }

            fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                allocate(layout, |layout| self.zeroed(layout))
            }

            unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
                release(block, layout);
            }

            unsafe fn grow_zeroed(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, AllocError> {
                // SAFETY: the caller guarantees a live block of the old layout, and the new block has
                // `new.size()` bytes.
                unsafe {
                    let block = self.grow(block, old, new)?;
                    clear(block, old.size(), new.size());
                    Ok(block)
                }
            }
        }
    };
}

allocator!(Slabside);
allocator!(Arena);
