//! What may be deleted: old records of the log, and files that no remaining record refers to.
//!
//! Promises never to name the newest record, a savepoint, a checkpoint whose prepared output is not yet
//! confirmed, the newest fence, or what that fence restored while nothing has been decided since. Does
//! not know who else reads: a start that names an old checkpoint beside a living generation can find its
//! files gone, and fails loudly.
//!
//! Deleting slots is what makes [`crate::log::confirm`] necessary. Whoever deletes takes slots first,
//! files second: a crash in between leaves files that [`orphans`] finds, never a record without files.

use crate::ids::{CheckpointId, Generation, Slot};
use crate::manifest::{Kind, Manifest};
use crate::record::{Fence, Record};
use std::collections::BTreeSet;

/// Newest fences that are never deleted, though only the last one is needed: a zombie coordinator's next
/// slot is that of the fence which replaced it, and cannot be created while that fence is there.
pub const KEPT_FENCES: usize = 32;

/// Identity of prepared output: enough to tell whether it is confirmed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prepared {
    /// The sink.
    pub sink: String,
    /// The checkpoint that it was prepared for.
    pub checkpoint: CheckpointId,
    /// The instance of the sink.
    pub instance: u32,
    /// The generation that prepared it.
    pub generation: Generation,
}

/// One record of the log, as far as retention cares.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Where it is.
    pub slot: Slot,
    /// What it is.
    pub what: What,
}

/// What a record is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// A fence.
    Fence {
        /// Slot of the checkpoint that it restored.
        restored: Option<Slot>,
    },
    /// A checkpoint.
    Checkpoint {
        /// Its id.
        checkpoint: CheckpointId,
        /// Kept until removed by hand.
        savepoint: bool,
        /// Names of its files.
        files: BTreeSet<String>,
        /// The prepared output that it lists.
        pending: BTreeSet<Prepared>,
    },
}

impl Entry {
    /// The entry of a record.
    #[must_use]
    pub fn of(slot: Slot, record: &Record) -> Self {
        match record {
            Record::Checkpoint(manifest) => Self::checkpoint(slot, manifest),
            Record::Fence(fence) => Self::fence(slot, fence),
        }
    }

    /// The entry of a fence.
    #[must_use]
    pub fn fence(slot: Slot, fence: &Fence) -> Self {
        Self { slot, what: What::Fence { restored: fence.restored } }
    }

    /// The entry of a checkpoint.
    #[must_use]
    pub fn checkpoint(slot: Slot, manifest: &Manifest) -> Self {
        let what = What::Checkpoint {
            checkpoint: manifest.checkpoint,
            savepoint: matches!(manifest.kind, Kind::Savepoint { .. }),
            files: files(manifest).map(str::to_owned).collect(),
            pending: prepared(manifest).collect(),
        };
        Self { slot, what }
    }
}

/// What to delete: first the slots, then the files. A name that is gone already is no error.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Expiry {
    /// Slots of the log, oldest first.
    pub slots: Vec<Slot>,
    /// Files of the checkpoint storage, sorted.
    pub files: Vec<String>,
}

impl Expiry {
    /// Nothing is to be deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.files.is_empty()
    }
}

/// Fences that nobody needs, oldest first, now that the last of `log` is a fence that holds.
#[must_use]
pub fn surplus_fences(log: &[Entry]) -> Vec<Slot> {
    let fences: Vec<Slot> =
        log.iter().filter(|entry| matches!(entry.what, What::Fence { .. })).map(|entry| entry.slot).collect();
    // The one before the newest checkpoint says whose that is.
    let newest = log.iter().rposition(|entry| matches!(entry.what, What::Checkpoint { .. }));
    let decider = log[..newest.unwrap_or(0)].iter().rev().find(|e| matches!(e.what, What::Fence { .. }));
    let surplus = fences.len().saturating_sub(KEPT_FENCES);
    fences[..surplus].iter().filter(|slot| decider.is_none_or(|d| d.slot != **slot)).copied().collect()
}

/// Decides what may go, now that the last of `log` (oldest first) has been decided.
///
/// `retained` is the number of newest checkpoints to keep, savepoints apart (the newest of all is kept
/// in any case), `unconfirmed` the prepared output of which no commit is confirmed, and `in_use` the
/// files that an undecided checkpoint has reported.
#[must_use]
pub fn expire(
    log: &[Entry],
    retained: usize,
    unconfirmed: &BTreeSet<Prepared>,
    in_use: &BTreeSet<String>,
) -> Expiry {
    let (mut any, mut periodic, mut fences) = (false, 0, 0);
    let mut needed = None;
    let mut kept_files: BTreeSet<&String> = in_use.iter().collect();
    let mut gone: Vec<&Entry> = Vec::new();
    for entry in log.iter().rev() {
        let keep = match &entry.what {
            What::Fence { restored } => {
                fences += 1;
                if fences == 1 && !any {
                    needed = *restored;
                }
                fences <= KEPT_FENCES
            }
            What::Checkpoint { savepoint, pending, .. } => {
                let newest = !std::mem::replace(&mut any, true);
                periodic += usize::from(!savepoint);
                newest
                    || *savepoint
                    || periodic <= retained
                    || needed == Some(entry.slot)
                    || !pending.is_disjoint(unconfirmed)
            }
        };
        match &entry.what {
            What::Checkpoint { files, .. } if keep => kept_files.extend(files),
            _ if keep => {}
            _ => gone.push(entry),
        }
    }
    let slots = gone.iter().rev().map(|entry| entry.slot).collect();
    let files: BTreeSet<&String> = gone
        .iter()
        .flat_map(|entry| match &entry.what {
            What::Checkpoint { files, .. } => Some(files),
            What::Fence { .. } => None,
        })
        .flatten()
        .filter(|file| !kept_files.contains(file))
        .collect();
    Expiry { slots, files: files.into_iter().cloned().collect() }
}

/// Files of `stored` (all names under `state/` and `splits/`) that no manifest refers to.
///
/// Only for a generation that has confirmed its fence and reads no input yet: `stored` is listed after
/// the fence, and `manifests` are *all* checkpoints of the log.
#[must_use]
pub fn orphans<'a>(stored: &[String], manifests: impl IntoIterator<Item = &'a Manifest>) -> Vec<String> {
    let used: BTreeSet<&str> = manifests.into_iter().flat_map(files).collect();
    stored.iter().filter(|name| !used.contains(name.as_str())).cloned().collect()
}

/// Names of the files of a checkpoint: state, and segments of splits.
fn files(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let segments = manifest.sources.values().flat_map(|source| &source.segments);
    let shards = manifest.states.values().flat_map(|state| &state.shards);
    let state = shards.flat_map(|shard| &shard.files).map(|file| file.name.as_str());
    state.chain(segments.map(|file| file.name.as_str()))
}

fn prepared(manifest: &Manifest) -> impl Iterator<Item = Prepared> {
    manifest.sinks.iter().flat_map(|(sink, part)| {
        part.pending.iter().map(move |c| Prepared {
            sink: sink.clone(),
            checkpoint: c.checkpoint,
            instance: c.instance,
            generation: c.generation,
        })
    })
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
