//! What the text of a value means, by the number of its type.

use serde_json::Value;
use std::borrow::Cow;

/// What a text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Bool,
    Whole,
    Float,
    Bytes,
    Json,
    /// With its zone, which is always UTC here.
    Moment,
    /// Date and time without a zone.
    DateTime,
    /// Of values of that type.
    List(u32),
    Text,
}

/// The form of a type; what is not known is text.
pub(super) fn form(oid: u32) -> Form {
    match oid {
        16 => Form::Bool,
        17 => Form::Bytes,
        20 | 21 | 23 | 26 => Form::Whole,
        700 | 701 => Form::Float,
        114 | 3802 => Form::Json,
        1114 => Form::DateTime,
        1184 => Form::Moment,
        1000 => Form::List(16),
        1001 => Form::List(17),
        1005 => Form::List(21),
        1007 => Form::List(23),
        1016 => Form::List(20),
        1009 | 1015 | 1014 | 1231 | 2951 | 1182 | 1183 => Form::List(25),
        1021 => Form::List(700),
        1022 => Form::List(701),
        199 | 3807 => Form::List(3802),
        1115 => Form::List(1114),
        1185 => Form::List(1184),
        _ => Form::Text,
    }
}

impl Form {
    /// The text, as ISO 8601 has it if it is a time.
    pub fn text(self, text: &str) -> Cow<'_, str> {
        let is_time = matches!(self, Self::Moment | Self::DateTime)
            && text.as_bytes().get(10) == Some(&b' ')
            && text.is_ascii()
            && !text.ends_with("BC");
        if !is_time {
            return Cow::Borrowed(text);
        }
        let iso = text.replacen(' ', "T", 1);
        Cow::Owned(match iso.strip_suffix("+00") {
            Some(utc) if self == Self::Moment => format!("{utc}Z"),
            _ => iso,
        })
    }

    /// As JSON has it.
    pub fn plain(self, text: &str) -> Value {
        let as_text = || Value::String(self.text(text).into_owned());
        match self {
            Self::Bool => Value::Bool(text == "t"),
            Self::Whole | Self::Float => text.parse().map_or_else(|_| as_text(), Value::Number),
            Self::Json => serde_json::from_str(text).unwrap_or_else(|_| as_text()),
            Self::List(of) => match list(text) {
                Ok(items) => Value::Array(items.into_iter().map(|item| nested(&item, form(of))).collect()),
                Err(_) => as_text(),
            },
            Self::Bytes | Self::Moment | Self::DateTime | Self::Text => as_text(),
        }
    }
}

fn nested(item: &Item, of: Form) -> Value {
    match item {
        Item::Null => Value::Null,
        Item::Text(text) => of.plain(text),
        Item::List(items) => Value::Array(items.iter().map(|item| nested(item, of)).collect()),
    }
}

/// Bytes as the server writes them: `\x`, and two digits each.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()).collect()
}

/// An element of an array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    Null,
    Text(String),
    List(Vec<Item>),
}

/// Dimensions that an array of the server can have.
const MOST_DIMENSIONS: usize = 6;

/// Reads an array, such as `{1,NULL,"a b"}`.
pub(super) fn list(text: &str) -> Result<Vec<Item>, String> {
    // Bounds that do not begin with 1 stand before: `[0:1]={1,2}`.
    let begin = if text.starts_with('[') { text.find("={").map_or(0, |at| at + 1) } else { 0 };
    let mut rest = text[begin..].chars().peekable();
    let items = items(&mut rest, 1)?;
    if rest.next().is_some() { Err(format!("{text:?} goes on behind its end")) } else { Ok(items) }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn items(rest: &mut Chars<'_>, depth: usize) -> Result<Vec<Item>, String> {
    let broken = || "no array of the server".to_owned();
    if rest.next() != Some('{') || depth > MOST_DIMENSIONS {
        return Err(broken());
    }
    let mut found = Vec::new();
    if rest.next_if_eq(&'}').is_some() {
        return Ok(found);
    }
    loop {
        match rest.peek() {
            Some('{') => found.push(Item::List(items(rest, depth + 1)?)),
            Some('"') => {
                rest.next();
                let mut text = String::new();
                loop {
                    match rest.next().ok_or_else(broken)? {
                        '"' => break,
                        '\\' => text.push(rest.next().ok_or_else(broken)?),
                        other => text.push(other),
                    }
                }
                found.push(Item::Text(text));
            }
            _ => {
                let mut text = String::new();
                while let Some(next) = rest.next_if(|next| !matches!(next, ',' | '}')) {
                    text.push(if next == '\\' { rest.next().ok_or_else(broken)? } else { next });
                }
                found.push(if text == "NULL" { Item::Null } else { Item::Text(text) });
            }
        }
        match rest.next() {
            Some(',') => {}
            Some('}') => return Ok(found),
            _ => return Err(broken()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_iso_8601_has_them_and_what_that_cannot_hold_stays() {
        assert_eq!(Form::Moment.text("2026-11-28 17:51:10.5+00"), "2026-11-28T17:51:10.5Z");
        assert_eq!(Form::DateTime.text("2026-11-28 17:51:10"), "2026-11-28T17:51:10");
        for text in ["infinity", "0044-03-15 12:00:00 BC", ""] {
            assert_eq!(Form::DateTime.text(text), text);
        }
    }

    #[test]
    fn arrays_with_quotes_nulls_bounds_and_dimensions_are_read() {
        let text = |text: &str| Item::Text(text.to_owned());
        assert_eq!(list("{}").unwrap(), []);
        assert_eq!(list("{1,NULL,\"NULL\"}").unwrap(), [text("1"), Item::Null, text("NULL")]);
        assert_eq!(list(r#"{"a \"b\" \\,{}",c}"#).unwrap(), [text(r#"a "b" \,{}"#), text("c")]);
        assert_eq!(list("[0:1]={1,2}").unwrap(), [text("1"), text("2")]);
        let rows = list("{{1,2},{3,4}}").unwrap();
        assert_eq!(rows[1], Item::List(vec![text("3"), text("4")]));
        for wrong in ["", "{", "1", "{1", "{1}}", "{\"a}", "{{{{{{{1}}}}}}}"] {
            assert!(list(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_read_and_odd_ones_refused() {
        assert_eq!(unhex("\\x00ff"), Some(vec![0, 255]));
        assert_eq!(unhex("\\x"), Some(vec![]));
        for wrong in ["00", "\\x0", "\\x0g"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
