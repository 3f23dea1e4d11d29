//! Many bytes at a time, cleared or found to be zero: 32 where the processor has registers of that width, else as
//! libc does it.
//!
//! The library is built for every x86-64, so the width is asked for once, at run time. Clearing reads first
//! and writes only to what is not zero. Much of a long block is as it was handed out, and lines that are not
//! written to need not be written back. The portable twin is also what Miri runs.

use core::ptr;

/// Bytes that are looked at together. What is gone through here is at least as long.
pub const STRIDE: usize = 256;

/// From here on bytes are seldom in the nearer caches: each line is decided about alone, so that few are written back.
const MUCH: usize = 16 << 10;

/// How wide the processor's registers are, and whether it has the other instructions that came with them: see
/// [`with_wide`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    wide: bool,
    scatters: bool,
}

/// Compiles a function for processors of which [`Wide::is_so`] is true, and nowhere else.
macro_rules! with_wide {
    ($function:item) => {
        #[cfg_attr(
            all(target_arch = "x86_64", not(miri)),
            target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")
        )]
        $function
    };
}
pub(crate) use with_wide;

impl Wide {
    /// Nothing is known of them.
    pub const UNKNOWN: Wide = Wide {
        wide: false,
        scatters: false,
    };

    /// Asks the processor, and whether the system keeps them.
    pub fn ask() -> Wide {
        let wide = machine::is_wide();
        Wide {
            wide,
            scatters: wide && machine::scatters(),
        }
    }

    /// Whether [`scatter`] is one short instruction.
    #[inline(always)]
    pub fn scatters(self) -> bool {
        self.scatters
    }

    /// Whether they are 32 bytes wide.
    #[inline(always)]
    pub fn is_so(self) -> bool {
        self.wide
    }

    /// Whether `bytes` bytes at `start`, [`STRIDE`] at least, are all zero.
    ///
    /// # Safety
    /// These bytes can be read.
    #[inline(always)]
    pub unsafe fn are_clear(self, start: usize, bytes: usize) -> bool {
        debug_assert!(bytes >= STRIDE);
        // SAFETY: the caller keeps this function's contract. The registers are there where `is_wide` said so.
        unsafe {
            if self.wide {
                machine::are_clear(start, bytes)
            } else {
                are_clear(start, bytes)
            }
        }
    }

    /// Makes `bytes` bytes at `start`, [`STRIDE`] at least, zero.
    ///
    /// # Safety
    /// The caller owns these bytes, and they can be written.
    #[inline(always)]
    pub unsafe fn clear(self, start: usize, bytes: usize) {
        debug_assert!(bytes >= STRIDE);
        // SAFETY: the caller owns the bytes, of which there are at least `STRIDE`.
        unsafe {
            if self.wide && bytes <= MUCH {
                machine::clear(start, bytes);
            } else if self.wide {
                machine::clear_lines(start, bytes);
            } else {
                ptr::write_bytes(start as *mut u8, 0, bytes);
            }
        }
    }
}

/// Bytes of the widest registers.
const WORD: usize = 32;
/// Bytes that are looked at together where there are few.
const FOUR: usize = 4 * WORD;

/// The most bytes that are gone through without a loop, whose end would not be foreseen.
pub const FEW: usize = 8 * FOUR;

/// The offsets of four words that cover `bytes` bytes, [`FOUR`] at most, and no others. Of less than a word all four are the
/// one that begins there. Sizes vary, so there is no branch for what is left over, which would not be foreseen.
#[inline(always)]
fn all_four(bytes: usize) -> [usize; 4] {
    let last = bytes.saturating_sub(WORD);
    let step = WORD.min(last);
    [0, step, last - step, last]
}

/// Whether `bytes` bytes (a multiple of 8, not 0, [`FEW`] at most) at `start` are all zero. Calls nothing.
///
/// # Safety
/// They can be read, and [`Wide::is_so`].
#[inline(always)]
pub unsafe fn few_are_clear(start: usize, bytes: usize) -> bool {
    // SAFETY: the caller keeps this function's contract.
    unsafe { machine::few_are_clear(start, bytes) }
}

