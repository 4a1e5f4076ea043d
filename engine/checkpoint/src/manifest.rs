//! What one checkpoint consists of: source positions, state files and prepared output, in one record.

use crate::ids::{CheckpointId, Generation, Slot};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format of [`Manifest`] written by this version.
pub const FORMAT: u32 = 2;

/// Everything a restart needs, decided as one unit.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this record, see [`FORMAT`].
    pub format: u32,
    /// Name of the job that wrote it; a restore by another job is refused.
    pub job: String,
    /// Identity of the run of checkpoints, made once when the job first starts from nothing. Targets
    /// keep it beside their commit tokens, so that output of an older life is never taken for ours.
    pub lineage: String,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The generation that decided it.
    pub generation: Generation,
    /// Why it was taken.
    pub kind: Kind,
    /// Milliseconds since the Unix epoch, for people; no decision reads it.
    pub taken_at_ms: u64,
    /// Number of key groups (max parallelism); fixed for the life of the job.
    pub groups: u16,
    /// Number of workers that took it; the next run may have another.
    pub workers: u32,
    /// Positions, by source name.
    pub sources: BTreeMap<String, SourcePart>,
    /// State files, by the name of the state: that of its step, if the step has no other.
    pub states: BTreeMap<String, StatePart>,
    /// Prepared output that is not known to be committed, by sink name.
    pub sinks: BTreeMap<String, SinkPart>,
    /// What the job promised when it took this, or ever before: a checkpoint that may hold the effect of
    /// a record twice never becomes one that does not.
    #[serde(default, skip_serializing_if = "Guarantee::is_exactly_once")]
    pub guarantee: Guarantee,
    /// Slots of the log that may be deleted once this is decided, oldest first; see [`crate::retention`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expires: Vec<Slot>,
}

/// How often the effect of a record shows, at the least and at the most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// Once.
    #[default]
    ExactlyOnce,
    /// Once, and after a crash perhaps again.
    AtLeastOnce,
}

impl Guarantee {
    /// Whether it is the stronger one.
    #[must_use]
    pub fn is_exactly_once(&self) -> bool {
        *self == Guarantee::ExactlyOnce
    }
}

/// Why a checkpoint was taken.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// By the timer.
    Periodic,
    /// On request, under a name; kept until removed by hand.
    Savepoint {
        /// Name given by the user.
        name: String,
    },
    /// The job stops after it, and a rerun continues.
    Stop,
    /// The last one after the end of all input: the job is complete.
    Final,
}

/// Positions of one source: what its [segments](crate::book) say, oldest first, overridden by what is listed here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SourcePart {
    /// The splits that are moving, or have lately come to rest, in no order.
    pub splits: Vec<SplitPart>,
    /// Identities of splits that are forgotten, though a segment has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<String>,
    /// Files with all other splits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentRef>,
    /// Highest event time seen in any split, forgotten ones included, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub max_event_time_ms: Option<i64>,
}

impl SourcePart {
    /// Whether nothing was ever read of the source.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.splits.is_empty() && self.segments.is_empty()
    }
}

/// One immutable file of splits in the checkpoint storage.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SegmentRef {
    /// Name in the checkpoint storage.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// CRC-32C of the whole file.
    pub crc32c: u32,
    /// Splits in it, forgotten ones included.
    pub splits: u64,
}

/// Where one split stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SplitPart {
    /// Stable identity of the split.
    pub id: String,
    /// The split's own description, as its source wrote it.
    pub split: serde_json::Value,
    /// Position of the next record; `None` if nothing was read yet.
    pub position: Option<serde_json::Value>,
    /// True once its end was reached; it is not opened again.
    pub finished: bool,
    /// Highest event time seen in it, in milliseconds since the Unix epoch.
    pub max_event_time_ms: Option<i64>,
}

/// One state of a stateful step.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct StatePart {
    /// Shape of the state's key and value types, as text; a changed shape is refused at restore.
    pub schema: String,
    /// What the step does with it: `count`, `window fold`. Another one is refused at restore.
    pub operator: String,
    /// The operator's parameters, such as the length of a window: state that was built with one value is not continued
    /// with another.
    pub parameters: BTreeMap<String, String>,
    /// One shard a worker, in no order.
    pub shards: Vec<Shard>,
}

impl StatePart {
    /// Without shards: what a step says of its state before there is any.
    #[must_use]
    pub fn of(schema: impl Into<String>) -> Self {
        Self { schema: schema.into(), ..Self::default() }
    }
}

/// One state on one worker.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Shard {
    /// The worker that wrote it.
    pub worker: u32,
    /// The watermark that the step had applied, in milliseconds since the Unix epoch.
    pub watermark_ms: Option<i64>,
    /// Files in the order in which they are to be loaded: a later entry of a key replaces an earlier.
    pub files: Vec<FileRef>,
}

/// One immutable file of the checkpoint storage, or a part of one. A file is kept while any part of it is listed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct FileRef {
    /// Name in the checkpoint storage.
    pub name: String,
    /// What it holds.
    pub kind: FileKind,
    /// Where it begins in the file of that name: what the states of a worker write for one checkpoint is in one file.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
    /// CRC-32C of these bytes.
    pub crc32c: u32,
}

/// What a state file holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// All entries of the memory tier.
    Base,
    /// Entries changed since the file before it.
    Delta,
    /// A file of the RocksDB tier (table, manifest, current or options).
    Spill,
}

/// Prepared output of one sink.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SinkPart {
    /// In the order in which they are to be committed.
    pub pending: Vec<Committable>,
}

/// One prepared, durable and still invisible piece of output.
///
/// It keeps the ids that it was made with for ever: recovery never renumbers or merges.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Committable {
    /// The checkpoint for which it was prepared; the one that lists it may be later.
    pub checkpoint: CheckpointId,
    /// The instance (worker) of the sink that prepared it.
    pub instance: u32,
    /// The generation that prepared it.
    pub generation: Generation,
    /// Records in it.
    pub records: u64,
    /// What the sink's committer needs to find it.
    pub payload: serde_json::Value,
}
