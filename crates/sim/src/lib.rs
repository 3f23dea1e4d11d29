//! A simulated system for tests and fuzzing: it keeps each page's state, panics on a wrong transition,
//! and fails when told to.
//!
//! All its memory is one range of the host's address space, the window:
//!
//! ```text
//!   | program | heap .... ^ absent ...... | gap | mapping | gap | mapping | gap | absent .... | gap |
//!   '- break start        '- break        '- map window: claim, reserve, map, remap                 '
//!   '------- break window ----------------'
//! ```
//!
//! What is claimed lies there as well, absent. Others are mapped there only where there is no room elsewhere, or on
//! command.
//!
//! Pages that are not usable are closed to the host as well, so that touching them crashes. Mappings
//! lie first fit with an absent page on either side, so that a call whose range is too long is found.
//! Knows nothing of the allocator: a test asks both, and compares.

#[cfg(not(miri))]
mod memory;
#[cfg(miri)]
mod memory_miri;
mod pages;
mod command;
mod the_break;
mod mappings;
#[cfg(test)]
mod tests;

use core::ops::Range;
use core::ptr::NonNull;
use memory::Memory;
#[cfg(miri)]
use memory_miri as memory;
use slabside_base::misuse::Misuse;
use slabside_base::os::{Hold, Host, Huge, Limits, Moved, Refusal, Vm, MAPPINGS};
use slabside_base::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};
use slabside_base::units::PAGE;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};

/// Alignment of the window, so that placement is the same in each run for alignments up to this.
const WINDOW_ALIGN: usize = 4 << 20;

/// What a [`Sim`] is made from. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Size of the window: all the memory there is. A multiple of `page_size`.
    pub bytes: usize,
    /// The part of the window that the break can move in. 0 means that there is no break.
    pub break_bytes: usize,
    /// Where the break starts, counted from the window's start. It may be unaligned. What lies before it is the
    /// program's own data: usable, counted nowhere, and not to be discarded.
    pub break_offset: usize,
    /// Size of an OS page: a power of two, at least the host's.
    pub page_size: usize,
    /// Whether each move of the break fails, from the start and for good.
    pub break_fails: bool,
    /// Limits that are in force, each counting the break as well.
    pub limits: Limits,
    /// Where the random words start.
    pub seed: u64,
    /// The options that the environment holds.
    pub options: &'static str,
    /// Whether a fork is noticed that runs no handlers (see [`Sim::fork`]).
    pub marks_forks: bool,
    /// Whether address space can be claimed, and need not be reserved.
    pub claims: bool,
}

impl Default for SimConfig {
    /// 256 MiB (4 MiB under Miri), half of it for an aligned break, 4 KiB pages, no limits.
    fn default() -> SimConfig {
        SimConfig {
            bytes: memory::DEFAULT_BYTES,
            break_bytes: memory::DEFAULT_BYTES / 2,
            break_offset: 0,
            page_size: PAGE,
            break_fails: false,
            limits: Limits {
                address_space: usize::MAX,
                data: usize::MAX,
            },
            seed: 0x9e37_79b9_7f4a_7c15,
            options: "",
            marks_forks: false,
            claims: true,
        }
    }
}

impl SimConfig {
    fn check(&self) {
        let (page, host) = (self.page_size, memory::host_page());
        assert!(
            page.is_power_of_two() && page >= host.max(PAGE),
            "sim: page size {page}"
        );
        assert!(
            self.bytes.is_multiple_of(page),
            "sim: window of {} bytes, pages of {page}",
            self.bytes
        );
        assert!(
            self.break_bytes.is_multiple_of(page),
            "sim: break window of {} bytes",
            self.break_bytes
        );
        let room = self.bytes.saturating_sub(2 * page);
        assert!(
            self.break_bytes < room,
            "sim: break window of {} bytes",
            self.break_bytes
        );
        assert!(
            self.break_offset <= self.break_bytes,
            "sim: break at {}",
            self.break_offset
        );
    }
}

