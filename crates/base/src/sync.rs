//! Atomics, or loom's in their place under `cfg(loom)`.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU16, AtomicU8, AtomicUsize};
#[cfg(loom)]
pub use loom::thread::yield_now;
#[cfg(loom)]
pub use modelled::{expect_fork, freeze, AtomicU32, AtomicU64, Frozen};

pub use core::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};
#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicU8, AtomicUsize};

/// Reads a word by a plain load, which the compiler can fold into the instruction that uses it.
///
/// # Safety
/// No other thread stores to the word now: the caller owns it, or it was set before the caller could
/// know of it.
#[cfg(not(loom))]
#[inline(always)]
pub unsafe fn load_unsynchronized(word: &AtomicUsize) -> usize {
    // SAFETY: the caller's: a load that no store races with.
    unsafe { *word.as_ptr() }
}

#[cfg(not(loom))]
pub use crate::arch::{count_ones, unlinked};

/// How many of `bits` are set.
#[cfg(loom)]
pub fn count_ones(bits: u64) -> u64 {
    u64::from(bits.count_ones())
}

/// Flips `bits` in a word that only the calling thread writes. Others read it.
#[cfg(not(loom))]
#[inline(always)]
pub fn xor_owned(word: &AtomicU64, bits: u64) {
    // SAFETY: the borrow keeps the word alive, and its type makes it aligned.
    unsafe { crate::arch::xor_owned(word.as_ptr(), bits) };
}

/// Flips `bits` in a word that only the calling thread writes. Others read it.
#[cfg(loom)]
pub fn xor_owned(word: &AtomicU64, bits: u64) {
    word.store(word.load(Relaxed) ^ bits, Relaxed);
}

/// A plain store, before all that follows. Another thread sees it so, if it has had a barrier run on this thread's
/// processor in between.
#[cfg(not(loom))]
#[inline(always)]
pub fn announce(word: &AtomicU32, value: u32) {
    word.store(value, Relaxed);
    core::sync::atomic::compiler_fence(SeqCst);
}

/// As above. The barrier that the other thread has run is taken to stand here.
#[cfg(loom)]
pub fn announce(word: &AtomicU32, value: u32) {
    word.store(value, SeqCst);
}

/// Adds to a count that only the calling thread reads and writes: whether its top bit is set then.
#[cfg(not(loom))]
#[inline(always)]
pub fn pass_owned(count: &core::cell::Cell<u64>, by: u64) -> bool {
    // SAFETY: the borrow keeps the count alive, and a `Cell` belongs to one thread.
    unsafe { crate::arch::pass_owned(count.as_ptr(), by) }
}

/// Adds to a number that only the calling thread writes: one instruction, in the middle of which no signal
/// handler of the thread's can write it too.
#[cfg(not(loom))]
#[inline(always)]
pub fn add_owned(number: &core::cell::Cell<i32>, by: i32) {
    // SAFETY: the borrow keeps the number alive, and a `Cell` belongs to one thread.
    unsafe { crate::arch::add_owned(number.as_ptr(), by) };
}

/// As [`add_owned`]: whether the number is above zero then.
#[cfg(not(loom))]
#[inline(always)]
pub fn fill_owned(number: &core::cell::Cell<i32>, by: i32) -> bool {
    // SAFETY: the borrow keeps the number alive, and a `Cell` belongs to one thread.
    unsafe { crate::arch::fill_owned(number.as_ptr(), by) }
}

/// Adds one to a number that only the calling thread writes. It stays where it is full.
#[cfg(not(loom))]
#[inline(always)]
pub fn add_to_full(number: &core::cell::Cell<u16>) {
    // SAFETY: the borrow keeps the number alive, and a `Cell` belongs to one thread.
    unsafe { crate::arch::add_to_full(number.as_ptr()) }
}

/// Adds to a number that only the calling thread writes.
#[cfg(loom)]
#[inline(always)]
pub fn add_owned(number: &core::cell::Cell<i32>, by: i32) {
    number.set(number.get().wrapping_add(by));
}

