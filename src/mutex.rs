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

    /// The lock alone.
    pub fn as_lock(&self) -> &Lock {
        &self.lock
    }
}

/// Holds a [`Mutex`] until dropped, and leads to its value.
pub struct Guard<'a, T>(&'a Mutex<T>, #[allow(dead_code)] Held); // Counted until the lock was given back.

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

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock, so no other thread has a reference to the value.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock, and is borrowed by this caller alone.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
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
    pub fn is_free(&self) -> bool {
        self.0.load(Relaxed) == FREE
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
        self.0
            .compare_exchange(FREE, TAKEN, Acquire, Relaxed)
            .is_ok()
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
    let place = word.as_ptr() as usize;
    // SAFETY: futex(2) reads the one word, which lives as long as the borrow. A null timeout means none.
    unsafe {
        crate::arch::system_call(
            libc::SYS_futex as usize,
            [place, operation as usize, value as usize, 0, 0, 0],
        );
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
