//! From acknowledgements to the decision, and what follows it.

use super::attempt::Publication;
use super::message::{Action, Part, Published, Report, StopReason};
use super::{Coordinator, output};
use crate::ids::{CheckpointId, Slot};
use crate::manifest::{self, Kind, Manifest};
use crate::retention::{self, Entry};
use std::collections::BTreeSet;

/// How often the outcome of one publication may stay unknown before the generation gives up. A restart
/// then finds out from the log.
const MAX_UNKNOWN: u32 = 10;

impl Coordinator {
    pub(super) fn ack(&mut self, part: Part, checkpoint: CheckpointId, report: Report) {
        if checkpoint < self.first {
            return;
        }
        if let Some(fault) = self.fault(&part, checkpoint, &report) {
            return self.internal(format!("{part}, checkpoint {checkpoint}: {fault}"));
        }
        let undecided = self.undecided();
        let instance = match &part {
            Part::Sink { name, instance } => Some((name.clone(), *instance)),
            Part::Source { .. } | Part::State { .. } => None,
        };
        if let Some(instance) = &instance
            && (undecided == Some(checkpoint) || self.output.owes(checkpoint, instance))
            && let Some(earlier) = self.output.owes_before(checkpoint, instance)
        {
            let rest = format!("acknowledged checkpoint {checkpoint} and never answered {earlier} before");
            return self.internal(format!("{part} {rest}"));
        }
        match self.attempt.as_mut().filter(|attempt| attempt.checkpoint == checkpoint) {
            Some(attempt) => {
                attempt.reports.entry(part).or_insert(report);
                self.publish_if_complete();
            }
            None => self.late(instance, checkpoint, report),
        }
    }

    /// An acknowledgement of a checkpoint that is decided or aborted already.
    fn late(&mut self, sink: Option<(String, u32)>, checkpoint: CheckpointId, report: Report) {
        match (sink, report) {
            (Some(instance), Report::Sink(prepared)) => self.output.late(checkpoint, &instance, prepared),
            // If it is a second one of a decided checkpoint, a manifest protects the files.
            (_, Report::State(shard)) => self.leftover.extend(shard.files.into_iter().map(|file| file.name)),
            _ => {}
        }
    }

    /// What is wrong with an acknowledgement, whenever it comes.
    fn fault(&self, part: &Part, checkpoint: CheckpointId, report: &Report) -> Option<String> {
        if checkpoint >= self.next_checkpoint {
            return Some("this checkpoint was never triggered".into());
        }
        if !self.all.contains(part) {
            return Some("no such part in this job".into());
        }
        match (part, report) {
            (Part::Source { .. }, Report::Source(_)) => None,
            (Part::State { instance, .. }, Report::State(shard)) if shard.worker == *instance => None,
            (Part::State { .. }, Report::State(shard)) => {
                Some(format!("the shard of worker {}", shard.worker))
            }
            (Part::Sink { instance, .. }, Report::Sink(committables)) => {
                output::fault(committables, checkpoint, *instance, self.setup.generation)
            }
            _ => Some("a report of another kind of part".into()),
        }
    }

