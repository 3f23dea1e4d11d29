//! Spans: slabs of one slot, kept in bins for reuse after they were freed.
//!
//! ```text
//!   live:  Active, one a bin  |  Full                      a free of an active span is no event
//!   free:  Active             |  Binned, on its bin's list
//! ```
//!
//! One list holds all spans that a heap owns, from when it makes or claims one until it lets go of it. The bins' lists
//! go through links of their own. So a span that is taken from a bin or freed touches no header of a live one.
//!
//! The span freed last takes the place of its bin's active one, if that is live. So a program that takes and frees one
//! size uses one span and touches no list. A bin is last in, first out: the span freed last is the one whose bytes the
//! caches still hold.

use super::{remote_overlap, Heap, HeapRef, BINNED_BYTES, BINS_UP, SLABS};
use super::{TICK_EVERY, TICK_SPAN_BYTES};
use crate::class::{bin_below, bin_of, bin_pages, span_bin, span_bin_below};
use crate::class::{SPAN, SPAN_BINS, SPAN_RECIPROCAL};
use crate::counters;
use crate::misuse::Misuse;
use crate::os::Os;
use crate::slab::{Shape, SlabPtr, State, SAMPLED};
use crate::sync::{xor_owned, Ordering::Relaxed};
use crate::units::{Slot, PAGE};
use core::cell::Cell;
use core::sync::atomic::{compiler_fence, Ordering::SeqCst};

/// Whether a request for `wanted` pages may have been served by a span of `pages` pages (see
/// [`HeapRef::take_binned`]).
pub fn may_serve(pages: usize, wanted: usize) -> bool {
    let most = bin_of(wanted) + BINS_UP;
    wanted <= pages && bin_below(pages).is_none_or(|bin| bin <= most)
}

/// Whether the one slot of a span is free.
#[inline(always)]
fn is_first_free(span: SlabPtr) -> bool {
    span.first_free_word().load(Relaxed) & Slot::FIRST.bit() != 0
}

