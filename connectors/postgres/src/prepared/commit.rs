//! Publishes prepared transactions, and resolves those that were left behind.

use super::done::Done;
use super::{OF_EACH_INSTANCE, Payload, check_mode, gid, writers};
use crate::session;
use crate::target::{Connection, Target};
use crate::tokens::Wrong;
use serde::Serialize;
use staunch_core::owner::Owner;
use staunch_core::sink::{CommitError, Committer, SinkContext};
use staunch_core::staged::{StagedTarget, lost_checkpoint};
use staunch_core::{Committable, Error, Result, crash};
use std::collections::BTreeSet;
use tokio_postgres::error::SqlState;

/// Publishes for all instances, or for those of one lane.
pub struct PreparedCommitter<T> {
    target: Target<T>,
    context: SinkContext,
    /// `None` before recovery, and after an error: the next call connects anew.
    connection: Option<Connection>,
}

impl<T> std::fmt::Debug for PreparedCommitter<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedCommitter").field("target", &self.target).finish_non_exhaustive()
    }
}

impl<T: Serialize + Send + 'static> PreparedCommitter<T> {
    pub(super) fn new(target: Target<T>, context: SinkContext) -> Self {
        Self { target, context, connection: None }
    }

    async fn connect(&self) -> Result<Connection> {
        check_mode(&self.target)?;
        let connection = StagedTarget::connect(&self.target, &self.context).await?;
        let most = "SELECT current_setting('max_prepared_transactions')::int";
        let most = connection.session.client.query_one(most, &[]).await;
        let most: i32 =
            most.map_err(|e| self.target.opening_error("cannot read the settings of", &e))?.get(0);
        let needed = OF_EACH_INSTANCE * self.context.instances as usize;
        if usize::try_from(most).unwrap_or(0) < needed {
            return Err(Error::job(format!(
                "{}: .prepared() needs max_prepared_transactions of at least {needed} ({OF_EACH_INSTANCE} for each worker), \
                 and what others prepare; it is {most}. Set it at the server, which has to be started again, or leave \
                 .prepared() out",
                self.target.place()
            )));
        }
        Ok(connection)
    }

    fn payload(&self, committable: &Committable) -> Result<String> {
        let payload = serde_json::from_value::<Payload>(committable.payload.clone());
        payload.map(|payload| payload.prepared_transaction).map_err(|e| {
            Error::job(format!(
                "the checkpoint lists output of sink `{}` (checkpoint {}) that this kind of sink did not prepare; was \
                 .prepared() added or left out? Stop the old program cleanly first, or rename the new sink",
                self.context.sink, committable.checkpoint
            ))
            .caused_by(e)
        })
    }

    fn wrong(&self, what: &str, wrong: Wrong) -> Error {
        match wrong {
            Wrong::Server(error) => self.target.opening_error(what, &error),
            Wrong::Ours(error) => error,
        }
    }

    /// Rolls back what earlier starts of this sink left and no checkpoint lists.
    async fn roll_back(&self, connection: &Connection, listed: &BTreeSet<String>) -> Result<Vec<String>> {
        let client = &connection.session.client;
        let ours = gid::of_sink(&self.context, &self.target.table);
        let failed = |e| self.target.opening_error("cannot resolve prepared transactions at", &e);
        let found =
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, $1)";
        let mut removed = Vec::new();
        for row in client.query(found, &[&ours]).await.map_err(failed)? {
            let name: String = row.get(0);
            // What a newer start prepared stays: then this one is late.
            let is_older = gid::generation(&name, &ours).is_some_and(|of| of <= self.context.generation);
            if listed.contains(&name) || !is_older {
                continue;
            }
            match client.batch_execute(&format!("ROLLBACK PREPARED {}", gid::literal(&name))).await {
                Err(error) if error.code() != Some(&SqlState::UNDEFINED_OBJECT) => return Err(failed(error)),
                _ => {}
            }
            let sink = &self.context.sink;
            removed.push(format!(
                "sink `{sink}`: rolled back {name}, prepared for a checkpoint that was never decided"
            ));
            let failed = |e| Error::external("a start failed").caused_by(e);
            crash::point("recovery.some_orphans_removed").map_err(failed)?;
        }
        Ok(removed)
    }

    async fn commit_one(&mut self, committable: &Committable) -> Result<(), CommitError> {
        let name = self.payload(committable).map_err(CommitError::Refused)?;
        if self.connection.is_none() {
            let opened = self.connect().await.map_err(session::by_kind)?;
            self.connection = Some(opened);
        }
        let Some(connection) = &self.connection else { return Ok(()) };
        let Connection { session, shape, tokens } = connection;
        let (client, done) = (&session.client, Done::new(&shape.names));
        let owner = Owner::from(&self.context);
        let Committable { checkpoint, instance, records, .. } = committable;
        let (place, sink) = (self.target.place(), &self.context.sink);
        let what = format!("checkpoint {checkpoint} of sink `{sink}`");
        let wrong = |wrong| match wrong {
            Wrong::Server(error) => session::commit_error(&place, &what, &error),
            Wrong::Ours(error) => CommitError::Refused(error),
        };
        // What was decided is committed by whoever comes first; but who was replaced is to hear of it.
        tokens.check_owner(client, &owner, "").await.map_err(wrong)?;
        let committed = client.batch_execute(&format!("COMMIT PREPARED {}", gid::literal(&name))).await;
        match committed {
            Ok(()) => {}
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => {
                let newest = done.newest(client, &owner, Some(*instance)).await.map_err(wrong)?;
                if newest < Some(*checkpoint) {
                    return Err(CommitError::Refused(Error::external(format!(
                        "{place}: {records} records of checkpoint {checkpoint} of sink `{sink}` (instance {instance}) cannot \
                         be committed: the transaction {name} is neither prepared nor committed. It was rolled back by \
                         somebody, or the server went back; its records are lost, unless you go back to an earlier checkpoint"
                    ))));
                }
            }
            Err(error) => return Err(session::commit_error(&place, &what, &error)),
        }
        let failed = |e| CommitError::Retry(Error::external("a commit failed").caused_by(e));
        crash::point("postgres/commit_prepared").map_err(failed)?;
        if let Err(error) = done.forget_before(client, &owner, *instance, *checkpoint).await {
            tracing::warn!(
                sink,
                error = session::said(&error),
                "marks of earlier commits stay in the database"
            );
            self.connection = None;
        }
        Ok(())
    }
}

