//! One life of a job in this process: recovery, workers, coordinator, the end.

use super::committing::CommitTask;
use super::coordinator::Driver;
use super::log::Log;
use super::recovery;
use super::shared::{Message, Shared, SharedParts, caught, panic_text};
use super::splits::{Enumerator, SplitHub};
use super::tick::{Tick, tick};
use super::worker::{Registry, Site, WorkerContext};
use crate::config::RunConfig;
use crate::control::Controls;
use crate::crash;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::metrics::Metrics;
use crate::run::Outcome;
use crate::sink::SinkContext;
use crossbeam_channel::{Sender, unbounded};
use staunch_checkpoint::coordinator::{Coordinator, Setup};
use staunch_checkpoint::{Committable, Parts, Recovery};
use staunch_state::{Directory, storage::Storage};
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use timely::WorkerConfig;
use timely::dataflow::operators::probe::Handle;
use timely::worker::Worker;

/// How long a worker sleeps at most; it is woken for everything that matters.
const PARK: Duration = Duration::from_secs(1);
/// I/O threads for connectors and committers.
const IO_THREADS: usize = 2;
/// How long I/O tasks may take to notice that the job is over.
const IO_SHUTDOWN: Duration = Duration::from_secs(2);

/// See [`crate::run::run`].
pub(crate) fn run<B>(build: B, mut config: RunConfig, controls: Controls, metrics: Metrics) -> Result<Outcome>
where
    B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
{
    crate::plan::check_name(&config.job)?;
    let (_, registry) = super::plan(&build)?;
    let directory = Directory::open(&config.checkpoints)?;
    // Held until the end: a second copy of the job is refused while this one lives.
    let _lock = directory.try_lock()?;
    let storage: Arc<dyn Storage> = Arc::new(directory);
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("staunch-io")
        .enable_all()
        .build()
        .map_err(|e| Error::external("cannot start I/O threads").caused_by(e))?;

    let began = Instant::now();
    let log = Log::new(Arc::clone(&storage));
    let check = |recovery: &Recovery| {
        check_workers(config.workers, groups(&config, recovery))?;
        check_sinks(&config, &registry, recovery, &storage, io.handle())
    };
    let recovery = recovery::take_over(&config, &log, &registry, check)?;
    config.groups = groups(&config, &recovery);
    crash::pass("recovery.claimed");
    announce(&recovery);
    metrics.restarts.inc_by(recovery.generation.0.saturating_sub(1) as f64);

    let result =
        live(build, config, controls, &metrics, registry, storage, log, recovery, io.handle(), began);
    io.shutdown_timeout(IO_SHUTDOWN);
    result
}

/// The number of key groups: the checkpoint's, if there is one.
fn groups(config: &RunConfig, recovery: &Recovery) -> u16 {
    recovery.restore.as_ref().map_or(config.groups, |(_, manifest)| manifest.groups)
}

fn check_workers(workers: usize, groups: u16) -> Result<()> {
    if (1..=usize::from(groups)).contains(&workers) {
        return Ok(());
    }
    Err(Error::job(format!(
        "{workers} workers: the number must be from 1 to {groups}, the job's key groups (fixed by --max-parallelism when it first started)"
    )))
}

/// Asks every sink whether its target is ours to write, before the job is taken over.
fn check_sinks(
    config: &RunConfig,
    registry: &Registry,
    recovery: &Recovery,
    storage: &Arc<dyn Storage>,
    io: &tokio::runtime::Handle,
) -> Result<()> {
    for factory in &registry.sinks {
        let context = SinkContext {
            job: config.job.clone(),
            sink: factory.name.clone(),
            lineage: recovery.lineage.clone(),
            generation: recovery.generation,
            instance: 0,
            instances: config.workers as u32,
            next_checkpoint: recovery.next_checkpoint,
            fresh: recovery.restore.is_none(),
            storage: Arc::clone(storage),
        };
        caught(&factory.name, || io.block_on(factory.check(context)))?;
    }
    Ok(())
}

