//! The decisions of start-up: what to restore, which generation to be, which slot to claim.
//!
//! Called by the runtime before anything else, with every record that the log holds. A record that
//! cannot be read stops the start: falling back to an older one would publish its output again. (A
//! record that disappears between listing and reading was expired by a living older generation: list
//! again.)
//!
//! # The checkpoint that counts
//!
//! History forks when somebody restores an older checkpoint: what was decided after that one is
//! abandoned. The newest fence tells which branch lives. A checkpoint above that fence is the newest of
//! the branch; without one, it is what the fence restored; and a fence that restored nothing means that
//! the job begins again, in the lineage of that fence.
//!
//! A record whose generation is higher than that of a later record was put into a deleted slot by a
//! process that woke up late (see [`crate::log`]); it takes no part in this.

use crate::branches::{Branches, Output};
use crate::ids::{CheckpointId, Generation, Slot};
use crate::log;
use crate::manifest::{Kind, Manifest};
use crate::record::{self, Fence, Record};
use crate::retention::{self, Entry};
use std::collections::BTreeSet;

/// Where a start begins.
///
/// Only a person chooses anything but [`From::Latest`], and for one start: whoever restarts a failed job
/// by itself uses `Latest`, which continues the branch that the choice began. Repeating the choice would
/// publish the output since then once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// At the checkpoint that counts, or from nothing if there is none.
    Latest,
    /// From nothing, in a new lineage, whatever the log holds.
    Nothing,
    /// At this checkpoint, which may be an older or an abandoned one.
    Checkpoint(CheckpointId),
}

/// What a process says about itself when it starts.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Name of the job.
    pub job: &'a str,
    /// Where to begin.
    pub from: From,
    /// Lineage to use if this start begins a new one; must be unique in the world.
    pub fresh_lineage: &'a str,
    /// For people: host and process.
    pub holder: &'a str,
    /// Milliseconds since the Unix epoch, for people.
    pub at_ms: u64,
}

/// What a start has to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Recovery {
    /// The generation to be: higher than every one in the log.
    pub generation: Generation,
    /// The slot to claim, by put-if-absent of [`Recovery::fence`] and [`log::confirm`]. Anything but
    /// created: read the log again and call [`recover`] again.
    pub slot: Slot,
    /// The record to claim it with.
    pub fence: Fence,
    /// The checkpoint to restore, with its slot; `None` to start from nothing.
    pub restore: Option<(Slot, Manifest)>,
    /// The lineage of this generation: that of what is restored, or else a new one (or that of an
    /// earlier start from nothing which has not yet decided a checkpoint).
    pub lineage: String,
    /// First id to use: higher than every id that the log knows of. An id that an older generation
    /// triggered without deciding it can come again, so names of prepared things need the generation.
    pub next_checkpoint: CheckpointId,
    /// The restored checkpoint is the final one: commit what it lists, then the job is complete.
    pub already_finished: bool,
    /// What the log retains, the fence to claim included: for [`crate::Setup::log`].
    pub log: Vec<Entry>,
    /// What the user should know before going on, as sentences.
    pub warnings: Vec<String>,
}

/// Why a start is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The log belongs to another job.
    #[error("{} belongs to job {found:?}, this is job {job:?}: use another checkpoint directory", record::slot_name(*.slot))]
    OtherJob {
        /// A record of the other job.
        slot: Slot,
        /// The other job.
        found: String,
        /// This job.
        job: String,
    },
    /// The checkpoint asked for is not in the log.
    #[error("checkpoint {wanted} is not in the log; there are: {}", list(.found))]
    NoSuchCheckpoint {
        /// The checkpoint asked for.
        wanted: CheckpointId,
        /// Those that are there, oldest first.
        found: Vec<CheckpointId>,
    },
    /// The newest fence restored a checkpoint whose record is gone.
    #[error("{} restored {}, which is gone: nothing else may be restored in its place unless you name it", record::slot_name(*.fence), record::slot_name(*.restored))]
    RestoredIsGone {
        /// Slot of the fence.
        fence: Slot,
        /// Slot that it restored.
        restored: Slot,
    },
    /// The checkpoint asked for lists output that was perhaps never published, and is perhaps gone.
    #[error(
        "checkpoint {wanted} lists output that may not be published yet; a later start ({}) went back behind it, removed \
         what it did not need, and published more since. Start from the newest (--from latest), or from an older one, \
         which publishes again what came after it", record::slot_name(*.fence)
    )]
    Abandoned {
        /// The checkpoint asked for.
        wanted: CheckpointId,
        /// The fence of the start that went back.
        fence: Slot,
    },
    /// There are checkpoints, but no fence of the generation that decided them.
    #[error("{} has no fence before it: the log is incomplete; restore it from a backup", record::slot_name(*.slot))]
    NoFence {
        /// The newest checkpoint.
        slot: Slot,
    },
    /// A checkpoint follows a fence of another generation, or of another lineage.
    #[error("{} was decided by generation {found}, after the fence of generation {fence}: the log is damaged; restore it from a backup", record::slot_name(*.slot))]
    WrongGeneration {
        /// The checkpoint.
        slot: Slot,
        /// Its generation.
        found: Generation,
        /// Generation of the newest fence before it.
        fence: Generation,
    },
    /// The caller did not hand the records over in the order of their slots.
    #[error("the records of the log are not in the order of their slots")]
    Disorder,
    /// All checkpoint ids are used up.
    #[error("checkpoint ids are used up after {last}: start from nothing in another checkpoint directory")]
    Exhausted {
        /// The highest id seen.
        last: CheckpointId,
    },
}

