//! Compares a complete job's output with what must be there: the identity audit and the prefix sums.
//!
//! Knows nothing of the engine. What must be there follows by arithmetic from what the victim was told to
//! do: this is the sequential reference.

use crate::rows::Row;

/// What the victim was told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Records of each split.
    pub records: u64,
    /// Splits.
    pub splits: u32,
    /// Keys.
    pub keys: u64,
}

impl Expected {
    /// Records of all splits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.records * u64::from(self.splits)
    }

    /// The number of a row's record among all, if there is such a record and the row is under its key.
    #[must_use]
    pub fn identity(&self, row: &Row) -> Option<usize> {
        let exists = row.split < self.splits && row.index < self.records;
        let key = row.index.wrapping_mul(31).wrapping_add(u64::from(row.split)) % self.keys;
        (exists && key == row.key).then(|| (u64::from(row.split) * self.records + row.index) as usize)
    }
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
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares rows with what must be there.
#[must_use]
pub fn audit(expected: &Expected, rows: &[Row]) -> Findings {
    let mut findings = Findings::default();
    let mut seen = vec![false; expected.total() as usize];
    let mut real = Vec::with_capacity(rows.len());
    for row in rows {
        match expected.identity(row) {
            None => findings.foreign += 1,
            Some(record) => {
                findings.doubled += u64::from(std::mem::replace(&mut seen[record], true));
                real.push((row.key, row.n, row));
            }
        }
    }
    findings.missing = seen.iter().filter(|seen| !**seen).count() as u64;
    real.sort_unstable_by_key(|(key, n, _)| (*key, *n));
    let (mut key, mut n, mut sum) = (None, 0, 0);
    for (of, _, row) in real {
        if key != Some(of) {
            (key, n, sum) = (Some(of), 0, 0);
        }
        n += 1;
        sum += row.index;
        findings.wrong_prefix += u64::from(row.n != n || row.sum != sum);
    }
    findings
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
