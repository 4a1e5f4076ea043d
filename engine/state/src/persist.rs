//! Writing frozen state to the checkpoint storage, behind the back of the dataflow.
//!
//! One persister a worker writes what all of its states freeze, on a thread of its own. It waits until every state
//! has handed over its part of a checkpoint, and writes them as **one file**: the parts one after another, each a
//! [snapshot](crate::snapshot) that a [`FileRef`] finds by its offset. So a checkpoint costs one synced file a
//! worker, however many states there are. A shard, which is one state's, is a chain of such parts: a base, then
//! deltas.
//!
//! - **A failed write leaves no hole**: what was frozen is kept and goes out, merged, with the next.
//! - **Many small parts become few**: sixteen neighbouring deltas of one level are merged into one of
//!   the next level by concatenating their sections, after the checkpoint was reported. Large cold
//!   state is not rewritten for that.
//! - **A base** starts the chains anew when the deltas outweigh it, so that a restore stays bounded by
//!   about twice the state. That is decided once a checkpoint, for all states of the worker: otherwise the small
//!   delta of one would keep a file that is large because of another. Of the RocksDB tier it copies the table files
//!   that are not stored yet.
//!
//! - **A frozen piece that cannot be read again** (it waited in a scratch file) costs the checkpoint, and the next one
//!   is a base, which needs it no more.
//!
//! Files that a checkpoint may list are deleted by whoever retires checkpoints, not here. Those that were never
//! reported, and that no chain needs any more, are nobody else's: the writer deletes them.

pub(crate) use base::{checksum, local_name};

mod base;
mod chain;
mod merge;
mod write;

use crate::error::StateError;
use crate::storage::Storage;
use crate::table::{FreezeMode, Frozen};
use staunch_checkpoint::{CheckpointId, FileKind, FileRef, Generation, Shard};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Deltas below this never ask for a new base.
const SMALL_BYTES: u64 = 4 << 20;
/// A chain of this many snapshots asks for a new base, should merging not keep it short.
const MANY_FILES: usize = 60;

/// Whose state is persisted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardIdentity {
    /// Name of the job.
    pub job: String,
    /// Identity of the job's run of checkpoints.
    pub lineage: String,
    /// The worker.
    pub worker: u32,
    /// The running generation; part of every file name, so that a zombie overwrites nothing.
    pub generation: Generation,
}

impl ShardIdentity {
    /// The name of a file with parts of all states.
    fn file(&self, checkpoint: CheckpointId, rest: &str) -> String {
        let Self { worker, generation, .. } = self;
        format!("state/{worker}/{checkpoint}-g{generation}{rest}")
    }

    /// The name of a file of one state's RocksDB tier.
    fn spill_file(&self, state: &str, checkpoint: CheckpointId, local: &str) -> String {
        let Self { worker, generation, .. } = self;
        format!("state/{worker}/{}/{checkpoint}-g{generation}-{local}", path_part(state))
    }
}

/// A state's name as a part of a storage name: other characters than letters, digits, `_` and `-`
/// become `.XX`.
fn path_part(name: &str) -> String {
    let mut part = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => part.push(char::from(byte)),
            other => part.push_str(&format!(".{other:02X}")),
        }
    }
    part
}

/// A shard whose files are durable.
#[derive(Clone, PartialEq, Debug)]
pub struct PersistedShard {
    /// For the manifest.
    pub shard: Shard,
    /// Bytes written for this checkpoint; 0 if nothing had changed.
    pub bytes_written: u64,
    /// Entries written for this checkpoint.
    pub entries: u64,
    /// From taking it up to durable.
    pub took: Duration,
}

/// What is called when a checkpoint's part is durable, or is not.
pub type Done = Box<dyn FnOnce(Result<PersistedShard, StateError>) + Send>;

/// One of the states of a persister.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateId(usize);

/// To the writer.
enum Message {
    /// A state more, before anything is handed over.
    Open { state: String, files: Vec<FileRef> },
    /// One call of [`Persister::persist`].
    Part(Part),
}

