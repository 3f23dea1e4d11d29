//! Large blocks: a mapping each, recorded out of band, with a small cache of freed ones.
//!
//! ```text
//!   record table (open addressing, by address)      mappings, anywhere
//!     | address | bytes | live | ... |  ---------->  [ block           ]
//!     | address | bytes | kept since t |  -------->  [ freed, for reuse ]
//! ```
//!
//! Two areas hold the table in turn: it doubles by copying from one into the other. One lock, never
//! held over a system call: a record is taken out before its mapping is changed, and put back if that
//! fails.

use crate::counters;
use crate::geometry::PAGE_SHIFT;
use crate::meta::{Area, Meta, RECORD_BYTES};
use crate::os::Os;
use crate::sync::{Guard, Lock};
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{compiler_fence, Ordering::Release};

/// Base-2 logarithm of the first table's records.
const FIRST_SHIFT: u32 = 7;
/// The most freed mappings kept for reuse.
const KEPT: usize = 64;
/// The largest mapping kept for reuse, in bytes.
const KEPT_MAX: usize = 4 << 20;
/// Bytes kept for reuse beyond the bytes that are live.
const KEPT_BYTES: usize = 16 << 20;

/// What is known of a large block. `address` 0: no record.
#[derive(Clone, Copy)]
#[repr(C)]
struct Record {
    address: usize,
    bytes: usize,
    /// 0 while live; else the time it was freed at, plus one: it is kept for reuse.
    kept: u64,
    /// The bytes that were asked for, where that was noted.
    asked: u64,
}

static_assertions::const_assert_eq!(core::mem::size_of::<Record>(), RECORD_BYTES);

impl Record {
    const NONE: Record = Record {
        address: 0,
        bytes: 0,
        kept: 0,
        asked: 0,
    };

    const fn of(block: Block, kept: u64) -> Record {
        Record {
            address: block.address,
            bytes: block.bytes,
            kept,
            asked: 0,
        }
    }
}

/// A large block as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its first byte.
    pub address: usize,
    /// Bytes of its mapping.
    pub bytes: usize,
}

/// What an address is to this layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The start of a live block.
    Live(Block),
    /// The start of a block that was freed and is kept for reuse.
    Freed(Block),
    /// Nothing known.
    Unknown,
}

struct Inner {
    table: *mut Record,
    /// Base-2 logarithm of the table's records; 0: no table yet.
    shift: u32,
    /// Records in the table.
    count: usize,
    live_bytes: usize,
    /// Addresses of the mappings kept for reuse; 0: unused place.
    kept: [usize; KEPT],
    kept_bytes: usize,
    /// Freed mappings that could neither be unmapped nor found a place among the kept ones.
    strays: usize,
    /// Bytes open in the odd and the even area.
    opened: [usize; 2],
}

/// The large blocks of the process.
pub struct Large {
    lock: Lock,
    grow_lock: Lock,
    inner: UnsafeCell<Inner>,
}

// SAFETY: `inner` is reached through `Large::inner` alone, which wants the lock's guard.
unsafe impl Sync for Large {}
// SAFETY: the table pointer leads into the metadata region, which belongs to no thread.
unsafe impl Send for Large {}

impl Large {
    /// No blocks.
    pub const fn new() -> Large {
        let inner = Inner {
            table: core::ptr::null_mut(),
            shift: 0,
            count: 0,
            live_bytes: 0,
            kept: [0; KEPT],
            kept_bytes: 0,
            strays: 0,
            opened: [0; 2],
        };
        Large {
            lock: Lock::new(),
            grow_lock: Lock::new(),
            inner: UnsafeCell::new(inner),
        }
    }

