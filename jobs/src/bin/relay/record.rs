//! What moves: a record, made by the source into just what the sink takes.
//!
//! Promises that a number is never another one afterwards, that no field gets lost, and that what does not fit is said
//! before anything of it is written: the source then treats it as bad input. Knows no connector.

use crate::json::{self, Json};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use staunch::core::source::base64;
use staunch::prelude::{DeadLetter, Error, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a source has in its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    Json,
    /// Bytes of any kind.
    Raw,
}

/// What a sink takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Bytes, whatever they are.
    Bytes,
    /// JSON.
    Json,
    /// The fields of an object, for columns that keep numbers as they are written.
    Columns,
    /// The same for SQLite, which knows whole numbers of 64 bits, doubles and texts.
    SqliteColumns,
    /// The same as texts.
    Csv,
}

/// What a sink asks of every record.
#[derive(Clone, Debug)]
pub struct Needs {
    pub shape: Shape,
    /// Fields that must have a value, since they tell records apart.
    pub key: Vec<String>,
    /// The key of a message is made of those.
    pub message_key: bool,
    /// All fields that there may be, in their order; empty if any may be.
    pub fields: Vec<String>,
    /// It takes records without a value.
    pub tombstones: bool,
}

impl Needs {
    pub fn new(shape: Shape) -> Self {
        Self { shape, key: Vec::new(), message_key: false, fields: Vec::new(), tombstones: false }
    }

    pub fn keyed(self, key: Vec<String>) -> Self {
        Self { key, ..self }
    }
}

/// What came with a value.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Beside {
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

/// A record on its way.
#[derive(Debug)]
pub struct Moved {
    pub body: Body,
    pub beside: Beside,
}

/// What the sink gets.
#[derive(Debug)]
pub enum Body {
    Bytes(Vec<u8>),
    Json(Box<RawValue>),
    Row(Row),
    /// What has this key is gone.
    Gone,
}

impl Moved {
    /// Its JSON, for a sink that asked for it.
    pub fn into_json(self) -> Box<RawValue> {
        let Body::Json(json) = self.body else { panic!("a sink that takes JSON got something else") };
        json
    }

    /// Its fields, for a sink that asked for them.
    pub fn into_row(self) -> Row {
        let Body::Row(row) = self.body else { panic!("a sink that takes fields got something else") };
        row
    }

    /// Its bytes, for a sink that asked for them; none if it has no value.
    pub fn into_bytes(self) -> (Option<Vec<u8>>, Beside) {
        match self.body {
            Body::Bytes(bytes) => (Some(bytes), self.beside),
            Body::Gone => (None, self.beside),
            Body::Json(_) | Body::Row(_) => panic!("a sink that takes bytes got something else"),
        }
    }
}

/// A record as fields: for a table.
#[derive(Debug, Default)]
pub struct Row(pub Vec<(String, Cell)>);

/// One field.
#[derive(Debug)]
pub enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Real(f64),
    Text(String),
    /// As it is written.
    Json(Box<RawValue>),
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, cell)| map.serialize_entry(name, cell))?;
        map.end()
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Null => to.serialize_none(),
            Cell::Bool(truth) => to.serialize_bool(*truth),
            Cell::Int(number) => to.serialize_i64(*number),
            Cell::Real(number) => to.serialize_f64(*number),
            Cell::Text(text) => to.serialize_str(text),
            Cell::Json(json) => json.serialize(to),
        }
    }
}

/// Makes records for a sink of what a source reads.
#[derive(Clone, Debug)]
pub struct Prepare {
    content: Content,
    needs: Arc<Needs>,
}

impl Prepare {
    /// From this content.
    ///
    /// # Errors
    /// The sink takes no such content.
    pub fn new(content: Content, needs: &Needs) -> Result<Self> {
        let wants_json = needs.shape != Shape::Bytes || !needs.key.is_empty();
        if content == Content::Raw && wants_json {
            return Err(Error::job(
                "the sink takes JSON, and the source gives bytes of any kind: give the source format=json (or csv), or the \
                 sink format=raw and no key",
            ));
        }
        Ok(Self { content, needs: Arc::new(needs.clone()) })
    }

    /// A record of a value.
    ///
    /// # Errors
    /// What is wrong with it, or why the sink could not take it.
    pub fn record(&self, value: &[u8], mut beside: Beside) -> Result<Moved, String> {
        let needs = &*self.needs;
        if self.content == Content::Raw {
            return Ok(Moved { body: Body::Bytes(value.to_vec()), beside });
        }
        let json = Json::read(value)?;
        if let Some(missing) =
            needs.key.iter().find(|name| json.field(name).is_none_or(|value| value == "null"))
        {
            return Err(format!("field `{missing}`, which is of the key, has no value"));
        }
        if needs.message_key && !needs.key.is_empty() {
            beside.key = Some(message_key(&json, &needs.key));
        }
        let body = match needs.shape {
            Shape::Bytes => Body::Bytes(json.text.into_bytes()),
            Shape::Json => Body::Json(raw(json.text)?),
            Shape::Columns | Shape::SqliteColumns | Shape::Csv => Body::Row(self.row(&json)?),
        };
        Ok(Moved { body, beside })
    }

