//! A table against a plain map, through everything that can happen to it.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use staunch_checkpoint::{CheckpointId, FileRef, Generation, Shard};
use staunch_state::{
    AnyTable, Assignment, FreezeMode, Frozen, Groups, InMemoryStorage, PersistedShard, Persister, Put,
    ShardIdentity, SpillShared, StateError, StateId, Storage, StorageError, Table, TableConfig, hash_key,
    restore_table,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};

type Model = BTreeMap<(String, i64), Vec<u64>>;
type Strings = Table<String, i64, Vec<u64>>;

const GROUPS: u16 = 8;

#[cfg(feature = "rocksdb")]
fn rocksdb() -> Arc<SpillShared> {
    static SHARED: std::sync::OnceLock<Arc<SpillShared>> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| SpillShared::new(1 << 20, 8 << 20)).clone()
}

fn table(
    folder: &Path,
    worker: u32,
    workers: u32,
    [budget, frozen]: [usize; 2],
    spill: &Arc<SpillShared>,
) -> Strings {
    let groups = Groups::new(GROUPS);
    Table::new(TableConfig {
        name: "step one".to_owned(),
        groups,
        owned: Assignment::even(groups, workers).of_worker(worker).collect(),
        memory_budget_bytes: budget,
        spill_dir: folder.join(format!("{worker}-of-{workers}")),
        spill: Arc::clone(spill),
        frozen_bytes: frozen,
    })
}

/// What happens to a key: `None` deletes, `Some` appends.
type Change = (u8, i64, Option<u64>);

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Change>),
    Look(u8, i64),
    Remove(u8, i64),
    /// Walk through a namespace, perhaps deleting it, so many entries in a turn; between the turns the engine has its own.
    Walk {
        ns: i64,
        take: bool,
        turn: usize,
    },
    Slice(usize),
    Maintain,
    /// No checkpoint is to be expected: changes may move too.
    Hopeless,
    /// Begin a freeze, or finish the one in progress and persist it; the write may fail.
    Checkpoint {
        fails: bool,
    },
    /// Crash and restore with so many workers' worth of tables.
    Restart {
        workers: u32,
    },
}

fn change() -> impl Strategy<Value = Change> {
    (0..60u8, 0..2i64, prop_oneof![3 => (0..9u64).prop_map(Some), 1 => Just(None)])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(change(), 0..150).prop_map(Step::Batch),
        1 => (0..60u8, 0..2i64).prop_map(|(key, ns)| Step::Look(key, ns)),
        1 => (0..60u8, 0..2i64).prop_map(|(key, ns)| Step::Remove(key, ns)),
        2 => (0..2i64, prop::bool::ANY, 1..50usize).prop_map(|(ns, take, turn)| Step::Walk { ns, take, turn }),
        4 => (1..40usize).prop_map(Step::Slice),
        4 => Just(Step::Maintain),
        2 => Just(Step::Hopeless),
        5 => prop::bool::weighted(0.2).prop_map(|fails| Step::Checkpoint { fails }),
        1 => (1..4u32).prop_map(|workers| Step::Restart { workers }),
    ]
}

/// A storage that refuses to write when told so.
#[derive(Debug)]
struct Refusing {
    inner: InMemoryStorage,
    /// Writes to let through before the next one fails; `u32::MAX`: all.
    fuse: AtomicU32,
}

impl Refusing {
    fn check(&self, name: &str) -> Result<(), StorageError> {
        let fuse = self.fuse.load(Ordering::SeqCst);
        if fuse == 0 {
            let source = std::io::Error::other("refused by the test");
            let (name, place) = (name.to_owned(), self.place());
            return Err(StorageError::Io { action: "write", name, place, source });
        }
        if fuse != u32::MAX {
            self.fuse.store(fuse - 1, Ordering::SeqCst);
        }
        Ok(())
    }
}

