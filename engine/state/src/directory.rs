//! Checkpoint storage in a directory of a local (or POSIX-like shared) file system.
//!
//! A blob is written to a temporary file, synced, and renamed to its name; a record that must not
//! exist yet is hard-linked to its name instead, which fails if the name is taken. Then the directory
//! is synced, and once per process every directory above it, so that a power cut cannot lose the way
//! to the file. Temporary files live in `.tmp/`, named by host, process and start of the process, so
//! that opening the directory removes those of dead processes and never those of a live one.
//!
//! An answer of the file system is not believed where it decides: after a link or a renaming that failed, what
//! is at the new name counts; and a name is absent only if the directory is still the one that was opened, and
//! no link on the way leads nowhere.

mod link;
mod lock;
mod temporary;

pub use lock::DirectoryLock;

use crate::error::StateError;
use crate::storage::{Put, Storage, StorageError};
use link::{Identity, Named};
use staunch_crash::{bug, disk, point};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Crash points while a blob is written, and while a record is.
const BLOB: [&str; 3] = ["storage.temporary_torn", "storage.temporary_written", "storage.temporary_synced"];
const RECORD: [&str; 3] = ["decision.torn", "decision.temporary_written", "decision.temporary_synced"];

/// A [`Storage`] in a directory.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    /// Open as long as this is, so that another directory in its place is told apart.
    opened: File,
    /// Folders whose whole path is known to be durable.
    durable: Mutex<BTreeSet<PathBuf>>,
}

