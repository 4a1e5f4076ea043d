//! Running aggregates: for every record, the new value of its key.

use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_core::batch::Batch;
use staunch_core::keyed::{KeyedStep, Output, Properties};
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
        self.process(name, drop, Running::new("count", update)).0
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
        self.process(name, |record| record, Running::new("fold", update)).0
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
        self.process(name, |record| record, Running::new("reduce", update)).0
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
        self.process(name, |record| record, Running::new("aggregate", update)).0
    }
}

/// One value a key, and one output a record.
struct Running<A, O, U> {
    operator: &'static str,
    update: U,
    types: PhantomData<fn() -> (A, O)>,
}

impl<A, O, U> Running<A, O, U> {
    fn new<V>(operator: &'static str, update: U) -> Self
    where
        U: Fn(&mut Option<A>, V) -> O,
    {
        Self { operator, update, types: PhantomData }
    }
}

impl<K, V, A, O, U> KeyedStep<K, V> for Running<A, O, U>
where
    K: StateKey,
    V: 'static,
    A: StateValue,
    O: 'static,
    U: Fn(&mut Option<A>, V) -> O + 'static,
{
    type Namespace = ();
    type State = A;
    type Out = (K, O);
    type Side = ();

    fn process(
        &mut self,
        batch: &mut Batch<(K, V)>,
        state: &mut Table<K, (), A>,
        output: &mut Output<(K, O), ()>,
    ) -> Result<()> {
        let out = output.main();
        out.items.reserve(batch.len());
        state.update_batch(
            &batch.hashes,
            &mut batch.items,
            |(key, _)| (key, ()),
            |(key, value), state| {
                let result = (self.update)(state, value);
                out.items.push((key, result));
            },
        )?;
        batch.hashes.clear();
        batch.times.clear();
        Ok(())
    }

    fn properties(&self) -> Properties {
        Properties::of(self.operator)
    }
}
