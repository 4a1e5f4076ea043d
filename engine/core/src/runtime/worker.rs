//! Where a graph is being built: on a live worker, or only to check the plan. And what a live one does.

use super::committing::CommitterFactory;
use super::shared::Shared;
use super::splits::Enumerator;
use super::tick::{Tick, tick};
use crate::error::Result;
use crate::job::Job;
use staunch_state::{Assignment, Groups};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use timely::dataflow::Scope;
use timely::dataflow::operators::probe::Handle;
use timely::scheduling::Activator;
use timely::worker::Worker;

/// Where steps are added.
#[derive(Clone)]
pub(crate) struct Site<'s> {
    pub(crate) scope: Scope<'s, Tick>,
    /// The worker, unless the graph is only being checked.
    pub(crate) live: Option<Rc<WorkerContext>>,
    /// What the rest of the process must know of the steps, whatever their types.
    pub(crate) registry: Rc<RefCell<Registry>>,
}

/// The parts of a job that take part in checkpoints.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) sources: Vec<Enumerator>,
    /// Name and schema.
    pub(crate) states: Vec<(String, String)>,
    pub(crate) sinks: Vec<CommitterFactory>,
}

pub(crate) struct WorkerContext {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) peers: usize,
    /// Sees all sinks: which steps of progress are over.
    pub(crate) probe: Handle<Tick>,
    /// Sources, to be scheduled when the clock moves.
    pub(crate) sources: RefCell<Vec<Activator>>,
}

impl Site<'_> {
    pub(crate) fn routing(&self) -> (Arc<Assignment>, Groups) {
        match &self.live {
            Some(worker) => (Arc::clone(&worker.shared.assignment), worker.shared.groups),
            None => (Arc::new(Assignment::even(Groups::new(1), 1)), Groups::new(1)),
        }
    }

    pub(crate) fn register_state(&self, name: &str, schema: String) {
        if self.live.is_none() {
            self.registry.borrow_mut().states.push((name.to_owned(), schema));
        }
    }
}

/// Builds the graph on a live worker. If it cannot be built, the job fails, and the worker has only to
/// wait for its end.
pub(crate) fn start_worker<B>(build: &B, worker: &mut Worker, shared: &Arc<Shared>) -> Turns
where
    B: for<'s> Fn(&Job<'s>) -> Result<()>,
{
    shared.clock.register_worker();
    crate::crash::this_thread_is_worker(worker.index() as u32);
    let context = Rc::new(WorkerContext {
        shared: Arc::clone(shared),
        index: worker.index(),
        peers: worker.peers(),
        probe: Handle::new(),
        sources: RefCell::default(),
    });
    let built = worker.dataflow::<Tick, _, _>(|scope| {
        let site = Site { scope, live: Some(Rc::clone(&context)), registry: Rc::default() };
        let job = Job::new(site);
        build(&job)?;
        job.finish()
    });
    let is_built = built.map_err(|error| shared.fail(error)).is_ok();
    Turns { context, is_built, seen: tick(0, 0), decided: 0 }
}

/// What a worker looks after between two turns of its dataflow.
pub(crate) struct Turns {
    context: Rc<WorkerContext>,
    is_built: bool,
    seen: Tick,
    decided: u32,
}

impl Turns {
    pub(crate) fn is_built(&self) -> bool {
        self.is_built
    }

    /// Wakes the sources if the clock has moved or a checkpoint was decided.
    pub(crate) fn begin(&mut self) {
        let shared = &self.context.shared;
        let (now, newest) = (shared.clock.now(), shared.decided.load(SeqCst));
        if now != self.seen || newest != self.decided {
            (self.seen, self.decided) = (now, newest);
            self.wake_sources();
        }
    }

    pub(crate) fn wake_sources(&self) {
        self.context.sources.borrow().iter().for_each(Activator::activate);
    }
}