impl Directory {
    /// Opens a directory, making it and its parents if need be, and removes temporary files that dead
    /// processes left in it.
    ///
    /// # Errors
    /// It cannot be made, read or synced.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateError> {
        let path = path.into();
        disk::making_folder(&path);
        fs::create_dir_all(&path).map_err(StateError::io("create the directory", &path))?;
        let root = path.canonicalize().map_err(StateError::io("open the directory", &path))?;
        for folder in root.ancestors() {
            // A parent that may not be opened was not made by us.
            match sync_folder(folder) {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                    return Err(StateError::io("sync the directory", folder)(error));
                }
                _ => {}
            }
        }
        let temporary = root.join(temporary::FOLDER);
        disk::making_folder(&temporary);
        fs::create_dir_all(&temporary).map_err(StateError::io("create the folder", &temporary))?;
        temporary::clean(&temporary)?;
        let opened = File::open(&root).map_err(StateError::io("open the directory", &root))?;
        Ok(Self { root, opened, durable: Mutex::default() })
    }

    /// Takes the directory for this process; see [`DirectoryLock`].
    ///
    /// # Errors
    /// [`StateError::AlreadyRunning`]: another process has it. [`StateError::Io`]: the lock file
    /// cannot be written.
    pub fn try_lock(&self) -> Result<DirectoryLock, StateError> {
        DirectoryLock::take(&self.root.join(lock::FILE))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// For failures of reading a blob: "not found" only if there is surely none.
    fn reading(
        &self,
        action: &'static str,
        name: &str,
        file: &Path,
    ) -> impl FnOnce(Error) -> StorageError + use<> {
        let absent = |error: &Error| error.kind() == ErrorKind::NotFound;
        let (found, name, place) = (self.is_absent(file), name.to_owned(), self.place());
        move |source| match found {
            Ok(true) if absent(&source) => StorageError::NotFound { name, place },
            Err(source) => StorageError::Io { action, name, place, source: advised(source) },
            Ok(_) => StorageError::Io { action, name, place, source: advised(source) },
        }
    }

    /// For failures of writing, where "not found" would be misleading.
    fn failed(&self, action: &'static str, name: &str) -> impl FnOnce(Error) -> StorageError {
        let (name, place) = (name.to_owned(), self.place());
        move |source| StorageError::Io { action, name, place, source: advised(source) }
    }

    fn unknown(&self, action: &'static str, name: &str) -> impl FnOnce(Error) -> StorageError {
        let (name, place) = (name.to_owned(), self.place());
        move |source| StorageError::Unknown { action, name, place, source: advised(source) }
    }

    /// The file of a name, if the name is allowed.
    fn file(&self, name: &str) -> Result<PathBuf, StorageError> {
        let good = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            !matches!(part, "" | "." | "..") && part.chars().all(plain)
        };
        let first = name.split('/').next().unwrap_or_default();
        if name.split('/').all(good) && first != temporary::FOLDER && name != lock::FILE {
            return Ok(self.root.join(name));
        }
        let problem = "a name consists of parts of [A-Za-z0-9._-] separated by '/'";
        Err(self.failed("use the name", name)(Error::new(ErrorKind::InvalidInput, problem)))
    }

    /// Makes the folder of a file, durably.
    fn make_folder(&self, file: &Path) -> Result<(), Error> {
        let folder = file.parent().unwrap_or(&self.root);
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.contains(folder) && folder.is_dir() {
            return Ok(());
        }
        disk::making_folder(folder);
        fs::create_dir_all(folder)?;
        // Also folders that another process made and may not have synced yet.
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.root)) {
            sync_folder(above)?;
        }
        durable.insert(folder.to_owned());
        Ok(())
    }

    fn folder_of<'a>(&'a self, file: &'a Path) -> &'a Path {
        file.parent().unwrap_or(&self.root)
    }

    /// Writes a synced temporary file, passing crash points when half of it is written, all of it, and when
    /// it is synced.
    fn stage(&self, bytes: &[u8], points: [&'static str; 3]) -> Result<temporary::Temporary, Error> {
        let staged = temporary::Temporary::new(&self.root);
        disk::writing(staged.path());
        let mut file = File::options().write(true).create_new(true).open(staged.path())?;
        let [torn, written, synced] = points;
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        file.write_all(half)?;
        point(torn)?;
        file.write_all(rest)?;
        point(written)?;
        file.sync_all()?;
        let there = file.metadata()?.len();
        if there != bytes.len() as u64 {
            let problem = format!("{there} of {} bytes are in the file after it was synced", bytes.len());
            return Err(Error::new(ErrorKind::WriteZero, problem));
        }
        disk::synced(staged.path());
        point(synced)?;
        Ok(staged)
    }

    /// Renames a synced temporary file to its name.
    fn publish(
        &self,
        action: &'static str,
        name: &str,
        file: &Path,
        staged: &temporary::Temporary,
    ) -> Result<(), StorageError> {
        self.make_folder(file).map_err(self.failed("make the folder of", name))?;
        disk::renaming(staged.path(), file);
        match link::rename(staged.path(), file, link::by_rename) {
            Named::Made => {}
            Named::Refused(error) => return Err(self.failed(action, name)(error)),
            Named::Unknown(error) => return Err(self.unknown(action, name)(error)),
            Named::Taken => {
                return Err(self.failed(action, name)(Error::from(ErrorKind::AlreadyExists)));
            }
        }
        point("storage.visible")
            .and_then(|()| sync_folder(self.folder_of(file)))
            .map_err(self.unknown("sync the folder of", name))
    }

    /// Whether nothing is at a path, and the directory is still there to say so.
    fn is_absent(&self, file: &Path) -> Result<bool, Error> {
        let there = Identity::of(&self.root).ok();
        if there != Some(Identity::of_open(&self.opened)?) {
            let problem = "the directory that was opened is not there any more: it was removed or replaced, or its file \
                           system is not mounted. Bring it back, then start the job again";
            return Err(Error::other(problem));
        }
        link::is_absent(file, &self.root)
    }
}

