//! The files that readers have open: none of them may be read a second time under another name.
//!
//! An open file keeps its inode, so a name with the same inode is the same file: renamed while its reader was
//! behind, or linked. Each worker of a job has a source of its own, so that what is open is known to the whole
//! process; names are compared within a directory, so that sources which have nothing to do with each other do not
//! meet.

use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

static OPEN: Mutex<Vec<Weak<Opened>>> = Mutex::new(Vec::new());

/// A file, for as long as it is open.
#[derive(Debug)]
pub(super) struct Opened {
    directory: PathBuf,
    name: String,
    device: u64,
    inode: u64,
}

fn open() -> MutexGuard<'static, Vec<Weak<Opened>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The directory of a file, under the name that all sources know it by.
fn directory(path: &Path) -> PathBuf {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // One that cannot be resolved has no other name.
    directory.canonicalize().unwrap_or_else(|_| directory.to_owned())
}

/// Notes that the file at a path is open under a name.
///
/// # Errors
/// It is open under another one.
pub(super) fn add(path: &Path, file: &Metadata, name: &str) -> Result<Arc<Opened>> {
    let (device, inode) = (file.dev(), file.ino());
    let new = Arc::new(Opened { directory: directory(path), name: name.to_owned(), device, inode });
    let mut open = open();
    open.retain(|other| other.strong_count() > 0);
    let is_it = |other: &Arc<Opened>| {
        (other.device, other.inode) == (device, inode) && other.directory == new.directory
    };
    if let Some(other) = open.iter().filter_map(Weak::upgrade).find(|o| is_it(o) && o.name != name) {
        return Err(two_names(name, &other.name));
    }
    open.push(Arc::downgrade(&new));
    Ok(new)
}

/// The files of a directory, given by its canonical name, that are open: device and inode, with the name.
pub(super) fn in_directory(directory: &Path) -> HashMap<(u64, u64), String> {
    let open = open();
    let all = open.iter().filter_map(Weak::upgrade).filter(|opened| opened.directory == directory);
    all.map(|opened| ((opened.device, opened.inode), opened.name.clone())).collect()
}

/// The error if an open file turns up under another name.
pub(super) fn two_names(new: &str, open: &str) -> Error {
    Error::job(format!(
        "{new} is the file that is being read as {open}: it was renamed or linked, and its records would be read \
         twice. A followed file must keep its name; give it the old one back"
    ))
}
