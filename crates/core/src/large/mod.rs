//! Large blocks: a mapping each, recorded out of band, with freed ones kept for a while.
//!
//! ```text
//!   record table, by address          mappings, anywhere
//!     | address | bytes |  -------->  [ block            ][ kept      ]
//!     | address | bytes |  -------->  [ block                     ]
//!   kept ranges, 512 at most -----------------------------^
//! ```
//!
//! Here a block begins and ends. What is kept of it and for how long, how later blocks have it and what is recorded are
//! a file each. Knows no thread and no heap but by its owner word, which it keeps for callers.
//!
//! One lock, never held over a system call: a record is taken out before its mapping is changed, and put
//! back if that fails.

mod block;
mod table;
mod range_index;
mod resting;
mod range_cache;
mod mappings;
mod records;
mod strays;
mod reuse;
mod bound;
mod give_back;
mod fill;
mod resize;

use crate::counters;
use crate::learnt::Learnt;
use crate::meta::{Area, Meta, Supply, RECORD_BYTES};
use crate::mutex::{Lock, Mutex, Registry};
use crate::options::{Name, Options};
use crate::os::Vm;
use crate::sync::{AtomicU32, Ordering::Relaxed};
use crate::units::PAGE;
use bound::SPARE;
use mappings::{count_freed, count_one, map_fresh};
use range_cache::RangeCache;
use range_index::Range;
use records::FORKED;
use table::{Record, Table, STRAY};

pub use block::{Block, Found, Fresh, GuardPages};
pub use fill::APART_LEAST;
pub use records::UNUSED_MAX;

/// Base-2 logarithm of the first table's records.
const FIRST_SHIFT: u32 = 7;

#[repr(C)] // As `Large`.
struct Inner {
    table: Table,
    live_bytes: usize,
    /// The most bytes live since the last tick, and in the interval before.
    most: [usize; 2],
    last_tick: u64,
    /// Time between two ticks, in milliseconds.
    interval: u64,
    /// Records of freed mappings that could not be unmapped.
    strays: usize,
    /// The place in the table where the search for strays goes on.
    stray_place: usize,
    /// No stray has so many bytes.
    stray_bytes: usize,
    /// Bytes that are kept although few are live.
    spare: Learnt,
    /// Bytes that are kept although something else in the process grows.
    way: Learnt,
    /// Bytes by which something else grew, and for which nothing went back yet.
    pressed: usize,
    /// Whether ticks come although the program makes no call.
    attended: bool,
    /// Whether freed blocks may rest.
    rests: bool,
    /// Whether each block has a mapping of its own, between guard pages. Nothing is kept then but clear pages, which
    /// move to new blocks.
    apart: bool,
    /// Bytes that may come to rest before the next look at the clock.
    unseen: usize,
    /// Bytes that may come to rest before more is kept than the bound allows.
    allowance: usize,
    /// Bytes open in the even and the odd area.
    opened: [usize; 2],
    kept: RangeCache,
}

/// The large blocks of the process.
///
/// What every start writes to comes first (see `heap::Backend`).
#[repr(C)]
pub struct Large {
    /// Under the lock of the records, which is never held over a system call.
    inner: Mutex<Inner>,
    grow_lock: Mutex<()>,
    /// As `Inner::apart`, for whoever has no lock: 0 or 1.
    apart: AtomicU32,
}

// SAFETY: the table pointer leads into the metadata region, which belongs to no thread.
unsafe impl Send for Inner {}

impl Large {
    /// No blocks.
    pub const fn new(locks: &mut Registry) -> Large {
        let inner = Inner {
            table: Table::new(),
            kept: RangeCache::new(),
            live_bytes: 0,
            most: [0; 2],
            last_tick: 0,
            interval: Name::Decay.spec().default as u64,
            strays: 0,
            stray_place: 0,
            stray_bytes: usize::MAX,
            spare: Learnt::new(SPARE, usize::MAX),
            way: Learnt::new(SPARE, usize::MAX),
            pressed: 0,
            attended: false,
            rests: false,
            apart: false,
            unseen: 0,
            allowance: 0,
            opened: [0; 2],
        };
        Large {
            inner: Mutex::new(locks, inner),
            grow_lock: Mutex::new(locks, ()),
            apart: AtomicU32::new(0),
        }
    }

    /// From now on ticks come although the program makes no call, or they do no more.
    pub fn set_attended(&self, attended: bool) {
        self.inner.lock().attended = attended;
    }

