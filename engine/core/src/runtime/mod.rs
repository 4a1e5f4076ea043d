//! The runtime: the only place that knows the dataflow library underneath.
//!
//! | room | what is in it |
//! |---|---|
//! | [`process`] | what all threads of a process share: clocks, I/O, failure |
//! | [`steps`] | sources, transformations, stateful steps and sinks as operators of the dataflow |
//! | [`control`] | what is one for the whole job: the protocol carried out, the log, committing, handing out splits |
//! | [`life`] | from taking the job over to cleaning up after it |
//! | `simulated` | the same process, moved by hand; tests only |
//!
//! It does not know [`Job`](crate::Job) or [`Stream`](crate::Stream): whoever runs a job gives it a function that
//! builds the graph at a [`Site`] and returns the plan of what it has built.

mod control;
mod life;
mod process;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
mod steps;

pub(crate) use life::run::run;
pub(crate) use life::worker::Site;
pub(crate) use process::io::blocking;
pub(crate) use process::shared::panic_text;
pub(crate) use steps::marks::Marks;
pub(crate) use steps::routing::keyed;
pub(crate) use steps::sink::sink;
pub(crate) use steps::source::{SourceFlows, source};
pub(crate) use steps::stateful::{SideFlow, SidePort, Stateful, stateful};
pub(crate) use steps::states::{TableSettings, state_name};
pub(crate) use steps::transform::{Emitter, each_batch, union};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::place::check_steps;
use crate::plan::Plan;
use life::worker::Registry;
use process::tick::Tick;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use timely::communication::Allocator;
use timely::communication::allocator::thread::Thread;
use timely::worker::{Config, Worker};

/// A stream of batches in the dataflow.
pub(crate) type Flow<'s, T> = timely::dataflow::Stream<'s, Tick, Batch<T>>;

/// Builds the graph on a worker that is never run: what a plan is made of.
pub(crate) fn plan<B>(build: &B) -> Result<(Plan, Registry)>
where
    B: for<'s> Fn(Site<'s>) -> Result<Plan>,
{
    let mut worker =
        Worker::new(Config::default(), Allocator::Thread(Thread::default()), Some(std::time::Instant::now()));
    let registry: Rc<RefCell<Registry>> = Rc::default();
    let built = catch_unwind(AssertUnwindSafe(|| {
        worker
            .dataflow::<Tick, _, _>(|scope| build(Site { scope, live: None, registry: Rc::clone(&registry) }))
    }));
    let plan = built.unwrap_or_else(|panic| {
        Err(Error::job(format!("the program panicked while it built the graph: {}", panic_text(&*panic))))
    })?;
    let registry = registry.take();
    check_steps(&registry.places)?;
    Ok((plan, registry))
}
