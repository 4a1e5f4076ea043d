//! Checkpoint storage: named immutable blobs, and numbered records created exactly once.
//!
//! The contract fits a local directory and an object store with conditional put. Calls block; the
//! runtime makes them on threads of its own, never on a dataflow worker.

use std::fmt::Debug;

/// Outcome of [`Storage::put_if_absent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// The name was free and now holds the bytes, durably.
    Created,
    /// The name was taken; nothing changed.
    Exists,
}

/// An error of the storage, with what was being done and where.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No blob of that name.
    #[error("{name}: not found in the checkpoint storage {place}")]
    NotFound {
        /// The blob.
        name: String,
        /// The storage.
        place: String,
    },
    /// The operation failed and had no effect that a reader can see.
    #[error("{action} {name} in {place}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The blob.
        name: String,
        /// The storage.
        place: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// It is not known whether the operation took effect: read again before deciding anything.
    #[error("{action} {name} in {place}: outcome unknown: {source}")]
    Unknown {
        /// What was being done.
        action: &'static str,
        /// The blob.
        name: String,
        /// The storage.
        place: String,
        /// Why it is unknown.
        source: std::io::Error,
    },
}

/// Where checkpoints live. Names are relative paths with `/`, made of `[A-Za-z0-9._-]` parts.
pub trait Storage: Send + Sync + Debug + 'static {
    /// Writes a blob under a name that nobody else uses, durably (file and directory synced). A blob
    /// that exists already is replaced in one step.
    ///
    /// # Errors
    /// The write failed; nothing is visible under the name, or the old blob still is.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError>;

    /// Copies a local file into the storage, durably. A directory on the same file system may hard-link
    /// it: the caller never changes the file afterwards.
    ///
    /// # Errors
    /// As [`Storage::put`].
    fn put_file(&self, name: &str, from: &std::path::Path) -> Result<(), StorageError>;

    /// Creates a record unless the name is taken, in one atomic and durable step: the linearisation
    /// point of the checkpoint log.
    ///
    /// # Errors
    /// [`StorageError::Io`]: it did not happen. [`StorageError::Unknown`]: it may have.
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<Put, StorageError>;

    /// Reads a whole blob.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], or the read failed.
    fn get(&self, name: &str) -> Result<Vec<u8>, StorageError>;

    /// Reads `length` bytes from `offset`.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], or the read failed, or the blob is shorter.
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, StorageError>;

    /// Copies a blob to a local file (a hard link where possible; never change the file afterwards).
    ///
    /// # Errors
    /// [`StorageError::NotFound`], or the copy failed.
    fn get_file(&self, name: &str, to: &std::path::Path) -> Result<(), StorageError>;

    /// Names that start with `prefix` (a folder, ending in `/`, or empty), sorted. A folder that does
    /// not exist is empty.
    ///
    /// # Errors
    /// The listing failed.
    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError>;

    /// Deletes a blob; one that is not there is no error.
    ///
    /// # Errors
    /// The deletion failed.
    fn delete(&self, name: &str) -> Result<(), StorageError>;

    /// For messages: where this storage is.
    fn place(&self) -> String;
}
