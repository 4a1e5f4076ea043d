//! What the server must have before anything is read: all that is missing is said in one message.
//!
//! Promises that a publication and a slot are made only when a job starts from nothing. Knows nothing of reading.

use super::lsn::Lsn;
use super::row::{Layout, Named};
use super::wire::{Trouble, Wire, identifier, literal};
use super::{Split, Table, TableColumn, Wanted};
use staunch_core::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// How often to look whether a slot is free, or a transaction over.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The oldest server whose catalogs are as they are read here.
const OLDEST_SERVER: u32 = 130_000;

impl Table {
    /// `schema.name`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The same, for statements.
    pub fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.table))
    }

    /// Where its key is among its columns, in the order of the key.
    pub fn key(&self) -> Vec<usize> {
        let mut key: Vec<(u32, usize)> =
            self.columns.iter().enumerate().filter_map(|(at, column)| Some((column.key?, at))).collect();
        key.sort_unstable();
        key.into_iter().map(|(_, at)| at).collect()
    }

    pub fn layout(&self, index: usize) -> Arc<Layout> {
        let columns = self.columns.iter().map(|column| Named::new(&column.name, column.base)).collect();
        Arc::new(Layout { table: self.name().into(), index, columns, key: self.key() })
    }
}

/// A number in an answer.
fn number<T: std::str::FromStr + Default>(text: &str) -> T {
    text.parse().unwrap_or_default()
}

/// Looks at everything, makes what may be made, and says what the split is.
pub(super) async fn prepare(wire: &mut Wire, wanted: &Wanted, fresh: bool, limit: Duration) -> Result<Split> {
    let mut problems = Vec::new();
    let found = inspect(wire, wanted, fresh, &mut problems).await;
    let (mut split, made) =
        found.map_err(|trouble| trouble.into_error("PostgreSQL cannot be asked what it has"))?;
    if !problems.is_empty() {
        let list: Vec<String> = problems.iter().map(|problem| format!("\n- {problem}")).collect();
        return Err(Error::job(format!("{} cannot be followed:{}", wanted.place, list.concat())));
    }
    if fresh {
        split.start = slot(wire, wanted, made, limit).await?;
        if wanted.bounded {
            let end = wire.row("SELECT pg_current_wal_insert_lsn()").await;
            let end =
                end.map_err(|trouble| trouble.into_error("PostgreSQL does not say where its log ends"))?;
            split.end = end.and_then(|row| row[0].parse().ok());
        }
    }
    Ok(split)
}

/// Everything but the slot.
async fn inspect(
    wire: &mut Wire,
    wanted: &Wanted,
    fresh: bool,
    problems: &mut Vec<String>,
) -> Result<(Split, bool), Trouble> {
    let server = "SELECT current_setting('server_version_num'), current_setting('wal_level'), pg_is_in_recovery(), \
                  (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user), current_user, \
                  (SELECT system_identifier FROM pg_control_system()), current_setting('max_replication_slots'), \
                  (SELECT count(*) FROM pg_replication_slots), current_setting('max_wal_senders'), \
                  (SELECT count(*) FROM pg_replication_slots WHERE slot_name = ";
    let row = wire.row(&format!("{server}{})", literal(&wanted.slot))).await?;
    let row = row.ok_or_else(|| Trouble::Link("an empty answer".to_owned()))?;
    let version: u32 = number(&row[0]);
    if version < OLDEST_SERVER {
        problems.push("the server is older than PostgreSQL 13".to_owned());
        return Err(Trouble::Known(Error::job("the server is older than PostgreSQL 13")));
    }
    if row[1] != "logical" {
        problems.push(format!("wal_level is {}: set `wal_level = logical` and restart the server", row[1]));
    }
    if row[2] == "t" {
        problems.push("it is a standby: give the address of the primary".to_owned());
    }
    if row[3] != "t" {
        problems.push(format!(
            "user {} may not replicate: ALTER ROLE {} REPLICATION",
            row[4],
            identifier(&row[4])
        ));
    }
    let (most, used): (u32, u32) = (number(&row[6]), number(&row[7]));
    let more = u32::from(row[9] == "0") + u32::from(wanted.snapshot);
    if fresh && row[1] == "logical" && used + more > most {
        problems.push(format!(
            "{used} of {most} replication slots are in use, and {more} more are needed{}: raise max_replication_slots, or drop \
             slots that nobody reads (pg_replication_slots)",
            if wanted.snapshot { ", one of them for the time of the snapshot" } else { "" }
        ));
    }
    if number::<u32>(&row[8]) < 2 {
        problems.push(format!("max_wal_senders is {}: raise it", row[8]));
    }
    let mut tables = Vec::new();
    if wanted.tables.is_empty() {
        problems.push("no table is named".to_owned());
    }
    for name in &wanted.tables {
        tables.extend(table(wire, name, wanted, problems).await?);
    }
    let sound = problems.is_empty();
    let made = publication(wire, wanted, &tables, fresh && sound, version, problems).await?;
    if problems.is_empty() {
        for table in &mut tables {
            columns(wire, &wanted.publication, table, version).await?;
        }
    }
    let split = Split {
        slot: wanted.slot.clone(),
        publication: wanted.publication.clone(),
        system: row[5].clone(),
        start: Lsn::default(),
        end: None,
        snapshot: wanted.snapshot,
        tables,
    };
    Ok((split, made))
}

