//! Failing on command, and what is not memory.

use super::{Plan, State};

impl State {
    pub(super) fn follow(&mut self, plan: Plan) {
        self.plan = plan;
        self.failed = false;
    }

    /// Counts a fallible call and tells whether it is to fail.
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

    /// xorshift64*: S. Vigna, "An experimental exploration of Marsaglia's xorshift generators" (2016).
    pub(super) fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
