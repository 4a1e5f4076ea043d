//! How a generation begins: the job is taken over, what its checkpoint lists is published, its splits
//! are found. After this the workers may start.

use super::stage::Stage;
use super::takeover::{self, Identity};
use super::worker::Registry;
use crate::config::RunConfig;
use crate::context::SharedValues;
use crate::control::Controls;
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime::control::acknowledging::{AcknowledgeTask, Due};
use crate::runtime::control::committing::CommitTask;
use crate::runtime::control::coordinator::Driver;
use crate::runtime::control::log::Log;
use crate::runtime::control::message::Message;
use crate::runtime::control::processes::{Own, Processes};
use crate::runtime::control::splits::{Enumerator, SplitHub};
use crate::runtime::process::agreed::{Agreed, fingerprint};
use crate::runtime::process::io::Io;
use crate::runtime::process::link::Peer;
use crate::runtime::process::shared::{Shared, SharedParts, caught, taken_over_by};
use crate::sink::SinkContext;
use crossbeam_channel::{Sender, unbounded};
use staunch_checkpoint::coordinator::{Coordinator, Setup};
use staunch_checkpoint::retention::surplus_fences;
use staunch_checkpoint::{Book, Committable, Generation, Parts, Recovery, Segment};
use staunch_state::SpillShared;
use staunch_state::storage::Storage;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::DirEntry;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than any process lives: a hundred years.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What a job runs on: its checkpoint storage, its I/O, who it is.
pub(crate) struct Ground {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) io: Io,
    pub(crate) identity: Identity,
    /// What the connectors of this process share.
    pub(crate) values: SharedValues,
    /// Where state goes that exceeds its memory.
    pub(crate) spill: Arc<SpillShared>,
    /// Where the start stands.
    pub(crate) stage: Arc<Stage>,
    /// The other processes that are to take part.
    pub(crate) others: Vec<Box<dyn Peer>>,
}

impl Ground {
    fn processes(&self) -> usize {
        1 + self.others.len()
    }
}

/// A generation that may start to work.
pub(crate) struct Ready {
    pub(crate) shared: Arc<Shared>,
    pub(crate) driver: Driver,
    pub(crate) processes: Arc<Processes>,
    log: Log,
    spill_dir: PathBuf,
}

impl Ready {
    /// What is left to be done once all workers are gone.
    pub(crate) fn into_end(self) -> (Driver, End) {
        (self.driver, End { shared: self.shared, log: self.log, spill_dir: self.spill_dir })
    }
}

/// The cleaning up after a generation.
pub(crate) struct End {
    shared: Arc<Shared>,
    log: Log,
    spill_dir: PathBuf,
}

impl End {
    pub(crate) fn clean_up(self, ended_well: bool) {
        // Left over after a crash, it is removed by the next start.
        let _ = std::fs::remove_dir_all(&self.spill_dir);
        // Unless another generation has its own in it by now.
        let _ = self.spill_dir.parent().map(std::fs::remove_dir);
        // There may be no next start that would find what the last checkpoints left behind.
        if ended_well
            && let Err(error) =
                takeover::remove_orphans(&*self.shared.storage, &self.log, self.shared.agreed.generation)
        {
            tracing::warn!(%error, "state files that no checkpoint needs were not deleted");
        }
    }
}

