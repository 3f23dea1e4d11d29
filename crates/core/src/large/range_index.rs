//! Finds kept ranges by their size and by where they begin and end, without a search through all of them.
//!
//! ```text
//!   bins    a list for each size up to 63 pages, then 32 for each doubling; the last one added comes first
//!   ends    chains of ranges whose first byte, and whose end, hashes to the same number
//! ```
//!
//! It lies beside the ranges and is derived from them: a fork child makes it anew. Places are numbered from 1 on, so
//! that an index of nothing is all zero and costs a process that frees no large block no memory.

use super::Block;
use crate::units::PAGE_SHIFT;

/// Places for ranges. The first one stays empty: its number stands for none in the index.
pub(super) const PLACES: usize = 513;

/// A range that is or was kept.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Range {
    pub(super) address: usize,
    /// 0: an unused place.
    pub(super) bytes: usize,
    /// When it was freed, the latest part of it.
    pub(super) since: u64,
    pub(super) clean: bool,
}

impl Range {
    pub(super) const NONE: Range = Range {
        address: 0,
        bytes: 0,
        since: 0,
        clean: false,
    };

    /// What was freed just now.
    pub(super) const fn freed(block: Block, since: u64) -> Range {
        Range {
            address: block.address,
            bytes: block.bytes,
            since,
            clean: false,
        }
    }

    /// Room behind a block that was moved just now.
    pub(super) const fn room(block: Block, since: u64) -> Range {
        Range {
            clean: true,
            ..Range::freed(block, since)
        }
    }

    /// Bytes that count: those that may have been touched.
    pub(super) const fn dirty_bytes(&self) -> usize {
        if self.clean {
            0
        } else {
            self.bytes
        }
    }

    pub(super) const fn end(&self) -> usize {
        self.address + self.bytes
    }

    pub(super) const fn block(&self) -> Block {
        Block {
            address: self.address,
            bytes: self.bytes,
        }
    }
}

/// Bins of one size each: one for each number of pages below.
const EXACT: usize = 1 << EXACT_SHIFT;
const EXACT_SHIFT: u32 = 6;
/// Base-2 logarithm of the bins for each doubling above.
const STEP_SHIFT: u32 = 5;
/// Number of bins. The last one holds all ranges of a GiB and more.
const BINS: usize = 448;
const WORD_BITS: usize = u64::BITS as usize;
const BIN_WORDS: usize = BINS / WORD_BITS;
/// Base-2 logarithm of the chains by address.
const CHAIN_SHIFT: u32 = 10;
/// How many ranges of a bin are compared before one that fits is taken.
const COMPARED: usize = 16;

/// The place of a range in the lists and chains. 0 means none.
#[derive(Clone, Copy)]
struct Links {
    /// In the bin: before and behind it.
    bin: [u16; 2],
    /// In the two chains by address: the next one.
    chains: [u16; 2],
}

/// Which address of a range a chain goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum By {
    /// Its first byte's.
    Start = 0,
    /// That of the byte behind it.
    End = 1,
}

impl By {
    const fn of(self, range: &Range) -> usize {
        match self {
            By::Start => range.address,
            By::End => range.end(),
        }
    }
}

/// The index of an array of ranges, which callers pass along: those that are in it do not change.
pub(super) struct RangeIndex {
    links: [Links; PLACES],
    chains: [[u16; 1 << CHAIN_SHIFT]; 2],
    bins: [u16; BINS],
    /// A bit for each bin that is not empty.
    filled: [u64; BIN_WORDS],
}

/// The bin of ranges of `bytes` bytes. None of a larger bin has fewer.
const fn bin_of(bytes: usize) -> usize {
    let pages = bytes >> PAGE_SHIFT;
    if pages < EXACT {
        return pages;
    }
    let doubling = pages.ilog2();
    let step = pages >> (doubling - STEP_SHIFT) & ((1 << STEP_SHIFT) - 1);
    let bin = EXACT + ((doubling - EXACT_SHIFT) << STEP_SHIFT) as usize + step;
    if bin < BINS {
        bin
    } else {
        BINS - 1
    }
}

