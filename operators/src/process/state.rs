//! Handles of a process on its states. Each call is about the key that the process is called for.

use super::cx::Cx;
use super::timers::Timers;
use staunch_core::step::{State, StepCx};
use staunch_core::{OrderedTable, Result, StateKey, StateValue, Table, hash_key};
use std::cell::Cell;
use std::ops::{ControlFlow, RangeBounds};
use std::rc::Rc;
use std::time::Duration;

/// A value and, if it has a time to live, until when.
type Kept<V> = (V, Option<Lease>);

/// The event time from which on a value is gone, and the time of the one timer that looks after it. The former moves with
/// every write, the latter follows when it fires.
type Lease = (i64, i64);

/// Whether a value is still there at `now`.
fn is_alive<V>((_, lease): &Kept<V>, now: i64) -> bool {
    lease.is_none_or(|(until, _)| until > now)
}

/// What is to be done about the timer of a value.
enum Timer {
    None,
    Set(i64),
    Delete(i64),
}

/// A value for each key. Made by [`Needs::value`](super::Needs::value).
pub struct Value<K, V>(Rc<Inner<K, V>>);

struct Inner<K, V> {
    name: String,
    table: State<Table<K, (), Kept<V>>>,
    ttl_ms: Cell<Option<i64>>,
    /// What its timers are known by.
    purpose: u32,
}

/// A value whatever its type: what the step does with all of them.
pub(super) trait ValueOf<K> {
    fn name(&self) -> &str;
    fn ttl_ms(&self) -> Option<i64>;
    /// Fetches the memory of keys that are about to be used.
    fn prefetch(&self, hashes: &[u64]);
    /// What its timers are known by.
    fn purpose(&self) -> u32;
    /// Deletes the value of a key if its time is over at `now`, and otherwise says when to look again.
    fn expire(&self, hash: u64, key: &K, now: i64) -> Result<Option<i64>>;
}

impl<K: StateKey, V: StateValue> Value<K, V> {
    pub(super) fn new(name: &str, table: State<Table<K, (), Kept<V>>>) -> Self {
        // By its name, so that a program may have its values in another order.
        let purpose = (hash_key(name) as u32).max(1);
        Self(Rc::new(Inner { name: name.to_owned(), table, ttl_ms: Cell::new(None), purpose }))
    }

    pub(super) fn erased(&self) -> Rc<dyn ValueOf<K>> {
        Rc::clone(&self.0) as Rc<dyn ValueOf<K>>
    }

    /// A value is gone so long after the latest event time at which it was written. The process sees it go by the time of
    /// its records and timers, and so in the same way however fast they come; the state is deleted when the watermark
    /// gets there.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        self.0.ttl_ms.set(Some(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)));
        self
    }

    /// A copy of the value.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn get<O>(&self, cx: &Cx<'_, K, O>) -> Result<Option<V>>
    where
        V: Clone,
    {
        self.read(cx, |value| value.cloned())
    }

    /// What `f` makes of the value.
    ///
    /// # Errors
    /// As [`Value::get`].
    pub fn read<O, R>(&self, cx: &Cx<'_, K, O>, f: impl FnOnce(Option<&V>) -> R) -> Result<R> {
        let mut table = self.0.table.open();
        let kept = table.get(cx.hash, cx.key, ())?;
        let now = cx.time.as_millis();
        Ok(f(kept.filter(|kept| is_alive(kept, now)).map(|(value, _)| value)))
    }

    /// Gives the key a value.
    ///
    /// # Errors
    /// The state cannot be written.
    pub fn set<O>(&self, cx: &mut Cx<'_, K, O>, value: V) -> Result<()> {
        self.update(cx, |slot| *slot = Some(value))
    }

    /// Takes the value away, and returns it.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn take<O>(&self, cx: &mut Cx<'_, K, O>) -> Result<Option<V>> {
        self.update(cx, Option::take)
    }

    /// Changes the value in place, and returns what `f` returns. `None` in: there is none; `None` out: it is deleted.
    ///
    /// # Errors
    /// As [`Value::set`].
    pub fn update<O, R>(&self, cx: &mut Cx<'_, K, O>, f: impl FnOnce(&mut Option<V>) -> R) -> Result<R> {
        let now = cx.time.as_millis();
        let mut timer = Timer::None;
        let out = self.0.table.open().update_one(cx.hash, cx.key, (), |slot| {
            let before = slot.as_ref().and_then(|(_, lease)| *lease);
            let mut value = slot.take().filter(|kept| is_alive(kept, now)).map(|(value, _)| value);
            let out = f(&mut value);
            *slot = value.map(|value| {
                let lease = self.0.ttl_ms.get().map(|ttl| {
                    let until = now.saturating_add(ttl);
                    // A record that is out of order shortens no life. The timer stays where it is.
                    before.map_or((until, until), |(old, looks_at)| (old.max(until), looks_at))
                });
                (value, lease)
            });
            // One timer looks after a value, however often it is written, and goes with it.
            timer = match (before, slot.as_ref().and_then(|(_, lease)| *lease)) {
                (None, Some((_, at))) => Timer::Set(at),
                (Some((_, at)), None) => Timer::Delete(at),
                _ => Timer::None,
            };
            out
        })?;
        match timer {
            Timer::None => {}
            Timer::Set(at) => cx.timers.set(cx.hash, cx.key, (at, self.0.purpose), cx.step)?,
            Timer::Delete(at) => cx.timers.delete(cx.hash, cx.key, (at, self.0.purpose))?,
        }
        Ok(out)
    }
}

