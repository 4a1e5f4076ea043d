//! The driver of every stateful step: routing, alignment, watermarks, the freeze, restore.
//!
//! Operators see batches and watermarks, never barriers. No capability is held from epoch to epoch:
//! output goes out with the capability of what caused it.

use super::alignment::Alignment;
use super::marks::{Combined, Mark, Marks};
use super::routing::{Owners, Router};
use crate::batch::{BATCH_RECORDS, Batch};
use crate::crash;
use crate::error::{Error, Result};
use crate::keyed::{KeyedStep, Output};
use crate::metrics::{Doing, StepMetrics};
use crate::runtime::Flow;
use crate::runtime::life::worker::Site;
use crate::runtime::process::shared::{Shared, caught};
use crate::runtime::process::tick::{Tick, epoch};
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_checkpoint::{CheckpointId, Event, Part, Report};
use staunch_state::{Persister, StateKey, Table, TableConfig, restore_table};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{OutputBuilder, OutputBuilderSession};
use timely::dataflow::operators::{Capability, CapabilityTrait, InputCapability};
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::Activator;

/// Entries frozen in one go, between two batches: about a millisecond, so that nothing stalls, and more
/// than a batch changes, so that the freeze outruns the writes.
const SLICE: usize = 4 * BATCH_RECORDS;

/// Capabilities for the main and the side output at one time.
type Caps = (Capability<Tick>, Capability<Tick>);
type Out<T> = OutputBuilder<Tick, NoopBuilder<Batch<T>>>;
type Session<'a, T> = OutputBuilderSession<'a, Tick, NoopBuilder<Batch<T>>>;

fn retain(time: &InputCapability<Tick>) -> Caps {
    (time.retain(0), time.retain(1))
}

/// Adds a stateful step to the dataflow.
pub(crate) fn stateful<'s, K, V, S>(
    site: &Site<'s>,
    flow: Flow<'s, (K, V)>,
    marks: Option<Marks<'s>>,
    name: &str,
    schema: String,
    step: S,
) -> (Flow<'s, S::Out>, Flow<'s, S::Side>)
where
    K: StateKey,
    V: Serialize + DeserializeOwned + Send + 'static,
    S: KeyedStep<K, V>,
{
    site.register_state(name, schema);
    let mut builder = OperatorBuilder::new(name.to_owned(), site.scope);
    let owners = Owners::of_site(site);
    let router = DistributorPact(move |_| Router(owners));
    let mut records = builder.new_input(flow, router);
    let sources = marks.as_ref().map_or(0, |m| m.sources.len());
    let mut marks_in = marks.map(|marks| builder.new_input(marks.flow, Pipeline));
    let (main, main_flow) = builder.new_output::<Batch<S::Out>>();
    let (side, side_flow) = builder.new_output::<Batch<S::Side>>();
    let mut main: Out<S::Out> = OutputBuilder::from(main);
    let mut side: Out<S::Side> = OutputBuilder::from(side);
    let again = site.scope.activator_for(builder.operator_info().address);
    let live = site.live.clone();
    let name = name.to_owned();
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut driver = live.map(|worker| {
            let shared = Arc::clone(&worker.shared);
            let marks = sources * worker.peers;
            let open = || Driver::open(&shared, worker.index, &name, step, marks, again);
            caught(&name, open).map_err(|e| shared.fail(e)).ok()
        });
        move |frontiers: &[MutableAntichain<Tick>]| {
            let Some(Some(driver)) = driver.as_mut() else { return };
            if driver.shared.is_stopping() {
                return;
            }
            driver.metrics.watch.does(Doing::Work);
            let turn = || {
                let (mut main, mut side) = (main.activate(), side.activate());
                let mut result = Ok(());
                records.for_each(|time, batch| {
                    if result.is_ok() {
                        result = driver.receive(&time, batch, &mut main, &mut side);
                    }
                });
                if let Some(marks_in) = &mut marks_in {
                    marks_in.for_each(|time, marks| {
                        let held = driver.marks.entry(*time.time());
                        let (_, kept) = held.or_insert_with(|| (retain(&time), Vec::new()));
                        kept.append(marks);
                    });
                }
                // All inputs must have passed a time before it is over.
                let frontier = frontiers.iter().filter_map(|f| f.frontier().first().copied()).min();
                result.and_then(|()| driver.progress(frontier, &mut main, &mut side))
            };
            if let Err(error) = caught(&name, turn) {
                driver.shared.fail(error);
            }
            driver.metrics.watch.does(Doing::Nothing);
        }
    });
    (main_flow, side_flow)
}

