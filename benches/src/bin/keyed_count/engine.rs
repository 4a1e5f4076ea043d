//! The engine, through its public API, as a job would use it.

use crate::variant::{Checkpoints, Measured, WORKERS};
use crate::watch::watch;
use anyhow::{Result, anyhow};
use benches::keys::key;
use benches::scrape::Scrape;
use staunch::core::{Controls, Metrics, Request};
use staunch::prelude::*;
use staunch::{discard, generator};
use std::path::Path;

/// Runs the job for about `seconds`.
pub fn measure(keys: u64, seconds: f64, every: Option<Duration>, dir: &Path) -> Result<Measured> {
    let config = RunConfig {
        workers: WORKERS,
        checkpoint_every: every,
        state_bytes: 2 << 30,
        ..RunConfig::new("keyed_count", dir)
    };
    let (controls, metrics) = (Controls::default(), Metrics::new("keyed_count"));
    let watcher = std::thread::spawn({
        let (controls, metrics) = (controls.clone(), metrics.clone());
        move || {
            let measured = measure_beside(keys, seconds, every.is_some(), &metrics);
            controls.request(Request::Stop);
            measured
        }
    });
    staunch::core::run(move |job| keyed_count(job, keys), config, controls, metrics)?;
    watcher.join().map_err(|_| anyhow!("the measuring thread panicked"))?
}

fn keyed_count(job: &Job<'_>, keys: u64) -> staunch::core::Result<()> {
    const SPLITS: u32 = WORKERS as u32;
    let numbers =
        generator::sequence(None, SPLITS, move |split, index| key(keys, split, SPLITS.into(), index));
    job.source("numbers", numbers).key_by(|number| *number).count("counts").sink("nowhere", discard::sink());
    Ok(())
}

fn measure_beside(keys: u64, seconds: f64, checkpoints: bool, metrics: &Metrics) -> Result<Measured> {
    let counted = || Ok(Scrape::of(metrics)?.of_step("staunch_records_in_total", "counts") as u64);
    let mut log = Log::default();
    let mut measured = watch(keys, seconds, counted, || {
        log.look(&Scrape::of(metrics)?);
        Ok(())
    })?;
    measured.checkpoints = checkpoints.then(|| log.finish());
    Ok(measured)
}

/// What successive looks at the metrics tell of the checkpoints.
#[derive(Default)]
struct Log {
    /// Checkpoints, their summed duration and bytes, at the first look and at the last.
    first: Option<[f64; 3]>,
    last: [f64; 3],
    durations_ms: Vec<f64>,
    longest_stall_ms: f64,
    failed: u64,
}

impl Log {
    fn look(&mut self, scrape: &Scrape) {
        let now = [
            "staunch_checkpoint_duration_seconds_count",
            "staunch_checkpoint_duration_seconds_sum",
            "staunch_checkpoint_bytes_total",
        ]
        .map(|name| scrape.total(name));
        if self.first.is_none() {
            self.first = Some(now);
        } else if now[0] > self.last[0] {
            let completed = now[0] - self.last[0];
            self.durations_ms.push((now[1] - self.last[1]) / completed * 1e3);
        }
        self.last = now;
        self.longest_stall_ms = scrape.total("staunch_checkpoint_stall_max_seconds") * 1e3;
        self.failed = scrape.total("staunch_checkpoints_failed_total") as u64;
    }

    fn finish(self) -> Checkpoints {
        let first = self.first.unwrap_or_default();
        Checkpoints {
            bytes_each: (self.last[2] - first[2]) / (self.last[0] - first[0]).max(1.0),
            durations_ms: self.durations_ms,
            longest_stall_ms: self.longest_stall_ms,
            failed: self.failed,
        }
    }
}
