//! Bytes and a plan to a record.

use super::plan::{Fallback, Node, Number, Plan, Record};
use crate::formats::Undecodable;
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use std::fmt::{self, Display};

/// Values within values.
const MAX_DEPTH: usize = 128;
/// Items of a list that take no bytes: a few bytes could announce any number of them.
const MAX_EMPTY_ITEMS: usize = 1 << 16;

/// Reads a record of all of these bytes.
pub(crate) fn read<T: DeserializeOwned>(plan: &Plan, bytes: &[u8]) -> Result<T, Undecodable> {
    let mut input = Input { bytes, at: 0 };
    let read = T::deserialize(Reading { plan, node: plan.root, depth: 0, input: &mut input });
    let at = input.at;
    let record = read.map_err(|wrong| wrong.undecodable(at))?;
    match bytes.len() - at {
        0 => Ok(record),
        more => Err(Undecodable::new(format!(
            "{more} bytes behind the record; was it written with another schema?"
        ))
        .at(at)),
    }
}

/// What is wrong, and the fields around it, the innermost first.
#[derive(Debug)]
pub(super) struct Wrong {
    reason: String,
    fields: Vec<String>,
}

impl Wrong {
    fn in_field(mut self, field: &str) -> Self {
        self.fields.push(field.to_owned());
        self
    }

    fn undecodable(self, at: usize) -> Undecodable {
        let wrong = Undecodable::new(self.reason);
        let wrong = match self.fields.is_empty() {
            true => wrong,
            false => wrong.in_field(self.fields.into_iter().rev().collect::<Vec<_>>().join(".")),
        };
        wrong.at(at)
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: Display>(reason: T) -> Self {
        Self { reason: reason.to_string(), fields: Vec::new() }
    }
}

struct Input<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Input<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], Wrong> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or_else(|| {
            Wrong::custom(format_args!(
                "the bytes end: {length} more are expected, and {} are there",
                rest.len()
            ))
        })?;
        self.at += length;
        Ok(taken)
    }

    fn long(&mut self) -> Result<i64, Wrong> {
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(Wrong::custom("a number has more than 64 bits"))
    }

    fn int(&mut self) -> Result<i32, Wrong> {
        let long = self.long()?;
        i32::try_from(long).map_err(|_| Wrong::custom(format_args!("{long} is no int, which has 32 bits")))
    }

    fn sized(&mut self) -> Result<&'b [u8], Wrong> {
        let length = self.long()?;
        let length =
            usize::try_from(length).map_err(|_| Wrong::custom(format_args!("{length} is no length")))?;
        self.take(length)
    }

    fn text(&mut self) -> Result<&'b str, Wrong> {
        let bytes = self.sized()?;
        std::str::from_utf8(bytes).map_err(|_| Wrong::custom("text that is not UTF-8"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        self.take(N)?.try_into().map_err(Wrong::custom)
    }
}

/// A value that is read.
struct Reading<'p, 'i, 'b> {
    plan: &'p Plan,
    node: usize,
    depth: usize,
    input: &'i mut Input<'b>,
}

