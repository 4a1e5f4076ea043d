//! Writing frozen state to the checkpoint storage, behind the back of the dataflow.
//!
//! A shard is a chain of files: a base, then deltas. The persister of a step and worker writes one
//! file per checkpoint that changed anything, on a thread of its own, in the order of the calls.
//!
//! - **A failed write leaves no hole**: what was frozen is kept and goes out, merged, with the next.
//! - **Many small files become few**: sixteen neighbouring deltas of one level are merged into one of
//!   the next level by concatenating their sections, after the checkpoint was reported. Large cold
//!   state is not rewritten for that.
//! - **A base** starts the chain anew when the deltas outweigh it, so that a restore stays bounded by
//!   about twice the state. Of the RocksDB tier it copies the table files that are not stored yet.
//!
//! Files that no checkpoint lists any more are deleted by whoever retires checkpoints, not here.

pub(crate) use base::{checksum, local_name};

mod base;
mod chain;
mod merge;

use crate::error::StateError;
use crate::storage::Storage;
use crate::table::{FreezeMode, Frozen};
use staunch_checkpoint::{CheckpointId, FileKind, FileRef, Generation, Shard};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Deltas below this never ask for a new base.
const SMALL_BYTES: u64 = 4 << 20;
/// A chain of this many snapshot files asks for a new base, should merging not keep it short.
const MANY_FILES: usize = 60;

/// Whose state is persisted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardIdentity {
    /// Name of the job.
    pub job: String,
    /// Identity of the job's run of checkpoints.
    pub lineage: String,
    /// Name of the step.
    pub step: String,
    /// The worker.
    pub worker: u32,
    /// The running generation; part of every file name, so that a zombie overwrites nothing.
    pub generation: Generation,
}

impl ShardIdentity {
    /// The name of one of its files.
    fn file(&self, checkpoint: CheckpointId, rest: &str) -> String {
        let Self { step, worker, generation, .. } = self;
        format!("state/{}/{worker}/{checkpoint}-g{generation}{rest}", path_part(step))
    }
}

/// A step's name as a part of a storage name: other characters than letters, digits, `_` and `-`
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

/// One call of [`Persister::persist`].
struct Job {
    checkpoint: CheckpointId,
    watermark_ms: Option<i64>,
    frozen: Frozen,
    done: Done,
}

/// What decides on the mode of the next freeze; kept current by both threads.
#[derive(Default)]
struct Plan {
    /// No base was frozen yet.
    fresh: bool,
    /// Cost of the last base.
    base_bytes: u64,
    /// Deltas since.
    delta_bytes: u64,
    /// Snapshot files in the chain.
    files: usize,
    /// Bases handed over and not durable yet.
    bases_pending: usize,
}

/// See the [module](self).
pub struct Persister {
    step: String,
    jobs: Option<Sender<Job>>,
    /// None if somebody else does the work, see [`Persister::by_hand`].
    thread: Option<JoinHandle<()>>,
    plan: Arc<Mutex<Plan>>,
}

/// Does a persister's work when it is asked to, in place of the thread: for simulations.
pub struct Hand {
    queue: Receiver<Job>,
    chain: chain::Chain,
}

impl Hand {
    /// Writes what was handed over first; false if there is nothing to write.
    pub fn write_next(&mut self) -> bool {
        let next = self.queue.try_recv();
        next.map(|job| self.chain.run(job)).is_ok()
    }
}

impl Persister {
    /// Starts the thread. `restored` are the files of the chain to continue, as
    /// [`RestoreStats::continues`](crate::RestoreStats::continues) returned it; without, the first
    /// freeze is to be a base.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        storage: Arc<dyn Storage>,
        identity: ShardIdentity,
        restored: Option<Vec<FileRef>>,
    ) -> Result<Self, StateError> {
        let (mut persister, mut hand) = Self::by_hand(storage, identity, restored);
        let step = &persister.step;
        let thread = std::thread::Builder::new()
            .name(format!("persist {step}"))
            .spawn(move || hand.queue.into_iter().for_each(|job| hand.chain.run(job)))
            .map_err(|source| StateError::NoThread { step: step.clone(), source })?;
        persister.thread = Some(thread);
        Ok(persister)
    }

    /// As [`Persister::start`], but without a thread: the work is done by whoever holds the hand.
    #[must_use]
    pub fn by_hand(
        storage: Arc<dyn Storage>,
        identity: ShardIdentity,
        restored: Option<Vec<FileRef>>,
    ) -> (Self, Hand) {
        let fresh = restored.is_none();
        let files = restored.unwrap_or_default();
        let bytes = |kind| files.iter().filter(|f| f.kind == kind).map(|f| f.bytes).sum();
        let plan = Arc::new(Mutex::new(Plan {
            fresh,
            base_bytes: bytes(FileKind::Base),
            delta_bytes: bytes(FileKind::Delta),
            files: files.iter().filter(|file| file.kind != FileKind::Spill).count(),
            bases_pending: 0,
        }));
        let step = identity.step.clone();
        let chain = chain::Chain::new(storage, identity, files, plan.clone());
        let (jobs, queue) = channel();
        (Self { step, jobs: Some(jobs), thread: None, plan }, Hand { queue, chain })
    }

    /// The mode in which the next freeze should begin.
    #[must_use]
    pub fn next_mode(&self) -> FreezeMode {
        let plan = lock(&self.plan);
        let long = plan.bases_pending == 0 && plan.files >= MANY_FILES;
        if plan.fresh || long || plan.delta_bytes > plan.base_bytes.max(SMALL_BYTES) {
            FreezeMode::Base
        } else {
            FreezeMode::Delta
        }
    }

    /// Hands a frozen state over for the files of a checkpoint, and returns at once. Calls are
    /// carried out in order; `done` runs on the persister's thread, when all is durable or when it
    /// failed. After a failure just go on: the next call writes what this one could not.
    pub fn persist(&self, checkpoint: CheckpointId, watermark_ms: Option<i64>, frozen: Frozen, done: Done) {
        let mut plan = lock(&self.plan);
        match frozen.mode() {
            FreezeMode::Base => {
                plan.fresh = false;
                plan.base_bytes = frozen.bytes();
                plan.delta_bytes = 0;
                plan.bases_pending += 1;
            }
            FreezeMode::Delta => plan.delta_bytes += frozen.bytes(),
        }
        drop(plan);
        let job = Job { checkpoint, watermark_ms, frozen, done };
        let refused = match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|refused| refused.0).err(),
            None => Some(job),
        };
        if let Some(job) = refused {
            (job.done)(Err(StateError::internal(&self.step, "the persister's thread has ended")));
        }
    }
}

impl Drop for Persister {
    /// Waits until everything handed over is written (or failed).
    fn drop(&mut self) {
        drop(self.jobs.take());
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
