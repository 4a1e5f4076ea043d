//! What a soak has done and found so far.

use super::schedule::Deed;
use crate::figures::percentile;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Counts of a soak.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Processes killed with SIGKILL.
    pub kills: u64,
    /// The same, by what was done to them.
    pub deeds: BTreeMap<Deed, u64>,
    /// Moments at which two processes, one in the place of the other, were killed together.
    pub together: u64,
    /// Processes killed after they had taken the job over and before they ran.
    pub in_recovery: u64,
    /// Starts of a process.
    pub starts: u64,
    /// Starts with another number of workers than the start before.
    pub rescales: u64,
    /// Jobs that became complete and were audited.
    pub jobs: u64,
    /// Records of these jobs; each is audited in both sinks.
    pub records: u64,
    /// Rows compared, over both sinks.
    pub rows: u64,
    /// Looks of the observer.
    pub looks: u64,
    /// Rows beyond the first of a record: only ever at least once.
    pub doubled: u64,
    /// Prepared pieces of output that a start found listed in its checkpoint: nobody knew whether they were
    /// published. A piece counts again at each start that finds it. Only those of jobs that were audited then,
    /// so each was resolved.
    pub in_doubt: u64,
    /// From a restart after a kill until output appeared.
    pub recoveries: Vec<Duration>,
}

impl Tally {
    /// One line, for the screen.
    #[must_use]
    pub fn line(&self) -> String {
        let Tally { kills, starts, jobs, records, .. } = self;
        format!("{kills} kills, {starts} starts, {jobs} jobs, {records} records audited")
    }

    /// As Markdown.
    #[must_use]
    pub fn to_markdown(&self, took: Duration) -> String {
        let mut recoveries = self.recoveries.clone();
        recoveries.sort_unstable();
        let at = |percent| format!("{:?}", percentile(&recoveries, percent));
        let mut rows = vec![
            ("duration", format!("{} s", took.as_secs())),
            ("processes killed with SIGKILL", self.kills.to_string()),
            ("starts", self.starts.to_string()),
            ("starts with another number of workers", self.rescales.to_string()),
        ];
        rows.extend(self.deeds.iter().map(|(deed, count)| (title(*deed), count.to_string())));
        rows.extend([
            ("moments at which two processes were killed together", self.together.to_string()),
            ("of all: in the middle of their recovery", self.in_recovery.to_string()),
            (
                "prepared pieces of output that a start found in doubt, each resolved",
                self.in_doubt.to_string(),
            ),
            ("jobs completed and audited", self.jobs.to_string()),
            ("records audited, each in both sinks", self.records.to_string()),
            ("rows compared", self.rows.to_string()),
            ("looks of the live observer", self.looks.to_string()),
            ("rows beyond the first of a record", self.doubled.to_string()),
            ("restart to first new output, p50", at(50)),
            ("restart to first new output, p99", at(99)),
            ("restart to first new output, longest", at(100)),
            ("restarts measured", recoveries.len().to_string()),
        ]);
        let mut text = "| figure | value |\n|---|---|\n".to_owned();
        for (figure, value) in rows {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "| {figure} | {value} |");
        }
        text
    }
}

fn title(deed: Deed) -> &'static str {
    match deed {
        Deed::Kill => "of these: killed while running",
        Deed::KillInRecovery => "of these: killed within a tenth of a second after their start",
        Deed::DoubleStart => "of these: a second copy was refused, then killed",
        Deed::TakeOver => "of these: taken over by a second copy without a lock, that one killed",
        Deed::Zombie => "of these: stopped, taken over, woken beside, the other one killed",
        Deed::KillBoth => "of these: killed together with a second copy without a lock",
        Deed::KillBothAsleep => "of these: killed together, one stopped, the other one in its place",
    }
}
