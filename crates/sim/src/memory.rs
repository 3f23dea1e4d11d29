//! The window as a mapping of the host's, closed at first.

use super::WINDOW_ALIGN;
use core::ptr::{self, NonNull};

pub const DEFAULT_BYTES: usize = 256 << 20;

const CLOSED: libc::c_int = libc::PROT_NONE;
const ANONYMOUS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

#[derive(Debug)]
pub struct Memory {
    whole: NonNull<u8>,
    whole_bytes: usize,
    base: NonNull<u8>,
}

// SAFETY: the pointers name a mapping that is this value's alone. Nothing is tied to a thread.
unsafe impl Send for Memory {}

/// The host's page size in bytes.
pub fn host_page() -> usize {
    // SAFETY: sysconf(3) reads no memory of the caller.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

impl Memory {
    pub fn new(bytes: usize) -> Memory {
        let whole_bytes = bytes + WINDOW_ALIGN;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nobody's memory.
        let whole = unsafe { libc::mmap(ptr::null_mut(), whole_bytes, CLOSED, ANONYMOUS, -1, 0) };
        assert!(
            whole != libc::MAP_FAILED,
            "sim: the host lacks {whole_bytes:#x} bytes"
        );
        let whole = NonNull::new(whole.cast::<u8>()).expect("the host maps nothing at 0");
        // SAFETY: less than WINDOW_ALIGN, which the mapping exceeds.
        let base = unsafe { whole.add(whole.as_ptr().align_offset(WINDOW_ALIGN)) };
        Memory {
            whole,
            whole_bytes,
            base,
        }
    }

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
    /// The range lies in the window.
    pub unsafe fn open(&self, offset: usize, bytes: usize) {
        let open = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the caller guarantees a range of the window, which is our own mapping.
        let result = unsafe { libc::mprotect(self.at(offset).as_ptr().cast(), bytes, open) };
        assert!(result == 0, "sim: the host cannot open {bytes:#x} bytes");
    }

    /// Closes a range and forgets what it held.
    ///
    /// # Safety
    /// The range lies in the window and nobody uses it.
    pub unsafe fn close(&self, offset: usize, bytes: usize) {
        let start = self.at(offset).as_ptr().cast();
        // SAFETY: replaces a part of our own mapping by closed fresh pages.
        let got = unsafe { libc::mmap(start, bytes, CLOSED, ANONYMOUS | libc::MAP_FIXED, -1, 0) };
        assert!(got == start, "sim: the host cannot close {bytes:#x} bytes");
    }

    /// Makes an open range read as zero.
    ///
    /// # Safety
    /// The range lies in the window and what it holds is dead.
    pub unsafe fn discard(&self, offset: usize, bytes: usize) {
        let start = self.at(offset).as_ptr().cast();
        // SAFETY: our own mapping, private and anonymous: dropped pages read as zero.
        let result = unsafe { libc::madvise(start, bytes, libc::MADV_DONTNEED) };
        assert!(result == 0, "sim: the host cannot discard {bytes:#x} bytes");
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the whole of our own mapping, which ends with the Sim.
        unsafe { libc::munmap(self.whole.as_ptr().cast(), self.whole_bytes) };
    }
}
