//! What whoever runs a step does with its tables, whatever their kinds and types.
//!
//! Access to single values is not here: nothing that runs for every record goes through a pointer to a
//! trait. What is here runs once a batch, a slice or a checkpoint.

use super::{FreezeMode, Frozen, Spill, Table, TableStats};
use crate::error::StateError;
use crate::group::Groups;
use crate::key::{Namespace, StateKey, StateValue};
use crate::stored;
use std::path::{Path, PathBuf};

/// A table of any kind: frozen at barriers, kept within its memory, filled from a checkpoint. Implemented
/// by the tables of this crate alone.
///
/// The order of calls at a barrier: [`begin_freeze`](AnyTable::begin_freeze), which fixes what is frozen;
/// [`freeze_slice`](AnyTable::freeze_slice) between batches until it returns true;
/// [`take_frozen`](AnyTable::take_frozen), whose result must reach a [`Persister`](crate::Persister). Writes to
/// the table may come in between, and do not change what is frozen.
pub trait AnyTable: Fill {
    /// Name of the state.
    fn name(&self) -> &str;

    /// The key groups of this table, ascending.
    fn owned(&self) -> &[u16];

    /// Refuses types whose values would not come back from a checkpoint as they were, as far as their shape shows
    /// it; see [`stored::check`](crate::stored::check).
    ///
    /// # Errors
    /// [`StateError::Unfit`].
    fn check_types(&self) -> Result<(), StateError>;

    /// Starts a freeze of the state as it is now; see [`Table::begin_freeze`].
    ///
    /// # Errors
    /// The freeze before it was not taken yet.
    fn begin_freeze(&mut self, mode: FreezeMode) -> Result<(), StateError>;

    /// True from [`AnyTable::begin_freeze`] until [`AnyTable::take_frozen`].
    fn is_freezing(&self) -> bool;

    /// Serialises up to `budget` entries of the freeze in progress, and takes them off it, so that several
    /// tables can share one slice. True when nothing is left to do, or no freeze is in progress. See
    /// [`Table::freeze_slice`].
    ///
    /// # Errors
    /// An entry could not be serialised.
    fn freeze_slice(&mut self, budget: &mut usize) -> Result<bool, StateError>;

    /// Ends the freeze in progress and returns what was frozen; see [`Table::take_frozen`].
    ///
    /// # Errors
    /// As [`AnyTable::freeze_slice`].
    fn take_frozen(&mut self) -> Result<Frozen, StateError>;

    /// Keeps memory within its budget, a bounded slice at a time; true if more is to be done now. See
    /// [`Table::maintain`].
    ///
    /// # Errors
    /// The RocksDB tier failed, or a value could not be serialised.
    fn maintain(&mut self) -> Result<bool, StateError>;

    /// Whether the memory budget is exceeded and only a checkpoint can help: all that is in memory has changed since
    /// the last freeze, so nothing may move. Known after [`AnyTable::maintain`].
    fn wants_checkpoint(&self) -> bool;

    /// For as long as no checkpoint is to be expected: until the next freeze begins, entries move too that have changed
    /// since the last one. That freeze must be a base then, see [`AnyTable::needs_base`]. Does nothing while a freeze is
    /// in progress.
    fn let_dirty_move(&mut self);

    /// Whether the next freeze must be a base: changes have moved to RocksDB that are in no file.
    fn needs_base(&self) -> bool;

    /// Current figures.
    fn stats(&self) -> TableStats;
}

/// How a restore fills a table that is not in use yet.
pub trait Fill {
    /// Number of key groups of the job.
    fn groups(&self) -> Groups;

    /// See [`Table::load_section`].
    fn load_section(&mut self, group: u16, bytes: &[u8]) -> Result<u64, StateError>;

    /// Folder for temporary files.
    fn scratch(&self) -> &Path;

    /// Where [`Fill::adopt`] expects the database.
    fn live_folder(&self) -> PathBuf {
        self.scratch().join("live")
    }

    /// Takes the database in [`Fill::live_folder`] for the RocksDB tier.
    fn adopt(&mut self) -> Result<(), StateError>;

    /// Copies key groups of the database in a folder into the own one; returns the number of entries.
    fn import(&mut self, folder: &Path, groups: &[u16]) -> Result<u64, StateError>;
}

impl<K: StateKey, N: Namespace, V: StateValue> AnyTable for Table<K, N, V> {
    fn name(&self) -> &str {
        Table::name(self)
    }

    fn owned(&self) -> &[u16] {
        Table::owned(self)
    }

    fn check_types(&self) -> Result<(), StateError> {
        stored::check::<K>(self.name(), "key")?;
        stored::check::<N>(self.name(), "namespace")?;
        stored::check::<V>(self.name(), "state")
    }

    fn begin_freeze(&mut self, mode: FreezeMode) -> Result<(), StateError> {
        Table::begin_freeze(self, mode)
    }

    fn is_freezing(&self) -> bool {
        Table::is_freezing(self)
    }

    fn freeze_slice(&mut self, budget: &mut usize) -> Result<bool, StateError> {
        self.tier.freeze_some(&mut self.parts, budget)
    }

    fn take_frozen(&mut self) -> Result<Frozen, StateError> {
        Table::take_frozen(self)
    }

    fn maintain(&mut self) -> Result<bool, StateError> {
        Table::maintain(self)
    }

    fn wants_checkpoint(&self) -> bool {
        Table::wants_checkpoint(self)
    }

    fn let_dirty_move(&mut self) {
        self.tier.let_dirty_move();
    }

    fn needs_base(&self) -> bool {
        self.tier.needs_base
    }

    fn stats(&self) -> TableStats {
        Table::stats(self)
    }
}

impl<K: StateKey, N: Namespace, V: StateValue> Fill for Table<K, N, V> {
    fn groups(&self) -> Groups {
        self.tier.config.groups
    }

    fn load_section(&mut self, group: u16, bytes: &[u8]) -> Result<u64, StateError> {
        Table::load_section(self, group, bytes)
    }

    fn scratch(&self) -> &Path {
        &self.tier.config.spill_dir
    }

    fn adopt(&mut self) -> Result<(), StateError> {
        Table::adopt(self)
    }

    fn import(&mut self, folder: &Path, groups: &[u16]) -> Result<u64, StateError> {
        let foreign = Spill::open(folder, &self.tier.config.spill, &self.tier.config.name)?;
        let mut entries = 0;
        for group in groups {
            entries += self.import_group(&foreign, *group)?;
        }
        Ok(entries)
    }
}
