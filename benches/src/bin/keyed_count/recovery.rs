//! From a kill to the first new record, at small state.
//!
//! A job like `flight_delays`: a thousand keys, files as its output, a checkpoint every 100 ms. It is
//! killed with SIGKILL and started again with the same command. The first record that it reads then is
//! one that no committed result contains; the first commit publishes new results.

use crate::keys::mix;
use crate::variant::WORKERS;
use anyhow::{Context, Result, bail};
use benches::scrape::Scrape;
use staunch::core::{Controls, Metrics};
use staunch::prelude::*;
use staunch::{file, generator};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// Keys of the job.
const KEYS: u64 = 1000;
/// Records a second and worker.
const RATE: u64 = 50_000;
/// How long the job runs before it is killed.
const LIFE: Duration = Duration::from_secs(1);
const READ: &str = "read";
const COMMITTED: &str = "committed";

/// Milliseconds from a kill to what came first afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// A record is read that was not part of any committed result.
    pub read_ms: f64,
    /// A result is committed that no earlier process had prepared.
    pub committed_ms: f64,
}

/// Starts the job, kills it and starts it again, `kills` times.
pub fn measure(kills: usize, dir: &Path) -> Result<Vec<Recovery>> {
    let mut job = Life::start(dir)?;
    job.wait_for(COMMITTED)?;
    let mut measured = Vec::new();
    for _ in 0..kills {
        std::thread::sleep(LIFE);
        job.child.kill()?;
        let killed = Instant::now();
        job.child.wait()?;
        job = Life::start(dir)?;
        let mut since = |what| {
            job.wait_for(what)?;
            anyhow::Ok(killed.elapsed().as_secs_f64() * 1e3)
        };
        measured.push(Recovery { read_ms: since(READ)?, committed_ms: since(COMMITTED)? });
    }
    job.child.kill()?;
    job.child.wait()?;
    Ok(measured)
}

/// One process of the job.
struct Life {
    child: Child,
    said: std::io::Lines<BufReader<ChildStdout>>,
}

impl Life {
    fn start(dir: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("recovery-job").arg("--dir").arg(dir).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().context("its output was to be piped")?;
        Ok(Self { child, said: BufReader::new(output).lines() })
    }

    fn wait_for(&mut self, what: &str) -> Result<()> {
        for line in self.said.by_ref() {
            if line? == what {
                return Ok(());
            }
        }
        bail!("the job ended before it said {what:?}")
    }
}

/// The job, which says what it has done first on standard output. Runs until it is killed.
pub fn job(dir: &Path) -> Result<()> {
    let config = RunConfig {
        workers: WORKERS,
        checkpoint_every: Some(Duration::from_millis(100)),
        ..RunConfig::new("recovery", dir.join("checkpoints"))
    };
    let metrics = Metrics::new("recovery");
    std::thread::spawn({
        let metrics = metrics.clone();
        // Observed at the commit of an epoch that began in this process.
        let committed =
            move || Scrape::of(&metrics).map(|s| s.total("staunch_end_to_end_latency_seconds_count"));
        move || {
            while committed().is_ok_and(|count| count < 1.0) {
                std::thread::sleep(Duration::from_millis(1));
            }
            println!("{COMMITTED}");
        }
    });
    let output = dir.join("output");
    let build = move |job: &Job<'_>| {
        let numbers = generator::sequence(None, WORKERS as u32, |split, index| mix(index) ^ u64::from(split));
        job.source("numbers", numbers.limit_rate(Some(RATE)))
            .inspect(|_| say_once(&FIRST, READ))
            .key_by(|number| number % KEYS)
            .count("counts")
            .sink("output", file::csv(&output));
        Ok(())
    };
    staunch::core::run(build, config, Controls::default(), metrics)?;
    Ok(())
}

static FIRST: AtomicBool = AtomicBool::new(true);

fn say_once(first: &AtomicBool, what: &str) {
    if first.load(Relaxed) && first.swap(false, Relaxed) {
        println!("{what}");
    }
}
