//! The Linux system calls behind [`Os`](super::Os), made by the instruction itself (see `calls`).
//!
//! Two things must be libc's, and are called where a program may define them and allocate in them. The hooks are
//! registered with no lock held, and a thread that is marked as busy calls sbrk. libc's `sbrk` moves the break, never a
//! raw call. libc caches where the break stands, and a stale cache would let somebody else's `sbrk` shrink the heap
//! under us.

use super::calls;
use super::process::{auxiliary_value, string, variable, Process};
use super::stack;
use super::steady::Steady;
use super::{Hold, Host, Huge, Limits, Moved, NextMalloc, Refusal, Vm, MAPPINGS};
use crate::misuse::{Line, Misuse};
use crate::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use crate::units::PAGE_START;
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{Acquire, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8};

/// The running Linux system.
pub struct Linux {
    hooks: Hooks,
    process: Process,
    /// The thread-specific-data key whose destructor is the exit hook, plus one. 0 means none yet.
    key: AtomicU32,
    /// Non-zero where no other malloc moves the break.
    sole: AtomicU32,
    fences: GuardPages,
    /// Non-zero where huge pages are asked for.
    huge: AtomicU32,
    /// Whether parts of a range can be moved.
    pieces: AtomicU32,
    /// Whether the system gives huge pages unasked: 0 (nobody has [asked](Vm::learn_huge_pages)), [`GIVES`] or
    /// [`GIVES_NONE`].
    unasked: AtomicU32,
    time: Steady,
}

/// How pages are made to fault.
struct GuardPages {
    /// One of `UNTRIED`, `BY_GUARD`, `BY_PROTECTION`.
    way: AtomicU32,
    /// Pages protected, each of which splits a mapping in three.
    protected: AtomicUsize,
    /// How many there may be: half of `vm.max_map_count` in mappings.
    most: AtomicUsize,
    /// Non-zero where some page was to be protected and is not: which ones are is not known then.
    missing: AtomicU32,
}

const UNTRIED: u32 = 0;
const BY_GUARD: u32 = 1;
const BY_PROTECTION: u32 = 2;

/// madvise(2): `MADV_GUARD_INSTALL`, Linux 6.13: a mark in the page tables, no mapping of its own.
const GUARD_INSTALL: libc::c_int = 102;
/// madvise(2): `MADV_GUARD_REMOVE`: takes such marks away.
const GUARD_REMOVE: libc::c_int = 103;
/// mmap(2): `MAP_FIXED_NOREPLACE`, Linux 4.17.
const ONLY_WHERE_FREE: libc::c_int = libc::MAP_FIXED_NOREPLACE;

/// What is to be called, and when.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Once, when the first thread has its heap.
    pub started: fn(),
    /// At the end of each watched thread, with what was given to [`Host::watch_thread`].
    pub thread_exit: unsafe extern "C" fn(*mut libc::c_void),
    /// Before each fork(2), after other handlers if they were registered later. Holds no lock on return.
    pub fork_prepare: unsafe extern "C" fn(),
    /// After each fork(2), in the parent.
    pub fork_parent: unsafe extern "C" fn(),
    /// In each child of fork(2), before its other handlers if they were registered later.
    pub fork_child: unsafe extern "C" fn(),
    /// In each fork child, before its heap is repaired.
    pub forked: fn(),
    /// In the thread that [`Host::start_background`] starts. It does not return.
    pub background: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
    /// At a fault, with its address, from a signal handler: takes no lock, allocates nothing.
    pub fault: fn(usize),
}

/// Bytes of a huge page on most machines. Elsewhere a guess that only decides who is asked.
const HUGE_PAGE: usize = 2 << 20;

/// The most mappings of the kernel's that are moved as one. More are copied, which makes one of them.
const MOST_PIECES: usize = 16;
/// The fewest bytes that are moved so to grow: of fewer the calls cost as much as fresh pages.
const PIECES_LEAST: usize = 512 << 10;
/// A move is worth it, and adds few mappings, where a piece has so many bytes on average.
const PIECE_BYTES: usize = 256 << 10;
/// Whether parts of a range can be moved (see `Linux::moves_pieces`).
const UNASKED: u32 = 0;
const MOVE: u32 = 1;
const STAY: u32 = 2;
/// Values of `Linux::unasked`.
const GIVES: u32 = 1;
const GIVES_NONE: u32 = 2;

