//! A table as a target of staged output.

use crate::address::Address;
use crate::columns::{self, Columns, Found};
use crate::load::{Failed, Load, Shape};
use crate::row::{self, Row};
use crate::session::{self, Abandoned, Means, Session};
use crate::tokens::{OWN_TABLES, Tokens, Wrong};
use crate::{Mode, Rows};
use serde::Serialize;
use staunch_core::background::blocking;
use staunch_core::owner::{Owner, not_the_same};
use staunch_core::sink::{CommitError, SinkContext};
use staunch_core::staged::{Applied, StagedRows, StagedTarget, Token};
use staunch_core::{CheckpointId, Error, Result, crash};
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// Rows that are read back from the checkpoint storage at a time.
const READ_AT_ONCE: usize = 4_096;
/// How often a start ends sessions of older starts that hold its locks.
const TAKE_OVER_ATTEMPTS: u32 = 4;

/// Connections that commit at once, if nobody says otherwise.
const COMMIT_LANES: usize = 4;

/// A table as a target of staged output.
pub struct Target<T, M = Rows> {
    pub(crate) url: String,
    pub(crate) table: String,
    pub(crate) create: Option<String>,
    /// Names of the columns of the key; empty for plain inserts.
    pub(crate) key: Vec<String>,
    /// As it was asked for.
    pub(crate) commit_lanes: Option<usize>,
    /// On a writer's value: the table.
    known: OnceLock<Arc<Shape>>,
    record: PhantomData<fn(T, M)>,
}

impl<T, M> std::fmt::Debug for Target<T, M> {
    // Without the address: it has a password in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("table", &self.table).field("key", &self.key).finish_non_exhaustive()
    }
}

impl<T, M> Target<T, M> {
    /// Connections that commit at once. With a key one, unless somebody asked for more: of two instances the one
    /// whose checkpoint is older could write a row last.
    pub(crate) fn lanes(&self) -> usize {
        self.commit_lanes.unwrap_or(if self.key.is_empty() { COMMIT_LANES } else { 1 })
    }
}

impl<T, M> Clone for Target<T, M> {
    fn clone(&self) -> Self {
        Self {
            url: self.url.clone(),
            table: self.table.clone(),
            create: self.create.clone(),
            key: self.key.clone(),
            commit_lanes: self.commit_lanes,
            known: self.known.clone(),
            record: PhantomData,
        }
    }
}

/// An open connection, and the table as it was when it was opened.
#[derive(Debug)]
pub struct Connection {
    pub(crate) session: Session,
    pub(crate) shape: Shape,
    pub(crate) tokens: Tokens,
}

/// What the connections of a sink share.
#[derive(Default, Debug)]
struct Shelf {
    abandoned: Abandoned,
    shape: OnceLock<Arc<Shape>>,
}

impl<T, M: Mode<T>> Target<T, M> {
    pub(crate) fn new(url: String, table: String) -> Self {
        let (create, key, commit_lanes) = (None, Vec::new(), None);
        Self { url, table, create, key, commit_lanes, known: OnceLock::new(), record: PhantomData }
    }

    pub(crate) fn place(&self) -> String {
        let server = Address::parse(&self.url).map_or_else(|_| "?".to_owned(), |address| address.place());
        format!("table `{}` at PostgreSQL {server}", self.table)
    }

    async fn shelf(&self, context: &SinkContext) -> Result<Arc<Shelf>> {
        let key = format!("postgres {} {}", context.sink, self.table);
        context.shared.get(&key, async { Ok(Shelf::default()) }).await
    }

