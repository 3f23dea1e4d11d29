//! Hardened mode: what the slow paths do when they are asked to.
//!
//! A hardened thread never takes a fast path: the caches of its block stay empty, and its owner word owns no slab. Its
//! heap works on a block of its own (`thread`), with the same slabs, lists and protocols as by default. What hardened
//! mode adds happens to a slot between the heap and the program:
//!
//! ```text
//!   heap --> random slot --> still zero? --> note its exact size --> canary after it --> program
//!   heap <-- quarantine <-- zero it <-- canary whole? <-- exact size known? forget it <-- program
//! ```
//!
//! Each part works without the others. Knows nothing of entry points. A misuse comes back as an error.

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
mod warm;

use crate::arch::prefetch;
use crate::bitmap;
use crate::class::{aligned_class, class_of, shared_pages, slot_at, ClassId};
use crate::heap::{dead, locate, Backend, Heap, NextWord, LARGE};
use crate::large::{Block, Found, Fresh, GuardPages, UNUSED_MAX};
use crate::meta::{Area, Meta};
use crate::misuse::{Call, Line, Misuse};
use crate::mutex::{Lock, Registry};
use crate::options::Options;
use crate::os::Os;
use crate::owner::{Owner, RELEASED};
use crate::read_only::ReadOnly;
use crate::slab::{SlabPtr, SIZE_AMBIGUOUS};
use crate::sync::{xor_owned, AtomicU16, AtomicU32};
use crate::sync::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::tls::{Phase, SlotCache, ThreadCache};
use crate::units::{bit_of, pages_for, SlabId, Slot, MIN_ALIGN, PAGE, REQUEST_MAX, SPAN_MAX};
use crate::wide::{self, with_wide, Wide};
use beds::{apart_most, Beds};
use bytes::{Secret, CANARY, FEW};
use core::hint::assert_unchecked;
use core::ops::Deref;
use core::ops::Range;
use empty::Empty;
use guard_pages::{AddressQuarantine, IsClaimed, WithGuardPages};
use sizes::{Sizes, Table, Words};
use thread::{charge, Freed, Quarantine, Threads};

pub use ago::Ago;
pub use mitigations::Mitigations;
pub use sample::Samples;
pub use thread::Thread;

/// The largest block that gets a slot, in bytes: a larger one has pages of its own, and a guard page right behind.
const SLOT_MAX: usize = 8 << 10;
/// Bytes of a line of the cache.
const LINE: usize = 64;

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

/// For what the common paths are compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// For every processor, and any mitigations.
    Plain,
    /// For a processor with wide registers (see [`with_wide`](crate::wide::with_wide)), and any mitigations.
    Wide,
    /// As `Wide`, and all mitigations as they are by `hardened` alone: none is asked about.
    Whole,
    /// As `Wide`, and just the mitigations of `zero,quarantine`: none is asked about.
    Cleared,
}

/// What is known where a form of the common paths is compiled.
pub trait Known {
    /// Whether the processor has wide registers.
    const WIDE: bool;
    /// The mitigations that are on. `None`: they have to be asked about.
    const MITIGATIONS: Option<Mitigations>;
}

/// Of [`Form::Plain`].
pub enum Plain {}
/// Of [`Form::Wide`].
pub enum WideOnly {}
/// Of [`Form::Whole`].
pub enum Whole {}
/// Of [`Form::Cleared`].
pub enum Cleared {}

impl Known for Plain {
    const WIDE: bool = false;
    const MITIGATIONS: Option<Mitigations> = None;
}

impl Known for WideOnly {
    const WIDE: bool = true;
    const MITIGATIONS: Option<Mitigations> = None;
}

impl Known for Whole {
    const WIDE: bool = true;
    const MITIGATIONS: Option<Mitigations> = Some(Mitigations::ALL);
}

impl Known for Cleared {
    const WIDE: bool = true;
    const MITIGATIONS: Option<Mitigations> = Some(Mitigations::CLEARED);
}

impl Form {
    /// The form for these mitigations, of a processor with wide registers or without.
    fn of(mitigations: Mitigations, wide: Wide) -> Form {
        let known = Mitigations {
            sample: 0,
            ..mitigations
        };
        match known {
            _ if !wide.is_so() => Form::Plain,
            Mitigations::ALL => Form::Whole,
            Mitigations::CLEARED => Form::Cleared,
            _ => Form::Wide,
        }
    }
}

/// A live block in hardened mode.
#[derive(Clone, Copy)]
pub enum Live {
    /// A slot or a span, and the bytes that were asked for.
    Slot(SlabPtr, Slot, usize),
    /// A large block, and the bytes that were asked for.
    Large(Block, usize),
    /// A block of no bytes.
    Empty,
}

/// A live slot, as it was found.
struct LiveSlot<'a> {
    slab: SlabPtr,
    /// The slab's number.
    id: SlabId,
    slot: Slot,
    /// Bytes of the slot.
    bytes: usize,
    /// The bytes that were asked for.
    size: usize,
    /// Where they are noted.
    noted: &'a AtomicU16,
}

impl Live {
    /// The bytes that were asked for.
    pub fn size(self) -> usize {
        match self {
            Live::Slot(_, _, size) | Live::Large(_, size) => size,
            Live::Empty => 0,
        }
    }
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

    /// Bytes that a block of `size` bytes takes. One of whole pages, which is no slot, ends at its guard page: there
    /// is no room for a canary, and an overflow by one byte faults.
    #[inline]
    fn need(&self, size: usize) -> usize {
        if self.ends_at_guard(size) {
            return size;
        }
        size.saturating_add(self.fixed().behind).max(1)
    }

    /// Whether a block of `size` bytes ends at its guard page.
    #[inline(always)]
    fn ends_at_guard(&self, size: usize) -> bool {
        self.fixed().mitigations.guard && size > SLOT_MAX && size.is_multiple_of(PAGE)
    }

    /// Whether a block of `size` bytes may have room behind it.
    pub fn may_have_room(&self, size: usize) -> bool {
        !self.ends_at_guard(size)
    }

