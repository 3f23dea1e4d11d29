//! The heaps of the process: given out to threads, taken back at their end, repaired after a fork.

use super::{Backend, Heap};
use crate::arch::thread_pointer;
use crate::class::ClassId;
use crate::counters;
use crate::meta::{Area, Fact, HEAP_BYTES};
use crate::misuse::Misuse;
use crate::mutex::{self, Lock, Mutex};
use crate::os::Os;
use crate::owner::{HeapId, Owner};
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
    /// The first unused heap.
    unused: Option<HeapId>,
    /// How many heaps are to be made before the next look for threads that have gone.
    look_at: u32,
}

impl Registry {
    /// Bytes of the heap area up to the end of the next heap that is made.
    fn end_of_next(&self) -> usize {
        (self.made as usize + 1) * HEAP_BYTES
    }
}

/// The thread heaps: type-stable, in the metadata region.
pub struct Heaps {
    /// Never held over a system call.
    registry: Mutex<Registry>,
    /// Held while memory is opened for more heaps. Taken before the other one.
    opening: Mutex<()>,
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
            unused: None,
            look_at: LOOK_FIRST,
        };
        Heaps {
            registry: Mutex::new(locks, registry),
            opening: Mutex::new(locks, ()),
            given: AtomicU32::new(0),
        }
    }

    /// The heaps that were made.
    pub(super) fn made(&self) -> impl Iterator<Item = HeapId> {
        let made = self.registry.lock().made as usize;
        (0..made).map(HeapId::new)
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

    /// Whether a heap would have to be made, and as many were made since the last look for threads that
    /// have gone as there were in use then. The caller then looks: the others that begin meanwhile are told no,
    /// whether or not it comes to an end with it.
    pub fn takes_the_look(&self) -> bool {
        let registry = &mut *self.registry.lock();
        let is_time = registry.unused.is_none() && registry.made >= registry.look_at;
        if is_time {
            registry.look_at = registry.made.saturating_mul(2);
        }
        is_time
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
        registry.unused = Some(heap.id());
    }

    /// Shows the locks.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.registry.as_lock());
        visit(self.opening.as_lock());
    }

    /// Whether nobody holds the lock that is never held over a system call.
    pub(super) fn short_lock_is_free(&self) -> bool {
        !self.registry.as_lock().is_held()
    }
}

impl<O: Os> Backend<O> {
    pub(super) fn heap_at(&self, id: HeapId) -> &Heap {
        let offset = id.index() * HEAP_BYTES;
        let place = self
            .meta
            .place::<Heap>(Area::FirstHeap, Area::Heaps, offset);
        // SAFETY: the number was given out, so its memory is open. Zeros are a valid heap, and the memory is never
        // unmapped.
        unsafe { place.as_ref() }
    }

    /// The heap that `owner`, some heap's owner word, names. It may be another thread's by now.
    pub(super) fn heap_of_owner(&self, owner: Owner) -> &Heap {
        self.heap_at(owner.heap())
    }

    /// A slab of `class` that the heap of `owner` owned last is another's now. A hint: the heap may be put away.
    pub(super) fn lose(&self, owner: Owner, class: ClassId) {
        let heap = self.heap_of_owner(owner);
        if heap.me() == owner {
            heap.lose(class);
        }
    }

    /// Queues `slab` with the heap of `owner`, or with its owner since if that one has exited.
    pub fn notify(&self, mut owner: Owner, slab: SlabPtr) {
        while !self.heap_of_owner(owner).queue.push(slab) {
            let now = slab.owner.load(SeqCst);
            // An owner that is exiting collects in any case.
            if !now.is_heap() || !now.is_pending() || now.is_of(owner.without_pending()) {
                return;
            }
            owner = now;
        }
    }

    /// Number of broken invariants of all heaps, while nobody is at work.
    pub fn validate_heaps(&self) -> usize {
        let heaps = self.heaps.made().map(|id| self.heap_at(id));
        heaps
            .filter(|heap| !heap.me().is_none())
            .map(|heap| heap.on(self).validate())
            .sum::<usize>()
            + validate_nobodys(self)
    }

    /// A heap for the thread whose block is `local`. `None` where there are too many.
    pub fn take_heap(&self, local: &ThreadCache) -> Option<&Heap> {
        let heap = self.spare_heap()?;
        self.begin_heap(heap, local);
        // Of others the number is not asked for: a filter of system calls may kill a thread that does.
        if self.heaps.given.load(Relaxed) == 1 {
            self.renumber(heap);
        }
        heap.pointer.store(thread_pointer() as u64, SeqCst);
        heap.watch(local.me.as_ptr().cast(), heap.me().word() as u32);
        Some(heap)
    }

    /// A heap with the caches of `local` that any thread uses, under a lock: no thread's end takes it back.
    pub fn take_shared_heap(&self, local: &ThreadCache) -> Option<&Heap> {
        let heap = self.take_heap(local)?;
        heap.watched.store(0, SeqCst);
        heap.pointer.store(0, SeqCst);
        Some(heap)
    }

