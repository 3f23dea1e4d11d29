//! The Linux system calls behind [`Os`], through libc.
//!
//! The break is moved by libc's `sbrk` and never by a raw call: libc caches where the break stands, and
//! a stale cache would let somebody else's `sbrk` shrink the heap under us.

use super::calls;
use super::steady::Steady;
use super::{Huge, Limits, NextMalloc, Os};
use crate::misuse::{Line, Misuse};
use crate::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicPtr;

/// The running Linux system.
pub struct Linux {
    hooks: Hooks,
    /// The thread-specific-data key whose destructor is the exit hook, plus one; 0: none yet.
    key: AtomicU32,
    /// Non-zero where no other malloc moves the break.
    sole: AtomicU32,
    fences: Fences,
    /// backtrace(3), once stacks can be told; null: not.
    backtrace: AtomicPtr<libc::c_void>,
    /// Non-zero where huge pages are asked for.
    huge: AtomicU32,
    time: Steady,
}

/// How pages are made to fault.
struct Fences {
    /// One of `UNTRIED`, `BY_GUARD`, `BY_PROTECTION`.
    way: AtomicU32,
    /// Pages protected, each of which splits a mapping in three.
    protected: AtomicUsize,
    /// How many there may be: half of `vm.max_map_count` in mappings.
    most: AtomicUsize,
}

const UNTRIED: u32 = 0;
const BY_GUARD: u32 = 1;
const BY_PROTECTION: u32 = 2;

/// `mseal(2)`, Linux 6.10: its number is the same on all architectures.
const MSEAL: libc::c_long = 462;
/// madvise(2): `MADV_GUARD_INSTALL`, Linux 6.13: a mark in the page tables, no mapping of its own.
const GUARD_INSTALL: libc::c_int = 102;
/// mmap(2): `MAP_FIXED_NOREPLACE`, Linux 4.17.
const ONLY_WHERE_FREE: libc::c_int = libc::MAP_FIXED_NOREPLACE;
/// Bits of an address that the random place of a reserve is drawn from: 64 TiB.
const RANDOM_BITS: u32 = 46;

/// What is to be called, and when.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Once, when the first thread has its heap.
    pub started: fn(),
    /// At the end of each watched thread, with what was given to [`Os::watch_thread`].
    pub thread_exit: unsafe extern "C" fn(*mut libc::c_void),
    /// Before each fork(2), after other handlers if they were registered later. Holds no lock on return.
    pub fork_prepare: unsafe extern "C" fn(),
    /// After each fork(2), in the parent.
    pub fork_parent: unsafe extern "C" fn(),
    /// In each child of fork(2), before its other handlers if they were registered later.
    pub fork_child: unsafe extern "C" fn(),
    /// In each fork child, before its heap is repaired.
    pub forked: fn(),
    /// At a fault, with its address, from a signal handler: takes no lock, allocates nothing.
    pub fault: fn(usize),
}

extern "C" {
    /// getenv(3), null in set-user-id programs; glibc and musl have it, the libc crate does not.
    fn secure_getenv(name: *const core::ffi::c_char) -> *const core::ffi::c_char;
    /// Size of an OS page; as above. sysconf(3) touches two pages of libc that a small program does not.
    fn getpagesize() -> core::ffi::c_int;
}

/// Bytes of a huge page on most machines; elsewhere a guess that only decides who is asked.
const HUGE_PAGE: usize = 2 << 20;

impl Linux {
    /// The running system, with no hook registered yet.
    pub const fn new(hooks: Hooks) -> Linux {
        Linux {
            hooks,
            key: AtomicU32::new(0),
            sole: AtomicU32::new(0),
            fences: Fences {
                way: AtomicU32::new(UNTRIED),
                protected: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
            },
            backtrace: AtomicPtr::new(ptr::null_mut()),
            huge: AtomicU32::new(0),
            time: Steady::new(),
        }
    }

    /// From now on no other malloc moves the break: this one is the process's.
    pub fn be_sole_malloc(&self) {
        self.sole.store(1, Relaxed);
    }

