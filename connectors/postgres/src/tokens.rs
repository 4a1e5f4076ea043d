//! The sink's own tables: who writes here, and what is committed.
//!
//! A commit holds the row of `_staunch_fence` shared until it ends, and a start changes that row: so a start waits for
//! commits that are under way, and no commit of an older start begins after it. A commit writes its token before its
//! rows, so that two commits of one instance wait for each other, and the second finds what the first has done.

use crate::columns::Names;
use staunch_core::owner::{Mark, Owner, Words};
use staunch_core::{CheckpointId, Error, Generation};
use tokio_postgres::{Client, Row};

/// What the names of the sink's own tables begin with.
pub(crate) const OWN_TABLES: &str = "_staunch_";

/// Why something about the tokens did not work.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// The server said so, or was not there.
    Server(tokio_postgres::Error),
    /// The target is not ours.
    Ours(Error),
}

impl From<tokio_postgres::Error> for Wrong {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

/// The sink's tables beside one table.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    fence: String,
    commits: String,
    schema: String,
    /// For messages.
    place: String,
}

impl Tokens {
    pub fn new(names: &Names, place: String) -> Self {
        let own = |name: &str| format!("{}.\"{OWN_TABLES}{name}\"", names.schema);
        Self { fence: own("fence"), commits: own("commits"), schema: names.schema.clone(), place }
    }

    async fn exist(&self, client: &Client) -> Result<bool, Wrong> {
        let found = "SELECT to_regclass($1) IS NOT NULL AND to_regclass($2) IS NOT NULL";
        Ok(client.query_one(found, &[&self.fence, &self.commits]).await?.get(0))
    }

    /// Makes them, if they are not there.
    pub async fn make(&self, client: &Client) -> Result<(), Wrong> {
        if self.exist(client).await? {
            return Ok(());
        }
        let Self { fence, commits, schema, .. } = self;
        // The lock: two sinks that make them at once would get in each other's way.
        client
            .batch_execute(&format!(
                "BEGIN; SELECT pg_advisory_xact_lock(hashtext('_staunch_ tables'));
                 CREATE TABLE IF NOT EXISTS {fence} (
                     job text NOT NULL, sink text NOT NULL, lineage text NOT NULL, generation bigint NOT NULL,
                     PRIMARY KEY (job, sink));
                 CREATE TABLE IF NOT EXISTS {commits} (
                     job text NOT NULL, sink text NOT NULL, instance bigint NOT NULL, lineage text NOT NULL,
                     generation bigint NOT NULL, checkpoint bigint NOT NULL, PRIMARY KEY (job, sink, instance));
                 COMMIT"
            ))
            .await
            .map_err(|error| {
                let denied = tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE;
                if error.code() != Some(&denied) {
                    return Wrong::Server(error);
                }
                Wrong::Ours(
                    Error::job(format!(
                        "{}: the sink keeps {fence} and {commits} beside the table and may not make them: GRANT CREATE ON \
                         SCHEMA {schema}, or make them by hand (docs/postgres.md)",
                        self.place
                    ))
                    .caused_by(crate::session::said(&error)),
                )
            })
    }

    /// Whether the target belongs to another run, or is not the one that start `needed` wrote to; changes nothing.
    pub async fn check(
        &self,
        client: &Client,
        owner: &Owner,
        needed: Option<Generation>,
    ) -> Result<(), Wrong> {
        let found = if self.exist(client).await? { self.read(client, owner, "").await? } else { None };
        let over = self.start_over(owner);
        owner.may_write(found.as_ref(), needed, self.words(&over)).map_err(Wrong::Ours)
    }

    /// Takes the target over, unless it belongs to another run or a newer start, or went back.
    pub async fn fence(
        &self,
        client: &Client,
        owner: &Owner,
        needed: Option<Generation>,
    ) -> Result<(), Wrong> {
        self.make(client).await?;
        client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
        let over = self.start_over(owner);
        let may = |found: Option<Mark>| {
            owner.takes_over(found.as_ref(), needed, self.words(&over)).map_err(Wrong::Ours)
        };
        may(self.read(client, owner, "FOR UPDATE").await?)?;
        // Of two first starts at once the second waits here; it is told apart by the condition.
        let Owner { job, sink, lineage, generation } = owner;
        let taken = client
            .execute(
                &format!(
                    "INSERT INTO {} AS old (job, sink, lineage, generation) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (job, sink) DO UPDATE SET generation = excluded.generation
                     WHERE old.lineage = excluded.lineage AND old.generation <= excluded.generation",
                    self.fence
                ),
                &[job, sink, lineage, &generation.0.cast_signed()],
            )
            .await?;
        if taken == 0 {
            may(self.read(client, owner, "").await?)?;
            return Err(Wrong::Ours(Error::external(format!(
                "{}: two starts take it over at once",
                self.place
            ))));
        }
        client.batch_execute("COMMIT").await?;
        Ok(())
    }