    /// Whether a block of `size` bytes in a room of `bytes` has a canary: if there is room for it.
    #[inline(always)]
    fn has_canary(&self, size: usize, bytes: usize) -> bool {
        self.fixed().mitigations.canary && size + CANARY <= bytes
    }

    /// Whether a new block of `size` bytes is all zero.
    pub fn is_clear(&self, size: usize) -> bool {
        self.fixed().mitigations.zero && size > SLOT_MAX
    }

    /// Whether the canary after `size` bytes of a slot of `bytes` is whole, and what lies after it as it
    /// was left.
    ///
    /// # Safety
    /// The slot is live.
    #[inline(always)]
    unsafe fn is_whole<F: Known>(&self, addr: usize, size: usize, bytes: usize) -> bool {
        let fixed = self.fixed();
        if bytes > SLOT_MAX {
            // SAFETY: the caller guarantees that the slot is live.
            return unsafe { self.is_room_whole(addr, size, bytes) };
        }
        // SAFETY: the caller guarantees that the slot is live. Slots that are no spans have room for the canary.
        unsafe {
            bytes::broken_seal(addr, size, fixed.secret).is_none()
                && (!self.mitigations::<F>().zero || bytes::ends_in_zero(addr, size, bytes))
        }
    }

    /// As [`Hardened::is_whole`], of a span or a large block of `bytes` bytes: all of what lies after the canary is
    /// looked at.
    ///
    /// # Safety
    /// The block is live.
    #[inline(never)]
    unsafe fn is_room_whole(&self, addr: usize, size: usize, bytes: usize) -> bool {
        let fixed = self.fixed();
        if !self.has_canary(size, bytes) {
            return true;
        }
        // SAFETY: the caller guarantees that the block is live, and it has room for the canary.
        unsafe {
            bytes::broken_seal(addr, size, fixed.secret).is_none()
                && (!fixed.mitigations.zero || bytes::rest_is_zero(addr, size, bytes, fixed.wide))
        }
    }

    /// Ends the life of a slot, whose heap does not know yet: its size is forgotten, its canary looked at,
    /// its bytes cleared.
    #[inline]
    pub fn end(&self, slab: SlabPtr, slot: Slot, racing: bool) -> Result<(), Misuse> {
        let fixed = self.fixed();
        let Some(size) = self.sizes().end(slab, slot, racing) else {
            return Err(dead(slab, slot));
        };
        let address = slab.address(slot);
        // SAFETY: the slot was live, and this thread has ended that.
        unsafe {
            if fixed.mitigations.canary && !self.is_whole::<Plain>(address, size, slab.size()) {
                self.look_at_seal(slab, slot, size, Call::Free)?;
            }
            if fixed.mitigations.zero {
                let used = (size + fixed.behind).min(slab.size());
                bytes::clear_words(address, used, fixed.wide);
            }
        }
        Ok(())
    }

    /// Ends the life of all slots of a slab whose heap ends: its bytes are left as those of free slots are. The
    /// first misuse that they tell of comes back.
    pub fn end_slots(&self, slab: SlabPtr) -> Result<(), Misuse> {
        let mut outcome = Ok(());
        if !self.is_on() {
            return outcome;
        }
        for slot in (0..slab.slots()).map(Slot::new) {
            if self.sizes().size(slab, slot).is_none() {
                continue;
            }
            let ended = self.end(slab, slot, false);
            if ended.is_err() && self.fixed().mitigations.zero {
                let size = slab.size();
                // SAFETY: the slot was live, and its heap ends.
                unsafe { bytes::clear(slab.address(slot), size) };
            }
            outcome = outcome.and(ended);
        }
        outcome
    }

    fn look_at_seal(
        &self,
        slab: SlabPtr,
        slot: Slot,
        size: usize,
        call: Call,
    ) -> Result<(), Misuse> {
        let addr = slab.address(slot);
        match self.broken_at(addr, size, slab.size()) {
            None => Ok(()),
            Some(past) => Err(Misuse::Overflow {
                call,
                addr,
                slot,
                size: slab.size(),
                asked: size,
                past,
            }),
        }
    }

    /// The first byte after a live block of `size` bytes, in a room of `bytes`, that is not as it was left, counted
    /// from the block's end.
    fn broken_at(&self, addr: usize, size: usize, bytes: usize) -> Option<usize> {
        // SAFETY: the callers' blocks are live, unless another thread frees one now, which would be misuse.
        if !self.has_canary(size, bytes) || unsafe { self.is_whole::<Plain>(addr, size, bytes) } {
            return None;
        }
        let (secret, zero) = (self.fixed().secret, self.fixed().mitigations.zero);
        let end = size + CANARY;
        // SAFETY: there is room for the canary, and what is after that is the block's.
        unsafe {
            let behind = || (end..bytes).find(|at| *((addr + at) as *const u8) != 0);
            bytes::broken_seal(addr, size, secret)
                .or_else(|| behind().filter(|_| zero).map(|at| at - size))
        }
    }

    fn look_at_large_seal(&self, block: Block, asked: usize, call: Call) -> Result<(), Misuse> {
        match self.broken_at(block.address, asked, block.bytes) {
            None => Ok(()),
            Some(past) => Err(Misuse::Overflow {
                call,
                addr: block.address,
                slot: Slot::FIRST,
                size: block.bytes,
                asked,
                past,
            }),
        }
    }

    /// The live block in `slot` of `slab`, which lies `at` this address.
    pub fn live_slot(&self, slab: SlabPtr, slot: Slot, at: (usize, Call)) -> Result<Live, Misuse> {
        let (addr, call) = at;
        match self.sizes().size(slab, slot) {
            Some(size) => Ok(Live::Slot(slab, slot, size)),
            None => Err(Misuse::Dead {
                call,
                addr,
                slot,
                size: slab.size(),
            }),
        }
    }

