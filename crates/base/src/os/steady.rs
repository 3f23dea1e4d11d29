//! A clock that never goes back.
//!
//! `CLOCK_MONOTONIC` does so once, in a fork child that enters a time namespace (time_namespaces(7)). What was kept at
//! a time of the parent's would then seem young for as long as the two clocks lie apart.

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Threads that read the clock at the same time may come here in another order: that is no step back.
const TURNS: u64 = 1000;

/// The latest time that was returned, in milliseconds.
pub struct Steady {
    last: AtomicU64,
    /// What is added to the system's clock, since it went back by as much.
    ahead: AtomicU64,
}

impl Steady {
    /// No time was returned yet.
    pub const fn new() -> Steady {
        Steady {
            last: AtomicU64::new(0),
            ahead: AtomicU64::new(0),
        }
    }

    /// The time if the system's clock says `now`. It is never before a time returned earlier.
    pub fn tell(&self, now: u64) -> u64 {
        let ahead = self.ahead.load(Relaxed);
        let (now, last) = (now.wrapping_add(ahead), self.last.load(Relaxed));
        if now > last {
            self.last.store(now, Relaxed);
            return now;
        }
        if last - now > TURNS {
            let further = ahead.wrapping_add(last - now);
            // Who comes second finds it changed.
            let _ = self
                .ahead
                .compare_exchange(ahead, further, Relaxed, Relaxed);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_back_goes_on_from_where_it_was() {
        let steady = Steady::new();
        assert_eq!(steady.tell(5_000_000), 5_000_000);
        assert_eq!(steady.tell(5_000_250), 5_000_250);
        // Into a namespace whose clock is an hour behind.
        assert_eq!(steady.tell(1_400_250), 5_000_250);
        assert_eq!(steady.tell(1_400_500), 5_000_500);
        // And into one that is behind again, down to the machine's start.
        assert_eq!(steady.tell(0), 5_000_500);
        assert_eq!(steady.tell(40), 5_000_540);
    }

    #[test]
    fn two_threads_in_the_other_order_move_no_clock() {
        let steady = Steady::new();
        steady.tell(10_000);
        assert_eq!(steady.tell(9_996), 10_000);
        assert_eq!(steady.tell(10_004), 10_004);
    }
}
