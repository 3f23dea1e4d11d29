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

/// Bytes of a bed, which is claimed and costs nothing.
const BED_BYTES: usize = 64 << 30;
/// The part of a bed that a block may take.
const BLOCK_PART: usize = 8;
/// The most pages of a gap.
const GAP_PAGES: usize = 64;
/// The most blocks that live apart from one another: each is a mapping of the system's, of which a process may have
/// some 65,000. Further ones lie where the system puts them, side by side, and are one mapping.
pub const APART_MOST: usize = 1 << 13;

/// What is left of the bed in use.
struct Bed {
    start: usize,
    end: usize,
}

impl Bed {
    /// A place for `bytes` bytes whose byte `lead` is at a multiple of `align`, `gap` bytes below the last one.
    fn take(&mut self, bytes: usize, lead: usize, align: usize, gap: usize) -> Option<usize> {
        let block = self.end.checked_sub(gap + bytes - lead)? / align * align;
        let place = block.checked_sub(lead)?;
        if self.start == 0 || place < self.start {
            return None;
        }
        self.end = place;
        Some(place)
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

    /// An address where `bytes` bytes are probably free, so that its byte `lead` is at a multiple of `align`. `None`
    /// where they are too many, or the system does not map where it is told to.
    pub fn place<O: Os>(&self, os: &O, bytes: usize, lead: usize, align: usize) -> Option<usize> {
        if bytes.checked_add(align)? > BED_BYTES / BLOCK_PART {
            return None;
        }
        let gap = (1 + os.random() as usize % GAP_PAGES) * os.page_size();
        let mut bed = self.bed.lock();
        if let Some(place) = bed.take(bytes, lead, align, gap) {
            return Some(place);
        }
        let start = os.claim(BED_BYTES)?.as_ptr() as usize;
        *bed = Bed {
            start,
            end: start + BED_BYTES,
        };
        bed.take(bytes, lead, align, gap)
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
            let Some(place) = bed.take(bytes, page, align, gap) else {
                assert!(round > 1000 && end - bed.start < bytes + gap + align);
                return;
            };
            assert!(bed.start <= place && place + bytes + gap <= end);
            assert_eq!((place + page) % align, 0);
            end = place;
        }
        panic!("the bed has no end");
    }
}