impl<O: Os> HeapRef<'_, O> {
    /// A span of at least `pages` pages, and whether it is all zero. `None` where memory has run out.
    pub fn take_span(self, pages: usize) -> Result<Option<(SlabPtr, bool)>, Misuse> {
        if self.untold() >= TICK_SPAN_BYTES {
            self.look_at_clock()?;
        }
        self.tick()?;
        let bin = bin_of(pages);
        if !self.queue.is_empty() {
            self.drain_for_request()?;
        }
        if let Some(slab) = self.find_kept(pages) {
            self.take_found(slab);
            self.profile_span(slab);
            return Ok(Some((slab, false)));
        }
        let drawn = self.backend.pages.draws_spans();
        let pages = if drawn { pages } else { bin_pages(bin) };
        let Some((slab, fresh)) = self.new_span(pages, 1) else {
            return Ok(None);
        };
        if slab.count_remote() != 0 {
            // Left by a second free of whatever was here before.
            self.record_error(remote_overlap(slab));
            slab.drop_remote();
        }
        self.begin_span(slab);
        if drawn {
            self.retire_span(slab);
        }
        self.profile_span(slab);
        Ok(Some((slab, fresh)))
    }

    #[inline(always)]
    fn activate_span(self, slab: SlabPtr, bin: usize) {
        slab.set_state(State::Active);
        self.count_no_frees(slab);
        self.active_spans[bin].set(Some(slab));
    }

    /// Takes `slab` off the lists, before the heap lets go of it or finds another place for it.
    pub(super) fn unlist_span(self, slab: SlabPtr) {
        match slab.state() {
            State::Active => self.deactivate_span(slab),
            State::Full => self.span_bytes.set(self.span_bytes.get() - slab.size()),
            State::Binned => self.unbin(slab),
            _ => return,
        }
        self.spans.unlink(slab);
        slab.set_state(State::Unlisted);
    }

    /// The common half of [`HeapRef::take_binned`]: where the heap is not profiled, one of a bin. Calls nothing.
    #[inline(always)]
    pub fn take_binned_fast(self, size: usize) -> Option<SlabPtr> {
        if !self.queue.is_empty() || self.is_profiled() || self.untold() >= TICK_SPAN_BYTES {
            return None;
        }
        let bin = self.fitting_bin(span_bin(size))?;
        let slab = self.bins.get(bin)?.first(self.table())?;
        (!slab.has(SAMPLED)).then(|| self.take_first_of(bin, slab))
    }

    /// The common half of [`HeapRef::take_span`], where the active span for `size` bytes is not to be had: one that is
    /// kept, unless other threads' frees wait to be collected, or the profile is to take a sample. Some fifty
    /// instructions.
    #[inline(always)]
    pub fn take_binned(self, size: usize) -> Option<SlabPtr> {
        if !self.queue.is_empty() || self.untold() >= TICK_SPAN_BYTES {
            return None;
        }
        let bin = span_bin(size);
        // In a profiled heap nobody has looked at the active one yet.
        let active = self.is_profiled().then(|| self.free_active_span(bin));
        let fitting = self.fitting_bin(bin);
        let (None | Some(None), Some(bin)) = (active, fitting) else {
            let slab = self.active_span_from(bin)?;
            return self.may_take_span(slab).then(|| {
                self.take_active(slab);
                slab
            });
        };
        let slab = self.bins.get(bin)?.first(self.table())?;
        self.may_take_span(slab)
            .then(|| self.take_first_of(bin, slab))
    }

    /// Takes `slab`, the first span of `bin`.
    #[inline(always)]
    fn take_first_of(self, bin: usize, slab: SlabPtr) -> SlabPtr {
        let kept = &self.bins[bin];
        if kept.take_first(self.table(), slab).is_none() {
            self.binned.set(self.binned.get() & !(1 << bin));
        }
        let size = slab.size();
        self.count_unbinned(slab, size);
        self.begin_span_in(slab, Some(bin), size);
        slab
    }

    /// The smallest bin, from `bin` to a few above, in which there is a span. The fitting bin comes first: a span that
    /// served smaller requests would be missing where it belongs.
    #[inline(always)]
    fn fitting_bin(self, bin: usize) -> Option<usize> {
        let fitting = self.binned.get() >> bin & ((2 << BINS_UP) - 1);
        (fitting != 0).then(|| bin + fitting.trailing_zeros() as usize)
    }

    /// A free active span of `bin`, or of one of those a few above.
    #[inline(never)]
    fn active_span_from(self, bin: usize) -> Option<SlabPtr> {
        let mut bins = bin..(bin + BINS_UP + 1).min(SPAN_BINS);
        bins.find_map(|bin| self.free_active_span(bin))
    }

    /// The active span of `bin`, if it is free.
    #[inline(always)]
    fn free_active_span(self, bin: usize) -> Option<SlabPtr> {
        let slab = self.active_spans[bin].get()?;
        (is_first_free(slab) && slab.first_remote_word().load(Relaxed) == 0).then_some(slab)
    }

    /// A free span of at least `pages` pages that is kept.
    fn find_kept(self, pages: usize) -> Option<SlabPtr> {
        let bin = bin_of(pages);
        if let Some(slab) = self.free_active_span(bin) {
            return Some(slab);
        }
        match self.fitting_bin(bin) {
            Some(bin) => self.bins[bin].first(self.table()),
            None => self.active_span_from(bin),
        }
    }

    /// Takes a span that [`HeapRef::find_kept`] found.
    fn take_found(self, slab: SlabPtr) {
        if slab.state() == State::Active {
            return self.take_active(slab);
        }
        self.unbin(slab);
        self.begin_span(slab);
    }

    /// Takes an active span, which is free.
    #[inline(always)]
    fn take_active(self, slab: SlabPtr) {
        xor_owned(slab.first_free_word(), Slot::FIRST.bit());
        self.count_handed_out(slab.size());
    }

    /// Marks the one slot of a span in no bin as live. It becomes the active one where its bin has none.
    fn begin_span(self, slab: SlabPtr) {
        self.begin_span_in(slab, span_bin_below(slab.pages()), slab.size());
    }

    /// As [`HeapRef::begin_span`], of one of `size` bytes that is to be of `bin`.
    #[inline(always)]
    fn begin_span_in(self, slab: SlabPtr, bin: Option<usize>, size: usize) {
        xor_owned(slab.first_free_word(), Slot::FIRST.bit());
        match bin {
            Some(bin) if self.active_spans[bin].get().is_none() => self.activate_span(slab, bin),
            _ => self.await_free(slab, size),
        }
        self.count_handed_out(size);
        self.account_span(slab, 1, size);
    }

    #[inline(always)]
    fn count_handed_out(self, size: usize) {
        let handed = self.bytes_allocated.get();
        self.bytes_allocated.set(handed + size as u64);
    }

    /// A span of `pages` pages whose address is a multiple of `align` pages, and whether it is all zero.
    /// `None` where memory has run out.
    pub fn take_aligned_span(
        self,
        pages: usize,
        align: usize,
    ) -> Result<Option<(SlabPtr, bool)>, Misuse> {
        self.tick()?;
        let drawn = self.backend.pages.draws_spans();
        let pages = if drawn {
            pages
        } else {
            bin_pages(bin_of(pages))
        };
        let carved = self.new_span(pages, align);
        if let Some((slab, _)) = carved {
            self.begin_span(slab);
            if drawn {
                self.retire_span(slab);
            }
            self.profile_span(slab);
        }
        Ok(carved)
    }

    pub(super) fn new_span(self, pages: usize, align: usize) -> Option<(SlabPtr, bool)> {
        let shape = Shape {
            class: SPAN,
            size: pages * PAGE,
            recip: SPAN_RECIPROCAL,
            slots: 1,
            pages,
            align,
        };
        let carved = self.backend.new_slab(&shape, self.me())?;
        self.spans.push_front(carved.0);
        self.note_taken(SLABS, pages * PAGE);
        counters::add(&self.backend.meta.counters().spans, 1);
        self.flush_stats();
        if carved.1 {
            self.give_way_to(pages);
        }
        Some(carved)
    }

    /// The bin of a freed span that is kept for reuse, if it may be.
    #[inline(always)]
    fn bin_to_keep(self, slab: SlabPtr) -> Option<usize> {
        span_bin_below(slab.pages()).filter(|_| !self.backend.pages.draws_spans())
    }

    /// How many bytes of freed spans are kept, at most.
    #[inline(always)]
    fn most_binned(self) -> usize {
        BINNED_BYTES + self.span_bytes.get() / 2
    }

    /// The one slot of a span was freed by its owner.
    pub fn span_freed(self, slab: SlabPtr) -> Result<(), Misuse> {
        let Some(bin) = self.bin_to_keep(slab) else {
            self.unlist_span(slab);
            return self.release(slab);
        };
        self.keep_span(slab, bin, slab.size());
        self.shrink_bins(self.most_binned())?;
        self.tick()
    }

    /// As [`HeapRef::span_freed`], where nothing is to go back and the clock need not be looked at. False where more is to
    /// be done.
    #[inline(always)]
    pub fn span_freed_fast(self, slab: SlabPtr) -> bool {
        let ticks = self.ticks.get();
        // A signal handler may have requeued it meanwhile, and even given it back.
        if slab.owner.load(Relaxed) != self.me()
            || slab.state() != State::Full
            || !is_first_free(slab)
            || ticks.is_multiple_of(TICK_EVERY)
        {
            return false;
        }
        let Some(bin) = self.bin_to_keep(slab) else {
            return false;
        };
        let size = slab.size();
        // One that takes the place of a live active span leaves as many live bytes as before, but for a page.
        let replaces = || {
            let active = self.active_spans[bin].get();
            active.is_some_and(|active| !is_first_free(active))
        };
        if self.binned_bytes.get() + size > self.most_binned() - size / 2 && !replaces() {
            return false;
        }
        self.ticks.set(ticks.wrapping_add(1));
        self.keep_span(slab, bin, size);
        true
    }

    /// A live span of `size` bytes that was freed is the active one from now on, unless that is free as well.
    #[inline(always)]
    fn keep_span(self, slab: SlabPtr, bin: usize, size: usize) {
        self.account_span(slab, 0, size);
        slab.discarded.store(0, Relaxed);
        self.span_bytes.set(self.span_bytes.get() - size);
        if let Some(active) = self.active_spans[bin].get() {
            // A signal handler may free it at any moment. From here on that is an event, which queues it. Before, the
            // question below sees it.
            active.frees_left.set(1);
            compiler_fence(SeqCst);
            if is_first_free(active) {
                self.count_no_frees(active);
                return self.bin_span(slab, bin, size);
            }
            let size = active.size();
            self.account_span(active, 1, size);
            self.await_free(active, size);
        }
        self.activate_span(slab, bin);
    }

    /// Bins the active spans that are free, so that they decay with the others.
    pub(super) fn bin_active_spans(self) -> Result<(), Misuse> {
        for bin in 0..SPAN_BINS {
            let active = self.active_spans[bin].get();
            if let Some(slab) = active.filter(|slab| slab.is_free(Slot::FIRST)) {
                self.requeue(slab)?;
            }
        }
        Ok(())
    }

    /// A span on no list. If it is free it is kept for reuse, within bounds. If not, it is in use.
    pub(super) fn requeue_span(self, slab: SlabPtr, free: bool) -> Result<(), Misuse> {
        let kept = self.bin_to_keep(slab);
        if free && kept.is_none() {
            return self.release(slab);
        }
        self.spans.push_front(slab);
        match kept.filter(|_| free) {
            Some(bin) => self.bin_span(slab, bin, slab.size()),
            None => {
                self.await_free(slab, slab.size());
                return Ok(());
            }
        }
        self.shrink_bins(self.most_binned())?;
        self.tick()
    }

    #[inline(always)]
    fn bin_span(self, slab: SlabPtr, bin: usize, size: usize) {
        slab.set_state(State::Binned);
        self.count_no_frees(slab);
        self.bins[bin].push_front_in(self.table(), slab);
        self.binned.set(self.binned.get() | 1 << bin);
        self.binned_bytes.set(self.binned_bytes.get() + size);
    }

    fn unbin(self, slab: SlabPtr) {
        let bin = span_bin_below(slab.pages()).unwrap_or(0);
        self.bins[bin].unlink(slab);
        if self.bins[bin].is_empty() {
            self.binned.set(self.binned.get() & !(1 << bin));
        }
        self.count_unbinned(slab, slab.size());
    }

    /// A span of `size` bytes left its bin.
    #[inline(always)]
    fn count_unbinned(self, slab: SlabPtr, size: usize) {
        slab.discarded.store(0, Relaxed);
        let binned = self.binned_bytes.get() - size;
        self.binned_bytes.set(binned);
        self.binned_low.set(self.binned_low.get().min(binned));
    }

    /// Gives spans of the largest bins back, those freed longest ago first, until at most `most` bytes are kept.
    pub fn shrink_bins(self, most: usize) -> Result<(), Misuse> {
        while self.binned_bytes.get() > most && self.binned.get() != 0 {
            let bin = &self.bins[self.binned.get().ilog2() as usize];
            let Some(slab) = bin.last(self.table()) else {
                break;
            };
            self.unlist(slab);
            self.release(slab)?;
        }
        Ok(())
    }

    /// A live span of this heap's changed its size in place.
    pub fn span_resized(self, old: usize, new: usize) {
        self.span_bytes.set(self.span_bytes.get() + new - old);
        let counters = self.backend.meta.counters();
        counters::subtract(&counters.live, old as u64);
        counters::add_with_peak(&counters.live, &counters.peak, new as u64);
    }
}

