//! The persister's thread: gathers the parts of a checkpoint, writes them as one file, tells the states.

use super::chain::{Chain, Written};
use super::{Message, Part, PersistedShard, Plan, ShardIdentity, lock, merge};
use crate::error::StateError;
use crate::snapshot::{Bundle, Output};
use crate::storage::Storage;
use staunch_checkpoint::{CheckpointId, Shard};
use std::collections::BTreeMap;
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
    /// Bases taken over and not durable yet.
    bases: usize,
}

impl Writer {
    pub(super) fn new(storage: Arc<dyn Storage>, identity: ShardIdentity, plan: Arc<Mutex<Plan>>) -> Self {
        Self { storage, identity, plan, chains: Vec::new(), waiting: BTreeMap::new(), bases: 0 }
    }

    /// Takes a message up; writes a checkpoint if it is complete with that.
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Open { state, files } => self.chains.push(Chain::new(state, files)),
            Message::Part(part) => self.waiting.entry(part.checkpoint).or_default().push(part),
        }
        while let Some(first) = self.waiting.first_entry()
            && first.get().len() == self.chains.len()
        {
            let (checkpoint, parts) = first.remove_entry();
            self.run(checkpoint, parts);
        }
    }

    fn run(&mut self, checkpoint: CheckpointId, parts: Vec<Part>) {
        let started = Instant::now();
        let mut dones = Vec::with_capacity(parts.len());
        let mut begins_base = false;
        for part in parts {
            begins_base |= part.frozen.mode() == crate::table::FreezeMode::Base;
            if let Some(chain) = self.chains.get_mut(part.state) {
                chain.absorb(&self.identity, checkpoint, part.frozen);
            }
            dones.push((part.state, part.watermark_ms, part.done));
        }
        self.bases += usize::from(begins_base);
        let outcome = self.write(checkpoint);
        self.count();
        match outcome {
            Ok(written) => {
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
        if let Err(error) = merge::merge(&*self.storage, &self.identity, checkpoint, &mut self.chains) {
            let worker = self.identity.worker;
            tracing::warn!(worker, %error, "small snapshots stay unmerged for now");
        }
        self.count();
    }

    /// Makes everything pending durable; returns what was written, by state.
    fn write(&mut self, checkpoint: CheckpointId) -> Result<Vec<Written>, StateError> {
        for chain in &mut self.chains {
            chain.copy_spill(&*self.storage, &self.identity, checkpoint)?;
        }
        let is_base = self.chains.iter().any(Chain::is_base);
        let name = self.identity.file(checkpoint, if is_base { ".base" } else { ".delta" });
        let scratch: PathBuf = self.chains.iter().find_map(Chain::scratch).unwrap_or(Path::new("")).into();
        let bytes = self.chains.iter().map(Chain::pending_bytes).sum();
        let mut bundle = Bundle::new(Output::sized(bytes, &scratch)?);
        let mut extents = Vec::with_capacity(self.chains.len());
        for chain in &self.chains {
            extents.push(chain.add_to(&mut bundle)?);
        }
        if extents.iter().any(Option::is_some) {
            bundle.put(&*self.storage, &name)?;
            staunch_crash::point_of("state.file_written", self.identity.worker)
                .map_err(StateError::io("write into", &scratch))?;
        }
        let advanced = self.chains.iter_mut().zip(extents);
        let written: Vec<Written> = advanced.map(|(chain, extent)| chain.advance(&name, extent)).collect();
        if is_base {
            let mut plan = lock(&self.plan);
            plan.bases_pending = plan.bases_pending.saturating_sub(std::mem::take(&mut self.bases));
            plan.base_bytes = written.iter().map(|written| written.bytes).sum();
        }
        Ok(written)
    }

    fn count(&self) {
        lock(&self.plan).files = self.chains.iter().map(Chain::snapshots).max().unwrap_or(0);
    }
}