    pub(super) fn failed(&mut self, part: Part, checkpoint: CheckpointId, reason: String, now_ms: u64) {
        if checkpoint < self.first {
            return;
        }
        if checkpoint >= self.next_checkpoint || !self.all.contains(&part) {
            return self.internal(format!("{part} failed checkpoint {checkpoint}, which it has no part in"));
        }
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.checkpoint == checkpoint);
        if let Part::Sink { name, instance } = &part {
            if attempt.is_some_and(|attempt| attempt.reports.contains_key(&part)) {
                let fault =
                    format!("{part} acknowledged checkpoint {checkpoint} and then failed it: {reason}");
                return self.internal(fault);
            }
            let key = (name.clone(), *instance);
            if attempt.is_some() || self.output.owes(checkpoint, &key) {
                let (sink, instance) = key;
                self.stop(StopReason::PrepareFailed { sink, instance, checkpoint, reason });
            }
        } else if attempt.is_some_and(|attempt| attempt.publication.is_none()) {
            self.abort(format!("{part}: {reason}"), now_ms);
        }
    }

    pub(super) fn timeout(&mut self, checkpoint: CheckpointId, now_ms: u64) {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.checkpoint == checkpoint) else {
            return;
        };
        if attempt.publication.is_none() {
            let silent = self.all.iter().filter(|part| !attempt.reports.contains_key(*part));
            let mut silent: Vec<String> = silent.map(Part::to_string).collect();
            let more = silent.len().saturating_sub(3);
            silent.truncate(3);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            self.abort(format!("timed out waiting for {}{more}", silent.join(", ")), now_ms);
        }
    }

    /// Gives the undecided checkpoint up; only while nothing of it can be in the log.
    fn abort(&mut self, reason: String, now_ms: u64) {
        let Some(attempt) = self.attempt.take() else { return };
        let checkpoint = attempt.checkpoint;
        self.leftover.extend(attempt.files().cloned());
        self.output.abort(checkpoint, attempt.reported(), attempt.silent_sinks(&self.all));
        self.actions.push(Action::Aborted { checkpoint, reason: reason.clone() });
        self.failures += 1;
        if self.failures > self.setup.tolerated_failures {
            return self.stop(StopReason::CheckpointsFailing { count: self.failures, last: reason });
        }
        match attempt.kind {
            Kind::Stop | Kind::Final => self.await_end(attempt.kind),
            Kind::Savepoint { .. } => self.drop_request(attempt.kind, "it failed; ask again"),
            Kind::Periodic => {}
        }
        self.go_on(now_ms);
    }

    /// Sends the manifest off once every part has acknowledged.
    pub(super) fn publish_if_complete(&mut self) {
        let Some(attempt) = &self.attempt else { return };
        if attempt.publication.is_some() || attempt.reports.len() < self.all.len() {
            return;
        }
        let checkpoint = attempt.checkpoint;
        let draft = match attempt.splits() {
            Ok(reported) => {
                let names = self.setup.parts.sources.iter().map(|(name, _)| name.as_str());
                self.book.draft(names, &reported, checkpoint, self.setup.generation)
            }
            Err(fault) => return self.internal(fault),
        };
        let mut manifest = Box::new(Manifest {
            format: manifest::FORMAT,
            job: self.setup.job.clone(),
            lineage: self.setup.lineage.clone(),
            checkpoint,
            generation: self.setup.generation,
            kind: attempt.kind.clone(),
            taken_at_ms: attempt.taken_at_ms,
            groups: self.setup.groups,
            workers: self.setup.workers,
            sources: draft.book.sources(),
            states: attempt.states(&self.setup.parts),
            sinks: self.output.listed(attempt.reported()),
            guarantee: self.setup.guarantee,
            expires: Vec::new(),
        });
        let slot = self.next_slot;
        self.log.push(Entry::checkpoint(slot, &manifest));
        manifest.expires = retention::choose(&self.log, self.setup.retained, &self.output.unconfirmed());
        // It is there when it is decided.
        self.log.pop();
        let segments = draft.files;
        self.actions.push(Action::Publish {
            checkpoint,
            slot,
            manifest: manifest.clone(),
            segments: segments.clone(),
        });
        if let Some(attempt) = &mut self.attempt {
            attempt.publication =
                Some(Publication { slot, manifest, segments, book: draft.book, unknown: 0 });
        }
    }

    pub(super) fn published(
        &mut self,
        checkpoint: CheckpointId,
        slot: Slot,
        outcome: Published,
        now_ms: u64,
    ) {
        let attempt = self.attempt.as_mut().filter(|attempt| attempt.checkpoint == checkpoint);
        let Some(publication) = attempt.and_then(|attempt| attempt.publication.as_mut()) else { return };
        if publication.slot != slot {
            return;
        }
        match outcome {
            Published::Created => self.decided(now_ms),
            Published::Taken => self.stop(StopReason::Fenced),
            Published::Failed(reason) if publication.unknown == 0 => self.abort(reason, now_ms),
            Published::Failed(reason) | Published::Unknown(reason) if publication.unknown >= MAX_UNKNOWN => {
                let count = publication.unknown + 1;
                self.stop(StopReason::CheckpointsFailing { count, last: reason });
            }
            Published::Failed(_) => {
                publication.unknown += 1;
                let (manifest, segments) = (publication.manifest.clone(), publication.segments.clone());
                self.actions.push(Action::Publish { checkpoint, slot, manifest, segments });
            }
            Published::Unknown(_) => {
                publication.unknown += 1;
                self.actions.push(Action::Reread { checkpoint, slot });
            }
        }
    }

    fn decided(&mut self, now_ms: u64) {
        let Some(mut attempt) = self.attempt.take() else { return };
        let Some(publication) = attempt.publication.take() else { return };
        let (checkpoint, kind) = (attempt.checkpoint, attempt.kind.clone());
        self.failures = 0;
        self.next_slot = publication.slot.next();
        self.log.push(Entry::checkpoint(publication.slot, &publication.manifest));
        self.output.decide(attempt.reported());
        self.book = publication.book;
        self.acknowledgements.decide(&attempt);
        let ended = attempt.finished();
        self.ending = match kind {
            Kind::Stop => Some(StopReason::Stopped),
            Kind::Final => Some(StopReason::Finished),
            Kind::Periodic | Kind::Savepoint { .. } => None,
        };
        self.actions.push(Action::Decided { checkpoint, kind });
        let ended = ended.into_iter().map(|(source, splits)| Action::Ended { source, splits });
        self.actions.extend(ended);
        if self.ending.is_some()
            && let Some(kind) = self.waiting.savepoint.take()
        {
            self.drop_request(kind, "the job is ending");
        }
        self.commit();
        let leftover = std::mem::take(&mut self.leftover);
        self.expire(&publication.manifest.expires, leftover);
        self.go_on(now_ms);
    }

    pub(super) fn committed(&mut self, sink: &str, upto: CheckpointId, now_ms: u64) {
        if !self.output.confirm(sink, upto) {
            return self.internal(format!("sink `{sink}`, which this job has not, committed up to {upto}"));
        }
        self.recommitted |= self.output.is_confirmed();
        if self.recommitted {
            self.commit();
        }
        self.go_on(now_ms);
    }

    /// The outside has taken an acknowledgement.
    pub(super) fn acknowledged(&mut self, source: &str, now_ms: u64) {
        if !self.acknowledgements.confirm(source) {
            return self.internal(format!("source `{source}` acknowledged what it was not asked to"));
        }
        self.commit();
        self.go_on(now_ms);
    }

    /// Splits that cannot come up again leave the book, and that of a checkpoint on its way into the log: the one
    /// after it does not know them.
    pub(super) fn forget(&mut self, source: &str, splits: &[String]) {
        let since = CheckpointId(self.next_checkpoint.0.saturating_sub(1));
        self.book.forget(source, splits, since);
        if let Some(publication) = self.attempt.as_mut().and_then(|attempt| attempt.publication.as_mut()) {
            publication.book.forget(source, splits, since);
        }
    }

    /// Deletes what a decided checkpoint expires, and those of the `leftover` files that no checkpoint refers to.
    fn expire(&mut self, slots: &[Slot], mut leftover: BTreeSet<String>) {
        let mut expiry = retention::expiry(&self.log, slots);
        self.log.retain(|entry| slots.binary_search(&entry.slot).is_err());
        for entry in &self.log {
            if let retention::What::Checkpoint { files, .. } = &entry.what {
                leftover.retain(|file| !files.contains(file));
            }
        }
        leftover.extend(expiry.files);
        expiry.files = leftover.into_iter().collect();
        if !expiry.is_empty() {
            self.actions.push(Action::Expire(expiry));
        }
    }
}
