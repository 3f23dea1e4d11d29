//! One in so many allocations gets a page of its own between pages that fault, in any mode. The idea is GWP-ASan's
//! (Serebryany et al., "GWP-ASan: Sampling-Based Detection of Memory-Safety Bugs in Production", 2023).
//!
//! ```text
//!   | records |    | guard | page: ....... block | guard | page | guard | ... | guard |
//!    elsewhere                    an overflow faults ^
//! ```
//!
//! A freed page faults until it is used again, after all others. No fast path knows of samples. A refill counts the
//! slots handed out, and when there are enough it serves its one allocation from here.

use super::ago::Ago;
use crate::misuse::{Call, Line, Misuse};
use crate::mutex::{Guard, Lock, Mutex, Registry};
use crate::os::{Hold, Os};
use crate::owner::Owner;
use crate::sync::{AtomicUsize, Ordering::Acquire, Ordering::Release};
use crate::units::{align_down, Slot, MIN_ALIGN, PAGE};
use core::ptr::NonNull;

/// Sampled blocks at a time.
const BLOCKS: usize = 256;
/// Frames that are remembered of a stack.
pub const FRAMES: usize = 16;

/// What becomes of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum State {
    /// It was never used. Zero, as fresh memory is.
    Unused = 0,
    Live = 1,
    Freed = 2,
    /// Freed, and the page holds what it held: the system would neither close nor discard it, or has yet to.
    Unclosed = 3,
}

/// A moment of a block's life: where in the program it was.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Moment {
    known: usize,
    /// Milliseconds of the system's clock.
    time: u64,
    frames: [usize; FRAMES],
}

impl Moment {
    fn now<O: Os>(os: &O) -> Moment {
        let mut frames = [0; FRAMES];
        let known = os.stack(&mut frames);
        let time = os.clock();
        Moment {
            known,
            time,
            frames,
        }
    }

    /// The return addresses of its functions, innermost first.
    pub fn frames(&self) -> &[usize] {
        &self.frames[..self.known]
    }
}

/// What is known of a page.
#[derive(Clone, Copy)]
#[repr(C)]
struct Record {
    address: usize,
    size: usize,
    state: State,
    /// Owner word of the first-class heap that the block goes with. `Owner::NONE` means none.
    owner: Owner,
    allocated: Moment,
    freed: Moment,
}

const RECORDS_BYTES: usize = (core::mem::size_of::<Record>() * BLOCKS).next_multiple_of(1 << 16);

/// A sampled block as a report describes it.
#[derive(Clone, Copy)]
pub struct Sampled {
    /// Its first byte.
    pub address: usize,
    /// Bytes asked for.
    pub size: usize,
    /// Where it was allocated.
    pub allocated: Moment,
    /// Where it was freed, if it was.
    pub freed: Option<Moment>,
    /// How long ago that was.
    pub ago: Option<Ago>,
}

/// The sampled blocks of the process.
pub struct Samples {
    /// Where the records lie, at no fixed distance from the pages.
    records: AtomicUsize,
    /// Where the first guard lies. 0 means nothing was sampled yet.
    start: AtomicUsize,
    /// The place where the search for a page goes on. The lock guards the records as well, and is held over system
    /// calls: a sampled allocation is rare and slow in any case.
    cursor: Mutex<usize>,
}

impl Samples {
    /// None.
    pub const fn new(locks: &mut Registry) -> Samples {
        Samples {
            records: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            cursor: Mutex::new(locks, 0),
        }
    }

    /// Bytes from one page to the next: itself and its guard, in whole OS pages.
    fn step<O: Os>(os: &O) -> usize {
        2 * os.page_size()
    }

