//! malloc, free, calloc, realloc, aligned and usable size: each on one screen, with its fast path first.
//!
//! ```text
//!   malloc  entry of the class -> lowest bit -> clear it in the entry and in the bitmap word -> address
//!   free    page map -> header -> owner is me? -> offset * reciprocal -> bit clear? set it -> credit
//! ```
//!
//! No knob is tested here. A thread is kept off the fast paths by an empty entry and an owner word that
//! is nobody's. The slow paths find out who the thread is: one with a heap, one that is late (its exit
//! hook ran, or there is no heap for it), or one whose slow path a signal handler interrupted.

use crate::arch::{mark_free, Freed};
use crate::class::{
    bin_of, bin_pages, class_of, entry_offset, fit, slot_at, upper_class, Fit, LOCAL_CLASSES,
};
use crate::geometry::{align_down, bit_of, pages_for, PAGE};
use crate::geometry::{REQUEST_MAX, SMALL_MAX, SPAN_MAX};
use crate::hardened::{self, Hardened, Live, Samples};
use crate::heap::{self, heap_of, locate, Ground, Heap};
use crate::large::{Block, Found};
use crate::misuse::{Call, Misuse};
use crate::options::{self, Name};
use crate::os::{NextMalloc, Os};
use crate::remote::{self, Next};
use crate::slab::SlabPtr;
use crate::sync::{flip, AtomicU32, AtomicUsize, Lock};
use crate::sync::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::tls::{Entry, Local, Phase, Thread};
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{compiler_fence, AtomicPtr, Ordering::SeqCst};

/// An allocator over the system `O`. One is the process's; tests make more.
///
/// What every start writes to comes first (see [`Ground`]).
#[repr(C)]
pub struct Allocator<O: Os> {
    stage: AtomicU32,
    start_lock: Lock,
    /// Non-zero when there may be some blocks in `put_off`.
    any_put_off: AtomicU32,
    /// Non-zero once a large block could not be shrunk and kept its bytes (see `sizes`).
    pub(crate) roomy: AtomicU32,
    /// Where the system keeps its [`Os::fork_mark`]; null: nowhere.
    fork_mark: AtomicPtr<AtomicU32>,
    /// All that the heaps stand on.
    pub ground: Ground<O>,
    pub(crate) hard: Hardened,
    samples: Samples,
    /// Large blocks that signal handlers freed; 0: unused place.
    put_off: [AtomicUsize; PUT_OFF],
    /// The heap of threads that have none: used under the lock.
    shared: Shared,
}

/// The most frees of large blocks that signal handlers can put off.
const PUT_OFF: usize = 32;

struct Shared {
    lock: Lock,
    local: Local,
}

// SAFETY: the block is used under the lock alone.
unsafe impl Sync for Shared {}

const UNSTARTED: u32 = 0;
const STARTED: u32 = 1;
const HOOKED: u32 = 2;

/// Marks the thread as being in a slow path, until dropped.
pub(crate) struct Busy<'a>(&'a Local, u32);

impl<'a> Busy<'a> {
    pub(crate) fn mark(local: &'a Local) -> Busy<'a> {
        let before = local.busy.replace(1);
        // A handler on this thread sees the mark before all that it guards.
        compiler_fence(SeqCst);
        Busy(local, before)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        self.0.busy.set(self.1);
    }
}

/// What a pointer leads to.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Slot(SlabPtr),
    Large(Block),
    /// A hardened or sampled block, of which the bytes that were asked for are known.
    Exact(usize),
    /// Perhaps a large block: a signal handler asks while the thread may hold their lock.
    Unknown,
}

/// The entry of `class`.
#[inline(always)]
fn entry_of<'a>(thread: &'a Local, heap: &'a Heap, class: usize) -> &'a Entry {
    match thread.entries.get(class) {
        Some(entry) => entry,
        None => heap.upper_entry(class),
    }
}

impl Place {
    /// Bytes that may be used, as far as is known.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Place::Slot(slab) => slab.size(),
            Place::Large(block) => block.bytes,
            Place::Exact(size) => size,
            Place::Unknown => 0,
        }
    }
}

impl<O: Os> Allocator<O> {
    /// An allocator that has not asked the system for anything yet.
    pub const fn new(os: O) -> Allocator<O> {
        Allocator {
            ground: Ground::new(os),
            hard: Hardened::new(),
            samples: Samples::new(),
            stage: AtomicU32::new(UNSTARTED),
            start_lock: Lock::new(),
            put_off: [const { AtomicUsize::new(0) }; PUT_OFF],
            any_put_off: AtomicU32::new(0),
            fork_mark: AtomicPtr::new(ptr::null_mut()),
            shared: Shared {
                lock: Lock::new(),
                local: Local::new(),
            },
            roomy: AtomicU32::new(0),
        }
    }

    // ---- malloc ---------------------------------------------------------------------------------

    /// At least `size` bytes, aligned to 8 up to 8 bytes and to 16 above; null where memory has run out.
    #[inline(always)]
    pub fn malloc(&self, thread: impl Thread, size: usize) -> *mut u8 {
        let Some(offset) = entry_offset(size) else {
            return self.malloc_upper(size, thread.block());
        };
        // SAFETY: `entry_offset` gives offsets of entries alone (tested exhaustively in `class`).
        match unsafe { thread.take(offset) } {
            Some(slot) => slot,
            None => self.malloc_slow(size, thread.block()),
        }
    }

    /// The entry is used up, or the thread is kept from using it.
    #[cold]
    #[inline(never)]
    fn malloc_slow(&self, size: usize, thread: &Local) -> *mut u8 {
        if thread.hardened.get() != 0 {
            return self.malloc_hardened_at_once(size, thread);
        }
        self.refill_small(size, thread)
    }

    #[inline(never)]
    fn refill_small(&self, size: usize, thread: &Local) -> *mut u8 {
        self.refill(class_of(size), size, 1, thread)
    }

    /// As [`Allocator::malloc`] for more than 1 KiB.
    #[inline(never)]
    fn malloc_upper(&self, size: usize, thread: &Local) -> *mut u8 {
        let heap = match heap_of(thread) {
            Some(heap) if thread.busy.get() == 0 => heap,
            _ => return self.malloc_upper_slow(thread, size),
        };
        if size <= SMALL_MAX {
            let upper = upper_class(size);
            // SAFETY: below CLASSES - LOCAL_CLASSES, as `upper_class` says (tested exhaustively).
            let entry = unsafe { heap.upper_entry_at(upper) };
            if let Some(slot) = entry.take() {
                return slot;
            }
            return self.refill_upper(thread, size, upper);
        }
        if size <= SPAN_MAX {
            if let Some(slab) = heap.take_active_span(size) {
                return slab.base() as *mut u8;
            }
        }
        self.malloc_upper_slow(thread, size)
    }