impl Storage for Refusing {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.check(name)?;
        self.inner.put(name, bytes)
    }
    fn put_file(&self, name: &str, from: &Path) -> Result<(), StorageError> {
        self.check(name)?;
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

/// A job of one step: tables, persisters, and what they should hold.
struct Job {
    folder: tempfile::TempDir,
    storage: Arc<Refusing>,
    /// Bytes for the state, and for what is frozen of it.
    memory: [usize; 2],
    spill: Arc<SpillShared>,
    workers: u32,
    tables: Vec<Strings>,
    persisters: Vec<(Persister, StateId)>,
    model: Model,
    /// The model when the freeze in progress began.
    frozen: Option<Model>,
    durable: (Model, Vec<Shard>),
    checkpoint: CheckpointId,
    generation: u64,
}

impl Job {
    fn new(memory: [usize; 2], workers: u32, spill: Arc<SpillShared>) -> Self {
        let storage = Refusing { inner: InMemoryStorage::new(), fuse: AtomicU32::new(u32::MAX) };
        let mut job = Self {
            folder: tempfile::tempdir().unwrap(),
            storage: Arc::new(storage),
            memory,
            spill,
            workers,
            tables: Vec::new(),
            persisters: Vec::new(),
            model: Model::new(),
            frozen: None,
            durable: (Model::new(), Vec::new()),
            checkpoint: CheckpointId(0),
            generation: 0,
        };
        job.restart(workers);
        job
    }

    fn restart(&mut self, workers: u32) {
        self.storage.fuse.store(u32::MAX, Ordering::SeqCst);
        (self.tables, self.persisters) = (Vec::new(), Vec::new());
        self.generation += 1;
        self.workers = workers;
        for worker in 0..workers {
            let mut table = table(self.folder.path(), worker, workers, self.memory, &self.spill);
            let stats = restore_table(&mut table, &*self.storage, &self.durable.1).unwrap();
            let identity = ShardIdentity {
                job: "model".to_owned(),
                lineage: "one".to_owned(),
                worker,
                generation: Generation(self.generation),
            };
            let storage = self.storage.clone();
            let persister = Persister::start(storage, identity).unwrap();
            let state = persister.open("step one", stats.continues);
            self.persisters.push((persister, state));
            self.tables.push(table);
        }
        self.model = self.durable.0.clone();
        self.frozen = None;
        self.check_all();
    }

    fn table(&mut self, key: &str) -> &mut Strings {
        let groups = Groups::new(GROUPS);
        let owner = Assignment::even(groups, self.workers).owner(groups.of(hash_key(key)));
        &mut self.tables[owner as usize]
    }

    fn batch(&mut self, changes: Vec<Change>) {
        let groups = Groups::new(GROUPS);
        let assignment = Assignment::even(groups, self.workers);
        let mut split: Vec<Vec<(String, i64, Option<u64>)>> = vec![Vec::new(); self.tables.len()];
        for (key, ns, change) in changes {
            let key = format!("key-{key}");
            match change {
                Some(value) => self.model.entry((key.clone(), ns)).or_default().push(value),
                None => drop(self.model.remove(&(key.clone(), ns))),
            }
            let owner = assignment.owner(groups.of(hash_key(&key)));
            split[owner as usize].push((key, ns, change));
        }
        for (table, items) in self.tables.iter_mut().zip(&mut split) {
            let hashes: Vec<u64> = items.iter().map(|(key, _, _)| hash_key(key)).collect();
            table
                .update_batch(
                    &hashes,
                    items,
                    |(key, ns, _)| (key, *ns),
                    |(_, _, change), value| match change {
                        Some(change) => value.get_or_insert_default().push(change),
                        None => *value = None,
                    },
                )
                .unwrap();
            assert!(items.is_empty());
        }
    }

    fn checkpoint(&mut self, fails: bool) {
        if self.frozen.is_none() {
            for (table, (persister, _)) in self.tables.iter_mut().zip(&self.persisters) {
                let checkpoint = self.checkpoint.next();
                if table.needs_base() {
                    assert!(table.begin_freeze(FreezeMode::Delta).is_err());
                    persister.begin_base(checkpoint);
                }
                table.begin_freeze(persister.mode(checkpoint)).unwrap();
            }
            self.frozen = Some(self.model.clone());
            return;
        }
        let model = self.frozen.take().unwrap();
        self.storage.fuse.store(if fails { self.checkpoint.0 % 4 } else { u32::MAX }, Ordering::SeqCst);
        self.checkpoint = self.checkpoint.next();
        let mut outcomes = Vec::new();
        for (table, persister) in self.tables.iter_mut().zip(&self.persisters) {
            let frozen = table.take_frozen().unwrap();
            outcomes.push(persist(persister, self.checkpoint, frozen));
        }
        let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.recv().unwrap()).collect();
        match outcomes.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(parts) => {
                assert!(parts.iter().all(|part| part.shard.watermark_ms == Some(7)));
                self.durable = (model, parts.into_iter().map(|part| part.shard).collect());
            }
            Err(error) => assert!(fails, "{error}"),
        }
        self.storage.fuse.store(u32::MAX, Ordering::SeqCst);
    }

    fn walk(&mut self, ns: i64, take: bool, turn: usize) {
        let mut found = Model::new();
        for table in &mut self.tables {
            let listed: Vec<i64> = table.namespaces().collect();
            let before = found.len();
            loop {
                let mut left = turn;
                let visit = |key: &String, value: &Vec<u64>| {
                    let twice = found.insert((key.clone(), ns), value.clone());
                    assert_eq!(twice, None, "{key} is visited twice");
                    left -= 1;
                    if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                let walked =
                    if take { table.take_namespace(ns, visit) } else { table.visit_namespace(ns, visit) };
                if walked.unwrap() {
                    break;
                }
                table.freeze_slice(3).unwrap();
                table.maintain().unwrap();
            }
            assert!(found.len() == before || listed.contains(&ns));
        }
        let expected: Model =
            self.model.iter().filter(|((_, of), _)| *of == ns).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(found, expected);
        if take {
            self.model.retain(|(_, of), _| *of != ns);
        }
    }

    fn check_all(&mut self) {
        let mut found = Model::new();
        for table in &mut self.tables {
            table
                .for_each(|key, ns, value| {
                    let before = found.insert((key.clone(), ns), value.clone());
                    assert_eq!(before, None, "{key} is visited twice");
                })
                .unwrap();
        }
        assert_eq!(found, self.model);
    }

    /// What is frozen and not spilled leaves nothing behind when it is deleted.
    fn check_namespaces(&mut self) {
        let listed: BTreeSet<i64> = self.tables.iter().flat_map(Table::namespaces).collect();
        let held: BTreeSet<i64> = self.model.keys().map(|(_, ns)| *ns).collect();
        assert_eq!(listed, held);
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Batch(changes) => self.batch(changes),
            Step::Look(key, ns) => {
                let key = format!("key-{key}");
                let expected = self.model.get(&(key.clone(), ns)).cloned();
                let found = self.table(&key).get(hash_key(&key), &key, ns).unwrap().cloned();
                assert_eq!(found, expected);
            }
            Step::Remove(key, ns) => {
                let key = format!("key-{key}");
                let expected = self.model.remove(&(key.clone(), ns));
                let found = self.table(&key).remove(hash_key(&key), &key, ns).unwrap();
                assert_eq!(found, expected);
            }
            Step::Walk { ns, take, turn } => self.walk(ns, take, turn),
            Step::Slice(entries) => {
                for table in &mut self.tables {
                    table.freeze_slice(entries).unwrap();
                }
            }
            Step::Maintain => {
                for table in &mut self.tables {
                    table.maintain().unwrap();
                }
            }
            Step::Hopeless => {
                for table in &mut self.tables {
                    table.let_dirty_move();
                    while table.maintain().unwrap() {}
                }
            }
            Step::Checkpoint { fails } => self.checkpoint(fails),
            Step::Restart { workers } => self.restart(workers),
        }
    }
}

