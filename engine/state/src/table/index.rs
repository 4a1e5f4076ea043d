//! The hash index of one key group: from 32 bits of hash to a place in the slab.
//!
//! A bucket is one cache line: eight tags, compared without branches, and their eight places. What
//! does not fit goes to the next bucket that has room, so a search ends at the first bucket that is
//! not full. A tag is the whole 32-bit hash, so an entry is hardly ever touched in vain, and a resize
//! touches none. The home of a hash is `hash * buckets >> 32`: any number of buckets will do; they
//! grow by half, and a resize runs through both arrays in order.

use super::part::NONE;
use crate::prefetch::prefetch;

/// Slots of a bucket.
const SLOTS: usize = 8;

/// A cache line of slots, filled from the front; tag 0 is an empty slot.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u32; SLOTS],
    places: [u32; SLOTS],
}

const EMPTY: Bucket = Bucket { tags: [0; SLOTS], places: [0; SLOTS] };

impl Bucket {
    /// One bit for each slot with this tag.
    #[inline(always)]
    fn matches(&self, tag: u32) -> u32 {
        // In this form it becomes two vector comparisons.
        const BITS: [u32; SLOTS] = [1, 2, 4, 8, 16, 32, 64, 128];
        let mut found = [0; SLOTS];
        for slot in 0..SLOTS {
            found[slot] = if self.tags[slot] == tag { BITS[slot] } else { 0 };
        }
        found.iter().fold(0, |bits, bit| bits | bit)
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.tags[SLOTS - 1] != 0
    }

    fn used(&self) -> usize {
        self.tags.iter().position(|tag| *tag == 0).unwrap_or(SLOTS)
    }
}

/// See the module.
pub(super) struct Index {
    buckets: Box<[Bucket]>,
    used: usize,
    /// Makes the sizes of different groups differ, so that they do not grow in the same batch.
    jitter: usize,
}

/// The tag of a hash: never that of an empty slot.
#[inline(always)]
fn tag(hash: u32) -> u32 {
    hash | 1
}

impl Index {
    pub(super) fn new(jitter: usize) -> Self {
        Self { buckets: vec![EMPTY; 1].into_boxed_slice(), used: 0, jitter }
    }

