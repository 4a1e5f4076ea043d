//! What all threads of one generation share.

use super::agreed::Agreed;
use super::clock::Clock;
use super::inbox::Inbox;
use super::io::Io;
use super::link::{Failure, FromProcess, Link, ToProcess};
use crate::config::RunConfig;
use crate::context::{SharedValues, SourceContext};
use crate::crash;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::plan::Plan;
use staunch_checkpoint::{CheckpointId, Generation, Manifest, Part, Report};
use staunch_state::storage::Storage;
use staunch_state::{Assignment, Groups, ManualWriter, Persister, ShardIdentity, SpillShared, StateError};
use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub(crate) struct Shared {
    pub(crate) agreed: Arc<Agreed>,
    pub(crate) config: RunConfig,
    /// The graph as it was checked; every worker must build the same one.
    pub(crate) plan: Plan,
    pub(crate) storage: Arc<dyn Storage>,
    /// What connectors share.
    pub(crate) values: SharedValues,
    pub(crate) io: Io,
    pub(crate) clock: Clock,
    /// To the coordinator, in whatever process it is.
    link: Box<dyn Link>,
    pub(crate) metrics: Metrics,
    pub(crate) groups: Groups,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) spill: Arc<SpillShared>,
    pub(crate) spill_dir: PathBuf,
    /// Memory for one table.
    pub(crate) table_bytes: usize,
    /// Splits for the instances of this process, by source.
    inboxes: HashMap<String, Inbox>,
    /// Records read by all sources since the start of this process.
    pub(crate) records_read: AtomicU64,
    /// Workers of this process that are up.
    up: AtomicUsize,
    told: Told,
    /// In a simulation: the work of the persisters, for whoever moves the process.
    pub(crate) writers: Mutex<Vec<ManualWriter>>,
    /// By worker. The steps of a worker own its persister, and the last one that leaves waits for it.
    persisters: Mutex<HashMap<u32, Weak<Persister>>>,
}

/// What the coordinator has told.
#[derive(Default)]
struct Told {
    decided: AtomicU32,
    begin: AtomicBool,
    quiet: AtomicBool,
    drain: AtomicBool,
    backlog: AtomicBool,
    /// Workers leave; said here as well once one of them failed, or the link is closed.
    stop: AtomicBool,
    /// Why, if it is not a good end.
    failure: Mutex<Option<Error>>,
}

pub(crate) struct SharedParts {
    pub(crate) agreed: Arc<Agreed>,
    pub(crate) config: RunConfig,
    pub(crate) plan: Plan,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) io: Io,
    pub(crate) link: Box<dyn Link>,
    pub(crate) metrics: Metrics,
    pub(crate) values: SharedValues,
    /// Where state goes that exceeds its memory.
    pub(crate) spill: Arc<SpillShared>,
    pub(crate) spill_dir: PathBuf,
    pub(crate) stateful_steps: usize,
    /// Names of the sources.
    pub(crate) sources: Vec<String>,
}

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        let (agreed, workers) = (parts.agreed, parts.config.workers);
        let groups = Groups::new(agreed.groups);
        Self {
            clock: Clock::new(agreed.first_epoch.0),
            assignment: Arc::new(Assignment::even(groups, agreed.workers)),
            table_bytes: parts.config.state_bytes / (workers * parts.stateful_steps.max(1)),
            spill: parts.spill,
            groups,
            agreed,
            config: parts.config,
            plan: parts.plan,
            storage: parts.storage,
            values: parts.values,
            io: parts.io,
            link: parts.link,
            metrics: parts.metrics,
            spill_dir: parts.spill_dir,
            inboxes: parts.sources.into_iter().map(|source| (source, Inbox::default())).collect(),
            records_read: AtomicU64::new(0),
            up: AtomicUsize::new(0),
            told: Told::default(),
            writers: Mutex::default(),
            persisters: Mutex::default(),
        }
    }

    fn tell(&self, message: FromProcess) {
        if !self.link.tell(message) {
            self.link_closed();
        }
    }

    /// Ends the generation with an error, in all processes.
    pub(crate) fn fail(&self, error: Error) {
        self.tell(FromProcess::Failed(Failure::from(&error)));
        self.stop();
    }

    /// Tells workers to leave.
    fn stop(&self) {
        self.told.stop.store(true, SeqCst);
        self.clock.wake_workers();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.told.stop.load(SeqCst)
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

    /// Runs a task of a step where it may block and holds up itself alone; a panic in it ends the generation.
    pub(crate) fn spawn_apart(
        self: &Arc<Self>,
        step: &str,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let Some(threads) = self.io.threads() else {
            self.spawn(step, what, task);
            return Ok(());
        };
        let (shared, name) = (Arc::clone(self), step.to_owned());
        threads.run(&format!("{what} of {step}"), task, move |ended| {
            if let Err(panic) = ended {
                let error = Error::job(format!("{what} panicked: {}", panic_text(&*panic)));
                shared.fail(error.in_step(name));
            }
        })
    }
}

/// What the coordinator is told.
impl Shared {
    /// A worker has its graph and its state.
    pub(crate) fn worker_is_up(&self) {
        if self.up.fetch_add(1, SeqCst) + 1 == self.config.workers {
            self.tell(FromProcess::Up);
        }
    }

    /// Something was emitted at the current tick.
    pub(crate) fn note_activity(&self) {
        if self.clock.is_news() {
            self.tell(FromProcess::Active);
        }
    }

