//! The simulated job: running counts into two targets, windows of event time into a third, and what came too late for
//! them into a fourth. Every row names what caused it, so that the observers of the targets know at each commit what
//! must be there.

use super::fate::Fate;
use super::observers::{counts, late, together, windows};
use super::shape::{Row, Shape, Total, WINDOW_MS, WindowRow};
use super::target::{Client, Direct, StagedRowsTarget, Target};
use super::topic::{Broker, Record, Topic};
use serde::{Deserialize, Serialize};
use staunch::core::staged::Staged;
use staunch::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

#[derive(Clone, Default, Serialize, Deserialize)]
struct Running {
    n: u64,
    sum: u64,
    last: Option<Record>,
}

/// The targets of a job.
#[derive(Clone)]
pub struct Targets {
    direct: Target<Row>,
    staged: Target<Row>,
    windows: Target<WindowRow>,
    /// Staged: its sink is of the other kind than that of the windows.
    late: Target<Record>,
    broker: Broker,
    /// Some process was asked to drain: the job may be complete before its input is.
    drained: Arc<AtomicBool>,
}

impl Targets {
    /// Empty ones.
    pub fn new(shape: &Shape) -> Self {
        let drained = Arc::new(AtomicBool::new(false));
        Self {
            direct: Target::new(observing(shape, |shape| counts(shape.clone()))),
            staged: Target::new(observing(shape, |shape| counts(shape.clone()))),
            windows: Target::new(observing(shape, {
                let drained = Arc::clone(&drained);
                move |shape| windows(shape, Arc::clone(&drained))
            })),
            late: Target::new(observing(shape, |shape| late(shape.clone()))),
            broker: Broker::default(),
            drained,
        }
    }

    /// A process was stopped: what it has read is acknowledged.
    ///
    /// # Errors
    /// Says what is not.
    pub fn check_stopped(&self, process: &str) -> Result<(), String> {
        self.broker.check_stopped(process)
    }

    /// Somebody goes back: the input is delivered again.
    pub fn deliver_again(&self) {
        self.broker.deliver_again();
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
        let late = || self.late.wrong().map(|why| format!("target `late`: {why}"));
        direct.or_else(staged).or_else(windows).or_else(late)
    }

    /// A process was told to go on from `checkpoint` (`None`: from nothing), leaving newer ones behind: what they
    /// published will be published again, so whoever chose that has taken it out of the targets. Returns how many
    /// rows those were.
    pub fn go_back(&self, checkpoint: Option<u32>) -> usize {
        self.direct.go_back(checkpoint)
            + self.staged.go_back(checkpoint)
            + self.windows.go_back(checkpoint)
            + self.late.go_back(checkpoint)
    }

    /// Rows that are visible.
    pub fn visible(&self) -> u64 {
        self.direct.visible() + self.staged.visible() + self.windows.visible() + self.late.visible()
    }

    /// Records that came too late for their windows.
    pub fn late(&self) -> u64 {
        self.late.visible()
    }

    /// Whether a complete job has left everything there, and nothing else.
    ///
    /// # Errors
    /// Says what is missing, or left over.
    pub fn check_complete(&self, shape: &Shape) -> Result<(), String> {
        let shape = &self.read(shape)?;
        if !self.drained.load(SeqCst) || shape.tells_what_was_read() {
            self.broker.check_all_forgotten(&shape.lengths)?;
        }
        if shape.windows {
            let all = together(&self.windows.rows(), &self.late.rows(), shape)?;
            let due = shape.windows();
            if let Some((window, total)) = due.iter().find(|(window, total)| all.get(*window) != Some(*total))
            {
                let found = all.get(window);
                return Err(format!(
                    "the window {window:?} came to {found:?}, late records included, not to {total:?}"
                ));
            }
            if all.len() != due.len() {
                return Err(format!("there are {} windows, not {}", all.len(), due.len()));
            }
        }
        let read = |row: &Row| row.record.index < shape.lengths[row.record.split as usize];
        if let Some(row) = self.staged.rows().iter().find(|row| !read(row)) {
            return Err(format!("target `staged`: {row:?} is not in the other target"));
        }
        let targets = [
            ("direct", shape.direct, self.direct.visible(), shape.records(), self.direct.leftovers()),
            ("staged", shape.staged, self.staged.visible(), shape.records(), self.staged.leftovers()),
            (
                "windows",
                shape.windows,
                self.windows.visible(),
                self.windows.visible(),
                self.windows.leftovers(),
            ),
            ("late", shape.windows, self.late.visible(), self.late.visible(), self.late.leftovers()),
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

/// Makes observers of the job of this shape, one after the other.
fn observing<R>(
    shape: &Shape,
    make: impl Fn(&Shape) -> super::target::Observer<R> + Send + 'static,
) -> impl Fn() -> super::target::Observer<R> + Send + 'static {
    let shape = shape.clone();
    move || make(&shape)
}

/// Builds the graph, for the process with this fate.
///
/// # Errors
/// The plan is wrong.
pub fn build(job: &Job<'_>, shape: &Shape, targets: &Targets, fate: &Fate) -> Result<()> {
    let source = |name, splits: Range<usize>| {
        let topic = Topic {
            first: splits.start as u32,
            lengths: shape.lengths[splits].to_vec(),
            pauses: shape.pauses,
            broker: targets.broker.clone(),
            fate: fate.clone(),
        };
        let of = shape.clone();
        let time = move |record: &Record| Timestamp::from_millis(of.event_ms(*record) as i64);
        job.source(name, topic.event_time(time, Duration::from_millis(4)))
    };
    let (all, first) = (shape.lengths.len(), shape.lengths.len() - shape.second);
    let mut records = source("records", 0..first);
    if shape.second > 0 {
        records = records.union(source("others", first..all));
    }
    let of = shape.clone();
    if shape.windows {
        let windows = Direct(Client::new(targets.windows.clone(), fate.clone()));
        let of = shape.clone();
        let (results, late) = records
            .clone()
            .key_by(move |record| of.key(*record))
            .window(Tumbling::of(Duration::from_millis(WINDOW_MS)))
            .fold_with_late("windows", |total: &mut Total, record: Record| total.add(record));
        results
            .map(|result| WindowRow {
                key: result.key,
                start_ms: result.window.start.as_millis(),
                total: result.value,
            })
            .sink("windows-out", windows);
        let client = Client::new(targets.late.clone(), fate.clone());
        late.sink("late", Staged::new(StagedRowsTarget::new(client)));
    }
    if !shape.direct && !shape.staged {
        records.sink("nowhere", staunch::discard::sink());
        return Ok(());
    }
    let rows = records
        .key_by(move |record| of.key(*record))
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
