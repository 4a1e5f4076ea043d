//! The RocksDB tier of a build without it: it refuses, so that state beyond the memory budget is an error. For developing
//! and testing jobs, whose first build takes a few minutes then. The names are those of `rocks`.

use super::{Visit, Writes};
use crate::error::StateError;
use std::path::Path;

/// What all spill databases of a process share: nothing in this build.
#[derive(Debug)]
pub(super) struct Shared(());

impl Shared {
    /// Takes the sizes of a build with RocksDB, and needs none.
    pub(super) fn new(_block_cache_bytes: usize, _write_buffer_bytes: usize) -> Self {
        Self(())
    }
}

/// A database that there never is.
pub(crate) enum Spill {}

impl Spill {
    /// Refuses: memory is full.
    pub(super) fn create(_: &Path, _: &Shared, step: &str) -> Result<Self, StateError> {
        Err(StateError::NoSpill { step: step.to_owned() })
    }

    /// Refuses: the checkpoint was taken by a build with RocksDB.
    pub(super) fn open(_: &Path, _: &Shared, step: &str) -> Result<Self, StateError> {
        Err(StateError::NoSpill { step: step.to_owned() })
    }

    pub(super) fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match *self {}
    }

    pub(super) fn multi_get(
        &self,
        _: &[&[u8]],
        _: impl FnMut(usize, &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        match *self {}
    }

    pub(super) fn write(&self, _: &Writes) -> Result<(), StateError> {
        match *self {}
    }

    pub(super) fn range(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: bool,
        _: impl FnMut(&[u8], &[u8]) -> Result<Visit, StateError>,
    ) -> Result<(), StateError> {
        match *self {}
    }

    pub(super) fn link(&self, _: &Path) -> Result<(), StateError> {
        match *self {}
    }

    pub(super) fn estimate(&self) -> u64 {
        match *self {}
    }
}