/// Makes `bytes` bytes (a multiple of 8, not 0, [`FEW`] at most) at `start` zero. Calls nothing.
///
/// # Safety
/// The caller owns these bytes, and they can be written. [`Wide::is_so`].
#[inline(always)]
pub unsafe fn clear_few(start: usize, bytes: usize) {
    // SAFETY: the caller keeps this function's contract.
    unsafe { machine::clear_few(start, bytes) }
}

/// Makes `bytes` bytes (a multiple of 8, [`STRIDE`] at least) at `start` zero. Calls nothing.
///
/// # Safety
/// The caller owns these bytes, and they can be written. [`Wide::is_so`].
#[inline(always)]
pub unsafe fn clear_inline(start: usize, bytes: usize) {
    // SAFETY: the caller keeps this function's contract.
    unsafe { machine::clear_inline(start, bytes) }
}

/// The lowest bits of `bits` at the places of the set bits of `mask`.
///
/// # Safety
/// [`Wide::scatters`].
#[inline(always)]
pub unsafe fn scatter(bits: u64, mask: u64) -> u64 {
    // SAFETY: the caller keeps this function's contract.
    unsafe { machine::scatter(bits, mask) }
}

/// Zero bytes, to compare others with: few enough to stay in the innermost cache.
const NOUGHTS: usize = 1024;
static NOUGHT: [u8; NOUGHTS] = [0; NOUGHTS];