impl Storage for Directory {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let file = self.file(name)?;
        let staged = self.stage(bytes, BLOB).map_err(self.failed("write", name))?;
        self.publish("write", name, &file, &staged)
    }

    fn put_file(&self, name: &str, from: &Path) -> Result<(), StorageError> {
        let action = "copy a file to";
        let file = self.file(name)?;
        let sync = |path: &Path| {
            File::options().write(true).open(path)?.sync_all()?;
            disk::synced(path);
            Ok(())
        };
        let staged = link::staged(from, &self.root, link::by_link)
            .and_then(|staged| sync(staged.path()).map(|()| staged))
            .map_err(self.failed(action, name))?;
        self.publish(action, name, &file, &staged)
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<Put, StorageError> {
        let file = self.file(name)?;
        let staged = self.stage(bytes, RECORD).map_err(self.failed("create", name))?;
        self.make_folder(&file).map_err(self.failed("make the folder of", name))?;
        disk::linking(staged.path(), &file);
        let put = match link::link(staged.path(), &file, link::by_link) {
            Named::Made => Put::Created,
            Named::Taken => Put::Exists,
            Named::Refused(error) => return Err(self.failed("create", name)(error)),
            Named::Unknown(error) => return Err(self.unknown("create", name)(error)),
        };
        // After `Exists` too: what another process linked and did not sync yet, we build upon.
        point("decision.visible")
            .and_then(|()| sync_folder(self.folder_of(&file)))
            .map_err(self.unknown("sync the folder of", name))?;
        Ok(put)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        let file = self.file(name)?;
        fs::read(&file).map_err(|error| self.reading("read", name, &file)(error))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, StorageError> {
        let path = self.file(name)?;
        let read = || {
            let mut file = File::open(&path)?;
            let there = file.metadata()?.len();
            if offset.checked_add(length).is_none_or(|end| end > there) {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the file is shorter"));
            }
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = vec![0; length as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| self.reading("read a range of", name, &path)(error))
    }

    fn get_file(&self, name: &str, to: &Path) -> Result<(), StorageError> {
        let from = self.file(name)?;
        link::link_or_copy(&from, to, link::by_link)
            .map_err(|error| self.reading("copy to a local file", name, &from)(error))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        let folder = match prefix.strip_suffix('/') {
            Some(folder) => self.file(folder)?,
            None if prefix.is_empty() => self.root.clone(),
            None => self.file(&format!("{prefix}?"))?,
        };
        let mut names = Vec::new();
        match walk(&folder, prefix, &mut names) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // What has come to be since then was not there when it was asked for.
                self.is_absent(&folder).map_err(self.failed("list", prefix))?;
            }
            walked => walked.map_err(self.failed("list", prefix))?,
        }
        if prefix.is_empty() {
            let temporary = format!("{}/", temporary::FOLDER);
            names.retain(|name| name != lock::FILE && !name.starts_with(&temporary));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        let file = self.file(name)?;
        match fs::remove_file(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.is_absent(&file).map(drop).map_err(self.failed("delete", name))
            }
            removed => removed.map_err(self.failed("delete", name)),
        }
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    if bug("folder_sync_skipped") {
        return Ok(());
    }
    File::open(folder)?.sync_all()?;
    disk::synced_folder(folder);
    Ok(())
}

/// Adds the names of all files below a folder.
fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<(), Error> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            match walk(&entry.path(), &format!("{name}/"), names) {
                // Removed since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                walked => walked?,
            }
        } else {
            names.push(name);
        }
    }
    Ok(())
}

/// Adds what to do to the errors that people meet.
fn advised(error: Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free space there or keep fewer checkpoints; the next checkpoint tries again"
        }
        ErrorKind::ReadOnlyFilesystem => "mount it writable",
        ErrorKind::Unsupported | ErrorKind::CrossesDevices => {
            "the checkpoint directory must be in one file system that has hard links"
        }
        ErrorKind::PermissionDenied => "give this user read and write permission there",
        _ => return error,
    };
    Error::new(error.kind(), format!("{error}: {advice}"))
}

#[cfg(test)]
mod tests;
