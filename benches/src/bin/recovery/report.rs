//! The table, and what has to be known to read it.

use crate::job::{CHECKPOINT_EVERY, RATE, WORKERS};
use crate::kills::Recovery;
use benches::statistics::{max, median, percentile};

/// From this many kills on there is a 99th percentile that is not just the longest time.
const ENOUGH: usize = 100;

const HEAD: &str = "| keys | kills | kill to first new record read, p50 | p99 or longest | of p50: start of the job | of that: loading state, about | kill to first new result committed, p50 | p99 or longest | state restored, p50 | files |\n\
                    |:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";

/// All kills at one number of keys.
pub struct Size {
    /// Keys in the state.
    pub keys: u64,
    /// In the order of the kills.
    pub recoveries: Vec<Recovery>,
}

impl Size {
    fn p50(&self, value: fn(&Recovery) -> f64) -> Option<f64> {
        median(self.recoveries.iter().map(value))
    }

    /// The 99th percentile if there are enough kills for one, or else the longest time; it says which.
    fn tail(&self, value: fn(&Recovery) -> f64) -> String {
        let values = self.recoveries.iter().map(value);
        match self.recoveries.len() {
            kills if kills >= ENOUGH => format!("p99 {}", ms(percentile(values, 99))),
            kills => format!("longest of {kills}: {}", ms(max(values))),
        }
    }

    fn start_ms(&self) -> Option<f64> {
        self.p50(|r| r.start_ms)
    }
}

/// One line, when a number of keys is done.
pub fn progress(size: &Size) -> String {
    format!(
        "{} keys, {} kills: first new record after p50 {}, {}",
        name(size.keys),
        size.recoveries.len(),
        ms(size.p50(|r| r.read_ms)),
        size.tail(|r| r.read_ms)
    )
}

/// The table and its explanation.
pub fn text(sizes: &[Size]) -> String {
    let fewest = sizes.iter().min_by_key(|size| size.keys);
    let rows: String = sizes.iter().map(|size| row(size, fewest)).collect();
    let rate = RATE * WORKERS as u64;
    format!(
        "- The job: a running count of random 64-bit keys, {WORKERS} workers, {rate} records a second together, files as \
         output, a checkpoint every {CHECKPOINT_EVERY:?}, all state in memory.\n\
         - A kill: SIGKILL, at moments that are spread over the time between two checkpoints. The job is started again at \
         once, with the same command. What a supervisor waits comes on top.\n\
         - The first new record is one that no committed result contains. After each restart all keys are there.\n\
         - Start of the job: `staunch_restore_seconds` of the new process, from reading the checkpoint log until all workers \
         run. Before it are the end of the old process and the start of the new one.\n\
         - Loading state: what the start takes longer than with the fewest keys, where there is next to nothing to load.\n\
         - State restored: the files that the checkpoint lists, which are read whole. They come from the page cache, as they \
         do whenever the process dies and the machine does not. After a restart of the machine the disk's time is added.\n\n\
         {HEAD}{rows}"
    )
}

fn row(size: &Size, fewest: Option<&Size>) -> String {
    let start = size.start_ms();
    let other = fewest.filter(|fewest| fewest.keys < size.keys).and_then(Size::start_ms);
    let loading = start.zip(other).map(|(start, without)| (start - without).max(0.0));
    let cells = [
        name(size.keys),
        size.recoveries.len().to_string(),
        ms(size.p50(|r| r.read_ms)),
        size.tail(|r| r.read_ms),
        ms(start),
        ms(loading),
        ms(size.p50(|r| r.committed_ms)),
        size.tail(|r| r.committed_ms),
        bytes(size.p50(|r| r.stored.bytes as f64)),
        size.p50(|r| r.stored.files as f64).map_or("-".to_owned(), |files| format!("{files:.0}")),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn name(keys: u64) -> String {
    let keys = keys as f64;
    if keys < 1e6 { format!("{} thousand", keys / 1e3) } else { format!("{} million", keys / 1e6) }
}

fn ms(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"))
}

fn bytes(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |bytes| {
        if bytes < 1e6 { format!("{:.0} kB", bytes / 1e3) } else { format!("{:.1} MB", bytes / 1e6) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Stored;

    fn size(keys: u64, kills: u32, start_ms: f64) -> Size {
        let recovery = |n: u32| Recovery {
            read_ms: f64::from(n),
            start_ms,
            committed_ms: f64::from(n) + 100.0,
            stored: Stored { bytes: keys * 20, files: 2 },
        };
        Size { keys, recoveries: (1..=kills).map(recovery).collect() }
    }

    #[test]
    fn a_percentile_is_claimed_only_where_there_are_kills_enough() {
        let text = text(&[size(1000, 100, 5.0), size(10_000_000, 10, 905.0)]);
        let rows: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(
            rows[1],
            "| 1 thousand | 100 | 50 ms | p99 99 ms | 5 ms | - | 150 ms | p99 199 ms | 20 kB | 2 |"
        );
        assert_eq!(
            rows[0],
            "| 10 million | 10 | 5 ms | longest of 10: 10 ms | 905 ms | 900 ms | 105 ms | longest of 10: 110 ms | 200.0 MB | 2 |"
        );
    }
}
