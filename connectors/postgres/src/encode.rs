//! Values in the server's binary form, held exactly or refused with a reason.
//!
//! Knows the types of columns and what each can hold; knows nothing of tables, connections or serde.

use crate::kind::Kind;
use crate::numeric;
use crate::times;
use bytes::{BufMut, BytesMut};
use serde_json::Value as Json;

/// Characters of a value that an error shows.
const MOST_SHOWN: usize = 60;
/// Bytes that one value may have: the server takes no more than 1 GB, its own overhead included.
const MOST_BYTES: usize = (1 << 30) - (1 << 20);

/// A value of a record, when it is more than a number or a text.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    /// Above all of `i128`.
    Large(u128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
    /// JSON as it is written: serde_json's `RawValue`.
    Json(String),
}

/// Why a value cannot be held; a whole clause.
pub(crate) type Refused = String;

pub(crate) fn refused<T>(kind: &Kind, value: impl std::fmt::Display, why: &str) -> Result<T, Refused> {
    let text = value.to_string();
    let shown: String = text.chars().take(MOST_SHOWN).collect();
    let more = if shown.len() < text.len() { " and so on" } else { "" };
    Err(format!("{} cannot hold {shown}{more}: {why}", kind.name()))
}

/// Appends a value that is not NULL: its bytes without a length.
pub(crate) fn value(kind: &Kind, value: &Value, out: &mut BytesMut) -> Result<(), Refused> {
    match (kind, value) {
        (Kind::Json | Kind::Jsonb, Value::Json(text)) => crate::raw::whole(kind, text, out),
        (Kind::Json | Kind::Jsonb, _) => json(kind, value, out),
        (Kind::Numeric { .. }, Value::Json(text)) if crate::raw::is_number(text) => decimal(kind, text, out),
        (_, Value::Json(text)) => match crate::raw::tree(text) {
            Ok(Value::Json(number)) => {
                refused(kind, number, "a double is not exactly that; declare the column as numeric")
            }
            Ok(tree) => self::value(kind, &tree, out),
            Err(why) => refused(kind, text, &why),
        },
        (Kind::Array { .. }, Value::List(_)) => array(kind, value, out),
        (_, Value::Null) => refused(kind, "nothing", "an element of that kind must have a value"),
        (_, Value::Bool(truth)) => boolean(kind, *truth, out),
        (_, Value::Int(number)) => whole(kind, *number, out),
        (Kind::Numeric { .. }, Value::Large(number)) => decimal(kind, &number.to_string(), out),
        (_, Value::Large(number)) => refused(kind, number, "it is too large"),
        (_, Value::Float(number)) => float(kind, *number, out),
        (_, Value::Text(text)) => self::text(kind, text, out),
        (_, Value::Bytes(bytes)) => self::bytes(kind, bytes, out),
        (Kind::Bytea | Kind::Uuid, Value::List(list)) => {
            let byte = |value: &Value| match value {
                Value::Int(number) => u8::try_from(*number).ok(),
                _ => None,
            };
            match list.iter().map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) => self::bytes(kind, &bytes, out),
                None => refused(kind, "a list", "only lists of bytes fit there"),
            }
        }
        (_, Value::List(_)) => refused(kind, "a list", "declare the column as an array or as jsonb"),
        (_, Value::Map(_)) => refused(kind, "a struct or map", "declare the column as jsonb"),
    }
}

pub(crate) fn boolean(kind: &Kind, truth: bool, out: &mut BytesMut) -> Result<(), Refused> {
    match kind {
        Kind::Bool => out.put_u8(u8::from(truth)),
        Kind::Json | Kind::Jsonb => return json(kind, &Value::Bool(truth), out),
        _ => return refused(kind, truth, "declare the column as boolean"),
    }
    Ok(())
}

pub(crate) fn whole(kind: &Kind, number: i128, out: &mut BytesMut) -> Result<(), Refused> {
    let range = |low: i128, high: i128| format!("its range is {low} to {high}");
    match kind {
        Kind::Int2 => match i16::try_from(number) {
            Ok(number) => out.put_i16(number),
            Err(_) => return refused(kind, number, &range(i16::MIN.into(), i16::MAX.into())),
        },
        Kind::Int4 => match i32::try_from(number) {
            Ok(number) => out.put_i32(number),
            Err(_) => return refused(kind, number, &range(i32::MIN.into(), i32::MAX.into())),
        },
        Kind::Int8 => match i64::try_from(number) {
            Ok(number) => out.put_i64(number),
            Err(_) => return refused(kind, number, &range(i64::MIN.into(), i64::MAX.into())),
        },
        Kind::Float4 if (number as f32) as i128 == number => out.put_f32(number as f32),
        Kind::Float8 if (number as f64) as i128 == number => out.put_f64(number as f64),
        Kind::Float4 | Kind::Float8 => return refused(kind, number, "it would be rounded"),
        Kind::Numeric { .. } => return decimal(kind, &number.to_string(), out),
        Kind::TimestampTz(_) => return times::milliseconds(kind, number, out),
        Kind::Json | Kind::Jsonb => return json(kind, &Value::Int(number), out),
        _ => return refused(kind, number, "it is a whole number"),
    }
    Ok(())
}

