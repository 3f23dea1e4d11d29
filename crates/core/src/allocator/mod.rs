//! malloc, calloc and aligned allocation. free, realloc and usable size are in the modules below. Each function is on
//! one screen, with its fast path first. `guarded` has what hardened threads do instead, and `thread` finds out who the
//! thread is.
//!
//! ```text
//!   malloc  cache of the class -> lowest bit -> clear it in the cache and in the bitmap word -> address
//!   free    page map -> header -> owner is me? -> offset * reciprocal -> bit clear? set it -> frees_left
//! ```
//!
//! No option is tested here. An empty cache, and an owner word that no slab has, keep a thread off the fast paths. The
//! slow paths find out who the thread is. It may have a heap. It may be late: its exit hook ran, or there is no heap
//! for it. It may be a guest (see `guest`). Or a signal handler interrupted one of its slow paths.

mod background;
mod caller;
mod free;
mod guarded;
mod guest;
mod resize;
mod resolve;
mod thread;

use crate::arch::{REFILL_ELSEWHERE, REFILL_ROUND_OVER, REFILL_USED_UP};
use crate::class::{cache_offset, class_at, class_of, fit, ClassId, Fit, UpperClass};
use crate::hardened::{Hardened, Samples};
use crate::heap::{heap_of, Backend, Heap, HeapRef, Inside, NextWord, LARGE};
use crate::misuse::Misuse;
use crate::mutex::{Mutex, Registry};
use crate::nested::Nested;
use crate::occupancy::Sums;
use crate::os::Os;
use crate::slab::SlabPtr;
use crate::sync::{xor_owned, AtomicU32, AtomicUsize};
use crate::tls::{mark_alone, mark_busy, Busy, SlotCache, Thread, ThreadCache};
use crate::units::{align_down, bit_of, pages_for, PageStart, PAGE, PAGE_START};
use crate::units::{ADDRESSES, LOCAL_MAX, SMALL_MAX, SPAN_MAX};
use background::Background;
use core::ptr::{self, NonNull};
use core::sync::atomic::{compiler_fence, AtomicPtr, Ordering::Relaxed, Ordering::SeqCst};

pub(crate) use caller::Caller;
pub(crate) use resolve::{Live, Region, Target};

/// An allocator over the system `O`. One is the process's. Tests make more.
///
/// What every start writes to comes first (see `heap::Backend`).
#[repr(C)]
pub struct Allocator<O: Os> {
    _page_start: PageStart,
    stage: AtomicU32,
    start_lock: Mutex<()>,
    /// Non-zero when there may be some blocks in `put_off`.
    any_put_off: AtomicU32,
    /// Non-zero once a large block could not be shrunk and kept its bytes (see `sized_free`).
    pub(crate) size_ambiguous: AtomicU32,
    /// Written to at the start only if it is asked for.
    background: Background,
    /// Where the system keeps its [`fork_mark`](crate::os::Host::fork_mark). Null means nowhere.
    fork_mark: AtomicPtr<AtomicU32>,
    /// All that the heaps stand on.
    pub backend: Backend<O>,
    pub(crate) hard: Hardened,
    pub(crate) samples: Samples,
    /// For `occupancy`'s questions.
    pub(crate) sums: Sums,
    nested: Nested,
    /// Large blocks that signal handlers freed. 0 means unused place.
    put_off: [AtomicUsize; PUT_OFF],
    /// The heap of threads that have none: used under the lock.
    shared: Mutex<ThreadCache>,
    /// The heap of guests: used under the lock, which nobody waits for without an end.
    guests: Mutex<ThreadCache>,
    /// 1 while a guest has waited for the lock in vain. A hint.
    guests_lost: AtomicU32,
    /// Threads that are about to get a heap (see `guest`). A hint.
    coming: AtomicU32,
    /// Locks that were made for the allocator.
    locks: usize,
}

/// The most frees of large blocks that signal handlers can put off.
const PUT_OFF: usize = 32;

