//! Every stateful step as an operator of the dataflow: routing, alignment, watermarks, the freeze, restore.
//!
//! Operators see batches and watermarks, never barriers. No capability is held from epoch to epoch: output goes out with
//! the capability of what caused it.
//!
//! | | |
//! |---|---|
//! | [`driver`] | what a step does in its turn: records, watermarks, barriers, in which order |
//! | [`sides`] | side outputs of any number and type through one port of the dataflow |

mod driver;
mod sides;

pub(crate) use sides::{SideFlow, SidePort};

use super::marks::Marks;
use super::routing::{Owners, Router};
use crate::batch::Batch;
use crate::error::Error;
use crate::metrics::Doing;
use crate::runtime::Flow;
use crate::runtime::life::worker::Site;
use crate::runtime::process::shared::caught;
use crate::runtime::process::tick::Tick;
use crate::step::{DeclaredSide, DeclaredTable, Properties, Step};
use driver::{Driver, Opening};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sides::Sided;
use staunch_state::StateKey;
use std::sync::Arc;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{OutputBuilder, OutputBuilderSession};
use timely::progress::frontier::MutableAntichain;

type Out<C> = OutputBuilder<Tick, NoopBuilder<C>>;
type Session<'a, C> = OutputBuilderSession<'a, Tick, NoopBuilder<C>>;

/// Both outputs of a step during one turn.
struct Outputs<'a, 'b, O: 'static> {
    main: &'a mut Session<'b, Batch<O>>,
    sides: &'a mut Session<'b, Sided>,
}

/// A step and what it has declared.
pub(crate) struct Stateful<S> {
    pub(crate) name: String,
    pub(crate) properties: Properties,
    pub(crate) step: S,
    pub(crate) tables: Vec<DeclaredTable>,
    pub(crate) sides: Vec<DeclaredSide>,
}

/// Adds a stateful step to the dataflow.
pub(crate) fn stateful<'s, K, V, S>(
    site: &Site<'s>,
    flow: Flow<'s, (K, V)>,
    marks: Option<Marks<'s>>,
    stateful: Stateful<S>,
) -> (Flow<'s, S::Out>, SideFlow<'s>)
where
    K: StateKey,
    V: Serialize + DeserializeOwned + Send + 'static,
    S: Step<K, V>,
{
    for table in &stateful.tables {
        site.register_state(&stateful.name, table, &stateful.properties);
    }
    let name = stateful.name.clone();
    let mut builder = OperatorBuilder::new(name.clone(), site.scope);
    let owners = Owners::of_site(site);
    let router = DistributorPact(move |_| Router(owners));
    let mut records = builder.new_input(flow, router);
    let sources = marks.as_ref().map_or(0, |m| m.sources.len());
    let mut marks_in = marks.map(|marks| builder.new_input(marks.flow, Pipeline));
    let (main, main_flow) = builder.new_output::<Batch<S::Out>>();
    let (sides, side_flow) = builder.new_output::<Sided>();
    let mut main: Out<Batch<S::Out>> = OutputBuilder::from(main);
    let mut sides: Out<Sided> = OutputBuilder::from(sides);
    let again = site.scope.activator_for(builder.operator_info().address);
    let live = site.live.clone();
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut driver = live.map(|worker| {
            let shared = Arc::clone(&worker.shared);
            let opening = Opening { worker: worker.index as u32, marks: sources * worker.peers, again };
            let open = || Driver::<K, V, S>::open(&shared, opening, stateful);
            caught(&name, open).map_err(|e| shared.fail(e)).ok()
        });
        move |frontiers: &[MutableAntichain<Tick>]| {
            let Some(Some(driver)) = driver.as_mut() else { return };
            if driver.shared.is_stopping() {
                return;
            }
            driver.metrics.watch.does(Doing::Work);
            let turn = || {
                let (mut main, mut sides) = (main.activate(), sides.activate());
                let mut outputs = Outputs { main: &mut main, sides: &mut sides };
                let mut result = Ok(());
                // While a watermark is at work, what comes waits where it is: in the queues of the dataflow. Nobody calls
                // again for what is there already.
                if driver.is_advancing() {
                    driver.again.activate();
                } else {
                    records.for_each(|time, batch| {
                        if result.is_ok() {
                            result = driver.receive(&time, batch, &mut outputs);
                        }
                    });
                    if let Some(marks_in) = &mut marks_in {
                        marks_in.for_each(|time, marks| driver.note_marks(&time, marks));
                    }
                }
                // All inputs must have passed a time before it is over.
                let frontier = frontiers.iter().filter_map(|f| f.frontier().first().copied()).min();
                result.and_then(|()| driver.progress(frontier, &mut outputs))
            };
            if let Err(error) = caught(&name, turn) {
                driver.shared.fail(error);
            }
            driver.metrics.watch.does(Doing::Nothing);
        }
    });
    (main_flow, SideFlow(side_flow))
}

impl From<staunch_state::StateError> for Error {
    fn from(error: staunch_state::StateError) -> Self {
        use staunch_state::ErrorKind;
        match error.kind() {
            ErrorKind::Job => Self::job(error.to_string()),
            ErrorKind::External => Self::external(error.to_string()),
            ErrorKind::Internal => Self::internal(error.to_string()),
        }
    }
}
