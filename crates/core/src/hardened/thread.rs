//! What hardened mode keeps of a thread: where its slots are cached, its random numbers, and the blocks that it freed
//! and that no allocation may have yet.
//!
//! ```text
//!   free --> | random stage: a random one leaves for each that comes | --> | ring: first in, first out | --> bitmap
//! ```
//!
//! The ring keeps the order of freeing. The random stage, there where slots are chosen at random, hides how many
//! allocations it takes until a block comes back.

use super::ago::Ago;
use super::random::{any_bit_scattered, Random};
use super::Known;
use crate::bitmap::any_bit;
use crate::class::{ClassId, CLASSES};
use crate::heap::{heap_of, Heap};
use crate::meta::{Area, Supply, THREAD_BYTES};
use crate::mutex::{self, Lock, Mutex};
use crate::os::Os;
use crate::sync::{AtomicU16, AtomicU32, Ordering::Relaxed};
use crate::tls::ThreadCache;
use crate::units::{Slot, SLOTS, SPAN_MAX};
use crate::wide::Wide;
use core::cell::Cell;
use core::sync::atomic::{compiler_fence, Ordering::SeqCst};
use static_assertions::const_assert;

/// Blocks in the random part of a quarantine.
const RANDOM_STAGE: usize = 256;
/// The most blocks in the ordered part.
const RING: usize = 4096;

/// A part of a slab's slots, one of so many, is few to choose among, but more than so many slots are not. And how much
/// more often there were few than enough before more are carved.
const FEW_PART: usize = 4;
const FEW_MOST: usize = 10;
const PATIENCE: u8 = 64;

/// How many blocks ahead a header is asked for.
const AHEAD: u32 = 8;
/// Blocks leave a full quarantine in batches: a part of its bytes, one of so many, may wait beyond them.
const BATCHES: usize = 16;

/// A freed block: the number of its header, and of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Number of the slab's header.
    pub slab: u32,
    /// Number of the slot.
    pub slot: u32,
    /// The bytes that it is charged for: see [`charge`].
    pub charged: u32,
}

/// Bits of a packed [`Freed`]: of what it is charged for, of the span of time in which it was freed, and of the slot's
/// number. That is the last one in a half of the word, and the slab's has the other half, so neither has to be masked.
const CHARGE_BITS: u32 = 18;
const TIME_BITS: u32 = 5;
const TIME_SHIFT: u32 = CHARGE_BITS;
const SLOT_SHIFT: u32 = TIME_SHIFT + TIME_BITS;
const SLAB_SHIFT: u32 = u32::BITS;
/// Spans of time that are distinguished in a quarantine.
const TIMES: usize = 1 << TIME_BITS;
/// How long such a span is at least, in milliseconds.
const TIME_MS: u64 = 100;
/// Blocks of the ring that are looked at at a time.
const LOOKED_AT: u32 = 64;

impl Freed {
    /// The slot.
    #[inline(always)]
    pub fn slot(self) -> Slot {
        Slot::new(self.slot as usize)
    }

    fn pack(self) -> u64 {
        u64::from(self.slab) << SLAB_SHIFT
            | u64::from(self.slot) << SLOT_SHIFT
            | u64::from(self.charged)
    }

    fn unpack(word: u64) -> Freed {
        Freed {
            slab: (word >> SLAB_SHIFT) as u32,
            slot: word as u32 >> SLOT_SHIFT,
            charged: word as u32 % (1 << CHARGE_BITS),
        }
    }
}

/// The span of time that a packed [`Freed`] was freed in.
fn time_of(word: u64) -> usize {
    (word >> TIME_SHIFT) as usize % TIMES
}

/// A number of a thread's that another one may be changing.
fn seen<T: Copy>(cell: &Cell<T>) -> T {
    // SAFETY: the cell is there, and what it holds is a number, of which any bits are valid.
    unsafe { core::ptr::read_volatile(cell.as_ptr()) }
}

