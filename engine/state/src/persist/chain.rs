//! The persister's thread: the chain of files as it is in the storage.

use super::{Job, PersistedShard, Plan, ShardIdentity, base, lock, merge};
use crate::error::StateError;
use crate::snapshot::{Head, Output, Writer, ranges};
use crate::storage::Storage;
use crate::table::{FreezeMode, Frozen};
use staunch_checkpoint::{CheckpointId, FileKind, FileRef, Shard};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Frozen and not yet durable: one checkpoint's, or more after failures.
struct Pending {
    frozen: Frozen,
    /// Hard links of the RocksDB tier, once made.
    linked: Option<PathBuf>,
    /// Bases that went into it.
    bases: usize,
}

/// What has been written for one checkpoint.
struct Written {
    bytes: u64,
    entries: u64,
}

/// See the module.
pub(super) struct Chain {
    storage: Arc<dyn Storage>,
    identity: ShardIdentity,
    files: Vec<FileRef>,
    /// RocksDB's table files in the storage, by their local names. They never change under a name
    /// within one database, and only one database ever continues a chain.
    tables: BTreeMap<String, FileRef>,
    pending: Option<Pending>,
    plan: Arc<Mutex<Plan>>,
    /// Head of the last frozen state, for merged files.
    head: Option<(Head, PathBuf)>,
}

impl Chain {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        identity: ShardIdentity,
        files: Vec<FileRef>,
        plan: Arc<Mutex<Plan>>,
    ) -> Self {
        let tables = base::tables(&files);
        Self { storage, identity, files, tables, pending: None, plan, head: None }
    }

    /// Carries out one call.
    pub(super) fn run(&mut self, job: Job) {
        let started = Instant::now();
        let Job { checkpoint, watermark_ms, frozen, done } = job;
        self.absorb(checkpoint, frozen);
        let outcome = self.write(checkpoint);
        self.count();
        done(outcome.map(|written| PersistedShard {
            shard: Shard { worker: self.identity.worker, watermark_ms, files: self.files.clone() },
            bytes_written: written.bytes,
            entries: written.entries,
            took: started.elapsed(),
        }));
        if let Some((head, scratch)) = &self.head {
            let merged = merge::merge(&*self.storage, &self.identity, head, scratch, &mut self.files);
            if let Err(error) = merged {
                let step = &self.identity.step;
                tracing::warn!(step, %error, "small snapshot files stay unmerged for now");
            }
        }
        self.count();
    }

    /// Adds what was frozen to what is not in a file yet.
    fn absorb(&mut self, checkpoint: CheckpointId, frozen: Frozen) {
        let head = Head {
            job: self.identity.job.clone(),
            lineage: self.identity.lineage.clone(),
            step: self.identity.step.clone(),
            worker: self.identity.worker,
            checkpoint: checkpoint.0,
            generation: self.identity.generation.0,
            groups: frozen.groups,
            owned: ranges(&frozen.owned),
        };
        self.head = Some((head, frozen.scratch.clone()));
        let bases = usize::from(frozen.mode == FreezeMode::Base);
        match &mut self.pending {
            Some(pending) => {
                if bases > 0 {
                    base::unlink(pending.linked.take());
                }
                pending.frozen.absorb(frozen);
                pending.bases += bases;
            }
            None => self.pending = Some(Pending { frozen, linked: None, bases }),
        }
    }

    /// Makes everything pending durable.
    fn write(&mut self, checkpoint: CheckpointId) -> Result<Written, StateError> {
        let (Some(pending), Some((head, scratch))) = (&mut self.pending, &self.head) else {
            return Ok(Written { bytes: 0, entries: 0 });
        };
        let is_base = pending.frozen.mode == FreezeMode::Base;
        let mut written = Written { bytes: 0, entries: pending.frozen.entries() };
        let mut spill_files = Vec::new();
        if let Some(capture) = &pending.frozen.spill {
            pending.linked = Some(base::link(&capture.spill, scratch)?);
            // The hard links are what counts now: the table may evict again.
            pending.frozen.spill = None;
        }
        if let Some(linked) = &pending.linked {
            let name = |local: &str| self.identity.file(checkpoint, &format!("-{local}"));
            let copied = base::copy(&*self.storage, linked, name, &mut self.tables)?;
            written.bytes += copied.bytes;
            spill_files = copied.files;
        }
        // The head of a base tells whose state the RocksDB files are, so they never come alone.
        let mut file = None;
        if written.entries > 0 || !spill_files.is_empty() {
            let output = Output::sized(pending.frozen.bytes(), scratch)?;
            let mut writer = Writer::new(output, head)?;
            for (group, entries, bytes) in pending.frozen.sections() {
                writer.section(group, entries, bytes)?;
            }
            let (kind, ending) =
                if is_base { (FileKind::Base, ".base") } else { (FileKind::Delta, ".delta") };
            let name = self.identity.file(checkpoint, ending);
            let put = writer.finish(&*self.storage, name, kind)?;
            staunch_crash::point_of("state.file_written", self.identity.worker)
                .map_err(StateError::io("write into", scratch))?;
            written.bytes += put.bytes;
            file = Some(put);
        }
        if is_base {
            self.tables.retain(|_, table| spill_files.contains(table));
            self.files = spill_files;
            let mut plan = lock(&self.plan);
            plan.bases_pending -= pending.bases;
            plan.base_bytes = written.bytes;
        }
        self.files.extend(file);
        base::unlink(pending.linked.take());
        self.pending = None;
        Ok(written)
    }

    fn count(&self) {
        let snapshots = self.files.iter().filter(|file| file.kind != FileKind::Spill);
        lock(&self.plan).files = snapshots.count();
    }
}