/// The fewest bytes of a block whose pages may be dropped rather than cleared.
const DROPPED_MIN: usize = 1 << 20;
/// How many of its pages are looked at to decide that: less than a fiftieth of the time that clearing them takes.
const LOOKED_AT: usize = 16;
static_assertions::const_assert!(DROPPED_MIN > SPAN_MAX);

const UNSTARTED: u32 = 0;
const STARTED: u32 = 1;
const HOOKED: u32 = 2;

/// The thread's heap, unless a signal handler interrupted a slow path that may be at work on it.
#[inline(always)]
fn heap_at_hand(thread: &ThreadCache) -> Option<&Heap> {
    if thread.busy.get() != 0 {
        return None;
    }
    // The heap is read after that: what a path has left that a handler mends may be another heap.
    compiler_fence(SeqCst);
    heap_of(thread)
}

/// Goes inside the heap, if this path is the one that is marked, and no other thread visits.
#[inline(always)]
fn come_in_alone<'a>(heap: &'a Heap, busy: &Option<Busy>) -> Option<Inside<'a>> {
    busy.as_ref().and_then(|busy| heap.come_in(busy))
}

/// The cache of `class`.
#[inline(always)]
fn cache_of<'a>(thread: &'a ThreadCache, heap: &'a Heap, class: ClassId) -> &'a SlotCache {
    match thread.caches.get(class.index()) {
        Some(cache) => cache,
        None => heap.upper_cache(class),
    }
}

impl<O: Os> Allocator<O> {
    /// An allocator that has not asked the system for anything yet.
    pub const fn new(os: O) -> Allocator<O> {
        let mut locks = Registry::new();
        Allocator {
            _page_start: [0; PAGE_START],
            backend: Backend::new(&mut locks, os),
            hard: Hardened::new(&mut locks),
            samples: Samples::new(&mut locks),
            sums: Sums::new(),
            nested: Nested::new(),
            stage: AtomicU32::new(UNSTARTED),
            start_lock: Mutex::new(&mut locks, ()),
            put_off: [const { AtomicUsize::new(0) }; PUT_OFF],
            any_put_off: AtomicU32::new(0),
            fork_mark: AtomicPtr::new(ptr::null_mut()),
            shared: Mutex::new(&mut locks, ThreadCache::new()),
            guests: Mutex::new(&mut locks, ThreadCache::new()),
            guests_lost: AtomicU32::new(0),
            coming: AtomicU32::new(0),
            size_ambiguous: AtomicU32::new(0),
            background: Background::new(),
            locks: locks.count(),
        }
    }

    // ---- malloc ---------------------------------------------------------------------------------

    /// At least `size` bytes, aligned to 8 up to 8 bytes and to 16 above. Null if memory has run out.
    #[inline(always)]
    pub fn malloc(&self, thread: impl Thread, size: usize) -> *mut u8 {
        let Some(offset) = cache_offset(size) else {
            return self.malloc_upper(size, thread.block());
        };
        // SAFETY: `cache_offset` gives offsets of caches alone (tested exhaustively in `class`).
        match unsafe { thread.take(offset) } {
            Some(slot) => slot,
            None => self.malloc_slow(size, thread.block(), offset),
        }
    }

    /// A slot that the thread has cached, if there is one of this size.
    #[inline(always)]
    pub fn take_cached_slot(&self, thread: impl Thread, size: usize) -> Option<*mut u8> {
        // SAFETY: `cache_offset` gives offsets of slot caches alone (tested exhaustively in `class`).
        cache_offset(size).and_then(|offset| unsafe { thread.take(offset) })
    }