struct Driver<K: StateKey, V, S: KeyedStep<K, V>> {
    name: String,
    step: S,
    table: Table<K, S::Namespace, S::State>,
    persister: Persister,
    alignment: Alignment<(Caps, Batch<(K, V)>)>,
    /// Watermarks whose tick is not complete yet, or belongs to a later epoch.
    marks: BTreeMap<Tick, (Caps, Vec<Mark>)>,
    watermark: Combined,
    /// The checkpoint whose freeze is under way, and the watermark that belongs to it.
    freezing: Option<(CheckpointId, Option<i64>)>,
    metrics: StepMetrics,
    shared: Arc<Shared>,
    worker: u32,
    again: Activator,
}

impl<K, V, S> Driver<K, V, S>
where
    K: StateKey,
    V: 'static,
    S: KeyedStep<K, V>,
{
    /// Opens the state, loading what the restored checkpoint has for this worker's key groups.
    fn open(
        shared: &Arc<Shared>,
        worker: usize,
        name: &str,
        mut step: S,
        marks: usize,
        again: Activator,
    ) -> Result<Self> {
        let owned: Vec<u16> = shared.assignment.of_worker(worker as u32).collect();
        let mut table = Table::new(TableConfig {
            name: name.to_owned(),
            groups: shared.groups,
            owned: owned.clone(),
            memory_budget_bytes: shared.table_bytes,
            spill_dir: shared.spill_dir.join(format!("{name}-{worker}")),
            spill: Arc::clone(&shared.spill),
        });
        let part = shared.restored.as_ref().and_then(|m| m.states.get(name));
        let shards = part.map_or(&[][..], |part| &part.shards);
        let restored = restore_table(&mut table, &*shared.storage, shards)?;
        let watermark = shards.iter().filter_map(|shard| shard.watermark_ms).min();
        let watermark = Combined::new(marks, watermark);
        if part.is_some() {
            step.restored(&mut table, watermark.now())?;
            tracing::debug!(step = name, worker, ?restored, "state restored");
            crash::pass("recovery.state_loaded");
            if shared.restored.as_ref().is_some_and(|m| m.workers as usize != shared.config.workers) {
                crash::pass("recovery.half_redistributed");
            }
        }
        let persister = shared.persister(name, worker as u32, restored.continues)?;
        let metrics = shared.metrics.step(name, worker);
        if watermark.applied().is_some() {
            // For its lag. The watermark's own gauge shows what is applied from now on.
            metrics.watch.applied(watermark.now());
        }
        Ok(Self {
            name: name.to_owned(),
            step,
            table,
            persister,
            alignment: Alignment::new(shared.first_epoch.0, shared.config.guarantee, metrics.stash.clone()),
            marks: BTreeMap::new(),
            watermark,
            freezing: None,
            metrics,
            shared: Arc::clone(shared),
            worker: worker as u32,
            again,
        })
    }

    fn receive(
        &mut self,
        time: &InputCapability<Tick>,
        batch: &mut Batch<(K, V)>,
        main: &mut Session<'_, S::Out>,
        side: &mut Session<'_, S::Side>,
    ) -> Result<()> {
        if self.alignment.admits(*time.time()) {
            self.process(time, time, batch, main, side)
        } else {
            self.alignment.stash(*time.time(), batch.len(), (retain(time), std::mem::take(batch)));
            Ok(())
        }
    }

    fn process<C: CapabilityTrait<Tick>>(
        &mut self,
        main_time: &C,
        side_time: &C,
        batch: &mut Batch<(K, V)>,
        main: &mut Session<'_, S::Out>,
        side: &mut Session<'_, S::Side>,
    ) -> Result<()> {
        self.metrics.records_in.inc_by(batch.len() as u64);
        let mut output = Output::new(self.watermark.now());
        self.step.process(batch, &mut self.table, &mut output)?;
        self.emit(output, main_time, side_time, main, side);
        if self.table.is_freezing() {
            self.freeze_slice()?;
        }
        self.table.maintain()?;
        Ok(())
    }

    fn emit<C: CapabilityTrait<Tick>>(
        &self,
        mut output: Output<S::Out, S::Side>,
        main_time: &C,
        side_time: &C,
        main: &mut Session<'_, S::Out>,
        side: &mut Session<'_, S::Side>,
    ) {
        self.metrics.records_out.inc_by(output.main.len() as u64);
        self.metrics.late_records.inc_by(output.late);
        give(&mut output.main, main_time, main);
        give(&mut output.side, side_time, side);
    }

    /// Does what the frontier allows: apply watermarks, take barriers, go on with a freeze.
    fn progress(
        &mut self,
        frontier: Option<Tick>,
        main: &mut Session<'_, S::Out>,
        side: &mut Session<'_, S::Side>,
    ) -> Result<()> {
        loop {
            self.apply_marks(frontier, main, side)?;
            if !self.alignment.is_complete(frontier) {
                break;
            }
            self.barrier()?;
            let (due, waited) = self.alignment.next_epoch();
            self.shared.metrics.checkpoint_alignment.observe(waited.as_secs_f64());
            for (_, (caps, mut batch)) in due {
                self.process(&caps.0, &caps.1, &mut batch, main, side)?;
            }
        }
        if self.table.is_freezing() {
            self.freeze_slice()?;
        }
        if self.table.is_freezing() || self.table.maintain()? {
            self.again.activate();
        }
        Ok(())
    }

    fn apply_marks(
        &mut self,
        frontier: Option<Tick>,
        main: &mut Session<'_, S::Out>,
        side: &mut Session<'_, S::Side>,
    ) -> Result<()> {
        while let Some(entry) = self.marks.first_entry() {
            let tick = *entry.key();
            if frontier.is_none_or(|f| tick >= f) || epoch(tick) != self.alignment.epoch() {
                break;
            }
            let (caps, marks) = entry.remove();
            marks.iter().for_each(|mark| self.watermark.update(mark));
            if let Some(now) = self.watermark.advance() {
                self.metrics.applied(now);
                let mut output = Output::new(now);
                self.step.advance(&mut self.table, &mut output)?;
                self.emit(output, &caps.0, &caps.1, main, side);
            }
        }
        Ok(())
    }

    /// The step is aligned: everything up to this epoch is in the state, nothing after it.
    fn barrier(&mut self) -> Result<()> {
        let began = Instant::now();
        // The protocol has one undecided checkpoint at a time, so an unfinished freeze belongs to an
        // abandoned one. Its entries are still needed: the next snapshot builds upon it.
        while self.table.is_freezing() {
            self.freeze_slice()?;
        }
        let checkpoint = CheckpointId(self.alignment.epoch());
        crash::pass("state.aligned");
        self.table.begin_freeze(self.persister.next_mode())?;
        self.freezing = Some((checkpoint, self.watermark.applied()));
        self.observe_stall(began);
        let stats = self.table.stats();
        self.metrics.state_keys.set(stats.keys_in_memory as i64);
        self.metrics.state_bytes.set(stats.memory_bytes as i64);
        self.metrics.rocksdb_keys.set(stats.spilled as i64);
        let accesses = stats.hits + stats.misses;
        if accesses > 0 {
            self.metrics.cache_hit_ratio.set(stats.hits as f64 / accesses as f64);
        }
        Ok(())
    }

    fn freeze_slice(&mut self) -> Result<()> {
        let began = Instant::now();
        let finished = self.table.freeze_slice(SLICE)?;
        self.observe_stall(began);
        if finished && let Some((checkpoint, watermark)) = self.freezing.take() {
            let frozen = self.table.take_frozen()?;
            let (shared, name, worker) = (Arc::clone(&self.shared), self.name.clone(), self.worker);
            let done = move |persisted: Result<staunch_state::PersistedShard, staunch_state::StateError>| {
                let part = Part::state(&name, worker);
                let event = match persisted {
                    Ok(persisted) => {
                        shared.metrics.checkpoint_bytes_total.inc_by(persisted.bytes_written);
                        let report = Report::State(persisted.shard);
                        Event::Ack { part, checkpoint, report }
                    }
                    Err(error) => Event::Failed { part, checkpoint, reason: error.to_string() },
                };
                shared.tell(event);
            };
            crash::pass("state.frozen");
            self.persister.persist(checkpoint, watermark, frozen, Box::new(done));
        }
        Ok(())
    }

    fn observe_stall(&self, began: Instant) {
        let stall = began.elapsed().as_secs_f64();
        self.shared.metrics.checkpoint_stall.observe(stall);
        if stall > self.shared.metrics.checkpoint_stall_max.get() {
            self.shared.metrics.checkpoint_stall_max.set(stall);
        }
    }
}

/// Ships a batch, in pieces and in order if it is far larger than a batch should be (a window firing).
fn give<T: 'static, C: CapabilityTrait<Tick>>(batch: &mut Batch<T>, time: &C, session: &mut Session<'_, T>) {
    if batch.is_empty() {
        return;
    }
    let mut session = session.session_with_builder(time);
    if batch.len() <= 4 * BATCH_RECORDS {
        session.give_container(batch);
        return;
    }
    let mut items = std::mem::take(&mut batch.items).into_iter();
    let mut times = std::mem::take(&mut batch.times).into_iter();
    while items.len() > 0 {
        let mut piece = Batch {
            items: items.by_ref().take(BATCH_RECORDS).collect(),
            times: times.by_ref().take(BATCH_RECORDS).collect(),
            hashes: Vec::new(),
        };
        session.give_container(&mut piece);
    }
}

impl From<staunch_state::StateError> for Error {
    fn from(error: staunch_state::StateError) -> Self {
        use staunch_state::ErrorKind;
        match error.kind() {
            ErrorKind::Job => Self::job(error.to_string()),
            ErrorKind::External => Self::external(error.to_string()),
            ErrorKind::Internal => Self::internal(error.to_string()),
        }
    }
}
