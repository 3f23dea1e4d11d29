//! A copy of parts of a target: those of its pages that hold something, in one buffer that is used again.

use crate::source::{Source, Span};

/// The most bytes copied by one call.
const STEP: u64 = 64 << 20;

/// A copied range.
#[derive(Clone, Copy, Debug)]
struct Piece {
    span: Span,
    /// Where its bytes lie in the buffer.
    at: usize,
}

/// Copied ranges, by address.
#[derive(Debug, Default)]
pub struct Image {
    pieces: Vec<Piece>,
    /// Longer than what is used: a buffer that is used again need not be cleared.
    bytes: Vec<u8>,
    used: usize,
}

impl Image {
    /// Forgets what was copied. The buffer stays.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.used = 0;
    }

    /// Copies what `source` holds in `within`, of which nothing was copied before. What cannot be read, or exceeds what
    /// memory there is, is left out.
    pub fn add(&mut self, source: &dyn Source, within: Span) {
        let mut spans = Vec::new();
        source.held(within, &mut |span| spans.push(span));
        let all: u64 = spans.iter().map(|span| span.bytes()).sum();
        let wanted = (self.used as u64).saturating_add(all) as usize;
        let more = wanted.saturating_sub(self.bytes.len());
        if self.bytes.try_reserve(more).is_err() {
            return;
        }
        for span in spans {
            let mut start = span.start;
            while start < span.end {
                let end = span.end.min(start + STEP);
                self.copy(source, Span { start, end });
                start = end;
            }
        }
        self.pieces.sort_by_key(|piece| piece.span);
    }

    fn copy(&mut self, source: &dyn Source, span: Span) {
        let at = self.used;
        let end = at + span.bytes() as usize;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if !source.read(span.start, &mut self.bytes[at..end]) {
            return;
        }
        self.used = end;
        match self.pieces.last_mut() {
            Some(last)
                if last.span.end == span.start
                    && last.at as u64 + last.span.bytes() == at as u64 =>
            {
                last.span.end = span.end;
            }
            _ => self.pieces.push(Piece { span, at }),
        }
    }

    /// The `n` bytes at `address`, if all of them were copied.
    pub fn get(&self, address: u64, n: usize) -> Option<&[u8]> {
        let index = self
            .pieces
            .partition_point(|piece| piece.span.start <= address);
        let piece = self.pieces[..index].last()?;
        let offset = address - piece.span.start;
        if offset + n as u64 > piece.span.bytes() {
            return None;
        }
        self.bytes.get(piece.at + offset as usize..)?.get(..n)
    }

    /// The word of 8 bytes at `address`.
    pub fn word(&self, address: u64) -> Option<u64> {
        let bytes = self.get(address, 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }

    /// The copied ranges within `within`, with their bytes, by address.
    pub fn pieces(&self, within: Span) -> impl Iterator<Item = (u64, &[u8])> {
        let parts = self
            .pieces
            .iter()
            .map(move |piece| (piece, piece.span.common(within)));
        parts
            .filter(|(_, part)| part.bytes() > 0)
            .map(|(piece, part)| {
                let at = piece.at + (part.start - piece.span.start) as usize;
                (part.start, &self.bytes[at..at + part.bytes() as usize])
            })
    }

    /// Bytes copied.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing was copied.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }
}
