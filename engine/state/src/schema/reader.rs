//! A deserializer without input: it makes values up, and notes in the [`Trace`] what it is asked for.
//!
//! It asks of a type what postcard asks, and refuses what postcard refuses.

use super::found::{Body, Content, Format, Kind};
use super::trace::Trace;
use crate::error::Problem;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::any::type_name;
use std::fmt;
use std::ops::Range;

// Values to be tried one after another, the most widely accepted first. isize is none of serde's types.
const NUMBERS: [isize; 6] = [1, 0, 2, 10, 100, 2000];
const BOOLS: [bool; 2] = [false, true];
const CHARS: [char; 4] = ['a', 'A', '1', ' '];
const BYTES: [&[u8]; 7] = [&[0; 16], &[], &[0], &[0; 4], &[0; 8], &[0; 20], &[0; 32]];
const TEXTS: [&str; 22] = [
    "1",
    "",
    "a",
    "A",
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00+00:00[UTC]",
    "1970-01-01T00:00:00",
    "1970-01-01",
    "00:00:00",
    "1970-01",
    "PT1S",
    "1s",
    "UTC",
    "USD",
    "Mon",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.0/8",
    "00000000-0000-0000-0000-000000000000",
    "http://localhost/",
    "a@example.org",
    "1.0.0",
];

/// A type did not accept a value, or asked for what cannot be given.
#[derive(Debug)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a made-up value was refused")
    }
}

impl std::error::Error for Refused {}

impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Reads one value at a place.
pub(super) struct Reader<'a> {
    pub trace: &'a mut Trace,
    pub place: usize,
}

