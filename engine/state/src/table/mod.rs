//! The memory tier: one typed table per stateful step and worker, used by that worker's thread only.
//!
//! Values are kept as they are; nothing is serialised on access. A checkpoint serialises what changed
//! since the last one, in slices between batches, while writes go on:
//!
//! - Every entry knows the freeze in which it last became dirty; 0 means clean. Becoming dirty puts it
//!   on its group's dirty list, once.
//! - [`Table::begin_freeze`] takes the dirty lists away and counts the freeze up. Until
//!   [`Table::freeze_slice`] has come to an entry, a write to it serialises the old value first. So
//!   what is frozen is the state at the moment of `begin_freeze`, whatever is written meanwhile.
//! - A deletion is an entry without a value until it is frozen; afterwards it is dropped, unless
//!   RocksDB may hold an older value of the group: then it stays, clean, until it is evicted.
//!
//! What exceeds the memory budget moves to RocksDB ([`Table::maintain`]). **Only clean entries move**,
//! and none while a base is being frozen or hard-linked. Both follow from one rule: RocksDB must never
//! hold a value newer than the base that copies it. A clean value is in a frozen section already, so
//! it belongs to every later base; a dirty one would leak into a base whose epoch it is not part of.
//! If all is dirty, the budget is exceeded until the next checkpoint, and the table says that it wants one
//! ([`Table::wants_checkpoint`]). If none is to be expected, dirty entries may move after all
//! ([`AnyTable::let_dirty_move`]): then the next freeze must be a base. It takes what is in memory and, by hard
//! links, what has moved before its barrier; nothing moves between the two.
//!
//! Memory shadows RocksDB: an entry that is loaded back stays in RocksDB too, possibly outdated.
//!
//! The table does not know files, checkpoint ids or other workers.

mod any;
mod batch;
mod evict;
mod freeze;
mod frozen;
mod index;
mod load;
mod members;
mod ordered;
mod outbox;
mod part;
mod proof;
mod slab;
mod sorted;
mod spill;
mod tier;
mod walk;

pub use any::{AnyTable, Fill};
pub use frozen::{FreezeMode, Frozen};
pub use ordered::{Ordered, OrderedTable, TimerTable};
pub use spill::SpillShared;

pub(crate) use frozen::Capture;

pub(crate) use spill::{Spill, Visit, Writes, wipe};

use crate::codec;
use crate::error::StateError;
use crate::group::Groups;
use crate::key::{Namespace, StateKey, StateValue};
use part::{Entry, NONE, NUMBER, Part, RECENT, STORED};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tier::Tier;

/// How a table is made.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// Name of the step, for messages.
    pub name: String,
    /// Number of key groups of the job.
    pub groups: Groups,
    /// Groups of this worker.
    pub owned: Vec<u16>,
    /// Memory that entries may take before clean ones move to RocksDB, in bytes.
    pub memory_budget_bytes: usize,
    /// Folder for the RocksDB tier and temporary files, for this step and worker alone. Made when
    /// first needed; what an earlier process left there is wiped.
    pub spill_dir: PathBuf,
    /// What the RocksDB tiers of the process share.
    pub spill: Arc<SpillShared>,
    /// Serialised bytes of a freeze that stay in memory; what is more goes through a scratch file in `spill_dir`
    /// until it is in the checkpoint storage. [`TableConfig::FROZEN_BYTES`] is a good choice.
    pub frozen_bytes: usize,
}

impl TableConfig {
    /// For [`TableConfig::frozen_bytes`]: little beside the memory of any state that has more.
    pub const FROZEN_BYTES: usize = 16 << 20;
}

/// Figures of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableStats {
    /// Keys with a value in memory.
    pub keys_in_memory: u64,
    /// Entries in RocksDB, an estimate; some are in memory too.
    pub spilled: u64,
    /// Estimated memory of the entries and their index.
    pub memory_bytes: u64,
    /// Accesses that found their entry in memory, since the table was made.
    pub hits: u64,
    /// Accesses that did not: the key was new, or spilled.
    pub misses: u64,
}

/// Keyed state of one step on one worker. See the [module](self).
pub struct Table<K, N, V> {
    tier: Tier,
    /// By group number; the groups of other workers stay empty.
    parts: Vec<Part<K, N, V>>,
    /// Keys with a value in memory.
    live: u64,
    /// Groups that may have entries of a namespace, in memory or spilled.
    listed: BTreeMap<N, BTreeSet<u16>>,
    /// The walk through a namespace that is under way.
    walk: Option<walk::Walk<N>>,
}

impl<K: StateKey, N: Namespace, V: StateValue> Table<K, N, V> {
    /// An empty table. RocksDB is opened when the budget is first exceeded.
    #[must_use]
    pub fn new(config: TableConfig) -> Self {
        let (groups, tier) = (config.groups, Tier::new(config));
        let part = |group| Part::new(group, tier.owns(group));
        let parts = (0..groups.count()).map(part).collect();
        Self { parts, tier, live: 0, listed: BTreeMap::new(), walk: None }
    }

    /// The groups of this table, ascending.
    #[must_use]
    pub fn owned(&self) -> &[u16] {
        &self.tier.owned
    }

