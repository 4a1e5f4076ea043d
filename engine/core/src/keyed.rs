//! Keyed steps: the one contract on which every stateful operator is built.

use crate::batch::Batch;
use crate::error::Result;
use crate::time::Timestamp;
use staunch_state::{Namespace, StateKey, StateValue, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// A stateful step over a keyed stream. One instance runs on each worker and sees the keys of the key
/// groups that the worker owns. The engine does the rest: routing, alignment, checkpoints, restore.
///
/// Calls take whole batches: the state is reached through [`Table::update_batch`], which hides memory
/// latency by prefetching, and there is no virtual call and no serialisation for a record.
pub trait KeyedStep<K: StateKey, V>: 'static {
    /// The second half of a state entry's identity: a window, or `()`.
    type Namespace: Namespace;
    /// What is kept for each key and namespace.
    type State: StateValue;
    /// What the step puts out.
    type Out: 'static;
    /// What it puts out on the side (late records); `()` if nothing.
    type Side: 'static;

    /// Handles records, all of one epoch; empties `batch`.
    ///
    /// # Errors
    /// The state cannot be read or written.
    fn process(
        &mut self,
        batch: &mut Batch<(K, V)>,
        state: &mut Table<K, Self::Namespace, Self::State>,
        output: &mut Output<Self::Out, Self::Side>,
    ) -> Result<()>;

    /// The watermark has advanced to `output.watermark()`.
    ///
    /// # Errors
    /// As [`KeyedStep::process`].
    fn advance(
        &mut self,
        _state: &mut Table<K, Self::Namespace, Self::State>,
        _output: &mut Output<Self::Out, Self::Side>,
    ) -> Result<()> {
        Ok(())
    }

    /// State was loaded from a checkpoint, at which the step had applied `watermark`: rebuild what is
    /// derived from it.
    ///
    /// # Errors
    /// As [`KeyedStep::process`].
    fn restored(
        &mut self,
        _state: &mut Table<K, Self::Namespace, Self::State>,
        _watermark: Timestamp,
    ) -> Result<()> {
        Ok(())
    }

    /// What the step is. Asked once, before anything runs.
    fn properties(&self) -> Properties;
}

/// What a step is: for plans, for checks before anything runs, and for checkpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Properties {
    /// The operator's word: `count`, `window fold`.
    pub operator: &'static str,
    /// What the operator was told that its results depend on: the length of a window, by name. They are in the
    /// checkpoint; a start that has others is refused.
    pub parameters: BTreeMap<String, String>,
    /// Those of the parameters that may have another value on state that was built with this one, if the user says so
    /// (`--accept-change STEP`).
    pub may_change: BTreeSet<String>,
    /// Whether the step works on event time, so that its source must assign one.
    pub needs_event_time: bool,
    /// Whether what the step puts out has event times (pushed with [`Output::emit_at`]).
    pub emits_event_time: bool,
}

impl Properties {
    /// Those of an operator without parameters that knows nothing of event time.
    pub fn of(operator: &'static str) -> Self {
        Self {
            operator,
            parameters: BTreeMap::new(),
            may_change: BTreeSet::new(),
            needs_event_time: false,
            emits_event_time: false,
        }
    }

    /// With a parameter that the state depends on for good: it was built with this value.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: impl Display) -> Self {
        self.parameters.insert(name.to_owned(), value.to_string());
        self
    }

    /// With a parameter that only says how to go on, so that it may change on state that there is.
    #[must_use]
    pub fn changeable(mut self, name: &str, value: impl Display) -> Self {
        self.may_change.insert(name.to_owned());
        self.parameter(name, value)
    }

    /// It works on event time, so its source must assign one.
    #[must_use]
    pub fn needs_event_time(mut self) -> Self {
        self.needs_event_time = true;
        self
    }

    /// What it puts out has event times.
    #[must_use]
    pub fn emits_event_time(mut self) -> Self {
        self.emits_event_time = true;
        self
    }
}

/// Where a step puts its output during one call.
#[derive(Debug)]
pub struct Output<O, S> {
    pub(crate) main: Batch<O>,
    pub(crate) side: Batch<S>,
    pub(crate) watermark: Timestamp,
    pub(crate) late: u64,
}

impl<O, S> Output<O, S> {
    pub(crate) fn new(watermark: Timestamp) -> Self {
        Self { main: Batch::default(), side: Batch::default(), watermark, late: 0 }
    }

    /// No record at or before this moment is still to come, except late ones.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Puts out a record without event time.
    #[inline]
    pub fn emit(&mut self, record: O) {
        self.main.push(record);
    }

    /// Puts out a record with its event time in milliseconds.
    #[inline]
    pub fn emit_at(&mut self, record: O, time_ms: i64) {
        self.main.push_at(record, time_ms);
    }

    /// Puts a record on the side output.
    pub fn emit_side(&mut self, record: S, time_ms: i64) {
        self.side.push_at(record, time_ms);
    }

    /// Counts records that came too late (the metric `late_records_total`).
    pub fn count_late(&mut self, records: u64) {
        self.late += records;
    }

    /// The columns of the main output, for steps that fill them in one go.
    pub fn main(&mut self) -> &mut Batch<O> {
        &mut self.main
    }
}
