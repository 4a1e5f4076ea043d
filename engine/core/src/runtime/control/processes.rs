//! The coordinator's side of the links to all processes of the job, its own included.
//!
//! What a process tells is heard here. What concerns the clock, the splits and the beginning is acted upon at once, on the
//! thread that hears it: none of that waits for the coordinator's turn. All else is put into the coordinator's queue, in
//! its order. A link that closes before the end is a failure of the job.

use super::message::Message;
use super::pulse::Pulse;
use super::splits::{Found, Listed, SplitHub};
use crate::error::{Error, Result};
use crate::runtime::process::link::{Dealt, Failure, FromProcess, Link, Peer, ToProcess};
use crate::runtime::process::shared::Shared;
use crossbeam_channel::Sender;
use staunch_checkpoint::{CheckpointId, Event, SplitPart};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// See the [module](self).
pub(crate) struct Processes {
    /// By their numbers; the first is the coordinator's own.
    peers: OnceLock<Vec<Box<dyn Peer>>>,
    /// Workers of one process.
    workers_each: usize,
    pulse: Pulse,
    /// By source.
    splits: HashMap<String, SplitHub>,
    coordinator: Sender<Message>,
    /// Processes whose workers are up.
    up: AtomicUsize,
    /// All were told that it is over.
    over: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Processes {
    pub(crate) fn new(
        workers_each: usize,
        first_epoch: CheckpointId,
        splits: HashMap<String, SplitHub>,
        coordinator: Sender<Message>,
    ) -> Arc<Self> {
        Arc::new(Self {
            peers: OnceLock::new(),
            workers_each,
            pulse: Pulse::new(first_epoch.0),
            splits,
            coordinator,
            up: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            failure: Mutex::new(None),
        })
    }

    /// Says once which processes there are: the coordinator's own and the others, which are sent what is agreed on.
    pub(crate) fn connect(&self, own: &Arc<Shared>, others: Vec<Box<dyn Peer>>) {
        let mut peers: Vec<Box<dyn Peer>> = vec![Box::new(OwnPeer(Arc::downgrade(own)))];
        peers.extend(others);
        let _ = self.peers.set(peers);
        for process in 1..self.peers().len() {
            let agreed = Box::new((*own.agreed).clone());
            self.send(process, ToProcess::Join { process: process as u32, agreed });
        }
    }

    fn peers(&self) -> &[Box<dyn Peer>] {
        self.peers.get().map_or(&[], Vec::as_slice)
    }

    fn send_all(&self, message: &ToProcess) {
        for process in 0..self.peers().len() {
            self.send(process, message.clone());
        }
    }

    fn send(&self, process: usize, message: ToProcess) {
        if !self.peers()[process].send(message) {
            self.lost(process);
        }
    }

    /// What the process of this number tells.
    pub(crate) fn hear(&self, process: usize, message: FromProcess) {
        match message {
            FromProcess::Active => self.pulse.note_activity(),
            FromProcess::Finished { source, split } => {
                if let Some(hub) = self.splits.get(&source) {
                    hub.finished(&split);
                }
            }
            FromProcess::Up => {
                if self.up.fetch_add(1, SeqCst) + 1 == self.peers().len() {
                    self.send_all(&ToProcess::Begin);
                    self.queue(Message::Started);
                }
            }
            FromProcess::Ack { part, checkpoint, report } => {
                self.tell(Event::Ack { part, checkpoint, report });
            }
            FromProcess::Missed { part, checkpoint, reason } => {
                self.tell(Event::Failed { part, checkpoint, reason });
            }
            FromProcess::Ended => self.queue(Message::Ended),
            FromProcess::MemoryFull(step) => self.queue(Message::MemoryFull(step)),
            FromProcess::Failed(failure) => self.failed(process, failure.into()),
        }
    }

    /// The link to a process is closed.
    pub(crate) fn lost(&self, process: usize) {
        if self.over.load(SeqCst) {
            return;
        }
        let error = Error::external(format!(
            "process {process} of the job is gone: its link closed before the job was over. Its own log says why; a restart \
             of all processes continues from the newest checkpoint"
        ));
        self.failed(process, error);
    }

    /// The first error counts; the later ones are its echoes, and are logged.
    fn failed(&self, process: usize, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            *failure = Some(error);
        } else {
            tracing::debug!(process, %error, "a further error while the job was already failing");
        }
        drop(failure);
        self.queue(Message::Failed);
    }

    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// To the coordinator's thread. It outlives the workers; after the end nobody listens, and that is fine.
    pub(crate) fn queue(&self, message: Message) {
        let _ = self.coordinator.send(message);
    }

