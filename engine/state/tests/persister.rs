//! What a persister does when not all goes by its plan: a base of one state alone, frozen state that is lost.

#![allow(clippy::unwrap_used)]

use staunch_checkpoint::{CheckpointId, Generation};
use staunch_state::{
    Assignment, FreezeMode, Groups, InMemoryStorage, ManualWriter, PersistedShard, Persister, ShardIdentity,
    SpillShared, StateError, StateId, Storage, Table, TableConfig, hash_key, restore_table,
};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const MB: usize = 1_000_000;

type Texts = Table<u64, (), String>;
type Outcome = Receiver<Result<PersistedShard, StateError>>;

fn texts(folder: &Path, name: &str, budget: usize) -> Texts {
    let groups = Groups::new(8);
    Texts::new(TableConfig {
        name: name.to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: budget,
        spill_dir: folder.join(name),
        spill: SpillShared::in_a_map(),
        frozen_bytes: 64 << 10,
    })
}

/// Values of this many bytes.
fn write(table: &mut Texts, keys: Range<u64>, bytes: usize) {
    let mut items: Vec<u64> = keys.collect();
    let hashes: Vec<u64> = items.iter().map(hash_key).collect();
    let value = |key| Some(format!("{key:0bytes$}"));
    table.update_batch(&hashes, &mut items, |key| (key, ()), |key, slot| *slot = value(key)).unwrap();
}

/// A worker with the states `a` and `b`.
struct Worker {
    folder: tempfile::TempDir,
    storage: Arc<InMemoryStorage>,
    tables: [Texts; 2],
    states: [StateId; 2],
    persister: Persister,
    writer: ManualWriter,
}

impl Worker {
    fn new(budget: usize) -> Self {
        let (folder, storage) = (tempfile::tempdir().unwrap(), Arc::new(InMemoryStorage::new()));
        let tables = ["a", "b"].map(|name| texts(folder.path(), name, budget));
        let identity = ShardIdentity {
            job: "job".to_owned(),
            lineage: "life".to_owned(),
            worker: 0,
            generation: Generation(1),
        };
        let (persister, writer) = Persister::manual(storage.clone(), identity);
        let states = ["a", "b"].map(|name| persister.open(name, None));
        Self { folder, storage, tables, states, persister, writer }
    }

    fn hand_over(&mut self, state: usize, checkpoint: u32, mode: FreezeMode) -> Outcome {
        self.tables[state].begin_freeze(mode).unwrap();
        let frozen = self.tables[state].take_frozen().unwrap();
        let (done, outcome) = channel();
        let report = Box::new(move |result| done.send(result).unwrap());
        self.persister.persist(self.states[state], CheckpointId(checkpoint), None, frozen, report);
        outcome
    }

    fn write_all(&mut self) {
        while self.writer.write_next() {}
    }

    fn checkpoint(&mut self, checkpoint: u32) -> [Result<PersistedShard, StateError>; 2] {
        let mode = self.persister.mode(CheckpointId(checkpoint));
        let outcomes = [0, 1].map(|state| self.hand_over(state, checkpoint, mode));
        self.write_all();
        outcomes.map(|outcome| outcome.try_recv().unwrap())
    }
}

#[test]
fn a_base_of_one_state_alone_brings_no_base_of_the_others() {
    let mut worker = Worker::new(usize::MAX);
    write(&mut worker.tables[1], 0..400, MB / 20);
    assert!(worker.checkpoint(1).iter().all(Result::is_ok));
    for checkpoint in [2, 3] {
        write(&mut worker.tables[1], 0..100, MB / 20);
        assert_eq!(worker.persister.mode(CheckpointId(checkpoint)), FreezeMode::Delta);
        assert!(worker.checkpoint(checkpoint).iter().all(Result::is_ok));
    }
    // State `a` had to move changes to disk, and can freeze nothing but a base.
    write(&mut worker.tables[0], 0..10, 10);
    assert_eq!(worker.persister.mode(CheckpointId(4)), FreezeMode::Delta);
    let outcomes = [worker.hand_over(0, 4, FreezeMode::Base), worker.hand_over(1, 4, FreezeMode::Delta)];
    worker.write_all();
    assert!(outcomes.iter().all(|outcome| outcome.try_recv().unwrap().is_ok()));
    assert_eq!(worker.persister.mode(CheckpointId(5)), FreezeMode::Delta);
}

