//! What a process and the coordinator of its job say to each other, and nothing else goes between them.
//!
//! Workers and steps see what their own process has ([`Shared`](super::shared::Shared)); the coordinator may be in another
//! process. So each end of a link has one verb: a process [tells](Link::tell), the coordinator [sends](Peer::send).
//! Whoever receives calls `Shared::take` on one side and `Processes::hear` on the other: in the coordinator's own process
//! that is the sender itself, so that a message costs a call and nothing is encoded; between processes it is
//! a thread that reads. Messages keep their order. Records do not pass here.
//!
//! Every message can be encoded. What is JSON in checkpoints is JSON text in a message too.

use super::agreed::Agreed;
use super::tick::Tick;
use crate::error::{Error, Kind};
use serde::{Deserialize, Serialize};
use staunch_checkpoint::{CheckpointId, Part, Report, SplitPart};

/// A process's end of its link.
pub(crate) trait Link: Send + Sync {
    /// Tells the coordinator; false if the link is closed.
    fn tell(&self, message: FromProcess) -> bool;
}

/// The coordinator's end of the link to a process.
pub(crate) trait Peer: Send + Sync {
    /// Sends to the process; false if the link is closed.
    fn send(&self, message: ToProcess) -> bool;
}

/// From a process to the coordinator.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) enum FromProcess {
    /// All its workers have their graph and their state.
    Up,
    /// Something was emitted since the last tick, so that the clock must go on. Once between two ticks.
    Active,
    /// A part has everything durable that it holds of a checkpoint.
    Ack {
        /// Who.
        part: Part,
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// What.
        #[serde(with = "text")]
        report: Report,
    },
    /// A part could not complete a checkpoint.
    Missed {
        /// Who.
        part: Part,
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// A split was read to its end.
    Finished {
        /// The source.
        source: String,
        /// The split.
        split: String,
    },
    /// All input of a source instance has been read and emitted.
    Ended,
    /// State of a step exceeds its memory, and has changed too much since the last checkpoint to move to disk.
    MemoryFull(String),
    /// A worker or a task failed: the generation is to end.
    Failed(Failure),
}

/// From the coordinator to a process.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) enum ToProcess {
    /// The first message to a process that is not the coordinator's own.
    Join {
        /// Its number.
        process: u32,
        /// What it is to take part in.
        agreed: Box<Agreed>,
    },
    /// Splits for its source instances.
    Splits {
        /// The source.
        source: String,
        /// The splits.
        splits: Vec<Dealt>,
    },
    /// The workers of all processes have their graph and their state: sources may read.
    Begin,
    /// The clock has moved; a new epoch is the barrier.
    Tick(Tick),
    /// A checkpoint is decided.
    Decided(CheckpointId),
    /// Sources read nothing more: the last checkpoint is being taken.
    Quiet,
    /// Sources behave as if their input had ended.
    Drain,
    /// So much prepared output waits for its commits that no checkpoint is taken; or not any more.
    Backlog(bool),
    /// All workers leave: the job is over, for this reason if it did not end well.
    Stop(Option<Failure>),
}

/// A split on its way to an instance.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Dealt {
    /// The instance, counted over all processes.
    pub(crate) instance: u32,
    #[serde(with = "text")]
    pub(crate) part: SplitPart,
    /// The restored checkpoint says just this of it.
    pub(crate) is_known: bool,
}

/// An error that can travel: all of it that anybody can see.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Failure {
    whose: Whose,
    step: Option<String>,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
enum Whose {
    Job,
    External,
    Internal,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let whose = match error.kind() {
            Kind::Job => Whose::Job,
            Kind::External => Whose::External,
            Kind::Internal => Whose::Internal,
        };
        Self { whose, step: error.step().map(str::to_owned), text: error.text() }
    }
}

impl From<Failure> for Error {
    fn from(Failure { whose, step, text }: Failure) -> Self {
        let error = match whose {
            Whose::Job => Self::job(text),
            Whose::External => Self::external(text),
            Whose::Internal => Self::internal(text),
        };
        match step {
            Some(step) => error.in_step(step),
            None => error,
        }
    }
}

