//! The driver of every stateful step: routing, alignment, watermarks, the freeze, restore.
//!
//! Operators see batches and watermarks, never barriers. No capability is held from epoch to epoch:
//! output goes out with the capability of what caused it.

use super::alignment::Alignment;
use super::marks::{Combined, Mark, Marks};
use super::routing::{Owners, Router};
use super::states::{States, state_name};
use crate::batch::{BATCH_RECORDS, Batch};
use crate::crash;
use crate::error::{Error, Result};
use crate::keyed::{KeyedStep, Output, Properties};
use crate::metrics::{Doing, StepMetrics};
use crate::runtime::Flow;
use crate::runtime::life::worker::Site;
use crate::runtime::process::shared::{Shared, caught};
use crate::runtime::process::tick::{Tick, epoch};
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_checkpoint::CheckpointId;
use staunch_state::{StateKey, Table};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{OutputBuilder, OutputBuilderSession};
use timely::dataflow::operators::{Capability, CapabilityTrait, InputCapability};
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::Activator;

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
    (name, schema, properties): (&str, String, Properties),
    step: S,
) -> (Flow<'s, S::Out>, Flow<'s, S::Side>)
where
    K: StateKey,
    V: Serialize + DeserializeOwned + Send + 'static,
    S: KeyedStep<K, V>,
{
    let emits_event_time = properties.emits_event_time;
    site.register_state(&state_name(name, None), schema, properties);
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
            let opened = caught(&name, open).map_err(|e| shared.fail(e)).ok();
            opened.map(|driver| Driver { emits_event_time, ..driver })
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
    step: S,
    table: Table<K, S::Namespace, S::State>,
    states: States,
    alignment: Alignment<(Caps, Batch<(K, V)>)>,
    /// Watermarks whose tick is not complete yet, or belongs to a later epoch.
    marks: BTreeMap<Tick, (Caps, Vec<Mark>)>,
    watermark: Combined,
    /// Whether the streams of both outputs have event times.
    timed: bool,
    emits_event_time: bool,
    metrics: StepMetrics,
    shared: Arc<Shared>,
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
        let mut states = States::new(shared, name, worker as u32);
        let mut table = states.open(&state_name(name, None), Table::new)?;
        let watermark = Combined::new(marks, states.restored_watermark());
        if states.is_restored() {
            step.restored(&mut table, watermark.now())?;
            crash::pass("recovery.state_loaded");
            if shared.restored.as_ref().is_some_and(|m| m.workers as usize != shared.config.workers) {
                crash::pass("recovery.half_redistributed");
            }
        }
        let metrics = shared.metrics.step(name, worker);
        if watermark.applied().is_some() {
            // For its lag. The watermark's own gauge shows what is applied from now on.
            metrics.watch.applied(watermark.now());
        }
        Ok(Self {
            emits_event_time: false,
            timed: marks > 0,
            step,
            table,
            states,
            alignment: Alignment::new(shared.first_epoch.0, shared.config.guarantee, metrics.stash.clone()),
            marks: BTreeMap::new(),
            watermark,
            metrics,
            shared: Arc::clone(shared),
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
        self.emit(output, main_time, side_time, main, side)?;
        if self.states.is_freezing() {
            self.states.slice(&mut self.table)?;
        }
        self.states.maintain(&mut self.table)?;
        Ok(())
    }

    fn emit<C: CapabilityTrait<Tick>>(
        &self,
        mut output: Output<S::Out, S::Side>,
        main_time: &C,
        side_time: &C,
        main: &mut Session<'_, S::Out>,
        side: &mut Session<'_, S::Side>,
    ) -> Result<()> {
        output.main.check_times(self.emits_event_time)?;
        if !self.timed {
            output.main.times.clear();
            output.side.times.clear();
        }
        self.metrics.records_out.inc_by(output.main.len() as u64);
        self.metrics.late_records.inc_by(output.late);
        give(&mut output.main, main_time, main);
        give(&mut output.side, side_time, side);
        Ok(())
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
        if self.states.is_freezing() {
            self.states.slice(&mut self.table)?;
        }
        if self.states.is_freezing() || self.states.maintain(&mut self.table)? {
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
                self.emit(output, &caps.0, &caps.1, main, side)?;
            }
        }
        Ok(())
    }

    /// The step is aligned: everything up to this epoch is in the state, nothing after it.
    fn barrier(&mut self) -> Result<()> {
        let checkpoint = CheckpointId(self.alignment.epoch());
        crash::pass("state.aligned");
        self.states.begin(&mut self.table, checkpoint, self.watermark.applied())?;
        let stats = self.states.stats(&mut self.table);
        self.metrics.state_keys.set(stats.keys_in_memory as i64);
        self.metrics.state_bytes.set(stats.memory_bytes as i64);
        self.metrics.rocksdb_keys.set(stats.spilled as i64);
        let accesses = stats.hits + stats.misses;
        if accesses > 0 {
            self.metrics.cache_hit_ratio.set(stats.hits as f64 / accesses as f64);
        }
        Ok(())
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
