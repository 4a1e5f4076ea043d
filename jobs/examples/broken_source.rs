//! A job with a bug in its source. For the test of what such a bug looks like to whoever runs the job.

use staunch::core::context::SourceContext;
use staunch::core::source::Source;
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

/// Lines. It lists its files in a list, and forgets to put them there.
struct Forgetful(file::Lines);

impl Source for Forgetful {
    type Record = String;
    type Split = Vec<file::FileSplit>;
    type Position = file::FilePosition;
    type Reader = <file::Lines as Source>::Reader;

    async fn splits(&self, context: &SourceContext) -> Result<Vec<(String, Self::Split)>> {
        let listed = self.0.splits(context).await?;
        Ok(listed.into_iter().map(|(id, _)| (id, Vec::new())).collect())
    }

    async fn open(
        &self,
        split: Self::Split,
        at: Option<Self::Position>,
        context: &SourceContext,
    ) -> Result<Self::Reader> {
        let file = split.into_iter().next().ok_or_else(|| Error::internal("a split without a file"))?;
        self.0.open(file, at, context).await
    }
}

fn main() -> ExitCode {
    staunch::main(broken)
}

fn broken(job: &Job, args: &Args) -> Result<()> {
    job.source("lines", Forgetful(file::lines(&args.input))).sink("output", file::json_lines(&args.output));
    Ok(())
}
