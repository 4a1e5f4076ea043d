//! What a life does to files when nobody strikes: which operations there are, where, and how many.

use super::cases::{Case, Life};
use super::run::{Shim, place};
use crate::oracle::Failure;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Traced {
    /// Its name: `open`, `write`, ...
    pub operation: String,
    /// The path, seen from the victim's directory.
    pub path: String,
}

/// What a life did, in order, and what there is of each sort.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Which life it was.
    pub life: Life,
    /// All operations.
    pub trace: Vec<Traced>,
    /// How many there are of an operation whose path begins so.
    pub sorts: BTreeMap<(String, String), u64>,
}

/// Has a life of the victim go its way, and writes down what it did.
///
/// # Errors
/// It does not end well, or nothing was seen.
pub fn learn(life: Life, workers: u32, program: &Path) -> Result<Learned, Failure> {
    let dir = tempfile::tempdir().map_err(Failure::trouble)?;
    let case = Case { life, workers, strikes: Vec::new() };
    let (mut victim, shim) = super::run::prepared(&case, program, dir.path())?;
    let file = dir.path().join("trace");
    let mut unstruck = shim.life(None, workers)?;
    unstruck.variables.push((Shim::TRACE, file.clone().into()));
    let mut child = victim.start(&unstruck).map_err(Failure::trouble)?;
    let status = crate::process::wait(&mut child, super::run::LIFE).map_err(Failure::Trouble)?;
    let trace: Vec<Traced> =
        fs::read_to_string(&file).unwrap_or_default().lines().filter_map(Traced::of_line).collect();
    if !status.success() || trace.is_empty() {
        let what = format!("{} operations of files were seen, and it ended with {status}", trace.len());
        return Err(Failure::Trouble(format!("nothing can be learnt: {what}: {}", victim.last_log())));
    }
    Ok(Learned { life, sorts: sorts(&trace), trace })
}

fn sorts(trace: &[Traced]) -> BTreeMap<(String, String), u64> {
    let mut sorts = BTreeMap::new();
    for Traced { operation, path } in trace {
        sorts.insert((operation.clone(), place(path).to_owned()), 0);
    }
    for ((operation, place), count) in &mut sorts {
        let is_one = |one: &&Traced| one.operation == *operation && one.path.starts_with(place.as_str());
        *count = trace.iter().filter(is_one).count() as u64;
    }
    sorts
}

impl Traced {
    fn of_line(line: &str) -> Option<Self> {
        let (operation, path) = line.split_once(' ')?;
        Some(Traced { operation: operation.to_owned(), path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sort_has_all_operations_that_a_strike_at_it_would_count() {
        let lines =
            ["open rows.db", "open rows.db-wal", "write rows.db-wal", "open output/parts/part-1", "look "];
        let trace: Vec<Traced> = lines.iter().filter_map(|line| Traced::of_line(line)).collect();
        let sorts: Vec<_> = sorts(&trace).into_iter().map(|((o, p), n)| (format!("{o} {p}"), n)).collect();
        let expected = [
            ("look ", 1),
            ("open output/parts/part-", 1),
            ("open rows.db", 2),
            ("open rows.db-wal", 1),
            ("write rows.db-wal", 1),
        ];
        assert_eq!(sorts, expected.map(|(sort, n)| (sort.to_owned(), n)));
    }
}
