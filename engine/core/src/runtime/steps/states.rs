//! The named states of a stateful step on one worker: opened and restored, frozen at barriers, handed over.
//!
//! A step may have any number of states, each in a table of its own kind and type. Here they are a list of
//! [`AnyTable`]s: the types are known to the step alone, which has handles on the tables and uses them in its calls;
//! between these calls, what is here is done. All tables of a step are frozen for the same barrier, and with the same watermark.
//!
//! All states of a worker, of whatever step, hand over to one persister, which writes them as one file.
//!
//! What a checkpoint knows of states goes by the names that [`state_name`] makes. A state that the restored
//! checkpoint does not have begins empty.

use crate::batch::BATCH_RECORDS;
use crate::crash;
use crate::error::Result;
use crate::runtime::life::worker::Site;
use crate::runtime::process::shared::Shared;
use staunch_checkpoint::{CheckpointId, Part, Report};
use staunch_state::{
    AnyTable, FreezeMode, Groups, PersistedShard, Persister, SpillShared, StateError, StateId, TableConfig,
    TableStats, restore_table,
};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Entries frozen in one go, between two batches: about a millisecond, so that nothing stalls, and more
/// than a batch changes, so that the freeze outruns the writes.
const SLICE: usize = 4 * BATCH_RECORDS;

/// The name of a state in checkpoints. One that is named like its step has the step's name, others have their own
/// behind it. Names of steps and states have no dot, so no two are alike.
pub(crate) fn state_name(step: &str, state: Option<&str>) -> String {
    state.map_or_else(|| step.to_owned(), |state| format!("{step}.{state}"))
}

/// With what the table of a state is made.
pub(crate) struct TableSettings {
    /// None if the graph is only being checked: then no table is used.
    live: Option<(Arc<Shared>, u32)>,
}

impl TableSettings {
    pub(crate) fn of_site(site: &Site<'_>) -> Self {
        let live = site.live.as_ref().map(|worker| (Arc::clone(&worker.shared), worker.index as u32));
        Self { live }
    }

    /// For the state of this name ([`state_name`]).
    pub(crate) fn table(&self, name: &str) -> TableConfig {
        let name = name.to_owned();
        let Some((shared, worker)) = &self.live else {
            return TableConfig {
                name,
                groups: Groups::new(1),
                owned: Vec::new(),
                memory_budget_bytes: 0,
                spill_dir: PathBuf::new(),
                spill: SpillShared::new(0, 0),
                frozen_bytes: TableConfig::FROZEN_BYTES,
            };
        };
        TableConfig {
            spill_dir: shared.spill_dir.join(format!("{name}-{worker}")),
            name,
            groups: shared.groups,
            owned: shared.assignment.of_worker(*worker).collect(),
            memory_budget_bytes: shared.table_bytes,
            spill: Arc::clone(&shared.spill),
            frozen_bytes: TableConfig::FROZEN_BYTES,
        }
    }
}

/// See the module.
pub(crate) struct States {
    step: String,
    worker: u32,
    shared: Arc<Shared>,
    persister: Option<Arc<Persister>>,
    opened: Vec<Opened>,
    freezing: Option<Freezing>,
    restored: bool,
    watermark: Option<i64>,
    /// A checkpoint was asked for since the last one began.
    asked: Cell<bool>,
}

struct Opened {
    name: String,
    /// The step has a handle on it too, and uses it in its calls.
    table: Rc<RefCell<dyn AnyTable>>,
    id: StateId,
}

/// A freeze of all tables under way.
struct Freezing {
    checkpoint: CheckpointId,
    watermark: Option<i64>,
    /// Tables that are done.
    done: usize,
}

impl States {
    /// No state yet.
    pub(crate) fn new(shared: &Arc<Shared>, step: &str, worker: u32) -> Self {
        Self {
            step: step.to_owned(),
            worker,
            shared: Arc::clone(shared),
            persister: None,
            opened: Vec::new(),
            freezing: None,
            restored: false,
            watermark: None,
            asked: Cell::new(false),
        }
    }

    /// Opens a state ([`state_name`]) in a new table, loading what the restored checkpoint has for this worker's key
    /// groups.
    pub(crate) fn open(&mut self, name: String, table: Rc<RefCell<dyn AnyTable>>) -> Result<()> {
        let (shared, worker) = (&self.shared, self.worker);
        let part = shared.agreed.restored.as_ref().and_then(|m| m.states.get(&name));
        let shards = part.map_or(&[][..], |part| &part.shards);
        let stats = restore_table(&mut *table.borrow_mut(), &*shared.storage, shards)?;
        if part.is_some() {
            tracing::debug!(step = self.step, state = name, worker, ?stats, "state restored");
            self.restored = true;
            let oldest = shards.iter().filter_map(|shard| shard.watermark_ms).min();
            self.watermark = self.watermark.into_iter().chain(oldest).min();
        }
        // A state that is new to the job needs no base: all of it is in its first delta.
        let is_new = part.is_none() && shared.agreed.restored.is_some();
        let continues = stats.continues.or_else(|| is_new.then(Vec::new));
        let persister = match &self.persister {
            Some(persister) => persister,
            None => self.persister.insert(shared.persister(worker)?),
        };
        let id = persister.open(&name, continues);
        self.opened.push(Opened { name, table, id });
        Ok(())
    }

