//! Large blocks between pages that fault, and out of reach for a while after they were freed.
//!
//! ```text
//!   | fence | block .......... canary | fence |     live
//!   | nobody can touch any of it, and no other |    freed, until so many others were freed
//! ```
//!
//! `large` keeps the records and knows nothing of this. It gets a system whose mappings have guard pages.

use super::ago::Ago;
use super::beds::{Beds, Wanted};
use crate::mutex::{Lock, Mutex, Registry};
use crate::os::{Hold, Huge, Limits, Moved, Os, Refusal, Vm};
use crate::sync::{AtomicUsize, Ordering::Relaxed};
use core::ffi::CStr;
use core::ptr::NonNull;

/// The most freed blocks that stay out of reach.
const HELD: usize = 128;
/// The most bytes of address space that they take.
const HELD_BYTES: usize = 1 << 30;
/// The guard pages of a block.
const FENCES: usize = 2;

/// A range of addresses, guard pages included.
#[derive(Clone, Copy)]
struct Range {
    start: usize,
    bytes: usize,
    /// When the block in it was freed, in milliseconds.
    freed: u64,
}

struct Ring {
    ranges: [Range; HELD],
    first: usize,
    count: usize,
    bytes: usize,
}

impl Ring {
    /// The range of the block that began at `address`.
    fn range_at(&self, address: usize, os_page: usize) -> Option<Range> {
        let mut held = (0..self.count).map(|i| self.ranges[(self.first + i) % HELD]);
        held.rfind(|range| range.start + os_page == address)
    }

    /// Whether there was a place for it.
    fn put(&mut self, range: Range) -> bool {
        if self.count == HELD {
            return false;
        }
        self.ranges[(self.first + self.count) % HELD] = range;
        self.count += 1;
        self.bytes += range.bytes;
        true
    }

    /// Takes the oldest out while more than `most` bytes are held, or no more can be.
    fn take_over(&mut self, most: usize) -> Option<Range> {
        if self.count == 0 || self.bytes <= most && self.count < HELD {
            return None;
        }
        let range = self.ranges[self.first];
        self.first = (self.first + 1) % HELD;
        self.count -= 1;
        self.bytes -= range.bytes;
        Some(range)
    }
}

/// Freed large blocks that nobody can touch.
pub struct AddressQuarantine {
    ring: Mutex<Ring>,
}

impl AddressQuarantine {
    /// None.
    pub const fn new(locks: &mut Registry) -> AddressQuarantine {
        let ring = Ring {
            ranges: [Range {
                start: 0,
                bytes: 0,
                freed: 0,
            }; HELD],
            first: 0,
            count: 0,
            bytes: 0,
        };
        AddressQuarantine {
            ring: Mutex::new(locks, ring),
        }
    }

    /// Whether a freed block is held that began at `address`.
    pub fn holds(&self, address: usize, os_page: usize) -> bool {
        self.range_at(address, os_page).is_some()
    }

    /// How long ago the block was freed that began at `address`, if it is held. Not known while the lock is taken: a signal
    /// handler may report a misuse that has interrupted whoever holds it.
    pub fn freed_ago(&self, address: usize, os_page: usize, now: u64) -> Option<Ago> {
        let range = self.ring.try_lock()?.range_at(address, os_page)?;
        Some(Ago::since(range.freed, now))
    }

    fn range_at(&self, address: usize, os_page: usize) -> Option<Range> {
        self.ring.lock().range_at(address, os_page)
    }

    /// Puts the freed block of `bytes` bytes at `start` out of reach, with its guard pages. The oldest ones go back to
    /// the system.
    ///
    /// # Safety
    /// [`WithGuardPages`] mapped the block, and `large` knows it no more: nobody else can be given its addresses.
    pub unsafe fn hold<O: Os>(&self, os: &O, start: usize, bytes: usize) {
        let page = os.page_size();
        let (start, bytes) = (start - page, bytes + FENCES * page);
        let Some(whole) = NonNull::new(start as *mut u8) else {
            return;
        };
        os.fences_gone(FENCES);
        // SAFETY: the caller's: the block and its guard pages are ours, and nobody uses them.
        let closed = unsafe { os.close(whole, bytes) };
        self.shrink(os, HELD_BYTES.saturating_sub(bytes));
        let freed = os.clock();
        let held = closed
            && self.ring.lock().put(Range {
                start,
                bytes,
                freed,
            });
        if !held {
            // SAFETY: the caller gave up the block with its guard pages, and the quarantine did not take it.
            unsafe { os.unmap(whole, bytes) };
        }
    }