    /// The entry of the `upper`-th class above 1 KiB is used up: its slab's word is checked out again.
    #[inline(never)]
    fn refill_upper(&self, thread: &Local, size: usize, upper: usize) -> *mut u8 {
        if let Some(heap) = heap_of(thread) {
            let _busy = Busy::mark(thread);
            // SAFETY: below CLASSES - LOCAL_CLASSES, as the caller found it.
            let slot = unsafe { heap.refill_upper(self.ground.table(), upper) };
            if let Some(slot) = slot {
                return slot;
            }
        }
        self.malloc_upper_slow(thread, size)
    }

    #[cold]
    #[inline(never)]
    fn malloc_upper_slow(&self, thread: &Local, size: usize) -> *mut u8 {
        if thread.hardened.get() != 0 {
            return self.malloc_hardened_many(size, thread);
        }
        if size <= SMALL_MAX {
            return self.malloc_class(thread, class_of(size), size, 1);
        }
        self.malloc_big(thread, size).0
    }

    /// A slot of `class`, for `size` bytes at a multiple of `align`.
    fn malloc_class(&self, thread: &Local, class: usize, size: usize, align: usize) -> *mut u8 {
        let slot = match heap_of(thread) {
            _ if class < LOCAL_CLASSES => thread.entries[class].take(),
            Some(heap) => heap.upper_entry(class).take(),
            None => None,
        };
        slot.unwrap_or_else(|| self.refill_cold(class, size, align, thread))
    }

    #[cold]
    #[inline(never)]
    fn refill_cold(&self, class: usize, size: usize, align: usize, thread: &Local) -> *mut u8 {
        self.refill(class, size, align, thread)
    }

    /// The entry is used up: another word of slots is checked out, most often of the same slab.
    #[inline(always)]
    fn refill(&self, class: usize, size: usize, align: usize, thread: &Local) -> *mut u8 {
        if let Some(heap) = heap_of(thread).filter(|_| thread.busy.get() == 0) {
            let _busy = Busy::mark(thread);
            let entry = entry_of(thread, heap, class);
            if let Some(slot) = heap.next_word(self.ground.table(), class, entry) {
                return slot;
            }
        }
        self.malloc_in_turn(class, size, align, thread)
    }

    /// As `refill`, where another slab is to be taken from.
    #[cold]
    #[inline(never)]
    fn malloc_in_turn(&self, class: usize, size: usize, align: usize, thread: &Local) -> *mut u8 {
        if let Some(heap) = heap_of(thread).filter(|_| thread.busy.get() == 0) {
            let _busy = Busy::mark(thread);
            let entry = entry_of(thread, heap, class);
            if let Some(slot) = heap.refill_in_turn(self.ground.table(), class, entry) {
                return slot;
            }
        } else if self.is_hardened() {
            return self.malloc_hardened(thread, size, align);
        }
        self.heed_soft_limit(thread);
        self.with_reclaim(thread, |_, heap| {
            // The refill comes first: it is its slots that make a sample due, and so each class has its share.
            let slot = heap.refill(&self.ground, class)?;
            let sampled = slot.and_then(|_| self.sample(heap, size, align));
            if let (Some(slot), Some(_)) = (slot, sampled) {
                put_back(heap.entry(class), slot);
            }
            Ok(sampled.or(slot))
        })
        .unwrap_or_else(|| self.exhausted())
    }

    /// A page of its own for the one allocation in so many.
    fn sample(&self, heap: &Heap, size: usize, align: usize) -> Option<*mut u8> {
        let os = &self.ground.os;
        let rate = self.ground.options.get(Name::GuardSample);
        if !heap.is_due(rate, || os.random()) {
            return None;
        }
        let address = self.samples.take(os, size, align)?;
        heap.was_sampled();
        Some(address as *mut u8)
    }

    /// A span or a large block, and whether it is all zero.
    fn malloc_big(&self, thread: &Local, size: usize) -> (*mut u8, bool) {
        if heap_of(thread).is_none() && self.is_hardened() {
            let block = self.malloc_hardened(thread, size, 1);
            return (block, self.hard.is_clear(size));
        }
        if size > SPAN_MAX {
            return self.malloc_large(thread, size, PAGE);
        }
        if let Some(heap) = heap_of(thread).filter(|_| thread.busy.get() == 0) {
            let _busy = Busy::mark(thread);
            if let Some(slab) = heap.take_active_span(size) {
                return (slab.base() as *mut u8, false);
            }
            if let Some(slab) = heap.take_binned(self.ground.table(), pages_for(size)) {
                return (slab.base() as *mut u8, false);
            }
        }
        let span = self.with_reclaim(thread, |_, heap| {
            heap.take_span(&self.ground, pages_for(size))
        });
        match span {
            Some((slab, fresh)) => (slab.base() as *mut u8, fresh),
            None => (self.exhausted(), false),
        }
    }

    fn malloc_large(&self, thread: &Local, size: usize, align: usize) -> (*mut u8, bool) {
        let block = if size > REQUEST_MAX || align > REQUEST_MAX {
            None
        } else {
            self.heed_soft_limit(thread);
            if thread.busy.get() == 0 {
                self.free_put_off(thread);
            }
            self.with_reclaim(thread, |_, _| {
                Ok(self
                    .ground
                    .large
                    .map(&self.ground.os, &self.ground.meta, size, align))
            })
        };
        match block {
            Some((block, fresh)) => (block.address as *mut u8, fresh),
            None => (self.exhausted(), false),
        }
    }

    /// Where the heap grew above its soft limit since the last time: gives back all that is kept.
    #[inline]
    fn heed_soft_limit(&self, thread: &Local) {
        if self.ground.meta.budget.take_alarm() {
            self.reclaim(thread);
        }
    }

    /// Whether `addr` lies in a sampled block's page.
    pub(crate) fn samples_hold(&self, addr: usize) -> bool {
        self.samples.holds(&self.ground.os, addr)
    }

    #[cold]
    pub(crate) fn exhausted(&self) -> *mut u8 {
        self.ground.os.exhausted();
        ptr::null_mut()
    }

    /// `size` bytes at a multiple of `align`, a power of two; null where memory has run out.
    pub fn aligned(&self, thread: &Local, size: usize, align: usize) -> *mut u8 {
        self.aligned_or_fresh(thread, size, align).0
    }

    /// As [`Allocator::aligned`], all zero.
    pub fn aligned_zeroed(&self, thread: &Local, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the block has at least `size` bytes.
        unsafe { zeroed(self.aligned_or_fresh(thread, size, align), size) }
    }

    /// The block, and whether it is all zero.
    fn aligned_or_fresh(&self, thread: &Local, size: usize, align: usize) -> (*mut u8, bool) {
        if heap_of(thread).is_none() && self.is_hardened() {
            let block = self.malloc_hardened(thread, size, align);
            return (block, self.hard.is_clear(size));
        }
        match fit(size, align) {
            Fit::Slot(class) => (self.malloc_class(thread, class, size, align), false),
            Fit::Large => self.malloc_large(thread, size.max(1), align.max(PAGE)),
            Fit::Span if align > PAGE => self.malloc_aligned_span(thread, size, align),
            Fit::Span => self.malloc_big(thread, size),
        }
    }

