//! Threads that cost the heap nothing: `std::thread` allocates for each one, and a row about short-lived
//! threads would measure that.

use libc::c_void;
use std::mem::MaybeUninit;

/// Most threads that run at once.
pub const MOST: usize = 8;

struct Start<'a, F> {
    body: &'a F,
    number: usize,
}

extern "C" fn run<F: Fn(usize) + Sync>(start: *mut c_void) -> *mut c_void {
    // SAFETY: `together` keeps the start block alive until this thread is joined.
    let start = unsafe { &*start.cast::<Start<F>>() };
    (start.body)(start.number);
    std::ptr::null_mut()
}

fn spawn<F: Fn(usize) + Sync>(start: &Start<F>) -> libc::pthread_t {
    let mut thread = MaybeUninit::uninit();
    let argument = (start as *const Start<F>).cast_mut().cast();
    // SAFETY: `run::<F>` expects this argument, which outlives the thread: see `together`.
    let error =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), run::<F>, argument) };
    assert_eq!(error, 0, "no thread to be had");
    // SAFETY: pthread_create succeeded, so it wrote the thread.
    unsafe { thread.assume_init() }
}

/// Runs `body(0)` to `body(count - 1)` each in a thread of its own, and waits for all of them.
pub fn together<F: Fn(usize) + Sync>(count: usize, body: F) {
    assert!(count <= MOST);
    let starts: [_; MOST] = std::array::from_fn(|number| Start {
        body: &body,
        number,
    });
    let mut threads = [0; MOST];
    for (thread, start) in threads.iter_mut().zip(&starts[..count]) {
        *thread = spawn(start);
    }
    for thread in &threads[..count] {
        // SAFETY: the thread was started above and is joined once.
        unsafe { libc::pthread_join(*thread, std::ptr::null_mut()) };
    }
}
