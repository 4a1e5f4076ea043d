//! What all processes share, and what must hold of it.

use crate::process::Process;
use crate::step::{Outcome, Step};
use staunch_checkpoint::recovery::From;
use staunch_checkpoint::{
    Committable, Expiry, Kind, Manifest, Part, Parts, Record, Recovery, Slot, Start, StatePart, recover,
    slot_name,
};
use std::collections::{BTreeMap, BTreeSet};

/// Processes that live at one time, zombies included.
const MAX_PROCESSES: usize = 4;

/// Sink, generation, checkpoint, instance: what identifies a prepared piece of output.
pub type Piece = (String, u64, u32, u32);

pub fn piece(sink: &str, c: &Committable) -> Piece {
    (sink.to_owned(), c.generation.0, c.checkpoint.0, c.instance)
}

/// How often things happened, to show that the runs reach them.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub decisions: u64,
    pub carried: u64,
    pub fenced: u64,
    pub late_creations: u64,
    pub recommits: u64,
    pub unknown: u64,
    pub stopped: u64,
    pub expired: u64,
    pub aborted: u64,
}

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        self.decisions += other.decisions;
        self.carried += other.carried;
        self.fenced += other.fenced;
        self.late_creations += other.late_creations;
        self.recommits += other.recommits;
        self.unknown += other.unknown;
        self.stopped += other.stopped;
        self.expired += other.expired;
        self.aborted += other.aborted;
    }
}

#[derive(Clone)]
pub struct World {
    pub parts: Parts,
    log: BTreeMap<u64, Vec<u8>>,
    /// The highest slot ever created; only creating a higher one decides anything.
    highest: u64,
    /// Slots that were deleted at some time.
    deleted: BTreeSet<u64>,
    /// Creations on their way whose process has given up waiting.
    ghosts: Vec<(Slot, Vec<u8>)>,
    /// State files that exist.
    pub files: BTreeSet<String>,
    /// Prepared and invisible output: the records of each piece.
    pub prepared: BTreeMap<Piece, Vec<u64>>,
    committed: BTreeMap<Piece, Vec<u64>>,
    /// Pieces that a decided manifest lists.
    decided: BTreeSet<Piece>,
    last: Option<Manifest>,
    /// Parts that have acknowledged: generation, checkpoint, part.
    pub acknowledged: BTreeSet<(u64, u32, String)>,
    processes: Vec<Process>,
    pub seen: Seen,
}

impl Default for World {
    fn default() -> Self {
        Self::new(Parts {
            sources: vec![("in".into(), 1)],
            acknowledging: BTreeSet::new(),
            states: vec![("counts".into(), StatePart::of("s"), 1)],
            sinks: vec![("audit".into(), 1), ("out".into(), 2)],
        })
    }
}

