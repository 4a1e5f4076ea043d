//! One split at one source instance: opening it, reading it, its event time, its place in checkpoints.

use super::as_json::to_json;
use crate::context::SourceContext;
use crate::error::{Error, Result};
use crate::runtime::process::shared::Shared;
use crate::runtime::process::wall_clock;
use crate::source::{Progress, Records, Source, SplitReader};
use crate::time::EventTimePolicy;
use staunch_checkpoint::{CheckpointId, SplitPart};
use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// Decided-notices that a split waits for at most; older ones are covered by newer ones.
const NOTICES: usize = 64;

enum Reader<S: Source> {
    Waiting,
    /// Since when.
    Opening(mpsc::Receiver<Result<S::Reader>>, Instant),
    Open(S::Reader),
    Finished,
}

pub(crate) struct Split<S: Source> {
    id: String,
    description: S::Split,
    reader: Reader<S>,
    /// Position of the next record, while no reader is open.
    position: Option<S::Position>,
    latest: Option<i64>,
    /// Since when its reader has had nothing, and when it last said so: in between it may not have been
    /// asked, because the sinks are behind.
    idle: Option<(Instant, Instant)>,
    /// Positions at checkpoints that are not known to be decided.
    undecided: VecDeque<(CheckpointId, S::Position)>,
    /// Shapes of the last description and the last position that were written.
    shapes: (Option<u64>, Option<u64>),
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

fn from_json<T: serde::de::DeserializeOwned>(id: &str, what: &str, value: serde_json::Value) -> Result<T> {
    serde_json::from_value(value).map_err(|e| {
        Error::job(format!(
            "split {id}: its {what} in the checkpoint is of another shape; was the source replaced by one of another type under the same name?"
        ))
        .caused_by(e)
    })
}

impl<S: Source> Split<S> {
    pub(crate) fn new(part: SplitPart) -> Result<Self> {
        let position = part.position.map(|p| from_json(&part.id, "position", p)).transpose()?;
        Ok(Self {
            description: from_json(&part.id, "description", part.split)?,
            reader: if part.finished { Reader::Finished } else { Reader::Waiting },
            position,
            latest: part.max_event_time_ms,
            idle: None,
            undecided: VecDeque::new(),
            shapes: (None, None),
            id: part.id,
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.reader, Reader::Finished)
    }

    pub(crate) fn is_opening_or_open(&self) -> bool {
        matches!(self.reader, Reader::Opening(..) | Reader::Open(_))
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.reader, Reader::Opening(..))
    }

    /// Begins to open the split if nobody has; the waker is called when it is open.
    pub(crate) fn open_if_waiting(
        &mut self,
        source: &Arc<S>,
        context: &SourceContext,
        shared: &Arc<Shared>,
        waker: &Waker,
    ) -> bool {
        if !matches!(self.reader, Reader::Waiting) {
            return false;
        }
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
        true
    }

    pub(crate) fn collect_opened(&mut self, limit: Duration) -> Result<()> {
        let Reader::Opening(receiver, since) = &self.reader else { return Ok(()) };
        match receiver.try_recv() {
            Ok(opened) => {
                let reader = opened?;
                // Before a record is read, so that it is not found out by the first checkpoint.
                to_json(&self.id, "position", &reader.position(), &mut self.shapes.1)?;
                self.reader = Reader::Open(reader);
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
        if progress == Progress::Idle && buffer.records.is_empty() {
            let now = wall_clock::now();
            self.idle = Some((self.idle.map_or(now, |(since, _)| since), now));
        } else {
            self.idle = None;
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

    /// What goes into the checkpoint.
    pub(crate) fn checkpoint(&mut self, checkpoint: CheckpointId) -> Result<SplitPart> {
        let (position, finished) = (self.position(), self.is_finished());
        let (id, shapes) = (&self.id, &mut self.shapes);
        let mut part = SplitPart {
            id: id.clone(),
            split: to_json(id, "description", &self.description, &mut shapes.0)?,
            position: position.as_ref().map(|at| to_json(id, "position", at, &mut shapes.1)).transpose()?,
            finished,
            max_event_time_ms: self.latest,
        };
        let position = if crate::crash::bug("positions_late") {
            let before = self.undecided.back().map(|(_, before)| before.clone());
            part.position = before.map(|at| to_json(id, "position", &at, &mut shapes.1)).transpose()?;
            part.finished = false;
            position
        } else {
            position
        };
        if let (Reader::Open(_), Some(position)) = (&self.reader, position) {
            self.undecided.push_back((checkpoint, position));
            if self.undecided.len() > NOTICES {
                self.undecided.pop_front();
            }
        }
        Ok(part)
    }

    /// Tells the reader that a checkpoint is decided.
    pub(crate) fn decided(&mut self, checkpoint: CheckpointId) {
        let mut newest = None;
        while self.undecided.front().is_some_and(|(id, _)| *id <= checkpoint) {
            newest = self.undecided.pop_front();
        }
        if let (Reader::Open(reader), Some((_, position))) = (&mut self.reader, newest) {
            reader.decided(&position);
        }
    }

    /// Event time of an instance: the lowest of its splits that are neither at their end nor idle. A
    /// split that waits to be opened holds everything back: its records are still to come.
    pub(crate) fn combined(splits: &mut [Self], policy: &EventTimePolicy, discovering: bool) -> Status {
        let mut lowest: Option<i64> = None;
        let (mut silent, mut idle) = (false, false);
        for split in splits {
            if split.is_finished() {
                continue;
            }
            let idle_for = split.idle.map(|(since, last)| last - since);
            if idle_for >= policy.idle_after && idle_for.is_some() && policy.idle_after.is_some() {
                idle = true;
                continue;
            }
            match split.latest {
                None => silent = true,
                Some(latest) => lowest = Some(lowest.map_or(latest, |l| l.min(latest))),
            }
        }
        match lowest {
            _ if silent => Status::Silent,
            Some(lowest) => Status::Active(lowest),
            None if idle || discovering => Status::Idle,
            None => Status::Ended,
        }
    }
}
