//! The descriptors that readers hold, counted over the whole process, and how files are told apart.
//!
//! A process may have a limited number of files open. A reader holds its file for as long as there is room for all;
//! when there is not, one that has nothing to read lets it go, and looks by the name whether it has grown.

use serde::{Deserialize, Serialize};
use staunch_core::Error;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

/// Limit of open files if the system does not say it: the usual one.
const USUAL_LIMIT: usize = 1024;
/// A quiet reader holds its file for so long, if others could use the room.
const QUIET: Duration = Duration::from_secs(1);

/// What tells a file from all others of its file system, also from one that gets its inode later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct FileId {
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970 at which it was made, where the file system knows that.
    born_ns: Option<u64>,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.and_then(|born| u64::try_from(born.as_nanos()).ok());
        Self { device: metadata.dev(), inode: metadata.ino(), born_ns }
    }
}

static HELD: AtomicUsize = AtomicUsize::new(0);

static LIMIT: LazyLock<usize> = LazyLock::new(|| {
    if cfg!(test) {
        return 64;
    }
    // Without the file the usual limit is assumed; an error of opening says more.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    match soft {
        Some("unlimited") => usize::MAX,
        Some(number) => number.parse().unwrap_or(USUAL_LIMIT),
        None => USUAL_LIMIT,
    }
});

/// An open file, counted.
#[derive(Debug)]
pub(super) struct Descriptor(File);

impl Descriptor {
    pub fn open(path: &Path) -> io::Result<(Self, Metadata)> {
        let file = File::open(path)?;
        HELD.fetch_add(1, Relaxed);
        let descriptor = Self(file);
        let metadata = descriptor.metadata()?;
        Ok((descriptor, metadata))
    }
}

impl Deref for Descriptor {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Relaxed);
    }
}

/// Whether a reader that has been quiet for so long is to let go of its file. The rest of the process needs
/// descriptors, too: half of the limit is left to it.
pub(super) fn should_let_go(quiet: Duration) -> bool {
    let held = HELD.load(Relaxed);
    held > *LIMIT / 8 * 3 || (quiet >= QUIET && held > *LIMIT / 4)
}

/// Why a file cannot be opened.
pub(super) fn cannot_open(path: &Path, error: io::Error, advice: &str) -> Error {
    let place = path.display();
    // EMFILE and ENFILE: on every Unix of ours.
    match error.raw_os_error() {
        Some(23 | 24) => Error::external(format!(
            "cannot open {place}: the process has as many files open as it may; raise the limit (`ulimit -n`, or \
             LimitNOFILE of the service)"
        )),
        _ if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::PermissionDenied => {
            Error::job(format!("cannot open {place}; check the path and its permissions.{advice}"))
        }
        _ => Error::external(format!("cannot open {place}; is the disk that it is on there?{advice}")),
    }
    .caused_by(error)
}
