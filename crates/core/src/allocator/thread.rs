//! Who the thread is, and which heap it uses: its own, the shared one under a lock, or none. Also a thread's start and
//! end, and the repair in a fork child.

use super::{Allocator, HOOKED, STARTED, UNSTARTED};
use crate::hardened::{self};
use crate::heap::{heap_of, Heap, HeapRef, Whose};
use crate::misuse::{Line, Misuse};
use crate::mutex::{self, Held, Lock};
use crate::options::{self, Name};
use crate::os::Os;
use crate::owner::Owner;
use crate::sync::AtomicU32;
use crate::sync::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::tls::{mark_busy, Busy, Frame, Phase, SlotCache, ThreadCache, LEFT};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{compiler_fence, Ordering::SeqCst};

/// Values of the fork mark: the kernel's in a fork child,
const FORKED: u32 = 0;
/// and that of a process in which all is whole (see `Host::fork_mark`). All others are [`repairing`].
const WHOLE: u32 = 1;

/// The mark while the thread of this number repairs. It names the thread, which may leave the repair by longjmp, and has
/// to know then that it was its own.
fn repairing(thread: u64) -> u32 {
    (thread as u32) << 2 | 2
}

/// Whether the thread of this number is the first one of its process: in a fork child, the one that forked.
fn is_first(thread: u64) -> bool {
    thread as u32 == (thread >> 32) as u32
}

/// Bytes of stack that whoever calls the allocator has left at least: a slow path needs as many.
const FREE_STACK: usize = 1024;

/// Whether `address` lies where the calling function may have its own variables, so that no other function has any.
#[inline(never)]
fn is_in_free_stack(address: usize) -> bool {
    let room = MaybeUninit::<[u8; FREE_STACK]>::uninit();
    let start = core::hint::black_box(room.as_ptr()) as usize;
    address.wrapping_sub(start) < FREE_STACK
}

/// Begins the repair as the thread of this number. False where another thread has begun, or all is whole. True where the
/// thread itself had begun and left it.
fn begin_repair(mark: &AtomicU32, thread: u64) -> bool {
    let now = mark.compare_exchange(FORKED, repairing(thread), Acquire, Acquire);
    now.is_ok() || now == Err(repairing(thread))
}

/// All is whole, unless a handler has forked once more in the middle of the repair: then the mark says so still.
fn end_repair(mark: &AtomicU32, thread: u64) {
    let _ = mark.compare_exchange(repairing(thread), WHOLE, Release, Relaxed);
    mutex::wake_all(mark);
}

/// Waits while another thread repairs. Who leaves the wait by longjmp has nothing half done. A handler may fork in the
/// middle of it: then the mark says afterwards that nobody has repaired.
fn await_repair(mark: &AtomicU32) {
    loop {
        let now = mark.load(Acquire);
        if now == FORKED || now == WHOLE {
            return;
        }
        mutex::wait(mark, now);
    }
}

/// Counts a thread that is about to get a heap, until it has. One that leaves by longjmp stays counted.
struct Coming<'a>(&'a AtomicU32);

impl Coming<'_> {
    fn begin(count: &AtomicU32) -> Coming<'_> {
        count.fetch_add(1, Relaxed);
        Coming(count)
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        // The repair of a fork child may have set it to zero meanwhile.
        let _ = self
            .0
            .fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
    }
}

impl<O: Os> Allocator<O> {
    /// A misuse ends the program, or is reported. Then the operation is dropped, and the caller goes on.
    #[cold]
    pub(crate) fn misuse(&self, misuse: &Misuse) {
        if self.backend.options.get(Name::Misuse) == options::MISUSE_REPORTS {
            return self.backend.os.say(misuse.line().bytes());
        }
        let backend = &self.backend;
        let sampled = self.samples.find(&backend.os, misuse.address());
        if !self.hard.is_on() && sampled.is_none() {
            backend.os.die(misuse);
        }
        let sampled_ago = sampled.as_ref().and_then(|sampled| sampled.ago);
        let details = self.hard.on(&self.backend).explain(misuse, sampled_ago);
        let Some(sampled) = sampled else {
            backend.os.die_telling(misuse, &details, &[]);
        };
        let freed = sampled.freed.unwrap_or(sampled.allocated);
        let stacks = [
            ("allocated", sampled.allocated.frames()),
            ("freed", freed.frames()),
        ];
        let known = 1 + usize::from(sampled.freed.is_some());
        backend.os.die_telling(misuse, &details, &stacks[..known])
    }

