//! Running a job in this process: plan, recover, run, end.

use crate::config::RunConfig;
use crate::control::{Controls, Outcome};
use crate::error::Result;
use crate::job::Job;
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime::{self, Site};

/// The plan of a job, checked; nothing is opened or run.
///
/// # Errors
/// The program refuses its arguments, or the plan is wrong; one sentence says what.
pub fn plan<B>(build: B) -> Result<Plan>
where
    B: for<'s> Fn(&Job<'s>) -> Result<()>,
{
    runtime::plan(&graph(build)).map(|(plan, _)| plan)
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
    runtime::run(graph(build), config, controls, metrics)
}

/// The job's program as what the runtime knows: a function that builds a graph and says what it is.
pub(crate) fn graph<B>(build: B) -> impl for<'s> Fn(Site<'s>) -> Result<Plan>
where
    B: for<'s> Fn(&Job<'s>) -> Result<()>,
{
    move |site: Site<'_>| {
        let job = Job::new(site);
        build(&job)?;
        job.finish()
    }
}