/// Freed blocks that nobody may have yet.
#[repr(C)]
pub struct Quarantine {
    /// Blocks in the random stage.
    drawn: Cell<u32>,
    /// Place of the ring's oldest block.
    first: Cell<u32>,
    /// Place after the ring's youngest block.
    end: Cell<u32>,
    /// Non-zero once all was forgotten.
    forgotten: Cell<u32>,
    /// What all blocks are charged for: see [`charge`].
    bytes: Cell<usize>,
    /// What the blocks in the random stage are charged for.
    random_stage_bytes: Cell<usize>,
    /// The span of time that is now, as it stands in a packed block.
    time: Cell<u64>,
    /// Place of the ring up to which no block is of the span of time that is to begin next.
    looked_at: Cell<u32>,
    random_stage: [Cell<u64>; RANDOM_STAGE],
    ring: [Cell<u64>; RING],
    /// When each span of time began, in milliseconds. The one before ended then.
    began: [Cell<u64>; TIMES],
}

/// The bytes that a block of `bytes`, [`SPAN_MAX`] at most, is charged for in a quarantine of `most` bytes, at most
/// [`MOST`]. There is a least charge, so that the number of blocks is bounded too.
#[inline(always)]
pub fn charge(bytes: usize, most: usize) -> usize {
    bytes.max(full(most) / RING + 1)
}

/// The most bytes of a quarantine: as many blocks of [`SPAN_MAX`] bytes as can wait.
pub const MOST: usize = (RING - RING / BATCHES) * SPAN_MAX;
const_assert!(SPAN_MAX < 1 << CHARGE_BITS && 2 * SLOTS <= 1 << (SLAB_SHIFT - SLOT_SHIFT));
const_assert!(full(MOST) / RING < SPAN_MAX);

/// The bytes up to which blocks may come in, in a quarantine of `most` bytes, which stay in it when a batch leaves.
#[inline(always)]
const fn full(most: usize) -> usize {
    most.saturating_add(most / BATCHES)
}

impl Quarantine {
    /// Takes a freed block in. `random`, whose numbers are to be ready, tells to draw lots, with a quarter of the
    /// `most` bytes at most: what leaves the random stage goes through the ring as well. There is room for it (see
    /// [`Quarantine::is_over`]).
    #[inline(always)]
    pub fn put(&self, freed: Freed, random: Option<&Random>, most: usize) {
        let charged = freed.charged as usize;
        self.bytes.set(self.bytes.get() + charged);
        let mut word = freed.pack() | self.time.get();
        // One of the larger blocks would fill the random stage, and the others never leave it.
        let random = random.filter(|_| charged <= most / 16);
        if let Some(random) = random {
            let drawn = self.drawn.get() as usize;
            let staged = self.random_stage_bytes.get() + charged;
            if drawn < RANDOM_STAGE && staged <= most / 4 {
                self.random_stage[drawn].set(word);
                self.random_stage_bytes.set(staged);
                self.drawn.set(drawn as u32 + 1);
                return;
            }
            let place = random.ready_byte() & (RANDOM_STAGE - 1);
            if place < drawn {
                word = self.random_stage[place].replace(word);
                let staged = staged - Freed::unpack(word).charged as usize;
                self.random_stage_bytes.set(staged);
                if staged > most / 4 {
                    self.thin_random_stage(most);
                }
            }
        }
        self.put_in_ring(word);
    }

    #[inline(always)]
    fn put_in_ring(&self, word: u64) {
        let end = self.end.get();
        self.ring[end as usize % RING].set(word);
        self.end.set(end.wrapping_add(1));
    }

    /// Smaller blocks made way for larger ones: some go on to the ring, so that it holds three quarters of the bytes.
    #[cold]
    #[inline(never)]
    fn thin_random_stage(&self, most: usize) {
        while self.random_stage_bytes.get() > most / 4 {
            let Some(drawn) = self.drawn.get().checked_sub(1) else {
                return;
            };
            self.drawn.set(drawn);
            let word = self.random_stage[drawn as usize].get();
            let charged = Freed::unpack(word).charged as usize;
            self.random_stage_bytes
                .set(self.random_stage_bytes.get() - charged);
            self.put_in_ring(word);
        }
    }

    /// Whether one that is `charged` so many bytes may come in at all, with `most` bytes in all.
    #[inline]
    pub fn can_hold(charged: usize, most: usize) -> bool {
        charged <= most
    }

