//! The job that is killed: a running count by key, with files as its output and a checkpoint every 100 ms.
//!
//! It tells on standard output what it has done first. It knows nothing of kills.

use anyhow::{Result, anyhow, ensure};
use benches::keys::key;
use benches::scrape::Scrape;
use staunch::core::{Controls, Metrics, Request};
use staunch::prelude::*;
use staunch::{file, generator};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{sleep, spawn};
use std::time::Instant;

/// Worker threads.
pub const WORKERS: usize = 2;
/// Records a second and worker, while it lives to be killed.
pub const RATE: u64 = 50_000;
/// Time between checkpoints.
pub const CHECKPOINT_EVERY: Duration = Duration::from_millis(100);

/// Said when a record is read that was not part of any committed result.
pub const READ: &str = "read";
/// Said after it, with the seconds from the start of the job until all workers ran.
pub const RUNNING: &str = "running";
/// Said when a result is committed that no earlier process had prepared, with the keys in the state.
pub const COMMITTED: &str = "committed";

const NAME: &str = "recovery";
const COUNTS: &str = "counts";
const SPLITS: u32 = WORKERS as u32;
/// More than all sizes need, so that none of the state is on disk while the job runs.
const STATE_BYTES: usize = 2 << 30;
/// Time between checkpoints while the state is filled. How full it is shows at a checkpoint.
const FILL_LOOK: Duration = Duration::from_millis(500);
/// How long it may take to fill the state.
const FILL_LIMIT: Duration = Duration::from_secs(120);
/// How often a live job looks whether there is something to say.
const LOOK: Duration = Duration::from_millis(1);

/// Runs as fast as it can until every key is in the state, and stops with a checkpoint. Puts nothing out.
pub fn fill(keys: u64, dir: &Path) -> Result<()> {
    let (controls, metrics) = (Controls::default(), Metrics::new(NAME));
    let watcher = spawn({
        let (controls, metrics) = (controls.clone(), metrics.clone());
        move || {
            let full = wait_until_full(keys, &metrics);
            controls.request(Request::Stop);
            full
        }
    });
    run(keys, dir, true, controls, metrics)?;
    watcher.join().map_err(|_| anyhow!("the watching thread panicked"))?
}

fn wait_until_full(keys: u64, metrics: &Metrics) -> Result<()> {
    let began = Instant::now();
    while keys_in_state(&Scrape::of(metrics)?) < keys {
        ensure!(began.elapsed() < FILL_LIMIT, "{keys} keys are not in the state after {FILL_LIMIT:?}");
        sleep(FILL_LOOK / 10);
    }
    Ok(())
}

/// Runs until it is killed.
pub fn live(keys: u64, dir: &Path) -> Result<()> {
    let metrics = Metrics::new(NAME);
    spawn(end_with_the_driver);
    spawn({
        let metrics = metrics.clone();
        move || {
            if let Err(error) = tell(&metrics) {
                eprintln!("error: {error}");
                std::process::exit(1);
            }
        }
    });
    run(keys, dir, false, Controls::default(), metrics)
}

fn run(keys: u64, dir: &Path, filling: bool, controls: Controls, metrics: Metrics) -> Result<()> {
    let config = RunConfig {
        workers: WORKERS,
        checkpoint_every: Some(if filling { FILL_LOOK } else { CHECKPOINT_EVERY }),
        state_bytes: STATE_BYTES,
        ..RunConfig::new(NAME, dir.join("checkpoints"))
    };
    let output = dir.join("output");
    let rate = (!filling).then_some(RATE);
    let build = move |job: &Job<'_>| {
        let numbers =
            generator::sequence(None, SPLITS, move |split, index| key(keys, split, SPLITS.into(), index));
        job.source("numbers", numbers.limit_rate(rate))
            .inspect(|_| note_the_first())
            .key_by(|number| *number)
            .count(COUNTS)
            .filter(move |_| !filling)
            .sink("output", file::csv(&output));
        Ok(())
    };
    staunch::core::run(build, config, controls, metrics)?;
    Ok(())
}

/// Whether a record was read.
static BEGUN: AtomicBool = AtomicBool::new(false);

fn note_the_first() {
    if !BEGUN.load(SeqCst) && !BEGUN.swap(true, SeqCst) {
        println!("{READ}");
    }
}

fn tell(metrics: &Metrics) -> Result<()> {
    // Without a look at the metrics: there are two cores, and the workers need them to load the state.
    while !BEGUN.load(SeqCst) {
        sleep(LOOK);
    }
    println!("{RUNNING} {}", Scrape::of(metrics)?.total("staunch_restore_seconds"));
    loop {
        let scrape = Scrape::of(metrics)?;
        // Observed at the commit of an epoch that began in this process.
        if scrape.total("staunch_end_to_end_latency_seconds_count") > 0.0 {
            println!("{COMMITTED} {}", keys_in_state(&scrape));
            return Ok(());
        }
        sleep(LOOK);
    }
}

fn keys_in_state(scrape: &Scrape) -> u64 {
    scrape.of_step("staunch_state_keys", COUNTS) as u64
}

/// Ends this process when whoever started it is gone, because nobody would kill it then.
fn end_with_the_driver() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    std::process::exit(1);
}
