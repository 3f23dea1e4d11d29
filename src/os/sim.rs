//! A simulated system for tests and fuzzing: it keeps each page's state, panics on a wrong transition,
//! and fails when told to.
//!
//! All its memory is one range of the host's address space, the window:
//!
//! ```text
//!   | program | heap .... ^ absent ...... | gap | mapping | gap | mapping | gap | absent .... | gap |
//!   '- break start        '- break        '- map window: reserve, map, remap                        '
//!   '------- break window ----------------'
//! ```
//!
//! Pages that are not usable are closed to the host as well, so that touching them crashes. Mappings
//! lie first fit with an absent page on either side, so that a call whose range is too long is found.
//! Knows nothing of the allocator: a test asks both, and compares.

use super::{Limits, Os};
use crate::geometry::{align_up, PAGE};
use crate::misuse::Misuse;
use core::ops::Range;
use core::ptr::{self, NonNull};
use memory::Memory;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::vec::Vec;

/// Alignment of the window, so that placement is the same in each run for alignments up to this.
const WINDOW_ALIGN: usize = 4 << 20;

/// What a [`Sim`] is made from. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Size of the window: all the memory there is. A multiple of `page_size`.
    pub bytes: usize,
    /// The part of the window that the break can move in; 0: there is no break.
    pub break_bytes: usize,
    /// Where the break starts, counted from the window's start; may be unaligned. What lies before it
    /// is the program's own data: usable, counted nowhere, and not to be discarded.
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
/// Where the contract of [`Os`] is broken (a range that is empty, not whole pages, outside the window
/// or in the wrong state; memory given back that a foreign `sbrk` took) the call panics and changes
/// nothing, even if it was to fail on command.
#[derive(Debug)]
pub struct Sim {
    state: Mutex<State>,
}

