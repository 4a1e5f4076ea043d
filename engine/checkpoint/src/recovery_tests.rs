use super::*;
use crate::testing::{at, fence, manifest};

fn start(from: From) -> Start<'static> {
    Start { job: "job", from, fresh_lineage: "fresh", holder: "host/2", at_ms: 9 }
}

fn latest(records: &[(Slot, Record)]) -> Recovery {
    recover(&start(From::Latest), records).unwrap()
}

fn restored(recovery: &Recovery) -> Option<(u64, u32)> {
    recovery.restore.as_ref().map(|(slot, manifest)| (slot.0, manifest.checkpoint.0))
}

/// Checkpoints 1 to 3 by the first generation.
fn three() -> Vec<(Slot, Record)> {
    let mut records = vec![at(1, fence(1, 1, None))];
    records.extend((1..=3).map(|id| at(u64::from(id) + 1, manifest(id, 1, &[id]))));
    records
}

#[test]
fn an_empty_log_starts_from_nothing_in_a_fresh_lineage() {
    let recovery = latest(&[]);
    assert_eq!(recovery.restore, None);
    assert_eq!((recovery.generation, recovery.slot), (Generation(1), Slot(1)));
    assert_eq!((recovery.next_checkpoint, recovery.lineage.as_str()), (CheckpointId(1), "fresh"));
    assert_eq!(recovery.fence.restored, None);
    assert_eq!(recovery.fence.holder, "host/2");
    assert_eq!(recovery.log, [Entry::fence(Slot(1), &recovery.fence)]);
    assert!(!recovery.already_finished && recovery.warnings.is_empty());
}

#[test]
fn the_newest_checkpoint_is_restored_and_the_next_slot_is_claimed() {
    let recovery = latest(&three());
    assert_eq!(restored(&recovery), Some((4, 3)));
    assert_eq!((recovery.generation, recovery.slot), (Generation(2), Slot(5)));
    assert_eq!((recovery.next_checkpoint, recovery.lineage.as_str()), (CheckpointId(4), "one"));
    assert_eq!(recovery.fence.restored, Some(Slot(4)));
    assert_eq!(recovery.fence.generation, Generation(2));
    assert_eq!(recovery.log.len(), 5);
}

#[test]
fn a_crash_before_the_first_checkpoint_starts_from_nothing_again_in_the_same_lineage() {
    let recovery = latest(&[at(1, fence(1, 1, None))]);
    assert_eq!((restored(&recovery), recovery.lineage.as_str()), (None, "one"));
    assert_eq!((recovery.generation, recovery.slot), (Generation(2), Slot(2)));
}

#[test]
fn a_crash_after_starting_from_nothing_does_not_come_back_to_older_checkpoints() {
    let mut records = three();
    records.push(at(5, Fence { lineage: "two".into(), ..fence(2, 4, None) }));
    let recovery = latest(&records);
    assert_eq!((restored(&recovery), recovery.lineage.as_str()), (None, "two"));
    assert_eq!(recovery.next_checkpoint, CheckpointId(4));
    records.push(at(6, Fence { lineage: "two".into(), ..fence(3, 4, None) }));
    assert_eq!(latest(&records).lineage, "two", "three deep");
}

#[test]
fn after_a_fork_the_abandoned_checkpoints_are_not_restored() {
    let mut records = three();
    records.push(at(5, fence(2, 4, Some(2))));
    assert_eq!(restored(&latest(&records)), Some((2, 1)));
    records.push(at(6, fence(3, 4, Some(2))));
    assert_eq!(restored(&latest(&records)), Some((2, 1)), "a crash in the recovery");
    records.push(at(7, manifest(4, 3, &[])));
    assert_eq!(restored(&latest(&records)), Some((7, 4)), "decided on the new branch");
}

#[test]
fn nothing_replaces_a_restored_record_that_is_gone() {
    let mut records = three();
    records.push(at(5, fence(2, 4, Some(2))));
    records.remove(1);
    let gone = RecoveryError::RestoredIsGone { fence: Slot(5), restored: Slot(2) };
    assert_eq!(recover(&start(From::Latest), &records), Err(gone));
    let named = recover(&start(From::Checkpoint(CheckpointId(2))), &records).unwrap();
    assert_eq!(restored(&named), Some((3, 2)), "unless it is named");
}

#[test]
fn ids_grow_beyond_what_fences_promised() {
    let records = [at(1, fence(1, 1, None)), at(2, manifest(1, 1, &[])), at(9, fence(4, 12, Some(2)))];
    let recovery = latest(&records);
    assert_eq!((recovery.next_checkpoint, recovery.generation), (CheckpointId(12), Generation(5)));
    assert_eq!(recovery.slot, Slot(10));
}

#[test]
fn the_log_of_another_job_is_refused() {
    let other = Start { job: "else", ..start(From::Nothing) };
    let error = recover(&other, &three()).unwrap_err();
    assert!(error.to_string().contains("belongs to job \"job\", this is job \"else\""), "{error}");
}

#[test]
fn a_checkpoint_that_is_not_there_lists_those_that_are() {
    let error = recover(&start(From::Checkpoint(CheckpointId(9))), &three()).unwrap_err();
    assert_eq!(error.to_string(), "checkpoint 9 is not in the log; there are: 1, 2, 3");
    let error = recover(&start(From::Checkpoint(CheckpointId(9))), &[]).unwrap_err();
    assert_eq!(error.to_string(), "checkpoint 9 is not in the log; there are: none");
}

