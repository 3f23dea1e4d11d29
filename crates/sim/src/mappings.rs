//! The map window: what is reserved, opened, mapped, resized and discarded.

use super::{Hold, Moved, Page, Refusal, State};
use core::ops::Range;
use core::ptr::{self, NonNull};

impl State {
    pub(super) fn claim(&mut self, bytes: usize) -> Result<NonNull<u8>, Refusal> {
        let count = self.whole("claim", bytes);
        if self.fails() {
            return Err(Refusal::NoMemory);
        }
        if !self.config.claims {
            return Err(Refusal::Taken);
        }
        let at = self
            .place_on(count, 1, |&page| page == Page::Absent)
            .ok_or(Refusal::Taken)?;
        self.paint(at..at + count, Page::Claimed);
        self.claims.push(at..at + count);
        Ok(self.pointer(at))
    }

    pub(super) fn intrude(&mut self, address: usize) -> bool {
        let page = (address - self.memory.base()) / self.config.page_size;
        let free = self.pages[page].is_free();
        if free {
            self.paint(page..page + 1, Page::Others);
        }
        free
    }

    pub(super) fn reserve(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let count = self.whole("reserve", bytes);
        if self.fails() || !self.fits(count, 0) {
            return None;
        }
        let at = self.place(count, 1)?;
        self.paint(at..at + count, Page::Reserved);
        Some(self.pointer(at))
    }

    pub(super) fn open(
        &mut self,
        start: NonNull<u8>,
        bytes: usize,
        hold: Hold,
    ) -> Result<(), Refusal> {
        let pages = self.range("open", start, bytes);
        let count = |state: &State, kind| {
            let pages = state.pages[pages.clone()].iter();
            pages.filter(|&&page| page == kind).count()
        };
        match hold {
            Hold::Reserved => self.expect("open", pages.clone(), &[Page::Reserved, Page::Opened]),
            // Who opens a page twice has lost count. What was claimed is nobody's until it is opened: the system may
            // have put another mapping there, which may be a reserve of the caller's own.
            Hold::Claimed => self.expect(
                "open",
                pages.clone(),
                &[Page::Claimed, Page::Others, Page::Mapped, Page::Reserved],
            ),
        }
        let (taken, closed) = match hold {
            Hold::Reserved => (0, count(self, Page::Reserved)),
            Hold::Claimed => (pages.len(), pages.len()),
        };
        if self.fails() {
            return Err(Refusal::NoMemory);
        }
        let of_others = hold == Hold::Claimed && count(self, Page::Reserved) > 0;
        if of_others || count(self, Page::Others) + count(self, Page::Mapped) > 0 {
            return Err(Refusal::Taken);
        }
        if !self.fits(taken, closed) {
            return Err(Refusal::NoMemory);
        }
        self.make_usable(pages, Page::Opened);
        Ok(())
    }

    pub(super) fn map(&mut self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let count = self.whole("map", bytes);
        assert!(
            align.is_power_of_two(),
            "sim: map at a multiple of {align}, no power of two"
        );
        if self.fails() || !self.fits(count, count) {
            return None;
        }
        let at = self.place(count, align)?;
        self.make_usable(at..at + count, Page::Mapped);
        Some(self.pointer(at))
    }

    pub(super) fn map_at(&mut self, start: usize, bytes: usize) -> bool {
        let count = self.whole("map_at", bytes);
        let first = start.wrapping_sub(self.memory.base()) / self.config.page_size;
        let lowest = self.config.break_bytes / self.config.page_size + 1;
        let pages = first..first.saturating_add(count);
        let absent = self
            .pages
            .get(pages.clone())
            .is_some_and(|pages| pages.iter().all(|page| page.is_free()));
        if self.fails() || first < lowest || !absent || !self.fits(count, count) {
            return false;
        }
        self.make_usable(pages, Page::Mapped);
        true
    }

    /// # Safety
    /// Nobody uses the range any more.
    pub(super) unsafe fn unmap(&mut self, start: NonNull<u8>, bytes: usize) -> bool {
        let pages = self.range("unmap", start, bytes);
        self.expect(
            "unmap",
            pages.clone(),
            &[Page::Reserved, Page::Opened, Page::Mapped],
        );
        if self.fails() {
            return false;
        }
        // SAFETY: the caller gives up the pages, which is all that `make_absent` demands.
        unsafe { self.make_absent(pages) };
        true
    }

    /// # Safety
    /// On success nobody uses what is cut off, or the old range where the address differs.
    pub(super) unsafe fn remap(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
    ) -> Option<NonNull<u8>> {
        let pages = self.range("remap", start, old);
        let count = self.whole("remap", new);
        self.expect("remap", pages.clone(), &[Page::Mapped]);
        let more = count.saturating_sub(pages.len());
        if self.fails() || !self.fits(more, more) {
            return None;
        }
        if count <= pages.len() {
            // SAFETY: the caller gives up the pages above the new size.
            unsafe { self.make_absent(pages.start + count..pages.end) };
            return Some(start);
        }
        if self.is_room(pages.end, more) {
            self.make_usable(pages.end..pages.end + more, Page::Mapped);
            return Some(start);
        }
        // SAFETY: the caller gives up the old range.
        unsafe { self.move_mapping(pages, count) }
    }

