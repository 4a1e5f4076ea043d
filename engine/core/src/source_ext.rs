//! What every source can be told: event time, what to do with bad input, a rate.

use crate::error::Result;
use crate::source::{BadInput, Source};
use crate::time::{EventTimePolicy, Timestamp};
use std::time::Duration;

/// Settings that work on any source. Each returns a new description.
pub trait SourceExt: Source + Sized {
    /// Gives every record an event time. A record may be up to `lateness` earlier than the latest one
    /// of its split before it counts as late.
    fn event_time<F, T>(self, time: F, lateness: Duration) -> EventTimed<Self, F>
    where
        F: Fn(&Self::Record) -> T + Send + Sync + 'static,
        T: Into<Timestamp>,
    {
        EventTimed { source: self, time, policy: EventTimePolicy { lateness, idle_after: None } }
    }

    /// What happens to input that cannot be understood; the default is [`BadInput::Fail`].
    fn on_bad_input(self, policy: BadInput) -> Tuned<Self> {
        Tuned { bad_input: policy, rate: self.rate(), source: self }
    }

    /// Reads at most `records_per_second` on each worker; `None` for no limit.
    fn limit_rate(self, records_per_second: Option<u64>) -> Tuned<Self> {
        Tuned { bad_input: self.bad_input(), rate: records_per_second, source: self }
    }
}

impl<S: Source> SourceExt for S {}

/// A source whose records have an event time; made by [`SourceExt::event_time`].
#[derive(Clone, Debug)]
pub struct EventTimed<S, F> {
    source: S,
    time: F,
    policy: EventTimePolicy,
}

impl<S, F> EventTimed<S, F> {
    /// A split that yields nothing for this long no longer holds the watermark back. Records that then
    /// turn up in it may be late.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.policy.idle_after = Some(idle);
        self
    }
}

impl<S, F, T> Source for EventTimed<S, F>
where
    S: Source,
    F: Fn(&S::Record) -> T + Send + Sync + 'static,
    T: Into<Timestamp>,
{
    type Record = S::Record;
    type Split = S::Split;
    type Position = S::Position;
    type Reader = S::Reader;

    async fn splits(&self) -> Result<Vec<(String, Self::Split)>> {
        self.source.splits().await
    }

    fn discover_every(&self) -> Option<Duration> {
        self.source.discover_every()
    }

    async fn open(&self, split: Self::Split, at: Option<Self::Position>) -> Result<Self::Reader> {
        self.source.open(split, at).await
    }

    fn event_time_policy(&self) -> Option<EventTimePolicy> {
        Some(self.policy)
    }

    fn assign(&self, records: &[Self::Record], times: &mut Vec<i64>) {
        times.extend(records.iter().map(|record| (self.time)(record).into().as_millis()));
    }

    fn bad_input(&self) -> BadInput {
        self.source.bad_input()
    }

    fn rate(&self) -> Option<u64> {
        self.source.rate()
    }
}

/// A source with another policy for bad input or another rate.
#[derive(Clone, Debug)]
pub struct Tuned<S> {
    source: S,
    bad_input: BadInput,
    rate: Option<u64>,
}

impl<S: Source> Source for Tuned<S> {
    type Record = S::Record;
    type Split = S::Split;
    type Position = S::Position;
    type Reader = S::Reader;

    async fn splits(&self) -> Result<Vec<(String, Self::Split)>> {
        self.source.splits().await
    }

    fn discover_every(&self) -> Option<Duration> {
        self.source.discover_every()
    }

    async fn open(&self, split: Self::Split, at: Option<Self::Position>) -> Result<Self::Reader> {
        self.source.open(split, at).await
    }

    fn event_time_policy(&self) -> Option<EventTimePolicy> {
        self.source.event_time_policy()
    }

    fn assign(&self, records: &[Self::Record], times: &mut Vec<i64>) {
        self.source.assign(records, times);
    }

    fn bad_input(&self) -> BadInput {
        self.bad_input
    }

    fn rate(&self) -> Option<u64> {
        self.rate
    }
}
