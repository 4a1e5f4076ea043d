//! The contract of a sink: a writer that prepares, apart from a committer that publishes.
//!
//! The protocol, seen from a sink, for each checkpoint N:
//!
//! 1. the **writer** of every instance gets the records of N, then [`SinkWriter::cut`]: everything
//!    written since the last cut becomes durable and stays invisible, while records of the next epoch
//!    may be written already; what is needed to publish it comes back as a small value ([`Prepared`])
//!    that goes into the checkpoint;
//! 2. the checkpoint is *decided* (one durable record), or it is not;
//! 3. only after the decision the **committer** publishes what the checkpoint lists. It may be asked
//!    for the same thing again after any crash, so it is idempotent.
//!
//! After a restart the committer alone is opened first: it fences older generations, publishes what the
//! restored checkpoint lists, and removes whatever else of ours it finds prepared.
//!
//! Dropping a writer or a committer never publishes or removes anything.

use crate::context::{Figure, SharedValues};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::place::Place;
use staunch_checkpoint::{CheckpointId, Committable, Generation};
use staunch_state::InMemoryStorage;
use staunch_state::storage::Storage;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Describes an output. A value of it connects to nothing until the job runs.
pub trait Sink: Send + Sync + 'static {
    /// What it takes.
    type Record: Send + 'static;
    /// Writes on one worker.
    type Writer: SinkWriter<Record = Self::Record>;
    /// Publishes for all workers.
    type Committer: Committer;

    /// Opens the writer of one instance. It has a thread of its own, and so has the committer.
    ///
    /// # Errors
    /// The target cannot be reached or written, or is not ours to write.
    fn writer(&self, context: &SinkContext) -> impl Future<Output = Result<Self::Writer>> + Send;

    /// Opens the committer: one for the whole sink, opened before any writer.
    ///
    /// # Errors
    /// The target cannot be reached, or holds output of another life of the job (see
    /// [`SinkContext::lineage`]).
    fn committer(&self, context: &SinkContext) -> impl Future<Output = Result<Self::Committer>> + Send;

    /// Where it writes, so that a job whose steps get in each other's way is refused before anything is claimed.
    fn places(&self) -> Vec<Place> {
        Vec::new()
    }

    /// What this sink promises, for plans and documents.
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    /// How many committers publish at once. The instances are dealt out to them, so that what one instance wrote is
    /// published in order, and what two wrote in any order: no more than one for a target that orders its writers anyway,
    /// or keeps a note of a checkpoint as a whole. Only the first committer is asked to recover; the others are opened
    /// after that, and must find the target taken over.
    fn commit_lanes(&self) -> usize {
        1
    }
}

/// What a sink promises, or a whole job.
pub use staunch_checkpoint::Guarantee;

/// Writes on one worker. Calls come one at a time and in order.
pub trait SinkWriter: Send + 'static {
    /// What it takes.
    type Record;

    /// Takes records of the current epoch. It need not be durable when this returns. While it is
    /// pending the step in which the records came stays open, and sources slow down.
    ///
    /// # Errors
    /// The job ends and is restarted from the last checkpoint; this writer is thrown away.
    fn write(&mut self, records: Vec<Self::Record>) -> impl Future<Output = Result<()>> + Send;

    /// Ends an epoch: what was written since the last cut belongs to this checkpoint, what is written from now on to a
    /// later one. The call itself only takes the epoch out of the writer, and returns at once. The future makes it
    /// durable and invisible, and says how to publish it; an empty list if nothing was written. Every asynchronous send
    /// of the epoch is checked before it is done.
    ///
    /// The future is polled beside later calls of [`SinkWriter::write`], on the thread of the writer. The next cut may
    /// come before it is done, but no more than [`OPEN_CUTS`] are open at a time; answers go to the checkpoint in the
    /// order of the cuts. Dropping it publishes and removes nothing.
    ///
    /// # Errors
    /// As [`SinkWriter::write`]; that of the future too.
    fn cut(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static>;
}

/// Cuts of a writer that may be open at a time. With so many the writer gets nothing more until the oldest is done, and
/// sources slow down.
pub const OPEN_CUTS: usize = 2;

