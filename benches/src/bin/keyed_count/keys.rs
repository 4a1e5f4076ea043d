//! The input, the same for all variants: a pure function from a record's index to its key.

/// Key of record `index` of split `split`. The first `keys` records have every key once, so that a
/// table is complete after them; the later ones are uniformly random over the same keys, which are
/// spread over all 64 bits.
#[inline(always)]
pub fn key(keys: u64, split: u32, splits: u64, index: u64) -> u64 {
    let n = index * splits + u64::from(split);
    let chosen = if n < keys { n } else { below(keys, mix(n)) };
    spread(chosen)
}

/// All keys.
pub fn all(keys: u64) -> impl Iterator<Item = u64> {
    (0..keys).map(spread)
}

/// An odd multiplier permutes the 64-bit numbers.
#[inline(always)]
fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Scales a random number down, without a division.
#[inline(always)]
fn below(keys: u64, random: u64) -> u64 {
    ((u128::from(random) * u128::from(keys)) >> 64) as u64
}

/// SplitMix64's mixing (Steele, Lea, Flood).
#[inline(always)]
pub fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