    /// Runs `work` with the thread's heap, or with the shared one under its lock. `None` in a signal
    /// handler that interrupted a slow path, and where nothing can be started.
    pub(super) fn with_heap<R>(
        &self,
        thread: &ThreadCache,
        work: impl FnOnce(&ThreadCache, HeapRef<O>) -> Result<Option<R>, Misuse>,
    ) -> Option<R> {
        if self.is_interrupted(thread) {
            return None;
        }
        self.notice_fork(thread);
        if !self.attach(thread) {
            return None;
        }
        let (outcome, noted) = match heap_of(thread) {
            Some(heap) => {
                mark_busy!(thread => busy);
                let _inside = heap.come_in_or_wait(busy);
                (work(thread, heap.on(&self.backend)), heap.recorded_error())
            }
            None if self.hard.is_on() => return None,
            None => self.with_shared(thread, work),
        };
        self.tell(outcome, noted)
    }

    /// What a slow path came to, once its misuse is told of. By a thread that is neither busy nor under a lock: a handler of
    /// SIGABRT may allocate.
    pub(super) fn tell<R>(
        &self,
        outcome: Result<Option<R>, Misuse>,
        noted: Option<Misuse>,
    ) -> Option<R> {
        if let Some(misuse) = noted {
            self.misuse(&misuse);
        }
        outcome.unwrap_or_else(|misuse| {
            self.misuse(&misuse);
            None
        })
    }

    fn with_shared<R>(
        &self,
        thread: &ThreadCache,
        work: impl FnOnce(&ThreadCache, HeapRef<O>) -> Result<Option<R>, Misuse>,
    ) -> (Result<Option<R>, Misuse>, Option<Misuse>) {
        mark_busy!(thread => busy);
        let local = &*self.shared.lock();
        match heap_of(local).or_else(|| self.backend.take_shared_heap(local)) {
            Some(heap) => {
                let _inside = heap.come_in_or_wait(busy);
                (work(local, heap.on(&self.backend)), heap.recorded_error())
            }
            None => (Ok(None), None),
        }
    }

    /// As `with_heap`. Where `work` finds no memory, all that is kept for reuse is given back and it is tried once
    /// more.
    pub(super) fn with_reclaim<R>(
        &self,
        thread: &ThreadCache,
        work: impl Fn(&ThreadCache, HeapRef<O>) -> Result<Option<R>, Misuse>,
    ) -> Option<R> {
        let result = self.with_heap(thread, &work).or_else(|| {
            if !self.reclaim_for_more(thread) {
                return None;
            }
            self.with_heap(thread, &work)
        });
        self.look_after_background(thread);
        result
    }

    /// Memory was refused: gives back what is kept for reuse. Not pages inside of what stays, since their addresses
    /// would be nobody else's. False where nothing came of it, so that it is no use to ask again.
    pub(super) fn reclaim_for_more(&self, thread: &ThreadCache) -> bool {
        let backend = &self.backend;
        let reclaimed = self.reclaim_by(thread, |heap| {
            let before = backend.held();
            let freed = match heap {
                Some(heap) => heap.give_back_whole()?,
                None => false,
            };
            backend.give_back_whole();
            let gave = freed || backend.held() != before;
            Ok(heap.map_or(gave, |heap| heap.has_gained(gave)))
        });
        reclaimed.unwrap_or(true)
    }

