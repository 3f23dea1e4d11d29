//! Pages of their own for what never changes once the process has started, which hardened mode makes read-only.
//!
//! ```text
//!   | ... what changes ... | sealed, an OS page or more | ... what changes ... |
//! ```

use crate::os::Vm;
use crate::units::{PageStart, PAGE, PAGE_START};
use core::cell::UnsafeCell;
use core::ops::Deref;
use core::ptr::NonNull;

/// A value on pages of its own.
#[repr(C, align(4096))]
pub struct ReadOnly<T> {
    _page_start: PageStart,
    value: UnsafeCell<T>,
}

static_assertions::const_assert_eq!(core::mem::align_of::<ReadOnly<u8>>(), PAGE);

// SAFETY: `set` is called before other threads read (its caller's). From then on the value is only shared.
unsafe impl<T: Sync> Sync for ReadOnly<T> {}

impl<T> ReadOnly<T> {
    /// Not sealed yet.
    pub const fn new(value: T) -> ReadOnly<T> {
        ReadOnly {
            _page_start: [0; PAGE_START],
            value: UnsafeCell::new(value),
        }
    }

    /// Puts `value` in the old one's place.
    ///
    /// # Safety
    /// Nobody reads at the same time, or still holds what was lent, and the value is not sealed.
    pub unsafe fn set(&self, value: T) {
        // SAFETY: the caller guarantees that nobody reads the value, and that it is not read-only yet.
        unsafe { *self.value.get() = value };
    }

    /// From now on a write to the value faults: whether the system could do that. For good.
    pub fn seal<O: Vm>(&self, os: &O) -> bool {
        let start = NonNull::from(self).cast();
        // SAFETY: whole pages, which hold nothing but the value and what fills the last one up.
        os.page_size() == PAGE && unsafe { os.seal(start, core::mem::size_of::<ReadOnly<T>>()) }
    }
}

impl<T> Deref for ReadOnly<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `set` demands that no other thread reads while it writes, so the value is not changing.
        unsafe { &*self.value.get() }
    }
}
