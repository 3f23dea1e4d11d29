//! Which allocations the heap profile takes a sample of: none is chosen on a fast path.
//!
//! ```text
//!   bytes handed out   |--- 40 slots of a word ---|-- a span --|--- 12 slots ---|...
//!   samples                          ^ drawn: exponential distances, the profile's interval on average
//!   checked out        |-------------|            the word is cut there, and the class is due:
//!                                    |            its next refill hands out the sampled slot, alone
//! ```
//!
//! A heap counts the bytes that it hands out. Where it is profiled the count begins so far below the top bit as the next
//! sample is away: its sign tells that the sample is passed, and a refill looks at the sign of a sum that it makes anyway.
//! Where the sample falls among the slots of a word, only those before it are cached. The slow path then comes exactly at
//! the sampled allocation, with the stack of who asked for it. A class that is due is so on its own: the next refill of
//! any class would have another stack.
//!
//! A block of `size` bytes is sampled with a probability of 1 - exp(-size / interval).

use super::{Backend, Heap, HeapRef};
use crate::class::{slot_at, ClassId};
use crate::large::Block;
use crate::os::Os;
use crate::profile::{Place, Taken};
use crate::slab::{SlabPtr, DUE, FIRST_FILL, SAMPLED, UNTOUCHED};
use crate::sync::{pass_owned, Ordering::Relaxed};
use crate::tls::SlotCache;
use crate::units::Slot;
use core::cell::Cell;
use core::ptr::NonNull;

/// The count of a profiled heap at which the next sample is passed.
const PASSED: u64 = 1 << 63;
/// Words that have a bit for each class.
const DUE_WORDS: usize = crate::class::CLASSES.div_ceil(64);

/// A heap's part in the profile. All zero: none.
#[derive(Default)]
pub(super) struct Profiling {
    /// The interval that distances are drawn with, in bytes. 0 means no sample is taken.
    interval: Cell<u64>,
    /// `Heap::bytes_allocated` counts from here.
    zero: Cell<u64>,
    /// State of the generator. 0 means to be seeded.
    random: Cell<u64>,
    /// A bit for each class whose next slot is a sample.
    due: [Cell<u64>; DUE_WORDS],
}

impl Profiling {
    fn is_due(&self, class: ClassId) -> bool {
        let class = class.index();
        self.due[class / 64].get() >> (class % 64) & 1 != 0
    }

    fn set_due(&self, class: ClassId, due: bool) {
        let class = class.index();
        let word = &self.due[class / 64];
        let others = word.get() & !(1 << (class % 64));
        word.set(others | u64::from(due) << (class % 64));
    }

    /// What was cut off is cached no more.
    pub(super) fn forget_due(&self) {
        self.due.iter().for_each(|word| word.set(0));
    }

    /// The distance to the next sample.
    fn draw(&self) -> u64 {
        // xorshift64*: S. Vigna, "An experimental exploration of Marsaglia's xorshift generators" (2016).
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        let random = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        exponential(random, self.interval.get()).min(PASSED / 2)
    }
}

/// An exponentially distributed number, `mean` on average, of an evenly distributed `random` one: -ln(random / 2^64)
/// times `mean`, rounded down. In integers: a sum of floating-point numbers would raise the program's exceptions.
fn exponential(random: u64, mean: u64) -> u64 {
    /// ln(2) times 2^32.
    const LN_2: u128 = 2_977_044_472;
    let random = random | 1;
    let shift = random.leading_zeros();
    // The logarithm to base 2 of a number from 1 to 2, bit by bit: squared, it reaches 2 or not.
    let mut mantissa = random << shift;
    let mut fraction = 0u64;
    for _ in 0..32 {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let bit = (square >> 127) as u64;
        mantissa = (square >> (63 + bit)) as u64;
        fraction = fraction << 1 | bit;
    }
    // -log2(random / 2^64), times 2^32.
    let bits = ((u64::from(shift) + 1) << 32) - fraction;
    let product = u128::from(bits) * LN_2 * u128::from(mean);
    u64::try_from(product >> 64).unwrap_or(u64::MAX)
}

/// The lowest `count` of the set `bits`.
fn lowest(bits: u64, count: u64) -> u64 {
    let mut rest = bits;
    for _ in 0..count {
        rest &= rest.wrapping_sub(1);
    }
    bits & !rest
}

