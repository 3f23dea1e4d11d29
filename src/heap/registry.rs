//! The heaps of the process: given out to threads, taken back at their end, repaired after a fork.

use super::{Backend, Heap};
use crate::arch::thread_pointer;
use crate::counters;
use crate::meta::{Area, Fact, HEAP_BYTES};
use crate::misuse::Misuse;
use crate::mutex::{self, Lock, Mutex};
use crate::os::Os;
use crate::owner::Owner;
use crate::remote;
use crate::slab::{SlabPtr, State};
use crate::sync::AtomicU32;
use crate::sync::{Ordering::Relaxed, Ordering::SeqCst};
use crate::tls::{SlotCache, ThreadCache};
use core::mem::offset_of;
use core::ptr::{self};

/// Heaps made before the first look for threads that have gone without their exit hook.
const LOOK_FIRST: u32 = 16;
/// How far the heaps given out are counted.
const COUNTED: u32 = 2;

struct Registry {
    /// Heaps made so far.
    made: u32,
    /// Bytes of the heap area that are open.
    opened: usize,
    /// Number of the first unused heap, plus one.
    unused: u32,
    /// How many heaps are to be made before the next look for threads that have gone.
    look_at: u32,
}

/// The thread heaps: type-stable, in the metadata region.
pub struct Heaps {
    registry: Mutex<Registry>,
    /// Heaps given out so far, counted to `COUNTED` or a few more: whether any thread but the first may have been at
    /// work.
    pub given: AtomicU32,
}

impl Heaps {
    /// No heaps.
    pub const fn new(locks: &mut mutex::Registry) -> Heaps {
        let registry = Registry {
            made: 0,
            opened: 0,
            unused: 0,
            look_at: LOOK_FIRST,
        };
        Heaps {
            registry: Mutex::new(locks, registry),
            given: AtomicU32::new(0),
        }
    }

