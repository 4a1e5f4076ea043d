//! One field of a record, by serde, as a value. Knows no columns.

use crate::encode::Value;
use crate::row::Problem;
use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// What a field holds.
pub(crate) fn value<T: Serialize + ?Sized>(field: &T) -> Result<Value, Problem> {
    field.serialize(Tree)
}

/// The name of an entry of a map.
pub(crate) fn name<T: Serialize + ?Sized>(key: &T) -> Result<String, Problem> {
    match value(key)? {
        Value::Text(name) => Ok(name),
        Value::Int(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        _ => Err(Problem::custom("the key of a map is no text")),
    }
}

struct Tree;

/// The name of the struct by which serde_json passes JSON on as it is, and of its one field.
const RAW: &str = "$serde_json::private::RawValue";

/// A container that is being read.
struct Branch {
    variant: Option<&'static str>,
    /// It is JSON as it is.
    raw: bool,
    list: Vec<Value>,
    /// Instead of the list.
    map: Option<Vec<(String, Value)>>,
    key: Option<String>,
}

impl Branch {
    fn list(variant: Option<&'static str>) -> Self {
        Self { variant, raw: false, list: Vec::new(), map: None, key: None }
    }

    fn map(variant: Option<&'static str>) -> Self {
        Self { map: Some(Vec::new()), ..Self::list(variant) }
    }

    fn push<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Problem> {
        self.list.push(value(item)?);
        Ok(())
    }

    fn put<T: Serialize + ?Sized>(&mut self, name: String, item: &T) -> Result<(), Problem> {
        let item = value(item)?;
        self.map.get_or_insert_default().push((name, item));
        Ok(())
    }

    fn finish(mut self) -> Value {
        if self.raw
            && let Some((_, Value::Text(text))) = self.map.as_mut().and_then(Vec::pop)
        {
            return Value::Json(text);
        }
        let value = match self.map {
            Some(map) => Value::Map(map),
            None => Value::List(self.list),
        };
        match self.variant {
            Some(variant) => Value::Map(vec![(variant.to_owned(), value)]),
            None => value,
        }
    }
}

macro_rules! whole {
    ($($name:ident $type:ty;)*) => {
        $(fn $name(self, value: $type) -> Result<Value, Problem> { Ok(Value::Int(i128::from(value))) })*
    };
}

impl Serializer for Tree {
    type Ok = Value;
    type Error = Problem;
    type SerializeSeq = Branch;
    type SerializeTuple = Branch;
    type SerializeTupleStruct = Branch;
    type SerializeTupleVariant = Branch;
    type SerializeMap = Branch;
    type SerializeStruct = Branch;
    type SerializeStructVariant = Branch;

    whole! {
        serialize_i8 i8; serialize_i16 i16; serialize_i32 i32; serialize_i64 i64; serialize_i128 i128;
        serialize_u8 u8; serialize_u16 u16; serialize_u32 u32; serialize_u64 u64;
    }

    fn serialize_u128(self, value: u128) -> Result<Value, Problem> {
        Ok(i128::try_from(value).map_or(Value::Large(value), Value::Int))
    }

    fn serialize_bool(self, value: bool) -> Result<Value, Problem> {
        Ok(Value::Bool(value))
    }

    fn serialize_f32(self, value: f32) -> Result<Value, Problem> {
        Ok(Value::Float(f64::from(value)))
    }

    fn serialize_f64(self, value: f64) -> Result<Value, Problem> {
        Ok(Value::Float(value))
    }

    fn serialize_char(self, value: char) -> Result<Value, Problem> {
        Ok(Value::Text(value.to_string()))
    }

    fn serialize_str(self, value: &str) -> Result<Value, Problem> {
        Ok(Value::Text(value.to_owned()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, Problem> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn serialize_none(self) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_unit(self) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Problem> {
        value.serialize(self)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, Problem> {
        Ok(Value::Text(variant.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Value, Problem> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Problem> {
        Ok(Value::Map(vec![(variant.to_owned(), value.serialize(self)?)]))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Branch, Problem> {
        Ok(Branch::list(None))
    }

    fn serialize_tuple(self, _: usize) -> Result<Branch, Problem> {
        Ok(Branch::list(None))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Branch, Problem> {
        Ok(Branch::list(None))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Branch, Problem> {
        Ok(Branch::list(Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Branch, Problem> {
        Ok(Branch::map(None))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Branch, Problem> {
        Ok(Branch { raw: name == RAW, ..Branch::map(None) })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Branch, Problem> {
        Ok(Branch::map(Some(variant)))
    }
}

macro_rules! lists {
    ($($trait:ident $method:ident;)*) => {
        $(impl $trait for Branch {
            type Ok = Value;
            type Error = Problem;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
                self.push(value)
            }

            fn end(self) -> Result<Value, Problem> {
                Ok(self.finish())
            }
        })*
    };
}

lists! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! structs {
    ($($trait:ident;)*) => {
        $(impl $trait for Branch {
            type Ok = Value;
            type Error = Problem;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Problem> {
                self.put(name.to_owned(), value)
            }

            fn end(self) -> Result<Value, Problem> {
                Ok(self.finish())
            }
        })*
    };
}

structs! {
    SerializeStruct;
    SerializeStructVariant;
}

impl SerializeMap for Branch {
    type Ok = Value;
    type Error = Problem;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Problem> {
        self.key = Some(name(key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        let name = self.key.take().ok_or_else(|| Problem::custom("a map gives a value without a key"))?;
        self.put(name, value)
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(self.finish())
    }
}
