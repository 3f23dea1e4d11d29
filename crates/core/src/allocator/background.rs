//! `background:on`: a thread that gives back what lies idle while the program's threads make no call.
//!
//! ```text
//!   ABSENT --an allocation, once the heap is large--> AWAKE <--a free-- DROWSY --nothing for some rounds--> ASLEEP
//!                                                       | `--a round-----^                                   |
//!                                                       `<----------------a free, which wakes it-------------'
//! ```
//!
//! The thread does a round in each interval of decay. If no thread of the program has freed anything by a slow path for
//! some rounds, all has gone back that will. Then it sleeps until one does. It holds no lock while it rests, blocks all
//! signals but libc's own, and ends with the process. A fork child makes its own.
//!
//! An allocation starts the thread, and a free never does. The C library frees under locks that it takes to make a
//! thread, but allocates under none of them.

use super::Allocator;
use crate::heap::Whose;
use crate::mutex;
use crate::options::Name;
use crate::os::Os;
use crate::sync::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::{Phase, ThreadCache};

/// There is no such thread and will be none.
const OFF: u32 = 0;
/// There is no such thread yet.
const ABSENT: u32 = 1;
/// The thread does its rounds, and something was freed since the last one.
const AWAKE: u32 = 2;
/// As `AWAKE`, but nothing was. In this state, and the one above, a free tells of itself.
const DROWSY: u32 = 3;
/// The thread sleeps until it is woken.
const ASLEEP: u32 = 4;

/// Bytes that the heap holds before the thread is made: so little may stay without it.
const HELD_LEAST: u64 = 4 << 20;
/// The shortest rest between two rounds, in milliseconds.
const REST_LEAST: u64 = 10;

/// Rounds without a slow path in between before the thread sleeps: what is kept goes back with the second interval of
/// decay, or the one after.
const ROUNDS: u32 = 4;

/// Whether there is a thread in the background, and what it does.
pub(super) struct Background(AtomicU32);

impl Background {
    pub(super) const fn new() -> Background {
        Background(AtomicU32::new(OFF))
    }

    /// There is to be such a thread from now on, or again in a fork child.
    pub(super) fn want(&self) {
        self.0.store(ABSENT, SeqCst);
    }

    /// In a fork child: the parent's thread is not here.
    pub(super) fn lose(&self) {
        if self.0.load(SeqCst) != OFF {
            self.want();
        }
    }

    fn change(&self, from: u32, to: u32) -> bool {
        self.0.compare_exchange(from, to, SeqCst, SeqCst).is_ok()
    }
}

impl<O: Os> Allocator<O> {
    /// Something was freed by a slow path, which has ended.
    #[inline(always)]
    pub(super) fn stir(&self) {
        if self.background.0.load(Relaxed) >= DROWSY {
            self.wake_background();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_background(&self) {
        let background = &self.background;
        if background.change(ASLEEP, AWAKE) {
            mutex::wake(&background.0);
        } else {
            background.change(DROWSY, AWAKE);
        }
    }

    /// A slow path that allocates has ended: makes the thread if it is wanted. With no lock held.
    #[inline(always)]
    pub(crate) fn look_after_background(&self, thread: &ThreadCache) {
        if self.wants_background() {
            self.begin_background(thread);
        }
    }

    /// Whether the thread is wanted and not there.
    #[inline(always)]
    pub(super) fn wants_background(&self) -> bool {
        self.background.0.load(Relaxed) == ABSENT
    }

    /// Makes the thread once the heap is large. That may allocate: the state says already that there is one.
    #[cold]
    #[inline(never)]
    fn begin_background(&self, thread: &ThreadCache) {
        let counters = self.backend.meta.counters();
        let held = counters.break_bytes.load(Relaxed) + counters.mapped.load(Relaxed);
        let background = &self.background;
        // A first-class heap's block speaks for a thread that is busy and holds the heap's lock.
        let is_free = thread.busy.get() == 0 && thread.phase.get() != Phase::Arena;
        if held < HELD_LEAST || !is_free || !background.change(ABSENT, AWAKE) {
            return;
        }
        // It may be in the middle of something when another thread forks.
        self.count_as_two();
        match self.backend.os.start_background() {
            true => self.attend(true),
            false => background.0.store(OFF, SeqCst),
        }
    }

    /// The thread is there from now on, or is not. What is freed need not go back at once if it is. In hardened mode
    /// the heaps of other threads are not visited, and what lies in them has to.
    pub(super) fn attend(&self, attended: bool) {
        let visits = !self.hard.is_on();
        self.backend.pages.set_attended(attended && visits);
        self.backend.large.set_attended(attended && visits);
    }

    /// What the thread in the background does, for good.
    pub fn keep_house(&self, thread: &ThreadCache) -> ! {
        let background = &self.background;
        let interval = self.backend.options.get(Name::Decay) as u64;
        let mut quiet = 0;
        loop {
            let freed = background.0.swap(DROWSY, SeqCst) == AWAKE;
            quiet = if freed { 0 } else { quiet + 1 };
            self.backend.os.rest(interval.max(REST_LEAST));
            self.give_back_idle(thread, interval);
            if quiet >= ROUNDS && background.change(DROWSY, ASLEEP) {
                while background.0.load(SeqCst) == ASLEEP {
                    mutex::wait(&background.0, ASLEEP);
                }
            }
        }
    }

    /// One round: what lay unused for an interval goes back, also from the heaps of threads that slept so long.
    fn give_back_idle(&self, thread: &ThreadCache, interval: u64) {
        let backend = &self.backend;
        let now = backend.os.clock();
        let quiet = backend.pages.quiet_for(now);
        self.visit_others(thread, Whose::AsleepSince(now.saturating_sub(interval)));
        if self.background.0.load(Relaxed) == DROWSY {
            // Nobody takes slabs from the process's lists now.
            self.with_heap(thread, |_, heap| {
                heap.discard_listed()?;
                Ok(Some(()))
            });
        }
        self.enter(thread, |_| backend.decay(now, quiet));
    }
}
