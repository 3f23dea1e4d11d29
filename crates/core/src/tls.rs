//! The thread's own block: the caches that the fast paths work on, and who the thread is.
//!
//! The block is all zero at thread start and has no destructor. The initial-exec model reaches it in two instructions.
//! `thread_local!` in a shared library would go through `__tls_get_addr`, which costs 16 instructions and may allocate.
//! It is kept small: a library opened late by dlopen finds little static TLS left (about 1.2 KiB can be counted on with
//! glibc's defaults).

use crate::arch::{self, Freed};
use crate::class::{CACHE_SHIFT, LOCAL_CLASSES};
use crate::owner::Owner;
use crate::sync::{xor_owned, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::compiler_fence;
use static_assertions::const_assert_eq;

/// The slots of one class that the thread has cached: up to 64, all of one bitmap word.
#[repr(C)]
pub struct SlotCache {
    /// Slots cached and not handed out. 0 leads to the slow path, and so a fresh thread, a hardened thread and a
    /// used-up word need no branch of their own.
    pub bits: Cell<u64>,
    /// The bitmap word that the bits came from, in which they are still marked free.
    pub word: Cell<*const AtomicU64>,
    /// Address of the word's first slot.
    pub base: Cell<*mut u8>,
    /// Slot size in bytes.
    pub size: Cell<usize>,
}

const_assert_eq!(core::mem::size_of::<SlotCache>(), 1 << CACHE_SHIFT);
const_assert_eq!(core::mem::offset_of!(SlotCache, bits), arch::CACHE_BITS);
const_assert_eq!(core::mem::offset_of!(SlotCache, word), arch::CACHE_WORD);
const_assert_eq!(core::mem::offset_of!(SlotCache, base), arch::CACHE_BASE);
const_assert_eq!(core::mem::offset_of!(SlotCache, size), arch::CACHE_SIZE);
const_assert_eq!(core::mem::offset_of!(ThreadCache, caches), 0);

impl SlotCache {
    /// A cache with nothing cached.
    pub const fn new() -> SlotCache {
        SlotCache {
            bits: Cell::new(0),
            word: Cell::new(ptr::null()),
            base: Cell::new(ptr::null_mut()),
            size: Cell::new(0),
        }
    }

    /// Takes the lowest slot that is cached.
    #[inline(always)]
    pub fn take(&self) -> Option<*mut u8> {
        let bits = self.bits.get();
        if bits == 0 {
            return None;
        }
        let rest = bits & (bits - 1);
        self.bits.set(rest);
        // SAFETY: a cache with bits has the word that they came from, in a header that is never unmapped.
        xor_owned(unsafe { &*self.word.get() }, bits ^ rest);
        let offset = bits.trailing_zeros() as usize * self.size.get();
        Some(self.base.get().wrapping_add(offset))
    }

    /// Takes out what is cached: a signal handler takes no slot of it from now on. Nothing is lost.
    #[inline(always)]
    pub fn hide(&self) -> u64 {
        let bits = self.bits.get();
        self.bits.set(0);
        compiler_fence(SeqCst);
        bits
    }

    /// Puts back `bits` that were hidden, but for those that a signal handler took in the middle of that.
    pub fn show(&self, bits: u64) {
        // SAFETY: a cache with bits has the word that they came from, in a header that is never unmapped.
        let word = (bits != 0).then(|| unsafe { &*self.word.get() });
        compiler_fence(SeqCst);
        self.bits
            .set(word.map_or(0, |word| word.load(Relaxed) & bits));
    }

    /// Forgets what is cached. Nothing is lost: the bitmap says that those slots are free. The word stays: a
    /// take that a signal handler interrupted may have its slot still to mark in it, and the handler has forked.
    pub fn drop_slots(&self) {
        self.bits.set(0);
    }
}

impl Default for SlotCache {
    fn default() -> SlotCache {
        SlotCache::new()
    }
}

/// Where a thread stands between its first allocation and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// It has no heap yet.
    Fresh = 0,
    /// It has a heap.
    Running = 1,
    /// Its exit hook ran, or there was no heap for it: it uses the shared heap under a lock.
    Late = 2,
    /// It is no thread's but a first-class heap's, and speaks for the thread that holds the heap's lock.
    Arena = 3,
}

/// A thread's block.
#[repr(C)]
pub struct ThreadCache {
    /// Slot caches of the classes up to 1 KiB. The others lie in the thread's heap.
    pub caches: [SlotCache; LOCAL_CLASSES],
    /// The thread's owner word. 0 owns nothing.
    pub me: Cell<Owner>,
    /// The thread's heap, of `heap::Heap`. Null means none.
    pub heap: Cell<*const u8>,
    /// Where the thread stands.
    pub phase: Cell<Phase>,
    /// Before the thread has a heap: calls as a guest (see `allocator::guest`), also those that no guests' heap served.
    /// Then: times that the exit hook was put off to a later round of destructors.
    pub calls: Cell<u8>,
    /// Locks that the thread holds, takes or gives (see `mutex::Held`).
    pub locks: Cell<u16>,
    /// Where what hardened mode keeps of the thread lies (see `hardened::thread`). 0 means that the thread is not hardened.
    /// A hardened thread's caches stay empty, its owner word 0 and its heap null, which keeps it off the fast paths.
    pub hardened: Cell<u32>,
    /// Non-zero while the thread is in a slow path: a signal handler must not enter one. The address of the path's
    /// [`Frame`], or [`LEFT`].
    pub busy: Cell<usize>,
}

