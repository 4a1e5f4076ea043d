//! The hash that places keys: fixed, seedless, the same on every build and platform.
//!
//! Algorithm: wyhash's folded multiply (Wang Yi, <https://github.com/wangyi-fudan/wyhash>, public
//! domain), arranged by us: `fold(a, b)` is the 128-bit product of two words, its halves xored.
//! An integer costs one fold to absorb and one to finish; byte strings absorb 16 bytes a fold, with
//! the overlapping tail reads of wyhash. Both halves of the result avalanche: the high 32 bits choose
//! the key group, the low 32 bits the place in the group's index.
//!
//! Integers are widened to 64 bits and bytes are read little endian, so `usize` hashes alike
//! everywhere. Two things remain outside our hands: what a type's own `Hash` feeds in, and that std
//! feeds slices of integers as raw memory (little-endian platforms agree). A restore therefore
//! checks every key against the group that holds it.

use std::hash::{Hash, Hasher};

const START: u64 = 0xa076_1d64_78bd_642f;
const WORD: u64 = 0xe703_7ed1_a0b4_28db;
const BYTES: u64 = 0x8ebc_6af0_9c88_c6e3;
const FINISH: u64 = 0x5899_65cc_7537_4cc3;

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(le)
}

#[inline(always)]
fn half(bytes: &[u8]) -> u64 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[..4]);
    u64::from(u32::from_le_bytes(le))
}

/// See the module.
struct Folded(u64);

impl Hasher for Folded {
    #[inline]
    fn write(&mut self, mut bytes: &[u8]) {
        let length = bytes.len();
        let mut state = self.0 ^ BYTES;
        let (a, b) = if length <= 16 {
            if length >= 8 {
                (word(bytes), word(&bytes[length - 8..]))
            } else if length >= 4 {
                (half(bytes), half(&bytes[length - 4..]))
            } else if length > 0 {
                let middle = u64::from(bytes[length / 2]) << 8;
                (u64::from(bytes[0]) << 16 | middle | u64::from(bytes[length - 1]), 0)
            } else {
                (0, 0)
            }
        } else {
            let tail = &bytes[length - 16..];
            while bytes.len() > 16 {
                state = fold(word(bytes) ^ WORD, word(&bytes[8..]) ^ state);
                bytes = &bytes[16..];
            }
            (word(tail), word(&tail[8..]))
        };
        self.0 = fold(a ^ WORD ^ length as u64, b ^ state);
    }

    #[inline(always)]
    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value, WORD);
    }

    #[inline(always)]
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    #[inline(always)]
    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    #[inline(always)]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    #[inline(always)]
    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    #[inline(always)]
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    #[inline(always)]
    fn write_i8(&mut self, value: i8) {
        self.write_u64(value as u64);
    }

    #[inline(always)]
    fn write_i16(&mut self, value: i16) {
        self.write_u64(value as u64);
    }

    #[inline(always)]
    fn write_i32(&mut self, value: i32) {
        self.write_u64(value as u64);
    }

    #[inline(always)]
    fn write_i64(&mut self, value: i64) {
        self.write_u64(value as u64);
    }

    #[inline(always)]
    fn write_i128(&mut self, value: i128) {
        self.write_u128(value as u128);
    }

    #[inline(always)]
    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    #[inline(always)]
    fn finish(&self) -> u64 {
        fold(self.0 ^ FINISH, BYTES)
    }
}

/// The 64-bit hash of a key: the high 32 bits choose its key group, the low 32 bits its place in the
/// group's index. Stable: it is part of the checkpoint format.
#[inline]
pub fn hash_key<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = Folded(START);
    key.hash(&mut hasher);
    hasher.finish()
}

/// Spreads one more word into a 32-bit index hash.
#[inline(always)]
pub(crate) fn stir(hash: u64, value: u64) -> u32 {
    fold(hash ^ value.wrapping_mul(FINISH), WORD) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_vectors_never_change() {
        let found = [
            hash_key(&0u64),
            hash_key(&1u64),
            hash_key(&-1i32),
            hash_key(""),
            hash_key("a"),
            hash_key("staunch"),
            hash_key("exactly sixteen!"),
            hash_key("a key of more than thirty-two bytes, two folds"),
            hash_key(&(7u32, "pair")),
            hash_key(&()),
        ];
        let pinned: [u64; 10] = [
            0x3802_0ae3_f6b9_0077,
            0x50bf_32d9_311d_52d0,
            0x72f7_512f_fef3_1700,
            0xfc79_b0d7_bc45_536a,
            0x9509_7b87_e35f_8900,
            0x1861_1126_9d7b_f7e1,
            0x257f_453c_f5ef_f9f8,
            0x9357_2d46_56d6_2b69,
            0xc661_50b8_078f_03b2,
            0xda35_63d4_9912_e431,
        ];
        assert_eq!(found, pinned, "{found:#018x?}");
    }

    #[test]
    fn the_width_of_an_integer_does_not_matter() {
        assert_eq!(hash_key(&5u16), hash_key(&5u64));
        assert_eq!(hash_key(&5usize), hash_key(&5u64));
        assert_eq!(hash_key(&-5i8), hash_key(&-5i64));
    }

    #[test]
    fn every_input_bit_flips_about_half_of_both_output_halves() {
        for bit in 0..64 {
            let (mut high, mut low) = (0u32, 0u32);
            for i in 0..1000u64 {
                let key = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 50);
                let changed = hash_key(&key) ^ hash_key(&(key ^ 1 << bit));
                high += ((changed >> 32) as u32).count_ones();
                low += (changed as u32).count_ones();
            }
            for ones in [high, low] {
                assert!((15_000..17_000).contains(&ones), "bit {bit}: {ones} of 32000");
            }
        }
    }

    #[test]
    fn a_million_small_integers_and_strings_hardly_collide_in_the_low_half() {
        for strings in [false, true] {
            let mut low: Vec<u32> = (0..1_000_000u64)
                .map(|i| if strings { hash_key(&format!("user-{i}")) } else { hash_key(&i) } as u32)
                .collect();
            low.sort_unstable();
            let collisions = low.windows(2).filter(|pair| pair[0] == pair[1]).count();
            assert!(collisions < 200, "{collisions}, about 116 are expected of a random function");
        }
    }
}
