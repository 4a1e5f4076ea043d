//! Starting, stopping and killing the victim.

use crate::audit::{self, Expected, Findings};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A victim's place on disk, over all its lives.
#[derive(Debug)]
pub struct Victim {
    program: PathBuf,
    dir: PathBuf,
    /// What it is to do.
    pub expected: Expected,
    /// Records a second on each worker.
    pub rate: u64,
    /// Time between checkpoints, as an argument.
    pub every: String,
    /// A bug planted in all lives, see the crate `staunch-crash`.
    pub bug: Option<&'static str>,
    /// Published files as last seen.
    published: BTreeMap<String, u64>,
    lives: u32,
}

/// How one life is to go.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Worker threads; 0 is taken as 2.
    pub workers: u32,
    /// `NAME:ACTION:NTH`, see the crate `staunch-crash`.
    pub crash: Option<String>,
}

impl Victim {
    /// A victim that has not lived yet, in an empty directory.
    pub fn new(program: impl Into<PathBuf>, dir: impl Into<PathBuf>, expected: Expected) -> Self {
        Self {
            program: program.into(),
            dir: dir.into(),
            expected,
            rate: 20_000,
            every: "20ms".into(),
            bug: None,
            published: BTreeMap::new(),
            lives: 0,
        }
    }

    fn output(&self) -> PathBuf {
        self.dir.join("output")
    }

    fn database(&self) -> PathBuf {
        self.dir.join("rows.db")
    }

    fn checkpoints(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    fn hits_file(&self) -> PathBuf {
        self.dir.join("hits")
    }

    /// What the last life said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join(format!("log-{}", self.lives))).unwrap_or_default()
    }

    /// Begins a life.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&mut self, life: &Life) -> io::Result<Child> {
        self.lives += 1;
        let log = File::create(self.dir.join(format!("log-{}", self.lives)))?;
        let Expected { records, splits, keys } = self.expected;
        let mut command = Command::new(&self.program);
        command
            .args(["--job-name", "victim", "--checkpoint-every", &self.every])
            .args(["--records", &records.to_string(), "--splits", &splits.to_string()])
            .args(["--keys", &keys.to_string(), "--rate", &self.rate.to_string()])
            .args(["--workers", &life.workers.max(1).to_string()])
            .arg("--output")
            .arg(self.output())
            .arg("--sqlite")
            .arg(self.database())
            .arg("--checkpoints")
            .arg(self.checkpoints())
            .env("STAUNCH_CRASH_HITS", self.hits_file())
            .env_remove("STAUNCH_CRASH")
            .env_remove("STAUNCH_BUG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(bug) = self.bug {
            command.env("STAUNCH_BUG", bug);
        }
        if let Some(crash) = &life.crash {
            command.env("STAUNCH_CRASH", crash);
        }
        command.spawn()
    }

    /// How often a crash point was passed in all lives so far.
    pub fn hits(&self, point: &str) -> usize {
        let hits = fs::read_to_string(self.hits_file()).unwrap_or_default();
        hits.lines().filter(|line| *line == point).count()
    }

    /// Makes a further start possible while a stopped process still holds the lock, as on a storage
    /// without locks: what is left then is the fence.
    ///
    /// # Errors
    /// The lock file cannot be removed.
    pub fn break_lock(&self) -> io::Result<()> {
        fs::remove_file(self.checkpoints().join("lock"))
    }

    /// The observer: nothing that was published may change or disappear.
    ///
    /// # Errors
    /// It did, or the directory cannot be read.
    pub fn observe(&mut self) -> Result<(), String> {
        let now = audit::published(&self.output()).map_err(|e| e.to_string())?;
        for (name, bytes) in &self.published {
            if now.get(name) != Some(bytes) {
                return Err(format!("published file {name} changed or disappeared"));
            }
        }
        self.published = now;
        Ok(())
    }

    /// The audits, once the job is complete: identity and prefix sums of both sinks, and quiescence.
    ///
    /// # Errors
    /// Something is wrong; the text says what.
    pub fn audit(&self) -> Result<(), String> {
        let rows = audit::rows_of_files(&self.output()).map_err(|e| e.to_string())?;
        check("files", &audit::audit(&self.expected, &rows))?;
        let rows = audit::rows_of_table(&self.database()).map_err(|e| e.to_string())?;
        check("table", &audit::audit(&self.expected, &rows))?;
        let left = leftovers(&self.output().join(".pending")) + leftovers(&self.checkpoints().join("staged"));
        if left > 0 {
            return Err(format!("{left} prepared files are left over"));
        }
        Ok(())
    }
}

fn check(sink: &str, findings: &Findings) -> Result<(), String> {
    if findings.is_clean() { Ok(()) } else { Err(format!("{sink}: {findings:?}")) }
}

fn leftovers(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { leftovers(&entry.path()) } else { 1 }).sum()
}

/// Waits for the end of a process, with a limit.
///
/// # Errors
/// It did not end in time (it is killed then), or cannot be waited for.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {limit:?}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Waits until a process has stopped itself; false if it ended instead.
///
/// # Errors
/// Neither happened in time.
pub fn wait_stopped(child: &mut Child, limit: Duration) -> Result<bool, String> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if child.try_wait().map_err(|e| e.to_string())?.is_some() {
            return Ok(false);
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if state == Some('T') {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err("it neither stopped nor ended".into())
}

/// Wakes a stopped process.
pub fn wake(child: &Child) {
    // SAFETY: `kill` takes no pointers; the child is ours and not yet waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGCONT) };
}
