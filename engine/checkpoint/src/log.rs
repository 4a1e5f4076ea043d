//! Why the checkpoint log may be trusted: the rules for whoever creates a slot.
//!
//! A slot is created once, by put-if-absent, and that creation is the decision. Two dangers remain, and
//! each has a rule here. The runtime follows them for checkpoints and for fences alike.
//!
//! **A deleted slot can be created again.** Old slots are deleted ([`crate::retention`]). A zombie that
//! slept meanwhile can put its record into a slot that was used and deleted, and put-if-absent says
//! created. Therefore, after every creation, list the log and call [`confirm`]: any higher slot means
//! that the record came too late, and counts as taken. This is sound because the newest record is never
//! deleted. A directory listing that runs beside a creation and a deletion may miss both, so repeat it
//! until two listings have the same highest slot. As a second line, retention keeps the newest
//! [`crate::retention::KEPT_FENCES`] fences: a zombie coordinator's next slot is always that of the
//! fence which replaced it, so while that fence stays its creation fails in the first place.
//!
//! A zombie may die between creating and listing, and leave such a late record behind. It never is the
//! newest record, and [`crate::recovery`] passes over one whose generation is higher than a later
//! record's.
//!
//! **The outcome of a creation can be unknown**, and "exists" can mean our own first try. Read the slot
//! and call [`recognise`]. A slot that is still empty stays unknown (the request may yet arrive): create
//! it again with the same bytes, never move on. For a fence it is simpler: unknown or taken, read the
//! log again, call [`crate::recovery::recover`] again, and claim a further slot; an own forgotten fence
//! is an older generation like any other. Never recognise a fence by its generation: two processes that
//! start at the same time both compute the same one.

use crate::coordinator::Published;
use crate::ids::Slot;
use crate::manifest::Manifest;
use crate::record::Record;

/// Slot of the first record of a log.
pub const FIRST: Slot = Slot(1);

/// Whether a record that put-if-absent created counts: `listed` is the log, listed *after* the creation,
/// in any order. [`Published::Created`], or [`Published::Taken`] if a higher slot exists.
///
/// A listing without the created slot itself, and without a higher one, is [`Published::Unknown`]: it
/// was made too early, or somebody deletes by hand.
#[must_use]
pub fn confirm(created: Slot, listed: &[Slot]) -> Published {
    if listed.iter().any(|slot| *slot > created) {
        return Published::Taken;
    }
    if listed.contains(&created) {
        return Published::Created;
    }
    Published::Unknown(format!("slot {created} was created and is not listed"))
}

/// Whose record a slot holds: `found` was read from the slot into which `ours` was to be published.
///
/// [`Published::Created`] must still be [`confirm`]ed; [`Published::Unknown`] if the slot is empty.
#[must_use]
pub fn recognise(found: Option<&Record>, ours: &Manifest) -> Published {
    match found {
        None => Published::Unknown("the slot is empty".into()),
        Some(Record::Checkpoint(theirs))
            if theirs.generation == ours.generation
                && theirs.checkpoint == ours.checkpoint
                && theirs.lineage == ours.lineage =>
        {
            Published::Created
        }
        Some(_) => Published::Taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CheckpointId, Generation};
    use crate::record::Fence;
    use crate::testing::manifest;

    #[test]
    fn a_created_record_counts_only_while_no_higher_slot_exists() {
        let slots = |s: &[u64]| s.iter().map(|s| Slot(*s)).collect::<Vec<_>>();
        assert_eq!(confirm(Slot(5), &slots(&[1, 4, 5])), Published::Created);
        assert_eq!(confirm(Slot(5), &slots(&[9, 5, 1])), Published::Taken);
        assert_eq!(confirm(Slot(5), &slots(&[9])), Published::Taken);
        assert!(matches!(confirm(Slot(5), &slots(&[1, 4])), Published::Unknown(_)));
        assert!(matches!(confirm(Slot(5), &[]), Published::Unknown(_)));
    }

    #[test]
    fn only_exactly_our_manifest_is_ours_and_an_empty_slot_stays_unknown() {
        let ours = manifest(7, 2, &[]);
        let record = |m: Manifest| Record::Checkpoint(Box::new(m));
        assert_eq!(recognise(Some(&record(ours.clone())), &ours), Published::Created);
        let theirs = Manifest { generation: Generation(3), ..ours.clone() };
        assert_eq!(recognise(Some(&record(theirs)), &ours), Published::Taken);
        let earlier = Manifest { checkpoint: CheckpointId(6), ..ours.clone() };
        assert_eq!(recognise(Some(&record(earlier)), &ours), Published::Taken);
        let fence = Fence {
            format: 1,
            job: ours.job.clone(),
            lineage: ours.lineage.clone(),
            generation: ours.generation,
            next_checkpoint: ours.checkpoint,
            restored: None,
            turns: Vec::new(),
            holder: String::new(),
            at_ms: 0,
        };
        assert_eq!(recognise(Some(&Record::Fence(fence)), &ours), Published::Taken);
        assert!(matches!(recognise(None, &ours), Published::Unknown(_)));
    }
}
