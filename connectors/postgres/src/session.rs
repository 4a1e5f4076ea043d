//! A connection, and what its errors mean.

use crate::address::Address;
use staunch_core::error::Kind;
use staunch_core::sink::{CommitError, SinkContext};
use staunch_core::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;

/// How long opening a session may take at most.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a statement waits for a lock; commits are tried again by the engine.
const LOCK_TIMEOUT: &str = "5s";
/// How long sessions of older starts may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a name that the server keeps.
const MOST_NAME_BYTES: usize = 63;
/// Sessions that could not be ended yet, by one sink.
const MOST_ABANDONED: usize = 64;

/// An open connection. Dropping it closes it at once, whatever was sent.
#[derive(Debug)]
pub struct Session {
    pub(crate) client: Client,
    driver: JoinHandle<()>,
    identity: Identity,
    abandoned: Abandoned,
    /// A transaction may be open on the server.
    pub(crate) busy: bool,
}

/// A session, for the server: process ids are used again.
type Identity = (i32, String);

/// Sessions of this process that were given up in a transaction: on the server they may go on for a while.
#[derive(Clone, Default, Debug)]
pub(crate) struct Abandoned(Arc<Mutex<Vec<Identity>>>);

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
        if self.busy {
            let mut list = self.abandoned.0.lock().unwrap_or_else(PoisonError::into_inner);
            if list.len() < MOST_ABANDONED {
                list.push(self.identity.clone());
            }
        }
    }
}

/// What all sessions of a sink have in their name.
fn family(context: &SinkContext, table: &str) -> String {
    // FNV-1a: the same for every build of the program.
    let parts = [context.job.as_str(), context.sink.as_str(), context.lineage.as_str(), table];
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("staunch {hash:016x}")
}

/// Connects, with what the sink needs of a session.
pub(crate) async fn connect(
    address: &Address,
    context: &SinkContext,
    table: &str,
    abandoned: &Abandoned,
) -> Result<Session> {
    let place = address.place();
    let mut address = address.clone();
    let mut name =
        format!("{} {} {}/{}", family(context, table), context.generation, context.job, context.sink);
    let fits = (0..=MOST_NAME_BYTES.min(name.len())).rev().find(|at| name.is_char_boundary(*at));
    name.truncate(fits.unwrap_or(0));
    address.config.application_name(&name).target_session_attrs(TargetSessionAttrs::ReadWrite);
    let opening = async {
        let (client, driver) = address.connect().await?;
        let identity = (0, String::new());
        let mut session = Session { client, driver, identity, abandoned: abandoned.clone(), busy: false };
        let prepared = prepare(&mut session, &place, abandoned).await;
        prepared.map(|()| session).map_err(|e| address.failed(&e))
    };
    match tokio::time::timeout(context.deadline.min(OPEN_TIMEOUT), opening).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::external(format!("PostgreSQL at {place} does not answer"))),
    }
}

/// Sets what the sink needs, and ends what it left behind on other connections.
async fn prepare(
    session: &mut Session,
    place: &str,
    abandoned: &Abandoned,
) -> Result<(), tokio_postgres::Error> {
    session
        .client
        .batch_execute(&format!(
            "SET lock_timeout = '{LOCK_TIMEOUT}'; SET statement_timeout = 0;
             SET idle_in_transaction_session_timeout = '60s'; SET tcp_keepalives_idle = 10;
             SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        ))
        .await?;
    let own = "SELECT pid, backend_start::text, current_setting('fsync') FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let own = session.client.query_one(own, &[]).await?;
    session.identity = (own.get(0), own.get(1));
    if own.get::<_, &str>(2) == "off" {
        tracing::warn!(%place, "fsync is off at the server: a power cut loses what was committed");
    }
    end_abandoned(&session.client, abandoned).await
}

async fn end_abandoned(client: &Client, abandoned: &Abandoned) -> Result<(), tokio_postgres::Error> {
    let listed = abandoned.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (pid, started) in listed {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2";
        client.execute(end, &[&pid, &started]).await?;
        let is_it = |one: &Identity| *one == (pid, started.clone());
        abandoned.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| !is_it(one));
    }
    Ok(())
}

/// Ends sessions of older starts of this sink: one that was stopped in the middle of a commit would hold its locks for
/// ever. What it had not committed is committed by this start.
pub(crate) async fn end_older(
    client: &Client,
    context: &SinkContext,
    table: &str,
) -> Result<u64, tokio_postgres::Error> {
    let older = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE application_name LIKE $1 AND pid <> pg_backend_pid() AND usename = current_user AND datname = current_database()
                    AND split_part(application_name, ' ', 3)::numeric < $2::text::numeric";
    client
        .execute(older, &[&format!("{} %", family(context, table)), &context.generation.0.to_string()])
        .await
}

/// [`end_older`], until there are none any more; false if some do not go.
pub(crate) async fn end_older_and_wait(
    client: &Client,
    context: &SinkContext,
    table: &str,
) -> Result<bool, tokio_postgres::Error> {
    let until = Instant::now() + END_TIMEOUT;
    loop {
        if end_older(client, context, table).await? == 0 {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a failed connection means for a commit: a mistake of the job or its target is not mended by asking again.
pub(crate) fn by_kind(error: Error) -> CommitError {
    match error.kind() {
        Kind::Job => CommitError::Refused(error),
        Kind::External | Kind::Internal => CommitError::Retry(error),
    }
}

/// What the server said, in full: its message, detail and hint.
pub(crate) fn said(error: &tokio_postgres::Error) -> String {
    let Some(said) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            text.push_str(&format!(": {next}"));
            cause = next.source();
        }
        return text;
    };
    let mut text = format!("{} ({})", said.message(), said.code().code());
    for more in [said.detail(), said.hint(), said.where_()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more);
    }
    text
}

/// What an error means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Means {
    /// The outcome is not known, or it may work the next time.
    Again,
    /// The server understood, and says no.
    No,
}

pub(crate) fn means(error: &tokio_postgres::Error) -> Means {
    let Some(code) = error.code() else { return Means::Again };
    match &code.code()[..2] {
        _ if *code == SqlState::INTERNAL_ERROR => Means::Again,
        // Constraints, values, statements and names, rights, triggers, damage.
        "22" | "23" | "28" | "3D" | "3F" | "42" | "44" | "P0" | "0A" | "54" | "XX" => Means::No,
        _ => Means::Again,
    }
}

/// True if a lock was waited for in vain.
pub(crate) fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// An error of a commit.
pub(crate) fn commit_error(place: &str, what: &str, error: &tokio_postgres::Error) -> CommitError {
    match means(error) {
        Means::No => CommitError::Refused(
            Error::job(format!(
                "{place} does not take {what}; nothing of it is written, and it stays staged in the checkpoint: change the \
                 table and start again"
            ))
            .caused_by(said(error)),
        ),
        Means::Again => {
            CommitError::Retry(Error::external(format!("{place}: {what} is not committed yet")).caused_by(said(error)))
        }
    }
}
