//! The timers of a process: of its own, and those that look after the time to live of its values.

use staunch_core::step::{State, StepCx};
use staunch_core::{Result, StateKey, TimerTable, Timestamp, hash_key};
use std::collections::VecDeque;

/// The purpose of a timer that the process has set. Others are of values.
pub(super) const USER: u32 = 0;
/// Timers taken out of the table at a time.
const TAKEN: usize = 1024;

/// Event time in milliseconds, and what the timer is for.
pub(super) type Due = (i64, u32);

pub(super) struct Timers<K> {
    table: State<TimerTable<Due, K>>,
    /// Taken out of the table, and next to be fired. Empty whenever a barrier passes: the step is not done before.
    taken: VecDeque<(Due, K)>,
    /// A timer was set that is due already, and may come before those that were taken.
    is_past: bool,
}

impl<K: StateKey> Timers<K> {
    pub(super) fn new(table: State<TimerTable<Due, K>>) -> Self {
        Self { table, taken: VecDeque::new(), is_past: false }
    }

    pub(super) fn set<O>(&mut self, hash: u64, key: &K, due: Due, cx: &mut StepCx<O>) -> Result<()> {
        if due.0 <= cx.watermark().as_millis() {
            if self.taken.iter().any(|(other, of)| *other == due && of == key) {
                return Ok(());
            }
            self.is_past = true;
            cx.advance_again();
        }
        self.table.open().set(hash, &due, key)?;
        Ok(())
    }

    pub(super) fn delete(&mut self, hash: u64, key: &K, due: Due) -> Result<()> {
        if !self.table.open().delete(hash, &due, key)? {
            self.taken.retain(|(other, of)| *other != due || of != key);
        }
        Ok(())
    }

    /// The next timer that is due.
    pub(super) fn next(&mut self, watermark: Timestamp) -> Result<Option<(Due, K)>> {
        if self.is_past {
            // Back, and out again in the right order.
            self.is_past = false;
            let mut table = self.table.open();
            for (due, key) in self.taken.drain(..) {
                table.set(hash_key(&key), &due, &key)?;
            }
        }
        if self.taken.is_empty() {
            let mut taken = Vec::new();
            self.table.open().take_due(&(watermark.as_millis(), u32::MAX), TAKEN, &mut taken)?;
            self.taken.extend(taken);
        }
        Ok(self.taken.pop_front())
    }

    /// Keys of the timers that are next, as many as there are at hand.
    pub(super) fn ahead(&self) -> impl Iterator<Item = &K> {
        self.taken.iter().map(|(_, key)| key)
    }
}
