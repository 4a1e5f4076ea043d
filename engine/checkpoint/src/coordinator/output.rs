//! The ledger of prepared output: what is carried, what is decided, what is being committed.
//!
//! A committable goes one way: reported for a checkpoint; carried, if that one is aborted (its records
//! are not replayed, so dropping it would lose them); pending, once a manifest lists it; gone, once its
//! commit is confirmed. It never goes from reported or carried to committed.

use crate::ids::{CheckpointId, Generation};
use crate::manifest::{Committable, Manifest, SinkPart};
use crate::retention::Prepared;
use std::collections::{BTreeMap, BTreeSet};

/// What sinks report for one checkpoint, by sink name.
pub(super) type Reported = BTreeMap<String, Vec<Committable>>;

/// An instance of a sink.
type Instance = (String, u32);

/// Prepared output of all sinks.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Output {
    sinks: BTreeMap<String, Sink>,
    /// Aborted checkpoints, with the sink instances that have not yet answered them.
    owed: BTreeMap<CheckpointId, BTreeSet<Instance>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Sink {
    /// Decided and not confirmed, in the order of committing.
    pending: Vec<Committable>,
    /// How many of `pending`, from the first on, the outstanding commit holds; 0 if there is none.
    sent: usize,
    /// Prepared for checkpoints that were aborted.
    carried: Vec<Committable>,
}

impl Output {
    pub(super) fn new<'a>(sinks: impl Iterator<Item = &'a String>, restored: Option<&Manifest>) -> Self {
        let mut output = Self::default();
        output.sinks.extend(sinks.map(|name| (name.clone(), Sink::default())));
        for (name, part) in restored.iter().flat_map(|manifest| &manifest.sinks) {
            if !part.pending.is_empty() {
                let sink = output.sinks.entry(name.clone()).or_default();
                sink.pending = in_order(part.pending.clone());
            }
        }
        output
    }

    /// Keeps what was reported for a checkpoint that is now aborted, and notes who still owes an answer.
    pub(super) fn abort(&mut self, checkpoint: CheckpointId, reported: Reported, owing: BTreeSet<Instance>) {
        for (name, committables) in reported {
            self.sinks.entry(name).or_default().carried.extend(committables);
        }
        if !owing.is_empty() {
            self.owed.insert(checkpoint, owing);
        }
    }

    /// Whether the instance still owes an answer to this aborted checkpoint.
    pub(super) fn owes(&self, checkpoint: CheckpointId, instance: &Instance) -> bool {
        self.owed.get(&checkpoint).is_some_and(|owing| owing.contains(instance))
    }

    /// The first aborted checkpoint before this one to which the instance still owes an answer.
    pub(super) fn owes_before(&self, checkpoint: CheckpointId, instance: &Instance) -> Option<CheckpointId> {
        let mut earlier = self.owed.range(..checkpoint);
        earlier.find(|(_, owing)| owing.contains(instance)).map(|(checkpoint, _)| *checkpoint)
    }

    /// Takes the late answer to an aborted checkpoint, once.
    pub(super) fn late(&mut self, checkpoint: CheckpointId, instance: &Instance, prepared: Vec<Committable>) {
        let Some(owing) = self.owed.get_mut(&checkpoint) else { return };
        if owing.remove(instance) {
            self.sinks.entry(instance.0.clone()).or_default().carried.extend(prepared);
        }
        if owing.is_empty() {
            self.owed.remove(&checkpoint);
        }
    }

    /// What the manifest of a checkpoint lists: all that is decided and unconfirmed, carried, or new.
    pub(super) fn listed(&self, mut reported: Reported) -> BTreeMap<String, SinkPart> {
        let list = |(name, sink): (&String, &Sink)| {
            let new = reported.remove(name).unwrap_or_default();
            let pending = sink.pending.iter().chain(&sink.carried).cloned().chain(new).collect();
            (name.clone(), SinkPart { pending: in_order(pending) })
        };
        self.sinks.iter().map(list).collect()
    }

    /// The checkpoint is decided: what was carried and what it reported is now to be committed.
    pub(super) fn decide(&mut self, reported: Reported) {
        for (name, committables) in reported {
            self.sinks.entry(name).or_default().carried.extend(committables);
        }
        for sink in self.sinks.values_mut() {
            // Ids only grow from decision to decision, so the part that is sent stays in front.
            sink.pending.extend(in_order(std::mem::take(&mut sink.carried)));
        }
    }

    /// What to commit now, by sink: everything decided, where no commit is outstanding.
    pub(super) fn next_commits(&mut self) -> Vec<(String, Vec<Committable>)> {
        let mut commits = Vec::new();
        for (name, sink) in &mut self.sinks {
            if sink.sent == 0 && !sink.pending.is_empty() {
                sink.sent = sink.pending.len();
                commits.push((name.clone(), sink.pending.clone()));
            }
        }
        commits
    }

    /// Strikes out what a commit is confirmed for; false if there is no such sink.
    pub(super) fn confirm(&mut self, sink: &str, upto: CheckpointId) -> bool {
        let Some(sink) = self.sinks.get_mut(sink) else { return false };
        let done = sink.pending[..sink.sent].iter().take_while(|c| c.checkpoint <= upto).count();
        sink.pending.drain(..done);
        sink.sent -= done;
        true
    }

    /// The oldest checkpoint with output that is decided and not confirmed.
    pub(super) fn oldest_pending(&self) -> Option<CheckpointId> {
        self.sinks.values().flat_map(|sink| &sink.pending).map(|c| c.checkpoint).min()
    }

    /// Nothing is left to be committed.
    pub(super) fn is_confirmed(&self) -> bool {
        self.sinks.values().all(|sink| sink.pending.is_empty())
    }

    /// How many decided committables are not confirmed.
    pub(super) fn pending(&self) -> usize {
        self.sinks.values().map(|sink| sink.pending.len()).sum()
    }

    /// Identities of all decided committables that are not confirmed.
    pub(super) fn unconfirmed(&self) -> BTreeSet<Prepared> {
        let of = |(name, sink): (&String, &Sink)| -> Vec<Prepared> {
            let one = |c: &Committable| Prepared {
                sink: name.clone(),
                checkpoint: c.checkpoint,
                instance: c.instance,
                generation: c.generation,
            };
            sink.pending.iter().map(one).collect()
        };
        self.sinks.iter().flat_map(of).collect()
    }
}

/// A fault of a sink's report, if it has one: every committable carries the ids that it was made with.
pub(super) fn fault(
    committables: &[Committable],
    checkpoint: CheckpointId,
    instance: u32,
    generation: Generation,
) -> Option<String> {
    let wrong = committables
        .iter()
        .find(|c| c.checkpoint != checkpoint || c.instance != instance || c.generation != generation)?;
    Some(format!(
        "a committable of checkpoint {}, instance {}, generation {} where {checkpoint}, {instance}, \
         {generation} was expected",
        wrong.checkpoint, wrong.instance, wrong.generation
    ))
}

/// By id, then instance; what one instance prepared for one checkpoint stays in its order.
fn in_order(mut committables: Vec<Committable>) -> Vec<Committable> {
    committables.sort_by_key(|c| (c.checkpoint, c.instance));
    committables
}
