//! Names for files, where an answer may be wrong: a link or a renaming that is reported as failed may have been
//! made (a server answers a repeated request, a connection breaks before the answer). What counts is which file
//! is found at the new name. Nothing here ever opens a file for writing that may be another name of its source.

use super::temporary::Temporary;
use crc32c::crc32c_append;
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes that are copied or compared at once.
const COPIED_AT_ONCE: usize = 1 << 18;

/// What became of a new name for a file.
#[derive(Debug)]
pub(super) enum Named {
    /// The file has it.
    Made,
    /// Another file has it.
    Taken,
    /// It was not made, and will not be.
    Refused(Error),
    /// It may be made, or may yet be.
    Unknown(Error),
}

/// Which file is at a path, whatever its names are. Links are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity(u64, u64);

impl Identity {
    pub(super) fn of(path: &Path) -> Result<Self> {
        fs::metadata(path).map(|data| Self(data.dev(), data.ino()))
    }

    pub(super) fn of_open(file: &File) -> Result<Self> {
        file.metadata().map(|data| Self(data.dev(), data.ino()))
    }
}

/// The operation itself: [`by_link`] or [`by_rename`], but in tests.
pub(super) type By = fn(&Path, &Path) -> Result<()>;

pub(super) fn by_link(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)
}

pub(super) fn by_rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
}

/// Answers that mean that nothing was done.
fn is_refusal(error: &Error) -> bool {
    copying_helps(error)
        || matches!(
            error.kind(),
            ErrorKind::NotFound
                | ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::NotADirectory
                | ErrorKind::IsADirectory
                | ErrorKind::DirectoryNotEmpty
                | ErrorKind::InvalidInput
                | ErrorKind::InvalidFilename
        )
}

/// Answers that mean that this file cannot have that name, and a copy can: another file system, a kind of it
/// without links, a file with too many of them or of somebody else.
fn copying_helps(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::CrossesDevices
            | ErrorKind::TooManyLinks
            | ErrorKind::PermissionDenied
            | ErrorKind::Unsupported
    )
}

/// What an attempt to give the file `from` the name `to` did, by its answer and by what is there.
fn judge(answer: Result<()>, from: Result<Identity>, to: &Path) -> Named {
    let Err(error) = answer else { return Named::Made };
    let found = match Identity::of(to) {
        Ok(found) => Some(found),
        Err(gone) if gone.kind() == ErrorKind::NotFound => None,
        Err(_) => return Named::Unknown(error),
    };
    match from {
        Ok(from) if found == Some(from) => Named::Made,
        Ok(_) if error.kind() == ErrorKind::AlreadyExists => Named::Taken,
        _ if is_refusal(&error) => Named::Refused(error),
        _ => Named::Unknown(error),
    }
}

/// Gives a file a second name that no other file may have.
pub(super) fn link(from: &Path, to: &Path, by: By) -> Named {
    let identity = Identity::of(from);
    judge(by(from, to), identity, to)
}

/// Gives a file another name, which may be another file's.
pub(super) fn rename(from: &Path, to: &Path, by: By) -> Named {
    let identity = Identity::of(from);
    judge(by(from, to), identity, to)
}

/// Makes `to`, which should not be there yet, a second name or a copy of `from`.
pub(super) fn link_or_copy(from: &Path, to: &Path, by: By) -> Result<()> {
    match link(from, to, by) {
        Named::Made => Ok(()),
        Named::Taken => Err(Error::new(ErrorKind::AlreadyExists, "another file has the name already")),
        Named::Refused(error) if copying_helps(&error) => {
            let copy = Temporary::beside(to);
            copy_checked(from, copy.path())?;
            match rename(copy.path(), to, by_rename) {
                Named::Made => Ok(()),
                Named::Taken => Err(ErrorKind::AlreadyExists.into()),
                Named::Refused(error) | Named::Unknown(error) => Err(error),
            }
        }
        Named::Refused(error) | Named::Unknown(error) => Err(error),
    }
}

/// A second name or a copy of `from` among the temporary files below `root`.
pub(super) fn staged(from: &Path, root: &Path, by: By) -> Result<Temporary> {
    let linked = Temporary::new(root);
    match link(from, linked.path(), by) {
        Named::Made => Ok(linked),
        Named::Refused(error) if copying_helps(&error) => {
            // Not under the same name: the link may turn up there.
            let copy = Temporary::new(root);
            staunch_crash::disk::writing(copy.path());
            copy_checked(from, copy.path())?;
            Ok(copy)
        }
        Named::Taken => Err(Error::new(ErrorKind::AlreadyExists, "its temporary name is taken")),
        Named::Refused(error) | Named::Unknown(error) => Err(error),
    }
}

/// Copies into a file that does not exist yet, and reads it back.
fn copy_checked(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from)?;
    let mut copy = File::options().write(true).read(true).create_new(true).open(to)?;
    let written = pass_on(&mut source, |bytes| copy.write_all(bytes))?;
    copy.sync_all()?;
    let read = pass_on(&mut File::open(to)?, |_| Ok(()))?;
    if read == written {
        return Ok(());
    }
    let (bytes, crc32c) = read;
    let problem = format!(
        "the copy has {bytes} bytes and checksum {crc32c:08x} instead of {} and {:08x}",
        written.0, written.1
    );
    Err(Error::new(ErrorKind::InvalidData, problem))
}

/// Reads a file to its end; returns its length and CRC-32C.
fn pass_on(from: &mut File, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<(u64, u32)> {
    let mut buffer = vec![0; COPIED_AT_ONCE];
    let (mut length, mut crc) = (0, 0);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((length, crc)),
            Ok(read) => {
                take(&buffer[..read])?;
                crc = crc32c_append(crc, &buffer[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether nothing is at a path below `root`, and not only out of reach: a link without target on the way (its
/// file system is not mounted) is not absence.
pub(super) fn is_absent(path: &Path, root: &Path) -> Result<bool> {
    for above in path.ancestors().take_while(|above| *above != root) {
        match fs::symlink_metadata(above) {
            Ok(found) if found.is_symlink() => {
                return fs::metadata(above).map(|_| above != path).map_err(|error| {
                    Error::other(format!(
                        "the link {} leads nowhere ({error}); is what it leads to not mounted?",
                        above.display()
                    ))
                });
            }
            Ok(_) => return Ok(above != path),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
