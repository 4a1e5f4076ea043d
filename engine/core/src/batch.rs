//! The unit in which records travel: columns of records, event times and key hashes.

use crate::error::{Error, Result};

/// Records wanted in one batch; steps cut their output to about this size.
pub const BATCH_RECORDS: usize = 1024;

/// Some records, with their event times if the stream has them, and key hashes if it is keyed.
///
/// Columns that a stream does not need stay empty and cost nothing.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    /// The records.
    pub items: Vec<T>,
    /// Event time of each record in milliseconds since the Unix epoch; empty if there is none.
    pub times: Vec<i64>,
    /// Stable hash of each record's key; empty unless the stream is keyed.
    pub hashes: Vec<u64>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { items: Vec::new(), times: Vec::new(), hashes: Vec::new() }
    }
}

impl<T> Batch<T> {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True without records.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Appends a record without event time.
    pub fn push(&mut self, item: T) {
        self.items.push(item);
    }

    /// Appends a record with its event time in milliseconds.
    pub fn push_at(&mut self, item: T, time_ms: i64) {
        self.items.push(item);
        self.times.push(time_ms);
    }

    /// Whether the column of event times is as long as it must be: readers walk the columns side by side, and would
    /// drop what has no partner. Asked once a batch, where a step's output is shipped.
    pub(crate) fn check_times(&self, timed: bool) -> Result<()> {
        let (records, times) = (self.items.len(), self.times.len());
        let (wanted, said) = if timed { (records, "has event times") } else { (0, "has no event times") };
        if times == wanted {
            return Ok(());
        }
        Err(Error::internal(format!(
            "{times} event times for {records} records, in output that {said}: some of it would be lost. A step that \
             says that it emits event time must use `emit_at` for every record, and one that does not say so `emit`"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_an_event_time_for_each_record_or_none_at_all() {
        let mut batch = Batch::default();
        assert!(batch.check_times(true).is_ok() && batch.check_times(false).is_ok());
        batch.push_at('a', 1);
        assert!(batch.check_times(true).is_ok() && batch.check_times(false).is_err());
        batch.push('b');
        let why = batch.check_times(true).unwrap_err().to_string();
        assert!(why.starts_with("1 event times for 2 records"), "{why}");
    }
}
