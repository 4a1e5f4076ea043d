//! The chain of one state: its files as they are in the storage, and what is frozen and not yet in one.

use super::{ShardIdentity, base};
use crate::error::StateError;
use crate::snapshot::{Bundle, Extent, Head, ranges};
use crate::storage::Storage;
use crate::table::{FreezeMode, Frozen};
use staunch_checkpoint::{CheckpointId, FileKind, FileRef};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Frozen and not yet durable: one checkpoint's, or more after failures.
struct Pending {
    frozen: Frozen,
    /// Hard links of the RocksDB tier, once made.
    linked: Option<PathBuf>,
    /// The stored files of the RocksDB tier, once copied for the checkpoint that is being written.
    copied: Option<base::Copied>,
}

/// What has been written for one checkpoint.
#[derive(Clone, Copy, Default)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// See the module.
pub(super) struct Chain {
    state: String,
    pub(super) files: Vec<FileRef>,
    /// RocksDB's table files in the storage, by their local names. They never change under a name
    /// within one database, and only one database ever continues a chain.
    tables: BTreeMap<String, FileRef>,
    pending: Option<Pending>,
    /// Head of the last frozen state, for merged files, and its folder for temporary files.
    pub(super) head: Option<(Head, PathBuf)>,
}

impl Chain {
    pub(super) fn new(state: String, files: Vec<FileRef>) -> Self {
        let tables = base::tables(&files);
        Self { state, files, tables, pending: None, head: None }
    }

    /// How many snapshots are in it.
    pub(super) fn snapshots(&self) -> usize {
        self.files.iter().filter(|file| file.kind != FileKind::Spill).count()
    }

    /// The names of the files in the storage that it needs, or may still use.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let copied = self.pending.iter().flat_map(|pending| &pending.copied).flat_map(|copied| &copied.files);
        self.files.iter().chain(self.tables.values()).chain(copied).map(|file| file.name.as_str())
    }

    /// Adds what was frozen to what is not in a file yet, with the hard links of its RocksDB tier if there are.
    pub(super) fn absorb(
        &mut self,
        identity: &ShardIdentity,
        checkpoint: CheckpointId,
        frozen: Frozen,
        linked: Option<PathBuf>,
    ) {
        let head = Head {
            job: identity.job.clone(),
            lineage: identity.lineage.clone(),
            step: self.state.clone(),
            worker: identity.worker,
            checkpoint: checkpoint.0,
            generation: identity.generation.0,
            groups: frozen.groups,
            owned: ranges(&frozen.owned),
        };
        self.head = Some((head, frozen.scratch.clone()));
        match &mut self.pending {
            Some(pending) => {
                if frozen.mode == FreezeMode::Base {
                    base::unlink(std::mem::replace(&mut pending.linked, linked));
                    pending.copied = None;
                }
                pending.frozen.absorb(frozen);
            }
            None => self.pending = Some(Pending { frozen, linked, copied: None }),
        }
    }

    /// Whether it waits to become a base.
    pub(super) fn is_base(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.frozen.mode == FreezeMode::Base)
    }

    /// Serialised bytes that wait for their file.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.pending.as_ref().map_or(0, |pending| pending.frozen.bytes())
    }

    /// The folder for temporary files, once something was frozen.
    pub(super) fn scratch(&self) -> Option<&Path> {
        self.head.as_ref().map(|(_, scratch)| scratch.as_path())
    }

    /// Copies the RocksDB tier of a base.
    pub(super) fn copy_spill(
        &mut self,
        storage: &dyn Storage,
        identity: &ShardIdentity,
        checkpoint: CheckpointId,
        names: &mut BTreeSet<String>,
    ) -> Result<(), StateError> {
        let (Some(pending), Some((_, scratch))) = (&mut self.pending, &self.head) else { return Ok(()) };
        if let Some(capture) = &pending.frozen.spill {
            pending.linked = Some(base::link(&capture.spill, scratch)?);
            // The hard links are what counts now: the table may evict again.
            pending.frozen.spill = None;
        }
        pending.copied = None;
        if let Some(linked) = &pending.linked {
            let name = |local: &str| identity.spill_file(&self.state, checkpoint, local);
            pending.copied = Some(base::copy(storage, linked, name, &mut self.tables, names)?);
        }
        Ok(())
    }

    /// Adds what waits to the file of the checkpoint; none if there is nothing. The head of a base tells
    /// whose state the RocksDB files are, so these never come alone. `lost` is set if something that was frozen cannot
    /// be read again.
    pub(super) fn add_to(&self, bundle: &mut Bundle, lost: &mut bool) -> Result<Option<Extent>, StateError> {
        let (Some(pending), Some((head, _))) = (&self.pending, &self.head) else { return Ok(None) };
        let has_spill = pending.copied.as_ref().is_some_and(|copied| !copied.files.is_empty());
        if pending.frozen.entries() == 0 && !has_spill {
            return Ok(None);
        }
        let mut snapshot = bundle.begin(head)?;
        for piece in &pending.frozen.pieces {
            let bytes = piece.bytes().inspect_err(|_| *lost = true)?;
            snapshot.section(piece.group, piece.entries, &bytes)?;
        }
        snapshot.finish().map(Some)
    }

    /// All is durable: the chain goes on from here.
    pub(super) fn advance(&mut self, file: &str, extent: Option<Extent>) -> Written {
        let Some(mut pending) = self.pending.take() else { return Written::default() };
        let is_base = pending.frozen.mode == FreezeMode::Base;
        let mut written = Written { bytes: 0, entries: pending.frozen.entries() };
        if let Some(copied) = &pending.copied {
            written.bytes += copied.bytes;
        }
        if is_base {
            let spill_files = pending.copied.take().map(|copied| copied.files).unwrap_or_default();
            self.tables.retain(|_, table| spill_files.contains(table));
            self.files = spill_files;
        }
        if let Some(extent) = extent {
            written.bytes += extent.bytes;
            let kind = if is_base { FileKind::Base } else { FileKind::Delta };
            self.files.push(extent.in_file(file, kind));
        }
        base::unlink(pending.linked.take());
        written
    }
}