    /// Gives the oldest back until at most `most` bytes are held. Whether there was any to give back.
    pub fn shrink<O: Os>(&self, os: &O, most: usize) -> bool {
        let mut any = false;
        loop {
            let range = self.ring.lock().take_over(most);
            let Some(range) = range else {
                return any;
            };
            any = true;
            let start = NonNull::new(range.start as *mut u8);
            // SAFETY: our own mapping, which nobody may use any more.
            let _ = start.is_some_and(|start| unsafe { os.unmap(start, range.bytes) });
        }
    }

    /// Whether nobody holds the lock, under which no system call is made.
    pub fn lock_is_free(&self) -> bool {
        !self.ring.as_lock().is_held()
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.ring.as_lock());
    }
}

/// Whether any of a range is claimed for something else than large blocks.
pub type IsClaimed<'a> = &'a (dyn Fn(core::ops::Range<usize>) -> bool + Sync);

/// The system, with guard pages around what it maps.
pub struct WithGuardPages<'a, O: Os> {
    os: &'a O,
    beds: Option<(&'a Beds, IsClaimed<'a>)>,
    /// The block that was mapped last. 0 means none.
    mapped: AtomicUsize,
}

impl<'a, O: Os> WithGuardPages<'a, O> {
    /// `os`, where a block is mapped: in `beds`, if there are any, or where the system puts it.
    pub fn new(os: &'a O, beds: Option<(&'a Beds, IsClaimed<'a>)>) -> WithGuardPages<'a, O> {
        WithGuardPages {
            os,
            beds,
            mapped: AtomicUsize::new(0),
        }
    }

    /// A mapping of `bytes` bytes, with the byte after a fence at a multiple of `align`.
    fn map_in_bed(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let (beds, is_claimed) = self.beds?;
        let wanted = Wanted {
            bytes,
            lead: self.os.page_size(),
            align,
        };
        let place = beds.place(self.os, wanted, is_claimed)?;
        let mapped = self.os.map_at(place, bytes);
        NonNull::new(place as *mut u8).filter(|_| mapped)
    }

    /// The same where the system puts it.
    fn map_anywhere(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let page = self.os.page_size();
        let more = align.max(page) - page;
        let whole = self.os.map(bytes.checked_add(more)?, align)?;
        if more > 0 {
            // SAFETY: the beginning of the fresh mapping, which is that much longer.
            unsafe { self.os.unmap(whole, more) };
        }
        // SAFETY: the fresh mapping is `more` bytes longer than what is wanted.
        Some(unsafe { whole.add(more) })
    }
}

impl<O: Os> Vm for WithGuardPages<'_, O> {
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let page = self.os.page_size();
        let all = bytes.checked_add(FENCES * page)?;
        let whole = self
            .map_in_bed(all, align.max(page))
            .or_else(|| self.map_anywhere(all, align))?;
        // SAFETY: a fence, the block and a fence lie in the fresh mapping in this order.
        unsafe {
            let start = whole.add(page);
            self.os.fence(start.sub(page), page);
            self.os.fence(start.add(bytes), page);
            self.mapped.store(start.as_ptr() as usize, Relaxed);
            Some(start)
        }
    }

    /// The block that was mapped just now goes with its fences. What else is unmapped has none.
    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) -> bool {
        if self.mapped.load(Relaxed) != start.as_ptr() as usize {
            // SAFETY: the caller's promise is the same.
            return unsafe { self.os.unmap(start, bytes) };
        }
        let page = self.os.page_size();
        // SAFETY: the caller's promise is the same, and `map` put a fence before the block and one after it.
        let done = unsafe { self.os.unmap(start.sub(page), bytes + FENCES * page) };
        if done {
            self.mapped.store(0, Relaxed);
            self.os.fences_gone(FENCES);
        }
        done
    }

    unsafe fn remap(&self, _: NonNull<u8>, _: usize, _: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn move_over(&self, _: NonNull<u8>, _: usize, _: NonNull<u8>) -> Moved {
        Moved::Refused
    }

    unsafe fn move_out(
        &self,
        start: NonNull<u8>,
        bytes: usize,
        place: usize,
        part: usize,
        least: usize,
    ) -> Option<NonNull<u8>> {
        // SAFETY: the caller keeps the contract of `Vm`, and it is passed on unchanged.
        unsafe { self.os.move_out(start, bytes, place, part, least) }
    }

    /// The fence behind the block comes along, so that both are one mapping: else `move_out` would refuse the block later.
    /// Where the block was lost and cannot be mapped there again, its other fence goes with it.
    unsafe fn move_in(&self, start: NonNull<u8>, old: usize, to: NonNull<u8>, new: usize) -> Moved {
        let page = self.os.page_size();
        // SAFETY: the caller's promise is the same, and `map` put a fence behind the block.
        let moved = unsafe { self.os.move_in(start, old, to, new + page) };
        if moved == Moved::Refused {
            return moved;
        }
        let is_there = moved == Moved::Done || self.os.map_at(to.as_ptr() as usize, new + page);
        // SAFETY: the page behind the block was mapped anew with it. The one before it is the other fence.
        unsafe {
            if is_there {
                self.os.fence(to.add(new), page);
            } else {
                self.os.unmap(to.sub(page), page);
                self.os.fences_gone(FENCES);
                self.mapped.store(0, Relaxed);
            }
        }
        match moved {
            Moved::Lost if is_there => Moved::Refused,
            moved => moved,
        }
    }

    fn map_at(&self, _: usize, _: usize) -> bool {
        false
    }

    unsafe fn stretch(&self, _: NonNull<u8>, _: usize, _: usize) -> bool {
        false
    }

    unsafe fn discard(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller no longer needs the contents, which is all that `discard` demands.
        unsafe { self.os.discard(start, bytes) }
    }

    unsafe fn open(&self, start: NonNull<u8>, bytes: usize, hold: Hold) -> Result<(), Refusal> {
        // SAFETY: the caller keeps the contract of `Vm`, and it is passed on unchanged.
        unsafe { self.os.open(start, bytes, hold) }
    }

    fn claim(&self, bytes: usize) -> Result<NonNull<u8>, Refusal> {
        self.os.claim(bytes)
    }

    fn page_size(&self) -> usize {
        self.os.page_size()
    }

    fn break_end(&self) -> Option<usize> {
        self.os.break_end()
    }

    fn move_break(&self, delta: isize) -> Option<usize> {
        self.os.move_break(delta)
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.os.reserve(bytes)
    }

    fn name(&self, start: NonNull<u8>, bytes: usize, name: &'static CStr) {
        self.os.name(start, bytes, name);
    }

    fn clock(&self) -> u64 {
        self.os.clock()
    }

    fn limits(&self) -> Limits {
        self.os.limits()
    }

    fn memory(&self) -> usize {
        self.os.memory()
    }

    fn still_holds(&self, address: usize, value: u32) -> Option<bool> {
        self.os.still_holds(address, value)
    }

    fn locks_new_pages(&self) -> bool {
        self.os.locks_new_pages()
    }

    fn prefer_huge_pages(&self) {
        self.os.prefer_huge_pages();
    }

    fn learn_huge_pages(&self) {
        self.os.learn_huge_pages();
    }

    unsafe fn advise_huge(&self, start: NonNull<u8>, bytes: usize, huge: Huge) {
        // SAFETY: the caller keeps the contract of `Vm`, and it is passed on unchanged.
        unsafe { self.os.advise_huge(start, bytes, huge) }
    }

    unsafe fn fence(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller keeps the contract of `Vm`, and it is passed on unchanged.
        unsafe { self.os.fence(start, bytes) }
    }

    fn mappings(&self) -> usize {
        self.os.mappings()
    }

    unsafe fn unfence(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller keeps the contract of `Vm`, and it is passed on unchanged.
        unsafe { self.os.unfence(start, bytes) }
    }

    fn fences_gone(&self, count: usize) {
        self.os.fences_gone(count);
    }

    unsafe fn close(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller keeps the contract of `Vm`, and it is passed on unchanged.
        unsafe { self.os.close(start, bytes) }
    }

    unsafe fn seal(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller keeps the contract of `Vm`, and it is passed on unchanged.
        unsafe { self.os.seal(start, bytes) }
    }
}