pub(crate) fn float(kind: &Kind, number: f64, out: &mut BytesMut) -> Result<(), Refused> {
    match kind {
        Kind::Float8 => out.put_f64(number),
        Kind::Float4 if number.is_nan() || f64::from(number as f32) == number => out.put_f32(number as f32),
        Kind::Float4 => {
            return refused(kind, number, "it would be rounded; declare the column as double precision");
        }
        Kind::Numeric { .. } if !number.is_finite() || is_negative_zero(number) => {
            return refused(kind, format!("{number:?}"), "a decimal number has no such value");
        }
        Kind::Numeric { .. } => return decimal(kind, &number.to_string(), out),
        Kind::Json | Kind::Jsonb => return json(kind, &Value::Float(number), out),
        _ => return refused(kind, number, "it is a floating-point number"),
    }
    Ok(())
}

fn is_negative_zero(number: f64) -> bool {
    number == 0.0 && number.is_sign_negative()
}

pub(crate) fn text(kind: &Kind, text: &str, out: &mut BytesMut) -> Result<(), Refused> {
    match kind {
        Kind::Text => {}
        Kind::Varchar(most) => {
            if most.is_some_and(|most| text.chars().count() > most) {
                return refused(kind, format!("{text:?}"), "it is too long");
            }
        }
        Kind::Char(length) => {
            if text.chars().count() != *length {
                let why = "such columns hold texts of exactly their length; declare the column as text";
                return refused(kind, format!("{text:?}"), why);
            }
        }
        Kind::Enum(labels) => {
            if !labels.iter().any(|label| label == text) {
                return refused(kind, format!("{text:?}"), &format!("its values are {}", labels.join(", ")));
            }
        }
        Kind::Numeric { .. } => return decimal(kind, text, out),
        Kind::Uuid => return uuid(kind, text, out),
        Kind::Date | Kind::Time(_) | Kind::Timestamp(_) | Kind::TimestampTz(_) => {
            return times::text(kind, text, out);
        }
        Kind::Json | Kind::Jsonb => return json(kind, &Value::Text(text.to_owned()), out),
        _ => return refused(kind, format!("{text:?}"), "it is a text"),
    }
    if text.contains('\0') {
        return refused(kind, format!("{text:?}"), "the server's texts have no character 0");
    }
    limited(kind, text.len())?;
    out.put_slice(text.as_bytes());
    Ok(())
}

pub(crate) fn bytes(kind: &Kind, bytes: &[u8], out: &mut BytesMut) -> Result<(), Refused> {
    match kind {
        Kind::Bytea => limited(kind, bytes.len())?,
        Kind::Uuid if bytes.len() == 16 => {}
        _ => return refused(kind, format!("{} bytes", bytes.len()), "declare the column as bytea"),
    }
    out.put_slice(bytes);
    Ok(())
}

pub(crate) fn limited(kind: &Kind, bytes: usize) -> Result<(), Refused> {
    if bytes > MOST_BYTES {
        return refused(kind, format!("{bytes} bytes"), "it is larger than the server takes");
    }
    Ok(())
}

fn decimal(kind: &Kind, text: &str, out: &mut BytesMut) -> Result<(), Refused> {
    let Kind::Numeric { limits } = kind else { return refused(kind, text, "it is a number") };
    match numeric::encode(text, *limits, out) {
        Ok(()) => Ok(()),
        Err(why) => refused(kind, text, why),
    }
}

fn uuid(kind: &Kind, text: &str, out: &mut BytesMut) -> Result<(), Refused> {
    let hyphens = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let whole = text.len() == 32 || hyphens;
    let digits = std::str::from_utf8(&digits).ok().filter(|digits| whole && digits.len() == 32);
    // No sign: the parser of numbers would take one.
    match digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).map(|d| u128::from_str_radix(d, 16)) {
        Some(Ok(number)) => out.put_u128(number),
        _ => return refused(kind, format!("{text:?}"), "it is no UUID"),
    }
    Ok(())
}

