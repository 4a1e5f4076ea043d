//! The runtime without threads that move by themselves. See [`crate::simulation`].
//!
//! Workers still have a thread each, because the dataflow library wants that; [`Lockstep`] sees to it that one
//! thread at most is awake. Everything else acts on the thread of the caller.

mod lockstep;
pub(crate) mod several;

use crate::config::RunConfig;
use crate::context::SharedValues;
use crate::control::Controls;
use crate::control::Outcome;
use crate::crash;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime::control::coordinator::Driver;
use crate::runtime::control::processes::Processes;
use crate::runtime::life::run::start_workers;
use crate::runtime::life::start::{End, Ground, begin};
use crate::runtime::life::takeover::Identity;
use crate::runtime::life::worker::{Site, Turns};
use crate::runtime::process::io::Io;
use crate::runtime::process::shared::{Shared, panic_text};
use crate::runtime::process::wall_clock::Time;
use lockstep::Lockstep;
use staunch_state::{ManualWriter, SpillShared, storage::Storage};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use timely::communication::WorkerGuards;
use timely::worker::Worker;
use tokio::runtime::Runtime;

/// A part of a process that can move.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Actor {
    /// A worker runs its dataflow once.
    Worker(usize),
    /// The coordinator handles one message, and what is due.
    Coordinator,
    /// The clock begins the next step of progress.
    Clock,
    /// Connectors and committers run until they wait for something.
    Io,
    /// What the stateful steps of a worker froze is taken up, and written when it is complete.
    Persister(usize),
}

/// What a process is started with.
pub struct Setup {
    /// As in a real run; the directory of the checkpoints is only named in messages, and state that exceeds the memory for
    /// it goes into a sorted map in RocksDB's place.
    pub config: RunConfig,
    /// Where checkpoints are.
    pub storage: Arc<dyn Storage>,
    /// The identity of the job if it starts from nothing; no other job on the same targets may have it.
    pub lineage: String,
    /// Requests to it.
    pub controls: Controls,
    /// Its metrics.
    pub metrics: Metrics,
    /// Time since the simulation began.
    pub time: Duration,
    /// What happens at crash points.
    pub at_point: crash::Handler,
}

/// What the handler of crash points unwinds with if the process dies there.
#[derive(Clone, Copy, Debug)]
pub struct Died;

/// The error of a part that panicked; none if that was the death of its process.
fn panicked(payload: &(dyn Any + Send)) -> Option<Error> {
    let died = payload.is::<Died>();
    (!died).then(|| Error::internal(format!("panicked: {}", panic_text(payload))))
}

/// What became of a start.
pub enum Started {
    /// It runs.
    Running(Box<Process>),
    /// The job was complete.
    AlreadyFinished,
}

/// A simulated process. Dropping it is a crash, provided that its storage and its targets refuse
/// everything from then on.
pub struct Process {
    shared: Arc<Shared>,
    processes: Arc<Processes>,
    driver: Driver,
    end: Option<End>,
    workers: Option<WorkerGuards<()>>,
    lockstep: Arc<Lockstep>,
    writers: Vec<ManualWriter>,
    runtime: Arc<Runtime>,
    time: Arc<Time>,
    at_point: crash::Handler,
}