impl Heap {
    /// The active span for `size` bytes, at most [`SPAN_MAX`](crate::units::SPAN_MAX), if it is free: the
    /// shortest way. Now and then, and where something is wrong, the slow path is to be taken instead.
    #[inline(always)]
    pub fn take_active_span(&self, size: usize) -> Option<SlabPtr> {
        let slab = self.active_spans[span_bin(size)].get()?;
        let (free, remote) = (slab.first_free_word(), slab.first_remote_word());
        let handed = self.bytes_allocated.get();
        if free.load(Relaxed) & Slot::FIRST.bit() == 0
            || remote.load(Relaxed) != 0
            || handed >= TICK_SPAN_BYTES
        {
            return None;
        }
        self.bytes_allocated.set(handed + slab.size() as u64);
        xor_owned(free, Slot::FIRST.bit());
        Some(slab)
    }

    /// All active spans.
    pub(super) fn active_spans(&self) -> impl Iterator<Item = SlabPtr> + '_ {
        self.active_spans.iter().filter_map(Cell::get)
    }

    /// Forgets which spans are active.
    pub(super) fn forget_active_spans(&self) {
        self.active_spans.iter().for_each(|active| active.set(None));
    }

    /// The active span `slab` is none any more.
    fn deactivate_span(&self, slab: SlabPtr) {
        self.active_spans[span_bin_below(slab.pages()).unwrap_or(0)].set(None);
        slab.set_state(State::Unlisted);
    }

    /// Takes `slab`, live, off its place in a bin's front, before its size changes.
    pub fn retire_span(&self, slab: SlabPtr) {
        if slab.state() == State::Active {
            self.deactivate_span(slab);
            self.account_live(slab, 1);
            self.await_free(slab, slab.size());
        }
    }

    /// The free of `slab`, which is live, has `size` bytes and is not active, is an event from now on.
    #[inline(always)]
    fn await_free(&self, slab: SlabPtr, size: usize) {
        slab.set_state(State::Full);
        slab.frees_left.set(1);
        self.span_bytes.set(self.span_bytes.get() + size);
    }
}
