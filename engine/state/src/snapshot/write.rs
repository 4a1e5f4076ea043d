//! Writing a snapshot file: to memory when it is small, else through a local file.

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

/// Writes one file, section after section, groups ascending.
pub(crate) struct Writer {
    output: Output,
    written: u64,
    crc32c: u32,
    sections: Vec<Section>,
}

impl Writer {
    /// Starts a file with its head.
    pub(crate) fn new(output: Output, head: &Head) -> Result<Self, StateError> {
        let mut this = Self { output, written: 0, crc32c: 0, sections: Vec::new() };
        let json = serde_json::to_vec(head)
            .map_err(|error| StateError::internal(&head.step, format!("head of a file: {error}")))?;
        let mut start = Vec::with_capacity(json.len() + 20);
        start.extend_from_slice(&MAGIC);
        start.extend_from_slice(&VERSION.to_le_bytes());
        start.extend_from_slice(&(json.len() as u32).to_le_bytes());
        start.extend_from_slice(&json);
        start.extend_from_slice(&crc32c::crc32c(&start).to_le_bytes());
        this.write(&start)?;
        Ok(this)
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

    /// Adds entries of a group: a group not lower than the last one; the same one is continued.
    pub(crate) fn section(&mut self, group: u16, entries: u64, bytes: &[u8]) -> Result<(), StateError> {
        let offset = self.written;
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

    /// Ends the file and puts it into the storage.
    pub(crate) fn finish(
        mut self,
        storage: &dyn Storage,
        name: String,
        kind: FileKind,
    ) -> Result<FileRef, StateError> {
        let table = self.written;
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
        match &mut self.output {
            Output::Memory(bytes) => storage.put(&name, bytes)?,
            Output::Local(path, file) => {
                file.flush().map_err(StateError::io("write", path))?;
                let (there, expected) = (checksum(path)?, (self.written, self.crc32c));
                if there != expected {
                    let problem = format!("length and checksum {there:x?} instead of {expected:x?}");
                    return Err(StateError::io("read back", path)(std::io::Error::other(problem)));
                }
                storage.put_file(&name, path)?;
            }
        }
        Ok(FileRef { name, kind, bytes: self.written, crc32c: self.crc32c })
    }
}
