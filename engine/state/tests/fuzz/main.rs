//! Whatever bytes are found in a stored file of state: no panic, no absurd allocation, and no entry that was
//! not written, as long as a checksum covers it.
//!
//! What is in RocksDB's own files is not decoded here: they are compared with the checksums of the manifest
//! before RocksDB opens them (`tests/stored/damage.rs`).

#![allow(clippy::unwrap_used)]

#[path = "../../../checkpoint/tests/fuzz/mutate.rs"]
mod mutate;

use mutate::{Watched, fuzz};
use staunch_checkpoint::{CheckpointId, FileKind, FileRef, Generation, Shard};
use staunch_state::{
    Assignment, FreezeMode, Groups, InMemoryStorage, Persister, ShardIdentity, SpillShared, Storage, Table,
    TableConfig, hash_key, restore_table, schema_diff, schema_of,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

#[global_allocator]
static WATCHED: Watched = Watched;

type Value = (String, Vec<u64>, Option<(u8, i64)>);
type Words = Table<u64, i64, Value>;

const GROUPS: u16 = 4;

fn table(folder: &Path) -> Words {
    let groups = Groups::new(GROUPS);
    Words::new(TableConfig {
        name: "words".to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: usize::MAX,
        spill_dir: folder.to_owned(),
        spill: SpillShared::with_defaults(),
        frozen_bytes: 0,
    })
}

fn value(key: u64) -> Value {
    (format!("word {key}"), (0..key % 5).collect(), (!key.is_multiple_of(3)).then_some((key as u8, -1)))
}

/// A base and a delta, as they are stored.
fn stored(folder: &Path) -> (InMemoryStorage, Shard) {
    let storage = InMemoryStorage::new();
    let identity = ShardIdentity {
        job: "job".to_owned(),
        lineage: "life".to_owned(),
        worker: 0,
        generation: Generation(1),
    };
    let persister = Persister::start(Arc::new(storage.clone()) as Arc<dyn Storage>, identity).unwrap();
    let state = persister.open("words", None);
    let mut table = table(folder);
    let mut shard = None;
    for (id, mode) in [(1, FreezeMode::Base), (2, FreezeMode::Delta)] {
        let mut keys: Vec<u64> = (u64::from(id) * 10..u64::from(id) * 10 + 20).collect();
        let hashes: Vec<u64> = keys.iter().map(hash_key).collect();
        let fill = |key: u64, slot: &mut Option<Value>| {
            *slot = (id == 1 || key.is_multiple_of(2)).then(|| value(key))
        };
        table.update_batch(&hashes, &mut keys, |key| (key, 7), fill).unwrap();
        table.begin_freeze(mode).unwrap();
        let (done, outcome) = channel();
        let report = Box::new(move |result| drop(done.send(result)));
        persister.persist(state, CheckpointId(id), None, table.take_frozen().unwrap(), report);
        shard = Some(outcome.recv().unwrap().unwrap().shard);
    }
    (storage, shard.unwrap())
}

fn contents(table: &mut Words) -> BTreeMap<u64, Value> {
    let mut found = BTreeMap::new();
    table.for_each(|key, _, value| drop(found.insert(*key, value.clone()))).unwrap();
    found
}

#[test]
fn a_mutated_file_is_refused_or_is_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, shard) = stored(&folder.path().join("one"));
    let two = folder.path().join("two");
    let mut good = table(&two);
    restore_table(&mut good, &storage, std::slice::from_ref(&shard)).unwrap();
    let good = contents(&mut good);
    let corpus: Vec<Vec<u8>> = shard.files.iter().map(|file| storage.get(&file.name).unwrap()).collect();
    fuzz("files of state", &corpus, |dice, input| {
        let at = dice.below(shard.files.len());
        storage.put(&shard.files[at].name, input).unwrap();
        let mut restored = table(&two);
        if restore_table(&mut restored, &storage, std::slice::from_ref(&shard)).is_ok() {
            assert_eq!(contents(&mut restored), good);
        }
        storage.put(&shard.files[at].name, &corpus[at]).unwrap();
    });
}