/// loom takes a sequentially consistent access for one that acquires and releases, and so finds races where there are
/// none. It also orders no load before or after another load, and so misses orders. Here a second word, changed by each
/// load and each such store, mends both.
#[cfg(loom)]
mod modelled {
    use super::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};
    use std::boxed::Box;
    use std::cell::Cell;

    std::thread_local! {
        /// Whether threads of this model look at the fuse. A model's threads all run on one of the system's.
        static FORKS: Cell<bool> = const { Cell::new(false) };
    }

    loom::lazy_static! {
        /// Whether the process has forked: each access looks at it first, so that loom tries a fork between
        /// any two.
        static ref FUSE: loom::sync::atomic::AtomicBool = loom::sync::atomic::AtomicBool::new(false);
    }

    /// What a thread unwinds with that is no more in a fork child.
    pub struct Frozen;

    /// From now on threads of this model look at the fuse, or no more.
    pub fn expect_fork(expected: bool) {
        FORKS.set(expected);
    }

    /// The process forks: each other thread unwinds with [`Frozen`] before its next access to an atomic.
    pub fn freeze() {
        FUSE.store(true, Release);
    }

    fn go_on() {
        if FORKS.get() && !std::thread::panicking() && FUSE.load(Acquire) {
            std::panic::resume_unwind(Box::new(Frozen));
        }
    }

    macro_rules! atomic {
        ($name:ident, $of:ty) => {
            /// An atomic of loom's, with sequentially consistent accesses added.
            pub struct $name {
                value: loom::sync::atomic::$name,
                order: loom::sync::atomic::AtomicU8,
            }

            impl $name {
                /// As std's.
                pub fn new(value: $of) -> $name {
                    $name {
                        value: loom::sync::atomic::$name::new(value),
                        order: loom::sync::atomic::AtomicU8::new(0),
                    }
                }

                /// As std's.
                pub fn load(&self, order: Ordering) -> $of {
                    go_on();
                    let sync = if order == SeqCst { Acquire } else { Relaxed };
                    self.order.fetch_or(0, sync);
                    self.value
                        .load(if order == SeqCst { Acquire } else { order })
                }

                /// As std's.
                pub fn store(&self, value: $of, order: Ordering) {
                    go_on();
                    if order == SeqCst {
                        self.value.swap(value, Release);
                        self.order.fetch_or(0, Release);
                    } else {
                        self.value.store(value, order);
                    }
                }

                fn change(&self, order: Ordering, with: impl FnOnce(Ordering) -> $of) -> $of {
                    go_on();
                    if order == SeqCst {
                        let before = with(AcqRel);
                        self.order.fetch_or(0, Release);
                        return before;
                    }
                    with(order)
                }

                /// As std's.
                pub fn swap(&self, value: $of, order: Ordering) -> $of {
                    self.change(order, |order| self.value.swap(value, order))
                }

                /// As std's.
                pub fn fetch_or(&self, bits: $of, order: Ordering) -> $of {
                    self.change(order, |order| self.value.fetch_or(bits, order))
                }

                /// As std's.
                pub fn fetch_and(&self, bits: $of, order: Ordering) -> $of {
                    self.change(order, |order| self.value.fetch_and(bits, order))
                }

                /// As std's.
                pub fn compare_exchange(
                    &self,
                    old: $of,
                    new: $of,
                    order: Ordering,
                    failure: Ordering,
                ) -> Result<$of, $of> {
                    go_on();
                    let failure = if failure == SeqCst {
                        self.order.fetch_or(0, Acquire);
                        Acquire
                    } else {
                        failure
                    };
                    let done = self.value.compare_exchange(old, new, order, failure);
                    if done.is_ok() && order == SeqCst {
                        self.order.fetch_or(0, Release);
                    }
                    done
                }
            }
        };
    }

    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
}
