//! Where a graph is being built: on a live worker, or only to check the plan.

use super::committing::CommitterFactory;
use super::shared::Shared;
use super::splits::Enumerator;
use super::tick::Tick;
use staunch_state::{Assignment, Groups};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use timely::dataflow::Scope;
use timely::dataflow::operators::probe::Handle;
use timely::scheduling::Activator;

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