    pub(super) fn at<'a, O: Os>(&self, backend: &'a Backend<O>, index: usize) -> &'a Heap {
        let offset = index * HEAP_BYTES;
        let place = backend
            .meta
            .place::<Heap>(Area::FirstHeap, Area::Heaps, offset);
        // SAFETY: `index` was given out, so its memory is open. Zeros are a valid heap, and the memory is never
        // unmapped.
        unsafe { place.as_ref() }
    }

    /// The heap that `owner`, some heap's owner word, names. It may be another thread's by now.
    fn of_owner<'a, O: Os>(&self, backend: &'a Backend<O>, owner: Owner) -> &'a Heap {
        self.at(backend, owner.index())
    }

    /// A slab of `class` that the heap of `owner` owned last is another's now. A hint: the heap may be put away.
    pub(super) fn lose<O: Os>(&self, backend: &Backend<O>, owner: Owner, class: usize) {
        let heap = self.of_owner(backend, owner);
        if heap.me() == owner {
            heap.lose(class);
        }
    }

    /// Queues `slab` with the heap of `owner`, or with its owner since if that one has exited.
    pub fn notify<O: Os>(&self, backend: &Backend<O>, mut owner: Owner, slab: SlabPtr) {
        while !self.of_owner(backend, owner).queue.push(slab) {
            let now = slab.owner.load(SeqCst);
            // An owner that is exiting collects in any case.
            if !now.is_heap() || !now.is_pending() || now.is_of(owner.without_pending()) {
                return;
            }
            owner = now;
        }
    }

    /// Number of broken invariants of all heaps, while nobody is at work.
    pub fn validate<O: Os>(&self, backend: &Backend<O>) -> usize {
        let made = self.registry.lock().made;
        let heaps = (0..made as usize).map(|index| self.at(backend, index));
        heaps
            .filter(|heap| !heap.me().is_none())
            .map(|heap| heap.validate(backend))
            .sum::<usize>()
            + validate_nobodys(backend)
    }

    /// How many heaps were made.
    pub(super) fn made(&self) -> usize {
        self.registry.lock().made as usize
    }

    /// A heap for the thread whose block is `local`. `None` where there are too many.
    pub fn take<'a, O: Os>(
        &self,
        backend: &'a Backend<O>,
        local: &ThreadCache,
    ) -> Option<&'a Heap> {
        self.count();
        if self.takes_the_look() {
            self.reclaim_ended(backend, |_| ());
        }
        let heap = self.unused(backend)?;
        self.begin(backend, heap, local);
        // Of others the number is not asked for: a filter of system calls may kill a thread that does.
        if self.given.load(Relaxed) == 1 {
            self.renumber(backend, heap);
        }
        heap.pointer.store(thread_pointer() as u64, SeqCst);
        heap.watch(local.me.as_ptr().cast(), heap.me().word() as u32);
        Some(heap)
    }

    /// One more heap is about to be given out: said before anything of it is touched. The count stays at a few, since
    /// one that wrapped round would say that the process has one heap.
    pub(super) fn count(&self) {
        if self.given.load(Relaxed) < COUNTED {
            self.given.fetch_add(1, Relaxed);
        }
    }

    /// Another thread is about to be at work that has no heap.
    pub fn count_two(&self) {
        (0..COUNTED).for_each(|_| self.count());
    }

    /// A heap with the caches of `local` that any thread uses, under a lock: no thread's end takes it back.
    pub fn take_shared<'a, O: Os>(
        &self,
        backend: &'a Backend<O>,
        local: &ThreadCache,
    ) -> Option<&'a Heap> {
        let heap = self.take(backend, local)?;
        heap.watched.store(0, SeqCst);
        heap.pointer.store(0, SeqCst);
        Some(heap)
    }

    /// `heap`, which was unused, is at work from now on, with the caches of `local`.
    pub fn begin<O: Os>(&self, backend: &Backend<O>, heap: &Heap, local: &ThreadCache) {
        let generation = heap.generation.get() + 1;
        heap.generation.set(generation);
        heap.thread.store(0, SeqCst);
        heap.pointer.store(0, SeqCst);
        heap.local.set(local);
        let index = heap.index.get() as usize;
        let me = if heap.arena.get() {
            Owner::of_arena(index, generation)
        } else {
            Owner::of_heap(index, generation)
        };
        heap.me.store(me, SeqCst);
        heap.queue.open();
        heap.heed_rate(backend.options.changes());
        heap.heed_profile(backend);
        // The first look at the clock is some slow paths away: a program that ends before needs none.
        heap.last_decay.store(0, Relaxed);
        heap.asked.store(0, Relaxed);
        heap.ticks.set(1);
        counters::add(&backend.meta.counters().heaps, 1);
        local.heap.set(ptr::from_ref(heap).cast());
        local.me.set(me);
    }

    /// Whether a heap would have to be made, and as many were made since the last look for threads that
    /// have gone as there were in use then. The caller then looks: the others that begin meanwhile are told no,
    /// whether or not it comes to an end with it.
    pub fn takes_the_look(&self) -> bool {
        let registry = &mut *self.registry.lock();
        let is_time = registry.unused == 0 && registry.made >= registry.look_at;
        if is_time {
            registry.look_at = registry.made.saturating_mul(2);
        }
        is_time
    }

    /// Takes back the heaps of threads that have gone without their exit hook. These are threads made by clone(2), and
    /// those whose first allocation came in the last round of thread-specific destructors. Costs a system call for each
    /// heap in use, so the next look comes when twice as many are. `requeue` is called for each, before its slabs are
    /// abandoned: it frees what is kept for the thread beside the heap.
    #[cold]
    pub fn reclaim_ended<O: Os>(&self, backend: &Backend<O>, requeue: impl Fn(&Heap)) {
        let made = self.registry.lock().made;
        let mut in_use = 0;
        for index in 0..made {
            let heap = self.at(backend, index as usize);
            match heap.is_left(&backend.os) {
                None => {}
                Some(true) => {
                    requeue(heap);
                    self.reclaim_heap(backend, heap);
                }
                Some(false) => in_use += 1,
            }
        }
        self.registry.lock().look_at = (2 * in_use).max(LOOK_FIRST);
    }

    /// Abandons what a thread left that has gone, and puts its heap away.
    fn reclaim_heap<O: Os>(&self, backend: &Backend<O>, heap: &Heap) {
        // The thread's own block went with it.
        let block = ThreadCache::new();
        heap.local.set(&block);
        let outcome = {
            let _inside = heap.stand_in();
            heap.abandon_all(backend)
        };
        if let Err(misuse) = outcome {
            heap.record_error(misuse);
        }
        counters::subtract(&backend.meta.counters().heaps, 1);
        self.put_away(heap);
    }

    pub(super) fn unused<'a, O: Os>(&self, backend: &'a Backend<O>) -> Option<&'a Heap> {
        let registry = &mut *self.registry.lock();
        if registry.unused != 0 {
            let heap = self.at(backend, registry.unused as usize - 1);
            registry.unused = heap.next.get();
            return Some(heap);
        }
        let index = registry.made as usize;
        let end = (index + 1) * HEAP_BYTES;
        // Once a thread, and rarely a system call: this lock is not the page lock.
        if index >= backend.meta.plan().heaps
            || !backend
                .meta
                .open_to(&backend.os, Area::Heaps, &mut registry.opened, end)
        {
            return None;
        }
        registry.made += 1;
        backend
            .meta
            .header()
            .heaps_made
            .store(registry.made, Relaxed);
        let heap = self.at(backend, index);
        heap.index.set(index as u32);
        Some(heap)
    }

    /// Notes the number of the calling thread, whose heap it is: the first one, or a fork child's, where it is another
    /// one than before.
    pub fn renumber<O: Os>(&self, backend: &Backend<O>, heap: &Heap) {
        let thread = backend.os.thread_id();
        heap.thread.store(thread, SeqCst);
        note_process(backend, thread);
    }

    /// States in the region's header how thread heaps are laid out.
    pub fn describe<O: Os>(&self, backend: &Backend<O>) {
        let header = backend.meta.header();
        header.state(Fact::HeapBytes, HEAP_BYTES);
        header.state(Fact::HeapOwner, offset_of!(Heap, me));
        header.state(Fact::HeapThread, offset_of!(Heap, thread));
        header.state(Fact::HeapArena, offset_of!(Heap, arena));
        header.state(Fact::HeapPointer, offset_of!(Heap, pointer));
        header.state(Fact::HeapWatched, offset_of!(Heap, watched));
        header.state(Fact::HeapWatchedValue, offset_of!(Heap, watched_value));
    }

    /// Takes back the heap of a thread that ends, which has abandoned all.
    pub fn give<O: Os>(&self, backend: &Backend<O>, heap: &Heap, local: &ThreadCache) {
        heap.watched.store(0, SeqCst);
        local.me.set(Owner::NONE);
        local.heap.set(ptr::null());
        local.caches.iter().for_each(SlotCache::drop_slots);
        counters::subtract(&backend.meta.counters().heaps, 1);
        self.put_away(heap);
    }

    pub(super) fn put_away(&self, heap: &Heap) {
        {
            // Left before the heap may be another thread's.
            let _inside = heap.stand_in();
            heap.local.set(ptr::null());
            heap.forget_all();
            heap.me.store(Owner::NONE, SeqCst);
        }
        let registry = &mut *self.registry.lock();
        heap.next.set(registry.unused);
        registry.unused = heap.index.get() + 1;
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.registry.as_lock());
    }

    /// For a fork child, after the pages were rebuilt. The forking thread's heap gets its lists from the headers. All
    /// other heaps are put away, and what they owned is abandoned.
    ///
    /// By another thread than the `first` one: the heaps of threads stay as they are, and what they own. One of them may
    /// be the first thread's, which goes on with it. The others are in use for good, since a thread of theirs may have
    /// stood anywhere.
    pub fn rebuild<O: Os>(
        &self,
        backend: &Backend<O>,
        mine: Option<&Heap>,
        first: bool,
    ) -> Result<(), Misuse> {
        let made = {
            let registry = &mut *self.registry.lock();
            registry.unused = 0;
            registry.made
        };
        backend.abandoned.reset();
        let me = mine.map_or(Owner::NONE, Heap::me);
        let mut kept = 0;
        for index in 0..made {
            let heap = self.at(backend, index as usize);
            let arena = !heap.me().is_none() && heap.arena.get();
            backend.arenas.repair(backend, index as usize, arena);
            if !first && !arena && !heap.me().is_none() {
                heap.stay_as_is();
                kept += 1;
                continue;
            }
            heap.door.reset();
            if arena || (heap.me() == me && !me.is_none()) {
                heap.forget_all();
                heap.queue.open();
                kept += 1;
                if !arena {
                    self.renumber(backend, heap);
                }
            } else {
                heap.arena.set(false);
                heap.watched.store(0, SeqCst);
                let _ = heap.queue.close(backend.table());
                self.put_away(heap);
            }
        }
        backend.meta.counters().heaps.store(kept, Relaxed);
        let stays = |slab| !first && self.is_of_thread(backend, slab);
        // All are unlisted before the first is requeued: requeuing one may look at its neighbours.
        backend.pages.each_slab(|slab| {
            if !stays(slab) {
                self.unlist(backend, mine, slab);
            }
        });
        let mut result = Ok(());
        backend.pages.each_slab(|slab| {
            if result.is_ok() && !stays(slab) {
                result = self.rehome(backend, mine, slab);
            }
        });
        if first {
            self.recount_live(backend, made);
        } else {
            note_process(backend, backend.os.thread_id());
        }
        recount_mapped(backend);
        result
    }

    /// Whether `slab` is that of a thread's heap in use, or full and was it last.
    fn is_of_thread<O: Os>(&self, backend: &Backend<O>, slab: SlabPtr) -> bool {
        let owner = slab.owner.load(Relaxed).without_pending().without_full();
        let is_heap = owner.is_heap() && !owner.is_arena();
        is_heap && self.of_owner(backend, owner).me() == owner
    }

    /// In a fork child: what is live is counted anew. The parent's threads were in the middle of telling, and their
    /// heaps hold what they had not told yet.
    fn recount_live<O: Os>(&self, backend: &Backend<O>, made: u32) {
        (0..made as usize).for_each(|index| self.at(backend, index).live.set(0));
        let (mut live, _) = backend.large.live();
        backend.pages.each_slab(|slab| {
            let slots = slab.slots() - slab.count_free();
            slab.counted.store(slots as u16, Relaxed);
            live += slots * slab.size();
        });
        let counters = backend.meta.counters();
        counters.live.store(live as u64, Relaxed);
        counters.peak.fetch_max(live as u64, Relaxed);
    }

    /// The heap that owns `slab`, if it is still there: the thread's, or an arena.
    fn keeper<'a, O: Os>(
        &self,
        backend: &'a Backend<O>,
        mine: Option<&'a Heap>,
        slab: SlabPtr,
    ) -> Option<&'a Heap> {
        let owner = slab.owner.load(Relaxed).without_pending().without_full();
        mine.filter(|heap| heap.me() == owner).or_else(|| {
            backend
                .arenas
                .of_owner(backend, owner)
                .map(|(_, heap)| heap)
        })
    }

    fn unlist<O: Os>(&self, backend: &Backend<O>, mine: Option<&Heap>, slab: SlabPtr) {
        remote::repair(slab);
        slab.set_state(State::Unlisted);
        if let Some(heap) = self.keeper(backend, mine, slab) {
            slab.owner.store(heap.me(), SeqCst);
            if let Some(this) = heap.classes.get(slab.class()) {
                this.own();
            }
        }
    }

    fn rehome<O: Os>(
        &self,
        backend: &Backend<O>,
        mine: Option<&Heap>,
        slab: SlabPtr,
    ) -> Result<(), Misuse> {
        match self.keeper(backend, mine, slab) {
            Some(heap) => heap.requeue(backend, slab),
            None => {
                backend.abandoned.list_again(backend, slab);
                Ok(())
            }
        }
    }
}

