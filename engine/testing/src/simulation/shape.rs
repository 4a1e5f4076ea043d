//! How large the simulated job is and which parts it has, the rows that it puts out, and what a loop over its input
//! says of them.

use super::random::Random;
use super::topic::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Length of a window of event time.
pub const WINDOW_MS: u64 = 10;

/// How large the job is, and which parts it has.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Records of each split.
    pub lengths: Vec<u64>,
    /// Keys.
    pub keys: u64,
    /// Polls that find nothing, out of a thousand.
    pub pauses: u64,
    /// The running counts go into a sink that prepares at its target.
    pub direct: bool,
    /// They go into a staged sink.
    pub staged: bool,
    /// There are windows.
    pub windows: bool,
    /// So many of the splits, the last ones, belong to a second source; the streams of both are united.
    pub second: usize,
    /// Records are up to so much earlier than their neighbours: more than is waited for, and some come late for their
    /// windows.
    pub disorder_ms: u64,
    /// Memory for keyed state, in bytes: more than the job has, too little, or none.
    pub state_bytes: usize,
}

impl Shape {
    /// A random one.
    pub fn random(random: &mut Random, more: &mut Random, later: &mut Random) -> Self {
        let splits = random.between(1, 4);
        let longest = [0, 3, 40, 150, 500][random.weighted(&[1, 2, 6, 6, 2])];
        let parts = random.below(8);
        Self {
            lengths: (0..splits).map(|_| random.between(0, longest)).collect(),
            keys: random.between(1, 9),
            pauses: [0, 100, 600][random.weighted(&[2, 2, 1])],
            direct: parts != 1 && parts != 2,
            staged: parts < 4 && parts != 2,
            windows: parts == 2 || parts > 5,
            second: if more.permille(400) { more.below(splits + 1) as usize } else { 0 },
            disorder_ms: [0, 5, 60][more.weighted(&[3, 1, 1])],
            state_bytes: [1 << 30, 3000, 0][later.weighted(&[3, 1, 1])],
        }
    }

    /// Whether rows name the records that were read: only then it is known what a drained job has to show.
    pub fn tells_what_was_read(&self) -> bool {
        self.direct || self.staged
    }

    /// Records of all splits.
    pub fn records(&self) -> u64 {
        self.lengths.iter().sum()
    }

    /// The key of a record.
    pub fn key(&self, record: Record) -> u64 {
        (record.index * 7 + u64::from(record.split)) % self.keys
    }

    /// Splits go through event time at different speeds, and a little out of order, or more than a little.
    pub fn event_ms(&self, record: Record) -> u64 {
        let time = record.index * (1 + u64::from(record.split)) + record.index % 3;
        let is_early = record.index * 31 % 7 == 3;
        time.saturating_sub(if is_early { self.disorder_ms } else { 0 })
    }

    /// Start of the window that a record belongs to.
    pub fn window_of(&self, record: Record) -> i64 {
        (self.event_ms(record) / WINDOW_MS * WINDOW_MS) as i64
    }

    /// Every window with what all of its records come to, late ones too.
    pub fn windows(&self) -> BTreeMap<(u64, i64), Total> {
        let mut windows: BTreeMap<(u64, i64), Total> = BTreeMap::new();
        for (split, length) in self.lengths.iter().enumerate() {
            for index in 0..*length {
                let record = Record { split: split as u32, index };
                windows.entry((self.key(record), self.window_of(record))).or_default().add(record);
            }
        }
        windows
    }
}

/// A running count: the row that a record causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: u64,
    /// Records of the key so far.
    pub n: u64,
    /// The sum of their indexes.
    pub sum: u64,
    /// The record that caused the row.
    pub record: Record,
}

/// Records of a key in a window, and the sum of their indexes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Total {
    /// Records.
    pub n: u64,
    /// The sum of their indexes.
    pub sum: u64,
}

impl Total {
    /// One record more.
    pub fn add(&mut self, record: Record) {
        (self.n, self.sum) = (self.n + 1, self.sum + record.index);
    }
}

/// The row of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WindowRow {
    /// The key.
    pub key: u64,
    /// First millisecond of the window.
    pub start_ms: i64,
    /// What its records came to, those that were not late.
    pub total: Total,
}
