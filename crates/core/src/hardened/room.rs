//! What room a block gets: a slot of some class, a span, or pages up to a guard page.
//!
//! Works with sizes alone. Looks at no byte of a block, and does not know who wants it.

use super::live::Live;
use super::Hardened;
use crate::class::{aligned_class, class_of, shared_pages, ClassId};
use crate::slab::{SlabPtr, SIZE_AMBIGUOUS};
use crate::units::{pages_for, MIN_ALIGN, PAGE, SPAN_MAX};

/// The largest block that gets a slot, in bytes: a larger one has pages of its own, and a guard page right behind.
pub(super) const SLOT_MAX: usize = 8 << 10;

impl Hardened {
    /// Bytes that a block of `size` bytes takes. One of whole pages, which is no slot, ends at its guard page: there
    /// is no room for a canary, and an overflow by one byte faults.
    #[inline]
    pub(super) fn need(&self, size: usize) -> usize {
        if self.ends_at_guard(size) {
            return size;
        }
        size.saturating_add(self.fixed().behind).max(1)
    }

    /// Whether a block of `size` bytes ends at its guard page.
    #[inline(always)]
    pub(super) fn ends_at_guard(&self, size: usize) -> bool {
        self.fixed().mitigations.guard && size > SLOT_MAX && size.is_multiple_of(PAGE)
    }

    /// Whether a block of `size` bytes may have room behind it.
    pub fn may_have_room(&self, size: usize) -> bool {
        !self.ends_at_guard(size)
    }

    /// Whether a new block of `size` bytes is all zero.
    pub fn is_clear(&self, size: usize) -> bool {
        self.fixed().mitigations.zero && size > SLOT_MAX
    }

    /// Whether a live block may have been asked for at a multiple of `align`: it lies where its size and `align` ask
    /// for. Of large blocks none is told from another.
    pub fn may_be_aligned(&self, live: Live, align: usize) -> bool {
        match live {
            Live::Slot(slab, _, size) if !slab.has(SIZE_AMBIGUOUS) => {
                match slot_class(self.need(size), align) {
                    Some(class) => !slab.is_span() && slab.class() == class,
                    None => slab.is_span(),
                }
            }
            _ => true,
        }
    }
}

/// The class of the slot for a block that needs `need` bytes at a multiple of `align`. `None` means it needs a span.
pub(super) fn slot_class(need: usize, align: usize) -> Option<ClassId> {
    match align {
        _ if need > SLOT_MAX || align > PAGE => None,
        0..=8 => Some(class_of(need)),
        9..=MIN_ALIGN => Some(class_of(need.max(MIN_ALIGN))),
        _ => aligned_class(need, align),
    }
}

/// Whether a block that needs `need` bytes would be given a slot of `slab`'s kind.
pub(super) fn fits_as_well(slab: SlabPtr, need: usize) -> bool {
    if slab.is_span() {
        let span = need > SLOT_MAX && need <= SPAN_MAX;
        let pages = pages_for(need);
        return span && (pages == slab.pages() || shared_pages(pages) == slab.pages());
    }
    need <= SLOT_MAX && class_of(need) == slab.class()
}