    /// Whether a live block may have been asked for at a multiple of `align`: it lies where its size and `align` ask
    /// for. Of large blocks none is told from another.
    pub fn may_be_aligned(&self, live: Live, align: usize) -> bool {
        match live {
            Live::Slot(slab, _, size) if !slab.has(SIZE_AMBIGUOUS) => {
                match slot_class(self.need(size), align) {
                    Some(class) => !slab.is_span() && slab.class() == class,
                    None => slab.is_span(),
                }
            }
            _ => true,
        }
    }

    /// Looks at the bytes that a block takes in which grows where it is: behind the canary they are as they were left.
    fn look_at_growth(
        &self,
        live: Live,
        addr: usize,
        (old, new): (usize, usize),
        room: usize,
    ) -> Result<(), Misuse> {
        if !self.fixed().mitigations.zero || !self.has_canary(old, room) {
            return Ok(());
        }
        let (from, end) = (old + CANARY, (new + CANARY).min(room));
        // SAFETY: the block is live, and has so much room.
        let dirty = unsafe { bytes::first_dirty_of(addr, from..end, self.fixed().wide) };
        let Some(at) = dirty else {
            return Ok(());
        };
        let slot = match live {
            Live::Slot(_, slot, _) => slot,
            _ => Slot::FIRST,
        };
        Err(Misuse::Overflow {
            call: Call::Realloc,
            addr,
            slot,
            size: room,
            asked: old,
            past: at - old,
        })
    }

    /// Moves the end of a block from `old` to `new` bytes in its room of `room` bytes.
    fn move_end(&self, addr: usize, room: usize, old: usize, new: usize) {
        let behind = self.fixed().behind;
        let from = old.min(new);
        // SAFETY: up to the larger of the two ends, and the canary that has room there, the bytes are the block's.
        unsafe {
            if behind != 0 || self.fixed().mitigations.zero {
                let old_end = (old + behind).min(room);
                let until = if new < old { old_end } else { new.min(old_end) };
                bytes::clear(addr + from, until - from);
            }
            if self.has_canary(new, room) {
                bytes::seal(addr, new, self.fixed().secret);
            }
        }
    }