    /// Whether blocks have to leave before one that is `charged` so many bytes can come in, with `most` bytes in all.
    #[inline(always)]
    pub fn is_over(&self, charged: usize, most: usize) -> bool {
        self.bytes.get() + charged > full(most)
    }

    /// Lets the ring's oldest blocks leave until one that is `charged` so many bytes makes it hold `most` bytes. So many more leave than must,
    /// since this is not to be needed for each block that comes in. Stops where `free` says that it could not free one.
    /// `free` is told of a block that will leave soon as well, whose header it may ask for ahead.
    #[inline(always)]
    pub fn thin_out(&self, charged: usize, most: usize, free: impl Fn(Freed, Freed) -> bool) {
        let goal = most.saturating_sub(charged);
        self.forgotten.set(0);
        compiler_fence(SeqCst);
        let (mut first, end, mut held) = (self.first.get(), self.end.get(), self.bytes.get());
        let at = |place: u32| Freed::unpack(self.ring[place as usize % RING].get());
        while first != end {
            let oldest = at(first);
            if held <= goal || !free(oldest, at(first.wrapping_add(AHEAD))) {
                break;
            }
            first = first.wrapping_add(1);
            held -= oldest.charged as usize;
        }
        self.first.set(first);
        self.bytes.set(held);
        compiler_fence(SeqCst);
        if self.forgotten.get() != 0 {
            self.forget();
        }
    }

    /// Takes the block out that came first.
    pub fn take(&self) -> Option<Freed> {
        let first = self.first.get();
        if first != self.end.get() {
            let freed = Freed::unpack(self.ring[first as usize % RING].get());
            self.first.set(first.wrapping_add(1));
            self.bytes.set(self.bytes.get() - freed.charged as usize);
            return Some(freed);
        }
        let drawn = self.drawn.get().checked_sub(1)?;
        self.drawn.set(drawn);
        let freed = Freed::unpack(self.random_stage[drawn as usize].get());
        let charged = freed.charged as usize;
        self.random_stage_bytes
            .set(self.random_stage_bytes.get() - charged);
        self.bytes.set(self.bytes.get() - charged);
        Some(freed)
    }

    /// Tells that it is `now`, in a slow path. Another span of time begins where the last one is long enough, and none
    /// of the blocks that wait was freed in the one whose number comes again.
    pub fn tell_time(&self, now: u64) {
        let time = time_of(self.time.get());
        if now < self.began[time].get() + TIME_MS {
            return;
        }
        let next = (time + 1) % TIMES;
        if self.none_waits_of(next) {
            self.began[next].set(now);
            self.time.set((next as u64) << TIME_SHIFT);
            self.looked_at.set(self.first.get());
        }
    }

    /// Whether no block that waits was freed in the span of time `number`, as far as is known: a part of the blocks is
    /// looked at by each call. Those that come meanwhile are of another span. A block that leaves the random stage comes
    /// last in the ring, so the ring is looked at up to its end first.
    fn none_waits_of(&self, number: usize) -> bool {
        let (first, end) = (self.first.get(), self.end.get());
        let mut at = self.looked_at.get();
        if at.wrapping_sub(first) > end.wrapping_sub(first) {
            at = first; // The block that was to be looked at has left.
        }
        let mut left = LOOKED_AT;
        while at != end && left > 0 && time_of(self.ring[at as usize % RING].get()) != number {
            at = at.wrapping_add(1);
            left -= 1;
        }
        self.looked_at.set(at);
        let stage = &self.random_stage[..self.drawn.get() as usize];
        at == end && !stage.iter().any(|word| time_of(word.get()) == number)
    }

