//! Moving clean entries to RocksDB when memory is short, the last of each group first.

use super::key::Key;
use super::part::{Entry, NUMBER, STORED};
use super::{Sorted, stored_key};
use crate::codec;
use crate::error::StateError;
use crate::key::StateValue;
use crate::table::Writes;
use crate::table::tier::Freezing;
use std::ops::Bound;

/// Entries looked at in one call.
const SCAN: usize = 16_384;
/// Entries moved in one call.
const MOVE: usize = 2_048;

impl<V: StateValue> Sorted<V> {
    /// See [`Table::maintain`](crate::Table::maintain).
    pub(in super::super) fn maintain(&mut self) -> Result<bool, StateError> {
        let Some(excess) = self.tier.excess(self.entry_bytes()) else { return Ok(false) };
        let victims = self.choose(excess);
        if !victims.is_empty() {
            self.store(&victims)?;
            for (group, key) in &victims {
                let part = &mut self.parts[usize::from(*group)];
                let before = part.used();
                if self.tier.needs_base {
                    part.forget_dirty();
                }
                part.live.remove(key);
                part.gone.remove(key);
                if part.floor.as_ref().is_some_and(|floor| key < floor) {
                    part.floor = Some(key.clone());
                }
                self.tier.entries = self.tier.entries + part.used() - before;
            }
        }
        Ok(self.tier.moved(self.tier.entries, self.entry_bytes()))
    }

    /// Estimated memory in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.tier.entries * self.entry_bytes()
    }

    /// Estimated memory of one entry: its place in a tree that is two thirds full, and what it owns elsewhere, for
    /// which the average serialised size stands.
    fn entry_bytes(&self) -> usize {
        let heap = if std::mem::needs_drop::<V>() { 16 + self.tier.coded_bytes() } else { 0 };
        size_of::<(Key, Entry<V>)>() * 3 / 2 + heap
    }

    /// Entries and tombstones that may move, behind where the last call ended.
    fn choose(&mut self, excess_bytes: usize) -> Vec<(u16, Key)> {
        let wanted = (excess_bytes / self.entry_bytes() + 1).min(MOVE);
        let mut victims = Vec::with_capacity(wanted);
        let (mut looked, mut turns) = (0, 0);
        while looked < SCAN && victims.len() < wanted && turns <= self.tier.owned.len() {
            let Some(group) = self.tier.owned.get(self.tier.eviction.group).copied() else { break };
            let part = &mut self.parts[usize::from(group)];
            if !part.gone_passed {
                let from = part.gone_hand.take().map_or(Bound::Unbounded, Bound::Excluded);
                let (mut last, mut through) = (None, true);
                for (key, meta) in part.gone.range((from, Bound::Unbounded)) {
                    if looked >= SCAN || victims.len() >= wanted {
                        through = false;
                        break;
                    }
                    (looked, last) = (looked + 1, Some(key));
                    if self.tier.may_move(*meta) {
                        self.tier.needs_base |= *meta != 0;
                        victims.push((group, key.clone()));
                        self.tier.eviction.fruitless = 0;
                    } else {
                        self.tier.eviction.fruitless += 1;
                    }
                }
                part.gone_passed = through;
                if !through {
                    part.gone_hand = last.cloned();
                    break;
                }
            }
            let to = part.hand.take().map_or(Bound::Unbounded, Bound::Excluded);
            for (key, entry) in part.live.range((Bound::Unbounded, to)).rev() {
                if looked >= SCAN || victims.len() >= wanted {
                    break;
                }
                looked += 1;
                part.hand = Some(key.clone());
                let number = entry.meta & NUMBER;
                if self.tier.may_move(number) {
                    self.tier.needs_base |= number != 0;
                    victims.push((group, key.clone()));
                    self.tier.eviction.fruitless = 0;
                } else {
                    self.tier.eviction.fruitless += 1;
                }
            }
            let is_through = match &part.hand {
                Some(hand) => part.live.range(..hand.clone()).next().is_none(),
                None => true,
            };
            if is_through {
                (part.hand, part.gone_passed) = (None, false);
                turns += 1;
                self.tier.eviction.group = (self.tier.eviction.group + 1) % self.tier.owned.len();
                // An empty group takes time too.
                (looked, self.tier.eviction.fruitless) = (looked + 1, self.tier.eviction.fruitless + 1);
            }
        }
        victims
    }

    /// Writes entries to RocksDB, tombstones as deletions.
    fn store(&mut self, victims: &[(u16, Key)]) -> Result<(), StateError> {
        let spill = self.tier.open_spill()?;
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
                        .map_err(StateError::codec(&self.tier.config.name, "write a value"))?;
                    batch.put(stored_key(*group, key.bytes()), &value);
                    part.spilled = true;
                }
                None => batch.delete(stored_key(*group, key.bytes())),
            }
        }
        if batch.is_empty() { Ok(()) } else { spill.write(&batch) }
    }
}