impl<'p, 'b> Reading<'p, '_, 'b> {
    fn node(&self) -> &'p Node {
        &self.plan.nodes[self.node]
    }

    fn inner(&mut self, node: usize) -> Result<Reading<'p, '_, 'b>, Wrong> {
        if self.depth == MAX_DEPTH {
            return Err(Wrong::custom(format_args!("more than {MAX_DEPTH} values within each other")));
        }
        Ok(Reading { plan: self.plan, node, depth: self.depth + 1, input: &mut *self.input })
    }

    /// The branch that was written: its name and its node.
    fn branch(&mut self, branches: &'p [(String, usize)]) -> Result<&'p (String, usize), Wrong> {
        let index = self.input.long()?;
        let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
        branch.ok_or_else(|| {
            Wrong::custom(format_args!("branch {index} of a union that has {}", branches.len()))
        })
    }

    fn number<'de, V: Visitor<'de>>(
        &mut self,
        wire: Number,
        to: Number,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let whole = match wire {
            Number::Int => i64::from(self.input.int()?),
            Number::Long => self.input.long()?,
            Number::Float => {
                let float = f32::from_le_bytes(self.input.array()?);
                return if to == Number::Float {
                    visitor.visit_f32(float)
                } else {
                    visitor.visit_f64(f64::from(float))
                };
            }
            Number::Double => return visitor.visit_f64(f64::from_le_bytes(self.input.array()?)),
        };
        let inexact = || {
            Wrong::custom(
                format_args!("{whole} was written, and no {to:?} is exactly that").to_string().to_lowercase(),
            )
        };
        match to {
            Number::Int => visitor.visit_i32(whole as i32),
            Number::Long => visitor.visit_i64(whole),
            Number::Float if (whole as f32) as i128 == i128::from(whole) => visitor.visit_f32(whole as f32),
            Number::Double if (whole as f64) as i128 == i128::from(whole) => visitor.visit_f64(whole as f64),
            Number::Float | Number::Double => Err(inexact()),
        }
    }
}