/// What one page of the window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// Nothing: not taken, or given back.
    Absent,
    /// The program's data below the break's start.
    Program,
    /// Taken by `reserve`, closed.
    Reserved,
    /// Taken by `reserve` and opened: usable.
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
    pages: Vec<Page>,
    /// How many pages there are of each kind.
    counts: [usize; PAGE_KINDS],
    /// Address where the break stands.
    position: usize,
    /// Addresses that a foreign `sbrk` took; ascending and apart.
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
        }
    }

    /// Lets the `n`-th fallible call from now fail, once; 0 is the next. Replaces any earlier command.
    ///
    /// Fallible calls are `reserve`, `open`, `map`, `unmap`, `remap`, `discard` and each `move_break`
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

    /// Moves the break as another library would, and tells where it stood before; `None` where `sbrk`
    /// fails. Neither counted as a call nor failing on command.
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

    /// Address where the break stands.
    pub fn break_position(&self) -> usize {
        self.lock().position
    }

    /// Address where the break started: it never stands below.
    pub fn break_start(&self) -> usize {
        self.lock().break_start()
    }

    /// How often [`Os::watch_thread`] was called.
    pub fn watched(&self) -> usize {
        self.lock().watched
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

impl Os for Sim {
    fn page_size(&self) -> usize {
        self.lock().config.page_size
    }

    fn break_end(&self) -> Option<usize> {
        self.lock().break_end()
    }

    fn move_break(&self, delta: isize) -> Option<usize> {
        self.lock().move_break(delta)
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.lock().reserve(bytes)
    }

    unsafe fn open(&self, start: NonNull<u8>, bytes: usize) -> bool {
        self.lock().open(start, bytes)
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        self.lock().map(bytes, align)
    }

    fn map_at(&self, start: usize, bytes: usize) -> bool {
        self.lock().map_at(start, bytes)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise is the same.
        unsafe { self.lock().unmap(start, bytes) }
    }

    unsafe fn remap(&self, start: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.lock().remap(start, old, new) }
    }

    unsafe fn stretch(&self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        self.lock().stretch(start, old, new)
    }

    unsafe fn discard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise is the same.
        unsafe { self.lock().discard(start, bytes) }
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
        self.lock().clock
    }

    fn random(&self) -> u64 {
        self.lock().random()
    }

    fn limits(&self) -> Limits {
        self.lock().config.limits
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

/// The page table: states, counts, and the host's memory kept in step with them.
impl State {
    fn new(mut config: SimConfig) -> State {
        // What is reported is what can be had, so that the allocator sizes itself by it.
        config.limits.address_space = config.limits.address_space.min(config.bytes);
        let memory = Memory::new(config.bytes);
        let mut state = State {
            config,
            pages: std::vec![Page::Absent; config.bytes / config.page_size],
            counts: [0; PAGE_KINDS],
            position: memory.base() + config.break_offset,
            foreign: Vec::new(),
            calls: 0,
            plan: Plan::Never,
            failed: false,
            clock: 0,
            random: config.seed.max(1),
            watched: 0,
            memory,
        };
        state.counts[Page::Absent as usize] = state.pages.len();
        let program = state.pages_below(state.position);
        state.make_usable(0..program, Page::Program);
        state
    }

    fn count(&self, kind: Page) -> usize {
        self.counts[kind as usize]
    }

    fn usable(&self) -> usize {
        self.count(Page::Opened) + self.count(Page::Mapped) + self.count(Page::Heap)
    }

    /// How many pages of the window start below `address`.
    fn pages_below(&self, address: usize) -> usize {
        (address - self.memory.base()).div_ceil(self.config.page_size)
    }

    fn address(&self, page: usize) -> usize {
        self.memory.base() + page * self.config.page_size
    }

    fn pointer(&self, page: usize) -> NonNull<u8> {
        self.memory.at(page * self.config.page_size)
    }

    /// Offset and size of `pages` in the window, in bytes.
    fn extent(&self, pages: &Range<usize>) -> (usize, usize) {
        let page = self.config.page_size;
        (pages.start * page, pages.len() * page)
    }

    /// The number of pages in `bytes`, which must be whole pages and not none.
    fn whole(&self, call: &str, bytes: usize) -> usize {
        assert!(bytes > 0, "sim: {call} of an empty range");
        assert!(
            bytes.is_multiple_of(self.config.page_size),
            "sim: {call} of {bytes:#x} bytes, not whole pages"
        );
        bytes / self.config.page_size
    }

    /// The pages of a caller's range.
    fn range(&self, call: &str, start: NonNull<u8>, bytes: usize) -> Range<usize> {
        let count = self.whole(call, bytes);
        let address = start.as_ptr() as usize;
        assert!(
            address.is_multiple_of(self.config.page_size),
            "sim: {call} at {address:#x}, not a page's start"
        );
        let offset = address.wrapping_sub(self.memory.base());
        let inside = offset < self.config.bytes && bytes <= self.config.bytes - offset;
        assert!(
            inside,
            "sim: {call} of {bytes:#x} bytes at {address:#x}, outside the window"
        );
        let first = offset / self.config.page_size;
        first..first + count
    }

    /// Panics if any of `pages` is none of `allowed`.
    fn expect(&self, call: &str, mut pages: Range<usize>, allowed: &[Page]) {
        if let Some(page) = pages.find(|&page| !allowed.contains(&self.pages[page])) {
            let address = self.address(page);
            panic!(
                "sim: {call} of {} page at {address:#x}",
                self.pages[page].text()
            );
        }
    }

    /// Panics if any of `addresses` was taken by a foreign `sbrk`.
    fn expect_ours(&self, call: &str, addresses: Range<usize>) {
        let taken = |foreign: &&Range<usize>| {
            foreign.start < addresses.end && addresses.start < foreign.end
        };
        if let Some(foreign) = self.foreign.iter().find(taken) {
            panic!("sim: {call} of foreign memory {foreign:#x?}, asked for {addresses:#x?}");
        }
    }

    fn paint(&mut self, pages: Range<usize>, kind: Page) {
        for page in &mut self.pages[pages] {
            self.counts[*page as usize] -= 1;
            self.counts[kind as usize] += 1;
            *page = kind;
        }
    }

    /// Makes closed `pages` usable; usable ones among them stay as they are.
    fn make_usable(&mut self, pages: Range<usize>, kind: Page) {
        let mut at = pages.start;
        for run in self.pages[pages.clone()].chunk_by(|one, next| one == next) {
            let (offset, bytes) = self.extent(&(at..at + run.len()));
            if matches!(run[0], Page::Absent | Page::Reserved) {
                // SAFETY: pages of the window, since `pages` indexes them; nobody uses closed pages.
                unsafe { self.memory.open(offset, bytes) };
            }
            at += run.len();
        }
        self.paint(pages, kind);
    }

    /// Makes `pages` absent.
    ///
    /// # Safety
    /// Nobody uses them any more.
    unsafe fn make_absent(&mut self, pages: Range<usize>) {
        let (offset, bytes) = self.extent(&pages);
        self.paint(pages, Page::Absent);
        if bytes > 0 {
            // SAFETY: `paint` found all of them in the window; the caller gives them up.
            unsafe { self.memory.close(offset, bytes) };
        }
    }

    /// First fit for `count` pages at a multiple of `align`, with an absent page on either side.
    fn place(&self, count: usize, align: usize) -> Option<usize> {
        let mut at = self.config.break_bytes / self.config.page_size + 1;
        loop {
            let address = align_up(self.address(at), align.max(self.config.page_size))?;
            at = (address - self.memory.base()) / self.config.page_size;
            let around = self
                .pages
                .get(at - 1..at.checked_add(count)?.checked_add(1)?)?;
            match around.iter().rposition(|&page| page != Page::Absent) {
                Some(last) => at += last + 1,
                None => return Some(at),
            }
        }
    }

    /// Whether `taken` more pages of address space and `usable` more usable ones keep the limits.
    fn fits(&self, taken: usize, usable: usize) -> bool {
        let keeps = |pages: usize, limit| pages.saturating_mul(self.config.page_size) <= limit;
        let now = self.usable();
        keeps(
            now + self.count(Page::Reserved) + taken,
            self.config.limits.address_space,
        ) && keeps(now + usable, self.config.limits.data)
    }
}

/// Failing on command, and what is not memory.
impl State {
    fn follow(&mut self, plan: Plan) {
        self.plan = plan;
        self.failed = false;
    }

    /// Counts a fallible call and tells whether it is to fail.
    fn fails(&mut self) -> bool {
        let fails = match self.plan {
            Plan::Never => false,
            Plan::At(n) => self.calls == n,
            Plan::From(n) => self.calls >= n,
        };
        self.calls += 1;
        self.failed |= fails;
        fails
    }

    /// xorshift64*: S. Vigna, "An experimental exploration of Marsaglia's xorshift generators" (2016).
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// The break.
impl State {
    fn break_start(&self) -> usize {
        self.memory.base() + self.config.break_offset
    }

    fn break_end(&self) -> Option<usize> {
        (self.config.break_bytes > 0).then_some(self.position)
    }

    /// Where `delta` moves the break to, if that lies in the break window.
    fn target(&self, delta: isize) -> Option<usize> {
        let end = self.memory.base() + self.config.break_bytes;
        let target = self.position.checked_add_signed(delta)?;
        (self.break_start()..=end)
            .contains(&target)
            .then_some(target)
    }

    fn move_break(&mut self, delta: isize) -> Option<usize> {
        if delta == 0 {
            return self.break_end();
        }
        let target = self.target(delta);
        if let Some(target) = target {
            self.expect_ours("move_break", target..self.position);
        }
        if self.fails() {
            return None;
        }
        self.set_break(target?)
    }

    /// Puts the break at `target`, which lies in the break window.
    fn set_break(&mut self, target: usize) -> Option<usize> {
        let (old, new) = (self.pages_below(self.position), self.pages_below(target));
        let more = new.saturating_sub(old);
        if self.config.break_fails || !self.fits(more, more) {
            return None;
        }
        if new > old {
            self.make_usable(old..new, Page::Heap);
        } else {
            // SAFETY: whoever moves the break down gives up what lies above it.
            unsafe { self.make_absent(new..old) };
        }
        Some(core::mem::replace(&mut self.position, target))
    }

    fn foreign_sbrk(&mut self, delta: isize) -> Option<usize> {
        if delta == 0 {
            return self.break_end();
        }
        let target = self.target(delta)?;
        if delta < 0 {
            let lowest = self.foreign.last().filter(|last| last.end == self.position);
            let owned = lowest.is_some_and(|last| last.start <= target);
            assert!(
                owned,
                "sim: foreign sbrk({delta}) gives back what is not foreign"
            );
        }
        let old = self.set_break(target)?;
        self.note_foreign(old, target);
        Some(old)
    }

    /// Notes that a foreign `sbrk` moved the break from `old` to `new`.
    fn note_foreign(&mut self, old: usize, new: usize) {
        match self.foreign.last_mut() {
            Some(last) if last.end == old => last.end = new,
            _ => self.foreign.push(old..new),
        }
        self.foreign.retain(|range| !range.is_empty());
    }
}

/// The map window.
impl State {
    fn reserve(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let count = self.whole("reserve", bytes);
        if self.fails() || !self.fits(count, 0) {
            return None;
        }
        let at = self.place(count, 1)?;
        self.paint(at..at + count, Page::Reserved);
        Some(self.pointer(at))
    }

    fn open(&mut self, start: NonNull<u8>, bytes: usize) -> bool {
        let pages = self.range("open", start, bytes);
        self.expect("open", pages.clone(), &[Page::Reserved, Page::Opened]);
        let closed = self.pages[pages.clone()]
            .iter()
            .filter(|&&page| page == Page::Reserved)
            .count();
        if self.fails() || !self.fits(0, closed) {
            return false;
        }
        self.make_usable(pages, Page::Opened);
        true
    }

    fn map(&mut self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let count = self.whole("map", bytes);
        assert!(
            align.is_power_of_two(),
            "sim: map at a multiple of {align}, no power of two"
        );
        if self.fails() || !self.fits(count, count) {
            return None;
        }
        let at = self.place(count, align)?;
        self.make_usable(at..at + count, Page::Mapped);
        Some(self.pointer(at))
    }

    fn map_at(&mut self, start: usize, bytes: usize) -> bool {
        let count = self.whole("map_at", bytes);
        let first = start.wrapping_sub(self.memory.base()) / self.config.page_size;
        let lowest = self.config.break_bytes / self.config.page_size + 1;
        let pages = first..first.saturating_add(count);
        let absent = self
            .pages
            .get(pages.clone())
            .is_some_and(|pages| pages.iter().all(|&page| page == Page::Absent));
        if self.fails() || first < lowest || !absent || !self.fits(count, count) {
            return false;
        }
        self.make_usable(pages, Page::Mapped);
        true
    }

    /// # Safety
    /// Nobody uses the range any more.
    unsafe fn unmap(&mut self, start: NonNull<u8>, bytes: usize) -> bool {
        let pages = self.range("unmap", start, bytes);
        self.expect(
            "unmap",
            pages.clone(),
            &[Page::Reserved, Page::Opened, Page::Mapped],
        );
        if self.fails() {
            return false;
        }
        // SAFETY: the caller's promise is the same.
        unsafe { self.make_absent(pages) };
        true
    }

    /// # Safety
    /// On success nobody uses what is cut off, or the old range where the address differs.
    unsafe fn remap(&mut self, start: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
        let pages = self.range("remap", start, old);
        let count = self.whole("remap", new);
        self.expect("remap", pages.clone(), &[Page::Mapped]);
        let more = count.saturating_sub(pages.len());
        if self.fails() || !self.fits(more, more) {
            return None;
        }
        if count <= pages.len() {
            // SAFETY: the caller gives up the tail.
            unsafe { self.make_absent(pages.start + count..pages.end) };
            return Some(start);
        }
        if self.is_room(pages.end, more) {
            self.make_usable(pages.end..pages.end + more, Page::Mapped);
            return Some(start);
        }
        // SAFETY: the caller gives up the old range.
        unsafe { self.move_mapping(pages, count) }
    }

    fn stretch(&mut self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        let pages = self.range("stretch", start, old);
        let more = self.whole("stretch", new).saturating_sub(pages.len());
        self.expect("stretch", pages.clone(), &[Page::Mapped]);
        let grows = !self.fails() && self.fits(more, more) && self.is_room(pages.end, more);
        if grows {
            self.make_usable(pages.end..pages.end + more, Page::Mapped);
        }
        grows
    }

    /// Whether `more` pages from `end` on are absent, and so is the one behind.
    fn is_room(&self, end: usize, more: usize) -> bool {
        let behind = self.pages.get(end..=end + more);
        behind.is_some_and(|pages| pages.iter().all(|&page| page == Page::Absent))
    }

    /// Moves the mapping `old` to where there is room for `count` pages, more than it has.
    ///
    /// # Safety
    /// On success nobody uses the old range any more.
    unsafe fn move_mapping(&mut self, old: Range<usize>, count: usize) -> Option<NonNull<u8>> {
        let at = self.place(count, 1)?;
        self.make_usable(at..at + count, Page::Mapped);
        let (_, bytes) = self.extent(&old);
        let (from, to) = (self.pointer(old.start), self.pointer(at));
        // SAFETY: both ranges are usable, and apart since `place` found only absent pages; the caller
        // gives up the old one.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), bytes);
            self.make_absent(old);
        }
        Some(to)
    }

    /// # Safety
    /// The range's contents are dead.
    unsafe fn discard(&mut self, start: NonNull<u8>, bytes: usize) -> bool {
        let pages = self.range("discard", start, bytes);
        self.expect(
            "discard",
            pages.clone(),
            &[Page::Opened, Page::Mapped, Page::Heap],
        );
        self.expect_ours(
            "discard",
            self.address(pages.start)..self.address(pages.end),
        );
        if self.fails() {
            return false;
        }
        let (offset, bytes) = self.extent(&pages);
        // SAFETY: `expect` found the pages in the window and usable; the caller gives up what they hold.
        unsafe { self.memory.discard(offset, bytes) };
        true
    }
}

impl Page {
    const fn text(self) -> &'static str {
        match self {
            Page::Absent => "an absent",
            Page::Program => "the program's",
            Page::Reserved => "a reserved",
            Page::Opened => "an opened",
            Page::Mapped => "a mapped",
            Page::Heap => "a break",
        }
    }
}

