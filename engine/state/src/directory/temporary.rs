//! Temporary files: named so that anyone can tell whether their process still lives.

use crate::error::StateError;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Their folder in the storage's root.
pub(super) const FOLDER: &str = ".tmp";
/// Files of other hosts are removed at this age.
const FOREIGN_AGE: Duration = Duration::from_secs(24 * 3600);

/// Number of the next temporary file.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The path of a new temporary file, removed when dropped (if it is still there).
pub(super) struct Temporary(PathBuf);

impl Temporary {
    pub(super) fn new(root: &Path) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{}.{}.{number}", host(), std::process::id(), start());
        Self(root.join(FOLDER).join(name))
    }

    /// The path of a new file beside another, outside the storage.
    pub(super) fn beside(file: &Path) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".copy-{}-{number}", std::process::id()));
        Self(file.with_file_name(name))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone after a rename. It is still there after a rename between two links of one file, which
        // does nothing, and after errors; the next start removes what cannot be removed now.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes temporary files whose process is dead.
pub(super) fn clean(folder: &Path) -> Result<(), StateError> {
    let entries = fs::read_dir(folder).map_err(StateError::io("list the folder", folder))?;
    for entry in entries {
        let entry = entry.map_err(StateError::io("list the folder", folder))?;
        if is_left_over(&entry) {
            // Another process may be cleaning too.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn is_left_over(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy().into_owned();
    let [whose, pid, begun, _] = name.split('.').collect::<Vec<_>>()[..] else { return true };
    if begun == start() && pid == std::process::id().to_string() {
        return false;
    }
    if whose == host() && Path::new("/proc/self").exists() {
        // A number like ours is that of an earlier process.
        let gone = || matches!(Path::new("/proc").join(pid).try_exists(), Ok(false));
        return pid == std::process::id().to_string() || gone();
    }
    let age = entry.metadata().and_then(|data| data.modified()).map(|time| time.elapsed());
    matches!(age, Ok(Ok(age)) if age > FOREIGN_AGE)
}

/// Distinguishes this process from an earlier one of the same number.
fn start() -> &'static str {
    static START: OnceLock<String> = OnceLock::new();
    START.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos().to_string()
    })
}

/// Name of this host, made of letters, digits and dashes.
pub(super) fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = name.trim().chars().map(plain).collect();
        if name.is_empty() { "host".to_owned() } else { name }
    })
}
