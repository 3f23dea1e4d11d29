//! System calls, made by the instruction itself. A program may define any function of libc's, allocate in it, or wait
//! in it for a thread that waits for us. None of them touches errno.
//!
//! docs/compatibility.md lists the calls, and when each is made. A test holds them to the list.

use super::Limits;
use core::ffi::{c_char, c_int, c_void, CStr};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

/// A result, or the error's number.
pub type Answer = Result<usize, c_int>;

/// Asks for call `number` with up to six arguments.
///
/// # Safety
/// The arguments keep the contract of the system call.
#[inline(always)]
unsafe fn ask<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> Answer {
    let mut all = [0; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = argument;
    }
    // SAFETY: the caller guarantees what the call's manual page demands.
    match unsafe { crate::arch::system_call(number as usize, all) } {
        error @ -4095..0 => Err(-error as c_int),
        result => Ok(result as usize),
    }
}

// ---- memory -------------------------------------------------------------------------------------

/// mmap(2) of memory alone, at `start` if that is not 0.
///
/// # Safety
/// With `MAP_FIXED` in `flags` the caller owns the range.
pub(super) unsafe fn map(start: usize, bytes: usize, access: c_int, flags: c_int) -> Answer {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: the caller's promise is the same.
    unsafe { map_as(start, bytes, access, flags) }
}

/// As `map`, with these flags alone.
///
/// # Safety
/// As `map`.
unsafe fn map_as(start: usize, bytes: usize, access: c_int, flags: c_int) -> Answer {
    // SAFETY: with `MAP_FIXED` the caller owns the range. Without it a fresh mapping touches nobody's memory.
    unsafe { map_file(start, bytes, access, flags, -1, 0) }
}

/// mmap(2) of `file` from byte `offset` on.
///
/// # Safety
/// As `map`.
pub unsafe fn map_file(
    start: usize,
    bytes: usize,
    access: c_int,
    flags: c_int,
    file: c_int,
    offset: usize,
) -> Answer {
    let arguments = [
        start,
        bytes,
        access as usize,
        flags as usize,
        file as usize,
        offset,
    ];
    // SAFETY: the caller guarantees that a fixed range may be replaced.
    unsafe { ask(libc::SYS_mmap, arguments) }
}

/// What lies in a range: `Ok` where nothing does, or where the system does not tell. `EEXIST` where something does,
/// `ENOMEM` where the range has no place among all addresses. An mmap(2) that is neither private nor shared maps nothing.
/// The kernel looks at the range before it refuses that (Linux 4.17), and before any limit.
pub(super) fn is_range_free(start: usize, bytes: usize) -> Result<(), c_int> {
    let flags = libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a mapping that replaces none touches nobody's memory.
    match unsafe { map_as(start, bytes, libc::PROT_NONE, flags) } {
        Err(error @ (libc::EEXIST | libc::ENOMEM)) => Err(error),
        Err(_) => Ok(()),
        Ok(got) => {
            // SAFETY: a fresh mapping of a system that asks for no type.
            unsafe { unmap(got, bytes) };
            Ok(())
        }
    }
}

/// munmap(2).
///
/// # Safety
/// The caller gives up the range.
pub unsafe fn unmap(start: usize, bytes: usize) -> bool {
    // SAFETY: the caller gives up the range, so nobody uses it after this call.
    unsafe { ask(libc::SYS_munmap, [start, bytes]).is_ok() }
}

/// mremap(2).
///
/// # Safety
/// The caller owns the mapping, and follows it if `flags` allow it to move.
pub(super) unsafe fn remap(start: usize, old: usize, new: usize, flags: c_int) -> Answer {
    // SAFETY: the caller owns the mapping, and follows it if it moves.
    unsafe { ask(libc::SYS_mremap, [start, old, new, flags as usize]) }
}

/// mremap(2) of a part of one mapping to `to`, over what lies there. The old range stays, without memory. Before Linux 5.7
/// it does nothing.
///
/// # Safety
/// The caller owns both ranges, and needs nothing of what lies at `to`.
pub(super) unsafe fn move_to(start: usize, bytes: usize, to: usize) -> Result<(), c_int> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let arguments = [start, bytes, bytes, flags as usize, to];
    // SAFETY: the caller owns both ranges.
    unsafe { ask(libc::SYS_mremap, arguments).map(drop) }
}

