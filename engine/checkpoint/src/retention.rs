//! What may be deleted: old records of the log, and files that no remaining record refers to.
//!
//! Promises never to name the newest record, a savepoint, a checkpoint whose prepared output is not yet
//! confirmed, the newest fence, or what that fence restored while nothing has been decided since.
//!
//! What goes is decided as everything else is: by a record of the log. A checkpoint names the older ones that
//! it [expires](Manifest::expires), and nothing is deleted before it is decided. So a process that stands still
//! in front of a deletion, and is replaced by a start that goes back to an older checkpoint, cannot take that one
//! away: either its decision came before the fence, and the start has seen what expires and does not
//! restore it, or it never comes.
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

/// Chooses the slots that may be deleted once the last of `log` (oldest first) is decided, oldest first.
///
/// `retained` is the number of newest checkpoints to keep, savepoints apart (the newest of all is kept
/// in any case), and `unconfirmed` the prepared output of which no commit is confirmed.
#[must_use]
pub fn choose(log: &[Entry], retained: usize, unconfirmed: &BTreeSet<Prepared>) -> Vec<Slot> {
    let (mut any, mut periodic, mut fences) = (false, 0, 0);
    let mut needed = None;
    let mut gone = Vec::new();
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
        if !keep {
            gone.push(entry.slot);
        }
    }
    gone.reverse();
    gone
}

/// What goes with these slots (sorted): the files that no other checkpoint of `log` has.
#[must_use]
pub fn expiry(log: &[Entry], slots: &[Slot]) -> Expiry {
    let goes = |entry: &&Entry| slots.binary_search(&entry.slot).is_ok();
    let files = |entry: &'_ Entry| match &entry.what {
        What::Checkpoint { files, .. } => files.clone(),
        What::Fence { .. } => BTreeSet::new(),
    };
    let kept: BTreeSet<&String> = log
        .iter()
        .filter(|entry| !goes(entry))
        .filter_map(|entry| match &entry.what {
            What::Checkpoint { files, .. } => Some(files),
            What::Fence { .. } => None,
        })
        .flatten()
        .collect();
    let gone: BTreeSet<String> =
        log.iter().filter(goes).flat_map(files).filter(|file| !kept.contains(file)).collect();
    let slots = log.iter().filter(goes).map(|entry| entry.slot).collect();
    Expiry { slots, files: gone.into_iter().collect() }
}

/// Slots of checkpoints that a decided one expires: they may be gone at any moment. `living` is all records that
/// count.
///
/// A fence that restored one of them tells that a checkpoint of an older generation expired it too late, in a slot
/// that was deleted: that process notices ([`crate::log::confirm`]) and deletes nothing.
pub(crate) fn expired(living: &[&(Slot, Record)]) -> BTreeSet<Slot> {
    let restored_since = |slot: Slot, generation: Generation| {
        living.iter().any(|(_, record)| match record {
            Record::Fence(fence) => fence.generation > generation && fence.restored == Some(slot),
            Record::Checkpoint(_) => false,
        })
    };
    let of = |(_, record): &&(Slot, Record)| match record {
        Record::Checkpoint(manifest) => {
            let late = |slot: &&Slot| restored_since(**slot, manifest.generation);
            manifest.expires.iter().filter(|slot| !late(slot)).copied().collect()
        }
        Record::Fence(_) => Vec::new(),
    };
    living.iter().flat_map(of).collect()
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