    fn malloc_aligned_span(&self, thread: &Local, size: usize, align: usize) -> (*mut u8, bool) {
        let span = self.with_reclaim(thread, |_, heap| {
            heap.take_aligned_span(&self.ground, pages_for(size.max(1)), align / PAGE)
        });
        match span {
            Some((slab, fresh)) => (slab.base() as *mut u8, fresh),
            None => (self.exhausted(), false),
        }
    }

    /// `count` times `size` zero bytes; null where that overflows or memory has run out. Pages that the
    /// kernel gave and nobody touched are not cleared again.
    #[inline(always)]
    pub fn calloc(&self, thread: impl Thread, count: usize, size: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(size) else {
            return self.exhausted();
        };
        // SAFETY: as in `malloc`.
        let slot = entry_offset(bytes).and_then(|offset| unsafe { thread.take(offset) });
        match slot {
            // SAFETY: the slot has at least `bytes` bytes.
            Some(slot) => unsafe { zeroed((slot, false), bytes) },
            None => self.calloc_slow(thread.block(), bytes),
        }
    }

    #[inline(never)]
    fn calloc_slow(&self, thread: &Local, bytes: usize) -> *mut u8 {
        let block = if bytes <= SMALL_MAX {
            (self.malloc(thread, bytes), false)
        } else {
            self.malloc_big(thread, bytes)
        };
        // SAFETY: the block has at least `bytes` bytes.
        unsafe { zeroed(block, bytes) }
    }

    // ---- free -----------------------------------------------------------------------------------

    /// Gives a block back; null is ignored. A block that is free already, or never was one, ends the
    /// program.
    #[inline(always)]
    pub fn free(&self, thread: impl Thread, block: *mut u8) {
        let hot = ptr::from_ref(&self.ground.pages.hot);
        // SAFETY: set before the first block was handed out, and never again.
        match unsafe { thread.free(hot.cast(), block as usize) } {
            Freed::Done => {}
            Freed::Event => self.free_event(block, thread.block()),
            Freed::Misuse => self.free_misuse(block),
            Freed::Elsewhere | Freed::Far => self.free_slow(block, thread.block()),
        }
    }

    /// The free used up its slab's credit.
    #[cold]
    #[inline(never)]
    fn free_event(&self, block: *mut u8, thread: &Local) {
        if let Some((_, slab)) = self.ground.pages.find(block as usize) {
            self.credit_used_up(slab, thread);
        }
    }

    #[cold]
    #[inline(never)]
    fn free_misuse(&self, block: *mut u8) {
        let addr = block as usize;
        if let Some((_, slab)) = self.ground.pages.find(addr) {
            self.misuse_in(addr, slab, Call::Free);
        }
    }

    /// A block that is not in a slab of the thread's own as it stands, or not in the first window.
    #[cold]
    #[inline(never)]
    fn free_slow(&self, block: *mut u8, thread: &Local) {
        if self.hard.is_on() {
            return self.free_hardened(block as usize, thread);
        }
        self.free_found(block, thread);
    }

    /// As `free_slow`, by default.
    #[inline(never)]
    fn free_found(&self, block: *mut u8, thread: &Local) {
        if block.is_null() {
            return;
        }
        match self.ground.pages.find(block as usize) {
            Some((_, slab)) if slab.owner.load(Relaxed) == thread.me.get() => {
                self.free_own(thread, slab, block)
            }
            Some((_, slab)) => self.free_in(block, slab, thread),
            None => self.free_large(thread, block as usize),
        }
    }

    /// Frees a block in a slab of the thread's own.
    #[inline(always)]
    pub(crate) fn free_own(&self, thread: &Local, slab: SlabPtr, block: *mut u8) {
        // SAFETY: the thread owns the slab, and the block lies in one of its pages.
        match unsafe { mark_free(slab.as_ptr().cast(), block as usize - slab.base()) } {
            Freed::Event => self.credit_used_up(slab, thread),
            Freed::Misuse => self.misuse_in(block as usize, slab, Call::Free),
            _ => {}
        }
    }

    #[cold]
    #[inline(never)]
    fn credit_used_up(&self, slab: SlabPtr, thread: &Local) {
        if thread.busy.get() == 0 {
            if self.notice_fork(thread) {
                return; // All slabs were settled, this one among them.
            }
            if let Some(heap) = heap_of(thread) {
                let _busy = Busy::mark(thread);
                // A signal handler may have settled it meanwhile, and even given it back.
                if !heap.is_spent(slab) || heap.settle_at_once(self.ground.table(), slab) {
                    return;
                }
            }
        }
        let settled = self.with_heap(thread, |_, heap| {
            if heap.is_spent(slab) {
                heap.settle(&self.ground, slab)?;
            }
            Ok(Some(()))
        });
        if settled.is_none() {
            // In a signal handler that interrupted a slow path: the heap finds the slab in its queue.
            slab.credit.set(1);
            if let Next::Notify(owner) = remote::raise_pending(slab) {
                self.ground.heaps.notify(&self.ground, owner, slab);
            }
        }
    }

    fn free_large(&self, thread: &Local, addr: usize) {
        if thread.busy.get() != 0 {
            return self.put_off(addr);
        }
        self.notice_fork(thread);
        if self.samples.holds(&self.ground.os, addr) {
            return self.free_sampled(thread, addr);
        }
        if self.hard.is_on() {
            return self.free_far_hardened(thread, addr);
        }
        self.free_put_off(thread);
        let found = if self.is_started() {
            let _busy = Busy::mark(thread);
            self.ground
                .large
                .unmap(&self.ground.os, &self.ground.meta, addr)
        } else {
            Found::Unknown
        };
        match found {
            Found::Live(_) => {}
            Found::Freed(block) => self.misuse(&Misuse::Dead {
                call: Call::Free,
                addr,
                slot: 0,
                size: block.bytes,
            }),
            Found::Unknown => self.free_foreign(addr),
        }
    }

    /// In a signal handler that interrupted a slow path, which may hold the lock of large blocks: notes that
    /// the block is to be freed by the next slow path. Where too many are noted, it stays live for good.
    #[cold]
    fn put_off(&self, addr: usize) {
        let place = |place: &&AtomicUsize| place.compare_exchange(0, addr, AcqRel, Relaxed).is_ok();
        if self.put_off.iter().find(place).is_some() {
            self.any_put_off.store(1, Release);
        }
    }

    /// Frees what signal handlers have put off.
    #[inline]
    fn free_put_off(&self, thread: &Local) {
        if self.any_put_off.load(Relaxed) != 0 {
            self.any_put_off.store(0, Relaxed);
            for place in &self.put_off {
                let addr = place.swap(0, AcqRel);
                if addr != 0 {
                    self.free_large(thread, addr);
                }
            }
        }
    }

    /// A pointer that is nothing of ours: the option `foreign` says what follows.
    #[cold]
    fn free_foreign(&self, addr: usize) {
        let call = Call::Free;
        if let Some(next) = self.next_malloc(&Misuse::Unknown { call, addr }) {
            // SAFETY: the caller's, who says that the pointer is some malloc's block.
            unsafe { (next.free)(addr as *mut c_void) }
        }
    }

