//! Tables of PostgreSQL, through `psql`.

use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Runs SQL; the rows that come back, columns with a `|` between them.
///
/// # Errors
/// The server refuses, or there is no `psql`.
pub fn psql(url: &str, sql: &str) -> Result<Vec<String>> {
    let mut command = Command::new("psql");
    command.args([
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        sql,
        url,
    ]);
    let done = command.output().context("psql cannot be run; it comes with PostgreSQL")?;
    ensure!(done.status.success(), "psql: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?.lines().map(str::to_owned).collect())
}