    fn repair_slab(&self, slab: SlabPtr) {
        for slot in (0..slab.slots()).map(Slot::new) {
            let free = slab.is_remote(slot) || slab.is_free(slot);
            if free || self.sizes().size(slab, slot).is_some() {
                continue;
            }
            if self.fixed().mitigations.zero {
                // SAFETY: no thread of this process has the slot.
                unsafe { bytes::clear(slab.address(slot), slab.size()) };
            }
            let word = slab.free_word(slot.word());
            word.store(word.load(Relaxed) | slot.bit(), Relaxed);
        }
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

    /// Frees all that the thread's quarantine holds. Whether it held anything.
    pub fn flush(self, thread: &Thread) -> Result<bool, Misuse> {
        let mut any = false;
        if let Some(heap) = thread.heap() {
            while let Some(freed) = thread.quarantine.take() {
                self.release(heap, freed)?;
                any = true;
            }
        }
        Ok(any)
    }

    // ---- malloc ---------------------------------------------------------------------------------

    /// The common half of [`HardenedRef::malloc`]: a slot of the cached word, with `MANY` or of the next one. `None` if
    /// more is to be done or something is wrong, which the other half then finds again. Also `None` for more than
    /// `FEW` bytes, unless `MANY`. Without that it calls nothing: some fifty instructions, and a load for every
    /// sixteen bytes.
    #[inline(always)]
    pub fn malloc_fast<const MANY: bool, F: Known>(
        self,
        thread: &Thread,
        size: usize,
    ) -> Option<usize> {
        let fixed = self.fixed();
        let Mitigations {
            zero,
            canary,
            random,
            ..
        } = self.mitigations::<F>();
        let most = if MANY { SLOT_MAX } else { FEW };
        if size > most || size == 0 {
            return None;
        }
        let need = size + self.behind::<F>();
        if need > most || random && !thread.random.is_ready_for(MANY) {
            return None;
        }
        let class = class_of(need);
        if !MANY {
            // SAFETY: those are the classes whose caches lie in the block: what is needed is at most `FEW`.
            unsafe { assert_unchecked(class.index() < thread.local.caches.len()) };
        }
        let cache = match thread.local.caches.get(class.index()) {
            Some(cache) => cache,
            None => thread.heap()?.upper_cache(class),
        };
        let mut bits = cache.bits.get();
        if bits == 0 {
            if !MANY {
                return None;
            }
            bits = self.try_fill_cache(thread, class, cache)?;
        }
        let slot = match random {
            true => thread.next_slot(class),
            false => bits.trailing_zeros() as usize,
        };
        if random && bits & bit_of(slot) == 0 {
            return None;
        }
        let bytes = cache.size.get();
        let base = cache.base.get() as usize;
        let address = base + slot * bytes;
        if zero {
            // SAFETY: the slot is free and lies in the thread's own slab. Slots are multiples of 8, and no class of up
            // to `FEW` bytes has larger ones.
            let clear = unsafe {
                if MANY && bytes > FEW {
                    bytes::are_clear(address, bytes, fixed.wide)
                } else {
                    bytes::few_are_clear::<F>(address, bytes)
                }
            };
            if !clear {
                return None;
            }
        }
        let rest = bits & !bit_of(slot);
        cache.bits.set(rest);
        // SAFETY: a cache with bits has the word that they came from, in a header that is never unmapped, and `notes`
        // was set with it. The slot has room for the canary: `need`.
        unsafe {
            xor_owned(&*cache.word.get(), bit_of(slot));
            Sizes::note_at(thread.notes[class.index()].get().add(slot), bytes - size);
            if canary {
                bytes::seal(address, size, fixed.secret);
            }
        }
        // The next one was freed long ago, and will be looked at. In order a small one lies beside this one, where the
        // processor fetches it by itself.
        if rest != 0 && (random || MANY) {
            let slot = match random {
                true => thread.choose_ready::<F>(class, rest, fixed.wide),
                false => rest.trailing_zeros() as usize,
            };
            let next = base + slot * bytes;
            prefetch(next as *const u8);
            prefetch((next + LINE) as *const u8);
        }
        Some(address)
    }

    /// Puts another word of the class's slabs into `cache`, which is used up, and chooses its first slot: the common
    /// half of [`HardenedRef::take_slot`]. Its bits. `None` if that is not all there is to do.
    #[inline(never)]
    fn try_fill_cache(self, thread: &Thread, class: ClassId, cache: &SlotCache) -> Option<u64> {
        let heap = thread.heap()?.on(self.backend);
        let random = self.fixed().mitigations.random;
        let byte = || if random { thread.random.byte() } else { 0 };
        if random {
            heap.shuffle(class, byte());
        }
        let taken = match heap.next_word(class, cache) {
            NextWord::Taken(slot) => slot,
            NextWord::UsedUp if random && thread.lacks_choice(class) => return None,
            NextWord::UsedUp => heap.refill_from_next(class, cache)?,
            NextWord::RoundOver => heap.refill_after_round(class, cache)?,
            NextWord::Elsewhere => return None,
        };
        put_back(cache, taken.as_ptr());
        let cached_word = heap.cached_word(class);
        let Some((slab, first)) = cached_word.filter(|&(slab, _)| self.sizes().is_open(slab))
        else {
            // No word is there to be taken of whose sizes have no place: a handler would.
            cache.hide();
            return None;
        };
        thread.notes[class.index()].set(self.sizes().words(slab, first));
        let bits = cache.bits.get();
        if random {
            thread.choose(class, bits, byte());
            thread.note_choice(class, bits, slab.slots());
            // What chooses the slot takes bits that are there already.
            thread.random.make_ready();
        }
        Some(bits)
    }

    /// `size` bytes at a multiple of `align`, with room to grow to `room`. `None` if memory has run out.
    pub fn malloc(
        self,
        thread: &Thread,
        (size, room): (usize, usize),
        align: usize,
    ) -> Result<Option<usize>, Misuse> {
        let mitigations = &self.fixed().mitigations;
        let Some(heap) = thread.heap() else {
            return Ok(None);
        };
        if size > REQUEST_MAX - PAGE || align > REQUEST_MAX {
            return Ok(None);
        }
        if size == 0 && mitigations.guard && align <= MIN_ALIGN {
            if let Some(address) = self.empty.take(self.backend.supply()) {
                return Ok(Some(address));
            }
        }
        let need = match room > size {
            true => room + self.fixed().behind,
            false => self.need(size),
        };
        if need > SPAN_MAX || align > SPAN_MAX {
            let made = self.malloc_large(size, align.max(PAGE));
            if let Some(Fresh { block, new }) = made {
                // What was not mapped afresh was kept.
                heap.note_taken(LARGE, block.bytes - new.unwrap_or(0));
                heap.on(self.backend).profile_large(block);
            }
            return Ok(made.map(|made| made.block.address));
        }
        let taken = match slot_class(need, align) {
            Some(class) => self.take_slot(thread, heap, class)?,
            None => self.take_span(thread, heap, need, align)?,
        };
        let Some((slab, slot, fresh)) = taken else {
            return Ok(None);
        };
        let address = slab.address(slot);
        if mitigations.zero && !fresh {
            // SAFETY: the slot was free, and is the caller's now. Slots are multiples of 8.
            if let Some(at) = unsafe { bytes::first_dirty(address, slab.size(), self.fixed().wide) }
            {
                return Err(written(slab, slot, at));
            }
        }
        if room > size && !fits_as_well(slab, self.need(size)) {
            slab.set_flags(SIZE_AMBIGUOUS); // Its class does not tell what was asked for.
        }
        self.sizes().note(slab, slot, size);
        if self.has_canary(size, slab.size()) {
            // SAFETY: the slot has room for the canary, as was just asked.
            unsafe { bytes::seal(address, size, self.fixed().secret) };
        }
        Ok(Some(address))
    }

    /// A slot of `class`, and whether nobody has touched it yet: never said of slots.
    fn take_slot(
        self,
        thread: &Thread,
        heap: &Heap,
        class: ClassId,
    ) -> Result<Option<(SlabPtr, Slot, bool)>, Misuse> {
        let random = self.fixed().mitigations.random;
        let cache = heap.cache(class);
        if cache.bits.get() == 0 {
            // One refill in some comes this way.
            thread.quarantine.tell_time(self.backend.os.clock());
            if random {
                heap.on(self.backend).shuffle(class, thread.random.byte());
                if thread.lacks_choice(class) {
                    heap.on(self.backend).widen_choice();
                    thread.begin_choices(class);
                }
            }
            let Some(taken) = heap.on(self.backend).refill(class)? else {
                return Ok(None);
            };
            put_back(cache, taken); // Which slot it is to be is chosen below.
        }
        let Some((slab, first)) = heap.on(self.backend).cached_word(class) else {
            return Ok(None);
        };
        if !self.has_words(thread, heap, slab, Some(class))? {
            // Nobody takes of the word what has no place for its size.
            cache.hide();
            return Ok(None);
        }
        thread.notes[class.index()].set(self.sizes().words(slab, first));
        let bits = cache.bits.get();
        let start = || if random { thread.random.byte() } else { 0 };
        let slot = bitmap::any_bit(bits, start());
        let rest = bits & !bit_of(slot);
        cache.bits.set(rest);
        thread.choose(class, rest, start());
        // SAFETY: a cache with bits has the word that they came from, in a header that is never unmapped.
        xor_owned(unsafe { &*cache.word.get() }, bit_of(slot));
        Ok(Some((slab, Slot::new(first.index() + slot), false)))
    }

    fn take_span(
        self,
        thread: &Thread,
        heap: &Heap,
        need: usize,
        align: usize,
    ) -> Result<Option<(SlabPtr, Slot, bool)>, Misuse> {
        // A block of whole pages ends with its span. Others share few sizes, so that fewer spans wait for their turn.
        let pages = match need.is_multiple_of(PAGE) {
            true => need / PAGE,
            false => shared_pages(pages_for(need)),
        };
        let span = if align > PAGE {
            heap.on(self.backend)
                .take_aligned_span(pages, align / PAGE)?
        } else {
            heap.on(self.backend).take_span(pages)?
        };
        let Some((slab, fresh)) = span else {
            return Ok(None);
        };
        if !self.has_words(thread, heap, slab, None)? {
            heap.on(self.backend).free_elsewhere(slab, Slot::FIRST)?;
            return Ok(None);
        }
        Ok(Some((slab, Slot::FIRST, fresh)))
    }

    /// Whether the words are there for the sizes of `slab`, the active one of `class` or a span. Where memory for them is
    /// refused once more, all else that the heap keeps goes back, but the slab stays: what is refused would take it again
    /// each time, with guards to place and pages to discard.
    fn has_words(
        self,
        thread: &Thread,
        heap: &Heap,
        slab: SlabPtr,
        class: Option<ClassId>,
    ) -> Result<bool, Misuse> {
        let heap = heap.on(self.backend);
        if self.sizes().open(self.backend.supply(), slab) {
            if thread.is_refused_no_more() {
                heap.keeps_something();
            }
            return Ok(true);
        }
        if thread.was_refused(self.sizes().end_of(slab)) {
            heap.give_back_but(class)?;
        }
        Ok(false)
    }

    fn malloc_large(self, size: usize, align: usize) -> Option<Fresh> {
        let need = self.need(size);
        let guard = self.fixed().mitigations.guard;
        let mapped = if guard {
            let is_apart = self.backend.large.live().1 < self.fixed().apart_most;
            let is_claimed = |range: Range<usize>| {
                self.backend.meta.reaches(&range) || self.backend.pages.reaches(&range)
            };
            let beds = is_apart.then_some((&self.beds, &is_claimed as IsClaimed));
            let os = WithGuardPages::new(&self.backend.os, beds);
            self.backend.map_large_on(&os, need, align)
        } else {
            self.backend.map_large_on(&self.backend.os, need, align)
        };
        let mapped = mapped?;
        let (block, fresh) = (mapped.block, mapped.new.is_some());
        if self.fixed().mitigations.zero && !fresh {
            // SAFETY: the mapping is ours. It was kept from an earlier block.
            unsafe { bytes::clear(block.address, block.bytes) };
        }
        let guard_pages = if guard && fresh {
            GuardPages::Both
        } else {
            GuardPages::None
        };
        self.backend.large.note(block.address, size, guard_pages);
        if self.has_canary(size, block.bytes) {
            // SAFETY: the mapping has room for the canary, as was just asked.
            unsafe { bytes::seal(block.address, size, self.fixed().secret) };
        }
        Some(mapped)
    }

    // ---- free -----------------------------------------------------------------------------------

    /// The live slot at `addr`, in the first window and of at most `largest` bytes: the common case of
    /// what is freed. `None` for everything else. Some thirty instructions.
    #[inline(always)]
    fn live_fast(self, addr: usize, largest: usize) -> Option<LiveSlot<'a>> {
        let hot = &self.backend.pages.hot;
        let id = hot.id_of(hot.page_of(addr)?);
        let slab = self.backend.table().get(id);
        let (base, bytes) = (slab.base(), slab.size());
        let (slot, _) = slot_at(addr.wrapping_sub(base), slab.recip.load(Relaxed));
        if !slab.holds(slot) || bytes > largest || base + slot.index() * bytes != addr {
            return None;
        }
        let noted = self.hard.sizes().place(id.index(), slot)?;
        Some(LiveSlot {
            slab,
            id,
            slot,
            bytes,
            size: sizes::asked(noted.load(Relaxed), bytes)?,
            noted,
        })
    }