    /// The malloc that a pointer which is not ours is for; where it is for none, what the options say of
    /// such a pointer has been done.
    fn next_malloc(&self, misuse: &Misuse) -> Option<NextMalloc> {
        let foreign = self.ground.options.get(Name::Foreign);
        if foreign == options::FOREIGN_IGNORED {
            return None;
        }
        let forwarded = foreign == options::FOREIGN_FORWARDED;
        let next = forwarded.then(|| self.ground.os.next_malloc()).flatten();
        if next.is_none() {
            self.misuse(misuse);
        }
        next
    }

    /// A block in a slab that is not the thread's own as it stands.
    #[cold]
    #[inline(never)]
    fn free_in(&self, block: *mut u8, slab: SlabPtr, thread: &Local) {
        let slot = match locate(slab, block as usize, Call::Free) {
            Ok(slot) => slot,
            // A large mapping may lie where the heap's end once was.
            Err(Misuse::Unknown { addr, .. }) => return self.free_large(thread, addr),
            Err(misuse) => return self.misuse(&misuse),
        };
        let freed = self.with_heap(thread, |_, heap| {
            Ok(Some(heap.free_elsewhere(&self.ground, slab, slot)))
        });
        match freed {
            Some(Ok(())) => {}
            Some(Err(misuse)) => self.misuse(&misuse),
            None => self.free_without_heap(slab, slot),
        }
    }

    /// In a signal handler that interrupted a slow path of this thread, or where there is no memory for
    /// a heap: marks the free, takes no lock.
    fn free_without_heap(&self, slab: SlabPtr, slot: usize) {
        if !remote::give_remote(slab, slot) {
            return self.misuse(&heap::dead(slab, slot));
        }
        if let Next::Notify(owner) = remote::raise_pending(slab) {
            self.ground.heaps.notify(&self.ground, owner, slab);
        }
    }

    #[cold]
    #[inline(never)]
    fn misuse_in(&self, addr: usize, slab: SlabPtr, call: Call) {
        let misuse = match locate(slab, addr, call) {
            Ok(slot) => Misuse::Dead {
                call,
                addr,
                slot,
                size: slab.size(),
            },
            Err(misuse) => misuse,
        };
        self.misuse(&misuse);
    }

    // ---- realloc and questions ------------------------------------------------------------------

    /// Resizes a block, at the same address where it has room or pages are free behind it. Null where
    /// memory has run out; the block is then as it was.
    #[inline]
    pub fn realloc(&self, thread: &Local, block: *mut u8, size: usize) -> *mut u8 {
        if let Some(slab) = self.own_slab(thread, block) {
            let usable = slab.size();
            // A quarter of the pages or more would be given back; the smallest span is left as it is.
            let wasteful = slab.is_span()
                && size <= align_down(usable - usable / 4, PAGE)
                && usable > bin_pages(0) * PAGE;
            if size <= usable && !wasteful {
                if slab.roomy.load(Relaxed) == 0 {
                    self.note_room(Place::Slot(slab), size);
                }
                return block;
            }
            if slab.is_span() && size > usable {
                return self.realloc_span(thread, block, slab, size);
            }
        }
        self.realloc_slow(thread, block, size)
    }

    /// A span of the thread's own is to grow.
    #[inline(never)]
    fn realloc_span(&self, thread: &Local, block: *mut u8, slab: SlabPtr, size: usize) -> *mut u8 {
        if slab.is_remote(0) || self.notice_fork(thread) {
            return self.realloc_slow(thread, block, size);
        }
        if !self.resize_span(thread, slab, size) {
            return self.realloc_by_copy(thread, block, slab.size(), size);
        }
        self.note_room(Place::Slot(slab), size);
        block
    }

    /// The slab of `block` if that is a live one in a slab of the thread's own. Twenty-odd instructions.
    #[inline(always)]
    fn own_slab(&self, thread: &Local, block: *mut u8) -> Option<SlabPtr> {
        let slab = self.ground.pages.hot.slab_at(block as usize)?;
        if slab.owner.load(Relaxed) != thread.me.get() {
            return None;
        }
        let (slot, exact) = slot_at(block as usize - slab.base(), slab.recip.load(Relaxed));
        let free = slab.free_word_at(slot).load(Relaxed);
        (exact && free & bit_of(slot) == 0).then_some(slab)
    }

    #[inline(never)]
    fn realloc_slow(&self, thread: &Local, block: *mut u8, size: usize) -> *mut u8 {
        if block.is_null() {
            return self.malloc(thread, size);
        }
        self.notice_fork(thread);
        if thread.hardened.get() != 0 && thread.busy.get() == 0 {
            let _busy = Busy::mark(thread);
            if self.hard.resize_at_once(&self.ground, block as usize, size) {
                return block;
            }
        }
        let place = match self.live(thread, block as usize, Call::Realloc) {
            Ok(Place::Exact(old)) => return self.realloc_exact(thread, block, old, size),
            Ok(place) => place,
            Err(misuse) => return self.realloc_of_none(block, size, &misuse),
        };
        if let Place::Unknown = place {
            return self.exhausted();
        }
        let usable = place.bytes();
        let stays = match place {
            Place::Large(large) => return self.realloc_large(thread, large, size),
            Place::Slot(slab) if slab.is_span() => self.resize_span(thread, slab, size),
            Place::Slot(_) | Place::Unknown => size <= usable,
            Place::Exact(_) => false,
        };
        if stays {
            self.note_room(place, size);
            return block;
        }
        self.realloc_by_copy(thread, block, usable, size)
    }

    /// What is to be resized is no live block.
    #[cold]
    pub(crate) fn realloc_of_none(&self, block: *mut u8, size: usize, misuse: &Misuse) -> *mut u8 {
        match self.next_for(misuse) {
            // SAFETY: the caller's, who says that the pointer is some malloc's block.
            Some(next) => unsafe { (next.realloc)(block.cast(), size).cast() },
            None => {
                self.ground.os.invalid();
                ptr::null_mut()
            }
        }
    }

    /// As `next_malloc` for what may be a misuse of a block of ours as well.
    pub(crate) fn next_for(&self, misuse: &Misuse) -> Option<NextMalloc> {
        if let Misuse::Unknown { .. } = misuse {
            return self.next_malloc(misuse);
        }
        self.misuse(misuse);
        None
    }

    /// A block stays where it is for `size` bytes: notes if nobody would have got it for as many, so that
    /// a free with that size is believed (see `sizes`).
    #[inline]
    pub(crate) fn note_room(&self, place: Place, size: usize) {
        match place {
            Place::Slot(slab) if slab.is_span() => {
                if size <= SMALL_MAX || !heap::may_serve(slab.pages(), pages_for(size)) {
                    slab.roomy.store(1, Relaxed);
                }
            }
            Place::Slot(slab) => {
                if size > SMALL_MAX || slab.class() != class_of(size) {
                    slab.roomy.store(1, Relaxed);
                }
            }
            Place::Large(_) | Place::Unknown => self.roomy.store(1, Relaxed),
            Place::Exact(_) => {}
        }
    }

