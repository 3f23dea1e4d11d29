//! Hardened mode: what the slow paths do when they are asked to.
//!
//! A hardened thread never takes a fast path: the caches of its block stay empty, and its owner word owns no slab. Its
//! heap works on a block of its own (`thread`), with the same slabs, lists and protocols as by default. What hardened
//! mode adds happens to a slot between the heap and the program:
//!
//! ```text
//!   heap --> random slot --> still zero? --> note its exact size --> canary after it --> program      malloc
//!   heap <-- quarantine, all zero <-- canary whole? <-- exact size known? forget it <-- program             free
//! ```
//!
//! Each part works without the others. Here is what all of them share, and how the mode, a thread, a first-class heap and
//! a fork child begin and end. Knows nothing of entry points. A misuse comes back as an error.

mod ago;
mod bytes;
mod beds;
mod empty;
mod guard_pages;
mod random;
mod sample;
mod sizes;
mod thread;
mod mitigations;
mod forms;
mod warm;
mod live;
mod room;
mod canary;
mod apart;
mod malloc;
mod free;
mod resize;
mod explain;

use crate::heap::{Backend, Heap};
use crate::meta::{Area, Meta};
use crate::misuse::Misuse;
use crate::mutex::{Lock, Registry};
use crate::options::Options;
use crate::os::Os;
use crate::read_only::ReadOnly;
use crate::slab::SlabPtr;
use crate::sync::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::tls::{Phase, ThreadCache};
use crate::units::Slot;
use crate::wide::Wide;
use beds::{apart_most, Beds};
use bytes::Secret;
use core::ops::Deref;
use empty::Empty;
use guard_pages::AddressQuarantine;
use sizes::{Sizes, Table, Words};
use thread::Threads;

pub use forms::{Cleared, Form, Known, Plain, Whole, WideOnly};
pub use live::Live;
pub use mitigations::Mitigations;
pub use sample::Samples;
pub use thread::Thread;

/// Hardened mode of one allocator. Off, and all zero, until [`HardenedRef::begin`].
pub struct Hardened {
    on: AtomicU32,
    fixed: ReadOnly<Fixed>,
    words: Words,
    threads: Threads,
    held: AddressQuarantine,
    beds: Beds,
    empty: Empty,
}

/// What never changes once the mode is on.
#[derive(Clone, Copy)]
struct Fixed {
    mitigations: Mitigations,
    secret: Secret,
    /// Bytes that are added to every block.
    behind: usize,
    /// How many bytes can be cleared and verified at a time.
    wide: Wide,
    /// Which form of the common paths is to run.
    form: Form,
    /// Where the exact sizes lie.
    table: Table,
    /// Where the threads lie.
    threads: usize,
    /// From where a thread's block counts to its own (see `thread`).
    places: usize,
    /// The most large blocks that live apart from one another.
    apart_most: usize,
}

impl Hardened {
    /// Off.
    pub const fn new(locks: &mut Registry) -> Hardened {
        Hardened {
            on: AtomicU32::new(0),
            fixed: ReadOnly::new(Fixed {
                mitigations: Mitigations::NONE,
                secret: Secret {
                    plain: 0,
                    factor: 0,
                },
                behind: 0,
                wide: Wide::UNKNOWN,
                form: Form::Plain,
                table: Table::NONE,
                threads: 0,
                places: 0,
                apart_most: 0,
            }),
            words: Words::new(locks),
            threads: Threads::new(locks),
            held: AddressQuarantine::new(locks),
            beds: Beds::new(locks),
            empty: Empty::new(locks),
        }
    }

