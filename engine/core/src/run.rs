//! Running a job in this process: plan, recover, run, end.

use crate::config::{RunConfig, StartFrom};
use crate::control::{Controls, Outcome};
use crate::error::Result;
use crate::job::Job;
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime::{self, Site};
use crate::summary::Summary;
use std::path::PathBuf;
use std::time::Duration;

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

/// A run of a job in this process. What is not said has the default of [`RunConfig::new`].
///
/// It continues from the job's last checkpoint if there is one.
///
/// ```
/// # use staunch_core::{Job, Result, Run};
/// # fn of(job: &Job<'_>) -> Result<()> { Err(staunch_core::Error::job("no steps")) }
/// let checkpoints = std::env::temp_dir().join("no-such-job");
/// let summary = Run::new("words", &checkpoints).workers(2).run(of);
/// # assert!(summary.is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Run {
    config: RunConfig,
    controls: Controls,
    metrics: Option<Metrics>,
}

impl From<RunConfig> for Run {
    fn from(config: RunConfig) -> Self {
        Self { config, controls: Controls::default(), metrics: None }
    }
}

impl Run {
    /// Of the job of this name, with its checkpoints in this directory.
    pub fn new(job: impl Into<String>, checkpoints: impl Into<PathBuf>) -> Self {
        RunConfig::new(job, checkpoints).into()
    }

    /// On so many worker threads.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        self.config(|config| config.workers = workers)
    }

    /// With so much time between checkpoints.
    #[must_use]
    pub fn checkpoint_every(self, every: Duration) -> Self {
        self.config(|config| config.checkpoint_every = Some(every))
    }

    /// From this checkpoint.
    #[must_use]
    pub fn start_from(self, from: StartFrom) -> Self {
        self.config(|config| config.from = from)
    }

    /// With any other setting.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut RunConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Under this remote control.
    #[must_use]
    pub fn controls(mut self, controls: &Controls) -> Self {
        self.controls = controls.clone();
        self
    }

    /// Counted in these metrics.
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// Runs the job until it is complete, stopped or failed.
    ///
    /// # Errors
    /// Whatever stops the job. Everything that a decided checkpoint covers is safe then, and the same run
    /// again continues from there.
    pub fn run<B>(self, build: B) -> Result<Summary>
    where
        B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
    {
        let metrics = self.metrics.unwrap_or_else(|| Metrics::new(&self.config.job));
        runtime::run(graph(build), self.config, self.controls, metrics)
    }
}

/// [`Run::run`] with all four values given, and the outcome alone.
///
/// # Errors
/// As for [`Run::run`].
pub fn run<B>(build: B, config: RunConfig, controls: Controls, metrics: Metrics) -> Result<Outcome>
where
    B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
{
    Run::from(config).controls(&controls).metrics(&metrics).run(build).map(|summary| summary.outcome)
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
