//! JSON.

use super::decoder::{Decoder, Format, NotDecoded, Undecodable};
use super::encoder::{Destination, Encoder, Encoding};
use super::exact::{Exact, Form};
use super::framed::Framed;
use super::text::text;
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_core::{Error, Result};
use std::marker::PhantomData;

/// A JSON value; in a stream on a line each, where empty lines are passed over.
#[derive(Debug)]
pub struct Json<T> {
    record: PhantomData<fn() -> T>,
    /// Bytes of white space alone are no record, and no bad input.
    may_be_empty: bool,
}

impl<T> Json<T> {
    /// JSON values of this type.
    #[must_use]
    pub fn new() -> Self {
        Self { record: PhantomData, may_be_empty: false }
    }
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<T: DeserializeOwned + Send + 'static> Format for Json<T> {
    type Record = T;
    type Decoder = Self;

    fn decoder(&self) -> Result<Self> {
        Ok(self.clone())
    }
}

impl<T: DeserializeOwned + Send + 'static> Framed for Json<T> {
    const HEADER: bool = false;

    fn decoder_under(&self, _header: &str) -> Result<Self, String> {
        Ok(Self { may_be_empty: true, ..self.clone() })
    }
}

impl<T: DeserializeOwned + Send + 'static> Decoder for Json<T> {
    type Record = T;

    fn decode(&mut self, bytes: &[u8]) -> Result<Option<T>, NotDecoded> {
        let text = text(bytes)?;
        if self.may_be_empty && text.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(text).map(Some).map_err(|e| explain(text, &e).into())
    }
}

fn explain(text: &str, error: &serde_json::Error) -> Undecodable {
    // Where it is one line, perhaps of many, "line 1" would mislead.
    let reason = error.to_string().replace(" at line 1 column ", " at column ");
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = Some(before + error.column().saturating_sub(1));
    Undecodable { offset, ..Undecodable::new(reason) }
}

impl<T: Serialize + Send + 'static> Encoding<T> for Json<T> {
    type Encoder = Self;

    fn encoder(&self, _: &Destination<'_>) -> Result<Self> {
        Ok(self.clone())
    }
}

impl<T: Serialize + Send + 'static> Encoder<T> for Json<T> {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<()> {
        encode(record, out)
    }
}

/// Appends a record as JSON.
pub(super) fn encode(record: &(impl Serialize + ?Sized), out: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(out, &Exact::new(record, Form::Json))
        .map_err(|e| Error::job("a record cannot be written as JSON").caused_by(e))
}
