//! Many updates at once, with the memory latencies overlapped.

use super::Table;
use super::part::NONE;
use crate::codec;
use crate::error::StateError;
use crate::key::{Namespace, StateKey, StateValue};

/// An item's index slot is asked for twice this far ahead of its update, its entry this far ahead:
/// enough to hide the latency, few enough to stay in the first-level cache until they are used.
const AHEAD: usize = 32;
/// Items whose intermediate results are kept; a power of two not below `2 * AHEAD`.
const RING: usize = 2 * AHEAD;
/// Items that are looked up in RocksDB by one call.
const CHUNK: usize = 64;

/// What is known of the items ahead.
struct Ring {
    index_hashes: [u32; RING],
    places: [u32; RING],
}

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
        let mut ring = Ring { index_hashes: [0; RING], places: [NONE; RING] };
        let mut spilled: Vec<Option<V>> = Vec::new();
        for (at, (hash, item)) in hashes.iter().zip(items.iter()).enumerate().take(2 * AHEAD) {
            self.ask_for_slot(*hash, key(item).1, at, &mut ring);
        }
        for (at, hash) in hashes.iter().enumerate().take(AHEAD) {
            self.ask_for_entry(*hash, at, &mut ring);
        }
        let misses = self.misses;
        let mut rest = items.drain(..);
        for (at, hash) in hashes.iter().enumerate() {
            if self.spill.is_some() && at % CHUNK == 0 {
                let chunk = &hashes[at..hashes.len().min(at + CHUNK)];
                let ahead = rest.as_slice();
                self.fetch_missing(chunk, |at| key(&ahead[at]), &mut spilled)?;
            }
            let (index_hash, place) = (ring.index_hashes[at % RING], ring.places[at % RING]);
            if let (Some(hash), Some(item)) =
                (hashes.get(at + 2 * AHEAD), rest.as_slice().get(2 * AHEAD))
            {
                self.ask_for_slot(*hash, key(item).1, at, &mut ring);
            }
            if let Some(hash) = hashes.get(at + AHEAD) {
                self.ask_for_entry(*hash, at + AHEAD, &mut ring);
            }
            let Some(item) = rest.next() else { break };
            let group = self.config.groups.of(*hash);
            let (k, ns) = key(&item);
            // Nearly always the candidate is the key's entry: one look serves all.
            if place != NONE {
                match self.parts[usize::from(group)].write_if(place, k, ns, self.now) {
                    Ok(Some(value)) => {
                        let before = value.is_some();
                        f(item, value);
                        let after = value.is_some();
                        self.live = self.live + u64::from(after) - u64::from(before);
                        continue;
                    }
                    Ok(None) => {}
                    Err(error) => {
                        return Err(StateError::codec(&self.config.name, "freeze an entry")(error));
                    }
                }
            }
            self.update_other(group, index_hash, item, &key, &mut f, spilled.get_mut(at % CHUNK))?;
        }
        self.hits += hashes.len() as u64 - (self.misses - misses);
        Ok(())
    }

    /// First step of an update: the cache line of its index slot.
    #[inline(always)]
    fn ask_for_slot(&self, hash: u64, ns: N, at: usize, ring: &mut Ring) {
        let index_hash = ns.index_hash(hash);
        self.parts[usize::from(self.config.groups.of(hash))].prefetch_slot(index_hash);
        ring.index_hashes[at % RING] = index_hash;
    }

    /// Second step: the cache line of its entry.
    #[inline(always)]
    fn ask_for_entry(&self, hash: u64, at: usize, ring: &mut Ring) {
        let part = &self.parts[usize::from(self.config.groups.of(hash))];
        let place = part.candidate(ring.index_hashes[at % RING]);
        if place != NONE {
            part.prefetch_entry(place);
        }
        ring.places[at % RING] = place;
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
        self.misses += 1;
        let mut value = spilled.and_then(Option::take);
        let stored = value.is_some();
        let k = k.clone();
        f(item, &mut value);
        if stored || value.is_some() {
            self.add(group, index_hash, k, ns, value, self.now)?;
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
        let Some(spill) = &self.spill else { return Ok(()) };
        let (mut stored, mut ends, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for (at, hash) in hashes.iter().enumerate() {
            let group = self.config.groups.of(*hash);
            let part = &self.parts[usize::from(group)];
            let (k, ns) = key(at);
            if part.spilled && part.find(ns.index_hash(*hash), k, ns) == NONE {
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
