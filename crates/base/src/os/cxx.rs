//! What C++'s runtime has, if the process has one. All of it is referred to weakly, so that the library
//! needs nothing but libc.

use super::loader::look_up_in_runtime;
use core::ffi::{c_void, CStr};
use core::mem::transmute;

/// A new_handler, or a function that throws: called from a frame of `throwing_new` alone.
pub type Step = unsafe extern "C" fn();
/// A form of operator new that catches what is thrown: size, tag.
pub type Nothrow = unsafe extern "C" fn(usize, *const c_void) -> *mut u8;
/// The same with an alignment: size, alignment, tag.
pub type AlignedNothrow = unsafe extern "C" fn(usize, usize, *const c_void) -> *mut u8;
type GetHandler = unsafe extern "C" fn() -> Option<Step>;

/// `linked`, which the linker found, or what is found by name.
fn found(linked: usize, name: &CStr) -> usize {
    match linked {
        0 => look_up_in_runtime(name),
        linked => linked,
    }
}

/// The new_handler in force (C++ \[set.new.handler\]).
pub fn new_handler() -> Option<Step> {
    let get = found(weak!("_ZSt15get_new_handlerv"), c"_ZSt15get_new_handlerv");
    // SAFETY: `get` is 0, which is `None`, or the runtime's `std::new_handler std::get_new_handler() noexcept`.
    unsafe { transmute::<usize, Option<GetHandler>>(get).and_then(|get| get()) }
}

/// What throws std::bad_alloc.
pub fn throw_bad_alloc() -> Option<Step> {
    let throw = found(
        weak!("_ZSt17__throw_bad_allocv"),
        c"_ZSt17__throw_bad_allocv",
    );
    // SAFETY: the address is 0, or that of `void std::__throw_bad_alloc()`.
    unsafe { transmute::<usize, Option<Step>>(throw) }
}

/// The runtime's own form of this `name`, without an alignment: of operator new or new[] that does not throw.
pub fn nothrow_new(name: &CStr) -> Option<Nothrow> {
    let new = look_up_in_runtime(name);
    // SAFETY: the address is 0, or that of the function of this name in the C++ runtime.
    unsafe { transmute::<usize, Option<Nothrow>>(new) }
}

/// The same with an alignment.
pub fn aligned_nothrow_new(name: &CStr) -> Option<AlignedNothrow> {
    let new = look_up_in_runtime(name);
    // SAFETY: the address is 0, or that of the function of this name in the C++ runtime.
    unsafe { transmute::<usize, Option<AlignedNothrow>>(new) }
}
