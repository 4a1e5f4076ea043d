//! Filling an ordered table from a checkpoint.

use super::key::Key;
use super::part::{self, Entry};
use super::{Sorted, stored_key};
use crate::error::StateError;
use crate::key::StateValue;
use crate::table::{Spill, Visit, Writes};
use std::path::Path;
use std::sync::Arc;

/// Entries loaded between two looks at the memory budget.
const STRIDE: u64 = 4_096;

impl<V: StateValue> Sorted<V> {
    /// See [`Table::load_section`](crate::Table::load_section).
    pub(in super::super) fn load_section(&mut self, group: u16, mut bytes: &[u8]) -> Result<u64, StateError> {
        if !self.parts.get(usize::from(group)).is_some_and(|part| part.owned) {
            let problem = format!("key group {group} is not owned");
            return Err(StateError::internal(&self.config.name, problem));
        }
        let mut loaded = 0;
        while !bytes.is_empty() {
            let (key, value, rest) = part::take_entry::<V>(bytes)
                .map_err(StateError::codec(&self.config.name, "read a stored entry"))?;
            self.coded.0 += (bytes.len() - rest.len()) as u64;
            self.coded.1 += 1;
            self.check(group, key)?;
            let part = &mut self.parts[usize::from(group)];
            let before = part.used();
            // A tombstone is needed only above a spilled value.
            if value.is_some() {
                part.gone.remove(key);
                part.live.insert(Key::new(key), Entry { value, meta: 0 });
            } else {
                part.live.remove(key);
                if part.spilled {
                    part.gone.insert(Key::new(key), 0);
                }
            }
            self.entries = self.entries + part.used() - before;
            bytes = rest;
            loaded += 1;
            if loaded % STRIDE == 0 {
                self.shrink()?;
            }
        }
        self.shrink()?;
        Ok(loaded)
    }

    /// Whether a restored key belongs to the group.
    fn check(&self, group: u16, key: &[u8]) -> Result<(), StateError> {
        let name = &self.config.name;
        let hash = (self.hash_of)(key).map_err(|error| StateError::order(name, &error))?;
        let now = self.config.groups.of(hash);
        if now == group {
            return Ok(());
        }
        Err(StateError::KeyHashing { step: name.clone(), stored: group, now })
    }

    /// Brings memory back to its budget.
    fn shrink(&mut self) -> Result<(), StateError> {
        self.eviction.retry();
        while self.maintain()? {}
        Ok(())
    }

    /// Takes the database in the folder `live` for the RocksDB tier.
    pub(in super::super) fn adopt(&mut self) -> Result<(), StateError> {
        let folder = self.config.spill_dir.join("live");
        let spill = Spill::open(&folder, &self.config.spill, &self.config.name)?;
        for group in &self.owned {
            self.parts[usize::from(*group)].spilled = spill.holds(*group)?;
        }
        self.spill = Some(Arc::new(spill));
        Ok(())
    }

    /// Copies key groups of the database in a folder into the own one; returns the number of entries.
    pub(in super::super) fn import(&mut self, folder: &Path, groups: &[u16]) -> Result<u64, StateError> {
        const BATCH_BYTES: usize = 1 << 20;
        let from = Spill::open(folder, &self.config.spill, &self.config.name)?;
        let to = self.open_spill()?;
        let mut all = 0;
        for group in groups {
            let (mut batch, mut copied) = (Writes::default(), 0);
            from.scan(*group, |key, value| {
                self.check(*group, key)?;
                batch.put(stored_key(*group, key), value);
                copied += 1;
                if batch.size_in_bytes() > BATCH_BYTES {
                    to.write(std::mem::take(&mut batch))?;
                }
                Ok(Visit::More)
            })?;
            to.write(batch)?;
            self.parts[usize::from(*group)].spilled |= copied > 0;
            all += copied;
        }
        Ok(all)
    }
}
