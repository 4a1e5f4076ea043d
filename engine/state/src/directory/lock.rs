//! One process at a time on a checkpoint directory.

use super::temporary::host;
use crate::error::StateError;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// Name of the lock file in the directory.
pub(super) const FILE: &str = "lock";

/// An exclusive `flock` on the directory's `lock` file, which names the holder. The kernel releases it
/// when the holder lets go of it or dies. It guards against starting a job twice by mistake; what
/// makes a second start harmless is the checkpoint log.
#[derive(Debug)]
pub struct DirectoryLock {
    /// The open file holds the lock.
    _file: File,
}

impl DirectoryLock {
    pub(super) fn take(path: &Path) -> Result<Self, StateError> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(StateError::io("open the lock file", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&mut file, path)),
            Err(TryLockError::Error(error)) => return Err(StateError::io("lock", path)(error)),
        }
        let note = format!("{} {}\n", std::process::id(), host());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(StateError::io("write the lock file", path))?;
        Ok(Self { _file: file })
    }
}

fn held(file: &mut File, path: &Path) -> StateError {
    let mut note = String::new();
    // Without a note the message has question marks.
    let _ = file.read_to_string(&mut note);
    let mut parts = note.split_whitespace().map(str::to_owned);
    let mut part = || parts.next().unwrap_or_else(|| "?".to_owned());
    StateError::AlreadyRunning { pid: part(), host: part(), path: path.to_owned() }
}
