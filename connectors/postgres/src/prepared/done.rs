//! Which prepared transactions are committed: each writes a row that says so, and that is seen once it is committed.
//!
//! Each has a row of its own, because one that were changed by every transaction would hold up the next until the last is
//! committed.

use crate::columns::Names;
use crate::tokens::{OWN_TABLES, Wrong};
use staunch_core::owner::Owner;
use staunch_core::{CheckpointId, Error};
use tokio_postgres::Client;

/// The table of such rows, beside the table that is written to.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    table: String,
}

impl Done {
    pub fn new(names: &Names) -> Self {
        Self { table: format!("{}.\"{OWN_TABLES}prepared\"", names.schema) }
    }

    /// Makes it, if it is not there.
    pub async fn make(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let there = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&self.table]).await?;
        if there.get(0) {
            return Ok(());
        }
        // The lock: two sinks that make it at once would get in each other's way.
        client
            .batch_execute(&format!(
                "BEGIN; SELECT pg_advisory_xact_lock(hashtext('_staunch_ tables'));
                 CREATE TABLE IF NOT EXISTS {} (
                     job text NOT NULL, sink text NOT NULL, lineage text NOT NULL, instance bigint NOT NULL,
                     checkpoint bigint NOT NULL, PRIMARY KEY (job, sink, lineage, instance, checkpoint));
                 COMMIT",
                self.table
            ))
            .await
    }

    /// Writes the row, in the transaction that it is about.
    pub async fn store(
        &self,
        client: &Client,
        owner: &Owner,
        instance: u32,
        checkpoint: CheckpointId,
    ) -> Result<(), tokio_postgres::Error> {
        let insert = format!("INSERT INTO {} VALUES ($1, $2, $3, $4, $5)", self.table);
        let Owner { job, sink, lineage, .. } = owner;
        let (instance, checkpoint) = (i64::from(instance), i64::from(checkpoint.0));
        client.execute(&insert, &[job, sink, lineage, &instance, &checkpoint]).await.map(drop)
    }

    /// The highest committed checkpoint, of one instance or of all.
    pub async fn newest(
        &self,
        client: &Client,
        owner: &Owner,
        instance: Option<u32>,
    ) -> Result<Option<CheckpointId>, Wrong> {
        let newest = format!(
            "SELECT max(checkpoint) FROM {} WHERE job = $1 AND sink = $2 AND lineage = $3 AND instance = coalesce($4, instance)",
            self.table
        );
        let Owner { job, sink, lineage, .. } = owner;
        let found = client.query_one(&newest, &[job, sink, lineage, &instance.map(i64::from)]).await?;
        let nonsense = |stored: i64| {
            Wrong::Ours(Error::job(format!(
                "{} holds {stored}, which is no checkpoint; restore it",
                self.table
            )))
        };
        let id = |stored: i64| u32::try_from(stored).map(CheckpointId).map_err(|_| nonsense(stored));
        found.get::<_, Option<i64>>(0).map(id).transpose()
    }

    /// Removes the rows of an instance that a newer one has made needless.
    pub async fn forget_before(
        &self,
        client: &Client,
        owner: &Owner,
        instance: u32,
        checkpoint: CheckpointId,
    ) -> Result<(), tokio_postgres::Error> {
        let delete = format!(
            "DELETE FROM {} WHERE job = $1 AND sink = $2 AND lineage = $3 AND instance = $4 AND checkpoint < $5",
            self.table
        );
        let Owner { job, sink, lineage, .. } = owner;
        let (instance, checkpoint) = (i64::from(instance), i64::from(checkpoint.0));
        client.execute(&delete, &[job, sink, lineage, &instance, &checkpoint]).await.map(drop)
    }
}
