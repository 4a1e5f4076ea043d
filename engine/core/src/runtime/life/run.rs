//! One life of a job in this process: its threads, from the first to the last.

use super::start::{Ground, Ready, begin};
use super::takeover::Identity;
use super::worker::{Site, Turns, start_worker};
use crate::config::RunConfig;
use crate::context::SharedValues;
use crate::control::Controls;
use crate::control::Outcome;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime::control::coordinator::Driver;
use crate::runtime::process::io::Io;
use crate::runtime::process::shared::{Message, Shared, panic_text};
use staunch_state::Directory;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use timely::WorkerConfig;
use timely::communication::WorkerGuards;
use timely::worker::Worker;

/// How long a worker sleeps at most; it is woken for everything that matters.
const PARK: Duration = Duration::from_secs(1);
/// I/O threads for connectors and committers.
const IO_THREADS: usize = 2;
/// How long I/O tasks may take to notice that the job is over.
const IO_SHUTDOWN: Duration = Duration::from_secs(2);

/// See [`crate::run::run`].
pub(crate) fn run<B>(build: B, config: RunConfig, controls: Controls, metrics: Metrics) -> Result<Outcome>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
{
    crate::plan::check_name(&config.job)?;
    let (plan, registry) = crate::runtime::plan(&build)?;
    crate::place::check_against(&config, &registry.places)?;
    let directory = Directory::open(&config.checkpoints)?;
    // Held until the end: a second copy of the job is refused while this one lives.
    let _lock = directory.try_lock()?;
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("staunch-io")
        .enable_all()
        .build()
        .map_err(|e| Error::external("cannot start I/O threads").caused_by(e))?;
    let ground = Ground {
        storage: Arc::new(directory),
        io: Io::new(io.handle().clone()),
        identity: Identity::of_process(),
        values: SharedValues::default(),
    };
    let result = match begin(ground, plan, registry, config, controls, &metrics) {
        Ok(Some(ready)) => live(build, ready),
        Ok(None) => Ok(Outcome::AlreadyFinished),
        Err(error) => Err(error),
    };
    io.shutdown_timeout(IO_SHUTDOWN);
    result
}

fn live<B>(build: B, ready: Ready) -> Result<Outcome>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
{
    let shared = Arc::clone(&ready.shared);
    let clock = std::thread::Builder::new().name("staunch-clock".into()).spawn({
        let shared = Arc::clone(&shared);
        move || shared.clock.run(shared.config.step)
    });
    let clock = clock.map_err(|e| Error::external("cannot start a thread").caused_by(e))?;
    let pace = |worker: &mut Worker, turns: &mut Turns, shared: &Shared| {
        while !shared.is_stopping() {
            turns.begin();
            worker.step_or_park(Some(PARK));
        }
    };
    let workers = start_workers(build, &ready, |_| {}, pace);
    let (driver, end) = ready.into_end();
    let outcome = workers.and_then(|workers| work(&shared, driver, workers));
    shared.stop();
    let _ = clock.join();
    end.clean_up(outcome.is_ok());
    outcome
}

/// Starts the workers. On each, `first` is called before anything else, and then `pace` runs it until the
/// end.
pub(crate) fn start_workers<B>(
    build: B,
    ready: &Ready,
    first: impl Fn(usize) + Send + Sync + 'static,
    pace: impl Fn(&mut Worker, &mut Turns, &Shared) + Send + Sync + 'static,
) -> Result<WorkerGuards<()>>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
{
    let (shared, sender, began) = (Arc::clone(&ready.shared), ready.sender.clone(), ready.began);
    let workers = shared.config.workers;
    let up = Arc::new(AtomicUsize::new(0));
    let body = move |worker: &mut Worker| {
        first(worker.index());
        if shared.is_stopping() {
            return;
        }
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut turns = start_worker(&build, worker, &shared);
            if turns.is_built() && up.fetch_add(1, SeqCst) + 1 == workers {
                shared.metrics.restore_seconds.set(began.elapsed().as_secs_f64());
                tracing::info!(workers, took = ?began.elapsed(), "running");
                shared.all_up.store(true, SeqCst);
                let _ = sender.send(Message::Started);
            }
            pace(worker, &mut turns, &shared);
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
    timely::execute(config, body).map_err(|e| Error::external(format!("workers could not be started: {e}")))
}

/// Runs the coordinator beside the workers until the end.
fn work(shared: &Shared, driver: Driver, workers: WorkerGuards<()>) -> Result<Outcome> {
    // The workers leave only when they are told to, also after a bug in the coordinator.
    let outcome = catch_unwind(AssertUnwindSafe(|| driver.run())).unwrap_or_else(|panic| {
        Err(Error::internal(format!("the coordinator panicked: {}", panic_text(&*panic))))
    });
    shared.stop();
    for joined in workers.join() {
        if let Err(panic) = joined {
            tracing::debug!(panic, "a worker ended by a panic");
        }
    }
    // A worker may have failed while the coordinator was already ending well: an error wins.
    match shared.take_failure() {
        Some(error) if outcome.is_ok() => Err(error),
        _ => outcome,
    }
}
