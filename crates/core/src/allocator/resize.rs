//! realloc and usable size.

use super::{cache_of, heap_at_hand, with_room, Allocator, Live, Target};
use crate::class::{bin_of, bin_pages, fit, slot_at, ClassId, Fit, PAIR, SPAN};
use crate::heap::{self, heap_of, Heap, LARGE};
use crate::large::Block;
use crate::misuse::Call;
use crate::os::{NextMalloc, Os};
use crate::owner::Owner;
use crate::slab::{SlabPtr, SIZE_AMBIGUOUS};
use crate::sync::Ordering::Relaxed;
use crate::tls::{mark_busy, ThreadCache};
use crate::units::{align_down, pages_for, Slot, PAGE};
use crate::units::{REQUEST_MAX, SMALL_MAX, SPAN_MAX};
use core::ptr;

/// The largest block that is never too roomy, in bytes: a move would save little.
const ROOMY_MIN: usize = 64;

/// Whether a block of `usable` bytes that is to have `size` should be a smaller one: it needs less than half.
#[inline(always)]
fn is_too_roomy(usable: usize, size: usize) -> bool {
    size < usable / 2 && usable > ROOMY_MIN
}

/// The next slot of `class` that is cached. The few instructions in which a signal handler must not allocate
/// stay in a function of their own.
#[inline(never)]
fn take_cached(thread: &ThreadCache, heap: &Heap, class: ClassId) -> Option<*mut u8> {
    cache_of(thread, heap, class).take()
}

impl<O: Os> Allocator<O> {
    /// Resizes a block, at the same address where it has room or pages are free after it, and shrinks to no less than
    /// half. Null where memory has run out. The block is then as it was.
    #[inline(always)]
    pub fn realloc(&self, thread: &ThreadCache, block: *mut u8, size: usize) -> *mut u8 {
        match self.stays(thread, block, size) {
            true => block,
            false => self.realloc_own(thread, block, size),
        }
    }

    /// Whether `block` is a live one in a slab of slots that the thread owns, or owned last, has room for `size` bytes and
    /// not twice as much, and nothing is to be noted: as most often where a text grows. Fifty instructions, without a
    /// call.
    #[inline(always)]
    fn stays(&self, thread: &ThreadCache, block: *mut u8, size: usize) -> bool {
        let Some(slab) = self.backend.pages.hot.slab_at(block.addr()) else {
            return false;
        };
        let (owner, me) = (slab.owner.load(Relaxed), thread.me.get());
        // A thread without an owner word would take the bare mark of a full slab, which is no thread's, for its own.
        if owner.without_full() != me || me.is_none() {
            return false;
        }
        let (slot, exact) = slot_at(
            block.addr().wrapping_sub(slab.base()),
            slab.recip.load(Relaxed),
        );
        let (usable, class) = (slab.size(), slab.class());
        exact
            && size <= usable
            && size >= usable / 2
            && class != PAIR
            && class != SPAN
            && slab.is_live_in_one(slot)
            && slab.has(SIZE_AMBIGUOUS)
    }

