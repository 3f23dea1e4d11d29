//! System calls that are made seldom, by libc's `syscall`: each function of libc that a library names is looked up
//! whenever a program starts, which costs more than most programs ever gain by it. All set errno.

use core::ffi::{c_int, c_long, c_void, CStr};
use core::mem::MaybeUninit;
use core::ptr;

/// open(2).
///
/// # Safety
/// `path` is a string.
pub unsafe fn open(path: *const core::ffi::c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: openat(2) with these arguments is open(2).
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int }
}

/// close(2).
///
/// # Safety
/// `file` is the caller's.
pub unsafe fn close(file: c_int) {
    // SAFETY: the caller's descriptor.
    unsafe { libc::syscall(libc::SYS_close, file) };
}

/// read(2).
///
/// # Safety
/// `place` has room for `bytes`.
pub unsafe fn read(file: c_int, place: *mut u8, bytes: usize) -> isize {
    // SAFETY: the caller's place.
    unsafe { libc::syscall(libc::SYS_read, file, place, bytes) as isize }
}

/// write(2).
pub fn write(file: c_int, text: &[u8]) {
    // SAFETY: reads the text's bytes; a bad descriptor only fails.
    unsafe { libc::syscall(libc::SYS_write, file, text.as_ptr(), text.len()) };
}

/// getpid(2).
pub fn getpid() -> libc::pid_t {
    // SAFETY: no arguments to get wrong.
    unsafe { libc::syscall(libc::SYS_getpid) as libc::pid_t }
}

/// The present limit of `resource` (prlimit(2)), `u64::MAX` where there is none.
pub(super) fn limit_of(resource: c_int) -> u64 {
    let mut limit = [u64::MAX; 2];
    let none = ptr::null::<c_void>();
    // SAFETY: `limit` is a place to write to: the call has words of 64 bits on all machines.
    unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, none, limit.as_mut_ptr()) };
    limit[0]
}

/// sysinfo(2); all zeros where that fails.
pub(super) fn sysinfo() -> libc::sysinfo {
    let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: `info` is a place to write to; all zeros is a valid answer.
    unsafe {
        libc::syscall(libc::SYS_sysinfo, info.as_mut_ptr());
        info.assume_init()
    }
}

/// Random bytes (getrandom(2)); zeros where there are none.
pub(super) fn random() -> u64 {
    let mut word = 0u64;
    let place = ptr::from_mut(&mut word);
    // SAFETY: eight bytes at `place`.
    unsafe { libc::syscall(libc::SYS_getrandom, place, 8usize, libc::GRND_NONBLOCK) };
    word
}

/// Names a range in /proc/PID/maps (prctl(2), Linux 5.17): other kernels answer EINVAL.
pub(super) fn name_range(start: *mut u8, bytes: usize, name: &'static CStr) {
    /// `PR_SET_VMA` and `PR_SET_VMA_ANON_NAME`.
    const SET_VMA: c_long = 0x53564d41;
    const ANON_NAME: c_long = 0;
    let name = name.as_ptr();
    // SAFETY: naming changes no memory.
    unsafe { libc::syscall(libc::SYS_prctl, SET_VMA, ANON_NAME, start, bytes, name) };
}