/// A table, without its columns.
async fn table(
    wire: &mut Wire,
    name: &str,
    wanted: &Wanted,
    problems: &mut Vec<String>,
) -> Result<Option<Table>, Trouble> {
    let (schema, table) = name.split_once('.').unwrap_or(("public", name));
    let statement = format!(
        "SELECT c.oid, c.relkind, c.relpersistence, c.relreplident, has_table_privilege(c.oid, 'SELECT'), \
                EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), \
                EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident) \
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname = {}",
        literal(schema),
        literal(table)
    );
    let Some(row) = wire.row(&statement).await? else {
        problems.push(format!("there is no table {schema}.{table}, or this user does not see it"));
        return Ok(None);
    };
    let quoted = format!("{}.{}", identifier(schema), identifier(table));
    let mut bad = |problem: String| problems.push(format!("table {schema}.{table} {problem}"));
    if !matches!(row[1].as_str(), "r" | "p") {
        bad("is no table: views, foreign tables and the like have no changes in the log".to_owned());
    } else if row[2] != "p" {
        bad("is UNLOGGED or temporary: its changes are not in the log".to_owned());
    }
    if wanted.snapshot && row[4] != "t" {
        bad(format!("may not be read: GRANT SELECT ON {quoted}"));
    }
    let (primary, chosen) = (row[5] == "t", row[6] == "t");
    let identity = match row[3].as_str() {
        "n" => Err("has REPLICA IDENTITY NOTHING: updates and deletes would fail"),
        "d" if !primary => Err("has no primary key, so updates and deletes would fail"),
        "i" if !chosen => Err("has lost the index of its REPLICA IDENTITY"),
        "f" if !primary && wanted.snapshot => {
            bad("has no primary key, without which a snapshot cannot go on after a crash: add one, or use .changes_only()".to_owned());
            Ok(())
        }
        _ => Ok(()),
    };
    if let Err(why) = identity {
        bad(format!("{why}: add a primary key, or ALTER TABLE {quoted} REPLICA IDENTITY FULL"));
    }
    Ok(Some(Table {
        schema: schema.to_owned(),
        table: table.to_owned(),
        oid: number(&row[0]),
        partitioned: row[1] == "p",
        filter: None,
        columns: Vec::new(),
    }))
}

