//! Running aggregates: for every record, the new value of its key.

use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_core::batch::Batch;
use staunch_core::step::{Declare, Properties, State, Step, StepCx};
use staunch_core::{Keyed, Result, StateKey, StateValue, Stream, Table};
use std::marker::PhantomData;

/// An aggregate function with an accumulator of its own.
pub trait Aggregate: 'static {
    /// What it takes.
    type Input: Serialize + DeserializeOwned + Send + 'static;
    /// What it keeps for each key.
    type Accumulator: StateValue;
    /// What it yields.
    type Output: 'static;

    /// The accumulator of a key without records.
    fn create(&self) -> Self::Accumulator;
    /// Takes one record in.
    fn add(&self, accumulator: &mut Self::Accumulator, input: Self::Input);
    /// The value so far.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Output;
}

/// Running aggregates on a keyed stream.
pub trait KeyedExt<'s, T, K> {
    /// How many records each key has had: puts out the new count for every record.
    fn count(self, name: &str) -> Stream<'s, (K, u64)>;

    /// Folds the records of each key into a value that starts as its default: puts out the new value
    /// for every record.
    fn fold<A>(self, name: &str, add: impl Fn(&mut A, T) + 'static) -> Stream<'s, (K, A)>
    where
        A: StateValue + Default + Clone;

    /// Combines the records of each key two by two: puts out the new value for every record.
    fn reduce(self, name: &str, combine: impl Fn(T, T) -> T + 'static) -> Stream<'s, (K, T)>
    where
        T: StateValue + Clone;

    /// Applies an [`Aggregate`]: puts out its result for every record.
    fn aggregate<A>(self, name: &str, aggregate: A) -> Stream<'s, (K, A::Output)>
    where
        A: Aggregate<Input = T>;
}

impl<'s, T, K, F> KeyedExt<'s, T, K> for Keyed<'s, T, F>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    K: StateKey,
    F: Fn(&T) -> K + 'static,
{
    fn count(self, name: &str) -> Stream<'s, (K, u64)> {
        // Only the key travels.
        let update = |count: &mut Option<u64>, ()| {
            let now = count.unwrap_or(0) + 1;
            *count = Some(now);
            now
        };
        self.step_of(name, drop, |d| Running::new(d, "count", update)).main
    }

    fn fold<A>(self, name: &str, add: impl Fn(&mut A, T) + 'static) -> Stream<'s, (K, A)>
    where
        A: StateValue + Default + Clone,
    {
        let update = move |state: &mut Option<A>, record| {
            let value = state.get_or_insert_default();
            add(value, record);
            value.clone()
        };
        self.step(name, |d| Running::new(d, "fold", update)).main
    }

    fn reduce(self, name: &str, combine: impl Fn(T, T) -> T + 'static) -> Stream<'s, (K, T)>
    where
        T: StateValue + Clone,
    {
        let update = move |state: &mut Option<T>, record| {
            let combined = match state.take() {
                Some(before) => combine(before, record),
                None => record,
            };
            state.insert(combined).clone()
        };
        self.step(name, |d| Running::new(d, "reduce", update)).main
    }

    fn aggregate<A>(self, name: &str, aggregate: A) -> Stream<'s, (K, A::Output)>
    where
        A: Aggregate<Input = T>,
    {
        let update = move |state: &mut Option<A::Accumulator>, record| {
            let accumulator = state.get_or_insert_with(|| aggregate.create());
            aggregate.add(accumulator, record);
            aggregate.result(accumulator)
        };
        self.step(name, |d| Running::new(d, "aggregate", update)).main
    }
}

/// One value a key, and one output a record.
struct Running<K, A, O, U> {
    operator: &'static str,
    update: U,
    table: State<Table<K, (), A>>,
    output: PhantomData<fn() -> O>,
}

impl<K: StateKey, A: StateValue, O, U> Running<K, A, O, U> {
    fn new<V>(declare: &mut Declare<K>, operator: &'static str, update: U) -> Self
    where
        U: Fn(&mut Option<A>, V) -> O,
    {
        let name = declare.name().to_owned();
        Self { operator, update, table: declare.table(&name), output: PhantomData }
    }
}

impl<K, V, A, O, U> Step<K, V> for Running<K, A, O, U>
where
    K: StateKey,
    V: 'static,
    A: StateValue,
    O: 'static,
    U: Fn(&mut Option<A>, V) -> O + 'static,
{
    type Out = (K, O);

    fn process(&mut self, input: &mut Batch<(K, V)>, cx: &mut StepCx<(K, O)>) -> Result<()> {
        let out = cx.main();
        out.items.reserve(input.len());
        self.table.open().update_batch(
            &input.hashes,
            &mut input.items,
            |(key, _)| (key, ()),
            |(key, value), state| {
                let result = (self.update)(state, value);
                out.items.push((key, result));
            },
        )?;
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties::of(self.operator)
    }
}
