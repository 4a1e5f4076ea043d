//! The persister's thread: gathers the parts of a checkpoint, writes them as one file, tells the states.

use super::chain::{Chain, Written};
use super::{Message, Part, PersistedShard, Plan, ShardIdentity, base, lock, merge};
use crate::error::StateError;
use crate::snapshot::{Bundle, Output};
use crate::storage::{Storage, StorageError};
use crate::table::FreezeMode;
use staunch_checkpoint::{CheckpointId, Shard};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// See the module.
pub(super) struct Writer {
    storage: Arc<dyn Storage>,
    identity: ShardIdentity,
    plan: Arc<Mutex<Plan>>,
    /// By state.
    chains: Vec<Chain>,
    /// Parts of checkpoints that are not complete. Each state hands over in the order of checkpoints, so an earlier
    /// one is complete before a later one.
    waiting: BTreeMap<CheckpointId, Vec<Part>>,
    /// Bases of all states taken over and not durable yet.
    bases: usize,
    /// Names of files that may be in the storage and were never reported, so that no checkpoint lists them.
    unreported: BTreeSet<String>,
}

impl Writer {
    pub(super) fn new(storage: Arc<dyn Storage>, identity: ShardIdentity, plan: Arc<Mutex<Plan>>) -> Self {
        Self {
            storage,
            identity,
            plan,
            chains: Vec::new(),
            waiting: BTreeMap::new(),
            bases: 0,
            unreported: BTreeSet::new(),
        }
    }

    /// Takes a message up; writes a checkpoint if it is complete with that.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Open { state, files } => self.chains.push(Chain::new(state, files)),
            Message::Part(mut part) => {
                self.link(&mut part);
                self.waiting.entry(part.checkpoint).or_default().push(part);
            }
        }
        while let Some(first) = self.waiting.first_entry()
            && first.get().len() == self.chains.len()
        {
            let (checkpoint, parts) = first.remove_entry();
            self.run(checkpoint, parts);
        }
    }

    /// Makes the hard links of a base as soon as it is handed over: until then its table may evict nothing, and the
    /// other states may take long.
    fn link(&self, part: &mut Part) {
        let Some(capture) = &part.frozen.spill else { return };
        match base::link(&capture.spill, &part.frozen.scratch) {
            Ok(linked) => {
                part.linked = Some(linked);
                part.frozen.spill = None;
            }
            // It is tried again when the checkpoint is written, and counts then.
            Err(error) => {
                let (worker, checkpoint) = (self.identity.worker, part.checkpoint);
                tracing::warn!(worker, %checkpoint, %error, "state on disk is not linked yet");
            }
        }
    }

    fn run(&mut self, checkpoint: CheckpointId, parts: Vec<Part>) {
        let started = Instant::now();
        let mut dones = Vec::with_capacity(parts.len());
        // One of a state alone is in nobody's plan.
        let begins_base = parts.iter().all(|part| part.frozen.mode() == FreezeMode::Base);
        for part in parts {
            if let Some(chain) = self.chains.get_mut(part.state) {
                chain.absorb(&self.identity, checkpoint, part.frozen, part.linked);
            }
            dones.push((part.state, part.watermark_ms, part.done));
        }
        self.bases += usize::from(begins_base);
        let outcome = self.write(checkpoint);
        self.count();
        match outcome {
            Ok(written) => {
                for file in self.chains.iter().flat_map(|chain| &chain.files) {
                    self.unreported.remove(&file.name);
                }
                for (state, watermark_ms, done) in dones {
                    let (files, written) = (self.chains[state].files.clone(), written[state]);
                    done(Ok(PersistedShard {
                        shard: Shard { worker: self.identity.worker, watermark_ms, files },
                        bytes_written: written.bytes,
                        entries: written.entries,
                        took: started.elapsed(),
                    }));
                }
            }
            Err(error) => {
                // One reason for all of them.
                let problem = error.to_string();
                let mut error = Some(error);
                for (_, _, done) in dones {
                    let again = || StateError::Unwritten { problem: problem.clone() };
                    done(Err(error.take().unwrap_or_else(again)));
                }
            }
        }
        let (chains, names) = (&mut self.chains, &mut self.unreported);
        if let Err(error) = merge::merge(&*self.storage, &self.identity, checkpoint, chains, names) {
            let worker = self.identity.worker;
            tracing::warn!(worker, %error, "small snapshots stay unmerged for now");
        }
        self.clear();
        self.count();
    }

    /// Deletes what was written, never reported, and is needed no more: merged files that were merged again or followed by
    /// a base, and what is left of failed attempts. No checkpoint lists them, so nobody else would.
    fn clear(&mut self) {
        let needed: BTreeSet<&str> = self.chains.iter().flat_map(Chain::names).collect();
        self.unreported.retain(|name| {
            if needed.contains(name.as_str()) {
                return true;
            }
            match self.storage.delete(name) {
                Ok(()) | Err(StorageError::NotFound { .. }) => false,
                Err(error) => {
                    tracing::warn!(name, %error, "a file that no checkpoint needs stays for now");
                    true
                }
            }
        });
    }

    /// Makes everything pending durable; returns what was written, by state.
    fn write(&mut self, checkpoint: CheckpointId) -> Result<Vec<Written>, StateError> {
        let mut failed = None;
        for chain in &mut self.chains {
            // All of them even if one fails: a table may evict again when its links are made.
            let copied = chain.copy_spill(&*self.storage, &self.identity, checkpoint, &mut self.unreported);
            failed = failed.or(copied.err());
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let is_base = self.chains.iter().any(Chain::is_base);
        let name = self.identity.file(checkpoint, if is_base { ".base" } else { ".delta" });
        let scratch: PathBuf = self.chains.iter().find_map(Chain::scratch).unwrap_or(Path::new("")).into();
        let bytes = self.chains.iter().map(Chain::pending_bytes).sum();
        let mut bundle = Bundle::new(Output::sized(bytes, &scratch)?);
        let mut extents = Vec::with_capacity(self.chains.len());
        for chain in &self.chains {
            let mut lost = false;
            let extent = chain.add_to(&mut bundle, &mut lost);
            if lost {
                // What is pending can never be written. A base has no need of it.
                lock(&self.plan).fresh = true;
            }
            extents.push(extent?);
        }
        if extents.iter().any(Option::is_some) {
            self.unreported.insert(name.clone());
            bundle.put(&*self.storage, &name)?;
            staunch_crash::point_of("state.file_written", self.identity.worker)
                .map_err(StateError::io("write into", &scratch))?;
        }
        let bases: Vec<bool> = self.chains.iter().map(Chain::is_base).collect();
        let advanced = self.chains.iter_mut().zip(extents);
        let written: Vec<Written> = advanced.map(|(chain, extent)| chain.advance(&name, extent)).collect();
        let mut plan = lock(&self.plan);
        if bases.iter().all(|is_base| *is_base) {
            plan.bases_pending = plan.bases_pending.saturating_sub(std::mem::take(&mut self.bases));
        }
        for (weight, (is_base, written)) in plan.states.iter_mut().zip(bases.iter().zip(&written)) {
            if *is_base {
                weight.base_bytes = written.bytes;
            }
        }
        drop(plan);
        Ok(written)
    }

    fn count(&self) {
        lock(&self.plan).files = self.chains.iter().map(Chain::snapshots).max().unwrap_or(0);
    }
}
