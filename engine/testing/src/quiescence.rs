//! Whether a complete job left anything behind that nobody needs.

use crate::rows;
use crate::victim::Victim;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is left over; nothing, if the list is empty.
///
/// # Errors
/// A place cannot be read.
pub fn leftovers(victim: &Victim) -> Result<Vec<String>, String> {
    let io = |e: io::Error| e.to_string();
    let checkpoints = victim.checkpoints();
    let mut found = Vec::new();
    for (what, place) in [
        ("pending part file", victim.output().join(".pending")),
        ("staged blob", checkpoints.join("staged")),
        ("temporary file", checkpoints.join(".tmp")),
        ("file of the working directory", checkpoints.join("work")),
    ] {
        found.extend(files(&place).map_err(io)?.into_iter().map(|file| format!("{what} {}", file.display())));
    }
    let mut log = Vec::new();
    for record in files(&checkpoints.join("log")).map_err(io)? {
        log.push(fs::read_to_string(record).map_err(io)?);
    }
    for file in files(&checkpoints.join("state")).map_err(io)? {
        let name = file.strip_prefix(&checkpoints).map_err(|e| e.to_string())?.to_string_lossy().into_owned();
        if !log.iter().any(|record| record.contains(&format!("\"{name}\""))) {
            found.push(format!("state file {name}, which no record of the log names"));
        }
    }
    if victim.sinks.table() {
        let check = |connection: rusqlite::Connection| {
            connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
        };
        let answer = rows::open(&victim.database()).and_then(check).map_err(|e| e.to_string())?;
        if answer != "ok" {
            found.push(format!("SQLite says of its database: {answer}"));
        }
    }
    Ok(found)
}

/// All files below a folder; none if it is not there.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Expected;

    fn put(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn every_sort_of_left_over_is_found_and_what_a_record_names_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let expected = Expected { records: 1, splits: 1, keys: 1 };
        let victim = Victim::new(Path::new("victim"), dir.path(), expected);
        let database = rusqlite::Connection::open(victim.database()).unwrap();
        database.execute_batch("CREATE TABLE rows (key INTEGER)").unwrap();
        put(&victim.checkpoints().join("log/1"), "{\"name\":\"state/step/0/1.base\"}");
        put(&victim.checkpoints().join("state/step/0/1.base"), "needed");
        assert_eq!(leftovers(&victim), Ok(vec![]));
        let left = [
            victim.output().join(".pending/part"),
            victim.checkpoints().join("staged/table/1"),
            victim.checkpoints().join(".tmp/1"),
            victim.checkpoints().join("state/step/0/2.delta"),
        ];
        left.iter().for_each(|path| put(path, "left"));
        assert_eq!(leftovers(&victim).unwrap().len(), left.len());
    }
}