    /// The blocks that wait, as they are packed. A report may ask while the quarantine's thread is at work.
    fn waiting(&self) -> impl Iterator<Item = u64> + '_ {
        let (first, end) = (seen(&self.first), seen(&self.end));
        let count = end.wrapping_sub(first).min(RING as u32);
        let ring = (0..count).map(move |i| seen(&self.ring[first.wrapping_add(i) as usize % RING]));
        let drawn = (seen(&self.drawn) as usize).min(RANDOM_STAGE);
        ring.chain(self.random_stage[..drawn].iter().map(seen))
    }

    /// How long ago the slot of a slab, by numbers, was freed, if it waits here.
    fn freed_ago(&self, slab: u32, slot: u32, now: u64) -> Option<Ago> {
        let is_it = |&word: &u64| {
            let freed = Freed::unpack(word);
            freed.slab == slab && freed.slot == slot
        };
        let time = time_of(self.waiting().find(is_it)?);
        let since = |time: usize| now.saturating_sub(seen(&self.began[time]));
        let ended = (time != time_of(seen(&self.time))).then(|| since((time + 1) % TIMES));
        Some(Ago {
            least: ended.unwrap_or(0),
            most: since(time),
        })
    }

    /// Forgets all, in a fork child, where the blocks were freed by a walk over all slabs: perhaps by a signal
    /// handler in the middle of [`Quarantine::thin_out`].
    pub fn forget(&self) {
        self.forgotten.set(1);
        [&self.drawn, &self.first, &self.end]
            .into_iter()
            .for_each(|count| count.set(0));
        self.bytes.set(0);
        self.random_stage_bytes.set(0);
    }
}

/// A thread in hardened mode. Type-stable, in the metadata region. All zero at first.
#[repr(C, align(128))]
pub struct Thread {
    /// The block that the thread's heap works on in place of the thread's own, whose caches stay empty.
    pub local: ThreadCache,
    /// Where the sizes of the slots in each cache are noted, for caches that have bits.
    pub notes: [Cell<*const AtomicU16>; CLASSES],
    /// The slot of each cache that is next: chosen ahead, so that its line can be asked for.
    next_slots: [Cell<u8>; CLASSES],
    /// How much more often than not there were few slots of the class to choose among.
    scarce: [Cell<u8>; CLASSES],
    /// The thread's random numbers.
    pub random: Random,
    index: Cell<u32>,
    /// Number of the next unused one, plus one.
    next: Cell<u32>,
    /// Where the words end that the thread was refused last (see `sizes`). 0 where it never was.
    refused: Cell<usize>,
    /// Freed blocks.
    pub quarantine: Quarantine,
}

const_assert!(core::mem::size_of::<Thread>() <= THREAD_BYTES);

impl Thread {
    /// The thread's heap.
    #[inline]
    pub fn heap(&self) -> Option<&Heap> {
        heap_of(&self.local)
    }

    /// Memory was refused for the words that end at `end`. Whether it was so the last time as well.
    pub fn was_refused(&self, end: usize) -> bool {
        self.refused.replace(end) == end
    }

    /// Whether memory for words was refused, which is there now.
    pub fn is_refused_no_more(&self) -> bool {
        self.refused.replace(0) != 0
    }

    /// The slot of a class's cache that is next.
    #[inline(always)]
    pub fn next_slot(&self, class: ClassId) -> usize {
        usize::from(self.next_slots[class.index()].get())
    }

    /// Chooses which of a class's `bits` is next by `random`, eight random bits, or 0 for the first.
    #[inline(always)]
    pub fn choose(&self, class: ClassId, bits: u64, random: usize) -> usize {
        let slot = any_bit(bits, random);
        self.next_slots[class.index()].set(slot as u8);
        slot
    }

    /// As [`Thread::choose`] at random, where the form of the path that asks is `F`.
    #[inline(always)]
    pub fn choose_ready<F: Known>(&self, class: ClassId, bits: u64, wide: Wide) -> usize {
        let random = self.random.ready_byte();
        if F::WIDE && wide.scatters() {
            // SAFETY: it does, as was just asked.
            let slot = unsafe { any_bit_scattered(bits, random) };
            self.next_slots[class.index()].set(slot as u8);
            return slot;
        }
        self.choose(class, bits, random)
    }

    /// Notes that `bits` of a slab of `slots` slots are there to choose among.
    #[inline(always)]
    pub fn note_choice(&self, class: ClassId, bits: u64, slots: usize) {
        let scarce = &self.scarce[class.index()];
        let few = bits.count_ones() as usize <= (slots / FEW_PART).min(FEW_MOST);
        scarce.set(match few {
            true => scarce.get().saturating_add(1),
            false => scarce.get().saturating_sub(1),
        });
    }

