//! Strikes at the file operations of the victim, one a life, and audits what came out.
//!
//! Needs the feature `crash-points`, and the binary `victim` and the library `staunch-shim` built beside it.

use clap::Parser;
use staunch_testing::attack::{
    Case, Learned, Life, SKIPPED, Storm, Strike, cases, learn, run_all, some, weather,
};
use staunch_testing::figures;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// A death, an error, a lie, half a write or a long wait at the Nth file operation of a real process.
#[derive(Parser)]
struct Args {
    /// Only so many cases, of as many sorts as that allows [default: all]
    #[arg(long)]
    cases: Option<usize>,
    /// Which ones these are.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Besides every sort of operation: each so-many-th operation, whatever it is.
    #[arg(long, default_value_t = 20)]
    every: u64,
    /// Only cases whose strike contains this, as in lie:, :link: or checkpoints/log.
    #[arg(long, default_value = "")]
    only: String,
    /// Only this case: what is struck in the first life, and in those after it. What it leaves behind is kept if it fails.
    #[arg(long, value_name = "FAULT:NTH:OPERATION:PLACE", conflicts_with_all = ["cases", "only", "result"])]
    strike: Vec<Strike>,
    /// With --strike: it is a life that continues after a kill.
    #[arg(long)]
    later: bool,
    /// With --strike and --trace: workers of the life.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Only this storm: copies, copies-without-lock, restarts, from, from-older; see --seed.
    #[arg(long, conflicts_with_all = ["cases", "only", "result", "strike"])]
    storm: Option<Storm>,
    /// Besides the cases: each storm with so many seeds, from --seed on.
    #[arg(long, default_value_t = 0)]
    storms: u64,
    /// Only print what a life does that nobody strikes.
    #[arg(long)]
    trace: bool,
    /// Cases that run at the same time; they mostly wait.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Write the table to this file, too.
    #[arg(long)]
    result: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(why) = SKIPPED {
        println!("SKIPPED: {why}");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let victim = std::env::current_exe()?.with_file_name("victim");
    let life = if args.later { Life::Later } else { Life::First };
    if args.trace {
        let Learned { trace, sorts, .. } = learn(life, args.workers, &victim)?;
        for (number, traced) in (1..).zip(&trace) {
            println!("{number} {} {}", traced.operation, traced.path);
        }
        for ((operation, place), count) in sorts {
            println!("{count} times {operation}:{place}");
        }
        return Ok(true);
    }
    let chosen = if args.storm.is_some() {
        Vec::new()
    } else if args.strike.is_empty() {
        let learned = [learn(Life::First, 2, &victim)?, learn(Life::Later, 2, &victim)?];
        let mut all = cases(&learned, args.every);
        all.retain(|case| case.strikes.iter().any(|strike| strike.to_string().contains(&args.only)));
        match args.cases {
            Some(wanted) => some(&all, wanted, args.seed),
            None => all,
        }
    } else {
        vec![Case { life, workers: args.workers, strikes: args.strike.clone() }]
    };
    attack(args, chosen, &victim)
}

/// Runs the cases; whether all passed.
fn attack(args: &Args, chosen: Vec<Case>, victim: &std::path::Path) -> Result<bool, Box<dyn Error>> {
    let total = chosen.len();
    let mut results = run_all(chosen, args.at_once.max(1), victim, |ended, case, broken| {
        if let Some(broken) = broken {
            eprintln!("\nFAILED {}: {broken}", case.options());
        }
        eprint!("\r{ended}/{total} {}\x1b[K", case.options());
    });
    let storms: Vec<(Storm, u64)> = match args.storm {
        Some(storm) => vec![(storm, args.seed)],
        None => (args.seed..args.seed + args.storms)
            .flat_map(|seed| Storm::ALL.map(|storm| (storm, seed)))
            .collect(),
    };
    results.storms = weather(storms.into_iter(), victim, |storm, seed, broken| {
        if let Some(broken) = broken {
            eprintln!("\nFAILED {storm}, seed {seed}: {broken}");
        }
        eprint!("\r{storm}, seed {seed}\x1b[K");
    });
    eprintln!();
    let text = format!("# Attack\n\n{}\n{}", figures::provenance(), results.to_markdown());
    println!("{text}");
    if let Some(file) = &args.result {
        std::fs::write(file, &text)
            .map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    }
    let done = total + results.storms.len();
    Ok(done > 0 && results.failures().next().is_none() && results.disasters().next().is_none())
}