    /// The cache at `offset` bytes into the block is used up, or the thread is kept from using it. Most often the next word
    /// of the same slab is cached. All else is in functions of its own, so that no register is saved for it.
    #[cold]
    #[inline(never)]
    fn malloc_slow(&self, size: usize, thread: &ThreadCache, offset: usize) -> *mut u8 {
        // A hardened thread has no heap here, and neither has one that begins.
        if thread.heap.get().is_null() {
            return self.refill_small(size, thread, offset);
        }
        let mut found = ptr::without_provenance_mut(REFILL_ELSEWHERE);
        {
            mark_alone!(thread => busy);
            // After the mark nobody gives the thread another heap, which is read a second time.
            if let Some(heap) = busy.as_ref().and_then(|_| heap_of(thread)) {
                // SAFETY: malloc gives an offset that is a cache's. The heap is the thread's.
                found = unsafe { heap.on(&self.backend).next_word_at(thread, offset) };
            }
        }
        if found.addr() > REFILL_ROUND_OVER {
            return found;
        }
        self.refill_otherwise(size, thread, offset, found.addr())
    }

    /// As [`Allocator::malloc_slow`], which found nothing to cache: `why` is one of [`REFILL_ELSEWHERE`] and its like.
    #[inline(never)]
    fn refill_otherwise(
        &self,
        size: usize,
        thread: &ThreadCache,
        offset: usize,
        why: usize,
    ) -> *mut u8 {
        let class = class_at(offset);
        match why {
            REFILL_ROUND_OVER => self.refill_after_round(class, size, 1, thread),
            REFILL_USED_UP => self.refill_from_next(class, size, 1, thread),
            _ => self.refill_small(size, thread, offset),
        }
    }

    #[inline(never)]
    fn refill_small(&self, size: usize, thread: &ThreadCache, offset: usize) -> *mut u8 {
        if let Some(hardened) = self.hard.thread(thread) {
            return self.malloc_hardened_small(size, thread, offset, hardened);
        }
        self.refill_of(size, thread, offset)
    }

    /// As [`Allocator::refill`], apart, so that no register is saved where nothing is refilled.
    #[inline(never)]
    fn refill_of(&self, size: usize, thread: &ThreadCache, offset: usize) -> *mut u8 {
        self.refill(class_at(offset), size, 1, thread)
    }

    /// As [`Allocator::malloc`] for more than 1 KiB.
    #[inline(never)]
    fn malloc_upper(&self, size: usize, thread: &ThreadCache) -> *mut u8 {
        let Some(heap) = heap_at_hand(thread) else {
            return self.malloc_upper_slow(thread, size);
        };
        if size <= SMALL_MAX {
            let upper = UpperClass::of(size);
            if let Some(slot) = heap.upper_cache_at(upper).take() {
                return slot;
            }
            return self.refill_upper(thread, heap, size, upper);
        }
        if size <= SPAN_MAX {
            if let Some(slab) = heap.take_active_span(size) {
                return slab.base() as *mut u8;
            }
            return self.malloc_kept_span(thread, heap, size);
        }
        self.malloc_freed_large(thread, heap, size)
    }

    /// As [`Allocator::malloc`] for more than [`SPAN_MAX`] bytes.
    #[inline(never)]
    fn malloc_freed_large(&self, thread: &ThreadCache, heap: &Heap, size: usize) -> *mut u8 {
        let again = self.malloc_large_again(thread, heap, size);
        again.unwrap_or_else(|| self.malloc_upper_slow(thread, size))
    }

    /// The active span for `size` bytes is live: another one that was freed is taken. What follows otherwise comes last, so
    /// that no register is saved for it.
    #[inline(never)]
    fn malloc_kept_span(&self, thread: &ThreadCache, heap: &Heap, size: usize) -> *mut u8 {
        {
            mark_alone!(thread => busy);
            if let Some(_inside) = come_in_alone(heap, &busy) {
                if let Some(slab) = heap.on(&self.backend).take_binned_fast(size) {
                    return slab.base() as *mut u8;
                }
            }
        }
        self.malloc_other_span(thread, heap, size)
    }

    /// As `malloc_kept_span`, where the heap is profiled, or no bin has one.
    #[inline(never)]
    fn malloc_other_span(&self, thread: &ThreadCache, heap: &Heap, size: usize) -> *mut u8 {
        {
            mark_alone!(thread => busy);
            let kept = busy
                .as_ref()
                .and_then(|busy| self.take_kept_span(busy, heap, size));
            if let Some(slab) = kept {
                return slab.base() as *mut u8;
            }
        }
        self.malloc_upper_slow(thread, size)
    }

