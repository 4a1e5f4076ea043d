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
use staunch_core::{Keyed, Result, StateKey, StateValue, Stream, Table, Timestamp, hash_key};
use std::collections::BTreeMap;
use std::marker::PhantomData;
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
                open: BTreeMap::new(),
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
    /// The keys of every open window, by the window's start. Derived from the state, so it is not part of the checkpoint.
    open: BTreeMap<i64, OpenWindow<K>>,
    output: PhantomData<fn() -> R>,
}

struct OpenWindow<K> {
    keys: Vec<(u64, K)>,
    /// So many of them had their results put out; late records put out corrections.
    fired: usize,
}

impl<K> Default for OpenWindow<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), fired: 0 }
    }
}

impl<K> OpenWindow<K> {
    fn add(&mut self, hash: u64, key: K, fired: bool) {
        self.keys.push((hash, key));
        self.fired += usize::from(fired);
    }
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
                due.push((key, start, hash, value));
            }
        }
        let (open, update, result) = (&mut self.open, &self.update, &self.result);
        self.table.open().update_batch(
            &hashes,
            &mut due,
            |(key, start, _, _)| (key, *start),
            |(key, start, hash, value), state| {
                let new = state.is_none();
                update(state, value);
                let fired = window.last_of(start) <= now;
                if fired && let Some(state) = state.as_ref() {
                    let at = window.last_of(start);
                    cx.emit_at(made(window, key.clone(), start, result(state)), at);
                }
                if new {
                    open.entry(start).or_default().add(hash, key, fired);
                }
            },
        )?;
        Ok(())
    }

    fn advance(&mut self, to: Moment, cx: &mut StepCx<Self::Out>) -> Result<Advance> {
        let Moment::EventTime(now) = to else { return Ok(Advance::Done) };
        let (now, window) = (now.as_millis(), self.window);
        let mut state = self.table.open();
        for (start, open) in self.open.iter_mut().take_while(|(start, _)| window.last_of(**start) <= now) {
            while let Some((hash, key)) = open.keys.get(open.fired) {
                if cx.is_full() {
                    return Ok(Advance::More);
                }
                open.fired += 1;
                if let Some(value) = state.get(*hash, key, *start)? {
                    let fired = made(window, key.clone(), *start, (self.result)(value));
                    cx.emit_at(fired, window.last_of(*start));
                }
            }
        }
        let mut left = EXPIRED;
        while let Some(mut entry) = self.open.first_entry() {
            let start = *entry.key();
            if window.expiry_of(start) > now {
                break;
            }
            while let Some((hash, key)) = entry.get_mut().keys.pop() {
                state.remove(hash, &key, start)?;
                left -= 1;
                if left == 0 {
                    return Ok(Advance::More);
                }
            }
            entry.remove();
        }
        Ok(Advance::Done)
    }

    fn restored(&mut self, watermark: Timestamp) -> Result<()> {
        let (open, window) = (&mut self.open, self.window);
        self.table.open().for_each(|key, start, _| {
            let fired = window.last_of(start) <= watermark.as_millis();
            open.entry(start).or_default().add(hash_key(key), key.clone(), fired);
        })?;
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
