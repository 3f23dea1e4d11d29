//! The bytes of a slot in hardened mode: cleared, verified, and ended by a secret word.
//!
//! ```text
//!   | asked for ............ | canary, 8 bytes | zero ... |     live
//!   | zero ............................................. |     free
//! ```
//!
//! The canary depends on its address and on a secret of the process. Its first byte is never zero. So the zero byte
//! that ends a string, written one too far, is found. Its last byte is always zero, so that a string that runs into it
//! ends there.

use super::{Known, Plain};
use crate::units::LOCAL_MAX;
use crate::wide::{self, Wide};
use core::ops::Range;
use core::ptr;
use static_assertions::const_assert;

/// Bytes of a canary.
pub const CANARY: usize = 8;

/// What canaries are made of: two words that only this process knows.
#[derive(Clone, Copy)]
pub struct Secret {
    /// Mixed into the address.
    pub plain: u64,
    /// What the mixture is multiplied by: an odd number.
    pub factor: u64,
}

impl Secret {
    /// The canary at `address`: the middle of a product, which depends on all bits of both factors.
    #[inline]
    pub fn canary(self, address: usize) -> u64 {
        let product = u128::from(address as u64 ^ self.plain) * u128::from(self.factor);
        let word = (product >> 64) as u64 ^ product as u64;
        (word | u64::from(word & 0xff == 0)) & (u64::MAX >> 8)
    }
}

/// Writes the canary after a block of `size` bytes.
///
/// # Safety
/// [`CANARY`] bytes after the block are the caller's.
#[inline]
pub unsafe fn seal(block: usize, size: usize, secret: Secret) {
    let place = block + size;
    // SAFETY: the caller owns the `CANARY` bytes after the block.
    unsafe { ptr::write_unaligned(place as *mut u64, secret.canary(place)) };
}

/// The first byte after a block of `size` bytes that is not its canary's, counted from the block's end.
///
/// # Safety
/// [`CANARY`] bytes after the block are readable.
#[inline]
pub unsafe fn broken_seal(block: usize, size: usize, secret: Secret) -> Option<usize> {
    let place = block + size;
    // SAFETY: the caller guarantees that the `CANARY` bytes after the block are readable.
    let found = unsafe { ptr::read_unaligned(place as *const u64) };
    let wrong = found ^ secret.canary(place);
    (wrong != 0).then(|| wrong.to_le().trailing_zeros() as usize / 8)
}

/// Takes the canary away after a block of `size` bytes.
///
/// # Safety
/// [`CANARY`] bytes after the block are the caller's.
#[inline]
pub unsafe fn unseal(block: usize, size: usize) {
    // SAFETY: the caller owns the `CANARY` bytes after the block.
    unsafe { ptr::write_unaligned((block + size) as *mut u64, 0) };
}

/// The bytes of as many whole words as hold `bytes` bytes.
#[inline(always)]
pub const fn whole_words(bytes: usize) -> usize {
    (bytes + 7) & !7
}

/// Whether the `bytes` bytes before `end` are zero, and up to 7 before those.
///
/// # Safety
/// They can be read, and so can the 7.
#[inline]
pub unsafe fn are_clear_before(end: usize, bytes: usize) -> bool {
    let bytes = whole_words(bytes);
    // SAFETY: the caller's: as many bytes as are whole words can be read.
    let word = |at: usize| unsafe { ptr::read_unaligned((end - at) as *const u64) };
    (8..=bytes).step_by(8).fold(0, |sum, at| sum | word(at)) == 0
}

/// Whether the last bytes of a slot of `bytes` >= `size` + [`CANARY`] bytes, up to eight of those after its
/// canary, are zero as they were left: a write below the next slot ends there.
///
/// # Safety
/// The slot's bytes can be read.
#[inline]
pub unsafe fn ends_in_zero(block: usize, size: usize, bytes: usize) -> bool {
    let behind = (bytes - size - CANARY).min(8) as u32;
    // SAFETY: the caller's: the slot has at least eight bytes.
    let last = unsafe { ptr::read_unaligned((block + bytes - 8) as *const u64) };
    let others = u64::BITS - 8 * behind;
    u64::from_le(last).checked_shr(others).unwrap_or(0) == 0
}

