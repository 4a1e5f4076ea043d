//! One split at one source instance: opening it, reading it, its event time, what a checkpoint says of it.

use super::as_json::to_json;
use crate::context::SourceContext;
use crate::error::{Error, Result};
use crate::runtime::process::shared::Shared;
use crate::runtime::process::wall_clock;
use crate::source::{Progress, Records, Source, SplitReader};
use crate::time::EventTimePolicy;
use serde_json::Value;
use staunch_checkpoint::SplitPart;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// A reader that has had nothing for so long gives its place to a split that waits.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);
/// One that always has something gives it up after so long, and after twice as long the next time: what it costs
/// to open a split again must not grow with what is in it.
const BUSY_TURN: Duration = Duration::from_secs(2);
/// How often the turn of a split is doubled.
const DOUBLINGS: u32 = 6;

enum Reader<S: Source> {
    /// It has no place; perhaps it never had one.
    Waiting,
    /// Since when.
    Opening(mpsc::Receiver<Result<S::Reader>>, Instant),
    Open(S::Reader),
    Finished,
}

pub(crate) struct Split<S: Source> {
    pub(crate) id: String,
    description: S::Split,
    reader: Reader<S>,
    /// Position of the next record, while no reader is open.
    position: Option<S::Position>,
    latest: Option<i64>,
    /// Since when its readers have had nothing, and when the last one said so: in between it may not have been
    /// asked, because the sinks are behind, or because it had no place.
    idle: Option<(Instant, Instant)>,
    /// Shapes of the last description and the last position that were written.
    shapes: (Option<u64>, Option<u64>),
    /// When the open reader was opened, and since when that one has had nothing.
    opened: Option<(Instant, Option<Instant>)>,
    turns: u32,
    /// What was last said of it for a checkpoint.
    said: Option<SplitPart>,
    /// Its position at the barrier before; only for a planted bug.
    before: Option<Value>,
}

/// Event time of some splits together, while it is being found.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    lowest: Option<i64>,
    silent: bool,
    idle: bool,
}

/// Event time of some splits together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Status {
    /// The lowest of the latest event times.
    Active(i64),
    /// Some split has not said anything yet, and holds everything back.
    Silent,
    /// All that are not at their end are idle.
    Idle,
    /// All are at their end.
    Ended,
}

impl Tally {
    /// Some split holds everything back: the others do not matter.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    pub(crate) fn and(self, other: Self) -> Self {
        let lowest = match (self.lowest, other.lowest) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { lowest, silent: self.silent || other.silent, idle: self.idle || other.idle }
    }

    pub(crate) fn status(self, discovering: bool) -> Status {
        match self.lowest {
            _ if self.silent => Status::Silent,
            Some(lowest) => Status::Active(lowest),
            None if self.idle || discovering => Status::Idle,
            None => Status::Ended,
        }
    }
}

fn from_json<T: serde::de::DeserializeOwned>(id: &str, what: &str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| {
        Error::job(format!(
            "split {id}: its {what} in the checkpoint is of another shape; was the source replaced by one of another type under the same name?"
        ))
        .caused_by(e)
    })
}

