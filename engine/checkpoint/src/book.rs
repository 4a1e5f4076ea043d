//! The book of splits: where every split of every source stands, and how little of that a manifest repeats.
//!
//! Sources report what has changed since the last decided checkpoint; the book keeps the rest. A manifest lists the
//! splits that *move*. Those that are settled (finished, not begun, or unchanged for long) go into *segments*:
//! immutable files with a checksum, which the manifest names. A later segment overrides an earlier one, and the
//! manifest's own list overrides them all. Segments are merged so that each is larger than the next, so a split is
//! written again a few times in its life, not at every checkpoint.
//!
//! Pure, like the rest of this crate: it says what has to be stored, and reads bytes that others fetched. Does not
//! know which splits a source may forget.

use crate::ids::{CheckpointId, Generation};
use crate::manifest::{Manifest, SegmentRef, SourcePart, SplitPart};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Format of a segment written by this version.
pub const FORMAT: u32 = 1;
/// So many settled splits are worth a segment; fewer stay in the manifest.
const WORTH_A_SEGMENT: usize = 64;
/// A split that has not changed for so many checkpoints is settled.
const QUIET_CHECKPOINTS: u32 = 8;

/// What is known of a split; `None` once it is forgotten.
type Line = Option<SplitPart>;

/// Where every split stands, by source.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Book {
    sources: BTreeMap<String, Shelf>,
}

/// The splits of one source.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Shelf {
    /// What the manifest lists, with the checkpoint in which it changed.
    moving: BTreeMap<String, (CheckpointId, Line)>,
    /// Oldest first.
    segments: Vec<Segment>,
    max_event_time_ms: Option<i64>,
}

/// A segment, read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Segment {
    file: SegmentRef,
    lines: Arc<BTreeMap<String, Line>>,
}

/// A file that has to be stored before the manifest that names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SegmentFile {
    /// Name in the checkpoint storage.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A stored segment that cannot be trusted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SegmentError {
    /// The bytes are not those that the manifest names.
    #[error(
        "{name}: damaged: {found_bytes} bytes with checksum {found:08x} where {bytes} with {crc32c:08x} were written"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Length that was written.
        bytes: u64,
        /// CRC-32C that was written.
        crc32c: u32,
        /// Length found.
        found_bytes: u64,
        /// CRC-32C found.
        found: u32,
    },
    /// It is what was written, and not understood.
    #[error("{name}: not understood: {reason}")]
    Body {
        /// The file.
        name: String,
        /// Why.
        reason: String,
    },
}

/// The first line of a segment.
#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    source: String,
    lines: usize,
}

/// Each further line of a segment.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Split(SplitPart),
    Forgotten(String),
}

impl Segment {
    /// Reads a segment back.
    ///
    /// # Errors
    /// The bytes are not exactly what was written, or were written by a later version.
    pub fn decode(file: &SegmentRef, bytes: &[u8]) -> Result<Self, SegmentError> {
        let found = crc32c::crc32c(bytes);
        if bytes.len() as u64 != file.bytes || found != file.crc32c {
            return Err(SegmentError::Damaged {
                name: file.name.clone(),
                bytes: file.bytes,
                crc32c: file.crc32c,
                found_bytes: bytes.len() as u64,
                found,
            });
        }
        let body = |reason: String| SegmentError::Body { name: file.name.clone(), reason };
        let mut rows = bytes.split(|byte| *byte == b'\n').filter(|row| !row.is_empty());
        let head = rows.next().ok_or_else(|| body("it is empty".into()))?;
        let head: Head = serde_json::from_slice(head).map_err(|e| body(e.to_string()))?;
        if head.format > FORMAT {
            return Err(body(format!(
                "format {} is newer than format {FORMAT} of this version",
                head.format
            )));
        }
        let mut lines = BTreeMap::new();
        for row in rows {
            match serde_json::from_slice(row).map_err(|e| body(e.to_string()))? {
                Stored::Split(part) => lines.insert(part.id.clone(), Some(part)),
                Stored::Forgotten(id) => lines.insert(id, None),
            };
        }
        if lines.len() != head.lines {
            return Err(body(format!("{} lines where {} were written", lines.len(), head.lines)));
        }
        Ok(Self { file: file.clone(), lines: Arc::new(lines) })
    }

    fn new(name: String, source: &str, lines: BTreeMap<String, Line>) -> (Self, SegmentFile) {
        let json = "maps have text keys and every value has a text";
        let head = Head { format: FORMAT, source: source.to_owned(), lines: lines.len() };
        let mut bytes = serde_json::to_vec(&head).expect(json);
        for (id, line) in &lines {
            bytes.push(b'\n');
            let stored = match line {
                Some(part) => Stored::Split(part.clone()),
                None => Stored::Forgotten(id.clone()),
            };
            serde_json::to_writer(&mut bytes, &stored).expect(json);
        }
        bytes.push(b'\n');
        let (length, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
        let file = SegmentRef { name: name.clone(), bytes: length, crc32c, splits: lines.len() as u64 };
        (Self { file, lines: Arc::new(lines) }, SegmentFile { name, bytes })
    }
}

/// What sources report for a checkpoint, by source and split.
pub(crate) type Reported<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a SplitPart>>;

/// The book as it is once a checkpoint is decided, and what must be stored before.
pub(crate) struct Draft {
    pub(crate) book: Book,
    pub(crate) files: Vec<SegmentFile>,
}

impl Book {
    /// The book of a checkpoint. `segments` are those that it names, by source, in its order.
    #[must_use]
    pub fn restore(manifest: &Manifest, mut segments: BTreeMap<String, Vec<Segment>>) -> Self {
        let mut sources = BTreeMap::new();
        for (name, part) in &manifest.sources {
            let at = manifest.checkpoint;
            let splits = part.splits.iter().map(|split| (split.id.clone(), (at, Some(split.clone()))));
            let forgotten = part.forgotten.iter().map(|id| (id.clone(), (at, None)));
            let shelf = Shelf {
                moving: splits.chain(forgotten).collect(),
                segments: segments.remove(name).unwrap_or_default(),
                max_event_time_ms: part.max_event_time_ms,
            };
            sources.insert(name.clone(), shelf);
        }
        Self { sources }
    }