    /// Whether there were few slots of a class to choose among again and again.
    #[inline(always)]
    pub fn lacks_choice(&self, class: ClassId) -> bool {
        self.scarce[class.index()].get() >= PATIENCE
    }

    /// Slots of a class are to be carved: what was noted of its choices is forgotten.
    pub fn begin_choices(&self, class: ClassId) {
        self.scarce[class.index()].set(0);
    }
}

/// Bytes in which a thread's block tells where its [`Thread`] lies: less arithmetic than by a number.
const PLACE: usize = 64;
const_assert!(THREAD_BYTES.is_multiple_of(PLACE));

/// From where the places of threads are counted that lie at `start`: 0 is none of theirs.
pub fn places(start: usize) -> usize {
    start - PLACE
}

/// Where the thread of number `index` lies, as its block tells it.
fn place_of(index: u32) -> u32 {
    index * (THREAD_BYTES / PLACE) as u32 + 1
}

struct Registry {
    made: u32,
    opened: usize,
    /// Number of the first unused one, plus one.
    unused: u32,
}

/// The threads of hardened mode, given out by number.
pub struct Threads {
    registry: Mutex<Registry>,
    /// Made so far, for those who look without the lock.
    made: AtomicU32,
}

impl Threads {
    /// No threads.
    pub const fn new(locks: &mut mutex::Registry) -> Threads {
        let registry = Registry {
            made: 0,
            opened: 0,
            unused: 0,
        };
        Threads {
            registry: Mutex::new(locks, registry),
            made: AtomicU32::new(0),
        }
    }

    /// The one that a thread's block names, counted from `places` (see [`places`]). `None` means that the thread is not
    /// hardened.
    #[inline(always)]
    pub fn of(&self, places: usize, local: &ThreadCache) -> Option<&Thread> {
        let place = local.hardened.get() as usize;
        if place == 0 {
            return None;
        }
        let address = places + place * PLACE;
        // SAFETY: `take` gave the place out, so it is that of a thread, which is never unmapped, and no address is 0.
        unsafe {
            core::hint::assert_unchecked(address != 0);
            Some(&*(address as *const Thread))
        }
    }

    #[inline(always)]
    fn at(&self, start: usize, index: usize) -> &Thread {
        // SAFETY: `index` was given out, so its memory is open. Zeros are a valid thread, and the memory is never
        // unmapped.
        unsafe { &*((start + index * THREAD_BYTES) as *const Thread) }
    }

    /// One for the thread whose block is `local`. `None` if there are too many.
    pub fn take<O: Os>(
        &self,
        supply: Supply<O>,
        start: usize,
        local: &ThreadCache,
    ) -> Option<&Thread> {
        let index = self.unused(supply, start)?;
        let thread = self.at(start, index);
        thread.index.set(index as u32);
        thread.quarantine.forget();
        thread.quarantine.tell_time(supply.os.clock());
        thread
            .random
            .seed(core::array::from_fn(|_| supply.os.random()));
        local.hardened.set(place_of(index as u32));
        Some(thread)
    }

    fn unused<O: Os>(&self, supply: Supply<O>, start: usize) -> Option<usize> {
        let registry = &mut *self.registry.lock();
        if registry.unused != 0 {
            let index = registry.unused as usize - 1;
            registry.unused = self.at(start, index).next.get();
            return Some(index);
        }
        let index = registry.made as usize;
        let end = (index + 1) * THREAD_BYTES;
        if !supply
            .meta
            .open_to(supply.os, Area::Threads, &mut registry.opened, end)
        {
            return None;
        }
        registry.made += 1;
        self.made.store(registry.made, Relaxed);
        Some(index)
    }

    /// How long ago the slot of a slab, by numbers, was freed, if it waits in a quarantine. For a report: threads may be
    /// at work there, so at worst nothing is found.
    pub fn freed_ago(&self, start: usize, slab: u32, slot: u32, now: u64) -> Option<Ago> {
        let made = self.made.load(Relaxed) as usize;
        (0..made).find_map(|index| self.at(start, index).quarantine.freed_ago(slab, slot, now))
    }

