//! History that forks: what a start that goes back does to the output of the checkpoints that it leaves behind.
//!
//! Such a start removes prepared output that its checkpoint does not list. Later, a sink that remembers only
//! the newest checkpoint of its lineage would take the removed output for published: it sees a newer one, of
//! the other branch. So a checkpoint that was left behind may be restored only if all output that it lists is
//! known to be published, or if nothing of its lineage was decided since: then the sink knows by itself.
//!
//! Every start that goes back says so in its fence ([`crate::record::Turn`]), and which output it knew to be published;
//! retention keeps such fences as long as there is a checkpoint before them.

use crate::ids::{CheckpointId, Slot};
use crate::manifest::{Committable, Manifest};
use crate::record::{Record, Turn};
use std::ops::Range;

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

/// A branch that left the checkpoint behind, in the same lineage.
struct Away {
    /// The fence that began it.
    fence: Slot,
    /// First id that it may have decided.
    next: CheckpointId,
}

/// What `living`, all records that count, says of the output that the checkpoint in `slot` lists.
pub(crate) fn output(slot: Slot, manifest: &Manifest, living: &[&(Slot, Record)]) -> Output {
    let listed: Vec<(&String, &Committable)> = pending(manifest).collect();
    if listed.is_empty() {
        return Output::Published;
    }
    // Records in these slots are of the checkpoint's own branch, also those that are gone.
    let mut own: Vec<Range<Slot>> = Vec::new();
    let mut own_since = Some(slot);
    let mut away: Option<Away> = None;
    let mut removed_by = None;
    for (at, record) in living.iter().filter(|(at, _)| *at > slot) {
        match record {
            Record::Fence(fence) => {
                if let Some(away) = &away
                    && fence.next_checkpoint > away.next
                {
                    removed_by.get_or_insert(away.fence);
                }
                let Some(turn) = &fence.turn else { continue };
                if turn.published.contains(&slot) {
                    return Output::Published;
                }
                own.extend(own_since.take().map(|since| since..*at));
                let is_back = fence.restored.is_some_and(|slot| own.iter().any(|own| own.contains(&slot)));
                own_since = is_back.then_some(*at);
                let is_away = !is_back && fence.lineage == manifest.lineage;
                away = is_away.then_some(Away { fence: *at, next: fence.next_checkpoint });
            }
            Record::Checkpoint(later) if own_since.is_some() => {
                if pending(later).all(|piece| !listed.contains(&piece)) {
                    return Output::Published;
                }
            }
            Record::Checkpoint(_) => {
                if let Some(away) = &away {
                    removed_by.get_or_insert(away.fence);
                }
            }
        }
    }
    removed_by.map_or(Output::Known, Output::PerhapsRemoved)
}

/// What a start that goes back has to say in its fence.
pub(crate) fn turn(living: &[&(Slot, Record)]) -> Turn {
    let published = |(slot, record): &&(Slot, Record)| match record {
        Record::Checkpoint(manifest) if output(*slot, manifest, living) == Output::Published => Some(*slot),
        _ => None,
    };
    Turn { published: living.iter().filter_map(published).collect() }
}

fn pending(manifest: &Manifest) -> impl Iterator<Item = (&String, &Committable)> {
    manifest.sinks.iter().flat_map(|(sink, part)| part.pending.iter().map(move |piece| (sink, piece)))
}

#[cfg(test)]
#[path = "branches_tests.rs"]
mod tests;