/// mremap(2) of a part of one mapping to `to`, over the `new` bytes that lie there, as so many bytes. The old range is gone.
///
/// # Safety
/// The caller owns both ranges, and needs nothing of what lies at `to`.
pub(super) unsafe fn move_as(start: usize, old: usize, to: usize, new: usize) -> Answer {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let arguments = [start, old, new, flags as usize, to];
    // SAFETY: the caller owns both ranges.
    unsafe { ask(libc::SYS_mremap, arguments) }
}

/// mremap(2) of a part of one mapping to where nothing lies, at `to` if that is free. The old range stays, without memory.
/// Where it fails all is as it was.
///
/// # Safety
/// The caller owns the range, and follows its contents.
pub(super) unsafe fn move_away(start: usize, bytes: usize, to: usize) -> Answer {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    let arguments = [start, bytes, bytes, flags as usize, to];
    // SAFETY: the caller owns the range.
    unsafe { ask(libc::SYS_mremap, arguments) }
}

/// Maps the pages of a range for reading (madvise(2), `MADV_POPULATE_READ`, Linux 5.14). `EFAULT` where a touch would fault,
/// as with a guard.
pub(super) fn populate(start: usize, bytes: usize) -> Result<(), c_int> {
    const POPULATE_READ: usize = 22;
    // SAFETY: to read a page changes nothing.
    unsafe { ask(libc::SYS_madvise, [start, bytes, POPULATE_READ]).map(drop) }
}

/// mprotect(2).
///
/// # Safety
/// Nobody needs the range in another way.
pub(super) unsafe fn protect(start: usize, bytes: usize, access: c_int) -> bool {
    // SAFETY: the caller guarantees that nobody needs the range in another way.
    unsafe { ask(libc::SYS_mprotect, [start, bytes, access as usize]).is_ok() }
}

/// madvise(2).
///
/// # Safety
/// The range is the caller's, and so are its contents if `advice` ends them.
pub(super) unsafe fn advise(start: usize, bytes: usize, advice: c_int) -> bool {
    // SAFETY: the caller owns the range, and its contents if `advice` ends them.
    unsafe { ask(libc::SYS_madvise, [start, bytes, advice as usize]).is_ok() }
}

/// mseal(2), Linux 6.10. Older kernels know no such call.
///
/// # Safety
/// Nobody is to change the mapping any more.
pub(super) unsafe fn seal(start: usize, bytes: usize) {
    /// The same on all architectures.
    const MSEAL: libc::c_long = 462;
    // SAFETY: the caller guarantees that nobody changes the mapping any more.
    let _ = unsafe { ask(MSEAL, [start, bytes, 0]) };
}

/// Names a range in /proc/PID/maps (prctl(2), Linux 5.17): other kernels answer EINVAL.
pub(super) fn name_range(start: *mut u8, bytes: usize, name: &'static CStr) {
    /// `PR_SET_VMA` and `PR_SET_VMA_ANON_NAME`.
    const SET_VMA: usize = 0x53564d41;
    const ANON_NAME: usize = 0;
    let name = name.as_ptr() as usize;
    let arguments = [SET_VMA, ANON_NAME, start as usize, bytes, name];
    // SAFETY: naming a range changes no memory. The name lives for good.
    let _ = unsafe { ask(libc::SYS_prctl, arguments) };
}

/// prctl(2) `PR_SET_PTRACER`: any process of the same user may look into this one. Kernels without Yama answer EINVAL,
/// and forbid nothing.
pub fn allow_tracers() {
    let arguments = [libc::PR_SET_PTRACER as usize, usize::MAX];
    // SAFETY: prctl(PR_SET_PTRACER) names who may trace, and changes no memory.
    let _ = unsafe { ask(libc::SYS_prctl, arguments) };
}

// ---- files --------------------------------------------------------------------------------------

