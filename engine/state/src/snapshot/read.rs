//! Reading a snapshot file, or the key groups of it that are owned.

use super::{END, HEAD_LIMIT, HEAD_START, Head, MAGIC, ROW, Section, TAIL, VERSION};
use crate::error::StateError;
use crate::storage::{Storage, StorageError};
use staunch_checkpoint::FileRef;
use std::io::ErrorKind;

/// Files up to this size are read whole.
const WHOLE_BYTES: u64 = 4 << 20;
/// Neighbouring sections are read together up to this size.
const RUN_BYTES: u64 = 8 << 20;

/// A snapshot file whose head and table have been verified against the manifest.
pub struct Snapshot<'a> {
    storage: &'a dyn Storage,
    file: &'a FileRef,
    whole: Option<Vec<u8>>,
    head: Head,
    sections: Vec<Section>,
}

impl<'a> Snapshot<'a> {
    /// Opens a file and verifies that its head and its table of sections are the ones of the manifest.
    ///
    /// # Errors
    /// [`StateError::Damaged`] or [`StateError::NewerFormat`]: the file is not as it was written, or
    /// not for this build. [`StateError::Storage`]: it cannot be read.
    pub fn open(storage: &'a dyn Storage, file: &'a FileRef) -> Result<Self, StateError> {
        let mut whole = None;
        if file.bytes <= WHOLE_BYTES {
            let bytes = read(storage, file, 0, file.bytes)?;
            check_start(file, &bytes)?;
            whole = Some(bytes);
        }
        let empty = Head {
            job: String::new(),
            lineage: String::new(),
            step: String::new(),
            worker: 0,
            checkpoint: 0,
            generation: 0,
            groups: crate::Groups::default(),
            owned: Vec::new(),
        };
        let mut this = Self { storage, file, whole, head: empty, sections: Vec::new() };
        let head_end = this.read_head()?;
        this.read_table(head_end)?;
        Ok(this)
    }

    /// Who wrote it.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Its sections, groups ascending.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Reads the sections that `wanted` accepts, in order, each verified before `visit` gets it.
    ///
    /// # Errors
    /// As [`Snapshot::open`], and what `visit` returns.
    pub fn read(
        &self,
        wanted: impl Fn(u16) -> bool,
        mut visit: impl FnMut(&Section, &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let mut rest: &[Section] = &self.sections;
        while let Some((first, _)) = rest.split_first() {
            if !wanted(first.group) {
                rest = &rest[1..];
                continue;
            }
            let mut count = 1;
            let end = |count: usize| rest[count - 1].offset + rest[count - 1].bytes;
            while count < rest.len()
                && wanted(rest[count].group)
                && rest[count].offset + rest[count].bytes - first.offset <= RUN_BYTES
            {
                count += 1;
            }
            let run = self.range(first.offset, end(count) - first.offset)?;
            for section in &rest[..count] {
                let from = (section.offset - first.offset) as usize;
                let bytes = &run[from..from + section.bytes as usize];
                if crc32c::crc32c(bytes) != section.crc32c {
                    let problem = format!("checksum of key group {} differs", section.group);
                    return Err(self.damaged(section.offset, problem));
                }
                visit(section, bytes)?;
            }
            rest = &rest[count..];
        }
        Ok(())
    }

    fn damaged(&self, offset: u64, problem: impl Into<String>) -> StateError {
        StateError::damaged(&self.file.name, self.file.offset.saturating_add(offset), problem)
    }

    /// Bytes of the file; exactly as many as asked for.
    fn range(&self, offset: u64, length: u64) -> Result<std::borrow::Cow<'_, [u8]>, StateError> {
        let past = || self.damaged(offset, format!("{length} bytes reach past its end"));
        if offset.checked_add(length).is_none_or(|end| end > self.file.bytes) {
            return Err(past());
        }
        if let Some(whole) = &self.whole {
            let bytes = whole.get(offset as usize..(offset + length) as usize);
            return bytes.map(Into::into).ok_or_else(past);
        }
        read(self.storage, self.file, offset, length).map(Into::into)
    }

    /// Reads and verifies the head; returns where it ends.
    fn read_head(&mut self) -> Result<u64, StateError> {
        let start = self.range(0, HEAD_START.min(self.file.bytes))?.into_owned();
        check_start(self.file, &start)?;
        let length = u64::from(u32_at(&start, 12));
        if length > HEAD_LIMIT {
            return Err(self.damaged(12, format!("a head of {length} bytes")));
        }
        let head = self.range(0, HEAD_START + length + 4)?.into_owned();
        let (body, crc) = head.split_at(head.len() - 4);
        if crc32c::crc32c(body) != u32_at(crc, 0) {
            return Err(self.damaged(0, "checksum of the head differs"));
        }
        self.head = serde_json::from_slice(&body[HEAD_START as usize..])
            .map_err(|error| self.damaged(HEAD_START, format!("its head does not parse: {error}")))?;
        Ok(head.len() as u64)
    }