    /// Moves a block. What grows by little is likely to grow again: it gets a quarter more than it had,
    /// where there is memory for it.
    fn realloc_by_copy(
        &self,
        thread: &Local,
        block: *mut u8,
        usable: usize,
        size: usize,
    ) -> *mut u8 {
        let roomy = with_room(usable, size);
        let mut moved = self.malloc(thread, roomy);
        if moved.is_null() && roomy > size {
            moved = self.malloc(thread, size);
        } else if roomy > size {
            if let Ok(place) = self.live(thread, moved as usize, Call::Realloc) {
                self.note_room(place, size);
            }
        }
        self.move_to(thread, block, usable.min(size), moved)
    }

    /// Copies `bytes` of a block into a new one and gives the old one back, unless there is no new one.
    pub(crate) fn move_to(
        &self,
        thread: &Local,
        block: *mut u8,
        bytes: usize,
        moved: *mut u8,
    ) -> *mut u8 {
        if !moved.is_null() {
            // SAFETY: both are live blocks apart from each other, of at least the copied bytes.
            unsafe { ptr::copy_nonoverlapping(block, moved, bytes) };
            self.free(thread, block);
        }
        moved
    }

    fn realloc_large(&self, thread: &Local, large: Block, size: usize) -> *mut u8 {
        if size > REQUEST_MAX || thread.busy.get() != 0 {
            return self.exhausted();
        }
        let remap = || {
            let _busy = Busy::mark(thread);
            self.ground
                .large
                .remap(&self.ground.os, &self.ground.meta, large, size.max(1))
        };
        let resized = remap().or_else(|| {
            // Without room for a copy beside the block, room for it to grow may be had by giving back.
            if size <= large.bytes {
                return None;
            }
            self.reclaim(thread);
            remap()
        });
        match resized {
            Some(block) => block.address as *mut u8,
            None if size <= large.bytes => {
                self.note_room(Place::Large(large), size);
                large.address as *mut u8
            }
            None => self.realloc_by_copy(thread, large.address as *mut u8, large.bytes, size),
        }
    }

    /// Resizes a live span in place, if it is the thread's own and there is room. A span shrinks only to
    /// another bin's size, so that sizes that waver cost nothing.
    pub(crate) fn resize_span(&self, thread: &Local, slab: SlabPtr, size: usize) -> bool {
        let fits = size <= slab.size();
        let mine = slab.owner.load(Relaxed) & !remote::PENDING == thread.me.get();
        let heap = match heap_of(thread) {
            Some(heap) if mine && size <= SPAN_MAX && thread.busy.get() == 0 => heap,
            _ => return fits,
        };
        let (pages, wanted) = (slab.pages(), pages_for(size.max(1)));
        let rounded = bin_pages(bin_of(wanted));
        let _busy = Busy::mark(thread);
        heap.retire_span(self.ground.table(), slab);
        let old = slab.size();
        if rounded < pages {
            self.ground.pages.shorten(slab, rounded);
        } else if !fits {
            let roomy = bin_pages(bin_of(pages_for(with_room(old, size))));
            let extend = |to: usize| self.ground.pages.extend(slab, to - pages);
            if !extend(roomy) && !extend(rounded) && !extend(wanted) {
                return false;
            }
        }
        heap.span_resized(&self.ground, old, slab.size());
        true
    }

    /// Bytes that may be used in a live block; 0 for null.
    pub fn usable_size(&self, thread: &Local, block: *const u8) -> usize {
        if block.is_null() {
            return 0;
        }
        self.notice_fork(thread);
        match self.live(thread, block as usize, Call::UsableSize) {
            Ok(place) => place.bytes(),
            Err(misuse) => self.next_for(&misuse).map_or(0, |next| {
                // SAFETY: the caller's, who says that the pointer is some malloc's block.
                unsafe { (next.usable_size)(block.cast_mut().cast()) }
            }),
        }
    }

    /// The live block at `addr`; anything else is a misuse.
    pub(crate) fn live(&self, thread: &Local, addr: usize, call: Call) -> Result<Place, Misuse> {
        let ground = &self.ground;
        let exact = self.hard.is_on() && !self.hard.is_arenas(ground, addr);
        let in_slab = ground.pages.slab_at(addr).is_some();
        if thread.busy.get() == 0 || in_slab {
            if self.samples.holds(&ground.os, addr) {
                return self.samples.size(&ground.os, addr, call).map(Place::Exact);
            }
            if exact {
                let live = self.hard.find(ground, addr, call);
                return live.map(|live| Place::Exact(live.size()));
            }
        }
        let found = self.ground.pages.find(addr).map(|(_, slab)| slab);
        if let Some(slab) = found.filter(|slab| slab.owner.load(Relaxed) != remote::RELEASED) {
            return match locate(slab, addr, call) {
                Ok(slot) if slab.is_remote(slot) || slab.is_free(slot) => Err(Misuse::Dead {
                    call,
                    addr,
                    slot,
                    size: slab.size(),
                }),
                Ok(_) => Ok(Place::Slot(slab)),
                Err(misuse) => Err(misuse),
            };
        }
        let interrupted = thread.busy.get() != 0;
        let found = if interrupted {
            // The thread may hold the lock.
            match self.ground.large.try_find(addr) {
                Some(found) => found,
                None => return Ok(Place::Unknown),
            }
        } else if self.is_started() {
            let _busy = Busy::mark(thread);
            self.ground.large.find(addr)
        } else {
            Found::Unknown
        };
        match found {
            Found::Live(block) => Ok(Place::Large(block)),
            Found::Freed(block) => Err(Misuse::Dead {
                call,
                addr,
                slot: 0,
                size: block.bytes,
            }),
            Found::Unknown => Err(Misuse::Unknown { call, addr }),
        }
    }

    // ---- hardened mode --------------------------------------------------------------------------

    /// Whether threads are to be kept off the fast paths. A thread that has a heap is not asked about.
    pub(crate) fn is_hardened(&self) -> bool {
        self.start() && self.hard.is_on()
    }

    /// By a hardened thread, which has no entries: of those that hardened mode keeps for it.
    #[inline(never)]
    fn malloc_hardened_at_once(&self, size: usize, thread: &Local) -> *mut u8 {
        match self.take_hardened::<false>(thread, size) {
            Some(block) => block,
            None => self.malloc_hardened_many(size, thread),
        }
    }

    /// As [`Allocator::malloc_hardened_at_once`], of any size.
    #[inline(never)]
    fn malloc_hardened_many(&self, size: usize, thread: &Local) -> *mut u8 {
        match self.take_hardened::<true>(thread, size) {
            Some(block) => block,
            None => self.malloc_hardened(thread, size, 1),
        }
    }

    #[inline(always)]
    fn take_hardened<const MANY: bool>(&self, thread: &Local, size: usize) -> Option<*mut u8> {
        let hardened = self.hard.thread(thread)?;
        if thread.busy.get() != 0 {
            return None;
        }
        let _busy = Busy::mark(thread);
        let address = self
            .hard
            .malloc_at_once::<MANY, O>(&self.ground, hardened, size)?;
        Some(address as *mut u8)
    }

