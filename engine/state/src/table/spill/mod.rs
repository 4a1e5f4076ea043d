//! Where clean entries go that memory has no room for: RocksDB, if it is built in.

#[cfg(not(feature = "rocksdb"))]
mod absent;
#[cfg(feature = "rocksdb")]
mod rocks;

#[cfg(not(feature = "rocksdb"))]
pub use absent::SpillShared;
#[cfg(feature = "rocksdb")]
pub use rocks::SpillShared;

#[cfg(not(feature = "rocksdb"))]
pub(crate) use absent::{Spill, Writes};
#[cfg(feature = "rocksdb")]
pub(crate) use rocks::{Spill, Writes};

use crate::error::StateError;
use std::path::Path;

/// What a scan does next.
pub(crate) enum Visit {
    /// The next entry.
    More,
    /// Nothing.
    Stop,
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
