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
        self.tier.check_owned(group)?;
        let mut loaded = 0;
        while !bytes.is_empty() {
            let (key, value, rest) = part::take_entry::<V>(bytes)
                .map_err(StateError::codec(&self.tier.config.name, "read a stored entry"))?;
            self.tier.coded.0 += (bytes.len() - rest.len()) as u64;
            self.tier.coded.1 += 1;
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
            self.tier.entries = self.tier.entries + part.used() - before;
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
        let hash = (self.hash_of)(key).map_err(|error| StateError::order(&self.tier.config.name, &error))?;
        self.tier.check_group(group, hash)
    }

    /// Brings memory back to its budget.
    fn shrink(&mut self) -> Result<(), StateError> {
        self.tier.eviction.retry();
        while self.maintain()? {}
        Ok(())
    }

    /// Takes the database in the folder `live` for the RocksDB tier.
    pub(in super::super) fn adopt(&mut self) -> Result<(), StateError> {
        let folder = self.tier.config.spill_dir.join("live");
        let spill = Spill::open(&folder, &self.tier.config.spill, &self.tier.config.name)?;
        for group in &self.tier.owned {
            self.parts[usize::from(*group)].spilled = spill.holds(*group)?;
        }
        self.tier.spill = Some(Arc::new(spill));
        Ok(())
    }

    /// Copies key groups of the database in a folder into the own one; returns the number of entries.
    pub(in super::super) fn import(&mut self, folder: &Path, groups: &[u16]) -> Result<u64, StateError> {
        const BATCH_BYTES: usize = 1 << 20;
        let from = Spill::open(folder, &self.tier.config.spill, &self.tier.config.name)?;
        let to = self.tier.open_spill()?;
        let mut all = 0;
        for group in groups {
            let (mut batch, mut copied) = (Writes::default(), 0);
            from.scan(*group, |key, value| {
                self.check(*group, key)?;
                batch.put(stored_key(*group, key), value);
                copied += 1;
                if batch.size_in_bytes() > BATCH_BYTES {
                    to.write(&std::mem::take(&mut batch))?;
                }
                Ok(Visit::More)
            })?;
            to.write(&batch)?;
            self.parts[usize::from(*group)].spilled |= copied > 0;
            all += copied;
        }
        Ok(all)
    }
}