    /// # Safety
    /// Nobody uses what lies at `to`, nor the old range if it has moved.
    pub(super) unsafe fn move_over(
        &mut self,
        start: NonNull<u8>,
        bytes: usize,
        to: NonNull<u8>,
    ) -> Moved {
        let old = self.range("move_over", start, bytes);
        let new = self.range("move_over", to, bytes);
        assert!(
            old.end <= new.start || new.end <= old.start,
            "sim: move_over of ranges that overlap"
        );
        for pages in [&old, &new] {
            self.expect("move_over", pages.clone(), &[Page::Mapped]);
        }
        // SAFETY: the caller gives up what lies at `to`.
        if let Some(failed) = unsafe { self.fails_to_move(new) } {
            return failed;
        }
        // SAFETY: both ranges are usable and apart, and the caller gives up what lies at `to` and the old one.
        unsafe {
            ptr::copy_nonoverlapping(start.as_ptr(), to.as_ptr(), bytes);
            self.make_absent(old);
        }
        Moved::Done
    }

    /// How a move over the pages `to` fails, if it does: one way after the other.
    ///
    /// # Safety
    /// Nobody uses what lies there.
    unsafe fn fails_to_move(&mut self, to: Range<usize>) -> Option<Moved> {
        if !self.fails() {
            return None;
        }
        self.loses = !self.loses;
        if !self.loses {
            return Some(Moved::Refused);
        }
        // SAFETY: the caller guarantees that nobody uses the range.
        unsafe { self.make_absent(to) };
        Some(Moved::Lost)
    }

    /// # Safety
    /// Nobody uses the block.
    pub(super) unsafe fn move_out(
        &mut self,
        start: NonNull<u8>,
        bytes: usize,
        place: usize,
        part: usize,
        least: usize,
    ) -> Option<NonNull<u8>> {
        // The page behind it is the caller's too.
        let block = self.range("move_out", start, bytes + self.config.page_size);
        assert!(
            least <= part && part <= bytes,
            "sim: move_out of more than there is"
        );
        self.expect("move_out", block, &[Page::Mapped]);
        let page = self.config.page_size;
        // SAFETY: a page of the block, which is usable and, as the caller guarantees, used by nobody.
        let looked_at =
            unsafe { core::slice::from_raw_parts(start.as_ptr().add(least - page), page) };
        if looked_at.iter().all(|&byte| byte == 0) {
            return None;
        }
        // It fails as a mapping does, or two.
        let to = match self.map_at(place, part) {
            true => NonNull::new(place as *mut u8)?,
            false => self.map(part, 1)?,
        };
        // SAFETY: both ranges are usable and apart, and nobody uses them.
        unsafe {
            ptr::copy_nonoverlapping(start.as_ptr(), to.as_ptr(), part);
            ptr::write_bytes(start.as_ptr(), 0, part);
        }
        Some(to)
    }

    /// # Safety
    /// Nobody uses what lies at `to`, nor the old range.
    pub(super) unsafe fn move_in(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        to: NonNull<u8>,
        new: usize,
    ) -> Moved {
        assert!(old <= new, "sim: move_in of more than there is room for");
        let from = self.range("move_in", start, old);
        let over = self.range("move_in", to, new);
        assert!(
            from.end <= over.start || over.end <= from.start,
            "sim: move_in of ranges that overlap"
        );
        for pages in [&from, &over] {
            self.expect("move_in", pages.clone(), &[Page::Mapped]);
        }
        // SAFETY: the caller gives up what lies at `to`.
        if let Some(failed) = unsafe { self.fails_to_move(over) } {
            return failed;
        }
        // SAFETY: both ranges are usable and apart, and the caller gives up what lies at `to` and the old one.
        unsafe {
            ptr::copy_nonoverlapping(start.as_ptr(), to.as_ptr(), old);
            ptr::write_bytes(to.as_ptr().add(old), 0, new - old);
            self.make_absent(from);
        }
        Moved::Done
    }

    pub(super) fn stretch(&mut self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        let pages = self.range("stretch", start, old);
        let more = self.whole("stretch", new).saturating_sub(pages.len());
        self.expect("stretch", pages.clone(), &[Page::Mapped]);
        let grows = !self.fails() && self.fits(more, more) && self.is_room(pages.end, more);
        if grows {
            self.make_usable(pages.end..pages.end + more, Page::Mapped);
        }
        grows
    }

    /// Whether nothing lies on `more` pages from `end` on, and on the one behind.
    pub(super) fn is_room(&self, end: usize, more: usize) -> bool {
        let behind = self.pages.get(end..=end + more);
        behind.is_some_and(|pages| pages.iter().all(|page| page.is_free()))
    }

    /// Moves the mapping `old` to where there is room for `count` pages, more than it has.
    ///
    /// # Safety
    /// On success nobody uses the old range any more.
    pub(super) unsafe fn move_mapping(
        &mut self,
        old: Range<usize>,
        count: usize,
    ) -> Option<NonNull<u8>> {
        let at = self.place(count, 1)?;
        self.make_usable(at..at + count, Page::Mapped);
        let (_, bytes) = self.extent(&old);
        let (from, to) = (self.pointer(old.start), self.pointer(at));
        // SAFETY: both ranges are usable, and apart since `place` found only absent pages. The caller gives up the old
        // one.
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), bytes);
            self.make_absent(old);
        }
        Some(to)
    }

    /// # Safety
    /// The range's contents are dead.
    pub(super) unsafe fn discard(&mut self, start: NonNull<u8>, bytes: usize) -> bool {
        let pages = self.range("discard", start, bytes);
        self.expect(
            "discard",
            pages.clone(),
            &[Page::Opened, Page::Mapped, Page::Heap],
        );
        self.expect_ours(
            "discard",
            self.address(pages.start)..self.address(pages.end),
        );
        if self.fails() {
            return false;
        }
        let (offset, bytes) = self.extent(&pages);
        // SAFETY: `expect` found the pages in the window and usable. The caller gives up what they hold.
        unsafe { self.memory.discard(offset, bytes) };
        true
    }
}
