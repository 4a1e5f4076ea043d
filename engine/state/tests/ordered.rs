//! Ordered tables and timers against plain maps, through everything that can happen to them.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use staunch_checkpoint::{CheckpointId, Generation, Shard};
use staunch_state::{
    AnyTable, Assignment, FreezeMode, Groups, InMemoryStorage, OrderedTable, Persister, ShardIdentity,
    SpillShared, StateError, StateId, Table, TableConfig, TimerTable, hash_key, restore_table,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};

type Names = OrderedTable<String, i64, Vec<u8>>;
type Timers = TimerTable<i64, String>;

const GROUPS: u16 = 4;

fn config(folder: &Path, name: &str, worker: u32, workers: u32, budget: usize) -> TableConfig {
    static SHARED: OnceLock<Arc<SpillShared>> = OnceLock::new();
    let groups = Groups::new(GROUPS);
    TableConfig {
        name: name.to_owned(),
        groups,
        owned: Assignment::even(groups, workers).of_worker(worker).collect(),
        memory_budget_bytes: budget,
        spill_dir: folder.join(format!("{name}-{worker}-of-{workers}")),
        spill: SHARED.get_or_init(|| SpillShared::new(1 << 20, 8 << 20)).clone(),
        // Of one worker all that is frozen goes through a scratch file, of the next nothing.
        frozen_bytes: if worker.is_multiple_of(2) { 0 } else { TableConfig::FROZEN_BYTES },
    }
}

/// A key: some short, one longer than what is kept in place.
fn key(number: u8) -> String {
    if number == 0 { "a long key that needs memory of its own".to_owned() } else { format!("k{number}") }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, i64, u8),
    Remove(u8, i64),
    Look(u8, i64),
    Range(u8, i64, i64, bool),
    PopFirst(u8),
    TakeRange(u8, i64, i64, usize),
    Edges(u8),
    Set(i64, u8),
    Delete(i64, u8),
    Due(i64, usize),
    Slice(usize),
    Maintain,
    /// Begin a freeze, or finish the one in progress and persist it.
    Checkpoint {
        base: bool,
    },
    /// No checkpoint is to be expected: changes may move too.
    Hopeless,
    /// Crash and restore with so many workers.
    Restart(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let k = || 0..4u8;
    let m = || -12..12i64;
    prop_oneof![
        8 => (k(), m(), any::<u8>()).prop_map(|(k, m, v)| Step::Put(k, m, v)),
        3 => (k(), m()).prop_map(|(k, m)| Step::Remove(k, m)),
        1 => (k(), m()).prop_map(|(k, m)| Step::Look(k, m)),
        2 => (k(), m(), m(), any::<bool>()).prop_map(|(k, a, b, back)| Step::Range(k, a, b, back)),
        2 => k().prop_map(Step::PopFirst),
        1 => (k(), m(), m(), 0..9usize).prop_map(|(k, a, b, n)| Step::TakeRange(k, a, b, n)),
        1 => k().prop_map(Step::Edges),
        8 => (m(), k()).prop_map(|(t, k)| Step::Set(t, k)),
        2 => (m(), k()).prop_map(|(t, k)| Step::Delete(t, k)),
        3 => (m(), 0..9usize).prop_map(|(t, n)| Step::Due(t, n)),
        5 => (1..12usize).prop_map(Step::Slice),
        4 => Just(Step::Maintain),
        2 => Just(Step::Hopeless),
        6 => any::<bool>().prop_map(|base| Step::Checkpoint { base }),
        1 => (1..4u32).prop_map(Step::Restart),
    ]
}

#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    maps: BTreeMap<(String, i64), Vec<u8>>,
    timers: BTreeSet<(i64, String)>,
}

/// A step with two ordered states on each of its workers.
struct Job {
    folder: tempfile::TempDir,
    storage: InMemoryStorage,
    budget: usize,
    workers: u32,
    maps: Vec<Names>,
    timers: Vec<Timers>,
    /// With the two states of each worker.
    persisters: Vec<(Persister, [StateId; 2])>,
    model: Model,
    frozen: Option<Model>,
    durable: (Model, [Vec<Shard>; 2]),
    checkpoint: u32,
    generation: u64,
}

fn group(key: &str) -> u16 {
    Groups::new(GROUPS).of(hash_key(key))
}