/// Says whose region it is: the process's of the thread with this number.
fn note_process<O: Os>(backend: &Backend<O>, thread: u64) {
    let process = (thread >> 32) as u32;
    backend.meta.header().pid.store(process, Relaxed);
}

/// In a fork child: what is mapped is counted anew, since the parent's threads were in the middle of telling.
fn recount_mapped<O: Os>(backend: &Backend<O>) {
    let counters = backend.meta.counters();
    let mapped = backend.large.mapped_bytes() + backend.pages.mapped_bytes();
    counters.mapped.store(mapped as u64, Relaxed);
    let broken = counters.break_bytes.load(Relaxed) as usize;
    backend.meta.budget.recount(broken + mapped);
}

/// Number of slabs without an owner that are not as they should be, while nobody is at work.
fn validate_nobodys<O: Os>(backend: &Backend<O>) -> usize {
    let mut wrong = backend.abandoned.validate(backend.table());
    backend.pages.each_slab(|slab| {
        let full = slab.owner.load(Relaxed).is_full();
        // Slots that a signal handler freed as it became full have made `frees_left` negative.
        let free = -(slab.count_free() as i32);
        let whole = slab.state() == State::Unlisted && slab.frees_left.get() == free;
        wrong += usize::from(full && !whole);
    });
    wrong
}