impl<K: StateKey, V: StateValue> ValueOf<K> for Inner<K, V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn ttl_ms(&self) -> Option<i64> {
        self.ttl_ms.get()
    }

    fn prefetch(&self, hashes: &[u64]) {
        self.table.open().prefetch(hashes, ());
    }

    fn purpose(&self) -> u32 {
        self.purpose
    }

    fn expire(&self, hash: u64, key: &K, now: i64) -> Result<Option<i64>> {
        let mut table = self.table.open();
        // Another timer looks after it, or none: this one is of a value that was there before it.
        let lease = table.get(hash, key, ())?.and_then(|(_, lease)| *lease);
        let Some((until, _)) = lease.filter(|(_, looks_at)| *looks_at == now) else { return Ok(None) };
        table
            .update_one(hash, key, (), |slot| {
                if until <= now {
                    *slot = None;
                    return None;
                }
                if let Some((_, lease)) = slot {
                    *lease = Some((until, until));
                }
                Some(until)
            })
            .map_err(Into::into)
    }
}

/// Has a value looked at again when its time is over.
pub(super) fn expire<K: StateKey, O>(
    value: &dyn ValueOf<K>,
    (hash, key): (u64, &K),
    now: i64,
    timers: &mut Timers<K>,
    step: &mut StepCx<O>,
) -> Result<()> {
    match value.expire(hash, key, now)? {
        Some(at) => timers.set(hash, key, (at, value.purpose()), step),
        None => Ok(()),
    }
}

/// A map for each key, in order. Made by [`Needs::ordered`](super::Needs::ordered).
pub struct OrderedMap<K, M, V>(State<OrderedTable<K, M, V>>);

impl<K: StateKey, M: StateValue, V: StateValue> OrderedMap<K, M, V> {
    pub(super) fn new(table: State<OrderedTable<K, M, V>>) -> Self {
        Self(table)
    }

    /// Puts a value at a place, and returns what was there.
    ///
    /// # Errors
    /// The state cannot be written.
    pub fn insert<O>(&self, cx: &mut Cx<'_, K, O>, at: &M, value: V) -> Result<Option<V>> {
        Ok(self.0.open().insert(cx.hash, cx.key, at, value)?)
    }

    /// Takes what is at a place away, and returns it.
    ///
    /// # Errors
    /// As [`OrderedMap::insert`].
    pub fn remove<O>(&self, cx: &mut Cx<'_, K, O>, at: &M) -> Result<Option<V>> {
        Ok(self.0.open().remove(cx.hash, cx.key, at)?)
    }

    /// Changes the value at a place, and returns what `f` returns. `None` in: there is none; `None` out: it is deleted.
    ///
    /// # Errors
    /// As [`OrderedMap::insert`].
    pub fn update<O, R>(
        &self,
        cx: &mut Cx<'_, K, O>,
        at: &M,
        f: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R> {
        Ok(self.0.open().update(cx.hash, cx.key, at, f)?)
    }

    /// A copy of the value at a place.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn get<O>(&self, cx: &Cx<'_, K, O>, at: &M) -> Result<Option<V>>
    where
        V: Clone,
    {
        Ok(self.0.open().get(cx.hash, cx.key, at)?.cloned())
    }

    /// Visits a range in order, until `visit` breaks.
    ///
    /// # Errors
    /// As [`OrderedMap::get`].
    pub fn range<O>(
        &self,
        cx: &Cx<'_, K, O>,
        range: impl RangeBounds<M>,
        visit: impl FnMut(M, &V) -> ControlFlow<()>,
    ) -> Result<()> {
        Ok(self.0.open().range(cx.hash, cx.key, range, visit)?)
    }

    /// Takes the first away, and returns it.
    ///
    /// # Errors
    /// As [`OrderedMap::insert`].
    pub fn pop_first<O>(&self, cx: &mut Cx<'_, K, O>) -> Result<Option<(M, V)>> {
        Ok(self.0.open().pop_first(cx.hash, cx.key)?)
    }

    /// Deletes a range; returns how many there were.
    ///
    /// # Errors
    /// As [`OrderedMap::insert`].
    pub fn remove_range<O>(&self, cx: &mut Cx<'_, K, O>, range: impl RangeBounds<M>) -> Result<usize> {
        Ok(self.0.open().remove_range(cx.hash, cx.key, range)?)
    }
}