/// One prepared piece of output.
#[derive(Clone, PartialEq, Debug)]
pub struct Prepared {
    /// Records in it.
    pub records: u64,
    /// What the committer needs to publish or remove it: an identity, never the data.
    pub payload: serde_json::Value,
}

/// Publishes prepared output.
pub trait Committer: Send + 'static {
    /// Whether [`Committer::recover`] would be refused, because the target holds output of another run.
    /// Changes nothing that matters: it is called for all sinks before the job is taken over, so that a
    /// start that has to be refused leaves no trace. Until then another process may still publish; a
    /// refusal is therefore asked for again, with a newer context, if there was a checkpoint meanwhile.
    ///
    /// # Errors
    /// The target is not ours, or cannot be reached.
    fn check(&mut self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Called once, before any commit: fences older generations at the target, and removes prepared
    /// output of ours that `listed` does not contain (the restored checkpoint's committables; they will
    /// be committed next, and must stay). Returns a line for the log for each thing removed.
    ///
    /// # Errors
    /// The target refuses.
    fn recover(&mut self, listed: &[Committable]) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Publishes the committables, in order. A call has everything of one or more checkpoints (of the instances that
    /// this committer publishes for, see [`Sink::commit_lanes`]), so that a target may take note of a checkpoint as a
    /// whole. Committing one that is already published is a success.
    ///
    /// # Errors
    /// [`CommitError::Retry`] if it may have happened or may yet work: the engine asks again, with a
    /// limit. [`CommitError::Refused`] if it did not happen and never will: the job stops.
    fn commit(
        &mut self,
        committables: &[Committable],
    ) -> impl Future<Output = Result<(), CommitError>> + Send;
}

/// Why a commit did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It may have happened, or may work if asked again.
    #[error("{0}")]
    Retry(Error),
    /// It did not happen and never will (fenced, expired, unknown to the target): output is lost
    /// unless somebody steps in.
    #[error("{0}")]
    Refused(Error),
}

/// Who a sink is, in its job.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// Name of the job.
    pub job: String,
    /// Name of the sink.
    pub sink: String,
    /// Identity of the job's life: made when it first started from nothing, the same over restarts. A
    /// target that keeps a mark of what was committed keeps this beside it, and refuses another.
    pub lineage: String,
    /// Start count of the job: the fence.
    pub generation: Generation,
    /// This instance (worker); 0 for the committer.
    pub instance: u32,
    /// Number of instances.
    pub instances: u32,
    /// First id that this start may give to a checkpoint. It is above every id that the log knows of, so a
    /// target that holds output of this lineage with such an id has seen a checkpoint that the log has
    /// lost: it refuses, or that output would be published again.
    pub next_checkpoint: CheckpointId,
    /// True if the job starts from nothing, so that no output of this lineage can exist yet.
    pub fresh: bool,
    /// The start that decided the checkpoint from which the job goes on, if that checkpoint has this sink: it had taken
    /// the target over. A target that was never taken over by it or a later start is another one, or an older copy.
    pub taken_over_by: Option<Generation>,
    /// The checkpoint storage, for sinks that stage their output there. Blocking calls.
    pub storage: Arc<dyn Storage>,
    /// How long opening, checking or recovering may take. The run ends with an error if it takes longer.
    pub deadline: Duration,
    /// What the connectors of the process share: each worker has a sink value of its own, and so has the committer.
    pub shared: SharedValues,
    pub(crate) metrics: Metrics,
}

impl SinkContext {
    /// A context outside of any job, with one instance and a storage in memory: for tests of connectors.
    #[must_use]
    pub fn alone(sink: &str) -> Self {
        Self {
            job: "alone".into(),
            sink: sink.to_owned(),
            lineage: "alone".into(),
            generation: Generation(1),
            instance: 0,
            instances: 1,
            next_checkpoint: CheckpointId(u32::MAX),
            fresh: true,
            taken_over_by: None,
            storage: Arc::new(InMemoryStorage::default()),
            deadline: Duration::from_secs(60),
            shared: SharedValues::default(),
            metrics: Metrics::new("alone"),
        }
    }

    /// A figure of the connector's own (requests in flight, a size), by name.
    #[must_use]
    pub fn figure(&self, name: &str) -> Figure {
        Figure(self.metrics.connector(&self.sink, self.instance, name))
    }
}
