//! What goes into the coordinator and what comes out.

use crate::book::SegmentFile;
use crate::ids::{CheckpointId, Slot};
use crate::manifest::{Committable, Kind, Manifest, Shard, SplitPart, StatePart};
use crate::retention::Expiry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Who takes part in every checkpoint: each instance of each step named here must acknowledge each one.
/// Steps of one kind have different names.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Parts {
    /// Sources: name, number of instances.
    pub sources: Vec<(String, u32)>,
    /// Those of them that acknowledge to the outside.
    pub acknowledging: BTreeSet<String>,
    /// Stateful steps: name, what they say of their state (without shards), number of instances.
    pub states: Vec<(String, StatePart, u32)>,
    /// Sinks: name, number of instances.
    pub sinks: Vec<(String, u32)>,
}

impl Parts {
    pub(super) fn all(&self) -> BTreeSet<Part> {
        let sources = self.sources.iter().flat_map(|(name, n)| (0..*n).map(|i| Part::source(name, i)));
        let states = self.states.iter().flat_map(|(name, _, n)| (0..*n).map(|i| Part::state(name, i)));
        let sinks = self.sinks.iter().flat_map(|(name, n)| (0..*n).map(|i| Part::sink(name, i)));
        sources.chain(states).chain(sinks).collect()
    }
}

/// One instance of a step that takes part. Instances of a step are numbered from 0; that of a stateful
/// step is its worker.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Part {
    /// Of a source.
    Source {
        /// The source.
        name: String,
        /// The instance.
        instance: u32,
    },
    /// Of a stateful step.
    State {
        /// The step.
        name: String,
        /// The instance, which is the worker.
        instance: u32,
    },
    /// Of a sink.
    Sink {
        /// The sink.
        name: String,
        /// The instance.
        instance: u32,
    },
}

impl Part {
    /// An instance of a source.
    #[must_use]
    pub fn source(name: &str, instance: u32) -> Self {
        Part::Source { name: name.to_owned(), instance }
    }

    /// An instance of a stateful step.
    #[must_use]
    pub fn state(name: &str, instance: u32) -> Self {
        Part::State { name: name.to_owned(), instance }
    }

    /// An instance of a sink.
    #[must_use]
    pub fn sink(name: &str, instance: u32) -> Self {
        Part::Sink { name: name.to_owned(), instance }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name, instance) = match self {
            Part::Source { name, instance } => ("source", name, instance),
            Part::State { name, instance } => ("state", name, instance),
            Part::Sink { name, instance } => ("sink", name, instance),
        };
        write!(f, "{what} `{name}` instance {instance}")
    }
}

/// What a part says when everything that it holds of a checkpoint is durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Report {
    /// Where the splits stand that have changed since the newest checkpoint that the instance knows to be
    /// decided. All others stand where the last report said.
    Source(Vec<SplitPart>),
    /// The instance's state. A file that a shard leaves out never comes back in a later one of the
    /// same step and worker.
    State(Shard),
    /// What this instance prepared; empty if nothing was written, which is a vote all the same.
    Sink(Vec<Committable>),
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A checkpoint is wanted. While one is undecided, a periodic one is dropped and the others wait.
    Trigger(Kind),
    /// A part acknowledges. May come twice, late, or for an aborted checkpoint.
    ///
    /// A sink instance answers *every* barrier that was sent, in their order, with an acknowledgement or
    /// a failure, also when the checkpoint was aborted meanwhile: what it prepared then is carried into
    /// the next manifest.
    Ack {
        /// Who.
        part: Part,
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// What.
        report: Report,
    },
    /// A part could not complete the checkpoint.
    Failed {
        /// Who.
        part: Part,
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// The runtime's clock says that the acknowledgements of this checkpoint take too long. Of no effect
    /// once the checkpoint is being published: the storage has its own time limit.
    Timeout {
        /// Which checkpoint.
        checkpoint: CheckpointId,
    },
    /// Answer to [`Action::Publish`] and [`Action::Reread`].
    Published {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Into which slot.
        slot: Slot,
        /// What came of it.
        outcome: Published,
    },
    /// Answer to [`Action::Commit`]: done, for everything in it with an id up to `upto`.
    Committed {
        /// The sink.
        sink: String,
        /// Highest id that is done.
        upto: CheckpointId,
    },
    /// These splits of a source have ended, as decided checkpoints say, and cannot come up again.
    Forget {
        /// The source.
        source: String,
        /// The splits.
        splits: Vec<String>,
    },
    /// Answer to [`Action::Acknowledge`]: done.
    Acknowledged {
        /// The source.
        source: String,
    },
    /// Answer to [`Action::Acknowledge`]: did not happen and never will.
    AcknowledgeFailed {
        /// The source.
        source: String,
        /// Up to which checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
        /// Whose fault it is.
        blame: Blame,
    },
    /// Answer to [`Action::Commit`]: it did not happen and never will, or nobody waits for it any longer.
    CommitFailed {
        /// The sink.
        sink: String,
        /// Id of the committable.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
        /// Whose fault it is.
        blame: Blame,
    },
}

/// Whose fault a failure is: what helps. The protocol does nothing with it but to hand it on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Blame {
    /// The job's or its target's: a person has to look.
    Job,
    /// The outside's: starting again may help.
    Outside,
    /// The engine's or a connector's: a bug.
    Engine,
}