    /// A freed span for `size` bytes that the heap keeps, unless another thread visits the heap.
    #[inline(always)]
    fn take_kept_span(&self, busy: &Busy, heap: &Heap, size: usize) -> Option<SlabPtr> {
        let _inside = heap.come_in(busy)?;
        heap.on(&self.backend).take_binned(size)
    }

    /// The cache of `upper` is used up. What follows otherwise comes last, so that no register is saved for it.
    #[inline(never)]
    fn refill_upper(
        &self,
        thread: &ThreadCache,
        heap: &Heap,
        size: usize,
        upper: UpperClass,
    ) -> *mut u8 {
        {
            mark_alone!(thread => busy);
            if let Some(busy) = busy.as_ref().filter(|_| !heap.is_clock_due()) {
                if let Some(slot) = heap.on(&self.backend).refill_upper(busy, upper) {
                    return slot.as_ptr();
                }
            }
        }
        self.change_upper(thread, size)
    }

    /// As `refill_upper`, where the clock is to be looked at, or there is more to do.
    #[inline(never)]
    fn change_upper(&self, thread: &ThreadCache, size: usize) -> *mut u8 {
        let Some(heap) = heap_at_hand(thread) else {
            return self.malloc_upper_slow(thread, size);
        };
        let upper = UpperClass::of(size);
        let mut glanced = false;
        {
            mark_alone!(thread => busy);
            if let Some(busy) = &busy {
                if heap.is_clock_due() {
                    glanced = self.come_in_and_glance(busy, heap);
                } else if let Some(slot) = heap.on(&self.backend).change_upper(busy, upper) {
                    return slot.as_ptr();
                }
            }
        }
        match glanced {
            true => self.refill_upper(thread, heap, size, upper),
            false => self.malloc_upper_slow(thread, size),
        }
    }

    #[cold]
    #[inline(never)]
    fn malloc_upper_slow(&self, thread: &ThreadCache, size: usize) -> *mut u8 {
        if let Some(hardened) = self.hard.thread(thread) {
            return self.malloc_hardened_upper(size, thread, hardened);
        }
        if size <= SMALL_MAX {
            return self.malloc_class(thread, class_of(size), size, 1);
        }
        self.malloc_big_anew(thread, size).0
    }

    /// A slot of `class`, for `size` bytes at a multiple of `align`.
    fn malloc_class(
        &self,
        thread: &ThreadCache,
        class: ClassId,
        size: usize,
        align: usize,
    ) -> *mut u8 {
        let slot = match thread.caches.get(class.index()) {
            Some(cache) => cache.take(),
            None => heap_at_hand(thread).and_then(|heap| heap.upper_cache(class).take()),
        };
        slot.unwrap_or_else(|| self.refill_cold(class, size, align, thread))
    }

    #[cold]
    #[inline(never)]
    fn refill_cold(
        &self,
        class: ClassId,
        size: usize,
        align: usize,
        thread: &ThreadCache,
    ) -> *mut u8 {
        self.refill(class, size, align, thread)
    }

    /// The cache is used up: another word of slots is cached, most often of the same slab. What follows otherwise comes
    /// last, so that no register is saved for it.
    #[inline(always)]
    fn refill(&self, class: ClassId, size: usize, align: usize, thread: &ThreadCache) -> *mut u8 {
        let mut outcome = NextWord::Elsewhere;
        if let Some(heap) = heap_at_hand(thread) {
            mark_alone!(thread => busy);
            if busy.is_some() {
                let cache = cache_of(thread, heap, class);
                outcome = heap.on(&self.backend).next_word(class, cache);
            }
        }
        match outcome {
            NextWord::Taken(slot) => slot.as_ptr(),
            NextWord::UsedUp => self.refill_from_next(class, size, align, thread),
            NextWord::RoundOver => self.refill_after_round(class, size, align, thread),
            NextWord::Elsewhere => self.malloc_from_next_slab(class, size, align, thread),
        }
    }

