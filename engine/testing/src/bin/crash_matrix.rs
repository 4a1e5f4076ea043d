//! Runs the whole crash matrix and prints its table.
//!
//! Needs the feature `crash-points`, and the binary `victim` built beside it.

use clap::Parser;
use staunch_testing::figures;
use staunch_testing::matrix::{cases, run_all};
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
    /// Cases that run at the same time; they mostly wait.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Write the table to this file, too.
    #[arg(long)]
    result: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let cases: Vec<_> =
        cases(!args.bounded).into_iter().filter(|case| case.point.contains(&args.only)).collect();
    let victim = match std::env::current_exe() {
        Ok(program) => program.with_file_name("victim"),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let total = cases.len();
    let results = run_all(cases, args.at_once.max(1), &victim, |ended, case, failure| {
        if let Some(failure) = failure {
            eprintln!("\nFAILED {case:?}: {failure}");
        }
        eprint!(
            "\r{ended}/{total} {} {:?} hit {} workers {}\x1b[K",
            case.point, case.fault, case.nth, case.workers
        );
    });
    eprintln!();
    let text = format!("# Crash matrix\n\n{}\n{}", figures::provenance(), results.to_markdown());
    println!("{text}");
    if let Some(file) = &args.result
        && let Err(error) = std::fs::write(file, &text)
    {
        eprintln!("error: {} cannot be written: {error}", file.display());
        return ExitCode::FAILURE;
    }
    if results.failures().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
