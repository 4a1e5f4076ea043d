use super::*;
use crate::ids::Generation;
use crate::recovery::{From, Recovery, RecoveryError, Start, recover};
use crate::retention::choose;
use crate::testing::manifest;
use std::collections::BTreeSet;

/// A log that grows by starts and decisions, as in real life.
struct History {
    records: Vec<(Slot, Record)>,
    lineages: u32,
    lineage: String,
}

impl History {
    /// One start that decides checkpoints 1 to 3, each with output of its own: that of 3 alone is perhaps not
    /// published.
    fn new() -> Self {
        let mut history = Self { records: Vec::new(), lineages: 0, lineage: String::new() };
        history.start(From::Latest);
        (1..=3).for_each(|id| history.decide(id, &[id]));
        history
    }

    fn try_start(&mut self, from: From) -> Result<Recovery, RecoveryError> {
        self.lineages += 1;
        let fresh_lineage = format!("lineage {}", self.lineages);
        let start = Start { job: "job", from, fresh_lineage: &fresh_lineage, holder: "host/1", at_ms: 1 };
        recover(&start, &self.records)
    }

    fn start(&mut self, from: From) {
        let recovery = self.try_start(from).unwrap();
        self.lineage = recovery.lineage;
        self.records.push((recovery.slot, Record::Fence(recovery.fence)));
    }

    fn decide(&mut self, id: u32, pending: &[u32]) {
        let generation = self.records.last().unwrap().1.generation();
        let manifest = Manifest { lineage: self.lineage.clone(), ..manifest(id, generation.0, pending) };
        let slot = self.records.last().unwrap().0.next();
        self.records.push((slot, Record::Checkpoint(Box::new(manifest))));
    }

    /// What retention of one checkpoint leaves.
    fn expire(&mut self) {
        let log: Vec<_> = self.records.iter().map(|(slot, r)| crate::Entry::of(*slot, r)).collect();
        let gone = choose(&log, 1, &BTreeSet::new());
        self.records.retain(|(slot, _)| !gone.contains(slot));
    }

    fn refuses(&mut self, id: u32, fence: u64) {
        let wanted = CheckpointId(id);
        let refused = self.try_start(checkpoint(id));
        assert_eq!(refused, Err(RecoveryError::Abandoned { wanted, fence: Slot(fence) }));
    }
}

fn checkpoint(id: u32) -> From {
    From::Checkpoint(CheckpointId(id))
}

/// Checkpoint `id` becomes a savepoint, which retention keeps.
fn keep(history: &mut History, id: u32) {
    for (_, record) in &mut history.records {
        if let Record::Checkpoint(manifest) = record
            && manifest.checkpoint == CheckpointId(id)
        {
            manifest.kind = crate::Kind::Savepoint { name: "kept".into() };
        }
    }
}

#[test]
fn a_checkpoint_whose_output_may_be_removed_is_refused() {
    let mut history = History::new();
    // Removes what it finds prepared for checkpoint 3, and publishes under a newer id.
    history.start(checkpoint(1));
    history.decide(4, &[4]);
    history.refuses(3, 5);
    // It stays refused, whatever is decided and expires.
    keep(&mut history, 3);
    for id in 5..50 {
        history.start(From::Latest);
        history.decide(id, &[id]);
        history.expire();
        history.refuses(3, 5);
    }
    // Also if another lineage is begun meanwhile, and nothing of this one is left.
    history.start(From::Nothing);
    for id in 50..60 {
        history.decide(id, &[id]);
        history.expire();
        history.refuses(3, 5);
    }
}

#[test]
fn a_checkpoint_whose_output_is_known_to_be_published_is_not_refused() {
    let mut history = History::new();
    history.start(checkpoint(1));
    history.decide(4, &[]);
    // Checkpoint 3 does not list the output of checkpoint 2 any more.
    assert!(history.try_start(checkpoint(2)).is_ok());
    history.refuses(3, 5);
    // A checkpoint without output has none to miss.
    assert!(history.try_start(checkpoint(4)).is_ok());
}

#[test]
fn what_was_known_to_be_published_stays_known_when_its_witnesses_expire() {
    let mut history = History::new();
    keep(&mut history, 1);
    keep(&mut history, 2);
    history.start(checkpoint(1));
    for id in 4..80 {
        history.start(From::Latest);
        history.decide(id, &[id]);
        history.expire();
    }
    assert!(history.records.iter().all(|(slot, _)| slot.0 != 4), "checkpoint 3 is gone");
    let recovery = history.try_start(checkpoint(2)).unwrap();
    assert_eq!(recovery.restore.unwrap().1.checkpoint, CheckpointId(2));
    assert_eq!(recovery.generation, Generation(79));
}