    async fn open(&self, context: &SinkContext) -> Result<Connection> {
        let address = Address::parse(&self.url)?;
        let name = self.table.rsplit('.').next().unwrap_or_default();
        if name.starts_with(OWN_TABLES) {
            let what = format!("the sink keeps its own tables under names with {OWN_TABLES}");
            return Err(Error::job(format!("{}: {what}; use another name", self.place())));
        }
        if M::NEEDS_KEY && self.key.is_empty() {
            return Err(Error::job(format!("{}: changes need a key: give .key([..])", self.place())));
        }
        let shelf = self.shelf(context).await?;
        let session = session::connect(&address, context, &self.table, &shelf.abandoned).await?;
        self.check_earlier(&session, context).await?;
        if let Some(statement) = &self.create {
            let what = format!("the statement of .create(..) failed ({statement}) at");
            session.client.batch_execute(statement).await.map_err(|e| self.opening_error(&what, &e))?;
        }
        let found = columns::find(&session.client, &self.table).await;
        let (names, columns) =
            match found.map_err(|e| self.opening_error("cannot read the columns of", &e))? {
                Found::Table(names, columns) => (names, columns),
                Found::Missing => {
                    let why = "does not exist; create it, or give .create(\"CREATE TABLE ...\")";
                    return Err(Error::job(format!("{} {why}", self.place())));
                }
                Found::Unfit(why) => return Err(Error::job(format!("{} {why}", self.place()))),
            };
        let shape = Shape { key: self.key_of(&columns)?, names, columns };
        for probe in shape.probes(M::NEEDS_KEY) {
            let tried = session.client.batch_execute(&format!("EXPLAIN {probe}")).await;
            let key = self.key.join(", ");
            let what = format!("a unique index on ({key}), and the right to change rows, are needed by");
            tried.map_err(|e| self.opening_error(&what, &e))?;
        }
        let tokens = Tokens::new(&shape.names, self.place());
        Ok(Connection { session, shape, tokens })
    }

    /// Before anything is made in a database that may not be the one that earlier starts wrote to.
    async fn check_earlier(&self, session: &Session, context: &SinkContext) -> Result<()> {
        if context.taken_over_by.is_none() {
            return Ok(());
        }
        let found = columns::find(&session.client, &self.table).await;
        match found.map_err(|e| self.opening_error("cannot read the columns of", &e))? {
            Found::Table(names, _) => {
                let tokens = Tokens::new(&names, self.place());
                let checked =
                    tokens.check(&session.client, &Owner::from(context), context.taken_over_by).await;
                checked.map_err(|e| self.at_start("cannot read", e))
            }
            Found::Missing => Err(not_the_same(&self.place(), &context.sink, "there is no such table")),
            Found::Unfit(_) => Ok(()),
        }
    }

    fn key_of(&self, columns: &Columns) -> Result<Vec<usize>> {
        let position = |name: &String| {
            columns.position(name, 0).ok_or_else(|| {
                Error::job(format!("{}: its key cannot be found: {}", self.place(), columns.no_column(name)))
            })
        };
        self.key.iter().map(position).collect()
    }

    pub(crate) fn opening_error(&self, what: &str, error: &tokio_postgres::Error) -> Error {
        let text = format!("{what} {}", self.place());
        match session::means(error) {
            Means::No => Error::job(text),
            Means::Again => Error::external(text),
        }
        .caused_by(session::said(error))
    }

    /// The table, on a writer's value.
    pub(crate) fn shape(&self) -> Result<Arc<Shape>> {
        let known = self.known.get().cloned();
        known.ok_or_else(|| Error::internal("a record came before its table was looked at"))
    }

    /// Makes the row of a record, with everything that is wrong with it in one message.
    pub(crate) fn make(&self, record: M::Record) -> Result<Row>
    where
        T: Serialize,
    {
        let shape = &*self.shape()?;
        let refused = |problems: &[String]| {
            let all = problems.iter().fold(String::new(), |all, problem| format!("{all}\n  - {problem}"));
            Err(Error::job(format!("{} does not take a record:{all}", self.place())))
        };
        let (before, after) = M::parts(record);
        if before.is_none() && after.is_none() {
            return Err(Error::job(format!(
                "{} cannot do a TRUNCATE: its rows come on several ways, and no order is known between them. Turn it into deletes \
                 of the keys before this sink, or empty the table by hand and leave it out",
                self.place()
            )));
        }
        let mut row = Row::default();
        if let Some(before) = &before {
            let made = row::make(before, &shape.columns, &shape.key).map_err(Error::job)?;
            let problems = [made.problems.clone(), key_problems(shape, &made)].concat();
            if !problems.is_empty() {
                return refused(&problems);
            }
            row.gone = key_cells(shape, &made);
            row.layout = made.layout;
        }
        if let Some(after) = &after {
            let made = row::make(after, &shape.columns, &[]).map_err(Error::job)?;
            let problems = [made.problems.clone(), key_problems(shape, &made)].concat();
            if !problems.is_empty() {
                return refused(&problems);
            }
            if row.gone == key_cells(shape, &made) {
                row.gone.clear();
            }
            row.layout = made.layout;
            row.cells = made.cells.into();
        }
        Ok(row)
    }

