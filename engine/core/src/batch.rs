//! The unit in which records travel: columns of records, event times and key hashes.

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
}
