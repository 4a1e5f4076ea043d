//! What can happen in the model.

use staunch_checkpoint::{CheckpointId, Kind, Manifest, Part, Report, Slot};

/// Something that can happen. Numbers choose among what is there.
#[derive(Clone, Debug)]
pub enum Step {
    Start,
    Crash,
    Trigger(Kind),
    Read(u64),
    /// The next message of a part arrives.
    Deliver(usize),
    /// It never does.
    Lose(usize),
    /// The part fails instead.
    Fail(usize),
    /// A message of earlier arrives again.
    Repeat(usize),
    Timeout,
    /// The fence or the manifest is put into its slot.
    Create(Outcome),
    /// The log is listed after a creation.
    Confirm,
    /// One more committable of an outstanding commit.
    Commit(usize),
    /// An answer of the log or of a committer arrives.
    Answer(usize),
    Expire,
    /// A creation arrives whose process has given up waiting.
    Ghost(usize),
}

/// What the creation of a slot looks like to the process.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    Known,
    UnknownDone,
    UnknownLater,
    Failed,
}

/// On its way.
#[derive(Clone)]
pub struct Message {
    pub part: Part,
    pub checkpoint: CheckpointId,
    pub report: Report,
}

/// A manifest that is being published.
#[derive(Clone)]
pub struct Publish {
    pub checkpoint: CheckpointId,
    pub slot: Slot,
    pub manifest: Box<Manifest>,
    /// The outcome of the last try is unknown: look before creating again.
    pub look: bool,
}
