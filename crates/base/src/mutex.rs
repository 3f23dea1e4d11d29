//! The lock, with what it guards inside, and the registry of all locks.
//!
//! The lock is a futex: a thread that finds it taken sleeps in the kernel. A yielding spin lock was
//! measured to stall for 20 seconds where more threads ran than cores.
//!
//! In a fork child the threads are gone that held locks of the parent's. So the child makes all locks free, and
//! must know all of them. [`Mutex::new`] wants the [`Registry`] of the allocator that the lock is a part of, which
//! counts. The allocator's walk (`Allocator::each_lock`) must show as many, or a test fails.

use crate::arch::{Block, BLOCK_LOCKS};
use crate::sync::{
    AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst,
};
use core::cell::{Cell, UnsafeCell};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::compiler_fence;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const AWAITED: u32 = 2;
/// Taken by a thread that is gone.
const LOST: u32 = 3;
/// A thread that does not wait for ever looks again after so many milliseconds.
const SLICE_MS: u64 = 10;

/// Counts the locks of an allocator while they are made.
pub struct Registry(usize);

impl Registry {
    /// No lock was made yet.
    #[allow(clippy::new_without_default)] // Whoever makes locks is to be given one.
    pub const fn new() -> Registry {
        Registry(0)
    }

    /// How many locks were made.
    pub const fn count(&self) -> usize {
        self.0
    }
}

/// A value that one thread at a time reaches. Not reentrant, not to be locked in signal handlers.
///
/// All zero, it is free and its value all zero: the metadata region is made of such.
#[repr(C)]
pub struct Mutex<T> {
    lock: Lock,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard alone, by one thread at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// A free lock around `value`, counted in `registry`.
    pub const fn new(registry: &mut Registry, value: T) -> Mutex<T> {
        registry.0 += 1;
        Mutex {
            lock: Lock(AtomicU32::new(FREE)),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock, sleeping while another thread holds it. Keeps errno.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        let held = Held::begin();
        self.lock.take();
        Guard(self, held)
    }

    /// Takes the lock if nobody holds it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Made only when the lock is taken: a guard that is dropped gives it back, whoever holds it.
        let held = Held::begin();
        self.lock.try_take().then(|| Guard(self, held))
    }

    /// As [`Mutex::lock_within`], of a lock that no thread waits for without an end. The thread does not count as one that
    /// holds a lock: if it leaves by longjmp, nobody gets the lock any more, and nobody is held up for good.
    pub fn uncounted_within(&self, milliseconds: u64) -> Option<Uncounted<'_, T>> {
        self.within(milliseconds, |state| {
            self.lock.try_take_as(state).then(|| Guard(self, ()))
        })
    }

    /// As [`Mutex::lock`], but gives up where other threads hold it for about so many milliseconds. A thread that waits
    /// counts as one that holds no lock, so it may leave by longjmp.
    pub fn lock_within(&self, milliseconds: u64) -> Option<Guard<'_, T>> {
        self.within(milliseconds, |state| {
            let held = Held::begin();
            self.lock.try_take_as(state).then(|| Guard(self, held))
        })
    }

    fn within<G>(&self, milliseconds: u64, take: impl Fn(u32) -> Option<G>) -> Option<G> {
        let (mut guard, mut left) = (take(TAKEN), milliseconds);
        while guard.is_none() && left > 0 {
            let waited = self.lock.announce() && wait_briefly(&self.lock.0, AWAITED);
            left = left.saturating_sub(if waited { SLICE_MS } else { 1 });
            guard = take(AWAITED);
        }
        // It may have been woken in the place of another one.
        if guard.is_none() && milliseconds > 0 && !self.lock.announce() {
            wake(&self.lock.0);
        }
        guard
    }

    /// The lock alone.
    #[inline]
    pub fn as_lock(&self) -> &Lock {
        &self.lock
    }
}

/// Holds a [`Mutex`] until dropped, and leads to its value. `H` counts that until the lock was given back.
pub struct Guard<'a, T, H = Held>(&'a Mutex<T>, #[allow(dead_code)] H);

/// A guard whose thread does not count as one that holds a lock.
pub type Uncounted<'a, T> = Guard<'a, T, ()>;

