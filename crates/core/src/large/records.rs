//! What the table says of live blocks: which they are, to which first-class heap they belong, what hardened mode notes.
//!
//! Under the lock, and without a system call. Does not know what becomes of a freed block.

use super::table::Record;
use super::{Block, Found, GuardPages, Inner, Large};
use crate::owner::Owner;

/// In a record's note: the block lived when the process forked, and its child may have the same pages.
pub(super) const FORKED: u32 = 2;
/// Bits of a note below the bytes that were not asked for.
const NOTE_SHIFT: u32 = 2;
/// The most bytes of a block that were not asked for which can be noted.
pub const UNUSED_MAX: usize = u32::MAX as usize >> NOTE_SHIFT;

impl Large {
    /// What `address` is.
    pub fn find(&self, address: usize) -> Found {
        self.inner.lock().find(address)
    }

    /// What `address` is, unless the lock is taken, perhaps by the caller's own thread.
    pub fn try_find(&self, address: usize) -> Option<Found> {
        Some(self.inner.try_lock()?.find(address))
    }

    /// The live block that `address` lies in. Looks through all records.
    pub fn block_around(&self, address: usize) -> Option<Block> {
        let inner = self.inner.lock();
        let mut records = inner.table.each().map(|(_, record)| record);
        let around = records.find(|record| {
            record.stray == 0 && address.wrapping_sub(record.address) < record.bytes
        });
        around.map(|record| record.block())
    }

    /// Bytes in live blocks, and how many there are.
    pub fn live(&self) -> (usize, usize) {
        let inner = &mut *self.inner.lock();
        (inner.live_bytes, inner.live_count())
    }

    /// Notes that the live block at `address` belongs to the first-class heap `owner`. A block that moves
    /// is to be noted again.
    pub fn set_owner(&self, address: usize, owner: Owner) {
        let inner = &mut *self.inner.lock();
        if let Some(record) = inner.table.at(address).filter(|record| record.stray == 0) {
            record.owner = owner;
        }
    }

    /// The first-class heap that the live block at `address` belongs to.
    pub fn owner_of(&self, address: usize) -> Owner {
        let inner = &mut *self.inner.lock();
        let live = inner.table.at(address).filter(|record| record.stray == 0);
        live.map_or(Owner::NONE, |record| record.owner)
    }

    /// Calls `free`, which frees it, with the address of each live block of `owner`, which gets no more
    /// meanwhile.
    pub fn each_of(&self, owner: Owner, free: impl Fn(usize)) {
        // Records move while others come and go: over again until none was found.
        while self.some_of(owner, &free) {}
    }

    fn some_of(&self, owner: Owner, free: impl Fn(usize)) -> bool {
        let (mut index, mut found) = (0, false);
        loop {
            let next = self.inner.lock().table.next_of(index, owner);
            let Some((at, address)) = next else {
                return found;
            };
            free(address);
            (index, found) = (at, true);
        }
    }

    /// Notes for hardened mode that `asked` bytes of the live block at `address` were asked for, and
    /// whether it lies between guard pages.
    pub fn note(&self, address: usize, asked: usize, guard_pages: GuardPages) {
        let inner = &mut *self.inner.lock();
        if let Some(record) = inner.table.at(address).filter(|record| record.stray == 0) {
            let unused = (record.bytes - asked).min(UNUSED_MAX) as u32;
            record.note = unused << NOTE_SHIFT | record.note & FORKED | guard_pages as u32;
        }
    }

    /// Live bytes that were asked for at `address`, as far as that was noted, and whether the block lies between guard
    /// pages. `None` means no live block begins there.
    pub fn noted(&self, address: usize) -> Option<(Block, usize, GuardPages)> {
        self.inner.lock().noted(address)
    }

    /// As [`Large::noted`], unless the lock is taken, perhaps by the caller's own thread.
    pub fn try_noted(&self, address: usize) -> Option<(Block, usize, GuardPages)> {
        self.inner.try_lock()?.noted(address)
    }

    /// The process is about to fork: to write to a page of what lives now, so as to clear it, would copy it.
    pub fn note_fork(&self) {
        if self.keeps_clear() {
            self.inner
                .lock()
                .table
                .each_live(|record| record.note |= FORKED);
        }
    }
}

impl Inner {
    /// What `address` is.
    pub(super) fn find(&mut self, address: usize) -> Found {
        if let Some(record) = self.table.at(address) {
            return if record.stray == 0 {
                Found::Live(record.block())
            } else {
                Found::Freed(record.block())
            };
        }
        let resting = &self.kept.resting;
        let freed = self.kept.holding(address);
        freed
            .or_else(|| resting.holding(&mut self.table, address))
            .map_or(Found::Unknown, Found::Freed)
    }

    /// As [`Large::noted`].
    pub(super) fn noted(&mut self, address: usize) -> Option<(Block, usize, GuardPages)> {
        let record = *self.table.at(address)?;
        let guard_pages = if record.note & 1 != 0 {
            GuardPages::Both
        } else {
            GuardPages::None
        };
        let asked = record.bytes - (record.note >> NOTE_SHIFT) as usize;
        (record.stray == 0).then_some((record.block(), asked, guard_pages))
    }

    /// Records a block as live. False if the table has no room.
    #[must_use]
    pub(super) fn begin(&mut self, block: Block) -> bool {
        let entered = self.table.has_room() && self.table.insert(Record::of(block, 0));
        if entered {
            self.count(block);
        }
        entered
    }

    /// Number of live blocks.
    pub(super) fn live_count(&self) -> usize {
        self.table.count - self.strays - self.kept.resting.count
    }

    /// Counts a live block.
    pub(super) fn count(&mut self, block: Block) {
        self.live_bytes += block.bytes;
        self.most[0] = self.most[0].max(self.live_bytes);
    }

    /// The record of `block`, unless another thread has freed it meanwhile: a record at rest is not the caller's.
    pub(super) fn live_record(&mut self, block: Block) -> Option<&mut Record> {
        let record = self.table.at(block.address)?;
        (record.stray == 0 && record.bytes == block.bytes).then_some(record)
    }

    /// Takes the record of the live `block` out until it is put back.
    pub(super) fn take_out_live(&mut self, block: Block) -> Option<Record> {
        self.live_record(block)?;
        self.live_bytes -= block.bytes;
        self.table.take_out(block.address)
    }

    /// Notes a live block's new size. The kept ranges were changed before if it grew.
    pub(super) fn resize(&mut self, block: Block, bytes: usize) -> Option<Block> {
        self.live_record(block)?.bytes = bytes;
        self.live_bytes = self.live_bytes - block.bytes + bytes;
        self.most[0] = self.most[0].max(self.live_bytes);
        Some(Block { bytes, ..block })
    }
}
