//! The forms of a function that end in a basic one, where a program may have the basic one replaced.
//!
//! ```text
//!   operator delete(p, size) ---> is operator delete(p) ours? --yes--> our heap, at once
//!                                       `--no--> the program's operator delete(p)
//! ```
//!
//! A program that replaces `operator new` and `operator delete` alone so gets all twenty forms (C++ \[new.delete\]).
//! One with a `realloc` of its own gets its own `reallocarray` (glibc's manual, "Replacing malloc"). The dynamic linker
//! decides whose the basic form is, since the preload library binds it as any other library does (`preload/build.rs`
//! lists the names). That is over before anybody can call us.
//!
//! A form that only calls its basic one is a jump. A form with a path of its own compares the size with a bound in
//! memory instead of a constant. The bound is 0 until the basic form is known to be ours. It stays 0 if it is not.

use crate::os;
use crate::sync::{AtomicUsize, Ordering::Relaxed};
use crate::units::LOCAL_MAX;
use core::hint::assert_unchecked;

/// Whether the basic function that a form ends in is ours.
pub struct Ends {
    /// Requests below it take the form's own fast path: 0, or one more than [`LOCAL_MAX`].
    bound: AtomicUsize,
}

impl Ends {
    /// It is not known yet.
    pub const fn new() -> Ends {
        Ends {
            bound: AtomicUsize::new(0),
        }
    }
}

impl Default for Ends {
    fn default() -> Ends {
        Ends::new()
    }
}

/// What a form ends in: `find` looks for a basic function that is the program's own.
#[derive(Clone, Copy)]
pub struct Basic<F> {
    ends: &'static Ends,
    find: F,
}

/// The first of the addresses that basic functions are bound to which is not in our code.
pub fn first_of_theirs(bound: &[usize]) -> Option<usize> {
    bound
        .iter()
        .copied()
        .find(|&address| !os::is_own_code(address))
}

impl<F: Fn() -> Option<usize>> Basic<F> {
    /// The basic functions of one form.
    #[inline(always)]
    pub const fn new(ends: &'static Ends, find: F) -> Basic<F> {
        Basic { ends, find }
    }

    /// Whether `size` is that of an entry of the thread's own, and the form ends with us. One comparison.
    #[inline(always)]
    pub fn is_ours(&self, size: usize) -> bool {
        let ours = size < self.ends.bound.load(Relaxed);
        if ours {
            // SAFETY: the bound is at most one more.
            unsafe { assert_unchecked(size <= LOCAL_MAX) };
        }
        ours
    }

    /// The address of the program's own basic function, if there is one.
    pub fn theirs(self) -> Option<usize> {
        if self.ends.bound.load(Relaxed) != 0 {
            return None;
        }
        let theirs = (self.find)();
        if theirs.is_none() {
            self.ends.bound.store(LOCAL_MAX + 1, Relaxed);
        }
        theirs
    }
}

/// The address that `name` is bound to in the process, by the table of the library that this is expanded in.
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
#[macro_export]
macro_rules! bound_address {
    ($name:ident) => {{
        let address: usize;
        // SAFETY: reads the symbol's entry of the global offset table.
        unsafe {
            core::arch::asm!(
                concat!("mov {address}, qword ptr [rip + ", stringify!($name), "@GOTPCREL]"),
                address = out(reg) address,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        address
    }};
}

/// The address that `name` is bound to in the process, by the table of the library that this is expanded in.
#[cfg(target_arch = "aarch64")]
#[doc(hidden)]
#[macro_export]
macro_rules! bound_address {
    ($name:ident) => {{
        let address: usize;
        // SAFETY: reads the symbol's entry of the global offset table.
        unsafe {
            core::arch::asm!(
                concat!("adrp {address}, :got:", stringify!($name)),
                concat!("ldr {address}, [{address}, :got_lo12:", stringify!($name), "]"),
                address = out(reg) address,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        address
    }};
}

/// Not known on this machine: ours.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[doc(hidden)]
#[macro_export]
macro_rules! bound_address {
    ($name:ident) => {
        $name as usize
    };
}
