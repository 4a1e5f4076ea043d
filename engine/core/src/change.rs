//! What happened to a row somewhere else: the one word for it, of all sources that follow tables and all sinks that keep them.

use serde::{Deserialize, Serialize};

/// What happened to a row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change<T> {
    /// It is there since now, or a snapshot has found it there. As a sink's record it replaces one of the same key.
    Insert(T),
    /// It is another one now.
    Update {
        /// What it was, as far as the database says; at least its key if that is another one now.
        before: Option<T>,
        /// What it is.
        after: T,
    },
    /// It is gone; this is what it was, as far as the database says. To a sink only the key counts.
    Delete(T),
    /// All rows of the table are gone.
    Truncate,
}

impl<T> Change<T> {
    /// The same change of something else, unless that cannot be made.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_map<U, E>(self, mut make: impl FnMut(T) -> Result<U, E>) -> Result<Change<U>, E> {
        Ok(match self {
            Self::Insert(row) => Change::Insert(make(row)?),
            Self::Update { before, after } => {
                Change::Update { before: before.map(&mut make).transpose()?, after: make(after)? }
            }
            Self::Delete(row) => Change::Delete(make(row)?),
            Self::Truncate => Change::Truncate,
        })
    }

    /// The same, borrowed.
    pub fn as_ref(&self) -> Change<&T> {
        match self {
            Self::Insert(row) => Change::Insert(row),
            Self::Update { before, after } => Change::Update { before: before.as_ref(), after },
            Self::Delete(row) => Change::Delete(row),
            Self::Truncate => Change::Truncate,
        }
    }
}
