//! Records of the checkpoint log, and the text that they are stored as.
//!
//! A record is one line that protects it, `staunch-log <format> <crc32c> <bytes of the body>`, and a JSON
//! body that people can read. The line has exactly one spelling, so every flipped bit, missing end or
//! added byte is an error that names the record; nothing is ever half believed.
//!
//! The checksum covers the record's name and its body: an old record in the place of a new one would make
//! the job fall back to what it had published long ago, so it is refused like any other damage. (In format
//! 1 it covers the body alone.)

use crate::ids::{CheckpointId, Generation, Slot};
use crate::manifest::{self, Manifest};
use serde::{Deserialize, Serialize};

/// Format of the log's records written by this version.
pub const FORMAT: u32 = 2;
/// Format of a [`Fence`] written by this version.
pub const FENCE_FORMAT: u32 = 3;
/// The format whose checksum does not cover the name.
const UNNAMED: u32 = 1;

const MAGIC: &str = "staunch-log";
/// Longer than any first line that this version writes.
const MAX_HEADER_BYTES: usize = 64;
const PREFIX: &str = "log/";
const DIGITS: usize = 20;

/// What one slot of the log holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A decided checkpoint.
    Checkpoint(Box<Manifest>),
    /// A generation took the job over.
    Fence(Fence),
}

/// The first record of a generation: from here on no older one can decide anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Fence {
    /// Format of this record, see [`FENCE_FORMAT`].
    pub format: u32,
    /// Name of the job; a restore by another job is refused.
    pub job: String,
    /// Identity of the run of checkpoints that this generation continues or begins.
    pub lineage: String,
    /// The generation that begins.
    pub generation: Generation,
    /// First id that this generation may use.
    pub next_checkpoint: CheckpointId,
    /// Slot of the checkpoint that it restored; `None` if it started from nothing. Records between that
    /// slot and this fence are abandoned.
    pub restored: Option<Slot>,
    /// The turns of history up to here, this fence's own the last one, as far as checkpoints from before them are
    /// there; oldest first. (Since format 3.)
    #[serde(default)]
    pub turns: Vec<Turn>,
    /// For people: host and process. No decision reads it.
    pub holder: String,
    /// Milliseconds since the Unix epoch, for people; no decision reads it.
    pub at_ms: u64,
}

/// A start that left a branch of history behind: somebody chose another checkpoint than the one to go on from, or
/// none.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// Slot of its fence.
    pub fence: Slot,
    /// Slot of the checkpoint that it restored.
    pub restored: Option<Slot>,
    /// The lineage that it went on with, or began.
    pub lineage: String,
    /// First id that it could use.
    pub next_checkpoint: CheckpointId,
    /// Slots of the checkpoints in the log then of which all listed output was known to be published.
    pub published: Vec<Slot>,
}

/// A stored record that cannot be trusted. Each variant carries the record's name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Nothing is stored under the name.
    #[error("{name}: the record is empty")]
    Empty {
        /// The record.
        name: String,
    },
    /// The first line is not one that this version writes.
    #[error("{name}: not a record of a checkpoint log: {reason}")]
    Header {
        /// The record.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a later version of the engine.
    #[error("{name}: format {found} is newer than format {known} of this version; run a newer version")]
    Newer {
        /// The record.
        name: String,
        /// Its format.
        found: u32,
        /// Newest format that this version reads.
        known: u32,
    },
    /// A checkpoint of an earlier version, which this one does not read.
    #[error(
        "{name}: a checkpoint of format {found}, and this version reads format {known}: go on with the version that \
         wrote it, or start anew with other checkpoints and another output"
    )]
    Older {
        /// The record.
        name: String,
        /// Its format.
        found: u32,
        /// The format that this version reads.
        known: u32,
    },
    /// The body is shorter or longer than its first line says.
    #[error("{name}: cut off or grown: {found} bytes of body where {expected} were written")]
    Length {
        /// The record.
        name: String,
        /// Bytes according to the first line.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// The body is not what was written, or was written under another name.
    #[error(
        "{name}: damaged, or another record in its place: checksum {found:08x} where {expected:08x} was written"
    )]
    Checksum {
        /// The record.
        name: String,
        /// CRC-32C according to the first line.
        expected: u32,
        /// CRC-32C of what was found.
        found: u32,
    },
    /// The body is intact but is not a record.
    #[error("{name}: not understood: {reason}")]
    Body {
        /// The record.
        name: String,
        /// What the parser says.
        reason: String,
    },
}

impl Record {
    /// The generation that wrote it.
    #[must_use]
    pub fn generation(&self) -> Generation {
        match self {
            Record::Checkpoint(manifest) => manifest.generation,
            Record::Fence(fence) => fence.generation,
        }
    }

    /// The job that wrote it.
    #[must_use]
    pub fn job(&self) -> &str {
        match self {
            Record::Checkpoint(manifest) => &manifest.job,
            Record::Fence(fence) => &fence.job,
        }
    }

