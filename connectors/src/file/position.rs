//! Where a reader stands in a file, and how it knows the file again.

use super::descriptors::FileId;
use super::window::{BEFORE_BYTES, Window};
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;

/// What is wrong with a file that grew behind a last line without line end.
pub(super) const GOES_ON: &str = "its last line was read without a line end, and now goes on";

/// Where a reader stands in a file; kept in the checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FilePosition {
    /// Place of the next record, in bytes.
    pub offset: u64,
    /// Line of the next record, from 1.
    pub line: u64,
    /// Checksum (CRC-32C) of the header line of a CSV file.
    pub header: Option<u32>,
    /// Checksum of the first 1024 bytes, or of those before `offset` if they are fewer.
    pub head: u32,
    /// Checksum of the last 64 bytes before `offset`, or of all if they are fewer.
    pub before: u32,
    /// True if the last record had no line end: nothing may follow it.
    pub unterminated: bool,
    /// What the file was like, if all of it was read: such a file may be deleted, and is known again at a glance.
    pub whole: Option<WholeFile>,
}

/// A file that was read to its end, as it was then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WholeFile {
    id: FileId,
    bytes: u64,
    modified: (i64, i64),
}

impl WholeFile {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { id: FileId::of(metadata), bytes: metadata.len(), modified }
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl FilePosition {
    /// The beginning of a file of which nothing was read.
    pub(super) fn beginning() -> Self {
        let (head, before) = (crc32c::crc32c(&[]), crc32c::crc32c(&[]));
        Self { offset: 0, line: 1, header: None, head, before, unterminated: false, whole: None }
    }

    /// Moves the window to this position, after checking that the file is still the one that was read.
    /// `Err(Ok(text))` says what is different, `Err(Err(_))` that the file cannot be read.
    pub(super) fn seek(
        &self,
        window: &mut Window,
        length: u64,
        header: Option<u32>,
    ) -> Result<(), Result<String, io::Error>> {
        if length < self.offset {
            return Err(Ok(format!("it has {length} bytes, and {} of it were read", self.offset)));
        }
        if self.unterminated && length > self.offset {
            return Err(Ok(GOES_ON.to_owned()));
        }
        if self.header != header {
            return Err(Ok("its header line is another".to_owned()));
        }
        window.seek(self.offset).map_err(Err)?;
        if crc32c::crc32c(window.head()) != self.head {
            return Err(Ok("its beginning is another".to_owned()));
        }
        if crc32c::crc32c(window.before()) != self.before {
            return Err(Ok(format!("the {BEFORE_BYTES} bytes before byte {} are others", self.offset)));
        }
        Ok(())
    }
}
