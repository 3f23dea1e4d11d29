//! What the allocator asks of the system, as traits, so that the system can be swapped: [`Vm`] maps memory, and
//! [`Host`] is what the process offers besides.
//!
//! [`Linux`] asks the real one. `Sim` (the crate `slabside-sim`) is a simulated one that checks every transition of every page and
//! fails when told to. Nothing else makes a system call but `mutex`'s futex.
//!
//! A page of address space is in one of three states:
//!
//! ```text
//!   absent --reserve--> reserved --open--> usable --unmap--> absent
//!      |`--claim, open-----------------------^|
//!      `-----------map / move_break(+)-------^ `--move_break(-)--> absent
//! ```
//!
//! What is claimed stays absent until it is opened: it counts for no limit, and anybody may come to lie there first.

#[macro_use]
mod loader;
pub mod calls;
pub mod cxx;
mod steady;
mod process;
mod stack;
mod linux;

use crate::misuse::{Line, Misuse};
use crate::sync::AtomicU32;
use core::ptr::NonNull;

pub use linux::{Hooks, Linux};
pub use loader::{is_own_code, next_symbol, symbol, NextMalloc};
pub use process::variable;

/// How many mappings a process may have where that is not known.
pub const MAPPINGS: usize = 65_530;

/// The environment variable that options are read from.
pub const OPTIONS: &core::ffi::CStr = c"SLABSIDE_OPTIONS";
/// The environment variable that names a file to which reports of misuse are added, beside standard error.
pub const REPORTS: &core::ffi::CStr = c"SLABSIDE_REPORTS";

/// The limits that a process runs under, in bytes. `usize::MAX` if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space (`RLIMIT_AS`): counts even what is only reserved.
    pub address_space: usize,
    /// Writable private memory (`RLIMIT_DATA`): the break and what is opened or mapped.
    pub data: usize,
}

/// Whether huge pages are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Huge {
    /// Ask for them.
    Wanted,
    /// No more.
    Unwanted,
}

/// How address space is kept free for the one who is going to open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Not at all: nothing lay there when it was chosen, far from where the system maps.
    Claimed,
    /// By a mapping that nobody can touch.
    Reserved,
}

/// Why [`Vm::claim`] or [`Vm::open`] did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The system gives no more memory.
    NoMemory,
    /// Something lies there.
    Taken,
}

/// What became of a range that was to move over another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It did, and where it was nothing lies any more.
    Done,
    /// It did not. Nothing changed.
    Refused,
    /// It did not, since it lies in too many parts for its size. Nothing changed.
    Scattered,
    /// It did not. The other range is nobody's any more.
    Lost,
}

/// The system's memory, and what decides how it is used.
///
/// Contract, for both traits: sizes and addresses are in bytes and multiples of [`Vm::page_size`], except for
/// the break, which may stand anywhere. A method that fails changes nothing. None allocates by malloc unless it says so,
/// none keeps a lock. All keep errno.
///
/// Every method is required, so that whoever stands between the allocator and the system forwards each one. A system
/// that cannot do what hardened mode asks for (fences, closing, sealing) answers false, and the allocator does without.
pub trait Vm: Sync {
    /// Size of an OS page: a power of two, at least our 4 KiB page.
    fn page_size(&self) -> usize;

    /// Where the break stands (`sbrk(0)`), or `None` where there is no break to move.
    fn break_end(&self) -> Option<usize>;

    /// Moves the break by `delta` bytes (sbrk(2)) and returns where it stood before. New pages are zero.
    fn move_break(&self, delta: isize) -> Option<usize>;

    /// Chooses address space where nothing lies, at a random place, and takes none of it. `Taken` where no place was
    /// found, or the system does not map where it is told to. `NoMemory` where it maps not even a page.
    fn claim(&self, bytes: usize) -> Result<NonNull<u8>, Refusal>;

    /// Takes address space without memory, at a random place where the system can: touching it faults. It counts for a
    /// limit of address space, but not as committed memory, and is left out of core dumps.
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Makes a range usable, zero at first, and part of core dumps. In a reserve, usable pages of the range stay as
    /// they are. What is claimed is refused where anything lies in the range, usable pages of ours too.
    ///
    /// # Safety
    /// The range lies within one that [`Vm::claim`] or [`Vm::reserve`] returned, as `hold` says.
    unsafe fn open(&self, start: NonNull<u8>, bytes: usize, hold: Hold) -> Result<(), Refusal>;

    /// Maps usable zero pages at a multiple of `align` (a power of two).
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>>;

    /// Maps usable zero pages at `start` and nowhere else. False if any of the addresses is in use. Beside a mapping of
    /// ours they become part of it, which moving it by mremap would prevent.
    fn map_at(&self, start: usize, bytes: usize) -> bool;

