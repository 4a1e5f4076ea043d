//! Many updates at once, with the memory latencies overlapped.

use super::Table;
use super::part::NONE;
use crate::codec;
use crate::error::StateError;
use crate::key::{Namespace, StateKey, StateValue};

/// Items whose cache lines are fetched ahead of their updates, and that are looked up in RocksDB by
/// one call: enough to hide the latency, few enough to stay in the first-level cache until used.
const CHUNK: usize = 64;

impl<K: StateKey, N: Namespace, V: StateValue> Table<K, N, V> {
    /// Applies `f` to the value of each item's key, in order. `None` in means that the key has no
    /// value; `None` out deletes it. `hashes` are the [`hash_key`](crate::hash_key)s of the items'
    /// keys, without namespaces. Leaves `items` empty, with its capacity.
    ///
    /// # Errors
    /// A key belongs to another worker, a value under freeze could not be serialised, or the RocksDB
    /// tier failed. Some of the items were then applied: go back to a checkpoint.
    pub fn update_batch<T>(
        &mut self,
        hashes: &[u64],
        items: &mut Vec<T>,
        key: impl Fn(&T) -> (&K, N),
        mut f: impl FnMut(T, &mut Option<V>),
    ) -> Result<(), StateError> {
        if hashes.len() != items.len() {
            let problem = format!("{} hashes for {} items", hashes.len(), items.len());
            return Err(StateError::internal(&self.tier.config.name, problem));
        }
        let groups = self.tier.config.groups;
        let misses = self.tier.misses;
        let mut ahead = [(0u16, 0u32, NONE); CHUNK];
        let mut spilled: Vec<Option<V>> = Vec::new();
        let mut rest = items.drain(..);
        for hashes in hashes.chunks(CHUNK) {
            let chunk = &rest.as_slice()[..hashes.len()];
            for ((hash, item), next) in hashes.iter().zip(chunk).zip(&mut ahead) {
                let (group, index_hash) = (groups.of(*hash), key(item).1.index_hash(*hash));
                self.parts[usize::from(group)].prefetch_slot(index_hash);
                *next = (group, index_hash, NONE);
            }
            for (group, index_hash, place) in &mut ahead[..hashes.len()] {
                let part = &self.parts[usize::from(*group)];
                *place = part.candidate(*index_hash);
                if *place != NONE {
                    part.prefetch_entry(*place);
                }
            }
            if self.tier.spill.is_some() {
                self.fetch_missing(hashes, |at| key(&chunk[at]), &mut spilled)?;
            }
            let now = self.tier.now;
            for (at, (group, index_hash, place)) in ahead[..hashes.len()].iter().enumerate() {
                let Some(item) = rest.next() else { break };
                let (k, ns) = key(&item);
                // Nearly always the candidate is the key's entry: one look serves all.
                if *place != NONE {
                    match self.parts[usize::from(*group)].write_if(*place, k, ns, now) {
                        Ok(Some(value)) => {
                            let before = value.is_some();
                            f(item, value);
                            if value.is_some() != before {
                                self.live = self.live + u64::from(!before) - u64::from(before);
                            }
                            continue;
                        }
                        Ok(None) => {}
                        Err(error) => {
                            return Err(StateError::codec(&self.tier.config.name, "freeze an entry")(error));
                        }
                    }
                }
                self.update_other(*group, *index_hash, item, &key, &mut f, spilled.get_mut(at))?;
            }
        }
        self.tier.hits += hashes.len() as u64 - (self.tier.misses - misses);
        Ok(())
    }

    /// Fetches the memory of keys that are about to be used one after another; `hashes` as for
    /// [`Table::update_batch`], no more than a few dozen. What is spilled is not loaded.
    pub fn prefetch(&self, hashes: &[u64], ns: N) {
        let place =
            |hash: &u64| (&self.parts[usize::from(self.tier.config.groups.of(*hash))], ns.index_hash(*hash));
        for (part, index_hash) in hashes.iter().map(place) {
            part.prefetch_slot(index_hash);
        }
        for (part, index_hash) in hashes.iter().map(place) {
            let candidate = part.candidate(index_hash);
            if candidate != NONE {
                part.prefetch_entry(candidate);
            }
        }
    }

    /// The update of a key that was not where the look ahead said: it came since, another key has the
    /// same hash, or it is not in memory.
    #[inline(never)]
    fn update_other<T>(
        &mut self,
        group: u16,
        index_hash: u32,
        item: T,
        key: &impl Fn(&T) -> (&K, N),
        f: &mut impl FnMut(T, &mut Option<V>),
        spilled: Option<&mut Option<V>>,
    ) -> Result<(), StateError> {
        let (k, ns) = key(&item);
        let place = self.parts[usize::from(group)].find(index_hash, k, ns);
        if place != NONE {
            return self.change(group, place, |value| f(item, value));
        }
        self.tier.misses += 1;
        let mut value = spilled.and_then(Option::take);
        let stored = value.is_some();
        let k = k.clone();
        f(item, &mut value);
        if stored || value.is_some() {
            self.add(group, index_hash, k, ns, value, self.tier.now)?;
        }
        Ok(())
    }

    /// Reads what a chunk misses in memory from RocksDB, by one call. `values` gets one entry per item.
    fn fetch_missing<'a>(
        &self,
        hashes: &[u64],
        key: impl Fn(usize) -> (&'a K, N),
        values: &mut Vec<Option<V>>,
    ) -> Result<(), StateError> {
        values.clear();
        values.resize_with(hashes.len(), || None);
        let Some(spill) = &self.tier.spill else { return Ok(()) };
        let (mut stored, mut ends, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for (at, hash) in hashes.iter().enumerate() {
            let group = self.tier.config.groups.of(*hash);
            let part = &self.parts[usize::from(group)];
            let (k, ns) = key(at);
            if part.spilled && part.find(ns.index_hash(*hash), k, ns) == NONE {
                codec::append_spill_key(group, k, ns, &mut stored)
                    .map_err(StateError::codec(&self.tier.config.name, "write a key"))?;
                ends.push(stored.len());
                wanted.push(at);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let from = std::iter::once(&0).chain(&ends);
        let keys: Vec<&[u8]> = from.zip(&ends).map(|(from, end)| &stored[*from..*end]).collect();
        spill.multi_get(&keys, |found, bytes| {
            let value = postcard::from_bytes(bytes);
            let value = value.map_err(StateError::codec(&self.tier.config.name, "read a spilled value"))?;
            values[wanted[found]] = Some(value);
            Ok(())
        })
    }
}
