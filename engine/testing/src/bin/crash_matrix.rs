//! Runs the whole crash matrix and prints its table; or one case of it, whose directory is kept if it fails.
//!
//! Needs the feature `crash-points`, and the binary `victim` built beside it.

use clap::Parser;
use staunch_testing::figures;
use staunch_testing::matrix::{Case, Setting, cases, run, run_all};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Every crash point x fault x victim, on real processes.
#[derive(Parser)]
struct Args {
    /// Only the part that `make test` runs.
    #[arg(long)]
    bounded: bool,
    /// Only points whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only the case of this number, which a failure tells. What it leaves behind is kept if it fails again.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["only", "at_once", "result"])]
    case: Option<usize>,
    /// Cases that run at the same time; they mostly wait.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Write the table to this file, too.
    #[arg(long)]
    result: Option<PathBuf>,
}

/// Builds everything that the matrix needs, and runs it; followed by its options. Building comes first, because
/// running a program builds that one alone, and the matrix needs the victim beside it.
const RUN: &str = "cargo build --release -p staunch-testing --features crash-points --bins && \
                   cargo run --release -p staunch-testing --features crash-points --bin crash_matrix --";

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.case {
        Some(number) => one(number, args.bounded),
        None => all(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn victim() -> Result<PathBuf, Box<dyn Error>> {
    Ok(std::env::current_exe()?.with_file_name("victim"))
}

/// What to type to run a case again, alone.
fn command(case: &Case, every: &[Case], bounded: bool) -> String {
    let number = every.iter().position(|other| other == case).map_or(0, |at| at + 1);
    format!("{RUN}{} --case {number}", if bounded { " --bounded" } else { "" })
}

/// Runs all cases that are asked for; whether all passed.
fn all(args: &Args) -> Result<bool, Box<dyn Error>> {
    let every = cases(!args.bounded);
    let asked: Vec<_> = every.iter().filter(|case| case.point.contains(&args.only)).cloned().collect();
    let total = asked.len();
    let results = run_all(asked, args.at_once.max(1), &victim()?, |ended, case, failure| {
        if let Some(failure) = failure {
            let again = command(case, &every, args.bounded);
            eprintln!("\nFAILED {case:?}: {failure}");
            eprintln!("To run it again, alone, and to keep what it leaves behind:\n  {again}");
        }
        eprint!(
            "\r{ended}/{total} {} {:?} hit {} workers {}\x1b[K",
            case.point, case.fault, case.nth, case.workers
        );
    });
    eprintln!();
    let text = format!("# Crash matrix\n\n{}\n{}", figures::provenance(), results.to_markdown());
    println!("{text}");
    if let Some(file) = &args.result {
        let failed = |error| format!("{} cannot be written: {error}", file.display());
        std::fs::write(file, &text).map_err(failed)?;
    }
    Ok(results.failures().next().is_none())
}

/// Runs one case; whether it passed.
fn one(number: usize, bounded: bool) -> Result<bool, Box<dyn Error>> {
    let every = cases(!bounded);
    let case = number.checked_sub(1).and_then(|at| every.get(at));
    let case = case.ok_or_else(|| format!("there is no case {number}: they go from 1 to {}", every.len()))?;
    println!("{case:?}");
    let dir = tempfile::Builder::new().prefix("staunch-crash-matrix-").tempdir()?;
    let outcome = run(case, &Setting::USUAL, &victim()?, dir.path());
    match outcome {
        Ok(evidence) => {
            println!("passed: {evidence:?}");
            Ok(true)
        }
        Err(failure) => {
            println!("FAILED: {failure}");
            println!("What it left behind is kept, with all logs: {}", dir.keep().display());
            Ok(false)
        }
    }
}
