//! Large blocks: a mapping each, recorded out of band, with freed ones kept for a while.
//!
//! ```text
//!   record table, by address          mappings, anywhere
//!     | address | bytes |  -------->  [ block            ][ kept      ]
//!     | address | bytes |  -------->  [ block                     ]
//!   kept ranges, 512 at most -----------------------------^
//! ```
//!
//! What is kept makes no heap much larger than it was a moment ago: at most the bytes by which less is live than
//! lately, a sixteenth of those, and `SLACK`. And it is little until the program takes again what was unmapped a
//! moment ago: an idle process makes no further call, and would keep it for good. What no block needed between two
//! ticks goes back to the system. The kernel refuses to unmap a block if that would exceed `vm.max_map_count`. Such a
//! block gives up its pages and stays in the table of records as a *stray*, which serves later blocks.
//!
//! One lock, never held over a system call: a record is taken out before its mapping is changed, and put
//! back if that fails.

mod table;
mod range_index;
mod resting;
mod range_cache;

use crate::counters;
use crate::learnt::Learnt;
use crate::meta::{Area, Meta, Supply, RECORD_BYTES};
use crate::mutex::{Lock, Mutex, Registry};
use crate::options::{Name, Options};
use crate::os::{Moved, Vm, MAPPINGS};
use crate::owner::Owner;
use crate::sync::{AtomicU32, Ordering::Relaxed};
use crate::units::PAGE;
use core::ptr::NonNull;
use core::sync::atomic::{compiler_fence, Ordering::Release};
use range_cache::RangeCache;
use range_index::Range;
use table::{Record, Table, AT_REST, STRAY};

/// Base-2 logarithm of the first table's records.
const FIRST_SHIFT: u32 = 7;
/// The largest mapping kept for reuse, in bytes.
const KEPT_MAX: usize = 64 << 20;
/// Bytes kept for reuse beyond those by which less is live than lately.
const SLACK: usize = 16 << 20;
/// Bytes kept at first, however few are live.
const SPARE: usize = 2 << 20;
/// The part of the live bytes that may be kept besides.
const SPARE_PART: usize = 8;
/// The fewest bytes that are unmapped of a range at a time, or all that it has.
const SHED_LEAST: usize = 1 << 20;
/// Bounds are multiples of this, and so of every system's OS page, in bytes.
const GRAIN: usize = 64 << 10;
/// The fewest kept bytes that are moved to where they are needed. Of fewer a heap stays so lean that the next request
/// finds no range either, and moves again.
const FILL_LEAST: usize = 2 << 20;
/// As [`FILL_LEAST`], of blocks that lie apart: the pages are clear, and each would be fresh.
pub const APART_LEAST: usize = 64 << 10;
/// The part of the mappings that a process may have which moved bytes may take, at [`FILL_LEAST`] each.
const MOVED_PART: usize = 32;
/// The most address space taken for a block to grow into, in bytes.
const ROOM_MAX: usize = 256 << 20;
/// The most strays unmapped at a tick.
const STRAYS_A_TICK: usize = 64;
/// How many strays that fit are compared.
const STRAYS_COMPARED: usize = 16;
/// Freed blocks rest beside so many live ones. Among few, joining what is freed at once saves memory.
const RESTS_AMONG: usize = 48;
/// Bytes that come to rest between two looks at the clock.
const LOOK_EVERY: usize = 4 << 20;
/// In a record's note: the block lived when the process forked, and its child may have the same pages.
const FORKED: u32 = 2;
/// Bits of a note below the bytes that were not asked for.
const NOTE_SHIFT: u32 = 2;
/// The most bytes of a block that were not asked for which can be noted.
pub const UNUSED_MAX: usize = u32::MAX as usize >> NOTE_SHIFT;
/// Times the interval between two ticks that a freed mapping is kept at most.
const KEPT_INTERVALS: u64 = 2;

/// A large block as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its first byte.
    pub address: usize,
    /// Bytes of its mapping.
    pub bytes: usize,
}

impl Block {
    /// The byte after it.
    const fn end(&self) -> usize {
        self.address + self.bytes
    }

    /// What lies after the first `bytes` bytes.
    const fn behind(&self, bytes: usize) -> Block {
        Block {
            address: self.address + bytes,
            bytes: self.bytes - bytes,
        }
    }
}

/// A block that was made just now.
#[derive(Clone, Copy)]
pub struct Fresh {
    pub block: Block,
    /// Where all of it is zero and lies in a mapping that was made for it: how many bytes were mapped afresh.
    pub new: Option<usize>,
}

/// Whether a block lies between pages that fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum GuardPages {
    /// It does not.
    None = 0,
    /// One before it and one behind.
    Both = 1,
}