/// Bytes of the slots `bits` of `slab`.
#[inline(always)]
fn bytes_of(slab: SlabPtr, bits: u64) -> u64 {
    u64::from(bits.count_ones()) * slab.size() as u64
}

impl Heap {
    /// Bytes handed out that the counters were not told of.
    #[inline(always)]
    pub(super) fn untold(&self) -> u64 {
        self.bytes_allocated
            .get()
            .wrapping_sub(self.profiling.zero.get())
    }

    /// The count is `count` from now on, and `untold` bytes of it are.
    fn begin_count(&self, count: u64, untold: u64) {
        self.bytes_allocated.set(count);
        self.profiling.zero.set(count.wrapping_sub(untold));
    }

    /// The next sample is as far away as is drawn. The heap is profiled.
    fn draw(&self) {
        self.begin_count(PASSED - 1 - self.profiling.draw(), self.untold());
    }

    /// Counts free slots of a word, of `bytes` bytes together, as handed out. False where more is to be done: then
    /// [`HeapRef::cache_warily`] goes on.
    #[inline(always)]
    pub(super) fn count(&self, slab: SlabPtr, bytes: u64) -> bool {
        !pass_owned(&self.bytes_allocated, bytes) && slab.is_plain()
    }

    /// Counts `bytes` bytes as handed out. False, and nothing was counted, where the next sample is passed.
    #[inline(always)]
    pub(super) fn count_plain(&self, bytes: u64) -> bool {
        let passed = pass_owned(&self.bytes_allocated, bytes);
        if passed {
            let count = &self.bytes_allocated;
            count.set(count.get().wrapping_sub(bytes));
        }
        !passed
    }

    /// In a fork child: other blocks are sampled than in the parent.
    pub(super) fn profile_anew(&self) {
        self.profiling.random.set(0);
        self.end_profile();
    }

    fn end_profile(&self) {
        let untold = self.untold();
        self.profiling.interval.set(0);
        self.profiling.forget_due();
        self.begin_count(untold, untold);
    }
}

impl<O: Os> Backend<O> {
    /// Takes a sample that a silent heap owed, of a block in `slab` which nobody knows of yet.
    pub fn take_owed_sample(&self, slab: SlabPtr, sample: &Taken) {
        self.profile.take(self.supply(), sample);
        // Whoever ended another sample of the slab's before may have found none.
        slab.set_flags(SAMPLED);
    }
}

