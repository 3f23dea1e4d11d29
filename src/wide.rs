//! Many bytes at a time, cleared or found to be zero: 32 where the processor has registers of that width, else as
//! libc does it.
//!
//! The library is built for every x86-64, so the width is asked for once, at run time. Clearing reads first, up to 16
//! KiB, and writes only to what is not zero. Much of a long block is as it was handed out, and lines that are not
//! written to need not be written back. The portable twin is also what Miri runs.

use core::ptr;

/// Bytes that are looked at together. What is gone through here is at least as long.
pub const STRIDE: usize = 256;

/// From here on bytes are seldom in the nearer caches, and libc's memset does not fetch them before it writes.
const MUCH: usize = 16 << 10;

/// How wide the processor's registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide(bool);

impl Wide {
    /// Nothing is known of them.
    pub const UNKNOWN: Wide = Wide(false);

    /// Asks the processor, and whether the system keeps them.
    pub fn ask() -> Wide {
        Wide(machine::is_wide())
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
            if self.0 {
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
            if self.0 && bytes <= MUCH {
                machine::clear(start, bytes);
            } else {
                ptr::write_bytes(start as *mut u8, 0, bytes);
            }
        }
    }
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
    use super::STRIDE;
    use core::arch::x86_64::{
        __cpuid_count, __m256i, _mm256_loadu_si256, _mm256_or_si256, _mm256_setzero_si256,
        _mm256_storeu_si256, _mm256_testz_si256, _xgetbv, CpuidResult,
    };

    const WORDS: usize = STRIDE / core::mem::size_of::<__m256i>();
    /// Leaf 1, ecx: the system keeps more than the registers of old, and there is AVX.
    const OSXSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
    /// Leaf 7, ebx.
    const AVX2: u32 = 1 << 5;
    /// Of the extended control register 0: 16-byte registers and their upper halves are kept.
    const KEPT: u64 = 0b110;

    /// Whether there are 32-byte registers for whole numbers, and the system keeps them.
    pub fn is_wide() -> bool {
        let has_leaf_7 = leaf(0).eax >= 7;
        let kept = leaf(1).ecx & OSXSAVE_AND_AVX == OSXSAVE_AND_AVX;
        // SAFETY: OSXSAVE says that there is the instruction.
        has_leaf_7
            && kept
            && unsafe { extended_control() } & KEPT == KEPT
            && leaf(7).ebx & AVX2 != 0
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

    #[target_feature(enable = "xsave")]
    unsafe fn extended_control() -> u64 {
        // SAFETY: register 0 is there where the instruction is.
        unsafe { _xgetbv(0) }
    }

    /// Whether the [`STRIDE`] bytes at `at` are zero.
    ///
    /// # Safety
    /// These bytes can be read.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn stride_is_clear(at: usize) -> bool {
        let word = |i: usize| {
            // SAFETY: the caller guarantees `WORDS` readable words at `at`, and `i` is below `WORDS` at every
            // call.
            unsafe { _mm256_loadu_si256((at as *const __m256i).add(i)) }
        };
        let mut sum = [word(0), word(1)];
        for i in (2..WORDS).step_by(2) {
            sum = [
                _mm256_or_si256(sum[0], word(i)),
                _mm256_or_si256(sum[1], word(i + 1)),
            ];
        }
        let sum = _mm256_or_si256(sum[0], sum[1]);
        _mm256_testz_si256(sum, sum) != 0
    }

    /// # Safety
    /// `bytes` >= [`STRIDE`] bytes at `start` are readable. [`is_wide`].
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub unsafe fn are_clear(start: usize, bytes: usize) -> bool {
        let last = start + bytes - STRIDE;
        let mut at = start;
        // SAFETY: the caller's: a stride at up to `last`.
        while unsafe { stride_is_clear(at) } {
            if at == last {
                return true;
            }
            at = (at + STRIDE).min(last);
        }
        false
    }

    /// # Safety
    /// `bytes` >= [`STRIDE`] bytes at `start` are the caller's. [`is_wide`].
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub unsafe fn clear(start: usize, bytes: usize) {
        let last = start + bytes - STRIDE;
        let mut at = start;
        loop {
            // SAFETY: the caller's: a stride at up to `last`.
            unsafe {
                if !stride_is_clear(at) {
                    let words = at as *mut __m256i;
                    (0..WORDS)
                        .for_each(|i| _mm256_storeu_si256(words.add(i), _mm256_setzero_si256()));
                }
            }
            if at == last {
                return;
            }
            at = (at + STRIDE).min(last);
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod machine {
    pub(super) use super::are_clear;

    /// Nothing is known of other processors.
    pub fn is_wide() -> bool {
        false
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
}
