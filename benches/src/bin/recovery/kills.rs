//! Kills the job and starts it again with the same command, as its operator would.

use crate::job::{CHECKPOINT_EVERY, COMMITTED, READ, RUNNING};
use crate::stored::{self, Stored};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Kills that every number of keys gets, however long they take.
const LEAST: usize = 5;
/// How long the job lives after its first commit, at least.
const LIFE: Duration = Duration::from_millis(200);

/// What one kill showed. Milliseconds are from the kill, unless another beginning is named.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    /// Until a record was read that was not part of any committed result.
    pub read_ms: f64,
    /// Of that, from the start of the job in the new process until all workers ran.
    pub start_ms: f64,
    /// Until a result was committed that no earlier process had prepared.
    pub committed_ms: f64,
    /// The state that was loaded.
    pub stored: Stored,
}

/// Starts the job with all keys in its state, and kills it `kills` times; less often if `until` comes before.
pub fn measure(keys: u64, kills: usize, until: Instant, dir: &Path) -> Result<Vec<Recovery>> {
    let status = command("fill", keys, dir)?.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "the state could not be filled with {keys} keys: {status}");
    let mut life = Life::start(keys, dir)?;
    life.first_deeds(Instant::now())?;
    let mut all = Vec::new();
    while all.len() < kills && (all.len() < LEAST || Instant::now() < until) {
        // Out of step with the checkpoints, so that kills fall everywhere between two of them.
        sleep(LIFE + CHECKPOINT_EVERY * (all.len() as u32 * 37 % 100) / 100);
        let killed = Instant::now();
        life.kill()?;
        let died_ms = ms_since(killed);
        // No process runs now. The time that this look takes is not counted.
        let stored = stored::newest(&dir.join("checkpoints"))?;
        let started = Instant::now();
        life = Life::start(keys, dir)?;
        let first = life.first_deeds(started)?;
        ensure!(first.keys >= keys, "{} keys of {keys} are there after a restart", first.keys);
        all.push(Recovery {
            read_ms: died_ms + first.read_ms,
            start_ms: first.start_ms,
            committed_ms: died_ms + first.committed_ms,
            stored,
        });
    }
    life.kill()?;
    Ok(all)
}

/// What a process did first, in milliseconds since it was started.
struct FirstDeeds {
    read_ms: f64,
    /// As the job itself says.
    start_ms: f64,
    committed_ms: f64,
    /// Keys in the state at that commit.
    keys: u64,
}

/// One process of the job.
struct Life {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Life {
    fn start(keys: u64, dir: &Path) -> Result<Self> {
        let mut child = command("live", keys, dir)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("its output was to be piped")?;
        Ok(Self { child, said: BufReader::new(output).lines() })
    }

    /// Waits until it has told all that it did first.
    fn first_deeds(&mut self, started: Instant) -> Result<FirstDeeds> {
        let (mut read, mut running, mut committed) = (None, None, None);
        for line in self.said.by_ref() {
            let (line, now_ms) = (line?, ms_since(started));
            match line.split_once(' ').unwrap_or((line.as_str(), "")) {
                (READ, _) => read = Some(now_ms),
                (RUNNING, seconds) => running = Some(seconds.parse::<f64>()? * 1e3),
                (COMMITTED, keys) => committed = Some((now_ms, keys.parse::<u64>()?)),
                _ => bail!("the job said {line:?}"),
            }
            if let (Some(read_ms), Some(start_ms), Some((committed_ms, keys))) = (read, running, committed) {
                return Ok(FirstDeeds { read_ms, start_ms, committed_ms, keys });
            }
        }
        bail!("the job ended before it had committed anything")
    }

    /// SIGKILL, and waits for the end: no other process can run the job before it.
    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // After an error. Otherwise it is dead already.
        let _ = self.kill();
    }
}

fn command(part: &str, keys: u64, dir: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(part).arg(format!("--keys={keys}")).arg("--dir").arg(dir);
    Ok(command)
}

fn ms_since(instant: Instant) -> f64 {
    instant.elapsed().as_secs_f64() * 1e3
}
