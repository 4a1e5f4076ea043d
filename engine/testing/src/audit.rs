//! Checks the victim's output from outside. Knows nothing of the engine.

use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A row as it stands in the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Row {
    /// Its key.
    pub key: u64,
    /// How many records of the key there were up to this one.
    pub n: u64,
    /// Sum of their indexes.
    pub sum: u64,
    /// The split of the record that caused it.
    pub split: u32,
    /// The record's index in its split.
    pub index: u64,
}

/// What the victim was told to do.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Records of each split.
    pub records: u64,
    /// Splits.
    pub splits: u32,
    /// Keys.
    pub keys: u64,
}

/// What an audit found; all of it must be nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// Records without a row.
    pub missing: u64,
    /// Rows beyond the first of a record.
    pub doubled: u64,
    /// Rows of records that do not exist, or under a wrong key.
    pub foreign: u64,
    /// Rows whose running count or sum is not the prefix of their key.
    pub wrong_prefix: u64,
}

impl Findings {
    /// Whether everything is as it must be.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares rows with what must be there: the identity audit and the prefix sums.
pub fn audit(expected: &Expected, rows: &[Row]) -> Findings {
    let mut findings = Findings::default();
    let mut seen: HashMap<(u32, u64), u64> = HashMap::new();
    let mut keys: BTreeMap<u64, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let exists = row.split < expected.splits && row.index < expected.records;
        let key = (row.index.wrapping_mul(31).wrapping_add(u64::from(row.split))) % expected.keys;
        if !exists || key != row.key {
            findings.foreign += 1;
            continue;
        }
        *seen.entry((row.split, row.index)).or_default() += 1;
        keys.entry(row.key).or_default().push(row);
    }
    findings.doubled = seen.values().map(|times| times - 1).sum();
    findings.missing = expected.records * u64::from(expected.splits) - seen.len() as u64;
    for rows in keys.values_mut() {
        rows.sort_by_key(|row| row.n);
        let mut sum = 0;
        for (at, row) in rows.iter().enumerate() {
            sum += row.index;
            if row.n != at as u64 + 1 || row.sum != sum {
                findings.wrong_prefix += 1;
            }
        }
    }
    findings
}

/// Names and lengths of the published part files, for an observer who watches that none changes or
/// disappears.
///
/// # Errors
/// The directory cannot be read.
pub fn published(dir: &Path) -> std::io::Result<BTreeMap<String, u64>> {
    let mut files = BTreeMap::new();
    if !dir.exists() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("part-") {
            files.insert(name, entry.metadata()?.len());
        }
    }
    Ok(files)
}

/// The rows of all published part files.
///
/// # Errors
/// A file cannot be read, or a line is no row.
pub fn rows_of_files(dir: &Path) -> std::io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in published(dir)?.into_keys() {
        for line in std::fs::read_to_string(dir.join(&name))?.lines() {
            let row = serde_json::from_str(line)
                .map_err(|e| std::io::Error::other(format!("{name}: {line:?} is no row: {e}")))?;
            rows.push(row);
        }
    }
    Ok(rows)
}

/// The rows of the table.
///
/// # Errors
/// The database cannot be read.
pub fn rows_of_table(database: &Path) -> rusqlite::Result<Vec<Row>> {
    let connection = rusqlite::Connection::open(database)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    let mut query = connection.prepare("SELECT key, n, sum, split, \"index\" FROM rows")?;
    let rows = query.query_map([], |row| {
        let number = |at| row.get::<_, i64>(at).map(|n| n as u64);
        Ok(Row {
            key: number(0)?,
            n: number(1)?,
            sum: number(2)?,
            split: number(3)? as u32,
            index: number(4)?,
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected { records: 3, splits: 1, keys: 1 };

    fn right() -> Vec<Row> {
        (0..3).map(|i| Row { key: 0, n: i + 1, sum: i * (i + 1) / 2, split: 0, index: i }).collect()
    }

    #[test]
    fn right_rows_are_clean_in_any_order() {
        let mut rows = right();
        rows.reverse();
        assert!(audit(&EXPECTED, &rows).is_clean());
    }

    #[test]
    fn a_lost_row_is_missing_and_breaks_the_prefix() {
        let mut rows = right();
        rows.remove(1);
        let findings = audit(&EXPECTED, &rows);
        assert_eq!((findings.missing, findings.doubled), (1, 0));
        assert!(findings.wrong_prefix > 0);
    }

    #[test]
    fn a_doubled_row_is_seen_even_if_the_state_was_applied_twice() {
        let mut rows = right();
        rows.push(Row { key: 0, n: 4, sum: 5, split: 0, index: 2 });
        assert_eq!(audit(&EXPECTED, &rows).doubled, 1);
    }

    #[test]
    fn state_that_was_applied_twice_behind_a_deduplicating_sink_is_seen() {
        let mut rows = right();
        rows[2].n = 4;
        assert_eq!(audit(&EXPECTED, &rows).wrong_prefix, 1);
    }

    #[test]
    fn a_row_of_nowhere_is_foreign() {
        let mut rows = right();
        rows.push(Row { key: 0, n: 4, sum: 12, split: 0, index: 9 });
        assert_eq!(audit(&EXPECTED, &rows).foreign, 1);
    }
}