    /// Name of the step.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.tier.config.name
    }

    /// Current figures.
    #[must_use]
    pub fn stats(&self) -> TableStats {
        TableStats {
            keys_in_memory: self.live,
            spilled: self.tier.spill.as_ref().map_or(0, |spill| spill.estimate()),
            memory_bytes: self.memory_bytes() as u64,
            hits: self.tier.hits,
            misses: self.tier.misses,
        }
    }

    /// The value of a key; `hash` is [`hash_key`](crate::hash_key) of the key. A spilled value is
    /// loaded into memory.
    ///
    /// # Errors
    /// The RocksDB tier failed, or holds a value that does not decode.
    pub fn get(&mut self, hash: u64, key: &K, ns: N) -> Result<Option<&V>, StateError> {
        let group = self.tier.config.groups.of(hash);
        let place = self.load(group, ns.index_hash(hash), key, ns)?;
        if place == NONE {
            return Ok(None);
        }
        let entry = self.parts[usize::from(group)].get_mut(place);
        Ok(entry.and_then(|entry| {
            if entry.meta & NUMBER == 0 {
                entry.meta |= RECENT;
            }
            entry.value.as_ref()
        }))
    }

    /// Changes one value in place and returns what `f` returns; see [`Table::update_batch`].
    ///
    /// # Errors
    /// As [`Table::update_batch`].
    pub fn update_one<R>(
        &mut self,
        hash: u64,
        key: &K,
        ns: N,
        f: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, StateError> {
        let (group, index_hash) = (self.tier.config.groups.of(hash), ns.index_hash(hash));
        let place = self.load(group, index_hash, key, ns)?;
        if place != NONE {
            return self.change(group, place, f);
        }
        let mut value = None;
        let out = f(&mut value);
        if value.is_some() {
            self.add(group, index_hash, key.clone(), ns, value, self.tier.now)?;
        }
        Ok(out)
    }

    /// Deletes a key and returns its value.
    ///
    /// # Errors
    /// As [`Table::update_batch`].
    pub fn remove(&mut self, hash: u64, key: &K, ns: N) -> Result<Option<V>, StateError> {
        self.update_one(hash, key, ns, Option::take)
    }

    /// Visits every key with a value, in memory and spilled, in no order.
    ///
    /// # Errors
    /// The RocksDB tier failed, or holds something that does not decode.
    pub fn for_each(&mut self, mut f: impl FnMut(&K, N, &V)) -> Result<(), StateError> {
        for group in &self.tier.owned {
            let part = &self.parts[usize::from(*group)];
            for entry in (0..part.length()).filter_map(|place| part.get(place)) {
                if let Some(value) = &entry.value {
                    f(&entry.key, entry.ns, value);
                }
            }
            let Some(spill) = self.tier.spill.as_ref().filter(|_| part.spilled) else { continue };
            spill.scan(*group, |key, value| {
                let decode = "read a spilled entry";
                let (ns, key): (N, K) =
                    codec::read_spill_key(key).map_err(StateError::codec(&self.tier.config.name, decode))?;
                let hash = ns.index_hash(crate::hash_key(&key));
                if part.find(hash, &key, ns) == NONE {
                    let value: V = postcard::from_bytes(value)
                        .map_err(StateError::codec(&self.tier.config.name, decode))?;
                    f(&key, ns, &value);
                }
                Ok(Visit::More)
            })?;
        }
        Ok(())
    }

    /// Changes the value of an entry in memory.
    #[inline(always)]
    fn change<R>(
        &mut self,
        group: u16,
        place: u32,
        f: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, StateError> {
        let value = match self.parts[usize::from(group)].write(place, self.tier.now) {
            Ok(Some(value)) => value,
            Ok(None) => return Err(StateError::internal(&self.tier.config.name, "a place without entry")),
            Err(error) => return Err(StateError::codec(&self.tier.config.name, "freeze an entry")(error)),
        };
        let before = value.is_some();
        let out = f(value);
        let after = value.is_some();
        self.live = self.live + u64::from(after) - u64::from(before);
        Ok(out)
    }

    /// Adds an entry for a key that is not in memory; `meta` is `self.tier.now` for a dirty one.
    fn add(
        &mut self,
        group: u16,
        index_hash: u32,
        key: K,
        ns: N,
        value: Option<V>,
        meta: u32,
    ) -> Result<u32, StateError> {
        let part = &mut self.parts[usize::from(group)];
        if !part.owned {
            let problem = format!("key group {group} belongs to another worker");
            return Err(StateError::internal(&self.tier.config.name, problem));
        }
        self.live += u64::from(value.is_some());
        self.tier.entries += 1;
        let (place, first) = part.insert(index_hash, Entry { key, ns, value, meta });
        if first {
            self.listed.entry(ns).or_default().insert(group);
        }
        if meta & NUMBER != 0 {
            part.dirty.push(place);
        }
        Ok(place)
    }

    /// The place of a key in memory, loading it from RocksDB if need be.
    fn load(&mut self, group: u16, index_hash: u32, key: &K, ns: N) -> Result<u32, StateError> {
        let part = &self.parts[usize::from(group)];
        let place = part.find(index_hash, key, ns);
        if place != NONE {
            self.tier.hits += 1;
            return Ok(place);
        }
        self.tier.misses += 1;
        if !part.spilled {
            return Ok(NONE);
        }
        match self.fetch(group, key, ns)? {
            Some(value) => {
                if self.tier.misses.is_multiple_of(1024) {
                    self.tier.eviction.retry();
                }
                self.add(group, index_hash, key.clone(), ns, Some(value), STORED | RECENT)
            }
            None => Ok(NONE),
        }
    }

    /// Reads a value from RocksDB.
    fn fetch(&self, group: u16, key: &K, ns: N) -> Result<Option<V>, StateError> {
        let Some(spill) = &self.tier.spill else { return Ok(None) };
        let name = &self.tier.config.name;
        let mut stored = Vec::new();
        codec::append_spill_key(group, key, ns, &mut stored)
            .map_err(StateError::codec(name, "write a key"))?;
        let Some(bytes) = spill.get(&stored)? else { return Ok(None) };
        let value = postcard::from_bytes(&bytes);
        value.map(Some).map_err(StateError::codec(name, "read a spilled value"))
    }
}
