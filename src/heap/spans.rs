//! Spans: slabs of one slot, kept in bins for reuse after they were freed.
//!
//! A bin is last in, first out: the span freed last is the one whose bytes the caches still hold.

use super::{remote_overlap, Ground, Heap, BINNED_BYTES, BINS_UP};
use crate::class::{bin_below, bin_of, bin_pages};
use crate::class::{SPAN, SPAN_RECIPROCAL};
use crate::counters;
use crate::geometry::{bit_of, PAGE};
use crate::misuse::Misuse;
use crate::os::Os;
use crate::slab::{Shape, SlabPtr, SlabTable, State, CREDIT_HUGE};
use crate::sync::flip;

impl Heap {
    /// A span of at least `pages` pages, and whether it is all zero. `None` where memory has run out.
    pub fn take_span<O: Os>(
        &self,
        ground: &Ground<O>,
        pages: usize,
    ) -> Result<Option<(SlabPtr, bool)>, Misuse> {
        self.pulse(ground)?;
        let bin = bin_of(pages);
        if !self.queue.is_empty() {
            self.drain(ground)?;
        }
        if let Some(slab) = self.take_binned(ground.table(), pages) {
            return Ok(Some((slab, false)));
        }
        let Some((slab, fresh)) = self.carve_span(ground, bin_pages(bin), 1) else {
            return Ok(None);
        };
        if slab.count_remote() != 0 {
            // Left by a second free of whatever was here before.
            self.note(remote_overlap(slab));
            slab.drop_remote();
        }
        self.begin_span(ground.table(), slab);
        Ok(Some((slab, fresh)))
    }

    /// The common half of [`Heap::take_span`]: a span of at least `pages` pages from the bins, unless
    /// other threads' frees wait to be collected.
    #[inline]
    pub fn take_binned(&self, table: SlabTable, pages: usize) -> Option<SlabPtr> {
        let bin = bin_of(pages);
        let fitting = self.binned.get() >> bin & ((2 << BINS_UP) - 1);
        if fitting == 0 || !self.queue.is_empty() {
            return None;
        }
        let slab = self.bins[bin + fitting.trailing_zeros() as usize].first(table)?;
        self.unbin(table, slab);
        self.begin_span(table, slab);
        Some(slab)
    }

    /// Marks the one slot of an unlisted span as live.
    fn begin_span(&self, table: SlabTable, slab: SlabPtr) {
        flip(slab.free_word(0), bit_of(0));
        self.list_span(table, slab);
        self.handed.set(self.handed.get() + slab.size() as u64);
        self.tell(slab, 0);
    }

    pub(super) fn list_span(&self, table: SlabTable, slab: SlabPtr) {
        slab.set_state(State::Full);
        slab.credit.set(1);
        self.spans.push_front(table, slab);
        self.span_bytes.set(self.span_bytes.get() + slab.size());
    }

    /// A span of `pages` pages whose address is a multiple of `align` pages. `None` where memory has run
    /// out.
    pub fn take_aligned_span<O: Os>(
        &self,
        ground: &Ground<O>,
        pages: usize,
        align: usize,
    ) -> Result<Option<SlabPtr>, Misuse> {
        self.pulse(ground)?;
        let carved = self.carve_span(ground, bin_pages(bin_of(pages)), align);
        Ok(carved.map(|(slab, _)| {
            self.begin_span(ground.table(), slab);
            slab
        }))
    }

    pub(super) fn carve_span<O: Os>(
        &self,
        ground: &Ground<O>,
        pages: usize,
        align: usize,
    ) -> Option<(SlabPtr, bool)> {
        let shape = Shape {
            class: SPAN,
            size: pages * PAGE,
            recip: SPAN_RECIPROCAL,
            slots: 1,
            pages,
            align,
        };
        let carved = ground
            .pages
            .carve(&ground.os, &ground.meta, &shape, self.me())?;
        counters::add(&ground.meta.counters().spans, 1);
        self.report(ground);
        Some(carved)
    }

    /// The one slot of a live span was freed by its owner.
    #[inline]
    pub fn span_freed<O: Os>(&self, ground: &Ground<O>, slab: SlabPtr) -> Result<(), Misuse> {
        self.tell(slab, 1);
        self.spans.unlink(ground.table(), slab);
        self.span_bytes.set(self.span_bytes.get() - slab.size());
        slab.set_state(State::Unlisted);
        self.settle_span(ground, slab, true)
    }

    /// A span on no list: kept for reuse if it is free, within bounds; else it is in use.
    pub(super) fn settle_span<O: Os>(
        &self,
        ground: &Ground<O>,
        slab: SlabPtr,
        free: bool,
    ) -> Result<(), Misuse> {
        if !free {
            self.list_span(ground.table(), slab);
            return Ok(());
        }
        let Some(bin) = bin_below(slab.pages()) else {
            return self.release(ground, slab);
        };
        slab.set_state(State::Binned);
        slab.credit.set(CREDIT_HUGE);
        self.bins[bin].push_front(ground.table(), slab);
        self.binned.set(self.binned.get() | 1 << bin);
        self.binned_bytes.set(self.binned_bytes.get() + slab.size());
        self.shrink_bins(ground, BINNED_BYTES + self.span_bytes.get() / 2)?;
        self.pulse(ground)
    }

    pub(super) fn unbin(&self, table: SlabTable, slab: SlabPtr) {
        let bin = bin_below(slab.pages()).unwrap_or(0);
        self.bins[bin].unlink(table, slab);
        if self.bins[bin].is_empty() {
            self.binned.set(self.binned.get() & !(1 << bin));
        }
        self.binned_bytes.set(self.binned_bytes.get() - slab.size());
        self.binned_low
            .set(self.binned_low.get().min(self.binned_bytes.get()));
    }

    /// Gives spans of the largest bins back, those freed longest ago first, until at most `most` bytes are kept.
    pub fn shrink_bins<O: Os>(&self, ground: &Ground<O>, most: usize) -> Result<(), Misuse> {
        while self.binned_bytes.get() > most && self.binned.get() != 0 {
            let bin = &self.bins[self.binned.get().ilog2() as usize];
            let Some(slab) = bin.last(ground.table()) else {
                break;
            };
            self.unlist(ground, slab);
            self.release(ground, slab)?;
        }
        Ok(())
    }

    /// A live span of this heap's changed its size in place.
    pub fn span_resized<O: Os>(&self, ground: &Ground<O>, old: usize, new: usize) {
        self.span_bytes.set(self.span_bytes.get() + new - old);
        let counters = ground.meta.counters();
        counters::subtract(&counters.live, old as u64);
        counters::add_with_peak(&counters.live, &counters.peak, new as u64);
    }
}