/// [`ThreadCache::busy`] of a thread that left a slow path which cannot be mended: it is in that path for good.
pub const LEFT: usize = usize::MAX;

const_assert_eq!(core::mem::size_of::<ThreadCache>(), arch::BLOCK_BYTES);
const_assert_eq!(core::mem::offset_of!(ThreadCache, locks), arch::BLOCK_LOCKS);
const_assert_eq!(
    core::mem::offset_of!(ThreadCache, me),
    crate::layout::thread_block::ME
);

// SAFETY: the pointers lead into the metadata region and the heap, which belong to no thread.
unsafe impl Send for ThreadCache {}

impl ThreadCache {
    /// The block of a thread that has not allocated: the same as all zeros.
    pub const fn new() -> ThreadCache {
        ThreadCache {
            caches: [const { SlotCache::new() }; LOCAL_CLASSES],
            me: Cell::new(Owner::NONE),
            heap: Cell::new(ptr::null()),
            phase: Cell::new(Phase::Fresh),
            calls: Cell::new(0),
            locks: Cell::new(0),
            hardened: Cell::new(0),
            busy: Cell::new(0),
        }
    }
}

/// A word on the stack of a slow path. Nobody else writes to it while the path is at work. So whoever finds another
/// value there knows that the path was left (see `Allocator::is_interrupted`).
///
/// Half of it says all. But a path that keeps nothing else on the stack makes the place by a push, and takes it off by a
/// pop of the whole word. That load would wait for all stores before it, those of the program among them, if only a part
/// of the word had been written to since: processors hand on what one store alone has written.
pub struct Frame(UnsafeCell<MaybeUninit<u64>>);

impl Frame {
    /// What a path at work has written there, in the lower half.
    pub const AT_WORK: u32 = 0x51ab_51de;

    /// Of a path that is not at work.
    #[inline(always)]
    #[allow(clippy::new_without_default)] // It is made where a path begins, and nowhere else.
    pub const fn new() -> Frame {
        Frame(UnsafeCell::new(MaybeUninit::new(0)))
    }

    /// Of a path that is not within another one. [`Busy::mark_alone`] writes to it in any case.
    #[inline(always)]
    pub const fn of_alone() -> Frame {
        Frame(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// The path is at work from now on.
    #[inline(always)]
    pub fn begin(&self) {
        // SAFETY: the cell is borrowed, and not Sync. Volatile, since readers come by its address alone.
        unsafe {
            self.0
                .get()
                .write_volatile(MaybeUninit::new(Frame::AT_WORK as u64))
        }
    }

    /// No path of this frame is at work.
    #[inline(always)]
    fn end(&self) {
        // SAFETY: the cell is borrowed, and not Sync. Volatile, since readers come by its address alone.
        unsafe { self.0.get().write_volatile(MaybeUninit::new(0)) }
    }

    /// Where it lies.
    #[inline(always)]
    pub fn address(&self) -> usize {
        self.0.get() as usize
    }
}

/// Marks a thread as being in a slow path, until dropped. What only a busy thread may do asks for one.
pub struct Busy<'a>(&'a ThreadCache, usize);

/// Marks the thread as being in a slow path until the end of the enclosing block, on whose stack the frame lies.
/// `mark_busy!(thread => busy)` gives the mark a name.
macro_rules! mark_busy {
    ($thread:expr) => {
        $crate::tls::mark_busy!($thread => _busy)
    };
    ($thread:expr => $busy:ident) => {
        let frame = $crate::tls::Frame::new();
        let $busy = &$crate::tls::Busy::mark($thread, &frame);
    };
}
pub(crate) use mark_busy;

/// As [`mark_busy!`], of a path that runs in no other: `$busy` is `None` where another one is marked. Some three instructions less.
/// It is asked at this moment, whatever was seen before: a handler that ran since may have left its own path by longjmp.
macro_rules! mark_alone {
    ($thread:expr => $busy:ident) => {
        let frame = $crate::tls::Frame::of_alone();
        let $busy = $crate::tls::Busy::mark_alone($thread, &frame);
    };
}
pub(crate) use mark_alone;

impl<'a> Busy<'a> {
    /// `frame` is the path's own, which stays where it is.
    #[inline(always)]
    pub fn mark(local: &'a ThreadCache, frame: &'a Frame) -> Busy<'a> {
        let before = local.busy.get();
        // Of paths within others the outermost one counts.
        if before == 0 {
            Busy::begin(local, frame);
        }
        // A handler on this thread sees the mark before all that it guards.
        compiler_fence(SeqCst);
        Busy(local, before)
    }

