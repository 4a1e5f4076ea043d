//! What all threads of one generation share.

use super::clock::Clock;
use super::io::Io;
use crate::config::RunConfig;
use crate::context::{SharedValues, SourceContext};
use crate::crash;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime::control::splits::SplitHub;
use crossbeam_channel::Sender;
use staunch_checkpoint::{CheckpointId, Event, Generation, Manifest, Part, Published, Slot};
use staunch_state::storage::Storage;
use staunch_state::{Assignment, Groups, ManualWriter, Persister, ShardIdentity, SpillShared, StateError};
use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// To the coordinator's thread.
#[derive(Debug)]
pub(crate) enum Message {
    /// For the protocol.
    Protocol(Event),
    /// All input of a source instance has been read and emitted.
    Ended,
    /// All workers are up.
    Started,
    /// A worker or a task failed; the reason is in [`Shared`].
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

pub(crate) struct Shared {
    pub(crate) config: RunConfig,
    /// The graph as it was checked; every worker must build the same one.
    pub(crate) plan: Plan,
    pub(crate) lineage: String,
    pub(crate) generation: Generation,
    pub(crate) first_epoch: CheckpointId,
    pub(crate) restored: Option<Manifest>,
    pub(crate) storage: Arc<dyn Storage>,
    /// What connectors share.
    pub(crate) values: SharedValues,
    pub(crate) io: Io,
    pub(crate) clock: Arc<Clock>,
    pub(crate) coordinator: Sender<Message>,
    pub(crate) metrics: Metrics,
    pub(crate) groups: Groups,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) spill: Arc<SpillShared>,
    pub(crate) spill_dir: PathBuf,
    /// Memory for one table.
    pub(crate) table_bytes: usize,
    /// Splits, by source.
    pub(crate) splits: HashMap<String, Arc<SplitHub>>,
    /// Newest decided checkpoint; sources look at it.
    pub(crate) decided: AtomicU32,
    /// Records read by all sources since the start of this process.
    pub(crate) records_read: AtomicU64,
    /// Every worker has its graph and its state. Before that no source reads: a damaged file on one worker is
    /// to end the start before any worker has processed a record.
    pub(crate) all_up: AtomicBool,
    /// Sources read nothing more: the last checkpoint is being taken.
    pub(crate) quiet: AtomicBool,
    /// Sources behave as if their input had ended.
    pub(crate) draining: AtomicBool,
    /// In a simulation: the work of the persisters, for whoever moves the process.
    pub(crate) writers: Mutex<Vec<ManualWriter>>,
    /// By worker. The steps of a worker own its persister, and the last one that leaves waits for it.
    persisters: Mutex<HashMap<u32, Weak<Persister>>>,
    /// Workers leave.
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

pub(crate) struct SharedParts {
    pub(crate) config: RunConfig,
    pub(crate) plan: Plan,
    pub(crate) lineage: String,
    pub(crate) generation: Generation,
    pub(crate) first_epoch: CheckpointId,
    pub(crate) restored: Option<Manifest>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) io: Io,
    pub(crate) coordinator: Sender<Message>,
    pub(crate) metrics: Metrics,
    pub(crate) values: SharedValues,
    pub(crate) spill_dir: PathBuf,
    pub(crate) stateful_steps: usize,
    pub(crate) splits: HashMap<String, Arc<SplitHub>>,
}

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        let groups = Groups::new(parts.config.groups);
        let workers = parts.config.workers;
        Self {
            clock: Clock::new(parts.first_epoch.0),
            assignment: Arc::new(Assignment::even(groups, workers as u32)),
            table_bytes: parts.config.state_bytes / (workers * parts.stateful_steps.max(1)),
            spill: SpillShared::with_defaults(),
            groups,
            config: parts.config,
            plan: parts.plan,
            lineage: parts.lineage,
            generation: parts.generation,
            first_epoch: parts.first_epoch,
            restored: parts.restored,
            storage: parts.storage,
            values: parts.values,
            io: parts.io,
            coordinator: parts.coordinator,
            metrics: parts.metrics,
            spill_dir: parts.spill_dir,
            splits: parts.splits,
            decided: AtomicU32::new(0),
            records_read: AtomicU64::new(0),
            all_up: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            writers: Mutex::default(),
            persisters: Mutex::default(),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Ends the generation with an error. The first one counts; the later ones are its echoes, and are
    /// logged.
    pub(crate) fn fail(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            *failure = Some(error);
        } else {
            tracing::debug!(%error, "a further error while the job was already failing");
        }
        drop(failure);
        let _ = self.coordinator.send(Message::Failed);
        self.stop();
    }

    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells workers to leave.
    pub(crate) fn stop(&self) {
        self.stop.store(true, SeqCst);
        self.clock.stop();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// Runs a task of a step on the I/O threads; a panic in it ends the generation.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        step: impl Into<String>,
        what: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let (shared, step, what, task) = (Arc::clone(self), step.into(), what.into(), self.io.spawn(task));
        self.io.spawn(async move {
            if let Err(error) = task.await
                && let Ok(panic) = error.try_into_panic()
            {
                shared.fail(Error::job(format!("{what} panicked: {}", panic_text(&*panic))).in_step(step));
            }
        });
    }

    /// To the coordinator. It outlives the workers; after a failure nobody listens, and that is fine.
    pub(crate) fn tell(&self, event: Event) {
        let send = |event| drop(self.coordinator.send(Message::Protocol(event)));
        match &event {
            Event::Ack { part, .. } => {
                let (name, instance) = match part {
                    Part::Source { instance, .. } => ("ack.source", *instance),
                    Part::State { instance, .. } => ("ack.state", *instance),
                    Part::Sink { instance, .. } => ("ack.sink", *instance),
                };
                crash::message(name, instance, event, send);
            }
            _ => send(event),
        }
    }
}

