//! Rows into a table, inside of a transaction that somebody else begins and ends.
//!
//! Inserts go through COPY. Changes by key are collected: of several changes of one key in a batch only the last one is
//! written, and rows that go are deleted before others are written, which leaves the same table behind as one after the
//! other would. If the server refuses a batch, it is done again one change at a time, in order: then what is refused is a
//! row that cannot be held, and not a state in between that would never have been.

use crate::columns::{Columns, Names, quoted, quoted_list};
use crate::kind::Kind;
use crate::row::{Row, cells};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, CopyInSink, Statement};

/// Bytes that are sent at a time.
const COPY_BYTES: usize = 256 << 10;
/// Changes of a batch, and the bytes of their cells.
const MOST_CHANGES: usize = 10_000;
const MOST_BATCH_BYTES: usize = 8 << 20;
/// Rows of one statement, and the values that the server takes with one.
const MOST_ROWS: usize = 512;
const MOST_VALUES: usize = 65_535;

/// What rows come in by COPY.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Why rows were not written.
#[derive(Debug)]
pub(crate) enum Failed {
    Server(tokio_postgres::Error),
    /// They are of a table that is no more.
    Changed(String),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Shape {
    pub names: Names,
    pub columns: Columns,
    /// Positions of the columns of the key; none for plain inserts.
    pub key: Vec<usize>,
}

impl Shape {
    fn key_names(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(|at| self.columns.all[*at].name.as_str())
    }

    /// Whether equal keys have equal bytes, once numbers have lost their scale.
    fn has_plain_keys(&self) -> bool {
        self.key.iter().all(|at| {
            let column = &self.columns.all[*at];
            match &column.kind {
                Some(Kind::Text | Kind::Varchar(_) | Kind::Char(_)) => column.plain_texts,
                Some(Kind::Float4 | Kind::Float8 | Kind::Json | Kind::Jsonb | Kind::Array { .. }) | None => {
                    false
                }
                Some(_) => true,
            }
        })
    }

    /// The statement that writes rows of these columns, if there is a key.
    fn on_conflict(&self, columns: &[&str]) -> String {
        if self.key.is_empty() {
            return String::new();
        }
        let is_key = |name: &str| self.key_names().any(|key| key == name);
        let others: Vec<String> = columns
            .iter()
            .filter(|name| !is_key(name))
            .map(|name| format!("{0} = excluded.{0}", quoted(name)))
            .collect();
        let action = if others.is_empty() {
            "NOTHING".to_owned()
        } else {
            format!("UPDATE SET {}", others.join(", "))
        };
        format!(" ON CONFLICT ({}) DO {action}", quoted_list(self.key_names()))
    }

    /// Statements that only work if the table takes what will come; for `EXPLAIN`.
    pub fn probes(&self, deletes: bool) -> Vec<String> {
        if self.key.is_empty() {
            return Vec::new();
        }
        let usable: Vec<&str> =
            self.columns.all.iter().filter(|c| c.generated.is_none()).map(|c| c.name.as_str()).collect();
        let (table, list) = (&self.names.table, quoted_list(usable.iter().copied()));
        let mut probes = vec![format!(
            "INSERT INTO {table} ({list}) SELECT {list} FROM {table} WHERE false{}",
            self.on_conflict(&usable)
        )];
        if deletes {
            probes.push(format!("DELETE FROM {table} WHERE false"));
        }
        probes
    }
}

/// Rows on their way into a table.
#[derive(Debug)]
pub(crate) struct Load {
    copy: Option<Copy>,
    batch: Batch,
    /// What layouts turned out to be.
    plans: HashMap<String, Plan>,
    statements: HashMap<String, Statement>,
}

#[derive(Clone, Debug)]
struct Plan {
    /// Names and the types that the cells have.
    columns: Vec<(String, String)>,
    /// For each column of the key its place among them.
    key: Vec<usize>,
    /// The table has other types by now, which take the old ones.
    is_older: bool,
}

struct Copy {
    layout: String,
    sink: Pin<Box<CopyInSink<Bytes>>>,
    out: BytesMut,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copy").field("layout", &self.layout).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Batch {
    layout: String,
    /// As they came.
    changes: Vec<Row>,
    /// For each key the last change that writes it.
    last: HashMap<Vec<u8>, usize>,
    gone: HashSet<Vec<u8>>,
    /// The cells of keys that are gone, in order.
    deletes: Vec<Vec<u8>>,
    bytes: usize,
}

impl Load {
    pub fn new() -> Self {
        Self { copy: None, batch: Batch::default(), plans: HashMap::new(), statements: HashMap::new() }
    }

