//! The driver of every sink: alignment, the writer's task, and the open step that slows sources down.
//!
//! The writer runs on the I/O threads. This step hands it batches through a small channel and keeps the
//! capability of each until it is written: that is the whole of back-pressure.

use super::alignment::Alignment;
use crate::batch::Batch;
use crate::crash;
use crate::error::{Error, Result};
use crate::metrics::{Doing, StepMetrics, Watch};
use crate::place::Role;
use crate::runtime::Flow;
use crate::runtime::control::committing::CommitterFactory;
use crate::runtime::life::worker::{Site, WorkerContext};
use crate::runtime::process::shared::Shared;
use crate::runtime::process::tick::Tick;
use crate::sink::{Sink, SinkContext, SinkWriter};
use staunch_checkpoint::{CheckpointId, Committable, Part, Report};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, Probe};
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::SyncActivator;
use tokio::sync::mpsc;

/// Batches that may wait for the writer.
const BATCHES_AHEAD: usize = 32;

enum ToWriter<T> {
    Write(Vec<T>),
    Prepare(CheckpointId),
}

/// Adds a sink to the dataflow.
pub(crate) fn sink<'s, S: Sink>(site: &Site<'s>, flow: Flow<'s, S::Record>, name: &str, sink: Arc<S>) {
    if site.live.is_none() {
        site.registry.borrow_mut().sinks.push(CommitterFactory::new(name, Arc::clone(&sink)));
        site.register_places(name, Role::Writes, sink.places());
    }
    let mut builder = OperatorBuilder::new(name.to_owned(), site.scope);
    let mut records = builder.new_input(flow, Pipeline);
    let (done, done_flow) = builder.new_output::<Vec<()>>();
    let done: OutputBuilder<Tick, NoopBuilder<Vec<()>>> = OutputBuilder::from(done);
    let info = builder.operator_info();
    let activator = site.scope.worker().sync_activator_for(info.address.to_vec());
    let live = site.live.clone();
    if let Some(worker) = &live {
        done_flow.probe_with(&worker.probe);
    }
    let name = name.to_owned();
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut driver = live.map(|worker| Driver::start(&worker, &name, sink, activator));
        move |frontiers: &[MutableAntichain<Tick>]| {
            // The output carries no records, only the frontier that the kept capabilities hold back.
            let _ = &done;
            let Some(driver) = driver.as_mut() else { return };
            if driver.shared.is_stopping() {
                return;
            }
            records.for_each(|time, batch| {
                let (tick, capability) = (*time.time(), time.retain(0));
                let records = std::mem::take(batch);
                if driver.alignment.admits(tick) {
                    driver.enqueue(capability, records);
                } else {
                    driver.alignment.stash(tick, records.len(), (capability, records));
                }
            });
            let frontier = frontiers[0].frontier().first().copied();
            driver.progress(frontier);
        }
    });
}

struct Driver<T> {
    alignment: Alignment<(Capability<Tick>, Batch<T>)>,
    /// Not handed to the writer yet.
    queue: VecDeque<(Option<Capability<Tick>>, ToWriter<T>)>,
    /// Handed to the writer; written once its counter says so.
    handed: VecDeque<Option<Capability<Tick>>>,
    retired: u64,
    written: Arc<AtomicU64>,
    writer: mpsc::Sender<ToWriter<T>>,
    shared: Arc<Shared>,
    metrics: StepMetrics,
}

