//! Who calls a slow path that allocates: asked once, at its entry.

use super::Allocator;
use crate::heap::{heap_of, Heap};
use crate::os::Os;
use crate::tls::ThreadCache;

/// Who calls.
#[derive(Clone, Copy)]
pub(crate) enum Caller<'a> {
    /// A signal handler that interrupted a slow path of the thread, or a function that one called.
    Nested,
    /// A thread that has this heap.
    Heap(&'a Heap),
    /// A thread of a process in hardened mode.
    Hardened,
    /// A thread that has no heap yet or any more: see `with_heap`.
    Bare,
}

impl<O: Os> Allocator<O> {
    /// Who calls with the block `thread`. Starts the allocator if the thread is its first, since the options say
    /// whether the mode is hardened.
    #[inline]
    pub(crate) fn caller<'a>(&self, thread: &'a ThreadCache) -> Caller<'a> {
        if self.is_interrupted(thread) {
            return Caller::Nested;
        }
        match heap_of(thread) {
            Some(heap) => Caller::Heap(heap),
            None if self.is_hardened(thread) => Caller::Hardened,
            None => Caller::Bare,
        }
    }
}