    /// Takes a row. It is in the table after [`Load::finish`].
    pub async fn push(&mut self, client: &Client, shape: &Shape, row: Row) -> Result<(), Failed> {
        if !self.plans.contains_key(&row.layout) {
            let plan = plan(shape, &row)?;
            self.plans.insert(row.layout.clone(), plan);
        }
        let plan = &self.plans[&row.layout];
        if shape.key.is_empty() && !plan.is_older {
            return self.copy_row(client, shape, &row).await;
        }
        if !row.cells.is_empty() && row.layout != self.batch.layout {
            let layout = row.layout.clone();
            self.flush(client, shape).await?;
            self.batch.layout = layout;
        }
        let plan = &self.plans[&row.layout];
        self.batch.add(shape, plan, row);
        let is_full = self.batch.changes.len() >= MOST_CHANGES || self.batch.bytes >= MOST_BATCH_BYTES;
        if is_full || !(shape.key.is_empty() || shape.has_plain_keys()) {
            self.flush(client, shape).await?;
        }
        Ok(())
    }

    /// All rows that were taken are in the table when this returns.
    pub async fn finish(&mut self, client: &Client, shape: &Shape) -> Result<(), Failed> {
        self.end_copy().await?;
        self.flush(client, shape).await
    }

    async fn copy_row(&mut self, client: &Client, shape: &Shape, row: &Row) -> Result<(), Failed> {
        if self.copy.as_ref().is_some_and(|copy| copy.layout != row.layout) {
            self.end_copy().await?;
        }
        let plan = &self.plans[&row.layout];
        let copy = match &mut self.copy {
            Some(copy) => copy,
            none => {
                let columns = quoted_list(plan.columns.iter().map(|(name, _)| name.as_str()));
                let copy = format!("COPY {} ({columns}) FROM STDIN (FORMAT binary)", shape.names.table);
                let sink = Box::pin(client.copy_in(&copy).await?);
                let mut out = BytesMut::with_capacity(COPY_BYTES + 4096);
                out.put_slice(COPY_HEADER);
                none.insert(Copy { layout: row.layout.clone(), sink, out })
            }
        };
        copy.out.put_i16(i16::try_from(plan.columns.len()).unwrap_or(i16::MAX));
        copy.out.put_slice(&row.cells);
        if copy.out.len() >= COPY_BYTES {
            copy.sink.send(copy.out.split().freeze()).await?;
        }
        Ok(())
    }

    async fn end_copy(&mut self) -> Result<(), Failed> {
        let Some(mut copy) = self.copy.take() else { return Ok(()) };
        copy.out.put_i16(-1);
        copy.sink.send(copy.out.split().freeze()).await?;
        copy.sink.as_mut().finish().await?;
        Ok(())
    }

    async fn flush(&mut self, client: &Client, shape: &Shape) -> Result<(), Failed> {
        let batch = std::mem::take(&mut self.batch);
        self.batch.layout.clone_from(&batch.layout);
        if batch.changes.is_empty() {
            return Ok(());
        }
        client.batch_execute("SAVEPOINT batch").await?;
        match self.write_batch(client, shape, &batch).await {
            Ok(()) => {}
            // 21: two rows of one statement have keys that the server takes for equal.
            Err(Failed::Server(error))
                if error.code().is_some_and(|code| ["21", "23"].contains(&&code.code()[..2]))
                    && batch.changes.len() > 1 =>
            {
                client.batch_execute("ROLLBACK TO SAVEPOINT batch").await?;
                for change in batch.changes {
                    let mut single = Batch { layout: batch.layout.clone(), ..Batch::default() };
                    let plan = self.plans[&change.layout].clone();
                    single.add(shape, &plan, change);
                    self.write_batch(client, shape, &single).await?;
                }
            }
            Err(failed) => return Err(failed),
        }
        client.batch_execute("RELEASE SAVEPOINT batch").await?;
        Ok(())
    }

