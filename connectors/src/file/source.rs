//! Files as splits.

use super::descriptors::FileId;
use super::listing::{self, Listing};
use super::position::{FilePosition, WholeFile};
use super::reader::{FileReader, Settings};
use crate::formats::{Csv, Framed};
use serde::{Deserialize, Serialize};
use staunch_core::background::{Background, blocking};
use staunch_core::context::SourceContext;
use staunch_core::place::Place;
use staunch_core::source::{Revisit, Source};
use staunch_core::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Files that a worker has open at a time, unless they are followed.
const OPEN_FILES: usize = 8;
/// How often a followed directory is looked at for new files.
const DISCOVER_EVERY: Duration = Duration::from_millis(500);
/// Longest record by default.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Files of the process that are being opened at a time: each takes a thread that may block.
static OPENING: Semaphore = Semaphore::const_new(4);

/// Reads a file or the files of a directory; made by [`lines`](super::lines), [`rows`](super::rows) or
/// [`json_rows`](super::json_rows).
#[derive(Clone, Debug)]
pub struct Files<F> {
    path: PathBuf,
    follow: bool,
    max_line_bytes: usize,
    format: F,
    listing: Arc<Mutex<Listing>>,
}

impl<F> Files<F> {
    pub(super) fn new(path: &Path, format: F) -> Self {
        let listing = Arc::default();
        Self { path: path.to_owned(), follow: false, max_line_bytes: MAX_LINE_BYTES, format, listing }
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
    /// Most lines that a record may go over because of line breaks in quotes; 1000 by default. One that goes over
    /// more is taken for a quote too many: its first line is bad input, and reading goes on at the second.
    #[must_use]
    pub fn max_record_lines(mut self, lines: usize) -> Self {
        self.format.max_lines = lines.max(1);
        self
    }

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
    /// Which file it was when it was listed, so that a name that is used again is noticed.
    pub file: Option<FileId>,
}

impl FileSplit {
    /// The file of this name, whichever that is.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), file: None }
    }
}

impl<F: Framed> Source for Files<F> {
    type Record = F::Record;
    type Split = FileSplit;
    type Position = FilePosition;
    type Reader = Background<FileReader<F>>;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, FileSplit)>> {
        self.format.check()?;
        let (listing, path, follow) = (Arc::clone(&self.listing), self.path.clone(), self.follow);
        blocking(move || {
            let found = listing.lock().unwrap_or_else(PoisonError::into_inner).files(&path, follow)?;
            let split = |(name, file): (String, FileId)| (name.clone(), FileSplit { name, file: Some(file) });
            Ok(found.into_iter().map(split).collect())
        })
        .await?
    }

    fn discover_every(&self) -> Option<Duration> {
        self.follow.then_some(DISCOVER_EVERY)
    }

    fn open_at_once(&self) -> usize {
        // Readers of followed files cost little; one that is dropped would not see that its file is deleted.
        if self.follow { usize::MAX } else { OPEN_FILES }
    }

    fn forgets(&self) -> bool {
        // A followed file ends when it is deleted, and another one may have its name. Of others a list is made once.
        self.follow
    }

    async fn open(
        &self,
        split: FileSplit,
        at: Option<FilePosition>,
        _: &SourceContext,
    ) -> Result<Self::Reader> {
        let settings = Settings { follow: self.follow, max_line_bytes: self.max_line_bytes };
        let (source, format, name) = (self.path.clone(), self.format.clone(), split.name.clone());
        let _turn = OPENING.acquire().await;
        let reader = blocking(move || {
            let path = path_of(&source, &split.name)?;
            let mut reader = FileReader::open(path, format, settings, at.as_ref())?;
            reader.register()?;
            Ok::<_, Error>(reader)
        });
        Background::start(&name, reader.await??)
    }

    async fn revisit(
        &self,
        finished: Vec<(FileSplit, FilePosition)>,
        _: &SourceContext,
    ) -> Result<Vec<Revisit>> {
        let source = Self::clone(self);
        let look = move || finished.iter().map(|(split, end)| source.look_again(&split.name, end)).collect();
        blocking(look).await?
    }

    fn places(&self) -> Vec<Place> {
        // What cannot be looked at is said when it is listed.
        let place = if self.path.is_dir() { Place::Directory } else { Place::File };
        vec![place(self.path.clone())]
    }
}

impl<F: Framed> Files<F> {
    /// What has become of a file that was read to its end by an earlier run. A look at what the system says of it is
    /// enough, if that is what it was.
    fn look_again(&self, name: &str, end: &FilePosition) -> Result<Revisit> {
        let path = path_of(&self.path, name)?;
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            // It is gone since it was listed.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Revisit::Finished),
            Err(e) => return Err(listing::unreadable(&path, e)),
        };
        let goes_on = if self.follow { Revisit::GoesOn } else { Revisit::Finished };
        let now = WholeFile::of(&metadata);
        if end.whole == Some(now) {
            return Ok(goes_on);
        }
        // Of an empty file nothing was read, and a followed one is at its end only when it is deleted.
        let is_empty = end.offset == 0 && now.bytes() > 0;
        if is_empty || (self.follow && end.whole.is_some_and(|whole| whole.id() != now.id())) {
            tracing::warn!(file = %path.display(), "another file has this name now; it is read from its beginning");
            return Ok(Revisit::New);
        }
        let settings = Settings { follow: self.follow, max_line_bytes: self.max_line_bytes };
        let end = FilePosition { unterminated: false, ..end.clone() };
        FileReader::open(path.clone(), self.format.clone(), settings, Some(&end))?;
        if now.bytes() > end.offset && !self.follow {
            let more = now.bytes() - end.offset;
            tracing::warn!(file = %path.display(), bytes = more, "has grown since it was read to its end; this is not read");
        }
        Ok(goes_on)
    }
}

/// Where the file of a split is.
fn path_of(source: &Path, name: &str) -> Result<PathBuf> {
    let in_directory = || source.join(name);
    let path = match source.metadata() {
        Ok(metadata) if metadata.is_dir() => in_directory(),
        Ok(_) => source.to_owned(),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            if listing::text(source)? == name {
                source.to_owned()
            } else {
                in_directory()
            }
        }
        Err(e) => return Err(listing::unreadable(source, e)),
    };
    if listing::text(&path)? != name {
        return Err(Error::job(format!(
            "the checkpoint has a position in `{name}`, but the source now reads {}; give the old file again, or \
             start without the checkpoint",
            path.display()
        )));
    }
    Ok(path)
}
