//! Strays: freed blocks without pages, which the system refused to unmap.
//!
//! The kernel does so where that would exceed `vm.max_map_count`. A stray stays in the table of records, and the front of
//! it serves later blocks. Under the lock, and without a system call: `give_back` tries to unmap strays.

use super::range_index::Range;
use super::table::{Record, STRAY};
use super::{Block, Inner};
use crate::units::PAGE;

/// How many strays that fit are compared.
const STRAYS_COMPARED: usize = 16;

impl Inner {
    /// Keeps a range that could not be unmapped, or notes it in the table. False if neither has place.
    pub(super) fn keep_or_note(&mut self, range: Range) -> bool {
        // Its pages may hold what was freed.
        if self.apart || !self.kept.has_place() {
            return self.note_stray(Record::of(range.block(), STRAY));
        }
        self.kept.put(range);
        self.unseen = 0;
        true
    }

    /// Enters a stray's record, beyond half of the table too: more blocks can come only once it is larger.
    pub(super) fn note_stray(&mut self, stray: Record) -> bool {
        let entered = self.table.has_spare() && self.table.insert(stray);
        if entered {
            self.strays += 1;
            self.stray_bytes = usize::MAX;
        }
        entered
    }

    /// Takes a stray's record out until [`Inner::end_stray`].
    pub(super) fn take_stray(&mut self) -> Option<Record> {
        if self.strays == 0 {
            return None;
        }
        let (place, stray) = self.table.strays_from(self.stray_place).next()?;
        self.stray_place = place;
        self.table.take_out(stray.address);
        self.strays -= 1;
        Some(stray)
    }

    /// A stray that was taken out is unmapped, or stays one.
    pub(super) fn end_stray(&mut self, stray: Record, unmapped: bool) {
        if unmapped {
            self.table.forget();
        } else {
            self.table.put_back(stray);
            self.strays += 1;
            self.stray_bytes = usize::MAX;
        }
    }

    /// `bytes` bytes at a multiple of `align` of a stray that fits well: the front of it, or all where little is left.
    pub(super) fn fit_stray(&mut self, bytes: usize, align: usize) -> Option<Block> {
        if self.strays == 0 || bytes >= self.stray_bytes {
            return None;
        }
        let fits =
            |(_, stray): &(usize, Record)| stray.bytes >= bytes && stray.address & (align - 1) == 0;
        let fitting = self.table.strays_from(self.stray_place).filter(fits);
        let best = fitting
            .take(STRAYS_COMPARED)
            .min_by_key(|(_, stray)| stray.bytes);
        let Some((place, stray)) = best else {
            if align <= PAGE {
                self.stray_bytes = bytes;
            }
            return None;
        };
        self.stray_place = place;
        self.table.remove(stray.address);
        self.strays -= 1;
        let whole = stray.bytes - bytes < bytes / 16;
        let block = Block {
            address: stray.address,
            bytes: if whole { stray.bytes } else { bytes },
        };
        let rest = stray.block().behind(block.bytes);
        // The table has room for one more, and has just lost one.
        let noted = whole || self.note_stray(Record::of(rest, STRAY));
        debug_assert!(noted);
        Some(block)
    }
}