    /// Whether the restored checkpoint has any of the states.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored
    }

    /// The watermark that the step had applied at the restored checkpoint.
    pub(crate) fn restored_watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// Whether a freeze is under way: go on with [`States::slice`].
    pub(crate) fn is_freezing(&self) -> bool {
        self.freezing.is_some()
    }

    /// A barrier: what the tables hold now is frozen for its checkpoint. Carry it out with [`States::slice`]. False if the
    /// barrier has to wait, with all that comes behind it: the freeze before it is not done. The protocol has one undecided
    /// checkpoint at a time, so that one belongs to an abandoned checkpoint; its entries are still needed, because the next
    /// file builds upon it, and the worker is not to stand still until they are serialised.
    pub(crate) fn begin(&mut self, checkpoint: CheckpointId, watermark: Option<i64>) -> Result<bool> {
        if self.is_freezing() {
            return Ok(false);
        }
        let began = Instant::now();
        crash::pass("state.aligned");
        if let Some(persister) = &self.persister {
            let needs_base = |opened: &Opened| opened.table.borrow().needs_base();
            if self.opened.iter().any(needs_base) {
                persister.begin_base(checkpoint);
            }
            let mode = persister.mode(checkpoint);
            for opened in &self.opened {
                let mode = if needs_base(opened) { FreezeMode::Base } else { mode };
                opened.table.borrow_mut().begin_freeze(mode)?;
            }
        }
        self.freezing = Some(Freezing { checkpoint, watermark, done: 0 });
        self.asked.set(false);
        self.observe_stall(began);
        Ok(true)
    }

    /// Freezes a slice, and hands over what is complete. Less if the disk for what is frozen does not keep up: then the
    /// records have their turn.
    pub(crate) fn slice(&mut self) -> Result<()> {
        let began = Instant::now();
        let mut budget = SLICE;
        while let Some(Freezing { checkpoint, watermark, done }) = self.freezing
            && budget > 0
        {
            if done == self.opened.len() {
                self.freezing = None;
                break;
            }
            let mut table = self.opened[done].table.borrow_mut();
            if !table.freeze_slice(&mut budget)? {
                break;
            }
            if let Some(persister) = &self.persister {
                if done + 1 == self.opened.len() {
                    crash::pass("state.frozen");
                }
                let Opened { name, id, .. } = &self.opened[done];
                let report = Box::new(self.report(name, checkpoint));
                persister.persist(*id, checkpoint, watermark, table.take_frozen()?, report);
                self.freezing = Some(Freezing { checkpoint, watermark, done: done + 1 });
            }
        }
        if let Some(Freezing { done, .. }) = self.freezing {
            // Writes to the tables whose turn comes later are serialised ahead of it, and must not heap up.
            for opened in self.opened.iter().skip(done + 1) {
                opened.table.borrow_mut().freeze_slice(&mut 0)?;
            }
        }
        self.observe_stall(began);
        Ok(())
    }

    /// Tells the coordinator what became of a part.
    fn report(
        &self,
        name: &str,
        checkpoint: CheckpointId,
    ) -> impl FnOnce(Result<PersistedShard, StateError>) + Send + 'static {
        let (shared, part) = (Arc::clone(&self.shared), Part::state(name, self.worker));
        move |persisted| match persisted {
            Ok(persisted) => {
                shared.metrics.checkpoint_bytes_total.inc_by(persisted.bytes_written);
                shared.acknowledge(part, checkpoint, Report::State(persisted.shard));
            }
            Err(error) => shared.missed(part, checkpoint, error.to_string()),
        }
    }

    /// Keeps the memory of all tables within its budget, and asks for a checkpoint if only that helps; true if more is to
    /// be done now. If no checkpoint is to be expected, what has changed moves too.
    pub(crate) fn maintain(&self) -> Result<bool> {
        let mut more = false;
        for opened in &self.opened {
            let mut table = opened.table.borrow_mut();
            more |= table.maintain()?;
            if table.wants_checkpoint() && self.shared.expects_no_checkpoint() {
                table.let_dirty_move();
                more = true;
            } else if table.wants_checkpoint() && !self.asked.replace(true) {
                self.shared.memory_is_full(&opened.name);
            }
        }
        Ok(more)
    }

    /// The figures of all tables together.
    pub(crate) fn stats(&self) -> TableStats {
        let mut all = TableStats::default();
        for opened in &self.opened {
            let one = opened.table.borrow().stats();
            all.keys_in_memory += one.keys_in_memory;
            all.spilled += one.spilled;
            all.memory_bytes += one.memory_bytes;
            all.hits += one.hits;
            all.misses += one.misses;
        }
        all
    }

    fn observe_stall(&self, began: Instant) {
        let stall = began.elapsed().as_secs_f64();
        self.shared.metrics.checkpoint_stall.observe(stall);
        if stall > self.shared.metrics.checkpoint_stall_max.get() {
            self.shared.metrics.checkpoint_stall_max.set(stall);
        }
    }
}

#[cfg(test)]
#[path = "states_tests.rs"]
mod tests;