/// What one state froze for one checkpoint.
struct Part {
    state: usize,
    checkpoint: CheckpointId,
    watermark_ms: Option<i64>,
    frozen: Frozen,
    /// The hard links of its RocksDB tier, once made.
    linked: Option<PathBuf>,
    done: Done,
}

/// What decides on the mode of the next freeze; kept current by both threads.
#[derive(Default)]
struct Plan {
    /// By state: what its chain weighs.
    states: Vec<Weight>,
    /// No base was frozen yet, or the next is to be one because something frozen is lost.
    fresh: bool,
    /// Snapshots in the longest chain.
    files: usize,
    /// Bases begun and not durable yet.
    bases_pending: usize,
    /// Checkpoints that not all states have handed over: their mode, and how many have.
    begun: BTreeMap<CheckpointId, (FreezeMode, usize)>,
}

/// What the chain of one state weighs.
#[derive(Clone, Copy, Default)]
struct Weight {
    /// Cost of the last base.
    base_bytes: u64,
    /// Deltas since.
    delta_bytes: u64,
}

impl Plan {
    /// The mode of a checkpoint, decided when it is first asked for.
    fn mode(&mut self, checkpoint: CheckpointId) -> FreezeMode {
        if let Some((mode, _)) = self.begun.get(&checkpoint) {
            return *mode;
        }
        let long = self.bases_pending == 0 && self.files >= MANY_FILES;
        let base_bytes: u64 = self.states.iter().map(|weight| weight.base_bytes).sum();
        let delta_bytes: u64 = self.states.iter().map(|weight| weight.delta_bytes).sum();
        let heavy = delta_bytes > base_bytes.max(SMALL_BYTES);
        let mode = if self.fresh || long || heavy { FreezeMode::Base } else { FreezeMode::Delta };
        self.begin(checkpoint, mode);
        mode
    }

    fn begin(&mut self, checkpoint: CheckpointId, mode: FreezeMode) {
        self.begun.insert(checkpoint, (mode, 0));
        if mode == FreezeMode::Base {
            self.fresh = false;
            self.states.fill(Weight::default());
            self.bases_pending += 1;
        }
    }

    fn handed_over(&mut self, state: StateId, checkpoint: CheckpointId, frozen: &Frozen) {
        if !self.begun.contains_key(&checkpoint) {
            self.begin(checkpoint, frozen.mode());
        }
        if let Some(weight) = self.states.get_mut(state.0) {
            match frozen.mode() {
                // Of the whole worker, or of this state alone: its deltas go with its old base.
                FreezeMode::Base => *weight = Weight { base_bytes: frozen.bytes(), delta_bytes: 0 },
                FreezeMode::Delta => weight.delta_bytes += frozen.bytes(),
            }
        }
        if let Some((_, handed)) = self.begun.get_mut(&checkpoint) {
            *handed += 1;
            if *handed == self.states.len() {
                self.begun.remove(&checkpoint);
            }
        }
    }
}

/// See the [module](self).
pub struct Persister {
    worker: u32,
    messages: Option<Sender<Message>>,
    /// None if somebody else does the work, see [`Persister::manual`].
    thread: Option<JoinHandle<()>>,
    plan: Arc<Mutex<Plan>>,
}

/// Does a persister's work when it is asked to, in place of the thread: for simulations.
pub struct ManualWriter {
    messages: Receiver<Message>,
    writer: write::Writer,
}

impl ManualWriter {
    /// Takes up what was handed over first, and writes a checkpoint if it is complete with that; false if there
    /// is nothing to take up.
    pub fn write_next(&mut self) -> bool {
        let next = self.messages.try_recv();
        next.map(|message| self.writer.take(message)).is_ok()
    }
}

