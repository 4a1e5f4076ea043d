//! Somebody who reads the output all the time, with committed reads, while the job runs and breaks.
//!
//! Promises to notice: a record that is seen twice, or of nowhere; a published file or row that changes or
//! disappears; output of an older checkpoint that appears after that of a newer one. Knows nothing of the
//! engine, and does not know when a process lives or dies.

use crate::audit::Expected;
use crate::oracle::{Failure, Oracle};
use crate::rows::{self, Row};
use crate::victim::Victim;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(4);
/// The whole table is counted every so many looks.
const COUNT_EVERY: u64 = 64;

/// A running observer.
#[derive(Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Eyes, Failure>>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    rows: AtomicU64,
    commits: AtomicU64,
    looks: AtomicU64,
}

impl Observer {
    /// Begins to observe a victim's output.
    #[must_use]
    pub fn start(victim: &Victim) -> Self {
        let shared = Arc::new(Shared::default());
        let mut eyes = Eyes {
            looks: 0,
            expected: victim.expected,
            output: victim.sinks.files().then(|| victim.output()),
            database: victim.sinks.table().then(|| victim.database()),
            connection: None,
            files: BTreeMap::new(),
            newest: [0; 2],
            last_row: 0,
            in_files: vec![false; victim.expected.total() as usize],
            in_table: vec![false; victim.expected.total() as usize],
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::spawn(move || {
            let mut looks = 0;
            // The last look begins after the end was asked for.
            loop {
                let over = eyes.shared.over.load(SeqCst);
                eyes.look(over || looks % COUNT_EVERY == 0)?;
                looks += 1;
                eyes.shared.looks.store(looks, SeqCst);
                if over {
                    return Ok(eyes);
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { shared, thread }
    }

    /// Rows seen so far, in all places.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.shared.rows.load(SeqCst)
    }

    /// Part files and growths of the table seen so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(SeqCst)
    }

    /// Whether it has seen what must not be, and stopped looking.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it has seen everything that is there now, or has ended.
    pub fn catch_up(&self) {
        // The look that is under way may have begun before.
        let enough = self.shared.looks.load(SeqCst) + 2;
        while self.shared.looks.load(SeqCst) < enough && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes a last look.
    ///
    /// # Errors
    /// It saw what must not be.
    pub fn end(self) -> Result<Seen, Failure> {
        self.shared.over.store(true, SeqCst);
        let eyes = self.thread.join().map_err(|_| Failure::trouble("the observer panicked"))??;
        // Of a sink that is not there, nothing is to be seen.
        let unseen = |place: &Option<PathBuf>, seen: &[bool]| {
            place.as_ref().map_or(0, |_| seen.iter().filter(|seen| !**seen).count())
        };
        let unseen = [unseen(&eyes.output, &eyes.in_files), unseen(&eyes.database, &eyes.in_table)];
        Ok(Seen { looks: eyes.looks, unseen })
    }
}

/// What an observer has seen in the end.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Looks at all outputs, when they were there and nothing stood in the way.
    pub looks: u64,
    /// Records never seen in the files, and in the table.
    unseen: [usize; 2],
}

impl Seen {
    /// Requires that it was all of a complete job, or the observer was blind.
    ///
    /// # Errors
    /// It was not.
    pub fn everything(&self) -> Result<(), Failure> {
        match self.unseen {
            [0, 0] => Ok(()),
            [files, table] => Err(wrong(format!(
                "{files} records were never seen in the files, {table} never in the table"
            ))),
        }
    }
}

#[derive(Debug)]
struct Eyes {
    /// Looks at all outputs, when they were there and nothing stood in the way.
    looks: u64,
    expected: Expected,
    /// Where the files are, if there is such a sink.
    output: Option<PathBuf>,
    /// Where the table is, if there is such a sink.
    database: Option<PathBuf>,
    connection: Option<rusqlite::Connection>,
    /// Published files as last seen.
    files: BTreeMap<String, u64>,
    /// Newest checkpoint among the files at the last look, and at the one before.
    newest: [u64; 2],
    last_row: i64,
    in_files: Vec<bool>,
    in_table: Vec<bool>,
    shared: Arc<Shared>,
}

fn wrong(what: String) -> Failure {
    Failure::Violation(Oracle::Observer, what)
}

impl Eyes {
    fn look(&mut self, count: bool) -> Result<(), Failure> {
        let mut all = true;
        if let Some(output) = self.output.clone() {
            all &= output.exists();
            self.look_at_files(&output)?;
        }
        if let Some(database) = self.database.clone() {
            match self.look_at_table(&database, count) {
                Ok(()) => {}
                Err(Look::Later) => all = false,
                Err(Look::NoTable) if self.last_row == 0 => all = false,
                Err(Look::NoTable) => {
                    return Err(wrong("the table, which had rows, is not there any more".into()));
                }
                Err(Look::Failed(failure)) => return Err(failure),
            }
        }
        self.looks += u64::from(all);
        Ok(())
    }

    fn look_at_files(&mut self, output: &Path) -> Result<(), Failure> {
        let now = rows::published(output).map_err(Failure::trouble)?;
        for (name, bytes) in &self.files {
            if now.get(name) != Some(bytes) {
                return Err(wrong(format!("published file {name} changed or disappeared")));
            }
        }
        let mut newest = self.newest[0];
        for name in now.keys().filter(|name| !self.files.contains_key(*name)) {
            let checkpoint = name.split('-').nth(1).and_then(|digits| digits.parse().ok());
            let checkpoint: u64 = checkpoint.ok_or_else(|| wrong(format!("{name} names no checkpoint")))?;
            // A listing may miss a file that appears meanwhile, and have a later one. The next one may not.
            if checkpoint < self.newest[1] {
                return Err(wrong(format!("{name} appeared after output of checkpoint {}", self.newest[1])));
            }
            newest = newest.max(checkpoint);
            let found = rows::of_file(&output.join(name)).map_err(Failure::trouble)?;
            saw(&self.expected, &mut self.in_files, &found, "in the files")?;
            self.shared.rows.fetch_add(found.len() as u64, SeqCst);
            self.shared.commits.fetch_add(1, SeqCst);
        }
        self.newest = [newest, self.newest[0]];
        self.files = now;
        Ok(())
    }

    fn look_at_table(&mut self, database: &Path, count: bool) -> Result<(), Look> {
        let connection = match &mut self.connection {
            Some(open) => open,
            none => none.insert(rows::open(database)?),
        };
        let (found, last) = rows::of_table(connection, self.last_row)?;
        saw(&self.expected, &mut self.in_table, &found, "in the table").map_err(Look::Failed)?;
        if !found.is_empty() {
            self.shared.rows.fetch_add(found.len() as u64, SeqCst);
            self.shared.commits.fetch_add(1, SeqCst);
        }
        self.last_row = last;
        if count {
            let rows: i64 =
                connection
                    .query_row("SELECT count(*) FROM rows WHERE rowid <= ?", [last], |row| row.get(0))?;
            let seen = self.in_table.iter().filter(|seen| **seen).count() as i64;
            if rows != seen {
                return Err(Look::Failed(wrong(format!(
                    "{seen} rows were seen in the table, {rows} are left"
                ))));
            }
        }
        Ok(())
    }
}

/// Why a look at the table led to nothing.
enum Look {
    /// There is no database yet, or somebody has it for themselves at the moment.
    Later,
    /// There is a database without the table.
    NoTable,
    Failed(Failure),
}

impl From<rusqlite::Error> for Look {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, FileLockingProtocolFailed};
        let no_table = error.to_string().contains("no such table");
        match error.sqlite_error_code() {
            // The last one: somebody who has stopped, or is slow, is about to make or to recover its shared memory.
            Some(CannotOpen | DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed) => Look::Later,
            _ if no_table => Look::NoTable,
            _ => Look::Failed(Failure::trouble(error)),
        }
    }
}

fn saw(expected: &Expected, seen: &mut [bool], rows: &[Row], place: &str) -> Result<(), Failure> {
    for row in rows {
        let record = expected.identity(row).ok_or_else(|| wrong(format!("{row:?} {place} is of nowhere")))?;
        if std::mem::replace(&mut seen[record], true) {
            let Row { split, index, .. } = row;
            return Err(wrong(format!("record {index} of split {split} was seen twice {place}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::victim::Sinks;
    use std::fs;

    const EXPECTED: Expected = Expected { records: 3, splits: 1, keys: 1 };

    /// What a job with these sinks leaves behind that has put out so many records.
    fn left_behind(dir: &Path, sinks: Sinks, records: i64) -> Victim {
        let mut victim = Victim::new(Path::new("victim"), dir, EXPECTED);
        victim.sinks = sinks;
        let all = (0..records).map(|index| [index + 1, index * (index + 1) / 2, index]);
        if sinks.files() {
            let line = |[n, sum, index]: [i64; 3]| {
                format!("{{\"key\":0,\"n\":{n},\"sum\":{sum},\"split\":0,\"index\":{index}}}\n")
            };
            let text: String = all.clone().map(line).collect();
            fs::create_dir_all(victim.output()).unwrap();
            fs::write(victim.output().join("part-0000000001-0000.jsonl"), text).unwrap();
        }
        if sinks.table() {
            let table = rusqlite::Connection::open(victim.database()).unwrap();
            table.execute_batch("CREATE TABLE rows (key, n, sum, split, \"index\")").unwrap();
            for row in all {
                table.execute("INSERT INTO rows VALUES (0, ?, ?, 0, ?)", row).unwrap();
            }
        }
        victim
    }

    fn seen(victim: &Victim) -> Seen {
        let observer = Observer::start(victim);
        observer.catch_up();
        observer.end().unwrap()
    }

    #[test]
    fn a_sink_that_is_alone_is_judged_as_strictly_as_two_are() {
        for (sinks, rows) in [(Sinks::Both, 6), (Sinks::Files, 3), (Sinks::Table, 3)] {
            let dir = tempfile::tempdir().unwrap();
            let victim = left_behind(dir.path(), sinks, 3);
            let all = seen(&victim);
            assert!(all.looks > 0 && all.everything().is_ok(), "{sinks}: {all:?}");
            assert_eq!(victim.judge().unwrap().rows, rows, "{sinks}");

            let dir = tempfile::tempdir().unwrap();
            let victim = left_behind(dir.path(), sinks, 2);
            assert_eq!(seen(&victim).everything().unwrap_err().oracle(), Some(Oracle::Observer), "{sinks}");
            assert_eq!(victim.judge().unwrap_err().oracle(), Some(Oracle::Identity), "{sinks}");
        }
    }

    #[test]
    fn a_sink_that_should_be_there_and_is_not_is_missed() {
        for sinks in [Sinks::Files, Sinks::Table] {
            let dir = tempfile::tempdir().unwrap();
            let mut victim = left_behind(dir.path(), sinks, 3);
            victim.sinks = Sinks::Both;
            assert!(seen(&victim).everything().is_err() && victim.judge().is_err(), "{sinks}");
        }
    }
}