    /// A heap to [begin](Backend::begin_heap), or to [put away](Backend::put_away) again. `None` where there are too many.
    pub fn spare_heap(&self) -> Option<&Heap> {
        self.heaps.count();
        if self.heaps.takes_the_look() {
            self.reclaim_ended(|_| ());
        }
        self.unused_heap()
    }

    /// `heap`, a spare one, is at work from now on with the caches of `local`, under whose lock it makes no system call.
    pub fn begin_silent_heap(&self, heap: &Heap, local: &ThreadCache) {
        heap.be_silent(true);
        self.begin_heap(heap, local);
        heap.watched.store(0, SeqCst);
    }

    /// A spare heap was not needed.
    pub fn put_away(&self, heap: &Heap) {
        self.heaps.put_away(heap);
    }

    /// `heap`, which was unused, is at work from now on, with the caches of `local`.
    pub fn begin_heap(&self, heap: &Heap, local: &ThreadCache) {
        let generation = heap.generation.get() + 1;
        heap.generation.set(generation);
        heap.thread.store(0, SeqCst);
        heap.pointer.store(0, SeqCst);
        heap.local.set(local);
        let index = heap.id().index();
        let me = if heap.arena.get() {
            Owner::of_arena(index, generation)
        } else {
            Owner::of_heap(index, generation)
        };
        heap.me.store(me, SeqCst);
        heap.queue.open();
        heap.heed_rate(self.options.changes());
        heap.on(self).heed_profile();
        // The first look at the clock is some slow paths away: a program that ends before needs none.
        heap.last_decay.store(0, Relaxed);
        heap.asked.store(0, Relaxed);
        heap.ticks.set(1);
        counters::add(&self.meta.counters().heaps, 1);
        local.heap.set(ptr::from_ref(heap).cast());
        local.me.set(me);
    }

    /// Takes back the heaps of threads that have gone without their exit hook. These are threads made by clone(2), and
    /// those whose first allocation came in the last round of thread-specific destructors. Costs a system call for each
    /// heap in use, so the next look comes when twice as many are. `requeue` is called for each, before its slabs are
    /// abandoned: it frees what is kept for the thread beside the heap.
    #[cold]
    pub fn reclaim_ended(&self, requeue: impl Fn(&Heap)) {
        let mut in_use = 0;
        for id in self.heaps.made() {
            let heap = self.heap_at(id);
            match heap.is_left(&self.os) {
                None => {}
                Some(true) => {
                    requeue(heap);
                    self.reclaim_heap(heap);
                }
                Some(false) => in_use += 1,
            }
        }
        self.heaps.registry.lock().look_at = (2 * in_use).max(LOOK_FIRST);
    }

    /// Abandons what a thread left that has gone, and puts its heap away.
    fn reclaim_heap(&self, heap: &Heap) {
        // The thread's own block went with it.
        let block = ThreadCache::new();
        heap.local.set(&block);
        let outcome = {
            let _inside = heap.stand_in();
            heap.on(self).abandon_all()
        };
        if let Err(misuse) = outcome {
            heap.record_error(misuse);
        }
        counters::subtract(&self.meta.counters().heaps, 1);
        self.heaps.put_away(heap);
    }

    pub(super) fn unused_heap(&self) -> Option<&Heap> {
        loop {
            let heap = self.unused_heap_at_hand();
            if heap.is_some() || !self.open_heap() {
                return heap;
            }
        }
    }

    /// A heap that was put away, or whose memory is open.
    fn unused_heap_at_hand(&self) -> Option<&Heap> {
        let registry = &mut *self.heaps.registry.lock();
        if let Some(unused) = registry.unused {
            let heap = self.heap_at(unused);
            registry.unused = heap.next.get();
            return Some(heap);
        }
        if registry.end_of_next() > registry.opened {
            return None;
        }
        let index = registry.made;
        registry.made += 1;
        self.meta.header().heaps_made.store(registry.made, Relaxed);
        let heap = self.heap_at(HeapId::new(index as usize));
        heap.index.set(index);
        Some(heap)
    }

    /// Opens memory for one more heap, unless another thread has just done so. False where there are too many.
    fn open_heap(&self) -> bool {
        let _opening = self.heaps.opening.lock();
        let (mut opened, end) = {
            let registry = self.heaps.registry.lock();
            (registry.opened, registry.end_of_next())
        };
        let fits = end <= self.meta.plan().heaps * HEAP_BYTES;
        let done = fits && self.meta.open_to(&self.os, Area::Heaps, &mut opened, end);
        self.heaps.registry.lock().opened = opened;
        done
    }

    /// Notes the number of the calling thread, whose heap it is: the first one, or a fork child's, where it is another
    /// one than before.
    pub fn renumber(&self, heap: &Heap) {
        let thread = self.os.thread_id();
        heap.thread.store(thread, SeqCst);
        note_process(self, thread);
    }

