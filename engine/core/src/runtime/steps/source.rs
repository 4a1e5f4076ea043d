//! The driver of every source: splits, flow control, event time, barriers, bad input.
//!
//! A barrier is a move of the capability from one epoch to the next; what the readers have handed out
//! by then belongs to the closed epoch. The driver never blocks, and always moves to the clock's tick
//! before it does anything else, so that it holds nobody back.

use super::marks::{Mark, Marks};
use super::split::{Split, Status};
use super::splits::{Drained, Splits, Turn};
use crate::batch::{BATCH_RECORDS, Batch};
use crate::context::SourceContext;
use crate::crash;
use crate::error::{Error, Result};
use crate::metrics::{Doing, StepMetrics};
use crate::place::Role;
use crate::runtime::Flow;
use crate::runtime::control::splits::Enumerator;
use crate::runtime::life::worker::{Site, WorkerContext};
use crate::runtime::process::link::Dealt;
use crate::runtime::process::shared::caught;
use crate::runtime::process::tick::{Tick, epoch, tick};
use crate::runtime::process::wall_clock;
use crate::source::{BadInput, DeadLetter, Records, Source};
use crate::source_ext::Options;
use crate::time::{EventTimePolicy, Timestamp};
use staunch_checkpoint::{CheckpointId, Part, Report};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use timely::container::NoopBuilder;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::scheduling::{Activator, SyncActivator};

/// Steps that may be unfinished before a source waits.
const STEPS_AHEAD: usize = 4;
/// Batches read in one activation before other steps get their turn.
const BATCHES_PER_TURN: usize = 16;
/// How soon a source that waits for its sinks looks again.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

type Output<T> = OutputBuilder<Tick, NoopBuilder<Batch<T>>>;

pub(crate) struct SourceFlows<'s, T> {
    pub(crate) records: Flow<'s, T>,
    pub(crate) letters: Flow<'s, DeadLetter>,
    pub(crate) marks: Option<Marks<'s>>,
}

/// Wakes a source from a thread of a connector.
struct Wake(SyncActivator);

impl std::task::Wake for Wake {
    fn wake(self: Arc<Self>) {
        // Fails only when the worker is gone, and then there is nobody to wake.
        let _ = self.0.activate();
    }
}

/// Adds a source to the dataflow. `number` tells the sources of a job apart.
pub(crate) fn source<'s, S: Source>(
    site: &Site<'s>,
    name: &str,
    number: u32,
    source: Arc<S>,
    mut options: Options<S::Record>,
    dead_letters: bool,
) -> SourceFlows<'s, S::Record> {
    if site.live.is_none() {
        site.registry.borrow_mut().sources.push(Enumerator::new(name, Arc::clone(&source)));
        site.register_places(name, Role::Reads, source.places());
    }
    if dead_letters {
        options.bad_input = BadInput::DeadLetter;
    }
    let timed = options.event_time.is_some();
    let mut builder = OperatorBuilder::new(name.to_owned(), site.scope);
    let (records, records_flow) = builder.new_output::<Batch<S::Record>>();
    let (letters, letters_flow) = builder.new_output::<Batch<DeadLetter>>();
    let (marks, marks_flow) = builder.new_output::<Vec<Mark>>();
    let mut records: Output<S::Record> = OutputBuilder::from(records);
    let mut letters: Output<DeadLetter> = OutputBuilder::from(letters);
    let mut marks: OutputBuilder<Tick, NoopBuilder<Vec<Mark>>> = OutputBuilder::from(marks);
    let info = builder.operator_info();
    let again = site.scope.activator_for(Rc::clone(&info.address));
    let live = site.live.clone();
    let waker = live.as_ref().map(|worker| {
        worker.sources.borrow_mut().push(site.scope.activator_for(Rc::clone(&info.address)));
        Waker::from(Arc::new(Wake(site.scope.worker().sync_activator_for(info.address.to_vec()))))
    });
    let (name, step) = (name.to_owned(), name.to_owned());
    builder.build(move |capabilities| {
        let mut driver = live.zip(waker).map(|(worker, waker)| {
            let [records, letters, marks]: [Capability<Tick>; 3] =
                capabilities.try_into().expect("three outputs were added");
            let held =
                Held { records, letters: dead_letters.then_some(letters), marks: timed.then_some(marks) };
            Driver::new(worker, name, number, source, options, held, again, waker)
        });
        move |_| {
            let Some(driver) = driver.as_mut() else { return };
            if driver.worker.shared.is_stopping() {
                return;
            }
            let turn = || driver.turn(&mut records, &mut letters, &mut marks);
            if let Err(error) = caught(&step, turn) {
                driver.worker.shared.fail(error);
            }
        }
    });
    SourceFlows {
        records: records_flow,
        letters: letters_flow,
        marks: timed.then(|| Marks::broadcast(marks_flow, number)),
    }
}