impl Linux {
    /// The running system, with no hook registered yet.
    pub const fn new(hooks: Hooks) -> Linux {
        Linux {
            hooks,
            process: Process::new(),
            key: AtomicU32::new(0),
            sole: AtomicU32::new(0),
            fences: GuardPages {
                way: AtomicU32::new(UNTRIED),
                protected: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                missing: AtomicU32::new(0),
            },
            huge: AtomicU32::new(0),
            pieces: AtomicU32::new(UNASKED),
            unasked: AtomicU32::new(UNASKED),
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
        // SAFETY: advice on our own fresh range. Where there are no huge pages it fails and changes nothing.
        unsafe { calls::advise(page, bytes, libc::MADV_HUGEPAGE) };
    }

    /// Moves `old` bytes at `start`, which are several mappings of the kernel's, to where there is room for `new`. `None`
    /// where they are too many, or the kernel does not do it: then all is as it was.
    ///
    /// # Safety
    /// As [`Vm::remap`].
    unsafe fn move_pieces(&self, start: usize, old: usize, new: usize) -> Option<NonNull<u8>> {
        if !self.moves_pieces() {
            return None;
        }
        let target = map_anonymous(new, READ_WRITE, 0)?;
        self.advise_mapped(at(target), new);
        // SAFETY: the caller's range, and a fresh one that nobody else knows. What is unmapped of that is ours still.
        unsafe {
            match self.move_each(start, old, at(target), |from, bytes, to| {
                calls::move_to(from, bytes, to)
            }) {
                Moved::Done => return Some(target),
                Moved::Refused | Moved::Scattered => calls::unmap(at(target), new),
                Moved::Lost => calls::unmap(at(target) + old, new - old),
            };
        }
        None
    }

    /// As [`Vm::move_over`], once it was asked whether the kernel [does it](Self::moves_pieces). mremap moves one mapping at
    /// a time, so each goes by itself, with `step`. Until all have moved nothing of the old range goes: nobody else maps
    /// there, and it takes back what has moved if a later one does not.
    ///
    /// # Safety
    /// As [`Vm::move_over`].
    unsafe fn move_each(
        &self,
        start: usize,
        bytes: usize,
        target: usize,
        step: impl Fn(usize, usize, usize) -> Result<(), libc::c_int>,
    ) -> Moved {
        // What is to be locked in memory would not be any more: see `is_locked`.
        if is_locked(target, self.page_size()) {
            return Moved::Refused;
        }
        let mut pieces = [0; MOST_PIECES];
        let most = (bytes / PIECE_BYTES).clamp(1, MOST_PIECES);
        let (mut count, mut found) = (0, 0);
        while found < bytes {
            if count == most {
                return Moved::Scattered;
            }
            let piece = self.piece(start + found, bytes - found);
            if is_locked(start + found, self.page_size()) {
                return Moved::Refused;
            }
            pieces[count] = piece;
            (count, found) = (count + 1, found + piece);
        }
        let (mut done, mut moved) = (0, 0);
        while moved < count {
            let piece = pieces[moved];
            if step(start + done, piece, target + done).is_err() {
                break;
            }
            (done, moved) = (done + piece, moved + 1);
        }
        // SAFETY: the caller's range, whose pages are elsewhere now.
        if moved == count && unsafe { calls::unmap(start, bytes) } {
            return Moved::Done;
        }
        self.pieces.store(STAY, Relaxed);
        // SAFETY: the caller's ranges. The kernel may have unmapped the new place of the piece that failed before it refused,
        // and somebody else may be there now: its addresses are left alone.
        unsafe {
            self.put_back(start, target, done);
            let behind = done + pieces[..count].get(moved).unwrap_or(&0);
            if behind < bytes {
                calls::unmap(target + behind, bytes - behind);
            }
        }
        Moved::Lost
    }

    /// Whether the kernel moves pages and leaves their place to us (Linux 5.7), tried once with pages of our own. After a
    /// move that failed none is tried any more: what may be lost then is lost once.
    fn moves_pieces(&self) -> bool {
        if self.pieces.load(Relaxed) == UNASKED {
            let bytes = self.page_size();
            let places =
                map_anonymous(bytes, READ_WRITE, 0).zip(map_anonymous(bytes, READ_WRITE, 0));
            let moves = places.is_some_and(|(from, to)| {
                // SAFETY: fresh pages of our own. If the second one was lost nobody misses it.
                unsafe {
                    let locked = is_locked(at(from), bytes);
                    let moved = !locked && calls::move_to(at(from), bytes, at(to)).is_ok();
                    calls::unmap(at(from), bytes);
                    moved && calls::unmap(at(to), bytes)
                }
            });
            self.pieces.store(if moves { MOVE } else { STAY }, Relaxed);
        }
        self.pieces.load(Relaxed) == MOVE
    }

    /// Copies `bytes` bytes at `target` back to where they were moved from, which is mapped still, and unmaps them there. A
    /// move back that failed could lose that place too.
    ///
    /// # Safety
    /// The caller owns both ranges, and nobody uses that at `target`.
    unsafe fn put_back(&self, start: usize, target: usize, bytes: usize) {
        if bytes > 0 {
            // SAFETY: both are usable, and apart.
            unsafe {
                ptr::copy_nonoverlapping(target as *const u8, start as *mut u8, bytes);
                calls::unmap(target, bytes);
            }
        }
    }

    /// Whether the `bytes` bytes from `start` on lie in one mapping of the kernel's. Not where it does not tell, as with
    /// EPERM of what is sealed or filtered.
    fn is_one(&self, start: usize, bytes: usize) -> bool {
        let page = self.page_size();
        // SAFETY: the callers' range, which stays where it is. It is asked to grow by a page: the kernel says EFAULT where
        // it is not one mapping, before it looks for room or at a limit. The page goes again at once.
        unsafe {
            let grown = calls::remap(start, bytes, bytes + page, 0);
            if grown.is_ok() {
                calls::unmap(start + bytes, page);
            }
            matches!(grown, Ok(_) | Err(libc::ENOMEM | libc::EAGAIN))
        }
    }

    /// Whether anything but zero lies in the page at `start`. Not in one that the program has put a guard into.
    ///
    /// # Safety
    /// The caller owns the page, which has no other protection than it was mapped with, and nobody uses it.
    unsafe fn is_used(&self, start: usize) -> bool {
        let page = self.page_size();
        let words = (start..start + page).step_by(size_of::<u64>());
        calls::populate(start, page).is_ok()
            // SAFETY: the caller's page, a touch of which does not fault.
            && words.into_iter().any(|word| unsafe { (word as *const u64).read() != 0 })
    }

    /// Whether huge pages are asked for, or the system gives them unasked: their parts would come to lie apart.
    fn has_huge_pages(&self) -> bool {
        self.huge.load(Relaxed) != 0 || self.unasked.load(Relaxed) != GIVES_NONE
    }

    /// How many of the `bytes` bytes from `start` on lie in one mapping of the kernel's.
    fn piece(&self, start: usize, bytes: usize) -> usize {
        let page = self.page_size();
        if self.is_one(start, bytes) {
            return bytes;
        }
        let (mut one, mut several) = (page, bytes);
        while several - one > page {
            let middle = (one + several) / 2 / page * page;
            if self.is_one(start, middle) {
                one = middle;
            } else {
                several = middle;
            }
        }
        one
    }

    /// The key whose destructor is the exit hook, plus one: made by whoever comes first, with no lock held, since
    /// the function may be the program's. Of two threads that make one at once, one makes one that nobody uses.
    fn make_key(&self) -> u32 {
        let known = self.key.load(Relaxed);
        if known != 0 {
            return known;
        }
        let mut key = 0;
        let hook = Some(self.hooks.thread_exit);
        // SAFETY: `key` is a place to write to. The hook is a function for the process's life.
        if keeping_errno(|| unsafe { libc::pthread_key_create(&mut key, hook) }) != 0 {
            return 0;
        }
        let set = self.key.compare_exchange(0, key + 1, Relaxed, Relaxed);
        set.err().unwrap_or(key + 1)
    }

    /// Random places for `bytes` of address space, a few, where nobody maps unasked: the quarter of all addresses
    /// after three eighths of them. From top to bottom come the stack, libraries and mappings, then programs and the
    /// break above two thirds. Where mappings go upwards, they begin at a third. Of 47 bits it is the eighth after the
    /// middle: V8 and PartitionAlloc map at random places of 46 bits, and mappings that go upwards may begin up to 16
    /// TiB later.
    fn places(&self, bytes: usize) -> impl Iterator<Item = usize> + '_ {
        let (page, all) = (self.page_size(), self.process.addresses());
        let (from, room) = if all == 1 << 47 {
            (all / 2, all / 8)
        } else {
            (all / 8 * 3, all / 4)
        };
        let choices = room.saturating_sub(bytes) / page;
        let tries = if choices == 0 { 0 } else { PLACES_TRIED };
        (0..tries).map(move |_| from + self.random() as usize % choices * page)
    }