/// Fibonacci hashing of the page number (Knuth, TAOCP 3, 6.4).
const fn chain_of(address: usize) -> usize {
    let page = (address >> PAGE_SHIFT) as u64;
    (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - CHAIN_SHIFT)) as usize
}

impl RangeIndex {
    pub(super) const fn new() -> RangeIndex {
        RangeIndex {
            links: [Links {
                bin: [0; 2],
                chains: [0; 2],
            }; PLACES],
            chains: [[0; 1 << CHAIN_SHIFT]; 2],
            bins: [0; BINS],
            filled: [0; BIN_WORDS],
        }
    }

    /// Forgets all ranges.
    pub(super) fn clear(&mut self) {
        self.chains.iter_mut().for_each(|chains| chains.fill(0));
        self.bins.fill(0);
        self.filled.fill(0);
    }

    /// Enters the range at `place`. A clean one serves no request, so it is in no bin.
    #[inline]
    pub(super) fn insert(&mut self, place: usize, range: &Range) {
        self.chain(By::Start, place, range);
        self.chain(By::End, place, range);
        if !range.clean {
            self.enter_bin(place, range);
        }
    }

    /// Takes the range at `place` out.
    #[inline]
    pub(super) fn remove(&mut self, place: usize, range: &Range) {
        self.unchain(By::Start, place, range);
        self.unchain(By::End, place, range);
        if !range.clean {
            self.leave_bin(place, range);
        }
    }

    /// The range at `place` begins at another address from now on, and ends where it did.
    #[inline]
    pub(super) fn begin_elsewhere(&mut self, place: usize, old: &Range, new: &Range) {
        self.unchain(By::Start, place, old);
        self.chain(By::Start, place, new);
        if !new.clean && bin_of(old.bytes) != bin_of(new.bytes) {
            self.leave_bin(place, old);
            self.enter_bin(place, new);
        }
    }

    /// The place of the range that begins, or ends, at `address`.
    #[inline]
    pub(super) fn at(&self, by: By, address: usize, ranges: &[Range; PLACES]) -> Option<usize> {
        let mut place = self.chains[by as usize][chain_of(address)] as usize;
        while place != 0 && by.of(&ranges[place]) != address {
            place = self.links[place].chains[by as usize] as usize;
        }
        (place != 0).then_some(place)
    }

    /// The place of a range of at least `bytes` bytes for which `fits`: of the smallest such bin, the smallest of the
    /// first few.
    #[inline]
    pub(super) fn smallest(
        &self,
        bytes: usize,
        ranges: &[Range; PLACES],
        fits: impl Fn(&Range) -> bool,
    ) -> Option<usize> {
        let fits = |range: &Range| range.bytes >= bytes && fits(range);
        let first = self.filled_from(bin_of(bytes))?;
        if first < EXACT {
            // Most often the first one will do, and all of its bin have one size.
            let place = self.bins[first] as usize;
            if fits(&ranges[place]) {
                return Some(place);
            }
        }
        [COMPARED, PLACES].into_iter().find_map(|most| {
            let mut next = Some(first);
            while let Some(bin) = next {
                let compared = self.in_bin(bin).take(most);
                let fitting = compared.filter(|&place| fits(&ranges[place]));
                let best = fitting.min_by_key(|&place| ranges[place].bytes);
                if best.is_some() {
                    return best;
                }
                next = self.filled_from(bin + 1);
            }
            None
        })
    }

    /// The place of the largest range that is in a bin.
    pub(super) fn largest(&self, ranges: &[Range; PLACES]) -> Option<usize> {
        let word = self.filled.iter().rposition(|&word| word != 0)?;
        let bin = word * WORD_BITS + self.filled[word].ilog2() as usize;
        self.in_bin(bin).max_by_key(|&place| ranges[place].bytes)
    }

