//! Failing on command, and what is not memory.

use super::{Page, Plan, State};

impl State {
    pub(super) fn follow(&mut self, plan: Plan) {
        self.plan = plan;
        self.failed = false;
    }

    /// Counts a fallible call and returns whether it must fail.
    pub(super) fn fails(&mut self) -> bool {
        let fails = match self.plan {
            Plan::Never => false,
            Plan::At(n) => self.calls == n,
            Plan::From(n) => self.calls >= n,
        };
        self.calls += 1;
        self.failed |= fails;
        fails
    }

    /// What lies outside the window holds what it is expected to hold.
    pub(super) fn still_holds(&self, address: usize, value: u32) -> bool {
        let offset = address.wrapping_sub(self.memory.base());
        let Some(page) = self.pages.get(offset / self.config.page_size) else {
            return true;
        };
        let usable = matches!(page, Page::Opened | Page::Mapped | Page::Heap);
        // SAFETY: a usable page of the window, and words lie within pages.
        usable && unsafe { self.memory.at(offset).cast::<u32>().read() == value }
    }

    /// xorshift64*: S. Vigna, "An experimental exploration of Marsaglia's xorshift generators" (2016).
    pub(super) fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
