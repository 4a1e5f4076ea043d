//! Moving clean entries to RocksDB when memory is short, the last of each group first.

use super::key::Key;
use super::part::{Entry, NUMBER, STORED};
use super::{Sorted, stored_key};
use crate::codec;
use crate::error::StateError;
use crate::key::StateValue;
use crate::table::{Spill, Writes};
use std::ops::Bound;
use std::sync::Arc;

/// Entries looked at in one call.
const SCAN: usize = 16_384;
/// Entries moved in one call.
const MOVE: usize = 2_048;

/// Where the eviction stands.
#[derive(Default)]
pub(super) struct Eviction {
    /// Position in the list of owned groups.
    group: usize,
    /// The budget was exceeded, and nine tenths of it are not reached yet.
    active: bool,
    /// Entries looked at since the last one that could move.
    fruitless: usize,
    /// All is dirty: wait for the next freeze.
    blocked: bool,
}

impl Eviction {
    /// Some entries became clean.
    pub(super) fn retry(&mut self) {
        (self.fruitless, self.blocked) = (0, false);
    }
}

impl<V: StateValue> Sorted<V> {
    /// See [`Table::maintain`](crate::Table::maintain).
    pub(in super::super) fn maintain(&mut self) -> Result<bool, StateError> {
        let (memory, budget) = (self.memory_bytes(), self.config.memory_budget_bytes);
        let target = budget - budget / 10;
        self.eviction.active = memory > if self.eviction.active { target } else { budget };
        if !self.eviction.active || self.eviction.blocked || self.base_in_progress() {
            return Ok(false);
        }
        let victims = self.choose(memory - target);
        if !victims.is_empty() {
            self.store(&victims)?;
            for (group, key) in &victims {
                let part = &mut self.parts[usize::from(*group)];
                let before = part.used();
                part.live.remove(key);
                part.gone.remove(key);
                if part.floor.as_ref().is_some_and(|floor| key < floor) {
                    part.floor = Some(key.clone());
                }
                self.entries = self.entries + part.used() - before;
            }
        }
        self.eviction.blocked = self.eviction.fruitless > 2 * self.entries;
        Ok(!self.eviction.blocked && self.memory_bytes() > target)
    }

    /// Whether the budget is exceeded and only a freeze can help, because all that is in memory is dirty. Known
    /// after `maintain`.
    #[must_use]
    pub(in super::super) fn wants_checkpoint(&self) -> bool {
        self.eviction.active && self.eviction.blocked && !self.is_freezing()
    }

    /// Estimated memory in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries * self.entry_bytes()
    }

    /// Estimated memory of one entry: its place in a tree that is two thirds full, and what it owns elsewhere, for
    /// which the average serialised size stands.
    fn entry_bytes(&self) -> usize {
        let heap =
            if std::mem::needs_drop::<V>() { 16 + (self.coded.0 / self.coded.1.max(1)) as usize } else { 0 };
        size_of::<(Key, Entry<V>)>() * 3 / 2 + heap
    }

    /// Clean entries and clean tombstones, behind where the last call ended.
    fn choose(&mut self, excess_bytes: usize) -> Vec<(u16, Key)> {
        let wanted = (excess_bytes / self.entry_bytes() + 1).min(MOVE);
        let mut victims = Vec::with_capacity(wanted);
        let (mut looked, mut turns) = (0, 0);
        while looked < SCAN && victims.len() < wanted && turns <= self.owned.len() {
            let Some(group) = self.owned.get(self.eviction.group).copied() else { break };
            let part = &mut self.parts[usize::from(group)];
            if part.hand.is_none() {
                let clean = part.gone.iter().filter(|(_, meta)| **meta == 0);
                victims.extend(clean.map(|(key, _)| (group, key.clone())));
            }
            let to = part.hand.take().map_or(Bound::Unbounded, Bound::Excluded);
            for (key, entry) in part.live.range((Bound::Unbounded, to)).rev() {
                if looked >= SCAN || victims.len() >= wanted {
                    break;
                }
                looked += 1;
                part.hand = Some(key.clone());
                if entry.meta & NUMBER == 0 {
                    victims.push((group, key.clone()));
                    self.eviction.fruitless = 0;
                } else {
                    self.eviction.fruitless += 1;
                }
            }
            let is_through = match &part.hand {
                Some(hand) => part.live.range(..hand.clone()).next().is_none(),
                None => true,
            };
            if is_through {
                part.hand = None;
                turns += 1;
                self.eviction.group = (self.eviction.group + 1) % self.owned.len();
                // An empty group takes time too.
                (looked, self.eviction.fruitless) = (looked + 1, self.eviction.fruitless + 1);
            }
        }
        victims
    }

    /// Writes entries to RocksDB, tombstones as deletions.
    fn store(&mut self, victims: &[(u16, Key)]) -> Result<(), StateError> {
        let spill = self.open_spill()?;
        let mut batch = Writes::default();
        let mut value = Vec::new();
        for (group, key) in victims {
            let part = &mut self.parts[usize::from(*group)];
            match part.live.get(key) {
                Some(entry) if entry.meta & STORED != 0 => {}
                Some(entry) => {
                    let Some(stored) = &entry.value else { continue };
                    value.clear();
                    codec::append(stored, &mut value)
                        .map_err(StateError::codec(&self.config.name, "write a value"))?;
                    batch.put(stored_key(*group, key.bytes()), &value);
                    part.spilled = true;
                }
                None => batch.delete(stored_key(*group, key.bytes())),
            }
        }
        if batch.is_empty() { Ok(()) } else { spill.write(batch) }
    }

    /// The RocksDB tier, opened empty if it is not there yet.
    pub(super) fn open_spill(&mut self) -> Result<Arc<Spill>, StateError> {
        if let Some(spill) = &self.spill {
            return Ok(spill.clone());
        }
        let folder = self.config.spill_dir.join("live");
        let spill = Arc::new(Spill::create(&folder, &self.config.spill, &self.config.name)?);
        self.spill = Some(spill.clone());
        Ok(spill)
    }
}
