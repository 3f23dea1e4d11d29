//! malloc: chooses a slot, looks whether it is still zero, and notes how many bytes were asked for.
//!
//! The common half does what most calls need, and calls nothing. The other half does all of it, and tells what is wrong.
//! Does not know what becomes of a block (see `free` and `resize`), nor how a large one is made (see `apart`).

use super::bytes::{self, FEW};
use super::forms::Known;
use super::mitigations::Mitigations;
use super::room::{fits_as_well, slot_class, SLOT_MAX};
use super::sizes::Sizes;
use super::thread::Thread;
use super::HardenedRef;
use crate::arch::prefetch;
use crate::bitmap;
use crate::class::{class_of, shared_pages, ClassId};
use crate::heap::{Heap, NextWord, LARGE};
use crate::large::Fresh;
use crate::misuse::Misuse;
use crate::os::Os;
use crate::slab::{SlabPtr, SIZE_AMBIGUOUS};
use crate::sync::xor_owned;
use crate::tls::SlotCache;
use crate::units::{bit_of, pages_for, Slot, MIN_ALIGN, PAGE, REQUEST_MAX, SPAN_MAX};
use core::hint::assert_unchecked;

/// Bytes of a line of the cache.
const LINE: usize = 64;

impl<O: Os> HardenedRef<'_, O> {
    /// The common half of [`HardenedRef::malloc`]: a slot of the cached word, with `MANY` or of the next one. `None` if
    /// more is to be done or something is wrong, which the other half then finds again. Also `None` for more than
    /// `FEW` bytes, unless `MANY`. Without that it calls nothing: some fifty instructions, and a load for every
    /// sixteen bytes. `known` is the class of `size` bytes, where that is known already.
    #[inline(always)]
    pub fn malloc_fast<const MANY: bool, F: Known>(
        self,
        thread: &Thread,
        size: usize,
        known: Option<ClassId>,
    ) -> Option<usize> {
        let fixed = self.fixed();
        let Mitigations {
            zero,
            canary,
            random,
            guard,
            ..
        } = self.mitigations::<F>();
        let most = if MANY { SLOT_MAX } else { FEW };
        let known = known.filter(|_| self.behind::<F>() == 0);
        // Of a class that is known it is asked below whether it is one of those.
        if known.is_none() && size > most || guard && size == 0 {
            return None;
        }
        let need = size + self.behind::<F>();
        let is_too_long = known.is_none() && need > most;
        if is_too_long || random && !thread.random.is_ready_for(MANY) {
            return None;
        }
        let class = known.unwrap_or_else(|| class_of(need));
        if !MANY && known.is_none() {
            // SAFETY: those are the classes whose caches lie in the block: what is needed is at most `FEW`.
            unsafe { assert_unchecked(class.index() < thread.local.caches.len()) };
        }
        let cache = match thread.local.caches.get(class.index()) {
            Some(cache) => cache,
            None if MANY => thread.heap()?.upper_cache(class),
            None => return None,
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
        // In order it is the lowest one, for which there are shorter instructions.
        let rest = match random {
            true => bits & !bit_of(slot),
            false => bits & (bits - 1),
        };
        cache.bits.set(rest);
        // SAFETY: a cache with bits has the word that they came from, in a header that is never unmapped, and `notes`
        // was set with it. The slot has room for the canary: `need`.
        unsafe {
            xor_owned(&*cache.word.get(), bits ^ rest);
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
}

/// Puts the slot that a refill took back into its cache.
fn put_back(cache: &SlotCache, slot: *mut u8) {
    let slot = bit_of((slot as usize - cache.base.get() as usize) / cache.size.get());
    // SAFETY: the word that the slot came from, in a header that is never unmapped.
    xor_owned(unsafe { &*cache.word.get() }, slot);
    cache.bits.set(cache.bits.get() | slot);
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
