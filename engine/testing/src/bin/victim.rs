//! A job made to be broken: every row of its output names the record that caused it, and carries a
//! running count and sum of its key, so that a lost, doubled or foreign record and a state that was
//! applied twice can all be seen from outside.

use serde::{Deserialize, Serialize};
use staunch::{file, generator, prelude::*, sqlite};

#[derive(Clone, clap::Args)]
struct Args {
    /// Directory for the rows, as JSON Lines.
    #[arg(long)]
    output: Option<PathBuf>,
    /// SQLite database for the same rows, in the table `rows`.
    #[arg(long)]
    sqlite: Option<PathBuf>,
    /// Directory with a file of JSON Lines for each split: read, instead of making the records up.
    #[arg(long)]
    input: Option<PathBuf>,
    /// Records of each split.
    #[arg(long)]
    records: u64,
    /// Splits.
    #[arg(long)]
    splits: u32,
    /// Keys.
    #[arg(long)]
    keys: u64,
    /// Records a second on each worker.
    #[arg(long)]
    rate: Option<u64>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Record {
    split: u32,
    index: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Running {
    n: u64,
    sum: u64,
    last: Option<Record>,
}

#[derive(Clone, Serialize)]
struct Row {
    key: u64,
    n: u64,
    sum: u64,
    split: u32,
    index: u64,
}

fn main() -> ExitCode {
    staunch::main(victim)
}

fn victim(job: &Job, args: &Args) -> Result<()> {
    let keys = args.keys;
    let records = match &args.input {
        Some(dir) => job.source("records", file::json_rows::<Record>(dir).limit_rate(args.rate)),
        None => {
            let made =
                generator::sequence(Some(args.records), args.splits, |split, index| Record { split, index });
            job.source("records", made.limit_rate(args.rate))
        }
    };
    let rows = records
        .key_by(move |record| (record.index * 31 + u64::from(record.split)) % keys)
        .fold("running", |running: &mut Running, record: Record| {
            running.n += 1;
            running.sum += record.index;
            running.last = Some(record);
        })
        .flat_map(|(key, running)| {
            let Running { n, sum, last } = running;
            last.map(|record| Row { key, n, sum, split: record.split, index: record.index })
        });
    if let Some(path) = &args.sqlite {
        let table = "CREATE TABLE IF NOT EXISTS rows (key INTEGER, n INTEGER, sum INTEGER, split INTEGER, \"index\" INTEGER)";
        rows.clone().sink("table", sqlite::table(path, "rows").create(table));
    }
    if let Some(path) = &args.output {
        rows.sink("files", file::json_lines(path));
    }
    Ok(())
}