/// open(2).
///
/// # Safety
/// `path` points to bytes that end in a nul.
pub unsafe fn open(path: *const c_char, flags: c_int, mode: c_int) -> Result<c_int, c_int> {
    let (path, here) = (path as usize, libc::AT_FDCWD as usize);
    let arguments = [here, path, flags as usize, mode as usize];
    // SAFETY: the caller's string. openat(2) with these arguments is open(2).
    unsafe { ask(libc::SYS_openat, arguments).map(|file| file as c_int) }
}

/// close(2).
///
/// # Safety
/// The caller owns the descriptor `file`, and does not use it afterwards.
pub unsafe fn close(file: c_int) {
    // SAFETY: the caller owns the descriptor and gives it up.
    let _ = unsafe { ask(libc::SYS_close, [file as usize]) };
}

/// The seals of `file`: F_GET_SEALS of fcntl(2). 0 of a file that can have none.
pub fn seals(file: c_int) -> c_int {
    // SAFETY: fcntl(2) with this command reads and writes no memory of the process.
    let seals = unsafe { ask(libc::SYS_fcntl, [file as usize, libc::F_GET_SEALS as usize]) };
    seals.map_or(0, |seals| seals as c_int)
}

/// pread(2), or read(2) where `from` is `None`: how many bytes, 0 where that fails.
pub fn read(file: c_int, place: &mut [u8], from: Option<usize>) -> usize {
    let (start, bytes) = (place.as_mut_ptr() as usize, place.len());
    // SAFETY: read(2) writes at most `place.len()` bytes, all into `place`.
    let read = unsafe {
        match from {
            Some(from) => ask(libc::SYS_pread64, [file as usize, start, bytes, from]),
            None => ask(libc::SYS_read, [file as usize, start, bytes]),
        }
    };
    read.unwrap_or(0).min(bytes)
}

/// The beginning of the file `path`, as much as `place` holds: how many bytes, 0 where it cannot be read.
pub fn read_file(path: &CStr, place: &mut [u8]) -> usize {
    // SAFETY: `path` is a string, and the descriptor our own.
    unsafe {
        let Ok(file) = open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC, 0) else {
            return 0;
        };
        let bytes = read(file, place, None);
        close(file);
        bytes
    }
}

/// What the symbolic link `path` leads to, as much as `place` holds: how many bytes, 0 where it cannot be read.
pub(super) fn read_link(path: &CStr, place: &mut [u8]) -> usize {
    let (here, room) = (libc::AT_FDCWD as usize, place.len());
    let arguments = [
        here,
        path.as_ptr() as usize,
        place.as_mut_ptr() as usize,
        room,
    ];
    // SAFETY: `path` is a string, and readlinkat(2) writes `room` bytes at most to `place`.
    unsafe { ask(libc::SYS_readlinkat, arguments).unwrap_or(0) }
}

/// fstat(2).
pub fn status_of(file: c_int) -> Option<libc::stat> {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `status` is a place to write to, and all zeros is a valid answer. On 64-bit machines the kernel's
    // structure is libc's.
    unsafe {
        ask(
            libc::SYS_fstat,
            [file as usize, status.as_mut_ptr() as usize],
        )
        .ok()?;
        Some(status.assume_init())
    }
}

/// Whether the directory `path` has one directory in it: it has three links then (stat(2)).
pub(super) fn holds_one(path: &CStr) -> bool {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    let place = status.as_mut_ptr() as usize;
    let here = libc::AT_FDCWD as usize;
    // SAFETY: as in `status_of`, and `path` is a string.
    unsafe {
        let _ = ask(
            libc::SYS_newfstatat,
            [here, path.as_ptr() as usize, place, 0],
        );
        status.assume_init().st_nlink == 3
    }
}

/// write(2).
pub fn write(file: c_int, text: &[u8]) {
    let (start, bytes) = (text.as_ptr() as usize, text.len());
    // SAFETY: reads the text's bytes. A bad descriptor only fails.
    let _ = unsafe { ask(libc::SYS_write, [file as usize, start, bytes]) };
}

// ---- the process --------------------------------------------------------------------------------

/// getpid(2).
pub fn getpid() -> usize {
    // SAFETY: getpid(2) takes no arguments and cannot fail.
    unsafe { ask(libc::SYS_getpid, []).unwrap_or(0) }
}

