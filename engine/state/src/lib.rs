//! Keyed state of Staunch: typed, checkpointed, larger than memory.
//!
//! A stateful step keeps its states in tables, one of each on each worker: a [`Table`] is a typed hash table in
//! memory, an [`OrderedTable`] and a [`TimerTable`] are in order. What exceeds their budget moves to RocksDB. At a barrier the table is frozen in slices, while
//! writes go on, and a [`Persister`] writes what was frozen to the checkpoint [`storage`]. After a
//! crash [`restore_table`] loads the shards of a checkpoint, whoever wrote them.
//!
//! Reading order: [`storage`] (the contract), the key groups ([`Groups`], [`Assignment`]), [`table`]
//! (the memory tier and its rules), [`order`] (keys as bytes in order), [`snapshot`] (the file format), [`persist`] (chains of files),
//! [`restore`].
//!
//! ```
//! use staunch_state::{Assignment, FreezeMode, Groups, InMemoryStorage, Persister, ShardIdentity};
//! use staunch_state::{SpillShared, Table, TableConfig, hash_key, restore_table};
//! use staunch_checkpoint::{CheckpointId, Generation};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = TableConfig {
//!     name: "counts".into(),
//!     groups: Groups::default(),
//!     owned: Assignment::even(Groups::default(), 1).of_worker(0).collect(),
//!     memory_budget_bytes: 256 << 20,
//!     spill_dir: std::env::temp_dir().join("staunch-doc-counts-0"),
//!     spill: SpillShared::with_defaults(),
//!     frozen_bytes: TableConfig::FROZEN_BYTES,
//! };
//! let mut counts: Table<String, (), u64> = Table::new(config.clone());
//! let mut words: Vec<String> = "to be or not to be".split(' ').map(String::from).collect();
//! let hashes: Vec<u64> = words.iter().map(hash_key).collect();
//! counts.update_batch(&hashes, &mut words, |word| (word, ()), |_, n| *n = Some(n.unwrap_or(0) + 1))?;
//!
//! let storage = InMemoryStorage::new();
//! let identity = ShardIdentity {
//!     job: "words".into(),
//!     lineage: "first".into(),
//!     worker: 0,
//!     generation: Generation(1),
//! };
//! let persister = Persister::start(std::sync::Arc::new(storage.clone()), identity)?;
//! let state = persister.open("counts", None);
//! counts.begin_freeze(persister.mode(CheckpointId(1)))?;
//! while !counts.freeze_slice(4096)? {}
//! let (done, outcome) = std::sync::mpsc::channel();
//! let report = Box::new(move |result| done.send(result).unwrap_or_default());
//! persister.persist(state, CheckpointId(1), None, counts.take_frozen()?, report);
//! let shard = outcome.recv()??.shard;
//!
//! let mut again: Table<String, (), u64> = Table::new(config);
//! restore_table(&mut again, &storage, &[shard])?;
//! let be = String::from("be");
//! assert_eq!(again.get(hash_key(&be), &be, ())?, Some(&2));
//! # Ok(())
//! # }
//! ```

mod codec;
pub mod directory;
pub mod error;
mod fields;
pub mod group;
mod hash;
pub mod key;
pub mod memory;
pub mod order;
pub mod persist;
mod prefetch;
pub mod restore;
pub mod schema;
pub mod snapshot;
pub mod storage;
pub mod stored;
mod strict;
pub mod table;

pub use directory::{Directory, DirectoryLock};
pub use error::{ErrorKind, Problem, StateError};
pub use group::{Assignment, Groups};
pub use key::{Namespace, StateKey, StateValue, hash_key};
pub use memory::InMemoryStorage;
pub use persist::{ManualWriter, PersistedShard, Persister, ShardIdentity, StateId};
pub use restore::{RestoreStats, restore_table};
pub use schema::{schema_diff, schema_of};
pub use storage::{Put, Storage, StorageError};
pub use table::{
    AnyTable, FreezeMode, Frozen, Ordered, OrderedTable, SpillShared, Table, TableConfig, TableStats,
    TimerTable,
};
