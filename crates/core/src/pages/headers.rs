//! Which slab headers are in use: those never made, and those to be used again.

use crate::class::{ClassId, PAIR};
use crate::meta::{Meta, SLAB_BYTES};
use crate::owner::RELEASED;
use crate::slab::{SlabPtr, SlabTable};
use crate::sync::{AtomicU32, Ordering::Relaxed};
use crate::units::SlabId;

/// How the headers are numbered. A number is a distance, and the first headers lie apart from the rest: between
/// their numbers and the next ones is a gap.
///
/// ```text
///   number   0 1 2 ...   end                    next ...   made
///            first headers | other areas' memory | the rest |
/// ```
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    /// The number after the last header made.
    pub(super) made: u32,
    /// The number after the last one before the gap.
    pub(super) end: u32,
    /// The first number after the gap. 0 means that there is no gap.
    next: u32,
}

impl Numbers {
    pub(super) const fn none() -> Numbers {
        Numbers {
            made: 0,
            end: 0,
            next: 0,
        }
    }

    /// No header made yet.
    pub(super) fn of(meta: &Meta) -> Numbers {
        let (end, next) = meta.slab_numbers();
        Numbers { made: 0, end, next }
    }

    /// The number of the next header, or pair where `n` is 2.
    fn free(&self, n: u32) -> u32 {
        if self.made < self.next && self.made + n > self.end {
            return self.next;
        }
        self.made
    }

    /// Bytes of the area after the gap that are to be open for `n` more headers.
    pub(super) fn wanted(&self, n: usize) -> usize {
        let first = self.free(n as u32);
        match first.checked_sub(self.next) {
            Some(behind) => (behind as usize + n) * SLAB_BYTES,
            None => 0,
        }
    }

    /// The numbers `first` to `first + n` are used from now on.
    fn take(&mut self, first: u32, n: u32) {
        if first != self.made {
            self.end = self.made;
        }
        self.made = first + n;
    }

    /// The number of the header after `id`, which takes `n`.
    pub(super) fn behind(&self, id: u32, n: u32) -> u32 {
        match id + n {
            id if id < self.next && id >= self.end => self.next,
            id => id,
        }
    }
}

/// Slab headers by number: those never used, and those to be used again.
pub(super) struct Headers {
    pub(super) numbers: Numbers,
    /// Bytes of the header area that are open, but for those that lie apart.
    pub(super) opened: usize,
    /// Heads of the lists of released headers, single and in pairs, linked through `next`.
    pub(super) spare: [u32; 2],
    /// Differs after a header was taken or given: for readers outside. Written under the page lock.
    pub(super) epoch: AtomicU32,
}

impl Headers {
    /// Number of headers that one slab of `class` takes: its header's kind is its list's index plus one.
    pub(super) fn kind(class: ClassId) -> usize {
        usize::from(class == PAIR)
    }

    fn raise_epoch(&self) {
        self.epoch
            .store(self.epoch.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Whether there is a header, or pair, for a slab of `class`.
    pub(super) fn has(&self, class: ClassId) -> bool {
        let kind = Headers::kind(class);
        self.spare[kind] != 0 || self.numbers.wanted(kind + 1) <= self.opened
    }

    pub(super) fn take(&mut self, table: SlabTable, class: ClassId) -> Option<SlabPtr> {
        if !self.has(class) {
            return None;
        }
        self.raise_epoch();
        let kind = Headers::kind(class);
        if self.spare[kind] != 0 {
            let slab = table.get(SlabId(self.spare[kind]));
            self.spare[kind] = slab.discarded.load(Relaxed);
            return Some(slab);
        }
        let n = kind + 1;
        let id = self.numbers.free(n as u32);
        let slab = table.get(SlabId(id));
        slab.id.store(id, Relaxed);
        slab.class.store(class.byte(), Relaxed);
        slab.owner.store(RELEASED, Relaxed);
        self.numbers.take(id, n as u32);
        Some(slab)
    }

    pub(super) fn give(&mut self, slab: SlabPtr) {
        self.raise_epoch();
        let kind = Headers::kind(slab.class());
        slab.discarded.store(self.spare[kind], Relaxed);
        self.spare[kind] = slab.id().0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Makes headers and pairs as the bits of `kinds` say, and walks over them.
    fn make_and_walk(kinds: u32, next: u32) {
        let mut numbers = Numbers {
            made: 2,
            end: if next == 0 { 0 } else { 7 },
            next,
        };
        let mut made = Vec::new();
        for bit in 0..8 {
            let n = 1 + (kinds >> bit & 1);
            let id = numbers.free(n);
            let wanted = numbers.wanted(n as usize);
            let behind = if id < next {
                0
            } else {
                (id - next + n) as usize * SLAB_BYTES
            };
            assert_eq!(wanted, behind, "{kinds:b}");
            numbers.take(id, n);
            made.push((id, n));
            let mut walked = Vec::new();
            let mut id = 2;
            while id < numbers.made {
                let n = made.get(walked.len()).map_or(1, |&(_, n)| n);
                walked.push((id, n));
                id = numbers.behind(id, n);
            }
            assert_eq!(walked, made, "{kinds:b}");
        }
    }

    #[test]
    fn numbers_jump_over_the_gap_and_a_walk_follows_them() {
        for kinds in 0..256 {
            make_and_walk(kinds, 0);
            make_and_walk(kinds, 1000);
        }
    }
}
