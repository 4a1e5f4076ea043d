//! A row as a struct: each column into the field of its name.
//!
//! Promises that a value that was not sent never becomes an empty one: a field for it is an error, unless it is a [`Known`].

use super::form::{Form, unhex};
use super::row::{Field, Row};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};

/// A value that the server may not have sent, because it is large and the change left it as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Known<T> {
    /// It is what it was before.
    Unchanged,
    /// It is this.
    Value(T),
}

/// The names by which a [`Known`] is recognised.
const KNOWN: (&str, [&str; 2]) = ("Known", ["Unchanged", "Value"]);

/// Makes a struct of a row.
pub(super) fn decode<T: DeserializeOwned>(row: &Row) -> Result<T, String> {
    T::deserialize(MapAccessDeserializer::new(Fields { row, next: 0, name: "" })).map_err(|problem| {
        let only_key = row.fields().any(|(_, field)| field == Field::NotSent);
        let advice = if only_key {
            "; of what a row was, the server sends only the key: make other fields Options, or set REPLICA IDENTITY FULL on the table"
        } else {
            ""
        };
        format!("{}{advice}", problem.0)
    })
}

#[derive(Debug)]
struct Problem(String);

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

struct Fields<'a> {
    row: &'a Row,
    next: usize,
    /// The column whose value is next.
    name: &'a str,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        while let Some(column) = self.row.layout.columns.get(self.next) {
            self.next += 1;
            if self.row.cell(self.next - 1) != Field::NotSent {
                self.name = &column.name;
                return seed.deserialize(StrDeserializer::new(&column.name)).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let at = self.next - 1;
        let value = Value { field: self.row.cell(at), form: self.row.layout.columns[at].form };
        seed.deserialize(value).map_err(|problem| Problem(format!("column `{}`: {}", self.name, problem.0)))
    }
}

/// One value.
#[derive(Clone, Copy)]
struct Value<'de> {
    field: Field<'de>,
    form: Form,
}

impl<'de> Value<'de> {
    fn text(self) -> Result<&'de str, Problem> {
        match self.field {
            Field::Text(text) => Ok(text),
            Field::Null => Err(Problem("it is NULL, and the field is no Option".to_owned())),
            Field::Unchanged | Field::NotSent => Err(Problem(
                "it is large and was not changed, so the server did not send it: set REPLICA IDENTITY FULL on the table, or make \
                 the field a Known"
                    .to_owned(),
            )),
        }
    }

    /// A number; of a moment its milliseconds since 1970, as a `Timestamp` is read.
    fn number<N: std::str::FromStr<Err: Display>>(self) -> Result<N, Problem> {
        let text = self.text()?;
        let moment = match self.form {
            Form::Moment => {
                self.form.text(text).parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond().to_string())
            }
            _ => None,
        };
        let text = moment.as_deref().unwrap_or(text);
        text.parse().map_err(|why| Problem(format!("{text:?} is not as the field wants it: {why}")))
    }

    fn json<T>(
        text: &'de str,
        read: impl FnOnce(&mut serde_json::Deserializer<serde_json::de::StrRead<'de>>) -> serde_json::Result<T>,
    ) -> Result<T, Problem> {
        read(&mut serde_json::Deserializer::from_str(text)).map_err(|why| Problem(why.to_string()))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            visitor.$visit(self.number()?)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Value<'de> {
    type Error = Problem;

    numbers! {
        deserialize_i8 visit_i8; deserialize_i16 visit_i16; deserialize_i32 visit_i32; deserialize_i64 visit_i64;
        deserialize_i128 visit_i128; deserialize_u8 visit_u8; deserialize_u16 visit_u16; deserialize_u32 visit_u32;
        deserialize_u64 visit_u64; deserialize_u128 visit_u128; deserialize_f32 visit_f32; deserialize_f64 visit_f64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        if self.field == Field::Null {
            return visitor.visit_unit();
        }
        match self.form {
            Form::Bool => self.deserialize_bool(visitor),
            Form::Whole => visitor.visit_i64(self.number()?),
            Form::Float => visitor.visit_f64(self.number()?),
            Form::Json => Self::json(self.text()?, |json| json.deserialize_any(visitor)),
            Form::List(_) => self.deserialize_seq(visitor),
            Form::Bytes => self.deserialize_byte_buf(visitor),
            Form::Moment | Form::DateTime | Form::Text => self.deserialize_str(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.text()? {
            "t" => visitor.visit_bool(true),
            "f" => visitor.visit_bool(false),
            other => Err(Problem(format!("{other:?} is no truth value"))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.form.text(self.text()?) {
            std::borrow::Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            std::borrow::Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_byte_buf(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let text = self.text()?;
        match self.form {
            Form::Bytes => {
                visitor.visit_byte_buf(unhex(text).ok_or_else(|| Problem("it is no bytea".to_owned()))?)
            }
            _ => visitor.visit_borrowed_bytes(text.as_bytes()),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        if self.field == Field::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let text = self.text()?;
        match self.form {
            // Elements are as in JSON; those of other types are texts.
            Form::List(_) => de::Deserializer::deserialize_seq(self.form.plain(text), visitor)
                .map_err(|why| Problem(why.to_string())),
            Form::Bytes => {
                let bytes = unhex(text).ok_or_else(|| Problem("it is no bytea".to_owned()))?;
                visitor.visit_seq(de::value::SeqDeserializer::new(bytes.into_iter()))
            }
            _ => Self::json(text, |json| json.deserialize_seq(visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        Self::json(self.text()?, |json| json.deserialize_map(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        Self::json(self.text()?, |json| json.deserialize_struct(name, fields, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        if (name, variants) == (KNOWN.0, &KNOWN.1[..]) {
            return visitor.visit_enum(MaybeKnown(self));
        }
        let text = self.text()?;
        match self.form {
            Form::Json => Self::json(text, |json| json.deserialize_enum(name, variants, visitor)),
            _ => visitor.visit_enum(text.into_deserializer()),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }
}

/// A value as a [`Known`].
struct MaybeKnown<'de>(Value<'de>);

impl<'de> EnumAccess<'de> for MaybeKnown<'de> {
    type Error = Problem;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Problem> {
        let variant = KNOWN.1[usize::from(self.0.field != Field::Unchanged)];
        Ok((seed.deserialize(StrDeserializer::new(variant))?, self))
    }
}

impl<'de> VariantAccess<'de> for MaybeKnown<'de> {
    type Error = Problem;

    fn unit_variant(self) -> Result<(), Problem> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Problem> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Problem> {
        de::Deserializer::deserialize_seq(self.0, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        de::Deserializer::deserialize_seq(self.0, visitor)
    }
}