    /// The common half of [`HardenedRef::free`]: a live slot in the first window, and what has to leave the quarantine for
    /// it is of the thread's own slabs. `None` if nothing was done, which includes every misuse of the block. Also for
    /// slots of more than `FEW` bytes, unless `MANY`. Without that it calls nothing: some ninety instructions, and a store
    /// for every sixteen bytes of the block. Without a quarantine the slot is free at once, by a call where something
    /// follows from that, which may find another misuse.
    #[inline(always)]
    pub fn free_fast<const MANY: bool, F: Known>(
        self,
        thread: &Thread,
        addr: usize,
    ) -> Option<Result<(), Misuse>> {
        let fixed = self.fixed();
        let Mitigations {
            zero,
            canary,
            random,
            racing,
            quarantine: most,
            ..
        } = self.mitigations::<F>();
        let behind = self.behind::<F>();
        let largest = match (MANY, F::WIDE) {
            (true, _) => usize::MAX,
            (false, true) => SLOT_MAX,
            (false, false) => FEW,
        };
        // Where it lies and what it is are found by a chain of loads. The block's own first line may come meanwhile.
        prefetch(addr as *const u8);
        let found = self.live_fast(addr, largest)?;
        let heap = thread.heap()?;
        if found.slab.owner.load(Relaxed).is_arena() {
            return None;
        }
        let (bytes, size, noted) = (found.bytes, found.size, found.noted);
        // SAFETY: `live_fast` found the slot live, and it has room for the canary.
        if canary && !unsafe { self.is_whole::<F>(addr, size, bytes) } {
            return None;
        }
        if most != 0 && random && !thread.random.is_ready_for(MANY) {
            return None;
        }
        let quarantine = &thread.quarantine;
        let charged = charge(bytes, most);
        if most != 0
            && quarantine.is_over(charged, most)
            && (!MANY || !self.has_made_room::<F>((thread, heap), charged))
        {
            return None;
        }
        // Without a second thread there is none to race with.
        if racing && self.backend.heaps.given.load(Relaxed) > 1 {
            if noted.swap(0, AcqRel) == 0 {
                return None;
            }
        } else {
            noted.store(0, Relaxed);
        }
        if zero {
            // SAFETY: the slot was live, and this thread has ended that.
            unsafe {
                if MANY && bytes > FEW {
                    let used = (size + behind).min(bytes);
                    bytes::clear_words(addr, used, fixed.wide);
                } else if F::WIDE && size + behind > FEW {
                    wide::clear_inline(addr, (size + behind + 7) & !7);
                } else {
                    let used = size + behind;
                    // A block of no bytes may be a slot: its first word is cleared.
                    bytes::clear_few::<F>(addr, if behind == 0 { used.max(1) } else { used });
                }
            }
        }
        if most == 0 {
            let (slab, slot) = (found.slab, found.slot);
            return Some(match heap.free_fast(slab, slot) {
                true => Ok(()),
                false => self.release_event(heap, slab, slot),
            });
        }
        let freed = Freed {
            slab: found.id.0,
            slot: found.slot.index() as u32,
            charged: charged as u32,
        };
        let random = random.then_some(&thread.random);
        quarantine.put(freed, random, most);
        Some(Ok(()))
    }

