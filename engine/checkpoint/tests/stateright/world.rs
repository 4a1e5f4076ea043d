//! What outlives every process: the log, the state files, the target. And what must hold of them, checked
//! at the moment at which it could break.

use crate::bounds::{Bounds, Met, Mistake, Seen};
use staunch_checkpoint::recovery::From;
use staunch_checkpoint::retention::Prepared;
use staunch_checkpoint::{
    CheckpointId, Committable, Generation, Kind, Manifest, Record, Recovery, Slot, Start, recover,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A set of records, one bit each.
pub type Records = u16;

/// The records before a position.
pub fn before(position: u8) -> Records {
    (1 << position) - 1
}

/// A property that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Broken {
    TwoDecisions,
    ZombieDecided,
    NotAcknowledged,
    NotPrepared,
    WrongCut,
    FalseBelief,
    DecidedAborted,
    Undecided,
    ZombieCommitted,
    Doubled,
    Gap,
    NeededDeleted,
    IdReused,
    Contract,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    log: BTreeMap<Slot, Arc<Record>>,
    /// The highest slot ever created: a lower one that is created again decides nothing.
    highest: Slot,
    /// Slots deleted at some time.
    deleted: BTreeSet<Slot>,
    /// Creations on their way whose process has given up waiting.
    pub late: Vec<(Slot, Arc<Record>)>,
    /// State files, with the records that each covers.
    pub files: BTreeMap<String, Records>,
    /// Output that is prepared and invisible.
    pub prepared: BTreeMap<Prepared, Records>,
    /// Output that is visible; its keys are the target's tokens.
    pub committed: BTreeMap<Prepared, Records>,
    /// What the target sees of what was committed, by sink and instance.
    visible: BTreeMap<(String, u32), Records>,
    /// The generation from which on the target takes commits.
    target_fence: Generation,
    /// The newest fence of the log that was created in its order.
    log_fence: (Slot, Generation),
    /// Output that some decision lists.
    decided: BTreeSet<Prepared>,
    /// What was decided, and by whom.
    decisions: BTreeMap<CheckpointId, Generation>,
    pub last: Option<Arc<Manifest>>,
    pub broken: BTreeSet<Broken>,
}

/// What never changes during an exploration.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub bounds: &'a Bounds,
    pub mistake: Mistake,
    pub seen: &'a Seen,
}

impl World {
    pub fn new() -> Self {
        Self {
            log: BTreeMap::new(),
            highest: Slot(0),
            deleted: BTreeSet::new(),
            late: Vec::new(),
            files: BTreeMap::new(),
            prepared: BTreeMap::new(),
            committed: BTreeMap::new(),
            visible: BTreeMap::new(),
            target_fence: Generation(0),
            log_fence: (Slot(0), Generation(0)),
            decided: BTreeSet::new(),
            decisions: BTreeMap::new(),
            last: None,
            broken: BTreeSet::new(),
        }
    }

    pub fn slots(&self) -> Vec<Slot> {
        self.log.keys().copied().collect()
    }

