//! A job under construction: the handle that the job's program gets.

use crate::error::{Error, Result};
use crate::plan::{NodeId, Plan, What};
use crate::runtime::{self, Site};
use crate::sink::Sink;
use crate::source::{DeadLetter, Source};
use crate::source_ext::{IntoSource, Options};
use crate::stream::Stream;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// A handle on the graph of a job while its program builds it.
///
/// The program runs once to check the plan, and then once on each worker; it must build the same graph
/// each time.
#[derive(Clone)]
pub struct Job<'s> {
    pub(crate) site: Site<'s>,
    graph: Rc<RefCell<Graph>>,
}

#[derive(Default)]
struct Graph {
    plan: Plan,
    /// The first thing that is wrong with the graph.
    wrong: Option<Error>,
    /// What takes the place of sources and sinks, by name; each is taken out when it is used.
    #[cfg(feature = "simulation")]
    doubles: crate::doubles::Doubles,
}

impl<'s> Job<'s> {
    pub(crate) fn new(site: Site<'s>) -> Self {
        Self { site, graph: Rc::default() }
    }

    /// Adds a source. Its name finds its positions in checkpoints, so keep it.
    pub fn source<S: IntoSource>(&self, name: &str, source: S) -> Stream<'s, S::Record> {
        self.add_source(name, source, false).0
    }

    /// Adds a source together with the stream of its dead letters: input that could not be understood.
    /// They are part of the same checkpoints as the records. Sets the policy to
    /// [`BadInput::DeadLetter`](crate::source::BadInput::DeadLetter).
    pub fn source_with_dead_letters<S: IntoSource>(
        &self,
        name: &str,
        source: S,
    ) -> (Stream<'s, S::Record>, Stream<'s, DeadLetter>) {
        let (records, letters) = self.add_source(name, source, true);
        let node = self.add(What::Side { output: "dead letters".to_owned() }, vec![records.node()], false);
        (records, Stream::new(self.clone(), letters, None, node))
    }

    fn add_source<S: IntoSource>(
        &self,
        name: &str,
        source: S,
        dead_letters: bool,
    ) -> (Stream<'s, S::Record>, runtime::Flow<'s, DeadLetter>) {
        let (source, options) = source.into_parts();
        if let Err(wrong) = options.check(name, dead_letters) {
            self.refuse(wrong);
        }
        let timed = options.event_time.is_some();
        let node = self.add(What::Source { name: name.to_owned() }, vec![], timed);
        let flows = self.open_source(name, node as u32, source, options, dead_letters);
        (Stream::new(self.clone(), flows.records, flows.marks, node), flows.letters)
    }

    fn open_source<S: Source>(
        &self,
        name: &str,
        number: u32,
        source: S,
        options: Options<S::Record>,
        dead_letters: bool,
    ) -> runtime::SourceFlows<'s, S::Record> {
        #[cfg(feature = "simulation")]
        if let Some(add) = self.double(|doubles| doubles.take_source::<S::Record>(name)) {
            return add(&self.site, name, number, options, dead_letters);
        }
        runtime::source(&self.site, name, number, Arc::new(source), options, dead_letters)
    }

    pub(crate) fn open_sink<S: Sink>(&self, flow: runtime::Flow<'s, S::Record>, name: &str, sink: S) {
        #[cfg(feature = "simulation")]
        if let Some(add) = self.double(|doubles| doubles.take_sink::<S::Record>(name)) {
            return add(&self.site, flow, name);
        }
        runtime::sink(&self.site, flow, name, Arc::new(sink));
    }

    /// From now on these take the places of sources and sinks. For tests.
    #[cfg(feature = "simulation")]
    pub fn use_doubles(&self, doubles: crate::doubles::Doubles) {
        self.graph.borrow_mut().doubles = doubles;
    }

    #[cfg(feature = "simulation")]
    fn double<A>(&self, take: impl FnOnce(&mut crate::doubles::Doubles) -> Result<Option<A>>) -> Option<A> {
        let taken = take(&mut self.graph.borrow_mut().doubles);
        taken.unwrap_or_else(|wrong| {
            self.refuse(wrong);
            None
        })
    }

    pub(crate) fn add(&self, what: What, inputs: Vec<NodeId>, event_time: bool) -> NodeId {
        let plan = &mut self.graph.borrow_mut().plan;
        let id = plan.add(what, inputs, event_time);
        self.site.note(plan, &plan.nodes[id]);
        id
    }

    /// Notes that something is wrong with the graph; the first one is reported.
    pub(crate) fn refuse(&self, error: Error) {
        self.graph.borrow_mut().wrong.get_or_insert(error);
    }

    /// As [`Job::refuse`], of a step that has a name.
    pub(crate) fn refuse_at(&self, node: NodeId, error: Error) {
        let name = self.graph.borrow().plan.nodes[node].name().map(str::to_owned);
        self.refuse(match name {
            Some(name) => error.in_step(name),
            None => error,
        });
    }

    /// Refuses a step that needs event time where there is none.
    pub(crate) fn require_event_time(&self, step: &str, input: NodeId) {
        let graph = self.graph.borrow();
        if graph.plan.nodes[input].event_time {
            return;
        }
        let quoted = |names: BTreeSet<&str>| {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let (sources, steps) = graph.plan.without_event_time(input);
        let message = if sources.is_empty() {
            let steps = quoted(steps);
            format!(
                "`{step}` needs event time, and {steps} before it passes none on; put the step that needs it first"
            )
        } else {
            let (noun, verb) = if sources.len() == 1 { ("source", "assigns") } else { ("sources", "assign") };
            let sources = quoted(sources);
            format!(
                "`{step}` needs event time, and its {noun} {sources} {verb} none; give it one with .event_time(|record| ..., lateness)"
            )
        };
        drop(graph);
        self.refuse(Error::job(message));
    }

    /// The finished plan.
    pub(crate) fn finish(&self) -> Result<Plan> {
        let mut graph = self.graph.borrow_mut();
        if let Some(error) = graph.wrong.take() {
            return Err(error);
        }
        graph.plan.check()?;
        #[cfg(feature = "simulation")]
        graph.doubles.check_used()?;
        Ok(graph.plan.clone())
    }
}
