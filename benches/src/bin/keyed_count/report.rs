//! The table, for the terminal and for the file of results.

use crate::variant::{Measured, Variant};
use benches::statistics::{max, median};
use std::collections::BTreeMap;
use std::fmt::Write;

/// All runs of one number of keys: by variant, one for each round.
pub type Rounds = BTreeMap<usize, Vec<Measured>>;

const HEAD: &str = "| program | records/s | ratio to raw timely | CPU a record | checkpoint p50 | max | longest stall | bytes a checkpoint | peak memory | memory at the end |\n\
                    |:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";

/// The table for one number of keys.
pub fn table(keys: u64, rounds: &Rounds) -> String {
    let mut text = format!("## {} million keys\n\n{HEAD}", keys as f64 / 1e6);
    let base = rounds.get(&place(Variant::Timely));
    for variant in Variant::ALL {
        if let Some(runs) = rounds.get(&place(variant)) {
            text.push_str(&row(variant, runs, base));
        }
    }
    text
}

/// Where a variant stands in the order of a round.
pub fn place(variant: Variant) -> usize {
    Variant::ALL.iter().position(|v| *v == variant).unwrap_or(usize::MAX)
}

fn row(variant: Variant, runs: &[Measured], base: Option<&Vec<Measured>>) -> String {
    let rate = median(runs.iter().map(|run| run.records_per_second)).unwrap_or(0.0);
    let ratios =
        base.into_iter().flatten().zip(runs).map(|(b, run)| run.records_per_second / b.records_per_second);
    let ratio = median(ratios).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let processor = median(runs.iter().map(|run| run.processor_ns)).unwrap_or(0.0);
    let mut text = format!("| {} | {} | {ratio} | {processor:.0} ns ", variant.title(), millions(rate));
    let checkpoints: Vec<_> = runs.iter().filter_map(|run| run.checkpoints.as_ref()).collect();
    if checkpoints.is_empty() {
        text.push_str("| | | | ");
    } else {
        let durations = || checkpoints.iter().flat_map(|c| c.durations_ms.iter().copied());
        let stall = max(checkpoints.iter().map(|c| c.longest_stall_ms));
        let bytes = median(checkpoints.iter().map(|c| c.bytes_each));
        let failed: u64 = checkpoints.iter().map(|c| c.failed).sum();
        let note = if failed > 0 { format!(" ({failed} abandoned)") } else { String::new() };
        let (p50, longest) = (median(durations()), max(durations()));
        // Formatting into a String does not fail.
        let _ = write!(text, "| {}{note} | {} | {} | {} ", ms(p50), ms(longest), ms(stall), mb(bytes));
    }
    let peak = max(runs.iter().map(|run| run.peak_bytes as f64));
    let end = median(runs.iter().map(|run| run.resident_after_bytes as f64));
    let _ = writeln!(text, "| {} | {} |", mb(peak), mb(end));
    text
}

fn millions(rate: f64) -> String {
    format!("{:.2} M", rate / 1e6)
}

fn ms(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"))
}

fn mb(bytes: Option<f64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MB", bytes / 1e6))
}
