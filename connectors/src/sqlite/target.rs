//! SQLite as a staged target.

use super::columns::Columns;
use super::place::{Identity, write_ahead_log};
use super::row::{Row, insert, quoted};
use super::tokens;
use rusqlite::{ErrorCode, OpenFlags, TransactionBehavior, params_from_iter};
use serde::Serialize;
use staunch_core::background::blocking;
use staunch_core::error::Kind;
use staunch_core::owner::{Owner, not_the_same};
use staunch_core::sink::{CommitError, SinkContext};
use staunch_core::staged::{Applied, StagedRows, StagedTarget, Token};
use staunch_core::{CheckpointId, Error, Result};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How long to wait for another writer of the database at a time; commits are tried again by the engine.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// What the names of the sink's own tables begin with.
const OWN_TABLES: &str = "_staunch_";

/// A table as a target of staged output.
#[derive(Debug)]
pub struct Target<T> {
    pub(super) path: PathBuf,
    table: String,
    pub(super) create: Option<String>,
    /// Columns of the upsert; empty for plain inserts.
    pub(super) key: Vec<String>,
    /// On a writer's value: what the committer has learnt of the table.
    known: OnceLock<Arc<Known>>,
    record: PhantomData<fn(T)>,
}

impl<T> Clone for Target<T> {
    fn clone(&self) -> Self {
        Self {
            path: self.path.clone(),
            table: self.table.clone(),
            create: self.create.clone(),
            key: self.key.clone(),
            known: self.known.clone(),
            record: PhantomData,
        }
    }
}

/// What the first connection of this process has found. A table does not change while the job runs, and a database is
/// not replaced.
#[derive(Debug)]
struct Known {
    columns: Columns,
    identity: Identity,
}

/// Where the process keeps it, for the values of all workers.
type Shelf = Arc<OnceLock<Arc<Known>>>;

/// An open database.
#[derive(Debug)]
pub struct Connection(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    database: rusqlite::Connection,
    identity: Identity,
    /// The write-ahead log that commits of this connection went into; none if it has none.
    log: Option<Identity>,
    has_log: bool,
}

