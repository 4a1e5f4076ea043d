//! Running a job with a time limit, and looking into its checkpoint directory.

use staunch::core::{Metrics, Request, run};
use staunch::prelude::*;
use staunch_checkpoint::{Book, Kind, Manifest, Record, Segment, SplitPart};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;
use tempfile::TempDir;

/// A job that is not back after this long hangs.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A checkpoint directory, and how jobs are run on it.
pub struct Place {
    /// Removed when this is dropped.
    _dir: TempDir,
    pub config: RunConfig,
}

/// A new, empty place: checkpoints every 10 ms, one worker.
pub fn place() -> Place {
    // RUST_LOG=debug shows what the engine does.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_default();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    let dir = tempfile::tempdir().unwrap();
    let config = RunConfig {
        checkpoint_every: Some(Duration::from_millis(10)),
        ..RunConfig::new("test", dir.path().join("checkpoints"))
    };
    Place { _dir: dir, config }
}

impl Place {
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.workers = workers;
        self
    }

    pub fn every_ms(mut self, every_ms: u64) -> Self {
        self.config.checkpoint_every = Some(Duration::from_millis(every_ms));
        self
    }

    pub fn only_the_last_checkpoint(mut self) -> Self {
        self.config.checkpoint_every = None;
        self
    }

    /// Starts the job on a thread of its own.
    pub fn start<B>(&self, build: B) -> Running
    where
        B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
    {
        let (controls, metrics) = (Controls::default(), Metrics::new("test"));
        let (sender, ended) = channel();
        let (config, remote, seen) = (self.config.clone(), controls.clone(), metrics.clone());
        std::thread::spawn(move || {
            let _ = sender.send(run(build, config, remote, seen));
        });
        Running { ended, controls, metrics }
    }

    /// Runs the job to its end.
    pub fn run<B>(&self, build: B) -> Result<Outcome>
    where
        B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
    {
        self.start(build).wait()
    }

    /// Runs the job to its end, which must be a good one.
    pub fn finish<B>(&self, build: B)
    where
        B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
    {
        assert_eq!(self.run(build).unwrap(), Outcome::Finished);
    }

    /// Runs the job, which must fail, and returns what it says.
    pub fn fail<B>(&self, build: B) -> Error
    where
        B: for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static,
    {
        match self.run(build) {
            Err(error) => error,
            Ok(outcome) => panic!("the job should have failed, and was {outcome:?}"),
        }
    }

    /// The records of the checkpoint log, oldest first.
    pub fn log(&self) -> Vec<Record> {
        let log = self.config.checkpoints.join("log");
        let read = |name: String| match std::fs::read(log.join(&name)) {
            Ok(bytes) => Some(Record::decode(&format!("log/{name}"), &bytes).unwrap()),
            // Deleted since it was listed: the job may be running.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => panic!("log/{name}: {e}"),
        };
        files(&log).into_iter().filter_map(read).collect()
    }

    /// The checkpoints of the log, oldest first.
    pub fn manifests(&self) -> Vec<Manifest> {
        let manifest = |record| match record {
            Record::Checkpoint(manifest) => Some(*manifest),
            Record::Fence(_) => None,
        };
        self.log().into_iter().filter_map(manifest).collect()
    }

    /// All splits that the newest checkpoint knows, in the order of identities. They are read again if a file of
    /// them goes away meanwhile: the job may be running.
    pub fn splits(&self, source: &str) -> Vec<SplitPart> {
        'again: loop {
            let Some(manifest) = self.manifests().pop() else { return Vec::new() };
            let mut segments = Vec::new();
            for file in &manifest.sources[source].segments {
                match std::fs::read(self.config.checkpoints.join(&file.name)) {
                    Ok(bytes) => segments.push(Segment::decode(file, &bytes).unwrap()),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue 'again,
                    Err(e) => panic!("{}: {e}", file.name),
                }
            }
            return Book::restore(&manifest, [(source.to_owned(), segments)].into()).splits(source);
        }
    }

    /// Names of all files below `state/`.
    pub fn state_files(&self) -> Vec<String> {
        files(&self.config.checkpoints.join("state"))
    }

    /// After a clean end: nothing is left to be committed, and no file is left that nobody lists.
    pub fn assert_tidy(&self) {
        let manifests = self.manifests();
        let plain: Vec<_> = manifests.iter().filter(|m| !matches!(m.kind, Kind::Savepoint { .. })).collect();
        let (more, _) = plain.split_at(plain.len().saturating_sub(self.config.retained));
        let pending = |manifest: &Manifest| -> Vec<_> {
            manifest.sinks.values().flat_map(|sink| sink.pending.clone()).collect()
        };
        for manifest in more {
            let open = plain.last().map(|newest| pending(newest)).unwrap_or_default();
            let was_open = pending(manifest).iter().any(|piece| open.contains(piece));
            assert!(was_open, "checkpoint {} is kept for nothing", manifest.checkpoint);
        }
        let shards = manifests.iter().flat_map(|m| m.states.values()).flat_map(|s| &s.shards);
        let mut listed: Vec<&str> =
            shards.flat_map(|s| &s.files).map(|f| f.name.strip_prefix("state/").unwrap()).collect();
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(self.state_files(), listed, "the files of state and those that checkpoints list");
        let segments = manifests.iter().flat_map(|m| m.sources.values()).flat_map(|s| &s.segments);
        let listed: std::collections::BTreeSet<String> = segments.map(|file| file.name.clone()).collect();
        let stored = files(&self.config.checkpoints.join("splits"));
        let stored = stored.into_iter().map(|name| format!("splits/{name}")).collect();
        assert_eq!(listed, stored, "the files of splits and those that checkpoints list");
        assert!(!self.config.checkpoints.join("work").exists(), "the working directory is left");
    }
}

