//! One table, one base: what it costs.

use anyhow::{Context, Result, ensure};
use benches::keys::{mix, spread};
use benches::process::memory;
use serde::{Deserialize, Serialize};
use staunch_checkpoint::{CheckpointId, Generation, Shard};
use staunch_state::{
    Assignment, Directory, FreezeMode, Groups, Namespace, PersistedShard, Persister, ShardIdentity,
    SpillShared, StateKey, StateValue, Storage, Table, TableConfig, hash_key, restore_table,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Entries frozen between two batches, as the engine does it.
const SLICE: usize = 4096;
/// Records of a batch.
const BATCH: u64 = 1024;

/// What is in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Integers.
    Integers,
    /// Texts of about twenty and a hundred letters.
    Texts,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Integers, Self::Texts];

    pub fn word(self) -> &'static str {
        match self {
            Self::Integers => "integers",
            Self::Texts => "texts",
        }
    }
}

/// Where what is frozen stays until it is in the checkpoint storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Frozen {
    /// In memory, all of it.
    Memory,
    /// In a scratch file, but for a little.
    Scratch,
}

impl Frozen {
    pub const ALL: [Self; 2] = [Self::Memory, Self::Scratch];

    pub fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Scratch => "scratch",
        }
    }
}

/// What one base cost.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Memory of the process before, in bytes.
    pub before: u64,
    /// The most it was until the base was durable, in bytes.
    pub peak: u64,
    /// Size of the base, in bytes.
    pub base: u64,
    /// Time that the worker spent on the freeze, all slices together, in milliseconds.
    pub freeze_ms: f64,
    /// The longest slice, in milliseconds.
    pub longest_ms: f64,
    /// From the barrier until the base was durable, in milliseconds.
    pub durable_ms: f64,
}

/// Fills a table, freezes it as a base while it is written to, makes that durable, and reads it again.
pub fn one(kind: Kind, frozen: Frozen, keys: u64, dir: &Path) -> Result<Measured> {
    match kind {
        Kind::Integers => base(frozen, keys, dir, spread, |key, count| spread(key) ^ count),
        Kind::Texts => {
            let key = |key| format!("customer-{:011}", spread(key) % 100_000_000_000);
            base(frozen, keys, dir, key, |key, count| format!("{key:020} {count:020} {}", "x".repeat(58)))
        }
    }
}

fn base<K: StateKey, V: StateValue + PartialEq>(
    frozen: Frozen,
    keys: u64,
    dir: &Path,
    key_of: impl Fn(u64) -> K + Copy,
    value_of: impl Fn(u64, u64) -> V + Copy,
) -> Result<Measured> {
    let storage: Arc<dyn Storage> = Arc::new(Directory::open(dir.join("checkpoints"))?);
    let mut table = empty::<K, V>(frozen, &dir.join("scratch"));
    for first in (0..keys).step_by(BATCH as usize) {
        write(&mut table, first..keys.min(first + BATCH), 1, key_of, value_of)?;
    }
    let before = memory()?.resident;
    let (began, mut slices, mut done, mut random) = (Instant::now(), Vec::new(), false, 1);
    table.begin_freeze(FreezeMode::Base)?;
    while !done {
        let slice = Instant::now();
        done = table.freeze_slice(SLICE)?;
        slices.push(slice.elapsed());
        random = mix(random);
        let first = random % keys.saturating_sub(BATCH).max(1);
        write(&mut table, first..keys.min(first + BATCH), 2, key_of, value_of)?;
    }
    let last = Instant::now();
    let frozen = table.take_frozen()?;
    slices.push(last.elapsed());
    let persisted = persist(Arc::clone(&storage), frozen)?;
    let durable_ms = millis(began.elapsed());
    let peak = memory()?.peak;
    drop(table);
    check(&persisted.shard, &*storage, &dir.join("restored"), keys, key_of, value_of)?;
    Ok(Measured {
        before,
        peak,
        base: persisted.bytes_written,
        freeze_ms: millis(slices.iter().sum()),
        longest_ms: millis(slices.into_iter().max().unwrap_or_default()),
        durable_ms,
    })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn empty<K: StateKey, V: StateValue>(frozen: Frozen, dir: &Path) -> Table<K, (), V>
where
    (): Namespace,
{
    let groups = Groups::default();
    Table::new(TableConfig {
        name: "state".to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: usize::MAX,
        spill_dir: dir.to_owned(),
        spill: SpillShared::with_defaults(),
        frozen_bytes: match frozen {
            Frozen::Memory => usize::MAX,
            Frozen::Scratch => TableConfig::FROZEN_BYTES,
        },
    })
}

fn write<K: StateKey, V: StateValue>(
    table: &mut Table<K, (), V>,
    keys: std::ops::Range<u64>,
    count: u64,
    key_of: impl Fn(u64) -> K,
    value_of: impl Fn(u64, u64) -> V,
) -> Result<()> {
    let mut items: Vec<(K, V)> = keys.map(|key| (key_of(key), value_of(key, count))).collect();
    let hashes: Vec<u64> = items.iter().map(|(key, _)| hash_key(key)).collect();
    table.update_batch(&hashes, &mut items, |(key, _)| (key, ()), |(_, new), value| *value = Some(new))?;
    Ok(())
}

fn persist(storage: Arc<dyn Storage>, frozen: staunch_state::Frozen) -> Result<PersistedShard> {
    let identity = ShardIdentity {
        job: "base_memory".to_owned(),
        lineage: "one".to_owned(),
        worker: 0,
        generation: Generation(1),
    };
    let persister = Persister::start(storage, identity)?;
    let state = persister.open("state", None);
    let (done, outcome) = channel();
    let report = Box::new(move |result| drop(done.send(result)));
    persister.persist(state, CheckpointId(1), None, frozen, report);
    Ok(outcome.recv().context("the persister ended")??)
}

/// The base holds what the table held at the barrier, not what was written since.
fn check<K: StateKey, V: StateValue + PartialEq>(
    shard: &Shard,
    storage: &dyn Storage,
    dir: &Path,
    keys: u64,
    key_of: impl Fn(u64) -> K,
    value_of: impl Fn(u64, u64) -> V,
) -> Result<()> {
    let mut table = empty::<K, V>(Frozen::Memory, dir);
    restore_table(&mut table, storage, std::slice::from_ref(shard))?;
    ensure!(table.stats().keys_in_memory == keys, "{} keys came back", table.stats().keys_in_memory);
    for number in 0..keys {
        let key = key_of(number);
        let found = table.get(hash_key(&key), &key, ())?;
        ensure!(found == Some(&value_of(number, 1)), "the value of key {number} is not that of the barrier");
    }
    Ok(())
}
