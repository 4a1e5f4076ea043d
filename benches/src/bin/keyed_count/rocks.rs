//! State as it is done first: a RocksDB of each worker, read and written for every record.

use crate::raw::{Counts, owner};
use anyhow::{Result, anyhow};
use benches::keys;
use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use std::path::Path;

/// Keys that go in by one call when the database is filled.
const BATCH: usize = 10_000;

/// The state of one worker.
pub struct Rocks {
    db: DB,
    unlogged: WriteOptions,
}

impl Rocks {
    /// A database with the worker's keys, at count 0: to fill it record by record would take most of
    /// the run.
    pub fn open(dir: &Path, worker: usize, keys: u64) -> Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        let db = DB::open(&options, dir.join(worker.to_string()))?;
        // As in the engine, where the checkpoint is the durability.
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let mine: Vec<u64> = keys::all(keys).filter(|key| owner(*key) == worker).collect();
        for some in mine.chunks(BATCH) {
            let mut batch = WriteBatch::default();
            some.iter().for_each(|key| batch.put(key.to_le_bytes(), 0u64.to_le_bytes()));
            db.write_opt(batch, &unlogged)?;
        }
        Ok(Self { db, unlogged })
    }
}

impl Counts for Rocks {
    fn count(&mut self, keys: &[u64], out: &mut Vec<(u64, u64)>) -> Result<()> {
        for key in keys {
            let id = key.to_le_bytes();
            let before = match self.db.get_pinned(id)? {
                Some(bytes) => {
                    u64::from_le_bytes(bytes[..].try_into().map_err(|_| anyhow!("a count has 8 bytes"))?)
                }
                None => 0,
            };
            let now = before + 1;
            self.db.put_opt(id, now.to_le_bytes(), &self.unlogged)?;
            out.push((*key, now));
        }
        Ok(())
    }
}
