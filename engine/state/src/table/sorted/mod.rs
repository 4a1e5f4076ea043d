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

use super::tier::Tier;
use super::{FreezeMode, Frozen, TableConfig, TableStats};
use crate::error::StateError;
use crate::key::StateValue;
use crate::order::OrderError;
use part::{Entry, Part, STORED};

/// The hash of the key in an encoded one, which tells its group.
pub(super) type HashOf = fn(&[u8]) -> Result<u64, OrderError>;

/// See the module.
pub(super) struct Sorted<V> {
    pub(super) tier: Tier,
    /// By group number; the groups of other workers stay empty.
    parts: Vec<Part<V>>,
    hash_of: HashOf,
}

impl<V: StateValue> Sorted<V> {
    pub(super) fn new(config: TableConfig, hash_of: HashOf) -> Self {
        let (groups, tier) = (config.groups, Tier::new(config));
        let part = |group| Part::new(tier.owns(group));
        Self { parts: (0..groups.count()).map(part).collect(), tier, hash_of }
    }

    /// See [`Table::begin_freeze`](crate::Table::begin_freeze), as the two that follow.
    pub(super) fn begin_freeze(&mut self, mode: FreezeMode) -> Result<(), StateError> {
        self.tier.begin_freeze(&mut self.parts, mode)
    }

    pub(super) fn freeze_some(&mut self, budget: &mut usize) -> Result<bool, StateError> {
        self.tier.freeze_some(&mut self.parts, budget)
    }

    pub(super) fn take_frozen(&mut self) -> Result<Frozen, StateError> {
        self.tier.take_frozen(&mut self.parts)
    }

    pub(super) fn owned(&self) -> &[u16] {
        &self.tier.owned
    }

    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            keys_in_memory: self
                .tier
                .owned
                .iter()
                .map(|group| self.parts[usize::from(*group)].live.len() as u64)
                .sum(),
            spilled: self.tier.spill.as_ref().map_or(0, |spill| spill.estimate()),
            memory_bytes: self.memory_bytes() as u64,
            hits: self.tier.hits,
            misses: self.tier.misses,
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
            return Err(StateError::internal(&self.tier.config.name, problem));
        }
        let before = part.used();
        let freezing = "freeze an entry";
        let outcome = part.change(key, self.tier.now, f);
        let out = match outcome.map_err(StateError::codec(&self.tier.config.name, freezing))? {
            Ok(out) => {
                self.tier.hits += 1;
                out
            }
            Err(f) => {
                self.tier.misses += 1;
                let mut value = self.fetch(group, key)?;
                let stored = value.is_some();
                let out = f(&mut value);
                let part = &mut self.parts[usize::from(group)];
                part.set(key, value, stored, self.tier.now)
                    .map_err(StateError::codec(&self.tier.config.name, freezing))?;
                out
            }
        };
        self.tier.entries = self.tier.entries + self.parts[usize::from(group)].used() - before;
        Ok(out)
    }

    /// The value of a key; a spilled one is loaded into memory.
    pub(super) fn get(&mut self, group: u16, key: &[u8]) -> Result<Option<&V>, StateError> {
        if self.parts[usize::from(group)].live.contains_key(key) {
            self.tier.hits += 1;
        } else {
            self.tier.misses += 1;
            let Some(value) = self.fetch(group, key)? else { return Ok(None) };
            self.tier.entries += 1;
            let entry = Entry { value: Some(value), meta: STORED };
            self.parts[usize::from(group)].live.insert(key::Key::new(key), entry);
        }
        Ok(self.parts[usize::from(group)].live.get(key).and_then(|entry| entry.value.as_ref()))
    }

    /// The value that RocksDB has of a key that is not in memory.
    fn fetch(&self, group: u16, key: &[u8]) -> Result<Option<V>, StateError> {
        let part = &self.parts[usize::from(group)];
        let Some(spill) = self.tier.spill.as_ref().filter(|_| part.spilled && !part.gone.contains_key(key))
        else {
            return Ok(None);
        };
        let Some(bytes) = spill.get(&stored_key(group, key))? else { return Ok(None) };
        let value = postcard::from_bytes(&bytes);
        value.map(Some).map_err(StateError::codec(&self.tier.config.name, "read a spilled value"))
    }
}

/// A key as RocksDB has it.
fn stored_key(group: u16, key: &[u8]) -> Vec<u8> {
    [&group.to_be_bytes()[..], key].concat()
}