/// The capabilities of a source: the only ones that are held from epoch to epoch.
struct Held {
    records: Capability<Tick>,
    letters: Option<Capability<Tick>>,
    marks: Option<Capability<Tick>>,
}

impl Held {
    fn downgrade(&mut self, to: Tick) {
        self.records.downgrade(&to);
        if let Some(letters) = &mut self.letters {
            letters.downgrade(&to);
        }
        if let Some(marks) = &mut self.marks {
            marks.downgrade(&to);
        }
    }
}

struct Driver<S: Source> {
    worker: Rc<WorkerContext>,
    name: String,
    number: u32,
    source: Arc<S>,
    context: SourceContext,
    options: Options<S::Record>,
    held: Held,
    again: Activator,
    /// When the timer goes off that brings the next turn at the latest.
    look_at: Option<Instant>,
    waker: Waker,
    policy: Option<EventTimePolicy>,
    splits: Splits<S>,
    splits_version: Option<u64>,
    /// Ticks with records that are not through the sinks yet, and their bytes.
    unfinished: VecDeque<(Tick, usize)>,
    bytes_this_tick: usize,
    /// What may still be read, for a limited rate; in records, with the time of the last look.
    allowance: (f64, Instant),
    /// The highest event time of all splits, those that have ended included.
    highest: Option<i64>,
    /// Time, highest time, idle.
    sent_mark: Option<(i64, i64, bool)>,
    ended: bool,
    metrics: StepMetrics,
}

impl<S: Source> Driver<S> {
    #[allow(clippy::too_many_arguments)]
    fn new(
        worker: Rc<WorkerContext>,
        name: String,
        number: u32,
        source: Arc<S>,
        options: Options<S::Record>,
        mut held: Held,
        again: Activator,
        waker: Waker,
    ) -> Self {
        // Not the clock's time: a barrier may have come already, and is to be answered.
        held.downgrade(tick(worker.shared.agreed.first_epoch.0, 0));
        let splits = Splits::new(source.open_at_once());
        let highest = worker.shared.agreed.highest_ms.get(&name).copied();
        Self {
            metrics: worker.shared.metrics.step(&name, worker.index),
            policy: options.policy(),
            context: worker.shared.source_context(&name, worker.index),
            worker,
            name,
            number,
            source,
            options,
            held,
            again,
            look_at: None,
            waker,
            splits,
            splits_version: None,
            unfinished: VecDeque::new(),
            bytes_this_tick: 0,
            allowance: (0.0, wall_clock::now()),
            highest,
            sent_mark: None,
            ended: false,
        }
    }

    fn turn(
        &mut self,
        records: &mut Output<S::Record>,
        letters: &mut Output<DeadLetter>,
        marks: &mut OutputBuilder<Tick, NoopBuilder<Vec<Mark>>>,
    ) -> Result<()> {
        self.metrics.watch.does(Doing::Work);
        let mut held_back = false;
        self.follow_clock()?;
        // Asked before the splits are taken: they are dealt before it is said. Until then nothing is said of them either.
        let may_begin = self.worker.shared.may_begin();
        self.take_splits()?;
        self.retire_finished_steps();
        let quiet = self.worker.shared.is_quiet();
        let draining = self.worker.shared.is_draining();
        if !may_begin {
            self.look_again(LOOK_AGAIN);
        } else if !quiet && !draining && !self.ended {
            let mut more = false;
            for _ in 0..BATCHES_PER_TURN {
                more = self.has_room() && self.read_batch(records, letters)?;
                if !more {
                    break;
                }
            }
            held_back = more || !self.has_room();
            if more {
                self.again.activate();
            } else if held_back {
                self.look_again(LOOK_AGAIN);
            }
        }
        if may_begin {
            let drained = draining && !quiet && self.drain(records, letters)?;
            self.send_mark(drained, marks);
            self.report_end(drained);
        }
        self.metrics.watch.does(if held_back { Doing::Wait } else { Doing::Nothing });
        Ok(())
    }

    /// Moves to the clock's tick; at a new epoch, reports the positions of the closed one.
    fn follow_clock(&mut self) -> Result<()> {
        let now = self.worker.shared.clock.now();
        let mine = *self.held.records.time();
        if now <= mine {
            return Ok(());
        }
        if self.bytes_this_tick > 0 {
            self.unfinished.push_back((mine, self.bytes_this_tick));
            self.bytes_this_tick = 0;
        }
        for closed in epoch(mine)..epoch(now) {
            let (closed, decided) = (CheckpointId(closed), self.worker.shared.decided());
            let parts = self.splits.report(closed, decided)?;
            crash::pass("source.positions_captured");
            let part = Part::source(&self.name, self.worker.index as u32);
            self.worker.shared.acknowledge(part, closed, Report::Source(parts));
        }
        self.held.downgrade(now);
        Ok(())
    }

