//! What a base costs beside the state that it is of: peak memory, and how long the worker stands still. See
//! `benches/README.md`.

mod report;
mod run;

use anyhow::{Context, Result};
use benches::process;
use clap::Parser;
use run::{Frozen, Kind, Measured};
use staunch_testing::figures;
use std::path::{Path, PathBuf};

/// Freezes a table as a base while it is written to, and makes that durable.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Keys of the table, in thousands.
    #[arg(long, default_value_t = 5000)]
    thousand_keys: u64,
    /// How often each is measured, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Directory for checkpoints and scratch files [default: a folder in the temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Write the table to this file, too.
    #[arg(long)]
    result: Option<PathBuf>,
}

/// What the processes are told that this program starts.
#[derive(clap::Subcommand)]
enum Part {
    /// One table, one base.
    #[command(hide = true)]
    One {
        #[arg(long)]
        kind: Kind,
        #[arg(long)]
        frozen: Frozen,
        #[arg(long)]
        keys: u64,
        #[arg(long)]
        dir: PathBuf,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::One { kind, frozen, keys, dir }) => {
            println!("{}", serde_json::to_string(&run::one(kind, frozen, keys, &dir)?)?);
            Ok(())
        }
        None => measure(&arguments),
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let scratch = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("staunch-base-memory-{}", std::process::id())),
    };
    let keys = arguments.thousand_keys * 1000;
    let mut rows: Vec<(Kind, Frozen, Vec<Measured>)> = Vec::new();
    for kind in Kind::ALL {
        rows.extend(Frozen::ALL.map(|frozen| (kind, frozen, Vec::new())));
    }
    for _ in 0..arguments.rounds {
        for (kind, frozen, measured) in &mut rows {
            let one = ask(*kind, *frozen, keys, &scratch)?;
            eprintln!("{}", report::row(*kind, *frozen, std::slice::from_ref(&one)));
            measured.push(one);
        }
    }
    let head = figures::provenance();
    let text = format!("# Memory and stall of a base\n\n{head}\n{}", report::text(keys, &rows));
    print!("{text}");
    if let Some(file) = &arguments.result {
        std::fs::write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Runs one in a process of its own.
fn ask(kind: Kind, frozen: Frozen, keys: u64, dir: &Path) -> Result<Measured> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let words = ["one", "--kind", kind.word(), "--frozen", frozen.word(), "--keys"].map(str::to_owned);
    let rest = [keys.to_string(), "--dir".to_owned(), dir.display().to_string()];
    let measured = process::ask(&[&words[..], &rest[..]].concat());
    std::fs::remove_dir_all(dir)?;
    measured
}