    /// The one that a heap works on the `block` of. `None` means that the block is none of these.
    pub fn with_block(&self, start: usize, block: *const ThreadCache) -> Option<&Thread> {
        let offset = (block as usize).checked_sub(start + core::mem::offset_of!(Thread, local))?;
        let index = offset / THREAD_BYTES;
        let made = index < self.made.load(Relaxed) as usize;
        (made && offset.is_multiple_of(THREAD_BYTES)).then(|| self.at(start, index))
    }

    /// Takes back what a thread had that ends.
    pub fn give(&self, thread: &Thread, local: &ThreadCache) {
        local.hardened.set(0);
        self.put_away(thread);
    }

    /// Takes back what a thread had that has gone with its own block.
    pub fn put_away(&self, thread: &Thread) {
        thread.local.reset();
        let registry = &mut *self.registry.lock();
        thread.next.set(registry.unused);
        registry.unused = thread.index.get() + 1;
    }

    /// In a fork child: all but the one of `local` and those of first-class heaps are unused, and all quarantines
    /// empty.
    pub fn rebuild(&self, start: usize, local: &ThreadCache) {
        let registry = &mut *self.registry.lock();
        registry.unused = 0;
        for index in 0..registry.made {
            let thread = self.at(start, index as usize);
            thread.quarantine.forget();
            let of_arena = thread
                .heap()
                .is_some_and(|heap| !heap.arena_word().is_none());
            if place_of(index) != local.hardened.get() && !of_arena {
                thread.local.reset();
                thread.next.set(registry.unused);
                registry.unused = index + 1;
            }
        }
    }

    /// In a fork child whose first thread may be at work: all stay with whoever has them. Those that nobody had are lost,
    /// since the parent may have been giving one out.
    pub fn leave(&self) {
        self.registry.lock().unused = 0;
    }

    /// In a fork child: the random numbers of all go on otherwise than in the parent, also what was chosen ahead.
    pub fn stir(&self, start: usize, words: [u64; 4]) {
        for index in 0..self.made.load(Relaxed) as usize {
            let thread = self.at(start, index);
            thread.random.stir(words);
            let heap = thread.heap();
            for class in ClassId::all() {
                let bits = heap.map_or(0, |heap| heap.cache(class).bits.get());
                if bits != 0 {
                    thread.choose(class, bits, thread.random.byte());
                }
            }
        }
    }