    /// A part has everything durable that it holds of a checkpoint.
    pub(crate) fn acknowledge(&self, part: Part, checkpoint: CheckpointId, report: Report) {
        let (name, instance) = match &part {
            Part::Source { instance, .. } => ("ack.source", *instance),
            Part::State { instance, .. } => ("ack.state", *instance),
            Part::Sink { instance, .. } => ("ack.sink", *instance),
        };
        let ack = FromProcess::Ack { part, checkpoint, report };
        crash::message(name, instance, ack, |ack| self.tell(ack));
    }

    /// A part could not complete a checkpoint.
    pub(crate) fn missed(&self, part: Part, checkpoint: CheckpointId, reason: String) {
        self.tell(FromProcess::Missed { part, checkpoint, reason });
    }

    /// A split was read to its end.
    pub(crate) fn split_finished(&self, source: &str, split: String) {
        self.tell(FromProcess::Finished { source: source.to_owned(), split });
    }

    /// All input of a source instance has been read and emitted.
    pub(crate) fn input_ended(&self) {
        self.tell(FromProcess::Ended);
    }

    /// State exceeds its memory, and only a checkpoint lets it move to disk.
    pub(crate) fn memory_is_full(&self, state: &str) {
        self.tell(FromProcess::MemoryFull(state.to_owned()));
    }
}

/// What the coordinator says.
impl Shared {
    /// A message has come; whoever receives calls this, one message after the other.
    pub(crate) fn take(&self, message: ToProcess) {
        match message {
            ToProcess::Join { .. } => {
                self.fail(Error::internal("a process that takes part was told to join"));
            }
            ToProcess::Tick(now) => return self.clock.follow(now),
            ToProcess::Splits { source, splits } => match self.inboxes.get(&source) {
                Some(inbox) => inbox.add(splits),
                None => {
                    let unknown = "splits were dealt of a source that this process does not have";
                    self.fail(Error::internal(unknown).in_step(source));
                }
            },
            ToProcess::Begin => self.told.begin.store(true, SeqCst),
            ToProcess::Decided(checkpoint) => {
                self.told.decided.fetch_max(checkpoint.0, SeqCst);
            }
            ToProcess::Quiet => self.told.quiet.store(true, SeqCst),
            ToProcess::Drain => self.told.drain.store(true, SeqCst),
            ToProcess::Backlog(is_there) => self.told.backlog.store(is_there, SeqCst),
            ToProcess::Stop(failure) => {
                if let Some(failure) = failure {
                    self.failure().get_or_insert(failure.into());
                }
                return self.stop();
            }
        }
        self.clock.wake_workers();
    }

    /// The link is closed. Unless it was said before that the job is over, this process has lost it.
    pub(crate) fn link_closed(&self) {
        if self.is_stopping() {
            return;
        }
        let error = Error::external(
            "the coordinator of the job is gone: the link to it closed before the job was over. The log of its process says \
             why; a restart of all processes continues from the newest checkpoint",
        );
        self.failure().get_or_insert(error);
        self.stop();
    }

    /// Why the job ended if not well, as the coordinator said or the closed link does.
    #[cfg(feature = "simulation")]
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure().take()
    }

    fn failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.told.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Splits for the instances of a source.
    pub(crate) fn inbox(&self, source: &str) -> &Inbox {
        &self.inboxes[source]
    }

    /// Newest decided checkpoint.
    pub(crate) fn decided(&self) -> CheckpointId {
        CheckpointId(self.told.decided.load(SeqCst))
    }

    /// Every worker of every process has its graph and its state. Before that no source reads: a damaged file on one
    /// worker is to end the start before any worker has processed a record.
    pub(crate) fn may_begin(&self) -> bool {
        self.told.begin.load(SeqCst)
    }

    /// Sources read nothing more: the last checkpoint is being taken.
    pub(crate) fn is_quiet(&self) -> bool {
        self.told.quiet.load(SeqCst)
    }

    /// Sources behave as if their input had ended.
    pub(crate) fn is_draining(&self) -> bool {
        self.told.drain.load(SeqCst)
    }

    /// Whether no checkpoint comes for long, but one that is asked for or the last one.
    pub(crate) fn expects_no_checkpoint(&self) -> bool {
        self.config.checkpoint_every.is_none() || self.told.backlog.load(SeqCst)
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
            job: self.agreed.job.clone(),
            lineage: self.agreed.lineage.clone(),
            worker,
            generation: self.agreed.generation,
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
            job: self.agreed.job.clone(),
            source: source.to_owned(),
            instance: instance as u32,
            instances: self.agreed.workers,
            generation: self.agreed.generation,
            fresh: self.agreed.restored.is_none(),
            deadline: self.config.open_timeout,
            shared: self.values.clone(),
            metrics: self.metrics.clone(),
        }
    }

    pub(crate) fn sink_context(&self, sink: &str, instance: u32) -> crate::sink::SinkContext {
        crate::sink::SinkContext {
            job: self.agreed.job.clone(),
            sink: sink.to_owned(),
            lineage: self.agreed.lineage.clone(),
            generation: self.agreed.generation,
            instance,
            instances: self.agreed.workers,
            next_checkpoint: self.agreed.first_epoch,
            fresh: self.agreed.restored.is_none(),
            taken_over_by: self.agreed.restored.as_ref().and_then(|m| taken_over_by(m, sink)),
            storage: Arc::clone(&self.storage),
            deadline: self.config.open_timeout,
            shared: self.values.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// The start that had taken over a sink's target when a checkpoint was decided; none if it does not have the sink.
pub(crate) fn taken_over_by(manifest: &Manifest, sink: &str) -> Option<Generation> {
    manifest.sinks.contains_key(sink).then_some(manifest.generation)
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
