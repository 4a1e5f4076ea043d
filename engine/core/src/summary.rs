//! What a run did, in numbers: for its last words, and for whoever ran it.

use crate::control::Outcome;
use crate::metrics::Metrics;
use crate::plan::{Plan, What};
use crate::sink::Guarantee;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a run did. Counted since the [`Metrics`] were made, like these: records that were read again after a crash
/// were counted by the process that died, too.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Records read by all sources.
    pub records_read: u64,
    /// Records published, by sink: of a sink that promises exactly once those whose commit was confirmed (at a restart
    /// also those that the process before it had published and not noted), of others those it was given.
    pub published: BTreeMap<String, u64>,
    /// Records that came too late for their window.
    pub late: u64,
    /// Input that was skipped or sent to the dead letters.
    pub dead_letters: u64,
    /// Checkpoints decided.
    pub checkpoints: u64,
    /// Checkpoints abandoned.
    pub checkpoints_failed: u64,
    /// Starts of the job before this one.
    pub restarts: u64,
    /// How long it took, its start included.
    pub took: Duration,
}

impl Summary {
    pub(crate) fn new(outcome: Outcome, plan: &Plan, metrics: &Metrics, took: Duration) -> Self {
        let mut published = BTreeMap::new();
        for node in &plan.nodes {
            if let What::Sink { name, guarantee } = &node.what {
                let records = match guarantee {
                    Guarantee::ExactlyOnce => metrics.published(name),
                    Guarantee::AtLeastOnce => metrics.taken_in(name),
                };
                published.insert(name.clone(), records);
            }
        }
        let (late, dead_letters) = metrics.left_out();
        Self {
            outcome,
            records_read: metrics.progress().records_read,
            published,
            late,
            dead_letters,
            checkpoints: metrics.checkpoints_completed.get(),
            checkpoints_failed: metrics.checkpoints_failed.get(),
            restarts: metrics.restarts.get() as u64,
            took,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Finished => "complete",
            Outcome::Stopped => "stopped; run it again to continue",
            Outcome::AlreadyFinished => "it was complete already",
        };
        writeln!(f, "{outcome}")?;
        writeln!(f, "  records read   {}", self.records_read)?;
        for (sink, records) in &self.published {
            writeln!(f, "  published      {records} by {sink}")?;
        }
        writeln!(f, "  late           {}", self.late)?;
        writeln!(f, "  dead letters   {}", self.dead_letters)?;
        let failed = match self.checkpoints_failed {
            0 => String::new(),
            failed => format!(", {failed} abandoned"),
        };
        writeln!(f, "  checkpoints    {}{failed}", self.checkpoints)?;
        writeln!(f, "  restarts       {}", self.restarts)?;
        write!(f, "  time           {:.1} s", self.took.as_secs_f64())
    }
}
