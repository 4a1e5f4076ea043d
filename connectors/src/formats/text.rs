//! Text in UTF-8.

use super::decoder::{Decoder, Format, NotDecoded, Undecodable};
use super::encoder::{Destination, Encoder, Encoding};
use super::framed::Framed;
use staunch_core::Result;

/// Text in UTF-8; in a stream a line each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text;

/// These bytes as text.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Undecodable> {
    std::str::from_utf8(bytes)
        .map_err(|e| Undecodable::new(format!("not UTF-8: {}", what(e))).at(e.valid_up_to()))
}

fn what(error: std::str::Utf8Error) -> &'static str {
    match error.error_len() {
        Some(_) => "bytes that begin no character",
        None => "a character that is cut off at the end",
    }
}

impl Format for Text {
    type Record = String;
    type Decoder = Self;

    fn decoder(&self) -> Result<Self> {
        Ok(Self)
    }
}

impl Framed for Text {
    const HEADER: bool = false;

    fn has_lone_return(&self, bytes: &[u8]) -> bool {
        bytes.contains(&b'\r')
    }

    fn decoder_under(&self, _header: &str) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Decoder for Text {
    type Record = String;

    fn decode(&mut self, bytes: &[u8]) -> Result<Option<String>, NotDecoded> {
        Ok(Some(text(bytes)?.to_owned()))
    }
}

impl<T: AsRef<str>> Encoding<T> for Text {
    type Encoder = Self;

    fn encoder(&self, _: &Destination<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl<T: AsRef<str>> Encoder<T> for Text {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(record.as_ref().as_bytes());
        Ok(())
    }
}