/// Takes the job over and makes everything ready; `None` if the job is complete already.
pub(crate) fn begin(
    ground: Ground,
    plan: Plan,
    registry: Registry,
    mut config: RunConfig,
    controls: Controls,
    metrics: &Metrics,
) -> Result<Option<Ready>> {
    let began = Instant::now();
    // A time that is never reached must not overflow the clock.
    config.checkpoint_every = config.checkpoint_every.map(|every| every.min(NEVER));
    config.checkpoint_timeout = config.checkpoint_timeout.min(NEVER);
    config.commit_timeout = config.commit_timeout.min(NEVER);
    config.open_timeout = config.open_timeout.min(NEVER);
    let log = Log::new(Arc::clone(&ground.storage));
    let stage = Arc::clone(&ground.stage);
    let check = |recovery: &Recovery| {
        check_workers(config.workers * ground.processes(), groups(&config, recovery))?;
        check_sinks(&config, &registry, recovery, &ground, metrics)
    };
    let mut recovery = takeover::take_over(&config, &ground.identity, &log, &registry, &stage, check)?;
    config.groups = groups(&config, &recovery);
    forget_fences(&mut recovery, &log, &*ground.storage);
    crash::pass("recovery.claimed");
    announce(&recovery);
    metrics.restarts.inc_by(recovery.generation.0.saturating_sub(1) as f64);

    let (sender, messages) = unbounded();
    stage.enter("reading the splits of the checkpoint")?;
    let segments = read_segments(&recovery, &*ground.storage)?;
    let book = recovery.restore.as_ref().map(|(_, manifest)| Book::restore(manifest, segments.clone()));
    let book = book.unwrap_or_default();
    let (shared, processes) = share(ground, plan, &registry, &recovery, config, metrics, sender, &book)?;
    let committers = open_committers(&shared, &processes, &registry, &stage)?;
    let finished = recovery.already_finished;
    let acknowledgers = open_acknowledgers(&shared, &processes, &registry, &stage)?;
    let mut setup = setup(&shared, &registry, recovery, segments);
    setup.parts.acknowledging = acknowledgers.keys().cloned().collect();
    let protocol = Coordinator::new(setup);
    let open_inputs = registry.sources.len() * shared.agreed.workers as usize;
    let links = (Arc::clone(&processes), messages);
    let mut driver =
        Driver::new(Arc::clone(&shared), protocol, log.clone(), links, controls, committers, open_inputs);
    driver.acknowledgers = acknowledgers;
    driver.began = began;
    stage.enter_limited("publishing what the checkpoint lists")?;
    let finished = driver.recommit()?.is_some() || finished;
    crash::pass("recovery.recommitted");
    // Of a complete job, too: a process that was replaced may have gone on writing until it noticed.
    stage.enter("removing what unfinished checkpoints left")?;
    takeover::remove_orphans(&*shared.storage, &log, shared.agreed.generation)?;
    remove_older_work(&shared.config, shared.agreed.generation);
    if finished {
        tracing::info!("the job is already complete; there is nothing to do (start anew with --from none)");
        return Ok(None);
    }
    find_splits(&shared, &processes, registry, &stage)?;
    stage.enter("making the working directory")?;
    let spill_dir = shared.spill_dir.clone();
    let what = || format!("cannot make the working directory {}", spill_dir.display());
    std::fs::create_dir_all(&spill_dir).map_err(|e| Error::external(what()).caused_by(e))?;
    Ok(Some(Ready { shared, driver, processes, log, spill_dir }))
}

#[allow(clippy::too_many_arguments)]
fn share(
    ground: Ground,
    plan: Plan,
    registry: &Registry,
    recovery: &Recovery,
    config: RunConfig,
    metrics: &Metrics,
    coordinator: Sender<Message>,
    book: &Book,
) -> Result<(Arc<Shared>, Arc<Processes>)> {
    let workers = (config.workers * ground.processes()) as u32;
    let names = || registry.sources.iter().map(|source| source.name.clone());
    let hub = |source: String| {
        let hub = SplitHub::new(workers, book.splits(&source));
        (source, hub)
    };
    let hubs = names().map(hub).collect();
    let highest = |source: String| book.max_event_time_ms(&source).map(|highest| (source, highest));
    let processes = Processes::new(config.workers, recovery.next_checkpoint, hubs, coordinator);
    let agreed = Arc::new(Agreed {
        job: config.job.clone(),
        lineage: recovery.lineage.clone(),
        generation: recovery.generation,
        first_epoch: recovery.next_checkpoint,
        restored: recovery.restore.as_ref().map(|(_, manifest)| manifest.clone()),
        highest_ms: names().filter_map(highest).collect(),
        groups: config.groups,
        guarantee: config.guarantee,
        processes: ground.processes() as u32,
        workers,
        plan: fingerprint(&plan)?,
    });
    let shared = Arc::new(Shared::new(SharedParts {
        agreed: Arc::clone(&agreed),
        storage: ground.storage,
        io: ground.io,
        values: ground.values,
        link: Box::new(Own(Arc::clone(&processes))),
        metrics: metrics.clone(),
        spill: ground.spill,
        spill_dir: own_work(&config, recovery.generation, 0),
        stateful_steps: registry.states.len(),
        sources: names().collect(),
        plan,
        config,
    }));
    processes.connect(&shared, ground.others);
    Ok((shared, processes))
}

