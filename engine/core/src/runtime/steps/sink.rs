//! The driver of every sink: alignment, the writer's task, and the open step that slows sources down.
//!
//! The writer runs on a thread of its own. This step hands it batches through a small channel and keeps the
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
use crate::runtime::process::threads::no_answer;
use crate::runtime::process::tick::Tick;
use crate::sink::{OPEN_CUTS, Prepared, Sink, SinkContext, SinkWriter};
use staunch_checkpoint::{CheckpointId, Committable, Part, Report};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, Probe};
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::SyncActivator;
use tokio::sync::{mpsc, oneshot};

/// Batches that may wait for the writer.
const BATCHES_AHEAD: usize = 32;

enum ToWriter<T> {
    Write(Vec<T>),
    Cut(CheckpointId),
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
        if let Err(error) = shared.spawn_apart(name, "the writer", task.run(sink, messages)) {
            shared.fail(error.in_step(name));
        }
        Self {
            alignment: Alignment::of(&shared.agreed, metrics.stash.clone()),
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
            self.queue.push_back((None, ToWriter::Cut(checkpoint)));
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

    /// Opens the writer. The limit is kept elsewhere: opening may block this thread.
    async fn open<S: Sink>(&self, sink: &S) -> Result<S::Writer> {
        let (opened, is_open) = oneshot::channel::<()>();
        let (shared, limit, name) =
            (Arc::clone(&self.shared), self.context.deadline, self.context.sink.clone());
        self.shared.spawn(name.clone(), "opening the writer", async move {
            if tokio::time::timeout(limit, is_open).await.is_err() {
                shared.fail(no_answer("opening its writer", limit).in_step(name));
            }
        });
        let writer = sink.writer(&self.context).await;
        drop(opened);
        writer
    }

    async fn write<S: Sink>(
        &self,
        sink: Arc<S>,
        mut messages: mpsc::Receiver<ToWriter<S::Record>>,
    ) -> Result<()> {
        let mut writer = self.open(&*sink).await?;
        let mut cuts = Cuts::new(self);
        let mut due = Vec::with_capacity(BATCHES_AHEAD);
        while cuts.idle_beside(messages.recv_many(&mut due, BATCHES_AHEAD)).await? > 0 {
            self.watch.does(Doing::Work);
            for message in due.drain(..) {
                match message {
                    ToWriter::Write(records) => cuts.beside(writer.write(records)).await??,
                    ToWriter::Cut(checkpoint) => {
                        cuts.have_room().await?;
                        crash::point_of("sink.preparing", self.context.instance).map_err(unprepared)?;
                        cuts.add(checkpoint, writer.cut(checkpoint)?);
                    }
                }
                self.written.fetch_add(1, SeqCst);
            }
            // Fails only when the worker is gone.
            let _ = self.activator.activate();
        }
        Ok(())
    }

    /// The vote of this instance.
    fn answer(&self, checkpoint: CheckpointId, prepared: Vec<Prepared>) -> Result<()> {
        crash::point_of("sink.prepared", self.context.instance).map_err(unprepared)?;
        let committable = |prepared: Prepared| Committable {
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

fn unprepared(error: std::io::Error) -> Error {
    Error::external("the output could not be prepared").caused_by(error)
}

type Preparing = Pin<Box<dyn Future<Output = Result<Vec<Prepared>>> + Send>>;

/// The cuts of a writer that are not answered yet.
struct Cuts<'a> {
    task: &'a WriterTask,
    /// In the order of the cuts, each with its answer once it has one.
    open: VecDeque<(CheckpointId, Preparing, Option<Vec<Prepared>>)>,
    /// Nothing else is being done.
    idle: bool,
}

impl<'a> Cuts<'a> {
    fn new(task: &'a WriterTask) -> Self {
        Self { task, open: VecDeque::new(), idle: false }
    }

    fn add(
        &mut self,
        checkpoint: CheckpointId,
        preparing: impl Future<Output = Result<Vec<Prepared>>> + Send + 'static,
    ) {
        let instance = self.task.context.instance;
        let preparing = async move {
            crash::point_of("sink.cut", instance).map_err(unprepared)?;
            preparing.await
        };
        self.open.push_back((checkpoint, Box::pin(preparing), None));
    }

    /// Lets all open cuts go on, and answers those that are done, in their order.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Result<()> {
        for (_, preparing, answer) in &mut self.open {
            if answer.is_none()
                && let Poll::Ready(done) = preparing.as_mut().poll(cx)
            {
                *answer = Some(done?);
            }
        }
        while let Some(prepared) = self.open.front_mut().and_then(|(.., answer)| answer.take()) {
            if let Some((checkpoint, ..)) = self.open.pop_front() {
                self.task.answer(checkpoint, prepared)?;
            }
        }
        if self.idle && self.open.is_empty() {
            self.task.watch.does(Doing::Nothing);
        }
        Ok(())
    }

    /// The same as [`Cuts::beside`] for work that is only waiting for more.
    async fn idle_beside<R>(&mut self, work: impl Future<Output = R>) -> Result<R> {
        self.idle = true;
        let done = self.beside(work).await;
        self.idle = false;
        done
    }

    /// Waits for `work`, and lets the cuts go on meanwhile.
    async fn beside<R>(&mut self, work: impl Future<Output = R>) -> Result<R> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // First: work that is always ready must not keep them waiting.
            if let Err(error) = self.go_on(cx) {
                return Poll::Ready(Err(error));
            }
            work.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Waits until another cut may be open.
    async fn have_room(&mut self) -> Result<()> {
        poll_fn(|cx| match self.go_on(cx) {
            Err(error) => Poll::Ready(Err(error)),
            Ok(()) if self.open.len() < OPEN_CUTS => Poll::Ready(Ok(())),
            Ok(()) => Poll::Pending,
        })
        .await
    }
}
