//! Streams and the stateless verbs.

use crate::batch::Batch;
use crate::error::Error;
use crate::job::Job;
use crate::plan::{NodeId, What};
use crate::runtime::{self, Flow, Marks, SideFlow, Stateful, TableSettings};
use crate::sink::Sink;
use crate::step::{Declare, Declared, Step};
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_state::StateKey;
use std::any::TypeId;

/// A stream of records in a job under construction. It is used up by the verb that is applied to it; to
/// use it twice, `clone()` it, which needs records that can be cloned.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct Stream<'s, T> {
    job: Job<'s>,
    flow: Flow<'s, T>,
    marks: Option<Marks<'s>>,
    node: NodeId,
}

impl<T: Clone + 'static> Clone for Stream<'_, T> {
    fn clone(&self) -> Self {
        Self { job: self.job.clone(), flow: self.flow.clone(), marks: self.marks.clone(), node: self.node }
    }
}

impl<'s, T: 'static> Stream<'s, T> {
    pub(crate) fn new(job: Job<'s>, flow: Flow<'s, T>, marks: Option<Marks<'s>>, node: NodeId) -> Self {
        Self { job, flow, marks, node }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    fn timed(&self) -> bool {
        self.marks.is_some()
    }

    /// Adds a stateless step whose output has the event times of its input.
    fn each<U: 'static>(
        self,
        verb: &'static str,
        logic: impl FnMut(Batch<T>, &mut runtime::Emitter<'_, U>) + 'static,
    ) -> Stream<'s, U> {
        let timed = self.timed();
        let node = self.job.add(What::Stateless { verb }, vec![self.node], timed);
        let flow = runtime::each_batch(&self.job.site, self.flow, verb, timed, logic);
        Stream::new(self.job, flow, self.marks, node)
    }

    /// Turns each record into another.
    pub fn map<U: 'static>(self, f: impl Fn(T) -> U + 'static) -> Stream<'s, U> {
        self.each("map", move |batch, out| {
            out.batch.items.extend(batch.items.into_iter().map(&f));
            out.batch.times = batch.times;
        })
    }

    /// Keeps the records for which `keep` is true.
    pub fn filter(self, keep: impl Fn(&T) -> bool + 'static) -> Stream<'s, T> {
        self.each("filter", move |mut batch, out| {
            let mut times = batch.times.drain(..);
            for item in batch.items.drain(..) {
                let time = times.next();
                if keep(&item) {
                    out.batch.items.push(item);
                    out.batch.times.extend(time);
                }
            }
        })
    }

    /// Turns each record into any number of others; they inherit its event time.
    pub fn flat_map<I>(self, f: impl Fn(T) -> I + 'static) -> Stream<'s, I::Item>
    where
        I: IntoIterator,
        I::Item: 'static,
    {
        self.each("flat_map", move |mut batch, out| {
            let mut times = batch.times.drain(..);
            for item in batch.items.drain(..) {
                let time = times.next();
                for made in f(item) {
                    out.batch.items.push(made);
                    out.batch.times.extend(time);
                    out.ship_if_full();
                }
            }
        })
    }

    /// Looks at each record as it passes. For logs and debugging: after a crash records pass again.
    pub fn inspect(self, f: impl Fn(&T) + 'static) -> Stream<'s, T> {
        self.each("inspect", move |batch, out| {
            batch.items.iter().for_each(&f);
            out.batch = batch;
        })
    }

    /// The records of this stream and of another, in no order between the two. It has event time if
    /// both have, and then the lower of their watermarks.
    pub fn union(self, other: Stream<'s, T>) -> Stream<'s, T> {
        let (mut one, mut other) = (self, other);
        if one.timed() != other.timed() {
            (one, other) = (one.without_times(), other.without_times());
        }
        let marks = match (one.marks, other.marks) {
            (Some(one), Some(other)) => Some(one.union(other)),
            _ => None,
        };
        let what = What::Stateless { verb: "union" };
        let node = one.job.add(what, vec![one.node, other.node], marks.is_some());
        Stream::new(one.job, runtime::union(one.flow, other.flow), marks, node)
    }

    /// The same records without event times, before they come among others that have none: a batch has a time for
    /// each record, or for none.
    fn without_times(self) -> Stream<'s, T> {
        if !self.timed() {
            return self;
        }
        let flow = runtime::each_batch(&self.job.site, self.flow, "union", false, |mut batch, out| {
            batch.times.clear();
            out.batch = batch;
        });
        Stream::new(self.job, flow, None, self.node)
    }

    /// Gives each record a key: what follows keeps state by key, and runs for each key on one worker.
    ///
    /// Keys that are equal must hash and serialise the same in every build that uses the same
    /// checkpoints.
    pub fn key_by<K: StateKey, F: Fn(&T) -> K + 'static>(self, key: F) -> Keyed<'s, T, F> {
        Keyed { stream: self, key }
    }
}

impl<'s, T: Send + 'static> Stream<'s, T> {
    /// Ends the stream in a sink. Its name finds its prepared output in checkpoints and its marks at the
    /// target, so keep it.
    pub fn sink<S: Sink<Record = T>>(self, name: &str, sink: S) {
        let what = What::Sink { name: name.to_owned(), guarantee: sink.guarantee() };
        self.job.add(what, vec![self.node], false);
        self.job.open_sink(self.flow, name, sink);
    }
}

/// A stream whose records have a key. Operators for it (`count`, `fold`, `window`, ...) come with the
/// prelude; [`Keyed::step`] is the contract under all of them.
#[must_use = "a keyed stream does nothing until an operator is applied to it"]
pub struct Keyed<'s, T, F> {
    stream: Stream<'s, T>,
    key: F,
}