#[test]
fn restoring_an_older_checkpoint_warns_of_output_published_twice_and_left_behind() {
    let recovery = recover(&start(From::Checkpoint(CheckpointId(1))), &three()).unwrap();
    assert_eq!(restored(&recovery), Some((2, 1)));
    assert_eq!((recovery.lineage.as_str(), recovery.next_checkpoint), ("one", CheckpointId(4)));
    assert_eq!(recovery.warnings.len(), 2, "{:?}", recovery.warnings);
    assert!(recovery.warnings[0].contains("after checkpoint 1 was already published"));
    assert!(recovery.warnings[1].contains("1 prepared pieces of output of checkpoint 3"));
}

#[test]
fn naming_the_newest_checkpoint_needs_no_warning() {
    let recovery = recover(&start(From::Checkpoint(CheckpointId(3))), &three()).unwrap();
    assert!(recovery.warnings.is_empty());
    assert_eq!(recovery.fence.restored, Some(Slot(4)));
}

#[test]
fn starting_from_nothing_mints_a_lineage_and_warns() {
    let recovery = recover(&start(From::Nothing), &three()).unwrap();
    assert_eq!((restored(&recovery), recovery.lineage.as_str()), (None, "fresh"));
    assert_eq!(recovery.next_checkpoint, CheckpointId(4), "ids never start over");
    assert!(recovery.warnings[0].contains("from the beginning"));
    assert_eq!(recovery.fence.restored, None);
}

#[test]
fn a_restored_final_checkpoint_means_that_the_job_is_finished() {
    let mut records = three();
    records.push(at(5, Manifest { kind: Kind::Final, ..manifest(4, 1, &[4]) }));
    let recovery = latest(&records);
    assert!(recovery.already_finished);
    assert_eq!(recovery.fence.restored, Some(Slot(5)));
    records.pop();
    records.push(at(5, Manifest { kind: Kind::Stop, ..manifest(4, 1, &[4]) }));
    assert!(!latest(&records).already_finished, "a stopped job continues");
}

#[test]
fn a_log_without_its_fence_is_incomplete() {
    let records = &three()[1..];
    assert_eq!(recover(&start(From::Latest), records), Err(RecoveryError::NoFence { slot: Slot(4) }));
}

#[test]
fn a_checkpoint_under_the_fence_of_another_generation_is_damage() {
    let records = [at(1, fence(2, 1, None)), at(2, manifest(1, 3, &[]))];
    let error = recover(&start(From::Latest), &records).unwrap_err();
    assert!(matches!(error, RecoveryError::WrongGeneration { .. }), "{error}");
}

#[test]
fn a_fence_put_into_a_deleted_slot_by_a_late_starter_takes_no_part() {
    // Slot 2 was a checkpoint, expired; a process that had slept since put its fence there and died.
    let records = [
        at(1, fence(1, 1, None)),
        at(2, fence(2, 2, Some(1))),
        at(8, manifest(7, 1, &[])),
        at(9, manifest(8, 1, &[])),
    ];
    let recovery = latest(&records);
    assert_eq!(restored(&recovery), Some((9, 8)));
    assert_eq!(recovery.generation, Generation(3), "its generation is not used again");
}

#[test]
fn records_out_of_order_are_refused() {
    let mut records = three();
    records.swap(1, 2);
    assert_eq!(recover(&start(From::Latest), &records), Err(RecoveryError::Disorder));
}

#[test]
fn used_up_ids_are_an_error() {
    let records = [at(1, fence(1, 1, None)), at(2, manifest(u32::MAX, 1, &[]))];
    let error = recover(&start(From::Latest), &records).unwrap_err();
    assert_eq!(error, RecoveryError::Exhausted { last: CheckpointId(u32::MAX) });
}

#[test]
fn what_a_decided_checkpoint_expires_is_not_restored_though_it_is_still_there() {
    let mut records = three();
    let Record::Checkpoint(newest) = &mut records[3].1 else { panic!("a checkpoint") };
    newest.expires = vec![Slot(2)];
    let wanted = CheckpointId(1);
    let refused = recover(&start(From::Checkpoint(wanted)), &records).unwrap_err();
    let found = vec![CheckpointId(2), CheckpointId(3)];
    assert_eq!(refused, RecoveryError::NoSuchCheckpoint { wanted, found });
    assert_eq!(
        restored(&recover(&start(From::Checkpoint(CheckpointId(2))), &records).unwrap()),
        Some((3, 2))
    );
}

#[test]
fn a_process_that_woke_up_late_expires_nothing_that_was_restored_meanwhile() {
    let mut records = three();
    // Somebody goes back to checkpoint 1; the first generation decides no more, but finds a deleted slot.
    records.push(at(6, fence(3, 4, Some(2))));
    let late = Manifest { expires: vec![Slot(2), Slot(3)], ..manifest(4, 1, &[]) };
    records.insert(4, at(5, late));
    assert_eq!(restored(&latest(&records)), Some((2, 1)));
    assert_eq!(
        restored(&recover(&start(From::Checkpoint(CheckpointId(1))), &records).unwrap()),
        Some((2, 1))
    );
}
