//! Tests of whole jobs: scripted input, crashes at named points, and what each sink has published.
//!
//! A job runs as it is, on the real runtime in a simulated process (see [`crate::simulation`]); only the
//! sources that are fed and the sinks that are collected are replaced, by the names of their steps. Time is
//! simulated, and every choice of the schedule comes from a seed, so a test takes milliseconds and goes the
//! same way each time. A real sink may stay, if the test says so ([`JobTest::real_sink`]).
//!
//! ```
//! use staunch::{file, prelude::*};
//! use staunch_testing::{Crash, JobTest, script};
//!
//! fn counts(job: &Job, output: &PathBuf) -> Result<()> {
//!     job.source("words", file::lines("words.txt"))
//!         .key_by(|word| word.clone())
//!         .count("counts")
//!         .sink("output", file::csv(output));
//!     Ok(())
//! }
//!
//! let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
//! let script = script().records(words("a b")).barrier().crash(Crash::AfterPrepare).records(words("a")).end();
//! let mut test = JobTest::new(counts, PathBuf::from("nowhere")).feed("words", script);
//! let output = test.collect::<(String, u64)>("output");
//! test.run_to_end().unwrap();
//! let mut rows = output.committed();
//! rows.sort();
//! assert_eq!(rows, [("a".into(), 1), ("a".into(), 2), ("b".into(), 1)]);
//! ```

mod feed;
mod run;
mod script;

pub use script::{Crash, Script, script};

use crate::simulation::fate::Fate;
use crate::simulation::target::{Client, Direct, Target};
use feed::{Fed, Gauge};
use script::Step;
use staunch::core::doubles::Doubles;
use staunch::core::{Job, Result, RunConfig};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A job's program, its arguments filled in.
pub(crate) type Program = Arc<dyn for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync>;
/// Puts the doubles of one process in place.
type Stand = Box<dyn Fn(&Fate, &mut Doubles)>;

/// A test of a job. See the [module](self).
pub struct JobTest {
    program: Program,
    stands: Vec<Stand>,
    scripts: Vec<(String, Arc<Gauge>, Vec<Step>)>,
    /// Sinks with a double.
    collected: BTreeSet<String>,
    /// Sinks that stay as they are.
    real: BTreeSet<String>,
    config: RunConfig,
    seed: u64,
    batch: u64,
}

/// Why a test did not come to its end. Its `Debug` is its text, so that `unwrap` shows it well.
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// What a sink has published; clones look at the same.
pub struct Collected<T>(Target<T>);

impl<T: Clone> Collected<T> {
    /// What everybody can see, in the order in which it was published.
    pub fn committed(&self) -> Vec<T> {
        self.0.rows()
    }

    /// The same, piece by piece: what a worker wrote for one checkpoint becomes visible at once.
    pub fn pieces(&self) -> Vec<Vec<T>> {
        self.0.pieces()
    }

    /// Prepared pieces that nobody sees: none, once the job has ended well.
    pub fn leftovers(&self) -> usize {
        self.0.leftovers()
    }
}

impl JobTest {
    /// A test of this program with these arguments, on one worker.
    pub fn new<A: Send + Sync + 'static>(
        program: impl for<'s> Fn(&Job<'s>, &A) -> Result<()> + Send + Sync + 'static,
        arguments: A,
    ) -> Self {
        Self {
            program: Arc::new(move |job| program(job, &arguments)),
            stands: Vec::new(),
            scripts: Vec::new(),
            collected: BTreeSet::new(),
            real: BTreeSet::new(),
            config: RunConfig { checkpoint_every: None, ..RunConfig::new("test", "simulated") },
            seed: 0,
            batch: 0,
        }
    }

    /// The source of this name reads what the script says. The scripts of several sources take turns,
    /// step by step.
    #[must_use]
    pub fn feed<T: Clone + Send + Sync + 'static>(mut self, source: &str, script: Script<T>) -> Self {
        let (records, gauge) = (Arc::new(script.records), Arc::new(Gauge::default()));
        let (name, fed) = (source.to_owned(), Arc::clone(&gauge));
        self.stands.push(Box::new(move |_, doubles| {
            let fed = Fed { records: Arc::clone(&records), gauge: Arc::clone(&fed) };
            doubles.source(&name, fed);
        }));
        self.scripts.push((source.to_owned(), gauge, script.steps));
        self
    }

    /// What goes into the sink of this name is collected instead. A sink that is neither collected nor kept
    /// ([`JobTest::real_sink`]) fails the test before anything runs.
    pub fn collect<T: Clone + Send + 'static>(&mut self, sink: &str) -> Collected<T> {
        self.collected.insert(sink.to_owned());
        let target: Target<T> = Target::new(|| Box::new(|_| Ok(())));
        let (name, collected) = (sink.to_owned(), target.clone());
        self.stands.push(Box::new(move |fate, doubles| {
            doubles.sink(&name, Direct(Client::new(collected.clone(), fate.clone())));
        }));
        Collected(target)
    }

    /// The sink of this name stays as it is: it writes to its real target, and dies and starts again with the
    /// process. Give each test a target of its own; what is there at the end is for the test to compare. Also
    /// for sinks whose output no test wants, such as `staunch::discard::sink()`.
    ///
    /// A process dies by going no further than the point, and by being dropped: a client of a target is dropped
    /// too. Work that the sink does on threads of its own does not stop there, and points in it are not seen; work
    /// in [`staunch::core::background::blocking`] does, and they are. There is no network for tokio's own clients.
    #[must_use]
    pub fn real_sink(mut self, sink: &str) -> Self {
        self.real.insert(sink.to_owned());
        self
    }

    /// Starts with this number of workers.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.workers = workers;
        self
    }

    /// Memory for keyed state, in bytes; what does not fit goes into a sorted map, where a real run has RocksDB.
    #[must_use]
    pub fn state_bytes(mut self, bytes: usize) -> Self {
        self.config.state_bytes = bytes;
        self
    }

    /// Another schedule: which part of the process moves when. A test that passes with one should pass
    /// with all of them.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sources hand out at most this many records at once.
    #[must_use]
    pub fn batches_of(mut self, records: u64) -> Self {
        self.batch = records;
        self
    }

    /// Runs all scripts, and then the job to its end.
    ///
    /// # Errors
    /// The job fails, a crash point is never passed, the script does not get on, or it is not said of each sink
    /// whether it is collected or kept.
    pub fn run_to_end(&mut self) -> Result<(), Failed> {
        run::run(self).map_err(Failed)
    }
}