/// What a step puts out: its main output, and those on the side.
#[must_use = "a step does nothing until its output ends in a sink"]
pub struct StepOutputs<'s, O> {
    /// The main output.
    pub main: Stream<'s, O>,
    sides: SideFlow<'s>,
    marks: Option<Marks<'s>>,
    /// Names and types of records; without a type once it was taken.
    declared: Vec<(String, Option<TypeId>)>,
}

impl<'s, O: 'static> StepOutputs<'s, O> {
    /// The side output that the step declared under this name, for records of this type.
    pub fn side<T: 'static>(&mut self, name: &str) -> Stream<'s, T> {
        let job = self.main.job.clone();
        let step = self.main.node;
        let found = self.declared.iter().position(|(side, _)| side == name);
        let wrong = match found.map(|at| self.declared[at].1.take()) {
            None => Some("which it does not have"),
            Some(None) => Some("which was taken already; clone the stream"),
            Some(Some(record)) if record != TypeId::of::<T>() => Some("which has records of another type"),
            Some(Some(_)) => None,
        };
        if let Some(wrong) = wrong {
            job.refuse_at(step, Error::job(format!("side output `{name}`, {wrong}")));
        }
        let node = job.add(What::Side { output: name.to_owned() }, vec![step], self.marks.is_some());
        let flow = self.sides.pick(name, found.unwrap_or(usize::MAX));
        Stream::new(job, flow, self.marks.clone(), node)
    }
}

impl<'s, T, K, F> Keyed<'s, T, F>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    K: StateKey,
    F: Fn(&T) -> K + 'static,
{
    /// Adds a stateful step, made by `make`. The name finds its state in checkpoints, so keep it.
    pub fn step<S: Step<K, T>>(
        self,
        name: &str,
        make: impl FnOnce(&mut Declare<K>) -> S,
    ) -> StepOutputs<'s, S::Out> {
        self.step_of(name, |record| record, make)
    }
}

impl<'s, T, K, F> Keyed<'s, T, F>
where
    T: 'static,
    K: StateKey,
    F: Fn(&T) -> K + 'static,
{
    /// As [`Keyed::step`]; `value` says what of each record travels to the worker that owns its key.
    pub fn step_of<V, S>(
        self,
        name: &str,
        value: impl Fn(T) -> V + 'static,
        make: impl FnOnce(&mut Declare<K>) -> S,
    ) -> StepOutputs<'s, S::Out>
    where
        V: Serialize + DeserializeOwned + Send + 'static,
        S: Step<K, V>,
    {
        let Keyed { stream, key } = self;
        let job = stream.job.clone();
        let mut declare = Declare::new(name, TableSettings::of_site(&job.site));
        let step = make(&mut declare);
        let Declared { tables, sides, wrong } = declare.declared;
        if let Some(wrong) = wrong {
            job.refuse(wrong);
        }
        let properties = step.properties();
        if properties.needs_event_time {
            job.require_event_time(name, stream.node);
        }
        let what = What::Stateful {
            name: name.to_owned(),
            operator: properties.operator,
            parameters: properties.parameters.clone(),
            schemas: tables.iter().map(|table| (table.name.clone(), table.schema.clone())).collect(),
        };
        let emits_time = properties.emits_event_time && stream.timed();
        let node = job.add(what, vec![stream.node], emits_time);
        let marks = stream.marks.clone();
        let declared = sides.iter().map(|side| (side.name.clone(), Some(side.record))).collect();
        let keyed = runtime::keyed(&job.site, stream.flow, key, value);
        let stateful = Stateful { name: name.to_owned(), properties, step, tables, sides };
        let (main, sides) = runtime::stateful(&job.site, keyed, stream.marks, stateful);
        let main = Stream::new(job, main, if emits_time { marks.clone() } else { None }, node);
        StepOutputs { main, sides, marks, declared }
    }

    /// Notes that something is wrong with how the operator is used; reported before anything runs.
    pub fn refuse(&self, message: impl Into<String>) {
        self.stream.job.refuse(Error::job(message));
    }
}
