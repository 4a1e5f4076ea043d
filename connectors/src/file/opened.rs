//! The files that readers have open: none of them may be read a second time under another name.
//!
//! Each worker of a job has a source of its own, so that what is open is known to the whole process; names are
//! compared within a directory, so that sources which have nothing to do with each other do not meet.

use super::descriptors::FileId;
use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Device and inode of a directory: what it is, whatever it is called.
pub(super) type Directory = (u64, u64);

/// Names of open files, with the number of readers that have them.
type Open = HashMap<(Directory, FileId), (String, usize)>;

static OPEN: LazyLock<Mutex<Open>> = LazyLock::new(Mutex::default);

/// When the last listing of each followed directory began. A listing that finds an open file under another name
/// fails, so that after it every open file has its name, or is not in the directory.
static LISTED: LazyLock<Mutex<HashMap<Directory, Instant>>> = LazyLock::new(Mutex::default);

/// A file, for as long as it is open.
#[derive(Debug)]
pub(super) struct Opened(Directory, FileId);

fn open() -> MutexGuard<'static, Open> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The directory that a file is in.
fn directory(path: &Path) -> io::Result<Directory> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    directory.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Notes that the file at a path is open under a name.
///
/// # Errors
/// It is open under another one.
pub(super) fn add(path: &Path, file: FileId, name: &str) -> Result<Opened> {
    let directory = directory(path).map_err(|e| {
        Error::external(format!("cannot look at the directory of {}", path.display())).caused_by(e)
    })?;
    let mut open = open();
    let (known, readers) = open.entry((directory, file)).or_insert_with(|| (name.to_owned(), 0));
    if known != name {
        return Err(two_names(name, known));
    }
    *readers += 1;
    Ok(Opened(directory, file))
}

impl Opened {
    /// Whether a file that was missing at this time was not renamed: its directory was listed since. In one that
    /// nobody lists nobody would find it.
    pub(super) fn was_not_renamed(&self, missing: Instant) -> bool {
        let listed = LISTED.lock().unwrap_or_else(PoisonError::into_inner);
        listed.get(&self.0).is_none_or(|began| *began > missing)
    }
}

/// A listing of a followed directory has ended well.
pub(super) fn listed(directory: Directory, began: Instant) {
    LISTED.lock().unwrap_or_else(PoisonError::into_inner).insert(directory, began);
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut open = open();
        let key = (self.0, self.1);
        if let Some((_, readers)) = open.get_mut(&key) {
            *readers -= 1;
            if *readers == 0 {
                open.remove(&key);
            }
        }
    }
}

/// The name under which a file of a directory is open, if it is.
pub(super) fn name(directory: Directory, file: FileId) -> Option<String> {
    open().get(&(directory, file)).map(|(name, _)| name.clone())
}

/// The error if an open file turns up under another name.
pub(super) fn two_names(new: &str, open: &str) -> Error {
    Error::job(format!(
        "{new} is the file that is being read as {open}: it was renamed or linked, and its records would be read \
         twice. A followed file must keep its name; give it the old one back"
    ))
}
