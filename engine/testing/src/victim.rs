//! The victim's place on disk, over all its lives, and how a life is begun.

use crate::audit::{self, Expected, Findings};
use crate::oracle::{Evidence, Failure, Oracle};
use crate::{power, quiescence, rows};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// In a life with a fault, a checkpoint that is not complete after this long is abandoned: short, so that lost
/// acknowledgements cost little.
pub const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(400);

/// The same in lives without a fault.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// What a process says that ends because another one, which stands still in a transaction or has a long one, holds the
/// database's lock. Safe: the next start goes on.
pub(crate) const LOCKED: &str = "database is locked";

/// Where the victim writes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sinks {
    /// Into part files and into SQLite.
    Both,
    /// Into part files only.
    Files,
    /// Into SQLite only.
    Table,
}

impl Sinks {
    /// All of them.
    pub const ALL: [Sinks; 3] = [Sinks::Both, Sinks::Files, Sinks::Table];

    pub(crate) fn files(self) -> bool {
        self != Sinks::Table
    }

    pub(crate) fn table(self) -> bool {
        self != Sinks::Files
    }
}

impl fmt::Display for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sinks::Both => "files and SQLite",
            Sinks::Files => "files alone",
            Sinks::Table => "SQLite alone",
        })
    }
}

/// A victim, over all its lives.
#[derive(Clone, Debug)]
pub struct Victim {
    program: PathBuf,
    dir: PathBuf,
    /// What it is to do.
    pub expected: Expected,
    /// Where to.
    pub sinks: Sinks,
    /// Records a second, on all workers together; `None`: as many as it can.
    pub rate: Option<u64>,
    /// Time between checkpoints, as an argument.
    pub every: String,
    /// Whether it only promises to lose nothing.
    pub at_least_once: bool,
    /// Whether what it writes and syncs is recorded, for [`Victim::cut_power`].
    pub disk_log: bool,
    /// Whether it reads its records from files, see [`Victim::write_input`], and does not make them up.
    pub reads_files: bool,
    /// Memory for its state, as an argument, if it is to be less than usual.
    pub state_memory: Option<&'static str>,
    /// A bug planted in all lives, see the crate `staunch-crash`.
    pub bug: Option<&'static str>,
    lives: u32,
}

/// How one life is to go.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Worker threads; 0 is taken as 1.
    pub workers: u32,
    /// What is armed, see the crate `staunch-crash`.
    pub crash: Option<String>,
    /// Further variables of its environment.
    pub variables: Vec<(&'static str, OsString)>,
    /// Whether checkpoints are abandoned early though no crash point is armed.
    pub impatient: bool,
    /// Which checkpoint it begins from, if not the newest.
    pub from: Option<u32>,
    /// How long publishing may take, as an argument, if it is to be another time than usual.
    pub commit_timeout: Option<&'static str>,
}

impl Victim {
    /// A victim that has not lived yet, in an empty directory.
    #[must_use]
    pub fn new(program: &Path, dir: &Path, expected: Expected) -> Self {
        Self {
            program: program.to_owned(),
            dir: dir.to_owned(),
            expected,
            sinks: Sinks::Both,
            rate: Some(20_000),
            every: "20ms".into(),
            at_least_once: false,
            disk_log: false,
            reads_files: false,
            state_memory: None,
            bug: None,
            lives: 0,
        }
    }

