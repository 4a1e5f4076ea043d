//! The ledger of acknowledgements: what sources that acknowledge may tell the outside, and when.
//!
//! The outside may forget what is acknowledged. So a checkpoint's positions become due with its decision, are
//! acknowledged once all output up to that checkpoint is committed, and stay due until that is confirmed. A restored
//! checkpoint is due as a whole: whether its positions were acknowledged nobody knows. A source has one call
//! outstanding at a time.

use super::attempt::Attempt;
use super::message::{Part, Report};
use crate::book::Book;
use crate::ids::CheckpointId;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Positions by split.
type Positions = BTreeMap<String, Value>;

/// A call that is to be made: the source, up to which checkpoint, what.
pub(super) type Call = (String, CheckpointId, Vec<(String, Value)>);

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Acknowledgements {
    sources: BTreeMap<String, Due>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Due {
    /// Not told yet, oldest first.
    waiting: VecDeque<(CheckpointId, Positions)>,
    /// A call is outstanding.
    sent: bool,
}

impl Acknowledgements {
    pub(super) fn new(sources: &BTreeSet<String>, restored: Option<(CheckpointId, &Book)>) -> Self {
        let due = |name: &String| {
            let mut due = Due::default();
            if let Some((checkpoint, book)) = restored {
                let positions = book.splits(name).into_iter().filter_map(|s| Some((s.id, s.position?)));
                due.add(checkpoint, positions.collect());
            }
            (name.clone(), due)
        };
        Self { sources: sources.iter().map(due).collect() }
    }

    /// A checkpoint is decided: what it reports is due.
    pub(super) fn decide(&mut self, attempt: &Attempt) {
        for (part, report) in &attempt.reports {
            let (Part::Source { name, .. }, Report::Source(splits)) = (part, report) else { continue };
            let Some(due) = self.sources.get_mut(name) else { continue };
            let positions = splits.iter().filter_map(|s| Some((s.id.clone(), s.position.clone()?)));
            due.add(attempt.checkpoint, positions.collect());
        }
    }

    /// What to tell now: everything that is due, up to before the oldest checkpoint with output to be committed.
    pub(super) fn next_calls(&mut self, uncommitted: Option<CheckpointId>) -> Vec<Call> {
        let mut calls = Vec::new();
        for (source, due) in self.sources.iter_mut().filter(|(_, due)| !due.sent) {
            let mut call: Option<(CheckpointId, Positions)> = None;
            let is_committed = |checkpoint: CheckpointId| uncommitted.is_none_or(|first| checkpoint < first);
            while due.waiting.front().is_some_and(|(checkpoint, _)| is_committed(*checkpoint)) {
                let Some((checkpoint, positions)) = due.waiting.pop_front() else { break };
                let (upto, all) = call.get_or_insert_with(|| (checkpoint, Positions::new()));
                *upto = checkpoint;
                all.extend(positions);
            }
            if let Some((upto, all)) = call {
                due.sent = true;
                calls.push((source.clone(), upto, all.into_iter().collect()));
            }
        }
        calls
    }

    /// The outstanding call of a source is done; false if there is none.
    pub(super) fn confirm(&mut self, source: &str) -> bool {
        self.sources.get_mut(source).is_some_and(|due| std::mem::take(&mut due.sent))
    }

    /// Nothing is left to be acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.sources.values().all(|due| !due.sent && due.waiting.is_empty())
    }
}

impl Due {
    fn add(&mut self, checkpoint: CheckpointId, positions: Positions) {
        match self.waiting.back_mut() {
            _ if positions.is_empty() => {}
            Some((last, known)) if *last == checkpoint => known.extend(positions),
            _ => self.waiting.push_back((checkpoint, positions)),
        }
    }
}