/// What an address is to this layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The start of a live block.
    Live(Block),
    /// In what was freed and is kept for reuse.
    Freed(Block),
    /// Nothing known.
    Unknown,
}

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

    /// Whether the table has no room for one more block.
    fn is_full(&self) -> bool {
        !self.inner.lock().table.has_room()
    }

    /// A block for which something is mapped, and what that is.
    fn map_anew<O: Vm>(
        &self,
        supply: Supply<O>,
        bytes: usize,
        align: usize,
    ) -> Option<(Block, Block)> {
        self.stretch(supply, bytes, align).or_else(|| {
            let block = map_fresh(supply, bytes, align)?;
            Some((block, block))
        })
    }

    /// Moves kept pages over what was mapped just now, the part `new` of `block`, so that they are used again. Says how
    /// many bytes are left as they were. `None` where a part of the block was lost, and so all of it is given up.
    fn fill<O: Vm>(&self, supply: Supply<O>, block: Block, new: Block) -> Option<(Block, usize)> {
        if self.keeps_clear() {
            return self.fill_apart(supply, block);
        }
        let mut left = new.bytes;
        while left >= FILL_LEAST {
            let Some(kept) = self.inner.lock().kept_to_move(FILL_LEAST, left) else {
                break;
            };
            left -= kept.bytes;
            let to = Block {
                bytes: kept.bytes,
                ..new.behind(left)
            };
            let moved = moved_over(supply, kept.block(), to);
            match moved {
                Moved::Done => continue,
                // Its pages fit nowhere, and would be tried again.
                Moved::Scattered => {
                    left += kept.bytes;
                    match self.unmap_dropped(supply, Some(kept)) {
                        true => continue,
                        false => break,
                    }
                }
                Moved::Refused | Moved::Lost => {}
            }
            let dropped = self.inner.lock().kept.put(kept);
            self.unmap_dropped(supply, dropped);
            if moved == Moved::Refused {
                left += kept.bytes;
                break;
            }
            let before = Block {
                bytes: to.address - block.address,
                ..block
            };
            for part in [before, block.behind(before.bytes + to.bytes)] {
                let part = Some(part).filter(|part| part.bytes > 0);
                self.unmap_dropped(supply, part.map(|part| Range::freed(part, kept.since)));
            }
            return None;
        }
        Some((block, left))
    }

    /// As `fill`, of a block that has a mapping of its own and is to stay one: kept pages become its front.
    fn fill_apart<O: Vm>(&self, supply: Supply<O>, block: Block) -> Option<(Block, usize)> {
        let kept = self.inner.lock().kept_to_move(APART_LEAST, block.bytes);
        let Some(kept) = kept.filter(|kept| kept.bytes <= block.bytes) else {
            return Some((block, block.bytes));
        };
        let (start, to) = (kept.address as *mut u8, block.address as *mut u8);
        let moved = match NonNull::new(start).zip(NonNull::new(to)) {
            // SAFETY: both ranges are in no record and not kept: nobody knows them.
            Some((start, to)) => unsafe { supply.os.move_in(start, kept.bytes, to, block.bytes) },
            None => Moved::Refused,
        };
        if moved == Moved::Done {
            gone(supply, kept.block());
            return Some((block, block.bytes - kept.bytes));
        }
        // What is locked by now, or cannot be moved, serves nobody.
        self.unmap_dropped(supply, Some(kept));
        if moved == Moved::Lost {
            gone(supply, block);
            return None;
        }
        Some((block, block.bytes))
    }

    /// How many of the `bytes` bytes of a block that was freed just now may be kept, if they are clear and lie apart. What is
    /// kept beyond the bound, which has fallen, goes back.
    pub fn may_keep<O: Vm>(&self, supply: Supply<O>, bytes: usize, now: u64) -> usize {
        let (part, over) = {
            let inner = &mut *self.inner.lock();
            if !inner.apart || !inner.kept.has_place() {
                return 0;
            }
            inner.spare.learn(now);
            let room = inner.bound().saturating_sub(inner.kept.bytes());
            let most = bytes.min(room).min(KEPT_MAX);
            let part = if most < APART_LEAST { 0 } else { most };
            inner.spare.give(bytes - part, now);
            (part, inner.surplus() > 0)
        };
        if over {
            self.shed(supply, now);
        }
        part
    }

    /// Keeps the first `bytes` bytes, which are clear, of a mapping that belongs to nobody for later blocks. The budget was
    /// charged for all of it.
    pub fn keep_clear<O: Vm>(&self, supply: Supply<O>, block: Block, bytes: usize, now: u64) {
        counters::add(&supply.meta.counters().mapped, block.bytes as u64);
        if bytes < block.bytes {
            self.unmap_dropped(supply, Some(Range::freed(block.behind(bytes), now)));
        }
        let (dropped, over, due) = {
            let inner = &mut *self.inner.lock();
            let kept = Some(Range::freed(Block { bytes, ..block }, now)).filter(|_| bytes > 0);
            let dropped = kept.and_then(|kept| inner.kept.put(kept));
            (dropped, inner.surplus() > 0, inner.is_due(now))
        };
        self.unmap_dropped(supply, dropped);
        // Others may have been told of the same room at once.
        if over {
            self.shed(supply, now);
        }
        if due {
            self.decay(supply, now);
        }
    }

    /// Makes the largest kept range, if it is worth it, `bytes` long, so that its pages are used again. Says what was
    /// mapped for that.
    fn stretch<O: Vm>(
        &self,
        supply: Supply<O>,
        bytes: usize,
        align: usize,
    ) -> Option<(Block, Block)> {
        if align > supply.meta.os_page() || self.keeps_clear() {
            return None;
        }
        let short = self.inner.lock().kept.take_largest(bytes / 4..bytes)?;
        let old = short.block();
        if let Some(block) = widened(supply, old, bytes) {
            let new = match block.address == old.address {
                true => block.behind(old.bytes),
                false => Block {
                    bytes: bytes - old.bytes,
                    ..block
                },
            };
            return Some((block, new));
        }
        if let Some(block) = remapped(supply, old, bytes) {
            return Some((block, block.behind(old.bytes)));
        }
        let dropped = self.inner.lock().kept.put(short);
        self.unmap_dropped(supply, dropped);
        None
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

    /// The process is about to fork: to write to a page of what lives now, so as to clear it, would copy it.
    pub fn note_fork(&self) {
        if self.keeps_clear() {
            self.inner
                .lock()
                .table
                .each_live(|record| record.note |= FORKED);
        }
    }

    /// Unmaps what is kept beyond its bound.
    fn shed<O: Vm>(&self, supply: Supply<O>, now: u64) {
        self.drop_while(supply, |inner| inner.shed(now));
    }

    fn drop_while<O: Vm>(
        &self,
        supply: Supply<O>,
        mut next: impl FnMut(&mut Inner) -> Option<Range>,
    ) {
        loop {
            let dropped = next(&mut self.inner.lock());
            if !self.unmap_dropped(supply, dropped) {
                return;
            }
        }
    }

    /// Unmaps a range that nobody knows any more, if there is one. Where the kernel refuses, its pages are dropped and
    /// the range is noted as a stray. Says whether its memory went back.
    fn unmap_dropped<O: Vm>(&self, supply: Supply<O>, dropped: Option<Range>) -> bool {
        let Some(range) = dropped else {
            return false;
        };
        let block = range.block();
        if unmapped(supply, block) {
            return true;
        }
        let start = NonNull::new(block.address as *mut u8);
        // SAFETY: the range is in no record and not kept, and it was freed.
        let bare = start.is_some_and(|start| unsafe { supply.os.discard(start, block.bytes) });
        let mut inner = self.inner.lock();
        if bare && inner.note_stray(Record::of(block, STRAY)) {
            counters::add(&supply.meta.counters().purged, range.dirty_bytes() as u64);
            return true;
        }
        if !inner.keep_or_note(range) {
            // Its addresses are lost, but not its memory.
            supply.meta.budget.refund(block.bytes);
        }
        false
    }

    /// Unmaps strays, at most `most`, until one cannot be.
    fn unmap_strays<O: Vm>(&self, supply: Supply<O>, most: usize) {
        for _ in 0..most {
            let Some(stray) = self.inner.lock().take_stray() else {
                return;
            };
            let done = unmapped(supply, stray.block());
            self.inner.lock().end_stray(stray, done);
            if !done {
                return;
            }
        }
    }

    // ---- resizing -------------------------------------------------------------------------------

    /// Resizes the live `block`, moving it if need be. The contents stay up to the smaller size. A block that moves
    /// belongs to the first-class heap `owner` from then on (`Owner::NONE`: to none). `None`: nothing changed.
    pub fn remap<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
        size: usize,
        owner: Owner,
    ) -> Option<Block> {
        let bytes = size.checked_next_multiple_of(supply.meta.os_page())?;
        if bytes == block.bytes {
            return Some(block);
        }
        if bytes < block.bytes {
            return self.shrink(supply, block, bytes);
        }
        let now = match self.grow_in_place(block, bytes) {
            Some(now) => now,
            None => self.move_to_room(supply, block, bytes, owner)?,
        };
        counters::subtract(&supply.meta.counters().live, block.bytes as u64);
        count_live(supply.meta, now.bytes);
        Some(now)
    }

    /// Grows a block over what is kept after it, if that is enough.
    fn grow_in_place(&self, block: Block, bytes: usize) -> Option<Block> {
        let inner = &mut *self.inner.lock();
        let more = bytes - block.bytes;
        inner.live_record(block)?;
        let dirty = inner.kept.bytes();
        if !inner.take_behind(block.end(), more) {
            return None;
        }
        let now = inner.resize(block, bytes)?;
        // Room was never used: what went back might have been there.
        let used = dirty.saturating_sub(inner.kept.bytes());
        inner.miss(now, more.saturating_sub(used));
        Some(now)
    }

    /// Grows a block by moving it to where there is room after it for the next times.
    fn move_to_room<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
        bytes: usize,
        owner: Owner,
    ) -> Option<Block> {
        let record = self.inner.lock().take_out_live(block)?;
        let over = self.move_over_kept(supply, block, bytes);
        let moved = over.or_else(|| moved_to_room(supply, block, bytes));
        let now = match moved {
            Some(moved) => Record {
                address: moved.address,
                bytes,
                owner,
                ..record
            },
            None => record,
        };
        let clock = supply.os.clock();
        let dropped = {
            let inner = &mut *self.inner.lock();
            inner.table.put_back(now);
            inner.count(now.block());
            if over.is_none() {
                inner.miss(now.block(), now.bytes - block.bytes);
            }
            let room = moved.filter(|moved| moved.bytes > bytes);
            room.and_then(|moved| inner.kept.put(Range::room(moved.behind(bytes), clock)))
        };
        self.unmap_dropped(supply, dropped);
        self.shed(supply, clock);
        moved.map(|_| now.block())
    }

    /// Moves a block in no record over the front of a kept range of `bytes` bytes or more: it then has the pages behind
    /// its own, which were used before.
    fn move_over_kept<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
        bytes: usize,
    ) -> Option<Block> {
        let front = self.inner.lock().kept_to_move(bytes, bytes)?;
        match moved_over(supply, block, front.block()) {
            Moved::Done => return Some(front.block()),
            Moved::Refused | Moved::Scattered => {
                let dropped = self.inner.lock().kept.put(front);
                self.unmap_dropped(supply, dropped);
            }
            Moved::Lost => {
                let rest = front.block().behind(block.bytes);
                self.unmap_dropped(supply, Some(Range::freed(rest, front.since)));
            }
        }
        None
    }

    fn shrink<O: Vm>(&self, supply: Supply<O>, block: Block, bytes: usize) -> Option<Block> {
        let clock = supply.os.clock();
        let dropped = {
            let inner = &mut *self.inner.lock();
            let now = inner.resize(block, bytes)?;
            inner.spare.learn(clock);
            inner.unseen = 0; // More is kept than was reckoned with.
            inner.put(block.behind(now.bytes), clock)
        };
        counters::subtract(&supply.meta.counters().live, (block.bytes - bytes) as u64);
        self.unmap_dropped(supply, dropped);
        self.shed(supply, clock);
        Some(Block { bytes, ..block })
    }

    /// Grows the live `block` at its place to at least `size` bytes. False if there is no room.
    pub fn expand<O: Vm>(&self, supply: Supply<O>, block: Block, size: usize) -> bool {
        let bytes = match size.checked_next_multiple_of(supply.meta.os_page()) {
            Some(bytes) if bytes > block.bytes => bytes,
            Some(_) => return true,
            None => return false,
        };
        let grown = self.grow_in_place(block, bytes);
        if grown.is_none() && self.expand_mapping(supply, block, bytes).is_none() {
            return false;
        }
        counters::subtract(&supply.meta.counters().live, block.bytes as u64);
        count_live(supply.meta, bytes);
        true
    }

    fn expand_mapping<O: Vm>(
        &self,
        supply: Supply<O>,
        block: Block,
        bytes: usize,
    ) -> Option<Block> {
        let more = bytes - block.bytes;
        if !supply.meta.budget.charge(more) {
            return None;
        }
        let start = NonNull::new(block.address as *mut u8);
        // SAFETY: the caller owns the live block, so nobody unmaps it meanwhile.
        if !start.is_some_and(|start| unsafe { supply.os.stretch(start, block.bytes, bytes) }) {
            supply.meta.budget.refund(more);
            return None;
        }
        counters::add(&supply.meta.counters().mapped, more as u64);
        let inner = &mut *self.inner.lock();
        inner.miss(block, more);
        inner.resize(block, bytes)
    }

    // ---- blocks of first-class heaps ------------------------------------------------------------

    /// Notes that the live block at `address` belongs to the first-class heap `owner`. A block that moves
    /// is to be noted again.
    pub fn set_owner(&self, address: usize, owner: Owner) {
        let inner = &mut *self.inner.lock();
        if let Some(record) = inner.table.at(address).filter(|record| record.stray == 0) {
            record.owner = owner;
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

    // ---- the table ------------------------------------------------------------------------------

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

    /// Bytes of all mappings that are known here.
    pub fn mapped_bytes(&self) -> usize {
        let inner = self.inner.lock();
        let records = inner.table.each().map(|(_, record)| record.bytes);
        records.sum::<usize>() + inner.kept.all_bytes()
    }

    /// Bytes in live blocks, and how many there are.
    pub fn live(&self) -> (usize, usize) {
        let inner = &mut *self.inner.lock();
        (inner.live_bytes, inner.live_count())
    }

    /// Bytes of freed blocks that are kept and may be resident.
    pub fn kept_bytes(&self) -> usize {
        self.inner.lock().kept.bytes()
    }

    // ---- giving back ----------------------------------------------------------------------------

    /// Gives back what was kept too long, and, an interval after the last, what was not needed in between.
    pub fn decay<O: Vm>(&self, supply: Supply<O>, now: u64) {
        let (mut idle, then) = {
            let inner = &mut *self.inner.lock();
            let then = now.checked_sub(KEPT_INTERVALS * inner.interval);
            (inner.tick(now), then)
        };
        if let Some(then) = then {
            self.drop_while(supply, |inner| {
                let dropped = inner.kept.drop_older(then)?;
                idle = idle.saturating_sub(dropped.dirty_bytes());
                Some(dropped)
            });
        }
        self.drop_while(supply, |inner| {
            if idle == 0 {
                return None;
            }
            let dropped = inner.kept.drop_oldest(idle)?;
            idle = idle.saturating_sub(dropped.dirty_bytes());
            Some(dropped)
        });
        self.unmap_strays(supply, STRAYS_A_TICK);
    }

    /// Something else in the process grew by `bytes` bytes: as many kept ones go back, unless the program took such
    /// bytes again soon after an earlier time.
    pub fn give_way<O: Vm>(&self, supply: Supply<O>, bytes: usize) {
        let now = supply.os.clock();
        let excess = self.inner.lock().gives_way(bytes, now);
        self.give_oldest(supply, excess);
    }

    /// A thread that freed `bytes` bytes has ended, and will not take them again: as many kept ones go back, but for the
    /// few that stay whatever is learnt.
    pub fn give_back_at_end<O: Vm>(&self, supply: Supply<O>, bytes: usize) {
        let excess = self.inner.lock().excess_over(SPARE).min(bytes);
        self.give_oldest(supply, excess);
    }

    /// Gives `excess` kept bytes back, or a few more: those freed longest ago.
    fn give_oldest<O: Vm>(&self, supply: Supply<O>, mut excess: usize) {
        self.drop_while(supply, |inner| {
            if excess == 0 {
                return None;
            }
            let bytes = excess.next_multiple_of(GRAIN).max(SHED_LEAST);
            inner.settle();
            let dropped = inner.kept.drop_oldest(bytes)?;
            excess = excess.saturating_sub(dropped.dirty_bytes());
            Some(dropped)
        });
    }

    /// Gives back all that is kept.
    pub fn give_back<O: Vm>(&self, supply: Supply<O>) {
        self.drop_while(supply, |inner| {
            inner.settle();
            inner.kept.drop_older(u64::MAX)
        });
        self.unmap_strays(supply, usize::MAX);
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

fn map_fresh<O: Vm>(supply: Supply<O>, bytes: usize, align: usize) -> Option<Block> {
    if !supply.meta.budget.charge(bytes) {
        return None;
    }
    let Some(start) = supply.os.map(bytes, align) else {
        supply.meta.budget.refund(bytes);
        return None;
    };
    counters::add(&supply.meta.counters().mapped, bytes as u64);
    let address = start.as_ptr() as usize;
    Some(Block { address, bytes })
}

/// Maps what a mapping that is in no record and not kept lacks to `bytes` bytes, before or after it. Nothing is moved.
/// The whole can still be moved later, which several mappings could not.
fn widened<O: Vm>(supply: Supply<O>, block: Block, bytes: usize) -> Option<Block> {
    let more = bytes - block.bytes;
    if !supply.meta.budget.charge(more) {
        return None;
    }
    let before = block.address.wrapping_sub(more);
    let address = if supply.os.map_at(before, more) {
        before
    } else if supply.os.map_at(block.end(), more) {
        block.address
    } else {
        supply.meta.budget.refund(more);
        return None;
    };
    counters::add(&supply.meta.counters().mapped, more as u64);
    Some(Block { address, bytes })
}

/// Moves `from` over the front of `to`, neither of which is in a record or kept. What is lost is unmapped.
fn moved_over<O: Vm>(supply: Supply<O>, from: Block, to: Block) -> Moved {
    let start = NonNull::new(from.address as *mut u8);
    let Some((start, over)) = start.zip(NonNull::new(to.address as *mut u8)) else {
        return Moved::Refused;
    };
    // SAFETY: the caller took both ranges out of everybody's reach.
    let moved = unsafe { supply.os.move_over(start, from.bytes, over) };
    match moved {
        Moved::Done => gone(supply, from),
        Moved::Refused | Moved::Scattered => {}
        Moved::Lost => gone(
            supply,
            Block {
                bytes: from.bytes,
                ..to
            },
        ),
    }
    moved
}

/// Moves a mapping that is in no record and not kept to where it has `bytes` bytes, with as much room again behind them
/// if it may.
fn moved_to_room<O: Vm>(supply: Supply<O>, block: Block, bytes: usize) -> Option<Block> {
    let room = bytes.saturating_add(bytes.min(ROOM_MAX));
    let may = supply.meta.budget.has(room - block.bytes) && !supply.os.locks_new_pages();
    may.then(|| remapped(supply, block, room))
        .flatten()
        .or_else(|| remapped(supply, block, bytes))
}

/// Makes a mapping that is in no record and not kept `bytes` bytes long, moving it if need be.
fn remapped<O: Vm>(supply: Supply<O>, block: Block, bytes: usize) -> Option<Block> {
    let start = NonNull::new(block.address as *mut u8)?;
    let more = bytes - block.bytes;
    if !supply.meta.budget.charge(more) {
        return None;
    }
    // SAFETY: the caller took the mapping out of everybody's reach.
    let Some(moved) = (unsafe { supply.os.remap(start, block.bytes, bytes) }) else {
        supply.meta.budget.refund(more);
        return None;
    };
    counters::add(&supply.meta.counters().mapped, more as u64);
    Some(Block {
        address: moved.as_ptr() as usize,
        bytes,
    })
}

/// Whether the freed `block`, in no record and not kept, could be unmapped.
fn unmapped<O: Vm>(supply: Supply<O>, block: Block) -> bool {
    let start = NonNull::new(block.address as *mut u8);
    // SAFETY: no record names the mapping and no other thread knows of it, so nobody uses the range.
    let done = start.is_some_and(|start| unsafe { supply.os.unmap(start, block.bytes) });
    if done {
        gone(supply, block);
    }
    done
}

/// What was mapped is no more.
fn gone<O: Vm>(supply: Supply<O>, block: Block) {
    counters::subtract(&supply.meta.counters().mapped, block.bytes as u64);
    supply.meta.budget.refund(block.bytes);
}

/// A block of `bytes` bytes was freed.
#[inline]
fn count_freed(meta: &Meta, bytes: usize) {
    let counters = meta.counters();
    counters::subtract(&counters.large, 1);
    counters::subtract(&counters.live, bytes as u64);
}

/// A block of `bytes` bytes was handed out.
#[inline]
fn count_one(meta: &Meta, bytes: usize) {
    let counters = meta.counters();
    counters::add(&counters.large, 1);
    counters::add(&counters.handed_out, bytes as u64);
    counters::add_with_peak(&counters.live, &counters.peak, bytes as u64);
}

/// A live block that had been counted out has `bytes` bytes.
fn count_live(meta: &Meta, bytes: usize) {
    let counters = meta.counters();
    counters::add(&counters.handed_out, bytes as u64);
    counters::add_with_peak(&counters.live, &counters.peak, bytes as u64);
}

impl Inner {
    /// As [`Large::noted`].
    fn noted(&mut self, address: usize) -> Option<(Block, usize, GuardPages)> {
        let record = *self.table.at(address)?;
        let guard_pages = if record.note & 1 != 0 {
            GuardPages::Both
        } else {
            GuardPages::None
        };
        let asked = record.bytes - (record.note >> NOTE_SHIFT) as usize;
        (record.stray == 0).then_some((record.block(), asked, guard_pages))
    }

    /// What `address` is.
    fn find(&mut self, address: usize) -> Found {
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

    /// Records a block as live. False if the table has no room.
    #[must_use]
    fn begin(&mut self, block: Block) -> bool {
        let entered = self.table.has_room() && self.table.insert(Record::of(block, 0));
        if entered {
            self.count(block);
        }
        entered
    }

    /// Number of live blocks.
    fn live_count(&self) -> usize {
        self.table.count - self.strays - self.kept.resting.count
    }

    /// Counts a live block.
    fn count(&mut self, block: Block) {
        self.live_bytes += block.bytes;
        self.most[0] = self.most[0].max(self.live_bytes);
    }

    /// Takes the record of a live block at `address` out and keeps the block's mapping. What it found, and what is to be
    /// unmapped instead.
    #[inline]
    fn free(&mut self, address: usize, now: u64) -> (Found, Option<Range>) {
        self.spare.learn(now);
        self.kept.resting.since = now;
        let rests = self.rests && self.live_count() >= RESTS_AMONG;
        (self.unseen, self.allowance) = (if rests { LOOK_EVERY } else { 0 }, usize::MAX);
        if let Some(bytes) = self.lay_to_rest(address) {
            return (Found::Live(Block { address, bytes }), None);
        }
        let Some(record) = self.table.remove_live(address) else {
            return (self.find(address), None);
        };
        self.live_bytes -= record.bytes;
        (Found::Live(record.block()), self.put(record.block(), now))
    }

    /// The live block at `address` comes to rest, if it may. Its bytes.
    #[inline(always)]
    fn lay_to_rest(&mut self, address: usize) -> Option<usize> {
        let record = self.table.at(address)?;
        let bytes = record.bytes;
        let may = self.kept.takes_to_rest(bytes) && bytes <= self.unseen.min(self.allowance);
        if record.stray != 0 || !may {
            return None;
        }
        self.kept.resting.push(record);
        self.live_bytes -= bytes;
        self.unseen -= bytes;
        self.allowance -= bytes;
        Some(bytes)
    }

    /// Blocks at rest become ranges as others are.
    fn settle(&mut self) {
        self.kept.settle(&mut self.table);
        self.unseen = 0;
    }

    /// Works out how many bytes may come to rest before the bound is reached. Says how many are kept beyond it.
    fn limit_rest(&mut self) -> usize {
        let (kept, bound) = (self.kept.bytes(), self.bound());
        // With each byte that is freed the bound may fall by a part of it.
        self.allowance = bound.saturating_sub(kept) / (SPARE_PART + 1) * SPARE_PART;
        kept.saturating_sub(bound)
    }

    /// A block at rest of `bytes` bytes, or hardly more, lives again.
    #[inline(always)]
    fn wake(&mut self, bytes: usize) -> Option<Block> {
        let resting = &mut self.kept.resting;
        let size = resting.fit(bytes)?;
        let record = resting.pop(&mut self.table, size)?;
        record.stray = 0;
        let block = record.block();
        self.kept.note_low();
        self.count(block);
        self.allowance += block.bytes;
        Some(block)
    }

    /// The front of a longer block at rest lives again. What is behind it is kept as a range.
    fn wake_front(&mut self, bytes: usize) -> Option<Block> {
        let resting = &mut self.kept.resting;
        let size = resting.fit_longer(bytes)?;
        let record = resting.pop(&mut self.table, size)?;
        let whole = record.block();
        // A fork in between loses what is behind, and no byte has two records.
        record.bytes = bytes;
        compiler_fence(Release);
        record.stray = 0;
        let block = Block { bytes, ..whole };
        if whole.bytes > bytes {
            let since = self.kept.resting.since;
            let replaced = self.kept.put(Range::freed(whole.behind(bytes), since));
            debug_assert!(replaced.is_none(), "the block at rest had a place");
        }
        self.kept.note_low();
        self.count(block);
        self.allowance += bytes;
        Some(block)
    }

    /// Freed bytes made a live block, where no block at rest serves as it is.
    fn reuse(&mut self, bytes: usize, align: usize) -> Option<Block> {
        if !self.table.has_room() {
            return None;
        }
        if self.apart {
            let stray = self.fit_stray(bytes, align)?;
            return self.begin(stray).then_some(stray);
        }
        let mut kept = self.kept.fit(bytes, align);
        if kept.is_none() && self.kept.resting.count > 0 {
            let front = (align <= PAGE).then(|| self.wake_front(bytes)).flatten();
            if front.is_some() {
                return front;
            }
            self.settle();
            kept = self.kept.fit(bytes, align);
        }
        let block = kept.or_else(|| self.fit_stray(bytes, align))?;
        self.begin(block).then_some(block)
    }

    /// Takes out the front of the largest kept range, as [`RangeCache::front_of_largest`], to be moved. What is moved is a
    /// mapping apart from then on: beside very many bytes that live so far the process might come to have too many.
    fn kept_to_move(&mut self, least: usize, most: usize) -> Option<Range> {
        let may = self.live_bytes / FILL_LEAST <= MAPPINGS / MOVED_PART;
        may.then(|| self.kept.front_of_largest(least, most))
            .flatten()
    }

    /// Takes the `more` bytes from `end` on, if all of them are kept.
    fn take_behind(&mut self, end: usize, more: usize) -> bool {
        if self.rest_behind(end, more) {
            self.settle();
        }
        self.kept.take_behind(end, more)
    }

    /// Whether the `more` bytes from `end` on are kept and blocks at rest are among them.
    fn rest_behind(&mut self, end: usize, more: usize) -> bool {
        let (mut at, mut rests) = (end, false);
        while at < end + more {
            let resting = self.table.at(at).filter(|record| record.stray == AT_REST);
            rests |= resting.is_some();
            let bytes = resting.map(|record| record.bytes);
            match bytes.or_else(|| self.kept.length_at(at)) {
                Some(bytes) => at += bytes,
                None => return false,
            }
        }
        rests
    }

    fn put(&mut self, block: Block, now: u64) -> Option<Range> {
        let range = Range::freed(block, now);
        if block.bytes > KEPT_MAX || self.apart {
            return Some(range);
        }
        self.kept.put(range)
    }

    /// The record of `block`, unless another thread has freed it meanwhile: a record at rest is not the caller's.
    fn live_record(&mut self, block: Block) -> Option<&mut Record> {
        let record = self.table.at(block.address)?;
        (record.stray == 0 && record.bytes == block.bytes).then_some(record)
    }

    /// Takes the record of the live `block` out until it is put back.
    fn take_out_live(&mut self, block: Block) -> Option<Record> {
        self.live_record(block)?;
        self.live_bytes -= block.bytes;
        self.table.take_out(block.address)
    }

    /// Notes a live block's new size. The kept ranges were changed before if it grew.
    fn resize(&mut self, block: Block, bytes: usize) -> Option<Block> {
        self.live_record(block)?.bytes = bytes;
        self.live_bytes = self.live_bytes - block.bytes + bytes;
        self.most[0] = self.most[0].max(self.live_bytes);
        Some(Block { bytes, ..block })
    }

    /// Bytes kept beyond the bound.
    fn surplus(&self) -> usize {
        self.kept.bytes().saturating_sub(self.bound())
    }

    /// Bytes that may be kept: what is live and kept is at most what was live lately, a sixteenth more, and a slack.
    fn bound(&self) -> usize {
        let lately = self.most[0].max(self.most[1]);
        let bound = match self.apart {
            true => lately - self.live_bytes,
            false => lately - self.live_bytes + SLACK + lately / 16 / GRAIN * GRAIN,
        };
        let spare = self.spare.bound().max(self.live_bytes / SPARE_PART) / GRAIN * GRAIN;
        bound.min(spare)
    }

    /// Takes out what is to be unmapped since too much is kept.
    fn shed(&mut self, now: u64) -> Option<Range> {
        let surplus = self.surplus();
        if surplus == 0 {
            return None;
        }
        self.settle();
        // Whole blocks mostly: a part that could not be unmapped would serve nobody.
        let dropped = self.kept.drop_oldest(surplus.max(SHED_LEAST));
        self.spare
            .give(dropped.map_or(0, |range| range.dirty_bytes()), now);
        dropped
    }

    /// Bytes kept beyond `bound` and a part of the live ones.
    fn excess_over(&self, bound: usize) -> usize {
        let bound = bound.max(self.live_bytes / SPARE_PART);
        self.kept.bytes().saturating_sub(bound)
    }

    /// Something else in the process grew by `bytes` bytes at `now`: how many kept ones are to go back for it.
    fn gives_way(&mut self, bytes: usize, now: u64) -> usize {
        self.pressed += bytes;
        if self.pressed < SHED_LEAST {
            return 0;
        }
        let pressed = core::mem::take(&mut self.pressed);
        self.way.learn(now);
        let excess = self.excess_over(self.way.bound()).min(pressed);
        if excess > 0 {
            self.way.give(excess, now);
        }
        excess
    }

    /// `more` bytes were mapped for the live `block`, which a kept range might have had.
    fn miss(&mut self, block: Block, more: usize) {
        if block.bytes <= KEPT_MAX {
            self.spare.take(more);
            self.way.take(more);
        }
    }

    /// Whether the next tick is due.
    fn is_due(&self, now: u64) -> bool {
        now.saturating_sub(self.last_tick) >= self.interval
    }

    /// Bytes that were kept all the time since the last tick. 0 if that was just now.
    fn tick(&mut self, now: u64) -> usize {
        if !self.is_due(now) {
            return 0;
        }
        // Each tick leaves nothing at rest, so what rests was freed since the last one.
        let since = &mut self.kept.resting.since;
        *since = self.last_tick.max(*since);
        self.last_tick = now;
        self.most = [self.live_bytes, self.most[0]];
        self.settle();
        let idle = self.kept.idle();
        self.spare.quieten(idle);
        idle
    }

    /// Keeps a range that could not be unmapped, or notes it in the table. False if neither has place.
    fn keep_or_note(&mut self, range: Range) -> bool {
        // Its pages may hold what was freed.
        if self.apart || !self.kept.has_place() {
            return self.note_stray(Record::of(range.block(), STRAY));
        }
        self.kept.put(range);
        self.unseen = 0;
        true
    }

    /// Enters a stray's record, beyond half of the table too: more blocks can come only once it is larger.
    fn note_stray(&mut self, stray: Record) -> bool {
        let entered = self.table.has_spare() && self.table.insert(stray);
        if entered {
            self.strays += 1;
            self.stray_bytes = usize::MAX;
        }
        entered
    }

    /// Takes a stray's record out until [`Inner::end_stray`].
    fn take_stray(&mut self) -> Option<Record> {
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
    fn end_stray(&mut self, stray: Record, unmapped: bool) {
        if unmapped {
            self.table.forget();
        } else {
            self.table.put_back(stray);
            self.strays += 1;
            self.stray_bytes = usize::MAX;
        }
    }

    /// `bytes` bytes at a multiple of `align` of a stray that fits well: the front of it, or all where little is left.
    fn fit_stray(&mut self, bytes: usize, align: usize) -> Option<Block> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    /// realloc has found a live block, and another thread frees it before the lock is taken: the record is not
    /// changed, nor what lies behind the block taken.
    #[test]
    fn a_block_that_came_to_rest_meanwhile_is_not_resized() {
        let large = Large::new(&mut Registry::new());
        let mut records = vec![
            Record::of(
                Block {
                    address: 0,
                    bytes: 0
                },
                0
            );
            256
        ];
        let block = |n: usize| Block {
            address: (1 << 30) + n * (40 * PAGE),
            bytes: 40 * PAGE,
        };
        {
            let inner = &mut *large.inner.lock();
            inner.rests = true;
            inner.table.move_to(records.as_mut_ptr(), 8);
            (0..RESTS_AMONG + 4).for_each(|n| assert!(inner.begin(block(n))));
            for n in [0, 1, 2] {
                let (found, dropped) = inner.free(block(n).address, 1);
                assert!(found == Found::Live(block(n)) && dropped.is_none());
                assert_eq!(inner.limit_rest(), 0);
            }
            assert_eq!(inner.kept.resting.count, 3);
            assert!(inner.resize(block(1), 20 * PAGE).is_none());
            assert!(inner.take_out_live(block(1)).is_none());
            assert_eq!(inner.validate(), 0);
        }
        assert!(large.grow_in_place(block(1), 80 * PAGE).is_none());
        large.set_owner(block(1).address, Owner::of_arena(1, 1));
        large.note(block(1).address, 1, GuardPages::Both);
        assert_eq!(large.owner_of(block(1).address), Owner::NONE);
        let inner = &mut *large.inner.lock();
        assert_eq!((inner.kept.resting.count, inner.validate()), (3, 0));
        assert_eq!(inner.wake(40 * PAGE), Some(block(2)));
        assert_eq!(inner.wake(40 * PAGE), Some(block(1)));
        assert_eq!(
            inner.noted(block(1).address),
            Some((block(1), 40 * PAGE, GuardPages::None))
        );
        assert_eq!(inner.validate(), 0);
    }
}