    #[cold]
    #[inline(never)]
    fn malloc_hardened(&self, thread: &Local, size: usize, align: usize) -> *mut u8 {
        let make = |hardened: &hardened::Thread| {
            let made = self.hard.malloc(&self.ground, hardened, size, align)?;
            let heap = hardened.heap().filter(|_| made.is_some());
            let sampled = heap.and_then(|heap| self.sample(heap, size, align));
            if let (Some(made), Some(_)) = (made, sampled) {
                self.hard.take_back(&self.ground, hardened, made)?;
            }
            Ok(sampled.or(made.map(|address| address as *mut u8)))
        };
        self.with_hardened(thread, make)
            .or_else(|| {
                self.reclaim(thread);
                self.with_hardened(thread, make)
            })
            .unwrap_or_else(|| self.exhausted())
    }

    #[inline(never)]
    fn free_hardened(&self, addr: usize, thread: &Local) {
        if !self.give_hardened::<false>(thread, addr) {
            self.free_hardened_many(addr, thread);
        }
    }

    /// As [`Allocator::free_hardened`], of any size.
    #[inline(never)]
    fn free_hardened_many(&self, addr: usize, thread: &Local) {
        if !self.give_hardened::<true>(thread, addr) {
            self.free_hardened_slow(addr, thread);
        }
    }

    #[inline(always)]
    fn give_hardened<const MANY: bool>(&self, thread: &Local, addr: usize) -> bool {
        let Some(hardened) = self.hard.thread(thread) else {
            return false;
        };
        if thread.busy.get() != 0 || self.has_forked() {
            return false;
        }
        let _busy = Busy::mark(thread);
        self.hard
            .free_at_once::<MANY, O>(&self.ground, hardened, addr)
    }

    #[cold]
    #[inline(never)]
    fn free_hardened_slow(&self, addr: usize, thread: &Local) {
        if addr == 0 {
            return;
        }
        self.notice_fork(thread);
        let Some(slab) = self.ground.pages.slab_at(addr) else {
            return self.free_far_hardened(thread, addr);
        };
        let slot = match locate(slab, addr, Call::Free) {
            Ok(slot) => slot,
            // A large mapping may lie where the heap's end once was.
            Err(Misuse::Unknown { addr, .. }) => return self.free_far_hardened(thread, addr),
            Err(misuse) => return self.misuse(&misuse),
        };
        let hardened = self.hard.thread(thread);
        if let Some(hardened) = hardened.filter(|_| thread.busy.get() == 0) {
            let freed = {
                let _busy = Busy::mark(thread);
                self.hard.free(&self.ground, hardened, slab, slot)
            };
            return freed.unwrap_or_else(|misuse| self.misuse(&misuse));
        }
        self.free_hardened_late(thread, slab, slot);
    }

    /// By a thread that has no heap yet or any more, or in a signal handler that interrupted a slow path.
    #[cold]
    #[inline(never)]
    fn free_hardened_late(&self, thread: &Local, slab: SlabPtr, slot: usize) {
        if thread.busy.get() != 0 || !self.attach(thread) {
            return match self.hard.end(&self.ground, slab, slot, true) {
                Ok(_) => self.free_without_heap(slab, slot),
                Err(misuse) => self.misuse(&misuse),
            };
        }
        self.with_hardened(thread, |hardened| {
            self.hard.free(&self.ground, hardened, slab, slot).map(Some)
        });
    }

    fn free_far_hardened(&self, thread: &Local, addr: usize) {
        if thread.busy.get() != 0 {
            return self.put_off(addr);
        }
        self.free_put_off(thread);
        if self.samples.holds(&self.ground.os, addr) {
            return self.free_sampled(thread, addr);
        }
        let outcome = {
            let _busy = Busy::mark(thread);
            self.hard.free_far(&self.ground, addr)
        };
        match outcome {
            Ok(()) => {}
            Err(Misuse::Unknown { addr, .. }) => self.free_foreign(addr),
            Err(misuse) => self.misuse(&misuse),
        }
    }

    fn free_sampled(&self, thread: &Local, addr: usize) {
        let outcome = {
            let _busy = Busy::mark(thread);
            self.samples.give(&self.ground.os, addr)
        };
        if let Err(misuse) = outcome {
            self.misuse(&misuse);
        }
    }

    /// Writes what is known of the sampled block that a fault was at or beside. From a signal handler.
    pub fn tell_of_fault(&self, address: usize) {
        let os = &self.ground.os;
        let Some(sampled) = self.samples.find(os, address) else {
            return;
        };
        os.say(sampled.fault(address).bytes());
        let mut frames = [0; 32];
        let known = os.stack(&mut frames);
        os.say_stack(&frames[..known]);
        os.say(b"  allocated\n");
        os.say_stack(sampled.allocated.frames());
        if let Some(freed) = sampled.freed {
            os.say(b"  freed\n");
            os.say_stack(freed.frames());
        }
    }

    /// Resizes a hardened or sampled block of `old` bytes.
    fn realloc_exact(&self, thread: &Local, block: *mut u8, old: usize, size: usize) -> *mut u8 {
        let addr = block as usize;
        if !self.samples.holds(&self.ground.os, addr) {
            let live = self.hard.find(&self.ground, addr, Call::Realloc);
            let outcome = live.and_then(|live| Ok((live, self.hard.resize(live, addr, size)?)));
            match outcome {
                Err(misuse) => {
                    self.misuse(&misuse);
                    return ptr::null_mut();
                }
                Ok((Live::Large(..), true)) => {
                    self.hard.note_large(&self.ground, addr, size);
                    return block;
                }
                Ok((_, true)) => return block,
                Ok((_, false)) => {}
            }
        }
        let moved = self.malloc(thread, size);
        self.move_to(thread, block, old.min(size), moved)
    }

    /// Whether the size of every block is just what was asked for.
    pub(crate) fn is_exact(&self) -> bool {
        self.hard.is_on()
    }

    /// Runs `work` with what hardened mode keeps of the thread, or with what all late threads share, under
    /// the lock. `None` in a signal handler that interrupted a slow path, and where there is no memory.
    fn with_hardened<R>(
        &self,
        thread: &Local,
        work: impl Fn(&hardened::Thread) -> Result<Option<R>, Misuse>,
    ) -> Option<R> {
        if thread.busy.get() != 0 {
            return None;
        }
        self.notice_fork(thread);
        if !self.attach(thread) {
            return None;
        }
        let _busy = Busy::mark(thread);
        let outcome = match self.hard.thread(thread) {
            Some(hardened) => work(hardened),
            None => {
                let _guard = self.shared.lock.lock();
                let local = &self.shared.local;
                if local.hardened.get() == 0 {
                    self.hard.attach(&self.ground, local, true);
                }
                let hardened = self.hard.thread(local);
                hardened.map_or(Ok(None), work)
            }
        };
        outcome.unwrap_or_else(|misuse| {
            self.misuse(&misuse);
            None
        })
    }

    // ---- who the thread is ----------------------------------------------------------------------

