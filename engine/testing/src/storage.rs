//! A checkpoint storage in memory that fails when it is told to.
//!
//! Promises the contract of [`Storage`], and that every call asks the script first. Knows nothing of what
//! is stored. Called by the conformance suites and by whatever else runs parts of the engine without a disk.

use staunch::core::{InMemoryStorage, Put, Storage, StorageError};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a caller wants of the storage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// `put` and `put_file`.
    Put,
    /// `put_if_absent`.
    PutIfAbsent,
    /// `get`, `get_range` and `get_file`.
    Get,
    /// `list`.
    List,
    /// `delete`.
    Delete,
}

/// How a call goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// Nothing happens, and the caller is told so.
    Fails,
    /// It does not happen, and the caller is told that it may have ([`StorageError::Unknown`]).
    LostRequest,
    /// It happens, and the caller is told that it may have ([`StorageError::Unknown`]).
    LostAnswer,
}

type Script = Arc<dyn Fn(Action, &str) -> Option<Fault> + Send + Sync>;

/// A [`Storage`] in memory. Clones share blobs and script, so it outlives a crash as a disk does.
///
/// ```
/// use staunch::core::{Storage, StorageError};
/// use staunch_testing::storage::{Action, Fault, MemoryStorage};
///
/// let storage = MemoryStorage::new();
/// storage.on_call(|action, name| (action == Action::Put && name == "a").then_some(Fault::LostAnswer));
/// assert!(matches!(storage.put("a", b"1"), Err(StorageError::Unknown { .. })));
/// assert_eq!(storage.get("a").ok(), Some(b"1".to_vec()));
/// ```
#[derive(Clone, Default)]
pub struct MemoryStorage {
    blobs: InMemoryStorage,
    script: Arc<Mutex<Option<Script>>>,
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").field("blobs", &self.blobs).finish_non_exhaustive()
    }
}

impl MemoryStorage {
    /// An empty storage without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn script(&self) -> MutexGuard<'_, Option<Script>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on each call asks `script`, with the blob's name (for `list` the prefix), how it goes wrong.
    /// It must not call the storage.
    pub fn on_call(&self, script: impl Fn(Action, &str) -> Option<Fault> + Send + Sync + 'static) {
        *self.script() = Some(Arc::new(script));
    }

    /// From now on every call of this kind fails, and no other.
    pub fn fail(&self, action: Action) {
        self.on_call(move |called, _| (called == action).then_some(Fault::Fails));
    }

    /// No more faults.
    pub fn heal(&self) {
        *self.script() = None;
    }

    /// Names of all blobs, sorted.
    ///
    /// # Errors
    /// None in practice: the map in memory can be listed. Faults are not asked.
    pub fn names(&self) -> Result<Vec<String>, StorageError> {
        self.blobs.list("")
    }

    /// Loses a blob, as a disk does. False if there was none.
    ///
    /// # Errors
    /// As [`MemoryStorage::names`].
    pub fn lose(&self, name: &str) -> Result<bool, StorageError> {
        let there = self.names()?.iter().any(|known| known == name);
        self.blobs.delete(name)?;
        Ok(there)
    }

    /// Flips a bit of the byte in the middle of a blob.
    ///
    /// # Errors
    /// There is no such blob.
    pub fn damage(&self, name: &str) -> Result<(), StorageError> {
        let mut bytes = self.blobs.get(name)?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        self.blobs.put(name, &bytes)
    }

    fn call<R>(
        &self,
        action: Action,
        name: &str,
        work: impl FnOnce(&InMemoryStorage) -> Result<R, StorageError>,
    ) -> Result<R, StorageError> {
        // Taken out of the lock, so that a script may take its time without holding up the others.
        let script = self.script().clone();
        let fault = script.and_then(|script| script(action, name));
        let (blob, place) = (name.to_owned(), self.place());
        let (action, source) = (action.verb(), io::Error::other("told to fail"));
        match fault {
            None => work(&self.blobs),
            Some(Fault::Fails) => Err(StorageError::Io { action, name: blob, place, source }),
            Some(Fault::LostRequest) => Err(StorageError::Unknown { action, name: blob, place, source }),
            Some(Fault::LostAnswer) => {
                work(&self.blobs)?;
                Err(StorageError::Unknown { action, name: blob, place, source })
            }
        }
    }
}

impl Action {
    fn verb(self) -> &'static str {
        match self {
            Self::Put => "write",
            Self::PutIfAbsent => "create",
            Self::Get => "read",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

impl Storage for MemoryStorage {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.call(Action::Put, name, |blobs| blobs.put(name, bytes))
    }

    fn put_file(&self, name: &str, from: &Path) -> Result<(), StorageError> {
        self.call(Action::Put, name, |blobs| blobs.put_file(name, from))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<Put, StorageError> {
        self.call(Action::PutIfAbsent, name, |blobs| blobs.put_if_absent(name, bytes))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        self.call(Action::Get, name, |blobs| blobs.get(name))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, StorageError> {
        self.call(Action::Get, name, |blobs| blobs.get_range(name, offset, length))
    }

    fn get_file(&self, name: &str, to: &Path) -> Result<(), StorageError> {
        self.call(Action::Get, name, |blobs| blobs.get_file(name, to))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        self.call(Action::List, prefix, |blobs| blobs.list(prefix))
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.call(Action::Delete, name, |blobs| blobs.delete(name))
    }

    fn place(&self) -> String {
        self.blobs.place()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_only_the_calls_that_the_script_names_until_it_is_healed() {
        let storage = MemoryStorage::new();
        storage.fail(Action::Put);
        assert!(matches!(storage.put("a", b"1"), Err(StorageError::Io { .. })));
        assert_eq!(storage.put_if_absent("a", b"2").unwrap(), Put::Created);
        assert!(matches!(storage.put("a", b"3"), Err(StorageError::Io { .. })));
        assert_eq!(storage.get("a").unwrap(), b"2");
        storage.heal();
        storage.put("a", b"4").unwrap();
        assert_eq!(storage.clone().get("a").unwrap(), b"4");
    }

    #[test]
    fn an_unknown_outcome_happened_or_did_not() {
        let storage = MemoryStorage::new();
        for (fault, there) in [(Fault::LostRequest, false), (Fault::LostAnswer, true)] {
            storage.on_call(move |action, _| (action == Action::PutIfAbsent).then_some(fault));
            assert!(matches!(storage.put_if_absent("slot", b"x"), Err(StorageError::Unknown { .. })));
            assert_eq!(storage.get("slot").is_ok(), there, "{fault:?}");
        }
    }

    #[test]
    fn blobs_are_lost_and_damaged_behind_the_callers_back() {
        let storage = MemoryStorage::new();
        storage.put("a", b"123").unwrap();
        storage.damage("a").unwrap();
        assert_eq!(storage.get("a").unwrap(), b"133");
        assert!(storage.lose("a").unwrap() && !storage.lose("a").unwrap());
        assert!(storage.damage("a").is_err() && storage.names().unwrap().is_empty());
    }
}
