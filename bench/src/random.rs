//! Random numbers that cost next to nothing, and the sizes that programs ask for.
//!
//! A workload asks for one number an operation, so the generator is a single multiplication and a size
//! is one load from a table that fits in a few cache lines.

/// Knuth's linear congruential generator. Its high half is good enough to pick slots and sizes by.
pub struct Random(u64);

impl Random {
    /// A generator whose numbers depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
        random.bits();
        random.bits();
        random
    }

    /// The next 32 random bits.
    #[inline]
    pub fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// A number below `limit`, which is at most 2^32.
    #[inline]
    pub fn below(&mut self, limit: usize) -> usize {
        ((self.bits() as u64 * limit as u64) >> 32) as usize
    }
}

/// Entries in a table of sizes. A power of two.
const QUANTILES: usize = 256;

/// A distribution of sizes, as its 256 quantiles in bytes.
pub struct Sizes([u32; QUANTILES]);

/// Size in bytes and how many of 256 requests ask for it: mostly two to six words, a thin tail to 2 KiB,
/// 78 bytes on average.
const SKEWED: [(u32, usize); 14] = [
    (8, 12),
    (16, 50),
    (24, 38),
    (32, 45),
    (48, 36),
    (64, 26),
    (96, 16),
    (128, 12),
    (192, 8),
    (256, 5),
    (512, 4),
    (1024, 2),
    (1500, 1),
    (2048, 1),
];

impl Sizes {
    /// Small sizes as object-oriented programs ask for them.
    pub fn skewed() -> Self {
        let mut table = [0; QUANTILES];
        let sizes = SKEWED
            .iter()
            .flat_map(|&(size, count)| std::iter::repeat_n(size, count));
        table
            .iter_mut()
            .zip(sizes)
            .for_each(|(entry, size)| *entry = size);
        Sizes(table)
    }

    /// Sizes from `low` to `high` bytes, every doubling as likely as every other.
    pub fn log_uniform(low: usize, high: usize) -> Self {
        let ratio = high as f64 / low as f64;
        let quantile = |i: usize| low as f64 * ratio.powf(i as f64 / (QUANTILES - 1) as f64);
        Sizes(std::array::from_fn(|i| quantile(i).round() as u32))
    }

    /// Sizes from `low` to `high` bytes, all equally likely.
    pub fn uniform(low: usize, high: usize) -> Self {
        Sizes(std::array::from_fn(|i| {
            (low + (high - low) * i / (QUANTILES - 1)) as u32
        }))
    }

    /// One size for all.
    pub fn fixed(size: usize) -> Self {
        Sizes([size as u32; QUANTILES])
    }

    /// A size in bytes, drawn with `random`.
    #[inline]
    pub fn pick(&self, random: &mut Random) -> usize {
        self.0[random.bits() as usize % QUANTILES] as usize
    }

    /// The average size in bytes.
    pub fn mean(&self) -> usize {
        self.0.iter().map(|&size| size as usize).sum::<usize>() / QUANTILES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skewed_sizes_fill_the_table() {
        assert_eq!(
            SKEWED.iter().map(|&(_, count)| count).sum::<usize>(),
            QUANTILES
        );
        assert_eq!(Sizes::skewed().mean(), 78);
    }

    #[test]
    fn log_uniform_sizes_reach_both_ends() {
        let sizes = Sizes::log_uniform(8, 8192);
        assert_eq!((sizes.0[0], sizes.0[QUANTILES - 1]), (8, 8192));
    }

    #[test]
    fn numbers_stay_below_the_limit() {
        let mut random = Random::new(1);
        assert!((0..10_000).all(|_| random.below(7) < 7));
    }
}
