//! An aborted checkpoint is not a rollback.

use super::*;

#[test]
fn output_acknowledged_before_the_abort_is_listed_by_the_next_success_with_its_own_id() {
    let mut c = started(setup());
    feed(&mut c, [periodic(), sink_ack(4, 0, &[prepared(4, 0)]), sink_ack(4, 1, &[prepared(4, 1)])]);
    let actions = feed(&mut c, [timeout(4)]);
    let [Action::Aborted { checkpoint: CheckpointId(4), reason }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(reason.contains("source `in` instance 0, state `counts` instance 0"), "{reason}");
    assert_eq!(feed(&mut c, [periodic()]), [barrier(5, Kind::Periodic)]);
    let actions = feed(&mut c, acks(5));
    assert_eq!(listed(manifest_of(&actions)), [(4, 0), (4, 1), (5, 0), (5, 1)]);
    let actions = feed(&mut c, [published(5, 10, Published::Created)]);
    assert_eq!(commit_of(&actions), [(4, 0), (4, 1), (5, 0), (5, 1)]);
}

#[test]
fn output_acknowledged_after_the_abort_is_carried_too_and_only_once() {
    let mut c = started(setup());
    feed(&mut c, [periodic(), timeout(4)]);
    let late = sink_ack(4, 0, &[prepared(4, 0)]);
    let actions = feed(&mut c, [late.clone(), late.clone(), periodic(), late.clone()]);
    assert_eq!(actions, [barrier(5, Kind::Periodic)]);
    feed(&mut c, [sink_ack(4, 1, &[])]);
    assert_eq!(listed(manifest_of(&feed(&mut c, acks(5)))), [(4, 0), (5, 0), (5, 1)]);
    assert_eq!(feed(&mut c, [late]), []);
}

#[test]
fn output_of_several_aborted_checkpoints_in_a_row_is_carried() {
    let mut c = started(setup());
    feed(&mut c, [periodic(), sink_ack(4, 1, &[prepared(4, 1)]), timeout(4), periodic(), timeout(5)]);
    feed(&mut c, [sink_ack(4, 0, &[prepared(4, 0)]), sink_ack(5, 1, &[prepared(5, 1)]), periodic()]);
    feed(&mut c, [sink_ack(5, 0, &[])]);
    assert_eq!(listed(manifest_of(&feed(&mut c, acks(6)))), [(4, 0), (4, 1), (5, 1), (6, 0), (6, 1)]);
}

#[test]
fn a_sink_instance_that_skips_an_aborted_checkpoint_stops_the_job() {
    let mut c = started(setup());
    feed(&mut c, [periodic(), timeout(4), periodic()]);
    let actions = feed(&mut c, [sink_ack(5, 0, &[])]);
    assert!(matches!(stop_of(&actions), Some(StopReason::Internal(_))), "{actions:?}");

    let mut c = started(setup());
    feed(&mut c, [periodic(), timeout(4), periodic(), timeout(5)]);
    let actions = feed(&mut c, [sink_ack(5, 0, &[])]);
    assert!(matches!(stop_of(&actions), Some(StopReason::Internal(_))), "both aborted: {actions:?}");
}

#[test]
fn a_sink_that_cannot_prepare_stops_the_job_even_after_the_abort() {
    let stopped = |actions: Vec<Action>| {
        let reason = stop_of(&actions).cloned();
        assert!(matches!(reason, Some(StopReason::PrepareFailed { instance: 1, .. })), "{actions:?}");
        assert!(reason.is_some_and(|reason| reason.restart_helps()));
    };
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    stopped(feed(&mut c, [failed(Part::sink("out", 1), 4)]));
    let mut c = started(setup());
    feed(&mut c, [periodic(), timeout(4), periodic()]);
    stopped(feed(&mut c, [failed(Part::sink("out", 1), 4)]));
}

#[test]
fn a_sink_that_fails_what_it_acknowledged_stops_the_job() {
    let mut c = started(setup());
    feed(&mut c, [periodic(), sink_ack(4, 1, &[])]);
    let actions = feed(&mut c, [failed(Part::sink("out", 1), 4)]);
    assert!(matches!(stop_of(&actions), Some(StopReason::Internal(_))));
}

#[test]
fn a_source_or_a_stateful_step_that_fails_only_aborts() {
    for part in [Part::source("in", 0), Part::state("counts", 0)] {
        let mut c = started(setup());
        feed(&mut c, [periodic()]);
        let actions = feed(&mut c, [failed(part.clone(), 4)]);
        assert!(matches!(&actions[..], [Action::Aborted { reason, .. }] if reason.contains("disk full")));
        assert_eq!(feed(&mut c, [failed(part, 4), timeout(4)]), [], "late");
        assert_eq!(c.consecutive_failures(), 1);
    }
}

#[test]
fn nothing_aborts_a_checkpoint_that_is_being_published() {
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    feed(&mut c, acks(4));
    assert_eq!(feed(&mut c, [timeout(4), failed(Part::state("counts", 0), 4)]), []);
    let actions = feed(&mut c, [published(4, 10, Published::Created)]);
    assert!(matches!(actions[0], Action::Decided { .. }));
}

#[test]
fn a_publication_that_did_not_happen_leaves_its_slot_to_the_next() {
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    feed(&mut c, acks(4));
    let actions = feed(&mut c, [published(4, 10, Published::Failed("no space".into()))]);
    assert!(matches!(actions[..], [Action::Aborted { .. }]));
    feed(&mut c, [periodic()]);
    let actions = feed(&mut c, acks(5));
    assert!(matches!(actions[..], [Action::Publish { slot: Slot(10), .. }]));
    assert_eq!(listed(manifest_of(&actions)), [(4, 0), (4, 1), (5, 0), (5, 1)]);
}

#[test]
fn an_unknown_outcome_is_read_again_and_never_aborted() {
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    let sent = feed(&mut c, acks(4));
    let unknown = || published(4, 10, Published::Unknown("reset".into()));
    let reread = [Action::Reread { checkpoint: CheckpointId(4), slot: Slot(10) }];
    assert_eq!(feed(&mut c, [unknown(), timeout(4)]), reread);
    let again = feed(&mut c, [published(4, 10, Published::Failed("no space".into()))]);
    assert_eq!(again, sent, "the first try may yet arrive, so the same record is tried again");
    assert_eq!(feed(&mut c, [unknown()]), reread);
    let actions = feed(&mut c, [published(4, 10, Published::Created)]);
    assert!(matches!(actions[0], Action::Decided { .. }));
}

#[test]
fn an_outcome_that_stays_unknown_ends_the_generation() {
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    feed(&mut c, acks(4));
    let actions = feed(&mut c, (0..50).map(|_| published(4, 10, Published::Unknown("reset".into()))));
    assert_eq!(actions.len(), 11);
    assert!(matches!(stop_of(&actions), Some(StopReason::CheckpointsFailing { .. })));
}

#[test]
fn more_failures_in_a_row_than_tolerated_stop_the_job() {
    let mut c = started(setup());
    let fail = |id| [periodic(), sink_ack(id, 0, &[]), sink_ack(id, 1, &[]), timeout(id)];
    feed(&mut c, fail(4));
    feed(&mut c, fail(5));
    decide(&mut c, 6, 10);
    feed(&mut c, fail(7));
    let actions = feed(&mut c, fail(8));
    assert_eq!(stop_of(&actions), None, "a success starts the count over");
    let actions = feed(&mut c, fail(9));
    assert!(
        matches!(stop_of(&actions), Some(StopReason::CheckpointsFailing { count: 3, .. })),
        "{actions:?}"
    );
    assert_eq!(feed(&mut c, [periodic()]), [], "and nothing follows");
}

#[test]
fn state_files_of_an_aborted_checkpoint_go_at_the_next_decision_unless_it_uses_them() {
    let mut c = started(setup());
    feed(&mut c, [periodic(), state_ack(4, &["base", "d4"]), timeout(4)]);
    feed(&mut c, [periodic(), timeout(5), state_ack(5, &["base", "d4", "d5"])]);
    feed(&mut c, [4, 5].into_iter().flat_map(|id| [sink_ack(id, 0, &[]), sink_ack(id, 1, &[])]));
    feed(&mut c, [periodic(), source_ack(6), state_ack(6, &["base", "d5"])]);
    feed(&mut c, [sink_ack(6, 0, &[]), sink_ack(6, 1, &[])]);
    let actions = feed(&mut c, [published(6, 10, Published::Created)]);
    assert_eq!(actions[1..], [Action::Expire(crate::Expiry { slots: vec![], files: vec!["d4".into()] })]);
}
