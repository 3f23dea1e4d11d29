//! Freed blocks at rest: each stays as it was, under its own record, and serves the next request of its size.
//!
//! ```text
//!   free   record: live     ->  at rest, first on the list of its size
//!   map    record: at rest  ->  live, for a request that is smaller by up to an eighth
//!          the front of a longer one, where no range fits: what is behind it becomes a range
//!   else   blocks at rest leave the table and become kept ranges, as one with their neighbours
//! ```
//!
//! So a program that takes and frees such sizes in any order moves no record and joins and cuts no range. A record at
//! rest says that its block is free: whoever frees it again is told by the look-up of the free itself.
//!
//! Lists and sums are derived from the records: a fork child makes them anew. A list goes through the owner words of
//! its records, which belong to no heap.

use super::range_index::Range;
use super::table::{Record, Table, AT_REST};
use super::Block;
use crate::owner::Owner;
use crate::units::PAGE_SHIFT;
use core::sync::atomic::{compiler_fence, Ordering::Release};

/// Blocks of so many pages or more do not rest.
const SIZES: usize = 128;
/// The most blocks at rest.
pub(super) const MOST: usize = 256;
/// A block serves a request to which it adds less than one part in so many.
const PART: usize = 8;
const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = SIZES / WORD_BITS;

/// The blocks at rest.
pub(super) struct Resting {
    /// How many.
    pub(super) count: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// When one of them was freed, as far as the clock was looked at.
    pub(super) since: u64,
    /// A bit for each size in pages of which there are some, and a word more.
    filled: [u64; WORDS + 1],
    /// Address of the block of each size that was freed last. 0 means none.
    first: [usize; SIZES],
}

impl Resting {
    pub(super) const fn new() -> Resting {
        Resting {
            count: 0,
            bytes: 0,
            since: 0,
            filled: [0; WORDS + 1],
            first: [0; SIZES],
        }
    }

    /// Whether a block of `bytes` bytes may be one of them.
    #[inline]
    pub(super) fn takes(&self, bytes: usize) -> bool {
        bytes >> PAGE_SHIFT < SIZES && self.count < MOST
    }

    /// A freed block comes to rest. [`Resting::takes`] one of its size.
    #[inline]
    pub(super) fn push(&mut self, record: &mut Record) {
        let size = record.bytes >> PAGE_SHIFT;
        let Some(first) = self.first.get_mut(size) else {
            return;
        };
        // The owner word is a link from when the record says that nobody owns the block.
        record.stray = AT_REST;
        compiler_fence(Release);
        record.note = 0;
        record.owner = Owner::from_word(*first as u64);
        *first = record.address;
        if record.owner == Owner::NONE {
            self.filled[size / WORD_BITS] |= 1 << (size % WORD_BITS);
        }
        self.count += 1;
        self.bytes += record.bytes;
    }

    /// The smallest size in pages that serves a request of `bytes` bytes and adds little to it.
    #[inline]
    pub(super) fn fit(&self, bytes: usize) -> Option<usize> {
        let (size, more) = self.nearest(bytes)?;
        (more * PART < size).then_some(size + more)
    }

    /// The smallest size in pages that serves a request of `bytes` bytes with its front, and is longer by half at most.
    pub(super) fn fit_longer(&self, bytes: usize) -> Option<usize> {
        let (size, more) = self.nearest(bytes)?;
        (more <= size / 2).then_some(size + more)
    }

    /// `bytes` in pages, and by how many pages the next block that has as many is longer. 64 where none is near.
    #[inline]
    fn nearest(&self, bytes: usize) -> Option<(usize, usize)> {
        let size = bytes >> PAGE_SHIFT;
        if size >= SIZES {
            return None;
        }
        let (word, bit) = (size / WORD_BITS, size % WORD_BITS);
        let sizes = self.filled[word] >> bit | self.filled[word + 1] << 1 << (WORD_BITS - 1 - bit);
        Some((size, sizes.trailing_zeros() as usize))
    }

