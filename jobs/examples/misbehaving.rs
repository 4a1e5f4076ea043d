//! Jobs that go wrong in one way each. For the tests of how such a job ends.

use staunch::core::background::{Background, BlockingReader};
use staunch::core::context::SourceContext;
use staunch::core::source::{Progress, Records, Source};
use staunch::{discard, file, generator, prelude::*};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[derive(Clone, clap::Args)]
struct Args {
    /// Any text file.
    #[arg(long)]
    input: PathBuf,
    /// Directory for the copy.
    #[arg(long)]
    output: PathBuf,
    /// What goes wrong.
    #[arg(long)]
    what: What,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// The program panics while it builds its graph.
    BuildPanics,
    /// The program builds another graph each time, with channels of other types.
    OtherGraph,
    /// A reader panics on its own thread.
    ReaderPanics,
}

fn main() -> ExitCode {
    staunch::main(misbehaving)
}

fn misbehaving(job: &Job, args: &Args) -> Result<()> {
    match args.what {
        What::BuildPanics => panic!("no columns are configured"),
        What::OtherGraph => other_graph(job),
        What::ReaderPanics => {
            job.source("lines", Careless(file::lines(&args.input)))
                .sink("output", file::json_lines(&args.output));
        }
    }
    Ok(())
}

/// How often the program was called.
static CALLS: AtomicUsize = AtomicUsize::new(0);

fn other_graph(job: &Job) {
    let numbers = job.source("numbers", generator::sequence(None, 1, |_, n| n));
    if CALLS.fetch_add(1, SeqCst).is_multiple_of(2) {
        numbers.key_by(|n| *n).count("counts").sink("output", discard::sink());
    } else {
        let words = numbers.map(|n| n.to_string());
        words.key_by(|word| word.clone()).count("lengths").sink("output", discard::sink());
    }
}

/// Lines, read by somebody who expects something.
struct Careless(file::Lines);

struct CarelessReader;

impl BlockingReader for CarelessReader {
    type Record = String;
    type Position = u64;

    fn read(&mut self, _: &mut Records<String>) -> Result<Progress> {
        panic!("a line without a colon")
    }

    fn position(&self) -> u64 {
        0
    }
}

impl Source for Careless {
    type Record = String;
    type Split = file::FileSplit;
    type Position = u64;
    type Reader = Background<CarelessReader>;

    async fn splits(&self, context: &SourceContext) -> Result<Vec<(String, Self::Split)>> {
        self.0.splits(context).await
    }

    async fn open(&self, _: Self::Split, _: Option<u64>, _: &SourceContext) -> Result<Self::Reader> {
        Background::start("careless", CarelessReader)
    }
}