    /// Whether the break can be moved without another thread moving it at the same time. libc's `sbrk` is not atomic:
    /// two that overlap give both callers the same memory. So beside another malloc the break is moved only while there
    /// is one thread. The directory of a process's threads has two links and one for each (proc(5)).
    fn may_move_break(&self) -> bool {
        if self.sole.load(Relaxed) != 0 {
            return true;
        }
        // Cheaper, and a filter of system calls (seccomp(2)) has no say in it.
        if let Some(single) = super::loader::is_single_threaded() {
            return single;
        }
        calls::holds_one(c"/proc/self/task")
    }
}

/// Runs `call` and puts errno back to what it was.
fn keeping_errno<T>(call: impl FnOnce() -> T) -> T {
    // SAFETY: the C library returns the address of the calling thread's own errno.
    let errno = unsafe { *libc::__errno_location() };
    let result = call();
    // SAFETY: errno belongs to the calling thread, and its address is valid while the thread lives.
    unsafe { *libc::__errno_location() = errno };
    result
}

fn map_anonymous(bytes: usize, access: libc::c_int, flags: libc::c_int) -> Option<NonNull<u8>> {
    // SAFETY: a fresh mapping at an address of the kernel's choice touches nobody's memory.
    calls::address(unsafe { calls::map(0, bytes, access, flags) })
}

/// Whether the mapping of the page at `start` is locked in memory: then it has no cold pages (Linux 5.4). The kernel counts
/// what is locked of a mapping wrongly if its place stays.
fn is_locked(start: usize, page: usize) -> bool {
    // SAFETY: advice that changes no contents.
    !unsafe { calls::advise(start, page, libc::MADV_COLD) }
}

/// Maps memory at `start` and nowhere else: `EEXIST` where anything lies there.
fn map_where_free(
    start: usize,
    bytes: usize,
    access: libc::c_int,
    flags: libc::c_int,
) -> Result<(), libc::c_int> {
    // SAFETY: a mapping that replaces none touches nobody's memory (Linux 4.17).
    match unsafe { calls::map(start, bytes, access, flags | ONLY_WHERE_FREE) }? {
        got if got == start => Ok(()),
        elsewhere => {
            // SAFETY: our own fresh mapping: an older kernel takes the address for a wish.
            unsafe { calls::unmap(elsewhere, bytes) };
            Err(libc::EEXIST)
        }
    }
}

/// The number of an address.
fn at(start: NonNull<u8>) -> usize {
    start.as_ptr() as usize
}

const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

impl Vm for Linux {
    fn page_size(&self) -> usize {
        self.process.page_size()
    }

    fn break_end(&self) -> Option<usize> {
        self.move_break(0)
    }

    fn move_break(&self, delta: isize) -> Option<usize> {
        if delta != 0 && !self.may_move_break() {
            return None;
        }
        // SAFETY: the caller owns what a negative delta gives back. A positive one takes fresh pages.
        let old = keeping_errno(|| unsafe { libc::sbrk(delta) }) as isize;
        if old == -1 || old == 0 {
            return None;
        }
        Some(old as usize)
    }

    fn claim(&self, bytes: usize) -> Result<NonNull<u8>, Refusal> {
        let page = self.page_size();
        // Where a limit leaves not even a page, one call tells so, and no place is drawn.
        let probe = map_anonymous(page, libc::PROT_NONE, libc::MAP_NORESERVE);
        let probe = probe.ok_or(Refusal::NoMemory)?;
        // SAFETY: our own fresh mapping. It has no contents, and nobody else knows it.
        unsafe { calls::unmap(at(probe), page) };
        for place in self.places(bytes) {
            let free = calls::is_range_free(place, bytes)
                .and_then(|()| map_where_free(place, page, libc::PROT_NONE, libc::MAP_NORESERVE));
            match free {
                Ok(()) => {
                    // SAFETY: our own fresh page, which has shown that the system maps where it is told to. The whole
                    // range would count for a limit, and another thread be refused meanwhile.
                    unsafe { calls::unmap(place, page) };
                    return NonNull::new(place as *mut u8).ok_or(Refusal::Taken);
                }
                Err(libc::EEXIST) => {}
                // No other place would help, nor less.
                Err(libc::ENOMEM) => return Err(Refusal::NoMemory),
                Err(_) => return Err(Refusal::Taken),
            }
        }
        // valgrind(1) answers EEXIST to every question. There only a mapping of the whole range tells.
        let mut places = self.places(bytes);
        let maps = |&place: &usize| {
            map_where_free(place, bytes, libc::PROT_NONE, libc::MAP_NORESERVE).is_ok()
        };
        let place = places.find(maps).ok_or(Refusal::Taken)?;
        // SAFETY: our own fresh mapping. It has no contents, and nobody else knows it.
        unsafe { calls::unmap(place, bytes) };
        NonNull::new(place as *mut u8).ok_or(Refusal::Taken)
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let (access, flags) = (libc::PROT_NONE, libc::MAP_NORESERVE);
        let random = self
            .places(bytes)
            .map(|place| map_where_free(place, bytes, access, flags).map(|()| place))
            // Where another place would not help either there is no other try.
            .find(|tried| *tried != Err(libc::EEXIST))
            .and_then(|tried| NonNull::new(tried.ok()? as *mut u8));
        let start = random.or_else(|| map_anonymous(bytes, access, flags))?;
        // SAFETY: our own fresh range. Failure only means a larger core dump.
        unsafe { calls::advise(at(start), bytes, libc::MADV_DONTDUMP) };
        Some(start)
    }