#[test]
fn a_start_from_nothing_does_not_bar_the_way_back() {
    let mut history = History::new();
    history.start(From::Nothing);
    (4..9).for_each(|id| history.decide(id, &[id]));
    // Its targets are others: those of the old lineage refuse it.
    assert!(history.try_start(checkpoint(3)).is_ok());
    assert!(history.try_start(checkpoint(4)).is_ok());
    // Back there, and on: then the other one is the old one.
    history.start(checkpoint(3));
    history.decide(9, &[9]);
    assert!(history.try_start(checkpoint(3)).is_ok());
    assert!(history.try_start(checkpoint(8)).is_ok());
    // But going back behind it in its own lineage does.
    history.start(checkpoint(2));
    history.decide(10, &[10]);
    assert!(history.try_start(checkpoint(3)).is_ok(), "checkpoint 9 does not list its output");
    history.refuses(9, 13);
}

#[test]
fn a_mistaken_start_that_decides_nothing_does_not_bar_the_way_back() {
    let mut history = History::new();
    history.start(checkpoint(1));
    history.start(From::Latest);
    history.start(checkpoint(2));
    assert!(history.try_start(checkpoint(3)).is_ok());
    history.start(checkpoint(3));
    history.start(From::Latest);
    history.decide(4, &[4]);
    assert!(history.try_start(checkpoint(3)).is_ok());
    history.start(checkpoint(1));
    history.decide(5, &[]);
    history.refuses(4, 11);
    // One that was decided and is gone again tells by its id.
    history.records.pop();
    history.start(From::Latest);
    let Record::Fence(fence) = &mut history.records.last_mut().unwrap().1 else { panic!("a fence") };
    fence.next_checkpoint = CheckpointId(6);
    history.refuses(4, 11);
}

/// Two processes start at one moment, on file systems without locks.
#[test]
fn a_turn_that_was_put_into_a_deleted_slot_by_a_late_starter_takes_no_part() {
    for from in [checkpoint(3), From::Nothing] {
        for late in [false, true] {
            let mut history = History::new();
            keep(&mut history, 3);
            history.start(checkpoint(1));
            // It reads the log here, and writes its fence much later.
            let Recovery { slot, fence, .. } = history.try_start(from).unwrap();
            history.lineage = "lineage 1".into();
            (4..8).for_each(|id| history.decide(id, &[id]));
            history.expire();
            assert!(history.records.iter().all(|(at, _)| *at != slot));
            if late {
                history.start(From::Latest);
            }
            history.records.push((slot, Record::Fence(fence)));
            history.records.sort_by_key(|(at, _)| *at);
            if !late {
                history.start(From::Latest);
            }
            for id in 8..12 {
                history.refuses(3, 5);
                history.decide(id, &[id]);
                history.expire();
            }
            history.refuses(3, 5);
        }
    }
}

#[test]
fn fences_of_an_older_format_are_taken_for_turns_wherever_they_may_be() {
    let mut history = History::new();
    let make_old = |history: &mut History| {
        for (_, record) in &mut history.records {
            if let Record::Fence(fence) = record {
                (fence.format, fence.turns) = (2, Vec::new());
            }
        }
    };
    history.start(checkpoint(1));
    history.decide(4, &[4]);
    make_old(&mut history);
    history.refuses(3, 5);
    assert!(history.try_start(checkpoint(2)).is_ok(), "checkpoint 3 does not list its output");
    // A newer one takes the knowledge over.
    history.start(From::Latest);
    history.decide(5, &[5]);
    history.refuses(3, 5);
    assert!(history.try_start(checkpoint(4)).is_ok());
}

#[test]
fn only_a_choice_of_another_checkpoint_is_a_turn() {
    let turns = |history: &History| match &history.records.last().unwrap().1 {
        Record::Fence(fence) => {
            fence.turns.iter().map(|turn| (turn.fence.0, turn.published.clone())).collect::<Vec<_>>()
        }
        Record::Checkpoint(_) => panic!("a fence"),
    };
    let published = vec![Slot(2), Slot(3)];
    let mut empty = History { records: Vec::new(), lineages: 0, lineage: String::new() };
    empty.start(From::Nothing);
    assert_eq!(turns(&empty), []);
    let mut history = History::new();
    history.start(From::Latest);
    assert_eq!(turns(&history), []);
    history.start(checkpoint(3));
    assert_eq!(turns(&history), []);
    history.start(checkpoint(1));
    assert_eq!(turns(&history), [(7, published.clone())]);
    history.start(checkpoint(1));
    assert_eq!(turns(&history), [(7, published.clone())]);
    history.start(From::Nothing);
    assert_eq!(turns(&history), [(7, published.clone()), (9, published.clone())]);
    // They are forgotten with the checkpoints from before them.
    for id in 4..6 {
        history.decide(id, &[id]);
        history.expire();
    }
    history.start(From::Latest);
    assert_eq!(turns(&history), []);
}
