//! What is compared, and what is measured of each.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Worker threads, for all.
pub const WORKERS: usize = 2;

/// A program that counts by key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Variant {
    /// Raw timely, `std::collections::HashMap`, no checkpoints: what all is compared with.
    Timely,
    /// The same with a hash function as fast as the engine's.
    TimelyFastHash,
    /// The engine, without checkpoints.
    Off,
    /// The engine, a checkpoint a second.
    Every1s,
    /// The engine, ten checkpoints a second.
    Every100ms,
    /// A RocksDB get and put for each record, no checkpoints.
    Rocksdb,
}

impl Variant {
    /// In the order of a round.
    pub const ALL: [Self; 6] =
        [Self::Timely, Self::TimelyFastHash, Self::Off, Self::Every1s, Self::Every100ms, Self::Rocksdb];

    /// For the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Timely => "raw timely, std HashMap, no checkpoints",
            Self::TimelyFastHash => "raw timely, HashMap with a fast hash, no checkpoints",
            Self::Off => "Staunch, checkpoints off",
            Self::Every1s => "Staunch, a checkpoint every 1 s",
            Self::Every100ms => "Staunch, a checkpoint every 100 ms",
            Self::Rocksdb => "naive RocksDB get + put, no checkpoints",
        }
    }

    /// Time between checkpoints, of the engine.
    pub fn interval(self) -> Option<Duration> {
        match self {
            Self::Every1s => Some(Duration::from_secs(1)),
            Self::Every100ms => Some(Duration::from_millis(100)),
            _ => None,
        }
    }
}

/// What one run of a variant showed, in the time after its keys were all there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Records counted in a second by all workers together.
    pub records_per_second: f64,
    /// Processor time of the whole process for a record, in nanoseconds. Less disturbed by other
    /// programs than the rate.
    pub processor_ns: f64,
    /// The most memory the process ever had.
    pub peak_bytes: u64,
    /// Memory when the measured time began.
    pub resident_before_bytes: u64,
    /// Memory when it ended.
    pub resident_after_bytes: u64,
    /// Of the engine with checkpoints.
    pub checkpoints: Option<Checkpoints>,
}

/// What the checkpoints of a run cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checkpoints {
    /// Barrier to decision of each, in milliseconds.
    pub durations_ms: Vec<f64>,
    /// Longest single stall of a step, since the start of the run.
    pub longest_stall_ms: f64,
    /// Bytes written for the state, on average.
    pub bytes_each: f64,
    /// Checkpoints abandoned, since the start of the run.
    pub failed: u64,
}
