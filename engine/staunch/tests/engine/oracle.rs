//! One job with state for the tests that stop, crash and rescale, and what its output must be.
//!
//! Each split makes a numbered sequence; a record's key is its split and its number's remainder. So the
//! records of a key have a known order, and its running totals are known: output number `n` of a key
//! must be the sum of its first `n` values, once and in order, however often the job was broken off.

use staunch::core::sink::Sink;
use staunch::generator;
use staunch::prelude::*;
use std::collections::BTreeMap;

pub type Key = (u32, u64);
/// Key, how many records, their sum.
pub type Total = (Key, (u64, u64));

/// The size of the input.
#[derive(Clone, Copy)]
pub struct Input {
    pub splits: u32,
    /// Records of each split.
    pub records: u64,
    /// Keys of each split.
    pub keys: u64,
}

fn value(number: u64) -> u64 {
    number.wrapping_mul(7) % 1000
}

impl Input {
    /// Adds the job: running totals by key. `pass` sees every record on its way to the state.
    pub fn totals<S>(self, job: &Job<'_>, sink: S, pass: impl Fn(u64) + 'static)
    where
        S: Sink<Record = Total>,
    {
        let keys = self.keys;
        job.source(
            "numbers",
            generator::sequence(Some(self.records), self.splits, |split, number| (split, number)),
        )
        .inspect(move |(_, number)| pass(*number))
        .key_by(move |(split, number)| (*split, *number % keys))
        .fold("totals", |total: &mut (u64, u64), (_, number)| {
            total.0 += 1;
            total.1 += value(number);
        })
        .sink("output", sink);
    }

    /// Checks what is committed so far; returns how many records that covers.
    pub fn check_prefix(self, committed: &[Total]) -> u64 {
        let mut reached: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
        for (key, total) in committed {
            let (split, remainder) = *key;
            let (count, sum) = reached.entry(*key).or_default();
            *sum += value(remainder + *count * self.keys);
            *count += 1;
            assert_eq!(
                total,
                &(*count, *sum),
                "output {count} of key {key:?}: lost, doubled or out of order"
            );
            assert!(split < self.splits && remainder < self.keys);
        }
        committed.len() as u64
    }

    /// Checks the output of a complete run.
    pub fn check_all(self, committed: &[Total]) {
        assert_eq!(self.check_prefix(committed), u64::from(self.splits) * self.records);
    }
}
