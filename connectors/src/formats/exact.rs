//! Records that a format would hold as something else are refused while they are written.
//!
//! [`Exact`] serialises a value as it is, and fails where the format behind it would silently change it: a number that is
//! none becomes `null` in JSON, an empty text and no text are one in CSV. Knows the two formats' habits, and nothing of
//! files or tables.

use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::cell::Cell;
use std::fmt::Display;

/// What stands behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Json,
    Csv,
}

/// A value that is written exactly or not at all.
pub(crate) struct Exact<'a, T: ?Sized> {
    value: &'a T,
    at: At<'a>,
}

/// Where in a record something is.
#[derive(Clone, Copy)]
struct At<'a> {
    form: Form,
    /// Containers around it.
    depth: usize,
    /// It is the content of an option.
    optional: bool,
    /// Counts the fields of the outermost container: a format that keeps one of two of the same name shows fewer.
    fields: Option<&'a Cell<usize>>,
}

impl<'a, T: ?Sized> Exact<'a, T> {
    pub(crate) fn new(value: &'a T, form: Form) -> Self {
        Self { value, at: At { form, depth: 0, optional: false, fields: None } }
    }

    /// The same, and counts the fields that are written.
    #[cfg(feature = "sqlite")]
    pub(crate) fn counting(value: &'a T, form: Form, fields: &'a Cell<usize>) -> Self {
        Self { value, at: At { form, depth: 0, optional: false, fields: Some(fields) } }
    }
}

impl<T: Serialize + ?Sized> Serialize for Exact<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Checked { inner: serializer, at: self.at })
    }
}

impl<'a> At<'a> {
    fn of<T: ?Sized>(self, value: &'a T) -> Exact<'a, T> {
        Exact { value, at: self }
    }

    /// A container here, whose content is in it.
    fn open<C, E: serde::ser::Error>(self, inner: Result<C, E>) -> Result<Inside<'a, C>, E> {
        Ok(Inside { inner: inner?, at: At { depth: self.depth + 1, optional: false, ..self } })
    }

    fn finite<E: serde::ser::Error>(self, is_finite: bool, number: impl Display) -> Result<(), E> {
        if is_finite || self.form == Form::Csv {
            return Ok(());
        }
        Err(E::custom(format_args!(
            "{number} is no number here and would be written as null; map it to an Option, or leave such records out"
        )))
    }

    /// What CSV writes as an empty field.
    fn empty<E: serde::ser::Error>(self, what: &str) -> Result<(), E> {
        if !(self.optional && self.form == Form::Csv) {
            return Ok(());
        }
        Err(E::custom(format_args!(
            "{what} in an Option looks like None in CSV; write JSON Lines, or use another value for one of them"
        )))
    }
}

/// A serialiser that looks at what it passes on.
struct Checked<'a, S> {
    inner: S,
    at: At<'a>,
}

macro_rules! pass {
    ($($name:ident $type:ty;)*) => {
        $(fn $name(self, value: $type) -> Result<S::Ok, S::Error> { self.inner.$name(value) })*
    };
}

impl<'a, S: Serializer> Serializer for Checked<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Inside<'a, S::SerializeSeq>;
    type SerializeTuple = Inside<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Inside<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Inside<'a, S::SerializeTupleVariant>;
    type SerializeMap = Inside<'a, S::SerializeMap>;
    type SerializeStruct = Inside<'a, S::SerializeStruct>;
    type SerializeStructVariant = Inside<'a, S::SerializeStructVariant>;

    pass! {
        serialize_bool bool; serialize_char char; serialize_bytes &[u8];
        serialize_i8 i8; serialize_i16 i16; serialize_i32 i32; serialize_i64 i64; serialize_i128 i128;
        serialize_u8 u8; serialize_u16 u16; serialize_u32 u32; serialize_u64 u64; serialize_u128 u128;
        serialize_unit_struct &'static str;
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    fn serialize_f32(self, number: f32) -> Result<S::Ok, S::Error> {
        self.at.finite(number.is_finite(), number)?;
        self.inner.serialize_f32(number)
    }

    fn serialize_f64(self, number: f64) -> Result<S::Ok, S::Error> {
        self.at.finite(number.is_finite(), number)?;
        self.inner.serialize_f64(number)
    }

    fn serialize_str(self, text: &str) -> Result<S::Ok, S::Error> {
        if text.is_empty() {
            self.at.empty("an empty text")?;
        }
        self.inner.serialize_str(text)
    }

    fn collect_str<T: Display + ?Sized>(self, text: &T) -> Result<S::Ok, S::Error> {
        match self.at.form {
            Form::Json => self.inner.collect_str(text),
            Form::Csv => self.serialize_str(&text.to_string()),
        }
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.at.empty("None")?;
        self.inner.serialize_none()
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.at.empty("nothing")?;
        self.inner.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&At { optional: true, ..self.at }.of(value))
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &self.at.of(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        if self.at.form == Form::Csv {
            return Err(S::Error::custom(format_args!("CSV keeps no name of the variant `{variant}`")));
        }
        let inside = At { depth: self.at.depth + 1, optional: false, ..self.at };
        self.inner.serialize_newtype_variant(name, index, variant, &inside.of(value))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        if self.at.form == Form::Csv && self.at.depth > 0 {
            return Err(S::Error::custom("a list in a record has no field of its own in CSV"));
        }
        self.at.open(self.inner.serialize_seq(length))
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.at.open(self.inner.serialize_tuple(length))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.at.open(self.inner.serialize_tuple_struct(name, length))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.at.open(self.inner.serialize_tuple_variant(name, index, variant, length))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.at.open(self.inner.serialize_map(length))
    }

    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.at.open(self.inner.serialize_struct(name, length))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.at.open(self.inner.serialize_struct_variant(name, index, variant, length))
    }
}

/// A container that is being written.
struct Inside<'a, C> {
    inner: C,
    at: At<'a>,
}

impl<C> Inside<'_, C> {
    fn count(&self) {
        if let Some(fields) = self.at.fields.filter(|_| self.at.depth == 1) {
            fields.set(fields.get() + 1);
        }
    }
}

macro_rules! elements {
    ($($trait:ident $method:ident;)*) => {
        $(impl<C: $trait> $trait for Inside<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.inner.$method(&self.at.of(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })*
    };
}

elements! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! fields {
    ($($trait:ident;)*) => {
        $(impl<C: $trait> $trait for Inside<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                self.count();
                self.inner.serialize_field(name, &self.at.of(value))
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(name)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })*
    };
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

impl<C: SerializeMap> SerializeMap for Inside<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.count();
        self.inner.serialize_key(&self.at.of(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.inner.serialize_value(&self.at.of(value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}