    /// Has `give` give back what the thread's heap, if it has one, and all others keep. Hardened, what waits in the
    /// thread's quarantine is freed first. Whether anything came of either.
    fn reclaim_by(
        &self,
        thread: &ThreadCache,
        give: impl Fn(Option<HeapRef<O>>) -> Result<bool, Misuse>,
    ) -> Option<bool> {
        let backend = &self.backend;
        if !self.hard.is_on() {
            return self.with_heap(thread, |_, heap| {
                let _giving = backend.begin_giving();
                give(Some(heap)).map(Some)
            });
        }
        self.with_hardened(thread, |hardened| {
            let _giving = backend.begin_giving();
            let mut freed = self.hard.on(&self.backend).flush(hardened)?;
            freed |= self.hard.reclaim(&backend.os);
            freed |= give(hardened.heap().map(|heap| heap.on(backend)))?;
            Ok(Some(freed))
        })
    }

    /// Gives back to the system all that is kept for reuse and can be reached from this thread.
    pub fn reclaim(&self, thread: &ThreadCache) {
        self.reclaim_but(thread, 0);
    }

    /// As [`Allocator::reclaim_but`], and from the heaps of other threads.
    pub fn trim(&self, thread: &ThreadCache, keep: usize) {
        self.visit_others(thread, Whose::All);
        self.reclaim_but(thread, keep);
    }

    /// A thread without a heap of its own is about to be at work in those of others: a fork's child has to repair.
    pub(super) fn count_as_two(&self) {
        self.backend.heaps.count_two();
        self.watch_forks();
    }

    /// Gives back what lies idle in other threads' heaps. Hardened threads work on their heaps without going through
    /// the door: theirs are not visited.
    pub(super) fn visit_others(&self, thread: &ThreadCache, whose: Whose) {
        if self.hard.is_on() || !self.is_started() {
            return;
        }
        if thread.phase.get() == Phase::Fresh {
            // Whoever forks meanwhile leaves the child a door that is held.
            self.count_as_two();
        }
        self.enter(thread, |_| {
            let mine = heap_of(thread);
            self.backend.visit_others(mine, whose);
        });
    }

    /// As [`Allocator::reclaim`], but for `keep` free pages at the heap's end.
    pub fn reclaim_but(&self, thread: &ThreadCache, keep: usize) {
        let backend = &self.backend;
        self.reclaim_by(thread, |heap| {
            if let Some(heap) = heap {
                heap.give_back()?;
            }
            backend.give_back(keep);
            Ok(true)
        });
    }

    /// Sees to it that the thread has a heap, or is late. False where nothing can be started, and in a signal handler
    /// that interrupted this: it must neither ask for the lock of the start once more nor for another heap.
    pub(crate) fn attach(&self, thread: &ThreadCache) -> bool {
        if thread.phase.get() != Phase::Fresh {
            return true;
        }
        if self.is_interrupted(thread) {
            return false;
        }
        let has_heap = {
            mark_busy!(thread);
            // Many that come at once wait for each other in here, and the system for their pages.
            let _coming = Coming::begin(&self.coming);
            if !self.start() {
                return false;
            }
            // Before anything of a second heap is touched: whoever forks in the middle of that leaves a child that
            // finds the mark wiped.
            if self.backend.heaps.given.load(Relaxed) > 0 {
                self.watch_forks();
            }
            let has_heap = if self.hard.is_on() {
                self.hard.on(&self.backend).attach(thread, false)
            } else {
                self.backend.take_heap(thread).is_some()
            };
            // Two threads may have begun the first heaps at once.
            if self.backend.heaps.given.load(Relaxed) > 1 || self.hard.draws() {
                self.watch_forks();
            }
            thread.calls.set(0);
            thread.phase.set(if has_heap {
                Phase::Running
            } else {
                Phase::Late
            });
            has_heap
        };
        // These may allocate: the heap is in place, the thread is not busy, and holds no lock.
        if self.stage.load(Acquire) != HOOKED && self.begin() {
            self.backend.os.stay_loaded();
            if self.hard.is_on() || self.backend.options.get(Name::GuardSample) != 0 {
                self.backend.os.prepare_stacks();
            }
        }
        if has_heap {
            self.backend
                .os
                .watch_thread(ptr::NonNull::from(thread).cast());
        }
        true
    }

    /// Registers the process's hooks, once. Returns whether it was this call that did. With no lock held: a program may
    /// define the functions that do it, and allocate or wait in them. A thread that comes meanwhile needs none of it:
    /// it makes the key of the exit hook itself, and where a fork child has no handler the mark tells it.
    #[cold]
    fn begin(&self) -> bool {
        let first = self
            .stage
            .compare_exchange(STARTED, HOOKED, AcqRel, Acquire)
            .is_ok();
        if first {
            self.backend.os.begin();
        }
        first
    }

