//! History that forks: what a start that goes back does to the output of the checkpoints that it leaves behind.
//!
//! Such a start removes prepared output that its checkpoint does not list. Later, a sink that remembers only
//! the newest checkpoint of its lineage would take the removed output for published: it sees a newer one, of
//! the other branch. So a checkpoint that was left behind may be restored only if all output that it lists is
//! known to be published, or if nothing of its lineage was decided since: then the sink finds out by itself.
//!
//! Each fence knows of all [`Turn`]s before it, as long as there is a checkpoint that one of them may have left
//! behind. So the newest fence, which is never deleted, is enough: what a process that woke up late has put
//! into a deleted slot is not asked.

use crate::ids::{CheckpointId, Slot};
use crate::manifest::{Committable, Manifest};
use crate::record::{Fence, Record, Turn};
use std::ops::Range;

/// First format of fences that know of turns.
const KNOWS_TURNS: u32 = 3;

/// What the log says of the output that a checkpoint lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// All of it is published.
    Published,
    /// It is there to be published, or its sink finds out that it is not.
    Known,
    /// A later start removed it, unless it was published; its sink cannot tell. The slot of that start's fence.
    PerhapsRemoved(Slot),
}

/// What the records that count say of the past.
pub(crate) struct Branches<'a> {
    living: &'a [&'a (Slot, Record)],
    turns: Vec<Turn>,
    /// Lowest id that nobody has decided.
    next_checkpoint: CheckpointId,
}

impl<'a> Branches<'a> {
    /// Of these records, all that count; `next_checkpoint` is above every id in them.
    pub fn new(living: &'a [&'a (Slot, Record)], next_checkpoint: CheckpointId) -> Self {
        Self { living, turns: turns(living), next_checkpoint }
    }

    fn checkpoints(&self) -> impl Iterator<Item = (Slot, &'a Manifest)> {
        self.living.iter().filter_map(|(slot, record)| match record {
            Record::Checkpoint(manifest) => Some((*slot, &**manifest)),
            Record::Fence(_) => None,
        })
    }

    /// What became of the output that the checkpoint in `slot` lists.
    pub fn output(&self, slot: Slot, manifest: &Manifest) -> Output {
        let listed: Vec<(&String, &Committable)> = pending(manifest).collect();
        let is_published = |later: &Manifest| pending(later).all(|piece| !listed.contains(&piece));
        let turns: Vec<&Turn> = self.turns.iter().filter(|turn| turn.fence > slot).collect();
        if listed.is_empty() || turns.iter().any(|turn| turn.published.contains(&slot)) {
            return Output::Published;
        }
        // Slots of the checkpoint's own branch, also those that are empty now.
        let mut own: Vec<Range<Slot>> = Vec::new();
        let mut removed_by = None;
        let begins = std::iter::once(None).chain(turns.iter().map(Some));
        for (turn, until) in begins.zip(turns.iter().map(Some).chain([None])) {
            let end = until.map_or(Slot(u64::MAX), |until| until.fence);
            let begin = turn.map_or(slot.next(), |turn| turn.fence);
            let decided = || self.checkpoints().filter(|(at, _)| (begin..end).contains(at));
            let is_own = turn.is_none_or(|turn| {
                let restored = turn.restored.as_ref();
                restored
                    .is_some_and(|restored| *restored == slot || own.iter().any(|own| own.contains(restored)))
            });
            if is_own {
                if decided().any(|(_, later)| is_published(later)) {
                    return Output::Published;
                }
                own.push(begin..end);
            } else if let Some(turn) = turn.filter(|turn| turn.lineage == manifest.lineage) {
                // Ids tell also of what is deleted.
                let next = until.map_or(self.next_checkpoint, |until| until.next_checkpoint);
                if next > turn.next_checkpoint || decided().next().is_some() {
                    removed_by.get_or_insert(turn.fence);
                }
            }
        }
        removed_by.map_or(Output::Known, Output::PerhapsRemoved)
    }

    /// The turns that the next fence has to know of; `turn` is its own, if it turns.
    pub fn turns(&self, turn: Option<&Fence>, at: Slot) -> Vec<Turn> {
        let is_left_behind = |turn: &&Turn| self.checkpoints().any(|(slot, _)| slot < turn.fence);
        let own = turn.map(|fence| Turn {
            fence: at,
            restored: fence.restored,
            lineage: fence.lineage.clone(),
            next_checkpoint: fence.next_checkpoint,
            published: self.published(),
        });
        self.turns.iter().filter(is_left_behind).cloned().chain(own).collect()
    }

    fn published(&self) -> Vec<Slot> {
        let all = self.checkpoints();
        all.filter(|(slot, m)| self.output(*slot, m) == Output::Published).map(|(slot, _)| slot).collect()
    }
}

/// What the newest fence knows of. Of one of an older format, each fence with a checkpoint between it and what it
/// restored: perhaps too many, which only refuses more.
fn turns(living: &[&(Slot, Record)]) -> Vec<Turn> {
    let fences = || {
        living.iter().filter_map(|(slot, record)| match record {
            Record::Fence(fence) => Some((*slot, fence)),
            Record::Checkpoint(_) => None,
        })
    };
    match fences().next_back() {
        None => Vec::new(),
        Some((_, newest)) if newest.format >= KNOWS_TURNS => newest.turns.clone(),
        Some(_) => fences().filter(|(slot, fence)| leaves_behind(*slot, fence, living)).map(unsaid).collect(),
    }
}

fn leaves_behind(slot: Slot, fence: &Fence, living: &[&(Slot, Record)]) -> bool {
    living.iter().any(|(at, record)| {
        matches!(record, Record::Checkpoint(_)) && fence.restored < Some(*at) && *at < slot
    })
}

fn unsaid((slot, fence): (Slot, &Fence)) -> Turn {
    Turn {
        fence: slot,
        restored: fence.restored,
        lineage: fence.lineage.clone(),
        next_checkpoint: fence.next_checkpoint,
        published: Vec::new(),
    }
}

fn pending(manifest: &Manifest) -> impl Iterator<Item = (&String, &Committable)> {
    manifest.sinks.iter().flat_map(|(sink, part)| part.pending.iter().map(move |piece| (sink, piece)))
}

#[cfg(test)]
#[path = "branches_tests.rs"]
mod tests;
