//! The coordinator's thread: carries the protocol's decisions out.
//!
//! It alone knows the clock on the wall, the log's files and the committers' tasks; what to do is
//! decided in `staunch_checkpoint`.

use super::acknowledging::Due;
use super::log::Log;
use super::message::Message;
use super::planted;
use super::processes::Processes;
use super::publishing::{Publishing, STORAGE_LIMIT_AT_THE_END};
use super::requests::Asking;
use super::tally::Tally;
use crate::control::{Asked, Controls, JobEvent, Outcome};
use crate::crash;
use crate::error::{Error, Result};
use crate::runtime::process::shared::Shared;
use crate::runtime::process::wall_clock;
use crossbeam_channel::{Receiver, select};
use staunch_checkpoint::coordinator::Coordinator;
use staunch_checkpoint::{Action, Blame, CheckpointId, Committable, Event, Expiry, Kind, StopReason};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

/// Longest sleep, so that ages in metrics stay fresh.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// Committables that may wait for their commit before no further periodic checkpoint is taken.
const MOST_PENDING: usize = 1000;
/// How often a running job says in its log how it is doing.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Driver {
    /// What the coordinator's own process has.
    pub(crate) shared: Arc<Shared>,
    pub(crate) processes: Arc<Processes>,
    /// When the start began.
    pub(crate) began: Instant,
    pub(crate) protocol: Coordinator,
    pub(crate) log: Log,
    pub(crate) messages: Receiver<Message>,
    pub(crate) controls: Controls,
    pub(crate) committers: HashMap<String, UnboundedSender<Vec<Committable>>>,
    pub(crate) acknowledgers: HashMap<String, UnboundedSender<Due>>,
    /// Source instances whose input has not ended.
    pub(crate) open_inputs: usize,
    pub(super) state: State,
}

enum Input {
    Message(Message),
    Request(Asked),
}

