//! Arrays that come straight from the kernel, so that a workload's own bookkeeping is nobody's heap.
//!
//! They are touched when made: no page fault of theirs falls into a measurement. Their bytes are counted,
//! so that reports can leave them out of a process's resident bytes.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of tables that have been mapped so far. A table that was dropped still counts, so that it can be
/// taken from a process's peak.
pub fn bytes() -> usize {
    BYTES.load(Relaxed)
}

/// Types whose all-zero bytes are a value.
///
/// # Safety
/// All-zero bytes must be a valid value of the type.
pub unsafe trait Zero: Copy {}

// SAFETY: the integer 0 has all-zero bytes, so they are a valid `u32`.
unsafe impl Zero for u32 {}
// SAFETY: the null pointer has all-zero bytes, so they are a valid `*mut T`.
unsafe impl<T> Zero for *mut T {}

/// A fixed array of `T`, at first all zero.
pub struct Table<T: Zero> {
    at: *mut T,
    len: usize,
}

// SAFETY: a table owns its entries as a box does.
unsafe impl<T: Zero> Send for Table<T> {}
// SAFETY: a shared table gives out shared entries only.
unsafe impl<T: Zero + Sync> Sync for Table<T> {}

impl<T: Zero> Table<T> {
    /// `len` entries of zero, resident. Panics where there is no memory.
    pub fn new(len: usize) -> Self {
        let bytes = (len * size_of::<T>()).max(1);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a fresh mapping touches no memory of ours.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        assert_ne!(
            at,
            libc::MAP_FAILED,
            "no memory for a table of {bytes} bytes"
        );
        BYTES.fetch_add(bytes, Relaxed);
        Table { at: at.cast(), len }
    }
}

impl<T: Zero> Deref for Table<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `new` mapped `len` entries, and zero is a value of T by the trait's contract.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl<T: Zero> DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes the entries ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl<T: Zero> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `new` mapped, and nobody borrows it any more.
        unsafe { libc::munmap(self.at.cast(), (self.len * size_of::<T>()).max(1)) };
    }
}