    /// Whether threads are hardened.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Acquire) != 0
    }

    /// Which form of the common paths is to run: another one than the plain one only where the processor has what it needs.
    #[inline(always)]
    pub fn form(&self) -> Form {
        self.fixed.form
    }

    #[inline(always)]
    fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    /// The mitigations that are on. What is known of them at compile time is a constant.
    #[inline(always)]
    fn mitigations<F: Known>(&self) -> Mitigations {
        match F::MITIGATIONS {
            Some(known) => known,
            None => self.fixed.mitigations,
        }
    }

    /// Bytes that are added to every block.
    #[inline(always)]
    fn behind<F: Known>(&self) -> usize {
        match F::MITIGATIONS {
            Some(known) => known.behind(),
            None => self.fixed.behind,
        }
    }

    #[inline(always)]
    fn sizes(&self) -> Sizes<'_> {
        Sizes::new(&self.fixed.table, &self.words)
    }

    /// Before the metadata are there: whether the options want the mode, which then is provided for.
    pub fn provide(&self, options: &Options, meta: &Meta) -> bool {
        let wanted = Mitigations::of(options).is_hardened();
        if wanted {
            meta.harden();
        }
        wanted
    }

    /// The hardened thread of a block. `None` means that it has none.
    #[inline]
    pub fn thread(&self, local: &ThreadCache) -> Option<&Thread> {
        self.threads.of(self.fixed.places, local)
    }

    /// Whether anything is chosen at random.
    pub fn draws(&self) -> bool {
        self.is_on() && self.fixed().mitigations.random
    }

    /// The block that the heap of `local` works on.
    pub fn caches<'a>(&'a self, local: &'a ThreadCache) -> &'a ThreadCache {
        self.thread(local).map_or(local, |thread| &thread.local)
    }

    /// Before a first-class heap ends, whose block is `local`: what waits in its quarantine goes with it.
    pub fn end_quarantine(&self, local: &ThreadCache) {
        if let Some(thread) = self.thread(local) {
            thread.quarantine.forget();
        }
    }

    /// A first-class heap has ended, whose block is `local`: takes back what was kept for it.
    pub fn give_back(&self, local: &ThreadCache) {
        if let Some(thread) = self.thread(local) {
            self.threads.give(thread, local);
        }
    }

    /// Gives back what freed large blocks hold of address space. Whether they held any.
    pub fn reclaim<O: Os>(&self, os: &O) -> bool {
        self.held.shrink(os, 0)
    }

    /// The slots of `slab` that the program has freed and that are not free yet: none where the mode is off. One in which a
    /// misuse was found, and that nobody gets again, is among them. Other threads may be at work: then it is a moment's
    /// mixture.
    pub fn quarantined(&self, slab: SlabPtr) -> impl Iterator<Item = Slot> + '_ {
        let slots = if self.is_on() { slab.slots() } else { 0 };
        // In this order, since a collection moves a free from the remote bitmap to the other one.
        let is_used = move |slot| !slab.is_remote(slot) && !slab.is_free(slot);
        (0..slots)
            .map(Slot::new)
            .filter(move |&slot| is_used(slot) && self.sizes().size(slab, slot).is_none())
    }

    fn repair_slab(&self, slab: SlabPtr) {
        for slot in self.quarantined(slab) {
            if self.fixed().mitigations.zero {
                // SAFETY: no thread of this process has the slot.
                unsafe { bytes::clear(slab.address(slot), slab.size()) };
            }
            let word = slab.free_word(slot.word());
            word.store(word.load(Relaxed) | slot.bit(), Relaxed);
        }
    }

    /// Whether nobody holds a lock that is never held over a system call.
    pub fn short_locks_are_free(&self) -> bool {
        self.held.lock_is_free()
    }

    /// Shows every lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        self.held.each_lock(visit);
        self.beds.each_lock(visit);
        self.words.each_lock(visit);
        self.empty.each_lock(visit);
        self.threads.each_lock(visit);
    }

    /// It, on `backend`.
    #[inline(always)]
    pub fn on<'a, O: Os>(&'a self, backend: &'a Backend<O>) -> HardenedRef<'a, O> {
        HardenedRef {
            hard: self,
            backend,
        }
    }
}

/// Hardened mode and the backend that the heaps stand on: what its paths work with. Two words, by value.
pub struct HardenedRef<'a, O: Os> {
    hard: &'a Hardened,
    backend: &'a Backend<O>,
}

impl<O: Os> Clone for HardenedRef<'_, O> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<O: Os> Copy for HardenedRef<'_, O> {}

impl<O: Os> Deref for HardenedRef<'_, O> {
    type Target = Hardened;

    #[inline(always)]
    fn deref(&self) -> &Hardened {
        self.hard
    }
}