    #[allow(clippy::mut_from_ref)] // The guard is the proof of exclusion.
    fn inner<'a>(&'a self, _guard: &'a Guard<'_>) -> &'a mut Inner {
        // SAFETY: callers hold the lock for as long as they use the borrow, and take it once.
        unsafe { &mut *self.inner.get() }
    }

    /// A block of at least `size` >= 1 bytes at a multiple of `align`, and whether it is all zero.
    pub fn map<O: Os>(
        &self,
        os: &O,
        meta: &Meta,
        size: usize,
        align: usize,
    ) -> Option<(Block, bool)> {
        let bytes = size.checked_next_multiple_of(meta.os_page())?;
        if let Some(block) = self.reuse(bytes, align) {
            counters::add(&meta.counters().large, 1);
            count_live(meta, block.bytes);
            return Some((block, false));
        }
        let address = os.map(bytes, align)?;
        let block = Block {
            address: address.as_ptr() as usize,
            bytes,
        };
        if !self.enter(os, meta, block) {
            // SAFETY: the mapping is fresh and nobody knows it.
            unsafe { os.unmap(address, bytes) };
            return None;
        }
        counters::add(&meta.counters().large, 1);
        counters::add(&meta.counters().mapped, bytes as u64);
        count_live(meta, bytes);
        Some((block, true))
    }

    /// The smallest kept mapping of `bytes` to twice as many, made live again.
    fn reuse(&self, bytes: usize, align: usize) -> Option<Block> {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        if inner.kept_bytes < bytes {
            return None;
        }
        let mut best: Option<(usize, Block)> = None;
        for place in 0..KEPT {
            let address = inner.kept[place];
            if address == 0 || address % align != 0 {
                continue;
            }
            let record = inner.at(address)?;
            let fits = record.bytes >= bytes && record.bytes <= bytes.saturating_mul(2);
            if fits && best.is_none_or(|(_, block)| record.bytes < block.bytes) {
                best = Some((
                    place,
                    Block {
                        address,
                        bytes: record.bytes,
                    },
                ));
            }
        }
        let (place, block) = best?;
        inner.unkeep(place, block.bytes);
        inner.at(block.address)?.kept = 0;
        inner.live_bytes += block.bytes;
        Some(block)
    }

    /// Records a new live block; false where the table cannot grow.
    fn enter<O: Os>(&self, os: &O, meta: &Meta, block: Block) -> bool {
        loop {
            {
                let guard = self.lock.lock();
                let inner = self.inner(&guard);
                if inner.has_room() {
                    inner.insert(Record::of(block, 0));
                    inner.live_bytes += block.bytes;
                    return true;
                }
            }
            if !self.grow(os, meta) {
                return false;
            }
        }
    }

    /// Doubles the table: opens the other area and copies.
    fn grow<O: Os>(&self, os: &O, meta: &Meta) -> bool {
        let _growing = self.grow_lock.lock();
        let (shift, mut opened) = {
            let guard = self.lock.lock();
            let inner = self.inner(&guard);
            if inner.has_room() {
                return true;
            }
            (
                if inner.shift == 0 {
                    FIRST_SHIFT
                } else {
                    inner.shift + 1
                },
                inner.opened,
            )
        };
        let area = if shift % 2 == 1 {
            Area::LargeOdd
        } else {
            Area::LargeEven
        };
        let bytes = RECORD_BYTES << shift;
        if bytes > meta.extent(area).bytes
            || !meta.open_to(os, area, &mut opened[(shift % 2) as usize], bytes)
        {
            return false;
        }
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        inner.opened = opened;
        inner.move_to(meta.start::<Record>(area).as_ptr(), shift);
        meta.header()
            .large_shift
            .store(shift, crate::sync::Ordering::Relaxed);
        true
    }

    /// What `address` is.
    pub fn find(&self, address: usize) -> Found {
        let guard = self.lock.lock();
        match self.inner(&guard).at(address) {
            None => Found::Unknown,
            Some(record) if record.kept == 0 => Found::Live(Block {
                address,
                bytes: record.bytes,
            }),
            Some(record) => Found::Freed(Block {
                address,
                bytes: record.bytes,
            }),
        }
    }

    /// Notes how many bytes of the live block at `address` were asked for.
    pub fn note_size(&self, address: usize, asked: usize) {
        let guard = self.lock.lock();
        if let Some(record) = self.inner(&guard).at(address) {
            record.asked = asked as u64;
        }
    }

    /// What `address` is, and how many bytes were asked for, if that was noted.
    pub fn find_sized(&self, address: usize) -> (Found, Option<usize>) {
        let found = self.find(address);
        let guard = self.lock.lock();
        let record = self.inner(&guard).at(address);
        (found, record.map(|record| record.asked as usize))
    }

    /// Frees the block at `address`: keeps its mapping for reuse, or gives it back. Says what it found.
    pub fn unmap<O: Os>(&self, os: &O, meta: &Meta, address: usize) -> Found {
        let now = os.clock();
        let (found, dropped) = {
            let guard = self.lock.lock();
            self.inner(&guard).free(address, now)
        };
        if let Found::Live(block) = found {
            counters::subtract(&meta.counters().large, 1);
            counters::subtract(&meta.counters().live, block.bytes as u64);
        }
        dropped
            .into_iter()
            .flatten()
            .for_each(|block| self.unmap_dropped(os, meta, block));
        found
    }

    /// Unmaps a mapping whose record was taken out; where that fails the record comes back as kept.
    fn unmap_dropped<O: Os>(&self, os: &O, meta: &Meta, block: Block) {
        let start = NonNull::new(block.address as *mut u8);
        // SAFETY: the record is gone, so nobody else unmaps it, and the block was freed.
        if start.is_some_and(|start| unsafe { os.unmap(start, block.bytes) }) {
            counters::subtract(&meta.counters().mapped, block.bytes as u64);
            return;
        }
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        inner.insert(Record::of(block, 1));
        inner.keep(block);
    }

    /// Resizes the live block at `address`, moving it if need be; the contents stay up to the smaller
    /// size. `None`: nothing changed.
    pub fn remap<O: Os>(&self, os: &O, meta: &Meta, block: Block, size: usize) -> Option<Block> {
        let bytes = size.checked_next_multiple_of(meta.os_page())?;
        if bytes == block.bytes {
            return Some(block);
        }
        {
            let guard = self.lock.lock();
            let inner = self.inner(&guard);
            inner.remove(block.address)?;
            inner.live_bytes -= block.bytes;
        }
        let start = NonNull::new(block.address as *mut u8)?;
        // SAFETY: the caller owns the live block, and its record is out of everybody's reach.
        let moved = unsafe { os.remap(start, block.bytes, bytes) };
        let now = moved.map_or(block, |start| Block {
            address: start.as_ptr() as usize,
            bytes,
        });
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        // The place of the record taken out may be gone, but the table is never filled to the brim.
        inner.insert(Record::of(now, 0));
        inner.live_bytes += now.bytes;
        moved?;
        for counter in [&meta.counters().mapped, &meta.counters().live] {
            counters::subtract(counter, block.bytes as u64);
        }
        counters::add(&meta.counters().mapped, now.bytes as u64);
        count_live(meta, now.bytes);
        Some(now)
    }

    /// Gives back the mappings kept since before `then`; all where `then` is `u64::MAX`.
    pub fn decay<O: Os>(&self, os: &O, meta: &Meta, then: u64) {
        for _ in 0..KEPT {
            let dropped = {
                let guard = self.lock.lock();
                let inner = self.inner(&guard);
                inner.take_in_strays();
                inner.drop_older(then)
            };
            match dropped {
                Some(block) => self.unmap_dropped(os, meta, block),
                None => return,
            }
        }
    }

    /// Bytes in live blocks, and how many there are.
    pub fn live(&self) -> (usize, usize) {
        let guard = self.lock.lock();
        let inner = self.inner(&guard);
        let kept = inner.kept.iter().filter(|&&address| address != 0).count();
        (inner.live_bytes, inner.count - kept - inner.strays)
    }

    /// Whether nobody holds a lock.
    pub fn locks_are_free(&self) -> bool {
        self.lock.is_free() && self.grow_lock.is_free()
    }

    /// In a fork child: frees the locks and makes the table whole, whatever the parent's other threads
    /// were doing to it.
    pub fn rebuild(&self, meta: &Meta) {
        self.lock.reset();
        self.grow_lock.reset();
        let guard = self.lock.lock();
        self.inner(&guard).rebuild(meta);
    }

    /// Number of broken invariants, while nobody else is at work.
    pub fn validate(&self) -> usize {
        let guard = self.lock.lock();
        self.inner(&guard).validate()
    }
}