/// The window as a mapping of the host's, closed at first.
#[cfg(not(miri))]
mod memory {
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

    // SAFETY: the pointers name a mapping that is this value's alone; nothing is tied to a thread.
    unsafe impl Send for Memory {}

    /// The host's page size in bytes.
    pub fn host_page() -> usize {
        // SAFETY: no arguments to get wrong.
        unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
    }

    impl Memory {
        pub fn new(bytes: usize) -> Memory {
            let whole_bytes = bytes + WINDOW_ALIGN;
            // SAFETY: a fresh mapping at an address of the kernel's choice touches nobody's memory.
            let whole =
                unsafe { libc::mmap(ptr::null_mut(), whole_bytes, CLOSED, ANONYMOUS, -1, 0) };
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

        /// Opens a closed range; it reads as zero.
        ///
        /// # Safety
        /// The range lies in the window.
        pub unsafe fn open(&self, offset: usize, bytes: usize) {
            let open = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: our own mapping.
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
            let got =
                unsafe { libc::mmap(start, bytes, CLOSED, ANONYMOUS | libc::MAP_FIXED, -1, 0) };
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
}

/// The window as one allocation, since Miri knows no page protection; a closed page is uninitialised,
/// so that reading it is undefined and Miri says so.
#[cfg(miri)]
mod memory {
    use super::WINDOW_ALIGN;
    use crate::geometry::PAGE;
    use core::mem::MaybeUninit;
    use core::ptr::NonNull;
    use std::alloc::{alloc, dealloc, Layout};

    pub const DEFAULT_BYTES: usize = 4 << 20;

    #[derive(Debug)]
    pub struct Memory {
        base: NonNull<u8>,
        layout: Layout,
    }

    // SAFETY: the pointer names an allocation that is this value's alone.
    unsafe impl Send for Memory {}

    /// No page size binds an allocation.
    pub fn host_page() -> usize {
        PAGE
    }

    impl Memory {
        pub fn new(bytes: usize) -> Memory {
            let layout = Layout::from_size_align(bytes, WINDOW_ALIGN).expect("a window that fits");
            // SAFETY: `SimConfig::check` refused an empty window.
            let base = NonNull::new(unsafe { alloc(layout) }).expect("the host lacks the memory");
            Memory { base, layout }
        }

        /// Exposes the window's provenance: the break is handed out as an integer.
        pub fn base(&self) -> usize {
            self.base.as_ptr() as usize
        }

        pub fn at(&self, offset: usize) -> NonNull<u8> {
            // SAFETY: the caller's offset is that of a page in the window.
            unsafe { self.base.add(offset) }
        }

        /// Opens a closed range; it reads as zero.
        ///
        /// # Safety
        /// The range lies in the window and nobody uses it.
        pub unsafe fn open(&self, offset: usize, bytes: usize) {
            // SAFETY: our own allocation.
            unsafe { self.at(offset).as_ptr().write_bytes(0, bytes) };
        }

        /// Closes a range and forgets what it held.
        ///
        /// # Safety
        /// The range lies in the window and nobody uses it.
        pub unsafe fn close(&self, offset: usize, bytes: usize) {
            for page in (offset..offset + bytes).step_by(PAGE) {
                // SAFETY: our own allocation; any alignment does for bytes.
                unsafe {
                    self.at(page)
                        .cast::<MaybeUninit<[u8; PAGE]>>()
                        .write(MaybeUninit::uninit())
                };
            }
        }

        /// Makes an open range read as zero.
        ///
        /// # Safety
        /// The range lies in the window and what it holds is dead.
        pub unsafe fn discard(&self, offset: usize, bytes: usize) {
            // SAFETY: the same promise.
            unsafe { self.open(offset, bytes) };
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: allocated in `new` with this layout; it ends with the Sim.
            unsafe { dealloc(self.base.as_ptr(), self.layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::misuse::Call;
    use std::panic::{catch_unwind, AssertUnwindSafe};
    use std::string::String;

    /// Four MiB, half for the break, changed by `change`.
    fn sim_with(change: impl FnOnce(&mut SimConfig)) -> Sim {
        let mut config = SimConfig {
            bytes: 4 << 20,
            break_bytes: 2 << 20,
            ..SimConfig::default()
        };
        change(&mut config);
        Sim::new(config)
    }

    fn sim() -> Sim {
        sim_with(|_| ())
    }

    /// What `call` panicked with.
    #[track_caller]
    fn complaint<T>(call: impl FnOnce() -> T) -> String {
        let caught = catch_unwind(AssertUnwindSafe(call))
            .err()
            .expect("should have panicked");
        *caught.downcast::<String>().expect("a formatted message")
    }

    #[track_caller]
    fn refuses<T>(message: &str, call: impl FnOnce() -> T) {
        let said = complaint(call);
        assert!(
            said.contains(message),
            "{said:?} should contain {message:?}"
        );
    }

    fn fill(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the tests fill usable ranges only.
        unsafe { start.as_ptr().write_bytes(0x5a, bytes) };
    }

    fn all_are(byte: u8, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the tests read usable ranges only.
        (0..bytes).all(|at| unsafe { start.add(at).read() } == byte)
    }

    fn pointer(address: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).unwrap()
    }

    // The unsafe calls, made short: what is unsafe about them is what `Sim` checks.

    fn open(sim: &Sim, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the tests own all of the window.
        unsafe { sim.open(start, bytes) }
    }

    fn unmap(sim: &Sim, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as in `open`.
        unsafe { sim.unmap(start, bytes) }
    }

    fn remap(sim: &Sim, start: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
        // SAFETY: as in `open`.
        unsafe { sim.remap(start, old, new) }
    }

    fn discard(sim: &Sim, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: as in `open`.
        unsafe { sim.discard(start, bytes) }
    }

    #[test]
    fn pages_are_mapped_at_an_address_where_all_of_it_is_free() {
        let sim = sim();
        let block = sim.map(2 * PAGE, 1).unwrap().as_ptr() as usize;
        assert!(sim.map_at(block + 2 * PAGE, PAGE));
        assert!(!sim.map_at(block + 2 * PAGE, PAGE), "it is in use");
        assert!(!sim.map_at(block - 2 * PAGE, 4 * PAGE), "half of it is");
        assert!(!sim.map_at(1 << 46, PAGE), "outside the window");
        assert_eq!(sim.usable_bytes(), 3 * PAGE);
    }

    #[test]
    fn the_state_of_each_page_is_counted() {
        let sim = sim();
        let region = sim.reserve(8 * PAGE).unwrap();
        assert_eq!((sim.usable_bytes(), sim.reserved_bytes()), (0, 8 * PAGE));
        assert!(open(&sim, region, 3 * PAGE));
        assert_eq!(
            (sim.usable_bytes(), sim.reserved_bytes()),
            (3 * PAGE, 5 * PAGE)
        );
        let block = sim.map(2 * PAGE, 1).unwrap();
        sim.move_break(PAGE as isize + 1).unwrap();
        assert_eq!(
            (sim.usable_bytes(), sim.reserved_bytes()),
            (7 * PAGE, 5 * PAGE)
        );
        assert!(unmap(&sim, region, 8 * PAGE) && unmap(&sim, block, 2 * PAGE));
        assert_eq!((sim.usable_bytes(), sim.reserved_bytes()), (2 * PAGE, 0));
    }

    #[test]
    fn only_what_was_mapped_or_reserved_can_be_unmapped() {
        let sim = sim();
        let block = sim.map(2 * PAGE, 1).unwrap();
        refuses("unmap of an absent page", || unmap(&sim, block, 3 * PAGE));
        assert!(unmap(&sim, block, PAGE));
        refuses("unmap of an absent page", || unmap(&sim, block, 2 * PAGE));
        let heap = pointer(sim.move_break(PAGE as isize).unwrap());
        refuses("unmap of a break page", || unmap(&sim, heap, PAGE));
    }

    #[test]
    fn only_what_was_reserved_can_be_opened() {
        let sim = sim();
        let (region, block) = (sim.reserve(2 * PAGE).unwrap(), sim.map(PAGE, 1).unwrap());
        refuses("open of an absent page", || open(&sim, region, 3 * PAGE));
        refuses("open of a mapped page", || open(&sim, block, PAGE));
        let heap = pointer(sim.move_break(PAGE as isize).unwrap());
        refuses("open of a break page", || open(&sim, heap, PAGE));
        assert_eq!(
            sim.usable_bytes(),
            2 * PAGE,
            "a refused call changes nothing"
        );
    }

    #[test]
    fn only_usable_pages_of_ours_can_be_discarded() {
        let sim = sim_with(|config| config.break_offset = 100);
        let region = sim.reserve(2 * PAGE).unwrap();
        refuses("discard of a reserved page", || discard(&sim, region, PAGE));
        assert!(open(&sim, region, PAGE) && discard(&sim, region, PAGE));
        refuses("discard of a reserved page", || {
            discard(&sim, region, 2 * PAGE)
        });
        assert!(unmap(&sim, region, 2 * PAGE));
        refuses("discard of an absent page", || discard(&sim, region, PAGE));
        let program = pointer(sim.break_start() - 100);
        refuses("discard of the program's page", || {
            discard(&sim, program, PAGE)
        });
    }

    #[test]
    fn only_mappings_can_be_resized() {
        let sim = sim();
        let (block, region) = (sim.map(2 * PAGE, 1).unwrap(), sim.reserve(PAGE).unwrap());
        refuses("remap of an absent page", || {
            remap(&sim, block, 3 * PAGE, 4 * PAGE)
        });
        refuses("remap of a reserved page", || {
            remap(&sim, region, PAGE, 2 * PAGE)
        });
        assert!(open(&sim, region, PAGE));
        refuses("remap of an opened page", || {
            remap(&sim, region, PAGE, 2 * PAGE)
        });
        refuses("remap of an empty range", || {
            remap(&sim, block, 2 * PAGE, 0)
        });
        refuses("not whole pages", || remap(&sim, block, 2 * PAGE, PAGE + 1));
    }

    #[test]
    fn only_what_is_there_can_be_named() {
        let sim = sim();
        let region = sim.reserve(PAGE).unwrap();
        sim.name(region, PAGE, c"region");
        refuses("name of an absent page", || {
            sim.name(region, 2 * PAGE, c"region")
        });
    }

    #[test]
    fn ranges_are_whole_pages_in_the_window_and_not_empty() {
        let sim = sim();
        let block = sim.map(2 * PAGE, 1).unwrap();
        refuses("map of an empty range", || sim.map(0, 1));
        refuses("reserve of an empty range", || sim.reserve(0));
        refuses("not whole pages", || sim.map(PAGE + 1, 1));
        refuses("not whole pages", || sim.reserve(PAGE - 1));
        refuses("not whole pages", || unmap(&sim, block, PAGE / 2));
        refuses("not a page's start", || {
            discard(&sim, pointer(block.as_ptr() as usize + 16), PAGE)
        });
        refuses("outside the window", || unmap(&sim, pointer(PAGE), PAGE));
        refuses("outside the window", || unmap(&sim, block, 4 << 20));
        refuses("no power of two", || sim.map(PAGE, 3 * PAGE));
        assert_eq!(sim.calls(), 1, "a refused call is not counted");
    }

    #[test]
    fn contradictory_configurations_are_refused() {
        refuses("page size", || {
            sim_with(|config| config.page_size = 3 * PAGE)
        });
        refuses("page size", || {
            sim_with(|config| config.page_size = PAGE / 2)
        });
        refuses("window of", || sim_with(|config| config.bytes += 1));
        refuses("break window of", || {
            sim_with(|config| config.break_bytes += 1)
        });
        refuses("break window of", || {
            sim_with(|config| config.break_bytes = config.bytes)
        });
        refuses("break at", || {
            sim_with(|config| config.break_offset = config.break_bytes + 1)
        });
    }

    #[test]
    fn the_break_moves_by_bytes_and_keeps_to_its_window() {
        let sim = sim_with(|config| config.break_offset = 100);
        let start = sim.break_start();
        assert_eq!(start % PAGE, 100);
        assert_eq!(sim.move_break(10), Some(start));
        assert_eq!(sim.usable_bytes(), 0, "the program's page is not counted");
        assert_eq!(sim.move_break(PAGE as isize), Some(start + 10));
        assert_eq!(
            (sim.break_position(), sim.usable_bytes()),
            (start + 10 + PAGE, PAGE)
        );
        assert_eq!(
            sim.move_break(-(PAGE as isize) - 11),
            None,
            "below its start"
        );
        assert_eq!(sim.move_break(4 << 20), None, "over the mappings");
        assert_eq!(sim.move_break(isize::MIN), None);
        assert_eq!(
            sim.move_break(-(PAGE as isize) - 10),
            Some(start + 10 + PAGE)
        );
        assert_eq!((sim.break_end(), sim.usable_bytes()), (Some(start), 0));
    }

    #[test]
    fn the_break_window_can_be_filled_and_emptied() {
        let sim = sim();
        let start = sim.move_break(2 << 20).unwrap();
        fill(pointer(start), 2 << 20);
        assert_eq!(sim.move_break(1), None);
        assert_eq!(sim.move_break(-(2 << 20)), Some(start + (2 << 20)));
    }

    #[test]
    fn a_break_that_fails_or_is_missing_leaves_mappings_alone() {
        let failing = sim_with(|config| config.break_fails = true);
        assert_eq!(failing.break_end(), Some(failing.break_start()));
        let missing = sim_with(|config| config.break_bytes = 0);
        assert_eq!(missing.break_end(), None);
        for sim in [failing, missing] {
            assert_eq!(
                (sim.move_break(1), sim.foreign_sbrk(1), sim.failed()),
                (None, None, false)
            );
            assert!(sim.map(PAGE, 1).is_some());
        }
    }

    #[test]
    fn foreign_memory_is_not_ours_to_give_back() {
        let sim = sim();
        let start = sim.move_break(PAGE as isize).unwrap();
        let foreign = sim.foreign_sbrk(100).unwrap();
        assert_eq!(foreign, start + PAGE);
        sim.move_break(2 * PAGE as isize - 100).unwrap();
        refuses("move_break of foreign memory", || {
            sim.move_break(-2 * PAGE as isize)
        });
        refuses("discard of foreign memory", || {
            discard(&sim, pointer(foreign), PAGE)
        });
        assert!(
            discard(&sim, pointer(start), PAGE) && discard(&sim, pointer(start + 2 * PAGE), PAGE)
        );
        assert!(
            sim.move_break(100 - 2 * PAGE as isize).is_some(),
            "just down to it"
        );
        refuses("move_break of foreign memory", || sim.move_break(-1));
    }

    #[test]
    fn foreign_memory_that_went_back_is_forgotten() {
        let sim = sim();
        sim.move_break(PAGE as isize).unwrap();
        sim.foreign_sbrk(50).unwrap();
        sim.foreign_sbrk(50).unwrap();
        refuses("gives back what is not foreign", || sim.foreign_sbrk(-101));
        assert!(sim.foreign_sbrk(-60).is_some() && sim.foreign_sbrk(-40).is_some());
        refuses("gives back what is not foreign", || sim.foreign_sbrk(-1));
        assert_eq!(sim.foreign_sbrk(0), sim.break_end());
        sim.move_break(PAGE as isize).unwrap();
        assert!(sim.move_break(-2 * PAGE as isize).is_some());
        assert_eq!(sim.calls(), 3, "foreign moves are not counted");
    }

    #[test]
    fn foreign_memory_below_ours_cannot_go_back() {
        let sim = sim();
        sim.foreign_sbrk(PAGE as isize).unwrap();
        sim.move_break(PAGE as isize).unwrap();
        refuses("gives back what is not foreign", || {
            sim.foreign_sbrk(-(PAGE as isize))
        });
    }

    #[test]
    fn discarded_pages_read_as_zero() {
        let sim = sim();
        let heap = pointer(sim.move_break(2 * PAGE as isize).unwrap());
        fill(heap, 2 * PAGE);
        assert!(discard(&sim, heap, PAGE));
        assert!(all_are(0, heap, PAGE));
        assert!(all_are(0x5a, pointer(heap.as_ptr() as usize + PAGE), PAGE));
    }

    #[test]
    fn pages_that_come_back_are_zero() {
        let sim = sim();
        let heap = pointer(sim.move_break(2 * PAGE as isize).unwrap());
        let block = sim.map(2 * PAGE, 1).unwrap();
        fill(heap, 2 * PAGE);
        fill(block, 2 * PAGE);
        sim.move_break(-(PAGE as isize)).unwrap();
        sim.move_break(PAGE as isize).unwrap();
        assert!(all_are(0x5a, heap, PAGE));
        assert!(all_are(0, pointer(heap.as_ptr() as usize + PAGE), PAGE));
        assert!(unmap(&sim, block, 2 * PAGE));
        assert_eq!(sim.map(2 * PAGE, 1), Some(block), "first fit");
        assert!(all_are(0, block, 2 * PAGE));
    }

    #[test]
    fn half_a_page_given_back_is_still_there_as_on_linux() {
        let sim = sim();
        let heap = pointer(sim.move_break(PAGE as isize).unwrap());
        fill(heap, PAGE);
        sim.move_break(-100).unwrap();
        sim.move_break(100).unwrap();
        assert!(all_are(0x5a, heap, PAGE));
    }

    #[test]
    fn opening_again_keeps_what_was_open() {
        let sim = sim();
        let region = sim.reserve(4 * PAGE).unwrap();
        let second = pointer(region.as_ptr() as usize + PAGE);
        assert!(open(&sim, second, PAGE));
        fill(second, PAGE);
        assert!(open(&sim, region, 4 * PAGE));
        assert!(all_are(0, region, PAGE) && all_are(0x5a, second, PAGE));
    }

    #[test]
    fn a_mapping_grows_in_place_moves_or_shrinks_and_keeps_its_bytes() {
        let sim = sim();
        let block = sim.map(PAGE, 1).unwrap();
        fill(block, PAGE);
        assert_eq!(remap(&sim, block, PAGE, 2 * PAGE), Some(block));
        let wall = sim.map(PAGE, 1).unwrap();
        let moved = remap(&sim, block, 2 * PAGE, 4 * PAGE).unwrap();
        assert!(moved != block && moved != wall);
        assert!(all_are(0x5a, moved, PAGE));
        assert!(all_are(
            0,
            pointer(moved.as_ptr() as usize + PAGE),
            3 * PAGE
        ));
        assert_eq!(remap(&sim, moved, 4 * PAGE, PAGE), Some(moved));
        assert_eq!(sim.usable_bytes(), 2 * PAGE);
        refuses("an absent page", || unmap(&sim, block, PAGE));
        assert_eq!(remap(&sim, moved, PAGE, 4 << 20), None);
        assert!(all_are(0x5a, moved, PAGE));
    }

    #[test]
    fn growing_in_place_leaves_a_gap() {
        let sim = sim();
        let (block, hole) = (sim.map(PAGE, 1).unwrap(), sim.map(PAGE, 1).unwrap());
        let wall = sim.map(PAGE, 1).unwrap();
        assert!(unmap(&sim, hole, PAGE));
        assert_eq!(remap(&sim, block, PAGE, 2 * PAGE), Some(block));
        assert_eq!(remap(&sim, block, 2 * PAGE, 3 * PAGE), Some(block));
        let moved = remap(&sim, block, 3 * PAGE, 4 * PAGE).unwrap();
        assert!(moved > wall, "the last absent page is the gap");
    }

    #[test]
    fn mappings_are_aligned_and_apart() {
        let sim = sim();
        let blocks = [1, PAGE, 64 << 10, 1 << 20].map(|align| {
            let block = sim.map(2 * PAGE, align).unwrap();
            assert_eq!(block.as_ptr() as usize % align, 0);
            refuses("an absent page", || unmap(&sim, block, 3 * PAGE));
            block
        });
        assert!(blocks.iter().all(|&block| unmap(&sim, block, 2 * PAGE)));
        assert_eq!(sim.map(PAGE, 1 << 63), None);
        assert_eq!(sim.map(usize::MAX & !(PAGE - 1), 1), None);
    }

    #[test]
    fn the_map_window_fills_up() {
        let sim = sim();
        let blocks = core::iter::from_fn(|| sim.map(64 << 10, 1)).count();
        assert_eq!(blocks, (2 << 20) / ((64 << 10) + PAGE), "each with its gap");
        assert_eq!(sim.reserve(64 << 10), None);
    }

    #[test]
    fn larger_os_pages_are_the_unit_of_everything() {
        for page in [16 << 10, 64 << 10] {
            let sim = sim_with(|config| config.page_size = page);
            assert_eq!(sim.page_size(), page);
            refuses("not whole pages", || sim.map(PAGE, 1));
            let block = sim.map(page, 1).unwrap();
            assert_eq!(block.as_ptr() as usize % page, 0);
            sim.move_break(1).unwrap();
            assert_eq!(sim.usable_bytes(), 2 * page);
            fill(pointer(sim.break_start()), page);
        }
    }

    #[test]
    fn the_data_limit_counts_what_is_usable() {
        let sim = sim_with(|config| config.limits.data = 4 * PAGE);
        assert_eq!(
            sim.limits(),
            Limits {
                address_space: 4 << 20,
                data: 4 * PAGE
            }
        );
        let region = sim.reserve(8 * PAGE).unwrap();
        assert!(!open(&sim, region, 5 * PAGE));
        assert!(open(&sim, region, 2 * PAGE));
        sim.move_break(PAGE as isize).unwrap();
        let block = sim.map(PAGE, 1).unwrap();
        assert_eq!(
            (sim.map(PAGE, 1), sim.move_break(1), sim.foreign_sbrk(1)),
            (None, None, None)
        );
        assert_eq!(remap(&sim, block, PAGE, 2 * PAGE), None);
        assert!(open(&sim, region, 2 * PAGE), "nothing new");
        assert!(unmap(&sim, region, PAGE) && remap(&sim, block, PAGE, 2 * PAGE).is_some());
        assert!(!sim.failed(), "not on command");
    }

    #[test]
    fn the_limit_of_address_space_counts_what_is_reserved_too() {
        let sim = sim_with(|config| config.limits.address_space = 4 * PAGE);
        assert_eq!(sim.limits().address_space, 4 * PAGE);
        let region = sim.reserve(3 * PAGE).unwrap();
        assert_eq!((sim.map(2 * PAGE, 1), sim.reserve(2 * PAGE)), (None, None));
        assert!(open(&sim, region, 3 * PAGE), "no new address space");
        assert!(sim.move_break(PAGE as isize).is_some());
        assert_eq!(sim.move_break(1), None);
    }

    /// Each fallible call once; how many went well.
    fn script(sim: &Sim) -> usize {
        let region = sim.reserve(2 * PAGE);
        let opened = region.is_some_and(|region| open(sim, region, PAGE));
        let block = sim.map(PAGE, 1);
        let block = block.and_then(|block| {
            remap(sim, block, PAGE, 2 * PAGE)
                .map(|at| (at, 2 * PAGE))
                .or(Some((block, PAGE)))
        });
        let discarded = block.is_some_and(|(block, bytes)| discard(sim, block, bytes));
        let grown = sim.move_break(PAGE as isize).is_some();
        let trimmed = grown && sim.move_break(-(PAGE as isize)).is_some();
        let unmapped = block.is_some_and(|(block, bytes)| unmap(sim, block, bytes));
        let sized = block.is_some_and(|(_, bytes)| bytes == 2 * PAGE);
        let results = [
            region.is_some(),
            opened,
            block.is_some(),
            sized,
            discarded,
            grown,
            trimmed,
            unmapped,
        ];
        results.iter().filter(|&&went_well| went_well).count()
    }

    #[test]
    fn each_fallible_call_can_be_made_to_fail_once() {
        let sim = sim();
        let mut rounds = 0;
        loop {
            sim.fail_at(rounds);
            let went_well = script(&sim);
            assert_eq!(sim.failed(), went_well < 8);
            if !sim.failed() {
                break;
            }
            rounds += 1;
        }
        assert_eq!(rounds, 8);
    }

    #[test]
    fn all_calls_from_one_on_can_be_made_to_fail() {
        let sim = sim();
        sim.fail_from(1);
        assert!(sim.map(PAGE, 1).is_some() && !sim.failed());
        assert_eq!(
            (sim.map(PAGE, 1), sim.reserve(PAGE), sim.move_break(1)),
            (None, None, None)
        );
        assert!(sim.failed());
        sim.never_fail();
        assert!(sim.map(PAGE, 1).is_some() && !sim.failed());
        assert_eq!(sim.calls(), 5);
    }

    #[test]
    fn a_call_failed_on_command_changes_nothing() {
        let sim = sim();
        let block = sim.map(2 * PAGE, 1).unwrap();
        sim.move_break(PAGE as isize).unwrap();
        fill(block, 2 * PAGE);
        sim.fail_from(0);
        assert!(!unmap(&sim, block, PAGE) && !discard(&sim, block, PAGE));
        assert_eq!(
            (remap(&sim, block, 2 * PAGE, PAGE), sim.move_break(-1)),
            (None, None)
        );
        assert_eq!(sim.usable_bytes(), 3 * PAGE);
        assert!(all_are(0x5a, block, 2 * PAGE));
    }

    #[test]
    fn a_wrong_call_panics_even_if_it_was_to_fail() {
        let sim = sim();
        let block = sim.map(PAGE, 1).unwrap();
        sim.fail_from(0);
        refuses("an absent page", || unmap(&sim, block, 2 * PAGE));
        assert!(!sim.failed());
    }

    #[test]
    fn asking_for_the_break_is_no_fallible_call() {
        let sim = sim();
        sim.fail_from(0);
        assert_eq!(sim.move_break(0), sim.break_end());
        assert_eq!((sim.calls(), sim.failed()), (0, false));
    }

    #[test]
    fn clock_random_and_threads_are_as_told() {
        let (sim, same) = (sim(), sim());
        let other = sim_with(|config| config.seed = 0);
        sim.advance_clock(250);
        assert_eq!((sim.clock(), same.clock()), (250, 0));
        let words = || [sim.random(), sim.random()];
        let first = words();
        assert_eq!(first, [same.random(), same.random()]);
        assert!(first[0] != first[1] && first[0] != other.random() && other.random() != 0);
        sim.watch_thread(NonNull::dangling());
        assert_eq!((sim.watched(), same.watched()), (1, 0));
    }

    #[test]
    fn dying_is_a_panic_that_carries_the_misuse() {
        let sim = sim();
        let misuse = Misuse::Unknown {
            call: Call::Free,
            addr: 0x1234,
        };
        let caught = catch_unwind(AssertUnwindSafe(|| sim.die(&misuse))).unwrap_err();
        assert_eq!(caught.downcast_ref::<Misuse>(), Some(&misuse));
    }

    #[test]
    fn a_sim_can_be_shared_between_threads() {
        fn shared<T: Sync + Send>(_: &T) {}
        shared(&sim());
    }

    /// Whether the kernel can read the byte at `start` for us, asked without a fault of our own.
    #[cfg(not(miri))]
    fn readable(start: NonNull<u8>) -> bool {
        let mut ends = [0; 2];
        // SAFETY: a pipe of our own; write(2) answers EFAULT for what cannot be read.
        unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            let written = libc::write(ends[1], start.as_ptr().cast(), 1);
            libc::close(ends[0]);
            libc::close(ends[1]);
            written == 1
        }
    }

    #[test]
    #[cfg(not(miri))]
    fn pages_that_are_not_usable_cannot_be_touched() {
        let sim = sim();
        let region = sim.reserve(2 * PAGE).unwrap();
        assert!(open(&sim, region, PAGE) && readable(region));
        assert!(
            !readable(pointer(region.as_ptr() as usize + PAGE)),
            "reserved"
        );
        let block = sim.map(PAGE, 1).unwrap();
        let heap = pointer(sim.move_break(PAGE as isize).unwrap());
        assert!(readable(block) && readable(heap));
        let grown = remap(&sim, block, PAGE, 1 << 20).unwrap();
        assert!(remap(&sim, grown, 1 << 20, PAGE) == Some(grown) && readable(grown));
        assert!(
            !readable(pointer(grown.as_ptr() as usize + PAGE)),
            "cut off"
        );
        assert!(unmap(&sim, region, 2 * PAGE) && unmap(&sim, grown, PAGE));
        sim.move_break(-(PAGE as isize)).unwrap();
        assert!(![region, grown, heap].into_iter().any(readable));
    }
}