    /// As `refill`, where the active slab is used up.
    #[inline(never)]
    fn refill_from_next(
        &self,
        class: ClassId,
        size: usize,
        align: usize,
        thread: &ThreadCache,
    ) -> *mut u8 {
        self.refill_by(HeapRef::refill_from_next, class, size, align, thread)
    }

    /// As `refill`, where all words of the active slab had their turn and another slab waits.
    #[inline(never)]
    fn refill_after_round(
        &self,
        class: ClassId,
        size: usize,
        align: usize,
        thread: &ThreadCache,
    ) -> *mut u8 {
        self.refill_by(HeapRef::refill_after_round, class, size, align, thread)
    }

    /// As `refill`, by `refill` of the heap, which works on lists.
    #[inline(always)]
    fn refill_by<'a>(
        &'a self,
        refill: impl FnOnce(HeapRef<'a, O>, ClassId, &SlotCache) -> Option<NonNull<u8>>,
        class: ClassId,
        size: usize,
        align: usize,
        thread: &'a ThreadCache,
    ) -> *mut u8 {
        if let Some(heap) = heap_at_hand(thread) {
            mark_alone!(thread => busy);
            if let Some(_inside) = come_in_alone(heap, &busy) {
                let cache = cache_of(thread, heap, class);
                if let Some(slot) = refill(heap.on(&self.backend), class, cache) {
                    return slot.as_ptr();
                }
            }
        }
        self.malloc_from_next_slab(class, size, align, thread)
    }

    /// As `refill`, where another slab is to be taken from.
    #[cold]
    #[inline(never)]
    fn malloc_from_next_slab(
        &self,
        class: ClassId,
        size: usize,
        align: usize,
        thread: &ThreadCache,
    ) -> *mut u8 {
        match self.caller(thread) {
            Caller::Nested => return self.malloc_nested(size, align),
            Caller::Hardened => return self.malloc_hardened(thread, size, align),
            Caller::Heap(heap) => {
                mark_busy!(thread => busy);
                if let Some(_inside) = heap.come_in(busy) {
                    let cache = cache_of(thread, heap, class);
                    if heap.is_clock_due() && self.glance_at_clock(heap) {
                        if let Some(slot) = heap.on(&self.backend).refill_short(class, cache) {
                            return slot.as_ptr();
                        }
                    }
                }
            }
            Caller::Bare => {
                if let Some(slot) = self.malloc_by_guest(thread, size, align) {
                    return slot;
                }
            }
        }
        self.heed_soft_limit(thread);
        self.with_reclaim(thread, |_, heap| self.take_slot(heap, class, (size, align)))
            .unwrap_or_else(|| self.exhausted())
    }

    /// A slot of `class` for `size` bytes at a multiple of `align`, or in its place a block that is sampled. The cache of
    /// the class is used up.
    #[inline(always)]
    fn take_slot(
        &self,
        heap: HeapRef<O>,
        class: ClassId,
        (size, align): (usize, usize),
    ) -> Result<Option<*mut u8>, Misuse> {
        // The refill comes first: it is its slots that make a sample due, and so each class has its share.
        let slot = heap.refill(class)?;
        let sampled = slot.and_then(|_| self.sample(&heap, size, align));
        if let (Some(slot), Some(_)) = (slot, sampled) {
            put_back(heap.cache(class), slot);
        }
        Ok(sampled.or(slot))
    }

    /// A refill is to look at the clock: true if nothing follows from that, as most often. The heap's thread is inside.
    #[inline(always)]
    fn glance_at_clock(&self, heap: &Heap) -> bool {
        !self.has_forked() && !self.wants_background() && heap.on(&self.backend).glance_at_clock()
    }