fn list(found: &[CheckpointId]) -> String {
    if found.is_empty() {
        return "none".into();
    }
    found.iter().map(CheckpointId::to_string).collect::<Vec<_>>().join(", ")
}

/// Decides a start; `records` is the whole log, newest last.
///
/// # Errors
/// See [`RecoveryError`]; none of them is cured by trying again.
pub fn recover(start: &Start<'_>, records: &[(Slot, Record)]) -> Result<Recovery, RecoveryError> {
    if !records.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(RecoveryError::Disorder);
    }
    if let Some((slot, other)) = records.iter().find(|(_, record)| record.job() != start.job) {
        let (found, job) = (other.job().to_owned(), start.job.to_owned());
        return Err(RecoveryError::OtherJob { slot: *slot, found, job });
    }
    let living = living(records);
    let next_checkpoint = next_checkpoint(records)?;
    let branches = Branches::new(&living, next_checkpoint);
    let counts = branch(&living);
    // A choice is one only if there was another checkpoint to go on from.
    let goes_on_from = match &counts {
        Ok(Branch::Checkpoint(slot, _)) => Some(*slot),
        _ => None,
    };
    let (restore, begun) = match start.from {
        From::Nothing => (None, None),
        From::Checkpoint(wanted) => {
            let (slot, manifest) = find(wanted, &living, &retention::expired(&living))?;
            if let Output::PerhapsRemoved(fence) = branches.output(slot, &manifest) {
                return Err(RecoveryError::Abandoned { wanted, fence });
            }
            (Some((slot, manifest)), None)
        }
        From::Latest => match counts? {
            Branch::Checkpoint(slot, manifest) => (Some((slot, manifest.clone())), None),
            Branch::Nothing(fence) => (None, Some(fence.lineage.clone())),
            Branch::Empty => (None, None),
        },
    };
    let restored = restore.as_ref().map(|(slot, _)| *slot);
    let is_checkpoint = |record: &&(Slot, Record)| matches!(record.1, Record::Checkpoint(_));
    let turns = start.from != From::Latest
        && (restored.is_none() || restored != goes_on_from)
        && living.iter().any(is_checkpoint);
    let lineage = match &restore {
        Some((_, manifest)) => manifest.lineage.clone(),
        None => begun.unwrap_or_else(|| start.fresh_lineage.to_owned()),
    };
    let generation = Generation(records.iter().map(|(_, r)| r.generation().0).max().unwrap_or(0) + 1);
    let slot = records.last().map_or(log::FIRST, |(slot, _)| slot.next());
    let mut fence = Fence {
        format: record::FENCE_FORMAT,
        job: start.job.to_owned(),
        lineage: lineage.clone(),
        generation,
        next_checkpoint,
        restored,
        turns: Vec::new(),
        holder: start.holder.to_owned(),
        at_ms: start.at_ms,
    };
    fence.turns = branches.turns(turns.then_some(&fence), slot);
    let mut log: Vec<Entry> = records.iter().map(|(slot, record)| Entry::of(*slot, record)).collect();
    log.push(Entry::fence(slot, &fence));
    Ok(Recovery {
        generation,
        slot,
        already_finished: restore.as_ref().is_some_and(|(_, m)| m.kind == Kind::Final),
        warnings: warnings(start.from, &living, restore.as_ref().map(|(_, m)| m)),
        restore,
        lineage,
        next_checkpoint,
        fence,
        log,
    })
}

/// The records without those that came too late, newest last.
fn living(records: &[(Slot, Record)]) -> Vec<&(Slot, Record)> {
    let mut lowest = Generation(u64::MAX);
    let mut living: Vec<_> = records
        .iter()
        .rev()
        .filter(|(_, record)| {
            let counts = record.generation() <= lowest;
            lowest = lowest.min(record.generation());
            counts
        })
        .collect();
    living.reverse();
    living
}