/// By libc's memcmp.
///
/// # Safety
/// These bytes can be read.
#[inline(never)]
unsafe fn are_clear(start: usize, bytes: usize) -> bool {
    let end = start + bytes;
    (start..end).step_by(NOUGHTS).all(|at| {
        let bytes = NOUGHTS.min(end - at);
        // SAFETY: the caller keeps this function's contract. Nobody writes there but by misuse, which is then found or
        // not.
        unsafe { core::slice::from_raw_parts(at as *const u8, bytes) == &NOUGHT[..bytes] }
    })
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod machine {
    use super::{all_four, FEW, FOUR, STRIDE, WORD};
    use core::arch::x86_64::{
        __cpuid_count, __m256i, _mm256_cmpgt_epi64, _mm256_loadu_si256, _mm256_maskload_epi64,
        _mm256_or_si256, _mm256_set1_epi64x, _mm256_setr_epi64x, _mm256_setzero_si256,
        _mm256_storeu_si256, _mm256_testz_si256, _pdep_u64, _xgetbv, CpuidResult,
    };
    use core::mem::MaybeUninit;

    const WORDS: usize = STRIDE / WORD;
    const _: () = assert!(STRIDE == 2 * FOUR);
    /// Bytes of a line of the cache.
    const LINE: usize = 2 * WORD;
    /// Leaf 1, ecx: the system keeps more than the registers of old, there is AVX, and popcnt.
    const OSXSAVE_AVX_AND_POPCNT: u32 = 1 << 27 | 1 << 28 | 1 << 23;
    /// Leaf 7, ebx: AVX2, and the instructions for bits BMI1 and BMI2.
    const AVX2_AND_BITS: u32 = 1 << 5 | 1 << 3 | 1 << 8;
    /// Leaf 0x8000_0001, ecx.
    const EXTENDED: u32 = 0x8000_0001;
    const LZCNT: u32 = 1 << 5;
    /// Of the extended control register 0: 16-byte registers and their upper halves are kept.
    const KEPT: u64 = 0b110;

    /// Whether there are 32-byte registers for whole numbers, which the system keeps, and the other instructions of
    /// [`with_wide`].
    pub fn is_wide() -> bool {
        let has_leaf_7 = leaf(0).eax >= 7;
        let kept = leaf(1).ecx & OSXSAVE_AVX_AND_POPCNT == OSXSAVE_AVX_AND_POPCNT;
        // SAFETY: OSXSAVE says that there is the instruction.
        has_leaf_7
            && kept
            && unsafe { extended_control() } & KEPT == KEPT
            && leaf(7).ebx & AVX2_AND_BITS == AVX2_AND_BITS
            && leaf(EXTENDED & !0xffff).eax >= EXTENDED
            && leaf(EXTENDED).ecx & LZCNT != 0
    }

    /// What the processor says of itself under `number`.
    fn leaf(number: u32) -> CpuidResult {
        // Unsafe until Rust 1.94 only.
        #[allow(unused_unsafe)]
        // SAFETY: every x86-64 processor has the instruction, which reads no memory.
        unsafe {
            __cpuid_count(number, 0)
        }
    }

    /// Leaf 0, ebx: makers whose processors take hundreds of cycles for `pdep` up to family 0x18.
    const MAKERS: [u32; 2] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"Hygo")];
    const LAST_SLOW_FAMILY: u32 = 0x18;

    /// Whether `pdep`, which [`is_wide`] says is there, is short.
    pub fn scatters() -> bool {
        let version = leaf(1).eax;
        let family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
        !MAKERS.contains(&leaf(0).ebx) || family > LAST_SLOW_FAMILY
    }

    /// # Safety
    /// [`is_wide`].
    #[inline(always)]
    pub unsafe fn scatter(bits: u64, mask: u64) -> u64 {
        // SAFETY: the caller's: the processor has the instruction, which reads no memory.
        unsafe { _pdep_u64(bits, mask) }
    }

    #[target_feature(enable = "xsave")]
    unsafe fn extended_control() -> u64 {
        // SAFETY: register 0 is there where the instruction is.
        unsafe { _xgetbv(0) }
    }

    /// Whether the [`STRIDE`] bytes at `at` are zero.
    ///
    /// # Safety
    /// These bytes can be read. [`is_wide`].
    #[inline(always)]
    unsafe fn stride_is_clear(at: usize) -> bool {
        // SAFETY: the caller's: `WORDS` words are readable at `at`, and the registers are there.
        unsafe {
            let first = at as *const __m256i;
            let mut sum = _mm256_loadu_si256(first);
            for i in 1..WORDS {
                sum = _mm256_or_si256(sum, _mm256_loadu_si256(first.add(i)));
            }
            _mm256_testz_si256(sum, sum) != 0
        }
    }

    /// Makes the words at four offsets zero.
    ///
    /// # Safety
    /// They are the caller's. [`is_wide`].
    #[inline(always)]
    unsafe fn clear_at(from: usize, [a, b, c, d]: [usize; 4]) {
        // SAFETY: the caller's: it owns the words, and the registers are there.
        unsafe {
            _mm256_storeu_si256((from + a) as *mut __m256i, _mm256_setzero_si256());
            _mm256_storeu_si256((from + b) as *mut __m256i, _mm256_setzero_si256());
            _mm256_storeu_si256((from + c) as *mut __m256i, _mm256_setzero_si256());
            _mm256_storeu_si256((from + d) as *mut __m256i, _mm256_setzero_si256());
        }
    }

    /// Whether `bytes` bytes, up to [`FOUR`], are zero. Without a branch for less than a word: sizes vary.
    ///
    /// # Safety
    /// As for [`few_are_clear`].
    #[inline(always)]
    unsafe fn fewest_are_clear(start: usize, bytes: usize) -> bool {
        let [a, b, c, d] = all_four(bytes);
        // SAFETY: the caller's: the bytes are readable, and of each word no others are read.
        unsafe {
            let starts = _mm256_setr_epi64x(0, 8, 16, 24);
            let mask = _mm256_cmpgt_epi64(_mm256_set1_epi64x(bytes as i64), starts);
            let word = |at: usize| _mm256_maskload_epi64((start + at) as *const i64, mask);
            let first = _mm256_or_si256(word(a), word(b));
            let sum = _mm256_or_si256(first, _mm256_or_si256(word(c), word(d)));
            _mm256_testz_si256(sum, sum) != 0
        }
    }

    /// Makes `bytes` bytes, up to [`FOUR`], zero. Without a branch for less than a word: the words then go elsewhere.
    ///
    /// # Safety
    /// As for [`clear_few`].
    #[inline(always)]
    unsafe fn clear_fewest(start: usize, bytes: usize) {
        let mut elsewhere = MaybeUninit::<[u8; FOUR]>::uninit();
        let elsewhere = elsewhere.as_mut_ptr() as usize;
        let last = bytes - 8;
        let is_long = (bytes >= WORD) as usize;
        let from = elsewhere ^ ((elsewhere ^ start) & is_long.wrapping_neg());
        // SAFETY: the caller's: it owns the bytes. Three times eight are all of less than a word: the second time is that of
        // 24. The words lie in the bytes, or elsewhere where there is room for all four.
        unsafe {
            for at in [0, (last / 2) & 8, last] {
                *((start + at) as *mut u64) = 0;
            }
            clear_at(from, all_four(bytes));
        }
    }

    /// The first and the last `N` words of `bytes` bytes, one or the other: these are all.
    ///
    /// # Safety
    /// They are readable. [`is_wide`].
    #[inline(always)]
    unsafe fn ends_are_clear<const N: usize>(start: usize, bytes: usize) -> bool {
        let end = start + bytes;
        // SAFETY: the caller's: the words are readable, and the registers are there.
        unsafe {
            let word = |at: usize| _mm256_loadu_si256(at as *const __m256i);
            let (mut first, mut last) = (word(start), word(end - WORD));
            for i in 1..N {
                first = _mm256_or_si256(first, word(start + i * WORD));
                last = _mm256_or_si256(last, word(end - (i + 1) * WORD));
            }
            let sum = _mm256_or_si256(first, last);
            _mm256_testz_si256(sum, sum) != 0
        }
    }

    /// Makes the first and the last `N` words of `bytes` bytes zero.
    ///
    /// # Safety
    /// They are the caller's. [`is_wide`].
    #[inline(always)]
    unsafe fn clear_ends<const N: usize>(start: usize, bytes: usize) {
        let end = start + bytes;
        for i in 0..N {
            // SAFETY: the caller's: it owns the words, and the registers are there.
            unsafe {
                let clear = |at| _mm256_storeu_si256(at as *mut __m256i, _mm256_setzero_si256());
                clear(start + i * WORD);
                clear(end - (i + 1) * WORD);
            }
        }
    }

    /// # Safety
    /// `bytes`, a multiple of 8, not 0 and [`FEW`] at most, are readable at `start`. [`is_wide`].
    #[inline(always)]
    pub unsafe fn few_are_clear(start: usize, bytes: usize) -> bool {
        debug_assert!(bytes != 0 && bytes <= FEW);
        // SAFETY: the caller's: the bytes are readable, and the words of both ends are none but these.
        unsafe {
            if bytes <= FOUR {
                fewest_are_clear(start, bytes)
            } else if bytes <= 2 * FOUR {
                ends_are_clear::<4>(start, bytes)
            } else if bytes <= 4 * FOUR {
                ends_are_clear::<8>(start, bytes)
            } else {
                ends_are_clear::<16>(start, bytes)
            }
        }
    }

    /// # Safety
    /// `bytes`, a multiple of 8, not 0 and [`FEW`] at most, are the caller's at `start`. [`is_wide`].
    #[inline(always)]
    pub unsafe fn clear_few(start: usize, bytes: usize) {
        debug_assert!(bytes != 0 && bytes <= FEW);
        // SAFETY: the caller's: it owns the bytes, and the words of both ends are none but these.
        unsafe {
            if bytes <= FOUR {
                clear_fewest(start, bytes);
            } else if bytes <= 2 * FOUR {
                clear_ends::<4>(start, bytes);
            } else if bytes <= 4 * FOUR {
                clear_ends::<8>(start, bytes);
            } else {
                clear_ends::<16>(start, bytes);
            }
        }
    }

    /// # Safety
    /// `bytes` >= [`STRIDE`] bytes at `start` are readable. [`is_wide`].
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub unsafe fn are_clear(start: usize, bytes: usize) -> bool {
        let last = start + bytes - STRIDE;
        let mut at = start;
        while at < last {
            // SAFETY: the caller's: a stride at up to `last`.
            if !unsafe { stride_is_clear(at) } {
                return false;
            }
            at += STRIDE;
        }
        // SAFETY: the caller guarantees at least a stride of readable bytes, which this is the last one of.
        unsafe { stride_is_clear(last) }
    }

    /// # Safety
    /// `bytes` >= [`STRIDE`] bytes at `start` are the caller's. [`is_wide`].
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub unsafe fn clear(start: usize, bytes: usize) {
        // SAFETY: the caller keeps this function's contract.
        unsafe { clear_inline(start, bytes) }
    }

    /// # Safety
    /// As for [`clear`].
    #[inline(always)]
    pub unsafe fn clear_inline(start: usize, bytes: usize) {
        let last = start + bytes - STRIDE;
        // What was used at all was used at its beginning: a look would cost more, and be foreseen less often.
        // SAFETY: the caller guarantees at least a stride, and that the registers are there.
        unsafe {
            clear_at(start, all_four(FOUR));
            clear_at(start + FOUR, all_four(FOUR));
        }
        let mut at = start + STRIDE;
        while at < last {
            // SAFETY: the caller's: a stride at up to `last`, and the registers are there.
            unsafe { clear_stride(at) };
            at += STRIDE;
        }
        // SAFETY: the caller guarantees at least a stride, which this is the last one of, and that the registers are there.
        unsafe { clear_stride(last) };
    }

    /// Makes the [`STRIDE`] bytes at `at` zero. Writes only where they are not.
    ///
    /// # Safety
    /// They are the caller's. [`is_wide`].
    #[inline(always)]
    unsafe fn clear_stride(at: usize) {
        // SAFETY: the caller's: it owns the bytes, and the registers are there.
        unsafe {
            if !stride_is_clear(at) {
                clear_at(at, all_four(FOUR));
                clear_at(at + FOUR, all_four(FOUR));
            }
        }
    }

    /// As [`clear`], each line alone.
    ///
    /// # Safety
    /// As for that.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub unsafe fn clear_lines(start: usize, bytes: usize) {
        let last = start + bytes - LINE;
        let clear_line = |at: usize| {
            // SAFETY: the caller's: a line at up to `last`.
            unsafe {
                let words = at as *mut __m256i;
                let either =
                    _mm256_or_si256(_mm256_loadu_si256(words), _mm256_loadu_si256(words.add(1)));
                if _mm256_testz_si256(either, either) == 0 {
                    _mm256_storeu_si256(words, _mm256_setzero_si256());
                    _mm256_storeu_si256(words.add(1), _mm256_setzero_si256());
                }
            }
        };
        let mut at = start;
        while at < last {
            clear_line(at);
            at += LINE;
        }
        clear_line(last);
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod machine {
    pub(super) use self::{clear as clear_inline, clear as clear_lines};
    pub(super) use super::are_clear;

    pub(super) use super::are_clear as few_are_clear;

    /// Nothing is known of other processors.
    pub fn is_wide() -> bool {
        false
    }

    pub fn scatters() -> bool {
        false
    }

    /// # Safety
    /// None.
    pub unsafe fn scatter(bits: u64, mask: u64) -> u64 {
        let mut rest = mask;
        let mut scattered = 0;
        for bit in 0..mask.count_ones() {
            scattered |= (bits >> bit & 1) << rest.trailing_zeros();
            rest &= rest - 1;
        }
        scattered
    }

    /// # Safety
    /// The bytes are the caller's.
    pub unsafe fn clear_few(start: usize, bytes: usize) {
        // SAFETY: the caller guarantees that the bytes are its own and can be written.
        unsafe { clear(start, bytes) };
    }

    /// # Safety
    /// The bytes are the caller's.
    pub unsafe fn clear(start: usize, bytes: usize) {
        // SAFETY: the caller guarantees that the bytes are its own and can be written.
        unsafe { core::ptr::write_bytes(start as *mut u8, 0, bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_few_bytes_too_every_one_is_seen_and_no_other_cleared() {
        const MOST: usize = FEW;
        if !Wide::ask().is_so() {
            return; // The functions are for processors with wide registers only.
        }
        for bytes in (8..=MOST).step_by(8) {
            let mut room = [0u64; MOST / 8 + 2];
            let start = room.as_mut_ptr() as usize + 8;
            // SAFETY: the room is longer than the bytes by 8 on either side, and the registers are there.
            unsafe {
                *((start - 1) as *mut u8) = 1;
                *((start + bytes) as *mut u8) = 1;
                assert!(few_are_clear(start, bytes));
                for at in 0..bytes {
                    *((start + at) as *mut u8) = 0x80;
                    assert!(!few_are_clear(start, bytes), "{at} of {bytes}");
                    *((start + at) as *mut u8) = 0;
                }
                ptr::write_bytes(start as *mut u8, 0xff, bytes);
                clear_few(start, bytes);
                assert!(few_are_clear(start, bytes), "{bytes}");
                assert_eq!(*((start - 1) as *const u8), 1);
                assert_eq!(*((start + bytes) as *const u8), 1);
            }
        }
    }

    #[test]
    fn both_widths_see_every_byte_and_clear_no_other() {
        const MOST: usize = 2 * STRIDE + 64;
        for wide in [Wide::UNKNOWN, Wide::ask()] {
            for bytes in (STRIDE..=MOST).step_by(8) {
                let mut room = [0u64; MOST / 8 + 2];
                let start = room.as_mut_ptr() as usize + 8;
                // SAFETY: the room is longer than the bytes by 8 on either side.
                unsafe {
                    *((start - 1) as *mut u8) = 1;
                    *((start + bytes) as *mut u8) = 1;
                    assert!(wide.are_clear(start, bytes));
                    for at in 0..bytes {
                        *((start + at) as *mut u8) = 0x80;
                        assert!(!wide.are_clear(start, bytes), "{at} of {bytes}");
                        wide.clear(start, bytes);
                        assert!(wide.are_clear(start, bytes), "{at} of {bytes}");
                    }
                    ptr::write_bytes(start as *mut u8, 0xff, bytes);
                    wide.clear(start, bytes);
                    assert!(wide.are_clear(start, bytes));
                    assert_eq!(*((start - 1) as *const u8), 1);
                    assert_eq!(*((start + bytes) as *const u8), 1);
                }
            }
        }
    }

    #[test]
    fn of_many_bytes_every_one_is_cleared_and_no_other() {
        for bytes in [
            MUCH - 8,
            MUCH,
            MUCH + 8,
            MUCH + 40,
            MUCH + 64,
            2 * MUCH + 72,
        ] {
            let mut room = std::vec![0_u64; bytes / 8 + 2];
            let start = room.as_mut_ptr() as usize + 8;
            // SAFETY: the room is longer than the bytes by 8 on either side.
            unsafe {
                *((start - 1) as *mut u8) = 1;
                *((start + bytes) as *mut u8) = 1;
                for at in [
                    0,
                    31,
                    32,
                    63,
                    64,
                    bytes / 2,
                    bytes - 65,
                    bytes - 33,
                    bytes - 1,
                ] {
                    *((start + at) as *mut u8) = 0x80;
                    assert!(!Wide::ask().are_clear(start, bytes), "{at} of {bytes}");
                    Wide::ask().clear(start, bytes);
                    assert!(are_clear(start, bytes), "{at} of {bytes}");
                }
                ptr::write_bytes(start as *mut u8, 0xff, bytes);
                Wide::ask().clear(start, bytes);
                assert!(are_clear(start, bytes), "{bytes}");
                assert_eq!(*((start - 1) as *const u8), 1);
                assert_eq!(*((start + bytes) as *const u8), 1);
            }
        }
    }
}