    /// As [`Allocator::glance_at_clock`], of a thread outside.
    #[cold]
    #[inline(never)]
    fn come_in_and_glance(&self, busy: &Busy, heap: &Heap) -> bool {
        let inside = heap.come_in(busy);
        inside.is_some() && self.glance_at_clock(heap)
    }

    /// A page of its own for the one allocation in so many.
    fn sample(&self, heap: &Heap, size: usize, align: usize) -> Option<*mut u8> {
        let os = &self.backend.os;
        if !heap.is_due(&self.backend.options, || os.random()) {
            return None;
        }
        let address = self.samples.take(os, size, align, heap.arena_word())?;
        heap.was_sampled();
        Some(address as *mut u8)
    }

    /// A span or a large block, and whether it is all zero.
    fn malloc_big(&self, thread: &ThreadCache, size: usize) -> (*mut u8, bool) {
        let again = match self.caller(thread) {
            Caller::Heap(heap) if size > SPAN_MAX => self.malloc_large_again(thread, heap, size),
            Caller::Heap(heap) => {
                mark_busy!(thread => busy);
                let kept = heap
                    .take_active_span(size)
                    .or_else(|| self.take_kept_span(busy, heap, size));
                kept.map(|slab| slab.base() as *mut u8)
            }
            Caller::Nested | Caller::Hardened | Caller::Bare => None,
        };
        match again {
            Some(block) => (block, false),
            None => self.malloc_big_anew(thread, size),
        }
    }

    /// As [`Allocator::malloc_big`], where what the thread's heap keeps was looked through in vain, or it has none.
    fn malloc_big_anew(&self, thread: &ThreadCache, size: usize) -> (*mut u8, bool) {
        match self.caller(thread) {
            Caller::Nested => return (self.malloc_nested(size, 1), true),
            Caller::Hardened => return self.malloc_hardened_fresh(thread, size, 1),
            Caller::Heap(_) | Caller::Bare => {}
        }
        if size > SPAN_MAX {
            return self.malloc_large(thread, size, PAGE);
        }
        let span = self.with_reclaim(thread, |_, heap| heap.take_span(pages_for(size)));
        match span {
            Some((slab, fresh)) => (slab.base() as *mut u8, fresh),
            None => (self.exhausted(), false),
        }
    }

    /// The common half of [`Allocator::malloc_large`]: a block that was freed. `None` where there is none, or where
    /// more is to be done.
    #[inline]
    fn malloc_large_again(
        &self,
        thread: &ThreadCache,
        heap: &Heap,
        size: usize,
    ) -> Option<*mut u8> {
        let backend = &self.backend;
        let waits = self.any_put_off.load(Relaxed) != 0 || backend.meta.budget.is_alarmed();
        if size >= ADDRESSES || waits || self.has_forked() || heap.on(backend).may_profile_large() {
            return None;
        }
        mark_busy!(thread);
        let block = backend.large.map_again(&backend.meta, size)?;
        heap.note_taken(LARGE, block.bytes);
        Some(block.address as *mut u8)
    }

    fn malloc_large(&self, thread: &ThreadCache, size: usize, align: usize) -> (*mut u8, bool) {
        let block = if size >= ADDRESSES || align >= ADDRESSES {
            None
        } else {
            self.heed_soft_limit(thread);
            self.free_put_off(thread);
            self.with_reclaim(thread, |_, heap| {
                let mapped = self.backend.map_large(size, align);
                if let Some((block, _)) = mapped {
                    heap.note_taken(LARGE, block.bytes);
                    heap.profile_large(block);
                }
                Ok(mapped)
            })
        };
        match block {
            Some((block, fresh)) => (block.address as *mut u8, fresh),
            None => (self.exhausted(), false),
        }
    }

    /// `size` zero bytes for whoever interrupts a slow path of the thread's own, or is called by one.
    #[cold]
    #[inline(never)]
    pub(crate) fn malloc_nested(&self, size: usize, align: usize) -> *mut u8 {
        let block = self.nested.take(&self.backend.os, size, align);
        block.unwrap_or_else(|| self.exhausted())
    }

