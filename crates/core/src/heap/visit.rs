//! Visits: what lies idle in the heap of a thread that sleeps goes back all the same, by another thread's hand.
//!
//! A visitor stands at the heap's [`Door`](crate::door::Door) and keeps its thread out of the slow paths that change
//! lists. So no slab that waits on a list is activated or released meanwhile, and no slot of it is handed out. The
//! thread's fast paths go on, and other threads free: that makes no page less idle. The visitor discards the pages on which no
//! slot is live and notes that in the header's mask. It changes no list, no owner word and no bitmap.
//!
//! The slabs that the thread takes slots from, and the free spans that it takes without a slow path, are left alone.

use super::holes::{idle_pages, Purpose};
use super::{heap_of, Backend, Heap, HeapRef};
use crate::class::ClassId;
use crate::misuse::Misuse;
use crate::mutex::{self, Held};
use crate::os::Os;
use crate::slab::{SlabPtr, State};
use crate::sync::Ordering::Relaxed;
use crate::tls::{Busy, ThreadCache};
use crate::units::Slot;

/// The heap's thread is inside the door, until this is dropped.
pub struct Inside<'a>(&'a Heap);

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.door.leave();
    }
}

/// A visitor is at the door, until this is dropped.
struct Visitor<'a>(&'a Heap);

impl Drop for Visitor<'_> {
    fn drop(&mut self) {
        if let Some(word) = self.0.door.release() {
            mutex::wake(word);
        }
    }
}

/// Keeps the threads out that share a silent heap, until this is dropped: whoever has it works on the heap alone, with
/// no lock held, and so as other heaps do.
pub struct Alone<'a>(&'a Heap);

impl Alone<'_> {
    /// The heap.
    pub fn heap(&self) -> &Heap {
        self.0
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.be_silent(true);
        drop(Visitor(self.0));
    }
}

/// Whose heaps are visited.
#[derive(Clone, Copy)]
pub enum Whose {
    /// Those of all other threads.
    All,
    /// Those of threads that have not looked at the clock since then, in milliseconds.
    AsleepSince(u64),
}

impl Heap {
    /// Goes inside, which every slow path of the heap's thread does that uses a list of the heap's. `None` while another
    /// thread visits: then the long way is to be taken, by [`Heap::come_in_or_wait`].
    #[inline(always)]
    pub fn come_in(&self, _: &Busy) -> Option<Inside<'_>> {
        self.go_in()
    }

    #[inline(always)]
    fn go_in(&self) -> Option<Inside<'_>> {
        self.door.enter().then(|| Inside(self))
    }

    /// Goes inside, as soon as no other thread visits. A visitor that is waited for goes after one system call at most.
    #[inline]
    pub fn come_in_or_wait(&self, _: &Busy) -> Inside<'_> {
        self.stand_in()
    }

    /// As [`Heap::come_in_or_wait`], in place of the heap's thread, which is gone or lets go of it.
    #[inline]
    pub(super) fn stand_in(&self) -> Inside<'_> {
        loop {
            if let Some(inside) = self.go_in() {
                return inside;
            }
            self.wait_outside();
        }
    }

    #[cold]
    fn wait_outside(&self) {
        if let Some((word, value)) = self.door.knock() {
            mutex::wait(word, value);
        }
    }

    /// In a fork child in which the heap's thread may be at work, unless it is gone. A visitor is gone in any case. It
    /// has changed no list.
    pub(super) fn stay_as_is(&self) {
        self.unwatch();
        self.door.release();
    }
}

impl<O: Os> HeapRef<'_, O> {
    /// Whether a thread has the heap, and it is one of those that are `whose`.
    fn is_one(self, whose: Whose) -> bool {
        let me = self.me();
        let asleep = match whose {
            Whose::All => true,
            Whose::AsleepSince(then) => self.last_decay.load(Relaxed) <= then,
        };
        !me.is_none() && !me.is_arena() && asleep
    }

    /// Discards what lies idle, unless the heap's thread is at work in it: then it is asked to give back itself.
    fn visit(self, whose: Whose) {
        if !self.is_one(whose) {
            return;
        }
        let _held = Held::begin();
        if !self.door.hold() {
            return;
        }
        let _visitor = Visitor(&self);
        if !self.backend.os.barrier() {
            return;
        }
        if !self.door.is_out() {
            self.asked.store(1, Relaxed);
        } else if self.is_one(whose) {
            // Only a thread that was in its heap gives it away.
            self.discard_waiting();
        }
    }

    /// Discards the pages of slabs and spans on lists on which no slot is live, until the heap's thread waits. By a
    /// visitor.
    fn discard_waiting(self) {
        self.each_waiting(|slab| {
            self.discard_unused(slab);
            !self.door.is_awaited()
        });
    }

    /// Shows the slabs and spans that wait on a list, until `visit` says that it is enough.
    fn each_waiting(self, mut visit: impl FnMut(SlabPtr) -> bool) {
        let table = self.table();
        let mut more = true;
        let mut each = |mut slabs: &mut dyn Iterator<Item = SlabPtr>| {
            more = more && Iterator::all(&mut slabs, &mut visit);
        };
        for class in &self.classes {
            each(&mut class.partial.iter(table));
            for stack in [&class.sparse, &class.full] {
                each(&mut stack.iter(table));
            }
        }
        each(&mut self.spans.iter(table));
    }

    /// Discards all pages of `slab` on which no slot is live.
    fn discard_unused(self, slab: SlabPtr) {
        if !slab.is_span() {
            self.discard_pages(slab, idle_pages(slab), Purpose::Tick);
        } else if slab.state() != State::Active
            && (slab.is_remote(Slot::FIRST) || slab.is_free(Slot::FIRST))
        {
            // The heap's thread takes an active span without coming in.
            self.discard_span(slab);
        }
    }

    /// Discards pages without a live slot of slabs that nobody owns: each is taken from the process's list and put
    /// back.
    pub fn discard_listed(self) -> Result<(), Misuse> {
        for class in ClassId::all() {
            for _ in 0..self.backend.abandoned.count(class) {
                let adopted = self
                    .backend
                    .abandoned
                    .adopt_any(self.table(), class, self.me());
                let Some((slab, how)) = adopted else {
                    break;
                };
                self.classes[class.index()].own();
                self.collect(slab)?;
                self.discard_unused(slab);
                self.leave(slab, how)?;
            }
        }
        Ok(())
    }
}

impl<O: Os> Backend<O> {
    /// Keeps all others out of the silent heap of `local`, whose lock the caller holds and may give back then. So no thread
    /// is inside, and whoever takes the lock after that finds the door held. `None` where there is a visitor.
    pub fn keep_others_out(&self, local: &ThreadCache) -> Option<Alone<'_>> {
        heap_of(local)?;
        let heap = self.heap_of_owner(local.me.get());
        heap.door.hold().then(|| {
            heap.be_silent(false);
            Alone(heap)
        })
    }

    /// Gives back what lies idle in the heaps of other threads than `mine`'s. Does nothing where the system cannot run
    /// a barrier on all processors.
    pub fn visit_others(&self, mine: Option<&Heap>, whose: Whose) {
        let mine = mine.map(Heap::id);
        for id in self.heaps.made().filter(|&id| Some(id) != mine) {
            self.heap_at(id).on(self).visit(whose);
        }
    }
}