/// A simulated system. Dropping it takes all its memory away.
///
/// If a call breaks the contract of [`Vm`], it panics and changes nothing, even if it was to fail on command. A range
/// may be empty, not whole pages, outside the window or in the wrong state. Or the caller gives back memory that a
/// foreign `sbrk` took.
#[derive(Debug)]
pub struct Sim {
    state: Mutex<State>,
    promise: OnceLock<Promise>,
    /// The number of whoever calls.
    thread: AtomicU64,
}

/// Every system's mark, which stays for good.
static MARKS: Mutex<Vec<&'static AtomicU32>> = Mutex::new(Vec::new());

/// What holds whenever the system is called.
struct Promise(Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Promise")
    }
}

/// What one page of the window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// Nothing: not taken, or given back.
    Absent,
    /// The program's data below the break's start.
    Program,
    /// Absent, and chosen by `claim`.
    Claimed,
    /// Somebody else's.
    Others,
    /// Taken by `reserve`, closed.
    Reserved,
    /// Taken by `reserve` or chosen by `claim`, and opened: usable.
    Opened,
    /// Taken by `map` or `remap`: usable.
    Mapped,
    /// Below the break: usable.
    Heap,
}

/// How many variants [`Page`] has.
const PAGE_KINDS: usize = Page::Heap as usize + 1;

/// Which fallible calls fail on command, counted from the [`Sim`]'s first.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Never,
    At(usize),
    From(usize),
}

#[derive(Debug)]
struct State {
    memory: Memory,
    config: SimConfig,
    /// Whether the last `move_over` that failed lost its place.
    loses: bool,
    pages: Vec<Page>,
    /// How many pages there are of each kind.
    counts: [usize; PAGE_KINDS],
    /// Pages that were claimed, whatever lies there now.
    claims: Vec<Range<usize>>,
    /// Address where the break stands.
    position: usize,
    /// Addresses that a foreign `sbrk` took. Ascending and apart.
    foreign: Vec<Range<usize>>,
    /// Fallible calls so far.
    calls: usize,
    plan: Plan,
    /// Whether a call failed on command since the plan was made.
    failed: bool,
    clock: u64,
    /// Never zero, or xorshift would stay there.
    random: u64,
    watched: usize,
    /// 1 until the process forks. Made at the first question for it.
    mark: Option<&'static AtomicU32>,
}

impl Sim {
    /// A system as `config` says: nothing is mapped, the clock stands at 0 and no call is to fail.
    ///
    /// # Panics
    /// Where `config` contradicts itself or the host lacks the memory.
    pub fn new(config: SimConfig) -> Sim {
        config.check();
        Sim {
            state: Mutex::new(State::new(config)),
            promise: OnceLock::new(),
            thread: AtomicU64::new(0),
        }
    }

    /// The process goes on as a child that ran no handlers: the mark for forks is wiped. Whether there was one.
    pub fn fork(&self) -> bool {
        let mark = self.lock().mark;
        mark.inspect(|mark| mark.store(0, Relaxed)).is_some()
    }

    /// From now on whoever calls has this number (see [`Host::thread_id`]).
    pub fn call_as(&self, thread: u64) {
        self.thread.store(thread, Relaxed);
    }

    /// From now on panics at each call that moves the break, takes, changes, opens or gives back memory, reads the clock or
    /// the stack, asks for a random word or runs a barrier, unless `promise` holds. So tests can see what the caller does not do over a system call. Once.
    pub fn expect_at_calls(&self, promise: impl Fn() -> bool + Send + Sync + 'static) {
        let known = self.promise.set(Promise(Box::new(promise)));
        assert!(known.is_ok(), "sim: there is a promise already");
    }

