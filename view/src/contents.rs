//! The contents of blocks, read in batches: a look at each slab by itself would take a system call or two for each.

use crate::model::Slab;
use crate::source::{Source, Span};

/// Bytes read at once, unless one slab has more.
const BATCH: u64 = 1 << 20;

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
}

impl Batch {
    /// Reads `parts`, which lie in order, and all that is between them as zero.
    pub fn read(&mut self, source: &dyn Source, parts: &[Span], which: Which) {
        self.there.clear();
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
            let mut add = |span: Span| match self.there.last_mut() {
                Some(last) if last.end == span.start => last.end = span.end,
                _ => self.there.push(span),
            };
            which.each(source, part, &mut add);
        }
        let (start, bytes) = (self.start, &mut self.bytes);
        self.there.retain(|span| {
            let at = (span.start - start) as usize;
            source.read(span.start, &mut bytes[at..at + span.bytes() as usize])
        });
        let mut at = 0;
        for span in &self.there {
            let from = (span.start - start) as usize;
            self.bytes[at..from].fill(0);
            at = from + span.bytes() as usize;
        }
        self.bytes[at..].fill(0);
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

/// Calls `visit` with the slabs that have live blocks, as many at a time as are read at once, and their contents.
pub fn each_batch<'a>(
    source: &dyn Source,
    slabs: &'a [Slab],
    which: Which,
    mut visit: impl FnMut(&mut Batch, &[&'a Slab]),
) {
    let mut batch = Batch::default();
    let mut live = slabs.iter().filter(|slab| slab.live > 0).peekable();
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
        visit(&mut batch, &together);
    }
}

/// Calls `visit` with the contents of `span`, some at a time, by address.
pub fn each_part(
    source: &dyn Source,
    span: Span,
    which: Which,
    mut visit: impl FnMut(&mut Batch, Span),
) {
    let mut batch = Batch::default();
    let mut there = Vec::new();
    which.each(source, span, &mut |part| there.push(part));
    for part in there {
        let mut start = part.start;
        while start < part.end {
            let end = part.end.min(start + BATCH);
            let piece = Span { start, end };
            batch.take(source, piece);
            visit(&mut batch, piece);
            start = end;
        }
    }
}

impl Batch {
    /// Reads `span`, which is known to be there.
    fn take(&mut self, source: &dyn Source, span: Span) {
        self.start = span.start;
        self.there.clear();
        self.bytes.resize(span.bytes() as usize, 0);
        if source.read(span.start, &mut self.bytes) {
            self.there.push(span);
        } else {
            self.bytes.fill(0);
        }
    }
}
