//! One life of a job in this process: its threads, from the first to the last.

use super::stage::{LIMITS, Stage};
use super::start::{Ground, Ready, begin};
use super::takeover::Identity;
use super::worker::{Registry, Site, Turns, start_worker};
use crate::config::RunConfig;
use crate::context::SharedValues;
use crate::control::Controls;
use crate::control::Outcome;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime::control::coordinator::Driver;
use crate::runtime::control::processes::Processes;
use crate::runtime::process::io::Io;
use crate::runtime::process::shared::{Shared, panic_text};
use crate::summary::Summary;
use staunch_state::{Directory, SpillShared};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use timely::WorkerConfig;
use timely::communication::WorkerGuards;
use timely::worker::Worker;

/// How long a worker sleeps at most; it is woken for everything that matters.
const PARK: Duration = Duration::from_secs(1);
/// I/O threads for connectors and committers.
const IO_THREADS: usize = 2;
/// How long I/O tasks may take to notice that the job is over.
const IO_SHUTDOWN: Duration = Duration::from_secs(2);

/// Threads that must be there beside the workers: the clock, those of I/O, and some for work that blocks.
const OTHER_THREADS: usize = 1 + IO_THREADS + 2;

/// See [`crate::run::run`].
pub(crate) fn run<B>(build: B, config: RunConfig, controls: Controls, metrics: Metrics) -> Result<Summary>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
{
    crate::plan::check_name(&config.job)?;
    let began = Instant::now();
    let (plan, registry) = crate::runtime::plan(&build)?;
    let (graph, counted) = (plan.clone(), metrics.clone());
    let stage = Arc::new(Stage::default());
    let (life, asked) = (Arc::clone(&stage), controls.clone());
    // Entries of the log go where those of the caller go.
    let log = tracing::dispatcher::get_default(Clone::clone);
    let body = move || {
        let whole = || whole(build, plan, registry, config, controls, &metrics, &life);
        let ended = catch_unwind(AssertUnwindSafe(|| tracing::dispatcher::with_default(&log, whole)));
        life.left(match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(panic) => Some(Err(Error::internal(format!("panicked: {}", panic_text(&*panic))))),
        });
    };
    std::thread::Builder::new()
        .name("staunch-job".into())
        .spawn(body)
        .map_err(|e| Error::external("cannot start a thread").caused_by(e))?;
    let outcome = stage.watch(&LIMITS, || asked.is_stop_asked());
    if stage.is_abandoned() {
        asked.drop_until_stop("the start was given up");
    }
    asked.tell_end(&outcome);
    Ok(Summary::new(outcome?, &graph, &counted, began.elapsed()))
}

/// The whole life, on its own thread. An error is one of the start; how it ended otherwise is said to the `stage`.
fn whole<B>(
    build: B,
    plan: Plan,
    registry: Registry,
    config: RunConfig,
    controls: Controls,
    metrics: &Metrics,
    stage: &Arc<Stage>,
) -> Result<()>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
{
    stage.enter("looking where sources and sinks have their places")?;
    crate::place::check_against(&config, &registry.places)?;
    stage.enter(format!("opening the checkpoint storage {}", config.checkpoints.display()))?;
    let directory = Directory::open(&config.checkpoints)?;
    // Held until the end: a second copy of the job is refused while this one lives.
    let _lock = directory.try_lock()?;
    check_threads(config.workers + OTHER_THREADS)?;
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("staunch-io")
        .enable_all()
        .build()
        .map_err(|e| Error::external("cannot start I/O threads").caused_by(e))?;
    let running = Io::new(io.handle().clone());
    let ground = Ground {
        storage: Arc::new(directory),
        io: running.clone(),
        identity: Identity::of_process(),
        values: SharedValues::default(),
        spill: SpillShared::with_defaults(),
        stage: Arc::clone(stage),
        others: Vec::new(),
    };
    let result = match begin(ground, plan, registry, config, controls, metrics) {
        Ok(Some(ready)) => stage.running().and_then(|()| live(build, ready, stage)),
        Ok(None) => {
            stage.over(Ok(Outcome::AlreadyFinished));
            Ok(())
        }
        Err(error) => Err(error),
    };
    stage.leaving("connectors");
    running.end(IO_SHUTDOWN);
    io.shutdown_timeout(IO_SHUTDOWN);
    result
}