    /// The bytes to store in this slot, under the name that [`slot_name`] gives.
    ///
    /// Positions and payloads are JSON values of connectors: no deeper than 100 levels, or the record
    /// cannot be read back, and without fractions, whose last bit may change.
    #[must_use]
    pub fn encode(&self, slot: Slot) -> Vec<u8> {
        let mut body =
            serde_json::to_vec_pretty(self).expect("maps have text keys and no value refuses to be written");
        body.push(b'\n');
        let crc = checksum(FORMAT, &slot_name(slot), &body);
        let mut bytes = header(FORMAT, crc, body.len() as u64).into_bytes();
        bytes.append(&mut body);
        bytes
    }

    /// Reads stored bytes back; `name` is the name under which they were stored.
    ///
    /// # Errors
    /// The bytes are not exactly what [`Record::encode`] of this or an older version wrote.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Record, RecordError> {
        if bytes.is_empty() {
            return Err(RecordError::Empty { name: name.into() });
        }
        let (format, expected, length, body) = split(bytes).map_err(|problem| problem.of(name))?;
        if body.len() as u64 != length {
            let found = body.len() as u64;
            return Err(RecordError::Length { name: name.into(), expected: length, found });
        }
        let found = checksum(format, name, body);
        if found != expected {
            return Err(RecordError::Checksum { name: name.into(), expected, found });
        }
        let record = serde_json::from_slice::<Record>(body);
        let formats = match &record {
            Ok(Record::Checkpoint(manifest)) => {
                Formats { checkpoint: Some(manifest.format.into()), fence: None }
            }
            Ok(Record::Fence(fence)) => Formats { checkpoint: None, fence: Some(fence.format.into()) },
            // One of another format need not have the shape of ours.
            Err(_) => serde_json::from_slice(body).unwrap_or_default(),
        };
        formats.check(name)?;
        record.map_err(|e| RecordError::Body { name: name.into(), reason: e.to_string() })
    }
}

/// Which record of which format a body is.
#[derive(Default, Deserialize)]
struct Formats {
    checkpoint: Option<FormatOf>,
    fence: Option<FormatOf>,
}

#[derive(Deserialize)]
struct FormatOf {
    format: u32,
}

impl From<u32> for FormatOf {
    fn from(format: u32) -> Self {
        Self { format }
    }
}

impl Formats {
    /// Refuses those that this version does not read.
    fn check(self, name: &str) -> Result<(), RecordError> {
        let name = name.to_owned();
        let known = if self.checkpoint.is_some() { manifest::FORMAT } else { FENCE_FORMAT };
        match (self.checkpoint, self.fence) {
            (Some(FormatOf { format: found }), _) if found < known => {
                Err(RecordError::Older { name, found, known })
            }
            (Some(FormatOf { format: found }), _) | (None, Some(FormatOf { format: found }))
                if found > known =>
            {
                Err(RecordError::Newer { name, found, known })
            }
            _ => Ok(()),
        }
    }
}

/// Name of a slot's record in the checkpoint storage; names sort as slots do.
#[must_use]
pub fn slot_name(slot: Slot) -> String {
    format!("{PREFIX}{:0DIGITS$}", slot.0)
}

/// The slot of a name, if [`slot_name`] gave that name.
#[must_use]
pub fn parse_slot(name: &str) -> Option<Slot> {
    let digits = name.strip_prefix(PREFIX)?;
    if digits.len() != DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Slot)
}

fn header(format: u32, crc: u32, bytes: u64) -> String {
    format!("{MAGIC} {format} {crc:08x} {bytes}\n")
}

fn checksum(format: u32, name: &str, body: &[u8]) -> u32 {
    let named = if format == UNNAMED { 0 } else { crc32c::crc32c(name.as_bytes()) };
    crc32c::crc32c_append(named, body)
}

/// What is wrong with a first line, before the record's name is known.
enum Problem {
    Reason(&'static str),
    Newer(u32),
}

impl Problem {
    fn of(self, name: &str) -> RecordError {
        match self {
            Problem::Reason(reason) => RecordError::Header { name: name.into(), reason: reason.into() },
            Problem::Newer(found) => RecordError::Newer { name: name.into(), found, known: FORMAT },
        }
    }
}

/// Format, checksum and length according to the first line, and what follows it.
fn split(bytes: &[u8]) -> Result<(u32, u32, u64, &[u8]), Problem> {
    let window = &bytes[..bytes.len().min(MAX_HEADER_BYTES)];
    let end = window.iter().position(|b| *b == b'\n').ok_or(Problem::Reason("its first line has no end"))?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let line = std::str::from_utf8(line).map_err(|_| Problem::Reason("its first line is not text"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let [magic, format, crc, length] = words[..] else {
        return Err(Problem::Reason("its first line has not four words"));
    };
    if magic != MAGIC {
        return Err(Problem::Reason("its first word is another"));
    }
    let format: u32 = format.parse().map_err(|_| Problem::Reason("its format is not a number"))?;
    if format > FORMAT {
        return Err(Problem::Newer(format));
    }
    if format == 0 {
        return Err(Problem::Reason("there is no format 0"));
    }
    let crc = u32::from_str_radix(crc, 16).map_err(|_| Problem::Reason("its checksum is not a number"))?;
    let length = length.parse().map_err(|_| Problem::Reason("its length is not a number"))?;
    // One spelling only: a flipped bit that turns `a` into `A` or `1` into `01` must not pass.
    if header(format, crc, length).as_bytes() != &bytes[..=end] {
        return Err(Problem::Reason("its first line is misspelt"));
    }
    Ok((format, crc, length, body))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
