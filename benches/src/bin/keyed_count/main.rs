//! A keyed running count over uniformly random keys: the engine with and without checkpoints, raw
//! timely, and a naive RocksDB, side by side. See `benches/README.md`.

mod engine;
mod raw;
mod report;
mod rocks;
mod variant;
mod watch;

use anyhow::{Context, Result};
use benches::{process, statistics};
use clap::Parser;
use staunch_testing::figures;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::path::{Path, PathBuf};
use variant::{Measured, Variant};

/// Measures a keyed running count, beside raw timely and naive RocksDB.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Numbers of keys, in thousands.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    thousand_keys: Vec<u64>,
    /// Programs to measure; all by default.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Variant>,
    /// How often each is measured, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that one run takes.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Directory for checkpoints and databases [default: a folder in the temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Directory for the results.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    /// Print the results only.
    #[arg(long)]
    no_file: bool,
}

/// What the processes are told that this program starts.
#[derive(clap::Subcommand)]
enum Part {
    /// One run of one program.
    #[command(hide = true)]
    Measure {
        #[arg(long, value_enum)]
        variant: Variant,
        #[arg(long)]
        keys: u64,
        #[arg(long)]
        seconds: f64,
        #[arg(long)]
        dir: PathBuf,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Measure { variant, keys, seconds, dir }) => {
            let measured = measure(variant, keys, seconds, &dir)?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
        None => compare(&arguments),
    }
}

fn measure(variant: Variant, keys: u64, seconds: f64, dir: &Path) -> Result<Measured> {
    let dir = dir.to_owned();
    match variant {
        Variant::Timely => raw::measure(keys, seconds, false, |_| Ok(HashMap::<u64, u64>::new())),
        Variant::TimelyFastHash => raw::measure(keys, seconds, false, |_| {
            Ok(HashMap::<u64, u64, BuildHasherDefault<raw::FastHash>>::default())
        }),
        Variant::Rocksdb => {
            raw::measure(keys, seconds, true, move |worker| rocks::Rocks::open(&dir, worker, keys))
        }
        engine => engine::measure(keys, seconds, engine.interval(), &dir),
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    let scratch = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("staunch-keyed-count-{}", std::process::id())),
    };
    let wanted = |variant: &Variant| arguments.only.is_empty() || arguments.only.contains(variant);
    let mut text = String::new();
    for keys in arguments.thousand_keys.iter().map(|thousands| thousands * 1000) {
        let mut rounds: report::Rounds = BTreeMap::new();
        for round in 1..=arguments.rounds {
            for variant in Variant::ALL.into_iter().filter(wanted) {
                let measured = in_child(variant, keys, arguments.seconds, &scratch)?;
                eprintln!("{}", progress(variant, keys, round, &measured));
                rounds.entry(report::place(variant)).or_default().push(measured);
            }
        }
        text += &report::table(keys, &rounds);
        text.push('\n');
    }
    std::fs::remove_dir_all(&scratch)?;
    let text = format!("# keyed_count\n\n{}\n{}\n", figures::provenance(), text.trim_end());
    print!("{text}");
    if !arguments.no_file {
        let path = save(&arguments.results, &text)?;
        eprintln!("written to {}", path.display());
    }
    Ok(())
}

fn in_child(variant: Variant, keys: u64, seconds: f64, scratch: &Path) -> Result<Measured> {
    let dir = fresh(scratch)?;
    let name = clap::ValueEnum::to_possible_value(&variant).context("every variant has a name")?;
    let arguments = [
        "measure".to_owned(),
        format!("--variant={}", name.get_name()),
        format!("--keys={keys}"),
        format!("--seconds={seconds}"),
        format!("--dir={}", dir.display()),
    ];
    process::ask(&arguments)
}

/// An empty folder for a run.
fn fresh(scratch: &Path) -> Result<PathBuf> {
    let dir = scratch.join("run");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn progress(variant: Variant, keys: u64, round: usize, measured: &Measured) -> String {
    let checkpoints = measured.checkpoints.as_ref().map_or(String::new(), |c| {
        let p50 = statistics::median(c.durations_ms.iter().copied()).unwrap_or(0.0);
        let max = statistics::max(c.durations_ms.iter().copied()).unwrap_or(0.0);
        format!(
            "; {} checkpoints, p50 {p50:.1} ms, max {max:.1} ms, stall {:.1} ms, {:.1} MB each",
            c.durations_ms.len(),
            c.longest_stall_ms,
            c.bytes_each / 1e6
        )
    });
    format!(
        "{} keys, round {round}, {}: {:.2} M records/s, {:.0} ns CPU, peak {:.0} MB, {:.0} -> {:.0} MB{checkpoints} (load {})",
        keys,
        variant.title(),
        measured.records_per_second / 1e6,
        measured.processor_ns,
        measured.peak_bytes as f64 / 1e6,
        measured.resident_before_bytes as f64 / 1e6,
        measured.resident_after_bytes as f64 / 1e6,
        figures::load()
    )
}

/// Writes the results to a file of today that does not exist yet.
fn save(results: &Path, text: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(results)?;
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let names = std::iter::once(String::new()).chain((2..).map(|n| format!("-{n}")));
    let mut paths = names.map(|n| results.join(format!("{today}-keyed_count{n}.md")));
    let path = paths.find(|path| !path.exists()).context("there is always another number")?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
