//! The functions of C and POSIX, those that other allocators offer beside them, and the heap's figures.
//!
//! include/slabside.h says what each promises. None may be called from a signal handler that interrupted
//! one of them.

use super::forms::Basic;
use crate::occupancy::Occupancy;
use crate::options::{self, Mistake, Name};
use crate::os::Vm;
use crate::process::GLOBAL;
use crate::sized_free::Said;
use crate::stats::{self, Stats};
use crate::tls::{current, local};
use crate::units::{align_up, PAGE};
use core::ffi::{c_char, c_int, CStr};
use core::mem::transmute;
use core::ptr;

/// C's malloc: at least `size` bytes, aligned to 8 up to 8 bytes and to 16 above. Null and ENOMEM if memory has run
/// out. `size` 0 gives a block of its own.
#[inline(always)]
pub fn malloc(size: usize) -> *mut u8 {
    GLOBAL.malloc(current(), size)
}

/// C's calloc: `count` times `size` zero bytes. Null and ENOMEM if that overflows.
#[inline(always)]
pub fn calloc(count: usize, size: usize) -> *mut u8 {
    GLOBAL.calloc(current(), count, size)
}

/// C's free: null is ignored, errno is kept.
///
/// # Safety
/// Nobody uses the block afterwards. (That it is a block is checked.)
#[inline(always)]
pub unsafe fn free(block: *mut u8) {
    GLOBAL.free(current(), block);
}

/// C23's free_sized: [`free`] of a block that was asked for with `size` bytes. A size that cannot be ends
/// the program.
///
/// # Safety
/// As [`free`].
#[inline(always)]
pub unsafe fn free_sized(block: *mut u8, size: usize, basic: Basic<impl Fn() -> Option<usize>>) {
    if basic.is_ours(size) {
        return GLOBAL.free_sized(current(), block, size, Said::ByHand);
    }
    // SAFETY: the caller passes a block of `size` bytes, or null, and gives it up.
    unsafe { free_sized_slow(block, size, basic) }
}

#[cold]
#[inline(never)]
unsafe fn free_sized_slow(block: *mut u8, size: usize, basic: Basic<impl Fn() -> Option<usize>>) {
    match basic.theirs() {
        // SAFETY: the program's free(3) has this type, and the caller guarantees a block of its malloc.
        Some(free) => unsafe { transmute::<usize, Free>(free)(block) },
        None => GLOBAL.free_sized_aligned(local(), block, size, 1, Said::ByHand),
    }
}

/// free(3) of the program's own.
type Free = unsafe extern "C" fn(*mut u8);

/// C23's free_aligned_sized: as [`free_sized`] for a block of [`aligned_alloc`].
///
/// # Safety
/// As [`free`].
pub unsafe fn free_aligned_sized(
    block: *mut u8,
    align: usize,
    size: usize,
    basic: Basic<impl Fn() -> Option<usize>>,
) {
    match basic.theirs() {
        // SAFETY: the program's free(3) has this type, and the caller guarantees a block of its malloc.
        Some(free) => unsafe { transmute::<usize, Free>(free)(block) },
        None => GLOBAL.free_sized_aligned(local(), block, size, align, Said::ByHand),
    }
}

/// C's realloc: at the same address where the block has room. A null block is allocated. Size 0 gives a block of the
/// smallest size, or frees, as the option `realloc-zero` says.
///
/// # Safety
/// As [`free`] where the block moves. (That it is a block is checked.)
#[inline(always)]
pub unsafe fn realloc(block: *mut u8, size: usize) -> *mut u8 {
    if size == 0 && GLOBAL.backend.options.get(Name::ReallocZero) == options::REALLOC_FREES {
        return free_for_realloc(block);
    }
    GLOBAL.realloc(local(), block, size)
}

/// `realloc(block, 0)` where the option `realloc-zero` says that it frees. A null block is allocated, as glibc does.
#[cold]
fn free_for_realloc(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        return malloc(0);
    }
    GLOBAL.free(local(), block);
    ptr::null_mut()
}

/// reallocarray(3): [`realloc`] to `count` times `size` bytes, null and ENOMEM where that overflows.
///
/// # Safety
/// As [`realloc`].
pub unsafe fn reallocarray(
    block: *mut u8,
    count: usize,
    size: usize,
    basic: Basic<impl Fn() -> Option<usize>>,
) -> *mut u8 {
    let Some(bytes) = count.checked_mul(size) else {
        return fail(libc::ENOMEM);
    };
    match basic.theirs() {
        // SAFETY: the program's realloc(3) has this type, and the caller guarantees a block of its malloc.
        Some(theirs) => unsafe { transmute::<usize, Realloc>(theirs)(block, bytes) },
        // SAFETY: the caller passes a live block or null, and gives it up where another is returned.
        None => unsafe { realloc(block, bytes) },
    }
}