/// Paths of all files below a folder, relative to it, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = folder.read_dir() else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found.sort_unstable();
    found
}

/// A job that runs.
pub struct Running {
    ended: Receiver<Result<Outcome>>,
    pub controls: Controls,
    pub metrics: Metrics,
}

impl Running {
    /// How the job ended; panics if it does not.
    pub fn wait(&self) -> Result<Outcome> {
        match self.ended.recv_timeout(LIMIT) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => panic!("the job hangs"),
            Err(RecvTimeoutError::Disconnected) => panic!("run() panicked instead of returning an error"),
        }
    }

    pub fn stop(&self) -> Outcome {
        self.controls.request(Request::Stop);
        self.wait().unwrap()
    }

    pub fn drain(&self) {
        self.controls.request(Request::Drain);
        assert_eq!(self.wait().unwrap(), Outcome::Finished);
    }

    pub fn has_ended(&self) -> bool {
        !matches!(self.ended.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout))
    }

    /// The sum of a metric over all its labels; those that `labels` does not occur in are left out.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(&self.metrics, name, labels)
    }
}

pub fn metric(metrics: &Metrics, name: &str, labels: &str) -> f64 {
    let text = metrics.render().unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    lines
        .filter(|line| matches!(line.as_bytes().get(name.len()), Some(b'{' | b' ')))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Waits until something is true.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The same small pseudo-random numbers in each run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `below`.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % below
    }
}

/// Something that happens once, after so many uses.
#[derive(Clone, Default)]
pub struct Fuse(Arc<std::sync::atomic::AtomicI64>);

impl Fuse {
    /// Goes off at the given use, the first being 1; never, if it is 0.
    pub fn at(nth: u64) -> Self {
        let fuse = Self::default();
        fuse.set(nth);
        fuse
    }

    pub fn set(&self, nth: u64) {
        self.0.store(nth as i64, std::sync::atomic::Ordering::SeqCst);
    }

    /// Uses it once; true if it goes off now.
    pub fn burn(&self) -> bool {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 1
    }
}
