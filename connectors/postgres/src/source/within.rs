//! While a snapshot is incomplete: which changes concern what was handed out of it already.
//!
//! Promises that after the changes it lets through, the output shows exactly the rows with keys up to the last one, as they are
//! then. Keys are compared by the server.

use super::row::Row;
use super::wire::{Trouble, Wire, literal};
use super::{Cursor, Event, Lsn, Table};
use staunch_core::{Change, Error};

/// Keys that are compared with one question.
const AT_A_TIME: usize = 1_000;

pub(super) struct Within<'a> {
    /// A session that may be asked.
    pub wire: &'a mut Wire,
    pub tables: Vec<Table>,
    pub cursor: Cursor,
    /// The place that the new snapshot shows.
    pub until: Lsn,
}

/// What must be known of the rows of an event: whether the first, and the second, was handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    In,
    Out,
}

/// What is left of a change, if the row was handed out before it, and if it is to be after it.
fn cut(change: Change<Row>, before: Side, after: Side) -> Option<Change<Row>> {
    match (change, before, after) {
        (change, Side::In, Side::In) => Some(change),
        (_, Side::Out, Side::Out) => None,
        // Its key was moved to where nothing was read yet: the snapshot has it.
        (Change::Update { before, after }, Side::In, Side::Out) => {
            Some(Change::Delete(before.unwrap_or(after)))
        }
        (Change::Update { after, .. }, Side::Out, Side::In) => Some(Change::Insert(after)),
        (change, ..) => Some(change),
    }
}

impl Within<'_> {
    /// Those of the events that count, and what counts of them.
    pub async fn only(&mut self, events: Vec<Event<Row>>) -> Result<Vec<Event<Row>>, Trouble> {
        let mut keys = Vec::new();
        let sides: Vec<Known> =
            events.iter().map(|event| self.look(event, &mut keys)).collect::<Result<_, _>>()?;
        let answers = self.ask(&keys).await?;
        let side = |at: usize| if answers.get(at) == Some(&true) { Side::In } else { Side::Out };
        let mut left = Vec::with_capacity(events.len());
        for (event, known) in events.into_iter().zip(sides) {
            let (before, after) = match known {
                Known::All(side) => (side, side),
                Known::Ask(before, after) => (side(before), side(after)),
            };
            let Event { table, change, lsn, committed, transaction } = event;
            if let Some(change) = cut(change, before, after) {
                left.push(Event { table, change, lsn, committed, transaction });
            }
        }
        Ok(left)
    }

    fn look(&self, event: &Event<Row>, keys: &mut Vec<Vec<String>>) -> Result<Known, Trouble> {
        let index = self.tables.iter().position(|table| table.name() == *event.table);
        let side = match index.map(|index| index.cmp(&self.cursor.table)) {
            Some(std::cmp::Ordering::Less) => return Ok(Known::All(Side::In)),
            Some(std::cmp::Ordering::Equal) if self.cursor.after.is_some() => Side::In,
            _ => return Ok(Known::All(Side::Out)),
        };
        let mut add = |row: &Row| -> Result<usize, Trouble> {
            let key = row.key().ok_or_else(|| {
                Trouble::Known(Error::internal(format!(
                    "a change of table {} came without its key",
                    event.table
                )))
            })?;
            keys.push(key);
            Ok(keys.len() - 1)
        };
        Ok(match &event.change {
            Change::Truncate => Known::All(side),
            Change::Insert(row) | Change::Delete(row) => {
                let at = add(row)?;
                Known::Ask(at, at)
            }
            Change::Update { before: None, after } => {
                let at = add(after)?;
                Known::Ask(at, at)
            }
            Change::Update { before: Some(before), after } => {
                let first = add(before)?;
                // A key so large that it was not sent again has not changed.
                let second = if after.key().is_some() { add(after)? } else { first };
                Known::Ask(first, second)
            }
        })
    }

    /// For each key whether it is up to the last one that was handed out.
    async fn ask(&mut self, keys: &[Vec<String>]) -> Result<Vec<bool>, Trouble> {
        let (Some(table), Some(last)) = (self.tables.get(self.cursor.table), &self.cursor.after) else {
            return Ok(Vec::new());
        };
        let statement = Compare::new(table, last);
        let mut answers = Vec::with_capacity(keys.len());
        for some in keys.chunks(AT_A_TIME) {
            let rows = self.wire.query(&statement.of(some)).await?;
            answers
                .extend(rows.iter().map(|row| row.first().is_some_and(|cell| cell.as_deref() == Some("t"))));
        }
        if answers.len() != keys.len() {
            return Err(Trouble::Link("the server did not answer for every key".to_owned()));
        }
        Ok(answers)
    }
}

/// What is known of an event without asking: all, or where in the list its keys are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    All(Side),
    Ask(usize, usize),
}

/// The statement that compares keys, by the rules of their columns.
struct Compare {
    names: String,
    columns: String,
    last: String,
}

impl Compare {
    fn new(table: &Table, last: &[String]) -> Self {
        let key: Vec<_> = table.key().into_iter().map(|at| &table.columns[at]).collect();
        let names: Vec<String> = (0..key.len()).map(|at| format!("k{at}")).collect();
        let columns = key.iter().enumerate().map(|(at, column)| {
            let collate =
                column.collation.as_ref().map_or_else(String::new, |name| format!(" COLLATE {name}"));
            format!("CAST(k{at} AS {}){collate}", column.declared)
        });
        Self {
            columns: columns.collect::<Vec<_>>().join(", "),
            names: names.join(", "),
            last: values(table, last),
        }
    }

    fn of(&self, keys: &[Vec<String>]) -> String {
        let rows: Vec<String> = keys
            .iter()
            .enumerate()
            .map(|(at, key)| {
                format!("({at}, {})", key.iter().map(|text| literal(text)).collect::<Vec<_>>().join(", "))
            })
            .collect();
        let Self { names, columns, last } = self;
        format!(
            "SELECT ROW({columns}) <= ROW({last}) FROM (VALUES {}) AS v(n, {names}) ORDER BY n",
            rows.join(", ")
        )
    }
}

/// The values of a key, for statements.
pub(super) fn values(table: &Table, key: &[String]) -> String {
    let columns = table.key().into_iter().map(|at| &table.columns[at]);
    let values =
        columns.zip(key).map(|(column, text)| format!("CAST({} AS {})", literal(text), column.declared));
    values.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::pgoutput::{Cell, Tuple};
    use super::super::row::{Layout, Named};
    use super::*;
    use std::sync::Arc;

    fn row(text: &'static str) -> Row {
        let layout =
            Layout { table: "public.t".into(), index: 0, columns: vec![Named::new("id", 20)], key: vec![0] };
        let cells = vec![Cell::Text(0, text.len() as u32)];
        Row::new(&Arc::new(layout), Tuple { bytes: text.as_bytes().into(), cells }).unwrap()
    }

    #[test]
    fn a_row_that_moves_over_the_last_key_appears_or_disappears() {
        let update = || Change::Update { before: Some(row("1")), after: row("9") };
        assert_eq!(cut(update(), Side::In, Side::In), Some(update()));
        assert_eq!(cut(update(), Side::Out, Side::Out), None);
        assert_eq!(cut(update(), Side::In, Side::Out), Some(Change::Delete(row("1"))));
        assert_eq!(cut(update(), Side::Out, Side::In), Some(Change::Insert(row("9"))));
        assert_eq!(cut(Change::Truncate, Side::Out, Side::Out), None);
        assert_eq!(cut(Change::Insert(row("1")), Side::In, Side::In), Some(Change::Insert(row("1"))));
    }
}