/// Counts in the thread's block that the thread holds a lock, from before it takes it until after it gave it back. So
/// whoever finds that the thread left a slow path by longjmp knows whether others may wait for it for good.
pub struct Held(());

impl Held {
    /// The calling thread is about to take a lock.
    #[inline(always)]
    pub fn begin() -> Held {
        let count = Held::count();
        count.set(count.get().wrapping_add(1));
        compiler_fence(SeqCst);
        Held(())
    }

    /// How many locks the calling thread holds.
    #[inline(always)]
    fn count() -> &'static Cell<u16> {
        // SAFETY: the place of `ThreadCache::locks` in the thread's own block, which lives as long as the thread.
        unsafe { &*Block::mine().address().add(BLOCK_LOCKS).cast() }
    }

    /// Whether the calling thread holds no lock.
    #[inline]
    pub fn none() -> bool {
        Held::count().get() == 0
    }

    /// No lock is the calling thread's: all were made free.
    pub fn forget() {
        Held::count().set(0);
    }
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        let count = Held::count();
        count.set(count.get().wrapping_sub(1));
    }
}

impl<T, H> Deref for Guard<'_, T, H> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock, so no other thread has a reference to the value.
        unsafe { &*self.0.value.get() }
    }
}

impl<T, H> DerefMut for Guard<'_, T, H> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock, and is borrowed by this caller alone.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T, H> Drop for Guard<'_, T, H> {
    #[inline]
    fn drop(&mut self) {
        self.0.lock.give();
    }
}

/// The word of a [`Mutex`]: zero when free. After U. Drepper, "Futexes Are Tricky" (2011), mutex 2.
#[repr(transparent)]
pub struct Lock(AtomicU32);

impl Lock {
    /// Whether nobody holds the lock. In a fork child that is a fact, elsewhere a guess.
    #[inline]
    pub fn is_free(&self) -> bool {
        self.0.load(Relaxed) == FREE
    }

    /// Whether a thread holds the lock that is still there to give it back, as far as is known.
    pub fn is_held(&self) -> bool {
        matches!(self.0.load(Relaxed), TAKEN | AWAITED)
    }

    /// Makes the lock free, whichever thread held it. For a fork child, whose other threads are gone.
    pub fn reset(&self) {
        self.0.store(FREE, Release);
    }

    /// Takes the free lock for good, like a thread that is gone before it gives the lock back. For tests, in which a
    /// thread that waits for it fails.
    pub fn lose(&self) {
        self.0.store(LOST, Release);
    }

    #[inline]
    fn take(&self) {
        if !self.try_take() {
            self.take_slow();
        }
    }

    #[inline]
    fn try_take(&self) -> bool {
        self.try_take_as(TAKEN)
    }

    #[inline]
    fn try_take_as(&self, state: u32) -> bool {
        self.0
            .compare_exchange(FREE, state, Acquire, Relaxed)
            .is_ok()
    }

    /// A thread is about to wait. False where the lock is free.
    fn announce(&self) -> bool {
        let before = self.0.compare_exchange(TAKEN, AWAITED, Relaxed, Relaxed);
        before != Err(FREE)
    }

    #[cold]
    fn take_slow(&self) {
        debug_assert!(self.0.load(Relaxed) != LOST, "nobody gives this lock back");
        for _ in 0..100 {
            if self.is_free() && self.try_take() {
                return;
            }
            core::hint::spin_loop();
        }
        while self.0.swap(AWAITED, Acquire) != FREE {
            wait(&self.0, AWAITED);
        }
    }

    #[inline]
    fn give(&self) {
        if self.0.swap(FREE, Release) == AWAITED {
            wake(&self.0);
        }
    }
}

/// Sleeps while `word` is `expected`, until it is woken. It may wake earlier.
pub fn wait(word: &AtomicU32, expected: u32) {
    futex(word, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, expected);
}

/// As [`wait`], for [`SLICE_MS`] at most. Whether they went by.
fn wait_briefly(word: &AtomicU32, expected: u32) -> bool {
    let slice = libc::timespec {
        tv_sec: 0,
        tv_nsec: SLICE_MS as libc::c_long * 1_000_000,
    };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    futex_for(word, operation, expected, core::ptr::from_ref(&slice)) == -(libc::ETIMEDOUT as isize)
}

