//! Breaks the victim at random moments until it has been killed often enough, and audits every record.
//!
//! Needs the feature `crash-points`, and the binary `victim` built beside it.

use clap::Parser;
use staunch_testing::figures;
use staunch_testing::soak::{Goal, Schedule, soak};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Random SIGKILL, restart, another number of workers, double start, zombies, two killed at once; every record is
/// audited. What a failure leaves behind is kept.
#[derive(Parser)]
struct Args {
    /// Processes to kill [default: 300]
    #[arg(long)]
    kills: Option<u64>,
    /// Records to audit [default: 10000000]
    #[arg(long)]
    records: Option<u64>,
    /// Stop killing after this time, whatever was reached. Without --kills and --records: only then.
    #[arg(long)]
    minutes: Option<u64>,
    /// The schedule.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records of one job.
    #[arg(long, default_value_t = 2_000_000)]
    job_records: u64,
    /// Records a second, on all workers together [default: as many as it can]
    #[arg(long)]
    rate: Option<u64>,
    /// The control: promise only that nothing is lost, and count what is doubled.
    #[arg(long)]
    at_least_once: bool,
    /// Write the figures to this file, too.
    #[arg(long)]
    result: Option<PathBuf>,
    /// Only print the first so many steps of the schedule.
    #[arg(long, value_name = "STEPS")]
    schedule: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(steps) = args.schedule {
        Schedule::new(args.seed).take(steps).for_each(|step| println!("{step:?}"));
        return ExitCode::SUCCESS;
    }
    let (kills, records) = match (args.kills, args.records, args.minutes) {
        // Out of reach, so that only the time ends it.
        (None, None, Some(_)) => (u64::MAX, u64::MAX),
        (kills, records, _) => (kills.unwrap_or(300), records.unwrap_or(10_000_000)),
    };
    let goal = Goal {
        kills,
        records,
        time: args.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        seed: args.seed,
        job: Goal::job_of(args.job_records),
        rate: args.rate,
        at_least_once: args.at_least_once,
    };
    match run(&goal, args.result.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nFAILED with seed {}: {error}", args.seed);
            ExitCode::FAILURE
        }
    }
}

fn run(goal: &Goal, result: Option<&std::path::Path>) -> Result<(), Box<dyn std::error::Error>> {
    let victim = std::env::current_exe()?.with_file_name("victim");
    let began = Instant::now();
    let tally = soak(goal, &victim, &|tally| {
        eprint!("\r{} s: {}\x1b[K", began.elapsed().as_secs(), tally.line());
    })?;
    eprintln!();
    if tally.jobs == 0 {
        let nothing = "no job was completed and audited, so that nothing is shown";
        return Err(format!("{nothing}\nTo repeat it:\n  {}", goal.command()).into());
    }
    if goal.at_least_once && tally.doubled == 0 {
        let nothing = "no record was doubled, so that the control shows nothing";
        return Err(format!("{nothing}\nTo repeat it:\n  {}", goal.command()).into());
    }
    let title = if goal.at_least_once {
        "# Soak, at least once: the control\n\nNothing is lost, and records are doubled: the same faults without \
         alignment."
    } else {
        "# Soak\n\nNothing missing, nothing doubled, nothing foreign, every prefix right; nothing left over."
    };
    let text = format!("{title}\n\n{}\n{}", figures::provenance(), tally.to_markdown(began.elapsed()));
    println!("{text}");
    if let Some(file) = result {
        std::fs::write(file, &text)?;
    }
    Ok(())
}
