//! A message that goes out.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;
use serde::{Deserialize, Serialize};
use staunch_core::{Error, Result};

/// Characters of a key that an error shows.
const MOST_SHOWN: usize = 60;

/// A message for a topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Outgoing {
    /// The topic, if it is another one than the sink's.
    pub topic: Option<String>,
    /// The partition; without it the key chooses one, as the Java clients do it.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the Unix epoch; without it the time at which it is written.
    pub timestamp_ms: Option<i64>,
}

impl Outgoing {
    /// A value without a key.
    #[must_use]
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A value with a key.
    #[must_use]
    pub fn keyed(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..Self::value(value) }
    }

    /// A tombstone: compaction removes the key.
    #[must_use]
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// Bytes that brokers count.
    pub(super) fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value) + 8).sum();
        length(&self.key) + length(&self.value) + headers
    }

    /// Refuses what no topic takes.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = if self.headers.iter().any(|(name, _)| name.contains('\0')) {
            "the name of a header has a zero byte in it"
        } else if self.partition.is_some_and(|partition| partition < 0) {
            "its partition is negative"
        } else if self.timestamp_ms.is_some_and(|ms| ms < 0) {
            "its time is before 1970, which Kafka does not know"
        } else {
            return Ok(());
        };
        Err(Error::job(format!(
            "the message with key {} cannot be written: {wrong}",
            shown(self.key.as_deref())
        )))
    }
}

/// A key, for people.
pub(super) fn shown(key: Option<&[u8]>) -> String {
    let Some(key) = key else { return "(none)".to_owned() };
    let text: String = String::from_utf8_lossy(key).chars().take(MOST_SHOWN).collect();
    format!("{text:?}")
}

impl Outgoing {
    /// The same, for the client library.
    pub(super) fn record<'a, D: IntoOpaque>(
        &'a self,
        topic: &'a str,
        opaque: D,
    ) -> BaseRecord<'a, [u8], [u8], D> {
        let topic = self.topic.as_deref().unwrap_or(topic);
        let mut record: BaseRecord<'_, [u8], [u8], D> = BaseRecord::with_opaque_to(topic, opaque);
        record.partition = self.partition;
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record.timestamp = self.timestamp_ms;
        if !self.headers.is_empty() {
            let all = OwnedHeaders::new_with_capacity(self.headers.len());
            record =
                record.headers(self.headers.iter().fold(all, |headers, (key, value)| {
                    headers.insert(Header { key, value: value.as_deref() })
                }));
        }
        record
    }
}
