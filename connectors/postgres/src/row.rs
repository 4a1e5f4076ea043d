//! A record as a row: each field in the binary form of the column of its name.
//!
//! All that is wrong with a record is collected, so that one message tells all of it.

use crate::columns::Columns;
use crate::encode::{self, Value, with_length};
use bytes::BytesMut;
use serde::ser::{Error as _, Impossible, Serialize, SerializeMap, SerializeStruct, Serializer};
use serde::{Deserialize, Serialize as Staged};
use std::fmt::Display;

/// One row, as it is staged. Cells have the server's binary form, each with its length in four bytes, -1 for NULL.
#[derive(Clone, PartialEq, Eq, Debug, Default, Staged, Deserialize)]
pub struct Row {
    /// Names and types of the columns that the cells are for: `name`, NUL, type, NUL and so on.
    pub layout: String,
    /// What the row holds; empty if it only goes.
    pub cells: Vec<u8>,
    /// Cells of the key whose row goes first; empty if none does.
    pub gone: Vec<u8>,
}

impl Row {
    /// The columns, each with its type.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.layout.split_terminator('\0');
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }
}

/// Where the cells are, one after another: none is NULL.
pub(crate) fn cells(mut bytes: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            bytes = rest;
            return Some(None);
        };
        let (cell, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(Some(cell))
    })
}

/// A record, made into the cells of the columns that `wanted` takes, in the order of its fields.
#[derive(Debug)]
pub(crate) struct Made {
    pub layout: String,
    pub cells: BytesMut,
    /// For each column of the table: where its cell is in `cells`.
    pub at: Vec<Option<(usize, usize)>>,
    /// What is wrong.
    pub problems: Vec<String>,
}

impl Made {
    /// The cell of a column, with its length; none if the record has no such field.
    pub fn cell(&self, column: usize) -> Option<&[u8]> {
        self.at[column].map(|(from, to)| &self.cells[from..to])
    }

    pub fn is_null(&self, column: usize) -> bool {
        self.cell(column).is_some_and(|cell| cell == [0xff; 4])
    }
}

/// Makes a row of a record. `only` are the columns to look at; all if it is empty.
///
/// # Errors
/// The record is no struct with named fields.
pub(crate) fn make(record: &impl Serialize, columns: &Columns, only: &[usize]) -> Result<Made, String> {
    let at = vec![None; columns.all.len()];
    let made = Made { layout: String::new(), cells: BytesMut::with_capacity(128), at, problems: Vec::new() };
    let mut fields = Fields { columns, only, made, near: 0, key: None };
    record.serialize(Named(&mut fields)).map_err(|e| e.0)?;
    Ok(fields.made)
}

/// An error of serde that is a text.
#[derive(Debug)]
pub(crate) struct Problem(pub String);

impl Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

impl serde::ser::Error for Problem {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

struct Fields<'a> {
    columns: &'a Columns,
    only: &'a [usize],
    made: Made,
    /// The column after the last one.
    near: usize,
    /// Name of the next value of a map.
    key: Option<String>,
}

