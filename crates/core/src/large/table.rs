//! The record table of large blocks: open addressing, by address.
//!
//! Two areas of the metadata region hold the table in turn: it doubles by copying from one into the
//! other. No lock and no system call here.

use super::Block;
use crate::meta::{Area, Elsewhere, Fact, Header, Meta, RECORD_BYTES};
use crate::owner::Owner;
use crate::units::PAGE_SHIFT;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{compiler_fence, Ordering::Release, Ordering::SeqCst};

/// Of a freed block that could not be unmapped, and for which there was no place to keep it.
pub(super) const STRAY: u32 = 1;
/// Of a freed block that is kept under its record (see `resting`), whose owner word is a link then.
pub(super) const AT_REST: u32 = 2;

/// What is known of a large block. `address` 0: no record.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Record {
    pub(super) address: usize,
    pub(super) bytes: usize,
    /// 0 while live. [`STRAY`], or [`AT_REST`].
    pub(super) stray: u32,
    /// What hardened mode notes of the block: bytes that were not asked for, and whether it has guard pages.
    pub(super) note: u32,
    /// Owner word of the first-class heap that the block belongs to. 0 means none.
    pub(super) owner: Owner,
}

static_assertions::const_assert_eq!(core::mem::size_of::<Record>(), RECORD_BYTES);

impl Record {
    const NONE: Record = Record {
        address: 0,
        bytes: 0,
        stray: 0,
        note: 0,
        owner: Owner::NONE,
    };

    pub(super) const fn of(block: Block, stray: u32) -> Record {
        Record {
            address: block.address,
            bytes: block.bytes,
            stray,
            note: 0,
            owner: Owner::NONE,
        }
    }

    pub(super) const fn block(&self) -> Block {
        Block {
            address: self.address,
            bytes: self.bytes,
        }
    }
}

/// The table. At most half full, records that are out counted.
#[derive(Clone, Copy)]
pub(super) struct Table {
    table: *mut Record,
    /// Base-2 logarithm of the table's records. 0 means no table yet.
    pub(super) shift: u32,
    /// The table's records, less one.
    mask: usize,
    /// Records in the table.
    pub(super) count: usize,
    /// Odd while records move to other places, and another number after: for readers outside, who may miss one that
    /// moves.
    epoch: u32,
    /// Places kept for records that were taken out and come back.
    out: usize,
}

impl Table {
    pub(super) const fn new() -> Table {
        Table {
            table: core::ptr::null_mut(),
            shift: 0,
            mask: 0,
            count: 0,
            epoch: 0,
            out: 0,
        }
    }

    /// States in the region's header how records are laid out, and where the epoch lies.
    pub(super) fn describe(&self, header: &Header) {
        header.point(Elsewhere::LargeEpoch, ptr::from_ref(&self.epoch) as usize);
        header.state(Fact::RecordBytes, RECORD_BYTES);
        header.state(Fact::RecordAddress, offset_of!(Record, address));
        header.state(Fact::RecordLength, offset_of!(Record, bytes));
        header.state(Fact::RecordStray, offset_of!(Record, stray));
        header.state(Fact::RecordOwner, offset_of!(Record, owner));
    }

    /// Before records move, and after.
    fn raise_epoch(&mut self) {
        compiler_fence(SeqCst);
        // SAFETY: the exclusive borrow of `self` stands for the lock.
        unsafe { ptr::write_volatile(&mut self.epoch, self.epoch.wrapping_add(1)) };
        compiler_fence(SeqCst);
    }

