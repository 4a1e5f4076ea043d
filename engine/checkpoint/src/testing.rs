//! Small values for the unit tests.

use crate::ids::{CheckpointId, Generation, Slot};
use crate::manifest::{
    self, Committable, FileKind, FileRef, Guarantee, Kind, Manifest, Shard, SinkPart, SourcePart, SplitPart,
    StatePart,
};
use crate::record::{self, Fence, Record};

/// A checkpoint of job "job" whose sink "out" has one pending committable of each id in `pending`.
pub(crate) fn manifest(checkpoint: u32, generation: u64, pending: &[u32]) -> Manifest {
    let pending = pending.iter().map(|id| committable(*id, 0, generation)).collect();
    Manifest {
        format: manifest::FORMAT,
        job: "job".into(),
        lineage: "one".into(),
        checkpoint: CheckpointId(checkpoint),
        generation: Generation(generation),
        kind: Kind::Periodic,
        taken_at_ms: 1_700_000_000_000,
        groups: 128,
        workers: 1,
        sources: [(
            "in".to_owned(),
            SourcePart { splits: vec![split("a", u64::from(checkpoint))], ..SourcePart::default() },
        )]
        .into(),
        states: [("counts".to_owned(), StatePart::of("u64 -> u64"))].into(),
        sinks: [("out".to_owned(), SinkPart { pending })].into(),
        guarantee: Guarantee::ExactlyOnce,
        expires: Vec::new(),
    }
}

/// The same with state files.
pub(crate) fn with_files(mut manifest: Manifest, files: &[&str]) -> Manifest {
    let shard = shard(0, files);
    let part = StatePart { shards: vec![shard], ..StatePart::of("u64 -> u64") };
    manifest.states.insert("counts".into(), part);
    manifest
}

pub(crate) fn shard(worker: u32, files: &[&str]) -> Shard {
    let file =
        |name: &&str| FileRef { name: (*name).into(), kind: FileKind::Delta, offset: 0, bytes: 1, crc32c: 7 };
    Shard { worker, watermark_ms: Some(5), files: files.iter().map(file).collect() }
}

pub(crate) fn split(id: &str, position: u64) -> SplitPart {
    SplitPart {
        id: id.into(),
        split: serde_json::json!({ "path": id }),
        position: Some(position.into()),
        finished: false,
        max_event_time_ms: None,
    }
}

pub(crate) fn committable(checkpoint: u32, instance: u32, generation: u64) -> Committable {
    Committable {
        checkpoint: CheckpointId(checkpoint),
        instance,
        generation: Generation(generation),
        records: 3,
        payload: serde_json::json!("part"),
    }
}

pub(crate) fn fence(generation: u64, next_checkpoint: u32, restored: Option<u64>) -> Fence {
    Fence {
        format: record::FENCE_FORMAT,
        job: "job".into(),
        lineage: "one".into(),
        generation: Generation(generation),
        next_checkpoint: CheckpointId(next_checkpoint),
        restored: restored.map(Slot),
        turns: Vec::new(),
        holder: "host/1".into(),
        at_ms: 1,
    }
}

/// A log record.
pub(crate) fn at(slot: u64, record: impl Into<Record>) -> (Slot, Record) {
    (Slot(slot), record.into())
}

impl From<Manifest> for Record {
    fn from(manifest: Manifest) -> Self {
        Record::Checkpoint(Box::new(manifest))
    }
}

impl From<Fence> for Record {
    fn from(fence: Fence) -> Self {
        Record::Fence(fence)
    }
}