impl Job {
    fn new(budget: usize, workers: u32) -> Self {
        let mut job = Self {
            folder: tempfile::tempdir().unwrap(),
            storage: InMemoryStorage::new(),
            budget,
            workers,
            maps: Vec::new(),
            timers: Vec::new(),
            persisters: Vec::new(),
            model: Model::default(),
            frozen: None,
            durable: Default::default(),
            checkpoint: 0,
            generation: 0,
        };
        job.restart(workers);
        job
    }

    fn restart(&mut self, workers: u32) {
        (self.maps, self.timers, self.persisters) = (Vec::new(), Vec::new(), Vec::new());
        (self.workers, self.generation) = (workers, self.generation + 1);
        for worker in 0..workers {
            let folder = self.folder.path();
            let mut map = Names::new(config(folder, "map", worker, workers, self.budget));
            let mut timers = Timers::new(config(folder, "timers", worker, workers, self.budget));
            let identity = ShardIdentity {
                job: "model".to_owned(),
                lineage: "one".to_owned(),
                worker,
                generation: Generation(self.generation),
            };
            let persister = Persister::start(Arc::new(self.storage.clone()), identity).unwrap();
            let states = [self.open(&mut map, &persister, 0), self.open(&mut timers, &persister, 1)];
            self.persisters.push((persister, states));
            self.maps.push(map);
            self.timers.push(timers);
        }
        (self.model, self.frozen) = (self.durable.0.clone(), None);
        self.check();
    }

    fn open(&self, table: &mut dyn AnyTable, persister: &Persister, state: usize) -> StateId {
        let stats = restore_table(table, &self.storage, &self.durable.1[state]).unwrap();
        persister.open(table.name(), stats.continues)
    }

    fn worker(&self, key: &str) -> usize {
        Assignment::even(Groups::new(GROUPS), self.workers).owner(group(key)) as usize
    }

    fn tables(&mut self) -> impl Iterator<Item = [&mut dyn AnyTable; 2]> {
        self.maps.iter_mut().zip(&mut self.timers).map(|(map, timers)| [map as &mut dyn AnyTable, timers])
    }

    fn checkpoint(&mut self, base: bool) {
        let Some(model) = self.frozen.take() else {
            let persisters = std::mem::take(&mut self.persisters);
            let checkpoint = CheckpointId(self.checkpoint + 1);
            for (tables, (persister, _)) in self.tables().zip(&persisters) {
                let asked = persister.mode(checkpoint);
                for table in tables {
                    // One of the states may need a base by itself.
                    let is_base = base || table.needs_base();
                    table.begin_freeze(if is_base { FreezeMode::Base } else { asked }).unwrap();
                }
            }
            self.persisters = persisters;
            self.frozen = Some(self.model.clone());
            return;
        };
        self.checkpoint += 1;
        let checkpoint = CheckpointId(self.checkpoint);
        let persisters = std::mem::take(&mut self.persisters);
        let mut shards = [Vec::new(), Vec::new()];
        for (tables, (persister, states)) in self.tables().zip(&persisters) {
            let mut outcomes = Vec::new();
            for (table, state) in tables.into_iter().zip(states) {
                let (done, outcome) = channel();
                let report = Box::new(move |result| done.send(result).unwrap());
                persister.persist(*state, checkpoint, None, table.take_frozen().unwrap(), report);
                outcomes.push(outcome);
            }
            for (outcome, shards) in outcomes.into_iter().zip(&mut shards) {
                shards.push(outcome.recv().unwrap().unwrap().shard);
            }
        }
        self.persisters = persisters;
        self.durable = (model, shards);
    }

    fn check(&mut self) {
        let mut found = Model::default();
        for map in &mut self.maps {
            let mut last = None;
            map.for_each(|key, at, value| {
                let place = (group(key), key.clone(), at);
                assert!(last.as_ref().is_none_or(|last| *last < place), "{last:?} {place:?}");
                last = Some(place);
                found.maps.insert((key.clone(), at), value.clone());
            })
            .unwrap();
        }
        for timers in &self.timers {
            let mut last = None;
            timers
                .for_each(|time, key| {
                    let place = (group(&key), time, key.clone());
                    assert!(last.as_ref().is_none_or(|last| *last < place), "{last:?} {place:?}");
                    last = Some(place);
                    found.timers.insert((time, key));
                })
                .unwrap();
            let earliest = timers.earliest().unwrap();
            assert!(earliest.is_none_or(|earliest| found.timers.iter().any(|(time, _)| *time == earliest)));
        }
        assert_eq!(found, self.model);
    }

