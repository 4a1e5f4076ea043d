//! The rules, one by one. Every interleaving of them is in `tests/`.

use super::*;
use crate::manifest::{Committable, Guarantee, Shard, SourcePart, SplitPart, StatePart};
use crate::testing::{committable, fence, manifest, shard, split};

mod aborts;
mod acknowledgements;
mod commits;
mod ends;

const GENERATION: u64 = 2;

fn setup() -> Setup {
    Setup {
        job: "job".into(),
        lineage: "one".into(),
        generation: Generation(GENERATION),
        groups: 128,
        workers: 2,
        parts: Parts {
            sources: vec![("in".into(), 1)],
            acknowledging: BTreeSet::new(),
            states: vec![("counts".into(), StatePart::of("u64 -> u64"), 1)],
            sinks: vec![("out".into(), 2)],
        },
        next_checkpoint: CheckpointId(4),
        next_slot: Slot(10),
        restored: None,
        segments: BTreeMap::new(),
        log: vec![Entry::fence(Slot(9), &fence(GENERATION, 4, None))],
        retained: 2,
        tolerated_failures: 2,
        guarantee: Guarantee::ExactlyOnce,
    }
}

fn started(setup: Setup) -> Coordinator {
    let mut coordinator = Coordinator::new(setup);
    assert_eq!(coordinator.start(), []);
    assert!(coordinator.is_recommitted());
    coordinator
}

fn periodic() -> Event {
    Event::Trigger(Kind::Periodic)
}

fn source_ack(checkpoint: u32) -> Event {
    let report = Report::Source(vec![split("a", u64::from(checkpoint) * 10)]);
    Event::Ack { part: Part::source("in", 0), checkpoint: CheckpointId(checkpoint), report }
}

fn state_ack(checkpoint: u32, files: &[&str]) -> Event {
    let report = Report::State(shard(0, files));
    Event::Ack { part: Part::state("counts", 0), checkpoint: CheckpointId(checkpoint), report }
}

fn sink_ack(checkpoint: u32, instance: u32, committables: &[Committable]) -> Event {
    let report = Report::Sink(committables.to_vec());
    Event::Ack { part: Part::sink("out", instance), checkpoint: CheckpointId(checkpoint), report }
}

fn prepared(checkpoint: u32, instance: u32) -> Committable {
    committable(checkpoint, instance, GENERATION)
}

fn failed(part: Part, checkpoint: u32) -> Event {
    Event::Failed { part, checkpoint: CheckpointId(checkpoint), reason: "disk full".into() }
}

fn timeout(checkpoint: u32) -> Event {
    Event::Timeout { checkpoint: CheckpointId(checkpoint) }
}

fn published(checkpoint: u32, slot: u64, outcome: Published) -> Event {
    Event::Published { checkpoint: CheckpointId(checkpoint), slot: Slot(slot), outcome }
}

fn committed(upto: u32) -> Event {
    Event::Committed { sink: "out".into(), upto: CheckpointId(upto) }
}

fn feed(coordinator: &mut Coordinator, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
    events.into_iter().flat_map(|event| coordinator.handle(event, 77)).collect()
}

/// Acknowledgements of all parts; each sink instance prepared one committable.
fn acks(checkpoint: u32) -> [Event; 4] {
    let sink = |instance| sink_ack(checkpoint, instance, &[prepared(checkpoint, instance)]);
    [source_ack(checkpoint), state_ack(checkpoint, &[]), sink(0), sink(1)]
}

/// The manifest of the one publication in `actions`.
fn manifest_of(actions: &[Action]) -> &Manifest {
    let found: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Publish { manifest, .. } => Some(manifest),
            _ => None,
        })
        .collect();
    assert_eq!(found.len(), 1, "{actions:?}");
    found[0]
}

/// (id, instance) of what a manifest lists for the sink.
fn listed(manifest: &Manifest) -> Vec<(u32, u32)> {
    manifest.sinks["out"].pending.iter().map(|c| (c.checkpoint.0, c.instance)).collect()
}

/// What the one commit in `actions` holds.
fn commit_of(actions: &[Action]) -> Vec<(u32, u32)> {
    let found: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Commit { committables, .. } => Some(committables),
            _ => None,
        })
        .collect();
    assert_eq!(found.len(), 1, "{actions:?}");
    found[0].iter().map(|c| (c.checkpoint.0, c.instance)).collect()
}

fn stop_of(actions: &[Action]) -> Option<&StopReason> {
    match actions.last() {
        Some(Action::Stop(reason)) => Some(reason),
        _ => None,
    }
}