    /// Sets the option that `item` (`name:value`) says, as [`options::Options::set`]. Where blocks are sampled from
    /// now on, their stacks are to be told. A signal handler that interrupted a path with a lock comes too late.
    pub fn set_option(&self, thread: &ThreadCache, item: &[u8]) -> Result<(), options::Mistake> {
        let set = self.look(thread, || self.backend.options.set(item));
        set.unwrap_or(Err(options::Mistake::Frozen))
            .map(|()| self.option_changed())
    }

    /// Takes a heap profile from now on, with a sample every `interval` bytes on average, or none where that is 0. The
    /// interval before.
    pub fn set_profile(&self, thread: &ThreadCache, interval: usize) -> usize {
        if !self.attach(thread) {
            return 0;
        }
        let backend = &self.backend;
        let before = self.look(thread, || backend.profile.set(&backend.meta, interval));
        before.unwrap_or(0)
    }

    fn option_changed(&self) {
        if self.is_started() && self.backend.options.get(Name::GuardSample) != 0 {
            self.backend.os.prepare_stacks();
        }
    }

    /// Gets the process ready before its first allocation, so that a fork finds the hooks registered.
    pub fn prepare(&self, thread: &ThreadCache) {
        self.attach(thread);
    }

    /// Makes the counters exact as far as this thread's heap is concerned.
    pub fn flush_stats(&self, thread: &ThreadCache) {
        self.with_heap(thread, |_, heap| {
            heap.flush_stats();
            Ok(Some(()))
        });
    }

    /// Bytes that the counters take for handed out, and that this thread has only cached.
    pub fn bytes_cached(&self, thread: &ThreadCache) -> usize {
        self.with_heap(thread, |_, heap| Ok(Some(heap.bytes_cached())))
            .unwrap_or(0)
    }

    /// Whether the metadata are there.
    pub fn is_started(&self) -> bool {
        self.stage.load(Acquire) != UNSTARTED
    }

    pub(super) fn start(&self) -> bool {
        if self.is_started() {
            return true;
        }
        let _guard = self.start_lock.lock();
        let backend = &self.backend;
        if self.is_started() {
            return true;
        }
        let say = |line: &Line| backend.os.say(line.bytes());
        backend.options.set_defaults(backend.os.own_options(), say);
        backend.options.freeze(backend.os.options(), say);
        self.configure();
        let hardened = self.hard.provide(&backend.options, &backend.meta);
        let started = (backend.meta.is_ready() || backend.meta.init(&backend.os))
            && backend.pages.init(backend.supply());
        if started {
            backend.describe_heaps();
            backend.large.describe(&backend.meta);
            backend
                .profile
                .set(&backend.meta, backend.options.get(Name::Profile));
            if hardened {
                self.hard.on(&self.backend).begin();
            }
            self.stage.store(STARTED, Release);
        }
        started
    }

    /// From now on forks are noticed that run no handlers. While there is one thread they need not be: all is
    /// whole in the child.
    pub fn watch_forks(&self) {
        // No lock: of two threads that make a mark at once one is in vain, and costs a page.
        if self.mark().is_none() {
            if let Some(mark) = self.backend.os.fork_mark() {
                let mark = ptr::from_ref(mark).cast_mut();
                let none = ptr::null_mut();
                let _ = self.fork_mark.compare_exchange(none, mark, AcqRel, Relaxed);
            }
        }
    }

    /// Hands the options, which are frozen, to the layers that follow them.
    fn configure(&self) {
        let (backend, options) = (&self.backend, &self.backend.options);
        let (soft, hard) = (options.get(Name::LimitSoft), options.get(Name::LimitHard));
        backend.meta.budget.limit(soft, hard);
        backend.pages.configure(options);
        backend.large.configure(options);
        if options.get(Name::Background) != 0 {
            self.background.want();
        }
        if options.get(Name::HugePages) == options::HUGE_ON {
            backend.os.prefer_huge_pages();
        }
        if options.is_on(Name::Hardened) || options.is_on(Name::Guard) {
            backend.os.learn_huge_pages();
        }
    }

