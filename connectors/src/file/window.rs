//! A window onto a file: the bytes that were read and not consumed yet, and a few before them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Least bytes to read at once.
const READ_BYTES: usize = if cfg!(test) { 16 } else { 256 << 10 };
/// Consumed bytes that stay known: the fingerprint of a position is made of them.
pub(super) const BEFORE_BYTES: u64 = 64;

/// Bytes of a file from a moving place on.
#[derive(Debug)]
pub(super) struct Window {
    file: File,
    bytes: Vec<u8>,
    /// Where the unconsumed bytes begin in `bytes`.
    start: usize,
    /// Place in the file of the first unconsumed byte.
    offset: u64,
}

impl Window {
    pub fn new(file: File) -> Self {
        Self { file, bytes: Vec::new(), start: 0, offset: 0 }
    }

    /// Moves to a place in the file, with the bytes before it known. Fails if the file is shorter.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        let before = offset.min(BEFORE_BYTES);
        self.file.seek(SeekFrom::Start(offset - before))?;
        self.start = usize::try_from(before).unwrap_or(0);
        self.bytes = vec![0; self.start];
        self.offset = offset;
        self.file.read_exact(&mut self.bytes)
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Place in the file of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is read and not consumed.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The last consumed bytes, up to [`BEFORE_BYTES`], fewer only at the beginning of the file.
    pub fn before(&self) -> &[u8] {
        let bytes = usize::try_from(self.offset.min(BEFORE_BYTES)).unwrap_or(0);
        &self.bytes[self.start - bytes..self.start]
    }

    /// Goes on by `bytes` bytes of the rest.
    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Reads more; 0 at the end of the file. A large rest makes for a large read, so that looking
    /// through a long record again after each read stays linear.
    pub fn fill(&mut self) -> io::Result<usize> {
        let keep = self.start - usize::try_from(self.offset.min(BEFORE_BYTES)).unwrap_or(0);
        self.bytes.drain(..keep);
        self.start -= keep;
        let (old, more) = (self.bytes.len(), READ_BYTES.max(self.rest().len()));
        self.bytes.resize(old + more, 0);
        let read = loop {
            match self.file.read(&mut self.bytes[old..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.bytes.truncate(old + *read.as_ref().unwrap_or(&0));
        if read.is_ok() && self.bytes.capacity() > 4 * (self.bytes.len() + READ_BYTES) {
            self.bytes.shrink_to(self.bytes.len() + 2 * READ_BYTES);
        }
        read
    }
}