    /// Shows the lock.
    pub fn each_lock(&self, visit: &mut dyn FnMut(&Lock)) {
        visit(self.registry.as_lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> std::boxed::Box<Quarantine> {
        // SAFETY: zeros in all fields are the empty quarantine, so the value is valid.
        unsafe { std::boxed::Box::new(core::mem::zeroed()) }
    }

    fn freed(n: u32) -> Freed {
        Freed {
            slab: 2 + n,
            slot: n % 512,
            charged: 64,
        }
    }

    #[test]
    fn with_lots_too_three_quarters_of_the_bytes_are_freed_before_a_block_leaves() {
        // SAFETY: zeros in all fields are a generator that was not seeded.
        let random: Random = unsafe { core::mem::zeroed() };
        let (quarantine, most) = (empty(), 256 << 10);
        random.seed([1, 2, 3, 4]);
        let (mut freed_bytes, mut at, mut left) = (0, std::vec::Vec::new(), 0);
        for n in 0..20_000_u32 {
            // Many small ones fill the random stage, then all larger ones and others between.
            let bytes = match n {
                0..5000 => 64,
                5000..8000 => 4096,
                _ => [64, 4096, 16 << 10, 512][n as usize % 4],
            };
            let charged = charge(bytes, most);
            while quarantine.is_over(charged, most) {
                let out = quarantine.take().unwrap();
                let passed = freed_bytes - at[out.slab as usize];
                left += 1;
                assert!(passed >= most / 4 * 3 - (16 << 10), "{n}: {passed} bytes");
            }
            freed_bytes += charged;
            at.push(freed_bytes);
            random.make_ready();
            let freed = Freed {
                slab: n,
                slot: 0,
                charged: charged as u32,
            };
            quarantine.put(freed, Some(&random), most);
        }
        assert!(left > 19_000);
    }

    #[test]
    fn blocks_come_out_in_the_order_in_which_they_were_freed() {
        let (quarantine, most) = (empty(), 640 * 64);
        let out = Cell::new(0);
        for n in 0..10_000 {
            if quarantine.is_over(64, most) {
                quarantine.thin_out(64, most, |oldest, _| {
                    assert_eq!(oldest, freed(out.get()));
                    out.set(out.get() + 1);
                    true
                });
            }
            quarantine.put(freed(n), None, most);
            let held = n + 1 - out.get();
            assert!(held <= 640 + 640 / BATCHES as u32 && held >= 640.min(n + 1));
        }
    }

    #[test]
    fn it_is_known_when_a_block_that_waits_was_freed() {
        let (quarantine, most) = (empty(), 640 * 64);
        quarantine.tell_time(1000);
        (0..100).for_each(|n| {
            quarantine.tell_time(1000 + 10 * u64::from(n));
            quarantine.put(freed(n), None, most);
        });
        let ago = |n: u32, now| quarantine.freed_ago(2 + n, n % 512, now);
        for n in 0..100 {
            let (exact, ago) = (990 - 10 * u64::from(n), ago(n, 1990).expect("it waits"));
            assert!(ago.least <= exact && exact <= ago.most, "{n} {ago:?}");
            assert!(ago.most - ago.least <= TIME_MS + 10, "{n} {ago:?}");
        }
        assert_eq!(ago(100, 1990), None);
        // Nothing leaves: the numbers of spans do not come again for others.
        (0..1000).for_each(|i| quarantine.tell_time(2000 + 100 * i));
        quarantine.put(freed(100), None, most);
        let (old, young) = (ago(0, 200_000).unwrap(), ago(100, 200_000).unwrap());
        assert!(
            old.least >= 198_000 && young.least == 0,
            "{old:?} {young:?}"
        );
    }

    #[test]
    fn what_is_forgotten_while_blocks_leave_stays_forgotten() {
        let (quarantine, most) = (empty(), 640 * 64);
        (0..680).for_each(|n| quarantine.put(freed(n), None, most));
        quarantine.thin_out(64, most, |oldest, _| {
            if oldest == freed(2) {
                quarantine.forget(); // as a fork child does in a signal handler
            }
            true
        });
        assert_eq!(quarantine.take(), None);
        quarantine.put(freed(7), None, most);
        assert_eq!(quarantine.take(), Some(freed(7)));
        assert_eq!((quarantine.take(), quarantine.bytes.get()), (None, 0));
    }

    #[test]
    fn the_number_of_blocks_is_bounded_too() {
        let (quarantine, most) = (empty(), MOST);
        let held = Cell::new(0);
        let charged = charge(64, most);
        for n in 0..10_000 {
            if quarantine.is_over(charged, most) {
                quarantine.thin_out(charged, most, |_, _| {
                    held.set(held.get() - 1);
                    true
                });
            }
            let freed = Freed {
                charged: charged as u32,
                ..freed(n)
            };
            quarantine.put(freed, None, most);
            held.set(held.get() + 1);
            assert!(held.get() < RING);
        }
        assert!(held.get() > RING - 2 * RING / BATCHES);
    }

    #[test]
    fn with_lots_every_block_still_comes_out_once() {
        // SAFETY: zeros in all fields are a generator that was not seeded.
        let random: Random = unsafe { core::mem::zeroed() };
        let (quarantine, most) = (empty(), 1000 * 64);
        random.seed([1, 2, 3, 4]);
        let (mut seen, mut in_order) = (std::vec![0; 5000], 0);
        let mut last = 0;
        for n in 0..5000 {
            while quarantine.is_over(64, most) {
                let out = quarantine.take().unwrap();
                seen[out.slab as usize - 2] += 1;
                in_order += usize::from(out.slab > last);
                last = out.slab;
            }
            random.make_ready();
            quarantine.put(freed(n), Some(&random), most);
        }
        while let Some(out) = quarantine.take() {
            seen[out.slab as usize - 2] += 1;
        }
        assert!(seen.iter().all(|&times| times == 1));
        assert!(in_order < 3500, "{in_order} of 4000 came in order");
        assert_eq!(
            (quarantine.bytes.get(), quarantine.random_stage_bytes.get()),
            (0, 0)
        );
    }
}