    // ---- exit and fork -------------------------------------------------------------------------

    /// The thread ends: its slabs are abandoned, its heap is put away. It is late from now on.
    pub fn exit_thread(&self, thread: &ThreadCache) {
        if self.is_interrupted(thread) {
            // What the path was at is half done for good, and nobody takes it up.
            return self.heap_in_use(thread).map_or((), Heap::unwatch);
        }
        self.notice_fork(thread);
        if thread.hardened.get() != 0 {
            let outcome = {
                mark_busy!(thread);
                thread.phase.set(Phase::Late);
                self.hard.on(&self.backend).exit(thread)
            };
            return outcome.unwrap_or_else(|misuse| self.misuse(&misuse));
        }
        let Some(heap) = heap_of(thread) else {
            return;
        };
        let (outcome, noted) = {
            mark_busy!(thread => busy);
            let outcome = {
                let _inside = heap.come_in_or_wait(busy);
                heap.on(&self.backend).abandon_all()
            };
            let noted = heap.recorded_error();
            self.backend.take_back(heap, thread);
            thread.phase.set(Phase::Late);
            (outcome, noted)
        };
        for misuse in noted.into_iter().chain(outcome.err()) {
            self.misuse(&misuse);
        }
    }

    /// In a fork child: derives everything from the slab headers again, unless the parent never had a second heap. If a
    /// signal handler that interrupted a slow path forked, the repair waits for the first slow path after that one.
    /// Otherwise it would be derived from half-done work. Of several threads of the child one repairs, and the others
    /// wait for it.
    pub fn repair_after_fork(&self, thread: &ThreadCache) {
        // Where there is no mark nobody would come back to it, and there may be nothing to come back to.
        let later = self.mark().is_some() || self.backend.heaps.given.load(Relaxed) == 1;
        if thread.busy.get() != 0 && later {
            if let Some(heap) = self.heap_in_use(thread) {
                self.backend.renumber(heap);
            }
            return;
        }
        let Some(mark) = self.mark() else {
            let outcome = {
                mark_busy!(thread);
                // Only the hook for forks comes here.
                self.repair(thread, true, false)
            };
            return outcome.unwrap_or_else(|misuse| self.misuse(&misuse));
        };
        while mark.load(Acquire) != WHOLE {
            let outcome = {
                // From before the mark on: a signal handler must not take the heap for repaired.
                mark_busy!(thread);
                self.repair_marked(thread, mark, false)
            };
            match outcome {
                Some(Err(misuse)) => self.misuse(&misuse),
                Some(Ok(())) => {}
                None => await_repair(mark),
            }
        }
    }

    /// Repairs, unless another thread of the fork child has begun to. `left`: see `repair`.
    fn repair_marked(
        &self,
        thread: &ThreadCache,
        mark: &AtomicU32,
        left: bool,
    ) -> Option<Result<(), Misuse>> {
        let number = self.backend.os.thread_id();
        begin_repair(mark, number).then(|| {
            let outcome = self.repair(thread, is_first(number), left);
            end_repair(mark, number);
            outcome
        })
    }

    /// `first`: the thread is the child's first one. Another one comes first where the child made it before it came to a
    /// slow path itself. Then the first one may be at work on its heap, by fast paths, and all heaps stay as they are.
    ///
    /// `left`: the thread has left a slow path, which may have been the parent's one thread's.
    fn repair(&self, thread: &ThreadCache, first: bool, left: bool) -> Result<(), Misuse> {
        self.backend.os.forked();
        self.background.lose();
        // Another thread of the parent's may have been about to fork: nobody is here.
        self.backend.pages.free_break();
        let mine = self.heap_in_use(thread);
        if let Some(heap) = mine {
            heap.sample_anew();
        }
        let alone = self.backend.heaps.given.load(Relaxed) == 1 && mine.is_some();
        if alone && !left && self.locks_are_free() {
            if let Some(heap) = mine {
                self.backend.renumber(heap);
            }
            self.attend(false);
            self.hard.on(&self.backend).part_ways();
            return Ok(());
        }
        // Whoever held one is not in this process.
        self.each_lock(&mut Lock::reset);
        Held::forget();
        self.attend(false);
        if !self.is_started() {
            return Ok(());
        }
        self.rebuild(thread, mine, first)
    }

