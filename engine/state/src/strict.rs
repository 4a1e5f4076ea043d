//! A serialiser around postcard's that refuses what postcard would write and could not read again.
//!
//! Postcard knows fields by their place and believes lengths that it is told. So a field that is left out moves
//! all that follows it, and nobody notices before the bytes are read: a life too late. Looking costs nothing for
//! values that are right.

use crate::error::Problem;
use crate::fields::fields;
use postcard::ser_flavors::Flavor;
use postcard::{Error, Result, Serializer as Postcard};
use serde::ser::{self, Serialize, Serializer};
use std::fmt::Display;

/// See the module.
pub(crate) struct Strict<'a, F: Flavor> {
    pub(crate) out: &'a mut Postcard<F>,
    /// What was found, if serialising fails because of it.
    pub(crate) problem: &'a mut Option<Problem>,
}

impl<F: Flavor> Strict<'_, F> {
    #[inline(always)]
    fn next(&mut self) -> Strict<'_, F> {
        Strict { out: self.out, problem: self.problem }
    }

    #[cold]
    fn refuse<T>(&mut self, problem: Problem) -> Result<T> {
        self.problem.get_or_insert(problem);
        Err(Error::SerdeSerCustom)
    }
}

/// What has parts.
pub(crate) struct Parts<'a, F: Flavor> {
    strict: Strict<'a, F>,
    /// Of a struct or variant.
    name: &'static str,
    /// Elements that were announced and are still to come, of a list or map.
    left: usize,
    /// There were more than announced.
    more: bool,
}

impl<'a, F: Flavor> Parts<'a, F> {
    #[inline(always)]
    fn of(strict: Strict<'a, F>, name: &'static str) -> Self {
        Self { strict, name, left: 0, more: false }
    }

    #[inline(always)]
    fn part<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<()> {
        part.serialize(self.strict.next())
    }

    #[inline(always)]
    fn counted<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<()> {
        self.more |= self.left == 0;
        self.left = self.left.wrapping_sub(1);
        part.serialize(self.strict.next())
    }

    #[inline(always)]
    fn end_counted(mut self) -> Result<()> {
        if self.left != 0 || self.more { self.strict.refuse(Problem::WrongLength) } else { Ok(()) }
    }

    #[cold]
    fn skipped(&mut self, field: &'static str) -> Result<()> {
        let name = self.name;
        self.strict.refuse(Problem::SkippedField { name, field })
    }
}

macro_rules! passed_on {
    ($($method:ident: $type:ty;)*) => {
        $(#[inline(always)]
        fn $method(self, value: $type) -> Result<()> {
            self.out.$method(value)
        })*
    };
}

impl<'a, F: Flavor> Serializer for Strict<'a, F> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a, F>;
    type SerializeTuple = Parts<'a, F>;
    type SerializeTupleStruct = Parts<'a, F>;
    type SerializeTupleVariant = Parts<'a, F>;
    type SerializeMap = Parts<'a, F>;
    type SerializeStruct = Parts<'a, F>;
    type SerializeStructVariant = Parts<'a, F>;

    fn is_human_readable(&self) -> bool {
        false
    }

    passed_on! {
        serialize_bool: bool;
        serialize_i8: i8;
        serialize_i16: i16;
        serialize_i32: i32;
        serialize_i64: i64;
        serialize_i128: i128;
        serialize_u8: u8;
        serialize_u16: u16;
        serialize_u32: u32;
        serialize_u64: u64;
        serialize_u128: u128;
        serialize_f32: f32;
        serialize_f64: f64;
        serialize_char: char;
        serialize_str: &str;
        serialize_bytes: &[u8];
        serialize_unit_struct: &'static str;
    }

    #[inline(always)]
    fn serialize_none(self) -> Result<()> {
        self.out.serialize_none()
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        // A unit has no bytes, so this writes what comes before the value.
        self.out.serialize_some(&())?;
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_unit(self) -> Result<()> {
        self.out.serialize_unit()
    }

    #[inline(always)]
    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<()> {
        self.out.serialize_unit_variant(name, index, variant)
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        self.out.serialize_newtype_variant(name, index, variant, &())?;
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_seq(mut self, len: Option<usize>) -> Result<Parts<'a, F>> {
        let Some(left) = len else { return self.refuse(Problem::UnknownLength) };
        self.out.serialize_seq(len)?;
        Ok(Parts { left, ..Parts::of(self, "") })
    }

    #[inline(always)]
    fn serialize_tuple(self, _: usize) -> Result<Parts<'a, F>> {
        Ok(Parts::of(self, ""))
    }

    #[inline(always)]
    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Parts<'a, F>> {
        Ok(Parts::of(self, name))
    }

    #[inline(always)]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'a, F>> {
        self.out.serialize_tuple_variant(name, index, variant, len)?;
        Ok(Parts::of(self, variant))
    }

    #[inline(always)]
    fn serialize_map(mut self, len: Option<usize>) -> Result<Parts<'a, F>> {
        let Some(left) = len else { return self.refuse(Problem::UnknownLength) };
        self.out.serialize_map(len)?;
        Ok(Parts { left, ..Parts::of(self, "") })
    }

    #[inline(always)]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'a, F>> {
        Ok(Parts::of(self, name))
    }

    #[inline(always)]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'a, F>> {
        self.out.serialize_struct_variant(name, index, variant, len)?;
        Ok(Parts::of(self, variant))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<()> {
        self.out.collect_str(value)
    }
}

impl<F: Flavor> ser::SerializeSeq for Parts<'_, F> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.counted(value)
    }

    #[inline(always)]
    fn end(self) -> Result<()> {
        self.end_counted()
    }
}

impl<F: Flavor> ser::SerializeMap for Parts<'_, F> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.counted(key)
    }

    #[inline(always)]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.part(value)
    }

    #[inline(always)]
    fn end(self) -> Result<()> {
        self.end_counted()
    }
}

fields!(['a, F: Flavor] Parts<'a, F>, Error);
