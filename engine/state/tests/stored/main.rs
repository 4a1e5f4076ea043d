//! Stored shards: what a spilled table writes, and what happens when a stored file is damaged.

#![allow(clippy::unwrap_used)]

mod damage;

use serde::{Deserialize, Serialize};
use staunch_checkpoint::{CheckpointId, FileKind, FileRef, Generation, Shard};
use staunch_state::{
    Assignment, Directory, FreezeMode, Groups, InMemoryStorage, PersistedShard, Persister, ShardIdentity,
    SpillShared, StateError, StateId, Storage, Table, TableConfig, hash_key, restore_table,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

type Words = Table<u64, (), String>;

fn config(folder: &Path, budget: usize) -> TableConfig {
    let groups = Groups::new(16);
    TableConfig {
        name: "words".to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: budget,
        spill_dir: folder.to_owned(),
        spill: SpillShared::with_defaults(),
        frozen_bytes: TableConfig::FROZEN_BYTES,
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

fn write(table: &mut Words, keys: std::ops::Range<u64>, text: &str) {
    let mut items: Vec<u64> = keys.collect();
    let hashes: Vec<u64> = items.iter().map(hash_key).collect();
    let value = |key| format!("{text} {key}");
    table.update_batch(&hashes, &mut items, |key| (key, ()), |key, slot| *slot = Some(value(key))).unwrap();
}

/// The persister of a worker with one state.
struct Writing(Persister, StateId);

fn writing(storage: Arc<dyn Storage>, generation: u64, restored: Option<Vec<FileRef>>) -> Writing {
    let persister = Persister::start(storage, identity(generation)).unwrap();
    let state = persister.open("words", restored);
    Writing(persister, state)
}

fn checkpoint(table: &mut Words, persister: &Writing, id: u32, mode: FreezeMode) -> PersistedShard {
    table.begin_freeze(mode).unwrap();
    let frozen = table.take_frozen().unwrap();
    let (done, outcome) = channel();
    let report = Box::new(move |result| drop(done.send(result)));
    persister.0.persist(persister.1, CheckpointId(id), None, frozen, report);
    outcome.recv().unwrap().unwrap()
}

fn shrink(table: &mut Words) {
    while table.maintain().unwrap() {}
}

/// 5000 keys, most of them spilled, then changes on top: a base with RocksDB files and a delta.
fn spilled(folder: &Path, storage: Arc<dyn Storage>) -> (Words, Writing, Vec<PersistedShard>) {
    let mut table = Words::new(config(folder, 50_000));
    let persister = writing(storage, 1, None);
    write(&mut table, 0..5000, "first");
    let mut parts = vec![checkpoint(&mut table, &persister, 1, FreezeMode::Base)];
    shrink(&mut table);
    assert!(table.stats().keys_in_memory < 1000, "{:?}", table.stats());
    parts.push(checkpoint(&mut table, &persister, 2, FreezeMode::Base));
    write(&mut table, 4000..4100, "second");
    parts.push(checkpoint(&mut table, &persister, 3, FreezeMode::Delta));
    (table, persister, parts)
}

fn check(table: &mut Words) {
    let mut count = 0;
    table
        .for_each(|key, (), value| {
            count += 1;
            let text = if (4000..4100).contains(key) { "second" } else { "first" };
            assert_eq!(*value, format!("{text} {key}"));
        })
        .unwrap();
    assert_eq!(count, 5000);
}

fn restored(folder: &Path, storage: &dyn Storage, shard: &Shard) -> Result<Words, StateError> {
    let mut table = Words::new(config(folder, 50_000));
    restore_table(&mut table, storage, std::slice::from_ref(shard))?;
    Ok(table)
}

#[test]
fn a_second_base_copies_only_new_table_files_and_a_successor_continues_the_chain() {
    let folders = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Directory::open(folders.path().join("checkpoints")).unwrap());
    let (mut table, persister, parts) = spilled(&folders.path().join("one"), storage.clone());
    let kinds = |shard: &Shard, kind| shard.files.iter().filter(|f| f.kind == kind).count();
    let shard = &parts[2].shard;
    assert!(kinds(shard, FileKind::Spill) >= 4, "{shard:?}");
    assert_eq!((kinds(shard, FileKind::Base), kinds(shard, FileKind::Delta)), (1, 1));
    check(&mut table);
    drop((table, persister));

    let mut table = Words::new(config(&folders.path().join("two"), 50_000));
    let stats = restore_table(&mut table, &*storage, std::slice::from_ref(shard)).unwrap();
    assert_eq!(stats.continues.as_ref(), Some(&shard.files));
    check(&mut table);
    let persister = writing(storage.clone(), 2, stats.continues);
    assert_eq!(persister.0.mode(CheckpointId(4)), FreezeMode::Delta);
    let next = checkpoint(&mut table, &persister, 4, FreezeMode::Base);
    let tables = |shard: &Shard| -> Vec<_> {
        shard.files.iter().filter(|file| file.name.ends_with(".sst")).cloned().collect()
    };
    let now = tables(&next.shard);
    assert!(tables(shard).iter().all(|table| now.contains(table)), "{now:?}");
    let stored: u64 = next.shard.files.iter().map(|file| file.bytes).sum();
    assert!(next.bytes_written < stored - 60_000, "{} of {stored}", next.bytes_written);
    drop((table, persister));
    check(&mut restored(&folders.path().join("three"), &*storage, &next.shard).unwrap());
}

#[test]
fn nothing_is_evicted_between_the_start_of_a_base_and_its_hard_links() {
    let folder = tempfile::tempdir().unwrap();
    let storage = InMemoryStorage::new();
    let (mut table, persister, _) = spilled(folder.path(), Arc::new(storage.clone()));
    write(&mut table, 10_000..12_000, "new");
    table.begin_freeze(FreezeMode::Delta).unwrap();
    drop(table.take_frozen().unwrap());
    table.begin_freeze(FreezeMode::Base).unwrap();
    let before = table.stats().keys_in_memory;
    assert!(!table.maintain().unwrap());
    let frozen = table.take_frozen().unwrap();
    assert!(!table.maintain().unwrap());
    assert_eq!(table.stats().keys_in_memory, before);
    let (done, outcome) = channel();
    persister.0.persist(
        persister.1,
        CheckpointId(4),
        None,
        frozen,
        Box::new(move |result| drop(done.send(result))),
    );
    outcome.recv().unwrap().unwrap();
    assert!(table.maintain().unwrap());
    shrink(&mut table);
    assert!(table.stats().keys_in_memory < before);
}

#[test]
fn shards_of_another_step_or_number_of_groups_are_refused() {
    let folders = tempfile::tempdir().unwrap();
    let storage = InMemoryStorage::new();
    let (_table, _persister, parts) = spilled(&folders.path().join("one"), Arc::new(storage.clone()));
    let shard = std::slice::from_ref(&parts[0].shard);
    let mut other = config(&folders.path().join("two"), 0);
    other.name = "others".to_owned();
    let error = restore_table(&mut Words::new(other), &storage, shard).unwrap_err();
    assert!(error.to_string().contains("state of step words, not of others"), "{error}");
    let mut other = config(&folders.path().join("two"), 0);
    other.groups = Groups::new(17);
    let error = restore_table(&mut Words::new(other), &storage, shard).unwrap_err();
    assert!(error.to_string().contains("16 key groups, the job has 17"), "{error}");
    let twice = [parts[0].shard.clone(), parts[1].shard.clone()];
    let mut table = Words::new(config(&folders.path().join("two"), 0));
    assert!(restore_table(&mut table, &storage, &twice).is_err());
}

/// A u64 with a `Hash` of its own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rehashed(u64);

impl std::hash::Hash for Rehashed {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.0 ^ 1);
    }
}

#[test]
fn a_changed_hash_of_the_key_type_is_refused() {
    let folders = tempfile::tempdir().unwrap();
    let storage = InMemoryStorage::new();
    let (_table, _persister, parts) = spilled(&folders.path().join("one"), Arc::new(storage.clone()));
    for part in [&parts[0], &parts[2]] {
        let config = config(&folders.path().join("two"), 0);
        let mut table: Table<Rehashed, (), String> = Table::new(config);
        let shard = std::slice::from_ref(&part.shard);
        let error = restore_table(&mut table, &storage, shard).unwrap_err().to_string();
        assert!(error.contains("key hashing changed"), "{error}");
    }
}

#[test]
fn a_value_type_that_does_not_fit_is_an_error() {
    let folders = tempfile::tempdir().unwrap();
    let storage = InMemoryStorage::new();
    let (_table, _persister, parts) = spilled(&folders.path().join("one"), Arc::new(storage.clone()));
    let mut table: Table<u64, (), (u64, u64)> = Table::new(config(&folders.path().join("two"), 0));
    let shard = std::slice::from_ref(&parts[0].shard);
    assert!(restore_table(&mut table, &storage, shard).is_err());
}