    /// Derives everything from the slab headers again, while no lock is held, and there is no other thread or none that
    /// does more than fast paths on its own slabs. Unless this thread is the `first` one, those stay as they are.
    fn rebuild(
        &self,
        thread: &ThreadCache,
        mine: Option<&Heap>,
        first: bool,
    ) -> Result<(), Misuse> {
        // Whoever allocates in the middle of this gets nested blocks, and no slot of a slab that is being put in order.
        thread.caches.iter().for_each(SlotCache::drop_slots);
        self.backend.large.rebuild(&self.backend.meta);
        let table = self.backend.table();
        self.backend.profile.rebuild(&self.backend.meta, table);
        self.shared.lock().reset();
        self.coming.store(0, Relaxed);
        self.guests_lost.store(0, Relaxed);
        self.guests.lock().reset();
        self.backend.pages.rebuild();
        if self.hard.is_on() {
            self.hard.on(&self.backend).repair(thread, first);
        }
        self.backend.rebuild(mine, first)
    }

    // ---- slow paths that were left -------------------------------------------------------------

    /// Whether the caller was called in the middle of a slow path of the thread's: by a signal handler that interrupted
    /// it, or by a function of the program's that it called. A path that was left by longjmp out of such a handler is
    /// in nobody's way if what it left half done can be mended.
    #[inline(always)]
    pub(crate) fn is_interrupted(&self, thread: &ThreadCache) -> bool {
        thread.busy.get() != 0 && !self.mend_left(thread)
    }

    #[cold]
    #[inline(never)]
    fn mend_left(&self, thread: &ThreadCache) -> bool {
        let mark = thread.busy.get();
        // A first-class heap's caches: the path is that of the thread that holds the heap's lock.
        if thread.phase.get() == Phase::Arena || mark != LEFT && !self.was_left(mark) {
            return false;
        }
        // The thread is in a slow path at every moment of this: a handler must not mend as well.
        let frame = Frame::new();
        frame.begin();
        compiler_fence(SeqCst); // A mark leads to a frame that says so.
        thread.busy.set(frame.address());
        compiler_fence(SeqCst);
        let mended = self.mend(thread);
        compiler_fence(SeqCst);
        thread.busy.set(if mended.is_some() { 0 } else { LEFT });
        if let Some(Err(misuse)) = &mended {
            self.misuse(misuse);
        }
        mended.is_some()
    }

    /// Whether the slow path whose frame is at `mark` was left. A path at work has called the caller, perhaps by way of
    /// a signal handler or a coroutine with a stack of its own. So nobody has written to its frame, and it lies in no
    /// place where the caller may. That a frame lies below the stack pointer would not tell: the stack of a handler or
    /// of a coroutine may be a part of the thread's own.
    fn was_left(&self, mark: usize) -> bool {
        is_in_free_stack(mark) || self.backend.os.still_holds(mark, Frame::AT_WORK) == Some(false)
    }

    /// Puts in order what a slow path of the thread's left half done. `None`: nobody can.
    fn mend(&self, thread: &ThreadCache) -> Option<Result<(), Misuse>> {
        let backend = &self.backend;
        if let Some(mark) = self.mark().filter(|mark| mark.load(Relaxed) != WHOLE) {
            // The handler had forked, or the path was the repair.
            let outcome = self.repair_marked(thread, mark, true);
            return Some(outcome.unwrap_or_else(|| {
                // Another thread of the child was faster, and makes all locks free. It leaves this one's heap as it is.
                await_repair(mark);
                Held::forget();
                self.begin_anew(thread);
                Ok(())
            }));
        }
        if backend.os.is_alone() && backend.heaps.given.load(Relaxed) <= 1 {
            self.each_lock(&mut Lock::reset);
            Held::forget();
            let mine = self.heap_in_use(thread);
            return Some(match self.is_started() {
                true => self.rebuild(thread, mine, true),
                false => Ok(()),
            });
        }
        if !Held::none() {
            return None;
        }
        self.begin_anew(thread);
        Some(Ok(()))
    }

