//! One generation's decisions: which checkpoint is taken, when it is decided, what is committed then.
//!
//! Promises: at most one undecided checkpoint at a time, ids strictly increasing; no decision without
//! every part's acknowledgement; no commit without a decision; nothing that a sink prepared is lost or
//! listed twice; after [`Action::Stop`] nothing more. Does not know time: the runtime says how late it
//! is, when to trigger and what has timed out.
//!
//! # An aborted checkpoint is not a rollback
//!
//! The job goes on: records of the aborted epoch are not replayed, and so what a sink prepared for it is
//! the only copy of that output. Such committables are *carried*: they keep their ids, and the next
//! manifest lists them, whether they were acknowledged before or after the abort. Two rules follow:
//!
//! - The next checkpoint must not be decided before every sink instance has answered the aborted one. It
//!   needs the acknowledgements of all instances anyway, and each instance answers every barrier in
//!   order, so this comes for free; an instance that breaks the order stops the job.
//! - A sink instance that *failed* to prepare has output of which nobody knows the fate. That cannot be
//!   carried, so the job restarts from its last checkpoint. (A source or a stateful step that failed is
//!   harmless: its next report covers the epoch.)

mod acknowledge;
mod attempt;
mod decide;
mod message;
mod output;

pub use message::{Action, Blame, Event, Part, Parts, Published, Report, StopReason};

use crate::book::{Book, Segment};
use crate::ids::{CheckpointId, Generation, Slot};
use crate::manifest::{Guarantee, Kind, Manifest};
use crate::retention::Entry;
use acknowledge::Acknowledgements;
use attempt::Attempt;
use output::Output;
use std::collections::{BTreeMap, BTreeSet};

/// What a generation is, and where it begins. Most of it comes out of [`crate::Recovery`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Setup {
    /// Name of the job.
    pub job: String,
    /// Lineage of the generation.
    pub lineage: String,
    /// The generation.
    pub generation: Generation,
    /// Number of key groups.
    pub groups: u16,
    /// Number of workers.
    pub workers: u32,
    /// Who takes part.
    pub parts: Parts,
    /// First id to use.
    pub next_checkpoint: CheckpointId,
    /// First slot to publish into: the one after the fence.
    pub next_slot: Slot,
    /// The restored checkpoint.
    pub restored: Option<Manifest>,
    /// The segments that it names, by source, in its order.
    pub segments: BTreeMap<String, Vec<Segment>>,
    /// What the log retains, oldest first, the own fence included ([`crate::Recovery::log`]).
    pub log: Vec<Entry>,
    /// How many checkpoints to keep, savepoints apart.
    pub retained: usize,
    /// How many checkpoints in a row may fail before the generation gives up.
    pub tolerated_failures: u32,
    /// What the job promises; only noted in the manifests.
    pub guarantee: Guarantee,
}

/// The state machine of one generation. See the [module](self).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Coordinator {
    setup: Setup,
    /// Every part that must acknowledge.
    all: BTreeSet<Part>,
    /// Ids below it belong to older generations; their messages are left-overs.
    first: CheckpointId,
    next_checkpoint: CheckpointId,
    next_slot: Slot,
    attempt: Option<Attempt>,
    output: Output,
    /// Requests that wait for the undecided checkpoint.
    waiting: Waiting,
    /// Where all splits stand, as of the last decision.
    book: Book,
    acknowledgements: Acknowledgements,
    /// What the log retains, oldest first.
    log: Vec<Entry>,
    /// State files of aborted checkpoints: deleted at the next decision, unless it refers to them.
    leftover: BTreeSet<String>,
    /// Failures since the last decision.
    failures: u32,
    /// Everything that the restored checkpoint listed is committed.
    recommitted: bool,
    /// Set by the decision that ends the job; the end comes when all output is committed.
    ending: Option<StopReason>,
    stopped: bool,
    /// Actions of the event that is being handled.
    actions: Vec<Action>,
}

/// Requests that wait: at most one of each sort.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Waiting {
    savepoint: Option<Kind>,
    /// A stop or the final one, which beats a stop.
    end: Option<Kind>,
}

impl Coordinator {
    /// A generation that has claimed its fence.
    #[must_use]
    pub fn new(mut setup: Setup) -> Self {
        let sinks = setup.parts.sinks.iter().map(|(name, _)| name);
        let ending = match &setup.restored {
            Some(manifest) if manifest.kind == Kind::Final => Some(StopReason::Finished),
            _ => None,
        };
        let output = Output::new(sinks, setup.restored.as_ref());
        let segments = std::mem::take(&mut setup.segments);
        let book = setup.restored.as_ref().map(|m| Book::restore(m, segments)).unwrap_or_default();
        let known = setup.restored.as_ref().map(|manifest| (manifest.checkpoint, &book));
        Self {
            all: setup.parts.all(),
            first: setup.next_checkpoint,
            next_checkpoint: setup.next_checkpoint,
            next_slot: setup.next_slot,
            attempt: None,
            recommitted: output.is_confirmed(),
            output,
            waiting: Waiting::default(),
            acknowledgements: Acknowledgements::new(&setup.parts.acknowledging, known),
            book,
            log: std::mem::take(&mut setup.log),
            leftover: BTreeSet::new(),
            failures: 0,
            ending,
            stopped: false,
            actions: Vec::new(),
            setup,
        }
    }

