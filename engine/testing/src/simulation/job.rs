//! The simulated job: running counts into two targets, and windows of event time into a third. Every row
//! names what caused it, so that the observers of the targets know at each commit what must be there.

use super::fate::Fate;
use super::random::Random;
use super::target::{Client, Direct, Observer, StagedRowsTarget, Target};
use super::topic::{Record, Topic};
use serde::{Deserialize, Serialize};
use staunch::core::staged::Staged;
use staunch::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Length of a window of event time.
const WINDOW_MS: u64 = 10;

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
}

impl Shape {
    /// A random one.
    pub fn random(random: &mut Random) -> Self {
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
        }
    }

    /// Whether rows name the records that were read: only then it is known what a drained job has to show.
    pub fn tells_what_was_read(&self) -> bool {
        self.direct || self.staged
    }

    fn records(&self) -> u64 {
        self.lengths.iter().sum()
    }
}

/// A running count: the row that a record causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    key: u64,
    n: u64,
    sum: u64,
    record: Record,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Running {
    n: u64,
    sum: u64,
    last: Option<Record>,
}

/// Records of a key in a window, and the sum of their indexes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Total {
    n: u64,
    sum: u64,
}

/// The row of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WindowRow {
    key: u64,
    start_ms: i64,
    total: Total,
}

/// The targets of a job.
#[derive(Clone)]
pub struct Targets {
    direct: Target<Row>,
    staged: Target<Row>,
    windows: Target<WindowRow>,
    /// Some process was asked to drain: the job may be complete before its input is.
    drained: Arc<AtomicBool>,
}

fn key(shape: &Shape, record: Record) -> u64 {
    (record.index * 7 + u64::from(record.split)) % shape.keys
}

/// Splits go through event time at different speeds, and a little out of order.
fn event_ms(record: Record) -> u64 {
    record.index * (1 + u64::from(record.split)) + record.index % 3
}

impl Targets {
    /// Empty ones.
    pub fn new(shape: &Shape) -> Self {
        let drained = Arc::new(AtomicBool::new(false));
        Self {
            direct: Target::new(counts(shape.clone())),
            staged: Target::new(counts(shape.clone())),
            windows: Target::new(windows(shape, Arc::clone(&drained))),
            drained,
        }
    }

    /// Says whether a process that may complete the job was asked to drain.
    pub fn drain(&self, asked: bool) {
        self.drained.store(asked, SeqCst);
    }

    /// The job over what was read: all of its input, unless it was drained. Then it is as much of each split as
    /// the rows name, and they must name it without a gap.
    fn read(&self, shape: &Shape) -> Result<Shape, String> {
        if !self.drained.load(SeqCst) {
            return Ok(shape.clone());
        }
        let rows = if shape.direct { self.direct.rows() } else { self.staged.rows() };
        let mut lengths = vec![0_u64; shape.lengths.len()];
        for row in &rows {
            let length = &mut lengths[row.record.split as usize];
            *length = (row.record.index + 1).max(*length);
        }
        if lengths.iter().sum::<u64>() != rows.len() as u64 {
            return Err(format!("{} rows name records up to {lengths:?}: some are missing", rows.len()));
        }
        Ok(Shape { lengths, ..shape.clone() })
    }

    /// What was found wrong so far.
    pub fn wrong(&self) -> Option<String> {
        let direct = self.direct.wrong().map(|why| format!("target `direct`: {why}"));
        let staged = || self.staged.wrong().map(|why| format!("target `staged`: {why}"));
        let windows = || self.windows.wrong().map(|why| format!("target `windows`: {why}"));
        direct.or_else(staged).or_else(windows)
    }

    /// Rows that are visible.
    pub fn visible(&self) -> u64 {
        self.direct.visible() + self.staged.visible() + self.windows.visible()
    }

    /// Whether a complete job has left everything there, and nothing else.
    ///
    /// # Errors
    /// Says what is missing, or left over.
    pub fn check_complete(&self, shape: &Shape) -> Result<(), String> {
        let shape = &self.read(shape)?;
        let mut due = expected(shape);
        let expected_windows = due.len() as u64;
        if let Some(row) =
            self.windows.rows().iter().find(|row| due.remove(&(row.key, row.start_ms)) != Some(row.total))
        {
            return Err(format!("target `windows`: {row:?} is not that of the records {:?}", shape.lengths));
        }
        let read = |row: &Row| row.record.index < shape.lengths[row.record.split as usize];
        if let Some(row) = self.staged.rows().iter().find(|row| !read(row)) {
            return Err(format!("target `staged`: {row:?} is not in the other target"));
        }
        let targets = [
            ("direct", shape.direct, self.direct.visible(), shape.records(), self.direct.leftovers()),
            ("staged", shape.staged, self.staged.visible(), shape.records(), self.staged.leftovers()),
            ("windows", shape.windows, self.windows.visible(), expected_windows, self.windows.leftovers()),
        ];
        for (name, there, visible, expected, left) in targets {
            let expected = if there { expected } else { 0 };
            if visible != expected {
                return Err(format!("target `{name}` shows {visible} rows of {expected} at the end"));
            }
            if left > 0 {
                return Err(format!("target `{name}` is left with {left} prepared parts"));
            }
        }
        Ok(())
    }
}

