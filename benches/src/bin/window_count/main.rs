//! One tumbling window with many keys, beside a running count of the same records: what a window costs until it has
//! fired, in time and in memory. One run in one process; see `benches/README.md`.

use anyhow::Result;
use benches::process::{memory, processor_seconds};
use clap::{Parser, ValueEnum};
use staunch::core::{Controls, Metrics};
use staunch::prelude::*;
use staunch::{discard, generator};
use std::time::Instant;

/// Worker threads.
const WORKERS: u32 = 2;
/// The window, in milliseconds. All records but the last fall into the first.
const WINDOW_MS: i64 = 60_000;

/// Measures a tumbling window with many keys.
#[derive(Parser)]
struct Arguments {
    /// What is done with the records.
    #[arg(value_enum)]
    what: What,
    /// Keys of the window, in thousands.
    #[arg(long, default_value_t = 5000)]
    thousand_keys: u64,
    /// Records of each key.
    #[arg(long, default_value_t = 2)]
    rounds: u64,
    /// Keep the window so long after it has fired, in milliseconds.
    #[arg(long, default_value_t = 0)]
    allowed_lateness: u64,
    /// Memory for state, in MiB.
    #[arg(long, default_value_t = 4096)]
    state: usize,
    /// Milliseconds between checkpoints; none by default.
    #[arg(long)]
    every: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// A count for each key and window.
    Window,
    /// A count for each key.
    Count,
}

fn main() -> Result<()> {
    let Arguments { what, thousand_keys, rounds, allowed_lateness, state, every } = Arguments::parse();
    let keys = thousand_keys * 1000;
    let records = keys * rounds;
    let dir = std::env::temp_dir().join(format!("staunch-window-count-{}", std::process::id()));
    let config = RunConfig {
        workers: WORKERS as usize,
        checkpoint_every: every.map(Duration::from_millis),
        state_bytes: state << 20,
        ..RunConfig::new("window_count", &dir)
    };
    let build = move |job: &Job<'_>| {
        let splits = u64::from(WORKERS);
        let numbers = generator::sequence(Some(records / splits), WORKERS, move |split, index| {
            (index * splits + u64::from(split)) % keys
        });
        let source = numbers.event_time(|_| Timestamp::from_millis(WINDOW_MS / 2), Duration::ZERO);
        let keyed = job.source("numbers", source).key_by(|number| *number);
        match what {
            What::Window => {
                let window = Tumbling::of(Duration::from_millis(WINDOW_MS as u64));
                let window = window.allowed_lateness(Duration::from_millis(allowed_lateness));
                keyed.window(window).count("counts").sink("nowhere", discard::sink());
            }
            What::Count => keyed.count("counts").sink("nowhere", discard::sink()),
        }
        Ok(())
    };
    let (began, used) = (Instant::now(), processor_seconds()?);
    staunch::core::run(build, config, Controls::default(), Metrics::new("window_count"))?;
    let (took, used) = (began.elapsed().as_secs_f64(), processor_seconds()? - used);
    println!(
        "{:.2} M records/s, {:.0} ns of processor time a record, peak memory {:.0} MB",
        records as f64 / took / 1e6,
        used / records as f64 * 1e9,
        memory()?.peak as f64 / 1e6
    );
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
