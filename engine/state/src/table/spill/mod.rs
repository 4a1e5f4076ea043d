//! Where clean entries go that memory has no room for: RocksDB, if it is built in; in simulations and tests, if they ask
//! for it, a sorted map.
//!
//! The map is there because RocksDB has threads of its own and files whose contents depend on them, so a run with it is
//! not the same twice. All that the tables do with the tier goes through [`Spill`], and is the same for both: what is
//! moved, when, what shadows it, what of it is in a base. So the rules of eviction, freeze and restore are tried by the
//! map; what RocksDB makes of its files is not.

mod map;
mod writes;

#[cfg(not(feature = "rocksdb"))]
mod absent;
#[cfg(feature = "rocksdb")]
mod rocks;

#[cfg(not(feature = "rocksdb"))]
use absent as disk;
#[cfg(feature = "rocksdb")]
use rocks as disk;

pub(crate) use writes::Writes;

use crate::error::StateError;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a scan does next.
pub(crate) enum Visit {
    /// The next entry.
    More,
    /// Nothing.
    Stop,
}

/// What all spill databases of a process share.
#[derive(Debug)]
pub struct SpillShared(Kind);

#[derive(Debug)]
enum Kind {
    Disk(disk::Shared),
    Map(Arc<AtomicU64>),
}

impl SpillShared {
    /// RocksDB with a block cache and a bound on all write buffers together, in bytes. In a build without it there is no
    /// place for what memory has no room for, and a step that needs one fails.
    #[must_use]
    pub fn new(block_cache_bytes: usize, write_buffer_bytes: usize) -> Arc<Self> {
        Arc::new(Self(Kind::Disk(disk::Shared::new(block_cache_bytes, write_buffer_bytes))))
    }

    /// 64 MiB of each.
    #[must_use]
    pub fn with_defaults() -> Arc<Self> {
        Self::new(64 << 20, 64 << 20)
    }

    /// A sorted map in RocksDB's place, for simulations and tests: the same in every run, and not out of memory at all.
    #[must_use]
    pub fn in_a_map() -> Arc<Self> {
        Arc::new(Self(Kind::Map(Arc::default())))
    }

    /// Times that entries were written into maps; 0 if they go to RocksDB.
    #[must_use]
    pub fn writes_into_maps(&self) -> u64 {
        match &self.0 {
            Kind::Disk(_) => 0,
            Kind::Map(writes) => writes.load(Relaxed),
        }
    }
}

/// One open database, of one table. Keys are ordered by key group, so a group is one range.
pub(crate) enum Spill {
    Disk(disk::Spill),
    Map(map::Spill),
}

impl Spill {
    /// Opens an empty database, wiping whatever an earlier process left in the folder.
    pub(crate) fn create(folder: &Path, shared: &SpillShared, step: &str) -> Result<Self, StateError> {
        match &shared.0 {
            Kind::Disk(shared) => disk::Spill::create(folder, shared, step).map(Self::Disk),
            Kind::Map(writes) => Ok(Self::Map(map::Spill::new(writes))),
        }
    }

    /// Opens the database that lies in the folder; the folder is removed with it.
    pub(crate) fn open(folder: &Path, shared: &SpillShared, step: &str) -> Result<Self, StateError> {
        match &shared.0 {
            Kind::Disk(shared) => disk::Spill::open(folder, shared, step).map(Self::Disk),
            Kind::Map(writes) => map::Spill::open(folder, writes).map(Self::Map),
        }
    }

    /// Looks up one key, given in its stored form.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match self {
            Self::Disk(spill) => spill.get(key),
            Self::Map(spill) => Ok(spill.get(key)),
        }
    }

    /// Looks up many keys at once; hands each value found to `found` with the key's position.
    pub(crate) fn multi_get(
        &self,
        keys: &[&[u8]],
        mut found: impl FnMut(usize, &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        match self {
            Self::Disk(spill) => spill.multi_get(keys, found),
            Self::Map(spill) => {
                let values = keys.iter().map(|key| spill.get(key)).enumerate();
                values
                    .filter_map(|(at, value)| Some((at, value?)))
                    .try_for_each(|(at, value)| found(at, &value))
            }
        }
    }

    /// Applies puts and deletes, without a log.
    pub(crate) fn write(&self, writes: &Writes) -> Result<(), StateError> {
        match self {
            Self::Disk(spill) => spill.write(writes),
            Self::Map(spill) => {
                spill.write(writes);
                Ok(())
            }
        }
    }

    /// Hands every entry of a key group to `visit`, in stored form, the key without its group.
    pub(crate) fn scan(
        &self,
        group: u16,
        visit: impl FnMut(&[u8], &[u8]) -> Result<Visit, StateError>,
    ) -> Result<(), StateError> {
        let to = group.checked_add(1).map(u16::to_be_bytes);
        self.range(&group.to_be_bytes(), to.as_ref().map(|to| &to[..]), false, visit)
    }

    /// Hands the entries from one stored key, included, to another, excluded, to `visit`, the keys without their
    /// group; backwards if that is wanted.
    pub(crate) fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        backwards: bool,
        visit: impl FnMut(&[u8], &[u8]) -> Result<Visit, StateError>,
    ) -> Result<(), StateError> {
        match self {
            Self::Disk(spill) => spill.range(from, to, backwards, visit),
            Self::Map(spill) => spill.range(from, to, backwards, visit),
        }
    }

    /// True if the database holds anything of a key group.
    pub(crate) fn holds(&self, group: u16) -> Result<bool, StateError> {
        let mut any = false;
        self.scan(group, |_, _| {
            any = true;
            Ok(Visit::Stop)
        })?;
        Ok(any)
    }

    /// Makes a consistent copy in a new folder; table files are hard links where possible.
    pub(crate) fn link(&self, to: &Path) -> Result<(), StateError> {
        match self {
            Self::Disk(spill) => spill.link(to),
            Self::Map(spill) => spill.link(to),
        }
    }

    /// The number of entries, an estimate.
    pub(crate) fn estimate(&self) -> u64 {
        match self {
            Self::Disk(spill) => spill.estimate(),
            Self::Map(spill) => spill.estimate(),
        }
    }
}

/// Removes a folder with all that is in it, and makes it anew.
pub(crate) fn wipe(folder: &Path) -> Result<(), StateError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StateError::io("empty the folder", folder)(error));
        }
        _ => {}
    }
    std::fs::create_dir_all(folder).map_err(StateError::io("create the folder", folder))
}