    fn map(&mut self, key: &str) -> &mut Names {
        let worker = self.worker(key);
        &mut self.maps[worker]
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Set(time, k) => {
                let (key, worker) = (key(k), self.worker(&key(k)));
                let new = self.timers[worker].set(hash_key(&key), &time, &key).unwrap();
                assert_eq!(new, self.model.timers.insert((time, key)));
            }
            Step::Delete(time, k) => {
                let (key, worker) = (key(k), self.worker(&key(k)));
                let was = self.timers[worker].delete(hash_key(&key), &time, &key).unwrap();
                assert_eq!(was, self.model.timers.remove(&(time, key)));
            }
            Step::Due(upto, limit) => self.due(upto, limit),
            Step::Slice(budget) => {
                for tables in self.tables() {
                    let mut budget = budget;
                    tables.into_iter().for_each(|table| _ = table.freeze_slice(&mut budget).unwrap());
                }
            }
            Step::Maintain => {
                self.tables().flatten().for_each(|table| _ = table.maintain().unwrap());
            }
            Step::Hopeless => {
                for table in self.tables().flatten() {
                    table.let_dirty_move();
                    while table.maintain().unwrap() {}
                }
            }
            Step::Checkpoint { base } => self.checkpoint(base),
            Step::Restart(workers) => self.restart(workers),
            other => self.carry_out_on_map(other),
        }
    }

    /// Due timers come in the order of their times in each group, and no other is touched.
    fn due(&mut self, upto: i64, limit: usize) {
        for timers in &mut self.timers {
            let mut due = Vec::new();
            let more = timers.take_due(&upto, limit, &mut due).unwrap();
            assert!(due.len() <= limit && (more || due.len() < limit), "{more} {due:?}");
            let places: Vec<_> = due.iter().map(|(time, key)| (group(key), *time, key)).collect();
            assert!(places.is_sorted(), "{places:?}");
            for timer in due {
                assert!(timer.0 <= upto && self.model.timers.remove(&timer), "{timer:?}");
            }
            if !more {
                let mine = |key: &str| timers.owned().contains(&group(key));
                assert!(!self.model.timers.iter().any(|(time, key)| *time <= upto && mine(key)));
            }
        }
    }

    fn carry_out_on_map(&mut self, step: Step) {
        let (Step::Put(k, ..)
        | Step::Remove(k, _)
        | Step::Look(k, _)
        | Step::Range(k, ..)
        | Step::PopFirst(k)
        | Step::TakeRange(k, ..)
        | Step::Edges(k)) = step
        else {
            return;
        };
        let (name, hash) = (key(k), hash_key(&key(k)));
        let of_key = |model: &Model, from: i64, to: i64| -> Vec<(i64, Vec<u8>)> {
            let all = model.maps.iter().filter(|((key, at), _)| *key == name && (from..to).contains(at));
            all.map(|((_, at), value)| (*at, value.clone())).collect()
        };
        match step {
            Step::Put(_, at, value) => {
                let before = self.map(&name).insert(hash, &name, &at, vec![value; 3]).unwrap();
                assert_eq!(before, self.model.maps.insert((name, at), vec![value; 3]));
            }
            Step::Remove(_, at) => {
                let before = self.map(&name).remove(hash, &name, &at).unwrap();
                assert_eq!(before, self.model.maps.remove(&(name, at)));
            }
            Step::Look(_, at) => {
                let found = self.map(&name).get(hash, &name, &at).unwrap().cloned();
                assert_eq!(found.as_ref(), self.model.maps.get(&(name, at)));
            }
            Step::Range(_, from, to, back) => {
                let (mut found, mut expected) = (Vec::new(), of_key(&self.model, from, to));
                let mut visit = |at: i64, value: &Vec<u8>| {
                    found.push((at, value.clone()));
                    if found.len() < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                };
                if back {
                    expected.reverse();
                    self.map(&name).range_back(hash, &name, from..to, &mut visit).unwrap();
                } else {
                    self.map(&name).range(hash, &name, from..to, &mut visit).unwrap();
                }
                expected.truncate(5);
                assert_eq!(found, expected);
            }
            Step::PopFirst(_) => {
                let found = self.map(&name).pop_first(hash, &name).unwrap();
                assert_eq!(found, of_key(&self.model, i64::MIN, i64::MAX).first().cloned());
                found.map(|(at, _)| self.model.maps.remove(&(name, at)));
            }
            Step::TakeRange(_, from, to, limit) => {
                let found = self.map(&name).take_range(hash, &name, from..to, limit).unwrap();
                let mut expected = of_key(&self.model, from, to);
                expected.truncate(limit);
                assert_eq!(found, expected);
                found.into_iter().for_each(|(at, _)| drop(self.model.maps.remove(&(name.clone(), at))));
            }
            _ => {
                let all = of_key(&self.model, i64::MIN, i64::MAX);
                let first =
                    self.map(&name).first(hash, &name).unwrap().map(|(at, value)| (at, value.clone()));
                let last = self.map(&name).last(hash, &name).unwrap().map(|(at, value)| (at, value.clone()));
                assert_eq!((first.as_ref(), last.as_ref()), (all.first(), all.last()));
            }
        }
    }
}