/// Whether all bytes after the canary of a block of `size` bytes, in a room of `bytes` bytes, are zero as they were
/// left.
///
/// # Safety
/// The room, whose length is a multiple of 8, is readable, and has at least `size` + [`CANARY`] bytes.
pub unsafe fn rest_is_zero(block: usize, size: usize, bytes: usize, wide: Wide) -> bool {
    let from = size + CANARY;
    let words = whole_words(from);
    // SAFETY: the caller's: all of it lies in the room, and `words` is a multiple of 8.
    unsafe {
        (from..words).all(|at| *((block + at) as *const u8) == 0)
            && (words == bytes || are_clear(block + words, bytes - words, wide))
    }
}

/// Makes `bytes` bytes at `block` zero.
///
/// # Safety
/// The caller owns these bytes, and they can be written.
#[inline]
pub unsafe fn clear(block: usize, bytes: usize) {
    // SAFETY: the caller guarantees that the bytes are its own and can be written.
    unsafe { ptr::write_bytes(block as *mut u8, 0, bytes) };
}

/// Two words, moved at once.
type Pair = [u64; 2];
const PAIR: usize = core::mem::size_of::<Pair>();
/// Four pairs: a line of the cache.
const FOUR: usize = 4 * PAIR;
/// Up to here bytes are gone through four pairs at once, and nothing is called. From here on by [`Wide`].
pub const FEW: usize = LOCAL_MAX;
const_assert!(FEW <= wide::FEW);

/// The pair at `at`.
///
/// # Safety
/// The bytes of the pair can be read.
#[inline(always)]
unsafe fn pair(at: usize) -> Pair {
    // SAFETY: the caller guarantees readable bytes, and every bit pattern is a valid pair of words.
    unsafe { ptr::read_unaligned(at as *const Pair) }
}

#[inline(always)]
fn either(a: Pair, b: Pair) -> Pair {
    [a[0] | b[0], a[1] | b[1]]
}

/// The offsets of four pairs that cover the last 64 of `bytes` bytes, 16 or more, or all if there are fewer, and
/// no others. Sizes vary, so there is no branch for what is left over, which would not be foreseen.
#[inline(always)]
fn last_four(bytes: usize) -> [usize; 4] {
    let first = bytes.max(FOUR) - FOUR;
    let last = bytes - PAIR;
    let step = PAIR.min(last - first);
    [first, first + step, last - step, last]
}

/// Makes `bytes` bytes at `block` zero, and up to 7 after them.
///
/// # Safety
/// They are the caller's, and `block` is a multiple of 8.
#[inline(always)]
pub unsafe fn clear_words(block: usize, bytes: usize, wide: Wide) {
    if bytes > FEW {
        // SAFETY: the caller owns the bytes, and the block is a multiple of 8, so the last word belongs to it.
        return unsafe { wide.clear(block, whole_words(bytes)) };
    }
    // SAFETY: the caller owns the bytes, and the block is a multiple of 8.
    unsafe { clear_few::<Plain>(block, bytes) };
}

/// As [`clear_words`], for up to [`FEW`] bytes: calls nothing.
///
/// # Safety
/// They are the caller's, and `block` is a multiple of 8. Where `F` knows of wide registers there is one byte at least,
/// and the registers are there.
#[inline(always)]
pub unsafe fn clear_few<F: Known>(block: usize, bytes: usize) {
    let bytes = whole_words(bytes);
    if F::WIDE {
        // SAFETY: the caller's: the last word belongs to the block, which is a multiple of 8.
        return unsafe { wide::clear_few(block, bytes) };
    }
    if bytes < PAIR {
        if bytes != 0 {
            // SAFETY: the caller's: eight bytes at a multiple of 8.
            unsafe { *(block as *mut u64) = 0 };
        }
        return;
    }
    // SAFETY: the caller owns the bytes. `at` leaves room for a pair of words.
    let clear = |at: usize| unsafe { ptr::write_unaligned((block + at) as *mut Pair, [0; 2]) };
    let mut at = FOUR;
    while at < bytes {
        (1..=4).for_each(|pairs| clear(at - pairs * PAIR));
        at += FOUR;
    }
    last_four(bytes).into_iter().for_each(clear);
}

