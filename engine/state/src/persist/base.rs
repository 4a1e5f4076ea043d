//! The RocksDB tier's part of a base: hard links, of which only new files are copied.

use crate::error::StateError;
use crate::storage::Storage;
use crate::table::Spill;
use staunch_checkpoint::{FileKind, FileRef};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A copied RocksDB tier.
pub(super) struct Copied {
    pub(super) files: Vec<FileRef>,
    /// Of the files that were not stored yet.
    pub(super) bytes: u64,
}

/// The local name of a spill file in the storage: what follows `<checkpoint>-g<generation>-`.
pub(crate) fn local_name(stored: &str) -> Option<&str> {
    stored.rsplit('/').next()?.splitn(3, '-').nth(2)
}

/// The stored table files of a chain, by local name.
pub(super) fn tables(files: &[FileRef]) -> BTreeMap<String, FileRef> {
    let spill = files.iter().filter(|file| file.kind == FileKind::Spill);
    spill
        .filter_map(|file| Some((local_name(&file.name)?.to_owned(), file.clone())))
        .filter(|(local, _)| local.ends_with(".sst"))
        .collect()
}

/// Hard-links the database as it is now into a new folder.
pub(super) fn link(spill: &Spill, scratch: &Path) -> Result<PathBuf, StateError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = scratch.join(format!("links-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    unlink(Some(folder.clone()));
    spill.link(&folder)?;
    Ok(folder)
}

/// Removes the hard links.
pub(super) fn unlink(folder: Option<PathBuf>) {
    if let Some(folder) = folder {
        // Scratch; what stays is wiped when the name comes round again.
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Copies the files of a folder into the storage, except for tables that are stored already. `names` gets the names of
/// all files that may be there afterwards, whether it works or not.
pub(super) fn copy(
    storage: &dyn Storage,
    folder: &Path,
    name: impl Fn(&str) -> String,
    tables: &mut BTreeMap<String, FileRef>,
    names: &mut BTreeSet<String>,
) -> Result<Copied, StateError> {
    let mut copied = Copied { files: Vec::new(), bytes: 0 };
    let entries = std::fs::read_dir(folder).map_err(StateError::io("list the folder", folder))?;
    for entry in entries {
        let entry = entry.map_err(StateError::io("list the folder", folder))?;
        let (path, local) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let bytes = entry.metadata().map_err(StateError::io("look at", &path))?.len();
        // The write-ahead log is off; RocksDB makes an empty one all the same.
        if bytes == 0 && local.ends_with(".log") {
            continue;
        }
        if let Some(known) = tables.get(&local).filter(|known| known.bytes == bytes) {
            copied.files.push(known.clone());
            continue;
        }
        let (read, crc32c) = checksum(&path)?;
        if read != bytes {
            let problem = format!("{read} bytes were read of a file of {bytes}");
            return Err(StateError::io("read all of", &path)(std::io::Error::other(problem)));
        }
        let file = FileRef { name: name(&local), kind: FileKind::Spill, offset: 0, bytes: read, crc32c };
        names.insert(file.name.clone());
        storage.put_file(&file.name, &path)?;
        copied.bytes += read;
        if local.ends_with(".sst") {
            tables.insert(local, file.clone());
        }
        copied.files.push(file);
    }
    copied.files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(copied)
}

/// Length and CRC-32C of a local file.
pub(crate) fn checksum(path: &Path) -> Result<(u64, u32), StateError> {
    let mut file = File::open(path).map_err(StateError::io("open", path))?;
    let mut buffer = vec![0; 1 << 18];
    let (mut bytes, mut crc) = (0, 0);
    loop {
        match file.read(&mut buffer).map_err(StateError::io("read", path))? {
            0 => return Ok((bytes, crc)),
            read => {
                crc = crc32c::crc32c_append(crc, &buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}