impl Fields<'_> {
    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Problem> {
        let Some(index) = self.columns.position(name, self.near) else {
            if self.only.is_empty() {
                self.made.problems.push(self.columns.no_column(name));
            }
            return Ok(());
        };
        self.near = index + 1;
        if !self.only.is_empty() && !self.only.contains(&index) {
            return Ok(());
        }
        let column = &self.columns.all[index];
        let made = &mut self.made;
        let Some(kind) = &column.kind else {
            made.problems
                .push(format!("column `{name}` is of type {}, which this sink cannot fill", column.declared));
            return Ok(());
        };
        if let Some(how) = column.generated {
            made.problems.push(format!("column `{name}` is {how}: leave the field out"));
            return Ok(());
        }
        if made.at[index].is_some() {
            made.problems.push(format!("two fields `{name}`"));
            return Ok(());
        }
        let from = made.cells.len();
        let filled = match crate::field::value(value) {
            Ok(Value::Null) => {
                made.cells.extend_from_slice(&(-1_i32).to_be_bytes());
                let missing = format!("column `{name}` must have a value, and the record has none");
                if column.not_null { Err(missing) } else { Ok(()) }
            }
            Ok(value) => with_length(&mut made.cells, |out| encode::value(kind, &value, out))
                .map_err(|why| format!("column `{name}`, {why}")),
            Err(problem) => Err(format!("column `{name}`: {problem}")),
        };
        if let Err(problem) = filled {
            made.problems.push(problem);
        }
        made.at[index] = Some((from, made.cells.len()));
        for part in [&column.name, &column.declared] {
            made.layout.push_str(part);
            made.layout.push('\0');
        }
        Ok(())
    }

    fn end(&mut self) {
        if !self.only.is_empty() {
            return;
        }
        let lacks = |(column, at): &(&crate::columns::Column, &Option<_>)| {
            column.not_null && !column.fills_itself && column.generated.is_none() && at.is_none()
        };
        let missing = self.columns.all.iter().zip(&self.made.at).filter(lacks);
        let missing: Vec<String> = missing
            .map(|(column, _)| {
                format!("column `{}` must have a value, and the record has no such field", column.name)
            })
            .collect();
        self.made.problems.extend(missing);
    }
}

struct Named<'a, 'b>(&'a mut Fields<'b>);

const STRUCTS_ONLY: &str = "a row of a table must be a struct with named fields";

macro_rules! refuse {
    ($($name:ident $type:ty;)*) => {
        $(fn $name(self, _: $type) -> Result<(), Problem> { Err(Problem::custom(STRUCTS_ONLY)) })*
    };
}

impl<'a, 'b> Serializer for Named<'a, 'b> {
    type Ok = ();
    type Error = Problem;
    type SerializeSeq = Impossible<(), Problem>;
    type SerializeTuple = Impossible<(), Problem>;
    type SerializeTupleStruct = Impossible<(), Problem>;
    type SerializeTupleVariant = Impossible<(), Problem>;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), Problem>;

    refuse! {
        serialize_bool bool; serialize_char char; serialize_bytes &[u8]; serialize_str &str;
        serialize_i8 i8; serialize_i16 i16; serialize_i32 i32; serialize_i64 i64; serialize_i128 i128;
        serialize_u8 u8; serialize_u16 u16; serialize_u32 u32; serialize_u64 u64; serialize_u128 u128;
        serialize_f32 f32; serialize_f64 f64; serialize_unit_struct &'static str;
    }

    fn serialize_none(self) -> Result<(), Problem> {
        Err(Problem::custom(STRUCTS_ONLY))
    }

    fn serialize_unit(self) -> Result<(), Problem> {
        Err(Problem::custom(STRUCTS_ONLY))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Problem> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Problem> {
        Err(Problem::custom(STRUCTS_ONLY))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Problem> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Problem> {
        Err(Problem::custom(STRUCTS_ONLY))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Problem> {
        Err(Problem::custom(STRUCTS_ONLY))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Problem> {
        Err(Problem::custom(STRUCTS_ONLY))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Problem> {
        Err(Problem::custom(STRUCTS_ONLY))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Problem> {
        Err(Problem::custom(STRUCTS_ONLY))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Problem> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Problem> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Problem> {
        Err(Problem::custom(STRUCTS_ONLY))
    }
}

impl SerializeStruct for Named<'_, '_> {
    type Ok = ();
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Problem> {
        self.0.field(name, value)
    }

    fn end(self) -> Result<(), Problem> {
        self.0.end();
        Ok(())
    }
}

impl SerializeMap for Named<'_, '_> {
    type Ok = ();
    type Error = Problem;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Problem> {
        self.0.key = Some(crate::field::name(key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        let name = self.0.key.take().ok_or_else(|| Problem::custom("a map gives a value without a key"))?;
        self.0.field(&name, value)
    }

    fn end(self) -> Result<(), Problem> {
        self.0.end();
        Ok(())
    }
}
