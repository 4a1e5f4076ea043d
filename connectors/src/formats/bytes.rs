//! Bytes as they are.

use super::decoder::{Decoder, Format, NotDecoded};
use super::encoder::{Destination, Encoder, Encoding};
use staunch_core::Result;

/// Bytes as they are: nothing is refused, and nothing is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes;

impl Format for Bytes {
    type Record = Vec<u8>;
    type Decoder = Self;

    fn decoder(&self) -> Result<Self> {
        Ok(Self)
    }
}

impl Decoder for Bytes {
    type Record = Vec<u8>;

    fn decode(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, NotDecoded> {
        Ok(Some(bytes.to_owned()))
    }
}

impl<T: AsRef<[u8]>> Encoding<T> for Bytes {
    type Encoder = Self;

    fn encoder(&self, _: &Destination<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl<T: AsRef<[u8]>> Encoder<T> for Bytes {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(record.as_ref());
        Ok(())
    }
}
