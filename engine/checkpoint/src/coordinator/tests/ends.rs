//! Stopping and finishing.

use super::*;

#[test]
fn the_job_ends_only_when_the_last_checkpoint_is_decided_and_all_output_committed() {
    for (kind, reason) in [(Kind::Stop, StopReason::Stopped), (Kind::Final, StopReason::Finished)] {
        let mut c = started(setup());
        decide(&mut c, 4, 10);
        assert_eq!(feed(&mut c, [Event::Trigger(kind.clone())]), [barrier(5, kind.clone())]);
        feed(&mut c, acks(5));
        let actions = feed(&mut c, [published(5, 11, Published::Created)]);
        assert_eq!(actions[..], [Action::Decided { checkpoint: CheckpointId(5), kind }]);
        assert_eq!(feed(&mut c, [periodic(), Event::Trigger(Kind::Final)]), [], "nothing new begins");
        assert_eq!(commit_of(&feed(&mut c, [committed(4)])), [(5, 0), (5, 1)]);
        assert_eq!(feed(&mut c, [committed(5)]), [Action::Stop(reason)]);
    }
}

#[test]
fn an_end_without_output_is_immediate() {
    let mut c = started(setup());
    feed(&mut c, [Event::Trigger(Kind::Stop)]);
    feed(&mut c, [source_ack(4), state_ack(4, &[]), sink_ack(4, 0, &[]), sink_ack(4, 1, &[])]);
    let actions = feed(&mut c, [published(4, 10, Published::Created)]);
    assert_eq!(stop_of(&actions), Some(&StopReason::Stopped));
}

#[test]
fn an_end_that_is_aborted_is_tried_again_as_often_as_tolerated() {
    let mut c = started(setup());
    feed(&mut c, [Event::Trigger(Kind::Final)]);
    assert_eq!(feed(&mut c, [timeout(4)]).last(), Some(&barrier(5, Kind::Final)));
    assert_eq!(feed(&mut c, [timeout(5)]).last(), Some(&barrier(6, Kind::Final)));
    let actions = feed(&mut c, [timeout(6)]);
    assert!(
        matches!(stop_of(&actions), Some(StopReason::CheckpointsFailing { count: 3, .. })),
        "{actions:?}"
    );
}

#[test]
fn an_aborted_stop_gives_way_to_the_final_one() {
    let mut c = started(setup());
    feed(&mut c, [Event::Trigger(Kind::Stop), Event::Trigger(Kind::Final)]);
    assert_eq!(feed(&mut c, [timeout(4)]).last(), Some(&barrier(5, Kind::Final)));
}

#[test]
fn an_aborted_savepoint_is_reported_and_not_tried_again() {
    let mut c = started(setup());
    let savepoint = Kind::Savepoint { name: "s".into() };
    feed(&mut c, [Event::Trigger(savepoint.clone())]);
    let actions = feed(&mut c, [timeout(4)]);
    let [Action::Aborted { .. }, Action::Dropped { kind, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(*kind, savepoint);
}

#[test]
fn a_savepoint_that_waits_when_the_job_ends_is_reported() {
    let savepoint = Kind::Savepoint { name: "s".into() };
    let mut c = started(setup());
    feed(&mut c, [Event::Trigger(Kind::Stop), Event::Trigger(savepoint.clone())]);
    feed(&mut c, acks(4));
    let actions = feed(&mut c, [published(4, 10, Published::Created)]);
    assert!(matches!(&actions[1], Action::Dropped { kind, .. } if *kind == savepoint), "{actions:?}");
    let actions = feed(&mut c, [Event::Trigger(savepoint.clone())]);
    assert!(matches!(&actions[..], [Action::Dropped { kind, .. }] if *kind == savepoint), "{actions:?}");
}

#[test]
fn a_restored_final_checkpoint_commits_what_is_left_and_finishes() {
    let finished = |pending: &[u32]| {
        let restored = Some(Manifest { kind: Kind::Final, ..manifest(3, 1, pending) });
        Coordinator::new(Setup { restored, ..setup() })
    };
    let mut c = finished(&[3]);
    assert_eq!(commit_of(&c.start()), [(3, 0)]);
    assert_eq!(feed(&mut c, [periodic(), committed(3)]), [Action::Stop(StopReason::Finished)]);
    assert_eq!(finished(&[]).start(), [Action::Stop(StopReason::Finished)]);
}