/// What is JSON elsewhere goes as its text: formats without names of types cannot read JSON values back.
pub(super) mod text {
    use serde::de::{DeserializeOwned, Error as _};
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::runtime) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(value).map_err(S::Error::custom)?;
        text.serialize(serializer)
    }

    pub(in crate::runtime) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Guarantee;
    use serde_json::json;
    use staunch_checkpoint::{Committable, FileKind, FileRef, Generation, Manifest, Shard, SourcePart};
    use std::collections::BTreeMap;

    fn split() -> SplitPart {
        SplitPart {
            id: "orders/3".into(),
            split: json!({"file": "orders", "part": [3, null]}),
            position: Some(json!(1.5)),
            finished: false,
            max_event_time_ms: Some(-7),
        }
    }

    /// One of each message of a process.
    fn from_process() -> Vec<FromProcess> {
        let checkpoint = CheckpointId(9);
        let ack = |part, report| FromProcess::Ack { part, checkpoint, report };
        let committable = Committable {
            checkpoint,
            instance: 1,
            generation: Generation(4),
            records: 17,
            payload: json!({"rows": "staged/x"}),
        };
        let file = FileRef { name: "state/a".into(), kind: FileKind::Base, offset: 64, bytes: 3, crc32c: 9 };
        let shard = Shard { worker: 1, watermark_ms: Some(5), files: vec![file] };
        vec![
            FromProcess::Up,
            FromProcess::Active,
            ack(Part::source("in", 0), Report::Source(vec![split()])),
            ack(Part::state("count", 1), Report::State(shard)),
            ack(Part::sink("out", 1), Report::Sink(vec![committable])),
            FromProcess::Missed { part: Part::sink("out", 2), checkpoint, reason: "full".into() },
            FromProcess::Finished { source: "in".into(), split: "orders/3".into() },
            FromProcess::Ended,
            FromProcess::MemoryFull("count".into()),
            FromProcess::Failed(Failure::from(&Error::job("no").in_step("count"))),
        ]
    }

    fn manifest() -> Manifest {
        Manifest {
            job: "orders".into(),
            lineage: "one".into(),
            generation: Generation(3),
            checkpoint: CheckpointId(9),
            kind: staunch_checkpoint::Kind::Savepoint { name: "before".into() },
            groups: 128,
            workers: 4,
            format: 1,
            taken_at_ms: 17,
            guarantee: Guarantee::AtLeastOnce,
            expires: Vec::new(),
            sources: BTreeMap::from([(
                "in".to_owned(),
                SourcePart { splits: vec![split()], ..SourcePart::default() },
            )]),
            states: BTreeMap::new(),
            sinks: BTreeMap::new(),
        }
    }

    /// One of each message to a process.
    fn to_process() -> Vec<ToProcess> {
        let dealt = Dealt { instance: 3, part: split(), is_known: true };
        let agreed = Agreed {
            job: "orders".into(),
            lineage: "one".into(),
            generation: Generation(4),
            first_epoch: CheckpointId(10),
            restored: Some(manifest()),
            highest_ms: BTreeMap::from([("in".to_owned(), -7)]),
            groups: 128,
            guarantee: Guarantee::AtLeastOnce,
            processes: 2,
            workers: 4,
            plan: 99,
        };
        vec![
            ToProcess::Join { process: 1, agreed: Box::new(agreed) },
            ToProcess::Splits { source: "in".into(), splits: vec![dealt] },
            ToProcess::Begin,
            ToProcess::Tick(u64::MAX),
            ToProcess::Decided(CheckpointId(u32::MAX)),
            ToProcess::Quiet,
            ToProcess::Drain,
            ToProcess::Backlog(true),
            ToProcess::Stop(None),
            ToProcess::Stop(Some(Failure::from(&Error::external("the disk is gone")))),
        ]
    }

    #[test]
    fn every_message_of_a_link_is_the_same_after_its_way() {
        for message in from_process() {
            let bytes = postcard::to_allocvec(&message).unwrap();
            let back: FromProcess = postcard::from_bytes(&bytes).unwrap();
            assert_eq!(format!("{back:?}"), format!("{message:?}"));
        }
        for message in to_process() {
            let bytes = postcard::to_allocvec(&message).unwrap();
            assert_eq!(postcard::from_bytes::<ToProcess>(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn an_error_says_the_same_after_its_way() {
        let cause = std::io::Error::other("torn");
        let errors = [
            Error::job("no such column").in_step("in"),
            Error::external("cannot write").caused_by(cause).in_step("out"),
            Error::internal("a promise is broken"),
        ];
        for error in errors {
            let back = Error::from(Failure::from(&error));
            assert_eq!((back.kind(), back.step()), (error.kind(), error.step()));
            assert_eq!(back.to_string(), error.to_string());
        }
    }
}
