//! Checkpoint storage in memory, for tests: ours and the users'.

use crate::storage::{Put, Storage, StorageError};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A [`Storage`] that lasts as long as it is referenced. Clones share their blobs, so a "restarted"
/// job of a test finds what the one before it wrote.
#[derive(Clone, Debug, Default)]
pub struct InMemoryStorage {
    blobs: Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>,
}

impl InMemoryStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn blobs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Vec<u8>>>> {
        // Each operation is one call on the map, so a panic elsewhere leaves it whole.
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob(&self, name: &str) -> Result<Arc<Vec<u8>>, StorageError> {
        let blob = self.blobs().get(name).cloned();
        blob.ok_or_else(|| StorageError::NotFound { name: name.to_owned(), place: self.place() })
    }

    fn io(&self, action: &'static str, name: &str) -> impl FnOnce(Error) -> StorageError {
        let (name, place) = (name.to_owned(), self.place());
        move |source| StorageError::Io { action, name, place, source }
    }
}

impl Storage for InMemoryStorage {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.blobs().insert(name.to_owned(), Arc::new(bytes.to_vec()));
        Ok(())
    }

    fn put_file(&self, name: &str, from: &Path) -> Result<(), StorageError> {
        let bytes = std::fs::read(from).map_err(self.io("copy a file to", name))?;
        self.put(name, &bytes)
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<Put, StorageError> {
        let mut blobs = self.blobs();
        if blobs.contains_key(name) {
            return Ok(Put::Exists);
        }
        blobs.insert(name.to_owned(), Arc::new(bytes.to_vec()));
        Ok(Put::Created)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        Ok(self.blob(name)?.to_vec())
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, StorageError> {
        let blob = self.blob(name)?;
        let end = offset.saturating_add(length);
        let range = usize::try_from(offset).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
        let short = || self.io("read a range of", name)(Error::from(ErrorKind::UnexpectedEof));
        blob.get(range).map(<[u8]>::to_vec).ok_or_else(short)
    }

    fn get_file(&self, name: &str, to: &Path) -> Result<(), StorageError> {
        std::fs::write(to, &*self.blob(name)?).map_err(self.io("copy to a local file", name))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        Ok(self.blobs().keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.blobs().remove(name);
        Ok(())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}