/// The publication is there, or is made, and has all that is wanted. True if it was made.
async fn publication(
    wire: &mut Wire,
    wanted: &Wanted,
    tables: &[Table],
    may_make: bool,
    version: u32,
    problems: &mut Vec<String>,
) -> Result<bool, Trouble> {
    let name = &wanted.publication;
    let list: Vec<String> = tables.iter().map(Table::quoted).collect();
    let make = format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)",
        identifier(name),
        list.join(", ")
    );
    let look = format!(
        "SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication WHERE pubname = {}",
        literal(name)
    );
    let mut made = false;
    let mut found = wire.row(&look).await?;
    if found.is_none() && may_make && wanted.makes_publication {
        match wire.query(&make).await {
            Ok(_) => made = true,
            Err(Trouble::Server { code, text }) if code == "42501" => {
                problems.push(format!(
                    "this user may not make publication {name} ({text}); let somebody run: {make}"
                ));
                return Ok(false);
            }
            Err(trouble) => return Err(trouble),
        }
        found = wire.row(&look).await?;
    }
    let Some(found) = found else {
        if !wanted.makes_publication || problems.is_empty() {
            problems.push(format!("there is no publication {name}; make it: {make}"));
        }
        return Ok(false);
    };
    for (has, what) in found.iter().zip(["insert", "update", "delete", "truncate"]) {
        if has != "t" {
            problems.push(format!(
                "publication {name} leaves out {what}s: ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
                identifier(name)
            ));
        }
    }
    let via_root = found[4] == "t";
    for table in tables {
        let look = format!(
            "SELECT 1 FROM pg_publication_tables WHERE pubname = {} AND schemaname = {} AND tablename = {}",
            literal(name),
            literal(&table.schema),
            literal(&table.table)
        );
        if table.partitioned && !via_root {
            problems.push(format!(
                "table {} is partitioned: ALTER PUBLICATION {} SET (publish_via_partition_root = true)",
                table.name(),
                identifier(name)
            ));
        } else if wire.row(&look).await?.is_none() {
            problems.push(format!(
                "publication {name} does not have table {}: ALTER PUBLICATION {} ADD TABLE {}",
                table.name(),
                identifier(name),
                table.quoted()
            ));
        }
    }
    // Later servers may publish other things by other rules, such as generated columns; what comes is compared anyway.
    let _ = version;
    Ok(made)
}

/// Fills in the columns that are published, and which of the rows are.
pub(super) async fn columns(
    wire: &mut Wire,
    publication: &str,
    table: &mut Table,
    version: u32,
) -> Result<(), Trouble> {
    let mut only = String::new();
    if version >= 150_000 {
        let published = format!(
            "FROM pg_publication_tables WHERE pubname = {} AND schemaname = {} AND tablename = {}",
            literal(publication),
            literal(&table.schema),
            literal(&table.table)
        );
        let rows = wire.query(&format!("SELECT rowfilter {published}")).await?;
        table.filter = rows.into_iter().next().and_then(|mut row| row.pop()).flatten();
        only = format!("AND a.attname = ANY (SELECT unnest(attnames) {published})");
    }
    let statement = format!(
        "SELECT a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod), \
                CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE a.atttypid END, \
                array_position(i.indkey::int2[], a.attnum), \
                (SELECT quote_ident(n.nspname) || '.' || quote_ident(l.collname) FROM pg_collation l \
                   JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) \
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid \
           LEFT JOIN pg_index i ON i.indrelid = c.oid \
                AND CASE WHEN c.relreplident = 'i' THEN i.indisreplident ELSE i.indisprimary END \
          WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' {only} ORDER BY a.attnum",
        table.oid
    );
    table.columns = Vec::new();
    for row in wire.query(&statement).await? {
        let mut texts = row.into_iter();
        let mut next = || texts.next().flatten();
        let (name, oid, declared) = (next(), next(), next());
        let (base, key, collation) = (next(), next(), next());
        table.columns.push(TableColumn {
            name: name.unwrap_or_default(),
            oid: number(&oid.unwrap_or_default()),
            declared: declared.unwrap_or_default(),
            base: number(&base.unwrap_or_default()),
            key: key.and_then(|key| key.parse().ok()),
            collation,
        });
    }
    Ok(())
}

