//! Steps with keyed state: the one contract on which every stateful operator is built.
//!
//! A [`Step`] is the metal: it sees batches, watermarks and tables, never a barrier, a checkpoint or another worker. It
//! is made by a closure that gets a [`Declare`], from which it takes handles on its tables and side outputs:
//!
//! ```text
//! keyed.step("counts", |d| Count { table: d.table("counts") })
//! ```

use crate::batch::{BATCH_RECORDS, Batch};
use crate::error::{Error, Result};
use crate::runtime::{SidePort, TableSettings, state_name};
use crate::time::Timestamp;
use staunch_state::{
    AnyTable, Namespace, OrderedTable, StateKey, StateValue, Table, TableConfig, TimerTable, schema_of,
};
use std::any::TypeId;
use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::marker::PhantomData;
use std::rc::Rc;

/// Output of one call that is enough: a step that has more to put out says [`Advance::More`].
const FULL: usize = 4 * BATCH_RECORDS;

/// A step over a keyed stream. One instance runs on each worker and sees the keys of the key groups that the worker owns.
/// The engine does the rest: routing, alignment, checkpoints, restore.
///
/// Calls take whole batches: state is reached through [`Table::update_batch`], which hides memory latency by prefetching,
/// and there is no virtual call and no serialisation for a record.
pub trait Step<K: StateKey, V>: 'static {
    /// What the step puts out.
    type Out: 'static;

    /// What the step is. Asked once, before anything runs.
    fn properties(&self) -> Properties;

    /// Handles records, all of one epoch. What it leaves in `input` is dropped.
    ///
    /// # Errors
    /// The state cannot be read or written.
    fn process(&mut self, input: &mut Batch<(K, V)>, cx: &mut StepCx<Self::Out>) -> Result<()>;

    /// Time has advanced to this moment. A call does a bounded piece of what follows from that, and says [`Advance::More`]
    /// if it has left something: then it is called again with the same moment, after other steps of the worker had their
    /// turn. Until it is done the step gets no record, and no barrier passes it.
    ///
    /// # Errors
    /// As [`Step::process`].
    fn advance(&mut self, _to: Moment, _cx: &mut StepCx<Self::Out>) -> Result<Advance> {
        Ok(Advance::Done)
    }

    /// The tables were filled from a checkpoint, at which the step had applied `watermark`: rebuild what is derived from
    /// them.
    ///
    /// # Errors
    /// As [`Step::process`].
    fn restored(&mut self, _watermark: Timestamp) -> Result<()> {
        Ok(())
    }
}

/// A point on one of the clocks that a step can follow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Moment {
    /// On that of event time: no record at or before it is still to come, except late ones.
    EventTime(Timestamp),
}

/// Whether a step has done all that follows from a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// It has.
    Done,
    /// It is to be called again.
    More,
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
    /// Whether what the step puts out has event times (put out with [`StepCx::emit_at`]).
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

/// What a step has at hand during one call: its output, and the time.
#[derive(Debug)]
pub struct StepCx<O> {
    pub(crate) main: Batch<O>,
    pub(crate) watermark: Timestamp,
    pub(crate) late: u64,
    pub(crate) again: bool,
}

impl<O> StepCx<O> {
    pub(crate) fn new(watermark: Timestamp) -> Self {
        Self { main: Batch::default(), watermark, late: 0, again: false }
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

    /// Counts records that came too late (the metric `late_records_total`).
    pub fn count_late(&mut self, records: u64) {
        self.late += records;
    }

    /// The columns of the main output, for steps that fill them in one go.
    pub fn main(&mut self) -> &mut Batch<O> {
        &mut self.main
    }

    /// Whether so much was put out that the rest had better wait for the next call.
    pub fn is_full(&self) -> bool {
        self.main.len() >= FULL
    }

    /// Asks for a call of [`Step::advance`] at the present watermark, before any other record: something that was just
    /// processed is due already.
    pub fn advance_again(&mut self) {
        self.again = true;
    }
}

/// A step's handle on one of its tables. The engine has another, with which it freezes and restores.
pub struct State<T>(Rc<RefCell<T>>);

impl<T> State<T> {
    /// The table, for as long as the result lives: at most for a call of the step, since the engine needs it between
    /// calls.
    ///
    /// # Panics
    /// It is open already.
    pub fn open(&self) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }
}

/// A step's handle on one of its side outputs.
pub struct Side<T>(Rc<RefCell<Batch<T>>>);

