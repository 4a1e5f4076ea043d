//! The runtime: the only place that knows the dataflow library underneath.
//!
//! Reading order: [`tick`] (time), [`alignment`] (barriers), [`source_step`], [`stateful`],
//! [`sink_step`] (the drivers of the three kinds of steps), [`coordinator`] (carrying out the
//! protocol), [`start`] and [`generation`] (one life of a job, from recovery to its end).
//!
//! Threads of one generation: a worker for each `workers`; the coordinator; the clock; a persister for
//! each stateful step and worker; I/O threads for connectors and committers.

mod alignment;
#[cfg(feature = "simulation")]
mod baton;
mod clock;
mod committing;
mod container;
mod coordinator;
mod generation;
mod io;
mod log;
mod marks;
mod planted;
mod recovery;
mod routing;
mod shared;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
mod sink_step;
mod source_step;
mod split;
mod splits;
mod start;
mod stateful;
mod tick;
mod transform;
mod wall;
mod worker;

pub(crate) use generation::run;
pub(crate) use io::blocking;
pub(crate) use marks::Marks;
pub(crate) use routing::keyed;
pub(crate) use sink_step::sink;
pub(crate) use source_step::{SourceFlows, source};
pub(crate) use stateful::stateful;
pub(crate) use transform::{Emitter, each_batch, union};
pub(crate) use worker::Site;

use crate::batch::Batch;
use crate::error::Result;
use crate::job::Job;
use crate::plan::Plan;
use std::cell::RefCell;
use std::rc::Rc;
use timely::communication::Allocator;
use timely::communication::allocator::thread::Thread;
use timely::worker::{Config, Worker};
use worker::Registry;

/// A stream of batches in the dataflow.
pub(crate) type Flow<'s, T> = timely::dataflow::Stream<'s, tick::Tick, Batch<T>>;

/// Builds the graph on a worker that is never run: what a plan is made of.
pub(crate) fn plan<B>(build: &B) -> Result<(Plan, Registry)>
where
    B: for<'s> Fn(&Job<'s>) -> Result<()>,
{
    let mut worker =
        Worker::new(Config::default(), Allocator::Thread(Thread::default()), Some(std::time::Instant::now()));
    let registry: Rc<RefCell<Registry>> = Rc::default();
    let plan = worker.dataflow::<tick::Tick, _, _>(|scope| {
        let site = Site { scope, live: None, registry: Rc::clone(&registry) };
        let job = Job::new(site);
        build(&job)?;
        job.finish()
    })?;
    Ok((plan, registry.take()))
}
