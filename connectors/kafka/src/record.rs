//! A record of a topic: as it lies in the client's memory, and as a value of one's own.

use rdkafka::bindings as raw;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use staunch_core::source::{DeadLetter, base64};
use std::ffi::CStr;
use std::ptr;
use std::slice;

/// A record of a topic, with all that Kafka says of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The topic it is from.
    pub topic: String,
    /// Its partition there.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch, given by the producer or by the broker as the topic has it.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in their order. A name may come more than once.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record of a topic in the memory of the client, for a decoder to look at.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    message: &'a raw::rd_kafka_message_t,
    topic: &'a str,
}

impl std::fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.place())
    }
}

impl<'a> Incoming<'a> {
    /// `message` is a record, and no error or event.
    pub(crate) fn new(message: &'a raw::rd_kafka_message_t, topic: &'a str) -> Self {
        Self { message, topic }
    }

    /// The topic it is from.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.message.partition
    }

    /// Its place in the partition.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.message.offset
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: a record has `key_len` bytes at `key`, which live as long as it does.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    /// The value; none is a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as for the key.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = raw::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: reads a field of a message that lives.
        let time = unsafe { raw::rd_kafka_message_timestamp(self.message, &raw mut kind) };
        (kind != raw::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && time >= 0)
            .then_some(time)
    }

    /// Names and values of the headers, in their order. They are parsed when this is called.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let mut headers = ptr::null_mut();
        // SAFETY: the list belongs to the message, which it only parses at the first call; a message is looked at by one
        // thread.
        let code = unsafe { raw::rd_kafka_message_headers(self.message, &raw mut headers) };
        let known = code == raw::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        let mut next = 0;
        std::iter::from_fn(move || {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: name and value live as long as the message.
            unsafe {
                let got = known.then(|| {
                    raw::rd_kafka_header_get_all(
                        headers,
                        next,
                        &raw mut name,
                        &raw mut value,
                        &raw mut length,
                    )
                });
                next += 1;
                let there = got == Some(raw::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
                // Names are text by the protocol.
                there.then(|| (CStr::from_ptr(name).to_str().unwrap_or_default(), bytes(value, length)))
            }
        })
    }

    /// Where it is, for people.
    #[must_use]
    pub fn place(&self) -> String {
        format!("topic {} partition {} offset {}", self.topic, self.partition(), self.offset())
    }

    /// The dead letter of it: all of its value, and beside it where it was and what came with it. Brokers have a limit for
    /// messages, so none is needed here.
    #[must_use]
    pub fn letter(&self, reason: impl Into<String>) -> DeadLetter {
        let mut beside = Map::new();
        beside.insert("topic".into(), self.topic.into());
        beside.insert("partition".into(), self.partition().into());
        beside.insert("offset".into(), self.offset().into());
        beside.insert("timestamp_ms".into(), self.timestamp_ms().into());
        beside.insert("key".into(), text(self.key()));
        let headers = self.headers().map(|(name, value)| json!([name, text(value)])).collect();
        beside.insert("headers".into(), Value::Array(headers));
        if self.value().is_none() {
            beside.insert("tombstone".into(), true.into());
        }
        DeadLetter::whole(self.place(), reason, self.value().unwrap_or_default()).with(&beside)
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        /// Topic, numbers and what is around them.
        const FIXED: usize = 64;
        FIXED + self.message.len + self.message.key_len
    }

    /// A value of one's own.
    #[must_use]
    pub fn to_record(&self) -> Record {
        Record {
            topic: self.topic.to_owned(),
            partition: self.partition(),
            offset: self.offset(),
            timestamp_ms: self.timestamp_ms(),
            key: self.key().map(<[u8]>::to_vec),
            value: self.value().map(<[u8]>::to_vec),
            headers: self
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

/// Bytes as JSON: text, or `{"base64": ...}` if they are none.
fn text(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => text.into(),
        Some((bytes, Err(_))) => json!({ "base64": base64(bytes) }),
    }
}

/// None is no value; an empty one has a place.
unsafe fn bytes<'a>(at: *const std::ffi::c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's.
    (!at.is_null()).then(|| unsafe { slice::from_raw_parts(at.cast(), length) })
}
