//! One persister a worker: what its states freeze for a checkpoint is one file, or is none and goes out later.

#![allow(clippy::unwrap_used)]

use staunch_checkpoint::{CheckpointId, Generation, Shard};
use staunch_state::{
    AnyTable, Assignment, FreezeMode, Groups, InMemoryStorage, ManualWriter, PersistedShard, Persister, Put,
    ShardIdentity, SpillShared, StateError, StateId, Storage, StorageError, Table, TableConfig, TimerTable,
    hash_key, restore_table,
};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

type Counts = Table<u64, (), u64>;
type Timers = TimerTable<i64, u64>;

/// A storage that refuses to write while it is told to.
#[derive(Debug, Default)]
struct Refusing {
    inner: InMemoryStorage,
    refuses: AtomicBool,
}

impl Storage for Refusing {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        if self.refuses.load(Ordering::SeqCst) {
            let source = std::io::Error::other("refused by the test");
            return Err(StorageError::Io { action: "write", name: name.into(), place: self.place(), source });
        }
        self.inner.put(name, bytes)
    }
    fn put_file(&self, name: &str, from: &Path) -> Result<(), StorageError> {
        self.inner.put_file(name, from)
    }
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<Put, StorageError> {
        self.inner.put_if_absent(name, bytes)
    }
    fn get(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        self.inner.get(name)
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, StorageError> {
        self.inner.get_range(name, offset, length)
    }
    fn get_file(&self, name: &str, to: &Path) -> Result<(), StorageError> {
        self.inner.get_file(name, to)
    }
    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        self.inner.list(prefix)
    }
    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(name)
    }
    fn place(&self) -> String {
        self.inner.place()
    }
}

fn config(folder: &Path, name: &str) -> TableConfig {
    let groups = Groups::new(8);
    TableConfig {
        name: name.to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: usize::MAX,
        spill_dir: folder.join(name),
        spill: SpillShared::with_defaults(),
        frozen_bytes: TableConfig::FROZEN_BYTES,
    }
}

/// A worker with two states.
struct Worker {
    folder: tempfile::TempDir,
    storage: Arc<Refusing>,
    counts: Counts,
    timers: Timers,
    persister: Persister,
    writer: ManualWriter,
    states: [StateId; 2],
}

type Outcome = Receiver<Result<PersistedShard, StateError>>;

impl Worker {
    fn new() -> Self {
        let (folder, storage) = (tempfile::tempdir().unwrap(), Arc::new(Refusing::default()));
        let counts = Counts::new(config(folder.path(), "counts"));
        let timers = Timers::new(config(folder.path(), "timers"));
        let (persister, writer) = Persister::manual(storage.clone(), identity(1));
        let states = [persister.open("counts", None), persister.open("timers", None)];
        Self { folder, storage, counts, timers, persister, writer, states }
    }

    fn change(&mut self, key: u64) {
        self.counts.update_one(hash_key(&key), &key, (), |value| *value = Some(key)).unwrap();
        self.timers.set(hash_key(&key), &(key as i64), &key).unwrap();
    }

    /// One state's part of a checkpoint.
    fn hand_over(&mut self, state: usize, checkpoint: u32) -> Outcome {
        let checkpoint = CheckpointId(checkpoint);
        let table: &mut dyn AnyTable = if state == 0 { &mut self.counts } else { &mut self.timers };
        table.begin_freeze(self.persister.mode(checkpoint)).unwrap();
        let (done, outcome) = channel();
        let report = Box::new(move |result| done.send(result).unwrap());
        self.persister.persist(self.states[state], checkpoint, None, table.take_frozen().unwrap(), report);
        outcome
    }

    fn write_all(&mut self) {
        while self.writer.write_next() {}
    }

    /// A checkpoint of both states.
    fn checkpoint(&mut self, checkpoint: u32) -> [Result<PersistedShard, StateError>; 2] {
        let outcomes = [self.hand_over(0, checkpoint), self.hand_over(1, checkpoint)];
        self.write_all();
        outcomes.map(|outcome| outcome.try_recv().unwrap())
    }

    fn restored(&self, [counts, timers]: [Shard; 2]) -> (usize, usize) {
        let folder = self.folder.path().join("restored");
        let mut table = Counts::new(config(&folder, "counts"));
        restore_table(&mut table, &*self.storage, &[counts]).unwrap();
        let (mut keys, mut times) = (0, 0);
        table.for_each(|key, (), value| keys += usize::from(key == value)).unwrap();
        let mut table = Timers::new(config(&folder, "timers"));
        restore_table(&mut table, &*self.storage, &[timers]).unwrap();
        table.for_each(|time, key| times += usize::from(time == key as i64)).unwrap();
        (keys, times)
    }
}

fn identity(generation: u64) -> ShardIdentity {
    ShardIdentity {
        job: "job".to_owned(),
        lineage: "life".to_owned(),
        worker: 0,
        generation: Generation(generation),
    }
}

fn shards(outcomes: [Result<PersistedShard, StateError>; 2]) -> [Shard; 2] {
    outcomes.map(|outcome| outcome.unwrap().shard)
}