    #[inline(always)]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline(always)]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// Starts loading the line where a hash has its home.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u32) {
        prefetch(self.buckets.as_ptr().wrapping_add(self.home(tag(hash))));
    }

    /// The first place with this hash, or [`NONE`].
    #[inline(always)]
    pub(super) fn first(&self, hash: u32) -> u32 {
        let tag = tag(hash);
        let mut at = self.home(tag);
        loop {
            let bucket = &self.buckets[at];
            let bits = bucket.matches(tag);
            if bits != 0 {
                return bucket.places[bits.trailing_zeros() as usize % SLOTS];
            }
            if !bucket.is_full() {
                return NONE;
            }
            at = self.after(at);
        }
    }

    /// The place with this hash that `wanted` accepts, or [`NONE`].
    #[inline]
    pub(super) fn find(&self, hash: u32, mut wanted: impl FnMut(u32) -> bool) -> u32 {
        let tag = tag(hash);
        let mut at = self.home(tag);
        loop {
            let bucket = &self.buckets[at];
            let mut bits = bucket.matches(tag);
            while bits != 0 {
                let place = bucket.places[bits.trailing_zeros() as usize % SLOTS];
                if wanted(place) {
                    return place;
                }
                bits &= bits - 1;
            }
            if !bucket.is_full() {
                return NONE;
            }
            at = self.after(at);
        }
    }

    /// Adds a place.
    pub(super) fn insert(&mut self, hash: u32, place: u32) {
        // Five eighths full at most: few buckets overflow.
        if self.used + 1 > self.buckets.len() * 5 {
            self.grow();
        }
        self.used += 1;
        self.put(tag(hash), place);
    }

    fn put(&mut self, tag: u32, place: u32) {
        let mut at = self.home(tag);
        while self.buckets[at].is_full() {
            at = self.after(at);
        }
        let bucket = &mut self.buckets[at];
        let slot = bucket.used();
        (bucket.tags[slot], bucket.places[slot]) = (tag, place);
    }

    fn grow(&mut self) {
        let first = 4 + self.jitter % 5;
        let count = (self.buckets.len() + self.buckets.len() / 2).max(first);
        let old = std::mem::replace(&mut self.buckets, vec![EMPTY; count].into_boxed_slice());
        for bucket in &old {
            for slot in 0..bucket.used() {
                self.put(bucket.tags[slot], bucket.places[slot]);
            }
        }
    }

    /// Removes a place that is there.
    pub(super) fn remove(&mut self, hash: u32, place: u32) {
        let tag = tag(hash);
        let mut at = self.home(tag);
        let mut slot = loop {
            let bucket = &self.buckets[at];
            let mine = |slot: &usize| bucket.tags[*slot] == tag && bucket.places[*slot] == place;
            if let Some(slot) = (0..SLOTS).find(mine) {
                break slot;
            }
            if !bucket.is_full() {
                debug_assert!(false, "an entry of the slab is in the index");
                return;
            }
            at = self.after(at);
        };
        self.used -= 1;
        // While the hole is in a full bucket, a later entry may have come past it: fetch it back.
        while self.buckets[at].is_full() {
            let Some((from, other)) = self.came_past(at) else { break };
            let moved = (self.buckets[from].tags[other], self.buckets[from].places[other]);
            (self.buckets[at].tags[slot], self.buckets[at].places[slot]) = moved;
            (at, slot) = (from, other);
        }
        let bucket = &mut self.buckets[at];
        let last = bucket.used() - 1;
        (bucket.tags[slot], bucket.places[slot]) = (bucket.tags[last], bucket.places[last]);
        bucket.tags[last] = 0;
    }

    /// An entry in the run of buckets after a full one that would belong in it or before it.
    fn came_past(&self, full: usize) -> Option<(usize, usize)> {
        let count = self.buckets.len();
        let distance = |from: usize, to: usize| if to >= from { to - from } else { to + count - from };
        let mut at = self.after(full);
        while at != full {
            let bucket = &self.buckets[at];
            let past = |slot: &usize| distance(self.home(bucket.tags[*slot]), at) >= distance(full, at);
            if let Some(slot) = (0..bucket.used()).find(past) {
                return Some((at, slot));
            }
            if !bucket.is_full() {
                return None;
            }
            at = self.after(at);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash_key;
    use std::collections::BTreeMap;

    /// Random inserts and removals; `hash` decides how badly the keys collide.
    fn agrees_with_a_map(hash: impl Fn(u32) -> u32, keys: u32, rounds: u64) {
        let mut index = Index::new(3);
        let mut model = BTreeMap::new();
        let mut random = 1u64;
        for _ in 0..rounds {
            random = hash_key(&random);
            // The key is the place, so that a place can be checked.
            let key = (random >> 32) as u32 % keys;
            let found = index.find(hash(key), |place| place == key);
            assert_eq!(found, if model.contains_key(&key) { key } else { NONE });
            if model.remove(&key).is_some() {
                index.remove(hash(key), key);
            } else if !random.is_multiple_of(4) {
                index.insert(hash(key), key);
                model.insert(key, ());
            }
        }
        assert_eq!(index.used, model.len());
        let slots = index.buckets.iter().map(Bucket::used).sum::<usize>();
        assert_eq!(slots, model.len());
        assert!(model.keys().all(|key| index.first(hash(*key)) != NONE));
    }

    #[test]
    fn good_hashes_work_through_growth_and_removal() {
        agrees_with_a_map(|key| hash_key(&key) as u32, 20_000, 400_000);
    }

    #[test]
    fn hashes_that_all_collide_work_too() {
        agrees_with_a_map(|_| 0, 300, 20_000);
        agrees_with_a_map(|_| u32::MAX, 300, 20_000);
        agrees_with_a_map(|key| (key % 3) << 30, 500, 50_000);
    }

    #[test]
    fn crowded_neighbours_at_the_end_of_the_array_wrap_around() {
        agrees_with_a_map(|key| u32::MAX - (key % 7) * (1 << 24), 400, 50_000);
    }
}
