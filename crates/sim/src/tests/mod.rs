//! The simulated system itself: what the tests of the allocator believe. Here is what they share.

mod contract;
mod the_break;
mod mappings;
mod command;

use super::*;
use slabside_base::misuse::Call;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Four MiB, half for the break, changed by `change`.
fn sim_with(change: impl FnOnce(&mut SimConfig)) -> Sim {
    let mut config = SimConfig {
        bytes: 4 << 20,
        break_bytes: 2 << 20,
        ..SimConfig::default()
    };
    change(&mut config);
    Sim::new(config)
}

fn sim() -> Sim {
    sim_with(|_| ())
}

/// What `call` panicked with.
#[track_caller]
fn complaint<T>(call: impl FnOnce() -> T) -> String {
    let caught = catch_unwind(AssertUnwindSafe(call))
        .err()
        .expect("should have panicked");
    *caught.downcast::<String>().expect("a formatted message")
}

#[track_caller]
fn refuses<T>(message: &str, call: impl FnOnce() -> T) {
    let said = complaint(call);
    assert!(
        said.contains(message),
        "{said:?} should contain {message:?}"
    );
}

fn fill(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the tests call this for usable ranges only, which they own.
    unsafe { start.as_ptr().write_bytes(0x5a, bytes) };
}

fn all_are(byte: u8, start: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the tests call this for usable ranges only, which they own.
    (0..bytes).all(|at| unsafe { start.add(at).read() } == byte)
}

fn pointer(address: usize) -> NonNull<u8> {
    NonNull::new(address as *mut u8).unwrap()
}

// The unsafe calls, made short: what is unsafe about them is what `Sim` checks.

fn open(sim: &Sim, start: NonNull<u8>, bytes: usize) -> bool {
    open_as(sim, start, bytes, Hold::Reserved).is_ok()
}

fn open_as(sim: &Sim, start: NonNull<u8>, bytes: usize, hold: Hold) -> Result<(), Refusal> {
    // SAFETY: the tests own all of the window.
    unsafe { sim.open(start, bytes, hold) }
}

fn unmap(sim: &Sim, start: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the simulated system checks the range, and the test uses it no more.
    unsafe { sim.unmap(start, bytes) }
}

fn remap(sim: &Sim, start: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
    // SAFETY: the simulated system checks the range, and the test follows it.
    unsafe { sim.remap(start, old, new) }
}

fn move_over(sim: &Sim, start: NonNull<u8>, bytes: usize, to: NonNull<u8>) -> Moved {
    // SAFETY: the simulated system checks both ranges, and the test follows the pages.
    unsafe { sim.move_over(start, bytes, to) }
}

fn discard(sim: &Sim, start: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: the simulated system checks the range, and the test reads no old contents.
    unsafe { sim.discard(start, bytes) }
}