    /// A misuse ends the program, or is told of: then the operation is dropped, and the caller goes on.
    #[cold]
    pub(crate) fn misuse(&self, misuse: &Misuse) {
        if self.ground.options.get(Name::Misuse) == options::MISUSE_REPORTS {
            return self.ground.os.say(misuse.line().bytes());
        }
        let ground = &self.ground;
        let sampled = self.samples.find(&ground.os, misuse.address());
        if !self.hard.is_on() && sampled.is_none() {
            ground.os.die(misuse);
        }
        let details = self.hard.explain(ground, misuse);
        let Some(sampled) = sampled else {
            ground.os.die_telling(misuse, &details, &[]);
        };
        let freed = sampled.freed.unwrap_or(sampled.allocated);
        let stacks = [
            ("allocated", sampled.allocated.frames()),
            ("freed", freed.frames()),
        ];
        let known = 1 + usize::from(sampled.freed.is_some());
        ground.os.die_telling(misuse, &details, &stacks[..known])
    }

    /// Runs `work` with the thread's heap, or with the shared one under its lock. `None` in a signal
    /// handler that interrupted a slow path, and where nothing can be started.
    fn with_heap<R>(
        &self,
        thread: &Local,
        work: impl FnOnce(&Local, &Heap) -> Result<Option<R>, Misuse>,
    ) -> Option<R> {
        if thread.busy.get() != 0 {
            return None;
        }
        self.notice_fork(thread);
        if !self.attach(thread) {
            return None;
        }
        let (outcome, noted) = match heap_of(thread) {
            Some(heap) => {
                let _busy = Busy::mark(thread);
                (work(thread, heap), heap.noted())
            }
            None if self.hard.is_on() => return None,
            None => self.with_shared(thread, work),
        };
        // Neither busy nor under a lock: a handler of SIGABRT may allocate.
        if let Some(misuse) = noted {
            self.misuse(&misuse);
        }
        outcome.unwrap_or_else(|misuse| {
            self.misuse(&misuse);
            None
        })
    }

    fn with_shared<R>(
        &self,
        thread: &Local,
        work: impl FnOnce(&Local, &Heap) -> Result<Option<R>, Misuse>,
    ) -> (Result<Option<R>, Misuse>, Option<Misuse>) {
        let _busy = Busy::mark(thread);
        let _guard = self.shared.lock.lock();
        let local = &self.shared.local;
        match heap_of(local).or_else(|| self.ground.heaps.take_shared(&self.ground, local)) {
            Some(heap) => (work(local, heap), heap.noted()),
            None => (Ok(None), None),
        }
    }

    /// As `with_heap`; where `work` finds no memory, all that is kept for reuse is given back and it is
    /// tried once more.
    fn with_reclaim<R>(
        &self,
        thread: &Local,
        work: impl Fn(&Local, &Heap) -> Result<Option<R>, Misuse>,
    ) -> Option<R> {
        self.with_heap(thread, &work).or_else(|| {
            self.reclaim(thread);
            self.with_heap(thread, &work)
        })
    }

    /// Gives back to the system all that is kept for reuse and can be reached from this thread.
    pub fn reclaim(&self, thread: &Local) {
        self.reclaim_but(thread, 0);
    }

    /// As [`Allocator::reclaim`], but for `keep` free pages at the heap's end.
    pub fn reclaim_but(&self, thread: &Local, keep: usize) {
        let ground = &self.ground;
        if self.hard.is_on() {
            return self.reclaim_hardened(thread);
        }
        self.with_heap(thread, |_, heap| {
            heap.give_back(ground)?;
            ground.large.give_back(&ground.os, &ground.meta);
            ground.pages.yield_reserve(&ground.os, &ground.meta);
            ground.pages.trim(&ground.os, &ground.meta, keep);
            ground.pages.purge(&ground.os, &ground.meta, usize::MAX);
            Ok(Some(()))
        });
    }

    fn reclaim_hardened(&self, thread: &Local) {
        let ground = &self.ground;
        self.with_hardened(thread, |hardened| {
            self.hard.flush(ground, hardened)?;
            self.hard.reclaim(&ground.os);
            if let Some(heap) = hardened.heap() {
                heap.give_back(ground)?;
            }
            ground.pages.yield_reserve(&ground.os, &ground.meta);
            ground.pages.trim(&ground.os, &ground.meta, 0);
            ground.pages.purge(&ground.os, &ground.meta, usize::MAX);
            Ok(Some(()))
        });
    }

    /// Sees to it that the thread has a heap, or is late. False where nothing can be started.
    pub(crate) fn attach(&self, thread: &Local) -> bool {
        if thread.phase.get() != Phase::Fresh {
            return true;
        }
        let has_heap = {
            // A signal handler must neither ask for the lock of the start once more nor for another heap.
            let _busy = Busy::mark(thread);
            if !self.start() {
                return false;
            }
            let has_heap = if self.hard.is_on() {
                self.hard.attach(&self.ground, thread, false)
            } else {
                self.ground.heaps.take(&self.ground, thread).is_some()
            };
            if self.ground.heaps.given.load(Relaxed) > 1 {
                self.watch_forks();
            }
            thread.phase.set(if has_heap {
                Phase::Running
            } else {
                Phase::Late
            });
            has_heap
        };
        // These may allocate: the heap is in place, the thread is not busy, and holds no lock but that
        // of the start, which a thread with a heap does not ask for.
        if self.stage.load(Acquire) != HOOKED && self.begin() {
            // Without the lock of the start: a thread that loads a library holds the loader's.
            self.ground.os.stay_loaded();
            if self.hard.is_on() || self.ground.options.get(Name::GuardSample) != 0 {
                self.ground.os.prepare_stacks();
            }
        }
        if has_heap {
            self.ground
                .os
                .watch_thread(ptr::NonNull::from(thread).cast());
        }
        true
    }

    /// Registers the process's hooks, once; who comes second waits until they are there. Whether it was
    /// this call that did.
    #[cold]
    fn begin(&self) -> bool {
        let _guard = self.start_lock.lock();
        let first = self.stage.load(Acquire) == STARTED;
        if first {
            self.ground.os.begin();
            self.stage.store(HOOKED, Release);
        }
        first
    }

    /// An option was set: where blocks are sampled from now on, their stacks are to be told.
    pub fn option_changed(&self) {
        if self.is_started() && self.ground.options.get(Name::GuardSample) != 0 {
            self.ground.os.prepare_stacks();
        }
    }

    /// Gets the process ready before its first allocation, so that a fork finds the hooks registered.
    pub fn prepare(&self, thread: &Local) {
        self.attach(thread);
    }

    /// Makes the counters exact as far as this thread's heap is concerned.
    pub fn report(&self, thread: &Local) {
        self.with_heap(thread, |_, heap| {
            heap.report(&self.ground);
            Ok(Some(()))
        });
    }

    /// Whether the metadata are there.
    pub fn is_started(&self) -> bool {
        self.stage.load(Acquire) != UNSTARTED
    }

