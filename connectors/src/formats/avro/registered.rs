//! Avro whose schemas are in a registry: a magic byte and the schema's number stand before each record.

use super::plan::Plan;
use super::{parse, read, write};
use crate::formats::registry::{Registered, Registry, frame, unframe};
use crate::formats::{Decoder, Destination, Encoder, Encoding, Format, NotDecoded, Undecodable};
use apache_avro::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch_core::{Error, Result};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

/// Schemas that a decoder keeps the plans of; beyond, all are worked out anew.
const MAX_PLANS: usize = 1000;

/// Avro in messages that name their schema by its number in a registry.
#[derive(Debug)]
pub struct RegisteredAvro<T> {
    registry: Registry,
    reader: Option<Arc<str>>,
    register: bool,
    record: PhantomData<fn() -> T>,
}

impl<T> RegisteredAvro<T> {
    pub(super) fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), reader: None, register: false, record: PhantomData }
    }

    /// The schema, in JSON, that records are read as, and that they are written with.
    #[must_use]
    pub fn schema(mut self, schema: impl AsRef<str>) -> Self {
        self.reader = Some(schema.as_ref().into());
        self
    }

    /// Registers the schema before the first record is written. Without this it must be registered already.
    #[must_use]
    pub fn register(mut self, register: bool) -> Self {
        self.register = register;
        self
    }
}

impl<T> Clone for RegisteredAvro<T> {
    fn clone(&self) -> Self {
        let (registry, reader) = (self.registry.clone(), self.reader.clone());
        Self { registry, reader, register: self.register, record: PhantomData }
    }
}

impl<T: DeserializeOwned + Send + 'static> Format for RegisteredAvro<T> {
    type Record = T;
    type Decoder = RegisteredAvroDecoder<T>;

    fn check(&self) -> Result<()> {
        self.decoder().map(drop)
    }

    fn decoder(&self) -> Result<RegisteredAvroDecoder<T>> {
        let reader = self.reader.as_ref().map(|reader| parse(reader)).transpose()?;
        let registry = self.registry.clone();
        Ok(RegisteredAvroDecoder {
            registry,
            reader,
            plans: HashMap::new(),
            lacks: None,
            record: PhantomData,
        })
    }
}

/// Turns messages into records; knows the schemas that it has met.
#[derive(Debug)]
pub struct RegisteredAvroDecoder<T> {
    registry: Registry,
    reader: Option<Schema>,
    /// By number; those that cannot be used say why.
    plans: HashMap<u32, Result<Plan, String>>,
    /// The number of the schema that the last message needs.
    lacks: Option<u32>,
    record: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + 'static> Decoder for RegisteredAvroDecoder<T> {
    type Record = T;

    fn decode(&mut self, bytes: &[u8]) -> Result<Option<T>, NotDecoded> {
        let (id, record) = unframe(bytes)?;
        match self.plans.get(&id) {
            None => {
                self.lacks = Some(id);
                Err(NotDecoded::Lacks)
            }
            Some(Err(why)) => Err(Undecodable::new(format!("schema {id}: {why}")).into()),
            Some(Ok(plan)) => Ok(Some(read::read(plan, record)?)),
        }
    }

    async fn fetch(&mut self) -> Result<()> {
        let Some(id) = self.lacks.take() else { return Ok(()) };
        let found = self.registry.schema(id).await?;
        let plan = match &found {
            None => Err(format!("the schema registry {} does not have it", self.registry)),
            Some(found) => self.plan(found),
        };
        if self.plans.len() >= MAX_PLANS {
            self.plans.clear();
        }
        self.plans.insert(id, plan);
        Ok(())
    }
}

impl<T> RegisteredAvroDecoder<T> {
    fn plan(&self, found: &Registered) -> Result<Plan, String> {
        if found.kind != "AVRO" {
            return Err(format!("it is of type {}, and not of Avro", found.kind));
        }
        // Only the whole schema is usable, with what it refers to in its place.
        let writer =
            Schema::parse_str_with_list(&found.text, &found.references).map_err(|e| e.to_string())?.0;
        let mut whole = writer;
        let others = Schema::parse_list(&found.references).map_err(|e| e.to_string())?;
        whole.denormalize(&others).map_err(|e| e.to_string())?;
        Plan::new(&whole, self.reader.as_ref().unwrap_or(&whole))
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Encoding<T> for RegisteredAvro<T> {
    type Encoder = RegisteredAvroEncoder;

    fn encoder(&self, to: &Destination<'_>) -> Result<RegisteredAvroEncoder> {
        let Some(text) = self.reader.clone() else {
            return Err(Error::job("to write Avro, give its schema with `.schema(..)`"));
        };
        let (schema, registry) = (parse(&text)?, self.registry.clone());
        Ok(RegisteredAvroEncoder {
            registry,
            subject: to.subject(),
            register: self.register,
            text,
            schema,
            id: None,
        })
    }
}

/// Turns records into messages that name their schema.
#[derive(Debug)]
pub struct RegisteredAvroEncoder {
    registry: Registry,
    subject: String,
    register: bool,
    text: Arc<str>,
    schema: Schema,
    /// Once the registry has said it.
    id: Option<u32>,
}

impl<T: Serialize> Encoder<T> for RegisteredAvroEncoder {
    async fn open(&mut self) -> Result<()> {
        let (subject, text) = (&self.subject, &self.text);
        let id = match self.register {
            true => self.registry.register(subject, "AVRO", text).await?,
            false => self.registry.lookup(subject, "AVRO", text).await?,
        };
        self.id = Some(id);
        Ok(())
    }

    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<()> {
        let Some(id) = self.id else {
            return Err(Error::internal("a record is encoded before its encoder was opened"));
        };
        frame(id, out);
        write(&self.schema, record, out)
    }
}