    /// Keeps what is freed for as long as `options` say. Before the first block.
    pub fn configure(&self, options: &Options) {
        let inner = &mut *self.inner.lock();
        inner.interval = options.get(Name::Decay) as u64;
        // The block that was freed last is the easiest one to foretell.
        inner.apart = options.is_on(Name::Hardened) || options.is_on(Name::Guard);
        self.apart.store(u32::from(inner.apart), Relaxed);
        inner.rests = !inner.apart && !options.is_on(Name::Random);
    }

    /// States in the region's header where the large blocks are recorded, and how.
    pub fn describe(&self, meta: &Meta) {
        let inner = &mut *self.inner.lock();
        inner.table.describe(meta.header());
        inner.kept.describe(meta.header());
    }

    // ---- mapping and unmapping ------------------------------------------------------------------

    /// A block of at least `size` >= 1 bytes at a multiple of `align`.
    pub fn map<O: Vm>(&self, supply: Supply<O>, size: usize, align: usize) -> Option<Fresh> {
        let bytes = size.checked_next_multiple_of(supply.meta.os_page())?;
        let mut reused = self.reuse(bytes, align);
        // A table without room must not keep what was freed from being used.
        if reused.is_none() && self.is_full() {
            // What cannot be recorded need not be mapped.
            if !self.grow(supply) {
                return None;
            }
            reused = self.reuse(bytes, align);
        }
        let (block, new) = match reused {
            Some(block) => (block, None),
            None => {
                let (block, new) = self.map_anew(supply, bytes, align)?;
                let filled = self.fill(supply, block, new);
                let (block, unused) =
                    filled.or_else(|| Some((map_fresh(supply, bytes, align)?, bytes)))?;
                self.enter(supply, block, unused)?;
                let is_zero = unused == block.bytes || self.keeps_clear();
                (block, is_zero.then_some(unused))
            }
        };
        count_one(supply.meta, block.bytes);
        Some(Fresh { block, new })
    }

    /// The common half of [`Large::map`]: `size` freed bytes again, if there are as many, and without a system call.
    #[inline]
    pub fn map_again(&self, meta: &Meta, size: usize) -> Option<Block> {
        let bytes = meta.os_pages(size);
        let block = {
            let inner = &mut *self.inner.lock();
            match inner.wake(bytes) {
                Some(block) => block,
                None => inner.reuse(bytes, 1)?,
            }
        };
        count_one(meta, block.bytes);
        Some(block)
    }

    /// Freed bytes made a live block.
    fn reuse(&self, bytes: usize, align: usize) -> Option<Block> {
        let inner = &mut *self.inner.lock();
        let rested = (align <= PAGE).then(|| inner.wake(bytes)).flatten();
        rested.or_else(|| inner.reuse(bytes, align))
    }

    /// Whether all that is kept reads as zero.
    fn keeps_clear(&self) -> bool {
        self.apart.load(Relaxed) != 0
    }

    /// Records a new live block, of which `more` bytes were mapped for it. Where another thread took the last place of
    /// the table and it cannot grow, the block is unmapped.
    fn enter<O: Vm>(&self, supply: Supply<O>, block: Block, more: usize) -> Option<()> {
        loop {
            {
                let inner = &mut *self.inner.lock();
                if inner.begin(block) {
                    inner.miss(block, more);
                    break;
                }
            }
            if !self.grow(supply) {
                self.unmap_dropped(supply, Some(Range::freed(block, 0)));
                return None;
            }
        }
        self.shed(supply, supply.os.clock());
        Some(())
    }

    /// Frees the block at `address`: keeps its mapping for reuse, or gives it back. Says what it found.
    pub fn unmap<O: Vm>(&self, supply: Supply<O>, address: usize) -> Found {
        let now = supply.os.clock();
        let (found, dropped, over, due) = {
            let inner = &mut *self.inner.lock();
            let (found, dropped) = inner.free(address, now);
            (found, dropped, inner.limit_rest() > 0, inner.is_due(now))
        };
        if let Found::Live(block) = found {
            count_freed(supply.meta, block.bytes);
        }
        if dropped.is_some() {
            self.unmap_dropped(supply, dropped);
        }
        if over {
            self.shed(supply, now);
        }
        if due {
            self.decay(supply, now);
        }
        found
    }

    /// The common half of [`Large::unmap`]: the block at `address` comes to rest. Its bytes, or `None` where more is to be
    /// done, or something is wrong.
    #[inline]
    pub fn unmap_to_rest(&self, meta: &Meta, address: usize) -> Option<usize> {
        let bytes = self.inner.lock().lay_to_rest(address)?;
        count_freed(meta, bytes);
        Some(bytes)
    }

