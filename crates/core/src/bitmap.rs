//! Bit tricks on bitmap words: which slots of a word exist, where runs of free pages begin.
//!
//! Pure arithmetic on integers. A set bit means free, throughout.

use crate::units::WORD_SLOTS;

/// The bits of word `word` that stand for slots, in a slab of `slots` slots.
#[inline]
pub const fn slots_of_word(slots: usize, word: usize) -> u64 {
    let first = word * WORD_SLOTS;
    if slots <= first {
        0
    } else if slots - first >= WORD_SLOTS {
        u64::MAX
    } else {
        (1 << (slots - first)) - 1
    }
}

/// The positions at which `n` >= 1 set bits in a row begin.
///
/// Each step doubles the run length that a bit stands for (H. Warren, "Hacker's Delight", 6-3).
#[inline]
pub const fn starts_of_runs(bits: u128, n: u32) -> u128 {
    let mut starts = bits;
    let mut proved = 1;
    while proved < n && starts != 0 {
        let step = if proved < n - proved {
            proved
        } else {
            n - proved
        };
        starts &= starts >> step;
        proved += step;
    }
    starts
}

/// The first position below 64 at which `n` set bits in a row begin, looking at up to 128 bits.
#[inline]
pub const fn first_run(bits: u128, n: u32) -> Option<u32> {
    let starts = starts_of_runs(bits, n) as u64;
    if starts == 0 {
        None
    } else {
        Some(starts.trailing_zeros())
    }
}

/// The length of the longest run of set bits that begins below position 64.
#[inline]
pub const fn longest_run(bits: u128) -> u32 {
    let mut longest = 0;
    let mut at = (bits as u64).trailing_zeros();
    while at < 64 {
        let ones = (bits >> at).trailing_ones();
        if ones > longest {
            longest = ones;
        }
        let behind = at + ones;
        let rest = if behind < 64 {
            bits as u64 >> behind
        } else {
            0
        };
        at = if rest == 0 {
            64
        } else {
            behind + rest.trailing_zeros()
        };
    }
    longest
}

/// The first bit of `bits`, which are not all 0, at or after bit `start` modulo 64, going round.
#[inline]
pub fn next_bit(bits: u64, start: usize) -> usize {
    let start = start as u32 % u64::BITS;
    ((bits.rotate_right(start).trailing_zeros() + start) % u64::BITS) as usize
}

/// Among so few positions each set bit of a word is as likely as any other: the one after a gap would stand out.
const FEW_POSITIONS: u32 = 16;

/// One of the set bits of `bits`, chosen by `random`, eight random bits; 0 chooses the lowest. Of a word whose set
/// bits lie among the first [`FEW_POSITIONS`], each with the same likelihood; else the next one from a random position.
#[inline(always)]
pub fn any_bit(bits: u64, random: usize) -> usize {
    let width = u64::BITS - bits.leading_zeros();
    if width > FEW_POSITIONS {
        return next_bit(bits, (random * width as usize) >> 8);
    }
    let skipped = (random * bits.count_ones() as usize) >> 8;
    let rest = (0..skipped).fold(bits, |bits, _| bits & bits.wrapping_sub(1));
    rest.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bit_is_a_set_one_and_each_of_a_few_is_as_likely() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for shift in 0..64 {
            let word = bits >> shift;
            let chosen = (0..256).map(|random| any_bit(word, random));
            assert!(word == 0 || chosen.clone().all(|bit| word >> bit & 1 == 1));
            assert!(word == 0 || any_bit(word, 0) == word.trailing_zeros() as usize);
            bits = bits.rotate_left(5);
        }
        for few in [0b1001_0001_u64, 0xffff, 0b10, 0x8080, 0xff] {
            let of = |bit| {
                (0..256)
                    .filter(|&random| any_bit(few, random) == bit)
                    .count()
            };
            let least = 256 / few.count_ones() as usize;
            assert!((0..16).all(|bit| (few >> bit & 1 == 1) == (of(bit) >= least)));
        }
    }

    fn plain_longest(bits: u128) -> u32 {
        (0..64)
            .map(|at| (bits >> at).trailing_ones())
            .max()
            .unwrap()
    }

    fn plain_first(bits: u128, n: u32) -> Option<u32> {
        (0..64).find(|&at| (bits >> at).trailing_ones() >= n)
    }

    fn samples() -> impl Iterator<Item = u128> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u128;
        let random = core::iter::repeat_with(move || {
            state = state
                .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
                .wrapping_add(1);
            let word = state ^ (state >> 64);
            if word & 4 == 0 {
                word | word >> 3 | word << 9
            } else {
                word
            }
        });
        let runs = (0..128).flat_map(|at| {
            (0..=128 - at).map(move |n| {
                if n == 128 {
                    u128::MAX
                } else {
                    ((1 << n) - 1) << at
                }
            })
        });
        random.take(20_000).chain(runs)
    }

    #[test]
    fn runs_are_found_as_by_counting() {
        for bits in samples() {
            assert_eq!(longest_run(bits), plain_longest(bits), "{bits:x}");
            for n in 1..=64 {
                assert_eq!(first_run(bits, n), plain_first(bits, n), "{bits:x} {n}");
            }
        }
    }

    #[test]
    fn word_masks_count_every_slot_once() {
        for slots in 0..=512 {
            let bits: u32 = (0..8)
                .map(|word| slots_of_word(slots, word).count_ones())
                .sum();
            assert_eq!(bits as usize, slots);
        }
    }

    #[test]
    fn the_next_bit_is_found_from_any_start() {
        for bits in [
            1,
            1 << 63,
            0x8000_0000_0000_0001,
            0x00f0_0000_1000_0002,
            u64::MAX,
        ] {
            for start in 0..256 {
                let plain = (start..)
                    .find(|bit| bits >> (bit % 64) & 1 == 1)
                    .map(|bit| bit % 64);
                assert_eq!(Some(next_bit(bits, start)), plain, "{bits:x} {start}");
            }
        }
    }
}
