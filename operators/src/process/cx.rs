//! What a process has at hand during one call.

use super::timers::{Timers, USER};
use staunch_core::step::{Moment, Side, StepCx};
use staunch_core::{Error, Result, StateKey, Timestamp};

/// The key and the time of one call of a [`Process`](super::Process), its output and its timers.
pub struct Cx<'a, K, O> {
    pub(super) key: &'a K,
    pub(super) hash: u64,
    /// Event time of the record, or of the timer.
    pub(super) time: Timestamp,
    /// Whether there is event time at all.
    pub(super) timed: bool,
    pub(super) step: &'a mut StepCx<O>,
    pub(super) timers: &'a mut Timers<K>,
}

impl<K: StateKey, O> Cx<'_, K, O> {
    /// The key of the record or timer.
    pub fn key(&self) -> &K {
        self.key
    }

    /// The event time of the record, or the time of the timer; [`Timestamp::MIN`] on a stream without event time.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// No record at or before this moment is still to come, except late ones.
    pub fn watermark(&self) -> Timestamp {
        self.step.watermark()
    }

    /// Whether the record came behind the watermark.
    pub fn is_late(&self) -> bool {
        self.timed && self.time <= self.watermark()
    }

    /// Counts the record as late, in the metric `late_records_total`.
    pub fn count_late(&mut self) {
        self.step.count_late(1);
    }

    /// Puts out a record. It has the event time of this call.
    pub fn emit(&mut self, record: O) {
        self.step.emit_at(record, self.time.as_millis());
    }

    /// Puts out a record with another event time. One at or before the watermark is late for what comes behind.
    pub fn emit_at(&mut self, record: O, time: Timestamp) {
        self.step.emit_at(record, time.as_millis());
    }

    /// Sets a timer for the key: [`Process::timer`](super::Process::timer) is called when the watermark reaches it, or
    /// soon, if it has. A time that is set twice is one timer.
    ///
    /// # Errors
    /// The stream has no event time, or the state cannot be written.
    pub fn set_timer(&mut self, at: Moment) -> Result<()> {
        let time = self.event_time(at)?;
        self.timers.set(self.hash, self.key, (time, USER), self.step)
    }

    /// Deletes a timer of the key, if it is set.
    ///
    /// # Errors
    /// As [`Cx::set_timer`].
    pub fn delete_timer(&mut self, at: Moment) -> Result<()> {
        let time = self.event_time(at)?;
        self.timers.delete(self.hash, self.key, (time, USER))
    }

    fn event_time(&self, at: Moment) -> Result<i64> {
        match at {
            Moment::EventTime(time) if self.timed => Ok(time.as_millis()),
            Moment::EventTime(_) => Err(Error::job(
                "a timer on event time needs a stream that has it: give the source one with .event_time(|record| ..., \
                 lateness), and the process the property needs_event_time",
            )),
            _ => Err(Error::internal("a timer on a clock that there is not")),
        }
    }
}

/// A side output of a process.
pub struct SideOutput<T>(Side<T>);

impl<T> SideOutput<T> {
    pub(super) fn new(side: Side<T>) -> Self {
        Self(side)
    }

    /// Puts out a record. It has the event time of this call.
    pub fn emit<K: StateKey, O>(&self, cx: &Cx<'_, K, O>, record: T) {
        self.0.emit_at(record, cx.time.as_millis());
    }
}