    fn start(&self) -> bool {
        if self.is_started() {
            return true;
        }
        let _guard = self.start_lock.lock();
        let ground = &self.ground;
        if self.is_started() {
            return true;
        }
        ground
            .options
            .freeze(ground.os.options(), |line| ground.os.say(line.bytes()));
        self.configure();
        let hardened = self.hard.provide(&ground.options, &ground.meta);
        let started = (ground.meta.is_ready() || ground.meta.init(&ground.os))
            && ground.pages.init(&ground.os, &ground.meta);
        if started {
            if hardened {
                self.hard.begin(ground);
            }
            self.stage.store(STARTED, Release);
        }
        started
    }

    /// From now on forks are noticed that run no handlers. While there is one thread they need not be: all is
    /// whole in the child.
    pub fn watch_forks(&self) {
        // No lock: the process's hooks call this while the lock of the start is held. Of two threads that make
        // a mark at once one is in vain, and costs a page.
        if self.mark().is_none() {
            if let Some(mark) = self.ground.os.fork_mark() {
                let mark = ptr::from_ref(mark).cast_mut();
                let none = ptr::null_mut();
                let _ = self.fork_mark.compare_exchange(none, mark, AcqRel, Relaxed);
            }
        }
    }

    /// Hands the options, which are frozen, to the layers that follow them.
    fn configure(&self) {
        let (ground, options) = (&self.ground, &self.ground.options);
        let (soft, hard) = (options.get(Name::LimitSoft), options.get(Name::LimitHard));
        ground.meta.budget.limit(soft, hard);
        ground.pages.configure(options);
        ground.large.configure(options);
        if options.get(Name::HugePages) == options::HUGE_ON {
            ground.os.prefer_huge_pages();
        }
    }

    // ---- thread exit and fork -------------------------------------------------------------------

    /// The thread ends: its slabs are abandoned, its heap is put away. It is late from now on.
    pub fn exit_thread(&self, thread: &Local) {
        if thread.hardened.get() != 0 {
            let outcome = {
                let _busy = Busy::mark(thread);
                thread.phase.set(Phase::Late);
                self.hard.exit(&self.ground, thread)
            };
            return outcome.unwrap_or_else(|misuse| self.misuse(&misuse));
        }
        let Some(heap) = heap_of(thread) else {
            return;
        };
        let (outcome, noted) = {
            let _busy = Busy::mark(thread);
            let outcome = heap.abandon_all(&self.ground);
            let noted = heap.noted();
            self.ground.heaps.give(&self.ground, heap, thread);
            thread.phase.set(Phase::Late);
            (outcome, noted)
        };
        for misuse in noted.into_iter().chain(outcome.err()) {
            self.misuse(&misuse);
        }
    }

    /// In a fork child, whose one thread is `thread`: derives everything from the slab headers again,
    /// unless the parent never had a second heap.
    pub fn repair_after_fork(&self, thread: &Local) {
        let outcome = {
            // From before the mark on: a signal handler must not take the heap for repaired.
            let _busy = Busy::mark(thread);
            match self.mark() {
                Some(mark) if mark.swap(1, Relaxed) != 0 => Ok(()),
                _ => self.repair(thread),
            }
        };
        if let Err(misuse) = outcome {
            self.misuse(&misuse);
        }
    }

    fn repair(&self, thread: &Local) -> Result<(), Misuse> {
        self.ground.os.forked();
        let hardened = self.hard.thread(thread);
        let mine = hardened.map_or_else(|| heap_of(thread), hardened::Thread::heap);
        let alone = self.ground.heaps.given.load(Relaxed) == 1 && mine.is_some();
        if alone && self.locks_are_free() {
            if let Some(heap) = mine {
                self.ground.heaps.renumber(&self.ground, heap);
            }
            return Ok(());
        }
        self.reset_locks();
        if !self.is_started() {
            return Ok(());
        }
        self.ground.large.rebuild(&self.ground.meta);
        self.shared.local.reset();
        self.ground.pages.rebuild();
        if self.hard.is_on() {
            self.hard.repair(&self.ground, thread);
        }
        self.ground.heaps.rebuild(&self.ground, mine)
    }

    #[inline(always)]
    fn mark(&self) -> Option<&AtomicU32> {
        // SAFETY: null, or what `Os::fork_mark` gave, which stays for good.
        unsafe { self.fork_mark.load(Relaxed).as_ref() }
    }

    /// Repairs the heap first if this is a fork child that has not been told yet: other fork handlers may
    /// run before ours, and _Fork(3) runs none. Whether it was.
    #[inline]
    pub(crate) fn notice_fork(&self, thread: &Local) -> bool {
        let forked = self.has_forked();
        if forked {
            self.repair_after_fork(thread);
        }
        forked
    }

    /// Whether this is a fork child that has not been told yet.
    #[inline(always)]
    fn has_forked(&self) -> bool {
        self.mark().is_some_and(|mark| mark.load(Relaxed) == 0)
    }

    /// Whether no thread was in the middle of anything when the parent forked.
    fn locks_are_free(&self) -> bool {
        let ground = &self.ground;
        let locks = self.start_lock.is_free() && self.shared.lock.is_free();
        let locks = locks && ground.meta.lock_is_free() && ground.arenas.lock_is_free();
        locks
            && ground.pages.locks_are_free()
            && ground.large.locks_are_free()
            && ground.heaps.lock_is_free()
            && self.hard.locks_are_free()
            && self.samples.lock_is_free()
    }

    /// Frees every lock: whoever held one is not in this process.
    fn reset_locks(&self) {
        self.start_lock.reset();
        self.ground.options.reset_lock();
        self.shared.lock.reset();
        self.ground.meta.reset_lock();
        self.ground.arenas.reset_lock();
        self.ground.pages.reset_locks();
        self.ground.heaps.reset_lock();
        self.ground.abandoned.reset_lock();
        self.hard.reset_locks();
        self.samples.reset_lock();
    }

    /// Number of broken invariants, while no other thread is at work.
    pub fn validate(&self) -> usize {
        if !self.is_started() {
            return 0;
        }
        let ground = &self.ground;
        ground.pages.validate() + ground.large.validate() + ground.heaps.validate(ground)
    }
}

/// Clears the first `bytes` bytes of a new block, unless it is null or all zero already.
///
/// # Safety
/// The block is live and has as many.
#[inline]
unsafe fn zeroed((block, fresh): (*mut u8, bool), bytes: usize) -> *mut u8 {
    if !fresh && !block.is_null() {
        // SAFETY: the caller's.
        unsafe { ptr::write_bytes(block, 0, bytes) };
    }
    block
}

/// Puts a slot back into the entry that it was taken from just now.
fn put_back(entry: &Entry, slot: *mut u8) {
    let slot = bit_of((slot as usize - entry.base.get() as usize) / entry.size.get());
    let bits = entry.hide();
    // SAFETY: the word that the slot came from, in a header that is never unmapped.
    flip(unsafe { &*entry.word.get() }, slot);
    entry.show(bits | slot);
}

/// How many bytes a block of `usable` gets that is to have `size`: where it grows by little, a quarter more
/// than it had, but no mapping of its own for that.
fn with_room(usable: usize, size: usize) -> usize {
    let roomy = usable + usable / 4;
    if size <= usable || size > roomy || size > SPAN_MAX {
        return size;
    }
    roomy.min(SPAN_MAX)
}