/// The slot is there and can be used, or is made. Where it begins.
async fn slot(wire: &mut Wire, wanted: &Wanted, made_publication: bool, limit: Duration) -> Result<Lsn> {
    let failed =
        |trouble: Trouble| trouble.into_error(format!("replication slot {} cannot be had", wanted.slot));
    let look = format!(
        "SELECT plugin, slot_type, database = current_database(), COALESCE(wal_status, ''), confirmed_flush_lsn \
           FROM pg_replication_slots WHERE slot_name = {}",
        literal(&wanted.slot)
    );
    if let Some(found) = wire.row(&look).await.map_err(failed)? {
        if found[0] != "pgoutput" || found[1] != "logical" || found[2] != "t" {
            return Err(Error::job(format!(
                "replication slot {} is not one of pgoutput in this database (plugin {}, kind {}); give another name (.slot(..)), \
                 or drop it: SELECT pg_drop_replication_slot({})",
                wanted.slot,
                if found[0].is_empty() { "none" } else { &found[0] },
                found[1],
                literal(&wanted.slot)
            )));
        }
        // Nothing was read by it that counts. One that was made before its publication cannot be read by that.
        let useless = found[3] == "lost" || (made_publication && !wanted.snapshot);
        if !useless {
            return found[4].parse().map_err(Error::external);
        }
        tracing::warn!(slot = wanted.slot, "the replication slot is of no use any more; it is made anew");
        wire.query(&format!("SELECT pg_drop_replication_slot({})", literal(&wanted.slot)))
            .await
            .map_err(failed)?;
    }
    make_slot(wire, &wanted.slot, limit).await
}

/// Makes a slot. The server first waits for transactions that write now.
pub(super) async fn make_slot(wire: &mut Wire, slot: &str, limit: Duration) -> Result<Lsn> {
    let make = format!("SELECT lsn FROM pg_create_logical_replication_slot({}, 'pgoutput')", literal(slot));
    match tokio::time::timeout(limit, wire.row(&make)).await {
        Ok(Ok(Some(row))) => {
            tracing::info!(slot, at = row[0], "replication slot made");
            row[0].parse().map_err(Error::external)
        }
        Ok(Ok(None)) => Err(Error::external("the server made no slot and did not say why")),
        Ok(Err(trouble)) => Err(trouble.into_error(format!("replication slot {slot} cannot be made"))),
        Err(_) => Err(Error::external(format!(
            "replication slot {slot} is not made yet: the server waits for transactions that were open before, prepared ones \
             included. End them (SELECT * FROM pg_stat_activity WHERE backend_xid IS NOT NULL; SELECT * FROM pg_prepared_xacts), \
             then start again"
        ))),
    }
}

/// What became of the slot since it was last looked at.
#[derive(Clone, Debug)]
pub(super) struct SlotState {
    pub confirmed: Lsn,
    pub lost: bool,
    /// Who reads it now: the process, and the name of the session.
    pub active: Option<(i32, String)>,
}

/// The slot, if it is there.
pub(super) async fn state(wire: &mut Wire, slot: &str) -> Result<Option<SlotState>, Trouble> {
    let look = format!(
        "SELECT s.confirmed_flush_lsn, COALESCE(s.wal_status, ''), s.active_pid, a.application_name \
           FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = {}",
        literal(slot)
    );
    let Some(row) = wire.row(&look).await? else { return Ok(None) };
    let active = row[2].parse().ok().map(|pid| (pid, row[3].clone()));
    Ok(Some(SlotState { confirmed: row[0].parse().unwrap_or_default(), lost: row[1] == "lost", active }))
}

/// Waits until nobody reads the slot any more; sessions of which `ours` is true are ended. False if another one reads it
/// all the time.
pub(super) async fn free(
    wire: &mut Wire,
    slot: &str,
    ours: impl Fn(i32, &str) -> bool,
    limit: Duration,
) -> Result<Option<(i32, String)>, Trouble> {
    let until = tokio::time::Instant::now() + limit;
    loop {
        let Some((pid, name)) = state(wire, slot).await?.and_then(|state| state.active) else {
            return Ok(None);
        };
        if ours(pid, &name) {
            wire.query(&format!("SELECT pg_terminate_backend({pid})")).await?;
        }
        if tokio::time::Instant::now() >= until {
            return Ok(Some((pid, name)));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
