//! How a generation begins: read the log, claim the fence, check that the job fits its checkpoint.

use super::changes;
use super::stage::Stage;
use super::worker::{Registry, StateOfStep};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::runtime::control::log::Log;
use crate::runtime::process::wall_clock::unix_ms;
use staunch_checkpoint::{
    Generation, Guarantee, Manifest, Record, Recovery, recover, recovery::Start, retention::orphans,
};
use staunch_state::{schema_diff, storage::Storage};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

/// Times that the log is looked at, and its next slot claimed, before somebody else has to look.
const CLAIMS: usize = 30;

/// Who starts the job.
pub(crate) struct Identity {
    /// The lineage of the job, if it starts from nothing: one that no other start has.
    pub(crate) lineage: String,
    /// For people: what to look for, if it is in the way.
    pub(crate) holder: String,
}

impl Identity {
    /// That of this process.
    pub(crate) fn of_process() -> Self {
        // RandomState is seeded by the operating system.
        let random = RandomState::new();
        let other = RandomState::new();
        Self {
            lineage: format!(
                "{:016x}{:016x}",
                random.hash_one(unix_ms()),
                other.hash_one(std::process::id())
            ),
            holder: format!("process {} on {}", std::process::id(), host()),
        }
    }
}

/// Reads the log, checks, and takes the job over from every older generation. `check` may refuse the
/// start before that leaves any trace.
///
/// Until the claim an older generation may live and go on. So a refusal counts only if the log stood still
/// meanwhile: `check` may have held newer output against an older log. And the log is read again after a
/// check, which takes its time, so that the claim comes right after the reading.
pub(crate) fn take_over(
    config: &RunConfig,
    identity: &Identity,
    log: &Log,
    registry: &Registry,
    stage: &Stage,
    check: impl Fn(&Recovery) -> Result<()>,
) -> Result<Recovery> {
    let Identity { lineage: fresh, holder } = identity;
    if let Some(step) =
        config.accept_changes.iter().find(|step| registry.states.iter().all(|s| s.step != **step))
    {
        return Err(Error::job(format!(
            "a change of a step `{step}` is to be accepted, but this job has no step of that name that keeps state"
        )));
    }
    let mut checked = None;
    let mut refusal = None;
    for _ in 0..CLAIMS {
        stage.enter(format!("reading the checkpoint log in {}", config.checkpoints.display()))?;
        let records = log.read()?;
        let start =
            Start { job: &config.job, from: config.from, fresh_lineage: fresh, holder, at_ms: unix_ms() };
        let recovery = match recover(&start, &records) {
            Ok(recovery) => recovery,
            Err(error) => {
                let error = Error::job(format!("cannot start from {}", config.checkpoints.display()))
                    .caused_by(error);
                if !log.has_grown(&records)? {
                    return Err(error);
                }
                refusal = Some(error);
                continue;
            }
        };
        if let Some((_, manifest)) = &recovery.restore {
            check_fit(manifest, registry, &config.accept_changes)?;
            check_guarantee(manifest, config.guarantee)?;
        }
        let what = (recovery.lineage.clone(), recovery.restore.is_some());
        if checked.as_ref() != Some(&what) {
            match check(&recovery) {
                Ok(()) => (checked, refusal) = (Some(what), None),
                Err(error) if !log.has_grown(&records)? => return Err(error),
                Err(error) => refusal = Some(error),
            }
            continue;
        }
        stage.enter(format!("claiming the job in {}", config.checkpoints.display()))?;
        if log.claim(recovery.slot, &Record::Fence(recovery.fence.clone()))? {
            return Ok(recovery);
        }
        refusal = None;
        tracing::warn!(slot = %recovery.slot, "another process starts this job too; looking again");
    }
    let contended =
        || Error::external("the checkpoint log could not be claimed; is another process starting this job?");
    Err(refusal.unwrap_or_else(contended))
}

