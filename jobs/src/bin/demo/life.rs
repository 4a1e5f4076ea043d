//! One run of the job as a child process, watched from outside.

use crate::show::say;
use crate::{FOLDER, INPUT, OUTPUT};
use anyhow::{Context, Result};
use jobs::output;
use jobs::running::{Metrics, Running, free_address};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Flights a second: makes the whole take about nine seconds.
const RATE: u32 = 3000;
/// Pause between two looks; also the precision of what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What can be seen of a run at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Flights read, those before the restored checkpoint included.
    pub read: u64,
    /// Flights read by this process.
    pub read_now: u64,
    /// Lines in committed files.
    pub committed: u64,
    /// Newest checkpoint that a committed file belongs to.
    pub newest_committed: u64,
    /// Newest checkpoint that is complete.
    pub checkpoint: u64,
}

/// A run of the job.
pub(crate) struct Life {
    running: Running,
    metrics: SocketAddr,
    began: Instant,
    last: Seen,
}

impl Life {
    /// Starts the job, with the same command each time but for the number of workers.
    pub fn begin(workers: usize) -> Result<Self> {
        let metrics = free_address()?;
        let job = std::env::current_exe().context("cannot find myself")?.with_file_name("flight_delays");
        let arguments = format!(
            "--input {INPUT} --output {OUTPUT} --checkpoints {FOLDER}/checkpoints --checkpoint-every 500ms --rate {RATE} --workers {workers}"
        );
        say!(
            "    $ flight_delays {}\n",
            arguments.replace(" --checkpoint-every", " \\\n        --checkpoint-every")
        );
        let mut command = Command::new(job);
        command.args(arguments.split(' ')).args(["--log", "json", "--metrics", &metrics.to_string()]);
        command.env_remove("RUST_LOG");
        let began = Instant::now();
        Ok(Self { running: Running::start(&mut command)?, metrics, began, last: Seen::default() })
    }

    /// Looks at the run, after a short pause.
    pub fn look(&mut self) -> Result<Seen> {
        std::thread::sleep(LOOK_EVERY);
        let files = output::committed(Path::new(OUTPUT))?;
        self.last.committed = files.values().map(|text| text.lines().count() as u64).sum();
        self.last.newest_committed =
            files.keys().filter_map(|name| output::checkpoint_of(name)).max().unwrap_or(0);
        // No answer: it is starting or ending, and what was seen last is good enough.
        if let Some(metrics) = Metrics::of(self.metrics) {
            self.last.read_now = metrics.sum("staunch_records_in_total", &["step=\"flights\""]) as u64;
            self.last.checkpoint = metrics.sum("staunch_last_checkpoint_id", &[]) as u64;
        }
        let (restored, position) = self.restored().unwrap_or_default();
        self.last.read = position + self.last.read_now;
        self.last.checkpoint = self.last.checkpoint.max(restored);
        Ok(self.last)
    }

    /// What is to be seen when all flights are read.
    pub fn at_end(&mut self, flights: u64) -> Result<Seen> {
        let seen = self.look()?;
        Ok(Seen { read: flights, checkpoint: seen.newest_committed.max(seen.checkpoint), ..seen })
    }

    /// The checkpoint that it restored, and the flights before it, as its log says.
    pub fn restored(&self) -> Option<(u64, u64)> {
        let checkpoint = self.running.logged("restoring")?.get("checkpoint")?.as_u64()?;
        let position = self.running.logged("continuing")?.get("position")?.as_str()?.to_owned();
        let position: serde_json::Value = serde_json::from_str(&position).ok()?;
        // The number of the next line; the first line is the header.
        Some((checkpoint, position.get("line")?.as_u64()?.saturating_sub(2)))
    }

    pub fn kill(&mut self) -> Result<()> {
        self.running.kill()
    }

    pub fn goes_on(&mut self) -> Result<bool> {
        Ok(self.running.ended()?.is_none())
    }

    /// Whether it has ended with success; its log is complete then.
    pub fn ended_well(&mut self) -> Result<bool> {
        Ok(self.running.wait(Duration::from_secs(10))?.success())
    }

    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn log(&self) -> String {
        self.running.log().join("\n")
    }
}
