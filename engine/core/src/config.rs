//! How a job is run: everything that is not the job itself.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

pub use staunch_checkpoint::Guarantee;
/// Which checkpoint to begin from.
pub use staunch_checkpoint::recovery::From as StartFrom;

/// Settings of one run. [`RunConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Name of the job; kept in its checkpoints.
    pub job: String,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Directory of the checkpoints.
    pub checkpoints: PathBuf,
    /// Time between checkpoints; `None` takes them only at a stop and at the end.
    pub checkpoint_every: Option<Duration>,
    /// A checkpoint that is not complete after this long is abandoned and tried again.
    pub checkpoint_timeout: Duration,
    /// Checkpoints that may fail in a row before the job stops.
    pub tolerated_failures: u32,
    /// Checkpoints to keep, savepoints apart.
    pub retained: usize,
    /// Where to begin.
    pub from: StartFrom,
    /// Number of key groups, fixed when the job first starts; the most workers that state can be
    /// spread over.
    pub groups: u16,
    /// Memory for keyed state in this process, in bytes; what does not fit goes to disk.
    pub state_bytes: usize,
    /// Working directory for state on disk: each start has a directory of its own in it, and removes those of
    /// older starts of the job. Default: `work` in the directory of the checkpoints.
    pub state_dir: Option<PathBuf>,
    /// Bytes that one source instance may have in flight.
    pub inflight_bytes: usize,
    /// Wall-clock length of a step of progress.
    pub step: Duration,
    /// How long a source may take to list its splits at the start, or to open one, and a sink to be opened, checked or
    /// recovered, before the run ends.
    pub open_timeout: Duration,
    /// How long a commit may take, with all its repetitions, before the job stops.
    pub commit_timeout: Duration,
    /// At least once: no step waits for the barrier of its other inputs. What it takes of the next epoch
    /// meanwhile is in the checkpoint, and is read again after a crash: nothing is lost, but effects of
    /// such records show twice, in state and in output. A later run exactly once is refused.
    pub guarantee: Guarantee,
    /// Steps that may go on with other parameters than those of the checkpoint, where that has a meaning. Without, a
    /// change is refused.
    pub accept_changes: BTreeSet<String>,
}

impl RunConfig {
    /// Defaults: one worker, a checkpoint a second, the three newest kept, 1 GiB of state in memory.
    pub fn new(job: impl Into<String>, checkpoints: impl Into<PathBuf>) -> Self {
        Self {
            job: job.into(),
            workers: 1,
            checkpoints: checkpoints.into(),
            checkpoint_every: Some(Duration::from_secs(1)),
            checkpoint_timeout: Duration::from_secs(60),
            tolerated_failures: 5,
            retained: 3,
            from: StartFrom::Latest,
            groups: 128,
            state_bytes: 1 << 30,
            state_dir: None,
            inflight_bytes: 16 << 20,
            step: Duration::from_millis(5),
            open_timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(60),
            guarantee: Guarantee::ExactlyOnce,
            accept_changes: BTreeSet::new(),
        }
    }
}