    /// Reads the table of sections and verifies it, and with it the checksum of the whole file.
    fn read_table(&mut self, head_end: u64) -> Result<(), StateError> {
        let tail_at = self
            .file
            .bytes
            .checked_sub(TAIL)
            .filter(|at| *at >= head_end)
            .ok_or_else(|| self.damaged(head_end, "it ends before its table of sections"))?;
        let tail = self.range(tail_at, TAIL)?.into_owned();
        if tail[16..] != END {
            return Err(self.damaged(tail_at + 16, "it does not end as a snapshot file does"));
        }
        let (count, table_at) = (u64::from(u32_at(&tail, 0)), u64_at(&tail, 4));
        if table_at < head_end || table_at.checked_add(count * ROW) != Some(tail_at) {
            return Err(self.damaged(tail_at, "its table of sections is not where the tail says"));
        }
        let table = self.range(table_at, self.file.bytes - table_at)?.into_owned();
        let checked = table.len() - 12;
        if crc32c::crc32c(&table[..checked]) != u32_at(&table, checked) {
            return Err(self.damaged(table_at, "checksum of the table of sections differs"));
        }
        let rows = table[..(count * ROW) as usize].chunks_exact(ROW as usize);
        self.sections = rows.map(row).collect();
        self.check_whole(head_end, table_at, &table)
    }

    /// The sections follow one another without gaps, and all parts together have the checksum that
    /// the manifest knows.
    fn check_whole(&self, head_end: u64, table_at: u64, table: &[u8]) -> Result<(), StateError> {
        let mut crc = crc32c::crc32c(&self.range(0, head_end)?);
        let (mut at, mut last) = (head_end, None);
        for section in &self.sections {
            if section.offset != at || last.is_some_and(|last| last >= section.group) {
                return Err(self.damaged(table_at, "its sections are not in order"));
            }
            crc = crc32c::crc32c_combine(crc, section.crc32c, section.bytes as usize);
            at = at.saturating_add(section.bytes);
            last = Some(section.group);
        }
        if at != table_at {
            return Err(self.damaged(table_at, "its sections do not fill it"));
        }
        if crc32c::crc32c_append(crc, table) != self.file.crc32c {
            return Err(self.damaged(0, "it is not the file that the manifest lists"));
        }
        Ok(())
    }
}

/// Bytes of a snapshot, from the storage; exactly as many as asked for.
fn read(storage: &dyn Storage, file: &FileRef, offset: u64, length: u64) -> Result<Vec<u8>, StateError> {
    let at = file.offset.saturating_add(offset);
    let past = || StateError::damaged(&file.name, at, format!("{length} bytes reach past its end"));
    match storage.get_range(&file.name, at, length) {
        Ok(bytes) if bytes.len() as u64 == length => Ok(bytes),
        Ok(_) => Err(past()),
        Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::UnexpectedEof => Err(past()),
        Err(error) => Err(error.into()),
    }
}

/// Magic and version: the clearest thing that can be said about a foreign file.
fn check_start(file: &FileRef, bytes: &[u8]) -> Result<(), StateError> {
    if bytes.len() < HEAD_START as usize {
        let problem = format!("{} bytes are too few for a snapshot file", bytes.len());
        return Err(StateError::damaged(&file.name, file.offset.saturating_add(bytes.len() as u64), problem));
    }
    if bytes[..8] != MAGIC {
        return Err(StateError::damaged(
            &file.name,
            file.offset,
            "it does not start as a snapshot file does",
        ));
    }
    match u32_at(bytes, 8) {
        VERSION => Ok(()),
        0 => Err(StateError::damaged(
            &file.name,
            file.offset.saturating_add(8),
            "format version 0 does not exist",
        )),
        found if found < VERSION => {
            Err(StateError::OlderFormat { file: file.name.clone(), found, known: VERSION })
        }
        found => Err(StateError::NewerFormat {
            file: file.name.clone(),
            offset: file.offset.saturating_add(8),
            found,
            known: VERSION,
        }),
    }
}

fn row(bytes: &[u8]) -> Section {
    Section {
        group: u16::from_le_bytes([bytes[0], bytes[1]]),
        entries: u64_at(bytes, 2),
        offset: u64_at(bytes, 10),
        bytes: u64_at(bytes, 18),
        crc32c: u32_at(bytes, 26),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(le)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(le)
}
