//! Change events of Debezium: what happened to the rows of a table.
//!
//! An envelope says an operation (`c` create, `r` read by a snapshot, `u` update, `d` delete, `t` truncate), the row before
//! and after it, and where in the source's log it was. Read as JSON with or without the schema that Kafka Connect puts
//! beside it (`{"schema":..,"payload":..}`), or through any other format whose records are [`Envelope`]s.
//!
//! An event that cannot be the change it claims to be (an update without the row after it, a delete without a row, a
//! value that the database did not send) is bad input, and never a change of something else.

use super::decoder::{Decoder, Format, NotDecoded, Undecodable};
use super::json::Json;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use staunch_core::Change;
use staunch_core::Result;

/// What Debezium puts in the place of a large value that was not changed and that the database did not send: as text, and
/// as bytes in Base64.
const UNAVAILABLE: [&[u8]; 2] =
    [b"\"__debezium_unavailable_value\"", b"\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\""];

/// Change events, from envelopes in the format `F`.
#[derive(Clone, Debug)]
pub struct Debezium<F>(F);

impl<T: DeserializeOwned + Send + 'static> Debezium<Json<Envelope<T>>> {
    /// Envelopes in JSON, whose rows are `T`.
    #[must_use]
    pub fn json() -> Self {
        Self(Json::new())
    }
}

impl<F> Debezium<F> {
    /// Envelopes in another format.
    pub fn of(format: F) -> Self {
        Self(format)
    }
}

impl<T: Send + 'static, F: Format<Record = Envelope<T>>> Format for Debezium<F> {
    type Record = Event<T>;
    type Decoder = DebeziumDecoder<F::Decoder>;

    fn check(&self) -> Result<()> {
        self.0.check()
    }

    fn decoder(&self) -> Result<Self::Decoder> {
        Ok(DebeziumDecoder(self.0.decoder()?))
    }
}

/// Turns envelopes into events. Messages without a value, which follow a delete in compacted topics, are passed over: the
/// delete has said it.
#[derive(Debug)]
pub struct DebeziumDecoder<D>(D);

impl<T: Send + 'static, D: Decoder<Record = Envelope<T>>> Decoder for DebeziumDecoder<D> {
    type Record = Event<T>;

    fn decode(&mut self, bytes: &[u8]) -> Result<Option<Event<T>>, NotDecoded> {
        let Some(envelope) = self.0.decode(bytes)? else { return Ok(None) };
        if let Some(at) = UNAVAILABLE.iter().find_map(|text| find(bytes, text)) {
            let why = "a large value is missing, because it was not changed and the database did not send it; set REPLICA \
                       IDENTITY FULL on the table";
            return Err(Undecodable::new(why).at(at).into());
        }
        Ok(envelope.event()?)
    }

    fn decode_deletion(&mut self, _key: Option<&[u8]>) -> Result<Option<Event<T>>, NotDecoded> {
        Ok(None)
    }

    async fn fetch(&mut self) -> Result<()> {
        self.0.fetch().await
    }
}

/// The first place of `wanted`, which begins with a quote.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|found| found == wanted)
}

/// A change, and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event<T> {
    /// What happened.
    pub change: Change<T>,
    /// Where, and when.
    pub origin: Origin,
}

/// Where a change comes from. What a source does not know is absent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The kind of source, such as `postgresql`.
    #[serde(default)]
    pub connector: Option<String>,
    /// The database.
    #[serde(default)]
    pub db: Option<String>,
    /// The schema in it.
    #[serde(default)]
    pub schema: Option<String>,
    /// The table in it.
    #[serde(default)]
    pub table: Option<String>,
    /// When it was changed there, in milliseconds since 1970.
    #[serde(default)]
    pub ts_ms: Option<i64>,
    /// The transaction; PostgreSQL.
    #[serde(default, rename = "txId")]
    pub transaction: Option<i64>,
    /// The place in the log; PostgreSQL.
    #[serde(default)]
    pub lsn: Option<i64>,
    /// The file of the log; MySQL.
    #[serde(default)]
    pub file: Option<String>,
    /// The place in that file; MySQL.
    #[serde(default)]
    pub pos: Option<i64>,
    /// Whether a snapshot has found it: `true`, `first`, `last`, `incremental` or `false`.
    #[serde(default, deserialize_with = "word")]
    pub snapshot: Option<String>,
}

/// Text, or a truth value as text: both have been in use for `snapshot`.
fn word<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Word {
        Text(String),
        Truth(bool),
    }
    Ok(Option::<Word>::deserialize(from)?.map(|word| match word {
        Word::Text(text) => text,
        Word::Truth(truth) => truth.to_string(),
    }))
}

/// An event as Debezium writes it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub struct Envelope<T> {
    /// `c`, `r`, `u`, `d`, `t` or `m`.
    #[serde(default)]
    op: Option<String>,
    #[serde(default)]
    before: Option<T>,
    #[serde(default)]
    after: Option<T>,
    #[serde(default)]
    source: Option<Origin>,
    /// The envelope itself, where its schema is beside it.
    #[serde(default = "Option::default")]
    payload: Option<Box<Envelope<T>>>,
}

impl<T> Envelope<T> {
    /// The change that this is; `None` if it is none of a row.
    fn event(self) -> Result<Option<Event<T>>, Undecodable> {
        if let Some(payload) = self.payload {
            return payload.event();
        }
        let Some(op) = self.op else {
            let why = "no change event of Debezium: it has no `op`; if its rows were unwrapped (ExtractNewRecordState), \
                       read it as what they are";
            return Err(Undecodable::new(why));
        };
        let lacks = |what: &str, advice: &str| {
            Undecodable::new(format!("a change event with op `{op}` has no `{what}`{advice}")).in_field(what)
        };
        let change = match op.as_str() {
            "c" | "r" => Change::Insert(self.after.ok_or_else(|| lacks("after", ""))?),
            "u" => {
                Change::Update { before: self.before, after: self.after.ok_or_else(|| lacks("after", ""))? }
            }
            "d" => {
                let advice = "; the table needs a primary key, or REPLICA IDENTITY FULL";
                Change::Delete(self.before.ok_or_else(|| lacks("before", advice))?)
            }
            "t" => Change::Truncate,
            // A message that was written into the log by hand: no row has changed.
            "m" => return Ok(None),
            _ => {
                let why = format!("`{op}` is no operation of a change event; c, r, u, d, t and m are");
                return Err(Undecodable::new(why).in_field("op"));
            }
        };
        Ok(Some(Event { change, origin: self.source.unwrap_or_default() }))
    }
}
