//! Avro: bytes that only a schema makes sense of.
//!
//! The bytes do not say their schema. Either the settings have it ([`Avro::written_with`]), or each message begins with the
//! number that a schema registry gave it ([`Avro::registered`]). What was written by one schema is read as another, the
//! reader's, by the rules of the specification: fields with defaults, aliases, promoted numbers, unions, symbols. Without a
//! reader's schema a record is read as it was written, and `Deserialize` says what is wanted.
//!
//! Schemas are parsed by `apache-avro`. Bytes are read here, straight into the record: its own resolution narrows numbers,
//! ignores aliases, and allocates what a length in the bytes claims.

mod plan;
mod read;
#[cfg(feature = "registry")]
mod registered;

use super::decoder::{Decoder, Format, NotDecoded};
use super::encoder::{Destination, Encoder, Encoding};
use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;
use plan::Plan;
#[cfg(feature = "registry")]
pub use registered::{RegisteredAvro, RegisteredAvroDecoder, RegisteredAvroEncoder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_core::{Error, Result};
use std::marker::PhantomData;
use std::sync::Arc;

/// Avro, with schemas that are known beforehand.
#[derive(Debug)]
pub struct Avro<T> {
    writer: Arc<str>,
    reader: Option<Arc<str>>,
    record: PhantomData<fn() -> T>,
}

impl<T> Avro<T> {
    /// Records that this schema, in JSON, wrote or writes.
    pub fn written_with(schema: impl AsRef<str>) -> Self {
        Self { writer: schema.as_ref().into(), reader: None, record: PhantomData }
    }

    /// Reads records as this schema, in JSON, wants them.
    #[must_use]
    pub fn read_as(mut self, schema: impl AsRef<str>) -> Self {
        self.reader = Some(schema.as_ref().into());
        self
    }

    /// Records whose schemas are in a registry, which the bytes name.
    #[cfg(feature = "registry")]
    pub fn registered(registry: &super::Registry) -> RegisteredAvro<T> {
        RegisteredAvro::new(registry)
    }
}

impl<T> Clone for Avro<T> {
    fn clone(&self) -> Self {
        Self { writer: Arc::clone(&self.writer), reader: self.reader.clone(), record: PhantomData }
    }
}

/// A schema of the job's settings.
fn parse(text: &str) -> Result<Schema> {
    Schema::parse_str(text)
        .map_err(|e| Error::job("a schema of the settings is no schema of Avro").caused_by(e))
}

impl<T: DeserializeOwned + Send + 'static> Format for Avro<T> {
    type Record = T;
    type Decoder = AvroDecoder<T>;

    fn check(&self) -> Result<()> {
        self.decoder().map(drop)
    }

    fn decoder(&self) -> Result<AvroDecoder<T>> {
        let writer = parse(&self.writer)?;
        let reader = self.reader.as_ref().map(|reader| parse(reader)).transpose()?;
        let plan = Plan::new(&writer, reader.as_ref().unwrap_or(&writer)).map_err(|why| {
            Error::job(format!(
                "what the writer's schema writes cannot be read as the reader's schema: {why}"
            ))
        })?;
        Ok(AvroDecoder { plan, record: PhantomData })
    }
}

/// Turns Avro of one schema into records.
#[derive(Debug)]
pub struct AvroDecoder<T> {
    plan: Plan,
    record: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + 'static> Decoder for AvroDecoder<T> {
    type Record = T;

    fn decode(&mut self, bytes: &[u8]) -> Result<Option<T>, NotDecoded> {
        Ok(Some(read::read(&self.plan, bytes)?))
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Encoding<T> for Avro<T> {
    type Encoder = AvroEncoder;

    fn encoder(&self, _: &Destination<'_>) -> Result<AvroEncoder> {
        Ok(AvroEncoder { schema: parse(&self.writer)? })
    }
}

/// Turns records into Avro.
#[derive(Debug)]
pub struct AvroEncoder {
    schema: Schema,
}

impl<T: Serialize> Encoder<T> for AvroEncoder {
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<()> {
        write(&self.schema, record, out)
    }
}

/// Appends a record.
fn write(schema: &Schema, record: &impl Serialize, out: &mut Vec<u8>) -> Result<()> {
    let writer = GenericDatumWriter::builder(schema).human_readable(true).build();
    let written = writer.and_then(|writer| writer.write_ser(out, record));
    written.map(drop).map_err(|e| Error::job("a record cannot be written by its Avro schema").caused_by(e))
}