/// realloc(3) of the program's own.
type Realloc = unsafe extern "C" fn(*mut u8, usize) -> *mut u8;

/// C's aligned_alloc: null and EINVAL where `align` is not a power of two. `size` need not be a multiple
/// of it (C17).
pub fn aligned_alloc(align: usize, size: usize) -> *mut u8 {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    GLOBAL.aligned(local(), size, align)
}

/// memalign(3): as [`aligned_alloc`], with `align` rounded up to a power of two, as glibc does.
pub fn memalign(align: usize, size: usize) -> *mut u8 {
    match align.max(1).checked_next_power_of_two() {
        Some(align) => aligned_alloc(align, size),
        None => fail(libc::EINVAL),
    }
}

/// POSIX posix_memalign: 0, or EINVAL or ENOMEM and nothing written. errno is kept.
///
/// # Safety
/// `place` is a place to write a pointer to.
pub unsafe fn posix_memalign(place: *mut *mut u8, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(core::mem::size_of::<*mut u8>()) {
        return libc::EINVAL;
    }
    let errno = errno();
    let block = GLOBAL.aligned(local(), size, align);
    set_errno(errno);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller guarantees that `place` is a place to write a pointer to.
    unsafe { *place = block };
    0
}

/// valloc(3): `size` bytes at a multiple of the system's page size.
pub fn valloc(size: usize) -> *mut u8 {
    aligned_alloc(os_page(), size)
}

/// pvalloc(3): as [`valloc`], with the size rounded up to whole pages.
pub fn pvalloc(size: usize) -> *mut u8 {
    match align_up(size.max(1), os_page()) {
        Some(bytes) => aligned_alloc(os_page(), bytes),
        None => fail(libc::ENOMEM),
    }
}

fn os_page() -> usize {
    GLOBAL.backend.os.page_size().max(PAGE)
}

/// malloc_usable_size(3): bytes that may be used in a live block, 0 for null.
///
/// # Safety
/// None beyond that the block is not freed meanwhile. (That it is a block is checked.)
pub unsafe fn usable_size(block: *const u8) -> usize {
    GLOBAL.usable_size(local(), block)
}

/// Whether a program that can move the live block helps to give memory back by that. It would allocate the block anew,
/// copy it and free the old one. See `occupancy`.
///
/// # Safety
/// As [`usable_size`].
pub unsafe fn should_move(block: *const u8) -> bool {
    GLOBAL.should_move(local(), block)
}

/// Writes how full the slab of a live block is, and the partial slabs of its class together.
///
/// # Safety
/// As [`usable_size`]. `figures` is a place to write them to.
pub unsafe fn occupancy(block: *const u8, figures: *mut Occupancy) {
    let of_block = GLOBAL.occupancy(local(), block);
    // SAFETY: the caller's: a place to write the figures to.
    unsafe { figures.write(of_block) };
}

/// As [`usable_size`]. Where the program has a free(3) of its own, 0 for what is no block of ours, as glibc says.
///
/// # Safety
/// As [`usable_size`].
pub unsafe fn usable_size_of_any(
    block: *const u8,
    basic: Basic<impl Fn() -> Option<usize>>,
) -> usize {
    match basic.theirs() {
        Some(_) => GLOBAL.usable_size_if_ours(local(), block),
        None => GLOBAL.usable_size(local(), block),
    }
}

// ---- what other allocators offer ----------------------------------------------------------------

/// Bytes that a block of `size` bytes would have. 0 if there can be no such block.
pub fn good_size(size: usize) -> usize {
    GLOBAL.good_size(size, 1)
}

/// As [`malloc`], and writes how many bytes may be used (0 where it fails) to `usable`, unless that is
/// null.
///
/// # Safety
/// `usable` is null or a place to write a size to.
pub unsafe fn malloc_at_least(size: usize, usable: *mut usize) -> *mut u8 {
    let (block, bytes) = GLOBAL.malloc_at_least(local(), size);
    if !usable.is_null() {
        // SAFETY: the caller guarantees that `usable`, which is not null, is a place to write a size to.
        unsafe { *usable = bytes };
    }
    block
}

/// `size` zero bytes.
pub fn zalloc(size: usize) -> *mut u8 {
    GLOBAL.calloc(current(), 1, size)
}