impl<T> Side<T> {
    /// Puts out a record with its event time in milliseconds, on a stream that has event time.
    pub fn emit_at(&self, record: T, time_ms: i64) {
        self.0.borrow_mut().push_at(record, time_ms);
    }

    /// Puts out a record without event time, on a stream that has none.
    pub fn emit(&self, record: T) {
        self.0.borrow_mut().push(record);
    }
}

/// Where a step under construction gets its tables and side outputs from. The program makes a step once to check the plan,
/// and then once on each worker.
pub struct Declare<K> {
    step: String,
    settings: TableSettings,
    pub(crate) declared: Declared,
    key: PhantomData<fn() -> K>,
}

/// What a step has declared.
#[derive(Default)]
pub(crate) struct Declared {
    pub(crate) tables: Vec<DeclaredTable>,
    pub(crate) sides: Vec<DeclaredSide>,
    pub(crate) wrong: Option<Error>,
}

pub(crate) struct DeclaredTable {
    /// The name in checkpoints.
    pub(crate) name: String,
    pub(crate) schema: String,
    pub(crate) table: Rc<RefCell<dyn AnyTable>>,
}

pub(crate) struct DeclaredSide {
    pub(crate) name: String,
    pub(crate) record: TypeId,
    pub(crate) port: Box<dyn SidePort>,
}

impl<K: StateKey> Declare<K> {
    pub(crate) fn new(step: &str, settings: TableSettings) -> Self {
        Self { step: step.to_owned(), settings, declared: Declared::default(), key: PhantomData }
    }

    /// The step's name.
    pub fn name(&self) -> &str {
        &self.step
    }

    /// A table of values by key and namespace. Its name finds it in checkpoints, so keep it; a table may have the name of
    /// its step.
    pub fn table<N: Namespace, V: StateValue>(&mut self, name: &str) -> State<Table<K, N, V>> {
        self.state(name, schema_of::<K, N, V>(), Table::new)
    }

    /// For each key a map in the order of its places; otherwise as [`Declare::table`].
    pub fn ordered<M: StateValue, V: StateValue>(&mut self, name: &str) -> State<OrderedTable<K, M, V>> {
        let schema = format!("map in order\n{}", schema_of::<K, (), (M, V)>());
        self.state(name, schema, OrderedTable::new)
    }

    /// Times of keys, in their order; otherwise as [`Declare::table`].
    pub fn timers<T: StateValue>(&mut self, name: &str) -> State<TimerTable<T, K>> {
        let schema = format!("timers\n{}", schema_of::<K, (), T>());
        self.state(name, schema, TimerTable::new)
    }

    fn state<T: AnyTable + 'static>(
        &mut self,
        name: &str,
        schema: String,
        make: impl FnOnce(TableConfig) -> T,
    ) -> State<T> {
        let full = self.full_name(name);
        let table = make(self.settings.table(&full));
        if let Err(unfit) = table.check_types() {
            self.refuse(unfit.into());
        }
        let table = Rc::new(RefCell::new(table));
        self.declared.tables.push(DeclaredTable { name: full, schema, table: Rc::clone(&table) as _ });
        State(table)
    }

    /// A side output. It becomes a stream by [`StepOutputs::side`](crate::stream::StepOutputs::side), under the same name;
    /// if it does not, what is put there is thrown away.
    pub fn side<T: 'static>(&mut self, name: &str) -> Side<T> {
        if self.declared.sides.iter().any(|side| side.name == name) {
            self.refuse(Error::job(format!("two side outputs have the name `{name}`")));
        }
        let batch = Rc::new(RefCell::new(Batch::default()));
        let port = Box::new(Rc::clone(&batch));
        self.declared.sides.push(DeclaredSide { name: name.to_owned(), record: TypeId::of::<T>(), port });
        Side(batch)
    }

    /// Notes that something is wrong with how the step is used; reported before anything runs.
    pub fn refuse(&mut self, error: Error) {
        self.declared.wrong.get_or_insert(error.in_step(&self.step));
    }

    /// The name of a state in checkpoints: the step's, or below it.
    fn full_name(&mut self, name: &str) -> String {
        if let Err(error) = crate::plan::check_name(name) {
            self.refuse(error);
        }
        let full = state_name(&self.step, (name != self.step).then_some(name));
        if self.declared.tables.iter().any(|table| table.name == full) {
            self.refuse(Error::job(format!(
                "two states have the name `{name}`; checkpoints find a state by it"
            )));
        }
        full
    }
}
