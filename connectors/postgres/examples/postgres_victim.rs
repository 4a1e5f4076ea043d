//! A job made to be broken, as `engine/testing/src/bin/victim.rs` is one, into a table of PostgreSQL: each row names the
//! record that caused it, with a running count and sum of its key. What it is to do stands in its environment.

use serde::{Deserialize, Serialize};
use staunch::{generator, prelude::*};
use std::str::FromStr;

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
    staunch::main(|job: &Job<'_>, (): &()| victim(job))
}

fn told<T: FromStr>(name: &str) -> Result<T> {
    let text = std::env::var(format!("VICTIM_{name}")).unwrap_or_default();
    text.parse().map_err(|_| Error::job(format!("VICTIM_{name}={text:?} cannot be read")))
}

fn victim(job: &Job<'_>) -> Result<()> {
    let (keys, records): (u64, u64) = (told("KEYS")?, told("RECORDS")?);
    let made = generator::sequence(Some(records), told("SPLITS")?, |split, index| Record { split, index });
    let rows = job
        .source("records", made.limit_rate(Some(told("RATE")?)))
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
    let url: String = told("URL")?;
    rows.sink("table", staunch_postgres::table(url, told::<String>("TABLE")?));
    Ok(())
}