    /// Where part files are published.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        // More than one new folder, which all have to survive a power cut.
        self.dir.join("output").join("parts")
    }

    /// The database with the table.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.dir.join("rows.db")
    }

    /// The checkpoint directory.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    /// Where its records are, if it reads files.
    #[must_use]
    pub fn input(&self) -> PathBuf {
        self.dir.join("input")
    }

    /// Writes its records into files, one for each split.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_input(&self) -> io::Result<()> {
        fs::create_dir_all(self.input())?;
        for split in 0..self.expected.splits {
            let line = |index| format!("{{\"split\":{split},\"index\":{index}}}\n");
            let lines: String = (0..self.expected.records).map(line).collect();
            fs::write(self.input().join(format!("split-{split}.jsonl")), lines)?;
        }
        Ok(())
    }

    fn hits_file(&self) -> PathBuf {
        self.dir.join("hits")
    }

    fn disk_log_file(&self) -> PathBuf {
        self.dir.join("disk-log")
    }

    /// What a life said; the newest is the number of [`Victim::lives`].
    #[must_use]
    pub fn log(&self, life: u32) -> String {
        fs::read_to_string(self.dir.join(format!("log-{life}"))).unwrap_or_default()
    }

    /// What the last life said.
    #[must_use]
    pub fn last_log(&self) -> String {
        self.log(self.lives)
    }

    /// How many lives have begun.
    #[must_use]
    pub fn lives(&self) -> u32 {
        self.lives
    }

    /// Begins a life.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&mut self, life: &Life) -> io::Result<Child> {
        self.lives += 1;
        let log = File::create(self.dir.join(format!("log-{}", self.lives)))?;
        let Expected { records, splits, keys } = self.expected;
        let workers = u64::from(life.workers.max(1));
        // Where nothing is armed, a slow disk must not make checkpoints fail.
        let timeout = if life.crash.is_some() || life.impatient { CHECKPOINT_TIMEOUT } else { PLAIN_TIMEOUT };
        let mut command = Command::new(&self.program);
        command
            .args(["--job-name", "victim", "--checkpoint-every", &self.every])
            .args(["--checkpoint-timeout", &format!("{}ms", timeout.as_millis())])
            .args(["--records", &records.to_string(), "--splits", &splits.to_string()])
            .args(["--keys", &keys.to_string(), "--workers", &workers.to_string()])
            .arg("--checkpoints")
            .arg(self.checkpoints())
            .env("STAUNCH_CRASH_HITS", self.hits_file())
            .env_remove("STAUNCH_CRASH")
            .env_remove("STAUNCH_BUG")
            .env_remove("STAUNCH_DISK_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if self.sinks.files() {
            command.arg("--output").arg(self.output());
        }
        if self.sinks.table() {
            command.arg("--sqlite").arg(self.database());
        }
        if let Some(rate) = self.rate {
            command.args(["--rate", &(rate / workers).max(1).to_string()]);
        }
        if self.at_least_once {
            command.args(["--guarantee", "at-least-once"]);
        }
        if self.disk_log {
            command.env("STAUNCH_DISK_LOG", self.disk_log_file());
        }
        if let Some(bug) = self.bug {
            command.env("STAUNCH_BUG", bug);
        }
        if self.reads_files {
            command.arg("--input").arg(self.input());
        }
        if let Some(memory) = self.state_memory {
            command.args(["--state-memory", memory]);
        }
        if let Some(checkpoint) = life.from {
            command.args(["--from", &checkpoint.to_string()]);
        }
        if let Some(limit) = life.commit_timeout {
            command.args(["--commit-timeout", limit]);
        }
        command.envs(life.variables.iter().map(|(name, value)| (name, value)));
        if let Some(crash) = &life.crash {
            command.env("STAUNCH_CRASH", crash);
        }
        command.spawn()
    }

    /// How often a crash point was passed in all lives so far, by one worker if one is given.
    #[must_use]
    pub fn hits(&self, point: &str, worker: Option<u32>) -> u32 {
        let hits = fs::read_to_string(self.hits_file()).unwrap_or_default();
        let here = |line: &&str| {
            let (name, of) = line.split_once(' ').map_or((*line, None), |(name, of)| (name, of.parse().ok()));
            name == point && (worker.is_none() || of == worker)
        };
        hits.lines().filter(here).count() as u32
    }

    /// Makes a further start possible while a stopped process still holds the lock, as on a storage
    /// without locks: what is left then is the fence.
    ///
    /// # Errors
    /// The lock file cannot be removed.
    pub fn break_lock(&self) -> io::Result<()> {
        fs::remove_file(self.checkpoints().join("lock"))
    }

    /// Takes away what a power cut would have taken, now that no life is left; see [`power`].
    ///
    /// # Errors
    /// The log of the disk cannot be read, or something cannot be taken away.
    pub fn cut_power(&self) -> io::Result<usize> {
        power::cut(&self.disk_log_file(), &self.dir)
    }

    /// The identity audit and the prefix sums of each sink that there is, by its name, and the number of rows.
    ///
    /// # Errors
    /// The output cannot be read.
    pub fn findings(&self) -> Result<(Vec<(&'static str, Findings)>, u64), Failure> {
        let mut all = Vec::new();
        if self.sinks.table() {
            let table = rows::open(&self.database()).and_then(|open| rows::of_table(&open, i64::MIN));
            all.push(("table", table.map_err(Failure::trouble)?.0));
        }
        if self.sinks.files() {
            all.push(("files", rows::of_files(&self.output()).map_err(Failure::trouble)?));
        }
        let count = all.iter().map(|(_, rows)| rows.len() as u64).sum();
        let audit = |(sink, rows): (_, Vec<_>)| (sink, audit::audit(&self.expected, &rows));
        Ok((all.into_iter().map(audit).collect(), count))
    }

    /// The judgement on the rows of a complete job, by identity and prefix sums; how many there are.
    ///
    /// # Errors
    /// An oracle found something.
    pub fn judge_rows(&self) -> Result<u64, Failure> {
        let (all, rows) = self.findings()?;
        for (sink, findings) in all {
            let Findings { missing, doubled, foreign, wrong_prefix } = findings;
            if missing + doubled + foreign > 0 {
                let what = format!("{sink}: {missing} missing, {doubled} doubled, {foreign} foreign");
                return Err(Failure::Violation(Oracle::Identity, what));
            }
            if wrong_prefix > 0 {
                let what = format!("{sink}: {wrong_prefix} rows are not the prefix of their key");
                return Err(Failure::Violation(Oracle::PrefixSums, what));
            }
        }
        Ok(rows)
    }

    /// The judgement on a complete job: identity, prefix sums, quiescence.
    ///
    /// # Errors
    /// An oracle found something.
    pub fn judge(&self) -> Result<Evidence, Failure> {
        let rows = self.judge_rows()?;
        let left = quiescence::leftovers(self).map_err(Failure::Trouble)?;
        if !left.is_empty() {
            return Err(Failure::Violation(Oracle::Quiescence, left.join("; ")));
        }
        Ok(Evidence { rows, ..Evidence::default() })
    }
}
