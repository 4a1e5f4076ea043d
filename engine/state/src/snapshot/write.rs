//! Writing snapshots, one after another into a file: to memory when it is small, else through a local file.

use super::{END, Head, MAGIC, Section, VERSION};
use crate::error::StateError;
use crate::persist::checksum;
use crate::storage::Storage;
use staunch_checkpoint::{FileKind, FileRef};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files up to this size are put from memory.
const IN_MEMORY_BYTES: u64 = 16 << 20;

/// Where the bytes go until the file is complete.
pub(crate) enum Output {
    Memory(Vec<u8>),
    Local(PathBuf, BufWriter<File>),
}

impl Output {
    /// For a file of about `bytes`; a large one is first written to the folder `scratch`.
    pub(crate) fn sized(bytes: u64, scratch: &std::path::Path) -> Result<Self, StateError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if bytes <= IN_MEMORY_BYTES {
            return Ok(Self::Memory(Vec::with_capacity(bytes as usize + 4096)));
        }
        std::fs::create_dir_all(scratch).map_err(StateError::io("create the folder", scratch))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = scratch.join(format!("snapshot-{}-{number}", std::process::id()));
        let file = File::create(&path).map_err(StateError::io("create", &path))?;
        Ok(Self::Local(path, BufWriter::with_capacity(1 << 20, file)))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::Local(path, _) = self {
            // Scratch; wiped at the next start if it stays.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A file of the storage that several snapshots share, one after another.
pub(crate) struct Bundle {
    output: Output,
    written: u64,
    crc32c: u32,
}

/// Where in a file a snapshot is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
}

impl Extent {
    /// For the manifest, once the file is in the storage.
    pub(crate) fn in_file(self, name: &str, kind: FileKind) -> FileRef {
        let Self { offset, bytes, crc32c } = self;
        FileRef { name: name.to_owned(), kind, offset, bytes, crc32c }
    }
}

impl Bundle {
    /// An empty file.
    pub(crate) fn new(output: Output) -> Self {
        Self { output, written: 0, crc32c: 0 }
    }

    /// Begins the next snapshot with its head.
    pub(crate) fn begin(&mut self, head: &Head) -> Result<Writer<'_>, StateError> {
        let json = serde_json::to_vec(head)
            .map_err(|error| StateError::internal(&head.step, format!("head of a file: {error}")))?;
        let mut start = Vec::with_capacity(json.len() + 20);
        start.extend_from_slice(&MAGIC);
        start.extend_from_slice(&VERSION.to_le_bytes());
        start.extend_from_slice(&(json.len() as u32).to_le_bytes());
        start.extend_from_slice(&json);
        start.extend_from_slice(&crc32c::crc32c(&start).to_le_bytes());
        let offset = self.written;
        let mut writer = Writer { bundle: self, offset, crc32c: 0, sections: Vec::new() };
        writer.write(&start)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        match &mut self.output {
            Output::Memory(buffer) => buffer.extend_from_slice(bytes),
            Output::Local(path, file) => {
                file.write_all(bytes).map_err(StateError::io("write", path))?;
            }
        }
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Puts the file into the storage.
    pub(crate) fn put(mut self, storage: &dyn Storage, name: &str) -> Result<(), StateError> {
        match &mut self.output {
            Output::Memory(bytes) => storage.put(name, bytes)?,
            Output::Local(path, file) => {
                file.flush().map_err(StateError::io("write", path))?;
                let (there, expected) = (checksum(path)?, (self.written, self.crc32c));
                if there != expected {
                    let problem = format!("length and checksum {there:x?} instead of {expected:x?}");
                    return Err(StateError::io("read back", path)(std::io::Error::other(problem)));
                }
                storage.put_file(name, path)?;
            }
        }
        Ok(())
    }
}

/// Writes one snapshot, section after section, groups ascending.
pub(crate) struct Writer<'a> {
    bundle: &'a mut Bundle,
    /// Where it begins in the file.
    offset: u64,
    crc32c: u32,
    sections: Vec<Section>,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.bundle.write(bytes)
    }

    /// Bytes of it so far.
    fn written(&self) -> u64 {
        self.bundle.written - self.offset
    }

    /// Adds entries of a group: a group not lower than the last one; the same one is continued.
    pub(crate) fn section(&mut self, group: u16, entries: u64, bytes: &[u8]) -> Result<(), StateError> {
        let offset = self.written();
        self.write(bytes)?;
        match self.sections.last_mut().filter(|last| last.group == group) {
            Some(last) => {
                last.entries += entries;
                last.bytes += bytes.len() as u64;
                last.crc32c = crc32c::crc32c_append(last.crc32c, bytes);
            }
            None => {
                let (bytes, crc32c) = (bytes.len() as u64, crc32c::crc32c(bytes));
                self.sections.push(Section { group, entries, offset, bytes, crc32c });
            }
        }
        Ok(())
    }

    /// Ends the snapshot.
    pub(crate) fn finish(mut self) -> Result<Extent, StateError> {
        let table = self.written();
        let mut end = Vec::new();
        for section in &self.sections {
            end.extend_from_slice(&section.group.to_le_bytes());
            end.extend_from_slice(&section.entries.to_le_bytes());
            end.extend_from_slice(&section.offset.to_le_bytes());
            end.extend_from_slice(&section.bytes.to_le_bytes());
            end.extend_from_slice(&section.crc32c.to_le_bytes());
        }
        end.extend_from_slice(&(self.sections.len() as u32).to_le_bytes());
        end.extend_from_slice(&table.to_le_bytes());
        end.extend_from_slice(&crc32c::crc32c(&end).to_le_bytes());
        end.extend_from_slice(&END);
        self.write(&end)?;
        Ok(Extent { offset: self.offset, bytes: self.written(), crc32c: self.crc32c })
    }
}