/// What the driver remembers between events.
pub(super) struct State {
    pub(super) started: Option<Instant>,
    /// When the next periodic checkpoint is due.
    due: Option<Instant>,
    /// The undecided checkpoint, since when, and when it is given up.
    pub(super) undecided: Option<(CheckpointId, Instant)>,
    /// What is on its way into the log.
    pub(super) publishing: Option<Publishing>,
    /// Requests that are not answered yet.
    pub(super) asking: Asking,
    tally: Tally,
    /// The clock's activity when the last decided checkpoint began.
    covered_activity: u64,
    barrier_activity: u64,
    /// When the epochs began that are not committed yet.
    epochs: HashMap<u32, Instant>,
    bytes_before: u64,
    last_decided: Instant,
    last_progress: (Instant, u64),
    /// No further checkpoint is taken but the last one.
    pub(super) ending: bool,
    /// State waits for a checkpoint to move to disk; the next one does not wait for its time.
    memory_full: bool,
    /// So much prepared output waits for its commits that no checkpoint is taken; processes know it.
    backlog: bool,
    /// A drain was asked for, and waits for the undecided checkpoint: that one would have the watermark
    /// of the end beside positions in the middle.
    pub(super) drain_due: bool,
    /// Sources were told to drain.
    pub(super) draining: bool,
    /// A stop was asked for before all workers were up.
    pub(super) stop_since: Option<Instant>,
    /// The first time that a stop or a drain was asked for.
    pub(super) end_asked: Option<Instant>,
    /// Deletions under way.
    expiring: Vec<JoinHandle<()>>,
    over: Option<Result<Outcome>>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        protocol: Coordinator,
        log: Log,
        (processes, messages): (Arc<Processes>, Receiver<Message>),
        controls: Controls,
        committers: HashMap<String, UnboundedSender<Vec<Committable>>>,
        open_inputs: usize,
    ) -> Self {
        let now = wall_clock::now();
        let state = State {
            started: None,
            due: None,
            undecided: None,
            publishing: None,
            asking: Asking::default(),
            tally: Tally::default(),
            covered_activity: 0,
            barrier_activity: 0,
            epochs: HashMap::new(),
            bytes_before: 0,
            last_decided: now,
            last_progress: (now, 0),
            ending: false,
            drain_due: false,
            draining: false,
            memory_full: false,
            backlog: false,
            stop_since: None,
            end_asked: None,
            expiring: Vec::new(),
            over: None,
        };
        Self {
            shared,
            processes,
            began: now,
            protocol,
            log,
            messages,
            controls,
            committers,
            acknowledgers: HashMap::new(),
            open_inputs,
            state,
        }
    }

    /// Commits what the restored checkpoint lists; must be done before anything is read.
    pub(crate) fn recommit(&mut self) -> Result<Option<Outcome>> {
        let actions = self.protocol.start();
        self.carry_out(actions);
        while self.state.over.is_none() && (!self.protocol.is_recommitted() || self.protocol.is_ending()) {
            match self.shared.io.wait(&self.messages) {
                Some(Message::Protocol(event)) => {
                    self.feed(event);
                    crash::pass("recovery.some_recommitted");
                }
                Some(Message::Failed) | None => break,
                Some(_) => {}
            }
        }
        if let Some(error) = self.processes.take_failure() {
            return Err(error);
        }
        self.state.over.take().transpose()
    }

    /// Runs until the job is over.
    pub(crate) fn run(&mut self) -> Result<Outcome> {
        let outcome = loop {
            let wait = self.next_wake().saturating_duration_since(wall_clock::now());
            if let Some(over) = self.turn(wait) {
                break over;
            }
        };
        self.processes.stop(outcome.as_ref().err());
        self.answer_the_rest(&outcome);
        outcome
    }

    /// Waits for what is still under way beside this thread: nothing is to be put into the log after the end, and after
    /// a good one nothing is left to be deleted.
    pub(crate) fn settle(&mut self, ended_well: bool) {
        let publishing = self.state.publishing.take().and_then(|publishing| publishing.task);
        let expiring = std::mem::take(&mut self.state.expiring);
        for task in publishing.into_iter().chain(expiring.into_iter().filter(|_| ended_well)) {
            // What it did not do is found at the next start.
            let _ = self.shared.io.block_on(async { Ok(task.await) });
        }
    }

    /// Handles the next message or request, waiting for one at most so long, and does what is due. Returns
    /// how the job ended, once it has.
    pub(crate) fn turn(&mut self, wait: Duration) -> Option<Result<Outcome>> {
        match self.next_input(wait) {
            Some(Input::Message(Message::Protocol(event))) => self.feed(event),
            Some(Input::Message(Message::Started)) => self.started(),
            Some(Input::Message(Message::Ended)) => self.ended(),
            Some(Input::Message(Message::CommitTook(seconds))) => {
                self.shared.metrics.commit_duration.observe(seconds);
            }
            Some(Input::Message(Message::Published { checkpoint, slot, outcome })) => {
                self.published(checkpoint, slot, outcome);
            }
            Some(Input::Message(Message::Failed)) => {
                let nobody = || Error::internal("the job failed and nobody said why");
                return Some(Err(self.processes.take_failure().unwrap_or_else(nobody)));
            }
            Some(Input::Message(Message::MemoryFull(state))) => {
                tracing::debug!(state, "state exceeds its memory, and all of it has changed");
                self.state.memory_full = true;
            }
            Some(Input::Request(asked)) => {
                self.controls.heard(&asked);
                self.requested(asked);
            }
            None => {}
        }
        self.tick();
        self.state.over.take()
    }

    fn next_input(&self, wait: Duration) -> Option<Input> {
        // Requests are rare, and must not wait behind a stream of messages.
        if let Ok(request) = self.controls.requests().try_recv() {
            return Some(Input::Request(request));
        }
        if let Ok(message) = self.messages.try_recv() {
            return Some(Input::Message(message));
        }
        if wait.is_zero() {
            return None;
        }
        select! {
            recv(self.messages) -> message => message.ok().map(Input::Message),
            recv(self.controls.requests()) -> request => request.ok().map(Input::Request),
            default(wait) => None,
        }
    }

    fn started(&mut self) {
        let (now, took) = (wall_clock::now(), self.began.elapsed());
        self.shared.metrics.restore_seconds.set(took.as_secs_f64());
        tracing::info!(workers = self.shared.agreed.workers, ?took, "running");
        self.state.started = Some(now);
        self.state.last_decided = now;
        self.state.due = self.shared.config.checkpoint_every.map(|every| now + every);
        self.state.epochs.insert(self.shared.agreed.first_epoch.0, now);
        self.controls.tell(|| JobEvent::Started {
            generation: self.shared.agreed.generation,
            restored: self.shared.agreed.restored.as_ref().map(|restored| restored.checkpoint),
        });
        if self.open_inputs == 0 && !self.state.ending {
            self.finish();
        }
    }

    fn ended(&mut self) {
        self.open_inputs = self.open_inputs.saturating_sub(1);
        if self.open_inputs == 0 {
            self.finish();
        }
    }

    fn finish(&mut self) {
        tracing::info!("all input is read; taking the final checkpoint");
        self.end(Kind::Final);
    }

    pub(super) fn end(&mut self, kind: Kind) {
        self.state.ending = true;
        self.processes.quiet();
        self.feed(Event::Trigger(kind));
    }

    fn next_wake(&self) -> Instant {
        let timeout = match &self.state.publishing {
            Some(publishing) => Some(self.deadline(publishing)),
            None => self.state.undecided.map(|(_, since)| since + self.shared.config.checkpoint_timeout),
        };
        let look_around = wall_clock::now() + LOOK_AROUND;
        [self.state.due, timeout].into_iter().flatten().fold(look_around, Instant::min)
    }

    /// What time alone brings: a checkpoint that is due, one that takes too long, metrics.
    fn tick(&mut self) {
        let now = wall_clock::now();
        self.give_up_waiting(now);
        if let Some((checkpoint, since)) = self.state.undecided
            && now >= since + self.shared.config.checkpoint_timeout
            && self.state.publishing.is_none()
        {
            self.feed(Event::Timeout { checkpoint });
        }
        // Prepared output waits for its commits in memory and in every manifest.
        let backlog = self.protocol.committables_pending() >= MOST_PENDING;
        if std::mem::replace(&mut self.state.backlog, backlog) != backlog {
            self.processes.backlog(backlog);
        }
        if let (Some(due), Some(every)) = (self.state.due, self.shared.config.checkpoint_every)
            && now >= due
        {
            self.state.due = Some((due + every).max(now));
            let anything_new = self.processes.activity() != self.state.covered_activity;
            if anything_new && !backlog && !self.state.ending {
                self.feed(Event::Trigger(Kind::Periodic));
            }
        }
        if self.state.memory_full && !backlog && !self.state.ending && self.protocol.undecided().is_none() {
            self.state.memory_full = false;
            tracing::debug!("taking a checkpoint early, so that state can move to disk");
            self.feed(Event::Trigger(Kind::Periodic));
        }
        if self.state.drain_due && self.protocol.undecided().is_none() {
            self.state.drain_due = false;
            self.state.draining = true;
            self.processes.drain();
        }
        self.observe(now);
    }

    fn observe(&mut self, now: Instant) {
        let metrics = &self.shared.metrics;
        let covered = self.processes.activity() == self.state.covered_activity;
        let age = if covered { Duration::ZERO } else { now - self.state.last_decided };
        metrics.checkpoint_age.set(age.as_secs_f64());
        metrics.committables_pending.set(self.protocol.committables_pending() as i64);
        metrics.records_read.store(self.shared.records_read.load(SeqCst), SeqCst);
        let Some(started) = self.state.started else { return };
        metrics.uptime.set((now - started).as_secs_f64());
        let (last, before) = self.state.last_progress;
        if now - last >= PROGRESS_EVERY {
            let read = self.shared.records_read.load(SeqCst);
            let rate = (read - before) as f64 / (now - last).as_secs_f64();
            tracing::info!(
                records_read = read,
                records_per_second = rate.round(),
                last_checkpoint = metrics.last_checkpoint.get(),
                "running"
            );
            self.state.last_progress = (now, read);
        }
    }

    /// Gives an event to the protocol and does what it says.
    pub(super) fn feed(&mut self, event: Event) {
        if let Event::Committed { sink, upto } = &event {
            tracing::debug!(sink, checkpoint = upto.0, "committed");
            let records = self.state.tally.committed(sink, *upto);
            self.shared.metrics.records_published.with_label_values(&[sink.as_str()]).inc_by(records);
            self.controls.tell(|| JobEvent::Committed { sink: sink.clone(), upto: *upto });
            if let Some(began) = self.state.epochs.get(&upto.0) {
                self.shared.metrics.end_to_end_latency.observe(began.elapsed().as_secs_f64());
            }
            self.state.epochs.retain(|epoch, _| *epoch > upto.0);
        }
        let committed = matches!(event, Event::Committed { .. });
        let neighbour = planted::counted_twice(&event, self.shared.agreed.workers);
        let mut actions = self.protocol.handle(event, wall_clock::unix_ms());
        actions
            .extend(neighbour.into_iter().flat_map(|ack| self.protocol.handle(ack, wall_clock::unix_ms())));
        if committed && self.protocol.committables_pending() == 0 {
            crash::pass("commit.all_done");
        }
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Barrier { checkpoint, kind } => self.barrier(checkpoint, &kind),
                Action::Publish { checkpoint, slot, manifest, segments } => {
                    crash::pass("decision.due");
                    if self.protocol.committables_pending() > 0 {
                        crash::pass("decision.while_pending");
                    }
                    planted::commit_early(&manifest, &self.committers);
                    self.publish(checkpoint, slot, *manifest, segments);
                }
                Action::Reread { checkpoint, slot } => self.reread(checkpoint, slot),
                Action::Decided { checkpoint, kind } => self.decided(checkpoint, &kind),
                Action::Ended { source, splits } => self.processes.ended(&source, &splits),
                Action::Acknowledge { source, upto, splits } => match self.acknowledgers.get(&source) {
                    Some(acknowledger) => drop(acknowledger.send((upto, splits))),
                    None => self.over(Err(Error::internal(format!("source `{source}` has no acknowledger")))),
                },
                Action::Commit { sink, committables }
                    if crash::bug("recommit_skipped") && self.state.started.is_none() =>
                {
                    let upto = committables.iter().map(|c| c.checkpoint).max().unwrap_or(CheckpointId(0));
                    self.feed(Event::Committed { sink, upto });
                }
                Action::Commit { sink, committables } => match self.committers.get(&sink) {
                    // The task outlives this thread's work: it is joined after it.
                    Some(committer) => {
                        self.state.tally.due(&sink, &committables);
                        drop(committer.send(committables));
                        crash::pass("decision.some_told");
                    }
                    None => self.over(Err(Error::internal(format!("sink `{sink}` has no committer")))),
                },
                Action::Aborted { checkpoint, reason } => {
                    tracing::warn!(checkpoint = checkpoint.0, reason, "checkpoint abandoned");
                    self.shared.metrics.checkpoints_failed.inc();
                    self.state.undecided = None;
                    self.state.asking.aborted(checkpoint, &reason);
                    self.controls.tell(|| JobEvent::CheckpointFailed { id: checkpoint, reason });
                }
                Action::Dropped { kind, reason } => {
                    tracing::warn!(?kind, reason, "request dropped");
                    self.state.asking.dropped(&kind, &reason);
                }
                Action::Expire(expiry) => self.expire(expiry),
                Action::Stop(reason) => self.stop(reason),
            }
        }
    }

    fn barrier(&mut self, checkpoint: CheckpointId, kind: &Kind) {
        crash::pass("barrier.due");
        let now = wall_clock::now();
        tracing::debug!(checkpoint = checkpoint.0, ?kind, "checkpoint begins");
        self.state.barrier_activity = self.processes.activity();
        self.state.undecided = Some((checkpoint, now));
        self.state.epochs.insert(checkpoint.0 + 1, now);
        self.processes.barrier(checkpoint);
        crash::pass("barrier.sent");
    }

    fn decided(&mut self, checkpoint: CheckpointId, kind: &Kind) {
        let metrics = &self.shared.metrics;
        let took = self.state.undecided.take().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        metrics.checkpoint_duration.observe(took.as_secs_f64());
        let written = metrics.checkpoint_bytes_total.get();
        let bytes = written - self.state.bytes_before;
        metrics.checkpoint_bytes.set(bytes as i64);
        self.state.bytes_before = written;
        metrics.checkpoints_completed.inc();
        metrics.last_checkpoint.set(i64::from(checkpoint.0));
        self.state.covered_activity = self.state.barrier_activity;
        self.state.last_decided = wall_clock::now();
        self.state.asking.decided(checkpoint, kind);
        self.controls.tell(|| JobEvent::Checkpoint { id: checkpoint, kind: kind.clone(), took, bytes });
        match kind {
            Kind::Periodic => tracing::debug!(checkpoint = checkpoint.0, "checkpoint complete"),
            kind => tracing::info!(checkpoint = checkpoint.0, ?kind, "checkpoint complete"),
        }
        if self.protocol.committables_pending() == 0 {
            // Nothing will be confirmed that could strike them out.
            self.state.epochs.retain(|epoch, _| *epoch > checkpoint.0);
        }
        self.processes.decided(checkpoint);
        crash::pass("decision.sources_told");
    }

    fn expire(&mut self, mut expiry: Expiry) {
        if crash::bug("shared_file_deleted")
            && let Ok(names) = self.shared.storage.list("state/")
        {
            expiry.files.extend(names.into_iter().next());
        }
        let (shared, log) = (Arc::clone(&self.shared), self.log.clone());
        // Deleting may take its time and may fail: what is left is found at the next start.
        let deletion = self.shared.io.beside(move || {
            let names = expiry.slots.iter().map(|slot| log.name(*slot)).chain(expiry.files);
            for name in names {
                let deleted = shared.storage.delete(&name).map_err(Error::from);
                let failed = |error| Error::external("asked for").caused_by(error);
                if let Err(error) = deleted.and_then(|()| crash::point("expire.some_deleted").map_err(failed))
                {
                    tracing::warn!(%error, "an expired checkpoint's file was not deleted");
                }
            }
        });
        self.state.expiring.retain(|deletion| !deletion.is_finished());
        self.state.expiring.extend(deletion);
    }

    fn stop(&mut self, reason: StopReason) {
        let over = match reason {
            StopReason::Finished => Ok(Outcome::Finished),
            StopReason::Stopped => Ok(Outcome::Stopped),
            StopReason::Internal(_)
            | StopReason::CommitRefused { blame: Blame::Engine, .. }
            | StopReason::AcknowledgeRefused { blame: Blame::Engine, .. } => {
                Err(Error::internal(reason.to_string()))
            }
            StopReason::Incompatible(_)
            | StopReason::CommitRefused { blame: Blame::Job, .. }
            | StopReason::AcknowledgeRefused { blame: Blame::Job, .. } => Err(Error::job(reason.to_string())),
            StopReason::Fenced => Err(self.fenced(&reason)),
            reason => Err(Error::external(reason.to_string())),
        };
        self.over(over);
    }

    /// The slot of a checkpoint is taken. If that was a newer start, a restart would only take the job back, and be
    /// fenced in its turn. If there is none, the storage has done what it called failed, and a restart finds out.
    fn fenced(&self, reason: &StopReason) -> Error {
        let place = self.shared.storage.place();
        let (log, generation) = (self.log.clone(), self.shared.agreed.generation);
        // The storage may hang by now, and this thread hears everything.
        let asked =
            self.shared.io.answer(STORAGE_LIMIT_AT_THE_END, "log", move || log.holder_after(generation));
        match asked.and_then(|holder| holder) {
            Ok(Some(holder)) => Error::job(format!("{reason}: {holder}")),
            Ok(None) => Error::external(format!(
                "the checkpoint log in {place} holds a record that this process was told could not be written; a \
                 restart continues from it"
            )),
            Err(error) => Error::external(format!(
                "the checkpoint log in {place} has got another record, and cannot be read to see whose"
            ))
            .caused_by(error),
        }
    }

    pub(super) fn over(&mut self, over: Result<Outcome>) {
        self.state.over.get_or_insert(over);
    }
}