/// Behind the checksums: every one of them made right again after the mutation.
#[test]
fn a_mutated_file_under_right_checksums_is_an_error_or_some_state() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, shard) = stored(&folder.path().join("one"));
    let two = folder.path().join("two");
    let corpus: Vec<Vec<u8>> = shard.files.iter().map(|file| storage.get(&file.name).unwrap()).collect();
    let mut loaded = 0;
    fuzz("files of state, checksums made right", &corpus, |_, input| {
        let mut bytes = input.to_vec();
        reseal(&mut bytes);
        let file = FileRef {
            name: "state/mutated".into(),
            kind: FileKind::Base,
            offset: 0,
            bytes: bytes.len() as u64,
            crc32c: crc32c::crc32c(&bytes),
        };
        storage.put(&file.name, &bytes).unwrap();
        let shard = Shard { worker: 0, watermark_ms: None, files: vec![file] };
        let mut restored = table(&two);
        if restore_table(&mut restored, &storage, &[shard]).is_ok() {
            loaded += 1;
            contents(&mut restored);
        }
    });
    assert!(loaded > 0, "no mutation gets past the checksums");
}

/// Makes the checksums of head, sections and table right, as far as these can be found.
fn reseal(bytes: &mut [u8]) {
    let u32_at = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map(|le| u32::from_le_bytes(le.try_into().unwrap()) as usize)
    };
    let put = |bytes: &mut [u8], at: usize, crc: u32| {
        if let Some(place) = bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    };
    if let Some(length) = u32_at(bytes, 12)
        && let Some(head) = bytes.get(..16 + length)
    {
        let crc = crc32c::crc32c(head);
        put(bytes, 16 + length, crc);
    }
    let Some(tail) = bytes.len().checked_sub(24) else { return };
    let (Some(count), Some(table)) = (u32_at(bytes, tail), u32_at(bytes, tail + 4)) else { return };
    for row in 0..count.min(100) {
        let at = table + row * 30;
        let (Some(from), Some(length)) = (u32_at(bytes, at + 10), u32_at(bytes, at + 18)) else { break };
        let Some(section) = bytes.get(from..from.saturating_add(length)) else { continue };
        let crc = crc32c::crc32c(section);
        put(bytes, at + 26, crc);
    }
    if let Some(covered) = bytes.get(table..tail + 12) {
        let crc = crc32c::crc32c(covered);
        put(bytes, tail + 12, crc);
    }
}

/// The decoder of entries alone, which has no checksum of its own.
#[test]
fn mutated_entries_are_an_error_or_some_entries() {
    let folder = tempfile::tempdir().unwrap();
    let entry = |key: u64| postcard::to_allocvec(&(key, 7_i64, Some(value(key)))).unwrap();
    let mut by_group: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    for key in 0..40_u64 {
        by_group.entry(Groups::new(GROUPS).of(hash_key(&key))).or_default().extend(entry(key));
    }
    let corpus: Vec<Vec<u8>> = by_group.into_values().collect();
    fuzz("entries of state", &corpus, |dice, input| {
        let mut table = table(folder.path());
        let group = dice.below(usize::from(GROUPS) + 1) as u16;
        if let Ok(loaded) = table.load_section(group, input) {
            assert!(contents(&mut table).len() as u64 <= loaded);
        }
    });
}

#[test]
fn any_two_texts_of_schemas_can_be_compared() {
    let texts = [schema_of::<u64, (), String>(), schema_of::<String, i64, Value>()];
    let corpus: Vec<Vec<u8>> = texts.iter().map(|text| text.clone().into_bytes()).collect();
    fuzz("texts of schemas", &corpus, |dice, input| {
        let other = String::from_utf8_lossy(input).into_owned();
        let one = &texts[dice.below(2)];
        assert!(schema_diff(one, &other).len() <= 4 * (one.len() + other.len()) + 4096);
    });
}