    fn take_splits(&mut self) -> Result<()> {
        let shared = &self.worker.shared;
        let inbox = shared.inbox(&self.name);
        let version = inbox.version();
        if self.splits_version != Some(version) {
            self.splits_version = Some(version);
            for Dealt { part, is_known, .. } in inbox.take(self.worker.index) {
                self.splits.add(Split::new(part, is_known)?)?;
            }
        }
        let draining = shared.is_draining();
        if let Some(wait) =
            self.splits.open_more(&self.source, &self.context, shared, &self.waker, draining)?
        {
            self.look_again(wait);
        }
        Ok(())
    }

    fn retire_finished_steps(&mut self) {
        while let Some((tick, _)) = self.unfinished.front() {
            if self.worker.probe.less_equal(tick) {
                break;
            }
            self.unfinished.pop_front();
        }
    }

    fn has_room(&self) -> bool {
        self.unfinished.len() < STEPS_AHEAD
            && self.bytes_this_tick < self.worker.shared.config.inflight_bytes / STEPS_AHEAD
    }

    /// Reads from the next split that has something; false if none has.
    fn read_batch(
        &mut self,
        records: &mut Output<S::Record>,
        letters: &mut Output<DeadLetter>,
    ) -> Result<bool> {
        let Some(limit) = self.rate_limit() else { return Ok(false) };
        let mut buffer = Records::with_limit(limit);
        let mut ended = Vec::new();
        let turn = self.splits.read(&mut Context::from_waker(&self.waker), &mut buffer, &mut ended)?;
        if buffer.moved {
            self.worker.shared.note_activity();
        }
        if !buffer.records.is_empty() || !buffer.bad.is_empty() {
            self.emit(buffer, records, letters)?;
            ended.extend(self.splits.let_go()?);
        }
        if !ended.is_empty() {
            for split in ended {
                self.worker.shared.split_finished(&self.name, split);
            }
            // That it has ended must come into a checkpoint, even if no record comes any more: a file may be deleted
            // after its end. And another split may wait for its place.
            self.worker.shared.note_activity();
            self.again.activate();
        }
        Ok(matches!(turn, Turn::More))
    }

    /// Reads what readers hold back only because more might come; true once there is no more of that.
    fn drain(&mut self, records: &mut Output<S::Record>, letters: &mut Output<DeadLetter>) -> Result<bool> {
        if self.ended {
            return Ok(true);
        }
        let waker = self.waker.clone();
        loop {
            let mut buffer = Records::with_limit(BATCH_RECORDS);
            let drained = self.splits.drain(&mut Context::from_waker(&waker), &mut buffer)?;
            if !buffer.records.is_empty() || !buffer.bad.is_empty() {
                self.emit(buffer, records, letters)?;
            }
            match drained {
                Drained::More => {
                    if self.splits.let_go()?.is_some() {
                        // One that was begun may wait for the place.
                        self.again.activate();
                    }
                }
                Drained::Later => return Ok(false),
                Drained::All => return Ok(true),
            }
        }
    }

    /// Has the next turn come after `wait` at the latest. One timer at a time: as every turn asks for
    /// the next, more of them would never become fewer, and keep the worker busy.
    fn look_again(&mut self, wait: Duration) {
        // A simulation gives every turn to the sources, and has no timers of the dataflow's own.
        if wall_clock::is_simulated() {
            return;
        }
        let now = wall_clock::now();
        if !self.look_at.is_some_and(|at| now < at && at <= now + wait) {
            self.look_at = Some(now + wait);
            self.again.activate_after(wait);
        }
    }

    /// How many records may be read now; `None` if the rate says to wait.
    fn rate_limit(&mut self) -> Option<usize> {
        let Some(rate) = self.options.rate else { return Some(BATCH_RECORDS) };
        let now = wall_clock::now();
        let rate = rate.max(1) as f64;
        let earned = now.duration_since(self.allowance.1).as_secs_f64() * rate;
        // At most a twentieth of a second may be saved up, so that a pause is not followed by a burst.
        self.allowance = ((self.allowance.0 + earned).min((rate / 20.0).max(1.0)), now);
        if self.allowance.0 < 1.0 {
            let missing = (1.0 - self.allowance.0) / rate;
            self.look_again(Duration::from_secs_f64(missing.clamp(0.001, 1.0)));
            return None;
        }
        Some((self.allowance.0 as usize).min(BATCH_RECORDS))
    }

