//! The files that a source has open: none of them may be read a second time under another name.
//!
//! An open file keeps its inode, so a name with the same inode is the same file: renamed while its reader
//! was behind, or linked.

use staunch_core::{Error, Result};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Shared by the clones of a source.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenFiles(Arc<Mutex<Vec<Weak<Opened>>>>);

/// One of them, for as long as it is open.
#[derive(Debug)]
pub(super) struct Opened {
    device: u64,
    inode: u64,
    name: String,
}

impl OpenFiles {
    fn list(&self) -> MutexGuard<'_, Vec<Weak<Opened>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a file is open under a name.
    ///
    /// # Errors
    /// It is open under another one.
    pub fn add(&self, file: &Metadata, name: &str) -> Result<Arc<Opened>> {
        let mut list = self.list();
        check(&list, file, name)?;
        let opened = Arc::new(Opened { device: file.dev(), inode: file.ino(), name: name.to_owned() });
        list.retain(|other| other.strong_count() > 0);
        list.push(Arc::downgrade(&opened));
        Ok(opened)
    }

    /// Checks that a file which is to be read under a name is not open under another one.
    ///
    /// # Errors
    /// It is.
    pub fn check(&self, file: &Metadata, name: &str) -> Result<()> {
        check(&self.list(), file, name)
    }
}

fn check(list: &[Weak<Opened>], file: &Metadata, name: &str) -> Result<()> {
    let is_it = |opened: &Arc<Opened>| (opened.device, opened.inode) == (file.dev(), file.ino());
    match list.iter().filter_map(Weak::upgrade).find(|opened| is_it(opened) && opened.name != name) {
        None => Ok(()),
        Some(opened) => Err(Error::job(format!(
            "{name} is the file that is being read as {}: it was renamed or linked, and its records would be read \
             twice. A followed file must keep its name; give it the old one back",
            opened.name
        ))),
    }
}
