//! The page table: states, counts, and the host's memory kept in step with them.

use super::{Memory, Page, Plan, SimConfig, State, PAGE_KINDS};
use core::ops::Range;
use core::ptr::NonNull;
use slabside_base::units::align_up;

impl State {
    pub(super) fn new(mut config: SimConfig) -> State {
        // What is reported is what can be had, so that the allocator sizes itself by it.
        config.limits.address_space = config.limits.address_space.min(config.bytes);
        let memory = Memory::new(config.bytes);
        let mut state = State {
            config,
            pages: std::vec![Page::Absent; config.bytes / config.page_size],
            counts: [0; PAGE_KINDS],
            claims: Vec::new(),
            position: memory.base() + config.break_offset,
            foreign: Vec::new(),
            calls: 0,
            plan: Plan::Never,
            failed: false,
            clock: 0,
            random: config.seed.max(1),
            watched: 0,
            mark: None,
            memory,
            loses: false,
        };
        state.counts[Page::Absent as usize] = state.pages.len();
        let program = state.pages_below(state.position);
        state.make_usable(0..program, Page::Program);
        state
    }

    pub(super) fn count(&self, kind: Page) -> usize {
        self.counts[kind as usize]
    }

    pub(super) fn usable(&self) -> usize {
        self.count(Page::Opened) + self.count(Page::Mapped) + self.count(Page::Heap)
    }

    /// How many pages of the window start below `address`.
    pub(super) fn pages_below(&self, address: usize) -> usize {
        (address - self.memory.base()).div_ceil(self.config.page_size)
    }

    pub(super) fn address(&self, page: usize) -> usize {
        self.memory.base() + page * self.config.page_size
    }

    pub(super) fn pointer(&self, page: usize) -> NonNull<u8> {
        self.memory.at(page * self.config.page_size)
    }

    /// Offset and size of `pages` in the window, in bytes.
    pub(super) fn extent(&self, pages: &Range<usize>) -> (usize, usize) {
        let page = self.config.page_size;
        (pages.start * page, pages.len() * page)
    }

    /// The number of pages in `bytes`, which must be whole pages and not none.
    pub(super) fn whole(&self, call: &str, bytes: usize) -> usize {
        assert!(bytes > 0, "sim: {call} of an empty range");
        assert!(
            bytes.is_multiple_of(self.config.page_size),
            "sim: {call} of {bytes:#x} bytes, not whole pages"
        );
        bytes / self.config.page_size
    }

    /// The pages of a caller's range.
    pub(super) fn range(&self, call: &str, start: NonNull<u8>, bytes: usize) -> Range<usize> {
        let count = self.whole(call, bytes);
        let address = start.as_ptr() as usize;
        assert!(
            address.is_multiple_of(self.config.page_size),
            "sim: {call} at {address:#x}, not a page's start"
        );
        let offset = address.wrapping_sub(self.memory.base());
        let inside = offset < self.config.bytes && bytes <= self.config.bytes - offset;
        assert!(
            inside,
            "sim: {call} of {bytes:#x} bytes at {address:#x}, outside the window"
        );
        let first = offset / self.config.page_size;
        first..first + count
    }

    /// Panics if any of `pages` is none of `allowed`.
    pub(super) fn expect(&self, call: &str, mut pages: Range<usize>, allowed: &[Page]) {
        if let Some(page) = pages.find(|&page| !allowed.contains(&self.pages[page])) {
            let address = self.address(page);
            panic!(
                "sim: {call} of {} page at {address:#x}",
                self.pages[page].text()
            );
        }
    }

    /// Panics if any of `addresses` was taken by a foreign `sbrk`.
    pub(super) fn expect_ours(&self, call: &str, addresses: Range<usize>) {
        let taken = |foreign: &&Range<usize>| {
            foreign.start < addresses.end && addresses.start < foreign.end
        };
        if let Some(foreign) = self.foreign.iter().find(taken) {
            panic!("sim: {call} of foreign memory {foreign:#x?}, asked for {addresses:#x?}");
        }
    }

    pub(super) fn paint(&mut self, pages: Range<usize>, kind: Page) {
        for page in &mut self.pages[pages] {
            self.counts[*page as usize] -= 1;
            self.counts[kind as usize] += 1;
            *page = kind;
        }
    }

    /// Makes closed `pages` usable. Usable ones among them stay as they are.
    pub(super) fn make_usable(&mut self, pages: Range<usize>, kind: Page) {
        let mut at = pages.start;
        for run in self.pages[pages.clone()].chunk_by(|one, next| one == next) {
            let (offset, bytes) = self.extent(&(at..at + run.len()));
            if matches!(run[0], Page::Absent | Page::Claimed | Page::Reserved) {
                // SAFETY: pages of the window, since `pages` indexes them. Nobody uses closed pages.
                unsafe { self.memory.open(offset, bytes) };
            }
            at += run.len();
        }
        self.paint(pages, kind);
    }

    /// Makes `pages` absent, or claimed where they were that.
    ///
    /// # Safety
    /// Nobody uses them any more.
    pub(super) unsafe fn make_absent(&mut self, pages: Range<usize>) {
        let (offset, bytes) = self.extent(&pages);
        self.paint(pages.clone(), Page::Absent);
        for claim in self.claims.clone() {
            let start = claim.start.max(pages.start);
            self.paint(start..claim.end.min(pages.end).max(start), Page::Claimed);
        }
        if bytes > 0 {
            // SAFETY: `paint` found all of them in the window. The caller gives them up.
            unsafe { self.memory.close(offset, bytes) };
        }
    }

    /// First fit for `count` pages at a multiple of `align`, with an absent page on either side. On claimed pages only
    /// where there is no other place.
    pub(super) fn place(&self, count: usize, align: usize) -> Option<usize> {
        self.place_on(count, align, |&page| page == Page::Absent)
            .or_else(|| self.place_on(count, align, Page::is_free))
    }

    pub(super) fn place_on(
        &self,
        count: usize,
        align: usize,
        good: impl Fn(&Page) -> bool,
    ) -> Option<usize> {
        let mut at = self.config.break_bytes / self.config.page_size + 1;
        loop {
            let address = align_up(self.address(at), align.max(self.config.page_size))?;
            at = (address - self.memory.base()) / self.config.page_size;
            let around = self
                .pages
                .get(at - 1..at.checked_add(count)?.checked_add(1)?)?;
            match around.iter().rposition(|page| !good(page)) {
                Some(last) => at += last + 1,
                None => return Some(at),
            }
        }
    }

    /// Whether `taken` more pages of address space and `usable` more usable ones keep the limits.
    pub(super) fn fits(&self, taken: usize, usable: usize) -> bool {
        let keeps = |pages: usize, limit| pages.saturating_mul(self.config.page_size) <= limit;
        let now = self.usable();
        keeps(
            now + self.count(Page::Reserved) + taken,
            self.config.limits.address_space,
        ) && keeps(now + usable, self.config.limits.data)
    }
}

impl Page {
    /// Whether nothing lies there.
    pub(super) fn is_free(&self) -> bool {
        matches!(self, Page::Absent | Page::Claimed)
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Page::Absent => "an absent",
            Page::Program => "the program's",
            Page::Claimed => "a claimed",
            Page::Others => "somebody else's",
            Page::Reserved => "a reserved",
            Page::Opened => "an opened",
            Page::Mapped => "a mapped",
            Page::Heap => "a break",
        }
    }
}
