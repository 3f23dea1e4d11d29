//! Which slots have an exact size. Hardened mode keeps one for each slot, and 0 where the program has none: a slot that is
//! live to the allocator and has no size waits in a quarantine.
//!
//! A copy has a bit a slot, made of 16 that are read some at a time.

use crate::source::{Source, Span};

/// Bytes of the sizes of 64 slots.
pub const OF_WORD: usize = 128;
/// The most bytes read at a time. They stay in the processor's cache.
const STEP: u64 = 256 << 10;

/// Copied sizes that lie in a row.
#[derive(Clone, Copy, Debug)]
struct Piece {
    span: Span,
    /// Where its words begin.
    at: usize,
}

/// A copy, which is used again.
#[derive(Debug, Default)]
pub struct Sizes {
    pieces: Vec<Piece>,
    words: Vec<u64>,
    read: Vec<u8>,
}

impl Sizes {
    /// Copies what `source` holds of the sizes in `area`, in the place of what was copied before. What cannot be read is
    /// left out.
    pub fn copy(&mut self, source: &dyn Source, area: Span) {
        self.pieces.clear();
        self.words.clear();
        if area.bytes() == 0 {
            return;
        }
        self.read.resize(STEP as usize, 0);
        let mut spans = Vec::new();
        source.held(area, &mut |span| spans.push(span));
        for span in spans {
            let mut start = area.start + (span.start - area.start).next_multiple_of(OF_WORD as u64);
            while start + OF_WORD as u64 <= span.end {
                let end = span.end.min(start + STEP);
                self.add(source, Span { start, end });
                start += STEP;
            }
        }
    }

    fn add(&mut self, source: &dyn Source, part: Span) {
        let bytes = part.bytes() as usize / OF_WORD * OF_WORD;
        let read = &mut self.read[..bytes];
        if !source.read(part.start, read) {
            return;
        }
        let at = self.words.len();
        self.words.extend(words_of(read));
        let span = Span {
            start: part.start,
            end: part.start + bytes as u64,
        };
        match self.pieces.last_mut() {
            Some(last) if last.span.end == span.start => last.span.end = span.end,
            _ => self.pieces.push(Piece { span, at }),
        }
    }

    /// The `n` words of the sizes at `address`, if all of them were copied: a bit for each slot that has one.
    pub fn get(&self, address: u64, n: usize) -> Option<&[u64]> {
        let index = self
            .pieces
            .partition_point(|piece| piece.span.start <= address);
        let piece = self.pieces[..index].last()?;
        let offset = address - piece.span.start;
        if offset >= piece.span.bytes() {
            return None;
        }
        let words = &self.words[piece.at..][..piece.span.bytes() as usize / OF_WORD];
        words.get(offset as usize / OF_WORD..)?.get(..n)
    }

    /// Bytes of the copy.
    pub fn len(&self) -> usize {
        8 * self.words.len()
    }
}

/// Which of `sizes` are not 0, 64 in a word.
pub fn words_of(sizes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    sizes.chunks_exact(OF_WORD).map(with_size)
}

/// Which of 64 sizes are not 0.
fn with_size(sizes: &[u8]) -> u64 {
    let fours = sizes.chunks_exact(8).rev();
    fours.fold(0, |found, four| {
        let word = four.try_into().map_or(0, u64::from_le_bytes);
        found << 4 | with_size_of_four(word)
    })
}

/// Which of four sizes are not 0.
fn with_size_of_four(sizes: u64) -> u64 {
    const LOWER: u64 = 0x7fff_7fff_7fff_7fff;
    // One that is not 0 carries into its upper bit, or has that already.
    let upper = (((sizes & LOWER) + LOWER) | sizes) & !LOWER;
    // Bit 16 n times 2^(48 - 15 n) is bit 48 + n. All other products lie below, or exceed the word.
    (upper >> 15).wrapping_mul(0x0001_0002_0004_0008) >> 48 & 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_that_is_not_0_has_its_bit() {
        for slot in 0..64 {
            for size in [1, 0x80, 0x100, 0x8000, 0xffff_u16] {
                let mut sizes = [0; OF_WORD];
                sizes[2 * slot..2 * slot + 2].copy_from_slice(&size.to_le_bytes());
                assert_eq!(with_size(&sizes), 1 << slot, "{size:#x}");
                let others = sizes.map(|byte| !byte);
                let wanted = if size == 0xffff {
                    !(1 << slot)
                } else {
                    u64::MAX
                };
                assert_eq!(with_size(&others), wanted, "{size:#x}");
            }
        }
        assert_eq!(with_size(&[0; OF_WORD]), 0);
    }
}