    /// The smallest bin from `bin` on that is not empty.
    #[inline]
    fn filled_from(&self, bin: usize) -> Option<usize> {
        let first = bin / WORD_BITS;
        let mut mask = u64::MAX << (bin % WORD_BITS);
        for word in first..BIN_WORDS {
            let bits = self.filled[word] & mask;
            if bits != 0 {
                return Some(word * WORD_BITS + bits.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    #[inline]
    fn in_bin(&self, bin: usize) -> impl Iterator<Item = usize> + '_ {
        let some = |place: u16| (place != 0).then_some(place as usize);
        core::iter::successors(some(self.bins[bin]), move |&place| {
            some(self.links[place].bin[1])
        })
    }

    #[inline]
    fn enter_bin(&mut self, place: usize, range: &Range) {
        let bin = bin_of(range.bytes);
        let behind = core::mem::replace(&mut self.bins[bin], place as u16);
        self.links[place].bin = [0, behind];
        if behind != 0 {
            self.links[behind as usize].bin[0] = place as u16;
        }
        self.filled[bin / WORD_BITS] |= 1 << (bin % WORD_BITS);
    }

    #[inline]
    fn leave_bin(&mut self, place: usize, range: &Range) {
        let [before, behind] = self.links[place].bin;
        if behind != 0 {
            self.links[behind as usize].bin[0] = before;
        }
        if before != 0 {
            self.links[before as usize].bin[1] = behind;
            return;
        }
        let bin = bin_of(range.bytes);
        self.bins[bin] = behind;
        if behind == 0 {
            self.filled[bin / WORD_BITS] &= !(1 << (bin % WORD_BITS));
        }
    }

    #[inline]
    fn chain(&mut self, by: By, place: usize, range: &Range) {
        let head = &mut self.chains[by as usize][chain_of(by.of(range))];
        self.links[place].chains[by as usize] = core::mem::replace(head, place as u16);
    }

    #[inline]
    fn unchain(&mut self, by: By, place: usize, range: &Range) {
        let next = self.links[place].chains[by as usize];
        let mut link = &mut self.chains[by as usize][chain_of(by.of(range))];
        while *link as usize != place {
            if *link == 0 {
                debug_assert!(false, "a range that is in no chain");
                return;
            }
            link = &mut self.links[*link as usize].chains[by as usize];
        }
        *link = next;
    }

    /// Number of ranges that are not where they belong, and of entries that stand for none.
    pub(super) fn validate(&self, ranges: &[Range; PLACES]) -> usize {
        let used = || (1..PLACES).filter(|&place| ranges[place].bytes != 0);
        let mut wrong = 0;
        for place in used() {
            let range = &ranges[place];
            for by in [By::Start, By::End] {
                wrong += usize::from(self.at(by, by.of(range), ranges) != Some(place));
            }
            let mut same = self.in_bin(bin_of(range.bytes)).take(PLACES);
            wrong += usize::from(same.any(|other| other == place) == range.clean);
        }
        let bins = (0..BINS).map(|bin| self.in_bin(bin).take(PLACES).count());
        let marks = (0..BINS).filter(|&bin| {
            let marked = self.filled[bin / WORD_BITS] >> (bin % WORD_BITS) & 1 == 1;
            marked != (self.bins[bin] != 0)
        });
        let binned = used().filter(|&place| !ranges[place].clean).count();
        wrong += marks.count() + bins.sum::<usize>().abs_diff(binned);
        for by in [By::Start, By::End] {
            let chained = self.chains[by as usize].iter().map(|&head| {
                core::iter::successors(Some(head), |&place| {
                    Some(self.links[place as usize].chains[by as usize])
                })
                .take_while(|&place| place != 0)
                .take(PLACES)
                .count()
            });
            wrong += chained.sum::<usize>().abs_diff(used().count());
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PAGE;

    #[test]
    fn bins_rise_with_the_size_and_differ_by_a_thirty_second_at_most() {
        let (mut last, mut least) = (0, 1);
        for pages in 1..1 << 18 {
            let bin = bin_of(pages * PAGE);
            assert!(bin == last || bin == last + 1, "{pages}");
            least = if bin == last { least } else { pages };
            let beyond = pages - least;
            assert!(beyond == 0 || beyond <= least >> STEP_SHIFT, "{pages}");
            last = bin;
        }
        assert_eq!(last, BINS - 1);
        assert_eq!(bin_of(usize::MAX), BINS - 1);
    }
}
