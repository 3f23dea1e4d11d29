//! Random numbers that cannot be predicted from earlier ones. The generator is ChaCha8, whose key is replaced by its
//! own output after every block ("fast key erasure", D. J. Bernstein 2017). The system seeds it.

use core::cell::Cell;

/// Words of a block, half of which become the next key.
const WORDS: usize = 16;
const KEY_WORDS: usize = 8;
/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// A generator. All zero until seeded.
#[derive(Default)]
#[repr(C)]
pub struct Random {
    key: [Cell<u32>; KEY_WORDS],
    ready: [Cell<u32>; KEY_WORDS],
    /// Bytes of `ready` that were not given out.
    left: Cell<u32>,
}

/// Four words that are worked on at once.
type Row = [u32; 4];

fn add(a: Row, b: Row) -> Row {
    core::array::from_fn(|i| a[i].wrapping_add(b[i]))
}

fn mix(a: Row, b: Row, bits: u32) -> Row {
    core::array::from_fn(|i| (a[i] ^ b[i]).rotate_left(bits))
}

fn turn(row: Row, by: usize) -> Row {
    core::array::from_fn(|i| row[(i + by) % 4])
}

/// Four quarter rounds, one a column.
fn columns([mut a, mut b, mut c, mut d]: [Row; 4]) -> [Row; 4] {
    for [first, second] in [[16, 12], [8, 7]] {
        a = add(a, b);
        d = mix(d, a, first);
        c = add(c, d);
        b = mix(b, c, second);
    }
    [a, b, c, d]
}

/// The first block of ChaCha8's stream for `key`, with nonce 0.
fn block(key: [u32; KEY_WORDS]) -> [u32; WORDS] {
    let half = |from| core::array::from_fn(|i| key[from + i]);
    let start = [CONSTANTS, half(0), half(4), [0; 4]];
    let mut rows = start;
    for _ in 0..4 {
        let [a, b, c, d] = columns(rows);
        let [a, b, c, d] = columns([a, turn(b, 1), turn(c, 2), turn(d, 3)]);
        rows = [a, turn(b, 3), turn(c, 2), turn(d, 1)];
    }
    core::array::from_fn(|i| rows[i / 4][i % 4].wrapping_add(start[i / 4][i % 4]))
}

impl Random {
    /// Begins anew from four words of the system's.
    pub fn seed(&self, words: [u64; 4]) {
        for (place, word) in self.key.chunks(2).zip(words) {
            place[0].set(word as u32);
            place[1].set((word >> 32) as u32);
        }
        self.left.set(0);
    }

    /// Goes on otherwise than a copy does that is not given the same four words.
    pub fn stir(&self, words: [u64; 4]) {
        for (place, word) in self.key.chunks(2).zip(words) {
            place[0].set(place[0].get() ^ word as u32);
            place[1].set(place[1].get() ^ (word >> 32) as u32);
        }
        self.left.set(0);
    }

    #[cold]
    #[inline(never)]
    fn refill(&self) {
        let out = block(core::array::from_fn(|i| self.key[i].get()));
        for i in 0..KEY_WORDS {
            self.key[i].set(out[i]);
            self.ready[i].set(out[KEY_WORDS + i]);
        }
        self.left.set(4 * KEY_WORDS as u32);
    }

    /// Whether the next eight bits are there already.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        self.left.get() != 0
    }

    /// As [`Random::is_ready`]. Where they may be made, sees to it that they are.
    #[inline(always)]
    pub fn is_ready_for(&self, making: bool) -> bool {
        if making {
            self.make_ready();
        }
        making || self.is_ready()
    }

    /// Sees to it that they are.
    #[inline]
    pub fn make_ready(&self) {
        if !self.is_ready() {
            self.refill();
        }
    }

    /// Eight random bits.
    #[inline]
    pub fn byte(&self) -> usize {
        self.make_ready();
        self.ready_byte()
    }

    /// Eight random bits that are there already: see [`Random::is_ready`].
    #[inline(always)]
    pub fn ready_byte(&self) -> usize {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        let word = &self.ready[left as usize / 4 % KEY_WORDS];
        let bits = word.get();
        word.set(bits >> 8);
        bits as usize & 0xff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first test vector for 8 rounds and a 256-bit key of draft-strombergson-chacha-test-vectors.
    #[test]
    fn the_block_is_that_of_chacha8() {
        let bytes: std::vec::Vec<u8> = block([0; KEY_WORDS])
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(
            bytes[..16],
            [
                0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6, 0x7f, 0x5b, 0xb8, 0xe8, 0x1f, 0x09,
                0xa5, 0xa1
            ]
        );
        assert_eq!(bytes[60..], [0x0e, 0x0c, 0xfe, 0x42]);
    }
}
