//! How much a soak is to do, and how it is run again.

use crate::audit::Expected;
use crate::oracle::Failure;
use std::fmt::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

const SPLITS: u32 = 4;
const KEYS: u64 = 10_007;

/// Builds everything that a soak needs, and runs it; followed by its options. Building comes first, because
/// running a program builds that one alone, and a soak needs the victim beside it.
const RUN: &str = "cargo build --release -p staunch-testing --features crash-points --bins && \
                   cargo run --release -p staunch-testing --features crash-points --bin soak --";

/// How much is to be done.
#[derive(Clone, Debug)]
pub struct Goal {
    /// Processes to kill; `u64::MAX` if only the time ends it.
    pub kills: u64,
    /// Records to audit; `u64::MAX` if only the time ends it.
    pub records: u64,
    /// Stop killing after this long, whatever was reached.
    pub time: Option<Duration>,
    /// Where the schedule begins.
    pub seed: u64,
    /// What one job has to do.
    pub job: Expected,
    /// Records a second, on all workers together; `None`: as many as it can.
    pub rate: Option<u64>,
    /// Promise, and require, only that nothing is lost.
    pub at_least_once: bool,
}

impl Goal {
    /// A job of so many records, over all its splits.
    #[must_use]
    pub fn job_of(records: u64) -> Expected {
        Expected { records: records / u64::from(SPLITS), splits: SPLITS, keys: KEYS }
    }

    /// What to type to follow the same schedule again.
    #[must_use]
    pub fn command(&self) -> String {
        let mut text = format!("{RUN} --seed {}", self.seed);
        let numbers = [
            ("kills", (self.kills < u64::MAX).then_some(self.kills)),
            ("records", (self.records < u64::MAX).then_some(self.records)),
            ("minutes", self.time.map(|time| time.as_secs().div_ceil(60))),
            ("job-records", Some(self.job.total())),
            ("rate", self.rate),
        ];
        for (option, number) in numbers.iter().filter_map(|(option, number)| Some((option, (*number)?))) {
            // Writing into a string cannot fail.
            let _ = write!(text, " --{option} {number}");
        }
        if self.at_least_once {
            text.push_str(" --at-least-once");
        }
        text
    }
}

/// A soak that failed: why, and everything that is needed to look into it.
#[derive(Debug)]
pub struct Broken {
    /// What is wrong.
    pub failure: Failure,
    /// Steps of the schedule that had begun.
    pub steps: u64,
    /// What the job left behind, with the logs of all its processes; nobody removes it.
    pub dir: Option<PathBuf>,
    /// What to type to follow the same schedule again.
    pub command: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failure, steps, dir, command } = self;
        writeln!(f, "{failure}\nIt was in step {steps} of the schedule.")?;
        if let Some(dir) = dir {
            writeln!(f, "What the job left behind is kept, with all logs: {}", dir.display())?;
        }
        write!(f, "To repeat the schedule:\n  {command}")
    }
}

impl std::error::Error for Broken {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_says_everything_that_the_schedule_depends_on() {
        let goal = Goal {
            kills: 10,
            records: 0,
            time: None,
            seed: 7,
            job: Goal::job_of(4_000),
            rate: Some(500),
            at_least_once: true,
        };
        let options = |goal: &Goal| goal.command().split_once("--bin soak -- ").map(|(_, o)| o.to_owned());
        assert_eq!(
            options(&goal).as_deref(),
            Some("--seed 7 --kills 10 --records 0 --job-records 4000 --rate 500 --at-least-once")
        );
        let endless = Goal {
            kills: u64::MAX,
            records: u64::MAX,
            time: Some(Duration::from_secs(120)),
            rate: None,
            at_least_once: false,
            ..goal
        };
        assert_eq!(options(&endless).as_deref(), Some("--seed 7 --minutes 2 --job-records 4000"));
    }
}
