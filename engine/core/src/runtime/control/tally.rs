//! Counts what was published: records that were given to a commit, once the commit is confirmed.

use staunch_checkpoint::{CheckpointId, Committable};
use std::collections::HashMap;

/// Records on their way to their targets, by sink.
#[derive(Default)]
pub(super) struct Tally(HashMap<String, Vec<(CheckpointId, u64)>>);

impl Tally {
    /// These are given to the sink's commit.
    pub(super) fn due(&mut self, sink: &str, committables: &[Committable]) {
        let due = committables.iter().map(|one| (one.checkpoint, one.records));
        self.0.entry(sink.to_owned()).or_default().extend(due);
    }

    /// A commit is confirmed up to a checkpoint; how many records that are.
    pub(super) fn committed(&mut self, sink: &str, upto: CheckpointId) -> u64 {
        let Some(due) = self.0.get_mut(sink) else { return 0 };
        due.extract_if(.., |(checkpoint, _)| *checkpoint <= upto).map(|(_, records)| records).sum()
    }
}