    /// Gives address space back. It may fail where splitting a mapping would exceed `vm.max_map_count`.
    ///
    /// # Safety
    /// Nobody uses the range any more, and it came from [`Vm::map`], [`Vm::remap`] or [`Vm::reserve`], or was opened.
    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Resizes a mapping, moving it if need be (mremap(2)). Bytes beyond the old size are zero.
    ///
    /// # Safety
    /// As [`Vm::unmap`]. On success the old range is gone where the address differs.
    unsafe fn remap(&self, start: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>>;

    /// Moves mapped pages over others, whose contents are lost.
    ///
    /// # Safety
    /// As [`Vm::unmap`], of both ranges, which are apart.
    unsafe fn move_over(&self, start: NonNull<u8>, bytes: usize, to: NonNull<u8>) -> Moved;

    /// Moves the first `part` bytes of a block to a new mapping: to `place`, or elsewhere if that is taken. Where to. The
    /// block stays, and what moved reads as zero there.
    ///
    /// `None`: all is as it was. So it is where nothing lies in the page before byte `least` of the block, or where huge pages
    /// serve it. So it is too unless the block and the page behind it, which is fenced and the caller's too, are one mapping
    /// for the system: then nothing was set for the block alone, be it protection, advice or a lock.
    ///
    /// # Safety
    /// The caller owns the block, and nobody uses it any more. `least` is at most `part`, and both are whole pages.
    unsafe fn move_out(
        &self,
        start: NonNull<u8>,
        bytes: usize,
        place: usize,
        part: usize,
        least: usize,
    ) -> Option<NonNull<u8>>;

    /// Moves `old` bytes over the front of `new` others, the last page of which is fenced and will not be any more. They
    /// are one mapping from then on, and those behind are zero. `Lost` says that all of the others are nobody's any more.
    /// Refused where any of it is locked in memory.
    ///
    /// # Safety
    /// As [`Vm::move_over`], of `old` and of `new` bytes.
    unsafe fn move_in(&self, start: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Moved;

    /// Grows a mapping at its place. Bytes beyond the old size are zero. False where there is no room after it.
    ///
    /// # Safety
    /// `start` and `old` are a mapping from [`Vm::map`] or [`Vm::remap`] that the caller owns.
    unsafe fn stretch(&self, start: NonNull<u8>, old: usize, new: usize) -> bool;

    /// Drops the contents of usable pages: they cost no memory until touched, and then read as zero.
    ///
    /// # Safety
    /// The range is usable, ours, and its contents are dead.
    unsafe fn discard(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Makes usable pages fault when they are touched, whoever touches them. Their contents are lost. The range stays
    /// the caller's, to be unmapped or given back like the pages around it.
    ///
    /// # Safety
    /// The range is usable, ours, and its contents are dead.
    unsafe fn fence(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// How many mappings a process may have.
    fn mappings(&self) -> usize;

    /// Makes fenced pages usable again. They read as zero, as do those that the system could not fence.
    ///
    /// # Safety
    /// The caller gave the range to [`Vm::fence`], and nobody has it.
    unsafe fn unfence(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Tells that `count` fences are gone, with the mappings that they were in.
    fn fences_gone(&self, count: usize);

    /// Makes a usable range of whole mappings one that is only reserved, as [`Vm::reserve`] gives.
    ///
    /// # Safety
    /// As [`Vm::unmap`]. The range stays the caller's.
    unsafe fn close(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Makes whole pages read-only, for good where the system can promise that.
    ///
    /// # Safety
    /// Nobody writes to them from now on but by misuse.
    unsafe fn seal(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Says whether huge pages are wanted for a range. Where there are none nothing happens.
    ///
    /// # Safety
    /// The caller owns the range.
    unsafe fn advise_huge(&self, start: NonNull<u8>, bytes: usize, huge: Huge);

    /// From now on asks for huge pages for whatever [`Vm::map`] hands out.
    fn prefer_huge_pages(&self);

    /// Finds out whether the system gives huge pages unasked, before the program may forbid itself to read files. Until
    /// then [`Vm::move_out`] moves nothing.
    fn learn_huge_pages(&self);

    /// Whether new pages are resident at once, since the process locks its memory (mlockall(2)).
    fn locks_new_pages(&self) -> bool;

    /// Names a range in /proc/PID/maps, as far as the system can. Best effort.
    fn name(&self, start: NonNull<u8>, bytes: usize, name: &'static core::ffi::CStr);

    /// The limits in force at the time of the call.
    fn limits(&self) -> Limits;

    /// Bytes of memory and swap that the system has. `usize::MAX` if that is not known.
    fn memory(&self) -> usize;

    /// Milliseconds of a monotonic clock, coarse and cheap.
    fn clock(&self) -> u64;

    /// Whether the word at `address`, which may be unmapped meanwhile, can be read and is `value`. `None` where the
    /// system does not tell, as a filter of system calls may have it.
    fn still_holds(&self, address: usize, value: u32) -> Option<bool>;
}

/// What the process offers besides memory: options, hooks, other mallocs, reports and chance. The methods with a body
/// say what a system answers that offers nothing of the kind.
pub trait Host: Sync {
    /// Starts a thread that runs the hook for the background, blocks all signals but libc's own and is joined by
    /// nobody. Returns whether it did. May allocate: call it with no lock held and the calling thread's heap in place.
    fn start_background(&self) -> bool {
        false
    }

    /// Waits for so many milliseconds.
    fn rest(&self, milliseconds: u64) {
        let _ = milliseconds;
    }

    /// Has every processor that runs a thread of the process pass a full memory barrier. False if the system cannot.
    fn barrier(&self) -> bool {
        false
    }

    /// A random word, for addresses and secrets. Never fails, may be weak.
    fn random(&self) -> u64;

    /// Registers the process's hooks (thread exit, fork child) with the system. May allocate: called
    /// once, with no lock held and the calling thread's heap in place.
    fn begin(&self) {}

    /// The options that the user set in the environment. Empty if there are none, or where they are not to be trusted
    /// (a set-user-id program).
    fn options(&self) -> &'static [u8] {
        &[]
    }

    /// The options that the program brings with it (the variable `slabside_options`). Empty if there are none.
    fn own_options(&self) -> &'static [u8] {
        &[]
    }

    /// Writes a line, which has its newline, to standard error. Keeps errno, never waits for a lock.
    fn say(&self, _line: &[u8]) {}

    /// The malloc whose blocks may have strayed here. `None` if there is none. May allocate: call it with no lock held.
    fn next_malloc(&self) -> Option<NextMalloc> {
        None
    }

    /// Tells the caller of the C interface that a pointer was no good: sets errno to EINVAL.
    fn invalid(&self) {}

    /// Tells the caller of the C interface that memory has run out: sets errno to ENOMEM.
    fn exhausted(&self) {}

    /// A word that is 1 until a fork makes it 0 in the child. `None` if the system has no such thing.
    fn fork_mark(&self) -> Option<&'static AtomicU32> {
        None
    }

    /// In a fork child, before anything of the heap is repaired.
    fn forked(&self) {}

    /// Sees to it that this code stays loaded for the process's life. May allocate: call it with no lock
    /// held.
    fn stay_loaded(&self) {}

    /// The number of the calling thread and its process, never 0. 0 if threads have none. For reports alone: a filter
    /// of system calls may kill whoever asks.
    fn thread_id(&self) -> u64 {
        0
    }

    /// Whether the process has this one thread alone, for all that is known without a system call.
    fn is_alone(&self) -> bool {
        false
    }

    /// Asks that the thread's exit hook be called with `thread` when the calling thread ends. May
    /// allocate: call it with no lock held and the thread's heap in place.
    fn watch_thread(&self, thread: NonNull<u8>);

    /// Reports a misuse and ends the program. Reentrant. Does not return.
    fn die(&self, misuse: &Misuse) -> !;

    /// As [`Host::die`], with `details` on a line of their own, then the stack as far as it can be told, and
    /// other stacks under their titles.
    fn die_telling(&self, misuse: &Misuse, details: &Line, stacks: &[(&str, &[usize])]) -> ! {
        let _ = (details, stacks);
        self.die(misuse)
    }

    /// Writes a stack, a line for each frame, to standard error.
    fn say_stack(&self, frames: &[usize]) {
        let _ = frames;
    }

    /// From now on tells the hook for faults of each fault (SIGSEGV), before whoever is told else.
    fn watch_faults(&self) {}

    /// Copies memory of this process, whose number is `process`, to `to`, as far as it can be read. Returns how many
    /// bytes. Never faults.
    ///
    /// # Safety
    /// `bytes` bytes at `to` are the caller's.
    unsafe fn copy_own(&self, process: u32, from: usize, to: *mut u8, bytes: usize) -> usize {
        let _ = (process, from, to, bytes);
        0
    }

    /// The return addresses of the calling thread's functions, innermost first. Returns how many. Allocates nothing.
    fn stack(&self, frames: &mut [usize]) -> usize {
        let _ = frames;
        0
    }

    /// As [`Host::stack`], after a misuse: none in a signal handler that has less stack left than it takes to tell, which
    /// the system is asked.
    fn stack_with_care(&self, frames: &mut [usize]) -> usize {
        self.stack(frames)
    }

    /// Gets ready to tell stacks by less work, which may allocate: with no lock held and the thread's heap in place.
    fn prepare_stacks(&self) {}
}

/// A system: all that the allocator asks for.
pub trait Os: Vm + Host {}

impl<S: Vm + Host> Os for S {}
