//! Ordered state: for each key a map in order, and timers in the order of their times.

use super::any::{AnyTable, Fill};
use super::sorted::{Range, Sorted, behind};
use super::{FreezeMode, Frozen, TableConfig, TableStats};
use crate::error::StateError;
use crate::group::Groups;
use crate::key::{StateKey, StateValue, hash_key};
use crate::order::{self, OrderError};
use crate::stored;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::path::Path;

/// What ordered state is sorted by: anything with an order-preserving form, see [`crate::order`].
pub trait Ordered: Serialize + DeserializeOwned + 'static {}
impl<T: Serialize + DeserializeOwned + 'static> Ordered for T {}

/// For each key a map from `M` to `V`, in the order of `M`. See [`crate::order`] for what can be a key and an `M`,
/// and in which order they are.
///
/// As of a [`Table`](crate::Table), the `hash` of every call is the [`hash_key`] of its key.
pub struct OrderedTable<K, M, V> {
    sorted: Sorted<V>,
    /// For encoded keys.
    buffer: Vec<u8>,
    types: PhantomData<fn(K, M)>,
}

impl<K: StateKey, M: Ordered, V: StateValue> OrderedTable<K, M, V> {
    /// An empty table. RocksDB is opened when the budget is first exceeded.
    #[must_use]
    pub fn new(config: TableConfig) -> Self {
        let hash_of = |bytes: &[u8]| {
            let (key, rest) = order::take::<K>(bytes)?;
            let (_, rest) = order::take::<M>(rest)?;
            if rest.is_empty() { Ok(hash_key(&key)) } else { Err(OrderError::damaged("the end of a place")) }
        };
        Self { sorted: Sorted::new(config, hash_of), buffer: Vec::new(), types: PhantomData }
    }

    /// The value at a place in a key's map; a spilled one is loaded into memory.
    ///
    /// # Errors
    /// The types have no order, the RocksDB tier failed, or holds a value that does not decode.
    pub fn get(&mut self, hash: u64, key: &K, at: &M) -> Result<Option<&V>, StateError> {
        let group = self.encode(hash, key, at)?;
        self.sorted.get(group, &self.buffer)
    }