/// gettid(2).
pub(super) fn gettid() -> usize {
    // SAFETY: gettid(2) takes no arguments and cannot fail.
    unsafe { ask(libc::SYS_gettid, []).unwrap_or(0) }
}

/// Sends the calling thread the signal that `info` tells of, as it came (rt_tgsigqueueinfo(2)). Its handler runs once the
/// calling handler, which blocks it, is over.
pub(super) fn signal_again(info: &libc::siginfo_t) {
    let (signal, place) = (info.si_signo as usize, ptr::from_ref(info) as usize);
    let arguments = [getpid(), gettid(), signal, place];
    // SAFETY: reads what the kernel wrote. The signal was on its way to this thread in any case.
    let _ = unsafe { ask(libc::SYS_rt_tgsigqueueinfo, arguments) };
}

/// Bytes that the calling signal handler has left of a stack of its own (sigaltstack(2)). `None` means that it runs on its
/// thread's stack.
pub(super) fn left_of_alternate_stack() -> Option<usize> {
    let mut other = MaybeUninit::<libc::stack_t>::zeroed();
    let here = other.as_ptr() as usize;
    // SAFETY: writes what the thread's alternate stack is, and changes none.
    unsafe { ask(libc::SYS_sigaltstack, [0, other.as_mut_ptr() as usize]) }.ok()?;
    // SAFETY: the kernel has written it.
    let other = unsafe { other.assume_init() };
    (other.ss_flags & libc::SS_ONSTACK != 0).then(|| here.saturating_sub(other.ss_sp as usize))
}

/// The present limits on memory (prlimit(2)).
pub(super) fn limits() -> Limits {
    Limits {
        address_space: limit_of(libc::RLIMIT_AS as usize),
        data: limit_of(libc::RLIMIT_DATA as usize),
    }
}

fn limit_of(resource: usize) -> usize {
    let mut limit = [u64::MAX; 2];
    let place = limit.as_mut_ptr() as usize;
    // SAFETY: `limit` is a place to write to: the call has words of 64 bits on all machines.
    let _ = unsafe { ask(libc::SYS_prlimit64, [0, resource, 0, place]) };
    usize::try_from(limit[0]).unwrap_or(usize::MAX)
}

/// sysinfo(2): bytes of memory and swap that the system has. 0 if that is not known.
pub(super) fn memory() -> usize {
    let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: `info` is a place to write to. All zeros is a valid answer.
    let info = unsafe {
        let _ = ask(libc::SYS_sysinfo, [info.as_mut_ptr() as usize]);
        info.assume_init()
    };
    let bytes = (info.totalram as usize).saturating_add(info.totalswap as usize);
    bytes.saturating_mul(info.mem_unit as usize)
}

/// Random bytes (getrandom(2)). Zeros if there are none.
pub(super) fn random() -> u64 {
    let mut word = 0u64;
    let place = ptr::from_mut(&mut word) as usize;
    // SAFETY: getrandom(2) writes at most the eight bytes of `word`.
    let _ = unsafe {
        ask(
            libc::SYS_getrandom,
            [place, 8, libc::GRND_NONBLOCK as usize],
        )
    };
    word
}

/// clock_gettime(2).
pub(super) fn clock(clock: libc::clockid_t, now: &mut libc::timespec) {
    let place = ptr::from_mut(now) as usize;
    // SAFETY: `now` is a place to write to.
    let _ = unsafe { ask(libc::SYS_clock_gettime, [clock as usize, place]) };
}

/// Whether the word at `address` can be read and is `value`, whoever unmaps it meanwhile: futex(2) compares it before it
/// would wake or move any of its waiters, of which it is to take none. Does not sleep: a wait for no time at all sleeps
/// for the timer's slack. `None` where the kernel does not tell.
pub(super) fn is_word(address: usize, value: u32) -> Option<bool> {
    let operation = (libc::FUTEX_CMP_REQUEUE | libc::FUTEX_PRIVATE_FLAG) as usize;
    let arguments = [address, operation, 0, 0, address, value as usize];
    // SAFETY: the kernel reads the word, or says that it cannot.
    match unsafe { ask(libc::SYS_futex, arguments) } {
        Ok(_) => Some(true),
        Err(libc::EAGAIN | libc::EFAULT) => Some(false),
        Err(_) => None,
    }
}