fn run(budget: usize, workers: u32, steps: Vec<Step>) {
    let mut job = Job::new(budget, workers);
    for step in steps {
        job.carry_out(step);
    }
    job.check();
    for _ in 0..3 {
        job.checkpoint(false);
    }
    job.check();
    let workers = job.workers % 3 + 1;
    job.restart(workers);
}

/// So many cases, or as many as the environment variable says.
fn cases(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let cases = asked.unwrap_or(cases);
    ProptestConfig { cases, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn ordered_state_in_memory_is_a_map_in_order_that_survives_crashes_and_rescaling(
        workers in 1..4u32,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        run(usize::MAX, workers, steps);
    }
}

#[test]
fn an_ordered_table_full_of_dirty_tombstones_knows_soon_that_only_a_checkpoint_helps() {
    const N: usize = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let mut timers = TimerTable::<i64, u64>::new(config(folder.path(), "timers", 0, 1, 10_000));
    for key in 0..N as u64 {
        timers.set(hash_key(&key), &(key as i64), &key).unwrap();
    }
    timers.begin_freeze(FreezeMode::Delta).unwrap();
    assert_eq!(timers.take_frozen().unwrap().entries(), N as u64);
    for key in 0..N as u64 {
        assert!(timers.delete(hash_key(&key), &(key as i64), &key).unwrap());
    }
    let mut calls = 0;
    while timers.maintain().unwrap() {
        calls += 1;
    }
    assert!(timers.wants_checkpoint());
    // Twice round, in calls of 16,384 entries.
    assert!(calls <= 2 * N / 16_384 + 2, "{calls} calls");
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn ordered_state_that_spills_nearly_everything_is_a_map_in_order_too(
        budget in 0..2000usize,
        workers in 1..3u32,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        run(budget, workers, steps);
    }
}

#[test]
fn timers_that_come_and_go_between_two_checkpoints_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut timers: TimerTable<i64, u64> = TimerTable::new(config(folder.path(), "timers", 0, 1, usize::MAX));
    for time in 0..10_000 {
        assert!(timers.set(hash_key(&7_u64), &time, &7).unwrap());
        assert!(timers.delete(hash_key(&7_u64), &time, &7).unwrap());
    }
    assert_eq!(timers.stats().memory_bytes, 0);
    timers.begin_freeze(FreezeMode::Delta).unwrap();
    assert_eq!(timers.take_frozen().unwrap().entries(), 0);
}

#[test]
fn a_key_or_place_without_an_order_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut table: OrderedTable<u64, f64, u64> =
        OrderedTable::new(config(folder.path(), "prices", 0, 1, usize::MAX));
    let error = table.insert(hash_key(&1_u64), &1, &2.5, 3).unwrap_err();
    assert!(matches!(error, StateError::Order { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("prices") && text.contains("floating-point numbers"), "{text}");
}

#[test]
fn any_kind_of_table_is_frozen_through_one_trait_in_one_slice() {
    let folder = tempfile::tempdir().unwrap();
    let mut words: Table<u64, (), u64> = Table::new(config(folder.path(), "words", 0, 1, usize::MAX));
    let mut map: OrderedTable<u64, u64, u64> =
        OrderedTable::new(config(folder.path(), "map", 0, 1, usize::MAX));
    for key in 0..10_u64 {
        words.update_one(hash_key(&key), &key, (), |value| *value = Some(key)).unwrap();
        map.insert(hash_key(&key), &key, &key, key).unwrap();
    }
    let tables: [&mut dyn AnyTable; 2] = [&mut words, &mut map];
    let mut budget = 15;
    let mut done = Vec::new();
    for table in tables {
        table.begin_freeze(FreezeMode::Base).unwrap();
        done.push(table.freeze_slice(&mut budget).unwrap());
    }
    assert_eq!((done, budget), (vec![true, false], 0));
    assert_eq!((words.take_frozen().unwrap().entries(), map.take_frozen().unwrap().entries()), (10, 10));
}
