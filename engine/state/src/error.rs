//! The one error of this crate: what failed, where, and whether trying again can help.

use crate::storage::StorageError;
use std::path::{Path, PathBuf};

/// Who has to act on an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The job itself is wrong (types, hashing, a damaged or foreign checkpoint): a restart meets it
    /// again, so the job stops.
    Job,
    /// A disk, a store or another process: a restart may succeed.
    External,
    /// A broken promise inside the engine: a bug.
    Internal,
}

/// What is wrong with the way in which a type is written and read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// Postcard refused, or the type did.
    #[error("{0}")]
    Postcard(#[from] postcard::Error),
    /// A field was left out, and is expected when it is read.
    #[error(
        "`{name}` leaves out its field `{field}` (#[serde(skip_serializing_if)]), and would be read wrongly: fields are known by their place. Remove the attribute; an empty field takes one byte"
    )]
    SkippedField {
        /// The struct or variant.
        name: &'static str,
        /// Its field.
        field: &'static str,
    },
    /// A list or map does not say how long it is.
    #[error(
        "a list or map does not say its length, as after #[serde(flatten)]. Keep the flattened struct as an ordinary field, and collect what has no length into a Vec or a map"
    )]
    UnknownLength,
    /// A list or map is not as long as it said.
    #[error("a list or map has another number of elements than its Serialize says")]
    WrongLength,
    /// What was written is not what the type reads.
    #[error(
        "what it writes it cannot read ({0}): its Serialize and Deserialize do not agree, as with #[serde(skip_serializing)], #[serde(skip_deserializing)], #[serde(skip)] on a variant, or different functions in #[serde(with)]. Write and read the same fields in the same order"
    )]
    Unreadable(postcard::Error),
    /// It comes back as something else.
    #[error(
        "what it writes it reads as something else: its Serialize and Deserialize do not agree, as with #[serde(skip_serializing)], #[serde(skip_deserializing)], #[serde(skip)] on a variant, or different functions in #[serde(with)]. Write and read the same fields in the same order"
    )]
    Differs,
    /// It reads only from formats that say themselves what they contain.
    #[error(
        "{what} can be read only from a format that describes itself, like JSON. Use an enum with ordinary variants and a struct with ordinary fields, or keep it as text: serde_json::to_string(..)"
    )]
    NeedsSelfDescribing {
        /// The attribute or type that is probably the reason.
        what: String,
    },
    /// Memory of a struct belongs to no field that is stored.
    #[error(
        "`{name}` has a field that is not stored (#[serde(skip)]) and would come back empty. Store it; or, if it can be made anew from the other fields, say so with #[serde(from = \"..\", into = \"..\")]"
    )]
    HiddenField {
        /// The struct.
        name: &'static str,
    },
}