    #[inline(always)]
    fn has_made_room<F: Known>(self, at: (&Thread, &Heap), charged: usize) -> bool {
        match F::WIDE {
            // SAFETY: the processor has what the form needs.
            true => unsafe { self.make_room_wide::<F>(at, charged) },
            false => self.make_room_plain::<F>(at, charged),
        }
    }

    with_wide! {
        #[inline(never)]
        unsafe fn make_room_wide<F: Known>(self, at: (&Thread, &Heap), charged: usize) -> bool {
            self.make_room::<F>(at, charged)
        }
    }

    #[inline(never)]
    fn make_room_plain<F: Known>(self, at: (&Thread, &Heap), charged: usize) -> bool {
        self.make_room::<F>(at, charged)
    }

    /// Lets a batch of blocks leave the quarantine, so that one that is `charged` so many bytes can come in. False where that cannot
    /// be, and where one cannot be freed, which the other half then finds again.
    #[inline(always)]
    fn make_room<F: Known>(self, (thread, heap): (&Thread, &Heap), charged: usize) -> bool {
        let (quarantine, table) = (&thread.quarantine, self.backend.table());
        let most = self.mitigations::<F>().quarantine;
        if !Quarantine::can_hold(charged, most) {
            return false;
        }
        quarantine.tell_time(self.backend.os.clock());
        quarantine.thin_out(charged, most, |oldest, soon| {
            let slab = table.get(SlabId(oldest.slab));
            prefetch(table.get(SlabId(soon.slab)).as_ptr().cast());
            heap.free_fast(slab, oldest.slot())
                || self.release_event(heap, slab, oldest.slot()).is_ok()
        });
        !quarantine.is_over(charged, most)
    }

    /// As [`HardenedRef::release`], where more follows than that a bit is set.
    #[inline(never)]
    fn release_event(self, heap: &Heap, slab: SlabPtr, slot: Slot) -> Result<(), Misuse> {
        let heap = heap.on(self.backend);
        match heap.free_into_full(slab, slot) {
            true => Ok(()),
            false => heap.free_elsewhere(slab, slot),
        }
    }

    /// Frees the slot of a slab: it waits in the quarantine, or is free at once.
    pub fn free(self, thread: &Thread, slab: SlabPtr, slot: Slot) -> Result<(), Misuse> {
        // Without a second thread there is none to race with.
        let racing = self.fixed().mitigations.racing && self.backend.heaps.given.load(Relaxed) > 1;
        let Some(heap) = thread.heap() else {
            return Ok(());
        };
        self.end(slab, slot, racing)?;
        let freed = Freed {
            slab: self.sizes().number(slab) as u32,
            slot: slot.index() as u32,
            charged: charge(slab.size(), self.fixed().mitigations.quarantine) as u32,
        };
        let owner = slab.owner.load(Relaxed).without_pending();
        if owner.is_arena() && owner != heap.me() {
            return self.quarantine_in_arena(owner, freed);
        }
        self.quarantine(thread, heap, freed)
    }

    /// A first-class heap's block waits in the heap's own quarantine: it ends with the heap.
    fn quarantine_in_arena(self, owner: Owner, freed: Freed) -> Result<(), Misuse> {
        if let Some((arena, heap)) = self.backend.arena_of(owner) {
            let local = arena.lock();
            // It may have been destroyed while this thread waited.
            let thread = self.thread(&local);
            if let Some(thread) = thread.filter(|_| heap.me() == owner) {
                return self.quarantine(thread, heap, freed);
            }
        }
        let slab = self.backend.table().get(SlabId(freed.slab));
        Err(dead(slab, freed.slot()))
    }

    /// A block whose life has ended waits in the quarantine of `thread`, whose heap is `heap`, or is free at once.
    fn quarantine(self, thread: &Thread, heap: &Heap, freed: Freed) -> Result<(), Misuse> {
        let mitigations = &self.fixed().mitigations;
        let (most, charged) = (mitigations.quarantine, freed.charged as usize);
        if most == 0 || !Quarantine::can_hold(charged, most) {
            return self.release(heap, freed);
        }
        let random = mitigations.random.then_some(&thread.random);
        thread.random.make_ready();
        thread.quarantine.tell_time(self.backend.os.clock());
        while thread.quarantine.is_over(charged, most) {
            match thread.quarantine.take() {
                Some(freed) => self.release(heap, freed)?,
                None => return self.release(heap, freed),
            }
        }
        thread.quarantine.put(freed, random, most);
        Ok(())
    }

    /// Takes back a block that was made just now and is not needed.
    pub fn take_back(self, thread: &Thread, addr: usize) -> Result<(), Misuse> {
        match self.backend.pages.slab_at(addr) {
            Some(slab) if slab.owner.load(Relaxed) != RELEASED => {
                let slot = locate(slab, addr, Call::Free)?;
                self.free(thread, slab, slot)
            }
            _ => self.free_apart(addr).map(|_| ()),
        }
    }