    /// Where the heap grew above its soft limit since the last time: gives back all that is kept.
    #[inline]
    fn heed_soft_limit(&self, thread: &ThreadCache) {
        if self.backend.meta.budget.take_alarm() {
            self.reclaim(thread);
        }
    }

    #[cold]
    pub(crate) fn exhausted(&self) -> *mut u8 {
        self.backend.os.exhausted();
        ptr::null_mut()
    }

    /// `size` bytes at a multiple of `align`, a power of two. Null if memory has run out.
    pub fn aligned(&self, thread: &ThreadCache, size: usize, align: usize) -> *mut u8 {
        self.aligned_or_fresh(thread, size, align).0
    }

    /// As [`Allocator::aligned`], all zero.
    pub fn aligned_zeroed(&self, thread: &ThreadCache, size: usize, align: usize) -> *mut u8 {
        let block = self.aligned_or_fresh(thread, size, align);
        // SAFETY: the block has at least `size` bytes.
        unsafe { self.zeroed_large(block, size) }
    }

    /// The block, and whether it is all zero.
    fn aligned_or_fresh(&self, thread: &ThreadCache, size: usize, align: usize) -> (*mut u8, bool) {
        match self.caller(thread) {
            Caller::Nested => return (self.malloc_nested(size, align), true),
            Caller::Hardened => return self.malloc_hardened_fresh(thread, size, align),
            Caller::Heap(_) | Caller::Bare => {}
        }
        match fit(size, align) {
            Fit::Slot(class) => (self.malloc_class(thread, class, size, align), false),
            Fit::Large => self.malloc_large(thread, size.max(1), align.max(PAGE)),
            Fit::Span if align > PAGE => self.malloc_aligned_span(thread, size, align),
            Fit::Span => self.malloc_big(thread, size),
        }
    }

    fn malloc_aligned_span(
        &self,
        thread: &ThreadCache,
        size: usize,
        align: usize,
    ) -> (*mut u8, bool) {
        let span = self.with_reclaim(thread, |_, heap| {
            heap.take_aligned_span(pages_for(size.max(1)), align / PAGE)
        });
        match span {
            Some((slab, fresh)) => (slab.base() as *mut u8, fresh),
            None => (self.exhausted(), false),
        }
    }

    /// `count` times `size` zero bytes. Null if that overflows or memory has run out. Pages that the kernel gave and
    /// nobody touched are not cleared again.
    #[inline(always)]
    pub fn calloc(&self, thread: impl Thread, count: usize, size: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(size) else {
            return self.exhausted();
        };
        match self.take_cached_slot(thread, bytes) {
            // SAFETY: the slot has at least `bytes` bytes.
            Some(slot) => unsafe { zeroed((slot, false), bytes) },
            None => self.calloc_slow(thread.block(), bytes),
        }
    }

    #[inline(never)]
    fn calloc_slow(&self, thread: &ThreadCache, bytes: usize) -> *mut u8 {
        if let Some(hardened) = self.hard.thread(thread) {
            if let Some(block) = self.calloc_hardened(bytes, thread, hardened) {
                return block;
            }
        }
        let block = if bytes <= SMALL_MAX {
            // The cache was found empty.
            let block = match cache_offset(bytes) {
                Some(offset) => self.malloc_slow(bytes, thread, offset),
                None => self.malloc_upper(bytes, thread),
            };
            (block, self.is_first_use(thread, block, bytes))
        } else {
            self.malloc_big(thread, bytes)
        };
        // SAFETY: the block has at least `bytes` bytes.
        unsafe { self.zeroed_large(block, bytes) }
    }

    /// Whether a slot that malloc gave for `bytes` bytes just now is all zero, since nobody had it before. False also
    /// where that is not known. If a signal handler has taken slots since, it may have ended what is known.
    #[inline]
    fn is_first_use(&self, thread: &ThreadCache, block: *mut u8, bytes: usize) -> bool {
        let heap = heap_at_hand(thread).filter(|_| bytes > LOCAL_MAX);
        // Without a heap there may be no table yet.
        heap.is_some_and(|heap| {
            heap.on(&self.backend)
                .is_first_use(class_of(bytes), block.addr())
        })
    }