    async fn write_batch(&mut self, client: &Client, shape: &Shape, batch: &Batch) -> Result<(), Failed> {
        let keys: Vec<&[u8]> = batch.deletes.iter().map(Vec::as_slice).collect();
        let key_types: Vec<(String, String)> = shape
            .key
            .iter()
            .map(|at| (shape.columns.all[*at].name.clone(), shape.columns.all[*at].declared.clone()))
            .collect();
        for part in parts(&keys, key_types.len()) {
            let statement = delete(shape, &key_types, part.len());
            self.execute(client, statement, part).await?;
        }
        let mut last: Vec<usize> = if shape.key.is_empty() {
            (0..batch.changes.len()).collect()
        } else {
            batch.last.values().copied().collect()
        };
        last.sort_unstable();
        let rows: Vec<&[u8]> = last.iter().map(|at| batch.changes[*at].cells.as_slice()).collect();
        if let Some(columns) = self.plans.get(&batch.layout).map(|plan| plan.columns.clone()) {
            for part in parts(&rows, columns.len()) {
                let statement = insert(shape, &columns, part.len());
                self.execute(client, statement, part).await?;
            }
        }
        Ok(())
    }

    async fn execute(&mut self, client: &Client, statement: String, rows: &[&[u8]]) -> Result<(), Failed> {
        let prepared = match self.statements.get(&statement) {
            Some(prepared) => prepared.clone(),
            None => {
                let prepared = client.prepare(&statement).await?;
                self.statements.insert(statement, prepared.clone());
                prepared
            }
        };
        let values: Vec<Cell<'_>> = rows.iter().flat_map(|row| cells(row)).map(Cell).collect();
        let values: Vec<&(dyn ToSql + Sync)> =
            values.iter().map(|cell| cell as &(dyn ToSql + Sync)).collect();
        client.execute(&prepared, &values).await?;
        Ok(())
    }
}

impl Batch {
    fn add(&mut self, shape: &Shape, plan: &Plan, row: Row) {
        self.bytes += row.cells.len() + row.gone.len();
        if !row.gone.is_empty() {
            let key = plain_key(shape, cells(&row.gone));
            self.last.remove(&key);
            if self.gone.insert(key) {
                self.deletes.push(row.gone.clone());
            }
        }
        if !row.cells.is_empty() && !shape.key.is_empty() {
            let all: Vec<_> = cells(&row.cells).collect();
            let key = plain_key(shape, plan.key.iter().map(|at| all[*at]));
            self.last.insert(key, self.changes.len());
        }
        self.changes.push(row);
    }
}

/// The bytes by which keys are compared: a decimal number is the same with more zeros behind the point.
fn plain_key<'a>(shape: &Shape, cells: impl Iterator<Item = Option<&'a [u8]>>) -> Vec<u8> {
    let mut key = Vec::new();
    for (at, cell) in shape.key.iter().zip(cells) {
        let cell = cell.unwrap_or_default();
        let length = u32::try_from(cell.len()).unwrap_or(u32::MAX);
        key.put_u32(length);
        let from = key.len();
        key.extend_from_slice(cell);
        if matches!(shape.columns.all[*at].kind, Some(Kind::Numeric { .. })) && cell.len() >= 8 {
            key[from + 6..from + 8].fill(0);
        }
    }
    key
}

/// Rows by the statement that takes them: full ones, and the rest in powers of two, so that there are few statements.
fn parts<'a, 'b>(rows: &'a [&'b [u8]], columns: usize) -> Vec<&'a [&'b [u8]]> {
    let full = MOST_ROWS.min(MOST_VALUES / columns.max(1)).max(1);
    let (mut parts, mut rest) = (Vec::new(), rows);
    let mut size = full;
    while !rest.is_empty() {
        while size > rest.len() {
            size =
                if size == full && !full.is_power_of_two() { full.next_power_of_two() / 2 } else { size / 2 };
        }
        let (part, more) = rest.split_at(size);
        parts.push(part);
        rest = more;
    }
    parts
}