    /// Gives a block to its slab at last.
    #[inline]
    fn release(self, heap: &Heap, freed: Freed) -> Result<(), Misuse> {
        let slab = self.backend.table().get(SlabId(freed.slab));
        if heap.free_fast(slab, freed.slot()) {
            return Ok(());
        }
        heap.on(self.backend).free_elsewhere(slab, freed.slot())
    }

    /// Frees a block that lies in no slab. How many of its bytes are kept for others. `None` if the address is nothing of
    /// ours.
    pub fn free_apart(self, addr: usize) -> Result<Option<usize>, Misuse> {
        let call = Call::Free;
        if let Some(was_live) = self.empty.give(&self.backend.meta, addr) {
            return Ok(was_live.then_some(0));
        }
        let Some((block, asked, guard_pages)) = self.backend.large.noted(addr) else {
            return self.dead_large(addr, call).map_or(Ok(None), Err);
        };
        self.look_at_large_seal(block, asked, call)?;
        self.unmap(addr, guard_pages).map(Some)
    }

    /// Frees a large block of a heap that ends, whatever is wrong with it.
    pub fn end_apart(self, addr: usize) -> Result<(), Misuse> {
        let Some((block, asked, guard_pages)) = self.backend.large.noted(addr) else {
            return Ok(());
        };
        let whole = self.look_at_large_seal(block, asked, Call::Free);
        whole.and(self.unmap(addr, guard_pages).map(drop))
    }

    /// Frees a live large block. One between guard pages is never kept for reuse: it goes out of reach at once. How many
    /// bytes of its pages are kept.
    fn unmap(self, addr: usize, guard_pages: GuardPages) -> Result<usize, Misuse> {
        self.backend.profile.end_large(&self.backend.meta, addr);
        let (found, shared) = match guard_pages {
            GuardPages::Both => self.backend.large.take_out(&self.backend.meta, addr),
            GuardPages::None => (self.backend.large.unmap(self.backend.supply(), addr), false),
        };
        match (found, guard_pages) {
            (Found::Live(block), GuardPages::Both) => {
                let kept = if shared { 0 } else { self.keep_pages(block) };
                // SAFETY: it was live, lay between guard pages, and was taken out just now.
                unsafe { self.held.hold(&self.backend.os, addr, block.bytes) };
                Ok(kept)
            }
            (Found::Live(_), GuardPages::None) => Ok(0),
            _ => {
                let call = Call::Free;
                let dead = self.dead_large(addr, call);
                Err(dead.unwrap_or(Misuse::Unknown { call, addr }))
            }
        }
    }

    /// What is wrong with `addr`, at which no large block lives. `None` if it is nothing of ours.
    fn dead_large(self, addr: usize, call: Call) -> Option<Misuse> {
        let is_freed = matches!(self.backend.large.find(addr), Found::Freed(_))
            || self.held.holds(addr, self.backend.meta.os_page());
        is_freed.then_some(Misuse::DeadLarge { call, addr })
    }

    /// The live block at `addr`, which lies in no slab. `None` if it is nothing of ours.
    pub fn live_apart(self, addr: usize, call: Call) -> Result<Option<Live>, Misuse> {
        if self.empty.is_live(&self.backend.meta, addr) == Some(true) {
            return Ok(Some(Live::Empty));
        }
        match self.backend.large.noted(addr) {
            Some((block, size, _)) => Ok(Some(Live::Large(block, size))),
            None => self.dead_large(addr, call).map_or(Ok(None), Err),
        }
    }

    /// As [`HardenedRef::live_apart`], without waiting for a lock. `None` where it does not know.
    pub fn try_live_apart(self, addr: usize) -> Option<Live> {
        if self.empty.is_live(&self.backend.meta, addr) == Some(true) {
            return Some(Live::Empty);
        }
        let (block, size, _) = self.backend.large.try_noted(addr)?;
        Some(Live::Large(block, size))
    }

    /// The common half of [`HardenedRef::resize`]: a live slot in the first window grows by little and has room for it. False
    /// if nothing was done, which includes every misuse. Takes no lock, and no heap knows of it.
    #[inline(always)]
    pub fn grow_fast(self, local: &ThreadCache, (addr, size): (usize, usize)) -> bool {
        let fixed = self.fixed();
        let Mitigations { zero, canary, .. } = fixed.mitigations;
        let Some(found) = self.live_fast(addr, usize::MAX) else {
            return false;
        };
        let (old, bytes) = (found.size, found.bytes);
        let by = size.wrapping_sub(old);
        if by == 0 || by > FEW || size + fixed.behind > bytes || self.ends_at_guard(size) {
            return false;
        }
        if canary {
            // SAFETY: the block is live, and its slot has room for the canary behind what it is to have.
            unsafe {
                if bytes::broken_seal(addr, old, fixed.secret).is_some() {
                    return false;
                }
                bytes::unseal(addr, old);
                if zero && !bytes::are_clear_before(addr + size + CANARY, by) {
                    bytes::seal(addr, old, fixed.secret);
                    return false;
                }
                bytes::seal(addr, size, fixed.secret);
            }
        }
        if !fits_as_well(found.slab, size + fixed.behind) {
            found.slab.set_flags(SIZE_AMBIGUOUS);
        }
        // A thread that has no heap yet, or any more, is not counted.
        let racing = self.backend.heaps.given.load(Relaxed) > 1 || local.hardened.get() == 0;
        // Where two threads resize one block, its end is where one of them put it. The other one's is then found changed.
        sizes::change_at(found.noted, (bytes - old, bytes - size), racing)
    }