    unsafe fn open(&self, start: NonNull<u8>, bytes: usize, hold: Hold) -> Result<(), Refusal> {
        if hold == Hold::Claimed {
            return map_where_free(at(start), bytes, READ_WRITE, 0).map_err(|error| match error {
                libc::EEXIST => Refusal::Taken,
                _ => Refusal::NoMemory,
            });
        }
        // SAFETY: the caller's range is within a reserve, which core dumps leave out: from now on it has contents that
        // a debugger asks for.
        unsafe {
            if !calls::protect(at(start), bytes, READ_WRITE) {
                return Err(Refusal::NoMemory);
            }
            calls::advise(at(start), bytes, libc::MADV_DODUMP);
        }
        Ok(())
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        if align <= self.page_size() {
            let start = map_anonymous(bytes, READ_WRITE, 0)?;
            self.advise_mapped(start.as_ptr() as usize, bytes);
            return Some(start);
        }
        let whole = map_anonymous(bytes.checked_add(align)?, READ_WRITE, 0)?;
        let head = whole.as_ptr().align_offset(align);
        // SAFETY: head and tail are parts of the fresh mapping, and the block between stays. `head` is at most `align`,
        // so all three parts lie within `bytes + align`.
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
        let done = map_where_free(start, bytes, READ_WRITE, 0).is_ok();
        if done {
            self.advise_mapped(start, bytes);
        }
        done
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller gives up the range, so nobody uses it after this call.
        unsafe { calls::unmap(at(start), bytes) }
    }

    unsafe fn remap(&self, start: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller owns the old range and follows it to where it moves.
        match unsafe { calls::remap(at(start), old, new, libc::MREMAP_MAYMOVE) } {
            // SAFETY: the caller owns the old range and follows it to where it moves.
            Err(libc::EFAULT) if old >= PIECES_LEAST && new > old => unsafe {
                self.move_pieces(at(start), old, new)
            },
            answer => calls::address(answer),
        }
    }

    unsafe fn move_over(&self, start: NonNull<u8>, bytes: usize, to: NonNull<u8>) -> Moved {
        if !self.moves_pieces() {
            return Moved::Refused;
        }
        // SAFETY: the caller owns both ranges, and follows the pages.
        unsafe {
            self.move_each(at(start), bytes, at(to), |from, bytes, to| {
                calls::move_to(from, bytes, to)
            })
        }
    }

    unsafe fn move_out(
        &self,
        start: NonNull<u8>,
        bytes: usize,
        place: usize,
        part: usize,
        least: usize,
    ) -> Option<NonNull<u8>> {
        let (page, start) = (self.page_size(), at(start));
        // What the program sets for its block makes a mapping apart of it. A fence that is one by its protection always
        // lies in another mapping. All the process's memory may be locked, with fences and all.
        let may = self.fences.way.load(Relaxed) == BY_GUARD
            && !self.has_huge_pages()
            && self.moves_pieces()
            && self.is_one(start, bytes + page)
            // SAFETY: the caller owns the block, and nothing was set for it.
            && unsafe { self.is_used(start + least - page) }
            && !is_locked(start, page);
        if !may {
            return None;
        }
        // SAFETY: the caller owns the block, and nobody uses it.
        let to = unsafe { calls::move_away(start, part, place) }.ok()?;
        // SAFETY: the pages that have moved. Guards that the program has put among them came along, and would fault.
        unsafe {
            if !calls::advise(to, part, GUARD_REMOVE) {
                calls::unmap(to, part);
                return None;
            }
        }
        NonNull::new(to as *mut u8)
    }

    unsafe fn move_in(&self, start: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Moved {
        let (page, start, to) = (self.page_size(), at(start), at(to));
        // What is to be locked would not be any more, and the other way round.
        if is_locked(start, page) || is_locked(to, page) || !self.is_one(start, old) {
            return Moved::Refused;
        }
        // SAFETY: the caller owns both ranges, and nobody uses either.
        if unsafe { calls::move_as(start, old, to, new) }.is_ok() {
            return Moved::Done;
        }
        // Before it unmaps the new place the kernel refuses for a limit. Later it lacks memory itself, and another thread may
        // have mapped something there: no fence ends that.
        let fence = to + new - page;
        match self.is_one(to, new) && calls::populate(fence, page) == Err(libc::EFAULT) {
            true => Moved::Refused,
            false => Moved::Lost,
        }
    }

    unsafe fn stretch(&self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        // SAFETY: the caller's mapping, which stays where it is.
        unsafe { calls::remap(at(start), old, new, 0).is_ok() }
    }

    unsafe fn discard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller says that the contents are dead.
        unsafe { calls::advise(at(start), bytes, libc::MADV_DONTNEED) }
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
        calls::name_range(start.as_ptr(), bytes, name);
    }

    fn clock(&self) -> u64 {
        // It exists since Linux 2.6.32.
        let now = self.process.clock(libc::CLOCK_MONOTONIC_COARSE);
        let now = now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000;
        self.time.tell(now)
    }

    fn limits(&self) -> Limits {
        calls::limits()
    }