/// Deletes fences that nothing needs. A start does that itself: one that never decides anything, as of a job that
/// is complete, would only ever add its own.
fn forget_fences(recovery: &mut Recovery, log: &Log, storage: &dyn Storage) {
    let surplus = surplus_fences(&recovery.log);
    for slot in &surplus {
        if let Err(error) = storage.delete(&log.name(*slot)) {
            tracing::warn!(%error, "an old record of the log was not deleted");
        }
    }
    recovery.log.retain(|entry| !surplus.contains(&entry.slot));
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
    ground: &Ground,
    metrics: &Metrics,
) -> Result<()> {
    for factory in &registry.sinks {
        ground.stage.enter_limited(format!("sink `{}`: checking its target", factory.name))?;
        let context = SinkContext {
            job: config.job.clone(),
            sink: factory.name.clone(),
            lineage: recovery.lineage.clone(),
            generation: recovery.generation,
            instance: 0,
            instances: (config.workers * ground.processes()) as u32,
            next_checkpoint: recovery.next_checkpoint,
            fresh: recovery.restore.is_none(),
            taken_over_by: recovery.restore.as_ref().and_then(|(_, m)| taken_over_by(m, &factory.name)),
            storage: Arc::clone(&ground.storage),
            deadline: config.open_timeout,
            shared: ground.values.clone(),
            metrics: metrics.clone(),
        };
        let check = || ground.io.within(config.open_timeout, "checking its target", factory.check(context));
        caught(&factory.name, check)?;
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

fn setup(
    shared: &Shared,
    registry: &Registry,
    recovery: Recovery,
    segments: BTreeMap<String, Vec<Segment>>,
) -> Setup {
    let instances = shared.agreed.workers;
    Setup {
        job: shared.agreed.job.clone(),
        lineage: recovery.lineage,
        generation: recovery.generation,
        groups: shared.agreed.groups,
        workers: instances,
        parts: Parts {
            sources: registry.sources.iter().map(|s| (s.name.clone(), instances)).collect(),
            acknowledging: BTreeSet::new(),
            states: registry.states.iter().map(|s| (s.name.clone(), s.part(), instances)).collect(),
            sinks: registry.sinks.iter().map(|s| (s.name.clone(), instances)).collect(),
        },
        next_checkpoint: recovery.next_checkpoint,
        next_slot: recovery.slot.next(),
        restored: recovery.restore.map(|(_, manifest)| manifest),
        segments,
        log: recovery.log,
        retained: shared.config.retained,
        tolerated_failures: shared.config.tolerated_failures,
        guarantee: shared.agreed.guarantee,
    }
}

/// Where state is on disk while a job runs. Each generation has a directory of its own in it: one that does not
/// know yet that it was replaced must not touch the files of its successor.
fn work_dir(config: &RunConfig) -> PathBuf {
    config.state_dir.clone().unwrap_or_else(|| config.checkpoints.join("work"))
}

/// What the names of a job's own directories begin with. Jobs of one name may share the working directory; the
/// directory of their checkpoints tells them apart.
fn own_prefix(config: &RunConfig) -> String {
    let checkpoints = config.checkpoints.canonicalize().unwrap_or_else(|_| config.checkpoints.clone());
    format!("{}-{:08x}-g", config.job, crc32c::crc32c(checkpoints.as_os_str().as_encoded_bytes()))
}

/// That of one process of a generation.
pub(crate) fn own_work(config: &RunConfig, generation: Generation, process: u32) -> PathBuf {
    let of_process = if process == 0 { String::new() } else { format!(".{process}") };
    work_dir(config).join(format!("{}{}{of_process}", own_prefix(config), generation.0))
}

/// Removes what older generations of the job left in the working directory. What cannot be removed stays for the
/// next start: nobody reads it, and an older one that still lives may be writing there.
fn remove_older_work(config: &RunConfig, generation: Generation) {
    let (place, prefix) = (work_dir(config), own_prefix(config));
    let is_older = |entry: &DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of: Option<u64> = name.strip_prefix(&prefix).and_then(|of| of.split('.').next()?.parse().ok());
        of.is_some_and(|older| older < generation.0)
    };
    let remove = || {
        for entry in std::fs::read_dir(&place)? {
            let entry = entry?;
            if is_older(&entry) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    };
    match remove() {
        // It may be removing it itself.
        Err(e) if e.kind() != ErrorKind::NotFound => {
            tracing::warn!(error = %e, "what an older start left in {} was not removed", place.display());
        }
        Ok::<_, std::io::Error>(()) | Err(_) => {}
    }
}

type Committers = HashMap<String, tokio::sync::mpsc::UnboundedSender<Vec<Committable>>>;

/// Opens every committer: fences older generations, removes what is ours and not listed.
fn open_committers(
    shared: &Arc<Shared>,
    processes: &Arc<Processes>,
    registry: &Registry,
    stage: &Stage,
) -> Result<Committers> {
    let mut committers = HashMap::new();
    for factory in &registry.sinks {
        let part = shared.agreed.restored.as_ref().and_then(|m| m.sinks.get(&factory.name));
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
        stage.enter_limited(format!("sink `{}`: taking its target over", factory.name))?;
        let (context, limit) = (shared.sink_context(&factory.name, 0), shared.config.open_timeout);
        let recovering = factory.recover(context.clone(), listed.to_vec());
        let recover = || shared.io.within(limit, "taking its target over", recovering);
        let mut lanes = vec![caught(&factory.name, recover)?];
        let unanswered =
            |error| Error::external("the target does not answer").caused_by(error).in_step(&factory.name);
        crash::point("recovery.sink_fenced").map_err(unanswered)?;
        let (sender, due) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..factory.more_lanes() {
            let opening = factory.open(context.clone());
            let open = || shared.io.within(limit, "opening a further committer", opening);
            lanes.push(caught(&factory.name, open)?);
        }
        let task = CommitTask::new(shared, processes, &factory.name, lanes)?;
        shared.spawn(&factory.name, "committing", task.run(due));
        committers.insert(factory.name.clone(), sender);
    }
    Ok(committers)
}

/// Reads the segments of splits that the restored checkpoint names.
fn read_segments(recovery: &Recovery, storage: &dyn Storage) -> Result<BTreeMap<String, Vec<Segment>>> {
    let mut segments = BTreeMap::new();
    for (source, part) in recovery.restore.iter().flat_map(|(_, manifest)| &manifest.sources) {
        for file in &part.segments {
            let bytes = storage.get(&file.name)?;
            let segment = Segment::decode(file, &bytes).map_err(|e| {
                let what = format!(
                    "{e}. It has positions of splits; restore the file in {} from a backup, or start from an older \
                     checkpoint (--from ID)",
                    storage.place()
                );
                Error::job(what).in_step(source)
            })?;
            segments.entry(source.clone()).or_insert_with(Vec::new).push(segment);
        }
    }
    Ok(segments)
}

type Acknowledgers = HashMap<String, tokio::sync::mpsc::UnboundedSender<Due>>;

/// Opens the acknowledgers of the sources that have one.
fn open_acknowledgers(
    shared: &Arc<Shared>,
    processes: &Arc<Processes>,
    registry: &Registry,
    stage: &Stage,
) -> Result<Acknowledgers> {
    let mut acknowledgers = HashMap::new();
    for source in &registry.sources {
        stage.enter(format!("source `{}`: opening its acknowledger", source.name))?;
        let context = shared.source_context(&source.name, 0);
        let limit = context.deadline;
        let opening = (source.acknowledger)(context);
        let opened = async {
            tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
                Err(Error::external(format!(
                    "its acknowledger was not opened within {limit:?} (--open-timeout)"
                )))
            })
        };
        let Some(acknowledger) = caught(&source.name, || shared.io.block_on(opened))? else { continue };
        let (sender, due) = tokio::sync::mpsc::unbounded_channel();
        let task = AcknowledgeTask {
            source: source.name.clone(),
            acknowledger,
            shared: Arc::clone(shared),
            processes: Arc::clone(processes),
        };
        shared.spawn(&source.name, "the acknowledger", task.run(due));
        acknowledgers.insert(source.name.clone(), sender);
    }
    Ok(acknowledgers)
}