#[test]
fn the_states_of_a_worker_are_one_file_a_checkpoint_and_one_file_a_merge() {
    let mut worker = Worker::new();
    let mut last = None;
    for checkpoint in 1..=40 {
        worker.change(u64::from(checkpoint));
        let before = worker.storage.list("").unwrap();
        last = Some(shards(worker.checkpoint(checkpoint)));
        let new: Vec<String> =
            worker.storage.list("").unwrap().into_iter().filter(|name| !before.contains(name)).collect();
        // The first is the base, then sixteen deltas are merged at a time.
        let merges = checkpoint > 1 && (checkpoint - 1) % 16 == 0;
        assert_eq!(new.len(), 1 + usize::from(merges), "{checkpoint}: {new:?}");
    }
    let last = last.unwrap();
    let names = |shard: &Shard| -> Vec<String> { shard.files.iter().map(|file| file.name.clone()).collect() };
    assert_eq!(names(&last[0]), names(&last[1]));
    assert_eq!(last[0].files.len(), 1 + 2 + 7, "{:?}", last[0]);
    assert_eq!(worker.restored(last), (40, 40));
}

#[test]
fn nothing_is_written_before_every_state_has_handed_over_and_checkpoints_go_out_in_order() {
    let mut worker = Worker::new();
    worker.change(1);
    // The first is abandoned: one state has come to the next barrier before the other came to this one.
    let first = worker.hand_over(0, 1);
    worker.change(2);
    let second = worker.hand_over(0, 2);
    worker.write_all();
    assert_eq!(worker.storage.list("").unwrap().len(), 0);
    let other_first = worker.hand_over(1, 1);
    worker.write_all();
    assert_eq!(worker.storage.list("").unwrap().len(), 1);
    assert!(first.try_recv().unwrap().is_ok() && other_first.try_recv().unwrap().is_ok());
    assert!(second.try_recv().is_err(), "the second one is not complete");
    let other_second = worker.hand_over(1, 2);
    worker.write_all();
    let last = shards([second, other_second].map(|outcome| outcome.try_recv().unwrap()));
    assert_eq!(worker.restored(last), (2, 2));
}

#[test]
fn a_file_that_could_not_be_written_is_a_failure_of_every_state_and_a_hole_in_none() {
    let mut worker = Worker::new();
    for checkpoint in 1..=4 {
        worker.change(u64::from(checkpoint));
        // The base fails, and then a delta.
        worker.storage.refuses.store(checkpoint % 2 == 1, Ordering::SeqCst);
        let outcomes = worker.checkpoint(checkpoint);
        if checkpoint % 2 == 1 {
            for outcome in outcomes {
                let text = outcome.unwrap_err().to_string();
                assert!(text.contains("refused by the test"), "{text}");
            }
        } else {
            let there = checkpoint as usize;
            assert_eq!(worker.restored(shards(outcomes)), (there, there));
        }
    }
}

#[test]
fn the_mode_is_the_same_for_all_states_of_a_checkpoint_and_a_new_state_needs_no_base() {
    let mut worker = Worker::new();
    assert_eq!(worker.persister.mode(CheckpointId(1)), FreezeMode::Base);
    assert_eq!(worker.persister.mode(CheckpointId(1)), FreezeMode::Base);
    assert_eq!(worker.persister.mode(CheckpointId(2)), FreezeMode::Delta);
    worker.change(1);
    let [counts, timers] = shards(worker.checkpoint(1));
    // The next life has a third state.
    let (persister, mut writer) = Persister::manual(worker.storage.clone(), identity(2));
    let mut table = Counts::new(config(&worker.folder.path().join("next"), "counts"));
    let stats = restore_table(&mut table, &*worker.storage, std::slice::from_ref(&counts)).unwrap();
    persister.open("counts", stats.continues);
    persister.open("timers", Some(timers.files));
    let new = persister.open("new", Some(Vec::new()));
    assert_eq!(persister.mode(CheckpointId(2)), FreezeMode::Delta);
    assert!(writer.write_next() && writer.write_next() && writer.write_next() && !writer.write_next());
    assert_ne!(worker.states[0], new);
}

#[test]
fn of_many_small_checkpoints_no_file_stays_that_none_of_them_lists() {
    let mut worker = Worker::new();
    let mut reported = BTreeSet::new();
    for checkpoint in 1..=300 {
        worker.change(u64::from(checkpoint % 7));
        // Now and then an attempt fails, and later its parts go out with the next.
        worker.storage.refuses.store(checkpoint % 50 == 3, Ordering::SeqCst);
        for shard in worker.checkpoint(checkpoint).into_iter().flatten() {
            reported.extend(shard.shard.files.into_iter().map(|file| file.name));
        }
    }
    let there = worker.storage.list("state/").unwrap();
    let unlisted: Vec<&String> = there.iter().filter(|name| !reported.contains(*name)).collect();
    assert!(unlisted.is_empty(), "{unlisted:?} of {}", there.len());
}

#[test]
fn a_state_that_was_empty_costs_no_base_of_all_states_after_a_restart() {
    let mut worker = Worker::new();
    worker.counts.update_one(hash_key(&1), &1, (), |value| *value = Some(1)).unwrap();
    let [counts, timers] = shards(worker.checkpoint(1));
    assert!(timers.files.is_empty(), "{timers:?}");
    let (persister, _writer) = Persister::manual(worker.storage.clone(), identity(2));
    let folder = worker.folder.path().join("next");
    let mut table = Counts::new(config(&folder, "counts"));
    let stats = restore_table(&mut table, &*worker.storage, &[counts]).unwrap();
    persister.open("counts", stats.continues);
    let mut table = Timers::new(config(&folder, "timers"));
    let stats = restore_table(&mut table, &*worker.storage, &[timers]).unwrap();
    persister.open("timers", stats.continues);
    assert_eq!(persister.mode(CheckpointId(2)), FreezeMode::Delta);
}