fn announce(recovery: &Recovery) {
    for warning in &recovery.warnings {
        tracing::warn!("{warning}");
    }
    let generation = recovery.generation.0;
    match &recovery.restore {
        None => tracing::info!(generation, "starting from nothing"),
        Some((_, manifest)) => {
            let pending: usize = manifest.sinks.values().map(|sink| sink.pending.len()).sum();
            tracing::info!(
                generation,
                checkpoint = manifest.checkpoint.0,
                pending_output = pending,
                "restoring; output of the checkpoint that may not be published yet is published first"
            );
            for (source, part) in &manifest.sources {
                for split in part.splits.iter().filter(|split| !split.finished) {
                    let position = split.position.as_ref().map(ToString::to_string);
                    tracing::info!(source, split = split.id, position, "continuing");
                }
            }
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn live<B>(
    build: B,
    config: RunConfig,
    controls: Controls,
    metrics: &Metrics,
    registry: Registry,
    storage: Arc<dyn Storage>,
    log: Log,
    recovery: Recovery,
    io: &tokio::runtime::Handle,
    began: Instant,
) -> Result<Outcome>
where
    B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
{
    let workers = config.workers;
    let (sender, messages) = unbounded();
    let restored = recovery.restore.as_ref().map(|(_, manifest)| manifest.clone());
    let splits = registry
        .sources
        .iter()
        .map(|source| {
            let part = restored.as_ref().and_then(|m| m.sources.get(&source.name));
            let known = part.map_or_else(Vec::new, |part| part.splits.clone());
            (source.name.clone(), SplitHub::new(workers, known))
        })
        .collect();
    let spill_dir = config.state_dir.clone().unwrap_or_else(|| config.checkpoints.join("work"));
    let shared = Arc::new(Shared::new(SharedParts {
        lineage: recovery.lineage.clone(),
        generation: recovery.generation,
        first_epoch: recovery.next_checkpoint,
        restored,
        storage,
        io: io.clone(),
        coordinator: sender.clone(),
        metrics: metrics.clone(),
        spill_dir: spill_dir.clone(),
        stateful_steps: registry.states.len(),
        splits,
        config,
    }));

    let committers = open_committers(&shared, &registry)?;
    let finished = recovery.already_finished;
    let protocol = Coordinator::new(setup(&shared, &registry, recovery));
    let open_inputs = registry.sources.len() * workers;
    let mut driver =
        Driver::new(Arc::clone(&shared), protocol, log.clone(), messages, controls, committers, open_inputs);
    let over = driver.recommit()?.is_some() || finished;
    // Of a complete job too: an older process may have left files after the final checkpoint.
    recovery::remove_orphans(&*shared.storage, &log, shared.generation)?;
    if over {
        tracing::info!("the job is already complete; there is nothing to do (start anew with --from none)");
        return Ok(Outcome::AlreadyFinished);
    }
    crash::pass("recovery.recommitted");
    find_splits(&shared, registry)?;
    empty(&spill_dir)?;

    let clock = std::thread::Builder::new().name("staunch-clock".into()).spawn({
        let shared = Arc::clone(&shared);
        move || shared.clock.run(shared.config.step)
    });
    let clock = clock.map_err(|e| Error::external("cannot start a thread").caused_by(e))?;
    let outcome = work(build, &shared, driver, sender, began);
    shared.stop();
    let _ = clock.join();
    // Left over after a crash, it is emptied by the next start.
    let _ = std::fs::remove_dir_all(spill_dir);
    // There may be no next start that would find what the last checkpoints left behind.
    if outcome.is_ok()
        && let Err(error) = recovery::remove_orphans(&*shared.storage, &log, shared.generation)
    {
        tracing::warn!(%error, "state files that no checkpoint needs were not deleted");
    }
    outcome
}

fn setup(shared: &Shared, registry: &Registry, recovery: Recovery) -> Setup {
    let instances = shared.config.workers as u32;
    Setup {
        job: shared.config.job.clone(),
        lineage: recovery.lineage,
        generation: recovery.generation,
        groups: shared.config.groups,
        workers: instances,
        parts: Parts {
            sources: registry.sources.iter().map(|s| (s.name.clone(), instances)).collect(),
            states: registry.states.iter().map(|(n, s)| (n.clone(), s.clone(), instances)).collect(),
            sinks: registry.sinks.iter().map(|s| (s.name.clone(), instances)).collect(),
        },
        next_checkpoint: recovery.next_checkpoint,
        next_slot: recovery.slot.next(),
        restored: recovery.restore.map(|(_, manifest)| manifest),
        log: recovery.log,
        retained: shared.config.retained,
        tolerated_failures: shared.config.tolerated_failures,
    }
}

fn empty(dir: &std::path::Path) -> Result<()> {
    let what = || format!("cannot empty the working directory {}", dir.display());
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::external(what()).caused_by(e)),
        _ => std::fs::create_dir_all(dir).map_err(|e| Error::external(what()).caused_by(e)),
    }
}

type Committers = HashMap<String, tokio::sync::mpsc::UnboundedSender<Vec<Committable>>>;

/// Opens every committer: fences older generations, removes what is ours and not listed.
fn open_committers(shared: &Arc<Shared>, registry: &Registry) -> Result<Committers> {
    let mut committers = HashMap::new();
    for factory in &registry.sinks {
        let part = shared.restored.as_ref().and_then(|m| m.sinks.get(&factory.name));
        let listed = part.map_or(&[][..], |part| &part.pending);
        for committable in listed {
            tracing::info!(
                sink = factory.name,
                checkpoint = committable.checkpoint.0,
                instance = committable.instance,
                records = committable.records,
                "output of the checkpoint is published, unless it already was"
            );
        }
        let context = shared.sink_context(&factory.name, 0);
        let committer = caught(&factory.name, || shared.io.block_on(factory.recover(context, listed)))?;
        crash::pass("recovery.sink_fenced");
        let (sender, due) = tokio::sync::mpsc::unbounded_channel();
        let task = CommitTask { sink: factory.name.clone(), committer, shared: Arc::clone(shared) };
        shared.spawn(&factory.name, "the committer", task.run(due));
        committers.insert(factory.name.clone(), sender);
    }
    Ok(committers)
}

/// Lists the splits of every source, and goes on looking where that is wanted.
fn find_splits(shared: &Arc<Shared>, registry: Registry) -> Result<()> {
    for source in registry.sources {
        let found = caught(&source.name, || shared.io.block_on(source.list()))?;
        shared.splits[&source.name].discovered(found);
        if let Some(every) = source.every {
            let step = source.name.clone();
            shared.spawn(step, "looking for new splits", discover(source, every, Arc::clone(shared)));
        }
    }
    Ok(())
}

/// Looks for new splits until the job is over.
async fn discover(source: Enumerator, every: Duration, shared: Arc<Shared>) {
    while !shared.is_stopping() {
        tokio::time::sleep(every).await;
        match source.list().await {
            Ok(found) => {
                let new = shared.splits[&source.name].discovered(found);
                if new > 0 {
                    tracing::info!(source = source.name, new, "new splits");
                    shared.clock.note_activity();
                    shared.clock.wake_workers();
                }
            }
            Err(error) => tracing::warn!(%error, "splits could not be listed; trying again"),
        }
    }
}

/// Runs the workers, and the coordinator beside them.
fn work<B>(
    build: B,
    shared: &Arc<Shared>,
    driver: Driver,
    sender: Sender<Message>,
    began: Instant,
) -> Result<Outcome>
where
    B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
{
    let workers = shared.config.workers;
    let up = Arc::new(AtomicUsize::new(0));
    let body = {
        let shared = Arc::clone(shared);
        move |worker: &mut Worker| {
            let ran = catch_unwind(AssertUnwindSafe(|| {
                let all_up = || {
                    if up.fetch_add(1, SeqCst) + 1 == workers {
                        shared.metrics.restore_seconds.set(began.elapsed().as_secs_f64());
                        tracing::info!(workers, took = ?began.elapsed(), "running");
                        let _ = sender.send(Message::Started);
                    }
                };
                run_worker(&build, worker, &shared, all_up);
            }));
            if let Err(panic) = ran {
                shared.fail(Error::job(format!(
                    "worker {} panicked: {}",
                    worker.index(),
                    panic_text(&*panic)
                )));
                resume_unwind(panic);
            }
        }
    };
    let communication = if workers == 1 {
        timely::CommunicationConfig::Thread
    } else {
        timely::CommunicationConfig::Process(workers)
    };
    let config = timely::Config { communication, worker: WorkerConfig::default() };
    let guards = timely::execute(config, body)
        .map_err(|e| Error::external(format!("workers could not be started: {e}")))?;
    let outcome = driver.run();
    shared.stop();
    for joined in guards.join() {
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

fn run_worker<B>(build: &B, worker: &mut Worker, shared: &Arc<Shared>, all_up: impl FnOnce())
where
    B: for<'s> Fn(&Job<'s>) -> Result<()>,
{
    shared.clock.register_worker();
    let context = Rc::new(WorkerContext {
        shared: Arc::clone(shared),
        index: worker.index(),
        peers: worker.peers(),
        probe: Handle::new(),
        sources: RefCell::default(),
    });
    let built = worker.dataflow::<Tick, _, _>(|scope| {
        let site = Site { scope, live: Some(Rc::clone(&context)), registry: Rc::default() };
        let job = Job::new(site);
        build(&job)?;
        job.finish()
    });
    match built {
        Ok(_) => all_up(),
        Err(error) => shared.fail(error),
    }
    let mut seen: Tick = tick(0, 0);
    let mut decided = 0;
    while !shared.is_stopping() {
        let (now, newest) = (shared.clock.now(), shared.decided.load(SeqCst));
        if now != seen || newest != decided {
            (seen, decided) = (now, newest);
            context.sources.borrow().iter().for_each(|source| source.activate());
        }
        worker.step_or_park(Some(PARK));
    }
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}
