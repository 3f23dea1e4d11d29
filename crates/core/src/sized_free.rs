//! What callers may ask and say of sizes: the usable size beforehand, a block with its size, more room at
//! the same place, another size at the same alignment, and a free that says the size.
//!
//! A free with a size is checked against the size class. Three things blur that. A block may be larger than its class
//! says, since spans and mappings are reused for somewhat smaller requests. That is bounded. Realloc leaves a block that
//! shrinks where it is. That is noted in the slab's header (`slab::SIZE_AMBIGUOUS`), whose blocks are from then on only
//! checked not to be smaller than is said. And a guest's block is of the class for a multiple of a cache line. In slabs
//! that have such blocks (`slab::LINED`) the class of the size is right, and so is that.

use crate::allocator::{Allocator, Caller, Live, Target};
use crate::class::{bin_of, bin_pages, cache_offset, class_at, fit, size_of_class, Fit};
use crate::heap::may_serve;
use crate::misuse::{Call, Misuse};
use crate::options::{self, Name};
use crate::os::Os;
use crate::slab::SIZE_AMBIGUOUS;
use crate::sync::Ordering::Relaxed;
use crate::tls::{Thread, ThreadCache};
use crate::units::{pages_for, MIN_ALIGN, PAGE, REQUEST_MAX};

/// Who says the size of a block that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The program's own words: C23's free_sized and its like.
    ByHand,
    /// The compiler, for C++'s delete: of the type that it sees.
    ByDelete,
}

impl<O: Os> Allocator<O> {
    /// Bytes that a block of `size` bytes at a multiple of `align` would have. 0 if there can be none. A guest's may have
    /// more.
    pub fn good_size(&self, size: usize, align: usize) -> usize {
        if self.is_exact() && size <= REQUEST_MAX {
            return size;
        }
        match fit(size, align) {
            Fit::Slot(class) => size_of_class(class),
            Fit::Span => bin_pages(bin_of(pages_for(size.max(1)))) * PAGE,
            Fit::Large if size > REQUEST_MAX => 0,
            Fit::Large => {
                let os_page = self.backend.os.page_size();
                size.max(1).checked_next_multiple_of(os_page).unwrap_or(0)
            }
        }
    }

    /// As [`Allocator::malloc`], and how many bytes may be used. 0 if it is null.
    pub fn malloc_at_least(&self, thread: &ThreadCache, size: usize) -> (*mut u8, usize) {
        if let Caller::Hardened = self.caller(thread) {
            // Known to the byte, and freed with any other size it would be a misuse.
            let block = self.malloc(thread, size);
            return (block, if block.is_null() { 0 } else { size });
        }
        // All of a slot is asked for, so that a sampled block has as many.
        let wanted = match fit(size, 1) {
            Fit::Slot(class) => size_of_class(class),
            _ => size,
        };
        let block = self.malloc(thread, wanted);
        let bytes = match fit(size, 1) {
            _ if block.is_null() => 0,
            Fit::Slot(_) => wanted,
            _ => self.usable_size(thread, block),
        };
        (block, bytes)
    }

    /// Makes a live block's usable size at least `size` without moving it. Returns whether it could. What is not a live
    /// block ends the program. Null cannot.
    pub fn try_expand(&self, thread: &ThreadCache, block: *mut u8, size: usize) -> bool {
        if block.is_null() {
            return false;
        }
        let call = Call::Realloc;
        match self.resolve(thread, block.addr(), call) {
            Target::Live(live) => size <= live.bytes() || self.resize_in_place(thread, live, size),
            target => {
                // Another malloc has no such question to be asked.
                let _ = self.next_for(thread, target, block.addr(), call);
                false
            }
        }
    }

    /// As [`Allocator::realloc`], at a multiple of `align`, a power of two, wherever the block was.
    pub fn realloc_aligned(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        size: usize,
        align: usize,
    ) -> *mut u8 {
        if block.is_null() {
            return self.aligned(thread, size, align);
        }
        if block.addr().is_multiple_of(align) && align <= MIN_ALIGN {
            return self.realloc(thread, block, size.max(align));
        }
        match self.resolve(thread, block.addr(), Call::Realloc) {
            Target::Live(live) => self.realloc_live_aligned(thread, block, live, (size, align)),
            target => self.realloc_of_none(thread, block, size, target),
        }
    }

