//! What is in the bytes that a connector carries: a connector is transport, a format is content.
//!
//! | format | decodes | encodes | as a stream of records |
//! |---|---|---|---|
//! | [`Bytes`] | the bytes as they are | what is bytes | - |
//! | [`Text`] | UTF-8 | what is text | a line each |
//! | [`Json`] | any `Deserialize` | any `Serialize` | a line each ([`JsonLines`]) |
//! | `Avro` (feature `avro`) | any `Deserialize`, by schemas | any `Serialize` | - |
//! | [`Debezium`] | change events, from envelopes in another format | - | - |
//! | [`Csv`] | structs, by column name | structs and tuples | records with a header ([`CsvRecords`]) |
//!
//! **The contract.** A [`Format`] is a description, as a source is; it makes a [`Decoder`] for each split. A decoder
//! gets the bytes of one record and gives the record, or says what is wrong ([`Undecodable`]: what was found, what was
//! expected, in which field, at which byte). The transport has the raw bytes and the position; both go into the dead
//! letter, see [`Undecodable::letter`]. An [`Encoding`] makes an [`Encoder`], which appends the bytes of one record.
//! Where records lie one behind the other in one stream of bytes, [`Framed`] says where each ends, apart from what is
//! in it, and a [`StreamEncoder`] writes them so that this holds.
//!
//! **What every format keeps to.** A record is read as what was written, or refused: numbers that would change,
//! columns of one name, an empty text that would become no text. `docs/formats.md` says what each refuses.
//!
//! Knows no files, topics or tables.

#[cfg(feature = "avro")]
mod avro;
mod bytes;
mod csv;
mod debezium;
mod decoder;
mod encoder;
mod exact;
mod framed;
mod json;
mod quotes;
#[cfg(feature = "registry")]
mod registry;
mod stream;
mod text;

#[cfg(feature = "avro")]
pub use self::avro::{Avro, AvroDecoder, AvroEncoder};
#[cfg(all(feature = "avro", feature = "registry"))]
pub use self::avro::{RegisteredAvro, RegisteredAvroDecoder, RegisteredAvroEncoder};
pub use self::bytes::Bytes;
pub use self::csv::{Csv, CsvDecoder, CsvEncoder};
pub use debezium::{Debezium, DebeziumDecoder, Envelope, Event, Origin};
pub use decoder::{Decoder, Format, NotDecoded, Undecodable};
pub use encoder::{Destination, Encoder, Encoding, Part};
pub(crate) use exact::{Exact, Form};
pub use framed::Framed;
pub use json::Json;
pub(crate) use quotes::line_end;
pub use quotes::{End, Scan};
#[cfg(feature = "registry")]
pub use registry::{Registered, Registry};
pub use staunch_core::Change;
pub use stream::{CsvRecords, JsonLines, StreamEncoder, Unwritten};
pub use text::Text;
