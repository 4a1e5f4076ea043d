//! Windows of event time.
//!
//! A window of a key opens with its first record. It *fires* when the watermark reaches its end: its
//! result is put out, stamped with the window's last millisecond. With an *allowed lateness* its state
//! is kept that much longer, and each late record puts out the corrected result again. What comes later
//! still is late for good: it is counted, and goes to the late side output if there is one.

use crate::aggregate::Aggregate;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use staunch_core::batch::Batch;
use staunch_core::step::{Advance, Moment, Properties, Side, State, Step, StepCx};
use staunch_core::{Keyed, Result, StateKey, StateValue, Stream, Table, Timestamp};
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::time::Duration;

/// Windows of one length, one after the other, aligned to the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tumbling {
    length_ms: i64,
    allowed_lateness_ms: i64,
}

impl Tumbling {
    /// Windows of this length, which must be at least a millisecond.
    pub fn of(length: Duration) -> Self {
        Self { length_ms: millis(length), allowed_lateness_ms: 0 }
    }

    /// Keeps a window's state for so long after it has fired, and corrects its result when late
    /// records come.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.allowed_lateness_ms = millis(lateness);
        self
    }

    fn start_of(self, time_ms: i64) -> i64 {
        time_ms.saturating_sub(time_ms.rem_euclid(self.length_ms))
    }

    fn end_of(self, start_ms: i64) -> i64 {
        start_ms.saturating_add(self.length_ms)
    }

    /// The last moment in a window. A watermark says that nothing at or before it is still to come, so
    /// this is the one that makes the window fire.
    fn last_of(self, start_ms: i64) -> i64 {
        self.end_of(start_ms) - 1
    }

    /// The watermark at which a window's state goes.
    fn expiry_of(self, start_ms: i64) -> i64 {
        self.last_of(start_ms).saturating_add(self.allowed_lateness_ms)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `60s`, `1.5s`, `10ms`.
pub(crate) fn in_words(millis: i64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    format!("{:?}", Duration::from_millis(millis.unsigned_abs()))
}

/// A span of event time: from `start`, up to and without `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Window {
    /// First moment in it.
    pub start: Timestamp,
    /// First moment after it.
    pub end: Timestamp,
}

/// What a window of a key came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WindowResult<K, R> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
    /// Its result.
    pub value: R,
}

/// Windows on a keyed stream.
pub trait WindowExt<'s, T, F>: Sized {
    /// Divides the records of each key into windows.
    fn window(self, window: Tumbling) -> Windowed<'s, T, F>;
}

impl<'s, T, K, F> WindowExt<'s, T, F> for Keyed<'s, T, F>
where
    T: 'static,
    K: StateKey,
    F: Fn(&T) -> K + 'static,
{
    fn window(self, window: Tumbling) -> Windowed<'s, T, F> {
        if window.length_ms < 1 {
            self.refuse("a window must be at least a millisecond long");
        }
        Windowed { keyed: self, window: Tumbling { length_ms: window.length_ms.max(1), ..window } }
    }
}

/// A keyed stream divided into windows.
#[must_use = "a windowed stream does nothing until an operator is applied to it"]
pub struct Windowed<'s, T, F> {
    keyed: Keyed<'s, T, F>,
    window: Tumbling,
}

/// The results of windows, and the records that came too late for them.
pub type WithLate<'s, K, R, T> = (Stream<'s, WindowResult<K, R>>, Stream<'s, T>);