fn values(types: &[(String, String)], rows: usize) -> String {
    let mut text = String::new();
    let mut number = 0;
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for (at, (_, declared)) in types.iter().enumerate() {
            number += 1;
            let comma = if at == 0 { "" } else { ", " };
            text.push_str(&format!("{comma}${number}::{declared}"));
        }
        text.push(')');
    }
    text
}

fn insert(shape: &Shape, columns: &[(String, String)], rows: usize) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    format!(
        "INSERT INTO {} ({}) VALUES {}{}",
        shape.names.table,
        quoted_list(names.iter().copied()),
        values(columns, rows),
        shape.on_conflict(&names)
    )
}

fn delete(shape: &Shape, key: &[(String, String)], rows: usize) -> String {
    let names: Vec<&str> = key.iter().map(|(name, _)| name.as_str()).collect();
    let same: Vec<String> = names.iter().map(|name| format!("old.{0} = gone.{0}", quoted(name))).collect();
    format!(
        "DELETE FROM {} AS old USING (VALUES {}) AS gone ({}) WHERE {}",
        shape.names.table,
        values(key, rows),
        quoted_list(names.iter().copied()),
        same.join(" AND ")
    )
}

/// Compares what rows were made for with the table as it is.
fn plan(shape: &Shape, row: &Row) -> Result<Plan, Failed> {
    let mut columns = Vec::new();
    let mut is_older = false;
    for (name, declared) in row.columns() {
        let Some(at) = shape.columns.position(name, columns.len()) else {
            return Err(Failed::Changed(format!("column `{name}`, which rows were written for, is gone")));
        };
        let now = &shape.columns.all[at].declared;
        if now != declared {
            if !is_wider(declared, now) {
                return Err(Failed::Changed(format!(
                    "column `{name}` was of type {declared} when the rows were written and is {now} now; change it back"
                )));
            }
            // Keys are compared by their bytes, those that go by the type that the table has now.
            if shape.key.contains(&at) && !has_form_of(declared, now) {
                return Err(Failed::Changed(format!(
                    "column `{name}`, which is of the key, was of type {declared} when the rows were written and is {now} \
                     now; change it back until they are in the table"
                )));
            }
            is_older = true;
        }
        columns.push((name.to_owned(), declared.to_owned()));
    }
    let place = |at: &usize| columns.iter().position(|(name, _)| *name == shape.columns.all[*at].name);
    let key = shape.key.iter().map(place).collect::<Option<Vec<_>>>();
    let key =
        key.ok_or_else(|| Failed::Changed("the rows were written without the columns of the key".into()))?;
    Ok(Plan { columns, key, is_older })
}

/// Whether a type holds all values of another one.
fn is_wider(old: &str, new: &str) -> bool {
    let wider: &[&str] = match old {
        "smallint" => &["integer", "bigint", "numeric"],
        "integer" => &["bigint", "numeric"],
        "bigint" => &["numeric"],
        "real" => &["double precision"],
        _ if old.starts_with("character varying") => &["text", "character varying"],
        _ if old.starts_with("numeric(") => &["numeric"],
        _ => &[],
    };
    wider.contains(&new)
}

/// Whether a wider type has the same bytes for the values of the old one.
fn has_form_of(old: &str, new: &str) -> bool {
    let is_text = |name: &str| name == "text" || name.starts_with("character varying");
    let is_decimal = |name: &str| name == "numeric" || name.starts_with("numeric(");
    is_text(old) && is_text(new) || is_decimal(old) && is_decimal(new)
}

/// A cell as a value of a statement: it has the server's form already.
#[derive(Debug)]
struct Cell<'a>(Option<&'a [u8]>);

impl ToSql for Cell<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match self.0 {
            Some(bytes) => {
                out.put_slice(bytes);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_number_type_is_not_compared_with_what_was_written_before() {
        for (old, new) in [("bigint", "numeric"), ("integer", "bigint"), ("real", "double precision")] {
            assert!(is_wider(old, new) && !has_form_of(old, new), "{old} to {new}");
        }
        for (old, new) in [("character varying(9)", "text"), ("numeric(10,2)", "numeric")] {
            assert!(is_wider(old, new) && has_form_of(old, new), "{old} to {new}");
        }
    }
}
