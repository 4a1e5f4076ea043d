//! Moving clean entries to RocksDB when memory is short. The rule is told in the [module](super) above.

use super::part::{NUMBER, RECENT, STORED};
use super::tier::Freezing;
use super::walk::listed_bytes;
use super::{Entry, Table, Writes};
use crate::codec;
use crate::error::StateError;
use crate::key::{Namespace, StateKey, StateValue};

/// Places looked at in one call.
const SCAN: usize = 16_384;
/// Entries moved in one call.
const MOVE: usize = 2_048;

impl<K: StateKey, N: Namespace, V: StateValue> Table<K, N, V> {
    /// Keeps memory within its budget, a bounded slice at a time; call it between batches. True if
    /// more is to be moved now.
    ///
    /// # Errors
    /// The RocksDB tier failed, or a value could not be serialised. Nothing is lost: what was not
    /// written stays in memory.
    pub fn maintain(&mut self) -> Result<bool, StateError> {
        // A walk would pass an entry twice that moves meanwhile.
        if self.walk.is_some() {
            return Ok(false);
        }
        let Some(excess) = self.tier.excess(self.entry_bytes()) else { return Ok(false) };
        let victims = self.choose(excess);
        if !victims.is_empty() {
            self.store(&victims)?;
            for (group, place) in &victims {
                let part = &mut self.parts[usize::from(*group)];
                if self.tier.needs_base {
                    part.forget_dirty();
                }
                if let Some(entry) = part.forget(*place) {
                    self.tier.entries -= 1;
                    self.live -= u64::from(entry.value.is_some());
                }
            }
            for group in victims.chunk_by(|one, other| one.0 == other.0).map(|of_group| of_group[0].0) {
                self.unlist(group)?;
            }
        }
        let places = |group: &u16| self.parts[usize::from(*group)].length() as usize;
        let places = self.tier.owned.iter().map(places).sum();
        Ok(self.tier.moved(places, self.entry_bytes()))
    }

    /// Whether the budget is exceeded and only a freeze can help, because all that is in memory is dirty. Known
    /// after `maintain`.
    #[must_use]
    pub fn wants_checkpoint(&self) -> bool {
        self.tier.wants_checkpoint()
    }

    /// Estimated memory in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.tier.entries * self.entry_bytes()
    }

    /// Estimated memory of one entry: its place, its share of the index, and what it owns elsewhere,
    /// for which the average serialised size stands.
    fn entry_bytes(&self) -> usize {
        let heap = if std::mem::needs_drop::<K>() || std::mem::needs_drop::<V>() {
            16 + self.tier.coded_bytes()
        } else {
            0
        };
        size_of::<Option<Entry<K, N, V>>>() + 14 + listed_bytes::<N>() + heap
    }

    /// Entries that may move and were not used for a round of the clock's hand.
    fn choose(&mut self, excess_bytes: usize) -> Vec<(u16, u32)> {
        let wanted = (excess_bytes / self.entry_bytes() + 1).min(MOVE);
        let mut victims = Vec::with_capacity(wanted);
        let mut looked = 0;
        let mut turns = 0;
        while looked < SCAN && victims.len() < wanted && turns <= self.tier.owned.len() {
            let Some(group) = self.tier.owned.get(self.tier.eviction.group).copied() else { break };
            let part = &mut self.parts[usize::from(group)];
            while looked < SCAN && victims.len() < wanted && part.hand < part.length() {
                let place = part.hand;
                part.hand += 1;
                looked += 1;
                self.tier.eviction.fruitless += 1;
                let Some(entry) = part.get_mut(place) else { continue };
                let number = entry.meta & NUMBER;
                if !self.tier.may_move(number) {
                    continue;
                }
                self.tier.needs_base |= number != 0;
                if entry.meta & RECENT != 0 {
                    entry.meta &= !RECENT;
                } else {
                    victims.push((group, place));
                    self.tier.eviction.fruitless = 0;
                }
            }
            if part.hand >= part.length() {
                part.hand = 0;
                turns += 1;
                self.tier.eviction.group = (self.tier.eviction.group + 1) % self.tier.owned.len();
            }
        }
        victims
    }

    /// Writes entries to RocksDB, tombstones as deletions.
    fn store(&mut self, victims: &[(u16, u32)]) -> Result<(), StateError> {
        let spill = self.tier.open_spill()?;
        let name = &self.tier.config.name;
        let mut batch = Writes::default();
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for (group, place) in victims {
            let part = &mut self.parts[usize::from(*group)];
            let Some(entry) = part.get(*place).filter(|entry| entry.meta & STORED == 0) else {
                continue;
            };
            key.clear();
            codec::append_spill_key(*group, &entry.key, entry.ns, &mut key)
                .map_err(StateError::codec(name, "write a key"))?;
            match &entry.value {
                Some(stored) => {
                    value.clear();
                    codec::append(stored, &mut value).map_err(StateError::codec(name, "write a value"))?;
                    batch.put(&key, &value);
                    part.spilled = true;
                }
                None if part.spilled => batch.delete(&key),
                None => {}
            }
        }
        if batch.is_empty() { Ok(()) } else { spill.write(&batch) }
    }
}
