//! A record as columns and values, and the statement that writes it.

use crate::formats::{Exact, Form};
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use staunch_core::{Error, Result};

/// One value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Cell {
    /// No value.
    Null,
    /// A whole number, or a boolean as 0 or 1.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text, or JSON text for a nested value.
    Text(String),
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Integer(number) => ValueRef::Integer(*number),
            Cell::Real(number) => ValueRef::Real(*number),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// One row, as it is staged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Column names, as many as `cells`.
    pub columns: Vec<String>,
    /// Their values.
    pub cells: Vec<Cell>,
}

impl Row {
    pub(super) fn of(record: &impl Serialize) -> Result<Self> {
        let written = std::cell::Cell::new(0);
        let value = serde_json::to_value(Exact::counting(record, Form::Json, &written))
            .map_err(|e| Error::job("a record has no form as a row of a table").caused_by(e))?;
        let Value::Object(fields) = value else {
            return Err(Error::job(format!(
                "a row of a table must be a struct with named fields, not {value}"
            )));
        };
        if written.get() != fields.len() {
            let names = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::job(format!("a record has two fields of one name; its names are {names}")));
        }
        let (mut columns, mut cells) = (Vec::with_capacity(fields.len()), Vec::with_capacity(fields.len()));
        for (column, value) in fields {
            cells.push(cell(&column, value)?);
            columns.push(column);
        }
        Ok(Self { columns, cells })
    }
}

fn cell(column: &str, value: Value) -> Result<Cell> {
    Ok(match value {
        Value::Null => Cell::Null,
        Value::Bool(truth) => Cell::Integer(i64::from(truth)),
        Value::Number(number) => match (number.as_i64(), number.is_f64(), number.as_f64()) {
            (Some(whole), ..) => Cell::Integer(whole),
            (None, true, Some(real)) => Cell::Real(real),
            _ => {
                return Err(Error::job(format!(
                    "column `{column}`: {number} is larger than SQLite's integers"
                )));
            }
        },
        Value::String(text) => Cell::Text(text),
        nested => Cell::Text(nested.to_string()),
    })
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The statement that writes a row with these columns; with `key` it replaces.
pub(super) fn insert(table: &str, columns: &[String], key: &[String]) -> String {
    let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let values = vec!["?"; columns.len()].join(", ");
    let mut statement = format!("INSERT INTO {} ({}) VALUES ({values})", quoted(table), list(columns));
    if !key.is_empty() {
        let is_key = |name: &String| key.iter().any(|k| k.eq_ignore_ascii_case(name));
        let others: Vec<String> = columns
            .iter()
            .filter(|name| !is_key(name))
            .map(|name| format!("{0} = excluded.{0}", quoted(name)))
            .collect();
        let action = if others.is_empty() {
            "DO NOTHING".to_owned()
        } else {
            format!("DO UPDATE SET {}", others.join(", "))
        };
        statement.push_str(&format!(" ON CONFLICT ({}) {action}", list(key)));
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Record {
        id: u64,
        name: Option<&'static str>,
        ratio: f64,
        good: bool,
        tags: Vec<u8>,
    }

    #[test]
    fn a_struct_becomes_columns_and_values() {
        let row = Row::of(&Record { id: 1, name: None, ratio: 0.5, good: true, tags: vec![1, 2] }).unwrap();
        let pairs: Vec<_> = row.columns.iter().map(String::as_str).zip(row.cells).collect();
        for wanted in [
            ("id", Cell::Integer(1)),
            ("name", Cell::Null),
            ("ratio", Cell::Real(0.5)),
            ("good", Cell::Integer(1)),
            ("tags", Cell::Text("[1,2]".into())),
        ] {
            assert!(pairs.contains(&wanted), "{wanted:?} in {pairs:?}");
        }
    }

    #[test]
    fn records_that_are_no_rows_are_mistakes_of_the_job() {
        assert!(Row::of(&7).unwrap_err().to_string().contains("struct"));
        let big = Record { id: u64::MAX, name: None, ratio: 0.0, good: false, tags: vec![] };
        assert!(Row::of(&big).unwrap_err().to_string().contains("column `id`"));
    }

    #[test]
    fn what_json_would_write_as_null_is_refused() {
        let record = |ratio| Record { id: 1, name: None, ratio, good: true, tags: vec![] };
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let why = Row::of(&record(number)).unwrap_err();
            assert_eq!(why.kind(), staunch_core::error::Kind::Job);
            assert!(why.to_string().contains("would be written as null"), "{why}");
            assert!(Row::of(&std::collections::BTreeMap::from([("nested", vec![number])])).is_err());
        }
    }

    #[test]
    fn two_fields_of_one_name_are_refused() {
        #[derive(Serialize)]
        struct Twice {
            a: u8,
            #[serde(flatten)]
            more: std::collections::BTreeMap<&'static str, u8>,
        }
        let row = |name| Row::of(&Twice { a: 1, more: [(name, 2)].into() });
        assert_eq!(row("b").unwrap().columns, ["a", "b"]);
        assert!(row("a").unwrap_err().to_string().contains("two fields of one name"));
    }

    #[test]
    fn statements_quote_names() {
        let columns = ["a".to_owned(), "b\"".to_owned()];
        assert_eq!(insert("t x", &columns, &[]), "INSERT INTO \"t x\" (\"a\", \"b\"\"\") VALUES (?, ?)");
        let upsert = insert("t", &columns, &["A".to_owned()]);
        assert!(
            upsert.ends_with(" ON CONFLICT (\"A\") DO UPDATE SET \"b\"\"\" = excluded.\"b\"\"\""),
            "{upsert}"
        );
        assert!(insert("t", &columns[..1], &["a".to_owned()]).ends_with("(\"a\") DO NOTHING"));
    }
}
