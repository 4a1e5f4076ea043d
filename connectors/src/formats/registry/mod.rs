//! Schema registries: which schema a message was written with, by a number before it.
//!
//! The messages are framed as Confluent's serialisers do it: a zero byte, the schema's number in four bytes, the highest
//! first, then the record. The client speaks the registry's HTTP interface, as Confluent's and Apicurio's (`/apis/ccompat/v7`)
//! do.

mod client;

use super::decoder::Undecodable;
use super::encoder::{Destination, Part};
pub use client::{Registered, Registry};

/// What every framed message begins with.
const MAGIC: u8 = 0;
/// Bytes before the record.
const HEAD_BYTES: usize = 5;

/// The number of the schema, and the record.
pub(crate) fn unframe(bytes: &[u8]) -> Result<(u32, &[u8]), Undecodable> {
    let wrong = |why: String| Err(Undecodable::new(why).at(0));
    match bytes {
        [MAGIC, a, b, c, d, record @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), record)),
        [MAGIC, ..] | [] => wrong(format!(
            "{} bytes; a message with a schema's number has {HEAD_BYTES} at least",
            bytes.len()
        )),
        [other, ..] => wrong(format!(
            "the first byte is {other}, and not 0: the message has no schema's number before it; is it in another format?"
        )),
    }
}

/// Appends what stands before a record.
pub(crate) fn frame(id: u32, out: &mut Vec<u8>) {
    out.push(MAGIC);
    out.extend_from_slice(&id.to_be_bytes());
}

impl Destination<'_> {
    /// What the registry calls the schemas of it: the topic's name, and which part.
    pub(crate) fn subject(&self) -> String {
        match self.part {
            Part::Key => format!("{}-key", self.name),
            Part::Value => format!("{}-value", self.name),
        }
    }
}