    /// The same, of something for the protocol.
    pub(crate) fn tell(&self, event: Event) {
        self.queue(Message::Protocol(event));
    }

    /// Whether all workers of all processes are up.
    pub(crate) fn are_up(&self) -> bool {
        self.up.load(SeqCst) == self.peers().len()
    }
}

/// The clock.
impl Processes {
    pub(crate) fn note_activity(&self) {
        self.pulse.note_activity();
    }

    /// See [`Pulse::activity`].
    pub(crate) fn activity(&self) -> u64 {
        self.pulse.activity()
    }

    /// Sources close the epoch of a checkpoint.
    pub(crate) fn barrier(&self, checkpoint: CheckpointId) {
        self.send_all(&ToProcess::Tick(self.pulse.barrier(checkpoint.0)));
    }

    /// The next step begins, if anything was emitted in this one.
    #[cfg(feature = "simulation")]
    pub(crate) fn advance(&self) {
        if let Some(now) = self.pulse.advance() {
            self.send_all(&ToProcess::Tick(now));
        }
    }

    /// Body of the clock's thread.
    pub(crate) fn run_clock(&self, step: Duration) {
        self.pulse.run(step, |now| self.send_all(&ToProcess::Tick(now)));
    }
}

/// What all processes are told.
impl Processes {
    pub(crate) fn decided(&self, checkpoint: CheckpointId) {
        self.send_all(&ToProcess::Decided(checkpoint));
    }

    pub(crate) fn quiet(&self) {
        self.send_all(&ToProcess::Quiet);
    }

    pub(crate) fn drain(&self) {
        self.send_all(&ToProcess::Drain);
        self.note_activity();
    }

    /// No checkpoint is taken for now, or they are again.
    pub(crate) fn backlog(&self, is_there: bool) {
        self.send_all(&ToProcess::Backlog(is_there));
    }

    /// It is over: all workers leave, and the clock stops.
    pub(crate) fn stop(&self, error: Option<&Error>) {
        self.over.store(true, SeqCst);
        self.pulse.stop();
        self.send_all(&ToProcess::Stop(error.map(Failure::from)));
    }
}

/// Splits.
impl Processes {
    pub(crate) fn hub(&self, source: &str) -> Result<&SplitHub> {
        let unknown = || Error::internal("splits of a source that the job does not have").in_step(source);
        self.splits.get(source).ok_or_else(unknown)
    }

    /// Deals out what the checkpoint knows.
    pub(crate) fn deal_restored(&self, source: &str) -> Result<()> {
        let dealt = self.hub(source)?.deal_restored();
        self.deal(source, dealt);
        Ok(())
    }

    /// Deals new splits out and forgets those that are gone; says how many are new.
    pub(crate) fn listed(&self, source: &str, found: Found, forgets: bool) -> Result<usize> {
        let Listed { dealt, forgotten } = self.hub(source)?.listed(found, forgets);
        let new = dealt.len();
        self.deal(source, dealt);
        if !forgotten.is_empty() {
            tracing::debug!(source, splits = forgotten.len(), "ended splits are forgotten");
            self.tell(Event::Forget { source: source.to_owned(), splits: forgotten });
            // So that a checkpoint comes that does not know them any more.
            self.note_activity();
        }
        Ok(new)
    }

    /// It is decided that these have ended.
    pub(crate) fn ended(&self, source: &str, splits: &[SplitPart]) {
        if let Some(hub) = self.splits.get(source) {
            hub.ended(splits);
        }
    }

    fn deal(&self, source: &str, dealt: Vec<Dealt>) {
        let mut of_process: Vec<Vec<Dealt>> = self.peers().iter().map(|_| Vec::new()).collect();
        for dealt in dealt {
            let process = dealt.instance as usize / self.workers_each;
            of_process[process].push(dealt);
        }
        for (process, splits) in of_process.into_iter().enumerate() {
            if !splits.is_empty() {
                self.send(process, ToProcess::Splits { source: source.to_owned(), splits });
            }
        }
    }
}

/// The link of the coordinator's own process: a call, in both directions.
pub(crate) struct Own(pub(crate) Arc<Processes>);

impl Link for Own {
    fn tell(&self, message: FromProcess) -> bool {
        self.0.hear(0, message);
        true
    }
}

/// The other end of [`Own`].
struct OwnPeer(Weak<Shared>);

impl Peer for OwnPeer {
    fn send(&self, message: ToProcess) -> bool {
        let process = self.0.upgrade();
        process.inspect(|process| process.take(message)).is_some()
    }
}