    async fn insert_all(
        &self,
        connection: &mut Connection,
        token: &Token,
        rows: StagedRows<Row>,
    ) -> Result<Applied, CommitError> {
        let place = self.place();
        let what = format!("checkpoint {} of sink `{}`", token.checkpoint, token.sink);
        let failed = |error: tokio_postgres::Error| session::commit_error(&place, &what, &error);
        let wrong = |wrong| self.refused(&what, wrong);
        let Connection { session, shape, tokens } = connection;
        let owner = Owner::from(token);
        session.busy = true;
        let client = &session.client;
        client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await.map_err(failed)?;
        passed("postgres/begun")?;
        tokens.check_owner(client, &owner, "FOR SHARE").await.map_err(wrong)?;
        let is_new = tokens.store(client, &owner, token.instance, token.checkpoint).await.map_err(wrong)?;
        if !is_new {
            client.batch_execute("ROLLBACK").await.map_err(failed)?;
            session.busy = false;
            return Ok(Applied::Before);
        }
        passed("postgres/token_stored")?;
        let (mut load, mut rest) = (Load::new(), Some(rows));
        while let Some(mut rows) = rest.take() {
            let read = blocking(move || {
                let some: Result<Vec<Row>, CommitError> = rows.by_ref().take(READ_AT_ONCE).collect();
                some.map(|some| (some, rows))
            });
            let (some, rows) = read.await.map_err(CommitError::Retry)??;
            rest = (!some.is_empty()).then_some(rows);
            for row in some {
                load.push(client, shape, row).await.map_err(|e| self.not_loaded(&what, e))?;
            }
            passed("postgres/some_rows_sent")?;
        }
        load.finish(client, shape).await.map_err(|e| self.not_loaded(&what, e))?;
        passed("postgres/rows_written")?;
        client.batch_execute("COMMIT").await.map_err(failed)?;
        passed("postgres/committed")?;
        session.busy = false;
        Ok(Applied::Now)
    }

    fn not_loaded(&self, what: &str, failed: Failed) -> CommitError {
        match failed {
            Failed::Server(error) => session::commit_error(&self.place(), what, &error),
            Failed::Changed(why) => CommitError::Refused(Error::job(format!(
                "{} does not take {what}: {why}. Nothing of it is written, and it stays staged in the checkpoint",
                self.place()
            ))),
        }
    }

    fn refused(&self, what: &str, wrong: Wrong) -> CommitError {
        match wrong {
            Wrong::Server(error) => session::commit_error(&self.place(), what, &error),
            Wrong::Ours(error) => CommitError::Refused(error),
        }
    }

    fn at_start(&self, what: &str, wrong: Wrong) -> Error {
        match wrong {
            Wrong::Server(error) => self.opening_error(what, &error),
            Wrong::Ours(error) => error,
        }
    }
}

/// Passes a crash point of a commit.
fn passed(point: &'static str) -> Result<(), CommitError> {
    crash::point(point).map_err(|e| CommitError::Retry(Error::external("a commit failed").caused_by(e)))
}

/// Passes a crash point of a start.
fn passed_at_start(point: &'static str) -> Result<()> {
    crash::point(point).map_err(|e| Error::external("a start failed").caused_by(e))
}

