//! Functions of your own over the records and timers of a key, with several named states and side outputs.
//!
//! A [`Process`] is an ordinary struct: it has handles on its states as fields, and is called for each record, and for each
//! timer that it has set. The engine has its states in checkpoints, restores them, and moves them with their keys.
//!
//! ```text
//! let mut payments = payments.key_by(|p| p.card).process("fraud", |needs| Fraud {
//!     spent: needs.value("spent").ttl(DAY),
//!     recent: needs.ordered("recent"),
//!     late: needs.side("late"),
//! });
//! ```
//!
//! Underneath it is one [`Step`](staunch_core::step::Step): batches of records, whose states are fetched ahead, and timers in
//! a table of their own, fired in bounded slices.

mod cx;
mod state;
mod step;
mod timers;

pub use cx::{Cx, SideOutput};
pub use state::{OrderedMap, Value};

use serde::Serialize;
use serde::de::DeserializeOwned;
use state::ValueOf;
use staunch_core::step::{Declare, Moment, Properties};
use staunch_core::{Keyed, Result, StateKey, StateValue, StepOutputs};
use std::rc::Rc;
use step::ProcessStep;

/// What is done with the records of a key. See the [module](self).
pub trait Process<K: StateKey, V>: 'static {
    /// What is put out.
    type Out: 'static;

    /// A record has come.
    ///
    /// # Errors
    /// The state cannot be read or written, or the function refuses to go on; the job ends.
    fn record(&mut self, cx: &mut Cx<'_, K, Self::Out>, value: V) -> Result<()>;

    /// A timer is due that was set by [`Cx::set_timer`]. The timers of a key come in the order of their times, and after
    /// all records that had come before the watermark that makes them due.
    ///
    /// # Errors
    /// As [`Process::record`].
    fn timer(&mut self, _cx: &mut Cx<'_, K, Self::Out>, _at: Moment) -> Result<()> {
        Ok(())
    }

    /// What the function is, for plans and checkpoints: its parameters, and whether it needs event time.
    fn properties(&self) -> Properties {
        Properties::of("process")
    }
}

/// Processes on a keyed stream.
pub trait ProcessExt<'s, T, K: StateKey> {
    /// Adds a process, made by `make`, which says what it needs. The names of the process and of its states find them in
    /// checkpoints, so keep them.
    fn process<P: Process<K, T>>(
        self,
        name: &str,
        make: impl FnOnce(&mut Needs<'_, K>) -> P,
    ) -> StepOutputs<'s, P::Out>;
}

impl<'s, T, K, F> ProcessExt<'s, T, K> for Keyed<'s, T, F>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    K: StateKey,
    F: Fn(&T) -> K + 'static,
{
    fn process<P: Process<K, T>>(
        self,
        name: &str,
        make: impl FnOnce(&mut Needs<'_, K>) -> P,
    ) -> StepOutputs<'s, P::Out> {
        self.step(name, |declare| {
            let mut needs = Needs { declare, values: Vec::new() };
            let process = make(&mut needs);
            let values = needs.values;
            ProcessStep::new(process, values, declare.timers(TIMERS))
        })
    }
}

/// The name of the state that holds the timers of a process.
const TIMERS: &str = "timers";

/// What a process needs, under names of its own choice.
pub struct Needs<'a, K> {
    declare: &'a mut Declare<K>,
    values: Vec<Rc<dyn ValueOf<K>>>,
}

impl<K: StateKey> Needs<'_, K> {
    /// A value for each key.
    pub fn value<V: StateValue>(&mut self, name: &str) -> Value<K, V> {
        let value = Value::new(name, self.declare.table(name));
        self.values.push(value.erased());
        value
    }

    /// A map for each key, in the order of `M`: integers, text, and tuples of such.
    pub fn ordered<M: StateValue, V: StateValue>(&mut self, name: &str) -> OrderedMap<K, M, V> {
        OrderedMap::new(self.declare.ordered(name))
    }

    /// A side output; it becomes a stream by [`StepOutputs::side`], under the same name.
    pub fn side<T: 'static>(&mut self, name: &str) -> SideOutput<T> {
        SideOutput::new(self.declare.side(name))
    }
}
