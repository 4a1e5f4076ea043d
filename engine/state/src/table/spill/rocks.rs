//! The RocksDB tier of one table: a cache of clean entries, not a durable store.
//!
//! The write-ahead log is off and the folder is wiped when a table opens it: the checkpoint alone is
//! durable. Keys are ordered by key group, so a group is one range.

use super::{Visit, Writes, wipe};
use crate::error::StateError;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, IteratorMode, LogLevel, Options, ReadOptions,
    WriteBatch, WriteBufferManager, WriteOptions,
};
use std::path::{Path, PathBuf};

/// What all spill databases of a process share: one block cache and one limit for write buffers.
pub(super) struct Shared {
    cache: Cache,
    buffers: WriteBufferManager,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("block_cache_bytes", &self.cache.get_usage()).finish()
    }
}

impl Shared {
    /// A block cache and a bound on all write buffers together, in bytes.
    pub(super) fn new(block_cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        Self {
            cache: Cache::new_lru_cache(block_cache_bytes),
            buffers: WriteBufferManager::new_write_buffer_manager(write_buffer_bytes, false),
        }
    }

    fn options(&self) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_manager(&self.buffers);
        options.set_write_buffer_size(16 << 20);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(1);
        options.set_log_level(LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options
    }
}

/// One open database; its folder is removed when the last user lets go of it.
pub(crate) struct Spill {
    db: Option<DB>,
    folder: PathBuf,
    step: String,
}

impl Drop for Spill {
    fn drop(&mut self) {
        drop(self.db.take());
        // The folder is scratch: what stays behind is wiped at the next opening.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Spill {
    /// Opens an empty database, wiping whatever an earlier process left in the folder.
    pub(super) fn create(folder: &Path, shared: &Shared, step: &str) -> Result<Self, StateError> {
        wipe(folder)?;
        Self::start(folder, shared, step, true)
    }

    /// Opens the database that lies in the folder; the folder is removed with it.
    pub(super) fn open(folder: &Path, shared: &Shared, step: &str) -> Result<Self, StateError> {
        Self::start(folder, shared, step, false)
    }

    fn start(folder: &Path, shared: &Shared, step: &str, create: bool) -> Result<Self, StateError> {
        let mut this = Self { db: None, folder: folder.to_owned(), step: step.to_owned() };
        let mut options = shared.options();
        options.create_if_missing(create);
        let families = [("default", options.clone())];
        let db = DB::open_cf_with_opts(&options, folder, families);
        this.db = Some(db.map_err(|error| this.error("open", error))?);
        Ok(this)
    }

    fn error(&self, action: &'static str, error: impl ToString) -> StateError {
        StateError::Spill {
            step: self.step.clone(),
            action,
            place: self.folder.clone(),
            problem: error.to_string(),
        }
    }

    fn db(&self) -> Result<&DB, StateError> {
        self.db.as_ref().ok_or_else(|| self.error("use", "closed"))
    }

    /// Looks up one key, given in its stored form.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.db()?.get(key).map_err(|error| self.error("read", error))
    }

    /// Looks up many keys at once; hands each value found to `found` with the key's position.
    pub(super) fn multi_get(
        &self,
        keys: &[&[u8]],
        mut found: impl FnMut(usize, &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let db = self.db()?;
        let family = db.cf_handle("default").ok_or_else(|| self.error("read", "no default family"))?;
        let values = db.batched_multi_get_cf(family, keys.iter().copied(), false);
        for (position, value) in values.into_iter().enumerate() {
            if let Some(value) = value.map_err(|error| self.error("read", error))? {
                found(position, &value)?;
            }
        }
        Ok(())
    }

    /// Applies puts and deletes, without a log.
    pub(super) fn write(&self, writes: &Writes) -> Result<(), StateError> {
        let mut batch = WriteBatch::default();
        for (key, value) in writes.iter() {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db()?.write_opt(batch, &options).map_err(|error| self.error("write", error))
    }

    /// Hands the entries from one stored key, included, to another, excluded, to `visit`, the keys without their
    /// group; backwards if that is wanted.
    pub(super) fn range(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        backwards: bool,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<Visit, StateError>,
    ) -> Result<(), StateError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mode = if backwards { IteratorMode::End } else { IteratorMode::Start };
        for entry in self.db()?.iterator_opt(mode, options) {
            let (key, value) = entry.map_err(|error| self.error("scan", error))?;
            if let Visit::Stop = visit(&key[2..], &value)? {
                break;
            }
        }
        Ok(())
    }

    /// Makes a consistent copy in a new folder; table files are hard links where possible.
    pub(super) fn link(&self, to: &Path) -> Result<(), StateError> {
        let checkpoint = Checkpoint::new(self.db()?).map_err(|error| self.error("checkpoint", error))?;
        checkpoint.create_checkpoint(to).map_err(|error| self.error("checkpoint", error))
    }

    /// RocksDB's estimate of the number of keys.
    pub(super) fn estimate(&self) -> u64 {
        let count = self.db().map(|db| db.property_int_value("rocksdb.estimate-num-keys"));
        count.ok().and_then(Result::ok).flatten().unwrap_or(0)
    }
}