    pub fn record(&self, slot: Slot) -> Option<&Record> {
        self.log.get(&slot).map(|record| &**record)
    }

    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.log.values().filter_map(|record| match &**record {
            Record::Checkpoint(manifest) => Some(&**manifest),
            Record::Fence(_) => None,
        })
    }

    /// What a start would do now. It must restore what was decided last.
    pub fn recover(&mut self) -> Option<Recovery> {
        let start = Start { job: "j", from: From::Latest, fresh_lineage: "l", holder: "", at_ms: 0 };
        let records: Vec<(Slot, Record)> =
            self.log.iter().map(|(slot, record)| (*slot, Record::clone(record))).collect();
        let recovery = recover(&start, &records).ok();
        let restored = recovery.as_ref().and_then(|r| r.restore.as_ref()).map(|(_, manifest)| manifest);
        if recovery.is_none() || restored != self.last.as_deref() {
            self.broken.insert(Broken::NeededDeleted);
        }
        recovery
    }

    /// Put-if-absent; true if it created the slot.
    pub fn create(&mut self, rules: Rules<'_>, slot: Slot, record: Arc<Record>) -> bool {
        if let Some(there) = self.log.get(&slot) {
            if rules.mistake != Mistake::LogOverwrites {
                return false;
            }
            if matches!(**there, Record::Checkpoint(_)) {
                self.broken.insert(Broken::TwoDecisions);
            }
        }
        self.log.insert(slot, Arc::clone(&record));
        if slot < self.highest {
            rules.seen.note(Met::LateCreation);
            return true;
        }
        self.highest = slot;
        match &*record {
            Record::Fence(fence) => {
                if fence.generation <= self.log_fence.1 {
                    self.broken.insert(Broken::ZombieDecided);
                }
                self.log_fence = (slot, fence.generation);
            }
            Record::Checkpoint(manifest) => self.decide(rules, manifest),
        }
        true
    }

    /// A manifest is in the log, in its order: now it holds, and everything about it must be right.
    fn decide(&mut self, rules: Rules<'_>, manifest: &Manifest) {
        let id = manifest.checkpoint;
        if self.decisions.last_key_value().is_some_and(|(last, _)| *last >= id) {
            self.broken.insert(Broken::TwoDecisions);
        }
        self.decisions.insert(id, manifest.generation);
        if manifest.generation != self.log_fence.1 {
            self.broken.insert(Broken::ZombieDecided);
        }
        let expected = before(position(manifest));
        for (sink, part) in &manifest.sinks {
            let of_sink = self.committed.iter().filter(|(piece, _)| piece.sink == *sink);
            let mut pieces: BTreeMap<Prepared, Records> = of_sink.map(|(p, r)| (p.clone(), *r)).collect();
            let mut listed = BTreeSet::new();
            for committable in &part.pending {
                let piece = prepared(sink, committable);
                match self.prepared.get(&piece).or_else(|| self.committed.get(&piece)) {
                    Some(records) => drop(pieces.insert(piece.clone(), *records)),
                    None => drop(self.broken.insert(Broken::NotPrepared)),
                }
                if !listed.insert(piece.clone()) {
                    self.broken.insert(Broken::WrongCut);
                }
                if committable.checkpoint < id && !self.decided.contains(&piece) {
                    rules.seen.note(Met::Carried);
                }
                self.decided.insert(piece);
            }
            let in_order = part.pending.is_sorted_by_key(|c| c.checkpoint);
            if !in_order || !exactly(expected, pieces.values().copied()) {
                self.broken.insert(Broken::WrongCut);
            }
        }
        self.check_state(manifest, expected);
        self.last = Some(Arc::new(manifest.clone()));
    }

    /// The state files of a checkpoint exist and hold exactly the records before its position.
    fn check_state(&mut self, manifest: &Manifest, expected: Records) {
        for shard in manifest.states.values().flat_map(|state| &state.shards) {
            let held: Option<Vec<Records>> =
                shard.files.iter().map(|file| self.files.get(&file.name).copied()).collect();
            match held {
                None => drop(self.broken.insert(Broken::NotPrepared)),
                Some(held) if !exactly(expected, held.iter().copied()) => {
                    self.broken.insert(Broken::WrongCut);
                }
                Some(_) => {}
            }
        }
    }

    /// Whether a coordinator that takes this checkpoint for decided is right.
    pub fn check_belief(&mut self, checkpoint: CheckpointId, generation: Generation) {
        if self.decisions.get(&checkpoint) != Some(&generation) {
            self.broken.insert(Broken::FalseBelief);
        }
    }

    /// A start fences the target, and removes prepared output that is not listed; false if the target
    /// knows of a newer one.
    pub fn fence(&mut self, rules: Rules<'_>, recovery: &Recovery) -> bool {
        let generation = recovery.generation;
        let restored = recovery.restore.as_ref().map(|(_, manifest)| manifest);
        if generation < self.target_fence {
            return false;
        }
        // Sinks refuse such a start: it would mean that the log has lost a record.
        if self.committed.keys().any(|piece| piece.checkpoint >= recovery.next_checkpoint) {
            self.broken.insert(Broken::IdReused);
        }
        self.target_fence = generation;
        let mut listed = BTreeSet::new();
        if rules.mistake != Mistake::ListedAborted {
            for (sink, part) in restored.iter().flat_map(|manifest| &manifest.sinks) {
                listed.extend(part.pending.iter().map(|c| prepared(sink, c)));
            }
        }
        let gone = self.prepared.keys().filter(|piece| !listed.contains(piece));
        let gone: Vec<Prepared> = gone.cloned().collect();
        for piece in gone {
            self.abort(&piece);
        }
        true
    }

    /// Prepared output is gone.
    pub fn abort(&mut self, piece: &Prepared) {
        if self.prepared.remove(piece).is_some() && self.decided.contains(piece) {
            self.broken.insert(Broken::DecidedAborted);
        }
    }

    /// A committer of this generation publishes one piece; false if the target refuses it.
    pub fn commit(&mut self, rules: Rules<'_>, generation: Generation, piece: Prepared) -> bool {
        if generation < self.target_fence {
            if rules.mistake != Mistake::TargetUnfenced {
                rules.seen.note(Met::ZombieRefused);
                return false;
            }
            self.broken.insert(Broken::ZombieCommitted);
        }
        if !self.decided.contains(&piece) {
            self.broken.insert(Broken::Undecided);
        }
        let again = self.committed.get(&piece).copied();
        if again.is_some() && rules.mistake != Mistake::CommitNotIdempotent {
            return true;
        }
        let Some(records) = self.prepared.remove(&piece).or(again) else {
            self.broken.insert(Broken::DecidedAborted);
            return true;
        };
        let instance = piece.instance;
        let visible = self.visible.entry((piece.sink.clone(), instance)).or_default();
        if *visible & records != 0 {
            self.broken.insert(Broken::Doubled);
        }
        *visible |= records;
        let missing = of_instance(before(rules.bounds.records), instance, rules.bounds.instances) & !*visible;
        if *visible >= 1 << missing.trailing_zeros().min(15) {
            self.broken.insert(Broken::Gap);
        }
        self.committed.insert(piece, records);
        true
    }

    /// Somebody, maybe a zombie, deletes slots that he once found to be deletable.
    pub fn expire_slots(&mut self, rules: Rules<'_>, slots: &[Slot]) {
        for slot in slots {
            let Some(record) = self.log.remove(slot) else { continue };
            rules.seen.note(Met::Expired);
            let late = !self.deleted.insert(*slot);
            if *slot == self.highest {
                self.broken.insert(Broken::NeededDeleted);
            }
            let Record::Checkpoint(manifest) = &*record else { continue };
            let pieces = manifest.sinks.iter().flat_map(|(s, p)| p.pending.iter().map(|c| prepared(s, c)));
            let pending = pieces.into_iter().any(|piece| !self.committed.contains_key(&piece));
            if !late && (pending || matches!(manifest.kind, Kind::Savepoint { .. })) {
                self.broken.insert(Broken::NeededDeleted);
            }
        }
        self.recover();
        self.check_files();
    }

    pub fn delete_files<'a>(&mut self, files: impl IntoIterator<Item = &'a String>) {
        for file in files {
            self.files.remove(file);
        }
        self.check_files();
    }

    /// Every checkpoint that the log retains can be loaded.
    fn check_files(&mut self) {
        // One that came back by a late creation counts for nothing.
        let living = self.log.iter().filter(|(slot, _)| !self.deleted.contains(slot));
        let lost = living.into_iter().any(|(_, record)| match &**record {
            Record::Checkpoint(manifest) => names(manifest).any(|name| !self.files.contains_key(name)),
            Record::Fence(_) => false,
        });
        if lost {
            self.broken.insert(Broken::NeededDeleted);
        }
    }

    /// All fences but the newest disappear, which is more than retention does before many generations
    /// have passed. False if there is no other.
    pub fn forget_fences(&mut self) -> bool {
        let newest = self.log_fence.0;
        let fences = self.log.iter().filter(|(_, record)| matches!(***record, Record::Fence(_)));
        let old: Vec<Slot> = fences.map(|(slot, _)| *slot).filter(|slot| *slot != newest).collect();
        for slot in &old {
            self.log.remove(slot);
            self.deleted.insert(*slot);
        }
        !old.is_empty()
    }

    /// The final checkpoint is decided and all that was decided is committed.
    pub fn is_complete(&self, bounds: &Bounds) -> bool {
        let ended = self.last.as_ref().is_some_and(|manifest| manifest.kind == Kind::Final);
        let sinks = u32::from(bounds.sinks);
        ended
            && self.decided.iter().all(|piece| self.committed.contains_key(piece))
            && (0..sinks).all(|sink| {
                let of_sink = self.committed.iter().filter(|(piece, _)| piece.sink == sink_name(sink));
                exactly(before(bounds.records), of_sink.map(|(_, records)| *records))
            })
    }

    /// Nothing is left that nobody refers to.
    pub fn is_tidy(&self) -> bool {
        let used: BTreeSet<&str> = self.manifests().flat_map(names).collect();
        self.prepared.is_empty() && self.files.keys().all(|name| used.contains(name.as_str()))
    }
}

