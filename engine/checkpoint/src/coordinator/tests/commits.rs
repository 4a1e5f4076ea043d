//! Phase two, recovery's commits, and what is deleted afterwards.

use super::*;

fn restored(pending: &[u32]) -> Setup {
    let manifest = manifest(3, 1, pending);
    let log =
        vec![Entry::checkpoint(Slot(8), &manifest), Entry::fence(Slot(9), &fence(GENERATION, 4, Some(8)))];
    Setup { restored: Some(manifest), log, ..setup() }
}

#[test]
fn what_the_restored_checkpoint_lists_is_committed_before_anything_else() {
    let mut c = Coordinator::new(restored(&[2, 3]));
    assert!(!c.is_recommitted());
    assert_eq!(commit_of(&c.start()), [(2, 0), (3, 0)]);
    assert_eq!(feed(&mut c, [periodic(), Event::Trigger(Kind::Stop), committed(2)]), []);
    assert!(!c.is_recommitted());
    assert_eq!(feed(&mut c, [committed(3)]), [barrier(4, Kind::Stop)], "what waited, begins");
    assert!(c.is_recommitted());
}

#[test]
fn a_commit_that_is_confirmed_again_confirms_nothing_else() {
    let mut c = started(setup());
    decide(&mut c, 4, 10);
    feed(&mut c, [committed(4)]);
    let actions = decide(&mut c, 5, 11);
    assert_eq!(commit_of(&actions), [(5, 0), (5, 1)]);
    assert_eq!(feed(&mut c, [committed(4), committed(4)]), []);
    assert_eq!(c.committables_pending(), 2);
}

#[test]
fn a_sink_has_one_commit_at_a_time_and_the_next_holds_all_that_is_pending() {
    let mut c = started(setup());
    assert_eq!(commit_of(&decide(&mut c, 4, 10)), [(4, 0), (4, 1)]);
    let none = |actions: Vec<Action>| assert!(!actions.iter().any(|a| matches!(a, Action::Commit { .. })));
    none(decide(&mut c, 5, 11));
    none(decide(&mut c, 6, 12));
    assert_eq!(commit_of(&feed(&mut c, [committed(4)])), [(5, 0), (5, 1), (6, 0), (6, 1)]);
    none(feed(&mut c, [committed(5)]));
    assert_eq!(c.committables_pending(), 2);
    feed(&mut c, [committed(6)]);
    assert_eq!(c.committables_pending(), 0);
}

#[test]
fn a_confirmation_never_reaches_beyond_what_was_in_its_commit() {
    let mut c = started(setup());
    decide(&mut c, 4, 10);
    decide(&mut c, 5, 11);
    assert_eq!(commit_of(&feed(&mut c, [committed(5)])), [(5, 0), (5, 1)], "the commit held 4 alone");
    assert_eq!(c.committables_pending(), 2);
}

#[test]
fn a_manifest_lists_what_earlier_ones_decided_and_nobody_confirmed() {
    let mut c = started(setup());
    decide(&mut c, 4, 10);
    feed(&mut c, [periodic()]);
    let actions = feed(&mut c, acks(5));
    assert_eq!(listed(manifest_of(&actions)), [(4, 0), (4, 1), (5, 0), (5, 1)]);
    feed(&mut c, [committed(4)]);
    let actions = feed(&mut c, [published(5, 11, Published::Created)]);
    assert_eq!(commit_of(&actions), [(5, 0), (5, 1)], "confirmed while 5 was being published");
}

fn commit_failed(blame: Blame) -> Event {
    let (sink, reason) = ("out".into(), "expired".into());
    Event::CommitFailed { sink, checkpoint: CheckpointId(4), reason, blame }
}

#[test]
fn starting_again_helps_after_a_commit_that_failed_by_the_outsides_fault_alone() {
    for (blame, helps) in [(Blame::Outside, true), (Blame::Job, false), (Blame::Engine, false)] {
        let mut c = started(setup());
        decide(&mut c, 4, 10);
        let actions = feed(&mut c, [commit_failed(blame)]);
        assert_eq!(stop_of(&actions).map(StopReason::restart_helps), Some(helps), "{blame:?}");
    }
}

