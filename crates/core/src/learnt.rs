//! A bound on what is kept for reuse, which learns from what the program does.
//!
//! An idle process makes no further call, so what is kept must be little before. A program that soon takes again
//! what went back needs it: from then on as much is kept. What lies unused, and what was learnt long ago, counts for less
//! and less.
//!
//! Amounts are pages or bytes, whatever the caller counts in. Times are milliseconds.

/// What is taken again so soon after it went back had better been kept.
const SOON_MS: u64 = 1000;
/// The part of what an earlier round gave back that still counts in the next one: what nobody took then must not
/// outweigh it.
const EARLIER_PART: usize = 8;
/// A bound that did not grow for so long is halved, and again after as long.
const FORGET_MS: u64 = 10_000;

/// The bound, and what went back lately since more was kept.
#[derive(Clone, Copy)]
pub struct Learnt {
    bound: usize,
    /// What the bound is at first and comes back to.
    least: usize,
    most: usize,
    /// What went back, and what was taken afresh since.
    gone: usize,
    taken: usize,
    gone_at: u64,
    /// When the bound grew, or was halved since.
    grown_at: u64,
}

impl Learnt {
    /// A bound of `least` that grows up to `most`.
    pub const fn new(least: usize, most: usize) -> Learnt {
        Learnt {
            bound: least,
            least,
            most,
            gone: 0,
            taken: 0,
            gone_at: 0,
            grown_at: 0,
        }
    }

    /// As much may be kept.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Something is freed: what went back and was soon taken afresh, half of it at least, had better been kept.
    pub fn learn(&mut self, now: u64) {
        self.forget(now);
        let soon = now.saturating_sub(self.gone_at) < SOON_MS;
        let needed = soon && self.gone > 0 && 2 * self.taken >= self.gone;
        if needed {
            let wider = self.bound.saturating_mul(4).max(self.gone);
            self.bound = wider.min(self.most).max(self.bound);
            self.grown_at = now;
        }
        if needed || !soon {
            (self.gone, self.taken) = (0, 0);
        }
    }

    fn forget(&mut self, now: u64) {
        while self.bound > self.least && now.saturating_sub(self.grown_at) >= FORGET_MS {
            self.halve();
            self.grown_at += FORGET_MS;
        }
    }

    fn halve(&mut self) {
        self.bound = (self.bound / 2).max(self.least);
    }

    /// So much goes back since more is kept.
    pub fn give(&mut self, amount: usize, now: u64) {
        if self.taken > 0 {
            // Another round begins.
            (self.gone, self.taken) = (self.gone / EARLIER_PART, 0);
        }
        self.gone += amount;
        self.gone_at = now;
    }

    /// So much was taken afresh that might have been kept.
    pub fn take(&mut self, amount: usize) {
        self.taken += amount;
    }

    /// A whole interval went by in which `unused` of what is kept was not taken.
    pub fn quieten(&mut self, unused: usize) {
        if unused > self.bound / 4 {
            self.halve();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of a program that takes and frees 1,000 of which all is to go back beyond the bound.
    fn swell(learnt: &mut Learnt, now: u64) -> usize {
        learnt.learn(now);
        let excess = 1000usize.saturating_sub(learnt.bound());
        if excess > 0 {
            learnt.give(excess, now);
            learnt.take(excess);
        }
        excess
    }

    #[test]
    fn a_program_that_swells_again_and_again_pays_for_two_rounds() {
        let mut learnt = Learnt::new(10, 1 << 20);
        let paid = (1..50).filter(|&round| swell(&mut learnt, round * 100) > 0);
        assert!(paid.count() <= 2);
    }

    #[test]
    fn what_is_taken_again_late_is_not_learnt() {
        let mut learnt = Learnt::new(10, 1 << 20);
        for round in 1..50 {
            assert_eq!(swell(&mut learnt, round * 2 * SOON_MS), 990);
        }
    }

    #[test]
    fn what_was_learnt_is_forgotten_over_time_and_where_it_lies_unused() {
        let mut learnt = Learnt::new(10, 1 << 20);
        (1..9).for_each(|round| {
            swell(&mut learnt, round * 100);
        });
        let most = learnt.bound();
        assert!(most >= 990);
        let mut quiet = learnt;
        (0..12).for_each(|_| quiet.quieten(most));
        assert_eq!(quiet.bound(), 10);
        learnt.learn(1000 + FORGET_MS);
        assert_eq!(learnt.bound(), most / 2);
        learnt.learn(1000 + 20 * FORGET_MS);
        assert_eq!(learnt.bound(), 10);
    }

    #[test]
    fn a_large_burst_does_not_hide_small_swells_that_follow() {
        let mut learnt = Learnt::new(10, 1 << 20);
        learnt.give(1_000_000, 100);
        let paid = (2..50).filter(|&round| swell(&mut learnt, round * 100) > 0);
        assert!(paid.count() <= 8);
    }
}