    /// All records, by place.
    pub(super) fn each(&self) -> impl Iterator<Item = (usize, Record)> + '_ {
        let places = if self.shift == 0 { 0 } else { 1 << self.shift };
        let records = (0..places).map(|index| (index, self.read(index)));
        records.filter(|(_, record)| record.address != 0)
    }

    /// Shows the records of blocks at rest.
    pub(super) fn each_at_rest(&mut self, mut show: impl FnMut(&mut Record)) {
        let places = if self.shift == 0 { 0 } else { 1 << self.shift };
        for index in 0..places {
            // SAFETY: within the open table. The exclusive borrow of `self` stands for the lock.
            let record = unsafe { &mut *self.place(index) };
            if record.address != 0 && record.stray == AT_REST {
                show(record);
            }
        }
    }

    /// Shows the records of live blocks.
    pub(super) fn each_live(&mut self, mut show: impl FnMut(&mut Record)) {
        let places = if self.shift == 0 { 0 } else { 1 << self.shift };
        for index in 0..places {
            // SAFETY: within the open table. The exclusive borrow of `self` stands for the lock.
            let record = unsafe { &mut *self.place(index) };
            if record.address != 0 && record.stray == 0 {
                show(record);
            }
        }
    }

    /// Whether a probe for the record at `index` finds it there.
    pub(super) fn is_found(&self, index: usize, record: &Record) -> bool {
        self.index_of(record.address).map(|at| at & self.mask()) == Some(index)
    }

    #[inline]
    fn mask(&self) -> usize {
        self.mask
    }

    /// Whether there is room for one more record, beside those that come back.
    pub(super) fn has_room(&self) -> bool {
        self.shift != 0 && self.count + self.out < 1 << (self.shift - 1)
    }

    /// A record that was taken out does not come back.
    pub(super) fn forget(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    /// Whether there is room for the record of what is free already, which asks for no larger table.
    pub(super) fn has_spare(&self) -> bool {
        self.shift != 0 && self.count + self.out < 3 << (self.shift - 2)
    }

    /// The records of strays and their places, from the place `from` on and round.
    pub(super) fn strays_from(&self, from: usize) -> impl Iterator<Item = (usize, Record)> + '_ {
        let places = if self.shift == 0 { 0 } else { 1 << self.shift };
        let records = (from..from + places).map(|index| (index & self.mask(), self.read(index)));
        records.filter(|(_, record)| record.address != 0 && record.stray == STRAY)
    }

    /// Fibonacci hashing of the page number (Knuth, TAOCP 3, 6.4).
    fn home(&self, address: usize) -> usize {
        ((address >> PAGE_SHIFT) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize
            >> (64 - self.shift)
    }

    fn place(&self, index: usize) -> *mut Record {
        // SAFETY: the table has 2^shift records, and `index` is masked.
        unsafe { self.table.add(index & self.mask()) }
    }

    fn read(&self, index: usize) -> Record {
        // SAFETY: within the open table. Any bits are a record.
        unsafe { *self.place(index) }
    }

    /// The address goes last: a fork in between finds no record, or a whole one.
    fn write(&mut self, index: usize, record: Record) {
        let place = self.place(index);
        // SAFETY: within the open table, under the lock.
        unsafe {
            (*place).address = 0;
            compiler_fence(Release);
            (*place).bytes = record.bytes;
            (*place).stray = record.stray;
            (*place).note = record.note;
            (*place).owner = record.owner;
            compiler_fence(Release);
            (*place).address = record.address;
        }
    }

    #[inline]
    fn index_of(&self, address: usize) -> Option<usize> {
        if self.shift == 0 || address == 0 {
            return None;
        }
        let (mut index, mask) = (self.home(address), self.mask());
        // Some place is always empty.
        loop {
            let at = self.address_at(index);
            if at == address {
                return Some(index);
            }
            if at == 0 {
                return None;
            }
            index = (index + 1) & mask;
        }
    }

    #[inline(always)]
    fn address_at(&self, index: usize) -> usize {
        // SAFETY: the table has 2^shift records, and `place` masks the index.
        unsafe { (*self.place(index)).address }
    }

    #[inline]
    pub(super) fn at(&mut self, address: usize) -> Option<&mut Record> {
        let index = self.index_of(address)?;
        // SAFETY: within the open table. The exclusive borrow of `self` stands for the lock.
        Some(unsafe { &mut *self.place(index) })
    }

    /// Place and address of the first live block of `owner` from `index` on.
    pub(super) fn next_of(&self, index: usize, owner: Owner) -> Option<(usize, usize)> {
        let end = if self.shift == 0 { 0 } else { 1 << self.shift };
        let mut records = (index..end).map(|index| (index, self.read(index)));
        records
            .find(|(_, record)| record.address != 0 && record.stray == 0 && record.owner == owner)
            .map(|(index, record)| (index, record.address))
    }

    /// Enters a record. False if the table is full: one place stays empty, where probes end.
    #[must_use]
    pub(super) fn insert(&mut self, record: Record) -> bool {
        if self.shift == 0 || self.count >= self.mask() {
            return false;
        }
        let mut index = self.home(record.address);
        while self.address_at(index) != 0 {
            index += 1;
        }
        self.write(index, record);
        self.count += 1;
        true
    }

    /// As [`Table::remove`] for a record that comes back by [`Table::put_back`]: its place stays its own.
    pub(super) fn take_out(&mut self, address: usize) -> Option<Record> {
        let record = self.remove(address)?;
        self.out += 1;
        Some(record)
    }

    /// Enters a record that was taken out. Its place was kept, so there is room for it.
    pub(super) fn put_back(&mut self, record: Record) {
        self.out = self.out.saturating_sub(1);
        let entered = self.insert(record);
        debug_assert!(entered);
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, address: usize) -> Option<Record> {
        let index = self.index_of(address)?;
        let removed = self.read(index);
        self.close(index);
        Some(removed)
    }

    /// As [`Table::remove`], of a live block.
    #[inline]
    pub(super) fn remove_live(&mut self, address: usize) -> Option<Record> {
        let index = self.index_of(address)?;
        let removed = self.read(index);
        if removed.stray != 0 {
            return None;
        }
        self.close(index);
        Some(removed)
    }

    /// Empties a place and closes the gap by moving later records back (Knuth, TAOCP 3, 6.4, R).
    #[inline]
    fn close(&mut self, mut hole: usize) {
        let (mut index, first) = (hole, hole);
        loop {
            index += 1;
            let address = self.address_at(index);
            if address == 0 {
                break;
            }
            let distance = index.wrapping_sub(self.home(address)) & self.mask();
            if distance >= (index.wrapping_sub(hole) & self.mask()) {
                if hole == first {
                    self.raise_epoch();
                }
                self.write(hole, self.read(index));
                hole = index;
            }
        }
        // SAFETY: within the open table, under the lock.
        unsafe { (*self.place(hole)).address = 0 };
        if hole != first {
            self.raise_epoch();
        }
        self.count -= 1;
    }

    /// Copies the records to the stale table at `table`, which becomes the table once it is whole. A fork in between
    /// leaves the old one in use.
    pub(super) fn move_to(&mut self, table: *mut Record, shift: u32) {
        // SAFETY: 2^shift records were opened there, apart from the old table.
        unsafe { core::ptr::write_bytes(table, 0, 1 << shift) };
        let mut new = Table {
            table,
            shift,
            mask: (1 << shift) - 1,
            out: self.out,
            ..Table::new()
        };
        let old = if self.shift == 0 { 0 } else { 1 << self.shift };
        for record in (0..old).map(|index| self.read(index)) {
            // The new table has twice the places.
            let entered = record.address == 0 || new.insert(record);
            debug_assert!(entered);
        }
        compiler_fence(Release);
        (self.table, self.count) = (new.table, new.count);
        compiler_fence(Release);
        (self.shift, self.mask) = (shift, new.mask);
    }

    /// In a fork child: the table of the present size, made whole. What other threads had taken out does not
    /// come back.
    pub(super) fn rebuild(&mut self, meta: &Meta) {
        self.out = 0;
        if self.shift == 0 {
            return;
        }
        let here = if self.shift % 2 == 1 {
            Area::LargeOdd
        } else {
            Area::LargeEven
        };
        self.table = meta.start::<Record>(here).as_ptr();
        self.mask = (1 << self.shift) - 1;
        // The parent's other threads may have left it odd.
        self.epoch = self.epoch.next_multiple_of(2);
        self.close_gaps();
    }

    /// Puts every record where a probe from its home finds it, and drops doubles, in place. A record moves only to
    /// earlier places of its probe, so passes are repeated until none moves.
    fn close_gaps(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            self.count = 0;
            for index in 0..=self.mask() {
                let record = self.read(index);
                if record.address == 0 {
                    continue;
                }
                self.count += 1;
                if self.index_of(record.address).map(|at| at & self.mask()) != Some(index) {
                    let known = self.index_of(record.address).is_some();
                    self.write(index, Record::NONE);
                    self.count -= 1;
                    // The place that it had is free.
                    let entered = known || self.insert(record);
                    debug_assert!(entered);
                    moved = true;
                }
            }
        }
    }
}