/// The branch of history that lives.
enum Branch<'a> {
    /// The log is empty.
    Empty,
    /// Begun from nothing by this fence, and nothing decided yet.
    Nothing(&'a Fence),
    /// This checkpoint counts.
    Checkpoint(Slot, &'a Manifest),
}

fn branch<'a>(living: &[&'a (Slot, Record)]) -> Result<Branch<'a>, RecoveryError> {
    let mut newest = None;
    for (slot, record) in living.iter().rev() {
        match record {
            Record::Checkpoint(manifest) => {
                newest.get_or_insert((*slot, &**manifest));
            }
            Record::Fence(fence) => return of_fence(*slot, fence, newest, living),
        }
    }
    match newest {
        Some((slot, _)) => Err(RecoveryError::NoFence { slot }),
        None => Ok(Branch::Empty),
    }
}

fn of_fence<'a>(
    slot: Slot,
    fence: &'a Fence,
    newest: Option<(Slot, &'a Manifest)>,
    living: &[&'a (Slot, Record)],
) -> Result<Branch<'a>, RecoveryError> {
    if let Some((slot, manifest)) = newest {
        if manifest.generation != fence.generation || manifest.lineage != fence.lineage {
            let (found, fence) = (manifest.generation, fence.generation);
            return Err(RecoveryError::WrongGeneration { slot, found, fence });
        }
        return Ok(Branch::Checkpoint(slot, manifest));
    }
    let Some(restored) = fence.restored else { return Ok(Branch::Nothing(fence)) };
    living
        .iter()
        .find_map(|(slot, record)| match record {
            Record::Checkpoint(manifest) if *slot == restored => Some(Branch::Checkpoint(*slot, manifest)),
            _ => None,
        })
        .ok_or(RecoveryError::RestoredIsGone { fence: slot, restored })
}

fn find(
    wanted: CheckpointId,
    living: &[&(Slot, Record)],
    expired: &BTreeSet<Slot>,
) -> Result<(Slot, Manifest), RecoveryError> {
    let checkpoints = || {
        living.iter().filter_map(|(slot, record)| match record {
            Record::Checkpoint(manifest) if !expired.contains(slot) => Some((*slot, manifest)),
            _ => None,
        })
    };
    checkpoints()
        .rfind(|(_, manifest)| manifest.checkpoint == wanted)
        .map(|(slot, manifest)| (slot, (**manifest).clone()))
        .ok_or_else(|| {
            let found = checkpoints().map(|(_, manifest)| manifest.checkpoint).collect();
            RecoveryError::NoSuchCheckpoint { wanted, found }
        })
}

fn next_checkpoint(records: &[(Slot, Record)]) -> Result<CheckpointId, RecoveryError> {
    let mut next = CheckpointId(1);
    for (_, record) in records {
        let after = match record {
            Record::Fence(fence) => fence.next_checkpoint,
            Record::Checkpoint(manifest) => {
                let last = manifest.checkpoint;
                CheckpointId(last.0.checked_add(1).ok_or(RecoveryError::Exhausted { last })?)
            }
        };
        next = next.max(after);
    }
    Ok(next)
}

/// Says what an explicit choice publishes again or leaves behind; `Latest` chooses nothing by itself.
fn warnings(from: From, living: &[&(Slot, Record)], restored: Option<&Manifest>) -> Vec<String> {
    if from == From::Latest {
        return Vec::new();
    }
    let base = restored.map_or(CheckpointId(0), |manifest| manifest.checkpoint);
    let newer: Vec<&Manifest> = living
        .iter()
        .filter_map(|(_, record)| match record {
            Record::Checkpoint(manifest) if manifest.checkpoint > base => Some(&**manifest),
            _ => None,
        })
        .collect();
    let Some(newest) = newer.iter().max_by_key(|manifest| manifest.checkpoint) else { return Vec::new() };
    let begin = match restored {
        Some(manifest) => format!("after checkpoint {}", manifest.checkpoint),
        None => "from the beginning".to_owned(),
    };
    let mut warnings = vec![format!(
        "checkpoints up to {} were decided: output {begin} was already published and will be published again",
        newest.checkpoint
    )];
    for (sink, part) in &newest.sinks {
        let left: Vec<_> = part.pending.iter().filter(|c| c.checkpoint > base).collect();
        if !left.is_empty() {
            warnings.push(format!(
                "sink `{sink}`: {} prepared pieces of output of checkpoint {} are left behind; \
                 each may be committed already or not",
                left.len(),
                newest.checkpoint
            ));
        }
    }
    warnings
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