/// Makes the scratch files of a folder that have no name any more empty.
fn damage_scratch_files(folder: &Path) -> usize {
    let mut damaged = 0;
    for open in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(path) = std::fs::read_link(open.path()) else { continue };
        if path.starts_with(folder) && path.to_string_lossy().contains("frozen-") {
            std::fs::File::options().write(true).open(open.path()).unwrap().set_len(0).unwrap();
            damaged += 1;
        }
    }
    damaged
}

#[test]
fn frozen_state_that_is_lost_costs_one_checkpoint_and_not_the_job() {
    let mut worker = Worker::new(usize::MAX);
    write(&mut worker.tables[0], 0..100, 10);
    assert!(worker.checkpoint(1).iter().all(Result::is_ok));
    write(&mut worker.tables[0], 0..1_000, 1_000);
    worker.tables[0].begin_freeze(worker.persister.mode(CheckpointId(2))).unwrap();
    let frozen = worker.tables[0].take_frozen().unwrap();
    assert!(frozen.spooled_bytes() > 500_000);
    // Until the thread has written it, it is in memory too, and damage does no harm.
    let began = Instant::now();
    while frozen.for_each_piece(|_, _, _| Ok(())).is_ok() {
        damage_scratch_files(worker.folder.path());
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was written");
    }
    let (done, outcome) = channel();
    let report = Box::new(move |result| done.send(result).unwrap());
    worker.persister.persist(worker.states[0], CheckpointId(2), None, frozen, report);
    let other = worker.hand_over(1, 2, FreezeMode::Delta);
    worker.write_all();
    let error = outcome.try_recv().unwrap().unwrap_err().to_string();
    assert!(error.contains("frozen-"), "{error}");
    assert!(other.try_recv().unwrap().is_err());
    let [shard, _] = worker.checkpoint(3).map(|outcome| outcome.unwrap().shard);
    let mut restored = texts(&worker.folder.path().join("restored"), "a", usize::MAX);
    restore_table(&mut restored, &*worker.storage, &[shard]).unwrap();
    let mut there = 0;
    restored.for_each(|key, (), text| there += usize::from(*text == format!("{key:01000}"))).unwrap();
    assert_eq!(there, 1_000);
    // And nothing is left of the attempt that failed.
    assert!(worker.storage.list("state/").unwrap().iter().all(|name| !name.contains("/2-")));
}

#[test]
fn a_table_evicts_again_as_soon_as_its_own_base_is_linked_whatever_the_other_states_do() {
    const BUDGET: usize = 100_000;
    let mut worker = Worker::new(BUDGET);
    write(&mut worker.tables[0], 0..3_000, 100);
    assert!(worker.checkpoint(1).iter().all(Result::is_ok));
    while worker.tables[0].maintain().unwrap() {}
    assert!(worker.tables[0].stats().memory_bytes <= BUDGET as u64);
    let _outcome = worker.hand_over(0, 2, FreezeMode::Base);
    worker.write_all();
    // The other state has not come to the barrier. What is read comes back into memory, clean.
    for key in 0..3_000 {
        assert!(worker.tables[0].get(hash_key(&key), &key, ()).unwrap().is_some());
    }
    assert!(worker.tables[0].stats().memory_bytes > BUDGET as u64);
    while worker.tables[0].maintain().unwrap() {}
    assert!(worker.tables[0].stats().memory_bytes <= BUDGET as u64, "{:?}", worker.tables[0].stats());
}
