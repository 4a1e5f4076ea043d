//! A window onto a file: the bytes that were read and not consumed yet, and a few before them.
//!
//! The beginning of the file is kept as well. With both the window knows the file again, and notices if
//! what it read is not there any more. It can let go of the file, and take it up again where it was.

use super::descriptors::{Descriptor, FileId};
use std::fs::Metadata;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Least bytes to read at once.
const READ_BYTES: usize = if cfg!(test) { 16 } else { 256 << 10 };
/// Consumed bytes that stay known: the fingerprint of a position is made of them.
pub(super) const BEFORE_BYTES: usize = 64;
/// Bytes at the beginning of the file that stay known, for the same purpose.
const HEAD_BYTES: usize = 1024;

/// Bytes of a file from a moving place on.
#[derive(Debug)]
pub(super) struct Window {
    /// `None` while it is let go.
    file: Option<Descriptor>,
    id: FileId,
    /// The first bytes of the file, up to [`HEAD_BYTES`], as far as it was read.
    head: Vec<u8>,
    bytes: Vec<u8>,
    /// Where the unconsumed bytes begin in `bytes`.
    start: usize,
    /// Place in the file of the first unconsumed byte.
    offset: u64,
}

impl Window {
    pub fn open(path: &Path) -> io::Result<Self> {
        let (file, metadata) = Descriptor::open(path)?;
        let id = FileId::of(&metadata);
        Ok(Self { file: Some(file), id, head: Vec::new(), bytes: Vec::new(), start: 0, offset: 0 })
    }

    /// No window: what it was onto is gone.
    pub fn of_nothing(id: FileId) -> Self {
        Self { file: None, id, head: Vec::new(), bytes: Vec::new(), start: 0, offset: 0 }
    }

    /// Moves to a place in the file, with its beginning and the bytes before the place known. Fails if the
    /// file is shorter.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        let file = self.file.as_ref().ok_or_else(let_go)?;
        self.head = vec![0; up_to(offset, HEAD_BYTES)];
        file.read_exact_at(&mut self.head, 0)?;
        self.start = up_to(offset, BEFORE_BYTES);
        let mut from: &std::fs::File = file;
        from.seek(SeekFrom::Start(offset - self.start as u64))?;
        self.bytes = vec![0; self.start];
        self.offset = offset;
        from.read_exact(&mut self.bytes)
    }

    /// The file, whatever its name is by now.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// What the file is like now; `None` if it is let go.
    pub fn metadata(&self) -> Option<io::Result<Metadata>> {
        self.file.as_ref().map(|file| file.metadata())
    }

    /// Lets go of the file and of the memory for reading it; everything that is known of it stays.
    pub fn let_go(&mut self) {
        self.file = None;
        self.forget_consumed();
        self.bytes.shrink_to_fit();
    }

    pub fn is_let_go(&self) -> bool {
        self.file.is_none()
    }

    /// Takes the file up again; false if another one has its name.
    pub fn take_up(&mut self, path: &Path) -> io::Result<bool> {
        if self.file.is_some() {
            return Ok(true);
        }
        let (file, metadata) = Descriptor::open(path)?;
        if FileId::of(&metadata) != self.id {
            return Ok(false);
        }
        let mut from: &std::fs::File = &file;
        from.seek(SeekFrom::Start(self.offset + self.rest().len() as u64))?;
        self.file = Some(file);
        Ok(true)
    }

    /// Place in the file of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is read and not consumed.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The first consumed bytes, up to [`HEAD_BYTES`], fewer only at the beginning of the file.
    pub fn head(&self) -> &[u8] {
        &self.head[..up_to(self.offset, HEAD_BYTES)]
    }

    /// The last consumed bytes, up to [`BEFORE_BYTES`], fewer only at the beginning of the file.
    pub fn before(&self) -> &[u8] {
        &self.bytes[self.start - up_to(self.offset, BEFORE_BYTES)..self.start]
    }

    /// Goes on by `bytes` bytes of the rest.
    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    fn forget_consumed(&mut self) {
        let keep = self.start - up_to(self.offset, BEFORE_BYTES);
        self.bytes.drain(..keep);
        self.start -= keep;
    }

    /// Reads more; 0 at the end of the file. A large rest makes for a large read, so that looking
    /// through a long record again after each read stays linear.
    pub fn fill(&mut self) -> io::Result<usize> {
        self.forget_consumed();
        let (old, more) = (self.bytes.len(), READ_BYTES.max(self.rest().len()));
        let mut from: &std::fs::File = self.file.as_ref().ok_or_else(let_go)?;
        self.bytes.reserve(more);
        // Into room that nobody has cleared: an idle look costs no more than a system call.
        let read = from.by_ref().take(more as u64).read_to_end(&mut self.bytes);
        let wanted = HEAD_BYTES - self.head.len();
        self.head.extend(self.bytes[old..].iter().take(wanted));
        if read.is_ok() && self.bytes.capacity() > 4 * (self.bytes.len() + READ_BYTES) {
            self.bytes.shrink_to(self.bytes.len() + 2 * READ_BYTES);
        }
        read
    }

    /// Gives back the memory for reading, while there is nothing to read.
    pub fn rest_a_while(&mut self) {
        self.forget_consumed();
        self.bytes.shrink_to_fit();
    }

    /// What happened to the file, if it does not hold any more what was read before the last `new` bytes.
    /// Its beginning and the last bytes before the new ones stand for all.
    pub fn change(&self, new: usize) -> io::Result<Option<&'static str>> {
        let file = self.file.as_ref().ok_or_else(let_go)?;
        let known = &self.bytes[..self.bytes.len() - new];
        let last = &known[known.len().saturating_sub(BEFORE_BYTES)..];
        let end = self.offset + (self.rest().len() - new) as u64;
        let mut buffer = [0_u8; HEAD_BYTES];
        for (bytes, place) in [(last, end - last.len() as u64), (self.head.as_slice(), 0)] {
            let found = &mut buffer[..bytes.len()];
            match file.read_exact_at(found, place) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some("was cut")),
                Err(e) => return Err(e),
                Ok(()) if *found != *bytes => return Ok(Some("was cut or overwritten")),
                Ok(()) => {}
            }
        }
        Ok(None)
    }
}

fn let_go() -> io::Error {
    io::Error::other("the file is read while it is let go (a bug)")
}

/// So many bytes, or fewer if the place is nearer to the beginning of the file.
fn up_to(place: u64, bytes: usize) -> usize {
    usize::try_from(place).map_or(bytes, |place| place.min(bytes))
}