    /// Ends the life of the block at `address`, whose mapping is the caller's from then on and is not kept here.
    /// Says what it found, and whether its pages may be some fork child's as well.
    pub fn take_out(&self, meta: &Meta, address: usize) -> (Found, bool) {
        let (found, shared) = {
            let inner = &mut *self.inner.lock();
            let found = inner.find(address);
            let mut shared = false;
            if let Found::Live(block) = found {
                let record = inner.table.remove(address);
                shared = record.is_some_and(|record| record.note & FORKED != 0);
                inner.live_bytes -= block.bytes;
            }
            (found, shared)
        };
        if let Found::Live(block) = found {
            let counters = meta.counters();
            counters::subtract(&counters.large, 1);
            counters::subtract(&counters.live, block.bytes as u64);
            counters::subtract(&counters.mapped, block.bytes as u64);
            meta.budget.refund(block.bytes);
        }
        (found, shared)
    }

    // ---- the table ------------------------------------------------------------------------------

    /// Whether the table has no room for one more block.
    fn is_full(&self) -> bool {
        !self.inner.lock().table.has_room()
    }

    /// Doubles the table: opens the other area and copies.
    fn grow<O: Vm>(&self, supply: Supply<O>) -> bool {
        let _growing = self.grow_lock.lock();
        let (shift, mut opened) = {
            let inner = &mut *self.inner.lock();
            if inner.table.has_room() {
                return true;
            }
            let next = if inner.table.shift == 0 {
                FIRST_SHIFT
            } else {
                inner.table.shift + 1
            };
            (next, inner.opened)
        };
        let area = if shift % 2 == 1 {
            Area::LargeOdd
        } else {
            Area::LargeEven
        };
        let bytes = RECORD_BYTES << shift;
        if bytes > supply.meta.extent(area).bytes
            || !supply
                .meta
                .open_to(supply.os, area, &mut opened[(shift % 2) as usize], bytes)
        {
            return self.make_room();
        }
        let inner = &mut *self.inner.lock();
        inner.opened = opened;
        inner
            .table
            .move_to(supply.meta.start::<Record>(area).as_ptr(), shift);
        supply
            .meta
            .header()
            .large_shift
            .store(shift, crate::sync::Ordering::Release);
        true
    }

    /// Takes the records of blocks at rest out of a table that cannot grow. Whether it has room then.
    #[cold]
    fn make_room(&self) -> bool {
        let inner = &mut *self.inner.lock();
        inner.settle();
        inner.table.has_room()
    }

    /// Bytes of all mappings that are known here.
    pub fn mapped_bytes(&self) -> usize {
        let inner = self.inner.lock();
        let records = inner.table.each().map(|(_, record)| record.bytes);
        records.sum::<usize>() + inner.kept.all_bytes()
    }

    /// Bytes of freed blocks that are kept and may be resident.
    pub fn kept_bytes(&self) -> usize {
        self.inner.lock().kept.bytes()
    }

    // ---- fork, and checking ---------------------------------------------------------------------

    /// Whether nobody holds the lock of the records, which is never held over a system call.
    pub fn record_lock_is_free(&self) -> bool {
        self.inner.as_lock().is_free()
    }

    /// Shows every lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.inner.as_lock());
        visit(self.grow_lock.as_lock());
    }

    /// In a fork child, after the locks were made free: makes the table whole, whatever the parent's other threads
    /// were doing to it.
    pub fn rebuild(&self, meta: &Meta) {
        self.inner.lock().rebuild(meta);
    }

    /// Number of broken invariants, while nobody else is at work.
    pub fn validate(&self) -> usize {
        self.inner.lock().validate()
    }
}

impl Inner {
    fn rebuild(&mut self, meta: &Meta) {
        self.table.rebuild(meta);
        self.kept.resting.rebuild(&mut self.table);
        self.kept.rebuild();
        (self.live_bytes, self.strays) = (0, 0);
        for (_, record) in self.table.each() {
            match record.stray {
                0 => self.live_bytes += record.bytes,
                STRAY => self.strays += 1,
                _ => {}
            }
        }
        self.most = [self.live_bytes; 2];
        self.stray_bytes = usize::MAX;
        (self.unseen, self.allowance) = (0, 0);
    }

    fn validate(&self) -> usize {
        let (mut wrong, mut live, mut strays) = (0, 0, 0);
        for (index, record) in self.table.each() {
            wrong += usize::from(!self.table.is_found(index, &record));
            wrong += usize::from(self.kept.overlaps(&record.block()));
            strays += usize::from(record.stray == STRAY);
            live += if record.stray == 0 { record.bytes } else { 0 };
        }
        let count = self.table.each().count();
        let agree = (count, live, strays) == (self.table.count, self.live_bytes, self.strays);
        let resting = self.kept.resting.validate(&self.table);
        wrong + resting + self.kept.validate() + usize::from(!agree)
    }
}
