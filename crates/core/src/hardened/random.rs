//! Random numbers that cannot be predicted from earlier ones. The generator is ChaCha8, whose key is replaced by its
//! own output after every few blocks ("fast key erasure", D. J. Bernstein 2017). The system seeds it.

use crate::wide;
use core::cell::Cell;

/// Words of a block.
const WORDS: usize = 16;
/// Blocks that are made of one key. Their first words become the next one.
const BLOCKS: u32 = 4;
const KEY_WORDS: usize = 8;
/// Bytes of a word.
const WORD: usize = 4;
/// Bytes that are given out, and room for them: a power of two, so that no place is out of bounds.
const READY: usize = (BLOCKS as usize * WORDS - KEY_WORDS) * WORD;
const ROOM: usize = READY.next_power_of_two();
/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// A generator. All zero until seeded.
#[repr(C)]
pub struct Random {
    key: [Cell<u32>; KEY_WORDS],
    ready: [Cell<u8>; ROOM],
    /// Bytes of `ready` that were not given out.
    left: Cell<u32>,
}

/// Four words that are worked on at once.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod row {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_or_si128, _mm_shuffle_epi32, _mm_slli_epi32, _mm_srli_epi32,
        _mm_xor_si128,
    };
    use core::mem::transmute;

    #[derive(Clone, Copy)]
    pub struct Row(__m128i);

    // Unsafe until Rust 1.87 only.
    #[allow(unused_unsafe)]
    impl Row {
        #[inline(always)]
        pub fn of(words: [u32; 4]) -> Row {
            // SAFETY: both types are 16 bytes, of which any are valid.
            Row(unsafe { transmute::<[u32; 4], __m128i>(words) })
        }

        #[inline(always)]
        pub fn words(self) -> [u32; 4] {
            // SAFETY: both types are 16 bytes, of which any are valid.
            unsafe { transmute::<__m128i, [u32; 4]>(self.0) }
        }

        #[inline(always)]
        pub fn add(self, other: Row) -> Row {
            // SAFETY: every x86-64 processor has the instruction, which reads no memory.
            Row(unsafe { _mm_add_epi32(self.0, other.0) })
        }

        /// The exclusive or, each word turned to the left by `LEFT` bits. `RIGHT` is 32 less those.
        #[inline(always)]
        pub fn mix<const LEFT: i32, const RIGHT: i32>(self, other: Row) -> Row {
            // SAFETY: every x86-64 processor has the instructions, which read no memory.
            unsafe {
                let mixed = _mm_xor_si128(self.0, other.0);
                let left = _mm_slli_epi32::<LEFT>(mixed);
                Row(_mm_or_si128(left, _mm_srli_epi32::<RIGHT>(mixed)))
            }
        }

        /// The words in the order that `ORDER` says: two bits for each place, beginning with the lowest.
        #[inline(always)]
        pub fn turn<const ORDER: i32>(self) -> Row {
            // SAFETY: every x86-64 processor has the instruction, which reads no memory.
            Row(unsafe { _mm_shuffle_epi32::<ORDER>(self.0) })
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod row {
    #[derive(Clone, Copy)]
    pub struct Row([u32; 4]);

    impl Row {
        pub fn of(words: [u32; 4]) -> Row {
            Row(words)
        }

        pub fn words(self) -> [u32; 4] {
            self.0
        }

        pub fn add(self, other: Row) -> Row {
            Row(core::array::from_fn(|i| self.0[i].wrapping_add(other.0[i])))
        }

        pub fn mix<const LEFT: i32, const RIGHT: i32>(self, other: Row) -> Row {
            let mixed = |i: usize| (self.0[i] ^ other.0[i]).rotate_left(LEFT as u32);
            Row(core::array::from_fn(mixed))
        }

        pub fn turn<const ORDER: i32>(self) -> Row {
            Row(core::array::from_fn(|i| {
                self.0[ORDER as usize >> (2 * i) & 3]
            }))
        }
    }
}

use row::Row;

/// The words from the second, third and fourth one on.
const BY_1: i32 = 0b00_11_10_01;
const BY_2: i32 = 0b01_00_11_10;
const BY_3: i32 = 0b10_01_00_11;

/// Four quarter rounds, one a column.
#[inline(always)]
fn columns([a, b, c, d]: [Row; 4]) -> [Row; 4] {
    let a = a.add(b);
    let d = d.mix::<16, 16>(a);
    let c = c.add(d);
    let b = b.mix::<12, 20>(c);
    let a = a.add(b);
    let d = d.mix::<8, 24>(a);
    let c = c.add(d);
    let b = b.mix::<7, 25>(c);
    [a, b, c, d]
}

/// Block `number` of ChaCha8's stream for `key`, with nonce 0.
#[inline(always)]
fn block(key: [u32; KEY_WORDS], number: u32) -> [u32; WORDS] {
    let half = |from| Row::of(core::array::from_fn(|i| key[from + i]));
    let start = [
        Row::of(CONSTANTS),
        half(0),
        half(4),
        Row::of([number, 0, 0, 0]),
    ];
    let mut rows = start;
    for _ in 0..4 {
        let [a, b, c, d] = columns(rows);
        let turned = [a, b.turn::<BY_1>(), c.turn::<BY_2>(), d.turn::<BY_3>()];
        let [a, b, c, d] = columns(turned);
        rows = [a, b.turn::<BY_3>(), c.turn::<BY_2>(), d.turn::<BY_1>()];
    }
    let rows: [[u32; 4]; 4] = core::array::from_fn(|i| rows[i].add(start[i]).words());
    core::array::from_fn(|i| rows[i / 4][i % 4])
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
        let key = core::array::from_fn(|i| self.key[i].get());
        for number in 0..BLOCKS {
            let first = number as usize * WORDS;
            for (i, word) in (first..).zip(block(key, number)) {
                match i.checked_sub(KEY_WORDS) {
                    Some(i) => self.ready[i * WORD..]
                        .iter()
                        .zip(word.to_le_bytes())
                        .for_each(|(place, byte)| place.set(byte)),
                    None => self.key[i].set(word),
                }
            }
        }
        self.left.set(READY as u32);
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
        // Nothing stays of what was given out.
        usize::from(self.ready[left as usize % ROOM].replace(0))
    }
}

/// One of the set bits of `bits`, each with nearly the same likelihood, chosen by `random`, eight random bits.
///
/// # Safety
/// [`Wide::scatters`](wide::Wide::scatters).
#[inline(always)]
pub unsafe fn any_bit_scattered(bits: u64, random: usize) -> usize {
    let skipped = (random * bits.count_ones() as usize) >> 8;
    // SAFETY: the caller keeps this function's contract.
    unsafe { wide::scatter(1 << skipped, bits) }.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_each_bit_is_as_likely() {
        if !wide::Wide::ask().scatters() {
            return;
        }
        let words = (1..400).map(|i| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(i) >> (i % 61));
        for bits in words.filter(|&bits| bits != 0) {
            // SAFETY: the processor has the instruction, as was just asked.
            let chosen = |random| unsafe { any_bit_scattered(bits, random) };
            let least = 256 / bits.count_ones() as usize;
            let of = |bit| (0..256).filter(|&random| chosen(random) == bit).count();
            assert!((0..64).all(|bit| (bits >> bit & 1 == 1) == (of(bit) >= least)));
        }
    }

    /// The first test vector for 8 rounds and a 256-bit key of draft-strombergson-chacha-test-vectors.
    #[test]
    fn the_block_is_that_of_chacha8() {
        let bytes: std::vec::Vec<u8> = block([0; KEY_WORDS], 0)
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

    #[test]
    fn blocks_are_numbered_and_each_byte_is_given_out_once() {
        let key = [7; KEY_WORDS];
        assert_ne!(block(key, 0), block(key, 1));
        // SAFETY: zeros in all fields are a generator that was not seeded.
        let random: Random = unsafe { core::mem::zeroed() };
        random.seed([1, 2, 3, 4]);
        let first = core::array::from_fn(|i| random.key[i].get());
        let mut given: std::vec::Vec<u8> = (0..READY).map(|_| random.byte() as u8).collect();
        assert!(!random.is_ready());
        let mut made: std::vec::Vec<u8> = (0..BLOCKS)
            .flat_map(|number| block(first, number))
            .skip(KEY_WORDS)
            .flat_map(u32::to_le_bytes)
            .collect();
        given.sort_unstable();
        made.sort_unstable();
        assert_eq!(given, made);
        assert!(
            random.ready.iter().all(|byte| byte.get() == 0),
            "nothing stays of what was given out"
        );
    }
}
