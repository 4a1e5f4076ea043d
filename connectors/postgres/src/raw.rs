//! JSON that a record brings as it is written (serde_json's `RawValue`): its numbers are never made into doubles, unless a
//! column of doubles holds exactly that number.

use crate::encode::{Refused, Value, limited, refused};
use crate::kind::Kind;
use bytes::{BufMut, BytesMut};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Whether the text is that of a number.
pub(crate) fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// Appends it as it is.
pub(crate) fn whole(kind: &Kind, text: &str, out: &mut BytesMut) -> Result<(), Refused> {
    if *kind == Kind::Jsonb {
        if let Err(why) = check(text) {
            return refused(kind, text, &why);
        }
        out.put_u8(1);
    }
    limited(kind, text.len())?;
    out.put_slice(text.as_bytes());
    Ok(())
}

/// Refuses what jsonb would not take, or would change.
fn check(text: &str) -> Result<(), String> {
    match first(text) {
        '{' => {
            let fields: Entries<'_> = read(text)?;
            fields.0.into_iter().try_for_each(|(name, value)| {
                if name.contains('\0') {
                    return Err("the server's texts have no character 0".to_owned());
                }
                check(value.get())
            })
        }
        '[' => read::<Vec<&RawValue>>(text)?.into_iter().try_for_each(|value| check(value.get())),
        '"' if read::<String>(text)?.contains('\0') => {
            Err("the server's texts have no character 0".to_owned())
        }
        // It keeps numbers as numeric.
        _ if is_number(text) => {
            crate::numeric::encode(text, None, &mut BytesMut::new()).map_err(str::to_owned)
        }
        _ => Ok(()),
    }
}

/// The same as a value, for columns that hold no JSON; a number that is neither whole nor exactly a double stays text.
pub(crate) fn tree(text: &str) -> Result<Value, String> {
    Ok(match first(text) {
        'n' => Value::Null,
        't' => Value::Bool(true),
        'f' => Value::Bool(false),
        '"' => Value::Text(read(text)?),
        '[' => {
            let items = read::<Vec<&RawValue>>(text)?;
            Value::List(items.into_iter().map(|item| tree(item.get())).collect::<Result<_, _>>()?)
        }
        '{' => {
            let fields = read::<Entries<'_>>(text)?.0;
            let field = |(name, value): (String, &RawValue)| Ok((name, tree(value.get())?));
            Value::Map(fields.into_iter().map(field).collect::<Result<_, String>>()?)
        }
        _ => number(text),
    })
}

fn number(text: &str) -> Value {
    if let Ok(whole) = text.parse::<i128>() {
        return Value::Int(whole);
    }
    let digits = |text: &str| {
        let mut bytes = BytesMut::new();
        crate::numeric::encode(text, None, &mut bytes).ok()?;
        // How many digits are shown behind the point is no part of the number.
        bytes.get_mut(6..8)?.fill(0);
        Some(bytes)
    };
    match text.parse::<f64>() {
        Ok(real)
            if real.is_finite() && digits(text).is_some_and(|own| digits(&real.to_string()) == Some(own)) =>
        {
            Value::Float(real)
        }
        _ => Value::Json(text.to_owned()),
    }
}

fn first(text: &str) -> char {
    text.trim_start().chars().next().unwrap_or(' ')
}

fn read<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// The fields of an object, each name once.
struct Entries<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> serde::Deserialize<'de> for Entries<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> serde::de::Visitor<'de> for Each {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if let Some(name) = fields.insert(name.clone(), value).map(|_| name) {
                        let why = format!("two fields `{name}`, of which one would be lost");
                        return Err(serde::de::Error::custom(why));
                    }
                }
                Ok(Entries(fields))
            }
        }
        from.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    fn column(kind: &Kind, text: &str) -> Result<Vec<u8>, String> {
        let mut out = BytesMut::new();
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        encode::value(kind, &crate::field::value(&raw).unwrap(), &mut out).map(|()| out.to_vec())
    }

    #[test]
    fn json_as_it_is_written_goes_into_columns_of_json_without_a_change_to_its_numbers() {
        let text = r#"{"a":[12345678901234567890.10,"x"],"b":null}"#;
        assert_eq!(column(&Kind::Json, text).unwrap(), text.as_bytes());
        assert_eq!(column(&Kind::Jsonb, text).unwrap(), [b"\x01", text.as_bytes()].concat());
        assert_eq!(column(&Kind::Jsonb, "1.50").unwrap(), b"\x011.50");
        for (wrong, why) in [
            (r#"{"a":"\u0000"}"#, "character 0"),
            (r#"[{"a\u0000":1}]"#, "character 0"),
            (r#"{"a":1,"a":2}"#, "two fields `a`"),
            (r#""\ud800""#, "escape"),
            ("1e200001", "exponent"),
            ("-0", "zero"),
        ] {
            let error = column(&Kind::Jsonb, wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
        assert!(column(&Kind::Jsonb, r#""\\u0000""#).is_ok(), "a backslash and five characters");
    }

    #[test]
    fn a_number_as_it_is_written_is_held_exactly_or_refused() {
        let limits = None;
        let plain = |text: &str| {
            let mut out = BytesMut::new();
            encode::value(&Kind::Numeric { limits }, &Value::Text(text.into()), &mut out).unwrap();
            out.to_vec()
        };
        for text in ["12345678901234567890.12345678901", "1.50", "1e3", "-7"] {
            assert_eq!(column(&Kind::Numeric { limits }, text).unwrap(), plain(text), "{text}");
        }
        assert_eq!(column(&Kind::Float8, "0.10").unwrap(), 0.1_f64.to_be_bytes());
        assert_eq!(column(&Kind::Float8, "3").unwrap(), 3_f64.to_be_bytes());
        let error = column(&Kind::Float8, "0.1000000000000000055511151231257827").unwrap_err();
        assert!(error.contains("declare the column as numeric"), "{error}");
        assert_eq!(column(&Kind::Int8, "9007199254740993").unwrap(), 9007199254740993_i64.to_be_bytes());
        assert!(column(&Kind::Int8, "9223372036854775808").is_err());
    }

    #[test]
    fn a_list_as_it_is_written_fills_an_array() {
        let kind = Kind::Array { element: Box::new(Kind::Int4), oid: 23 };
        let mut listed = BytesMut::new();
        encode::value(&kind, &Value::List(vec![Value::Int(1), Value::Null]), &mut listed).unwrap();
        assert_eq!(column(&kind, "[1,null]").unwrap(), listed.to_vec());
        assert!(column(&Kind::Text, "[1]").unwrap_err().contains("jsonb"));
        assert!(column(&Kind::Text, r#"{"a":1}"#).unwrap_err().contains("jsonb"));
        assert_eq!(column(&Kind::Text, r#""a\n""#).unwrap(), b"a\n");
    }
}
