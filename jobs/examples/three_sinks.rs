//! The lines of growing files into three sinks at once: printed, written to files, thrown away.
//!
//! What is printed comes at once, and again after a crash; what is in the files comes with the next checkpoint, and
//! once.
//!
//! ```text
//! cargo run --release -p jobs --example three_sinks -- --input logs/ --output copies/
//! ```

use staunch::{discard, file, prelude::*, stdout};

#[derive(Clone, clap::Args)]
struct Args {
    /// A file that grows, or a directory of them.
    #[arg(long)]
    input: PathBuf,
    /// Directory for the copies.
    #[arg(long)]
    output: PathBuf,
    /// Print lines as JSON.
    #[arg(long)]
    print_json: bool,
}

fn main() -> ExitCode {
    staunch::main(three_sinks)
}

fn three_sinks(job: &Job, args: &Args) -> Result<()> {
    let lines = job.source("lines", file::lines(&args.input).follow(true));
    lines.clone().sink("printed", if args.print_json { stdout::json() } else { stdout::lines() });
    lines.clone().sink("thrown_away", discard::sink());
    lines.sink("copied", file::json_lines(&args.output));
    Ok(())
}