impl Reader<'_> {
    /// One of the samples; the plain one is known by its number.
    fn sample<T: Copy>(self, format: &'static str, samples: &[T], plain: usize) -> T {
        samples[self.trace.sample(self.place, format, samples.len(), plain)]
    }

    /// Postcard cannot give what is asked for, and never will.
    fn refuse<T>(self, format: &'static str, visitor: &'static str) -> Result<T, Refused> {
        let found = &mut self.trace.found;
        let what = match visitor {
            _ if format == "identifier" => {
                "`#[serde(flatten)]`, or an enum with its tag in a field (`#[serde(tag = .., content = ..)]`)"
            }
            _ if visitor.contains("TaggedContent") => "an enum with its tag inside (`#[serde(tag = ..)]`)",
            _ if visitor.contains("ContentVisitor") => "`#[serde(untagged)]`",
            _ if visitor.contains("serde_json::") => "`serde_json::Value`",
            _ => visitor,
        };
        // A field of a derived type is the type's: what asks is between `for` and `>::`.
        let asked = found.places[self.place].rust;
        let derived = asked.split_once(" for ").and_then(|(_, of)| of.split_once(">::"));
        let rust = derived.map_or(asked, |(of, _)| of);
        found.refuse(rust, Problem::NeedsSelfDescribing { what: what.to_owned() });
        found.note(self.place, Format::Plain(format));
        Err(Refused)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $number:ident;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            visitor.$visit(self.sample(stringify!($number), &NUMBERS, 1) as $number)
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Refused;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_bool(self.sample("bool", &BOOLS, 0))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_char(self.sample("char", &CHARS, 0))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_str(self.sample("str", &TEXTS, 1))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_str(self.sample("str", &TEXTS, 1))
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_bytes(self.sample("bytes", &BYTES, 1))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_bytes(self.sample("bytes", &BYTES, 1))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.trace.found.note(self.place, Format::Plain("()"));
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let Self { trace, place } = self;
        let Some(inner) = trace.enter(place, type_name::<V>(), Format::Option) else {
            return visitor.visit_none();
        };
        let whole = type_name::<V::Value>();
        let rust = whole.strip_prefix("core::option::Option<").and_then(|rest| rest.strip_suffix('>'));
        let result = trace.at(inner, rust.unwrap_or_default(), |reader| visitor.visit_some(reader));
        trace.leave();
        result
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let Self { trace, place } = self;
        let inner = trace.enter(place, type_name::<V>(), Format::List);
        let places = inner.map_or(0..0, |first| first..first + 1);
        let result = visitor.visit_seq(Parts { trace: &mut *trace, places, sizes: &mut Sizes::default() });
        if inner.is_some() {
            trace.leave();
        }
        result
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let Self { trace, place } = self;
        let inner = trace.enter(place, type_name::<V>(), Format::Map);
        let places = inner.map_or(0..0, |first| first..first + 2);
        let result = visitor.visit_map(Parts { trace: &mut *trace, places, sizes: &mut Sizes::default() });
        if inner.is_some() {
            trace.leave();
        }
        result
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        let row = self.trace.found.tuple(self.place, len);
        read_row(self.trace, row, visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.trace.found.named(self.place, Kind::Unit, name, &[], type_name::<V>());
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Self { trace, place } = self;
        let id = trace.found.named(place, Kind::Newtype, name, &[], type_name::<V>());
        let Body::Struct(Content::One(inner)) = trace.found.types[id].body else { return Err(Refused) };
        trace.within(id, |trace| trace.at(inner, "", |reader| visitor.visit_newtype_struct(reader)))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Self { trace, place } = self;
        let id = trace.found.named(place, Kind::tuple(len), name, &[], type_name::<V>());
        let Body::Struct(Content::Tuple(row)) = trace.found.types[id].body else { return Err(Refused) };
        trace.within(id, |trace| read_struct(trace, row, name, visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Self { trace, place } = self;
        let id = trace.found.named(place, Kind::Struct, name, fields, type_name::<V>());
        let Body::Struct(Content::Fields(row)) = trace.found.types[id].body else { return Err(Refused) };
        trace.within(id, |trace| read_struct(trace, row, name, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Self { trace, place } = self;
        let id = trace.found.named(place, Kind::Enum, name, variants, type_name::<V>());
        trace.within_variant(id, |trace, variant, index| visitor.visit_enum(Chosen { trace, variant, index }))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        self.refuse("any", type_name::<V>())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        self.refuse("any", type_name::<V>())
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        self.refuse("identifier", type_name::<V>())
    }
}

fn read_row<'de, V: Visitor<'de>>(trace: &mut Trace, row: usize, visitor: V) -> Result<V::Value, Refused> {
    read_sized(trace, row, visitor).map(|(value, _)| value)
}

fn read_sized<'de, V: Visitor<'de>>(
    trace: &mut Trace,
    row: usize,
    visitor: V,
) -> Result<(V::Value, Sizes), Refused> {
    let places = trace.found.rows[row].places.clone();
    let mut sizes = Sizes::default();
    let value = visitor.visit_seq(Parts { trace: &mut *trace, places, sizes: &mut sizes })?;
    trace.found.rows[row].done = true;
    Ok((value, sizes))
}

/// [`read_row`] for a struct, and sees whether it has fields that are not read.
fn read_struct<'de, V: Visitor<'de>>(
    trace: &mut Trace,
    row: usize,
    name: &'static str,
    visitor: V,
) -> Result<V::Value, Refused> {
    let (value, sizes) = read_sized(trace, row, visitor)?;
    if is_derived(type_name::<V>()) && sizes.leave_room_in::<V::Value>() {
        trace.found.refuse(type_name::<V::Value>(), Problem::HiddenField { name });
    }
    Ok(value)
}

/// Whether a visitor was derived for the type itself: then it reads the type's fields as they are in memory.
fn is_derived(visitor: &str) -> bool {
    let of = visitor.split_once("::Deserialize").map_or("", |(_, of)| of);
    of.contains(" for ") && of.contains("__Visitor")
}

/// Sizes in memory of the fields that were read, in their order.
#[derive(Default)]
struct Sizes {
    sum: usize,
    /// The end of the last one if they stand in their order, as in C.
    end: usize,
}

impl Sizes {
    fn add<T>(&mut self) {
        self.sum += size_of::<T>();
        self.end = self.end.next_multiple_of(align_of::<T>()) + size_of::<T>();
    }

    /// Whether a struct has more memory than these fields need in either layout: some field is not read. Very small
    /// ones can hide where alignment leaves room.
    fn leave_room_in<T>(&self) -> bool {
        size_of::<T>() > self.sum.max(self.end).next_multiple_of(align_of::<T>())
    }
}

/// Values at places that follow one another.
struct Parts<'a> {
    trace: &'a mut Trace,
    places: Range<usize>,
    sizes: &'a mut Sizes,
}

impl Parts<'_> {
    fn read_next<'de, T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(place) = self.places.next() else { return Ok(None) };
        self.sizes.add::<T::Value>();
        self.trace.at(place, type_name::<T::Value>(), |reader| seed.deserialize(reader)).map(Some)
    }
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        self.read_next(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.places.len())
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        self.read_next(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        self.read_next(seed)?.ok_or(Refused)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.places.len() / 2)
    }
}

/// The variant of an enum that was chosen to be read.
struct Chosen<'a> {
    trace: &'a mut Trace,
    variant: usize,
    index: u32,
}

impl<'de> EnumAccess<'de> for Chosen<'_> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refused> {
        let index: U32Deserializer<Refused> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        self.trace.found.holds(self.variant, Kind::Unit, &[]);
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        let content = self.trace.found.holds(self.variant, Kind::Newtype, &[]);
        let Content::One(inner) = content else { return Err(Refused) };
        self.trace.at(inner, type_name::<T::Value>(), |reader| seed.deserialize(reader))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        let content = self.trace.found.holds(self.variant, Kind::tuple(len), &[]);
        let Content::Tuple(row) = content else { return Err(Refused) };
        read_row(self.trace, row, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let content = self.trace.found.holds(self.variant, Kind::Struct, fields);
        let Content::Fields(row) = content else { return Err(Refused) };
        read_row(self.trace, row, visitor)
    }
}