impl<T: Send + 'static> Driver<T> {
    fn start<S: Sink<Record = T>>(
        worker: &Rc<WorkerContext>,
        name: &str,
        sink: Arc<S>,
        activator: SyncActivator,
    ) -> Self {
        let shared = Arc::clone(&worker.shared);
        let metrics = shared.metrics.step(name, worker.index);
        let (writer, messages) = mpsc::channel(BATCHES_AHEAD);
        let written = Arc::new(AtomicU64::new(0));
        let task = WriterTask {
            context: shared.sink_context(name, worker.index as u32),
            shared: Arc::clone(&shared),
            written: Arc::clone(&written),
            activator,
            watch: Arc::clone(&metrics.watch),
        };
        shared.spawn(name, "the writer", task.run(sink, messages));
        Self {
            alignment: Alignment::new(shared.first_epoch.0, shared.config.guarantee, metrics.stash.clone()),
            queue: VecDeque::new(),
            handed: VecDeque::new(),
            retired: 0,
            written,
            writer,
            metrics,
            shared,
        }
    }

    fn enqueue(&mut self, capability: Capability<Tick>, batch: Batch<T>) {
        self.metrics.records_in.inc_by(batch.len() as u64);
        self.queue.push_back((Some(capability), ToWriter::Write(batch.items)));
    }

    fn progress(&mut self, frontier: Option<Tick>) {
        while self.alignment.is_complete(frontier) {
            let checkpoint = CheckpointId(self.alignment.epoch());
            self.queue.push_back((None, ToWriter::Prepare(checkpoint)));
            let (due, waited) = self.alignment.next_epoch();
            self.shared.metrics.checkpoint_alignment.observe(waited.as_secs_f64());
            for (_, (capability, batch)) in due {
                self.enqueue(capability, batch);
            }
        }
        self.hand_over();
        let written = self.written.load(SeqCst);
        while self.retired < written {
            self.handed.pop_front();
            self.retired += 1;
        }
    }

    fn hand_over(&mut self) {
        while let Some((capability, message)) = self.queue.pop_front() {
            match self.writer.try_send(message) {
                Ok(()) => self.handed.push_back(capability),
                Err(mpsc::error::TrySendError::Full(message)) => {
                    self.queue.push_front((capability, message));
                    break;
                }
                // The task ended by an error or a panic, which is on its way to the coordinator.
                Err(mpsc::error::TrySendError::Closed(_)) => break,
            }
        }
    }
}

struct WriterTask {
    context: SinkContext,
    shared: Arc<Shared>,
    written: Arc<AtomicU64>,
    activator: SyncActivator,
    /// Here it is known whether there is work, not on the worker.
    watch: Arc<Watch>,
}

impl WriterTask {
    async fn run<S: Sink>(self, sink: Arc<S>, messages: mpsc::Receiver<ToWriter<S::Record>>) {
        if let Err(error) = self.write(sink, messages).await {
            self.shared.fail(error.in_step(&self.context.sink));
        }
    }

    async fn write<S: Sink>(
        &self,
        sink: Arc<S>,
        mut messages: mpsc::Receiver<ToWriter<S::Record>>,
    ) -> Result<()> {
        let mut writer = sink.writer(&self.context).await?;
        let mut due = Vec::with_capacity(BATCHES_AHEAD);
        while messages.recv_many(&mut due, BATCHES_AHEAD).await > 0 {
            self.watch.does(Doing::Work);
            for message in due.drain(..) {
                match message {
                    ToWriter::Write(records) => writer.write(records).await?,
                    ToWriter::Prepare(checkpoint) => self.prepare(&mut writer, checkpoint).await?,
                }
                self.written.fetch_add(1, SeqCst);
            }
            self.watch.does(Doing::Nothing);
            // Fails only when the worker is gone.
            let _ = self.activator.activate();
        }
        Ok(())
    }

    async fn prepare<W: SinkWriter>(&self, writer: &mut W, checkpoint: CheckpointId) -> Result<()> {
        let failed = |e| Error::external("the output could not be prepared").caused_by(e);
        crash::point_of("sink.preparing", self.context.instance).map_err(failed)?;
        let prepared = writer.prepare(checkpoint).await?;
        crash::point_of("sink.prepared", self.context.instance).map_err(failed)?;
        let committable = |prepared: crate::sink::Prepared| Committable {
            checkpoint,
            instance: self.context.instance,
            generation: self.context.generation,
            records: prepared.records,
            payload: prepared.payload,
        };
        let part = Part::sink(&self.context.sink, self.context.instance);
        let report = Report::Sink(prepared.into_iter().map(committable).collect());
        self.shared.acknowledge(part, checkpoint, report);
        Ok(())
    }
}
