//! Ordered bytes to values. The type says what to read: the bytes do not.

use super::OrderError;
use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], OrderError> {
        let (front, rest) = self.bytes.split_first_chunk().ok_or_else(|| OrderError::damaged(what))?;
        self.bytes = rest;
        Ok(*front)
    }

    fn flag(&mut self) -> Result<bool, OrderError> {
        match self.array("a flag")? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(OrderError::damaged("a flag")),
        }
    }

    fn text(&mut self) -> Result<Vec<u8>, OrderError> {
        let mut found = Vec::new();
        loop {
            match self.array("text")? {
                [0] => match self.array("text")? {
                    [0] => return Ok(found),
                    [0xFF] => found.push(0),
                    _ => return Err(OrderError::damaged("text")),
                },
                [byte] => found.push(byte),
            }
        }
    }

    fn fields<V: Visitor<'a>>(&mut self, count: usize, visitor: V) -> Result<V::Value, OrderError> {
        visitor.visit_seq(Fields { reader: self, left: count })
    }
}

macro_rules! integers {
    ($($name:ident $visit:ident $type:ty, $flip:expr;)*) => {$(
        #[inline]
        fn $name<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
            let value = <$type>::from_be_bytes(self.array(stringify!($type))?);
            visitor.$visit(value ^ $flip)
        }
    )*};
}

macro_rules! refused {
    ($($name:ident $what:literal)*) => {$(
        fn $name<V: Visitor<'a>>(self, _: V) -> Result<V::Value, OrderError> {
            Err(OrderError::refused($what))
        }
    )*};
}

impl<'a> de::Deserializer<'a> for &mut Reader<'a> {
    type Error = OrderError;

    integers! {
        deserialize_u8 visit_u8 u8, 0;
        deserialize_u16 visit_u16 u16, 0;
        deserialize_u32 visit_u32 u32, 0;
        deserialize_u64 visit_u64 u64, 0;
        deserialize_u128 visit_u128 u128, 0;
        deserialize_i8 visit_i8 i8, i8::MIN;
        deserialize_i16 visit_i16 i16, i16::MIN;
        deserialize_i32 visit_i32 i32, i32::MIN;
        deserialize_i64 visit_i64 i64, i64::MIN;
        deserialize_i128 visit_i128 i128, i128::MIN;
    }

    refused! {
        deserialize_f32 "it has floating-point numbers"
        deserialize_f64 "it has floating-point numbers"
        deserialize_any "it has values that say their own type"
        deserialize_ignored_any "it has values that say their own type"
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_map<V: Visitor<'a>>(self, _: V) -> Result<V::Value, OrderError> {
        Err(OrderError::refused("it has maps"))
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        let flag = self.flag()?;
        visitor.visit_bool(flag)
    }

    fn deserialize_char<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        let code = u32::from_be_bytes(self.array("char")?);
        visitor.visit_char(char::from_u32(code).ok_or_else(|| OrderError::damaged("char"))?)
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        let text = String::from_utf8(self.text()?).map_err(|_| OrderError::damaged("text"))?;
        visitor.visit_string(text)
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        let bytes = self.text()?;
        visitor.visit_byte_buf(bytes)
    }

    fn deserialize_byte_buf<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        if self.flag()? { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_unit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, OrderError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, OrderError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        visitor.visit_seq(List { reader: self })
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, count: usize, visitor: V) -> Result<V::Value, OrderError> {
        self.fields(count, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, OrderError> {
        self.fields(count, visitor)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, OrderError> {
        self.fields(names.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, OrderError> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, OrderError> {
        self.deserialize_u32(visitor)
    }
}

struct Fields<'r, 'a> {
    reader: &'r mut Reader<'a>,
    left: usize,
}

impl<'a> de::SeqAccess<'a> for Fields<'_, 'a> {
    type Error = OrderError;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, OrderError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

struct List<'r, 'a> {
    reader: &'r mut Reader<'a>,
}

impl<'a> de::SeqAccess<'a> for List<'_, 'a> {
    type Error = OrderError;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, OrderError> {
        if self.reader.flag()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'a> de::EnumAccess<'a> for &mut Reader<'a> {
    type Error = OrderError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<(T::Value, Self), OrderError> {
        let index = u32::from_be_bytes(self.array("a variant")?);
        let index: U32Deserializer<OrderError> = index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'a> de::VariantAccess<'a> for &mut Reader<'a> {
    type Error = OrderError;

    fn unit_variant(self) -> Result<(), OrderError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, OrderError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'a>>(self, count: usize, visitor: V) -> Result<V::Value, OrderError> {
        self.fields(count, visitor)
    }

    fn struct_variant<V: Visitor<'a>>(
        self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, OrderError> {
        self.fields(names.len(), visitor)
    }
}