impl<O: Os> HeapRef<'_, O> {
    /// As [`Heap::untold`]: from now on they were told.
    pub(super) fn take_untold(self) -> u64 {
        let bytes = self.untold();
        match self.profiling.interval.get() {
            0 => self.begin_count(0, 0),
            _ => self.profiling.zero.set(self.bytes_allocated.get()),
        }
        bytes
    }

    pub(super) fn is_profiled(self) -> bool {
        self.profiling.interval.get() != 0
    }

    /// Bytes to hand out before the next sample. The heap is profiled.
    fn left(self) -> u64 {
        (PASSED - 1).saturating_sub(self.bytes_allocated.get())
    }

    /// Counts `bytes` as handed out that are not on the way to the next sample.
    fn count_aside(self, bytes: u64) {
        let zero = &self.profiling.zero;
        zero.set(zero.get().wrapping_sub(bytes));
    }

    /// Caches the free slots `bits` of a word, which were counted, and takes the first. `None`, and they are not handed
    /// out, where the long way is to be taken: the next sample is among them, or one that is to end.
    #[cold]
    #[inline(never)]
    pub(super) fn cache_warily(
        self,
        slab: SlabPtr,
        cache: &SlotCache,
        word: usize,
        bits: u64,
    ) -> Option<NonNull<u8>> {
        let bytes = bytes_of(slab, bits);
        let before = self.bytes_allocated.get().wrapping_sub(bytes);
        self.bytes_allocated.set(before);
        let is_sample = self.profiling.is_due(slab.class()) || self.left() < bytes;
        if self.is_profiled() && is_sample
            || slab.has(SAMPLED)
                && self
                    .backend
                    .profile
                    .holds(&self.backend.meta, slab, word, bits)
        {
            return None;
        }
        self.bytes_allocated.set(before + bytes);
        self.make_plain(slab, word);
        self.count_slots(u64::from(bits.count_ones()));
        self.classes[slab.class().index()].cursor.set(word as u8);
        Some(self.fill_cache(slab, cache, word, bits, slab.size()))
    }

    /// The slots of `word` of `slab` are about to be cached, whose class is not due.
    fn make_plain(self, slab: SlabPtr, word: usize) {
        if slab.has(UNTOUCHED | FIRST_FILL) {
            let untouched = slab.has(UNTOUCHED);
            slab.clear_flags(UNTOUCHED | FIRST_FILL);
            slab.set_flags(if untouched { FIRST_FILL } else { 0 });
        }
        if slab.has(DUE) {
            slab.clear_flags(DUE);
        }
        if slab.discarded.load(Relaxed) != 0 {
            self.refill_hole(slab, word);
        }
    }

    /// Counts as handed out those of the free slots `bits` of a word that are to be cached, and takes a sample of the
    /// first one if it is its turn. By the long way, since it may wait for a lock.
    pub(super) fn pass_samples(self, slab: SlabPtr, word: usize, bits: u64) -> u64 {
        let kept = self.cut(slab, bits);
        if slab.has(SAMPLED) {
            self.end_samples(slab, word, kept.bits);
        }
        self.make_plain(slab, word);
        if kept.is_sample {
            self.sample_slot(slab, Slot::in_word(word, kept.bits.trailing_zeros()));
        }
        if kept.bits != bits && !kept.is_sample {
            slab.set_flags(DUE);
        }
        kept.bits
    }

    /// Those of the free slots `bits` that lie before the next sample, or the sample alone where it comes first. They are
    /// counted.
    fn cut(self, slab: SlabPtr, bits: u64) -> Kept {
        let (this, class, size) = (&self.profiling, slab.class(), slab.size() as u64);
        let bytes = bytes_of(slab, bits);
        let is_due = this.is_due(class);
        if !self.is_profiled() || !is_due && self.left() >= bytes {
            self.bytes_allocated
                .set(self.bytes_allocated.get().wrapping_add(bytes));
            return Kept {
                bits,
                is_sample: false,
            };
        }
        if is_due {
            // Its bytes were on the way when it was cut off.
            this.set_due(class, false);
            self.count_aside(size);
            return Kept {
                bits: lowest(bits, 1),
                is_sample: true,
            };
        }
        let before = self.left() / size;
        self.draw();
        self.count_aside(before.max(1) * size);
        this.set_due(class, before != 0);
        Kept {
            bits: lowest(bits, before.max(1)),
            is_sample: before == 0,
        }
    }

    /// A slab whose class is due becomes the active one: its refill comes by the long way.
    #[inline(always)]
    pub(super) fn remind(self, slab: SlabPtr) {
        if self.is_profiled() && self.profiling.is_due(slab.class()) {
            slab.set_flags(DUE);
        }
    }

    /// Samples among the slots `bits` of `word` end, since they are handed out again.
    fn end_samples(self, slab: SlabPtr, word: usize, bits: u64) {
        self.backend
            .profile
            .end(&self.backend.meta, slab, word, bits);
        let holds_any = || self.backend.profile.holds_any(&self.backend.meta, slab);
        if !holds_any() {
            slab.clear_flags(SAMPLED);
            // A sample that was owed may have been taken meanwhile.
            if holds_any() {
                slab.set_flags(SAMPLED);
            }
        }
    }

    fn sample_slot(self, slab: SlabPtr, slot: Slot) {
        slab.set_flags(SAMPLED);
        if self.is_silent() {
            return self.owe_sample();
        }
        let sample = self.sample_of(
            Place::Slot(slab.id(), slot),
            slab.address(slot),
            slab.size(),
        );
        self.backend.profile.take(self.backend.supply(), &sample);
    }

    /// The sample that the slot `address` of `slab` is, which the heap owes: for [`Backend::take_owed_sample`].
    pub fn owed_sample(self, slab: SlabPtr, address: usize) -> Taken {
        let (slot, _) = slot_at(address - slab.base(), slab.recip.load(Relaxed));
        self.sample_of(Place::Slot(slab.id(), slot), address, slab.size())
    }

    /// Whether the profile lets a free span be taken by the short way.
    #[inline]
    pub(super) fn may_take_span(self, slab: SlabPtr) -> bool {
        !slab.has(SAMPLED) && (!self.is_profiled() || self.left() >= slab.size() as u64)
    }

    /// A span was taken, and counted: it may be a sample. By the long way.
    #[inline]
    pub(super) fn profile_span(self, slab: SlabPtr) {
        if slab.has(SAMPLED) {
            self.end_samples(slab, 0, 1);
        }
        if self.is_profiled() && self.bytes_allocated.get() >= PASSED {
            self.draw();
            self.sample_slot(slab, Slot::FIRST);
        }
    }

    /// A span grew where it is: that is one more allocation.
    pub fn profile_grown(self, slab: SlabPtr) {
        if self.is_profiled() {
            self.pass(slab.size() as u64);
        }
        self.profile_span(slab);
    }

    /// Whether the profile is to be told of a large block.
    #[inline]
    pub fn may_profile_large(self) -> bool {
        self.is_profiled() || !self.backend.profile.is_idle(&self.backend.meta)
    }

    /// A large block was mapped, or grew: it may be a sample. With no lock held.
    pub fn profile_large(self, block: Block) {
        self.heed_profile();
        self.backend
            .profile
            .end_large(&self.backend.meta, block.address);
        if !self.is_profiled() {
            return;
        }
        self.pass(block.bytes as u64);
        if self.bytes_allocated.get() >= PASSED {
            self.draw();
            let sample = self.sample_of(Place::Large, block.address, block.bytes);
            self.backend.profile.take(self.backend.supply(), &sample);
        }
    }

    /// Goes `bytes` bytes on the way to the next sample that are counted elsewhere.
    fn pass(self, bytes: u64) {
        let untold = self.untold();
        self.begin_count(self.bytes_allocated.get().saturating_add(bytes), untold);
    }

    fn sample_of(self, place: Place, address: usize, size: usize) -> Taken {
        Taken {
            place,
            address,
            size,
            interval: self.profiling.interval.get(),
            owner: self.me(),
        }
    }

    /// Looks whether the profile was begun, or ended, or has another interval.
    #[inline]
    pub(super) fn heed_profile(self) {
        let interval = self.backend.profile.interval(&self.backend.meta);
        if interval != self.profiling.interval.get() {
            self.change_interval(interval);
        }
    }

    #[cold]
    fn change_interval(self, interval: u64) {
        if interval == 0 {
            return self.end_profile();
        }
        let this = &self.profiling;
        if this.random.get() == 0 {
            let random = match self.is_silent() {
                true => self.own_word(),
                false => self.backend.os.random(),
            };
            this.random.set(random | 1);
        }
        this.interval.set(interval);
        // Distances have no memory: a sample that was due was not handed out yet, and is drawn for anew.
        this.forget_due();
        self.draw();
    }
}