    /// As [`zeroed`]. The pages of a large block that was hardly used are dropped: cleared, they would all be
    /// resident.
    ///
    /// # Safety
    /// As for [`zeroed`]: the block is live and has `bytes` bytes.
    unsafe fn zeroed_large(&self, (block, fresh): (*mut u8, bool), bytes: usize) -> *mut u8 {
        let os = &self.backend.os;
        let pages = align_down(bytes, os.page_size());
        let start = NonNull::new(block).filter(|_| !fresh && bytes >= DROPPED_MIN);
        // SAFETY: a new block of more than `SPAN_MAX` bytes is a mapping of whole pages, and its bytes are dead.
        let dropped = start.is_some_and(|start| unsafe {
            is_mostly_zero(block, bytes) && os.discard(start, pages)
        });
        if !dropped {
            // SAFETY: the caller guarantees that the block is live and has `bytes` bytes.
            return unsafe { zeroed((block, fresh), bytes) };
        }
        // SAFETY: the caller guarantees a live block of `bytes` bytes, and this is its end after `pages`.
        unsafe { ptr::write_bytes(block.add(pages), 0, bytes - pages) };
        block
    }

    /// Number of broken invariants, while no other thread is at work. The largest number in a signal handler that
    /// interrupted a slow path, where nothing can be looked at.
    pub fn validate(&self, thread: &ThreadCache) -> usize {
        let backend = &self.backend;
        let wrong = self.enter(thread, |_| {
            if !self.is_started() {
                return 0;
            }
            backend.pages.validate()
                + backend.large.validate()
                + backend.profile.validate(&backend.meta, backend.table())
                + backend.validate_heaps()
        });
        wrong.unwrap_or(usize::MAX)
    }
}

/// Clears the first `bytes` bytes of a new block, unless it is null or all zero already.
///
/// # Safety
/// The block is live and has as many.
#[inline]
unsafe fn zeroed((block, fresh): (*mut u8, bool), bytes: usize) -> *mut u8 {
    if !fresh && !block.is_null() {
        // SAFETY: the caller guarantees that the block is live and has `bytes` bytes.
        unsafe { ptr::write_bytes(block, 0, bytes) };
    }
    block
}

/// Whether most of some pages of a block, far apart, are all zero. A page that was never touched costs a look no
/// memory.
///
/// # Safety
/// The block begins on a page and has `bytes` bytes, at least [`DROPPED_MIN`].
unsafe fn is_mostly_zero(block: *const u8, bytes: usize) -> bool {
    let is_zero = |look: usize| {
        let page = bytes / PAGE * (2 * look + 1) / (2 * LOOKED_AT);
        // SAFETY: the range is a whole page of the block, which the caller guarantees to be live.
        let words =
            unsafe { core::slice::from_raw_parts(block.add(page * PAGE).cast::<u64>(), PAGE / 8) };
        words.iter().all(|&word| word == 0)
    };
    (0..LOOKED_AT).filter(|&look| is_zero(look)).count() > LOOKED_AT / 2
}

/// Puts a slot back into the cache that it was taken from just now.
fn put_back(cache: &SlotCache, slot: *mut u8) {
    let slot = bit_of((slot.addr() - cache.base.get().addr()) / cache.size.get());
    let bits = cache.hide();
    // SAFETY: the word that the slot came from, in a header that is never unmapped.
    xor_owned(unsafe { &*cache.word.get() }, slot);
    cache.show(bits | slot);
}

/// How many bytes a block of `usable` gets that is to have `size`. A block that grows by little gets a quarter more
/// than it had, but no mapping of its own for that.
fn with_room(usable: usize, size: usize) -> usize {
    let roomy = usable + usable / 4;
    if size <= usable || size > roomy || size > SPAN_MAX {
        return size;
    }
    roomy.min(SPAN_MAX)
}