/// Anything that goes wrong with keyed state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The checkpoint storage refused.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// A stored file is not what was written.
    #[error(
        "{file}: damaged at byte {offset}: {problem}. Nothing of it was used; restore from an older checkpoint with --from ID"
    )]
    Damaged {
        /// Name in the checkpoint storage.
        file: String,
        /// First byte of the part that does not check.
        offset: u64,
        /// What does not check.
        problem: String,
    },
    /// A checkpoint lists a file that is not there.
    #[error(
        "{file}: not found in the checkpoint storage {place}, though the checkpoint lists it. Restore it from a backup, or begin at an older checkpoint with --from ID"
    )]
    Missing {
        /// Name in the checkpoint storage.
        file: String,
        /// The storage.
        place: String,
    },
    /// A stored file has a format that this build does not know.
    #[error(
        "{file}: written in snapshot format {found}, this build reads up to {known} (byte {offset}). Run the newer build, or restore from an older checkpoint with --from ID"
    )]
    NewerFormat {
        /// Name in the checkpoint storage.
        file: String,
        /// Where the version stands.
        offset: u64,
        /// Version in the file.
        found: u32,
        /// Newest version that is understood.
        known: u32,
    },
    /// A stored file has a format that this build does not read any more.
    #[error(
        "{file}: written in snapshot format {found}, this build reads format {known} alone. Run the build that wrote it to its end, or start anew with --from none and another output"
    )]
    OlderFormat {
        /// Name in the checkpoint storage.
        file: String,
        /// Version in the file.
        found: u32,
        /// The version that is understood.
        known: u32,
    },
    /// The file of a checkpoint, which all states of a worker share, was not written.
    #[error("the file that holds this state too was not written: {problem}")]
    Unwritten {
        /// Why.
        problem: String,
    },
    /// A stored file is intact and belongs to something else.
    #[error("{file}: {problem}. Restore from a checkpoint of this job, with --from ID")]
    Foreign {
        /// Name in the checkpoint storage.
        file: String,
        /// What does not fit.
        problem: String,
    },
    /// A key or value could not be written or read by its serde implementation.
    #[error("step {step}: cannot {action}: {source}")]
    Codec {
        /// The step.
        step: String,
        /// What was being done.
        action: &'static str,
        /// Why.
        source: Problem,
    },
    /// A type whose values cannot be stored: they would not come back as they were.
    #[error("step {step}: its {role}, of type {rust}, cannot be stored: {problem}")]
    Unfit {
        /// The step.
        step: String,
        /// What the type is in it.
        role: &'static str,
        /// The type in Rust.
        rust: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// What ordered state is sorted by has no order-preserving form, or bytes are not of one.
    #[error("step {step}: what its ordered state is sorted by cannot be kept in order: {problem}")]
    Order {
        /// The step.
        step: String,
        /// What is in the way.
        problem: String,
    },
    /// A restored key does not belong to the key group that holds it.
    #[error(
        "step {step}: key hashing changed: a key stored in key group {stored} now hashes to group {now}. Keep the key type's Hash implementation, or start with an empty state"
    )]
    KeyHashing {
        /// The step.
        step: String,
        /// Group that holds the key.
        stored: u16,
        /// Group that its hash says.
        now: u16,
    },
    /// The RocksDB tier failed.
    #[error("step {step}: {action} in the spill database {place}: {problem}")]
    Spill {
        /// The step.
        step: String,
        /// What was being done.
        action: &'static str,
        /// The database's folder.
        place: PathBuf,
        /// What RocksDB says.
        problem: String,
    },
    /// State needs the RocksDB tier, and this build has none.
    #[error(
        "step {step}: its state does not fit into its memory budget, or was written by a build with RocksDB, and this build has no RocksDB tier: build with the feature `rocksdb` (on by default), or give it more memory with --state-memory"
    )]
    NoSpill {
        /// The step.
        step: String,
    },
    /// A local file operation outside the checkpoint storage failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process holds the job's lock.
    #[error("job is already running on these checkpoints (pid {pid} on {host}, lock {path})")]
    AlreadyRunning {
        /// Process that holds the lock; `?` when it left no note.
        pid: String,
        /// Its host; `?` when it left no note.
        host: String,
        /// The lock file.
        path: PathBuf,
    },
    /// No thread could be started.
    #[error("step {step}: cannot start a thread for its state files: {source}")]
    NoThread {
        /// The step.
        step: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A rule between the callers of this crate was broken.
    #[error("step {step}: internal error: {problem}")]
    Internal {
        /// The step.
        step: String,
        /// Which rule.
        problem: String,
    },
}

impl StateError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(_)
            | Self::Unwritten { .. }
            | Self::Spill { .. }
            | Self::Io { .. }
            | Self::NoThread { .. }
            | Self::AlreadyRunning { .. } => ErrorKind::External,
            Self::NoSpill { .. }
            | Self::Damaged { .. }
            | Self::Missing { .. }
            | Self::NewerFormat { .. }
            | Self::OlderFormat { .. }
            | Self::Foreign { .. }
            | Self::Codec { .. }
            | Self::Order { .. }
            | Self::Unfit { .. }
            | Self::KeyHashing { .. } => ErrorKind::Job,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(file: &str, offset: u64, problem: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), offset, problem: problem.into() }
    }

    pub(crate) fn internal(step: &str, problem: impl Into<String>) -> Self {
        Self::Internal { step: step.to_owned(), problem: problem.into() }
    }

    pub(crate) fn order(step: &str, error: &crate::order::OrderError) -> Self {
        Self::Order { step: step.to_owned(), problem: error.to_string() }
    }

    pub(crate) fn codec<E: Into<Problem>>(step: &str, action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Codec { step: step.to_owned(), action, source: source.into() }
    }
}