/// Wakes one thread that sleeps on `word`.
pub fn wake(word: &AtomicU32) {
    futex(word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
}

/// Wakes all threads that sleep on `word`.
pub fn wake_all(word: &AtomicU32) {
    let all = i32::MAX as u32;
    futex(word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, all);
}

fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
    futex_for(word, operation, value, core::ptr::null());
}

/// With a time to wait for at most, if `time` is not null. The kernel's answer.
fn futex_for(
    word: &AtomicU32,
    operation: libc::c_int,
    value: u32,
    time: *const libc::timespec,
) -> isize {
    let place = word.as_ptr() as usize;
    let (operation, value) = (operation as usize, value as usize);
    // SAFETY: futex(2) reads the one word, which lives as long as the borrow, and the time, which the callers hold.
    unsafe {
        crate::arch::system_call(
            libc::SYS_futex as usize,
            [place, operation, value, time as usize, 0, 0],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_lock_excludes_more_threads_than_there_are_cores() {
        let mut registry = Registry::new();
        let shared = Arc::new(Mutex::new(&mut registry, 0u64));
        assert_eq!(registry.count(), 1);
        let threads: std::vec::Vec<_> = (0..8)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || (0..20_000).for_each(|_| *shared.lock() += 1))
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let total = shared.lock();
        assert_eq!(*total, 160_000);
        assert!(shared.try_lock().is_none());
    }

    #[test]
    fn who_waits_for_a_while_gives_up_or_gets_the_lock() {
        let mutex = Arc::new(Mutex::new(&mut Registry::new(), 0u64));
        let guard = mutex.lock();
        assert!(mutex.lock_within(0).is_none());
        assert!(mutex.lock_within(20).is_none());
        let waits = {
            let mutex = mutex.clone();
            std::thread::spawn(move || {
                let got = mutex.lock_within(600_000);
                (got.is_some(), Held::none())
            })
        };
        drop(guard);
        assert_eq!(waits.join().ok(), Some((true, false)));
        assert!(mutex.as_lock().is_free());
        let threads: std::vec::Vec<_> = (0..8)
            .map(|_| {
                let mutex = mutex.clone();
                std::thread::spawn(move || {
                    for _ in 0..5_000 {
                        *mutex.lock_within(600_000).expect("it is given back") += 1;
                        *mutex.lock() += 1;
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(*mutex.lock(), 80_000);
        assert!(Held::none());
    }

    #[test]
    fn a_lock_that_does_not_count_as_held_excludes_others_all_the_same() {
        let mutex = Arc::new(Mutex::new(&mut Registry::new(), Cell::new(0u64)));
        {
            let guard = mutex.uncounted_within(0).expect("it is free");
            assert!(Held::none());
            assert!(mutex.uncounted_within(0).is_none());
            assert!(mutex.uncounted_within(20).is_none());
            assert!(mutex.try_lock().is_none());
            guard.set(1);
        }
        assert!(mutex.as_lock().is_free());
        let add = |mutex: &Mutex<Cell<u64>>| {
            for _ in 0..5_000 {
                let guard = mutex.uncounted_within(600_000);
                let count = guard.expect("it is given back");
                count.set(count.get() + 1);
            }
        };
        let threads: std::vec::Vec<_> = (0..8)
            .map(|_| {
                let mutex = mutex.clone();
                std::thread::spawn(move || add(&mutex))
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(mutex.lock().get(), 40_001);
        // As a thread that left by longjmp.
        std::mem::forget(mutex.uncounted_within(0));
        assert!(mutex.uncounted_within(20).is_none());
        assert!(Held::none());
    }

    #[test]
    fn a_lock_that_is_held_is_not_taken_and_stays_held() {
        let mutex = Mutex::new(&mut Registry::new(), 5);
        assert!(Held::none());
        {
            let _guard = mutex.lock();
            assert!(mutex.try_lock().is_none());
            assert!(!Held::none(), "one is held still");
            assert!(
                !mutex.as_lock().is_free(),
                "who fails to take it must not give it back"
            );
        }
        assert!(mutex.as_lock().is_free());
        assert!(Held::none());
        assert_eq!(mutex.try_lock().map(|guard| *guard), Some(5));
        assert!(mutex.as_lock().is_free());
    }
}
