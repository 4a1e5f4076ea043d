//! The reference implementation of a sink.

use serde::{Deserialize, Serialize};
use staunch_core::sink::{CommitError, Committer, Prepared, Sink, SinkContext, SinkWriter};
use staunch_core::{CheckpointId, Committable, Error, Generation, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A sink that keeps its output in memory. Clone it, give one to the job, and ask the other.
///
/// ```
/// let counts = staunch_connectors::memory::collect::<(String, u64)>();
/// // stream.sink("counts", counts.clone());
/// assert!(counts.committed().is_empty());
/// ```
pub fn collect<T: Clone + Send + 'static>() -> Collected<T> {
    Collected { target: Arc::default() }
}

/// Output in memory, shared by all clones; it outlives the jobs that write into it, as a database
/// outlives its clients.
#[derive(Debug)]
pub struct Collected<T> {
    target: Arc<Mutex<Target<T>>>,
}

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Self { target: Arc::clone(&self.target) }
    }
}

/// What makes a part unique. The generation belongs to it: a checkpoint that was not decided may get
/// the same id again after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
struct PartId {
    checkpoint: CheckpointId,
    instance: u32,
    generation: Generation,
}

#[derive(Debug)]
struct Target<T> {
    /// The job's life that writes here, once there is one.
    lineage: Option<String>,
    /// The fence: nothing of a lower generation is taken.
    generation: Generation,
    prepared: BTreeMap<PartId, Vec<T>>,
    committed: BTreeMap<PartId, Vec<T>>,
}

impl<T> Default for Target<T> {
    fn default() -> Self {
        Self {
            lineage: None,
            generation: Generation(0),
            prepared: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }
}

impl<T> Target<T> {
    fn check_lineage(&self, context: &SinkContext) -> Result<()> {
        if self.lineage.as_ref().is_none_or(|lineage| *lineage == context.lineage) {
            return Ok(());
        }
        Err(Error::job(format!(
            "sink `{}`: the collection holds output of another run of the job; use a new one",
            context.sink
        )))
    }

    fn check_fence(&self, context: &SinkContext) -> Result<()> {
        if self.generation == context.generation && self.lineage.as_ref() == Some(&context.lineage) {
            return Ok(());
        }
        Err(Error::job(format!(
            "sink `{}`: generation {} was fenced: generation {} of run {} has taken the output over",
            context.sink,
            context.generation,
            self.generation,
            self.lineage.as_deref().unwrap_or("(none)")
        )))
    }
}

impl<T> Collected<T> {
    fn lock(&self) -> MutexGuard<'_, Target<T>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parts that are prepared and neither committed nor removed.
    pub fn prepared_parts(&self) -> usize {
        self.lock().prepared.len()
    }

    /// Loses all prepared parts, as a target that lost its disk: for tests of what happens then.
    pub fn clear_prepared(&self) {
        self.lock().prepared.clear();
    }
}

impl<T: Clone> Collected<T> {
    /// What a reader of the target sees: by checkpoint, then by instance, then as written.
    pub fn committed(&self) -> Vec<T> {
        self.lock().committed.values().flatten().cloned().collect()
    }
}

impl<T: Clone + Send + 'static> Sink for Collected<T> {
    type Record = T;
    type Writer = CollectedWriter<T>;
    type Committer = CollectedCommitter<T>;

    async fn writer(&self, context: &SinkContext) -> Result<CollectedWriter<T>> {
        Ok(CollectedWriter { sink: self.clone(), context: context.clone(), open: Vec::new() })
    }

    async fn committer(&self, context: &SinkContext) -> Result<CollectedCommitter<T>> {
        Ok(CollectedCommitter { sink: self.clone(), context: context.clone() })
    }
}

/// Writes the output of one instance.
#[derive(Debug)]
pub struct CollectedWriter<T> {
    sink: Collected<T>,
    context: SinkContext,
    /// The current epoch: nobody sees it, and it dies with the writer.
    open: Vec<T>,
}

impl<T: Clone + Send + 'static> SinkWriter for CollectedWriter<T> {
    type Record = T;

    async fn write(&mut self, records: Vec<T>) -> Result<()> {
        self.open.extend(records);
        Ok(())
    }

    fn cut(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        let records = std::mem::take(&mut self.open);
        let (sink, context) = (self.sink.clone(), self.context.clone());
        Ok(async move {
            if records.is_empty() {
                return Ok(Vec::new());
            }
            let SinkContext { instance, generation, .. } = context;
            let id = PartId { checkpoint, instance, generation };
            let mut target = sink.lock();
            target.check_fence(&context)?;
            let count = records.len() as u64;
            if target.prepared.insert(id, records).is_some() {
                return Err(Error::internal(format!("{id:?} was prepared twice")));
            }
            let payload = serde_json::to_value(id)
                .map_err(|e| Error::internal("a part's identity has no JSON form").caused_by(e))?;
            Ok(vec![Prepared { records: count, payload }])
        })
    }
}

/// Publishes prepared parts.
#[derive(Debug)]
pub struct CollectedCommitter<T> {
    sink: Collected<T>,
    context: SinkContext,
}

impl<T> CollectedCommitter<T> {
    fn id(&self, committable: &Committable) -> Result<PartId> {
        serde_json::from_value(committable.payload.clone()).map_err(|e| {
            let sink = &self.context.sink;
            Error::job(format!("sink `{sink}`: the checkpoint lists output of another kind of sink"))
                .caused_by(e)
        })
    }
}

impl<T: Clone + Send + 'static> Committer for CollectedCommitter<T> {
    async fn check(&mut self) -> Result<()> {
        self.sink.lock().check_lineage(&self.context)
    }

    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        let listed: BTreeSet<PartId> = listed.iter().map(|c| self.id(c)).collect::<Result<_>>()?;
        let mut target = self.sink.lock();
        target.check_lineage(&self.context)?;
        target.lineage = Some(self.context.lineage.clone());
        // A lower generation fails here; ours or a higher one is the fence from now on.
        target.generation = target.generation.max(self.context.generation);
        target.check_fence(&self.context)?;
        let orphans: Vec<PartId> =
            target.prepared.keys().filter(|id| !listed.contains(id)).copied().collect();
        Ok(orphans
            .iter()
            .filter_map(|id| target.prepared.remove(id).map(|records| (id, records)))
            .map(|(id, records)| {
                let PartId { checkpoint, instance, generation } = id;
                format!(
                    "sink `{}`: removed {} records of checkpoint {checkpoint}, instance {instance}, generation \
                     {generation}: never decided",
                    self.context.sink,
                    records.len()
                )
            })
            .collect())
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        for committable in committables {
            let id = self.id(committable).map_err(CommitError::Refused)?;
            let mut target = self.sink.lock();
            target.check_fence(&self.context).map_err(CommitError::Refused)?;
            if target.committed.contains_key(&id) {
                continue;
            }
            let Some(records) = target.prepared.remove(&id) else {
                return Err(CommitError::Refused(Error::external(format!(
                    "sink `{}`: {} records of checkpoint {}, instance {}, are lost: not prepared and not committed",
                    self.context.sink, committable.records, committable.checkpoint, committable.instance
                ))));
            };
            target.committed.insert(id, records);
        }
        Ok(())
    }
}