    #[inline(always)]
    fn begin(local: &ThreadCache, frame: &Frame) {
        frame.begin();
        compiler_fence(SeqCst); // A mark leads to a frame that says so.
        local.busy.set(frame.address());
    }

    /// As [`Busy::mark`], of a path that runs in no other: no register keeps what was marked before. `None` where another
    /// path is marked.
    #[inline(always)]
    pub fn mark_alone(local: &'a ThreadCache, frame: &'a Frame) -> Option<Busy<'a>> {
        if local.busy.get() != 0 {
            frame.end(); // A path that was left may have had its own in the same place.
            return None;
        }
        Busy::begin(local, frame);
        compiler_fence(SeqCst);
        Some(Busy(local, 0))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        self.0.busy.set(self.1);
    }
}

impl ThreadCache {
    /// Makes the block that of a thread which has not allocated: for the shared one, in a fork child.
    pub fn reset(&self) {
        self.caches.iter().for_each(SlotCache::drop_slots);
        self.me.set(Owner::NONE);
        self.heap.set(ptr::null());
        self.phase.set(Phase::Fresh);
        self.busy.set(0);
        self.hardened.set(0);
    }
}

impl ThreadCache {
    /// The block as the portable fast paths know it.
    #[inline(always)]
    fn twin(&self) -> arch::portable::Block {
        // SAFETY: the block is borrowed and not Sync, so that no other thread uses it meanwhile. Its fields are cells.
        unsafe { arch::portable::Block::at(ptr::from_ref(self).cast_mut().cast()) }
    }
}

impl Default for ThreadCache {
    fn default() -> ThreadCache {
        ThreadCache::new()
    }
}

/// Who malloc and free work for: the calling thread, or a block that a test made.
pub trait Thread: Copy {
    /// Takes the lowest slot that the cache at `offset` bytes into the block has cached.
    ///
    /// # Safety
    /// `offset` is that of one of [`ThreadCache::caches`].
    unsafe fn take(self, offset: usize) -> Option<*mut u8>;

    /// Frees the block at `address` if it lies in a slab of the thread's own.
    ///
    /// # Safety
    /// `hot` is a `pages::Hot`, set before the first block was handed out.
    unsafe fn free(self, hot: *const u8, address: usize) -> Freed;

    /// The block.
    fn block(&self) -> &ThreadCache;
}

impl Thread for &ThreadCache {
    #[inline(always)]
    unsafe fn take(self, offset: usize) -> Option<*mut u8> {
        // SAFETY: the caller vouches for the offset. A bitmap word that slots were cached of is stored to by its slab's
        // owner alone, whose block this is.
        unsafe { self.twin().take(offset) }
    }

    #[inline(always)]
    unsafe fn free(self, hot: *const u8, address: usize) -> Freed {
        // SAFETY: the caller says that `hot` was set. The offset is that of the owner word.
        unsafe {
            self.twin()
                .free::<{ core::mem::offset_of!(ThreadCache, me) }>(hot, address)
        }
    }

    #[inline(always)]
    fn block(&self) -> &ThreadCache {
        self
    }
}

/// The calling thread, whose block's address need not be known on the fast paths.
#[derive(Clone, Copy)]
pub struct Current(arch::Block);

/// The calling thread: one instruction.
#[inline(always)]
pub fn current() -> Current {
    Current(arch::Block::mine())
}

impl Thread for Current {
    #[inline(always)]
    unsafe fn take(self, offset: usize) -> Option<*mut u8> {
        // SAFETY: the caller vouches for the offset. A bitmap word that slots were cached of is stored to by its slab's
        // owner alone, which is this thread.
        unsafe { self.0.take(offset) }
    }

    #[inline(always)]
    unsafe fn free(self, hot: *const u8, address: usize) -> Freed {
        // SAFETY: the caller guarantees what `Block::free` demands.
        unsafe {
            self.0
                .free::<{ core::mem::offset_of!(ThreadCache, me) }>(hot, address)
        }
    }

    #[inline(always)]
    fn block(&self) -> &ThreadCache {
        local()
    }
}

/// The calling thread's block.
#[inline(always)]
pub fn local() -> &'static ThreadCache {
    // SAFETY: zero-initialised, which is `ThreadCache::new()`. It lives as long as the thread, which the reference
    // cannot leave, since `ThreadCache` is not Sync.
    unsafe { &*arch::Block::mine().address().cast::<ThreadCache>() }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_runs_in_no_other_leaves_the_mark_of_one_that_was_left() {
        let (thread, left) = (ThreadCache::new(), Frame::new());
        core::mem::forget(Busy::mark(&thread, &left));
        {
            mark_alone!(&thread => busy);
            assert!(busy.is_none());
        }
        assert_eq!(thread.busy.get(), left.address());
        thread.busy.set(0);
        {
            mark_alone!(&thread => busy);
            assert!(busy.is_some() && thread.busy.get() != 0);
        }
        assert_eq!(thread.busy.get(), 0);
    }
}