    /// A record without a value.
    ///
    /// # Errors
    /// The sink takes none.
    pub fn tombstone(&self, beside: Beside) -> Result<Moved, String> {
        if !self.needs.tombstones || self.needs.message_key {
            return Err("it has no value (a tombstone), and the sink has no record for it".to_owned());
        }
        Ok(Moved { body: Body::Gone, beside })
    }

    fn row(&self, json: &Json) -> Result<Row, String> {
        let fields = json.fields().ok_or("it is no object, and has no fields for columns")?;
        let (mut row, mut seen) = (Row::default(), BTreeSet::new());
        for (name, value) in fields {
            if !seen.insert(name) {
                return Err(format!("two fields `{name}`, of which one would be lost"));
            }
            if !self.needs.fields.is_empty() && !self.needs.fields.iter().any(|field| field == name) {
                return Err(format!("field `{name}` is none of the columns, and would be lost"));
            }
            let made = cell(self.needs.shape, value).map_err(|why| format!("field `{name}`: {why}"))?;
            row.0.push((name.to_owned(), made));
        }
        if self.needs.shape == Shape::Csv {
            let mut given = row.0;
            let mut take = |name: &String| {
                let at = given.iter().position(|(other, _)| other == name);
                (name.clone(), at.map_or(Cell::Null, |at| given.swap_remove(at).1))
            };
            row = Row(self.needs.fields.iter().map(&mut take).collect());
        }
        Ok(row)
    }
}

fn raw(text: String) -> Result<Box<RawValue>, String> {
    RawValue::from_string(text).map_err(|e| e.to_string())
}

fn cell(shape: Shape, value: &str) -> Result<Cell, String> {
    let text = || json::string(value).ok_or_else(|| "it is no text".to_owned());
    Ok(match (value.as_bytes().first(), shape) {
        (Some(b'n'), _) => Cell::Null,
        (Some(b'"'), Shape::Csv) if value == "\"\"" => {
            return Err("an empty text looks like no value in CSV; write JSON".to_owned());
        }
        (Some(b'"'), _) => Cell::Text(text()?),
        (_, Shape::Csv) => Cell::Text(value.to_owned()),
        (Some(b't'), _) => Cell::Bool(true),
        (Some(b'f'), _) => Cell::Bool(false),
        (_, Shape::Columns) => Cell::Json(raw(value.to_owned())?),
        (Some(b'{' | b'['), _) => Cell::Text(value.to_owned()),
        _ => match (value.parse::<i64>(), value.parse::<f64>()) {
            (Ok(whole), _) => Cell::Int(whole),
            (_, Ok(real)) if is_same(value, &real.to_string()) => Cell::Real(real),
            // A column of text holds it exactly, and one of numbers refuses it.
            _ => Cell::Text(value.to_owned()),
        },
    })
}

/// Whether two decimal numbers are the same.
fn is_same(one: &str, other: &str) -> bool {
    /// Sign, digits without zeros around them, and the power of ten of the last one; none for what has no such form.
    fn parts(text: &str) -> Option<(bool, String, i64)> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (number, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let power = power.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let short = digits.trim_end_matches('0');
        let power = power.checked_add(i64::try_from(digits.len() - short.len()).ok()?)?;
        let short = short.trim_start_matches('0').to_owned();
        Some(if short.is_empty() { (negative, short, 0) } else { (negative, short, power) })
    }
    parts(one).is_some_and(|one| parts(other) == Some(one))
}

