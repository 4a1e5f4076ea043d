//! Files as splits.

use super::decode::{Csv, Format};
use super::opened;
use super::position::FilePosition;
use super::reader::{FileReader, Settings};
use serde::{Deserialize, Serialize};
use staunch_core::background::Background;
use staunch_core::context::SourceContext;
use staunch_core::source::Source;
use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a followed directory is looked at for new files.
const DISCOVER_EVERY: Duration = Duration::from_millis(500);
/// Longest record by default.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Names that end like this belong to files that somebody is still writing.
const UNFINISHED: [&str; 6] = [".tmp", ".temp", ".part", ".partial", ".swp", "~"];

/// Reads a file or the files of a directory; made by [`lines`](super::lines), [`rows`](super::rows) or
/// [`json_rows`](super::json_rows).
#[derive(Clone, Debug)]
pub struct Files<F> {
    path: PathBuf,
    follow: bool,
    max_line_bytes: usize,
    format: F,
}

impl<F> Files<F> {
    pub(super) fn new(path: &Path, format: F) -> Self {
        Self { path: path.to_owned(), follow: false, max_line_bytes: MAX_LINE_BYTES, format }
    }

    /// Waits for more at the end of a file, and for new files in a directory; such a source never ends.
    /// A last line without a line end waits until it is complete. A file must only grow; one that is
    /// cut, renamed or replaced is an error. One that is deleted is done once it is read to its end, and
    /// its name must not be used again.
    #[must_use]
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// Longest record with its line end, 16 MiB by default; a reader may hold three times as much. A longer
    /// one is bad input; of a longer CSV record over several lines only the first line is, and reading goes
    /// on at the second, because most such records are a quote too many.
    #[must_use]
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.max_line_bytes = bytes.max(1);
        self
    }
}

impl<T> Files<Csv<T>> {
    /// What separates the fields; a comma by default.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.format.delimiter = delimiter;
        self
    }
}

/// One file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileSplit {
    /// Its name, without the directory, so that the directory may move between runs.
    pub name: String,
}

impl<F: Format> Source for Files<F> {
    type Record = F::Record;
    type Split = FileSplit;
    type Position = FilePosition;
    type Reader = Background<FileReader<F>>;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, FileSplit)>> {
        self.format.check().map_err(Error::job)?;
        let names = names(&self.path, self.follow)?;
        Ok(names.into_iter().map(|name| (name.clone(), FileSplit { name })).collect())
    }

    fn discover_every(&self) -> Option<Duration> {
        self.follow.then_some(DISCOVER_EVERY)
    }

    async fn open(
        &self,
        split: FileSplit,
        at: Option<FilePosition>,
        _: &SourceContext,
    ) -> Result<Self::Reader> {
        let path = if self.path.is_dir() { self.path.join(&split.name) } else { self.path.clone() };
        if text(&path)? != split.name {
            return Err(Error::job(format!(
                "the checkpoint has a position in `{}`, but the source now reads {}; give the old file again, or \
                 start without the checkpoint",
                split.name,
                path.display()
            )));
        }
        let settings = Settings { follow: self.follow, max_line_bytes: self.max_line_bytes };
        let mut reader = FileReader::open(path, self.format.clone(), settings, at.as_ref())?;
        reader.register()?;
        Background::start(&split.name, reader)
    }
}

/// The names of the files to read, sorted. Each file has one name: read under two of them, its records would
/// count twice.
fn names(path: &Path, follow: bool) -> Result<Vec<String>> {
    let place = path.display();
    let unreadable =
        |e| Error::external(format!("cannot read {place}; check the path and its permissions")).caused_by(e);
    let metadata = path.metadata().map_err(|e| match e.kind() {
        // Its readers may be reading it to its end.
        std::io::ErrorKind::NotFound if follow => Error::external(format!(
            "{place} does not exist (any more); give the path of what is to be followed"
        )),
        std::io::ErrorKind::NotFound => {
            Error::job(format!("{place} does not exist; give the path of a file or a directory to read"))
        }
        _ => unreadable(e),
    })?;
    if metadata.is_file() {
        return Ok(vec![text(path)?]);
    }
    if !metadata.is_dir() {
        return Err(Error::job(format!(
            "{place} is neither a file nor a directory; it cannot be read again from a position"
        )));
    }
    let here = path.canonicalize().map_err(unreadable)?;
    let mut names = Vec::new();
    let opened = opened::in_directory(&here);
    let mut files: HashMap<(u64, u64), String> = HashMap::new();
    for entry in path.read_dir().map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        // A file that vanishes between listing and looking was not to be read.
        let Ok(metadata) = file.metadata() else { continue };
        if !metadata.is_file() || is_passed_over(&file.file_name().unwrap_or_default().to_string_lossy()) {
            continue;
        }
        if is_alias(&file, &here) {
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

/// Whether this is a link to a file of the same directory, which is read under its own name.
fn is_alias(file: &Path, directory: &Path) -> bool {
    let is_link = file.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let target = || file.canonicalize().ok();
    is_link
        && target().is_some_and(|target| {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            target.parent() == Some(directory) && !is_passed_over(&name)
        })
}

fn is_passed_over(name: &str) -> bool {
    name.starts_with('.') || UNFINISHED.iter().any(|end| name.ends_with(end))
}

fn text(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| {
        Error::job(format!(
            "the name of {} is not UTF-8, so that no checkpoint could name it; rename it",
            path.display()
        ))
    })
}
