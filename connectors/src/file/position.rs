//! Where a reader stands in a file, and how it knows the file again.

use super::window::{BEFORE_BYTES, Window};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes at the beginning of the file that the fingerprint covers, if that many were read.
const HEAD_BYTES: u64 = 1024;

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
}

/// The checksum of the beginning of a file, grown as the file is read.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: u64,
    pub crc: u32,
}

impl Head {
    /// Extends it to cover a position.
    pub fn cover(&mut self, file: &File, offset: u64) -> io::Result<()> {
        let want = offset.min(HEAD_BYTES);
        if want > self.bytes {
            let mut more = vec![0; usize::try_from(want - self.bytes).unwrap_or(0)];
            file.read_exact_at(&mut more, self.bytes)?;
            self.crc = crc32c::crc32c_append(self.crc, &more);
            self.bytes = want;
        }
        Ok(())
    }
}

impl FilePosition {
    /// Moves the window to this position, after checking that the file is still the one that was read.
    /// `Err(Ok(text))` says what is different, `Err(Err(_))` that the file cannot be read.
    pub(super) fn seek(
        &self,
        window: &mut Window,
        header: Option<u32>,
    ) -> Result<Head, Result<String, io::Error>> {
        let length = window.file().metadata().map_err(Err)?.len();
        if length < self.offset {
            return Err(Ok(format!("it has {length} bytes, and {} of it were read", self.offset)));
        }
        if self.unterminated && length > self.offset {
            return Err(Ok("its last line was read without a line end, and now goes on".to_owned()));
        }
        if self.header != header {
            return Err(Ok("its header line is another".to_owned()));
        }
        let mut head = Head::default();
        head.cover(window.file(), self.offset).map_err(Err)?;
        window.seek(self.offset).map_err(Err)?;
        if head.crc != self.head {
            return Err(Ok("its beginning is another".to_owned()));
        }
        if crc32c::crc32c(window.before()) != self.before {
            return Err(Ok(format!("the {BEFORE_BYTES} bytes before byte {} are others", self.offset)));
        }
        Ok(head)
    }
}
