//! A sorted map in RocksDB's place. Its copies are one file each.

use super::{Visit, Writes};
use crate::error::StateError;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The file of a copy.
const ENTRIES: &str = "entries";

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// See the module. A lock, because a base is copied by another thread.
pub(crate) struct Spill {
    map: Mutex<Map>,
    /// Counts writes.
    writes: Arc<AtomicU64>,
}

impl Spill {
    fn map(&self) -> MutexGuard<'_, Map> {
        // Nothing of the map's own can panic half done.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new(writes: &Arc<AtomicU64>) -> Self {
        Self { map: Mutex::default(), writes: Arc::clone(writes) }
    }

    pub(super) fn open(folder: &Path, writes: &Arc<AtomicU64>) -> Result<Self, StateError> {
        let file = folder.join(ENTRIES);
        let bytes = std::fs::read(&file).map_err(StateError::io("read", &file))?;
        let damaged = || StateError::io("read", &file)(Error::from(ErrorKind::UnexpectedEof));
        let (mut map, mut rest) = (Map::new(), &bytes[..]);
        while !rest.is_empty() {
            let (key, behind) = take(rest).ok_or_else(damaged)?;
            let (value, behind) = take(behind).ok_or_else(damaged)?;
            map.insert(key.to_vec(), value.to_vec());
            rest = behind;
        }
        // As with RocksDB, the folder goes; here at once.
        std::fs::remove_dir_all(folder).map_err(StateError::io("remove", folder))?;
        Ok(Self { map: Mutex::new(map), ..Self::new(writes) })
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.map().get(key).cloned()
    }

    pub(super) fn write(&self, writes: &Writes) {
        self.writes.fetch_add(1, Relaxed);
        let mut map = self.map();
        for (key, value) in writes.iter() {
            match value {
                Some(value) => drop(map.insert(key.to_vec(), value.to_vec())),
                None => drop(map.remove(key)),
            }
        }
    }

    pub(super) fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        backwards: bool,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<Visit, StateError>,
    ) -> Result<(), StateError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let map = self.map();
        let range =
            map.range::<[u8], _>((Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded)));
        let mut visit = |(key, value): (&Vec<u8>, &Vec<u8>)| visit(&key[2..], value);
        let stops = |visited: &Result<Visit, _>| !matches!(visited, Ok(Visit::More));
        let last = if backwards {
            range.rev().map(&mut visit).find(stops)
        } else {
            range.map(&mut visit).find(stops)
        };
        last.unwrap_or(Ok(Visit::Stop)).map(drop)
    }

    pub(super) fn link(&self, to: &Path) -> Result<(), StateError> {
        let mut bytes = Vec::new();
        for part in self.map().iter().flat_map(|(key, value)| [key, value]) {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        std::fs::create_dir_all(to).map_err(StateError::io("create the folder", to))?;
        let file = to.join(ENTRIES);
        std::fs::write(&file, bytes).map_err(StateError::io("write", &file))
    }

    pub(super) fn estimate(&self) -> u64 {
        self.map().len() as u64
    }
}

/// A length and so many bytes off the front; returns them and the rest.
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    rest.split_at_checked(u64::from_le_bytes(*length).try_into().ok()?)
}
