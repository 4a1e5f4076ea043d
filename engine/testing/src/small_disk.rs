//! A small file system of its own, which a test can fill: what a job does when a disk is full.
//!
//! Promises that it is unmounted and that its space is free again when it is dropped. It is a Linux `tmpfs`,
//! and only root may mount one: a test says that it was skipped where that fails.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Its name begins with a dot: readers of part files pass it over.
const BALLAST: &str = ".ballast";

/// A file system in memory of a few bytes.
///
/// ```no_run
/// use staunch_testing::small_disk::SmallDisk;
///
/// # fn main() -> std::io::Result<()> {
/// let folder = tempfile::tempdir()?;
/// let disk = match SmallDisk::mount(&folder.path().join("checkpoints"), 2 << 20) {
///     Ok(disk) => disk,
///     Err(error) => {
///         println!("SKIPPED: {error}");
///         return Ok(());
///     }
/// };
/// // Start a job whose checkpoints are in `disk.path()`, and wait until it has taken some.
/// disk.fill()?;
/// // The job must end with an error that says "No space left".
/// disk.make_space()?;
/// // It must continue now, to the right result.
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a file system that holds about so many bytes. The directory is made if it is not there; what is
    /// in it is hidden meanwhile.
    ///
    /// # Errors
    /// This user may not mount a file system, or there is no `tmpfs` here.
    pub fn mount(at: &Path, bytes: u64) -> Result<Self> {
        fs::create_dir_all(at)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(at);
        let done = mount.output()?;
        if !done.status.success() {
            let why = String::from_utf8_lossy(&done.stderr);
            return Err(Error::other(format!(
                "a small file system cannot be mounted (root may): {}",
                why.trim().replace('\n', ", ")
            )));
        }
        Ok(Self(at.to_owned()))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the space that is left.
    ///
    /// # Errors
    /// Something else went wrong than that there was no space left.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.0.join(BALLAST))?;
        let mut size = 1 << 16;
        while size > 0 {
            match ballast.write_all(&vec![1; size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Errors
    /// It took nothing.
    pub fn make_space(&self) -> Result<()> {
        fs::remove_file(self.0.join(BALLAST))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever has a file open in it is not disturbed.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