impl Default for Large {
    fn default() -> Large {
        Large::new()
    }
}

fn count_live(meta: &Meta, bytes: usize) {
    let counters = meta.counters();
    counters::add(&counters.handed_out, bytes as u64);
    counters::add_with_peak(&counters.live, &counters.peak, bytes as u64);
}

impl Inner {
    fn mask(&self) -> usize {
        (1 << self.shift) - 1
    }

    /// Kept at most half full, with room for a record that comes back.
    fn has_room(&self) -> bool {
        self.shift != 0 && self.count < 1 << (self.shift - 1)
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
        // SAFETY: within the open table; any bits are a record.
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
            (*place).kept = record.kept;
            (*place).asked = record.asked;
            compiler_fence(Release);
            (*place).address = record.address;
        }
    }

    fn index_of(&self, address: usize) -> Option<usize> {
        if self.shift == 0 || address == 0 {
            return None;
        }
        let home = self.home(address);
        let probe = (home..=home + self.mask()).map(|index| (index, self.read(index).address));
        probe
            .take_while(|&(_, at)| at != 0)
            .find(|&(_, at)| at == address)
            .map(|(index, _)| index)
    }

    fn at(&mut self, address: usize) -> Option<&mut Record> {
        let index = self.index_of(address)?;
        // SAFETY: within the open table; the exclusive borrow of `self` stands for the lock.
        Some(unsafe { &mut *self.place(index) })
    }

    fn insert(&mut self, record: Record) {
        let mut index = self.home(record.address);
        while self.read(index).address != 0 {
            index += 1;
        }
        self.write(index, record);
        self.count += 1;
    }

    /// Takes a record out and closes the gap by moving later ones back (Knuth, TAOCP 3, 6.4, R).
    fn remove(&mut self, address: usize) -> Option<Record> {
        let mut hole = self.index_of(address)?;
        let removed = self.read(hole);
        let mut index = hole;
        loop {
            index += 1;
            let record = self.read(index);
            if record.address == 0 {
                break;
            }
            let distance = index.wrapping_sub(self.home(record.address)) & self.mask();
            if distance >= (index.wrapping_sub(hole) & self.mask()) {
                self.write(hole, record);
                hole = index;
            }
        }
        self.write(hole, Record::NONE);
        self.count -= 1;
        Some(removed)
    }

    /// Copies the records to the stale table at `table`, which becomes the table once it is whole: a fork
    /// in between leaves the old one in use.
    fn move_to(&mut self, table: *mut Record, shift: u32) {
        // SAFETY: 2^shift records were opened there, apart from the old table.
        unsafe { core::ptr::write_bytes(table, 0, 1 << shift) };
        let mut new = Inner {
            table,
            shift,
            count: 0,
            ..*self
        };
        let old = if self.shift == 0 { 0 } else { 1 << self.shift };
        for record in (0..old).map(|index| self.read(index)) {
            if record.address != 0 {
                new.insert(record);
            }
        }
        compiler_fence(Release);
        (self.table, self.count) = (new.table, new.count);
        compiler_fence(Release);
        self.shift = shift;
    }

    fn keep(&mut self, block: Block) {
        if let Some(place) = self.kept.iter().position(|&address| address == 0) {
            self.kept[place] = block.address;
            self.kept_bytes += block.bytes;
        } else {
            self.strays += 1;
        }
    }

    /// Gives strays places that have become free, so that they are unmapped with the others.
    fn take_in_strays(&mut self) {
        let mut index = 0;
        while self.strays > 0 && index <= self.mask() && self.kept.contains(&0) {
            let record = self.read(index);
            if record.kept != 0 && !self.kept.contains(&record.address) {
                self.strays -= 1;
                self.keep(Block {
                    address: record.address,
                    bytes: record.bytes,
                });
            }
            index += 1;
        }
    }

    fn unkeep(&mut self, place: usize, bytes: usize) {
        self.kept[place] = 0;
        self.kept_bytes -= bytes;
    }

    /// Frees a live block: its mapping is kept, or comes back to be unmapped; with it comes the oldest
    /// kept one where the bounds want it.
    fn free(&mut self, address: usize, now: u64) -> (Found, [Option<Block>; 2]) {
        let Some(record) = self.at(address) else {
            return (Found::Unknown, [None; 2]);
        };
        let block = Block {
            address,
            bytes: record.bytes,
        };
        if record.kept != 0 {
            return (Found::Freed(block), [None; 2]);
        }
        self.live_bytes -= block.bytes;
        if block.bytes > KEPT_MAX || block.bytes > KEPT_BYTES + self.live_bytes {
            self.remove(address);
            let over = self.kept_bytes > KEPT_BYTES + self.live_bytes;
            let oldest = if over {
                self.drop_older(u64::MAX)
            } else {
                None
            };
            return (Found::Live(block), [Some(block), oldest]);
        }
        let full = self.kept.iter().all(|&address| address != 0);
        let over = self.kept_bytes + block.bytes > KEPT_BYTES + self.live_bytes;
        let oldest = if full || over {
            self.drop_older(u64::MAX)
        } else {
            None
        };
        if let Some(record) = self.at(address) {
            record.kept = now + 1;
        }
        self.keep(block);
        let surplus = self.kept_bytes > KEPT_BYTES + self.live_bytes;
        (
            Found::Live(block),
            [
                oldest,
                if surplus {
                    self.drop_older(u64::MAX)
                } else {
                    None
                },
            ],
        )
    }

    /// Takes out the record of the mapping that was kept longest, if that was before `then`.
    fn drop_older(&mut self, then: u64) -> Option<Block> {
        let mut oldest: Option<(usize, Record)> = None;
        for place in 0..KEPT {
            let Some(record) = self.at(self.kept[place]).map(|record| *record) else {
                continue;
            };
            if record.kept <= then && oldest.is_none_or(|(_, other)| record.kept < other.kept) {
                oldest = Some((place, record));
            }
        }
        let (place, record) = oldest?;
        self.unkeep(place, record.bytes);
        self.remove(record.address);
        Some(Block {
            address: record.address,
            bytes: record.bytes,
        })
    }

    fn rebuild(&mut self, meta: &Meta) {
        if self.shift == 0 {
            return;
        }
        let here = if self.shift % 2 == 1 {
            Area::LargeOdd
        } else {
            Area::LargeEven
        };
        self.table = meta.start::<Record>(here).as_ptr();
        self.close_gaps();
        self.kept = [0; KEPT];
        (self.live_bytes, self.kept_bytes, self.strays) = (0, 0, 0);
        for index in 0..=self.mask() {
            let record = self.read(index);
            if record.address != 0 && record.kept == 0 {
                self.live_bytes += record.bytes;
            } else if record.address != 0 {
                self.keep(Block {
                    address: record.address,
                    bytes: record.bytes,
                });
            }
        }
    }

    /// Puts every record where a probe from its home finds it, and drops doubles, in place: a record
    /// moves only to earlier places of its probe, so passes are repeated until none moves.
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
                    if !known {
                        self.insert(record);
                    }
                    moved = true;
                }
            }
        }
    }

    fn validate(&self) -> usize {
        if self.shift == 0 {
            return usize::from(self.count != 0);
        }
        let (mut wrong, mut count, mut live, mut kept) = (0, 0, 0, 0);
        for index in 0..=self.mask() {
            let record = self.read(index);
            if record.address == 0 {
                continue;
            }
            count += 1;
            wrong += usize::from(
                self.index_of(record.address).map(|at| at & self.mask()) != Some(index),
            );
            // A mapping that could not be unmapped may find no place among the kept ones.
            let listed = self
                .kept
                .iter()
                .filter(|&&address| address == record.address)
                .count();
            wrong += usize::from(listed > usize::from(record.kept != 0));
            live += if record.kept == 0 { record.bytes } else { 0 };
            kept += listed * record.bytes;
        }
        wrong
            + usize::from(count != self.count || live != self.live_bytes || kept != self.kept_bytes)
    }
}