    /// Asks for huge pages in a fresh range, where they were asked for and one fits.
    fn advise_mapped(&self, start: usize, bytes: usize) {
        if bytes < HUGE_PAGE || self.huge.load(Relaxed) == 0 {
            return;
        }
        let page = start.next_multiple_of(self.page_size());
        let bytes = bytes - (page - start);
        // SAFETY: advice on our own fresh range; where there are no huge pages it fails and changes nothing.
        keeping_errno(|| unsafe { libc::madvise(page as *mut _, bytes, libc::MADV_HUGEPAGE) });
    }

    /// Whether the break can be moved without another thread moving it at the same time. libc's `sbrk`
    /// is not atomic: two that overlap give both callers the same memory. So beside another malloc the
    /// break is moved only while there is one thread; the directory of a process's threads has two links
    /// and one for each (proc(5)).
    fn may_move_break(&self) -> bool {
        if self.sole.load(Relaxed) != 0 {
            return true;
        }
        // Cheaper, and a filter of system calls (seccomp(2)) has no say in it.
        if let Some(single) = super::loader::is_single_threaded() {
            return single;
        }
        let mut status = core::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the path is a string and `status` a place to write to; all zeros is a valid answer.
        let links = keeping_errno(|| unsafe {
            libc::stat(c"/proc/self/task".as_ptr(), status.as_mut_ptr());
            status.assume_init().st_nlink
        });
        links == 3
    }
}

/// Runs `call` and puts errno back to what it was.
fn keeping_errno<T>(call: impl FnOnce() -> T) -> T {
    // SAFETY: the calling thread's own errno.
    let errno = unsafe { *libc::__errno_location() };
    let result = call();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    result
}

fn map_anonymous(bytes: usize, access: libc::c_int, flags: libc::c_int) -> Option<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches nobody's memory.
    let start =
        keeping_errno(|| unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) });
    if start == libc::MAP_FAILED {
        return None;
    }
    NonNull::new(start.cast())
}

const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

fn limit_of(resource: libc::__rlimit_resource_t) -> usize {
    let limit = keeping_errno(|| calls::limit_of(resource as _));
    usize::try_from(limit).unwrap_or(usize::MAX)
}

impl Os for Linux {
    fn page_size(&self) -> usize {
        // SAFETY: no arguments to get wrong.
        unsafe { getpagesize() as usize }
    }

    fn break_end(&self) -> Option<usize> {
        self.move_break(0)
    }

