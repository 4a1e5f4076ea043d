//! What a stateful step does in its turn: records, watermarks, barriers, in which order.
//!
//! A watermark may be the end of many windows. The step works on it in slices, between which the rest of the worker has its
//! turn; the records and marks that come meanwhile wait, and so does the barrier.

use super::sides::Sided;
use super::{Outputs, Session, Stateful};
use crate::batch::{BATCH_RECORDS, Batch};
use crate::crash;
use crate::error::Result;
use crate::metrics::StepMetrics;
use crate::runtime::process::shared::Shared;
use crate::runtime::process::tick::{Tick, epoch};
use crate::runtime::steps::alignment::Alignment;
use crate::runtime::steps::marks::{Combined, Mark};
use crate::runtime::steps::states::States;
use crate::step::{Advance, DeclaredSide, Moment, Step, StepCx};
use staunch_checkpoint::CheckpointId;
use staunch_state::StateKey;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use timely::dataflow::operators::{Capability, CapabilityTrait, InputCapability};
use timely::scheduling::Activator;

/// Capabilities for the main and the side outputs at one time.
type Caps = (Capability<Tick>, Capability<Tick>);

fn retain(time: &InputCapability<Tick>) -> Caps {
    (time.retain(0), time.retain(1))
}

/// Where a step is opened.
pub(super) struct Opening {
    pub(super) worker: u32,
    /// Instances of sources whose watermarks it gets.
    pub(super) marks: usize,
    pub(super) again: Activator,
}

pub(super) struct Driver<K: StateKey, V, S> {
    step: S,
    states: States,
    sides: Vec<DeclaredSide>,
    alignment: Alignment<(Caps, Batch<(K, V)>)>,
    /// Records of the epoch that is being worked on, which wait for a watermark to be done with.
    waiting: VecDeque<(Caps, Batch<(K, V)>)>,
    /// Watermarks whose tick is not complete yet, or belongs to a later epoch.
    marks: BTreeMap<Tick, (Caps, Vec<Mark>)>,
    watermark: Combined,
    /// The step has more to do for the watermark; with what its output goes out.
    advancing: Option<Caps>,
    /// Whether the streams of the outputs have event times.
    timed: bool,
    emits_event_time: bool,
    pub(super) metrics: StepMetrics,
    pub(super) shared: Arc<Shared>,
    pub(super) again: Activator,
}