    /// Checks that the target is still ours. With `FOR SHARE`, in a transaction, it stays so until the end of it.
    pub async fn check_owner(&self, client: &Client, owner: &Owner, lock: &str) -> Result<(), Wrong> {
        let found = self.read(client, owner, lock).await?;
        owner.still_has(found.as_ref(), self.words(&self.start_over(owner))).map_err(Wrong::Ours)
    }

    /// The highest committed checkpoint of an instance.
    pub async fn committed(
        &self,
        client: &Client,
        owner: &Owner,
        instance: u32,
    ) -> Result<Option<CheckpointId>, Wrong> {
        let Owner { job, sink, lineage, .. } = owner;
        let stored = client
            .query_opt(
                &format!(
                    "SELECT lineage, checkpoint FROM {} WHERE job = $1 AND sink = $2 AND instance = $3",
                    self.commits
                ),
                &[job, sink, &i64::from(instance)],
            )
            .await?;
        match stored {
            None => Ok(None),
            Some(row) if row.get::<_, &str>(0) != lineage => {
                let over = self.start_over(owner);
                Err(Wrong::Ours(owner.another_run(row.get(0), self.words(&over))))
            }
            Some(row) => self.id(&row, 1).map(Some),
        }
    }

    /// The highest committed checkpoint of all instances.
    pub async fn newest(&self, client: &Client, owner: &Owner) -> Result<Option<CheckpointId>, Wrong> {
        let Owner { job, sink, lineage, .. } = owner;
        let newest = client
            .query_one(
                &format!(
                    "SELECT max(checkpoint) FROM {} WHERE job = $1 AND sink = $2 AND lineage = $3",
                    self.commits
                ),
                &[job, sink, lineage],
            )
            .await?;
        match newest.get::<_, Option<i64>>(0) {
            None => Ok(None),
            Some(_) => self.id(&newest, 0).map(Some),
        }
    }

    /// Stores the token in the transaction of its commit. False if the stored one is not below it: then the rows are
    /// there already.
    pub async fn store(
        &self,
        client: &Client,
        owner: &Owner,
        instance: u32,
        checkpoint: CheckpointId,
    ) -> Result<bool, Wrong> {
        let Owner { job, sink, lineage, generation } = owner;
        let stored = client
            .execute(
                &format!(
                    "INSERT INTO {} AS old (job, sink, instance, lineage, generation, checkpoint)
                     VALUES ($1, $2, $3, $4, $5, $6)
                     ON CONFLICT (job, sink, instance) DO UPDATE SET
                         lineage = excluded.lineage, generation = excluded.generation, checkpoint = excluded.checkpoint
                     WHERE old.checkpoint < excluded.checkpoint",
                    self.commits
                ),
                &[
                    job,
                    sink,
                    &i64::from(instance),
                    lineage,
                    &generation.0.cast_signed(),
                    &i64::from(checkpoint.0),
                ],
            )
            .await?;
        Ok(stored == 1)
    }

    fn id(&self, row: &Row, column: usize) -> Result<CheckpointId, Wrong> {
        let stored: i64 = row.get(column);
        u32::try_from(stored).map(CheckpointId).map_err(|_| {
            Wrong::Ours(Error::job(format!(
                "{}: {} holds {stored}, which is no checkpoint; restore it, or start over",
                self.place, self.commits
            )))
        })
    }

    async fn read(&self, client: &Client, owner: &Owner, lock: &str) -> Result<Option<Mark>, Wrong> {
        let query =
            format!("SELECT lineage, generation FROM {} WHERE job = $1 AND sink = $2 {lock}", self.fence);
        let row = client.query_opt(&query, &[&owner.job, &owner.sink]).await?;
        Ok(row.map(|row| {
            let generation = Generation(row.get::<_, i64>(1).cast_unsigned());
            Mark { lineage: row.get(0), generation }
        }))
    }

    fn words<'a>(&'a self, start_over: &'a str) -> Words<'a> {
        Words { place: &self.place, start_over }
    }

    fn start_over(&self, owner: &Owner) -> String {
        let Self { fence, commits, .. } = self;
        let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let (job, sink) = (text(&owner.job), text(&owner.sink));
        format!(
            "empty the table and run `DELETE FROM {fence} WHERE job = {job} AND sink = {sink}; \
             DELETE FROM {commits} WHERE job = {job} AND sink = {sink};` (a table in another schema is another place)"
        )
    }
}