    /// Changes the value at a place and returns what `f` returns. `None` in: there is none; `None` out: deleted.
    ///
    /// # Errors
    /// As [`OrderedTable::get`]; or the key belongs to another worker, or a value under freeze could not be
    /// serialised: go back to a checkpoint.
    pub fn update<R>(
        &mut self,
        hash: u64,
        key: &K,
        at: &M,
        f: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, StateError> {
        let group = self.encode(hash, key, at)?;
        self.sorted.update(group, &self.buffer, f)
    }

    /// Puts a value at a place, and returns what was there.
    ///
    /// # Errors
    /// As [`OrderedTable::update`].
    pub fn insert(&mut self, hash: u64, key: &K, at: &M, value: V) -> Result<Option<V>, StateError> {
        self.update(hash, key, at, |slot| slot.replace(value))
    }

    /// Deletes what is at a place, and returns it.
    ///
    /// # Errors
    /// As [`OrderedTable::update`].
    pub fn remove(&mut self, hash: u64, key: &K, at: &M) -> Result<Option<V>, StateError> {
        self.update(hash, key, at, Option::take)
    }

    /// Visits a range of a key's map in order, until `visit` breaks.
    ///
    /// # Errors
    /// As [`OrderedTable::get`].
    pub fn range(
        &mut self,
        hash: u64,
        key: &K,
        range: impl RangeBounds<M>,
        visit: impl FnMut(M, &V) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.visit(hash, key, range, false, visit)
    }

    /// As [`OrderedTable::range`], from the last to the first.
    ///
    /// # Errors
    /// As [`OrderedTable::get`].
    pub fn range_back(
        &mut self,
        hash: u64,
        key: &K,
        range: impl RangeBounds<M>,
        visit: impl FnMut(M, &V) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.visit(hash, key, range, true, visit)
    }

    /// The first of a key's map.
    ///
    /// # Errors
    /// As [`OrderedTable::get`].
    pub fn first(&mut self, hash: u64, key: &K) -> Result<Option<(M, &V)>, StateError> {
        self.edge(hash, key, false)
    }

    /// The last of a key's map.
    ///
    /// # Errors
    /// As [`OrderedTable::get`].
    pub fn last(&mut self, hash: u64, key: &K) -> Result<Option<(M, &V)>, StateError> {
        self.edge(hash, key, true)
    }

    /// Takes the first out of a key's map.
    ///
    /// # Errors
    /// As [`OrderedTable::update`].
    pub fn pop_first(&mut self, hash: u64, key: &K) -> Result<Option<(M, V)>, StateError> {
        Ok(self.take_range(hash, key, .., 1)?.pop())
    }

    /// Takes the first `limit` of a range out of a key's map. Many at once cost less than one after another.
    ///
    /// # Errors
    /// As [`OrderedTable::update`].
    pub fn take_range(
        &mut self,
        hash: u64,
        key: &K,
        range: impl RangeBounds<M>,
        limit: usize,
    ) -> Result<Vec<(M, V)>, StateError> {
        let (group, range, prefix) = self.bounds(hash, key, &range)?;
        let taken = self.sorted.take(group, &range, limit)?;
        let name = &self.sorted.tier.config.name;
        taken.into_iter().map(|(bytes, value)| Ok((decode(name, &bytes[prefix..])?, value))).collect()
    }

    /// Deletes a range of a key's map; returns how many there were.
    ///
    /// # Errors
    /// As [`OrderedTable::update`].
    pub fn remove_range(
        &mut self,
        hash: u64,
        key: &K,
        range: impl RangeBounds<M>,
    ) -> Result<usize, StateError> {
        let (group, range, _) = self.bounds(hash, key, &range)?;
        Ok(self.sorted.take(group, &range, usize::MAX)?.len())
    }

    /// Visits everything: groups ascending, in each in the order of keys and places.
    ///
    /// # Errors
    /// As [`OrderedTable::get`].
    pub fn for_each(&mut self, mut visit: impl FnMut(&K, M, &V)) -> Result<(), StateError> {
        let name = &self.sorted.tier.config.name;
        for group in self.sorted.owned() {
            self.sorted.scan(*group, &everything(), false, &mut |bytes, value| {
                let (key, rest) = order::take::<K>(bytes).map_err(|error| StateError::order(name, &error))?;
                visit(&key, decode(name, rest)?, value);
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }

    fn visit(
        &mut self,
        hash: u64,
        key: &K,
        range: impl RangeBounds<M>,
        backwards: bool,
        mut visit: impl FnMut(M, &V) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let (group, range, prefix) = self.bounds(hash, key, &range)?;
        let name = &self.sorted.tier.config.name;
        self.sorted.scan(group, &range, backwards, &mut |bytes, value| {
            Ok(visit(decode(name, &bytes[prefix..])?, value))
        })
    }

    fn edge(&mut self, hash: u64, key: &K, backwards: bool) -> Result<Option<(M, &V)>, StateError> {
        let (group, range, prefix) = self.bounds(hash, key, &..)?;
        let mut found = None;
        self.sorted.scan(group, &range, backwards, &mut |bytes, _| {
            found = Some(bytes.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        let Some(bytes) = found else { return Ok(None) };
        let at = decode(&self.sorted.tier.config.name, &bytes[prefix..])?;
        Ok(self.sorted.get(group, &bytes)?.map(|value| (at, value)))
    }

    /// Puts the encoded place into the buffer; returns its group.
    fn encode(&mut self, hash: u64, key: &K, at: &M) -> Result<u16, StateError> {
        self.buffer.clear();
        let encoded = order::append(key, &mut self.buffer).and_then(|()| order::append(at, &mut self.buffer));
        encoded.map_err(|error| StateError::order(&self.sorted.tier.config.name, &error))?;
        Ok(self.sorted.tier.config.groups.of(hash))
    }

    /// The group of a key, a range of its map, and how much of each encoded place is the key.
    fn bounds(
        &self,
        hash: u64,
        key: &K,
        range: &impl RangeBounds<M>,
    ) -> Result<(u16, Range, usize), StateError> {
        let refused = |error: OrderError| StateError::order(&self.sorted.tier.config.name, &error);
        let mut prefix = Vec::new();
        order::append(key, &mut prefix).map_err(refused)?;
        let end = |at: &M, behind: bool| {
            let mut bytes = prefix.clone();
            order::append(at, &mut bytes).map_err(refused)?;
            // The next that there can be: no encoding is the beginning of another.
            bytes.extend(behind.then_some(0));
            Ok::<_, StateError>(bytes)
        };
        let from = match range.start_bound() {
            Bound::Included(at) => end(at, false)?,
            Bound::Excluded(at) => end(at, true)?,
            Bound::Unbounded => prefix.clone(),
        };
        let to = match range.end_bound() {
            Bound::Included(at) => Some(end(at, true)?),
            Bound::Excluded(at) => Some(end(at, false)?),
            Bound::Unbounded => behind(&prefix),
        };
        Ok((self.sorted.tier.config.groups.of(hash), Range { from, to }, prefix.len()))
    }
}

/// Timers: for each key group a set of times and keys, in the order of the times. A time that is set twice for a key
/// is one timer.
pub struct TimerTable<T, K> {
    sorted: Sorted<()>,
    /// For encoded timers.
    buffer: Vec<u8>,
    types: PhantomData<fn(T, K)>,
}

impl<T: Ordered, K: StateKey> TimerTable<T, K> {
    /// No timers. RocksDB is opened when the budget is first exceeded.
    #[must_use]
    pub fn new(config: TableConfig) -> Self {
        let hash_of = |bytes: &[u8]| {
            let (_, rest) = order::take::<T>(bytes)?;
            let (key, rest) = order::take::<K>(rest)?;
            if rest.is_empty() { Ok(hash_key(&key)) } else { Err(OrderError::damaged("the end of a timer")) }
        };
        Self { sorted: Sorted::new(config, hash_of), buffer: Vec::new(), types: PhantomData }
    }

    /// Sets a timer; true if it was not set.
    ///
    /// # Errors
    /// As [`OrderedTable::update`].
    pub fn set(&mut self, hash: u64, time: &T, key: &K) -> Result<bool, StateError> {
        let group = self.encode(hash, time, key)?;
        self.sorted.update(group, &self.buffer, |timer| timer.replace(()).is_none())
    }

    /// Deletes a timer; true if it was set.
    ///
    /// # Errors
    /// As [`OrderedTable::update`].
    pub fn delete(&mut self, hash: u64, time: &T, key: &K) -> Result<bool, StateError> {
        let group = self.encode(hash, time, key)?;
        self.sorted.update(group, &self.buffer, |timer| timer.take().is_some())
    }

    /// Takes at most `limit` timers out that are due at `upto`, it included, and appends them to `due`: groups
    /// ascending, in each in the order of times and keys. True if there may be more. Timers that are not due are
    /// not touched.
    ///
    /// # Errors
    /// As [`OrderedTable::update`].
    pub fn take_due(&mut self, upto: &T, limit: usize, due: &mut Vec<(T, K)>) -> Result<bool, StateError> {
        let mut to = Vec::new();
        order::append(upto, &mut to)
            .map_err(|error| StateError::order(&self.sorted.tier.config.name, &error))?;
        let range = Range { from: Vec::new(), to: behind(&to) };
        let mut left = limit;
        for at in 0..self.sorted.owned().len() {
            let group = self.sorted.owned()[at];
            let taken = self.sorted.take(group, &range, left)?;
            left -= taken.len();
            for (bytes, ()) in taken {
                due.push(decode(&self.sorted.tier.config.name, &bytes)?);
            }
            if left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The earliest time that is set.
    ///
    /// # Errors
    /// As [`OrderedTable::get`].
    pub fn earliest(&self) -> Result<Option<T>, StateError> {
        let mut earliest: Option<Vec<u8>> = None;
        for group in self.sorted.owned() {
            self.sorted.scan(*group, &everything(), false, &mut |bytes, ()| {
                if earliest.as_deref().is_none_or(|earliest| bytes < earliest) {
                    earliest = Some(bytes.to_vec());
                }
                Ok(ControlFlow::Break(()))
            })?;
        }
        let time = |bytes: Vec<u8>| order::take::<T>(&bytes).map(|(time, _)| time);
        earliest
            .map(time)
            .transpose()
            .map_err(|error| StateError::order(&self.sorted.tier.config.name, &error))
    }

    /// Visits all timers: groups ascending, in each in the order of times and keys.
    ///
    /// # Errors
    /// As [`OrderedTable::get`].
    pub fn for_each(&self, mut visit: impl FnMut(T, K)) -> Result<(), StateError> {
        for group in self.sorted.owned() {
            self.sorted.scan(*group, &everything(), false, &mut |bytes, ()| {
                let (time, key) = decode(&self.sorted.tier.config.name, bytes)?;
                visit(time, key);
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }

    fn encode(&mut self, hash: u64, time: &T, key: &K) -> Result<u16, StateError> {
        self.buffer.clear();
        let encoded =
            order::append(time, &mut self.buffer).and_then(|()| order::append(key, &mut self.buffer));
        encoded.map_err(|error| StateError::order(&self.sorted.tier.config.name, &error))?;
        Ok(self.sorted.tier.config.groups.of(hash))
    }
}

/// All of a group.
fn everything() -> Range {
    Range { from: Vec::new(), to: None }
}

fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, StateError> {
    match order::take(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(StateError::order(name, &OrderError::damaged("the end of a key"))),
        Err(error) => Err(StateError::order(name, &error)),
    }
}

macro_rules! any_table {
    ($table:ty, [$($bounds:tt)*], $($role:literal: $stored:ty),*) => {
        impl<$($bounds)*> AnyTable for $table {
            fn name(&self) -> &str {
                &self.sorted.tier.config.name
            }

            fn owned(&self) -> &[u16] {
                self.sorted.owned()
            }

            fn check_types(&self) -> Result<(), StateError> {
                $(stored::check::<$stored>(&self.sorted.tier.config.name, $role)?;)*
                Ok(())
            }

            fn begin_freeze(&mut self, mode: FreezeMode) -> Result<(), StateError> {
                self.sorted.begin_freeze(mode)
            }

            fn is_freezing(&self) -> bool {
                self.sorted.tier.is_freezing()
            }

            fn freeze_slice(&mut self, budget: &mut usize) -> Result<bool, StateError> {
                self.sorted.freeze_some(budget)
            }

            fn take_frozen(&mut self) -> Result<Frozen, StateError> {
                self.sorted.take_frozen()
            }

            fn maintain(&mut self) -> Result<bool, StateError> {
                self.sorted.maintain()
            }

            fn wants_checkpoint(&self) -> bool {
                self.sorted.tier.wants_checkpoint()
            }

            fn let_dirty_move(&mut self) {
                self.sorted.tier.let_dirty_move();
            }

            fn needs_base(&self) -> bool {
                self.sorted.tier.needs_base
            }

            fn stats(&self) -> TableStats {
                self.sorted.stats()
            }
        }

        impl<$($bounds)*> Fill for $table {
            fn groups(&self) -> Groups {
                self.sorted.tier.config.groups
            }

            fn load_section(&mut self, group: u16, bytes: &[u8]) -> Result<u64, StateError> {
                self.sorted.load_section(group, bytes)
            }

            fn scratch(&self) -> &Path {
                &self.sorted.tier.config.spill_dir
            }

            fn adopt(&mut self) -> Result<(), StateError> {
                self.sorted.adopt()
            }

            fn import(&mut self, folder: &Path, groups: &[u16]) -> Result<u64, StateError> {
                self.sorted.import(folder, groups)
            }
        }
    };
}

any_table!(OrderedTable<K, M, V>, [K: StateKey, M: Ordered, V: StateValue], "key": K, "place": M, "state": V);
any_table!(TimerTable<T, K>, [T: Ordered, K: StateKey], "time": T, "key": K);
