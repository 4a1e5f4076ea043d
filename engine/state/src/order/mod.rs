//! Keys as bytes whose order is the order of the keys.
//!
//! What an ordered table sorts by, in memory, in RocksDB and in files: comparing two encodings byte by byte gives
//! what comparing the values gives, as `derive(Ord)` does it. Encodings say where they end, so that those of a
//! tuple's fields may follow one another.
//!
//! | type | bytes |
//! |---|---|
//! | unsigned integers, `char` | big endian |
//! | signed integers | big endian, the sign flipped |
//! | `bool` | 0 or 1 |
//! | text, bytes | as they are, 0 as `00 FF`, and `00 00` behind them |
//! | `Option` | 0, or 1 and the value |
//! | tuples, arrays, structs, newtypes | the fields, one after another |
//! | enums | the number of the variant in four bytes, then its fields |
//! | lists | 1 before each element, 0 behind the last |
//!
//! Floating-point numbers have no total order and maps no order that their serialisation keeps: both are refused.
//! The order is that of what a type serialises to: `std::cmp::Reverse` serialises as what is in it, and so does not
//! reverse.

mod read;
#[cfg(test)]
mod tests;
mod write;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;

/// Why a value has no such form, or bytes are not of one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct OrderError(String);

impl OrderError {
    fn refused(what: &str) -> Self {
        Self(format!(
            "{what}, which have no order that bytes can keep; use integers, text, tuples or enums of them"
        ))
    }

    pub(crate) fn damaged(what: &str) -> Self {
        Self(format!("the bytes end or go on where {what} was expected"))
    }
}

impl serde::ser::Error for OrderError {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl serde::de::Error for OrderError {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Appends the encoding of a value; on an error the buffer is as before.
///
/// # Errors
/// The value holds something that has no order-preserving form.
#[inline]
pub fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), OrderError> {
    let before = out.len();
    let outcome = value.serialize(write::Writer { out: &mut *out });
    if outcome.is_err() {
        out.truncate(before);
    }
    outcome
}

/// Takes one value off the front; returns it and the rest.
///
/// # Errors
/// The bytes are not the encoding of such a value.
#[inline]
pub fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), OrderError> {
    let mut reader = read::Reader { bytes };
    let value = T::deserialize(&mut reader)?;
    Ok((value, reader.bytes))
}
