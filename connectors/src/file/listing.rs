//! Which files there are to read.
//!
//! Only what is known to be gone counts as gone: an entry that cannot be looked at is an error, since the records
//! of its file would be missing without a word.

use super::descriptors::FileId;
use super::opened;
use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::fs::{DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Names that end like this belong to files that somebody is still writing.
const UNFINISHED: [&str; 6] = [".tmp", ".temp", ".part", ".partial", ".swp", "~"];
/// A directory must have been left alone for so long before what it says of its last change is relied on: clocks of
/// file systems are coarse.
const SETTLED: Duration = Duration::from_secs(2);
/// A directory is listed anew after so long, whatever it says.
const LIST_ANYWAY: Duration = Duration::from_secs(60);

/// The files to read, sorted by name; names and which files they were.
pub(super) type Found = Vec<(String, FileId)>;

/// A directory as it was listed, so that one in which nothing happens is not listed again and again.
#[derive(Debug, Default)]
pub(super) struct Listing {
    last: Option<(Stamp, Instant, Found)>,
}

/// What changes whenever entries come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    directory: FileId,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            directory: FileId::of(metadata),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let changed = u64::try_from(self.changed.0.max(self.modified.0)).unwrap_or(u64::MAX);
        now.saturating_sub(changed) > SETTLED.as_secs()
    }
}

impl Listing {
    /// The files to read, sorted. Each file has one name: read under two of them, its records would count twice.
    pub(super) fn files(&mut self, path: &Path, follow: bool) -> Result<Found> {
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
            return Ok(vec![(text(path)?, FileId::of(&metadata))]);
        }
        if !metadata.is_dir() {
            return Err(Error::job(format!(
                "{place} is neither a file nor a directory; it cannot be read again from a position"
            )));
        }
        let (directory, began) = ((metadata.dev(), metadata.ino()), Instant::now());
        let stamp = Stamp::of(&metadata);
        if let Some((last, at, found)) = &self.last
            && *last == stamp
            && at.elapsed() < LIST_ANYWAY
        {
            opened::listed(directory, began);
            return Ok(found.clone());
        }
        let (found, has_links) = list(path, directory)?;
        if follow {
            opened::listed(directory, began);
        }
        // What a link leads to may change without a trace here.
        let can_be_kept = follow && !has_links && stamp.is_settled();
        self.last = can_be_kept.then(|| (stamp, Instant::now(), found.clone()));
        Ok(found)
    }
}

fn list(path: &Path, directory: opened::Directory) -> Result<(Found, bool)> {
    let (mut here, mut found) = (None, Vec::new());
    let mut names: HashMap<FileId, String> = HashMap::new();
    for entry in path.read_dir().map_err(|e| unreadable(path, e))? {
        let entry = entry.map_err(|e| unreadable(path, e))?;
        let file = entry.path();
        if is_passed_over(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let Some((metadata, is_link)) = look(&entry, &file).map_err(|e| unreadable(&file, e))? else {
            continue;
        };
        if is_link && here.is_none() {
            here = Some(path.canonicalize().map_err(|e| unreadable(path, e))?);
        }
        if !metadata.is_file() {
            continue;
        }
        if is_link && is_alias(&file, here.as_ref()).map_err(|e| unreadable(&file, e))? {
            continue;
        }
        let (name, id) = (text(&file)?, FileId::of(&metadata));
        if let Some(other) = opened::name(directory, id).filter(|other| *other != name) {
            return Err(opened::two_names(&name, &other));
        }
        if let Some(other) = names.insert(id, name.clone()) {
            return Err(Error::job(format!(
                "{name} and {other} in {} are the same file, and its records would be read twice; remove one of them",
                path.display()
            )));
        }
        found.push((name, id));
    }
    found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok((found, here.is_some()))
}

/// What an entry is, and whether it is a link to that; `None` if it vanished since it was listed. A link that leads
/// nowhere has not vanished: what it leads to may be away for a while.
fn look(entry: &DirEntry, path: &Path) -> io::Result<Option<(Metadata, bool)>> {
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
fn is_alias(link: &Path, directory: Option<&PathBuf>) -> io::Result<bool> {
    let target = link.canonicalize()?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    Ok(target.parent() == directory.map(PathBuf::as_path) && !is_passed_over(&name))
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
