//! Read-only views of the heap: its figures, made exact by a walk over the slab headers.

use crate::allocator::Allocator;
use crate::os::Os;
use crate::sync::Ordering::Relaxed;

/// The heap's figures, in bytes and counts. The layout is that of `struct slabside_stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stats {
    /// Bytes handed out so far, in slot sizes.
    pub handed_out: usize,
    /// Bytes in live slots, spans and large blocks.
    pub live: usize,
    /// Highest value of `live` that slow paths saw.
    pub peak: usize,
    /// Bytes by which the break is moved now.
    pub break_bytes: usize,
    /// Highest value of `break_bytes`.
    pub break_peak: usize,
    /// Times the break was moved, up or down.
    pub break_moves: usize,
    /// Bytes mapped for large blocks and fallback windows.
    pub mapped: usize,
    /// Bytes of metadata opened for use.
    pub metadata: usize,
    /// Bytes given back inside the heap.
    pub purged: usize,
    /// Slabs in use.
    pub slabs: usize,
    /// Spans in use or kept for reuse.
    pub spans: usize,
    /// Large blocks in use.
    pub large: usize,
}

/// The figures of `allocator`. Other threads may be at work: then `live` is a moment's mixture.
pub fn stats<O: Os>(allocator: &Allocator<O>) -> Stats {
    if !allocator.is_started() {
        return Stats::default();
    }
    let ground = &allocator.ground;
    let counters = ground.meta.counters();
    let (small, slabs, spans) = live_slots(allocator);
    let (large_bytes, large) = ground.large.live();
    Stats {
        handed_out: counters.handed_out.load(Relaxed) as usize,
        live: small + large_bytes,
        peak: (counters.peak.load(Relaxed) as usize).max(small + large_bytes),
        break_bytes: counters.break_bytes.load(Relaxed) as usize,
        break_peak: counters.break_peak.load(Relaxed) as usize,
        break_moves: counters.break_moves.load(Relaxed) as usize,
        mapped: counters.mapped.load(Relaxed) as usize,
        metadata: counters.metadata.load(Relaxed) as usize,
        purged: counters.purged.load(Relaxed) as usize,
        slabs,
        spans,
        large,
    }
}

/// Bytes in live slots and spans, by the bitmaps; and how many slabs and spans there are.
fn live_slots<O: Os>(allocator: &Allocator<O>) -> (usize, usize, usize) {
    let (mut bytes, mut slabs, mut spans) = (0, 0, 0);
    allocator.ground.pages.each_slab(|slab| {
        let free = slab.count_free() + slab.count_remote();
        bytes += slab.slots().saturating_sub(free) * slab.size();
        *(if slab.is_span() {
            &mut spans
        } else {
            &mut slabs
        }) += 1;
    });
    (bytes, slabs, spans)
}