    fn prefer_huge_pages(&self) {
        self.huge.store(1, Relaxed);
    }

    fn learn_huge_pages(&self) {
        let mut text = [0; 64];
        let length = calls::read_file(c"/sys/kernel/mm/transparent_hugepage/enabled", &mut text);
        let always = text[..length].starts_with(b"[always]");
        let gives = if always { GIVES } else { GIVES_NONE };
        self.unasked.store(gives, Relaxed);
    }

    unsafe fn advise_huge(&self, start: NonNull<u8>, bytes: usize, huge: Huge) {
        let advice = match huge {
            Huge::Wanted => libc::MADV_HUGEPAGE,
            Huge::Unwanted => libc::MADV_NOHUGEPAGE,
        };
        // SAFETY: the caller's range. Advice changes no contents.
        unsafe { calls::advise(at(start), bytes, advice) };
    }

    fn memory(&self) -> usize {
        calls::memory()
    }

    unsafe fn seal(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's: nobody writes there any more, and from now on the kernel refuses to change the mapping.
        // Older ones know no such call.
        unsafe {
            let done = calls::protect(at(start), bytes, libc::PROT_READ);
            calls::seal(at(start), bytes);
            done
        }
    }

    unsafe fn fence(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let fences = &self.fences;
        if fences.way.load(Relaxed) != BY_PROTECTION {
            // SAFETY: the caller guarantees that nobody needs the contents, and the range is its own.
            if unsafe { calls::advise(at(start), bytes, GUARD_INSTALL) } {
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
            fences.missing.store(1, Relaxed);
            return false;
        }
        // SAFETY: the caller guarantees that nobody uses the range from now on.
        let done = unsafe { calls::protect(at(start), bytes, libc::PROT_NONE) };
        if !done {
            fences.missing.store(1, Relaxed);
        }
        done
    }

    unsafe fn unfence(&self, start: NonNull<u8>, bytes: usize) -> bool {
        if self.fences.way.load(Relaxed) != BY_PROTECTION {
            // SAFETY: the caller owns the range, whose contents went with its marks.
            return unsafe { calls::advise(at(start), bytes, GUARD_REMOVE) };
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the caller owns the range, and nobody relies on its faults.
        let done = unsafe { calls::protect(at(start), bytes, access) };
        if done && self.fences.missing.load(Relaxed) == 0 {
            self.fences_gone(1);
        }
        done
    }

    fn mappings(&self) -> usize {
        max_mappings()
    }

    fn fences_gone(&self, count: usize) {
        if self.fences.way.load(Relaxed) == BY_PROTECTION {
            let less = |now: usize| Some(now.saturating_sub(count));
            let _ = self.fences.protected.fetch_update(Relaxed, Relaxed, less);
        }
    }

    unsafe fn close(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let flags = libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the caller gives the contents up and keeps the range.
        unsafe { calls::map(at(start), bytes, libc::PROT_NONE, flags).is_ok() }
    }

    fn still_holds(&self, address: usize, value: u32) -> Option<bool> {
        calls::is_word(address, value)
    }
}

impl Host for Linux {
    fn start_background(&self) -> bool {
        keeping_errno(|| start_thread(self.hooks.background))
    }

    fn rest(&self, milliseconds: u64) {
        calls::rest(milliseconds);
    }

    fn barrier(&self) -> bool {
        calls::barrier()
    }

    fn random(&self) -> u64 {
        let word = calls::random();
        // Where that failed, at least an address mixes in.
        word ^ (ptr::from_ref(&word) as u64).rotate_left(32) ^ self.clock()
    }

    fn begin(&self) {
        self.make_key();
        // SAFETY: the hooks are functions for the process's life, since the preload library cannot be unloaded.
        keeping_errno(|| unsafe {
            let hooks = &self.hooks;
            let (prepare, parent) = (Some(hooks.fork_prepare), Some(hooks.fork_parent));
            libc::pthread_atfork(prepare, parent, Some(hooks.fork_child));
            (self.hooks.started)();
        });
    }

    fn options(&self) -> &'static [u8] {
        REPORTS_PATH.keep();
        variable(crate::os::OPTIONS).map_or(&[], core::ffi::CStr::to_bytes)
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
        report(&[line]);
    }

    fn next_malloc(&self) -> Option<NextMalloc> {
        keeping_errno(super::loader::next_malloc)
    }

    fn stay_loaded(&self) {
        keeping_errno(super::loader::stay_loaded);
    }

    fn thread_id(&self) -> u64 {
        (calls::getpid() as u64) << 32 | calls::gettid() as u64
    }

    unsafe fn copy_own(&self, process: u32, from: usize, to: *mut u8, bytes: usize) -> usize {
        // SAFETY: the caller owns the bytes that are written to.
        unsafe { calls::copy_from(process as usize, from, to as usize, bytes) }
    }

    fn is_alone(&self) -> bool {
        super::loader::is_single_threaded() == Some(true)
    }

    fn invalid(&self) {
        // SAFETY: the C library returns the address of the calling thread's own errno.
        unsafe { *libc::__errno_location() = libc::EINVAL };
    }

    fn exhausted(&self) {
        // SAFETY: the C library returns the address of the calling thread's own errno.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
    }

    fn fork_mark(&self) -> Option<&'static AtomicU32> {
        let bytes = self.page_size();
        let page = self.map(bytes, 1)?;
        // SAFETY: the fresh page is ours for good, zero is a valid word, and madvise changes only what a
        // child finds there (MADV_WIPEONFORK, Linux 4.14).
        unsafe {
            if !calls::advise(at(page), bytes, libc::MADV_WIPEONFORK) {
                self.unmap(page, bytes);
                return None;
            }
            let mark = page.byte_add(PAGE_START).cast::<AtomicU32>().as_ref();
            mark.store(1, Relaxed);
            Some(mark)
        }
    }

    fn forked(&self) {
        (self.hooks.forked)();
    }