#[test]
fn a_refused_commit_stops_the_job_and_says_what_is_lost() {
    let mut c = started(setup());
    decide(&mut c, 4, 10);
    let actions = feed(&mut c, [commit_failed(Blame::Job)]);
    let Some(reason) = stop_of(&actions) else { panic!("{actions:?}") };
    assert!(reason.to_string().contains("sink `out` will not commit its output of checkpoint 4"), "{reason}");
    assert!(!reason.restart_helps());
}

#[test]
fn a_fenced_coordinator_stops_and_commits_nothing() {
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    feed(&mut c, acks(4));
    assert_eq!(feed(&mut c, [published(4, 10, Published::Taken)]), [Action::Stop(StopReason::Fenced)]);
    assert_eq!(feed(&mut c, [published(4, 10, Published::Created), periodic(), committed(4)]), []);
}

#[test]
fn a_late_answer_about_a_slot_counts_for_nothing() {
    let mut c = started(setup());
    decide(&mut c, 4, 10);
    let late = [published(4, 10, Published::Created), published(4, 10, Published::Failed(String::new()))];
    assert_eq!(feed(&mut c, late), []);
    feed(&mut c, [periodic()]);
    feed(&mut c, acks(5));
    assert_eq!(
        feed(&mut c, [published(4, 10, Published::Created), published(5, 10, Published::Created)]),
        []
    );
}

#[test]
fn pending_output_of_a_sink_that_the_job_has_no_more_is_not_forgotten() {
    let parts = Parts::default();
    let mut c = Coordinator::new(Setup { parts, ..restored(&[3]) });
    let actions = c.start();
    let Some(StopReason::Incompatible(why)) = stop_of(&actions) else { panic!("{actions:?}") };
    assert!(why.contains("no such sink"), "{why}");
    let mut c = Coordinator::new(Setup { parts: Parts::default(), ..restored(&[]) });
    assert_eq!(c.start(), [], "a sink with nothing pending may be removed");
}

#[test]
fn another_number_of_key_groups_is_refused() {
    let mut c = Coordinator::new(Setup { groups: 64, ..restored(&[]) });
    assert!(matches!(stop_of(&c.start()), Some(StopReason::Incompatible(_))));
}

#[test]
fn old_checkpoints_are_deleted_once_their_output_is_confirmed() {
    let mut c = started(Setup { retained: 1, ..setup() });
    decide(&mut c, 4, 10);
    let actions = decide(&mut c, 5, 11);
    assert!(!actions.iter().any(|a| matches!(a, Action::Expire(_))), "4 is unconfirmed: {actions:?}");
    let actions = feed(&mut c, [committed(4)]);
    assert!(!actions.iter().any(|a| matches!(a, Action::Expire(_))), "nothing is decided: {actions:?}");
    let actions = decide(&mut c, 6, 12);
    let expired = crate::Expiry { slots: vec![Slot(10)], files: vec![] };
    assert!(actions.contains(&Action::Expire(expired)), "{actions:?}");
}

#[test]
fn nothing_is_deleted_that_a_decided_checkpoint_does_not_name() {
    let mut c = started(Setup { retained: 1, ..setup() });
    decide(&mut c, 4, 10);
    feed(&mut c, [committed(4)]);
    feed(&mut c, [periodic()]);
    let actions = feed(&mut c, acks(5));
    assert_eq!(manifest_of(&actions).expires, [Slot(10)]);
    assert!(!actions.iter().any(|a| matches!(a, Action::Expire(_))), "{actions:?}");
    let actions = feed(&mut c, [published(5, 11, Published::Taken)]);
    assert_eq!(stop_of(&actions), Some(&StopReason::Fenced));
    assert!(!actions.iter().any(|a| matches!(a, Action::Expire(_))), "{actions:?}");
}

#[test]
fn what_was_restored_is_deleted_only_after_a_decision() {
    let mut c = Coordinator::new(Setup { retained: 1, ..restored(&[3]) });
    c.start();
    assert_eq!(feed(&mut c, [committed(3)]), []);
    let actions = decide(&mut c, 4, 10);
    assert!(actions.contains(&Action::Expire(crate::Expiry { slots: vec![Slot(8)], files: vec![] })));
}