    fn move_break(&self, delta: isize) -> Option<usize> {
        if delta != 0 && !self.may_move_break() {
            return None;
        }
        // SAFETY: the caller owns what a negative delta gives back; a positive one takes fresh pages.
        let old = keeping_errno(|| unsafe { libc::sbrk(delta) }) as isize;
        if old == -1 || old == 0 {
            return None;
        }
        Some(old as usize)
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let start = map_anonymous(bytes, libc::PROT_NONE, libc::MAP_NORESERVE)?;
        // SAFETY: our own fresh range. Failure only means a larger core dump.
        keeping_errno(|| unsafe {
            libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTDUMP)
        });
        Some(start)
    }

    unsafe fn open(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's range is within a reserve.
        keeping_errno(|| unsafe { libc::mprotect(start.as_ptr().cast(), bytes, READ_WRITE) == 0 })
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        if align <= self.page_size() {
            let start = map_anonymous(bytes, READ_WRITE, 0)?;
            self.advise_mapped(start.as_ptr() as usize, bytes);
            return Some(start);
        }
        let whole = map_anonymous(bytes.checked_add(align)?, READ_WRITE, 0)?;
        let head = whole.as_ptr().align_offset(align);
        // SAFETY: head and tail are parts of the fresh mapping, and the block between stays; `head` is at
        // most `align`, so all three parts lie within `bytes + align`.
        unsafe {
            let start = whole.add(head);
            if head > 0 {
                self.unmap(whole, head);
            }
            if head < align {
                self.unmap(start.add(bytes), align - head);
            }
            Some(start)
        }
    }

    fn map_at(&self, start: usize, bytes: usize) -> bool {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let wanted = start as *mut libc::c_void;
        // SAFETY: a mapping that replaces none touches nobody's memory (Linux 4.17).
        let at = keeping_errno(|| unsafe { libc::mmap(wanted, bytes, READ_WRITE, flags, -1, 0) });
        if at == wanted {
            self.advise_mapped(start, bytes);
            return true;
        }
        if at != libc::MAP_FAILED {
            // SAFETY: our own fresh mapping: an older kernel takes the address for a hint.
            keeping_errno(|| unsafe { libc::munmap(at, bytes) });
        }
        false
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller gives up the range.
        keeping_errno(|| unsafe { libc::munmap(start.as_ptr().cast(), bytes) == 0 })
    }

    unsafe fn remap(&self, start: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller owns the old range and follows it to where it moves.
        let moved = keeping_errno(|| unsafe {
            libc::mremap(start.as_ptr().cast(), old, new, libc::MREMAP_MAYMOVE)
        });
        if moved == libc::MAP_FAILED {
            return None;
        }
        NonNull::new(moved.cast())
    }

    unsafe fn stretch(&self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        // SAFETY: the caller's mapping, which stays where it is.
        keeping_errno(|| unsafe {
            libc::mremap(start.as_ptr().cast(), old, new, 0) != libc::MAP_FAILED
        })
    }

    unsafe fn discard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller says that the contents are dead.
        keeping_errno(|| unsafe {
            libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED) == 0
        })
    }

    fn locks_new_pages(&self) -> bool {
        let bytes = self.page_size();
        let Some(page) = map_anonymous(bytes, READ_WRITE, 0) else {
            return false;
        };
        // SAFETY: a fresh page of our own. What is locked cannot be dropped (madvise(2)).
        unsafe {
            let locked = !self.discard(page, bytes);
            self.unmap(page, bytes);
            locked
        }
    }

    fn name(&self, start: NonNull<u8>, bytes: usize, name: &'static core::ffi::CStr) {
        keeping_errno(|| calls::name_range(start.as_ptr(), bytes, name));
    }

    fn clock(&self) -> u64 {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `now` is a place to write to; the clock exists since Linux 2.6.32.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
        let now = now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000;
        self.time.tell(now)
    }

    fn random(&self) -> u64 {
        let word = keeping_errno(calls::random);
        // Where that failed, at least an address mixes in.
        word ^ (ptr::from_ref(&word) as u64).rotate_left(32) ^ self.clock()
    }

    fn limits(&self) -> Limits {
        Limits {
            address_space: limit_of(libc::RLIMIT_AS),
            data: limit_of(libc::RLIMIT_DATA),
        }
    }

    fn begin(&self) {
        let mut key = 0;
        // SAFETY: `key` is a place to write to; the hooks are functions for the process's life, since
        // the preload library cannot be unloaded.
        keeping_errno(|| unsafe {
            if libc::pthread_key_create(&mut key, Some(self.hooks.thread_exit)) == 0 {
                self.key.store(key + 1, Relaxed);
            }
            let hooks = &self.hooks;
            let (prepare, parent) = (Some(hooks.fork_prepare), Some(hooks.fork_parent));
            libc::pthread_atfork(prepare, parent, Some(hooks.fork_child));
            (self.hooks.started)();
        });
    }

    fn options(&self) -> &'static [u8] {
        // SAFETY: reads the environment, which nobody changes this early; null in set-user-id programs.
        let text = unsafe { secure_getenv(crate::os::OPTIONS.as_ptr()) };
        if text.is_null() {
            return &[];
        }
        // SAFETY: a string of the environment; it is read at once.
        unsafe { core::ffi::CStr::from_ptr(text) }.to_bytes()
    }

    fn own_options(&self) -> &'static [u8] {
        let variable = weak!("slabside_options") as *const *const core::ffi::c_char;
        if variable.is_null() {
            return &[];
        }
        // SAFETY: the program's variable of this name is a pointer (include/slabside.h), to a string or null.
        unsafe {
            let text = variable.read();
            if text.is_null() {
                return &[];
            }
            core::ffi::CStr::from_ptr(text).to_bytes()
        }
    }

    fn say(&self, line: &[u8]) {
        keeping_errno(|| calls::write(libc::STDERR_FILENO, line));
    }

    fn prefer_huge_pages(&self) {
        self.huge.store(1, Relaxed);
    }

    unsafe fn advise_huge(&self, start: NonNull<u8>, bytes: usize, huge: Huge) {
        let advice = match huge {
            Huge::Wanted => libc::MADV_HUGEPAGE,
            Huge::Unwanted => libc::MADV_NOHUGEPAGE,
        };
        // SAFETY: the caller's range; advice changes no contents.
        keeping_errno(|| unsafe { libc::madvise(start.as_ptr().cast(), bytes, advice) });
    }

    fn next_malloc(&self) -> Option<NextMalloc> {
        keeping_errno(super::loader::next_malloc)
    }

    fn stay_loaded(&self) {
        keeping_errno(super::loader::stay_loaded);
    }

    fn thread_id(&self) -> u64 {
        // SAFETY: no arguments to get wrong.
        let (process, thread) = unsafe { (calls::getpid(), libc::syscall(libc::SYS_gettid)) };
        (process as u64) << 32 | thread as u64
    }

    fn is_gone(&self, id: u64) -> bool {
        let (process, thread) = ((id >> 32) as libc::pid_t, id as u32);
        // SAFETY: signal 0 only asks whether there is such a thread (tgkill(2)).
        keeping_errno(|| unsafe {
            process == calls::getpid()
                && libc::syscall(libc::SYS_tgkill, process, thread, 0) == -1
                && *libc::__errno_location() == libc::ESRCH
        })
    }

    fn invalid(&self) {
        // SAFETY: the calling thread's own errno.
        unsafe { *libc::__errno_location() = libc::EINVAL };
    }

    fn exhausted(&self) {
        // SAFETY: the calling thread's own errno.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
    }

    fn fork_mark(&self) -> Option<&'static AtomicU32> {
        let bytes = self.page_size();
        let page = self.map(bytes, 1)?;
        // SAFETY: the fresh page is ours for good, zero is a valid word, and madvise changes only what a
        // child finds there (MADV_WIPEONFORK, Linux 4.14).
        unsafe {
            let advice = libc::MADV_WIPEONFORK;
            if keeping_errno(|| libc::madvise(page.as_ptr().cast(), bytes, advice)) != 0 {
                self.unmap(page, bytes);
                return None;
            }
            let mark = page.cast::<AtomicU32>().as_ref();
            mark.store(1, Relaxed);
            Some(mark)
        }
    }

    fn forked(&self) {
        (self.hooks.forked)();
    }

    fn memory(&self) -> usize {
        let info = keeping_errno(calls::sysinfo);
        let bytes = (info.totalram as usize).saturating_add(info.totalswap as usize);
        bytes.saturating_mul(info.mem_unit as usize)
    }

    fn watch_thread(&self, thread: NonNull<u8>) {
        let key = self.key.load(Relaxed);
        if key != 0 {
            // SAFETY: the key was created by `begin` and is never deleted.
            keeping_errno(|| unsafe { libc::pthread_setspecific(key - 1, thread.as_ptr().cast()) });
        }
    }

    fn die(&self, misuse: &Misuse) -> ! {
        tell(&misuse.line());
        // SAFETY: abort does not return, and may run a handler of SIGABRT, which finds no lock of ours held.
        unsafe { libc::abort() }
    }

    fn die_telling(&self, misuse: &Misuse, details: &Line, stacks: &[(&str, &[usize])]) -> ! {
        tell(&misuse.line());
        tell(details);
        let mut frames = [0; FRAMES];
        let known = self.stack(&mut frames);
        self.say_stack(&frames[..known]);
        for (title, frames) in stacks {
            tell(Line::new().text("  ").text(title).text("\n"));
            self.say_stack(frames);
        }
        // SAFETY: as above.
        unsafe { libc::abort() }
    }

    fn say_stack(&self, frames: &[usize]) {
        frames.iter().for_each(|&at| tell_frame(at));
    }

    fn watch_faults(&self) {
        FAULT.store(self.hooks.fault as *mut (), Relaxed);
        let mut action = core::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeros but for what is set is a valid action; the handler is a function for the
        // process's life, and calls what was there before.
        unsafe {
            let place = action.as_mut_ptr();
            (*place).sa_sigaction = handle_fault as *const () as usize;
            (*place).sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            keeping_errno(|| libc::sigaction(libc::SIGSEGV, place, BEFORE.0.get()));
        }
    }

    fn reserve_anywhere(&self, bytes: usize) -> Option<NonNull<u8>> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | ONLY_WHERE_FREE;
        for _ in 0..RANDOM_TRIES {
            let page = self.page_size();
            let wanted = (self.random() as usize % (1 << RANDOM_BITS)).max(1 << 32) / page * page;
            // SAFETY: NOREPLACE touches nobody's mapping; older kernels take the address as a wish.
            let start = keeping_errno(|| unsafe {
                libc::mmap(wanted as *mut _, bytes, libc::PROT_NONE, flags, -1, 0)
            });
            if start == libc::MAP_FAILED {
                continue;
            }
            // SAFETY: our own fresh range. Failure only means a larger core dump.
            keeping_errno(|| unsafe { libc::madvise(start, bytes, libc::MADV_DONTDUMP) });
            return NonNull::new(start.cast());
        }
        self.reserve(bytes)
    }

    unsafe fn seal(&self, start: NonNull<u8>, bytes: usize) -> bool {
        keeping_errno(|| {
            // SAFETY: the caller's: nobody writes there any more.
            let done =
                unsafe { libc::mprotect(start.as_ptr().cast(), bytes, libc::PROT_READ) == 0 };
            // SAFETY: from now on the kernel refuses to change the mapping; older ones know no such call.
            unsafe { libc::syscall(MSEAL, start.as_ptr(), bytes, 0usize) };
            done
        })
    }

    unsafe fn fence(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let fences = &self.fences;
        if fences.way.load(Relaxed) != BY_PROTECTION {
            // SAFETY: the caller's: the contents are dead.
            let done = keeping_errno(|| unsafe {
                libc::madvise(start.as_ptr().cast(), bytes, GUARD_INSTALL) == 0
            });
            if done {
                fences.way.store(BY_GUARD, Relaxed);
                return true;
            }
            if fences.way.load(Relaxed) == BY_GUARD {
                return false;
            }
            fences.most.store(max_mappings() / 4, Relaxed);
            fences.way.store(BY_PROTECTION, Relaxed);
        }
        if fences.protected.fetch_add(1, Relaxed) >= fences.most.load(Relaxed) {
            fences.protected.fetch_sub(1, Relaxed);
            return false;
        }
        // SAFETY: the caller's.
        keeping_errno(|| unsafe {
            libc::mprotect(start.as_ptr().cast(), bytes, libc::PROT_NONE) == 0
        })
    }

    fn fences_gone(&self, count: usize) {
        if self.fences.way.load(Relaxed) == BY_PROTECTION {
            let less = |now: usize| Some(now.saturating_sub(count));
            let _ = self.fences.protected.fetch_update(Relaxed, Relaxed, less);
        }
    }

    unsafe fn close(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let start = start.as_ptr().cast();
        // SAFETY: the caller gives the contents up and keeps the range.
        keeping_errno(|| unsafe {
            libc::mmap(start, bytes, libc::PROT_NONE, flags, -1, 0) != libc::MAP_FAILED
        })
    }

    fn stack(&self, frames: &mut [usize]) -> usize {
        let backtrace = self.backtrace.load(Relaxed);
        if backtrace.is_null() {
            return 0;
        }
        // SAFETY: `prepare_stacks` found the function under its name; its type is that of glibc's manual.
        let backtrace: Backtrace = unsafe { core::mem::transmute(backtrace) };
        // SAFETY: writes at most so many addresses.
        let known = keeping_errno(|| unsafe {
            backtrace(frames.as_mut_ptr().cast(), frames.len() as libc::c_int)
        });
        usize::try_from(known).unwrap_or(0).min(frames.len())
    }

    fn prepare_stacks(&self) {
        // SAFETY: the name is a string; looking a symbol up changes nothing.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"backtrace".as_ptr()) };
        if found.is_null() || !self.backtrace.load(Relaxed).is_null() {
            return;
        }
        // The first call loads the unwinder, which allocates; later ones do not. Nobody else is to call it
        // before: loading does not nest.
        // SAFETY: as in `stack`, with room for one address.
        unsafe {
            let backtrace: Backtrace = core::mem::transmute(found);
            keeping_errno(|| backtrace(&mut ptr::null_mut(), 1));
        }
        self.backtrace.store(found, Relaxed);
    }
}

