//! A job with a bug in its source. For the test of what such a bug looks like to whoever runs the job.

use staunch::core::source::Source;
use staunch::core::time::EventTimePolicy;
use staunch::{file, prelude::*};

#[derive(Clone, clap::Args)]
struct Args {
    /// Any text file.
    #[arg(long)]
    input: PathBuf,
    /// Directory for the copy that is never made.
    #[arg(long)]
    output: PathBuf,
}

/// Lines. It says that it assigns event times, and does not: `assign` is missing.
struct Forgetful(file::Lines);

impl Source for Forgetful {
    type Record = String;
    type Split = file::FileSplit;
    type Position = file::FilePosition;
    type Reader = <file::Lines as Source>::Reader;

    async fn splits(&self) -> Result<Vec<(String, Self::Split)>> {
        self.0.splits().await
    }

    async fn open(&self, split: Self::Split, at: Option<Self::Position>) -> Result<Self::Reader> {
        self.0.open(split, at).await
    }

    fn event_time_policy(&self) -> Option<EventTimePolicy> {
        Some(EventTimePolicy { lateness: Duration::ZERO, idle_after: None })
    }
}

fn main() -> ExitCode {
    staunch::main(broken)
}

fn broken(job: &Job, args: &Args) -> Result<()> {
    job.source("lines", Forgetful(file::lines(&args.input))).sink("output", file::json_lines(&args.output));
    Ok(())
}
