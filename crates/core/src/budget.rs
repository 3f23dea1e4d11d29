//! What the heap may take from the system: the options' two limits, and how much is taken.
//!
//! Code that asks the system for pages charges them first, and refunds them when they went back. The break and all
//! mappings for blocks count. Metadata do not.

use crate::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Bytes taken, and how many may be.
pub struct Budget {
    used: AtomicUsize,
    soft: AtomicUsize,
    hard: AtomicUsize,
    /// Non-zero when a charge went above the soft limit.
    alarm: AtomicU32,
}

impl Budget {
    /// No limits.
    pub const fn new() -> Budget {
        Budget {
            used: AtomicUsize::new(0),
            soft: AtomicUsize::new(usize::MAX),
            hard: AtomicUsize::new(usize::MAX),
            alarm: AtomicU32::new(0),
        }
    }

    /// Sets the limits, in bytes. 0 means none. Before the first charge.
    pub fn limit(&self, soft: usize, hard: usize) {
        let limit = |bytes| if bytes == 0 { usize::MAX } else { bytes };
        self.soft.store(limit(soft), Relaxed);
        self.hard.store(limit(hard), Relaxed);
    }

    /// Bytes taken.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Takes `bytes` into account. False if the hard limit forbids them. Threads that charge at once may be refused
    /// together, but never exceed it together.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> bool {
        let used = self.used.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if used > self.hard.load(Relaxed) {
            self.refund(bytes);
            return false;
        }
        if used > self.soft.load(Relaxed) {
            self.alarm.store(1, Relaxed);
        }
        true
    }

    /// Whether `bytes` more are within both limits.
    pub fn has(&self, bytes: usize) -> bool {
        let limit = self.soft.load(Relaxed).min(self.hard.load(Relaxed));
        self.used().saturating_add(bytes) <= limit
    }

    /// Gives back what was charged.
    pub fn refund(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// In a fork child: `used` bytes are taken, whatever the parent's threads were charging or refunding.
    pub fn recount(&self, used: usize) {
        self.used.store(used, Relaxed);
    }

    /// Whether the alarm waits for a slow path that takes it.
    #[inline]
    pub fn is_alarmed(&self) -> bool {
        self.alarm.load(Relaxed) != 0
    }

    /// Whether the soft limit was exceeded by a charge since the last call.
    #[inline]
    pub fn take_alarm(&self) -> bool {
        self.is_alarmed() && self.alarm.swap(0, Relaxed) != 0
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_that_is_refused_takes_nothing() {
        let budget = Budget::new();
        budget.limit(0, 100);
        assert!(budget.charge(60) && budget.has(40) && !budget.has(41));
        assert!(!budget.charge(41) && budget.charge(40));
        assert_eq!(budget.used(), 100);
        assert!(!budget.charge(usize::MAX) && !budget.take_alarm());
        budget.refund(100);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn each_charge_above_the_soft_limit_raises_the_alarm_once() {
        let budget = Budget::new();
        budget.limit(100, 0);
        assert!(budget.charge(100) && !budget.take_alarm());
        assert!(budget.charge(1) && budget.take_alarm() && !budget.take_alarm());
        budget.refund(2);
        assert!(budget.charge(1) && !budget.take_alarm());
    }
}
