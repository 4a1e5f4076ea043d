//! The sink's own tables: who writes here, and what is committed.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use staunch_core::owner::{Mark, Owner, Words};
use staunch_core::sink::SinkContext;
use staunch_core::staged::Token;
use staunch_core::{CheckpointId, Generation, Result};

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
    let owner = Owner::from(context);
    Ok(owner.may_write(found.as_ref(), context.taken_over_by, words(place, &start_over(&owner))))
}

/// Takes the target over, unless it belongs to another run or a newer start.
pub(super) fn fence(connection: &mut Connection, context: &SinkContext, place: &str) -> Checked<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(TABLES)?;
    let owner = Owner::from(context);
    let found = read_fence(&tx, &owner.job, &owner.sink)?;
    let over = start_over(&owner);
    if let Err(refused) = owner.takes_over(found.as_ref(), context.taken_over_by, words(place, &over)) {
        return Ok(Err(refused));
    }
    let Owner { job, sink, lineage, generation } = owner;
    tx.execute(
        "INSERT INTO _staunch_fence (job, sink, lineage, generation) VALUES (?, ?, ?, ?)
         ON CONFLICT (job, sink) DO UPDATE SET generation = excluded.generation",
        params![job, sink, lineage, generation.0.cast_signed()],
    )?;
    tx.commit().map(Ok)
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
        Some((other, _)) if other != *lineage => {
            Err(owner.another_run(&other, words(place, &start_over(owner))))
        }
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
    let found = read_fence(connection, &owner.job, &owner.sink)?;
    Ok(owner.still_has(found.as_ref(), words(place, &start_over(owner))))
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

fn read_fence(connection: &Connection, job: &str, sink: &str) -> rusqlite::Result<Option<Mark>> {
    connection
        .query_row(
            "SELECT lineage, generation FROM _staunch_fence WHERE job = ? AND sink = ?",
            params![job, sink],
            |row| {
                let generation = Generation(row.get::<_, i64>(1)?.cast_unsigned());
                Ok(Mark { lineage: row.get(0)?, generation })
            },
        )
        .optional()
}

fn words<'a>(place: &'a str, start_over: &'a str) -> Words<'a> {
    Words { place, start_over }
}

fn start_over(owner: &Owner) -> String {
    let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let (job, sink) = (text(&owner.job), text(&owner.sink));
    format!(
        "empty the table and run `DELETE FROM _staunch_fence WHERE job = {job} AND sink = {sink}; \
         DELETE FROM _staunch_commits WHERE job = {job} AND sink = {sink};`"
    )
}
