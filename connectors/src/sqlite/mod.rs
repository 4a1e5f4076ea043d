//! A table of an SQLite database as a sink, exactly once.
//!
//! Uses the staged strategy ([`staunch_core::staged`]): the rows of one instance and checkpoint and the
//! token that says so are written in one SQLite transaction. The sink keeps two tables of its own in
//! the database, `_staunch_fence` (which run of which job writes here) and `_staunch_commits` (what is
//! committed).
//!
//! The database is put into WAL mode, with `synchronous=FULL`: what is committed survives a power cut.

mod columns;
mod place;
mod row;
mod target;
mod tokens;

pub use row::{Cell, Row};
pub use target::{Connection, Target};

use serde::Serialize;
use staunch_core::Result;
use staunch_core::place::Place;
use staunch_core::sink::{Sink, SinkContext};
use staunch_core::staged::{Staged, StagedCommitter, StagedWriter};
use std::path::Path;

/// Writes structs into a table, each field into the column of its name. Numbers, text, booleans (as 0
/// and 1) and options are values; anything nested is JSON text. The table must exist, or be made by
/// [`Table::create`].
pub fn table<T: Serialize + Send + 'static>(path: impl AsRef<Path>, table: impl Into<String>) -> Table<T> {
    Table { target: Target::new(path.as_ref(), table.into()) }
}

/// A table of an SQLite database; made by [`table`].
#[derive(Clone, Debug)]
pub struct Table<T> {
    target: Target<T>,
}

impl<T> Table<T> {
    /// Runs this statement when the sink connects, such as `CREATE TABLE IF NOT EXISTS ...`. It runs at
    /// every start. With it the database file is made too, if it does not exist.
    #[must_use]
    pub fn create(mut self, statement: impl Into<String>) -> Self {
        self.target.create = Some(statement.into());
        self
    }

    /// Replaces a row that has the same values in these columns, which must have a unique index or be
    /// the primary key.
    #[must_use]
    pub fn upsert<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.target.key = columns.into_iter().map(Into::into).collect();
        self
    }
}

impl<T: Serialize + Send + 'static> Sink for Table<T> {
    type Record = T;
    type Writer = StagedWriter<Target<T>>;
    type Committer = StagedCommitter<Target<T>>;

    async fn writer(&self, context: &SinkContext) -> Result<Self::Writer> {
        Staged::new(self.target.clone()).writer(context).await
    }

    async fn committer(&self, context: &SinkContext) -> Result<Self::Committer> {
        Staged::new(self.target.clone()).committer(context).await
    }

    fn places(&self) -> Vec<Place> {
        vec![Place::File(self.target.path.clone())]
    }
}