    /// States in the region's header how thread heaps are laid out.
    pub fn describe_heaps(&self) {
        let header = self.meta.header();
        header.state(Fact::HeapBytes, HEAP_BYTES);
        header.state(Fact::HeapOwner, offset_of!(Heap, me));
        header.state(Fact::HeapThread, offset_of!(Heap, thread));
        header.state(Fact::HeapArena, offset_of!(Heap, arena));
        header.state(Fact::HeapPointer, offset_of!(Heap, pointer));
        header.state(Fact::HeapWatched, offset_of!(Heap, watched));
        header.state(Fact::HeapWatchedValue, offset_of!(Heap, watched_value));
    }

    /// Takes back the heap of a thread that ends, which has abandoned all.
    pub fn take_back(&self, heap: &Heap, local: &ThreadCache) {
        heap.watched.store(0, SeqCst);
        local.me.set(Owner::NONE);
        local.heap.set(ptr::null());
        local.caches.iter().for_each(SlotCache::drop_slots);
        counters::subtract(&self.meta.counters().heaps, 1);
        self.heaps.put_away(heap);
    }

    /// For a fork child, after the pages were rebuilt. The forking thread's heap gets its lists from the headers. All
    /// other heaps are put away, and what they owned is abandoned.
    ///
    /// By another thread than the `first` one: the heaps of threads stay as they are, and what they own. One of them may
    /// be the first thread's, which goes on with it. The others are in use for good, since a thread of theirs may have
    /// stood anywhere.
    pub fn rebuild(&self, mine: Option<&Heap>, first: bool) -> Result<(), Misuse> {
        self.heaps.registry.lock().unused = None;
        self.abandoned.reset();
        let me = mine.map_or(Owner::NONE, Heap::me);
        let mut kept = 0;
        for id in self.heaps.made() {
            let heap = self.heap_at(id);
            // One that another thread of the parent's was making may count as made and not know its number.
            heap.index.set(id.index() as u32);
            let arena = !heap.me().is_none() && heap.arena.get();
            self.repair_arena(id, arena);
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
                    self.renumber(heap);
                }
            } else {
                heap.arena.set(false);
                heap.watched.store(0, SeqCst);
                let _ = heap.queue.close(self.table());
                self.heaps.put_away(heap);
            }
        }
        self.meta.counters().heaps.store(kept, Relaxed);
        let stays = |slab| !first && self.is_of_thread(slab);
        // All are unlisted before the first is requeued: requeuing one may look at its neighbours.
        self.pages.each_slab(|slab| {
            if !stays(slab) {
                self.unlist(mine, slab);
            }
        });
        let mut result = Ok(());
        self.pages.each_slab(|slab| {
            if result.is_ok() && !stays(slab) {
                result = self.rehome(mine, slab);
            }
        });
        if first {
            self.recount_live();
        } else {
            note_process(self, self.os.thread_id());
        }
        recount_mapped(self);
        result
    }

    /// Whether `slab` is that of a thread's heap in use, or full and was it last.
    fn is_of_thread(&self, slab: SlabPtr) -> bool {
        let owner = slab.owner.load(Relaxed).without_pending().without_full();
        let is_heap = owner.is_heap() && !owner.is_arena();
        is_heap && self.heap_of_owner(owner).me() == owner
    }

    /// In a fork child: what is live is counted anew. The parent's threads were in the middle of telling, and their
    /// heaps hold what they had not told yet.
    fn recount_live(&self) {
        self.heaps
            .made()
            .for_each(|id| self.heap_at(id).live.set(0));
        let (mut live, _) = self.large.live();
        self.pages.each_slab(|slab| {
            let slots = slab.slots() - slab.count_free();
            slab.counted.store(slots as u16, Relaxed);
            live += slots * slab.size();
        });
        let counters = self.meta.counters();
        counters.live.store(live as u64, Relaxed);
        counters.peak.fetch_max(live as u64, Relaxed);
    }

    /// The heap that owns `slab`, if it is still there: the thread's, or an arena.
    fn keeper<'a>(&'a self, mine: Option<&'a Heap>, slab: SlabPtr) -> Option<&'a Heap> {
        let owner = slab.owner.load(Relaxed).without_pending().without_full();
        mine.filter(|heap| heap.me() == owner)
            .or_else(|| self.arena_of(owner).map(|(_, heap)| heap))
    }

    fn unlist(&self, mine: Option<&Heap>, slab: SlabPtr) {
        remote::repair(slab);
        slab.set_state(State::Unlisted);
        if let Some(heap) = self.keeper(mine, slab) {
            slab.owner.store(heap.me(), SeqCst);
            if let Some(this) = heap.classes.get(slab.class().index()) {
                this.own();
            }
        }
    }

    fn rehome(&self, mine: Option<&Heap>, slab: SlabPtr) -> Result<(), Misuse> {
        match self.keeper(mine, slab) {
            Some(heap) => heap.on(self).requeue(slab),
            None => {
                self.list_again(slab);
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
    let broken = counters::read(&counters.break_bytes);
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
