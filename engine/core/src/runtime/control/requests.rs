//! Requests to a running job, and their answers.

use super::coordinator::Driver;
use crate::control::{Asked, Outcome, Request, Teller};
use crate::error::{Error, Kind as Fault, Result};
use crate::runtime::process::wall_clock;
use staunch_checkpoint::{CheckpointId, Event, Kind};

/// Requests that are not answered yet.
#[derive(Default)]
pub(super) struct Asking {
    /// By name.
    savepoints: Vec<(String, Teller)>,
    /// Each with the checkpoint that was begun for it.
    checkpoints: Vec<(CheckpointId, Teller)>,
    /// The one that ends the job.
    end: Option<Request>,
    ends: Vec<Teller>,
    /// The newest checkpoint.
    newest: Option<CheckpointId>,
}

fn refuse(teller: Teller, request: &Request, why: &str) {
    teller.tell(Err(Error::external(format!("{request:?} is not carried out: {why}"))));
}

impl Asking {
    pub(super) fn decided(&mut self, checkpoint: CheckpointId, kind: &Kind) {
        self.newest = Some(checkpoint);
        for (_, teller) in self.checkpoints.extract_if(.., |(id, _)| *id == checkpoint) {
            teller.tell(Ok(checkpoint));
        }
        if let Kind::Savepoint { name } = kind {
            for (_, teller) in self.savepoints.extract_if(.., |(asked, _)| asked == name) {
                teller.tell(Ok(checkpoint));
            }
        }
    }

    pub(super) fn aborted(&mut self, checkpoint: CheckpointId, reason: &str) {
        for (_, teller) in self.checkpoints.extract_if(.., |(id, _)| *id == checkpoint) {
            refuse(teller, &Request::Checkpoint, reason);
        }
    }

    /// The protocol does not carry a request out.
    pub(super) fn dropped(&mut self, kind: &Kind, reason: &str) {
        let Kind::Savepoint { name } = kind else { return };
        for (name, teller) in self.savepoints.extract_if(.., |(asked, _)| asked == name) {
            refuse(teller, &Request::Savepoint(name), reason);
        }
    }

    fn all(&mut self) -> impl Iterator<Item = Teller> {
        let savepoints = std::mem::take(&mut self.savepoints).into_iter().map(|(_, teller)| teller);
        let checkpoints = std::mem::take(&mut self.checkpoints).into_iter().map(|(_, teller)| teller);
        savepoints.chain(checkpoints)
    }
}

impl Driver {
    pub(super) fn requested(&mut self, asked: Asked) {
        let Asked { request, teller } = asked;
        let draining = self.state.drain_due || self.state.draining;
        if matches!(request, Request::Stop | Request::Drain) {
            self.state.end_asked.get_or_insert_with(wall_clock::now);
        }
        match &request {
            Request::Stop | Request::Drain if self.state.ending => {
                tracing::info!("the job is already ending");
                match &self.state.asking.end {
                    Some(end) if *end == request => self.state.asking.ends.push(teller),
                    _ => refuse(teller, &request, "the job is already ending"),
                }
            }
            Request::Stop => {
                tracing::info!("stop requested; taking a last checkpoint");
                self.state.stop_since = Some(wall_clock::now());
                self.ends_for(&request, teller);
                self.end(Kind::Stop);
            }
            Request::Drain => {
                tracing::info!("drain requested; sources read nothing more");
                self.ends_for(&request, teller);
                (self.state.ending, self.state.drain_due) = (true, true);
            }
            Request::Savepoint(name) if draining => {
                tracing::warn!(name, "no savepoint is taken: the job is draining");
                refuse(teller, &request, "the job is draining");
            }
            Request::Savepoint(name) => {
                self.state.asking.savepoints.push((name.clone(), teller));
                self.feed(Event::Trigger(Kind::Savepoint { name: name.clone() }));
            }
            Request::Checkpoint if self.state.ending => {
                tracing::info!("no checkpoint is taken: the job is ending");
                refuse(teller, &request, "the job is ending");
            }
            Request::Checkpoint => match self.protocol.undecided() {
                Some(id) => refuse(teller, &request, &format!("checkpoint {id} is under way")),
                None => {
                    self.feed(Event::Trigger(Kind::Periodic));
                    match self.protocol.undecided() {
                        Some(id) => self.state.asking.checkpoints.push((id, teller)),
                        None => refuse(teller, &request, "none can be taken now"),
                    }
                }
            },
        }
    }

    fn ends_for(&mut self, request: &Request, teller: Teller) {
        self.state.asking.end = Some(request.clone());
        self.state.asking.ends.push(teller);
    }

    /// The run is over: whoever still waits is told how.
    pub(super) fn answer_the_rest(&mut self, outcome: &Result<Outcome>) {
        let newest = self.state.asking.newest;
        let ends = std::mem::take(&mut self.state.asking.ends);
        match outcome {
            Ok(_) => {
                let nothing = || Error::external("no checkpoint was taken: nothing was read");
                ends.into_iter().for_each(|teller| teller.tell(newest.ok_or_else(nothing)));
                for teller in self.state.asking.all() {
                    teller.tell(Err(Error::external("the run ended before the request was carried out")));
                }
            }
            Err(error) => {
                let text = format!("the run failed: {error}");
                let failed = || match error.kind() {
                    Fault::Job => Error::job(text.clone()),
                    Fault::External => Error::external(text.clone()),
                    Fault::Internal => Error::internal(text.clone()),
                };
                for teller in self.state.asking.all().chain(ends) {
                    teller.tell(Err(failed()));
                }
            }
        }
    }
}
