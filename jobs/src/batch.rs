//! The results that the jobs must come to, computed in one go: read everything, then count.
//!
//! Called by the demo and the tests. Shares no code with the engine and none with the jobs.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What an hour at an airport comes to.
#[derive(Default)]
struct Hour {
    scheduled: u64,
    cancelled: u64,
    delayed: u64,
    minutes: i64,
    longest: Option<i64>,
}

/// The result of `flight_delays`, sorted, and the number of flights that it was computed from.
#[derive(Clone, Debug)]
pub struct FlightDelays {
    /// The lines that must be in the committed files, each once, sorted.
    pub lines: Vec<String>,
    /// Flights read.
    pub flights: u64,
}

/// Computes the result of `flight_delays` over a CSV file or a directory of them.
///
/// # Errors
/// The input cannot be read, or is not what this job expects.
pub fn flight_delays(input: &Path) -> Result<FlightDelays> {
    let mut hours: BTreeMap<(String, String), Hour> = BTreeMap::new();
    let mut flights = 0;
    for file in files(input)? {
        let mut rows = csv::Reader::from_path(&file)?;
        let columns = rows.headers()?.clone();
        let column = |name: &str| {
            columns
                .iter()
                .position(|c| c == name)
                .with_context(|| format!("{}: no column {name}", file.display()))
        };
        let (origin, hour, minute, delay) =
            (column("origin")?, column("time_hour")?, column("minute")?, column("dep_delay")?);
        for row in rows.records() {
            let row = row?;
            // So that the hour of scheduled departure is the one in the column.
            ensure!(row[hour].ends_with(":00:00Z") && row[minute].parse::<u8>()? < 60, "unexpected: {row:?}");
            let entry = hours.entry((row[origin].to_owned(), row[hour].to_owned())).or_default();
            entry.scheduled += 1;
            flights += 1;
            if &row[delay] == "NA" {
                entry.cancelled += 1;
                continue;
            }
            let late: i64 = row[delay].parse()?;
            entry.minutes += late;
            if late > 15 {
                entry.delayed += 1;
            }
            if entry.longest.is_none_or(|longest| late > longest) {
                entry.longest = Some(late);
            }
        }
    }
    let mut lines: Vec<String> =
        hours.into_iter().map(|((origin, hour), sums)| line(&origin, &hour, &sums)).collect();
    lines.sort_unstable();
    Ok(FlightDelays { lines, flights })
}

fn line(origin: &str, hour: &str, sums: &Hour) -> String {
    let Hour { scheduled, cancelled, delayed, minutes, longest } = sums;
    let longest = longest.map_or("null".to_owned(), |longest| longest.to_string());
    format!(
        "{{\"origin\":\"{origin}\",\"hour\":\"{hour}\",\"scheduled\":{scheduled},\"cancelled\":{cancelled},\
         \"delayed\":{delayed},\"delay_minutes\":{minutes},\"max_delay_minutes\":{longest}}}"
    )
}

/// How often each word is in a text.
pub fn word_count(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.push(c);
        } else if !word.is_empty() {
            *counts.entry(std::mem::take(&mut word).to_lowercase()).or_default() += 1;
        }
    }
    counts
}

fn files(input: &Path) -> Result<Vec<PathBuf>> {
    if input.is_file() {
        return Ok(vec![input.to_owned()]);
    }
    let entries = input.read_dir().with_context(|| format!("cannot read {}", input.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