/// The hook for faults.
#[link_section = ".data"] // See `preload/build.rs`.
static FAULT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

struct Before(core::cell::UnsafeCell<libc::sigaction>);
// SAFETY: written once, before the handler that reads it is in place.
unsafe impl Sync for Before {}

/// What handled faults before.
#[link_section = ".data"]
static BEFORE: Before = Before(core::cell::UnsafeCell::new(
    // SAFETY: all zeros is a valid action, the default one.
    unsafe { core::mem::zeroed() },
));

/// Tells of a fault, and lets it happen again under whoever handled faults before.
extern "C" fn handle_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives the fault's address; the old action is put back, so this runs once.
    unsafe {
        let hook = FAULT.load(Relaxed);
        libc::sigaction(libc::SIGSEGV, BEFORE.0.get(), ptr::null_mut());
        if !hook.is_null() {
            let hook: fn(usize) = core::mem::transmute(hook);
            hook((*info).si_addr() as usize);
        }
    }
}

type Backtrace = unsafe extern "C" fn(*mut *mut libc::c_void, libc::c_int) -> libc::c_int;

/// The most frames that a report names.
const FRAMES: usize = 24;
/// The last bytes of a file's name that a frame is told with.
const NAME: usize = 80;
/// Random places that are tried for a reserve.
const RANDOM_TRIES: usize = 8;
/// `vm.max_map_count` where it cannot be read.
const MAPPINGS: usize = 65_530;