impl<T: Serialize + Send + 'static> Committer for PreparedCommitter<T> {
    async fn check(&mut self) -> Result<()> {
        let mut connection = self.connect().await?;
        StagedTarget::check(&self.target, &mut connection, &self.context).await
    }

    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        let keep = listed.iter().map(|one| self.payload(one)).collect::<Result<BTreeSet<_>>>()?;
        let mut connection = self.connect().await?;
        let done = Done::new(&connection.shape.names);
        let failed = |e| self.target.opening_error("cannot make the sink's own tables beside", &e);
        done.make(&connection.session.client).await.map_err(failed)?;
        StagedTarget::fence(&self.target, &mut connection, &self.context).await?;
        let client = &connection.session.client;
        let ended = session::end_older_and_wait(client, &self.context, &writers(&self.target.table)).await;
        if !ended.map_err(|e| self.target.opening_error("cannot end sessions of older starts at", &e))? {
            return Err(Error::external(format!(
                "{}: sessions of older starts do not end",
                self.target.place()
            )));
        }
        let owner = Owner::from(&self.context);
        let newest = done.newest(client, &owner, None).await.map_err(|e| self.wrong("cannot read", e))?;
        if let Some(lost) = newest.filter(|newest| *newest >= self.context.next_checkpoint) {
            return Err(Error::job(lost_checkpoint(&self.context.sink, lost)));
        }
        let removed = self.roll_back(&connection, &keep).await?;
        self.connection = Some(connection);
        Ok(removed)
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        for committable in committables {
            if let Err(error) = self.commit_one(committable).await {
                self.connection = None;
                return Err(error);
            }
            let failed = |e| CommitError::Retry(Error::external("a commit failed").caused_by(e));
            crash::point("commit.some_done").map_err(failed)?;
        }
        Ok(())
    }
}