    /// Leaves the thread's heap as it is, for good, as that of a thread which never runs again: beside other threads a
    /// path of it may stand still anywhere, if it holds no lock. The thread gets another heap.
    fn begin_anew(&self, thread: &ThreadCache) {
        if let Some(heap) = self.heap_in_use(thread) {
            heap.unwatch();
        }
        thread.caches.iter().for_each(SlotCache::drop_slots);
        thread.me.set(Owner::NONE);
        thread.heap.set(ptr::null());
        thread.hardened.set(0);
        if thread.phase.get() == Phase::Running {
            thread.phase.set(Phase::Fresh);
        }
    }

    /// The thread's heap, hardened or not.
    pub(super) fn heap_in_use<'a>(&'a self, thread: &'a ThreadCache) -> Option<&'a Heap> {
        let hardened = self.hard.thread(thread);
        hardened.map_or_else(|| heap_of(thread), hardened::Thread::heap)
    }

    #[inline(always)]
    pub(super) fn mark(&self) -> Option<&AtomicU32> {
        // Acquire: the mark may have been made by another thread just now.
        // SAFETY: null, or what `Host::fork_mark` gave, which stays for good.
        unsafe { self.fork_mark.load(Acquire).as_ref() }
    }

    /// Repairs the heap first if this is a fork child that has not been repaired yet. Other fork handlers may run
    /// before ours, and _Fork(3) runs none. Whether it was.
    #[inline]
    pub(crate) fn notice_fork(&self, thread: &ThreadCache) -> bool {
        let forked = self.has_forked();
        if !forked || thread.phase.get() == Phase::Arena {
            // A handler has forked in the middle of a first-class heap's work: its thread repairs after that.
            return false;
        }
        self.repair_after_fork(thread);
        true
    }

    /// The way into a slow path for those that need no heap. A fork child that has not been repaired yet is repaired
    /// first. Then the thread is busy during `work`. `None` in a signal handler that interrupted a slow path.
    /// (`with_heap` is the way for those that need a heap.)
    #[inline(always)]
    pub(crate) fn enter<R>(
        &self,
        thread: &ThreadCache,
        work: impl FnOnce(&Busy<'_>) -> R,
    ) -> Option<R> {
        if self.is_interrupted(thread) {
            return None;
        }
        self.notice_fork(thread);
        mark_busy!(thread => busy);
        Some(work(busy))
    }

    /// As [`Allocator::enter`] for work that takes locks, and touches nothing else that a slow path is in the middle of.
    /// It is done also in a signal handler that interrupted a path which holds no lock, or left it. Not so in a fork child
    /// that such a handler made and that is not repaired yet: locks of threads that are gone are held there.
    #[inline(always)]
    pub(crate) fn look<R>(&self, thread: &ThreadCache, work: impl FnOnce() -> R) -> Option<R> {
        if self.is_interrupted(thread) {
            return (Held::none() && !self.has_forked()).then(work);
        }
        self.enter(thread, |_| work())
    }

    /// Whether this is a fork child that has not been repaired yet.
    #[inline(always)]
    pub(super) fn has_forked(&self) -> bool {
        self.mark().is_some_and(|mark| mark.load(Acquire) != WHOLE)
    }

    /// Shows every lock of the allocator's, as many as [`Allocator::locks_made`] says. Locks of first-class heaps are
    /// not among them: they lie in the metadata region and are found by number.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.start_lock.as_lock());
        visit(self.shared.as_lock());
        visit(self.guests.as_lock());
        self.backend.each_lock(visit);
        self.hard.each_lock(visit);
        self.samples.each_lock(visit);
    }

    /// How many locks the allocator has.
    pub fn locks_made(&self) -> usize {
        self.locks
    }

    /// Whether no thread was in the middle of anything when the parent forked.
    fn locks_are_free(&self) -> bool {
        let mut free = true;
        self.each_lock(&mut |lock| free &= lock.is_free());
        free
    }
}
