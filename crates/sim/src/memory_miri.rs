//! The window as one allocation, since Miri knows no page protection. A closed page is uninitialised, so that reading
//! it is undefined and Miri says so.

use super::WINDOW_ALIGN;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use slabside_base::units::PAGE;
use std::alloc::{alloc, dealloc, Layout};

pub const DEFAULT_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the pointer names an allocation that is this value's alone.
unsafe impl Send for Memory {}

/// No page size binds an allocation.
pub fn host_page() -> usize {
    PAGE
}

impl Memory {
    pub fn new(bytes: usize) -> Memory {
        let layout = Layout::from_size_align(bytes, WINDOW_ALIGN).expect("a window that fits");
        // SAFETY: `SimConfig::check` refused an empty window, so the layout is not empty.
        let base = NonNull::new(unsafe { alloc(layout) }).expect("the host lacks the memory");
        Memory { base, layout }
    }

    /// Exposes the window's provenance: the break is handed out as an integer.
    pub fn base(&self) -> usize {
        self.base.as_ptr() as usize
    }

    pub fn at(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: the caller's offset is that of a page in the window.
        unsafe { self.base.add(offset) }
    }

    /// Opens a closed range. It reads as zero.
    ///
    /// # Safety
    /// The range lies in the window and nobody uses it.
    pub unsafe fn open(&self, offset: usize, bytes: usize) {
        // SAFETY: the caller guarantees a range of the window, which is our own allocation.
        unsafe { self.at(offset).as_ptr().write_bytes(0, bytes) };
    }

    /// Closes a range and forgets what it held.
    ///
    /// # Safety
    /// The range lies in the window and nobody uses it.
    pub unsafe fn close(&self, offset: usize, bytes: usize) {
        for page in (offset..offset + bytes).step_by(PAGE) {
            // SAFETY: our own allocation. Any alignment does for bytes.
            unsafe {
                self.at(page)
                    .cast::<MaybeUninit<[u8; PAGE]>>()
                    .write(MaybeUninit::uninit())
            };
        }
    }

    /// Makes an open range read as zero.
    ///
    /// # Safety
    /// The range lies in the window and what it holds is dead.
    pub unsafe fn discard(&self, offset: usize, bytes: usize) {
        // SAFETY: the caller guarantees a range of the window whose contents are dead.
        unsafe { self.open(offset, bytes) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout. It ends with the Sim.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