impl Persister {
    /// Starts the thread of a worker's persister.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(storage: Arc<dyn Storage>, identity: ShardIdentity) -> Result<Self, StateError> {
        let (mut persister, mut manual) = Self::manual(storage, identity);
        let worker = persister.worker;
        let thread = std::thread::Builder::new()
            .name(format!("persist {worker}"))
            .spawn(move || manual.messages.into_iter().for_each(|message| manual.writer.take(message)))
            .map_err(|source| StateError::NoThread { step: format!("of worker {worker}"), source })?;
        persister.thread = Some(thread);
        Ok(persister)
    }

    /// As [`Persister::start`], but without a thread: the work is done by whoever has the writer.
    #[must_use]
    pub fn manual(storage: Arc<dyn Storage>, identity: ShardIdentity) -> (Self, ManualWriter) {
        let plan: Arc<Mutex<Plan>> = Arc::default();
        let worker = identity.worker;
        let writer = write::Writer::new(storage, identity, Arc::clone(&plan));
        let (sender, messages) = channel();
        (Self { worker, messages: Some(sender), thread: None, plan }, ManualWriter { messages, writer })
    }

    /// Adds a state. All are added before the first checkpoint: from then on each takes part in every one.
    /// `restored` is the chain to continue, as [`RestoreStats::continues`](crate::RestoreStats::continues) returned
    /// it; without, the first freeze of all states is to be a base.
    pub fn open(&self, state: &str, restored: Option<Vec<FileRef>>) -> StateId {
        let mut plan = lock(&self.plan);
        plan.fresh |= restored.is_none();
        let files = restored.unwrap_or_default();
        let bytes = |kind| files.iter().filter(|f| f.kind == kind).map(|f| f.bytes).sum::<u64>();
        let weight = Weight { base_bytes: bytes(FileKind::Base), delta_bytes: bytes(FileKind::Delta) };
        plan.files = plan.files.max(files.iter().filter(|file| file.kind != FileKind::Spill).count());
        let id = StateId(plan.states.len());
        plan.states.push(weight);
        drop(plan);
        if let Some(messages) = &self.messages {
            // If the writer has ended, handing over will say so.
            let _ = messages.send(Message::Open { state: state.to_owned(), files });
        }
        id
    }

    /// The mode in which states should begin their freeze for a checkpoint: the same for all of them.
    #[must_use]
    pub fn mode(&self, checkpoint: CheckpointId) -> FreezeMode {
        lock(&self.plan).mode(checkpoint)
    }

    /// Before [`Persister::mode`] is asked for a checkpoint: its mode is to be a base, because a state cannot freeze a
    /// delta. If states have begun with it already, that state alone freezes a base.
    pub fn begin_base(&self, checkpoint: CheckpointId) {
        let mut plan = lock(&self.plan);
        if !plan.begun.contains_key(&checkpoint) {
            plan.begin(checkpoint, FreezeMode::Base);
        }
    }

    /// Hands over what a state froze for a checkpoint, and returns at once. Each state hands over one part for every
    /// checkpoint, in their order. `done` runs on the persister's thread, when the parts of all states are durable or
    /// when that failed. After a failure just go on: the next checkpoint writes what this one could not.
    pub fn persist(
        &self,
        state: StateId,
        checkpoint: CheckpointId,
        watermark_ms: Option<i64>,
        frozen: Frozen,
        done: Done,
    ) {
        lock(&self.plan).handed_over(state, checkpoint, &frozen);
        let part =
            Message::Part(Part { state: state.0, checkpoint, watermark_ms, frozen, linked: None, done });
        let refused = match &self.messages {
            Some(messages) => messages.send(part).map_err(|refused| refused.0).err(),
            None => Some(part),
        };
        if let Some(Message::Part(part)) = refused {
            let place = format!("of worker {}", self.worker);
            (part.done)(Err(StateError::internal(&place, "the persister's thread has ended")));
        }
    }
}

impl Drop for Persister {
    /// Waits until everything complete that was handed over is written (or failed).
    fn drop(&mut self) {
        drop(self.messages.take());
        if let Some(thread) = self.thread.take() {
            // A panic of a `done` was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    // Only numbers are changed under the lock; a panic leaves them usable.
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}