/// Lists the splits of every source, and goes on looking where that is wanted.
fn find_splits(
    shared: &Arc<Shared>,
    processes: &Arc<Processes>,
    registry: Registry,
    stage: &Stage,
) -> Result<()> {
    for source in registry.sources {
        stage.enter(format!("source `{}`: listing its splits", source.name))?;
        let found =
            caught(&source.name, || shared.io.block_on(source.list(shared.source_context(&source.name, 0))))?;
        let hub = processes.hub(&source.name)?;
        let finished = hub.finished_of(&found);
        if !finished.is_empty() {
            let context = shared.source_context(&source.name, 0);
            let said = caught(&source.name, || shared.io.block_on(source.revisit(finished, context)))?;
            hub.revise(said);
        }
        processes.deal_restored(&source.name)?;
        processes.listed(&source.name, found, source.forgets)?;
        if let Some(every) = source.every {
            let step = source.name.clone();
            let task = discover(source, every, Arc::clone(shared), Arc::clone(processes));
            shared.spawn(step, "looking for new splits", task);
        }
    }
    Ok(())
}

/// Looks for new splits until the job ends. What looking again cannot change ends it.
async fn discover(source: Enumerator, every: Duration, shared: Arc<Shared>, processes: Arc<Processes>) {
    let is_ending = || shared.is_stopping() || shared.is_quiet() || shared.is_draining();
    loop {
        tokio::time::sleep(every).await;
        let listed = source.list(shared.source_context(&source.name, 0)).await;
        if is_ending() {
            return;
        }
        match listed.and_then(|found| processes.listed(&source.name, found, source.forgets)) {
            Ok(0) => {}
            Ok(new) => {
                tracing::info!(source = source.name, new, "new splits");
                processes.note_activity();
            }
            Err(error) if error.kind() == Kind::Job => return shared.fail(error),
            Err(error) => tracing::warn!(%error, "splits could not be listed; trying again"),
        }
    }
}
