//! What all processes of one start of a job agree on, before any of them does anything.
//!
//! The coordinator's process makes it when it has taken the job over; the others are sent it. It never changes. What a
//! process has for itself (directories, threads, memory) is not in it.

use super::link::text;
use crate::config::Guarantee;
use crate::error::{Error, Result};
use crate::plan::Plan;
use serde::{Deserialize, Serialize};
use staunch_checkpoint::{CheckpointId, Generation, Manifest};
use std::collections::BTreeMap;

/// See the [module](self).
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Agreed {
    pub(crate) job: String,
    pub(crate) lineage: String,
    pub(crate) generation: Generation,
    pub(crate) first_epoch: CheckpointId,
    /// What the job continues from; it has the positions and the files of state.
    #[serde(with = "text")]
    pub(crate) restored: Option<Manifest>,
    /// Highest event time that the restored checkpoint knows of a source.
    pub(crate) highest_ms: BTreeMap<String, i64>,
    pub(crate) groups: u16,
    pub(crate) guarantee: Guarantee,
    pub(crate) processes: u32,
    /// Workers of all processes; each has as many as the others. They are numbered through.
    pub(crate) workers: u32,
    /// Checksum of the plan.
    pub(crate) plan: u32,
}

/// The checksum of a plan by which processes find out that they run different programs.
pub(crate) fn fingerprint(plan: &Plan) -> Result<u32> {
    let text =
        serde_json::to_vec(plan).map_err(|e| Error::internal("the plan cannot be written").caused_by(e))?;
    Ok(crc32c::crc32c(&text))
}

/// For whoever takes part; so far only processes in one, in tests.
#[cfg(feature = "simulation")]
impl Agreed {
    /// Workers of one process.
    fn workers_each(&self) -> usize {
        (self.workers / self.processes.max(1)) as usize
    }

    /// Whether a process that wants to take part builds the graph that is agreed on, with as many workers.
    pub(crate) fn check(&self, plan: &Plan, workers: usize) -> Result<()> {
        if fingerprint(plan)? != self.plan {
            return Err(Error::job(
                "this process builds another graph than the coordinator's: all processes must run the same program with the \
                 same arguments",
            ));
        }
        if workers != self.workers_each() {
            return Err(Error::job(format!(
                "this process has {workers} workers, and the coordinator's has {}: all must have as many (--workers)",
                self.workers_each()
            )));
        }
        Ok(())
    }
}
