//! Which mitigations of hardened mode are on: fixed at the first allocation.

use super::bytes::CANARY;
use super::thread;
use crate::options::{Name, Options, QUARANTINE_BYTES};

/// What is on. Nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mitigations {
    /// Freed blocks are cleared, and verified to be still clear when they are handed out again.
    pub zero: bool,
    /// A secret word after the bytes that were asked for, looked at by free and realloc.
    pub canary: bool,
    /// Slots are chosen at random.
    pub random: bool,
    /// Pages that fault between slabs and around larger blocks. Pages stay with their class.
    pub guard: bool,
    /// Bytes of freed blocks that a thread keeps out of use. 0 means none.
    pub quarantine: usize,
    /// Two threads that free one block at the same time are distinguished: an atomic exchange for each free.
    pub racing: bool,
    /// One in so many allocations gets pages of its own, in ordinary mode too. 0 means none.
    pub sample: usize,
}

impl Mitigations {
    /// No part.
    pub const NONE: Mitigations = Mitigations {
        zero: false,
        canary: false,
        random: false,
        guard: false,
        quarantine: 0,
        racing: false,
        sample: 0,
    };

    /// All parts, as they are by `hardened` alone.
    pub const ALL: Mitigations = Mitigations {
        zero: true,
        canary: true,
        random: true,
        guard: true,
        quarantine: QUARANTINE_BYTES,
        racing: true,
        sample: 0,
    };

    /// The parts `zero` and `quarantine`.
    pub const CLEARED: Mitigations = Mitigations {
        zero: true,
        quarantine: QUARANTINE_BYTES,
        ..Mitigations::NONE
    };

    /// Bytes that are added to every block.
    #[inline(always)]
    pub const fn behind(&self) -> usize {
        match self.canary {
            true => CANARY,
            false => 0,
        }
    }

    /// Whether threads are kept off the fast paths.
    pub fn is_hardened(&self) -> bool {
        self.zero || self.canary || self.random || self.guard || self.quarantine != 0
    }

    /// What the options say.
    pub fn of(options: &Options) -> Mitigations {
        let all = options.is_on(Name::Hardened);
        let bytes = options.get(Name::Quarantine);
        Mitigations {
            zero: all || options.is_on(Name::Zero),
            canary: all || options.is_on(Name::Canary),
            random: all || options.is_on(Name::Random),
            guard: all || options.is_on(Name::Guard),
            quarantine: if all && bytes == 0 {
                QUARANTINE_BYTES
            } else {
                bytes.min(thread::MOST)
            },
            racing: all,
            sample: options.get(Name::GuardSample),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mitigations(text: &str) -> Mitigations {
        let options = Options::new(&mut crate::mutex::Registry::new());
        options.freeze(text.as_bytes(), |_| panic!("{text}"));
        Mitigations::of(&options)
    }

    #[test]
    fn hardened_is_all_parts_and_single_ones_can_be_had() {
        let all = mitigations("hardened");
        assert_eq!(all, Mitigations::ALL);
        assert_ne!(mitigations("zero,canary,quarantine,random,guard"), all);
        assert_ne!(mitigations("hardened,quarantine:1m"), all);
        assert_eq!(mitigations("zero,quarantine"), Mitigations::CLEARED);
        assert_eq!(mitigations("decay:10"), Mitigations::NONE);
        let wanted = Mitigations {
            zero: true,
            quarantine: 64 << 10,
            sample: 1000,
            ..Mitigations::NONE
        };
        assert_eq!(mitigations("zero,quarantine:64k,guard-sample:1000"), wanted);
        assert!(wanted.is_hardened() && !mitigations("guard-sample:9").is_hardened());
        assert_eq!(mitigations("quarantine").quarantine, QUARANTINE_BYTES);
    }
}
