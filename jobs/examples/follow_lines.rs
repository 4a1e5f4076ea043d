//! Counts the lines of growing files by their first word, for ever: a job that mostly waits.
//!
//! ```text
//! cargo run --release -p jobs --example follow_lines -- --input logs/ --output counts/
//! ```

use staunch::{file, prelude::*};

#[derive(Clone, clap::Args)]
struct Args {
    /// A file that grows, or a directory of them.
    #[arg(long)]
    input: PathBuf,
    /// Directory for the counts.
    #[arg(long)]
    output: PathBuf,
}

fn main() -> ExitCode {
    staunch::main(follow_lines)
}

fn follow_lines(job: &Job, args: &Args) -> Result<()> {
    job.source("lines", file::lines(&args.input).follow(true))
        .key_by(|line| line.split_whitespace().next().unwrap_or_default().to_owned())
        .count("counts")
        .sink("output", file::csv(&args.output));
    Ok(())
}
