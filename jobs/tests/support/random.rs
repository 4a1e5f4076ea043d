//! Random numbers from a seed (SplitMix64), so that a run can be repeated.

/// A source of random numbers.
pub struct Random(u64);

impl Random {
    /// From a seed; the same seed gives the same numbers.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below this one.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// The seeds of the tests that kill at random: always the same few, and as many as `STAUNCH_SEEDS` says if it is
/// set (for a long night).
pub fn seeds(usual: u64) -> Vec<u64> {
    let count = std::env::var("STAUNCH_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    (1..=count).collect()
}