fn persist(
    (persister, state): &(Persister, StateId),
    checkpoint: CheckpointId,
    frozen: Frozen,
) -> Receiver<Result<PersistedShard, StateError>> {
    let (done, outcome) = channel();
    let report = Box::new(move |result| done.send(result).unwrap());
    persister.persist(*state, checkpoint, Some(7), frozen, report);
    outcome
}

fn run(memory: [usize; 2], workers: u32, spill: Arc<SpillShared>, steps: Vec<Step>) {
    let mut job = Job::new(memory, workers, spill);
    for step in steps {
        job.carry_out(step);
    }
    job.check_all();
    for _ in 0..3 {
        job.checkpoint(false);
    }
    job.check_all();
    if memory[0] == usize::MAX {
        job.check_namespaces();
    }
    let workers = job.workers % 3 + 1;
    job.restart(workers);
}

/// So many cases, or as many as the environment variable says.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let cases = asked.unwrap_or(cases);
    ProptestConfig { cases, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() }
}

/// All that is frozen goes through a scratch file, some of it, or nothing.
fn frozen_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), 1..2000usize, Just(TableConfig::FROZEN_BYTES)]
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn a_table_in_memory_is_a_map_that_survives_crashes_and_rescaling(
        workers in 1..4u32,
        frozen in frozen_bytes(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run([usize::MAX, frozen], workers, SpillShared::in_a_map(), steps);
    }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn a_table_that_spills_into_a_map_is_a_map_too(
        budget in 0..4000usize,
        workers in 1..4u32,
        frozen in frozen_bytes(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run([budget, frozen], workers, SpillShared::in_a_map(), steps);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn a_table_that_spills_nearly_everything_is_a_map_too(
        budget in 0..4000usize,
        workers in 1..3u32,
        frozen in frozen_bytes(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run([budget, frozen], workers, rocksdb(), steps);
    }
}

#[test]
fn a_long_life_of_small_checkpoints_keeps_few_files_and_restores_at_any_of_them() {
    let mut job = Job::new([usize::MAX, TableConfig::FROZEN_BYTES], 1, SpillShared::in_a_map());
    let mut most = 0;
    for round in 0..700u32 {
        let key = (round % 60) as u8;
        job.batch(vec![(key, 0, Some(u64::from(round))), (key / 2, 1, None)]);
        job.checkpoint(false);
        job.checkpoint(false);
        most = most.max(job.durable.1[0].files.len());
        if round % 97 == 0 {
            job.restart(1);
        }
    }
    assert!(most < 64, "{most} files");
    let names: Vec<&FileRef> = job.durable.1[0].files.iter().collect();
    assert!(names.iter().any(|file| file.name.contains("-m2.delta")), "{names:?}");
    for workers in [3, 2] {
        job.restart(workers);
        job.checkpoint(false);
        job.checkpoint(false);
    }
}

#[test]
fn nothing_changed_writes_nothing() {
    let mut job = Job::new([usize::MAX, TableConfig::FROZEN_BYTES], 1, SpillShared::in_a_map());
    job.checkpoint(false);
    job.checkpoint(false);
    assert!(job.durable.1[0].files.is_empty());
    job.batch(vec![(1, 0, Some(1))]);
    job.checkpoint(false);
    job.checkpoint(false);
    let files = job.durable.1[0].files.clone();
    assert_eq!(files.len(), 1);
    job.checkpoint(false);
    job.checkpoint(false);
    assert_eq!(job.durable.1[0].files, files);
    assert_eq!(job.storage.list("").unwrap().len(), 1);
}