    fn watch_thread(&self, thread: NonNull<u8>) {
        let key = self.make_key();
        if key != 0 {
            // SAFETY: the key was created and is never deleted.
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
        let known = self.stack_with_care(&mut frames);
        self.say_stack(&frames[..known]);
        for (title, frames) in stacks {
            tell(Line::new().text("  ").text(title).text("\n"));
            self.say_stack(frames);
        }
        // SAFETY: abort(3) may be called at any time, and does not return.
        unsafe { libc::abort() }
    }

    fn say_stack(&self, frames: &[usize]) {
        let outer = frames.iter().position(|&at| !is_own(at)).unwrap_or(0);
        frames[outer..].iter().for_each(|&at| tell_frame(at));
    }

    fn watch_faults(&self) {
        FAULT.store(self.hooks.fault as *mut (), Relaxed);
        let mut action = core::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeros but for what is set is a valid action. The handler is a function for the process's life,
        // and calls what was there before.
        unsafe {
            let place = action.as_mut_ptr();
            (*place).sa_sigaction = handle_fault as *const () as usize;
            (*place).sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            keeping_errno(|| libc::sigaction(libc::SIGSEGV, place, BEFORE.0.get()));
        }
    }

    fn stack(&self, frames: &mut [usize]) -> usize {
        keeping_errno(|| stack::tell(frames))
    }

    fn stack_with_care(&self, frames: &mut [usize]) -> usize {
        keeping_errno(|| stack::tell_with_care(frames))
    }

    fn prepare_stacks(&self) {
        stack::prepare();
    }
}

/// What a thread runs.
type Work = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;

/// Signals 32 and 33 are glibc's own, 34 musl's as well: setuid(3) waits until every thread has answered one.
const OF_LIBC: u64 = if cfg!(target_env = "musl") {
    0b111 << 31
} else {
    0b11 << 31
};

/// Starts a thread that blocks all signals but libc's own and is joined by nobody. Whether it did.
fn start_thread(work: Work) -> bool {
    let mut thread = 0;
    // The new thread has the mask of the calling one.
    let before = calls::mask_signals(!OF_LIBC);
    // SAFETY: `thread` is a place to write to, and the work is a function for the process's life. Nobody else knows of
    // the thread.
    let started = unsafe {
        let failed = libc::pthread_create(&mut thread, ptr::null(), work, ptr::null_mut());
        failed == 0 && libc::pthread_detach(thread) == 0
    };
    calls::mask_signals(before);
    started
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

/// Reports a fault, and lets it happen again under the handler that was there before. A signal that a process sent
/// happens by itself no second time, so it is sent once more.
extern "C" fn handle_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives what it knows of the signal, and for a fault its address. The old action is put back, so
    // this runs once.
    unsafe {
        let hook = FAULT.load(Relaxed);
        libc::sigaction(libc::SIGSEGV, BEFORE.0.get(), ptr::null_mut());
        let is_sent = (*info).si_code <= 0;
        if is_sent {
            calls::signal_again(&*info);
        } else if !hook.is_null() {
            let hook: fn(usize) = core::mem::transmute(hook);
            hook((*info).si_addr() as usize);
        }
    }
}

/// The most frames that a report names.
const FRAMES: usize = 24;
/// The longest name of a file.
const PATH: usize = 4096;
/// Random places that are tried for address space.
const PLACES_TRIED: usize = 8;

fn tell(line: &Line) {
    report(&[line.bytes()]);
}

/// Writes a line of a report, given in parts, on standard error, and to the file of who started the program to read it.
fn report(parts: &[&[u8]]) {
    let write = |file| parts.iter().for_each(|part| calls::write(file, part));
    write(libc::STDERR_FILENO);
    let Some(path) = REPORTS_PATH.get() else {
        return;
    };
    let flags =
        libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: the path ends with a nul, and the descriptor is our own.
    unsafe {
        if let Ok(file) = calls::open(path.as_ptr().cast(), flags, 0) {
            // Who made the file sealed it so. After the maker's end its number under /proc may be another process's.
            if calls::seals(file) == libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK {
                write(file);
            }
            calls::close(file);
        }
    }
}

/// Bytes of the longest path that names a file for reports, with the nul.
const REPORTS_PATH_BYTES: usize = 64;

/// The path that [`crate::os::REPORTS`] had at the start: a report does not look through an environment that the program
/// may have changed or freed.
struct ReportsPath {
    bytes: [AtomicU8; REPORTS_PATH_BYTES],
    is_set: AtomicU32,
}

static REPORTS_PATH: ReportsPath = ReportsPath {
    bytes: [const { AtomicU8::new(0) }; REPORTS_PATH_BYTES],
    is_set: AtomicU32::new(0),
};

impl ReportsPath {
    /// Keeps what the variable says now, if that is not too long.
    fn keep(&self) {
        let path = variable(crate::os::REPORTS).map_or(&[][..], core::ffi::CStr::to_bytes);
        if path.is_empty() || path.len() >= REPORTS_PATH_BYTES {
            return;
        }
        for (kept, &byte) in self.bytes.iter().zip(path) {
            kept.store(byte, Relaxed);
        }
        self.is_set.store(1, Release);
    }

