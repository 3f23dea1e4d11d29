//! Atomics and the lock, or loom's in their place under `cfg(loom)`.
//!
//! The lock is a futex: a thread that finds it taken sleeps in the kernel. A yielding spin lock was
//! measured to stall for 20 seconds where more threads ran than cores.

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
pub unsafe fn settled(word: &AtomicUsize) -> usize {
    // SAFETY: the caller's: a load that no store races with.
    unsafe { *word.as_ptr() }
}

#[cfg(not(loom))]
pub use crate::arch::unlinked;

/// Flips `bits` in a word that only the calling thread writes; others read it.
#[cfg(not(loom))]
#[inline(always)]
pub fn flip(word: &AtomicU64, bits: u64) {
    // SAFETY: the borrow lives.
    unsafe { crate::arch::flip(word.as_ptr(), bits) };
}

/// Flips `bits` in a word that only the calling thread writes; others read it.
#[cfg(loom)]
pub fn flip(word: &AtomicU64, bits: u64) {
    word.store(word.load(Relaxed) ^ bits, Relaxed);
}

/// Adds to a number that only the calling thread writes: one instruction, in the middle of which no signal
/// handler of the thread's can write it too.
#[cfg(not(loom))]
#[inline(always)]
pub fn shift(number: &core::cell::Cell<i32>, by: i32) {
    // SAFETY: a number that lives.
    unsafe { crate::arch::shift(number.as_ptr(), by) };
}

/// Adds to a number that only the calling thread writes.
#[cfg(loom)]
#[inline(always)]
pub fn shift(number: &core::cell::Cell<i32>, by: i32) {
    number.set(number.get().wrapping_add(by));
}

#[cfg(not(loom))]
pub use futex::{Guard, Lock};

/// loom takes a sequentially consistent access for one that acquires and releases, and so finds races
/// where there are none; and it tries a load before and after no other load, and so misses orders. Here
/// a second word, changed by each load and each such store, mends both.
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

#[cfg(not(loom))]
mod futex {
    use core::sync::atomic::{AtomicU32, Ordering};

    const FREE: u32 = 0;
    const TAKEN: u32 = 1;
    const AWAITED: u32 = 2;

    /// A mutual exclusion lock of one word, free when zero. Not reentrant, not to be taken in signal
    /// handlers. After U. Drepper, "Futexes Are Tricky" (2011), mutex 2.
    #[repr(transparent)]
    pub struct Lock(AtomicU32);

    /// Holds a [`Lock`] until dropped.
    pub struct Guard<'a>(&'a Lock);

    impl Default for Lock {
        fn default() -> Lock {
            Lock::new()
        }
    }

    impl Lock {
        /// A free lock.
        pub const fn new() -> Lock {
            Lock(AtomicU32::new(FREE))
        }

        /// Takes the lock, sleeping while another thread holds it. Keeps errno.
        #[inline]
        pub fn lock(&self) -> Guard<'_> {
            if self
                .0
                .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                self.lock_slow();
            }
            Guard(self)
        }

        /// Takes the lock if nobody holds it.
        #[inline]
        pub fn try_lock(&self) -> Option<Guard<'_>> {
            let taken = self
                .0
                .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed);
            taken.ok().map(|_| Guard(self))
        }

        /// Whether nobody holds the lock; in a fork child that is a fact, elsewhere a guess.
        pub fn is_free(&self) -> bool {
            self.0.load(Ordering::Relaxed) == FREE
        }

        /// Makes the lock free whoever held it: in a fork child, whose other threads are gone.
        pub fn reset(&self) {
            self.0.store(FREE, Ordering::Release);
        }

        #[cold]
        fn lock_slow(&self) {
            for _ in 0..100 {
                if self.0.load(Ordering::Relaxed) == FREE
                    && self
                        .0
                        .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
                        .is_ok()
                {
                    return;
                }
                core::hint::spin_loop();
            }
            while self.0.swap(AWAITED, Ordering::Acquire) != FREE {
                wait(&self.0, AWAITED);
            }
        }
    }

    impl Drop for Guard<'_> {
        #[inline]
        fn drop(&mut self) {
            if self.0 .0.swap(FREE, Ordering::Release) == AWAITED {
                wake(&self.0 .0);
            }
        }
    }

    fn wait(word: &AtomicU32, expected: u32) {
        futex(word, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, expected);
    }

    fn wake(word: &AtomicU32) {
        futex(word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
    }

    fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
        // SAFETY: futex(2) reads the one word, which lives as long as the borrow; a null timeout means
        // none. errno is the calling thread's own location and is put back, since `free` keeps it.
        unsafe {
            let errno = libc::__errno_location();
            let kept = *errno;
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                operation,
                value,
                core::ptr::null::<libc::timespec>(),
            );
            *errno = kept;
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::sync::Arc;

        struct Shared(Lock, core::cell::UnsafeCell<u64>);
        // SAFETY: the cell is touched only under the lock.
        unsafe impl Sync for Shared {}
        // SAFETY: as above.
        unsafe impl Send for Shared {}

        #[test]
        fn the_lock_excludes_more_threads_than_there_are_cores() {
            let shared = Arc::new(Shared(Lock::new(), core::cell::UnsafeCell::new(0)));
            let threads: std::vec::Vec<_> = (0..8)
                .map(|_| {
                    let shared = shared.clone();
                    std::thread::spawn(move || {
                        for _ in 0..20_000 {
                            let _guard = shared.0.lock();
                            // SAFETY: under the lock.
                            unsafe { *shared.1.get() += 1 };
                        }
                    })
                })
                .collect();
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            let _guard = shared.0.lock();
            // SAFETY: under the lock.
            assert_eq!(unsafe { *shared.1.get() }, 160_000);
            assert!(shared.0.try_lock().is_none());
        }
    }
}