    /// Takes the block of `size` pages that was freed last off its list. Its record still says that it is at rest.
    #[inline]
    pub(super) fn pop<'a>(&mut self, table: &'a mut Table, size: usize) -> Option<&'a mut Record> {
        let first = self.first.get_mut(size)?;
        let record = table.at(*first)?;
        *first = record.owner.word() as usize;
        if *first == 0 {
            self.filled[size / WORD_BITS] &= !(1 << (size % WORD_BITS));
        }
        self.count -= 1;
        self.bytes -= record.bytes;
        record.owner = Owner::NONE;
        compiler_fence(Release);
        Some(record)
    }

    /// A block leaves, and the table with it: a range to be kept.
    pub(super) fn leave(&mut self, table: &mut Table) -> Option<Range> {
        let word = self.filled.iter().position(|&word| word != 0)?;
        let size = word * WORD_BITS + self.filled[word].trailing_zeros() as usize;
        let block = self.pop(table, size)?.block();
        table.remove(block.address);
        Some(Range::freed(block, self.since))
    }

    /// The block at rest that holds `address`.
    pub(super) fn holding(&self, table: &mut Table, address: usize) -> Option<Block> {
        self.first.iter().find_map(|&first| {
            let mut next = first;
            while next != 0 {
                let record = table.at(next)?;
                if record.address <= address && address < record.address + record.bytes {
                    return Some(record.block());
                }
                next = record.owner.word() as usize;
            }
            None
        })
    }

    /// In a fork child, after the table was made whole: the lists and sums that its records tell of.
    pub(super) fn rebuild(&mut self, table: &mut Table) {
        let since = self.since;
        *self = Resting::new();
        self.since = since;
        table.each_at_rest(|record| self.push(record));
    }

    /// Number of broken invariants.
    pub(super) fn validate(&self, table: &Table) -> usize {
        let resting = || table.each().filter(|(_, record)| record.stray == AT_REST);
        let (mut wrong, mut listed) = (0, 0);
        for (size, &first) in self.first.iter().enumerate() {
            let marked = self.filled[size / WORD_BITS] >> (size % WORD_BITS) & 1 == 1;
            wrong += usize::from(marked != (first != 0));
            let mut next = first;
            while next != 0 && listed <= self.count {
                let Some((_, record)) = resting().find(|(_, record)| record.address == next) else {
                    wrong += 1;
                    break;
                };
                wrong += usize::from(record.bytes >> PAGE_SHIFT != size);
                listed += 1;
                next = record.owner.word() as usize;
            }
        }
        let bytes: usize = resting().map(|(_, record)| record.bytes).sum();
        let agree = (listed, resting().count(), bytes) == (self.count, self.count, self.bytes);
        wrong + usize::from(!agree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PAGE;
    use std::vec;
    use std::vec::Vec;

    const SHIFT: u32 = 8;

    /// A table, and the memory that it lies in.
    fn table() -> (Table, Vec<Record>) {
        let mut table = Table::new();
        let mut records = vec![
            Record::of(
                Block {
                    address: 0,
                    bytes: 0
                },
                0
            );
            1 << SHIFT
        ];
        table.move_to(records.as_mut_ptr(), SHIFT);
        (table, records)
    }

    /// Enters a live block of `pages` pages, the `n`-th one, and gives its address.
    fn enter(table: &mut Table, n: usize, pages: usize) -> usize {
        let (address, bytes) = ((n + 1) << 30, pages * PAGE);
        assert!(table.insert(Record::of(Block { address, bytes }, 0)));
        address
    }

    #[test]
    fn a_request_gets_the_smallest_size_that_adds_less_than_an_eighth() {
        let (mut table, _records) = table();
        for size in 1..SIZES {
            let mut resting = Resting::new();
            let address = enter(&mut table, size, size);
            resting.push(table.at(address).unwrap());
            for asked in 1..SIZES + 8 {
                let serves = asked <= size && (size - asked) * PART < asked;
                assert_eq!(resting.fit(asked * PAGE), serves.then_some(size), "{asked}");
                let longer = asked <= size && size - asked <= asked / 2;
                assert_eq!(
                    resting.fit_longer(asked * PAGE),
                    longer.then_some(size),
                    "{asked}"
                );
            }
            assert!(resting.pop(&mut table, size).is_some());
            assert!(table.remove(address).is_some());
            assert_eq!(resting.validate(&table), 0);
        }
    }

    /// A fork that finds a block which says that it is at rest, and is on no list yet.
    #[test]
    fn a_fork_child_makes_the_lists_anew_from_what_the_records_say() {
        let (mut table, _records) = table();
        let mut resting = Resting::new();
        let blocks: Vec<_> = (0..9).map(|n| enter(&mut table, n, 33 + n / 3)).collect();
        for &block in &blocks[..6] {
            resting.push(table.at(block).unwrap());
        }
        table.at(blocks[7]).unwrap().stray = AT_REST;
        assert_ne!(resting.validate(&table), 0);
        resting.rebuild(&mut table);
        assert_eq!(resting.validate(&table), 0);
        let bytes = (3 * 33 + 3 * 34 + 35) * PAGE;
        assert_eq!((resting.count, resting.bytes), (7, bytes));
        let range = resting.leave(&mut table).unwrap();
        assert_eq!((range.bytes, resting.count), (33 * PAGE, 6));
        assert!(table.at(range.address).is_none());
        assert_eq!(resting.validate(&table), 0);
    }
}
