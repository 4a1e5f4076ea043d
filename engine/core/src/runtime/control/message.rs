//! What the coordinator's thread waits for.

use staunch_checkpoint::{CheckpointId, Event, Published, Slot};

/// To the coordinator's thread.
#[derive(Debug)]
pub(crate) enum Message {
    /// For the protocol.
    Protocol(Event),
    /// All input of a source instance has been read and emitted.
    Ended,
    /// The workers of all processes are up.
    Started,
    /// A worker or a task failed, or a link is closed; [`Processes`](super::processes::Processes) has the reason.
    Failed,
    /// State of a step exceeds its memory, and has changed too much since the last checkpoint to move to disk.
    MemoryFull(String),
    /// What came of putting a record into the log.
    Published {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The slot.
        slot: Slot,
        /// What came of it.
        outcome: Published,
    },
    /// A commit was done; what it took, for metrics.
    CommitTook(f64),
}
