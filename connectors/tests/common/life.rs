//! The life of a job with one sink, by hand: starts, checkpoints, crashes.

use super::MemoryStorage;
use serde::{Deserialize, Serialize};
use staunch_core::sink::{CommitError, Committer, Prepared, Sink, SinkContext, SinkWriter};
use staunch_core::{CheckpointId, Committable, Generation, Result};
use std::sync::Arc;

/// What the tests write.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Row {
    pub id: u64,
    pub name: String,
}

pub fn row(id: u64) -> Row {
    Row { id, name: format!("name, \"{id}\"") }
}

pub fn rows(ids: impl IntoIterator<Item = u64>) -> Vec<Row> {
    ids.into_iter().map(row).collect()
}

/// What the manifest keeps of a prepared piece; through text, as the manifest does it.
pub fn committable(checkpoint: u32, instance: u32, generation: u64, prepared: Prepared) -> Committable {
    Committable {
        checkpoint: CheckpointId(checkpoint),
        instance,
        generation: Generation(generation),
        records: prepared.records,
        payload: serde_json::from_str(&prepared.payload.to_string()).unwrap(),
    }
}

/// A target that can be looked into from outside.
pub trait Target {
    type Sink: Sink<Record = Row>;
    /// A description of the sink, as a restarted program makes it.
    fn sink(&self) -> Self::Sink;
    /// What a reader of the target sees.
    fn visible(&self) -> Vec<Row>;
    /// Prepared output that nobody published or removed.
    fn leftovers(&self, storage: &MemoryStorage) -> usize;
    /// Removes all prepared output behind the sink's back.
    fn lose_prepared(&self, storage: &MemoryStorage);
}

/// What outlives crashes: the target, the checkpoint storage, the number of starts.
pub struct Life<T> {
    pub target: T,
    pub storage: Arc<MemoryStorage>,
    pub lineage: String,
    pub starts: u64,
    pub instances: u32,
    /// First id that the next start may use; as a rule tests do not look after it.
    pub next_checkpoint: u32,
}

/// One start of the job.
pub struct Start<S: Sink> {
    pub committer: S::Committer,
    pub writers: Vec<S::Writer>,
    pub generation: Generation,
    /// Log lines of the recovery.
    pub removed: Vec<String>,
}

impl<T: Target> Life<T> {
    pub fn new(target: T) -> Self {
        Self {
            target,
            storage: Arc::default(),
            lineage: "life-1".into(),
            starts: 0,
            instances: 2,
            next_checkpoint: u32::MAX,
        }
    }

    pub fn context(&self, generation: u64, instance: u32) -> SinkContext {
        SinkContext {
            job: "job".into(),
            sink: "out".into(),
            lineage: self.lineage.clone(),
            generation: Generation(generation),
            instance,
            instances: self.instances,
            next_checkpoint: CheckpointId(self.next_checkpoint),
            fresh: generation == 1,
            storage: Arc::clone(&self.storage) as _,
        }
    }

    /// Starts the job from a checkpoint with these committables; what ran before has crashed, or is a
    /// zombie if the test still holds it.
    pub async fn start(&mut self, listed: &[Committable]) -> Result<Start<T::Sink>> {
        self.starts += 1;
        let sink = self.target.sink();
        let mut committer = sink.committer(&self.context(self.starts, 0)).await?;
        let removed = committer.recover(listed).await?;
        let mut writers = Vec::new();
        for instance in 0..self.instances {
            writers.push(sink.writer(&self.context(self.starts, instance)).await?);
        }
        Ok(Start { committer, writers, generation: Generation(self.starts), removed })
    }

    pub fn visible(&self) -> Vec<Row> {
        let mut rows = self.target.visible();
        rows.sort();
        rows
    }

    pub fn leftovers(&self) -> usize {
        self.target.leftovers(&self.storage)
    }
}

impl<S: Sink<Record = Row>> Start<S> {
    /// Writes rows, dealt out to the instances.
    pub async fn write(&mut self, rows: Vec<Row>) {
        let count = self.writers.len();
        let mut parts: Vec<Vec<Row>> = vec![Vec::new(); count];
        for row in rows {
            parts[row.id as usize % count].push(row);
        }
        for (writer, part) in self.writers.iter_mut().zip(parts) {
            writer.write(part).await.unwrap();
        }
    }

    /// Prepares all instances; what comes back goes into the manifest.
    pub async fn prepare(&mut self, checkpoint: u32) -> Vec<Committable> {
        let mut all = Vec::new();
        for (instance, writer) in self.writers.iter_mut().enumerate() {
            for prepared in writer.prepare(CheckpointId(checkpoint)).await.unwrap() {
                all.push(committable(checkpoint, instance as u32, self.generation.0, prepared));
            }
        }
        all
    }

    pub async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        self.committer.commit(committables).await
    }
}