/// Whether `bytes` bytes (a multiple of 8, not 0) at `block` are all zero.
///
/// # Safety
/// They are readable, and `block` is a multiple of 8.
#[inline(always)]
pub unsafe fn are_clear(block: usize, bytes: usize, wide: Wide) -> bool {
    if bytes > FEW {
        // SAFETY: the caller guarantees that the bytes are readable and the block a multiple of 8.
        return unsafe { wide.are_clear(block, bytes) };
    }
    // SAFETY: the caller guarantees that the bytes are readable and the block a multiple of 8.
    unsafe { few_are_clear::<Plain>(block, bytes) }
}

/// As [`are_clear`], for up to [`FEW`] bytes: calls nothing.
///
/// # Safety
/// They are readable, and `block` is a multiple of 8. Where `F` knows of wide registers, they are there.
#[inline(always)]
pub unsafe fn few_are_clear<F: Known>(block: usize, bytes: usize) -> bool {
    if F::WIDE {
        // SAFETY: the caller guarantees readable bytes, and that the registers are there.
        return unsafe { wide::few_are_clear(block, bytes) };
    }
    if bytes < PAIR {
        // SAFETY: the caller guarantees that the block, a multiple of 8, has a readable word.
        return unsafe { *(block as *const u64) } == 0;
    }
    // SAFETY: the caller guarantees that the bytes are readable. `at` leaves room for a pair of words.
    let seen = |at: usize| unsafe { pair(block + at) };
    let mut sum = [0; 2];
    let mut at = FOUR;
    while at < bytes {
        for pairs in 1..=4 {
            sum = either(sum, seen(at - pairs * PAIR));
        }
        at += FOUR;
    }
    let [a, b, c, d] = last_four(bytes).map(seen);
    sum = either(either(sum, either(a, b)), either(c, d));
    sum[0] | sum[1] == 0
}

/// The offset of the first byte of `bytes` (a multiple of 8, not 0) at `block` that is not zero.
///
/// # Safety
/// They are readable, and `block` is a multiple of 8.
#[inline]
pub unsafe fn first_dirty(block: usize, bytes: usize, wide: Wide) -> Option<usize> {
    // SAFETY: the caller guarantees that the bytes are readable and the block a multiple of 8.
    unsafe {
        if are_clear(block, bytes, wide) {
            return None;
        }
        dirty_byte(block, bytes)
    }
}

/// The first of the bytes `range` of `block` that is not zero.
///
/// # Safety
/// They are readable, and `block` is a multiple of 8.
pub unsafe fn first_dirty_of(block: usize, range: Range<usize>, wide: Wide) -> Option<usize> {
    let words = whole_words(range.start)..range.end & !7;
    // SAFETY: the caller guarantees that the bytes are readable and the block a multiple of 8.
    unsafe {
        let is_dirty = |at: &usize| *((block + at) as *const u8) != 0;
        if words.is_empty() || !are_clear(block + words.start, words.len(), wide) {
            return range.clone().find(is_dirty);
        }
        let (mut before, mut after) = (range.start..words.start, words.end..range.end);
        before.find(is_dirty).or_else(|| after.find(is_dirty))
    }
}

