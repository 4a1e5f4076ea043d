//! Counts the words of a text file.
use staunch::{file, prelude::*};

#[derive(Clone, clap::Args)]
struct Args {
    /// Text file to count.
    #[arg(long)]
    input: PathBuf,
    /// Directory for the counts.
    #[arg(long)]
    output: PathBuf,
}

fn main() -> ExitCode {
    staunch::main(word_count)
}

fn word_count(job: &Job, args: &Args) -> Result<()> {
    job.source("lines", file::lines(&args.input))
        .flat_map(words)
        .key_by(|word| word.clone())
        .count("counts")
        .sink("output", file::csv(&args.output));
    Ok(())
}

fn words(line: String) -> Vec<String> {
    line.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}