    /// The first actions, once, before any event: the commits of what the restored checkpoint lists. No
    /// input may be read until [`Coordinator::is_recommitted`]. If the final checkpoint was restored, the
    /// generation stops as soon as that is done.
    pub fn start(&mut self) -> Vec<Action> {
        match self.misfit() {
            Some(misfit) => self.stop(StopReason::Incompatible(misfit)),
            None => {
                self.commit();
                self.go_on(0);
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// Everything that the restored checkpoint listed is committed.
    #[must_use]
    pub fn is_recommitted(&self) -> bool {
        self.recommitted
    }

    /// The generation is only to end: the checkpoint that ends the job is decided, or was restored.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// The undecided checkpoint.
    #[must_use]
    pub fn undecided(&self) -> Option<CheckpointId> {
        self.attempt.as_ref().map(|attempt| attempt.checkpoint)
    }

    /// How many decided committables are not confirmed, for metrics.
    #[must_use]
    pub fn committables_pending(&self) -> usize {
        self.output.pending()
    }

    /// Checkpoints that failed since the last decision, for metrics.
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.failures
    }

    /// Takes an event, tells what to do. `now_ms` (milliseconds since the Unix epoch) only gets into
    /// manifests, for people.
    pub fn handle(&mut self, event: Event, now_ms: u64) -> Vec<Action> {
        if self.stopped {
            return Vec::new();
        }
        match event {
            Event::Trigger(kind) => self.trigger(kind, now_ms),
            Event::Ack { part, checkpoint, report } => self.ack(part, checkpoint, report),
            Event::Failed { part, checkpoint, reason } => self.failed(part, checkpoint, reason, now_ms),
            Event::Timeout { checkpoint } => self.timeout(checkpoint, now_ms),
            Event::Published { checkpoint, slot, outcome } => {
                self.published(checkpoint, slot, outcome, now_ms);
            }
            Event::Committed { sink, upto } => self.committed(&sink, upto, now_ms),
            Event::Forget { source, splits } => self.forget(&source, &splits),
            Event::Acknowledged { source } => self.acknowledged(&source, now_ms),
            Event::AcknowledgeFailed { source, checkpoint, reason, blame } => {
                self.stop(StopReason::AcknowledgeRefused { source_name: source, checkpoint, reason, blame });
            }
            Event::CommitFailed { sink, checkpoint, reason, blame } => {
                self.stop(StopReason::CommitRefused { sink, checkpoint, reason, blame });
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// Why the restored checkpoint does not fit this program.
    fn misfit(&self) -> Option<String> {
        let restored = self.setup.restored.as_ref()?;
        if restored.groups != self.setup.groups {
            let (was, is) = (restored.groups, self.setup.groups);
            return Some(format!("it has {was} key groups, this job {is}; they are fixed for its life"));
        }
        let known = |name: &String| self.setup.parts.sinks.iter().any(|(sink, _)| sink == name);
        let lost = restored.sinks.iter().find(|(name, part)| !part.pending.is_empty() && !known(name));
        lost.map(|(name, part)| {
            let count = part.pending.len();
            format!(
                "sink `{name}` has {count} pieces of output to be committed, and this job has no such sink"
            )
        })
    }

    fn trigger(&mut self, kind: Kind, now_ms: u64) {
        if self.attempt.is_none() && self.recommitted && self.ending.is_none() {
            return self.begin(kind, now_ms);
        }
        match &kind {
            Kind::Periodic => {}
            Kind::Savepoint { .. } if self.ending.is_some() => self.drop_request(kind, "the job is ending"),
            Kind::Savepoint { .. } if self.waiting.savepoint.as_ref().is_some_and(|w| *w != kind) => {
                self.drop_request(kind, "another savepoint is waiting");
            }
            Kind::Savepoint { .. } => self.waiting.savepoint = Some(kind),
            Kind::Stop | Kind::Final => self.await_end(kind),
        }
    }

    fn await_end(&mut self, kind: Kind) {
        if self.waiting.end != Some(Kind::Final) {
            self.waiting.end = Some(kind);
        }
    }

    fn drop_request(&mut self, kind: Kind, reason: &str) {
        self.actions.push(Action::Dropped { kind, reason: reason.into() });
    }

    fn begin(&mut self, kind: Kind, now_ms: u64) {
        let checkpoint = self.next_checkpoint;
        let Some(next) = checkpoint.0.checked_add(1) else {
            return self.stop(StopReason::Incompatible("checkpoint ids are used up".into()));
        };
        self.next_checkpoint = CheckpointId(next);
        self.actions.push(Action::Barrier { checkpoint, kind: kind.clone() });
        let reports = BTreeMap::new();
        self.attempt = Some(Attempt { checkpoint, kind, taken_at_ms: now_ms, reports, publication: None });
        self.publish_if_complete();
    }

    /// After a decision, an abort or a confirmed commit: end, or begin what waits.
    fn go_on(&mut self, now_ms: u64) {
        if self.stopped || self.attempt.is_some() || !self.recommitted {
            return;
        }
        if self.ending.is_some() {
            if self.output.is_confirmed()
                && self.acknowledgements.is_done()
                && let Some(reason) = self.ending.take()
            {
                self.stop(reason);
            }
            return;
        }
        if let Some(kind) = self.waiting.savepoint.take().or_else(|| self.waiting.end.take()) {
            self.begin(kind, now_ms);
        }
    }

    fn commit(&mut self) {
        for (sink, committables) in self.output.next_commits() {
            self.actions.push(Action::Commit { sink, committables });
        }
        for (source, upto, splits) in self.acknowledgements.next_calls(self.output.oldest_pending()) {
            self.actions.push(Action::Acknowledge { source, upto, splits });
        }
    }

    fn stop(&mut self, reason: StopReason) {
        if let Some(kind) = self.waiting.savepoint.take() {
            self.drop_request(kind, "the job ended first");
        }
        self.stopped = true;
        self.actions.push(Action::Stop(reason));
    }

    fn internal(&mut self, what: String) {
        self.stop(StopReason::Internal(what));
    }
}

#[cfg(test)]
mod tests;
