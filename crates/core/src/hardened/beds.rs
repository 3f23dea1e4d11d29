//! Random places for large blocks between guard pages, apart from all else and from one another.
//!
//! ```text
//!   | free ........................ | gap | fence, block, fence | gap | fence, block, fence | ...    a bed
//!                         next one here ^                                                     random place
//! ```
//!
//! The system maps blocks beside libraries and one right below the other. So who knows one address knows all. In a bed
//! blocks lie one below the other with gaps of random width. No address comes again before the bed is used up. The next
//! bed then lies at another random place.

use crate::mutex::{Lock, Mutex, Registry};
use crate::os::Os;
use core::ops::Range;

/// Bytes of a bed, which is claimed and costs nothing.
const BED_BYTES: usize = 64 << 30;
/// The part of a bed that a block may take.
const BLOCK_PART: usize = 8;
/// The most pages of a gap.
const GAP_PAGES: usize = 64;
/// Beds that are tried for one block.
const BEDS_TRIED: usize = 3;

/// The most blocks that live apart from one another in a process of so many mappings at most: each is one. The program
/// needs the others. Further blocks lie where the system puts them, side by side, and are one mapping.
pub fn apart_most(mappings: usize) -> usize {
    (mappings / 8).min(1 << 13)
}

/// A block with its fences: so many bytes, of which byte `lead` is to be at a multiple of `align`.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub bytes: usize,
    pub lead: usize,
    pub align: usize,
}

/// What is left of the bed in use.
struct Bed {
    start: usize,
    end: usize,
}

impl Bed {
    /// A place for what is wanted, `gap` bytes below the last one.
    fn take(&mut self, wanted: Wanted, gap: usize) -> Option<usize> {
        let Wanted { bytes, lead, align } = wanted;
        let block = self.end.checked_sub(gap + bytes - lead)? / align * align;
        let place = block.checked_sub(lead)?;
        if self.start == 0 || place < self.start {
            return None;
        }
        self.end = place;
        Some(place)
    }

    /// As `take`, from a new bed, which `claim` finds, if this one is used up.
    fn place(
        &mut self,
        wanted: Wanted,
        gap: usize,
        claim: impl Fn() -> Option<usize>,
    ) -> Option<usize> {
        if let Some(place) = self.take(wanted, gap) {
            return Some(place);
        }
        let start = claim()?;
        *self = Bed {
            start,
            end: start + BED_BYTES,
        };
        self.take(wanted, gap)
    }
}

/// Where the next large block is to lie.
pub struct Beds {
    bed: Mutex<Bed>,
}

impl Beds {
    /// No bed yet.
    pub const fn new(locks: &mut Registry) -> Beds {
        Beds {
            bed: Mutex::new(locks, Bed { start: 0, end: 0 }),
        }
    }

    /// An address where what is wanted is probably free, apart from what the rest of the allocator has claimed, as
    /// `is_claimed` says of a range. `None` where it is too much, or the system does not map where it is told to.
    pub fn place<O: Os>(
        &self,
        os: &O,
        wanted: Wanted,
        is_claimed: &dyn Fn(Range<usize>) -> bool,
    ) -> Option<usize> {
        let gap = (1 + os.random() as usize % GAP_PAGES) * os.page_size();
        let claim = || Some(os.claim(BED_BYTES).ok()?.as_ptr() as usize);
        self.place_apart(wanted, gap, claim, is_claimed)
    }

    fn place_apart(
        &self,
        wanted: Wanted,
        gap: usize,
        claim: impl Fn() -> Option<usize>,
        is_claimed: &dyn Fn(Range<usize>) -> bool,
    ) -> Option<usize> {
        let bytes = wanted.bytes;
        if bytes.checked_add(wanted.align)? > BED_BYTES / BLOCK_PART {
            return None;
        }
        for _ in 0..BEDS_TRIED {
            // Where no bed can be claimed, no other try would help.
            let place = self.bed.lock().place(wanted, gap, &claim)?;
            if !is_claimed(place..place + bytes) {
                return Some(place);
            }
            // Whoever claimed it is to find it free. Most likely all below belongs to the same.
            self.bed.lock().end = 0;
        }
        None
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.bed.as_lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_in_the_bed_aligned_and_one_below_the_other() {
        let page = 4096;
        let mut bed = Bed {
            start: 1 << 40,
            end: (1 << 40) + (1 << 30),
        };
        let mut end = bed.end;
        for round in 1..10_000 {
            let (bytes, align) = ((3 + round % 70) * page, page << (round % 5));
            let gap = (1 + round % GAP_PAGES) * page;
            let wanted = Wanted {
                bytes,
                lead: page,
                align,
            };
            let Some(place) = bed.take(wanted, gap) else {
                assert!(round > 1000 && end - bed.start < bytes + gap + align);
                return;
            };
            assert!(bed.start <= place && place + bytes + gap <= end);
            assert_eq!((place + page) % align, 0);
            end = place;
        }
        panic!("the bed has no end");
    }

    #[test]
    fn no_block_lies_in_what_was_claimed_for_something_else() {
        let beds = Beds::new(&mut Registry::new());
        let (page, first) = (4096, 1 << 40);
        let wanted = Wanted {
            bytes: BED_BYTES / 64,
            lead: page,
            align: page,
        };
        // A window that grows later begins in the middle of the first bed, which reaches into it from below.
        let claims = core::cell::Cell::new(0);
        let claim = || {
            claims.set(claims.get() + 1);
            Some(first + (claims.get() - 1) * 2 * BED_BYTES)
        };
        let window = first + BED_BYTES / 2..first + 4 * BED_BYTES / 2;
        let is_claimed = |range: Range<usize>| range.start < window.end && window.start < range.end;
        for _ in 0..200 {
            let place = beds.place_apart(wanted, page, claim, &is_claimed);
            let place = place.expect("a bed has room");
            assert!(!is_claimed(place..place + wanted.bytes));
        }
        assert!(claims.get() > 3);
        // Where everything is, no place is found, and the search ends.
        assert_eq!(beds.place_apart(wanted, page, claim, &|_| true), None);
    }

    #[test]
    fn a_system_that_refuses_a_bed_is_asked_once() {
        let beds = Beds::new(&mut Registry::new());
        let wanted = Wanted {
            bytes: 1 << 20,
            lead: 4096,
            align: 4096,
        };
        let asked = core::cell::Cell::new(0);
        let refuse = || {
            asked.set(asked.get() + 1);
            None
        };
        assert_eq!(beds.place_apart(wanted, 4096, refuse, &|_| false), None);
        assert_eq!(asked.get(), 1);
    }

    #[test]
    fn blocks_apart_leave_most_mappings_to_the_program() {
        for mappings in [0, 1, 100, 1 << 12, 65_530, 1 << 20, usize::MAX] {
            assert!(apart_most(mappings) <= mappings / 8);
        }
        assert!(apart_most(65_530) > 8000 && apart_most(usize::MAX) < 10_000);
    }
}
