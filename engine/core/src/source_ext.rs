//! What every source can be told: event time, what to do with bad input, a rate. These are options of the step
//! that reads, not of the source: a source knows none of them.

use crate::error::{Error, Result};
use crate::source::{BadInput, Source};
use crate::time::{EventTimePolicy, Timestamp};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Appends the event time of each record of a batch, in milliseconds since the Unix epoch.
type Assign<T> = Arc<dyn Fn(&[T], &mut Vec<i64>) + Send + Sync>;

/// Options of a step that reads records of type `T`; made by the methods of [`SourceExt`].
pub struct Options<T> {
    pub(crate) event_time: Option<(Assign<T>, Duration)>,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) bad_input: BadInput,
    /// Most records a second that one instance (worker) reads; `None` for no limit.
    pub(crate) rate: Option<u64>,
}

impl<T> Default for Options<T> {
    fn default() -> Self {
        Self { event_time: None, idle_after: None, bad_input: BadInput::default(), rate: None }
    }
}

impl<T> Clone for Options<T> {
    fn clone(&self) -> Self {
        let Self { event_time, idle_after, bad_input, rate } = self;
        Self { event_time: event_time.clone(), idle_after: *idle_after, bad_input: *bad_input, rate: *rate }
    }
}

impl<T> fmt::Debug for Options<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("event_time", &self.policy())
            .field("bad_input", &self.bad_input)
            .field("rate", &self.rate)
            .finish()
    }
}

impl<T> Options<T> {
    /// The rule for event time, if the records have one.
    pub(crate) fn policy(&self) -> Option<EventTimePolicy> {
        let (_, lateness) = self.event_time.as_ref()?;
        Some(EventTimePolicy { lateness: *lateness, idle_after: self.idle_after })
    }

    /// What is wrong with them, for the source of this name.
    pub(crate) fn check(&self, name: &str, dead_letters: bool) -> Result<()> {
        if self.idle_after.is_some() && self.event_time.is_none() {
            return Err(Error::job(format!(
                "source `{name}` has .idle_after(..) and no event time; give it one with .event_time(|record| ..., lateness)"
            )));
        }
        if self.bad_input == BadInput::DeadLetter && !dead_letters {
            return Err(Error::job(format!(
                "source `{name}` sends bad input to its dead letters, but they go nowhere; use job.source_with_dead_letters"
            )));
        }
        Ok(())
    }
}

/// Options that work on any source. Each returns the source with the option.
pub trait SourceExt: Source + Sized {
    /// Gives every record an event time. A record may be up to `lateness` earlier than the latest one
    /// of its split before it counts as late.
    fn event_time<F, T>(self, time: F, lateness: Duration) -> Configured<Self>
    where
        F: Fn(&Self::Record) -> T + Send + Sync + 'static,
        T: Into<Timestamp>,
    {
        Configured::new(self).event_time(time, lateness)
    }

    /// What happens to input that cannot be understood; the default is [`BadInput::Fail`].
    fn on_bad_input(self, policy: BadInput) -> Configured<Self> {
        Configured::new(self).on_bad_input(policy)
    }

    /// Reads at most `records_per_second` on each worker; `None` for no limit.
    fn limit_rate(self, records_per_second: Option<u64>) -> Configured<Self> {
        Configured::new(self).limit_rate(records_per_second)
    }
}

impl<S: Source> SourceExt for S {}

/// A source with options; made by [`SourceExt`].
pub struct Configured<S: Source> {
    source: S,
    options: Options<S::Record>,
}

impl<S: Source + Clone> Clone for Configured<S> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), options: self.options.clone() }
    }
}

impl<S: Source + fmt::Debug> fmt::Debug for Configured<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, options } = self;
        f.debug_struct("Configured").field("source", source).field("options", options).finish()
    }
}

impl<S: Source> Configured<S> {
    fn new(source: S) -> Self {
        Self { source, options: Options::default() }
    }

    /// See [`SourceExt::event_time`].
    #[must_use]
    pub fn event_time<F, T>(mut self, time: F, lateness: Duration) -> Self
    where
        F: Fn(&S::Record) -> T + Send + Sync + 'static,
        T: Into<Timestamp>,
    {
        let assign = move |records: &[S::Record], times: &mut Vec<i64>| {
            times.extend(records.iter().map(|record| time(record).into().as_millis()));
        };
        self.options.event_time = Some((Arc::new(assign), lateness));
        self
    }

    /// A split that yields nothing for this long no longer holds the watermark back. Records that then
    /// turn up in it may be late. When the last active split becomes idle, the watermark goes to the highest
    /// event time that any split had.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.options.idle_after = Some(idle);
        self
    }

    /// See [`SourceExt::on_bad_input`].
    #[must_use]
    pub fn on_bad_input(mut self, policy: BadInput) -> Self {
        self.options.bad_input = policy;
        self
    }

    /// See [`SourceExt::limit_rate`].
    #[must_use]
    pub fn limit_rate(mut self, records_per_second: Option<u64>) -> Self {
        self.options.rate = records_per_second;
        self
    }
}

/// What [`Job::source`](crate::Job::source) takes: a source, or one with options.
pub trait IntoSource {
    /// What it yields.
    type Record: Send + 'static;
    /// The source.
    type Source: Source<Record = Self::Record>;

    /// The source, and its options.
    fn into_parts(self) -> (Self::Source, Options<Self::Record>);
}

impl<S: Source> IntoSource for S {
    type Record = S::Record;
    type Source = S;

    fn into_parts(self) -> (S, Options<S::Record>) {
        (self, Options::default())
    }
}

impl<S: Source> IntoSource for Configured<S> {
    type Record = S::Record;
    type Source = S;

    fn into_parts(self) -> (S, Options<S::Record>) {
        (self.source, self.options)
    }
}
