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
use std::path::PathBuf;
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
    thread: JoinHandle<Result<u64, Failure>>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    rows: AtomicU64,
    commits: AtomicU64,
}

impl Observer {
    /// Begins to observe a victim's output.
    #[must_use]
    pub fn start(victim: &Victim) -> Self {
        let shared = Arc::new(Shared::default());
        let mut eyes = Eyes {
            expected: victim.expected,
            output: victim.sinks.files().then(|| victim.output()),
            database: victim.database(),
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
            while !eyes.shared.over.load(SeqCst) {
                eyes.look(looks % COUNT_EVERY == 0)?;
                looks += 1;
                std::thread::sleep(PAUSE);
            }
            eyes.look(true)?;
            Ok(looks + 1)
        });
        Self { shared, thread }
    }

    /// Rows seen so far, in both places.
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

    /// Takes a last look; returns how many it took.
    ///
    /// # Errors
    /// It saw what must not be.
    pub fn end(self) -> Result<u64, Failure> {
        self.shared.over.store(true, SeqCst);
        self.thread.join().map_err(|_| Failure::trouble("the observer panicked"))?
    }
}

struct Eyes {
    expected: Expected,
    output: Option<PathBuf>,
    database: PathBuf,
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
        if let Some(output) = self.output.clone() {
            self.look_at_files(&output)?;
        }
        match self.look_at_table(count) {
            Ok(()) | Err(Look::Later) => Ok(()),
            Err(Look::Failed(failure)) => Err(failure),
        }
    }

    fn look_at_files(&mut self, output: &std::path::Path) -> Result<(), Failure> {
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

    fn look_at_table(&mut self, count: bool) -> Result<(), Look> {
        let connection = match &mut self.connection {
            Some(open) => open,
            none => none.insert(rows::open(&self.database)?),
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
    /// There is no table yet, or somebody has the database for themselves at the moment.
    Later,
    Failed(Failure),
}

impl From<rusqlite::Error> for Look {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked};
        let no_table = error.to_string().contains("no such table");
        match error.sqlite_error_code() {
            Some(CannotOpen | DatabaseBusy | DatabaseLocked) => Look::Later,
            _ if no_table => Look::Later,
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
