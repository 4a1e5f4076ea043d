//! The reference sink as a target: what the tests of jobs collect into is put through the suite too.

use super::{Can, MemoryStorage, Row, Target, row};
use staunch::memory::Collected;

impl Target for Collected<Row> {
    type Record = Row;
    type Sink = Self;

    fn sink(&self) -> Self {
        self.clone()
    }

    fn record(&self, n: u64) -> Row {
        row(n)
    }

    fn visible(&self) -> Vec<Row> {
        self.committed()
    }

    fn leftovers(&self, _: &MemoryStorage) -> usize {
        self.prepared_parts()
    }

    fn lose_prepared(&self, _: &MemoryStorage) -> Can {
        self.clear_prepared();
        Can::Done(())
    }

    fn lose_next_answer(&self, _: &MemoryStorage) -> Can {
        Can::Not("a commit in memory is a function call, whose answer cannot be lost")
    }
}