impl<'s, T, K, F> Windowed<'s, T, F>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    K: StateKey,
    F: Fn(&T) -> K + 'static,
{
    /// Counts the records of each window.
    pub fn count(self, name: &str) -> Stream<'s, WindowResult<K, u64>> {
        self.fold(name, |count, _| *count += 1)
    }

    /// Folds the records of each window into a value that starts as its default.
    pub fn fold<A>(self, name: &str, add: impl Fn(&mut A, T) + 'static) -> Stream<'s, WindowResult<K, A>>
    where
        A: StateValue + Default + Clone,
    {
        self.fold_with_late(name, add).0
    }

    /// As [`Windowed::fold`], with the stream of the records that came too late.
    pub fn fold_with_late<A>(self, name: &str, add: impl Fn(&mut A, T) + 'static) -> WithLate<'s, K, A, T>
    where
        A: StateValue + Default + Clone,
    {
        self.apply(
            name,
            "window fold",
            move |state: &mut Option<A>, record| add(state.get_or_insert_default(), record),
            A::clone,
        )
    }

    /// Combines the records of each window two by two.
    pub fn reduce(self, name: &str, combine: impl Fn(T, T) -> T + 'static) -> Stream<'s, WindowResult<K, T>>
    where
        T: StateValue + Clone,
    {
        let update = move |state: &mut Option<T>, record| {
            *state = Some(match state.take() {
                Some(before) => combine(before, record),
                None => record,
            });
        };
        self.apply(name, "window reduce", update, T::clone).0
    }

    /// Applies an [`Aggregate`] to the records of each window.
    pub fn aggregate<A>(self, name: &str, aggregate: A) -> Stream<'s, WindowResult<K, A::Output>>
    where
        A: Aggregate<Input = T> + Clone,
    {
        self.aggregate_with_late(name, aggregate).0
    }

    /// As [`Windowed::aggregate`], with the stream of the records that came too late.
    pub fn aggregate_with_late<A>(self, name: &str, aggregate: A) -> WithLate<'s, K, A::Output, T>
    where
        A: Aggregate<Input = T> + Clone,
    {
        let adding = aggregate.clone();
        let update = move |state: &mut Option<A::Accumulator>, record| {
            adding.add(state.get_or_insert_with(|| adding.create()), record);
        };
        self.apply(name, "window aggregate", update, move |state| aggregate.result(state))
    }

    fn apply<A, R>(
        self,
        name: &str,
        operator: &'static str,
        update: impl Fn(&mut Option<A>, T) + 'static,
        result: impl Fn(&A) -> R + 'static,
    ) -> WithLate<'s, K, R, T>
    where
        A: StateValue,
        R: 'static,
    {
        let window = self.window;
        let mut outputs = self.keyed.step(name, |declare| {
            let name = declare.name().to_owned();
            WindowStep {
                operator,
                window,
                update,
                result,
                table: declare.table(&name),
                late: declare.side(LATE),
                waiting: BTreeSet::new(),
                fired: BTreeSet::new(),
                output: PhantomData,
            }
        });
        let late = outputs.side(LATE);
        (outputs.main, late)
    }
}

/// Name of the side output of a window.
const LATE: &str = "late records";
/// Expired entries that are deleted in one call, between the turns of other steps.
const EXPIRED: usize = 4096;

struct WindowStep<K, V, A, R, U, Q> {
    operator: &'static str,
    window: Tumbling,
    update: U,
    result: Q,
    /// Accumulators, by key and start of the window.
    table: State<Table<K, i64, A>>,
    late: Side<V>,
    /// Starts of the windows that have entries and have not fired. Derived from the state, as `fired` is, so it is not part
    /// of the checkpoint; the keys are in the table alone.
    waiting: BTreeSet<i64>,
    /// Starts of the windows that have fired, and have entries that late records correct.
    fired: BTreeSet<i64>,
    output: PhantomData<fn() -> R>,
}

impl<K, V, A, R, U, Q> Step<K, V> for WindowStep<K, V, A, R, U, Q>
where
    K: StateKey,
    V: Send + 'static,
    A: StateValue,
    R: 'static,
    U: Fn(&mut Option<A>, V) + 'static,
    Q: Fn(&A) -> R + 'static,
{
    type Out = WindowResult<K, R>;

    fn process(&mut self, input: &mut Batch<(K, V)>, cx: &mut StepCx<Self::Out>) -> Result<()> {
        let now = cx.watermark().as_millis();
        let window = self.window;
        let mut hashes = Vec::with_capacity(input.len());
        let mut due = Vec::with_capacity(input.len());
        let columns = input.items.drain(..).zip(input.hashes.drain(..)).zip(input.times.drain(..));
        for (((key, value), hash), time) in columns {
            let start = window.start_of(time);
            if window.expiry_of(start) <= now {
                cx.count_late(1);
                self.late.emit_at(value, time);
            } else {
                hashes.push(hash);
                due.push((key, start, value));
            }
        }
        let (waiting, fired) = (&mut self.waiting, &mut self.fired);
        let (update, result) = (&self.update, &self.result);
        self.table.open().update_batch(
            &hashes,
            &mut due,
            |(key, start, _)| (key, *start),
            |(key, start, value), state| {
                let (new, at) = (state.is_none(), window.last_of(start));
                let set = if at <= now { &mut *fired } else { &mut *waiting };
                update(state, value);
                if new {
                    set.insert(start);
                }
                if at <= now
                    && let Some(state) = state.as_ref()
                {
                    cx.emit_at(made(window, key, start, result(state)), at);
                }
            },
        )?;
        Ok(())
    }

    fn advance(&mut self, to: Moment, cx: &mut StepCx<Self::Out>) -> Result<Advance> {
        let Moment::EventTime(now) = to else { return Ok(Advance::Done) };
        let (now, window) = (now.as_millis(), self.window);
        let mut state = self.table.open();
        // Windows that are over for good, those first that have fired; those that have not do so while they go.
        for (windows, fires) in [(&mut self.fired, false), (&mut self.waiting, true)] {
            while let Some(start) = windows.first().copied().filter(|start| window.expiry_of(*start) <= now) {
                let (at, mut left) = (window.last_of(start), EXPIRED);
                let done = state.take_namespace(start, |key, value| {
                    if fires {
                        cx.emit_at(made(window, key.clone(), start, (self.result)(value)), at);
                    }
                    left -= 1;
                    if left == 0 || cx.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                if !done {
                    return Ok(Advance::More);
                }
                windows.remove(&start);
            }
        }
        // Windows that fire, and are kept for late records.
        while let Some(start) = self.waiting.first().copied().filter(|start| window.last_of(*start) <= now) {
            let at = window.last_of(start);
            let done = state.visit_namespace(start, |key, value| {
                cx.emit_at(made(window, key.clone(), start, (self.result)(value)), at);
                if cx.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if !done {
                return Ok(Advance::More);
            }
            self.waiting.remove(&start);
            self.fired.insert(start);
        }
        Ok(Advance::Done)
    }

    fn restored(&mut self, watermark: Timestamp) -> Result<()> {
        let (window, now) = (self.window, watermark.as_millis());
        (self.fired, self.waiting) =
            self.table.open().namespaces().partition(|start| window.last_of(*start) <= now);
        Ok(())
    }

    fn properties(&self) -> Properties {
        let lateness = self.window.allowed_lateness_ms;
        Properties::of(self.operator)
            .parameter("window", in_words(self.window.length_ms))
            // What is kept is kept longer or shorter from now on; the windows stay the same.
            .changeable("allowed lateness", in_words(lateness))
            .needs_event_time()
            .emits_event_time()
    }
}

fn made<K, R>(window: Tumbling, key: K, start: i64, value: R) -> WindowResult<K, R> {
    let window =
        Window { start: Timestamp::from_millis(start), end: Timestamp::from_millis(window.end_of(start)) };
    WindowResult { key, window, value }
}
