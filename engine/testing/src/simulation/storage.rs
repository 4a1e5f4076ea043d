//! The checkpoint storage as one simulated process sees it: a shared memory that survives the process,
//! and operations that its fate decides on.

use super::fate::{FAILED_EFFECT, Fate, Verdict};
use staunch::core::{InMemoryStorage, Put, Storage, StorageError};
use std::io;
use std::path::Path;

/// A process's access to the storage.
#[derive(Clone, Debug)]
pub struct Access {
    blobs: InMemoryStorage,
    fate: Fate,
}

impl Access {
    /// The access of the process with this fate.
    pub fn new(blobs: InMemoryStorage, fate: Fate) -> Self {
        Self { blobs, fate }
    }

    fn effect<R>(
        &self,
        action: &'static str,
        name: &str,
        work: impl FnOnce() -> Result<R, StorageError>,
    ) -> Result<R, StorageError> {
        let verdict = self.fate.decide(format_args!("{action} {name}"));
        let done = if verdict.takes_place() { Some(work()) } else { None };
        let (name, place) = (name.to_owned(), self.place());
        let source = || io::Error::other(format!("{FAILED_EFFECT} {verdict:?}"));
        match (verdict, done) {
            (Verdict::Done, Some(done)) => done,
            (Verdict::DoneUnknown | Verdict::NotDoneUnknown, _) => {
                Err(StorageError::Unknown { action, name, place, source: source() })
            }
            _ => Err(StorageError::Io { action, name, place, source: source() }),
        }
    }

    /// As an effect, but of those whose failing leaves nothing unknown: reading, or writing under a name
    /// that is not used unless the write is known to have succeeded.
    fn plain<R>(
        &self,
        action: &'static str,
        name: &str,
        work: impl FnOnce() -> Result<R, StorageError>,
    ) -> Result<R, StorageError> {
        self.effect(action, name, work).map_err(|error| match error {
            StorageError::Unknown { action, name, place, source } => {
                StorageError::Io { action, name, place, source }
            }
            other => other,
        })
    }
}

impl Storage for Access {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.plain("put", name, || self.blobs.put(name, bytes))
    }

    fn put_file(&self, name: &str, from: &Path) -> Result<(), StorageError> {
        self.plain("put file", name, || self.blobs.put_file(name, from))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<Put, StorageError> {
        self.effect("create", name, || self.blobs.put_if_absent(name, bytes))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        self.plain("get", name, || self.blobs.get(name))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, StorageError> {
        self.plain("get a range of", name, || self.blobs.get_range(name, offset, length))
    }

    fn get_file(&self, name: &str, to: &Path) -> Result<(), StorageError> {
        self.plain("get file", name, || self.blobs.get_file(name, to))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        self.plain("list", prefix, || self.blobs.list(prefix))
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.plain("delete", name, || self.blobs.delete(name))
    }

    fn place(&self) -> String {
        "a simulated storage".into()
    }
}