    #[allow(clippy::mut_from_ref)] // The guard is the proof of exclusion.
    fn record<'a>(&'a self, _guard: &'a mut Guard<'_, usize>, index: usize) -> &'a mut Record {
        let records = self.records.load(Acquire) as *mut Record;
        // SAFETY: the records were opened before `start` was set, and zeros are a valid record. Callers hold the lock,
        // and one borrow.
        unsafe { &mut *records.add(index) }
    }

    /// Whether `address` lies among the sampled pages.
    #[inline]
    pub fn holds<O: Os>(&self, os: &O, address: usize) -> bool {
        let start = self.start.load(Acquire);
        let offset = address.wrapping_sub(start);
        start != 0 && offset < BLOCKS * Samples::step(os) + os.page_size()
    }

    /// Index of the page that `address` lies in, or is nearest to.
    fn index<O: Os>(&self, os: &O, address: usize) -> usize {
        let offset = address.saturating_sub(self.start.load(Acquire));
        // Half of the guard belongs to the page before it, half to the page behind.
        ((offset.saturating_sub(os.page_size() / 2)) / Samples::step(os)).min(BLOCKS - 1)
    }

    fn page<O: Os>(&self, os: &O, index: usize) -> usize {
        self.start.load(Acquire) + index * Samples::step(os) + os.page_size()
    }

    fn reserve<O: Os>(&self, os: &O) -> bool {
        if self.records.load(Acquire) == 0 {
            let Some(records) = os.reserve(RECORDS_BYTES) else {
                return false;
            };
            // SAFETY: the reserve was made here, and its address is known to nobody else.
            if unsafe { os.open(records, RECORDS_BYTES, Hold::Reserved) }.is_err() {
                // SAFETY: the reserve was made here, and its address is known to nobody else.
                unsafe { os.unmap(records, RECORDS_BYTES) };
                return false;
            }
            self.records.store(records.as_ptr() as usize, Release);
        }
        let bytes = BLOCKS * Samples::step(os) + os.page_size();
        let Some(start) = os.reserve(bytes) else {
            return false;
        };
        os.name(start, bytes, c"slabside: samples");
        self.start.store(start.as_ptr() as usize, Release);
        true
    }

    /// Sees to it that the records are there. Faults are watched for from then on: by a function that may be the
    /// program's, so with no lock held.
    fn begin<O: Os>(&self, os: &O) -> bool {
        let is_there = || self.start.load(Acquire) != 0;
        if is_there() {
            return true;
        }
        let made = {
            let _guard = self.cursor.lock();
            !is_there() && self.reserve(os)
        };
        if made {
            os.watch_faults();
        }
        is_there()
    }

    /// A block of `size` bytes, zero, at the end of a page of its own, which goes with the first-class heap `owner`
    /// (`Owner::NONE`: with none). `None` for more than a page, and where all pages are live.
    pub fn take<O: Os>(&self, os: &O, size: usize, align: usize, owner: Owner) -> Option<usize> {
        let page_bytes = os.page_size();
        if size > page_bytes || align > page_bytes {
            return None;
        }
        let now = Moment::now(os);
        if !self.begin(os) {
            return None;
        }
        let mut cursor = self.cursor.lock();
        let mut places = (*cursor..*cursor + BLOCKS).map(|place| place % BLOCKS);
        let index = places.find(|&index| self.record(&mut cursor, index).state != State::Live)?;
        let page = self.page(os, index);
        // SAFETY: a page of our own reserve, not in use.
        unsafe {
            os.open(NonNull::new(page as *mut u8)?, page_bytes, Hold::Reserved)
                .ok()?
        };
        if self.record(&mut cursor, index).state == State::Unclosed {
            // SAFETY: the pool owns the page, and it was opened just now, so its bytes can be written.
            unsafe { core::ptr::write_bytes(page as *mut u8, 0, page_bytes) };
        }
        *cursor = (index + 1) % BLOCKS;
        let address = align_down(page + page_bytes - size, align.max(MIN_ALIGN));
        let record = self.record(&mut cursor, index);
        record.address = address;
        record.size = size;
        record.owner = owner;
        record.state = State::Live;
        record.allocated = now;
        Some(address)
    }

    /// Bytes asked for of the live block at `address`, which lies among the sampled pages.
    pub fn size<O: Os>(&self, os: &O, address: usize, call: Call) -> Result<usize, Misuse> {
        let record = *self.record(&mut self.cursor.lock(), self.index(os, address));
        Samples::judge(&record, address, call).map_or(Ok(record.size), Err)
    }

    fn judge(record: &Record, addr: usize, call: Call) -> Option<Misuse> {
        let (slot, size) = (Slot::FIRST, record.size);
        match record.state {
            State::Unused => Some(Misuse::Unknown { call, addr }),
            _ if record.address != addr => Some(Misuse::Inside {
                call,
                addr,
                offset: addr.wrapping_sub(record.address) % PAGE,
                size: size.max(1),
            }),
            State::Freed | State::Unclosed => Some(Misuse::Dead {
                call,
                addr,
                slot,
                size,
            }),
            State::Live => None,
        }
    }

    /// The live block at `address` has no more than `size` bytes from now on, and zeros behind them as any other.
    pub fn shrink<O: Os>(&self, os: &O, address: usize, size: usize) {
        let mut guard = self.cursor.lock();
        let index = self.index(os, address);
        let record = self.record(&mut guard, index);
        if Samples::judge(record, address, Call::Realloc).is_none() && size < record.size {
            let behind = (address + size) as *mut u8;
            // SAFETY: the end of a live block, whose user needs it no more.
            unsafe { core::ptr::write_bytes(behind, 0, record.size - size) };
            record.size = size;
        }
    }

    /// Frees the block at `address`, which lies among the sampled pages.
    pub fn give<O: Os>(&self, os: &O, address: usize) -> Result<(), Misuse> {
        let call = Call::Free;
        let now = Moment::now(os);
        let mut guard = self.cursor.lock();
        let index = self.index(os, address);
        let record = self.record(&mut guard, index);
        if let Some(misuse) = Samples::judge(record, address, call) {
            return Err(misuse);
        }
        let page = self.page(os, index);
        Samples::look_behind(record, page + os.page_size(), os.page_size())?;
        Samples::close(os, record, page, now);
        Ok(())
    }

    /// Frees all blocks of the first-class heap `owner`, which ends. The first misuse that they tell of comes back.
    pub fn give_all_of<O: Os>(&self, os: &O, owner: Owner) -> Result<(), Misuse> {
        let mut outcome = Ok(());
        if self.start.load(Acquire) == 0 {
            return outcome;
        }
        let now = Moment::now(os);
        let mut guard = self.cursor.lock();
        for index in 0..BLOCKS {
            let (record, page) = (self.record(&mut guard, index), self.page(os, index));
            if record.state == State::Live && record.owner == owner {
                let end = page + os.page_size();
                outcome = outcome.and(Samples::look_behind(record, end, os.page_size()));
                Samples::close(os, record, page, now);
            }
        }
        outcome
    }

    /// Whether the bytes between a live block and its page's `end`, which alignment may leave, are zero as they
    /// were.
    fn look_behind(record: &Record, end: usize, page_bytes: usize) -> Result<(), Misuse> {
        let block_end = record.address + record.size;
        // SAFETY: the page is open, and the block live.
        let past = (block_end..end).find(|&at| unsafe { *(at as *const u8) } != 0);
        past.map_or(Ok(()), |at| {
            Err(Misuse::Overflow {
                call: Call::Free,
                addr: record.address,
                slot: Slot::FIRST,
                size: page_bytes,
                asked: record.size,
                past: at - block_end,
            })
        })
    }

    /// Ends the life of the block in `page`, which nobody can touch from then on where the system allows that. A fork child
    /// may find the page at any moment in between: it holds what it held until it is known to be gone.
    fn close<O: Os>(os: &O, record: &mut Record, page: usize, now: Moment) {
        record.freed = now;
        let state = &raw mut record.state;
        // SAFETY: a field of a record that the caller has borrowed. It is written where that stands here, which the
        // compiler owes to nobody in this process.
        let tell = |now| unsafe { state.write_volatile(now) };
        tell(State::Unclosed);
        let bytes = os.page_size();
        let page = NonNull::new(page as *mut u8);
        // SAFETY: our own page, which nobody may use any more.
        let gone =
            page.is_some_and(|page| unsafe { os.close(page, bytes) || os.discard(page, bytes) });
        if gone {
            tell(State::Freed);
        }
    }

    /// The block whose page `address` lies in or beside. Without waiting for the lock, since a fault may have come
    /// while it was held.
    pub fn find<O: Os>(&self, os: &O, address: usize) -> Option<Sampled> {
        if !self.holds(os, address) {
            return None;
        }
        let index = self.index(os, address);
        // SAFETY: opened when `start` was set, and a record is plain words: at worst it is half new.
        let record = unsafe { *(self.records.load(Acquire) as *const Record).add(index) };
        let freed = (record.state != State::Live).then_some(record.freed);
        (record.state != State::Unused).then(|| Sampled {
            address: record.address,
            size: record.size,
            allocated: record.allocated,
            freed,
            ago: freed.map(|freed| Ago::since(freed.time, os.clock())),
        })
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.cursor.as_lock());
    }
}

impl Sampled {
    /// The line that reports a fault at `address`.
    pub fn fault(&self, address: usize) -> Line {
        let mut line = Line::new();
        line.text("slabside: ");
        let end = self.address + self.size;
        if address >= end {
            line.text("overflow: access of ")
                .hex(address)
                .text(", byte ");
            line.decimal(address - end).text(" past the end");
        } else if address < self.address {
            line.text("underflow: access of ")
                .hex(address)
                .text(", byte -");
            line.decimal(self.address - address);
        } else {
            let kind = if self.freed.is_some() {
                "use after free: access of "
            } else {
                "fault at "
            };
            line.text(kind).hex(address).text(", byte ");
            line.decimal(address - self.address);
        }
        line.text(" of the ").decimal(self.size);
        line.text("-byte block at ").hex(self.address);
        if let Some(ago) = self.ago {
            ago.tell(&mut line);
        }
        line.text("\n");
        line
    }
}
