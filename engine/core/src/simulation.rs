//! A process of a job whose every move is chosen from outside: the ground of deterministic simulation.
//!
//! A [`Process`] is the real runtime (workers, coordinator, persisters, committers, clock), but nothing in
//! it moves by itself. Whoever holds it says which [`Actor`] acts next, lets time pass, and may throw it
//! away at any moment, which is a crash. With a checkpoint storage, sources and sinks that are
//! deterministic, the same choices give the same run.
//!
//! The simulator itself (schedules, storage that fails, what is checked) is in the crate
//! `staunch-testing`; this module only hands out the strings.

pub use crate::runtime::simulated::{Actor, Died, Process, Setup, Started};

/// Several processes of one job in this one, on threads that move by themselves.
pub mod several {
    pub use crate::runtime::simulated::several::{Cutter, Setup};

    use crate::control::Outcome;
    use crate::error::Result;
    use crate::job::Job;

    /// Runs a job to its end; how it ended in each process, the coordinator's own first.
    ///
    /// # Errors
    /// None of the processes began.
    pub fn run<B>(build: B, setup: &Setup) -> Result<Vec<Result<Outcome>>>
    where
        B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
    {
        crate::runtime::simulated::several::run_graph(crate::run::graph(build), setup)
    }
}

use crate::error::Result;
use crate::job::Job;

impl Process {
    /// Starts a job: takes it over, publishes what is due, and opens its graph. All of it happens before
    /// this returns.
    ///
    /// # Errors
    /// As [`run`](crate::run::run).
    pub fn start<B>(build: B, setup: Setup) -> Result<Started>
    where
        B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
    {
        Self::start_graph(crate::run::graph(build), setup)
    }
}