/// Every row is that of the next record of its key: none is missing, doubled or foreign.
fn counts(shape: Shape) -> Observer<Row> {
    let mut keys: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut seen: BTreeSet<(u32, u64)> = BTreeSet::new();
    Box::new(move |rows| {
        for row in rows {
            let Record { split, index } = row.record;
            if shape.lengths.get(split as usize).is_none_or(|length| index >= *length) {
                return Err(format!("foreign: {row:?}"));
            }
            if key(&shape, row.record) != row.key {
                return Err(format!("under a wrong key: {row:?}"));
            }
            if !seen.insert((split, index)) {
                return Err(format!("doubled: {row:?}"));
            }
            let (n, sum) = keys.entry(row.key).or_default();
            (*n, *sum) = (*n + 1, *sum + index);
            if (row.n, row.sum) != (*n, *sum) {
                return Err(format!("after {} rows of its key with sum {}: {row:?}", *n - 1, *sum - index));
            }
        }
        Ok(())
    })
}

fn expected(shape: &Shape) -> BTreeMap<(u64, i64), Total> {
    let mut windows: BTreeMap<(u64, i64), Total> = BTreeMap::new();
    for (split, length) in shape.lengths.iter().enumerate() {
        for index in 0..*length {
            let record = Record { split: split as u32, index };
            let start = event_ms(record) / WINDOW_MS * WINDOW_MS;
            let total = windows.entry((key(shape, record), start as i64)).or_default();
            (total.n, total.sum) = (total.n + 1, total.sum + index);
        }
    }
    windows
}

/// Every window is seen once, and says what a loop over the input says, or less if the job is drained.
fn windows(shape: &Shape, drained: Arc<AtomicBool>) -> Observer<WindowRow> {
    let mut due = expected(shape);
    Box::new(move |rows| {
        for row in rows {
            match due.remove(&(row.key, row.start_ms)) {
                Some(total) if total == row.total => {}
                Some(total) if drained.load(SeqCst) && row.total.n < total.n => {}
                Some(total) => return Err(format!("{total:?} was expected: {row:?}")),
                None => return Err(format!("foreign or doubled: {row:?}")),
            }
        }
        Ok(())
    })
}

/// Builds the graph, for the process with this fate.
///
/// # Errors
/// The plan is wrong.
pub fn build(job: &Job<'_>, shape: &Shape, targets: &Targets, fate: &Fate) -> Result<()> {
    let topic = Topic { lengths: shape.lengths.clone(), pauses: shape.pauses, fate: fate.clone() };
    let timed =
        topic.event_time(|r: &Record| Timestamp::from_millis(event_ms(*r) as i64), Duration::from_millis(4));
    let records = job.source("records", timed);
    let of = shape.clone();
    if shape.windows {
        let windows = Direct(Client::new(targets.windows.clone(), fate.clone()));
        let of = shape.clone();
        records
            .clone()
            .key_by(move |record| key(&of, *record))
            .window(Tumbling::of(Duration::from_millis(WINDOW_MS)))
            .fold("windows", |total: &mut Total, record: Record| {
                (total.n, total.sum) = (total.n + 1, total.sum + record.index);
            })
            .map(|result| WindowRow {
                key: result.key,
                start_ms: result.window.start.as_millis(),
                total: result.value,
            })
            .sink("windows-out", windows);
    }
    if !shape.direct && !shape.staged {
        records.sink("nowhere", staunch::discard::sink());
        return Ok(());
    }
    let rows = records
        .key_by(move |record| key(&of, *record))
        .fold("running", |running: &mut Running, record: Record| {
            (running.n, running.sum) = (running.n + 1, running.sum + record.index);
            running.last = Some(record);
        })
        .flat_map(|(key, Running { n, sum, last })| last.map(|record| Row { key, n, sum, record }));
    if shape.staged {
        let staged = StagedRowsTarget::new(Client::new(targets.staged.clone(), fate.clone()));
        rows.clone().sink("staged", Staged::new(staged));
    }
    if shape.direct {
        rows.sink("direct", Direct(Client::new(targets.direct.clone(), fate.clone())));
    } else {
        rows.sink("nowhere", staunch::discard::sink());
    }
    Ok(())
}