    /// Lets the `n`-th fallible call from now fail, once. 0 is the next. Replaces any earlier command.
    ///
    /// Fallible calls are `claim`, `reserve`, `open`, `map`, `unmap`, `remap`, `discard` and each `move_break`
    /// by other than 0.
    pub fn fail_at(&self, n: usize) {
        let mut state = self.lock();
        let plan = Plan::At(state.calls + n);
        state.follow(plan);
    }

    /// Lets the `n`-th fallible call from now and all after it fail. Replaces any earlier command.
    pub fn fail_from(&self, n: usize) {
        let mut state = self.lock();
        let plan = Plan::From(state.calls + n);
        state.follow(plan);
    }

    /// Lets no more calls fail on command.
    pub fn never_fail(&self) {
        self.lock().follow(Plan::Never);
    }

    /// Whether a call failed on command since the last `fail_at`, `fail_from` or `never_fail`.
    pub fn failed(&self) -> bool {
        self.lock().failed
    }

    /// Fallible calls so far, failed ones included.
    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// Moves the break as another library would, and returns where it stood before. `None` if `sbrk` fails. Neither
    /// counted as a call nor failing on command.
    ///
    /// # Panics
    /// If a negative `delta` gives back memory that no foreign `sbrk` took.
    pub fn foreign_sbrk(&self, delta: isize) -> Option<usize> {
        self.lock().foreign_sbrk(delta)
    }

    /// Lets the clock go on by `ms` milliseconds.
    pub fn advance_clock(&self, ms: u64) {
        self.lock().clock += ms;
    }

    /// Bytes of usable pages: the break's, foreign ones included, and what is mapped or opened.
    pub fn usable_bytes(&self) -> usize {
        let state = self.lock();
        state.usable() * state.config.page_size
    }

    /// Bytes of pages that are reserved and not opened.
    pub fn reserved_bytes(&self) -> usize {
        let state = self.lock();
        state.count(Page::Reserved) * state.config.page_size
    }

    /// Bytes of pages that are claimed and not opened.
    pub fn claimed_bytes(&self) -> usize {
        let state = self.lock();
        state.count(Page::Claimed) * state.config.page_size
    }

    /// Lets somebody else map the page at `address`: whether nothing lay there.
    pub fn intrude(&self, address: usize) -> bool {
        self.lock().intrude(address)
    }

    /// Address where the break stands.
    pub fn break_position(&self) -> usize {
        self.lock().position
    }

    /// Address where the break started: it never stands below.
    pub fn break_start(&self) -> usize {
        self.lock().break_start()
    }

    /// How often [`Host::watch_thread`] was called.
    pub fn watched(&self) -> usize {
        self.lock().watched
    }

    /// The state, for a call over which no lock may be held.
    fn call(&self) -> MutexGuard<'_, State> {
        let kept = self.promise.get().is_none_or(|promise| promise.0());
        assert!(kept, "sim: called while what was promised does not hold");
        self.lock()
    }

    /// The state, also after a panic of ours: those leave it unchanged.
    /// By tries alone: thread sanitizer does not see how std waits.
    fn lock(&self) -> MutexGuard<'_, State> {
        loop {
            match self.state.try_lock() {
                Ok(state) => return state,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
    }
}

impl Default for Sim {
    fn default() -> Sim {
        Sim::new(SimConfig::default())
    }
}

impl Vm for Sim {
    fn page_size(&self) -> usize {
        self.lock().config.page_size
    }

    fn break_end(&self) -> Option<usize> {
        self.lock().break_end()
    }

    fn move_break(&self, delta: isize) -> Option<usize> {
        self.call().move_break(delta)
    }

    fn claim(&self, bytes: usize) -> Result<NonNull<u8>, Refusal> {
        self.call().claim(bytes)
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.call().reserve(bytes)
    }

    unsafe fn open(&self, start: NonNull<u8>, bytes: usize, hold: Hold) -> Result<(), Refusal> {
        self.call().open(start, bytes, hold)
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        self.call().map(bytes, align)
    }