impl<'a, O: Os> HardenedRef<'a, O> {
    /// Turns the mode on, once, before the first allocation and with the metadata in place.
    pub fn begin(self) {
        let mitigations = Mitigations::of(&self.backend.options);
        let secret = Secret {
            plain: self.backend.os.random(),
            factor: self.backend.os.random() | 1,
        };
        let wide = Wide::ask();
        let threads = self.backend.meta.start::<u8>(Area::Threads).as_ptr() as usize;
        let fixed = Fixed {
            mitigations,
            secret,
            wide,
            form: Form::of(mitigations, wide),
            behind: mitigations.behind(),
            table: Table::of(&self.backend.meta),
            threads,
            places: thread::places(threads),
            apart_most: match mitigations.guard {
                true => apart_most(self.backend.os.mappings()),
                false => 0,
            },
        };
        // SAFETY: nobody reads before `on` is published, and this runs once.
        unsafe { self.fixed.set(fixed) };
        self.fixed.seal(&self.backend.os);
        self.backend.options.seal(&self.backend.os);
        self.backend.meta.seal(&self.backend.os);
        if mitigations.guard {
            self.backend
                .pages
                .begin_keeping(mitigations.zero, mitigations.random);
        }
        self.on.store(1, Release);
    }

    /// Begins a first-class heap, whose block is `local`: hardened it works on another one, as a thread's heap does.
    /// False where there are too many.
    pub fn begin_arena(self, heap: &Heap, local: &ThreadCache) -> bool {
        if !self.is_on() {
            self.backend.begin_heap(heap, local);
            return true;
        }
        let supply = self.backend.supply();
        let Some(thread) = self.threads.take(supply, self.fixed.threads, local) else {
            return false;
        };
        thread.local.phase.set(Phase::Arena);
        self.backend.begin_heap(heap, &thread.local);
        true
    }

    /// Gives the thread of `local` a heap that works on a block of its own. False if there are too many. `shared`: the
    /// block is not one thread's, and none takes the heap along (see [`Backend::take_shared_heap`]).
    ///
    /// [`Backend::take_shared_heap`]: crate::heap::Backend::take_shared_heap
    pub fn attach(self, local: &ThreadCache, shared: bool) -> bool {
        if self.backend.heaps.takes_the_look() {
            self.reclaim_ended();
        }
        let Some(thread) = self
            .threads
            .take(self.backend.supply(), self.fixed.threads, local)
        else {
            return false;
        };
        let heap = if shared {
            self.backend.take_shared_heap(&thread.local)
        } else {
            self.backend.take_heap(&thread.local)
        };
        let Some(heap) = heap else {
            self.threads.give(thread, local);
            return false;
        };
        if !shared {
            heap.watch(local.hardened.as_ptr(), local.hardened.get());
        }
        thread.local.phase.set(Phase::Running);
        true
    }

    /// The thread ends: what it freed is free at last, its slabs are abandoned, its heap is put away.
    pub fn exit(self, local: &ThreadCache) -> Result<(), Misuse> {
        let Some((thread, heap)) = self.thread(local).and_then(|t| Some((t, t.heap()?))) else {
            return Ok(());
        };
        let flushed = self.flush(thread);
        let abandoned = heap.on(self.backend).abandon_all();
        self.backend.take_back(heap, &thread.local);
        self.threads.give(thread, local);
        flushed.and(abandoned)
    }

    /// Takes back what is kept of threads that have gone without their exit hook, heaps and all.
    #[cold]
    fn reclaim_ended(self) {
        self.backend.reclaim_ended(|heap| {
            let start = self.fixed.threads;
            if let Some(thread) = self.threads.with_block(start, heap.block()) {
                // What is wrong with a block of a thread that has gone is told when its slot is handed out.
                let _ = self.flush(thread);
                self.threads.put_away(thread);
            }
        });
    }

    // ---- fork -----------------------------------------------------------------------------------

    /// In a fork child, before the heaps are rebuilt: whatever was in a quarantine, or between a heap and
    /// the program, is free. What was being cleared is cleared.
    pub fn repair(self, local: &ThreadCache, first: bool) {
        self.part_ways();
        if !first {
            return self.threads.leave();
        }
        self.threads.rebuild(self.fixed.threads, local);
        self.backend.pages.each_slab(|slab| self.repair_slab(slab));
    }

    /// In a fork child: what is chosen at random from now on is not what the parent chooses.
    pub fn part_ways(self) {
        if self.draws() {
            let words = core::array::from_fn(|_| self.backend.os.random());
            self.threads.stir(self.fixed.threads, words);
            self.backend.pages.forget_lots();
        }
    }
}
