//! The memory tier of what is kept in order: for each key group a map sorted by encoded keys ([`crate::order`]).
//!
//! The rules are those of the hash [table](super): what is frozen is the state at the barrier, only clean entries
//! move to RocksDB, and none while a base is being frozen or linked. What differs:
//!
//! - **Tombstones stand apart** from what is there, so that the first entry is found without passing what was
//!   deleted before it. What came and went between two checkpoints leaves none.
//! - **Eviction goes from the last key to the first**, in each group: of timers, the latest move.
//! - Reading in order does not bring spilled entries back into memory; asking for one does.
//!
//! Here keys are bytes. [`OrderedTable`](super::OrderedTable) and [`TimerTable`](super::TimerTable) know what they
//! mean.

mod evict;
mod freeze;
mod key;
mod load;
mod part;
mod scan;

pub(super) use key::behind;
pub(super) use scan::Range;

use super::{Spill, TableConfig, TableStats};
use crate::error::StateError;
use crate::key::StateValue;
use crate::order::OrderError;
use part::{Entry, Part, STORED};
use std::sync::Arc;

/// The hash of the key in an encoded one, which tells its group.
pub(super) type HashOf = fn(&[u8]) -> Result<u64, OrderError>;

/// See the module.
pub(super) struct Sorted<V> {
    pub(super) config: TableConfig,
    /// By group number; the groups of other workers stay empty.
    parts: Vec<Part<V>>,
    owned: Vec<u16>,
    /// Number of the freeze that comes next.
    now: u32,
    freeze: Option<freeze::Progress>,
    spill: Option<Arc<Spill>>,
    /// More than one reference: a base is still to be hard-linked, so nothing may be evicted.
    gate: Arc<()>,
    /// Entries in memory, tombstones included.
    entries: usize,
    hits: u64,
    misses: u64,
    eviction: evict::Eviction,
    /// Serialised bytes and entries seen, for the estimate of what entries own on the heap.
    coded: (u64, u64),
    /// Freezes of which something was read back.
    proofs: usize,
    hash_of: HashOf,
}

impl<V: StateValue> Sorted<V> {
    pub(super) fn new(config: TableConfig, hash_of: HashOf) -> Self {
        let mut owned = config.owned.clone();
        owned.sort_unstable();
        owned.dedup();
        owned.retain(|group| *group < config.groups.count());
        let part = |group| Part::new(owned.binary_search(&group).is_ok());
        Self {
            parts: (0..config.groups.count()).map(part).collect(),
            owned,
            config,
            now: 1,
            freeze: None,
            spill: None,
            gate: Arc::new(()),
            entries: 0,
            hits: 0,
            misses: 0,
            eviction: evict::Eviction::default(),
            coded: (0, 0),
            proofs: 0,
            hash_of,
        }
    }

    pub(super) fn owned(&self) -> &[u16] {
        &self.owned
    }

    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            keys_in_memory: self
                .owned
                .iter()
                .map(|group| self.parts[usize::from(*group)].live.len() as u64)
                .sum(),
            spilled: self.spill.as_ref().map_or(0, |spill| spill.estimate()),
            memory_bytes: self.memory_bytes() as u64,
            hits: self.hits,
            misses: self.misses,
        }
    }

    /// Changes the value of a key and returns what `f` returns. `None` in: it has no value; `None` out: deleted.
    pub(super) fn update<R>(
        &mut self,
        group: u16,
        key: &[u8],
        f: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, StateError> {
        let part = &mut self.parts[usize::from(group)];
        if !part.owned {
            let problem = format!("key group {group} belongs to another worker");
            return Err(StateError::internal(&self.config.name, problem));
        }
        let before = part.used();
        let freezing = "freeze an entry";
        let outcome = part.change(key, self.now, f);
        let out = match outcome.map_err(StateError::codec(&self.config.name, freezing))? {
            Ok(out) => {
                self.hits += 1;
                out
            }
            Err(f) => {
                self.misses += 1;
                let mut value = self.fetch(group, key)?;
                let stored = value.is_some();
                let out = f(&mut value);
                let part = &mut self.parts[usize::from(group)];
                part.set(key, value, stored, self.now)
                    .map_err(StateError::codec(&self.config.name, freezing))?;
                out
            }
        };
        self.entries = self.entries + self.parts[usize::from(group)].used() - before;
        Ok(out)
    }

    /// The value of a key; a spilled one is loaded into memory.
    pub(super) fn get(&mut self, group: u16, key: &[u8]) -> Result<Option<&V>, StateError> {
        if self.parts[usize::from(group)].live.contains_key(key) {
            self.hits += 1;
        } else {
            self.misses += 1;
            let Some(value) = self.fetch(group, key)? else { return Ok(None) };
            self.entries += 1;
            let entry = Entry { value: Some(value), meta: STORED };
            self.parts[usize::from(group)].live.insert(key::Key::new(key), entry);
        }
        Ok(self.parts[usize::from(group)].live.get(key).and_then(|entry| entry.value.as_ref()))
    }

    /// The value that RocksDB has of a key that is not in memory.
    fn fetch(&self, group: u16, key: &[u8]) -> Result<Option<V>, StateError> {
        let part = &self.parts[usize::from(group)];
        let Some(spill) = self.spill.as_ref().filter(|_| part.spilled && !part.gone.contains_key(key)) else {
            return Ok(None);
        };
        let Some(bytes) = spill.get(&stored_key(group, key))? else { return Ok(None) };
        let value = postcard::from_bytes(&bytes);
        value.map(Some).map_err(StateError::codec(&self.config.name, "read a spilled value"))
    }
}

/// A key as RocksDB has it.
fn stored_key(group: u16, key: &[u8]) -> Vec<u8> {
    [&group.to_be_bytes()[..], key].concat()
}
