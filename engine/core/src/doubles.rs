//! Test doubles: sources and sinks that take the place of a job's own, found by the names of their steps.
//!
//! The job's program stays as it is, and so do the options of its sources: which event time a record has, what
//! happens to bad input. For the crate `staunch-testing`.

use crate::error::{Error, Result};
use crate::runtime::{self, Flow, Site, SourceFlows};
use crate::sink::Sink;
use crate::source::Source;
use crate::source_ext::Options;
use std::any::{Any, type_name};
use std::collections::BTreeMap;
use std::sync::Arc;

type AddSink<T> = Arc<dyn for<'s> Fn(&Site<'s>, Flow<'s, T>, &str) + Send + Sync>;
type AddSource<T> =
    Arc<dyn for<'s> Fn(&Site<'s>, &str, u32, Options<T>, bool) -> SourceFlows<'s, T> + Send + Sync>;

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
        let add: AddSource<D::Record> = Arc::new(move |site, name, number, options, dead_letters| {
            // A rate is for the outside that the double stands for.
            let options = Options { rate: None, ..options };
            runtime::source(site, name, number, Arc::clone(&double), options, dead_letters)
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