/// The calling thread belongs to a simulated process while this lives.
struct Inside(#[allow(dead_code)] crate::runtime::process::wall_clock::Entered);

impl Inside {
    fn new(time: &Arc<Time>, at_point: &crash::Handler) -> Self {
        crash::on_this_thread(Some(Arc::clone(at_point)));
        Self(time.enter())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        crash::on_this_thread(None);
    }
}

impl Process {
    /// See [`Process::start`].
    pub(crate) fn start_graph<B>(build: B, setup: Setup) -> Result<Started>
    where
        B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
    {
        let time = Time::new(setup.time);
        let _inside = Inside::new(&time, &setup.at_point);
        let started = catch_unwind(AssertUnwindSafe(|| Self::start_inside(build, setup, &time)));
        started.unwrap_or_else(|payload| match panicked(&*payload) {
            Some(error) => Err(error),
            None => Err(Error::external("the process died while it started")),
        })
    }

    fn start_inside<B>(build: B, setup: Setup, time: &Arc<Time>) -> Result<Started>
    where
        B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
    {
        let Setup { config, storage, lineage, controls, metrics, at_point, .. } = setup;
        crate::plan::check_name(&config.job)?;
        let (plan, registry) = crate::runtime::plan(&build)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = Arc::new(runtime.map_err(|e| Error::external("cannot make a runtime").caused_by(e))?);
        let identity = Identity { lineage, holder: "a simulated process".into() };
        let values = SharedValues::default();
        let ground = Ground {
            storage,
            io: Io::by_hand(&runtime),
            identity,
            values,
            // RocksDB has threads of its own, and would not go the same way twice.
            spill: SpillShared::in_a_map(),
            stage: Arc::default(),
            others: Vec::new(),
        };
        let Some(ready) = begin(ground, plan, registry, config, controls, &metrics)? else {
            return Ok(Started::AlreadyFinished);
        };
        let count = ready.shared.config.workers;
        let lockstep = Lockstep::new(count);
        let first = {
            let (lockstep, time, at_point) = (Arc::clone(&lockstep), Arc::clone(time), Arc::clone(&at_point));
            move |worker| {
                crash::on_this_thread(Some(Arc::clone(&at_point)));
                time.enter().for_ever();
                lockstep.join(worker);
            }
        };
        let pace = {
            let lockstep = Arc::clone(&lockstep);
            move |worker: &mut Worker, turns: &mut Turns, shared: &Shared| {
                while lockstep.pass_and_wait(worker.index()) && !shared.is_stopping() {
                    turns.wake_sources();
                    worker.step();
                }
            }
        };
        let workers = start_workers(build, vec![Arc::clone(&ready.shared)], first, pace)?;
        let (shared, processes) = (Arc::clone(&ready.shared), Arc::clone(&ready.processes));
        let (driver, end) = ready.into_end();
        let mut process = Self {
            shared,
            processes,
            driver,
            end: Some(end),
            workers: Some(workers),
            lockstep,
            writers: Vec::new(),
            runtime,
            time: Arc::clone(time),
            at_point: Arc::clone(&at_point),
        };
        for worker in 0..count {
            process.lockstep.give(worker);
        }
        process.writers =
            std::mem::take(&mut process.shared.writers.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Started::Running(Box::new(process)))
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.shared.config.workers
    }

    /// Number of persisters.
    pub fn persisters(&self) -> usize {
        self.writers.len()
    }

    /// The newest checkpoint that is decided, and all its output committed; 0 before the first.
    pub fn settled_checkpoint(&self) -> u32 {
        let settled = self.driver.protocol.committables_pending() == 0;
        if settled { self.shared.decided().0 } else { 0 }
    }

    /// Times that entries of state went out of the memory for it.
    pub fn spilled(&self) -> u64 {
        self.shared.spill.writes_into_maps()
    }

    /// The checkpoint that it restored; `None` if it started from nothing.
    pub fn restored(&self) -> Option<u32> {
        self.shared.agreed.restored.as_ref().map(|manifest| manifest.checkpoint.0)
    }

    /// The first id that it may give to a checkpoint.
    pub fn first_checkpoint(&self) -> u32 {
        self.shared.agreed.first_epoch.0
    }

    /// One of its parts moves. Returns how the process ended, once it has: it must be dropped then. The
    /// handler of crash points may unwind with [`Died`]: then the part stops where it is, as in a crash. Any
    /// other panic is the error of a bug.
    pub fn act(&mut self, actor: Actor) -> Option<Result<Outcome>> {
        let _inside = Inside::new(&self.time, &self.at_point);
        // After an unwinding the process is only fit to be dropped, which its owner knows.
        match catch_unwind(AssertUnwindSafe(|| self.move_part(actor))) {
            Ok(ended) => ended,
            Err(payload) => panicked(&*payload).map(Err),
        }
    }

    fn move_part(&mut self, actor: Actor) -> Option<Result<Outcome>> {
        match actor {
            Actor::Worker(worker) => self.lockstep.give(worker),
            Actor::Clock => self.processes.advance(),
            Actor::Io => self.runtime.block_on(tokio::task::yield_now()),
            Actor::Persister(number) => {
                if let Some(writer) = self.writers.get_mut(number) {
                    writer.write_next();
                }
            }
            Actor::Coordinator => {
                if let Some(outcome) = self.driver.turn(Duration::ZERO) {
                    return Some(self.finish(outcome));
                }
            }
        }
        None
    }

    /// Time passes for this process.
    pub fn pass_time(&mut self, length: Duration) {
        let _inside = Inside::new(&self.time, &self.at_point);
        self.time.pass(length);
        self.runtime.block_on(tokio::time::advance(length));
    }

    /// Its clock on the wall is set forward by so many milliseconds, or back.
    pub fn jump(&mut self, by_ms: i64) {
        self.time.jump(by_ms);
    }

    fn finish(&mut self, outcome: Result<Outcome>) -> Result<Outcome> {
        self.leave();
        for writer in &mut self.writers {
            while writer.write_next() {}
        }
        if let Some(end) = self.end.take() {
            end.clean_up(outcome.is_ok());
        }
        match self.processes.take_failure() {
            Some(error) if outcome.is_ok() => Err(error),
            _ => outcome,
        }
    }

    /// The workers leave.
    fn leave(&mut self) {
        self.processes.stop(None);
        self.lockstep.dismiss();
        for joined in self.workers.take().into_iter().flat_map(WorkerGuards::join) {
            if let Err(panic) = joined {
                tracing::debug!(panic, "a worker ended by a panic");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _inside = Inside::new(&self.time, &self.at_point);
        self.leave();
    }
}
