//! A job made to be broken: it follows a table, and writes each change into files. What it is to do stands in its environment.

use serde::{Deserialize, Serialize};
use staunch::{file, prelude::*};
use staunch_postgres::follow;

#[derive(Clone, Serialize, Deserialize)]
struct Item {
    id: i64,
    n: Option<i64>,
    note: Option<String>,
}

fn main() -> ExitCode {
    staunch::main(|job: &Job<'_>, (): &()| follower(job))
}

fn told(name: &str) -> String {
    std::env::var(format!("FOLLOWER_{name}")).unwrap_or_default()
}

fn follower(job: &Job<'_>) -> Result<()> {
    let source = follow(told("URL"), [told("TABLE")]).slot(told("SLOT")).rows::<Item>();
    job.source("in", source.limit_rate(told("RATE").parse().ok())).sink("out", file::json_lines(told("OUT")));
    Ok(())
}
