//! Where a graph is being built: on a live worker, or only to check the plan. And what a live one does.

use crate::error::{Error, Result};
use crate::place::{At, Place, Role};
use crate::plan::{Node, NodeId, Plan};
use crate::runtime::control::committing::CommitterFactory;
use crate::runtime::control::splits::Enumerator;
use crate::runtime::process::shared::Shared;
use crate::runtime::process::tick::{Tick, tick};
use crate::step::{DeclaredTable, Properties};
use staunch_checkpoint::{CheckpointId, StatePart};
use staunch_state::{Assignment, Groups};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
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
    pub(crate) states: Vec<StateOfStep>,
    pub(crate) sinks: Vec<CommitterFactory>,
    /// Where sources read and sinks write.
    pub(crate) places: Vec<At>,
}

/// One state of a step.
pub(crate) struct StateOfStep {
    pub(crate) step: String,
    /// The name in checkpoints.
    pub(crate) name: String,
    pub(crate) schema: String,
    pub(crate) properties: Properties,
}

impl StateOfStep {
    /// What the manifest says of it, without shards.
    pub(crate) fn part(&self) -> StatePart {
        StatePart {
            operator: self.properties.operator.to_owned(),
            parameters: self.properties.parameters.clone(),
            ..StatePart::of(&self.schema)
        }
    }
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
    /// Takes note of a node before its operators are made. If the program builds another graph here than the one that
    /// was checked, the job fails at once: what comes next could meet channels of other types on other workers, and
    /// their panics would hide the reason.
    pub(crate) fn note(&self, plan: &Plan, node: &Node) {
        if let Some(worker) = &self.live
            && let Err(error) = check_built(&worker.shared.plan, plan, node.id, worker.index)
        {
            worker.shared.fail(error);
            // Without the panic hook: the reason is told, and nothing is wrong with the engine.
            resume_unwind(Box::new(Refused));
        }
    }

    pub(crate) fn routing(&self) -> (Arc<Assignment>, Groups) {
        match &self.live {
            Some(worker) => (Arc::clone(&worker.shared.assignment), worker.shared.groups),
            None => (Arc::new(Assignment::even(Groups::new(1), 1)), Groups::new(1)),
        }
    }

    pub(crate) fn register_places(&self, step: &str, role: Role, places: Vec<Place>) {
        let at = |place| At { step: step.to_owned(), role, place };
        self.registry.borrow_mut().places.extend(places.into_iter().map(at));
    }

    pub(crate) fn register_state(&self, step: &str, table: &DeclaredTable, properties: &Properties) {
        if self.live.is_none() {
            self.registry.borrow_mut().states.push(StateOfStep {
                step: step.to_owned(),
                name: table.name.clone(),
                schema: table.schema.clone(),
                properties: properties.clone(),
            });
        }
    }
}

/// Builds the graph on a live worker. If it cannot be built, the job fails, and the worker has only to
/// wait for its end.
pub(crate) fn start_worker<B>(build: &B, worker: &mut Worker, shared: &Arc<Shared>) -> Turns
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan>,
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
    let built = catch_unwind(AssertUnwindSafe(|| {
        worker.dataflow::<Tick, _, _>(|scope| {
            build(Site { scope, live: Some(Rc::clone(&context)), registry: Rc::default() })
        })
    }));
    let built = match built {
        Ok(built) => built,
        Err(panic) if panic.is::<Refused>() => return Turns::new(context, false),
        Err(panic) => resume_unwind(panic),
    };
    let built = built.and_then(|plan| check_built(&shared.plan, &plan, plan.nodes.len(), worker.index()));
    let is_built = built.map_err(|error| shared.fail(error)).is_ok();
    Turns::new(context, is_built)
}

/// Whether what a worker has built so far, up to the node `at`, is the graph that was checked.
fn check_built(checked: &Plan, built: &Plan, at: NodeId, worker: usize) -> Result<()> {
    let (one, other) = (checked.nodes.get(at), built.nodes.get(at));
    if one == other {
        return Ok(());
    }
    let said = |node: Option<&Node>| node.map_or_else(|| "nothing".to_owned(), Node::label);
    Err(Error::job(format!(
        "the program builds another graph on worker {worker} than when it was checked: step #{at} was {}, and is {}. It \
         must build the same graph every time; iterate a Vec or a BTreeMap while building, not a HashMap, and decide \
         by arguments, not by time or chance",
        said(one),
        said(other)
    )))
}

/// What unwinds a worker whose graph is refused while it is being built.
struct Refused;

/// What a worker looks after between two turns of its dataflow.
pub(crate) struct Turns {
    context: Rc<WorkerContext>,
    is_built: bool,
    seen: Tick,
    decided: CheckpointId,
}

impl Turns {
    fn new(context: Rc<WorkerContext>, is_built: bool) -> Self {
        Self { context, is_built, seen: tick(0, 0), decided: CheckpointId(0) }
    }

    pub(crate) fn is_built(&self) -> bool {
        self.is_built
    }

    /// Wakes the sources if the clock has moved or a checkpoint was decided.
    pub(crate) fn begin(&mut self) {
        let shared = &self.context.shared;
        let (now, newest) = (shared.clock.now(), shared.decided());
        if now != self.seen || newest != self.decided {
            (self.seen, self.decided) = (now, newest);
            self.wake_sources();
        }
    }

    pub(crate) fn wake_sources(&self) {
        self.context.sources.borrow().iter().for_each(Activator::activate);
    }
}