    fn map_at(&self, start: usize, bytes: usize) -> bool {
        self.call().map_at(start, bytes)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller keeps the contract of `Os`, and it is passed on unchanged.
        unsafe { self.call().unmap(start, bytes) }
    }

    unsafe fn remap(&self, start: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller keeps the contract of `Os`, and it is passed on unchanged.
        unsafe { self.call().remap(start, old, new) }
    }

    unsafe fn move_over(&self, start: NonNull<u8>, bytes: usize, to: NonNull<u8>) -> Moved {
        // SAFETY: the caller keeps the contract of `Os`, and it is passed on unchanged.
        unsafe { self.call().move_over(start, bytes, to) }
    }

    unsafe fn move_out(
        &self,
        start: NonNull<u8>,
        bytes: usize,
        place: usize,
        part: usize,
        least: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller keeps the contract of `Os`, and it is passed on unchanged.
        unsafe { self.call().move_out(start, bytes, place, part, least) }
    }

    unsafe fn move_in(&self, start: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Moved {
        // SAFETY: the caller keeps the contract of `Os`, and it is passed on unchanged.
        unsafe { self.call().move_in(start, old, to, new) }
    }

    unsafe fn stretch(&self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        self.call().stretch(start, old, new)
    }

    unsafe fn discard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller keeps the contract of `Os`, and it is passed on unchanged.
        unsafe { self.call().discard(start, bytes) }
    }

    fn name(&self, start: NonNull<u8>, bytes: usize, _name: &'static core::ffi::CStr) {
        let state = self.lock();
        let range = state.range("name", start, bytes);
        state.expect(
            "name",
            range,
            &[Page::Reserved, Page::Opened, Page::Mapped, Page::Heap],
        );
    }

    fn clock(&self) -> u64 {
        self.call().clock
    }

    fn limits(&self) -> Limits {
        self.lock().config.limits
    }

    // A system without any of the following: hardened mode does without.

    unsafe fn fence(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }

    fn mappings(&self) -> usize {
        MAPPINGS
    }

    unsafe fn unfence(&self, _: NonNull<u8>, _: usize) -> bool {
        drop(self.call());
        true // None was closed.
    }

    fn fences_gone(&self, _: usize) {}

    unsafe fn close(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }

    unsafe fn seal(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }

    unsafe fn advise_huge(&self, _: NonNull<u8>, _: usize, _: Huge) {}

    fn prefer_huge_pages(&self) {}

    fn learn_huge_pages(&self) {}

    fn locks_new_pages(&self) -> bool {
        false
    }

    fn memory(&self) -> usize {
        usize::MAX
    }

    fn still_holds(&self, address: usize, value: u32) -> Option<bool> {
        Some(self.lock().still_holds(address, value))
    }
}

impl Host for Sim {
    fn thread_id(&self) -> u64 {
        self.thread.load(Relaxed)
    }

    fn fork_mark(&self) -> Option<&'static AtomicU32> {
        // Kept with the state: thread sanitizer does not see how a `OnceLock` hands its value on.
        let mut state = self.lock();
        if !state.config.marks_forks {
            return None;
        }
        Some(*state.mark.get_or_insert_with(|| {
            let mark: &AtomicU32 = Box::leak(Box::new(AtomicU32::new(1)));
            MARKS.lock().unwrap_or_else(|e| e.into_inner()).push(mark);
            mark
        }))
    }

    fn barrier(&self) -> bool {
        drop(self.call());
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        true
    }

    fn random(&self) -> u64 {
        self.call().random()
    }

    unsafe fn copy_own(&self, _: u32, _: usize, _: *mut u8, _: usize) -> usize {
        drop(self.call());
        0 // No stack can be read.
    }

    fn options(&self) -> &'static [u8] {
        self.lock().config.options.as_bytes()
    }

    fn watch_thread(&self, _thread: NonNull<u8>) {
        self.lock().watched += 1;
    }

    fn die(&self, misuse: &Misuse) -> ! {
        std::panic::panic_any(*misuse)
    }
}