impl World {
    fn new(parts: Parts) -> Self {
        Self {
            parts,
            log: BTreeMap::new(),
            highest: 0,
            deleted: BTreeSet::new(),
            ghosts: Vec::new(),
            files: BTreeSet::new(),
            prepared: BTreeMap::new(),
            committed: BTreeMap::new(),
            decided: BTreeSet::new(),
            last: None,
            acknowledged: BTreeSet::new(),
            processes: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// One source and one sink of two instances, small enough for every interleaving.
    pub fn small() -> Self {
        Self::new(Parts {
            sources: vec![("in".into(), 1)],
            sinks: vec![("out".into(), 2)],
            ..Parts::default()
        })
    }

    pub fn all_parts(&self) -> Vec<Part> {
        let Parts { sources, states, sinks, .. } = &self.parts;
        let mut all = Vec::new();
        all.extend(sources.iter().flat_map(|(name, n)| (0..*n).map(|i| Part::source(name, i))));
        all.extend(states.iter().flat_map(|(name, _, n)| (0..*n).map(|i| Part::state(name, i))));
        all.extend(sinks.iter().flat_map(|(name, n)| (0..*n).map(|i| Part::sink(name, i))));
        all
    }

    /// Carries out a step, of a process where it is one's; false if it is not possible now.
    pub fn step(&mut self, process: usize, step: &Step) -> bool {
        match step {
            Step::Start => {
                self.processes.retain(|process| !process.is_gone());
                if self.processes.len() >= MAX_PROCESSES {
                    return false;
                }
                let recovery = self.recover();
                self.processes.push(Process::new(recovery));
                true
            }
            Step::Ghost(_) if self.ghosts.is_empty() => false,
            Step::Ghost(n) => {
                let (slot, bytes) = self.ghosts.remove(n % self.ghosts.len());
                self.create(slot, bytes);
                true
            }
            _ if self.processes.is_empty() => false,
            _ => {
                let index = process % self.processes.len();
                let mut process = std::mem::replace(&mut self.processes[index], Process::gone());
                let done = process.step(self, step);
                self.processes[index] = process;
                done
            }
        }
    }

    /// No more trouble: everybody crashes, a new process runs to the final checkpoint, and the target
    /// holds each record once.
    pub fn finish(&mut self) {
        self.processes.clear();
        for (slot, bytes) in std::mem::take(&mut self.ghosts) {
            self.create(slot, bytes);
        }
        self.step(0, &Step::Start);
        let order =
            [Step::Create(Outcome::Known), Step::Confirm, Step::Commit(0), Step::Commit(1), Step::Answer(0)];
        let mut rounds = 0;
        while self.ended(0).is_none() {
            rounds += 1;
            assert!(rounds < 200, "the job does not come to its end");
            for step in &order {
                self.step(0, step);
            }
            self.step(0, &Step::Read(1));
            self.step(0, &Step::Trigger(Kind::Final));
            for part in 0..5 {
                self.step(0, &Step::Deliver(part));
            }
        }
        assert_eq!(self.ended(0), Some(&staunch_checkpoint::StopReason::Finished));
        let last = self.last.clone().expect("the final checkpoint");
        assert_eq!(last.kind, Kind::Final);
        for part in last.sinks.keys() {
            let committed = self.committed.iter().filter(|(piece, _)| piece.0 == *part);
            self.check_records(&last, part, committed.map(|(_, records)| records).collect());
        }
    }

    pub fn ended(&self, process: usize) -> Option<&staunch_checkpoint::StopReason> {
        self.processes.get(process).and_then(|process| process.ended.as_ref())
    }

    pub fn slots(&self) -> Vec<Slot> {
        self.log.keys().map(|slot| Slot(*slot)).collect()
    }

    pub fn record(&self, slot: Slot) -> Option<Record> {
        let bytes = self.log.get(&slot.0)?;
        Some(Record::decode(&slot_name(slot), bytes).expect("what was written is readable"))
    }

    pub fn records(&self) -> Vec<(Slot, Record)> {
        self.slots().into_iter().filter_map(|slot| Some((slot, self.record(slot)?))).collect()
    }

    /// What a start at this moment would do; checked against what really was decided last.
    pub fn recover(&self) -> Recovery {
        let start =
            Start { job: "job", from: From::Latest, fresh_lineage: "only", holder: "model", at_ms: 0 };
        let recovery = recover(&start, &self.records()).expect("the log is whole");
        let restored = recovery.restore.as_ref().map(|(_, manifest)| manifest);
        assert_eq!(restored, self.last.as_ref(), "recovery restores the last decision");
        recovery
    }

    /// Put-if-absent; true if it created the slot.
    pub fn create(&mut self, slot: Slot, bytes: Vec<u8>) -> bool {
        if self.log.contains_key(&slot.0) {
            return false;
        }
        self.log.insert(slot.0, bytes);
        if slot.0 < self.highest {
            self.seen.late_creations += 1;
            return true;
        }
        self.highest = slot.0;
        if let Some(Record::Checkpoint(manifest)) = self.record(slot) {
            self.decide(*manifest);
        }
        true
    }

    pub fn create_later(&mut self, slot: Slot, bytes: Vec<u8>) {
        self.ghosts.push((slot, bytes));
    }

    pub fn delete(&mut self, slot: Slot) {
        self.log.remove(&slot.0);
        self.deleted.insert(slot.0);
    }

    /// The manifest is in the log: now it holds, and everything about it must be right.
    fn decide(&mut self, manifest: Manifest) {
        let id = manifest.checkpoint;
        if let Some(last) = &self.last {
            assert!(id > last.checkpoint, "ids grow: {id} after {}", last.checkpoint);
            assert!(manifest.generation >= last.generation, "a zombie decided {id}");
        }
        for part in self.all_parts() {
            let ack = (manifest.generation.0, id.0, part.to_string());
            assert!(self.acknowledged.contains(&ack), "decided {id} without {ack:?}");
        }
        for (sink, part) in &manifest.sinks {
            let mut pieces = self.committed.clone();
            pieces.retain(|piece, _| piece.0 == *sink);
            let mut listed = BTreeSet::new();
            for committable in &part.pending {
                let piece = piece(sink, committable);
                assert!(listed.insert(piece.clone()), "{piece:?} is listed twice");
                let records = self.prepared.get(&piece).or_else(|| self.committed.get(&piece));
                let records = records.unwrap_or_else(|| panic!("{piece:?} was never prepared")).clone();
                let carried = committable.checkpoint < id && !self.decided.contains(&piece);
                self.seen.carried += u64::from(carried);
                self.decided.insert(piece.clone());
                pieces.insert(piece, records);
            }
            let ordered = part.pending.is_sorted_by_key(|c| c.checkpoint);
            assert!(ordered, "commits are in id order");
            self.check_records(&manifest, sink, pieces.values().collect());
        }
        self.seen.decisions += 1;
        self.last = Some(manifest);
    }

    /// The pieces hold every record up to the manifest's position, each once.
    fn check_records(&self, manifest: &Manifest, sink: &str, pieces: Vec<&Vec<u64>>) {
        let mut records: Vec<u64> = pieces.into_iter().flatten().copied().collect();
        records.sort_unstable();
        let expected: Vec<u64> = (0..position(manifest)).collect();
        assert_eq!(records, expected, "sink {sink} at checkpoint {}", manifest.checkpoint);
    }

    /// A committer does its work on one piece, idempotently.
    pub fn commit(&mut self, sink: &str, committable: &Committable) {
        let piece = piece(sink, committable);
        assert!(self.decided.contains(&piece), "{piece:?} is committed without a decision");
        if !self.committed.contains_key(&piece) {
            let records = self.prepared.remove(&piece);
            let records = records.unwrap_or_else(|| panic!("{piece:?} was decided and then aborted"));
            self.committed.insert(piece, records);
        }
    }

    /// A new generation aborts prepared pieces that its manifest does not list.
    pub fn abort_unlisted(&mut self, restored: Option<&Manifest>) {
        let mut listed = BTreeSet::new();
        for (sink, part) in restored.iter().flat_map(|manifest| &manifest.sinks) {
            listed.extend(part.pending.iter().map(|c| piece(sink, c)));
        }
        self.prepared.retain(|piece, _| listed.contains(piece));
    }

    /// Somebody, maybe a zombie, deletes what it once found to be deletable.
    pub fn expire(&mut self, expiry: &Expiry) {
        for slot in &expiry.slots {
            assert!(slot.0 < self.highest, "the newest record is deleted");
            if let Some(Record::Checkpoint(m)) = self.record(*slot) {
                assert!(!matches!(m.kind, Kind::Savepoint { .. }), "a savepoint is deleted");
                for (sink, part) in &m.sinks {
                    let done = |c| self.committed.contains_key(&piece(sink, c));
                    assert!(
                        part.pending.iter().all(done),
                        "{} is deleted with output to commit",
                        m.checkpoint
                    );
                }
            }
            self.delete(*slot);
            self.seen.expired += 1;
        }
        for file in &expiry.files {
            self.files.remove(file);
        }
        self.recover();
        self.check_files();
    }

    /// Whatever the log retains can be loaded.
    pub fn check_files(&self) {
        for (slot, record) in self.records() {
            let Record::Checkpoint(manifest) = record else { continue };
            if self.deleted.contains(&slot.0) {
                continue; // It came back by a late creation, and counts for nothing.
            }
            let shards = manifest.states.values().flat_map(|state| &state.shards);
            for file in shards.flat_map(|shard| &shard.files) {
                assert!(self.files.contains(&file.name), "{} of {} is gone", file.name, manifest.checkpoint);
            }
        }
    }
}

/// Where the one split of the source stands.
pub fn position(manifest: &Manifest) -> u64 {
    manifest.sources["in"].splits[0].position.as_ref().and_then(|p| p.as_u64()).unwrap_or(0)
}
