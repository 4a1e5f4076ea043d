//! Many updates at once, with the memory latencies overlapped.

use super::part::NONE;
use super::Table;
use crate::codec;
use crate::error::StateError;
use crate::key::{Namespace, StateKey, StateValue};

/// Items whose cache lines are fetched ahead: enough to hide the latency, few enough to stay in the
/// first-level cache until they are used.
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
            return Err(StateError::internal(&self.config.name, problem));
        }
        let groups = self.config.groups;
        let mut index_hashes = [0u32; CHUNK];
        let mut places = [NONE; CHUNK];
        let mut spilled: Vec<Option<V>> = Vec::new();
        let mut rest = items.drain(..);
        for hashes in hashes.chunks(CHUNK) {
            let ahead = &rest.as_slice()[..hashes.len()];
            for ((hash, item), index_hash) in hashes.iter().zip(ahead).zip(&mut index_hashes) {
                *index_hash = key(item).1.index_hash(*hash);
                self.parts[usize::from(groups.of(*hash))].prefetch_slot(*index_hash);
            }
            for ((hash, index_hash), place) in hashes.iter().zip(&index_hashes).zip(&mut places) {
                let part = &self.parts[usize::from(groups.of(*hash))];
                *place = part.candidate(*index_hash);
                if *place != NONE {
                    part.prefetch_entry(*place);
                }
            }
            if self.spill.is_some() {
                self.fetch_missing(hashes, &places, |at| key(&ahead[at]), &mut spilled)?;
            }
            for (at, (hash, item)) in hashes.iter().zip(&mut rest).enumerate() {
                let (group, index_hash) = (groups.of(*hash), index_hashes[at]);
                let (k, ns) = key(&item);
                let part = &mut self.parts[usize::from(group)];
                let mut place = places[at];
                if place != NONE {
                    // Nearly always the candidate is the key's entry: one look serves all.
                    match part.write_if(place, k, ns, self.now) {
                        Ok(Some(value)) => {
                            let before = value.is_some();
                            f(item, value);
                            let after = value.is_some();
                            self.live = self.live + u64::from(after) - u64::from(before);
                            self.hits += 1;
                            continue;
                        }
                        Ok(None) => {}
                        Err(error) => {
                            return Err(StateError::codec(&self.config.name, "freeze an entry")(error));
                        }
                    }
                }
                place = part.find(index_hash, k, ns);
                if place != NONE {
                    self.hits += 1;
                    self.change(group, place, |value| f(item, value))?;
                    continue;
                }
                self.misses += 1;
                let mut value = match spilled.get_mut(at).filter(|_| places[at] == NONE) {
                    Some(fetched) => fetched.take(),
                    // The hash matched another key, so nothing was fetched ahead.
                    None if part.spilled => self.fetch(group, k, ns)?,
                    None => None,
                };
                let stored = value.is_some();
                let k = k.clone();
                f(item, &mut value);
                if stored || value.is_some() {
                    self.add(group, index_hash, k, ns, value, self.now)?;
                }
            }
        }
        Ok(())
    }

    /// Reads what a chunk misses in memory from RocksDB, by one call. `values` gets one entry per item.
    fn fetch_missing<'a>(
        &self,
        hashes: &[u64],
        places: &[u32],
        key: impl Fn(usize) -> (&'a K, N),
        values: &mut Vec<Option<V>>,
    ) -> Result<(), StateError> {
        values.clear();
        values.resize_with(hashes.len(), || None);
        let Some(spill) = &self.spill else { return Ok(()) };
        let (mut stored, mut ends, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (hash, place)) in hashes.iter().zip(places).enumerate() {
            let group = self.config.groups.of(*hash);
            if *place == NONE && self.parts[usize::from(group)].spilled {
                let (k, ns) = key(at);
                codec::append_spill_key(group, k, ns, &mut stored)
                    .map_err(StateError::codec(&self.config.name, "write a key"))?;
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
            let value = value.map_err(StateError::codec(&self.config.name, "read a spilled value"))?;
            values[wanted[found]] = Some(value);
            Ok(())
        })
    }
}
