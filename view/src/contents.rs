//! The contents of blocks, read in batches: a look at each slab by itself would take a system call or two for each.

use crate::model::{Heap, Slab};
use crate::region::PAGE;
use crate::source::{Source, Span};
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope, Builder};

/// Bytes read at once, unless one slab has more.
const BATCH: u64 = 1 << 20;
/// Addresses that one thread reads before it looks for more to read.
const SHARE: u64 = 16 << 20;
/// The most threads that read at once.
const READERS: usize = 8;

/// Which pages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that are resident: nothing in the target is changed.
    Present,
    /// Also those that were swapped out: nothing is missed.
    Held,
}

impl Which {
    /// Calls `visit` with the parts of `span` that are read.
    fn each(self, source: &dyn Source, span: Span, visit: &mut dyn FnMut(Span)) {
        match self {
            Which::Present => source.present(span, visit),
            Which::Held => source.held(span, visit),
        }
    }
}

/// The whole words of `bytes`.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let words = bytes.chunks_exact(8);
    words.map(|word| word.try_into().map_or(0, u64::from_le_bytes))
}

/// Contents of a range. Zero where nothing is there.
#[derive(Default)]
pub struct Batch {
    start: u64,
    bytes: Vec<u8>,
    there: Vec<Span>,
    /// Bytes that should be there and could not be read.
    failed: u64,
}

impl Batch {
    /// Reads `parts`, which lie in order, and all that is between them as zero.
    pub fn read(&mut self, source: &dyn Source, parts: &[Span], which: Which) {
        self.there.clear();
        self.failed = 0;
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
            return;
        };
        self.start = first.start;
        let bytes = (last.end - first.start) as usize;
        match self.bytes.is_empty() {
            // Memory that comes as zero costs nothing until it is used.
            true => self.bytes = vec![0; bytes],
            false => self.bytes.resize(bytes, 0),
        }
        for &part in parts {
            which.each(source, part, &mut |span| self.add(span));
        }
        for span in std::mem::take(&mut self.there) {
            self.fetch(source, span);
        }
        self.clear_rest();
    }

    /// Reads `span`, page by page where it cannot be read at once.
    fn fetch(&mut self, source: &dyn Source, span: Span) {
        let from = (span.start - self.start) as usize;
        let bytes = &mut self.bytes[from..from + span.bytes() as usize];
        if source.read(span.start, bytes) {
            return self.add(span);
        }
        let mut start = span.start;
        while start < span.end {
            let end = span.end.min((start / PAGE + 1) * PAGE);
            let part = Span { start, end };
            let at = (start - self.start) as usize;
            match source.read(start, &mut self.bytes[at..at + part.bytes() as usize]) {
                true => self.add(part),
                false if source.is_guard(start) => {}
                false => self.failed += part.bytes(),
            }
            start = end;
        }
    }

    /// Notes that `span` was read.
    fn add(&mut self, span: Span) {
        match self.there.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => self.there.push(span),
        }
    }

    /// All that was read, by its first address. Nothing is left.
    pub fn into_piece(&mut self) -> (u64, Vec<u8>) {
        self.there.clear();
        (self.start, std::mem::take(&mut self.bytes))
    }

    /// The bytes of `span`, which lies in what was read. None if it does not.
    pub fn bytes(&self, span: Span) -> &[u8] {
        let at = span.start.wrapping_sub(self.start) as usize;
        let end = at.saturating_add(span.bytes() as usize);
        self.bytes.get(at..end).unwrap_or(&[])
    }

    /// Whether all of `span` was there.
    pub fn has(&self, span: Span) -> bool {
        let index = self.there.partition_point(|part| part.end <= span.start);
        self.there
            .get(index)
            .is_some_and(|part| part.start <= span.start && span.end <= part.end)
    }

    /// What was there.
    pub fn there(&self) -> &[Span] {
        &self.there
    }
}

