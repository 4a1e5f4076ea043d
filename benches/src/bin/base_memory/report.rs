//! The table, for the terminal and for the file of results.

use crate::run::{Frozen, Kind, Measured};
use benches::statistics::{max, median};
use std::fmt::Write;

const HEAD: &str = "| state | what is frozen is in | memory before | the base | peak memory | above the state | work for the freeze | longest slice | barrier to durable |\n\
                    |:--|:--|--:|--:|--:|--:|--:|--:|--:|\n";

/// What was done, and the table.
pub fn text(keys: u64, rows: &[(Kind, Frozen, Vec<Measured>)]) -> String {
    let mut text = format!(
        "- A table of {} million keys on one worker, frozen as a base in slices of 4096 entries; 1024 keys in a row of random \
         ones are written between two slices. Integers: a key and a value of 64 bits. Texts: about 20 letters and 100.\n\
         - Each run is a process of its own; medians, of peak memory and the longest slice the highest.\n\
         - In memory: all that is frozen stays there until it is in the checkpoint storage. In a scratch file: all but \
         16 MiB, which is what the engine does.\n\
         - Peak memory: VmHWM when the base was durable. Then the base was read again, and held the values of the \
         barrier.\n\
         - Slices are times on the wall.\n\n{HEAD}",
        keys as f64 / 1e6
    );
    for (kind, frozen, measured) in rows {
        // Formatting into a String does not fail.
        let _ = writeln!(text, "{}", row(*kind, *frozen, measured));
    }
    text
}

/// One row.
pub fn row(kind: Kind, frozen: Frozen, runs: &[Measured]) -> String {
    let median = |value: fn(&Measured) -> f64| median(runs.iter().map(value)).unwrap_or_default();
    let max = |value: fn(&Measured) -> f64| max(runs.iter().map(value)).unwrap_or_default();
    let place = match frozen {
        Frozen::Memory => "memory",
        Frozen::Scratch => "a scratch file",
    };
    format!(
        "| {} | {place} | {:.0} MB | {:.0} MB | {:.0} MB | {:.0} MB | {:.0} ms | {:.1} ms | {:.0} ms |",
        kind.word(),
        median(|run| run.before as f64) / 1e6,
        median(|run| run.base as f64) / 1e6,
        max(|run| run.peak as f64) / 1e6,
        max(|run| run.peak.saturating_sub(run.before) as f64) / 1e6,
        median(|run| run.freeze_ms),
        max(|run| run.longest_ms),
        median(|run| run.durable_ms),
    )
}
