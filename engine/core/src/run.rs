//! Running a job in this process: plan, recover, run, end.

use crate::config::RunConfig;
use crate::control::Controls;
use crate::error::Result;
use crate::job::Job;
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime;

/// How a run ended well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All input is processed and all output committed; the job is complete.
    Finished,
    /// Stopped on request with everything committed; the next run continues.
    Stopped,
    /// There was nothing to do: an earlier run has completed the job.
    AlreadyFinished,
}

/// The plan of a job, checked; nothing is opened or run.
///
/// # Errors
/// The program refuses its arguments, or the plan is wrong; one sentence says what.
pub fn plan<B>(build: B) -> Result<Plan>
where
    B: for<'s> Fn(&Job<'s>) -> Result<()>,
{
    runtime::plan(&build).map(|(plan, _)| plan)
}

/// Runs a job until it is complete, stopped or failed. It continues from its last checkpoint if it has
/// one.
///
/// # Errors
/// Whatever stops the job. Everything that a decided checkpoint covers is safe then, and the same call
/// again continues from there.
pub fn run<B>(build: B, config: RunConfig, controls: Controls, metrics: Metrics) -> Result<Outcome>
where
    B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
{
    runtime::run(build, config, controls, metrics)
}
