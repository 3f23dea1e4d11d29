//! The door of a heap: a lock that is biased towards the heap's own thread. That thread takes and releases it at the
//! price of two stores. Another thread, the visitor, can take it while the owner is out, which is always so when the
//! owner sleeps.
//!
//! ```text
//!   owner     inside = 1, no fence | held? wait outside |  ... lists ...  | inside = 0
//!   visitor   held = 1 | barrier on all processors | inside? go away | ... lists ... | held = 0
//! ```
//!
//! If both come at the same time, at least one of them sees the other. For that the owner's store and load must not
//! change places. The visitor has the system run a barrier on every processor that runs a thread of the process
//! (membarrier(2)). So the owner, who comes a million times as often, needs no barrier.
//!
//! The owner waits for a visitor, but a visitor never waits for the owner. Nothing here waits: that is the callers'
//! business.

use crate::sync::{announce, AtomicU32, Ordering::Release, Ordering::SeqCst};

/// Nobody visits.
const OPEN: u32 = 0;
/// A visitor is there, or asks.
const HELD: u32 = 1;
/// And the owner waits outside.
const AWAITED: u32 = 2;

/// A heap's door. All zero, it is open and nobody is inside.
#[repr(C)]
pub struct Door {
    inside: AtomicU32,
    visitor: AtomicU32,
}

impl Door {
    /// An open door.
    pub fn new() -> Door {
        Door {
            inside: AtomicU32::new(0),
            visitor: AtomicU32::new(OPEN),
        }
    }

    /// The owner goes in. False where a visitor holds the door: the owner is outside.
    #[inline(always)]
    pub fn enter(&self) -> bool {
        announce(&self.inside, 1);
        if self.visitor.load(SeqCst) == OPEN {
            return true;
        }
        self.leave();
        false
    }

    /// The owner goes out.
    #[inline(always)]
    pub fn leave(&self) {
        self.inside.store(0, Release);
    }

    /// The owner, outside, says that it waits: the word and its value to sleep on, until another is there. `None`
    /// where the visitor has gone.
    pub fn knock(&self) -> Option<(&AtomicU32, u32)> {
        let now = self.visitor.load(SeqCst);
        let waits = now == AWAITED
            || now == HELD
                && self
                    .visitor
                    .compare_exchange(HELD, AWAITED, SeqCst, SeqCst)
                    .is_ok();
        waits.then_some((&self.visitor, AWAITED))
    }

    /// A visitor holds the door, so that the owner does not go in from now on. False if another one does. Before it
    /// asks whether the owner [is out](Door::is_out), there has to be a barrier.
    pub fn hold(&self) -> bool {
        self.visitor
            .compare_exchange(OPEN, HELD, SeqCst, SeqCst)
            .is_ok()
    }

    /// Whether the owner is outside: then it stays there for as long as the visitor holds the door.
    pub fn is_out(&self) -> bool {
        self.inside.load(SeqCst) == 0
    }

    /// Whether the owner waits.
    pub fn is_awaited(&self) -> bool {
        self.visitor.load(SeqCst) == AWAITED
    }

    /// The visitor goes. The word on which the owner sleeps, if it waits: it is to be woken.
    pub fn release(&self) -> Option<&AtomicU32> {
        (self.visitor.swap(OPEN, SeqCst) == AWAITED).then_some(&self.visitor)
    }

    /// In a fork child, which has no visitor, and whose thread is not inside.
    pub fn reset(&self) {
        self.inside.store(0, SeqCst);
        self.visitor.store(OPEN, SeqCst);
    }
}

impl Default for Door {
    fn default() -> Door {
        Door::new()
    }
}
