//! Whether a database is still the file that was opened: neither removed nor replaced.
//!
//! SQLite goes on writing into a file that has no name any more, and says that all is well. So the name is looked up
//! again before output becomes a part of a checkpoint, and around each commit.

use staunch_core::{Error, Result};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a file is, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// What stands under a name; `None` if nothing does.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(Self { device: found.dev(), inode: found.ino() })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::external(format!("cannot look at {}", path.display())).caused_by(e)),
        }
    }

    /// Whether the database under this name is this one.
    pub fn check(self, path: &Path) -> Result<()> {
        let what = match Self::of(path)? {
            Some(found) if found == self => return Ok(()),
            Some(_) => "was replaced by another file",
            None => "was removed or moved away",
        };
        Err(Error::job(format!(
            "the database {} {what} while the job ran: rows that were committed are in the old file, and no more are \
             written. Put the old file back and run the job again, or start over with --from none and another database",
            path.display()
        )))
    }
}

/// The name of the write-ahead log of a database.
pub(super) fn write_ahead_log(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}
