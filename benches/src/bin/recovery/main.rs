//! From `kill -9` to the first new record, for states of several sizes. See `benches/README.md`.

mod job;
mod kills;
mod report;
mod stored;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use report::Size;
use staunch_testing::figures;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Kills a job again and again, and measures how long it takes until it does something new.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Numbers of keys, in thousands.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000,10000")]
    thousand_keys: Vec<u64>,
    /// Kills at each of them; the last number holds for all that follow, too.
    #[arg(long, value_delimiter = ',', default_value = "100,100,100,10")]
    kills: Vec<usize>,
    /// When the whole run has taken so many seconds, no number of keys gets more than five kills.
    #[arg(long, default_value_t = 250)]
    seconds: u64,
    /// Directory for checkpoints and output [default: a folder in the temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write the table to this file, too.
    #[arg(long)]
    result: Option<PathBuf>,
}

/// What the processes are told that this program starts.
#[derive(clap::Subcommand)]
enum Part {
    /// The job, until it has every key in its state.
    #[command(hide = true)]
    Fill {
        #[arg(long)]
        keys: u64,
        #[arg(long)]
        dir: PathBuf,
    },
    /// The job, until it is killed.
    #[command(hide = true)]
    Live {
        #[arg(long)]
        keys: u64,
        #[arg(long)]
        dir: PathBuf,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Fill { keys, dir }) => job::fill(keys, &dir),
        Some(Part::Live { keys, dir }) => job::live(keys, &dir),
        None => measure(&arguments),
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let scratch = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("staunch-recovery-{}", std::process::id())),
    };
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let last = arguments.kills.last().copied().context("--kills has no number")?;
    let kills = arguments.kills.iter().copied().chain(std::iter::repeat(last));
    let mut sizes = Vec::new();
    for (keys, kills) in arguments.thousand_keys.iter().map(|thousands| thousands * 1000).zip(kills) {
        let dir = scratch.join(keys.to_string());
        ensure!(!dir.exists(), "{} is there already: remove it, or give another --dir", dir.display());
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let size = Size { keys, recoveries: kills::measure(keys, kills, until, &dir)? };
        std::fs::remove_dir_all(&dir)?;
        eprintln!("{}", report::progress(&size));
        sizes.push(size);
    }
    if arguments.dir.is_none() {
        std::fs::remove_dir(&scratch)?;
    }
    let text = format!("# Recovery time\n\n{}\n{}", figures::provenance(), report::text(&sizes));
    print!("{text}");
    if let Some(file) = &arguments.result {
        std::fs::write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
