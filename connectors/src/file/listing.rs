//! Which files there are to read.
//!
//! Only what is known to be gone counts as gone: an entry that cannot be looked at is an error, since the records
//! of its file would be missing without a word.

use super::opened;
use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::fs::{DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Names that end like this belong to files that somebody is still writing.
const UNFINISHED: [&str; 6] = [".tmp", ".temp", ".part", ".partial", ".swp", "~"];

/// The names of the files to read, sorted. Each file has one name: read under two of them, its records would
/// count twice.
pub(super) fn names(path: &Path, follow: bool) -> Result<Vec<String>> {
    let place = path.display();
    let metadata = path.metadata().map_err(|e| match e.kind() {
        // Its readers may be reading it to its end.
        ErrorKind::NotFound if follow => Error::external(format!(
            "{place} does not exist (any more); give the path of what is to be followed"
        )),
        ErrorKind::NotFound => {
            Error::job(format!("{place} does not exist; give the path of a file or a directory to read"))
        }
        _ => unreadable(path, e),
    })?;
    if metadata.is_file() {
        return Ok(vec![text(path)?]);
    }
    if !metadata.is_dir() {
        return Err(Error::job(format!(
            "{place} is neither a file nor a directory; it cannot be read again from a position"
        )));
    }
    let here = path.canonicalize().map_err(|e| unreadable(path, e))?;
    let mut names = Vec::new();
    let opened = opened::in_directory(&here);
    let mut files: HashMap<(u64, u64), String> = HashMap::new();
    for entry in path.read_dir().map_err(|e| unreadable(path, e))? {
        let entry = entry.map_err(|e| unreadable(path, e))?;
        let file = entry.path();
        if is_passed_over(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let Some((metadata, is_link)) = look(&entry).map_err(|e| unreadable(&file, e))? else { continue };
        if !metadata.is_file() {
            continue;
        }
        if is_link && is_alias(&file, &here).map_err(|e| unreadable(&file, e))? {
            continue;
        }
        let name = text(&file)?;
        let inode = (metadata.dev(), metadata.ino());
        if let Some(other) = opened.get(&inode).filter(|other| **other != name) {
            return Err(opened::two_names(&name, other));
        }
        if let Some(other) = files.insert(inode, name.clone()) {
            return Err(Error::job(format!(
                "{name} and {other} in {place} are the same file, and its records would be read twice; remove one of them"
            )));
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// What an entry is, and whether it is a link to that; `None` if it vanished since it was listed. A link that leads
/// nowhere has not vanished: what it leads to may be away for a while.
fn look(entry: &DirEntry) -> io::Result<Option<(Metadata, bool)>> {
    let path = entry.path();
    let is_gone = |e: &io::Error| e.kind() == ErrorKind::NotFound;
    let is_link = match entry.file_type() {
        Ok(kind) => kind.is_symlink(),
        Err(e) if is_gone(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    match path.metadata() {
        Ok(metadata) => Ok(Some((metadata, is_link))),
        Err(e) if is_gone(&e) && path.symlink_metadata().is_err_and(|e| is_gone(&e)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether a link leads to a file of the same directory, which is read under its own name.
fn is_alias(link: &Path, directory: &Path) -> io::Result<bool> {
    let target = link.canonicalize()?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    Ok(target.parent() == Some(directory) && !is_passed_over(&name))
}

fn is_passed_over(name: &str) -> bool {
    name.starts_with('.') || UNFINISHED.iter().any(|end| name.ends_with(end))
}

/// The name of a file, as checkpoints have it.
pub(super) fn text(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| {
        Error::job(format!(
            "the name of {} is not UTF-8, so that no checkpoint could name it; rename it",
            path.display()
        ))
    })
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    let what = path.display();
    let advice = match error.kind() {
        ErrorKind::NotFound => {
            "if it is a link, what it leads to is not there: bring that back, or remove the link"
        }
        _ => "check the path, its permissions and what it is mounted from",
    };
    Error::external(format!("cannot read {what}; {advice}")).caused_by(error)
}
