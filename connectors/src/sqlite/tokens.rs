//! The sink's own tables: who writes here, and what is committed.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use staunch_core::sink::SinkContext;
use staunch_core::staged::Token;
use staunch_core::{CheckpointId, Error, Generation, Result, crash};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _staunch_fence (
        job TEXT NOT NULL, sink TEXT NOT NULL, lineage TEXT NOT NULL, generation INTEGER NOT NULL,
        PRIMARY KEY (job, sink)
    );
    CREATE TABLE IF NOT EXISTS _staunch_commits (
        job TEXT NOT NULL, sink TEXT NOT NULL, instance INTEGER NOT NULL,
        lineage TEXT NOT NULL, generation INTEGER NOT NULL, checkpoint INTEGER NOT NULL,
        PRIMARY KEY (job, sink, instance)
    );";

/// What a check found, if SQLite itself worked.
pub(super) type Checked<T> = rusqlite::Result<Result<T>>;

/// Whether the target belongs to another run, or is not the one that earlier starts wrote to; changes nothing.
pub(super) fn check(connection: &Connection, context: &SinkContext, place: &str) -> Checked<()> {
    let known =
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_staunch_fence')";
    let found = match connection.query_row(known, [], |row| row.get::<_, bool>(0))? {
        true => read_fence(connection, &context.job, &context.sink)?,
        false => None,
    };
    Ok(check_found(found, context, place))
}

fn check_found(found: Option<(String, Generation)>, context: &SinkContext, place: &str) -> Result<()> {
    let SinkContext { job, sink, lineage, .. } = context;
    match (found, context.taken_over_by) {
        (Some((other, _)), _) if other != *lineage => Err(another_run(place, job, sink, &other, lineage)),
        (Some((_, last)), Some(needed)) if last < needed => {
            let why =
                format!("no start after {last} has written there, and start {needed} of the job has written");
            Err(not_the_same(place, sink, &why))
        }
        (None, Some(needed)) => {
            let why = format!("it has no mark of this sink, to which start {needed} of the job has written");
            Err(not_the_same(place, sink, &why))
        }
        _ => Ok(()),
    }
}

/// Takes the target over, unless it belongs to another run or a newer start.
pub(super) fn fence(connection: &mut Connection, context: &SinkContext, place: &str) -> Checked<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(TABLES)?;
    let SinkContext { job, sink, lineage, generation, .. } = context;
    let found = read_fence(&tx, job, sink)?;
    if let Some((other, newer)) = &found
        && other == lineage
        && newer > generation
    {
        return Ok(Err(fenced(place, sink, *newer, *generation)));
    }
    if let Err(refused) = check_found(found, context, place) {
        return Ok(Err(refused));
    }
    tx.execute(
        "INSERT INTO _staunch_fence (job, sink, lineage, generation) VALUES (?, ?, ?, ?)
         ON CONFLICT (job, sink) DO UPDATE SET generation = excluded.generation",
        params![job, sink, lineage, generation.0.cast_signed()],
    )?;
    tx.commit().map(Ok)
}

/// Who commits.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub job: String,
    pub sink: String,
    pub lineage: String,
    pub generation: Generation,
}

/// The highest committed checkpoint of an instance, after a check that the target is still ours. In the
/// transaction of a commit it holds until the end of it.
pub(super) fn committed(
    connection: &Connection,
    owner: &Owner,
    instance: u32,
    place: &str,
) -> Checked<Option<CheckpointId>> {
    if let Err(refused) = check_owner(connection, owner, place)? {
        return Ok(Err(refused));
    }
    let Owner { job, sink, lineage, .. } = owner;
    let stored: Option<(String, u32)> = connection
        .query_row(
            "SELECT lineage, checkpoint FROM _staunch_commits WHERE job = ? AND sink = ? AND instance = ?",
            params![job, sink, instance],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(match stored {
        Some((other, _)) if other != *lineage => Err(another_run(place, job, sink, &other, lineage)),
        stored => Ok(stored.map(|(_, checkpoint)| CheckpointId(checkpoint))),
    })
}

/// The highest committed checkpoint of all instances, after the same check.
pub(super) fn newest(connection: &Connection, owner: &Owner, place: &str) -> Checked<Option<CheckpointId>> {
    if let Err(refused) = check_owner(connection, owner, place)? {
        return Ok(Err(refused));
    }
    let Owner { job, sink, lineage, .. } = owner;
    let newest: Option<u32> = connection.query_row(
        "SELECT max(checkpoint) FROM _staunch_commits WHERE job = ? AND sink = ? AND lineage = ?",
        params![job, sink, lineage],
        |row| row.get(0),
    )?;
    Ok(Ok(newest.map(CheckpointId)))
}

/// Checks that the target is still ours.
fn check_owner(connection: &Connection, owner: &Owner, place: &str) -> Checked<()> {
    let Owner { job, sink, lineage, generation } = owner;
    Ok(match read_fence(connection, job, sink)? {
        Some((other, _)) if other != *lineage => Err(another_run(place, job, sink, &other, lineage)),
        Some((_, current)) if current != *generation && !crash::bug("fencing_skipped") => {
            Err(fenced(place, sink, current, *generation))
        }
        Some(_) => Ok(()),
        None => {
            let why = "the sink's row in _staunch_fence is gone; was the database replaced?";
            Err(Error::job(format!("{place}: {why}")))
        }
    })
}

/// Stores the token in the transaction of its commit.
pub(super) fn store(tx: &Transaction<'_>, token: &Token) -> rusqlite::Result<()> {
    let Token { job, sink, lineage, generation, instance, checkpoint } = token;
    tx.execute(
        "INSERT INTO _staunch_commits (job, sink, instance, lineage, generation, checkpoint) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (job, sink, instance) DO UPDATE SET
             lineage = excluded.lineage, generation = excluded.generation, checkpoint = excluded.checkpoint",
        params![job, sink, instance, lineage, generation.0.cast_signed(), checkpoint.0],
    )
    .map(|_| ())
}

fn read_fence(
    connection: &Connection,
    job: &str,
    sink: &str,
) -> rusqlite::Result<Option<(String, Generation)>> {
    connection
        .query_row(
            "SELECT lineage, generation FROM _staunch_fence WHERE job = ? AND sink = ?",
            params![job, sink],
            |row| Ok((row.get(0)?, Generation(row.get::<_, i64>(1)?.cast_unsigned()))),
        )
        .optional()
}

fn another_run(place: &str, job: &str, sink: &str, other: &str, ours: &str) -> Error {
    Error::job(format!(
        "{place} holds output of another run of job `{job}`, sink `{sink}` (run {other}; this is run {ours}). Write to \
         another database, or continue that run from its checkpoints, or start over: empty the table and run \
         `DELETE FROM _staunch_fence WHERE job = '{job}' AND sink = '{sink}'; \
         DELETE FROM _staunch_commits WHERE job = '{job}' AND sink = '{sink}';`"
    ))
}

/// What to say of a target that is not the one that earlier starts wrote to.
pub(super) fn not_the_same(place: &str, sink: &str, why: &str) -> Error {
    Error::job(format!(
        "{place} is not the database that sink `{sink}` wrote to before, or an older copy of it: {why}. Rows that were \
         committed would be missing. Put that database back and run the job again; or start over with --from none and \
         another database; or, to go on with this one from here, give the sink another name"
    ))
}

fn fenced(place: &str, sink: &str, newer: Generation, ours: Generation) -> Error {
    Error::job(format!(
        "{place}: sink `{sink}` was taken over by start {newer} of the job; this is start {ours}"
    ))
}
