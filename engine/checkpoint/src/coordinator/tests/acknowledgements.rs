//! What is acknowledged to the outside, and when.

use super::*;

fn acknowledging() -> Parts {
    let acknowledging = BTreeSet::from(["in".to_owned()]);
    Parts { acknowledging, ..setup().parts }
}

/// What the calls in `actions` are up to.
fn acknowledged(actions: &[Action]) -> Vec<(u32, Vec<(String, u64)>)> {
    let position = |value: &serde_json::Value| value.as_u64().unwrap();
    let calls = actions.iter().filter_map(|action| match action {
        Action::Acknowledge { upto, splits, .. } => {
            Some((upto.0, splits.iter().map(|(id, at)| (id.clone(), position(at))).collect()))
        }
        _ => None,
    });
    calls.collect()
}

fn done() -> Event {
    Event::Acknowledged { source: "in".into() }
}

#[test]
fn positions_are_acknowledged_when_all_output_up_to_their_checkpoint_is_committed() {
    let mut c = started(Setup { parts: acknowledging(), ..setup() });
    assert_eq!(acknowledged(&decide(&mut c, 4, 10)), []);
    assert_eq!(acknowledged(&decide(&mut c, 5, 11)), [], "its output is not committed");
    let at = |position| vec![("a".to_owned(), position)];
    assert_eq!(acknowledged(&feed(&mut c, [committed(4)])), [(4, at(40))]);
    assert_eq!(acknowledged(&feed(&mut c, [committed(5)])), [], "one call at a time");
    assert_eq!(acknowledged(&feed(&mut c, [done()])), [(5, at(50))]);
    assert_eq!(feed(&mut c, [done()]), []);
    assert!(matches!(stop_of(&feed(&mut c, [done()])), Some(StopReason::Internal(_))), "nobody asked");
}

#[test]
fn a_checkpoint_without_output_is_acknowledged_at_once_and_an_abandoned_one_is_not() {
    let mut c = started(Setup { parts: acknowledging(), ..setup() });
    let empty = |n| [source_ack(n), state_ack(n, &[]), sink_ack(n, 0, &[]), sink_ack(n, 1, &[])];
    feed(&mut c, [periodic(), source_ack(4), timeout(4)]);
    feed(&mut c, [sink_ack(4, 0, &[]), sink_ack(4, 1, &[]), periodic()]);
    feed(&mut c, empty(5));
    let actions = feed(&mut c, [published(5, 10, Published::Created)]);
    assert_eq!(acknowledged(&actions), [(5, vec![("a".to_owned(), 50)])]);
}

#[test]
fn the_last_checkpoint_is_acknowledged_before_the_end() {
    for kind in [Kind::Stop, Kind::Final] {
        let mut c = started(Setup { parts: acknowledging(), ..setup() });
        feed(&mut c, [Event::Trigger(kind)]);
        feed(&mut c, acks(4));
        feed(&mut c, [published(4, 10, Published::Created)]);
        let actions = feed(&mut c, [committed(4)]);
        assert_eq!(acknowledged(&actions).len(), 1);
        assert_eq!(stop_of(&actions), None);
        assert!(matches!(stop_of(&feed(&mut c, [done()])), Some(StopReason::Stopped | StopReason::Finished)));
    }
}

#[test]
fn a_start_acknowledges_everything_that_its_checkpoint_knows_once_its_output_is_committed() {
    for kind in [Kind::Periodic, Kind::Final] {
        let is_final = kind == Kind::Final;
        let ended = SourcePart { splits: vec![split("a", 3), split("b", 9)], ..SourcePart::default() };
        let restored =
            Manifest { kind, sources: [("in".to_owned(), ended)].into(), ..manifest(3, 1, &[2, 3]) };
        let restored = Some(restored);
        let mut c = Coordinator::new(Setup { parts: acknowledging(), restored, ..setup() });
        assert_eq!(acknowledged(&c.start()), []);
        assert_eq!(acknowledged(&feed(&mut c, [committed(2)])), []);
        let actions = feed(&mut c, [committed(3)]);
        assert_eq!(acknowledged(&actions), [(3, vec![("a".to_owned(), 3), ("b".to_owned(), 9)])]);
        assert_eq!((stop_of(&actions), c.is_ending()), (None, is_final));
        assert_eq!(stop_of(&feed(&mut c, [done()])).is_some(), is_final);
    }
}

#[test]
fn an_acknowledgement_that_is_refused_stops_the_job_and_a_restart_helps_if_the_outside_is_to_blame() {
    for (blame, helps) in [(Blame::Outside, true), (Blame::Job, false), (Blame::Engine, false)] {
        let mut c = started(Setup { parts: acknowledging(), ..setup() });
        decide(&mut c, 4, 10);
        feed(&mut c, [committed(4)]);
        let (source, checkpoint) = ("in".to_owned(), CheckpointId(4));
        let refused = Event::AcknowledgeFailed { source, checkpoint, reason: "no such queue".into(), blame };
        let actions = feed(&mut c, [refused]);
        let Some(reason) = stop_of(&actions) else { panic!("{actions:?}") };
        assert!(reason.to_string().contains("no such queue"), "{reason}");
        assert_eq!(reason.restart_helps(), helps, "{blame:?}");
    }
}

/// A report has what changed since the last decision, so a lost one is made good by the next.
#[test]
fn a_split_that_ended_in_an_abandoned_checkpoint_is_known_to_have_ended_with_the_next() {
    let mut c = started(setup());
    let end = SplitPart { finished: true, ..split("a", 70) };
    let ack = |n: u32, splits| Event::Ack {
        part: Part::source("in", 0),
        checkpoint: CheckpointId(n),
        report: Report::Source(splits),
    };
    let others = |n| [state_ack(n, &[]), sink_ack(n, 0, &[]), sink_ack(n, 1, &[])];
    feed(&mut c, [periodic()]);
    feed(&mut c, others(4).into_iter().chain([timeout(4), ack(4, vec![end.clone()]), periodic()]));
    let actions = feed(&mut c, others(5).into_iter().chain([ack(5, vec![end.clone()])]));
    assert_eq!(manifest_of(&actions).sources["in"].splits, std::slice::from_ref(&end));
    let actions = feed(&mut c, [published(5, 10, Published::Created)]);
    let ended = Action::Ended { source: "in".into(), splits: vec![end.clone()] };
    assert!(actions.contains(&ended), "{actions:?}");
    // Nobody reports it any more, and it is still known; until it is forgotten.
    feed(&mut c, [periodic()]);
    let actions = feed(&mut c, others(6).into_iter().chain([ack(6, vec![])]));
    assert_eq!(manifest_of(&actions).sources["in"].splits.len(), 1);
    // In the middle of a checkpoint: the next one does not know it.
    feed(&mut c, [Event::Forget { source: "in".into(), splits: vec!["a".into()] }]);
    feed(&mut c, [published(6, 11, Published::Created), periodic()]);
    let actions = feed(&mut c, others(7).into_iter().chain([ack(7, vec![])]));
    assert!(manifest_of(&actions).sources["in"].is_empty());
}