/// Whether as many threads can be started as a run needs. The I/O runtime would wait for ever for one that it cannot
/// start; the limit is met here, where it can be said.
fn check_threads(count: usize) -> Result<()> {
    let (open, gate) = crossbeam_channel::bounded::<()>(0);
    let wait = || {
        let gate = gate.clone();
        std::thread::Builder::new().name("staunch-test".into()).spawn(move || gate.recv().is_ok())
    };
    let started: Vec<_> = (0..count).map(|_| wait()).collect();
    drop(open);
    let mut failed = None;
    for thread in started {
        match thread {
            Ok(thread) => drop(thread.join()),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        None => Ok(()),
        Some(error) => Err(Error::external(format!(
            "cannot start the {count} threads that a run needs; the limit of threads of the user or the container is \
             reached (ulimit -u, pids.max)"
        ))
        .caused_by(error)),
    }
}

fn live<B>(build: B, ready: Ready, stage: &Stage) -> Result<()>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
{
    let processes = Arc::clone(&ready.processes);
    let clock = std::thread::Builder::new().name("staunch-clock".into()).spawn({
        let (processes, step) = (Arc::clone(&processes), ready.shared.config.step);
        move || processes.run_clock(step)
    });
    let clock = clock.map_err(|e| Error::external("cannot start a thread").caused_by(e))?;
    let pace = |worker: &mut Worker, turns: &mut Turns, shared: &Shared| {
        while !shared.is_stopping() {
            turns.begin();
            worker.step_or_park(Some(PARK));
        }
    };
    let workers = start_workers(build, vec![Arc::clone(&ready.shared)], |_| {}, pace);
    let (driver, end) = ready.into_end();
    let ended_well = match workers {
        Ok(workers) => work(&processes, driver, workers, stage),
        Err(error) => {
            processes.stop(Some(&error));
            stage.over(Err(error));
            false
        }
    };
    stage.leaving("the clock");
    let _ = clock.join();
    stage.leaving("cleaning up");
    end.clean_up(ended_well);
    Ok(())
}

/// Starts the workers of the processes that are in this one: one process, outside of tests. On each worker, `first` is called before anything else, and then `pace` runs it until the
/// end.
pub(crate) fn start_workers<B>(
    build: B,
    processes: Vec<Arc<Shared>>,
    first: impl Fn(usize) + Send + Sync + 'static,
    pace: impl Fn(&mut Worker, &mut Turns, &Shared) + Send + Sync + 'static,
) -> Result<WorkerGuards<()>>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
{
    let each = processes.first().map_or(1, |process| process.config.workers);
    let workers = each * processes.len();
    let body = move |worker: &mut Worker| {
        let shared = &processes[worker.index() / each];
        first(worker.index());
        if shared.is_stopping() {
            return;
        }
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut turns = start_worker(&build, worker, shared);
            if turns.is_built() {
                shared.worker_is_up();
            }
            pace(worker, &mut turns, shared);
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
        }));
        if let Err(panic) = ran {
            let index = worker.index();
            shared.fail(Error::job(format!("worker {index} panicked: {}", panic_text(&*panic))));
            resume_unwind(panic);
        }
    };
    let communication = if workers == 1 {
        timely::CommunicationConfig::Thread
    } else {
        timely::CommunicationConfig::Process(workers)
    };
    let config = timely::Config { communication, worker: WorkerConfig::default() };
    timely::execute(config, body).map_err(|e| {
        Error::external(format!(
            "cannot start the threads of {workers} workers; the limit of threads of the user or the container is reached \
             (ulimit -u, pids.max): {e}"
        ))
    })
}

/// Runs the coordinator beside the workers until the end; whether that was a good one.
fn work(processes: &Processes, mut driver: Driver, workers: WorkerGuards<()>, stage: &Stage) -> bool {
    // The workers leave only when they are told to, also after a bug in the coordinator.
    let outcome = catch_unwind(AssertUnwindSafe(|| driver.run())).unwrap_or_else(|panic| {
        let error = Error::internal(format!("the coordinator panicked: {}", panic_text(&*panic)));
        processes.stop(Some(&error));
        Err(error)
    });
    let mut ended_well = outcome.is_ok();
    stage.over(outcome);
    stage.leaving("the workers");
    for joined in workers.join() {
        if let Err(panic) = joined {
            tracing::debug!(panic, "a worker ended by a panic");
        }
    }
    stage.leaving("the checkpoint log");
    driver.settle(ended_well);
    // A worker may have failed while the coordinator was already ending well: an error wins.
    if let Some(error) = processes.take_failure() {
        ended_well = false;
        stage.failed_too(error);
    }
    ended_well
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_can_be_started_are_no_error() {
        assert!(check_threads(3).is_ok());
    }
}
