//! Test doubles: sources and sinks that take the place of a job's own, found by the names of their steps.
//!
//! The job's program stays as it is; its own source still says which event time a record has. For the crate
//! `staunch-testing`.

use crate::error::{Error, Result};
use crate::runtime::{self, Flow, Site, SourceFlows};
use crate::sink::Sink;
use crate::source::{BadInput, Source};
use crate::time::EventTimePolicy;
use std::any::{Any, type_name};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type AddSink<T> = Arc<dyn for<'s> Fn(&Site<'s>, Flow<'s, T>, &str) + Send + Sync>;
type AddSource<T> =
    Arc<dyn for<'s> Fn(&Site<'s>, &str, u32, Timing<T>, bool) -> SourceFlows<'s, T> + Send + Sync>;

/// Doubles by the names of the steps whose place they take.
#[derive(Clone, Default)]
pub struct Doubles {
    sources: BTreeMap<String, Double>,
    sinks: BTreeMap<String, Double>,
}

#[derive(Clone)]
struct Double {
    add: Arc<dyn Any + Send + Sync>,
    record: &'static str,
}

impl Doubles {
    /// This source takes the place of the job's source of this name.
    pub fn source<D: Source>(&mut self, name: &str, double: D) {
        let double = Arc::new(double);
        let add: AddSource<D::Record> = Arc::new(move |site, name, number, timing, dead_letters| {
            let timed = Timed { double: Arc::clone(&double), timing };
            runtime::source(site, name, number, Arc::new(timed), dead_letters)
        });
        let record = type_name::<D::Record>();
        self.sources.insert(name.to_owned(), Double { add: Arc::new(add), record });
    }

    /// This sink takes the place of the job's sink of this name.
    pub fn sink<D: Sink>(&mut self, name: &str, double: D) {
        let double = Arc::new(double);
        let add: AddSink<D::Record> =
            Arc::new(move |site, flow, name| runtime::sink(site, flow, name, Arc::clone(&double)));
        let record = type_name::<D::Record>();
        self.sinks.insert(name.to_owned(), Double { add: Arc::new(add), record });
    }

    pub(crate) fn take_source<T: 'static>(&mut self, name: &str) -> Result<Option<AddSource<T>>> {
        self.sources.remove(name).map(|double| double.add::<AddSource<T>, T>("source", name)).transpose()
    }

    pub(crate) fn take_sink<T: 'static>(&mut self, name: &str) -> Result<Option<AddSink<T>>> {
        self.sinks.remove(name).map(|double| double.add::<AddSink<T>, T>("sink", name)).transpose()
    }

    /// Whether each has found its place.
    pub(crate) fn check_used(&self) -> Result<()> {
        let (what, name) = match (self.sources.keys().next(), self.sinks.keys().next()) {
            (Some(name), _) => ("source", name),
            (None, Some(name)) => ("sink", name),
            (None, None) => return Ok(()),
        };
        Err(Error::job(format!("the test stands in for a {what} `{name}`, which this job does not have")))
    }
}

impl Double {
    fn add<A: Clone + 'static, T>(&self, what: &str, name: &str) -> Result<A> {
        self.add.downcast_ref::<A>().cloned().ok_or_else(|| {
            Error::job(format!(
                "the test stands in for the {what} `{name}` with records of type {}, but they are {}",
                self.record,
                type_name::<T>()
            ))
        })
    }
}

/// How the source whose place is taken assigns event time, and what it does with bad input.
pub(crate) struct Timing<T> {
    policy: Option<EventTimePolicy>,
    assign: Arc<dyn Fn(&[T], &mut Vec<i64>) + Send + Sync>,
    bad_input: BadInput,
}

impl<T: 'static> Timing<T> {
    pub(crate) fn of<S: Source<Record = T>>(original: S) -> Self {
        let (policy, bad_input) = (original.event_time_policy(), original.bad_input());
        Self { policy, assign: Arc::new(move |records, times| original.assign(records, times)), bad_input }
    }
}

/// A double with the event time of the original.
struct Timed<D: Source> {
    double: Arc<D>,
    timing: Timing<D::Record>,
}

impl<D: Source> Source for Timed<D> {
    type Record = D::Record;
    type Split = D::Split;
    type Position = D::Position;
    type Reader = D::Reader;

    async fn splits(&self) -> Result<Vec<(String, Self::Split)>> {
        self.double.splits().await
    }

    fn discover_every(&self) -> Option<Duration> {
        self.double.discover_every()
    }

    async fn open(&self, split: Self::Split, at: Option<Self::Position>) -> Result<Self::Reader> {
        self.double.open(split, at).await
    }

    fn event_time_policy(&self) -> Option<EventTimePolicy> {
        self.timing.policy
    }

    fn assign(&self, records: &[Self::Record], times: &mut Vec<i64>) {
        (self.timing.assign)(records, times);
    }

    fn bad_input(&self) -> BadInput {
        self.timing.bad_input
    }
}