/// Refuses a job whose state or sinks are not those of the checkpoint.
fn check_fit(manifest: &Manifest, registry: &Registry, accepted: &BTreeSet<String>) -> Result<()> {
    let checkpoint = manifest.checkpoint;
    for (name, part) in &manifest.states {
        match registry.states.iter().find(|state| state.name == *name) {
            Some(StateOfStep { schema, step, .. }) if *schema != part.schema => {
                let which = name
                    .strip_prefix(&format!("{step}."))
                    .map_or_else(String::new, |state| format!(" `{state}`"));
                return Err(Error::job(format!(
                    "the state{which} of this step has another type than in checkpoint {checkpoint}:\n{}\nRun the program that wrote it, or start anew with --from none and another output",
                    schema_diff(&part.schema, schema)
                ))
                .in_step(step));
            }
            Some(state) => changes::check(checkpoint, part, state, accepted)?,
            None if part.shards.iter().all(|shard| shard.files.is_empty()) => {}
            None => {
                let what = match name.split_once('.') {
                    Some((step, state)) => format!("a state `{state}` of step `{step}`"),
                    None => format!("state of a step `{name}`"),
                };
                return Err(Error::job(format!(
                    "checkpoint {checkpoint} has {what}, which this job does not have. Was it renamed? Give it its old name, or start anew with --from none"
                )));
            }
        }
    }
    let sources: BTreeSet<&str> = registry.sources.iter().map(|s| s.name.as_str()).collect();
    for (name, part) in &manifest.sources {
        if !sources.contains(name.as_str()) && !part.is_empty() {
            return Err(Error::job(format!(
                "checkpoint {checkpoint} has positions of a source `{name}`, which this job does not have. Was it renamed? Give it its old name, or start anew with --from none"
            )));
        }
    }
    // The protocol refuses that too; but by then sinks have removed what is not listed for them, and one under
    // another name lists nothing.
    let sinks: BTreeSet<&str> = registry.sinks.iter().map(|s| s.name.as_str()).collect();
    for (name, part) in &manifest.sinks {
        if !sinks.contains(name.as_str()) && !part.pending.is_empty() {
            let pieces = part.pending.len();
            return Err(Error::job(format!(
                "checkpoint {checkpoint} has {pieces} pieces of output of a sink `{name}`, which this job does not have. Was it renamed? Give it its old name; to take it out, first run the old program until it has taken a checkpoint without output for it"
            )));
        }
    }
    Ok(())
}

/// Refuses to promise for what was done before more than was promised then.
fn check_guarantee(manifest: &Manifest, now: Guarantee) -> Result<()> {
    if manifest.guarantee.is_exactly_once() || now == Guarantee::AtLeastOnce {
        return Ok(());
    }
    Err(Error::job(format!(
        "checkpoint {} was taken at least once: its state and the output so far may hold the effect of a record twice, and no later run can take that back. Go on with --guarantee at-least-once, or start anew with --from none and another output",
        manifest.checkpoint
    )))
}

/// Deletes state files that no retained checkpoint refers to: left-overs of crashes, and of merging.
/// Only while `generation` writes none.
pub(crate) fn remove_orphans(storage: &dyn Storage, log: &Log, generation: Generation) -> Result<()> {
    let mut stored = storage.list("state/")?;
    stored.extend(storage.list("splits/")?);
    // Read after listing: a newer generation that wrote any of these files is in the log by now.
    let records = log.read()?;
    if records.iter().any(|(_, record)| record.generation() > generation) {
        return Ok(());
    }
    let manifests: Vec<Manifest> = records
        .into_iter()
        .filter_map(|(_, record)| match record {
            Record::Checkpoint(manifest) => Some(*manifest),
            Record::Fence(_) => None,
        })
        .collect();
    let left = orphans(&stored, &manifests);
    for name in &left {
        storage.delete(name)?;
    }
    if !left.is_empty() {
        tracing::info!(files = left.len(), "state files of unfinished checkpoints removed");
    }
    Ok(())
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "?".into(), |h| h.trim().to_owned())
}