/// Calls `visit` with the slabs that have live blocks or some in a quarantine, as many at a time as are read at once, and their contents. Bytes
/// that could not be read, and count as zero.
pub fn each_batch<'a>(
    source: &dyn Source,
    slabs: &'a [Slab],
    which: Which,
    mut visit: impl FnMut(&mut Batch, &[&'a Slab]),
) -> u64 {
    let mut failed = 0;
    let mut batch = Batch::default();
    let mut live = slabs.iter().filter(|slab| slab.in_use() > 0).peekable();
    let (mut together, mut parts) = (Vec::new(), Vec::new());
    while let Some(first) = live.next() {
        together.clear();
        together.push(first);
        parts.clear();
        parts.push(first.span());
        let goes_on = |next: &&Slab| next.span().end - first.base <= BATCH;
        while let Some(next) = live.next_if(goes_on) {
            together.push(next);
            let span = next.span();
            match parts.last_mut() {
                Some(last) if last.end == span.start => last.end = span.end,
                _ => parts.push(span),
            }
        }
        batch.read(source, &parts, which);
        failed += batch.failed;
        visit(&mut batch, &together);
    }
    failed
}

/// Calls `visit` with the contents of `span`, some at a time, by address. Bytes that could not be read, and count as zero.
pub fn each_part(
    source: &dyn Source,
    span: Span,
    which: Which,
    mut visit: impl FnMut(&mut Batch, Span),
) -> u64 {
    let mut failed = 0;
    let mut batch = Batch::default();
    let mut there = Vec::new();
    which.each(source, span, &mut |part| there.push(part));
    for part in there {
        let mut start = part.start;
        while start < part.end {
            let end = part.end.min(start + BATCH);
            let piece = Span { start, end };
            batch.take(source, piece);
            failed += batch.failed;
            visit(&mut batch, piece);
            start = end;
        }
    }
    failed
}

/// A part of some heaps that one thread reads.
pub enum Share<'a> {
    /// Slabs that lie side by side.
    Slabs(&'a [Slab]),
    /// A part of a large block, and that block's place among all that were given.
    Large(usize, Span),
}

impl<'a> Share<'a> {
    /// All slabs of `heaps`, and the blocks `large`, in parts for [`at_once`].
    pub fn all(heaps: &'a [Heap], large: &[Span]) -> Vec<Share<'a>> {
        let mut all = Vec::new();
        for heap in heaps {
            let mut rest = &heap.slabs[..];
            while let Some(first) = rest.first() {
                let together = rest.partition_point(|slab| slab.base - first.base < SHARE);
                let (part, behind) = rest.split_at(together);
                all.push(Share::Slabs(part));
                rest = behind;
            }
        }
        for (at, block) in large.iter().enumerate() {
            let mut start = block.start;
            while start < block.end {
                let end = block.end.min(start + SHARE);
                all.push(Share::Large(at, Span { start, end }));
                start = end;
            }
        }
        all
    }
}

/// Has as many threads as there are processors `work` on `shares`, each with what it got of `make`. What each has made of
/// it.
pub fn at_once<S: Sync, T: Send>(
    shares: &[S],
    make: impl Fn() -> T + Sync,
    work: impl Fn(&mut T, &S) + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let one = || {
        let mut made = make();
        while let Some(share) = shares.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(&mut made, share);
        }
        made
    };
    let threads = available_parallelism().map_or(1, NonZero::get);
    scope(|scope| {
        // What a thread that cannot be started would have done the others do.
        let others: Vec<_> = (1..threads.min(READERS).min(shares.len()))
            .filter_map(|_| Builder::new().spawn_scoped(scope, one).ok())
            .collect();
        let mut all = vec![one()];
        let joined = others.into_iter().map(|other| other.join());
        all.extend(joined.map(|made| made.unwrap_or_else(|why| resume_unwind(why))));
        all
    })
}

impl Batch {
    /// Reads `span`, which is known to be there.
    fn take(&mut self, source: &dyn Source, span: Span) {
        self.start = span.start;
        self.there.clear();
        self.failed = 0;
        self.bytes.resize(span.bytes() as usize, 0);
        self.fetch(source, span);
        self.clear_rest();
    }

    /// Clears what was not there.
    fn clear_rest(&mut self) {
        let mut at = 0;
        for span in &self.there {
            let from = (span.start - self.start) as usize;
            self.bytes[at..from].fill(0);
            at = from + span.bytes() as usize;
        }
        self.bytes[at..].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{About, Mapping, Thread};
    use crate::Error;

    /// Four pages of ones, of which the third cannot be read.
    struct Torn {
        /// Whether that is so since it is a guard.
        guarded: bool,
    }

    impl Source for Torn {
        fn read(&self, address: u64, into: &mut [u8]) -> bool {
            let end = address + into.len() as u64;
            let hole = Span {
                start: 2 * PAGE,
                end: 3 * PAGE,
            };
            into.fill(1);
            let part = Span {
                start: address,
                end,
            };
            part.common(hole).bytes() == 0
        }

        fn is_guard(&self, address: u64) -> bool {
            self.guarded && address == 2 * PAGE
        }
        fn mappings(&self) -> &[Mapping] {
            &[]
        }

        fn present(&self, within: Span, visit: &mut dyn FnMut(Span)) {
            visit(within);
        }

        fn about(&self) -> About {
            About::default()
        }

        fn threads(&self) -> Vec<Thread> {
            Vec::new()
        }

        fn name(&self) -> String {
            "torn".into()
        }

        fn is_moving(&self) -> bool {
            false
        }

        fn no_heap(&self) -> Error {
            Error::Ended { name: self.name() }
        }
    }

    #[test]
    fn a_page_that_cannot_be_read_hides_no_other_and_is_counted_unless_it_is_a_guard() {
        let whole = Span {
            start: 0,
            end: 4 * PAGE,
        };
        for (guarded, wanted) in [(false, PAGE), (true, 0)] {
            let torn = Torn { guarded };
            let mut seen = Vec::new();
            let failed = each_part(&torn, whole, Which::Held, |batch, part| {
                seen.extend_from_slice(batch.bytes(part));
            });
            assert_eq!(failed, wanted);
            let pages: Vec<u64> = seen
                .chunks(PAGE as usize)
                .map(|page| page.iter().map(|&byte| u64::from(byte)).sum())
                .collect();
            assert_eq!(pages, [PAGE, PAGE, 0, PAGE]);
            let mut batch = Batch::default();
            batch.read(&torn, &[whole], Which::Held);
            assert_eq!((batch.failed, batch.there().len()), (wanted, 2));
            assert_eq!(batch.bytes(whole), seen);
        }
    }
}
