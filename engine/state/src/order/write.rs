//! Values to ordered bytes.

use super::OrderError;
use crate::fields::fields;
use serde::ser::{self, Serialize};

pub(super) struct Writer<'a> {
    pub(super) out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn again(&mut self) -> Writer<'_> {
        Writer { out: self.out }
    }
}

macro_rules! unsigned {
    ($($name:ident $type:ty)*) => {$(
        #[inline]
        fn $name(self, value: $type) -> Result<(), OrderError> {
            self.out.extend_from_slice(&value.to_be_bytes());
            Ok(())
        }
    )*};
}

macro_rules! signed {
    ($($name:ident $type:ty)*) => {$(
        #[inline]
        fn $name(self, value: $type) -> Result<(), OrderError> {
            self.out.extend_from_slice(&(value ^ <$type>::MIN).to_be_bytes());
            Ok(())
        }
    )*};
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = OrderError;
    type SerializeSeq = List<'a>;
    type SerializeTuple = Fields<'a>;
    type SerializeTupleStruct = Fields<'a>;
    type SerializeTupleVariant = Fields<'a>;
    type SerializeMap = ser::Impossible<(), OrderError>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    unsigned!(serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64 serialize_u128 u128);
    signed!(serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128);

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Result<(), OrderError> {
        self.serialize_u8(u8::from(value))
    }

    fn serialize_char(self, value: char) -> Result<(), OrderError> {
        self.serialize_u32(u32::from(value))
    }

    fn serialize_f32(self, _: f32) -> Result<(), OrderError> {
        Err(OrderError::refused("it has floating-point numbers"))
    }

    fn serialize_f64(self, _: f64) -> Result<(), OrderError> {
        Err(OrderError::refused("it has floating-point numbers"))
    }

    fn serialize_str(self, value: &str) -> Result<(), OrderError> {
        self.serialize_bytes(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), OrderError> {
        for byte in value {
            self.out.push(*byte);
            if *byte == 0 {
                self.out.push(0xFF);
            }
        }
        self.out.extend_from_slice(&[0, 0]);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), OrderError> {
        self.serialize_u8(0)
    }

    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), OrderError> {
        self.again().serialize_u8(1)?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), OrderError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), OrderError> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), OrderError> {
        self.serialize_u32(index)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), OrderError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), OrderError> {
        self.again().serialize_u32(index)?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, OrderError> {
        Ok(List(self))
    }

    fn serialize_tuple(self, _: usize) -> Result<Fields<'a>, OrderError> {
        Ok(Fields(self))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, OrderError> {
        Ok(Fields(self))
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, OrderError> {
        self.again().serialize_u32(index)?;
        Ok(Fields(self))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, OrderError> {
        Err(OrderError::refused("it has maps"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, OrderError> {
        Ok(Fields(self))
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, OrderError> {
        self.again().serialize_u32(index)?;
        Ok(Fields(self))
    }
}

/// Elements of a list.
pub(super) struct List<'a>(Writer<'a>);

impl ser::SerializeSeq for List<'_> {
    type Ok = ();
    type Error = OrderError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), OrderError> {
        self.0.out.push(1);
        value.serialize(self.0.again())
    }

    fn end(self) -> Result<(), OrderError> {
        self.0.out.push(0);
        Ok(())
    }
}

/// Fields, one after another.
pub(super) struct Fields<'a>(Writer<'a>);

impl Fields<'_> {
    #[inline(always)]
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), OrderError> {
        value.serialize(self.0.again())
    }

    /// A field that is left out cannot be read back.
    fn skipped(&mut self, name: &str) -> Result<(), OrderError> {
        Err(OrderError(format!("its field `{name}` is skipped, and could not be read back")))
    }
}

fields!(['a] Fields<'a>, OrderError);
