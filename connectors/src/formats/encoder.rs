//! Records to bytes: the contract of a format that is written.

use staunch_core::Result;
use std::future::{Future, ready};

/// How records become bytes: a description, which opens nothing.
pub trait Encoding<T>: Clone + Send + Sync + 'static {
    /// Turns records into bytes.
    type Encoder: Encoder<T>;

    /// Makes an encoder of messages: each record stands alone.
    ///
    /// # Errors
    /// The settings do not suffice for this destination: a mistake of the job.
    fn encoder(&self, to: &Destination<'_>) -> Result<Self::Encoder>;
}

/// Turns one record into bytes. A key and a value have an encoder each.
pub trait Encoder<T>: Send + 'static {
    /// Does what has to be done outside before the first record, such as registering a schema. Repeats what may pass.
    /// Whoever has an encoder awaits this once, before the first `encode`.
    ///
    /// # Errors
    /// The outside refuses, or cannot be reached.
    fn open(&mut self) -> impl Future<Output = Result<()>> + Send {
        ready(Ok(()))
    }

    /// Appends the bytes of a record to `out`. Never waits.
    ///
    /// # Errors
    /// The record has no such form, or would be read as another one: a mistake of the job, that names the reason. What
    /// `out` has got by then is not to be used.
    fn encode(&mut self, record: &T, out: &mut Vec<u8>) -> Result<()>;
}

/// Where the bytes go; names of schemas are made of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Destination<'a> {
    /// The topic, queue or table.
    pub name: &'a str,
    /// What of a message the bytes are.
    pub part: Part,
}

/// A part of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// What says which thing a message is about.
    Key,
    /// What it says.
    Value,
}

impl<'a> Destination<'a> {
    /// Keys of the messages there.
    pub fn key(name: &'a str) -> Self {
        Self { name, part: Part::Key }
    }

    /// Values of the messages there.
    pub fn value(name: &'a str) -> Self {
        Self { name, part: Part::Value }
    }
}
