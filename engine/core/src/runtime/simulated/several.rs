//! One generation as several processes in one, on threads that move by themselves; tests only.
//!
//! Each process has what a process has: workers, I/O threads, what connectors share, metrics, a working directory. They
//! know of each other what their links carry, which is bytes. Only records pass as between workers of one process: there is
//! no other way for them yet.

use crate::config::RunConfig;
use crate::context::SharedValues;
use crate::control::{Controls, Outcome};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime::control::processes::Processes;
use crate::runtime::life::run::start_workers;
use crate::runtime::life::start::{Ground, begin, own_work};
use crate::runtime::life::takeover::Identity;
use crate::runtime::life::worker::{Registry, Site, Turns};
use crate::runtime::process::agreed::Agreed;
use crate::runtime::process::io::Io;
use crate::runtime::process::link::{FromProcess, Link, Peer, ToProcess};
use crate::runtime::process::shared::{Shared, SharedParts};
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_state::SpillShared;
use staunch_state::storage::Storage;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use timely::worker::Worker;
use tokio::runtime::Runtime;

/// How long a worker sleeps at most.
const PARK: Duration = Duration::from_millis(100);
/// How long I/O tasks may take to notice that the job is over.
const IO_SHUTDOWN: Duration = Duration::from_secs(2);

/// One direction of a link: bytes, until it is closed.
#[derive(Clone)]
struct Wire(Arc<Mutex<Option<Sender<Vec<u8>>>>>);

