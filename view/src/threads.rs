//! Which thread a heap is of.
//!
//! ```text
//!   heap --> thread pointer --> struct pthread, in which the C library keeps the thread's number
//!        `-> a word of the thread's own, whose value is known: it is still that thread's
//! ```
//!
//! The allocator asks the system for the number of the first thread alone, since a filter of system calls may kill who
//! asks. What is found elsewhere is believed only where the target has a thread of that number.

use crate::model::{Heap, Owner};
use crate::source::Source;

/// Where C libraries keep a thread's number, from the thread pointer on, in bytes: glibc and musl, on x86-64.
const NUMBERS: [u64; 2] = [0x2d0, 0x30];

/// The addresses of the words, of 4 bytes each, by which the thread of `owner` is found.
pub(crate) fn words(owner: &Owner) -> impl Iterator<Item = u64> {
    let numbers = NUMBERS.map(|offset| owner.pointer.saturating_add(offset));
    let known = owner.pointer != 0 && owner.watched != 0;
    [owner.watched, numbers[0], numbers[1]]
        .into_iter()
        .filter(move |_| known)
}

/// Notes for each owner the number of its thread, as who reads counts threads.
pub(crate) fn find(source: &dyn Source, heap: &mut Heap) {
    let pid = source.about().pid;
    let numbers = source.thread_numbers();
    for owner in &mut heap.owners {
        owner.thread = match () {
            () if owner.is_arena => 0,
            () => number(source, owner, &numbers).unwrap_or_else(|| stated(owner, pid)),
        };
    }
}

/// The number that the C library keeps of the thread.
fn number(source: &dyn Source, owner: &Owner, numbers: &[(u32, u32)]) -> Option<u32> {
    let word = |address: u64| {
        let mut bytes = [0; 4];
        source
            .peek(address, &mut bytes)
            .then(|| u32::from_le_bytes(bytes))
    };
    let mut words = words(owner);
    // A thread that comes later may lie at the same addresses.
    if word(words.next()?)? != owner.value {
        return None;
    }
    words.find_map(|address| {
        let number = word(address)?;
        let found = numbers.iter().find(|(inner, _)| *inner == number);
        found.map(|(_, outer)| *outer)
    })
}

/// The number that the heap states itself. A child that has not repaired its heap yet still has its parent's, and its
/// one thread is the main one.
fn stated(owner: &Owner, pid: u32) -> u32 {
    match owner.pid {
        0 if owner.index == 0 && owner.pointer == 0 => pid,
        known if known != 0 && pid != 0 && known != pid => pid,
        _ => owner.tid,
    }
}