impl Shared {
    /// The persister of a worker, which all states of its steps share.
    pub(crate) fn persister(&self, worker: u32) -> Result<Arc<Persister>, StateError> {
        let mut persisters = self.persisters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(persister) = persisters.get(&worker).and_then(Weak::upgrade) {
            return Ok(persister);
        }
        let identity = ShardIdentity {
            job: self.config.job.clone(),
            lineage: self.lineage.clone(),
            worker,
            generation: self.generation,
        };
        let storage = Arc::clone(&self.storage);
        let persister = if super::wall_clock::is_simulated() {
            let (persister, writer) = Persister::manual(storage, identity);
            self.writers.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
            persister
        } else {
            Persister::start(storage, identity)?
        };
        let persister = Arc::new(persister);
        persisters.insert(worker, Arc::downgrade(&persister));
        Ok(persister)
    }

    pub(crate) fn source_context(&self, source: &str, instance: usize) -> SourceContext {
        SourceContext {
            job: self.config.job.clone(),
            source: source.to_owned(),
            instance: instance as u32,
            instances: self.config.workers as u32,
            generation: self.generation,
            deadline: self.config.open_timeout,
            shared: self.values.clone(),
            metrics: self.metrics.clone(),
        }
    }

    pub(crate) fn sink_context(&self, sink: &str, instance: u32) -> crate::sink::SinkContext {
        crate::sink::SinkContext {
            job: self.config.job.clone(),
            sink: sink.to_owned(),
            lineage: self.lineage.clone(),
            generation: self.generation,
            instance,
            instances: self.config.workers as u32,
            next_checkpoint: self.first_epoch,
            fresh: self.restored.is_none(),
            storage: Arc::clone(&self.storage),
            deadline: self.config.open_timeout,
            shared: self.values.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// Runs what a connector or the job's own code does for a step; a panic becomes an error of the step.
pub(crate) fn caught<R>(step: &str, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let ran = catch_unwind(AssertUnwindSafe(work));
    let panicked = |panic: Box<dyn Any + Send>| Err(Error::job(format!("panicked: {}", panic_text(&*panic))));
    ran.unwrap_or_else(panicked).map_err(|e| e.in_step(step))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