    /// As [`Allocator::realloc`], where that is not as simple.
    #[inline(never)]
    fn realloc_own(&self, thread: &ThreadCache, block: *mut u8, size: usize) -> *mut u8 {
        if let Some(slab) = self.own_slab(thread, block) {
            let usable = slab.size();
            // A quarter of a span's pages or more would be given back.
            let wasteful = is_too_roomy(usable, size)
                || slab.is_span()
                    && size <= align_down(usable - usable / 4, PAGE)
                    && usable > bin_pages(0) * PAGE;
            if size <= usable && !wasteful {
                if !slab.has(SIZE_AMBIGUOUS) {
                    self.note_room(Live::Slot(slab), size);
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
    fn realloc_span(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        slab: SlabPtr,
        size: usize,
    ) -> *mut u8 {
        if slab.is_remote(Slot::FIRST) || self.notice_fork(thread) {
            return self.realloc_slow(thread, block, size);
        }
        if !self.resize_span(thread, slab, size) {
            return self.realloc_by_copy(thread, block, slab.size(), size, 1);
        }
        self.note_room(Live::Slot(slab), size);
        block
    }

    /// The slab of `block` if that is a live one in a slab of the thread's own, or in a full one of slots that it was
    /// the last to own. Twenty-odd instructions.
    #[inline(always)]
    fn own_slab(&self, thread: &ThreadCache, block: *mut u8) -> Option<SlabPtr> {
        let slab = self.backend.pages.hot.slab_at(block.addr())?;
        let owner = slab.owner.load(Relaxed);
        if owner.without_full() != thread.me.get() {
            return None;
        }
        let (slot, exact) = slot_at(block.addr() - slab.base(), slab.recip.load(Relaxed));
        // The bare mark is no thread's, and a thread without an owner word (hardened, late) would take it for its own.
        // A collection moves a bit from `remote` to `free`, so `remote` is read first.
        let full = owner.is_full();
        if full && (owner == Owner::FULL || slab.is_span() || !exact || slab.is_remote(slot)) {
            return None;
        }
        let free = slab.free_word_at(slot).load(Relaxed);
        (exact && free & slot.bit() == 0).then_some(slab)
    }

    #[inline(never)]
    fn realloc_slow(&self, thread: &ThreadCache, block: *mut u8, size: usize) -> *mut u8 {
        if self.hard.is_on()
            && self
                .hard
                .on(&self.backend)
                .grow_fast(thread, (block.addr(), size))
        {
            return block;
        }
        if block.is_null() {
            return self.malloc(thread, size);
        }
        match self.resolve(thread, block.addr(), Call::Realloc) {
            Target::Live(live) => self.realloc_live(thread, block, live, size),
            target => self.realloc_of_none(thread, block, size, target),
        }
    }

    /// Resizes a live block.
    pub(crate) fn realloc_live(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        live: Live,
        size: usize,
    ) -> *mut u8 {
        match live {
            Live::Hardened(live) => return self.realloc_hardened(thread, block, live, size),
            Live::Sampled(_) | Live::Nested(_) => {
                return self.realloc_sampled(thread, block, live, size)
            }
            Live::Slot(_) | Live::Large(_) => {}
        }
        if let Some(moved) = self.move_down(thread, block, live, (size, 1)) {
            return moved;
        }
        let usable = live.bytes();
        let stays = match live {
            Live::Large(large) => return self.realloc_large(thread, large, size, 1),
            Live::Slot(slab) if slab.is_span() => self.resize_span(thread, slab, size),
            _ => size <= usable,
        };
        if stays {
            self.note_room(live, size);
            return block;
        }
        self.realloc_by_copy(thread, block, usable, size, 1)
    }

    /// What is to be resized is no live block, or is not known to be one.
    #[cold]
    pub(crate) fn realloc_of_none(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        size: usize,
        target: Target,
    ) -> *mut u8 {
        if let Target::Unsure = target {
            return self.exhausted();
        }
        match self.next_for(thread, target, block.addr(), Call::Realloc) {
            // SAFETY: the caller's, who says that the pointer is some malloc's block.
            Some(next) => unsafe { (next.realloc)(block.cast(), size).cast() },
            None => {
                self.backend.os.invalid();
                ptr::null_mut()
            }
        }
    }

    /// The malloc that knows more of `addr`, at which no block of ours lives. A misuse is reported.
    pub(crate) fn next_for(
        &self,
        thread: &ThreadCache,
        target: Target,
        addr: usize,
        call: Call,
    ) -> Option<NextMalloc> {
        match target {
            Target::Foreign => return self.next_malloc(thread, addr, call),
            Target::Wrong(misuse) => self.misuse(&misuse),
            Target::Live(_) | Target::Unsure => {}
        }
        None
    }

    /// A block stays in place for `size` bytes. Notes if no such block would be given for a request of this size, so
    /// that a free with that size is accepted (see `sized_free`).
    #[inline]
    pub(crate) fn note_room(&self, live: Live, size: usize) {
        match live {
            Live::Slot(slab) if slab.is_span() => {
                if size <= SMALL_MAX || !heap::may_serve(slab.pages(), pages_for(size)) {
                    slab.set_flags(SIZE_AMBIGUOUS);
                }
            }
            Live::Slot(slab) => {
                if !slab.serves(size, 1) {
                    slab.set_flags(SIZE_AMBIGUOUS);
                }
            }
            Live::Large(_) => self.size_ambiguous.store(1, Relaxed),
            Live::Hardened(_) | Live::Sampled(_) | Live::Nested(_) => {}
        }
    }

    /// Moves a block that is to shrink below half to where `size` bytes at a multiple of `align` fit. `None`: it
    /// stays, since it is not too roomy, blocks like it grow back, or no such block is to be had at once.
    pub(crate) fn move_down(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        live: Live,
        (size, align): (usize, usize),
    ) -> Option<*mut u8> {
        let fits = match live {
            Live::Slot(slab) => !slab.is_span() || size <= SMALL_MAX,
            Live::Large(_) => size <= SPAN_MAX,
            Live::Hardened(_) | Live::Sampled(_) | Live::Nested(_) => false,
        };
        if !fits || !is_too_roomy(live.bytes(), size) {
            return None;
        }
        let heap = heap_at_hand(thread).filter(|heap| heap.shrunk.moves())?;
        let moved = self.take_fast(thread, size, align)?;
        heap.shrunk.moved_to(moved.addr());
        Some(self.move_to(thread, block, size, moved))
    }

    /// A slot or span for `size` bytes at a multiple of `align`, without giving anything back for it. `None` if memory
    /// has run out, or a mapping would be needed. The thread has a heap.
    fn take_fast(&self, thread: &ThreadCache, size: usize, align: usize) -> Option<*mut u8> {
        if let (Fit::Slot(class), Some(heap)) = (fit(size, align), heap_of(thread)) {
            if let Some(slot) = take_cached(thread, heap, class) {
                return Some(slot);
            }
        }
        self.with_heap(thread, |_, heap| match fit(size, align) {
            Fit::Slot(class) => heap.refill(class),
            Fit::Large => Ok(None),
            Fit::Span => {
                let pages = pages_for(size.max(1));
                let span = if align > PAGE {
                    heap.take_aligned_span(pages, align / PAGE)?
                } else {
                    heap.take_span(pages)?
                };
                Ok(span.map(|(slab, _)| slab.base() as *mut u8))
            }
        })
    }

    /// As [`Allocator::note_room`], of a block that is at a multiple of `align`, and is to be freed as one that
    /// was asked for with it.
    pub(crate) fn note_aligned_room(&self, live: Live, size: usize, align: usize) {
        let Live::Slot(slab) = live else {
            return self.note_room(live, size);
        };
        let as_asked = match fit(size, align) {
            Fit::Slot(_) => slab.serves(size, align),
            Fit::Span => slab.is_span() && heap::may_serve(slab.pages(), pages_for(size)),
            Fit::Large => false,
        };
        if !as_asked {
            slab.set_flags(SIZE_AMBIGUOUS);
        }
    }

    /// Moves a block to a multiple of `align`. What grows by little is likely to grow again: it gets a quarter
    /// more than it had, where there is memory for it.
    fn realloc_by_copy(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        usable: usize,
        size: usize,
        align: usize,
    ) -> *mut u8 {
        if let Some(heap) = heap_of(thread) {
            heap.shrunk.grows(block.addr());
        }
        let roomy = with_room(usable, size);
        let mut moved = self.aligned(thread, roomy, align);
        if moved.is_null() && roomy > size {
            moved = self.aligned(thread, size, align);
        } else if roomy > size {
            if let Target::Live(live) = self.resolve(thread, moved.addr(), Call::Realloc) {
                self.note_aligned_room(live, size, align);
            }
        }
        self.move_to(thread, block, usable.min(size), moved)
    }

    /// Copies `bytes` of a block into a new one and gives the old one back, unless there is no new one.
    pub(crate) fn move_to(
        &self,
        thread: &ThreadCache,
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

    /// Resizes a large block that is at a multiple of `align`, at most a page: mappings move by whole pages.
    pub(crate) fn realloc_large(
        &self,
        thread: &ThreadCache,
        large: Block,
        size: usize,
        align: usize,
    ) -> *mut u8 {
        let block = large.address as *mut u8;
        // A handler that interrupted a slow path may not ask for the lock.
        let is_barred = thread.busy.get() != 0;
        if is_barred && size <= large.bytes {
            self.note_room(Live::Large(large), size);
            return block;
        }
        if is_barred || size > REQUEST_MAX {
            return self.exhausted();
        }
        let owner = heap_of(thread).map_or(Owner::NONE, Heap::arena_word);
        let remap = || {
            mark_busy!(thread);
            let backend = &self.backend;
            let taken = backend.profile.taken(&backend.meta);
            let resized = backend
                .large
                .remap(backend.supply(), large, size.max(1), owner)?;
            self.profile_resized(thread, large, resized, taken);
            Some(resized)
        };
        if let Some(resized) = remap() {
            return resized.address as *mut u8;
        }
        if size <= large.bytes {
            self.note_room(Live::Large(large), size);
            return block;
        }
        // The kernel moves no block of several mappings, though there is memory.
        if let Some(moved) = self.copy_large(thread, large, size, owner) {
            return moved;
        }
        // Without room for a copy beside the block, room for it to grow may be had by giving back.
        if !self.reclaim_for_more(thread) {
            return self.exhausted();
        }
        match remap() {
            Some(resized) => resized.address as *mut u8,
            None => self.realloc_by_copy(thread, block, large.bytes, size, align),
        }
    }

    /// A large block that grew or moved is one more allocation to the heap profile. `taken` samples had been taken before: at
    /// its old place another thread's block may lie by now.
    fn profile_resized(&self, thread: &ThreadCache, old: Block, new: Block, taken: u64) {
        let backend = &self.backend;
        if new.address == old.address && new.bytes <= old.bytes {
            return;
        }
        let profile = &backend.profile;
        profile.end_large_up_to(&backend.meta, old.address, taken);
        match heap_of(thread) {
            Some(heap) => heap.on(backend).profile_large(new),
            None => backend.profile.end_large(&backend.meta, new.address),
        }
    }

    /// Copies a large block into a larger one of the first-class heap `owner` (`Owner::NONE`: of none), if that is to be had at
    /// once. Pages of it that were never written to are left so in the copy.
    fn copy_large(
        &self,
        thread: &ThreadCache,
        large: Block,
        size: usize,
        owner: Owner,
    ) -> Option<*mut u8> {
        let backend = &self.backend;
        let (moved, fresh) = {
            mark_busy!(thread);
            let (moved, fresh) = backend.map_large(size, PAGE)?;
            if !owner.is_none() {
                backend.large.set_owner(moved.address, owner);
            }
            if let Some(heap) = heap_of(thread) {
                heap.note_taken(LARGE, moved.bytes);
                heap.on(backend).profile_large(moved);
            }
            (moved, fresh)
        };
        let (from, to) = (large.address as *const u8, moved.address as *mut u8);
        // SAFETY: both are live blocks apart from each other, of whole pages, the new one the larger.
        unsafe {
            if fresh {
                copy_used(from, to, large.bytes);
            } else {
                ptr::copy_nonoverlapping(from, to, large.bytes);
            }
        }
        self.free(thread, large.address as *mut u8);
        Some(to)
    }

    /// Resizes a live block at its place, which has no say in its alignment. Returns whether it could.
    pub(crate) fn resize_in_place(&self, thread: &ThreadCache, live: Live, size: usize) -> bool {
        match live {
            Live::Slot(slab) if slab.is_span() => self.resize_span(thread, slab, size),
            // No block moves to shrink.
            Live::Large(large) if size <= large.bytes => {
                !self.realloc_large(thread, large, size, 1).is_null()
            }
            Live::Large(large) if size <= REQUEST_MAX && thread.busy.get() == 0 => {
                mark_busy!(thread);
                let backend = &self.backend;
                let taken = backend.profile.taken(&backend.meta);
                let grown = backend.large.expand(backend.supply(), large, size);
                if grown {
                    let bytes = backend.meta.os_pages(size);
                    self.profile_resized(thread, large, Block { bytes, ..large }, taken);
                }
                grown
            }
            _ => size <= live.bytes(),
        }
    }

    /// Resizes a live span in place, if it is the thread's own and there is room. A span shrinks only to
    /// another bin's size, so that sizes that waver cost nothing.
    pub(crate) fn resize_span(&self, thread: &ThreadCache, slab: SlabPtr, size: usize) -> bool {
        let fits = size <= slab.size();
        let mine = slab.owner.load(Relaxed).is_of(thread.me.get());
        let Some(heap) = heap_at_hand(thread).filter(|_| mine && size <= SPAN_MAX) else {
            return fits;
        };
        let (pages, wanted) = (slab.pages(), pages_for(size.max(1)));
        let rounded = bin_pages(bin_of(wanted));
        mark_busy!(thread => busy);
        let Some(_inside) = heap.come_in(busy) else {
            return fits;
        };
        heap.retire_span(slab);
        let old = slab.size();
        if rounded < pages {
            self.backend.pages.shorten(slab, rounded);
        } else if !fits {
            let roomy = bin_pages(bin_of(pages_for(with_room(old, size))));
            let extend = |to: usize| self.backend.pages.extend(slab, to - pages);
            if !extend(roomy) && !extend(rounded) && !extend(wanted) {
                return false;
            }
        }
        heap.on(&self.backend).span_resized(old, slab.size());
        if slab.size() > old {
            heap.on(&self.backend).profile_grown(slab);
        }
        true
    }

    /// Bytes that may be used in a live block. 0 for null.
    pub fn usable_size(&self, thread: &ThreadCache, block: *const u8) -> usize {
        if block.is_null() {
            return 0;
        }
        let call = Call::UsableSize;
        match self.resolve(thread, block.addr(), call) {
            Target::Live(live) => live.bytes(),
            target => self
                .next_for(thread, target, block.addr(), call)
                .map_or(0, |next| {
                    // SAFETY: the caller's, who says that the pointer is some malloc's block.
                    unsafe { (next.usable_size)(block.cast_mut().cast()) }
                }),
        }
    }

    /// As [`Allocator::usable_size`]. 0 for what is nothing of ours at all.
    pub fn usable_size_if_ours(&self, thread: &ThreadCache, block: *const u8) -> usize {
        if block.is_null() {
            return 0;
        }
        match self.resolve(thread, block.addr(), Call::UsableSize) {
            Target::Live(live) => return live.bytes(),
            Target::Wrong(misuse) => self.misuse(&misuse),
            Target::Foreign | Target::Unsure => {}
        }
        0
    }
}

/// Copies `bytes` bytes, whole pages, to fresh pages: what is zero is there already.
///
/// # Safety
/// Both are valid for as many bytes and lie apart. Those at `to` are zero.
unsafe fn copy_used(from: *const u8, to: *mut u8, bytes: usize) {
    for at in (0..bytes).step_by(PAGE) {
        // SAFETY: within the caller's bytes, at multiples of a page.
        unsafe {
            let words = core::slice::from_raw_parts(from.add(at).cast::<u64>(), PAGE / 8);
            if words.iter().any(|&word| word != 0) {
                ptr::copy_nonoverlapping(from.add(at), to.add(at), PAGE);
            }
        }
    }
}