impl<S: Source> Split<S> {
    /// A split that is dealt to this instance; `is_known` if the last decided checkpoint says this of it.
    pub(crate) fn new(part: SplitPart, is_known: bool) -> Result<Self> {
        let said = is_known.then(|| part.clone());
        let position = part.position.map(|p| from_json(&part.id, "position", p)).transpose()?;
        Ok(Self {
            description: from_json(&part.id, "description", part.split)?,
            reader: if part.finished { Reader::Finished } else { Reader::Waiting },
            position,
            latest: part.max_event_time_ms,
            idle: None,
            shapes: (None, None),
            opened: None,
            turns: 0,
            said,
            before: None,
            id: part.id,
        })
    }

    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.reader, Reader::Finished)
    }

    /// Whether something of it was read: a reader may hold back what follows.
    pub(crate) fn is_begun(&self) -> bool {
        self.position().is_some()
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.reader, Reader::Opening(..))
    }

    /// Begins to open the split; the waker is called when it is open.
    pub(crate) fn open(
        &mut self,
        source: &Arc<S>,
        context: &SourceContext,
        shared: &Arc<Shared>,
        waker: &Waker,
    ) {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (source, context, waker) = (Arc::clone(source), context.clone(), waker.clone());
        let (split, at) = (self.description.clone(), self.position.clone());
        shared.spawn(context.source.clone(), format!("opening split {}", self.id), async move {
            // The receiver is gone only when the job is ending.
            let _ = sender.send(source.open(split, at, &context).await);
            waker.wake();
        });
        tracing::debug!(split = self.id, "opening split");
        self.reader = Reader::Opening(receiver, wall_clock::now());
    }

    pub(crate) fn collect_opened(&mut self, limit: Duration) -> Result<()> {
        let Reader::Opening(receiver, since) = &self.reader else { return Ok(()) };
        match receiver.try_recv() {
            Ok(opened) => {
                let reader = opened?;
                // Before a record is read, so that it is not found out by the first checkpoint.
                to_json(&self.id, "position", &reader.position(), &mut self.shapes.1)?;
                self.reader = Reader::Open(reader);
                self.opened = Some((wall_clock::now(), None));
                crate::crash::pass("recovery.split_opened");
            }
            // The task may block its thread, so nobody waits for it.
            Err(mpsc::TryRecvError::Empty) if wall_clock::now() >= *since + limit => {
                return Err(Error::external(format!(
                    "split {} was not opened within {limit:?} (--open-timeout); is it there, and does its server answer?",
                    self.id
                )));
            }
            // Disconnected: the source panicked, which is on its way to the coordinator.
            Err(mpsc::TryRecvError::Empty | mpsc::TryRecvError::Disconnected) => {}
        }
        Ok(())
    }

    /// Reads into the buffer; true if there may be more at once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut Records<S::Record>) -> Result<bool> {
        let Reader::Open(reader) = &mut self.reader else { return Ok(false) };
        let progress = reader.poll(cx, buffer)?;
        let has_nothing = progress == Progress::Idle && buffer.records.is_empty() && buffer.bad.is_empty();
        if progress == Progress::Idle && buffer.records.is_empty() {
            let now = wall_clock::now();
            self.idle = Some((self.idle.map_or(now, |(since, _)| since), now));
        } else {
            self.idle = None;
        }
        if let Some((_, quiet)) = &mut self.opened {
            *quiet = has_nothing.then(|| quiet.unwrap_or_else(wall_clock::now));
        }
        if progress == Progress::End {
            self.position = Some(reader.position());
            self.reader = Reader::Finished;
        }
        Ok(progress == Progress::Ready)
    }

    /// Reads what the reader holds back only because more might come; true once there is no more of that.
    pub(crate) fn drain(&mut self, cx: &mut Context<'_>, buffer: &mut Records<S::Record>) -> Result<bool> {
        match &mut self.reader {
            Reader::Open(reader) => {
                let is_over = reader.drain(cx, buffer)? == Progress::End;
                if is_over {
                    self.position = Some(reader.position());
                    self.reader = Reader::Finished;
                }
                Ok(is_over)
            }
            Reader::Opening(..) => Ok(false),
            Reader::Waiting | Reader::Finished => Ok(true),
        }
    }

    /// How long ago it should have given its place to a split that waits; `None` if it may still keep it.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Duration> {
        let (Reader::Open(_), Some((opened, quiet))) = (&self.reader, self.opened) else { return None };
        let busy = BUSY_TURN * 2_u32.pow(self.turns.min(DOUBLINGS));
        let until = quiet.map_or(opened + busy, |quiet| (quiet + PATIENCE).min(opened + busy));
        now.checked_duration_since(until)
    }

    /// Gives its place up: the position is kept, the reader is not.
    pub(crate) fn park(&mut self) {
        if let Reader::Open(reader) = &self.reader {
            self.position = Some(reader.position());
            self.reader = Reader::Waiting;
            if self.opened.take().is_some_and(|(_, quiet)| quiet.is_none()) {
                self.turns += 1;
            }
            tracing::debug!(split = self.id, "split gives its place up");
        }
    }

    /// Takes note of the event times of records that were read.
    pub(crate) fn saw(&mut self, times: &[i64]) {
        self.latest = self.latest.max(times.iter().max().copied());
    }

    fn position(&self) -> Option<S::Position> {
        match &self.reader {
            Reader::Open(reader) => Some(reader.position()),
            _ => self.position.clone(),
        }
    }

    /// What a checkpoint says of it now, if that has changed. `at_barrier` if this is the place of a barrier.
    pub(crate) fn news(&mut self, at_barrier: bool) -> Result<Option<SplitPart>> {
        let (position, finished) = (self.position(), self.is_finished());
        let (id, shapes) = (&self.id, &mut self.shapes);
        let mut part = SplitPart {
            id: id.clone(),
            split: to_json(id, "description", &self.description, &mut shapes.0)?,
            position: position.as_ref().map(|at| to_json(id, "position", at, &mut shapes.1)).transpose()?,
            finished,
            max_event_time_ms: self.latest,
        };
        if crate::crash::bug("positions_late") {
            let now = part.position.take();
            part.position.clone_from(&self.before);
            part.finished = false;
            if at_barrier {
                self.before = now;
            }
        }
        if self.said.as_ref() == Some(&part) {
            return Ok(None);
        }
        self.said = Some(part.clone());
        Ok(Some(part))
    }

    /// Event time of an instance: the lowest of its splits that are neither at their end nor idle. A
    /// split that was never open holds everything back: its records are still to come.
    pub(crate) fn tally(&self, policy: &EventTimePolicy) -> Tally {
        let idle_for = self.idle.map(|(since, last)| last - since);
        if policy.idle_after.is_some_and(|limit| idle_for.is_some_and(|idle| idle >= limit)) {
            return Tally { idle: true, ..Tally::default() };
        }
        Tally { lowest: self.latest, silent: self.latest.is_none(), idle: false }
    }
}
