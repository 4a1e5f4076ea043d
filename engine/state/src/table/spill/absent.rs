//! In place of the RocksDB tier, in a build without it: whatever would go there is an error.
//!
//! For developing and testing jobs, whose first build takes a few minutes then. The names are those of `rocks`.

use super::Visit;
use crate::error::StateError;
use std::path::Path;
use std::sync::Arc;

/// What all spill databases of a process share: nothing in this build.
#[derive(Debug)]
pub struct SpillShared(());

impl SpillShared {
    /// Takes the sizes of a build with RocksDB, and needs none.
    #[must_use]
    pub fn new(_block_cache_bytes: usize, _write_buffer_bytes: usize) -> Arc<Self> {
        Arc::new(Self(()))
    }

    /// The same.
    #[must_use]
    pub fn with_defaults() -> Arc<Self> {
        Self::new(0, 0)
    }
}

/// Puts and deletes that would be written together.
#[derive(Default)]
pub(crate) struct Writes(usize);

impl Writes {
    pub(crate) fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.0 += key.as_ref().len() + value.as_ref().len();
    }

    pub(crate) fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.0 += key.as_ref().len();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0 == 0
    }

    pub(crate) fn size_in_bytes(&self) -> usize {
        self.0
    }
}

/// A database that there never is.
pub(crate) enum Spill {}

impl Spill {
    /// Refuses: memory is full.
    pub(crate) fn create(_: &Path, _: &SpillShared, step: &str) -> Result<Self, StateError> {
        Err(StateError::NoSpill { step: step.to_owned() })
    }

    /// Refuses: the checkpoint was taken by a build with RocksDB.
    pub(crate) fn open(_: &Path, _: &SpillShared, step: &str) -> Result<Self, StateError> {
        Err(StateError::NoSpill { step: step.to_owned() })
    }

    pub(crate) fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match *self {}
    }

    pub(crate) fn multi_get(
        &self,
        _: &[&[u8]],
        _: impl FnMut(usize, &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        match *self {}
    }

    pub(crate) fn write(&self, _: Writes) -> Result<(), StateError> {
        match *self {}
    }

    pub(crate) fn scan(
        &self,
        _: u16,
        _: impl FnMut(&[u8], &[u8]) -> Result<Visit, StateError>,
    ) -> Result<(), StateError> {
        match *self {}
    }

    pub(crate) fn range(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: bool,
        _: impl FnMut(&[u8], &[u8]) -> Result<Visit, StateError>,
    ) -> Result<(), StateError> {
        match *self {}
    }

    pub(crate) fn holds(&self, _: u16) -> Result<bool, StateError> {
        match *self {}
    }

    pub(crate) fn link(&self, _: &Path) -> Result<(), StateError> {
        match *self {}
    }

    pub(crate) fn estimate(&self) -> u64 {
        match *self {}
    }
}