impl<K, V, S> Driver<K, V, S>
where
    K: StateKey,
    V: 'static,
    S: Step<K, V>,
{
    /// Opens the state, loading what the restored checkpoint has for this worker's key groups.
    pub(super) fn open(shared: &Arc<Shared>, opening: Opening, stateful: Stateful<S>) -> Result<Self> {
        let Stateful { name, properties, mut step, tables, sides } = stateful;
        let Opening { worker, marks, again } = opening;
        let mut states = States::new(shared, &name, worker);
        for table in tables {
            states.open(table.name, table.table)?;
        }
        let watermark = Combined::new(marks, states.restored_watermark());
        if states.is_restored() {
            step.restored(watermark.now())?;
            crash::pass("recovery.state_loaded");
            if shared.agreed.restored.as_ref().is_some_and(|m| m.workers != shared.agreed.workers) {
                crash::pass("recovery.half_redistributed");
            }
        }
        let metrics = shared.metrics.step(&name, worker as usize);
        if watermark.applied().is_some() {
            // For its lag. The watermark's own gauge shows what is applied from now on.
            metrics.watch.applied(watermark.now());
        }
        Ok(Self {
            step,
            states,
            sides,
            alignment: Alignment::of(&shared.agreed, metrics.stash.clone()),
            waiting: VecDeque::new(),
            marks: BTreeMap::new(),
            watermark,
            advancing: None,
            timed: marks > 0,
            emits_event_time: properties.emits_event_time,
            metrics,
            shared: Arc::clone(shared),
            again,
        })
    }

    pub(super) fn is_advancing(&self) -> bool {
        self.advancing.is_some()
    }

    pub(super) fn receive(
        &mut self,
        time: &InputCapability<Tick>,
        batch: &mut Batch<(K, V)>,
        outputs: &mut Outputs<'_, '_, S::Out>,
    ) -> Result<()> {
        if !self.alignment.admits(*time.time()) {
            self.alignment.stash(*time.time(), batch.len(), (retain(time), std::mem::take(batch)));
        } else if self.is_advancing() {
            self.waiting.push_back((retain(time), std::mem::take(batch)));
        } else if self.process(time, time, batch, outputs)? {
            self.advancing = Some(retain(time));
        }
        Ok(())
    }

    pub(super) fn note_marks(&mut self, time: &InputCapability<Tick>, marks: &mut Vec<Mark>) {
        let (_, kept) = self.marks.entry(*time.time()).or_insert_with(|| (retain(time), Vec::new()));
        kept.append(marks);
    }

    /// Has the step process records; true if it wants to be called again.
    fn process<C: CapabilityTrait<Tick>>(
        &mut self,
        main_time: &C,
        side_time: &C,
        batch: &mut Batch<(K, V)>,
        outputs: &mut Outputs<'_, '_, S::Out>,
    ) -> Result<bool> {
        self.metrics.records_in.inc_by(batch.len() as u64);
        let mut cx = StepCx::new(self.watermark.now());
        self.step.process(batch, &mut cx)?;
        let again = cx.again;
        self.emit(cx, main_time, side_time, outputs)?;
        if self.states.is_freezing() {
            self.states.slice()?;
        }
        self.states.maintain()?;
        Ok(again)
    }

    fn emit<C: CapabilityTrait<Tick>>(
        &mut self,
        mut cx: StepCx<S::Out>,
        main_time: &C,
        side_time: &C,
        outputs: &mut Outputs<'_, '_, S::Out>,
    ) -> Result<()> {
        cx.main.check_times(self.emits_event_time)?;
        if !self.timed {
            cx.main.times.clear();
        }
        self.metrics.records_out.inc_by(cx.main.len() as u64);
        self.metrics.late_records.inc_by(cx.late);
        give(&mut cx.main, main_time, outputs.main);
        for (side, declared) in self.sides.iter_mut().enumerate() {
            if let Some(mut batch) = declared.port.take(side, self.timed)? {
                let batch: &mut Sided = &mut batch;
                outputs.sides.session_with_builder(side_time).give_container(batch);
            }
        }
        Ok(())
    }

    /// Does what the frontier allows: go on with a watermark, process what has waited, apply watermarks, take barriers,
    /// go on with a freeze.
    pub(super) fn progress(
        &mut self,
        frontier: Option<Tick>,
        outputs: &mut Outputs<'_, '_, S::Out>,
    ) -> Result<()> {
        loop {
            if self.is_advancing() {
                self.advance(outputs)?;
                if self.is_advancing() {
                    // The others have their turn first.
                    self.again.activate();
                    break;
                }
            }
            if let Some((caps, mut batch)) = self.waiting.pop_front() {
                if self.process(&caps.0, &caps.1, &mut batch, outputs)? {
                    self.advancing = Some(caps);
                }
            } else if let Some(caps) = self.next_watermark(frontier) {
                self.advancing = Some(caps);
            } else if !self.alignment.is_complete(frontier) {
                break;
            } else if !self.barrier()? {
                // A slice of the freeze before it, and then again.
                self.again.activate();
                break;
            }
        }
        if self.states.is_freezing() {
            self.states.slice()?;
        }
        if self.states.is_freezing() || self.states.maintain()? {
            self.again.activate();
        }
        Ok(())
    }

    /// One slice of what follows from the watermark.
    fn advance(&mut self, outputs: &mut Outputs<'_, '_, S::Out>) -> Result<()> {
        let Some(caps) = self.advancing.take() else { return Ok(()) };
        let now = self.watermark.now();
        let mut cx = StepCx::new(now);
        let done = self.step.advance(Moment::EventTime(now), &mut cx)?;
        let more = done == Advance::More || cx.again;
        self.emit(cx, &caps.0, &caps.1, outputs)?;
        if more {
            self.advancing = Some(caps);
        }
        Ok(())
    }

    /// Takes marks that may be applied, until the watermark has advanced; returns what its output goes out with.
    fn next_watermark(&mut self, frontier: Option<Tick>) -> Option<Caps> {
        while let Some(entry) = self.marks.first_entry() {
            let tick = *entry.key();
            if frontier.is_none_or(|f| tick >= f) || epoch(tick) != self.alignment.epoch() {
                break;
            }
            let (caps, marks) = entry.remove();
            marks.iter().for_each(|mark| self.watermark.update(mark));
            if let Some(now) = self.watermark.advance() {
                self.metrics.applied(now);
                return Some(caps);
            }
        }
        None
    }

    /// The step is aligned: everything up to this epoch is in the state, nothing after it. False if the barrier has to
    /// wait for the freeze before it.
    fn barrier(&mut self) -> Result<bool> {
        let checkpoint = CheckpointId(self.alignment.epoch());
        if !self.states.begin(checkpoint, self.watermark.applied())? {
            return Ok(false);
        }
        let stats = self.states.stats();
        self.metrics.state_keys.set(stats.keys_in_memory as i64);
        self.metrics.state_bytes.set(stats.memory_bytes as i64);
        self.metrics.rocksdb_keys.set(stats.spilled as i64);
        let accesses = stats.hits + stats.misses;
        if accesses > 0 {
            self.metrics.cache_hit_ratio.set(stats.hits as f64 / accesses as f64);
        }
        let (due, waited) = self.alignment.next_epoch();
        self.shared.metrics.checkpoint_alignment.observe(waited.as_secs_f64());
        self.waiting.extend(due.into_iter().map(|(_, waiting)| waiting));
        Ok(true)
    }
}

/// Ships a batch, in pieces and in order if it is far larger than a batch should be.
fn give<T: 'static, C: CapabilityTrait<Tick>>(
    batch: &mut Batch<T>,
    time: &C,
    session: &mut Session<'_, Batch<T>>,
) {
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