    /// Every split of a source that is known and not forgotten, in the order of identities.
    #[must_use]
    pub fn splits(&self, source: &str) -> Vec<SplitPart> {
        let Some(shelf) = self.sources.get(source) else { return Vec::new() };
        let mut all: BTreeMap<&str, &Line> = BTreeMap::new();
        for segment in &shelf.segments {
            all.extend(segment.lines.iter().map(|(id, line)| (id.as_str(), line)));
        }
        all.extend(shelf.moving.iter().map(|(id, (_, line))| (id.as_str(), line)));
        all.into_values().flatten().cloned().collect()
    }

    /// The highest event time that any split of a source ever had, forgotten ones included.
    #[must_use]
    pub fn max_event_time_ms(&self, source: &str) -> Option<i64> {
        self.sources.get(source)?.max_event_time_ms
    }

    /// These splits of a source cannot come up again: no later manifest knows them.
    pub(crate) fn forget(&mut self, source: &str, splits: &[String], since: CheckpointId) {
        let Some(shelf) = self.sources.get_mut(source) else { return };
        for id in splits {
            if shelf.segments.iter().any(|segment| segment.lines.contains_key(id)) {
                shelf.moving.insert(id.clone(), (since, None));
            } else {
                shelf.moving.remove(id);
            }
        }
    }

    /// The book after a checkpoint in which this was reported. `names` are the sources of the job.
    pub(crate) fn draft<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        reported: &Reported<'_>,
        checkpoint: CheckpointId,
        generation: Generation,
    ) -> Draft {
        let mut draft = Draft { book: self.clone(), files: Vec::new() };
        for name in names {
            draft.book.sources.entry(name.to_owned()).or_default();
        }
        for (source, splits) in reported {
            let shelf = draft.book.sources.entry((*source).to_owned()).or_default();
            splits.values().for_each(|split| shelf.take(split, checkpoint));
        }
        for (source, shelf) in &mut draft.book.sources {
            let name = format!("splits/{source}/{checkpoint}-g{generation}");
            draft.files.extend(shelf.settle(source, name, checkpoint));
        }
        draft
    }

    /// The sources of a manifest.
    pub(crate) fn sources(&self) -> BTreeMap<String, SourcePart> {
        self.sources.iter().map(|(name, shelf)| (name.clone(), shelf.part())).collect()
    }
}

impl Shelf {
    fn line(&self, id: &str) -> Option<&Line> {
        let moving = self.moving.get(id).map(|(_, line)| line);
        moving.or_else(|| self.segments.iter().rev().find_map(|segment| segment.lines.get(id)))
    }

    fn take(&mut self, split: &SplitPart, checkpoint: CheckpointId) {
        self.max_event_time_ms = self.max_event_time_ms.max(split.max_event_time_ms);
        if !matches!(self.line(&split.id), Some(Some(known)) if known == split) {
            self.moving.insert(split.id.clone(), (checkpoint, Some(split.clone())));
        }
    }

    /// Moves what is settled into a segment, if that is worth one.
    fn settle(&mut self, source: &str, name: String, checkpoint: CheckpointId) -> Option<SegmentFile> {
        let is_settled = |changed: CheckpointId, line: &Line| {
            let begun = line.as_ref().is_some_and(|part| !part.finished && part.position.is_some());
            !begun || changed.0.saturating_add(QUIET_CHECKPOINTS) <= checkpoint.0
        };
        let settled = self.moving.values().filter(|(changed, line)| is_settled(*changed, line)).count();
        let forgotten = self.moving.values().filter(|(_, line)| line.is_none()).count();
        let stored: usize = self.segments.iter().map(|segment| segment.lines.len()).sum();
        // Half of what is stored is of no use any more.
        let compact = forgotten > 0 && 2 * forgotten >= stored;
        if settled < WORTH_A_SEGMENT && !compact {
            return None;
        }
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        self.moving.retain(|id, (changed, line)| {
            let settled = is_settled(*changed, line);
            if settled {
                lines.insert(id.clone(), line.take());
            }
            !settled
        });
        while let Some(last) = self.segments.pop_if(|last| compact || last.lines.len() <= lines.len()) {
            for (id, line) in &*last.lines {
                if !lines.contains_key(id) {
                    lines.insert(id.clone(), line.clone());
                }
            }
        }
        if self.segments.is_empty() {
            // Nothing is below that they could hide.
            lines.retain(|_, line| line.is_some());
        }
        if lines.is_empty() {
            return None;
        }
        let (segment, file) = Segment::new(name, source, lines);
        self.segments.push(segment);
        Some(file)
    }

    fn part(&self) -> SourcePart {
        let lines = || self.moving.iter().map(|(id, (_, line))| (id, line));
        SourcePart {
            splits: lines().filter_map(|(_, line)| line.clone()).collect(),
            forgotten: lines().filter(|(_, line)| line.is_none()).map(|(id, _)| id.clone()).collect(),
            segments: self.segments.iter().map(|segment| segment.file.clone()).collect(),
            max_event_time_ms: self.max_event_time_ms,
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