/// The digits of a decimal: a number in two's complement, the highest byte first.
fn decimal(bytes: &[u8], scale: usize) -> Result<String, Wrong> {
    if bytes.len() > 16 {
        return Err(Wrong::custom(format_args!("a decimal of {} bytes; up to 16 are read", bytes.len())));
    }
    let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let start = if negative { -1_i128 } else { 0 };
    let unscaled = bytes.iter().fold(start, |number, byte| number << 8 | i128::from(*byte));
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if negative { "-" } else { "" };
    Ok(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

fn uuid(bytes: &[u8]) -> Result<String, Wrong> {
    if bytes.len() != 16 {
        return Err(Wrong::custom(format_args!("a UUID of {} bytes", bytes.len())));
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

impl<'de> Deserializer<'de> for Reading<'_, '_, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Wrong> {
        match self.node() {
            Node::Open => Err(Wrong::custom("the plan of a schema is not complete (a bug)")),
            Node::Null => visitor.visit_unit(),
            Node::Boolean => match self.input.take(1)? {
                [0] => visitor.visit_bool(false),
                [1] => visitor.visit_bool(true),
                other => Err(Wrong::custom(format_args!("byte {} is no boolean", other[0]))),
            },
            Node::Number { wire, to } => self.number(*wire, *to, visitor),
            Node::Bytes => visitor.visit_bytes(self.input.sized()?),
            Node::Text | Node::BytesAsText => visitor.visit_str(self.input.text()?),
            Node::Fixed(size) => visitor.visit_bytes(self.input.take(*size)?),
            Node::Decimal { scale, size } => {
                let bytes = match size {
                    Some(size) => self.input.take(*size)?,
                    None => self.input.sized()?,
                };
                visitor.visit_string(decimal(bytes, *scale)?)
            }
            Node::Uuid { sized } => {
                let bytes = if *sized { self.input.sized()? } else { self.input.take(16)? };
                visitor.visit_string(uuid(bytes)?)
            }
            Node::Enum(symbols) => visitor.visit_str(self.symbol(symbols)?),
            Node::Array(items) => {
                let mut items = Blocks::new(self, *items);
                let list = visitor.visit_seq(&mut items)?;
                items.end().map(|()| list)
            }
            Node::Map(items) => {
                let mut items = Blocks::new(self, *items);
                let map = visitor.visit_map(&mut items)?;
                items.end().map(|()| map)
            }
            Node::Record(record) => {
                visitor.visit_map(Fields { reading: self, record, next: 0, at_default: 0 })
            }
            Node::Union(branches) => {
                let node = self.branch(branches)?.1;
                self.inner(node)?.deserialize_any(visitor)
            }
            Node::Refused(why) => Err(Wrong::custom(why)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Wrong> {
        match self.node() {
            Node::Null => visitor.visit_none(),
            Node::Union(branches) => {
                let node = self.branch(branches)?.1;
                self.inner(node)?.deserialize_option(visitor)
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Wrong> {
        let bytes = match self.node() {
            Node::Bytes => self.input.sized()?,
            Node::Fixed(size) => self.input.take(*size)?,
            Node::Union(branches) => {
                let node = self.branch(branches)?.1;
                return self.inner(node)?.deserialize_seq(visitor);
            }
            _ => return self.deserialize_any(visitor),
        };
        let mut bytes = SeqDeserializer::<_, Wrong>::new(bytes.iter().copied());
        let list = visitor.visit_seq(&mut bytes)?;
        // A list of fixed length takes no more than it has places.
        bytes.end().map(|()| list)
    }

    /// Whole numbers that it does not hold exactly are refused, and not rounded by the type that takes them.
    fn deserialize_f64<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Wrong> {
        match self.node() {
            Node::Union(branches) => {
                let node = self.branch(branches)?.1;
                self.inner(node)?.deserialize_f64(visitor)
            }
            Node::Number { wire, to: Number::Int | Number::Long } => {
                self.number(*wire, Number::Double, visitor)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Wrong> {
        match self.node() {
            Node::Union(branches) => {
                let node = self.branch(branches)?.1;
                self.inner(node)?.deserialize_f32(visitor)
            }
            Node::Number { wire: Number::Double, .. } => {
                let written = f64::from_le_bytes(self.input.array()?);
                let narrow = written as f32;
                if f64::from(narrow) == written || written.is_nan() {
                    visitor.visit_f32(narrow)
                } else {
                    Err(Wrong::custom(format_args!("{written} was written, and no float is exactly that")))
                }
            }
            Node::Number { wire, .. } => self.number(*wire, Number::Float, visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    /// Of an Avro enum its symbol; of a union the branch, by the name of its type.
    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.node() {
            Node::Enum(symbols) => {
                visitor.visit_enum(IntoDeserializer::<Wrong>::into_deserializer(self.symbol(symbols)?))
            }
            Node::Text => {
                visitor.visit_enum(IntoDeserializer::<Wrong>::into_deserializer(self.input.text()?))
            }
            Node::Union(branches) => {
                let (name, node) = self.branch(branches)?;
                match &self.plan.nodes[*node] {
                    // An enum that may be absent: its symbol is the variant.
                    Node::Enum(_) => self.inner(*node)?.deserialize_any(EnumOf(visitor)),
                    _ => visitor.visit_enum(Branch { name, reading: self.inner(*node)? }),
                }
            }
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct
        map struct identifier ignored_any
    }
}

/// Takes the symbol of an enum for a variant.
struct EnumOf<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for EnumOf<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: serde::de::Error>(self, symbol: &str) -> Result<V::Value, E> {
        self.0.visit_enum(IntoDeserializer::<E>::into_deserializer(symbol))
    }
}

impl<'p> Reading<'p, '_, '_> {
    fn symbol(&mut self, symbols: &'p [Result<String, String>]) -> Result<&'p str, Wrong> {
        let index = self.input.int()?;
        let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
        let symbol = symbol.ok_or_else(|| {
            Wrong::custom(format_args!("symbol {index} of an enum that has {}", symbols.len()))
        })?;
        symbol.as_deref().map_err(Wrong::custom)
    }
}

/// The fields of a record, in the order of the bytes; then those that are not in them.
struct Fields<'p, 'i, 'b> {
    reading: Reading<'p, 'i, 'b>,
    record: &'p Record,
    next: usize,
    at_default: usize,
}

impl<'de> MapAccess<'de> for Fields<'_, '_, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        while let Some((name, node)) = self.record.fields.get(self.next) {
            if let Some(name) = name {
                return seed.deserialize(StrDeserializer::new(name)).map(Some);
            }
            self.reading.inner(*node)?.deserialize_ignored_any(serde::de::IgnoredAny)?;
            self.next += 1;
        }
        match self.record.defaults.get(self.at_default) {
            Some((name, _)) => seed.deserialize(StrDeserializer::new(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        if let Some((name, node)) = self.record.fields.get(self.next) {
            self.next += 1;
            let value = seed.deserialize(self.reading.inner(*node)?);
            return value.map_err(|wrong| wrong.in_field(name.as_deref().unwrap_or_default()));
        }
        let (name, default) = &self.record.defaults[self.at_default];
        self.at_default += 1;
        let value = match default {
            Fallback::Json(value) => seed.deserialize(value.clone()).map_err(Wrong::custom),
            Fallback::Bytes(bytes) => seed.deserialize(DefaultBytes(bytes)),
        };
        value.map_err(|wrong| wrong.in_field(name))
    }
}

/// Bytes that a schema has as a default; also for those who take a list of numbers.
struct DefaultBytes<'p>(&'p [u8]);

impl<'de> Deserializer<'de> for DefaultBytes<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_bytes(self.0)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let mut bytes = SeqDeserializer::<_, Wrong>::new(self.0.iter().copied());
        let list = visitor.visit_seq(&mut bytes)?;
        bytes.end().map(|()| list)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The items of an array or a map: blocks, each with its number of items.
struct Blocks<'p, 'i, 'b> {
    reading: Reading<'p, 'i, 'b>,
    item: usize,
    /// Items that are left of the block.
    left: u64,
    ended: bool,
    empty: usize,
    read: usize,
}

impl<'p, 'i, 'b> Blocks<'p, 'i, 'b> {
    fn new(reading: Reading<'p, 'i, 'b>, item: usize) -> Self {
        Self { reading, item, left: 0, ended: false, empty: 0, read: 0 }
    }

    /// Whether there is one more item.
    fn more(&mut self) -> Result<bool, Wrong> {
        if self.left == 0 && !self.ended {
            let count = self.reading.input.long()?;
            if count < 0 {
                // Its size in bytes, for those who pass over it.
                self.reading.input.long()?;
            }
            (self.left, self.ended) = (count.unsigned_abs(), count == 0);
        }
        Ok(!self.ended)
    }

    /// All items were taken, and the mark behind them is read.
    fn end(mut self) -> Result<(), Wrong> {
        match self.more()? {
            false => Ok(()),
            true => {
                let taken = self.read;
                Err(Wrong::custom(format_args!("more than the {taken} items that the type has room for")))
            }
        }
    }

    fn value<'de, V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let before = self.reading.input.at;
        let (item, number) = (self.item, self.read);
        let value = seed
            .deserialize(self.reading.inner(item)?)
            .map_err(|wrong| wrong.in_field(&format!("[{number}]")))?;
        self.empty += usize::from(self.reading.input.at == before);
        if self.empty > MAX_EMPTY_ITEMS {
            return Err(Wrong::custom(format_args!("more than {MAX_EMPTY_ITEMS} items that take no bytes")));
        }
        (self.left, self.read) = (self.left - 1, self.read + 1);
        Ok(value)
    }
}

impl<'de> SeqAccess<'de> for Blocks<'_, '_, '_> {
    type Error = Wrong;

    fn next_element_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<Option<V::Value>, Wrong> {
        if self.more()? { self.value(seed).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Blocks<'_, '_, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        if !self.more()? {
            return Ok(None);
        }
        let key = self.reading.input.text()?;
        seed.deserialize(StrDeserializer::<Wrong>::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        self.value(seed)
    }
}

/// A branch of a union as a variant of an enum.
struct Branch<'p, 'i, 'b> {
    name: &'p str,
    reading: Reading<'p, 'i, 'b>,
}

impl<'de, 'p, 'i, 'b> EnumAccess<'de> for Branch<'p, 'i, 'b> {
    type Error = Wrong;
    type Variant = Reading<'p, 'i, 'b>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Wrong> {
        let name = seed.deserialize(StrDeserializer::<Wrong>::new(self.name))?;
        Ok((name, self.reading))
    }
}

impl<'de> VariantAccess<'de> for Reading<'_, '_, '_> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        self.deserialize_ignored_any(serde::de::IgnoredAny).map(drop)
    }

    fn newtype_variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<V::Value, Wrong> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_any(visitor)
    }
}