fn barrier(checkpoint: u32, kind: Kind) -> Action {
    Action::Barrier { checkpoint: CheckpointId(checkpoint), kind }
}

/// Takes a periodic checkpoint up to its decision; commits are not confirmed.
fn decide(coordinator: &mut Coordinator, checkpoint: u32, slot: u64) -> Vec<Action> {
    feed(coordinator, [periodic()]);
    feed(coordinator, acks(checkpoint));
    feed(coordinator, [published(checkpoint, slot, Published::Created)])
}

#[test]
fn a_checkpoint_goes_from_barrier_over_acknowledgements_and_decision_to_commit() {
    let mut c = started(setup());
    assert_eq!(c.handle(periodic(), 1234), [barrier(4, Kind::Periodic)]);
    assert_eq!(c.undecided(), Some(CheckpointId(4)));
    let [a, b, d, e] = acks(4);
    assert_eq!(feed(&mut c, [a, b, d]), []);
    let actions = feed(&mut c, [e]);
    let m = manifest_of(&actions);
    assert_eq!((m.checkpoint, m.generation, m.taken_at_ms), (CheckpointId(4), Generation(2), 1234));
    assert_eq!((m.job.as_str(), m.lineage.as_str(), m.groups, m.workers), ("job", "one", 128, 2));
    assert_eq!(m.sources["in"].splits, [split("a", 40)]);
    assert_eq!((m.states["counts"].schema.as_str(), m.states["counts"].shards.len()), ("u64 -> u64", 1));
    assert_eq!(listed(m), [(4, 0), (4, 1)]);
    let actions = feed(&mut c, [published(4, 10, Published::Created)]);
    assert_eq!(actions[0], Action::Decided { checkpoint: CheckpointId(4), kind: Kind::Periodic });
    assert_eq!(commit_of(&actions), [(4, 0), (4, 1)]);
    assert_eq!(c.committables_pending(), 2);
    assert_eq!(feed(&mut c, [committed(4)]), []);
    assert_eq!(c.committables_pending(), 0);
    assert_eq!(feed(&mut c, [periodic()]), [barrier(5, Kind::Periodic)]);
}

#[test]
fn a_second_acknowledgement_of_a_part_counts_for_nothing() {
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    let [a, b, d, e] = acks(4);
    let twice = [a.clone(), a.clone(), b, d.clone(), d.clone(), a.clone()];
    assert_eq!(feed(&mut c, twice), []);
    assert_eq!(listed(manifest_of(&feed(&mut c, [e]))), [(4, 0), (4, 1)]);
    assert_eq!(feed(&mut c, [a, d.clone()]), [], "while it is being published");
    feed(&mut c, [published(4, 10, Published::Created), committed(4)]);
    assert_eq!(feed(&mut c, [d]), [], "after the decision");
    feed(&mut c, [periodic()]);
    let empty = [source_ack(5), state_ack(5, &[]), sink_ack(5, 0, &[]), sink_ack(5, 1, &[])];
    assert_eq!(listed(manifest_of(&feed(&mut c, empty))), []);
}

#[test]
fn an_empty_report_is_a_vote_and_a_missing_one_is_waited_for() {
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    assert_eq!(feed(&mut c, [source_ack(4), state_ack(4, &[]), sink_ack(4, 1, &[])]), []);
    assert_eq!(listed(manifest_of(&feed(&mut c, [sink_ack(4, 0, &[])]))), []);
    let actions = feed(&mut c, [published(4, 10, Published::Created)]);
    assert_eq!(actions.len(), 1, "nothing to commit: {actions:?}");
}

#[test]
fn while_one_is_undecided_a_timer_is_dropped_and_requests_wait() {
    let savepoint = |name: &str| Kind::Savepoint { name: name.into() };
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    assert_eq!(
        feed(&mut c, [periodic(), Event::Trigger(savepoint("s")), Event::Trigger(savepoint("s"))]),
        []
    );
    let dropped = feed(&mut c, [Event::Trigger(savepoint("t"))]);
    assert!(matches!(&dropped[..], [Action::Dropped { kind, .. }] if *kind == savepoint("t")));
    assert_eq!(feed(&mut c, [Event::Trigger(Kind::Final), Event::Trigger(Kind::Stop)]), []);
    feed(&mut c, acks(4));
    let actions = feed(&mut c, [published(4, 10, Published::Created)]);
    assert_eq!(actions.last(), Some(&barrier(5, savepoint("s"))));
    feed(&mut c, acks(5));
    let actions = feed(&mut c, [published(5, 11, Published::Created)]);
    assert_eq!(actions.last(), Some(&barrier(6, Kind::Final)), "the final one beats a stop");
}