/// What is cached of a word.
struct Kept {
    bits: u64,
    /// Whether the first slot is a sample.
    is_sample: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_lowest_bits_are_taken_from_the_right() {
        assert_eq!(lowest(0b1011_0100, 0), 0);
        assert_eq!(lowest(0b1011_0100, 2), 0b1_0100);
        assert_eq!(lowest(0b1011_0100, 64), 0b1011_0100);
        assert_eq!(lowest(u64::MAX, 63), u64::MAX >> 1);
    }

    #[test]
    fn distances_are_minus_the_logarithm_times_the_mean() {
        for random in [
            1,
            3,
            1 << 20 | 1,
            0x0123_4567_89ab_cdef,
            1 << 63 | 1,
            u64::MAX,
        ] {
            for mean in [1u64, 1000, 512 << 10, 1 << 40] {
                let exact = -(random as f64 / 2f64.powi(64)).ln() * mean as f64;
                let found = exponential(random, mean) as f64;
                let near = (found - exact).abs() <= 1.0 + exact * 1e-8 + mean as f64 * 1e-8;
                assert!(near, "{random:x} {mean}: {found}, not {exact}");
            }
        }
    }

    #[test]
    fn distances_have_the_mean_and_the_spread_that_they_should() {
        let this = Profiling::default();
        this.random.set(0x9e37_79b9_7f4a_7c15);
        this.interval.set(1 << 20);
        let draws: Vec<f64> = (0..100_000)
            .map(|_| this.draw() as f64 / (1 << 20) as f64)
            .collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let longer = draws.iter().filter(|&&draw| draw > 2.0).count() as f64 / draws.len() as f64;
        assert!((mean - 1.0).abs() < 0.016, "{mean}");
        assert!((longer - (-2f64).exp()).abs() < 0.006, "{longer}");
    }
}