fn tell(line: &Line) {
    calls::write(libc::STDERR_FILENO, line.bytes());
}

/// A line for one frame: its address, and where in which file, as far as the dynamic linker knows.
fn tell_frame(at: usize) {
    let mut line = Line::new();
    line.text("    at ").hex(at);
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is a place to write to, and all zeros is a valid answer; the name it holds is a
    // string of the dynamic linker's.
    unsafe {
        if libc::dladdr(at as *const _, info.as_mut_ptr()) != 0 {
            let info = info.assume_init();
            if !info.dli_fname.is_null() {
                line.text(" ");
                let name = core::ffi::CStr::from_ptr(info.dli_fname).to_bytes();
                let name = &name[name.len().saturating_sub(NAME)..];
                line.text(core::str::from_utf8(name).unwrap_or("?"));
                line.text("+").hex(at - info.dli_fbase as usize);
            }
        }
    }
    line.text("\n");
    tell(&line);
}

/// How many mappings a process may have.
fn max_mappings() -> usize {
    let mut text = [0u8; 16];
    // SAFETY: the path is a string, and the buffer a place to write to.
    let length = keeping_errno(|| unsafe {
        let path = c"/proc/sys/vm/max_map_count".as_ptr();
        let file = calls::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0);
        if file < 0 {
            return -1;
        }
        let length = calls::read(file, text.as_mut_ptr(), text.len());
        calls::close(file);
        length
    });
    let Ok(length) = usize::try_from(length) else {
        return MAPPINGS;
    };
    let digits = text[..length]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, byte| sum * 10 + usize::from(byte - b'0'))
}