    /// Makes a live block `size` bytes long where it is. False if it has to move: it shrinks and changes its class or its
    /// number of pages, or has no room to grow. A canary is looked at in any case.
    pub fn resize(self, live: Live, addr: usize, size: usize) -> Result<bool, Misuse> {
        let call = Call::Realloc;
        let need = self.need(size);
        let (old, room, stays) = match live {
            Live::Empty => return Ok(size == 0),
            Live::Large(block, old) => {
                self.look_at_large_seal(block, old, call)?;
                let same = need > SPAN_MAX && need.div_ceil(PAGE) == block.bytes / PAGE;
                (old, block.bytes, same)
            }
            Live::Slot(slab, slot, old) => {
                if self.fixed().mitigations.canary {
                    self.look_at_seal(slab, slot, old, call)?;
                }
                let fits = fits_as_well(slab, need);
                let grows = size > old && need <= slab.size() && self.may_have_room(size);
                if grows && !fits {
                    slab.set_flags(SIZE_AMBIGUOUS); // Its class no longer tells what was asked for.
                }
                (old, slab.size(), size != 0 && (fits || grows))
            }
        };
        if !stays {
            return Ok(false);
        }
        self.look_at_growth(live, addr, (old, size), room)?;
        self.move_end(addr, room, old, size);
        match live {
            Live::Slot(slab, slot, _) if !self.sizes().change(slab, slot, old, size) => {
                return Err(dead(slab, slot));
            }
            Live::Large(..) => self.note_large(addr, size),
            _ => {}
        }
        Ok(true)
    }

    /// Makes a live block that is to shrink `size` bytes long where it is, or as near to that as can be noted.
    pub fn keep(self, (live, addr): (Live, usize), size: usize) -> Result<(), Misuse> {
        match live {
            Live::Empty => {}
            Live::Large(block, old) => {
                let size = size.max(block.bytes.saturating_sub(UNUSED_MAX)).min(old);
                self.move_end(addr, block.bytes, old, size);
                self.note_large(addr, size);
            }
            Live::Slot(slab, slot, old) => {
                let least = slab.size().saturating_sub(sizes::UNUSED_MAX);
                let size = size.max(1).max(least).min(old);
                if !fits_as_well(slab, self.need(size)) {
                    slab.set_flags(SIZE_AMBIGUOUS); // Its class no longer tells what was asked for.
                }
                self.move_end(addr, slab.size(), old, size);
                if !self.sizes().change(slab, slot, old, size) {
                    return Err(dead(slab, slot));
                }
            }
        }
        Ok(())
    }

    /// Notes the new size of a large block that stays where it is.
    fn note_large(self, addr: usize, size: usize) {
        if let Some((_, _, guard_pages)) = self.backend.large.noted(addr) {
            self.backend.large.note(addr, size, guard_pages);
        }
    }

    /// What a report can add to a misuse: what lies at the address, when it was freed, and who is asking. `sampled_ago`
    /// tells when a sampled block was freed.
    pub fn explain(self, misuse: &Misuse, sampled_ago: Option<Ago>) -> Line {
        let mut line = Line::new();
        let addr = misuse.address();
        let thread = self.backend.os.thread_id() as u32 as usize;
        line.text("  in thread ").decimal(thread);
        let now = self.backend.os.clock();
        let held_ago = || self.held.freed_ago(addr, self.backend.meta.os_page(), now);
        if let Some(ago) = sampled_ago.or_else(held_ago) {
            ago.tell(&mut line);
        }
        let slab = self.backend.pages.find(addr).map(|(_, slab)| slab);
        if let Some(slab) = slab.filter(|slab| slab.id().is_some() && slab.size() != 0) {
            let offset = addr.wrapping_sub(slab.base());
            let index = (offset / slab.size()).min(slab.slots().saturating_sub(1));
            let (slot, size) = (Slot::new(index), slab.size());
            // A free that finds an overflow has taken note of the block's end already.
            let overflowed = match *misuse {
                Misuse::Overflow { asked, .. } => Some(asked),
                _ => None,
            };
            match self.sizes().size(slab, slot).or(overflowed) {
                Some(asked) => line.text("; a live block of ").decimal(asked),
                None if slab.is_free(slot) => line.text("; a free block of ").decimal(size),
                None => line.text("; a freed block of ").decimal(size),
            }
            .text(" bytes");
            if slab.slots() > 1 {
                line.text(", slot ")
                    .decimal(index)
                    .text(" of a ")
                    .decimal(size)
                    .text("-byte slab");
            }
            let number = self.sizes().number(slab) as u32;
            let start = self.fixed.threads;
            if let Some(ago) = self.threads.freed_ago(start, number, index as u32, now) {
                ago.tell(&mut line);
            }
            let rest = (index + 1) * size - offset.min((index + 1) * size);
            line.text("; the next slot begins ")
                .decimal(rest)
                .text(" bytes on");
        }
        line.text("\n");
        line
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

/// Puts the slot that a refill took back into its cache.
fn put_back(cache: &SlotCache, slot: *mut u8) {
    let slot = bit_of((slot as usize - cache.base.get() as usize) / cache.size.get());
    // SAFETY: the word that the slot came from, in a header that is never unmapped.
    xor_owned(unsafe { &*cache.word.get() }, slot);
    cache.bits.set(cache.bits.get() | slot);
}

/// The class of the slot for a block that needs `need` bytes at a multiple of `align`. `None` means it needs a span.
fn slot_class(need: usize, align: usize) -> Option<ClassId> {
    match align {
        _ if need > SLOT_MAX || align > PAGE => None,
        0..=8 => Some(class_of(need)),
        9..=MIN_ALIGN => Some(class_of(need.max(MIN_ALIGN))),
        _ => aligned_class(need, align),
    }
}

/// Whether a block that needs `need` bytes would be given a slot of `slab`'s kind.
fn fits_as_well(slab: SlabPtr, need: usize) -> bool {
    if slab.is_span() {
        let span = need > SLOT_MAX && need <= SPAN_MAX;
        let pages = pages_for(need);
        return span && (pages == slab.pages() || shared_pages(pages) == slab.pages());
    }
    need <= SLOT_MAX && class_of(need) == slab.class()
}

/// A free slot was written to at its byte `at`.
fn written(slab: SlabPtr, slot: Slot, at: usize) -> Misuse {
    Misuse::Written {
        addr: slab.address(slot),
        slot,
        size: slab.size(),
        at,
    }
}