/// As [`realloc`], at a multiple of `align`. Null and EINVAL if that is not a power of two.
///
/// # Safety
/// As [`realloc`].
pub unsafe fn aligned_realloc(block: *mut u8, align: usize, size: usize) -> *mut u8 {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    GLOBAL.realloc_aligned(local(), block, size, align)
}

/// Makes at least `size` bytes of a live block usable without moving it. False, and nothing changed, where that cannot
/// be. null cannot.
///
/// # Safety
/// None beyond that the block is not freed meanwhile. (That it is a block is checked.)
pub unsafe fn try_expand(block: *mut u8, size: usize) -> bool {
    GLOBAL.try_expand(local(), block, size)
}

// ---- the process's allocator --------------------------------------------------------------------

/// Gets the process ready before its first allocation. Without it the first allocation does. `sole` says that no other
/// malloc is at work in the process, so that slabside alone moves the break.
pub fn prepare(sole: Option<SoleMalloc>) {
    if sole.is_some() {
        GLOBAL.backend.os.be_sole_malloc();
    }
    GLOBAL.prepare(local());
}

/// Says that slabside is the process's malloc.
#[derive(Clone, Copy, Debug)]
pub struct SoleMalloc;

/// The heap's figures.
pub fn stats() -> Stats {
    stats::stats(&GLOBAL, local())
}

/// Writes the heap's figures to `place`.
///
/// # Safety
/// `place` is a place to write them to.
pub unsafe fn stats_to(place: *mut Stats) {
    // SAFETY: the caller guarantees that `place` is a place to write the figures to.
    unsafe { *place = stats() }
}

/// Walks every header, list and bitmap, while no other thread allocates or frees. Returns the number of broken
/// invariants.
pub fn validate() -> usize {
    GLOBAL.validate(local())
}

/// Sets the option `name` to `value` before the first allocation: 0, EINVAL where there is no such option
/// or value, EBUSY where memory was allocated already and the option is not `guard-sample`. The environment variable
/// still has the last word.
/// See docs/tuning.md for names and values.
///
/// # Safety
/// Both are strings, or null.
pub unsafe fn option_set(name: *const c_char, value: *const c_char) -> c_int {
    if name.is_null() || value.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: the caller guarantees that both, which are not null, are strings that end in zero.
    let (name, value) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(value)) };
    match set_option(name.to_bytes(), value.to_bytes()) {
        Ok(()) => 0,
        Err(OptionError::TooLate) => libc::EBUSY,
        Err(OptionError::NoSuchOption | OptionError::NoSuchValue) => libc::EINVAL,
    }
}

/// Takes a heap profile from now on, with a sample every `interval` bytes on average, or none where that is 0. The
/// interval before.
pub fn profile(interval: usize) -> usize {
    GLOBAL.set_profile(local(), interval)
}

/// Why an option was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// There is no option of that name.
    NoSuchOption,
    /// The option takes no such value.
    NoSuchValue,
    /// Memory was allocated already, and the options are fixed.
    TooLate,
}

impl core::fmt::Display for OptionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            OptionError::NoSuchOption => "there is no such option",
            OptionError::NoSuchValue => "the option takes no such value",
            OptionError::TooLate => "memory was allocated already",
        })
    }
}

impl core::error::Error for OptionError {}

/// Sets an option of the process: what `slabside_option_set` does, for Rust.
///
/// # Errors
/// As [`OptionError`] says. Nothing is set then.
pub fn set_option(name: &[u8], value: &[u8]) -> Result<(), OptionError> {
    let mut item = [0; options::TEXT + 64];
    let length = name.len() + 1 + value.len();
    if name.iter().any(|byte| b":=".contains(byte)) {
        return Err(OptionError::NoSuchOption);
    }
    if length > item.len() || value.contains(&b',') {
        return Err(OptionError::NoSuchValue);
    }
    item[..name.len()].copy_from_slice(name);
    item[name.len()] = b':';
    item[name.len() + 1..length].copy_from_slice(value);
    match GLOBAL.set_option(local(), &item[..length]) {
        Ok(()) => Ok(()),
        Err(Mistake::Frozen) => Err(OptionError::TooLate),
        Err(Mistake::Unknown(_)) => Err(OptionError::NoSuchOption),
        Err(Mistake::Value(_)) => Err(OptionError::NoSuchValue),
    }
}

pub(super) fn fail(error: c_int) -> *mut u8 {
    set_errno(error);
    ptr::null_mut()
}

fn errno() -> c_int {
    // SAFETY: the C library returns the address of the calling thread's own errno.
    unsafe { *libc::__errno_location() }
}

pub(super) fn set_errno(error: c_int) {
    // SAFETY: the C library returns the address of the calling thread's own errno.
    unsafe { *libc::__errno_location() = error };
}