    /// As [`Allocator::realloc_live`], at a multiple of `align`.
    pub(crate) fn realloc_live_aligned(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        live: Live,
        (size, align): (usize, usize),
    ) -> *mut u8 {
        let aligned = block.addr().is_multiple_of(align);
        if aligned && align <= MIN_ALIGN {
            return self.realloc_live(thread, block, live, size.max(align));
        }
        // A hardened block has the class that its size and alignment ask for.
        if aligned && matches!(live, Live::Slot(_) | Live::Large(_)) {
            if let Some(moved) = self.move_down(thread, block, live, (size, align)) {
                return moved;
            }
            if let (Live::Large(large), true) = (live, align <= PAGE) {
                return self.realloc_large(thread, large, size, align);
            }
            if self.resize_in_place(thread, live, size) {
                self.note_aligned_room(live, size, align);
                return block;
            }
        }
        let usable = live.bytes();
        let moved = self.aligned(thread, size, align);
        self.move_to(thread, block, usable.min(size), moved)
    }

    /// Gives back a block of which the caller says that it asked for `size` bytes. Null is ignored. A size that cannot
    /// be ends the program. Costs one comparison of classes more than [`Allocator::free`].
    #[inline(always)]
    pub fn free_sized(&self, thread: impl Thread, block: *mut u8, size: usize, said: Said) {
        let slab = self.backend.pages.hot.slab_at(block.addr());
        let (Some(offset), Some(slab)) = (cache_offset(size), slab) else {
            return self.free_sized_slow(block, size, said, thread.block());
        };
        let mine = slab.owner.load(Relaxed) == thread.block().me.get();
        if !mine || slab.class().byte() != class_at(offset).byte() {
            return self.free_sized_slow(block, size, said, thread.block());
        }
        self.free_own(thread.block(), slab, block);
    }

    #[cold]
    #[inline(never)]
    fn free_sized_slow(&self, block: *mut u8, size: usize, said: Said, thread: &ThreadCache) {
        self.free_sized_aligned(thread, block, size, 1, said);
    }

    /// Whether a size that cannot be ends the program (the option `sizes`).
    fn heeds_size(&self, said: Said) -> bool {
        match self.backend.options.get(Name::Sizes) {
            options::SIZES_AUTO => said == Said::ByHand || self.hard.is_on(),
            sizes => sizes == options::SIZES_CHECKED,
        }
    }

    /// As [`Allocator::free_sized`] for a block that was asked for with an alignment.
    pub fn free_sized_aligned(
        &self,
        thread: &ThreadCache,
        block: *mut u8,
        size: usize,
        align: usize,
        said: Said,
    ) {
        if block.is_null() {
            return;
        }
        if !self.heeds_size(said) {
            return self.free(thread, block);
        }
        match self.resolve(thread, block.addr(), Call::Free) {
            Target::Live(live)
                if !self.may_be(live, size, align)
                    || self.is_aligned_otherwise(live, block, align) =>
            {
                self.misuse(&Misuse::WrongSize {
                    addr: block.addr(),
                    said: size,
                    size: live.bytes(),
                })
            }
            // What is no live block, free finds again.
            _ => self.free(thread, block),
        }
    }

    /// Whether `block`, of which the size is known to the byte, was asked for with another alignment.
    fn is_aligned_otherwise(&self, live: Live, block: *mut u8, align: usize) -> bool {
        let misaligned = !block.addr().is_multiple_of(align);
        match live {
            Live::Slot(_) | Live::Large(_) => false,
            Live::Sampled(_) | Live::Nested(_) => misaligned,
            Live::Hardened(live) => misaligned || !self.hard.may_be_aligned(live, align),
        }
    }

    /// Whether a request for `size` bytes at a multiple of `align` may have got the live block.
    fn may_be(&self, live: Live, size: usize, align: usize) -> bool {
        let bytes = live.bytes();
        if size > bytes || !align.is_power_of_two() {
            return false;
        }
        let is_exact = size == bytes || size.max(align) == bytes;
        match (live, fit(size, align)) {
            (Live::Hardened(_), _) => is_exact,
            // `malloc_at_least` asks for all of a slot, and realloc for up to a quarter more.
            (Live::Sampled(_) | Live::Nested(_), fit) => {
                let slot = matches!(fit, Fit::Slot(class) if size_of_class(class) == bytes);
                is_exact || !self.is_exact() && (slot || bytes <= size + size / 4)
            }
            (Live::Slot(slab), _) if slab.has(SIZE_AMBIGUOUS) => true,
            (Live::Slot(slab), Fit::Slot(_)) => slab.serves(size, align),
            (Live::Slot(slab), Fit::Span) => {
                slab.is_span() && may_serve(slab.pages(), pages_for(size))
            }
            (Live::Slot(_), Fit::Large) => false,
            // Realloc leaves large blocks large, in as many OS pages as are needed. Of a kept mapping the whole is
            // given where less than a sixteenth would be left, and of a block at rest where less than an eighth would.
            (Live::Large(block), _) => {
                let least = size.max(1).next_multiple_of(self.backend.os.page_size());
                block.bytes <= least + least / 8 || self.size_ambiguous.load(Relaxed) != 0
            }
        }
    }
}