/// One field as it is if it is a text, else its JSON; several as an object.
fn message_key(json: &Json, key: &[String]) -> Vec<u8> {
    let value = |name: &String| json.field(name).unwrap_or("null");
    if let [name] = key {
        let text = value(name);
        return json::string(text).unwrap_or_else(|| text.to_owned()).into_bytes();
    }
    let fields = key.iter().map(|name| format!("{}:{}", json::quoted(name), value(name)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(",")).into_bytes()
}

/// A dead letter, as the JSON of a record.
pub fn letter_json(source: &str, letter: &DeadLetter) -> String {
    // Databases refuse it in a text, and a letter must not stop the job.
    let (raw, base) = match letter.raw.contains('\0') {
        true => {
            let exact = letter.raw_base64.clone().unwrap_or_else(|| base64(letter.raw.as_bytes()));
            (letter.raw.replace('\0', "\u{fffd}"), Some(exact))
        }
        false => (letter.raw.clone(), letter.raw_base64.clone()),
    };
    let quoted = |text: &str| json::quoted(&text.replace('\0', "\u{fffd}"));
    let fields = [
        ("source", quoted(source)),
        ("place", quoted(&letter.place)),
        ("reason", quoted(&letter.reason)),
        ("raw", quoted(&raw)),
        ("raw_base64", base.map_or("null".to_owned(), |base| json::quoted(&base))),
        ("cut", letter.cut.to_string()),
        (
            "beside",
            letter.beside.as_ref().map_or("null".to_owned(), |json| json.replace("\\u0000", "\\ufffd")),
        ),
    ];
    let fields = fields.map(|(name, value)| format!("\"{name}\":{value}"));
    format!("{{{}}}", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare(needs: Needs) -> Prepare {
        Prepare::new(Content::Json, &needs).unwrap()
    }

    fn made(needs: Needs, value: &str) -> Result<Moved, String> {
        prepare(needs).record(value.as_bytes(), Beside::default())
    }

    fn bytes(needs: Needs, value: &str) -> (String, Option<String>) {
        let (bytes, beside) = made(needs, value).unwrap().into_bytes();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(bytes.unwrap()), beside.key.map(text))
    }

    fn row(shape: Shape, value: &str) -> String {
        format!("{:?}", made(Needs::new(shape), value).unwrap().into_row().0)
    }

    #[test]
    fn the_key_of_a_message_is_made_of_fields_of_the_record() {
        let needs = |key: &[&str]| Needs {
            message_key: true,
            ..Needs::new(Shape::Bytes).keyed(key.iter().map(|name| (*name).to_owned()).collect())
        };
        let value = r#"{"id":"a\"b","n":12345678901234567890.5,"z":null}"#;
        assert_eq!(bytes(needs(&["id"]), value).1.unwrap(), "a\"b");
        assert_eq!(bytes(needs(&["n"]), value).1.unwrap(), "12345678901234567890.5");
        assert_eq!(
            bytes(needs(&["n", "id"]), value).1.unwrap(),
            r#"{"n":12345678901234567890.5,"id":"a\"b"}"#
        );
        assert_eq!(bytes(needs(&[]), value), (value.to_owned(), None));
        for missing in ["z", "y"] {
            let why = made(needs(&[missing]), value).unwrap_err();
            assert!(why.contains(&format!("field `{missing}`")), "{why}");
        }
    }

    #[test]
    fn for_sqlite_a_number_is_an_integer_or_exactly_a_double_and_otherwise_a_text() {
        let shape = Shape::SqliteColumns;
        for (value, cell) in [
            ("9007199254740993", "Int(9007199254740993)"),
            ("-9223372036854775808", "Int(-9223372036854775808)"),
            ("9223372036854775808", "Text(\"9223372036854775808\")"),
            ("9223372036854775809", "Text(\"9223372036854775809\")"),
            ("0.10", "Real(0.1)"),
            ("1e3", "Real(1000.0)"),
            ("1e400", "Text(\"1e400\")"),
            ("12345678901234567890.1", "Text(\"12345678901234567890.1\")"),
            ("[1, 2.50]", "Text(\"[1,2.50]\")"),
            ("true", "Bool(true)"),
            ("null", "Null"),
            ("\"1\"", "Text(\"1\")"),
        ] {
            assert_eq!(row(shape, &format!("{{\"a\":{value}}}")), format!("[(\"a\", {cell})]"), "{value}");
        }
    }

    #[test]
    fn nothing_of_a_record_gets_lost_in_columns() {
        assert!(made(Needs::new(Shape::Columns), "[1]").unwrap_err().contains("no object"));
        assert!(
            made(Needs::new(Shape::Columns), r#"{"a":1,"\u0061":2}"#).unwrap_err().contains("two fields `a`")
        );
        let csv = Needs { fields: vec!["b".into(), "a".into()], ..Needs::new(Shape::Csv) };
        let row = made(csv.clone(), r#"{"a":1.50}"#).unwrap().into_row();
        assert_eq!(format!("{:?}", row.0), "[(\"b\", Null), (\"a\", Text(\"1.50\"))]");
        assert!(made(csv.clone(), r#"{"c":1}"#).unwrap_err().contains("would be lost"));
        assert!(made(csv, r#"{"a":""}"#).unwrap_err().contains("empty text"));
    }

    #[test]
    fn a_sink_of_json_does_not_take_bytes_of_any_kind() {
        let needs = Needs::new(Shape::Json);
        assert!(Prepare::new(Content::Raw, &needs).unwrap_err().to_string().contains("format=json"));
        let raw = Prepare::new(Content::Raw, &Needs::new(Shape::Bytes)).unwrap();
        let (value, _) = raw.record(b"\xff\0", Beside::default()).unwrap().into_bytes();
        assert_eq!(value.unwrap(), b"\xff\0");
        assert!(raw.tombstone(Beside::default()).unwrap_err().contains("tombstone"));
    }

    #[test]
    fn a_dead_letter_has_the_exact_bytes_and_nothing_that_a_database_refuses() {
        let letter = DeadLetter::whole("topic t", "bad\0", b"a\0b");
        let text = letter_json("kafka://b/t", &letter);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["raw_base64"], "YQBi");
        assert!(!text.contains("\\u0000"), "{text}");
        assert_eq!(value["source"], "kafka://b/t");
        let plain: serde_json::Value =
            serde_json::from_str(&letter_json("s", &DeadLetter::new("p", "r", b"x"))).unwrap();
        assert_eq!((&plain["raw"], &plain["raw_base64"]), (&"x".into(), &serde_json::Value::Null));
    }
}