#[test]
fn a_job_without_parts_decides_at_once() {
    let mut c = started(Setup { parts: Parts::default(), ..setup() });
    let actions = feed(&mut c, [Event::Trigger(Kind::Final)]);
    assert!(matches!(actions[..], [Action::Barrier { .. }, Action::Publish { .. }]), "{actions:?}");
    let actions = feed(&mut c, [published(4, 10, Published::Created)]);
    assert_eq!(stop_of(&actions), Some(&StopReason::Finished));
}

#[test]
fn splits_of_all_instances_are_merged_and_no_known_position_is_lost() {
    let of = |splits| SourcePart { splits, ..SourcePart::default() };
    let restored = Manifest {
        sources: [
            ("in".to_owned(), of(vec![split("a", 1), split("done", 9)])),
            ("removed".to_owned(), of(vec![split("z", 5)])),
        ]
        .into(),
        ..manifest(3, 1, &[])
    };
    let parts = Parts { sources: vec![("in".into(), 2)], ..Parts::default() };
    let mut c = started(Setup { parts, restored: Some(restored), ..setup() });
    feed(&mut c, [periodic()]);
    let ack = |instance, splits| Event::Ack {
        part: Part::source("in", instance),
        checkpoint: CheckpointId(4),
        report: Report::Source(splits),
    };
    let actions = feed(&mut c, [ack(0, vec![split("a", 2)]), ack(1, vec![split("b", 3), split("a", 2)])]);
    let m = manifest_of(&actions);
    assert_eq!(m.sources["in"].splits, [split("a", 2), split("b", 3), split("done", 9)]);
    assert_eq!(m.sources["removed"].splits, [split("z", 5)]);
}

#[test]
fn two_positions_of_one_split_stop_the_job() {
    let parts = Parts { sources: vec![("in".into(), 2)], ..Parts::default() };
    let mut c = started(Setup { parts, ..setup() });
    feed(&mut c, [periodic()]);
    let ack = |instance, position| Event::Ack {
        part: Part::source("in", instance),
        checkpoint: CheckpointId(4),
        report: Report::Source(vec![split("a", position)]),
    };
    let actions = feed(&mut c, [ack(0, 1), ack(1, 2)]);
    assert!(matches!(stop_of(&actions), Some(StopReason::Internal(_))), "{actions:?}");
}

#[test]
fn whoever_does_not_belong_stops_the_job() {
    let other_generation = committable(4, 0, 1);
    let wrong_shard = Event::Ack {
        part: Part::state("counts", 0),
        checkpoint: CheckpointId(4),
        report: Report::State(Shard { worker: 1, ..shard(0, &[]) }),
    };
    let wrong_report = Event::Ack {
        part: Part::source("in", 0),
        checkpoint: CheckpointId(4),
        report: Report::Sink(Vec::new()),
    };
    let no_sink = Event::Committed { sink: "else".into(), upto: CheckpointId(4) };
    for event in [
        sink_ack(4, 2, &[]),
        sink_ack(5, 0, &[]),
        sink_ack(4, 0, &[other_generation]),
        sink_ack(4, 0, &[prepared(4, 1)]),
        sink_ack(4, 0, &[prepared(3, 0)]),
        wrong_shard,
        wrong_report,
        failed(Part::source("else", 0), 4),
        failed(Part::source("in", 0), 5),
        no_sink,
    ] {
        let mut c = started(setup());
        feed(&mut c, [periodic()]);
        let actions = feed(&mut c, [event.clone()]);
        assert!(matches!(stop_of(&actions), Some(StopReason::Internal(_))), "{event:?}: {actions:?}");
    }
}

#[test]
fn messages_of_an_older_generation_are_ignored() {
    let mut c = started(setup());
    feed(&mut c, [periodic()]);
    assert_eq!(feed(&mut c, [sink_ack(3, 7, &[]), failed(Part::sink("out", 0), 3), timeout(3)]), []);
    assert_eq!(feed(&mut c, [published(3, 10, Published::Taken)]), []);
}

#[test]
fn ids_that_are_used_up_stop_the_job() {
    let mut c = started(Setup { next_checkpoint: CheckpointId(u32::MAX), ..setup() });
    assert!(matches!(stop_of(&feed(&mut c, [periodic()])), Some(StopReason::Incompatible(_))));
}