impl Connection {
    async fn with<R: Send + 'static>(&self, work: impl FnOnce(&mut Open) -> R + Send + 'static) -> Result<R> {
        let connection = Arc::clone(&self.0);
        blocking(move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

impl<T> Target<T> {
    pub(super) fn new(path: &Path, table: String) -> Self {
        Self {
            path: path.to_owned(),
            table,
            create: None,
            key: Vec::new(),
            known: OnceLock::new(),
            record: PhantomData,
        }
    }

    fn place(&self) -> String {
        format!("table `{}` in {}", self.table, self.path.display())
    }

    async fn shelf(&self, context: &SinkContext) -> Result<Shelf> {
        let key = format!("sqlite {} {}", self.path.display(), self.table);
        context.shared.get(&key, async { Ok(OnceLock::new()) }).await
    }

    fn open(&self, shelf: &Shelf, context: &SinkContext) -> Result<Open> {
        self.check_names()?;
        // A missing database would be made anew, and a new one filled with what comes next.
        if let Some(known) = shelf.get() {
            known.identity.check(&self.path)?;
        }
        if context.taken_over_by.is_some() && Identity::of(&self.path)?.is_none() {
            return Err(not_the_same(&self.place(), &context.sink, "there is no such file"));
        }
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if self.create.is_some() {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let path = self.path.display();
        let failed = |what: &str, e: rusqlite::Error| {
            let message = format!("{what} the SQLite database {path}");
            let error = if may_pass(&e) { Error::external(message) } else { Error::job(message) };
            error.caused_by(e)
        };
        let database = rusqlite::Connection::open_with_flags(&self.path, flags)
            .map_err(|e| failed("cannot open (with .create(statement) a missing one is made)", e))?;
        let prepare = || {
            database.busy_timeout(BUSY_TIMEOUT)?;
            let mode: String =
                database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
            database.pragma_update(None, "synchronous", "FULL")?;
            Ok(mode.eq_ignore_ascii_case("wal"))
        };
        let has_log = prepare().map_err(|e| failed("cannot write", e))?;
        // Before anything is made in a database that may be somebody else's.
        tokens::check(&database, context, &self.place()).map_err(|e| failed("cannot read", e))??;
        if let Some(statement) = &self.create {
            database
                .execute_batch(statement)
                .map_err(|e| failed(&format!("the statement of .create(..) failed ({statement}) in"), e))?;
        }
        let gone = || Error::external(format!("the database {path} was removed while it was opened"));
        let identity = Identity::of(&self.path)?.ok_or_else(gone)?;
        let columns = Columns::read(&database, &self.table).map_err(|e| failed("cannot read", e))?;
        self.check_table(&database, &columns)?;
        let known = shelf.get_or_init(|| Arc::new(Known { columns, identity }));
        known.identity.check(&self.path)?;
        Ok(Open { database, identity: known.identity, log: None, has_log })
    }

    fn check_names(&self) -> Result<()> {
        let path = self.path.as_os_str();
        if path.is_empty() || path == ":memory:" {
            return Err(Error::job("a database in memory is gone with the job; give the path of a file"));
        }
        if self.table.to_ascii_lowercase().starts_with(OWN_TABLES) {
            let what = format!("the sink keeps its own tables under names with {OWN_TABLES}");
            return Err(Error::job(format!("{}: {what}; use another name", self.place())));
        }
        Ok(())
    }

    fn check_table(&self, connection: &rusqlite::Connection, columns: &Columns) -> Result<()> {
        let place = self.place();
        if columns.is_empty() {
            return Err(Error::job(format!(
                "{place} does not exist; create it, or give .create(\"CREATE TABLE ...\")"
            )));
        }
        let refused = |what: String, e: rusqlite::Error| {
            let error = if may_pass(&e) { Error::external(what) } else { Error::job(what) };
            error.caused_by(e)
        };
        let insert_any = connection.prepare(&insert(&self.table, &columns.names(), &[]));
        insert_any.map(drop).map_err(|e| refused(format!("{place} takes no rows"), e))?;
        if self.key.is_empty() {
            return Ok(());
        }
        connection.prepare(&insert(&self.table, &self.key, &self.key)).map(drop).map_err(|e| {
            let key = self.key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
            refused(format!("{place} cannot be upserted by ({key}): these columns need a unique index"), e)
        })
    }

    fn check_row(&self, row: &Row) -> Result<()> {
        let has = |name: &String| row.columns.iter().any(|column| column.eq_ignore_ascii_case(name));
        if let Some(missing) = self.key.iter().find(|name| !has(name)) {
            return Err(Error::job(format!(
                "{}: a record has no field `{missing}`, which upsert needs",
                self.place()
            )));
        }
        match self.known.get().and_then(|known| known.columns.refuse(row)) {
            None => Ok(()),
            Some(why) => Err(Error::job(format!("{} {why}", self.place()))),
        }
    }

    /// Whether rows that are written here are in the database that has this name.
    fn check_place(&self, open: &mut Open, committed: bool) -> Result<(), CommitError> {
        let refused = |error: Error| match error.kind() {
            Kind::Job => CommitError::Refused(error),
            Kind::External | Kind::Internal => CommitError::Retry(error),
        };
        open.identity.check(&self.path).map_err(refused)?;
        if !open.has_log {
            return Ok(());
        }
        let path = write_ahead_log(&self.path);
        let found = Identity::of(&path).map_err(CommitError::Retry)?;
        if committed && open.log.is_none() {
            open.log = found;
        }
        if (committed || open.log.is_some()) && (found.is_none() || found != open.log) {
            return Err(CommitError::Refused(Error::job(format!(
                "{} was removed or replaced while the job ran, and newest rows of {} are in it only. Keep other programs \
                 from removing files beside the database, and run the job again: it publishes what is missing",
                path.display(),
                self.place()
            ))));
        }
        Ok(())
    }

    fn insert_all(
        &self,
        open: &mut Open,
        token: &Token,
        rows: StagedRows<Row>,
    ) -> Result<Applied, CommitError> {
        self.check_place(open, false)?;
        let place = self.place();
        let failed =
            |e| self.commit_error(format!("checkpoint {} of sink `{}`", token.checkpoint, token.sink), e);
        let tx = open.database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let stored = tokens::committed(&tx, &Owner::from(token), token.instance, &place).map_err(failed)?;
        let stored = stored.map_err(CommitError::Refused)?;
        if stored >= Some(token.checkpoint) {
            return Ok(Applied::Before);
        }
        let mut last: (Vec<String>, String) = Default::default();
        for row in rows {
            let Row { columns, cells } = row?;
            if last.0 != columns {
                last = (columns.clone(), insert(&self.table, &columns, &self.key));
            }
            let inserted = tx.prepare_cached(&last.1).and_then(|mut s| s.execute(params_from_iter(&cells)));
            inserted.map_err(|e| self.commit_error(format!("row {columns:?} = {cells:?}"), e))?;
        }
        tokens::store(&tx, token).map_err(failed)?;
        tx.commit().map_err(failed)?;
        // What was replaced meanwhile has taken the rows with it.
        self.check_place(open, true)?;
        Ok(Applied::Now)
    }

    /// Whether asking again may help: not if SQLite understood and said no.
    fn commit_error(&self, what: String, error: rusqlite::Error) -> CommitError {
        let place = self.place();
        match error.sqlite_error_code() {
            Some(
                ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::NotADatabase
                | ErrorCode::Unknown,
            ) => CommitError::Refused(
                Error::job(format!(
                    "{place} does not take {what}; nothing of it is written, and it stays staged in the checkpoint: \
                     change the table and start again"
                ))
                .caused_by(error),
            ),
            _ => CommitError::Retry(Error::external(format!("{place}: {what} is not committed yet")).caused_by(error)),
        }
    }
}

impl<T: Serialize + Send + 'static> StagedTarget for Target<T> {
    type Record = T;
    type Row = Row;
    type Connection = Connection;

    fn row(&self, record: T) -> Result<Row> {
        let row = Row::of(&record)?;
        self.check_row(&row)?;
        Ok(row)
    }

    async fn before_rows(&self, context: &SinkContext) -> Result<()> {
        let shelf = self.shelf(context).await?;
        if shelf.get().is_none() {
            // In this process nobody has opened it yet.
            let (target, context, shelf) = (self.clone(), context.clone(), Arc::clone(&shelf));
            blocking(move || target.open(&shelf, &context).map(drop)).await??;
        }
        if let Some(known) = shelf.get() {
            let _ = self.known.set(Arc::clone(known));
        }
        Ok(())
    }

    async fn in_place(&self, _context: &SinkContext) -> Result<()> {
        let Some(known) = self.known.get().cloned() else { return Ok(()) };
        let path = self.path.clone();
        blocking(move || known.identity.check(&path)).await?
    }

    async fn connect(&self, context: &SinkContext) -> Result<Connection> {
        let (target, context, shelf) = (self.clone(), context.clone(), self.shelf(context).await?);
        let open = blocking(move || target.open(&shelf, &context)).await??;
        Ok(Connection(Arc::new(Mutex::new(open))))
    }

    async fn check(&self, connection: &mut Connection, context: &SinkContext) -> Result<()> {
        let (context, place) = (context.clone(), self.place());
        let failed = format!("{place} cannot be read");
        let checked = connection.with(move |open| tokens::check(&open.database, &context, &place)).await?;
        checked.map_err(|e| Error::external(failed).caused_by(e))?
    }

    async fn fence(&self, connection: &mut Connection, context: &SinkContext) -> Result<()> {
        let (context, place) = (context.clone(), self.place());
        let failed = format!("{place} cannot be taken over");
        let fenced = connection.with(move |open| tokens::fence(&mut open.database, &context, &place)).await?;
        fenced.map_err(|e| Error::external(failed).caused_by(e))?
    }

    async fn committed(
        &self,
        connection: &mut Connection,
        context: &SinkContext,
        instance: u32,
    ) -> Result<Option<CheckpointId>, CommitError> {
        let (owner, place) = (Owner::from(context), self.place());
        let target = self.clone();
        let read = connection.with(move |open| {
            target.check_place(open, false)?;
            Ok(tokens::committed(&open.database, &owner, instance, &place))
        });
        let read = read.await.map_err(CommitError::Retry)??;
        read.map_err(|e| self.commit_error("reading the token".to_owned(), e))?.map_err(CommitError::Refused)
    }

    async fn newest(
        &self,
        connection: &mut Connection,
        context: &SinkContext,
    ) -> Result<Option<CheckpointId>, CommitError> {
        let (owner, place) = (Owner::from(context), self.place());
        let read = connection.with(move |open| tokens::newest(&open.database, &owner, &place));
        let read = read.await.map_err(CommitError::Retry)?;
        read.map_err(|e| self.commit_error("reading the tokens".to_owned(), e))?.map_err(CommitError::Refused)
    }

    async fn apply(
        &self,
        connection: &mut Connection,
        token: &Token,
        rows: StagedRows<Row>,
    ) -> Result<Applied, CommitError> {
        let (target, token) = (self.clone(), token.clone());
        let applied = connection.with(move |connection| target.insert_all(connection, &token, rows)).await;
        applied.map_err(CommitError::Retry)?
    }
}

/// Whether an error of SQLite comes from the outside and may be over the next time.
fn may_pass(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                // It is also said where the log beside the database could not be read just now.
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
        )
    )
}
