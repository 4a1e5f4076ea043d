//! Filling a table from a checkpoint.

use super::any::Fill;
use super::part::NONE;
use super::{Spill, Table, Writes};
use crate::codec;
use crate::error::StateError;
use crate::hash::hash_key;
use crate::key::{Namespace, StateKey, StateValue};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Entries loaded between two looks at the memory budget.
const STRIDE: u64 = 4_096;

impl<K: StateKey, N: Namespace, V: StateValue> Table<K, N, V> {
    /// Loads a section of a snapshot file, over what is there: later entries replace earlier ones.
    /// Loaded entries are clean. Returns how many there were. Only for a table that is not in use yet.
    ///
    /// # Errors
    /// The bytes do not decode, a key hashes to another group ([`StateError::KeyHashing`]), the group
    /// is not owned, or the RocksDB tier failed.
    pub fn load_section(&mut self, group: u16, mut bytes: &[u8]) -> Result<u64, StateError> {
        self.tier.check_owned(group)?;
        let mut loaded = 0;
        while !bytes.is_empty() {
            let before = bytes.len();
            let ((key, ns, value), rest) = codec::take_entry::<K, N, V>(bytes)
                .map_err(StateError::codec(&self.tier.config.name, "read a stored entry"))?;
            bytes = rest;
            self.tier.coded.0 += (before - bytes.len()) as u64;
            self.tier.coded.1 += 1;
            let hash = self.check(group, &key)?;
            self.put_clean(group, ns.index_hash(hash), key, ns, value)?;
            loaded += 1;
            if loaded % STRIDE == 0 {
                self.shrink()?;
            }
        }
        self.shrink()?;
        self.unlist(group)?;
        Ok(loaded)
    }

    /// The hash of a restored key, if it belongs to the group.
    fn check(&self, group: u16, key: &K) -> Result<u64, StateError> {
        let hash = hash_key(key);
        self.tier.check_group(group, hash)?;
        Ok(hash)
    }

    fn put_clean(
        &mut self,
        group: u16,
        index_hash: u32,
        key: K,
        ns: N,
        value: Option<V>,
    ) -> Result<(), StateError> {
        let part = &mut self.parts[usize::from(group)];
        let place = part.find(index_hash, &key, ns);
        // A tombstone is needed only above a spilled value.
        if value.is_none() && !part.spilled {
            if place != NONE
                && let Some(entry) = part.forget(place)
            {
                self.tier.entries -= 1;
                self.live -= u64::from(entry.value.is_some());
            }
            return Ok(());
        }
        if place != NONE
            && let Some(entry) = part.get_mut(place)
        {
            self.live = self.live + u64::from(value.is_some()) - u64::from(entry.value.is_some());
            (entry.value, entry.meta) = (value, 0);
            return Ok(());
        }
        self.add(group, index_hash, key, ns, value, 0).map(drop)
    }

    /// Brings memory back to its budget.
    fn shrink(&mut self) -> Result<(), StateError> {
        self.tier.eviction.retry();
        while self.maintain()? {}
        Ok(())
    }

    /// Takes the database in the folder `live` for the RocksDB tier.
    pub(super) fn adopt(&mut self) -> Result<(), StateError> {
        let folder = Fill::live_folder(self);
        let spill = Spill::open(&folder, &self.tier.config.spill, &self.tier.config.name)?;
        for group in &self.tier.owned {
            self.parts[usize::from(*group)].spilled = spill.holds(*group)?;
        }
        self.tier.spill = Some(Arc::new(spill));
        self.list_spilled()
    }

    /// Copies a group of another table's database into this one's; returns the number of entries.
    pub(super) fn import_group(&mut self, from: &Spill, group: u16) -> Result<u64, StateError> {
        const BATCH_BYTES: usize = 1 << 20;
        let to = self.tier.open_spill()?;
        let (mut batch, mut copied) = (Writes::default(), 0);
        let mut namespaces = BTreeSet::new();
        from.scan(group, |key, value| {
            let (ns, typed): (N, K) = codec::read_spill_key(key)
                .map_err(StateError::codec(&self.tier.config.name, "read a spilled key"))?;
            self.check(group, &typed)?;
            if N::LISTED {
                namespaces.insert(ns);
            }
            batch.put([&group.to_be_bytes()[..], key].concat(), value);
            copied += 1;
            if batch.size_in_bytes() > BATCH_BYTES {
                to.write(&std::mem::take(&mut batch))?;
            }
            Ok(super::Visit::More)
        })?;
        to.write(&batch)?;
        self.parts[usize::from(group)].spilled |= copied > 0;
        for ns in namespaces {
            self.listed.entry(ns).or_default().insert(group);
        }
        Ok(copied)
    }
}