    fn emit(
        &mut self,
        buffer: Records<S::Record>,
        records: &mut Output<S::Record>,
        letters: &mut Output<DeadLetter>,
    ) -> Result<()> {
        let count = buffer.records.len();
        self.allowance.0 -= (count + buffer.bad.len()) as f64;
        self.metrics.records_in.inc_by(count as u64);
        self.metrics.bytes_in.inc_by(buffer.bytes as u64);
        self.bytes_this_tick += buffer.bytes.max(count * size_of::<S::Record>()).max(1);
        self.worker.shared.records_read.fetch_add(count as u64, SeqCst);
        self.worker.shared.note_activity();
        if !buffer.bad.is_empty() {
            self.handle_bad_input(buffer.bad, letters)?;
        }
        if count > 0 {
            let mut batch = Batch { items: buffer.records, times: Vec::new(), hashes: Vec::new() };
            if let Some((assign, _)) = &self.options.event_time {
                assign(&batch.items, &mut batch.times);
                batch.check_times(true)?;
                self.highest = self.highest.max(batch.times.iter().max().copied());
                self.splits.saw(&batch.times);
            }
            records.activate().session_with_builder(&self.held.records).give_container(&mut batch);
        }
        Ok(())
    }

    fn handle_bad_input(&mut self, bad: Vec<DeadLetter>, letters: &mut Output<DeadLetter>) -> Result<()> {
        match self.options.bad_input {
            BadInput::Fail => {
                let first = &bad[0];
                return Err(Error::job(format!(
                    "{}: {}; the input was {:?}. To go on without such input, use .on_bad_input(BadInput::Skip) or job.source_with_dead_letters",
                    first.place,
                    first.reason,
                    first.raw.chars().take(200).collect::<String>()
                )));
            }
            BadInput::Skip => {
                // One line for all that came at once, whatever somebody feeds us.
                let (first, more) = (&bad[0], bad.len() - 1);
                tracing::warn!(
                    step = self.name,
                    place = first.place,
                    reason = first.reason,
                    more,
                    "bad input skipped"
                );
                self.metrics.dead_letters.inc_by(bad.len() as u64);
            }
            BadInput::DeadLetter => {
                self.metrics.dead_letters.inc_by(bad.len() as u64);
                if let Some(time) = &self.held.letters {
                    let mut batch = Batch { items: bad, times: Vec::new(), hashes: Vec::new() };
                    letters.activate().session_with_builder(time).give_container(&mut batch);
                }
            }
        }
        Ok(())
    }

    /// Sends the watermark of this instance if it has changed.
    fn send_mark(&mut self, draining: bool, marks: &mut OutputBuilder<Tick, NoopBuilder<Vec<Mark>>>) {
        let Some(policy) = self.policy else { return };
        let discovering = self.source.discover_every().is_some();
        let now = if draining { Status::Ended } else { self.splits.status(&policy, discovering) };
        if let Some(idle) = policy.idle_after
            && !matches!(now, Status::Ended | Status::Idle)
        {
            self.look_again(idle / 2 + Duration::from_millis(1));
        }
        let Some(time) = &self.held.marks else { return };
        let behind = |latest: i64| {
            Timestamp::from_millis(latest).saturating_sub(policy.lateness).as_millis().saturating_sub(1)
        };
        let never = Timestamp::MIN.as_millis();
        let highest = self.highest.map_or(never, behind);
        let mark = match now {
            Status::Active(latest) => (behind(latest), never, false),
            // A new split after all were idle: from now on the watermark is held again.
            Status::Silent if self.sent_mark.is_some_and(|(_, _, idle)| idle) => (never, never, false),
            Status::Silent => return,
            // Nothing was read because the sinks are behind: that is not idleness.
            Status::Idle if !self.has_room() => return,
            Status::Idle => (never, highest, true),
            Status::Ended => (Timestamp::MAX.as_millis(), highest, false),
        };
        if self.sent_mark == Some(mark) {
            return;
        }
        self.sent_mark = Some(mark);
        let message = |target| Mark {
            target: target as u32,
            source: self.number,
            instance: self.worker.index as u32,
            time: mark.0,
            highest: mark.1,
            idle: mark.2,
        };
        let mut batch: Vec<Mark> = (0..self.worker.peers).map(message).collect();
        marks.activate().session_with_builder(time).give_container(&mut batch);
        self.worker.shared.note_activity();
    }

    fn report_end(&mut self, draining: bool) {
        let over = draining || (self.source.discover_every().is_none() && self.splits.are_finished());
        if over && !self.ended {
            self.ended = true;
            self.worker.shared.input_ended();
        }
        let inflight = self.bytes_this_tick + self.unfinished.iter().map(|(_, b)| b).sum::<usize>();
        self.metrics.inflight.set(inflight as i64);
    }
}
