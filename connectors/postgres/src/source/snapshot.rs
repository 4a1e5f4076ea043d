//! Reads what is in the tables, and goes on where a snapshot before this one ended. The head of the room says why it is right.

use super::live::Live;
use super::lsn::Lsn;
use super::pgoutput::{Cell, Tuple};
use super::row::Row;
use super::task::{ENOUGH, Over, Piece, Task};
use super::wire::{Trouble, Wire, identifier};
use super::within::{Within, values};
use super::{Cursor, Event, Position, Table, catalog};
use bytes::{Bytes, BytesMut};
use staunch_core::{Change, Error};
use std::sync::Arc;
use std::time::Duration;

/// Rows that are handed out at one go.
const TOGETHER: usize = 64;
/// How often to say what a snapshot waits for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// A session with a snapshot, and the place in the log that it shows.
struct Shown {
    wire: Wire,
    at: Lsn,
}

impl Task {
    /// Reads all that is missing of the tables. Afterwards the position is one of the log alone.
    pub async fn snapshot(&mut self, main: &mut Wire) -> Result<Over, Trouble> {
        let Some(cursor) = self.sent.snapshot.clone() else { return Ok(Over::Enough) };
        let before = self.storage(main).await?;
        let Some(mut shown) = self.show(main).await? else { return Ok(Over::Unwanted) };
        self.lock(main, &mut shown.wire, &before).await?;
        if cursor.is_begun() && self.sent.lsn < shown.at {
            let (tables, until) = (self.plan.split.tables.clone(), shown.at);
            let within = Within { wire: &mut shown.wire, tables, cursor: cursor.clone(), until };
            let wire = self.connect().await?;
            if Live::begin(self, wire, Some(within)).await?.read().await? == Over::Unwanted {
                return Ok(Over::Unwanted);
            }
            self.plan.told.state.send_modify(|state| state.reading = false);
        }
        self.at = Position { snapshot: Some(cursor.clone()), ..Position::at(shown.at) };
        tracing::info!(slot = self.plan.split.slot, at = %shown.at, "reading what is in the tables");
        for index in cursor.table..self.plan.split.tables.len() {
            let after = if index == cursor.table { cursor.after.clone() } else { None };
            self.at.snapshot = Some(Cursor { table: index, after });
            if !self.table(&mut shown, index).await? {
                return Ok(Over::Unwanted);
            }
        }
        self.at = Position::at(shown.at);
        self.add(Vec::new());
        tracing::info!(slot = self.plan.split.slot, "the tables are read; changes follow");
        Ok(if self.hand_over().await { Over::Enough } else { Over::Unwanted })
    }

    /// Makes a snapshot. `None` if nobody wants it any more.
    async fn show(&mut self, main: &mut Wire) -> Result<Option<Shown>, Trouble> {
        let mut wire = Wire::connect(&self.plan.address, &self.plan.who.purpose(true)).await?;
        wire.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let make = format!(
            "CREATE_REPLICATION_SLOT \"staunch_snapshot_{}\" TEMPORARY LOGICAL pgoutput USE_SNAPSHOT",
            wire.pid
        );
        let made = {
            let making = wire.row(&make);
            tokio::pin!(making);
            loop {
                tokio::select! {
                    made = &mut making => break made?,
                    () = self.out.closed() => return Ok(None),
                    () = tokio::time::sleep(SAY_EVERY) => {
                        let oldest = "SELECT pid, application_name, xact_start FROM pg_stat_activity WHERE backend_xid IS NOT NULL \
                                      AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 1";
                        let prepared = "SELECT gid, prepared FROM pg_prepared_xacts ORDER BY prepared LIMIT 1";
                        let (oldest, prepared) = (main.row(oldest).await?, main.row(prepared).await?);
                        tracing::warn!(?oldest, ?prepared, "the snapshot waits for transactions that are open at the server");
                    }
                }
            }
        };
        let at = made.and_then(|row| row.get(1)?.parse().ok());
        let at =
            at.ok_or_else(|| Trouble::Link("the server made no snapshot and did not say why".to_owned()))?;
        Ok(Some(Shown { wire, at }))
    }

    /// Which files each table is in.
    async fn storage(&self, wire: &mut Wire) -> Result<Vec<Option<String>>, Trouble> {
        let mut files = Vec::new();
        for table in &self.plan.split.tables {
            let look = format!(
                "SELECT string_agg(COALESCE(pg_relation_filenode(relid), 0)::text, ',' ORDER BY relid::oid) FROM (SELECT relid FROM \
                 pg_partition_tree({0}::oid::regclass) UNION SELECT {0}::oid::regclass) AS parts(relid)",
                table.oid
            );
            files.push(wire.query(&look).await?.into_iter().next().and_then(|mut row| row.pop()).flatten());
        }
        Ok(files)
    }

