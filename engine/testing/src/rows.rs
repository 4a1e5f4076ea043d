//! Reading the victim's output from outside, from published part files and from the table.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

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

/// Names and lengths of the published part files.
///
/// # Errors
/// The directory cannot be read.
pub fn published(dir: &Path) -> io::Result<BTreeMap<String, u64>> {
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

/// The rows of one part file.
///
/// # Errors
/// It cannot be read, or a line is no row.
pub fn of_file(path: &Path) -> io::Result<Vec<Row>> {
    let row = |line: &str| {
        serde_json::from_str(line)
            .map_err(|e| io::Error::other(format!("{}: {line:?} is no row: {e}", path.display())))
    };
    std::fs::read_to_string(path)?.lines().map(row).collect()
}

/// The rows of all published part files.
///
/// # Errors
/// A file cannot be read, or a line is no row.
pub fn of_files(dir: &Path) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in published(dir)?.into_keys() {
        rows.extend(of_file(&dir.join(&name))?);
    }
    Ok(rows)
}

/// Opens the table's database for reading.
///
/// # Errors
/// It cannot be opened.
pub fn open(database: &Path) -> rusqlite::Result<rusqlite::Connection> {
    // Not read-only: reading a database in WAL mode needs its shared memory file, which may have to be made.
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = rusqlite::Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    Ok(connection)
}

/// The rows of the table behind a row id, in their order, with the highest row id.
///
/// # Errors
/// The table cannot be read.
pub fn of_table(connection: &rusqlite::Connection, after: i64) -> rusqlite::Result<(Vec<Row>, i64)> {
    let mut query = connection.prepare_cached(
        "SELECT rowid, key, n, sum, split, \"index\" FROM rows WHERE rowid > ? ORDER BY rowid",
    )?;
    let mut last = after;
    let mut rows = Vec::new();
    let mut found = query.query([after])?;
    while let Some(row) = found.next()? {
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        last = row.get(0)?;
        rows.push(Row {
            key: number(1)?,
            n: number(2)?,
            sum: number(3)?,
            split: number(4)? as u32,
            index: number(5)?,
        });
    }
    Ok((rows, last))
}
