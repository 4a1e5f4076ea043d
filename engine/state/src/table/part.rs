//! The table of one key group: a hash index over a slab, a dirty list, and the section being frozen.

use super::index::Index;
use super::members::Members;
use super::slab::Slab;
use crate::codec::append_entry;
use crate::error::Problem;
use crate::key::{Namespace, StateKey, StateValue, hash_key};
use crate::prefetch::prefetch;

/// No place.
pub(super) const NONE: u32 = u32::MAX;

/// Bits of [`Entry::meta`] with the freeze number; 0 = clean. Only two numbers are in use at a time,
/// so wrapping around is harmless.
pub(super) const NUMBER: u32 = (1 << 30) - 1;
/// Bit of a clean entry: the RocksDB tier holds the same value.
pub(super) const STORED: u32 = 1 << 30;
/// Bit of a clean entry: used since the eviction's hand last passed.
pub(super) const RECENT: u32 = 1 << 31;

/// One key's value. `None` is a tombstone: deleted, and not yet known to be so everywhere.
pub(super) struct Entry<K, N, V> {
    pub(super) key: K,
    pub(super) ns: N,
    pub(super) value: Option<V>,
    /// The freeze in which it last became dirty, and two bits for clean entries.
    pub(super) meta: u32,
}

/// Frozen entries of one group.
#[derive(Default)]
pub(crate) struct Bytes {
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: u64,
}

/// See the module.
#[repr(C)]
pub(super) struct Part<K, N, V> {
    index: Index,
    pub(super) slab: Slab<Entry<K, N, V>>,
    /// Places by namespace.
    pub(super) members: Members<N>,
    /// Places that became dirty since the last freeze began, each once.
    pub(super) dirty: Vec<u32>,
    /// During a base freeze: places from here on are not serialised yet. [`NONE`] otherwise.
    pub(super) base_from: u32,
    /// RocksDB may hold entries of this group, so deletions must leave tombstones.
    pub(super) spilled: bool,
    pub(super) owned: bool,
    /// Where the eviction's hand stands.
    pub(super) hand: u32,
    /// The dirty list of the freeze in progress.
    pub(super) freezing: Vec<u32>,
    /// What the freeze in progress has serialised.
    pub(super) section: Bytes,
}

impl<K: StateKey, N: Namespace, V: StateValue> Part<K, N, V> {
    pub(super) fn new(group: u16, owned: bool) -> Self {
        Self {
            index: Index::new(usize::from(group)),
            slab: Slab::new(),
            members: Members::new(),
            dirty: Vec::new(),
            base_from: NONE,
            spilled: false,
            owned,
            hand: 0,
            freezing: Vec::new(),
            section: Bytes::default(),
        }
    }

    pub(super) fn used(&self) -> usize {
        self.slab.used()
    }

    pub(super) fn length(&self) -> u32 {
        self.slab.length()
    }

    #[inline(always)]
    pub(super) fn get(&self, at: u32) -> Option<&Entry<K, N, V>> {
        self.slab.get(at)
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Entry<K, N, V>> {
        self.slab.get_mut(at)
    }

    #[inline(always)]
    pub(super) fn prefetch_slot(&self, hash: u32) {
        self.index.prefetch(hash);
    }

    #[inline(always)]
    pub(super) fn prefetch_entry(&self, at: u32) {
        let address = self.slab.address(at);
        prefetch(address);
        if size_of::<Option<Entry<K, N, V>>>() > 64 {
            prefetch(address.cast::<u8>().wrapping_add(64));
        }
    }

    /// The first place whose hash matches; its key may still differ. Touches the index only.
    #[inline(always)]
    pub(super) fn candidate(&self, hash: u32) -> u32 {
        self.index.first(hash)
    }

    /// The place of a key.
    #[inline]
    pub(super) fn find(&self, hash: u32, key: &K, ns: N) -> u32 {
        self.index
            .find(hash, |place| self.get(place).is_some_and(|entry| entry.key == *key && entry.ns == ns))
    }

    /// Adds an entry whose key is not there; returns its place, and whether it is the first of its namespace.
    pub(super) fn insert(&mut self, hash: u32, entry: Entry<K, N, V>) -> (u32, bool) {
        let ns = entry.ns;
        let place = self.slab.insert(entry);
        self.index.insert(hash, place);
        (place, self.members.add(ns, place))
    }

    /// Forgets the entry at a place: no tombstone remains.
    pub(super) fn forget(&mut self, place: u32) -> Option<Entry<K, N, V>> {
        let entry = self.slab.remove(place)?;
        self.index.remove(entry.ns.index_hash(hash_key(&entry.key)), place);
        // If it goes to RocksDB, its namespace has an entry still.
        let (slab, stays) = (&self.slab, self.spilled && entry.value.is_some());
        let holds = |place| slab.get(place).is_some_and(|other| other.ns == entry.ns);
        self.members.forget(entry.ns, stays, holds);
        Some(entry)
    }

    /// The value at a place, about to change: marked dirty for `now`, the old value serialised
    /// first if the freeze in progress still needs it.
    #[inline(always)]
    pub(super) fn write(&mut self, place: u32, now: u32) -> Result<Option<&mut Option<V>>, Problem> {
        self.write_where(place, now, |_| true)
    }

    /// [`Part::write`], if the place holds this key.
    #[inline(always)]
    pub(super) fn write_if(
        &mut self,
        place: u32,
        key: &K,
        ns: N,
        now: u32,
    ) -> Result<Option<&mut Option<V>>, Problem> {
        self.write_where(place, now, |entry| entry.key == *key && entry.ns == ns)
    }

    #[inline(always)]
    fn write_where(
        &mut self,
        place: u32,
        now: u32,
        wanted: impl FnOnce(&Entry<K, N, V>) -> bool,
    ) -> Result<Option<&mut Option<V>>, Problem> {
        let Some(entry) = self.slab.get_mut(place).filter(|entry| wanted(entry)) else {
            return Ok(None);
        };
        let number = entry.meta & NUMBER;
        if number != now {
            // Outside a freeze no entry has another number than 0 or `now`, and `base_from` is NONE.
            if number != 0 || place >= self.base_from {
                append_entry(&entry.key, entry.ns, &entry.value, &mut self.section.bytes)?;
                self.section.entries += 1;
            }
            entry.meta = now;
            self.dirty.push(place);
        }
        Ok(Some(&mut entry.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_entry_of_two_integers_takes_half_a_cache_line() {
        assert_eq!(size_of::<Option<Entry<u64, (), u64>>>(), 32);
    }

    #[test]
    fn a_part_agrees_with_a_map_through_inserts_and_removals() {
        let mut part = Part::<u64, (), u64>::new(3, true);
        let mut model = BTreeMap::new();
        let mut random = 1u64;
        for round in 0..200_000u64 {
            random = hash_key(&random);
            let key = random % 3000;
            let hash = hash_key(&key) as u32;
            let place = part.find(hash, &key, ());
            assert_eq!(model.get(&key).copied().unwrap_or(NONE), place);
            if place == NONE {
                let entry = Entry { key, ns: (), value: Some(round), meta: 0 };
                model.insert(key, part.insert(hash, entry).0);
            } else if !random.is_multiple_of(3) {
                assert_eq!(part.forget(place).unwrap().key, key);
                model.remove(&key);
            }
        }
        assert_eq!(part.used(), model.len());
    }
}