/// Whether the parts are disjoint and make up the whole.
fn exactly(whole: Records, parts: impl Iterator<Item = Records>) -> bool {
    let mut sum = 0;
    for part in parts {
        if sum & part != 0 {
            return false;
        }
        sum |= part;
    }
    sum == whole
}

/// The records that one of several instances of a sink writes.
pub fn of_instance(records: Records, instance: u32, instances: u8) -> Records {
    let mine = (0..16).filter(|record| record % u32::from(instances) == instance);
    records & mine.fold(0, |mask, record| mask | 1 << record)
}

pub fn sink_name(sink: u32) -> &'static str {
    ["a", "b"][sink as usize]
}

/// Identity of a committable.
pub fn prepared(sink: &str, c: &Committable) -> Prepared {
    Prepared { sink: sink.into(), checkpoint: c.checkpoint, instance: c.instance, generation: c.generation }
}

/// Names of a checkpoint's state files.
pub fn names(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let shards = manifest.states.values().flat_map(|state| &state.shards);
    shards.flat_map(|shard| &shard.files).map(|file| file.name.as_str())
}

/// Where the one split of the source stands.
pub fn position(manifest: &Manifest) -> u8 {
    let split = manifest.sources.get("in").and_then(|source| source.splits.first());
    split.and_then(|split| split.position.as_ref()).and_then(|p| p.as_u64()).map_or(0, |p| p as u8)
}