impl Wire {
    fn new() -> (Self, Receiver<Vec<u8>>) {
        let (sender, receiver) = channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    fn send(&self, message: &impl Serialize) -> bool {
        let Ok(bytes) = postcard::to_allocvec(message) else { return false };
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().is_some_and(|sender| sender.send(bytes).is_ok())
    }

    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Link for Wire {
    fn tell(&self, message: FromProcess) -> bool {
        self.send(&message)
    }
}

impl Peer for Wire {
    fn send(&self, message: ToProcess) -> bool {
        Wire::send(self, &message)
    }
}

/// Calls for each message that comes, until the wire is closed or brings what is none.
fn read<M: DeserializeOwned>(wire: &Receiver<Vec<u8>>, mut take: impl FnMut(M)) {
    while let Ok(message) = wire.recv() {
        let Ok(message) = postcard::from_bytes(&message) else { return };
        take(message);
    }
}

/// Cuts the links of processes.
#[derive(Clone, Default)]
pub struct Cutter(Arc<Mutex<Vec<[Wire; 2]>>>);

impl Cutter {
    /// Closes the link of a process that is not the coordinator's own, as a broken connection does; the first of these
    /// is 1.
    pub fn cut(&self, process: usize) {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = process.checked_sub(1).and_then(|at| links.get(at)) {
            link.iter().for_each(Wire::close);
        }
    }
}

/// With what several processes are started.
pub struct Setup {
    /// As in a real run; workers, memory and directories are those of each process.
    pub config: RunConfig,
    /// Where checkpoints are, of all.
    pub storage: Arc<dyn Storage>,
    /// Requests.
    pub controls: Controls,
    /// The metrics of each process; there are as many processes.
    pub metrics: Vec<Metrics>,
    /// Cuts their links.
    pub cutter: Cutter,
    /// How long what the coordinator says is on its way to the other processes, at first.
    pub late: Duration,
}

/// A process that is not the coordinator's own.
struct Member {
    shared: Arc<Shared>,
    io: Runtime,
    listening: [JoinHandle<()>; 2],
}

fn io() -> Result<Runtime> {
    let io = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    io.map_err(|e| Error::external("cannot start I/O threads").caused_by(e))
}

/// Takes part in what is agreed on.
fn join(
    process: u32,
    agreed: Agreed,
    plan: Plan,
    registry: &Registry,
    link: Wire,
    io: &Runtime,
    setup: &Setup,
) -> Result<Arc<Shared>> {
    agreed.check(&plan, setup.config.workers)?;
    let spill_dir = own_work(&setup.config, agreed.generation, process);
    let cannot = |e| Error::external("cannot make the working directory").caused_by(e);
    std::fs::create_dir_all(&spill_dir).map_err(cannot)?;
    Ok(Arc::new(Shared::new(SharedParts {
        agreed: Arc::new(agreed),
        config: setup.config.clone(),
        plan,
        storage: Arc::clone(&setup.storage),
        io: Io::new(io.handle().clone()),
        link: Box::new(link),
        metrics: setup.metrics[process as usize].clone(),
        values: SharedValues::default(),
        spill: SpillShared::with_defaults(),
        spill_dir,
        stateful_steps: registry.states.len(),
        sources: registry.sources.iter().map(|source| source.name.clone()).collect(),
    })))
}

/// Runs a job to its end; how it ended in each process.
///
/// # Errors
/// None of the processes began.
pub(crate) fn run_graph<B>(build: B, setup: &Setup) -> Result<Vec<Result<Outcome>>>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan> + Send + Sync + 'static,
{
    let (plan, registry) = crate::runtime::plan(&build)?;
    let others = setup.metrics.len() - 1;
    let (mut ends, mut peers) = (Vec::new(), Vec::<Box<dyn Peer>>::new());
    for _ in 0..others {
        let ((down, from_coordinator), (up, from_process)) = (Wire::new(), Wire::new());
        peers.push(Box::new(down.clone()));
        setup.cutter.0.lock().unwrap_or_else(PoisonError::into_inner).push([down, up.clone()]);
        ends.push((up, from_coordinator, from_process));
    }
    let own_io = io()?;
    let ground = Ground {
        storage: Arc::clone(&setup.storage),
        io: Io::new(own_io.handle().clone()),
        identity: Identity::of_process(),
        values: SharedValues::default(),
        spill: SpillShared::with_defaults(),
        stage: Arc::default(),
        others: peers,
    };
    let (controls, metrics) = (setup.controls.clone(), &setup.metrics[0]);
    let Some(ready) = begin(ground, plan, registry, setup.config.clone(), controls, metrics)? else {
        return Ok((0..=others).map(|_| Ok(Outcome::AlreadyFinished)).collect());
    };
    let processes = Arc::clone(&ready.processes);
    let mut members = Vec::new();
    for (up, from_coordinator, from_process) in ends {
        members.push(member(&build, setup, &processes, up, from_coordinator, from_process)?);
    }
    let locals = std::iter::once(&ready.shared).chain(members.iter().map(|member| &member.shared));
    let locals: Vec<Arc<Shared>> = locals.cloned().collect();
    let clock = {
        let (processes, step) = (Arc::clone(&processes), setup.config.step);
        std::thread::spawn(move || processes.run_clock(step))
    };
    let pace = |worker: &mut Worker, turns: &mut Turns, shared: &Shared| {
        while !shared.is_stopping() {
            turns.begin();
            worker.step_or_park(Some(PARK));
        }
    };
    let workers = start_workers(build, locals, |_| {}, pace)?;
    let (mut driver, end) = ready.into_end();
    let mut outcome = driver.run();
    for joined in workers.join() {
        if let Err(panic) = joined {
            tracing::debug!(panic, "a worker ended by a panic");
        }
    }
    driver.settle(outcome.is_ok());
    if let (Some(error), true) = (processes.take_failure(), outcome.is_ok()) {
        outcome = Err(error);
    }
    let _ = clock.join();
    end.clean_up(outcome.is_ok());
    own_io.shutdown_timeout(IO_SHUTDOWN);
    let ended = outcome.as_ref().ok().copied();
    let mut ends = vec![outcome];
    for (at, member) in members.into_iter().enumerate() {
        setup.cutter.cut(at + 1);
        for listening in member.listening {
            let _ = listening.join();
        }
        // What is left is removed by the next start.
        let _ = std::fs::remove_dir_all(&member.shared.spill_dir);
        member.io.shutdown_timeout(IO_SHUTDOWN);
        let unknown = || Error::internal("the process was not told why it ended");
        ends.push(match (member.shared.take_failure(), ended) {
            (Some(error), _) => Err(error),
            (None, Some(outcome)) => Ok(outcome),
            (None, None) => Err(unknown()),
        });
    }
    Ok(ends)
}

/// Starts a process that takes part, as far as its links go.
fn member<B>(
    build: &B,
    setup: &Setup,
    processes: &Arc<Processes>,
    up: Wire,
    from_coordinator: Receiver<Vec<u8>>,
    from_process: Receiver<Vec<u8>>,
) -> Result<Member>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan>,
{
    let first = from_coordinator.recv().ok().and_then(|bytes| postcard::from_bytes(&bytes).ok());
    let Some(ToProcess::Join { process, agreed }) = first else {
        return Err(Error::internal("the first message to a process is no `Join`"));
    };
    let (plan, registry) = crate::runtime::plan(build)?;
    let io = io()?;
    let shared = join(process, *agreed, plan, &registry, up, &io, setup)?;
    let (follower, processes, late) = (Arc::clone(&shared), Arc::clone(processes), setup.late);
    let listening = [
        std::thread::spawn(move || {
            std::thread::sleep(late);
            read(&from_coordinator, |message| follower.take(message));
            follower.link_closed();
        }),
        std::thread::spawn(move || {
            read(&from_process, |message| processes.hear(process as usize, message));
            processes.lost(process as usize);
        }),
    ];
    Ok(Member { shared, io, listening })
}
