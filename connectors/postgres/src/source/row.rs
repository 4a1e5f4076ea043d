//! A row as it was in the log: cells of text, and the columns that they are of.

use super::form::{Form, form};
use super::pgoutput::{Cell, Old, Tuple};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;
use std::sync::Arc;

/// The columns of a table, as rows know them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Schema and name of the table.
    pub table: Arc<str>,
    /// Place of the table in the list of tables.
    pub index: usize,
    pub columns: Vec<Named>,
    /// Places of the columns of the key, in the order of the key.
    pub key: Vec<usize>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named {
    pub name: String,
    pub form: Form,
}

impl Named {
    pub fn new(name: &str, oid: u32) -> Self {
        Self { name: name.to_owned(), form: form(oid) }
    }
}

/// One value of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field<'a> {
    /// NULL.
    Null,
    /// A large value that the change left as it was, and that the server did not send. With REPLICA IDENTITY FULL it does.
    Unchanged,
    /// Of a row that is gone, or of what a row was before, the server sends only the key. With REPLICA IDENTITY FULL it sends
    /// all of it.
    NotSent,
    /// The value, as the server writes it.
    Text(&'a str),
}

/// A row, as the server sent it.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    pub(super) layout: Arc<Layout>,
    pub(super) tuple: Tuple,
}

impl Row {
    /// A row with all its values. `None` if they are not as many as the columns.
    pub(super) fn new(layout: &Arc<Layout>, tuple: Tuple) -> Option<Self> {
        (tuple.cells.len() == layout.columns.len()).then(|| Self { layout: Arc::clone(layout), tuple })
    }

    /// What a row was. If only its key was sent, the rest is not NULL, as it seems in the log, but not sent.
    pub(super) fn old(layout: &Arc<Layout>, old: Old) -> Option<Self> {
        let mut row = Self::new(layout, old.tuple)?;
        if !old.whole {
            for (at, cell) in row.tuple.cells.iter_mut().enumerate() {
                if !layout.key.contains(&at) {
                    *cell = Cell::NotSent;
                }
            }
        }
        Some(row)
    }

    /// Takes what was not changed from what the row was before, if that is known.
    pub(super) fn fill(&mut self, before: &Self) {
        let Self { tuple, .. } = self;
        let mut more = None;
        for (cell, was) in tuple.cells.iter_mut().zip(&before.tuple.cells) {
            if *cell != Cell::Unchanged {
                continue;
            }
            let text = match was {
                Cell::Null => {
                    *cell = Cell::Null;
                    continue;
                }
                Cell::Text(from, to) => &before.tuple.bytes[*from as usize..*to as usize],
                Cell::Unchanged | Cell::NotSent => continue,
            };
            let bytes = more.get_or_insert_with(|| tuple.bytes.to_vec());
            let from = bytes.len();
            bytes.extend_from_slice(text);
            if let (Ok(from), Ok(to)) = (u32::try_from(from), u32::try_from(bytes.len())) {
                *cell = Cell::Text(from, to);
            }
        }
        if let Some(bytes) = more {
            tuple.bytes = bytes.into();
        }
    }

    pub(super) fn cell(&self, at: usize) -> Field<'_> {
        match self.tuple.cells.get(at) {
            Some(Cell::Null) => Field::Null,
            Some(Cell::Unchanged) => Field::Unchanged,
            Some(Cell::NotSent) | None => Field::NotSent,
            // Texts are looked at when they are read.
            Some(Cell::Text(from, to)) => {
                match std::str::from_utf8(&self.tuple.bytes[*from as usize..*to as usize]) {
                    Ok(text) => Field::Text(text),
                    Err(_) => Field::NotSent,
                }
            }
        }
    }

    /// The texts of the key; `None` if one was not sent.
    pub(super) fn key(&self) -> Option<Vec<String>> {
        let texts = self.layout.key.iter().map(|at| match self.cell(*at) {
            Field::Text(text) => Some(text.to_owned()),
            _ => None,
        });
        texts.collect()
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        self.tuple.bytes.len() + self.tuple.cells.len() * size_of::<Cell>() + size_of::<Self>()
    }

    /// The table, as `schema.name`.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.layout.table
    }

    /// The value of a column; `None` if the table has no such column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<Field<'_>> {
        let at = self.layout.columns.iter().position(|known| known.name == column)?;
        Some(self.cell(at))
    }

    /// All columns with their values, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Field<'_>)> {
        let named = self.layout.columns.iter().enumerate();
        named.map(|(at, column)| (column.name.as_str(), self.cell(at)))
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.table())?;
        f.debug_map().entries(self.fields()).finish()
    }
}

/// As an object: numbers, truth values and JSON as such, else text; what was not sent is left out.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (at, column) in self.layout.columns.iter().enumerate() {
            match self.cell(at) {
                Field::Null => map.serialize_entry(&column.name, &())?,
                Field::Unchanged | Field::NotSent => {}
                Field::Text(text) => map.serialize_entry(&column.name, &column.form.plain(text))?,
            }
        }
        map.end()
    }
}