/// What came of creating a slot of the log. See [`crate::log`] for how it is found out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Published {
    /// The slot holds exactly our record, durably, and no higher slot exists.
    Created,
    /// It holds another record, or a higher slot exists: a newer generation has taken over.
    Taken,
    /// It certainly did not happen, and will not.
    Failed(String),
    /// It may have happened, or may yet.
    Unknown(String),
}

/// Something to do, in the order given.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Tell every source to end the epoch.
    Barrier {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why it is taken.
        kind: Kind,
    },
    /// Store the segments, and then put the manifest into the slot if that is free; answer with
    /// [`Event::Published`]. If a segment cannot be stored, that is [`Published::Failed`].
    Publish {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The slot.
        slot: Slot,
        /// The manifest.
        manifest: Box<Manifest>,
        /// What it names and is not stored yet. A file that is there already is replaced by the same bytes.
        segments: Vec<SegmentFile>,
    },
    /// The outcome is unknown: read the slot, [`crate::log::recognise`] what it holds, answer with
    /// [`Event::Published`]. Delete and abort nothing meanwhile. Wait a little before it, longer each
    /// time. If the slot is empty, create it again with the same manifest.
    Reread {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The slot.
        slot: Slot,
    },
    /// The checkpoint is decided.
    Decided {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why it was taken.
        kind: Kind,
    },
    /// It is decided that these splits of a source have ended.
    Ended {
        /// The source.
        source: String,
        /// The splits.
        splits: Vec<SplitPart>,
    },
    /// All output up to this checkpoint is committed: the outside may forget what is before these positions. Answer
    /// with [`Event::Acknowledged`] or [`Event::AcknowledgeFailed`]. A source has one of these at a time.
    Acknowledge {
        /// The source.
        source: String,
        /// Up to which checkpoint.
        upto: CheckpointId,
        /// Splits and their positions.
        splits: Vec<(String, serde_json::Value)>,
    },
    /// Commit these, in this order, idempotently; answer with [`Event::Committed`] or
    /// [`Event::CommitFailed`]. A sink has one of these at a time.
    Commit {
        /// The sink.
        sink: String,
        /// What to commit, in id order.
        committables: Vec<Committable>,
    },
    /// The checkpoint will never be decided. What sinks prepared for it is *not* to be aborted.
    Aborted {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// A request is not carried out: one of its sort waits already, or the job ends first.
    Dropped {
        /// The request; never a periodic one.
        kind: Kind,
        /// Why.
        reason: String,
    },
    /// Delete these, slots first. Failing to is no harm: they are found by the next generation.
    Expire(Expiry),
    /// The generation is over: this is its last action. Publish and commit nothing more.
    Stop(StopReason),
}

/// Why a generation is over.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum StopReason {
    /// The final checkpoint is decided and all output committed: the job is complete.
    #[error("the job is complete")]
    Finished,
    /// The stop checkpoint is decided and all output committed: a rerun continues.
    #[error("the job is stopped; a rerun continues from its last checkpoint")]
    Stopped,
    /// A newer generation has taken the job over.
    #[error("another process has taken the job over")]
    Fenced,
    /// A sink will not commit what was decided: output is lost unless somebody acts.
    #[error(
        "sink `{sink}` will not commit its output of checkpoint {checkpoint}, which is decided: {reason}"
    )]
    CommitRefused {
        /// The sink.
        sink: String,
        /// Id of the committable.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
        /// Whose fault it is.
        blame: Blame,
    },
    /// What a source reads from will not take an acknowledgement.
    #[error("source {source_name:?} will not take the acknowledgement of checkpoint {checkpoint}: {reason}")]
    AcknowledgeRefused {
        /// The source.
        source_name: String,
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
        /// Whose fault it is.
        blame: Blame,
    },
    /// A sink instance could not prepare, so nobody knows what of its output is durable.
    #[error("sink `{sink}` instance {instance} could not prepare checkpoint {checkpoint}: {reason}")]
    PrepareFailed {
        /// The sink.
        sink: String,
        /// The instance.
        instance: u32,
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// More checkpoints failed in a row than are tolerated, or one could not be published.
    #[error("{count} attempts at a checkpoint failed in a row, the last one because: {last}")]
    CheckpointsFailing {
        /// How many.
        count: u32,
        /// Why the last one did.
        last: String,
    },
    /// This program cannot continue from the restored checkpoint.
    #[error("cannot continue from the checkpoint: {0}")]
    Incompatible(String),
    /// Somebody broke the protocol: an error in the engine.
    #[error("internal error in the checkpoint protocol: {0}")]
    Internal(String),
}

impl StopReason {
    /// Whether starting again from the last checkpoint can help. If not, and if it is not
    /// [`StopReason::Finished`] or [`StopReason::Stopped`], a person has to look.
    #[must_use]
    pub fn restart_helps(&self) -> bool {
        matches!(
            self,
            StopReason::PrepareFailed { .. }
                | StopReason::CheckpointsFailing { .. }
                | StopReason::CommitRefused { blame: Blame::Outside, .. }
                | StopReason::AcknowledgeRefused { blame: Blame::Outside, .. }
        )
    }
}
