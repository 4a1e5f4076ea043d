//! SQLite as a staged target.

use super::row::{Row, insert, quoted};
use super::tokens::{self, Owner};
use rusqlite::{ErrorCode, OpenFlags, TransactionBehavior, params_from_iter};
use serde::Serialize;
use staunch_core::background::blocking;
use staunch_core::sink::{CommitError, SinkContext};
use staunch_core::staged::{Applied, StagedRows, StagedTarget, Token};
use staunch_core::{CheckpointId, Error, Result};
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How long to wait for another writer of the database at a time; commits are tried again by the engine.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// A table as a target of staged output.
#[derive(Debug)]
pub struct Target<T> {
    pub(super) path: PathBuf,
    table: String,
    pub(super) create: Option<String>,
    /// Columns of the upsert; empty for plain inserts.
    pub(super) key: Vec<String>,
    /// The table's columns in lower case, once a committer of this process has connected: lets the
    /// writers refuse a record that does not fit before it is staged.
    columns: Arc<OnceLock<BTreeSet<String>>>,
    record: PhantomData<fn(T)>,
}

impl<T> Clone for Target<T> {
    fn clone(&self) -> Self {
        Self {
            path: self.path.clone(),
            table: self.table.clone(),
            create: self.create.clone(),
            key: self.key.clone(),
            columns: Arc::clone(&self.columns),
            record: PhantomData,
        }
    }
}

/// An open database.
#[derive(Debug)]
pub struct Connection(Arc<Mutex<rusqlite::Connection>>);

impl Connection {
    async fn with<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut rusqlite::Connection) -> R + Send + 'static,
    ) -> Result<R> {
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
            columns: Arc::default(),
            record: PhantomData,
        }
    }

    fn place(&self) -> String {
        format!("table `{}` in {}", self.table, self.path.display())
    }

    fn open(&self) -> Result<rusqlite::Connection> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if self.create.is_some() {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let path = self.path.display();
        let failed =
            |what: &str, e| Error::external(format!("{what} the SQLite database {path}")).caused_by(e);
        let connection = rusqlite::Connection::open_with_flags(&self.path, flags)
            .map_err(|e| failed("cannot open (with .create(statement) a missing one is made)", e))?;
        let prepare = || {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")
        };
        prepare().map_err(|e| failed("cannot write", e))?;
        if let Some(statement) = &self.create {
            connection.execute_batch(statement).map_err(|e| {
                Error::job(format!("the statement of .create(..) failed in {path}: {statement}")).caused_by(e)
            })?;
        }
        let columns = self.read_columns(&connection).map_err(|e| failed("cannot read", e))?;
        self.check_table(&connection, &columns)?;
        // Only the first is kept: a table does not change while the job runs.
        let _ = self.columns.set(columns);
        Ok(connection)
    }

    fn read_columns(&self, connection: &rusqlite::Connection) -> rusqlite::Result<BTreeSet<String>> {
        let mut names = connection.prepare("SELECT lower(name) FROM pragma_table_info(?)")?;
        names.query_map([&self.table], |row| row.get(0))?.collect()
    }

    fn check_table(&self, connection: &rusqlite::Connection, columns: &BTreeSet<String>) -> Result<()> {
        let place = self.place();
        if columns.is_empty() {
            return Err(Error::job(format!(
                "{place} does not exist; create it, or give .create(\"CREATE TABLE ...\")"
            )));
        }
        if self.key.is_empty() {
            return Ok(());
        }
        connection.prepare(&insert(&self.table, &self.key, &self.key)).map(drop).map_err(|e| {
            let key = self.key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
            Error::job(format!("{place} cannot be upserted by ({key}): these columns need a unique index"))
                .caused_by(e)
        })
    }

    fn check_columns(&self, row: &Row) -> Result<()> {
        let has = |name: &String| row.columns.iter().any(|column| column.eq_ignore_ascii_case(name));
        if let Some(missing) = self.key.iter().find(|name| !has(name)) {
            return Err(Error::job(format!(
                "{}: a record has no field `{missing}`, which upsert needs",
                self.place()
            )));
        }
        let Some(columns) = self.columns.get() else { return Ok(()) };
        match row.columns.iter().find(|name| !columns.contains(&name.to_ascii_lowercase())) {
            None => Ok(()),
            Some(other) => Err(Error::job(format!(
                "{} has no column `{other}`; its columns are {}",
                self.place(),
                columns.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    fn insert_all(
        &self,
        connection: &mut rusqlite::Connection,
        token: &Token,
        rows: StagedRows<Row>,
    ) -> Result<Applied, CommitError> {
        let place = self.place();
        let failed =
            |e| self.commit_error(format!("checkpoint {} of sink `{}`", token.checkpoint, token.sink), e);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let Token { job, sink, lineage, generation, instance, .. } = token.clone();
        let owner = Owner { job, sink, lineage, generation };
        let stored = tokens::committed(&tx, &owner, instance, &place).map_err(failed)?;
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
                | ErrorCode::DatabaseCorrupt
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
        self.check_columns(&row)?;
        Ok(row)
    }

    async fn connect(&self, _context: &SinkContext) -> Result<Connection> {
        let target = self.clone();
        let connection = blocking(move || target.open()).await??;
        Ok(Connection(Arc::new(Mutex::new(connection))))
    }

    async fn check(&self, connection: &mut Connection, context: &SinkContext) -> Result<()> {
        let (context, place) = (context.clone(), self.place());
        let failed = format!("{place} cannot be read");
        let checked = connection.with(move |connection| tokens::check(connection, &context, &place)).await?;
        checked.map_err(|e| Error::external(failed).caused_by(e))?
    }

    async fn fence(&self, connection: &mut Connection, context: &SinkContext) -> Result<()> {
        let (context, place) = (context.clone(), self.place());
        let failed = format!("{place} cannot be taken over");
        let fenced = connection.with(move |connection| tokens::fence(connection, &context, &place)).await?;
        fenced.map_err(|e| Error::external(failed).caused_by(e))?
    }

    async fn committed(
        &self,
        connection: &mut Connection,
        context: &SinkContext,
        instance: u32,
    ) -> Result<Option<CheckpointId>, CommitError> {
        let SinkContext { job, sink, lineage, generation, .. } = context.clone();
        let (owner, place) = (Owner { job, sink, lineage, generation }, self.place());
        let read = connection.with(move |connection| tokens::committed(connection, &owner, instance, &place));
        let read = read.await.map_err(CommitError::Retry)?;
        read.map_err(|e| self.commit_error("reading the token".to_owned(), e))?.map_err(CommitError::Refused)
    }

    async fn newest(
        &self,
        connection: &mut Connection,
        context: &SinkContext,
    ) -> Result<Option<CheckpointId>, CommitError> {
        let SinkContext { job, sink, lineage, generation, .. } = context.clone();
        let (owner, place) = (Owner { job, sink, lineage, generation }, self.place());
        let read = connection.with(move |connection| tokens::newest(connection, &owner, &place));
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