    /// From now on the tables keep their columns and files. A table that was rewritten since the snapshot was made would look
    /// empty in it, so then there must be another one.
    async fn lock(
        &self,
        main: &mut Wire,
        shown: &mut Wire,
        before: &[Option<String>],
    ) -> Result<(), Trouble> {
        let tables: Vec<String> = self.plan.split.tables.iter().map(Table::quoted).collect();
        shown.query(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", "))).await?;
        if self.storage(main).await? != before {
            return Err(Trouble::Link(
                "a table was rewritten or emptied while the snapshot was made".to_owned(),
            ));
        }
        let version = main.row("SELECT current_setting('server_version_num')").await?;
        let version = version.and_then(|row| row[0].parse().ok()).unwrap_or_default();
        for known in &self.plan.split.tables {
            let mut now = known.clone();
            catalog::columns(main, &self.plan.split.publication, &mut now, version).await?;
            if now != *known {
                return Err(Trouble::Known(Error::job(format!(
                    "table {}: its columns or its publication were changed before all of it was read ({}, and now {}). Start over \
                     with --from none",
                    known.name(),
                    columns(known),
                    columns(&now)
                ))));
            }
        }
        Ok(())
    }

    /// Reads a table from the last key on. False if nobody wants it any more.
    async fn table(&mut self, shown: &mut Shown, index: usize) -> Result<bool, Trouble> {
        let after = self.at.snapshot.as_ref().and_then(|cursor| cursor.after.clone());
        let layout = Arc::clone(&self.plan.layouts[index]);
        shown.wire.copy(&statement(&self.plan.split.tables[index], after.as_deref())).await?;
        let mut events = Vec::new();
        loop {
            let line = shown.wire.copied().await?;
            let ended = line.is_none();
            if let Some(line) = line {
                let row = cells(&line).and_then(|tuple| Row::new(&layout, tuple));
                let row = row.ok_or_else(|| {
                    Trouble::Known(Error::internal(format!("a row of table {} cannot be read", layout.table)))
                })?;
                events.push(Event {
                    table: Arc::clone(&layout.table),
                    change: Change::Insert(row),
                    lsn: shown.at,
                    committed: None,
                    transaction: 0,
                });
            }
            if events.len() >= TOGETHER || (ended && !events.is_empty()) {
                let last = events.last().and_then(|event| match &event.change {
                    Change::Insert(row) => row.key(),
                    _ => None,
                });
                let last = last.ok_or_else(|| {
                    Trouble::Known(Error::internal(format!("a row of table {} has no key", layout.table)))
                })?;
                self.at.snapshot = Some(Cursor { table: index, after: Some(last) });
                self.bytes += events.iter().map(super::reader::size).sum::<usize>();
                self.ready.push(Piece { events: std::mem::take(&mut events), position: self.at.clone() });
            }
            if (self.bytes >= ENOUGH || ended) && !self.hand_over().await {
                return Ok(false);
            }
            if ended {
                return Ok(true);
            }
        }
    }
}

fn columns(table: &Table) -> String {
    let columns = table.columns.iter().map(|column| format!("{} {}", column.name, column.declared));
    columns.collect::<Vec<_>>().join(", ")
}

/// Copies the rows of a table behind a key, in the order of the keys.
fn statement(table: &Table, after: Option<&[String]>) -> String {
    let names: Vec<String> = table.columns.iter().map(|column| identifier(&column.name)).collect();
    let key: Vec<String> = table.key().into_iter().map(|at| names[at].clone()).collect();
    let mut conditions: Vec<String> = table.filter.iter().map(|filter| format!("({filter})")).collect();
    if let Some(after) = after {
        conditions.push(format!("ROW({}) > ROW({})", key.join(", "), values(table, after)));
    }
    let conditions =
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let only = if table.partitioned { "" } else { "ONLY " };
    format!(
        "COPY (SELECT {} FROM {only}{}{conditions} ORDER BY {}) TO STDOUT",
        names.join(", "),
        table.quoted(),
        key.join(", ")
    )
}

/// The cells of a line of COPY: values with tabs between them, `\N` for NULL, and escapes.
fn cells(line: &Bytes) -> Option<Tuple> {
    let line = line.slice(..line.strip_suffix(b"\n").map_or(line.len(), <[u8]>::len));
    let place = |at: usize| u32::try_from(at).ok();
    let mut cells = Vec::new();
    if !line.contains(&b'\\') {
        let mut from = 0;
        for part in line.split(|byte| *byte == b'\t') {
            cells.push(Cell::Text(place(from)?, place(from + part.len())?));
            from += part.len() + 1;
        }
        std::str::from_utf8(&line).ok()?;
        return Some(Tuple { bytes: line, cells });
    }
    let mut plain = BytesMut::with_capacity(line.len());
    for part in line.split(|byte| *byte == b'\t') {
        if part == b"\\N" {
            cells.push(Cell::Null);
            continue;
        }
        let from = plain.len();
        let mut bytes = part.iter();
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'\\' => match bytes.next()? {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    other => *other,
                },
                other => *other,
            };
            plain.extend_from_slice(&[byte]);
        }
        cells.push(Cell::Text(place(from)?, place(plain.len())?));
    }
    std::str::from_utf8(&plain).ok()?;
    Some(Tuple { bytes: plain.freeze(), cells })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_copy_is_read_with_its_escapes_and_nulls() {
        let text = |tuple: &Tuple, at: usize| match tuple.cells[at] {
            Cell::Text(from, to) => {
                String::from_utf8(tuple.bytes[from as usize..to as usize].to_vec()).unwrap()
            }
            other => format!("{other:?}"),
        };
        let plain = cells(&Bytes::from_static(b"1\t\tab\n")).unwrap();
        assert_eq!((0..3).map(|at| text(&plain, at)).collect::<Vec<_>>(), ["1", "", "ab"]);
        let odd = cells(&Bytes::from_static(b"\\N\ta\\tb\\\\N\\n\t\\\\N\n")).unwrap();
        assert_eq!((0..3).map(|at| text(&odd, at)).collect::<Vec<_>>(), ["Null", "a\tb\\N\n", "\\N"]);
        assert_eq!(cells(&Bytes::from_static(b"a\\")), None);
    }
}
