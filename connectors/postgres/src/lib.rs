//! A table of PostgreSQL as a sink, exactly once; and tables as a [`source`], from the log.
//!
//! The sink uses the staged strategy ([`staunch_core::staged`]): the rows of one instance and checkpoint and the token that says so
//! are written in one transaction of the server. The sink keeps two tables of its own beside the table, `_staunch_fence`
//! (which run of which job writes here) and `_staunch_commits` (what is committed).
//!
//! Values are held exactly or refused before anything is decided. Reading order: `encode` (what a column holds), `row`,
//! `tokens` (the two tables), `load` (how rows are written), `target`. Connections are made by `address` and `tls`.

mod address;
mod columns;
mod encode;
mod field;
mod kind;
mod load;
mod numeric;
mod prepared;
mod raw;
mod row;
mod session;
pub mod source;
mod target;
mod times;
mod tls;
mod tokens;

pub use prepared::{PreparedCommitter, PreparedTable, PreparedWriter};
pub use row::Row;
pub use session::Session;
pub use source::{Event, Follow, Known, Lost, NewColumns, follow};
pub use staunch_core::Change;
pub use target::{Connection, Target};

use serde::Serialize;
use staunch_core::Result;
use staunch_core::place::Place;
use staunch_core::sink::{Sink, SinkContext};
use staunch_core::staged::{Staged, StagedCommitter, StagedWriter};

/// Writes structs into a table, each field into the column of its name. `url` is as in
/// `postgres://user:password@host:5432/database`, with several hosts if there are standbys, and with `?sslmode=verify-full`
/// and `&sslrootcert=/path/ca.pem` for encryption; `table` is `name` or `schema.name`. The table must exist, or be made by [`Table::create`].
pub fn table<T: Serialize + Send + 'static>(url: impl Into<String>, table: impl Into<String>) -> Table<T> {
    Table { target: Target::new(url.into(), table.into()) }
}

/// Does to a table what happened to another one: inserts, updates and deletes by key, in order. Give the
/// [key](Table::key).
pub fn changes<T: Serialize + Send + 'static>(
    url: impl Into<String>,
    table: impl Into<String>,
) -> Table<T, Changes> {
    Table { target: Target::new(url.into(), table.into()) }
}

/// What the records of a table are.
pub trait Mode<T>: Send + Sync + 'static {
    /// What the stream carries.
    type Record: Send + 'static;
    /// Whether it makes no sense without a key.
    const NEEDS_KEY: bool;

    /// What goes, and what comes; nothing at all if a whole table goes.
    fn parts(record: Self::Record) -> (Option<T>, Option<T>);
}

/// Each record is a row.
#[derive(Clone, Copy, Debug)]
pub enum Rows {}

/// Each record is a [`Change`].
#[derive(Clone, Copy, Debug)]
pub enum Changes {}

impl<T: Send + 'static> Mode<T> for Rows {
    type Record = T;
    const NEEDS_KEY: bool = false;

    fn parts(record: T) -> (Option<T>, Option<T>) {
        (None, Some(record))
    }
}

impl<T: Send + 'static> Mode<T> for Changes {
    type Record = Change<T>;
    const NEEDS_KEY: bool = true;

    fn parts(record: Change<T>) -> (Option<T>, Option<T>) {
        match record {
            Change::Insert(after) => (None, Some(after)),
            Change::Update { before, after } => (before, Some(after)),
            Change::Delete(before) => (Some(before), None),
            Change::Truncate => (None, None),
        }
    }
}

/// A table of PostgreSQL; made by [`table`] or [`changes`].
#[derive(Clone, Debug)]
pub struct Table<T, M = Rows> {
    target: Target<T, M>,
}

impl<T, M> Table<T, M> {
    /// Runs this statement at every start, such as `CREATE TABLE IF NOT EXISTS ...`.
    #[must_use]
    pub fn create(mut self, statement: impl Into<String>) -> Self {
        self.target.create = Some(statement.into());
        self
    }

    /// How many connections commit at once: 4 unless said otherwise, and 1 with a key. What one instance (worker) wrote is
    /// committed in order; what two wrote, in any order: with a key, more is right only where no two instances write the
    /// same keys.
    #[must_use]
    pub fn commit_lanes(mut self, lanes: usize) -> Self {
        self.target.commit_lanes = Some(lanes);
        self
    }
}

impl<T> Table<T, Rows> {
    /// Replaces a row that has the same values in these columns, which must have a unique index or be the primary key.
    #[must_use]
    pub fn upsert<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.target.key = columns.into_iter().map(Into::into).collect();
        self
    }
}

impl<T> Table<T, Rows> {
    /// Writes rows while the epoch runs, prepares their transaction at the checkpoint (`PREPARE TRANSACTION`), and only
    /// commits it after the decision: rows are written once instead of twice, and are seen sooner after a checkpoint. For
    /// inserts. The server must have `max_prepared_transactions` of at least three for each worker.
    #[must_use]
    pub fn prepared(self) -> PreparedTable<T> {
        PreparedTable::new(self.target)
    }
}

impl<T> Table<T, Changes> {
    /// The columns that tell rows apart, which must have a unique index or be the primary key.
    #[must_use]
    pub fn key<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.target.key = columns.into_iter().map(Into::into).collect();
        self
    }
}

impl<T, M> Sink for Table<T, M>
where
    T: Serialize + Send + 'static,
    M: Mode<T>,
{
    type Record = M::Record;
    type Writer = StagedWriter<Target<T, M>>;
    type Committer = StagedCommitter<Target<T, M>>;

    async fn writer(&self, context: &SinkContext) -> Result<Self::Writer> {
        Staged::new(self.target.clone()).writer(context).await
    }

    async fn committer(&self, context: &SinkContext) -> Result<Self::Committer> {
        Staged::new(self.target.clone()).committer(context).await
    }

    fn commit_lanes(&self) -> usize {
        self.target.lanes()
    }

    fn places(&self) -> Vec<Place> {
        address::places(&self.target.url, &self.target.table)
    }
}