fn key_problems(shape: &Shape, made: &row::Made) -> Vec<String> {
    let without = |at: &&usize| made.cell(**at).is_none() || made.is_null(**at);
    let said = |at: &usize| {
        format!("column `{}` is of the key, and the record has no value for it", shape.columns.all[*at].name)
    };
    shape.key.iter().filter(without).map(said).collect()
}

fn key_cells(shape: &Shape, made: &row::Made) -> Vec<u8> {
    shape.key.iter().filter_map(|at| made.cell(*at)).collect::<Vec<_>>().concat()
}

impl<T, M> StagedTarget for Target<T, M>
where
    T: Serialize + Send + 'static,
    M: Mode<T>,
{
    type Record = M::Record;
    type Row = Row;
    type Connection = Connection;

    fn commit_lanes(&self) -> usize {
        self.lanes()
    }

    fn row(&self, record: M::Record) -> Result<Row> {
        self.make(record)
    }

    async fn before_rows(&self, context: &SinkContext) -> Result<()> {
        let shelf = self.shelf(context).await?;
        if shelf.shape.get().is_none() {
            // In this process nobody has opened it yet.
            self.connect(context).await?;
        }
        if let Some(shape) = shelf.shape.get() {
            let _ = self.known.set(Arc::clone(shape));
        }
        Ok(())
    }

    async fn connect(&self, context: &SinkContext) -> Result<Connection> {
        let opened = self.open(context).await?;
        let Shape { names, columns, key } = &opened.shape;
        let shape = Shape { names: names.clone(), columns: columns.clone(), key: key.clone() };
        let _ = self.shelf(context).await?.shape.set(Arc::new(shape));
        Ok(opened)
    }

    async fn check(&self, connection: &mut Connection, context: &SinkContext) -> Result<()> {
        let Connection { session, tokens, .. } = connection;
        let checked = tokens.check(&session.client, &Owner::from(context), context.taken_over_by).await;
        checked.map_err(|e| self.at_start("cannot read", e))
    }

    async fn fence(&self, connection: &mut Connection, context: &SinkContext) -> Result<()> {
        let Connection { session, tokens, .. } = connection;
        passed_at_start("postgres/recovery.fence_due")?;
        for attempt in 1.. {
            match tokens.fence(&session.client, &Owner::from(context), context.taken_over_by).await {
                Ok(()) => break,
                Err(Wrong::Server(error)) if session::is_locked(&error) && attempt < TAKE_OVER_ATTEMPTS => {
                    let text = self.place();
                    let failed = |e| self.opening_error("cannot take over", &e);
                    session.client.batch_execute("ROLLBACK").await.map_err(failed)?;
                    let ended =
                        session::end_older(&session.client, context, &self.table).await.map_err(failed)?;
                    tracing::warn!(place = %text, ended, "sessions of older starts held the sink's locks and are ended");
                }
                Err(wrong) => return Err(self.at_start("cannot take over", wrong)),
            }
        }
        passed_at_start("postgres/recovery.fenced")?;
        Ok(())
    }

    async fn committed(
        &self,
        connection: &mut Connection,
        context: &SinkContext,
        instance: u32,
    ) -> Result<Option<CheckpointId>, CommitError> {
        let (owner, Connection { session, tokens, .. }) = (Owner::from(context), connection);
        let wrong = |wrong| self.refused("reading the token", wrong);
        tokens.check_owner(&session.client, &owner, "").await.map_err(wrong)?;
        tokens.committed(&session.client, &owner, instance).await.map_err(wrong)
    }

    async fn newest(
        &self,
        connection: &mut Connection,
        context: &SinkContext,
    ) -> Result<Option<CheckpointId>, CommitError> {
        let (owner, Connection { session, tokens, .. }) = (Owner::from(context), connection);
        let wrong = |wrong| self.refused("reading the tokens", wrong);
        tokens.check_owner(&session.client, &owner, "").await.map_err(wrong)?;
        tokens.newest(&session.client, &owner).await.map_err(wrong)
    }

    async fn apply(
        &self,
        connection: &mut Connection,
        token: &Token,
        rows: StagedRows<Row>,
    ) -> Result<Applied, CommitError> {
        self.insert_all(connection, token, rows).await
    }
}