/// Copies `bytes` bytes of `process` at `from` to `to`, as far as they can be read (process_vm_readv(2)): how many.
///
/// # Safety
/// The bytes at `to` are the caller's.
pub(super) unsafe fn copy_from(process: usize, from: usize, to: usize, bytes: usize) -> usize {
    let (here, there) = ([to, bytes], [from, bytes]);
    let [here, there] = [&here, &there].map(|place| place.as_ptr() as usize);
    // SAFETY: the kernel writes at most `bytes` bytes at `to`, and reads what can be read.
    let copied = unsafe { ask(libc::SYS_process_vm_readv, [process, here, 1, there, 1, 0]) };
    copied.unwrap_or(0).min(bytes)
}

/// Waits for so many milliseconds: futex(2) on a word that nobody else knows.
pub(super) fn rest(milliseconds: u64) {
    let word = 0u32;
    let time = libc::timespec {
        tv_sec: (milliseconds / 1000) as libc::time_t,
        tv_nsec: (milliseconds % 1000 * 1_000_000) as libc::c_long,
    };
    let operation = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize;
    let (place, time) = (ptr::from_ref(&word) as usize, ptr::from_ref(&time) as usize);
    // SAFETY: the kernel reads the word and the time.
    let _ = unsafe { ask(libc::SYS_futex, [place, operation, 0, time]) };
}

/// The calling thread blocks the signals of `mask` from now on, a bit each, and no others: those that it did before
/// (rt_sigprocmask(2)).
pub(super) fn mask_signals(mask: u64) -> u64 {
    let mut before = 0u64;
    let (new, old) = (
        ptr::from_ref(&mask) as usize,
        ptr::from_mut(&mut before) as usize,
    );
    // SAFETY: eight bytes each, to read and to write.
    let _ = unsafe {
        ask(
            libc::SYS_rt_sigprocmask,
            [libc::SIG_SETMASK as usize, new, old, 8],
        )
    };
    before
}

/// Names the calling thread (prctl(2)), in 15 letters at most.
pub fn name_thread(name: &'static CStr) {
    // SAFETY: the string ends in a nul, and the kernel only reads it.
    let _ = unsafe {
        ask(
            libc::SYS_prctl,
            [libc::PR_SET_NAME as usize, name.as_ptr() as usize],
        )
    };
}

/// A barrier on every processor that runs a thread of the process (membarrier(2), Linux 4.14), which is to be registered
/// for once.
pub(super) fn barrier() -> bool {
    const PRIVATE_EXPEDITED: usize = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: usize = 1 << 4;
    // SAFETY: membarrier(2) orders accesses, and changes no memory.
    let order = |command| unsafe { ask(libc::SYS_membarrier, [command, 0]) };
    match order(PRIVATE_EXPEDITED) {
        Err(libc::EPERM) => {
            order(REGISTER_PRIVATE_EXPEDITED).is_ok() && order(PRIVATE_EXPEDITED).is_ok()
        }
        answer => answer.is_ok(),
    }
}

/// The auxiliary vector (prctl(2), `PR_GET_AUXV`, Linux 6.4): how many of its words are in `words`.
pub(super) fn auxiliary(words: &mut [usize]) -> usize {
    const GET_AUXV: usize = 0x41555856;
    let (place, bytes) = (words.as_mut_ptr() as usize, core::mem::size_of_val(words));
    // SAFETY: prctl(2) writes at most the bytes of `words`.
    let got = unsafe { ask(libc::SYS_prctl, [GET_AUXV, place, bytes, 0, 0]) };
    got.map_or(0, |got| got / core::mem::size_of::<usize>())
        .min(words.len())
}

/// A non-null address, out of an answer.
pub(super) fn address(answer: Answer) -> Option<NonNull<u8>> {
    NonNull::new(answer.ok()? as *mut c_void).map(NonNull::cast)
}