fn json(kind: &Kind, value: &Value, out: &mut BytesMut) -> Result<(), Refused> {
    let tree = match json_tree(kind, value) {
        Ok(tree) => tree,
        Err((what, why)) => return refused(kind, what, why),
    };
    if *kind == Kind::Jsonb {
        out.put_u8(1);
    }
    let text = tree.to_string();
    limited(kind, text.len())?;
    out.put_slice(text.as_bytes());
    Ok(())
}

fn json_tree(kind: &Kind, value: &Value) -> Result<Json, (String, &'static str)> {
    let exact = *kind == Kind::Jsonb;
    let refuse = |what: String, why: &'static str| Err((what, why));
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => return refuse(number.to_string(), "a number in JSON has 64 bits here; use a text"),
        },
        Value::Large(number) => {
            return refuse(number.to_string(), "a number in JSON has 64 bits here; use a text");
        }
        Value::Float(number) if exact && is_negative_zero(*number) => {
            return refuse("-0.0".to_owned(), "jsonb would make 0 of it");
        }
        Value::Float(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => Json::Number(number),
            None => return refuse(number.to_string(), "JSON has no such number; use an Option"),
        },
        Value::Text(text) if exact && text.contains('\0') => {
            return refuse(format!("{text:?}"), "the server's texts have no character 0");
        }
        Value::Text(text) => Json::String(text.clone()),
        Value::Json(text) => return refuse(text.clone(), "JSON as it is written must be the whole column"),
        Value::Bytes(bytes) => bytes.iter().map(|byte| Json::from(*byte)).collect(),
        Value::List(list) => list.iter().map(|value| json_tree(kind, value)).collect::<Result<_, _>>()?,
        Value::Map(fields) => {
            let mut map = serde_json::Map::new();
            for (name, value) in fields {
                if exact && name.contains('\0') {
                    return refuse(format!("{name:?}"), "the server's texts have no character 0");
                }
                if map.insert(name.clone(), json_tree(kind, value)?).is_some() {
                    return refuse(format!("two fields `{name}`"), "one of them would be lost");
                }
            }
            Json::Object(map)
        }
    })
}

/// An array: of one dimension, or of several of equal lengths.
fn array(kind: &Kind, value: &Value, out: &mut BytesMut) -> Result<(), Refused> {
    let Kind::Array { element, oid } = kind else { return refused(kind, "a list", "it is no array") };
    let is_nested = !matches!(**element, Kind::Json | Kind::Jsonb | Kind::Bytea | Kind::Uuid);
    let mut lengths = Vec::new();
    let mut first = value;
    while let Value::List(list) = first {
        if !lengths.is_empty() && !is_nested {
            break;
        }
        lengths.push(list.len());
        match list.first() {
            Some(next) => first = next,
            None => break,
        }
    }
    if lengths.contains(&0) {
        if lengths.len() > 1 {
            return refused(kind, "a list of empty lists", "the server has no such array");
        }
        out.put_i32(0);
        out.put_i32(0);
        out.put_u32(*oid);
        return Ok(());
    }
    let start = out.len();
    out.put_i32(i32::try_from(lengths.len()).unwrap_or(i32::MAX));
    out.put_i32(0);
    out.put_u32(*oid);
    for length in &lengths {
        out.put_i32(
            i32::try_from(*length).map_err(|_| format!("{} cannot hold a list of {length}", kind.name()))?,
        );
        out.put_i32(1);
    }
    let mut has_null = false;
    elements(kind, element, value, &lengths, &mut has_null, out)?;
    out[start + 7] = u8::from(has_null);
    limited(kind, out.len() - start)
}

fn elements(
    kind: &Kind,
    element: &Kind,
    value: &Value,
    lengths: &[usize],
    has_null: &mut bool,
    out: &mut BytesMut,
) -> Result<(), Refused> {
    let (Value::List(list), Some((length, inner))) = (value, lengths.split_first()) else {
        return refused(kind, "lists of several depths", "an array is a block");
    };
    if list.len() != *length {
        return refused(kind, "lists of several lengths", "an array is a block");
    }
    for item in list {
        if !inner.is_empty() {
            elements(kind, element, item, inner, has_null, out)?;
        } else if *item == Value::Null {
            *has_null = true;
            out.put_i32(-1);
        } else {
            with_length(out, |out| self::value(element, item, out))?;
        }
    }
    Ok(())
}

/// Appends what `work` appends, its length first.
pub(crate) fn with_length<E>(
    out: &mut BytesMut,
    work: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.put_i32(0);
    work(out)?;
    let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