/// As [`first_dirty`], byte for byte.
///
/// # Safety
/// These bytes can be read.
#[cold]
unsafe fn dirty_byte(block: usize, bytes: usize) -> Option<usize> {
    // SAFETY: the caller guarantees that the bytes are readable.
    (0..bytes).find(|at| unsafe { *((block + at) as *const u8) } != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = Secret {
        plain: 0x0123_4567_89ab_cdef,
        factor: 0xfedc_ba98_7654_3211,
    };

    #[test]
    fn the_first_dirty_byte_is_found_wherever_it_is() {
        for bytes in (8..=3 * FEW).step_by(8) {
            let mut words = [0u64; 3 * FEW / 8];
            let start = words.as_mut_ptr() as usize;
            // SAFETY: the array has `bytes` bytes from `start` on.
            assert_eq!(unsafe { first_dirty(start, bytes, Wide::ask()) }, None);
            for at in [0, 1, bytes / 2, bytes - 1] {
                // SAFETY: `at` is less than `bytes`, so it lies in the array.
                unsafe {
                    *((start + at) as *mut u8) = 1;
                    assert_eq!(first_dirty(start, bytes, Wide::ask()), Some(at));
                    clear(start, bytes);
                }
            }
        }
    }

    #[test]
    fn of_any_range_the_first_dirty_byte_is_found() {
        let mut words = [0u64; 80];
        let start = words.as_mut_ptr() as usize;
        for range in [0..1, 3..9, 8..16, 5..640, 16..600, 7..8, 639..640] {
            for at in 0..640 {
                // SAFETY: `at` and the range lie in the array.
                unsafe {
                    *((start + at) as *mut u8) = 1;
                    let found = first_dirty_of(start, range.clone(), Wide::ask());
                    assert_eq!(found, range.contains(&at).then_some(at));
                    *((start + at) as *mut u8) = 0;
                }
            }
        }
    }

    #[test]
    fn clearing_clears_every_word_and_none_behind() {
        for bytes in 0..=2 * FEW {
            let mut words = [u64::MAX; 2 * FEW / 8 + 8];
            let end = bytes.div_ceil(8);
            // SAFETY: the array is the test's own and longer than `bytes`.
            unsafe { clear_words(words.as_mut_ptr() as usize, bytes, Wide::ask()) };
            let clear = words.iter().take_while(|&&word| word == 0).count();
            let kept = words[end..].iter().all(|&word| word == u64::MAX);
            assert!(clear == end && kept, "{bytes}");
        }
    }

    #[test]
    fn of_the_bytes_before_an_end_every_one_is_seen() {
        for bytes in 1..=64 {
            let mut room = [0u8; 80];
            let end = room.as_mut_ptr() as usize + 75;
            for at in 1..=75 {
                // SAFETY: both lie in the array.
                unsafe {
                    *((end - at) as *mut u8) = 1;
                    let clear = are_clear_before(end, bytes);
                    assert_eq!(clear, at > (bytes + 7) & !7, "{at} of {bytes}");
                    *((end - at) as *mut u8) = 0;
                }
            }
        }
    }

    #[test]
    fn the_bytes_behind_the_canary_at_a_slots_end_are_looked_at() {
        for size in 0..=48 {
            for at in 0..56 {
                let mut room = [0u64; 7];
                let start = room.as_mut_ptr() as usize;
                let seen = at >= size + CANARY && at >= 48;
                // SAFETY: `at` is less than the length of the array.
                unsafe {
                    *((start + at) as *mut u8) = 0x80;
                    assert_eq!(ends_in_zero(start, size, 56), !seen, "{size} {at}");
                }
            }
        }
    }

    #[test]
    fn each_byte_of_a_canary_is_looked_at() {
        let mut room = [0u64; 8];
        let start = room.as_mut_ptr() as usize;
        for size in 0..56 {
            for at in 0..CANARY {
                // SAFETY: the array has room for the block and its canary.
                unsafe {
                    seal(start, size, SECRET);
                    assert_eq!(broken_seal(start, size, SECRET), None);
                    *((start + size + at) as *mut u8) ^= 0x40;
                    assert_eq!(broken_seal(start, size, SECRET), Some(at));
                }
            }
        }
    }

    #[test]
    fn a_canary_begins_with_a_byte_that_is_not_zero_and_ends_with_one_that_is() {
        for address in (0..100_000).map(|i| 0x55_5555_0000 + 16 * i) {
            let bytes = SECRET.canary(address).to_le_bytes();
            assert!(bytes[0] != 0 && bytes[7] == 0);
        }
    }
}
