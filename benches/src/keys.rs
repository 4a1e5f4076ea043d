//! The input of benchmarks of keyed state: a pure function from a record's index to its key.

/// Key of record `index` of split `split`. The first `keys` records have every key once, so that a
/// table is complete after them; the later ones are uniformly random over the same keys, which are
/// spread over all 64 bits.
#[inline(always)]
#[must_use]
pub fn key(keys: u64, split: u32, splits: u64, index: u64) -> u64 {
    let n = index * splits + u64::from(split);
    let chosen = if n < keys { n } else { below(keys, mix(n)) };
    spread(chosen)
}

/// All keys.
pub fn all(keys: u64) -> impl Iterator<Item = u64> {
    (0..keys).map(spread)
}

/// Spreads numbers over all 64 bits, no two to the same: an odd multiplier permutes.
#[inline(always)]
#[must_use]
pub fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Scales a random number down, without a division.
#[inline(always)]
fn below(keys: u64, random: u64) -> u64 {
    ((u128::from(random) * u128::from(keys)) >> 64) as u64
}

/// SplitMix64's mixing (Steele, Lea, Flood).
#[inline(always)]
#[must_use]
pub fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_first_records_have_every_key_once_and_later_ones_have_no_other() {
        let first: Vec<u64> = (0..500).flat_map(|at| [key(1000, 0, 2, at), key(1000, 1, 2, at)]).collect();
        let known: BTreeSet<u64> = all(1000).collect();
        assert_eq!(first.iter().copied().collect::<BTreeSet<_>>(), known);
        assert_eq!(known.len(), first.len());
        assert!((500..9000).all(|at| known.contains(&key(1000, 1, 2, at))));
    }
}