    /// The path with a nul at its end.
    fn get(&self) -> Option<[u8; REPORTS_PATH_BYTES]> {
        let is_set = self.is_set.load(Acquire) != 0;
        is_set.then(|| core::array::from_fn(|at| self.bytes[at].load(Relaxed)))
    }
}

/// The file that `at` lies in, as far as the dynamic linker knows.
fn file_of(at: usize) -> Option<libc::Dl_info> {
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is a place to write to, and all zeros is a valid answer.
    unsafe { (libc::dladdr(at as *const _, info.as_mut_ptr()) != 0).then(|| info.assume_init()) }
        .filter(|info| !info.dli_fname.is_null())
}

/// Whether a file is the program itself: it holds the program's entry point.
fn is_program(file: &libc::Dl_info) -> bool {
    let entry = auxiliary_value(libc::AT_ENTRY as usize);
    let program = entry.and_then(file_of);
    program.is_some_and(|program| program.dli_fbase == file.dli_fbase)
}

/// Whether `at` lies in the library that this code is part of. Where it is part of the program, nothing does.
fn is_own(at: usize) -> bool {
    match (file_of(at), file_of(is_own as *const () as usize)) {
        (Some(file), Some(own)) => file.dli_fbase == own.dli_fbase && !is_program(&own),
        _ => false,
    }
}

/// Where the program's path is read to. A report may run on a signal stack of 8 KiB, which has no room for it.
struct ProgramPath(UnsafeCell<[u8; PATH]>);

// SAFETY: only who has set `PROGRAM_PATH_TAKEN` touches the bytes.
unsafe impl Sync for ProgramPath {}

static PROGRAM_PATH: ProgramPath = ProgramPath(UnsafeCell::new([0; PATH]));
/// Set while a thread uses [`PROGRAM_PATH`]. No thread waits for it: another one prints the dynamic linker's name.
static PROGRAM_PATH_TAKEN: AtomicBool = AtomicBool::new(false);

/// Calls `tell` with the program's path, if it can be read now.
fn with_program_path(tell: impl FnOnce(&[u8])) -> bool {
    if PROGRAM_PATH_TAKEN.swap(true, Acquire) {
        return false;
    }
    let start = PROGRAM_PATH.0.get().cast::<u8>();
    // SAFETY: the bytes are this thread's by the flag.
    let path = unsafe { core::slice::from_raw_parts_mut(start, PATH) };
    let length = calls::read_link(c"/proc/self/exe", path);
    if length > 0 {
        tell(&path[..length]);
    }
    PROGRAM_PATH_TAKEN.store(false, Release);
    length > 0
}

/// A line for one frame: its address, and where in which file, as far as the dynamic linker knows.
fn tell_frame(at: usize) {
    let mut address = Line::new();
    address.text("    at ").hex(at);
    let Some(file) = file_of(at) else {
        return tell(address.text("\n"));
    };
    let mut offset = Line::new();
    offset
        .text("+")
        .hex(at - file.dli_fbase as usize)
        .text("\n");
    address.text(" ");
    let write = |path: &[u8]| report(&[address.bytes(), path, offset.bytes()]);
    // The dynamic linker knows the program by the name that it was started with, which need be no path.
    if !(is_program(&file) && with_program_path(write)) {
        // SAFETY: a name that the dynamic linker has given is one of its strings.
        write(unsafe { string(file.dli_fname) }.to_bytes());
    }
}

/// How many mappings a process may have.
fn max_mappings() -> usize {
    let mut text = [0u8; 16];
    let length = calls::read_file(c"/proc/sys/vm/max_map_count", &mut text);
    if length == 0 {
        return MAPPINGS;
    }
    let digits = text[..length]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, byte| sum * 10 + usize::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 256 << 10;

    fn linux() -> Linux {
        extern "C" fn nothing() {}
        unsafe extern "C" fn nothing_to(_: *mut libc::c_void) {}
        extern "C" fn background(of: *mut libc::c_void) -> *mut libc::c_void {
            of
        }
        Linux::new(Hooks {
            started: || {},
            thread_exit: nothing_to,
            fork_prepare: nothing,
            fork_parent: nothing,
            fork_child: nothing,
            forked: || {},
            background,
            fault: |_| {},
        })
    }

    /// As `linux`, of a process that gives freed large blocks' pages to later ones.
    fn moving() -> Linux {
        let linux = linux();
        linux.learn_huge_pages();
        linux
    }

    fn byte(at: usize) -> u8 {
        (at / 4096 + 1) as u8
    }

    /// Three mappings side by side that the kernel does not join, with bytes of their own on each page.
    fn several() -> usize {
        let whole = map_anonymous(3 * BYTES, READ_WRITE, 0).unwrap();
        for piece in [2, 0, 1] {
            let apart = map_anonymous(BYTES, READ_WRITE, 0).unwrap();
            // SAFETY: fresh ranges of the test's own.
            unsafe {
                (0..BYTES).step_by(4096).for_each(|offset| {
                    apart.add(offset).write(byte(piece * BYTES + offset));
                });
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                let to = whole.as_ptr().add(piece * BYTES);
                let moved = libc::mremap(apart.as_ptr().cast(), BYTES, BYTES, flags, to);
                assert_eq!(moved, to.cast());
            }
        }
        at(whole)
    }

    fn is_whole(start: usize) -> bool {
        // SAFETY: a range of the test's own.
        let holds = |offset| unsafe { *((start + offset) as *const u8) } == byte(offset);
        (0..3 * BYTES).step_by(4096).all(holds)
    }

    #[test]
    fn several_mappings_are_found_one_by_one() {
        let start = several();
        let linux = linux();
        assert_eq!(linux.piece(start, 3 * BYTES), BYTES);
        assert_eq!(linux.piece(start + 4096, 2 * BYTES), BYTES - 4096);
        assert_eq!(linux.piece(start, BYTES / 2), BYTES / 2);
        assert!(is_whole(start));
    }

    #[test]
    fn several_mappings_grow_as_one() {
        let start = NonNull::new(several() as *mut u8).unwrap();
        // SAFETY: a range of the test's own.
        let moved = unsafe { linux().remap(start, 3 * BYTES, 5 * BYTES) }.unwrap();
        assert!(is_whole(at(moved)));
        // SAFETY: ranges of the test's own.
        assert_eq!(unsafe { moved.add(5 * BYTES - 1).read() }, 0);
    }

    #[test]
    fn several_mappings_move_over_another_one() {
        let start = NonNull::new(several() as *mut u8).unwrap();
        let to = map_anonymous(4 * BYTES, READ_WRITE, 0).unwrap();
        // SAFETY: ranges of the test's own.
        unsafe {
            to.write_bytes(0xee, 4 * BYTES);
            assert_eq!(linux().move_over(start, 3 * BYTES, to), Moved::Done);
            assert_eq!(to.add(3 * BYTES).read(), 0xee);
        }
        assert!(is_whole(at(to)));
    }

    /// Where one does not move, all of them are where they were, and as they were. None is moved any more.
    #[test]
    fn a_move_that_fails_midway_is_undone() {
        for fails_at in 0..3 {
            let start = several();
            let to = at(map_anonymous(3 * BYTES, READ_WRITE, 0).unwrap());
            let step = |from: usize, bytes, to| match from == start + fails_at * BYTES {
                true => Err(libc::ENOMEM),
                // SAFETY: ranges of the test's own.
                false => unsafe { calls::move_to(from, bytes, to) },
            };
            let linux = linux();
            // SAFETY: ranges of the test's own.
            let moved = unsafe { linux.move_each(start, 3 * BYTES, to, step) };
            assert_eq!(moved, Moved::Lost);
            assert!(is_whole(start), "{fails_at}");
            let start = NonNull::new(start as *mut u8).unwrap();
            let to = map_anonymous(3 * BYTES, READ_WRITE, 0).unwrap();
            // SAFETY: ranges of the test's own.
            let moved = unsafe { linux.move_over(start, 3 * BYTES, to) };
            assert_eq!(moved, Moved::Refused);
        }
    }

    #[test]
    fn locked_pages_stay() {
        let start = several();
        let to = map_anonymous(3 * BYTES, READ_WRITE, 0).unwrap();
        // SAFETY: ranges of the test's own.
        unsafe {
            assert_eq!(libc::mlock((start + BYTES) as *const _, 4096), 0);
            let from = NonNull::new(start as *mut u8).unwrap();
            assert_eq!(linux().move_over(from, 3 * BYTES, to), Moved::Refused);
        }
        assert!(is_whole(start));
    }

    /// A block of `BYTES` bytes with its fence behind it. `None` where the kernel has no guards that leave a mapping whole.
    fn fenced(linux: &Linux) -> Option<NonNull<u8>> {
        let block = map_anonymous(BYTES + 4096, READ_WRITE, 0).unwrap();
        // SAFETY: a range of the test's own.
        unsafe {
            block.write_bytes(0xee, BYTES);
            linux.fence(block.add(BYTES), 4096);
        }
        (linux.fences.way.load(Relaxed) == BY_GUARD).then_some(block)
    }

    #[test]
    fn pages_move_out_while_nothing_is_set_for_their_block() {
        let linux = moving();
        for kind in 0..7 {
            let Some(block) = fenced(&linux) else { return };
            let all = block.as_ptr().cast();
            // SAFETY: ranges of the test's own.
            let done = unsafe {
                match kind {
                    0 => libc::mprotect(all, BYTES, libc::PROT_READ),
                    1 => libc::mprotect(all.add(BYTES / 2), 4096, libc::PROT_NONE),
                    2 => libc::madvise(all, BYTES, libc::MADV_DONTFORK),
                    3 => libc::madvise(all, BYTES, libc::MADV_DONTDUMP),
                    // Nothing is left in the page that is looked at.
                    4 => libc::madvise(all.add(4096), 4096, libc::MADV_DONTNEED),
                    5 => {
                        calls::seal(at(block), BYTES + 4096);
                        0
                    }
                    // It says that the fence cannot be read, and has locked both.
                    _ => libc::mlock(all, BYTES + 4096) + 1,
                }
            };
            assert_eq!(done, 0);
            // SAFETY: ranges of the test's own.
            let moved = unsafe { linux.move_out(block, BYTES, 0, BYTES, 8192) };
            assert_eq!(moved, None, "{kind}");
        }
        let Some(block) = fenced(&linux) else { return };
        let place = map_anonymous(BYTES, READ_WRITE, 0).unwrap();
        // SAFETY: ranges of the test's own. A guard of the program's own is no obstacle, nor one afterwards, but for one in
        // the page that is looked at.
        let to = unsafe {
            calls::unmap(at(place), BYTES);
            assert!(calls::advise(at(block), 4096, GUARD_INSTALL));
            let none = linux.move_out(block, BYTES, at(place), BYTES / 2, 4096);
            assert_eq!(none, None);
            let to = linux.move_out(block, BYTES, at(place), BYTES / 2, 8192);
            let to = to.unwrap();
            assert_eq!((to.read(), to.add(4096).read()), (0, 0xee));
            assert_eq!(block.add(4096).read(), 0);
            assert_eq!(block.add(BYTES / 2).read(), 0xee);
            to
        };
        // Over another block, which has its fence again then and can be asked about.
        let Some(other) = fenced(&linux) else { return };
        // SAFETY: ranges of the test's own.
        unsafe {
            let moved = linux.move_in(to, BYTES / 2, other, BYTES + 4096);
            assert_eq!(moved, Moved::Done);
            assert_eq!(other.add(4096).read(), 0xee);
            assert_eq!(other.add(BYTES / 2).read(), 0);
            assert!(linux.fence(other.add(BYTES), 4096));
            let moved = linux.move_out(other, BYTES, 0, BYTES, 8192);
            let to = moved.unwrap();
            // Nor do they move to where memory is locked, or from there.
            let Some(last) = fenced(&linux) else { return };
            assert_eq!(libc::mlock(to.as_ptr().cast(), 4096), 0);
            let moved = linux.move_in(to, BYTES, last, BYTES + 4096);
            assert_eq!(moved, Moved::Refused);
        }
    }

    #[test]
    fn too_many_mappings_stay() {
        let start = map_anonymous((MOST_PIECES + 1) * 2 * 4096, READ_WRITE, 0).unwrap();
        for page in 0..MOST_PIECES + 1 {
            // SAFETY: a range of the test's own.
            unsafe { calls::protect(at(start) + page * 2 * 4096, 4096, libc::PROT_READ) };
        }
        let to = map_anonymous((MOST_PIECES + 1) * 2 * 4096, READ_WRITE, 0).unwrap();
        // SAFETY: ranges of the test's own.
        let moved = unsafe { linux().move_over(start, (MOST_PIECES + 1) * 2 * 4096, to) };
        assert_eq!(moved, Moved::Scattered);
    }
}
